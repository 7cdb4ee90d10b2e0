"""The check for conjugacy: what is not affine in a factor's statistics is refused by that factor's name.

A conjugate log joint is accepted, whatever program computes it (scan, cond, vmap, checkpoint, masks), far
from the origin too, and its blocks are found: global factors that interact are apart, those that do not are
together. Local factors that interact are refused by name. The answer depends on structure and shapes, not on
numbers, and is asked for once.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from registry import mean_and_precision, univariate_mixture, without_data

import vbjax as vb
from vbjax import terms
from vbjax.core import check
from vbjax.core.check import inspect_model
from vbjax.families import NormalStatistics

N_ROWS = 5  # more than the probes look at


def column(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=N_ROWS), dtype)


def table(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=(N_ROWS, 2)), dtype)


def far(dtype):
    return column(dtype) + jnp.asarray(1e4, dtype)


def none(dtype):
    return None


def regression_data(dtype):
    return dict(x=table(dtype), y=column(dtype))


def masked_data(dtype):
    return dict(x=column(dtype), observed=jnp.arange(N_ROWS) % 2 == 0)


MU, TAU = dict(mu=vb.Normal()), dict(tau=vb.Gamma())


def model(factors, rows=None, prior=None, local=None, **hyper):
    return vb.Model(factors=factors, log_prior=prior, log_likelihood=rows, local=local, hyper=hyper)


# ---------------------------------------------------------------- programs that are not conjugate


def flat(x):
    """A row's worth of nothing, so that what is wrong is elsewhere."""
    return jnp.zeros_like(x)


def squared_mean(s, x):
    return terms.normal(x, s.mu, 1.0) - s.mu.first**2


def logistic(s, x):
    return jax.nn.log_sigmoid(x * s.w.first)


def student_t(s, x):
    return -2.5 * jnp.log1p((x - s.mu.first) ** 2 / 4)


def two_picks_of_one(s):
    return terms.normal(s.mu, 0.0, 1.0) + (s.c.p[0] * s.c.p[1]).sum()


def two_local_picks_of_one(s, x):
    return terms.normal(x, s.mu, 1.0) + (s.c.p[:, 0] * s.c.p[:, 1]).sum(-1)


def latent_shape(s, x):
    return terms.gamma(x**2, s.a.value, 2.0)


def absolute(s, x):
    return -jnp.abs(x - s.mu.first)


def squared_precision(s, x):
    return terms.normal(x, 0.0, s.tau) - s.tau.value**2


def log_of_mean(s, x):
    return 0.5 * (jnp.log(s.tau.value) - s.tau.value * x**2)


def variance_for_precision(s, x):
    return terms.normal(x, 0.0, 1 / s.tau.value)


def correlated_product(s, x):
    return x * s.w.first[0] * s.w.first[1]


def stopped(s, x):
    return terms.normal(x, lax.stop_gradient(s.mu), s.tau)


def sign(s, x):
    return x * jnp.sign(s.w.first).sum()


def rectified(s, x):
    return x * jax.nn.relu(s.w.first).sum()


def determinant_of_mean(s):
    return jnp.linalg.slogdet(s.lam.value)[1] - jnp.trace(s.lam.value)


def entropy_of_weights(s):
    return -(jnp.exp(s.weights.log) * s.weights.log).sum()


def most_probable(s, x):
    return x * s.c.p.max(-1)


def squared_projection(s, rows):
    return -((rows["y"] - rows["x"] @ s.w.first) ** 2)


def square_in_scan(s, x):
    return lax.scan(lambda carry, xi: (carry * s.mu.first, carry + xi), jnp.ones_like(x[0]), x)[1]


def of_the_prior(s):
    return terms.gamma(s.tau, 2.0, 1.0) + terms.normal(s.mu, 0.0, jnp.exp(s.tau.log))


