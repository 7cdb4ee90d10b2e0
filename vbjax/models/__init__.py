"""Ready-made models, each a page with its equations."""

from vbjax.models.ard_regression import ARDRegression
from vbjax.models.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.bernoulli_mixture import BernoulliMixture
from vbjax.models.categorical_mixture import CategoricalMixture
from vbjax.models.gamma_mixture import GammaMixture
from vbjax.models.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.gaussian_mixture import GaussianMixture
from vbjax.models.kmeans import KMeans
from vbjax.models.linear_regression import LinearRegression
from vbjax.models.logistic_regression import LogisticRegression
from vbjax.models.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.multinomial_mixture import MultinomialMixture
from vbjax.models.poisson_mixture import PoissonMixture
from vbjax.models.probit_regression import ProbitRegression
from vbjax.models.regression_mixture import RegressionMixture
from vbjax.models.unit_variance_mixture import UnitVarianceMixture

__all__ = [
    "ARDRegression",
    "BayesianGaussianMixture",
    "BernoulliMixture",
    "CategoricalMixture",
    "GammaMixture",
    "GaussianMeanPrecision",
    "GaussianMixture",
    "KMeans",
    "LinearRegression",
    "LogisticRegression",
    "MeanFieldGaussian",
    "MultinomialMixture",
    "PoissonMixture",
    "ProbitRegression",
    "RegressionMixture",
    "UnitVarianceMixture",
]
