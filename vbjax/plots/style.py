"""Style of all pictures: colours, titles, axes, and the name of the objective.

Imported by the pictures of this folder alone.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from matplotlib.axes import Axes

from vbjax.models import GaussianMixture, KMeans

Look: TypeAlias = dict[str, Any]  # keyword arguments of matplotlib

# Okabe & Ito (2008), distinct for the colour-blind; without their yellow, which is too light on white.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
INK, FAINT, WARN = "#333333", "#B0B0B0", "#D55E00"
TITLE: Look = dict(loc="left", fontsize=10, color=INK)


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
    emissions = getattr(model, "emissions", model)
    if not getattr(emissions, "points", False):
        return "ELBO (nats)"
    mixture = getattr(emissions, "mixture", emissions)
    priors = [getattr(mixture, "mean_precision", None)]
    priors += [getattr(model, f"{name}_concentration", None) for name in ("initial", "transition")]
    weighted = (
        mixture is model or mixture is not emissions
    )  # in a chain the weights have no prior of their own
    if weighted and isinstance(mixture, GaussianMixture):
        priors.append(mixture.weight_concentration)
    given = any(prior is not None for prior in priors)
    return "log posterior (nats)" if given else "log likelihood (nats)"
