"""How a fit is divided over devices: the rows where there are many, the restarts where there are few.

Rows: every device has its share of them, and a pass ends with one sum over devices (core/rows.py); all else
is the same on all of them. Restarts: every device runs a race of its own on all of the data, and they meet at
the end. Imported by the drivers.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from vbjax.core.contracts import Algorithm
from vbjax.core.devices import ROWS, RUNS, WHOLE, alike, divided, mesh_of, mesh_over, on_each, put, room
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import Ragged, parts_of
from vbjax.core.rows import float_dtype, n_rows
from vbjax.inference import restarts
from vbjax.inference.restarts import Race
from vbjax.numerics.types import Data, Params, Tree

_MANY = 2**15  # numbers in the rows of a device, from which on dividing them is worth a sum over devices
_COPIED = 2**28  # bytes that copies of the data on all devices may take


def divide(
    model: Any, data: Data, weights: Array | None, n_restarts: int, devices: Sequence[jax.Device]
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
    if rows and (mesh := mesh_of(data)) is not None:
        return mesh, *_divided_rows(data, weights, mesh)
    size, n_bytes = (sum(getattr(x, what) for x in jax.tree.leaves(data)) for what in ("size", "nbytes"))
    shares, all_of_them = _runs_on(devices, n_restarts), len({x.process_index for x in devices}) > 1
    enough = len(devices) if all_of_them else max(1, len(devices) // 2) + 1
    if shares >= enough and n_bytes * shares <= _COPIED:
        mesh, (data, weights) = divide_runs((data, weights), n_restarts, devices)
        return mesh, data, weights
    if all_of_them and not rows:
        what = f"a multiple of the {len(devices)} devices, which are of several processes"
        raise ValueError(f"n_restarts must be {what}; got {n_restarts}")
    n, axis = (n_rows(data), ROWS) if rows else (1, RUNS)
    mesh = mesh_over(devices, axis) if all_of_them else mesh_for(size, n, devices, axis)
    if mesh is None:
        return None, data, weights
    return mesh, *(_divided_rows(data, weights, mesh) if rows else put((data, weights), mesh, WHOLE))


def mesh_for(size: int, n: int, devices: Sequence[jax.Device], axis: str) -> Mesh | None:
    """Return a mesh of as many devices as have enough to do with n rows of so many numbers.

    It is None for the one device where arrays are made anyway.
    """
    shares = max(1, min(len(devices), size // _MANY, n))
    return None if shares == 1 and devices[0] == jnp.zeros(()).device else mesh_over(devices[:shares], axis)


def divide_runs(data: Data, n_runs: int, devices: Sequence[jax.Device]) -> tuple[Mesh | None, Data]:
    """Place the data of runs that are divided over as many devices as divide their number."""
    shares = _runs_on(devices, n_runs)
    mesh = mesh_over(devices[:shares], RUNS) if shares > 1 else None
    return mesh, data if mesh is None else put(data, mesh, WHOLE)


def _runs_on(devices: Sequence[jax.Device], n_runs: int) -> int:
    """Return over how many devices runs are divided."""
    return max(n for n in range(1, len(devices) + 1) if n_runs % n == 0)


def lanes_for(model: Any, data: Data) -> int:
    """Return how many runs step at the same time on a device: on an accelerator as many as fit, up to 64."""
    there = room()
    if there == 1:
        return model.lanes_on_cpu
    if data is None or not isinstance(model, ConjugateModel):
        return 64
    in_cache = lambda rows: -(-n_rows(rows) // model.chunk_rows(rows))  # chunks, each of a core's cache
    return max(1, min(64, there // sum(map(in_cache, parts_of(data)))))


def _divided_rows(data: Data, weights: Array | None, mesh: Mesh) -> tuple[Data, Array | None]:
    """Return data and weights on the devices of a mesh, followed by rows of weight 0 that make them even."""
    n, rows = n_rows(data), PartitionSpec(ROWS)
    added = -n % mesh.size
    if added:
        weights = _padded(jnp.ones(n, float_dtype(data)) if weights is None else weights, added)
    if isinstance(data, Ragged):
        even = all(len(jax.tree.leaves(part)[0]) % mesh.size == 0 for part in data.parts)
        data = data if even else data.in_parts_for(mesh.size)
        parts, order = put(data.parts, mesh, rows), put(data.order, mesh, WHOLE)
        return dataclasses.replace(data, parts=parts, order=order), put(weights, mesh, WHOLE)
    data = _padded(data, added) if added else data
    return put(data, mesh, rows), put(weights, mesh, rows)


@functools.partial(jax.jit, static_argnames="added")
def _padded(rows: Tree, added: int) -> Any:
    """Return rows, followed by so many of zeros."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, added), *[(0, 0)] * (x.ndim - 1))), rows)


