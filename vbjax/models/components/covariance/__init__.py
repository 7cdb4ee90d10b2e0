"""The covariance structures of Gaussian components: their layouts, and what components may share."""

from vbjax.models.components.covariance.diagonal import Diagonal
from vbjax.models.components.covariance.full import Full
from vbjax.models.components.covariance.parsimonious import MAXIMISERS, Update, n_covariance_parameters
from vbjax.models.components.covariance.spherical import Spherical
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure
from vbjax.models.components.covariance.tied import Tied

STRUCTURES: dict[str, type[Structure]] = dict(
    full=Full, tied=Tied, diag=Diagonal, spherical=Spherical,
    EII=Spherical, VII=Spherical, EEI=Diagonal, VEI=Diagonal, EVI=Diagonal, VVI=Diagonal, EEE=Tied,
    VEE=Full, EVE=Full, VVE=Full, EEV=Full, VEV=Full, EVV=Full, VVV=Full,
)  # fmt: skip

__all__ = [
    "MAXIMISERS",
    "STRUCTURES",
    "Diagonal",
    "Full",
    "Moments",
    "Prepared",
    "Spherical",
    "Structure",
    "Tied",
    "Update",
    "n_covariance_parameters",
]
