"""What every model keeps, whoever wrote it: the laws of the engine, over the registry of all models.

No update of a single block lowers the objective. Rows may be permuted; a weight of w is a row w times, and
of 0 a row absent, also where it holds NaN or an infinity, and leaves finite gradients. Chunks that do not
divide the rows change nothing; jit is eager; vmap over starts and hyperparameters is a loop. float32 in is
float32 out with x64 enabled. Of a fit: its objective scores its parameters, the terms of the bound add up to
it, a warm start at the optimum stays there, and a second fit of the same shapes compiles nothing.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.registry import MODELS, N_ROWS, scaled_hyper, score, sweeps, with_hyper
from tests.support.tolerances import TOLERANCE, close

# sweeps multiply a rounding by the rate at which they still move: hundreds of roundings after eight of them
SWEPT = 1000
CHUNKED = ["k-means", "EM full", "EM tied", "EM diag", "VB of a product", "own, local", "logistic"]
X64 = [
    "mean and precision",
    "unit variance",
    "k-means",
    "EM full",
    "EM spherical",
    "MAP",
    "VB tied",
    "VB diag",
    "relevance",
    "logistic, relevance",
    "probit",
    # integers alone ("mixture of categories") have the default float
    *(f"mixture of {name}" for name in ("binary", "counts", "profiles", "positive", "lines")),
    "EM full, holes",
    "process of VB tied",
    "EM of a product",
    "own, local",
    "own, no data",
]

HOW = dict(n_restarts=3, lanes=2, max_iter=200)

every_model = pytest.mark.parametrize("name", MODELS)


def with_rows(names=MODELS):
    return pytest.mark.parametrize("name", [name for name in names if MODELS[name].make])


# ---------------------------------------------------------------- single updates


@every_model
def test_no_block_update_lowers_the_objective(name, dtype):
    data, weights = MODELS[name].data(dtype)
    model, params = MODELS[name].started(data, weights)
    params, objective, error = sweeps(model, params, data, weights)
    objective, error = np.ravel(objective), np.ravel(error)
    assert np.isfinite(objective).all()
    assert (np.diff(objective) >= -error[1:]).all(), np.diff(objective) / error[1:]
    assert objective[-1] > objective[0] + 10 * error[0]
    assert {leaf.dtype for leaf in jax.tree.leaves((model, params, objective, error))} == {dtype}
    chex.assert_tree_all_finite(params)


def repetitions(dtype):
    """40 rows of the last 25 kinds; and how often each kind counts, the first 15 not at all."""
    counts = np.concatenate([np.zeros(15), [1, 2, 1, 2, 2] * 5])
    repeated = np.repeat(np.arange(N_ROWS), counts.astype(int))
    assert len(repeated) == N_ROWS
    return repeated, jnp.asarray(counts, dtype)


def spoilt(data):
    """The data with nothing to count with in the first 15 rows."""

    def spoil(x):
        rubbish = [np.nan, np.inf, -np.inf] if jnp.issubdtype(x.dtype, jnp.floating) else [99, -7]
        return jnp.concatenate([jnp.asarray(np.resize(rubbish, np.shape(x[:15])), x.dtype), x[15:]])

    return jax.tree.map(spoil, data)


def rows_of(data, index):
    return jax.tree.map(lambda x: x[index], data)


@with_rows()
def test_rows_may_be_permuted_repeated_and_weighted(name, dtype):
    data, ones = MODELS[name].data(dtype)
    repeated, counts = repetitions(dtype)
    rows, other = rows_of(data, repeated), np.random.default_rng(1).permutation(N_ROWS)
    model, params = MODELS[name].started(rows, ones)
    expected = sweeps(model, params, rows, ones)[:2]
    close(sweeps(model, params, rows_of(rows, other), ones)[:2], expected, factor=SWEPT)
    close(sweeps(model, params, spoilt(data), counts)[:2], expected, factor=SWEPT)
    close(MODELS[name].model.resolve(spoilt(data), counts), model, factor=10)


@with_rows(["unit variance", "k-means", "EM full"])
def test_rows_of_weight_zero_leave_finite_gradients(name, float64):
    data, ones = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, ones)
    _, counts = repetitions(float64)
    gradient = jax.jit(jax.grad(score, argnums=(0, 1, 2, 3)))
    clean, bad = gradient(model, params, data, counts), gradient(model, params, spoilt(data), counts)
    close(bad[:3], clean[:3])
    assert np.isfinite(bad[3]).all()
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(bad[1]))
    assert (bad[2][15:] != 0).any()
    assert (bad[2][:15] == 0).all()


@with_rows(CHUNKED)
def test_chunks_change_nothing(name, float64, monkeypatch):
    """40 rows are five chunks of 7 and a remainder; without weights, and with ones of 0 for rows of NaN."""
    data, ones = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, ones)
    _, counts = repetitions(float64)

    @jax.jit
    def passes(model, params, data, bad):
        sizes = []
        for size in (N_ROWS, 7):
            monkeypatch.setattr(type(model), "chunk_rows", lambda self, data, size=size: size)
            sizes.append((vb.expectation(model, params, data), vb.expectation(model, params, bad, counts)))
        return sizes

    whole, chunked = passes(model, params, data, spoilt(data))
    close(chunked, whole, factor=10)
    assert whole[0].weight == N_ROWS
    assert whole[1].weight == counts.sum()


@pytest.mark.parametrize("name", ["unit variance", "k-means"])
def test_jit_is_eager(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, weights)
    compiled = sweeps(model, params, data, weights)
    with jax.disable_jit():
        eager = sweeps(model, params, data, weights)
    close(eager[:2], compiled[:2], factor=SWEPT)


@pytest.mark.parametrize("name", ["unit variance", "k-means", "EM full", "own, no data"])
def test_vmap_over_starts_and_hyperparameters_is_a_loop(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, weights)
    models = model, scaled_hyper(model)
    starts = params, MODELS[name].started(data, weights, seed=1)[1]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *zip(models, starts, strict=True))
    together = jax.jit(jax.vmap(lambda case: sweeps(*case, data, weights)[:2]))(stacked)
    for i, case in enumerate(zip(models, starts, strict=True)):
        alone = sweeps(*case, data, weights)[:2]
        close(jax.tree.map(lambda x, i=i: x[i], together), alone, factor=SWEPT)
    first, second = jax.tree.leaves(together[0])[0]
    assert (first != second).any()


# ---------------------------------------------------------------- whole fits


@pytest.mark.parametrize("name", X64)
def test_float32_in_is_float32_out_with_x64_enabled(name, float64):
    """Of every leaf of a fit, without running it."""
    data, _ = MODELS[name].data("float32")

    def run(key, data):
        return vb.fit(MODELS[name].model, data, key=key, n_restarts=3, lanes=2, max_iter=10)

    leaves = jax.tree.leaves(jax.eval_shape(run, jax.random.key(0), data))
    floating = {leaf.dtype for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)}
    assert floating == {np.dtype("float64" if data is None else "float32")}
    assert not any(leaf.weak_type for leaf in leaves)


FITTED = {  # with other values of hyperparameters that are given, not resolved from the data
    "mean and precision": dict(tau0=0.5, a=0.7),
    "k-means": {},
    "EM full": dict(covariance_floor=1e-4),
    "mixture of lines": dict(concentration=0.7),
    "own, local": dict(concentration=1.0, noise=1.0),
}


@functools.cache
def fitted(name):
    """One fit in float32, with three restarts in two lanes, for all tests of it."""
    data, _ = MODELS[name].data("float32")
    return data, vb.fit(MODELS[name].model, data, key=jax.random.key(0), **HOW)


@pytest.mark.parametrize("name", FITTED)
def test_the_objective_of_a_fit_is_that_of_its_parameters(name):
    data, fit = fitted(name)
    assert fit.status == vb.Status.CONVERGED
    trace = np.asarray(fit.trace)
    assert len(trace) == fit.n_iter
    assert trace[-1] == fit.objective
    assert fit.objective == fit.runs.objective[~fit.runs.singular].max()
    again = sweeps(fit.model, fit.params, data, jnp.ones(N_ROWS))[1][0, 0]
    close(again, fit.objective)  # another program, which adds up in another order
    terms = fit.model.elbo_terms(fit.params, data)
    close(sum(terms.values()), fit.objective, scale=max(map(abs, terms.values())))
    assert {"log_likelihood", "log_prior"} <= set(terms)


@pytest.mark.parametrize("name", FITTED)
def test_a_warm_start_at_the_optimum_stays_there(name):
    data, fit = fitted(name)
    again = vb.fit(MODELS[name].model, data, key=jax.random.key(1), params=fit.params, **HOW)
    assert again.runs.n_iter[0] <= 3
    assert again.runs.objective[0] >= fit.objective - 10 * TOLERANCE[np.dtype("float32")] * abs(fit.objective)


@pytest.mark.parametrize("name", FITTED)
def test_a_second_fit_of_the_same_shapes_compiles_nothing(name):
    _, fit = fitted(name)
    data, _ = MODELS[name].data("float32", seed=1)
    other = with_hyper(MODELS[name].model, **FITTED[name])
    with compilations() as count:
        second = vb.fit(other, data, key=jax.random.key(5), tol=1e-3, **HOW)
    assert count == []
    assert second.objective != fit.objective


def test_points_of_scales_need_no_start():
    data, _ = MODELS["own, points"].data("float32")
    assert vb.fit(MODELS["own, points"].model, data, key=jax.random.key(0)).status == vb.Status.CONVERGED
