"""Ready-made models, each a page with its equations."""

from vbjax.models.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.bayesian_pca import BayesianPCA
from vbjax.models.factor_analysis import FactorAnalysis
from vbjax.models.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.gaussian_mixture import GaussianMixture
from vbjax.models.hierarchical_normal import HierarchicalNormal
from vbjax.models.kmeans import KMeans
from vbjax.models.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.mean_field_table import MeanFieldTable
from vbjax.models.ppca import PPCA
from vbjax.models.random_effects import RandomEffects
from vbjax.models.robust_normal import RobustNormal
from vbjax.models.unit_variance_mixture import UnitVarianceMixture

__all__ = [
    "PPCA",
    "BayesianGaussianMixture",
    "BayesianPCA",
    "FactorAnalysis",
    "GaussianMeanPrecision",
    "GaussianMixture",
    "HierarchicalNormal",
    "KMeans",
    "MeanFieldGaussian",
    "MeanFieldTable",
    "RandomEffects",
    "RobustNormal",
    "UnitVarianceMixture",
]
