"""Style of all pictures: colours, titles, axes, and the name of the objective.

Imported by the pictures of this folder, and by the notebooks.
"""

from __future__ import annotations

from typing import TypeAlias

from matplotlib.axes import Axes

from vbjax.core.model import ConjugateModel
from vbjax.families.delta import Delta
from vbjax.models import HiddenMarkovModel, KMeans, Mixture, components
from vbjax.numerics.types import Tree

Look: TypeAlias = dict[str, Tree]  # keyword arguments of matplotlib

# Okabe & Ito (2008), distinct for the colour-blind; without their yellow, which is too light on white.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
BLUE, ORANGE, GREEN, INK, FAINT = "#0072B2", "#D55E00", "#009E73", "#333333", "#B0B0B0"
WARN = ORANGE
TITLE: Look = dict(loc="left", fontsize=10, color=INK)

# matplotlib's settings for figures of one's own: plt.rcParams |= NOTEBOOK
NOTEBOOK: Look = {
    "figure.dpi": 90,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def tidy(ax: Axes) -> Axes:
    """Take the frame away, and set small ticks of plain numbers; return the axes."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    ax.ticklabel_format(useOffset=False, scilimits=(-4, 6))
    return ax


def objective_name(model: object) -> str:
    """Return the name of the objective of a fit of this model, with its unit."""
    if isinstance(model, KMeans):
        return "minus the inertia"
    if not isinstance(model, (Mixture, HiddenMarkovModel)):
        points = isinstance(model, ConjugateModel) and all(
            isinstance(family, Delta) for family in model.factors.values()
        )
        return "objective (nats)" if points else "ELBO (nats)"
    if not model.points:
        return "ELBO (nats)"
    priors = (
        [model.weights]
        if isinstance(model, Mixture)
        else [model.chain.initial_concentration, model.chain.transition_concentration]
    )
    component = model.component
    if isinstance(component, components.Mixture):
        priors, component = [*priors, component.weights], component.component
    if isinstance(component, components.Gaussian):
        priors.append(component.mean_precision)
    given = any(getattr(prior, "concentration", prior) is not None for prior in priors)
    return "log posterior (nats)" if given else "log likelihood (nats)"
