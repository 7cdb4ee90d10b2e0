"""Normal: statistics x - c and (x - c)^2 about a pivot c, state (mean, precision)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike, DTypeLike

from vbjax.families.base import Family, State, Statistics, pytree, read_share
from vbjax.numerics.special import LOG_2PI, itakura_saito


@pytree
class NormalStatistics(Statistics):
    """E[x - c] and E[(x - c)^2] about the constant pivot c. Sums are of independent factors, or values."""

    pivot: Array
    first: Array
    second: Array
    events = {"first": 0, "second": 0}
    __array_ufunc__ = None  # so that array + statistics comes to __radd__

    @classmethod
    def of(cls, x: ArrayLike) -> NormalStatistics:
        """The statistics of a value: itself as the pivot, no deviation."""
        x = jnp.asarray(x)
        return cls(x, jnp.zeros_like(x), jnp.zeros_like(x))

    @property
    def mean(self) -> Array:
        """E[x], wherever the pivot is."""
        return self.pivot + self.first

    def __add__(self, other: Any) -> NormalStatistics:
        if not isinstance(other, NormalStatistics):
            other = NormalStatistics.of(other)
        second = self.second + other.second + 2 * self.first * other.first
        return NormalStatistics(self.pivot + other.pivot, self.first + other.first, second)

    __radd__ = __add__

    def __mul__(self, factor: ArrayLike) -> NormalStatistics:
        """Of the latent times a value: a sign, a unit."""
        factor = jnp.asarray(factor)
        return NormalStatistics(factor * self.pivot, factor * self.first, factor**2 * self.second)

    __rmul__ = __mul__

    def about(self, pivot: Array) -> NormalStatistics:
        shift = self.pivot - pivot
        return NormalStatistics(pivot, self.first + shift, self.square_about(pivot))

    def square_about(self, x: ArrayLike) -> Array:
        """E[(z - x)^2]."""
        shift = self.pivot - x
        return self.second + 2 * shift * self.first + shift**2


@pytree
class NormalState(State):
    """N(mean, 1 / precision)."""

    mean: Array  # type: ignore[assignment]
    precision: Array
    domains = {"mean": "location", "precision": "positive"}

    @property
    def location_scale(self) -> Array:
        """The standard deviation."""
        return jnp.sqrt(1 / self.precision)

    def statistics(self, x: ArrayLike) -> NormalStatistics:
        return NormalStatistics.of(x)

    def expected(self) -> NormalStatistics:
        return NormalStatistics(self.mean, jnp.zeros_like(self.mean), 1 / self.precision)

    def log_density(self, statistics: NormalStatistics) -> Array:
        square = statistics.square_about(self.mean)
        return 0.5 * (jnp.log(self.precision) - LOG_2PI - self.precision * square)

    def base_entropy(self) -> Array:
        return 0.5 * (1 + LOG_2PI - jnp.log(self.precision))

    def divergence(self, other: NormalState) -> Array:
        square = other.precision * (self.mean - other.mean) ** 2
        return 0.5 * (itakura_saito(other.precision / self.precision) + square)

    @property
    def variance(self) -> Array:
        return 1 / self.precision

    @property
    def mode(self) -> Array:
        return self.mean

    def quantile(self, p: ArrayLike) -> Array:
        """The value below which a share `p` of the mass lies."""
        return self.mean + self.sd * ndtri(read_share(p, self.mean))

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        draws = jax.random.normal(key, shape + self.mean.shape, self.mean.dtype)
        return self.mean + self.sd * draws


@dataclasses.dataclass(frozen=True)
class Normal(Family):
    """A real latent for each cell of `plate`: q = N(mean, 1 / precision)."""

    curvature: ClassVar[str | None] = "second"

    def neutral(self, dtype: DTypeLike) -> NormalState:
        return NormalState(jnp.zeros(self.plate, dtype), jnp.ones(self.plate, dtype))

    def from_gradient(
        self, statistics: NormalStatistics, gradient: NormalStatistics, weight: ArrayLike = 1.0
    ) -> NormalState:
        """precision = -2 g2, mean = c + g1 / precision (where nothing pulls, the mean stays at c)."""
        precision = -2 * gradient.second
        pull = jnp.where(precision == 0, 0, gradient.first / jnp.where(precision == 0, 1, precision))
        return NormalState(statistics.pivot + pull, precision / weight)
