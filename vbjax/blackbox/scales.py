"""The square root L of a normal's covariance in x = m + L z: entries apart, in blocks, or full.

Each says how L carries draws, and how a whitened curvature moves it. For `blackbox`; imports linalg.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.numerics.linalg import cholesky, solve_lower, transpose


class Slope(NamedTuple):
    """The gradient of a fixed-draw bound at (m, L), seen from the draws: L' E[g], and K.

    K = -E[(L' g) z'], minus its part above the diagonal, made symmetric: the precision in units of the
    present one, I where L is best (Stein's lemma; Lin, Khan & Schmidt 2019).
    """

    pull: Array
    curvature: Array


@dataclasses.dataclass(frozen=True)
class Diagonal:
    """Independent entries: L is a vector of standard deviations."""

    def start(self, size: int, dtype: Any) -> Array:
        return jnp.ones(size, dtype)

    def apply(self, scale: Array, z: Array) -> Array:
        """L z, for draws (n, size)."""
        return z * scale

    def undo(self, scale: Array, x: Array) -> Array:
        """L^-1 x, for rows x (n, size)."""
        return x / scale

    def log_det(self, scale: Array) -> Array:
        return jnp.log(scale).sum()

    def free(self, scale: Array) -> Array:
        """Numbers without constraints that stand for L."""
        return jnp.log(scale)

    def bind(self, free: Array) -> Array:
        """L again."""
        return jnp.exp(free)

    def slope(self, scale: Array, z: Array, gradients: Array) -> Slope:
        h = gradients * scale
        return Slope(h.mean(0), -(h * z).mean(0))

    def gain(self, slope: Slope) -> Array:
        """Half the squared length of the natural gradient: what the next step promises, in nats."""
        return 0.5 * (slope.pull**2).sum() + 0.25 * ((slope.curvature - 1) ** 2).sum()

    def bend(self, slope: Slope) -> Array:
        """The trace of the curvature: negative where the log density is convex on average."""
        return slope.curvature.sum()

    def move(self, location: Array, scale: Array, slope: Slope, rho: Array) -> tuple[Array, Array]:
        """(m, L) after a step of length rho of the natural gradient; NaN where it leaves the family."""
        precision = 1 - rho + rho * slope.curvature
        root = 1 / jnp.sqrt(jnp.where(precision > 0, precision, jnp.nan))
        return location + scale * (rho * root**2 * slope.pull), scale * root


@dataclasses.dataclass(frozen=True)
class Full:
    """Blocks of entries that vary together, of these sizes, or one: L is lower triangular, zero between."""

    blocks: tuple[int, ...] | None = None

    def start(self, size: int, dtype: Any) -> Array:
        return jnp.eye(size, dtype=dtype)

    def apply(self, scale: Array, z: Array) -> Array:
        """L z, for draws (n, size)."""
        return z @ transpose(scale)

    def undo(self, scale: Array, x: Array) -> Array:
        """L^-1 x, for rows x (n, size)."""
        return transpose(solve_lower(scale, transpose(x)))

    def log_det(self, scale: Array) -> Array:
        return jnp.log(jnp.diagonal(scale)).sum()

    def free(self, scale: Array) -> Array:
        """Numbers without constraints that stand for L: the logarithm of its diagonal in its place."""
        return jnp.tril(scale, -1) + jnp.diag(jnp.log(jnp.diagonal(scale)))

    def bind(self, free: Array) -> Array:
        """L again."""
        return self._own(jnp.tril(free, -1)) + jnp.diag(jnp.exp(jnp.diagonal(free)))

    def slope(self, scale: Array, z: Array, gradients: Array) -> Slope:
        h = gradients @ scale
        cross = jnp.tril(transpose(h) @ z / len(z))
        curvature = -(cross + transpose(jnp.tril(cross, -1)))
        return Slope(h.mean(0), self._own(curvature))

    def _own(self, matrix: Array) -> Array:
        """Zero between blocks."""
        if self.blocks is None:
            return matrix
        own = np.repeat(np.arange(len(self.blocks)), self.blocks)
        return jnp.where(own[:, None] == own, matrix, 0)

    def gain(self, slope: Slope) -> Array:
        """Half the squared length of the natural gradient: what the next step promises, in nats."""
        off = slope.curvature - jnp.eye(len(slope.pull), dtype=slope.pull.dtype)
        return 0.5 * (slope.pull**2).sum() + 0.25 * (off**2).sum()

    def bend(self, slope: Slope) -> Array:
        """The trace of the curvature: negative where the log density is convex on average."""
        return jnp.trace(slope.curvature)

    def move(self, location: Array, scale: Array, slope: Slope, rho: Array) -> tuple[Array, Array]:
        """(m, L) after a step of length rho of the natural gradient; NaN where it leaves the family."""
        eye = jnp.eye(len(location), dtype=location.dtype)
        precision = (1 - rho) * eye + rho * slope.curvature
        # precision = U U' with U upper, so that L U^-T is lower again
        upper = cholesky(precision[::-1, ::-1])[::-1, ::-1]
        root = solve_lower(transpose(upper), eye)
        return location + scale @ (root @ (transpose(root) @ (rho * slope.pull))), scale @ root
