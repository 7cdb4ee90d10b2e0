"""k-means against Lloyd's algorithm, and where other libraries stumble.

Trajectory and inertia are scikit-learn's from the same start, with weights too; the labels belong to the
returned centres; fewer distinct points than clusters end; an empty cluster keeps its centre; float32 far from
the origin finds what float64 finds. Seeds are rows, never rows of weight 0, drawn by squared distance. Bad
input is refused by name.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

import vbjax as vb
from tests.support.registry import MODELS, N_COMPONENTS, N_ROWS, sweeps
from tests.support.tolerances import close

fits = dict(n_restarts=4, lanes=4, max_iter=50)


def lloyd(data, weights, centers, **kwargs):
    found = KMeans(
        N_COMPONENTS, init=np.asarray(centers, float), n_init=1, algorithm="lloyd", tol=0, **kwargs
    )
    return found.fit(np.asarray(data, float), sample_weight=np.asarray(weights, float))


@jax.jit
def read_out(model, params, data, weights):
    return model.predict(params, data), model.inertia(params, data, weights), model.centers(params)


def test_lloyd_is_scikit_learns(dtype):
    data, _ = MODELS["k-means"].data(dtype)
    weights = jnp.asarray(np.resize([1.0, 0.5, 2.0, 0.0], N_ROWS), dtype)
    model, params = MODELS["k-means"].started(data, weights, seed=1)
    params, objective, _ = sweeps(model, params, data, weights)
    found = lloyd(data, weights, data[1:4])
    assert objective[0, 0] < objective[-2, 0] == objective[-1, 0]
    close(-objective[-1, 0], found.inertia_, factor=10)
    labels, inertia, centers = read_out(model, params, data, weights)
    close(centers, found.cluster_centers_)
    close(inertia, found.inertia_, factor=10)
    np.testing.assert_array_equal(labels, found.labels_)


def test_labels_belong_to_the_returned_centres():
    """Also of a fit that was cut short: scikit-learn#34074."""
    data, _ = MODELS["k-means"].data("float32")
    fit = vb.fit(vb.KMeans(N_COMPONENTS, start="random"), data, key=jax.random.key(4), max_iter=2)
    labels, inertia, centers = read_out(fit.model, fit.params, data, jnp.ones(N_ROWS))
    distances = ((np.asarray(data)[:, None] - np.asarray(centers)) ** 2).sum(-1)
    assert fit.status == vb.Status.MAX_ITER
    np.testing.assert_array_equal(labels, distances.argmin(1))
    close(inertia, distances.min(1).sum(), factor=3)
    close(-fit.objective, inertia, factor=3)


def test_fewer_distinct_points_than_clusters_end():
    """scikit-learn#28055; two kinds of rows, three clusters."""
    data = jnp.asarray(np.resize([[0.1, 1.0], [3.3, 2.0]], (N_ROWS, 2)), "float32")
    for start in ("k-means++", "random"):
        fit = vb.fit(vb.KMeans(N_COMPONENTS, start=start), data, key=jax.random.key(0), **fits)
        assert fit.status == vb.Status.CONVERGED
        assert np.isfinite(fit.params.centers.mean).all()
        assert set(np.unique(np.asarray(fit.params.centers.mean)[:, 0].round(4))) <= {
            np.float32(0.1),
            np.float32(3.3),
        }
        if start == "k-means++":
            assert fit.objective == 0


def test_an_empty_cluster_keeps_its_centre(dtype):
    data, weights = MODELS["k-means"].data(dtype)
    model, _ = MODELS["k-means"].started(data, weights)
    far = jnp.asarray([[0.0, 0.0], [1e4, 1e4], [4.0, 1.0]], dtype)
    params, objective, error = sweeps(model, model.params_at(far), data, weights)
    close(params.centers.mean[1], far[1])
    assert np.isfinite(params.centers.mean).all()
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_float32_far_from_the_origin_finds_what_float64_finds(scale, float64):
    data, _ = MODELS["k-means"].data("float64")
    weights = jnp.ones(N_ROWS)
    rounded = jnp.asarray((data + 1e4) * scale, "float32")
    model, params = MODELS["k-means"].started(rounded, weights.astype("float32"))
    single = sweeps(model, params, rounded, weights.astype("float32"))
    wide = jax.tree.map(lambda x: x.astype("float64"), (model, params, rounded))
    double = sweeps(*wide, weights)
    # a row of 1e4 standard deviations is known to 5e-4 of them, and so is a centre
    np.testing.assert_allclose(single[0].centers.mean, double[0].centers.mean, rtol=1e-7)
    np.testing.assert_allclose(single[1], double[1], rtol=1e-4)


