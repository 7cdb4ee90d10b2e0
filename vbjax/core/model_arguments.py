"""Readers of the arguments of `vb.Model`: families by name, functions, hyperparameters.

Their errors name the argument. user_model.py imports this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

from vbjax.families.base import Family
from vbjax.numerics.inputs import as_numbers, describe
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Tree


def read_factors(factors: Given, where: str) -> Record:
    """Return families by name.

    Args:
        factors: a mapping from names to families; None for none.
        where: the name of the argument, for errors.

    Raises:
        ValueError: if `factors` is no mapping, has a name that cannot be an attribute of `s`, or holds
            anything but families.
    """
    factors = read_names(factors, where, "families, dict(mu=vb.Normal())")
    if where == "factors" and not factors:
        raise ValueError("factors must have at least one family, dict(mu=vb.Normal()); got none")
    for name, family in factors.items():
        if not isinstance(family, Family):
            is_class = isinstance(family, type) and issubclass(family, Family)
            got = f"the class {family.__name__}: write {family.__name__}()" if is_class else describe(family)
            raise ValueError(f"{where} {name!r} must be a family, vb.Normal() or another; got {got}")
    return Record(factors)


def read_names(named: Given, where: str, expected: str) -> dict[str, Given]:
    """Return a mapping whose names can all be read as attributes; None is read as an empty one."""
    if named is None:
        return {}
    if not isinstance(named, Mapping):
        raise ValueError(f"{where} must be a mapping from names to {expected}; got {type(named).__name__}")
    for name in named:
        if not isinstance(name, str) or not name.isidentifier() or hasattr(Record, name):
            raise ValueError(f"{where} must have names that s.NAME can read; got {name!r}")
    return dict(named)


def read_function(function: Given, name: str) -> Callable[..., Tree] | None:
    """Return a function unchanged, or None; raise a ValueError for anything else."""
    if function is not None and not callable(function):
        raise ValueError(f"{name} must be a function; got {describe(function)}")
    return function


def read_hyper(hyper: Given) -> Record:
    """Return hyperparameters by name; lists become arrays.

    Raises:
        ValueError: if `hyper` is no mapping, has a name that cannot be an attribute of `s`, or holds NaN or
            anything but numbers.
    """

    def read(x: Given, name: str) -> float | np.ndarray | jax.Array:
        numbers = as_numbers(x, f"hyper {name!r}")
        if not isinstance(numbers, jax.core.Tracer) and np.isnan(numbers).any():
            raise ValueError(f"hyper {name!r} must have no NaN; got {describe(x)}")
        return x if isinstance(x, (int, float)) else numbers

    hyper = read_names(hyper, "hyper", "numbers")
    is_leaf = lambda x: x is None or isinstance(x, list)
    return Record(
        {n: jax.tree.map(lambda x, n=n: read(x, n), value, is_leaf=is_leaf) for n, value in hyper.items()}
    )


def read_blocks(blocks: Given) -> tuple[tuple[str, ...], ...] | None:
    """Return blocks of names as tuples; None stays None and leaves the blocks to be found."""
    if blocks is None:
        return None
    names = [*blocks] if isinstance(blocks, Iterable) and not isinstance(blocks, str) else [blocks]
    if any(isinstance(block, str) or not isinstance(block, Iterable) for block in names):
        raise ValueError(f'blocks must be tuples of names, (("mu",), ("tau",)); got {blocks!r}')
    return tuple(tuple(block) for block in names)
