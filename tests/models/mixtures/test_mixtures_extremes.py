"""What Gaussian mixtures of both kinds must survive.

float32 finds what float64 finds wherever the data lie. Degenerate data end in finite parameters or say that
they do not. A component of EM that loses its rows keeps its place; fewer rows than components are legal for
variational Bayes. Bad input is refused by name.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import (
    COVARIANCE_TYPES,
    MODELS,
    N_COMPONENTS,
    N_ROWS,
    covariance,
    every_kind,
    read_out,
    sweeps,
)
from tests.support.tolerances import close

K = N_COMPONENTS

# ---------------------------------------------------------------- float32


@functools.partial(jax.jit, static_argnums=0)
def started(entry, data, weights):
    return entry.started(data, weights)[1]


def compare(entry, values):
    """The same rows, start and sweeps in float32 and in float64.

    Returns:
        The errors of the objectives (relative), of the weights, of the means (in the data's standard
        deviations) and of the covariances (relative to the largest); and the data's resolution in that unit.
    """
    found = {}
    start = started(entry, values, np.ones(N_ROWS, "float32"))
    for dtype in ("float32", "float64"):
        data, weights = jnp.asarray(values, dtype), jnp.ones(N_ROWS, dtype)
        model = entry.model.resolve(data, weights)
        there = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), start)
        params, objective, _ = sweeps(model, there, data, weights)
        read = read_out(model, params, model.component.covariance_type)
        found[dtype] = [np.asarray(value, float) for value in (objective, *read)]
    pairs = list(zip(found["float32"], found["float64"], strict=True))
    sd = values.astype(float).std(0)
    scales = abs(pairs[0][1]), 1, sd, abs(pairs[3][1]).max()
    errors = [abs((a - b) / scale).max() for (a, b), scale in zip(pairs, scales, strict=True)]
    return errors, (np.spacing(abs(values).max(0)) / sd).max()


@pytest.mark.parametrize("name", [*(f"EM {kind}" for kind in COVARIANCE_TYPES), "VB full", "VB diag"])
def test_float32_finds_what_float64_finds_wherever_the_data_lie(name, float64):
    """A location is known to a unit in the last place at best; the objective feels that in second order."""
    entry = MODELS[name]
    plain = np.asarray(entry.data(float64)[0])
    for offset in (0.0, 1e2, 1e4):
        for scale in (1e-3, 1.0, 1e3):
            errors, resolution = compare(entry, ((plain + offset) * scale).astype("float32"))
            known = 1e-4 + resolution
            assert (np.array(errors) < [1e-4, 1e-4, known, known]).all(), (offset, scale, errors, resolution)


# ---------------------------------------------------------------- degenerate data


def degenerate():
    """Tables of the registry's shape, by what is wrong with them; of the last three, each lies on a line."""
    x = np.asarray(MODELS["EM full"].data("float32")[0], float)
    constant, outlier = x.copy(), x.copy()
    constant[:, 1], outlier[7] = 3.3, [1e6, 2.0]
    return {
        "a constant column": constant,
        "one kind of rows": np.full_like(x, 3.3),
        "three kinds of rows": np.resize(x[:3], x.shape),
        "an outlier": outlier,
        "scales 1e-6 and 1e6": x * [1e-6, 1e6],
        "scales 1e6 and 1e-6 far away": (x + 1e3) * [1e6, 1e-6],
        "two kinds of rows": np.resize(x[:2], x.shape),
        "a line": x[:, :1] * [1.0, 2.0],
        "an outlier in all columns": np.where(np.arange(N_ROWS)[:, None] == 7, [1e6, -1e6], x),
    }


ON_A_LINE = ("two kinds of rows", "a line", "an outlier in all columns")


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["EM full", "VB full", "VB diag"])
def test_degenerate_data_end_well_or_say_so(name, dtype):
    """Rows on a line defeat a full covariance: there a run may end early, but then its status says so."""
    for what, values in degenerate().items():
        data = jnp.asarray(values, dtype)
        fit = vb.fit(MODELS[name].model, data, key=jax.random.key(0), n_restarts=2, lanes=1, max_iter=200)
        status, objective = np.asarray(fit.runs.status), np.asarray(fit.runs.objective)
        np.testing.assert_array_equal(np.isfinite(objective), status != vb.Status.NON_FINITE, err_msg=what)
        if "full" not in name or what not in ON_A_LINE:
            assert np.isin(status, [vb.Status.CONVERGED, vb.Status.MAX_ITER]).all(), (what, fit)
        if not np.isfinite(objective).any():
            continue
        assert np.isfinite(fit.objective), what
        assert_finite(fit.params)
        weights, means, wide = read_out(fit.model, fit.params, "full")
        assert_finite((weights, means))
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
        np.testing.assert_array_less(0, np.diagonal(wide, axis1=1, axis2=2), err_msg=what)


