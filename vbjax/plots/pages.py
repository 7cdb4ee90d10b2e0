"""A page on any fit, `fit.plot()`: the picture of its kind of model, or its parameters, trace and restarts.

`plots.fits`, `plots.chains` and `plots.topics` draw the pictures of mixtures, chains and topics.
"""

from __future__ import annotations

import itertools
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure, SubFigure

from vbjax.data.frames import reads_frames
from vbjax.inference.result import Fit
from vbjax.models import HiddenMarkovModel, KMeans, Mixture
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.types import Given
from vbjax.plots import chains, fits, topics
from vbjax.plots.inputs import read_figure, read_fit
from vbjax.plots.style import PALETTE, TITLE, tidy

_MOST_PANELS = 5
_MOST_ENTRIES = 8  # of a parameter
_LABEL = 24  # characters


def page(fit: Fit, data: Given = None, *, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Draw a page on a fit: what suits its model, the trace of the best run, and the restarts.

    Args:
        fit: a `Fit` of any model.
        data: what a page shows of the data: of a Gaussian mixture or KMeans the rows, of a hidden Markov
            model the sequences, of a topic model its vocabulary (`plots.overview`, `plots.chains.overview`,
            `plots.topics.overview`). Without, and for all other models, the page shows `parameters`.
        figure: the figure to draw on; by default a new one.

    Returns:
        The figure.

    Raises:
        ValueError, TypeError: data of another kind; a batch of fits.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
    >>> [ax.get_title(loc="left") for ax in page(fit).axes][:2]
    ['mu', 'tau']
    """
    fit = read_fit(fit)
    if data is not None:
        if isinstance(fit.model, TopicModel):
            return topics.overview(fit, data, figure=figure)
        drawn = chains.overview if isinstance(fit.model, HiddenMarkovModel) else fits.overview
        if isinstance(fit.model, (HiddenMarkovModel, KMeans, Mixture)):
            return reads_frames(lambda rows: drawn(fit, rows, figure=figure), fit.columns)(data)
        raise TypeError(f"data must be None: no picture of {type(fit.model).__name__} shows its rows")
    figure = read_figure(figure, 11, 5.5)
    left, right = cast(Any, figure.subfigures(1, 2, width_ratios=[1.3, 1]))
    parameters(fit, left)
    top, bottom = right.subplots(2, 1)
    fits.trace(fit, top)
    fits.restarts(fit, bottom)
    figure.suptitle(type(fit.model).__name__, x=0.01, ha="left", fontsize=12)
    return figure


def parameters(fit: Fit, figure: Figure | SubFigure | None = None) -> Figure | SubFigure:
    """Draw the mean and the 90 % interval of the parameters, a panel for each of the first five.

    A panel has the first eight entries, of components those of the heaviest. Points have no interval.

    Args:
        fit: a `Fit` of any model.
        figure: the figure to draw on; by default a new one.

    Returns:
        The figure.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
    >>> [ax.get_title(loc="left") for ax in parameters(fit).axes]
    ['mu', 'tau']
    """
    found = read_fit(fit).summary().parameters[:_MOST_PANELS]
    entries = [list(itertools.islice(p.entries(), min(p.n_filled, _MOST_ENTRIES))) for p in found]
    heights = [len(each) + 2.5 for each in entries]
    figure = read_figure(figure, 6, 0.22 * sum(heights))
    panels = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, parameter, shown in zip(panels, found, entries, strict=True):
        table = np.array([parameter.numbers(index) for index in shown])
        places = np.arange(len(shown))
        ax.hlines(places, table[:, 2], table[:, 3], color=PALETTE[0], lw=2.5, alpha=0.6)
        ax.plot(table[:, 0], places, ls="", marker="o", ms=4, color=PALETTE[0])
        tidy(ax).set_yticks(places, [parameter.label(index, _LABEL) for index in shown], parse_math=False)
        ax.tick_params(axis="y", length=0)
        ax.set(ylim=(len(shown) - 0.4, -0.6))
        some = "" if len(shown) == parameter.n_filled else f": {len(shown)} of {parameter.n_filled}"
        ax.set_title(f"{parameter.name}{some}", parse_math=False, **TITLE)
    return figure
