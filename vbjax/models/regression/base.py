"""What the regressions share: reading (x, y), the design about the columns' centre, and the read-outs.

Not a model itself. Imported by the linear, relevance, logistic and probit regressions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import read_columns
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import Expectation
from vbjax.data.moments import positive_scale, weighted_moments
from vbjax.families.base import LocationPrecision
from vbjax.families.gamma import GammaState, GammaStatistics
from vbjax.families.multivariate_normal import MultivariateNormalState
from vbjax.inference.replicate import redraw_data
from vbjax.numerics.inputs import read_column, read_pair
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI


class Regression(ConjugateModel):
    """Rows (x_n, y_n); y_n depends on x_n through psi_n = w_0 + w . (x_n - center).

    With `center` at the columns' means the intercept w_0 hardly depends on the other weights, and columns
    at a large offset keep float32's digits; likewise with `offset` at the mean of y, where y is a location.
    Subclasses are dataclasses with `fit_intercept` and, once resolved, `center` (d,); the first of the p
    weights is the intercept, where there is one.
    """

    draws_data = True

    fit_intercept: bool
    center: Any
    intercept_precision: Any
    offset: Any = 0.0

    @property
    def n_weights(self) -> int:
        """p: d, and one more for the intercept."""
        if self.center is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return self.center.shape[-1] + self.fit_intercept

    def read(self, data: Any) -> tuple[Array, Array]:
        x, y = read_pair(data, "(x, y) of a table and a column")
        x = self.read_design(x)
        y = read_column(y, "y").astype(x.dtype)
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"x and y must have as many rows; got shapes {x.shape} and {y.shape}")
        return x, y

    def read_design(self, x: Any) -> Array:
        """The table x, (n, d)."""
        return read_columns(self, x, "x")

    def sizes(self, data: tuple[Array, Array]) -> dict[str, int]:
        d = data[0].shape[-1]
        return dict(d=d, p=d + self.fit_intercept)

    def units(self, x: Array, weights: Array | None, center: Any) -> tuple[Array, Array]:
        """The centre of each column, 0 without an intercept, unless given; and mean squares about it."""
        mean, variance = weighted_moments(x, weights)
        if center is None:
            center = mean if self.fit_intercept else 0
        center = jnp.broadcast_to(jnp.asarray(center, x.dtype), mean.shape)
        return center, positive_scale(variance + (mean - center) ** 2)

    def design(self, x: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """Columns about their centre, behind ones for the intercept."""
        x = x - self.center
        return jnp.concatenate([jnp.ones_like(x[:, :1]), x], 1) if self.fit_intercept else x

    def prior_precisions(self, alpha: Any) -> GammaStatistics:
        """Of all weights: the intercept's own, then alpha (d,), values or statistics."""
        alpha = alpha if isinstance(alpha, GammaStatistics) else GammaStatistics.of(alpha)
        if not self.fit_intercept:
            return alpha
        own = GammaStatistics.of(jnp.reshape(self.intercept_precision, 1))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), own, alpha)

    def weights_at(self, precision: Array) -> MultivariateNormalState:
        """The weights' prior, given the columns' precisions."""
        precision = self.prior_precisions(precision).value
        return MultivariateNormalState(jnp.zeros_like(precision), jnp.diag(precision))

    # -- use -----------------------------------------------------------------------------------------

    def coefficients(self, params: Record) -> Float[Array, " d"]:
        """The expected weights of the columns, (d,)."""
        return _weights(params)[self.fit_intercept :]

    def intercept(self, params: Record) -> Float[Array, ""]:
        """The expected y, or psi of a label, at x = 0."""
        own = _weights(params)[0] if self.fit_intercept else 0
        return self.offset + own - self.coefficients(params) @ self.center

    def replicate(self, params: Record, key: Array, data: Any, n_draws: int) -> Any:
        return redraw_data(self, params, key, self.read(data), n_draws)

    def redraw(self, values: Record, local: Record, key: Array, data: tuple[Array, Array]) -> Any:
        """Draw y anew, given values of the weights and what else there is."""
        raise TypeError("given by the subclass")

    def psi(self, params: Record, x: Any) -> Float[Array, " n"]:
        """The expected psi of rows x, (n,)."""
        return _psi(self, params, self.read_design(x))


class GaussianRegression(Regression):
    """y_n ~ N(offset + psi_n, 1 / tau): all that the rows say is in products of the design."""

    def fit_of(self, s: Record, gram: Array, cross: Array, square: Array) -> tuple[Array, Array]:
        """E[log tau] and E[tau |y - X w|^2], from X'X, X'r and |r|^2 of the residuals r about the mean."""
        raise TypeError("given by the subclass")

    def e_step(self, prepared: Record, rows: tuple[Array, Array], weights: Array) -> Expectation:
        """Bishop (2006), eq. 10.100 and 10.101: the products of the design, once for all that needs them."""
        x = self.design(rows[0])
        residual = rows[1] - self.offset - x @ prepared.w.pivot
        weighted, n = x * weights[:, None], weights.sum()
        products = weighted.T @ x, weighted.T @ residual, weights @ residual**2

        def energy(s: Record) -> tuple[Array, Array]:
            log, misfit = self.fit_of(s, *products)
            log = n * (log - LOG_2PI)
            return 0.5 * (log - misfit), 0.5 * (jnp.abs(log) + misfit)

        (bound, magnitude), statistics = jax.value_and_grad(energy, has_aux=True)(prepared)
        return Expectation(statistics, bound, magnitude, n)

    def redraw(self, values: Record, local: Record, key: Array, data: tuple[Array, Array]) -> Any:
        (x, y), w = data, values.w
        location, tau = w if isinstance(w, LocationPrecision) else (w, values.tau)
        noise = jax.random.normal(key, y.shape, y.dtype) / jnp.sqrt(tau)
        return x, self.offset + self.design(x) @ location + noise

    def predict(self, params: Record, x: Any) -> Float[Array, " n"]:
        """The expected y of rows x, (n,)."""
        return self.offset + self.psi(params, x)


def _weights(params: Record) -> Array:
    mean = params.w.mean
    return mean.location if isinstance(mean, LocationPrecision) else mean


@jax.jit
def _psi(model: Any, params: Record, x: Array) -> Array:
    return model.design(x) @ _weights(params)


def quadratic_rows(x: Float[Array, "n p"], matrix: Float[Array, "p p"]) -> Float[Array, " n"]:
    """x_n' A x_n of every row."""
    return ((x @ matrix) * x).sum(-1)


def around(concentration: Any, rate: Any) -> GammaState:
    """Where a precision starts: at its prior's mean, but with a shape that says something."""
    rate = jnp.asarray(rate)
    return GammaState(jnp.full_like(rate, 2), 2 * rate / concentration)
