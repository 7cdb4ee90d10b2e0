"""Pictures of a hidden Markov model: states over the data, transitions between them, and a page on the fit.

The module needs matplotlib and is imported by name: `from vbjax.plots import chains`. The trace and the
restarts of a fit are drawn by `plots.fits`. The command line imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, FancyArrowPatch, Patch
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator

from vbjax.data.sequences import Sequences
from vbjax.families.base import State
from vbjax.inference.result import Fit
from vbjax.models import HiddenMarkovModel, components
from vbjax.numerics.inputs import as_numbers, describe, read_count
from vbjax.numerics.types import Data, Params
from vbjax.plots.fits import _MOST_COLUMNS, restarts, trace
from vbjax.plots.inputs import (
    columns_of,
    read_axes,
    read_choice,
    read_figure,
    read_fit,
    read_names,
    read_shares,
)
from vbjax.plots.style import FAINT, INK, PALETTE, TITLE, Look, tidy

# The muted colours of Tol (2021) that differ from PALETTE, and a grey.
_MORE = ["#DDCC77", "#882255", "#999933", "#332288", "#A8A8A8", "#117733", "#CC6677", "#AA4499"]
_MOST_BANDS = 20
_MOST_IN_LEGEND = 10
_LEAST_ARROW = 0.01  # the least probability of a transition that is drawn
_LABELLED, _LARGE, _INSIDE = 4, 6, 12  # most states for numbers by arrows, large ones inside, small ones


def state_colors(n_states: int) -> Float[np.ndarray, "n_states 3"]:
    """Return a colour for every state: the seven of PALETTE, then eight more, then the same again.

    >>> state_colors(3).shape
    (3, 3)
    """
    every = np.array([to_rgb(color) for color in PALETTE + _MORE])
    return every[np.arange(read_count(n_states, "n_states")) % len(every)]


def series(
    model: HiddenMarkovModel,
    params: Mapping[str, State],
    data: Data,
    figure: Figure | SubFigure | None = None,
    columns: Sequence[str] | None = None,
    *,
    sequence: int = 0,
) -> Figure | SubFigure:
    """Draw a sequence in the colours of its most probable states, with the states' means.

    There is a panel for each column, at most four. Categorical output has no means.

    Args:
        model: `fit.model`, whose steps are numbers or vectors.
        params: `fit.params`.
        data: the sequences, or one.
        figure: the figure to draw on; by default a new one.
        columns: d names for the axes, with their units; by default "x0", "x1", ...
        sequence: number of the sequence to draw, from 0.

    Returns:
        The figure.

    Raises:
        ValueError: `columns` or `sequence` that do not fit the data, or data that do not fit the model.
        TypeError: another model; steps that are neither numbers nor vectors.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> fit = vb.fit(vb.PoissonHMM(2), x, key=jax.random.key(0))
    >>> series(fit.model, fit.params, x, columns=["earthquakes"]).axes[0].get_ylabel()
    'earthquakes'
    """
    read, paths = _decode(model, params, data)
    if not isinstance(sequence, (int, np.integer)) or not 0 <= sequence < len(paths):
        raise ValueError(f"sequence must be one of 0 to {len(paths) - 1}; got {describe(sequence)}")
    x = _steps(read, sequence)
    p = min(x.shape[1], _MOST_COLUMNS)
    figure = read_figure(figure, 9, 1.5 * p + 1)
    axes = list(figure.subplots(p, 1, squeeze=False, sharex=True)[:, 0])
    _panels(axes, model, params, x, paths[sequence], columns)
    axes[-1].set_xlabel("step")
    return figure


def state_probabilities(table: ArrayLike, ax: Axes | None = None) -> Axes:
    """Draw the probability of every state at each step of a sequence, as ribbons that add up to one.

    Args:
        table: (t, K), from `model.state_probabilities(params, x)`.
        ax: the axes to draw on; by default those of a new figure, `ax.figure`.

    Returns:
        The axes.

    Raises:
        ValueError: a table of another shape, or with numbers that are not finite or below 0.

    >>> state_probabilities(np.array([[0.9, 0.1], [0.2, 0.8]])).get_ylabel()
    'probability'
    """
    table = read_shares(table, "table", "steps, states")
    ax, t = tidy(read_axes(ax)), len(table)
    # every step is one wide, the first and the last too
    places = np.concatenate([[-0.5], np.arange(t), [t - 0.5]])
    padded = np.concatenate([table[:1], table, table[-1:]])
    ax.stackplot(places, padded.T, step="mid", colors=state_colors(table.shape[1]), alpha=0.75, lw=0)
    ax.set(xlabel="step", ylabel="probability", xlim=(-0.5, t - 0.5), ylim=(0, 1))
    return ax


def transitions(table: ArrayLike, ax: Axes | None = None, *, states: Sequence[int] | None = None) -> Axes:
    """Draw the chain as a graph: states on a circle, with probabilities to stay, and arrows between them.

    The width of an arrow grows with the probability of its transition; below 0.01 there is none. Up to four
    states, the probability stands beside the arrow.

    Args:
        table: (K, K), `params.transitions.mean`.
        ax: the axes to draw on; by default those of a new figure, `ax.figure`.
        states: numbers of the states to draw, clockwise from the top; by default all.

    Returns:
        The axes.

    Raises:
        ValueError: a table that is not square; `states` out of range.

    >>> len(transitions(np.array([[0.9, 0.1], [0.2, 0.8]])).texts)
    4
    """
    table = read_shares(table, "table", "states, states")
    if table.shape[0] != table.shape[1]:
        raise ValueError(f"table must have shape (states, states); got {table.shape}")
    shown = read_choice(range(len(table)) if states is None else states, len(table), "states must be some of")
    ax = read_axes(ax)
    n = len(shown)
    angle = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    place = np.stack([np.cos(angle), np.sin(angle)], 1) * (n > 1)
    radius = min(0.3, 0.62 * np.sin(np.pi / n)) if n > 1 else 0.3
    palette = state_colors(len(table))
    nodes = []
    for k, (x, y) in zip(shown, place, strict=True):
        nodes.append(ax.add_patch(Circle((x, y), radius, fc=palette[k], ec="white", lw=1.5, zorder=3)))
        light = palette[k] @ [0.3, 0.6, 0.1] > 0.5
        text = f"{k}\n{table[k, k]:.2f}" if n <= _INSIDE else str(k)
        look: Look = dict(ha="center", va="center", fontsize=9 if n <= _LARGE else 7, zorder=4)
        ax.text(x, y, text, color=INK if light else "white", weight="bold", **look)
    for i, k in enumerate(shown):
        for j, m in enumerate(shown):
            if i != j and table[k, m] >= _LEAST_ARROW:
                _arrow(ax, place[i], place[j], nodes[i], nodes[j], table[k, m], n <= _LABELLED)
    edge = 1.08 + radius
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    ax.set_axis_off()
    return ax


def segments(
    paths: Sequence[ArrayLike], ax: Axes | None = None, *, names: Sequence[str] | None = None
) -> Axes:
    """Draw the states of several sequences as coloured bands, a row for each.

    Args:
        paths: for each sequence whole numbers (t,): states from `model.decode(params, data)`, or other
            labels.
        ax: the axes to draw on; by default those of a new figure, `ax.figure`.
        names: names of the sequences; by default their numbers.

    Returns:
        The axes.

    Raises:
        ValueError: no path, a path other than whole numbers of at least 0, or another number of names.

    >>> segments([np.array([0, 0, 1]), np.array([1, 1, 1, 2])], names=["ann", "bob"]).get_xlabel()
    'step'
    """
    if isinstance(paths, (str, bytes)) or not isinstance(paths, Iterable):
        raise ValueError(
            f"paths must be lists of whole numbers, one for each sequence; got {describe(paths)}"
        )
    read = [np.asarray(as_numbers(path, f"paths: path {i}")) for i, path in enumerate(paths)]
    whole = all(p.ndim == 1 and p.size and p.dtype.kind in "iu" and p.min() >= 0 for p in read)
    if not read or not whole:
        raise ValueError("paths must be lists of whole numbers of at least 0, one for each sequence")
    labels = [str(i) for i in range(len(read))]
    if names is not None:
        labels = read_names(names, len(read), f"names must be given for each of the {len(read)} paths")
    ax = tidy(read_axes(ax))
    palette = state_colors(max(path.max() for path in read) + 1)
    for i, path in enumerate(read):
        extent = (-0.5, len(path) - 0.5, i + 0.4, i - 0.4)
        ax.imshow(palette[path][None], extent=extent, aspect="auto", interpolation="nearest", alpha=0.85)
    ax.set_yticks(range(len(read)), labels, parse_math=False)
    ax.tick_params(axis="y", length=0)
    ax.set(xlabel="step", xlim=(-0.5, max(map(len, read)) - 0.5), ylim=(len(read) - 0.5, -0.5))
    return ax


def overview(
    fit: Fit,
    data: Data,
    columns: Sequence[str] | None = None,
    sequences: Sequence[str] | None = None,
    *,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Draw a page on a fit: the longest sequence, its states' probabilities, transitions, trace and restarts.

    Where there are several sequences, the page also shows the states of all, at most twenty.

    Args:
        fit: a `Fit` of a hidden Markov model.
        data: the sequences of the fit.
        columns: d names for the axes, with their units; by default those of the fit's data frame.
        sequences: names of the sequences; by default their numbers.
        figure: the figure to draw on; by default a new one.

    Returns:
        The figure. A new one belongs to no window; save it with `figure.savefig("states.png")`.

    Raises:
        ValueError, TypeError: arguments that `series` or `plots.trace` refuse.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> fit = vb.fit(vb.PoissonHMM(2), x, key=jax.random.key(0))
    >>> len(overview(fit, x).axes)
    5
    """
    fit = read_fit(fit)
    model, params, columns = fit.model, fit.params, columns_of(fit, columns)
    read, paths = _decode(model, params, data)
    names = [str(i) for i in range(len(paths))]
    if sequences is not None:
        names = read_names(sequences, len(paths), f"sequences must name the {len(paths)} sequences of data")
    longest = max(range(len(paths)), key=lambda i: len(paths[i]))
    tables = model.state_probabilities(params, read)
    x = _steps(read, longest)
    p, bands = min(x.shape[1], _MOST_COLUMNS), min(len(paths), _MOST_BANDS) if len(paths) > 1 else 0
    heights = [1.6 * p + 1.5, 0.22 * bands + 0.9 if bands else 0, 3.4]
    figure = read_figure(figure, 11, sum(heights), dpi=150)
    shares = [h for h in heights if h]
    parts: Any = figure.subfigures(len(shares), 1, height_ratios=shares)
    *panels, ribbons = parts[0].subplots(p + 1, 1, sharex=True, height_ratios=[1.6] * p + [0.9])
    _panels(panels, model, params, x, paths[longest], columns)
    state_probabilities(tables[longest], ribbons)
    if bands:
        ribbons.set_xlabel(f"step of sequence {names[longest]}", parse_math=False)
        title = f"all {bands} sequences" if bands == len(paths) else f"the first {bands} sequences"
        segments(paths[:bands], parts[1].subplots(), names=names[:bands]).set_title(title, **TITLE)
    sizes = np.sum([table.sum(0, dtype=float) for table in tables], 0)
    kept = np.flatnonzero(sizes > 1).tolist() or [int(sizes.argmax())]
    graph, left, right = parts[-1].subplots(1, 3, width_ratios=[1.05, 1, 1])
    transitions(params.transitions.mean, graph, states=kept).set_title("transitions", **TITLE)
    trace(fit, left)
    restarts(fit, right)
    n = model.n_states
    some = f"{len(kept)} of {n} states" if len(kept) < n else f"{n} state{'s' * (n != 1)}"
    steps = sum(map(len, paths))
    figure.suptitle(f"Hidden Markov model: {some}, {steps} steps", x=0.01, ha="left", fontsize=12)
    return figure


