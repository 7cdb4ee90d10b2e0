"""Natural-gradient steps of stochastic variational inference, on a minibatch that stands for all rows.

Made by the two loops over minibatches, of arrays (stochastic.py) and of a stream (streams.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.core.contracts import Status
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import expectation
from vbjax.families.base import State
from vbjax.inference.resolution import read_params
from vbjax.inference.restarts import Runs
from vbjax.inference.result import Fit
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_number
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data

Number: TypeAlias = float | np.float32 | Array
Rates: TypeAlias = tuple[Number, Number]  # delay and forgetting of rho_t = (t + delay)^-forgetting


def read_rates(delay: Number, forgetting: Number) -> Rates:
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


def read_start(
    model: ConjugateModel, data: Data, key: Array, params: Mapping[str, State] | None
) -> Record | None:
    """Return given parameters like those that a fit to some data starts from; None stays None."""
    if params is None:
        return None
    return read_params(params, jax.eval_shape(start, model, data, None, key, None)[1])


def start(
    model: ConjugateModel, data: Data, weights: Float[Array, " n"] | None, key: Array, params: Record | None
) -> tuple[ConjugateModel, Record, Data]:
    """Return the model resolved, the parameters to start from, drawn unless given, and the annotated data."""
    model = model.resolve(data, weights)
    data = model.annotate(data, weights)
    params = Record(model.init(key, data, weights)) if params is None else params
    # without weak types, which would change at the first step
    return model, jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype), params), data


def natural_step(
    model: ConjugateModel,
    params: Record,
    batch: Data,
    weights: Float[Array, " b"],
    t: ArrayLike,
    rates: Rates,
) -> tuple[Record, Float[Array, ""]]:
    """Score the parameters on a minibatch that stands for all rows, then make a natural-gradient step.

    Every block moves by eta <- (1 - rho_t) eta + rho_t eta_hat (Hoffman et al. 2013, figure 4), with
    rho_t = (t + delay)^-forgetting (eq. 26).

    Args:
        model: a resolved model.
        params: the parameters.
        batch: rows of the minibatch, this device's share of them.
        weights: how many rows each stands for.
        t: number of the step, from 1.
        rates: delay and forgetting.
    """
    total = expectation(model, params, batch, weights)
    objective = model.objective(params, total)
    t, delay, forgetting = (jnp.asarray(x, objective.dtype) for x in (t, *rates))
    rho = (t + delay) ** -forgetting
    return Record(sweep(model, params, batch, weights, total, rho=rho).params), objective


@jit
def make_fit(
    model: ConjugateModel,
    params: Record,
    trace: Float[Array, " n_steps"],
    objective: Float[Array, ""],
    n_iter: Int[Array, ""],
    ended: Bool[Array, ""],
) -> Fit:
    """Return the `Fit` of a single run of so many steps; it has not `ended` where it was interrupted."""
    status = jnp.where(ended, Status.MAX_ITER, Status.INTERRUPTED)
    status = jnp.where(jnp.isfinite(objective), status, Status.NON_FINITE).astype(jnp.int32)
    runs = Runs(*(x[None] for x in (objective, n_iter, status, model.singular(params), trace)))
    unknown = jnp.full_like(objective, jnp.nan)  # a score of a minibatch rises and falls
    return Fit(model, params, objective, n_iter, runs, trace, status, gain_left=unknown)
