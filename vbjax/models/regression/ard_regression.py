"""Linear regression with automatic relevance determination: a precision for every weight."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, flag, hyper
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma
from vbjax.families.multivariate_normal import MultivariateNormal
from vbjax.families.normal import NormalState
from vbjax.models.regression.base import GaussianRegression, around, quadratic_rows
from vbjax.numerics.record import Record


@pytree
class ARDRegression(GaussianRegression):
    """y_n ~ N(w . x_n, 1 / tau), w_j ~ N(0, 1 / alpha_j), alpha_j ~ Gamma(a, b_j), tau ~ Gamma(c, d).

    q(w) q(alpha) q(tau), with A the diagonal matrix of E[alpha]:

        S^-1 = A + E[tau] X'X,   m = E[tau] S X'y,
        E[alpha_j] = (a + 1/2) / (b_j + (m_j^2 + S_jj) / 2),
        E[tau] = (c + n/2) / (d + (|y - X m|^2 + tr X S X') / 2).

    A weight without use gets a large alpha_j and goes to 0. The fixed points are those of MacKay's updates
    alpha_j = (gamma_j + 2 a) / (m_j^2 + 2 b_j), tau = (n - sum gamma + 2 c) / (|y - X m|^2 + 2 d),
    gamma_j = 1 - alpha_j S_jj. The intercept has no alpha: its prior is N(0, 1 / intercept_precision).

    Data: (x, y), (n, d) and (n,). The factors are `w` (MultivariateNormal), `alpha` (d,) and `tau` (Gamma).

    Args:
        fit_intercept: whether the first weight is an intercept, p = d + 1; otherwise p = d.
        center: (d,), subtracted from x; by default the columns' means, 0 without an intercept.
        offset: subtracted from y; by default its mean, 0 without an intercept.
        intercept_precision: by default 1e-6 over the variance of y.
        a, b: shape and rates (d,) of alpha; by default 1e-6, and 1e-6 in the unit of each squared weight.
        c, d: shape and rate of tau; by default 1e-6, and 1e-6 times the variance of y.

    Raises:
        ValueError: data that are not a table and a column with as many rows.

    References:
        Bishop (2006), section 10.3 and exercise 10.26, eq. 10.94 to 10.107; MacKay (1994); Tipping (2001),
        Sparse Bayesian learning and the relevance vector machine, JMLR 1, eq. 16 and 18.

    >>> import jax, vbjax as vb
    >>> x = jax.random.normal(jax.random.key(0), (50, 3))
    >>> y = 2 * x[:, 0] + 0.1 * jax.random.normal(jax.random.key(1), (50,))
    >>> fit = vb.fit(vb.ARDRegression(), (x, y), key=jax.random.key(2))
    >>> int(fit.params.alpha.mean.argmin())
    0
    """

    fit_intercept: bool = flag(default=True)
    center: Any = hyper(None, REAL, "d")
    offset: Any = hyper(None, REAL)
    intercept_precision: Any = hyper(None, POSITIVE)
    a: Any = hyper(1e-6, POSITIVE)
    b: Any = hyper(None, POSITIVE, "d")
    c: Any = hyper(1e-6, POSITIVE)
    d: Any = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(w=MultivariateNormal(self.n_weights), alpha=Gamma(self.center.shape), tau=Gamma())

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("w",), ("alpha", "tau"))

    def resolve(self, data: tuple[Array, Array], weights: Array | None = None) -> ARDRegression:
        center, scale = self.units(data[0], weights, self.center)
        offset, square = self.units(data[1], weights, self.offset)
        noise = dict(offset=offset, intercept_precision=1e-6 / square, d=1e-6 * square)
        return fill_defaults(self, data[0].dtype, center=center, b=1e-6 * square / scale, **noise)

    def init(self, key: Array, data: Any, weights: Array | None = None) -> Record:
        """The precisions around their priors' means, and the weights at their prior."""
        alpha, tau = around(self.a, self.b), around(self.c, self.d)
        return Record(w=self.weights_at(alpha.mean), alpha=alpha, tau=tau)

    def log_prior(self, s: Record) -> Array:
        weights = terms.normal(s.w, 0.0, self.prior_precisions(s.alpha)).sum()
        return weights + terms.gamma(s.alpha, self.a, self.b).sum() + terms.gamma(s.tau, self.c, self.d)

    def log_likelihood(self, s: Record, rows: tuple[Array, Array]) -> Float[Array, " n"]:
        return terms.normal(rows[1] - self.offset, terms.linear(self.design(rows[0]), s.w), s.tau)

    def fit_of(self, s: Record, gram: Array, cross: Array, square: Array) -> tuple[Array, Array]:
        return s.tau.log, s.tau.value * (square - 2 * s.w.first @ cross + (s.w.second * gram).sum())

    # -- use -----------------------------------------------------------------------------------------

    def log_predictive(self, params: Record, data: Any) -> Float[Array, " n"]:
        """log density of new rows, (n,): normal, w integrated out and tau at its mean (eq. 10.105)."""
        x, y = self.read(data)
        return _marginal(self, params, x).log_prob(y)

    def sample(self, params: Record, key: Array, x: Any) -> Float[Array, " n"]:
        """A draw of y for every row of x, (n,), from the same density."""
        return _marginal(self, params, self.read_design(x)).sample(key)


@jax.jit
def _marginal(model: ARDRegression, params: Record, x: Array) -> NormalState:
    design = model.design(x)
    variance = 1 / params.tau.mean + quadratic_rows(design, params.w.covariance)
    return NormalState(model.offset + design @ params.w.mean, 1 / variance)
