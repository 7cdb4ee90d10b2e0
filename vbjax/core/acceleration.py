"""Accelerated coordinate ascent: Anderson mixing of sweeps, guarded by the objective.

A sweep is a fixed-point map F of the parameters. The mixing finds the point where the displacement F(x) - x
would vanish if F were linear, by a small least-squares problem in the last few displacements, and goes there.
A point of lower objective is refused, and the plain sweep taken instead, so that the objective never falls.
Every step is one pass over the data, as it is without mixing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.core.contracts import Info, Status, judge
from vbjax.core.coordinate_ascent import explain, sweep
from vbjax.core.rows import expectation, float_dtype, rounding_error
from vbjax.families.base import State, pytree, static
from vbjax.families.coordinates import at_coordinates, coordinates
from vbjax.numerics.inputs import all_finite, read_flag, read_number
from vbjax.numerics.linalg import solve_pull
from vbjax.numerics.record import Record
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel

_MEMORY = 5  # displacements that are mixed


class Accepted(NamedTuple):
    """The last parameters that did not lower the objective.

    Attributes:
        params: the parameters.
        objective: their objective.
        local: local factors where they interact.
        moved: the parameters to which a plain sweep takes them.
    """

    params: Record
    objective: Float[Array, ""]
    local: Tree
    moved: Record


class AcceleratedState(NamedTuple):
    """Parameters to be scored, and the history that they came from.

    Attributes:
        params, local: as in `AscentState`.
        mixed: whether the parameters are an extrapolation, and so may be refused.
        accepted: the last parameters that were not refused.
        displacement: F(x) - x of the accepted parameters, (p,), in their coordinates.
        steps, changes: (memory, p), differences of successive x and of successive displacements.
        number: number of differences in the history since it was last emptied.
    """

    params: Record
    local: Tree
    mixed: Bool[Array, ""]
    accepted: Accepted
    displacement: Float[Array, " p"]
    steps: Float[Array, "memory p"]
    changes: Float[Array, "memory p"]
    number: Int[Array, ""]


@pytree
class AcceleratedAscent:
    """Coordinate ascent by Anderson mixing, for fits that converge slowly.

    With x the parameters in real coordinates, f = F(x) - x, and dX, dF the last differences of both:

        gamma = argmin |f - dF gamma|,   x' = x + f - (dX + dF) gamma.

    Convergence is judged at plain sweeps: an extrapolation that gains little is followed by one.

    References:
        Anderson (1965), J. ACM 12, 547; Walker & Ni (2011), SIAM J. Numer. Anal. 49, eq. 2.2; Henderson &
        Varadhan (2019), J. Comput. Graph. Stat. 28, on restarts and monotonicity for EM.

    Attributes:
        model, tol, check: as in `CoordinateAscent`.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x, model = jnp.arange(5.0), vb.textbook.GaussianMeanPrecision().resolve(jnp.arange(5.0))
    >>> type(model.algorithm(x, vb.core.Options(1e-6, accelerate=True))).__name__
    'AcceleratedAscent'
    """

    model: ConjugateModel
    tol: Array
    check: bool = static(default=False)

    def inspect(self, data: Data) -> None:
        """Refuse a tolerance that is no number, and a check that is no flag."""
        read_number(self.tol, "tol")
        read_flag(self.check, "check")

    def init(
        self, key: Array, data: Data, weights: Float[Array, " n"] | None, number: ArrayLike = 0
    ) -> Record:
        """Return the model's own random start."""
        return self.model.init_run(key, data, weights, number)

    def explain(self, params: Record, data: Data, weights: Float[Array, " n"] | None) -> None:
        """Raise where data overflow, or a factor is improper."""
        explain(self.model, params, data, weights)

    def start(self, params: Record, data: Data) -> AcceleratedState:
        """Return the state at given parameters, with no history."""
        objective = jnp.asarray(-jnp.inf, float_dtype(params))
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

    def state_specs(self, whole: Tree, rows: Tree) -> AcceleratedState:
        """Return how a state lies on devices that each have a share of the rows."""
        accepted = Accepted(whole, whole, rows, whole)
        return AcceleratedState(whole, rows, whole, accepted, whole, whole, whole, whole)

    def step(
        self, state: AcceleratedState, data: Data, weights: Float[Array, " n"] | None
    ) -> tuple[AcceleratedState, Info]:
        """Score the parameters; mix their displacement with those before, or return to a plain sweep."""
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
        mixed = model.constrain(mixed, swept.params, tuple(model.factors))  # as every update is
        # where an extrapolation gains little, or its history says nothing, a plain sweep must confirm it
        plain = ~all_finite(mixed) | (went_on.number < 1) | (state.mixed & (status == Status.CONVERGED))
        onward = went_on._replace(
            params=choose(plain, swept.params, mixed), local=swept.local, mixed=~plain, accepted=here
        )
        back = state._replace(
            params=accepted.moved,
            local=accepted.local,
            mixed=jnp.asarray(False),
            number=jnp.asarray(-1, jnp.int32),
        )
        scored = choose(refused, accepted, here)
        status = jnp.where(state.mixed & (refused | (status == Status.CONVERGED)), Status.UNFINISHED, status)
        info = Info(scored.params, scored.objective, error, status.astype(jnp.int32))
        return choose(refused, back, onward), info


def _coordinates(params: Mapping[str, State], origin: Mapping[str, State]) -> Record:
    """Return real coordinates of all states, 0 at `origin`."""
    return Record({name: coordinates(state, origin[name]) for name, state in params.items()})


def _mix(state: AcceleratedState, moved: Record) -> tuple[Record, AcceleratedState]:
    """Return the extrapolated parameters (Walker & Ni 2011, eq. 2.2), and the state with a longer history.

    Args:
        moved: the parameters after a plain sweep from those of the state.
    """
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
