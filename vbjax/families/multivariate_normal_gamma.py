"""MultivariateNormalGamma: a vector location under one scalar precision.

m | tau ~ N(m0, (tau B)^-1), tau ~ Gamma(a, b): spherical components, and regression.
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
from vbjax.families.gamma import (
    GammaStatistics,
    gamma_base_entropy,
    gamma_expected_log,
    gamma_log_density,
)
from vbjax.families.joint import (
    JointFamily,
    JointGammaState,
    JointStatistics,
    LocationCovariance,
    keep_collinear,
)
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
class MultivariateNormalGammaStatistics(JointStatistics):
    """Statistics E[tau], E[log tau], E[tau (m - c)], E[tau (m - c)(m - c)']; `base` is (D/2 - 1) E[log tau].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> precision = jnp.diag(jnp.array([1.0, 4.0]))
    >>> q = vb.families.MultivariateNormalGammaState(jnp.zeros(2), precision, jnp.array(6.0), jnp.array(2.0))
    >>> print(q.expected().precision, q.expected().square.tolist())  # about the location: B^-1, whatever tau
    3.0 [[1.0, 0.0], [0.0, 0.25]]
    """

    events = {"precision": 0, "logdet": 0, "cross": 1, "square": 2}

    @classmethod
    def of(cls, x: LocationPrecision) -> MultivariateNormalGammaStatistics:
        """Return the statistics of a vector and a positive number."""
        location, precision = map(jnp.asarray, x)
        size, logdet = location.shape[-1], jnp.log(precision)
        zero = jnp.zeros_like(location)
        return cls(location, precision, logdet, zero, outer(zero, zero), (0.5 * size - 1) * logdet)

    def about(self, pivot: Array) -> MultivariateNormalGammaStatistics:
        cross = self.cross + self.precision[..., None] * (self.pivot - pivot)
        return dataclasses.replace(self, pivot=pivot, cross=cross, square=self.scatter_about(pivot))

    def scatter_about(self, x: Array) -> Float[Array, "*plate d d"]:
        """Return E[tau (m - x)(m - x)']."""
        shift = x - self.pivot
        cross = outer(shift, self.cross)
        return self.square - cross - transpose(cross) + self.precision[..., None, None] * outer(shift, shift)

    def square_about(self, x: Float[Array, "*plate_x d"]) -> Float[Array, "*plate"]:
        """Return E[tau |x - m|^2]."""
        shift = x - self.pivot
        trace = jnp.trace(self.square, axis1=-2, axis2=-1)
        return self.precision * (shift**2).sum(-1) - 2 * (shift * self.cross).sum(-1) + trace


@pytree
class MultivariateNormalGammaState(JointGammaState[MultivariateNormalGammaStatistics]):
    """Location N(location, (tau mean_precision)^-1), tau ~ Gamma(concentration, rate).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> precision = jnp.diag(jnp.array([1.0, 4.0]))
    >>> q = vb.families.MultivariateNormalGammaState(jnp.zeros(2), precision, jnp.array(2.0), jnp.array(1.0))
    >>> print(q.variance.location)  # 1 / mean_precision, times E[1 / tau] = rate / (concentration - 1)
    [1.   0.25]
    """

    domains = JointGammaState.domains | dict(mean_precision="definite")

    @property
    def location_scale(self) -> Array:
        return super().location_scale[..., None]

    def statistics(self, x: LocationPrecision) -> MultivariateNormalGammaStatistics:
        return MultivariateNormalGammaStatistics.of(x)

    def expected(self) -> MultivariateNormalGammaStatistics:
        tau, logdet = self.concentration / self.rate, gamma_expected_log(self.concentration, self.rate)
        cross, square = jnp.zeros_like(self.location), inverse_from_cholesky(cholesky(self.mean_precision))
        base = (0.5 * self.location.shape[-1] - 1) * logdet
        return MultivariateNormalGammaStatistics(self.location, tau, logdet, cross, square, base)

    def log_density(self, statistics: MultivariateNormalGammaStatistics) -> Float[Array, "*plate"]:
        t, size = statistics, self.location.shape[-1]
        quadratic = (self.mean_precision * t.scatter_about(self.location)).sum((-1, -2))
        location = logdet_from_cholesky(cholesky(self.mean_precision)) - size * LOG_2PI - quadratic
        tau = GammaStatistics(t.precision, t.logdet, t.base)
        return 0.5 * location + gamma_log_density(tau, self.concentration, self.rate)

    def base_entropy(self) -> Float[Array, "*plate"]:
        size = self.location.shape[-1]
        location = size * (1 + LOG_2PI) - logdet_from_cholesky(cholesky(self.mean_precision))
        return 0.5 * location + gamma_base_entropy(self.concentration)

    def divergence(self, other: MultivariateNormalGammaState) -> Float[Array, "*plate"]:
        square = quadratic_form(other.mean_precision, self.location - other.location)
        spread = stein_loss(cholesky(self.mean_precision), cholesky(other.mean_precision))
        return 0.5 * (spread + self.precision.mean * square) + self.precision.divergence(other.precision)

    @property
    def covariance(self) -> LocationPrecision:
        location = self.spread[..., None, None] * inverse_from_cholesky(cholesky(self.mean_precision))
        return LocationPrecision(location, self.precision.variance)

    @property
    def mode(self) -> LocationPrecision:
        excess = self.concentration - 1 + 0.5 * self.location.shape[-1]
        return LocationPrecision(self.location, jnp.maximum(excess, 0) / self.rate)

    def draw(self, key: Array, shape: tuple[int, ...]) -> LocationPrecision:
        key_tau, key_location = jax.random.split(key)
        tau = self.precision.draw(key_tau, shape)
        draws = jax.random.normal(key_location, shape + self.location.shape, self.location.dtype)
        noise = solve_lower(cholesky(self.mean_precision), draws[..., None], transposed=True)[..., 0]
        return LocationPrecision(self.location + noise / jnp.sqrt(tau)[..., None], tau)


@dataclasses.dataclass(frozen=True)
class MultivariateNormalGamma(JointFamily[MultivariateNormalGammaState, MultivariateNormalGammaStatistics]):
    """Vector location of `size` under one scalar precision for each cell of `plate`.

    >>> import vbjax as vb
    >>> q = vb.MultivariateNormalGamma(2, plate=(3,)).neutral("float32")
    >>> q.mean.location.shape, q.mean.precision.shape
    ((3, 2), (3,))
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 1
    curvature: ClassVar[str | None] = "square"

    @property
    def base_exponent(self) -> float:
        return 0.5 * self.size - 1

    def neutral(self, dtype: DTypeLike) -> MultivariateNormalGammaState:
        eye = jnp.broadcast_to(jnp.eye(self.size, dtype=dtype), (*self.plate, self.size, self.size))
        one = jnp.ones(self.plate, dtype)
        return MultivariateNormalGammaState(jnp.zeros((*self.plate, self.size), dtype), eye, one, one)

    def from_gradient(
        self,
        statistics: MultivariateNormalGammaStatistics,
        gradient: MultivariateNormalGammaStatistics,
        weight: ArrayLike = 1.0,
    ) -> MultivariateNormalGammaState:
        """Return the state at the gradient, in natural parameters about the pivot c.

        B = -2 G_square, m = c + B^-1 g_cross, a = g_logdet, b = -g_precision - (m - c)' B (m - c) / 2.
        """
        weight = jnp.asarray(weight)
        spread = symmetrize(-2 * gradient.square)
        half, shift = solve_pull(spread, gradient.cross[..., None])
        a = gradient.logdet + (1 - 0.5 * self.size) * (weight - gradient.base)
        b = -gradient.precision - 0.5 * (half**2).sum((-1, -2))
        return MultivariateNormalGammaState(
            statistics.pivot + shift[..., 0], spread / weight[..., None, None], a / weight, b / weight
        )

    def maximise(
        self, statistics: MultivariateNormalGammaStatistics, gradient: MultivariateNormalGammaStatistics
    ) -> LocationCovariance:
        return super().maximise(statistics, keep_collinear(gradient))