def gathered(result: Any, mesh: Mesh | None) -> Any:
    """Return what is the same on all devices as arrays that are bound to none."""
    return result if mesh is None else jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), result)


# -- a race on several devices ---------------------------------------------------------------------------


def rows_of(data: Data, weights: Array | None) -> Tree:
    """Return what is divided of data and weights, where rows are."""
    if divided(ROWS) and isinstance(data, Ragged):
        return data.parts, None if weights is None else data.split(weights)
    return data, weights


def of_share(rows: Tree, data: Data) -> tuple[Data, Array | None]:
    """Return data and weights of a device, from its rows of the whole data."""
    own, weights = rows
    if divided(ROWS) and isinstance(data, Ragged):
        return data.only(own), None if weights is None else jnp.concatenate(weights)
    return own, weights


def begin(
    started: Callable[..., Any],
    algorithm: Algorithm,
    data: Data,
    weights: Array | None,
    keys: Array,
    params: Params,
    given: Tree,
    **sizes: int,
) -> tuple[Race, Any, Any, Any]:
    """Begin a race on every device; where restarts are divided, races have a leading axis of devices.

    Args:
        started: of some data, weights and `given`; returns an algorithm, the data of its steps, and what is
            to be returned of both.
        algorithm: one whose states are like those of that.
        data, weights, keys, params, sizes: see `restarts.begin`.
        given: what is the same on every device.

    Returns:
        The races, the starts of all runs, the algorithm, and what `started` has of the data beside the rows.
    """

    def begun(rows: Tree, keys: Array, params: Params, given: Tree) -> tuple[Race, Any, Any, Any]:
        own, weights = of_share(rows, data)
        algorithm, annotated, beside = started(own, weights, given)
        first = lax.axis_index(RUNS) * len(keys) if divided(RUNS) else 0
        race, starts = restarts.begin(algorithm, keys, annotated, weights, params, first, **sizes)
        return _stacked(race), starts, algorithm, beside

    rows, runs = _specs()
    out = _race_specs(algorithm), runs, WHOLE, rows
    return on_each(begun, (rows, runs, WHOLE, WHOLE), out)(rows_of(data, weights), keys, params, given)


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
        races: Race, starts: Tree, rows: Tree, algorithm: Algorithm, turns: Array, stop: Array
    ) -> Race:
        own = of_share(rows, data)
        return _stacked(restarts.advance(_own(races), starts, algorithm, *own, turns, stop))

    (rows, runs), race = _specs(), _race_specs(algorithm)
    each = on_each(advanced, (race, runs, rows, WHOLE, WHOLE, WHOLE), race)
    return each(races, starts, rows_of(data, weights), algorithm, turns, stop)


def begun_again(races: Race, starts: Tree, algorithm: Algorithm, data: Data) -> Race:
    """Begin again on every device, with a run for each of its lanes: see `restarts.begun_again`."""

    def again(races: Race, starts: Tree, rows: Tree, algorithm: Algorithm) -> Race:
        return _stacked(restarts.begun_again(_own(races), starts, algorithm, of_share(rows, data)[0]))

    (rows, runs), race = _specs(), _race_specs(algorithm)
    each = on_each(again, (race, runs, rows, WHOLE), race)
    return each(races, starts, rows_of(data, None), algorithm)


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


def _race_specs(algorithm: Any) -> Any:
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
