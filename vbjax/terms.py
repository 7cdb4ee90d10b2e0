"""Log densities to write a model with: arguments are values, hyperparameters or expected statistics.

Every term is affine in the statistics of each argument, and at the statistics of a sample it is the
ordinary log density. That is all the engine needs: the updates are its gradients. Use them in
`log_prior` and `log_likelihood`; terms broadcast like NumPy functions and never sum over plates.
`linear` and `matmul` give the statistics of products, to be used as locations.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax.families.base import Statistics
from vbjax.families.beta import BetaStatistics, beta_log_density
from vbjax.families.categorical import CategoricalStatistics
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import GammaStatistics, gamma_log_density
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartState, MatrixNormalWishartStatistics
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.families.normal import NormalStatistics
from vbjax.families.normal_gamma import NormalGammaState, NormalGammaStatistics
from vbjax.families.normal_wishart import NormalWishartState, NormalWishartStatistics
from vbjax.families.polya_gamma import PolyaGammaStatistics
from vbjax.families.stick_breaking import StickBreakingState, StickBreakingStatistics
from vbjax.families.wishart import WishartStatistics, wishart_log_density
from vbjax.linalg import outer, transpose
from vbjax.special import LOG_2PI, finite_log

S = TypeVar("S")


def _read(kind: type[S], x: Any) -> S:
    """Statistics as they are, a value as the statistics of a point."""
    return x if isinstance(x, kind) else kind.of(x)  # type: ignore[attr-defined]


def _location(x: Any) -> NormalStatistics:
    """Elementwise statistics of a location; a multivariate normal gives its diagonal."""
    if isinstance(x, MultivariateNormalStatistics):
        return NormalStatistics(x.pivot, x.first, jnp.diagonal(x.second, axis1=-2, axis2=-1))
    return _read(NormalStatistics, x)


def normal(x: Any, mean: Any, precision: Any = None) -> Array:
    """log N(x | mean, 1 / precision), elementwise (Bishop 2006, eq. 1.46).

    Args:
        x, mean: values, or statistics of a Normal or MultivariateNormal factor.
        precision: a value or the statistics of a Gamma factor. Left out where `mean` is the statistics
            of a NormalGamma factor, which holds both.

    >>> from vbjax.terms import normal
    >>> print(f"{normal(1.0, 0.0, 4.0):.6f}")
    -2.225791
    """
    if isinstance(mean, NormalGammaStatistics):
        return 0.5 * (mean.logdet - LOG_2PI - mean.square_about(jnp.asarray(x)))
    x, mean, precision = _location(x), _location(mean), _read(GammaStatistics, precision)
    shift = x.pivot - mean.pivot  # E[(x - m)^2] of independent x and m, from differences
    square = shift**2 + 2 * shift * (x.first - mean.first) - 2 * x.first * mean.first
    square = square + x.second + mean.second
    return 0.5 * (precision.log - LOG_2PI - precision.value * square)


def gamma(x: Any, concentration: ArrayLike, rate: Any) -> Array:
    """log Gamma(x | concentration, rate) (Bishop 2006, eq. B.26).

    Args:
        x: a value or the statistics of a Gamma factor.
        concentration: a value. rate: a value or the statistics of a Gamma factor.
    """
    x, concentration = _read(GammaStatistics, x), jnp.asarray(concentration)
    if isinstance(rate, GammaStatistics):
        # E[log b] and E[b] stand in two places: the rate's part is separate from the stable one
        unit = gamma_log_density(x, concentration, jnp.ones_like(x.value))
        return unit + concentration * rate.log - (rate.value - 1) * x.value + x.base
    return gamma_log_density(x, concentration, jnp.asarray(rate)) + x.base


def beta(x: Any, concentration1: ArrayLike, concentration0: ArrayLike) -> Array:
    """log Beta(x | concentration1, concentration0) (Bishop 2006, eq. B.6)."""
    x = _read(BetaStatistics, x)
    return beta_log_density(x, jnp.asarray(concentration1), jnp.asarray(concentration0)) + x.base


def logistic(y: ArrayLike, logit: Any, omega: PolyaGammaStatistics) -> Array:
    """log p(y, omega | logit) of y in {0, 1} with probability 1 / (1 + exp(-logit)) of 1, elementwise.

    With omega from PG(1, 0) it is quadratic in the logit, (y - 1/2) psi - omega psi^2 / 2 - log 2, and its
    optimum in omega is the bound of Jaakkola & Jordan (Polson, Scott & Windle 2013, theorem 1).

    Args:
        y: values. logit: a value, or statistics as `linear` gives them.
        omega: the statistics of a PolyaGamma factor of one trial.
    """
    logit = _location(logit)
    y = jnp.asarray(y).astype(logit.pivot.dtype)
    return (y - 0.5) * logit.mean - 0.5 * omega.value * logit.square_about(0.0) - math.log(2)


def dirichlet(x: Any, concentration: ArrayLike) -> Array:
    """log Dirichlet(x | concentration), over the last axis; a scalar is the same for every corner (B.16)."""
    x = _read(DirichletStatistics, x)
    return dirichlet_log_density(x, jnp.asarray(concentration)) + x.base


def stick_breaking(x: Any, concentration1: ArrayLike, concentration0: ArrayLike) -> Array:
    """log density of a stick's K pieces, over the last axis: shares v_k ~ Beta, k < K, of what is left.

    With concentrations 1 and alpha, a Dirichlet process truncated at K (Blei & Jordan 2006, section 2).
    """
    x = _read(StickBreakingStatistics, x)
    dtype, shape = x.log_rest.dtype, x.log_rest.shape
    shares = (jnp.broadcast_to(jnp.asarray(a, dtype), shape) for a in (concentration1, concentration0))
    return StickBreakingState(*shares).log_density(x) + x.base


def categorical(x: Any, probabilities: Any) -> Array:
    """log Categorical(x | probabilities), over the last axis.

    Args:
        x: the number of a state, or the statistics of a Categorical factor.
        probabilities: values, or the statistics of a Dirichlet or StickBreaking factor.
    """
    if isinstance(probabilities, (DirichletStatistics, StickBreakingStatistics)):
        log = probabilities.log
    else:
        p = jnp.asarray(probabilities)
        log = jnp.where(p == 0, -jnp.inf, jnp.log(jnp.where(p == 0, 1, p)))  # no 0 / 0 in the gradient
    log = finite_log(log)
    if isinstance(x, CategoricalStatistics):
        return (x.p * log).sum(-1)
    x = jnp.asarray(x)
    shape = jnp.broadcast_shapes(x.shape, log.shape[:-1])
    log = jnp.broadcast_to(log, (*shape, log.shape[-1]))
    return jnp.take_along_axis(log, jnp.broadcast_to(x, shape)[..., None], -1)[..., 0]


def multivariate_normal(x: Any, mean: Any, precision: Any = None) -> Array:
    """log N(x | mean, precision^-1), over the last axis (Bishop 2006, eq. 2.43).

    Args:
        x, mean: vectors, or statistics of a MultivariateNormal factor.
        precision: a matrix or the statistics of a Wishart factor. Left out where `mean` is the
            statistics of a NormalWishart, MultivariateNormalGamma or MatrixNormalWishart factor; the
            last gives one number for each of its q locations, a new last axis.
    """
    if isinstance(mean, MatrixNormalWishartStatistics):
        x = jnp.asarray(x)
        square = mean.square_about(x[..., None, :])
        return 0.5 * (mean.logdet[..., None] - x.shape[-1] * LOG_2PI - square)
    if isinstance(mean, NormalWishartStatistics):
        x = jnp.asarray(x)
        return 0.5 * (mean.logdet - x.shape[-1] * LOG_2PI - mean.square_about(x))
    if isinstance(mean, MultivariateNormalGammaStatistics):
        x = jnp.asarray(x)
        return 0.5 * (x.shape[-1] * (mean.logdet - LOG_2PI) - mean.square_about(x))
    x, mean = _read(MultivariateNormalStatistics, x), _read(MultivariateNormalStatistics, mean)
    precision = _read(WishartStatistics, precision)
    shift = x.pivot - mean.pivot
    cross = (x.first - mean.first)[..., :, None] * shift[..., None, :]
    cross = cross - x.first[..., :, None] * mean.first[..., None, :]
    scatter = shift[..., :, None] * shift[..., None, :] + cross + transpose(cross) + x.second + mean.second
    square = (precision.value * scatter).sum((-1, -2))
    return 0.5 * (precision.logdet - shift.shape[-1] * LOG_2PI - square)


def wishart(x: Any, degrees_of_freedom: ArrayLike, inverse_scale: ArrayLike) -> Array:
    """log Wishart(x | nu, W), with W given by its inverse (Bishop 2006, eq. B.78)."""
    x, inverse_scale = _read(WishartStatistics, x), jnp.asarray(inverse_scale)
    nu = jnp.asarray(degrees_of_freedom, inverse_scale.dtype)
    return wishart_log_density(x.value, x.logdet, nu, inverse_scale) + x.base


def normal_gamma(
    x: Any, location: ArrayLike, mean_precision: ArrayLike, concentration: ArrayLike, rate: ArrayLike
) -> Array:
    """log N(m | location, 1 / (mean_precision tau)) Gamma(tau | concentration, rate), x = (m, tau)."""
    x = _read(NormalGammaStatistics, x)
    prior = NormalGammaState(*map(jnp.asarray, (location, mean_precision, concentration, rate)))
    return prior.log_density(x) + x.base


def normal_wishart(
    x: Any,
    location: ArrayLike,
    mean_precision: ArrayLike,
    degrees_of_freedom: ArrayLike,
    inverse_scale: ArrayLike,
) -> Array:
    """log N(m | location, (mean_precision Lam)^-1) Wishart(Lam | nu, W), x = (m, Lam) (B.94)."""
    x = _read(NormalWishartStatistics, x)
    parameters = map(jnp.asarray, (location, mean_precision, degrees_of_freedom, inverse_scale))
    return NormalWishartState(*parameters).log_density(x) + x.base


def multivariate_normal_gamma(
    x: Any, location: ArrayLike, mean_precision: ArrayLike, concentration: ArrayLike, rate: ArrayLike
) -> Array:
    """log N(m | location, (tau B)^-1) Gamma(tau | concentration, rate), x = (m, tau), B a matrix."""
    x = _read(MultivariateNormalGammaStatistics, x)
    parameters = map(jnp.asarray, (location, mean_precision, concentration, rate))
    return MultivariateNormalGammaState(*parameters).log_density(x) + x.base


def matrix_normal_wishart(
    x: Any,
    location: ArrayLike,
    mean_precision: ArrayLike,
    degrees_of_freedom: ArrayLike,
    inverse_scale: ArrayLike,
) -> Array:
    """log MN(M | location, R^-1, Lam^-1) Wishart(Lam | nu, W), x = (M, Lam), R a (q, q) matrix."""
    x = _read(MatrixNormalWishartStatistics, x)
    parameters = map(jnp.asarray, (location, mean_precision, degrees_of_freedom, inverse_scale))
    return MatrixNormalWishartState(*parameters).log_density(x) + x.base


def linear(x: ArrayLike, weights: Any) -> Any:
    """The statistics of x @ w, one for each row of x: a location for `normal`.

    Args:
        x: (n, D), values.
        weights: a value (D,), or the statistics of a MultivariateNormal factor of size D; or of a
            MultivariateNormalGamma factor, whose precision goes with it: `normal(y, linear(x, s.w))`.

    Raises:
        ValueError: weights of another family (a plate of separate Normals is no joint factor: their
            products would not be affine in each).

    >>> import jax.numpy as jnp
    >>> from vbjax.terms import linear, normal
    >>> print(normal(jnp.array([3.0]), linear(jnp.array([[1.0, 2.0]]), jnp.array([1.0, 1.0])), 1.0))
    [-0.9189385]
    """
    x = jnp.asarray(x)
    if isinstance(weights, MultivariateNormalStatistics):
        second = ((x @ weights.second) * x).sum(-1)
        return NormalStatistics(x @ weights.pivot, x @ weights.first, second)
    if isinstance(weights, MultivariateNormalGammaStatistics):
        precision, logdet, base = (
            jnp.broadcast_to(a, x.shape[:1]) for a in (weights.precision, weights.logdet, weights.base)
        )
        square = ((x @ weights.square) * x).sum(-1)
        return NormalGammaStatistics(x @ weights.pivot, precision, logdet, x @ weights.cross, square, base)
    if isinstance(weights, Statistics):
        raise ValueError(
            "weights of linear must be a value or a MultivariateNormal or MultivariateNormalGamma factor; "
            f"got one of {type(weights).__name__.removesuffix('Statistics')}"
        )
    return NormalStatistics.of(x @ jnp.asarray(weights))


def matmul(weights: Any, z: Any) -> NormalStatistics:
    """The statistics of the table z_n . w_j, (n, p), of two independent factors: a location for `normal`.

    Args:
        weights: values (p, q), or the statistics of a MultivariateNormal factor of size q, plate (p,).
        z: values (n, q), or the statistics of a MultivariateNormal factor of size q for each row.
    """
    w, z = _read(MultivariateNormalStatistics, weights), _read(MultivariateNormalStatistics, z)
    wc, zc = w.pivot, z.pivot
    # d = z.w - zc.wc = dz.wc + zc.dw + dz.dw, and E[d^2] by one product over pairs of the q axes
    first = z.first @ (wc + w.first).T + zc @ w.first.T
    of_z = jnp.stack([z.second, outer(zc, zc + 2 * z.first)], 1)
    of_w = jnp.stack([w.second + outer(wc, wc + 2 * w.first), w.second], 1)
    second = of_z.reshape(len(zc), -1) @ of_w.reshape(len(wc), -1).T
    second = second + 2 * (z.first @ wc.T) * (zc @ w.first.T)
    return NormalStatistics(zc @ wc.T, first, second)
