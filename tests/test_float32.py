"""float32 finds what float64 finds, or says that it does not.

The law, of every ready-made model and every hostile table of `float32_grid.py`: no run ends because its
objective fell; what float32 says of its parameters float64 confirms; from where float64 ended, float32 stays.
A run whose columns repeat one another to within rounding ends as ILL_CONDITIONED instead.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.float32_grid import GRID, REMAINS, judge
from vbjax.numerics.linalg import ill_conditioned, least_share

SAMPLE = {  # one case or two of each kind of fault
    "k-means": ("an outlier",),
    "EM full": ("collinear columns", "a constant column"),
    "VB tied": ("collinear columns",),
    "Poisson": ("counts of 1e+06", "counts of 1e+08"),
    "multinomial": ("counts of 1e+08",),
    "mean and precision": ("an outlier",),
    "hierarchical": ("offset 10000, scale 1",),
}


def assert_right(name, cases):
    found = {case: judge(name, case) for case in cases}
    assert not {case: (one, one.wrong) for case, one in found.items() if one.wrong}


@pytest.mark.parametrize("name", SAMPLE)
def test_float32_is_right_or_says_so(name):
    assert_right(name, SAMPLE[name])


@pytest.mark.grid
@pytest.mark.parametrize("name", GRID)
def test_the_whole_grid(name):
    assert_right(name, [case for case in GRID[name][1] if case not in REMAINS.get(name, ())])


def test_collinear_columns_are_told_from_narrow_ones(dtype):
    """A share does not depend on units; what is not finite is not ill-conditioned."""
    noise = 30 * np.finfo(dtype).eps
    near = jnp.asarray([[1.0, 1.0], [1.0, 1.0 + noise]], dtype)
    unit = jnp.asarray([1e6, 1e-6], dtype)
    scale = unit[:, None] * unit
    np.testing.assert_allclose(least_share(near * scale), noise, rtol=0.1)
    assert ill_conditioned(near * scale)
    assert not ill_conditioned(jnp.eye(2, dtype=dtype) * scale)
    assert not ill_conditioned(jnp.full((2, 2), jnp.nan, dtype))


def test_an_ill_conditioned_run_never_wins_over_a_sound_one():
    """Columns that repeat one another: the status says so, and the fit's words name the remedy."""
    x = np.random.default_rng(0).normal(size=(40, 2)).astype("float32")
    x[:, 1] = x[:, 0] + 1e-4 * x[:, 1]
    fit = vb.fit(vb.BayesianGaussianMixture(3), x, key=jax.random.key(0), max_iter=50)
    assert fit.status == vb.Status.ILL_CONDITIONED
    assert not fit.runs.sound.any()
    assert "float64" in str(fit)
