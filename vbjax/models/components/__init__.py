"""Gaussian components of full, tied, diagonal or spherical covariance."""

from vbjax.models.components.diagonal import Diagonal
from vbjax.models.components.full import Full
from vbjax.models.components.spherical import Spherical
from vbjax.models.components.structure import Moments, Prepared, Structure
from vbjax.models.components.tied import Tied

STRUCTURES: dict[str, type[Structure]] = {
    "full": Full,
    "tied": Tied,
    "diag": Diagonal,
    "spherical": Spherical,
}

__all__ = ["STRUCTURES", "Diagonal", "Full", "Moments", "Prepared", "Spherical", "Structure", "Tied"]
