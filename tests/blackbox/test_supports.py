"""Supports: every map has the log-determinant of its Jacobian, an inverse, and values where it says.

The determinant is that of the entries of which the others are functions: all but the last of a simplex, those
below the diagonal of a correlation's factor.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.tolerances import close

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
    "size", [-1, 1.5, np.float64(2.0), "3", None, np.nan, True, (2, 0.5), (2, -1), ((2,),), {}, 2**40]
)
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (vb.real, "shape"),
        (vb.positive, "shape"),
        (vb.unit_interval, "shape"),
        (lambda size: vb.interval(0, 1, "1" if size is None else size), "shape"),  # None: that of the ends
        (lambda size: vb.category(2, size), "shape"),
        (lambda size: vb.simplex(2, size), "plates"),
        (lambda size: vb.ordered(2, size), "plates"),
        (lambda size: vb.cholesky_factor(2, size), "plates"),
        (lambda size: vb.correlation_cholesky(2, size), "plates"),
        (vb.category, "n_cases"),
        (vb.simplex, "n_cases"),
        (vb.ordered, "n"),
        (vb.cholesky_factor, "n"),
        (vb.correlation_cholesky, "n"),
    ],
)
def test_what_is_no_size_is_refused_by_the_name_of_its_argument(make, name, size):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        make(size)


def test_sizes_are_any_integers():
    for make in (vb.real, vb.positive, vb.simplex, vb.ordered, vb.category, vb.cholesky_factor):
        assert make(np.int64(3)).shape == make(3).shape
    assert vb.real([2, np.int32(3)]).shape == (2, 3)
    assert vb.real(0).size == 0


LOW = np.array([0.0, 2.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vb.interval(1, 0), "low must be below high; got 1 and 0"),
        (lambda: vb.interval(1.0, 1.0, 3), "low must be below high; got 1.0 and 1.0"),
        (lambda: vb.interval(LOW, 1.0), "low must be below high; got 2.0 and 1.0"),
        (lambda: vb.interval(LOW, np.ones(2)), "low must be below high; got 2.0 and 1.0"),
        (lambda: vb.interval(np.nan, 1), "low must be finite, or None"),
        (lambda: vb.interval(0, np.inf), "high must be finite, or None"),
        (lambda: vb.interval(LOW, [1.0, np.nan]), "high must be finite, or None"),
        (lambda: vb.interval("a", 1), "low must be numbers"),
        (lambda: vb.interval(0, "b"), "high must be numbers"),
        (lambda: vb.interval(0, 1j), "high must be numbers"),
        (lambda: vb.interval(object(), 1), "low must be numbers"),
        (
            lambda: vb.interval(LOW, np.ones(3)),
            r"low and high must have shapes that fit; got \(2,\) and \(3,\)",
        ),
        (lambda: vb.interval(np.zeros(2), 1.0, 3), "shape must be one that low and high"),
        (lambda: vb.ordered(3, low=np.nan), "low must be finite"),
        (lambda: vb.ordered(3, low="a"), "low must be numbers"),
        (lambda: vb.ordered(3, 2, low=np.zeros(3)), r"low must be a number, or numbers of shape \(2, 1\)"),
        (lambda: vb.real(3).constrain(jnp.zeros(2)), r"u must have shape \(3,\); got \(2,\)"),
        (lambda: vb.simplex(3).unconstrain([0.5, 0.5]), r"value must have shape \(3,\); got \(2,\)"),
        (lambda: vb.positive().unconstrain(-1.0), "value must lie inside Interval.*got -1"),
    ],
)
def test_what_is_no_end_or_value_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_ends_may_be_data_and_traced(float64):
    u = jnp.array([-1.0, 2.0])
    expected = np.array([3.0, 5.0]) + 0.5 / (1 + np.exp(-np.asarray(u)))
    high = jax.jit(lambda low: vb.interval(low, low + 0.5).constrain(u)[0])
    close(high(jnp.array([3.0, 5.0])), expected)
    each = jax.vmap(lambda low, u: vb.interval(low, low + 0.5).constrain(u[None])[0])
    close(each(jnp.array([3.0, 5.0]), u), expected)
    support = vb.interval([3, 5], [3.5, 5.5])
    close(support.constrain(u)[0], expected)
    close(support.unconstrain(expected.tolist()), u)
    # NaN among traced ends is not seen
    assert np.isnan(jax.jit(lambda high: vb.interval(0.0, high).constrain(u[:1])[0])(jnp.nan))
