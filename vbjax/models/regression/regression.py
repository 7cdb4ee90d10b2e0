"""What all regressions share: reading (x, y), the design about the columns' centre, the weights, and use.

Not a model itself. A named regression says which prior its weights have, and holds a response (responses.py):
what y is, given psi.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Num

from vbjax import terms
from vbjax.core.hyperparameters import read_columns
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.gamma import Gamma, GammaState, GammaStatistics
from vbjax.families.multivariate_normal import MultivariateNormal, MultivariateNormalState
from vbjax.inference.replicate import redraw_data
from vbjax.models.regression.responses import Predictive, Response, quadratic_rows
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_column, read_count, read_key, read_pair
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper, Tree

Rows = tuple[Float[Array, "n d"], Num[Array, " n"]]


class Regression(ConjugateModel):
    """Rows (x_n, y_n); y_n depends on x_n through psi_n = w_0 + w . (x_n - center).

    With `center` at the columns' means the intercept w_0 hardly depends on the other weights, and columns
    at a large offset keep float32's digits; likewise with `offset` at the mean of y, where y is a location.
    The first of the p weights is the intercept, where there is one. The weights' prior is, unless a subclass
    has another,

        w_0 ~ N(0, 1 / intercept_precision),   w_j ~ N(0, 1 / precision_j),   or with `ard`
        w_j ~ N(0, 1 / alpha_j),   alpha_j ~ Gamma(relevance_concentration, relevance_rate_j).

    Subclasses are dataclasses with these hyperparameters.
    """

    draws_data = True
    response: ClassVar[Response]

    fit_intercept: bool
    center: Hyper
    intercept_precision: Hyper
    precision: Hyper
    relevance_concentration: Hyper
    relevance_rate: Hyper
    ard: bool = False
    offset: Hyper = 0.0

    # -- data ----------------------------------------------------------------------------------------

    @property
    def n_weights(self) -> int:
        """Number p of weights: d, and one more for the intercept."""
        if self.center is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return self.center.shape[-1] + self.fit_intercept

    def read(self, data: Given) -> Rows:
        x, y = read_pair(data, "(x, y) of a table and a column")
        x = read_columns(self, x, "x")
        y = self.response.read(read_column(y, "y").astype(x.dtype))
        if x.shape[0] != y.shape[0]:
            raise ValueError(f"x and y must have as many rows; got shapes {x.shape} and {y.shape}")
        return x, y

    def sizes(self, data: Rows) -> dict[str, int]:
        d = data[0].shape[-1]
        return dict(d=d, p=d + self.fit_intercept)

    def units(self, x: Array, weights: Array | None, center: Hyper) -> tuple[Array, Array]:
        """Return the given centre of each column, by default the mean, and the mean squares about it.

        Without an intercept the default is 0.
        """
        mean, variance = weighted_moments(x, weights)
        if center is None:
            center = mean if self.fit_intercept else 0
        center = jnp.broadcast_to(jnp.asarray(center, x.dtype), mean.shape)
        return center, positive_scale(variance + (mean - center) ** 2)

    def design(self, x: Float[Array, "n d"]) -> Float[Array, "n p"]:
        """Return the columns about their centre, behind ones for the intercept."""
        x = x - self.center
        return jnp.concatenate([jnp.ones_like(x[:, :1]), x], 1) if self.fit_intercept else x

    # -- the weights' prior --------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        alpha = dict(alpha=Gamma(self.center.shape)) if self.ard else {}
        return Record(w=MultivariateNormal(self.n_weights), **alpha)

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("w",), tuple(self.factors)[1:]) if self.ard else (("w",),)

    def resolve(self, data: Rows, weights: Array | None = None) -> Tree:
        center, scale = self.units(data[0], weights, self.center)
        prior = (
            dict(relevance_rate=self.relevance_concentration / scale)
            if self.ard
            else dict(precision=0.1 * scale)
        )
        return fill_defaults(self, data[0].dtype, center=center, **prior)

    def precisions(self, alpha: GammaStatistics) -> GammaStatistics:
        """Return the precisions of all weights: the intercept's own, then those of the columns, (d,)."""
        if not self.fit_intercept:
            return alpha
        own = GammaStatistics.of(jnp.reshape(self.intercept_precision, 1))
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y]), own, alpha)

    def init(self, key: Array, data: Given, weights: Array | None = None) -> Record:
        """Start the weights at their prior, with its precisions at their prior's means."""
        alpha = around(self.relevance_concentration, self.relevance_rate) if self.ard else None
        precision = self.precisions(GammaStatistics.of(self.precision if alpha is None else alpha.mean)).value
        w = MultivariateNormalState(jnp.zeros_like(precision), jnp.diag(precision))
        return Record(w=w) if alpha is None else Record(w=w, alpha=alpha)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        alpha = s.alpha if self.ard else GammaStatistics.of(self.precision)
        prior = terms.normal(s.w, 0.0, self.precisions(alpha)).sum()
        if not self.ard:
            return prior
        return prior + terms.gamma(s.alpha, self.relevance_concentration, self.relevance_rate).sum()

    # -- the rows ------------------------------------------------------------------------------------

    def about_offset(self, rows: Rows) -> tuple[Float[Array, "n p"], Float[Array, " n"]]:
        """Return the design, and y about the offset in its dtype."""
        x, y = rows
        return self.design(x), y.astype(x.dtype) - self.offset

    def local(self, rows: Rows) -> Record:
        return self.response.local(len(rows[1]))

    def log_likelihood(self, s: Record, rows: Rows) -> Float[Array, " n"]:
        return self.response.log_likelihood(s, *self.about_offset(rows))

    def e_step(self, prepared: Record, rows: Rows, weights: Float[Array, " n"]) -> Expectation:
        return self.response.e_step(prepared, *self.about_offset(rows), weights)

    def replicate(self, params: Record, key: Array, data: Given, n_draws: int) -> Data:
        return redraw_data(self, params, key, self.read(data), n_draws)

    def redraw(self, values: Record, local: Record, key: Array, data: Rows) -> Rows:
        """Draw y anew, given values of the weights and of the noise's precision."""
        x, y = data
        psi = self.design(x) @ self.response.weights(values)
        drawn = self.response.given(psi, jnp.zeros_like(psi), values).sample(key)
        return x, self.offset + drawn.astype(y.dtype)

    # -- use -----------------------------------------------------------------------------------------

    def coefficients(self, params: Record) -> Float[Array, " d"]:
        """Return the expected weights of the columns."""
        return self.response.weights(_means(params))[self.fit_intercept :]

    def intercept(self, params: Record) -> Float[Array, ""]:
        """Return the expected y, or psi of a label, at x = 0."""
        own = self.response.weights(_means(params))[0] if self.fit_intercept else 0
        return self.offset + own - self.coefficients(params) @ self.center

    def psi(self, params: Record, x: Given) -> Float[Array, " n"]:
        """Return the expected psi of rows x, (n, d)."""
        return _psi(self, params, read_columns(self, x, "x"))

    def predict(self, params: Record, x: Given) -> Num[Array, " n"]:
        """Return the expected y of rows x, (n, d); of labels the more probable one, 0 or 1."""
        return self.response.predict(self.offset + self.psi(params, x))

    def predictive(self, params: Record, x: Float[Array, "n d"]) -> Predictive:
        """Return the distribution of y - offset for rows x, the weights integrated out."""
        means, covariance, design = _means(params), Record(w=params.w.covariance), self.design(x)
        variance = quadratic_rows(design, self.response.weights(covariance))
        return self.response.given(design @ self.response.weights(means), variance, means)

    def log_predictive(self, params: Record, data: Given) -> Float[Array, " n"]:
        """Return the log density of new rows (x, y), the weights integrated out."""
        return _log_predictive(self, params, *self.read(data))

    def sample(self, params: Record, key: Array, n: int, *, given: Given) -> Num[Array, " n"]:
        """Draw y for n rows from the predictive density, each with weights of its own.

        Args:
            params: of a fit.
            key: PRNG key.
            n: how many.
            given: the rows' x, (n, d).
        """
        n, x = read_count(n, "n"), read_columns(self, given, "given")
        if len(x) != n:
            raise ValueError(f"given must have a row x for each of the {n} rows; got shape {x.shape}")
        return _sample(self, params, read_key(key), x)


def _means(params: Record) -> Record:
    return Record({name: q.mean for name, q in params.items()})


@jit
def _psi(model: Regression, params: Record, x: Array) -> Array:
    return model.design(x) @ model.response.weights(_means(params))


@jit
def _log_predictive(model: Regression, params: Record, x: Array, y: Array) -> Array:
    return model.predictive(params, x).log_prob(y - model.offset)


@jit
def _sample(model: Regression, params: Record, key: Array, x: Array) -> Array:
    drawn = model.predictive(params, x).sample(key)
    return jnp.asarray(model.offset, drawn.dtype) + drawn


@jit
def probabilities(model: Regression, params: Record, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """Return P(y = 1) of rows x, for labels."""
    return jnp.exp(model.predictive(params, x).log_prob(jnp.ones_like(x[:, 0])))


def around(concentration: Hyper, rate: Hyper) -> GammaState:
    """Return where a precision starts: at its prior's mean, but with a shape that says something."""
    rate = jnp.asarray(rate)
    return GammaState(jnp.full_like(rate, 2), 2 * rate / concentration)
