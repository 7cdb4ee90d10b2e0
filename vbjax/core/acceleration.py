"""Accelerated coordinate ascent: Anderson mixing of sweeps, guarded by the objective.

A sweep is a fixed-point map F of the parameters. From the last few displacements F(x) - x the mixing
solves a small least-squares problem for the point where they would vanish, were F linear, and goes there.
A point whose objective is lower is refused and the plain sweep taken instead, so that the objective never
falls. Every step is one pass over the data, as without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from vbjax.core.contracts import Info, Status, judge
from vbjax.core.coordinate_ascent import explain, sweep
from vbjax.core.rows import expectation, rounding_error
from vbjax.families.base import pytree, static
from vbjax.families.coordinates import at_coordinates, coordinates
from vbjax.numerics.inputs import all_finite, read_flag, read_number
from vbjax.numerics.linalg import solve_pull
from vbjax.numerics.record import Record

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel

_MEMORY = 5  # displacements that are mixed


class Accepted(NamedTuple):
    """The last parameters that did not lower the objective, theirs, and where a plain sweep takes them."""

    params: Any
    objective: Array
    local: Any
    moved: Any


class AcceleratedState(NamedTuple):
    """What is to be scored, and the history that it came from.

    Attributes:
        params, local: as in `AscentState`.
        mixed: whether the parameters are an extrapolation, and so may be refused.
        accepted: the last ones that were not.
        displacement: F(x) - x of the accepted parameters, (p,), in their coordinates.
        steps, changes: (memory, p), differences of successive x and of successive displacements.
        number: of differences in the history since it was last emptied.
    """

    params: Any
    local: Any
    mixed: Array
    accepted: Accepted
    displacement: Array
    steps: Array
    changes: Array
    number: Array


@pytree
class AcceleratedAscent:
    """Coordinate ascent by Anderson mixing, for fits that converge slowly.

    With x the parameters in real coordinates, f = F(x) - x, and dX, dF the last differences of both:

        gamma = argmin |f - dF gamma|,   x' = x + f - (dX + dF) gamma.

    It has converged when a plain sweep has: an extrapolation that gains little is followed by one.

    References:
        Anderson (1965), J. ACM 12, 547; Walker & Ni (2011), SIAM J. Numer. Anal. 49, eq. 2.2; Henderson &
        Varadhan (2019), J. Comput. Graph. Stat. 28, on restarts and monotonicity for EM.

    Attributes:
        model, tol, check: as in `CoordinateAscent`.
    """

    model: ConjugateModel
    tol: Array
    check: bool = static(default=False)

    def inspect(self, data: Any) -> None:
        """Refuse a tolerance or a check that is none."""
        read_number(self.tol, "tol")
        read_flag(self.check, "check")

    def init(self, key: Array, data: Any, weights: Array | None) -> Any:
        """The model's own random start."""
        return self.model.init(key, data, weights)

    def explain(self, params: Any, data: Any, weights: Array | None) -> None:
        """Raise where data overflow, or a factor is improper."""
        explain(self.model, params, data, weights)

    def start(self, params: Any, data: Any) -> AcceleratedState:
        """At given parameters, with no history."""
        objective = jnp.asarray(-jnp.inf, jnp.asarray(self.tol).dtype)
        local = self.model.start_locals(params, data)
        flat = ravel_pytree(_coordinates(params, params))[0]
        history = jnp.zeros((_MEMORY, flat.size), flat.dtype)
        return AcceleratedState(
            params=params,
            local=local,
            mixed=jnp.asarray(False),
            accepted=Accepted(params, objective, local, params),
            displacement=jnp.zeros_like(flat),
            steps=history,
            changes=history,
            number=jnp.asarray(-1, jnp.int32),
        )

    def step(
        self, state: AcceleratedState, data: Any, weights: Array | None
    ) -> tuple[AcceleratedState, Info]:
        """One sweep and the mixing of its displacement with those before; or back to a plain sweep."""
        model, accepted = self.model, state.accepted
        total = expectation(model, state.params, data, weights, state.local)
        objective, magnitude = model.scored(state.params, total)
        error = rounding_error(magnitude)
        status = judge(objective, accepted.objective, error, self.tol * model.unit(total))
        refused = state.mixed & ((status == Status.DECREASED) | (status == Status.NON_FINITE))
        swept = sweep(model, state.params, data, weights, total, check=self.check)
        status = jnp.where(swept.fell, jnp.int32(Status.DECREASED), status)

        here = Accepted(Record(state.params), objective, swept.local, swept.params)
        mixed, went_on = _mix(state, swept.params)
        # where an extrapolation gains little, or its history says nothing, a plain sweep must confirm it
        plain = ~all_finite(mixed) | (went_on.number < 1) | (state.mixed & (status == Status.CONVERGED))
        onward = went_on._replace(
            params=_where(plain, swept.params, mixed), local=swept.local, mixed=~plain, accepted=here
        )
        back = state._replace(
            params=accepted.moved,
            local=accepted.local,
            mixed=jnp.asarray(False),
            number=jnp.asarray(-1, jnp.int32),
        )
        scored = _where(refused, accepted, here)
        status = jnp.where(state.mixed & (refused | (status == Status.CONVERGED)), Status.UNFINISHED, status)
        info = Info(scored.params, scored.objective, error, status.astype(jnp.int32))
        return _where(refused, back, onward), info


def _coordinates(params: Any, origin: Any) -> Record:
    return Record({name: coordinates(state, origin[name]) for name, state in params.items()})


def _mix(state: AcceleratedState, moved: Any) -> tuple[Record, AcceleratedState]:
    """The extrapolated parameters, and the state with a longer history, given where a sweep has come to."""
    x = Record(state.params)
    displacement, unravel = ravel_pytree(_coordinates(moved, x))
    step = -ravel_pytree(_coordinates(Record(state.accepted.params), x))[0]
    slot = jnp.maximum(state.number, 0) % _MEMORY
    first = state.number < 0
    empty = jnp.zeros_like(state.steps)
    steps = jnp.where(first, empty, state.steps.at[slot].set(step))
    changes = jnp.where(first, empty, state.changes.at[slot].set(displacement - state.displacement))

    size = jnp.sqrt((changes**2).sum(1))
    unit = changes / jnp.where(size == 0, 1, size)[:, None]
    ridge = _MEMORY * jnp.finfo(unit.dtype).eps
    gram = unit @ unit.T + ridge * jnp.eye(_MEMORY, dtype=unit.dtype)
    gamma = solve_pull(gram, (unit @ displacement)[:, None])[1][:, 0] / jnp.where(size == 0, 1, size)
    flat = displacement - gamma @ (steps + changes)
    mixed = Record({name: at_coordinates(values, x[name]) for name, values in unravel(flat).items()})
    number = state.number + 1
    return mixed, state._replace(displacement=displacement, steps=steps, changes=changes, number=number)


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
