"""Ready-made models, each a page with its equations.

A word means one thing among their hyperparameters. `location` is the mean of a location's or of coefficients'
prior, `mean_precision` its precision in units of the rows' own (so of a mean the number of rows behind it, of
coefficients a sum of squares, as a number, a diagonal or a matrix), `location_precision` its precision by
itself. `concentration` is of Dirichlet priors, and with `rate` of gamma ones; `degrees_of_freedom` and
`inverse_scale` are of Wishart priors. `center`, `offset` and `scale` are of the data.
"""

from vbjax.models import textbook
from vbjax.models.factor.bayesian_pca import BayesianPCA
from vbjax.models.factor.factor_analysis import FactorAnalysis
from vbjax.models.factor.ppca import PPCA
from vbjax.models.markov.hidden_markov import (
    BayesianHiddenMarkovModel,
    HDPHiddenMarkovModel,
    HiddenMarkovModel,
)
from vbjax.models.markov.named import (
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
from vbjax.models.mixtures.factor_analyzers import MixtureOfFactorAnalyzers
from vbjax.models.mixtures.gaussian import BayesianGaussianMixture, GaussianMixture
from vbjax.models.mixtures.kmeans import KMeans
from vbjax.models.mixtures.latent_class import BayesianLatentClass, LatentClass
from vbjax.models.mixtures.mixture import BayesianMixture, Mixture
from vbjax.models.mixtures.named import (
    BayesianBernoulliMixture,
    BayesianCategoricalMixture,
    BayesianGammaMixture,
    BayesianMultinomialMixture,
    BayesianPoissonMixture,
    BernoulliMixture,
    CategoricalMixture,
    GammaMixture,
    MultinomialMixture,
    PoissonMixture,
)
from vbjax.models.mixtures.regression import (
    BayesianMultivariateRegressionMixture,
    BayesianRegressionMixture,
    MultivariateRegressionMixture,
    RegressionMixture,
)
from vbjax.models.regression.ard_regression import ARDRegression
from vbjax.models.regression.label_regressions import BayesianLogisticRegression, BayesianProbitRegression
from vbjax.models.regression.linear_regression import BayesianLinearRegression, LinearRegression
from vbjax.models.state_space.linear_gaussian_state_space import (
    BayesianLinearGaussianStateSpace,
    LinearGaussianStateSpace,
)
from vbjax.models.topics.hdp_topics import HDPTopics
from vbjax.models.topics.latent_dirichlet_allocation import LatentDirichletAllocation

__all__ = [
    "PPCA",
    "ARDRegression",
    "AutoregressiveHMM",
    "BayesianAutoregressiveHMM",
    "BayesianBernoulliMixture",
    "BayesianCategoricalHMM",
    "BayesianCategoricalMixture",
    "BayesianGammaHMM",
    "BayesianGammaMixture",
    "BayesianGaussianHMM",
    "BayesianGaussianMixture",
    "BayesianHiddenMarkovModel",
    "BayesianLatentClass",
    "BayesianLinearGaussianStateSpace",
    "BayesianLinearRegression",
    "BayesianLogisticRegression",
    "BayesianMixture",
    "BayesianMixtureHMM",
    "BayesianMultinomialMixture",
    "BayesianMultivariateRegressionMixture",
    "BayesianPCA",
    "BayesianPoissonHMM",
    "BayesianPoissonMixture",
    "BayesianProbitRegression",
    "BayesianRegressionMixture",
    "BernoulliMixture",
    "CategoricalHMM",
    "CategoricalMixture",
    "FactorAnalysis",
    "GammaHMM",
    "GammaMixture",
    "GaussianHMM",
    "GaussianMixture",
    "HDPHiddenMarkovModel",
    "HDPTopics",
    "HiddenMarkovModel",
    "KMeans",
    "LatentClass",
    "LatentDirichletAllocation",
    "LinearGaussianStateSpace",
    "LinearRegression",
    "Mixture",
    "MixtureHMM",
    "MixtureOfFactorAnalyzers",
    "MultinomialMixture",
    "MultivariateRegressionMixture",
    "PoissonHMM",
    "PoissonMixture",
    "RegressionMixture",
    "textbook",
]
