"""What a hidden Markov model needs of its steps: what they are in each state.

Not a model itself. `mixture.py` gives every state one component, `nested_mixture.py` a mixture of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jax import Array
from jaxtyping import Float, Int

from vbjax.core.model import ConjugateModel
from vbjax.core.rows import float_dtype
from vbjax.numerics.record import Record


class Emissions(ConjugateModel):
    """Rows x_n | c_n from component c_n.

    Subclasses are dataclasses with `n_components`, and factors `components` and perhaps others. Where labels
    are drawn from weights of their own, these are the factor `weights`, in whose place a chain comes.
    """

    n_components: int

    @property
    def own_factors(self) -> Record:
        """The factors without `weights`: what there is beside a chain."""
        return Record({name: family for name, family in self.factors.items() if name != "weights"})

    def evenly(self, params: Any) -> Record:
        """Those among some parameters that are of here; weights are of no account, and equal."""
        dtype = float_dtype(params)
        neutral = lambda name, family: family.neutral(dtype) if name == "weights" else params[name]
        return Record({name: neutral(name, family) for name, family in self.factors.items()})

    @property
    def points(self) -> bool:
        """Whether the parameters are points, fitted by EM."""
        return False

    def prepare_components(self, params: Any) -> Any:
        """What `scored_components` needs of the parameters, made once for all rows."""
        raise TypeError("given by the subclass")

    def scored_components(
        self, prepared: Any, rows: Any
    ) -> tuple[Float[Array, "k n"], Callable[[Float[Array, "k n"]], Record]]:
        """E[log p(row | component)], (k, n); and from responsibilities (k, n) the own factors' statistics."""
        raise TypeError("given by the subclass")

    @property
    def n_component_parameters(self) -> int:
        """Free parameters of the own factors."""
        raise TypeError("given by the subclass")

    def components_prior(self, s: Record) -> Float[Array, ""]:
        """E[log p] of the own factors' parameters, from their statistics."""
        raise TypeError("given by the subclass")

    def log_components(self, params: Record, rows: Any) -> Float[Array, "n k"]:
        """Log predictive density of rows under every component, (n, k)."""
        raise TypeError("given by the subclass")

    def draw_parameters(self, params: Record, key: Array) -> Any:
        """Draw the own factors' parameters from q: leaves (k, ...), for `redraw_rows`."""
        raise TypeError("given by the subclass")

    def redraw_rows(self, parameters: Any, key: Array, c: Int[Array, " n"], rows: Any) -> Any:
        """Draw the rows anew from the given components (n,): all but what the components do not model.

        Args:
            parameters: of the components, from `draw_parameters`, the same for all rows.
            key: PRNG key.
            c: the component of every row.
            rows: the data, for what stays: totals of a multinomial, x of a regression.
        """
        raise TypeError("given by the subclass")

    def read_given(self, given: Any, n: int) -> Any:
        """Read what n rows are drawn for beside their components: x of a regression, totals of a multinomial.

        Raises:
            ValueError: where they are drawn for nothing else, or it is not such a thing.
        """
        if given is not None:
            raise ValueError(f"given must be None: {type(self).__name__} models all of a step")

    def draw_rows(self, params: Record, key: Array, c: Int[Array, " n"], given: Any = None) -> Any:
        """A row for each of the given components (n,); of a regression its y, for x in `given`."""
        raise TypeError("given by the subclass")
