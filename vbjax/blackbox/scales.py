"""Square root L of a normal's covariance in x = m + L z: diagonal, in blocks, or full.

A kind of scale carries draws by L, and moves (m, L) by a natural-gradient step. With the precision
S^-1 = (L L')^-1, gradients g of the log density and K = -E[(L' g) z'] made symmetric, the step of length rho
is

    S^-1 <- (1 - rho) S^-1 + rho L^-T K L^-1,   m <- m + rho S E[g]   with the new S.

K is the whole expected Hessian. A diagonal or blocked S^-1 keeps its own part of the step, but m moves as if
S were whole, by a Newton step where rho = 1: else it would crawl where latents are correlated.

References:
    Khan & Lin (2017), Conjugate-computation variational inference, AISTATS; Lin, Khan & Schmidt (2019),
    Stein's lemma for the reparameterization trick, on K.

For `blackbox`; imports linalg.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.numerics.linalg import cholesky, solve_lower, transpose
from vbjax.numerics.stored import stored

COUPLED = 1024  # entries of a diagonal L up to which K is whole, (d, d)


class Slope(NamedTuple):
    """Gradient of a fixed-draw bound at (m, L), in units of the present L.

    Attributes:
        pull: L' E[g], (d,).
        curvature: K, the lower triangle of -E[(L' g) z'] made symmetric, (d, d), the expected Hessian of
            -log p in units of L (Stein's lemma), whose own part is I where L is optimal. Of a diagonal L of
            very many entries, or with few draws, its diagonal (d,).
    """

    pull: Float[Array, " d"]
    curvature: Float[Array, " d"] | Float[Array, "d d"]

    @property
    def is_whole(self) -> bool:
        """Whether K is known beyond its diagonal."""
        return self.curvature.ndim == 2

    @property
    def diagonal(self) -> Float[Array, " d"]:
        """The diagonal of K."""
        return jnp.diagonal(self.curvature) if self.is_whole else self.curvature


def _curvature(h: Float[Array, "n d"], z: Float[Array, "n d"]) -> Float[Array, "d d"]:
    """Return K from gradients in units of L, at draws z."""
    cross = jnp.tril(transpose(h) @ z / len(z))
    return -(cross + transpose(jnp.tril(cross, -1)))


def whitener(precision: Float[Array, "d d"]) -> Float[Array, "d d"]:
    """Return the lower R with R R' = P^-1 of a precision P; NaN where P is not positive definite."""
    # P = U U' with U upper, so that R = U^-T is lower
    upper = cholesky(precision[::-1, ::-1])[::-1, ::-1]
    return solve_lower(transpose(upper), jnp.eye(len(precision), dtype=precision.dtype))


def _mixed(curvature: Float[Array, "d d"], rho: Float[Array, ""]) -> Float[Array, "d d"]:
    """Return (1 - rho) I + rho K."""
    return (1 - rho) * jnp.eye(len(curvature), dtype=curvature.dtype) + rho * curvature


def _gain(slope: Slope) -> Float[Array, ""]:
    """Return the nats that a Newton step of m promises; a natural-gradient step where K is not positive."""
    root = whitener(slope.curvature)
    newton = transpose(root) @ slope.pull
    return 0.5 * jnp.where(jnp.isfinite(root).all(), newton @ newton, slope.pull @ slope.pull)


@stored
@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Diagonal L, as a vector of standard deviations: the entries are independent."""

    is_part: ClassVar[bool] = True
    """Whether S^-1 keeps a part of K alone."""
    needs_hessian: ClassVar[bool] = False
    """Whether its slope takes products with the Hessian of the log density."""

    def usual_draws(self, size: int) -> int:
        """Return how many draws a fit has."""
        return max(128, 8 * size)

    def least_draws(self, size: int) -> int:
        """Return how many draws a fit must have."""
        return 2

    def start(self, size: int, dtype: DTypeLike) -> Float[Array, " d"]:
        """Return the identity."""
        return jnp.ones(size, dtype)

    def apply(self, scale: Float[Array, " d"], z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z."""
        return z * scale

    apply_matched = apply  # a fit's own z match the variances of their entries

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
        h, (n, d) = gradients * scale, z.shape
        whole = d <= COUPLED and n > 2 * d
        return Slope(h.mean(0), _curvature(h, z) if whole else -(h * z).mean(0))

    def gain(self, slope: Slope) -> Float[Array, ""]:
        """Return the gain, in nats, that a step promises."""
        near = _gain(slope) if slope.is_whole else 0.5 * (slope.pull**2).sum()
        return near + 0.25 * ((slope.diagonal - 1) ** 2).sum()

    def bend(self, slope: Slope) -> Float[Array, ""]:
        """Return the trace of the curvature, which is negative where the log density is convex on average."""
        return slope.diagonal.sum()

    def move(
        self, location: Float[Array, " d"], scale: Float[Array, " d"], slope: Slope, rho: Float[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """Return (m, L) after a step of length rho; NaN where it leaves the family."""
        precision, pull = 1 - rho + rho * slope.diagonal, rho * slope.pull
        own = 1 / jnp.sqrt(jnp.where(precision > 0, precision, jnp.nan))
        if not slope.is_whole:
            return location + scale * (own**2 * pull), scale * own
        root = whitener(_mixed(slope.curvature, rho))
        return location + scale * (root @ (transpose(root) @ pull)), scale * own

    def part(self, precision: Float[Array, "d d"], root: Float[Array, "d d"]) -> Float[Array, " d"]:
        """Return the L of this family that is best for a normal of a precision whose whitener is `root`."""
        return 1 / jnp.sqrt(jnp.diagonal(precision))


@stored
@dataclasses.dataclass(frozen=True)
class Full:
    """Lower triangular L, zero between blocks of these sizes; None is one block of all entries."""

    blocks: tuple[int, ...] | None = None
    needs_hessian: ClassVar[bool] = False

    def usual_draws(self, size: int) -> int:
        """Return how many draws a fit has."""
        return max(128, 8 * size)

    def least_draws(self, size: int) -> int:
        """Return how many draws a fit must have, for a covariance of their own."""
        return 2 * size + 2

    @property
    def is_part(self) -> bool:
        """Whether S^-1 keeps a part of K alone."""
        return self.blocks is not None

    def start(self, size: int, dtype: DTypeLike) -> Float[Array, "d d"]:
        """Return the identity."""
        return jnp.eye(size, dtype=dtype)

    def apply(self, scale: Float[Array, "d d"], z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z."""
        return z @ transpose(scale)

    apply_matched = apply

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
        return self._own(jnp.tril(free, -1)) + jnp.diag(jnp.exp(jnp.diagonal(free)))

    def slope(
        self, scale: Float[Array, "d d"], z: Float[Array, "n d"], gradients: Float[Array, "n d"]
    ) -> Slope:
        """Return the slope of the bound, from draws z and the gradients of the log density at L z."""
        h = gradients @ scale
        return Slope(h.mean(0), _curvature(h, z))

    def _own(self, matrix: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """Return a matrix with zeros between the blocks."""
        if self.blocks is None:
            return matrix
        own = np.repeat(np.arange(len(self.blocks)), self.blocks)
        return jnp.where(own[:, None] == own, matrix, 0)

    def gain(self, slope: Slope) -> Float[Array, ""]:
        """Return the gain, in nats, that a step promises."""
        off = self._own(slope.curvature) - jnp.eye(len(slope.pull), dtype=slope.pull.dtype)
        near = 0.5 * (slope.pull**2).sum() if self.blocks is None else _gain(slope)
        return near + 0.25 * (off**2).sum()

    def bend(self, slope: Slope) -> Float[Array, ""]:
        """Return the trace of the curvature, which is negative where the log density is convex on average."""
        return jnp.trace(slope.curvature)

    def move(
        self, location: Float[Array, " d"], scale: Float[Array, "d d"], slope: Slope, rho: Float[Array, ""]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """Return (m, L) after a step of length rho; NaN where it leaves the family."""
        precision = _mixed(slope.curvature, rho)
        root = whitener(precision)
        step = root @ (transpose(root) @ (rho * slope.pull))
        return location + scale @ step, scale @ self.part(precision, root)

    def part(self, precision: Float[Array, "d d"], root: Float[Array, "d d"]) -> Float[Array, "d d"]:
        """Return the L of this family that is best for a normal of a precision whose whitener is `root`."""
        return root if self.blocks is None else whitener(self._own(precision))
