"""The covariance structures of Gaussian components: full, tied, diagonal or spherical."""

from vbjax.models.components.covariance.diagonal import Diagonal
from vbjax.models.components.covariance.full import Full
from vbjax.models.components.covariance.spherical import Spherical
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure
from vbjax.models.components.covariance.tied import Tied

STRUCTURES: dict[str, type[Structure]] = {
    "full": Full,
    "tied": Tied,
    "diag": Diagonal,
    "spherical": Spherical,
}

__all__ = ["STRUCTURES", "Diagonal", "Full", "Moments", "Prepared", "Spherical", "Structure", "Tied"]
