"""Indices into the cells of a plate, as in `s.effect[group]`; JAX would silently clamp those out of range.

Indices whose values can be seen are checked here. Those that come from data are traced: they are recorded
for core's check of the data. `families.base` imports this file.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import numpy as np

if TYPE_CHECKING:
    from vbjax.families.base import Statistics

CellIndex: TypeAlias = Any  # whatever numpy takes for an index, or a part of one
Cells: TypeAlias = tuple[CellIndex, ...]  # an index as a tuple, one part for each axis of the plate
Reads: TypeAlias = "list[tuple[Statistics, Cells]]"

_reads: contextvars.ContextVar[Reads | None] = contextvars.ContextVar("reads", default=None)


@contextlib.contextmanager
def record_reads() -> Iterator[Reads]:
    """Give a list to which every indexing of statistics in the context adds the statistics and the index."""
    reads: Reads = []
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)


def note_read(statistics: Statistics, cells: Cells) -> None:
    """Add an indexing to the list of `record_reads`, if there is one."""
    if (reads := _reads.get()) is not None:
        reads.append((statistics, cells))


def read_cells(index: CellIndex, plate: tuple[int, ...]) -> Cells:
    """Return an index into a plate as a tuple, its ellipsis written out, its numbers counted from the start.

    Raises:
        IndexError: if a number is not that of a cell (where values can be seen), or the index takes more axes
            than the plate has.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(part) if isinstance(part, (list, np.integer)) else part for part in parts)
    if (taken := sum(map(axes_taken, parts))) > len(plate):
        raise IndexError(f"an index takes {taken} axes of a plate of shape {plate}")
    whole = [slice(None)] * (len(plate) - taken)
    parts = tuple(x for part in parts for x in (whole if part is ... else [part]))
    cells, axis = [], 0
    for part in parts:
        cells.append(part if part is None or _is_mask(part) else _read_axis(part, axis, plate))
        axis += axes_taken(part)
    return tuple(cells)


def _read_axis(part: CellIndex, axis: int, plate: tuple[int, ...]) -> CellIndex:
    """Return the part of an index that belongs to one axis, checked and counted from the start."""
    if isinstance(part, (slice, jax.core.Tracer)) or not np.size(part):
        return part
    size, values = plate[axis], np.asarray(part)
    least = -size if isinstance(part, int) else 0
    for value in values.min(), values.max():
        if not least <= value < size:
            raise IndexError(f"an index of {value} into a plate of shape {plate}: {numbers_of(size)}")
    return part + size if isinstance(part, int) and part < 0 else part


def numbers_of(size: int) -> str:
    """Return a phrase for errors that says which numbers the cells of an axis have."""
    return f"its cells have the numbers 0 to {size - 1}"


def axes_taken(part: CellIndex) -> int:
    """Return how many axes of a plate a part of an index takes."""
    if part is None or part is ...:
        return 0
    return part.ndim if _is_mask(part) else 1


def _is_mask(part: CellIndex) -> bool:
    return getattr(part, "dtype", None) == np.dtype(bool)
