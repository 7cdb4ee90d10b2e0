"""What the two families of chains share: how many steps a chain has, and one pass over every cell of a plate.

`MarkovChain` and `GaussMarkov` are distributions of whole paths. Their inference is that of `vbjax.chains`;
imported by their two files.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, Self, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.families.base import Family, Q, T, pytree
from vbjax.numerics.inputs import read_count
from vbjax.numerics.types import Data, Given, Tree


@pytree
class Extent:
    """Steps that chains of unequal length have, and those at which something is observed.

    Attributes:
        lengths: (*plate,), the steps of every chain.
        observed: (*plate, L), whether something is observed; false after a chain's end.
    """

    lengths: Array
    observed: Array


@runtime_checkable
class HasSteps(Protocol):
    """Rows that are sequences, such as the parts of `vb.Sequences`: see `Extent`."""

    lengths: Given
    observed: Given


@dataclasses.dataclass(frozen=True)
class ChainFamily(Family[Q, T]):
    """Path of `steps` states for each cell of `plate`; of a local factor the rows say how many steps."""

    plate: tuple[int, ...] = dataclasses.field(default=(), kw_only=True)
    size: int = 2
    steps: int | None = dataclasses.field(default=None, kw_only=True)
    extent: Extent | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps is not None:
            read_count(self.steps, "steps")

    def of_rows(self, rows: Data, n: int) -> Self:
        """Return the family of the rows' own chains: each has the steps of its sequence.

        Raises:
            ValueError: rows that are no sequences, where the number of steps is not given.
        """
        if not isinstance(rows, HasSteps):
            if self.steps is None:
                raise ValueError(
                    f"data must be vb.Sequences.of(...) for a local factor {self}, which has the steps of "
                    f"its sequence; or give it steps; got {type(rows).__name__}"
                )
            return self.repeated(n)
        if self.steps is not None or self.plate:
            raise ValueError(f"a local factor of sequences must be given without plate and steps; got {self}")
        family = dataclasses.replace(self, plate=(n,), steps=rows.observed.shape[1])
        object.__setattr__(family, "extent", Extent(rows.lengths, rows.observed))
        return family

    @property
    def n_steps(self) -> int:
        """The steps of a chain, with padding.

        Raises:
            ValueError: where they are not known.
        """
        if self.steps is None:
            raise ValueError(
                f"{type(self).__name__} must have steps, their number, where it is no local factor"
            )
        return self.steps


def over_cells(function: Callable[..., Tree], plate: tuple[int, ...], *arrays: Tree) -> Tree:
    """Call a function of one chain for every cell of a plate, by one `jax.vmap`; None stays None."""
    n = math.prod(plate)
    flat = jax.tree.map(lambda x: x.reshape(n, *x.shape[len(plate) :]), arrays)
    found = jax.vmap(function)(*flat)
    return jax.tree.map(lambda x: x.reshape(*plate, *x.shape[1:]), found)


def draw_paths(
    sample: Callable[..., Array], plate: tuple[int, ...], key: Array, shape: tuple[int, ...], *arrays: Tree
) -> Array:
    """Return draws of shape `shape + plate + event` by `sample(*arrays, key=, n_draws=)` of one chain."""
    n_draws = math.prod(shape)
    keys = jax.random.split(key, plate)

    def of_cell(key: Array, *own: Tree) -> Array:
        return sample(*own, key=key, n_draws=max(n_draws, 1))[:n_draws]

    drawn = over_cells(of_cell, plate, keys, *arrays)  # (*plate, n_draws, *event)
    drawn = jnp.moveaxis(drawn, len(plate), 0)
    return drawn.reshape(*shape, *drawn.shape[1:])
