"""Independent Poisson columns."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE, hyper
from vbjax.data.moments import positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState, GammaStatistics
from vbjax.models.components.component import for_every_law, is_count, require
from vbjax.models.components.counts import Counts, log_negative_binomial
from vbjax.numerics.special import (
    digamma_remainder,
    log_factorial_remainder,
)
from vbjax.numerics.types import Data, Given, Hyper, Tree


@pytree
class Poisson(Counts):
    """Columns of counts: x_nj | c_n = k ~ Poisson(lambda_kj), lambda_kj ~ Gamma(a_j, b_j).

    With N_k = sum_n r_nk, the components' update is

        a_kj = a_j + sum_n r_nk x_nj,   b_kj = b_j + N_k.

    The predictive density of component k is a product of negative binomials, a_kj successes of probability
    b_kj / (b_kj + 1).

    Data: (n, d) of counts. The parameters are a Gamma, (k, d).

    Args:
        concentration: a, a number or (d,); by default 1.
        rate: b, a number or (d,); by default a over the column's mean, which is then
            the prior's.

    Raises:
        ValueError: an entry that is no count; a hyperparameter that is not positive.

    References:
        Gelman et al. (2013), Bayesian data analysis, sections 2.6 and 22.1.

    >>> import vbjax as vb
    >>> vb.Mixture(3, vb.components.Poisson())
    Mixture(n_components=3, component=components.Poisson())
    """

    concentration: Hyper = hyper(None, POSITIVE, "d")
    rate: Hyper = hyper(None, POSITIVE, "d")

    @property
    def family(self) -> Gamma:
        return Gamma((self.n_laws, self.columns))

    @property
    def prior(self) -> GammaState:
        return for_every_law(GammaState(self.concentration, self.rate), self.n_laws)

    def read(self, data: Data) -> Array:
        x = super().read(data)
        require(is_count, x, "data must be counts")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        one = jnp.ones(data.shape[1], data.dtype)
        a = one if self.concentration is None else jnp.asarray(self.concentration, data.dtype)
        return dict(concentration=one, rate=one * a / positive_scale(weighted_moments(data, weights)[0]))

    @property
    def prior_mean(self) -> Float[Array, " d"]:
        return self.concentration / self.rate

    def log_excess(self, state: GammaState) -> Float[Array, "k d"]:
        return digamma_remainder(state.concentration)

    def expected_counts(self, mean: Float[Array, " d"], rows: Float[Array, "n d"]) -> Float[Array, " d"]:
        return mean

    def log_remainder(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return -log_factorial_remainder(rows).sum(-1)

    def table(self, statistics: GammaStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        pivot = self.prior_mean
        return rows @ (statistics.log - jnp.log(pivot)).T - (statistics.value - pivot).sum(-1)

    def log_predictive_of(self, state: GammaState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        b = state.rate
        return log_negative_binomial(rows, state.concentration, b / (b + 1), 1 / (b + 1)).sum(-1)

    def draw(self, key: Array, parameters: Float[Array, "n d"], given: Given) -> Float[Array, "n d"]:
        return jax.random.poisson(key, parameters).astype(parameters.dtype)
