"""StickBreaking: a point of the simplex, broken off a stick piece by piece by independent Beta shares.

The statistics are log v_k and log(1 - v_k) of each share v_k of what is left, and the state holds the shares'
two concentrations. The family contains the Dirichlet (concentration0_k is the sum of the later alphas) and
has its base measure 1 / prod x. With shares Beta(1, alpha) it is the truncated Dirichlet process.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, vanishes
from vbjax.families.beta import BetaState, BetaStatistics
from vbjax.families.dirichlet import shares
from vbjax.numerics.linalg import outer, transpose


def _sum_behind(x: Float[Array, "*plate k"]) -> Float[Array, "*plate rest"]:
    """Return for every entry but the last the sum of the entries behind it, over the last axis."""
    return jnp.cumsum(x[..., :0:-1], -1)[..., ::-1]


def _pieces(
    share: Float[Array, "*plate rest"], rest: Float[Array, "*plate rest"]
) -> Float[Array, "*plate k"]:
    """Return the pieces x_k = v_k prod_j<k (1 - v_j) from each share v_k and the share 1 - v_k that stays."""
    one = jnp.ones((*share.shape[:-1], 1), share.dtype)
    left = jnp.concatenate([one, jnp.cumprod(rest, -1)], -1)
    return left * jnp.concatenate([share, one], -1)


@pytree
class StickBreakingStatistics(Statistics):
    """Statistics E[log v_k] and E[log(1 - v_k)], k < K; `base` is -sum_k E[log x_k].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> t = vb.families.StickBreakingState(jnp.ones(2), jnp.ones(2)).expected()
    >>> print(t.log_share, t.log_rest)  # of uniform shares
    [-1. -1.] [-1. -1.]
    """

    log_share: Float[Array, "*plate rest"]
    log_rest: Float[Array, "*plate rest"]
    base: Float[Array, "*plate"]
    events = {"log_share": 1, "log_rest": 1}
    point_domains = {"value": "simplex"}

    @classmethod
    def of(cls, x: ArrayLike) -> StickBreakingStatistics:
        """Return the statistics of a point of the simplex."""
        x = jnp.asarray(x)
        behind = jnp.log(_sum_behind(x))
        share, log = jnp.log(x[..., :-1]), jnp.log(x)
        left = jnp.logaddexp(share, behind)  # log of what is left before each piece is broken off
        return cls(share - left, behind - left, -log.sum(-1))

    def at(self, point: Array) -> StickBreakingStatistics:
        # a piece without mass is treated as in the Dirichlet
        return self.of(jnp.maximum(point, jnp.finfo(point.dtype).tiny))

    @property
    def log(self) -> Float[Array, "*plate k"]:
        """E[log x_k], one for each of the K pieces."""
        zero = jnp.zeros((*self.log_rest.shape[:-1], 1), self.log_rest.dtype)
        left = jnp.concatenate([zero, jnp.cumsum(self.log_rest, -1)], -1)
        return left + jnp.concatenate([self.log_share, zero], -1)


@pytree
class StickBreakingState(State[StickBreakingStatistics]):
    """Shares v_k ~ Beta(concentration1_k, concentration0_k), k < K, of what the pieces before leave.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.StickBreakingState(jnp.ones(2), jnp.ones(2)).mean)  # half of what is left
    [0.5  0.25 0.25]
    """

    concentration1: Float[Array, "*plate rest"]
    concentration0: Float[Array, "*plate rest"]
    domains = {"concentration1": "positive", "concentration0": "positive"}

    @property
    def shares(self) -> BetaState:
        """Factor of the shares v_k, (..., K - 1)."""
        return BetaState(self.concentration1, self.concentration0)

    def statistics(self, x: ArrayLike) -> StickBreakingStatistics:
        return StickBreakingStatistics.of(x)

    def expected(self) -> StickBreakingStatistics:
        t = self.shares.expected()
        found = StickBreakingStatistics(t.log, t.log_complement, jnp.zeros(t.log.shape[:-1], t.log.dtype))
        return dataclasses.replace(found, base=-found.log.sum(-1))

    def log_density(self, statistics: StickBreakingStatistics) -> Float[Array, "*plate"]:
        t = statistics
        pair = BetaStatistics(t.log_share, t.log_rest, jnp.zeros_like(t.log_share))
        return self.shares.log_density(pair).sum(-1)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return self.shares.base_entropy().sum(-1)

    def divergence(self, other: StickBreakingState) -> Float[Array, "*plate"]:
        return self.shares.divergence(other.shares).sum(-1)

    @property
    def mean(self) -> Float[Array, "*plate k"]:
        share, rest = self._means
        return _pieces(share, rest)

    @property
    def _means(self) -> tuple[Array, Array]:
        total = self.concentration1 + self.concentration0
        return self.concentration1 / total, self.concentration0 / total

    @property
    def variance(self) -> Float[Array, "*plate k"]:
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def covariance(self) -> Float[Array, "*plate k k"]:
        share, rest = self._means
        variance, mean = self.shares.variance, self.mean
        square = _pieces(share**2 + variance, rest**2 + variance)  # E[x_k^2]
        # E[x_k x_l], k < l: before piece k both share the same sticks, and v_k (1 - v_k) replaces v_k^2
        both = square[..., :-1] * (share * rest - variance) / (share**2 + variance)
        after = outer(both / jnp.cumprod(rest, -1), mean[..., 1:])
        upper = jnp.triu(jnp.pad(after, [(0, 0)] * (mean.ndim - 1) + [(0, 1), (1, 0)]), 1)
        diagonal = square[..., :, None] * jnp.eye(mean.shape[-1], dtype=mean.dtype)
        return upper + transpose(upper) + diagonal - outer(mean, mean)

    @property
    def mode(self) -> Float[Array, "*plate k"]:
        size = self.concentration0.shape[-1]
        ahead = self.concentration1 - 1
        behind = self.concentration0 - jnp.arange(size, 0, -1, dtype=ahead.dtype)
        inside = ((ahead >= 0) & (behind >= 0)).all(-1, keepdims=True)
        total = ahead + behind
        return jnp.where(inside, _pieces(ahead / total, behind / total), jnp.nan)

    def quantile(self, p: ArrayLike) -> Float[Array, "*plate k"]:
        """Return quantiles of Beta distributions that have the moments of the pieces."""
        mean, variance = self.mean, self.variance
        total = mean * (1 - mean) / variance - 1
        return BetaState(mean * total, (1 - mean) * total).quantile(p)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws k"]:
        share = self.shares.draw(key, shape)
        return _pieces(share, 1 - share)


@dataclasses.dataclass(frozen=True)
class StickBreaking(Family[StickBreakingState, StickBreakingStatistics]):
    """Stick broken into `size` pieces for each cell of `plate`.

    >>> import vbjax as vb
    >>> print(vb.StickBreaking(4).neutral("float32").mean)  # where a fit starts
    [0.25 0.25 0.25 0.25]
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2

    def neutral(self, dtype: DTypeLike) -> StickBreakingState:
        one = jnp.full((*self.plate, self.size - 1), 2.0, dtype)
        return StickBreakingState(one, one * jnp.arange(self.size - 1, 0, -1, dtype=dtype))

    def from_gradient(
        self,
        statistics: StickBreakingStatistics,
        gradient: StickBreakingStatistics,
        weight: ArrayLike = 1.0,
    ) -> StickBreakingState:
        """Return the state whose (a, b) are the gradient.

        With counts N_k it adds N_k to a_k, and the sum of the later counts to b_k (Blei & Jordan 2006,
        section 3.2). The gradient is corrected if the log joint holds no density of x, or several.
        """
        correction = jnp.expand_dims(weight - gradient.base, -1)
        weight = jnp.expand_dims(jnp.asarray(weight), -1)
        behind = jnp.arange(self.size - 1, 0, -1, dtype=gradient.log_rest.dtype)
        return StickBreakingState(
            (gradient.log_share + correction) / weight, (gradient.log_rest + behind * correction) / weight
        )

    def maximise(
        self, statistics: StickBreakingStatistics, gradient: StickBreakingStatistics
    ) -> Float[Array, "*plate k"]:
        """Return the pieces of which each is its count's share of that count and the later ones'."""
        share = shares(self._counts(gradient))
        return _pieces(share[..., 0], share[..., 1])

    def is_idle(self, gradient: StickBreakingStatistics) -> Bool[Array, "*plate"]:
        return vanishes(self._counts(gradient)).all((-1, -2))

    def _counts(self, gradient: StickBreakingStatistics) -> Float[Array, "*plate rest 2"]:
        base = gradient.base[..., None]
        behind = jnp.arange(self.size - 1, 0, -1, dtype=base.dtype)
        return jnp.stack([gradient.log_share - base, gradient.log_rest - behind * base], -1)
