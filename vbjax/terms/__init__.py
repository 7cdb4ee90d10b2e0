"""Log densities for writing models; their arguments are values, hyperparameters or expected statistics.

Every term is affine in the statistics of each argument, and at the statistics of a sample it is the
ordinary log density. The engine needs nothing else: the updates are its gradients. Use terms in
`log_prior` and `log_likelihood`; terms broadcast like NumPy functions and never sum over plates.
`linear`, `matmul` and `dot` give the statistics of products, to be used as locations.
"""

from vbjax.terms.densities import (
    bernoulli,
    beta,
    categorical,
    dirichlet,
    gamma,
    logistic,
    matrix_normal_wishart,
    multinomial,
    multivariate_normal,
    multivariate_normal_gamma,
    normal,
    normal_gamma,
    normal_wishart,
    poisson,
    stick_breaking,
    wishart,
)
from vbjax.terms.paths import gauss_markov, markov_chain
from vbjax.terms.products import dot, linear, matmul

__all__ = [
    "bernoulli",
    "beta",
    "categorical",
    "dirichlet",
    "dot",
    "gamma",
    "gauss_markov",
    "linear",
    "logistic",
    "markov_chain",
    "matmul",
    "matrix_normal_wishart",
    "multinomial",
    "multivariate_normal",
    "multivariate_normal_gamma",
    "normal",
    "normal_gamma",
    "normal_wishart",
    "poisson",
    "stick_breaking",
    "wishart",
]
