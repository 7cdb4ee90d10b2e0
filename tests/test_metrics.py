"""Laws of the silhouette.

Pairwise: equal to scikit-learn, in float64 and, at an offset of 1e4, in float32; the same for every block
size, for permuted rows, other names of the clusters, unoccupied labels, scaled data, and under jit and
vmap; its values at duplicates, lone points and two points; dtype kept; no second compilation; no n x n array.
About centres: equal to the textbook's loop, 0 on the own centre. Readings at their limits. Bad input raises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import silhouette_samples as oracle

from vbjax import metrics

N, K = 97, 4
TOLERANCE = {np.dtype("float32"): 1e-5, np.dtype("float64"): 1e-12}


def blobs(seed=0, n=N, d=3, k=K):
    """Overlapping blobs on the grid of float32, so that both dtypes can hold them, also at an offset."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % k)
    x = rng.normal(size=(n, d)) + 3 * rng.normal(size=(k, d))[labels]
    return np.round(x * 256) / 256, labels


def close(actual, desired):
    tolerance = TOLERANCE[np.asarray(actual).dtype]
    np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equals_scikit_learn(dtype, offset):
    x, labels = blobs()
    expected = oracle(x, labels)
    with jax.enable_x64(dtype == "float64"):
        samples = metrics.silhouette_samples((x + offset).astype(dtype), labels)
        mean = metrics.silhouette((x + offset).astype(dtype), labels)
    assert samples.dtype == mean.dtype == dtype
    close(samples, expected)
    close(mean, expected.mean())


def test_float32_keeps_tight_clusters_that_are_far_apart():
    # Expanded squares fail here, however the data are centred: the clusters are 1e-5 of their distance wide.
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 20)
    x = np.array([[-1e3, 0], [-1e3, 0.0625], [1e3, 0]])[labels] + rng.integers(-99, 99, (60, 2)) / 2**13
    assert np.array_equal(x, x.astype("float32"))
    close(metrics.silhouette_samples(x.astype("float32"), labels), oracle(x, labels))


@pytest.mark.parametrize("block", [1, 7, 32, 96, 97, 98, 4096])
def test_block_size_changes_nothing(block):
    x, labels = blobs()
    with jax.enable_x64(True):
        close(metrics.silhouette_samples(x, labels, block=block), oracle(x, labels))


def test_rows_permuted_and_clusters_renamed():
    x, labels = blobs()
    order, names = np.random.default_rng(2).permutation(N), np.array([2, 0, 3, 1])
    with jax.enable_x64(True):
        base = np.asarray(metrics.silhouette_samples(x, labels))
        close(metrics.silhouette_samples(x[order], labels[order]), base[order])
        close(metrics.silhouette_samples(x, names[labels]), base)


def test_unoccupied_labels_are_ignored():
    x, labels = blobs()
    with jax.enable_x64(True):
        base = metrics.silhouette_samples(x, labels)
        close(metrics.silhouette_samples(x, labels, n_clusters=9), base)
        close(metrics.silhouette_samples(x, 2 * labels + 1), base)


@pytest.mark.parametrize("scale", [2.0**-100, 2.0**100])
def test_scale_of_the_data_does_not_matter(scale):
    x, labels = blobs()
    x = x.astype("float32")
    centers = np.stack([x[labels == k].mean(0) for k in range(K)])
    scaled = (scale * x).astype("float32")
    np.testing.assert_array_equal(
        metrics.silhouette_samples(scaled, labels), metrics.silhouette_samples(x, labels)
    )
    np.testing.assert_array_equal(
        metrics.centroid_silhouette_samples(scaled, labels, (scale * centers).astype("float32")),
        metrics.centroid_silhouette_samples(x, labels, centers),
    )


