"""The contract of a covariance structure of Gaussian components.

A structure says which joint family holds the components' locations and precisions, gives the table of
expected log densities of a block of rows, and turns responsibilities into the gradient that the
family's `from_gradient` takes. The layout is (k, d, block): rows along the minor axis. Squares are sums
of squares of differences from the component's own location, whitened where the covariance is a matrix;
so they keep float32's digits and are never negative.

Imported by the four structures beside it, and by `gaussian.py`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax import terms
from vbjax.core.hyperparameters import DEFINITE, Range, above
from vbjax.families.base import replace
from vbjax.families.joint import JointFamily
from vbjax.models.components.covariance.missing import complete, completed_moments
from vbjax.numerics.linalg import cholesky, ill_conditioned, rounding_of, solve_lower, symmetrize, transpose
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Tree


class Prepared(NamedTuple):
    """Components as a block of rows needs them.

    Attributes:
        pivot: (d,), a point amid the locations, so that products are of small numbers.
        location: (k, d), about the pivot.
        constant: (k,), the expected log density at the location; (k, d), each entry's, where features are
            independent and may be missing.
        root: R with R'R = E[Lam]: (k, d, d) full, (d, d) tied, (k, d) diagonal, (k, 1) spherical.
        unroot: R^-1, which brings scatter back from whitened coordinates.
    """

    pivot: Array
    location: Array
    constant: Array
    root: Array
    unroot: Array


class Moments(NamedTuple):
    """Sums over rows of responsibilities times 1, x - m_k and (x - m_k)(x - m_k)', as a structure has it.

    The number is (k,), or (k, d) where some entries are missing and features are independent.
    """

    number: Array
    first: Array
    scatter: Array


def matrix_root(covariance: Array) -> tuple[Array, Array]:
    """Return R = L^-1 and its inverse, where E[Lam]^-1 = L L'."""
    lower = cholesky(covariance)
    return solve_lower(lower, jnp.eye(lower.shape[-1], dtype=lower.dtype)), lower


def with_covariance(point: Any, change: Callable[[Array], Array]) -> Tree:
    """Return a point of a location and a covariance, with another covariance."""
    value = point.value._replace(covariance=change(point.value.covariance))
    return replace(point, value=value)


