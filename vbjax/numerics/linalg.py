"""Small matrices in large batches: Cholesky factors, triangular solves, and what is made of them.

On a CPU they are plain XLA: recursion by halves down to a short loop over columns. LAPACK takes batches one
matrix after the other, and jaxlib 0.10 splits a large batch over the very threads that wait for it: two such
calls at the same time can wait for each other for ever (seen with 2 threads). Elsewhere they are XLA's own.
For families, terms and models; imports `special` alone.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from vbjax.numerics.special import itakura_saito

_LEAF = 16  # columns of a matrix that one loop takes; larger ones are halved
_UNROLLED = 3  # columns that are written out instead


def transpose(x: Array) -> Array:
    """Swap the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def symmetrize(x: Array) -> Array:
    """The symmetric part of the last two axes."""
    return 0.5 * (x + transpose(x))


def outer(x: Array, y: Array) -> Array:
    """x y' over the last axis."""
    return x[..., :, None] * y[..., None, :]


def quadratic_form(matrix: Array, x: Array) -> Array:
    """x' A x over the last axis of x."""
    return jnp.einsum("...i,...ij,...j->...", x, matrix, x)


@jax.jit
def cholesky(x: Array) -> Array:
    """Lower factor of a symmetric positive definite matrix; NaN from the first column where it is not one."""
    platform = functools.partial(lax.linalg.cholesky, symmetrize_input=False)
    return lax.platform_dependent(x, cpu=_cholesky, default=platform)


@functools.partial(jax.jit, static_argnames="transposed")
def solve_lower(scale_tril: Array, b: Array, *, transposed: bool = False) -> Array:
    """L^-1 b, or L^-T b, for a lower factor L and matrices b; leading axes broadcast."""
    shape = jnp.broadcast_shapes(scale_tril.shape[:-2], b.shape[:-2])
    scale_tril = jnp.broadcast_to(scale_tril, shape + scale_tril.shape[-2:])
    b = jnp.broadcast_to(b, shape + b.shape[-2:])
    platform = functools.partial(
        lax.linalg.triangular_solve, left_side=True, lower=True, transpose_a=transposed
    )
    own = _solve_transposed if transposed else _solve
    return lax.platform_dependent(scale_tril, b, cpu=own, default=platform)


@jax.jit
def solve_pull(precision: Array, pull: Array) -> tuple[Array, Array]:
    """L^-1 b and P^-1 b, where P = L L' is a precision and b what pulls: matrices of columns.

    A coordinate of precision 0, which nothing pulls (no rows, no prior), does not move.
    """
    eye = jnp.eye(precision.shape[-1], dtype=precision.dtype)
    root = cholesky(jnp.where((eye == 1) & (precision == 0), 1, precision))
    half = solve_lower(root, pull)
    return half, solve_lower(root, half, transposed=True)


def logdet_from_cholesky(scale_tril: Array) -> Array:
    """log det(L L') from its Cholesky factor L."""
    return 2 * jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)


@jax.jit
def inverse_from_cholesky(scale_tril: Array) -> Array:
    """(L L')^-1, exactly symmetric, from its Cholesky factor L."""
    root = solve_lower(scale_tril, jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype))
    return symmetrize(transpose(root) @ root)


def least_share(covariance: Array) -> Array:
    """Return the least share of a column's variance that those before it leave, over the last two axes.

    It is what near-collinear columns make small, whatever the units; NaN where there is no factor.
    """
    variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
    unit = jnp.sqrt(jnp.where(variance > 0, variance, 1))
    pivots = jnp.diagonal(cholesky(covariance / outer(unit, unit)), axis1=-2, axis2=-1) ** 2
    return pivots.min(-1)


def ill_conditioned(covariance: Array) -> Array:
    """Return whether some covariance has a direction of no more variance than rounding may put there.

    That is a hundred roundings of the others' or less: of a log-determinant two digits are left then. What is
    not finite is not ill-conditioned.
    """
    clear = least_share(covariance) > 100 * covariance.shape[-1] * jnp.finfo(covariance.dtype).eps
    return (~clear & jnp.isfinite(covariance).all((-2, -1))).any()


