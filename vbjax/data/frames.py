"""Data frames of pandas, polars, pyarrow and others, read by narwhals: columns keep names and labels.

Imported by the drivers, which read what they are given, and by a fit, which reads other frames alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from vbjax.data.labelled import rows_of, with_rows
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import as_numbers
from vbjax.numerics.types import Data, Given

T = TypeVar("T")


class Table(Mapping[str, np.ndarray]):
    """Columns of numbers by name, each (n, 1); as an array (n, d)."""

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][:, None]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.column_stack(list(self._columns.values()))
        return array if dtype is None else array.astype(dtype)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self._columns)


@pytree
class Columns:
    """Names of a frame's columns, and the labels behind the codes 0, 1, ... of columns with categories.

    Attributes:
        names: names of the columns.
        labels: labels of every column, in the order of their codes; None for a column of numbers.
    """

    names: tuple[str, ...] = static()
    labels: tuple[tuple[str, ...] | None, ...] = static()

    @classmethod
    def of(cls, frame: Given) -> Columns:
        """Return the columns of a frame; labels are in the order of a categorical column, or sorted."""
        found = _series(frame)
        return cls(tuple(found), tuple(map(_labels, found.values())))

    def read(self, frame: Given) -> Table:
        """Return the columns of a frame, found by their names, as numbers.

        Raises:
            ValueError: a frame without one of the columns; a column that is neither numbers nor, where the
                first frame had labels, one of those labels.
        """
        found = _series(frame)
        if absent := [name for name in self.names if name not in found]:
            raise ValueError(
                f"data must have a column {absent[0]!r}; got columns {', '.join(map(repr, found))}"
            )
        pairs = zip(self.names, self.labels, strict=True)
        return Table({name: _numbers(found[name], name, labels) for name, labels in pairs})


def read_frame(data: Given, columns: Columns | None = None) -> tuple[Data, Columns | None]:
    """Return data with a frame's columns read, as those of an earlier one if given, and the columns.

    Other data come back as they are.
    """
    frame = rows_of(data)
    if not is_frame(frame):
        return data, columns
    columns = columns or Columns.of(frame)
    return with_rows(data, columns.read(frame)), columns


def reads_frames(use: Callable[..., T], columns: Columns | None) -> Callable[..., T]:
    """Return a function that reads frames among its arguments, as columns of an earlier one if there are."""

    def read(x: Given) -> Data:
        return read_frame(x, columns)[0]

    @functools.wraps(use)
    def reading(*args: Given, **kwargs: Given) -> T:
        return use(*map(read, args), **{name: read(x) for name, x in kwargs.items()})

    return reading


def is_frame(x: Given) -> bool:
    """Return whether x is a data frame that narwhals reads."""
    import narwhals.stable.v2 as nw

    return nw.dependencies.is_into_dataframe(x)


def _series(frame: Given) -> dict[str, Given]:
    """Return the columns of a frame by name, as narwhals has them."""
    import narwhals.stable.v2 as nw

    whole = nw.from_native(frame, eager_only=True)
    return {str(name): whole[name] for name in whole.columns}


def _labels(series: Given) -> tuple[str, ...] | None:
    """Return the labels of a column with categories; None of one with numbers."""
    import narwhals.stable.v2 as nw

    if series.dtype in (nw.Categorical, nw.Enum):
        return tuple(map(str, series.cat.get_categories().to_list()))
    if series.dtype == nw.String:
        return tuple(sorted(map(str, series.drop_nulls().unique().to_list())))
    return None


def _numbers(series: Given, name: str, labels: tuple[str, ...] | None) -> np.ndarray:
    """Return a column as numbers: codes where it has labels, NaN where it has no entry."""
    where = f"column {name!r} of data"
    if labels is None:
        return np.asarray(as_numbers(series.to_numpy(), where))
    values = [None if absent else str(x) for x, absent in zip(series, series.is_null(), strict=True)]
    return codes_of(values, labels, where, [f"row {row}" for row in range(len(values))])


def codes_of(
    values: Sequence[str | None], labels: Sequence[str], where: str, places: Sequence[str]
) -> np.ndarray:
    """Return the codes of a column's labels, NaN where it has no entry.

    Raises:
        ValueError: the first value that is none of the labels, with the column's name and its place.
    """
    codes = {label: code for code, label in enumerate(labels)}
    if unknown := [
        (place, x) for place, x in zip(places, values, strict=True) if x is not None and x not in codes
    ]:
        place, x = unknown[0]
        raise ValueError(f"{where} must hold one of {', '.join(map(repr, labels))}; got {x!r} in {place}")
    return np.array([np.nan if x is None else codes[x] for x in values])
