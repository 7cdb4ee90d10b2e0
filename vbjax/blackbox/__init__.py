"""Black-box variational inference: a distribution on unconstrained space, fitted to any log density.

`black_box` is the model, `approximation` what a fit returns, `families` what it may be. Three ways up:
`natural_ascent` and `fixed_draws` on the draws of `draws`, `stochastic_ascent` by the gradients of
`estimators`. `diagnostics` and `pareto` say how far to trust it; `summing` sums discrete latents out;
`non_conjugate` is a factor made so, for a `vb.Model` whose others are conjugate.
"""

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.diagnostics import Diagnostics
from vbjax.blackbox.estimators import gradient_estimates
from vbjax.blackbox.families import LocationScale, LowRank, Mixture, low_rank, mixture
from vbjax.blackbox.fixed_draws import FixedDraws
from vbjax.blackbox.natural_ascent import NaturalAscent
from vbjax.blackbox.non_conjugate import NonConjugate, NonConjugateState
from vbjax.blackbox.pareto import pareto_smoothed
from vbjax.blackbox.stochastic_ascent import StochasticAscent
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
    "StochasticAscent",
    "gradient_estimates",
    "low_rank",
    "mixture",
    "pareto_smoothed",
    "summed_out",
]
