"""What mixtures of regressions share, of one response or of several: blocks, starts, and use at new rows.

Not a model itself: `regression_mixture.py` and `multivariate_regression_mixture.py` give the components.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import read_columns
from vbjax.core.rows import n_rows
from vbjax.families.base import LocationPrecision
from vbjax.models.mixtures.conjugate_mixture import ConjugateMixture
from vbjax.numerics.inputs import read_key
from vbjax.numerics.linalg import outer
from vbjax.numerics.record import Record

_BLOCK_BYTES = 2**23  # the squares of a block of rows stay in a core's cache


class RegressionMixtureBase(ConjugateMixture):
    """Rows (x_n, y_n), y_n | x_n, c_n from regression c_n, a location and a precision."""

    offset: Any = 0.0  # of the responses

    @property
    def response_shape(self) -> tuple[int, ...]:
        """Of one y."""
        return ()

    def design(self, x: Float[Array, "n d"]) -> Float[Array, "n q"]:
        """What the regressions' weights multiply."""
        return x

    def responses(self, drawn: LocationPrecision, x: Array, noise: Array) -> Array:
        """y for every row x, given parameters for each, from standard normal noise of y's shape."""
        raise TypeError("given by the subclass")

    def spread(self, square: Float[Array, "k q q"], x: Float[Array, "n q"]) -> Float[Array, "n k"]:
        """x' E[(M - C) Lam (M - C)'] x, by one product for all components."""
        return outer(x, x).reshape(x.shape[0], -1) @ square.reshape(self.n_components, -1).T

    def chunk_rows(self, data: Any) -> int:
        cached = _BLOCK_BYTES // (data[0].shape[1] ** 2 * data[0].dtype.itemsize)
        return max(1, min(super().chunk_rows(data), cached))

    def seeds(self, key: Array, data: Any, weights: Array | None) -> tuple[Array, Array]:
        """For each component d + 1 rows, drawn by weight: as many as its line passes near."""
        n, count = n_rows(data), self.n_components * (self.columns + 1)
        share = None if weights is None else weights / weights.sum()
        index = jax.random.choice(key, n, (count,), p=share)
        x, y = data
        return x[index], y[index]

    def redraw_rows(self, parameters: Any, key: Array, c: Array, rows: Any) -> tuple[Array, Array]:
        x, y = rows
        noise = jax.random.normal(key, y.shape, y.dtype)
        return x, self.responses(jax.tree.map(lambda leaf: leaf[c], parameters), x, noise)

    def read_given(self, given: Any, n: int) -> Array:
        if given is None:
            raise ValueError(f"given must be the x of the {n} steps to draw, ({n}, d), as y depends on them")
        given = read_columns(self, given, "given")
        if given.shape[0] != n:
            raise ValueError(f"given must have a row x for each of the {n} steps; got shape {given.shape}")
        return given

    def draw_rows(self, params: Record, key: Array, c: Array, given: Any = None) -> Array:
        keys = jax.random.split(key)
        drawn = jax.tree.map(lambda leaf: leaf[c], params.components).sample(keys[0])
        noise = jax.random.normal(keys[1], (given.shape[0], *self.response_shape), given.dtype)
        return self.responses(drawn, given, noise)

    # -- use -----------------------------------------------------------------------------------------

    def mean(self, params: Record, x: Any) -> Array:
        """E[y | x] of new rows x, in the shape of y: over the components, as their labels are not known."""
        return _mean(self, params, read_columns(self, x, "x"))

    def sample(self, params: Record, key: Array, x: Any) -> Array:
        """New y for the rows x (n, d), each with parameters of its own drawn from q."""
        return _sample_at(self, params, read_key(key), read_columns(self, x, "x"))


@jax.jit
def _mean(model: RegressionMixtureBase, params: Record, x: Array) -> Array:
    location = jnp.tensordot(model.weights(params), params.components.mean.location, 1)
    return model.offset + model.design(x) @ location


@jax.jit
def _sample_at(model: RegressionMixtureBase, params: Record, key: Array, x: Array) -> Array:
    keys = jax.random.split(key)
    return model.draw_rows(params, keys[1], model.draw_labels(params, keys[0], x.shape[0]), x)
