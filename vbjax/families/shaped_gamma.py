"""ShapedGamma: the shape of a Gamma distribution, a point, and its rate, a Gamma whatever the shape is.

A family as those of `families`, for `gamma_mixture.py`: shapes have no conjugate prior, so they climb.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from vbjax.families.base import Family, State, Statistics, pytree
from vbjax.families.gamma import GammaState, GammaStatistics, gamma_base_entropy, gamma_log_density
from vbjax.families.newton import step_gamma_shape
from vbjax.numerics.special import LOG_2PI, digamma_remainder, gammaln_remainder

MOST = 1e4  # of a shape: rows as like one another as float32 can tell


class ShapeRate(NamedTuple):
    """A value, mean or variance of a shape s and a rate lambda."""

    row_shape: Array
    rate: Array


@pytree
class ShapedGammaStatistics(Statistics):
    """Of s, and nu = lambda / s, one over the mean: what is linear in log Gamma(x | s, s nu).

        value E[nu],   log E[log nu],   rate s E[nu],   row_shape s,
        normalizer s (E[log nu] + log s + log m - 1) - log Gamma(s), about the pivot m, a mean of x;

    then log p(x) = normalizer + row_shape (1 + log x / m) - rate x - log x. `base` is -E[log lambda].
    """

    pivot: Array
    value: Array
    log: Array
    rate: Array
    row_shape: Array
    normalizer: Array
    base: Array
    events = dict(value=0, log=0, rate=0, row_shape=0, normalizer=0)

    def about(self, pivot: Array) -> ShapedGammaStatistics:
        normalizer = self.normalizer + self.row_shape * jnp.log(pivot / self.pivot)
        return dataclasses.replace(self, pivot=pivot, normalizer=normalizer)


@pytree
class ShapedGammaState(State):
    """The shape `row_shape`, and the rate Gamma(concentration, rate)."""

    row_shape: Array
    concentration: Array
    rate: Array
    domains = dict(row_shape="positive", concentration="positive", rate="positive")

    @property
    def rates(self) -> GammaState:
        """The marginal of the rate."""
        return GammaState(self.concentration, self.rate)

    def _statistics(self, rate: Array, log_excess: ArrayLike) -> ShapedGammaStatistics:
        """From the mean of lambda, and E[log lambda] less its logarithm."""
        s = jnp.broadcast_to(self.row_shape, rate.shape)
        log = jnp.log(rate) + log_excess
        normalizer = 0.5 * (jnp.log(s) - LOG_2PI) - gammaln_remainder(s) + s * log_excess
        return ShapedGammaStatistics(s / rate, rate / s, log - jnp.log(s), rate, s, normalizer, -log)

    def statistics(self, x: ShapeRate) -> ShapedGammaStatistics:
        return dataclasses.replace(self, row_shape=x.row_shape)._statistics(x.rate, 0.0)

    def expected(self) -> ShapedGammaStatistics:
        return self._statistics(self.rates.mean, digamma_remainder(self.concentration))

    def at_mode(self) -> ShapedGammaStatistics:
        return self._statistics(self.rates.at_mode().value, 0.0)

    def log_density(self, statistics: ShapedGammaStatistics) -> Array:
        """Of the rate; a point has none."""
        nu = GammaStatistics(statistics.value, statistics.log, statistics.base)
        return gamma_log_density(nu, self.concentration, self.rate * self.row_shape)

    def base_entropy(self) -> Array:
        return gamma_base_entropy(self.concentration)

    @property
    def mean(self) -> ShapeRate:
        return ShapeRate(self.row_shape, self.rates.mean)

    @property
    def variance(self) -> ShapeRate:
        return ShapeRate(jnp.zeros_like(self.row_shape), self.rates.variance)

    @property
    def mode(self) -> ShapeRate:
        return ShapeRate(self.row_shape, self.rates.mode)

    def draw(self, key: Array, shape: tuple[int, ...]) -> ShapeRate:
        rate = self.rates.draw(key, shape)
        return ShapeRate(jnp.broadcast_to(self.row_shape, rate.shape), rate)


@dataclasses.dataclass(frozen=True)
class ShapedGamma(Family):
    """A shape and a rate for each cell of `plate`; `point`: whether the rate is a point too (`Delta`)."""

    point: bool = False

    def neutral(self, dtype: DTypeLike) -> ShapedGammaState:
        two = jnp.full(self.plate, 2.0, dtype)
        return ShapedGammaState(jnp.ones(self.plate, dtype), two, two)

    def from_gradient(
        self, statistics: ShapedGammaStatistics, gradient: ShapedGammaStatistics, weight: ArrayLike = 1.0
    ) -> ShapedGammaState:
        """A step of the shape, its rate optimised away; then the rate's update, nu ~ Gamma(a + N s, b + s T).

        N and T are the number of rows and their total.
        """
        a, b = (gradient.log + (weight - gradient.base)) / weight, -gradient.value / weight
        number, total = gradient.normalizer / weight, -gradient.rate / weight
        log = gradient.row_shape / weight - number  # the sum of log x / m
        m = statistics.pivot
        s = step_gamma_shape(
            statistics.row_shape, a, b / m, number, total / m, log, point=self.point, most=MOST
        )
        return ShapedGammaState(s, a + number * s, (b + s * total) / s)

    def mix(self, state: ShapedGammaState, other: ShapedGammaState, rho: ArrayLike) -> ShapedGammaState:
        """Natural parameters of the rates; shapes in their logarithms."""
        between = lambda x, y: (1 - rho) * x + rho * y
        s = jnp.exp(between(jnp.log(state.row_shape), jnp.log(other.row_shape)))
        concentration = between(state.concentration, other.concentration)
        return ShapedGammaState(s, concentration, between(state.rate, other.rate))
