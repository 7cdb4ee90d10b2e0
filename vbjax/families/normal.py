"""Normal: statistics x - c and (x - c)^2 about a pivot c, state (mean, precision)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, Statistics, pytree, read_share
from vbjax.numerics.special import LOG_2PI, itakura_saito


@pytree
class NormalStatistics(Statistics):
    """Statistics E[x - c] and E[(x - c)^2] about the constant pivot c. Sums are of independent terms.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> t = vb.families.NormalState(jnp.array(1.0), jnp.array(4.0)).expected()
    >>> print((t + t).mean, (t + t).second, (3.0 * t).second)  # variances: of a sum of two, in another unit
    2.0 0.5 2.25
    """

    pivot: Float[Array, "*plate"]
    first: Float[Array, "*plate"]
    second: Float[Array, "*plate"]
    events = {"first": 0, "second": 0}
    point_domains = {"value": "location"}
    __array_ufunc__ = None  # so that array + statistics comes to __radd__

    @classmethod
    def of(cls, x: ArrayLike) -> NormalStatistics:
        """Return the statistics of a value: the value as the pivot, and no deviation from it."""
        x = jnp.asarray(x)
        return cls(x, jnp.zeros_like(x), jnp.zeros_like(x))

    @property
    def mean(self) -> Array:
        """E[x], which does not depend on the pivot."""
        return self.pivot + self.first

    def __add__(self, other: NormalStatistics | ArrayLike) -> NormalStatistics:
        if not isinstance(other, NormalStatistics):
            other = NormalStatistics.of(other)
        second = self.second + other.second + 2 * self.first * other.first
        return NormalStatistics(self.pivot + other.pivot, self.first + other.first, second)

    __radd__ = __add__

    def __mul__(self, factor: ArrayLike) -> NormalStatistics:
        """Return the statistics of the latent times a value, such as a sign or a unit."""
        factor = jnp.asarray(factor)
        return NormalStatistics(factor * self.pivot, factor * self.first, factor**2 * self.second)

    __rmul__ = __mul__

    def about(self, pivot: Array) -> NormalStatistics:
        shift = self.pivot - pivot
        return NormalStatistics(pivot, self.first + shift, self.square_about(pivot))

    def location_scale(self, point: Array) -> Array:
        return jnp.sqrt(1 / jnp.where(self.second < 0, -2 * self.second, 1))

    def square_about(self, x: ArrayLike) -> Array:
        """Return E[(z - x)^2]."""
        shift = self.pivot - x
        return self.second + 2 * shift * self.first + shift**2


@pytree
class NormalState(State[NormalStatistics]):
    """Normal distribution N(mean, 1 / precision).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.NormalState(mean=jnp.zeros(2), precision=jnp.array([1.0, 4.0])).sd)
    [1.  0.5]
    """

    mean: Float[Array, "*plate"]  # type: ignore[assignment]
    precision: Float[Array, "*plate"]
    domains = {"mean": "location", "precision": "positive"}

    @property
    def location_scale(self) -> Array:
        """Standard deviation."""
        return jnp.sqrt(1 / self.precision)

    def statistics(self, x: ArrayLike) -> NormalStatistics:
        return NormalStatistics.of(x)

    def expected(self) -> NormalStatistics:
        return NormalStatistics(self.mean, jnp.zeros_like(self.mean), 1 / self.precision)

    def log_density(self, statistics: NormalStatistics) -> Float[Array, "*plate"]:
        square = statistics.square_about(self.mean)
        return 0.5 * (jnp.log(self.precision) - LOG_2PI - self.precision * square)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return 0.5 * (1 + LOG_2PI - jnp.log(self.precision))

    def divergence(self, other: NormalState) -> Float[Array, "*plate"]:
        square = other.precision * (self.mean - other.mean) ** 2
        return 0.5 * (itakura_saito(other.precision / self.precision) + square)

    @property
    def variance(self) -> Float[Array, "*plate"]:
        return 1 / self.precision

    @property
    def mode(self) -> Float[Array, "*plate"]:
        return self.mean

    def quantile(self, p: ArrayLike) -> Array:
        """Return the value below which a share `p` of the mass lies."""
        return self.mean + self.sd * ndtri(read_share(p, self.mean))

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws"]:
        draws = jax.random.normal(key, shape + self.mean.shape, self.mean.dtype)
        return self.mean + self.sd * draws


@dataclasses.dataclass(frozen=True)
class Normal(Family[NormalState, NormalStatistics]):
    """Real latent for each cell of `plate`: q = N(mean, 1 / precision).

    >>> import vbjax as vb
    >>> vb.Normal((3,))  # three numbers, each with a mean and a precision of its own
    Normal(plate=(3,))
    """

    curvature: ClassVar[str | None] = "second"

    def neutral(self, dtype: DTypeLike) -> NormalState:
        return NormalState(jnp.zeros(self.plate, dtype), jnp.ones(self.plate, dtype))

    def from_gradient(
        self, statistics: NormalStatistics, gradient: NormalStatistics, weight: ArrayLike = 1.0
    ) -> NormalState:
        """Return the state with precision = -2 g2 and mean = c + g1 / precision.

        Where neither rows nor a prior act, the precision is 0 and the mean stays at c. With a conjugate prior
        this is Bishop 2006, eq. 2.141 and 2.142.
        """
        precision = -2 * gradient.second
        pull = jnp.where(precision == 0, 0, gradient.first / jnp.where(precision == 0, 1, precision))
        return NormalState(statistics.pivot + pull, precision / weight)
