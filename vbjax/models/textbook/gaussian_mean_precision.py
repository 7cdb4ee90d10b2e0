"""The normal with unknown mean and precision, q(mu) q(tau), and the exact posterior beside it."""

from __future__ import annotations

from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, hyper
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import read_row_weights
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma
from vbjax.families.normal import Normal, NormalStatistics
from vbjax.families.normal_gamma import NormalGammaState
from vbjax.numerics.inputs import read_column
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper


@pytree
class GaussianMeanPrecision(ConjugateModel):
    """Rows x_n ~ N(mu, 1 / tau), mu | tau ~ N(mu0, 1 / (tau0 tau)), tau ~ Gamma(a, b); q(mu) q(tau).

    The coordinate updates, for K rows of mean xbar:

        mu_K = (tau0 mu0 + K xbar) / (tau0 + K),   lambda_K = (tau0 + K) <tau>,
        a_K = a + (K + 1) / 2,   b_K = b + <sum_n (x_n - mu)^2 + tau0 (mu - mu0)^2> / 2.

    Data: (K,). The factors are `mu` and `tau`.

    Args:
        location: mu0, the prior mean; by default the data's mean.
        mean_precision: tau0, prior rows behind the mean; by default 1e-3.
        concentration, rate: a and b, of the precision's prior; by default 1e-3 and 1e-3 times the
            data's variance.

    References:
        Bishop (2006), section 10.1.3, eq. 10.24 to 10.30.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), [1.0, 2.0, 3.0, 4.0], key=jax.random.key(0))
    >>> print(f"{fit.params.mu.mean:.3f}")
    2.500
    """

    location: Hyper = hyper(None, REAL)
    mean_precision: Hyper = hyper(1e-3, POSITIVE)
    concentration: Hyper = hyper(1e-3, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(mu=Normal(), tau=Gamma())

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("mu",), ("tau",))

    def read(self, data: Data) -> Array:
        return read_column(data)

    def resolve(self, data: Array, weights: Array | None = None) -> GaussianMeanPrecision:
        mean, variance = weighted_moments(data, weights)
        return fill_defaults(self, data.dtype, location=mean, rate=1e-3 * positive_scale(variance))

    def log_prior(self, s: Record) -> Array:
        location = terms.normal(s.mu, self.location, self.mean_precision * s.tau)
        return location + terms.gamma(s.tau, self.concentration, self.rate)

    def log_likelihood(self, s: Record, rows: Float[Array, " n"] | NormalStatistics) -> Float[Array, " n"]:
        return terms.normal(rows, s.mu, s.tau)

    def exact_posterior(self, data: Data, weights: Given = None) -> NormalGammaState:
        """Return the exact joint posterior of (mu, tau), a NormalGamma, under this (resolved) model's prior.

        Returns:
            The posterior; its `precision` is the exact marginal of tau, and `mean`, `variance` and `sd`
            give both marginals' moments. (Bishop 2006, eq. 2.154 with section 2.3.6.)
        """
        data = self.read(data)
        weights = read_row_weights(weights, data)
        model = self.resolve(data, weights)
        n = data.shape[0] if weights is None else weights.sum()
        mean, variance = weighted_moments(data, weights)
        strength = model.mean_precision + n
        rate = model.rate + 0.5 * (
            n * variance + model.mean_precision * n / strength * (mean - model.location) ** 2
        )
        location = model.location + n / strength * (mean - model.location)
        return NormalGammaState(location, strength, model.concentration + 0.5 * n, rate)

    def log_evidence(self, data: Data, weights: Given = None) -> Float[Array, ""]:
        """Compute log p(x), exact: what the bound falls short of it is the factorisation's price."""
        data = self.read(data)
        weights = read_row_weights(weights, data)
        model = self.resolve(data, weights)
        prior = NormalGammaState(model.location, model.mean_precision, model.concentration, model.rate)
        posterior = model.exact_posterior(data, weights)
        point = posterior.mean  # Bayes' rule, read at one point: p(x) = p(x | z) p(z) / p(z | x)
        rows = terms.normal(data, point.location, point.precision)
        likelihood = rows.sum() if weights is None else (weights * rows).sum()
        return likelihood + prior.log_prob(point) - posterior.log_prob(point)
