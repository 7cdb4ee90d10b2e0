"""The check for conjugacy: what is conjugate is accepted, and its blocks are found.

A conjugate log joint is accepted, whatever program computes it (scan, cond, vmap, checkpoint, masks), far
from the origin too, and its blocks are found: global factors that interact are apart, those that do not are
together. Local factors that interact are refused by name. The answer depends on structure and shapes, not on
numbers, and is asked for once.
"""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import vbjax as vb
from tests.support.registry import mean_and_precision, univariate_mixture, without_data
from tests.support.small_models import MU, N_ROWS, TAU, column, far, model, none, regression_data, table
from vbjax import terms
from vbjax.core.conjugacy import check
from vbjax.core.conjugacy.check import inspect_model
from vbjax.families import NormalStatistics


def masked_data(dtype):
    return dict(x=column(dtype), observed=jnp.arange(N_ROWS) % 2 == 0)


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


def on_condition(s, x):
    return lax.cond(s.switch > 0, lambda t: terms.normal(x, t, 1.0), lambda t: terms.normal(x, t, 2.0), s.mu)


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
    "cond": ((("mu",),), model(MU, on_condition, switch=1.0), column),
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
    assert inspect_model(good, make(dtype)).blocks == blocks


# ---------------------------------------------------------------- interactions


def interacting_rows(s, x):
    return terms.normal(x, s.z, s.u) + terms.normal(s.z, s.mu, 1.0) + terms.gamma(s.u, 2.0, 1.0)


def separate_rows(s, x):
    return terms.normal(x, s.z, 1.0) + terms.gamma(s.u, 2.0, 1.0) + terms.normal(s.z, s.mu, 1.0)


def test_local_factors_that_interact_are_found(dtype):
    local = dict(z=vb.Normal(), u=vb.Gamma())
    for rows, found in ((interacting_rows, True), (separate_rows, False)):
        inspected = model(MU, rows, local=local).inspect(column(dtype))
        assert inspected.interacting_locals == found
        assert inspected.blocks == (("mu",),)


def chain(s):
    return terms.normal(s.b, s.a, 1.0) + terms.normal(s.c, s.b, 1.0) + terms.normal(s.d, s.c, 1.0)


def ring(s):
    return terms.normal(s.x, s.y, 1.0) + terms.normal(s.y, s.z, 1.0) + terms.normal(s.z, s.u, 1.0)


def test_a_block_ends_where_a_factor_meets_one_of_its_own():
    def blocks(prior, names):
        return inspect_model(model({name: vb.Normal() for name in names}, prior=prior), None).blocks

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


# ---------------------------------------------------------------- when it is asked, and in which order


def test_numbers_are_not_asked_about_twice(monkeypatch):
    own, x = mean_and_precision(), column("float32")
    blocks = inspect_model(own, x).blocks

    def refuse(*_):
        raise AssertionError("probed again")

    monkeypatch.setattr(check, "probe", refuse)
    assert inspect_model(own.replace(mu0=3.0, b=7.0), 2 * x + 1).blocks == blocks
    with pytest.raises(AssertionError, match="probed again"):  # other shapes are another question
        inspect_model(own, x[:3])


def test_the_order_of_factors_is_part_of_the_question():
    def blocks(names):
        return inspect_model(model({name: vb.Normal() for name in names}, prior=chain), None).blocks

    assert blocks("abcd") == apart(*"abcd")
    assert blocks("acbd") == (("a", "c"), ("b", "d"))


def with_impossible_state(s, x):
    p = jnp.asarray([0.5, 0.5, 0.0], x.dtype)
    return terms.categorical(s.c, p) + (s.c.p * terms.normal(x[:, None], s.mu, 1.0)).sum(-1)


def test_an_impossible_state_is_no_mistake():
    good = model(dict(mu=vb.Normal((3,))), with_impossible_state, local=dict(c=vb.Categorical(3)))
    assert inspect_model(good, column("float32")).blocks == (("mu",),)


@pytest.mark.parametrize("blocks", [(("mu",),), (("mu", "tau"),), (("mu",), ("tau",), ("nu",))])
def test_blocks_that_miss_a_factor_or_interact_or_do_not_exist_are_refused(blocks):
    own = mean_and_precision()
    given = vb.Model(
        factors=own.factors, hyper=own.hyper, log_prior=scale_prior, log_likelihood=scale_rows, blocks=blocks
    )
    with pytest.raises(ValueError, match="blocks"):
        given.inspect(column("float32"))
