"""`fit`: the one driver. Reads the input, resolves the model, runs all restarts, returns a `Fit`."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.contracts import Algorithm, Options, Status
from vbjax.core.devices import ROWS, RUNS, divided, in_several_processes, jit_over_mesh, over, read_devices
from vbjax.core.model import in_dtype
from vbjax.core.rows import float_dtype
from vbjax.data.frames import read_frame
from vbjax.data.sources import Source
from vbjax.inference import division, out_of_core
from vbjax.inference.checkpoints import Checkpoint, require_one_process
from vbjax.inference.interrupts import MOST_TURNS, compiling, next_slice
from vbjax.inference.irreversible import irreversible
from vbjax.inference.progress import progress_bar
from vbjax.inference.resolution import emptied, read_data, read_params, refilled, subject_of
from vbjax.inference.restarts import Race, begin
from vbjax.inference.result import Fit, M
from vbjax.inference.search import SHAKEN_SWEEPS, leave_saddles, search_moves
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count, read_flag, read_key, read_number
from vbjax.numerics.types import Data, Given, Params, Tree

_NO_LIMIT = np.int32(MOST_TURNS)


class _SoFar(NamedTuple):
    """Best run so far, as it is known between slices."""

    run: Array
    objective: Array
    n_iter: Array
    status: Array


def fit(
    model: M,
    data: Data = None,
    *,
    key: Array,
    weights: Given = None,
    params: Params = None,
    n_restarts: int = 1,
    max_iter: int = 1000,
    tol: Given = None,
    lanes: int | None = None,
    accelerate: bool = False,
    check: bool = False,
    search: bool = False,
    progress: bool = False,
    devices: Sequence[jax.Device] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Fit[M]:
    """Fit a model by coordinate ascent from one or many starts, in one compiled loop.

    It may be called inside `jax.jit` and `jax.vmap`, over data of one shape, keys, weights and
    hyperparameters; the values of the input are then not examined, and `Fit.status` says how it went.

    Args:
        model: a model, or an algorithm made from one.
        data: what the model takes: arrays whose leading axis are the rows; None for none. Or rows that are
            read block by block, `vb.sources.Parquet(...)`: each pass reads them once for all restarts. Starts
            and defaults that follow the data are then made from 65,536 rows drawn at random, and saddles are
            not looked for. Where there are several processes (`jax.distributed`), all of them give the same
            source, each reads its share of it, and all get the same fit.
        key: `jax.random.key(...)`; restarts use splits of it.
        weights: (n,) row weights; weight w counts a row w times, weight 0 leaves it out.
        params: where the first run starts (warm); the others start at random.
        n_restarts: number of runs; the best by objective wins, but a run that is singular, not finite or
            whose objective fell never wins over a sound one.
        max_iter: sweeps of a run at most; a new value is a new program.
        tol: a run has converged when a sweep changes the objective by at most `tol` per row (for
            k-means: relative to the inertia), or by no more than its rounding error. By default 1e-6; an
            algorithm has its own.
        lanes: runs that step at the same time on a device; by default 4 on a CPU (1 for topics), and up to 64
            on an accelerator, as its memory allows.
        accelerate: mix successive sweeps, for fits that converge slowly (overlapping components, factor
            models): fewer sweeps, each of one pass as before, and the objective still never falls
            (`AcceleratedAscent`).
        check: update every factor on its own and score after each, with passes over the data of their own;
            an update that lowers the objective ends the run as DECREASED. To verify hand-written updates.
        search: go on from the best run by moves between optima, for models of components, states or topics:
            one of them is freed, its rows go to another and it takes rows of others; or some come from
            another optimum; or rows are weighed anew for one update. Every lane climbs from a move of its
            own, and what ends above the best takes its place, until twelve rounds in a row have gained
            nothing. The fit is never worse than without; `Fit.search` says what it gained. There are at
            least as many runs as lanes. With a `checkpoint`, a search that was killed begins again.
        progress: show a progress bar of the restarts. Ctrl-C ends the fit early in any case, with the
            best of the runs so far and, if it was still running, the status INTERRUPTED; while the fit is
            still being compiled, Ctrl-C is a KeyboardInterrupt as soon as that is done.
        devices: those that may be used, by default all of this process. The rows are divided over them where
            there are many (of a source the rows of each block), the restarts where there are few rows
            (inference/division.py). Data that come divided along their rows stay so. Where devices, or rows,
            are those of several processes (`jax.distributed`), each calls `fit` alike and gets the same
            result; data and weights that do not come divided are then the same in each.
        checkpoint: a directory where the fit keeps what it has reached, every 30 seconds and at its end.
            Called again with the same arguments it goes on from there, to the same result; of a source it
            goes on with the block of rows where it was. It needs the extra `checkpoint`.

    Returns:
        A `Fit`.

    Programs are compiled for every new shape of the data, and kept. They take some hundred of the memory
    maps of which Linux gives a process 65,530: where a process fits data of very many shapes,
    `jax.clear_caches()` now and then gives them back. JAX has threads of its own, so a process that has
    fitted must not fork: start others by `multiprocessing.get_context("spawn")`.

    Warns:
        FitWarning: the best run did not converge or is singular, or no other restart found its optimum; not
            inside jit and vmap.

    Raises:
        ValueError: data, weights, params or a number out of range; a model that is not conjugate, whose
            functions use a name or a shape that does not exist, or one of whose factors is improper.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.KMeans(n_clusters=2), vb.datasets.old_faithful(), key=jax.random.key(0))
    >>> fit.status
    <Status.CONVERGED: 1>
    """
    data, columns = read_frame(data)
    subject = subject_of(model, data)
    tol = None if tol is None else read_number(tol, "tol")
    flags = dict(accelerate=accelerate, check=check, search=search)
    options = Options(tol, **{name: read_flag(flag, name) for name, flag in flags.items()})
    if subject is not model and options.given:
        raise ValueError(
            f"{options.given[0]} is for models: an algorithm has what it needs in its own fields; got "
            f"{type(model).__name__}"
        )
    progress = read_flag(progress, "progress")
    source = data if isinstance(data, Source) else None
    devices = read_devices(devices)
    if source is not None:
        untaken = options._replace(tol=None)._asdict() | dict(weights=weights, lanes=lanes)
        rows, data = out_of_core.sample(model, source, key, params, untaken, devices)
        lanes = n_restarts
    sizes = dict(n_restarts=n_restarts, lanes=1 if lanes is None else lanes, max_iter=max_iter)
    sizes = {name: read_count(size, name) for name, size in sizes.items()}
    key = read_key(key)
    read, data, weights = read_data(subject, data, weights)
    if lanes is None:
        sizes["lanes"] = division.lanes_for(read, data)
    given: Any = model
    if subject is model:
        given = read
        read.inspect_options(data, options)
    else:
        given = dataclasses.replace(given, model=read)
        given.inspect(data)
    tol = 1e-6 if tol is None else tol
    sizes["more"] = max(0, sizes["lanes"] - sizes["n_restarts"]) if search else 0
    options = options._replace(tol=None, search=False)  # traced, it goes beside what is static
    if params is not None:
        start = functools.partial(_start, options=options)
        params = read_params(params, jax.eval_shape(start, given, data, weights, tol, key))

    if not is_concrete((given, data, weights, tol, key, params)):
        if checkpoint is not None:
            raise ValueError("checkpoint must be None inside jit and vmap, where a fit cannot be kept")
        if search:
            raise ValueError("search must be False inside jit and vmap, where its rounds are not known")
        return _finish(*_begun((given, data, weights, tol, key, params), options, sizes))
    mesh = kept = None
    if source is None:
        n_runs = sizes["n_restarts"] + sizes["more"]
        mesh, data, weights = division.divide(read, data, weights, n_runs, devices)
    require_one_process(checkpoint, mesh)
    if checkpoint is not None:
        arguments = dict(model=given, data=data, weights=weights, tol=tol, key=key, params=params)
        arguments |= dict(devices=str(mesh)) if source is None else rows.described(data)
        kept = Checkpoint(checkpoint, arguments | options._asdict() | sizes)
    with over(mesh):
        with compiling():
            race, *fixed = _begun((given, data, weights, tol, key, params), options, sizes)
        if source is not None:
            starts, algorithm, sampled, _ = fixed
            race = out_of_core.advance(race, starts, algorithm, sampled, rows, progress, kept)
            result = _explained(_as_fit(algorithm, race, _so_far(race), sampled), fixed)
        else:
            race = race if kept is None else kept.restored(race)
            race, winner, result = _advance_in_slices(race, fixed, progress, kept)
            climb = lambda race: _advance_in_slices(race, fixed, False)
            if read.may_have_saddles:
                look = lambda race: _advance(*fixed, SHAKEN_SWEEPS, np.bool_(False), race=race)[0]
                own = jax.random.fold_in(key, n_restarts)
                result = leave_saddles(result, winner, race, fixed[1], data, own, look, climb)
            if search:
                own = jax.random.fold_in(key, n_restarts + 1)
                result = search_moves(result, winner, race, fixed[1:], own, climb)
            result = division.gathered(_explained(result, fixed) if subject is model else result, mesh)
    result = dataclasses.replace(result, columns=columns)
    result.warn(stacklevel=2)
    return result


def _algorithm(
    given: Given, data: Data, weights: Array | None, tol: Given, options: Options
) -> tuple[Algorithm, Data]:
    """Return the algorithm of a model, or the given one, its model resolved; and the data of its steps."""
    own = isinstance(given, Algorithm)
    model = (given.model if own else given).resolve(data, weights)
    data = model.annotate(data, weights)
    if own:
        return dataclasses.replace(given, model=model), data
    return model.algorithm(data, options._replace(tol=tol)), data


def _start(
    given: Given, data: Data, weights: Array | None, tol: Given, key: Array, *, options: Options
) -> Params:
    """Return parameters for a run to start from."""
    algorithm, data = _algorithm(given, data, weights, tol, options)
    return algorithm.init(key, data, weights)


@functools.partial(jit_over_mesh, static=("options", "n_restarts", "more", "lanes", "max_iter"), quickly=True)
def _begin(
    given: Given,
    data: Data,
    weights: Array | None,
    tol: Given,
    key: Array,
    params: Params,
    *,
    options: Options,
    n_restarts: int,
    more: int,
    **sizes: int,
) -> tuple[Race, Tree, Algorithm, Tree]:
    """Do what comes before the first sweep in one program: each takes time and memory maps of its own."""

    def begun(
        data: Data, weights: Array | None, keys: Array, first: Array, given: tuple[Given, Given, Params]
    ) -> tuple[Race, Tree, Algorithm, Tree]:
        algorithm, annotated = _algorithm(given[0], data, weights, given[1], options)
        race, starts = begin(algorithm, keys, annotated, weights, given[2], first, **sizes)
        return race, starts, algorithm, emptied(annotated)

    keys = key[None] if n_restarts == 1 else jax.random.split(key, n_restarts)
    if more:  # after those that there are without
        keys = jnp.concatenate([keys, jax.random.split(jax.random.fold_in(key, n_restarts + 2), more)])
    alike = given
    if divided(ROWS) and not isinstance(given, Algorithm):  # whose states lie on the devices as those do
        alike = in_dtype(given, float_dtype(data)).algorithm(data, options._replace(tol=tol))
    return division.begin(begun, alike, data, weights, keys, (given, tol, params))


def _begun(
    given: tuple[Tree, ...], options: Options, sizes: dict[str, int]
) -> tuple[Race, Tree, Algorithm, Data, Array | None]:
    """Return a race that has begun, and what stays fixed in it: starts, algorithm, data and weights."""
    race, starts, algorithm, beside = _begin(*given, options=options, **sizes)
    _, data, weights, *_ = given
    return race, starts, algorithm, refilled(beside, data), weights


def _go_on(
    starts: Tree,
    algorithm: Algorithm,
    data: Data,
    weights: Array | None,
    turns: Array,
    stop: Array,
    race: Race,
) -> tuple[Race, _SoFar, Array]:
    """Go on for so many turns; the fit as it then stands, and how many runs have ended."""
    race = division.advance(race, starts, algorithm, data, weights, turns, stop)
    merged = division.merged(race)
    going = merged.run < race.runs.objective.shape[-1]
    ended = merged.next_run.sum(dtype=jnp.int32) - going.sum(dtype=jnp.int32)
    return race, _so_far(merged), ended


def _so_far(race: Race) -> _SoFar:
    runs, best = race.runs, race.best
    return _SoFar(
        run=best.run,
        objective=runs.objective[best.run],
        n_iter=runs.n_iter[best.run],
        status=runs.status[best.run],
    )


_advance = jit_over_mesh(_go_on, donate=("race",))  # a slice does not copy the table of the runs


@jit
def _finish(race: Race, starts: Tree, algorithm: Algorithm, data: Data, weights: Array | None) -> Fit:
    """Run a race that has begun to its end, inside jit and vmap, and return the fit."""
    turns, stop = jnp.asarray(_NO_LIMIT), jnp.asarray(False)
    race, so_far, _ = irreversible(_go_on(starts, algorithm, data, weights, turns, stop, race))
    return _as_fit(algorithm, race, so_far, data)


_merged = jit_over_mesh(division.merged, quickly=True)


def _as_fit(algorithm: Algorithm, race: Race, so_far: _SoFar, data: Data) -> Fit:
    race = _merged(race) if divided(RUNS) else race
    return Fit(
        model=algorithm.model,
        params=race.best.params,
        objective=so_far.objective,
        n_iter=so_far.n_iter,
        runs=race.runs,
        full_trace=race.best.trace,
        status_code=so_far.status,
        diagnostics=algorithm.model.diagnose(race.best.params, data),
        gain_left=race.best.gain_left,
    )


def _explained(result: Fit, fixed: Tree) -> Fit:
    """Return the fit; where it is not finite for a known reason, raise an error that says it."""
    if result.status == Status.NON_FINITE:
        starts, algorithm, *rows = fixed
        algorithm.explain(jax.tree.map(lambda x: x[0], starts), *rows)
    return result


def _advance_in_slices(
    race: Race, fixed: Tree, progress: bool, kept: Checkpoint | None = None
) -> tuple[Race, int, Fit]:
    """Call the same compiled loop again and again, so that the host can look up between slices.

    Ctrl-C while the first slice is being compiled is an error, later the end of all runs.

    Returns:
        The race, the number of its best run, and the fit.
    """
    n_restarts, turns, begun = race.runs.objective.size, 16, time.perf_counter()
    with compiling():
        race, so_far, count = _advance(*fixed, np.int32(turns), np.bool_(False), race=race)
    with progress_bar(progress, "fit", n_restarts) as show:
        while True:
            try:
                ended = int(count)  # waits for the slice
                if progress:
                    show(ended, f"best objective {float(so_far.objective):.6g}" if ended else "")
                if kept is not None:
                    kept.keep(race, now=ended == n_restarts)
                if ended == n_restarts:
                    break
                turns, begun = next_slice(turns, begun), time.perf_counter()
                race, so_far, count = _advance(*fixed, np.int32(turns), np.bool_(False), race=race)
            except KeyboardInterrupt:
                # deleted in the moment between a slice's beginning and its having a name
                if race.run.is_deleted() or in_several_processes():
                    raise
                if kept is not None:
                    kept.keep(race, now=True)
                race, so_far, _ = _advance(*fixed, _NO_LIMIT, np.bool_(True), race=race)
                break
    return race, int(so_far.run), _as_fit(fixed[1], race, so_far, fixed[2])
