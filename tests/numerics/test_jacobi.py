"""Laws of the axes by plane rotations.

Eigenvectors are numpy's, also of equal eigenvalues, at every size about an even and an odd number of axes. A
sweep pairs each axis with every other once; the axes stay orthonormal, the matrices are turned with them, and
the weighted sum of variances never rises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.tolerances import close
from vbjax.numerics import jacobi


def symmetric(rng, *shape):
    x = rng.normal(size=(*shape, 2 * shape[-1]))
    return x @ np.swapaxes(x, -1, -2)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_eigenvectors_are_numpys(size, dtype):
    x = symmetric(np.random.default_rng(size), 3, size)
    x[-1] = 2 * np.eye(size)
    values, vectors = map(np.asarray, jacobi.eigenvectors(jnp.asarray(x, dtype)))
    close(values, np.linalg.eigvalsh(x)[:, ::-1], factor=5)
    close(np.swapaxes(vectors, 1, 2) @ vectors, np.broadcast_to(np.eye(size), x.shape), factor=5)
    close((vectors * values[:, None]) @ np.swapaxes(vectors, 1, 2), x, factor=5)


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_every_pair_of_axes_meets_once(size):
    partner = jacobi._partners(size)
    pairs = [(i, j) for step in partner for i, j in enumerate(step) if i < j]
    assert sorted(pairs) == [(i, j) for i in range(size) for j in range(i + 1, size)]
    np.testing.assert_array_equal([step[step] for step in partner], [np.arange(size)] * len(partner))


def test_a_sweep_lowers_the_weighted_sum_of_variances(float64):
    rng, size = np.random.default_rng(0), 5
    own, pull = symmetric(rng, 3, size), rng.uniform(size=(3, size))
    turn, sums = jax.jit(jacobi.turn_axes), []
    turned, axes = own, np.eye(size)
    for _ in range(8):
        sums.append((pull * np.diagonal(turned, axis1=1, axis2=2)).sum())
        turned, axes = map(np.asarray, turn(turned, axes, pull))
        close(axes.T @ axes, np.eye(size))
        close(axes.T @ own @ axes, turned)
    assert (np.diff(sums) <= 1e-12).all()
    assert sums[1] < sums[0] - 1
