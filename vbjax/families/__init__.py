"""Exponential families: the distributions that a factor of the variational posterior can have."""

from vbjax.families.base import Family, LocationPrecision, State, Statistics
from vbjax.families.beta import Beta, BetaState, BetaStatistics
from vbjax.families.categorical import Categorical, CategoricalState, CategoricalStatistics
from vbjax.families.delta import Delta, DeltaState
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.families.gamma import Gamma, GammaState, GammaStatistics
from vbjax.families.gauss_markov import GaussMarkov, GaussMarkovState, GaussMarkovStatistics
from vbjax.families.joint import JointStatistics, LocationCovariance
from vbjax.families.markov_chain import MarkovChain, MarkovChainState, MarkovChainStatistics
from vbjax.families.matrix_normal_wishart import (
    MatrixNormalWishart,
    MatrixNormalWishartState,
    MatrixNormalWishartStatistics,
)
from vbjax.families.multivariate_normal import (
    MultivariateNormal,
    MultivariateNormalState,
    MultivariateNormalStatistics,
)
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.families.normal import Normal, NormalState, NormalStatistics
from vbjax.families.normal_gamma import NormalGamma, NormalGammaState, NormalGammaStatistics
from vbjax.families.normal_wishart import NormalWishart, NormalWishartState, NormalWishartStatistics
from vbjax.families.polya_gamma import PolyaGamma, PolyaGammaState, PolyaGammaStatistics
from vbjax.families.stick_breaking import StickBreaking, StickBreakingState, StickBreakingStatistics
from vbjax.families.truncated_normal import TruncatedNormal, TruncatedNormalState
from vbjax.families.wishart import Wishart, WishartState, WishartStatistics

__all__ = [
    "Beta",
    "BetaState",
    "BetaStatistics",
    "Categorical",
    "CategoricalState",
    "CategoricalStatistics",
    "Delta",
    "DeltaState",
    "Dirichlet",
    "DirichletState",
    "DirichletStatistics",
    "Family",
    "Gamma",
    "GammaState",
    "GammaStatistics",
    "GaussMarkov",
    "GaussMarkovState",
    "GaussMarkovStatistics",
    "JointStatistics",
    "LocationCovariance",
    "LocationPrecision",
    "MarkovChain",
    "MarkovChainState",
    "MarkovChainStatistics",
    "MatrixNormalWishart",
    "MatrixNormalWishartState",
    "MatrixNormalWishartStatistics",
    "MultivariateNormal",
    "MultivariateNormalGamma",
    "MultivariateNormalGammaState",
    "MultivariateNormalGammaStatistics",
    "MultivariateNormalState",
    "MultivariateNormalStatistics",
    "Normal",
    "NormalGamma",
    "NormalGammaState",
    "NormalGammaStatistics",
    "NormalState",
    "NormalStatistics",
    "NormalWishart",
    "NormalWishartState",
    "NormalWishartStatistics",
    "PolyaGamma",
    "PolyaGammaState",
    "PolyaGammaStatistics",
    "State",
    "Statistics",
    "StickBreaking",
    "StickBreakingState",
    "StickBreakingStatistics",
    "TruncatedNormal",
    "TruncatedNormalState",
    "Wishart",
    "WishartState",
    "WishartStatistics",
]
