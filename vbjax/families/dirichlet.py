"""Dirichlet: statistics log x over the simplex, state concentration; base measure 1 / prod x."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from vbjax.families.base import Family, State, Statistics, pytree
from vbjax.numerics.linalg import outer
from vbjax.numerics.special import LOG_2PI, digamma_remainder, gammaln_remainder, itakura_saito


@pytree
class DirichletStatistics(Statistics):
    """E[log x_k]; `base` is -sum_k E[log x_k]."""

    log: Array
    base: Array
    events = {"log": 1}

    @classmethod
    def of(cls, x: ArrayLike) -> DirichletStatistics:
        """The statistics of a point of the simplex."""
        log = jnp.log(jnp.asarray(x))
        return cls(log, -log.sum(-1))


def dirichlet_log_density(t: DirichletStatistics, concentration: Array) -> Array:
    """sum alpha_k E[log x_k] - log B(alpha), with Stirling's part cancelled on paper."""
    alpha, log = jnp.broadcast_arrays(concentration, t.log)
    total = alpha.sum(-1)
    share = jnp.log(alpha / total[..., None])
    linear = (alpha * (log - share) + 0.5 * share - gammaln_remainder(alpha)).sum(-1)
    return linear + gammaln_remainder(total) + 0.5 * (alpha.shape[-1] - 1) * (jnp.log(total) - LOG_2PI)


def dirichlet_kl(alpha: Array, alpha0: Array) -> Array:
    """KL(Dirichlet(alpha) || Dirichlet(alpha0)) with Stirling's part cancelled on paper."""
    total, total0 = alpha.sum(-1, keepdims=True), alpha0.sum(-1, keepdims=True)
    ratio = (alpha / alpha0) * (total0 / total)  # of the means
    terms = alpha0 * itakura_saito(ratio) + (alpha - alpha0) * (
        digamma_remainder(alpha) - digamma_remainder(total)
    )
    terms = terms + 0.5 * jnp.log(ratio) + gammaln_remainder(alpha0) - gammaln_remainder(alpha)
    whole = gammaln_remainder(total) - gammaln_remainder(total0)
    return terms.sum(-1) + (whole + 0.5 * (alpha.shape[-1] - 1) * jnp.log(total / total0))[..., 0]


@pytree
class DirichletState(State):
    """Dirichlet(concentration), over the last axis."""

    concentration: Array
    domains = {"concentration": "positive"}

    def statistics(self, x: ArrayLike) -> DirichletStatistics:
        return DirichletStatistics.of(x)

    def expected(self) -> DirichletStatistics:
        alpha = self.concentration
        total = alpha.sum(-1, keepdims=True)
        log = jnp.log(alpha / total) + digamma_remainder(alpha) - digamma_remainder(total)
        return DirichletStatistics(log, -log.sum(-1))

    def log_density(self, statistics: DirichletStatistics) -> Array:
        return dirichlet_log_density(statistics, self.concentration)

    def base_entropy(self) -> Array:
        alpha = self.concentration
        total = alpha.sum(-1, keepdims=True)
        psi = digamma_remainder(alpha) - digamma_remainder(total)
        terms = (-0.5 * jnp.log(alpha / total) + gammaln_remainder(alpha) - alpha * psi).sum(-1)
        total = total[..., 0]
        return terms - gammaln_remainder(total) - 0.5 * (alpha.shape[-1] - 1) * (jnp.log(total) - LOG_2PI)

    def divergence(self, other: DirichletState) -> Array:
        return dirichlet_kl(self.concentration, other.concentration)

    def at_mode(self) -> DirichletStatistics:
        # a corner without mass has the smallest number's logarithm: 0 log 0 = 0, and a flat prior stays flat
        mode = self.mode
        return DirichletStatistics.of(jnp.maximum(mode, jnp.finfo(mode.dtype).tiny))

    @property
    def mean(self) -> Array:
        return self.concentration / self.concentration.sum(-1, keepdims=True)

    @property
    def variance(self) -> Array:
        return self.mean * (1 - self.mean) / (self.concentration.sum(-1, keepdims=True) + 1)

    @property
    def covariance(self) -> Array:
        p = self.mean
        diagonal = p[..., :, None] * jnp.eye(p.shape[-1], dtype=p.dtype)
        return (diagonal - outer(p, p)) / (self.concentration.sum(-1)[..., None, None] + 1)

    @property
    def mode(self) -> Array:
        excess = self.concentration - 1
        inside = (excess >= 0).all(-1, keepdims=True)
        return jnp.where(inside, excess / excess.sum(-1, keepdims=True), jnp.nan)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        shape = shape + self.concentration.shape[:-1]
        return jax.random.dirichlet(key, self.concentration, shape, self.concentration.dtype)


@dataclasses.dataclass(frozen=True)
class Dirichlet(Family):
    """A point of the simplex with `size` corners for each cell of `plate`."""

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2

    def neutral(self, dtype: DTypeLike) -> DirichletState:
        return DirichletState(jnp.full((*self.plate, self.size), 2.0, dtype))

    def from_gradient(
        self, statistics: DirichletStatistics, gradient: DirichletStatistics, weight: ArrayLike = 1.0
    ) -> DirichletState:
        """alpha = g (corrected where the log joint holds no or several densities of x)."""
        correction = jnp.expand_dims(weight - gradient.base, -1)
        return DirichletState((gradient.log + correction) / jnp.expand_dims(jnp.asarray(weight), -1))
