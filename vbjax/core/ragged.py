"""Rows of unequal length, such as documents and sequences, kept in parts of one padded shape each.

Imported by core's expectation, and by what describes such data.
"""

from __future__ import annotations

import abc
import dataclasses
import reprlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.typing import ArrayLike, DTypeLike

from vbjax.core.devices import ROWS, WHOLE, largest, mesh_over, on_hosts, own_key, put_own, read_devices
from vbjax.families.base import pytree
from vbjax.numerics.inputs import as_numbers, row_numbers_here, rows_here, spans_processes
from vbjax.numerics.types import Data, Tree

Most: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""From numbers to the largest of those of all processes, entry by entry."""


@pytree
class Ragged(abc.ABC):
    """Rows in parts, those of one part padded to the same length.

    Attributes:
        parts: pytrees of arrays, each with a leading axis of its own rows.
        order: (n,), for every row, part after part, its place among the rows as they were given.
    """

    parts: tuple[Tree, ...]
    order: Array

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return self.order.shape[0]

    def split(self, x: Data) -> tuple[Tree, ...]:
        """Divide what is given for every row, leaves (n, ...), into parts."""
        sizes = [jax.tree.leaves(part)[0].shape[0] for part in self.parts]
        places = jnp.split(self.order, np.cumsum(sizes)[:-1])
        return tuple(jax.tree.map(lambda leaf, own=own: leaf[own], x) for own in places)

    def join(self, parts: Sequence[Tree]) -> Tree:
        """Join what is there for every row of every part, in the order in which the rows were given.

        Where the arrays of some parts are shorter along other axes, they end in zeros.
        """
        back = jnp.argsort(self.order)

        def joined(*leaves: Array) -> Array:
            event = np.max([leaf.shape[1:] for leaf in leaves], axis=0, initial=0)
            ends = [[(0, 0), *((0, n) for n in event - leaf.shape[1:])] for leaf in leaves]
            padded = [jnp.pad(leaf, end) for leaf, end in zip(leaves, ends, strict=True)]
            return jnp.concatenate(padded)[back]

        return jax.tree.map(joined, *parts)

    def only(self, parts: Sequence[Tree]) -> Self:
        """Return rows of some parts, numbered part after part."""
        n = sum(len(jax.tree.leaves(part)[0]) for part in parts)
        return dataclasses.replace(self, parts=tuple(parts), order=jnp.arange(n, dtype=jnp.int32))

    @abc.abstractmethod
    def in_parts_of(self, other: Self) -> Self:
        """Return these rows, followed by empty ones, in parts of the shapes that others have."""

    @abc.abstractmethod
    def in_parts_for(self, n_devices: int, most: Most = lambda x: x) -> Self:
        """Return these rows, followed by some empty ones, in parts whose sizes so many devices divide."""

    def sharded(self, devices: Sequence[jax.Device] | None = None) -> Self:
        """Divide the rows over devices, as `fit` does by itself: worth it where they are fitted often.

        Every part has as many rows on each device; a few empty rows may follow the last.

        The devices may be those of several processes (`jax.distributed`), `jax.devices()`. Each process then
        has rows of its own, all call this together, and so they do `fit`, whose result is the same in each.
        The rows of a process stay on its devices. Together they are numbered process after process, the empty
        ones after those of their process.

        Args:
            devices: by default all of this process.

        Raises:
            ValueError: `devices` that are no list of devices, at least one of them of this process; rows that
                are not like those of another process, in their columns, dtypes or vocabulary.
        """
        mesh = mesh_over(read_devices(devices), ROWS)
        owners, here = np.array([device.process_index for device in mesh.devices.flat]), jax.process_index()
        if not (n_own := int((owners == here).sum())):
            raise ValueError(f"devices must be of this process too, such as jax.devices(); got {devices!r}")
        self._require_alike(mesh)
        same = self.in_parts_for(n_own, lambda x: largest(x, mesh))
        first = same.n_rows // n_own * (owners < here).sum()
        places = put_own([own + np.int32(first) for own in same._places()], mesh)
        order = np.concatenate(on_hosts(places, mesh))
        order = jax.make_array_from_process_local_data(NamedSharding(mesh, WHOLE), order, order.shape)
        return dataclasses.replace(same, parts=put_own(same.parts, mesh), order=order)

    def _require_alike(self, mesh: Mesh) -> None:
        """Raise a ValueError unless the rows of all processes are of one kind."""
        structure = jax.tree.structure(dataclasses.replace(self, parts=self.parts[:1]))
        form = structure, [(str(x.dtype), x.shape[2:]) for x in jax.tree.leaves(self.parts[0])]
        number = zlib.crc32(repr(form).encode()) // 2
        most, least = largest(np.array([number, -number]), mesh)
        if most != -least:
            what = "the same columns, dtype and vocabulary in all processes"
            raise ValueError(f"data must have {what}; here they are {self}")

    def here(self) -> Self:
        """Return the rows of this process, in the order in which it gave them; all, if no other has any."""
        if not spans_processes(self.parts):
            return self
        each = zip(self._places(), self.parts, strict=True)
        own = np.concatenate([places[row_numbers_here(jax.tree.leaves(part)[0])] for places, part in each])
        order: Any = np.argsort(np.argsort(own)).astype(np.int32)
        return dataclasses.replace(self, parts=rows_here(self.parts), order=order)

    def _places(self) -> list[np.ndarray]:
        """Return `order`, part by part."""
        sizes = [len(jax.tree.leaves(part)[0]) for part in self.parts]
        return np.split(np.asarray(self.order), np.cumsum(sizes)[:-1])


def parts_of(data: Data) -> tuple[Tree, ...]:
    """Return the parts of `Ragged` rows; other rows are the only part."""
    return data.parts if isinstance(data, Ragged) else (data,)


def beside(data: Data, own: Tree) -> Tree:
    """Return pairs of rows and something of each row's own; of `Ragged` rows, part by part."""
    if not isinstance(data, Ragged):
        return data, own
    return dataclasses.replace(data, parts=tuple(zip(data.parts, own, strict=True)))


