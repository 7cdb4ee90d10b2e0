"""Pictures of a choice among models: the criterion over a grid. Imported by the package of pictures."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from vbjax.inference.selection import Choice
from vbjax.numerics.inputs import describe
from vbjax.plots.inputs import read_axes
from vbjax.plots.style import INK, PALETTE, TITLE, tidy


def criterion(choice: Choice, ax: Axes | None = None) -> Axes:
    """Draw the criterion over the first option of the grid, a line for each of the others' combinations.

    Bars are standard errors of the differences to the best, where there are some; a ring is round the best.

    Args:
        choice: what `vb.select` returned.
        ax: the axes to draw on; by default new ones.

    Returns:
        The axes.

    Raises:
        TypeError: anything but a choice.

    >>> import jax, vbjax as vb
    >>> x, grid = vb.datasets.old_faithful(), dict(n_components=[1, 2, 3], covariance_type=["tied"])
    >>> choice = vb.select(vb.GaussianMixture, x, grid, key=jax.random.key(0), n_restarts=4)
    >>> criterion(choice).get_ylabel()
    'bic'
    """
    if not isinstance(choice, Choice):
        raise TypeError(f"choice must be what vb.select returns; got {describe(choice)}")
    ax = read_axes(ax)
    first, *others = choice.candidates[0].options
    places = list(dict.fromkeys(candidate.options[first] for candidate in choice.candidates))
    numbers = all(isinstance(place, (int, float, np.number)) for place in places)
    place = lambda candidate: candidate.options[first] if numbers else places.index(candidate.options[first])
    lines: dict[str, list] = {}
    for candidate in choice.candidates:
        name = ", ".join(str(candidate.options[other]) for other in others)
        lines.setdefault(name, []).append(candidate)
    for number, (name, own) in enumerate(sorted(lines.items())):
        own = sorted(own, key=place)
        color, values = PALETTE[number % len(PALETTE)], [candidate.value for candidate in own]
        errors = np.array([candidate.standard_error or 0 for candidate in own])
        shown = errors if errors.any() else None
        ax.errorbar([*map(place, own)], values, shown, marker="o", ms=4, color=color)
        ax.plot([], [], color=color, label=name)
    best = choice.candidates[0]
    ax.plot(place(best), best.value, ls="", marker="o", ms=11, mfc="none", color=INK)
    tidy(ax).set(xlabel=first, ylabel=choice.criterion)
    if numbers:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        ax.set_xticks(range(len(places)), map(str, places), parse_math=False)
    if others:
        ax.legend(title=", ".join(others), frameon=False, fontsize=8)
    ax.set_title(f"{type(best.found.model).__name__}: {choice.criterion}", parse_math=False, **TITLE)
    return ax