@every_kind
def test_a_component_of_em_that_loses_its_rows_keeps_its_place(kind, dtype):
    data, weights = MODELS[f"EM {kind}"].data(dtype)
    model = MODELS[f"EM {kind}"].model.resolve(data, weights)
    means = jnp.asarray([[0.0, 0.0], [4.0, 1.0], [1e4, 1e4]], dtype)
    wide = covariance(kind, model.component.scale)
    params = model.params_at(jnp.full(K, 1 / K, dtype), means, wide)
    before = read_out(model, params, kind)
    params, objective, error = sweeps(model, params, data, weights)
    after = read_out(model, params, kind)
    assert_finite((params, after, objective))
    assert after[0][2] == 0
    close(after[1][2], before[1][2])
    if kind != "tied":
        close(after[2][2], before[2][2], factor=10)
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    close(after[0].sum(), 1.0)


def test_fewer_rows_than_components_are_legal_for_variational_bayes():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="data must have at least 3 rows; got 2"):
        vb.fit(vb.GaussianMixture(3), np.zeros((2, 2)), key=key)
    fit = vb.fit(vb.BayesianGaussianMixture(3), np.array([[2.0, -1.0]], "float32"), key=key)
    assert fit.status == vb.Status.CONVERGED
    assert_finite((fit.params, fit.objective))
    close(fit.model.means(fit.params), np.tile(np.array([2.0, -1.0], "float32"), (3, 1)))
    close(fit.params.weights.concentration.sum(), 2.0)  # the row, and a prior of one third each


def test_bad_input_is_refused_by_name():
    data, key = np.random.default_rng(0).normal(size=(5, 2)), jax.random.key(0)
    with pytest.raises(
        ValueError,
        match=r"covariance_type of the component must be one of full, tied, .*; got 'round'",
    ):
        vb.fit(vb.GaussianMixture(2, "round"), data, key=key)
    with pytest.raises(ValueError, match="concentration of the weights must be at least 1 for MAP"):
        vb.fit(vb.GaussianMixture(2, weight_concentration=0.5), data, key=key)
    with pytest.raises(ValueError, match="n_components"):
        vb.fit(vb.BayesianGaussianMixture(0), data, key=key)
    with pytest.raises(ValueError, match="data must have shape"):
        vb.fit(vb.BayesianGaussianMixture(2), data[:, 0], key=key)
    with pytest.raises(ValueError, match="has not seen data"):
        _ = vb.GaussianMixture(2).component.structure
    data = jnp.asarray(data, "float32")
    model = vb.GaussianMixture(2).resolve(data)
    params = model.params_at(jnp.full(2, 0.5), data[:2], jnp.stack([jnp.eye(2)] * 2))
    with pytest.raises(ValueError, match="data must have 2 columns, as the model's scale has"):
        model.predict(params, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="params must have shapes"):
        vb.fit(vb.GaussianMixture(3), data, key=key, params=params)


def test_at_the_floor_of_covariances_no_run_falls(float64):
    """On the boundary rounding is felt in first order: it is counted. A column of three values ends there."""
    rng, n = np.random.default_rng(0), 200
    state = np.cumsum(rng.uniform(size=n) < 0.1) % 3
    x = np.array([[0.0, 0, 0], [4, 1, 2], [1, 5, -3]])[state] + rng.normal(size=(n, 3))
    x[:, 1] = np.round(np.tanh(9 * x[:, 1]))
    fit = vb.fit(vb.GaussianHMM(3), x, key=jax.random.key(0), n_restarts=8)
    assert fit.runs.singular.all()
    assert (fit.runs.status == vb.Status.CONVERGED).all()
