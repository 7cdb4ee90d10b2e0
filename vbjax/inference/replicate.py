"""Draws from a fit: parameters from q, and replications of the whole data from the posterior predictive.

The conditional distribution of a row given all latents has, like that of any factor, the gradient of the log
joint in the row's own statistics as natural parameter. So a model that scores data can also draw them.
Imports core; knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.ragged import Ragged
from vbjax.core.rows import n_rows
from vbjax.families.base import Family, State, Statistics
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count, read_key, read_shape
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Params, Tree

Families: TypeAlias = Tree  # the data's tree with a `Family`, or None, in the place of each array


@runtime_checkable
class Redrawing(Protocol):
    """Conjugate model that draws its own rows."""

    def local(self, data: Data) -> Mapping[str, Family]: ...

    def posterior(self, params: Record, data: Data) -> Mapping[str, State]: ...

    def redraw(self, values: Record, local: Record, key: Array, data: Data) -> Data:
        """Draw rows like `data`, given values of the global factors and of the rows' local ones."""


def sample_posterior(params: Mapping[str, State], key: Array, n: int | tuple[int, ...] = ()) -> Record:
    """Draw all parameters from q, independently between factors.

    Args:
        params: states of the factors, `fit.params`.
        key: `jax.random.key(...)`.
        n: number of draws, or their shape.

    Returns:
        Values by factor, every array of shape (n, *plate, *event).

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> vb.sample_posterior(fit.params, jax.random.key(1), 10).mu.shape
    (10,)
    """
    if not isinstance(params, Mapping) or not all(isinstance(q, State) for q in params.values()):
        raise ValueError(f"params must be states by name, such as fit.params; got {type(params).__name__}")
    return _sample_posterior(Record(params), read_key(key), read_shape(n, "n"))


@functools.partial(jit, static_argnames="n")
def _sample_posterior(params: Record, key: Array, n: int | tuple[int, ...]) -> Record:
    keys = jax.random.split(key, len(params))
    return Record({name: q.sample(k, n) for (name, q), k in zip(params.items(), keys, strict=True)})


def replicate(
    model: ConjugateModel,
    params: Mapping[str, State],
    data: Data,
    observed: Families = None,
    *,
    key: Array,
    n_draws: int = 1,
) -> Data:
    """Draw posterior predictive replications of the data, for criticism of the model.

    For every draw, take parameters from q, each row's local latents from q given the row, and the row from
    its distribution given both (Gelman, Meng & Stern 1996, section 2.3, mixed replications). Mixtures, hidden
    Markov models, regressions and factor models know what their rows are drawn from; for any other model
    `observed` says so.

    Args:
        model, params: those of a fit.
        data: the data of the fit.
        observed: a tree like the data. In the place of an array that is drawn stands the family of one row;
            None in the place of an array that stays. `vb.Normal()` for a column; `(None, vb.Normal())` for y
            of (x, y). Leave it out for the models named above; then every entry is drawn but those that are
            missing, the totals of multinomial rows, and the x of a regression.
        key: `jax.random.key(...)`.
        n_draws: number of data sets.

    Returns:
        The data with the drawn arrays in place, each with a leading axis of `n_draws`. A hidden Markov model
        gives an array (n_draws, t, ...) for one sequence, and a list of such arrays for several; an
        autoregressive one draws every step given the steps before it in the data.

    Raises:
        ValueError: `observed` that does not fit the data, or is left out where the model does not draw its
            data; a log likelihood that does not take the statistics of the family for the array.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> vb.replicate(fit.model, fit.params, x, vb.Normal(), key=jax.random.key(1), n_draws=5).shape
    (5, 3)
    """
    require_model(model, params, "drawing its rows")
    if observed is None and not model.draws_data:
        raise ValueError(
            "observed must hold a family for each array of data that is to be drawn, None for what stays; "
            f"a {type(model).__name__} does not draw its data by itself"
        )
    n_draws, key, params = read_count(n_draws, "n_draws"), read_key(key), _read_params(model, params)
    if observed is None:
        return model.replicate(params, key, data, n_draws)
    data = model.read(data)
    if isinstance(data, Ragged):
        raise ValueError(f"data must be arrays where observed says what is drawn; got {type(data).__name__}")
    leaves, structure = jax.tree.flatten(data)
    is_family = lambda x: x is None or isinstance(x, Family)
    families, given = jax.tree.flatten(observed, is_leaf=is_family)
    if str(given) != str(structure) or not all(map(is_family, families)) or not any(families):
        raise ValueError(
            f"observed must hold a family, or None, for each array of data, {structure}; got {observed}"
        )
    drawn = tuple(f and f.repeated(n_rows(data)) for f in families)
    try:
        fresh = _replicate(model, params, leaves, key, structure, drawn, n_draws)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "observed must be of families whose statistics log_likelihood takes in the place of data; got "
            f"{observed}: {error}"
        ) from None
    both = zip(leaves, fresh, drawn, strict=True)
    return jax.tree.unflatten(structure, [new if f else old for old, new, f in both])


