"""What the four joint families of a location and its precision share: their statistics and properties.

NormalGamma, NormalWishart, MultivariateNormalGamma and MatrixNormalWishart are one construction with
other shapes: a precision Lam, and a location that is normal given Lam with precision
(row precision) x Lam. Statistics, about the pivot C of the location M:

    precision E[Lam],  logdet E[log det Lam],  cross E[(M - C) Lam],  square E[(M - C) Lam (M - C)']
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from vbjax.families.base import LocationPrecision, State, Statistics, pytree
from vbjax.families.gamma import GammaState
from vbjax.families.wishart import WishartState
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, logdet_from_cholesky


@pytree
class JointStatistics(Statistics):
    """Statistics of a location and its precision; the shapes are the subclass's."""

    pivot: Array
    precision: Array
    logdet: Array
    cross: Array
    square: Array
    base: Array


@pytree
class JointState(State):
    """A location that is normal given its precision; the precision's own factor is the subclass's."""

    location: Array
    mean_precision: Array

    @property
    def precision(self) -> Any:
        """The marginal of the precision."""
        raise TypeError("given by the subclass")

    @property
    def mean(self) -> LocationPrecision:
        return LocationPrecision(self.location, self.precision.mean)

    @property
    def variance(self) -> LocationPrecision:
        location = jnp.diagonal(self.covariance.location, axis1=-2, axis2=-1)
        return LocationPrecision(location, self.precision.variance)


@pytree
class JointGammaState(JointState):
    """With one number for a precision, tau ~ Gamma(concentration, rate)."""

    concentration: Array
    rate: Array
    domains = dict(location="location", mean_precision="positive", concentration="positive", rate="positive")

    @property
    def location_scale(self) -> Array:
        """The spread of a row about the location."""
        return jnp.sqrt(self.rate / self.concentration)

    @property
    def precision(self) -> GammaState:
        """The marginal of tau."""
        return GammaState(self.concentration, self.rate)

    @property
    def spread(self) -> Array:
        """E[1 / tau], NaN where it is infinite."""
        return self.rate / jnp.where(self.concentration > 1, self.concentration - 1, jnp.nan)


@pytree
class JointWishartState(JointState):
    """With a precision matrix, Lam ~ Wishart(degrees_of_freedom, W), W given by its inverse."""

    degrees_of_freedom: Array
    inverse_scale: Array
    domains = dict(
        location="location",
        mean_precision="positive",
        degrees_of_freedom="degrees",
        inverse_scale="definite",
    )

    @property
    def location_scale(self) -> Array:
        """The spread of a row about the location, by axes."""
        diagonal = jnp.diagonal(self.inverse_scale, axis1=-2, axis2=-1)
        return jnp.sqrt(diagonal / self.degrees_of_freedom[..., None])

    @property
    def precision(self) -> WishartState:
        """The marginal of Lam."""
        return WishartState(self.degrees_of_freedom, self.inverse_scale)

    @property
    def spread(self) -> Array:
        """E[Lam^-1], NaN where it is infinite."""
        excess = self.degrees_of_freedom - self.location.shape[-1] - 1
        return self.inverse_scale / jnp.where(excess > 0, excess, jnp.nan)[..., None, None]

    @property
    def mode_factor(self) -> Array:
        """The mode of Lam is this times W."""
        raise TypeError("given by the subclass")

    @property
    def mode(self) -> LocationPrecision:
        factor = jnp.where(self.mode_factor > 0, self.mode_factor, jnp.nan)
        return LocationPrecision(self.location, factor[..., None, None] * self.precision.scale)

    def mode_and_logdet(self) -> tuple[Array, Array]:
        """The mode of Lam and its log-determinant, straight from the inverse scale.

        Forming Lam and factoring it again would lose digits.
        """
        root = cholesky(self.inverse_scale)
        logdet = root.shape[-1] * jnp.log(self.mode_factor) - logdet_from_cholesky(root)
        return self.mode_factor[..., None, None] * inverse_from_cholesky(root), logdet


def increment(gradient_cross: Array, row_precision: Array) -> Array:
    """How far the location moves from its pivot; where nothing pulls (no rows, no prior) it stays."""
    idle = row_precision == 0
    return jnp.where(idle, 0, gradient_cross / jnp.where(idle, 1, row_precision))
