"""Independent Gamma columns, of known shape or of a shape that is learned."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, flag, hyper
from vbjax.core.rows import Expectation
from vbjax.data.moments import positive_scale, weighted_moments
from vbjax.families.base import pytree, replace
from vbjax.families.gamma import Gamma as GammaFamily
from vbjax.families.gamma import GammaState, GammaStatistics
from vbjax.families.shaped_gamma import (
    MOST,
    ShapedGamma,
    ShapedGammaState,
    ShapedGammaStatistics,
    ShapeRate,
)
from vbjax.models.components.component import Component, for_every_law, require
from vbjax.models.components.seeding import Distance
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI, gammaln_remainder, log_rising
from vbjax.numerics.types import Data, Given, Hyper, Params, Tree


@pytree
class Gamma(Component):
    """Positive columns: x_nj | c_n = k ~ Gamma(s_j, lambda_kj), lambda_kj ~ Gamma(a_j, b_j).

    With s = 1 it is a mixture of exponentials. With N_k = sum_n r_nk, the components' update is

        a_kj = a_j + s_j N_k,   b_kj = b_j + sum_n r_nk x_nj.

    The predictive density of component k is a product of compound gammas (beta primes of scale b_kj).

    With `learn_shape` every component and column has a shape s_kj of its own, a point that climbs from s_j: a
    Newton step of the bound with the rate optimised away, which no update lowers. The prior is of means,
    s_j lambda_kj / s_kj ~ Gamma(a_j, b_j), whatever the shapes. Their likelihood has no bound where the rows
    of a component are equal: shapes stay below 10,000, a spread of a hundredth of the mean, and by maximum
    likelihood a run that ends there is flagged in `fit.runs.singular` and never wins over a proper one.

    Data: (n, d), positive. The parameters are a Gamma, (k, d); or `row_shape` (k, d) beside a Gamma of
    the rates, `mean.row_shape` and `mean.rate`.

    Args:
        known_shape: the shape s of every component; a number or (d,); by default 1.
        concentration: a, a number or (d,); by default 1.
        rate: b, a number or (d,); by default a / s times the column's mean: data of the prior's size.
        learn_shape: whether shapes are learned; `known_shape` is then where they begin.

    Raises:
        ValueError: an entry that is not positive; a hyperparameter that is not positive.

    References:
        Wiper, Rios Insua & Ruggeri (2001), Mixtures of gamma distributions with applications, section 2;
        Dubey (1970) for the compound gamma; Choi & Wette (1969) for Newton's method.


    >>> import vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> for law in (vb.components.Gamma(), vb.components.Gamma(learn_shape=True)):
    ...     print(law.of(2, points=True).resolve(x).n_parameters)  # rates; shapes too
    4
    8
    """

    known_shape: Hyper = hyper(1.0, POSITIVE, "d")
    concentration: Hyper = hyper(None, POSITIVE, "d")
    rate: Hyper = hyper(None, POSITIVE, "d")
    learn_shape: bool = flag(kw_only=True)

    @property
    def family(self) -> GammaFamily | ShapedGamma:
        plate = (self.n_laws, self.columns)
        return ShapedGamma(plate) if self.learn_shape else GammaFamily(plate)

    @property
    def prior(self) -> GammaState | ShapedGammaState:
        rates: Any = GammaState(self.concentration, self.rate)
        prior = self._shaped(rates) if self.learn_shape else rates
        return for_every_law(prior, self.n_laws)

    def _shaped(self, rates: GammaState) -> ShapedGammaState:
        """Return rates with the shapes beside them with which components begin."""
        shape = jnp.broadcast_to(self.known_shape, rates.rate.shape)
        return ShapedGammaState(shape, rates.concentration, rates.rate)

    def read(self, data: Data) -> Array:
        x = super().read(data)
        require(lambda x: x > 0, x, "data must be positive")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        one = jnp.ones(data.shape[1], data.dtype)
        a = one if self.concentration is None else jnp.asarray(self.concentration, data.dtype)
        mean = positive_scale(weighted_moments(data, weights)[0])
        rate = one * a / jnp.asarray(self.known_shape, data.dtype) * mean
        return dict(known_shape=one, concentration=one, rate=rate)

    def distance(self, data: Array, weights: Array | None) -> Distance | None:
        return super().distance(_log(data), weights)

    def start_at(self, seeds: Data, data: Data, weights: Array | None = None) -> Record:
        if not self.learn_shape:
            return super().start_at(seeds, data, weights)
        rates = replace(self, learn_shape=False).start_at(seeds, data, weights).components
        if not self.points:
            return Record(components=self._shaped(rates))
        shape = jnp.broadcast_to(self.known_shape, rates.value.shape)
        return Record(components=self.factors["components"].at(ShapeRate(shape, rates.value)))

    def singular(self, params: Params) -> Array:
        if not (self.learn_shape and self.points):
            return super().singular(params)
        return (params.components.mean.row_shape > 0.99 * MOST).any()

    def table(
        self, statistics: GammaStatistics | ShapedGammaStatistics, rows: Float[Array, "n d"]
    ) -> Float[Array, "n k"]:
        pivot = self.concentration / self.rate
        if isinstance(statistics, ShapedGammaStatistics):
            t, scale = statistics, self.known_shape / pivot
            own = t.normalizer + t.row_shape * (1 - jnp.log(t.pivot / scale))
            return _log(rows / scale) @ t.row_shape.T - rows @ t.rate.T + own.sum(-1)
        return (statistics.log - jnp.log(pivot)) @ self.known_shape - rows @ (statistics.value - pivot).T

    def cancelled(self, params: Params, expectation: Expectation) -> Array:
        """Sum what cancels in rows near their component's mean: s log x - lambda x, and what is without x."""
        t, rows = params["components"].expected(), expectation.statistics["components"]
        pivot = self.concentration / self.rate
        if not self.learn_shape:
            return (rows.log * (1 + jnp.abs(jnp.log(t.value / pivot)))).sum()
        far = jnp.abs(jnp.log(t.pivot * pivot / self.known_shape))
        return (rows.normalizer * t.row_shape * (1 + far)).sum()

    def constant(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        if self.learn_shape:
            return -_log(rows).sum(-1)
        rows = jnp.where(rows > 0, rows, 1)
        return terms.gamma(rows, self.known_shape, self.concentration / self.rate).sum(-1)

    def log_predictive_of(
        self, state: GammaState | ShapedGammaState, rows: Float[Array, "n d"]
    ) -> Float[Array, " n"]:
        a, b = state.concentration, state.rate
        shape = state.row_shape if isinstance(state, ShapedGammaState) else self.known_shape
        # Gamma(a + s) / (Gamma(a) Gamma(s)) x^(s - 1) b^a / (b + x)^(a + s)
        log_gamma = (shape - 0.5) * jnp.log(shape) - shape + 0.5 * LOG_2PI + gammaln_remainder(shape)
        row = log_rising(a, shape) - log_gamma + shape * jnp.log(a * rows / b) - jnp.log(rows)
        return (row - (a + shape) * jnp.log1p(rows / b)).sum(-1)

    def draw(self, key: Array, parameters: Tree, given: Given) -> Float[Array, "n d"]:
        shape, rate = parameters if self.learn_shape else (self.known_shape, parameters)
        return jax.random.gamma(key, jnp.broadcast_to(shape, rate.shape), dtype=rate.dtype) / rate


def _log(x: Array) -> Array:
    """Return log x, and 0 where x is not positive: in a row that weighs nothing."""
    return jnp.log(jnp.where(x > 0, x, 1))
