"""Coordinate ascent, the algorithm of conjugate models: EM, k-means and mean-field variational Bayes.

A sweep updates every block of factors, each from its own pass over the rows. Models and drivers import this
file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax.core.contracts import Info, Status, judge
from vbjax.core.rows import Expectation, expectation, float_dtype, rounding_error
from vbjax.families.base import pytree, static
from vbjax.families.coordinates import first_improper_field
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import all_finite, read_flag, read_number
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel


class AscentState(NamedTuple):
    """Parameters, the objective of the parameters before them, and local factors if they interact."""

    params: Record
    objective: Float[Array, ""]
    local: Tree


@pytree
class CoordinateAscent:
    """EM, k-means and mean-field variational Bayes: coordinate updates of a conjugate model.

    Attributes:
        model: a resolved model.
        tol: a run has converged when the objective changes by at most `tol` times the model's unit (the rows'
            weight), or by no more than its rounding error.
        check: whether to update every factor on its own and score after each, not only after whole sweeps.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x, model = jnp.arange(5.0), vb.textbook.GaussianMeanPrecision().resolve(jnp.arange(5.0))
    >>> type(model.algorithm(x, vb.core.Options(1e-6))).__name__  # what `vb.fit` drives
    'CoordinateAscent'
    """

    model: ConjugateModel
    tol: Array
    check: bool = static(default=False)

    def inspect(self, data: Data) -> None:
        """Raise a ValueError for a `tol` that is no number or a `check` that is no flag."""
        read_number(self.tol, "tol")
        read_flag(self.check, "check")

    def init(
        self, key: Array, data: Data, weights: Float[Array, " n"] | None, number: ArrayLike = 0
    ) -> Record:
        """Draw the model's own random start."""
        return self.model.init_run(key, data, weights, number)

    def start(self, params: Record, data: Data) -> AscentState:
        """Return the state at given parameters."""
        objective = jnp.asarray(-jnp.inf, float_dtype(params))
        return AscentState(params, objective, self.model.start_locals(params, data))

    def state_specs(self, whole: Tree, rows: Tree) -> AscentState:
        """Return how a state lies on devices that each have a share of the rows."""
        return AscentState(whole, whole, rows)

    def step(
        self, state: AscentState, data: Data, weights: Float[Array, " n"] | None
    ) -> tuple[AscentState, Info]:
        """Score the parameters and sweep once; the pass that scores also serves the first block."""
        model, params = self.model, state.params
        total = expectation(model, params, data, weights, state.local)
        info = self.score(state, total)
        moved = sweep(model, params, data, weights, total, check=self.check)
        status = jnp.where(moved.fell, jnp.int32(Status.DECREASED), info.status)
        return AscentState(moved.params, info.objective, moved.local), info._replace(status=status)

    def score(self, state: AscentState, total: Expectation) -> Info:
        """Return objective and status of the state's parameters, given a pass over the rows at them."""
        objective, magnitude = self.model.scored(state.params, total)
        error = rounding_error(magnitude)
        status = judge(objective, state.objective, error, self.tol * self.model.unit(total))
        return Info(state.params, objective, error, status)

    def explain(self, params: Record, data: Data, weights: Float[Array, " n"] | None) -> None:
        """Raise a ValueError if data overflow, or a factor is improper."""
        explain(self.model, params, data, weights)


def explain(model: ConjugateModel, params: Record, data: Data, weights: Float[Array, " n"] | None) -> None:
    """Raise an error that says why results are not finite, if a known reason applies.

    Raises:
        ValueError: if squares of the data overflow, the prior density is not finite at such parameters, or
            prior and data leave a factor improper.
    """
    for x in jax.tree.leaves(data):
        if jnp.issubdtype(x.dtype, jnp.floating) and x.size:
            values = np.asarray(x).astype(float)
            largest = np.abs(values[np.isfinite(values)]).max(initial=0)
            if largest > np.sqrt(float(jnp.finfo(x.dtype).max) / x.size):
                wider = ", or use float64 (JAX_ENABLE_X64=1)" if x.dtype.itemsize < 8 else ""
                raise ValueError(
                    f"data must have squares that {x.dtype} can add up; the largest number is {largest:.3g}: "
                    f"change the unit{wider}"
                )
    params = Record(params)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(model)]
    names = ", ".join(jax.tree_util.keystr(path, simple=True, separator=".") for path in paths)
    prior = jit(lambda model, params: model.expected_log_prior(params))(model, params)
    if all_finite(params) and not jnp.isfinite(prior):
        raise ValueError(
            f"log_prior is {prior} where a fit begins: is a hyperparameter out of its range ({names})?"
        )
    moved = jit(sweep)(model, params, data, weights).params
    for name, state in moved.items():
        if field := first_improper_field(state):
            raise ValueError(
                f"the factor {name!r} ({model.factors[name]}) is improper: its prior and the data "
                f"leave it a {field} that is not positive. Give it a proper prior"
                + (f"; the hyperparameters are {names}" if names else "")
            )


