"""Gaussian mixtures by variational Bayes: Bishop (2006), section 10.2."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import POSITIVE, REAL, choice, count, flag, hyper
from vbjax.data.moments import (
    fill_defaults,
    observed_covariance,
    positive_definite,
    positive_scale,
    was_flat,
    weighted_covariance,
)
from vbjax.families.base import pytree
from vbjax.models.components import STRUCTURES
from vbjax.models.components.student_t import log_predictive, log_predictive_observed
from vbjax.models.labels.weights import (
    KINDS,
    concentration_of,
    default_concentration,
    weights_family,
    weights_prior,
)
from vbjax.models.mixtures.gaussian_mixture_base import GaussianMixtureBase, degrees_of_freedom, inverse_scale
from vbjax.numerics.linalg import cholesky, solve_lower
from vbjax.numerics.record import Record


@pytree
class BayesianGaussianMixture(GaussianMixtureBase):
    """A Gaussian mixture whose weights, locations and precisions have conjugate priors.

        weights ~ Dirichlet(alpha0),   mu_k | Lam_k ~ N(m0, (beta0 Lam_k)^-1),   Lam_k ~ Wishart(nu0, W0)

    and q(labels) q(weights) prod_k q(mu_k, Lam_k), whose updates are, with N_k, xbar_k, S_k the moments
    under the responsibilities:

        alpha_k = alpha0 + N_k,   beta_k = beta0 + N_k,   nu_k = nu0 + N_k,
        m_k = (beta0 m0 + N_k xbar_k) / beta_k,
        W_k^-1 = W0^-1 + N_k S_k + beta0 N_k / (beta0 + N_k) (xbar_k - m0)(xbar_k - m0)'.

    covariance_type "diag" has a NormalGamma for each feature, tau ~ Gamma(nu0 / 2, W0^-1 / 2); "spherical"
    one Gamma(nu0 / 2, W0^-1 / 2) and a vector location, nu_k = nu0 + d N_k; "tied" one Wishart shared by
    all locations, nu = nu0 + n. The objective is the exact evidence lower bound, so it may be compared over
    k and over priors. Superfluous components empty themselves when `weight_concentration` is small.

    With `weight_prior="dirichlet_process"` the weights are the pieces of a stick, a Dirichlet process
    truncated at k: shares v_j ~ Beta(1, alpha0) of what is left, j < k, whose factors are

        v_j ~ Beta(1 + N_j, alpha0 + sum_{l > j} N_l).

    Data: (n, d). The factors are `weights` (Dirichlet or StickBreaking) and `components` (NormalWishart or
    its kin).

    Args:
        n_components: k, an upper bound.
        covariance_type: "full", "tied", "diag" or "spherical".
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.
        location: m0 (d,); by default the data's mean.
        mean_precision: beta0, prior rows behind the location; by default 1.
        degrees_of_freedom: nu0; by default d (diag: 1).
        inverse_scale: W0^-1, (d, d), diag (d,), spherical a scalar; by default the data's sample covariance
            (divided by n - 1), its diagonal or its trace.
        scale: (d,), the data's variances, by default from the data: the unit of distance of the start.
        weight_prior: "dirichlet" or "dirichlet_process".
        missing: whether a NaN is an entry that is missing at random. Where features are correlated, the
            missing entries of a row are latents, normal given its label, with the conditional moments under
            E[Lam_k]; the bound of diag and spherical has the entries that are seen alone. A row of which
            none is seen counts for the weights alone.

    References:
        Bishop (2006), section 10.2, eq. 10.38 to 10.82; Attias (1999); Corduneanu & Bishop (2001);
        Blei & Jordan (2006), Variational inference for Dirichlet process mixtures, section 3.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> model = vb.BayesianGaussianMixture(6, weight_concentration=1e-3)
    >>> fit = vb.fit(model, x, key=jax.random.key(0), n_restarts=8)
    >>> int((fit.model.responsibilities(fit.params, x).sum(0) > 1).sum())
    2
    """

    n_components: int = count("k")
    covariance_type: str = choice(*STRUCTURES)
    weight_concentration: Any = hyper(None, concentration_of)
    location: Any = hyper(None, REAL, "d")
    mean_precision: Any = hyper(1.0, POSITIVE)
    degrees_of_freedom: Any = hyper(None, degrees_of_freedom)
    inverse_scale: Any = hyper(None, inverse_scale)
    scale: Any = hyper(None, POSITIVE, "d")
    weight_prior: str = choice(*KINDS, kw_only=True)
    missing: bool = flag(kw_only=True)

    @property
    def factors(self) -> Record:
        weights = weights_family(self.weight_prior, self.n_components)
        return Record(weights=weights, components=self.structure.family)

    def resolve(self, data: Array, weights: Array | None = None) -> BayesianGaussianMixture:
        if self.missing:
            mean, covariance, n = observed_covariance(data, weights)
            n = jnp.sqrt(n[:, None] * n)
        else:
            mean, covariance = weighted_covariance(data, weights)
            n = jnp.asarray(data.shape[0], data.dtype) if weights is None else weights.sum()
        scale = positive_scale(jnp.diagonal(covariance))
        covariance = covariance * jnp.where(n > 1, n / jnp.where(n > 1, n - 1, 1), 1)
        # a column that does not vary gets a prior of its own unit, so that W0 stays proper
        covariance = covariance + jnp.diag(jnp.where(jnp.diagonal(covariance) > 0, 0, scale))
        covariance = positive_definite(covariance)
        resolved = fill_defaults(self, data.dtype, scale=scale)
        structure = resolved.structure
        defaults: dict[str, Any] = dict(
            weight_concentration=default_concentration(self.weight_prior, self.n_components),
            location=mean,
            degrees_of_freedom=structure.default_degrees_of_freedom,
            inverse_scale=structure.default_inverse_scale(covariance),
        )
        return fill_defaults(resolved, data.dtype, **defaults)

    @property
    def component_prior(self) -> Any:
        """The components' prior, a state of their family."""
        return self.structure.state(
            self.location, self.mean_precision, self.degrees_of_freedom, self.inverse_scale
        )

    def weights_log_prior(self, weights: Any) -> Float[Array, ""]:
        prior = weights_prior(self.weight_prior, self.n_components, self.weight_concentration)
        return (prior.log_density(weights) + weights.base).sum()

    def components_prior(self, s: Record) -> Float[Array, ""]:
        return (self.component_prior.log_density(s.components) + s.components.base).sum()

    def ill_conditioned(self, params: Record) -> Array:
        """Return whether a covariance is narrower than its dtype can tell, as the data.s was in the prior."""
        found = super().ill_conditioned(params)
        return found | was_flat(self.inverse_scale) if self.structure.correlated else found

    def _from_seeds(self, at_seeds: Any, statistics: Record) -> Record:
        params = Record(weights=self.factors["weights"].neutral(self.scale.dtype), components=at_seeds)
        return self.m_step(params, statistics, ("weights", "components"))

    # -- use -----------------------------------------------------------------------------------------

    def log_components(self, params: Record, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Student-t densities (Bishop 2006, eq. 10.81)."""
        density = log_predictive_observed if self.missing else log_predictive
        return density(self.structure.marginals(params.components), rows)

    def draw_rows(
        self, params: Record, key: Array, c: Int[Array, " n"], given: Any = None
    ) -> Float[Array, "n d"]:
        keys = jax.random.split(key)
        marginals = self.structure.marginals(params.components)
        return self._draw(keys[1], *jax.tree.map(lambda leaf: leaf[c], marginals).sample(keys[0]))

    def draw_parameters(self, params: Record, key: Array) -> tuple[Array, Array]:
        location, precision = params.components.sample(key)
        tied = self.covariance_type == "tied"
        return location, jnp.broadcast_to(precision, (len(location), *precision.shape)) if tied else precision

    def redraw_rows(self, parameters: Any, key: Array, c: Array, rows: Any) -> Float[Array, "n d"]:
        location, precision = parameters
        return self._draw(key, location[c], precision[c])

    def _draw(self, key: Array, location: Float[Array, "n d"], precision: Array) -> Float[Array, "n d"]:
        """Draw a row from every location and precision."""
        noise = jax.random.normal(key, location.shape, location.dtype)
        if self.covariance_type in ("full", "tied"):
            return location + solve_lower(cholesky(precision), noise[..., None], transposed=True)[..., 0]
        return location + noise / jnp.sqrt(precision.reshape(location.shape[0], -1))
