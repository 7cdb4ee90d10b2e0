"""Linear regression with automatic relevance determination: a precision for every weight."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, flag, hyper
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma
from vbjax.models.regression.regression import Regression, Rows, around
from vbjax.models.regression.responses import NormalResponse
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper


@pytree
class ARDRegression(Regression):
    """Rows y_n ~ N(w . x_n, 1 / tau), w_j ~ N(0, 1 / alpha_j), alpha_j ~ Gamma(a, b_j), tau ~ Gamma(c, d).

    By variational Bayes, q(w) q(alpha) q(tau), with A the diagonal matrix of E[alpha]:

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
        relevance_concentration, relevance_rate: a and b (d,); by default 1e-6, and 1e-6 in the unit of each
            squared weight.
        concentration, rate: c and d; by default 1e-6, and 1e-6 times the variance of y.

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
    center: Hyper = hyper(None, REAL, "d")
    offset: Hyper = hyper(None, REAL)
    intercept_precision: Hyper = hyper(None, POSITIVE)
    relevance_concentration: Hyper = hyper(1e-6, POSITIVE)
    relevance_rate: Hyper = hyper(None, POSITIVE, "d")
    concentration: Hyper = hyper(1e-6, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    response = NormalResponse()
    ard = True

    @property
    def factors(self) -> Record:
        return super().factors | dict(tau=Gamma())

    def resolve(self, data: Rows, weights: Array | None = None) -> ARDRegression:
        center, scale = self.units(data[0], weights, self.center)
        offset, square = self.units(data[1], weights, self.offset)
        noise = dict(offset=offset, intercept_precision=1e-6 / square, rate=1e-6 * square)
        return fill_defaults(
            self, data[0].dtype, center=center, relevance_rate=1e-6 * square / scale, **noise
        )

    def init(self, key: Array, data: Rows, weights: Array | None = None) -> Record:
        return super().init(key, data, weights) | dict(tau=around(self.concentration, self.rate))

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return super().log_prior(s) + terms.gamma(s.tau, self.concentration, self.rate)
