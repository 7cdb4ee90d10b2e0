"""Readers of CSV files for `datasets`; their errors name the file, the line and the column.

Cells are separated by the first of tab, semicolon and comma that stands in the first line outside quotes.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import itertools
import math
import os
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import numpy as np

from vbjax.data.frames import codes_of
from vbjax.numerics.types import Given

_MOST_NAMED = 6  # columns that an error lists


@contextlib.contextmanager
def open_text(
    path: str | os.PathLike[str], kind: str = "text", newline: str | None = None
) -> Iterator[IO[str]]:
    """Open a file by its name to read its text: UTF-8, with or without a byte order mark, gzipped if .gz.

    Raises:
        TypeError: if path is no name, such as a file's number.
        ValueError: if the name has a zero byte; if what is read is no such text, called `kind`.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path must be the name of a file; got {path!r}")
    if "\0" in (name := os.fspath(path)):
        raise ValueError(f"path must be the name of a file, without a zero byte; got {path!r}")
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt", newline=newline, encoding="utf-8-sig") as file:
        try:
            yield file
        except (UnicodeDecodeError, csv.Error, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: not a {kind} in UTF-8: {error}") from error


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
    known = [j for j, cell in enumerate(first) if not _is_missing(cell)]
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
    entry = _first_entry(j, data)
    return entry is not None and _is_number(entry[1])


def check_numeric(
    path: str | os.PathLike[str],
    data: Sequence[tuple[int, list[str]]],
    names: list[str],
    taken: Sequence[int],
) -> None:
    """Raise where columns taken by default hold text, and say how to take the others.

    Raises:
        ValueError: a column whose first entry is no number, beside columns of numbers.
    """
    entries = {j: entry for j in taken if (entry := _first_entry(j, data))}
    text = [j for j, (_, cell) in entries.items() if not _is_number(cell)]
    others = [names[j] for j in taken if j not in text]
    if text and others:
        line, cell = entries[text[0]]
        where = f"{path}, line {line}, column {names[text[0]]!r}"
        raise ValueError(f"{where}: {cell!r}; expected a finite number; {how_to_take(others, len(text))}")


def how_to_take(names: list[str], n_others: int) -> str:
    """Return how to take some columns and leave out others, in words for an error."""
    some = ",".join(names[:_MOST_NAMED]) + ",..." * (len(names) > _MOST_NAMED)
    others = f"{n_others} column{'s' * (n_others != 1)} of text"
    return f"columns, in the shell --columns {some}, leaves out the {others}"


def _first_entry(j: int, data: Sequence[tuple[int, list[str]]]) -> tuple[int, str] | None:
    """Return the line and the cell of a column's first entry that is not missing."""
    cells = ((line, cells[j]) for line, cells in data if j < len(cells))
    return next(((line, cell) for line, cell in cells if not _is_missing(cell)), None)


def read_numbers(
    path: str | os.PathLike[str],
    data: Sequence[tuple[int, list[str]]],
    names: list[str],
    taken: Sequence[int],
    missing: bool,
    labels: Sequence[Sequence[str] | None] | None = None,
) -> np.ndarray:
    """Return the cells of some columns as numbers, (n, d): of those that have labels as their codes."""
    labels = [None] * len(taken) if labels is None else labels
    rows = []
    for number, cells in data:
        if len(cells) != len(names):
            raise ValueError(f"{path}, line {number}: {len(cells)} cells; expected {len(names)}")
        rows.append(
            [
                _finite(path, number, names[j], cells[j], missing) if own is None else math.nan
                for j, own in zip(taken, labels, strict=True)
            ]
        )
    table = np.array(rows)
    for column, (j, own) in enumerate(zip(taken, labels, strict=True)):
        if own is not None:
            text = [None if missing and _is_missing(cells[j]) else cells[j].strip() for _, cells in data]
            lines = [f"line {number}" for number, _ in data]
            table[:, column] = codes_of(text, own, f"{path}, column {names[j]!r}", lines)
    return table


def labels_of(j: int, data: Sequence[tuple[int, list[str]]]) -> tuple[str, ...]:
    """Return the labels in a column of text, sorted."""
    cells = {cells[j].strip() for _, cells in data if j < len(cells)}
    return tuple(sorted(cell for cell in cells if not _is_missing(cell)))


def read_lines(path: str | os.PathLike[str]) -> list[tuple[int, list[str]]]:
    """Return line numbers, from 1, and cells, without the blank lines at the end."""
    with open_text(path, "CSV file", newline="") as file:
        first = next(file, "")
        bare = re.sub('"[^"]*("|$)', "", first)
        delimiter = next((mark for mark in "\t;" if mark in bare), ",")
        reader = csv.reader(itertools.chain([first], file), delimiter=delimiter)
        lines = [(reader.line_num, cells) for cells in reader]
    while lines and not any(cell.strip() for cell in lines[-1][1]):
        lines.pop()
    return lines


def _number(cell: str) -> float | None:
    """Return the number in a cell, None if there is none."""
    try:
        return None if "_" in cell else float(cell)  # Python reads 1_000 as a number; a table should not
    except ValueError:
        return None


def _is_number(cell: str) -> bool:
    """Return whether a cell has a number, also one with a decimal comma, which `read_numbers` refuses."""
    return _number(cell.replace(",", ".")) is not None


def _is_missing(cell: str) -> bool:
    """Return whether a cell has no entry: it is blank, NA as R writes it, or NaN."""
    return cell.strip().lower() in ("", "na", "nan", "-nan")


def _finite(path: str | os.PathLike[str], line: int, column: str, cell: str, missing: bool) -> float:
    """Return the number in a cell, which may be `missing`."""
    if missing and _is_missing(cell):
        return math.nan
    value = _number(cell)
    if value is None or not math.isfinite(value):
        what = "a finite number"
        if missing:
            what += ", or nothing where it is missing"
        elif _is_missing(cell):
            what += "; missing=True, in the shell --missing, takes it for missing"
        if value is None and _is_number(cell):
            what += ", with a point for its decimals"
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
