"""TruncatedNormal: a normal on the positive half line; statistics of a Normal, state (location, precision).

It is the latent of a probit: z = (2y - 1) u, with u > 0, has the sign that y says.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, pytree
from vbjax.families.normal import NormalStatistics
from vbjax.numerics.compilation import jit
from vbjax.numerics.special import LOG_2PI

_TAIL = 3.0  # so many deviations below zero and further, Mills' ratio is a continued fraction
_TERMS = 40  # of that fraction; exact there to float64's last digits


def _split(a: Array) -> tuple[Array, Array, Array]:
    """Return whether a is in the tail, then -a where it is, and a where it is not (the switch elsewhere)."""
    low = a < -_TAIL
    return low, jnp.where(low, -a, _TAIL), jnp.where(low, -_TAIL, a)


def _tail(x: Array) -> tuple[Array, Array]:
    """Return mean and variance of z ~ N(-x, 1) given z > 0, for x >= 3, without cancellation.

    phi(x) / Phi(-x) = x + 1 / (x + 2 / (x + 3 / (x + ...))) (Abramowitz & Stegun 1964, eq. 26.2.14).
    """
    rest = 0.5 * (jnp.sqrt(x * x + 4 * _TERMS + 2) - x)  # what all later terms come to, nearly
    for j in range(_TERMS, 1, -1):
        rest = j / (x + rest)
    mean = 1 / (x + rest)
    return mean, mean * (rest - mean)


@jit
def inverse_mills(a: Array) -> Array:
    """Return phi(a) / Phi(a), the derivative of log Phi."""
    low, x, above = _split(a)
    return jnp.where(low, x + _tail(x)[0], _ratio(above))


def _ratio(a: Array) -> Array:
    return jnp.exp(-0.5 * (a * a + LOG_2PI)) / ndtr(a)


@jit
def _moments(a: Array) -> tuple[Array, Array]:
    """Return mean and variance of z ~ N(a, 1) given z > 0."""
    low, x, above = _split(a)
    (far, width), ratio = _tail(x), _ratio(above)
    mean = above + ratio
    return jnp.where(low, far, mean), jnp.where(low, width, 1 - ratio * mean)


@jit
def _log_mass(a: Array) -> Array:
    """Return log Phi(a) + min(a, 0)^2 / 2: the log mass of N(a, 1) on z > 0, relative to its mode there."""
    low, x, above = _split(a)
    far = -jnp.log(x + _tail(x)[0]) - 0.5 * LOG_2PI
    return jnp.where(low, far, log_ndtr(above) + 0.5 * jnp.minimum(above, 0) ** 2)


@pytree
class TruncatedNormalState(State[NormalStatistics]):
    """Normal distribution N(location, 1 / precision) given that the value is positive.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.TruncatedNormalState(jnp.array(0.0), jnp.array(1.0))
    >>> print(f"{q.mean:.4f}", q.mode)  # sqrt(2 / pi)
    0.7979 0.0
    """

    location: Float[Array, "*plate"]
    precision: Float[Array, "*plate"]
    domains = {"location": "location", "precision": "positive"}

    @property
    def location_scale(self) -> Array:
        """Standard deviation before truncation."""
        return jnp.sqrt(1 / self.precision)

    @property
    def _standard(self) -> Array:
        return self.location * jnp.sqrt(self.precision)

    def statistics(self, x: ArrayLike) -> NormalStatistics:
        return NormalStatistics.of(x)

    def expected(self) -> NormalStatistics:
        return NormalStatistics(self.mean, jnp.zeros_like(self.mean), self.variance)

    def log_density(self, statistics: NormalStatistics) -> Float[Array, "*plate"]:
        t = statistics.about(self.mode)  # about the mode nothing large cancels, however far the location is
        slope = self.precision * (self.location - self.mode)
        energy = slope * t.first - 0.5 * self.precision * t.second
        return 0.5 * (jnp.log(self.precision) - LOG_2PI) + energy - _log_mass(self._standard)

    def log_prob(self, x: ArrayLike) -> Float[Array, "*plate"]:
        value = self.read_value(x)
        return jnp.where(value < 0, -jnp.inf, self.log_density(self.statistics(value)))

    def base_entropy(self) -> Float[Array, "*plate"]:
        return -self.log_density(self.expected())

    @property
    def mean(self) -> Float[Array, "*plate"]:
        return _moments(self._standard)[0] / jnp.sqrt(self.precision)

    @property
    def variance(self) -> Float[Array, "*plate"]:
        return _moments(self._standard)[1] / self.precision

    @property
    def mode(self) -> Float[Array, "*plate"]:
        return jnp.maximum(self.location, 0)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws"]:
        a = jnp.broadcast_to(self._standard, shape + self.location.shape)
        low, x, above = _split(a)
        keys = jax.random.split(key)
        uniform = jax.random.uniform(keys[0], a.shape, a.dtype, minval=jnp.finfo(a.dtype).tiny)
        body = jnp.maximum(above - ndtri(uniform * ndtr(above)), 0)
        return jnp.where(low, _draw_tail(keys[1], x), body) / jnp.sqrt(self.precision)


def _draw_tail(key: Array, x: Array) -> Array:
    """Draw z ~ N(-x, 1) given z > 0, for x >= 3, by rejection from a Rayleigh tail (Marsaglia 1964)."""

    def trial(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, z, done = carry
        key, one, other = jax.random.split(key, 3)
        square = 2 * jax.random.exponential(one, x.shape, x.dtype)
        proposed = square / (x + jnp.sqrt(x * x + square))  # sqrt(x^2 + square) - x
        fine = jax.random.uniform(other, x.shape, x.dtype) * (x + proposed) < x
        return key, jnp.where(done, z, proposed), done | fine

    start = key, jnp.zeros_like(x), jnp.zeros(x.shape, bool)
    return lax.while_loop(lambda carry: ~carry[2].all(), trial, start)[1]


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(Family[TruncatedNormalState, NormalStatistics]):
    """Positive latent for each cell of `plate`: q = N(location, 1 / precision) on the half line.

    Its statistics are a Normal's, so `terms.normal` takes it; the constraint is the family's support.

    >>> import jax, vbjax as vb
    >>> t = vb.TruncatedNormal().neutral("float32").expected()
    >>> gradient = jax.grad(lambda s: vb.terms.normal(s, -3.0, 4.0))(t)
    >>> vb.TruncatedNormal().from_gradient(t, gradient)
    TruncatedNormalState(location=-3, precision=4)
    """

    def neutral(self, dtype: DTypeLike) -> TruncatedNormalState:
        return TruncatedNormalState(jnp.ones(self.plate, dtype), jnp.ones(self.plate, dtype))

    def from_gradient(
        self, statistics: NormalStatistics, gradient: NormalStatistics, weight: ArrayLike = 1.0
    ) -> TruncatedNormalState:
        """Return the state with precision = -2 g2 and location = c + g1 / precision; c where nothing acts."""
        precision = -2 * gradient.second
        pull = gradient.first / jnp.where(precision == 0, 1, precision)
        return TruncatedNormalState(statistics.pivot + pull, precision / weight)
