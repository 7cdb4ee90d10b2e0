"""Mixtures of linear regressions: every component has weights and a precision of its own."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.expectation import n_rows
from vbjax.core.inputs import read_arrays, read_column, read_pair, read_table
from vbjax.families.base import LocationPrecision, pytree
from vbjax.families.multivariate_normal_gamma import (
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalGammaStatistics,
)
from vbjax.linalg import cholesky, outer, solve_lower
from vbjax.models.conjugate_mixture import ConjugateMixture, over_components, width
from vbjax.models.defaults import positive_scale, weighted_moments
from vbjax.models.predictive import log_student_t
from vbjax.record import Record
from vbjax.special import LOG_2PI

_BLOCK_BYTES = 2**23  # the squares of a block of rows stay in a core's cache

Rows = tuple[Float[Array, "n d"], Float[Array, " n"]]


@pytree
class RegressionMixture(ConjugateMixture):
    """y_n | x_n, c_n = k ~ N(w_k' x_n, 1 / tau_k): lines through the data, each row on one of them.

        w_k | tau_k ~ N(w0, (tau_k B0)^-1),   tau_k ~ Gamma(a0, b0),   B0 = diag(mean_precision)

    The components' update is, with sums over rows weighted by r_nk,

        B_k = B0 + sum x x',   w_k = B_k^-1 (B0 w0 + sum x y),   a_k = a0 + N_k / 2,
        b_k = b0 + (sum (y - w_k' x)^2 + (w_k - w0)' B0 (w_k - w0)) / 2.

    The predictive density of component k is Student-t.

    Data: a pair (x, y), (n, d) and (n,). A column of ones makes an intercept. The factors are `weights`
    and `components` (MultivariateNormalGamma, (k,)): `components.location` are the regressions' weights.

    Args:
        n_components: k, an upper bound.
        location: w0, a number or (d,); by default 0.
        mean_precision: the diagonal of B0, a number or (d,); by default the columns' mean squares: a row.
        concentration, rate: a0 and b0; by default 1/2 and half of y's variance: a row.
        weight_prior, weight_concentration: see `ConjugateMixture`.

    Raises:
        ValueError: data that are no such pair; a hyperparameter that is not positive.

    References:
        Bishop (2006), section 14.5.1 (by EM) and eq. 3.50 to 3.56 for a component; Viele & Tong (2002),
        Modeling with mixtures of linear regressions.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.linspace(-1, 1, 40)
    >>> x, y = jax.numpy.stack([jax.numpy.ones(40), t], 1), jax.numpy.where(t * 20 % 2 < 1, 1 + 2 * t, -3 * t)
    >>> fit = vb.fit(vb.RegressionMixture(2), (x, y), key=jax.random.key(0), n_restarts=8)
    >>> sorted(fit.params.components.location[:, 1].round().tolist())
    [-3.0, 2.0]
    """

    location: Any = None
    mean_precision: Any = None
    concentration: Any = None
    rate: Any = None

    @property
    def n_features(self) -> int | None:
        return width(self.location, self.mean_precision)

    @property
    def component_family(self) -> MultivariateNormalGamma:
        return MultivariateNormalGamma(self.columns, plate=(self.n_components,))

    @property
    def component_prior(self) -> MultivariateNormalGammaState:
        prior = MultivariateNormalGammaState(
            self.location, jnp.diag(self.mean_precision), self.concentration, self.rate
        )
        return over_components(prior, self.n_components)

    def read_rows(self, data: Any) -> Rows:
        x, y = read_pair(data, "(x, y) of shapes (n, d) and (n,)")
        x = read_table(x, "x", n_features=self.n_features)
        y = read_column(y, "y")
        dtype = jnp.promote_types(x.dtype, y.dtype)
        return read_arrays((x.astype(dtype), y.astype(dtype)), "data")

    def chunk_rows(self, data: Rows) -> int:
        cached = _BLOCK_BYTES // (data[0].shape[1] ** 2 * data[0].dtype.itemsize)
        return max(1, min(super().chunk_rows(data), cached))

    def defaults(self, data: Rows, weights: Array | None) -> dict[str, Any]:
        x, y = data
        mean, variance = weighted_moments(x, weights)
        half = jnp.asarray(0.5, x.dtype)
        return dict(
            location=jnp.zeros_like(mean),
            mean_precision=positive_scale(mean**2 + variance),
            concentration=half,
            rate=half * positive_scale(weighted_moments(y, weights)[1]),
        )

    def seeds(self, key: Array, data: Any, weights: Array | None) -> tuple[Array, Array]:
        """For each component d + 1 rows, drawn by weight: as many as its line passes near."""
        n, count = n_rows(data), self.n_components * (self.columns + 1)
        share = None if weights is None else weights / weights.sum()
        index = jax.random.choice(key, n, (count,), p=share)
        x, y = data
        return x[index], y[index]

    def table(self, components: MultivariateNormalGammaStatistics, rows: Rows) -> Float[Array, "n k"]:
        x, y = rows
        shift = y[:, None] - x @ components.pivot.T
        # E[tau (y - w'x)^2] about the pivot, x' E[tau (w - c)(w - c)'] x by one product for all components
        spread = outer(x, x).reshape(x.shape[0], -1) @ components.square.reshape(self.n_components, -1).T
        square = components.precision * shift**2 - 2 * shift * (x @ components.cross.T) + spread
        return 0.5 * (components.logdet - LOG_2PI - square)

    def log_predictive_of(self, component: MultivariateNormalGammaState, rows: Rows) -> Float[Array, " n"]:
        x, y = rows
        a, b = component.concentration, component.rate
        half = solve_lower(cholesky(component.mean_precision), x.T)
        scale = b / a * (1 + (half**2).sum(0))
        square = (y - x @ component.location) ** 2 / scale
        return log_student_t(square, 2 * a, 1, jnp.log(scale))

    # -- use -----------------------------------------------------------------------------------------

    def mean(self, params: Record, x: Any) -> Float[Array, " n"]:
        """E[y | x] of new rows x, (n,): over the components, as their labels are not known."""
        x = read_table(x, "x", n_features=self.n_features)
        return _mean(self, params, x)

    def sample(self, params: Record, key: Array, x: Any) -> Float[Array, " n"]:
        """New y (n,) for the rows x (n, d), each with parameters of its own drawn from q."""
        x = read_table(x, "x", n_features=self.n_features)
        return _sample_at(self, params, key, x)


@jax.jit
def _mean(model: RegressionMixture, params: Record, x: Array) -> Array:
    return x @ (model.weights(params) @ params.components.location)


@jax.jit
def _sample_at(model: RegressionMixture, params: Record, key: Array, x: Array) -> Array:
    keys = jax.random.split(key, 3)
    c = model.draw_labels(params, keys[0], x.shape[0])
    drawn: LocationPrecision = jax.tree.map(lambda leaf: leaf[c], params.components).sample(keys[1])
    noise = jax.random.normal(keys[2], c.shape, x.dtype)
    return (x * drawn.location).sum(-1) + noise / jnp.sqrt(drawn.precision)