# -- data of the pictures ------------------------------------------------------------------------------


def _decode(
    model: HiddenMarkovModel, params: Mapping[str, State], data: Data
) -> tuple[Sequences, list[Int[np.ndarray, " t"]]]:
    """Return the sequences, and the most probable path of each.

    Raises:
        TypeError: another model.
    """
    if not isinstance(model, HiddenMarkovModel):
        raise TypeError(f"model must be a hidden Markov model; got {type(model).__name__}")
    read = model.read(data)
    return read, model.decode(params, read)


def _steps(data: Sequences, sequence: int) -> Float[np.ndarray, "t d"]:
    """Return a sequence as it was given, with NaN where a step is missing.

    Raises:
        TypeError: steps that are neither numbers nor vectors.
    """
    values = [part.values for part in data.parts]
    if any(not hasattr(value, "ndim") or value.ndim > 3 for value in values):
        raise TypeError("steps must be numbers or vectors to be drawn")
    x = data.unpack(values)[sequence].astype(float)
    seen = data.unpack([part.observed for part in data.parts])[sequence]
    x = x.reshape(len(x), -1)
    x[~seen] = np.nan
    return x


def _means(model: HiddenMarkovModel, params: Params, d: int) -> Float[np.ndarray, "k d"] | None:
    """Return the expected step in each state; None where a step has no mean."""
    mean = getattr(params.components.mean, "location", params.components.mean)
    nested = isinstance(model.component, components.Mixture)
    component = model.component.component if nested else model.component
    if isinstance(component, components.Gamma):
        shape, rate = mean if component.learn_shape else (component.known_shape, mean)
        mean = shape / rate
    if nested:
        within = np.reshape(mean, (model.n_states, -1, *np.shape(mean)[1:]))
        mean = np.einsum("km,km...->k...", params.shares.mean, within)
    return np.asarray(mean, float) if np.shape(mean) == (model.n_states, d) else None


