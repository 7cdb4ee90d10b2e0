"""MatrixNormalWishart: q vector locations that share one precision matrix.

M (q, D) | Lam ~ MN(M0, R^-1, Lam^-1), Lam ~ Wishart(nu, W): tied covariances, switching autoregressions.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import LocationPrecision, pytree
from vbjax.families.joint import (
    JointFamily,
    JointStatistics,
    JointWishartState,
    LocationCovariance,
    keep_collinear,
)
from vbjax.families.wishart import (
    sample_wishart_roots,
    wishart_base_entropy,
    wishart_expected,
    wishart_from_roots,
    wishart_log_density,
)
from vbjax.numerics.linalg import (
    cholesky,
    inverse_from_cholesky,
    logdet_from_cholesky,
    solve_lower,
    solve_pull,
    stein_loss,
    symmetrize,
    transpose,
)
from vbjax.numerics.special import LOG_2PI


@pytree
class MatrixNormalWishartStatistics(JointStatistics):
    """Statistics E[Lam], E[log det Lam], E[(M - C) Lam] (q, D), E[(M - C) Lam (M - C)'] (q, q).

    `base` is (q - D - 1)/2 E[log det Lam].

    >>> import vbjax as vb
    >>> t = vb.MatrixNormalWishart(rows=3, size=2).neutral("float32").expected()
    >>> print(t.square)  # about the expected location: size times the inverse of `mean_precision`
    [[2. 0. 0.]
     [0. 2. 0.]
     [0. 0. 2.]]
    """

    events = {"precision": 2, "logdet": 0, "cross": 2, "square": 2}
    point_domains = dict(location="location", covariance="definite")

    @classmethod
    def of(cls, x: LocationPrecision) -> MatrixNormalWishartStatistics:
        """Return the statistics of q vectors and a positive definite matrix."""
        location, precision = map(jnp.asarray, x)
        (rows, size), logdet = location.shape[-2:], logdet_from_cholesky(cholesky(precision))
        square = jnp.zeros((*location.shape[:-1], rows), location.dtype)
        base = 0.5 * (rows - size - 1) * logdet
        return cls(location, precision, logdet, jnp.zeros_like(location), square, base)

    def about(self, pivot: Array) -> MatrixNormalWishartStatistics:
        cross = self.cross + (self.pivot - pivot) @ self.precision
        return dataclasses.replace(self, pivot=pivot, cross=cross, square=self.scatter_about(pivot))

    def scatter_about(self, x: Array) -> Float[Array, "*plate q q"]:
        """Return E[(M - x) Lam (M - x)'], (q, q)."""
        shift = x - self.pivot
        cross = shift @ transpose(self.cross)
        return self.square - cross - transpose(cross) + shift @ self.precision @ transpose(shift)

    def square_about(self, x: Float[Array, "*plate_x 1 d"]) -> Float[Array, "*plate q"]:
        """Return E[(x - m_k)' Lam (x - m_k)] of one vector x (..., 1, D) for every location: (..., q)."""
        shift = x - self.pivot
        quadratic = jnp.einsum("...qi,...ij,...qj->...q", shift, self.precision, shift)
        own = jnp.diagonal(self.square, axis1=-2, axis2=-1)
        return quadratic - 2 * (shift * self.cross).sum(-1) + own


@pytree
class MatrixNormalWishartState(JointWishartState[MatrixNormalWishartStatistics]):
    """Locations MN(location, mean_precision^-1, Lam^-1), Lam ~ Wishart(degrees_of_freedom, W).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> weights, rows = jnp.zeros((3, 2)), jnp.diag(jnp.array([1.0, 2.0, 4.0]))
    >>> q = vb.families.MatrixNormalWishartState(weights, rows, jnp.array(4.0), jnp.eye(2))
    >>> print(q.variance.location[:, 0].round(3))  # 1 / rows, times E[Lam^-1] = 1 / (4 - 2 - 1)
    [1.   0.5  0.25]
    """

    domains = JointWishartState.domains | dict(mean_precision="definite")

    @property
    def location_scale(self) -> Array:
        return super().location_scale[..., None, :]

    def statistics(self, x: LocationPrecision) -> MatrixNormalWishartStatistics:
        return MatrixNormalWishartStatistics.of(x)

    def expected(self) -> MatrixNormalWishartStatistics:
        value, logdet = wishart_expected(self.degrees_of_freedom, self.inverse_scale)
        rows, size = self.location.shape[-2:]
        cross = jnp.zeros_like(self.location)
        square = size * inverse_from_cholesky(cholesky(self.mean_precision))
        base = 0.5 * (rows - size - 1) * logdet
        return MatrixNormalWishartStatistics(self.location, value, logdet, cross, square, base)

    def log_density(self, statistics: MatrixNormalWishartStatistics) -> Float[Array, "*plate"]:
        t, (rows, size) = statistics, self.location.shape[-2:]
        quadratic = (self.mean_precision * t.scatter_about(self.location)).sum((-1, -2))
        location = size * logdet_from_cholesky(cholesky(self.mean_precision))
        location = location - rows * size * LOG_2PI - quadratic
        return 0.5 * location + wishart_log_density(
            t.precision, t.logdet, self.degrees_of_freedom, self.inverse_scale
        )

    def base_entropy(self) -> Float[Array, "*plate"]:
        rows, size = self.location.shape[-2:]
        location = rows * (1 + LOG_2PI) - logdet_from_cholesky(cholesky(self.mean_precision))
        return 0.5 * size * location + wishart_base_entropy(self.degrees_of_freedom, size)

    def divergence(self, other: MatrixNormalWishartState) -> Float[Array, "*plate"]:
        shift = self.location - other.location
        square = (other.mean_precision * (shift @ self.precision.mean @ transpose(shift))).sum((-1, -2))
        spread = stein_loss(cholesky(self.mean_precision), cholesky(other.mean_precision))
        return 0.5 * (shift.shape[-1] * spread + square) + self.precision.divergence(other.precision)

    @property
    def mode_factor(self) -> Array:
        rows, size = self.location.shape[-2:]
        return self.degrees_of_freedom - size - 1 + rows

    @property
    def covariance(self) -> LocationPrecision:
        """Covariances of each location (..., q, D, D), and of the precision."""
        rows = inverse_from_cholesky(cholesky(self.mean_precision))
        own = jnp.diagonal(rows, axis1=-2, axis2=-1)[..., None, None]
        return LocationPrecision(own * self.spread[..., None, :, :], self.precision.covariance)

    def draw(self, key: Array, shape: tuple[int, ...]) -> LocationPrecision:
        key_precision, key_location = jax.random.split(key)
        root, bartlett = sample_wishart_roots(
            key_precision, self.degrees_of_freedom, self.inverse_scale, shape
        )
        draws = jax.random.normal(key_location, shape + self.location.shape, self.location.dtype)
        columns = root @ solve_lower(bartlett, transpose(draws), transposed=True)  # (..., D, q), cov Lam^-1
        noise = solve_lower(cholesky(self.mean_precision), transpose(columns), transposed=True)
        return LocationPrecision(self.location + noise, wishart_from_roots(root, bartlett))


@dataclasses.dataclass(frozen=True)
class MatrixNormalWishart(JointFamily[MatrixNormalWishartState, MatrixNormalWishartStatistics]):
    """Matrix of `rows` vector locations of `size` under one precision matrix, for each cell of `plate`.

    >>> import vbjax as vb
    >>> point = vb.Delta(vb.MatrixNormalWishart(rows=2, size=1)).at(([[1.0], [2.0]], [[4.0]]))
    >>> print(point.mean.precision)  # of a covariance of 4
    [[0.25]]
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    rows: int = 1
    size: int = 1
    curvature: ClassVar[str | None] = "square"

    @property
    def base_exponent(self) -> float:
        return 0.5 * (self.rows - self.size - 1)

    def neutral(self, dtype: DTypeLike) -> MatrixNormalWishartState:
        def eye(n: int) -> Array:
            return jnp.broadcast_to(jnp.eye(n, dtype=dtype), (*self.plate, n, n))

        nu = jnp.full(self.plate, self.size + 1, dtype)
        location = jnp.zeros((*self.plate, self.rows, self.size), dtype)
        return MatrixNormalWishartState(location, eye(self.rows), nu, nu[..., None, None] * eye(self.size))

    def from_gradient(
        self,
        statistics: MatrixNormalWishartStatistics,
        gradient: MatrixNormalWishartStatistics,
        weight: ArrayLike = 1.0,
    ) -> MatrixNormalWishartState:
        """Return the state at the gradient, in natural parameters about the pivot C.

        R = -2 G_square, M = C + R^-1 G_cross, nu = 2 g_logdet, W^-1 = -2 G - (M - C)' R (M - C).
        """
        weight = jnp.asarray(weight)
        spread = symmetrize(-2 * gradient.square)
        half, shift = solve_pull(spread, gradient.cross)
        nu = 2 * gradient.logdet + (self.size + 1 - self.rows) * (weight - gradient.base)
        inverse_scale = symmetrize(-2 * gradient.precision) - transpose(half) @ half
        return MatrixNormalWishartState(
            statistics.pivot + shift,
            spread / weight[..., None, None],
            nu / weight,
            inverse_scale / weight[..., None, None],
        )

    def maximise(
        self, statistics: MatrixNormalWishartStatistics, gradient: MatrixNormalWishartStatistics
    ) -> LocationCovariance:
        return super().maximise(statistics, keep_collinear(gradient))
