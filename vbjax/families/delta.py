"""Delta: a family that turns any factor into a point, its mode; EM and MAP are variational Bayes with points.

The point is kept as the state of the family whose mode it is: those are the well-conditioned
coordinates (a covariance's Cholesky factor is at hand, no matrix is inverted twice).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, pytree


@pytree
class DeltaState(State):
    """Point mass on the mode of `at`, a state of the wrapped family."""

    at: Any

    def statistics(self, x: Any) -> Any:
        return self.at.statistics(x)

    def expected(self) -> Any:
        return self.at.at_mode()

    def at_mode(self) -> Any:
        return self.at.at_mode()

    def base_entropy(self) -> Float[Array, "*plate"]:
        """Return zero: a point's share of the bound is its log density alone."""
        return jnp.zeros_like(self.at.base_entropy())

    def entropy(self) -> Array:
        return self.base_entropy()

    @property
    def mean(self) -> Any:
        return self.at.mode

    @property
    def variance(self) -> Any:
        return jax.tree.map(jnp.zeros_like, self.at.variance)

    @property
    def covariance(self) -> Any:
        return jax.tree.map(jnp.zeros_like, self.at.covariance)

    @property
    def mode(self) -> Any:
        return self.at.mode

    def draw(self, key: Array, shape: tuple[int, ...]) -> Any:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + x.shape), self.at.mode)


@dataclasses.dataclass(frozen=True)
class Delta(Family):
    """Point estimate of a factor of the family `of`: maximum likelihood without a prior, MAP with one."""

    plate: tuple[int, ...] = dataclasses.field(default=(), init=False, repr=False)  # `of` has it
    of: Family = dataclasses.field(default_factory=Family)
    base_weight: ClassVar[float] = 0.0

    @property
    def curvature(self) -> str | None:  # type: ignore[override]
        return self.of.curvature

    def __post_init__(self) -> None:
        if not isinstance(self.of, Family):
            raise ValueError(f"of must be a family, such as vb.Normal(); got {self.of!r}")

    def repeated(self, n: int) -> Delta:
        return Delta(self.of.repeated(n))

    def of_rows(self, rows: Any, n: int) -> Delta:
        return Delta(self.of.of_rows(rows, n))

    def chunk_rows(self, usual: int) -> int:
        return self.of.chunk_rows(usual)

    def zero_statistics(self, dtype: DTypeLike) -> Any:
        return self.of.zero_statistics(dtype)

    def neutral(self, dtype: DTypeLike) -> DeltaState:
        return DeltaState(self.of.neutral(dtype))

    def from_gradient(self, statistics: Any, gradient: Any, weight: ArrayLike = 1.0) -> DeltaState:
        """Return the maximiser of the expected log joint."""
        return DeltaState(self.of.from_gradient(statistics, gradient, weight))

    def mix(self, state: DeltaState, other: DeltaState, rho: ArrayLike) -> DeltaState:
        """Return the mode of the mixed members: a step of stochastic EM (Cappe & Moulines 2009)."""
        return DeltaState(self.of.mix(state.at, other.at, rho))

    def log_normalizer(self, statistics: Any, gradient: Any) -> Float[Array, "*plate"]:
        """Return the maximum over points of <gradient, t> instead of the logarithm of an integral."""
        point = self.from_gradient(statistics, gradient)
        t = point.expected().like(statistics)
        return t.inner(gradient) + gradient.log_base * t.log_base


def unless_unknown(moved: DeltaState, before: DeltaState, plate: int) -> DeltaState:
    """Keep the previous point for cells that received no data, where the update would be 0 / 0.

    `plate` is the number of leading axes that tell the points from one another.
    """

    def known(x: Array) -> Array:
        return jnp.isfinite(x).all(tuple(range(plate, x.ndim)))

    moved = lax.optimization_barrier(moved)  # judge the stored numbers: XLA would simplify (1 + n) - 1 to n
    fine = functools.reduce(jnp.logical_and, map(known, jax.tree.leaves(moved.mode)))
    keep = lambda new, old: jnp.where(fine.reshape(*fine.shape, *[1] * (new.ndim - plate)), new, old)
    return jax.tree.map(keep, moved, before)
