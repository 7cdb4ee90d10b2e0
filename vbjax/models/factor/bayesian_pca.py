"""Principal components whose number the evidence finds: Bishop (1999)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, count, flag, hyper
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState
from vbjax.families.multivariate_normal import MultivariateNormalState
from vbjax.models.factor.base import FactorModel
from vbjax.numerics.linalg import symmetrize
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper, Tree


def _of_noise(model: Any, sizes: Mapping[str, int]) -> tuple[Tree, ...]:
    return (POSITIVE, "p") if model.noise_per_column else (POSITIVE,)


@pytree
class BayesianPCA(FactorModel):
    """Rows x_n ~ N(W z_n + mu, I / tau), z_n ~ N(0, I), with a relevance for each column of W.

        w_ji ~ N(0, 1 / alpha_i),   alpha_i ~ Gamma(a, b),   tau ~ Gamma(c, d),   mu_j ~ N(m0_j, 1 / beta_j)

    and q(Z) prod_j q(w_j) q(mu) q(alpha) q(tau). With S = (I + sum_j E[tau] E[w_j w_j'])^-1 the updates are

        E[z_n] = S E[tau] E[W]'(x_n - E[mu]),
        Cov(w_j) = (diag E[alpha] + E[tau] sum_n E[z_n z_n'])^-1,
        E[w_j] = Cov(w_j) E[tau] sum_n (x_nj - E[mu_j]) E[z_n],
        alpha_i ~ Gamma(a + p / 2, b + sum_j E[w_ji^2] / 2),
        tau ~ Gamma(c + n p / 2, d + sum_n E[|x_n - mu - W z_n|^2] / 2).

    A column that the data do not ask for vanishes, its E[alpha_i] large; the others are principal axes.
    The objective is the evidence lower bound. With `noise_per_column` it is Bayesian factor analysis, a
    tau_j for each column.

    Data: (n, p). The factors are `w` (p, q), `mu` (p,), `alpha` (q,) and `tau`.

    Args:
        n_components: q, an upper bound.
        noise_per_column: one noise precision for each column instead of one for all.
        missing: NaN is a missing entry; otherwise it is an error.
        location: m0 (p,); by default the columns' means.
        location_precision: beta (p,); by default 1e-3 over the columns' variances.
        relevance_concentration, relevance_rate: a and b, numbers or (q,); by default 1e-3, and 1e-3 x the
            columns' mean variance.
        concentration, rate: c and d, numbers or, with `noise_per_column`, (p,); by default 1e-3,
            and 1e-3 x the mean variance (or, for each column, its own).
        scale: (p,), the columns' variances, by default from the data.

    Raises:
        ValueError: more components than columns; NaN without `missing=True`; infinities.

    References:
        Bishop, C. (1999), Variational principal components, ICANN, eq. 12 to 25; Bishop (2006), section
        12.2.3; Luttinen, J. & Ilin, A. (2010), Transformations in variational Bayesian factor analysis to
        speed up learning, Neurocomputing 73.

    >>> import jax, vbjax as vb
    >>> z, noise = jax.random.normal(jax.random.key(1), (2, 200, 5))
    >>> fit = vb.fit(vb.BayesianPCA(4), 3 * z[:, :1] + noise, key=jax.random.key(0))
    >>> int((fit.params.alpha.mean < 1).sum())
    1
    """

    n_components: int = count("q")
    noise_per_column: bool = flag()
    missing: bool = flag()
    location: Hyper = hyper(None, REAL, "p")
    location_precision: Hyper = hyper(None, POSITIVE, "p")
    relevance_concentration: Hyper = hyper(1e-3, POSITIVE, "q")
    relevance_rate: Hyper = hyper(None, POSITIVE, "q")
    concentration: Hyper = hyper(1e-3, _of_noise)
    rate: Hyper = hyper(None, _of_noise)
    scale: Hyper = hyper(None, POSITIVE, "p")

    @property
    def factors(self) -> Record:
        return self.parts | dict(alpha=Gamma((self.n_components,)))

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return ("w",), ("mu", "alpha"), ("tau",)

    def resolve(self, data: Array, weights: Array | None = None) -> BayesianPCA:
        mean, scale = self.moments(data, weights)
        model = fill_defaults(self, data.dtype, scale=scale)
        return fill_defaults(
            model,
            data.dtype,
            location=mean,
            location_precision=1e-3 / model.scale,
            relevance_rate=1e-3 * model.scale.mean(),
            rate=1e-3 * model.noise_scale,
        )

    def states(self, **states: Tree) -> Record:
        """Return the states of w, mu and tau, and relevances of these loadings."""
        half = jnp.full(self.n_components, 0.5 * self.n_features, self.scale.dtype)
        rate = half * 0.5 * self.scale.mean() / self.n_components
        return Record(states) | dict(alpha=GammaState(half, rate))

    def move_latents(self, moved: Record, statistics: Tree, block: Iterable[str]) -> Record:
        """Turn W to its principal axes, the largest the most relevant.

        A rotation of the latents changes the bound only by E[log p(W | alpha)], and this one maximises it:
        some ten times fewer sweeps (Luttinen & Ilin 2010). At an optimum it is the identity.
        """
        if "w" not in block:
            return moved
        w = moved.w
        axes = jnp.linalg.eigh(w.mean.T @ w.mean + w.covariance.sum(0))[1]  # of E[W'W], the smallest first
        turn = axes[:, jnp.argsort(jnp.argsort(-moved.alpha.mean))]
        turn = lax.stop_gradient(turn * jnp.where(jnp.diagonal(turn) < 0, -1, 1))  # no column changes sign
        return moved | dict(w=MultivariateNormalState(w.mean @ turn, symmetrize(turn.T @ w.precision @ turn)))

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        return params  # the prior keeps the noise from 0

    def singular(self, params: Record) -> Array:
        return jnp.asarray(False)

    def log_prior(self, s: Record) -> Array:
        loadings = terms.normal(s.w, 0.0, s.alpha).sum()
        loadings = loadings + terms.gamma(s.alpha, self.relevance_concentration, self.relevance_rate).sum()
        mean = terms.normal(s.mu, self.location, self.location_precision).sum()
        return loadings + mean + terms.gamma(s.tau, self.concentration, self.rate).sum()
