"""How a fit is divided over devices: the rows where there are many, the restarts where there are few.

Rows: every device has its share of them, and a pass ends with one sum over devices (core/rows.py); all else
is the same on all of them. Restarts: every device runs a race of its own on all of the data, and they meet at
the end. Imported by the drivers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from vbjax.core.contracts import Algorithm
from vbjax.core.devices import (
    ROWS,
    RUNS,
    WHOLE,
    alike,
    divided,
    jit_over_mesh,
    mesh_of,
    mesh_over,
    on_each,
    put,
    room,
)
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import Ragged, parts_of, placed
from vbjax.core.rows import expectation, float_dtype, n_rows
from vbjax.inference import restarts
from vbjax.inference.restarts import Race
from vbjax.numerics.compilation import jit
from vbjax.numerics.types import Data, Params, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model

_MANY = 2**15  # numbers in the rows of a device, from which on dividing them is worth a sum over devices
_COPIED = 2**28  # bytes that copies of the data on all devices may take


def divide(
    model: Model, data: Data, weights: Array | None, n_restarts: int, devices: Sequence[jax.Device]
) -> tuple[Mesh | None, Data, Array | None]:
    """Place the data of a fit, and say over which devices it is divided, and how; None for one device.

    Rows that come divided stay so. Else restarts are divided, over as many devices as divide their number, if
    there are as many and copies of the data are small; else rows, if every device then has enough to do.
    Where the devices do not divide the number of rows, a few of weight 0 are added. Devices of several
    processes, each of which has all of the data, are all used.

    Raises:
        ValueError: restarts that devices of several processes do not divide, of a model without rows.
    """
    rows = data is not None and isinstance(model, ConjugateModel)
    if not rows or mesh_of(data) is None:
        n_bytes, shares = sum(x.nbytes for x in jax.tree.leaves(data)), _runs_on(devices, n_restarts)
        enough = len(devices) if _several(devices) else max(1, len(devices) // 2) + 1
        if shares >= enough and n_bytes * shares <= _COPIED:
            mesh, (data, weights) = divide_runs((data, weights), n_restarts, devices)
            return mesh, data, weights
    if rows:
        return divide_rows(data, weights, devices, regroup=True)
    if _several(devices):
        what = f"a multiple of the {len(devices)} devices, which are of several processes"
        raise ValueError(f"n_restarts must be {what}; got {n_restarts}")
    mesh = mesh_for(0, 1, devices, RUNS)
    return mesh, *((data, weights) if mesh is None else put((data, weights), mesh, WHOLE))


def divide_rows(
    data: Data,
    weights: Array | None,
    devices: Sequence[jax.Device],
    at_once: int | None = None,
    *,
    regroup: bool = False,
) -> tuple[Mesh | None, Data, Array | None]:
    """Place rows over as many devices as have enough to do; return these too, None for the default alone.

    Args:
        data, weights: rows; those that come divided stay so.
        devices: those that may be used.
        at_once: how many rows a pass takes, by default all.
        regroup: see `place_rows`.
    """
    mesh, n = mesh_of(data), n_rows(data)
    if mesh is None:
        size, at_once = sum(x.size for x in jax.tree.leaves(data)), at_once or n
        mesh = mesh_for(size * at_once // n, at_once, devices, ROWS)
    return mesh, *((data, weights) if mesh is None else place_rows(data, weights, mesh, regroup=regroup))


def mesh_for(size: int, n: int, devices: Sequence[jax.Device], axis: str) -> Mesh | None:
    """Return a mesh of as many devices as have enough to do with n rows of so many numbers.

    It is None for the one device where arrays are made anyway, and has all that are of several processes.
    """
    shares = len(devices) if _several(devices) else max(1, min(len(devices), size // _MANY, n))
    return None if shares == 1 and devices[0] == jnp.zeros(()).device else mesh_over(devices[:shares], axis)


def _several(devices: Sequence[jax.Device]) -> bool:
    """Return whether devices are of several processes."""
    return len({device.process_index for device in devices}) > 1


def divide_runs(data: Data, n_runs: int, devices: Sequence[jax.Device]) -> tuple[Mesh | None, Data]:
    """Place the data of runs that are divided over as many devices as divide their number."""
    shares = _runs_on(devices, n_runs)
    mesh = mesh_over(devices[:shares], RUNS) if shares > 1 else None
    return mesh, data if mesh is None else put(data, mesh, WHOLE)


def _runs_on(devices: Sequence[jax.Device], n_runs: int) -> int:
    """Return over how many devices runs are divided."""
    return max(n for n in range(1, len(devices) + 1) if n_runs % n == 0)


def lanes_for(model: Model, data: Data) -> int:
    """Return how many runs step at the same time on a device: on an accelerator as many as fit, up to 64."""
    there = room()
    if there == 1:
        return model.lanes_on_cpu
    if data is None or not isinstance(model, ConjugateModel):
        return 64
    in_cache = lambda rows: -(-n_rows(rows) // model.chunk_rows(rows))  # chunks, each of a core's cache
    return max(1, min(64, there // sum(map(in_cache, parts_of(data)))))


def place_rows(
    data: Data, weights: Array | None, mesh: Mesh, *, regroup: bool = False
) -> tuple[Data, Array | None]:
    """Return rows and weights on the devices of a mesh, with rows of weight 0 that make each part even.

    With `regroup`, parts of `Ragged` rows give what is left over to one another, so that few rows are added:
    that takes the host longer than a pass over the rows takes the devices.
    """
    n, rows = n_rows(data), PartitionSpec(ROWS)
    if any(n_rows(part) % mesh.size for part in parts_of(data)):
        more = isinstance(data, Ragged) and regroup
        data = data.in_parts_for(mesh.size) if more else _evened(data, mesh.size)
    if added := n_rows(data) - n:
        weights = _padded(jnp.ones(n, float_dtype(data)) if weights is None else weights, added)
    if not isinstance(data, Ragged):
        return put(data, mesh, rows), put(weights, mesh, rows)
    parts, order = put(data.parts, mesh, rows), put(data.order, mesh, WHOLE)
    return dataclasses.replace(data, parts=parts, order=order), put(weights, mesh, WHOLE)


def _evened(data: Data, n: int) -> Data:
    """Return rows, every part of them followed by as many of zeros as make its size a multiple of n."""
    if not isinstance(data, Ragged):
        return _padded(data, -n_rows(data) % n)
    sizes = [n_rows(part) for part in data.parts]
    added = [-size % n for size in sizes]
    old, new = np.asarray(data.order), data.n_rows + np.arange(sum(added))
    each = zip(np.split(old, np.cumsum(sizes)[:-1]), np.split(new, np.cumsum(added)[:-1]), strict=True)
    order = placed(np.concatenate([x for pair in each for x in pair]), old.dtype)
    return dataclasses.replace(data, parts=tuple(map(_padded, data.parts, added)), order=order)


@functools.partial(jit, static_argnums=1)
def _padded(rows: Tree, added: int) -> Tree:
    """Return rows, followed by so many of zeros."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, added), *[(0, 0)] * (x.ndim - 1))), rows)


