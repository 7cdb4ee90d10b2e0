"""Bordered block-tridiagonal matrices ("arrows") and their Cholesky factors, in linear time and memory.

An arrow is a symmetric matrix [[B, C], [C', G]] where B is block tridiagonal, T blocks of size s, and a
border of b numbers touches all: chains and hierarchies with global parameters. Block elimination is that of
Gaussian chains (`chains.gaussian_passes`), with the border's columns carried along. For `sparse_precision`.

References:
    Rue & Held (2005), Gaussian Markov random fields, sections 2.4 and 2.5; Takahashi, Fagan & Chen (1973)
    for the diagonal of the inverse.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.chains.gaussian_passes import backward, eliminate, solve_upper
from vbjax.families.base import pytree
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, solve_lower, symmetrize, transpose

Columns: TypeAlias = tuple[
    Float[Array, "t s m"], Float[Array, "b m"]
]  # m vectors: in B's blocks, at the border


@pytree
class Arrow:
    """Symmetric matrix [[B, C], [C', G]].

    Attributes:
        diagonal: the blocks on the diagonal of B, (T, s, s).
        coupling: minus the blocks beside them, B[t, t + 1], (T, s, s); the last one is zero.
        border: C, (T, s, b).
        corner: G, (b, b).
    """

    diagonal: Float[Array, "t s s"]
    coupling: Float[Array, "t s s"]
    border: Float[Array, "t s b"]
    corner: Float[Array, "b b"]

    def times(self, x: Columns) -> Columns:
        """Return the product with m vectors."""
        band, edge = x
        after = jnp.roll(band, -1, 0).at[-1].set(0)
        pulled = jnp.roll(transpose(self.coupling) @ band, 1, 0)  # that of the last block is zero
        return (
            self.diagonal @ band - self.coupling @ after - pulled + self.border @ edge,
            jnp.einsum("tsb,tsm->bm", self.border, band) + self.corner @ edge,
        )

    def mixed(self, other: Arrow, rho: Float[Array, ""]) -> Arrow:
        """Return (1 - rho) times this matrix + rho times the other."""
        return jax.tree.map(lambda x, y: (1 - rho) * x + rho * y, self, other)

    def factor(self) -> ArrowFactor:
        """Return the Cholesky factor; NaN where the matrix is not positive definite."""
        root, gains, border = eliminate(self.diagonal, self.coupling, self.border, parallel=None)
        schur = symmetrize(self.corner - jnp.einsum("tsb,tsc->bc", border, border))
        return ArrowFactor(root, gains, border, cholesky(schur))


@pytree
class ArrowFactor:
    """Cholesky factor R of an arrow P = R R'.

    Attributes:
        root: R's blocks on the diagonal, (T, s, s), lower triangular.
        gains: the regression of each block on the next, (T, s, s): R_t R_t' gains_t is the coupling.
        border: the rows of R at the border, transposed, (T, s, b).
        corner: the factor of what the border has left, (b, b), lower triangular.
    """

    root: Float[Array, "t s s"]
    gains: Float[Array, "t s s"]
    border: Float[Array, "t s b"]
    corner: Float[Array, "b b"]

    def matrix(self) -> Arrow:
        """Return P."""
        squared = self.root @ transpose(self.root)
        coupling = squared @ self.gains
        into_next = transpose(self.gains) @ jnp.concatenate([coupling, self.root @ self.border], -1)
        before = jnp.roll(into_next, 1, 0)  # the last gain is zero
        s = self.root.shape[-1]
        return Arrow(
            symmetrize(squared + before[..., :s]),
            coupling,
            self.root @ self.border - before[..., s:],
            self.corner @ self.corner.T + jnp.einsum("tsb,tsc->bc", self.border, self.border),
        )

    def scaled(self, by: float | Array) -> ArrowFactor:
        """Return the factor of by^2 P."""
        return ArrowFactor(by * self.root, self.gains, by * self.border, by * self.corner)

    def times_transposed(self, x: Columns) -> Columns:
        """Return R' x."""
        band, edge = x
        after = jnp.roll(band, -1, 0).at[-1].set(0)
        own = transpose(self.root) @ (band - self.gains @ after) + self.border @ edge
        return own, transpose(self.corner) @ edge

    def solve_transposed(self, z: Columns) -> Columns:
        """Return R'^-1 z, of covariance P^-1 where z is standard normal."""
        band, edge = z
        edge = solve_lower(self.corner, edge, transposed=True)
        return backward(self.gains, solve_upper(self.root, band - self.border @ edge), None, None)[0], edge

    def solve(self, x: Columns) -> Columns:
        """Return R^-1 x."""
        band, edge = x
        # R_t+1 y_t+1 = x_t+1 + gains_t' R_t y_t: the recursion of `backward`, in the other direction
        into_next = jnp.roll(transpose(self.gains) @ self.root, 1, 0)
        steps = solve_lower(self.root, into_next), solve_lower(self.root, band)
        band = backward(steps[0][::-1], steps[1][::-1], None, None)[0][::-1]
        return band, solve_lower(self.corner, edge - jnp.einsum("tsb,tsm->bm", self.border, band))

    def covariance(self) -> Arrow:
        """Return the blocks of P^-1 at the places of those of P, by a pass backwards (Takahashi et al.)."""
        spreads = inverse_from_cholesky(self.root)
        pulled, inverse = backward(self.gains, solve_upper(self.root, self.border), spreads, None)
        by_border = solve_lower(self.corner, transpose(pulled))
        after = jnp.roll(inverse, -1, 0), jnp.roll(by_border, -1, 0).at[-1].set(0)
        return Arrow(
            inverse + transpose(by_border) @ by_border,
            -(self.gains @ after[0] + transpose(by_border) @ after[1]),
            -pulled @ inverse_from_cholesky(self.corner),
            inverse_from_cholesky(self.corner),
        )


def second_moments(x: Columns) -> Arrow:
    """Return the blocks of x x' / m of m vectors, at the places of those of an arrow."""
    band, edge = x
    after = jnp.roll(band, -1, 0).at[-1].set(0)
    products = band @ transpose(band), -band @ transpose(after), band @ edge.T, edge @ edge.T
    return Arrow(*(product / edge.shape[-1] for product in products))
