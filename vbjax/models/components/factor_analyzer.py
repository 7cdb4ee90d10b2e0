"""Rows whose covariance comes from a few factors: factor analysers, for mixtures and hidden Markov models."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float

from vbjax.core.hyperparameters import POSITIVE, choice, count, hyper, read_columns
from vbjax.core.rows import total_weight
from vbjax.data.moments import positive_scale, weighted_moments
from vbjax.families.base import LocationPrecision, pytree
from vbjax.families.delta import DeltaState
from vbjax.families.joint import LocationCovariance
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaStatistics,
)
from vbjax.models.components.component import Component, Pullback
from vbjax.models.components.covariance import MAXIMISERS, Update, n_covariance_parameters
from vbjax.models.components.covariance.parsimonious import ALIASES
from vbjax.models.components.seeding import Distance, squared_distance
from vbjax.numerics.inputs import read_table
from vbjax.numerics.jacobi import eigenvectors
from vbjax.numerics.linalg import (
    cholesky,
    inverse_from_cholesky,
    logdet_from_cholesky,
    outer,
    quadratic_form,
    symmetrize,
    transpose,
)
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Data, Hyper, Params, Tree

NOISES = ("diag", "spherical", "VVI", "VEI", "EVI", "EEI", "VII", "EII")

_BLOCK_BYTES = 2**21  # the residuals of a block stay in a core's cache
_OF_FACTORS = 0.2  # the share of the variances that factors have where a run starts


class Prepared(NamedTuple):
    """Components as a block of rows needs them.

    Attributes:
        pivot: (d,), a point amid the means, so that products are of small numbers.
        mean: (k, d), about the pivot.
        loadings: Lam, (k, d, q).
        root: Psi^(-1/2), (k, d).
        covariance: of the factors given a row, (k, q, q).
        gain: E[z | x] = gain (x - mean), (k, q, d).
        constant: (k,), the log density at the mean.
    """

    pivot: Array
    mean: Array
    loadings: Array
    root: Array
    covariance: Array
    gain: Array
    constant: Array


class Moments(NamedTuple):
    """Sums over rows of responsibilities, by component, of what a regression of x on u = (z, 1) needs.

    Attributes:
        number: (k,), of 1.
        square: (k, d), of E[e^2], e = x - mu - Lam z.
        cross: (k, d, q + 1), of E[e u'].
        gram: (k, q + 1, q + 1), of E[u u'].
    """

    number: Array
    square: Array
    cross: Array
    gram: Array


@pytree
class FactorAnalyzer(Component):
    """Rows x_n | c_n = k ~ N(mu_k + Lam_k z_n, Psi_k) with q factors z_n ~ N(0, I), Psi_k diagonal; by EM.

    So x_n | c_n = k ~ N(mu_k, Lam_k Lam_k' + Psi_k), of some d q numbers where a covariance matrix has
    d (d + 1) / 2. With S_k = (I + Lam_k' Psi_k^-1 Lam_k)^-1 the E-step is

        E[z_n | k] = S_k Lam_k' Psi_k^-1 (x_n - mu_k),   E[z_n z_n' | k] = S_k + E[z_n | k] E[z_n | k]',

    and costs some 3 d q products a row and component; no matrix of d x d is made. The M-step is the weighted
    regression of x on (z, 1) by these moments; then factors are moved to mean 0 and covariance I under the
    responsibilities, and Lam_k takes what they had (parameter-expanded EM, which needs far fewer sweeps), and
    turned so that Lam_k' Psi_k^-1 Lam_k is diagonal, the largest first. None lowers the likelihood.

    The type of noise has a name of two letters and I, after mclust, for its volume and its shape, over
    components (equal or varying) and columns (I for one variance of all). As loadings are free, these are the
    models UUU, UUC, UCU and UCC of McNicholas & Murphy (2008), and UCUU and UUCU of 2010:

        "diag" or VVI (UUU), "spherical" or VII (UUC, mixtures of probabilistic PCA), EEI (UCU), EII (UCC),
        VEI (UCUU), EVI (UUCU).

    The likelihood is unbounded where a noise variance vanishes (a Heywood case): all obey psi_kj >=
    noise_floor x the data's variance, and a run that ends there is flagged in `fit.runs.singular`.

    Data: (n, d), whole. The parameters are a point of a MultivariateNormalGamma, (k, d): `location`
    (k, d, q + 1) are the loadings and, last, the means, `precision` the inverse noise variances.

    Args:
        n_factors: q, at most d.
        noise_type: "diag", "spherical", or another of the names above.
        noise_floor: the smallest noise variance, relative to its column's; of one variance for all columns,
            to their mean.
        scale: (d,), the data's variances, by default from the data.

    Raises:
        ValueError: more factors than columns; an entry that is missing; a model by variational Bayes.

    References:
        Ghahramani & Hinton (1996), The EM algorithm for mixtures of factor analyzers; Tipping & Bishop
        (1999), Mixtures of probabilistic principal component analysers; Liu, Rubin & Wu (1998), Parameter
        expansion to accelerate EM: the PX-EM algorithm; McNicholas & Murphy (2008), Parsimonious Gaussian
        mixture models, table 1, and (2010), Model-based clustering of microarray expression data via latent
        Gaussian mixture models.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.Mixture(2, vb.components.FactorAnalyzer(1)), x, key=jax.random.key(0))
    >>> fit.model.component.loadings(fit.params).shape
    (2, 2, 1)
    """

    n_factors: int = count("q")
    noise_type: str = choice(*NOISES)
    noise_floor: Hyper = hyper(1e-6, POSITIVE)
    scale: Hyper = hyper(None, POSITIVE, "d")

    @property
    def family(self) -> MultivariateNormalGamma:
        return MultivariateNormalGamma(self.n_factors + 1, plate=(self.n_laws, self.columns))

    @property
    def _kind(self) -> str:
        """The name of the noise, of three letters."""
        return ALIASES.get(self.noise_type, self.noise_type)

    @property
    def _isotropic(self) -> bool:
        """Whether the noise has one variance for all columns."""
        return self._kind[1] == "I"

    @property
    def floor(self) -> Float[Array, " d"]:
        """The smallest variances allowed of the noise."""
        unit = jnp.full_like(self.scale, self.scale.mean()) if self._isotropic else self.scale
        return self.noise_floor * unit

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Float[Array, "n d"]:
        if not self.points:
            raise ValueError(
                "component must have a prior for variational Bayes: factor analysers are by EM alone, in "
                "vb.Mixture and vb.HiddenMarkovModel"
            )
        if self.scale is None:  # a fit; later uses may be of any number of rows
            read_table(data, min_rows=self.n_laws)
        x = read_columns(self, data)
        if self.n_factors > x.shape[1]:
            raise ValueError(
                f"n_factors must be at most the {x.shape[1]} columns of data; got {self.n_factors}"
            )
        return x

    def defaults(self, data: Data, weights: Float[Array, " n"] | None) -> dict[str, Tree]:
        scale = positive_scale(weighted_moments(data, weights)[1])
        return dict(scale=scale, noise_floor=jnp.asarray(1e-6, scale.dtype))

    def chunk_rows(self, data: Data) -> int:
        cached = _BLOCK_BYTES // (self.n_laws * data.shape[1] * data.dtype.itemsize)
        return max(1, min(super().chunk_rows(data), cached))

    def distance(self, data: Float[Array, "n d"], weights: Array | None) -> Distance | None:
        return squared_distance(data, self.scale)

    # -- E-step --------------------------------------------------------------------------------------

    def table(
        self, statistics: MultivariateNormalGammaStatistics, rows: Float[Array, "n d"]
    ) -> Float[Array, "n k"]:
        """Compute log densities, the factors integrated out of a Gaussian in z: exp(c + b'z - z'A z / 2)."""
        t, tau = statistics, statistics.precision
        w, mean = t.pivot[..., :-1], t.pivot[..., -1]
        shift = rows[:, None] - mean  # (n, k, d)
        crossed = jnp.einsum("kdi,kdj->kij", w, t.cross[..., :-1])
        a = jnp.einsum("kd,kdi,kdj->kij", tau, w, w) + crossed + transpose(crossed)
        a = a + t.square[..., :-1, :-1].sum(1) + jnp.eye(self.n_factors, dtype=rows.dtype)
        b = jnp.einsum("nkd,kdi->nki", shift, tau[..., None] * w + t.cross[..., :-1])
        b = b - (t.cross[..., -1:] * w + t.square[..., :-1, -1]).sum(1)
        square = tau * shift**2 - 2 * shift * t.cross[..., -1] + t.square[..., -1, -1]
        root = cholesky(a)
        of_rows = 0.5 * (t.logdet - LOG_2PI - square).sum(-1)
        return of_rows + 0.5 * (quadratic_form(inverse_from_cholesky(root), b) - logdet_from_cholesky(root))

    def prepare(self, params: Params) -> Prepared:  # type: ignore[override]
        location, variance = params["components"].value
        mean, loadings = location[..., -1], location[..., :-1]
        pivot, scaled = mean.mean(0), transpose(loadings / variance[..., None])
        root = cholesky(jnp.eye(self.n_factors, dtype=mean.dtype) + symmetrize(scaled @ loadings))
        covariance = inverse_from_cholesky(root)
        logdet = jnp.log(variance).sum(1) + logdet_from_cholesky(root)
        constant = -0.5 * (logdet + self.columns * LOG_2PI)
        return Prepared(
            pivot, mean - pivot, loadings, 1 / jnp.sqrt(variance), covariance, covariance @ scaled, constant
        )

    def log_density(  # type: ignore[override]
        self, prepared: Prepared, rows: Float[Array, "n d"]
    ) -> tuple[Float[Array, "k n"], Pullback]:
        """Compute log densities by sums of squares of what factors leave, x - mu - Lam E[z], and moments."""
        c = prepared
        shift, z = self._factors(c, rows)
        residual = shift - c.loadings @ z  # (k, d, n)
        square = (c.root[..., None] * residual) ** 2
        density = c.constant[:, None] - 0.5 * (square.sum(1) + (z * z).sum(1))

        def pull(r: Float[Array, "k n"]) -> Record:
            number, one = r.sum(1), jnp.ones_like(z[:, :1])
            u = jnp.concatenate([z, one], 1)
            weighted = transpose(r[:, None] * u)  # (k, n, q + 1)
            spread = jnp.pad(number[:, None, None] * c.covariance, ((0, 0), (0, 1), (0, 1)))
            padded = jnp.pad(c.loadings, ((0, 0), (0, 0), (0, 1)))
            left = (r[:, None] * square).sum(2) / c.root**2
            left = left + (c.loadings * (c.loadings @ spread[:, :-1, :-1])).sum(-1)
            moments = Moments(number, left, residual @ weighted - padded @ spread, u @ weighted + spread)
            return Record(components=_gradient(moments, jnp.zeros_like(moments.cross)))

        return density, pull

    def _factors(
        self, c: Prepared, rows: Float[Array, "n d"]
    ) -> tuple[Float[Array, "k d n"], Float[Array, "k q n"]]:
        """Compute x - mu_k and E[z | x, k]."""
        x = (rows - c.pivot).T
        k, q, d = c.gain.shape
        z = (c.gain.reshape(k * q, d) @ x).reshape(k, q, -1)  # one product for all components
        at_mean = jnp.einsum("kqd,kd->kq", c.gain, c.mean)
        return x - c.mean[..., None], z - at_mean[..., None]

    # -- M-step --------------------------------------------------------------------------------------

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        """Return points after an update: factors of mean 0 and covariance I, noise as it must be."""
        point = params["components"]
        previous = point if before is None else before["components"]
        if before is not None and point is previous:
            return params
        family, gradient = self.family, point.gradient
        number = jnp.where(family.is_idle(gradient), 0, family.rows_behind(gradient))
        there = number[:, 0] > 0
        gram = -2 * gradient.square[:, 0] / jnp.where(there, number[:, 0], 1)[:, None, None]
        middle, eye = (
            jnp.where(there[:, None], gram[:, :-1, -1], 0),
            jnp.eye(self.n_factors, dtype=gram.dtype),
        )
        spread = jnp.where(there[:, None, None], gram[:, :-1, :-1] - outer(middle, middle), eye)
        location, own = point.value
        loadings = location[..., :-1]
        mean = location[..., -1] + jnp.einsum("kdq,kq->kd", loadings, middle)
        variance = self._noise(own, number, previous.value.covariance)
        loadings = self._turned(loadings @ cholesky(spread), variance)
        location = jnp.concatenate([loadings, mean[..., None]], -1)
        return params | dict(components=self._point(location, own, variance, number[:, 0]))

    def _noise(self, own: Float[Array, "k d"], number: Array, before: Array) -> Float[Array, "k d"]:
        """Return the best noise variances that are alike where they must be, above the floor."""
        if self._isotropic:
            own = jnp.broadcast_to(own.mean(-1, keepdims=True), own.shape)
        if self._kind not in MAXIMISERS:
            return jnp.maximum(own, self.floor)
        total = number.sum(0)
        update = Update(own, number / jnp.where(total > 0, total, 1), before, self.floor)
        return jnp.where(total > 0, MAXIMISERS[self._kind](update), own)

    def _turned(self, loadings: Float[Array, "k d q"], variance: Float[Array, "k d"]) -> Array:
        """Return loadings turned so that Lam' Psi^-1 Lam is diagonal, the largest first.

        That is no other likelihood, makes parameters unique, and keeps a factor of much information from
        taking the digits of the others.
        """
        fixed = lax.stop_gradient(loadings / jnp.sqrt(variance)[..., None])
        axes = eigenvectors(transpose(fixed) @ fixed)[1]
        sign = jnp.where(jnp.diagonal(axes, axis1=1, axis2=2) < 0, -1, 1).astype(axes.dtype)
        return loadings @ (axes * sign[:, None])

    def _point(self, location: Array, own: Array, variance: Array, number: Array) -> DeltaState:
        """Return points that rest on so many rows, which leave noise variances `own`."""
        gram = number[:, None, None] * jnp.eye(location.shape[-1], dtype=location.dtype)
        moments = Moments(number, number[:, None] * own, jnp.zeros_like(location), gram)
        return DeltaState(LocationCovariance(location, variance), _gradient(moments, location))

    def singular(self, params: Params) -> Bool[Array, ""]:
        return (params["components"].value.covariance < 2 * self.floor).any()

    # -- start ---------------------------------------------------------------------------------------

    @property
    def rows_to_start(self) -> int:
        return 1 + self.n_factors

    def start_at(self, seeds: Array, data: Float[Array, "n d"], weights: Array | None = None) -> Record:
        """Return components about their first seeds, as wide as their share of the data.

        Factors point to the other seeds, off by fixed steps: none is 0 or repeats another.
        """
        k, q, d = self.n_laws, self.n_factors, self.columns
        mean, others = seeds[:k], seeds[k:].reshape(q, k, d)
        width = self.scale * self.n_active ** (-2 / d)
        steps = jnp.asarray(
            np.sqrt(2) * np.cos(np.arange(q * d, dtype=float).reshape(q, 1, d) ** 2), seeds.dtype
        )
        directions = (others - mean) / jnp.sqrt(2 * self.scale) + steps
        loadings = jnp.sqrt(_OF_FACTORS / (2 * q) * width) * directions
        location = jnp.concatenate([loadings, mean[None]]).transpose(1, 2, 0)
        own = jnp.broadcast_to((1 - _OF_FACTORS) * width, (k, d))
        number = jnp.full(k, total_weight(data, weights) / self.n_active, seeds.dtype)
        variance = self._noise(own, jnp.broadcast_to(number[:, None], own.shape), own)
        return Record(components=self._point(location, own, variance, number))

    # -- use -----------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        k, q, d = self.n_laws, self.n_factors, self.columns
        free = d * q - q * (q - 1) // 2  # of loadings, but for a rotation
        return k * (d + free) + n_covariance_parameters(self._kind, k, d)

    def draw(self, key: Array, parameters: LocationPrecision, given: None) -> Float[Array, "n d"]:
        location, precision = parameters
        keys = jax.random.split(key)
        z = jax.random.normal(keys[0], (len(location), self.n_factors), location.dtype)
        noise = jax.random.normal(keys[1], precision.shape, location.dtype) / jnp.sqrt(precision)
        return location[..., -1] + jnp.einsum("ndq,nq->nd", location[..., :-1], z) + noise

    def means(self, params: Params) -> Float[Array, "k d"]:
        """Return the means."""
        return params["components"].value.location[..., -1]

    def loadings(self, params: Params) -> Float[Array, "k d q"]:
        """Return the loadings, turned so that Lam' Psi^-1 Lam is diagonal, the largest first."""
        return params["components"].value.location[..., :-1]

    def noise_variances(self, params: Params) -> Float[Array, "k d"]:
        """Return the noise variances of every column."""
        return params["components"].value.covariance

    def covariances(self, params: Params) -> Float[Array, "k d d"]:
        """Return the covariance matrices of rows, Lam Lam' + Psi."""
        loadings, noise = self.loadings(params), self.noise_variances(params)
        return loadings @ transpose(loadings) + noise[..., None] * jnp.eye(self.columns, dtype=noise.dtype)

    def factor_means(self, params: Params, rows: Float[Array, "n d"]) -> Float[Array, "n k q"]:
        """Compute E[z | x, k], the expected factors of rows given every component."""
        return self._factors(self.prepare(params), rows)[1].transpose(2, 0, 1)


def _gradient(moments: Moments, pivot: Float[Array, "k d p"]) -> MultivariateNormalGammaStatistics:
    """Return the gradient of the expected log likelihood in the family's statistics, about a pivot."""
    number, square, cross, gram = moments
    half = jnp.broadcast_to(0.5 * number[:, None], square.shape)
    gram = jnp.broadcast_to(-0.5 * symmetrize(gram)[:, None], (*cross.shape, cross.shape[-1]))
    return MultivariateNormalGammaStatistics(pivot, -0.5 * square, half, cross, gram, jnp.zeros_like(half))
