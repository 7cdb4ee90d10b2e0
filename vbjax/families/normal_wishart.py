"""NormalWishart: a vector location and its precision matrix (Bishop 2006, eq. 2.157).

m | Lam ~ N(m0, (beta Lam)^-1), Lam ~ Wishart(nu, W).
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
from vbjax.families.joint import JointFamily, JointStatistics, JointWishartState, increment
from vbjax.families.wishart import (
    sample_wishart_roots,
    wishart_base_entropy,
    wishart_expected,
    wishart_from_roots,
    wishart_log_density,
)
from vbjax.numerics.linalg import (
    cholesky,
    logdet_from_cholesky,
    outer,
    quadratic_form,
    solve_lower,
    symmetrize,
)
from vbjax.numerics.special import LOG_2PI, itakura_saito


@pytree
class NormalWishartStatistics(JointStatistics):
    """Statistics E[Lam], E[log det Lam], E[Lam (m - c)], E[(m - c)' Lam (m - c)]; `base` -D/2 E[log det Lam].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.NormalWishartState(jnp.zeros(2), jnp.array(4.0), jnp.array(5.0), jnp.eye(2))
    >>> print(q.expected().square)  # about the location: D / mean_precision
    0.5
    """

    events = {"precision": 2, "logdet": 0, "cross": 1, "square": 0}
    point_domains = dict(location="location", covariance="definite")

    @classmethod
    def of(cls, x: LocationPrecision) -> NormalWishartStatistics:
        """Return the statistics of a vector and a positive definite matrix."""
        location, precision = map(jnp.asarray, x)
        logdet = logdet_from_cholesky(cholesky(precision))
        base = -0.5 * location.shape[-1] * logdet
        return cls(location, precision, logdet, jnp.zeros_like(location), jnp.zeros_like(logdet), base)

    def about(self, pivot: Array) -> NormalWishartStatistics:
        cross = self.cross + jnp.einsum("...ij,...j->...i", self.precision, self.pivot - pivot)
        return dataclasses.replace(self, pivot=pivot, cross=cross, square=self.square_about(pivot))

    def square_about(self, x: Float[Array, "*plate_x d"]) -> Float[Array, "*plate"]:
        """Return E[(x - m)' Lam (x - m)], at the expected statistics of a state Bishop 2006, eq. 10.64."""
        shift = x - self.pivot
        return quadratic_form(self.precision, shift) - 2 * (shift * self.cross).sum(-1) + self.square


@pytree
class NormalWishartState(JointWishartState[NormalWishartStatistics]):
    """Location N(location, (mean_precision Lam)^-1), Lam ~ Wishart(degrees_of_freedom, W).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.NormalWishartState(jnp.zeros(2), jnp.array(1.0), jnp.array(4.0), 2 * jnp.eye(2))
    >>> print(q.mean.precision.round(3))  # degrees_of_freedom W
    [[2. 0.]
     [0. 2.]]
    """

    def statistics(self, x: LocationPrecision) -> NormalWishartStatistics:
        return NormalWishartStatistics.of(x)

    def expected(self) -> NormalWishartStatistics:
        value, logdet = wishart_expected(self.degrees_of_freedom, self.inverse_scale)
        size, cross = self.location.shape[-1], jnp.zeros_like(self.location)
        square, base = size / self.mean_precision, -0.5 * size * logdet
        return NormalWishartStatistics(self.location, value, logdet, cross, square, base)

    def log_density(self, statistics: NormalWishartStatistics) -> Float[Array, "*plate"]:
        t, size = statistics, self.location.shape[-1]
        location = size * (jnp.log(self.mean_precision) - LOG_2PI)
        location = location - self.mean_precision * t.square_about(self.location)
        return 0.5 * location + wishart_log_density(
            t.precision, t.logdet, self.degrees_of_freedom, self.inverse_scale
        )

    def base_entropy(self) -> Float[Array, "*plate"]:
        size = self.location.shape[-1]
        location = 0.5 * size * (1 + LOG_2PI - jnp.log(self.mean_precision))
        return location + wishart_base_entropy(self.degrees_of_freedom, size)

    def divergence(self, other: NormalWishartState) -> Float[Array, "*plate"]:
        spread = self.location.shape[-1] * itakura_saito(other.mean_precision / self.mean_precision)
        square = quadratic_form(self.precision.mean, self.location - other.location)
        return 0.5 * (spread + other.mean_precision * square) + self.precision.divergence(other.precision)

    @property
    def covariance(self) -> LocationPrecision:
        location = self.spread / self.mean_precision[..., None, None]
        return LocationPrecision(location, self.precision.covariance)

    @property
    def mode_factor(self) -> Array:
        return self.degrees_of_freedom - self.location.shape[-1]

    def draw(self, key: Array, shape: tuple[int, ...]) -> LocationPrecision:
        key_precision, key_location = jax.random.split(key)
        root, bartlett = sample_wishart_roots(
            key_precision, self.degrees_of_freedom, self.inverse_scale, shape
        )
        draws = jax.random.normal(key_location, shape + self.location.shape, self.location.dtype)
        # Lam^-1 = (L B^-T)(L B^-T)'
        noise = root @ solve_lower(bartlett, draws[..., None], transposed=True)
        location = self.location + noise[..., 0] / jnp.sqrt(self.mean_precision)[..., None]
        return LocationPrecision(location, wishart_from_roots(root, bartlett))


@dataclasses.dataclass(frozen=True)
class NormalWishart(JointFamily[NormalWishartState, NormalWishartStatistics]):
    """Vector location of `size` and its precision matrix for each cell of `plate`.

    >>> import vbjax as vb
    >>> q = vb.NormalWishart(2, plate=(3,)).neutral("float32")
    >>> q.mean.location.shape, q.mean.precision.shape
    ((3, 2), (3, 2, 2))
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 1
    curvature: ClassVar[str | None] = "square"

    @property
    def base_exponent(self) -> float:
        return -0.5 * self.size

    def neutral(self, dtype: DTypeLike) -> NormalWishartState:
        eye = jnp.broadcast_to(jnp.eye(self.size, dtype=dtype), (*self.plate, self.size, self.size))
        nu = jnp.full(self.plate, self.size + 1, dtype)
        location = jnp.zeros((*self.plate, self.size), dtype)
        return NormalWishartState(location, jnp.ones(self.plate, dtype), nu, nu[..., None, None] * eye)

    def from_gradient(
        self,
        statistics: NormalWishartStatistics,
        gradient: NormalWishartStatistics,
        weight: ArrayLike = 1.0,
    ) -> NormalWishartState:
        """Return the state at the gradient, in natural parameters about the pivot c.

        beta = -2 g_square, m = c + g_cross / beta, nu = 2 g_logdet, W^-1 = -2 G - beta (m - c)(m - c)'. With
        the gradient of a Gaussian mixture these are Bishop 2006, eq. 10.60 (beta), 10.61 (m), 10.62 (W^-1)
        and 10.63 (nu).
        """
        weight = jnp.asarray(weight)
        beta = -2 * gradient.square
        shift = increment(gradient.cross, beta[..., None])
        nu = 2 * gradient.logdet + self.size * (weight - gradient.base)
        inverse_scale = symmetrize(-2 * gradient.precision) - beta[..., None, None] * outer(shift, shift)
        return NormalWishartState(
            statistics.pivot + shift, beta / weight, nu / weight, inverse_scale / weight[..., None, None]
        )
