"""Gamma: statistics x and log x, state (concentration, rate); base measure 1 / x."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammainc, gammaincc, ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, read_share, vanishes
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.special import (
    LOG_2PI,
    digamma_remainder,
    from_scipy,
    gammaln_remainder,
    itakura_saito,
    quantile,
)


@pytree
class GammaStatistics(Statistics):
    """Statistics E[x] and E[log x], x > 0; `base` is -E[log x]. Products are of independent factors.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> t = vb.families.GammaState(jnp.array(2.0), jnp.array(4.0)).expected()
    >>> print((t * t).value, (8.0 * t).value)  # of a product of two independent ones, and in another unit
    0.25 4.0
    """

    value: Float[Array, "*plate"]
    log: Float[Array, "*plate"]
    base: Float[Array, "*plate"]
    events = {"value": 0, "log": 0}
    point_domains = {"value": "positive"}
    __array_ufunc__ = None  # so that array * statistics comes to __rmul__

    @classmethod
    def of(cls, x: ArrayLike) -> GammaStatistics:
        """Return the statistics of a value."""
        x = jnp.asarray(x)
        return cls(x, jnp.log(x), -jnp.log(x))

    def at(self, point: Array) -> GammaStatistics:
        """Return the statistics of a point; one at 0 gets the log of the smallest number: 0 log 0 = 0."""
        return self.of(jnp.maximum(point, jnp.finfo(point.dtype).tiny))

    def __mul__(self, other: GammaStatistics | ArrayLike) -> GammaStatistics:
        if not isinstance(other, GammaStatistics):
            other = GammaStatistics.of(other)
        log = self.log + other.log
        return GammaStatistics(self.value * other.value, log, -log)

    __rmul__ = __mul__


def gamma_log_density(t: GammaStatistics, concentration: Array, rate: Array) -> Array:
    """Return a log b - log Gamma(a) + a E[log x] - b E[x], arranged so that a large a cancels on paper."""
    a, b = concentration, rate
    return (
        a * (t.log + jnp.log(b / a)) - (b * t.value - a) + 0.5 * (jnp.log(a) - LOG_2PI) - gammaln_remainder(a)
    )


def gamma_base_entropy(concentration: Array) -> Array:
    """Return log(2 pi / a) / 2 + R(a) - a P(a): the entropy relative to the base measure 1 / x.

    R and P are `gammaln_remainder` and `digamma_remainder`; the rate does not enter.
    """
    a = concentration
    return 0.5 * (LOG_2PI - jnp.log(a)) + gammaln_remainder(a) - a * digamma_remainder(a)


def gamma_kl(concentration: Array, rate: Array, concentration0: Array, rate0: Array) -> Array:
    """Return KL(Gamma(a, b) || Gamma(a0, b0)), with Stirling's part cancelled on paper."""
    a, a0 = concentration, concentration0
    ratio = (a / a0) * (rate0 / rate)  # of the means
    linear = a0 * itakura_saito(ratio) + (a - a0) * digamma_remainder(a)
    return linear + 0.5 * jnp.log(a / a0) + gammaln_remainder(a0) - gammaln_remainder(a)


def gamma_expected_log(concentration: Array, rate: Array) -> Array:
    """Return E[log x] = digamma(a) - log b (Bishop 2006, eq. B.30), as log(a / b) + P(a)."""
    return jnp.log(concentration / rate) + digamma_remainder(concentration)


