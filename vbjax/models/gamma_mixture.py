"""Mixtures of independent Gamma columns of known shape."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState, GammaStatistics
from vbjax.models.conjugate_mixture import ConjugateMixture, over_components, require, width
from vbjax.models.defaults import positive_scale, weighted_moments
from vbjax.models.seeding import plus_plus
from vbjax.special import gammaln_remainder, log_rising


@pytree
class GammaMixture(ConjugateMixture):
    """x_nj | c_n = k ~ Gamma(s_j, lambda_kj), lambda_kj ~ Gamma(a_j, b_j): positive columns.

    With s = 1 it is a mixture of exponentials. With N_k = sum_n r_nk, the components' update is

        a_kj = a_j + s_j N_k,   b_kj = b_j + sum_n r_nk x_nj.

    The predictive density of component k is a product of compound gammas (beta primes of scale b_kj).

    Data: (n, d), positive. The factors are `weights` and `components` (Gamma, (k, d)).

    Args:
        n_components: k, an upper bound.
        known_shape: the shape s of every component; a number or (d,); by default 1.
        concentration: a, a number or (d,); by default 1.
        rate: b, a number or (d,); by default a / s times the column's mean: data of the prior's size.
        weight_prior, weight_concentration: see `ConjugateMixture`.

    Raises:
        ValueError: an entry that is not positive; a hyperparameter that is not positive.

    References:
        Wiper, Rios Insua & Ruggeri (2001), Mixtures of gamma distributions with applications, section 2;
        Dubey (1970) for the compound gamma.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0.1], [0.12], [0.09], [10.0], [9.0], [12.0]])
    >>> fit = vb.fit(vb.GammaMixture(2, known_shape=5.0), x, key=jax.random.key(0), n_restarts=4)
    >>> sorted(fit.model.responsibilities(fit.params, x).sum(0).round().tolist())
    [3.0, 3.0]
    """

    known_shape: Any = 1.0
    concentration: Any = None
    rate: Any = None

    @property
    def n_features(self) -> int | None:
        return width(self.known_shape, self.concentration, self.rate)

    @property
    def component_family(self) -> Gamma:
        return Gamma((self.n_components, self.columns))

    @property
    def component_prior(self) -> GammaState:
        return over_components(GammaState(self.concentration, self.rate), self.n_components)

    def read_rows(self, data: Any) -> Array:
        x = super().read_rows(data)
        require(lambda x: x > 0, x, "data must be positive")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Any]:
        one = jnp.ones(data.shape[1], data.dtype)
        a = one if self.concentration is None else jnp.asarray(self.concentration, data.dtype)
        mean = positive_scale(weighted_moments(data, weights)[0])
        rate = one * a / jnp.asarray(self.known_shape, data.dtype) * mean
        return dict(known_shape=one, concentration=one, rate=rate)

    def seeds(self, key: Array, data: Array, weights: Array | None) -> Array:
        log = _log(data)
        scale = positive_scale(weighted_moments(log, weights)[1])
        return jnp.exp(plus_plus(key, log, self.n_components, weights, scale))

    def table(self, components: GammaStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        pivot = self.concentration / self.rate
        return (components.log - jnp.log(pivot)) @ self.known_shape - rows @ (components.value - pivot).T

    def constant(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        rows = jnp.where(rows > 0, rows, 1)
        return terms.gamma(rows, self.known_shape, self.concentration / self.rate).sum(-1)

    def log_predictive_of(self, component: GammaState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        a, b, shape = component.concentration, component.rate, self.known_shape
        # Gamma(a + s) / (Gamma(a) Gamma(s)) x^(s - 1) b^a / (b + x)^(a + s)
        log_gamma = (shape - 0.5) * jnp.log(shape) - shape + 0.5 * terms.LOG_2PI + gammaln_remainder(shape)
        row = log_rising(a, shape) - log_gamma + shape * jnp.log(a * rows / b) - jnp.log(rows)
        return (row - (a + shape) * jnp.log1p(rows / b)).sum(-1)

    def draw(self, key: Array, parameters: Float[Array, "n d"]) -> Float[Array, "n d"]:
        shape = jnp.broadcast_to(self.known_shape, parameters.shape)
        return jax.random.gamma(key, shape, dtype=parameters.dtype) / parameters


def _log(x: Array) -> Array:
    """log x; 0 where x is not positive: a row that weighs nothing."""
    return jnp.log(jnp.where(x > 0, x, 1))