def _read_params(model: ConjugateModel, params: Mapping[str, State]) -> Record:
    """Return parameters of the model's factors.

    Raises:
        ValueError: parameters of another model, or with a NaN.
    """
    params = require_params(model, params)
    if is_concrete(params) and any(np.isnan(np.asarray(x)).any() for x in jax.tree.leaves(params)):
        raise ValueError("params must be numbers; they have a NaN")
    return params


def require_simulation(model: Any, params: Params, data: Data) -> None:
    """Raise a ValueError unless the model simulates data of the structure and shapes of these."""
    shapes = lambda x: (jax.tree.structure(x), [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(x)])
    try:
        same = shapes(jax.eval_shape(model.simulate, params, jax.random.key(0), data)) == shapes(data)
    except (AttributeError, TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(f"a {type(model).__name__} does not draw whole rows such as those of the data")


@functools.partial(jit, static_argnames="n_draws")
def redraw_data(model: Redrawing, params: Record, key: Array, data: Data, n_draws: int) -> Data:
    """Draw replications of data that have been read, by the model's own `redraw`; draws lead the shape."""
    own = model.posterior(params, data) if model.local(data) else Record()  # common to all draws

    def draw(key: Array) -> Data:
        keys = jax.random.split(key, 3)
        values = _sample_posterior(params, keys[0], ())
        local = _sample_posterior(own, keys[1], ()) if own else Record()
        return restore_missing(model.redraw(values, local, keys[2], data), data)

    return jax.lax.map(draw, jax.random.split(key, n_draws))


def restore_missing(drawn: Data, rows: Data) -> Data:
    """Return drawn rows with NaN at the entries that are NaN in the rows."""
    import chex  # here, not above: it takes a tenth of the time of `import vbjax`

    chex.assert_trees_all_equal_shapes(drawn, rows)

    def restore(new: Array, old: Array) -> Array:
        return jnp.where(jnp.isnan(old), old, new) if jnp.issubdtype(old.dtype, jnp.floating) else new

    return jax.tree.map(restore, drawn, rows)


@functools.partial(jit, static_argnames=("structure", "families", "n_draws"))
def _replicate(
    model: ConjugateModel,
    params: Record,
    leaves: list[Array],
    key: Array,
    structure: jax.tree_util.PyTreeDef,
    families: tuple[Family | None, ...],
    n_draws: int,
) -> list[Array | None]:
    """Draw the arrays of the data that have a family; None in the place of others."""
    data = jax.tree.unflatten(structure, leaves)
    local = model.posterior(params, data)  # common to all draws

    def draw(key: Array) -> list[Array | None]:
        key_params, key_local, key_rows = jax.random.split(key, 3)
        values = _sample_posterior(params, key_params, ())
        s = Record({name: params[name].statistics(value) for name, value in values.items()})
        labels = _sample_posterior(local, key_local, ()) if local else Record()
        s = s | {name: local[name].statistics(value) for name, value in labels.items()}
        start = [f and f.neutral(x.dtype).statistics(x) for f, x in zip(families, leaves, strict=True)]

        def energy(statistics: list[Statistics | None]) -> Float[Array, ""]:
            rows = [x if t is None else t for t, x in zip(statistics, leaves, strict=True)]
            return model.likelihood(s, jax.tree.unflatten(structure, rows)).sum()

        pull = jax.grad(energy)(start)
        keys = jax.random.split(key_rows, len(leaves))
        return [
            None if f is None else f.from_gradient(t, g.with_base(1.0)).sample(k)
            for f, t, g, k in zip(families, start, pull, keys, strict=True)
        ]

    return jax.lax.map(draw, jax.random.split(key, n_draws))
