"""Diagonal covariance: a precision for each component and feature."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE
from vbjax.families.joint import JointFamily
from vbjax.families.normal_gamma import NormalGamma, NormalGammaState, NormalGammaStatistics
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure


@dataclasses.dataclass(frozen=True)
class Diagonal(Structure):
    """A precision for each component and feature: NormalGamma factors, tau ~ Gamma(nu / 2, W^-1 / 2)."""

    correlated = False
    layout = "diag"
    inverse_scale = (POSITIVE, "d")

    @property
    def default_degrees_of_freedom(self) -> int:
        return 1

    def default_inverse_scale(self, covariance: Array) -> Array:
        return jnp.diagonal(covariance)

    def clip(self, covariance: Array, floor: Array) -> Array:
        return jnp.maximum(covariance, floor)

    def below(self, covariance: Array, floor: Array) -> Array:
        return (covariance < 2 * floor).any()

    @property
    def family(self) -> JointFamily:
        return NormalGamma((self.k, self.d))

    def state(
        self, location: Array, mean_precision: ArrayLike, degrees_of_freedom: ArrayLike, inverse_scale: Array
    ) -> NormalGammaState:
        one = jnp.ones((self.k, self.d), inverse_scale.dtype)
        half_rate = 0.5 * inverse_scale
        return NormalGammaState(
            one * location, one * mean_precision, one * 0.5 * degrees_of_freedom, one * half_rate
        )

    def prepare(self, covariance: Array, statistics: NormalGammaStatistics) -> Prepared:
        root = jnp.sqrt(statistics.precision)
        return self._prepared(statistics, root, 1 / root)

    def log_density(self, statistics: NormalGammaStatistics, x: Array, *, own: bool = False) -> Array:
        return self.each(statistics, x if own else x[:, None, :]).sum(-1)

    def each(self, statistics: NormalGammaStatistics, x: Array) -> Array:
        return terms.normal(x, statistics)

    def moments(self, c: Prepared, r: Array, z: Array, x: Array) -> Moments:
        number, scatter = r.sum(1), c.unroot**2 * (r[:, None, :] * (z * z)).sum(2)
        return Moments(number, self.first(c, r, x, number[:, None]), scatter)

    def spread(self, number: Array, covariance: Array) -> Moments:
        zero = jnp.zeros((self.k, self.d), number.dtype)
        return Moments(number, zero, number[:, None] * jnp.diagonal(covariance))

    def gradient(self, moments: Moments) -> NormalGammaStatistics:
        n = jnp.broadcast_to(moments.number.reshape(self.k, -1), moments.first.shape)
        zero = jnp.zeros_like(moments.first)
        return NormalGammaStatistics(zero, -0.5 * moments.scatter, 0.5 * n, moments.first, -0.5 * n, zero)

    def covariances(self, c: Prepared) -> Array:
        return c.unroot[:, :, None] ** 2 * jnp.eye(self.d, dtype=c.unroot.dtype)

    def marginals(self, state: NormalGammaState) -> NormalGammaState:
        return state