def by_part(function: Callable[[Data], Tree], data: Data) -> Tree:
    """Return a function of rows; of `Ragged` rows, of every part."""
    return tuple(map(function, data.parts)) if isinstance(data, Ragged) else function(data)


def by_part_with_key(function: Callable[..., Tree], key: Array, data: Data, *own: Tree) -> Tree:
    """Return function(key, rows, own) of rows; of `Ragged` rows, of every part with a key of its own."""
    key = own_key(key)
    if not isinstance(data, Ragged):
        return function(key, data, *own)
    return tuple(map(function, jax.random.split(key, len(data.parts)), data.parts, *own))


def placed(x: np.ndarray, dtype: DTypeLike | None = None) -> Array:
    """Put a table of the host on the device. It compiles nothing: minibatches of a stream differ in shape."""
    return jax.device_put(np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype if dtype is None else dtype)))


def row_numbers(rows: ArrayLike, n: int, what: str) -> np.ndarray:
    """Read numbers of rows (m,), at least one, from numbers or a mask (n,); errors call the rows `what`."""
    if isinstance(rows, jax.core.Tracer):
        raise ValueError(f"rows must be known numbers of {what}, not traced")
    chosen = np.asarray(as_numbers(rows, "rows"))
    if chosen.dtype == bool and chosen.shape == (n,):
        chosen = np.flatnonzero(chosen)
    if chosen.ndim != 1 or not chosen.size or not np.issubdtype(chosen.dtype, np.integer):
        expected = f"numbers of {what}, at least one, or a mask of shape ({n},)"
        raise ValueError(f"rows must be {expected}; got {reprlib.repr(rows)}")
    if chosen.min() < 0 or chosen.max() >= n:
        raise ValueError(f"rows must be from 0 to {n - 1}; got {chosen.min()} to {chosen.max()}")
    return chosen


def groups_of(lengths: np.ndarray, few: int | None = None) -> tuple[list[np.ndarray], list[int]]:
    """Return the rows' numbers of every part, by `buckets` of all lengths (n,), and its rows' length."""
    return groups_for(lengths, 1, few=few)[1:]


