"""Supports: every map has the log-determinant of its Jacobian, an inverse, and values where it says.

The determinant is that of the entries of which the others are functions: all but the last of a simplex, those
below the diagonal of a correlation's factor.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

import vbjax as vb

SUPPORTS = {
    "real": (vb.real((2, 2)), np.ravel),
    "positive": (vb.positive(3), np.ravel),
    "unit interval": (vb.unit_interval(), np.ravel),
    "interval of data": (vb.interval(-1.0, np.array([2.0, 3.0])), np.ravel),
    "below": (vb.interval(None, 4.0, 2), np.ravel),
    "simplex": (vb.simplex(4), lambda x: x[:-1]),
    "simplices": (vb.simplex(3, 2), lambda x: x[:, :-1].ravel()),
    "ordered": (vb.ordered(4), np.ravel),
    "ordered above": (vb.ordered(3, 2, low=1.5), np.ravel),
    "factor": (vb.cholesky_factor(3), lambda x: x[np.tril_indices(3)]),
    "correlations": (
        vb.correlation_cholesky(3, 2),
        lambda x: x[(slice(None), *np.tril_indices(3, -1))].ravel(),
    ),
}
INSIDE = {
    "positive": lambda x: (x > 0).all(),
    "unit interval": lambda x: 0 < x < 1,
    "interval of data": lambda x: ((x > -1) & (x < np.array([2, 3]))).all(),
    "below": lambda x: (x < 4).all(),
    "simplex": lambda x: (x > 0).all() and abs(x.sum() - 1) < 1e-12,
    "simplices": lambda x: (abs(x.sum(-1) - 1) < 1e-12).all(),
    "ordered": lambda x: (np.diff(x) > 0).all(),
    "ordered above": lambda x: (np.diff(x) > 0).all() and (x > 1.5).all(),
    "factor": lambda x: (np.triu(x, 1) == 0).all() and (np.diag(x) > 0).all(),
    "correlations": lambda x: (abs((x**2).sum(-1) - 1) < 1e-12).all() and (np.triu(x, 1) == 0).all(),
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_the_stretch_is_the_determinant_and_the_inverse_comes_back(name, float64):
    support, free = SUPPORTS[name]
    u = jnp.asarray(np.random.default_rng(0).normal(size=support.size))
    value, stretch = jax.jit(support.constrain)(u)
    jacobian = jax.jit(jax.jacfwd(lambda u: support.constrain(u)[0]))(u)
    rows = np.stack([free(column) for column in np.moveaxis(np.asarray(jacobian), -1, 0)], 1)
    close(stretch, np.linalg.slogdet(rows)[1], scale=1.0)
    close(support.unconstrain(value), u, scale=1.0)
    assert value.shape == support.shape
    assert name == "real" or INSIDE[name](np.asarray(value))


@pytest.mark.parametrize("name", SUPPORTS)
def test_far_out_values_and_stretches_are_finite_in_float32(name):
    support, _ = SUPPORTS[name]
    for u in (-30.0, 30.0):
        value, stretch = support.constrain(jnp.full(support.size, u, jnp.float32))
        assert value.dtype == stretch.dtype == np.float32
        assert np.isfinite(value).all()
        assert np.isfinite(stretch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vb.real(-1), "shape must be"),
        (lambda: vb.positive((2, 0.5)), "shape must be"),
        (lambda: vb.simplex(0), "n_cases must be an integer of at least 1; got 0"),
        (lambda: vb.interval(np.zeros(2), 1.0, 3), "shape must be one that low and high"),
    ],
)
def test_bad_shapes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
