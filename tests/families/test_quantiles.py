"""Quantiles are scipy's, from the tails to the middle, whatever the shape; derivatives are implicit ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vbjax.families import BetaState, GammaState, MultivariateNormalState, NormalGammaState

P = np.array([1e-6, 1e-3, 0.05, 0.2499, 0.4999, 0.5, 0.51, 0.9, 0.999, 1 - 1e-6])
EDGES = np.array([0, 1, -0.1, 1.1, np.nan])
SHAPES = np.array([0.5, 1.0, 3.0, 50.0, 1e3, 1e5])[:, None]
RELATIVE = {np.dtype("float32"): 2e-4, np.dtype("float64"): 1e-9}  # what the incomplete functions have


@functools.cache
def quantiles(dtype):
    """Of Gammas, Betas and the locations of NormalGammas at P and EDGES, in one program."""

    @jax.jit
    def all_three(p, a, b):
        one = jnp.ones_like(a)
        location = NormalGammaState(0 * one, 4 * one, a, one).quantile(p).location
        return GammaState(a, 2 * one).quantile(p), BetaState(b, 7 * one).quantile(p), location

    p, a = np.append(P, EDGES).astype(dtype), SHAPES.astype(dtype)
    return p[: len(P)].astype(float), [np.asarray(x) for x in all_three(p, a, np.minimum(a, 50))]


def at_p(x):
    return x[:, : len(P)]


def at_edges(x):
    return x[:, len(P) :]


def test_quantiles_of_gammas_are_scipys(dtype):
    p, (found, _, _) = quantiles(dtype)
    exact = stats.gamma(SHAPES, scale=0.5)
    np.testing.assert_allclose(at_p(found), exact.ppf(p), rtol=RELATIVE[dtype])
    off = np.abs(
        at_p(found) - exact.ppf(p)
    )  # a concentrated one is known in its own unit, but for its rounding
    assert (off <= RELATIVE[dtype] * exact.std() + np.finfo(dtype).eps * at_p(found)).all()
    np.testing.assert_array_equal(at_edges(found)[0], [0, np.inf, np.nan, np.nan, np.nan])


def test_quantiles_of_betas_are_scipys(dtype):
    p, (_, found, _) = quantiles(dtype)
    np.testing.assert_allclose(
        at_p(found), stats.beta(np.minimum(SHAPES, 50), 7).ppf(p), rtol=RELATIVE[dtype]
    )
    np.testing.assert_array_equal(at_edges(found)[0], [0, 1, np.nan, np.nan, np.nan])


def test_quantiles_of_a_normal_gammas_location_are_students(dtype):
    p, (_, _, found) = quantiles(dtype)
    exact = stats.t(2 * SHAPES, scale=np.sqrt(1 / (4 * SHAPES)))
    np.testing.assert_allclose(at_p(found), exact.ppf(p), rtol=RELATIVE[dtype], atol=1e-12)
    np.testing.assert_array_equal(at_edges(found)[0], [-np.inf, np.inf, np.nan, np.nan, np.nan])


def test_derivatives_are_those_of_the_implicit_function(float64):
    x, slope = jax.jvp(lambda p: BetaState(jnp.asarray(2.0), jnp.asarray(3.0)).quantile(p), (0.3,), (1.0,))
    np.testing.assert_allclose(slope, 1 / stats.beta.pdf(x, 2, 3), rtol=1e-10)
    slope = jax.jit(jax.grad(lambda a: GammaState(a, jnp.asarray(1.0)).quantile(0.3)))(2.0)
    difference = (stats.gamma.ppf(0.3, 2 + 1e-5) - stats.gamma.ppf(0.3, 2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-8)


def test_quantiles_of_the_axes_of_a_normal_are_scipys(float64):
    mean, precision = jnp.asarray([1.0, -2.0]), jnp.asarray([[4.0, 1.0], [1.0, 0.5]])
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    for p in (1e-6, 0.3, 0.975):
        found = MultivariateNormalState(mean, precision).quantile(p)
        np.testing.assert_allclose(found, stats.norm.ppf(p, mean, sd), rtol=1e-9)


def test_quantiles_outside_jit_are_those_inside(dtype):
    p, (gammas, betas, locations) = quantiles(dtype)
    a = SHAPES.astype(dtype)
    one = jnp.ones_like(a)
    p = p.astype(dtype)
    found = GammaState(jnp.asarray(a), 2 * one).quantile(p)
    np.testing.assert_allclose(found, at_p(gammas), rtol=RELATIVE[dtype])
    found = BetaState(jnp.minimum(a, 50), 7 * one).quantile(p)
    np.testing.assert_allclose(found, at_p(betas), rtol=RELATIVE[dtype])
    found = NormalGammaState(0 * one, 4 * one, jnp.asarray(a), one).quantile(p).location
    assert found.dtype == dtype
    # SciPy 1.14 is next to zero at the median
    np.testing.assert_allclose(found, at_p(locations), rtol=RELATIVE[dtype], atol=1e-15)
