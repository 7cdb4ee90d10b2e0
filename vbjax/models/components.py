"""Gaussian components of full, tied, diagonal or spherical covariance, for every mixture of them.

A structure says which joint family holds the components' locations and precisions, gives the table of
expected log densities of a block of rows, and turns responsibilities into the gradient that the
family's `from_gradient` takes. The layout is (k, d, block): rows along the minor axis. Squares are sums
of squares of differences from the component's own location, whitened where the covariance is a matrix;
so they keep float32's digits and are never negative.

Imported by the mixture models.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from vbjax import terms
from vbjax.families.base import Family, State
from vbjax.families.delta import DeltaState
from vbjax.families.matrix_normal_wishart import (
    MatrixNormalWishart,
    MatrixNormalWishartState,
    MatrixNormalWishartStatistics,
)
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.families.normal_gamma import NormalGamma, NormalGammaState, NormalGammaStatistics
from vbjax.families.normal_wishart import NormalWishart, NormalWishartState, NormalWishartStatistics
from vbjax.special import cholesky, solve_lower, symmetrize, transpose


class Prepared(NamedTuple):
    """What a block of rows needs of the components.

    Attributes:
        pivot: (d,), a point amid the locations, so that products are of small numbers.
        location: (k, d), about the pivot.
        constant: (k,), the expected log density at the location.
        root: R with R'R = E[Lam]: (k, d, d) full, (d, d) tied, (k, d) diagonal, (k, 1) spherical.
        unroot: R^-1, which brings scatter back from whitened coordinates.
    """

    pivot: Array
    location: Array
    constant: Array
    root: Array
    unroot: Array


class Moments(NamedTuple):
    """Sums over rows of responsibilities times 1, x - m_k and (x - m_k)(x - m_k)', as a structure has it."""

    count: Array
    first: Array
    scatter: Array


def matrix_root(inverse_scale: Array, factor: Array) -> tuple[Array, Array]:
    """R = sqrt(f) L^-1 and its inverse, where E[Lam] = f W and W^-1 = L L'."""
    size = jnp.sqrt(factor)[..., None, None]
    lower = cholesky(inverse_scale)
    eye = jnp.broadcast_to(jnp.eye(lower.shape[-1], dtype=lower.dtype), lower.shape)
    return size * solve_lower(lower, eye), lower / size


