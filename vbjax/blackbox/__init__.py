"""Black-box variational inference: a normal on unconstrained space, fitted to any log density.

`black_box` is the model, `approximation` what a fit returns, `natural_ascent` how it climbs, on the fixed
draws of `draws`; `score_matching` matches scores instead; `pathfinder` finds a start; `scales` are the
families; `diagnostics` and `pareto` say how far to trust it; `interchange` is with NumPyro and
ArviZ.
"""

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.diagnostics import Diagnostics
from vbjax.blackbox.families import LocationScale, LowRank, Mixture, low_rank, mixture
from vbjax.blackbox.fixed_draws import FixedDraws
from vbjax.blackbox.interchange import from_numpyro, to_inference_data
from vbjax.blackbox.natural_ascent import NaturalAscent
from vbjax.blackbox.pareto import pareto_smoothed
from vbjax.blackbox.pathfinder import pathfinder
from vbjax.blackbox.score_matching import ScoreMatching

__all__ = [
    "Approximation",
    "BlackBox",
    "Diagnostics",
    "FixedDraws",
    "LocationScale",
    "LowRank",
    "Mixture",
    "NaturalAscent",
    "ScoreMatching",
    "from_numpyro",
    "low_rank",
    "mixture",
    "pareto_smoothed",
    "pathfinder",
    "to_inference_data",
]