class SweepResult(NamedTuple):
    """Outcome of a sweep.

    Attributes:
        params: the parameters after it.
        local: local factors, if they interact.
        fell: whether the update of a factor lowered the objective (looked at with `check`), or every step of
            a factor that is not conjugate did.
    """

    params: Record
    local: Tree
    fell: Bool[Array, ""]


def sweep(
    model: ConjugateModel,
    params: Record,
    data: Data,
    weights: Float[Array, " n"] | None,
    total: Expectation | None = None,
    pull: Record | None = None,
    rho: Array | None = None,
    check: bool = False,
) -> SweepResult:
    """Update every block of factors once, each from its own pass over the rows (Bishop 2006, eq. 10.9).

    Args:
        total: the first block's pass, if it has been made already.
        pull: a perturbation of the log joint, added to the gradient that the rows give.
        rho: how far to go in natural parameters; by default all the way.
        check: whether to update every factor on its own and score after each.
    """
    blocks = [(name,) for block in model.blocks for name in block] if check else model.blocks
    if total is None:
        total = expectation(model, params, data, weights)
    fell, last = jnp.asarray(False), blocks[-1]
    for block in blocks:
        before, statistics = total, total.statistics
        if pull is not None:
            statistics |= {name: jax.tree.map(jnp.add, statistics[name], pull[name]) for name in block}
        previous = Record(params)
        if rho is None and model.guarded(block):
            params, total, stuck = _climb(model, previous, data, weights, before, block)
            fell |= stuck
            continue
        if rho is None:
            params = model.m_step(previous, statistics, block)
        else:
            params = model.partial_step(previous, statistics, block, rho)
        if check or block != last:
            total = expectation(model, params, data, weights, before.local)
        if check:
            objective, magnitude = model.scored(params, total)
            fell |= objective < model.objective(previous, before) - rounding_error(magnitude)
    return SweepResult(params, total.local, fell)


_SHORTEST = 2.0**-20  # the shortest step that is tried


def _climb(
    model: ConjugateModel,
    params: Record,
    data: Data,
    weights: Float[Array, " n"] | None,
    before: Expectation,
    block: tuple[str, ...],
) -> tuple[Record, Expectation, Bool[Array, ""]]:
    """Take the longest step of a guarded block that keeps the objective from falling and its slope finite.

    Lengths 1, 1/4, 1/16, ... are tried in turn.

    Returns:
        The parameters, the pass over the rows that scored them, and whether there was no such step.
    """
    start, magnitude = model.scored(params, before)
    least = start - rounding_error(magnitude)

    def attempt(carry: tuple[Array, Record, Expectation, Array]) -> tuple[Array, Record, Expectation, Array]:
        rho, *stay, _ = carry
        moved = model.partial_step(params, before.statistics, block, rho)
        total = expectation(model, moved, data, weights, before.local)
        slope = model.total_gradient(model.expected(moved), total.statistics, block)
        fine = (model.objective(moved, total) >= least) & all_finite(slope)
        moved, total = jax.tree.map(lambda new, old: jnp.where(fine, new, old), (moved, total), tuple(stay))
        return rho / 4, moved, total, fine

    def going(carry: tuple[Array, Record, Expectation, Array]) -> Array:
        return ~carry[3] & (carry[0] > _SHORTEST)

    rho = jnp.ones_like(start)
    _, params, total, fine = lax.while_loop(going, attempt, (rho, params, before, jnp.asarray(False)))
    return params, total, ~fine & jnp.isfinite(start)
