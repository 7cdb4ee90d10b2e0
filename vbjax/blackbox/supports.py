"""Supports of latents: maps from all of R^n onto a set of values, with their log-determinants.

`BlackBox` works on R^n; a support maps a point of R^n to a value in the user's own space. For `blackbox` and
users; imports the pytree decorator and the reading of arguments.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import as_floating, as_numbers, is_concrete, read_count, read_shape


class Support:
    """Set of the values of one latent, with a map from R^size onto it.

    Subclasses are pytrees with `shape`, the shape of a value; they define the map, `to`, and its inverse,
    `back`.

    >>> import vbjax as vb
    >>> support = vb.positive(2)
    >>> u = support.unconstrain([1.0, 2.0])
    >>> print(support.size, u.round(3), support.constrain(u)[0])
    2 [0.    0.693] [1. 2.]
    """

    shape: tuple[int, ...]
    discrete: ClassVar[bool] = False

    @property
    def size(self) -> int:
        """Number of real numbers that a value is made from."""
        return math.prod(self.shape)

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        """Return the value at u, and the log volume by which the map stretches there."""
        raise TypeError(f"{type(self).__name__} has no map")

    def back(self, value: Array) -> Float[Array, " size"]:
        """Return the u of a value; not finite where the value lies outside."""
        raise TypeError(f"{type(self).__name__} has no inverse")

    def constrain(self, u: ArrayLike) -> tuple[Array, Float[Array, ""]]:
        """Return the value at u (size,), and the log volume by which the map stretches there.

        Raises:
            ValueError: a u of another shape.
        """
        u = as_floating(u, "u")
        if u.shape != (self.size,):
            raise ValueError(f"u must have shape ({self.size},); got {u.shape}")
        return self.to(u)

    def unconstrain(self, value: ArrayLike) -> Float[Array, " size"]:
        """Return the u (size,) of a value.

        Raises:
            ValueError: a value of another shape, or outside the support.
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
    """Entries between `low` and `high`, either of which may be None: by exp, or by the logistic function.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> value, log_slope = vb.unit_interval().constrain(jnp.zeros(1))
    >>> print(value, jnp.exp(log_slope))  # the logistic function at 0
    0.5 0.25
    """

    low: ArrayLike | None
    high: ArrayLike | None
    shape: tuple[int, ...] = static()

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        u = u.reshape(self.shape)
        if self.low is None and self.high is None:
            return u, jnp.zeros((), u.dtype)
        if self.high is None:
            return jnp.asarray(self.low, u.dtype) + jnp.exp(u), u.sum()
        if self.low is None:
            return jnp.asarray(self.high, u.dtype) - jnp.exp(u), u.sum()
        low, high = jnp.asarray(self.low, u.dtype), jnp.asarray(self.high, u.dtype)
        below, above = jax.nn.sigmoid(u), jax.nn.sigmoid(-u)
        # measured from the nearer end, a value keeps its digits
        value = jnp.where(u < 0, low + (high - low) * below, high - (high - low) * above)
        stretch = jnp.log(high - low) + jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u)
        return value, jnp.broadcast_to(stretch, self.shape).sum()

    def back(self, value: Array) -> Float[Array, " size"]:
        u = value
        if self.low is not None:
            u = jnp.log(value - jnp.asarray(self.low, value.dtype))
        if self.high is not None:
            above = jnp.log(jnp.asarray(self.high, value.dtype) - value)
            u = above if self.low is None else u - above
        return jnp.broadcast_to(u, self.shape).reshape(-1)


@pytree
class Category(Support):
    """Integers from 0 to n - 1, one of n cases for each entry; u holds them as floating-point numbers.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.category(3, 2).constrain(jnp.array([0.0, 2.0]))[0])
    [0 2]
    """

    n: int = static()
    shape: tuple[int, ...] = static()
    discrete = True

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        return jnp.round(u).astype(jnp.int32).reshape(self.shape), jnp.zeros((), u.dtype)

    def back(self, value: Array) -> Float[Array, " size"]:
        return jnp.asarray(value, jnp.result_type(float)).reshape(-1)


@pytree
class Simplex(Support):
    """Probabilities of k cases: the softmax of isometric log-ratio coordinates (Egozcue et al. 2003).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.simplex(4).constrain(jnp.zeros(3))[0])
    [0.25 0.25 0.25 0.25]
    """

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        return math.prod(self.shape[:-1]) * (self.shape[-1] - 1)

    @property
    def _basis(self) -> np.ndarray:
        """Helmert's matrix (k, k - 1): orthonormal columns, orthogonal to the vector of ones."""
        k = self.shape[-1]
        below = np.tril(np.ones((k, k - 1)), -1)  # column j: rows after j
        size = np.arange(k - 1, 0, -1)
        return (np.eye(k, k - 1) - below / size) / np.sqrt(1 + 1 / size)

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        k = self.shape[-1]
        log_p = jax.nn.log_softmax(u.reshape(*self.shape[:-1], k - 1) @ jnp.asarray(self._basis.T, u.dtype))
        return jnp.exp(log_p), log_p.sum() + 0.5 * math.log(k) * math.prod(self.shape[:-1])

    def back(self, value: Array) -> Float[Array, " size"]:
        return (jnp.log(value) @ jnp.asarray(self._basis, value.dtype)).reshape(-1)


