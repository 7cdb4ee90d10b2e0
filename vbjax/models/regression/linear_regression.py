"""Linear regression: least squares and its penalised kin; and with a conjugate prior by exact Bayes."""

from __future__ import annotations

from collections.abc import Iterable

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from vbjax import terms
from vbjax.core.hyperparameters import DEFINITE, NON_NEGATIVE, POSITIVE, REAL, flag, hyper
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree, replace
from vbjax.families.delta import Delta
from vbjax.families.gamma import GammaStatistics
from vbjax.families.joint import LocationCovariance
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGamma, MultivariateNormalGammaState
from vbjax.models.regression.regression import Regression, Rows
from vbjax.models.regression.responses import JointNormalResponse, Predictive, StudentRows
from vbjax.numerics.linalg import cholesky, rounding_of, solve_lower
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Hyper, Params, Tree


@pytree
class LinearRegression(Regression):
    """Linear regression y_n ~ N(w . x_n, 1 / tau): least squares; with a prior, MAP (ridge regression).

    With the rows of the design X, centred and behind a column of ones, and y about its mean:

        w = (X'X)^-1 X'y,   1 / tau = |y - X w|^2 / n,

    or with a prior w | tau ~ N(m0, (tau B0)^-1), B0 diagonal, and another tau ~ Gamma(a0, b0)

        w = (X'X + B0)^-1 (X'y + B0 m0),
        1 / tau = (2 b0 + |y - X w|^2 + (w - m0)' B0 (w - m0)) / (2 (a0 - 1) + n + p).

    The objective is the log likelihood, with a prior the log joint density. The noise obeys
    1 / tau >= noise_floor x the mean square of y; a fit that ends there (y is linear in x) is flagged as
    singular.

    Data: (x, y), (n, d) and (n,). The factor is `w`, a point: w.mean.location (p,), w.mean.precision.

    Args:
        fit_intercept: whether the first weight is an intercept, p = d + 1; otherwise p = d.
        mean_precision: the diagonal of B0, a number or (p,): the penalty of ridge regression. By default
            there is none.
        location: m0, a number or (p,); by default 0.
        concentration, rate: a0 and b0; without a rate tau has no prior.
        center: (d,), subtracted from x; by default the columns' means, 0 without an intercept.
        offset: subtracted from y; by default its mean, 0 without an intercept.
        noise_floor: smallest variance of the noise, relative to the mean square of y.
        scale: the mean square of y, by default from the data.

    Raises:
        ValueError: data that are not a table and a column with as many rows.

    References:
        Bishop (2006), section 3.1, eq. 3.15, 3.21 and 3.28.

    >>> import jax, vbjax as vb
    >>> x, y = jax.numpy.array([[0.0], [1.0], [2.0], [3.0]]), jax.numpy.array([1.0, 3.1, 4.9, 7.0])
    >>> fit = vb.fit(vb.LinearRegression(), (x, y), key=jax.random.key(0))
    >>> print(f"{fit.model.intercept(fit.params):.2f} + {fit.model.coefficients(fit.params)[0]:.2f} x")
    1.03 + 1.98 x
    """

    fit_intercept: bool = flag(default=True)
    mean_precision: Hyper = hyper(None, POSITIVE, "p")
    location: Hyper = hyper(None, REAL, "p", requires="mean_precision")
    concentration: Hyper = hyper(1.0, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)
    center: Hyper = hyper(None, REAL, "d")
    offset: Hyper = hyper(None, REAL)
    noise_floor: Hyper = hyper(1e-12, NON_NEGATIVE)
    scale: Hyper = hyper(None, POSITIVE)

    response = JointNormalResponse()

    @property
    def factors(self) -> Record:
        return Record(w=Delta(MultivariateNormalGamma(self.n_weights)))

    def resolve(self, data: Rows, weights: Array | None = None) -> LinearRegression:
        center, _ = self.units(data[0], weights, self.center)
        offset, square = self.units(data[1], weights, self.offset)
        one = jnp.ones(center.shape[-1] + self.fit_intercept)
        prior = {} if self.mean_precision is None else dict(mean_precision=one, location=0 * one)
        return fill_defaults(self, data[0].dtype, center=center, offset=offset, scale=square, **prior)

    def init(self, key: Array, data: Rows, weights: Array | None = None) -> Record:
        """Start at 0: one update is the solution; another, about its own residuals, its last digits."""
        return Record(w=self.factors.w.neutral(data[0].dtype))

    def log_prior(self, s: Record) -> Float[Array, ""]:
        t, prior = s.w, jnp.zeros_like(s.w.logdet)
        if self.mean_precision is not None:
            square = (self.mean_precision * jnp.diagonal(t.scatter_about(self.location))).sum()
            logs = jnp.log(self.mean_precision) + t.logdet - LOG_2PI
            prior = 0.5 * (logs.sum() - square)
        if self.rate is None:
            return prior
        return prior + terms.gamma(
            GammaStatistics(t.precision, t.logdet, -t.logdet), self.concentration, self.rate
        )

    def m_step(self, params: Record, statistics: Tree, block: Iterable[str]) -> Record:
        """Solve for the weights (Bishop 2006, eq. 3.15 and 3.28), and keep the noise (3.21) above its floor.

        Where columns repeat one another it is the shortest of all solutions, in units of the columns.
        """
        gradient = self.total_gradient(self.expected(params), statistics, block)["w"]
        gram, cross = -2 * gradient.square, gradient.cross
        unit = jnp.sqrt(jnp.where(jnp.diagonal(gram) > 0, jnp.diagonal(gram), 1))
        values, vectors = jnp.linalg.eigh(gram / (unit[:, None] * unit))
        clear = values > self.n_weights * jnp.finfo(values.dtype).eps * values[-1]
        inverse = jnp.where(clear, 1 / jnp.where(clear, values, 1), 0)
        shift = vectors @ (inverse * (vectors.T @ (cross / unit))) / unit
        least = gradient.logdet * self.noise_floor * self.scale
        rate = jnp.maximum(-gradient.precision - 0.5 * shift @ cross, least)
        moved = super().m_step(params, statistics, block).w
        number = self.factors.w.of.rows_behind(gradient)
        value = LocationCovariance(params["w"].value.location + shift, 2 * rate / number)
        return Record(w=replace(moved, value=value))

    def singular(self, params: Record) -> Bool[Array, ""]:
        """Return whether the noise's variance is within twice its floor."""
        return 1 / params.w.mean.precision <= 2 * self.noise_floor * self.scale


