"""Base classes of the four joint families of a location and its precision: statistics and properties.

NormalGamma, NormalWishart, MultivariateNormalGamma and MatrixNormalWishart are one construction in
different shapes: a precision Lam, and a location that is normal given Lam with the precision
(row precision) x Lam. The statistics, about the pivot C of the location M, are:

    precision E[Lam],  logdet E[log det Lam],  cross E[(M - C) Lam],  square E[(M - C) Lam (M - C)']
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import ndtri
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax.families.base import (
    Family,
    LocationPrecision,
    Q,
    State,
    Statistics,
    T,
    pytree,
    read_share,
    vanishes,
)
from vbjax.families.beta import BetaState
from vbjax.families.gamma import GammaState
from vbjax.families.wishart import WishartState
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.linalg import inverse_and_logdet
from vbjax.numerics.special import from_scipy
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Given, Tree


@stored
class LocationCovariance(NamedTuple):
    """Location, and the inverse of its precision: a point of a joint family.

    >>> import vbjax as vb
    >>> print(*vb.Delta(vb.NormalGamma()).at((3.0, 4.0)).value)  # location and variance: a point of EM
    3.0 4.0
    """

    location: Array
    covariance: Array


@pytree
class JointStatistics(Statistics):
    """Statistics of a location and its precision; the subclass fixes the shapes.

    >>> import vbjax as vb
    >>> list(vb.NormalWishart(2).neutral("float32").expected().natural)  # in these a log joint is affine
    ['precision', 'logdet', 'cross', 'square']
    """

    pivot: Array
    precision: Array
    logdet: Array
    cross: Array
    square: Array
    base: Array
    point_domains = dict(location="location", covariance="positive")

    @property
    def _of_matrix(self) -> bool:
        return self.events["precision"] == 2

    def _inverse(self, covariance: Array) -> tuple[Array, Array]:
        """Return the precision of a covariance, and its log-determinant."""
        return inverse_and_logdet(covariance) if self._of_matrix else (1 / covariance, -jnp.log(covariance))

    def at(self, point: LocationCovariance) -> Self:
        precision, logdet = self._inverse(point.covariance)
        size = precision.shape[-1] if self._of_matrix else 1
        rows = math.prod(point.location.shape[logdet.ndim :]) // size
        nothing = dict(cross=jnp.zeros_like(self.cross), square=jnp.zeros_like(self.square))
        value = dict(pivot=point.location, precision=precision, logdet=logdet)
        return dataclasses.replace(self, **value, **nothing, base=0.5 * (rows - size - 1) * logdet)

    def value_at(self, point: LocationCovariance) -> LocationPrecision:
        return LocationPrecision(point.location, self._inverse(point.covariance)[0])

    def location_scale(self, point: LocationCovariance) -> Array:
        """Return the standard deviation of a row about the location."""
        variance, plate = point.covariance, self.plate
        variance = jnp.diagonal(variance, axis1=-2, axis2=-1) if self._of_matrix else variance
        missing = (1,) * (point.location.ndim - variance.ndim)
        return jnp.sqrt(variance).reshape(plate + missing + variance.shape[len(plate) :])


J = TypeVar("J", bound=JointStatistics)


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

    if TYPE_CHECKING:  # of a Gamma one, of a Wishart another

        @property
        def location_freedom(self) -> Array: ...

        @property
        def column_scale(self) -> Array: ...

    def quantile(self, p: ArrayLike) -> LocationPrecision:
        """Return quantiles of the entries' marginals: Student-t for the location; those of the precision."""
        df, columns, rows = map(jnp.asarray, (self.location_freedom, self.column_scale, self.mean_precision))
        p, plate, rows = read_share(p, df), df.ndim, 1 / rows
        p, df = jnp.broadcast_arrays(p, df)
        if rows.ndim > plate:
            rows = jnp.diagonal(inverse_and_logdet(self.mean_precision)[0], axis1=-2, axis2=-1)
            columns = jnp.expand_dims(columns, plate)
        unit = jnp.sqrt(columns * rows.reshape(rows.shape + (1,) * (columns.ndim - rows.ndim)))
        t = _student_quantile(df, p)
        t = t.reshape(t.shape + (1,) * (unit.ndim - plate))
        return LocationPrecision(self.location + t * unit, self.precision.quantile(p))

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
    def location_freedom(self) -> Float[Array, "*plate"]:
        """Degrees of freedom of the location's Student-t."""
        return 2 * self.concentration

    @property
    def column_scale(self) -> Float[Array, "*plate"]:
        """Square of the unit of that Student-t, but for the mean's precision."""
        return self.rate / self.concentration

    @property
    def precision(self) -> GammaState:
        """Marginal factor of tau."""
        return GammaState(self.concentration, self.rate)

    @property
    def scatter(self) -> Float[Array, "*plate"]:
        """Sum of squares about the location, of the rows that it stands for: twice the rate."""
        return 2 * self.rate

    @property
    def mean_covariance(self) -> Float[Array, "*plate"]:
        """Inverse of the expected precision."""
        return self.rate / self.concentration

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
    def location_freedom(self) -> Float[Array, "*plate"]:
        """Degrees of freedom of the location's Student-t, in every direction (Bishop 2006, eq. 2.159)."""
        return self.degrees_of_freedom - self.location.shape[-1] + 1

    @property
    def column_scale(self) -> Float[Array, "*plate d"]:
        """Squares of the units of that Student-t, one for each axis, but for the mean's precision."""
        diagonal = jnp.diagonal(self.inverse_scale, axis1=-2, axis2=-1)
        return diagonal / self.location_freedom[..., None]

    @property
    def precision(self) -> WishartState:
        """Marginal factor of Lam."""
        return WishartState(self.degrees_of_freedom, self.inverse_scale)

    @property
    def scatter(self) -> Float[Array, "*plate d d"]:
        """Sum of products about the location, of the rows that it stands for: the inverse scale."""
        return self.inverse_scale

    @property
    def mean_covariance(self) -> Float[Array, "*plate d d"]:
        """Inverse of the expected precision."""
        return self.inverse_scale / self.degrees_of_freedom[..., None, None]

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