def groups_for(
    lengths: np.ndarray, n_devices: int, most: Most = lambda x: x, few: int | None = None
) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Divide rows, followed by empty ones, into parts of which every device has as many rows.

    Of the rows in the order of their lengths as many as there are devices stay together. Where rows lie in
    several processes, each divides its own into parts of the same shapes.

    Args:
        lengths: (n,), the rows' lengths.
        n_devices: of this process.
        most: of all processes.
        few: see `buckets`.

    Returns:
        The lengths of all rows, 0 for the empty ones; the rows' numbers and the padded length of every part.
    """
    each = int(most(np.array(-(-len(lengths) // n_devices))))
    lengths = np.pad(lengths, (0, each * n_devices - len(lengths)))
    order = np.argsort(lengths, kind="stable").reshape(each, n_devices)
    longest = most(lengths[order[:, -1]])
    groups = buckets(longest, few=few)
    widths = [max(1, int(longest[rows].max())) for rows in groups]
    return lengths, [order[rows].reshape(-1) for rows in groups], widths


def groups_like(
    lengths: np.ndarray, shapes: Sequence[tuple[int, int]], what: str
) -> tuple[np.ndarray, list[np.ndarray], list[int]]:
    """Divide rows, followed by empty ones, into parts of the shapes that the parts of others have.

    If a row is longer than its part, all parts become a half longer than they need: minibatches compile one
    program, and few others.

    Args:
        lengths: (n,), the rows' lengths.
        shapes: of the others' parts, their rows and padded length.
        what: the rows' name in errors.

    Returns:
        The lengths of all rows, 0 for the empty ones; the rows' numbers and the padded length of every part.

    Raises:
        ValueError: more rows than the others have.
    """
    sizes, widths = np.array(shapes).T
    if len(lengths) > sizes.sum():
        raise ValueError(
            f"data must have at most {sizes.sum()} {what}, as the first minibatch; got {len(lengths)}"
        )
    lengths = np.pad(lengths, (0, sizes.sum() - len(lengths)))
    groups = np.split(np.argsort(lengths, kind="stable"), np.cumsum(sizes)[:-1])
    need = np.array([lengths[rows].max(initial=0) for rows in groups])
    if (need > widths).any():
        widths = np.maximum(widths, need + need // 2)
    return lengths, groups, widths.tolist()


def buckets(lengths: np.ndarray, spare: float = 1 / 6, few: int | None = None) -> list[np.ndarray]:
    """Group rows by length, in as few groups as leave at most a share `spare` of padding.

    Args:
        lengths: (n,), the rows' lengths, at least 1 once padded.
        spare: padded cells over all cells, at most.
        few: so many groups are enough, if they leave at most twice that share; None where they are not.

    Returns:
        The rows' numbers, group by group, lengths rising.
    """
    order = np.argsort(lengths, kind="stable")
    lengths = np.maximum(lengths[order], 1)
    # a group ends at one of the distinct lengths; of many, at the longest of those that differ by less than a
    # share of spare / 2, so that a group for every end leaves less than that of padding
    ends = np.flatnonzero(np.append(np.diff(lengths) > 0, True)) + 1
    if len(ends) > 64 and spare > 0:
        step = np.floor(np.log(lengths[ends - 1]) / np.log1p(spare / 2))
        ends = ends[np.append(np.diff(step) > 0, True)]
    starts = np.append(0, ends)
    # cost[i, j]: cells of a group of the rows from starts[i] to ends[j]
    # best[b][j]: of all rows to ends[j], in b + 1 groups or fewer; came[b][j]: where the last of them begins
    cost = np.where(starts[:-1, None] < ends, (ends - starts[:-1, None]) * lengths[ends - 1], np.inf)
    best, came = [cost[0]], []

    def padded() -> bool:
        share = 1 - lengths.sum() / best[-1][-1]
        return share > (spare if few is None or len(best) < few else 2 * spare)

    while padded() and len(best) < len(ends):
        through = best[-1][:-1, None] + cost[1:]  # the last group begins after the end i
        came.append(through.argmin(0))
        best.append(np.minimum(best[-1], through.min(0)))
        came[-1] = np.where(best[-1] < best[-2], came[-1], -1)
    groups, end = [], len(ends) - 1
    for step in reversed(came):
        if step[end] >= 0:
            groups.append(order[ends[step[end]] : ends[end]])
            end = step[end]
    groups.append(order[: ends[end]])
    return groups[::-1]
