"""Pieces that all ways to fit a `BlackBox` share: what they ask of it, how a step is judged, why a run stops.

For the algorithms of this room; imports its approximation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.contracts import Distribution, FamilyStart, Latents
from vbjax.blackbox.families import LocationScale
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import float_dtype, rounding_error
from vbjax.families.base import pytree
from vbjax.numerics.inputs import read_number
from vbjax.numerics.types import Data

SHORTEST = 2.0**-40  # a step so short that no gain is left in it


@runtime_checkable
class Target(Protocol):
    """Log density to be approximated, as algorithms see it: a `BlackBox`, whose methods these are."""

    @property
    def family(self) -> str | FamilyStart: ...

    @property
    def log_likelihood(self) -> Callable[[Latents, Data], Array] | None: ...

    def inspect_family(self, dtype: DTypeLike) -> Distribution: ...

    def init(self, key: Array, data: Data = None) -> Approximation: ...

    def log_joint(self, u: Array, data: Data = None, share: float = 1) -> Array: ...

    def log_joints(
        self, q: Distribution, u: Array, key: Array, data: Data = None, share: float = 1
    ) -> Array: ...

    def score_draws(self, params: Approximation, data: Data = None) -> tuple[Array, Array]: ...

    def slope(self, params: Approximation, data: Data = None) -> Any: ...

    def bound(self, params: Approximation, data: Data = None) -> Array: ...

    def log_ratios(self, params: Approximation, u: Array, data: Data = None) -> Array: ...

    def refuse_not_finite(self, params: Approximation, data: Data) -> None: ...


class Ascent:
    """Base of the algorithms around `model`."""

    model: Target
    tol: float | Array

    def inspect_common(self, data: Data) -> Distribution:
        """Refuse a tolerance that is none; return the shapes of the model's family."""
        read_number(self.tol, "tol")
        return self.model.inspect_family(float_dtype(data))

    def init(self, key: Array, data: Data, weights: Array | None, number: ArrayLike = 0) -> Approximation:
        """Return the start of the family, with the draws of a fit."""
        return self.model.init(key, data)

    def explain(self, params: Approximation, data: Data, weights: Array | None) -> None:
        """Raise a ValueError that names the latents at which a start has a bound that is not finite."""
        self.model.refuse_not_finite(params, data)


S = TypeVar("S")


@pytree
class Trial(Generic[S]):
    """Parameters of a normal that were tried, and what the log density at their draws told.

    Attributes:
        params: the parameters.
        objective: their bound.
        error: its rounding error.
        summary: what the next step needs to know of the gradients at the draws.
    """

    params: Approximation[LocationScale]
    objective: Float[Array, ""]
    error: Float[Array, ""]
    summary: S

    @staticmethod
    def of(params: Approximation[LocationScale], log_joint: Float[Array, " n"], summary: S) -> Trial[S]:
        """Return the trial of parameters, with the log density at their draws."""
        objective = log_joint.mean() + params.q.entropy()
        return Trial(params, objective, rounding_error(jnp.abs(log_joint).mean()), summary)

    @staticmethod
    def none(params: Approximation[LocationScale], like: S) -> Trial[S]:
        """Return a trial before the first: its objective is -inf, its summary zeros shaped `like`."""
        zero = jnp.zeros((), params.q.location.dtype)
        return Trial(params, zero - jnp.inf, zero, jax.tree.map(jnp.zeros_like, like))

    def info(self, status: Int[Array, ""], gain: Float[Array, ""]) -> Info:
        """Return the report of a step that keeps this trial, from where the next step promises `gain`."""
        gain = jnp.where(jnp.isfinite(self.objective), gain, jnp.nan)
        return Info(self.params, self.objective, self.error, status, gain)


@pytree
class TrialState(Generic[S]):
    """State of an ascent that tries a step, and keeps it or takes it back.

    Attributes:
        last: the last trial that was kept.
        next: the parameters to try next.
        rho: length of the step that leads to them.
    """

    last: Trial[S]
    next: Approximation[LocationScale]
    rho: Float[Array, ""]

    @staticmethod
    def begin(params: Approximation[LocationScale], like: S) -> TrialState[S]:
        """Return the state before the first trial, of `params`; the summaries of trials are shaped `like`."""
        last = Trial.none(params, like)
        return TrialState(last, params, jnp.ones_like(last.error))


def judge_trial(
    trial: Approximation,
    log_joint: Float[Array, " n"],
    kept: Bool[Array, ""],
    state: TrialState,
    *,
    gain: Float[Array, ""],
    bend: Float[Array, ""],
    tol: float | Array,
) -> Int[Array, ""]:
    """Return the status after a trial has been kept or taken back.

    Args:
        trial: the parameters that were tried.
        log_joint: the log density at their draws.
        kept: whether they are kept.
        state: the state that results.
        gain: what the next step promises, in nats: converged when it is below `tol`, or below the rounding
            error of the bound.
        bend: trace of the curvature, negative where the log density is convex on average.
        tol: a number of nats.
    """
    u, last = trial.points()[0], state.last
    status = jnp.where(state.rho < SHORTEST, explain_no_step(u, log_joint, bend), Status.UNFINISHED)
    arrived = gain <= jnp.maximum(jnp.asarray(tol, last.error.dtype), last.error)
    status = jnp.where(arrived, Status.CONVERGED, status)
    return judge_run(status, last.objective, jnp.where(kept, u, 0))


def judge_run(stop: Int[Array, ""], objective: Float[Array, ""], u: Float[Array, "n d"]) -> Int[Array, ""]:
    """Return the status of a run: `stop`, unless its objective is not finite or it has run away.

    A run has run away when it has not arrived and has draws u beyond 1 / eps^2: starts are about 1, and no
    scale of a proper density that this dtype can tell from its neighbours is as wide.
    """
    far = jnp.abs(u).max() > _farthest(u)
    stop = jnp.where(far & (stop == Status.UNFINISHED), Status.UNBOUNDED, stop)
    stop = jnp.where(jnp.isfinite(objective), stop, Status.NON_FINITE)
    return jnp.where(objective == jnp.inf, Status.UNBOUNDED, stop).astype(jnp.int32)


def explain_no_step(
    u: Float[Array, "n d"], log_joint: Float[Array, " n"], bend: Float[Array, ""]
) -> Int[Array, ""]:
    """Return the status that says why no step is short enough to be kept.

    NON_FINITE: draws lie where the density is zero. UNBOUNDED: the log density is convex on average, so
    that q is never wide enough, or higher than that of any data. DECREASED: neither is so.

    Args:
        u: the last draws that were tried.
        log_joint: the log density at them.
        bend: trace of the curvature, negative where the log density is convex.
    """
    outside = jnp.isfinite(u).all() & (jnp.isnan(log_joint) | (log_joint == -jnp.inf)).any()
    rising = (bend < 0) | (log_joint > _farthest(u)).any()
    why = jnp.where(rising, Status.UNBOUNDED, Status.DECREASED)
    return jnp.where(outside, Status.NON_FINITE, why)


def _farthest(u: Array) -> float:
    return float(jnp.finfo(u.dtype).eps) ** -2.0
