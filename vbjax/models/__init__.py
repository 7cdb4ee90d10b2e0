"""Ready-made models, each a page with its equations."""

from vbjax.models.factor.bayesian_pca import BayesianPCA
from vbjax.models.factor.factor_analysis import FactorAnalysis
from vbjax.models.factor.ppca import PPCA
from vbjax.models.markov.autoregressive_hidden_markov import AutoregressiveHiddenMarkovModel
from vbjax.models.markov.hdp_hidden_markov import HDPHiddenMarkovModel
from vbjax.models.markov.hidden_markov import HiddenMarkovModel
from vbjax.models.markov.hidden_markov_names import (
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
from vbjax.models.markov.nested_mixture import NestedMixture
from vbjax.models.markov.state_merges import merge_states
from vbjax.models.mixtures.bayesian_gaussian_mixture import BayesianGaussianMixture
from vbjax.models.mixtures.bernoulli_mixture import BernoulliMixture
from vbjax.models.mixtures.categorical_mixture import CategoricalMixture
from vbjax.models.mixtures.gamma_mixture import GammaMixture
from vbjax.models.mixtures.gaussian_mixture import GaussianMixture
from vbjax.models.mixtures.kmeans import KMeans
from vbjax.models.mixtures.multinomial_mixture import MultinomialMixture
from vbjax.models.mixtures.multivariate_regression_mixture import MultivariateRegressionMixture
from vbjax.models.mixtures.poisson_mixture import PoissonMixture
from vbjax.models.mixtures.regression_mixture import RegressionMixture
from vbjax.models.regression.ard_regression import ARDRegression
from vbjax.models.regression.linear_regression import LinearRegression
from vbjax.models.regression.logistic_regression import LogisticRegression
from vbjax.models.regression.probit_regression import ProbitRegression
from vbjax.models.state_space.linear_gaussian_state_space import (
    BayesianLinearGaussianStateSpace,
    LinearGaussianStateSpace,
)
from vbjax.models.textbook.gaussian_mean_precision import GaussianMeanPrecision
from vbjax.models.textbook.hierarchical_normal import HierarchicalNormal
from vbjax.models.textbook.mean_field_gaussian import MeanFieldGaussian
from vbjax.models.textbook.mean_field_table import MeanFieldTable
from vbjax.models.textbook.random_effects import RandomEffects
from vbjax.models.textbook.robust_normal import RobustNormal
from vbjax.models.textbook.unit_variance_mixture import UnitVarianceMixture
from vbjax.models.topics.hdp_topics import HDPTopics
from vbjax.models.topics.latent_dirichlet_allocation import LatentDirichletAllocation

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
