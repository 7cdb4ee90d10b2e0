"""Tied covariance: one precision matrix for all components."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax import terms
from vbjax.families.joint import JointFamily
from vbjax.families.matrix_normal_wishart import (
    MatrixNormalWishart,
    MatrixNormalWishartState,
    MatrixNormalWishartStatistics,
)
from vbjax.families.normal_wishart import NormalWishartState, NormalWishartStatistics
from vbjax.models.components.covariance.structure import Moments, Prepared, Structure, matrix_root
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, symmetrize
from vbjax.numerics.types import Tree


@dataclasses.dataclass(frozen=True)
class Tied(Structure):
    """One precision matrix for all components: a MatrixNormalWishart factor, nu = nu0 + n."""

    layout = "tied"

    @property
    def family(self) -> JointFamily:
        return MatrixNormalWishart(rows=self.k, size=self.d)

    def state(
        self, location: Array, mean_precision: ArrayLike, degrees_of_freedom: ArrayLike, inverse_scale: Array
    ) -> MatrixNormalWishartState:
        dtype = inverse_scale.dtype
        return MatrixNormalWishartState(
            jnp.ones((self.k, 1), dtype) * location,
            jnp.asarray(mean_precision, dtype) * jnp.eye(self.k, dtype=dtype),
            jnp.asarray(degrees_of_freedom, dtype),
            inverse_scale,
        )

    def permute(self, state: Tree, order: Array) -> Tree:
        location, precision = state.location[order], state.mean_precision[order][:, order]
        return dataclasses.replace(state, location=location, mean_precision=precision)

    def prepare(self, covariance: Array, statistics: MatrixNormalWishartStatistics) -> Prepared:
        return self._prepared(statistics, *matrix_root(covariance))

    def log_density(self, statistics: MatrixNormalWishartStatistics, x: Array, *, own: bool = False) -> Array:
        table = terms.multivariate_normal(x, statistics)
        return jnp.diagonal(table) if own else table

    def whiten(self, c: Prepared, x: Array) -> Array:
        return c.root @ x - (c.location @ c.root.T)[:, :, None]

    def pooled(self, moments: Moments) -> Moments:
        return moments._replace(scatter=moments.scatter.sum(0))

    def for_each_component(self, statistics: MatrixNormalWishartStatistics) -> NormalWishartStatistics:
        t = statistics
        matrix = jnp.broadcast_to(t.precision, (self.k, self.d, self.d))
        logdet = jnp.broadcast_to(t.logdet, (self.k,))
        return NormalWishartStatistics(t.pivot, matrix, logdet, t.cross, jnp.diagonal(t.square), logdet)

    def moments(self, c: Prepared, r: Array, z: Array, x: Array) -> Moments:
        weighted = r[:, None, :] * z
        first = weighted.sum(2)  # as in `Full`, and the components add up before the product
        scatter = weighted.sum(0) @ x.T - first.T @ c.location
        return Moments(r.sum(1), first @ c.unroot.T, symmetrize(c.unroot @ scatter))

    def spread(self, number: Array, covariance: Array) -> Moments:
        return Moments(number, jnp.zeros((self.k, self.d), number.dtype), number.sum() * covariance)

    def gradient(self, moments: Moments) -> MatrixNormalWishartStatistics:
        n = moments.number.sum()
        return MatrixNormalWishartStatistics(
            jnp.zeros_like(moments.first),
            -0.5 * moments.scatter,
            0.5 * n,
            moments.first,
            jnp.diag(-0.5 * moments.number),
            jnp.zeros_like(n),
        )

    def covariances(self, c: Prepared) -> Array:
        return jnp.broadcast_to(c.unroot @ c.unroot.T, (self.k, self.d, self.d))

    def marginals(self, state: MatrixNormalWishartState) -> NormalWishartState:
        spread = jnp.diagonal(inverse_from_cholesky(cholesky(state.mean_precision)))
        one = jnp.ones_like(spread)
        return NormalWishartState(
            state.location,
            1 / spread,
            one * state.degrees_of_freedom,
            one[:, None, None] * state.inverse_scale,
        )
