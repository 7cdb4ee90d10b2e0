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

from vbjax.blackbox.algorithms.ascent import Ascent, judged
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import to_free
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import rounding_error
from vbjax.families.base import pytree


class FixedDrawsState(NamedTuple):
    """Parameters, what the optimiser remembers, and how many of the last steps promised next to nothing."""

    params: Approximation
    memory: Any
    quiet: Array


@pytree
class FixedDraws(Ascent):
    """L-BFGS on the arrays of any family.

    Attributes:
        model: a `BlackBox`.
        tol: converged when a step promised less than so many nats (half its product with the gradient),
            or no more than the rounding error of the bound, and so did one without memory after it.
    """

    model: Any
    tol: Any = 1e-6

    def inspect(self, data: Any) -> None:
        """Refuse discrete latents."""
        if hasattr(super().inspect(data), "discrete_log_prob"):
            raise ValueError("FixedDraws is not for discrete latents, which StochasticAscent fits")

    def start(self, params: Approximation, data: Any) -> FixedDrawsState:
        """At given parameters, not scored yet."""
        free = to_free(params.q)
        return FixedDrawsState(params, optax.lbfgs().init(free), jnp.asarray(0, jnp.int32))

    def step(self, state: FixedDrawsState, data: Any, weights: Array | None) -> tuple[FixedDrawsState, Info]:
        """Score the parameters, take a step."""
        params, free = state.params, to_free(state.params.q)

        def loss(free: Any) -> Array:
            return -self.model.bound(params.at(free), data)

        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            value, gradient = optax.value_and_grad_from_state(loss)(free, state=state.memory)
            move, memory = optax.lbfgs().update(
                gradient, state.memory, free, value=value, grad=gradient, value_fn=loss
            )
            promise = -0.5 * optax.tree.vdot(gradient, move)
        error = rounding_error(jnp.abs(value))
        quiet = promise <= jnp.maximum(jnp.asarray(self.tol, value.dtype), error)
        n_quiet = jnp.where(quiet, state.quiet + 1, 0).astype(jnp.int32)
        memory = jax.tree.map(lambda new, old: jnp.where(quiet, new, old), optax.lbfgs().init(free), memory)
        stop = jnp.where(state.quiet >= 2, Status.CONVERGED, Status.UNFINISHED)
        stop = judged(stop, -value, params.points()[0])
        moved = params.at(optax.apply_updates(free, move))
        return FixedDrawsState(moved, memory, n_quiet), Info(params, -value, error, stop)
