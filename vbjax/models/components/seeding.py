"""Where clusters and components start: k-means++ and random rows. Imported by k-means and the mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Shaped

from vbjax.core.rows import float_dtype


def _pick(uniform: Array, mass: Array) -> Array:
    """Return the row at which the cumulative mass passes a uniform share of the total."""
    total = jnp.cumsum(mass)
    row = (total <= total[-1] * uniform).sum().clip(max=mass.shape[0] - 1)
    return jnp.where(mass[row] > 0, row, jnp.argmax(mass))  # rounding may point behind the last mass


def plus_plus(
    key: Array, x: Float[Array, "n d"], k: int, weights: Float[Array, " n"] | None, scale: Float[Array, " d"]
) -> Float[Array, "{k} d"]:
    """Draw k-means++ seeds (k, d): each next row in proportion to its squared distance to the others.

    Args:
        key: PRNG key.
        x: (n, d).
        k: number of seeds.
        weights: (n,) or None.
        scale: (d,), what a unit of distance is in each column (a variance).

    Once every row has been taken (fewer distinct rows than seeds), rows are drawn by weight alone.

    References:
        Arthur, D. & Vassilvitskii, S. (2007), k-means++: the advantages of careful seeding, section 2.2.
    """
    return plus_plus_by(lambda row: ((x - row) ** 2 / scale).sum(1), key, x, k, weights)


def plus_plus_by(
    distance: Callable[[Array], Array], key: Array, x: Shaped[Array, "n d"], k: int, weights: Any
) -> Shaped[Array, "{k} d"]:
    """Draw k-means++ seeds by a distance of one's own: from a row to all rows, (n,)."""
    dtype = float_dtype(x) if weights is None else weights.dtype
    mass = jnp.ones(x.shape[0], dtype) if weights is None else weights
    uniform = jax.random.uniform(key, (k,), dtype)

    def to(row: Array) -> Array:
        far = distance(row)
        return far if weights is None else jnp.where(weights == 0, 0, far)  # such rows may be NaN

    def take(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        seeds, nearest = carry
        pull = mass * nearest
        row = x[_pick(uniform[i], jnp.where(pull.sum() > 0, pull, mass))]
        return seeds.at[i].set(row), jnp.minimum(nearest, to(row))

    first = x[_pick(uniform[0], mass)]
    seeds = jnp.zeros((k, x.shape[1]), x.dtype).at[0].set(first)
    return lax.fori_loop(1, k, take, (seeds, to(first)))[0]


def random_rows(
    key: Array, x: Float[Array, "n d"], k: int, weights: Float[Array, " n"] | None
) -> Float[Array, "{k} d"]:
    """Draw k different rows (k, d), by weight, without replacement."""
    if weights is None:
        return x[jax.random.choice(key, x.shape[0], (k,), replace=False)]
    noise = jax.random.gumbel(key, weights.shape, weights.dtype)
    return x[lax.top_k(jnp.log(weights) + noise, k)[1]]
