"""Remainders of the gamma function, in forms that keep float32's digits.

`gammaln(a)` of a large `a` is a large number of which only a small part reaches an entropy or a
log-normaliser. Here Stirling's part is split off, so that callers cancel it on paper and not in
floating point. For families and terms; imports nothing of the package.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import digamma, gammaln
from jax.typing import ArrayLike

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


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.zeros_like(x)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def gammaln_remainder(a: ArrayLike) -> Array:
    """R(a) = log Gamma(a) - [(a - 1/2) log a - a + log(2 pi) / 2], for a > 0.

    Abramowitz & Stegun (1964), eq. 6.1.40, from 8 upwards, and the definition below.

    >>> print(f"{gammaln_remainder(1e6):.6e}")
    8.333333e-08
    """
    a = jnp.asarray(a)
    large, small = jnp.where(a < _SWITCH, _SWITCH, a), jnp.where(a < _SWITCH, a, 1)
    series = _horner(_STIRLING, 1 / (large * large)) / large
    direct = gammaln(small) - ((small - 0.5) * jnp.log(small) - small + 0.5 * LOG_2PI)
    return jnp.where(a < _SWITCH, direct, series)


def digamma_remainder(a: ArrayLike) -> Array:
    """P(a) = digamma(a) - log(a), for a > 0.

    Abramowitz & Stegun (1964), eq. 6.3.18, from 8 upwards, and the definition below.

    >>> print(f"{digamma_remainder(1e6):.6e}")
    -5.000001e-07
    """
    a = jnp.asarray(a)
    large, small = jnp.where(a < _SWITCH, _SWITCH, a), jnp.where(a < _SWITCH, a, 1)
    inverse = 1 / large
    series = inverse * inverse * _horner(_DIGAMMA, inverse * inverse) - 0.5 * inverse
    return jnp.where(a < _SWITCH, digamma(small) - jnp.log(small), series)


def itakura_saito(ratio: Array) -> Array:
    """r - 1 - log r >= 0, zero at r = 1: what two scales differ by in a Kullback-Leibler divergence."""
    return ratio - 1 - jnp.log(ratio)
