"""The contract of labels: who chooses the component of a row.

Mixtures hold labels that choose for each row by itself (`weights.py`), hidden Markov models those that choose
in turn (`chain.py`). They tell them how many components there are and whether their factors are points.
"""

from __future__ import annotations

import abc

from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.core.presentation import model_repr
from vbjax.families.base import pytree, replace, static
from vbjax.numerics.record import Record
from vbjax.numerics.types import Tree


@pytree
class Labels(abc.ABC):
    """Rule that chooses one of k components for every row.

    Attributes:
        n_components: k, set by the model that holds the labels.
        points: whether their factors are points, set by that model.
    """

    n_components: int = static(default=1, kw_only=True, repr=False)
    points: bool = static(default=False, kw_only=True, repr=False)

    def __repr__(self) -> str:
        return model_repr(self, "labels.")

    def of(self, n_components: int, points: bool) -> Labels:
        """Return the labels of this number of components, of points or of distributions."""
        return replace(self, n_components=n_components, points=points)

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