@pytree
class GammaState(State[GammaStatistics]):
    """Gamma(concentration, rate) with the mean concentration / rate (Bishop 2006, eq. B.26).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.GammaState(concentration=jnp.array(2.0), rate=jnp.array(4.0)).mean)
    0.5
    """

    concentration: Float[Array, "*plate"]
    rate: Float[Array, "*plate"]
    domains = {"concentration": "positive", "rate": "positive"}

    def statistics(self, x: ArrayLike) -> GammaStatistics:
        return GammaStatistics.of(x)

    def expected(self) -> GammaStatistics:
        log = gamma_expected_log(self.concentration, self.rate)
        return GammaStatistics(self.mean, log, -log)

    def log_density(self, statistics: GammaStatistics) -> Float[Array, "*plate"]:
        return gamma_log_density(statistics, self.concentration, self.rate)

    def base_entropy(self) -> Float[Array, "*plate"]:
        return gamma_base_entropy(self.concentration)

    def divergence(self, other: GammaState) -> Float[Array, "*plate"]:
        return gamma_kl(self.concentration, self.rate, other.concentration, other.rate)

    @property
    def mean(self) -> Float[Array, "*plate"]:
        return self.concentration / self.rate

    @property
    def variance(self) -> Float[Array, "*plate"]:
        return self.concentration / self.rate**2

    @property
    def mode(self) -> Float[Array, "*plate"]:
        return jnp.maximum(self.concentration - 1, 0) / self.rate

    def quantile(self, p: ArrayLike) -> Array:
        """Return the value below which a share `p` of the mass lies."""
        p = read_share(p, self.concentration)
        return _standard_quantile(*jnp.broadcast_arrays(self.concentration, p)) / self.rate

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws"]:
        shape = shape + self.concentration.shape
        return jax.random.gamma(key, self.concentration, shape, self.concentration.dtype) / self.rate


def _standard_quantile(concentration: Array, p: Array) -> Array:
    """Return a quantile of Gamma(a, 1) by its distribution function, or by an expansion where a is large.

    For a large a the distribution function loses digits. The expansion is that of Cornish & Fisher (1937), to
    the order 1 / a: Abramowitz & Stegun (1964), eq. 26.2.49.
    """
    if is_concrete((concentration, p)):
        return from_scipy("gammaincinv", concentration, p)
    large = 3e2 if p.dtype.itemsize == 4 else 1e6
    a = jnp.minimum(concentration, large)
    density = lambda x: jnp.exp(gamma_log_density(GammaStatistics.of(x), a, jnp.ones_like(a)) - jnp.log(x))
    x = quantile(p, lambda x: jnp.where(p > 0.5, gammaincc(a, x), gammainc(a, x)), density, jnp.inf)
    z, root = ndtri(p), jnp.sqrt(concentration)
    expansion = (z**2 - 1) / 3 + (z**3 - 7 * z) / (36 * root) - (3 * z**4 + 7 * z**2 - 16) / (810 * root**2)
    return jnp.where(concentration > large, concentration + (z * root + expansion), x)


@dataclasses.dataclass(frozen=True)
class Gamma(Family[GammaState, GammaStatistics]):
    """Positive latent (a precision, a rate) for each cell of `plate`.

    >>> import vbjax as vb
    >>> vb.Gamma((2, 3))
    Gamma(plate=(2, 3))
    """

    def neutral(self, dtype: DTypeLike) -> GammaState:
        return GammaState(jnp.full(self.plate, 2.0, dtype), jnp.full(self.plate, 2.0, dtype))

    def from_gradient(
        self, statistics: GammaStatistics, gradient: GammaStatistics, weight: ArrayLike = 1.0
    ) -> GammaState:
        """Return the state with a = g_log and b = -g_x (Bishop 2006, eq. 2.150 and 2.151).

        g_log is corrected if the log joint holds no density of x, or several.
        """
        return GammaState((gradient.log + (weight - gradient.base)) / weight, -gradient.value / weight)

    def maximise(self, statistics: GammaStatistics, gradient: GammaStatistics) -> Float[Array, "*plate"]:
        """Return x = g_log / -g_x."""
        rate = jnp.where(self.is_idle(gradient), 1, -gradient.value)
        return jnp.maximum(gradient.log - gradient.base, 0) / rate

    def is_idle(self, gradient: GammaStatistics) -> Bool[Array, "*plate"]:
        return vanishes(gradient.value)
