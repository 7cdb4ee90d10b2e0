"""Gaussian mixtures by expectation maximisation: points for parameters, exact posteriors for labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp, xlogy
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import POSITIVE, REAL, at_least, choice, count, flag, hyper
from vbjax.core.rows import read_row_weights
from vbjax.data.moments import fill_defaults, observed_covariance, positive_scale, weighted_moments
from vbjax.families.base import pytree
from vbjax.families.delta import Delta, DeltaState
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.models.components import STRUCTURES
from vbjax.models.mixtures.gaussian_mixture_base import GaussianMixtureBase, degrees_of_freedom, inverse_scale
from vbjax.numerics.inputs import as_floating, read_table
from vbjax.numerics.linalg import cholesky
from vbjax.numerics.record import Record

_BEYOND = "below 1 the mode is on the simplex's boundary; BayesianGaussianMixture takes any"


@pytree
class GaussianMixture(GaussianMixtureBase):
    """x_n | c_n ~ N(mu_{c_n}, Sigma_{c_n}), c_n ~ Categorical(weights); maximum likelihood or MAP by EM.

    E-step: r_nk proportional to pi_k N(x_n | mu_k, Sigma_k). M-step, N_k = sum_n r_nk:

        pi_k = N_k / N,   mu_k = sum_n r_nk x_n / N_k,   Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)' / N_k.

    The likelihood is unbounded where a component can collapse on tied rows. So covariances obey
    Sigma_k >= covariance_floor x the data's variances, by clipping eigenvalues in the data's units, the
    exact constrained maximiser: EM stays monotone. A run that ends on that boundary is flagged in
    `fit.runs.singular` and never wins over a proper one.

    Data: (n, d), n >= k. The factors are `weights` and `components`, points (`Delta`); `weights`, `means`
    and `covariances` of this class read them.

    Args:
        n_components: k.
        covariance_type: "full", "tied", "diag" or "spherical".
        covariance_floor: smallest variance allowed, relative to the data's, in any direction.
        weight_concentration: of a Dirichlet prior of the weights, a number or (k,), at least 1; None for none
            (ML).
        mean_precision, degrees_of_freedom, inverse_scale, location: of the components' conjugate prior
            (see `BayesianGaussianMixture`) for MAP; given `mean_precision`, the others default to the
            data's; None for none (ML).
        scale: (d,), the data's variances, by default from the data.
        missing: whether a NaN is an entry that is missing at random. The likelihood is then that of the
            entries that are seen; a row of which none is seen counts for the weights alone.

    Raises:
        ValueError: fewer rows than components, a concentration below 1 (its mode is on the simplex's
            boundary), an unknown covariance type.

    References:
        Dempster, Laird & Rubin (1977); Bishop (2006), section 9.2.2, eq. 9.23 to 9.28; Biernacki, Celeux &
        Govaert (2000) for ICL.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.GaussianMixture(2), x, key=jax.random.key(0))
    >>> print(f"{fit.objective:.2f}")
    -1130.26
    """

    n_components: int = count("k")
    covariance_type: str = choice(*STRUCTURES)
    covariance_floor: Any = hyper(1e-6, POSITIVE)
    weight_concentration: Any = hyper(None, at_least(1, f" for MAP ({_BEYOND})"), "k")
    location: Any = hyper(None, REAL, "d", requires="mean_precision")
    mean_precision: Any = hyper(None, POSITIVE)
    degrees_of_freedom: Any = hyper(None, degrees_of_freedom, requires="mean_precision")
    inverse_scale: Any = hyper(None, inverse_scale, requires="mean_precision")
    scale: Any = hyper(None, POSITIVE, "d")
    missing: bool = flag(kw_only=True)

    @property
    def factors(self) -> Record:
        return Record(weights=Delta(Dirichlet(self.n_components)), components=Delta(self.structure.family))

    def read(self, data: Any) -> Array:
        if self.scale is None:  # a fit; later uses may be of any number of rows
            read_table(data, min_rows=self.n_components, missing=self.missing)
        return super().read(data)

    def resolve(self, data: Array, weights: Array | None = None) -> GaussianMixture:
        if self.missing:
            mean, covariance, _ = observed_covariance(data, weights)
            variance = jnp.diagonal(covariance)
        else:
            mean, variance = weighted_moments(data, weights)
        resolved = fill_defaults(self, data.dtype, scale=positive_scale(variance))
        if self.mean_precision is None:
            return resolved
        structure = resolved.structure
        return fill_defaults(
            resolved,
            data.dtype,
            location=mean,
            degrees_of_freedom=structure.default_degrees_of_freedom,
            inverse_scale=structure.default_inverse_scale(jnp.diag(resolved.scale)),
        )

    def weights_log_prior(self, weights: Any) -> Float[Array, ""]:
        if self.weight_concentration is None:
            return jnp.zeros((), self.scale.dtype)
        prior = DirichletState(jnp.broadcast_to(self.weight_concentration, self.n_components))
        return (prior.log_density(weights) + weights.base).sum()

    @property
    def points(self) -> bool:
        return True

    def components_prior(self, s: Record) -> Float[Array, ""]:
        if self.mean_precision is None:
            return jnp.zeros((), self.scale.dtype)
        prior = self.structure.state(
            self.location, self.mean_precision, self.degrees_of_freedom, self.inverse_scale
        )
        return (prior.log_density(s.components) + s.components.base).sum()

    @property
    def floor(self) -> Float[Array, " d"]:
        """The smallest variances allowed, (d,)."""
        return self.covariance_floor * self.scale

    def m_step(self, params: Record, statistics: Any, block: Iterable[str]) -> Record:
        """Bishop (2006), eq. 9.24 to 9.26, then the covariance floor."""
        moved = super().m_step(params, statistics, block)
        if "components" not in block:
            return moved
        gradient = self.total_gradient(self.expected(params), statistics, ["components"])["components"]
        at, structure = moved.components.at, self.structure
        covariance = structure.point_covariance(at, gradient, params.components.at)
        components = structure.at_point(at.location, structure.clip(covariance, self.floor))
        return moved | dict(components=DeltaState(components))

    def mix(self, params: Record, moved: Record, rho: ArrayLike, block: Iterable[str]) -> Record:
        raise ValueError(
            "GaussianMixture cannot take partial steps: its points do not say how many rows they rest on; "
            "use BayesianGaussianMixture"
        )

    def singular(self, params: Record) -> Array:
        return self.structure.below(params.components.at, self.floor)

    def _from_seeds(self, at_seeds: Any, statistics: Record) -> Record:
        even = DirichletState(jnp.full(self.n_components, 2.0, self.scale.dtype))
        params = Record(weights=DeltaState(even), components=DeltaState(at_seeds))
        return self.m_step(params, statistics, ("weights", "components"))

    # -- use -----------------------------------------------------------------------------------------

    def params_at(self, weights: Any, means: Any, covariances: Any) -> Record:
        """Parameters at given values, to start a fit warm or to score somebody else's.

        Args:
            weights: (k,), positive, adding up to one.
            means: (k, d).
            covariances: (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical.

        Raises:
            ValueError: what is no number, or of another shape.
        """
        means = read_table(means, "means")
        dtype, (k, d) = means.dtype, means.shape
        shape = dict(full=(k, d, d), tied=(d, d), diag=(k, d), spherical=(k,))[self.covariance_type]
        weights = _read_shaped(weights, "weights", (k,)).astype(dtype)
        covariances = _read_shaped(covariances, "covariances", shape).astype(dtype)
        structure = dataclasses.replace(self, scale=jnp.ones(means.shape[-1], dtype)).structure
        concentration = 1 + weights / jnp.finfo(dtype).eps  # its mode is `weights` to the last digit
        return Record(
            weights=DeltaState(DirichletState(concentration)),
            components=DeltaState(structure.at_point(means, covariances)),
        )

    def log_components(self, params: Record, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return self.blocks_table(self.prepare_components(params), rows)[0].T

    def log_density(self, params: Record, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return logsumexp(self.labels_table(params, x), -1)

    def draw_parameters(self, params: Record, key: Array) -> tuple[Array, Array]:
        return self.means(params), cholesky(self.covariances(params))

    def redraw_rows(self, parameters: Any, key: Array, c: Array, rows: Any = None) -> Float[Array, "n d"]:
        means, lower = parameters
        noise = jax.random.normal(key, (c.shape[0], self.structure.d), self.scale.dtype)
        return means[c] + jnp.einsum("nij,nj->ni", lower[c], noise)

    def draw_rows(
        self, params: Record, key: Array, c: Int[Array, " n"], given: Any = None
    ) -> Float[Array, "n d"]:
        return self.redraw_rows(self.draw_parameters(params, key), key, c)

    @property
    def n_parameters(self) -> int:
        """Free parameters: k - 1 weights, k d locations, and the covariances'."""
        return self.n_components - 1 + self.n_component_parameters

    @property
    def n_component_parameters(self) -> int:
        k, d = self.structure.k, self.structure.d
        matrix = d * (d + 1) // 2
        covariances = {"full": k * matrix, "tied": matrix, "diag": k * d, "spherical": k}
        return k * d + covariances[self.covariance_type]

    def total_log_likelihood(self, params: Record, x: Any, weights: Any = None) -> Float[Array, ""]:
        """sum_n w_n log p(x_n), in nats."""
        return _criteria(self, params, *self._read_weighted(x, weights))[0]

    def bic(self, params: Record, x: Any, weights: Any = None) -> Float[Array, ""]:
        """-2 log L + (free parameters) log n; smaller is better (Schwarz 1978)."""
        log_likelihood, _, n = _criteria(self, params, *self._read_weighted(x, weights))
        return -2 * log_likelihood + self.n_parameters * jnp.log(n)

    def aic(self, params: Record, x: Any, weights: Any = None) -> Float[Array, ""]:
        """-2 log L + 2 (free parameters); smaller is better (Akaike 1974)."""
        return -2 * self.total_log_likelihood(params, x, weights) + 2 * self.n_parameters

    def icl(self, params: Record, x: Any, weights: Any = None) -> Float[Array, ""]:
        """BIC + 2 (entropy of the responsibilities); smaller is better (Biernacki et al. 2000)."""
        _, entropy, _ = _criteria(self, params, *self._read_weighted(x, weights))
        return self.bic(params, x, weights) + 2 * entropy

    def _read_weighted(self, x: Any, weights: Any) -> tuple[Array, Array]:
        x = self.read(x)
        weights = read_row_weights(weights, x)
        return x, jnp.ones(x.shape[0], x.dtype) if weights is None else weights


@jax.jit
def _criteria(model: GaussianMixture, params: Record, x: Array, weights: Array) -> tuple[Array, Array, Array]:
    table = model.labels_table(params, x)
    r = jax.nn.softmax(table, -1)
    return weights @ logsumexp(table, -1), -(weights @ xlogy(r, r).sum(-1)), weights.sum()


def _read_shaped(x: Any, name: str, shape: tuple[int, ...]) -> Array:
    x = as_floating(x, name)
    if x.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, as means have it; got {x.shape}")
    return x
