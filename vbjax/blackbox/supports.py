"""Where a latent lives: maps from all of R^n onto a support, with their log-determinants.

`BlackBox` works on R^n; a support says how a point of it becomes a value of the user's own. For
`blackbox`; imports the pytree decorator and what reads arguments.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import as_floating, as_numbers, is_concrete, read_count, read_shape


class Support:
    """One latent's values: `shape` of a value, `size` of the vector that it is made from.

    Subclasses are pytrees with `shape`, and say what `to` and `back` are.
    """

    shape: tuple[int, ...]
    discrete: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """How many real numbers a value is made from."""
        return math.prod(self.shape)

    def to(self, u: Array) -> tuple[Array, Array]:
        """What `constrain` returns, of a u that has been read."""
        raise TypeError(f"{type(self).__name__} has no map")

    def back(self, value: Array) -> Array:
        """What `unconstrain` returns, of a value that has been read."""
        raise TypeError(f"{type(self).__name__} has no inverse")

    def constrain(self, u: ArrayLike) -> tuple[Array, Array]:
        """The value at u (size,), and the log of the volume by which the map stretches there.

        Raises:
            ValueError: a u that is not so many numbers.
        """
        u = as_floating(u, "u")
        if u.shape != (self.size,):
            raise ValueError(f"u must have shape ({self.size},); got {u.shape}")
        return self.to(u)

    def unconstrain(self, value: ArrayLike) -> Array:
        """The u (size,) of a value.

        Raises:
            ValueError: a value of another shape, or outside.
        """
        value = as_floating(value, "value")
        if value.shape != self.shape:
            raise ValueError(f"value must have shape {self.shape}; got {value.shape}")
        u = self.back(value)
        if is_concrete(u) and not np.isfinite(np.asarray(u)).all():
            raise ValueError(f"value must lie inside {self}; got {value}")
        return u


@pytree
class Interval(Support):
    """Each entry between `low` and `high`, either of which may be None: by exp, or by the logistic."""

    low: Any
    high: Any
    shape: tuple[int, ...] = static()

    def to(self, u: Array) -> tuple[Array, Array]:
        u = u.reshape(self.shape)
        if self.low is None and self.high is None:
            return u, jnp.zeros((), u.dtype)
        if self.high is None:
            return jnp.asarray(self.low, u.dtype) + jnp.exp(u), u.sum()
        if self.low is None:
            return jnp.asarray(self.high, u.dtype) - jnp.exp(u), u.sum()
        low, high = jnp.asarray(self.low, u.dtype), jnp.asarray(self.high, u.dtype)
        below, above = (
            jax.nn.sigmoid(u),
            jax.nn.sigmoid(-u),
        )  # from the nearer end, so that it keeps its digits
        value = jnp.where(u < 0, low + (high - low) * below, high - (high - low) * above)
        stretch = jnp.log(high - low) + jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u)
        return value, jnp.broadcast_to(stretch, self.shape).sum()

    def back(self, value: Array) -> Array:
        u = value
        if self.low is not None:
            u = jnp.log(value - jnp.asarray(self.low, value.dtype))
        if self.high is not None:
            above = jnp.log(jnp.asarray(self.high, value.dtype) - value)
            u = above if self.low is None else u - above
        return jnp.broadcast_to(u, self.shape).reshape(-1)


@pytree
class Category(Support):
    """Each entry one of `n` cases: an integer from 0 to n - 1, which u holds as a floating-point number."""

    n: int = static()
    shape: tuple[int, ...] = static()
    discrete = True

    def to(self, u: Array) -> tuple[Array, Array]:
        return jnp.round(u).astype(jnp.int32).reshape(self.shape), jnp.zeros((), u.dtype)

    def back(self, value: Array) -> Array:
        return jnp.asarray(value, jnp.result_type(float)).reshape(-1)


@pytree
class Simplex(Support):
    """Probabilities of k cases: softmax of isometric log-ratio coordinates (Egozcue et al. 2003)."""

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        return math.prod(self.shape[:-1]) * (self.shape[-1] - 1)

    @property
    def _basis(self) -> np.ndarray:
        """(k, k - 1): orthonormal columns, orthogonal to the ones (Helmert's)."""
        k = self.shape[-1]
        below = np.tril(np.ones((k, k - 1)), -1)  # column j: rows after j
        size = np.arange(k - 1, 0, -1)
        return (np.eye(k, k - 1) - below / size) / np.sqrt(1 + 1 / size)

    def to(self, u: Array) -> tuple[Array, Array]:
        k = self.shape[-1]
        log_p = jax.nn.log_softmax(u.reshape(*self.shape[:-1], k - 1) @ jnp.asarray(self._basis.T, u.dtype))
        return jnp.exp(log_p), log_p.sum() + 0.5 * math.log(k) * math.prod(self.shape[:-1])

    def back(self, value: Array) -> Array:
        return (jnp.log(value) @ jnp.asarray(self._basis, value.dtype)).reshape(-1)


@pytree
class Ordered(Support):
    """x_1 < x_2 < ... along the last axis; above `low`, where that is given. Steps by exp."""

    low: Any
    shape: tuple[int, ...] = static()

    def to(self, u: Array) -> tuple[Array, Array]:
        u = u.reshape(self.shape)
        steps = jnp.exp(u[..., 1:])
        if self.low is None:
            first, stretch = u[..., :1], u[..., 1:].sum()
        else:
            first, stretch = jnp.asarray(self.low, u.dtype) + jnp.exp(u[..., :1]), u.sum()
        return jnp.cumsum(jnp.concatenate([first, steps], -1), -1), stretch

    def back(self, value: Array) -> Array:
        first = (
            value[..., :1]
            if self.low is None
            else jnp.log(value[..., :1] - jnp.asarray(self.low, value.dtype))
        )
        return jnp.concatenate([first, jnp.log(jnp.diff(value))], -1).reshape(-1)


def _lower(u: Array, shape: tuple[int, ...], diagonal: int) -> Array:
    """The entries of u on and below a diagonal of square matrices, zeros elsewhere."""
    rows, columns = np.tril_indices(shape[-1], diagonal)
    return jnp.zeros(shape, u.dtype).at[..., rows, columns].set(u.reshape(*shape[:-2], -1))


def _entries(matrix: Array, diagonal: int) -> Array:
    rows, columns = np.tril_indices(matrix.shape[-1], diagonal)
    return matrix[..., rows, columns].reshape(-1)


@pytree
class CholeskyFactor(Support):
    """Lower triangular matrices with a positive diagonal, by exp."""

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        d = self.shape[-1]
        return math.prod(self.shape[:-2]) * d * (d + 1) // 2

    def to(self, u: Array) -> tuple[Array, Array]:
        matrix = _lower(u, self.shape, 0)
        logs = jnp.diagonal(matrix, axis1=-2, axis2=-1)
        diagonal = jnp.eye(self.shape[-1], dtype=u.dtype) == 1
        return jnp.where(diagonal, jnp.exp(jnp.where(diagonal, matrix, 0)), matrix), logs.sum()

    def back(self, value: Array) -> Array:
        diagonal = jnp.eye(self.shape[-1], dtype=value.dtype) == 1
        return _entries(jnp.where(diagonal, jnp.log(jnp.where(diagonal, value, 1)), value), 0)


@pytree
class CorrelationCholesky(Support):
    """Cholesky factors of correlation matrices: rows of length one.

    Below the diagonal, entry j of a row is its canonical partial correlation tanh(u) times the length that
    the entries before it leave (Lewandowski, Kurowicka & Joe 2009).
    """

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        d = self.shape[-1]
        return math.prod(self.shape[:-2]) * d * (d - 1) // 2

    def to(self, u: Array) -> tuple[Array, Array]:
        u = _lower(u, self.shape, -1)
        below = jnp.tril(jnp.ones(self.shape[-2:], bool), -1)
        log_rest = jnp.where(below, -2 * (u + jnp.logaddexp(0.0, -2 * u) - math.log(2)), 0)  # log sech^2
        left = 0.5 * (jnp.cumsum(log_rest, -1) - log_rest)  # log length left before each entry
        partial = jnp.where(below, jnp.tanh(u), jnp.eye(self.shape[-1], dtype=u.dtype))
        return partial * jnp.exp(left), jnp.where(below, log_rest + left, 0).sum()

    def back(self, value: Array) -> Array:
        squares = jnp.cumsum(value**2, -1) - value**2
        below = jnp.tril(jnp.ones(self.shape[-2:], bool), -1)
        left = jnp.sqrt(jnp.where(below, 1 - squares, 1))
        return _entries(jnp.arctanh(jnp.where(below, value / left, 0)), -1)


def _read_end(end: ArrayLike | None, name: str) -> Any:
    """An end of an interval: finite numbers, examined where they are known; None stays None."""
    if end is None:
        return None
    numbers = as_numbers(end, name)
    if not isinstance(numbers, jax.core.Tracer) and not np.isfinite(np.asarray(numbers)).all():
        raise ValueError(f"{name} must be finite, or None where there is no end; got {end}")
    return end if isinstance(end, (int, float)) else numbers


def real(shape: int | tuple[int, ...] = ()) -> Support:
    """Real numbers, an array of `shape`."""
    return Interval(None, None, read_shape(shape))


def positive(shape: int | tuple[int, ...] = ()) -> Support:
    """Positive numbers."""
    return Interval(0.0, None, read_shape(shape))


def unit_interval(shape: int | tuple[int, ...] = ()) -> Support:
    """Numbers between 0 and 1."""
    return Interval(0.0, 1.0, read_shape(shape))


def interval(
    low: ArrayLike | None, high: ArrayLike | None, shape: int | tuple[int, ...] | None = None
) -> Support:
    """Numbers between `low` and `high`, numbers or arrays (of data, perhaps); None: without an end there.

    Raises:
        ValueError: an end that is not finite; a `low` that is not below `high`; a `shape`, by default that of
            the ends, that they do not broadcast to.
    """
    low, high = _read_end(low, "low"), _read_end(high, "high")
    shapes = [np.shape(end) for end in (low, high) if end is not None]
    try:
        ends = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"low and high must have shapes that fit; got {shapes[0]} and {shapes[1]}") from None
    sizes = ends if shape is None else read_shape(shape)
    pairs = zip(ends[::-1], sizes[::-1], strict=False)
    if len(ends) > len(sizes) or any(end not in (1, size) for end, size in pairs):
        raise ValueError(f"shape must be one that low and high, of shape {ends}, broadcast to; got {shape}")
    known = not any(end is None or isinstance(end, jax.core.Tracer) for end in (low, high))
    if known and (wrong := np.asarray(low) >= np.asarray(high)).any():
        pair = [np.broadcast_to(end, ends)[wrong][0] for end in (low, high)]
        raise ValueError(f"low must be below high; got {pair[0]} and {pair[1]}")
    return Interval(low, high, sizes)


