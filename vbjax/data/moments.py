"""Location and scale of the data, from which models make their default priors."""

from __future__ import annotations

from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.core.devices import first_of, pick_row, take_rows
from vbjax.core.model import in_dtype
from vbjax.core.rows import sum_over_rows
from vbjax.families.base import replace

M = TypeVar("M")


def _deviations(x: Array, weights: Array | None, *, full: bool) -> tuple[Array, Array]:
    """Return the weighted mean over rows and the (co)variance about it, in two passes of differences."""
    x = x[:, None] if x.ndim == 1 else x
    pivot = take_rows(x, jnp.asarray(0) if weights is None else pick_row(jnp.asarray(0.5, x.dtype), weights))

    def first(rows: Array, w: Array) -> tuple[Array, Array]:
        return w @ (rows - pivot), w.sum()

    total, n = sum_over_rows(first, x, weights, chunk=8192)
    mean = pivot + total / n

    def second(rows: Array, w: Array) -> Array:
        shift = rows - mean
        return (w[:, None] * shift).T @ shift if full else w @ shift**2

    return mean, sum_over_rows(second, x, weights, chunk=8192) / n


def fill_defaults(model: M, dtype: DTypeLike, **defaults: ArrayLike) -> M:
    """Return the model with the named hyperparameters in their defaults' shapes and in one dtype.

    None becomes the default; a number, or an array of fewer axes, is broadcast.
    """
    cells = {}
    for name, default in defaults.items():
        given = getattr(model, name)
        value = jnp.asarray(default if given is None else given, dtype)
        cells[name] = jnp.broadcast_to(value, np.broadcast_shapes(value.shape, np.shape(default)))
    return in_dtype(replace(model, **cells), dtype)


def weighted_moments(x: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return mean and variance (divided by the rows' weight) of each column, or of a single column (n,)."""
    mean, variance = _deviations(x, weights, full=False)
    return (mean[0], variance[0]) if x.ndim == 1 else (mean, variance)


def weighted_covariance(
    x: Float[Array, "n d"], weights: Float[Array, " n"] | None = None
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Return mean (d,) and covariance (d, d) (divided by the rows' weight) of a table."""
    return _deviations(x, weights, full=True)


def observed_covariance(
    x: Float[Array, "n d"], weights: Float[Array, " n"] | None = None
) -> tuple[Float[Array, " d"], Float[Array, "d d"], Float[Array, " d"]]:
    """Return mean (d,), covariance (d, d) and weight (d,) of a table's entries that are not missing (NaN).

    A missing entry counts as its column's mean, and variances are divided by the weight of the entries seen:
    the covariance is positive semi-definite.
    """
    seen = ~jnp.isnan(x)
    filled = jnp.where(seen, x, 0)
    first = jnp.where(seen, x, jnp.nan) if weights is None else jnp.where(weights[:, None] > 0, x, jnp.nan)
    pivot = _first_seen(~jnp.isnan(first), filled)

    def totals(rows: tuple[Array, Array], w: Array) -> tuple[Array, Array]:
        return w @ jnp.where(rows[1], rows[0] - pivot, 0), w @ rows[1].astype(w.dtype)

    total, n = sum_over_rows(totals, (filled, seen), weights, chunk=8192)
    mean = pivot + total / jnp.maximum(n, jnp.finfo(x.dtype).tiny)

    def products(rows: tuple[Array, Array], w: Array) -> Array:
        shift = jnp.where(rows[1], rows[0] - mean, 0)
        return (w[:, None] * shift).T @ shift

    size = jnp.sqrt(jnp.where(n > 0, n, 1))
    return mean, sum_over_rows(products, (filled, seen), weights, chunk=8192) / (size[:, None] * size), n


def _first_seen(seen: Bool[Array, "n p"], x: Float[Array, "n p"]) -> Float[Array, " p"]:
    """Return an entry of every column that has been seen."""
    return first_of(seen.any(0), jnp.take_along_axis(x, seen.argmax(0)[None], 0)[0])


def positive_scale(variance: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """Return the variance with 1 for columns that do not vary: a scale that one can divide by."""
    return jnp.where(variance > 0, variance, 1)


def positive_definite(covariance: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Return the covariance with some variance in directions that have none (collinear columns, few rows).

    A direction counts as flat if its variance, in units of the columns', is below its rounding error. It then
    gets the square root of eps as its variance.
    """
    eps = jnp.finfo(covariance.dtype).eps
    sd = jnp.sqrt(jnp.diagonal(covariance))
    unit = sd[:, None] * sd
    values, vectors = jnp.linalg.eigh(covariance / unit)
    flat = values <= covariance.shape[0] * eps
    filled = unit * ((vectors * jnp.where(flat, jnp.sqrt(eps), values)) @ vectors.T)
    return jnp.where(flat.any(), 0.5 * (filled + filled.T), covariance)


def was_flat(covariance: Float[Array, "d d"]) -> Bool[Array, ""]:
    """Return whether `positive_definite` has put variance into a direction: the least has exactly that."""
    root = jnp.sqrt(jnp.finfo(covariance.dtype).eps)
    sd = jnp.sqrt(jnp.diagonal(covariance))
    least = jnp.linalg.eigvalsh(covariance / (sd[:, None] * sd))[0]
    return jnp.abs(least / root - 1) < 8 * covariance.shape[0] * root


def observed_moments(
    x: Float[Array, "n p"], weights: Float[Array, " n"] | None = None
) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """Return mean and variance (p,) of every column of a table over the entries that are not NaN."""
    seen = ~jnp.isnan(x) if weights is None else ~jnp.isnan(x) & (weights[:, None] > 0)
    pivot = _first_seen(seen, x)

    def powers(centre: Array, power: int) -> tuple[Array, Array]:
        def add(rows: Array, w: Array) -> tuple[Array, Array]:
            present = jnp.where(jnp.isnan(rows), 0, w[:, None])
            return (present * jnp.where(present > 0, rows - centre, 0) ** power).sum(0), present.sum(0)

        return sum_over_rows(add, x, weights, chunk=8192)

    total, n = powers(pivot, 1)
    mean = pivot + total / n
    return mean, powers(mean, 2)[0] / n
