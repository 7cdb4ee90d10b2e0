"""Ready-made models, each a page with its equations."""

from vbjax.models.ard_regression import ARDRegression
from vbjax.models.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.gaussian_mixture import GaussianMixture
from vbjax.models.kmeans import KMeans
from vbjax.models.linear_regression import LinearRegression
from vbjax.models.logistic_regression import LogisticRegression
from vbjax.models.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.probit_regression import ProbitRegression
from vbjax.models.unit_variance_mixture import UnitVarianceMixture

__all__ = [
    "ARDRegression",
    "BayesianGaussianMixture",
    "GaussianMeanPrecision",
    "GaussianMixture",
    "KMeans",
    "LinearRegression",
    "LogisticRegression",
    "MeanFieldGaussian",
    "ProbitRegression",
    "UnitVarianceMixture",
]
