"""Black-box variational inference: a distribution on unconstrained space, fitted to any log density.

`black_box` holds the model, `approximation` the result of a fit, `families` the choices of q, `starts` where
fits by them begin, `contracts` what a family must offer. Fits start at the end of one of several `paths` to
modes, which `pathfinder` shows. Five algorithms fit: `natural_ascent`, `structured_ascent` and `fixed_draws`
on the draws of `normal_draws`, `stochastic_ascent` by the gradients of `estimators` (`gradient_estimates`
shows them), and `score_matching`. `inspection` refuses what cannot be fitted. `diagnostics` says how far to
trust a fit, by draws of `proposals`; `summing` sums discrete latents out; `local_latents` are those of single
rows, and `amortized_normals` their family, by an encoder; `flows` are those of flowjax; `numpyro_models` and
`pymc_models` read models of these packages; `non_conjugate` makes such a distribution a factor of a
`vb.Model` whose other factors are conjugate.
"""

import importlib
from typing import TYPE_CHECKING, Any

from vbjax.blackbox.algorithms.gradient_estimates import gradient_estimates
from vbjax.blackbox.algorithms.natural_ascent import NaturalAscent
from vbjax.blackbox.algorithms.pathfinder import pathfinder
from vbjax.blackbox.algorithms.score_matching import ScoreMatching
from vbjax.blackbox.amortized_normals import amortized
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.diagnostics import Diagnostics
from vbjax.blackbox.families import LocationScale, LowRank, Mixture
from vbjax.blackbox.flows import flow
from vbjax.blackbox.non_conjugate import NonConjugate, NonConjugateState
from vbjax.blackbox.numpyro_models import from_numpyro
from vbjax.blackbox.pymc_models import from_pymc
from vbjax.blackbox.starts import low_rank, mixture, structured
from vbjax.blackbox.summing import summed_out
from vbjax.numerics.pareto import pareto_smoothed

if TYPE_CHECKING:
    from vbjax.blackbox.algorithms.fixed_draws import FixedDraws
    from vbjax.blackbox.algorithms.stochastic_ascent import StochasticAscent

_BY_OPTAX = {
    "FixedDraws": "fixed_draws",
    "StochasticAscent": "stochastic_ascent",
}


def __getattr__(name: str) -> Any:
    """Import an algorithm at its first use: optax takes a tenth of the time that `import vbjax` takes."""
    if name in _BY_OPTAX:
        return getattr(importlib.import_module(f"vbjax.blackbox.algorithms.{_BY_OPTAX[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
    "amortized",
    "flow",
    "from_numpyro",
    "from_pymc",
    "gradient_estimates",
    "low_rank",
    "mixture",
    "pareto_smoothed",
    "pathfinder",
    "structured",
    "summed_out",
]
