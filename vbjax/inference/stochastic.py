"""Stochastic variational inference: natural-gradient steps on minibatches (Hoffman et al. 2013).

A step computes the coordinate update that the whole data would give if they were copies of a minibatch, and
moves the natural parameters a part rho of the way towards it. With rho = 1 and all rows it is the coordinate
update. Minibatches come from arrays, drawn inside one compiled scan, or from an iterator (a file larger than
memory), in which case the next one is read while the device works. Imports core; knows no model.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.core.contracts import Status
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.ragged import Ragged
from vbjax.core.rows import expectation, float_dtype, n_rows
from vbjax.data.sources import Source, ahead
from vbjax.families.base import State
from vbjax.inference.progress import progress_bar
from vbjax.inference.resolution import read_params, resolved
from vbjax.inference.restarts import Runs
from vbjax.inference.result import Fit
from vbjax.numerics.inputs import is_concrete, read_count, read_flag, read_key, read_number
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data

Number: TypeAlias = float | np.float32 | Array
Rates: TypeAlias = tuple[Number, Number]  # delay and forgetting of rho_t = (t + delay)^-forgetting


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
        progress: show a progress bar of the minibatches of an iterator.

    Returns:
        A `Fit` of one run, whose trace holds each minibatch's estimate of the bound. The objective is
        exact, from one pass over the data at the end; from an iterator it is the mean of the last tenth
        of the trace. There is no test for convergence: the status is MAX_ITER, or NON_FINITE.

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
    rates = _read_rates(delay, forgetting)
    if total_rows is not None:
        total_rows = read_count(total_rows, "total_rows")
    if isinstance(data, Iterator):
        if total_rows is None:
            raise ValueError("total_rows must be given for an iterator: its minibatches stand for all rows")
        return _from_iterator(model, data, key, rates, total_rows, params, progress)
    if total_rows is not None:
        raise ValueError("total_rows is for an iterator of minibatches; of arrays the rows are counted")
    if isinstance(data, Source):
        batches = (block.rows for _ in range(n_epochs) for block in data.blocks(batch_size))
        return _from_iterator(model, batches, key, rates, data.n_rows, params, progress)
    model, data, _ = resolved(model, data, None)
    key_start, key_order = jax.random.split(key)
    params = _start(model, key_start, data, params)
    sizes = dict(batch_size=min(batch_size, n_rows(data)), n_epochs=n_epochs)
    params, objective, trace = _from_arrays(model, params, data, key_order, rates, **sizes)
    return _make_fit(model, params, objective, trace)


def _read_rates(delay: Number, forgetting: Number) -> Rates:
    """Return the two numbers of the step sizes, in float32 where they are known.

    Raises:
        ValueError: numbers out of range.
    """
    delay, forgetting = read_number(delay, "delay"), read_number(forgetting, "forgetting")
    if not is_concrete((delay, forgetting)):
        return delay, forgetting
    if not (forgetting == 0 or 0.5 < forgetting <= 1):
        raise ValueError(f"forgetting must be between 0.5 (excluded) and 1, or 0; got {forgetting!r}")
    if delay > float(np.finfo(np.float32).max):
        raise ValueError(f"delay must be a number that float32 holds; got {delay!r}")
    return np.float32(delay), np.float32(forgetting)


@functools.partial(jax.jit, static_argnames=("batch_size", "n_epochs"))
def _from_arrays(
    model: ConjugateModel,
    params: Record,
    data: Data,
    key: Array,
    rates: Rates,
    *,
    batch_size: int,
    n_epochs: int,
) -> tuple[Record, Float[Array, ""], Float[Array, " n_steps"]]:
    """Make all steps on minibatches of arrays; return parameters, objective and trace."""
    n = n_rows(data)
    ragged = isinstance(data, Ragged)
    parts = data.parts if ragged else (data,)
    n_batches = n // batch_size
    # a minibatch of ragged rows has the same share of every part; the rows of a small part take turns
    sizes = (
        [(n_rows(part), n_rows(part) // n_batches or 1) for part in parts] if ragged else [(n, batch_size)]
    )
    stands_for = [jnp.full(take, total / take, float_dtype((params, data))) for total, take in sizes]
    weights = jnp.concatenate(stands_for) if ragged else None

    def step(carry: tuple[Record, Array], rows: list[Array]) -> tuple[tuple[Record, Array], Array]:
        params, t = carry
        drawn = tuple(jax.tree.map(lambda x, r=r: x[r], p) for p, r in zip(parts, rows, strict=True))
        batch = data.only(drawn) if ragged else drawn[0]
        params, objective = _step(model, params, batch, weights, n, t, rates)
        return (params, t + 1), objective

    def epoch(carry: tuple[Record, Array], key: Array) -> tuple[tuple[Record, Array], Array]:
        def places(key: Array, total: int, take: int) -> Int[Array, "n_batches take"]:
            turns = jnp.arange(n_batches * take) % total
            return jax.random.permutation(key, total)[turns].reshape(n_batches, take)

        keys = jax.random.split(key, len(parts)) if ragged else [key]
        return jax.lax.scan(step, carry, [places(k, *size) for k, size in zip(keys, sizes, strict=True)])

    start = params, jnp.ones((), jnp.int32)
    (params, _), trace = jax.lax.scan(epoch, start, jax.random.split(key, n_epochs))
    return params, model.objective(params, expectation(model, params, data)), trace.reshape(-1)


def _from_iterator(
    model: ConjugateModel,
    batches: Iterator[Data],
    key: Array,
    rates: Rates,
    n: int,
    params: Mapping[str, State] | None,
    progress: bool,
) -> Fit:
    """Fit to minibatches from an iterator that stand for n rows, reading one while the device works."""
    first = next(batches, None)
    if first is None:
        raise ValueError("data must give at least one minibatch; the iterator is empty")
    model, first = resolved(model, first, None)[0], model.read(first)
    params = _start(model, key, first, params)
    size, shapes, like = n_rows(first), jax.tree.map(jnp.shape, first), first

    def read(batch: Data) -> tuple[Data, Bool[Array, " size"]]:
        """Return a minibatch of `size` rows, a short one padded, and which of its rows are not padding."""
        nonlocal like
        batch = model.read(batch)
        missing = max(size - n_rows(batch), 0)
        if isinstance(batch, Ragged):
            like = batch.in_parts_of(like)
            return like, jnp.arange(size) < size - missing
        batch = jax.tree.map(lambda x: jnp.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))), batch)
        got = jax.tree.map(jnp.shape, batch)
        if jax.tree.flatten(got) != jax.tree.flatten(shapes):
            raise ValueError(
                f"minibatches must have the first one's shapes {shapes}, or fewer rows; got {got}"
            )
        model.inspect(batch)  # its values too, which the first minibatch does not vouch for
        return batch, jnp.arange(size) < size - missing

    trace: list[Array] = []
    with progress_bar(progress, "batch") as show:
        for batch in ahead(itertools.chain([first], batches)):  # reads on while a step runs
            t = np.int32(len(trace) + 1)
            params, objective = _weighted_step(model, params, read(batch), np.int32(n), t, rates)
            trace.append(objective)
            show(len(trace))
    values = jnp.stack(trace)
    return _make_fit(model, params, values[-max(1, len(trace) // 10) :].mean(), values)


@jax.jit
def _weighted_step(
    model: ConjugateModel,
    params: Record,
    batch: tuple[Data, Bool[Array, " b"]],
    n: ArrayLike,
    t: ArrayLike,
    rates: Rates,
) -> tuple[Record, Float[Array, ""]]:
    """Make a step on the rows of a minibatch that are present."""
    rows, present = batch
    return _step(model, params, rows, present.astype(float_dtype((params, rows))), n, t, rates)


def _step(
    model: ConjugateModel,
    params: Record,
    batch: Data,
    weights: Float[Array, " b"] | None,
    n: ArrayLike,
    t: ArrayLike,
    rates: Rates,
) -> tuple[Record, Float[Array, ""]]:
    """Score the parameters on a minibatch that stands for n rows, then make a natural-gradient step.

    Every block moves by eta <- (1 - rho_t) eta + rho_t eta_hat (Hoffman et al. 2013, figure 4), with
    rho_t = (t + delay)^-forgetting (eq. 26).
    """
    present = jnp.ones(n_rows(batch), float_dtype((params, batch))) if weights is None else weights
    weights = present * (jnp.asarray(n, present.dtype) / present.sum())
    total = expectation(model, params, batch, weights)
    objective = model.objective(params, total)
    t, delay, forgetting = (jnp.asarray(x, objective.dtype) for x in (t, *rates))
    rho = (t + delay) ** -forgetting
    return Record(sweep(model, params, batch, weights, total, rho=rho).params), objective


def _start(model: ConjugateModel, key: Array, data: Data, params: Mapping[str, State] | None) -> Record:
    """Return the parameters to start from: those given, or the model's own random start."""
    if params is None:
        return _init(model, key, data)
    return read_params(params, jax.eval_shape(_init, model, key, data))


@jax.jit
def _init(model: ConjugateModel, key: Array, data: Data) -> Record:
    return Record(model.init(key, data))


@jax.jit
def _make_fit(
    model: ConjugateModel, params: Record, objective: Float[Array, ""], trace: Float[Array, " n_steps"]
) -> Fit:
    """Return the `Fit` of a single run that took all its steps."""
    status = jnp.where(jnp.isfinite(objective), Status.MAX_ITER, Status.NON_FINITE).astype(jnp.int32)
    n_iter, singular = jnp.asarray(len(trace), jnp.int32), model.singular(params)
    runs = Runs(*(x[None] for x in (objective, n_iter, status, singular, trace)))
    return Fit(model, params, objective, n_iter, runs, trace, status)
