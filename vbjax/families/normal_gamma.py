"""NormalGamma: a scalar location and its precision, m | tau ~ N(m0, 1 / (beta tau)), tau ~ Gamma(a, b)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import LocationPrecision, pytree, read_share
from vbjax.families.beta import BetaState
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
    """E[tau], E[log tau], E[tau (m - c)], E[tau (m - c)^2]; `base` is -E[log tau] / 2."""

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
    """Location N(location, 1 / (mean_precision tau)), tau ~ Gamma(concentration, rate)."""

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

    def quantile(self, p: ArrayLike) -> LocationPrecision:
        """Return quantiles of both marginals: Student-t for the location, Gamma for the precision."""
        p, a = jnp.broadcast_arrays(read_share(p, self.concentration), self.concentration)
        t = _standard_t_quantile(2 * a, p)
        location = self.location + t * jnp.sqrt(self.rate / (self.concentration * self.mean_precision))
        return LocationPrecision(location, self.precision.quantile(p))

    def draw(self, key: Array, shape: tuple[int, ...]) -> LocationPrecision:
        key_tau, key_location = jax.random.split(key)
        tau = self.precision.draw(key_tau, shape)
        shape = shape + self.location.shape
        draws = jax.random.normal(key_location, shape, self.location.dtype)
        return LocationPrecision(self.location + draws / jnp.sqrt(self.mean_precision * tau), tau)


def _standard_t_quantile(df: Array, p: Array) -> Array:
    """Return a quantile of Student's t by that of a Beta, or by an expansion about the normal's.

    For a large df the Beta's quantile loses digits, and the expansion is exact. Abramowitz & Stegun (1964),
    eq. 26.5.27 and 26.7.5.
    """
    large = 1e2 if p.dtype.itemsize == 4 else 1e5
    a, half, tail = 0.5 * jnp.minimum(df, large), jnp.full_like(df, 0.5), jnp.minimum(p, 1 - p)
    # t^2 / (df + t^2) ~ Beta(1/2, a): read from its own tail in the middle, from the other one far out
    far = tail < 0.25
    share = BetaState(jnp.where(far, a, half), jnp.where(far, half, a))
    x = share.quantile(jnp.where(far, 2 * tail, 1 - 2 * tail))
    t = jnp.sign(p - 0.5) * jnp.sqrt(2 * a * jnp.where(far, (1 - x) / x, x / (1 - x)))
    z, v = ndtri(p), 1 / df
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 + v * (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return jnp.where(df > large, z + v * ((z**3 + z) / 4 + v * second), t)


@dataclasses.dataclass(frozen=True)
class NormalGamma(JointFamily[NormalGammaState, NormalGammaStatistics]):
    """Scalar location and its precision for each cell of `plate`."""

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
