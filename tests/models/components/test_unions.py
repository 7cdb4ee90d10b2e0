"""Laws of different kinds side by side: blocks of laws, and classes beside noise.

Noise that never weighs is no noise. Two blocks of one kind are one block of both, by EM and by variational
Bayes, in mixtures and in chains. Rows far from all others go to the noise, and the classes are those of the
data without them. The derived E-step is the oracle of what goes by parts. Draws come from the part of their
law. Noise is uniform over the columns that are seen. (Weights, chunks, monotone updates: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.models.components.test_products import CHAINS, KINDS, rows, started
from tests.support.registry import N_COMPONENTS, N_FEATURES, N_ROWS, counts, sweeps, table
from tests.support.tolerances import STANDARD_ERRORS, close

K, KEY = N_COMPONENTS, jax.random.key(0)
Gaussian, Noise, Poisson, Union = (
    getattr(vb.components, n) for n in ("Gaussian", "Noise", "Poisson", "Union")
)

every_how = pytest.mark.parametrize("how", KINDS)


def with_noise(**box):
    return Union(classes=(K, Gaussian()), noise=(1, Noise(**box)))


def test_noise_of_weight_zero_is_no_noise(dtype):
    """Of a box of 1e18 to each side every row has a density of 1e-37: after one update it weighs nothing."""
    x = rows(table, dtype)
    alone, start = started(vb.Mixture(K, Gaussian()), x)
    model, both = started(vb.Mixture(K + 1, with_noise(low=-1e18, high=1e18)), x)
    both |= dict(classes=start["components"])
    expected, found = sweeps(alone, start, x), sweeps(model, both, x)
    close(found[1][1:], expected[1][1:])  # the first has equal weights of four
    assert expected[1][-1, 0] - expected[1][1, 0] > 1
    close(found[0].classes.mean, expected[0].components.mean, factor=1000)
    close(found[0].weights.mean, np.append(expected[0].weights.mean, 0), factor=1000)


@pytest.mark.parametrize("kinds", [KINDS, CHAINS], ids=["mixture", "chain"])
@every_how
def test_two_blocks_of_one_kind_are_one_of_both(kinds, how, float64):
    x = rows(table, float64)
    one = kinds[how](K, Gaussian())
    two = kinds[how](K, Union(first=(1, Gaussian()), rest=(K - 1, Gaussian())))
    x = one.read(x)
    (one, start), two = started(one, x), jax.jit(type(two).resolve)(two, x)
    split = lambda q, place: jax.tree.map(lambda leaf: leaf[place], q)
    own = {name: q for name, q in start.items() if name != "components"}
    own |= {name: split(start["components"], place) for name, place in two.component.places.items()}
    expected, found = sweeps(one, start, x), sweeps(two, own, x)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-12)
    for name, place in two.component.places.items():
        close(found[0][name].mean, split(expected[0]["components"].mean, place), factor=1000)


def planted(dtype):
    """Three clusters of a hundred rows, and fifteen rows that are nowhere near them."""
    rng = np.random.default_rng(1)
    clean = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]])[np.arange(300) % 3] + rng.normal(size=(300, 2))
    far = rng.uniform(20, 60, size=(15, 2)) * rng.choice([-1, 1], size=(15, 2))
    return jnp.asarray(clean, dtype), jnp.asarray(np.concatenate([clean, far]), dtype)


def test_outliers_are_noise_and_leave_the_classes_alone(dtype):
    clean, x = planted(dtype)
    alone = vb.fit(vb.Mixture(K, Gaussian()), clean, key=KEY, n_restarts=8)
    fit = vb.fit(vb.Mixture(K + 1, with_noise()), x, key=KEY, n_restarts=16)
    found = np.asarray(fit.predict(x))
    assert (found[300:] == K).all()
    assert (found[:300] == K).sum() <= 3
    means = [np.asarray(q.mean.location) for q in (fit.params.classes, alone.params.components)]
    order = [np.lexsort(np.round(m).T) for m in means]
    np.testing.assert_allclose(means[0][order[0]], means[1][order[1]], atol=STANDARD_ERRORS / np.sqrt(100))
    assert fit.model.n_parameters == K + K * 5
    np.testing.assert_allclose(fit.params.weights.mean[K], 15 / 315, atol=0.01)
    assert fit.predict(jnp.asarray([[500.0, -500.0]], dtype)) == K  # beyond the box too


@every_how
def test_the_derived_e_step_is_the_oracle(how, dtype):
    """Of counts, whose constants are those of their law alone."""
    x = rows(counts, dtype)
    model, params = started(KINDS[how](K, Union(rates=(K - 1, Poisson()), noise=(1, Noise()))), x)
    weights = jnp.linspace(0, 2, N_ROWS, dtype=dtype)

    @jax.jit
    def both(model, params, rows, weights):
        s = vb.core.ConjugateModel.prepare(model, params)
        own = model.e_step(model.prepare(params), rows, weights)
        return own, vb.core.ConjugateModel.e_step(model, s, rows, weights)

    own, derived = both(model, params, x, weights)
    close(own.bound, derived.bound, scale=derived.magnitude)
    natural = lambda t: {name: factor.natural for name, factor in t.items()}
    close(natural(own.statistics), natural(derived.statistics), factor=100)


def test_draws_come_from_the_part_of_their_law(float64):
    _, x = planted(float64)
    fit = vb.fit(vb.Mixture(K + 1, with_noise()), x, key=KEY, n_restarts=16)
    drawn = fit.model.component.draw_rows(fit.params, KEY, jnp.arange(400) % 4)
    component = fit.model.component
    noise, classes = drawn[K::4], np.delete(drawn, np.s_[K::4], 0)
    low, high = component.parts.noise.low, component.parts.noise.high
    np.testing.assert_array_equal([low, high], [x.min(0), x.max(0)])
    assert ((noise >= low) & (noise <= high)).all()
    assert np.std(noise) > 4 * np.std(classes)
    again = vb.replicate(fit.model, fit.params, x, key=KEY, n_draws=3)
    assert again.shape == (3, *x.shape)
    assert (np.abs(again[:, :300]) < 20).mean() > 0.98


def test_noise_is_uniform_over_the_columns_that_are_seen(dtype):
    x = np.array([[0.0, 5.0, 1.0], [2.0, np.nan, 1.0], [4.0, 9.0, 1.0]], dtype)
    noise = Noise(missing=True).of(2, True).resolve(noise_rows := Noise(missing=True).read(x))
    expected = -np.log(np.array([[4.0 * 4.0], [4.0], [4.0 * 4.0]]) * np.ones(2))
    close(noise.log_components(vb.Record(), noise_rows), expected)
    weighted = Noise(missing=True).resolve(noise_rows, jnp.asarray([1.0, 1.0, 0.0], dtype))
    close(weighted.high, [2.0, 5.0, 1.0])
    with pytest.raises(ValueError, match="data must be finite"):
        Noise().read(x)


BAD = {
    "parts must be numbers and components by name": lambda: Union(),
    "classes must be a number of laws and a component": lambda: Union(classes=Gaussian()),
    "number of laws of classes must be a whole number": lambda: Union(classes=(1.5, Gaussian())),
    "classes must be a component": lambda: Union(classes=(1, 2)),
    "part 'initial' must have another name": lambda: Union(initial=(1, Noise())),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_parts_are_refused_by_name(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()


def test_numbers_of_laws_add_up_to_those_of_the_model():
    with pytest.raises(ValueError, match="as the model has components, 5; got 3 of classes and 1 of noise"):
        vb.fit(vb.Mixture(5, with_noise()), np.ones((9, N_FEATURES)), key=KEY)
    mixed = Union(classes=(1, Gaussian()), kinds=(1, vb.components.Categorical()))
    with pytest.raises(ValueError, match="classes and kinds differ"):
        vb.fit(vb.Mixture(2, mixed), np.ones((9, N_FEATURES)), key=KEY)
    with pytest.raises(ValueError, match="component of laws of one kind"):
        vb.fit(vb.HiddenMarkovModel(2, vb.components.Mixture(4, with_noise())), np.ones((9, 2)), key=KEY)
