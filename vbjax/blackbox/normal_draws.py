"""Standard normal draws that a fit keeps: few, and yet of exactly the mean and covariance they stand for.

For `blackbox`; imports linalg.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from vbjax.numerics.linalg import cholesky, solve_lower, transpose


def matched_draws(key: Array, n: int, size: int, dtype: Any) -> Array:
    """n draws of N(0, I), (n, size): a Latin hypercube, with its mirror image, whitened.

    Mean 0 and, where n > 2 size, covariance I hold exactly, so that expectations of quadratic functions
    are exact; the strata (McKay, Beckman & Conover 1979) take most of the error of additive ones.

    Args:
        n: even.
    """
    half = n // 2
    shuffle, jitter, toss = jax.random.uniform(key, (3, half, size), dtype)
    tail = (jnp.argsort(shuffle, 0).astype(dtype) + jitter) / half  # the mass further out, at both ends
    z = lax.erf_inv(1 - jnp.maximum(tail, 1e-3 / half)) * jnp.where(toss < 0.5, -(2**0.5), 2**0.5)
    z = jnp.concatenate([z, -z])
    if n <= 2 * size:
        return z / jnp.sqrt((z * z).mean(0))
    root = cholesky(transpose(z) @ z / n)
    return transpose(solve_lower(root, transpose(z)))
