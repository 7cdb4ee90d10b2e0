"""Linear regressions of several responses, whose noise is correlated."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import DEFINITE, POSITIVE, REAL, above, hyper, read_columns
from vbjax.core.rows import Expectation
from vbjax.data.moments import positive_definite, positive_scale, weighted_covariance, weighted_moments
from vbjax.families.base import LocationPrecision, pytree
from vbjax.families.matrix_normal_wishart import (
    MatrixNormalWishart,
    MatrixNormalWishartState,
    MatrixNormalWishartStatistics,
)
from vbjax.models.components.component import Component, for_every_law
from vbjax.models.components.covariance.structure import below, clip_eigenvalues, with_covariance
from vbjax.models.components.predictive import log_student_t
from vbjax.models.components.responses import Responses
from vbjax.numerics.inputs import read_arrays, read_pair
from vbjax.numerics.linalg import (
    cholesky,
    ill_conditioned,
    logdet_from_cholesky,
    rounding_of,
    solve_lower,
)
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Data, Hyper, Params, Tree

Rows = tuple[Float[Array, "n d"], Float[Array, "n m"]]


@pytree
class MultivariateRegression(Responses, Component):
    """Linear regressions of m responses: y_n | x_n, c_n = k ~ N(offset + W_k' [x_n - center; 1], Lam_k^-1).

        W_k | Lam_k ~ MN(W0, R0^-1, Lam_k^-1),   Lam_k ~ Wishart(nu0, V0),   R0 = diag(mean_precision)

    The components' update is, with u = [x - center; 1], v = y - offset and sums over rows weighted by r_nk,

        R_k = R0 + sum u u',   W_k = R_k^-1 (R0 W0 + sum u v'),   nu_k = nu0 + N_k,
        V_k^-1 = V0^-1 + sum (v - W_k' u)(v - W_k' u)' + (W_k - W0)' R0 (W_k - W0).

    The predictive density of component k is Student-t. Points, by EM, are least squares of weighted rows and
    Lam_k^-1 = sum (v - W_k' u)(v - W_k' u)' / N_k. That likelihood is unbounded, so Lam_k^-1 >=
    covariance_floor x diag(inverse_scale), by clipping eigenvalues in these units, the exact constrained
    maximiser: EM stays monotone. A run that ends on that boundary is flagged in `fit.runs.singular` and never
    wins over a proper one.

    Data: a pair (x, y), (n, d) and (n, m). The parameters are a MatrixNormalWishart, (k,),
    whose `location` (k, d + 1, m) are the W_k, the intercept last.

    Args:
        location: W0, a number or (d + 1, m); by default the one regression of all rows.
        mean_precision: the diagonal of R0, a number or (d + 1,); by default the mean squares of u: a row.
        degrees_of_freedom: nu0, above m - 1; by default m.
        inverse_scale: V0^-1, (m, m); by default the covariance of what that one regression leaves.
        covariance_floor: by maximum likelihood the smallest variance allowed in any direction, relative to
            the diagonal of inverse_scale.
        center, offset: (d,) and (m,); by default the columns' means.

    Raises:
        ValueError: data that are no such pair; a hyperparameter out of range.

    References:
        Bishop (2006), section 14.5.1 (by EM); Rossi, Allenby & McCulloch (2005), Bayesian statistics and
        marketing, section 2.8.5 for a component.


    >>> import jax.numpy as jnp, vbjax as vb
    >>> x = jnp.array([[0.0], [1.0], [2.0]])
    >>> law = vb.components.MultivariateRegression().resolve((x, jnp.concatenate([x, -x], 1)))
    >>> print(law.location.round(3).tolist())  # the prior: one regression of all rows, from the means
    [[1.0, -1.0], [0.0, 0.0]]
    """

    location: Hyper = hyper(None, REAL, "q m")
    mean_precision: Hyper = hyper(None, POSITIVE, "q")
    degrees_of_freedom: Hyper = hyper(None, lambda model, sizes: (above(sizes.get("m", 1) - 1),))
    inverse_scale: Hyper = hyper(None, DEFINITE, "m m")
    covariance_floor: Hyper = hyper(1e-6, POSITIVE)
    center: Hyper = hyper(None, REAL, "d")
    offset: Hyper = hyper(None, REAL, "m")

    @property
    def response_shape(self) -> tuple[int, ...]:
        return np.shape(self.offset)

    @property
    def family(self) -> MatrixNormalWishart:
        rows, k = self.columns + 1, self.n_laws
        return MatrixNormalWishart(plate=(k,), rows=rows, size=self.response_shape[0])

    @property
    def prior(self) -> MatrixNormalWishartState:
        prior = MatrixNormalWishartState(
            self.location, jnp.diag(self.mean_precision), self.degrees_of_freedom, self.inverse_scale
        )
        return for_every_law(prior, self.n_laws)

    @property
    def n_parameters(self) -> int:
        q, m = self.columns + 1, self.response_shape[0]
        return self.n_laws * (q * m + m * (m + 1) // 2)

    def read(self, data: Data) -> Rows:
        x, y = read_pair(data, "(x, y) of shapes (n, d) and (n, m)")
        x, y = read_columns(self, x, "x"), read_columns(self, y, "y", axis="m")
        dtype = jnp.promote_types(x.dtype, y.dtype)
        return read_arrays((x.astype(dtype), y.astype(dtype)), "data")

    def sizes(self, data: Data) -> dict[str, int]:
        d, m = data[0].shape[-1], data[1].shape[-1]
        return dict(d=d, q=d + 1, m=m)

    def chunk_rows(self, data: Rows) -> int:
        x, y = data
        cached = 2**21 // (self.n_laws * y.shape[1] * x.dtype.itemsize)
        return max(1, min(super().chunk_rows(data), cached))

    def defaults(self, data: Rows, weights: Array | None) -> dict[str, Tree]:
        x, y = data
        m, (center, variance) = y.shape[1], weighted_moments(x, weights)
        offset, slope, leaves = _one_regression(x, y, weights)
        return dict(
            location=jnp.pad(slope, [(0, 1), (0, 0)]),
            mean_precision=jnp.append(positive_scale(variance), jnp.ones((), x.dtype)),
            degrees_of_freedom=jnp.asarray(m, x.dtype),
            inverse_scale=leaves,
            covariance_floor=jnp.asarray(1e-6, x.dtype),
            center=center,
            offset=offset,
        )

    def design(self, x: Float[Array, "n d"]) -> Float[Array, "n q"]:
        return jnp.concatenate([x - self.center, jnp.ones_like(x[:, :1])], 1)

    def table(self, statistics: MatrixNormalWishartStatistics, rows: Rows) -> Float[Array, "n k"]:
        x, y = self.design(rows[0]), rows[1] - self.offset
        shift = y - x @ statistics.pivot  # (k, n, m), as all that follow
        # E[(v - W'u)' Lam (v - W'u)] about the pivot
        pulled = shift @ statistics.precision - 2 * (x @ statistics.cross)
        square = (shift * pulled).sum(-1).T + self.spread(statistics.square, x)
        return 0.5 * (statistics.logdet - y.shape[1] * LOG_2PI - square)

    def log_predictive_of(self, state: MatrixNormalWishartState, rows: Rows) -> Float[Array, " n"]:
        x, y = self.design(rows[0]), rows[1] - self.offset
        m, half = y.shape[1], solve_lower(cholesky(state.mean_precision), x.T)
        dof = state.degrees_of_freedom + 1 - m
        scale, root = (1 + (half**2).sum(0)) / dof, cholesky(state.inverse_scale)
        z = solve_lower(root, (y - x @ state.location).T)
        logdet = logdet_from_cholesky(root) + m * jnp.log(scale)
        return log_student_t((z**2).sum(0) / scale, dof, m, logdet)

    def expected_responses(
        self, location: Float[Array, "q m"], x: Float[Array, "n d"]
    ) -> Float[Array, "n m"]:
        return self.offset + self.design(x) @ location

    def responses(self, drawn: LocationPrecision, x: Array, noise: Array) -> Array:
        root = cholesky(drawn.precision)
        noise = solve_lower(root, noise[..., None], transposed=True)[..., 0]
        return self.offset + jnp.einsum("...q,...qm->...m", self.design(x), drawn.location) + noise

    # -- maximum likelihood --------------------------------------------------------------------------

    @property
    def floor(self) -> Float[Array, " m"]:
        """The smallest variances allowed by maximum likelihood, (m,)."""
        return self.covariance_floor * jnp.diagonal(self.inverse_scale)

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        """Return parameters after an update, no covariance of points below the floor."""
        if not self.points:
            return params
        clip = lambda covariance: clip_eigenvalues(covariance, self.floor)
        return params | dict(components=with_covariance(params["components"], clip))

    def singular(self, params: Params) -> Array:
        if not self.points:
            return super().singular(params)
        return below(params["components"].value.covariance, self.floor)

    def ill_conditioned(self, params: Params) -> Array:
        own = params["components"]
        if self.points:
            return ill_conditioned(own.value.covariance)
        return ill_conditioned(own.inverse_scale) | ill_conditioned(own.mean_precision)

    def cancelled(self, params: Params, expectation: Expectation) -> Array:
        """Return the rounding of densities under covariances that are narrow in some direction."""
        own, number = params["components"], 2 * expectation.statistics["components"].logdet
        if self.points:
            return rounding_of(own.value.covariance, number, self.covariance_floor).sum()
        return rounding_of(own.inverse_scale, number).sum()


def _one_regression(x: Array, y: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    """Fit one regression to all rows: the mean of y (m,), slopes (d, m), and the covariance (m, m) left."""
    d = x.shape[1]
    mean, covariance = weighted_covariance(jnp.concatenate([x, y], 1), weights)
    own, variance = covariance[:d, :d], jnp.diagonal(covariance)
    own = positive_definite(own + jnp.diag(jnp.where(variance[:d] > 0, 0, 1).astype(x.dtype)))
    root = cholesky(own)
    slope = solve_lower(root, solve_lower(root, covariance[:d, d:]), transposed=True)
    left = weighted_covariance((y - mean[d:]) - (x - mean[:d]) @ slope, weights)[1]
    # what is left of a column that the others tell exactly, or that does not vary, is a unit of its own
    unit = jnp.where(variance[d:] > 0, jnp.finfo(x.dtype).eps * variance[d:], 1)
    return mean[d:], slope, positive_definite(left + jnp.diag(unit))
