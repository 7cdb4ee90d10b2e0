"""Many random restarts in few lanes: a lane that finishes a run takes the next one.

`vmap` over a `while_loop` makes every run wait for the slowest. Here one `while_loop` steps a fixed
number of lanes; a run that ends writes its result into the table, its parameters and trace over the
best so far, and its lane goes on with the next initial state. One run is the same program with one
lane. The host may call `advance` again and again with a limit (progress, interruption).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from vbjax.core.algorithm import Algorithm, Info, Status


class Runs(NamedTuple):
    """The table of all restarts, one entry each.

    Attributes:
        objective: of the run's final parameters; NaN if it never ended.
        n_iter: sweeps.
        status: `Status` numbers.
        singular: the run ended on a boundary where the objective is not to be trusted (a component
            collapsed on tied rows).
        trace: (n_restarts, max_iter), the objective at every sweep, NaN after the last.
    """

    objective: Array
    n_iter: Array
    status: Array
    singular: Array
    trace: Array

    @property
    def sound(self) -> Array:
        """Runs whose objective is to be trusted; others never win over one of these."""
        return jnp.isfinite(self.objective) & ~self.singular & (self.status != Status.DECREASED)


class Best(NamedTuple):
    """The winner so far; its parameters and the table's row come from the same run."""

    params: Any
    run: Array
    rank: Array


class Race(NamedTuple):
    """What runs start from, and the state of all lanes; `run` is the number of each lane's run.

    An idle lane has the number n_restarts.
    """

    starts: Any
    state: Any
    run: Array
    n_iter: Array
    trace: Array
    next_run: Array
    clock: Array
    runs: Runs
    best: Best


