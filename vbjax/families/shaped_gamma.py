"""ShapedGamma: the shape of a Gamma distribution as a point, and its rate as a Gamma given any shape.

It serves mixtures of Gamma distributions. A shape has no conjugate prior, so it moves by Newton's steps.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, vanishes
from vbjax.families.gamma import GammaState, GammaStatistics, gamma_base_entropy, gamma_log_density
from vbjax.families.newton import step_gamma_shape
from vbjax.numerics.special import LOG_2PI, digamma_remainder, gammaln_remainder
from vbjax.numerics.stored import stored

MOST = 1e4  # the largest shape: beyond it float32 cannot tell the rows apart


@stored
class ShapeRate(NamedTuple):
    """Value, mean or variance of a shape s and a rate lambda."""

    row_shape: Array
    rate: Array


@pytree
class ShapedGammaStatistics(Statistics):
    """Statistics of s and of nu = lambda / s, one over the mean, in which log Gamma(x | s, s nu) is linear.

        value E[nu],   log E[log nu],   rate s E[nu],   row_shape s,
        normalizer s (E[log nu] + log s + log m - 1) - log Gamma(s), about the pivot m, a mean of x;

    then log p(x) = normalizer + row_shape (1 + log x / m) - rate x - log x. `base` is -E[log lambda].
    """

    pivot: Float[Array, "*plate"]
    value: Float[Array, "*plate"]
    log: Float[Array, "*plate"]
    rate: Float[Array, "*plate"]
    row_shape: Float[Array, "*plate"]
    normalizer: Float[Array, "*plate"]
    base: Float[Array, "*plate"]
    events = dict(value=0, log=0, rate=0, row_shape=0, normalizer=0)
    point_domains = dict(row_shape="positive", rate="positive")

    @classmethod
    def of(cls, x: ShapeRate) -> ShapedGammaStatistics:
        """Return the statistics of a pair of values (row_shape, rate)."""
        return cls.around(x, 0.0)

    @classmethod
    def around(cls, mean: ShapeRate, log_excess: ArrayLike) -> ShapedGammaStatistics:
        """Return statistics from the mean of lambda, and the excess of E[log lambda] over its logarithm."""
        rate, s = mean.rate, jnp.broadcast_to(mean.row_shape, mean.rate.shape)
        log = jnp.log(rate) + log_excess
        normalizer = 0.5 * (jnp.log(s) - LOG_2PI) - gammaln_remainder(s) + s * log_excess
        return cls(s / rate, rate / s, log - jnp.log(s), rate, s, normalizer, -log)

    def at(self, point: ShapeRate) -> ShapedGammaStatistics:
        return self.of(point._replace(rate=jnp.maximum(point.rate, jnp.finfo(point.rate.dtype).tiny)))

    def about(self, pivot: Array) -> ShapedGammaStatistics:
        normalizer = self.normalizer + self.row_shape * jnp.log(pivot / self.pivot)
        return dataclasses.replace(self, pivot=pivot, normalizer=normalizer)


@pytree
class ShapedGammaState(State[ShapedGammaStatistics]):
    """Shape `row_shape`, a point, and rate Gamma(concentration, rate)."""

    row_shape: Float[Array, "*plate"]
    concentration: Float[Array, "*plate"]
    rate: Float[Array, "*plate"]
    domains = dict(row_shape="positive", concentration="positive", rate="positive")

    @property
    def rates(self) -> GammaState:
        """Marginal factor of the rate."""
        return GammaState(self.concentration, self.rate)

    def statistics(self, x: ShapeRate) -> ShapedGammaStatistics:
        return ShapedGammaStatistics.of(x)

    def expected(self) -> ShapedGammaStatistics:
        return ShapedGammaStatistics.around(self.mean, digamma_remainder(self.concentration))

    def log_density(self, statistics: ShapedGammaStatistics) -> Float[Array, "*plate"]:
        """Return the log density of the rate; the shape is a point and adds nothing."""
        nu = GammaStatistics(statistics.value, statistics.log, statistics.base)
        return gamma_log_density(nu, self.concentration, self.rate * self.row_shape)

    def base_entropy(self) -> Float[Array, "*plate"]:
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

    def quantile(self, p: ArrayLike) -> ShapeRate:
        rate = self.rates.quantile(p)
        return ShapeRate(jnp.broadcast_to(self.row_shape, rate.shape), rate)

    def draw(self, key: Array, shape: tuple[int, ...]) -> ShapeRate:
        rate = self.rates.draw(key, shape)
        return ShapeRate(jnp.broadcast_to(self.row_shape, rate.shape), rate)


@dataclasses.dataclass(frozen=True)
class ShapedGamma(Family[ShapedGammaState, ShapedGammaStatistics]):
    """Shape and rate for each cell of `plate`."""

    def neutral(self, dtype: DTypeLike) -> ShapedGammaState:
        two = jnp.full(self.plate, 2.0, dtype)
        return ShapedGammaState(jnp.ones(self.plate, dtype), two, two)

    def from_gradient(
        self, statistics: ShapedGammaStatistics, gradient: ShapedGammaStatistics, weight: ArrayLike = 1.0
    ) -> ShapedGammaState:
        """Return the state after a Newton step of the shape, then the optimal rate given the new shape.

        The step optimises the rate away (`step_gamma_shape`). The rate's update is
        nu ~ Gamma(a + N s, b + s T), with N the number of rows and T their total.
        """
        copies = jax.tree.map(lambda x: x / weight, gradient)
        return self._step(statistics, copies, point=False)

    def maximise(self, statistics: ShapedGammaStatistics, gradient: ShapedGammaStatistics) -> ShapeRate:
        """Return the shape after a Newton step with the rate optimised away, and then the best rate."""
        number = jnp.where(self.is_idle(gradient), 1, gradient.normalizer)
        return self._step(statistics, dataclasses.replace(gradient, normalizer=number), point=True).mode

    def point(self, value: ShapeRate) -> ShapeRate:
        return ShapeRate(*map(super().point, value))

    def is_idle(self, gradient: ShapedGammaStatistics) -> Bool[Array, "*plate"]:
        return vanishes(gradient.rate + gradient.value)

    def _step(
        self, statistics: ShapedGammaStatistics, gradient: ShapedGammaStatistics, *, point: bool
    ) -> ShapedGammaState:
        a, b = gradient.log + (1 - gradient.base), -gradient.value
        number, total = gradient.normalizer, -gradient.rate
        log, m = gradient.row_shape - number, statistics.pivot  # the sum of log x / m
        s = step_gamma_shape(statistics.row_shape, a, b / m, number, total / m, log, point=point, most=MOST)
        return ShapedGammaState(s, a + number * s, (b + s * total) / s)

    def mix(self, state: ShapedGammaState, other: ShapedGammaState, rho: ArrayLike) -> ShapedGammaState:
        """Return the mixture of the rates in natural parameters, and of the shapes in their logarithms."""
        between = lambda x, y: (1 - rho) * x + rho * y
        s = jnp.exp(between(jnp.log(state.row_shape), jnp.log(other.row_shape)))
        concentration = between(state.concentration, other.concentration)
        return ShapedGammaState(s, concentration, between(state.rate, other.rate))