BAD = {
    "squared mean": ("mu", model(MU, squared_mean), column),
    "squared mean below the rounding of the rest": ("mu", model(MU, squared_mean), far),
    "logistic": ("w", model(dict(w=vb.Normal()), logistic), column),
    "Student t": ("mu", model(MU, student_t), column),
    "two picks of one factor": (
        "c",
        model(MU | dict(c=vb.Categorical(3, plate=(2,))), prior=two_picks_of_one),
        none,
    ),
    "two picks of one local factor": (
        "c",
        model(MU, two_local_picks_of_one, local=dict(c=vb.Categorical(3, plate=(2,)))),
        column,
    ),
    "latent shape of a Gamma": ("a", model(dict(a=vb.Gamma()), latent_shape), column),
    "absolute value": ("mu", model(MU, absolute), column),
    "squared precision": ("tau", model(TAU, squared_precision), column),
    "log of a mean": ("tau", model(TAU, log_of_mean), column),
    "variance for precision": ("tau", model(TAU, variance_for_precision), column),
    "normal for precision": (
        "tau",
        model(dict(tau=vb.Normal()), lambda s, x: terms.normal(x, 0.0, s.tau.first)),
        column,
    ),
    "correlated product": ("w", model(dict(w=vb.Normal((2,))), correlated_product), column),
    "stop_gradient": ("mu", model(MU | TAU, stopped), column),
    "sign": ("w", model(dict(w=vb.Normal((4,))), sign), column),
    "rectified": ("w", model(dict(w=vb.Normal((4,))), rectified), column),
    "determinant of a mean": ("lam", model(dict(lam=vb.Wishart(2)), prior=determinant_of_mean), none),
    "entropy": ("weights", model(dict(weights=vb.Dirichlet(3)), prior=entropy_of_weights), none),
    "largest probability": ("c", model(MU, most_probable, local=dict(c=vb.Categorical(3))), column),
    "squared projection": ("w", model(dict(w=vb.MultivariateNormal(2)), squared_projection), regression_data),
    "square in a scan": ("mu", model(MU, square_in_scan), column),
    "in the prior": ("tau", model(MU | TAU, lambda s, x: flat(x), of_the_prior), column),
    "a point": ("mu", model(dict(mu=vb.Delta(vb.Normal())), squared_mean), column),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_affine_is_refused_by_name(name, dtype):
    factor, bad, make = BAD[name]
    with pytest.raises(ValueError, match=f"not affine in the statistics of the factor '{factor}'"):
        inspect_model(bad, make(dtype))


# ---------------------------------------------------------------- programs that are conjugate


def scale_prior(s):
    return terms.normal(s.mu, 0.0, s.tau) + terms.gamma(s.tau, 2.0, 1.0)


def scale_rows(s, x):
    return terms.normal(x, s.mu, s.tau)


def scanned(s, x):
    return lax.scan(lambda carry, xi: (carry + xi, terms.normal(xi, s.mu, s.tau)), jnp.zeros_like(x[0]), x)[1]


def accumulated(s):
    def add(total, scale):
        return total + terms.normal(s.mu, 0.0, scale * s.tau), None

    first = terms.gamma(s.tau, 2.0, 1.0)
    return lax.scan(add, first, jnp.arange(1, 4).astype(s.mu.first.dtype))[0]


def on_data(s, x):
    return lax.cond(x.sum() > 0, lambda t: terms.normal(x, t, 1.0), lambda t: terms.normal(x, t, 2.0), s.mu)


def mapped(s, x):
    return jax.vmap(lambda xi: terms.normal(xi, s.mu, s.tau))(x)


def rematerialised(s, x):
    return jax.checkpoint(lambda mu, tau: terms.normal(x, mu, tau))(s.mu, s.tau)


def masked(s, rows):
    return jnp.where(rows["observed"], terms.normal(rows["x"], s.mu, s.tau), 0)


def relevance_prior(s):
    return (
        terms.normal(s.w, 0.0, s.alpha).sum()
        + terms.gamma(s.alpha, 2.0, 1.0).sum()
        + terms.gamma(s.tau, 2.0, 1.0)
    )


def relevance_rows(s, rows):
    x = rows["x"]
    second = jnp.einsum("ni,ij,nj->n", x, s.w.second, x)
    return terms.normal(rows["y"], NormalStatistics(x @ s.w.pivot, x @ s.w.first, second), s.tau)


def product(s, x):
    return terms.normal(x, 0.0, s.tau * s.upsilon)


def own_location(s, x):
    return terms.normal(x, s.z, s.tau) + terms.normal(s.z, s.mu, 1.0)


def wishart_prior(s):
    eye = jnp.eye(2, dtype=s.mu.first.dtype)
    return terms.multivariate_normal(s.mu, jnp.zeros_like(s.mu.first), eye) + terms.wishart(s.lam, 4.0, eye)


def wishart_rows(s, x):
    return terms.multivariate_normal(x, s.mu, s.lam)


def joint_prior(s):
    return terms.normal_wishart(
        s.theta, jnp.zeros_like(s.theta.pivot), 1.0, 4.0, jnp.eye(2, dtype=s.theta.pivot.dtype)
    )


def joint_rows(s, x):
    return terms.multivariate_normal(x, s.theta)


def branches(s, x):
    return terms.categorical(s.c, s.p) + (s.c.p * terms.normal(x[:, None], s.mu, 1.0)).sum(-1)


def branches_prior(s):
    return terms.dirichlet(s.p, s.concentration) + terms.normal(s.mu, 0.0, 1.0).sum()


def apart(*names):
    return tuple((name,) for name in names)


# name: blocks that are to be found, model, data
GOOD = {
    "mean and precision": (apart("mu", "tau"), mean_and_precision(), column),
    "far from the origin": (apart("mu", "tau"), mean_and_precision(), far),
    "points": (apart("mu", "tau"), mean_and_precision(vb.Delta(vb.Normal()), vb.Delta(vb.Gamma())), column),
    "mixture": ((("weights", "mu"),), univariate_mixture(), column),
    "mixture, tiny prior": (
        (("p", "mu"),),
        model(
            dict(p=vb.Dirichlet(3), mu=vb.Normal((3,))),
            branches,
            branches_prior,
            dict(c=vb.Categorical(3)),
            concentration=1e-3,
        ),
        column,
    ),
    "scan over rows": (apart("mu", "tau"), model(MU | TAU, scanned, scale_prior), column),
    "scan in the prior": (apart("mu", "tau"), model(MU | TAU, scale_rows, accumulated), column),
    "cond on data": ((("mu",),), model(MU, on_data), column),
    "vmap": (apart("mu", "tau"), model(MU | TAU, mapped, scale_prior), column),
    "checkpoint": (apart("mu", "tau"), model(MU | TAU, rematerialised, scale_prior), column),
    "mask": (apart("mu", "tau"), model(MU | TAU, masked, scale_prior), masked_data),
    "regression with relevances": (
        (("w",), ("alpha", "tau")),
        model(
            dict(w=vb.MultivariateNormal(2), alpha=vb.Gamma((2,)), tau=vb.Gamma()),
            relevance_rows,
            relevance_prior,
        ),
        regression_data,
    ),
    "product of independent factors": (
        apart("tau", "upsilon"),
        model(dict(tau=vb.Gamma(), upsilon=vb.Gamma()), product),
        column,
    ),
    "local location": ((("mu", "tau"),), model(MU | TAU, own_location, local=dict(z=vb.Normal())), column),
    "Wishart": (
        apart("mu", "lam"),
        model(dict(mu=vb.MultivariateNormal(2), lam=vb.Wishart(2)), wishart_rows, wishart_prior),
        table,
    ),
    "NormalWishart": ((("theta",),), model(dict(theta=vb.NormalWishart(2)), joint_rows, joint_prior), table),
    "no data": (apart("mu", "tau"), without_data(), none),
    "no prior": ((("mu",),), model(MU, lambda s, x: terms.normal(x, s.mu, 1.0)), column),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_conjugate_is_accepted_and_its_blocks_are_found(name, dtype):
    blocks, good, make = GOOD[name]
    assert inspect_model(good, make(dtype)) == blocks


# ---------------------------------------------------------------- interactions


def interacting_rows(s, x):
    return terms.normal(x, s.z, s.u) + terms.normal(s.z, s.mu, 1.0) + terms.gamma(s.u, 2.0, 1.0)


def separate_rows(s, x):
    return terms.normal(x, s.z, 1.0) + terms.gamma(s.u, 2.0, 1.0) + terms.normal(s.z, s.mu, 1.0)


def test_local_factors_that_interact_are_refused_by_name(dtype):
    local = dict(z=vb.Normal(), u=vb.Gamma())
    with pytest.raises(ValueError, match="local factors 'u' and 'z' interact"):
        inspect_model(model(MU, interacting_rows, local=local), column(dtype))
    assert inspect_model(model(MU, separate_rows, local=local), column(dtype)) == (("mu",),)


def chain(s):
    return terms.normal(s.b, s.a, 1.0) + terms.normal(s.c, s.b, 1.0) + terms.normal(s.d, s.c, 1.0)


def ring(s):
    return terms.normal(s.x, s.y, 1.0) + terms.normal(s.y, s.z, 1.0) + terms.normal(s.z, s.u, 1.0)


def test_a_block_ends_where_a_factor_meets_one_of_its_own():
    def blocks(prior, names):
        return inspect_model(model({name: vb.Normal() for name in names}, prior=prior), None)

    assert blocks(chain, "abcd") == apart(*"abcd")
    assert blocks(ring, "xzyu") == (("x", "z"), ("y", "u"))  # x and z do not meet, nor do y and u


def test_the_models_own_blocks_are_what_was_found_unless_given(dtype):
    own = mean_and_precision()
    assert own.inspect(column(dtype)).blocks == apart("mu", "tau")
    given = univariate_mixture()
    swapped = vb.Model(
        factors=given.factors,
        local=dict(c=vb.Categorical(3)),
        log_prior=given.log_prior,
        log_likelihood=given.log_likelihood,
        hyper=given.hyper,
        blocks=(("mu",), ("weights",)),
    )
    assert swapped.inspect(column(dtype)).blocks == apart("mu", "weights")


# ---------------------------------------------------------------- when and how it is asked


def test_numbers_are_not_asked_about_twice(monkeypatch):
    own, x = mean_and_precision(), column("float32")
    blocks = inspect_model(own, x)

    def refuse(*_):
        raise AssertionError("probed again")

    monkeypatch.setattr(check, "_probe", refuse)
    assert inspect_model(own.replace(mu0=3.0, b=7.0), 2 * x + 1) == blocks
    with pytest.raises(AssertionError, match="probed again"):  # other shapes are another question
        inspect_model(own, x[:3])


def test_inside_jit_a_model_is_examined_all_the_same():
    @jax.jit
    def inspected(bad, x):
        inspect_model(bad, x)

    with pytest.raises(ValueError, match="factor 'tau'"):
        inspected(model(TAU, squared_precision), column("float32"))
    inspected(mean_and_precision(), column("float32"))


def test_a_likelihood_that_is_not_one_number_for_each_row_is_refused():
    with pytest.raises(ValueError, match=r"log_likelihood must give one number for each row, shape \(4,\)"):
        inspect_model(model(MU, lambda s, x: terms.normal(x, s.mu, 1.0).sum()), column("float32"))


def test_a_mistake_in_one_row_alone_is_seen():
    def rows(s, x):
        return terms.normal(x, s.mu, 1.0).at[2].multiply(s.mu.first)

    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, rows), column("float32"))


