"""Beta: a Dirichlet over two corners, with statistics log x and log(1 - x)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import betainc
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, read_share, vanishes
from vbjax.families.dirichlet import DirichletState, DirichletStatistics, dirichlet_log_density, shares
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.special import from_scipy, quantile
from vbjax.numerics.types import Given


@pytree
class BetaStatistics(Statistics):
    """Statistics E[log x] and E[log(1 - x)]; `base` is minus their sum.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> uniform = vb.families.BetaState(jnp.array(1.0), jnp.array(1.0))
    >>> print(uniform.expected().log, uniform.expected().log_complement)
    -1.0 -1.0
    """

    log: Float[Array, "*plate"]
    log_complement: Float[Array, "*plate"]
    base: Float[Array, "*plate"]
    events = {"log": 0, "log_complement": 0}
    point_domains = {"value": "simplex"}

    @classmethod
    def of(cls, x: ArrayLike) -> BetaStatistics:
        """Return the statistics of a value between 0 and 1."""
        x = jnp.asarray(x)
        log, complement = jnp.log(x), jnp.log1p(-x)
        return cls(log, complement, -(log + complement))

    def at(self, point: Float[Array, "*plate 2"]) -> BetaStatistics:
        log = jnp.log(jnp.maximum(point, jnp.finfo(point.dtype).tiny))  # as of a Dirichlet
        return BetaStatistics(log[..., 0], log[..., 1], -log.sum(-1))

    def value_at(self, point: Float[Array, "*plate 2"]) -> Float[Array, "*plate"]:
        return point[..., 0]


def beta_log_density(t: BetaStatistics, concentration1: Array, concentration0: Array) -> Array:
    """Return a E[log x] + b E[log(1 - x)] - log B(a, b) (Bishop 2006, eq. B.6)."""
    pair = DirichletStatistics(jnp.stack([t.log, t.log_complement], -1), t.base)
    a, b = jnp.broadcast_arrays(concentration1, concentration0)
    return dirichlet_log_density(pair, jnp.stack([a, b], -1))


@pytree
class BetaState(State[BetaStatistics]):
    """Beta(concentration1, concentration0), mean concentration1 / (their sum).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.BetaState(concentration1=jnp.array(3.0), concentration0=jnp.array(1.0)).mean)
    0.75
    """

    concentration1: Float[Array, "*plate"]
    concentration0: Float[Array, "*plate"]
    domains = {"concentration1": "positive", "concentration0": "positive"}

    @property
    def _pair(self) -> DirichletState:
        return DirichletState(jnp.stack([self.concentration1, self.concentration0], -1))

    def statistics(self, x: ArrayLike) -> BetaStatistics:
        return BetaStatistics.of(x)

    def expected(self) -> BetaStatistics:
        t = self._pair.expected()
        return BetaStatistics(t.log[..., 0], t.log[..., 1], t.base)

    def log_density(self, statistics: BetaStatistics) -> Float[Array, "*plate"]:
        return beta_log_density(statistics, self.concentration1, self.concentration0)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return self._pair.base_entropy()

    def divergence(self, other: BetaState) -> Float[Array, "*plate"]:
        return self._pair.divergence(other._pair)

    @property
    def mean(self) -> Float[Array, "*plate"]:
        return self._pair.mean[..., 0]

    @property
    def variance(self) -> Float[Array, "*plate"]:
        return self._pair.variance[..., 0]

    @property
    def mode(self) -> Float[Array, "*plate"]:
        return self._pair.mode[..., 0]

    def quantile(self, p: ArrayLike) -> Array:
        """Return the value below which a share `p` of the mass lies."""
        p = read_share(p, self.concentration1)
        p, a, b = jnp.broadcast_arrays(p, self.concentration1, self.concentration0)
        if is_concrete((p, a, b)):
            return from_scipy("betaincinv", a, b, p)
        upper, q = p > 0.5, BetaState(a, b)

        def density(x: Array) -> Array:
            t = q.statistics(x)
            return jnp.exp(q.log_density(t) + t.log_base)

        near, far = jnp.where(upper, b, a), jnp.where(upper, a, b)
        return quantile(p, lambda x: betainc(near, far, jnp.where(upper, 1 - x, x)), density, 1.0)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws"]:
        a, b = jnp.broadcast_arrays(self.concentration1, self.concentration0)
        return jax.random.beta(key, a, b, shape + a.shape, a.dtype)


@dataclasses.dataclass(frozen=True)
class Beta(Family[BetaState, BetaStatistics]):
    """Probability for each cell of `plate`.

    >>> import vbjax as vb
    >>> vb.Beta((3,))
    Beta(plate=(3,))
    """

    def neutral(self, dtype: DTypeLike) -> BetaState:
        return BetaState(jnp.full(self.plate, 2.0, dtype), jnp.full(self.plate, 2.0, dtype))

    def from_gradient(
        self, statistics: BetaStatistics, gradient: BetaStatistics, weight: ArrayLike = 1.0
    ) -> BetaState:
        """Return the state whose (a, b) are the gradient: a = a0 + m, b = b0 + l (Bishop 2006, eq. 2.18).

        The gradient is corrected if the log joint holds no density of x, or several.
        """
        correction = weight - gradient.base
        return BetaState(
            (gradient.log + correction) / weight, (gradient.log_complement + correction) / weight
        )

    def maximise(self, statistics: BetaStatistics, gradient: BetaStatistics) -> Float[Array, "*plate 2"]:
        """Return x and 1 - x, each with its own digits."""
        return shares(self._counts(gradient))

    def is_idle(self, gradient: BetaStatistics) -> Bool[Array, "*plate"]:
        return vanishes(self._counts(gradient)).all(-1)

    def _counts(self, gradient: BetaStatistics) -> Float[Array, "*plate 2"]:
        return jnp.stack([gradient.log, gradient.log_complement], -1) - gradient.base[..., None]

    def point(self, value: Given) -> Float[Array, "*plate 2"]:
        x = super().point(value)
        return jnp.stack([x, 1 - x], -1)
