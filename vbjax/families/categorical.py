"""Categorical: statistic the one-hot vector, state logits, log-normaliser logsumexp."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int

from vbjax.families.base import Family, State, Statistics, Value, pytree
from vbjax.numerics.inputs import as_numbers, is_concrete
from vbjax.numerics.linalg import outer
from vbjax.numerics.types import Data


@pytree
class CategoricalStatistics(Statistics):
    """Statistics E[one-hot(z)]: the probabilities p of the states.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.CategoricalState(jnp.zeros(3)).statistics(2).p)
    [0. 0. 1.]
    """

    p: Float[Array, "*plate k"]
    events = {"p": 1}

    def of_value(self, x: ArrayLike, point: Value) -> CategoricalStatistics:
        return CategoricalStatistics(jax.nn.one_hot(x, self.p.shape[-1], dtype=self.p.dtype))


@pytree
class CategoricalState(State[CategoricalStatistics]):
    """Probabilities softmax(logits) over the last axis. A value is the state's number.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.CategoricalState(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    >>> print(q.mean, f"{q.entropy():.4f}")  # 1.5 log 2 nats
    [0.5  0.25 0.25] 1.0397
    """

    logits: Float[Array, "*plate k"]
    domains = {"logits": "real"}

    @property
    def probabilities(self) -> Array:
        """Probabilities p_k, on one axis after the plate."""
        return jax.nn.softmax(self.logits, -1)

    def read_value(self, x: Data) -> Array:
        """Return the numbers of states, whole numbers from 0 to k - 1.

        Raises:
            ValueError: if `x` holds anything else, or its shape does not fit.
        """
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
        """Logarithms log p_k; the lowest finite number where p_k = 0, so that 0 log 0 = 0."""
        log = jax.nn.log_softmax(self.logits, -1)
        return jnp.where(jnp.isneginf(log), jnp.finfo(log.dtype).min, log)

    def log_density(self, statistics: CategoricalStatistics) -> Float[Array, "*plate"]:
        return (statistics.p * self.log_probabilities).sum(-1)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return -(self.probabilities * self.log_probabilities).sum(-1)

    @property
    def mean(self) -> Float[Array, "*plate k"]:
        return self.probabilities

    @property
    def variance(self) -> Float[Array, "*plate k"]:
        return self.probabilities * (1 - self.probabilities)

    @property
    def covariance(self) -> Float[Array, "*plate k k"]:
        p = self.probabilities
        return p[..., :, None] * jnp.eye(p.shape[-1], dtype=p.dtype) - outer(p, p)

    @property
    def mode(self) -> Int[Array, "*plate"]:
        return jnp.argmax(self.logits, -1)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Int[Array, "*draws"]:
        return jax.random.categorical(key, self.logits, shape=shape + self.logits.shape[:-1])


@dataclasses.dataclass(frozen=True)
class Categorical(Family[CategoricalState, CategoricalStatistics]):
    """State, one of `size`, for each cell of `plate`.

    >>> import vbjax as vb
    >>> print(vb.Categorical(4).neutral("float32").mean)  # where a fit starts
    [0.25 0.25 0.25 0.25]
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2
    curvature: ClassVar[str | None] = "p"

    def neutral(self, dtype: DTypeLike) -> CategoricalState:
        return CategoricalState(jnp.zeros((*self.plate, self.size), dtype))

    def from_gradient(
        self, statistics: CategoricalStatistics, gradient: CategoricalStatistics, weight: ArrayLike = 1.0
    ) -> CategoricalState:
        """Return the state whose logits are the gradient; their softmax is Bishop 2006, eq. 10.49."""
        return CategoricalState(gradient.p / jnp.expand_dims(jnp.asarray(weight), -1))

    def log_normalizer(
        self, statistics: CategoricalStatistics, gradient: CategoricalStatistics
    ) -> Float[Array, "*plate"]:
        return logsumexp(gradient.p, -1)
