"""Scale L = R'^-1 of a normal whose precision R R' is sparse: linear in time and memory where chains are.

The natural-gradient step of `scales`, where the expected Hessian is known by products with it, on its
pattern: S^-1 <- (1 - rho) S^-1 - rho E[Hessian], m <- m + rho S E[g]. Means of random draws would estimate a
Hessian of many entries poorly; products cost as many gradients as the pattern has colours, and where log p is
quadratic they are exact for any draws. For `families`; imports arrow and sparsity.

References:
    Khan & Rue (2023), The Bayesian learning rule, JMLR 24; Tan & Nott (2018), Gaussian variational
    approximation with sparse precision matrices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.blackbox.structured.arrow import Arrow, ArrowFactor, Columns, second_moments
from vbjax.blackbox.structured.sparsity import Sparsity, places
from vbjax.numerics.linalg import symmetrize
from vbjax.numerics.stored import stored

_PROBES = 16  # draws that tell how far the precision is from the expected Hessian


class SparseSlope(NamedTuple):
    """Gradient of the bound at (m, L).

    Attributes:
        pull: E[g], (d,).
        precision: -E[Hessian], on the pattern.
        gain: nats that a step promises, half the squared length of the natural gradient.
        bend: trace of the curvature, negative where the log density is convex on average.
    """

    pull: Float[Array, " d"]
    precision: Arrow
    gain: Float[Array, ""]
    bend: Float[Array, ""]


@stored
@dataclasses.dataclass(frozen=True)
class SparsePrecision:
    """Kind of scale L = R'^-1, kept as the Cholesky factor R of a precision of this sparsity."""

    sparsity: Sparsity

    is_part: ClassVar[bool] = False
    needs_hessian: ClassVar[bool] = True

    def usual_draws(self, size: int) -> int:
        """Return how many draws a fit has."""
        return 128

    def least_draws(self, size: int) -> int:
        """Return how many draws a fit must have."""
        return 2

    def start(self, size: int, dtype: DTypeLike) -> ArrowFactor:
        """Return the identity."""
        s, n_blocks, b = self.sparsity.block, self.sparsity.n_blocks, self.sparsity.n_border
        root = jnp.broadcast_to(jnp.eye(s, dtype=dtype), (n_blocks, s, s))
        return ArrowFactor(
            root, jnp.zeros_like(root), jnp.zeros((n_blocks, s, b), dtype), jnp.eye(b, dtype=dtype)
        )

    def apply(self, scale: ArrowFactor, z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z."""
        return self._rows(scale.solve_transposed(self._columns(z)))

    def apply_matched(self, scale: ArrowFactor, z: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L z for every row z, moved so that the mean square of each entry is its variance."""
        x, exact = self.apply(scale, z), scale.covariance()
        own = jnp.diagonal(exact.diagonal, axis1=-2, axis2=-1)
        sd = jnp.sqrt(self._rows((own[..., None], jnp.diagonal(exact.corner)[:, None])))
        return x * (sd / jnp.sqrt((x * x).mean(0)))

    def undo(self, scale: ArrowFactor, x: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """Return L^-1 x for every row x."""
        return self._rows(scale.times_transposed(self._columns(x)))

    def log_det(self, scale: ArrowFactor) -> Float[Array, ""]:
        """Return log |L|."""
        own = jnp.diagonal(scale.root, axis1=-2, axis2=-1).reshape(-1)[: self.sparsity.n_band]
        return -jnp.log(own).sum() - jnp.log(jnp.diagonal(scale.corner)).sum()

    def free(self, scale: ArrowFactor) -> ArrowFactor:
        """Return R with the logarithms of its diagonal in its place: numbers without constraints."""
        return dataclasses.replace(scale, root=_log_diagonal(scale.root), corner=_log_diagonal(scale.corner))

    def bind(self, free: ArrowFactor) -> ArrowFactor:
        """Return the R that `free` numbers stand for; padding stays as it is in the identity."""
        s, n_blocks = self.sparsity.block, self.sparsity.n_blocks
        here = (np.arange(n_blocks * s) < self.sparsity.n_band).reshape(n_blocks, s, 1)
        both = here & here.swapaxes(1, 2)
        after = np.roll(here, -1, 0) & (np.arange(n_blocks) < n_blocks - 1)[:, None, None]
        root = jnp.where(both, _exp_diagonal(free.root), jnp.eye(s, dtype=free.root.dtype))
        gains = jnp.where(here & after.swapaxes(1, 2), free.gains, 0)
        return ArrowFactor(root, gains, jnp.where(here, free.border, 0), _exp_diagonal(free.corner))

    def slope_at(
        self,
        log_p: Callable[[Float[Array, " d"]], Float[Array, ""]],
        location: Float[Array, " d"],
        scale: ArrowFactor,
        z: Float[Array, "n d"],
    ) -> SparseSlope:
        """Return the slope of the bound, from gradients of log p at draws, and Hessian products.

        What the draws' second moments lack on the pattern is made up for in E[g], to the second order about
        m: it adds up over latents in the gradient of a parameter of all of them, such as a scale.
        """
        x = self.apply_matched(scale, z)
        mean_gradient = lambda shift: jax.vmap(jax.grad(log_p))(location + x + shift).mean(0)
        pull, product = jax.linearize(mean_gradient, jnp.zeros_like(location))
        seeds = self._seeds(pull.dtype)
        lacking = jax.tree.map(jnp.subtract, scale.covariance(), second_moments(self._columns(x)))
        weights = self._weights(lacking)

        def missed(m: Float[Array, " d"]) -> Float[Array, ""]:
            along = jax.vmap(jax.linearize(jax.grad(log_p), m)[1])(seeds)
            return 0.5 * (weights * along).sum()

        pull = pull + jax.grad(missed)(location)
        precision = self._arrow(-self._by_position(lax.map(product, seeds)))
        some, n = self._columns(z[:_PROBES]), len(z[:_PROBES])
        probes = scale.solve_transposed(some)
        along = precision.times(probes)
        off = jax.tree.map(jnp.subtract, scale.solve(along), some)
        ahead = scale.solve(self._columns(pull[None]))
        gain = 0.5 * _inner(ahead, ahead) + 0.25 * _inner(off, off) / n
        return SparseSlope(pull, precision, gain, _inner(probes, along) / n)

    def gain(self, slope: SparseSlope) -> Float[Array, ""]:
        """Return the gain, in nats, that a step promises."""
        return slope.gain

    def bend(self, slope: SparseSlope) -> Float[Array, ""]:
        """Return the trace of the curvature, which is negative where the log density is convex on average."""
        return slope.bend

    def move(
        self, location: Float[Array, " d"], scale: ArrowFactor, slope: SparseSlope, rho: Float[Array, ""]
    ) -> tuple[Float[Array, " d"], ArrowFactor]:
        """Return (m, L) after a step of length rho; NaN where it leaves the family."""
        moved = scale.matrix().mixed(slope.precision, rho).factor()
        step = moved.solve_transposed(moved.solve(self._columns(rho * slope.pull[None])))
        return location + self._rows(step)[0], moved

    def _seeds(self, dtype: DTypeLike) -> Float[Array, "colours d"]:
        """Return the sum of the unit vectors of each colour."""
        order, colours = self.sparsity.numbers("order"), self.sparsity.numbers("colours")
        by_latent = jnp.zeros_like(colours).at[order].set(colours)
        return (jnp.arange(colours.max() + 1)[:, None] == by_latent).astype(dtype)

    def _by_position(self, table: Float[Array, "m d"]) -> Float[Array, "m d"]:
        return table[:, self.sparsity.numbers("order")]

    def _weights(self, matrix: Arrow) -> Float[Array, "colours d"]:
        """Return w such that the sum of w times the products K s with the seeds s is tr(matrix K)."""
        n_band, n_border = self.sparsity.n_band, self.sparsity.n_border
        (inside, at), (beside, at_beside) = places(self.sparsity)
        rows, columns, colours = map(self.sparsity.numbers, ("rows", "columns", "colours"))
        table = jnp.zeros((colours.max() + 1, self.sparsity.size), matrix.corner.dtype)
        for which, values in (
            (inside, matrix.diagonal.ravel()[at]),
            (beside, -matrix.coupling.ravel()[at_beside]),
        ):
            i, j = rows[which], columns[which]
            table = table.at[colours[i], j].set(values).at[colours[j], i].set(values)
        edge = matrix.border.reshape(matrix.border.shape[0] * matrix.border.shape[1], n_border)[
            :n_band
        ]  # twice: the rows of the border are not read
        table = table.at[len(table) - n_border :].set(jnp.concatenate([2 * edge.T, matrix.corner], 1))
        return table[:, np.argsort(self.sparsity.numbers("order"))]

    def _arrow(self, products: Float[Array, "colours d"]) -> Arrow:
        """Return the matrix whose products with the seeds these are, by position."""
        rows, columns, colours = map(self.sparsity.numbers, ("rows", "columns", "colours"))
        band, border = products[colours[columns], rows], products[len(products) - self.sparsity.n_border :]
        s, n_blocks, n_band = self.sparsity.block, self.sparsity.n_blocks, self.sparsity.n_band
        (inside, at), (beside, at_beside) = places(self.sparsity)
        zeros = jnp.zeros(n_blocks * s * s, band.dtype)
        lower = zeros.at[at].set(band[inside]).reshape(n_blocks, s, s)
        coupling = zeros.at[at_beside].set(-band[beside]).reshape(n_blocks, s, s)
        padded = (np.arange(n_blocks * s) >= n_band).reshape(n_blocks, 1, s)
        diagonal = lower + jnp.swapaxes(jnp.tril(lower, -1), -1, -2)
        diagonal = diagonal + jnp.eye(s, dtype=band.dtype) * padded.astype(band.dtype)
        edge, corner = border[:, :n_band], symmetrize(border[:, n_band:])
        edge = jnp.pad(edge.T, ((0, n_blocks * s - n_band), (0, 0)))
        return Arrow(diagonal, coupling, edge.reshape(n_blocks, s, len(border)), corner)

    def _columns(self, x: Float[Array, "n d"]) -> Columns:
        """Return rows by latent as columns by position."""
        s, n_blocks, n_band = self.sparsity.block, self.sparsity.n_blocks, self.sparsity.n_band
        ordered = x.T[self.sparsity.numbers("order")]
        band = jnp.pad(ordered[:n_band], ((0, n_blocks * s - n_band), (0, 0)))
        return band.reshape(n_blocks, s, -1), ordered[n_band:]

    def _rows(self, x: Columns) -> Float[Array, "n d"]:
        """Return columns by position as rows by latent."""
        band, edge = x
        joined = jnp.concatenate([band.reshape(-1, band.shape[-1])[: self.sparsity.n_band], edge])
        return joined[np.argsort(self.sparsity.numbers("order"))].T


def _log_diagonal(lower: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    eye = jnp.eye(lower.shape[-1], dtype=lower.dtype)
    return jnp.tril(lower, -1) + eye * jnp.log(jnp.where(eye == 1, lower, 1))


def _exp_diagonal(free: Float[Array, "*n d d"]) -> Float[Array, "*n d d"]:
    eye = jnp.eye(free.shape[-1], dtype=free.dtype)
    return jnp.tril(free, -1) + eye * jnp.exp(jnp.where(eye == 1, free, 0))


def _inner(x: Columns, y: Columns) -> Float[Array, ""]:
    return (x[0] * y[0]).sum() + (x[1] * y[1]).sum()
