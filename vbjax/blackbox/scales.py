"""Square root L of a normal's covariance in x = m + L z: diagonal, in blocks, or full.

A kind of scale carries draws by L, and moves (m, L) by a natural-gradient step. With the precision
S^-1 = (L L')^-1, gradients g of the log density and K = -E[(L' g) z'] made symmetric, the step of length rho
is

    S^-1 <- (1 - rho) S^-1 + rho L^-T K L^-1,   m <- m + rho S E[g]   with the new S.

References:
    Khan & Lin (2017), Conjugate-computation variational inference, AISTATS; Lin, Khan & Schmidt (2019),
    Stein's lemma for the reparameterization trick, on K.

For `blackbox`; imports linalg.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.numerics.linalg import cholesky, solve_lower, transpose
from vbjax.numerics.stored import stored


class Slope(NamedTuple):
    """Gradient of a fixed-draw bound at (m, L), in units of the present L.

    Attributes:
        pull: L' E[g], (d,).
        curvature: K, the lower triangle of -E[(L' g) z'] made symmetric, (d, d), or its diagonal (d,): the
            optimal precision in units of the present one, I where L is optimal (Stein's lemma).
    """

    pull: Float[Array, " d"]
    curvature: Float[Array, " d"] | Float[Array, "d d"]


@stored
@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Diagonal L, as a vector of standard deviations: the entries are independent."""

    def start(self, size: int, dtype: DTypeLike) -> Float[Array, " d"]:
        """Return the identity."""
        return jnp.ones(size, dtype)

    def apply(self, scale: Float[Array, " d"], z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z."""
        return z * scale

    def undo(self, scale: Float[Array, " d"], x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L^-1 x for every row x."""
        return x / scale

    def log_det(self, scale: Float[Array, " d"]) -> Float[Array, ""]:
        """Return log |L|."""
        return jnp.log(scale).sum()

    def free(self, scale: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return log L: numbers without constraints."""
        return jnp.log(scale)

    def bind(self, free: Float[Array, " d"]) -> Float[Array, " d"]:
        """Return the L that `free` numbers stand for."""
        return jnp.exp(free)

    def slope(
        self, scale: Float[Array, " d"], z: Float[Array, "n d"], gradients: Float[Array, "n d"]
    ) -> Slope:
        """Return the slope of the bound, from draws z and the gradients of the log density at L z."""
        h = gradients * scale
        return Slope(h.mean(0), -(h * z).mean(0))

    def gain(self, slope: Slope) -> Float[Array, ""]:
        """Return half the squared length of the natural gradient: the gain, in nats, that a step promises."""
        return 0.5 * (slope.pull**2).sum() + 0.25 * ((slope.curvature - 1) ** 2).sum()

    def bend(self, slope: Slope) -> Float[Array, ""]:
        """Return the trace of the curvature, which is negative where the log density is convex on average."""
        return slope.curvature.sum()

    def move(
        self, location: Float[Array, " d"], scale: Float[Array, " d"], slope: Slope, rho: Float[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Return (m, L) after a natural-gradient step of length rho; NaN where it leaves the family."""
        precision = 1 - rho + rho * slope.curvature
        root = 1 / jnp.sqrt(jnp.where(precision > 0, precision, jnp.nan))
        return location + scale * (rho * root**2 * slope.pull), scale * root


@stored
@dataclasses.dataclass(frozen=True)
class Full:
    """Lower triangular L, zero between blocks of these sizes; None is one block of all entries."""

    blocks: tuple[int, ...] | None = None

    def start(self, size: int, dtype: DTypeLike) -> Float[Array, "d d"]:
        """Return the identity."""
        return jnp.eye(size, dtype=dtype)

    def apply(self, scale: Float[Array, "d d"], z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z."""
        return z @ transpose(scale)

    def undo(self, scale: Float[Array, "d d"], x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L^-1 x for every row x."""
        return transpose(solve_lower(scale, transpose(x)))

    def log_det(self, scale: Float[Array, "d d"]) -> Float[Array, ""]:
        """Return log |L|."""
        return jnp.log(jnp.diagonal(scale)).sum()

    def free(self, scale: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """Return L with the logarithm of its diagonal in its place: numbers without constraints."""
        return jnp.tril(scale, -1) + jnp.diag(jnp.log(jnp.diagonal(scale)))

    def bind(self, free: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """Return the L that `free` numbers stand for."""
        return self._zero_between_blocks(jnp.tril(free, -1)) + jnp.diag(jnp.exp(jnp.diagonal(free)))

    def slope(
        self, scale: Float[Array, "d d"], z: Float[Array, "n d"], gradients: Float[Array, "n d"]
    ) -> Slope:
        """Return the slope of the bound, from draws z and the gradients of the log density at L z."""
        h = gradients @ scale
        cross = jnp.tril(transpose(h) @ z / len(z))
        curvature = -(cross + transpose(jnp.tril(cross, -1)))
        return Slope(h.mean(0), self._zero_between_blocks(curvature))

    def _zero_between_blocks(self, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
        if self.blocks is None:
            return matrix
        own = np.repeat(np.arange(len(self.blocks)), self.blocks)
        return jnp.where(own[:, None] == own, matrix, 0)

    def gain(self, slope: Slope) -> Float[Array, ""]:
        """Return half the squared length of the natural gradient: the gain, in nats, that a step promises."""
        off = slope.curvature - jnp.eye(len(slope.pull), dtype=slope.pull.dtype)
        return 0.5 * (slope.pull**2).sum() + 0.25 * (off**2).sum()

    def bend(self, slope: Slope) -> Float[Array, ""]:
        """Return the trace of the curvature, which is negative where the log density is convex on average."""
        return jnp.trace(slope.curvature)

    def move(
        self, location: Float[Array, " d"], scale: Float[Array, "d d"], slope: Slope, rho: Float[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """Return (m, L) after a natural-gradient step of length rho; NaN where it leaves the family."""
        eye = jnp.eye(len(location), dtype=location.dtype)
        precision = (1 - rho) * eye + rho * slope.curvature
        # precision = U U' with U upper, so that L U^-T is lower again
        upper = cholesky(precision[::-1, ::-1])[::-1, ::-1]
        root = solve_lower(transpose(upper), eye)
        return location + scale @ (root @ (transpose(root) @ (rho * slope.pull))), scale @ root