@pytree
class BayesianLinearRegression(Regression):
    """Regression y_n ~ N(w . x_n, 1 / tau), w | tau ~ N(m0, (tau B0)^-1), tau ~ Gamma(a0, b0); q is exact.

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
    >>> fit = vb.fit(vb.BayesianLinearRegression(), (x, y), key=jax.random.key(0))
    >>> print(f"{fit.model.intercept(fit.params):.2f} + {fit.model.coefficients(fit.params)[0]:.2f} x")
    1.03 + 1.98 x
    """

    fit_intercept: bool = flag(default=True)
    center: Hyper = hyper(None, REAL, "d")
    offset: Hyper = hyper(None, REAL)
    location: Hyper = hyper(None, REAL, "p")
    mean_precision: Hyper = hyper(None, DEFINITE, "p p")
    concentration: Hyper = hyper(1e-3, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    response = JointNormalResponse()

    @property
    def factors(self) -> Record:
        return Record(w=MultivariateNormalGamma(self.n_weights))

    def resolve(self, data: Rows, weights: Array | None = None) -> BayesianLinearRegression:
        center, scale = self.units(data[0], weights, self.center)
        offset, square = self.units(data[1], weights, self.offset)
        rows = jnp.append(1, scale) if self.fit_intercept else scale
        prior = dict(location=jnp.zeros_like(rows), mean_precision=1e-3 * jnp.diag(rows), rate=1e-3 * square)
        return fill_defaults(self, data[0].dtype, center=center, offset=offset, **prior)

    @property
    def prior(self) -> MultivariateNormalGammaState:
        """The prior of (w, tau), once resolved."""
        return MultivariateNormalGammaState(self.location, self.mean_precision, self.concentration, self.rate)

    def init(self, key: Array, data: Rows, weights: Array | None = None) -> Record:
        """Start at the prior: one update is the posterior; another, about its own mean, its last digits."""
        return Record(w=self.prior)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return self.prior.log_density(s.w) + s.w.base

    def cancelled(self, params: Params, expectation: Expectation) -> Float[Array, ""]:
        """Return what rounding makes of products times the weights' covariance, if columns nearly repeat."""
        precision = params["w"].mean_precision
        return rounding_of(precision, jnp.zeros((), precision.dtype))

    def predictive(self, params: Record, x: Float[Array, "n d"]) -> Predictive:
        """Return the Student-t of y - offset (Bishop 2006, eq. 2.158 to 2.160), which is exact."""
        w, design = params.w, self.design(x)
        half = solve_lower(cholesky(w.mean_precision), design.T)
        square = w.rate / w.concentration * (1 + (half * half).sum(0))
        return StudentRows(design @ w.location, square, 2 * w.concentration)