def gathered(result: Tree, mesh: Mesh | None) -> Tree:
    """Return values that are the same on all devices as arrays that are bound to none of them."""
    return result if mesh is None else jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), result)


# -- a program on several devices ---------------------------------------------------------------------------


def on_shares(
    function: Callable[..., Tree],
    data: Data,
    weights: Array | None,
    *args: Tree,
    specs: Sequence[Tree] = (),
    out: Tree = WHOLE,
) -> Tree:
    """Return function(data, weights, *args), run by every device for its own rows.

    Args:
        function: what is run; it may use no other arrays.
        data, weights: of all rows.
        args: what else it takes.
        specs: how the first of these lie on the devices; the others are whole on each.
        out: how what it returns lies on them.
    """

    def own(rows: Tree, *args: Tree) -> Tree:
        return function(*_of_share(rows, data), *args)

    whole = [WHOLE] * (len(args) - len(specs))
    return on_each(own, (_specs()[0], *specs, *whole), out)(_rows_of(data, weights), *args)


def _rows_of(data: Data, weights: Array | None) -> Tree:
    """Return the parts of data and weights that are divided over devices where rows are."""
    if divided(ROWS) and isinstance(data, Ragged):
        return data.parts, None if weights is None else data.split(weights)
    return data, weights


def _of_share(rows: Tree, data: Data) -> tuple[Data, Array | None]:
    """Return data and weights of a device, from its rows of the whole data."""
    own, weights = rows
    if divided(ROWS) and isinstance(data, Ragged):
        return data.only(own), None if weights is None else jnp.concatenate(weights)
    return own, weights


@jit_over_mesh
def objective(model: ConjugateModel, params: Params, data: Data, weights: Array | None) -> Array:
    """Compute the objective of parameters, by one pass over all rows."""

    def of_all(data: Data, weights: Array | None, model: ConjugateModel, params: Params) -> Array:
        return model.objective(params, expectation(model, params, data, weights))

    return on_shares(of_all, data, weights, model, params)


# -- a race on several devices ---------------------------------------------------------------------------


