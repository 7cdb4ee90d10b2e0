"""How all pictures look: colours, titles, axes, and what the objective is called.

Imported by the pictures of this folder alone.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from vbjax.models import GaussianMixture, KMeans

# Okabe & Ito (2008), told apart by the colour-blind; without the yellow, too light on white.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]
INK, FAINT, WARN = "#333333", "#B0B0B0", "#D55E00"
TITLE: dict[str, Any] = dict(loc="left", fontsize=10, color=INK)


def tidy(ax: Axes) -> Axes:
    """Without a frame, with small ticks of plain numbers."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9)
    ax.ticklabel_format(useOffset=False, scilimits=(-4, 6))
    return ax


def objective_name(model: Any) -> str:
    """Of a fit of this model, with its unit."""
    if isinstance(model, KMeans):
        return "minus the inertia"
    emissions = getattr(model, "emissions", model)
    if not getattr(emissions, "points", False):
        return "ELBO (nats)"
    mixture = getattr(emissions, "mixture", emissions)
    priors = [getattr(mixture, "mean_precision", None)]
    priors += [getattr(model, f"{name}_concentration", None) for name in ("initial", "transition")]
    weighted = mixture is model or mixture is not emissions  # not where a chain is in the weights' place
    if weighted and isinstance(mixture, GaussianMixture):
        priors.append(mixture.weight_concentration)
    given = any(prior is not None for prior in priors)
    return "log posterior (nats)" if given else "log likelihood (nats)"
