"""Counts, Poisson and multinomial: log densities that keep their digits.

Of a large count both parts of a log density are large, x log(mean) and log x!, and their sum is not. About
the prior's mean one matrix product scores all components, and loses what the two parts have in common: of
counts up to some hundreds little. Blocks of rows with a larger one are scored about each component's own
mean, by deviances.
"""

from __future__ import annotations

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.rows import Annotated, Expectation
from vbjax.families.base import pytree
from vbjax.models.components.component import Component, Pullback
from vbjax.numerics.record import Record
from vbjax.numerics.special import gammaln_remainder, log_factorial_remainder, poisson_deviance
from vbjax.numerics.types import Data, Params, Tree

_LARGE = 256  # a count of which float32 loses no more than a few units in the fifth place of a log density


class Means(NamedTuple):
    """Components as rows need them.

    Attributes:
        statistics: of their parameters.
        mean: (k, d), the parameters' means.
        log_excess: (k, d), their expected logarithms, less the logarithms of the means, to its own digits.
    """

    statistics: Tree
    mean: Array
    log_excess: Array


@pytree
class Counts(Component, abc.ABC):
    """Rows of counts (n, d), whose log density under a law is, with means m and the deviances D,

    sum_j [x_j (E[log m_j] - log m_j) - D(x_j, m_j)] - (what does not depend on the law).
    """

    @abc.abstractmethod
    def log_excess(self, state: Tree) -> Float[Array, "k d"]:
        """Compute E[log] - log E of the parameters, distributions."""

    @abc.abstractmethod
    def expected_counts(
        self, mean: Float[Array, " d"], rows: Float[Array, "n d"]
    ) -> Float[Array, "n d"] | Float[Array, " d"]:
        """Compute the counts that rows would have at the mean of one law's parameters."""

    @abc.abstractmethod
    def log_remainder(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Compute the log density of rows that are at their expected counts."""

    @property
    @abc.abstractmethod
    def prior_mean(self) -> Float[Array, " d"]:
        """The mean of the prior, the pivot of `table`."""

    def constant(self, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        expected = self.expected_counts(self.prior_mean, rows)
        return self.log_remainder(rows) - poisson_deviance(rows, expected).sum(-1)

    def annotate(self, data: Array, weights: Array | None = None) -> Annotated:
        return super().annotate(data, weights)._replace(largest=data.max(-1))

    def prepare(self, params: Params) -> Means:
        components = params["components"]
        mean = jnp.maximum(components.mean, jnp.finfo(components.mean.dtype).tiny)
        excess = jnp.zeros_like(mean) if self.points else self.log_excess(components)
        return Means(super().prepare(params), mean, excess)

    def log_density(self, prepared: Means, rows: Data) -> tuple[Float[Array, "k n"], Pullback]:
        if not isinstance(rows, Annotated):
            rows = self.annotate(rows)
        x = rows.rows

        def about_own_means() -> Array:
            far = lambda mean: poisson_deviance(x, self.expected_counts(mean, x)).sum(-1)
            return prepared.log_excess @ x.T + self.log_remainder(x) - jax.lax.map(far, prepared.mean)

        contracted, gradient = jax.vjp(lambda t: self.table(t, x).T, prepared.statistics)
        large = (rows.largest > _LARGE).any()
        density = jax.lax.cond(large, about_own_means, lambda: contracted + rows.constant)
        return density, lambda r: Record(components=gradient(r)[0])

    def cancelled(self, params: Params, expectation: Expectation) -> Array:
        """Return what the log density of counts that are not large is made of, about the prior's mean."""
        total, mean = expectation.statistics["components"].log, self.prepare(params).mean
        far = 1 + jnp.abs(jnp.log(mean / self.prior_mean))
        large = total.sum() > _LARGE * self.columns * expectation.weight
        return jnp.where(large, 0, (total * far).sum())


def log_negative_binomial(x: Array, a: Array, p: Array, q: Array) -> Array:
    """Return the log probability of counts x, Gamma(a + x) / (Gamma(a) x!) p^a q^x with p + q = 1.

    It is by the deviances of a and x from their shares of a + x, so that nothing large cancels.
    """
    n = a + x
    far = poisson_deviance(a, n * p) + poisson_deviance(x, n * q)
    remainder = gammaln_remainder(n) - gammaln_remainder(a) - log_factorial_remainder(x)
    return 0.5 * jnp.log(a / n) + remainder - far
