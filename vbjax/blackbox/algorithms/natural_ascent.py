"""Natural-gradient ascent of the bound on fixed draws: a deterministic objective, a step, a stop.

With the draws fixed the bound is an ordinary function (Giordano, Ingram & Broderick 2024). Stein's lemma
gives the natural gradient from gradients of the log density alone (Lin, Khan & Schmidt 2019); a full step
lands on the exact optimum of a normal target, and a step that lowers the bound is taken back and shortened.
For `BlackBox`; imports core and the rest of this room.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.blackbox.algorithms.ascent import Ascent, judged, stuck
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Slope
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import rounding_error
from vbjax.families.base import pytree

_SHORTEST = 2.0**-40  # a step so short that no ascent is left in it


class AscentState(NamedTuple):
    """The best parameters so far with their bound and slope, the next to try, and the step's length."""

    params: Approximation
    objective: Array
    error: Array
    slope: Slope
    trial: Approximation
    rho: Array


@pytree
class NaturalAscent(Ascent):
    """Attributes:
    model: a `BlackBox`.
    tol: converged when the next step promises less than so many nats (half the squared length of the
        natural gradient), or no more than the rounding error of the bound.
    """

    model: Any
    tol: Array

    def inspect(self, data: Any) -> None:
        """Refuse another family than those of normals."""
        if not isinstance(super().inspect(data), LocationScale):
            names = "'full_rank', 'mean_field', 'blocks'"
            raise ValueError(f"NaturalAscent is for the families {names}; got {self.model.family!r}")

    def start(self, params: Approximation, data: Any) -> AscentState:
        """At given parameters, not scored yet."""
        q = params.q
        low = jnp.asarray(-jnp.inf, q.location.dtype)
        slope = jax.tree.map(jnp.zeros_like, q.kind.slope(q.scale, params.base, params.base))
        return AscentState(params, low, jnp.zeros_like(low), slope, params, jnp.ones_like(low))

    def step(self, state: AscentState, data: Any, weights: Array | None) -> tuple[AscentState, Info]:
        """Score the parameters to try; keep them if the bound did not fall; choose the next."""
        trial, q = state.trial, state.trial.q
        u, (value, gradient) = trial.points()[0], self.model.scored(trial, data)
        objective = value.mean() + q.entropy()
        error = rounding_error(jnp.abs(value).mean())
        slope = q.kind.slope(q.scale, trial.base, gradient)
        finite = jnp.isfinite(objective) & jnp.isfinite(q.kind.gain(slope))
        kept = finite & (objective >= state.objective - error)

        tried = trial, objective, error, slope
        params, objective, error, slope = jax.tree.map(
            lambda new, old: jnp.where(kept, new, old), tried, (state.params, *state[1:4])
        )
        rho = jnp.where(kept, jnp.minimum(2 * state.rho, 1), state.rho / 4)
        stop = jnp.where(rho < _SHORTEST, stuck(u, value, q.kind.bend(slope)), Status.UNFINISHED)
        stop = jnp.where(q.kind.gain(slope) <= jnp.maximum(self.tol, error), Status.CONVERGED, stop)
        stop = judged(stop, objective, jnp.where(kept, u, 0))
        location, scale = q.kind.move(params.q.location, params.q.scale, slope, rho)
        trial = dataclasses.replace(params, q=dataclasses.replace(q, location=location, scale=scale))
        return AscentState(params, objective, error, slope, trial, rho), Info(params, objective, error, stop)
