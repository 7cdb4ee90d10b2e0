"""Draws for ArviZ: posterior, predictions, log likelihoods and data as a tree of labelled arrays.

An adapter for users; arviz-base is optional, and imported by the function that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import Array, lax

from vbjax.blackbox.approximation import Approximation
from vbjax.core.hyperparameters import Count, table
from vbjax.core.ragged import Ragged
from vbjax.data.frames import Columns, read_frame
from vbjax.data.labelled import rows_of
from vbjax.inference.pointwise import log_likelihoods
from vbjax.inference.replicate import replicate, sample_posterior
from vbjax.inference.resolution import resolved
from vbjax.inference.result import Fit
from vbjax.numerics.compilation import jit
from vbjax.numerics.extras import import_extra
from vbjax.numerics.inputs import describe, read_count, read_flag, read_key
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model
    from vbjax.core.model import ConjugateModel


def to_arviz(
    fit: Fit | Mapping[str, Tree],
    data: Data = None,
    *,
    key: Array,
    n_draws: int = 1000,
    model: Any = None,
    resampled: bool = False,
    coords: Mapping[str, Sequence[Any]] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
) -> Any:  # an xarray.DataTree
    """Return draws from a fit, or those of Gibbs sampling, as ArviZ takes them: an `xarray.DataTree`.

    Its groups are `posterior`; and where data are given, as far as the model gives them, `log_likelihood` of
    every row (of a hidden Markov model: every sequence) and `observed_data`, and of a fit
    `posterior_predictive`. Draws from a fit are independent: they are one chain.

    Axes are named after what the model counts (component, state, topic, ...), and after the columns of a data
    frame; others as ArviZ does.

    Args:
        fit: a `Fit`; or what `vb.gibbs` returns, with its chains.
        data: the data of the fit.
        key: `jax.random.key(...)`.
        n_draws: number of draws from a fit; Gibbs sampling has made its own.
        model: of Gibbs draws, their model.
        resampled: whether the draws of a `BlackBox` are resampled by importance, see `BlackBox.resample`.
        coords, dims: names of your own, as of `arviz_base.from_dict`; they replace ours.

    Raises:
        ImportError: arviz-base is not installed.
        ValueError: arguments of another kind.

    ::

        tree = vb.to_arviz(vb.fit(vb.GaussianMixture(2), frame, key=key), frame, key=key)
        tree.posterior["components.location"]  # (chain, draw, component, column)
    """
    arviz = import_extra("arviz", "arviz_base")
    key, n_draws = read_key(key), read_count(n_draws, "n_draws")
    resampled = read_flag(resampled, "resampled")
    if isinstance(fit, Fit):
        model = fit.model
    elif not isinstance(fit, Mapping) or model is None:
        raise ValueError(
            f"fit must be a vb.Fit, or draws of vb.gibbs with model= that of the draws; got {describe(fit)}"
        )
    data, columns = read_frame(data, fit.columns if isinstance(fit, Fit) else None)
    keys = jax.random.split(key)
    if isinstance(fit, Fit):
        draws = _draw(fit, keys[0], n_draws, resampled, data)
        params, shape = fit.params, (1, n_draws)
    else:
        model, rows, _ = resolved(model, data, None)
        params, shape = model.init(keys[0], rows), jax.tree.leaves(fit)[0].shape[:2]
        draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), fit)
    groups = {"posterior": _named(draws, "latents")}
    if data is not None:
        groups |= _rows(model, params, draws, data)
        if isinstance(fit, Fit) and not isinstance(params, Approximation) and model.draws_data:
            groups |= _predictions(fit, data, keys[1], n_draws)
    names = _Names.of(model, columns)
    own = {name: names.of_axes(name, x.shape[1:]) for name, x in groups["posterior"].items()}
    for name, x in groups.get("observed_data", {}).items():
        own[name] = names.of_axes(name, x.shape, "row")
    if "log_likelihood" in groups:
        own["log_likelihood"] = ["row"]
    chained = lambda x: x.reshape(*shape, *x.shape[1:])
    return arviz.from_dict(
        {
            group: arrays if group == "observed_data" else {name: chained(x) for name, x in arrays.items()}
            for group, arrays in groups.items()
        },
        coords=names.coords | dict(coords or {}),
        dims=own | dict(dims or {}),
    )


class _Names(NamedTuple):
    """Names of axes, and of the places along them.

    Attributes:
        counted: what the model counts, and how many.
        columns: names of the data's columns.
        named_axes: see `core.contracts.Model`.
    """

    counted: dict[str, int]
    columns: tuple[str, ...]
    named_axes: Mapping[str, int]

    @classmethod
    def of(cls, model: Model, columns: Columns | None) -> _Names:
        counts = [name for name, row in table(model).items() if isinstance(row, Count) and row.axis]
        counted = {name.removeprefix("n_").removesuffix("s"): getattr(model, name) for name in counts}
        return cls(counted, columns.names if columns else (), model.named_axes)

    @property
    def coords(self) -> dict[str, Any]:
        own = {name: np.arange(n) for name, n in self.counted.items()}
        return own | ({"column": list(self.columns)} if self.columns else {})

    def of_axes(self, variable: str, shape: Sequence[int], first: str | None = None) -> list[str]:
        """Return a name for every axis: what is counted from the left, columns from the right."""
        names = [f"{variable}_dim_{i}" for i in range(len(shape))]
        free = list(range(len(shape)))
        if first is not None:
            names[free.pop(0)] = first
        for name, n in self.counted.items():
            if first is None and (places := [i for i in free if shape[i] == n]):
                names[places[0]] = name
                free.remove(places[0])
        least = self.named_axes.get(variable.split(".")[0], len(shape)) if first is None else 1
        if places := [i for i in free if i >= least and shape[i] == len(self.columns)]:
            names[places[-1]] = "column"
        return names


def _draw(fit: Fit, key: Array, n: int, resampled: bool, data: Data) -> Tree:
    """Draw n values of all parameters or latents of a fit."""
    if not isinstance(fit.params, Approximation):
        if resampled:
            raise ValueError("resampled must be False for a fit that is not of a BlackBox")
        return sample_posterior(fit.params, key, n)
    return fit.model.resample(fit.params, key, n, data) if resampled else fit.params.sample(key, n)


def _rows(model: ConjugateModel, params: Any, draws: Tree, data: Data) -> dict[str, dict[str, np.ndarray]]:
    """Return the data, if they are arrays, and the log likelihoods of the rows, if the model has them."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    read = model.read(data)
    if isinstance(params, Approximation):
        if model.log_likelihood is not None:
            of_rows = jit(lambda draws, rows: lax.map(lambda s: model.log_likelihood(s, rows), draws))
            groups["log_likelihood"] = {"log_likelihood": np.asarray(of_rows(draws, read))}
    elif not model.interacting_locals:
        groups["log_likelihood"] = {"log_likelihood": np.asarray(log_likelihoods(model, params, draws, data))}
    if not isinstance(read, Ragged):
        groups["observed_data"] = _named(rows_of(read), "x")
    return groups


def _predictions(fit: Fit, data: Data, key: Array, n: int) -> dict[str, dict[str, np.ndarray]]:
    """Return replications of the data; none of sequences of unequal lengths."""
    drawn = replicate(fit.model, fit.params, data, key=key, n_draws=n)
    return {} if isinstance(drawn, list) else {"posterior_predictive": _named(rows_of(drawn), "x")}


def _named(tree: Tree, alone: str) -> dict[str, np.ndarray]:
    """Return the arrays of a tree by their places; one that is the whole tree is called `alone`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".") or alone
    return {name(path): np.asarray(x) for path, x in leaves}
