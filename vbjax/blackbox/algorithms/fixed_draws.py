"""Quasi-Newton ascent of the bound on fixed draws, for families that have no natural gradient here.

A deterministic objective, so that L-BFGS with its line search applies and stopping is plain (Giordano,
Ingram & Broderick 2024). For `BlackBox`; imports core and the rest of this room.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from vbjax.blackbox.algorithms.ascent import Ascent, Target, judge_run
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.contracts import Free, WithDiscrete
from vbjax.blackbox.families import to_free
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import rounding_error
from vbjax.families.base import pytree
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data


class FixedDrawsState(NamedTuple):
    """State of `FixedDraws`.

    Attributes:
        params: the parameters to score next.
        memory: state of the optimiser.
        quiet: number of successive steps, up to the last, that promised next to nothing.
    """

    params: Approximation
    memory: optax.OptState
    quiet: Int[Array, ""]


@pytree
class FixedDraws(Ascent):
    """L-BFGS ascent of the bound over the `to_free` arrays of any family.

    Attributes:
        model: a `BlackBox`.
        tol: converged when a step promised less than so many nats (half its product with the gradient),
            or no more than the rounding error of the bound, and so did one without memory after it.

    >>> import vbjax as vb
    >>> model = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real(), family=vb.blackbox.low_rank(1))
    >>> type(model.algorithm(None, vb.core.Options(1e-3))).__name__
    'FixedDraws'
    """

    model: Target
    tol: float | Array = 1e-6

    def inspect(self, data: Data) -> None:
        """Refuse discrete latents."""
        if isinstance(self.inspect_common(data), WithDiscrete):
            raise ValueError("FixedDraws is not for discrete latents, which StochasticAscent fits")

    def start(self, params: Approximation, data: Data) -> FixedDrawsState:
        """Return the state at given parameters, which are not scored yet."""
        free = to_free(params.q)
        return FixedDrawsState(params, optax.lbfgs().init(free), jnp.asarray(0, jnp.int32))

    def step(self, state: FixedDrawsState, data: Data, weights: Array | None) -> tuple[FixedDrawsState, Info]:
        """Score the parameters, then take a quasi-Newton step."""
        params, free = state.params, to_free(state.params.q)

        def loss(free: Free) -> Float[Array, ""]:
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
        memory = choose(quiet, optax.lbfgs().init(free), memory)
        stop = jnp.where(state.quiet >= 2, Status.CONVERGED, Status.UNFINISHED)
        stop = judge_run(stop, -value, params.points()[0])
        moved = params.at(optax.apply_updates(free, move))
        return FixedDrawsState(moved, memory, n_quiet), Info(params, -value, error, stop, promise)
