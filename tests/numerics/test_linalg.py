"""Laws of the small linear algebra.

The plain-XLA factorizations equal LAPACK's at every size about the places where they are written out, looped
and halved, with gradients; they broadcast; what is not positive definite gives NaN; large batches at the same
time end; a coordinate without precision stays where it is. Stein's loss is never negative, zero at equality
and equal to its definition.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.tolerances import close
from vbjax.numerics import linalg


def positive_definite(rng, *shape):
    x = rng.normal(size=(*shape, 3 * shape[-1]))
    return x @ np.swapaxes(x, -1, -2) / shape[-1]


@jax.jit
def algebra(x, b):
    """All that is made of a matrix and of right sides."""
    root = linalg.cholesky(x)
    half = linalg.solve_lower(root, b)  # leading axes broadcast
    solved = linalg.solve_lower(root, half, transposed=True)
    inverse, logdet = linalg.inverse_from_cholesky(root), linalg.logdet_from_cholesky(root)
    return root, half, solved, inverse, logdet, linalg.quadratic_form(x, b[..., 0])


@pytest.mark.parametrize("size", [1, 3, 4, 40])
def test_factor_and_solves_equal_dense_algebra(size, dtype):
    rng = np.random.default_rng(size)
    x, b = positive_definite(rng, 2, size), rng.normal(size=(5, 2, size, 3))
    found = algebra(x.astype(dtype), b.astype(dtype))
    assert {leaf.dtype for leaf in found} == {dtype}
    root, half, solved, inverse, logdet, square = map(np.asarray, found)
    close(root, np.linalg.cholesky(x))
    close(root @ half, b)
    # the condition numbers, up to 20 here, stand in the rounding error
    close(solved, np.linalg.solve(x, b), factor=20)
    np.testing.assert_array_equal(inverse, np.swapaxes(inverse, -1, -2))
    close(inverse, np.linalg.inv(x), factor=20)
    close(logdet, np.linalg.slogdet(x)[1])
    close(square, np.einsum("...i,...ij,...j", b[..., 0], x, b[..., 0]))


def test_a_coordinate_that_nothing_pulls_does_not_move(dtype):
    x, b = positive_definite(np.random.default_rng(0), 3), np.arange(6.0).reshape(3, 2)
    free = np.zeros((4, 4))
    free[np.ix_([0, 1, 3], [0, 1, 3])] = x
    pull = np.insert(b, 2, 0, axis=0)
    half, shift = map(np.asarray, jax.jit(linalg.solve_pull)(free.astype(dtype), pull.astype(dtype)))
    close(shift, np.insert(np.linalg.solve(x, b), 2, 0, axis=0), factor=20)
    close(half.T @ half, b.T @ np.linalg.solve(x, b), factor=20)


@pytest.mark.parametrize("size", [2, 20])
def test_gradient_of_the_log_determinant_is_the_inverse(size, float64):
    x = positive_definite(np.random.default_rng(size), size)
    gradient = jax.jit(jax.grad(lambda x: linalg.logdet_from_cholesky(linalg.cholesky(x))))(x)
    close(0.5 * (gradient + gradient.T), np.linalg.inv(x), factor=20)


@pytest.mark.parametrize("size", [1, 20])
def test_what_is_not_positive_definite_gives_nan(size, dtype):
    eye, last = np.eye(size, dtype=dtype), np.eye(size, dtype=dtype)[-1:]
    bad = np.stack([-eye, 0 * eye, eye - 2 * last.T * last, eye - last.T * last])
    root, logdet = jax.jit(lambda x: (y := linalg.cholesky(x), linalg.logdet_from_cholesky(y)))(bad)
    assert np.isnan(root).any((1, 2)).all()
    assert np.isnan(logdet).all()


def test_large_batches_at_the_same_time_end():
    # LAPACK's batches wait for each other for ever here on a machine with two threads (jaxlib 0.10.2)
    x = jax.random.normal(jax.random.key(0), (6, 20_000, 3, 3))

    @jax.jit
    def both(x):
        y = [jax.lax.fori_loop(0, 3, lambda i, y: jnp.sin(y), x[i]) for i in range(6)]
        spread = [y @ linalg.transpose(y) + jnp.eye(3) for y in y]
        return [linalg.solve_lower(linalg.cholesky(s), y) for s, y in zip(spread, y, strict=True)]

    for _ in range(3):
        assert all(jnp.isfinite(z).all() for z in both(x))


def test_stein_loss_equals_its_definition_and_vanishes_at_equality(dtype):
    rng = np.random.default_rng(0)
    v, v0 = (x @ np.swapaxes(x, -1, -2) for x in rng.normal(size=(2, 5, 3, 6)))
    ratio = np.geomspace(0.1, 10, 5)
    product = ratio[:, None, None] * v0 @ np.linalg.inv(v)
    desired = np.trace(product, axis1=-2, axis2=-1) - 3 - np.linalg.slogdet(product)[1]

    @jax.jit
    def losses(v, v0, ratio):
        root, root0 = linalg.cholesky(v), linalg.cholesky(v0)
        return linalg.stein_loss(root, root0, ratio), linalg.stein_loss(root, root)

    loss, at_equality = losses(*(x.astype(dtype) for x in (v, v0, ratio)))
    # the condition numbers of v and v0, up to 30 here, stand in the rounding error
    close(loss, desired, factor=30)
    np.testing.assert_array_less(-np.finfo(dtype).eps, at_equality)
    close(at_equality, np.zeros(5), scale=3)
