"""The first examples of the textbooks, small models beside whose bound the exact answer can be seen."""

from vbjax.models.textbook.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.textbook.hierarchical_normal import HierarchicalNormal
from vbjax.models.textbook.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.textbook.mean_field_table import MeanFieldTable
from vbjax.models.textbook.random_effects import RandomEffects
from vbjax.models.textbook.robust_normal import RobustNormal
from vbjax.models.textbook.unit_variance_mixture import UnitVarianceMixture

__all__ = [
    "GaussianMeanPrecision",
    "HierarchicalNormal",
    "MeanFieldGaussian",
    "MeanFieldTable",
    "RandomEffects",
    "RobustNormal",
    "UnitVarianceMixture",
]
