"""A correlated normal approximated by independent ones: what mean field keeps, and what it loses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import MISSING

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from vbjax.core.hyperparameters import DEFINITE, REAL, hyper, read_hyperparameters
from vbjax.core.model import ConjugateModel, in_dtype
from vbjax.families.base import pytree
from vbjax.families.multivariate_normal import MultivariateNormalState
from vbjax.families.normal import Normal, NormalState
from vbjax.numerics.linalg import cholesky, logdet_from_cholesky
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Data, Given, Hyper, Tree


@pytree
class MeanFieldGaussian(ConjugateModel):
    """Normal p(z) = N(mean, precision^-1) approximated by q(z) = prod_i N(z_i | m_i, 1 / lambda_i).

    The coordinate updates, one after the other (each uses those before it):

        lambda_i = Lam_ii,   m_i = mean_i - sum_{j != i} Lam_ij (m_j - mean_j) / Lam_ii.

    So q finds the mean, and the *conditional* variances 1 / Lam_ii, which are smaller than the marginal ones
    (Lam^-1)_ii where there is correlation. The objective is -KL(q || p). It takes no data: `vb.fit(model,
    key=key)`; the factor is `z`, with plate (M,).

    Args:
        mean: (M,).
        precision: Lam, (M, M), positive definite.

    Raises:
        ValueError: shapes that do not fit, a precision that is not positive definite, data.

    References:
        Bishop (2006), section 10.1.2, eq. 10.12 to 10.17.

    >>> import jax, vbjax as vb
    >>> model = vb.textbook.MeanFieldGaussian(jax.numpy.zeros(2), jax.numpy.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> fit = vb.fit(model, key=jax.random.key(0))
    >>> print(f"{fit.params.z.variance[0]:.3f} {model.moment_matched().variance[0]:.3f}")
    0.500 0.667
    """

    mean: Hyper = hyper(MISSING, REAL, "m", number=False)
    precision: Hyper = hyper(MISSING, DEFINITE, "m m")

    @property
    def factors(self) -> Record:
        return Record(z=Normal(jnp.shape(self.mean)))

    def read(self, data: Data) -> None:
        if data is not None:
            raise ValueError("data must be None: the model approximates a given normal")

    def resolve(self, data: Data, weights: Given = None) -> MeanFieldGaussian:
        return in_dtype(self, jnp.result_type(jnp.asarray(self.mean).dtype, float))

    def log_prior(self, s: Record) -> Array:
        """Compute E_q[log p(z)] of independent z_i, which is affine in the statistics of each."""
        own = jnp.diagonal(self.precision)
        shift = s.z.mean - self.mean
        between = shift @ (self.precision - jnp.diag(own)) @ shift
        square = own @ s.z.square_about(self.mean) + between
        return 0.5 * (logdet_from_cholesky(cholesky(self.precision)) - shift.size * LOG_2PI - square)

    def m_step(self, params: Record, statistics: Tree, block: Iterable[str]) -> Record:
        """Update one coordinate after the other (Bishop 2006, eq. 10.13 and 10.15)."""

        def update(i: Array, z: NormalState) -> NormalState:
            t = z.expected()
            gradient = self.total_gradient(Record(z=t), statistics, block)
            best = self.factors.z.from_gradient(t, gradient.z)
            return NormalState(z.mean.at[i].set(best.mean[i]), z.precision.at[i].set(best.precision[i]))

        return params | dict(z=lax.fori_loop(0, params.z.mean.size, update, params.z))

    # -- beside it -----------------------------------------------------------------------------------

    @property
    def exact(self) -> MultivariateNormalState:
        """Normal distribution p itself."""
        read = read_hyperparameters(self, None)
        read = in_dtype(read, jnp.result_type(jnp.asarray(read.mean).dtype, float))
        return MultivariateNormalState(read.mean, read.precision)

    def moment_matched(self) -> NormalState:
        """Return the minimiser of the other divergence, KL(p || q): p's marginals (eq. 10.17)."""
        return NormalState(self.exact.mean, 1 / self.exact.variance)

    def kl_from(self, z: Given) -> Float[Array, ""]:
        """Return KL(q || p) of independent normals z: what mean field minimises."""
        return self._joint(z).kl(self.exact)

    def kl_to(self, z: Given) -> Float[Array, ""]:
        """Return KL(p || q) to independent normals z: what moment matching minimises."""
        return self.exact.kl(self._joint(z))

    @property
    def n_parameters(self) -> dict[str, int]:
        """Numbers that each approximation needs: 2 M factorised, M + M (M + 1) / 2 for p itself."""
        size = len(self.exact.mean)
        return dict(factorised=2 * size, full=size + size * (size + 1) // 2)

    def _joint(self, z: Given) -> MultivariateNormalState:
        """Return independent normals as one; raise a ValueError where z is none of these."""
        if not isinstance(z, NormalState) or jnp.shape(z.mean) != jnp.shape(self.mean):
            raise ValueError(f"z must be normals of shape {jnp.shape(self.mean)}, fit.params.z; got {z!r}")
        return MultivariateNormalState(z.mean, jnp.diag(z.precision))
