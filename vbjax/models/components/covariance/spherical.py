"""Spherical covariance: one precision for each component."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax.core.hyperparameters import POSITIVE
from vbjax.families.joint import JointFamily
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure
from vbjax.numerics.special import LOG_2PI


@dataclasses.dataclass(frozen=True)
class Spherical(Structure):
    """One precision for each component: MultivariateNormalGamma factors, tau ~ Gamma(nu / 2, W^-1 / 2)."""

    correlated = False
    layout = "spherical"
    inverse_scale = (POSITIVE,)

    def default_inverse_scale(self, covariance: Array) -> Array:
        return jnp.trace(covariance)

    def clip(self, covariance: Array, floor: Array) -> Array:
        return jnp.maximum(covariance, floor.mean())

    def below(self, covariance: Array, floor: Array) -> Array:
        return (covariance < 2 * floor.mean()).any()

    @property
    def family(self) -> JointFamily:
        return MultivariateNormalGamma(self.d, plate=(self.k,))

    def state(
        self, location: Array, mean_precision: ArrayLike, degrees_of_freedom: ArrayLike, inverse_scale: Array
    ) -> MultivariateNormalGammaState:
        one = jnp.ones(self.k, inverse_scale.dtype)
        eye = jnp.eye(self.d, dtype=inverse_scale.dtype)
        return MultivariateNormalGammaState(
            one[:, None] * location,
            one[:, None, None] * mean_precision * eye,
            one * 0.5 * degrees_of_freedom,
            one * 0.5 * inverse_scale,
        )

    def prepare(self, covariance: Array, statistics: MultivariateNormalGammaStatistics) -> Prepared:
        root = jnp.sqrt(statistics.precision)[:, None]
        return self._prepared(statistics, root, 1 / root)

    def each(self, statistics: MultivariateNormalGammaStatistics, x: Array) -> Array:
        t, spread = statistics, jnp.diagonal(statistics.square, axis1=-2, axis2=-1)
        square = t.precision[:, None] * (x - t.pivot) ** 2 - 2 * (x - t.pivot) * t.cross + spread
        return 0.5 * (t.logdet[:, None] - LOG_2PI - square)

    def moments(self, c: Prepared, r: Array, z: Array, x: Array) -> Moments:
        number, scatter = r.sum(1), c.unroot[:, 0] ** 2 * (r * (z * z).sum(1)).sum(1)
        return Moments(number, self.first(c, r, x, number[:, None]), scatter)

    def spread(self, number: Array, covariance: Array) -> Moments:
        zero = jnp.zeros((self.k, self.d), number.dtype)
        return Moments(number, zero, number * jnp.trace(covariance))

    def gradient(self, moments: Moments) -> MultivariateNormalGammaStatistics:
        n = jnp.broadcast_to(moments.number.reshape(self.k, -1), moments.first.shape)
        square = -0.5 * n[:, :, None] * jnp.eye(self.d, dtype=n.dtype)
        return MultivariateNormalGammaStatistics(
            jnp.zeros_like(moments.first),
            -0.5 * moments.scatter,
            0.5 * n.sum(1),
            moments.first,
            square,
            jnp.zeros(self.k, n.dtype),
        )

    def covariances(self, c: Prepared) -> Array:
        return c.unroot[:, :, None] ** 2 * jnp.eye(self.d, dtype=c.unroot.dtype)

    def marginals(self, state: MultivariateNormalGammaState) -> MultivariateNormalGammaState:
        return state
