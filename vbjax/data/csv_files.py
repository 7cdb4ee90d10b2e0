"""Readers of CSV files for `datasets`; their errors name the file, the line and the column."""

from __future__ import annotations

import csv
import math
import os
import warnings
from collections.abc import Iterable, Sequence
from typing import IO

import numpy as np

from vbjax.numerics.types import Given


def open_text(path: str | os.PathLike[str], newline: str | None = None) -> IO[str]:
    """Open a file by its name to read its text, with or without a byte order mark.

    Raises:
        TypeError: if path is no name, such as a file's number.
        ValueError: if the name has a zero byte.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the name of a file; got {path!r}")
    if "\0" in os.fspath(path):
        raise ValueError(f"path must be the name of a file, without a zero byte; got {path!r}")
    return open(path, newline=newline, encoding="utf-8-sig")


def is_header(
    path: str | os.PathLike[str], lines: list[tuple[int, list[str]]], wanted: Iterable[str | int | None]
) -> bool:
    """Return whether the first line is a header: it names a wanted column, or all columns of numbers.

    Raises:
        ValueError: if the line has both names and numbers, so that it could be either.
    """
    (number, first), *data = lines
    named = [cell.strip() for cell in first]
    if any(isinstance(name, str) and name in named for name in wanted):
        return True
    known = [j for j, cell in enumerate(first) if cell.strip()]
    known = [j for j in known if is_numeric(j, data)] or known
    words = [j for j in known if _number(first[j]) is None]
    if 0 < len(words) < len(known) and data:
        j, other = words[0], next(j for j in known if j not in words)
        raise ValueError(
            f"{path}, line {number}: {first[j]!r} is no number but {first[other]!r} is one; expected a line "
            "of numbers, or a header of names alone"
        )
    return len(words) == len(known)


def first_named(path: str | os.PathLike[str], names: list[str]) -> int:
    """Return the first column to take by default: 1, with a warning, if a header does not name column 0."""
    if names[0] or not any(names):
        return 0
    warnings.warn(
        f"{path}: column 0 has no name; it is taken for row numbers and left out (columns takes it)",
        stacklevel=4,
    )
    return 1


def is_numeric(j: int, data: Sequence[tuple[int, list[str]]]) -> bool:
    """Return whether the first entry of a column that is not missing is a number."""
    entries = (cells[j] for _, cells in data if j < len(cells))
    values = (_number(cell) for cell in entries if cell.strip())
    return next((x is not None for x in values if x is None or not math.isnan(x)), False)


def read_numbers(
    path: str | os.PathLike[str],
    data: Sequence[tuple[int, list[str]]],
    names: list[str],
    taken: Sequence[int],
    missing: bool = False,
) -> np.ndarray:
    """Return the cells of some columns as numbers, (n, d)."""
    rows = []
    for number, cells in data:
        if len(cells) != len(names):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells; expected {len(names)}")
        rows.append([_finite(path, number, names[j], cells[j], missing) for j in taken])
    return np.array(rows)


def read_lines(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """Return line numbers, from 1, and cells, without the blank lines at the end."""
    with open_text(path, newline="") as file:
        reader = csv.reader(file)
        try:
            lines = [(reader.line_num, cells) for cells in reader]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: not a CSV file in UTF-8: {error}") from error
    while lines and not any(cell.strip() for cell in lines[-1][1]):
        lines.pop()
    return lines


def _number(cell: str) -> float | None:
    """Return the number in a cell, None if there is none."""
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_000 as a number; a table should not
    except ValueError:
        return None


def _finite(path: str | os.PathLike[str], line: int, column: str, cell: str, missing: bool = False) -> float:
    value = _number(cell) if cell.strip() or not missing else math.nan
    if value is None or not (math.isfinite(value) or (missing and math.isnan(value))):
        what = "a finite number, or nothing where it is missing" if missing else "a finite number"
        raise ValueError(f"{path}, line {line}, column {column!r}: {cell!r}; expected {what}")
    return value


def read_columns(columns: Given) -> list[str | int] | None:
    """Return names or numbers of columns as a list; None stays None."""
    if columns is None:
        return None
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable) or not (given := list(columns)):
        raise ValueError(f"columns must be a list of names or numbers, at least one; got {columns!r}")
    return given


def column_number(
    path: str | os.PathLike[str], column: str | int, names: list[str], argument: str = "columns"
) -> int:
    """Return the number of a column that is given by name or number."""
    if isinstance(column, str) and column in names:
        return names.index(column)
    if isinstance(column, int) and not isinstance(column, bool) and 0 <= column < len(names):
        return column
    raise ValueError(f"{path}: no column {column!r} in {argument}; expected a name or number of {names}")
