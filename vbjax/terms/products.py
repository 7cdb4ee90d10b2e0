"""Statistics of products of two latents, or of a latent and values: locations for the term `normal`."""

from __future__ import annotations

from typing import overload

import jax.numpy as jnp
from jax.typing import ArrayLike

from vbjax.families.base import Statistics
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGammaStatistics
from vbjax.families.normal import NormalStatistics
from vbjax.families.normal_gamma import NormalGammaStatistics
from vbjax.numerics.linalg import outer
from vbjax.terms.arguments import Argument, family_of, read_statistics, read_value, require_shapes


@overload
def linear(x: ArrayLike, weights: MultivariateNormalGammaStatistics) -> NormalGammaStatistics: ...
@overload
def linear(x: ArrayLike, weights: Argument) -> NormalStatistics: ...
def linear(x: ArrayLike, weights: Argument) -> NormalStatistics | NormalGammaStatistics:
    """Return the statistics of x @ w, one for each row of x: a location for `normal`.

    Args:
        x: (n, D), values.
        weights: a value (D,), or the statistics of a MultivariateNormal factor of size D; or of a
            MultivariateNormalGamma factor, whose precision goes with it: `normal(y, linear(x, s.w))`.

    Raises:
        ValueError: if the weights are of another family (a plate of separate Normals is no joint factor:
            their products would not be affine in each), or the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> from vbjax.terms import linear, normal
    >>> print(normal(jnp.array([3.0]), linear(jnp.array([[1.0, 2.0]]), jnp.array([1.0, 1.0])), 1.0))
    [-0.9189385]
    """
    x = read_value(x, "linear: x", axes=1)
    joint = (MultivariateNormalStatistics, MultivariateNormalGammaStatistics)
    if isinstance(weights, Statistics) and not isinstance(weights, joint):
        raise ValueError(
            "linear: weights must be a value or a MultivariateNormal or MultivariateNormalGamma factor; "
            f"got one of {family_of(weights)}"
        )
    location = weights.pivot if isinstance(weights, joint) else read_value(weights, "linear: weights", axes=1)
    if x.shape[-1] != location.shape[0]:
        raise ValueError(
            "linear has arguments of shapes that do not fit: x must be (n, D) and weights (D,); got "
            f"x={x.shape} and weights={location.shape}"
        )
    if isinstance(weights, MultivariateNormalStatistics):
        second = ((x @ weights.second) * x).sum(-1)
        return NormalStatistics(x @ weights.pivot, x @ weights.first, second)
    if isinstance(weights, MultivariateNormalGammaStatistics):
        precision, logdet, base = (
            jnp.broadcast_to(a, x.shape[:1]) for a in (weights.precision, weights.logdet, weights.base)
        )
        square = ((x @ weights.square) * x).sum(-1)
        return NormalGammaStatistics(x @ weights.pivot, precision, logdet, x @ weights.cross, square, base)
    return NormalStatistics.of(x @ location)


def matmul(weights: Argument, z: Argument) -> NormalStatistics | NormalGammaStatistics:
    """Return the statistics of z_n . w_j, (..., p), of two independent factors: a location for `normal`.

    Args:
        weights: values (p, q), or the statistics of a MultivariateNormal factor of size q, plate (p,); or
            of a MultivariateNormalGamma factor, whose precisions go with it: `normal(y, matmul(s.w, s.z))`.
        z: values (..., q), or the statistics of a MultivariateNormal factor of size q for each row.

    Raises:
        ValueError: if the shapes do not fit, or an argument is of another family.

    >>> from vbjax.terms import matmul
    >>> print(matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0]).mean)
    [3. 7.]
    """
    z = read_statistics(MultivariateNormalStatistics, z, "matmul: z", axes=1)
    w: Argument = weights
    if joint := isinstance(weights, MultivariateNormalGammaStatistics):
        tau = w.precision
        first, second = w.cross, w.square
    else:
        w = read_statistics(MultivariateNormalStatistics, weights, "matmul: weights", axes=2)
        first, second, tau = w.first, w.second, jnp.ones_like(w.pivot[..., 0])
    wc, zc = w.pivot, z.pivot
    if wc.ndim != 2 or wc.shape[1] != zc.shape[-1]:
        raise ValueError(
            "matmul has arguments of shapes that do not fit: weights must be (p, q) and z (..., q); got "
            f"weights={wc.shape} and z={zc.shape}"
        )
    # d = z.w - zc.wc = dz.wc + zc.dw + dz.dw, and E[tau d^2] by one product over pairs of the q axes
    of_d = z.first @ (tau[:, None] * wc + first).T + zc @ first.T
    of_z = jnp.stack([z.second, outer(zc, zc + 2 * z.first)], -3)
    of_w = jnp.stack([second + outer(wc, tau[:, None] * wc + 2 * first), second], -3)
    square = of_z.reshape(*zc.shape[:-1], -1) @ of_w.reshape(len(wc), -1).T
    square = square + 2 * (z.first @ wc.T) * (zc @ first.T)
    if not joint:
        return NormalStatistics(zc @ wc.T, of_d, square)
    each = (jnp.broadcast_to(x, square.shape) for x in (tau, w.logdet, w.base))
    precision, logdet, base = each
    return NormalGammaStatistics(zc @ wc.T, precision, logdet, of_d, square, base)


def dot(x: Argument, z: Argument) -> NormalStatistics:
    """Return the statistics of x . z over the last axis, of two independent factors: a location for `normal`.

    For ratings as triplets: `normal(rating, dot(s.u[user], s.v[item]), s.tau)`.

    Args:
        x, z: vectors, or statistics of a MultivariateNormal factor; all axes but the last broadcast.

    >>> from vbjax.terms import dot
    >>> print(dot([[1.0, 2.0]], [[3.0, 4.0]]).mean)
    [11.]
    """
    x = read_statistics(MultivariateNormalStatistics, x, "dot: x", axes=1)
    z = read_statistics(MultivariateNormalStatistics, z, "dot: z", axes=1)
    xc, zc = x.pivot, z.pivot
    require_shapes("dot", event=1, x=xc, z=zc)
    # d = x.z - xc.zc = dx.zc + xc.dz + dx.dz, and its square term by term
    first = (x.first * (zc + z.first) + xc * z.first).sum(-1)
    second = (x.second * (z.second + outer(zc, zc + 2 * z.first))).sum((-1, -2))
    second = second + (z.second * outer(xc, xc + 2 * x.first)).sum((-1, -2))
    second = second + 2 * (x.first * zc).sum(-1) * (xc * z.first).sum(-1)
    return NormalStatistics((xc * zc).sum(-1), first, second)
