"""Logistic and probit regression: a local latent for each row makes the likelihood quadratic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import log_ndtr, logsumexp
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, flag, hyper, read_columns
from vbjax.families.base import pytree
from vbjax.families.polya_gamma import PolyaGamma, PolyaGammaState, safe_sqrt
from vbjax.families.truncated_normal import TruncatedNormal, inverse_mills
from vbjax.models.regression.regression import Regression, probabilities
from vbjax.models.regression.responses import LabelResponse
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Hyper

_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(32)
_LOG_MASSES = np.log(_MASSES / _MASSES.sum())


def _row(mean: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Compute log sigma(c) + (m - c) / 2 (Bishop 2006, eq. 10.144 at eq. 10.163), in differences."""
    c = safe_sqrt(mean**2 + variance)
    # m - c = -v / (m + c), which keeps its digits where m is large
    close = mean > 0
    gap = jnp.where(close, -variance / jnp.where(close, mean + c, 1), mean - c)
    omega = PolyaGammaState(c).mean
    return 0.5 * gap - jnp.log1p(jnp.exp(-c)), 0.5 - omega * mean, omega


def _log_probability(mean: Array, variance: Array) -> Array:
    """Integrate over psi, by Gauss-Hermite quadrature with 32 nodes."""
    nodes, logs = (jnp.asarray(x, mean.dtype) for x in (_NODES, _LOG_MASSES))
    psi = mean[:, None] + jnp.sqrt(variance)[:, None] * nodes
    return logsumexp(jax.nn.log_sigmoid(psi) + logs, -1)


LOGISTIC = LabelResponse(
    "omega",
    lambda n: PolyaGamma(plate=(n,)),
    lambda omega, psi, y: terms.logistic(y, psi, omega),
    _row,
    _log_probability,
)

PROBIT = LabelResponse(
    "u",
    lambda n: TruncatedNormal((n,)),
    lambda u, psi, y: terms.normal(u, (2 * y - 1) * psi, 1.0),
    # log Phi(m) - v / 2, E[u] - m, 1
    lambda mean, variance: (log_ndtr(mean) - 0.5 * variance, inverse_mills(mean), jnp.ones_like(mean)),
    lambda mean, variance: log_ndtr(mean / jnp.sqrt(1 + variance)),
)


@pytree
class BayesianLogisticRegression(Regression):
    """Logistic regression P(y_n = 1) = 1 / (1 + exp(-psi_n)), psi_n = w . x_n, w ~ N(0, diag(precision)^-1).

    Given omega_n ~ PG(1, 0) the likelihood is quadratic in psi_n. With m, S the mean and covariance of q(w):

        q(omega_n) = PG(1, c_n),   c_n^2 = x_n' (S + m m') x_n,   E[omega_n] = tanh(c_n / 2) / (2 c_n),
        S^-1 = diag(precision) + X' diag(E[omega]) X,   m = S X' (y - 1/2).

    The objective is the bound of Jaakkola and Jordan, E[omega_n] being 2 lambda(c_n) in their notation. With
    `ard` every weight but the intercept has a precision alpha_j ~ Gamma of its own.

    Data: (x, y), (n, d) and (n,) of 0 and 1. The factors are `w` (MultivariateNormal) and, with `ard`,
    `alpha` (Gamma, (d,)); `model.posterior(params, (x, y)).omega` are the local ones.

    Args:
        fit_intercept: whether the first weight is an intercept, p = d + 1; otherwise p = d.
        ard: whether the weights' precisions are learnt.
        center: (d,), subtracted from x; by default the columns' means, 0 without an intercept.
        intercept_precision: by default 0.01.
        precision: (d,) or a number; by default a tenth of the columns' mean squares about `center`.
        relevance_concentration, relevance_rate: of alpha, a number and (d,); by default 1e-6, and 1e-6 over
            the columns' mean squares.

    Raises:
        ValueError: data that are not a table and a column of 0 and 1 with as many rows.

    References:
        Jaakkola & Jordan (2000), Bayesian parameter estimation via variational methods, Statistics and
        Computing 10; Bishop (2006), section 10.6, eq. 10.144 to 10.164; Polson, Scott & Windle (2013);
        Durante & Rigon (2019), Conditionally conjugate mean-field variational Bayes for logistic models.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([0, 1, 0, 1])
    >>> fit = vb.fit(vb.BayesianLogisticRegression(), (x, y), key=jax.random.key(0))
    >>> print(fit.model.predict(fit.params, x), fit.params.w.mean[1] > 0)
    [0 0 1 1] True
    """

    fit_intercept: bool = flag(default=True)
    ard: bool = flag()
    center: Hyper = hyper(None, REAL, "d")
    intercept_precision: Hyper = hyper(0.01, POSITIVE)
    precision: Hyper = hyper(None, POSITIVE, "d", excludes="ard")
    relevance_concentration: Hyper = hyper(1e-6, POSITIVE)
    relevance_rate: Hyper = hyper(None, POSITIVE, "d", requires="ard")

    response = LOGISTIC

    def probabilities(self, params: Record, x: Given) -> Float[Array, " n"]:
        """Return P(y = 1) of rows x, (n, d), w integrated out."""
        return probabilities(self, params, read_columns(self, x, "x"))


@pytree
class BayesianProbitRegression(Regression):
    """Probit regression P(y_n = 1) = Phi(psi_n), psi_n = w . x_n, w ~ N(0, diag(precision)^-1); q(w) q(u).

    y_n is the sign of z_n ~ N(psi_n, 1), and u_n = (2 y_n - 1) z_n > 0. With m, S the mean and covariance of
    q(w) and m_n = (2 y_n - 1) m . x_n:

        q(u_n) = N(m_n, 1) given u_n > 0,   E[u_n] = m_n + phi(m_n) / Phi(m_n),
        S^-1 = diag(precision) + X'X,   m = S X' E[z].

    A row's bound is log Phi(m_n) - x_n' S x_n / 2, so m is the mode of the exact posterior, and S as narrow
    as if z had been seen; `vb.linear_response` widens it. With `ard` every weight but the intercept has a
    precision alpha_j ~ Gamma of its own.

    Data: (x, y), (n, d) and (n,) of 0 and 1. The factors are `w` (MultivariateNormal) and, with `ard`,
    `alpha` (Gamma, (d,)); `model.posterior(params, (x, y)).u` are the local ones.

    Args and Raises: those of `BayesianLogisticRegression`.

    References:
        Albert & Chib (1993), Bayesian analysis of binary and polychotomous response data, JASA 88,
        section 3.1; Consonni & Marin (2007), Mean-field variational approximate Bayesian inference for
        latent variable models, CSDA 52.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([0, 1, 0, 1])
    >>> fit = vb.fit(vb.BayesianProbitRegression(), (x, y), key=jax.random.key(0))
    >>> print(fit.model.predict(fit.params, x), fit.params.w.mean[1] > 0)
    [0 0 1 1] True
    """

    fit_intercept: bool = flag(default=True)
    ard: bool = flag()
    center: Hyper = hyper(None, REAL, "d")
    intercept_precision: Hyper = hyper(0.01, POSITIVE)
    precision: Hyper = hyper(None, POSITIVE, "d", excludes="ard")
    relevance_concentration: Hyper = hyper(1e-6, POSITIVE)
    relevance_rate: Hyper = hyper(None, POSITIVE, "d", requires="ard")

    response = PROBIT

    def probabilities(self, params: Record, x: Given) -> Float[Array, " n"]:
        """Return P(y = 1) of rows x, (n, d), w integrated out."""
        return probabilities(self, params, read_columns(self, x, "x"))
