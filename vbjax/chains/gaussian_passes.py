"""Elimination and substitution in Gaussian Markov chains, step by step or in parallel; a Kalman filter.

`gaussian` checks the arguments and documents them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.numerics.linalg import cholesky, logdet_from_cholesky, outer, solve_lower, symmetrize, transpose
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Tree

Chain: TypeAlias = tuple[Array, Array, Array]  # precision (T, D, D), coupling (T, D, D), pull (T, D, 1)


def without_padding(
    precision: Float[Array, "t d d"],
    coupling: Float[Array, "*steps d d"],
    pull: Float[Array, "t d"],
    length: Int[Array, ""] | None,
) -> tuple[Bool[Array, " t"], Chain]:
    """Return which steps are real, and the chain with independent states of unit precision at padding.

    A coupling of zeros is appended behind the last step.
    """
    steps, d = pull.shape
    here = jnp.arange(steps) < (steps if length is None else length)
    coupling = jnp.broadcast_to(coupling, (steps - 1, d, d))
    if length is not None:
        precision = jnp.where(here[:, None, None], precision, jnp.eye(d, dtype=pull.dtype))
        coupling = jnp.where(here[1:, None, None], coupling, 0)
        pull = jnp.where(here[:, None], pull, 0)
    return here, (symmetrize(precision), jnp.pad(coupling, ((0, 1), (0, 0), (0, 0))), pull[..., None])


def eliminate(
    precision: Float[Array, "t d d"],
    coupling: Float[Array, "t d d"],
    pull: Float[Array, "t d m"],
    *,
    parallel: bool | None,
) -> tuple[Float[Array, "t d d"], Float[Array, "t d d"], Float[Array, "t d m"]]:
    """Return the Cholesky factors R_t of P_t, the gains P_t^-1 L_t, and R_t^-1 v_t, by block elimination.

    Each column of the pull is one right side.
    """
    d = pull.shape[1]
    run = functools.partial(_dispatch, parallel, _one_by_one, _by_doubling)
    root, solved = run(precision, coupling, pull)
    return root, solve_upper(root, solved[..., :d]), solved[..., d:]


def _dispatch(
    parallel: bool | None, one_by_one: Callable[..., Tree], by_doubling: Callable[..., Tree], *arguments: Tree
) -> Tree:
    """Call the sequential or the parallel function; None leaves the choice to the platform."""
    if parallel is None:
        return lax.platform_dependent(*arguments, cpu=one_by_one, default=by_doubling)
    return (by_doubling if parallel else one_by_one)(*arguments)


def solve_upper(root: Float[Array, "*n d d"], half: Float[Array, "*n d m"]) -> Float[Array, "*n d m"]:
    """Return R^-T b."""
    return solve_lower(root, half, transposed=True)


def _one_by_one(precision: Array, coupling: Array, pull: Array) -> tuple[Array, Array]:
    """Return R_t and R_t^-1 [L_t, v_t] by a scan of elimination steps."""
    d = pull.shape[1]

    def step(message: tuple[Array, Array], x: tuple[Array, Array, Array]) -> Tree:
        precision, coupling, pull = x
        root = cholesky(precision - message[0])
        solved = solve_lower(root, jnp.concatenate([coupling, pull + message[1]], 1))
        product = transpose(solved[:, :d]) @ solved
        return (product[:, :d], product[:, d:]), (root, solved)

    start = jnp.zeros_like(precision[0]), jnp.zeros_like(pull[0])
    return lax.scan(step, start, (precision, coupling, pull))[1]


def _by_doubling(precision: Array, coupling: Array, pull: Array) -> tuple[Array, Array]:
    """Return R_t and R_t^-1 [L_t, v_t] from the weights of stretches of the chain, functions of their ends.

    A stretch holds -a' F a / 2 + a' L b - b' J b / 2 + f' a + h' b of its ends a and b; its first state's
    own weight belongs to the stretch before, so that F is at most 0. Of all stretches from the first state
    on, J and h are P_t and v_t.
    """

    def join(left: tuple[Array, ...], right: tuple[Array, ...]) -> tuple[Array, ...]:
        first, into, last, f, h = left
        first2, into2, last2, f2, h2 = right
        root = cholesky(last + first2)
        columns = solve_lower(root, jnp.concatenate([transpose(into), into2, h + f2], -1))
        to_left, to_right, middle = jnp.split(columns, (d, 2 * d), -1)
        left_t, right_t = transpose(to_left), transpose(to_right)
        ends = first - left_t @ to_left, left_t @ to_right, last2 - right_t @ to_right
        return *ends, f + left_t @ middle, h2 + right_t @ middle

    d = pull.shape[1]
    before = jnp.roll(coupling, 1, 0)  # zeros in front
    nothing = jnp.zeros_like(precision), jnp.zeros_like(pull)
    leaves = nothing[0], before, precision, nothing[1], pull
    _, _, precision, _, pull = lax.associative_scan(join, leaves)
    root = cholesky(symmetrize(precision))
    return root, solve_lower(root, jnp.concatenate([coupling, pull], -1))


def backward(
    gains: Float[Array, "t d d"],
    offsets: Float[Array, "t d m"],
    spreads: Float[Array, "t d d"] | None,
    parallel: bool | None,
) -> Tree:
    """Return x_t = G_t x_{t+1} + g_t of columns (T, D, m), and V_t = G_t V_{t+1} G_t' + S_t if S is given.

    With the moments of a filter these are the recursions of Rauch, Tung & Striebel (1965).
    """

    def after(later: Tree, own: Tree) -> Tree:
        (x, v), (gain, offset, spread) = later, own
        v = None if v is None else symmetrize(gain @ v @ transpose(gain)) + spread
        return gain @ x + offset, v

    def one_by_one(*steps: Tree) -> Tree:
        def step(later: Tree, own: Tree) -> Tree:
            found = after(later, own)
            return found, found

        start = jax.tree.map(lambda x: jnp.zeros_like(x[0]), steps[1:])
        return lax.scan(step, start, steps, reverse=True)[1]

    def by_doubling(*steps: Tree) -> Tree:
        def join(later: Tree, own: Tree) -> Tree:
            return own[0] @ later[0], *after(later[1:], own)

        return lax.associative_scan(join, steps, reverse=True)[1:]

    return _dispatch(parallel, one_by_one, by_doubling, gains, offsets, spreads)


def kalman_steps(
    y: Float[Array, "t p"],
    m0: Float[Array, " d"],
    v0: Float[Array, "d d"],
    a: Float[Array, "d d"],
    q: Float[Array, "d d"],
    c: Float[Array, "p d"],
    r: Float[Array, "p p"],
    length: Int[Array, ""] | None,
) -> tuple[Array, ...]:
    """Return log likelihoods, and means and covariances before and after every observation.

    The mean is Bishop 2006, eq. 13.89, the gain eq. 13.92, the covariance eq. 13.90 in Joseph's form.
    """
    seen = ~jnp.isnan(y)
    if length is not None:
        seen &= (jnp.arange(len(y)) < length)[:, None]
    eye = jnp.eye(len(m0), dtype=y.dtype)

    def step(state: tuple[Array, Array], x: tuple[Array, Array]) -> Tree:
        (mean, covariance), (row, there) = state, x
        own = jnp.where(there[:, None], c, 0)
        noise = jnp.where(outer(there, there), r, jnp.eye(len(row), dtype=r.dtype))
        root = cholesky(own @ covariance @ own.T + noise)
        columns = jnp.concatenate([own @ covariance, (row - own @ mean)[:, None]], 1)
        solved = solve_lower(root, columns)
        gain = solve_lower(root, solved[:, :-1], transposed=True).T  # (d, p)
        keep = eye - gain @ own
        new = mean + solved[:, :-1].T @ solved[:, -1]
        square = symmetrize(keep @ covariance @ keep.T + gain @ noise @ gain.T)
        density = (
            there.sum().astype(r.dtype) * LOG_2PI + logdet_from_cholesky(root) + (solved[:, -1] ** 2).sum()
        )
        ahead = a @ new, symmetrize(a @ square @ a.T) + q
        return ahead, (-0.5 * density, mean, covariance, new, square)

    return lax.scan(step, (m0, v0), (jnp.where(seen, y, 0), seen))[1]