def rounding_of(covariance: Array, number: Array, floor: ArrayLike = 0.0) -> Array:
    """Return what the log densities of a covariance's rows lose by its rounding, in units of the dtype's.

    With c = 1 / least_share, whitened differences are off by sqrt(c) roundings, and the narrowest variance by
    c of them. An optimum feels that in second order, for every row; a boundary, shares that are held above
    `floor`, in first, and so does the prior's trace. It is 0 of covariances that are nowhere narrow.
    """
    c, size = 1 / least_share(covariance), covariance.shape[-1]
    of_rows = jnp.where(c * floor > 0.1, c, jnp.sqrt(c) + jnp.finfo(covariance.dtype).eps * c**2)
    return jnp.where(c > 1e3, number * of_rows + size * c, 0)


def stein_loss(scale_tril: Array, other_tril: Array, ratio: ArrayLike = 1.0) -> Array:
    """tr(M) - D - log det M >= 0 of M = ratio V0 V^-1, from the factors of V and V0.

    For D = 1 it is `itakura_saito`.
    """
    root = solve_lower(scale_tril, other_tril)  # M is similar to ratio root root', and root is lower
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1) ** 2
    below = (jnp.tril(root, -1) ** 2).sum((-1, -2))
    return itakura_saito(jnp.expand_dims(ratio, -1) * diagonal).sum(-1) + ratio * below


# -- plain XLA -------------------------------------------------------------------------------------------


def _over_columns(size: int, column: Any, start: Array) -> Array:
    """`column(j, carry)` for j = 0 .. size - 1, written out or as a loop."""
    if size > _UNROLLED:
        return lax.fori_loop(0, size, column, start)
    for j in range(size):
        start = column(j, start)
    return start


def _at(x: Array, j: Any, axis: int) -> Array:
    """x[..., j, :] or x[..., :, j], by a static or a traced index."""
    return lax.dynamic_index_in_dim(x, j, x.ndim + axis, keepdims=False)


def _cholesky(x: Array) -> Array:
    size = x.shape[-1]
    if size > _LEAF:
        half = size // 2
        upper = _cholesky(x[..., :half, :half])
        side = transpose(_solve(upper, transpose(x[..., half:, :half])))
        lower = _cholesky(x[..., half:, half:] - side @ transpose(side))
        top = jnp.concatenate([upper, jnp.zeros_like(transpose(side))], -1)
        return jnp.concatenate([top, jnp.concatenate([side, lower], -1)], -2)
    rows = np.arange(size)

    def column(j: Any, carry: Array) -> Array:
        # columns before j are finished; the rest holds what remains of x
        rest = _at(carry, j, -1)
        pivot = _at(rest, j, -1)[..., None]
        done = jnp.where(rows >= j, rest / jnp.sqrt(jnp.where(pivot > 0, pivot, jnp.nan)), 0)
        remains = carry - outer(done, done)
        return jnp.where(rows > j, remains, jnp.where(rows == j, done[..., :, None], carry))

    return _over_columns(size, column, x)


def _solve(scale_tril: Array, b: Array) -> Array:
    size = scale_tril.shape[-1]
    if size > _LEAF:
        half = size // 2
        top = _solve(scale_tril[..., :half, :half], b[..., :half, :])
        rest = b[..., half:, :] - scale_tril[..., half:, :half] @ top
        return jnp.concatenate([top, _solve(scale_tril[..., half:, half:], rest)], -2)
    rows = np.arange(size)[:, None]

    def column(j: Any, x: Array) -> Array:
        # rows before j are solved; the rest holds the right side that remains
        factor = _at(scale_tril, j, -1)
        solved = _at(x, j, -2) / _at(factor, j, -1)[..., None]
        remains = x - outer(factor, solved)
        return jnp.where(rows > j, remains, jnp.where(rows == j, solved[..., None, :], x))

    return _over_columns(size, column, b)


def _solve_transposed(scale_tril: Array, b: Array) -> Array:
    # L' read from both ends is a lower factor again
    return _solve(transpose(scale_tril)[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]
