"""Mixtures of factor analysers: a thin name for a mixture of `vb.components.FactorAnalyzer`."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax.families.base import pytree
from vbjax.models.components import FactorAnalyzer
from vbjax.models.labels.weights import Weights
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Hyper


@pytree
class MixtureOfFactorAnalyzers(Mixture):
    """Rows x_n | c_n = k ~ N(mu_k + Lam_k z_n, Psi_k), z_n ~ N(0, I), c_n ~ Categorical(weights); by EM.

    It is a Gaussian mixture whose covariances Lam_k Lam_k' + Psi_k have few parameters: for many columns. The
    equations are in `vb.components.FactorAnalyzer`.

    Data: (n, d), n >= k. The factors are `weights` and `components`, points (`Delta`); `means`, `loadings`,
    `noise_variances` and `covariances` read them.

    Args:
        n_components: k.
        n_factors: q, the same in every component.
        noise_type: "diag", "spherical" (mixtures of probabilistic PCA) or another of
            `vb.components.FactorAnalyzer`, which also has what is below.
        noise_floor: the smallest noise variance, relative to the data's.
        weight_concentration: of a Dirichlet prior of the weights, a number or (k,), at least 1; None for
            none.
        scale: (d,), the data's variances, by default from the data.

    References:
        Ghahramani & Hinton (1996), The EM algorithm for mixtures of factor analyzers; McLachlan & Peel
        (2000), Finite mixture models, chapter 8; McNicholas & Murphy (2008), Parsimonious Gaussian mixture
        models.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> fit = vb.fit(vb.MixtureOfFactorAnalyzers(2, 1), x, key=jax.random.key(0))
    >>> fit.loadings().shape, fit.transform(x).shape, fit.model.n_parameters
    ((2, 2, 1), (272, 1), 13)
    """

    def __init__(
        self,
        n_components: int,
        n_factors: int,
        noise_type: str = "diag",
        noise_floor: Hyper = 1e-6,
        weight_concentration: Hyper = None,
        scale: Hyper = None,
    ) -> None:
        component = FactorAnalyzer(n_factors, noise_type, noise_floor, scale)
        super().__init__(n_components, component, Weights(weight_concentration))

    def means(self, params: Record) -> Float[Array, "k d"]:
        """Return the means."""
        return self.component.means(params)

    def loadings(self, params: Record) -> Float[Array, "k d q"]:
        """Return the loadings Lam_k, turned so that Lam_k' Psi_k^-1 Lam_k is diagonal, the largest first."""
        return self.component.loadings(params)

    def noise_variances(self, params: Record) -> Float[Array, "k d"]:
        """Return the noise variances, the diagonals of Psi_k."""
        return self.component.noise_variances(params)

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """Return the covariance matrices of rows given their component, Lam_k Lam_k' + Psi_k."""
        return self.component.covariances(params)

    def factor_means(self, params: Record, x: Data) -> Float[Array, "n k q"]:
        """Return E[z | x, k], the expected factors of every row given every component."""
        return _factor_means(self, params, self.read(x))

    def transform(self, params: Record, x: Data) -> Float[Array, "n q"]:
        """Return E[z | x] of every row: the expected factors by component, averaged by responsibility.

        Every component has loadings of its own: factors of rows in different components are not comparable.
        """
        return jnp.einsum("nk,nkq->nq", self.responsibilities(params, x), self.factor_means(params, x))


@jit
def _factor_means(model: MixtureOfFactorAnalyzers, params: Record, x: Data) -> Array:
    return model.component.factor_means(params, x)
