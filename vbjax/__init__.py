"""vbjax: variational Bayes and expectation maximisation as pure functions on JAX.

Start with `fit`, and a model: `KMeans`, `GaussianMixture`, `BayesianGaussianMixture`, ..., or `Model` for
a log joint of your own, written with the densities of `vbjax.terms` over the factors below.
"""

from vbjax import chains, datasets, families, metrics, terms, topics
from vbjax.core.acceleration import AcceleratedAscent
from vbjax.core.algorithm import Algorithm, CoordinateAscent, Info, Status
from vbjax.core.draws import replicate, sample_posterior
from vbjax.core.expectation import Expectation, expectation
from vbjax.core.fit import Fit, fit
from vbjax.core.model import ConjugateModel
from vbjax.core.restarts import Runs
from vbjax.core.user_model import Model
from vbjax.derivatives import LinearResponse, elbo, linear_response, optimum
from vbjax.documents import Documents
from vbjax.families import (
    Beta,
    Categorical,
    Delta,
    Dirichlet,
    Gamma,
    LocationPrecision,
    MatrixNormalWishart,
    MultivariateNormal,
    MultivariateNormalGamma,
    Normal,
    NormalGamma,
    NormalWishart,
    PolyaGamma,
    StickBreaking,
    TruncatedNormal,
    Wishart,
)
from vbjax.gibbs import gibbs
from vbjax.models import (
    PPCA,
    ARDRegression,
    BayesianGaussianMixture,
    BayesianPCA,
    BernoulliMixture,
    CategoricalMixture,
    FactorAnalysis,
    GammaMixture,
    GaussianMeanPrecision,
    GaussianMixture,
    HDPTopics,
    HierarchicalNormal,
    KMeans,
    LatentDirichletAllocation,
    LinearRegression,
    LogisticRegression,
    MeanFieldGaussian,
    MeanFieldTable,
    MultinomialMixture,
    PoissonMixture,
    ProbitRegression,
    RandomEffects,
    RegressionMixture,
    RobustNormal,
    UnitVarianceMixture,
)
from vbjax.record import Record
from vbjax.sequences import Sequences
from vbjax.stochastic import fit_stochastic

__all__ = [
    "PPCA",
    "ARDRegression",
    "AcceleratedAscent",
    "Algorithm",
    "BayesianGaussianMixture",
    "BayesianPCA",
    "BernoulliMixture",
    "Beta",
    "Categorical",
    "CategoricalMixture",
    "ConjugateModel",
    "CoordinateAscent",
    "Delta",
    "Dirichlet",
    "Documents",
    "Expectation",
    "FactorAnalysis",
    "Fit",
    "Gamma",
    "GammaMixture",
    "GaussianMeanPrecision",
    "GaussianMixture",
    "HDPTopics",
    "HierarchicalNormal",
    "Info",
    "KMeans",
    "LatentDirichletAllocation",
    "LinearRegression",
    "LinearResponse",
    "LocationPrecision",
    "LogisticRegression",
    "MatrixNormalWishart",
    "MeanFieldGaussian",
    "MeanFieldTable",
    "Model",
    "MultinomialMixture",
    "MultivariateNormal",
    "MultivariateNormalGamma",
    "Normal",
    "NormalGamma",
    "NormalWishart",
    "PoissonMixture",
    "PolyaGamma",
    "ProbitRegression",
    "RandomEffects",
    "Record",
    "RegressionMixture",
    "RobustNormal",
    "Runs",
    "Sequences",
    "Status",
    "StickBreaking",
    "TruncatedNormal",
    "UnitVarianceMixture",
    "Wishart",
    "chains",
    "datasets",
    "elbo",
    "expectation",
    "families",
    "fit",
    "fit_stochastic",
    "gibbs",
    "linear_response",
    "metrics",
    "optimum",
    "replicate",
    "sample_posterior",
    "terms",
    "topics",
]
