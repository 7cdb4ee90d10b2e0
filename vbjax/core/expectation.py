"""Sums over the rows of the data: chunks and row weights are handled here and nowhere else.

Statistics are additive over rows, so one pass is a scan over chunks that keeps nothing of the size of
the data. Imported by the algorithms and by models that initialise themselves with a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax


class Expectation(NamedTuple):
    """What a pass over rows gives: everything in it adds up over chunks.

    Attributes:
        statistics: gradient of the expected log likelihood in the global factors' statistics.
        bound: the local part of the bound: log likelihood and local entropies.
        magnitude: sum of the bound's absolute terms; times the dtype's epsilon, its rounding error.
        weight: sum of the row weights.
        local: states of the local factors, which do not add up; None but where they are carried on.
    """

    statistics: Any
    bound: Array
    magnitude: Array
    weight: Array
    local: Any = None


def rounding_error(magnitude: Array) -> Array:
    """A few units in the last place of everything that was added up, whose absolute sum is `magnitude`."""
    return 4 * jnp.finfo(magnitude.dtype).eps * magnitude


def n_rows(data: Any) -> int:
    """The number of rows: the leading axis that every leaf of the data shares."""
    return jax.tree.leaves(data)[0].shape[0]


def float_dtype(data: Any) -> Any:
    """The dtype of the data's floating leaves, the default float where there are none."""
    dtypes = [x.dtype for x in jax.tree.leaves(data) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*dtypes) if dtypes else jnp.result_type(float)


def blank_idle(rows: Any, weights: Array) -> Any:
    """The rows, zeros in place of those of weight 0."""
    return jax.tree.map(
        lambda x: jnp.where(weights.reshape(-1, *[1] * (x.ndim - 1)) != 0, x, jnp.zeros_like(x)), rows
    )


def sum_over_rows(
    function: Callable[[Any, Array], Any], data: Any, weights: Array | None = None, *, chunk: int
) -> Any:
    """Sum of `function(rows, weights)` over chunks of `chunk` rows, by one scan.

    Args:
        function: additive in its rows; returns a pytree of sums.
        data: pytree of arrays with a common leading axis.
        weights: (n,) or None for ones.
        chunk: rows at a time.
    """
    return sweep_rows(lambda rows, w, _: (function(rows, w), ()), data, weights, (), chunk=chunk)[0]


def sweep_rows(
    function: Callable[[Any, Array, Any], tuple[Any, Any]],
    data: Any,
    weights: Array | None,
    carried: Any,
    *,
    chunk: int,
) -> tuple[Any, Any]:
    """The same with something of each row's own beside it, which the function returns moved.

    The last chunk overlaps the one before it and its repeated rows weigh 0, so no padded copy is made.
    Rows of weight 0 are replaced by zeros before the function sees them: whatever they hold, infinities
    and NaN too, cannot reach the sum or its gradient.
    """
    n, dtype = n_rows(data), float_dtype(data)

    def call(rows: Any, row_weights: Array, own: Any) -> tuple[Any, Any]:
        return function(rows if weights is None else blank_idle(rows, row_weights), row_weights, own)

    if n <= chunk:
        return call(data, jnp.ones(n, dtype) if weights is None else weights, carried)

    def add(carry: tuple[Any, Any], number: Array) -> tuple[tuple[Any, Any], None]:
        total, carried = carry
        wanted = number * chunk
        start = jnp.minimum(wanted, n - chunk)
        rows, own = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, chunk), (data, carried))
        fresh = start + jnp.arange(chunk) >= wanted
        row_weights = fresh.astype(dtype)
        if weights is not None:
            row_weights = row_weights * lax.dynamic_slice_in_dim(weights, start, chunk)
        more, own = call(rows, row_weights, own)
        put = lambda table, new: lax.dynamic_update_slice_in_dim(table, new, start, 0)
        return (jax.tree.map(jnp.add, total, more), jax.tree.map(put, carried, own)), None

    first, first_own = jax.tree.map(lambda x: lax.slice_in_dim(x, 0, chunk), (data, carried))
    first_weights = jnp.ones(chunk, dtype) if weights is None else weights[:chunk]
    shapes = jax.eval_shape(call, first, first_weights, first_own)[0]
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return lax.scan(add, (zero, carried), jnp.arange(-(-n // chunk)))[0]


def expectation(
    model: Any, params: Any, data: Any, weights: Array | None = None, local: Any = None
) -> Expectation:
    """One E-step over all rows: the model's `e_step`, chunk by chunk.

    Args:
        model: gives `prepare(params)`, `e_step(prepared, rows, weights)` and `chunk_rows(data)`.
        params: states of the global factors.
        data: pytree of arrays with a common leading axis, or None for a model without data.
        weights: (n,) or None.
        local: where local factors that interact begin; they come back in the expectation's `local`. Without
            it they begin anew, and nothing of the size of the data is kept.
    """
    if data is None:
        return model.no_rows(params)
    prepared, chunk = model.prepare(params), model.chunk_rows(data)
    if local is None:
        return sum_over_rows(lambda rows, w: model.e_step(prepared, rows, w), data, weights, chunk=chunk)

    def carry(rows: Any, w: Array, own: Any) -> tuple[Expectation, Any]:
        total = model.carried_e_step(prepared, rows, w, own)
        return total._replace(local=None), total.local

    total, local = sweep_rows(carry, data, weights, local, chunk=chunk)
    return total._replace(local=local)
