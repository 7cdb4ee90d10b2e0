"""Estimators as scikit-learn and hmmlearn have them, on the models of this package.

>>> import vbjax as vb
>>> from vbjax.sklearn import GaussianMixture
>>> mixture = GaussianMixture(2, random_state=0).fit(vb.datasets.old_faithful())
>>> mixture.means_.shape, mixture.predict([[2.0, 55.0], [4.5, 80.0]]).shape
((2, 2), (2,))

An estimator is thin: its parameters become a model of `vb`, `vb.fit` fits it, and its attributes read the
result, which is kept as `fit_`. Parameters and attributes have the names and meanings that they have in
scikit-learn, in hidden Markov models those of hmmlearn; each class says where it differs. All of them:

- compute as the table comes, in float64 as a rule and in float32 where it is float32, whatever
  `jax_enable_x64` says, which stays as it is. On an accelerator float32 is the faster one.
- fill tables up with rows that weigh nothing, so that tables of similar length share their compiled programs:
  folds of a cross-validation, and all tables of at most 256 rows.
- warn by scikit-learn's ConvergenceWarning where a fit did not converge, and by `vb.FitWarning` where it is
  singular, or one of `n_init` alone.
- take `sample_weight` in `fit`, a weight w counting a row w times, by scikit-learn's metadata routing too; of
  hidden Markov models sequences have none.
"""

# ruff: noqa: E402  # scikit-learn is missed before its parts are imported
from vbjax.numerics.extras import import_extra

import_extra("sklearn", "sklearn")

from vbjax.sklearn.chains import (
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
from vbjax.sklearn.clusters import KMeans
from vbjax.sklearn.component_mixtures import (
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
from vbjax.sklearn.factors import PPCA, BayesianPCA, FactorAnalysis
from vbjax.sklearn.mixtures import BayesianGaussianMixture, GaussianMixture, MixtureOfFactorAnalyzers
from vbjax.sklearn.regressions import (
    ARDRegression,
    BayesianLinearRegression,
    LinearRegression,
    LogisticRegression,
    ProbitRegression,
)
from vbjax.sklearn.topics import LatentDirichletAllocation

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
    "BayesianLinearRegression",
    "BayesianMixtureHMM",
    "BayesianMultinomialMixture",
    "BayesianPCA",
    "BayesianPoissonHMM",
    "BayesianPoissonMixture",
    "BernoulliMixture",
    "CategoricalHMM",
    "CategoricalMixture",
    "FactorAnalysis",
    "GammaHMM",
    "GammaMixture",
    "GaussianHMM",
    "GaussianMixture",
    "KMeans",
    "LatentDirichletAllocation",
    "LinearRegression",
    "LogisticRegression",
    "MixtureHMM",
    "MixtureOfFactorAnalyzers",
    "MultinomialMixture",
    "PoissonHMM",
    "PoissonMixture",
    "ProbitRegression",
]
