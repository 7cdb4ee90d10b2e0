"""Checks of parameters that users give: whether names, families and shapes are those of a model.

Drivers that take parameters import this file, and so does model.py, whose methods take parameters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp

from vbjax.families.base import Family, State
from vbjax.numerics.inputs import read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Tree

T = TypeVar("T")

if TYPE_CHECKING:
    from vbjax.core.contracts import Model
    from vbjax.core.model import ConjugateModel


def require_params(model: Model, params: Given) -> Record:
    """Return parameters whose names, families and shapes are those of the model's factors.

    Raises:
        ValueError: if they are those of another model, of another number of components, or of a batch of
            fits.
    """
    if missing := _missing(model, params):
        raise ValueError(missing)
    return _require_shapes(model, params)


def _missing(model: Any, params: Given) -> str:
    """Return the error message for parameters that lack a factor of the model, "" if they have all."""
    if isinstance(params, Mapping) and set(model.factors) <= set(params):
        return ""
    got = ", ".join(map(str, params)) if isinstance(params, Mapping) else type(params).__name__
    return (
        f"params must be those of a fit of {type(model).__name__}, of {', '.join(model.factors)}; got {got}"
    )


def _require_shapes(model: Any, params: Mapping[str, Tree]) -> Record:
    """Raise a ValueError unless states have the family and shapes of the model's factors of their names."""
    name = type(model).__name__
    for factor, family in model.factors.items():
        if factor not in params:
            continue
        expected, got = _state_shapes(family), params[factor]
        structures: list[Any] = [jax.tree.structure(tree) for tree in (expected, got)]
        if structures[0] != structures[1]:
            raise ValueError(
                f"params must be those of a fit of this {name}, of {factor!r} a {type(expected).__name__}; "
                f"got {type(got).__name__}"
            )
        known = slice(-1, None) if family.guarded else slice(None)  # each fit chooses its number of draws
        own, given = ([jnp.shape(x)[known] for x in jax.tree.leaves(tree)] for tree in (expected, got))
        if own != given:
            batch = "; jax.vmap goes through a batch of fits" if len(given[0]) > len(own[0]) else ""
            raise ValueError(
                f"params must have the shapes of this {name}, of {factor!r} {own}; got those of another fit, "
                f"{given}{batch}"
            )
    return Record(params)


@functools.cache
def _state_shapes(family: Family) -> State:
    """Return a state of the family with shapes in the place of its arrays."""
    return jax.eval_shape(lambda: family.neutral(jnp.float32))


def check_params(method: Callable[..., T]) -> Callable[..., T]:
    """Return the method with a check that its `params` are those of its model.

    A model inside another one takes the parameters of the whole. If a `key` follows them, it must be one PRNG
    key.
    """
    takes_key = inspect.unwrap(method).__code__.co_varnames[2:3] == ("key",)

    @functools.wraps(method)
    def checked(self: ConjugateModel, params: Given, *args: Given, **kwargs: Given) -> T:
        missing = _missing(self, params)
        if not isinstance(params, Mapping):
            raise ValueError(missing)
        params = _require_shapes(self, params)
        if takes_key and (args or "key" in kwargs):
            read_key(args[0] if args else kwargs["key"])
        try:
            return method(self, params, *args, **kwargs)
        except (AttributeError, KeyError):
            if missing:
                raise ValueError(missing) from None
            raise

    checked.checks_params = True  # type: ignore[attr-defined]
    return checked
