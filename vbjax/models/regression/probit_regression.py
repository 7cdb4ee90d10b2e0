"""Probit regression by truncated normal latents."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import log_ndtr
from jaxtyping import Float

from vbjax import terms
from vbjax.families.base import pytree
from vbjax.families.truncated_normal import TruncatedNormal, inverse_mills
from vbjax.models.regression.binary_regression import BinaryRegression, signs
from vbjax.numerics.record import Record


@pytree
class ProbitRegression(BinaryRegression):
    """P(y_n = 1) = Phi(psi_n), psi_n = w . x_n, w ~ N(0, diag(precision)^-1); q(w) q(u).

    y_n is the sign of z_n ~ N(psi_n, 1), and u_n = (2 y_n - 1) z_n > 0. With m, S the mean and covariance of
    q(w) and m_n = (2 y_n - 1) m . x_n:

        q(u_n) = N(m_n, 1) given u_n > 0,   E[u_n] = m_n + phi(m_n) / Phi(m_n),
        S^-1 = diag(precision) + X'X,   m = S X' E[z].

    A row's bound is log Phi(m_n) - x_n' S x_n / 2, so m is the mode of the exact posterior, and S as narrow
    as if z had been seen; `vb.linear_response` widens it. With `ard` every weight but the intercept has a
    precision alpha_j ~ Gamma(a, b_j) of its own.

    Data: (x, y), (n, d) and (n,) of 0 and 1. The factors are `w` (MultivariateNormal) and, with `ard`,
    `alpha` (Gamma, (d,)); `model.posterior(params, (x, y)).u` are the local ones.

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
        Albert & Chib (1993), Bayesian analysis of binary and polychotomous response data, JASA 88,
        section 3.1; Consonni & Marin (2007), Mean-field variational approximate Bayesian inference for
        latent variable models, CSDA 52.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([0, 1, 0, 1])
    >>> fit = vb.fit(vb.ProbitRegression(), (x, y), key=jax.random.key(0))
    >>> print(fit.model.predict(fit.params, x), fit.params.w.mean[1] > 0)
    [0 0 1 1] True
    """

    def local(self, rows: tuple[Array, Array]) -> Record:
        return Record(u=TruncatedNormal((rows[0].shape[0],)))

    def log_likelihood(self, s: Record, rows: tuple[Array, Array]) -> Float[Array, " n"]:
        return terms.normal(s.u, signs(*rows) * terms.linear(self.design(rows[0]), s.w), 1.0)

    def row(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """log Phi(m) - v / 2, E[u] - m, 1."""
        return log_ndtr(mean) - 0.5 * variance, inverse_mills(mean), jnp.ones_like(mean)

    def log_probability(self, mean: Array, variance: Array) -> Array:
        """log Phi(m / sqrt(1 + v)), exactly."""
        return log_ndtr(mean / jnp.sqrt(1 + variance))