def test_seeds_are_rows_that_count():
    data, _ = MODELS["k-means"].data("float32")
    weights = np.zeros(N_ROWS, "float32")
    weights[[3, 17, 31, 32]] = 1, 5, 0.1, 2
    spoilt = np.where(weights[:, None] > 0, data, np.nan)
    rows = {tuple(row) for row in spoilt[weights > 0]}
    for start in ("k-means++", "random"):
        model = vb.KMeans(N_COMPONENTS, start=start).resolve(jnp.asarray(spoilt), jnp.asarray(weights))
        draw = jax.jit(jax.vmap(lambda key, m=model: m.init(key, jnp.asarray(spoilt), jnp.asarray(weights))))
        seeds = np.asarray(draw(jax.random.split(jax.random.key(0), 50)).centers.mean)
        assert all({tuple(row) for row in some} <= rows for some in seeds)
        assert all(len(np.unique(some, axis=0)) == N_COMPONENTS for some in seeds)
        assert len(np.unique(seeds.reshape(50, -1), axis=0)) > 5


def test_seeds_are_drawn_by_weight_and_squared_distance():
    """Arthur & Vassilvitskii (2007): first by weight, then by weight times squared distance to the first."""
    x, weights = np.array([0.0, 1.0, 3.0, -2.0]), np.array([1.0, 2.0, 1.0, 0.5])
    pull = weights * (x - x[:, None]) ** 2
    exact = weights[:, None] / weights.sum() * pull / pull.sum(1, keepdims=True)
    data, mass = jnp.asarray(x[:, None], "float32"), jnp.asarray(weights, "float32")
    model = vb.KMeans(2).resolve(data, mass)
    draw = jax.jit(jax.vmap(lambda key: model.init(key, data, mass).centers.mean[:, 0]))
    seeds = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    first, second = (np.argmax(seeds[:, [i]] == x.astype("float32"), axis=1) for i in (0, 1))
    share = np.zeros((4, 4))
    np.add.at(share, (first, second), 1 / len(seeds))
    assert (share[exact == 0] == 0).all()
    assert (abs(share - exact) <= 4 * np.sqrt(exact * (1 - exact) / len(seeds))).all()


def test_rows_that_are_all_the_same(dtype):
    data = jnp.full((N_ROWS, 2), 0.1, dtype)
    fit = vb.fit(vb.KMeans(N_COMPONENTS), data, key=jax.random.key(0), **fits)
    assert fit.status == vb.Status.CONVERGED
    assert fit.objective == 0
    np.testing.assert_array_equal(fit.model.centers(fit.params), data[:N_COMPONENTS])


def test_bad_input_is_refused_by_name():
    key, data = jax.random.key(0), np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"data must have at least 6 rows; got 5"):
        vb.fit(vb.KMeans(6), data, key=key)
    with pytest.raises(ValueError, match="n_clusters"):
        vb.fit(vb.KMeans(0), data, key=key)
    with pytest.raises(ValueError, match="start"):
        vb.fit(vb.KMeans(2, start="everywhere"), data, key=key)
    with pytest.raises(ValueError, match="has not seen data"):
        _ = vb.KMeans(2).factors
    model = vb.KMeans(2).resolve(jnp.zeros((5, 2)))
    with pytest.raises(ValueError, match="data must have 2 columns, as the model's scale has"):
        model.predict(model.params_at(jnp.zeros((2, 2))), np.zeros((1, 3)))


@pytest.mark.parametrize("k", [2, 1000, 8192])
def test_a_blocks_distances_stay_in_a_cores_cache(k):
    rows = vb.KMeans(k).chunk_rows(jnp.zeros((10_000, 3), jnp.float32))
    assert 4 * k * rows <= 2**21
    assert rows == 2048 or 4 * k * (rows + 1) > 2**21  # no fewer than that