def begin(
    begun: Callable[..., tuple[Race, Tree, Algorithm, Tree]],
    algorithm: Algorithm,
    data: Data,
    weights: Array | None,
    keys: Array,
    given: Tree,
) -> tuple[Race, Tree, Algorithm, Tree]:
    """Begin a race on every device; where restarts are divided, races have a leading axis of devices.

    Args:
        begun: of data, weights, keys, the number of the first run and `given`; returns a race, the starts of
            its runs, an algorithm, and what there is of the data beside the rows.
        algorithm: one whose states are like those of that.
        data, weights: of all rows.
        keys: of all runs.
        given: what is the same on every device.

    Returns:
        What `begun` returns, of all devices.
    """

    def on_one(
        data: Data, weights: Array | None, keys: Array, given: Tree
    ) -> tuple[Race, Tree, Algorithm, Tree]:
        first = lax.axis_index(RUNS) * len(keys) if divided(RUNS) else 0
        race, *fixed = begun(data, weights, keys, first, given)
        return _stacked(race), *fixed

    rows, runs = _specs()
    out = _race_specs(algorithm), runs, WHOLE, rows
    return on_shares(on_one, data, weights, keys, given, specs=[runs], out=out)


def advance(
    races: Race,
    starts: Tree,
    algorithm: Algorithm,
    data: Data,
    weights: Array | None,
    turns: Array,
    stop: Array,
) -> Race:
    """Advance the race of every device: see `restarts.advance`."""

    def advanced(
        data: Data,
        weights: Array | None,
        races: Race,
        starts: Tree,
        algorithm: Algorithm,
        turns: Array,
        stop: Array,
    ) -> Race:
        return _stacked(restarts.advance(_own(races), starts, algorithm, data, weights, turns, stop))

    race, runs = _race_specs(algorithm), _specs()[1]
    fixed = races, starts, algorithm, turns, stop
    return on_shares(advanced, data, weights, *fixed, specs=[race, runs], out=race)


def begun_again(races: Race, starts: Tree, algorithm: Algorithm, data: Data) -> Race:
    """Begin again on every device, with a run for each of its lanes: see `restarts.begun_again`."""

    def again(data: Data, _: None, races: Race, starts: Tree, algorithm: Algorithm) -> Race:
        return _stacked(restarts.begun_again(_own(races), starts, algorithm, data))

    race, runs = _race_specs(algorithm), _specs()[1]
    return on_shares(again, data, None, races, starts, algorithm, specs=[race, runs], out=race)


def begun_from_moves(
    races: Race, params: Params, algorithm: Algorithm, key: Array, data: Data, weights: Array | None
) -> Race:
    """Begin again on every device, each lane by a move of the model near these parameters.

    A move may take components from where the lane's last run has ended.
    """

    def propose(
        data: Data, weights: Array | None, keys: Array, races: Race, model: Tree, params: Params
    ) -> Tree:
        move = lambda given: model.propose(given[0], params, given[1], data, weights)
        return lax.map(move, (keys, _own(races).state.params))

    keys, runs = jax.random.split(key, races.run.size), _specs()[1]
    fixed, specs = (keys, races, algorithm.model, params), [runs, _race_specs(algorithm)]
    starts = on_shares(propose, data, weights, *fixed, specs=specs, out=runs)
    return begun_again(races, starts, algorithm, data)


def merged(races: Race) -> Race:
    """Return one race with the runs and the best of those on all devices."""
    if not divided(RUNS):
        return races
    # alike on all devices, so that every process can read them
    run, next_run, runs, best = alike((races.run, races.next_run, races.runs, races.best))
    races = races._replace(run=run, next_run=next_run, runs=runs, best=best)
    sound, objective = races.best.rank[:, 0], races.best.rank[:, 1]
    winner = jnp.argmax(jnp.where(sound == sound.max(), objective, -jnp.inf))
    best = jax.tree.map(lambda x: x[winner], races.best)
    best = best._replace(run=best.run + winner.astype(best.run.dtype) * races.runs.objective.shape[1])
    runs = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), races.runs)
    return races._replace(runs=runs, best=best)


def _specs() -> tuple[PartitionSpec, PartitionSpec]:
    """Return how rows, and runs, lie on the devices."""
    rows, runs = (PartitionSpec(axis) if divided(axis) else WHOLE for axis in (ROWS, RUNS))
    return rows, runs


def _race_specs(algorithm: Any) -> Tree:
    """Return how races lie on the devices: local factors that are carried with their rows."""
    if not divided(ROWS):
        return _specs()[1]
    state = algorithm.state_specs(WHOLE, PartitionSpec(None, ROWS))
    others: Any = [WHOLE] * (len(Race._fields) - 1)
    return Race(state, *others)


def _stacked(race: Race) -> Race:
    return jax.tree.map(lambda x: x[None], race) if divided(RUNS) else race


def _own(races: Race) -> Race:
    return jax.tree.map(lambda x: x[0], races) if divided(RUNS) else races
