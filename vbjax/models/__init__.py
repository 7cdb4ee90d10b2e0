"""Ready-made models, each a page with its equations."""

from vbjax.models.ard_regression import ARDRegression
from vbjax.models.autoregressive_hidden_markov import AutoregressiveHiddenMarkovModel
from vbjax.models.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.bayesian_pca import BayesianPCA
from vbjax.models.bernoulli_mixture import BernoulliMixture
from vbjax.models.categorical_mixture import CategoricalMixture
from vbjax.models.factor_analysis import FactorAnalysis
from vbjax.models.gamma_mixture import GammaMixture
from vbjax.models.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.gaussian_mixture import GaussianMixture
from vbjax.models.hdp_hidden_markov import HDPHiddenMarkovModel
from vbjax.models.hdp_topics import HDPTopics
from vbjax.models.hidden_markov import HiddenMarkovModel
from vbjax.models.hidden_markov_names import (
    AutoregressiveHMM,
    BayesianAutoregressiveHMM,
    BayesianCategoricalHMM,
    BayesianGammaHMM,
    BayesianGaussianHMM,
    BayesianMixtureHMM,
    BayesianPoissonHMM,
    CategoricalHMM,
    GammaHMM,
    GaussianHMM,
    MixtureHMM,
    PoissonHMM,
)
from vbjax.models.hierarchical_normal import HierarchicalNormal
from vbjax.models.kmeans import KMeans
from vbjax.models.latent_dirichlet_allocation import LatentDirichletAllocation
from vbjax.models.linear_gaussian_state_space import (
    BayesianLinearGaussianStateSpace,
    LinearGaussianStateSpace,
)
from vbjax.models.linear_regression import LinearRegression
from vbjax.models.logistic_regression import LogisticRegression
from vbjax.models.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.mean_field_table import MeanFieldTable
from vbjax.models.multinomial_mixture import MultinomialMixture
from vbjax.models.multivariate_regression_mixture import MultivariateRegressionMixture
from vbjax.models.nested_mixture import NestedMixture
from vbjax.models.poisson_mixture import PoissonMixture
from vbjax.models.ppca import PPCA
from vbjax.models.probit_regression import ProbitRegression
from vbjax.models.random_effects import RandomEffects
from vbjax.models.regression_mixture import RegressionMixture
from vbjax.models.robust_normal import RobustNormal
from vbjax.models.state_merges import merge_states
from vbjax.models.unit_variance_mixture import UnitVarianceMixture

__all__ = [
    "PPCA",
    "ARDRegression",
    "AutoregressiveHMM",
    "AutoregressiveHiddenMarkovModel",
    "BayesianAutoregressiveHMM",
    "BayesianCategoricalHMM",
    "BayesianGammaHMM",
    "BayesianGaussianHMM",
    "BayesianGaussianMixture",
    "BayesianLinearGaussianStateSpace",
    "BayesianMixtureHMM",
    "BayesianPCA",
    "BayesianPoissonHMM",
    "BernoulliMixture",
    "CategoricalHMM",
    "CategoricalMixture",
    "FactorAnalysis",
    "GammaHMM",
    "GammaMixture",
    "GaussianHMM",
    "GaussianMeanPrecision",
    "GaussianMixture",
    "HDPHiddenMarkovModel",
    "HDPTopics",
    "HiddenMarkovModel",
    "HierarchicalNormal",
    "KMeans",
    "LatentDirichletAllocation",
    "LinearGaussianStateSpace",
    "LinearRegression",
    "LogisticRegression",
    "MeanFieldGaussian",
    "MeanFieldTable",
    "MixtureHMM",
    "MultinomialMixture",
    "MultivariateRegressionMixture",
    "NestedMixture",
    "PoissonHMM",
    "PoissonMixture",
    "ProbitRegression",
    "RandomEffects",
    "RegressionMixture",
    "RobustNormal",
    "UnitVarianceMixture",
    "merge_states",
]
