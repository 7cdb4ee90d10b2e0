"""k-means: the hard limit of a mixture, points for centres and for labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import POSITIVE, choice, count, hyper, read_columns
from vbjax.core.model import ConjugateModel, scored_rows
from vbjax.core.rows import Expectation, read_row_weights
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.categorical import Categorical
from vbjax.families.delta import Delta
from vbjax.families.normal import Normal, NormalStatistics
from vbjax.models.components.seeding import plus_plus, random_rows
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_table
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper, Params

_TABLE_BYTES = 2**21  # of a block's distances from all centres, which stay in a core's cache


@pytree
class KMeans(ConjugateModel):
    """Centres mu_k and labels c_n that minimise the inertia sum_n w_n |x_n - mu_{c_n}|^2 (Lloyd).

    The hard limit of a mixture of normals: both factors are points, so the E-step takes a maximum where
    EM takes a log-sum-exp. The objective is minus the inertia. A cluster that loses all its rows keeps
    its centre.

    Data: (n, d), n >= k. The factor is `centers`, points (k, d).

    Args:
        n_clusters: k.
        start: "k-means++" or "random" (different rows).
        scale: (d,), the data's variances, by default from the data. It is not used for distances.

    Raises:
        ValueError: fewer rows than clusters, an unknown start.

    References:
        Lloyd (1982); Arthur & Vassilvitskii (2007); Bishop (2006), section 9.1, eq. 9.1 to 9.4.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([[0.0], [1.0], [10.0], [11.0]])
    >>> fit = vb.fit(vb.KMeans(2), x, key=jax.random.key(0), n_restarts=4)
    >>> print(fit.model.inertia(fit.params, x))
    1.0
    """

    n_clusters: int = count("k")
    start: str = choice("k-means++", "random")
    scale: Hyper = hyper(None, POSITIVE, "d")
    named_axes: ClassVar[Mapping[str, int]] = dict(centers=1)

    @property
    def factors(self) -> Record:
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return Record(centers=Delta(Normal((self.n_clusters, self.scale.shape[-1]))))

    def local(self, rows: Array) -> Record:
        return Record(c=Delta(Categorical(self.n_clusters, plate=(rows.shape[0],))))

    def read(self, data: Data) -> Array:
        return read_columns(self, data, min_rows=self.n_clusters if self.scale is None else 1)

    def sizes(self, data: Array) -> dict[str, int]:
        return dict(d=data.shape[-1])

    def chunk_rows(self, data: Array) -> int:
        cached = _TABLE_BYTES // (self.n_clusters * data.dtype.itemsize)
        return max(64, min(super().chunk_rows(data), cached))

    def resolve(self, data: Array, weights: Array | None = None) -> KMeans:
        return fill_defaults(self, data.dtype, scale=positive_scale(weighted_moments(data, weights)[1]))

    def unit(self, expectation: Expectation) -> Array:
        """Return the inertia, to which the tolerance is relative."""
        return expectation.magnitude

    def init(self, key: Array, data: Array, weights: Array | None = None) -> Record:
        if self.start == "random":
            return self.params_at(random_rows(key, data, self.n_clusters, weights))
        return self.params_at(plus_plus(key, data, self.n_clusters, weights, jnp.ones_like(self.scale)))

    def params_at(self, centers: Any) -> Record:
        """Return parameters at given centres (k, d)."""
        centers = read_table(centers, "centers")
        return Record(centers=Delta(Normal(centers.shape)).at(centers))

    def log_likelihood(self, s: Record, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        return -(s.c.p * s.centers.square_about(rows[:, None, :]).sum(-1)).sum(-1)

    def prepare(self, params: Params) -> Array:
        return params.centers.mean

    def e_step(self, prepared: Array, rows: Array, weights: Array) -> Expectation:
        """Find labels by one product of rows and centres; the inertia itself from differences."""
        centers = prepared
        labels = self.nearest(centers, rows)
        shift = rows - centers[labels]
        total = jax.ops.segment_sum(2 * weights[:, None] * shift, labels, self.n_clusters)
        count = jax.ops.segment_sum(weights, labels, self.n_clusters)
        n = jnp.broadcast_to(count[:, None], centers.shape)
        gradient = NormalStatistics(jnp.zeros_like(centers), total, -n)
        return scored_rows(Record(centers=gradient), -(shift * shift).sum(1), weights)

    def nearest(self, centers: Float[Array, "k d"], x: Float[Array, "n d"]) -> Int[Array, " n"]:
        """Return the nearest centre, the first of equally near ones."""
        pivot = jnp.sort(centers, 0)[(self.n_clusters - 1) // 2]  # amid most of them, wherever one outlier is
        centers, x = centers - pivot, x - pivot
        half = centers @ x.T - 0.5 * (centers**2).sum(1)[:, None]  # (k, block), larger is nearer
        number = lax.broadcasted_iota(jnp.int32, half.shape, 0)
        return jnp.where(half == half.max(0), number, self.n_clusters - 1).min(0)

    # -- use -----------------------------------------------------------------------------------------

    def centers(self, params: Record) -> Float[Array, "k d"]:
        """Return the centres, (k, d)."""
        return params.centers.mean

    def predict(self, params: Record, x: Data) -> Int[Array, " n"]:
        """Return the nearest centre of every row, (n,)."""
        return _predict(self, params, self.read(x))

    def inertia(self, params: Record, x: Data, weights: Given = None) -> Float[Array, ""]:
        """Compute sum_n w_n |x_n - mu_{c_n}|^2, from differences."""
        x = self.read(x)
        weights = read_row_weights(weights, x)
        square = ((x - self.centers(params)[self.predict(params, x)]) ** 2).sum(1)
        return square.sum() if weights is None else weights @ square


@jit
def _predict(model: KMeans, params: Record, x: Array) -> Array:
    return model.nearest(model.prepare(params), x)
