"""The three regressions of a state space model: their Gaussian chain, their moments, and their energies.

Of one sequence, in groups of columns whose noise is correlated: y (t, g, s), 0 where it is not seen, and seen
(t, g). Imported by `state_space`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from vbjax.chains import gaussian as gaussian_chains
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartStatistics as Regression
from vbjax.numerics.linalg import outer, symmetrize, transpose
from vbjax.numerics.special import LOG_2PI


class Moments(NamedTuple):
    """Sums of a regression over its steps, about the pivot B of M: r = y - B'x.

    Attributes:
        number: of steps.
        gram, cross, square: sums of E[x x'], E[x r'] and E[r r'].
    """

    number: Array
    gram: Array
    cross: Array
    square: Array


def chain_of(
    regressions: tuple[Regression, ...], y: Array, seen: Array, length: Array
) -> gaussian_chains.Posterior:
    """q(x), whose log weight is the expected log joint (Beal 2003, eq. 5.39 to 5.41)."""
    initial, transitions, emissions = map(_second_moments, regressions)
    steps, d = len(y), regressions[0].pivot.shape[-1]
    goes_on = _goes_on(steps, length)[:, None, None]
    precision = jnp.tensordot(seen, emissions[0], 1)
    precision = precision.at[0].add(regressions[0].precision)
    precision = precision.at[:-1].add(jnp.where(goes_on, transitions[0], 0))
    precision = precision.at[1:].add(regressions[1].precision)
    pull = y.reshape(steps, -1) @ jnp.swapaxes(emissions[1], 1, 2).reshape(-1, d)
    pull = pull.at[0].add(initial[1][0])
    return gaussian_chains.smoother(precision, transitions[1], pull, length)


def _goes_on(steps: int, length: Array) -> Array:
    """Whether there is another step after each but the last, (steps - 1,)."""
    return jnp.arange(1, steps, dtype=length.dtype) < length


def _second_moments(of: Regression) -> tuple[Array, Array]:
    """E[M Lam M'] and E[M Lam]."""
    return symmetrize(of.scatter_about(jnp.zeros_like(of.pivot))), of.cross + of.pivot @ of.precision


def energies(of: Regression, sums: Moments) -> tuple[Array, Array]:
    """The expected log density of a regression over its steps: constants, and squares."""
    constant = sums.number * (of.logdet - of.pivot.shape[-1] * LOG_2PI)
    misfit = (of.precision * sums.square).sum() - 2 * (of.cross * sums.cross).sum()
    return 0.5 * constant.sum(), -0.5 * (misfit + (of.square * sums.gram).sum())


def moments_at(
    regressions: tuple[Regression, ...], x: Array, y: Array, seen: Array, length: Array
) -> tuple[Moments, ...]:
    """The three regressions' sums for a path x (t, d)."""
    initial, transitions, emissions = (of.pivot for of in regressions)
    goes_on = _goes_on(len(y), length).astype(y.dtype)
    there = (length > 0).astype(y.dtype)
    first = there * (x[:1] - initial)
    residual = goes_on[:, None] * (x[1:] - x[:-1] @ transitions)
    before = goes_on[:, None] * x[:-1]
    groups = seen[..., None] * (y - jnp.einsum("td,gds->tgs", x, emissions))
    return (
        Moments(there, there * jnp.ones_like(x[:1, :1]), first, first.T @ first),
        Moments(goes_on.sum(), before.T @ before, before.T @ residual, residual.T @ residual),
        Moments(
            seen.sum(0),
            _by_group(seen, outer(x, x)),
            jnp.einsum("td,tgs->gds", x, groups),
            jnp.einsum("tgr,tgs->grs", groups, groups),
        ),
    )


def moments_of_spread(
    regressions: tuple[Regression, ...], chain: gaussian_chains.Posterior, seen: Array, length: Array
) -> tuple[Moments, ...]:
    """What the states' covariances add to the sums."""
    _, b, emissions = (of.pivot for of in regressions)
    v, zero = chain.covariances, jnp.zeros_like(seen[0, 0])
    goes_on = _goes_on(len(v), length)[:, None, None]
    before, pairs = jnp.where(goes_on, v[:-1], 0).sum(0), chain.cross_covariances.sum(0)
    cross = pairs - before @ b
    square = v[1:].sum(0) - b.T @ pairs - cross.T @ b
    observed = _by_group(seen, v)
    return (
        Moments(zero, jnp.zeros_like(v[0, :1, :1]), jnp.zeros_like(v[0, :1]), v[0]),
        Moments(zero, before, cross, symmetrize(square)),
        Moments(
            jnp.zeros_like(seen[0]),
            observed,
            -observed @ emissions,
            transpose(emissions) @ observed @ emissions,
        ),
    )


def _by_group(seen: Array, x: Array) -> Array:
    """Sums over the steps of every group, (g, d, d), of matrices (t, d, d)."""
    return (seen.T @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
