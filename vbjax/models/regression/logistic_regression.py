"""Logistic regression by Polya-Gamma latents, whose mean field is the bound of Jaakkola and Jordan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax import terms
from vbjax.families.base import pytree
from vbjax.families.polya_gamma import PolyaGamma, PolyaGammaState, safe_sqrt
from vbjax.models.regression.binary_regression import BinaryRegression
from vbjax.numerics.record import Record

_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(32)
_LOG_MASSES = np.log(_MASSES / _MASSES.sum())


@pytree
class LogisticRegression(BinaryRegression):
    """P(y_n = 1) = 1 / (1 + exp(-psi_n)), psi_n = w . x_n, w ~ N(0, diag(precision)^-1); q(w) q(omega).

    Given omega_n ~ PG(1, 0) the likelihood is quadratic in psi_n. With m, S the mean and covariance of q(w):

        q(omega_n) = PG(1, c_n),   c_n^2 = x_n' (S + m m') x_n,   E[omega_n] = tanh(c_n / 2) / (2 c_n),
        S^-1 = diag(precision) + X' diag(E[omega]) X,   m = S X' (y - 1/2).

    The objective is the bound of Jaakkola and Jordan, E[omega_n] being 2 lambda(c_n) in their notation. With
    `ard` every weight but the intercept has a precision alpha_j ~ Gamma(a, b_j) of its own.

    Data: (x, y), (n, d) and (n,) of 0 and 1. The factors are `w` (MultivariateNormal) and, with `ard`,
    `alpha` (Gamma, (d,)); `model.posterior(params, (x, y)).omega` are the local ones.

    Args:
        fit_intercept: whether the first weight is an intercept, p = d + 1; otherwise p = d.
        ard: whether the weights' precisions are learnt.
        center: (d,), subtracted from x; by default the columns' means, 0 without an intercept.
        intercept_precision: by default 0.01.
        precision: (d,) or a number; by default a tenth of the columns' mean squares about `center`.
        a, b: shape and rates (d,) of alpha; by default 1e-6, and 1e-6 over the columns' mean squares.

    Raises:
        ValueError: data that are not a table and a column of 0 and 1 with as many rows.

    References:
        Jaakkola & Jordan (2000), Bayesian parameter estimation via variational methods, Statistics and
        Computing 10; Bishop (2006), section 10.6, eq. 10.144 to 10.164; Polson, Scott & Windle (2013);
        Durante & Rigon (2019), Conditionally conjugate mean-field variational Bayes for logistic models.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([0, 1, 0, 1])
    >>> fit = vb.fit(vb.LogisticRegression(), (x, y), key=jax.random.key(0))
    >>> print(fit.model.predict(fit.params, x), fit.params.w.mean[1] > 0)
    [0 0 1 1] True
    """

    def local(self, rows: tuple[Array, Array]) -> Record:
        return Record(omega=PolyaGamma(plate=(rows[0].shape[0],)))

    def log_likelihood(self, s: Record, rows: tuple[Array, Array]) -> Float[Array, " n"]:
        return terms.logistic(rows[1], terms.linear(self.design(rows[0]), s.w), s.omega)

    def row(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """log sigma(c) + (m - c) / 2 (Bishop 2006, eq. 10.144 at eq. 10.163), in differences."""
        c = safe_sqrt(mean**2 + variance)
        # m - c = -v / (m + c), which keeps its digits where m is large
        close = mean > 0
        gap = jnp.where(close, -variance / jnp.where(close, mean + c, 1), mean - c)
        omega = PolyaGammaState(c).mean
        return 0.5 * gap - jnp.log1p(jnp.exp(-c)), 0.5 - omega * mean, omega

    def log_probability(self, mean: Array, variance: Array) -> Array:
        """By quadrature over psi, Gauss-Hermite with 32 nodes."""
        nodes, logs = (jnp.asarray(x, mean.dtype) for x in (_NODES, _LOG_MASSES))
        psi = mean[:, None] + jnp.sqrt(variance)[:, None] * nodes
        return logsumexp(jax.nn.log_sigmoid(psi) + logs, -1)