@dataclasses.dataclass(frozen=True)
class JointFamily(Family[Q, T]):
    """Location and its precision, for each cell of `plate`."""

    @property
    def base_exponent(self) -> float:
        """The power of det Lam that is the base measure."""
        raise TypeError(f"{type(self).__name__} has no base measure")

    def maximise(self, statistics: T, gradient: T) -> LocationCovariance:
        """Return the location and the covariance S / n of the largest <gradient, t> (Bishop 2006, eq. 9.25).

        With n = 2 g_logdet, and the location and the scatter S of `from_gradient`.
        """
        state: Tree = self.from_gradient(statistics, gradient)
        number = jnp.where(self.is_idle(gradient), 1, self.rows_behind(gradient))
        shape = number.shape + (1,) * (state.scatter.ndim - number.ndim)
        return LocationCovariance(state.location, state.scatter / number.reshape(shape))

    def is_idle(self, gradient: T) -> Bool[Array, "*plate"]:
        number = self.rows_behind(gradient)
        return (number < 0) | vanishes(number)

    def rows_behind(self, gradient: Tree) -> Float[Array, "*plate"]:
        """Return how many rows a gradient stands for, by which `maximise` divides the scatter."""
        return 2 * (gradient.logdet + self.base_exponent * gradient.base)

    def point(self, value: Given) -> LocationCovariance:
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(f"value must be a pair (location, covariance); got {type(value).__name__}")
        return LocationCovariance(*map(super().point, value))


def _student_quantile(df: Array, p: Array) -> Array:
    """Return a quantile of Student's t by that of a Beta, or by an expansion about the normal's.

    For a large df the Beta's quantile loses digits, and the expansion is exact. Abramowitz & Stegun (1964),
    eq. 26.5.27 and 26.7.5.
    """
    if is_concrete((df, p)):
        return from_scipy("stdtrit", df, p)
    large = 1e2 if p.dtype.itemsize == 4 else 1e5
    a, half, tail = 0.5 * jnp.minimum(df, large), jnp.full_like(df, 0.5), jnp.minimum(p, 1 - p)
    # t^2 / (df + t^2) ~ Beta(1/2, a): read from its own tail in the middle, from the other one far out
    far = tail < 0.25
    share = BetaState(jnp.where(far, a, half), jnp.where(far, half, a))
    x = share.quantile(jnp.where(far, 2 * tail, 1 - 2 * tail))
    t = jnp.sign(p - 0.5) * jnp.sqrt(2 * a * jnp.where(far, (1 - x) / x, x / (1 - x)))
    z, v = ndtri(p), 1 / df
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96 + v * (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return jnp.where(df > large, z + v * ((z**3 + z) / 4 + v * second), t)


def keep_collinear(gradient: J) -> J:
    """Return a gradient by which collinear locations stay at the pivot: rows do not tell them apart.

    The term that keeps them, a proximal one, is a rounding of the rows' squares, and zero at the pivot.
    """
    size, dtype = gradient.square.shape[-1], gradient.square.dtype
    near = 1 + size * jnp.finfo(dtype).eps * jnp.eye(size, dtype=dtype)
    return dataclasses.replace(gradient, square=gradient.square * near)


def increment(
    gradient_cross: Float[Array, " ..."], row_precision: Float[Array, " ..."]
) -> Float[Array, " ..."]:
    """Return how far the location moves from its pivot: 0 where neither rows nor a prior act."""
    idle = row_precision == 0
    return jnp.where(idle, 0, gradient_cross / jnp.where(idle, 1, row_precision))
