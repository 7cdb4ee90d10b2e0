"""Remainders of the gamma function that keep float32's digits, and inverse distribution functions.

`gammaln(a)` of a large `a` is a large number of which only a small part reaches an entropy or a
log-normaliser. These functions split Stirling's part off, so that callers cancel it on paper and not in
floating point. Families and terms use them; this file imports nothing of the package.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import xlogy
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Num

from vbjax.numerics.compilation import jit
from vbjax.numerics.types import Index

LOG_2PI = 1.8378770664093453
LOG_PI = 1.1447298858494002

_SWITCH = 8.0  # at and above it the series below are exact to float64's last digits
_BERNOULLI = (
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
)
_STIRLING = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))
_DIGAMMA = tuple(-b / (2 * k) for k, b in enumerate(_BERNOULLI, 1))


def _horner(coefficients: tuple[float, ...], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Evaluate a polynomial, the constant coefficient first, by Horner's rule."""
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def _split_at_switch(
    a: Float[Array, "*shape"],
) -> tuple[Bool[Array, "*shape"], Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Return whether a is below the switch, an argument at or above it, and a if below, 1 elsewhere."""
    low = a < _SWITCH
    return low, jnp.where(low, a + _SWITCH, a), jnp.where(low, a, 1)


@jit
def gammaln_remainder(a: ArrayLike) -> Float[Array, " ..."]:
    """Return R(a) = log Gamma(a) - [(a - 1/2) log a - a + log(2 pi) / 2], for a > 0.

    Abramowitz & Stegun (1964), eq. 6.1.40, and below 8 the recurrence 6.1.16.

    >>> print(f"{gammaln_remainder(1e6):.6e}")
    8.333333e-08
    """
    low, z, a = _split_at_switch(jnp.asarray(a))
    series = _horner(_STIRLING, 1 / (z * z)) / z
    ratio = math.prod((a + i) / (a + _SWITCH) for i in range(int(_SWITCH)))
    raised = (a - 0.5) * jnp.log1p(_SWITCH / a) - _SWITCH - jnp.log(ratio)
    return jnp.where(low, series + raised, series)


@jit
def digamma_remainder(a: ArrayLike) -> Float[Array, " ..."]:
    """Return P(a) = digamma(a) - log(a), for a > 0.

    Abramowitz & Stegun (1964), eq. 6.3.18, and below 8 the recurrence 6.3.6.

    >>> print(f"{digamma_remainder(1e6):.6e}")
    -5.000001e-07
    """
    low, z, a = _split_at_switch(jnp.asarray(a))
    inverse = 1 / z
    series = inverse * inverse * _horner(_DIGAMMA, inverse * inverse) - 0.5 * inverse
    # sum_{i < 8} 1 / (a + i), with the terms i and 7 - i added first: one division in all
    q = [a * (a + 7) + i * (7 - i) for i in range(4)]
    outer, inner = q[0] * q[1], q[2] * q[3]
    total = (2 * a + 7) * ((q[0] + q[1]) * inner + (q[2] + q[3]) * outer) / (outer * inner)
    raised = jnp.log1p(_SWITCH / a) - total
    return jnp.where(low, series + raised, series)


def log_rising(a: Float[Array, " ..."], x: Num[Array, " ..."]) -> Float[Array, " ..."]:
    """Return log[Gamma(a + x) / (Gamma(a) a^x)], for a > 0 and x >= 0; predictive densities are made of it.

    >>> print(f"{log_rising(jnp.float32(2), jnp.float32(3)):.6f}")  # log(2 3 4 / 2^3)
    1.098612
    """
    lead = (a + x - 0.5) * jnp.log1p(x / a) - x
    return lead + gammaln_remainder(a + x) - gammaln_remainder(a)


def log_factorial_remainder(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return log x! - (x log x - x), for x >= 0: it is small where log x! is large."""
    positive = jnp.where(x > 0, x, 1)
    stirling = 0.5 * (jnp.log(positive) + LOG_2PI) + gammaln_remainder(positive)
    return jnp.where(x > 0, stirling, 0)


_ATANH = tuple(1 / (2 * j + 3) for j in range(8))  # the series of (atanh v - v) / v^3 in powers of v^2


def poisson_deviance(x: Float[Array, " ..."], mean: Float[Array, " ..."]) -> Float[Array, " ..."]:
    """Return x log(x / m) - (x - m) >= 0 of a count x and its mean m, exact however near they are.

    With v = (x - m) / (x + m) it is (x - m) v + 2 x (atanh v - v); Loader (2000), Fast and accurate
    computation of binomial probabilities.

    >>> print(f"{poisson_deviance(jnp.float32(1000100.0), jnp.float32(1e6)):.6f}")  # 100^2 / (2 1e6)
    0.005000
    """
    shift = x - mean
    total = x + mean
    v = shift / jnp.where(total > 0, total, 1)
    near = shift * v + 2 * x * v**3 * _horner(_ATANH, v * v)
    far = xlogy(x, jnp.where(x > 0, x, 1) / jnp.where(mean > 0, mean, 1)) - shift
    return jnp.where(jnp.abs(v) < 0.1, near, far)


def finite_log(log: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return logarithms with a finite number in the place of -inf.

    Then 0 log 0 = 0, and sums over impossible cases do not overflow.
    """
    return jnp.where(jnp.isneginf(log), -(float(jnp.finfo(log.dtype).max) ** 0.25), log)


def itakura_saito(ratio: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return r - 1 - log r >= 0, zero at r = 1: what two scales add to a Kullback-Leibler divergence."""
    return ratio - 1 - jnp.log(ratio)


def from_scipy(name: str, *x: Array) -> Array:
    """Return a special function of concrete arrays by SciPy, in their dtype: nothing is compiled for it."""
    import scipy.special  # a tenth of a second

    with np.errstate(all="ignore"):
        found = getattr(scipy.special, name)(*(np.asarray(each, np.float64) for each in x))
        return jnp.asarray(found.astype(x[0].dtype))


def quantile(
    p: Float[Array, "*shape"],
    mass: Callable[[Array], Array],
    density: Callable[[Array], Array],
    top: float,
) -> Float[Array, "*shape"]:
    """Return the x between 0 and `top` at which a distribution function is p; NaN where p is not in [0, 1].

    The method is bisection over the positive floats themselves, in the order of their bits: exact to the
    last digits of x at any scale, in 31 steps in float32 and 63 in float64. The derivative is that of the
    implicit function.

    Args:
        p: probabilities, of the shape of the result.
        mass: the elementwise mass below x, or above x where p > 1/2, so that both tails keep their digits.
        density: the elementwise density at x.
        top: the end of the support, 1 or infinity.
    """
    bits = jnp.int32 if p.dtype.itemsize == 4 else jnp.int64
    largest = lax.bitcast_convert_type(jnp.asarray(min(top, float(jnp.finfo(p.dtype).max)), p.dtype), bits)

    def missing(x: Array) -> Array:  # the mass between x and the quantile
        return jnp.where(p > 0.5, mass(x) - (1 - p), p - mass(x))

    def halve(_: Index, bracket: tuple[Int[Array, "*shape"], Int[Array, "*shape"]]) -> tuple[Array, Array]:
        low, high = bracket
        middle = low + (high - low) // 2
        below = missing(lax.bitcast_convert_type(middle, p.dtype)) > 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    start = jnp.zeros(p.shape, bits), jnp.full(p.shape, largest)
    high = lax.fori_loop(0, 8 * p.dtype.itemsize - 1, halve, start)[1]
    x = lax.stop_gradient(lax.bitcast_convert_type(high, p.dtype))
    slope = lax.stop_gradient(density(x))
    step = missing(x) / jnp.where(slope > 0, slope, jnp.inf)
    x = x + (step - lax.stop_gradient(step))
    x = jnp.where(p == 0, 0, jnp.where(p == 1, top, x))
    return jnp.where((p >= 0) & (p <= 1), x, jnp.nan)