@pytree
class Ordered(Support):
    """Increasing numbers x_1 < x_2 < ... along the last axis, above `low` if it is given; steps by exp.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.ordered(3).constrain(jnp.zeros(3))[0])
    [0. 1. 2.]
    """

    low: ArrayLike | None
    shape: tuple[int, ...] = static()

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        u = u.reshape(self.shape)
        steps = jnp.exp(u[..., 1:])
        if self.low is None:
            first, stretch = u[..., :1], u[..., 1:].sum()
        else:
            first, stretch = jnp.asarray(self.low, u.dtype) + jnp.exp(u[..., :1]), u.sum()
        return jnp.cumsum(jnp.concatenate([first, steps], -1), -1), stretch

    def back(self, value: Array) -> Float[Array, " size"]:
        first = (
            value[..., :1]
            if self.low is None
            else jnp.log(value[..., :1] - jnp.asarray(self.low, value.dtype))
        )
        return jnp.concatenate([first, jnp.log(jnp.diff(value))], -1).reshape(-1)


def _lower(u: Array, shape: tuple[int, ...], diagonal: int) -> Array:
    """Return square matrices with the entries of u on and below a diagonal, zeros elsewhere."""
    rows, columns = np.tril_indices(shape[-1], diagonal)
    return jnp.zeros(shape, u.dtype).at[..., rows, columns].set(u.reshape(*shape[:-2], -1))


def _entries(matrix: Float[Array, "*plates d d"], diagonal: int) -> Float[Array, " size"]:
    """Return the entries on and below a diagonal, as one vector."""
    rows, columns = np.tril_indices(matrix.shape[-1], diagonal)
    return matrix[..., rows, columns].reshape(-1)


@pytree
class CholeskyFactor(Support):
    """Lower triangular matrices with a positive diagonal, which exp maps from R.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.cholesky_factor(2).constrain(jnp.zeros(3))[0])
    [[1. 0.]
     [0. 1.]]
    """

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        d = self.shape[-1]
        return math.prod(self.shape[:-2]) * d * (d + 1) // 2

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        matrix = _lower(u, self.shape, 0)
        logs = jnp.diagonal(matrix, axis1=-2, axis2=-1)
        diagonal = jnp.eye(self.shape[-1], dtype=u.dtype) == 1
        return jnp.where(diagonal, jnp.exp(jnp.where(diagonal, matrix, 0)), matrix), logs.sum()

    def back(self, value: Array) -> Float[Array, " size"]:
        diagonal = jnp.eye(self.shape[-1], dtype=value.dtype) == 1
        return _entries(jnp.where(diagonal, jnp.log(jnp.where(diagonal, value, 1)), value), 0)


@pytree
class CorrelationCholesky(Support):
    """Cholesky factors of correlation matrices, whose rows have length one.

    Below the diagonal, entry j of a row is its canonical partial correlation tanh(u), times the length that
    the entries before it leave of the row (Lewandowski, Kurowicka & Joe 2009).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> root = vb.correlation_cholesky(2).constrain(jnp.arctanh(jnp.array([0.6])))[0]
    >>> print((root @ root.T).round(3))
    [[1.  0.6]
     [0.6 1. ]]
    """

    shape: tuple[int, ...] = static()

    @property
    def size(self) -> int:
        d = self.shape[-1]
        return math.prod(self.shape[:-2]) * d * (d - 1) // 2

    def to(self, u: Float[Array, " size"]) -> tuple[Array, Float[Array, ""]]:
        u = _lower(u, self.shape, -1)
        below = jnp.tril(jnp.ones(self.shape[-2:], bool), -1)
        log_rest = jnp.where(below, -2 * (u + jnp.logaddexp(0.0, -2 * u) - math.log(2)), 0)  # log sech^2
        left = 0.5 * (jnp.cumsum(log_rest, -1) - log_rest)  # log length left before each entry
        partial = jnp.where(below, jnp.tanh(u), jnp.eye(self.shape[-1], dtype=u.dtype))
        return partial * jnp.exp(left), jnp.where(below, log_rest + left, 0).sum()

    def back(self, value: Array) -> Float[Array, " size"]:
        squares = jnp.cumsum(value**2, -1) - value**2
        below = jnp.tril(jnp.ones(self.shape[-2:], bool), -1)
        left = jnp.sqrt(jnp.where(below, 1 - squares, 1))
        return _entries(jnp.arctanh(jnp.where(below, value / left, 0)), -1)


