"""Measures of a clustering: the silhouette, pairwise and about centres, and a reading of its value.

Depends on no model: points and labels in, scores out. The pairwise silhouette visits all n^2 pairs in tiles,
so that time grows as n^2 d and memory only as n K.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating, as_numbers, is_concrete, read_count


def silhouette(
    x: ArrayLike, labels: ArrayLike, *, n_clusters: int | None = None, block: int = 1024
) -> Float[Array, ""]:
    """Return the mean silhouette of a clustering, over all pairs of points, with Euclidean distances.

    Arguments, conventions and errors are those of `silhouette_samples`, whose mean this is.

    Args:
        x: points, (n, d), real.
        labels: cluster of each point, (n,), integers in 0..n_clusters-1.
        n_clusters: number of labels K; needed under `jax.jit`, otherwise the largest label plus one.
        block: side of a tile of distances.

    Returns:
        A scalar in [-1, 1], of the dtype of `x`.

    Raises:
        TypeError, ValueError: as `silhouette_samples`.

    References:
        Rousseeuw (1987), J. Comput. Appl. Math. 20, 53-65.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0]])
    >>> print(f"{silhouette(x, jnp.array([0, 0, 1, 1])):.4f}")
    0.7980
    >>> print(f"{silhouette(x, jnp.array([0, 1, 0, 1])):.4f}")
    -0.4000
    """
    return jnp.mean(silhouette_samples(x, labels, n_clusters=n_clusters, block=block))


def silhouette_samples(
    x: ArrayLike, labels: ArrayLike, *, n_clusters: int | None = None, block: int = 1024
) -> Float[Array, " n"]:
    """Return the silhouette of every point: s_i = (b_i - a_i) / max(a_i, b_i).

    a_i is the mean distance from `x[i]` to the other points of its cluster, b_i the smallest over the other
    clusters of the mean distance to their points. As in scikit-learn a point alone in its cluster has s = 0,
    and so has one with a = b = 0; exact duplicates away from the others (a = 0 < b) have s = 1. Labels that
    nobody has are ignored.

    Under `jax.jit` values cannot be checked: a point with a label outside 0..n_clusters-1 scores NaN and
    belongs to no cluster, and if a single cluster is occupied, by two points or more, they score NaN.

    Args:
        x: points, (n, d), real; integers become the default float.
        labels: cluster of each point, (n,), integers in 0..n_clusters-1.
        n_clusters: number of labels K, an int (static under jit, where it must be given); by default the
            largest label plus one.
        block: side of a tile of distances; at no time is more than block^2 + O(n (d + K)) held. It changes
            the result by rounding only.

    Returns:
        The scores, (n,), in [-1, 1], of the dtype of `x`.

    Raises:
        TypeError: `labels` are not integers.
        ValueError: `x` is not real; wrong shapes, a value of `x` that is not finite, a label or number out of
            range, fewer than 2 distinct labels or as many as points, or traced labels without `n_clusters`.

    References:
        Rousseeuw (1987), J. Comput. Appl. Math. 20, 53-65: the definition of s(i) in section 2.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0], [9.0]])
    >>> print([f"{s:.4f}" for s in silhouette_samples(x, jnp.array([0, 0, 1, 1, 2]))])
    ['0.8182', '0.7778', '0.7500', '0.6667', '0.0000']
    """
    x = _points("x", x)
    labels, n_clusters = _labels(labels, len(x), n_clusters)
    block = read_count(block, "block")
    if not isinstance(labels, Tracer):
        occupied, place = np.unique(labels, return_inverse=True)
        if not 2 <= len(occupied) < len(x):
            raise ValueError(
                f"labels has {len(occupied)} distinct values for n = {len(x)} points; expected 2 to n - 1"
            )
        if n_clusters > len(x):  # labels that nobody has: tables of points x labels would be of any size
            labels, n_clusters = place, len(x)
    return _samples(x, jnp.asarray(labels, dtype=jnp.int32), n_clusters=n_clusters, block=block)


def centroid_silhouette(x: ArrayLike, labels: ArrayLike, centers: ArrayLike) -> Float[Array, ""]:
    """Return the mean simplified silhouette, by distances to centres instead of distances to points.

    Its cost is n K d and not n^2 d. Arguments, conventions and errors are those of
    `centroid_silhouette_samples`.

    Args:
        x: points, (n, d), real.
        labels: cluster of each point, (n,), integers in 0..K-1.
        centers: centres of the clusters, (K, d).

    Returns:
        A scalar in [-1, 1], of the dtype of `x`.

    Raises:
        TypeError, ValueError: as `centroid_silhouette_samples`.

    References:
        Vendramin, Campello & Hruschka (2010), Statistical Analysis and Data Mining 3, 209-235.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0]])
    >>> print(f"{centroid_silhouette(x, jnp.array([0, 0, 1, 1]), jnp.array([[0.5], [5.5]])):.4f}")
    0.8990
    """
    return jnp.mean(centroid_silhouette_samples(x, labels, centers))


def centroid_silhouette_samples(x: ArrayLike, labels: ArrayLike, centers: ArrayLike) -> Float[Array, " n"]:
    """Return the simplified silhouette of every point: s_i = (b_i - a_i) / max(a_i, b_i), 0 where a_i = 0.

    a_i is the distance from `x[i]` to the centre of its own cluster, b_i the smallest distance to another
    centre, be its cluster empty or not. A point on its own centre scores 0, which keeps clusters of one point
    from counting as perfect.

    Under `jax.jit` values cannot be checked: a label outside 0..K-1 scores NaN.

    Args:
        x: points, (n, d), real; integers become the default float.
        labels: cluster of each point, (n,), integers in 0..K-1.
        centers: centres of the clusters, (K, d), K at least 2; cast to the dtype of `x`.

    Returns:
        The scores, (n,), in [-1, 1], of the dtype of `x`.

    Raises:
        TypeError: `labels` are not integers.
        ValueError: `x` or `centers` are not real; wrong shapes, values that are not finite, a label out of
            range, or fewer than 2 centres.

    References:
        Vendramin, Campello & Hruschka (2010), Statistical Analysis and Data Mining 3, 209-235.

    >>> x, centers = jnp.array([[0.0], [1.0], [5.0]]), jnp.array([[0.5], [5.0]])
    >>> print([f"{s:.4f}" for s in centroid_silhouette_samples(x, jnp.array([0, 0, 1]), centers)])
    ['0.9000', '0.8750', '0.0000']
    """
    x, centers = _points("x", x), _points("centers", centers)
    if len(centers) < 2 or centers.shape[1] != x.shape[1]:
        expected = f"expected (K, {x.shape[1]}) with K at least 2, as x has {x.shape[1]} columns"
        raise ValueError(f"centers has shape {centers.shape}; {expected}")
    labels, _ = _labels(labels, len(x), len(centers))
    return _centroid_samples(x, jnp.asarray(labels, dtype=jnp.int32), centers.astype(x.dtype))


def silhouette_reading(score: float | Array) -> str:
    """Return in words what a mean silhouette says about a clustering.

    Above 0.75 "well clustered", from 0.5 "medium", from 0.25 "poorly clustered", below "no structure".

    Args:
        score: a mean silhouette, a concrete scalar in [-1, 1].

    Returns:
        One of the four readings.

    Raises:
        ValueError: `score` is no number from -1 to 1.

    References:
        Kaufman & Rousseeuw (1990), Finding Groups in Data, chapter 2, draw such lines at 0.70, 0.50 and 0.25.

    >>> silhouette_reading(0.8), silhouette_reading(0.1)
    ('well clustered', 'no structure')
    """
    if not is_concrete(score) or np.shape(given := as_numbers(score, "score")) != ():
        raise ValueError(f"score must be a number, a mean silhouette in [-1, 1]; got {score!r}")
    score = float(given)
    if not abs(score) <= 1 + 1e-3:  # of rounding, at most
        raise ValueError(f"score is {score}; expected a mean silhouette in [-1, 1]")
    if score > 0.75:
        return "well clustered"
    if score >= 0.5:
        return "medium"
    return "poorly clustered" if score >= 0.25 else "no structure"


class SilhouetteRow(NamedTuple):
    """Row of a `SilhouetteTable`: number of clusters, mean silhouette and reading.

    >>> SilhouetteRow(2, 0.8, silhouette_reading(0.8)).reading
    'well clustered'
    """

    n_clusters: int
    silhouette: float
    reading: str


class SilhouetteTable(tuple[SilhouetteRow, ...]):
    """Tuple of `SilhouetteRow` that prints as a table.

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0]])
    >>> silhouette_table(x, {2: [0, 0, 1, 1], 3: [0, 0, 1, 2]}).best.n_clusters
    2
    """

    __slots__ = ()

    @property
    def best(self) -> SilhouetteRow:
        """Row of the largest silhouette."""
        return max(self, key=lambda row: row.silhouette)

    def __repr__(self) -> str:
        lines = [f"{row.n_clusters:>3}  {row.silhouette:>10.4f}  {row.reading}" for row in self]
        return "\n".join(["  K  silhouette  reading", *lines])


def silhouette_table(
    x: ArrayLike, labellings: Mapping[int, ArrayLike], *, block: int = 1024
) -> SilhouetteTable:
    """Compute the mean pairwise silhouette of several clusterings of the same points, to choose among them.

    Args:
        x: points, (n, d), real.
        labellings: for each number of clusters K the labels it led to, (n,), integers in 0..K-1; concrete.
        block: as in `silhouette_samples`.

    Returns:
        Rows (n_clusters, silhouette, reading) in the order of `labellings`; it prints as a table.

    Raises:
        TypeError, ValueError: as `silhouette_samples`.

    References:
        Rousseeuw (1987), J. Comput. Appl. Math. 20, 53-65: the number of clusters by the mean of s(i).

    >>> x = jnp.array([[0.0], [1.0], [5.0], [6.0]])
    >>> silhouette_table(x, {2: [0, 0, 1, 1], 3: [0, 0, 1, 2]})
      K  silhouette  reading
      2      0.7980  well clustered
      3      0.3875  poorly clustered
    """
    x = _points("x", x)
    if not isinstance(labellings, Mapping) or not labellings:
        raise ValueError(f"labellings must be a dict of labels by number of clusters; got {labellings!r}")
    checked = {
        read_count(k, "labellings' number of clusters", least=2): _labels(labels, len(x), k)[0]
        for k, labels in labellings.items()
    }
    # Labels that nobody has change nothing, so the largest K serves all: one compiled program.
    largest = max(checked, default=0)
    scores = {k: float(silhouette(x, z, n_clusters=largest, block=block)) for k, z in checked.items()}
    return SilhouetteTable(SilhouetteRow(k, s, silhouette_reading(s)) for k, s in scores.items())


def _points(name: str, x: ArrayLike) -> Float[Array, "n d"]:
    """Return the points as a float array (n, d); they must be finite if their values can be seen."""
    x = as_floating(x, name)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name} has shape {x.shape}; expected (rows, features), at least one of each")
    if not isinstance(x, Tracer):
        values = np.asarray(x)  # numpy, because within jit jax would trace the check of a constant
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise ValueError(f"{name}[{row}, {column}] is {values[row, column]}; expected finite numbers")
    return x


def _labels(labels: ArrayLike, n: int, n_clusters: int | None) -> tuple[Array | np.ndarray, int]:
    """Return the labels, in numpy unless traced, and the number of clusters."""
    traced = isinstance(labels, Tracer)
    z: Any = as_numbers(labels, "labels") if traced else np.asarray(as_numbers(labels, "labels"))
    if not jnp.issubdtype(z.dtype, jnp.integer):
        raise TypeError(f"labels has dtype {z.dtype}; expected integers")
    if z.shape != (n,):
        raise ValueError(f"labels has shape {z.shape}; expected ({n},), one for each row of x")
    if n_clusters is not None:
        n_clusters = read_count(n_clusters, "n_clusters", least=2)
    elif traced:
        raise ValueError("n_clusters is None but labels is traced; expected an int inside jax.jit")
    else:
        n_clusters = int(z.max()) + 1
    if not traced and (z.min() < 0 or z.max() >= n_clusters):
        raise ValueError(f"labels lies in {z.min()}..{z.max()}; expected integers in 0..{n_clusters - 1}")
    return z, n_clusters


@functools.partial(jit, static_argnames=("n_clusters", "block"))
def _samples(
    x: Float[Array, "n d"], labels: Int[Array, " n"], *, n_clusters: int, block: int
) -> Float[Array, " n"]:
    n, d = x.shape
    n_blocks = -(-n // block)
    block = -(-n // n_blocks)  # as even as can be: padding stays below n_blocks rows
    pad = ((0, n_blocks * block - n), (0, 0))
    member = jax.nn.one_hot(labels, n_clusters, dtype=x.dtype)  # (n, k)
    members = jnp.pad(member, pad).reshape(n_blocks, block, n_clusters)  # padding is in no cluster
    blocks = jnp.pad(_unit_scale(x, x), pad, mode="edge").reshape(n_blocks, block, d).swapaxes(1, 2)

    def sums(rows: Array) -> Array:
        def add(total, column):
            points, weights = column
            tile = _distances(rows, points)
            return total + tile @ weights, None

        return lax.scan(add, jnp.zeros((block, n_clusters), x.dtype), (blocks, members))[0]

    # (n, k): sum of distances from each point to the points of each cluster
    total = lax.map(sums, blocks).reshape(n_blocks * block, n_clusters)[:n]
    size = jnp.sum(member, axis=0)
    own = member > 0
    own_size = jnp.sum(jnp.where(own, size, 0), axis=1)
    a = jnp.sum(jnp.where(own, total, 0), axis=1) / jnp.maximum(own_size - 1, 1)
    b = jnp.min(jnp.where(own | (size == 0), jnp.inf, total / jnp.maximum(size, 1)), axis=1)
    score = jnp.where(own_size == 1, 0, _score(a, b))
    return jnp.where(own_size == 0, jnp.nan, score)


@jit
def _centroid_samples(
    x: Float[Array, "n d"], labels: Int[Array, " n"], centers: Float[Array, "k d"]
) -> Float[Array, " n"]:
    both = jnp.concatenate([x, centers])
    distance = _distances(_unit_scale(x, both).T, _unit_scale(centers, both).T)  # (n, k)
    own = labels[:, None] == jnp.arange(len(centers), dtype=labels.dtype)
    a = jnp.sum(jnp.where(own, distance, 0), axis=1)
    b = jnp.min(jnp.where(own, jnp.inf, distance), axis=1)
    score = jnp.where(a > 0, _score(a, b), 0)
    return jnp.where(jnp.any(own, axis=1), score, jnp.nan)


def _score(a: Float[Array, " n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Return (b - a) / max(a, b), and 0 where both are 0."""
    larger = jnp.maximum(a, b)
    return jnp.where(larger > 0, (b - a) / jnp.where(larger > 0, larger, 1), 0)


def _unit_scale(y: Float[Array, "n d"], x: Float[Array, "m d"]) -> Float[Array, "n d"]:
    """Divide y by a power of two near the span of x, which is exact, so that no square overflows."""
    half_span = jnp.max(jnp.max(x, axis=0) / 2 - jnp.min(x, axis=0) / 2)
    return jnp.ldexp(y, -jnp.frexp(half_span)[1])


def _distances(p: Float[Array, "d n"], q: Float[Array, "d m"]) -> Float[Array, "n m"]:
    """Return Euclidean distances between the columns of `p`, (d, n), and of `q`, (d, m): (n, m).

    They are computed by differences, feature by feature. The expanded square |p|^2 - 2 p.q + |q|^2 would
    cancel for points that are near one another and far from the origin, wherever that is put; differences
    need no centring, and give exactly 0 for duplicates. A loop over features keeps the tile in cache, and was
    measured to be several times faster on a CPU than one reduction over (n, m, d).
    """

    def add(total, feature):
        u, v = feature
        return total + (u[:, None] - v) ** 2, None

    zero = jnp.zeros((p.shape[1], q.shape[1]), p.dtype)
    return jnp.sqrt(lax.scan(add, zero, (p, q))[0])
