"""Stochastic variational inference: natural-gradient steps on minibatches (Hoffman et al. 2013).

A step computes the coordinate update that the whole data would give if they were copies of a minibatch, and
moves the natural parameters a part rho of the way towards it. With rho = 1 and all rows it is the coordinate
update. Minibatches come from arrays, drawn inside one compiled loop, or one after the other (streams.py).
Where they are large, every device has its share of all rows, and of each minibatch. Knows no model.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int

from vbjax.core.devices import (
    ROWS,
    WHOLE,
    deal_rows,
    in_several_processes,
    jit_over_mesh,
    n_shares,
    numbers_here,
    over,
    read_devices,
)
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.ragged import Ragged, parts_of
from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.sources import Source
from vbjax.families.base import State
from vbjax.inference import division
from vbjax.inference.checkpoints import Checkpoint, require_one_process
from vbjax.inference.interrupts import compiling, next_slice
from vbjax.inference.irreversible import irreversible
from vbjax.inference.natural_gradient import Rates, make_fit, natural_step, read_rates, read_start, start
from vbjax.inference.resolution import emptied, read_data, refilled
from vbjax.inference.result import Fit
from vbjax.inference.streams import from_stream, stream_of
from vbjax.numerics.inputs import is_concrete, read_count, read_flag, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree


def fit_stochastic(
    model: ConjugateModel,
    data: Data,
    *,
    key: Array,
    batch_size: int = 256,
    n_epochs: int = 10,
    delay: float = 1.0,
    forgetting: float = 0.7,
    total_rows: int | None = None,
    params: Mapping[str, State] | None = None,
    progress: bool = False,
    devices: Sequence[jax.Device] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Fit:
    """Fit a conjugate model by stochastic variational inference on minibatches.

    At step t = 1, 2, ... every factor's natural parameter moves to (1 - rho_t) eta + rho_t eta_hat, where
    eta_hat is its optimum for a minibatch whose rows stand for all rows, and rho_t = (t + delay)^-forgetting
    (Hoffman et al. 2013, figure 4 and eq. 26). Of points (EM, MAP) the statistics are averaged, and they are
    the maximum: stepwise EM (Cappe & Moulines 2009).

    Args:
        model: any conjugate model.
        data: as `fit` takes them; or an iterator of minibatches (each as `fit` takes data, all of one number
            of rows but for the last), read once from beginning to end. Hyperparameters that follow the data
            then follow the first minibatch: give them, or a resolved model, to be exact. A minibatch may have
            longer documents than those before it, at the price of a new compilation. A source (`vb.sources`)
            gives minibatches in its own order, the same in each epoch.
        key: `jax.random.key(...)`, for the start and the order of the rows.
        batch_size: number of rows in a minibatch. Each epoch takes all rows in a new order, and drops the few
            that do not fill a minibatch. A minibatch of documents has some of every length, and roughly
            this number.
        n_epochs: number of passes over the data; an iterator is read once.
        delay: at least 0; a larger delay makes the first steps smaller.
        forgetting: between 0.5 (excluded) and 1, for the rates of Robbins and Monro; 0 for whole steps.
        total_rows: number of rows of the whole data, for an iterator.
        params: parameters to start from.
        progress: show a progress bar of the minibatches of an iterator. Ctrl-C ends the fit early in any
            case.
        devices: those that may be used, by default all of this process. Minibatches are divided over them
            where they are large; every device then has its share of the rows of arrays.
        checkpoint: a directory where the fit keeps what it has reached, every 30 seconds, at Ctrl-C and at
            its end. Called again with the same arguments it goes on from there, to the same result. An
            iterator must then begin anew; of what it gives only the first minibatch is compared. It needs the
            extra `checkpoint`.

    Returns:
        A `Fit` of one run, whose trace holds each minibatch's estimate of the bound. The objective is
        exact, from one pass over the data at the end; from an iterator it is the mean of the last tenth
        of the trace. There is no test for convergence: the status is MAX_ITER, NON_FINITE or INTERRUPTED.

    Raises:
        ValueError: arguments that `fit` refuses; rates out of range; a minibatch of another shape; an
            iterator without `total_rows`, or without a minibatch.

    References:
        Hoffman, M., Blei, D., Wang, C. & Paisley, J. (2013), Stochastic variational inference, JMLR 14,
        figure 4 and eq. 26; Robbins & Monro (1951); Cappe, O. & Moulines, E. (2009), On-line
        expectation-maximization algorithm for latent data models, JRSS B 71, section 2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> model = vb.BayesianGaussianMixture(2)
    >>> fit = vb.fit_stochastic(model, x, key=jax.random.key(0), batch_size=64, n_epochs=30)
    >>> exact = vb.fit(model, x, key=jax.random.key(0))
    >>> bool(exact.objective - fit.objective < 5)
    True
    """
    require_model(model, data, "minibatches")
    key, progress = read_key(key), read_flag(progress, "progress")
    batch_size, n_epochs = read_count(batch_size, "batch_size"), read_count(n_epochs, "n_epochs")
    rates, devices = read_rates(delay, forgetting), read_devices(devices)
    if total_rows is not None:
        total_rows = read_count(total_rows, "total_rows")
    if isinstance(data, Iterator) != (total_rows is not None):
        raise ValueError(
            "total_rows must be given for an iterator: its minibatches stand for all rows"
            if total_rows is None
            else "total_rows is for an iterator of minibatches; of arrays the rows are counted"
        )
    options = dict(key=key, params=params, rates=rates, batch_size=batch_size, n_epochs=n_epochs)
    streamed = isinstance(data, (Iterator, Source))
    if checkpoint is not None and not is_concrete((model, None if streamed else data, options)):
        raise ValueError("checkpoint must be None inside jit and vmap, where a fit cannot be kept")
    if streamed:
        stream = stream_of(data, total_rows, batch_size, n_epochs)
        return from_stream(model, stream, options, devices, checkpoint, progress)
    return _from_arrays(model, data, options, devices, checkpoint)


class _Plan(NamedTuple):
    """Numbers of the minibatches of arrays.

    Attributes:
        totals: numbers of rows, of every part.
        takes: numbers of those in a minibatch.
        n_batches: number of minibatches in an epoch.
        n_epochs: number of epochs.
    """

    totals: tuple[int, ...]
    takes: tuple[int, ...]
    n_batches: int
    n_epochs: int

    @property
    def n_steps(self) -> int:
        return self.n_batches * self.n_epochs


class _Steps(NamedTuple):
    """Progress of a fit to arrays.

    Attributes:
        params: the parameters.
        t: number of steps made.
        order: of every part of the data, the numbers of the rows of each minibatch of this epoch.
        trace: objective of every step, NaN where it has not been made.
    """

    params: Record
    t: Int[Array, ""]
    order: tuple[Int[Array, "n_batches _"], ...]
    trace: Float[Array, " n_steps"]


def _from_arrays(
    model: ConjugateModel,
    data: Data,
    options: dict[str, Given],
    devices: Sequence[jax.Device],
    checkpoint: str | os.PathLike[str] | None,
) -> Fit:
    """Fit to minibatches of arrays."""
    model, data, _ = read_data(model, data, None)
    rates, (key_start, key_order) = options["rates"], jax.random.split(options["key"])
    params = read_start(model, data, key_start, options["params"])
    plan = _plan(data, options["batch_size"], options["n_epochs"])
    traced = not is_concrete((model, data, options))
    mesh, weights, kept = None, None, None
    if not traced:
        mesh, data, weights = division.divide_rows(data, None, devices, sum(plan.takes))
    require_one_process(checkpoint, mesh)
    if checkpoint is not None:
        kept = Checkpoint(checkpoint, dict(model=model, data=data, devices=str(mesh)) | options)
    with over(mesh):
        with compiling():
            model, steps, beside = _begin(model, data, weights, key_start, params, plan=plan)
        data = refilled(beside, data)
        if kept is not None:
            steps = kept.restored(steps)
        advance = functools.partial(_advance, model, data, weights, key_order, rates, plan=plan)
        if traced:
            steps = advance(np.int32(plan.n_steps), steps=steps)
        else:
            steps = _in_slices(advance, steps, plan, kept)
        objective = division.objective(model, steps.params, data, weights)
        fit = make_fit(model, steps.params, steps.trace, objective, steps.t, steps.t == plan.n_steps)
        return irreversible(fit) if traced else division.gathered(fit, mesh)


def _plan(data: Data, batch_size: int, n_epochs: int) -> _Plan:
    """Return minibatches of about so many rows; of ragged rows each has the same share of every part."""
    totals = tuple(map(n_rows, parts_of(data)))
    batch_size = min(batch_size, sum(totals))
    n_batches = sum(totals) // batch_size
    ragged = isinstance(data, Ragged)
    takes = tuple(total // n_batches or 1 for total in totals) if ragged else (batch_size,)
    return _Plan(totals, takes, n_batches, n_epochs)


@functools.partial(jit_over_mesh, static=("plan",))
def _begin(
    model: ConjugateModel,
    data: Data,
    weights: Array | None,
    key: Array,
    params: Record | None,
    *,
    plan: _Plan,
) -> tuple[ConjugateModel, _Steps, Tree]:
    """Return the model resolved, a fit without a step, and what the model puts beside the rows."""

    def begun(
        data: Data, weights: Array | None, model: ConjugateModel, key: Array, params: Record | None
    ) -> tuple[ConjugateModel, _Steps, Tree]:
        model, params, annotated = start(model, data, weights, key, params)
        steps = _Steps(
            params=params,
            t=jnp.zeros((), jnp.int32),
            order=tuple(jnp.zeros((plan.n_batches, _shared(take)), jnp.int32) for take in plan.takes),
            trace=jnp.full(plan.n_steps, jnp.nan, float_dtype(params)),
        )
        return model, steps, emptied(annotated)

    out = WHOLE, WHOLE, PartitionSpec(ROWS)
    return division.on_shares(begun, data, weights, model, key, params, out=out)


def _shared(take: int) -> int:
    """Return a number of rows, and as many more as make their shares even."""
    return take + -take % n_shares()


@functools.partial(jit_over_mesh, static=("plan",), donate=("steps",))
def _advance(
    model: ConjugateModel,
    data: Data,
    weights: Array | None,
    key: Array,
    rates: Rates,
    until: ArrayLike,
    *,
    steps: _Steps,
    plan: _Plan,
) -> _Steps:
    """Make steps until there are so many."""

    def advanced(
        data: Data,
        _: Array | None,
        model: ConjugateModel,
        key: Array,
        rates: Rates,
        until: Array,
        steps: _Steps,
    ) -> _Steps:
        keys = jax.random.split(key, plan.n_epochs)
        weights = _weights(plan, float_dtype((steps.params, data)))

        def step(carry: tuple[Record, Array, Array], order: tuple[Array, ...]) -> tuple[Record, Array, Array]:
            params, t, trace = carry
            batch = _minibatch(data, [rows[t % plan.n_batches] for rows in order])
            params, objective = natural_step(model, params, batch, weights, t + 1, rates)
            return params, t + 1, trace.at[t].set(objective)

        def epoch(steps: _Steps) -> _Steps:
            number = steps.t // plan.n_batches
            begins = steps.t % plan.n_batches == 0
            order = lax.cond(begins, lambda: _order(keys[number], plan), lambda: steps.order)
            end = jnp.minimum(until, (number + 1) * plan.n_batches)
            carry = steps.params, steps.t, steps.trace
            body = functools.partial(step, order=order)
            params, t, trace = lax.while_loop(lambda carry: carry[1] < end, body, carry)
            return _Steps(params, t, order, trace)

        return lax.while_loop(lambda steps: steps.t < until, epoch, steps)

    return division.on_shares(advanced, data, weights, model, key, rates, until, steps)


def _order(key: Array, plan: _Plan) -> tuple[Int[Array, "n_batches _"], ...]:
    """Draw the rows of all minibatches of an epoch; those of a small part take turns."""

    def rows(key: Array, total: int, take: int) -> Array:
        turns = jnp.arange(plan.n_batches * take) % total
        drawn = jax.random.permutation(key, total)[turns].reshape(plan.n_batches, take)
        even = jnp.pad(drawn, ((0, 0), (0, _shared(take) - take)), constant_values=-1)
        return even.astype(jnp.int32)

    keys = [key] if len(plan.totals) == 1 else jax.random.split(key, len(plan.totals))
    return tuple(map(rows, keys, plan.totals, plan.takes))


def _minibatch(data: Data, numbers: Sequence[Int[Array, " _"]]) -> Data:
    """Return this device's share of the rows of some numbers, of every part."""
    drawn = [deal_rows(part, rows) for part, rows in zip(parts_of(data), numbers, strict=True)]
    return data.only(drawn) if isinstance(data, Ragged) else drawn[0]


