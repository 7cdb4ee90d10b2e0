"""Wishart: statistics X and log det X, state (degrees of freedom, inverse scale); Bishop 2006, eq. B.78.

The base measure is |X|^(-(D + 1) / 2), so that the natural parameters are nu / 2 and -W^-1 / 2.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.base import Family, State, Statistics, pytree, read_share, vanishes
from vbjax.families.gamma import GammaState
from vbjax.numerics.compilation import full_precision
from vbjax.numerics.linalg import (
    cholesky,
    inverse_and_logdet,
    inverse_from_cholesky,
    logdet_from_cholesky,
    solve_lower,
    stein_loss,
    symmetrize,
    transpose,
)
from vbjax.numerics.special import LOG_2PI, LOG_PI, digamma_remainder, gammaln_remainder


@pytree
class WishartStatistics(Statistics):
    """Statistics E[X], E[log det X] of a positive definite latent; `base` is -(D + 1) / 2 E[log det X].

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(f"{vb.families.WishartStatistics.of(2 * jnp.eye(2)).logdet:.4f}")  # 2 log 2
    1.3863
    """

    value: Float[Array, "*plate d d"]
    logdet: Float[Array, "*plate"]
    base: Float[Array, "*plate"]
    events = {"value": 2, "logdet": 0}
    point_domains = {"value": "definite"}

    @classmethod
    def of(cls, x: ArrayLike) -> WishartStatistics:
        """Return the statistics of a positive definite matrix."""
        x = jnp.asarray(x)
        logdet = logdet_from_cholesky(cholesky(x))
        return cls(x, logdet, -0.5 * (x.shape[-1] + 1) * logdet)

    def at(self, point: Float[Array, "*plate d d"]) -> WishartStatistics:
        value, logdet = inverse_and_logdet(point)
        return WishartStatistics(value, logdet, -0.5 * (value.shape[-1] + 1) * logdet)

    def value_at(self, point: Float[Array, "*plate d d"]) -> Float[Array, "*plate d d"]:
        return inverse_and_logdet(point)[0]


def _halves(degrees_of_freedom: Float[Array, "*plate"], size: int) -> tuple[Array, Float[Array, "*plate d"]]:
    """Return i = 1..D and x_i = (nu + 1 - i) / 2, on a new last axis."""
    i = jnp.arange(1, size + 1, dtype=degrees_of_freedom.dtype)
    return i, 0.5 * (degrees_of_freedom[..., None] + 1 - i)


def wishart_log_density(
    value: Float[Array, "*cells d d"],
    logdet: Float[Array, "*cells"],
    degrees_of_freedom: Array,
    inverse_scale: Float[Array, "*prior d d"],
) -> Float[Array, " ..."]:
    """Return nu/2 E[log det X] - tr(W^-1 E[X]) / 2 - A, with Stirling's part cancelled on paper.

    Bishop 2006, eq. B.78, whose normaliser is eq. B.79.
    """
    size = inverse_scale.shape[-1]
    nu = jnp.asarray(degrees_of_freedom, inverse_scale.dtype)
    i, x = _halves(nu, size)
    match = logdet + logdet_from_cholesky(cholesky(inverse_scale)) - size * jnp.log(nu)
    trace = (inverse_scale * value).sum((-1, -2))
    constants = 0.5 * i * jnp.log(x) - 0.5 * nu[..., None] * jnp.log1p((1 - i) / nu[..., None])
    constants = (constants - 0.5 * (i - 1) - 0.5 * LOG_2PI - gammaln_remainder(x)).sum(-1)
    return 0.5 * nu * match - 0.5 * (trace - size * nu) + constants - size * (size - 1) / 4 * LOG_PI


def wishart_base_entropy(degrees_of_freedom: Float[Array, "*plate"], size: int) -> Float[Array, "*plate"]:
    """Return A - <eta, E[t]>, the entropy relative to the base measure; the scale does not enter."""
    i, x = _halves(degrees_of_freedom, size)
    psi = digamma_remainder(x)
    terms = gammaln_remainder(x) - 0.5 * degrees_of_freedom[..., None] * psi
    terms = terms + 0.5 * (LOG_2PI - i * jnp.log(x) + i - 1)
    return terms.sum(-1) + size * (size - 1) / 4 * LOG_PI


def wishart_kl(nu: Array, inverse_scale: Array, nu0: Array, inverse_scale0: Array) -> Array:
    """Return KL(Wishart(nu, W) || Wishart(nu0, W0)), with Stirling's part cancelled on paper."""
    i, x = _halves(nu, inverse_scale.shape[-1])
    _, x0 = _halves(nu0, inverse_scale.shape[-1])
    spread = stein_loss(cholesky(inverse_scale), cholesky(inverse_scale0), nu / nu0)  # of the means
    edge = jnp.log1p((1 - i) / nu0[..., None]) - jnp.log1p((1 - i) / nu[..., None])
    terms = (x - x0) * digamma_remainder(x) + gammaln_remainder(x0) - gammaln_remainder(x)
    terms = terms + 0.5 * (i * jnp.log(x / x0) + nu0[..., None] * edge)
    return 0.5 * nu0 * spread + terms.sum(-1)


