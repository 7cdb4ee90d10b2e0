"""Sweeps of coordinate ascent in parts, for engines that hold the rows: Dask, Ray, Spark, a loop over files.

An engine maps `statistics` over blocks of rows, reduces them by `merge`, and makes the `update`. These are
pure functions of pytrees, compiled once for every shape. A model with its defaults filled in, and parameters
to start from, come from a fit of some rows: `fit.model` and `fit.params`.

The algebra: at fixed parameters

- `merge` is associative and commutative up to rounding; zeros in the shapes of some statistics are neutral;
- the statistics of rows are the merged statistics of their parts, however they are divided;
- `update` by the statistics of all rows is a step of coordinate ascent, and `objective` is `vb.elbo`.

>>> import functools, jax, vbjax as vb
>>> x = vb.datasets.old_faithful()
>>> start = vb.fit(vb.GaussianMixture(2), x[:100], key=jax.random.key(0), max_iter=1)
>>> model, params = start.model, start.params
>>> for sweep in range(100):
...     parts = [vb.engine.statistics(model, params, block) for block in (x[:136], x[136:])]
...     total = functools.reduce(vb.engine.merge, parts)
...     score, params = vb.engine.objective(model, params, total), vb.engine.update(model, params, total)
>>> print(f"{score:.2f}")
-1130.26
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.rows import Expectation, sum_e_steps
from vbjax.families.base import State
from vbjax.inference.derivatives import read_fitted
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import describe, read_count
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree

__all__ = ["merge", "objective", "statistics", "update"]


def statistics(
    model: ConjugateModel, params: Mapping[str, State], data: Data, weights: ArrayLike | None = None
) -> Expectation:
    """Compute what a block of rows adds to the statistics of all rows, at some parameters.

    Local factors that interact (topics and words) begin anew in every block and turn until they have settled:
    between sweeps nothing of the size of the data is kept.

    Args:
        model: with its defaults filled in (`fit.model`).
        params: states of its factors.
        data: a block of rows, as `fit` takes data.
        weights: (n,) row weights.

    Raises:
        ValueError: arguments that `fit` refuses; a model whose defaults are not filled in.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> start = vb.fit(vb.GaussianMixture(2), x[:100], key=jax.random.key(0), max_iter=1)
    >>> print(vb.engine.statistics(start.model, start.params, x[:136]).weight)  # rows
    136.0
    """
    require_model(model, params, "statistics of its rows")
    if data is None:
        raise ValueError("data must be a block of rows; got None")
    return _statistics(*read_fitted(model, params, data, weights, "statistics of its rows"))


@jit
def _statistics(
    model: ConjugateModel, params: Record, data: Data, weights: Float[Array, " n"] | None
) -> Expectation:
    with_defaults = jax.eval_shape(lambda m: m.resolve(data, weights), model)
    if _form(with_defaults)[0] != _form(model)[0]:
        raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
    return sum_e_steps(model, model.prepare(params), data, weights)[0]


def merge(a: Expectation, b: Expectation) -> Expectation:
    """Return the statistics of the rows of both, which are of one model at the same parameters.

    Raises:
        ValueError: what are no statistics, or not of one model.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> start = vb.fit(vb.GaussianMixture(2), x[:100], key=jax.random.key(0), max_iter=1)
    >>> parts = [vb.engine.statistics(start.model, start.params, block) for block in (x[:136], x[136:])]
    >>> print(vb.engine.merge(*parts).weight)  # rows
    272.0
    """
    for given, name in ((a, "a"), (b, "b")):
        _require_statistics(given, name)
    if _form(a) != _form(b):
        raise ValueError("a and b must be statistics of one model; their structures or shapes differ")
    return _merge(a, b)


def _form(tree: Tree) -> Tree:
    """Return structure and shapes of a tree."""
    return jax.tree.structure(tree), [jnp.shape(x) for x in jax.tree.leaves(tree)]


@jit
def _merge(a: Expectation, b: Expectation) -> Expectation:
    return jax.tree.map(jnp.add, a, b)


def _require_statistics(given: Expectation, name: str = "statistics") -> Expectation:
    """Return what has come from `statistics` or `merge`; raise a ValueError for anything else."""
    if isinstance(given, Expectation):
        return given
    raise ValueError(f"{name} must come from vb.engine.statistics or merge; got {describe(given)}")


def update(
    model: ConjugateModel, params: Mapping[str, State], statistics: Expectation, *, block: int | None = None
) -> Record:
    """Make the coordinate update by the statistics of all rows (Bishop 2006, eq. 10.9).

    Factors that depend on one another are in blocks, `model.blocks`, each of which is updated from statistics
    at the parameters that the block before it has left: a sweep of a model of two blocks is two passes.

    Args:
        model: with its defaults filled in.
        params: the parameters at which the statistics were made.
        statistics: of all rows.
        block: the number of the block of factors, from 0; it may be left out if there is only one.

    Returns:
        The next parameters.

    Raises:
        ValueError: a block that there is not, or none for a model of several; a factor that is not conjugate,
            whose steps must be scored by passes over the rows.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()[:136]
    >>> fit = vb.fit(vb.GaussianMixture(2), x[:100], key=jax.random.key(0), max_iter=1)
    >>> now = vb.engine.statistics(fit.model, fit.params, x)
    >>> params = vb.engine.update(fit.model, fit.params, now)
    >>> after = vb.engine.statistics(fit.model, params, x)
    >>> bool(vb.engine.objective(fit.model, params, after) > vb.engine.objective(fit.model, fit.params, now))
    True
    """
    require_model(model, params, "its updates")
    params = require_params(model, params)
    model.require_conjugate("an update from statistics alone")
    names = ", ".join(map(str, model.blocks))
    if block is None and len(model.blocks) > 1:
        raise ValueError(f"block must say which of {names} is updated, by its number from 0; got None")
    number = 0 if block is None else read_count(block, "block", least=0)
    if number >= len(model.blocks):
        raise ValueError(f"block must be a number below {len(model.blocks)}, of {names}; got {block}")
    return _update(model, params, _require_statistics(statistics), model.blocks[number])


@functools.partial(jit, static_argnames="block")
def _update(model: ConjugateModel, params: Record, statistics: Expectation, block: tuple[str, ...]) -> Record:
    return Record(model.m_step(params, model.collect(statistics).statistics, block))


def objective(
    model: ConjugateModel, params: Mapping[str, State], statistics: Expectation
) -> Float[Array, ""]:
    """Compute the objective of parameters from the statistics of all rows at them: `vb.elbo`.

    Args:
        model: with its defaults filled in.
        params: the parameters at which the statistics were made.
        statistics: of all rows.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.GaussianMixture(2), x[:100], key=jax.random.key(0), max_iter=1)
    >>> total = vb.engine.statistics(fit.model, fit.params, x[:100])
    >>> print(f"{abs(vb.engine.objective(fit.model, fit.params, total) - fit.objective):.2f}")
    0.00
    """
    require_model(model, params, "its objective")
    return _objective(model, require_params(model, params), _require_statistics(statistics))


@jit
def _objective(model: ConjugateModel, params: Record, statistics: Expectation) -> Float[Array, ""]:
    return model.objective(params, model.collect(statistics))
