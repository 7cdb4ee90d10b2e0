"""A normal whose rows may be outliers: Student's t by a scale for each row."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, hyper
from vbjax.core.model import ConjugateModel
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState
from vbjax.families.normal import Normal, NormalState, NormalStatistics
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_column
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper


@pytree
class RobustNormal(ConjugateModel):
    """Rows x_n ~ Student-t(df) about mu with precision tau, as N(mu, 1 / (tau u_n)), u_n ~ Gamma(df/2, df/2).

        mu ~ N(mu0, 1 / tau0),   tau ~ Gamma(a, b),   q(mu) q(tau) prod_n q(u_n);

    the coordinate updates, with d_n = E[(x_n - mu)^2]:

        u_n ~ Gamma((df + 1) / 2, (df + E[tau] d_n) / 2),
        lambda = tau0 + E[tau] sum_n E[u_n],   m = (tau0 mu0 + E[tau] sum_n E[u_n] x_n) / lambda,
        a_N = a + N / 2,   b_N = b + sum_n E[u_n] d_n / 2.

    A row far away has a small E[u_n], and pulls little. As df grows this is the normal.

    Data: (n,). The factors are `mu` and `tau`.

    Args:
        degrees_of_freedom: df, positive.
        location: mu0, the prior mean; by default the data's mean.
        location_precision: tau0, that of the mean's prior; by default 1e-3 over the data's variance.
        concentration, rate: a and b, of the precision's prior; by default 1e-3 and 1e-3 times the
            data's variance.

    Raises:
        ValueError: degrees of freedom that are not positive.

    References:
        Liu, C. & Rubin, D. (1995), ML estimation of the t distribution using EM, Statistica Sinica 5;
        Bishop (2006), section 2.3.7, eq. 2.158 to 2.160.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 3.0, 4.0, 100.0])
    >>> fit = vb.fit(vb.textbook.RobustNormal(2.0), x, key=jax.random.key(0))
    >>> bool(fit.params.mu.mean < 4), int(fit.model.weights(fit.params, x).argmin())
    (True, 4)
    """

    degrees_of_freedom: Hyper = hyper(4.0, POSITIVE)
    location: Hyper = hyper(None, REAL)
    location_precision: Hyper = hyper(None, POSITIVE)
    concentration: Hyper = hyper(1e-3, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(mu=Normal(), tau=Gamma())

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("mu",), ("tau",))

    def local(self, rows: Array) -> Record:
        return Record(u=Gamma((rows.shape[0],)))

    def read(self, data: Data) -> Array:
        return read_column(data)

    def resolve(self, data: Array, weights: Array | None = None) -> RobustNormal:
        mean, variance = weighted_moments(data, weights)
        unit = positive_scale(variance)
        return fill_defaults(
            self, data.dtype, location=mean, location_precision=1e-3 / unit, rate=1e-3 * unit
        )

    def init(self, key: Array, data: Array, weights: Array | None = None) -> Record:
        """Start at the data's own mean and variance."""
        mean, variance = weighted_moments(data, weights)
        unit = positive_scale(variance)
        return Record(mu=NormalState(mean, 1 / unit), tau=GammaState(jnp.ones_like(unit), unit))

    def log_prior(self, s: Record) -> Array:
        return terms.normal(s.mu, self.location, self.location_precision) + terms.gamma(
            s.tau, self.concentration, self.rate
        )

    def log_likelihood(self, s: Record, rows: Float[Array, " n"] | NormalStatistics) -> Float[Array, " n"]:
        half = 0.5 * self.degrees_of_freedom
        return terms.normal(rows, s.mu, s.tau * s.u) + terms.gamma(s.u, half, half)

    def weights(self, params: Record, x: Data) -> Float[Array, " n"]:
        """Compute E[u_n] of every row, (n,): near 1 or above for ordinary rows, small for outliers."""
        return _weights(self, params, self.read(x))


@jit
def _weights(model: RobustNormal, params: Record, x: Array) -> Array:
    return model.posterior(params, x).u.mean
