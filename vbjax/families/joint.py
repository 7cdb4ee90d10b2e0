"""What the four joint families of a location and its precision share: their statistics and terms.

NormalGamma, NormalWishart, MultivariateNormalGamma and MatrixNormalWishart are one construction with
other shapes: a precision Lam, and a location that is normal given Lam with precision
(row precision) x Lam. Statistics, about the pivot C of the location M:

    precision E[Lam],  logdet E[log det Lam],  cross E[(M - C) Lam],  square E[(M - C) Lam (M - C)']
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from vbjax.families.base import Statistics


class JointStatistics(Statistics):
    """Statistics of a location and its precision; the shapes are the subclass's."""

    pivot: Array
    precision: Array
    logdet: Array
    cross: Array
    square: Array
    base: Array


def increment(gradient_cross: Array, row_precision: Array) -> Array:
    """How far the location moves from its pivot; where nothing pulls (no rows, no prior) it stays."""
    idle = row_precision == 0
    return jnp.where(idle, 0, gradient_cross / jnp.where(idle, 1, row_precision))
