"""PolyaGamma: the latent that makes a logit conjugate; statistic omega, state the tilt c.

PG(b, c) has the density cosh(c/2)^b exp(-c^2 omega / 2) relative to the base measure PG(b, 0). The density of
PG(b, 0) itself is an infinite series that no update and no bound needs, so log probabilities and entropies
are relative to it.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, Statistics, pytree, static

_SMALL = 0.2  # below it (1 - tanh(h) / h) / h^2 is computed by its Taylor series
_TAYLOR = (
    1 / 3,
    -2 / 15,
    17 / 315,
    -62 / 2835,
    1382 / 155925,
    -21844 / 6081075,
    929569 / 638512875,
    -6404582 / 10854718875,
)

_CUT = 0.64  # the point at which one series for the density of PG(1, 0) takes over from the other
_LEVY_MASS = 0.10564977366685535  # Phi(-1 / sqrt(_CUT))


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return sqrt(x) for x > 0 and 0 below, with a derivative of 0 at 0."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def log_cosh(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return log cosh x, without overflow for any x."""
    x = jnp.abs(x)
    return x + jnp.log1p(jnp.expm1(-2 * x) / 2)


def _mean_and_variance(
    tilt: Float[Array, "*plate"],
) -> tuple[Float[Array, "*plate"], Float[Array, "*plate"]]:
    """Return mean and variance of PG(1, c), exact for every c from 0 to infinity.

    With h = c / 2 they are tanh(h) / (4 h), which is twice the lambda of Bishop 2006, eq. 10.150, and
    (tanh(h) / h - sech(h)^2) / (16 h^2).
    """
    small = jnp.abs(tilt) < 2 * _SMALL
    h = 0.5 * jnp.where(small, 1, tilt)
    square = jnp.where(small, 0.5 * tilt, 0) ** 2
    excess = jnp.zeros_like(square)
    for coefficient in reversed(_TAYLOR):
        excess = excess * square + coefficient
    near = 1 - square * excess
    tanh = jnp.tanh(h)
    ratio = jnp.where(small, near, tanh / h)
    spread = jnp.where(small, near**2 - excess, (tanh / h - (1 - tanh**2)) / h**2)
    return ratio / 4, spread / 16


@pytree
class PolyaGammaStatistics(Statistics):
    """Statistic E[omega].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(f"{vb.families.PolyaGammaState(jnp.array(2.0)).expected().value:.4f}")  # tanh(1) / 4
    0.1904
    """

    value: Float[Array, "*plate"]
    events = {"value": 0}

    @classmethod
    def of(cls, x: ArrayLike) -> PolyaGammaStatistics:
        """Return the statistics of a value."""
        return cls(jnp.asarray(x))


@pytree
class PolyaGammaState(State[PolyaGammaStatistics]):
    """Distribution PG(concentration, tilt), without a mode; densities are relative to PG(concentration, 0).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.PolyaGammaState(jnp.array(0.0))
    >>> print(q.mean, f"{q.variance:.4f}")  # 1 / 4 and 1 / 24
    0.25 0.0417
    """

    tilt: Float[Array, "*plate"]
    concentration: int = static(default=1)
    domains = {"tilt": "real"}

    def statistics(self, x: ArrayLike) -> PolyaGammaStatistics:
        return PolyaGammaStatistics.of(x)

    def expected(self) -> PolyaGammaStatistics:
        return PolyaGammaStatistics(self.mean)

    def log_density(self, statistics: PolyaGammaStatistics) -> Float[Array, "*plate"]:
        return self.concentration * log_cosh(0.5 * self.tilt) - 0.5 * self.tilt**2 * statistics.value

    def base_entropy(self) -> Float[Array, "*plate"]:
        h = 0.5 * self.tilt
        return self.concentration * (0.5 * h * jnp.tanh(h) - log_cosh(h))

    @property
    def mean(self) -> Float[Array, "*plate"]:
        return self.concentration * _mean_and_variance(self.tilt)[0]

    @property
    def variance(self) -> Float[Array, "*plate"]:
        return self.concentration * _mean_and_variance(self.tilt)[1]

    @property
    def mode(self) -> Float[Array, "*plate"]:
        return jnp.full_like(self.tilt, jnp.nan)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws"]:
        # PG(b, c) is a sum of b from PG(1, c), for a whole number b
        shape = (self.concentration, *shape, *self.tilt.shape)
        return _draw(key, jnp.broadcast_to(0.5 * jnp.abs(self.tilt), shape)).sum(0) / 4


