"""Readers of the arguments of pictures: fits, tables, names, axes and figures. Errors name the argument.

Imported by the pictures of this folder alone.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from vbjax.inference.result import Fit
from vbjax.numerics.inputs import as_numbers, describe
from vbjax.numerics.types import Given


class Picture(Figure):
    """Figure that a notebook shows, whether pyplot is imported or not."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def read_axes(ax: Axes | None) -> Axes:
    """Return the axes that are given, or those of a new figure."""
    if ax is None:
        return Picture(figsize=(6, 4.5), layout="constrained", dpi=120).subplots()
    if not isinstance(ax, Axes):
        raise TypeError(f"ax must be matplotlib's Axes, or None for new ones; got {describe(ax)}")
    return ax


def read_figure(
    figure: Figure | SubFigure | None, width: float, height: float, dpi: float = 120
) -> Figure | SubFigure:
    """Return the figure that is given, or a new one of that size in inches."""
    if figure is None:
        return Picture(figsize=(width, height), layout="constrained", dpi=dpi)
    if not isinstance(figure, (Figure, SubFigure)):
        raise TypeError(f"figure must be matplotlib's, or None for a new one; got {describe(figure)}")
    return figure


def columns_of(fit: Fit, columns: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names of columns that are given, or those of the data frame of the fit."""
    return fit.columns.names if columns is None and fit.columns is not None else columns


def read_fit(fit: Given) -> Fit:
    """Return a fit; raise where it is none, or a batch of fits."""
    if not isinstance(fit, Fit):
        raise TypeError(f"fit must be a vb.Fit; got {describe(fit)}")
    if np.ndim(fit.objective) != 0:
        raise ValueError(f"fit must be of one data set; got a batch of shape {np.shape(fit.objective)}")
    return fit


def read_shares(table: Given, name: str, axes: str) -> Float[np.ndarray, "n k"]:
    """Return a table of shares, finite and at least 0, in float64; `axes` says what rows and columns are."""
    read = np.asarray(as_numbers(table, name), float)
    if read.ndim != 2 or 0 in read.shape:
        raise ValueError(f"{name} must have shape ({axes}), at least one of each; got {read.shape}")
    if not (fine := np.isfinite(read) & (read >= 0)).all():
        raise ValueError(f"{name} must be finite and at least 0; row {int((~fine).any(1).argmax())} is not")
    return read


def read_names(names: Given, n: int, what: str) -> list[str]:
    """Return n names; errors begin with `what`, as in "columns must name the 2 columns of x"."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise ValueError(f"{what}; got {describe(names)}")
    given = list(names)
    if len(given) != n:
        raise ValueError(f"{what}; got {len(given)}")
    if others := [name for name in given if not isinstance(name, str)]:
        raise ValueError(f"{what}, each by a text; got {describe(others[0])}")
    return given


def read_choice(chosen: Given, n: int, what: str, most: int | None = None) -> list[int]:
    """Return numbers from 0 to n - 1, at least one; errors begin with `what`: "states must be some of"."""
    try:
        given = np.asarray(as_numbers(list(chosen), "numbers"))
    except (TypeError, ValueError):  # not iterable, or not of numbers
        given = np.zeros(0)
    whole = given.ndim == 1 and given.size > 0 and given.dtype.kind in "iu"
    if not whole or given.min() < 0 or given.max() >= n or (most is not None and given.size > most):
        raise ValueError(f"{what} 0 to {n - 1}; got {describe(chosen)}")
    return [int(number) for number in given]
