"""What a driver is given, read and resolved: model, data, row weights, and parameters to start from.

Imported by the drivers.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.core.contracts import Algorithm, Model
from vbjax.core.hyperparameters import read_model
from vbjax.core.model import require_model
from vbjax.core.rows import Annotated, read_row_weights
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree

M = TypeVar("M", bound=Model)


def subject_of(model: Given, data: Data) -> Any:
    """Return the model itself, or the one of an algorithm."""
    algorithm = isinstance(model, Algorithm) and not isinstance(model, type)
    subject = model.model if algorithm else model
    require_model(subject, data)
    return subject


def read_data(model: M, data: Given, weights: Given) -> tuple[M, Data, Array | None]:
    """Read model, data and weights; the model comes back inspected."""
    model, data = read_model(model, data)
    weights = read_row_weights(weights, data)
    return model.inspect(data), data, weights


def resolved(model: M, data: Given, weights: Given) -> tuple[M, Data, Array | None]:
    """Return the model with every default filled in, and data and weights as its updates take them.

    Raises:
        ValueError: data or weights out of range; a model that is not conjugate.
    """
    model, data, weights = read_data(model, data, weights)
    model, beside = _resolve(model, data, weights)
    return model, refilled(beside, data), weights


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Given:
    """Placeholder for a leaf of the data, which a program would return as a copy."""

    leaf: int


@jit
def _resolve(model: Model, data: Data, weights: Array | None) -> tuple[Tree, Tree]:
    model = model.resolve(data, weights)
    return model, emptied(model.annotate(data, weights))


def emptied(annotated: Data) -> Data:
    """Return what a model puts beside the rows, without the rows: their leaves are numbered in order."""
    number = itertools.count()
    given = lambda x: jax.tree.map(lambda _: _Given(next(number)), x)
    noted = lambda x: isinstance(x, Annotated)
    return jax.tree.map(
        lambda x: x._replace(rows=given(x.rows)) if noted(x) else given(x), annotated, is_leaf=noted
    )


def refilled(beside: Tree, data: Data) -> Data:
    """Return the data with what was put beside them."""
    leaves, is_given = jax.tree.leaves(data), lambda x: isinstance(x, _Given)
    return jax.tree.map(lambda x: leaves[x.leaf] if is_given(x) else x, beside, is_leaf=is_given)


def read_params(params: Params, expected: Tree) -> Params:
    """Return given parameters in the model's order and dtype; refuse another structure or other shapes."""
    if isinstance(expected, Record) and isinstance(params, Mapping) and set(params) == set(expected):
        params = Record({name: params[name] for name in expected})
    try:
        params = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), params, expected)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"params must have the structure of the model's parameters: {error}") from None
    shapes = jax.tree.map(lambda x, like: x.shape == like.shape, params, expected)
    if not all(jax.tree.leaves(shapes)):
        got = [x.shape for x in jax.tree.leaves(params)]
        raise ValueError(f"params must have shapes {[x.shape for x in jax.tree.leaves(expected)]}; got {got}")
    return params
