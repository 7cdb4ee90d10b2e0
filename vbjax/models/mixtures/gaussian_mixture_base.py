"""What the Gaussian mixtures by EM and by variational Bayes share: components, E-step and start.

Not a model itself: `gaussian_mixture.py` and `bayesian_gaussian_mixture.py` give the factors' kind
(points or distributions), the prior and the predictive density.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.core.hyperparameters import Range, read_columns
from vbjax.core.model import scored_rows
from vbjax.core.rows import Expectation
from vbjax.data.moments import observed_covariance
from vbjax.models.components import STRUCTURES, Moments, Prepared, Structure
from vbjax.models.labels.weights import from_counts
from vbjax.models.mixtures.mixture import Mixture
from vbjax.models.mixtures.seeding import plus_plus
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record

_BLOCK_BYTES = 2**23  # the whitened differences of a block stay in a core's cache


def degrees_of_freedom(model: Any, sizes: Mapping[str, int]) -> tuple[Range]:
    """Return what the degrees of freedom of the components' prior may be."""
    return (STRUCTURES[model.covariance_type].degrees_of_freedom(sizes.get("d", 1)),)


def inverse_scale(model: Any, sizes: Mapping[str, int]) -> tuple[Any, ...]:
    """Return what the inverse scale of the components' prior may be, and its shape."""
    return STRUCTURES[model.covariance_type].inverse_scale


class GaussianMixtureBase(Mixture):
    """Rows x_n | c_n ~ N(mu_{c_n}, Lam_{c_n}^-1), c_n ~ Categorical(weights).

    Subclasses are dataclasses with `n_components`, `covariance_type`, `missing` (whether NaN is a missing
    entry) and, once resolved, `scale` (d,), the data's variances.
    """

    n_components: int
    covariance_type: str
    missing: bool
    scale: Any
    covariance_floor: Any

    @property
    def structure(self) -> Structure:
        """The components' covariance structure, in the data's dimension."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return STRUCTURES[self.covariance_type](self.n_components, self.scale.shape[-1])

    def read(self, data: Any) -> Array:
        x = read_columns(self, data, missing=self.missing)
        if self.missing and self.scale is None and is_concrete(x) and jnp.isnan(x).all(0).any():
            raise ValueError("data must have something seen in every column; all of one is NaN")
        return x

    def sizes(self, data: Array) -> dict[str, int]:
        return dict(d=data.shape[-1])

    def chunk_rows(self, data: Array) -> int:
        numbers = self.n_components * data.shape[1]  # to whiten a row
        rows = 2048 if numbers >= 64 else super().chunk_rows(data)
        cached = _BLOCK_BYTES // (numbers * data.dtype.itemsize)
        if self.missing and self.structure.correlated:  # a matrix for each row and component
            return max(8, min(rows, cached // data.shape[1]))
        return max(256, min(rows, 2 ** ((1 + cached).bit_length() - 1)))

    def table(self, components: Any, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        if self.missing:
            return self.structure.log_density_observed(components, rows)
        return self.structure.log_density(components, rows)

    def prepare(self, params: Any) -> tuple[Any, Prepared]:
        return self.factors["weights"].expected(params.weights), self.prepare_components(params)

    def prepare_components(self, params: Any) -> Prepared:
        structure, components = self.structure, params["components"]
        prepare = structure.prepare_observed if self.missing else structure.prepare
        return prepare(components, self.factors["components"].expected(components))

    def scored_components(self, prepared: Prepared, rows: Array) -> tuple[Array, Callable[[Array], Record]]:
        density, moments_of = self.blocks_table(prepared, rows)
        return density, lambda r: Record(components=self.structure.gradient(moments_of(r)))

    def blocks_table(self, c: Prepared, rows: Array) -> tuple[Array, Callable[[Array], Moments]]:
        """Expected log densities (k, block), and what makes moments of responsibilities (k, block)."""
        structure, x = self.structure, (rows - c.pivot).T
        if self.missing:
            seen = ~jnp.isnan(x)
            return structure.observed(c, jnp.where(seen, x, 0), seen)
        density, z = structure.table(c, x)
        return density, lambda r: structure.moments(c, r, z, x)

    def e_step(self, prepared: tuple[Any, Prepared], rows: Array, weights: Array) -> Expectation:
        """Bishop (2006), eq. 10.46 to 10.49 and 10.51 to 10.53 (EM: 9.23): responsibilities and moments."""
        mixing, c = prepared
        density, moments_of = self.blocks_table(c, rows)
        table = mixing.log[:, None] + density
        bound = logsumexp(table, 0)
        r = weights * jnp.exp(table - bound)
        moments = moments_of(r)
        counts = from_counts(mixing, r.sum(1) if self.missing else moments.number)
        statistics = Record(weights=counts, components=self.structure.gradient(moments))
        return scored_rows(statistics, bound, weights)

    def gradient_at(self, s: Record, local: Record, data: Array, weights: Array | None = None) -> Record:
        if self.missing and self.structure.correlated:
            raise ValueError(
                "data must be whole to draw parameters given them: what is missing is integrated out, not "
                'drawn; covariance_type "diag" and "spherical" leave it out'
            )
        return super().gradient_at(s, local, data, weights)

    def init(self, key: Array, data: Array, weights: Array | None = None) -> Record:
        """Components around k-means++ seeds, equally heavy, each as wide as its share of the data."""
        structure = self.structure
        if self.missing:
            data = jnp.where(jnp.isnan(data), observed_covariance(data, weights)[0], data)
        seeds = plus_plus(key, data, self.n_components, weights, self.scale)
        n = jnp.asarray(data.shape[0], data.dtype) if weights is None else weights.sum()
        width = jnp.diag(self.scale) * self.n_components ** (-2 / structure.d)
        count = jnp.full(self.n_components, n / self.n_components, data.dtype)
        counts = from_counts(self.factors["weights"].neutral(data.dtype).expected(), count)
        components = structure.gradient(structure.spread(count, width))
        at_seeds = structure.at_point(seeds, structure.default_inverse_scale(width))
        return self._from_seeds(at_seeds, Record(weights=counts, components=components))

    def _from_seeds(self, at_seeds: Any, statistics: Record) -> Record:
        """The M-step from statistics about seeds."""
        raise TypeError("given by the subclass")

    def ill_conditioned(self, params: Record) -> Array:
        return self.structure.ill_conditioned(params["components"])

    def cancelled(self, params: Any, expectation: Expectation) -> Array:
        """Of covariances that are narrow in some direction, what their rounding makes of the densities."""
        components = params["components"]
        number = 2 * expectation.statistics["components"].logdet
        floor = self.covariance_floor if self.points else 0.0
        return self.structure.cancelled(components, number, floor)

    # -- use -----------------------------------------------------------------------------------------

    def labels_table(self, params: Record, rows: Array) -> Array:
        weights, c = self.prepare(params)
        return weights.log + self.blocks_table(c, rows)[0].T

    def means(self, params: Record) -> Float[Array, "k d"]:
        """The (expected) locations, (k, d)."""
        return params.components.mean.location

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """The inverse (expected) precision matrices, (k, d, d) for every covariance type."""
        return _covariances(self, params)


@jax.jit
def _covariances(model: GaussianMixtureBase, params: Record) -> Array:
    return model.structure.covariances(model.prepare(params)[1])
