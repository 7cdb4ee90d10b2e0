"""Tables and series of the shell command: from CSV files, and from .npy and Parquet, which may stay on disk.

Imported by `commands`, `chains` and `predictions`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vbjax.cli.files import UserError, reading
from vbjax.data import csv_tables
from vbjax.data.csv_files import column_number, how_to_take
from vbjax.data.csv_tables import Labels, Series
from vbjax.data.frames import Columns, codes_of
from vbjax.data.sources import Blocks, Memmap, Parquet, Source
from vbjax.numerics.extras import import_extra

_BINARY = (".npy", ".parquet")
_INDEX = "__index_level_0__"  # what pandas calls row numbers that have no name
_LARGE = 2**27  # numbers of a table, 1 GiB, above which it stays on disk


class _File(NamedTuple):
    """Columns of a file: their names, which have numbers, the number of rows, a source of some of them, all
    values of one, and its labels, None of numbers."""

    names: list[str]
    numeric: list[bool]
    n_rows: int
    source: Callable[[Sequence[int]], Source]
    values: Callable[[int], list]
    labels: Callable[[int], tuple[str, ...] | None]


def load_table(
    path: str, columns: Sequence[str | int] | None, *, missing: bool, labels: Labels = None
) -> tuple[np.ndarray | Source, list[str]]:
    """Read a table of numbers, and the names of its columns: x0, x1, ... where they have none.

    Args:
        path: a .npy file of shape (n, d), a .parquet file or folder, or else a CSV file.
        columns: names or numbers of columns; by default all.
        missing: whether entries may be missing, and become NaN.
        labels: of the columns of text, which become codes.

    Returns:
        The table in float64, or one of more than 2^27 numbers that is not in CSV as a source; and names.

    Raises:
        UserError: a file that cannot be read; a column of text; in a table that is read whole a number that
            is neither finite nor `missing`.
    """
    with reading(path):
        if not path.endswith(_BINARY):
            return csv_tables.read_table(path, columns, missing=missing, labels=labels)
        file, taken = _opened(path, columns)
        names = [file.names[j] for j in taken]
        text = [j for j in taken if not file.numeric[j]]
        if text and columns is None and (others := [file.names[j] for j in taken if j not in text]):
            what = f"{path}, column {file.names[text[0]]!r}: expected numbers"
            raise ValueError(f"{what}; {how_to_take(others, len(text))}")
        if file.n_rows * len(taken) > _LARGE and labels is None:
            return file.source(taken), names
        table = _whole(path, file, taken, labels)
        if len(bad := np.argwhere(np.isinf(table) if missing else ~np.isfinite(table))):
            i, j = bad[0]
            place = f"{path}, row {i}, column {names[j]!r}"
            remedy = "; --missing takes it for missing" if np.isnan(table[i, j]) else ""
            raise ValueError(f"{place}: {table[i, j]}; expected a finite number{remedy}")
        return table, names


def blocks_of(table: Any) -> Iterable[Any]:
    """Return a table's rows; of a source block by block."""
    return table if isinstance(table, Source) else [table]


def load_labels(path: str, columns: Sequence[str | int]) -> Labels:
    """Read the labels of columns of text, None of columns of numbers.

    They are sorted, of a dictionary of Parquet in its order.

    Raises:
        UserError: a file that cannot be read.
    """
    with reading(path):
        if not path.endswith(_BINARY):
            return csv_tables.read_labels(path, columns)
        file, taken = _opened(path, columns)
        return [file.labels(j) for j in taken]


def load_series(
    path: str, sequence: str | int | None, columns: Sequence[str | int] | None, labels: Labels = None
) -> Series:
    """Read sequences, as `datasets.read_series_table` does from CSV, from a .npy or .parquet file too.

    Of these all columns of numbers but `sequence` are taken by default; a row's line is its number, from 1.
    Columns of text that have labels become codes.

    Raises:
        UserError: a file that cannot be read.
    """
    with reading(path):
        if not path.endswith(_BINARY):
            return csv_tables.read_series(path, sequence, columns, labels)
        file, taken = _opened(path, columns)
        if columns is None:
            taken = [j for j in taken if file.numeric[j]]
        names, which = [""], np.zeros(file.n_rows, int)
        if sequence is not None:
            by = column_number(path, sequence, file.names, "sequence")
            taken = [j for j in taken if columns is not None or j != by]
            values = list(map(str, file.values(by)))
            names = list(dict.fromkeys(values))
            numbers = {name: number for number, name in enumerate(names)}
            which = np.array([numbers[value] for value in values], int)
        lines = np.arange(1, file.n_rows + 1)
        table = _whole(path, file, taken, labels)
        return Series(table, [file.names[j] for j in taken], which, names, lines, labels)


def _opened(path: str, columns: Sequence[str | int] | None) -> tuple[_File, list[int]]:
    """Open a file, and find the numbers of the columns taken: by default all but pandas' row numbers.

    Raises:
        UserError: a Parquet file without pyarrow.
        ValueError: what is no table with these columns.
    """
    try:
        file = (_array if path.endswith(".npy") else _parquet)(path)
    except ImportError as error:
        raise UserError(error) from error
    if columns is None:
        if _INDEX in file.names:
            warnings.warn(f"{path}: column {_INDEX!r} is left out (--columns takes it)", stacklevel=2)
        return file, [j for j, name in enumerate(file.names) if name != _INDEX]
    return file, [column_number(path, column, file.names) for column in columns]


def _array(path: str) -> _File:
    source = Memmap(path)
    rows = np.load(path, mmap_mode="r")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"{path}: expected a table of shape (n, d); got {rows.shape}")

    def some(taken: Sequence[int]) -> Source:
        every = list(taken) == list(range(rows.shape[1]))
        return source if every else Blocks(lambda: (block[:, taken] for block in source))

    names = [f"x{j}" for j in range(rows.shape[1])]
    return _File(names, [True] * len(names), len(rows), some, lambda j: rows[:, j].tolist(), lambda j: None)


def _parquet(path: str) -> _File:
    source = Parquet(path)
    names: list[str] = source.columns
    parquet, types = (import_extra("disk", f"pyarrow.{name}") for name in ("parquet", "types"))
    kinds = types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_null
    numeric = [any(of(kind) for of in kinds) for kind in parquet.read_schema(source.paths[0]).types]

    column = lambda j: parquet.read_table(path, columns=[names[j]])
    return _File(
        names,
        numeric,
        source.n_rows,
        lambda taken: Parquet(path, [names[j] for j in taken]),
        lambda j: column(j).column(0).to_pylist(),
        lambda j: Columns.of(column(j)).labels[0],
    )


def _whole(path: str, file: _File, taken: Sequence[int], labels: Labels) -> np.ndarray:
    """Return all rows of some columns, (n, d), in float64: of those that have labels as their codes."""
    if labels is None:
        return np.concatenate([np.empty((0, len(taken))), *file.source(taken)], dtype=float)
    table = np.empty((file.n_rows, len(taken)))
    for column, (j, own) in enumerate(zip(taken, labels, strict=True)):
        if own is None:
            table[:, [column]] = _whole(path, file, [j], None)
        else:
            values = [None if value is None else str(value) for value in file.values(j)]
            rows = [f"row {row}" for row in range(len(values))]
            table[:, column] = codes_of(values, own, f"{path}, column {file.names[j]!r}", rows)
    return table
