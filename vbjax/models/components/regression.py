"""Linear regressions: every law has weights and a precision of its own."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE, REAL, hyper, read_columns
from vbjax.data.moments import positive_scale, weighted_moments
from vbjax.families.base import LocationPrecision, pytree
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.models.components.component import Component, for_every_law
from vbjax.models.components.predictive import log_student_t
from vbjax.models.components.responses import Responses
from vbjax.numerics.inputs import read_arrays, read_column, read_pair
from vbjax.numerics.linalg import cholesky, solve_lower
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Data, Hyper, Tree

Rows = tuple[Float[Array, "n d"], Float[Array, " n"]]


@pytree
class Regression(Responses, Component):
    """Linear regressions y_n | x_n, c_n = k ~ N(w_k' x_n, 1 / tau_k): every row lies on one of k lines.

        w_k | tau_k ~ N(w0, (tau_k B0)^-1),   tau_k ~ Gamma(a0, b0),   B0 = diag(mean_precision)

    The components' update is, with sums over rows weighted by r_nk,

        B_k = B0 + sum x x',   w_k = B_k^-1 (B0 w0 + sum x y),   a_k = a0 + N_k / 2,
        b_k = b0 + (sum (y - w_k' x)^2 + (w_k - w0)' B0 (w_k - w0)) / 2.

    The predictive density of component k is Student-t.

    Data: a pair (x, y), (n, d) and (n,). A column of ones makes an intercept. The parameters are a
    MultivariateNormalGamma, (k,), whose `location` are the regressions' weights.

    Args:
        location: w0, a number or (d,); by default 0.
        mean_precision: the diagonal of B0, a number or (d,); by default the columns' mean squares: a row.
        concentration, rate: a0 and b0; by default 1/2 and half of y's variance: a row.

    Raises:
        ValueError: data that are no such pair; a hyperparameter that is not positive.

    References:
        Bishop (2006), section 14.5.1 (by EM) and eq. 3.50 to 3.56 for a component; Viele & Tong (2002),
        Modeling with mixtures of linear regressions.


    >>> import jax.numpy as jnp, vbjax as vb
    >>> x = jnp.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> print(vb.components.Regression().resolve((x, x[:, 1])).mean_precision)  # the columns' mean squares
    [1.        1.6666667]
    """

    location: Hyper = hyper(None, REAL, "d")
    mean_precision: Hyper = hyper(None, POSITIVE, "d")
    concentration: Hyper = hyper(None, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    @property
    def family(self) -> MultivariateNormalGamma:
        return MultivariateNormalGamma(self.columns, plate=(self.n_laws,))

    @property
    def prior(self) -> MultivariateNormalGammaState:
        prior = MultivariateNormalGammaState(
            self.location, jnp.diag(self.mean_precision), self.concentration, self.rate
        )
        return for_every_law(prior, self.n_laws)

    def read(self, data: Data) -> Rows:
        x, y = read_pair(data, "(x, y) of shapes (n, d) and (n,)")
        x = read_columns(self, x, "x")
        y = read_column(y, "y")
        dtype = jnp.promote_types(x.dtype, y.dtype)
        return read_arrays((x.astype(dtype), y.astype(dtype)), "data")

    def sizes(self, data: Data) -> dict[str, int]:
        return dict(d=data[0].shape[-1])

    def defaults(self, data: Rows, weights: Array | None) -> dict[str, Tree]:
        x, y = data
        mean, variance = weighted_moments(x, weights)
        half = jnp.asarray(0.5, x.dtype)
        return dict(
            location=jnp.zeros_like(mean),
            mean_precision=positive_scale(mean**2 + variance),
            concentration=half,
            rate=half * positive_scale(weighted_moments(y, weights)[1]),
        )

    def table(self, statistics: MultivariateNormalGammaStatistics, rows: Rows) -> Float[Array, "n k"]:
        x, y = rows
        shift = y[:, None] - x @ statistics.pivot.T
        # E[tau (y - w'x)^2] about the pivot
        square = statistics.precision * shift**2 - 2 * shift * (x @ statistics.cross.T)
        square = square + self.spread(statistics.square, x)
        return 0.5 * (statistics.logdet - LOG_2PI - square)

    def log_predictive_of(self, state: MultivariateNormalGammaState, rows: Rows) -> Float[Array, " n"]:
        x, y = rows
        a, b = state.concentration, state.rate
        half = solve_lower(cholesky(state.mean_precision), x.T)
        scale = b / a * (1 + (half**2).sum(0))
        square = (y - x @ state.location) ** 2 / scale
        return log_student_t(square, 2 * a, 1, jnp.log(scale))

    @property
    def response_shape(self) -> tuple[int, ...]:
        return ()

    def expected_responses(self, location: Float[Array, " d"], x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return x @ location

    def responses(self, drawn: LocationPrecision, x: Array, noise: Array) -> Array:
        return (x * drawn.location).sum(-1) + noise / jnp.sqrt(drawn.precision)
