"""Full covariance: a precision matrix for each component."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax.families.joint import JointFamily
from vbjax.families.normal_wishart import NormalWishart, NormalWishartState, NormalWishartStatistics
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure, matrix_root
from vbjax.numerics.linalg import outer, symmetrize, transpose
from vbjax.numerics.types import Tree


@dataclasses.dataclass(frozen=True)
class Full(Structure):
    """A precision matrix for each component: NormalWishart factors."""

    layout = "full"

    @property
    def family(self) -> JointFamily:
        return NormalWishart(self.d, plate=(self.k,))

    def state(
        self, location: Array, mean_precision: ArrayLike, degrees_of_freedom: ArrayLike, inverse_scale: Array
    ) -> NormalWishartState:
        one = jnp.ones(self.k, inverse_scale.dtype)
        return NormalWishartState(
            one[:, None] * location,
            one * mean_precision,
            one * degrees_of_freedom,
            one[:, None, None] * inverse_scale,
        )

    def prepare(self, covariance: Array, statistics: NormalWishartStatistics) -> Prepared:
        return self._prepared(statistics, *matrix_root(covariance))

    def whiten(self, c: Prepared, x: Array) -> Array:
        stacked = c.root.reshape(self.k * self.d, self.d)  # one product for all components
        at_location = jnp.einsum("kij,kj->ki", c.root, c.location)
        return (stacked @ x).reshape(self.k, self.d, -1) - at_location[:, :, None]

    def moments(self, c: Prepared, r: Array, z: Array, x: Array) -> Moments:
        # sum r z x' is one product for all components; z is about the own location, so what is taken
        # off to bring x there too is small, and zero where the location is the optimum
        weighted = (r[:, None, :] * z).reshape(self.k * self.d, -1)
        first = weighted.sum(1).reshape(self.k, self.d)
        scatter = (weighted @ x.T).reshape(self.k, self.d, self.d) - outer(first, c.location)
        first = jnp.einsum("kij,kj->ki", c.unroot, first)
        return Moments(r.sum(1), first, symmetrize(c.unroot @ scatter))

    def spread(self, number: Array, covariance: Array) -> Moments:
        return Moments(number, jnp.zeros((self.k, self.d), number.dtype), number[:, None, None] * covariance)

    def gradient(self, moments: Moments) -> NormalWishartStatistics:
        zero = jnp.zeros_like(moments.number)
        return NormalWishartStatistics(
            jnp.zeros_like(moments.first),
            -0.5 * moments.scatter,
            0.5 * moments.number,
            moments.first,
            -0.5 * moments.number,
            zero,
        )

    def covariances(self, c: Prepared) -> Array:
        return c.unroot @ transpose(c.unroot)

    def marginals(self, state: Tree) -> NormalWishartState:
        return state
