"""Black-box variational inference: a distribution on unconstrained space, fitted to any log density.

`black_box` is the model, `approximation` what a fit returns, `families` what it may be. Four ways there:
`natural_ascent` and `fixed_draws` climb on the draws of `draws`, `stochastic_ascent` by the gradients of
`estimators` (`gradient_estimates` shows them), `score_matching` matches scores; `pathfinder` finds a start;
`inspection` refuses what cannot be fitted. `diagnostics` and `pareto` say how
far to trust it; `summing` sums discrete latents out; `interchange` is with NumPyro and ArviZ;
`non_conjugate` is a factor made so, for a `vb.Model` whose others are conjugate.
"""

from vbjax.blackbox.algorithms.fixed_draws import FixedDraws
from vbjax.blackbox.algorithms.gradient_estimates import gradient_estimates
from vbjax.blackbox.algorithms.natural_ascent import NaturalAscent
from vbjax.blackbox.algorithms.pathfinder import pathfinder
from vbjax.blackbox.algorithms.score_matching import ScoreMatching
from vbjax.blackbox.algorithms.stochastic_ascent import StochasticAscent
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.diagnostics import Diagnostics
from vbjax.blackbox.families import LocationScale, LowRank, Mixture, low_rank, mixture
from vbjax.blackbox.interchange import from_numpyro, to_inference_data
from vbjax.blackbox.non_conjugate import NonConjugate, NonConjugateState
from vbjax.blackbox.pareto import pareto_smoothed
from vbjax.blackbox.summing import summed_out

__all__ = [
    "Approximation",
    "BlackBox",
    "Diagnostics",
    "FixedDraws",
    "LocationScale",
    "LowRank",
    "Mixture",
    "NaturalAscent",
    "NonConjugate",
    "NonConjugateState",
    "ScoreMatching",
    "StochasticAscent",
    "from_numpyro",
    "gradient_estimates",
    "low_rank",
    "mixture",
    "pareto_smoothed",
    "pathfinder",
    "summed_out",
    "to_inference_data",
]
