"""Natural-gradient ascent for normals of sparse precision, whose steps take products with the Hessian.

The expected gradient and Hessian are means over the draws of a fit, fewer than latents. Where both say stop
is not quite where the bound on these draws is highest, since an L that follows their chance correlations
would raise it. So a step is kept if it sets a record: the highest bound, or the least gain that is left, as
in `score_matching`. For `BlackBox`; imports core and the rest of this room.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.blackbox.algorithms.ascent import SHORTEST, Ascent, Target, Trial, TrialState, judge_trial
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.structured.sparse_precision import SparseSlope
from vbjax.core.contracts import Info, Status
from vbjax.families.base import pytree
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data


class StructuredState(NamedTuple):
    """State of `StructuredAscent`: its trials, and the records of those that were kept.

    Attributes:
        trials: the last trial that was kept, and the next.
        highest: the highest bound so far.
        nearest: the least gain so far that a step promised.
    """

    trials: TrialState[SparseSlope]
    highest: Float[Array, ""]
    nearest: Float[Array, ""]


@pytree
class StructuredAscent(Ascent):
    """Natural-gradient ascent for a `BlackBox` of family "structured".

    Attributes:
        model: a `BlackBox`.
        tol: converged when the next step promises less than so many nats (half the squared length of the
            natural gradient), or no more than the rounding error of the bound.
    """

    model: Target
    tol: float | Array

    def inspect(self, data: Data) -> None:
        """Refuse other families."""
        q = self.inspect_common(data)
        if not isinstance(q, LocationScale) or not q.kind.needs_hessian:
            raise ValueError(f"StructuredAscent is for family='structured'; got {self.model.family!r}")

    def start(self, params: Approximation[LocationScale], data: Data) -> StructuredState:
        """Return the state at given parameters, which are not scored yet."""
        like = jax.eval_shape(lambda params: self.model.slope(params, data), params)
        trials = TrialState.begin(params, like)
        return StructuredState(trials, trials.last.objective, -trials.last.objective)

    def step(self, state: StructuredState, data: Data, weights: Array | None) -> tuple[StructuredState, Info]:
        """Score the parameters to try; keep them if they set a record; choose the next."""
        trials, kind = state.trials, state.trials.next.q.kind
        trial = trials.next
        log_joint = jax.vmap(lambda u: self.model.log_joint(u, data))(trial.points()[0])
        tried = Trial.of(trial, log_joint, self.model.slope(trial, data))
        objective, gain = tried.objective, tried.summary.gain
        kept = (objective > state.highest) | (gain < state.nearest)
        kept &= jnp.isfinite(objective) & jnp.isfinite(gain)

        last = choose(kept, tried, trials.last)
        rho = jnp.where(kept, jnp.minimum(2 * trials.rho, 1), trials.rho / 4)
        none = last.objective == -jnp.inf  # yet: draws of the start lie where the density is zero
        here = last.params.q
        location, scale = kind.move(here.location, here.scale, last.summary, rho)
        location, scale = choose(none, (here.location, here.scale.scaled(1 / rho)), (location, scale))
        q = dataclasses.replace(trial.q, location=location, scale=scale)
        trials = TrialState(last, dataclasses.replace(last.params, q=q), rho)
        left, bend = last.summary.gain, last.summary.bend
        status = judge_trial(trial, log_joint, kept, trials, gain=left, bend=bend, tol=self.tol)
        waiting = none & (rho >= SHORTEST) & jnp.isfinite(log_joint).any()
        status = jnp.where(waiting, jnp.int32(Status.UNFINISHED), status)
        highest = jnp.where(kept, jnp.maximum(objective, state.highest), state.highest)
        nearest = jnp.where(kept, jnp.minimum(gain, state.nearest), state.nearest)
        return StructuredState(trials, highest, nearest), last.info(status, left)
