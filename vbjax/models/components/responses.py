"""Responses y of rows (x, y): what regressions of one response and of several share."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import jax
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import read_columns
from vbjax.families.base import LocationPrecision
from vbjax.models.components.component import Component
from vbjax.models.components.seeding import Distance
from vbjax.numerics.linalg import outer
from vbjax.numerics.types import Data, Given, Tree

_BLOCK_BYTES = 2**23  # the squares of a block of rows stay in a core's cache


class Responses(abc.ABC):
    """Rows (x_n, y_n), y_n | x_n, c_n from regression c_n, a location and a precision.

    Stands before `Component` among the bases of a component.
    """

    if TYPE_CHECKING:
        n_laws: int
        columns: int

    @property
    @abc.abstractmethod
    def response_shape(self) -> tuple[int, ...]:
        """The shape of one y."""

    @abc.abstractmethod
    def responses(self, drawn: LocationPrecision, x: Array, noise: Array) -> Array:
        """Compute y for every row x, given parameters for each, from standard normal noise of y's shape."""

    @abc.abstractmethod
    def expected_responses(self, location: Array, x: Float[Array, "n d"]) -> Array:
        """Compute E[y] for every row x at one location."""

    def spread(self, square: Float[Array, "k q q"], x: Float[Array, "n q"]) -> Float[Array, "n k"]:
        """Compute x' E[(M - C) Lam (M - C)'] x, by one product for all laws."""
        return outer(x, x).reshape(x.shape[0], -1) @ square.reshape(self.n_laws, -1).T

    def chunk_rows(self, data: Data) -> int:
        cached = _BLOCK_BYTES // (data[0].shape[1] ** 2 * data[0].dtype.itemsize)
        usual = Component.chunk_rows(self, data)  # type: ignore[arg-type]
        return max(1, min(usual, cached))

    def distance(self, data: Data, weights: Array | None) -> Distance | None:
        return None

    @property
    def rows_to_start(self) -> int:
        return self.columns + 1  # as many as a line passes near

    def given_of(self, rows: Data) -> Float[Array, "n d"]:
        return rows[0]

    def read_given(self, given: Given, n: int) -> Float[Array, "n d"]:
        if given is None:
            raise ValueError(f"given must be the x of the {n} rows to draw, ({n}, d), as y depends on them")
        given = read_columns(self, given, "given")
        if given.shape[0] != n:
            raise ValueError(f"given must have a row x for each of the {n} rows; got shape {given.shape}")
        return given

    def draw(self, key: Array, parameters: LocationPrecision, given: Float[Array, "n d"]) -> Array:
        noise = jax.random.normal(key, (given.shape[0], *self.response_shape), given.dtype)
        return self.responses(parameters, given, noise)

    def redraw_rows(self, parameters: Tree, key: Array, c: Array, rows: Data) -> tuple[Array, Array]:
        return rows[0], Component.redraw_rows(self, parameters, key, c, rows)  # type: ignore[arg-type]
