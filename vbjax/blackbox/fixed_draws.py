"""Quasi-Newton ascent of the bound on fixed draws, for families that have no natural gradient here.

A deterministic objective, so that L-BFGS with its line search applies and stopping is plain (Giordano,
Ingram & Broderick 2024). For `BlackBox`; imports core and the rest of this room.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import to_free
from vbjax.core.algorithm import Info, Status
from vbjax.core.expectation import rounding_error
from vbjax.families.base import pytree


class FixedDrawsState(NamedTuple):
    """Parameters, what the optimiser remembers, and the rise of the bound that the last step promised."""

    params: Approximation
    memory: Any
    promise: Array


@pytree
class FixedDraws:
    """L-BFGS on the arrays of any family.

    Attributes:
        model: a `BlackBox`.
        tol: converged when the last step promised less than so many nats (half its product with the
            gradient), or no more than the rounding error of the bound.
    """

    model: Any
    tol: Any = 1e-6

    def init(self, key: Array, data: Any, weights: Array | None) -> Approximation:
        """Where the family starts."""
        return self.model.init(key, data)

    def start(self, params: Approximation, data: Any) -> FixedDrawsState:
        """At given parameters, not scored yet."""
        free = to_free(params.q)
        return FixedDrawsState(params, optax.lbfgs().init(free), jnp.asarray(jnp.inf, _dtype(free)))

    def step(self, state: FixedDrawsState, data: Any, weights: Array | None) -> tuple[FixedDrawsState, Info]:
        """Score the parameters, take a step."""
        params, free = state.params, to_free(state.params.q)

        def loss(free: Any) -> Array:
            return -self.model.bound(params.at(free), data)

        value, gradient = optax.value_and_grad_from_state(loss)(free, state=state.memory)
        move, memory = optax.lbfgs().update(
            gradient, state.memory, free, value=value, grad=gradient, value_fn=loss
        )
        promise = -0.5 * optax.tree.vdot(gradient, move)
        error = rounding_error(jnp.abs(value))
        arrived = state.promise <= jnp.maximum(jnp.asarray(self.tol, value.dtype), error)
        stop = jnp.where(arrived, Status.CONVERGED, Status.UNFINISHED)
        stop = jnp.where(jnp.isfinite(value), stop, Status.NON_FINITE).astype(jnp.int32)
        moved = params.at(optax.apply_updates(free, move))
        return FixedDrawsState(moved, memory, promise), Info(params, -value, error, stop)

    def explain(self, params: Approximation, data: Any, weights: Array | None) -> None:
        """Of a start whose bound is not finite: a ValueError that says at which latents."""
        self.model.refuse_not_finite(params, data)


def _dtype(tree: Any) -> Any:
    return jax.tree.leaves(tree)[0].dtype