# ---------------------------------------------------------------- far away, in other words, in other orders


def test_a_kink_far_away_is_seen():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, absolute), far("float32"))


def stopped_in_part(s, x):
    return terms.normal(x, s.mu, 1.0) + terms.normal(x, lax.stop_gradient(s.mu), 1.0)


def test_a_wrong_gradient_is_seen_far_from_the_origin():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, stopped_in_part), far("float32"))


def test_the_order_of_factors_is_part_of_the_question():
    def blocks(names):
        return inspect_model(model({name: vb.Normal() for name in names}, prior=chain), None)

    assert blocks("abcd") == apart(*"abcd")
    assert blocks("acbd") == (("a", "c"), ("b", "d"))


def with_impossible_state(s, x):
    p = jnp.asarray([0.5, 0.5, 0.0], x.dtype)
    return terms.categorical(s.c, p) + (s.c.p * terms.normal(x[:, None], s.mu, 1.0)).sum(-1)


def test_an_impossible_state_is_no_mistake():
    good = model(dict(mu=vb.Normal((3,))), with_impossible_state, local=dict(c=vb.Categorical(3)))
    assert inspect_model(good, column("float32")) == (("mu",),)


def without_pivot(s, x):
    """As if `first` and `second` were E[mu] and E[mu^2]: right about the pivot 0 alone."""
    return -0.5 * (x**2 - 2 * x * s.mu.first + s.mu.second)


def test_statistics_taken_for_raw_moments_are_seen():
    with pytest.raises(ValueError, match="factor 'mu'"):
        inspect_model(model(MU, without_pivot), column("float32"))


@pytest.mark.parametrize("blocks", [(("mu",),), (("mu", "tau"),), (("mu",), ("tau",), ("nu",))])
def test_blocks_that_miss_a_factor_or_interact_or_do_not_exist_are_refused(blocks):
    own = mean_and_precision()
    given = vb.Model(
        factors=own.factors, hyper=own.hyper, log_prior=scale_prior, log_likelihood=scale_rows, blocks=blocks
    )
    with pytest.raises(ValueError, match="blocks"):
        given.inspect(column("float32"))
