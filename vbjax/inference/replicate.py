"""Draws from a fit: parameters from q, and whole data sets that the model would have given in their place.

A row's conditional distribution given all latents is, like any factor's, the gradient of the log joint in the
row's own statistics: so a definition that scores data also draws them. Imports core; knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.rows import n_rows
from vbjax.families.base import Family, State
from vbjax.numerics.inputs import is_concrete, read_count, read_key, read_shape
from vbjax.numerics.record import Record


def sample_posterior(params: Mapping[str, State], key: Array, n: int | tuple[int, ...] = ()) -> Record:
    """Draws of all parameters, independent between factors as q is.

    Args:
        params: states of the factors, `fit.params`.
        key: `jax.random.key(...)`.
        n: how many, a number or a shape.

    Returns:
        Values by factor, every array of shape (n, *plate, *event).

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.GaussianMeanPrecision(), jax.numpy.array([1.0, 2.0, 4.0]), key=jax.random.key(0))
    >>> vb.sample_posterior(fit.params, jax.random.key(1), 10).mu.shape
    (10,)
    """
    if not isinstance(params, Mapping) or not all(isinstance(q, State) for q in params.values()):
        raise ValueError(f"params must be states by name, such as fit.params; got {type(params).__name__}")
    return _sample_posterior(Record(params), read_key(key), read_shape(n, "n"))


@functools.partial(jax.jit, static_argnames="n")
def _sample_posterior(params: Record, key: Array, n: int | tuple[int, ...]) -> Record:
    keys = jax.random.split(key, len(params))
    return Record({name: q.sample(k, n) for (name, q), k in zip(params.items(), keys, strict=True)})


def replicate(
    model: ConjugateModel,
    params: Mapping[str, State],
    data: Any,
    observed: Any = None,
    *,
    key: Array,
    n_draws: int = 1,
) -> Any:
    """Data sets drawn anew: posterior predictive replications of the rows, for criticism of the model.

    For every draw: parameters from q, each row's local latents from q given the row, and the row from its
    distribution given both (Gelman, Meng & Stern 1996, section 2.3, mixed replications). Mixtures, hidden
    Markov models, regressions and factor models know what their rows are drawn from; of any other model
    `observed` says so.

    Args:
        model, params: of a fit.
        data: what it was fitted to.
        observed: the family of what is drawn, for one row, in the place of an array of the data; None in
            the places of what stays. `vb.Normal()` for a column; `(None, vb.Normal())` for y of (x, y). Left
            out for models that know: every entry is then drawn but those that are missing, the totals of
            multinomial rows, and the x of a regression.
        key: `jax.random.key(...)`.
        n_draws: how many data sets.

    Returns:
        The data with the drawn arrays in place, each with a leading axis of `n_draws`. Of a hidden Markov
        model an array (n_draws, t, ...) for one sequence, of several a list of such; an autoregressive one
        draws every step given those before it in the data.

    Raises:
        ValueError: `observed` that does not fit the data, or is left out where the model does not draw its
            data; a log likelihood that does not take the statistics of the family for the array.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> vb.replicate(fit.model, fit.params, x, vb.Normal(), key=jax.random.key(1), n_draws=5).shape
    (5, 3)
    """
    require_model(model, params, "drawing its rows")
    if observed is None and not model.draws_data:
        raise ValueError(
            "observed must hold a family for each array of data that is to be drawn, None for what stays; "
            f"a {type(model).__name__} does not draw its data by itself"
        )
    n_draws, key, params = read_count(n_draws, "n_draws"), read_key(key), _fitted(model, params)
    if observed is None:
        return model.replicate(params, key, data, n_draws)
    data = model.read(data)
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


def _fitted(model: ConjugateModel, params: Any) -> Record:
    """Parameters of the model's factors, without NaN."""
    params = require_params(model, params)
    if is_concrete(params) and any(np.isnan(np.asarray(x)).any() for x in jax.tree.leaves(params)):
        raise ValueError("params must be numbers; they have a NaN")
    return params


@functools.partial(jax.jit, static_argnames="n_draws")
def redrawn(model: Any, params: Record, key: Array, data: Any, n_draws: int) -> Any:
    """Return data that have been read, drawn anew by the model's own `redraw`, draws in front.

    `redraw(values, local, key, data)` takes values of the global factors and of the rows' local ones.
    """
    own = model.posterior(params, data) if model.local(data) else Record()  # the same for every draw

    def draw(key: Array) -> Any:
        keys = jax.random.split(key, 3)
        values = _sample_posterior(params, keys[0], ())
        local = _sample_posterior(own, keys[1], ()) if own else Record()
        return as_missing(model.redraw(values, local, keys[2], data), data)

    return jax.lax.map(draw, jax.random.split(key, n_draws))


def as_missing(drawn: Any, rows: Any) -> Any:
    """Return drawn rows with NaN where the rows have them."""

    def kept(new: Array, old: Array) -> Array:
        return jnp.where(jnp.isnan(old), old, new) if jnp.issubdtype(old.dtype, jnp.floating) else new

    return jax.tree.map(kept, drawn, rows)


@functools.partial(jax.jit, static_argnames=("structure", "families", "n_draws"))
def _replicate(
    model: Any, params: Record, leaves: list[Array], key: Array, structure: Any, families: Any, n_draws: int
) -> list[Any]:
    data = jax.tree.unflatten(structure, leaves)
    local = model.posterior(params, data)  # the same for every draw

    def draw(key: Array) -> list[Any]:
        key_params, key_local, key_rows = jax.random.split(key, 3)
        values = _sample_posterior(params, key_params, ())
        s = Record({name: params[name].statistics(value) for name, value in values.items()})
        labels = _sample_posterior(local, key_local, ()) if local else Record()
        s = s | {name: local[name].statistics(value) for name, value in labels.items()}
        start = [f and f.neutral(x.dtype).statistics(x) for f, x in zip(families, leaves, strict=True)]

        def energy(statistics: list[Any]) -> Array:
            rows = [x if t is None else t for t, x in zip(statistics, leaves, strict=True)]
            return model.likelihood(s, jax.tree.unflatten(structure, rows)).sum()

        pull = jax.grad(energy)(start)
        keys = jax.random.split(key_rows, len(leaves))
        return [
            f and f.from_gradient(t, g.with_base(1.0)).sample(k)
            for f, t, g, k in zip(families, start, pull, keys, strict=True)
        ]

    return jax.lax.map(draw, jax.random.split(key, n_draws))
