"""Estimates of many groups with known standard errors, pooled as far as they agree."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, hyper
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import float_dtype
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState
from vbjax.families.normal import Normal, NormalState
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_column, read_pair, values_here
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper


@pytree
class HierarchicalNormal(ConjugateModel):
    """Estimates y_j ~ N(theta_j, sigma_j^2), sigma_j known, theta_j ~ N(mu, 1 / tau): the eight schools.

        mu ~ N(mu0, 1 / tau0),   tau ~ Gamma(a, b),   q(mu) q(tau) prod_j q(theta_j);

    the coordinate updates, for J groups:

        theta_j: precision 1 / sigma_j^2 + E[tau], mean (y_j / sigma_j^2 + E[tau] E[mu]) / precision,
        mu: precision tau0 + J E[tau], mean (tau0 mu0 + E[tau] sum_j E[theta_j]) / precision,
        a_J = a + J / 2,   b_J = b + sum_j E[(theta_j - mu)^2] / 2.

    Each theta_j lies between its own y_j and the common mu: partial pooling. A group is a row, and theta_j
    its local latent.

    Data: (y, sigma), (J,) each. The factors are `mu` and `tau`.

    Args:
        location: mu0, the prior mean; by default the mean of y.
        location_precision: tau0, that of mu's prior; by default 1e-3 over the variance of y.
        concentration, rate: a and b, of the prior of tau; by default 1/2 and half the variance of y: one
            group's worth of belief that the groups differ as much as the y.

    Raises:
        ValueError: data that are no such pair; standard errors that are not positive.

    References:
        Rubin, D. (1981), Estimation in parallel randomized experiments, J. Educational Statistics 6;
        Gelman et al. (2013), Bayesian data analysis, section 5.4 and 5.5.

    >>> import jax, vbjax as vb
    >>> y, sigma = jax.numpy.array([[28.0, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18]])
    >>> fit = vb.fit(vb.textbook.HierarchicalNormal(), (y, sigma), key=jax.random.key(0))
    >>> bool((abs(fit.model.effects(fit.params, (y, sigma)).mean - 8) < abs(y - 8)).sum() > 5)
    True
    """

    location: Hyper = hyper(None, REAL)
    location_precision: Hyper = hyper(None, POSITIVE)
    concentration: Hyper = hyper(0.5, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(mu=Normal(), tau=Gamma())

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("mu",), ("tau",))

    def local(self, rows: Data) -> Record:
        return Record(theta=Normal(rows[0].shape))

    def read(self, data: Data) -> tuple[Array, Array]:
        y, sigma = read_pair(data, "(y, sigma), estimates and their standard errors")
        y, sigma = read_column(y, "y"), read_column(sigma, "sigma")
        if y.shape != sigma.shape:
            raise ValueError(f"y and sigma must have one shape (J,); got {y.shape} and {sigma.shape}")
        if is_concrete(sigma) and not (values_here(sigma) > 0).all():
            raise ValueError("sigma must be positive: standard errors")
        return y, sigma

    def resolve(self, data: Data, weights: Array | None = None) -> HierarchicalNormal:
        mean, variance = weighted_moments(data[0], weights)
        unit = positive_scale(variance)
        return fill_defaults(
            self, float_dtype(data), location=mean, location_precision=1e-3 / unit, rate=0.5 * unit
        )

    def init(self, key: Array, data: Data, weights: Array | None = None) -> Record:
        """Start at the mean and variance of y."""
        mean, variance = weighted_moments(data[0], weights)
        unit = positive_scale(variance)
        return Record(mu=NormalState(mean, 1 / unit), tau=GammaState(jnp.ones_like(unit), unit))

    def log_prior(self, s: Record) -> Array:
        return terms.normal(s.mu, self.location, self.location_precision) + terms.gamma(
            s.tau, self.concentration, self.rate
        )

    def log_likelihood(self, s: Record, rows: Data) -> Array:
        y, sigma = rows
        own = sigma > 0  # a row of weight 0 holds zeros
        precision = jnp.where(own, 1 / jnp.where(own, sigma, 1) ** 2, 1)
        return terms.normal(y, s.theta, precision) + terms.normal(s.theta, s.mu, s.tau)

    def effects(self, params: Record, data: Data) -> NormalState:
        """Return q(theta_j) of every group, pooled: its `mean`, `sd`, `quantile(p)`, `sample`."""
        return _effects(self, params, self.read(data))


@jit
def _effects(model: HierarchicalNormal, params: Record, data: Data) -> NormalState:
    return model.posterior(params, data).theta