def wishart_expected(
    degrees_of_freedom: Float[Array, "*plate"], inverse_scale: Float[Array, "*plate d d"]
) -> tuple[Float[Array, "*plate d d"], Float[Array, "*plate"]]:
    """Return E[X] = nu W and E[log det X] = sum digamma(x_i) + D log 2 - log det W^-1.

    Bishop 2006, eq. B.80 and B.81, the latter also eq. 10.65.
    """
    root = cholesky(inverse_scale)
    _, x = _halves(degrees_of_freedom, inverse_scale.shape[-1])
    logdet = (jnp.log(2 * x) + digamma_remainder(x)).sum(-1) - logdet_from_cholesky(root)
    return degrees_of_freedom[..., None, None] * inverse_from_cholesky(root), logdet


@full_precision()
def wishart_covariance(
    degrees_of_freedom: Float[Array, "*plate"], scale: Float[Array, "*plate d d"]
) -> Float[Array, "*plate d d d d"]:
    """Return Cov(X_ij, X_kl) = nu (W_ik W_jl + W_il W_jk), four axes after the plate."""
    product = jnp.einsum("...ik,...jl->...ijkl", scale, scale)
    swapped = jnp.einsum("...il,...jk->...ijkl", scale, scale)
    return degrees_of_freedom[..., None, None, None, None] * (product + swapped)


def wishart_variance(
    degrees_of_freedom: Float[Array, "*plate"], scale: Float[Array, "*plate d d"]
) -> Float[Array, "*plate d d"]:
    """Return Var(X_ij) = nu (W_ij^2 + W_ii W_jj)."""
    diagonal = jnp.diagonal(scale, axis1=-2, axis2=-1)
    return degrees_of_freedom[..., None, None] * (scale**2 + diagonal[..., :, None] * diagonal[..., None, :])


def sample_wishart_roots(
    key: Array, degrees_of_freedom: Array, inverse_scale: Array, shape: tuple[int, ...]
) -> tuple[Array, Array]:
    """Draw Bartlett's factors: return L, the factor of W^-1 = L L', and lower factors B.

    The draw they stand for is X = (L^-T B)(L^-T B)'.
    """
    size = inverse_scale.shape[-1]
    _, x = _halves(degrees_of_freedom, size)
    shape = shape + inverse_scale.shape[:-2]
    key_diagonal, key_below = jax.random.split(key)
    chi = jnp.sqrt(2 * jax.random.gamma(key_diagonal, x, (*shape, size), x.dtype))
    below = jnp.tril(jax.random.normal(key_below, (*shape, size, size), x.dtype), -1)
    return cholesky(inverse_scale), below + chi[..., None] * jnp.eye(size, dtype=x.dtype)


def wishart_from_roots(scale_tril: Array, bartlett: Array) -> Array:
    """Return the draw X that Bartlett's factors stand for."""
    root = solve_lower(scale_tril, bartlett, transposed=True)
    return root @ transpose(root)


