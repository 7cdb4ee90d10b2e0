"""Point estimates of Dirichlet concentrations, which have no conjugate prior: Newton steps on the bound.

Imported by models that learn them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from vbjax.families.delta import DeltaState
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import GammaState

_STEPS = 50


def point(value: Array) -> DeltaState:
    """The point estimate `value` of positive numbers, as a state of `Delta(Gamma(...))`."""
    return DeltaState(GammaState(jnp.full_like(value, 2), 1 / value))


def best_concentration(log: Float[Array, " k"], start: Float[Array, " k"]) -> Float[Array, " k"]:
    """argmax over alpha of E[log Dirichlet(x | alpha)], where E[log x] is `log` (an average over many x).

    Newton steps in log alpha, in O(k) by the structure of the Hessian, each as long as is best of 1, 1/2,
    1/4, ...: the value never falls below that of `start`.

    References:
        Minka (2000), Estimating a Dirichlet distribution, section 1, eq. 5 to 18.
    """
    statistics = DirichletStatistics(log, jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.exp(u))

    def direction(u: Array) -> Array:
        """Newton's where it ascends, a scaled gradient elsewhere (the function is concave in alpha alone)."""
        alpha = jnp.exp(u)
        total, trigamma = alpha.sum(), lambda a: jax.scipy.special.polygamma(1, a)
        slope = jax.grad(value)(u)
        # the Hessian is diag(d) + c alpha alpha'
        d, c = -jnp.abs(slope - alpha**2 * trigamma(alpha)), trigamma(total)
        lift = c * (alpha * slope / d).sum() / (1 + c * (alpha**2 / d).sum())
        newton = (alpha * lift - slope) / d
        return jnp.where(newton @ slope > 0, newton, slope / jnp.abs(d))

    return jnp.exp(_climb(value, direction, jnp.log(start)))


def best_symmetric_concentration(log: Float[Array, "n k"], start: Float[Array, ""]) -> Float[Array, ""]:
    """The same for a Dirichlet whose k concentrations are one number, given E[log x] of n draws."""
    size, mean = log.shape[-1], log.mean(0)
    statistics = DirichletStatistics(mean, jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.full(size, jnp.exp(u)))
    slope = jax.grad(value)

    def direction(u: Array) -> Array:
        return slope(u) / jnp.maximum(jnp.abs(jax.grad(slope)(u)), jnp.finfo(u.dtype).tiny)

    return jnp.exp(_climb(value, direction, jnp.log(start)))


def _climb(value: Any, direction: Any, u: Array) -> Array:
    """Steps along `direction` of the best of a few lengths, until none is better."""
    lengths = 0.5 ** jnp.arange(12, dtype=u.dtype)

    def step(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        u, best, _, number = carry
        way = direction(u)
        way = jnp.clip(jnp.where(jnp.isfinite(way), way, 0), -2, 2)
        tries = u + lengths.reshape(-1, *[1] * u.ndim) * way
        values = jax.vmap(value)(tries)
        values = jnp.where(jnp.isnan(values), -jnp.inf, values)
        winner = values.argmax()
        better = values[winner] > best
        return jnp.where(better, tries[winner], u), jnp.maximum(values[winner], best), better, number + 1

    going = lambda carry: carry[2] & (carry[3] < _STEPS)
    return lax.while_loop(going, step, (u, value(u), jnp.asarray(True), jnp.asarray(0)))[0]