def clip_eigenvalues(covariance: Array, floor: Array) -> Array:
    """Return the nearest covariances, in likelihood, with eigenvalues of at least 1 in units of `floor` (d,).

    Decompositions are made only while some matrix needs one: a `while_loop` stays lazy under vmap, where
    a `cond` would not.
    """
    unit = jnp.sqrt(floor)[:, None] * jnp.sqrt(floor)
    eye = jnp.eye(floor.shape[0], dtype=floor.dtype)

    def clip(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        values, vectors = jnp.linalg.eigh(carry[0])
        values = jnp.maximum(values, 1)[..., None, :]
        return symmetrize((vectors * values) @ transpose(vectors)), jnp.asarray(False)

    relative = covariance / unit
    low = jnp.isnan(cholesky(relative - eye)).any()
    return unit * lax.while_loop(lambda carry: carry[1], clip, (relative, low))[0]


def below(covariance: Array, floor: Array) -> Array:
    """Return whether some covariance has an eigenvalue within twice the floor, and so is on its way there."""
    unit = jnp.sqrt(floor)[:, None] * jnp.sqrt(floor)
    return jnp.isnan(cholesky(covariance / unit - 2 * jnp.eye(floor.shape[0], dtype=floor.dtype))).any()


@dataclasses.dataclass(frozen=True)
class Structure(abc.ABC):
    """Covariance structure of k components in d dimensions."""

    k: int
    d: int
    correlated: ClassVar[bool] = True  # within a component
    layout: ClassVar[
        str
    ]  # how arrays of covariances are shaped: as those of "full", "tied", "diag", "spherical"
    inverse_scale: ClassVar[tuple[Tree, ...]] = (DEFINITE, "d d")  # of a prior: its values and shape

    # -- the family and its members ------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def family(self) -> JointFamily:
        """The joint family of the locations and precisions."""

    @abc.abstractmethod
    def state(
        self, location: Array, mean_precision: ArrayLike, degrees_of_freedom: ArrayLike, inverse_scale: Array
    ) -> Tree:
        """Return a state, such as a prior, whose components differ in location alone, (d,) or (k, d)."""

    @abc.abstractmethod
    def marginals(self, state: Tree) -> Tree:
        """Return each component's own factor, its plate beginning with k."""

    @classmethod
    def degrees_of_freedom(cls, d: int) -> Range:
        """Return the values with which a prior is proper, in d dimensions."""
        return above(d - 1 if cls.correlated else 0)

    @property
    def default_degrees_of_freedom(self) -> int:
        """The degrees of freedom of a prior: the dimension of its precision matrix."""
        return self.d

    def default_inverse_scale(self, covariance: Array) -> Array:
        """Return the inverse scale of a prior: the data's covariance, as the structure has it."""
        return covariance

    def permute(self, state: Tree, order: Array) -> Tree:
        """Return a state with the components in another order."""
        return jax.tree.map(lambda leaf: leaf[order], state)

    # -- the E-step, for a block of rows -------------------------------------------------------------

    @abc.abstractmethod
    def prepare(self, covariance: Array, statistics: Tree) -> Prepared:
        """Return what a pass over blocks needs, from E[Lam]^-1 and the components' statistics."""

    def whiten(self, c: Prepared, x: Float[Array, "d b"]) -> Float[Array, "k d b"]:
        """Compute R_k (x - m_k), (k, d, block), of rows x (d, block) about the pivot."""
        return c.root[:, :, None] * (x - c.location[:, :, None])

    def table(self, c: Prepared, x: Float[Array, "d b"]) -> tuple[Float[Array, "k b"], Float[Array, "k d b"]]:
        """Compute expected log densities (k, block) of rows x (d, block) about the pivot; whiten the rows."""
        z = self.whiten(c, x)
        return c.constant[:, None] - 0.5 * (z * z).sum(1), z

    def log_density(self, statistics: Tree, x: Array, *, own: bool = False) -> Array:
        """Compute E[log N(x | component)] from statistics, (n, k): the derived, uncontracted form of `table`.

        With `own`, (k,): each component at the k-th of k points.
        """
        return terms.multivariate_normal(x if own else x[:, None, :], statistics)

    # -- the E-step where entries are missing --------------------------------------------------------

    def prepare_observed(self, covariance: Array, statistics: Tree) -> Prepared:
        """Return what `prepare` does, for rows with missing entries."""
        c = self.prepare(covariance, statistics)
        return c if self.correlated else c._replace(constant=self.each(statistics, statistics.pivot))

    def observed(
        self, c: Prepared, x: Float[Array, "d b"], seen: Bool[Array, "d b"]
    ) -> tuple[Float[Array, "k b"], Callable[[Array], Moments]]:
        """Compute expected log densities of what is seen, and moments as a function of responsibilities."""
        if not self.correlated:
            z = jnp.where(seen, self.whiten(c, x), 0)
            there = seen.astype(x.dtype)

            def moments(r: Array) -> Moments:
                number = r @ there.T
                own = self.moments(c, r, z, x)
                return own._replace(number=number, first=self.first(c, r, x, number))

            return c.constant @ there - 0.5 * (z * z).sum(1), moments
        root = jnp.broadcast_to(c.root, (self.k, self.d, self.d))
        shift = x.T[:, None] - c.location
        rows = complete(transpose(root) @ root, root, c.constant, 0.0, shift, seen.T)
        return rows.table.T, lambda r: self.pooled(Moments(*completed_moments(rows, r.T, seen.T)))

    def pooled(self, moments: Moments) -> Moments:
        """Turn moments with a scatter matrix for each component into the structure's own."""
        return moments

    def log_density_observed(self, statistics: Tree, x: Array) -> Array:
        """Compute the table of `observed` in its derived form, (n, k), of rows x (n, d) with NaN."""
        seen = ~jnp.isnan(x)
        x = jnp.where(seen, x, 0)
        if not self.correlated:
            return jnp.where(seen[:, None], self.each(statistics, x[:, None]), 0).sum(-1)
        t = self.for_each_component(statistics)
        constant = 0.5 * (t.logdet - self.d * LOG_2PI - t.square)
        root = transpose(cholesky(t.precision))
        return complete(t.precision, root, constant, t.cross, x[:, None] - t.pivot, seen).table

    def for_each_component(self, statistics: Tree) -> Tree:
        """Return statistics with a matrix for each component, (k, d, d)."""
        return statistics

    def each(self, statistics: Tree, x: Array) -> Array:
        """Compute expected log densities entry by entry, (..., k, d), where features are independent."""
        raise TypeError("features are correlated")

    @abc.abstractmethod
    def moments(
        self, c: Prepared, r: Float[Array, "k b"], z: Float[Array, "k d b"], x: Float[Array, "d b"]
    ) -> Moments:
        """Compute moments under the responsibilities r (k, block) of rows x, whitened z."""

    def first(self, c: Prepared, r: Float[Array, "k b"], x: Float[Array, "d b"], number: Array) -> Array:
        """Compute first moments, of `number` rows, by one product.

        Its rounding is that of the locations themselves. Squares are not taken so: what cancels there is
        (x - m)^2 of x^2.
        """
        return r @ x.T - number * c.location

    @abc.abstractmethod
    def spread(self, number: Array, covariance: Array) -> Moments:
        """Compute moments of `number` (k,) rows that lie about each component with a covariance (d, d)."""

    @abc.abstractmethod
    def gradient(self, moments: Moments) -> Tree:
        """Return the gradient of the expected log likelihood in the family's statistics."""

    @abc.abstractmethod
    def covariances(self, c: Prepared) -> Float[Array, "k d d"]:
        """Return E[Lam]^-1, (k, d, d) for every structure."""

    def _prepared(self, statistics: Tree, root: Array, unroot: Array) -> Prepared:
        location = statistics.pivot
        pivot = location.mean(0)
        at_location = self.log_density(statistics, location, own=True)
        return Prepared(pivot, location - pivot, at_location, root, unroot)

    def ill_conditioned(self, covariance: Array) -> Array:
        """Return whether the dtype cannot tell a covariance from a singular one."""
        return ill_conditioned(covariance) if self.correlated else jnp.asarray(False)

    def cancelled(self, covariance: Array, number: Array, floor: ArrayLike) -> Array:
        """Return what rows' log densities lose beyond their own rounding; `number` of rows by component."""
        if not self.correlated:
            return jnp.zeros((), number.dtype)
        return rounding_of(covariance, number, floor).sum()

    # -- the M-step of a point estimate --------------------------------------------------------------

    def clip(self, covariance: Array, floor: Array) -> Array:
        """Return covariances, none below `floor` (d,) in any direction."""
        return clip_eigenvalues(covariance, floor)

    def below(self, covariance: Array, floor: Array) -> Array:
        """Return whether some covariance of points lies within twice the floor."""
        return below(covariance, floor)
