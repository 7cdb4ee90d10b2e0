"""SharedSticks: weights that many Dirichlet distributions share, the hierarchical Dirichlet process.

The weights w are the pieces of a stick, as in `stick_breaking.py`, and each of many distributions is drawn
from Dirichlet(alpha w + own), `own` being kappa at one place or 0. The log density of such a distribution is
not linear in statistics of w. In its place stands a lower bound that is, in E[w_k] and E[log w_k]: log Gamma
is convex, and is replaced by its chords,

    E[log Gamma(1 + alpha w_k)] <= E[w_k] log Gamma(1 + alpha),
    E[log Gamma(kappa + alpha w_k)] <= (1 - E[w_k]) log Gamma(kappa) + E[w_k] log Gamma(kappa + alpha).

Without kappa it is that of Hughes, Kim & Sudderth (2015), Reliable and scalable variational inference for the
hierarchical Dirichlet process, eq. 9. E[w_k] is no statistic of the stick's shares, so its optimum has no
closed form: `from_gradient` climbs from where the statistics were taken.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.base import pytree
from vbjax.families.dirichlet import DirichletStatistics
from vbjax.families.newton import ascend, trigamma
from vbjax.families.stick_breaking import StickBreaking, StickBreakingState, StickBreakingStatistics
from vbjax.numerics.special import log_rising
from vbjax.numerics.types import Tree

_TURNS, _STRIDE = 10, 0.5  # of a climb; of a turn, in logits and logs, at most


@pytree
class SharedSticksStatistics(StickBreakingStatistics):
    """Statistics of a stick, and E[w_k]; `near` (2, K - 1) are the shares' concentrations behind them."""

    value: Float[Array, "*plate k"]
    near: Float[Array, "two *plate rest"]
    events = {"log_share": 1, "log_rest": 1, "value": 1}


@dataclasses.dataclass(frozen=True)
class SharedSticks(StickBreaking):
    """Stick whose pieces are the weights that other factors share; the state is that of `StickBreaking`."""

    def expected(self, state: StickBreakingState) -> SharedSticksStatistics:
        t, near = state.expected(), jnp.stack([state.concentration1, state.concentration0])
        return SharedSticksStatistics(t.log_share, t.log_rest, t.base, state.mean, near)

    def from_gradient(
        self,
        statistics: Tree,
        gradient: StickBreakingStatistics,
        weight: ArrayLike = 1.0,
    ) -> StickBreakingState:
        """Return the state after some turns uphill, in the logits of the shares' means and the logs of their
        precisions. No turn lowers the bound.
        """

        def value(u: Array) -> Array:
            state = _from_coordinates(u)
            t = self.expected(state)
            return t.inner(gradient) / weight + state.base_entropy() + (gradient.base / weight - 1) * t.base

        def turn(_: Array, u: Array) -> Array:
            return ascend(value, u, jax.grad(value)(u) / _information(u), _STRIDE)

        return _from_coordinates(lax.fori_loop(0, _TURNS, turn, _coordinates(statistics.near)))

    def mix(self, state: StickBreakingState, other: StickBreakingState, rho: ArrayLike) -> StickBreakingState:
        return jax.tree.map(lambda x, y: (1 - rho) * x + rho * y, state, other)


def log_shared_dirichlet(
    x: DirichletStatistics, weights: SharedSticksStatistics, alpha: Array, kappa: Array | float = 0.0
) -> Float[Array, "*plate"]:
    """Compute a lower bound of E[log Dirichlet(x | alpha w)], or of E[log Dirichlet(x_k | alpha w + kappa at
    k)] where kappa is not 0: then x has a plate of K.

    With log Gamma at its chords it is

        (K - 1) log alpha + sum_j E[log w_j] + sum_j (alpha E[w_j] + kappa at k) E[log x_j],

    and with kappa E[log w_k] gives way to (1 - E[w_k]) log [Gamma(kappa + alpha) / (Gamma(kappa) Gamma(1 +
    alpha))].
    """
    log, mean = weights.log, weights.value
    total = (log.shape[-1] - 1) * jnp.log(alpha) + log.sum() + alpha * (x.log @ mean) + x.base
    if x.log.ndim == 1:
        return total
    some = kappa > 0
    safe = jnp.where(some, kappa, 1)
    rise = log_rising(safe, alpha) + alpha * jnp.log(safe) - gammaln(1 + alpha)
    own = (1 - mean) * rise - log + kappa * jnp.diagonal(x.log)
    return total + jnp.where(some, own, 0)


def _coordinates(concentrations: Float[Array, "2 shares"]) -> Float[Array, "2 shares"]:
    """Return the logits of the shares' means, and the logs of their precisions, sums of concentrations."""
    a, b = concentrations
    return jnp.log(jnp.stack([a / b, a + b]))


def _from_coordinates(u: Float[Array, "2 shares"]) -> StickBreakingState:
    logit, precision = u[0], jnp.exp(u[1])
    return StickBreakingState(precision * jax.nn.sigmoid(logit), precision * jax.nn.sigmoid(-logit))


def _information(u: Float[Array, "2 shares"]) -> Float[Array, "2 shares"]:
    """Return Fisher's information of the logit; of the log precision its bound, between 1/2 and 1."""
    q = _from_coordinates(u)
    a, b = q.concentration1, q.concentration0
    return jnp.stack([(a * b / (a + b)) ** 2 * (trigamma(a) + trigamma(b)), jnp.ones_like(a)])
