"""Readers of the arguments of terms: values, or statistics of the right family, of shapes that fit.

Errors name the argument and its term. The other files of this folder import this one.
"""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.base import Statistics
from vbjax.families.dirichlet import DirichletStatistics
from vbjax.families.stick_breaking import StickBreakingStatistics
from vbjax.numerics.inputs import as_numbers, is_concrete
from vbjax.numerics.special import finite_log

Argument: TypeAlias = Any  # a value, of which numpy can make an array, or the statistics of a latent
S = TypeVar("S", bound=Statistics)


def family_of(kind: type[Statistics] | Statistics) -> str:
    """Return the name of the family to which a class of statistics, or an instance, belongs."""
    return (kind if isinstance(kind, type) else type(kind)).__name__.removesuffix("Statistics")


def read_value(x: Argument, name: str, *, axes: int = 0) -> Array:
    """Return numbers as an array; Python numbers stay without a dtype of their own (weakly typed).

    Args:
        x: the argument.
        name: the names of the term and its argument for errors, as in "normal: x".
        axes: the least number of axes that it must have.

    Raises:
        ValueError: if x is the statistics of a latent, None or no number, or has too few axes.
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


def read_statistics(kind: type[S], x: Argument, name: str, *, axes: int = 0, square: bool = False) -> S:
    """Return statistics unchanged, or a value as those of a point; `square` asks for square matrices.

    Raises:
        ValueError: if x is the statistics of another family, or `read_value` refuses it.
    """
    if isinstance(x, kind):
        return x
    if isinstance(x, Statistics):
        raise ValueError(
            f"{name} must be a value or the statistics of a {family_of(kind)} factor; got those of a "
            f"{family_of(x)} factor"
        )
    value = read_value(x, name, axes=axes)
    if square and (value.shape[-1] != value.shape[-2] or not value.shape[-1]):
        raise ValueError(f"{name} must be square matrices; got shape {value.shape}")
    return kind.of(value)


def read_states(x: Argument, name: str, n: int, *, least: int = 0, axes: int = 0) -> Array:
    """Return numbers of states as an array: whole, and from `least` to n - 1 as far as they may be read.

    Raises:
        ValueError: other numbers, or what `read_value` refuses.
    """
    x = read_value(x, name, axes=axes)
    if jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be whole numbers, those of states; got {x.dtype}")
    if is_concrete(x) and not ((np.asarray(x) >= least) & (np.asarray(x) < n)).all():
        raise ValueError(f"{name} must be from {least} to {n - 1}, numbers of states; got {x}")
    return x


def read_log(probabilities: Argument, name: str, *, axes: int = 1) -> Float[Array, "*plate k"]:
    """Return logarithms of probabilities over the last axis, finite where those are 0, or expected ones.

    Raises:
        ValueError: statistics of another family than Dirichlet and StickBreaking; what `read_value` refuses.
    """
    if isinstance(probabilities, (DirichletStatistics, StickBreakingStatistics)):
        return finite_log(probabilities.log)
    if isinstance(probabilities, Statistics):
        raise ValueError(
            f"{name} must be values or the statistics of a Dirichlet or StickBreaking factor; got those of a "
            f"{family_of(probabilities)} factor"
        )
    p = read_value(probabilities, name, axes=axes)
    positive = p != 0  # no 0 / 0 in the gradient
    return finite_log(jnp.where(positive, jnp.log(jnp.where(positive, p, 1)), -jnp.inf))


def require_alone(precision: Argument, term: str, mean: Statistics) -> None:
    """Raise a ValueError if a precision is given beside statistics that hold their own."""
    if precision is not None:
        raise ValueError(f"{term}: precision must be left out: {family_of(mean)} statistics hold their own")


def require_shapes(term: str, *, event: int = 0, **arguments: ArrayLike) -> None:
    """Raise a ValueError unless arguments broadcast over the plate and have events of the same sizes.

    Args:
        term: the term's name, for errors.
        event: the number of axes at the end that belong to the event.
        arguments: arrays by name.

    Raises:
        ValueError: if the shapes do not fit; the message names all of them.
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