def begin(
    algorithm: Algorithm,
    key: Array,
    data: Any,
    weights: Array | None,
    params: Any,
    *,
    n_restarts: int,
    lanes: int,
    max_iter: int,
) -> Race:
    """The initial states of all runs, the first of them in the lanes. `params` is the first run's start."""
    lanes = min(lanes, n_restarts)
    n_drawn = n_restarts if params is None else n_restarts - 1
    starts = []
    if params is not None:
        starts.append(jax.tree.map(lambda x: jnp.asarray(x)[None], params))
    if n_drawn == 1:
        starts.append(jax.tree.map(lambda x: x[None], algorithm.init(key, data, weights)))
    elif n_drawn > 1:
        n_whole = -(-n_drawn // lanes) * lanes  # whole batches: a remainder would be a second program
        keys = jax.random.split(key, n_whole)
        drawn = lax.map(lambda k: algorithm.init(k, data, weights), keys, batch_size=lanes)
        starts.append(jax.tree.map(lambda x: x[:n_drawn], drawn))
    drawn = jax.tree.map(lambda *x: _strong(jnp.concatenate(x)), *starts)
    first = jax.tree.map(lambda x: x[0], drawn)
    dtype = jax.eval_shape(
        lambda p: algorithm.step(algorithm.start(p, data), data, weights)[1].objective, first
    ).dtype
    integers = jnp.zeros(n_restarts, jnp.int32)
    return Race(
        starts=drawn,
        state=_started(algorithm, jax.tree.map(lambda x: x[:lanes], drawn), data),
        run=jnp.arange(lanes, dtype=jnp.int32),
        n_iter=jnp.zeros(lanes, jnp.int32),
        trace=jnp.full((lanes, max_iter), jnp.nan, dtype),
        next_run=jnp.asarray(lanes, jnp.int32),
        clock=jnp.asarray(0, jnp.int32),
        runs=Runs(
            objective=jnp.full(n_restarts, jnp.nan, dtype),
            n_iter=integers,
            status=integers,
            singular=integers.astype(bool),
            trace=jnp.full((n_restarts, max_iter), jnp.nan, dtype),
        ),
        best=Best(
            first,
            jnp.asarray(0, jnp.int32),
            jnp.full(2, -jnp.inf, dtype),
        ),
    )


def begun_again(race: Race, algorithm: Algorithm, starts: Any, data: Any) -> Race:
    """Return a race of the same shapes, with one run for each lane, from `starts`; no other run follows."""
    n_restarts, lanes = race.runs.objective.shape[0], race.run.shape[0]
    unknown, zero = functools.partial(jnp.full_like, fill_value=jnp.nan), jnp.zeros_like
    return race._replace(
        state=_started(algorithm, starts, data),
        run=jnp.arange(lanes, dtype=race.run.dtype),
        n_iter=zero(race.n_iter),
        trace=unknown(race.trace),
        next_run=jnp.full_like(race.next_run, n_restarts),
        clock=zero(race.clock),
        runs=jax.tree.map(
            lambda x: unknown(x) if jnp.issubdtype(x.dtype, jnp.floating) else zero(x), race.runs
        ),
        best=race.best._replace(run=zero(race.best.run), rank=jnp.full_like(race.best.rank, -jnp.inf)),
    )


def advance(
    race: Race, algorithm: Algorithm, data: Any, weights: Array | None, limit: Array, stop: Array
) -> Race:
    """Step the lanes until all runs have ended or the clock reaches `limit`.

    With `stop` true the lanes end at their next scoring and no further run begins.
    """
    n_restarts = race.runs.objective.shape[0]
    max_iter = race.trace.shape[1]
    lanes = jnp.arange(race.run.shape[0])

    def body(race: Race) -> Race:
        moved, info = _in_lanes(lambda s: algorithm.step(s, data, weights), race.state)
        trace = race.trace.at[lanes, race.n_iter].set(info.objective)
        n_iter = race.n_iter + 1
        going = info.status == Status.UNFINISHED
        ended = jnp.where(n_iter >= max_iter, Status.MAX_ITER, Status.UNFINISHED)
        ended = jnp.where(stop, Status.INTERRUPTED, ended)
        status = jnp.where(going, ended, info.status).astype(jnp.int32)
        done = (race.run < n_restarts) & (status != Status.UNFINISHED)
        scored = race._replace(trace=trace, n_iter=n_iter, clock=race.clock + 1)
        return lax.cond(
            done.any(),
            lambda r, m: _harvest(r, m, info._replace(status=status), done, algorithm, data, stop),
            lambda r, m: r._replace(state=m),
            scored,
            jax.tree.map(lambda m, s: m.astype(s.dtype), moved, race.state),
        )

    def unfinished(race: Race) -> Array:
        return (race.run < n_restarts).any() & (race.clock < limit)

    return lax.while_loop(unfinished, body, race)


def _harvest(
    race: Race, moved: Any, info: Info, done: Array, algorithm: Algorithm, data: Any, stop: Array
) -> Race:
    """Write the ended runs into the table, keep the best, and refill their lanes."""
    n_restarts, objective = race.runs.objective.shape[0], info.objective
    singular = jax.vmap(algorithm.model.singular)(info.params)
    slot = jnp.where(done, race.run, n_restarts)
    row = Runs(objective, race.n_iter, info.status, singular, race.trace)
    runs = Runs(*(table.at[slot].set(new, mode="drop") for table, new in zip(race.runs, row, strict=True)))

    # sound runs before singular and fallen ones, then by objective; what is not finite ranks below all
    finite = done & jnp.isfinite(objective)
    proper = jnp.where(finite, row.sound.astype(objective.dtype), -jnp.inf)
    value = jnp.where(finite, objective, -jnp.inf)
    winner = jnp.argmax(jnp.where(proper == proper.max(), value, -jnp.inf))
    rank = jnp.stack([proper[winner], value[winner]])
    better = (rank[0] > race.best.rank[0]) | ((rank[0] == race.best.rank[0]) & (rank[1] > race.best.rank[1]))
    contender = Best(jax.tree.map(lambda x: x[winner], info.params), race.run[winner], rank)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), contender, race.best)

    place = race.next_run + jnp.cumsum(done, dtype=jnp.int32) - 1
    run = jnp.where(done, jnp.where(stop, n_restarts, jnp.minimum(place, n_restarts)), race.run)
    source = jnp.minimum(run, n_restarts - 1)

    def refilled(moved: Any) -> Any:
        fresh = _started(algorithm, jax.tree.map(lambda x: x[source], race.starts), data)
        choose = lambda new, old: jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(choose, fresh, moved)

    return race._replace(
        state=lax.cond(race.next_run < n_restarts, refilled, lambda moved: moved, moved),
        run=run.astype(jnp.int32),
        n_iter=jnp.where(done, 0, race.n_iter),
        trace=jnp.where(done[:, None], jnp.nan, race.trace),
        next_run=jnp.minimum(race.next_run + done.sum(dtype=jnp.int32), n_restarts),
        runs=runs,
        best=best,
    )


def _started(algorithm: Algorithm, params: Any, data: Any) -> Any:
    """The states of lanes that begin at these parameters."""
    return jax.tree.map(_strong, _in_lanes(lambda p: algorithm.start(p, data), params))


def _in_lanes(function: Callable[[Any], Any], state: Any) -> Any:
    """The function of every lane's state; one lane needs no batching."""
    if jax.tree.leaves(state)[0].shape[0] > 1:
        return jax.vmap(function)(state)
    return jax.tree.map(lambda x: jnp.asarray(x)[None], function(jax.tree.map(lambda x: x[0], state)))


def _strong(x: Array) -> Array:
    """Without a weak type, which would change at the loop's first turn."""
    return lax.convert_element_type(x, x.dtype)
