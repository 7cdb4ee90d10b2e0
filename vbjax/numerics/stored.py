"""The table of classes whose objects a file may hold, by the names that they have there.

Only a class in this table is made again from a file, and its fields are set one by one: a name in a file
imports nothing and calls nothing. `families.base.pytree` enters every class that it decorates, `Family` its
subclasses; what else a fit holds is entered by `stored`. A class that gets another name or folder, or a field
that gets another name, is no longer found in older files. Everything may import it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

C = TypeVar("C")

REQUIRED = dataclasses.MISSING
"""Default of a field that has none."""

_classes: dict[str, type] = {}


def stored(cls: Any[C]) -> type[C]:
    """Enter a dataclass or a NamedTuple in the table, and return it.

    Raises:
        TypeError: a class of another module has the name. One that is defined anew takes the old one's place.
    """
    name = stored_name(cls)
    if (other := _classes.get(name, cls)).__module__ != cls.__module__:
        raise TypeError(f"{name} would be the name of two classes in files, of {other.__module__} too")
    _classes[name] = cls
    return cls


def stored_name(cls: Any) -> str:
    """Return the name of a class in files: of ours its package and own name, of others their module and name.

    So a module of ours may be cut in two, and older files are still read.
    """
    module = cls.__module__
    place = module.rpartition(".")[0] if module.startswith("vbjax.") else module
    return f"{place}.{cls.__qualname__}"


def stored_class(name: str) -> type | None:
    """Return the class that files call by this name; None where the table has none."""
    return _classes.get(name)


def is_stored(cls: Any) -> bool:
    """Return whether objects of exactly this class may be written."""
    return _classes.get(stored_name(cls)) is cls


def defaults_of(cls: Any) -> dict[str, Any]:
    """Return the fields of a class in the table, with their defaults, `REQUIRED` where there is none."""
    if issubclass(cls, tuple):
        return {name: cls._field_defaults.get(name, REQUIRED) for name in cls._fields}
    return {
        field.name: field.default if field.default_factory is REQUIRED else field.default_factory()
        for field in dataclasses.fields(cls)
    }


def structure_of(cls: Any) -> set[str]:
    """Return the names of the fields that are a pytree's structure."""
    fields = () if issubclass(cls, tuple) else dataclasses.fields(cls)
    return {field.name for field in fields if field.metadata.get("static")}


def made_of(cls: Any, values: Mapping[str, Any]) -> Any:
    """Return an object of a class in the table with these values in its fields; no constructor is called."""
    if issubclass(cls, tuple):
        return cls(**values)
    made = object.__new__(cls)
    made.__dict__.update(values)
    return made
