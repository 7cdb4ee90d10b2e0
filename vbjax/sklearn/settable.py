"""Attributes that can be set: a model at given parameters has all uses of a fitted one, without a fit.

Only point estimates have such attributes. Imported by `estimator`, and by the kinds that say which these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vbjax.core.contracts import Status
from vbjax.inference.resolution import resolved
from vbjax.inference.restarts import Runs
from vbjax.inference.result import Fit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel

OF_CHAINS = dict(startprob_="initial", transmat_="transitions")
OF_MIXTURES = dict(weights_="weights")


class Settable(NamedTuple):
    """Rule by which the attributes of an estimator make the parameters of its model.

    Attributes:
        labels: attributes of the weights or the chain, and the factors that they are.
        components: attributes of the components.
        rows: makes rows, (n, d), of the latter: the model takes from them what it takes from data, how many
            columns and categories there are.
        point: makes the point of the factor `components` of a resolved model and the latter.
    """

    labels: Mapping[str, str]
    components: tuple[str, ...]
    rows: Callable[..., np.ndarray]
    point: Callable[..., Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all attributes."""
        return (*self.labels, *self.components)

    def fit(self, model: ConjugateModel, given: Mapping[str, np.ndarray]) -> tuple[int, Fit]:
        """Return the number of columns, and a fit of no sweeps, at given attributes.

        Raises:
            ValueError: attributes of other shapes, or out of range.
        """
        own = [given[name] for name in self.components]
        rows = jnp.asarray(self.rows(*own))
        model = resolved(model, rows, None)[0]
        values = {factor: given[name] for name, factor in self.labels.items()}
        values["components"] = self.point(model, *own)
        names = {factor: (name,) for name, factor in self.labels.items()} | dict(components=self.components)
        params = Record({f: _point(family, values[f], names[f]) for f, family in model.factors.items()})
        one, n_iter, status = jnp.full(1, jnp.nan), jnp.zeros(1, int), jnp.full(1, int(Status.MAX_ITER))
        runs = Runs(one, n_iter, status, jnp.zeros(1, bool), one[:, None][:, :0])
        return rows.shape[1], Fit(model, params, one[0], n_iter[0], runs, one[:0], status[0])


def normals(model: Any, means: np.ndarray, covariances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the point of normal components; covariances may be matrices whatever their type."""
    structure = model.component.structure
    if covariances.ndim == 3 and structure.layout != "full":
        diagonals = np.diagonal(covariances, axis1=1, axis2=2)
        covariances = dict(tied=covariances[0], diag=diagonals, spherical=diagonals[:, 0])[structure.layout]
    if not structure.correlated and covariances.size < np.prod(structure.family.plate):
        covariances = np.broadcast_to(covariances, structure.family.plate)
    return means, covariances


NORMAL = lambda means, _: np.concatenate([means, means + 1])
COUNTS = lambda means: np.ones_like(means[:1])
CATEGORIES = lambda probabilities: np.full_like(probabilities[:1, :, 0], probabilities.shape[-1] - 1)

_RANGES: dict[str, tuple[str, Callable[[np.ndarray], Any]]] = dict(
    location=("finite", np.isfinite),
    positive=("positive", lambda x: (x > 0) & np.isfinite(x)),
    definite=(
        "symmetric and positive definite",
        lambda x: np.allclose(x, x.swapaxes(-1, -2)) and (np.linalg.eigvalsh(x) > 0).all(),
    ),
    simplex=(
        "probabilities that add up to one",
        lambda x: (x >= 0).all() and np.allclose(x.sum(-1), 1),
    ),
)


def _point(family: Any, value: Any, names: tuple[str, ...]) -> Tree:
    """Return the point of a family at a value, whose parts have names."""
    try:
        state = family.at(value)
    except ValueError as error:
        raise ValueError(f"{' and '.join(names)}: {error}") from error
    for name, (field, domain) in zip(names, state.domains.items(), strict=True):
        words, holds = _RANGES[domain]
        if not np.all(holds(np.asarray(state.fields[field]))):
            raise ValueError(f"{name} must be {words}; got {state.fields[field]}")
    return state
