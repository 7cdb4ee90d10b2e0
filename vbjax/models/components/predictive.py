"""Student-t predictive densities: a Gaussian with its location and precision integrated out."""

from __future__ import annotations

import functools

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.multivariate_normal_gamma import MultivariateNormalGammaState
from vbjax.families.normal_gamma import NormalGammaState
from vbjax.families.normal_wishart import NormalWishartState
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, logdet_from_cholesky, solve_lower
from vbjax.numerics.special import LOG_2PI, log_rising
from vbjax.numerics.types import Tree


def log_student_t(square: Array, dof: Array, d: ArrayLike, logdet: Array) -> Array:
    """Compute log St at a squared distance, in d dimensions, with log det of the scale matrix (B.68)."""
    constant = log_rising(0.5 * dof, jnp.asarray(0.5 * d, dof.dtype)) - 0.5 * d * LOG_2PI
    return constant - 0.5 * logdet - 0.5 * (dof + d) * jnp.log1p(square / dof)


@functools.singledispatch
def log_predictive(components: Tree, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Compute log p(x | component) of rows (n, d) under each of k factors, (n, k): Student-t densities."""
    raise TypeError(f"no predictive density for {type(components).__name__}")


def _matrix_square(
    x: Float[Array, "n d"], location: Float[Array, "k d"], lower: Float[Array, "k d d"]
) -> Float[Array, "n k"]:
    """Compute (x - m_k)' (L_k L_k')^-1 (x - m_k), (n, k), by triangular solves."""
    z = solve_lower(lower, jnp.moveaxis(x[:, None, :] - location, 0, -1))  # (k, d, n)
    return (z * z).sum(1).T


@log_predictive.register
def _(components: NormalWishartState, x: Array) -> Array:
    # Bishop (2006), eq. 10.81 and 10.82: precision (nu + 1 - D) beta / (1 + beta) W
    d = x.shape[-1]
    dof = components.degrees_of_freedom + 1 - d
    factor = (1 + components.mean_precision) / (components.mean_precision * dof)
    lower = cholesky(components.inverse_scale) * jnp.sqrt(factor)[:, None, None]
    square = _matrix_square(x, components.location, lower)
    return log_student_t(square, dof, d, logdet_from_cholesky(lower))


@log_predictive.register
def _(components: NormalGammaState, x: Array) -> Array:
    dof = 2 * components.concentration
    variance = components.rate * (1 + components.mean_precision)
    variance = variance / (components.concentration * components.mean_precision)
    square = (x[:, None, :] - components.location) ** 2 / variance
    return log_student_t(square, dof, 1, jnp.log(variance)).sum(-1)


@log_predictive.register
def _(components: MultivariateNormalGammaState, x: Array) -> Array:
    d = x.shape[-1]
    spread = jnp.eye(d, dtype=x.dtype) + inverse_from_cholesky(cholesky(components.mean_precision))
    factor = components.rate / components.concentration
    lower = cholesky(spread) * jnp.sqrt(factor)[:, None, None]
    square = _matrix_square(x, components.location, lower)
    return log_student_t(square, 2 * components.concentration, d, logdet_from_cholesky(lower))


@functools.singledispatch
def log_predictive_observed(components: Tree, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
    """Compute `log_predictive` of the entries that are not NaN, by marginals; 0 where nothing is seen."""
    raise TypeError(f"no predictive density for {type(components).__name__}")


def _marginal_student_t(location: Array, scale: Array, dof: Array, x: Array) -> Array:
    """Compute log St(x | location, scale) over the entries that are seen, (n, k), component by component."""
    seen = ~jnp.isnan(x)
    inside, eye = seen[:, :, None] & seen[:, None, :], jnp.eye(x.shape[-1], dtype=x.dtype)
    size, x = seen.sum(-1).astype(x.dtype), jnp.where(seen, x, 0)

    def of_one(component: tuple[Array, Array, Array]) -> Array:
        location, scale, dof = component
        lower = cholesky(jnp.where(inside, scale, eye))
        z = solve_lower(lower, jnp.where(seen, x - location, 0)[..., None])[..., 0]
        return log_student_t((z * z).sum(-1), dof, size, logdet_from_cholesky(lower))

    return lax.map(of_one, (location, scale, dof)).T


@log_predictive_observed.register
def _(components: NormalWishartState, x: Array) -> Array:
    dof = components.degrees_of_freedom + 1 - x.shape[-1]
    factor = (1 + components.mean_precision) / (components.mean_precision * dof)
    scale = components.inverse_scale * factor[:, None, None]
    return _marginal_student_t(components.location, scale, dof, x)


@log_predictive_observed.register
def _(components: NormalGammaState, x: Array) -> Array:
    dof = 2 * components.concentration
    variance = components.rate * (1 + components.mean_precision)
    variance = variance / (components.concentration * components.mean_precision)
    square = (jnp.where(jnp.isnan(x), 0, x)[:, None, :] - components.location) ** 2 / variance
    each = log_student_t(square, dof, 1, jnp.log(variance))
    return jnp.where(jnp.isnan(x)[:, None], 0, each).sum(-1)


@log_predictive_observed.register
def _(components: MultivariateNormalGammaState, x: Array) -> Array:
    spread = jnp.eye(x.shape[-1], dtype=x.dtype) + inverse_from_cholesky(cholesky(components.mean_precision))
    scale = spread * (components.rate / components.concentration)[:, None, None]
    return _marginal_student_t(components.location, scale, 2 * components.concentration, x)
