"""DegreesOfFreedom: nu of Student-t rows, known to the likelihood by the scales of rows alone.

A row's scale is u ~ Gamma(nu / 2, nu / 2); of many, the sum of log u - u says all about nu. No prior of nu
has a closed form, so the family has points alone (`Delta`).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, Statistics, pytree, vanishes
from vbjax.families.delta import DeltaState
from vbjax.numerics.special import LOG_2PI, digamma_remainder, gammaln_remainder
from vbjax.numerics.types import Index

LEAST, MOST = 0.1, 1e4  # beyond them float32 tells rows of no two degrees of freedom apart
_NEWTON_STEPS = 4  # from a start good to a percent: to the last digits of float64


@pytree
class DegreesOfFreedomStatistics(Statistics):
    """Statistics of nu in which log Gamma(u | nu / 2, nu / 2) is linear.

        value s = nu / 2,   normalizer s log s - s - log Gamma(s);

    then log p(u) = normalizer + value (log u - u + 1) - log u.
    """

    value: Float[Array, "*plate"]
    normalizer: Float[Array, "*plate"]
    events = dict(value=0, normalizer=0)
    point_domains = dict(value="positive")

    @classmethod
    def of(cls, x: ArrayLike) -> DegreesOfFreedomStatistics:
        """Return the statistics of degrees of freedom."""
        s = 0.5 * jnp.asarray(x)
        return cls(s, gamma_normalizer(s))


def gamma_normalizer(s: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return s log s - s - log Gamma(s), of a Gamma of shape s and mean 1."""
    return 0.5 * (jnp.log(s) - LOG_2PI) - gammaln_remainder(s)


@dataclasses.dataclass(frozen=True)
class DegreesOfFreedom(Family[DeltaState, DegreesOfFreedomStatistics]):
    """Degrees of freedom for each cell of `plate`, of points alone: `Delta(DegreesOfFreedom(plate))`."""

    def neutral(self, dtype: DTypeLike) -> DeltaState:
        four = jnp.full(self.plate, 4.0, dtype)  # heavy tails, that no row be trusted too much at first
        return DeltaState(four, DegreesOfFreedomStatistics.of(four))

    def natural(
        self, state: DeltaState, statistics: DegreesOfFreedomStatistics
    ) -> DegreesOfFreedomStatistics:
        s = 0.5 * state.value
        return DegreesOfFreedomStatistics(digamma_remainder(s), jnp.ones_like(s))

    def maximise(
        self, statistics: DegreesOfFreedomStatistics, gradient: DegreesOfFreedomStatistics
    ) -> Float[Array, "*plate"]:
        """Return the nu of the largest <gradient, t>, between `LEAST` and `MOST`.

        With N rows and the sum S of E[log u - u + 1], s = nu / 2 is the root of

            log s - digamma(s) = -S / N

        (Liu & Rubin 1995, section 2; Peel & McLachlan 2000, eq. 30). The function is concave in s, so that a
        bound is the maximum where the root is beyond it. Newton's steps are those of the logarithm of the
        left side in log s, which is nearly a line.

        References:
            Minka (2002), Estimating a Gamma distribution, for the start.
        """
        number = jnp.where(self.is_idle(gradient), 1, gradient.normalizer)
        y = jnp.maximum(-gradient.value / number, 0.5 / MOST)
        u = jnp.log((3 - y + jnp.sqrt((y - 3) ** 2 + 24 * y)) / (12 * y))
        log_root = lambda u: jnp.log(-digamma_remainder(jnp.exp(u)))

        def step(_: Index, u: Array) -> Array:
            value, slope = jax.jvp(log_root, (u,), (jnp.ones_like(u),))
            return u - (value - jnp.log(y)) / slope

        u = lax.fori_loop(0, _NEWTON_STEPS, step, u)
        return jnp.clip(2 * jnp.exp(u), LEAST, MOST)

    def is_idle(self, gradient: DegreesOfFreedomStatistics) -> Bool[Array, "*plate"]:
        return vanishes(gradient.normalizer)
