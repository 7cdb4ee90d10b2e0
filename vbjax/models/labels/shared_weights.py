"""Weights of a Dirichlet process that many distributions share: the hierarchical Dirichlet process.

Each of n distributions is drawn from Dirichlet(alpha weights + own), `own` being kappa at one place or 0. The
weights, pieces of a stick with q(v) Beta, are not conjugate to them. In place of the expected log density
stands a lower bound, in which log Gamma, which is convex, is replaced by its chords:

    E[log Gamma(1 + alpha w_k)] <= E[w_k] log Gamma(1 + alpha),
    E[log Gamma(kappa + alpha w_k)] <= (1 - E[w_k]) log Gamma(kappa) + E[w_k] log Gamma(kappa + alpha).

Without kappa it is that of Hughes, Kim & Sudderth (2015), Reliable and scalable variational inference for the
hierarchical Dirichlet process, eq. 9: (K - 1) log alpha + sum_k E[log w_k] for the normaliser. Imported by
models with such weights.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln
from jaxtyping import Float

from vbjax.families.newton import ascend, trigamma
from vbjax.families.stick_breaking import StickBreakingState
from vbjax.numerics.special import digamma_remainder

_TURNS, _STRIDE = 10, 0.5  # of a climb; of a turn, in logits and logs, at most


def slack(q: StickBreakingState, alpha: Array, kappa: Array) -> Float[Array, " k"]:
    """The bound less the log density of Dirichlet(alpha E[w] + kappa at k), for kappa at each k.

    At kappa = 0 it is the same for all of them.
    """
    mean = q.mean
    each = _log_of_mean_excess(q) + gammaln(1 + alpha * mean) - mean * gammaln(1 + alpha)
    safe = jnp.where(kappa > 0, kappa, 1)
    own = gammaln(safe + alpha * mean) - (1 - mean) * gammaln(safe) - mean * gammaln(safe + alpha)
    return each.sum() + jnp.where(kappa > 0, own - each, 0)


def climbed(
    q: StickBreakingState,
    prior: StickBreakingState,
    alpha: Array,
    log: Float[Array, " k"],
    number: Float[Array, " k"],
    own: Array | float = 0.0,
) -> StickBreakingState:
    """q(v) after some turns uphill, in the logits of its means and the logs of its precisions.

    No turn lowers its part of the bound.

    Args:
        q, prior: of the weights.
        alpha: the distributions' concentration.
        log: the sum of E[log x_k] over the distributions x.
        number: how many of them have no kappa at k.
        own: what E[w_k] is multiplied with beside, by the chords at kappa.
    """

    def value(u: Array) -> Array:
        q = _from_coordinates(u)
        return number @ q.expected().log + q.mean @ (alpha * log + own) - q.kl(prior)

    def turn(_: Any, u: Array) -> Array:
        return ascend(value, u, jax.grad(value)(u) / _information(u), _STRIDE)

    return _from_coordinates(lax.fori_loop(0, _TURNS, turn, _coordinates(q)))


def with_mean(q: StickBreakingState, mean: Float[Array, " k"]) -> StickBreakingState:
    """A stick of pieces with this mean, the shares' precisions kept."""
    left = jnp.cumsum(mean[::-1])[::-1]
    total = q.concentration1 + q.concentration0
    return StickBreakingState(total * mean[:-1] / left[:-1], total * left[1:] / left[:-1])


def _log_of_mean_excess(q: StickBreakingState) -> Float[Array, " k"]:
    """E[log w_k] - log E[w_k], without cancellation."""
    total = digamma_remainder(q.concentration1 + q.concentration0)
    rest = jnp.cumsum(digamma_remainder(q.concentration0) - total)
    return jnp.pad(digamma_remainder(q.concentration1) - total, (0, 1)) + jnp.pad(rest, (1, 0))


def _coordinates(q: StickBreakingState) -> Float[Array, "2 shares"]:
    """The logits of the shares' means, and the logs of their precisions, the sums of the concentrations."""
    a, b = q.concentration1, q.concentration0
    return jnp.log(jnp.stack([a / b, a + b]))


def _from_coordinates(u: Float[Array, "2 shares"]) -> StickBreakingState:
    logit, precision = u[0], jnp.exp(u[1])
    return StickBreakingState(precision * jax.nn.sigmoid(logit), precision * jax.nn.sigmoid(-logit))


def _information(u: Float[Array, "2 shares"]) -> Float[Array, "2 shares"]:
    """Fisher's, of the logit; of the log precision, between 1/2 and 1, its bound."""
    q = _from_coordinates(u)
    a, b = q.concentration1, q.concentration0
    return jnp.stack([(a * b / (a + b)) ** 2 * (trigamma(a) + trigamma(b)), jnp.ones_like(a)])
