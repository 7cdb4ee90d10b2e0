"""Black-box variational inference: a normal on unconstrained space, fitted to any log density.

`black_box` is the model, `approximation` what a fit returns, `natural_ascent` how it climbs, on the fixed
draws of `draws`; `scales` are the families; `diagnostics` and `pareto` say how far to trust it.
`non_conjugate` is a factor made so, for a `vb.Model` whose others are conjugate.
"""

from vbjax.blackbox.approximation import NormalApproximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.diagnostics import Diagnostics
from vbjax.blackbox.natural_ascent import NaturalAscent
from vbjax.blackbox.non_conjugate import NonConjugate, NonConjugateState
from vbjax.blackbox.pareto import pareto_smoothed

__all__ = [
    "BlackBox",
    "Diagnostics",
    "NaturalAscent",
    "NonConjugate",
    "NonConjugateState",
    "NormalApproximation",
    "pareto_smoothed",
]
