"""`Summary`: what a fit found, as a table for people: text, HTML in a notebook, records for a data frame.

Made by `Fit.summary`; imported by `result.py` alone.
"""

from __future__ import annotations

import html
import itertools
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vbjax.data.frames import Columns
from vbjax.numerics.types import Params

INTERVAL = (0.05, 0.95)
_WIDTH = 80  # characters of a line
_CELL = 11  # of a number, and the space before it
_MOST_SHOWN = 10  # entries of a parameter
_MOST_INTERVALS = 2000  # entries of a factor: a quantile is found by bisection

_Entries = Iterator[tuple[int, ...]]


class Parameter(NamedTuple):
    """One parameter: posterior moments and interval of all its entries, and what these are called.

    Attributes:
        name: of the factor, with the part of it if it has several: "components.location".
        mean: posterior mean, or the point.
        sd: posterior standard deviation; 0 for points.
        low, high: ends of the interval that has 90 % of each entry's mass; NaN where they are not known.
        labels: names of the entries along every axis.
        order: numbers of the entries along the first axis in the order in which a table shows them.
    """

    name: str
    mean: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    labels: tuple[tuple[str, ...], ...]
    order: tuple[int, ...]

    @property
    def certain(self) -> bool:
        """Whether all entries are points."""
        return not (self.sd > 0).any()

    def entries(self) -> _Entries:
        """Return the indices of all entries, in the order in which a table shows them."""
        axes = [self.order, *map(range, self.mean.shape[1:])] if self.mean.ndim else []
        return itertools.product(*axes)

    def numbers(self, index: tuple[int, ...]) -> tuple[float, ...]:
        """Return mean, sd and both ends of the interval of an entry, NaN where a point has none."""
        spread = [x[index] if self.sd[index] > 0 else np.nan for x in (self.sd, self.low, self.high)]
        return float(self.mean[index]), *map(float, spread)


class Summary:
    """Table of a fit's parameters: posterior mean, standard deviation and 90 % interval of every entry.

    `print` shows it within 80 columns, a notebook as a table; of a parameter with many entries it has the
    first ten. `pandas.DataFrame(summary.records)` has all of them.

    Attributes:
        verdict: what was fitted, and how far to trust it.
        parameters: the parameters.
    """

    def __init__(self, verdict: str, parameters: tuple[Parameter, ...]) -> None:
        self.verdict = verdict
        self.parameters = parameters

    @property
    def records(self) -> list[dict[str, Any]]:
        """A dict for every entry of every parameter: parameter, entry, mean, sd, and the interval's ends."""
        names = ("mean", "sd", "5%", "95%")
        return [
            dict(parameter=p.name, entry=", ".join(_labels_at(p, index)))
            | dict(zip(names, p.numbers(index), strict=True))
            for p in self.parameters
            for index in p.entries()
        ]

    @property
    def _heading(self) -> list[str]:
        points = all(p.certain for p in self.parameters)
        return ["value"] if points else ["mean", "sd", "5 %", "95 %"]

    def _rows(self) -> Iterator[tuple[str, list[str]]]:
        """Yield what stands on the left of every line of the table, and its numbers."""
        n = len(self._heading)
        for p in self.parameters:
            if p.mean.ndim == 0:
                yield p.name, [*map(_number, p.numbers(()))][:n]
                continue
            yield p.name, []
            size = p.mean.size
            shown = size if size <= _MOST_SHOWN + 1 else _MOST_SHOWN  # "1 more" would be as long as it
            for index in itertools.islice(p.entries(), shown):
                yield f"  {', '.join(_labels_at(p, index))}", [*map(_number, p.numbers(index))][:n]
            if shown < size:
                yield f"  ... {size - shown} more", []

    def __str__(self) -> str:
        room = _WIDTH - _CELL * len(self._heading)
        rows = [("", self._heading), *self._rows()]
        wide = min(room, max(len(left) for left, _ in rows))
        lines = [
            _within(left, wide if cells else _WIDTH).ljust(wide) + "".join(cell.rjust(_CELL) for cell in cells)
            for left, cells in rows
        ]
        return "\n".join([textwrap.fill(self.verdict, _WIDTH), "", *map(str.rstrip, lines)])

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
        )


def summarise(
    params: Params, verdict: str, named_axes: Mapping[str, int], columns: Columns | None
) -> Summary:
    """Return the summary of the parameters of a fit.

    Components, and what belongs to them, come with the heaviest first.

    Args:
        params: of one fit.
        verdict: what stands above the table.
        named_axes: names of the factors that have an axis for the data's columns, and the first axis that it
            may be.
        columns: names of the data's columns, if they have some.
    """
    tables = jax.device_get(_moments(params))
    leaves = [_by_name(table) for table in tables]
    weights = leaves[0].get("weights", np.zeros(0))
    order = tuple(map(int, np.argsort(-weights, kind="stable"))) if weights.ndim == 1 else ()
    names = columns.names if columns is not None else ()
    found = []
    for name, mean in leaves[0].items():
        factor, _, field = name.partition(".")
        shape, labels = mean.shape, [tuple(map(str, range(n))) for n in mean.shape]
        first = named_axes.get(factor, len(shape))
        own = [axis for axis in range(first, len(shape)) if names and shape[axis] == len(names)]
        for axis in own if field == "precision" else own[:1]:
            labels[axis] = names
        heaviest = order if factor in ("weights", "components") and shape[:1] == weights.shape else ()
        rows = heaviest or tuple(range(shape[0] if shape else 0))
        others = (leaf.get(name, np.full(shape, np.nan)) for leaf in leaves[1:])
        found.append(Parameter(name, mean, *others, tuple(labels), rows))
    return Summary(verdict, tuple(found))


@jax.jit
def _moments(params: Params) -> tuple[Any, ...]:
    """Compute mean, sd and both ends of the interval of every parameter, by one program."""
    states = dict(params) if isinstance(params, Mapping) else {"": params}
    ends = {name: _interval(state) for name, state in states.items()}
    mean, sd = ({name: getattr(state, of) for name, state in states.items()} for of in ("mean", "sd"))
    return mean, sd, *({name: end[i] for name, end in ends.items()} for i in range(2))


def _interval(state: Any) -> tuple[Any, Any]:
    """Return both ends of the interval of a factor's entries."""
    p = jnp.asarray(INTERVAL, jnp.result_type(*jax.tree.leaves(state.mean)))
    size = sum(jnp.size(x) for x in jax.tree.leaves(state.mean))
    both = jax.vmap(state.quantile)(p) if size <= _MOST_INTERVALS else None
    return (jax.tree.map(lambda x: x[0], both), jax.tree.map(lambda x: x[1], both))


def _by_name(tree: Any) -> dict[str, np.ndarray]:
    """Return the leaves of a tree by name, those of joint factors apart."""
    named = {}
    for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
        named[".".join(part for part in parts if part)] = np.asarray(x, float)
    return named


def _labels_at(parameter: Parameter, index: tuple[int, ...]) -> list[str]:
    return [labels[i] for labels, i in zip(parameter.labels, index, strict=True)]


def _number(x: float) -> str:
    return "" if np.isnan(x) else f"{x:.4g}"


def _within(text: str, width: int) -> str:
    """Return a text of at most so many characters, dots in place of the middle of a longer one."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"
