"""Standard normal draws that a fit keeps: few, and yet exactly of mean 0 and covariance I.

For `blackbox`; imports linalg.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.numerics.linalg import cholesky, solve_lower, transpose


def matched_draws(key: Array, n: int, size: int, dtype: DTypeLike) -> Float[Array, "n size"]:
    """Draw n points from N(0, I): a Latin hypercube together with its mirror image, whitened.

    Mean 0 and, where n > 2 size, covariance I hold exactly, so that expectations of quadratic functions
    are exact; the strata (McKay, Beckman & Conover 1979) remove most of the error of additive functions.

    Args:
        n: number of draws, even.
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