def _read_end(end: ArrayLike | None, name: str) -> ArrayLike | None:
    """Return an end of an interval, which must be finite where that can be seen; None stays None."""
    if end is None:
        return None
    numbers = as_numbers(end, name)
    if not isinstance(numbers, jax.core.Tracer) and not np.isfinite(np.asarray(numbers)).all():
        raise ValueError(f"{name} must be finite, or None where there is no end; got {end}")
    return end if isinstance(end, (int, float)) else numbers


def real(shape: int | tuple[int, ...] = ()) -> Support:
    """Return the support of real numbers, arrays of `shape`.

    >>> import vbjax as vb
    >>> vb.real((2, 3)).size
    6
    """
    return Interval(None, None, read_shape(shape))


def positive(shape: int | tuple[int, ...] = ()) -> Support:
    """Return the support of positive numbers, arrays of `shape`.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> value, log_volume = vb.positive(2).constrain(jnp.zeros(2))
    >>> print(value, log_volume)
    [1. 1.] 0.0
    """
    return Interval(0.0, None, read_shape(shape))


def unit_interval(shape: int | tuple[int, ...] = ()) -> Support:
    """Return the support of numbers between 0 and 1, arrays of `shape`.

    >>> import vbjax as vb
    >>> print(vb.unit_interval().unconstrain(0.5))
    [0.]
    """
    return Interval(0.0, 1.0, read_shape(shape))


def interval(
    low: ArrayLike | None, high: ArrayLike | None, shape: int | tuple[int, ...] | None = None
) -> Support:
    """Return the support of numbers between `low` and `high`.

    Args:
        low, high: the ends, numbers or arrays; None where there is no end.
        shape: of a value; by default that of the ends.

    Raises:
        ValueError: an end that is not finite; a `low` that is not below `high`; a `shape` that the ends do
            not broadcast to.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.interval(-1.0, 3.0).constrain(jnp.zeros(1))[0])  # half-way
    1.0
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
        pair = [np.broadcast_to(np.asarray(end), ends)[wrong][0] for end in (low, high)]
        raise ValueError(f"low must be below high; got {pair[0]} and {pair[1]}")
    return Interval(low, high, sizes)


def category(n_cases: int, shape: int | tuple[int, ...] = ()) -> Support:
    """Return the discrete support of integers from 0 to n_cases - 1, arrays of `shape`.

    >>> import vbjax as vb
    >>> vb.category(3, 2)
    Category(n=3, shape=(2,))
    """
    return Category(read_count(n_cases, "n_cases", least=2), read_shape(shape))


def simplex(n_cases: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Return the support of probabilities of `n_cases` cases, of shape (*plates, n_cases).

    >>> import vbjax as vb
    >>> support = vb.simplex(4, plates=2)
    >>> support.shape, support.size  # two rows of four probabilities, made from 2 x 3 real numbers
    ((2, 4), 6)
    """
    return Simplex((*read_shape(plates, "plates"), read_count(n_cases, "n_cases")))


def ordered(n: int, plates: int | tuple[int, ...] = (), *, low: ArrayLike | None = None) -> Support:
    """Return the support of n increasing numbers, of shape (*plates, n), all above `low` if it is given.

    Raises:
        ValueError: a `low` that is not finite, or neither a number nor of shape (*plates, 1).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> print(vb.ordered(3, low=0.0).constrain(jnp.zeros(3))[0])
    [1. 2. 3.]
    """
    shape, low = (*read_shape(plates, "plates"), read_count(n, "n")), _read_end(low, "low")
    first = (*shape[:-1], 1)
    if low is not None and np.shape(low) not in ((), first):
        raise ValueError(f"low must be a number, or numbers of shape {first}; got shape {np.shape(low)}")
    return Ordered(low, shape)


def cholesky_factor(n: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Return the support of Cholesky factors: lower triangular n x n, with a positive diagonal.

    >>> import vbjax as vb
    >>> vb.cholesky_factor(3).size  # entries on and below the diagonal
    6
    """
    n = read_count(n, "n")
    return CholeskyFactor((*read_shape(plates, "plates"), n, n))


def correlation_cholesky(n: int, plates: int | tuple[int, ...] = ()) -> Support:
    """Return the support of Cholesky factors of n x n correlation matrices.

    >>> import vbjax as vb
    >>> vb.correlation_cholesky(3).size  # entries below the diagonal
    3
    """
    n = read_count(n, "n")
    return CorrelationCholesky((*read_shape(plates, "plates"), n, n))
