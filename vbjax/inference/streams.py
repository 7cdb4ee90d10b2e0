"""Stochastic variational inference on minibatches that come one after the other: an iterator's, a source's.

The next one is read while the device works. Called by `fit_stochastic`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax.core.devices import in_several_processes, jit_over_mesh, over
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import Ragged
from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.sources import Source, ahead
from vbjax.inference import division
from vbjax.inference.checkpoints import Checkpoint, require_one_process
from vbjax.inference.interrupts import compiling
from vbjax.inference.natural_gradient import Rates, make_fit, natural_step, read_start, start
from vbjax.inference.progress import progress_bar
from vbjax.inference.resolution import read_data
from vbjax.inference.result import Fit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree


class Stream(NamedTuple):
    """Minibatches to be read once.

    Attributes:
        first: the first of them; None where there is none.
        numbered: of a number of steps that have been made already; yields the minibatches with their numbers
            from 0, from one on that is not behind those steps.
        n_rows: number of rows that they stand for.
    """

    first: Data
    numbered: Callable[[int], Iterator[tuple[int, Data]]]
    n_rows: int


def stream_of(
    data: Iterator[Data] | Source, total_rows: int | None, batch_size: int, n_epochs: int
) -> Stream:
    """Return the minibatches of an iterator, or those of so many epochs of a source."""
    if isinstance(data, Iterator):
        first = next(data, None)
        return Stream(first, lambda _: enumerate(itertools.chain([first], data)), cast(int, total_rows))
    each = -(-data.n_rows // batch_size)

    def numbered(done: int) -> Iterator[tuple[int, Data]]:
        for epoch in range(done // each, n_epochs):
            for number, block in enumerate(data.blocks(batch_size), epoch * each):
                yield number, block.rows

    return Stream(next((block.rows for block in data.blocks(batch_size)), None), numbered, data.n_rows)


class _Reader:
    """Reader that brings minibatches into the shape of the first, and onto the devices that share them."""

    def __init__(self, model: ConjugateModel, first: Data, devices: Sequence[jax.Device]) -> None:
        self.mesh, self.first, self.weights = division.divide_rows(first, None, devices)
        self._model, self._shapes = model, jax.tree.map(jnp.shape, first)
        self._like = self.first if isinstance(first, Ragged) else first
        self._size = n_rows(self._like)

    def read(self, batch: Data) -> tuple[Data, Bool[Array, " b"], int]:
        """Return a minibatch, a short one padded; which of its rows are not padding, and how many."""
        batch = self._model.read(batch)
        missing = max(self._size - n_rows(batch), 0)
        if isinstance(batch, Ragged):
            self._like = batch = batch.in_parts_of(self._like)
        else:
            batch = jax.tree.map(lambda x: jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))), batch)
            got = jax.tree.map(jnp.shape, batch)
            if jax.tree.flatten(got) != jax.tree.flatten(self._shapes):
                raise ValueError(
                    f"minibatches must have the first one's shapes {self._shapes}, or fewer rows; got {got}"
                )
            self._model.inspect(batch)  # its values too, which the first minibatch does not vouch for
        n = self._size - missing
        present: Any = jnp.arange(self._size) < n
        if self.mesh is not None:
            batch, present = division.place_rows(batch, present, self.mesh)
        return batch, present, n


class _Reached(NamedTuple):
    """The parameters after some steps, and the objective at each."""

    params: Record
    trace: Array | np.ndarray


def from_stream(
    model: ConjugateModel,
    stream: Stream,
    options: dict[str, Given],
    devices: Sequence[jax.Device],
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
) -> Fit:
    """Fit to minibatches that are read one after the other."""
    if stream.first is None:
        raise ValueError("data must give at least one minibatch; the iterator is empty")
    key, rates = options["key"], options["rates"]
    model, first, _ = read_data(model, stream.first, None)
    params = read_start(model, first, key, options["params"])
    reader, kept = _Reader(model, first, devices), None
    require_one_process(checkpoint, reader.mesh)
    if checkpoint is not None:
        arguments = dict(model=model, data=first, total_rows=stream.n_rows, devices=str(reader.mesh))
        kept = Checkpoint(checkpoint, arguments | options)
    with over(reader.mesh):
        with compiling():
            model, params = _begin(model, reader.first, reader.weights, key, params)
        reached = _Reached(params, jnp.zeros(0, float_dtype(params)))
        if kept is not None:
            reached = kept.restored(reached)
        reached, ended = _make_steps(model, reached, stream, reader, rates, kept, progress)
        objective = reached.trace[-max(1, len(reached.trace) // 10) :].mean()
        n_iter = np.int32(len(reached.trace))
        return division.gathered(make_fit(model, *reached, objective, n_iter, ended), reader.mesh)


@jit_over_mesh
def _begin(
    model: ConjugateModel, first: Data, weights: Float[Array, " b"] | None, key: Array, params: Record | None
) -> tuple[ConjugateModel, Record]:
    def begun(
        first: Data, weights: Array | None, model: ConjugateModel, key: Array, params: Record | None
    ) -> tuple[ConjugateModel, Record]:
        return start(model, first, weights, key, params)[:2]

    return division.on_shares(begun, first, weights, model, key, params)


def _make_steps(
    model: ConjugateModel,
    reached: _Reached,
    stream: Stream,
    reader: _Reader,
    rates: Rates,
    kept: Checkpoint | None,
    progress: bool,
) -> tuple[_Reached, bool]:
    """Make a step on every minibatch that is left; return what is reached, and whether that is the end.

    Ctrl-C ends it at the last step that is whole.
    """
    trace, ended = list(np.asarray(reached.trace)), False
    done = reached.params, len(trace)  # one name, so that Ctrl-C finds what belongs together
    so_far = lambda: _Reached(done[0], np.array(jax.device_get(trace[: done[1]])))
    try:
        with progress_bar(progress, "batch") as show:
            for number, batch in ahead(stream.numbered(done[1])):  # reads on while a step runs
                rows, present, n = reader.read(batch)
                if number < done[1]:
                    continue
                share = np.float64(stream.n_rows / n)
                params, objective = _step(model, done[0], rows, present, share, np.int32(number + 1), rates)
                trace.append(objective)
                done = params, number + 1
                show(done[1])
                if kept is not None and kept.due:
                    kept.keep(so_far())
        ended = True
    except KeyboardInterrupt:
        if not done[1] or in_several_processes():
            raise
    if kept is not None:
        kept.keep(so_far(), now=True)
    return _Reached(done[0], jnp.stack(trace[: done[1]])), ended


@jit_over_mesh
def _step(
    model: ConjugateModel,
    params: Record,
    batch: Data,
    present: Bool[Array, " b"],
    share: ArrayLike,
    t: ArrayLike,
    rates: Rates,
) -> tuple[Record, Float[Array, ""]]:
    """Make a step on the rows of a minibatch that are present, each of which stands for a `share` of all."""

    def stepped(
        batch: Data, present: Array, model: ConjugateModel, params: Record, share: Array, *how: Tree
    ) -> tuple[Record, Float[Array, ""]]:
        weights = jnp.where(present, share, 0).astype(float_dtype((params, batch)))
        return natural_step(model, params, batch, weights, *how)

    return division.on_shares(stepped, batch, present, model, params, share, t, rates)
