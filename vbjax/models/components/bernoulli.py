"""Independent Bernoulli columns: latent classes of binary data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE, hyper
from vbjax.families.base import pytree
from vbjax.families.beta import Beta, BetaState, BetaStatistics
from vbjax.models.components.component import Component, for_every_law, require
from vbjax.numerics.types import Data, Given, Hyper, Tree


@pytree
class Bernoulli(Component):
    """Columns of 0 and 1: x_nj | c_n = k ~ Bernoulli(p_kj), p_kj ~ Beta(a_j, b_j).

    With N_k = sum_n r_nk, the components' update is

        a_kj = a_j + sum_n r_nk x_nj,   b_kj = b_j + sum_n r_nk (1 - x_nj).

    The predictive density of component k is prod_j Bernoulli(x_j | a_kj / (a_kj + b_kj)).

    Data: (n, d) of 0 and 1. The parameters are a Beta, (k, d).

    Args:
        concentration1, concentration0: a and b, numbers or (d,); by default 1.

    Raises:
        ValueError: an entry that is neither 0 nor 1; a hyperparameter that is not positive.

    References:
        Bishop (2006), section 9.3.3, eq. 9.47 to 9.59 and exercise 10.36.

    >>> import vbjax as vb
    >>> vb.Mixture(3, vb.components.Bernoulli())
    Mixture(n_components=3, component=components.Bernoulli())
    """

    concentration1: Hyper = hyper(None, POSITIVE, "d")
    concentration0: Hyper = hyper(None, POSITIVE, "d")

    @property
    def family(self) -> Beta:
        return Beta((self.n_laws, self.columns))

    @property
    def prior(self) -> BetaState:
        prior = BetaState(self.concentration1, self.concentration0)
        return for_every_law(prior, self.n_laws)

    def read(self, data: Data) -> Array:
        x = super().read(data)
        require(lambda x: (x == 0) | (x == 1), x, "data must be 0 or 1")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        one = jnp.ones(data.shape[1], data.dtype)
        return dict(concentration1=one, concentration0=one)

    def table(self, statistics: BetaStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        if self.points:  # sums of what is not negative: a difference may round to one that has no mode
            return rows @ statistics.log.T + (1 - rows) @ statistics.log_complement.T
        return rows @ (statistics.log - statistics.log_complement).T + statistics.log_complement.sum(-1)

    def log_predictive_of(self, state: BetaState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        a, b = state.concentration1, state.concentration0
        return rows @ jnp.log(a / b) - jnp.log1p(a / b).sum()

    def draw(self, key: Array, parameters: Float[Array, "n d"], given: Given) -> Float[Array, "n d"]:
        return jax.random.bernoulli(key, parameters).astype(parameters.dtype)