def _draw(key: Array, z: Array) -> Array:
    """Draw Jacobi variables J(1, z) = 4 PG(1, 2z) exactly, by rejection with an alternating series.

    The density is cosh(z) exp(-z^2 x / 2) times a series whose first term is twice a Levy density for x
    below the cut, and an exponential above; the later terms are what is accepted of it (Devroye 1986;
    Polson, Scott & Windle 2013, section 4). Of a term that falls off as exp(-12 n (n + 1) / 4) five are
    all of the series in float64. Below the cut the tilted Levy density is proposed as it is, an inverse
    Gaussian, for large z; else the Levy density of the half line below the cut.
    """
    tilted = z > 1 / _CUT
    rate = jnp.pi**2 / 8 + 0.5 * z * z
    log_above = jnp.log(0.5 * jnp.pi / rate) - rate * _CUT  # the two proposals' masses
    log_below = jnp.where(tilted, math.log(2) - z, math.log(4 * _LEVY_MASS))
    share_above = jax.nn.sigmoid(log_above - log_below)

    def trial(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        key, x, done = carry
        key, key_uniform, key_normal = jax.random.split(key, 3)
        u = jax.random.uniform(key_uniform, (4, *z.shape), z.dtype, minval=jnp.finfo(z.dtype).tiny)
        above = u[0] < share_above
        gaussian = _inverse_gaussian(z, jax.random.normal(key_normal, z.shape, z.dtype), u[1])
        below = jnp.where(tilted, gaussian, ndtri(u[1] * _LEVY_MASS) ** -2)
        proposed = jnp.where(above, _CUT - jnp.log(u[2]) / rate, below)
        series = _series(proposed)
        series = jnp.where(above | tilted, series, series * jnp.exp(-0.5 * z * z * proposed))
        fine = (u[3] < series) & (above | (proposed <= _CUT))
        return key, jnp.where(done, x, proposed), done | fine

    start = key, jnp.zeros_like(z), jnp.zeros(z.shape, bool)
    return lax.while_loop(lambda carry: ~carry[2].all(), trial, start)[1]


def _series(x: Array) -> Array:
    """Return the density of J(1, 0) over the first term of its series: sum (-1)^n (2n + 1) r^(n (n + 1))."""
    decay = jnp.where(x > _CUT, 0.5 * jnp.pi**2 * x, 2 / x)
    return sum((-1) ** n * (2 * n + 1) * jnp.exp(-n * (n + 1) * decay) for n in range(5))


def _inverse_gaussian(z: Array, normal: Array, uniform: Array) -> Array:
    """Return an inverse Gaussian draw of mean 1 / z and shape 1 from a normal and a uniform one.

    Michael, Schucany & Haas (1976).
    """
    mean = 1 / jnp.where(z > 0, z, 1)
    y = mean * normal**2
    small = mean / (1 + 0.5 * y + jnp.sqrt(y + 0.25 * y * y))
    return jnp.where(uniform * (mean + small) <= mean, small, mean * (mean / small))


@dataclasses.dataclass(frozen=True)
class PolyaGamma(Family[PolyaGammaState, PolyaGammaStatistics]):
    """Polya-Gamma latent for each cell of `plate`: q = PG(concentration, tilt), a whole concentration.

    It makes the log likelihood of `concentration` trials quadratic in the logit: `terms.logistic` holds one
    density of PG(1, 0).

    References:
        Polson, N., Scott, J. & Windle, J. (2013), Bayesian inference for logistic models using
        Polya-Gamma latent variables, JASA 108, theorem 1 and section 2.

    >>> import jax, vbjax as vb
    >>> t = vb.PolyaGamma().neutral("float32").expected()
    >>> gradient = jax.grad(lambda omega: vb.terms.logistic(1.0, 3.0, omega))(t)
    >>> print(vb.PolyaGamma().from_gradient(t, gradient).tilt)  # the logit
    3.0
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    concentration: int = 1

    def neutral(self, dtype: DTypeLike) -> PolyaGammaState:
        return PolyaGammaState(jnp.zeros(self.plate, dtype), self.concentration)

    def from_gradient(
        self, statistics: PolyaGammaStatistics, gradient: PolyaGammaStatistics, weight: ArrayLike = 1.0
    ) -> PolyaGammaState:
        """Return the state with c^2 = -2 g, which is E[logit^2] (Bishop 2006, eq. 10.163)."""
        return PolyaGammaState(safe_sqrt(-2 * gradient.value / weight), self.concentration)

    def log_normalizer(
        self, statistics: PolyaGammaStatistics, gradient: PolyaGammaStatistics
    ) -> Float[Array, "*plate"]:
        return -self.concentration * log_cosh(0.5 * self.from_gradient(statistics, gradient).tilt)
