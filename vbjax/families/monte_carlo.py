"""A latent known by draws: in the log joint it is a value, and expectations are means over its draws.

What lets a factor without sufficient statistics stand beside those that have them. Imported by core, and
by the families made so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from vbjax.families.base import Statistics, pytree
from vbjax.numerics.record import Record


@pytree
class Draws(Statistics):
    """Values of a latent, n of them, the leading axis of every array; all draws of one model go together.

    `base` is the mean over the draws of the log base measure, here the density of a change of variables.
    """

    value: Any
    base: Array
    events = {"value": 0}


def mean_over_draws(function: Callable[[Record], Array], s: Record) -> Array:
    """The mean of `function` over the draws in `s`, in whose place it sees values; itself, without any."""
    drawn = {name: t.value for name, t in s.items() if isinstance(t, Draws)}
    return jax.vmap(lambda values: function(s | values))(drawn).mean(0) if drawn else function(s)
