"""Dirichlet: statistics log x over the simplex, state concentration; base measure 1 / prod x."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, vanishes
from vbjax.numerics.linalg import outer
from vbjax.numerics.special import LOG_2PI, digamma_remainder, gammaln_remainder, itakura_saito


@pytree
class DirichletStatistics(Statistics):
    """Statistics E[log x_k]; `base` is -sum_k E[log x_k].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.DirichletState(jnp.ones(2)).expected().log)  # of two uniform shares
    [-1. -1.]
    """

    log: Float[Array, "*plate k"]
    base: Float[Array, "*plate"]
    events = {"log": 1}
    point_domains = {"value": "simplex"}

    @classmethod
    def of(cls, x: ArrayLike) -> DirichletStatistics:
        """Return the statistics of a point of the simplex."""
        log = jnp.log(jnp.asarray(x))
        return cls(log, -log.sum(-1))

    def at(self, point: Array) -> DirichletStatistics:
        # a corner without mass gets the log of the smallest number: 0 log 0 = 0, and a flat prior stays flat
        return self.of(jnp.maximum(point, jnp.finfo(point.dtype).tiny))


def dirichlet_log_density(t: DirichletStatistics, concentration: Array) -> Array:
    """Return sum alpha_k E[log x_k] - log B(alpha), with Stirling's part cancelled on paper."""
    alpha = concentration + jnp.zeros_like(t.log)  # a Python number takes the dtype of the statistics
    total = alpha.sum(-1)
    share = jnp.log(alpha / total[..., None])
    linear = (alpha * (t.log - share) + 0.5 * share - gammaln_remainder(alpha)).sum(-1)
    return linear + gammaln_remainder(total) + 0.5 * (alpha.shape[-1] - 1) * (jnp.log(total) - LOG_2PI)


def dirichlet_kl(alpha: Array, alpha0: Array) -> Array:
    """Return KL(Dirichlet(alpha) || Dirichlet(alpha0)), with Stirling's part cancelled on paper."""
    total, total0 = alpha.sum(-1, keepdims=True), alpha0.sum(-1, keepdims=True)
    ratio = (alpha / alpha0) * (total0 / total)  # of the means
    terms = alpha0 * itakura_saito(ratio) + (alpha - alpha0) * (
        digamma_remainder(alpha) - digamma_remainder(total)
    )
    terms = terms + 0.5 * jnp.log(ratio) + gammaln_remainder(alpha0) - gammaln_remainder(alpha)
    whole = gammaln_remainder(total) - gammaln_remainder(total0)
    return terms.sum(-1) + (whole + 0.5 * (alpha.shape[-1] - 1) * jnp.log(total / total0))[..., 0]


