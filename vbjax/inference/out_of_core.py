"""Fits to a source: exact EM and variational Bayes on rows that are never in memory all at once.

A pass reads the rows once and adds up the statistics of all runs, the next block being read and moved while
this one is computed. A sweep is a pass for every block of factors, as in core/coordinate_ascent.py, and the
runs are those of restarts.py. Called by `fit`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from tqdm import tqdm

from vbjax.core.contracts import Info, Status
from vbjax.core.coordinate_ascent import AscentState, CoordinateAscent
from vbjax.core.hyperparameters import read_hyperparameters
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.rows import Expectation, float_dtype, n_rows, sum_e_steps
from vbjax.data.sources import Block, Source, ahead
from vbjax.inference.restarts import Race, record
from vbjax.numerics.inputs import is_concrete, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree

_SAMPLED = 65_536  # rows from which defaults and starts are made


def sample(model: Any, source: Source, key: Array, params: Given, options: Mapping[str, Given]) -> Tree:
    """Return rows of a source, drawn without replacement in one pass: all of them, or 65,536.

    Args:
        model: one that is to be fitted, conjugate.
        source: what has the rows.
        key: for the draw.
        params: where the first run starts.
        options: those of `fit` that a fit to a source does not take, with what was given for them.

    Raises:
        ValueError: an option that is given; a model whose updates are not known from statistics alone; rows
            that the model refuses, by their place.
    """
    if given := [name for name, value in options.items() if value is not None and value is not False]:
        raise ValueError(
            f"{given[0]} must be left out where data come from a source: it takes arrays in memory"
        )
    require_model(model, source, "data from a source")
    model = read_hyperparameters(model)
    n = source.n_rows
    if not n or not is_concrete((model, key, params)):
        raise ValueError("data must be a source of at least one row, outside jit and vmap")
    seed = np.asarray(jax.random.bits(read_key(key), (4,), jnp.uint32))
    chosen = np.arange(n)
    if n > _SAMPLED:
        chosen = np.sort(np.random.default_rng(seed).choice(n, _SAMPLED, replace=False))
    parts, first = [], 0
    for rows in ahead(source):
        size = n_rows(rows)
        start, stop = np.searchsorted(chosen, (first, first + size))
        own = chosen[start:stop] - first
        parts.append(jax.tree.map(lambda x, own=own: x[own], rows))
        first += size
    rows = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    try:
        model.read(rows)
    except ValueError:
        for block in source.blocks():  # to say where it is
            _read(model, block)
        raise
    return rows


def _read(model: ConjugateModel, block: Block) -> Data:
    """Return a block as the model reads data.

    Raises:
        ValueError: what the model refuses; it names the piece of the source.
    """
    try:
        return model.read(block.rows)
    except ValueError as error:
        ends = [first for first, _ in block.places[1:]] + [None]
        for (first, place), end in zip(block.places, ends, strict=True):
            try:
                model.read(jax.tree.map(lambda x, rows=slice(first, end): x[rows], block.rows))
            except ValueError as own:
                raise ValueError(f"{place}: {own}") from None
        raise ValueError(f"{block.places[0][1]}: {error}") from None


def advance(race: Race, starts: Tree, algorithm: CoordinateAscent, source: Source, progress: bool) -> Race:
    """Advance all runs of a race that has a lane for each, sweep by sweep, until they have ended.

    Ctrl-C ends them at the last sweep that is whole.

    Raises:
        ValueError: a factor that is not conjugate; what a pass over the rows finds wrong with them.
    """
    algorithm.model.require_conjugate("an update from statistics alone")
    race, last = race._replace(state=race.state._replace(local=None)), None
    n_restarts = race.runs.objective.size
    try:
        with tqdm(unit="sweep", disable=not progress) as bar:
            while (active := np.asarray(race.run) < n_restarts).any():
                moved, info = _sweep(algorithm, race.state, jnp.asarray(active), source)
                last = race, moved, info, starts, algorithm
                race = _record(*last, np.bool_(False))
                bar.update()
                best = np.where(active, info.objective, -np.inf).max()
                bar.set_postfix_str(f"best objective of {active.sum()} runs {best:.6g}")
    except KeyboardInterrupt:
        if last is None:
            raise
        race = _record(*last, np.bool_(True))
    return race


@jax.jit
def _record(
    race: Race, moved: AscentState, info: Info, starts: Tree, algorithm: CoordinateAscent, stop: Array
) -> Race:
    return record(race, moved, info, starts, algorithm, None, stop)


def _sweep(
    algorithm: CoordinateAscent, state: AscentState, active: Array, source: Source
) -> tuple[AscentState, Info]:
    """Score the parameters of the active runs, and make a sweep: see `CoordinateAscent.step`."""
    model = algorithm.model
    total = _pass(model, state.params, active, source)
    info = _scored(algorithm, state, total)
    active &= info.status == Status.UNFINISHED
    params, first = state.params, True
    for block in model.blocks:
        if not first and bool(active.any()):
            total = _pass(model, params, active, source)
        params, first = _moved(model, params, total, block), False
    return AscentState(params, info.objective, None), info


@jax.jit
def _scored(algorithm: CoordinateAscent, state: AscentState, total: Expectation) -> Info:
    return jax.vmap(lambda state, total: algorithm.score(state, algorithm.model.collect(total)))(state, total)


@functools.partial(jax.jit, static_argnames="block")
def _moved(model: ConjugateModel, params: Record, total: Expectation, block: tuple[str, ...]) -> Record:
    def move(params: Record, total: Expectation) -> Record:
        return Record(model.m_step(params, model.collect(total).statistics, block))

    return jax.vmap(move)(params, total)


def _pass(model: ConjugateModel, params: Record, active: Array, source: Source) -> Expectation:
    """Add up the statistics of all active runs over the rows of a source, with a leading axis of runs."""
    size = min(source.block_rows, source.n_rows)
    total: Any = None
    for block in ahead(source.blocks()):
        rows, weights = _padded(_read(model, block), size)
        if total is None:
            like = jax.eval_shape(_sums, model, params, rows, weights)
            total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        jax.block_until_ready(total)  # no more than two blocks are in memory
        total = _add(model, params, active, rows, weights, total)
    return total


def _padded(rows: Data, size: int) -> tuple[Data, Array]:
    """Return rows, followed by rows of weight 0 where they are fewer than `size`, and their weights."""
    n, dtype = n_rows(rows), float_dtype(rows)
    if n < size:
        rows = jax.tree.map(lambda x: jnp.pad(x, ((0, size - n), *[(0, 0)] * (x.ndim - 1))), rows)
    return rows, jnp.asarray(np.arange(size) < n, dtype)


@jax.jit  # for its shapes, which are then looked up
def _sums(model: ConjugateModel, params: Record, rows: Data, weights: Array) -> Expectation:
    """Return what rows add to the statistics of every run."""
    rows = model.annotate(rows, weights)
    return lax.map(lambda own: sum_e_steps(model, model.prepare(own), rows, weights)[0], params)


@jax.jit  # gives nothing away: on a CPU it would then be waited for
def _add(
    model: ConjugateModel, params: Record, active: Array, rows: Data, weights: Array, total: Expectation
) -> Expectation:
    """Add what rows give to the statistics of the active runs, one run after the other."""
    rows = model.annotate(rows, weights)

    def run(own: tuple[Record, Array, Expectation]) -> Expectation:
        params, active, total = own

        def added(total: Expectation) -> Expectation:
            more = sum_e_steps(model, model.prepare(params), rows, weights)[0]
            return jax.tree.map(jnp.add, total, more)

        return lax.cond(active, added, lambda total: total, total)

    return lax.map(run, (params, active, total))
