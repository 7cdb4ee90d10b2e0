"""Pareto smoothing of importance weights, and the shape k-hat of their tail (Vehtari et al. 2024).

For diagnostics, leave-one-out and users; imports what reads arguments.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating, is_concrete


def _fit_generalized_pareto(x: Float[Array, " n"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Estimate shape k and scale of a generalised Pareto distribution, from x > 0 in increasing order.

    The estimate is the approximate posterior mean of Zhang & Stephens (2009), a sum over a grid, with k
    shrunk towards 1/2 by the weight of ten observations (Vehtari et al. 2024, appendix G).
    """
    n = len(x)
    grid = jnp.arange(1, 31 + math.isqrt(n), dtype=x.dtype)
    quartile = x[int(n / 4 + 0.5) - 1]
    b = 1 / x[-1] + (1 - jnp.sqrt(len(grid) / (grid - 0.5))) / (3 * quartile)
    k = jnp.log1p(-b[:, None] * x).mean(1)
    weights = jax.nn.softmax(n * (jnp.log(-b / k) - k - 1))
    weights = jnp.where(weights >= 10 * jnp.finfo(x.dtype).eps, weights, 0)
    b = (b * weights).sum() / weights.sum()
    k = jnp.log1p(-b * x).mean()
    return (n * k + 5) / (n + 10), -k / b


def tail_size(n: int) -> int:
    """Return how many of n ratios are the tail: Vehtari et al. (2024), section 3.1."""
    return math.ceil(min(n / 5, 3 * math.sqrt(n)))


def pareto_smoothed(log_ratios: ArrayLike) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Smooth importance weights: replace the largest by quantiles of a generalised Pareto distribution.

    The tail that is replaced are the min(n / 5, 3 sqrt(n)) largest ratios. With k the shape of their
    distribution, the ratios have a variance where k < 0.5, and smoothed estimates can be relied upon where
    k < 0.7.

    Args:
        log_ratios: (n,), log p - log q at draws of q. A ratio of -inf is a weight of 0.

    Returns:
        The log weights (n,), whose exponentials add up to one, and k-hat.

    Raises:
        ValueError: fewer than five ratios, or an array of other than one axis; a ratio that is NaN or +inf.

    References:
        Vehtari, Simpson, Gelman, Yao & Gabry (2024), Pareto smoothed importance sampling, JMLR 25.

    >>> import jax, jax.numpy as jnp
    >>> log_pareto = 0.5 * jax.random.exponential(jax.random.key(0), (1_000_000,))  # of shape 0.5
    >>> _, k = pareto_smoothed(log_pareto)
    >>> print(f"{k:.1f}")
    0.5
    """
    log_ratios = as_floating(log_ratios, "log_ratios")
    if log_ratios.ndim != 1 or len(log_ratios) < 5:
        raise ValueError(f"log_ratios must be at least 5 numbers, (n,); got shape {log_ratios.shape}")
    if is_concrete(log_ratios) and not (np.asarray(log_ratios) < np.inf).all():
        raise ValueError("log_ratios must be finite, or -inf where a weight is 0; there is a NaN or +inf")
    return smooth(log_ratios)


@jit
def smooth(log_ratios: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Compute `pareto_smoothed` of ratios that have been examined."""
    n = len(log_ratios)
    size = tail_size(n)
    log_w = log_ratios - log_ratios.max()
    order = jnp.argsort(log_w)
    cut = log_w[order[-size - 1]]
    excess = jnp.exp(log_w[order[-size:]]) - jnp.exp(cut)
    k, sigma = _fit_generalized_pareto(jnp.maximum(excess, jnp.finfo(log_w.dtype).tiny))
    p = (jnp.arange(size, dtype=log_w.dtype) + 0.5) / size
    quantiles = sigma * jnp.where(
        k == 0, -jnp.log1p(-p), jnp.expm1(-k * jnp.log1p(-p)) / jnp.where(k == 0, 1, k)
    )
    smoothed = jnp.minimum(jnp.log(quantiles + jnp.exp(cut)), 0)
    log_w = log_w.at[order[-size:]].set(smoothed)
    return log_w - jax.nn.logsumexp(log_w), k
