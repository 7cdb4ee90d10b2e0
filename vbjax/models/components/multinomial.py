"""Multinomial rows: documents as bags of words, profiles of counts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import POSITIVE, hyper
from vbjax.families.base import pytree
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.models.components.component import for_every_law, is_count, require
from vbjax.models.components.counts import Counts, log_negative_binomial
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating
from vbjax.numerics.special import digamma_remainder, log_factorial_remainder
from vbjax.numerics.types import Data, Given, Hyper, Tree


@pytree
class Multinomial(Counts):
    """Rows of counts: x_n | c_n = k ~ Multinomial(sum_j x_nj, p_k), p_k ~ Dirichlet(alpha).

    The number of counts of a row is given, not modelled. The components' update is

        alpha_kj = alpha_j + sum_n r_nk x_nj.

    The predictive density of component k is Dirichlet-multinomial.

    Data: (n, d) of counts. The parameters are a Dirichlet, (k, d).

    Args:
        concentration: alpha, a number or (d,); by default 1.

    Raises:
        ValueError: an entry that is no count; a hyperparameter that is not positive.

    References:
        Nigam, McCallum, Thrun & Mitchell (2000), Text classification from labeled and unlabeled documents
        using EM, section 3; Minka (2000), Estimating a Dirichlet distribution, eq. 19 for the predictive.


    >>> import jax.numpy as jnp, vbjax as vb
    >>> words = vb.components.Multinomial().of(2, points=True).resolve(jnp.array([[3, 0, 1], [0, 5, 2]]))
    >>> words.n_parameters  # of both components three probabilities that add up to one
    4
    """

    concentration: Hyper = hyper(None, POSITIVE, "d")

    @property
    def family(self) -> Dirichlet:
        return Dirichlet(self.columns, plate=(self.n_laws,))

    @property
    def prior(self) -> DirichletState:
        return for_every_law(DirichletState(self.concentration), self.n_laws)

    def read(self, data: Data) -> Array:
        x = super().read(data)
        require(is_count, x, "data must be counts")
        return x

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        return dict(concentration=jnp.ones(data.shape[1], data.dtype))

    @property
    def prior_mean(self) -> Float[Array, " d"]:
        return self.concentration / self.concentration.sum()

    def log_excess(self, state: DirichletState) -> Float[Array, "k d"]:
        alpha = state.concentration
        return digamma_remainder(alpha) - digamma_remainder(alpha.sum(-1, keepdims=True))

    def expected_counts(self, mean: Float[Array, " d"], rows: Float[Array, "n d"]) -> Float[Array, "n d"]:
        return rows.sum(-1, keepdims=True) * mean

    def log_remainder(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return log_factorial_remainder(rows.sum(-1)) - log_factorial_remainder(rows).sum(-1)

    def table(self, statistics: DirichletStatistics, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return rows @ (statistics.log - jnp.log(self.prior_mean)).T

    def log_predictive_of(self, state: DirichletState, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        # counts that are negative binomial, given their number: whatever the probability, here that of means
        alpha, total, n = state.concentration, state.concentration.sum(), rows.sum(-1, keepdims=True)
        p, q = total / (total + n), n / (total + n)
        own = log_negative_binomial(rows, alpha, p, q).sum(-1)
        return own - log_negative_binomial(n, total, p, q)[..., 0]

    def given_of(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return rows.sum(-1)

    def read_given(self, given: Given, n: int) -> Float[Array, " n"]:
        return _read_totals(1 if given is None else given, n)

    def draw(
        self, key: Array, parameters: Float[Array, "n d"], given: Float[Array, " n"]
    ) -> Float[Array, "n d"]:
        return _draw_counts(key, given.astype(parameters.dtype), parameters)


def _read_totals(given: Given, n: int) -> Float[Array, " n"]:
    """Read how many counts each of n rows has."""
    counts = as_floating(given, "given")
    if counts.shape not in ((), (n,)):
        raise ValueError(f"given must be a number of counts, or one for each of {n}; got {counts.shape}")
    require(np.isfinite, counts, "given must be finite")
    require(is_count, counts, "given must be numbers of counts")
    return jnp.broadcast_to(counts, (n,))


@jit
def _draw_counts(key: Array, counts: Array, p: Array) -> Array:
    return jax.random.multinomial(key, counts, p, dtype=p.dtype)