def category(n_cases: int, shape: int | tuple[int, ...] = ()) -> Support:
    """Discrete: one of `n_cases` for each entry, as an integer from 0 on."""
    return Category(read_count(n_cases, "n_cases", least=2), read_shape(shape))


def simplex(n_cases: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Probabilities of `n_cases`, of shape (*plates, n_cases)."""
    return Simplex((*read_shape(plates, "plates"), read_count(n_cases, "n_cases")))


def ordered(n: int, plates: int | tuple[int, ...] = (), *, low: ArrayLike | None = None) -> Support:
    """n increasing numbers, of shape (*plates, n); all above `low`, where it is given.

    Raises:
        ValueError: a `low` that is not finite, or neither a number nor of shape (*plates, 1).
    """
    shape, low = (*read_shape(plates, "plates"), read_count(n, "n")), _read_end(low, "low")
    first = (*shape[:-1], 1)
    if low is not None and np.shape(low) not in ((), first):
        raise ValueError(f"low must be a number, or numbers of shape {first}; got shape {np.shape(low)}")
    return Ordered(low, shape)


def cholesky_factor(n: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Lower triangular n x n matrices with a positive diagonal: square roots of covariances."""
    n = read_count(n, "n")
    return CholeskyFactor((*read_shape(plates, "plates"), n, n))


def correlation_cholesky(n: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Cholesky factors of n x n correlation matrices."""
    n = read_count(n, "n")
    return CorrelationCholesky((*read_shape(plates, "plates"), n, n))
