"""Linear regression with a conjugate prior: the posterior and the evidence are exact."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import DEFINITE, POSITIVE, REAL, flag, hyper
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGamma, MultivariateNormalGammaState
from vbjax.models.components.student_t import log_student_t
from vbjax.models.regression.base import GaussianRegression
from vbjax.numerics.linalg import cholesky, rounding_of, solve_lower
from vbjax.numerics.record import Record


@pytree
class LinearRegression(GaussianRegression):
    """y_n ~ N(w . x_n, 1 / tau), w | tau ~ N(m0, (tau B0)^-1), tau ~ Gamma(a0, b0); q(w, tau) is exact.

    With the rows of the design X, centred and behind a column of ones, and y about its mean:

        B = B0 + X'X,   m = B^-1 (B0 m0 + X'y),   a = a0 + n / 2,
        b = b0 + (|y - X m|^2 + (m - m0)' B0 (m - m0)) / 2,

    and the objective is the log evidence, a Student-t density of all y. New rows are Student-t too.

    Data: (x, y), (n, d) and (n,). The factor is `w` (MultivariateNormalGamma): w.mean.location (p,),
    w.mean.precision.

    Args:
        fit_intercept: whether the first weight is an intercept, p = d + 1; otherwise p = d.
        center: (d,), subtracted from x; by default the columns' means, 0 without an intercept.
        offset: subtracted from y; by default its mean, 0 without an intercept.
        location: m0 (p,); by default 0.
        mean_precision: B0 (p, p); by default diagonal, a thousandth of a row of data.
        concentration: a0; by default 1e-3.
        rate: b0; by default 1e-3 times the variance of y.

    Raises:
        ValueError: data that are not a table and a column with as many rows.

    References:
        Bishop (2006), exercises 3.12, 3.13 and 3.23, eq. 3.112 to 3.118.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([1.0, 3.1, 4.9, 7.0])
    >>> fit = vb.fit(vb.LinearRegression(), (x, y), key=jax.random.key(0))
    >>> print(f"{fit.model.intercept(fit.params):.2f} + {fit.model.coefficients(fit.params)[0]:.2f} x")
    1.03 + 1.98 x
    """

    fit_intercept: bool = flag(default=True)
    center: Any = hyper(None, REAL, "d")
    offset: Any = hyper(None, REAL)
    location: Any = hyper(None, REAL, "p")
    mean_precision: Any = hyper(None, DEFINITE, "p p")
    concentration: Any = hyper(1e-3, POSITIVE)
    rate: Any = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(w=MultivariateNormalGamma(self.n_weights))

    def resolve(self, data: tuple[Array, Array], weights: Array | None = None) -> LinearRegression:
        center, scale = self.units(data[0], weights, self.center)
        offset, square = self.units(data[1], weights, self.offset)
        rows = jnp.append(1, scale) if self.fit_intercept else scale
        defaults = dict(
            center=center,
            offset=offset,
            location=jnp.zeros_like(rows),
            mean_precision=1e-3 * jnp.diag(rows),
            rate=1e-3 * square,
        )
        return fill_defaults(self, data[0].dtype, **defaults)

    @property
    def prior(self) -> MultivariateNormalGammaState:
        """The prior of (w, tau), once resolved."""
        return MultivariateNormalGammaState(self.location, self.mean_precision, self.concentration, self.rate)

    def init(self, key: Array, data: Any, weights: Array | None = None) -> Record:
        """The prior: an update from it is the posterior, and another, about its own mean, its last digits."""
        return Record(w=self.prior)

    def log_prior(self, s: Record) -> Array:
        return self.prior.log_density(s.w) + s.w.base

    def log_likelihood(self, s: Record, rows: tuple[Array, Array]) -> Float[Array, " n"]:
        return terms.normal(rows[1] - self.offset, terms.linear(self.design(rows[0]), s.w))

    def fit_of(self, s: Record, gram: Array, cross: Array, square: Array) -> tuple[Array, Array]:
        return s.w.logdet, s.w.precision * square - 2 * s.w.cross @ cross + (s.w.square * gram).sum()

    def cancelled(self, params: Any, expectation: Expectation) -> Array:
        """Of nearly collinear columns, what rounding makes of the weights' covariance times products."""
        precision = params["w"].mean_precision
        return rounding_of(precision, jnp.zeros((), precision.dtype))

    # -- use -----------------------------------------------------------------------------------------

    def log_predictive(self, params: Record, data: Any) -> Float[Array, " n"]:
        """log p(y_n | x_n, data) of new rows, (n,): Student-t, w and tau integrated out (eq. 3.114)."""
        return _log_predictive(self, params, *self.read(data))

    def sample(self, params: Record, key: Array, x: Any) -> Float[Array, " n"]:
        """A draw of y for every row of x, (n,), each with w and tau of its own: the predictive's draws."""
        return _sample(self, params, key, self.read_design(x))

    def marginal(self, params: Record, x: Array) -> tuple[Array, Array, Array]:
        """Location and squared scale of each row's Student-t, and its degrees of freedom."""
        w, design = params.w, self.design(x)
        half = solve_lower(cholesky(w.mean_precision), design.T)
        square = w.rate / w.concentration * (1 + (half * half).sum(0))
        return self.offset + design @ w.location, square, 2 * w.concentration


@jax.jit
def _log_predictive(model: LinearRegression, params: Record, x: Array, y: Array) -> Array:
    location, square, dof = model.marginal(params, x)
    return log_student_t((y - location) ** 2 / square, dof, 1, jnp.log(square))


@jax.jit
def _sample(model: LinearRegression, params: Record, key: Array, x: Array) -> Array:
    location, square, dof = model.marginal(params, x)
    return location + jnp.sqrt(square) * jax.random.t(key, dof, location.shape, location.dtype)
