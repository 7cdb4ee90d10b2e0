"""Remainders of the gamma function, and small linear algebra, in forms that keep float32's digits.

`gammaln(a)` of a large `a` is a large number of which only a small part reaches an entropy or a
log-normaliser. Here Stirling's part is split off, so that callers cancel it on paper and not in
floating point. For families and terms; imports nothing of the package.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax
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


def transpose(x: Array) -> Array:
    """Swap the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def symmetrize(x: Array) -> Array:
    """The symmetric part of the last two axes."""
    return 0.5 * (x + transpose(x))


def outer(x: Array, y: Array) -> Array:
    """x y' over the last axis."""
    return x[..., :, None] * y[..., None, :]


def quadratic_form(matrix: Array, x: Array) -> Array:
    """x' A x over the last axis of x."""
    return jnp.einsum("...i,...ij,...j->...", x, matrix, x)


def cholesky(x: Array) -> Array:
    """Lower factor of a symmetric positive definite matrix; NaN where it is not one."""
    return lax.linalg.cholesky(x, symmetrize_input=False)


def logdet_from_cholesky(scale_tril: Array) -> Array:
    """log det(L L') from its Cholesky factor L."""
    return 2 * jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)


def solve_lower(scale_tril: Array, b: Array, *, transposed: bool = False) -> Array:
    """L^-1 b, or L^-T b, for a lower factor L and matrices b; leading axes broadcast."""
    shape = jnp.broadcast_shapes(scale_tril.shape[:-2], b.shape[:-2])
    scale_tril = jnp.broadcast_to(scale_tril, shape + scale_tril.shape[-2:])
    b = jnp.broadcast_to(b, shape + b.shape[-2:])
    return lax.linalg.triangular_solve(scale_tril, b, left_side=True, lower=True, transpose_a=transposed)


def stein_loss(scale_tril: Array, other_tril: Array, ratio: ArrayLike = 1.0) -> Array:
    """tr(M) - D - log det M >= 0 of M = ratio V0 V^-1, from the factors of V and V0; `itakura_saito` for D = 1."""
    root = solve_lower(scale_tril, other_tril)  # M is similar to ratio root root', and root is lower
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1) ** 2
    below = (jnp.tril(root, -1) ** 2).sum((-1, -2))
    return itakura_saito(jnp.expand_dims(ratio, -1) * diagonal).sum(-1) + ratio * below


def inverse_from_cholesky(scale_tril: Array) -> Array:
    """(L L')^-1, exactly symmetric, from its Cholesky factor L."""
    root = solve_lower(scale_tril, jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype))
    return symmetrize(transpose(root) @ root)