def test_duplicates_score_one_and_a_lone_point_zero():
    x = np.array([[0.1, 1e4]] * 3 + [[0.3, 1e4]] * 2 + [[7.7, 1e4]], dtype="float32")
    labels = np.array([0, 0, 0, 1, 1, 2])
    samples = metrics.silhouette_samples(x, labels, block=4)
    np.testing.assert_array_equal(samples, [1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(samples, oracle(x, labels))


def test_all_points_equal_score_zero():
    x, labels = np.full((4, 2), 0.1), np.array([0, 0, 1, 1])
    np.testing.assert_array_equal(metrics.silhouette_samples(x, labels), np.zeros(4))
    np.testing.assert_array_equal(oracle(x, labels), np.zeros(4))


def test_two_points():
    x = jnp.array([[0.0], [1.0]])
    for labels in ([0, 0], [0, 1]):
        with pytest.raises(ValueError, match="distinct values for n = 2"):
            metrics.silhouette(x, labels)
    traced = jax.jit(lambda z: metrics.silhouette_samples(x, z, n_clusters=2))
    np.testing.assert_array_equal(traced(jnp.array([0, 1])), [0, 0])
    assert np.isnan(traced(jnp.array([0, 0]))).all()


def test_jit_equals_eager_and_vmap_equals_loop():
    x, labels = blobs()
    many = jnp.stack([jnp.asarray(labels), jnp.asarray(labels[::-1].copy())])
    x = jnp.asarray(x, dtype=float)
    eager = jnp.stack([metrics.silhouette_samples(x, z, block=40) for z in many])
    centers = x[:K]
    jitted = jax.jit(lambda x, z: metrics.silhouette_samples(x, z, n_clusters=K, block=40))
    close(jitted(x, many[0]), eager[0])
    close(jax.jit(lambda z: metrics.silhouette(x, z, n_clusters=K))(many[0]), eager[0].mean())
    close(jax.vmap(lambda z: metrics.silhouette_samples(x, z, n_clusters=K, block=40))(many), eager)
    close(
        jax.jit(metrics.centroid_silhouette_samples)(x, many[0], centers),
        metrics.centroid_silhouette_samples(x, many[0], centers),
    )


def test_traced_labels_out_of_range_score_nan():
    x, labels = blobs()
    x = x.astype("float32")
    spoilt = labels.copy()
    spoilt[[3, 8]] = -1, K
    kept = (spoilt >= 0) & (spoilt < K)
    samples = jax.jit(lambda z: metrics.silhouette_samples(x, z, n_clusters=K))(spoilt)
    assert np.array_equal(np.isnan(samples), ~kept)
    close(np.asarray(samples)[kept], oracle(x[kept], labels[kept]))
    centroid = jax.jit(metrics.centroid_silhouette_samples)(x, spoilt, x[:K])
    assert np.array_equal(np.isnan(centroid), ~kept)


def test_integers_become_the_default_float():
    x, labels = np.array([[0], [1], [5], [6]]), np.array([0, 0, 1, 1], dtype=np.uint8)
    for enabled, dtype in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(enabled):
            samples = metrics.silhouette_samples(x, labels)
            assert samples.dtype == dtype
            assert metrics.centroid_silhouette(x, labels, [[0], [6]]).dtype == dtype
        close(samples, oracle(x, labels))


def test_second_call_compiles_nothing():
    x, labels = blobs(n=50)
    x = jnp.asarray(x, dtype=float)
    metrics.silhouette(x, labels), metrics.centroid_silhouette(x, labels, x[:K])
    before = metrics._samples._cache_size(), metrics._centroid_samples._cache_size()
    metrics.silhouette(x + 1, labels[::-1]), metrics.centroid_silhouette(x + 1, labels[::-1], x[:K])
    assert (metrics._samples._cache_size(), metrics._centroid_samples._cache_size()) == before


def test_memory_does_not_grow_with_the_square():
    n = 100_000
    x, labels = jax.ShapeDtypeStruct((n, 2), "float32"), jax.ShapeDtypeStruct((n,), "int32")
    program = metrics._samples.lower(x, labels, n_clusters=3, block=512).compile()
    assert program.memory_analysis().temp_size_in_bytes < 40 * 2**20  # n^2 float32 would be 40 GB


def textbook(x, labels, centers):
    scores = []
    for point, label in zip(x, labels, strict=True):
        distances = [np.sqrt(np.sum((point - c) ** 2)) for c in centers]
        a = distances.pop(label)
        scores.append((min(distances) - a) / max(a, min(distances)) if a > 0 else 0.0)
    return np.array(scores)


@pytest.mark.parametrize("offset", [0, 1e4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_centroid_equals_textbook(dtype, offset):
    x, labels = blobs()
    centers = np.round(np.stack([x[labels == k].mean(0) for k in range(K)]) * 256) / 256
    centers[1] = x[np.argmax(labels == 1)]  # one point lies on its own centre
    expected = textbook(x, labels, centers)
    with jax.enable_x64(dtype == "float64"):
        arguments = (x + offset).astype(dtype), labels, (centers + offset).astype(dtype)
        samples = np.asarray(metrics.centroid_silhouette_samples(*arguments))
        mean = metrics.centroid_silhouette(*arguments)
    assert samples.dtype == mean.dtype == dtype
    assert samples[np.argmax(labels == 1)] == 0
    close(samples, expected)
    close(mean, expected.mean())


def test_readings():
    expected = {
        "well clustered": (1.0, 0.7501),
        "medium": (0.75, 0.5),
        "poorly clustered": (0.4999, 0.25),
        "no structure": (0.2499, 0.0, -1.0),
    }
    for reading, scores in expected.items():
        assert {metrics.silhouette_reading(score) for score in scores} == {reading}
    assert metrics.silhouette_reading(jnp.array(0.6)) == "medium"
    for score in (jnp.nan, 1.5, -np.inf):
        with pytest.raises(ValueError, match=r"score is .*; expected a mean silhouette in \[-1, 1\]"):
            metrics.silhouette_reading(score)
    for score in ("0.5", None, [0.5]):
        with pytest.raises(ValueError, match="score must be"):
            metrics.silhouette_reading(score)


@pytest.mark.parametrize("labellings", [None, {}, [0, 0, 1, 1, 1], {"2": [0, 0, 1, 1, 1]}])
def test_labellings_are_labels_by_their_number(labellings):
    with pytest.raises(ValueError, match=r"labellings(' number of clusters)? must be"):
        metrics.silhouette_table(np.ones((5, 2)), labellings)


def test_a_large_label_takes_no_more_memory_than_a_small_one():
    x = np.random.default_rng(0).normal(size=(6, 2))
    dense, sparse = np.array([0, 1, 2, 0, 1, 2]), np.array([3, 10**9, 7, 3, 10**9, 7])
    known = metrics.silhouette_samples(x, dense)
    np.testing.assert_array_equal(metrics.silhouette_samples(x, sparse), known)
    np.testing.assert_array_equal(metrics.silhouette_samples(x, dense, n_clusters=10**9), known)


def test_table():
    x, labels = blobs()
    table = metrics.silhouette_table(x, {K: labels, 2: labels % 2})
    assert [row.n_clusters for row in table] == [K, 2]
    np.testing.assert_allclose(
        [row.silhouette for row in table], [oracle(x, labels).mean(), oracle(x, labels % 2).mean()], rtol=1e-5
    )
    assert table.best == table[0]
    assert str(table).splitlines()[1].split()[:2] == ["4", f"{table[0].silhouette:.4f}"]
    with pytest.raises(ValueError, match=r"labels lies in 0\.\.3; expected integers in 0\.\.2"):
        metrics.silhouette_table(x, {3: labels})


X, Z = np.ones((5, 2)), np.array([0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("x", "labels", "options", "error", "message"),
    [
        (X[0], Z, {}, ValueError, r"x has shape \(2,\)"),
        (X[:0], Z[:0], {}, ValueError, r"x has shape \(0, 2\)"),
        (X * 1j, Z, {}, ValueError, "x must be numbers; got an array of complex128"),
        (np.where(X > 0, [1, np.nan], X), Z, {}, ValueError, r"x\[0, 1\] is nan"),
        (X, Z[:4], {}, ValueError, r"labels has shape \(4,\); expected \(5,\)"),
        (X, Z / 2, {}, TypeError, "labels has dtype float64"),
        (X, Z - 1, {}, ValueError, r"labels lies in -1\.\.0"),
        (X, Z + 1, {"n_clusters": 2}, ValueError, r"labels lies in 1\.\.2; expected integers in 0\.\.1"),
        (X, 0 * Z, {}, ValueError, "labels has 1 distinct values"),
        (X, np.arange(5), {}, ValueError, "labels has 5 distinct values"),
        (X, Z, {"n_clusters": 1}, ValueError, "n_clusters must be a whole number of at least 2; got 1"),
        (X, Z, {"n_clusters": 2.0}, ValueError, "n_clusters must be a whole number"),
        (X, Z, {"block": 0}, ValueError, "block must be a whole number of at least 1; got 0"),
        (np.ma.array(X, mask=X > 0), Z, {}, ValueError, r"x must have no masked entry; entry \[0, 0\]"),
        (X, np.ma.array(Z, mask=Z > 0), {}, ValueError, r"labels must have no masked entry; entry \[2\]"),
        (X, list("aabbb"), {}, ValueError, "labels must be numbers; got an array of <U1; code categories"),
        ([[1.0], [1.0, 2.0]], Z, {}, ValueError, "x must be numeric arrays"),
    ],
)
def test_bad_input_raises(x, labels, options, error, message):
    with pytest.raises(error, match=message):
        metrics.silhouette(x, labels, **options)


def test_bad_centers_and_traced_labels_raise():
    for centers in (X[:1], X[:, :1], X[0]):
        with pytest.raises(ValueError, match="centers has shape"):
            metrics.centroid_silhouette(X, Z, centers)
    with pytest.raises(ValueError, match=r"labels lies in 0\.\.2"):
        metrics.centroid_silhouette(X, 2 * Z, X[:2])
    with pytest.raises(ValueError, match="n_clusters is None but labels is traced"):
        jax.jit(lambda z: metrics.silhouette(X, z))(Z)
