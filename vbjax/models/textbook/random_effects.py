"""Rows in groups: one-way random effects, the groups of any size."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, REAL, count, hyper
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import float_dtype
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.gamma import Gamma, GammaState
from vbjax.families.normal import Normal, NormalState
from vbjax.numerics.inputs import as_array, is_concrete, read_column, read_pair, values_here
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper, Params


@pytree
class RandomEffects(ConjugateModel):
    """Rows y_i ~ N(theta_{g_i}, 1 / noise), theta_g ~ N(mu, 1 / between): mu plus an effect of each group.

        mu ~ N(mu0, 1 / tau0),   between ~ Gamma(a, b),   noise ~ Gamma(c, d),

    and q(mu) prod_g q(theta_g) q(between) q(noise). The coordinate updates, for G groups of n_g rows:

        theta_g: precision E[between] + n_g E[noise],
                 mean (E[between] E[mu] + E[noise] sum_{i in g} y_i) / precision,
        mu: precision tau0 + G E[between], mean (tau0 mu0 + E[between] sum_g E[theta_g]) / precision,
        between ~ Gamma(a + G / 2, b + sum_g E[(theta_g - mu)^2] / 2),
        noise ~ Gamma(c + n / 2, d + sum_i E[(y_i - theta_{g_i})^2] / 2).

    A small group is drawn to mu, and one without rows has the prior's theta. The effects are centred at mu
    and not at 0: the updates then mix fast where groups say much of their own theta.

    Data: (y, group): (n,) numbers, and (n,) whole numbers from 0 to G - 1. The factors are `mu`, `theta`
    (G,), `between` and `noise`.

    Args:
        n_groups: G.
        location: mu0, the prior mean; by default the mean of y.
        location_precision: tau0, that of mu's prior; by default 1e-3 over the variance of y.
        between_concentration, between_rate: a and b, of the prior of `between`; by default 1/2 and half the
            variance of y.
        concentration, rate: c and d, of the prior of `noise`; by default 1e-3 and 1e-3 times the variance
            of y.

    Raises:
        ValueError: data that are no such pair; a group out of range.

    References:
        Gelman & Hill (2007), chapter 12; Wand, M. et al. (2011), Mean field variational Bayes for
        elaborate distributions, Bayesian Analysis 6, for Gamma priors of variance components.

    >>> import jax, vbjax as vb
    >>> y, group = jax.numpy.array([1.0, 1.2, 0.9, 3.1, 2.9, 5.0]), jax.numpy.array([0, 0, 0, 1, 1, 2])
    >>> fit = vb.fit(vb.textbook.RandomEffects(3), (y, group), key=jax.random.key(0))
    >>> [round(float(m)) for m in fit.params.theta.mean]
    [1, 3, 5]
    """

    n_groups: int = count()
    location: Hyper = hyper(None, REAL)
    location_precision: Hyper = hyper(None, POSITIVE)
    between_concentration: Hyper = hyper(0.5, POSITIVE)
    between_rate: Hyper = hyper(None, POSITIVE)
    concentration: Hyper = hyper(1e-3, POSITIVE)
    rate: Hyper = hyper(None, POSITIVE)

    @property
    def factors(self) -> Record:
        return Record(mu=Normal(), theta=Normal((self.n_groups,)), between=Gamma(), noise=Gamma())

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return (("theta",), ("mu", "noise"), ("between",))

    def read(self, data: Data) -> tuple[Array, Array]:
        n_groups = self.n_groups
        y, group = read_pair(data, "(y, group), numbers and the numbers of their groups")
        y, group = read_column(y, "y"), as_array(group, "group")
        if group.shape != y.shape or not jnp.issubdtype(group.dtype, jnp.integer):
            raise ValueError(
                f"group must be whole numbers of the shape of y, {y.shape}; got {group.dtype}, {group.shape}"
            )
        if is_concrete(group) and (bad := (values_here(group) < 0) | (values_here(group) >= n_groups)).any():
            row = int(bad.argmax())
            hint = "np.unique(group, return_inverse=True)[1] numbers them from 0"
            what = f"group must be between 0 and n_groups - 1 = {n_groups - 1}"
            raise ValueError(f"{what}; got {group[row]} in row {row}; {hint}")
        return y, group

    def resolve(self, data: Data, weights: Array | None = None) -> RandomEffects:
        mean, variance = weighted_moments(data[0], weights)
        unit = positive_scale(variance)
        return fill_defaults(
            self,
            float_dtype(data),
            location=mean,
            location_precision=1e-3 / unit,
            between_rate=0.5 * unit,
            rate=1e-3 * unit,
        )

    def init(self, key: Array, data: Data, weights: Array | None = None) -> Record:
        """Start every group at the mean of y, half of the variance between them."""
        mean, variance = weighted_moments(data[0], weights)
        unit = positive_scale(variance)
        half = GammaState(jnp.ones_like(unit), 0.5 * unit)
        theta = NormalState(jnp.full(self.n_groups, mean), jnp.full(self.n_groups, 1 / unit))
        return Record(mu=NormalState(mean, 1 / unit), theta=theta, between=half, noise=half)

    def log_prior(self, s: Record) -> Array:
        scales = terms.gamma(s.between, self.between_concentration, self.between_rate) + terms.gamma(
            s.noise, self.concentration, self.rate
        )
        groups = terms.normal(s.theta, s.mu, s.between).sum()
        return terms.normal(s.mu, self.location, self.location_precision) + groups + scales

    def log_likelihood(self, s: Record, rows: Data) -> Array:
        y, group = rows
        return terms.normal(y, s.theta[group], s.noise)

    def effects(self, params: Params) -> NormalState:
        """Return theta_g - mu of every group, (G,), which are independent under q."""
        if not isinstance(params, Mapping) or not {"theta", "mu"} <= set(params):
            raise ValueError(f"params must be those of a fit of RandomEffects; got {type(params).__name__}")
        theta, mu = params["theta"], params["mu"]
        return NormalState(theta.mean - mu.mean, 1 / (theta.variance + mu.variance))
