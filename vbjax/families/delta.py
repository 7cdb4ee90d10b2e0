"""Delta: a family that turns any factor into a point; EM and MAP are variational Bayes with points.

A point is a value, in coordinates that keep its digits, and beside it what it rests on: the gradient of the
expected log joint whose maximum it is. That gradient is made of EM's sufficient statistics, so that a partial
step averages it and maximises again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.families.base import Family, State, T, Value, pytree
from vbjax.numerics.inputs import read_probabilities
from vbjax.numerics.types import Data, Given, Tree


@pytree
class DeltaState(State[T]):
    """Point mass; `vb.Delta(family).at(value)` makes one of a value.

    Attributes:
        value: the point, in the coordinates of the family's `maximise`: weights on the simplex, a rate, a
            location and a covariance.
        gradient: what the point rests on, prior and rows: the gradient of the expected log joint whose
            maximum it is, about its own `pivot`; 0 for a point that was given.

    >>> import vbjax as vb
    >>> q = vb.Delta(vb.Gamma()).at(2.0)
    >>> print(q.mean, q.sd, f"{q.expected().log:.4f}")  # the statistics are those of the value: log 2
    2.0 0.0 0.6931
    """

    value: Given
    gradient: T

    @property
    def title(self) -> str:
        return f"point of {type(self.gradient).__name__.removesuffix('Statistics')}"

    @property
    def domains(self) -> dict[str, str]:  # type: ignore[override]
        return self.gradient.point_domains

    @property
    def fields(self) -> dict[str, Array]:
        return dict(zip(self.domains, jax.tree.leaves(self.value), strict=False))

    def with_fields(self, fields: Mapping[str, Array]) -> DeltaState:
        moved = [fields.get(name, x) for name, x in self.fields.items()]
        value = jax.tree.unflatten(jax.tree.structure(self.value), moved)
        return DeltaState(value, self.gradient)

    @property
    def location_scale(self) -> Array:
        return self.gradient.location_scale(self.value)  # type: ignore[return-value]

    def statistics(self, x: Data) -> T:
        return self.gradient.of_value(x, self.value)

    def expected(self) -> T:
        return self.gradient.at(self.value)

    def base_entropy(self) -> Float[Array, "*plate"]:
        """Return zero: a point's share of the bound is its log density alone."""
        return jnp.zeros(self.gradient.plate, jax.tree.leaves(self.gradient)[0].dtype)

    def entropy(self) -> Array:
        return self.base_entropy()

    @property
    def mean(self) -> Value:
        return self.gradient.value_at(self.value)

    @property
    def variance(self) -> Value:
        return jax.tree.map(jnp.zeros_like, self.mean)

    @property
    def covariance(self) -> Value:
        n_axes = len(self.gradient.plate)
        return jax.tree.map(lambda x: jnp.zeros(x.shape + x.shape[n_axes:], x.dtype), self.mean)

    @property
    def mode(self) -> Value:
        return self.mean

    def quantile(self, p: ArrayLike) -> Value:
        read_probabilities(p)
        return self.mean

    def draw(self, key: Array, shape: tuple[int, ...]) -> Value:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + x.shape), self.mean)


@dataclasses.dataclass(frozen=True)
class Delta(Family[DeltaState, Any]):
    """Point estimate of a factor of the family `of`: maximum likelihood without a prior, MAP with one.

    >>> import vbjax as vb
    >>> rate = vb.Delta(vb.Gamma())  # in place of vb.Gamma(): a point
    >>> rate.at(2.0)
    DeltaState(value=2)
    """

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

    def of_rows(self, rows: Data, n: int) -> Delta:
        return Delta(self.of.of_rows(rows, n))

    def chunk_rows(self, usual: int) -> int:
        return self.of.chunk_rows(usual)

    def zero_statistics(self, dtype: DTypeLike) -> Tree:
        return self.of.zero_statistics(dtype)

    def at(self, value: Given) -> DeltaState:
        """Return the point at a value, which rests on no rows: a partial step leaves nothing of it.

        Args:
            value: weights, a probability, a rate, a location; of a family of a location and its precision the
                pair (location, covariance), and of `Wishart` the inverse of the matrix.

        Raises:
            ValueError: numbers that do not have the shapes of such a point.
        """
        given = jax.tree.leaves(self.of.point(value))
        dtype = jnp.result_type(*given)
        like = jax.eval_shape(lambda: self.neutral(dtype))
        shapes, got = ([x.shape for x in leaves] for leaves in (jax.tree.leaves(like.value), given))
        if shapes != got:
            raise ValueError(f"value must have the shapes {shapes} of a point of {self.of}; got {got}")
        point = jax.tree.unflatten(jax.tree.structure(like.value), [x.astype(dtype) for x in given])
        return DeltaState(point, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like.gradient))

    def neutral(self, dtype: DTypeLike) -> DeltaState:
        """Return the mode of the family's neutral member, which rests on nothing."""
        state = self.of.neutral(dtype)
        t = state.expected()
        value = self.of.maximise(t, self.of.natural(state, t))
        return DeltaState(value, jax.tree.map(jnp.zeros_like, t))

    def from_gradient(self, statistics: Tree, gradient: Tree, weight: ArrayLike = 1.0) -> DeltaState:
        """Return the maximiser of the expected log joint."""
        return DeltaState(self.of.maximise(statistics, gradient), statistics.with_natural(gradient))

    def update(self, state: DeltaState, statistics: Tree, gradient: Tree) -> DeltaState:
        """Return the maximiser, or where there is none the point as it was."""
        moved, idle = self.from_gradient(statistics, gradient), self.of.is_idle(gradient)

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(idle.reshape(idle.shape + (1,) * (new.ndim - idle.ndim)), old, new)

        return dataclasses.replace(moved, value=jax.tree.map(keep, moved.value, state.value))

    def mix(self, state: DeltaState, other: DeltaState, rho: ArrayLike) -> DeltaState:
        """Return the point that rests on (1 - rho) of what one rests on and rho of what another does.

        With the statistics of a minibatch it is a step of stepwise EM (Cappe & Moulines 2009).
        """
        t = state.expected()
        gradients = state.gradient.gradient_like(t), other.gradient.gradient_like(t)
        return self.update(state, t, jax.tree.map(lambda x, y: (1 - rho) * x + rho * y, *gradients))

    def log_normalizer(self, statistics: Tree, gradient: Tree) -> Float[Array, "*plate"]:
        """Return the maximum over points of <gradient, t> instead of the logarithm of an integral."""
        t = self.from_gradient(statistics, gradient).expected().like(statistics)
        return t.inner(gradient) + gradient.log_base * t.log_base
