"""Latents known by draws: the log joint sees them as values, and expectations are means over the draws.

So a factor without sufficient statistics can stand beside factors that have them. Core imports this file, and
so do the families that are made of draws.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax import Array
from jaxtyping import Float

from vbjax.families.base import Statistics, pytree
from vbjax.numerics.record import Record
from vbjax.numerics.types import Tree


@pytree
class Draws(Statistics):
    """Draws of a latent, n of them on the leading axis of every array; one model's factors draw together.

    `base` is the mean over the draws of the log base measure, here the density of a change of variables.
    """

    value: Tree
    base: Float[Array, "*plate"]
    events = {"value": 0}


def mean_over_draws(function: Callable[[Record], Array], s: Record) -> Array:
    """Return the mean of `function(s)` over the draws in `s`; the function sees each draw as a value.

    Without draws in `s` it is `function(s)`.
    """
    drawn = {name: t.value for name, t in s.items() if isinstance(t, Draws)}
    return jax.vmap(lambda values: function(s | values))(drawn).mean(0) if drawn else function(s)
