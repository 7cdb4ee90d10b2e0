"""`Summary`: what a fit found, as a table for people: text, HTML in a notebook, records for a data frame.

Made by `Fit.summary` and by the bootstrap.
"""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array

from vbjax.data.frames import Columns
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Params, Tree

INTERVAL = (0.05, 0.95)
_WIDTH = 80  # characters of a line
_CELL = 11  # of a number, and the space before it
_MOST_SHOWN = 10  # entries of a parameter
_MOST_INTERVALS = 20_000  # entries of a factor, some microseconds each


class Parameter(NamedTuple):
    """Parameter of a fit: posterior moments and intervals of all its entries, and their names.

    Attributes:
        name: of the factor, with the part of it if it has several: "components.location".
        mean: posterior mean, or the point.
        sd: posterior standard deviation; 0 for points.
        low, high: ends of the interval that has 90 % of each entry's mass; NaN where they are not known.
        labels: names of the entries along every axis.
        order: numbers of the entries along the first axis in the order in which a table shows them.
        n_empty: how many of these, the last ones, are of components without rows, which a table leaves out.
        symmetric: whether the last two axes are those of symmetric matrices.
    """

    name: str
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    labels: tuple[tuple[str, ...], ...]
    order: tuple[int, ...]
    n_empty: int
    symmetric: bool

    @property
    def certain(self) -> bool:
        """Whether all entries are points."""
        return bool((self.sd == 0).all())

    def entries(self) -> Iterator[tuple[int, ...]]:
        """Yield the indices of entries in the order of a table; of two equal by symmetry the first."""
        axes = [self.order, *map(range, self.mean.shape[1:])] if self.mean.ndim else []
        for index in itertools.product(*axes):
            if not self.symmetric or index[-2] <= index[-1]:
                yield index

    @property
    def size(self) -> int:
        """Number of these entries."""
        d = self.mean.shape[-1] if self.symmetric else 1
        return self.mean.size * (d + 1) // (2 * d)

    @property
    def n_filled(self) -> int:
        """Number of these entries, the first ones, that are not of empty components."""
        of_empty = self.size * self.n_empty // len(self.order) if self.n_empty else 0
        return self.size - of_empty

    def label(self, index: tuple[int, ...], most: int | None = None) -> str:
        """Return what an entry is called, long names shortened to at most so many characters together."""
        labels = [names[i] for names, i in zip(self.labels, index, strict=True)]
        if most is not None:
            own = most - 2 * (len(labels) - 1)
            each = next(n for n in range(own, 0, -1) if sum(min(len(name), n) for name in labels) <= own)
            labels = [_shortened(name, each) for name in labels]
        return ", ".join(labels)

    def numbers(self, index: tuple[int, ...]) -> tuple[float, ...]:
        """Return mean, sd and both ends of the interval of an entry, NaN where a point has none."""
        spread = [np.nan if self.sd[index] == 0 else x[index] for x in (self.sd, self.low, self.high)]
        return float(self.mean[index]), *map(float, spread)


class Summary:
    """Table of a fit's parameters: posterior mean, standard deviation and 90 % interval of every entry.

    `print` shows it within 80 columns, a notebook as a table; of a parameter with many entries it has the
    first ten, of components without rows their number. `pandas.DataFrame(summary.records)` has all of them.

    Attributes:
        verdict: what was fitted, and how far to trust it.
        parameters: the parameters.
    """

    def __init__(self, verdict: str, parameters: tuple[Parameter, ...]) -> None:
        self.verdict = verdict
        self.parameters = parameters

    @property
    def records(self) -> list[dict[str, Given]]:
        """A dict for every entry of every parameter: parameter, entry, mean, sd, and the interval's ends."""
        names = ("mean", "sd", "5%", "95%")
        return [
            dict(parameter=p.name, entry=p.label(index)) | dict(zip(names, p.numbers(index), strict=True))
            for p in self.parameters
            for index in p.entries()
        ]

    @property
    def _heading(self) -> list[str]:
        points = all(p.certain for p in self.parameters)
        return ["value"] if points else ["mean", "sd", "5 %", "95 %"]

    @property
    def _on_empty(self) -> list[str]:
        """The line on components without rows, where there are some, with a blank one before it."""
        n = max((p.n_empty for p in self.parameters), default=0)
        what = "of weight 0" if self._heading == ["value"] else "the prior"
        return ["", f"{n} empty component{'s' * (n > 1)}: {what}"] if n else []

    def _rows(self, most: int | None = None) -> Iterator[tuple[str, list[str]]]:
        """Yield what stands on the left of every line of the table, in `most` characters, and its numbers."""
        n = len(self._heading)
        for p in self.parameters:
            if p.mean.ndim == 0:
                yield p.name, [*map(_number, p.numbers(()))][:n]
                continue
            yield p.name, []
            shown = p.n_filled if p.n_filled <= _MOST_SHOWN + 1 else _MOST_SHOWN  # "1 more" is a line too
            for index in itertools.islice(p.entries(), shown):
                label = p.label(index, None if most is None else most - 2)
                yield f"  {label}", [*map(_number, p.numbers(index))][:n]
            if shown < p.n_filled:
                yield f"  ... {p.n_filled - shown} more", []

    def __str__(self) -> str:
        room = _WIDTH - _CELL * len(self._heading)
        rows = [("", self._heading), *self._rows(room)]
        wide = min(room, max(len(left) for left, _ in rows))
        lines = [
            _shortened(left, wide if cells else _WIDTH).ljust(wide) + "".join(x.rjust(_CELL) for x in cells)
            for left, cells in rows
        ]
        return "\n".join([textwrap.fill(self.verdict, _WIDTH), "", *map(str.rstrip, lines), *self._on_empty])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        cell = lambda text: f"<td style='text-align: right'>{html.escape(text)}</td>"
        heading = "".join(f"<th>{html.escape(text)}</th>" for text in ["", *self._heading])
        body = "".join(
            f"<tr><th style='text-align: left; white-space: pre'>{html.escape(left)}</th>"
            f"{''.join(map(cell, cells))}</tr>"
            for left, cells in self._rows()
        )
        return (
            f"<p>{html.escape(self.verdict)}</p>"
            f"<table><thead><tr>{heading}</tr></thead><tbody>{body}</tbody></table>"
            + "".join(f"<p>{line}</p>" for line in self._on_empty[1:])
        )


