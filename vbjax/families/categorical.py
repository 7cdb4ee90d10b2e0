"""Categorical: statistics the one-hot vector, state logits; its log-normaliser is logsumexp."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike, DTypeLike

from vbjax.families.base import Family, State, Statistics, pytree
from vbjax.numerics.inputs import as_numbers, is_concrete
from vbjax.numerics.linalg import outer


@pytree
class CategoricalStatistics(Statistics):
    """E[one-hot(z)]: the probabilities p of the states."""

    p: Array
    events = {"p": 1}


@pytree
class CategoricalState(State):
    """Probabilities softmax(logits) over the last axis. A value is the state's number."""

    logits: Array
    domains = {"logits": "real"}

    @property
    def probabilities(self) -> Array:
        """p_k, one axis after the plate."""
        return jax.nn.softmax(self.logits, -1)

    def read_value(self, x: Any) -> Array:
        """Return numbers of states, whole and from 0 to k - 1."""
        given = as_numbers(x, "x")
        value, size = super().read_value(given), self.logits.shape[-1]
        if is_concrete(given):
            numbers = np.asarray(given)
            if not ((numbers >= 0) & (numbers < size) & (numbers == np.floor(numbers))).all():
                raise ValueError(f"x must be whole numbers from 0 to {size - 1}; got {reprlib.repr(x)}")
        return value

    def statistics(self, x: ArrayLike) -> CategoricalStatistics:
        return CategoricalStatistics(jax.nn.one_hot(x, self.logits.shape[-1], dtype=self.logits.dtype))

    def expected(self) -> CategoricalStatistics:
        return CategoricalStatistics(self.probabilities)

    @property
    def log_probabilities(self) -> Array:
        """log p_k; the lowest number, which is finite, where p_k = 0, so that 0 log 0 = 0."""
        log = jax.nn.log_softmax(self.logits, -1)
        return jnp.where(jnp.isneginf(log), jnp.finfo(log.dtype).min, log)

    def log_density(self, statistics: CategoricalStatistics) -> Array:
        return (statistics.p * self.log_probabilities).sum(-1)

    def base_entropy(self) -> Array:
        return -(self.probabilities * self.log_probabilities).sum(-1)

    @property
    def mean(self) -> Array:
        return self.probabilities

    @property
    def variance(self) -> Array:
        return self.probabilities * (1 - self.probabilities)

    @property
    def covariance(self) -> Array:
        p = self.probabilities
        return p[..., :, None] * jnp.eye(p.shape[-1], dtype=p.dtype) - outer(p, p)

    @property
    def mode(self) -> Array:
        return jnp.argmax(self.logits, -1)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.categorical(key, self.logits, shape=shape + self.logits.shape[:-1])


@dataclasses.dataclass(frozen=True)
class Categorical(Family):
    """One of `size` states for each cell of `plate`."""

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2
    curvature: ClassVar[str | None] = "p"

    def neutral(self, dtype: DTypeLike) -> CategoricalState:
        return CategoricalState(jnp.zeros((*self.plate, self.size), dtype))

    def from_gradient(
        self, statistics: CategoricalStatistics, gradient: CategoricalStatistics, weight: ArrayLike = 1.0
    ) -> CategoricalState:
        """logits = the gradient."""
        return CategoricalState(gradient.p / jnp.expand_dims(jnp.asarray(weight), -1))

    def log_normalizer(self, statistics: CategoricalStatistics, gradient: CategoricalStatistics) -> Array:
        return logsumexp(gradient.p, -1)
