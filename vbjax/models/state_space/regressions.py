"""The three regressions of a state space model: their Gaussian chain, and their sums over a sequence.

They are of the first state on 1, of every state on the one before, and of groups of columns, whose noise is
correlated, on the state. All three are taken as y ~ N(M' x, Lam^-1) with expected statistics of (M, Lam): the
weights of the Gaussian chain q(x_1, ..., x_T), the bound and the factors' updates are read off them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.chains import gaussian as gaussian_chains
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartStatistics as Regression
from vbjax.numerics.linalg import outer, symmetrize, transpose
from vbjax.terms.paths import Sums, path_sums, spread_sums


class Regressions(NamedTuple):
    """Statistics of the three regressions; that of the columns has a leading axis of groups."""

    initial: Regression
    transitions: Regression
    emissions: Regression


class Groups(NamedTuple):
    """A sequence in groups of columns: values, 0 where they are not seen; which are seen; and its length."""

    y: Float[Array, "t g s"]
    seen: Float[Array, "t g"]
    length: Int[Array, ""]

    @property
    def here(self) -> Float[Array, " t"]:
        """Numbers that are 1 at the steps that there are, and 0 after the end."""
        return (jnp.arange(len(self.y), dtype=self.length.dtype) < self.length).astype(self.y.dtype)


def chain_of(regressions: Regressions, rows: Groups) -> gaussian_chains.Posterior:
    """Return q(x), whose log weight is the expected log joint (Beal 2003, eq. 5.39 to 5.41)."""
    initial, transitions, emissions = map(_second_moments, regressions)
    steps, d = len(rows.y), regressions.initial.pivot.shape[-1]
    goes_on = rows.here[1:, None, None]
    precision = jnp.tensordot(rows.seen, emissions[0], 1)
    precision = precision.at[0].add(regressions.initial.precision)
    precision = precision.at[:-1].add(goes_on * transitions[0])
    precision = precision.at[1:].add(regressions.transitions.precision)
    pull = rows.y.reshape(steps, -1) @ jnp.swapaxes(emissions[1], 1, 2).reshape(-1, d)
    pull = pull.at[0].add(initial[1][0])
    return gaussian_chains.smoother(precision, transitions[1], pull, rows.length)


def _second_moments(of: Regression) -> tuple[Array, Array]:
    """Return E[M Lam M'] and E[M Lam]."""
    return symmetrize(of.scatter_about(jnp.zeros_like(of.pivot))), of.cross + of.pivot @ of.precision


def sums_at(regressions: Regressions, x: Float[Array, "t d"], rows: Groups) -> tuple[Sums, ...]:
    """Return the three regressions' sums for a path x."""
    initial, transitions, emissions = (of.pivot for of in regressions)
    y, seen, here = rows.y, rows.seen, rows.here
    first = here[:1, None] * (x[:1] - initial)
    residual = seen[..., None] * (y - jnp.einsum("td,gds->tgs", x, emissions))
    return (
        Sums(here[0], here[:1, None], first, first.T @ first),
        path_sums(x, here, transitions),
        Sums(
            seen.sum(0),
            _by_group(seen, outer(x, x)),
            jnp.einsum("td,tgs->gds", x, residual),
            jnp.einsum("tgr,tgs->grs", residual, residual),
        ),
    )


def sums_of_spread(
    regressions: Regressions, chain: gaussian_chains.Posterior, rows: Groups
) -> tuple[Sums, ...]:
    """Return what the states' covariances add to the sums."""
    v, c = chain.covariances, regressions.emissions.pivot
    one = jnp.zeros_like(v[0, :1])
    observed = _by_group(rows.seen, v)
    return (
        Sums(one[0, 0], one[:, :1], one, v[0]),
        spread_sums(v, chain.cross_covariances.sum(0), rows.here, regressions.transitions.pivot),
        Sums(jnp.zeros_like(rows.seen[0]), observed, -observed @ c, transpose(c) @ observed @ c),
    )


def _by_group(seen: Float[Array, "t g"], x: Float[Array, "t d d"]) -> Float[Array, "g d d"]:
    """Sum matrices over the steps of every group."""
    return (seen.T @ x.reshape(len(x), -1)).reshape(-1, *x.shape[1:])
