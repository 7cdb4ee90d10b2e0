"""Moments of weighted draws of latents, each a leaf (n, ...) of a tree.

For this room; imports nothing of it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike


def mean(w: Array, values: Any) -> Any:
    """The mean of every entry; w (n,) are the weights, which add up to 1."""
    return jax.tree.map(lambda x: jnp.tensordot(w, x.astype(w.dtype), 1), values)


def variance(w: Array, values: Any) -> Any:
    """The variance of every entry."""
    squares = jax.tree.map(lambda x, m: (x.astype(w.dtype) - m) ** 2, values, mean(w, values))
    return mean(w, squares)


def covariance(w: Array, values: Any) -> Array:
    """Of all entries, in the order of `jax.flatten_util.ravel_pytree`."""
    table = jax.vmap(lambda x: ravel_pytree(x)[0])(values)
    shift = table - w @ table
    return (shift.T * w) @ shift


def quantile(w: Array, values: Any, p: ArrayLike) -> Any:
    """The quantile of every entry; a draw stands for the middle of its weight."""

    def of(x: Array) -> Array:
        order = jnp.argsort(x)
        below = jnp.cumsum(w[order]) - 0.5 * w[order]
        return jnp.interp(jnp.asarray(p, w.dtype), below, x[order].astype(w.dtype))

    entries = lambda x: jax.vmap(of, 1, -1)(x.reshape(len(x), -1))
    return jax.tree.map(lambda x: entries(x).reshape(*jnp.shape(p), *x.shape[1:]), values)
