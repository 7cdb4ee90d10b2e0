"""Linear algebra of small matrices in large batches: Cholesky factors, triangular solves, their uses.

On a CPU the factors and solves are plain XLA: recursion by halves down to a short loop over columns. LAPACK
takes batches one matrix after the other, and jaxlib 0.10 splits a large batch over the very threads that wait
for it: two such calls at the same time can wait for each other for ever (seen with 2 threads). On other
platforms they are XLA's own. Families, terms and models use them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax.numerics.compilation import jit
from vbjax.numerics.special import itakura_saito
from vbjax.numerics.types import Index

_LEAF = 16  # the largest matrix, in columns, that is handled by one loop; larger ones are halved
_UNROLLED = 3  # up to so many columns the loop is unrolled


def transpose(x: Float[Array, "*plate n m"]) -> Float[Array, "*plate m n"]:
    """Swap the last two axes."""
    return jnp.swapaxes(x, -1, -2)


def symmetrize(x: Float[Array, "*plate d d"]) -> Float[Array, "*plate d d"]:
    """Return the symmetric part (A + A') / 2 over the last two axes."""
    return 0.5 * (x + transpose(x))


def outer(x: Float[Array, "... n"], y: Float[Array, "... m"]) -> Float[Array, "... n m"]:
    """Return x y' over the last axis; leading axes broadcast."""
    return x[..., :, None] * y[..., None, :]


def quadratic_form(matrix: Float[Array, "... d d"], x: Float[Array, "... d"]) -> Float[Array, " ..."]:
    """Return x' A x over the last axis of x; leading axes broadcast."""
    return jnp.einsum("...i,...ij,...j->...", x, matrix, x)


@jit
def cholesky(x: Float[Array, "*plate d d"]) -> Float[Array, "*plate d d"]:
    """Return the lower factor of a symmetric matrix; NaN from the first column where it is not positive."""
    platform = functools.partial(lax.linalg.cholesky, symmetrize_input=False)
    return lax.platform_dependent(x, cpu=_cholesky, default=platform)


@functools.partial(jit, static_argnames="transposed")
def solve_lower(
    scale_tril: Float[Array, "... d d"], b: Float[Array, "... d m"], *, transposed: bool = False
) -> Float[Array, "... d m"]:
    """Return L^-1 b, or L^-T b, for a lower factor L and matrices b; leading axes broadcast."""
    shape = jnp.broadcast_shapes(scale_tril.shape[:-2], b.shape[:-2])
    scale_tril = jnp.broadcast_to(scale_tril, shape + scale_tril.shape[-2:])
    b = jnp.broadcast_to(b, shape + b.shape[-2:])
    platform = functools.partial(
        lax.linalg.triangular_solve, left_side=True, lower=True, transpose_a=transposed
    )
    own = _solve_transposed if transposed else _solve
    return lax.platform_dependent(scale_tril, b, cpu=own, default=platform)


@jit
def solve_pull(
    precision: Float[Array, "*plate d d"], pull: Float[Array, "*plate d m"]
) -> tuple[Float[Array, "*plate d m"], Float[Array, "*plate d m"]]:
    """Return L^-1 b and P^-1 b for a precision P = L L' and the columns b of a gradient.

    A coordinate of precision 0, on which neither rows nor a prior act, gets 0: it does not move.
    """
    eye = jnp.eye(precision.shape[-1], dtype=precision.dtype)
    root = cholesky(jnp.where((eye == 1) & (precision == 0), 1, precision))
    half = solve_lower(root, pull)
    return half, solve_lower(root, half, transposed=True)


def logdet_from_cholesky(scale_tril: Float[Array, "*plate d d"]) -> Float[Array, "*plate"]:
    """Return log det(L L') of a Cholesky factor L."""
    return 2 * jnp.log(jnp.diagonal(scale_tril, axis1=-2, axis2=-1)).sum(-1)


@jit
def inverse_from_cholesky(scale_tril: Float[Array, "*plate d d"]) -> Float[Array, "*plate d d"]:
    """Return (L L')^-1 of a Cholesky factor L, exactly symmetric."""
    root = solve_lower(scale_tril, jnp.eye(scale_tril.shape[-1], dtype=scale_tril.dtype))
    return symmetrize(transpose(root) @ root)


def inverse_and_logdet(
    covariance: Float[Array, "*plate d d"],
) -> tuple[Float[Array, "*plate d d"], Float[Array, "*plate"]]:
    """Return the inverse of a covariance and that inverse's log-determinant, both from one factor."""
    root = cholesky(covariance)
    return inverse_from_cholesky(root), -logdet_from_cholesky(root)


def least_share(covariance: Float[Array, "*plate d d"]) -> Float[Array, "*plate"]:
    """Return the least share of a column's variance that the columns before it leave unexplained.

    Near-collinear columns make it small, whatever their units. It is NaN where the matrix has no factor.
    """
    diagonal = functools.partial(jnp.diagonal, axis1=-2, axis2=-1)
    return ((diagonal(cholesky(covariance)) / jnp.sqrt(diagonal(covariance))) ** 2).min(-1)


def ill_conditioned(covariance: Float[Array, "*plate d d"]) -> Bool[Array, ""]:
    """Return whether some covariance has a direction whose variance may be nothing but rounding.

    The limit is a hundred roundings of the other variances, where two digits of the log-determinant are left.
    A matrix that is not finite does not count as ill-conditioned.
    """
    clear = least_share(covariance) > 100 * covariance.shape[-1] * jnp.finfo(covariance.dtype).eps
    return (~clear & jnp.isfinite(covariance).all((-2, -1))).any()


def rounding_of(
    covariance: Float[Array, "*plate d d"], number: Float[Array, "*plate"], floor: ArrayLike = 0.0
) -> Float[Array, "*plate"]:
    """Return the rounding error that a covariance puts in its rows' summed log density, in units of eps.

    With c = 1 / least_share, whitened differences are off by sqrt(c) roundings, and the narrowest variance is
    off by c of them. At an optimum that error enters in second order, for every row. It enters in first order
    in the prior's trace, a sum of D x D products, and on a boundary, where shares are held above `floor`. The
    result is 0 for covariances that are nowhere narrow. `number` is the number of rows.
    """
    c, size = 1 / least_share(covariance), covariance.shape[-1]
    of_rows = jnp.where(c * floor > 0.1, c, jnp.sqrt(c) + jnp.finfo(covariance.dtype).eps * c**2)
    return jnp.where(c > 1e3, number * of_rows + size**2 * c, 0)


def stein_loss(
    scale_tril: Float[Array, "... d d"], other_tril: Float[Array, "... d d"], ratio: ArrayLike = 1.0
) -> Float[Array, " ..."]:
    """Return tr(M) - D - log det M >= 0 of M = ratio V0 V^-1, from the factors of V and V0.

    For D = 1 it is `itakura_saito`.
    """
    root = solve_lower(scale_tril, other_tril)  # M is similar to ratio root root', and root is lower
    diagonal = jnp.diagonal(root, axis1=-2, axis2=-1) ** 2
    below = (jnp.tril(root, -1) ** 2).sum((-1, -2))
    return itakura_saito(jnp.expand_dims(ratio, -1) * diagonal).sum(-1) + ratio * below


# -- plain XLA -------------------------------------------------------------------------------------------


def _over_columns(
    size: int, column: Callable[[Index, Array], Array], start: Float[Array, "*plate n m"]
) -> Float[Array, "*plate n m"]:
    """Apply `column(j, carry)` for j = 0 .. size - 1, unrolled or as a loop."""
    if size > _UNROLLED:
        return lax.fori_loop(0, size, column, start)
    for j in range(size):
        start = column(j, start)
    return start


def _at(x: Float[Array, " ..."], j: Index, axis: int) -> Float[Array, " ..."]:
    """Return x[..., j, :] or x[..., :, j], by a static or a traced index.

    `vmap` makes a gather of a dynamic slice, even if its index is known: a known one is a static slice.
    """
    if isinstance(j, int):
        return lax.index_in_dim(x, j, x.ndim + axis, keepdims=False)
    return lax.dynamic_index_in_dim(x, j, x.ndim + axis, keepdims=False)


def _cholesky(x: Float[Array, "*plate d d"]) -> Float[Array, "*plate d d"]:
    size = x.shape[-1]
    if size > _LEAF:
        half = size // 2
        upper = _cholesky(x[..., :half, :half])
        side = transpose(_solve(upper, transpose(x[..., half:, :half])))
        lower = _cholesky(x[..., half:, half:] - side @ transpose(side))
        top = jnp.concatenate([upper, jnp.zeros_like(transpose(side))], -1)
        return jnp.concatenate([top, jnp.concatenate([side, lower], -1)], -2)
    rows = np.arange(size)

    def column(j: Index, carry: Array) -> Array:
        # columns before j are finished; the others hold what remains of x
        rest = _at(carry, j, -1)
        pivot = _at(rest, j, -1)[..., None]
        done = jnp.where(rows >= j, rest / jnp.sqrt(jnp.where(pivot > 0, pivot, jnp.nan)), 0)
        remains = carry - outer(done, done)
        return jnp.where(rows > j, remains, jnp.where(rows == j, done[..., :, None], carry))

    return _over_columns(size, column, x)


def _solve(
    scale_tril: Float[Array, "*plate d d"], b: Float[Array, "*plate d m"]
) -> Float[Array, "*plate d m"]:
    size = scale_tril.shape[-1]
    if size > _LEAF:
        half = size // 2
        top = _solve(scale_tril[..., :half, :half], b[..., :half, :])
        rest = b[..., half:, :] - scale_tril[..., half:, :half] @ top
        return jnp.concatenate([top, _solve(scale_tril[..., half:, half:], rest)], -2)
    rows = np.arange(size)[:, None]

    def column(j: Index, x: Array) -> Array:
        # rows before j are solved; the others hold the right side that remains
        factor = _at(scale_tril, j, -1)
        solved = _at(x, j, -2) / _at(factor, j, -1)[..., None]
        remains = x - outer(factor, solved)
        return jnp.where(rows > j, remains, jnp.where(rows == j, solved[..., None, :], x))

    return _over_columns(size, column, b)


def _solve_transposed(
    scale_tril: Float[Array, "*plate d d"], b: Float[Array, "*plate d m"]
) -> Float[Array, "*plate d m"]:
    # L' with rows and columns in reverse order is a lower factor again
    return _solve(transpose(scale_tril)[..., ::-1, ::-1], b[..., ::-1, :])[..., ::-1, :]
