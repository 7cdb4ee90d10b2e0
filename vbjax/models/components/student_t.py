"""Student-t rows: Gaussian rows whose scale is drawn anew for each, so that outliers count for little."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import POSITIVE, hyper
from vbjax.core.rows import float_dtype
from vbjax.families.base import pytree, replace
from vbjax.families.degrees_of_freedom import DegreesOfFreedom, DegreesOfFreedomStatistics, gamma_normalizer
from vbjax.families.delta import Delta
from vbjax.families.joint import LocationCovariance
from vbjax.models.components.component import Pullback
from vbjax.models.components.covariance import Prepared
from vbjax.models.components.gaussian import Gaussian
from vbjax.numerics.record import Record
from vbjax.numerics.special import digamma_remainder, log_rising
from vbjax.numerics.types import Hyper, Params, Tree


class PreparedTails(NamedTuple):
    """Components as a block of rows needs them: as Gaussian ones, E[log N] at no distance, and nu; (k,)."""

    gaussian: Prepared
    peak: Array
    df: Array


@pytree
class StudentT(Gaussian):
    """Rows x_n | c_n = k, u_n ~ N(mu_k, (u_n Lam_k)^-1), u_n | c_n = k ~ Gamma(nu_k / 2, nu_k / 2).

    That is a Student-t of nu_k degrees of freedom. With delta_nk = E[(x_n - mu_k)' Lam_k (x_n - mu_k)],

        q(u_n | c_n = k) = Gamma((nu_k + d) / 2, (nu_k + delta_nk) / 2),
        log St_nk = log Gamma((nu_k + d) / 2) - log Gamma(nu_k / 2) - d / 2 log(nu_k pi)
                    + E[log det Lam_k] / 2 - (nu_k + d) / 2 log(1 + delta_nk / nu_k),

    the latter a row's share of the bound once u_n is optimised away, by EM its log density. Locations and
    precisions have the updates of `Gaussian` under the weights r_nk E[u_n | k] in the place of r_nk, but that
    the number of rows behind a covariance stays sum_n r_nk. By EM and by variational Bayes nu_k is a point,
    the root of

        log(nu / 2) - digamma(nu / 2) = sum_n r_nk (E[u_n | k] - E[log u_n | k] - 1) / sum_n r_nk,

    which lies between 0.1 and 10,000, or at the nearer bound. Given q(u) it does not interact with the other
    parameters: one pass serves all, and no update lowers the bound. It is slow where tails are light: 1,000
    rows of 2 columns at nu = 30 take 799 sweeps to tol=1e-9, with `vb.fit(..., accelerate=True)` 21; at
    nu = 3 they take 38 and 11.

    Rows are drawn with their scales and with parameters drawn from q. Their predictive density has no closed
    form by variational Bayes: that of `fit.log_predictive` is at the expected location and precision.

    Data: (n, d), whole. The parameters are those of `Gaussian`, Lam_k being the inverse of the scale matrix,
    and unless it is given `df`, (k,), a point.

    Args:
        covariance_type, location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, scale:
            see `Gaussian`.
        df: nu of all components; by default each one's own is learned, from 4 on.

    Raises:
        ValueError: what `Gaussian` raises; an entry that is missing.

    References:
        Peel & McLachlan (2000), Robust mixture modelling using the t distribution, section 5; Liu & Rubin
        (1995), ML estimation of the t distribution using EM and its extensions; Svensen & Bishop (2005),
        Robust Bayesian mixture modelling.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0.0], [0.2], [0.1], [-0.2], [-0.1], [9.0]])
    >>> fit = vb.fit(vb.Mixture(1, vb.components.StudentT(df=1.0)), x, key=jax.random.key(0))
    >>> bool(abs(fit.params.components.mean.location[0, 0]) < 0.1)  # the mean is 1.5
    True
    """

    df: Hyper = hyper(None, POSITIVE, kw_only=True)
    missing: ClassVar[bool] = False  # type: ignore[misc]

    @property
    def factors(self) -> Record:
        own = super().factors
        return own if self.df is not None else own | Record(df=Delta(DegreesOfFreedom((self.n_laws,))))

    def _df_of(self, params: Params) -> Float[Array, " k"]:
        """Return the degrees of freedom of all laws."""
        return params["df"].value if self.df is None else jnp.broadcast_to(self.df, (self.n_laws,))

    def _peak(self, statistics: Tree) -> Float[Array, " k"]:
        """Compute (E[log det Lam_k] - d log 2 pi) / 2, a Gaussian log density but for the distance."""
        at_location = replace(statistics, square=jnp.zeros_like(statistics.square))
        return self.structure.log_density(at_location, statistics.pivot, own=True)

    # -- E-step --------------------------------------------------------------------------------------

    def energy(self, s: Record, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        peak = self._peak(s.components)
        half = peak - self.table(s.components, rows)
        if self.df is not None:
            return self._log_density_at(peak, self.df, half)
        t: DegreesOfFreedomStatistics = s.df
        # the second term is 0, and makes the gradient that of the density given the optimal q(u)
        return self._log_density_at(peak, 2 * t.value, half) + (t.normalizer - gamma_normalizer(t.value))

    def _log_density_at(self, peak: Array, df: Array, half: Array) -> Array:
        """Compute log St from half the squared distance; peak and df fit its last axis."""
        d = jnp.asarray(0.5 * self.structure.d, half.dtype)
        return peak + log_rising(0.5 * df, d) - (0.5 * df + d) * jnp.log1p(half / (0.5 * df))

    def prepare(self, params: Params) -> PreparedTails:  # type: ignore[override]
        statistics = params["components"].expected()
        return PreparedTails(super().prepare(params), self._peak(statistics), self._df_of(params))

    def log_density(  # type: ignore[override]
        self, prepared: PreparedTails, rows: Float[Array, "n d"]
    ) -> tuple[Float[Array, "k n"], Pullback]:
        c, structure, d = prepared.gaussian, self.structure, self.structure.d
        x = (rows - c.pivot).T
        density, z = structure.table(c, x)
        half = prepared.peak[:, None] - density
        df = prepared.df[:, None]

        def pull(r: Float[Array, "k n"]) -> Record:
            total = df + 2 * half
            scale, excess = (df + d) / total, (d - 2 * half) / total  # E[u], and what it has beyond 1
            moments = structure.moments(c, r * scale, z, x)
            number = structure.gradient(moments._replace(number=r.sum(1)))
            own = Record(components=replace(structure.gradient(moments), logdet=number.logdet))
            if self.df is not None:
                return own
            log = jnp.where(scale < 0.5, jnp.log(scale), jnp.log1p(excess)) - excess
            of_scales = (r * (log + digamma_remainder(0.5 * (df + d)))).sum(1)
            return own | Record(df=DegreesOfFreedomStatistics(of_scales, r.sum(1)))

        return self._log_density_at(prepared.peak, prepared.df, half.T).T, pull

    # -- start and use -------------------------------------------------------------------------------

    def start_at(self, seeds: Array, data: Float[Array, "n d"], weights: Array | None = None) -> Record:
        own = super().start_at(seeds, data, weights)
        return own if self.df is not None else own | Record(df=self.factors.df.neutral(float_dtype(data)))

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        own = super().permute(params, order)
        if self.df is not None:
            return own
        return own | Record(df=jax.tree.map(lambda leaf: leaf[order], params["df"]))

    @property
    def n_parameters(self) -> int:
        return super().n_parameters + (self.n_laws if self.df is None else 0)

    def log_components(self, params: Params, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Compute Student-t densities, by variational Bayes at the expected location and precision."""
        if self.points:
            return self.log_density(self.prepare(params), rows)[0].T
        own = params["components"]
        at_mean = own.expected().at(LocationCovariance(own.location, own.mean_covariance))
        gaussian = self.structure.prepare(own.mean_covariance, at_mean)
        prepared = PreparedTails(gaussian, self._peak(at_mean), self._df_of(params))
        return self.log_density(prepared, rows)[0].T

    def draw_parameters(self, params: Params, key: Array) -> tuple[Array, ...]:  # type: ignore[override]
        return *super().draw_parameters(params, key), self._df_of(params)

    def draw(self, key: Array, parameters: tuple[Array, ...], given: None) -> Float[Array, "n d"]:
        location, precision, df = parameters
        keys = jax.random.split(key)
        scale = jax.random.gamma(keys[0], 0.5 * df, dtype=df.dtype) / (0.5 * df)
        precision = scale.reshape(-1, *[1] * (precision.ndim - 1)) * precision
        return super().draw(keys[1], (location, precision), given)

    def draw_rows(self, params: Params, key: Array, c: Int[Array, " n"], given: None = None) -> Array:
        if self.points:
            return self.redraw_rows(self.draw_parameters(params, key), key, c, given)
        keys = jax.random.split(key)
        marginals = self.structure.marginals(params["components"])
        location, precision = jax.tree.map(lambda leaf: leaf[c], marginals).sample(keys[0])
        return self.draw(keys[1], (location, precision, self._df_of(params)[c]), given)
