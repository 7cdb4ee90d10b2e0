"""What the terms of a log joint are given: values or statistics of the right family, of shapes that fit.

Errors name the argument and its term. Imported by terms.py alone.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax.numpy as jnp
from jax import Array

from vbjax.families.base import Statistics
from vbjax.numerics.inputs import as_numbers

S = TypeVar("S", bound=Statistics)


def family_of(kind: Any) -> str:
    """Return the name of the family to which a class of statistics, or an instance, belongs."""
    return (kind if isinstance(kind, type) else type(kind)).__name__.removesuffix("Statistics")


def read_value(x: Any, name: str, *, axes: int = 0) -> Array:
    """Return numbers as an array, Python's own without a dtype of their own.

    Args:
        x: what came.
        name: of the term and its argument, "normal: x", for errors.
        axes: how many axes it must have at least.

    Raises:
        ValueError: statistics of a latent, nothing at all, what is no number, too few axes.
    """
    if isinstance(x, Statistics):
        raise ValueError(
            f"{name} must be a value; got the statistics of a {family_of(x)} factor, for which no update is "
            "known there. Give a hyperparameter, or declare that factor vb.NonConjugate: it is a value then"
        )
    if x is None:
        raise ValueError(f"{name} must be given")
    array = jnp.asarray(x if isinstance(x, (bool, int, float)) else as_numbers(x, name))
    if array.ndim < axes:
        raise ValueError(f"{name} must have at least {axes} axes; got shape {array.shape}")
    return array


def read_statistics(kind: type[S], x: Any, name: str, *, axes: int = 0, square: bool = False) -> S:
    """Return statistics as they are, a value as the statistics of a point; of a square matrix where asked.

    Raises:
        ValueError: statistics of another family; what `read_value` refuses.
    """
    if isinstance(x, kind):
        return x
    if isinstance(x, Statistics):
        raise ValueError(
            f"{name} must be a value or the statistics of a {family_of(kind)} factor; got those of a "
            f"{family_of(x)} factor"
        )
    value = read_value(x, name, axes=axes)
    if square and value.shape[-1] != value.shape[-2]:
        raise ValueError(f"{name} must be square matrices; got shape {value.shape}")
    return kind.of(value)  # type: ignore[attr-defined]


def require_shapes(term: str, *, event: int = 0, **arguments: Any) -> None:
    """Check that arguments broadcast, but for the event, whose sizes must be the same.

    Args:
        term: its name, for errors.
        event: how many axes at the end are the event's.
        arguments: arrays by name.

    Raises:
        ValueError: shapes that do not fit; it names all of them.
    """
    shapes = {name: jnp.shape(x) for name, x in arguments.items()}
    events = {shape[len(shape) - event :] for shape in shapes.values()}
    try:
        jnp.broadcast_shapes(*(shape[: len(shape) - event] for shape in shapes.values()))
        fits = len(events) == 1
    except ValueError:
        fits = False
    if not fits:
        words = ", ".join(f"{name}={shape}" for name, shape in shapes.items())
        raise ValueError(f"{term} has arguments of shapes that do not fit: {words}")
