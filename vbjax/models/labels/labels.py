"""The contract of labels: who chooses the component of a row.

Mixtures hold labels that choose for each row by itself (`weights.py`, `gated.py`), hidden Markov models those
that choose in turn (`chain.py`). They tell them how many components there are and whether their factors are
points.

Some components may be left out, by a number that is traced: models of every size up to k then run in one
program. What is left out has log weight -inf for every row, and its factor stays what its prior is, or where
it started if it is a point; so the objective is that of the model without it. A Dirichlet keeps a cell for
it, of a concentration so small that the others do not see it.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.core.hyperparameters import Range, hyper
from vbjax.core.presentation import model_repr
from vbjax.families.base import pytree, replace, static
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Hyper, Tree


def _numbers_up_to_k(labels: Any, sizes: Any) -> tuple[Range]:
    """Return how many components may be active."""
    k = labels.n_components
    return (Range(f"a whole number from 1 to {k}", lambda x: (x >= 1) & (x <= k) & (x == x.round())),)


@pytree
class Labels(abc.ABC):
    """Rule that chooses one of k components for every row.

    Attributes:
        n_components: k, set by the model that holds the labels.
        points: whether their factors are points, set by that model.
        active: how many of the components rows may have, the first ones; by default all.

    >>> import vbjax as vb
    >>> vb.labels.Weights().of(3, points=False).factors  # as a Bayesian mixture holds them
    Record(weights=Dirichlet(plate=(), size=3))
    """

    all_active: ClassVar[str | None] = "labels of this kind choose among all components"
    """Why no component can be left out; None where some can."""

    active: Hyper = hyper(None, _numbers_up_to_k, kw_only=True, idle=lambda labels: labels.all_active)

    n_components: int = static(default=1, kw_only=True, repr=False)
    points: bool = static(default=False, kw_only=True, repr=False)

    of_rows: ClassVar[bool] = False
    """Whether they choose for each row by itself, as mixtures ask."""

    undrawable: ClassVar[str | None] = None
    """Why their factors cannot be drawn given the labels; None where they can."""

    def __repr__(self) -> str:
        return model_repr(self, "labels.")

    def of(self, n_components: int, points: bool) -> Labels:
        """Return the labels of this number of components, of points or of distributions."""
        return replace(self, n_components=n_components, points=points)

    @property
    def n_active(self) -> int | Array:
        """Number of components that rows may have."""
        return self.n_components if self.active is None else jnp.asarray(self.active)

    @property
    def n_idle(self) -> int:
        """Number of components that are left out, outside of jit."""
        return self.n_components - int(self.n_active)

    def mask(self) -> Bool[Array, " k"] | None:
        """Return which components rows may have; None where all."""
        return first_active(self.n_components, self.active)

    def where_active(self, x: Array, otherwise: ArrayLike = -jnp.inf) -> Array:
        """Return an array over components, its last axis, with a value in place of what is left out."""
        mask = self.mask()
        return x if mask is None else jnp.where(mask, x, jnp.asarray(otherwise, x.dtype))

    def with_idle_cells(self, concentration: Array) -> Array:
        """Return concentrations over components, the least possible ones of those that are left out."""
        return self.where_active(concentration, least_concentration(concentration.dtype))

    @property
    @abc.abstractmethod
    def factors(self) -> Record:
        """The factors that the labels are drawn from, by name."""

    @abc.abstractmethod
    def resolve(self, dtype: DTypeLike) -> Labels:
        """Return the labels with their default hyperparameters; a point without a prior stays without."""

    @abc.abstractmethod
    def log_prior(self, s: Record) -> Float[Array, ""]:
        """Compute E[log p] of their factors from the statistics of these; 0 without a prior."""

    @abc.abstractmethod
    def prepare(self, params: Record) -> Tree:
        """Return what the E-step needs of their factors, made once for all rows."""

    @property
    def has_prior(self) -> bool:
        """Whether the factors, if they are points, maximise a posterior density."""
        return True

    def why_whole(self, component: Given) -> str | None:
        """Return why no component may be left out; None where some may."""
        if self.all_active is not None:
            return self.all_active
        if not component.may_be_idle:
            return "a component of laws of different kinds has a place for each"
        if self.points and (self.has_prior or component.has_prior):  # idle ones would count
            return "points have a prior: give none, or take the Bayesian model"
        return None

    def inspect(self, component: Given) -> None:
        """Raise where components are left out that may not be."""
        if self.active is not None and (why := self.why_whole(component)) is not None:
            raise ValueError(f"active must be left out: {why}; got {self.active}")

    def without_idle(self, params: Record) -> tuple[Labels, Record]:
        """Return the labels of the active components alone, and their parameters."""
        return self, params

    def empty(self, params: Record) -> Bool[Array, " k"] | None:
        """Return which components have next to no rows: points of no weight, posteriors that are the prior.

        None where the factors of the labels do not say so.
        """
        return None


def first_active(k: int, active: ArrayLike | None) -> Bool[Array, " k"] | None:
    """Return which of k components are among the first `active`; None for None."""
    if active is None:
        return None
    active = jnp.asarray(active)
    return jnp.arange(k, dtype=active.dtype) < active


def least_concentration(dtype: DTypeLike) -> Array:
    """Return a concentration that adds nothing to a sum of others, and whose statistics are finite."""
    return jnp.sqrt(jnp.finfo(dtype).tiny)


def first_cells(state: Tree, n_idle: int) -> Tree:
    """Return arrays over components, or over shares of their stick, without the last ones on any axis."""
    return jax.tree.map(lambda leaf: leaf[tuple(slice(size - n_idle) for size in leaf.shape)], state)