def clip_eigenvalues(covariance: Array, floor: Array) -> Array:
    """The nearest covariances (in likelihood) whose eigenvalues are at least 1 in units of `floor` (d,).

    Decompositions are made only while some matrix needs one: a `while_loop` stays lazy under vmap, where
    a `cond` would not.
    """
    unit = jnp.sqrt(floor)[:, None] * jnp.sqrt(floor)
    eye = jnp.eye(floor.shape[0], dtype=floor.dtype)

    def clip(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        values, vectors = jnp.linalg.eigh(carry[0])
        values = jnp.maximum(values, 1)[..., None, :]
        return symmetrize((vectors * values) @ transpose(vectors)), jnp.asarray(False)

    relative = covariance / unit
    low = jnp.isnan(cholesky(relative - eye)).any()
    return unit * lax.while_loop(lambda carry: carry[1], clip, (relative, low))[0]


def below(covariance: Array, floor: Array) -> Array:
    """Whether some covariance has an eigenvalue within a hundredth of the floor."""
    unit = jnp.sqrt(floor)[:, None] * jnp.sqrt(floor)
    return jnp.isnan(cholesky(covariance / unit - 1.01 * jnp.eye(floor.shape[0], dtype=floor.dtype))).any()


@dataclasses.dataclass(frozen=True)
class Structure:
    """What the four kinds share: k components in d dimensions.

    A point estimate (EM) is kept as the member of the family, with mode factor d + k, whose mode it is.
    """

    k: int
    d: int

    @property
    def default_degrees_of_freedom(self) -> int:
        """Of a prior: the dimension of its precision matrix."""
        return self.d

    def default_inverse_scale(self, covariance: Array) -> Array:
        """Of a prior: the data's covariance, as the structure has it."""
        return covariance

    def point_covariance(self, state: Any, gradient: Any, previous: Any) -> Array:
        """The covariance that maximises the expected log joint, of a state made from its gradient.

        Where nothing is known of a component (no rows, no prior) it keeps the `previous` one.
        """
        exponent = 2 * (gradient.logdet + self._base_exponent * gradient.base)
        idle = exponent <= 0
        covariance = self._inverse_scale(state) / self._over(jnp.where(idle, 1, exponent))
        before = self._inverse_scale(previous) / (self.d + self.k)
        return jnp.where(self._over(idle), before, covariance)

    def clip(self, covariance: Array, floor: Array) -> Array:
        """Covariances, none below `floor` (d,) in any direction."""
        return clip_eigenvalues(covariance, floor)

    def below(self, state: Any, floor: Array) -> Array:
        """Whether a point lies on the floor."""
        return below(self._inverse_scale(state) / (self.d + self.k), floor)

    @property
    def _base_exponent(self) -> float:
        """The base measure's power of |Lam|."""
        return -0.5 * self.d

    def _inverse_scale(self, state: Any) -> Array:
        return state.inverse_scale

    def _over(self, x: Array) -> Array:
        return x[..., None, None]

    @property
    def family(self) -> Family:
        """The joint family of the locations and precisions."""
        raise TypeError("a structure is one of the four below")

    def table(self, c: Prepared, x: Array) -> tuple[Array, Array]:
        """Expected log densities (k, block) of rows x (d, block) about the pivot, and whitened differences."""
        z = self.whiten(c, x)
        return c.constant[:, None] - 0.5 * (z * z).sum(1), z

    def whiten(self, c: Prepared, x: Array) -> Array:
        """R_k (x - m_k), (k, d, block)."""
        return c.root[:, :, None] * (x - c.location[:, :, None])

    def _prepared(self, state: State, statistics: Any, root: Array, unroot: Array) -> Prepared:
        location = statistics.pivot
        pivot = location.mean(0)
        at_location = self.log_density(statistics, location, own=True)
        return Prepared(pivot, location - pivot, at_location, root, unroot)

    def log_density(self, statistics: Any, x: Array, *, own: bool = False) -> Array:
        """E[log N(x | component)], (n, k) from statistics: the derived, uncontracted form of `table`.

        With `own`, (k,): each component at the k-th of k points.
        """
        return terms.multivariate_normal(x if own else x[:, None, :], statistics)


@dataclasses.dataclass(frozen=True)
class Full(Structure):
    """A precision matrix for each component: NormalWishart factors."""

    @property
    def family(self) -> Family:
        return NormalWishart(self.d, plate=(self.k,))

    def state(
        self, location: Array, mean_precision: Array, degrees_of_freedom: Array, inverse_scale: Array
    ) -> NormalWishartState:
        """The same (prior) parameters for every component; `location` (d,) or (k, d)."""
        one = jnp.ones(self.k, inverse_scale.dtype)
        return NormalWishartState(
            one[:, None] * location,
            one * mean_precision,
            one * degrees_of_freedom,
            one[:, None, None] * inverse_scale,
        )

    def prepare(self, state: State, statistics: NormalWishartStatistics) -> Prepared:
        at = state.at if isinstance(state, DeltaState) else state
        factor = at.degrees_of_freedom - (self.d if isinstance(state, DeltaState) else 0)
        return self._prepared(state, statistics, *matrix_root(at.inverse_scale, factor))

    def whiten(self, c: Prepared, x: Array) -> Array:
        stacked = c.root.reshape(self.k * self.d, self.d)  # one product for all components
        at_location = jnp.einsum("kij,kj->ki", c.root, c.location)
        return (stacked @ x).reshape(self.k, self.d, -1) - at_location[:, :, None]

    def moments(self, c: Prepared, r: Array, z: Array) -> Moments:
        weighted = r[:, None, :] * z
        scatter = weighted @ transpose(z)  # (k, d, b) (k, b, d)
        first = jnp.einsum("kij,kj->ki", c.unroot, weighted.sum(2))
        return Moments(r.sum(1), first, c.unroot @ scatter @ transpose(c.unroot))

    def spread(self, count: Array, covariance: Array) -> Moments:
        """Moments of `count` rows for each component, centred on it, of a covariance (d, d)."""
        return Moments(count, jnp.zeros((self.k, self.d), count.dtype), count[:, None, None] * covariance)

    def gradient(self, m: Moments) -> NormalWishartStatistics:
        zero = jnp.zeros_like(m.count)
        return NormalWishartStatistics(
            jnp.zeros_like(m.first), -0.5 * m.scatter, 0.5 * m.count, m.first, -0.5 * m.count, zero
        )

    def covariances(self, c: Prepared) -> Array:
        """E[Lam]^-1, (k, d, d)."""
        return c.unroot @ transpose(c.unroot)

    def marginals(self, state: Any) -> NormalWishartState:
        """Each component's own factor, its plate beginning with k."""
        return state

    def at_point(self, location: Array, covariance: Array) -> NormalWishartState:
        """The member whose mode is (location, covariance^-1); covariance (k, d, d) or (d, d)."""
        return self.state(location, 1.0, 2 * self.d + self.k, (self.d + self.k) * covariance)


@dataclasses.dataclass(frozen=True)
class Tied(Structure):
    """One precision matrix for all components: a MatrixNormalWishart factor, nu = nu0 + n."""

    @property
    def _base_exponent(self) -> float:
        return 0.5 * (self.k - self.d - 1)

    def at_point(self, location: Array, covariance: Array) -> MatrixNormalWishartState:
        """The member whose mode is (location, covariance^-1); covariance (d, d)."""
        return self.state(location, 1.0, 2 * self.d + 1, (self.d + self.k) * covariance)

    @property
    def family(self) -> Family:
        return MatrixNormalWishart(rows=self.k, size=self.d)

    def state(
        self, location: Array, mean_precision: Array, degrees_of_freedom: Array, inverse_scale: Array
    ) -> MatrixNormalWishartState:
        """The (prior) parameters; `location` (d,) or (k, d)."""
        dtype = inverse_scale.dtype
        return MatrixNormalWishartState(
            jnp.ones((self.k, 1), dtype) * location,
            mean_precision * jnp.eye(self.k, dtype=dtype),
            jnp.asarray(degrees_of_freedom, dtype),
            inverse_scale,
        )

    def prepare(self, state: State, statistics: MatrixNormalWishartStatistics) -> Prepared:
        at = state.at if isinstance(state, DeltaState) else state
        factor = at.degrees_of_freedom + (self.k - self.d - 1 if isinstance(state, DeltaState) else 0)
        return self._prepared(state, statistics, *matrix_root(at.inverse_scale, factor))

    def log_density(self, statistics: MatrixNormalWishartStatistics, x: Array, *, own: bool = False) -> Array:
        table = terms.multivariate_normal(x, statistics)
        return jnp.diagonal(table) if own else table

    def whiten(self, c: Prepared, x: Array) -> Array:
        return c.root @ x - (c.location @ c.root.T)[:, :, None]

    def moments(self, c: Prepared, r: Array, z: Array) -> Moments:
        weighted = r[:, None, :] * z
        scatter = jnp.einsum("kib,kjb->ij", weighted, z)
        return Moments(r.sum(1), weighted.sum(2) @ c.unroot.T, c.unroot @ scatter @ c.unroot.T)

    def spread(self, count: Array, covariance: Array) -> Moments:
        return Moments(count, jnp.zeros((self.k, self.d), count.dtype), count.sum() * covariance)

    def gradient(self, m: Moments) -> MatrixNormalWishartStatistics:
        n = m.count.sum()
        return MatrixNormalWishartStatistics(
            jnp.zeros_like(m.first),
            -0.5 * m.scatter,
            0.5 * n,
            m.first,
            jnp.diag(-0.5 * m.count),
            jnp.zeros_like(n),
        )

    def covariances(self, c: Prepared) -> Array:
        return jnp.broadcast_to(c.unroot @ c.unroot.T, (self.k, self.d, self.d))

    def marginals(self, state: MatrixNormalWishartState) -> NormalWishartState:
        spread = jnp.diagonal(jnp.linalg.inv(state.mean_precision))
        one = jnp.ones_like(spread)
        return NormalWishartState(
            state.location,
            1 / spread,
            one * state.degrees_of_freedom,
            one[:, None, None] * state.inverse_scale,
        )


@dataclasses.dataclass(frozen=True)
class Diagonal(Structure):
    """A precision for each component and feature: NormalGamma factors, tau ~ Gamma(nu / 2, W^-1 / 2)."""

    @property
    def default_degrees_of_freedom(self) -> int:
        return 1

    def default_inverse_scale(self, covariance: Array) -> Array:
        return jnp.diagonal(covariance)

    @property
    def _base_exponent(self) -> float:
        return -0.5

    def _inverse_scale(self, state: NormalGammaState) -> Array:
        return 2 * state.rate

    def _over(self, x: Array) -> Array:
        return x

    def at_point(self, location: Array, covariance: Array) -> NormalGammaState:
        """The member whose mode is (location, 1 / covariance); covariance (k, d) or (d,)."""
        return self.state(location, 1.0, self.d + self.k + 1, (self.d + self.k) * covariance)

    def clip(self, covariance: Array, floor: Array) -> Array:
        return jnp.maximum(covariance, floor)

    def below(self, state: NormalGammaState, floor: Array) -> Array:
        return (self._inverse_scale(state) / (self.d + self.k) < 1.01 * floor).any()

    @property
    def family(self) -> Family:
        return NormalGamma((self.k, self.d))

    def state(
        self, location: Array, mean_precision: Array, degrees_of_freedom: Array, inverse_scale: Array
    ) -> NormalGammaState:
        """The same (prior) parameters for every component; `location` (d,) or (k, d)."""
        one = jnp.ones((self.k, self.d), inverse_scale.dtype)
        half_rate = 0.5 * inverse_scale
        return NormalGammaState(
            one * location, one * mean_precision, one * 0.5 * degrees_of_freedom, one * half_rate
        )

    def prepare(self, state: State, statistics: NormalGammaStatistics) -> Prepared:
        root = jnp.sqrt(statistics.precision)
        return self._prepared(state, statistics, root, 1 / root)

    def log_density(self, statistics: NormalGammaStatistics, x: Array, *, own: bool = False) -> Array:
        return terms.normal(x if own else x[:, None, :], statistics).sum(-1)

    def moments(self, c: Prepared, r: Array, z: Array) -> Moments:
        weighted = r[:, None, :] * z
        return Moments(r.sum(1), c.unroot * weighted.sum(2), c.unroot**2 * (weighted * z).sum(2))

    def spread(self, count: Array, covariance: Array) -> Moments:
        zero = jnp.zeros((self.k, self.d), count.dtype)
        return Moments(count, zero, count[:, None] * jnp.diagonal(covariance))

    def gradient(self, m: Moments) -> NormalGammaStatistics:
        n = jnp.broadcast_to(m.count[:, None], m.first.shape)
        zero = jnp.zeros_like(m.first)
        return NormalGammaStatistics(zero, -0.5 * m.scatter, 0.5 * n, m.first, -0.5 * n, zero)

    def covariances(self, c: Prepared) -> Array:
        return c.unroot[:, :, None] ** 2 * jnp.eye(self.d, dtype=c.unroot.dtype)

    def marginals(self, state: NormalGammaState) -> NormalGammaState:
        return state


@dataclasses.dataclass(frozen=True)
class Spherical(Structure):
    """One precision for each component: MultivariateNormalGamma factors, tau ~ Gamma(nu / 2, W^-1 / 2)."""

    def default_inverse_scale(self, covariance: Array) -> Array:
        return jnp.trace(covariance)

    @property
    def _base_exponent(self) -> float:
        return 0.5 * self.d - 1

    def _inverse_scale(self, state: MultivariateNormalGammaState) -> Array:
        return 2 * state.rate

    def _over(self, x: Array) -> Array:
        return x

    def at_point(self, location: Array, covariance: Array) -> MultivariateNormalGammaState:
        """The member whose mode is (location, 1 / covariance); covariance (k,) or a scalar."""
        return self.state(location, 1.0, self.k + 2, (self.d + self.k) * covariance)

    def clip(self, covariance: Array, floor: Array) -> Array:
        return jnp.maximum(covariance, floor.mean())

    def below(self, state: MultivariateNormalGammaState, floor: Array) -> Array:
        return (self._inverse_scale(state) / (self.d + self.k) < 1.01 * floor.mean()).any()

    @property
    def family(self) -> Family:
        return MultivariateNormalGamma(self.d, plate=(self.k,))

    def state(
        self, location: Array, mean_precision: Array, degrees_of_freedom: Array, inverse_scale: Array
    ) -> MultivariateNormalGammaState:
        """The same (prior) parameters for every component; `location` (d,) or (k, d)."""
        one = jnp.ones(self.k, inverse_scale.dtype)
        eye = jnp.eye(self.d, dtype=inverse_scale.dtype)
        return MultivariateNormalGammaState(
            one[:, None] * location,
            one[:, None, None] * mean_precision * eye,
            one * 0.5 * degrees_of_freedom,
            one * 0.5 * inverse_scale,
        )

    def prepare(self, state: State, statistics: MultivariateNormalGammaStatistics) -> Prepared:
        root = jnp.sqrt(statistics.precision)[:, None]
        return self._prepared(state, statistics, root, 1 / root)

    def moments(self, c: Prepared, r: Array, z: Array) -> Moments:
        first = c.unroot * (r[:, None, :] * z).sum(2)
        return Moments(r.sum(1), first, c.unroot[:, 0] ** 2 * (r * (z * z).sum(1)).sum(1))

    def spread(self, count: Array, covariance: Array) -> Moments:
        zero = jnp.zeros((self.k, self.d), count.dtype)
        return Moments(count, zero, count * jnp.trace(covariance))

    def gradient(self, m: Moments) -> MultivariateNormalGammaStatistics:
        zero = jnp.zeros_like(m.count)
        square = -0.5 * m.count[:, None, None] * jnp.eye(self.d, dtype=m.count.dtype)
        return MultivariateNormalGammaStatistics(
            jnp.zeros_like(m.first), -0.5 * m.scatter, 0.5 * self.d * m.count, m.first, square, zero
        )

    def covariances(self, c: Prepared) -> Array:
        return c.unroot[:, :, None] ** 2 * jnp.eye(self.d, dtype=c.unroot.dtype)

    def marginals(self, state: MultivariateNormalGammaState) -> MultivariateNormalGammaState:
        return state


STRUCTURES: dict[str, type[Structure]] = {
    "full": Full,
    "tied": Tied,
    "diag": Diagonal,
    "spherical": Spherical,
}
