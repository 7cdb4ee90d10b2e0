"""What all ways to fit a `BlackBox` have in common: where they start, and the error of a start that fails.

For the algorithms of this room; imports its approximation.
"""

from __future__ import annotations

from typing import Any

from jax import Array

from vbjax.blackbox.approximation import Approximation
from vbjax.core.expectation import float_dtype
from vbjax.core.inputs import read_tolerance


class Ascent:
    """An algorithm around `model`, a `BlackBox`."""

    model: Any
    tol: Any

    def inspect(self, data: Any) -> Any:
        """Refuse options that are none, or do not go with the model; return the shapes of the family."""
        read_tolerance(self.tol)
        return self.model.inspect_family(float_dtype(data))

    def init(self, key: Array, data: Any, weights: Array | None) -> Approximation:
        """Where the family starts."""
        return self.model.init(key, data)

    def explain(self, params: Approximation, data: Any, weights: Array | None) -> None:
        """Of a start whose bound is not finite: a ValueError that says at which latents."""
        self.model.refuse_not_finite(params, data)
