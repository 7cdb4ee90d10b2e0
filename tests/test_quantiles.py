"""Quantiles are scipy's, from the tails to the middle, whatever the shape; derivatives are implicit ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vbjax.families import BetaState, GammaState, NormalGammaState

P = np.array([1e-6, 1e-3, 0.05, 0.2499, 0.4999, 0.51, 0.9, 0.999, 1 - 1e-6])
SHAPES = np.array([0.5, 1.0, 3.0, 50.0, 1e3, 1e5])[:, None]
RELATIVE = {np.dtype("float32"): 2e-4, np.dtype("float64"): 1e-9}  # what the incomplete functions have


@functools.cache
def quantiles(dtype):
    """Of Gammas, Betas and the locations of NormalGammas, in one program; p as the dtype has it."""

    @jax.jit
    def all_three(p, a, b):
        one = jnp.ones_like(a)
        location = NormalGammaState(0 * one, 4 * one, a, one).quantile(p).location
        return GammaState(a, 2 * one).quantile(p), BetaState(b, 7 * one).quantile(p), location

    p, a, b = P.astype(dtype), SHAPES.astype(dtype), np.minimum(SHAPES, 50).astype(dtype)
    return p.astype(float), SHAPES, np.minimum(SHAPES, 50), tuple(map(np.asarray, all_three(p, a, b)))


def test_quantiles_of_gammas_are_scipys(dtype):
    p, a, _, (found, _, _) = quantiles(dtype)
    exact = stats.gamma(a, scale=0.5)
    np.testing.assert_allclose(found, exact.ppf(p), rtol=RELATIVE[dtype])
    off = np.abs(found - exact.ppf(p))  # a concentrated one is known in its own unit, but for its rounding
    assert (off <= RELATIVE[dtype] * exact.std() + np.finfo(dtype).eps * found).all()


def test_quantiles_of_betas_are_scipys(dtype):
    p, _, b, (_, found, _) = quantiles(dtype)
    np.testing.assert_allclose(found, stats.beta(b, 7).ppf(p), rtol=RELATIVE[dtype])
    p = jnp.asarray([0.0, 1.0, -0.1, 1.1, np.nan], dtype)
    np.testing.assert_array_equal(BetaState(p[1], p[1]).quantile(p), [0, 1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(GammaState(p[1], p[1]).quantile(p), [0, np.inf, np.nan, np.nan, np.nan])


def test_quantiles_of_a_normal_gammas_location_are_students(dtype):
    p, a, _, (_, _, found) = quantiles(dtype)
    exact = stats.t(2 * a, scale=np.sqrt(1 / (4 * a)))
    np.testing.assert_allclose(found, exact.ppf(p), rtol=RELATIVE[dtype])
    state = NormalGammaState(*jnp.asarray([3.0, 4.0, 2.0, 1.0], dtype))
    middle = state.quantile(0.5)
    assert middle.location == 3
    np.testing.assert_allclose(middle.precision, stats.gamma.ppf(0.5, 2), rtol=RELATIVE[dtype])


def test_derivatives_are_those_of_the_implicit_function(float64):
    x, slope = jax.jvp(lambda p: BetaState(jnp.asarray(2.0), jnp.asarray(3.0)).quantile(p), (0.3,), (1.0,))
    np.testing.assert_allclose(slope, 1 / stats.beta.pdf(x, 2, 3), rtol=1e-10)
    slope = jax.jit(jax.grad(lambda a: GammaState(a, jnp.asarray(1.0)).quantile(0.3)))(2.0)
    difference = (stats.gamma.ppf(0.3, 2 + 1e-5) - stats.gamma.ppf(0.3, 2 - 1e-5)) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-8)
