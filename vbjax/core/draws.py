"""Draws from a fit: parameters from q, and whole data sets that the model would have given in their place.

A row's conditional distribution given all latents is, like any factor's, the gradient of the log joint in the
row's own statistics: so a definition that scores data also draws them. Imports core; knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
from jax import Array

from vbjax.core.expectation import n_rows
from vbjax.core.inputs import read_count, read_key, read_shape
from vbjax.core.model import ConjugateModel, require_model, require_params
from vbjax.families.base import Family, State
from vbjax.record import Record


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
    distribution given both (Gelman, Meng & Stern 1996, section 2.3, mixed replications). Mixtures and hidden
    Markov models know what their rows are drawn from; of any other model `observed` says so.

    Args:
        model, params: of a fit.
        data: what it was fitted to.
        observed: the family of what is drawn, for one row, in the place of an array of the data; None in
            the places of what stays. `vb.Normal()` for a column; `(None, vb.Normal())` for y of (x, y). Left
            out for mixtures and hidden Markov models: every entry is then drawn but those that are missing,
            the counts of a multinomial row, and the x of a regression.
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
    n_draws, key, params = read_count(n_draws, "n_draws"), read_key(key), require_params(model, params)
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
    except (AttributeError, TypeError) as error:
        raise ValueError(
            "observed must be of families whose statistics log_likelihood takes in the place of data; got "
            f"{observed}: {error}"
        ) from None
    both = zip(leaves, fresh, drawn, strict=True)
    return jax.tree.unflatten(structure, [new if f else old for old, new, f in both])


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
