"""Tables and series in CSV files: columns of numbers, and of text as the codes of its labels.

`datasets` reads numbers alone by it, the shell command both; `csv_files` reads the cells.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from vbjax.data.csv_files import (
    check_numeric,
    column_number,
    first_named,
    is_header,
    is_numeric,
    labels_of,
    read_columns,
    read_lines,
    read_numbers,
)
from vbjax.data.sequences import Sequences

Labels: TypeAlias = Sequence[tuple[str, ...] | None] | None
"""Labels of the columns taken, in the order of their codes; None for a column of numbers, or for all."""


class Series(NamedTuple):
    """Table of sequences as it is in its file, a row for each line.

    Attributes:
        values: (t, d), NaN where missing, in float64.
        columns: d names.
        sequence: (t,), the number of the sequence that a row belongs to.
        names: of the sequences; a single one without a name is "".
        lines: (t,), the line of each row, from 1.
        labels: of the columns of text, in the order of their codes; None for a column of numbers, or for all.
    """

    values: np.ndarray
    columns: list[str]
    sequence: np.ndarray
    names: list[str]
    lines: np.ndarray
    labels: Labels = None

    def sequences(self) -> Sequences:
        """Return the rows of each sequence, in the default float dtype."""
        return Sequences.of(self.values[self.order], np.bincount(self.sequence))

    @property
    def order(self) -> np.ndarray:
        """Numbers of the rows, (t,), sequence by sequence."""
        return np.argsort(self.sequence, kind="stable")


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str | int] | None,
    *,
    missing: bool,
    labels: Labels = None,
) -> tuple[np.ndarray, list[str]]:
    """Read a table as `datasets.read_table` does, columns that have labels as their codes."""
    columns = read_columns(columns)
    if not (lines := read_lines(path)):
        raise ValueError(f"{path}: the file is empty; expected lines of numbers")
    first, header = lines[0][1], is_header(path, lines, columns or ())
    names = [cell.strip() for cell in first] if header else [f"x{j}" for j in range(len(first))]
    data = lines[header:]
    if not data:
        raise ValueError(f"{path}: no data after the header in line {lines[0][0]}; expected lines of numbers")
    if columns is None:
        taken = list(range(first_named(path, names), len(names)))
        check_numeric(path, data, names, taken)
    else:
        taken = [column_number(path, column, names) for column in columns]
    return read_numbers(path, data, names, taken, missing, labels), [names[j] for j in taken]


def read_series(
    path: str | os.PathLike[str],
    sequence: str | int | None,
    columns: Sequence[str | int] | None,
    labels: Labels = None,
) -> Series:
    """Read sequences as `datasets.read_series` does, columns that have labels as their codes."""
    columns = read_columns(columns)
    names, data = _below_header(path, (sequence, *(columns or ())))
    by = None if sequence is None else column_number(path, sequence, names, "sequence")
    if columns is None:
        start = 0 if by == 0 else first_named(path, names)
        taken = [j for j in range(start, len(names)) if j != by and is_numeric(j, data)]
    else:
        taken = [column_number(path, column, names) for column in columns]
    if not taken:
        raise ValueError(f"{path}: no column of numbers; expected one at least, of {names}")
    values = read_numbers(path, data, names, taken, True, labels)
    numbers: dict[str, int] = {} if by is not None else {"": 0}
    which = np.zeros(len(data), int)
    for i, (line, cells) in enumerate(data):
        if by is not None:
            if not (own := cells[by].strip()):
                place = f"{path}, line {line}, column {names[by]!r}"
                raise ValueError(f"{place}: blank; expected a sequence's name")
            which[i] = numbers.setdefault(own, len(numbers))
    of_lines = np.array([line for line, _ in data])
    return Series(values, [names[j] for j in taken], which, list(numbers), of_lines, labels)


def read_labels(path: str | os.PathLike[str], columns: Sequence[str | int]) -> Labels:
    """Return the labels of columns of text below a header, sorted; None for those of numbers."""
    names, data = _below_header(path, columns)
    taken = [column_number(path, column, names) for column in columns]
    return [None if is_numeric(j, data) else labels_of(j, data) for j in taken]


def _below_header(
    path: str | os.PathLike[str], wanted: Sequence[str | int | None]
) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, and the lines below them."""
    if not (lines := read_lines(path)):
        raise ValueError(f"{path}: the file is empty; expected a header and lines of numbers")
    (first, header), *data = lines
    if not is_header(path, lines, wanted):
        raise ValueError(f"{path}, line {first}: no header; expected the names of the columns")
    if not data:
        raise ValueError(f"{path}: no data after the header in line {first}; expected lines of numbers")
    return [cell.strip() for cell in header], data
