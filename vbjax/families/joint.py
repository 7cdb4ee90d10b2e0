"""Base classes of the four joint families of a location and its precision: statistics and properties.

NormalGamma, NormalWishart, MultivariateNormalGamma and MatrixNormalWishart are one construction in
different shapes: a precision Lam, and a location that is normal given Lam with the precision
(row precision) x Lam. The statistics, about the pivot C of the location M, are:

    precision E[Lam],  logdet E[log det Lam],  cross E[(M - C) Lam],  square E[(M - C) Lam (M - C)']
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.families.base import LocationPrecision, State, Statistics, T, pytree
from vbjax.families.gamma import GammaState
from vbjax.families.wishart import WishartState
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, logdet_from_cholesky


@pytree
class JointStatistics(Statistics):
    """Statistics of a location and its precision; the subclass fixes the shapes."""

    pivot: Array
    precision: Array
    logdet: Array
    cross: Array
    square: Array
    base: Array


@pytree
class JointState(State[T]):
    """Location that is normal given its precision; the subclass fixes the factor of the precision."""

    location: Array
    mean_precision: Array

    @property
    def precision(self) -> State:
        """Marginal factor of the precision."""
        raise TypeError(f"{type(self).__name__} has no factor of the precision")

    @property
    def mean(self) -> LocationPrecision:
        return LocationPrecision(self.location, self.precision.mean)

    @property
    def variance(self) -> LocationPrecision:
        location = jnp.diagonal(self.covariance.location, axis1=-2, axis2=-1)
        return LocationPrecision(location, self.precision.variance)


@pytree
class JointGammaState(JointState[T]):
    """Location with one number for its precision, tau ~ Gamma(concentration, rate)."""

    concentration: Array
    rate: Array
    domains = dict(location="location", mean_precision="positive", concentration="positive", rate="positive")

    @property
    def location_scale(self) -> Array:
        """Spread of a row about the location."""
        return jnp.sqrt(self.rate / self.concentration)

    @property
    def precision(self) -> GammaState:
        """Marginal factor of tau."""
        return GammaState(self.concentration, self.rate)

    @property
    def spread(self) -> Float[Array, "*plate"]:
        """E[1 / tau], NaN where it is infinite."""
        return self.rate / jnp.where(self.concentration > 1, self.concentration - 1, jnp.nan)


@pytree
class JointWishartState(JointState[T]):
    """Location with a precision matrix, Lam ~ Wishart(degrees_of_freedom, W); W is given by its inverse."""

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
        """Spread of a row about the location, one number for each axis."""
        diagonal = jnp.diagonal(self.inverse_scale, axis1=-2, axis2=-1)
        return jnp.sqrt(diagonal / self.degrees_of_freedom[..., None])

    @property
    def precision(self) -> WishartState:
        """Marginal factor of Lam."""
        return WishartState(self.degrees_of_freedom, self.inverse_scale)

    @property
    def spread(self) -> Float[Array, "*plate d d"]:
        """E[Lam^-1], NaN where it is infinite."""
        excess = self.degrees_of_freedom - self.location.shape[-1] - 1
        return self.inverse_scale / jnp.where(excess > 0, excess, jnp.nan)[..., None, None]

    @property
    def mode_factor(self) -> Float[Array, "*plate"]:
        """Number by which W is multiplied to give the mode of Lam."""
        raise TypeError(f"{type(self).__name__} has no mode")

    @property
    def mode(self) -> LocationPrecision:
        factor = jnp.where(self.mode_factor > 0, self.mode_factor, jnp.nan)
        return LocationPrecision(self.location, factor[..., None, None] * self.precision.scale)

    def mode_and_logdet(self) -> tuple[Float[Array, "*plate d d"], Float[Array, "*plate"]]:
        """Return the mode of Lam and its log-determinant, both from the factor of the inverse scale.

        Forming Lam and factoring it again would lose digits.
        """
        root = cholesky(self.inverse_scale)
        logdet = root.shape[-1] * jnp.log(self.mode_factor) - logdet_from_cholesky(root)
        return self.mode_factor[..., None, None] * inverse_from_cholesky(root), logdet


def increment(
    gradient_cross: Float[Array, " ..."], row_precision: Float[Array, " ..."]
) -> Float[Array, " ..."]:
    """Return how far the location moves from its pivot: 0 where neither rows nor a prior act."""
    idle = row_precision == 0
    return jnp.where(idle, 0, gradient_cross / jnp.where(idle, 1, row_precision))
