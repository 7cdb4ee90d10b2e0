"""Rows with missing entries: what Gaussian components make of the entries that are seen.

Where features are independent given a component, a missing entry is a factor that is left out. Where they are
correlated, the missing entries of a row are local latents, q(x_missing | component), normal with the
conditional moments under E[Lam]; they are integrated out of the row's expected log density in closed form,
and the moments of a row are those of what it is completed to. Of points (EM) that is the exact likelihood
of what is seen. A row of which nothing is seen leaves every component alone.

Imported by `structure.py`; layouts as there, but for (block, k, d) where every row has a matrix of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, logdet_from_cholesky, solve_lower
from vbjax.numerics.special import LOG_2PI


class Completed(NamedTuple):
    """Rows as every component completes them.

    Attributes:
        table: (n, k), expected log densities, the missing entries integrated out.
        shift: (n, k, d), E[x - m_k], the missing entries at their conditional means.
        covariance: (n, k, d, d), of the missing entries, 0 elsewhere.
    """

    table: Array
    shift: Array
    covariance: Array


def complete(
    precision: Array, root: Array, constant: Array, pull: ArrayLike, shift: Array, seen: Array
) -> Completed:
    """Integrate exp(constant + pull' (x - m) - (x - m)' P (x - m) / 2) over the missing entries.

    Args:
        precision: P, (k, d, d), and root, R'R = P: the square is one of whitened differences.
        constant: (k,). pull: (k, d), or 0 about the component's own location.
        shift: (n, k, d), x - m_k where x is seen.
        seen: (n, d).

    References:
        Little & Rubin (2002), Statistical analysis with missing data, section 11.2; Ghahramani & Jordan
        (1994), Supervised learning from incomplete data via an EM approach, section 3.
    """
    gone = ~seen[:, None, :]
    inside = gone[..., :, None] & gone[..., None, :]
    shift = jnp.where(gone, 0, shift)
    force = jnp.where(gone, pull - jnp.einsum("kij,nkj->nki", precision, shift), 0)
    lower = cholesky(jnp.where(inside, precision, jnp.eye(shift.shape[-1], dtype=shift.dtype)))
    half = solve_lower(lower, force[..., None])
    shift = shift + solve_lower(lower, half, transposed=True)[..., 0]
    square = (jnp.einsum("kij,nkj->nki", root, shift) ** 2).sum(-1)
    volume = LOG_2PI * gone.sum(-1).astype(shift.dtype) - logdet_from_cholesky(lower)
    table = constant + (pull * shift).sum(-1) - 0.5 * (square - volume)
    anything = seen.any(-1)[:, None]
    return Completed(jnp.where(anything, table, 0), shift, jnp.where(inside, inverse_from_cholesky(lower), 0))


def completed_moments(rows: Completed, r: Array, seen: Array) -> tuple[Array, Array, Array]:
    """Sum r (n, k) times 1, E[x - m] and E[(x - m)(x - m)'] over rows of which something is seen."""
    r = jnp.where(seen.any(-1)[:, None], r, 0)
    weighted = r[..., None] * rows.shift
    scatter = jnp.einsum("nki,nkj->kij", weighted, rows.shift)
    scatter = scatter + jnp.einsum("nk,nkij->kij", r, rows.covariance)
    return r.sum(0), weighted.sum(0), scatter
