"""Many random restarts in few lanes: a lane that finishes a run takes the next one.

`vmap` over a `while_loop` makes every run wait for the slowest. Here one `while_loop` steps a fixed
number of lanes; a run that ends writes its result into the table, its parameters and trace over the
best so far, and its lane goes on with the next initial state. One run is the same program with one
lane. The host may call `advance` again and again with a limit (progress, interruption).
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from vbjax.core.contracts import Algorithm, Info, Status
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data, Params, Tree

_KEPT = 256  # points of a run's trace that the table of all restarts keeps
_FAILED = (Status.DECREASED, Status.NON_FINITE, Status.UNBOUNDED, Status.ILL_CONDITIONED)


@stored
class Runs(NamedTuple):
    """The table of all restarts, one entry each.

    Attributes:
        objective: of the run's final parameters; NaN if it never ended.
        n_iter: sweeps.
        status: `Status` numbers.
        singular: the run ended on a boundary where the objective is not to be trusted (a component
            collapsed on tied rows).
        trace: (n_restarts, points), the objective at the sweeps that `sweeps` gives, NaN after the last. It
            is of every sweep of a run of at most 256; of a longer one 256 are kept, evenly spaced, the
            first and the last among them. (`Fit.trace` is the whole trace of the best run.)
    """

    objective: Array
    n_iter: Array
    status: Array
    singular: Array
    trace: Array

    @property
    def sound(self) -> Array:
        """Runs whose objective is to be trusted; others never win over one of these."""
        failed = functools.reduce(operator.or_, (self.status == x for x in _FAILED))
        return (abs(self.objective) < np.inf) & ~(self.singular | failed)

    def on_host(self) -> Runs:
        """Return the table as arrays of NumPy, for which nothing is compiled."""
        return jax.tree.map(np.asarray, self)

    @property
    def sweeps(self) -> np.ndarray:
        """The numbers of the sweeps that the trace is of, (n_restarts, points), from 1; 0 after the last."""
        n_iter, points = np.asarray(self.n_iter)[..., None], np.shape(self.trace)[-1]
        return np.where(np.arange(points) < n_iter, 1 + _kept_sweeps(n_iter, points, np), 0)


class Best(NamedTuple):
    """Best run so far: its parameters, number and rank, its trace (max_iter,), and what it left to gain."""

    params: Params
    run: Array
    rank: Array
    trace: Array
    gain_left: Array | None


class Race(NamedTuple):
    """The state of all lanes; `run` is the number of each lane's run, `trace` its objective at every sweep.

    An idle lane has the number n_restarts.
    """

    state: Tree
    run: Array
    n_iter: Array
    trace: Array
    next_run: Array
    runs: Runs
    best: Best


def begin(
    algorithm: Algorithm,
    keys: Array,
    data: Data,
    weights: Array | None,
    params: Params,
    number: int | Array = 0,
    *,
    lanes: int,
    max_iter: int,
) -> tuple[Race, Tree]:
    """Return the first runs in the lanes, and the parameters that all runs start from, one for each key.

    `params`, if given, is where the first run of a fit starts; the first of these has the number `number`.

    Raises:
        ValueError: more restarts and sweeps than the memory holds.
    """
    n_restarts = len(keys)
    lanes = min(lanes, n_restarts)
    if n_restarts > 1:
        whole = -(-n_restarts // lanes) * lanes  # whole batches: a remainder would be a second program
        keys = jnp.concatenate([keys, keys[: whole - n_restarts]])
        draw = lambda run: algorithm.init(run[0], data, weights, run[1])
        starts = lax.map(draw, (keys, number + jnp.arange(whole, dtype=jnp.int32)), batch_size=lanes)
        starts = jax.tree.map(lambda x: _strong(x[:n_restarts]), starts)
    elif params is None:
        starts = jax.tree.map(lambda x: _strong(x[None]), algorithm.init(keys[0], data, weights))
    if params is not None:
        given = jax.tree.map(lambda x: _strong(jnp.asarray(x)[None]), params)
        put = lambda own, x: own.at[:1].set(jnp.where(number == 0, x, own[:1]))
        starts = given if n_restarts == 1 else jax.tree.map(put, starts, given)
    first = jax.tree.map(lambda x: x[0], starts)
    found = jax.eval_shape(lambda p: algorithm.step(algorithm.start(p, data), data, weights)[1], first)
    dtype = found.objective.dtype
    integers = jnp.zeros(n_restarts, jnp.int32)
    race = Race(
        state=_started(algorithm, jax.tree.map(lambda x: x[:lanes], starts), data),
        run=jnp.arange(lanes, dtype=jnp.int32),
        n_iter=jnp.zeros(lanes, jnp.int32),
        trace=jnp.full((lanes, max_iter), jnp.nan, dtype),
        next_run=jnp.asarray(lanes, jnp.int32),
        runs=Runs(
            objective=jnp.full(n_restarts, jnp.nan, dtype),
            n_iter=integers,
            status=integers,
            singular=integers.astype(bool),
            trace=jnp.full((n_restarts, min(max_iter, _KEPT)), jnp.nan, dtype),
        ),
        best=Best(
            first,
            jnp.asarray(0, jnp.int32),
            jnp.full(2, -jnp.inf, dtype),
            jnp.full(max_iter, jnp.nan, dtype),
            None if found.gain_left is None else jnp.asarray(jnp.nan, dtype),
        ),
    )
    _require_memory(race, starts)
    return race, starts


def begun_again(race: Race, starts: Tree, algorithm: Algorithm, data: Data) -> Race:
    """Return a race of the same shapes, with one run for each lane, from `starts`; no other run follows."""
    n_restarts, lanes = race.runs.objective.shape[0], race.run.shape[0]
    unknown, zero = functools.partial(jnp.full_like, fill_value=jnp.nan), jnp.zeros_like
    return race._replace(
        state=_started(algorithm, starts, data),
        run=jnp.arange(lanes, dtype=race.run.dtype),
        n_iter=zero(race.n_iter),
        trace=unknown(race.trace),
        next_run=jnp.full_like(race.next_run, n_restarts),
        runs=jax.tree.map(
            lambda x: unknown(x) if jnp.issubdtype(x.dtype, jnp.floating) else zero(x), race.runs
        ),
        best=Best(
            jax.tree.map(lambda x: x[0], starts),
            zero(race.best.run),
            jnp.full_like(race.best.rank, -jnp.inf),
            unknown(race.best.trace),
            jax.tree.map(unknown, race.best.gain_left),
        ),
    )


def advance(
    race: Race,
    starts: Tree,
    algorithm: Algorithm,
    data: Data,
    weights: Array | None,
    turns: Array,
    stop: Array,
) -> Race:
    """Step the lanes until all runs have ended, `turns` times at most.

    With `stop` true the lanes end at their next scoring and no further run begins.
    """
    n_restarts = race.runs.objective.shape[0]

    def body(carry: tuple[Race, Array]) -> tuple[Race, Array]:
        race, turn = carry
        moved, info = _in_lanes(lambda s: algorithm.step(s, data, weights), race.state)
        return record(race, moved, info, starts, algorithm, data, stop), turn + 1

    def unfinished(carry: tuple[Race, Array]) -> Array:
        return (carry[0].run < n_restarts).any() & (carry[1] < turns)

    return lax.while_loop(unfinished, body, (race, jnp.zeros_like(turns)))[0]


def record(
    race: Race, moved: Tree, info: Info, starts: Tree, algorithm: Algorithm, data: Data, stop: Array
) -> Race:
    """Return the race after a step of all lanes, given where they have moved and what was found."""
    n_restarts, max_iter = race.runs.objective.shape[0], race.trace.shape[1]
    trace = race.trace.at[jnp.arange(race.run.shape[0]), race.n_iter].set(info.objective)
    n_iter = race.n_iter + 1
    going = info.status == Status.UNFINISHED
    ended = jnp.where(n_iter >= max_iter, Status.MAX_ITER, Status.UNFINISHED)
    ended = jnp.where(stop, Status.INTERRUPTED, ended)
    status = jnp.where(going, ended, info.status).astype(jnp.int32)
    done = (race.run < n_restarts) & (status != Status.UNFINISHED)
    return lax.cond(
        done.any(),
        lambda r, m: _harvest(r, starts, m, info._replace(status=status), done, algorithm, data, stop),
        lambda r, m: r._replace(state=m),
        race._replace(trace=trace, n_iter=n_iter),
        jax.tree.map(lambda m, s: m.astype(s.dtype), moved, race.state),
    )


def _harvest(
    race: Race,
    starts: Tree,
    moved: Tree,
    info: Info,
    done: Array,
    algorithm: Algorithm,
    data: Data,
    stop: Array,
) -> Race:
    """Write the ended runs into the table, keep the best, and refill their lanes."""
    n_restarts, lanes, objective = race.runs.objective.shape[0], race.run.shape[0], info.objective
    singular = jax.vmap(algorithm.model.singular)(info.params)
    ill = (info.status != Status.INTERRUPTED) & jax.vmap(algorithm.model.ill_conditioned)(info.params)
    info = info._replace(status=jnp.where(ill, jnp.int32(Status.ILL_CONDITIONED), info.status))
    row = Runs(objective, race.n_iter, info.status, singular, _thinned(race, race.runs.trace.shape[1]))
    slot = jnp.where(done, race.run, n_restarts)
    both = zip(race.runs, row, strict=True)
    runs = row if n_restarts == 1 else Runs(*(x.at[slot].set(new, mode="drop") for x, new in both))
    best = _better(race, row, info, done)
    if lanes == n_restarts:  # every run has a lane of its own
        return race._replace(state=moved, run=jnp.where(done, n_restarts, race.run), runs=runs, best=best)

    place = race.next_run + jnp.cumsum(done, dtype=jnp.int32) - 1
    run = jnp.where(done, jnp.where(stop, n_restarts, jnp.minimum(place, n_restarts)), race.run)
    source = jnp.minimum(run, n_restarts - 1)

    def refilled(moved: Tree) -> Tree:
        fresh = _started(algorithm, jax.tree.map(lambda x: x[source], starts), data)
        choose = lambda new, old: jnp.where(done.reshape(-1, *[1] * (new.ndim - 1)), new, old)
        return jax.tree.map(choose, fresh, moved)

    return race._replace(
        state=lax.cond(race.next_run < n_restarts, refilled, lambda moved: moved, moved),
        run=run.astype(jnp.int32),
        n_iter=jnp.where(done, 0, race.n_iter),
        next_run=jnp.minimum(race.next_run + done.sum(dtype=jnp.int32), n_restarts),
        runs=runs,
        best=best,
    )


def _better(race: Race, row: Runs, info: Info, done: Array) -> Best:
    """Return the best so far, of the ended runs and those before them; the first run where none is finite."""
    objective, best = row.objective, race.best
    # sound runs before singular and fallen ones, then by objective; what is not finite ranks below all
    finite = done & jnp.isfinite(objective)
    proper = jnp.where(finite, row.sound.astype(objective.dtype), -jnp.inf)
    value = jnp.where(finite, objective, -jnp.inf)
    winner = jnp.argmax(jnp.where(proper == proper.max(), value, -jnp.inf))
    rank = jnp.stack([proper[winner], value[winner]])
    better = (rank[0] > best.rank[0]) | ((rank[0] == best.rank[0]) & (rank[1] > best.rank[1]))
    only = (rank[0] == best.rank[0]) & ~jnp.isfinite(rank[0]) & done[0] & (race.run[0] == 0)

    def contender(best: Best) -> Best:
        sweep = jnp.arange(race.trace.shape[1], dtype=jnp.int32)
        trace = jnp.where(sweep < race.n_iter[winner], race.trace[winner], jnp.nan)
        params, gain_left = jax.tree.map(lambda x: x[winner], (info.params, info.gain_left))
        return Best(params, race.run[winner], rank, trace, gain_left)

    if len(race.runs.objective) == 1:
        return contender(best)
    # a branch, so that a run that is not better costs no copy of a trace
    return lax.cond(better | only, contender, lambda best: best, best)


def _thinned(race: Race, points: int) -> Array:
    """Return the traces of the lanes' runs at the sweeps that the table keeps, (lanes, points)."""
    n_iter = race.n_iter[:, None]
    sweeps = _kept_sweeps(n_iter, points, jnp)
    kept = jnp.take_along_axis(race.trace, sweeps, 1, mode="clip")
    return jnp.where(jnp.arange(points, dtype=jnp.int32) < n_iter, kept, jnp.nan)


