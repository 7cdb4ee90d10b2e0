"""What every model keeps, whoever wrote it: the laws of the engine, over the registry of all models.

No update of a single block lowers the objective. Rows may be permuted; a weight of w is a row w times, a weight of
0 is a row absent, also where it holds NaN or an infinity, and leaves finite gradients. Chunks that do not
divide the rows change nothing; jit is eager; vmap over starts and hyperparameters is a loop. float32 in is
float32 out with x64 enabled. Of a fit: its objective scores its parameters, the terms of the bound add up to
it, a warm start at the optimum stays there, a second fit of the same shapes compiles nothing, and inside jit it is
the same fit. The hand-written E-steps equal the derived one.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import MODELS, N_ROWS, other_hyper, score, start, sweeps, with_hyper
from tolerances import TOLERANCE, close

import vbjax as vb
from vbjax.core.model import ConjugateModel

# sweeps multiply a rounding by the rate at which they still move: hundreds of roundings after eight of them
SWEPT = 1000
ONE_OF_A_KIND = ["mean and precision", "k-means", "EM full", "EM diag", "VB tied", "VB spherical", "own, local"]
FITTED = ["mean and precision", "k-means", "EM full", "VB tied", "own, local", "own, no data"]

every_model = pytest.mark.parametrize("name", MODELS)


def with_rows(names=MODELS):
    return pytest.mark.parametrize("name", [name for name in names if name != "own, no data"])


# ---------------------------------------------------------------- single updates


@every_model
def test_no_block_update_lowers_the_objective(name, dtype):
    data, weights = MODELS[name].data(dtype)
    model, params = MODELS[name].started(dtype, data, weights)
    params, objective, error = sweeps(model, params, data, weights)
    objective, error = np.ravel(objective), np.ravel(error)
    assert np.isfinite(objective).all()
    assert (np.diff(objective) >= -error[1:]).all(), np.diff(objective) / error[1:]
    assert objective[-1] > objective[0] + 10 * error[0]
    assert {leaf.dtype for leaf in jax.tree.leaves((model, params, objective, error))} == {dtype}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def repetitions(dtype):
    """Rows and how often they count: 40 rows of 25 kinds, the kinds with weights, and room for 15 more rows."""
    counts = np.array([1, 2, 1, 2, 2] * 5)
    repeated = np.repeat(np.arange(25), counts)
    assert len(repeated) == N_ROWS
    return repeated, jnp.asarray(np.concatenate([counts, np.zeros(N_ROWS - 25)]), dtype)


def spoilt(data, bad=(np.nan, np.inf, -np.inf)):
    """The data with rows from the 26th on that hold nothing to count with."""
    rubbish = jnp.asarray(np.resize(bad, np.shape(data[25:])), data.dtype)
    return jnp.concatenate([data[:25], rubbish])


@with_rows()
def test_rows_may_be_permuted_repeated_and_weighted(name, dtype):
    data, ones = MODELS[name].data(dtype)
    repeated, counts = repetitions(dtype)
    rows, other = data[repeated], np.random.default_rng(1).permutation(N_ROWS)
    model, params = MODELS[name].started(dtype, rows, ones)
    expected = sweeps(model, params, rows, ones)[:2]
    close(sweeps(model, params, rows[other], ones)[:2], expected, factor=SWEPT)
    close(sweeps(model, params, spoilt(data), counts)[:2], expected, factor=SWEPT)
    resolved, begun = MODELS[name].started(dtype, spoilt(data), counts)
    close(resolved, model, factor=10)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(begun))


@with_rows(["mean and precision", "k-means", "EM full", "VB tied", "own, local"])
def test_rows_of_weight_zero_leave_finite_gradients(name, float64):
    data, ones = MODELS[name].data(float64)
    model, params = MODELS[name].started(float64, data, ones)
    _, counts = repetitions(float64)
    gradient = jax.jit(jax.grad(score, argnums=(0, 1, 2, 3)))
    clean, bad = gradient(model, params, data, counts), gradient(model, params, spoilt(data), counts)
    close(bad[:3], clean[:3])
    assert np.isfinite(bad[3]).all()
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(bad[1]))
    assert (bad[2][:25] != 0).any()
    assert (bad[2][25:] == 0).all()


@with_rows(ONE_OF_A_KIND)
def test_chunks_change_nothing(name, float64, monkeypatch):
    """Of 7, of which 40 rows have five and a remainder; without weights, and with weights of rows that are NaN."""
    data, ones = MODELS[name].data(float64)
    model, params = MODELS[name].started(float64, data, ones)
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


@pytest.mark.parametrize("name", ["mean and precision", "k-means", "EM full", "VB tied", "own, local"])
def test_jit_is_eager(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(float64, data, weights)
    compiled = sweeps(model, params, data, weights)
    with jax.disable_jit():
        eager = sweeps(model, params, data, weights)
    close(eager[:2], compiled[:2], factor=SWEPT)


@every_model
def test_vmap_over_starts_and_hyperparameters_is_a_loop(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(float64, data, weights)
    models = model, other_hyper(model)
    starts = params, MODELS[name].started(float64, data, weights, seed=1)[1]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *zip(models, starts, strict=True))
    together = jax.jit(jax.vmap(lambda case: sweeps(*case, data, weights)[:2]))(stacked)
    for i, case in enumerate(zip(models, starts, strict=True)):
        alone = sweeps(*case, data, weights)[:2]
        close(jax.tree.map(lambda x, i=i: x[i], together), alone, factor=SWEPT)
    if jax.tree.leaves(model) and name != "k-means":  # whose scale is for its start alone
        assert abs(together[1][0, -1, -1] - together[1][1, -1, -1]) > 1e-3
