"""Sums over the rows of the data: chunks and row weights are handled here and nowhere else.

Statistics are additive over rows, so one pass is a scan over chunks that keeps nothing of the size of
the data. Imported by the algorithms and by models that initialise themselves with a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vbjax.core.devices import add_up, n_shares, room, seen_alone
from vbjax.core.ragged import Ragged, by_part
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import read_weights
from vbjax.numerics.types import Data, Given, Params, Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel


class Annotated(NamedTuple):
    """Rows with what a fit computes once for each of them, as models return it from `annotate`.

    Attributes:
        rows: a pytree of rows, as they were given.
        constant: the part of each one's log density that is the same for all parameters, (n,).
        largest: of counts the largest of each row, (n,).
    """

    rows: Data
    constant: Array
    largest: Array | None = None


class Expectation(NamedTuple):
    """Result of a pass over rows; everything in it adds up over chunks.

    Attributes:
        statistics: gradient of the expected log likelihood in the global factors' statistics.
        bound: the local part of the bound: log likelihood and local entropies.
        magnitude: sum of the bound's absolute terms; times the dtype's epsilon, its rounding error.
        weight: sum of the row weights.
        local: states of the local factors, which do not add up; None but where they are carried on.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x, model = jnp.arange(5.0), vb.textbook.GaussianMeanPrecision().resolve(jnp.arange(5.0))
    >>> params = vb.Record({name: family.neutral("float32") for name, family in model.factors.items()})
    >>> total = vb.core.expectation(model, params, x)
    >>> print(total.weight, total.statistics.tau.log)  # five rows, each with half a log tau
    5.0 2.5
    """

    statistics: Tree
    bound: Array
    magnitude: Array
    weight: Array
    local: Tree = None


def rounding_error(magnitude: Array) -> Array:
    """Return a few units in the last place of what was added up, whose absolute sum is `magnitude`."""
    return 4 * jnp.finfo(magnitude.dtype).eps * magnitude


@pytree
class Scattered:
    """Table of which most rows are 0: `values` (m, ...) belong to its rows `index` (m,).

    In place of an array in the sums of a chunk; in those of a pass it is the whole table of `size` rows.
    """

    index: Array
    values: Array
    size: int = static()

    def zeros(self) -> Array:
        """Return the empty table."""
        return jnp.zeros((self.size, *self.values.shape[1:]), self.values.dtype)

    def onto(self, table: Array) -> Array:
        """Return the table with these values added."""
        return table.at[self.index].add(self.values)


def n_rows(data: Data) -> int:
    """Return the number of rows: the leading axis that every leaf of the data shares."""
    if isinstance(data, Ragged):
        return data.n_rows
    return jax.tree.leaves(data)[0].shape[0]


def n_all_rows(data: Data) -> int:
    """Return the number of rows on all devices, where each sees its share of them."""
    return n_rows(data) * n_shares()


def total_weight(data: Data, weights: Array | None) -> Array:
    """Return the weight of all rows; their number where they have no weights."""
    return jnp.asarray(n_all_rows(data), float_dtype(data)) if weights is None else add_up(weights.sum())


def read_row_weights(weights: Given, data: Data) -> Array | None:
    """Return the weights of the rows of data that have been read; None stays None.

    Raises:
        ValueError: what is no weight for every row; weights without data.
    """
    if weights is None:
        return None
    if data is None:
        raise ValueError("weights are for rows of data; there are none")
    return read_weights(weights, n_rows(data), float_dtype(data))


def float_dtype(data: Data) -> np.dtype:
    """Return the dtype of the data's floating leaves, the default float where there are none."""
    dtypes = [x.dtype for x in jax.tree.leaves(data) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.result_type(*dtypes) if dtypes else jnp.result_type(float)


def blank_idle(rows: Data, weights: Array) -> Data:
    """Return the rows, zeros in place of those of weight 0."""
    return jax.tree.map(
        lambda x: jnp.where(weights.reshape(-1, *[1] * (x.ndim - 1)) != 0, x, jnp.zeros_like(x)), rows
    )


def sum_over_rows(
    function: Callable[[Data, Array], Tree],
    data: Data,
    weights: Array | None = None,
    *,
    chunk: int | tuple[int, ...],
) -> Tree:
    """Sum `function(rows, weights)` over chunks of `chunk` rows, by one scan.

    Args:
        function: additive in its rows; returns a pytree of sums.
        data: pytree of arrays with a common leading axis, or `Ragged` rows.
        weights: (n,) or None for ones.
        chunk: rows at a time; of `Ragged` rows a number for every part.
    """
    return sweep_rows(lambda rows, w, _: (function(rows, w), ()), data, weights, (), chunk=chunk)[0]


def sweep_rows(
    function: Callable[[Data, Array, Tree], tuple[Tree, Tree]],
    data: Data,
    weights: Array | None,
    carried: Tree,
    *,
    chunk: int | tuple[int, ...],
) -> tuple[Tree, Tree]:
    """Sum as `sum_over_rows` does, with something of each row's own beside it that the function moves.

    The last chunk overlaps the one before it and its repeated rows weigh 0, so no padded copy is made.
    Rows of weight 0 are replaced by zeros before the function sees them: whatever they hold, infinities
    and NaN too, cannot reach the sum or its gradient. Of `Ragged` rows `carried` is a tuple, part by part.
    """
    if not isinstance(data, Ragged):
        total, carried = _sweep_part(function, data, weights, carried, cast(int, chunk), None)
        return add_up(total), carried
    total, moved = None, []
    nothing = [()] * len(data.parts)
    row_weights = nothing if weights is None else data.split(weights)
    each = zip(data.parts, row_weights, carried or nothing, cast(tuple[int, ...], chunk), strict=True)
    for part, w, own, size in each:
        total, own = _sweep_part(function, part, None if weights is None else w, own, size, total)
        moved.append(own)
    return add_up(total), tuple(moved) if carried else ()


def _sweep_part(
    function: Callable[[Data, Array, Tree], tuple[Tree, Tree]],
    data: Data,
    weights: Array | None,
    carried: Tree,
    chunk: int,
    total: Tree,
) -> tuple[Tree, Tree]:
    """Sum over rows of one shape, added to `total` where there is one."""
    n, dtype, chunk = n_rows(data), float_dtype(data), chunk * room()

    def call(rows: Data, row_weights: Array, own: Tree) -> tuple[Tree, Tree]:
        with seen_alone():
            return function(rows if weights is None else blank_idle(rows, row_weights), row_weights, own)

    if n <= chunk:
        more, own = call(data, jnp.ones(n, dtype) if weights is None else weights, carried)
        return _added(total, more), own

    def add(carry: tuple[Tree, Tree], number: Array) -> tuple[tuple[Tree, Tree], None]:
        total, carried = carry
        wanted = number * chunk
        start = jnp.minimum(wanted, n - chunk)
        rows, own = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, chunk), (data, carried))
        fresh = start + jnp.arange(chunk) >= wanted
        row_weights = fresh.astype(dtype)
        if weights is not None:
            row_weights = row_weights * lax.dynamic_slice_in_dim(weights, start, chunk)
        more, moved = call(rows, row_weights, own)

        def put(table: Array, new: Array, old: Array) -> Array:
            new = jnp.where(fresh.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            return lax.dynamic_update_slice_in_dim(table, new, start, 0)

        return (_added(total, more), jax.tree.map(put, carried, moved, own)), None

    if total is None:
        first, first_own = jax.tree.map(lambda x: lax.slice_in_dim(x, 0, chunk), (data, carried))
        first_weights = jnp.ones(chunk, dtype) if weights is None else weights[:chunk]
        total = _zeros(jax.eval_shape(call, first, first_weights, first_own)[0])
    return lax.scan(add, (total, carried), jnp.arange(-(-n // chunk)))[0]


def _scattered(x: Data) -> bool:
    return isinstance(x, Scattered)


def _zeros(like: Tree) -> Tree:
    def zeros(x: Data) -> Array:
        return x.zeros() if _scattered(x) else jnp.zeros(x.shape, x.dtype)

    return jax.tree.map(zeros, like, is_leaf=_scattered)


def _added(total: Tree, more: Tree) -> Tree:
    """Add the sums of a chunk to those before it."""
    if total is None:
        if not any(map(_scattered, jax.tree.leaves(more, is_leaf=_scattered))):
            return more
        total = _zeros(more)
    add = lambda x, table: x.onto(table) if _scattered(x) else table + x
    return jax.tree.map(add, more, total, is_leaf=_scattered)


def expectation(
    model: ConjugateModel, params: Params, data: Data, weights: Array | None = None, local: Tree = None
) -> Expectation:
    """Run the model's `e_step` over all rows, chunk by chunk.

    Args:
        model: gives `prepare(params)`, `e_step(prepared, rows, weights)`, `collect(sums)` and
            `chunk_rows(rows)`.
        params: states of the global factors.
        data: pytree of arrays with a common leading axis, `Ragged` rows, or None for a model without data.
        weights: (n,) or None.
        local: where local factors that interact begin; they come back in the expectation's `local`. Without
            it they begin anew, and nothing of the size of the data is kept.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x, model = jnp.arange(5.0), vb.textbook.GaussianMeanPrecision().resolve(jnp.arange(5.0))
    >>> params = vb.Record({name: family.neutral("float32") for name, family in model.factors.items()})
    >>> total = vb.core.expectation(model, params, x, weights=jnp.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    >>> print(total.weight, total.statistics.tau.value)  # of three rows, -E[(x - mu)^2] / 2
    3.0 -4.0
    """
    if data is None:
        return model.no_rows(params)
    total, local = sum_e_steps(model, model.prepare(params), data, weights, local)
    return model.collect(total)._replace(local=local)


def sum_e_steps(
    model: ConjugateModel, prepared: Tree, data: Data, weights: Array | None, local: Tree = None
) -> tuple[Expectation, Tree]:
    """Run the E-step of all rows, before `collect`; return local factors after it too, where carried."""
    chunk = by_part(model.chunk_rows, data)
    if local is None:
        e_step = lambda rows, w: model.e_step(prepared, rows, w)
        return sum_over_rows(e_step, data, weights, chunk=chunk), None

    def carry(rows: Data, w: Array, own: Tree) -> tuple[Expectation, Tree]:
        total = model.carried_e_step(prepared, rows, w, own)
        return total._replace(local=None), total.local

    return sweep_rows(carry, data, weights, local, chunk=chunk)
