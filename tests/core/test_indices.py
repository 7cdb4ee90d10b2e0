"""Numbers of groups that are no cell's are refused, in every row of all data, by factor, plate and value.

However the index is made and wherever it stands (a column, from a column, in vmap, in jit), also in plain
arrays and by `categorical`. Statistics are indexed as NumPy indexes their arrays.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from vbjax.families import MultivariateNormalStatistics, NormalStatistics
from vbjax.terms import categorical, dirichlet, gamma, normal

G, N = 3, 24  # groups; the first rows, at which the probes look, are of all of them
GROUP = np.arange(N) % G


def prior(s):
    return normal(s.a, 0.0, 1.0).sum() + gamma(s.tau, 1.0, 1.0)


def grouped(rows, plate=(G,), **hyper):
    factors = dict(a=vb.Normal(plate), tau=vb.Gamma())
    return vb.Model(factors=factors, log_prior=prior, log_likelihood=rows, hyper=hyper)


def by_column(s, rows):
    return normal(rows[0], s.a[rows[1]], s.tau)


def from_column(s, rows):
    return normal(rows[0], s.a[rows[1] + 1 - 1], s.tau)


def in_vmap(s, rows):
    return jax.vmap(lambda x, group: normal(x, s.a[group], s.tau))(*rows)


def in_jit(s, rows):
    return jax.jit(lambda a, x, group, tau: normal(x, a[group], tau))(s.a, *rows, s.tau)


def by_two(s, rows):
    return normal(rows[0], s.a[rows[1], :][:, 0], s.tau)


def inspect(model, group):
    x = jnp.zeros(N)
    return model.inspect((x, jnp.asarray(group)))


MODELS = {
    "column": grouped(by_column),
    "made from a column": grouped(from_column),
    "vmap": grouped(in_vmap),
    "jit": grouped(in_jit),
    "of two axes": grouped(by_two, plate=(G, 2)),
}


@pytest.mark.parametrize("name", MODELS)
def test_groups_that_do_not_exist_are_refused(name):
    inspect(MODELS[name], GROUP)
    for row, value in (N - 1, G), (N - 2, -1):
        wrong = GROUP.copy()
        wrong[row] = value
        with pytest.raises(ValueError, match=rf"log_likelihood .*a.*\({G}.* {value} ") as error:
            inspect(MODELS[name], wrong)
        if name == "column":
            plate = rf"log_likelihood reads s.a, whose plate is ({G},), at {value} in row {row} of the data"
            assert str(error.value).startswith(f"{plate}: its cells have the numbers 0 to {G - 1}")
    inspect(MODELS[name], GROUP)


def test_a_fit_looks_at_the_values_of_every_data_set():
    x = np.random.default_rng(0).normal(size=N).astype("float32")
    own, how = grouped(by_column), dict(key=jax.random.key(0), max_iter=20)
    vb.fit(own, (x, GROUP), **how)
    for group in GROUP + 1, GROUP - 1:
        with pytest.raises(ValueError, match=r"s\.a, whose plate is"):
            vb.fit(own, (x, group), **how)
    batches = iter([(x[:12], GROUP[:12]), (x[12:], GROUP[12:] + 1)])
    with pytest.raises(ValueError, match=f"at {G} in row 2 of the data"):
        vb.fit_stochastic(own, batches, key=jax.random.key(0), total_rows=N)
    inside = jax.jit(lambda x, group: vb.fit(own, (x, group), **how).objective)  # values cannot be seen
    assert np.isfinite(inside(x, GROUP + 1))


def test_arrays_and_categories_are_looked_at_too():
    own = grouped(lambda s, rows: normal(rows[0] - s.offset[rows[1]], s.a[0], s.tau), offset=jnp.zeros(G))
    inspect(own, GROUP)
    with pytest.raises(ValueError, match=f"index that is out of range.*index {G} is out of bounds.*size {G}"):
        inspect(own, GROUP + 1)
    categories = vb.Model(
        factors=dict(p=vb.Dirichlet(G)),
        log_prior=lambda s: dirichlet(s.p, 1.0),
        log_likelihood=lambda s, x: categorical(x, s.p),
    )
    assert categories.inspect(jnp.asarray(GROUP)).blocks == (("p",),)
    with pytest.raises(ValueError, match=f"index {G} is out of bounds"):
        categories.inspect(jnp.asarray(GROUP + 1))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (G, rf"an index of {G} into a plate of shape \({G},\): its cells have the numbers 0 to 2"),
        (-G - 1, f"an index of {-G - 1} into a plate"),
        (np.full(4, G), f"an index of {G} into a plate"),
        (np.full(4, -1), "an index of -1 into a plate"),
        ((0, 0), rf"an index takes 2 axes of a plate of shape \({G},\)"),
    ],
)
def test_what_is_seen_to_be_wrong_is_refused_at_once(index, message):
    with pytest.raises(IndexError, match=message):
        vb.Normal((G,)).neutral("float32").expected()[index]
    with pytest.raises(ValueError, match=rf"log_likelihood cannot .*a: Normal\(plate=\({G},\)\).*{message}"):
        inspect(grouped(lambda s, rows: normal(rows[0], s.a[index], s.tau)), GROUP)


INDICES = [
    0,
    -1,
    (0, 1),
    (slice(None), -1),
    (..., 1),
    (None, 2),
    slice(1, -1),
    np.array([0, 2]),
    (np.array([0, 1]), np.array([3, 2])),
    (slice(None), np.array([0, 0])),
    [1, 2],
    np.array([True, False, True]),
    (np.array([0, 1])[:, None], np.array([0, 1])),
    (np.array([0, 1]), -1),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_statistics_are_indexed_as_arrays_are(index):
    x = np.arange(12.0, dtype="float32").reshape(3, 4)
    t = NormalStatistics(jnp.asarray(x), jnp.asarray(2 * x), 3 * x)[index]
    for field, factor in (t.pivot, 1), (t.first, 2), (t.second, 3):
        np.testing.assert_array_equal(field, factor * x[index])
    vectors = MultivariateNormalStatistics.of(jnp.stack([x, x], -1))[index]  # an axis of the event follows
    np.testing.assert_array_equal(vectors.pivot[..., 0], x[index])
    assert vectors.second.shape == (*x[index].shape, 2, 2)
