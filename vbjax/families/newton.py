"""Newton steps for parameters without a conjugate prior: concentrations of a Dirichlet, shapes of a Gamma.

Models that learn these import this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.families.delta import Delta, DeltaState
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import Gamma, GammaStatistics
from vbjax.numerics.special import gammaln_remainder

_STRIDE = 0.05  # the longest step in log alpha: alpha must not move faster than the factors that it describes
_SHAPE_STRIDE = 1.0  # the longest step in the log of a Gamma's shape


def point(value: Array) -> DeltaState:
    """Return the point estimate `value` of positive numbers, of `Delta(Gamma(...))`; it weighs one."""
    gradient = GammaStatistics(-1 / value, jnp.ones_like(value), jnp.zeros_like(value))
    return Delta(Gamma(value.shape)).from_gradient(gradient, gradient)


def step_concentration(log: Float[Array, " k"], alpha: Float[Array, " k"]) -> Float[Array, " k"]:
    """Move alpha towards the maximum of E[log Dirichlet(x | alpha)] by one Newton step in log alpha.

    `log` is E[log x], a mean over many x. The step is O(k) by the structure of the Hessian; `ascend` says how
    far it goes.

    References:
        Minka (2000), Estimating a Dirichlet distribution, section 1, eq. 5 to 18.
    """
    statistics = DirichletStatistics(log, jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.exp(u))
    slope, total = jax.grad(value)(jnp.log(alpha)), alpha.sum()
    # the Hessian is diag(d) + c alpha alpha'; the function is concave in alpha, but perhaps not in log alpha
    d, c = -jnp.abs(slope - alpha**2 * trigamma(alpha)), trigamma(total)
    lift = c * (alpha * slope / d).sum() / (1 + c * (alpha**2 / d).sum())
    newton = (alpha * lift - slope) / d
    way = jnp.where(newton @ slope > 0, newton, slope / jnp.abs(d))
    return jnp.exp(ascend(value, jnp.log(alpha), way, _STRIDE))


def step_symmetric_concentration(log: Float[Array, "n k"], alpha: Float[Array, ""]) -> Float[Array, ""]:
    """Move one number alpha, the k concentrations of a Dirichlet, by one Newton step in log alpha.

    `log` is E[log x] of each of n draws; `step_concentration` moves k separate concentrations.
    """
    statistics = DirichletStatistics(log.mean(0), jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.full(log.shape[-1], jnp.exp(u)))
    u, slope = jnp.log(alpha), jax.grad(value)
    return jnp.exp(ascend(value, u, slope(u) / jnp.abs(jax.grad(slope)(u)), _STRIDE))


def step_gamma_shape(
    shape: Float[Array, "*cells"],
    a: Float[Array, "*cells"],
    b: Float[Array, "*cells"],
    number: Float[Array, "*cells"],
    total: Float[Array, "*cells"],
    log: Float[Array, "*cells"],
    *,
    point: bool,
    most: float,
) -> Float[Array, "*cells"]:
    """Move the shape s of rows x ~ Gamma(s, s nu), nu ~ Gamma(a, b), by one Newton step in log s.

    nu is optimised away. With n rows of sum T and sum of logarithms L, alpha = a + n s and beta = b + s T,
    the step raises

        log Gamma(alpha) - alpha log beta + n (s log s - log Gamma(s)) + s L,

    or, with nu at its mode, a = 1 and b = 0, n [s log (n / T) - s + s log s - log Gamma(s)] + s L. Every cell
    makes its own step.

    Args:
        shape: s.
        a, b: the prior's concentration and rate.
        number, total, log: n, T and L, of rows whose mean is about 1.
        point: whether nu is at its mode.
        most: the largest shape that a step may reach.

    References:
        Choi & Wette (1969), Maximum likelihood estimation of the parameters of the gamma distribution.
    """

    def step(shape: Array, a: Array, b: Array, number: Array, total: Array, log: Array) -> Array:
        def value(u: Array) -> Array:
            s = jnp.exp(u)
            count = (a - 1 if point else a) + number * s
            spread = 0 if point else gammaln_remainder(count) - 0.5 * jnp.log(count)
            of_rows = number * (0.5 * u - gammaln_remainder(s)) + s * log
            return count * jnp.log(count / (b + s * total)) + spread + of_rows

        u, slope = jnp.log(shape), jax.grad(value)
        way = slope(u) / jnp.abs(jax.grad(slope)(u))
        return jnp.exp(ascend(value, u, jnp.minimum(way, math.log(most) - u), _SHAPE_STRIDE))

    cells = jnp.broadcast_arrays(shape, a, b, number, total, log)
    return jax.vmap(step)(*(x.reshape(-1) for x in cells)).reshape(cells[0].shape)


def trigamma(a: Array) -> Array:
    """Return the derivative of the digamma function."""
    return jax.scipy.special.polygamma(1, a)


def ascend(value: Callable[[Array], Array], u: Array, way: Array, stride: float) -> Array:
    """Move u along `way` by the best of 1, 1/2, 1/4, ... of it and nothing, at most `stride` in any entry."""
    way = jnp.where(jnp.isfinite(way), way, 0)
    way = way * jnp.minimum(1, stride / jnp.maximum(jnp.abs(way).max(), stride))
    lengths = jnp.append(0.5 ** jnp.arange(8, dtype=u.dtype), 0)
    tries = u + lengths.reshape(-1, *[1] * u.ndim) * way
    return tries[jnp.nanargmax(jax.vmap(value)(tries))]
