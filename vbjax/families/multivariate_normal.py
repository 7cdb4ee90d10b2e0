"""MultivariateNormal: statistics x - c and (x - c)(x - c)' about a pivot c, state (mean, precision)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, Statistics, pytree
from vbjax.families.normal import NormalState
from vbjax.numerics.linalg import (
    cholesky,
    inverse_from_cholesky,
    logdet_from_cholesky,
    outer,
    quadratic_form,
    solve_lower,
    solve_pull,
    stein_loss,
    symmetrize,
    transpose,
)
from vbjax.numerics.special import LOG_2PI


@pytree
class MultivariateNormalStatistics(Statistics):
    """Statistics E[x - c] and E[(x - c)(x - c)'] about the constant pivot c.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> t = vb.families.MultivariateNormalStatistics.of([1.0, 2.0])
    >>> print(t.second.tolist(), t.about(jnp.zeros(2)).second.tolist())
    [[0.0, 0.0], [0.0, 0.0]] [[1.0, 2.0], [2.0, 4.0]]
    """

    pivot: Float[Array, "*plate d"]
    first: Float[Array, "*plate d"]
    second: Float[Array, "*plate d d"]
    events = {"first": 1, "second": 2}
    point_domains = {"value": "location"}

    @classmethod
    def of(cls, x: ArrayLike) -> MultivariateNormalStatistics:
        """Return the statistics of a vector: the vector as the pivot, and no deviation from it."""
        x = jnp.asarray(x)
        return cls(x, jnp.zeros_like(x), jnp.zeros((*x.shape, x.shape[-1]), x.dtype))

    @property
    def mean(self) -> Array:
        """E[x], which does not depend on the pivot."""
        return self.pivot + self.first

    def about(self, pivot: Array) -> MultivariateNormalStatistics:
        shift = self.pivot - pivot
        return MultivariateNormalStatistics(pivot, self.first + shift, self.scatter_about(pivot))

    def location_scale(self, point: Array) -> Float[Array, "*plate d"]:
        precision = -2 * jnp.diagonal(self.second, axis1=-2, axis2=-1)
        return jnp.sqrt(1 / jnp.where(precision > 0, precision, 1))

    def scatter_about(self, x: ArrayLike) -> Float[Array, "*plate d d"]:
        """Return E[(z - x)(z - x)']."""
        shift = self.pivot - x
        cross = outer(self.first, shift)
        return self.second + cross + transpose(cross) + outer(shift, shift)


@pytree
class MultivariateNormalState(State[MultivariateNormalStatistics]):
    """Normal distribution N(mean, precision^-1) over the last axis.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.MultivariateNormalState(jnp.zeros(2), jnp.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> print(q.covariance.round(3))
    [[ 0.66700006 -0.333     ]
     [-0.333       0.66700006]]
    """

    mean: Float[Array, "*plate d"]  # type: ignore[assignment]
    precision: Float[Array, "*plate d d"]
    domains = {"mean": "location", "precision": "definite"}

    @property
    def location_scale(self) -> Float[Array, "*plate d"]:
        """Standard deviation of each axis given the others."""
        return 1 / jnp.sqrt(jnp.diagonal(self.precision, axis1=-2, axis2=-1))

    def statistics(self, x: ArrayLike) -> MultivariateNormalStatistics:
        return MultivariateNormalStatistics.of(x)

    def expected(self) -> MultivariateNormalStatistics:
        return MultivariateNormalStatistics(self.mean, jnp.zeros_like(self.mean), self.covariance)

    def log_density(self, statistics: MultivariateNormalStatistics) -> Float[Array, "*plate"]:
        square = (self.precision * statistics.scatter_about(self.mean)).sum((-1, -2))
        return 0.5 * (logdet_from_cholesky(cholesky(self.precision)) - self.mean.shape[-1] * LOG_2PI - square)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return 0.5 * (self.mean.shape[-1] * (1 + LOG_2PI) - logdet_from_cholesky(cholesky(self.precision)))

    def divergence(self, other: MultivariateNormalState) -> Float[Array, "*plate"]:
        square = quadratic_form(other.precision, self.mean - other.mean)
        return 0.5 * (stein_loss(cholesky(self.precision), cholesky(other.precision)) + square)

    @property
    def variance(self) -> Float[Array, "*plate d"]:
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def covariance(self) -> Float[Array, "*plate d d"]:
        return inverse_from_cholesky(cholesky(self.precision))

    @property
    def mode(self) -> Float[Array, "*plate d"]:
        return self.mean

    def quantile(self, p: ArrayLike) -> Array:
        """Return the value of each axis below which a share `p` of its mass lies."""
        return NormalState(self.mean, 1 / self.variance).quantile(p)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws d"]:
        draws = jax.random.normal(key, shape + self.mean.shape, self.mean.dtype)
        return self.mean + solve_lower(cholesky(self.precision), draws[..., None], transposed=True)[..., 0]


@dataclasses.dataclass(frozen=True)
class MultivariateNormal(Family[MultivariateNormalState, MultivariateNormalStatistics]):
    """Real vector of `size` for each cell of `plate`: q = N(mean, precision^-1).

    >>> import vbjax as vb
    >>> vb.MultivariateNormal(2, plate=(3,)).neutral("float32").covariance.shape  # three vectors
    (3, 2, 2)
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 1
    curvature: ClassVar[str | None] = "second"

    def neutral(self, dtype: DTypeLike) -> MultivariateNormalState:
        eye = jnp.broadcast_to(jnp.eye(self.size, dtype=dtype), (*self.plate, self.size, self.size))
        return MultivariateNormalState(jnp.zeros((*self.plate, self.size), dtype), eye)

    def from_gradient(
        self,
        statistics: MultivariateNormalStatistics,
        gradient: MultivariateNormalStatistics,
        weight: ArrayLike = 1.0,
    ) -> MultivariateNormalState:
        """Return the state with precision = -2 G2 and mean = c + precision^-1 g1.

        For the weights of a linear regression this is Bishop 2006, eq. 10.100 and 10.101.
        """
        precision = symmetrize(-2 * gradient.second)
        shift = solve_pull(precision, gradient.first[..., None])[1][..., 0]
        return MultivariateNormalState(
            statistics.pivot + shift, precision / jnp.asarray(weight)[..., None, None]
        )
