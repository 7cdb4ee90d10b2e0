"""A mixture of univariate normals of unit variance: the smallest model with local latents."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, count, hyper
from vbjax.core.model import ConjugateModel, scored_rows
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.categorical import Categorical
from vbjax.families.normal import Normal, NormalStatistics
from vbjax.numerics.inputs import read_column
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper, Params


@pytree
class UnitVarianceMixture(ConjugateModel):
    """Rows x_n | c_n ~ N(mu_{c_n}, 1), c_n uniform over K components, mu_k ~ N(mu0, sigma^2).

    q(mu_k) = N(m_k, s_k^2), q(c_n) categorical:

        phi_nk proportional to exp(x_n m_k - (m_k^2 + s_k^2) / 2),
        m_k = (mu0 / sigma^2 + sum_n phi_nk x_n) s_k^2,   s_k^2 = 1 / (1 / sigma^2 + sum_n phi_nk).

    Data: (n,). The factor is `mu`, with plate (K,).

    Args:
        n_components: K.
        location: mu0, the prior mean of the components, a number or (K,); by default the data's mean.
        location_precision: 1 / sigma^2, a number or (K,); by default 1 over the data's variance, at most 1.

    References:
        Blei, D., Kucukelbir, A. & McAuliffe, J. (2017), Variational inference: a review for
        statisticians, section 3.1, eq. 22 to 34.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([-5.2, -4.9, -5.1, 4.8, 5.1, 5.3])
    >>> fit = vb.fit(vb.textbook.UnitVarianceMixture(2), x, key=jax.random.key(1), n_restarts=4)
    >>> sorted(int(m) for m in fit.params.mu.mean.round())
    [-5, 5]
    """

    n_components: int = count("k")
    location: Hyper = hyper(None, REAL, "k")
    location_precision: Hyper = hyper(None, POSITIVE, "k")

    @property
    def factors(self) -> Record:
        return Record(mu=Normal((self.n_components,)))

    def local(self, rows: Array) -> Record:
        return Record(c=Categorical(self.n_components, plate=(rows.shape[0],)))

    def read(self, data: Data) -> Array:
        return read_column(data)

    def resolve(self, data: Array, weights: Array | None = None) -> UnitVarianceMixture:
        mean, variance = weighted_moments(data, weights)
        return fill_defaults(self, data.dtype, location=mean, location_precision=1 / jnp.maximum(variance, 1))

    def log_prior(self, s: Record) -> Array:
        return terms.normal(s.mu, self.location, self.location_precision).sum()

    def log_likelihood(self, s: Record, rows: Float[Array, " n"]) -> Float[Array, " n"]:
        prior = terms.categorical(s.c, jnp.full(self.n_components, 1 / self.n_components, rows.dtype))
        return prior + (s.c.p * self._table(s.mu, rows).T).sum(-1)

    def e_step(self, prepared: Record, rows: Float[Array, " n"], weights: Array) -> Expectation:
        table, pull = jax.vjp(lambda s: self._table(s.mu, rows), prepared)
        bound = logsumexp(table, 0)
        (statistics,) = pull(weights * jnp.exp(table - bound))
        return scored_rows(statistics, bound - math.log(self.n_components), weights)

    def _table(self, mu: NormalStatistics, rows: Float[Array, " n"]) -> Float[Array, "k n"]:
        """Compute log N(x_n | mu_k, 1), each about the own mean: no pivot is amid all where one is far."""
        return terms.normal(rows, mu[:, None], 1.0)

    def responsibilities(self, params: Params, x: Data) -> Float[Array, "n k"]:
        """Return q(c_n = k), (n, K)."""
        return self.posterior(params, self.read(x)).c.probabilities