@pytree
class WishartState(State[WishartStatistics]):
    """Wishart(degrees_of_freedom, W) with W given by its inverse; the mean is nu W.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.families.WishartState(jnp.array(4.0), 2 * jnp.eye(2)).mean.round(3))
    [[2. 0.]
     [0. 2.]]
    """

    degrees_of_freedom: Float[Array, "*plate"]
    inverse_scale: Float[Array, "*plate d d"]
    domains = {"degrees_of_freedom": "degrees", "inverse_scale": "definite"}

    @property
    def scale(self) -> Float[Array, "*plate d d"]:
        """Scale matrix W, the inverse of `inverse_scale`."""
        return inverse_from_cholesky(cholesky(self.inverse_scale))

    def statistics(self, x: ArrayLike) -> WishartStatistics:
        return WishartStatistics.of(x)

    def expected(self) -> WishartStatistics:
        value, logdet = wishart_expected(self.degrees_of_freedom, self.inverse_scale)
        return WishartStatistics(value, logdet, -0.5 * (value.shape[-1] + 1) * logdet)

    def log_density(self, statistics: WishartStatistics) -> Float[Array, "*plate"]:
        return wishart_log_density(
            statistics.value, statistics.logdet, self.degrees_of_freedom, self.inverse_scale
        )

    def base_entropy(self) -> Float[Array, "*plate"]:
        return wishart_base_entropy(self.degrees_of_freedom, self.inverse_scale.shape[-1])

    def divergence(self, other: WishartState) -> Float[Array, "*plate"]:
        return wishart_kl(
            self.degrees_of_freedom, self.inverse_scale, other.degrees_of_freedom, other.inverse_scale
        )

    @property
    def mean(self) -> Float[Array, "*plate d d"]:
        return self.degrees_of_freedom[..., None, None] * self.scale

    @property
    def variance(self) -> Float[Array, "*plate d d"]:
        return wishart_variance(self.degrees_of_freedom, self.scale)

    @property
    def covariance(self) -> Float[Array, "*plate d d d d"]:
        return wishart_covariance(self.degrees_of_freedom, self.scale)

    @property
    def mode(self) -> Float[Array, "*plate d d"]:
        excess = self.degrees_of_freedom - self.inverse_scale.shape[-1] - 1
        return jnp.where(excess > 0, excess, jnp.nan)[..., None, None] * self.scale

    def quantile(self, p: ArrayLike) -> Array:
        """Return quantiles of the entries: Gamma's on the diagonal, a normal distribution's elsewhere."""
        p, df = jnp.broadcast_arrays(read_share(p, self.degrees_of_freedom), self.degrees_of_freedom)
        rates = 0.5 / jnp.diagonal(self.scale, axis1=-2, axis2=-1)
        own = GammaState(0.5 * df[..., None], rates).quantile(p[..., None])
        around = self.mean + ndtri(p)[..., None, None] * self.sd
        return jnp.where(jnp.eye(rates.shape[-1], dtype=bool), own[..., None], around)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws d d"]:
        roots = sample_wishart_roots(key, self.degrees_of_freedom, self.inverse_scale, shape)
        return wishart_from_roots(*roots)


@dataclasses.dataclass(frozen=True)
class Wishart(Family[WishartState, WishartStatistics]):
    """Precision matrix of `size` x `size` for each cell of `plate`.

    >>> import jax, vbjax as vb
    >>> t = vb.Wishart(1).neutral("float32").expected()
    >>> q = vb.Wishart(1).from_gradient(t, jax.grad(lambda s: vb.terms.wishart(s, 3.0, [[2.0]]))(t))
    >>> print(q.degrees_of_freedom, q.inverse_scale)
    3.0 [[2.]]
    """

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 1

    def neutral(self, dtype: DTypeLike) -> WishartState:
        eye = jnp.broadcast_to(jnp.eye(self.size, dtype=dtype), (*self.plate, self.size, self.size))
        return WishartState(jnp.full(self.plate, self.size + 2, dtype), (self.size + 2) * eye)

    def from_gradient(
        self, statistics: WishartStatistics, gradient: WishartStatistics, weight: ArrayLike = 1.0
    ) -> WishartState:
        """Return the state with nu / 2 = g_logdet and W^-1 = -2 G.

        g_logdet is corrected if the log joint holds no density of X, or several.
        """
        weight = jnp.asarray(weight)
        nu = 2 * gradient.logdet + (self.size + 1) * (weight - gradient.base)
        return WishartState(nu / weight, symmetrize(-2 * gradient.value) / weight[..., None, None])

    def maximise(
        self, statistics: WishartStatistics, gradient: WishartStatistics
    ) -> Float[Array, "*plate d d"]:
        """Return the inverse of the best X, -G / g_logdet: it is at hand where X is not."""
        number = jnp.where(self.is_idle(gradient), 1, self._number(gradient))
        return symmetrize(-2 * gradient.value) / number[..., None, None]

    def is_idle(self, gradient: WishartStatistics) -> Bool[Array, "*plate"]:
        number = self._number(gradient)
        return (number < 0) | vanishes(number)

    def _number(self, gradient: WishartStatistics) -> Float[Array, "*plate"]:
        return 2 * gradient.logdet - (self.size + 1) * gradient.base
