"""Laws of the special functions.

The remainders of gammaln and digamma equal Binet's integrals from 1e-8 to 1e12, to some roundings of what is
added up, and so do their derivatives, which are finite (R' = P + 1 / (2 a)); dtype kept. The divergence is
zero at equality and equal to its definition.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, polygamma, psi

from tests.support.tolerances import close
from vbjax.numerics import special

A = np.concatenate([np.geomspace(1e-8, 1e12, 101), [1.0, 1.4616321449683623, 2.0, np.nextafter(8, 0), 8.0]])
ROUNDINGS = 16  # of the magnitudes below


def binet(a):
    """R, R', P and P' by quadrature of Binet's second integral (Abramowitz & Stegun 1964, 6.1.50, 6.3.21)."""
    u, step = np.linspace(-4, 2.2, 201, retstep=True)  # the double exponential rule of Takahasi and Mori
    t = np.exp(u - np.exp(-u))
    w, a = step * t * (1 + np.exp(-u)) / np.expm1(2 * np.pi * t), a[:, None]
    r, r_slope = 2 * (w * np.arctan(t / a)).sum(-1), -2 * (w * t / (t**2 + a**2)).sum(-1)
    a, curvature = a[:, 0], 4 * (w * t * a / (t**2 + a**2) ** 2).sum(-1)
    return r, r_slope, r_slope - 0.5 / a, curvature + 0.5 / a**2


def definition(a):
    """The same from scipy's float64 functions, and the magnitude of what is added up."""
    log, p = np.log(a), psi(a) - np.log(a)
    r = gammaln(a) - ((a - 0.5) * log - a + 0.5 * np.log(2 * np.pi))
    r_size, p_size = np.abs(gammaln(a)) + np.abs((a - 0.5) * log) + a + 1, np.abs(psi(a)) + np.abs(log)
    values = r, p + 0.5 / a, p, polygamma(1, a) - 1 / a
    return values, (r_size, p_size + 0.5 / a, p_size, polygamma(1, a) + 1 / a)


def oracle(a):
    """Values of R, R', P and P', and the magnitudes that their rounding errors are relative to.

    Below 8 the recurrence adds up terms as large as the definition does: there an error is relative to those.
    """
    values, sizes = definition(a)
    series = binet(np.maximum(a, 1))
    values = [np.where(a < 1, v, s) for v, s in zip(values, series, strict=True)]
    return [(v, np.where(a < 8, size, np.abs(v))) for v, size in zip(values, sizes, strict=True)]


def within_rounding(actual, value, size):
    assert np.isfinite(actual).all()
    error = np.abs(np.asarray(actual, float) - value)
    assert (error <= ROUNDINGS * np.finfo(actual.dtype).eps * size).all(), (error / size).max()


@pytest.mark.parametrize("function", [special.gammaln_remainder, special.digamma_remainder])
def test_remainders_and_their_derivatives(function, dtype):
    a = A.astype(dtype)
    exact = oracle(a.astype(float))
    exact = exact[:2] if function is special.gammaln_remainder else exact[2:]
    for actual, (value, size) in zip(jax.jit(jax.vmap(jax.value_and_grad(function)))(a), exact, strict=True):
        assert actual.dtype == dtype
        within_rounding(np.asarray(actual), value, size)


def test_divergence_equals_its_definition_and_vanishes_at_equality(dtype):
    ratio = np.geomspace(0.1, 10, 5).astype(dtype)
    close(special.itakura_saito(jnp.asarray(ratio)), ratio - 1 - np.log(ratio))
    assert special.itakura_saito(jnp.ones((), dtype)) == 0


def test_a_count_of_zero_has_a_gradient(dtype):
    """D(0, m) = m."""
    mean = jnp.asarray([1e-3, 1.0, 30.0], dtype)
    value, slope = jax.vmap(jax.value_and_grad(special.poisson_deviance, 1))(jnp.zeros_like(mean), mean)
    close(value, mean)
    close(slope, np.ones(3))