@pytree
class DirichletState(State[DirichletStatistics]):
    """Dirichlet(concentration) over the last axis (Bishop 2006, eq. B.16).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.DirichletState(jnp.array([1.0, 2.0, 5.0])).mean)
    [0.125 0.25  0.625]
    """

    concentration: Float[Array, "*plate k"]
    domains = {"concentration": "positive"}

    def statistics(self, x: ArrayLike) -> DirichletStatistics:
        return DirichletStatistics.of(x)

    def expected(self) -> DirichletStatistics:
        """Return E[log x_k] = digamma(alpha_k) - digamma(sum alpha) (Bishop 2006, eq. 10.66 and B.21)."""
        alpha = self.concentration
        total = alpha.sum(-1, keepdims=True)
        log = jnp.log(alpha / total) + digamma_remainder(alpha) - digamma_remainder(total)
        return DirichletStatistics(log, -log.sum(-1))

    def log_density(self, statistics: DirichletStatistics) -> Float[Array, "*plate"]:
        return dirichlet_log_density(statistics, self.concentration)

    def base_entropy(self) -> Float[Array, "*plate"]:
        alpha = self.concentration
        total = alpha.sum(-1, keepdims=True)
        psi = digamma_remainder(alpha) - digamma_remainder(total)
        terms = (-0.5 * jnp.log(alpha / total) + gammaln_remainder(alpha) - alpha * psi).sum(-1)
        total = total[..., 0]
        return terms - gammaln_remainder(total) - 0.5 * (alpha.shape[-1] - 1) * (jnp.log(total) - LOG_2PI)

    def divergence(self, other: DirichletState) -> Float[Array, "*plate"]:
        return dirichlet_kl(self.concentration, other.concentration)

    @property
    def mean(self) -> Float[Array, "*plate k"]:
        return self.concentration / self.concentration.sum(-1, keepdims=True)

    @property
    def variance(self) -> Float[Array, "*plate k"]:
        return self.mean * (1 - self.mean) / (self.concentration.sum(-1, keepdims=True) + 1)

    @property
    def covariance(self) -> Float[Array, "*plate k k"]:
        p = self.mean
        diagonal = p[..., :, None] * jnp.eye(p.shape[-1], dtype=p.dtype)
        return (diagonal - outer(p, p)) / (self.concentration.sum(-1)[..., None, None] + 1)

    @property
    def mode(self) -> Float[Array, "*plate k"]:
        excess = self.concentration - 1
        inside = (excess >= 0).all(-1, keepdims=True)
        return jnp.where(inside, excess / excess.sum(-1, keepdims=True), jnp.nan)

    def quantile(self, p: ArrayLike) -> Float[Array, "*plate k"]:
        """Return quantiles of the entries, each of which is a Beta."""
        from vbjax.families.beta import BetaState  # a Dirichlet over two corners

        rest = self.concentration.sum(-1, keepdims=True) - self.concentration
        return BetaState(self.concentration, rest).quantile(p)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws k"]:
        shape = shape + self.concentration.shape[:-1]
        dtype = self.concentration.dtype
        value = jax.random.dirichlet(key, self.concentration, shape, dtype)
        return jnp.maximum(value, jnp.finfo(dtype).tiny)  # less is rounded to 0, which has no log density


@dataclasses.dataclass(frozen=True)
class Dirichlet(Family[DirichletState, DirichletStatistics]):
    """Point of the simplex with `size` corners for each cell of `plate`.

    >>> import vbjax as vb
    >>> vb.Dirichlet(3, plate=(2,))  # two distributions over three categories
    Dirichlet(plate=(2,), size=3)
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2

    def neutral(self, dtype: DTypeLike) -> DirichletState:
        return DirichletState(jnp.full((*self.plate, self.size), 2.0, dtype))

    def from_gradient(
        self, statistics: DirichletStatistics, gradient: DirichletStatistics, weight: ArrayLike = 1.0
    ) -> DirichletState:
        """Return the state whose alpha is the gradient: alpha_k = alpha0 + N_k (Bishop 2006, eq. 10.58).

        The gradient is corrected if the log joint holds no density of x, or several.
        """
        correction = jnp.expand_dims(weight - gradient.base, -1)
        return DirichletState((gradient.log + correction) / jnp.expand_dims(jnp.asarray(weight), -1))

    def maximise(
        self, statistics: DirichletStatistics, gradient: DirichletStatistics
    ) -> Float[Array, "*plate k"]:
        """Return the counts' shares, x_k = g_k / sum g (Bishop 2006, eq. 9.26)."""
        return shares(gradient.log - gradient.base[..., None])

    def is_idle(self, gradient: DirichletStatistics) -> Bool[Array, "*plate"]:
        return vanishes(gradient.log - gradient.base[..., None]).all(-1)


def shares(counts: Float[Array, "*plate k"]) -> Float[Array, "*plate k"]:
    """Return counts as shares of their sum; NaN if one is negative: then sum_k n_k log x_k has no bound."""
    total = counts.sum(-1, keepdims=True)
    found = counts / jnp.where(total == 0, 1, total)
    return jnp.where((counts >= 0).all(-1, keepdims=True), found, jnp.nan)
