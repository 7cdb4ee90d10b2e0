"""What all ways to fit a `BlackBox` have in common: where they start, and the error of a start that fails.

For the algorithms of this room; imports its approximation.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from vbjax.blackbox.approximation import Approximation
from vbjax.core.contracts import Status
from vbjax.core.rows import float_dtype
from vbjax.numerics.inputs import read_number


class Ascent:
    """An algorithm around `model`, a `BlackBox`."""

    model: Any
    tol: Any

    def inspect(self, data: Any) -> Any:
        """Refuse options that are none, or do not go with the model; return the shapes of the family."""
        read_number(self.tol, "tol")
        return self.model.inspect_family(float_dtype(data))

    def init(self, key: Array, data: Any, weights: Array | None) -> Approximation:
        """Where the family starts."""
        return self.model.init(key, data)

    def explain(self, params: Approximation, data: Any, weights: Array | None) -> None:
        """Of a start whose bound is not finite: a ValueError that says at which latents."""
        self.model.refuse_not_finite(params, data)


def judged(stop: Array, objective: Array, u: Array) -> Array:
    """Return the status of a run: `stop`, unless its objective is not finite or it has run away.

    Runs away what has not arrived and has draws u beyond 1 / eps^2: starts are about 1, and no scale of a
    proper density that this dtype can tell from its neighbours is as wide.
    """
    far = jnp.abs(u).max() > _far(u)
    stop = jnp.where(far & (stop == Status.UNFINISHED), Status.UNBOUNDED, stop)
    stop = jnp.where(jnp.isfinite(objective), stop, Status.NON_FINITE)
    return jnp.where(objective == jnp.inf, Status.UNBOUNDED, stop).astype(jnp.int32)


def stuck(u: Array, value: Array, bend: Array) -> Array:
    """Return why no step is short enough, from the last draws that were tried and the curvature there.

    They are where the density is zero; or the log density is convex on average and q never wide enough, or
    higher than that of any data.

    Args:
        u: (n, d), the draws.
        value: (n,), the log density at them.
        bend: trace of the curvature, negative where the log density is convex.
    """
    outside = jnp.isfinite(u).all() & (jnp.isnan(value) | (value == -jnp.inf)).any()
    rising = (bend < 0) | (value > _far(u)).any()
    why = jnp.where(rising, Status.UNBOUNDED, Status.DECREASED)
    return jnp.where(outside, Status.NON_FINITE, why)


def _far(u: Array) -> Any:
    return jnp.finfo(u.dtype).eps ** -2.0
