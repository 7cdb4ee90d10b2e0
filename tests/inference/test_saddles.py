"""Models of one's own in which locations or labels multiply: no fit ends on a saddle and calls it a maximum.

Which factors start at random is found from the log joint: those that multiply, and no others. A table of
products is fitted from anywhere, from the saddle itself too, and the verdict says so. Restarts that are equal
to the bit are one run.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import mean_and_precision, without_data
from tests.support.small_models import MU, TAU, column, model, none
from vbjax import Status
from vbjax.core.conjugacy.check import inspect_model
from vbjax.core.rows import rounding_error
from vbjax.terms import gamma, matmul, normal

P, N, Q, NOISE = 8, 12, 2, 0.3


def products():
    rng = np.random.default_rng(0)
    signal, noise = 2 * rng.normal(size=(N, Q)) @ rng.normal(size=(Q, P)), rng.normal(size=(N, P))
    return jnp.asarray(signal + NOISE * noise, "float32")


def log_joint(s):
    scores = normal(s.z, 0.0, 1.0).sum() + gamma(s.tau, 1.0, 1.0)
    return normal(products(), matmul(s.w, s.z), s.tau).sum() + normal(s.w, 0.0, 1.0).sum() + scores


LOADINGS = dict(w=vb.MultivariateNormal(Q, plate=(P,)), z=vb.MultivariateNormal(Q, plate=(N,)))
OWN = model(LOADINGS | TAU, prior=log_joint)
HOW = dict(key=jax.random.key(0), max_iter=600)


def neutral():
    return vb.Record({name: family.neutral("float32") for name, family in OWN.factors.items()})


# ---------------------------------------------------------------- which factors start at random


def of_points(s):
    return -0.5 * s.w.square_about(0.0) * (s.v**2 + 1) - 0.5 * s.v**2


def one(name):
    return {name: vb.MultivariateNormal(1, plate=(1,))}


def labelled(s):
    return (s.c.p * normal(jnp.ones((3, 1)), s.mu, 1.0)).sum() + normal(s.mu, 0.0, 1.0).sum()


def counted(s):
    return (s.c.p * s.tau.log).sum() + gamma(s.tau, 2.0, 1.0).sum()


def chained(s):
    return normal(s.a, s.b, s.tau) + normal(s.b, 0.0, 1.0)


def local_loading(s, x):
    latent = jax.vmap(lambda z: matmul(s.w, z[None]))(s.z)
    return normal(x, latent[:, 0, 0] + s.mu, 1.0) + normal(s.z, 0.0, 1.0).sum(-1)


LABELS = dict(c=vb.Categorical(2, plate=(3,)))

# name: random starts, whether there may be saddles, model, data
MULTIPLYING = {
    "products": (("w", "z"), True, OWN, none),
    "points": (
        ("w",),
        True,
        model(dict(w=vb.Delta(vb.Normal()), v=vb.NonConjugate(vb.real())), prior=of_points),
        none,
    ),
    "labels": (("c", "mu"), True, model(LABELS | dict(mu=vb.Normal((2,))), prior=labelled), none),
    "labels of rates": (("c",), True, model(LABELS | dict(tau=vb.Gamma((2,))), prior=counted), none),
    "sums": ((), False, model(dict(a=vb.Normal(), b=vb.Normal()) | TAU, prior=chained), none),
    "mean and precision": ((), False, mean_and_precision(), column),
    "without data": ((), False, without_data(), none),
    "local scores": (
        (),
        True,
        model(MU | one("w"), local_loading, local=dict(z=vb.MultivariateNormal(1))),
        column,
    ),
}


@pytest.mark.parametrize("name", MULTIPLYING)
def test_factors_that_multiply_start_at_random_and_no_others(name):
    random_starts, saddles, own, make = MULTIPLYING[name]
    found = inspect_model(own, make("float32"))
    assert found.random_starts == random_starts
    assert found.may_have_saddles == saddles


def test_random_starts_follow_the_prior():
    def prior(s):
        return normal(s.w, 1e3, 1e-4).sum() + normal(s.z, 0.0, 1.0).sum()

    def rows(s, x):
        return normal(x, matmul(s.w, s.z)[0, 0], 1.0)

    x = column("float32")
    own = model(one("w") | one("z"), rows, prior).inspect(x).resolve(x)
    starts = jax.jit(jax.vmap(lambda key: own.init(key, x)))(jax.random.split(jax.random.key(0), 400))
    for start, mean, sd in (starts.w, 1e3, 100), (starts.z, 0, 1):  # of 400 draws
        np.testing.assert_allclose(start.mean.mean(), mean, atol=4 * sd / 20)
        np.testing.assert_allclose(start.mean.std(), sd, rtol=0.2)
        np.testing.assert_allclose(start.precision, sd**-2.0, rtol=1e-5)


# ---------------------------------------------------------------- fits


def check_found(fit):
    assert fit.status == Status.CONVERGED
    assert fit.objective == fit.runs.objective.max() == fit.trace[-1]
    assert fit.n_iter == len(fit.trace)
    assert (np.diff(fit.trace) >= -rounding_error(10 * np.abs(fit.trace[1:]))).all()
    residual = products() - fit.params.z.mean @ fit.params.w.mean.T
    assert residual.std() < NOISE < 0.3 * products().std()
    np.testing.assert_allclose(fit.params.tau.mean**-0.5, NOISE, rtol=0.3)


def test_products_are_found_from_every_start():
    fit = vb.fit(OWN, **HOW, n_restarts=3)
    check_found(fit)
    assert len(set(np.asarray(fit.runs.trace[:, 0]).tolist())) == 3
    np.testing.assert_allclose(fit.runs.objective, fit.objective, rtol=0.05)
    assert fit.escaped == 0
    assert "saddle" not in fit.verdict()


@pytest.mark.parametrize("n_restarts", [1, 3])
def test_a_saddle_is_left_and_the_verdict_says_so(n_restarts):
    fit = vb.fit(OWN, **HOW, params=neutral(), n_restarts=n_restarts)
    check_found(fit)
    if n_restarts == 1:
        assert fit.escaped > 10
        assert (
            f"it had converged at a saddle, from which the bound rose by {fit.escaped:.4g} nats"
            in fit.verdict()
        )
        stays = jax.jit(lambda params: vb.fit(OWN, **HOW, params=params))(neutral())
        assert stays.escaped is None  # inside jit nothing is looked at
        np.testing.assert_allclose(stays.objective + fit.escaped, fit.objective, rtol=1e-4)
        np.testing.assert_allclose(stays.params.w.mean, 0, atol=1e-3)


def test_random_loadings_do_not_fall_back_to_a_saddle():
    w = np.random.default_rng(1).normal(size=(P, Q))
    start = neutral()
    start = start | dict(w=vb.families.MultivariateNormalState(jnp.asarray(w, "float32"), start.w.precision))
    check_found(vb.fit(OWN, **HOW, params=start))


def test_restarts_that_are_equal_to_the_bit_are_one_run():
    fit = vb.fit(mean_and_precision(), column("float32"), key=jax.random.key(0), n_restarts=4)
    assert "; 4 restarts, all the same run" in fit.verdict()
    assert "within" not in fit.verdict()
    assert fit.escaped is None
