"""Pictures of a fit: its components over the data, its trace, its restarts, and all three on one page.

`import vbjax` does not import this room, which needs matplotlib: `from vbjax import plots`. Every function
draws on the axes it is given, or on a new `Figure` (without pyplot, so no window and no display are needed),
and changes no global setting. The command line imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import ColorType

from vbjax.core.contracts import Status
from vbjax.core.rows import n_rows
from vbjax.data.labelled import rows_of
from vbjax.inference.result import Fit
from vbjax.models import KMeans, Mixture
from vbjax.models.components import FactorAnalyzer, Gaussian
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given
from vbjax.plots.inputs import columns_of, read_axes, read_choice, read_figure, read_fit, read_names
from vbjax.plots.style import FAINT, INK, PALETTE, TITLE, WARN, Look, objective_name, tidy

Drawable: TypeAlias = KMeans | Mixture  # of normals

_MOST_POINTS = 5000
_MOST_COLUMNS = 4
_MOST_IN_LEGEND = 8


class _Groups(NamedTuple):
    """The m occupied components or clusters, heaviest first, and the data.

    Attributes:
        kind: "component" or "cluster".
        number: places in the fit.
        covariance: None for k-means.
        share: responsibilities of the rows.
        columns: names of the columns.
    """

    kind: str
    number: Int[np.ndarray, " m"]
    weight: Float[np.ndarray, " m"]
    center: Float[np.ndarray, "m d"]
    covariance: Float[np.ndarray, "m d d"] | None
    color: Float[np.ndarray, "m 3"]
    x: Float[np.ndarray, "n d"]
    share: Float[np.ndarray, "n m"]
    columns: list[str]


def components(
    model: Drawable,
    params: Record,
    x: Given,
    ax: Axes | None = None,
    columns: Sequence[str] | None = None,
    *,
    features: Sequence[int] | None = None,
) -> Axes:
    """Draw the data and the components of a mixture, or the centres of k-means, in one or two columns.

    In two columns, the picture has the points, in the colours of the components mixed by responsibility, and
    for every component of more than one row the ellipses of 1 and 2 standard deviations. In one column, it
    has a histogram, the components' densities times their weights, and their sum. At most 5000 rows are shown
    as points.

    Args:
        model: `fit.model`, a Gaussian mixture or KMeans.
        params: `fit.params`.
        x: the data, (n, d); of `vb.labels.Gated` the pair (covariates, rows).
        ax: the axes to draw on; by default those of a new figure, `ax.figure`.
        columns: d names for the axes, with their units; by default "x0", "x1", ...
        features: the one or two columns to show; by default the first two, or the only one.

    Returns:
        The axes.

    Raises:
        ValueError: `columns` or `features` that do not fit the data, or data that do not fit the model.
        TypeError: a model without components.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.KMeans(2), x, key=jax.random.key(0))
    >>> components(fit.model, fit.params, x, columns=["eruption (min)", "waiting (min)"]).get_xlabel()
    'eruption (min)'
    """
    groups = _groups(model, params, x, columns)
    d = groups.x.shape[1]
    shown = range(min(d, 2)) if features is None else features
    chosen = read_choice(shown, d, "features must be one or two of the columns", most=2)
    ax = read_axes(ax)
    if len(chosen) == 1:
        _densities(ax, groups, chosen[0])
    else:
        _scatter(ax, groups, chosen[0], chosen[1])
    _legend(ax, groups, ellipses=len(chosen) == 2, loc="lower left", bbox_to_anchor=(0, 1.0))
    return ax


def pairs(
    model: Drawable,
    params: Record,
    x: Given,
    figure: Figure | SubFigure | None = None,
    columns: Sequence[str] | None = None,
) -> Figure | SubFigure:
    """Draw `components` for all pairs of the first columns, at most four, and for each column alone.

    The ellipses are those of the marginal 2 x 2 covariances. Arguments and errors are those of `components`,
    with `figure`, the figure to draw on, by default a new one, in place of `ax`. Returns the figure.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.KMeans(2), x, key=jax.random.key(0))
    >>> len(pairs(fit.model, fit.params, x).axes)  # two columns, and the pair
    3
    """
    groups = _groups(model, params, x, columns)
    d = groups.x.shape[1]
    p = min(d, _MOST_COLUMNS)
    figure = read_figure(figure, 2.2 * p + 1, 2.2 * p)
    axes = figure.subplots(p, p, squeeze=False, sharex="col")
    for i in range(p):
        for j in range(p):
            ax = axes[i, j]
            if j > i:
                ax.remove()
                continue
            _densities(ax, groups, j) if i == j else _scatter(ax, groups, j, i)
            ax.label_outer(remove_inner_ticks=True)
            if i == j:
                ax.set(yticks=[], ylabel=groups.columns[0] if i == 0 else "")
    note = f"the first {p} of {d} columns" if p < d else None
    _legend(figure, groups, ellipses=p > 1, loc="upper right", columns=1, note=note)
    return figure


def trace(fit: Fit, ax: Axes | None = None) -> Axes:
    """Draw the objective of every run that is not singular, sweep by sweep, and the best run over the others.

    Args:
        fit: a `Fit` of one data set (not batched).
        ax: the axes to draw on; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: a batched fit.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.KMeans(2), vb.datasets.old_faithful(), key=jax.random.key(0))
    >>> trace(fit).get_ylabel()
    'minus the inertia'
    """
    fit, ax = read_fit(fit), read_axes(ax)
    values = np.asarray(fit.trace, float)
    sweeps = np.arange(1, len(values) + 1)
    kept = ~np.asarray(fit.runs.singular), slice(int(np.max(fit.runs.n_iter)))
    runs, places = np.asarray(fit.runs.trace, float)[kept], fit.runs.sweeps[kept]
    if len(runs) > 1:
        ax.plot(places.T, runs.T, color=FAINT, lw=0.8, zorder=1)
    ax.plot(sweeps, values, color=PALETTE[0], lw=1.8, marker="o", ms=3 if len(values) < 80 else 0)
    finite = values[np.isfinite(values)]
    if len(finite):
        # the first steps of a run rise from far below, and would flatten all that follows
        shown = runs[np.isfinite(runs)] if len(runs) > 1 else finite
        low = np.quantile(shown, 0.05) if len(shown) >= 20 else shown.min()
        low, high = min(low, finite[-1]), max(finite.max(), shown.max())
        margin = 0.08 * max(high - low, 1e-4 * abs(high), 1e-12)
        ax.set_ylim(low - margin, high + margin)
        ax.axhline(high, color=FAINT, lw=0.8, zorder=0)
    ax.set(xlabel="sweep", ylabel=objective_name(fit.model))
    last = f"{values[-1]:.6g}".replace("-", "\N{MINUS SIGN}")
    ax.set_title(f"best run: {last} after {len(values)} sweep{'s' * (len(values) != 1)}", **TITLE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return tidy(ax)


def restarts(fit: Fit, ax: Axes | None = None) -> Axes:
    """Draw the final objectives of all restarts, from the best down, and show which of them to trust.

    Arguments, result and errors are those of `trace`.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.KMeans(2), vb.datasets.old_faithful(), key=jax.random.key(0))
    >>> restarts(fit).get_title(loc="left")
    '1 restart: 1 within 1e-4 of the best'
    """
    fit, ax = read_fit(fit), read_axes(ax)
    value, status = np.asarray(fit.runs.objective, float), np.asarray(fit.runs.status)
    singular = np.asarray(fit.runs.singular)
    order = np.argsort(-value, kind="stable")
    order = order[np.isfinite(value[order])]  # a run that never ended has none
    value, status, singular = value[order], status[order], singular[order]
    rank, converged = np.arange(1, len(value) + 1), status == Status.CONVERGED
    kinds: list[tuple[str, np.ndarray, Look]] = [
        ("converged", converged & ~singular, dict(color=PALETTE[0], marker="o")),
        ("did not converge", ~converged & ~singular, dict(color=INK, marker="o", mfc="white")),
        ("singular", singular, dict(color=WARN, marker="x")),
    ]
    best = float(fit.objective) if len(value) else 0.0
    near = 1e-4 * max(1.0, abs(best))
    ax.axhspan(best - near, best + near, color=FAINT, alpha=0.4, lw=0, label="within 1e-4 of the best")
    for label, which, style in kinds:
        if which.any():
            ax.plot(rank[which], value[which], ls="", ms=4, label=label, **style)
    low, high = value.min(initial=best), value.max(initial=best)
    margin = max(0.08 * (high - low), 5 * near)
    ax.set_ylim(low - margin, high + margin)
    total = np.size(fit.runs.objective)
    ax.set(xlabel="restart, from the best down", ylabel=objective_name(fit.model), xlim=(0, total + 1))
    close = int(((abs(value - best) <= near) & ~singular).sum())
    ax.set_title(f"{total} restart{'s' * (total != 1)}: {close} within 1e-4 of the best", **TITLE)
    ax.legend(loc="best", fontsize=8, frameon=False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return tidy(ax)


def overview(
    fit: Fit, x: Given, columns: Sequence[str] | None = None, *, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """Draw a page on a fit: the components over the data, the best run's trace, and the restarts.

    Data of more than two columns are shown by `pairs`.

    Args:
        fit: a `Fit` of a Gaussian mixture or of KMeans.
        x: the data of the fit, as `components` takes them.
        columns: d names for the axes, with their units; by default those of the fit's data frame.
        figure: the figure to draw on; by default a new one.

    Returns:
        The figure. A new one belongs to no window; save it with `figure.savefig("fit.png")`.

    Raises:
        ValueError, TypeError: arguments that `components`, `trace` or `restarts` refuse.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.KMeans(2), x, key=jax.random.key(0))
    >>> len(overview(fit, x).axes)
    3
    """
    fit = read_fit(fit)
    columns = columns_of(fit, columns)
    rows = _split(fit.model, x)[1]
    wide = np.ndim(rows) == 2 and rows.shape[1] > 2
    figure = read_figure(figure, *((13, 7.5) if wide else (11, 5.5)), dpi=150)
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=[1.9 if wide else 1.55, 1]))
    if wide:
        pairs(fit.model, fit.params, x, left, columns)
    else:
        components(fit.model, fit.params, x, left.subplots(), columns)
    figure.suptitle(f"{_name(fit.model)} of {n_rows(rows)} rows", x=0.01, ha="left", fontsize=12)
    top, bottom = right.subplots(2, 1)
    trace(fit, top)
    restarts(fit, bottom)
    return figure


# -- data of the pictures ------------------------------------------------------------------------------


def _split(model: Drawable, data: Given) -> tuple[Array | None, Data]:
    """Return the covariates of the rows, None where there are none, and the rows, without labels."""
    data = rows_of(model.read(data))
    return model.weights.split(data) if isinstance(model, Mixture) else (None, data)


@jit
def _moments(
    model: Mixture, params: Record, covariates: Array | None
) -> tuple[Float[Array, " k"], Float[Array, "k d"], Float[Array, "k d d"]]:
    """Compute weights, means and covariances by one program: one operation after the other takes seconds.

    Weights that depend on covariates are averaged over the rows.
    """
    weights = jnp.exp(model.weights.log_at_mean(params, covariates)).reshape(-1, model.n_components).mean(0)
    return weights, model.component.means(params), model.component.covariances(params)


def _groups(model: Drawable, params: Record, x: Given, columns: Sequence[str] | None) -> _Groups:
    """Return the components or clusters to draw: those of more than one row, or of any row for k-means."""
    gaussian = isinstance(model, Mixture) and isinstance(model.component, Gaussian | FactorAnalyzer)
    if not gaussian and not isinstance(model, KMeans):
        raise TypeError(f"model must be a Gaussian mixture or KMeans; got {type(model).__name__}")
    covariates, rows = _split(model, x)
    d = rows.shape[1]
    names = [f"x{j}" for j in range(d)]
    if columns is not None:
        names = read_names(columns, d, f"columns must name the {d} columns of x")
    kmeans = isinstance(model, KMeans)
    if isinstance(model, KMeans):
        share = np.eye(model.n_clusters)[np.asarray(model.predict(params, x))]
        weight, center, covariance = share.mean(0), np.asarray(model.centers(params)), None
    else:
        share = np.asarray(model.responsibilities(params, x))
        weight, center, covariance = (np.asarray(value) for value in _moments(model, params, covariates))
    kept = share.sum(0) > (0 if kmeans else 1)
    kept = kept if kept.any() else np.ones_like(kept)
    number = np.argsort(-np.where(kept, weight, -1), kind="stable")[: kept.sum()]
    palette = np.array([to_rgb(color) for color in PALETTE])
    covariance = None if covariance is None else covariance[number].astype(float)
    return _Groups(
        "cluster" if kmeans else "component",
        number,
        weight[number],
        center[number].astype(float),
        covariance,
        palette[np.arange(len(number)) % len(palette)],
        np.asarray(rows, float),
        share[:, number].astype(float),
        names,
    )


def _scatter(ax: Axes, groups: _Groups, i: int, j: int) -> None:
    """Draw the points of columns i and j, and the components' ellipses or the clusters' centres."""
    n = len(groups.x)
    rows = np.arange(n)
    if n > _MOST_POINTS:
        rows = np.random.default_rng(0).choice(n, _MOST_POINTS, replace=False)
    color = np.clip(groups.share[rows] @ groups.color, 0, 1)
    size, alpha = float(np.clip(4000 / len(rows), 3, 22)), float(np.clip(20 / np.sqrt(len(rows)), 0.3, 0.75))
    ax.scatter(groups.x[rows, i], groups.x[rows, j], c=color, s=size, alpha=alpha, lw=0)
    halo: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white")]
    for m, number in enumerate(groups.number):
        center, edge = groups.center[m, [i, j]], 0.75 * groups.color[m]
        if groups.covariance is None:
            ax.plot(*center, marker="X", ms=10, mfc=edge, mec="white", mew=1.2, ls="")
            continue
        for radius, style in ((1, "-"), (2, "--")):
            ellipse = _ellipse(center, groups.covariance[m][np.ix_([i, j], [i, j])], radius, edge, style)
            ax.add_patch(ellipse).set_path_effects(halo)
        ax.text(
            center[0],
            center[1],
            str(number),
            color=edge,
            ha="center",
            va="center",
            weight="bold",
            path_effects=halo,
        )
    ax.autoscale_view()
    ax.set(xlabel=groups.columns[i], ylabel=groups.columns[j])
    tidy(ax)


def _ellipse(
    center: Float[np.ndarray, " 2"],
    covariance: Float[np.ndarray, "2 2"],
    radius: float,
    color: ColorType,
    style: str,
) -> Ellipse:
    """Return the ellipse of points at Mahalanobis distance `radius` from the centre."""
    values, vectors = np.linalg.eigh(covariance)
    width, height = 2 * radius * np.sqrt(np.maximum(values, 0))
    angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
    return Ellipse(tuple(center), width, height, angle=angle, fill=False, ec=color, ls=style, lw=1.6)


def _densities(ax: Axes, groups: _Groups, j: int) -> None:
    """Draw a histogram of column j with the components' densities; for clusters, a histogram of each."""
    seen = ~np.isnan(groups.x[:, j])  # where entries may be missing
    x, scale = groups.x[seen, j], int(seen.sum())
    edges = np.histogram_bin_edges(x, bins=int(np.clip(np.sqrt(scale) * 1.5, 8, 60)))
    weights = np.full((scale, 1), 1.0)
    color = [FAINT]
    if groups.covariance is None:
        weights, color = groups.share[seen], list(groups.color)
    scaled = weights / (scale * np.diff(edges)[0])
    ax.hist([x] * scaled.shape[1], list(edges), weights=list(scaled.T), stacked=True, color=color, alpha=0.6)
    grid = np.linspace(edges[0], edges[-1], 400)
    total = np.zeros_like(grid)
    for m in range(len(groups.number)):
        center, edge = groups.center[m, j], 0.75 * groups.color[m]
        if groups.covariance is None:
            ax.axvline(center, color=edge, lw=1.6)
            continue
        variance = groups.covariance[m, j, j]
        density = np.exp(-0.5 * (grid - center) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
        total += groups.weight[m] * density
        ax.plot(grid, groups.weight[m] * density, color=edge, lw=1.6)
    if groups.covariance is not None and len(groups.number) > 1:
        ax.plot(grid, total, color=INK, lw=1, ls=":")
    ax.set(xlabel=groups.columns[j], ylabel="density", ylim=(0, None))
    tidy(ax)


# -- legend and title ---------------------------------------------------------------------------------


def _legend(
    where: Axes | Figure | SubFigure,
    groups: _Groups,
    *,
    ellipses: bool,
    columns: int = 4,
    note: str | None = None,
    **place: Any,
) -> None:
    """Add a legend: the groups with their weights, at most eight, and the meaning of the lines."""
    handles: list[Artist] = [
        Line2D([], [], ls="", marker="o", color=color, label=f"{groups.kind} {number}: {weight:.0%}")
        for number, weight, color in zip(groups.number, groups.weight, groups.color, strict=True)
    ]
    if len(handles) > _MOST_IN_LEGEND:
        rest = 1 - groups.weight[: _MOST_IN_LEGEND - 1].sum()
        label = f"{len(handles) - _MOST_IN_LEGEND + 1} more: {rest:.0%}"
        handles = [*handles[: _MOST_IN_LEGEND - 1], Line2D([], [], ls="", label=label)]
    if groups.covariance is None:
        mark: Look = dict(ls="", marker="X") if ellipses else {}
        handles.append(Line2D([], [], color=INK, label="centre", **mark))
    elif ellipses:
        handles += [Line2D([], [], color=INK, ls=s, label=f"{r} sd") for r, s in ((1, "-"), (2, "--"))]
    elif len(handles) > 1:
        handles.append(Line2D([], [], color=INK, ls=":", lw=1, label="all"))
    if note:
        handles.append(Line2D([], [], ls="", label=note))
    look: Look = dict(fontsize=9, frameon=False, handletextpad=0.4, columnspacing=1.4)
    where.legend(handles=handles, ncols=columns, **look, **place)


def _name(model: Drawable) -> str:
    """Return the model's name and size, for a title."""
    if isinstance(model, KMeans):
        return f"k-means ({model.n_clusters} clusters)"
    if isinstance(model.component, FactorAnalyzer):
        return f"factor analysers ({model.n_components} components, {model.component.n_factors} factors)"
    kind, most = ("Gaussian mixture", "") if model.points else ("Bayesian Gaussian mixture", "at most ")
    return f"{kind} ({most}{model.n_components} components, {model.component.covariance_type} covariance)"