def _panels(
    axes: Sequence[Axes],
    model: HiddenMarkovModel,
    params: Mapping[str, State],
    x: Float[np.ndarray, "t d"],
    path: Int[np.ndarray, " t"],
    columns: Sequence[str] | None,
) -> None:
    """Draw a column of the sequence on each of the axes, and a legend of the states above them."""
    d = x.shape[1]
    names = [f"x{j}" for j in range(d)]
    if columns is not None:
        names = read_names(columns, d, f"columns must name the {d} columns of the data")
    palette, means, t = state_colors(model.n_states), _means(model, params, x.shape[1]), np.arange(len(x))
    size = float(np.clip(6000 / len(x), 3, 22))
    states = np.unique(path)
    ends = np.repeat(t, 2) + np.tile([-0.5, 0.5], len(t))
    for j, ax in enumerate(axes):
        ax.plot(t, x[:, j], color=FAINT, lw=0.7, zorder=1)
        ax.scatter(t, x[:, j], c=palette[path], s=size, lw=0, zorder=3)
        if means is not None:
            for k in states:
                level = np.repeat(np.where(path == k, means[k, j], np.nan), 2)
                ax.plot(ends, level, color=palette[k], lw=2.2, alpha=0.8, zorder=2, solid_capstyle="butt")
        tidy(ax).set_ylabel(names[j], parse_math=False)
        ax.set_xlim(-0.5, len(x) - 0.5)
        ax.yaxis.set_major_locator(MaxNLocator(4))
    handles = [Line2D([], [], ls="", marker="o", color=palette[k], label=f"state {k}") for k in states]
    if len(handles) > _MOST_IN_LEGEND:
        rest = Line2D([], [], ls="", label=f"{len(handles) - _MOST_IN_LEGEND + 1} more")
        handles = [*handles[: _MOST_IN_LEGEND - 1], rest]
    if means is not None:
        handles.append(Line2D([], [], color=INK, lw=2.2, label="the state's mean"))
    if len(axes) < x.shape[1]:
        handles.append(Line2D([], [], ls="", label=f"the first {len(axes)} of {x.shape[1]} columns"))
    look: Look = dict(fontsize=9, frameon=False, handletextpad=0.4, columnspacing=1.4)
    axes[0].legend(handles=handles, ncols=6, loc="lower left", bbox_to_anchor=(0, 1.0), **look)


def _arrow(
    ax: Axes,
    start: Float[np.ndarray, " 2"],
    end: Float[np.ndarray, " 2"],
    source: Patch,
    target: Patch,
    probability: float,
    label: bool,
) -> None:
    """Draw an arrow between the borders of two circles, bent so that the one back lies beside it."""
    bend = 0.18
    arrow = FancyArrowPatch(
        tuple(start),
        tuple(end),
        connectionstyle=f"arc3,rad={bend}",
        patchA=source,
        patchB=target,
        arrowstyle="-|>",
        mutation_scale=8 + 8 * probability,
        lw=0.6 + 5 * probability,
        color=INK,
        alpha=float(np.clip(0.3 + probability, 0.3, 0.8)),
        zorder=2,
    )
    ax.add_patch(arrow)
    if label:
        (dx, dy), at = end - start, 0.4
        control = 0.5 * (start + end) + bend * np.array([dy, -dx])
        x, y = (1 - at) ** 2 * start + 2 * at * (1 - at) * control + at**2 * end
        halo: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="white")]
        place: Look = dict(ha="center", va="center", fontsize=8, zorder=5)
        ax.text(x, y, f"{probability:.2f}", color=INK, path_effects=halo, **place)
