"""An index into the cells of a plate: `s.effect[group]`. JAX would clamp what is out of range, in silence.

Numbers that can be seen are looked at here; those of data, which are traced, are noted for core's check.
Imported by base.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

Cells = tuple[Any, ...]  # of an index: what it takes of every axis of the plate

_reads: contextvars.ContextVar[list[tuple[Any, Cells]] | None] = contextvars.ContextVar("reads", default=None)


@contextlib.contextmanager
def noted_reads() -> Iterator[list[tuple[Any, Cells]]]:
    """Give a list, to which all statistics that are indexed meanwhile are added, and how."""
    reads: list[tuple[Any, Cells]] = []
    token = _reads.set(reads)
    try:
        yield reads
    finally:
        _reads.reset(token)


def note_read(statistics: Any, cells: Cells) -> None:
    """Add to the list of `noted_reads`, if there is one."""
    if (reads := _reads.get()) is not None:
        reads.append((statistics, cells))


def read_cells(index: Any, plate: tuple[int, ...]) -> Cells:
    """Return an index into a plate as a tuple, its ellipsis written out, its numbers counted from the start.

    Raises:
        IndexError: a number that is no cell's, where values may be looked at; more axes than the plate has.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(np.asarray(part) if isinstance(part, (list, np.integer)) else part for part in parts)
    if (taken := sum(map(axes_taken, parts))) > len(plate):
        raise IndexError(f"an index takes {taken} axes of a plate of shape {plate}")
    whole = [slice(None)] * (len(plate) - taken)
    parts = tuple(x for part in parts for x in (whole if part is ... else [part]))
    cells, axis = [], 0
    for part in parts:
        cells.append(part if part is None or _is_mask(part) else _of_axis(part, axis, plate))
        axis += axes_taken(part)
    return tuple(cells)


def _of_axis(part: Any, axis: int, plate: tuple[int, ...]) -> Any:
    if isinstance(part, (slice, jax.core.Tracer)) or not np.size(part):
        return part
    size, values = plate[axis], np.asarray(part)
    least = -size if isinstance(part, int) else 0
    for value in values.min(), values.max():
        if not least <= value < size:
            raise IndexError(f"an index of {value} into a plate of shape {plate}: {numbers_of(size)}")
    return part + size if isinstance(part, int) and part < 0 else part


def numbers_of(size: int) -> str:
    """Say which numbers are those of an axis of a plate."""
    return f"its cells have the numbers 0 to {size - 1}"


def axes_taken(part: Any) -> int:
    """Return how many axes of a plate a part of an index takes."""
    if part is None or part is ...:
        return 0
    return part.ndim if _is_mask(part) else 1


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == np.dtype(bool)
