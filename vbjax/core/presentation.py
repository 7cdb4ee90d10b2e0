"""How models look to people: their `repr`, their uses, and the names that tab completion offers.

Imported by the base classes of models, components and labels, and by what asks for a use.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

from vbjax.core.hyperparameters import parts_of, place_of, value_at
from vbjax.numerics.shown import call, shown

_MISSING = inspect.Parameter.empty

_PEOPLES = frozenset({"elbo_terms", "factors", "posterior", "replace", "resolve"})
_OF_SINGLE_MODELS = """
    about_offset alpha anew at_mean center complete design draw_labels eta groups inspect_family labels_table
    move_latents neutral_prior noise_scale parts points posterior_chain precisions predictive_table psi redraw
    refuse_not_finite regressions response scored_sequences settled shared slack states table topics_family
    unit_scale units weights_prior
"""
_HELPERS = frozenset(_OF_SINGLE_MODELS.split())


def model_repr(model: Any, room: str = "") -> str:
    """Return the call that makes the model, without what it has by default; arrays are shown in short.

    Args:
        model: a model, or a part of one.
        room: what stands before its name, such as "components.".
    """
    arguments: list[tuple[str, Any]] = []
    hidden = {field.name for field in dataclasses.fields(model) if not field.repr}
    for name, parameter in inspect.signature(type(model)).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:  # of components by name
            arguments += model.arguments.items()
        elif name not in hidden:
            value = _argument(model, name)
            if value is not _MISSING and shown(value) != shown(parameter.default):
                arguments.append((name, value))
    return call(room + type(model).__name__, arguments)


def _argument(model: Any, name: str) -> Any:
    """Return the value of a constructor's argument: a field or property, or one of a part of the model."""
    if place := place_of(model, name, [field.name for field in dataclasses.fields(model)]):
        return value_at(model, place)
    if isinstance(getattr(type(model), name, None), property):
        return getattr(model, name)
    for part in parts_of(model).values():
        found = getattr(part, name) if name in dir(type(part)) else _argument(part, name)
        if found is not _MISSING:
            return found
    return _MISSING


def offered(names: Iterable[str], engine: type) -> list[str]:
    """Return the names that people call: not those by which drivers call a model of the class `engine`."""
    return [name for name in names if name not in _HELPERS and (name in _PEOPLES or not _is_of(engine, name))]


def _is_of(engine: type, name: str) -> bool:
    return not name.startswith("_") and name in dir(engine)


def uses(model: Any) -> set[str]:
    """Return the names of the public methods that take parameters first."""
    methods = inspect.getmembers(type(model), inspect.isfunction)
    takes_params = lambda method: inspect.unwrap(method).__code__.co_varnames[1:2] == ("params",)
    return {name for name, method in methods if not name.startswith("_") and takes_params(method)}
