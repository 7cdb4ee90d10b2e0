"""Orthogonal axes of symmetric matrices by plane rotations: eigenvectors, and axes common to several.

Jacobi's method in plain XLA: for small matrices, batched, and right to the last digits in float32; axes turn
in disjoint pairs, so that a step is elementwise. LAPACK's decompositions take a batch one matrix after the
other, and may wait for each other for ever (linalg.py). The covariance structures use it.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from vbjax.numerics.compilation import jit

_SWEEPS = 15  # at most; convergence is quadratic, and five or six are usual


def _partners(size: int) -> np.ndarray:
    """Return with whom each axis is paired in every step of a sweep, (steps, size): each pair meets once.

    It is the round robin of tournaments; of an odd number one axis rests, paired with itself.
    """
    others = size - 1 + size % 2
    turns = np.arange(others)
    partner = (2 * turns[:, None] - turns) % others  # number i meets itself in round i
    if size % 2:
        return partner
    return np.concatenate([np.where(np.eye(others, dtype=bool), others, partner), turns[:, None]], 1)


def turn_axes(
    matrices: Float[Array, "*plate k d d"], axes: Float[Array, "*plate d d"], pull: Float[Array, "*plate k d"]
) -> tuple[Float[Array, "*plate k d d"], Float[Array, "*plate d d"]]:
    """Lower sum_kj pull_kj a_j' S_k a_j over orthonormal axes a_j by one sweep of rotations.

    Every pair of axes is turned once, by the angle that is best in their plane, in closed form; so the sum
    never rises (Flury & Gautschi 1986, for given weights of the axes).

    Args:
        matrices: S_k, symmetric, in the coordinates of the axes.
        axes: the columns a_j.
        pull: the weights of the variances along the axes.

    Returns:
        The matrices in the coordinates of the new axes, and these.
    """
    size = matrices.shape[-1]
    number = np.arange(size)

    def step(carry: tuple[Array, Array], partner: Array) -> tuple[tuple[Array, Array], None]:
        x, axes = carry
        variance, gap = jnp.diagonal(x, axis1=-2, axis2=-1), pull[..., partner] - pull
        even = 0.5 * (gap * (variance - variance[..., partner])).sum(-2)
        mixed = (gap * x[..., number, partner]).sum(-2)
        # in the plane of two axes the sum is a constant less even cos 2t + mixed sin 2t
        angle = jnp.where((even == 0) & (mixed == 0), 0, 0.5 * jnp.arctan2(mixed, even))
        angle = jnp.where(number < partner, angle, jnp.where(number > partner, -angle[..., partner], 0))
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        of_rows, of_columns = (..., None, slice(None), None), (..., None, None, slice(None))
        x = cos[of_rows] * x + sin[of_rows] * x[..., partner, :]
        x = cos[of_columns] * x + sin[of_columns] * x[..., partner]
        return (x, cos[..., None, :] * axes + sin[..., None, :] * axes[..., partner]), None

    return lax.scan(step, (matrices, axes), jnp.asarray(_partners(size)))[0]


@jit
def eigenvectors(
    x: Float[Array, "*plate d d"],
) -> tuple[Float[Array, "*plate d"], Float[Array, "*plate d d"]]:
    """Return eigenvalues of symmetric matrices, the largest first, and eigenvectors as columns.

    References:
        Golub & Van Loan (2013), Matrix computations, section 8.5.
    """
    size, dtype = x.shape[-1], x.dtype
    pull, eye = jnp.arange(size, dtype=dtype)[None], jnp.eye(size, dtype=dtype)
    pull, start = jnp.broadcast_to(pull, (*x.shape[:-2], 1, size)), jnp.broadcast_to(eye, x.shape)
    negligible = (size * jnp.finfo(dtype).eps) ** 2

    def going(carry: tuple[Array, Array, Array]) -> Array:
        square = carry[1] ** 2
        off = jnp.where(eye == 1, 0, square).sum((-1, -2)) > negligible * square.sum((-1, -2))
        return off.any() & (carry[0] < _SWEEPS)

    def sweep(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        return carry[0] + 1, *turn_axes(*carry[1:], pull)

    _, turned, axes = lax.while_loop(going, sweep, (jnp.asarray(0), x[..., None, :, :], start))
    values = jnp.diagonal(turned[..., 0, :, :], axis1=-2, axis2=-1)
    order = jnp.argsort(values, descending=True)
    sort = lambda values, order: jnp.take_along_axis(values, order, -1)
    return sort(values, order), sort(axes, jnp.broadcast_to(order[..., None, :], axes.shape))