def summarise(
    params: Params,
    verdict: str,
    named_axes: Mapping[str, int],
    columns: Columns | None,
    empty: Array | None = None,
) -> Summary:
    """Return the summary of the parameters of a fit; see `tabulate`."""
    states = Record(params if isinstance(params, Mapping) else {"": params})
    ends = [Record({name: _quantile(state, p) for name, state in states.items()}) for p in INTERVAL]
    return tabulate(jax.device_get((*_moments(states), *ends)), verdict, named_axes, columns, empty)


def tabulate(
    tables: Sequence[Tree],
    verdict: str,
    named_axes: Mapping[str, int],
    columns: Columns | None,
    empty: Array | None = None,
) -> Summary:
    """Return a summary of parameters.

    Components, and what belongs to them, come with the heaviest first, and those without rows last.

    Args:
        tables: means, standard deviations and both ends of the intervals, by factor.
        verdict: what stands above the table.
        named_axes: names of the factors that have an axis for the data's columns, and the first axis that it
            may be.
        columns: names of the data's columns, if they have some.
        empty: which components have no rows, (k,), where that is known.
    """
    leaves = [_by_name(table) for table in tables]
    weights = leaves[0].get("weights", np.zeros(0))
    idle = np.zeros(weights.shape, bool) if empty is None else np.asarray(empty)
    order = tuple(map(int, np.lexsort((-weights, idle)))) if weights.ndim == 1 else ()
    names = columns.names if columns is not None else ()
    found = []
    for name, mean in leaves[0].items():
        factor, _, field = name.partition(".")
        shape, labels = mean.shape, [tuple(map(str, range(n))) for n in mean.shape]
        first = named_axes.get(factor, len(shape))
        own = [axis for axis in range(first, len(shape)) if names and shape[axis] == len(names)]
        for axis in own if field == "precision" else own[:1]:
            labels[axis] = names
        square = field == "precision" and mean.ndim > 1 and shape[-1] == shape[-2]
        matrix = square and np.array_equal(mean, mean.swapaxes(-1, -2))
        heaviest = order if factor in ("weights", "components") and shape[:1] == weights.shape else ()
        rows = heaviest or tuple(range(shape[0] if shape else 0))
        sd, low, high = (leaf.get(name, np.full(shape, np.nan)) for leaf in leaves[1:])
        n_empty = int(idle.sum()) if heaviest else 0
        found.append(Parameter(name, mean, sd, low, high, tuple(labels), rows, n_empty, matrix))
    return Summary(verdict, tuple(found))


@jit
def _moments(states: Record) -> tuple[Record, Record]:
    """Compute mean and sd of every parameter, by one program."""
    mean, sd = ({name: getattr(state, of) for name, state in states.items()} for of in ("mean", "sd"))
    return Record(mean), Record(sd)


def _quantile(state: Tree, p: float) -> Tree:
    """Return the quantile of every entry of a factor, None of one with too many."""
    size = sum(x.size for x in jax.tree.leaves(jax.eval_shape(lambda q: q.mean, state)))
    return state.quantile(p) if size <= _MOST_INTERVALS else None


def _by_name(tree: Tree) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by name, those of joint factors apart."""
    named = {}
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
        named[".".join(part for part in parts if part)] = np.asarray(x, float)
    return named


def _number(x: float) -> str:
    return "" if np.isnan(x) else f"{x:.4g}"


def _shortened(text: str, most: int) -> str:
    """Return a text of at most so many characters, dots in place of the end of a longer one."""
    return text if len(text) <= most else f"{text[: max(most - 3, 0)]}..."[:most]
