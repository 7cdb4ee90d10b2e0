"""NormalGamma: a scalar location and its precision, m | tau ~ N(m0, 1 / (beta tau)), tau ~ Gamma(a, b)."""

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
from vbjax.families.joint import JointFamily, JointGammaState, JointStatistics, increment
from vbjax.numerics.special import LOG_2PI, itakura_saito


@pytree
class NormalGammaStatistics(JointStatistics):
    """Statistics E[tau], E[log tau], E[tau (m - c)], E[tau (m - c)^2]; `base` is -E[log tau] / 2.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.NormalGammaState(jnp.array(5.0), jnp.array(4.0), jnp.array(6.0), jnp.array(2.0))
    >>> print(q.expected().precision, q.expected().square)  # E[tau], and E[tau (m - 5)^2] = 1 / 4
    3.0 0.25
    """

    events = {"precision": 0, "logdet": 0, "cross": 0, "square": 0}

    @classmethod
    def of(cls, x: LocationPrecision) -> NormalGammaStatistics:
        """Return the statistics of a pair of values (location, precision)."""
        location, precision = jnp.broadcast_arrays(*map(jnp.asarray, x))
        zero, logdet = jnp.zeros_like(location), jnp.log(precision)
        return cls(location, precision, logdet, zero, zero, -0.5 * logdet)

    def about(self, pivot: Array) -> NormalGammaStatistics:
        cross = self.cross + self.precision * (self.pivot - pivot)
        return dataclasses.replace(self, pivot=pivot, cross=cross, square=self.square_about(pivot))

    def square_about(self, x: Array) -> Array:
        """Return E[tau (x - m)^2]."""
        shift = x - self.pivot
        return self.precision * shift**2 - 2 * shift * self.cross + self.square


@pytree
class NormalGammaState(JointGammaState[NormalGammaStatistics]):
    """Location N(location, 1 / (mean_precision tau)), tau ~ Gamma(concentration, rate).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.NormalGammaState(jnp.array(0.0), jnp.array(1.0), jnp.array(1.0), jnp.array(1.0))
    >>> print(f"{q.quantile(0.95).location:.3f}")  # Student's t with two degrees of freedom
    2.920
    """

    def statistics(self, x: LocationPrecision) -> NormalGammaStatistics:
        return NormalGammaStatistics.of(x)

    def expected(self) -> NormalGammaStatistics:
        tau, logdet = self.concentration / self.rate, gamma_expected_log(self.concentration, self.rate)
        cross, square = jnp.zeros_like(self.location), 1 / self.mean_precision
        return NormalGammaStatistics(self.location, tau, logdet, cross, square, -0.5 * logdet)

    def log_density(self, statistics: NormalGammaStatistics) -> Float[Array, "*plate"]:
        t = statistics
        location = jnp.log(self.mean_precision) - LOG_2PI
        location = location - self.mean_precision * t.square_about(self.location)
        tau = GammaStatistics(t.precision, t.logdet, t.base)
        return 0.5 * location + gamma_log_density(tau, self.concentration, self.rate)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return 0.5 * (1 + LOG_2PI - jnp.log(self.mean_precision)) + gamma_base_entropy(self.concentration)

    def divergence(self, other: NormalGammaState) -> Float[Array, "*plate"]:
        square = other.mean_precision * self.precision.mean * (self.location - other.location) ** 2
        location = 0.5 * (itakura_saito(other.mean_precision / self.mean_precision) + square)
        return location + self.precision.divergence(other.precision)

    @property
    def variance(self) -> LocationPrecision:
        return LocationPrecision(self.spread / self.mean_precision, self.precision.variance)

    @property
    def mode(self) -> LocationPrecision:
        return LocationPrecision(self.location, jnp.maximum(self.concentration - 0.5, 0) / self.rate)

    def draw(self, key: Array, shape: tuple[int, ...]) -> LocationPrecision:
        key_tau, key_location = jax.random.split(key)
        tau = self.precision.draw(key_tau, shape)
        shape = shape + self.location.shape
        draws = jax.random.normal(key_location, shape, self.location.dtype)
        return LocationPrecision(self.location + draws / jnp.sqrt(self.mean_precision * tau), tau)


@dataclasses.dataclass(frozen=True)
class NormalGamma(JointFamily[NormalGammaState, NormalGammaStatistics]):
    """Scalar location and its precision for each cell of `plate`.

    >>> import jax, vbjax as vb
    >>> prior = lambda s: vb.terms.normal_gamma(s, 0.0, 2.0, 3.0, 4.0)
    >>> t = vb.NormalGamma().neutral("float32").expected()
    >>> vb.NormalGamma().from_gradient(t, jax.grad(prior)(t))
    NormalGammaState(location=0, mean_precision=2, concentration=3, rate=4)
    """

    curvature: ClassVar[str | None] = "square"

    @property
    def base_exponent(self) -> float:
        return -0.5

    def neutral(self, dtype: DTypeLike) -> NormalGammaState:
        one = jnp.ones(self.plate, dtype)
        return NormalGammaState(jnp.zeros(self.plate, dtype), one, one, one)

    def from_gradient(
        self, statistics: NormalGammaStatistics, gradient: NormalGammaStatistics, weight: ArrayLike = 1.0
    ) -> NormalGammaState:
        """Return the state at the gradient, in natural parameters about the pivot c.

        beta = -2 g_square, m = c + g_cross / beta, a = g_logdet, b = -g_precision - beta (m - c)^2 / 2.
        """
        beta = -2 * gradient.square
        shift = increment(gradient.cross, beta)
        a = gradient.logdet + 0.5 * (weight - gradient.base)
        b = -gradient.precision - 0.5 * beta * shift**2
        return NormalGammaState(statistics.pivot + shift, beta / weight, a / weight, b / weight)
