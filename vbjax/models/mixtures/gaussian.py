"""Gaussian mixtures by EM and by variational Bayes: thin names for a mixture of `vb.components.Gaussian`."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import DEFINITE, NON_NEGATIVE, POSITIVE, Range
from vbjax.families.base import pytree, replace
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet
from vbjax.families.joint import LocationCovariance
from vbjax.models.components import Gaussian
from vbjax.models.components.covariance import MAXIMISERS
from vbjax.models.labels.weights import Weights, weights_of
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating, describe, is_concrete, read_table
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper


@pytree
class GaussianMixture(Mixture):
    """Rows x_n | c_n ~ N(mu_{c_n}, Sigma_{c_n}), c_n ~ Categorical(weights); maximum likelihood or MAP by EM.

    E-step: r_nk proportional to pi_k N(x_n | mu_k, Sigma_k). M-step, N_k = sum_n r_nk (Bishop 2006, eq. 9.23
    to 9.26):

        pi_k = N_k / N,   mu_k = sum_n r_nk x_n / N_k,   Sigma_k = sum_n r_nk (x_n - mu_k)(x_n - mu_k)' / N_k,

    with Sigma_k >= covariance_floor x the data's variances, without which the likelihood is unbounded.

    Data: (n, d), n >= k. The factors are `weights` and `components`, points (`Delta`); `means` and
    `covariances` of this class read them.

    Args:
        n_components: k.
        covariance_type: "full", "tied", "diag" or "spherical"; or another of the fourteen models of
            `vb.components.Gaussian`, such as "VEV".
        covariance_floor: smallest variance allowed, relative to the data's, in any direction.
        weight_concentration: of a Dirichlet prior of the weights, a number or (k,), at least 1; None for none
            (ML).
        location, mean_precision, degrees_of_freedom, inverse_scale: of the components' prior, for MAP; None
            for none (ML). See `vb.components.Gaussian`, also for what is below.
        scale: (d,), the data's variances, by default from the data.
        missing: whether a NaN is an entry that is missing at random.

    References:
        Dempster, Laird & Rubin (1977); Bishop (2006), section 9.2.2, eq. 9.23 to 9.28.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.GaussianMixture(2), x, key=jax.random.key(0))
    >>> print(f"{fit.objective:.2f}")
    -1130.26
    """

    def __init__(
        self,
        n_components: int,
        covariance_type: str = "full",
        covariance_floor: Hyper = 1e-6,
        weight_concentration: Hyper = None,
        location: Hyper = None,
        mean_precision: Hyper = None,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        scale: Hyper = None,
        *,
        missing: bool = False,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = Gaussian(covariance_type, *prior, covariance_floor, scale, missing=missing)
        super().__init__(n_components, component, Weights(weight_concentration))

    def means(self, params: Record) -> Float[Array, "k d"]:
        """Return the locations."""
        return self.component.means(params)

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """Return the covariance matrices, (k, d, d) for every covariance type."""
        return _covariances(self, params)

    def params_at(self, weights: Any, means: Any, covariances: Any) -> Record:
        """Return the parameters at given values, to start a fit warm or to score somebody else's.

        Args:
            weights: (k,), positive, adding up to one.
            means: (k, d).
            covariances: (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical; of the other types, as the
                narrowest of these that holds them has it, and made alike as the type says.

        Raises:
            ValueError: what is no number, of another shape, or out of range.
        """
        means = read_table(means, "means")
        dtype, (k, d) = means.dtype, means.shape
        structure = replace(self.component, scale=jnp.ones(d, dtype)).structure
        shape = dict(full=(k, d, d), tied=(d, d), diag=(k, d), spherical=(k,))[structure.layout]
        weights = _read_shaped(weights, "weights", (k,), NON_NEGATIVE).astype(dtype)
        allowed = DEFINITE if structure.correlated else POSITIVE
        covariances = _read_shaped(covariances, "covariances", shape, allowed).astype(dtype)
        if self.component.covariance_type in MAXIMISERS:
            covariances = _alike(self, weights, covariances)
        if not structure.correlated:
            covariances = jnp.broadcast_to(covariances, structure.family.plate)
        return Record(
            weights=Delta(Dirichlet(k)).at(weights),
            components=Delta(structure.family).at(LocationCovariance(means, covariances)),
        )


@pytree
class BayesianGaussianMixture(Mixture):
    """A Gaussian mixture whose weights, locations and precisions have conjugate priors, by variational Bayes.

        weights ~ Dirichlet(alpha0),   mu_k | Lam_k ~ N(m0, (beta0 Lam_k)^-1),   Lam_k ~ Wishart(nu0, W0)

    and q(labels) q(weights) prod_k q(mu_k, Lam_k) (Bishop 2006, section 10.2); the updates are in
    `vb.components.Gaussian` and `vb.labels.Weights`. The objective is the exact evidence lower bound, so it
    may be compared over k and over priors. Superfluous components empty themselves when
    `weight_concentration` is small.

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
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k (`vb.labels.StickBreaking`).
        missing: whether a NaN is an entry that is missing at random; see `vb.components.Gaussian`.

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

    points: ClassVar[bool] = False

    def __init__(
        self,
        n_components: int,
        covariance_type: str = "full",
        weight_concentration: Hyper = None,
        location: Hyper = None,
        mean_precision: Hyper = 1.0,
        degrees_of_freedom: Hyper = None,
        inverse_scale: Hyper = None,
        scale: Hyper = None,
        *,
        weight_prior: str = "dirichlet",
        missing: bool = False,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = Gaussian(covariance_type, *prior, scale=scale, missing=missing)
        super().__init__(n_components, component, weights_of(weight_prior, weight_concentration))

    def means(self, params: Record) -> Float[Array, "k d"]:
        """Return the expected locations."""
        return self.component.means(params)

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """Return the inverse expected precision matrices, (k, d, d) for every covariance type."""
        return _covariances(self, params)


@jit
def _alike(model: Mixture, weights: Array, covariances: Array) -> Array:
    """Return given covariances as the covariance type has them."""
    k, number = len(weights), weights
    variances = covariances.reshape(k, -1)
    if covariances.ndim == 3:
        variances = jnp.diagonal(covariances, axis1=1, axis2=2)
    elif covariances.ndim == 2:
        number = jnp.broadcast_to(weights[:, None], covariances.shape)
    floor = jnp.finfo(weights.dtype).eps * (weights @ variances)
    return model.component.alike(covariances, number, covariances, floor)


@jit
def _covariances(model: Mixture, params: Record) -> Array:
    return model.component.covariances(params)


def _read_shaped(x: Data, name: str, shape: tuple[int, ...], allowed: Range) -> Array:
    x = as_floating(x, name)
    if x.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, as means have it; got {x.shape}")
    if is_concrete(x):
        cells = np.asarray(x).reshape(-1, *shape[-2:]) if allowed.matrix else np.asarray(x)[None]
        if not all(np.isfinite(cell).all() and np.all(allowed.holds(cell)) for cell in cells):
            raise ValueError(f"{name} must be finite and {allowed.words}; got {describe(x)}")
    return x
