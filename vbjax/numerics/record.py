"""An immutable mapping with attribute access: the container of parameters and statistics.

A `Record` is a pytree: its values are children, its names are structure. Every part of the package may
import this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax

from vbjax.numerics.shown import call
from vbjax.numerics.types import Given, Tree


@jax.tree_util.register_pytree_with_keys_class
class Record(Mapping[str, Tree]):
    """Immutable named values that are read as attributes or as items.

    >>> r = Record(a=1, b=2)
    >>> r.a, r["b"], (r | dict(b=3)).b
    (1, 2, 3)
    """

    __slots__ = ("_values",)

    def __init__(self, *args: Tree, **kwargs: Tree) -> None:
        object.__setattr__(self, "_values", dict(*args, **kwargs))

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"no {name!r} here; there are: {', '.join(self._values)}") from None

    def __setattr__(self, name: str, value: Given) -> None:
        raise AttributeError(f"a Record is immutable; make a new one: record | dict({name}=...)")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __or__(self, other: Mapping[str, Tree]) -> Record:
        return Record({**self._values, **other})

    def __hash__(self) -> int:
        return hash(tuple(self._values.items()))

    def __eq__(self, other: object) -> bool:
        # the order of the names is part of the pytree's structure, and counts in the hash too
        return isinstance(other, Record) and tuple(self._values.items()) == tuple(other._values.items())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __reduce__(self) -> tuple[type, tuple[dict[str, Tree]]]:
        return Record, (self._values,)

    def __repr__(self) -> str:
        return call("Record", self._values.items())

    def tree_flatten_with_keys(self) -> tuple[list[tuple[jax.tree_util.GetAttrKey, Tree]], tuple[str, ...]]:
        return [(jax.tree_util.GetAttrKey(name), value) for name, value in self._values.items()], tuple(
            self._values
        )

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Tree]) -> Record:
        return cls(zip(names, values, strict=True))
