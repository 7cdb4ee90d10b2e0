"""Steps uphill for what has no conjugate prior: Newton's towards the best concentrations and shapes.

Imported by models that learn them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.families.delta import DeltaState
from vbjax.families.dirichlet import DirichletStatistics, dirichlet_log_density
from vbjax.families.gamma import GammaState
from vbjax.numerics.special import gammaln_remainder

_STRIDE = 0.05  # in log alpha, at most: what alpha describes must come apart before alpha follows it
_SHAPE_STRIDE = 1.0  # in the log of a Gamma's shape


def point(value: Array) -> DeltaState:
    """The point estimate `value` of positive numbers, as a state of `Delta(Gamma(...))`."""
    return DeltaState(GammaState(jnp.full_like(value, 2), 1 / value))


def step_concentration(log: Float[Array, " k"], alpha: Float[Array, " k"]) -> Float[Array, " k"]:
    """From alpha towards the maximum of E[log Dirichlet(x | alpha)]; `log` is E[log x], a mean over many x.

    A Newton step in log alpha, in O(k) by the structure of the Hessian; see `ascend`.

    References:
        Minka (2000), Estimating a Dirichlet distribution, section 1, eq. 5 to 18.
    """
    statistics = DirichletStatistics(log, jnp.zeros((), log.dtype))
    value = lambda u: dirichlet_log_density(statistics, jnp.exp(u))
    slope, total = jax.grad(value)(jnp.log(alpha)), alpha.sum()
    # the Hessian is diag(d) + c alpha alpha'; concave in alpha, it may not be so in log alpha
    d, c = -jnp.abs(slope - alpha**2 * trigamma(alpha)), trigamma(total)
    lift = c * (alpha * slope / d).sum() / (1 + c * (alpha**2 / d).sum())
    newton = (alpha * lift - slope) / d
    way = jnp.where(newton @ slope > 0, newton, slope / jnp.abs(d))
    return jnp.exp(ascend(value, jnp.log(alpha), way, _STRIDE))


def step_symmetric_concentration(log: Float[Array, "n k"], alpha: Float[Array, ""]) -> Float[Array, ""]:
    """The same for a Dirichlet whose k concentrations are one number, given E[log x] of n draws."""
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
    """From a shape s towards the best for rows x ~ Gamma(s, s nu), nu ~ Gamma(a, b), by Newton in log s.

    nu is optimised away: with n rows of sum T and sum of logarithms L, alpha = a + n s, beta = b + s T,

        log Gamma(alpha) - alpha log beta + n (s log s - log Gamma(s)) + s L

    climbs, or at the mode of nu, a being 1 and b 0, n [s log (n / T) - s + s log s - log Gamma(s)] + s L. As
    many of either as there are cells.

    Args:
        shape: s. a, b: of the prior. number, total, log: n, T and L, of rows whose mean is about 1.
        point: whether nu is at its mode.
        most: no step goes beyond.

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
    """The derivative of the digamma function."""
    return jax.scipy.special.polygamma(1, a)


def ascend(value: Callable[[Array], Array], u: Array, way: Array, stride: float) -> Array:
    """Along `way`, by at most `stride` in any entry: the best of 1, 1/2, 1/4, ... of it and nothing."""
    way = jnp.where(jnp.isfinite(way), way, 0)
    way = way * jnp.minimum(1, stride / jnp.maximum(jnp.abs(way).max(), stride))
    lengths = jnp.append(0.5 ** jnp.arange(8, dtype=u.dtype), 0)
    tries = u + lengths.reshape(-1, *[1] * u.ndim) * way
    return tries[jnp.nanargmax(jax.vmap(value)(tries))]
