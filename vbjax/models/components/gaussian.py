"""Gaussian rows of any covariance structure, by EM or by variational Bayes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import room
from vbjax.core.hyperparameters import POSITIVE, REAL, Range, choice, flag, hyper, read_columns
from vbjax.core.rows import Expectation, total_weight
from vbjax.data.moments import (
    fill_defaults,
    observed_covariance,
    positive_definite,
    positive_scale,
    was_flat,
    weighted_covariance,
    weighted_moments,
)
from vbjax.families.base import Family, pytree, replace
from vbjax.families.joint import LocationCovariance
from vbjax.models.components.component import Component, Pullback
from vbjax.models.components.covariance import (
    MAXIMISERS,
    STRUCTURES,
    Moments,
    Prepared,
    Structure,
    Update,
    n_covariance_parameters,
)
from vbjax.models.components.covariance.structure import with_covariance
from vbjax.models.components.predictive import log_predictive, log_predictive_observed
from vbjax.models.components.seeding import Distance, squared_distance
from vbjax.numerics.inputs import is_concrete, read_table
from vbjax.numerics.linalg import cholesky, solve_lower
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper, Params, Tree

_BLOCK_BYTES = 2**23  # the whitened differences of a block stay in a core's cache


def _degrees_of_freedom(model: Gaussian, sizes: Mapping[str, int]) -> tuple[Range]:
    """Return what the degrees of freedom of the prior may be."""
    return (STRUCTURES[model.covariance_type].degrees_of_freedom(sizes.get("d", 1)),)


def _inverse_scale(model: Gaussian, sizes: Mapping[str, int]) -> tuple[Tree, ...]:
    """Return what the inverse scale of the prior may be, and its shape."""
    return STRUCTURES[model.covariance_type].inverse_scale


def _by_em_alone(model: Gaussian) -> str | None:
    """Return why a covariance type has no meaning: what covariances share has no conjugate prior."""
    if model.points or model.covariance_type not in MAXIMISERS:
        return None
    return "full, tied, diag or spherical (VVV, EEE, VVI, VII) by variational Bayes; the others are by EM"


def _without_prior(model: Gaussian) -> str | None:
    """Return why the rest of a prior has no meaning: points without `mean_precision` have none."""
    if model.points and model.mean_precision is None:
        return "points without mean_precision have no prior: give both, or neither"
    return None


def _not_points(model: Gaussian) -> str | None:
    return (
        None if model.points else "the floor is for point estimates; here the prior keeps covariances proper"
    )


@pytree
class Gaussian(Component):
    """Rows x_n | c_n = k ~ N(mu_k, Lam_k^-1), mu_k | Lam_k ~ N(m0, (beta0 Lam_k)^-1), Lam_k ~ Wishart(nu0,
    W0).

    With N_k, xbar_k, S_k the moments under the responsibilities, the update of q(mu_k, Lam_k) is (Bishop
    2006, eq. 10.60 to 10.63)

        beta_k = beta0 + N_k,   nu_k = nu0 + N_k,   m_k = (beta0 m0 + N_k xbar_k) / beta_k,
        W_k^-1 = W0^-1 + N_k S_k + beta0 N_k / (beta0 + N_k) (xbar_k - m0)(xbar_k - m0)'.

    Points, by EM, maximise the likelihood, or with `mean_precision` the posterior density (MAP). The
    likelihood is unbounded where a component can collapse on tied rows, so their covariances obey Sigma_k >=
    covariance_floor x the data's variances, by clipping eigenvalues in the data's units, the exact
    constrained maximiser: EM stays monotone. A run that ends on that boundary is flagged in
    `fit.runs.singular` and never wins over a proper one.

    covariance_type "diag" has a NormalGamma for each feature, tau ~ Gamma(nu0 / 2, W0^-1 / 2); "spherical"
    one Gamma(nu0 / 2, W0^-1 / 2) and a vector location, nu_k = nu0 + d N_k; "tied" one Wishart shared by all
    locations, nu = nu0 + n.

    By EM it may be any of the fourteen models of Celeux & Govaert (1995), Sigma_k = lambda_k D_k A_k D_k'.
    Three letters say of the volume lambda, the shape A (diagonal) and the orientation D in turn whether they
    are equal (E) or vary (V) over components, or are those of a sphere or of the axes (I):

        EII, VII; EEI, VEI, EVI, VVI; EEE, VEE, EVE, VVE, EEV, VEV, EVV, VVV.

    Data: (n, d). The parameters are a NormalWishart or its kin, (k,).

    Args:
        covariance_type: "full" (VVV), "tied" (EEE), "diag" (VVI), "spherical" (VII) or another such name.
        location: m0 (d,); by default the data's mean.
        mean_precision: beta0, prior rows behind the location; by default 1, of points none.
        degrees_of_freedom: nu0; by default d (diag: 1).
        inverse_scale: W0^-1, (d, d), diag (d,), spherical a scalar; by default the data's sample covariance
            (divided by n - 1), its diagonal or its trace; for points the diagonal of the data's variances.
        covariance_floor: of points, the smallest variance allowed in any direction, relative to the data's;
            by default 1e-6.
        scale: (d,), the data's variances, by default from the data: the unit of distance of the start.
        missing: whether a NaN is an entry that is missing at random. Where features are correlated, the
            missing entries of a row are latents, normal given its label, with the conditional moments under
            E[Lam_k]; diag and spherical have the entries that are seen alone. A row of which none is seen
            counts for the weights alone.

    Raises:
        ValueError: an unknown covariance type, a hyperparameter out of range, a column of which nothing is
            seen.

    References:
        Bishop (2006), sections 9.2.2 and 10.2, eq. 9.23 to 9.28 and 10.38 to 10.82; Attias (1999); Celeux &
        Govaert (1995), Gaussian parsimonious clustering models, section 3.

    >>> import vbjax as vb
    >>> vb.BayesianMixture(3, vb.components.Gaussian("diag", mean_precision=0.1))
    BayesianMixture(
        n_components=3,
        component=components.Gaussian(covariance_type='diag', mean_precision=0.1),
    )
    """

    covariance_type: str = choice(*STRUCTURES, unless=_by_em_alone)
    location: Hyper = hyper(None, REAL, "d", idle=_without_prior)
    mean_precision: Hyper = hyper(None, POSITIVE)
    degrees_of_freedom: Hyper = hyper(None, _degrees_of_freedom, idle=_without_prior)
    inverse_scale: Hyper = hyper(None, _inverse_scale, idle=_without_prior)
    covariance_floor: Hyper = hyper(None, POSITIVE, idle=_not_points)
    scale: Hyper = hyper(None, POSITIVE, "d")
    missing: bool = flag(kw_only=True)

    @property
    def structure(self) -> Structure:
        """The covariance structure, in the data's dimension."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return STRUCTURES[self.covariance_type](self.n_laws, self.scale.shape[-1])

    @property
    def family(self) -> Family:
        return self.structure.family

    @property
    def prior(self) -> Tree:
        return self.structure.state(
            self.location, self.mean_precision, self.degrees_of_freedom, self.inverse_scale
        )

    @property
    def floor(self) -> Float[Array, " d"]:
        """The smallest variances allowed of points."""
        return self.covariance_floor * self.scale

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Float[Array, "n d"]:
        if self.points and self.scale is None:  # a fit; later uses may be of any number of rows
            read_table(data, min_rows=self.n_laws, missing=self.missing)
        x = read_columns(self, data, missing=self.missing)
        if self.missing and self.scale is None and is_concrete(x) and jnp.isnan(x).all(0).any():
            raise ValueError("data must have something seen in every column; all of one is NaN")
        return x

    def chunk_rows(self, data: Data) -> int:
        numbers = self.n_laws * data.shape[1]  # to whiten a row
        rows = 2048 if numbers >= 64 else super().chunk_rows(data)
        cached = _BLOCK_BYTES // (numbers * data.dtype.itemsize)
        if self.missing and self.structure.correlated:  # a matrix for each row and component
            return max(8 // room(), 1, min(rows, cached // data.shape[1]))
        return max(256 // room(), 1, min(rows, 2 ** ((1 + cached).bit_length() - 1)))

    def resolve(self, data: Float[Array, "n d"], weights: Float[Array, " n"] | None = None) -> Gaussian:
        if self.missing:
            mean, covariance, n = observed_covariance(data, weights)
            n = jnp.sqrt(n[:, None] * n)
        elif self.points:
            mean, variance = weighted_moments(data, weights)
            covariance = jnp.diag(variance)
        else:
            mean, covariance = weighted_covariance(data, weights)
            n = total_weight(data, weights)
        scale = positive_scale(jnp.diagonal(covariance))
        resolved = fill_defaults(self, data.dtype, scale=scale)
        structure = resolved.structure
        if self.points:
            covariance = jnp.diag(resolved.scale)
            resolved = fill_defaults(resolved, data.dtype, covariance_floor=1e-6)
            if self.mean_precision is None:
                return resolved
        else:
            covariance = covariance * jnp.where(n > 1, n / jnp.where(n > 1, n - 1, 1), 1)
            # a column that does not vary gets a prior of its own unit, so that W0 stays proper
            covariance = covariance + jnp.diag(jnp.where(jnp.diagonal(covariance) > 0, 0, scale))
            covariance = positive_definite(covariance)
        return fill_defaults(
            resolved,
            data.dtype,
            location=mean,
            mean_precision=1.0,
            degrees_of_freedom=structure.default_degrees_of_freedom,
            inverse_scale=structure.default_inverse_scale(covariance),
        )

    @property
    def has_prior(self) -> bool:
        return self.mean_precision is not None

    # -- E-step --------------------------------------------------------------------------------------

    def log_prior(self, s: Record) -> Float[Array, ""]:
        if self.mean_precision is None:
            return jnp.zeros((), self.scale.dtype)
        return (self.prior.log_density(s.components) + s.components.base).sum()

    def table(self, statistics: Tree, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        if self.missing:
            return self.structure.log_density_observed(statistics, rows)
        return self.structure.log_density(statistics, rows)

    def prepare(self, params: Params) -> Prepared:
        structure, components = self.structure, params["components"]
        prepare = structure.prepare_observed if self.missing else structure.prepare
        return prepare(self._covariance(components), components.expected())

    def _covariance(self, components: Tree) -> Array:
        """Return E[Lam]^-1, as the structure has it."""
        return components.value.covariance if self.points else components.mean_covariance

    def log_density(
        self, prepared: Prepared, rows: Float[Array, "n d"]
    ) -> tuple[Float[Array, "k n"], Pullback]:
        """Compute expected log densities of rows about the pivot, and moments of responsibilities.

        Bishop (2006), eq. 10.64 and 10.51 to 10.53.
        """
        structure, x = self.structure, (rows - prepared.pivot).T
        moments: Callable[[Array], Moments]
        if self.missing:
            seen = ~jnp.isnan(x)
            density, moments = structure.observed(prepared, jnp.where(seen, x, 0), seen)
        else:
            density, z = structure.table(prepared, x)
            moments = lambda r: structure.moments(prepared, r, z, x)
        return density, lambda r: Record(components=structure.gradient(moments(r)))

    @property
    def undrawable(self) -> str | None:
        if not (self.missing and self.structure.correlated):
            return None
        return (
            "data must be whole to draw parameters given them: what is missing is integrated out, not drawn; "
            'covariance_type "diag" and "spherical" leave it out'
        )

    def ill_conditioned(self, params: Params) -> Bool[Array, ""]:
        """Return whether a covariance is narrower than its dtype can tell, as the data's was in the prior."""
        found = self.structure.ill_conditioned(self._covariance(params["components"]))
        if self.points or not self.structure.correlated:
            return found
        return found | was_flat(self.inverse_scale)

    def cancelled(self, params: Params, expectation: Expectation) -> Array:
        """Return what the rounding of covariances that are narrow somewhere makes of the densities."""
        number = 2 * expectation.statistics["components"].logdet
        floor = self.covariance_floor if self.points else 0.0
        return self.structure.cancelled(self._covariance(params["components"]), number, floor)

    # -- M-step of points ----------------------------------------------------------------------------

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        """Return parameters after an update: covariances of points share what they must, above the floor."""
        point = params["components"]
        previous = point if before is None else before["components"]
        if not self.points or (before is not None and point is previous):
            return params
        change = lambda covariance: self.structure.clip(covariance, self.floor)
        if self.covariance_type in MAXIMISERS:
            gradient, family = point.gradient, self.structure.family
            number = jnp.where(family.is_idle(gradient), 0, family.rows_behind(gradient))
            change = lambda own: self.alike(own, number, previous.value.covariance, self.floor)
        return params | dict(components=with_covariance(point, change))

    def alike(self, own: Array, number: Array, before: Array, floor: Array) -> Array:
        """Return the best covariances that share what they must.

        Args:
            own: the covariance of each component alone.
            number: of rows that each has.
            before: covariances from which to climb.
            floor: (d,), the smallest variances allowed.
        """
        total = number.sum()
        update = Update(own, number / jnp.where(total > 0, total, 1), before, floor)
        return jnp.where(total > 0, MAXIMISERS[self.covariance_type](update), own)

    def singular(self, params: Params) -> Bool[Array, ""]:
        if not self.points:
            return jnp.asarray(False)
        return self.structure.below(params["components"].value.covariance, self.floor)

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        own, tied = params["components"], self.structure.layout == "tied"
        if not self.points:
            return Record(components=self.structure.permute(own, order))
        location, covariance = own.value
        value = LocationCovariance(location[order], covariance if tied else covariance[order])
        return Record(components=self.of(len(order), True).factors["components"].at(value))

    # -- start ---------------------------------------------------------------------------------------

    def distance(self, data: Float[Array, "n d"], weights: Array | None) -> Distance | None:
        return squared_distance(self._filled(data, data, weights), self.scale)

    def _filled(self, rows: Array, data: Array, weights: Array | None) -> Float[Array, "n d"]:
        """Return rows with the data's means in the place of what is missing."""
        if not self.missing:
            return rows
        return jnp.where(jnp.isnan(rows), observed_covariance(data, weights)[0], rows)

    def start_at(self, seeds: Array, data: Float[Array, "n d"], weights: Array | None = None) -> Record:
        """Return components about their seeds, each as wide as its share of the data."""
        structure, seeds = self.structure, self._filled(seeds, data, weights)
        n = total_weight(data, weights)
        width = jnp.diag(self.scale) * self.n_active ** (-2 / structure.d)
        count = jnp.full(self.n_laws, n / self.n_active, data.dtype)
        if not self.points:  # else a law that is left out needs a width, whatever it is
            count = self.where_active(count, 0.0)
        rows = structure.gradient(structure.spread(count, width))
        family = self.factors["components"]
        t = replace(family.zero_statistics(data.dtype), pivot=seeds)
        prior = jax.grad(self.log_prior)(Record(components=t)).components
        moved = family.from_gradient(t, jax.tree.map(jnp.add, rows, prior))
        return self.constrain(Record(components=moved))

    # -- use -----------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        k, d = self.structure.k, self.structure.d
        return k * d + n_covariance_parameters(self.covariance_type, k, d)

    def log_components(self, params: Params, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """Compute Student-t densities (Bishop 2006, eq. 10.81), of points normal ones."""
        if self.points:
            return super().log_components(params, rows)
        density = log_predictive_observed if self.missing else log_predictive
        return density(self.structure.marginals(params["components"]), rows)

    def log_predictive_of(self, state: Tree, rows: Data) -> Float[Array, " n"]:
        return log_predictive(jax.tree.map(lambda leaf: leaf[None], state), rows)[:, 0]

    def draw_parameters(self, params: Params, key: Array) -> tuple[Array, Array]:
        location, precision = params["components"].sample(key)
        tied = self.structure.layout == "tied"
        return location, jnp.broadcast_to(precision, (len(location), *precision.shape)) if tied else precision

    def draw(self, key: Array, parameters: tuple[Array, Array], given: None) -> Float[Array, "n d"]:
        location, precision = parameters
        noise = jax.random.normal(key, location.shape, location.dtype)
        if self.structure.correlated:
            return location + solve_lower(cholesky(precision), noise[..., None], transposed=True)[..., 0]
        return location + noise / jnp.sqrt(precision.reshape(location.shape[0], -1))

    def draw_rows(self, params: Params, key: Array, c: Int[Array, " n"], given: None = None) -> Array:
        if self.points:
            return self.redraw_rows(self.draw_parameters(params, key), key, c, given)
        keys = jax.random.split(key)
        marginals = self.structure.marginals(params["components"])
        own = jax.tree.map(lambda leaf: leaf[c], marginals).sample(keys[0])
        return self.draw(keys[1], own, given)

    def means(self, params: Params) -> Float[Array, "k d"]:
        """Return the (expected) locations."""
        return params["components"].mean.location

    def covariances(self, params: Params) -> Float[Array, "k d d"]:
        """Return the inverse (expected) precision matrices, (k, d, d) for every covariance type."""
        return self.structure.covariances(self.prepare(params))