def _kept_sweeps(n_iter: Tree, points: int, xp: ModuleType) -> Tree:
    """Return the sweeps, from 0, of a trace of so many points: all, or evenly spaced from first to last."""
    point, gaps = xp.arange(points, dtype=np.int32), max(points - 1, 1)
    whole, rest = xp.divmod(n_iter - 1, gaps)
    spaced = point * whole + point * rest // gaps  # by parts: no product beyond 32 bits
    return xp.where(n_iter <= points, point, spaced)


def _require_memory(race: Race, starts: Tree) -> None:
    """Refuse what does not fit, while nothing is compiled yet."""
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    lanes, max_iter = race.trace.shape
    table, traces = size((starts, race.runs)), size((race.trace, race.best.trace))
    needed, there = size((starts, race)), _memory()
    if needed > there:
        raise ValueError(
            f"n_restarts and max_iter must fit into {there:,} bytes of memory; this fit takes {needed:,}: "
            f"{table:,} for starts and table of {race.runs.objective.size} restarts (lower n_restarts), "
            f"{traces:,} for traces of {max_iter} sweeps in {lanes} lanes (lower max_iter or lanes)"
        )


def _memory() -> int:
    """Return the bytes of the default device, or of this machine or what it lets a process have."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit", 2**63)
    there = 2**63
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        there = min(there, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (AttributeError, OSError, ValueError):  # no such question here, or no limit
        pass
    return there


def _started(algorithm: Algorithm, params: Params, data: Data) -> Tree:
    """Return the states of lanes that begin at these parameters."""
    return jax.tree.map(_strong, _in_lanes(lambda p: algorithm.start(p, data), params))


def _in_lanes(function: Callable[[Tree], Tree], state: Tree) -> Tree:
    """Return the function of every lane's state; one lane needs no batching."""
    if jax.tree.leaves(state)[0].shape[0] > 1:
        return jax.vmap(function)(state)
    return jax.tree.map(lambda x: jnp.asarray(x)[None], function(jax.tree.map(lambda x: x[0], state)))


def _strong(x: Array) -> Array:
    """Return x without a weak type, which would change at the loop's first turn."""
    return lax.convert_element_type(x, x.dtype)
