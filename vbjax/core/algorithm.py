"""Algorithms: how a state moves, and when it has arrived. `fit` drives any of them.

An algorithm is a pytree with `init`, `step`, `params`: **score, then move**. A step scores the state
that comes in and says whether it has converged; the driver keeps that state when a status says stop.
"""

from __future__ import annotations

import enum
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from vbjax.core.expectation import Expectation, expectation
from vbjax.core.model import ConjugateModel
from vbjax.families.base import pytree
from vbjax.record import Record


class Status(enum.IntEnum):
    """How a run ended; inside jit and vmap an integer array."""

    UNFINISHED = 0
    CONVERGED = 1
    MAX_ITER = 2
    NON_FINITE = 3
    DECREASED = 4
    INTERRUPTED = 5

    @property
    def sentence(self) -> str:
        """What it means, for people."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.UNFINISHED: "not finished",
    Status.CONVERGED: "converged: the objective changes by less than the tolerance",
    Status.MAX_ITER: "stopped at max_iter before it converged",
    Status.NON_FINITE: "stopped: the objective is not finite",
    Status.DECREASED: "stopped: the objective fell by more than its rounding error",
    Status.INTERRUPTED: "interrupted",
}


class Info(NamedTuple):
    """Describes the state that came in.

    Attributes:
        objective: what is maximised.
        error: the rounding error of the objective in its dtype.
        status: a `Status`; UNFINISHED means go on.
    """

    objective: Array
    error: Array
    status: Array


class Algorithm(Protocol):
    """What `fit` drives."""

    model: Any

    def init(self, key: Array, data: Any, weights: Array | None) -> Any:
        """A random initial state."""

    def start(self, params: Any) -> Any:
        """The initial state at given parameters."""

    def step(self, state: Any, data: Any, weights: Array | None) -> tuple[Any, Info]:
        """Score the state, then move it."""

    def params(self, state: Any) -> Any:
        """The model's parameters in a state."""


class AscentState(NamedTuple):
    """Parameters, and the objective of the parameters before them."""

    params: Any
    objective: Array


@pytree
class CoordinateAscent:
    """EM, k-means and mean-field variational Bayes: the coordinate updates of a conjugate model.

    Attributes:
        model: a resolved model.
        tol: converged when the objective changes by at most `tol` times the model's unit (the rows'
            weight), or by no more than its rounding error.
    """

    model: ConjugateModel
    tol: Array

    def init(self, key: Array, data: Any, weights: Array | None) -> AscentState:
        """The model's own random start."""
        return self.start(self.model.init(key, data, weights))

    def start(self, params: Any) -> AscentState:
        """At given parameters."""
        return AscentState(params, jnp.asarray(-jnp.inf, jnp.asarray(self.tol).dtype))

    def params(self, state: AscentState) -> Any:
        """The parameters of the state."""
        return state.params

    def step(self, state: AscentState, data: Any, weights: Array | None) -> tuple[AscentState, Info]:
        """One sweep: every block from its own pass, the first from the pass that scores."""
        model, params = self.model, state.params
        total = expectation(model, params, data, weights)
        objective, magnitude = model.scored(params, total)
        error = rounding_error(magnitude)
        status = judge(objective, state.objective, error, self.tol * model.unit(total))
        moved = sweep(model, params, data, weights, total)
        return AscentState(moved, objective), Info(objective, error, status)


def sweep(
    model: ConjugateModel,
    params: Any,
    data: Any,
    weights: Array | None,
    total: Expectation | None = None,
    pull: Record | None = None,
    rho: Array | None = None,
) -> Record:
    """One coordinate update of every block, each from its own pass over the rows.

    Args:
        total: the first block's pass, where it has been made.
        pull: added to the gradient that the rows give: a perturbation of the log joint.
        rho: how far to go in natural parameters; by default all the way.
    """
    for number, block in enumerate(model.blocks):
        if number > 0 or total is None:
            total = expectation(model, params, data, weights)
        statistics = total.statistics
        if pull is not None:
            statistics = {name: jax.tree.map(jnp.add, statistics[name], pull[name]) for name in block}
        moved = model.m_step(Record(params), statistics, block)
        params = moved if rho is None else model.mix(Record(params), moved, rho, block)
    return params


def rounding_error(magnitude: Array) -> Array:
    """A few units in the last place of everything that was added up, whose absolute sum is `magnitude`."""
    return 4 * jnp.finfo(magnitude.dtype).eps * magnitude


def judge(objective: Array, previous: Array, error: Array, tolerance: Array) -> Array:
    """The status of a monotone algorithm; a fall beyond the rounding error is never convergence."""
    gain = objective - previous
    settled = jnp.abs(gain) <= jnp.maximum(tolerance, error)
    status = jnp.where(settled, Status.CONVERGED, Status.UNFINISHED)
    status = jnp.where(gain < -error, Status.DECREASED, status)
    return lax.convert_element_type(jnp.where(jnp.isfinite(objective), status, Status.NON_FINITE), jnp.int32)