def _weights(plan: _Plan, dtype: DTypeLike) -> Float[Array, " b"]:
    """Return how many rows each row of this device's share of a minibatch stands for."""

    def of_part(total: int, take: int) -> Array:
        here = numbers_here(_shared(take) // n_shares()) < take
        return jnp.where(here, jnp.asarray(total / take, dtype), jnp.zeros((), dtype))

    return jnp.concatenate(list(map(of_part, plan.totals, plan.takes)))


def _in_slices(advance: Callable[..., _Steps], steps: _Steps, plan: _Plan, kept: Checkpoint | None) -> _Steps:
    """Make all steps, the host looking up now and then; Ctrl-C ends them at the last one of a slice."""
    turns, done, begun = 16, int(steps.t), time.perf_counter()
    go_on = lambda steps: advance(np.int32(min(done + turns, plan.n_steps)), steps=steps)
    with compiling():
        steps = go_on(steps)
    while True:
        try:
            done = int(steps.t)  # waits for the slice
            if kept is not None:
                kept.keep(steps, now=done == plan.n_steps)
            if done == plan.n_steps:
                return steps
            turns, begun = next_slice(turns, begun), time.perf_counter()
            steps = go_on(steps)
        except KeyboardInterrupt:
            # deleted in the moment between a slice's beginning and its having a name
            if steps.t.is_deleted() or in_several_processes():
                raise
            if kept is not None:
                kept.keep(steps, now=True)
            return steps
