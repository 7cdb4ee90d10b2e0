"""Point estimates of Dirichlet concentrations, which have no conjugate prior: a Newton step in each sweep.

Imported by models that learn them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.families.delta import DeltaState
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import GammaState

_STRIDE = 0.05  # in log alpha, at most: what alpha describes must come apart before alpha follows it


def point(value: Array) -> DeltaState:
    """The point estimate `value` of positive numbers, as a state of `Delta(Gamma(...))`."""
    return DeltaState(GammaState(jnp.full_like(value, 2), 1 / value))


def step_concentration(log: Float[Array, " k"], alpha: Float[Array, " k"]) -> Float[Array, " k"]:
    """From alpha towards the maximum of E[log Dirichlet(x | alpha)]; `log` is E[log x], a mean over many x.

    A Newton step in log alpha, in O(k) by the structure of the Hessian; see `_step`.

    References:
        Minka (2000), Estimating a Dirichlet distribution, section 1, eq. 5 to 18.
    """
    statistics = DirichletStatistics(log, jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.exp(u))
    slope, total = jax.grad(value)(jnp.log(alpha)), alpha.sum()
    # the Hessian is diag(d) + c alpha alpha'; concave in alpha, it may not be so in log alpha
    d, c = -jnp.abs(slope - alpha**2 * _trigamma(alpha)), _trigamma(total)
    lift = c * (alpha * slope / d).sum() / (1 + c * (alpha**2 / d).sum())
    newton = (alpha * lift - slope) / d
    return jnp.exp(_step(value, jnp.log(alpha), jnp.where(newton @ slope > 0, newton, slope / jnp.abs(d))))


def step_symmetric_concentration(log: Float[Array, "n k"], alpha: Float[Array, ""]) -> Float[Array, ""]:
    """The same for a Dirichlet whose k concentrations are one number, given E[log x] of n draws."""
    statistics = DirichletStatistics(log.mean(0), jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.full(log.shape[-1], jnp.exp(u)))
    u, slope = jnp.log(alpha), jax.grad(value)
    return jnp.exp(_step(value, u, slope(u) / jnp.abs(jax.grad(slope)(u))))


def _trigamma(a: Array) -> Array:
    return jax.scipy.special.polygamma(1, a)


def _step(value: Callable[[Array], Array], u: Array, way: Array) -> Array:
    """Along `way`, at most `_STRIDE` far: the best of 1, 1/2, 1/4, ... of it and nothing."""
    way = jnp.where(jnp.isfinite(way), way, 0)
    way = way * jnp.minimum(1, _STRIDE / jnp.maximum(jnp.abs(way).max(), _STRIDE))
    lengths = jnp.append(0.5 ** jnp.arange(8, dtype=u.dtype), 0)
    tries = u + lengths.reshape(-1, *[1] * u.ndim) * way
    return tries[jnp.nanargmax(jax.vmap(value)(tries))]
