"""What the Gaussian mixtures by EM and by variational Bayes share: E-step, start, and use.

Not a model itself: `gaussian_mixture.py` and `bayesian_gaussian_mixture.py` give the factors' kind
(points or distributions), the prior and the predictive density.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float, Int

from vbjax import terms
from vbjax.core.expectation import Expectation
from vbjax.core.inputs import read_count, read_table
from vbjax.core.model import ConjugateModel, scored_rows
from vbjax.families.categorical import Categorical
from vbjax.families.dirichlet import DirichletStatistics
from vbjax.models.components import STRUCTURES, Prepared, Structure
from vbjax.models.seeding import plus_plus
from vbjax.record import Record

_BLOCK_BYTES = 2**23  # the whitened differences of a block stay in a core's cache


class GaussianMixtureBase(ConjugateModel):
    """Rows x_n | c_n ~ N(mu_{c_n}, Lam_{c_n}^-1), c_n ~ Categorical(weights).

    Subclasses are dataclasses with `n_components`, `covariance_type` and, once resolved, `scale` (d,),
    the data's variances.
    """

    n_components: int
    covariance_type: str
    scale: Any

    @property
    def structure(self) -> Structure:
        """The components' covariance structure, in the data's dimension."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return STRUCTURES[self.covariance_type](self.n_components, self.scale.shape[-1])

    def local(self, rows: Array) -> Record:
        return Record(c=Categorical(self.n_components, plate=(rows.shape[0],)))

    def read(self, data: Any) -> Array:
        read_count(self.n_components, "n_components")
        if self.covariance_type not in STRUCTURES:
            raise ValueError(
                f"covariance_type must be one of {', '.join(STRUCTURES)}; got {self.covariance_type!r}"
            )
        n_features = None if self.scale is None else self.scale.shape[-1]
        return read_table(data, n_features=n_features)

    def chunk_rows(self, data: Array) -> int:
        numbers = self.n_components * data.shape[1]  # to whiten a row
        rows = 2048 if numbers >= 64 else super().chunk_rows(data)
        cached = _BLOCK_BYTES // (numbers * data.dtype.itemsize)
        return max(256, min(rows, 2 ** ((1 + cached).bit_length() - 1)))

    def log_likelihood(self, s: Record, rows: Float[Array, "n d"]) -> Float[Array, " n"]:
        table = self.structure.log_density(s.components, rows)
        return terms.categorical(s.c, s.weights) + (s.c.p * table).sum(-1)

    def prepare(self, params: Any) -> tuple[Array, Prepared]:
        s = self.expected(params)
        return s.weights.log, self.structure.prepare(params.components, s.components)

    def e_step(self, prepared: tuple[Array, Prepared], rows: Array, weights: Array) -> Expectation:
        """Bishop (2006), eq. 10.46 to 10.49 and 10.51 to 10.53 (EM: 9.23): responsibilities and moments."""
        log_weights, c = prepared
        x = (rows - c.pivot).T
        density, z = self.structure.table(c, x)
        table = log_weights[:, None] + density
        bound = logsumexp(table, 0)
        r = weights * jnp.exp(table - bound)
        moments = self.structure.moments(c, r, z, x)
        counts = DirichletStatistics(moments.number, jnp.zeros((), moments.number.dtype))
        statistics = Record(weights=counts, components=self.structure.gradient(moments))
        return scored_rows(statistics, bound, weights)

    def init(self, key: Array, data: Array, weights: Array | None = None) -> Record:
        """Components around k-means++ seeds, equally heavy, each as wide as its share of the data."""
        structure = self.structure
        seeds = plus_plus(key, data, self.n_components, weights, self.scale)
        n = jnp.asarray(data.shape[0], data.dtype) if weights is None else weights.sum()
        width = jnp.diag(self.scale) * self.n_components ** (-2 / structure.d)
        count = jnp.full(self.n_components, n / self.n_components, data.dtype)
        counts = DirichletStatistics(count, jnp.zeros((), data.dtype))
        components = structure.gradient(structure.spread(count, width))
        at_seeds = structure.at_point(seeds, structure.default_inverse_scale(width))
        return self._from_seeds(at_seeds, Record(weights=counts, components=components))

    def _from_seeds(self, at_seeds: Any, statistics: Record) -> Record:
        """The M-step from statistics about seeds."""
        raise TypeError("given by the subclass")

    def draw_rows(self, params: Record, key: Array, c: Array) -> Array:
        """A row for each of the given components (n,)."""
        raise TypeError("given by the subclass")

    def log_density(self, params: Record, x: Array) -> Array:
        """Log predictive density of rows (n,)."""
        raise TypeError("given by the subclass")

    # -- use -----------------------------------------------------------------------------------------

    def _table(self, params: Record, x: Any) -> Array:
        log_weights, c = self.prepare(params)
        return log_weights + self.structure.table(c, (x - c.pivot).T)[0].T

    def responsibilities(self, params: Record, x: Any) -> Float[Array, "n k"]:
        """Probability of every component for every row, (n, k)."""
        return _responsibilities(self, params, self.read(x))

    def predict(self, params: Record, x: Any) -> Int[Array, " n"]:
        """The most probable component of every row, (n,)."""
        return self.responsibilities(params, x).argmax(-1)

    def log_predictive(self, params: Record, x: Any) -> Float[Array, " n"]:
        """Log density of new rows under the fitted mixture, (n,), in nats."""
        return _log_predictive(self, params, self.read(x))

    def weights(self, params: Record) -> Float[Array, " k"]:
        """The (expected) mixing weights, (k,)."""
        return params.weights.mean

    def means(self, params: Record) -> Float[Array, "k d"]:
        """The (expected) locations, (k, d)."""
        return params.components.mean.location

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """The inverse (expected) precision matrices, (k, d, d) for every covariance type."""
        return _covariances(self, params)

    def sample_posterior(self, params: Record, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draws of the parameters: `weights` (n, k), `components.location`, `components.precision`."""
        return _sample_posterior(params, key, n)

    def sample(self, params: Record, key: Array, n: int) -> Float[Array, "{n} d"]:
        """New rows (n, d), each with parameters of its own drawn from q: the predictive density's draws."""
        n = read_count(n, "n")
        return _sample(self, params, key, n)


@jax.jit
def _responsibilities(model: GaussianMixtureBase, params: Record, x: Array) -> Array:
    return jax.nn.softmax(model._table(params, x), -1)


@jax.jit
def _log_predictive(model: Any, params: Record, x: Array) -> Array:
    return model.log_density(params, x)


@jax.jit
def _covariances(model: GaussianMixtureBase, params: Record) -> Array:
    return model.structure.covariances(model.prepare(params)[1])


@functools.partial(jax.jit, static_argnames="n")
def _sample_posterior(params: Record, key: Array, n: int | tuple[int, ...]) -> Record:
    keys = jax.random.split(key)
    return Record(weights=params.weights.sample(keys[0], n), components=params.components.sample(keys[1], n))


@functools.partial(jax.jit, static_argnames="n")
def _sample(model: GaussianMixtureBase, params: Record, key: Array, n: int) -> Array:
    keys = jax.random.split(key)
    c = jax.random.categorical(keys[0], jnp.log(model.weights(params)), shape=(n,))
    return model.draw_rows(params, keys[1], c)
