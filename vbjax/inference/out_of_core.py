"""Fits to a source: exact EM and variational Bayes on rows that are never in memory all at once.

A pass reads the rows once and adds up the statistics of all runs, the next block being read and moved while
this one is computed. A sweep is a pass for every block of factors, as in core/coordinate_ascent.py, and the
runs are those of restarts.py. The rows of a block are divided over the devices of this process, the blocks
over the processes, and a pass ends with one sum over all of them. Called by `fit`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vbjax.core.contracts import Info, Status
from vbjax.core.coordinate_ascent import AscentState, CoordinateAscent
from vbjax.core.devices import (
    ROWS,
    WHOLE,
    gather,
    jit_over_mesh,
    numbers_here,
    on_each,
    over,
    over_processes,
    seen_alone,
)
from vbjax.core.hyperparameters import read_hyperparameters
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.rows import Expectation, float_dtype, n_rows, sum_e_steps
from vbjax.data.sources import Block, Source, ahead
from vbjax.inference.checkpoints import Checkpoint
from vbjax.inference.division import mesh_for
from vbjax.inference.progress import progress_bar
from vbjax.inference.restarts import Race, record
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_array, is_concrete, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Tree

T = TypeVar("T")
_SAMPLED = 65_536  # rows from which defaults and starts are made


class Rows(NamedTuple):
    """The rows of a fit, as this process passes over them.

    Attributes:
        source: of those that are its own.
        n_rows: how many there are in all processes.
        size: rows of a block.
        dtypes: of the arrays of a block.
        mesh: the devices that a block is divided over; None for the default one.
    """

    source: Source
    n_rows: int
    size: int
    dtypes: Tree
    mesh: Mesh | None

    def described(self, sampled: Tree) -> dict[str, Tree]:
        """Return what must be the same for a checkpoint to go on: the rows, and how they are passed over.

        Raises:
            ValueError: where there are several processes, each of which would be at another place.
        """
        if jax.process_count() > 1:
            raise ValueError("checkpoint must be None where several processes share the rows of a source")
        return dict(data=(sampled, self.n_rows), block_rows=self.size, devices=str(self.mesh))


class Sweep(NamedTuple):
    """Progress of a sweep, which a checkpoint keeps beside the race.

    Attributes:
        params: parameters of all runs; the blocks of factors before this one have been updated.
        info: what the sweep's first pass found; without parameters, which the race has.
        factors: the number of the block of factors whose pass is under way.
        blocks: how many blocks of rows this pass has added up.
        total: their statistics for each run, with a leading axis of devices.
    """

    params: Record
    info: Info
    factors: Tree
    blocks: Tree
    total: Expectation


def sample(
    model: Any,
    source: Source,
    key: Array,
    params: Given,
    options: Mapping[str, Given],
    devices: Sequence[jax.Device],
) -> tuple[Rows, Tree]:
    """Return how the rows of a source are passed over, and a sample: all of them, or 65,536, in order.

    Args:
        model: one that is to be fitted, conjugate.
        source: what has the rows, the same in every process.
        key: for the draw, which is without replacement.
        params: where the first run starts.
        options: those of `fit` that a fit to a source does not take, with what was given for them.
        devices: those that may be used.

    Raises:
        ValueError: an option that is given; a model whose updates are not known from statistics alone; rows
            that cannot be read, or that the model refuses, by their place.
    """
    if given := [name for name, value in options.items() if value is not None and value is not False]:
        raise ValueError(
            f"{given[0]} must be left out where data come from a source: it takes arrays in memory"
        )
    require_model(model, source, "data from a source")
    model = read_hyperparameters(model)
    own, processes = source, jax.process_count()
    if processes > 1 and not source.is_share:
        own = source.share(jax.process_index(), processes)
    sizes = {number: size for each in _of_all(lambda: own.sizes) for number, size in each.items()}
    n = sum(sizes.values())
    if not n or not is_concrete((model, key, params)):
        raise ValueError("data must be a source of at least one row, outside jit and vmap")
    chosen = np.arange(n)
    if n > _SAMPLED:
        seed = np.asarray(jax.random.bits(read_key(key), (4,), jnp.uint32))
        chosen = np.sort(np.random.default_rng(seed).choice(n, _SAMPLED, replace=False))
    numbers = sorted(sizes)
    firsts = dict(zip(numbers, np.cumsum([0, *(sizes[number] for number in numbers)]), strict=False))
    rows = _drawn(own, chosen, firsts)
    try:
        model.read(rows)
    except ValueError:
        for block in own.blocks():  # to say where it is
            _check(model, block)
        raise
    arrays = jax.tree.map(lambda x: as_array(x, "data"), rows)
    size = max(1, min(source.block_rows, own.n_rows))
    entries = sum(x.size for x in jax.tree.leaves(arrays)) // n_rows(arrays) * size
    mesh = mesh_for(entries, size, devices, ROWS)
    size += 0 if mesh is None else -size % mesh.size
    return Rows(own, n, size, jax.tree.map(lambda x: np.dtype(x.dtype), arrays), mesh), rows


def _of_all(function: Callable[[], T]) -> list[T]:
    """Return the results of a function in all processes; raise in each the error of any."""
    error = None
    try:
        own = function()
    except ValueError as problem:
        own, error = None, str(problem)
    each = gather((own, error))
    if errors := [error for _, error in each if error]:
        raise ValueError(errors[0])
    return [cast(T, own) for own, _ in each]


def _drawn(source: Source, chosen: np.ndarray, firsts: Mapping[int, int]) -> Tree:
    """Return the rows of some numbers, in their order, from the shares of all processes.

    Args:
        source: the share of this one.
        chosen: the numbers, among the rows of all.
        firsts: the number of the first row of each piece.
    """

    def own() -> list[tuple[np.ndarray, Tree]]:
        parts = []
        for block in ahead(source.blocks()):
            numbers, at = [], []
            for part in block.parts:
                first = firsts[part.piece] + part.first
                ends = np.searchsorted(chosen, (first, first + part.stop - part.start))
                numbers.append(chosen[slice(*ends)])
                at.append(numbers[-1] - first + part.start)
            taken = np.concatenate(at)
            rows = jax.tree.map(lambda x, at=taken: x[at], block.padded)
            parts.append((np.concatenate(numbers), rows))
        return parts

    parts = [part for parts in _of_all(own) for part in parts]
    forms = [jax.tree.map(lambda x: f"{x.dtype}{list(x.shape[1:])}", rows) for _, rows in parts]
    if other := [form for form in forms if form != forms[0]]:
        raise ValueError(f"data must have the same columns in all processes; got {forms[0]} and {other[0]}")
    order = np.argsort(np.concatenate([numbers for numbers, _ in parts]))
    return jax.tree.map(lambda *x: np.concatenate(x)[order], *[rows for _, rows in parts])


def _check(model: ConjugateModel, block: Block) -> None:
    """Raise a ValueError for rows that the model refuses; it names their place."""
    try:
        model.read(block.rows)
    except ValueError as error:
        for part in block.parts:
            try:
                model.read(jax.tree.map(lambda x, part=part: x[part.start : part.stop], block.padded))
            except ValueError as own:
                raise ValueError(f"{part.place}: {own}") from None
        raise ValueError(f"{block.parts[0].place}: {error}") from None


def advance(
    race: Race,
    starts: Tree,
    algorithm: CoordinateAscent,
    sampled: Tree,
    rows: Rows,
    progress: bool,
    kept: Checkpoint | None,
) -> Race:
    """Advance all runs of a race that has a lane for each, sweep by sweep, until they have ended.

    Ctrl-C ends them at the last sweep that is whole.

    Raises:
        ValueError: a factor that is not conjugate; what a pass over the rows finds wrong with them.
    """
    algorithm.model.require_conjugate("an update from statistics alone")
    race, last, done = race._replace(state=race.state._replace(local=None)), None, 0
    n_restarts = race.runs.objective.size
    begun = _begun(algorithm, race.state, sampled, rows)
    place = (race, begun) if kept is None else kept.restored((race, begun))
    try:
        with progress_bar(progress, "sweep") as show:
            while (active := np.asarray(place[0].run) < n_restarts).any():
                race, sweep = place
                for further in _passes(algorithm, race, sweep, begun, rows):
                    place = race, (sweep := further)
                    if kept is not None:
                        kept.keep(place)
                info = sweep.info._replace(params=race.state.params)
                last = race, AscentState(sweep.params, info.objective, None), info, starts, algorithm
                race = _record(*last, np.bool_(False))
                place = race, begun._replace(params=race.state.params)
                best = np.where(active, info.objective, -np.inf).max()
                show(done := done + 1, f"best objective of {active.sum()} runs {best:.6g}")
            if kept is not None:
                kept.keep(place, now=True)
    except KeyboardInterrupt:
        if kept is not None:
            kept.keep(place, now=True)
        if last is None:
            raise
        return _record(*last, np.bool_(True))
    return place[0]


@jit
def _record(
    race: Race, moved: AscentState, info: Info, starts: Tree, algorithm: CoordinateAscent, stop: Array
) -> Race:
    return record(race, moved, info, starts, algorithm, None, stop)


def _begun(algorithm: CoordinateAscent, state: AscentState, sampled: Tree, rows: Rows) -> Sweep:
    """Return a sweep of all runs before its first pass."""
    n_runs, shares = len(state.objective), 1 if rows.mesh is None else rows.mesh.size
    one = jax.tree.map(lambda x: x[0], state.params)
    weights = jnp.ones(n_rows(sampled), float_dtype(sampled))
    like = jax.eval_shape(_statistics, algorithm.model, one, sampled, weights)
    alike = lambda axes: jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), like)
    info = jax.eval_shape(_scored, algorithm, state, alike((n_runs,)))._replace(params=None)
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    nothing, zero = jnp.zeros((), jnp.int32), zeros(alike((shares, n_runs)))
    return Sweep(state.params, zeros(info), nothing, nothing, _put(zero, rows.mesh))


def _put(tree: Tree, mesh: Mesh | None) -> Tree:
    """Return arrays whose leading axis is divided over the devices of a mesh."""
    return jax.device_put(tree, None if mesh is None else NamedSharding(mesh, PartitionSpec(ROWS)))


def _passes(
    algorithm: CoordinateAscent, race: Race, sweep: Sweep, begun: Sweep, rows: Rows
) -> Iterator[Sweep]:
    """Go on with a sweep, and yield how far it has come after every block of rows, and every pass.

    The first pass scores the parameters, see `CoordinateAscent.step`; the very first examines the rows.
    """
    model, started = algorithm.model, np.asarray(race.run) < race.runs.objective.size
    new = not np.asarray(race.n_iter).any()
    while (number := int(sweep.factors)) < len(model.blocks):
        active = started & (np.asarray(sweep.info.status) == Status.UNFINISHED)
        sweep = yield from _pass(model, sweep, active, rows, new and number == 0)
        info, total = sweep.info, jax.tree.map(jnp.asarray, sweep.total)
        if number == 0:
            info = _scored(algorithm, race.state, total)._replace(params=None)
        ended = not (started & (np.asarray(info.status) == Status.UNFINISHED)).any()
        sweep = begun._replace(
            params=_moved(model, sweep.params, total, model.blocks[number]),
            info=info,
            factors=np.int32(len(model.blocks) if ended else number + 1),
        )
        yield sweep


def _pass(
    model: ConjugateModel, sweep: Sweep, active: np.ndarray, rows: Rows, examine: bool
) -> Generator[Sweep, None, Sweep]:
    """Go on with a pass for the active runs, and yield how far it has come after every block of rows.

    Returns:
        The sweep with the statistics of all rows.
    """
    error = None
    try:
        for block in ahead(rows.source.blocks(rows.size, dtypes=rows.dtypes, skip=int(sweep.blocks))):
            if examine:
                _check(model, block)
            own = _put(block.padded, rows.mesh)
            jax.block_until_ready(sweep.total)  # one block is computed, one waits, one is read
            with over(rows.mesh):
                total = _add(model, sweep.params, active, own, np.int32(block.n_rows), sweep.total)
            sweep = sweep._replace(blocks=np.int32(sweep.blocks + 1), total=total)
            yield sweep
    except ValueError as problem:
        error = problem
    total = jax.tree.map(lambda x: np.asarray(x).sum(0), sweep.total)
    failed, total = over_processes((np.int32(error is not None), total))
    if failed:  # said in every process, or the others would wait for the sums of this one
        raise error or ValueError("data must be read by every process; another one could not read its share")
    return sweep._replace(total=total)


@jit
def _scored(algorithm: CoordinateAscent, state: AscentState, total: Expectation) -> Info:
    return jax.vmap(lambda state, total: algorithm.score(state, algorithm.model.collect(total)))(state, total)


@functools.partial(jit, static_argnames="block")
def _moved(model: ConjugateModel, params: Record, total: Expectation, block: tuple[str, ...]) -> Record:
    def move(params: Record, total: Expectation) -> Record:
        return Record(model.m_step(params, model.collect(total).statistics, block))

    return jax.vmap(move)(params, total)


def _statistics(model: ConjugateModel, params: Record, rows: Tree, weights: Array) -> Expectation:
    """Return what rows that were not annotated add to the statistics of a run."""
    return sum_e_steps(model, model.prepare(params), rows, weights)[0]


@jit_over_mesh  # gives nothing away: on a CPU it would then be waited for
def _add(
    model: ConjugateModel, params: Record, active: Array, rows: Tree, n: Array, total: Expectation
) -> Expectation:
    """Add what the first n rows of a block give to the statistics of the active runs, one after the other."""

    def alone(
        model: ConjugateModel, params: Record, active: Array, rows: Tree, n: Array, total: Expectation
    ) -> Expectation:
        numbers = numbers_here(n_rows(rows))
        with seen_alone():
            read = model.read(rows)
            weights = (numbers < n.astype(numbers.dtype)).astype(float_dtype(read))
            annotated = model.annotate(read, weights)

            def run(own: tuple[Record, Array, Expectation]) -> Expectation:
                params, active, total = own

                def added(total: Expectation) -> Expectation:
                    return jax.tree.map(jnp.add, total, _statistics(model, params, annotated, weights))

                return lax.cond(active, added, lambda total: total, total)

            sums = lax.map(run, (params, active, jax.tree.map(lambda x: x[0], total)))
        return jax.tree.map(lambda x: x[None], sums)

    each = PartitionSpec(ROWS)
    return on_each(alone, (WHOLE, WHOLE, WHOLE, each, WHOLE, each), each)(
        model, params, active, rows, n, total
    )
