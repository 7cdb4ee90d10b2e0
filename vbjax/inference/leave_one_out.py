"""Leave-one-out cross-validation from one fit, by Pareto-smoothed importance sampling (PSIS-LOO).

Without a row the posterior is that with it, each draw weighted by one over the row's likelihood. For users
and for criteria of selection.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.core.model import ConjugateModel, require_model
from vbjax.data.frames import read_frame
from vbjax.families.base import pytree
from vbjax.families.delta import Delta
from vbjax.inference.pointwise import log_likelihoods
from vbjax.inference.repeated_fits import mean_and_error
from vbjax.inference.replicate import sample_posterior
from vbjax.inference.result import Fit
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating, describe, is_concrete, is_single, read_count, read_key
from vbjax.numerics.pareto import smooth
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data

_AT_ONCE = 64  # rows

_SOUND = 0.9  # share of the draws whose density is known, at which the others are left out


@pytree
class LeaveOneOut:
    """Leave-one-out log predictive densities, in nats.

    Attributes:
        log_density: of every row given all others, (n,).
        k: of every row the shape k-hat of the tail of its importance weights, (n,): above `reliable` the row
            moves the posterior by so much that its density is not to be trusted.
        reliable: the largest k-hat that the number of draws allows, at most 0.7.

    >>> import jax, vbjax as vb
    >>> y = vb.datasets.old_faithful()[:, 0]
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), y, key=jax.random.key(0))
    >>> held_out = vb.leave_one_out(fit, y, key=jax.random.key(1))
    >>> int((held_out.k > held_out.reliable).sum())  # rows whose density is not to be trusted
    0
    """

    log_density: Float[Array, " n"]
    k: Float[Array, " n"]
    reliable: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """Mean over the rows; the total is the number of rows times that."""
        return mean_and_error(self.log_density)[0]

    @property
    def standard_error(self) -> Float[Array, ""]:
        """Standard error of the mean, from the spread of the rows."""
        return mean_and_error(self.log_density)[1]

    def __repr__(self) -> str:
        if not is_single(self.log_density, axes=1):
            return f"LeaveOneOut(log_density={self.log_density})"
        doubtful = int((~(self.k <= self.reliable)).sum())
        return (
            f"LeaveOneOut({self.k.size} rows: mean log density {float(self.mean):.5g}, standard error "
            f"{float(self.standard_error):.2g}; k-hat above {float(self.reliable):.2g} in {doubtful} rows)"
        )


def leave_one_out(fit: Fit, data: Data, *, key: Array, n_draws: int = 1000) -> LeaveOneOut:
    """Estimate the log density of every row given all others, without a refit (PSIS-LOO).

    The draws of q are weighted by the ratio of the posterior to q, so that the estimate is of the posterior,
    not of its approximation (Magnusson et al. 2019).

    Args:
        fit: of a conjugate model by variational Bayes.
        data: the data of the fit. Rows are what the model calls so: of a hidden Markov model whole sequences.
        key: `jax.random.key(...)`.
        n_draws: number of draws.

    Returns:
        A `LeaveOneOut`. Rows that move the posterior much have a large `k`: `vb.cross_validate` refits.

    Raises:
        ValueError: a point estimate (EM), which has no posterior; a model of whose rows only a bound is
            known, or with a factor that is not conjugate; arguments of another kind.

    References:
        Vehtari, Gelman & Gabry (2017), Practical Bayesian model evaluation using leave-one-out
        cross-validation and WAIC, section 2.1; Magnusson, Andersen, Jonasson & Vehtari (2019), Bayesian
        leave-one-out cross-validation for large data, eq. 6.

    >>> import jax, vbjax as vb
    >>> y = vb.datasets.old_faithful()[:, 0]
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), y, key=jax.random.key(0))
    >>> print(f"{vb.leave_one_out(fit, y, key=jax.random.key(1)).mean:.2f}")
    -1.56
    """
    if not isinstance(fit, Fit):
        raise ValueError(f"fit must be a vb.Fit; got {describe(fit)}")
    require_model(fit.model, data, "leave-one-out")
    fit.model.require_conjugate("the posterior density of draws")
    key, n_draws = read_key(key), read_count(n_draws, "n_draws", least=100)
    data, _ = read_frame(data, fit.columns)
    if data is None:
        raise ValueError("data must be rows, each of which is left out; got None")
    draws = sample_posterior(fit.params, key, n_draws)
    table = log_likelihoods(fit.model, fit.params, draws, data)
    ratios = table.sum(1) + _prior_to_q(fit.model, Record(fit.params), draws)
    if is_concrete(ratios):  # a component without rows may have a precision that is singular to its dtype
        sound = np.isfinite(np.asarray(ratios))
        if sound.mean() >= _SOUND and not sound.all():
            table, ratios = table[sound], ratios[sound]
    return psis_loo(table, ratios)


@jit
def _prior_to_q(model: ConjugateModel, params: Record, draws: Record) -> Float[Array, " s"]:
    """Compute log p(parameters) - log q(parameters) of every draw."""

    def ratio(values: Record) -> Float[Array, ""]:
        s = Record({name: params[name].statistics(value) for name, value in values.items()})
        return model.scalar_prior(s) - sum(params[name].log_prob(values[name]).sum() for name in spread)

    spread = [name for name, family in model.factors.items() if not isinstance(family, Delta)]
    return lax.map(ratio, draws)


def psis_loo(log_likelihoods: ArrayLike, log_ratios: ArrayLike | None = None) -> LeaveOneOut:
    """Estimate the log density of every row given all others from its log likelihoods at draws (PSIS-LOO).

    Args:
        log_likelihoods: (s, n), draws by rows, as `vb.log_likelihoods` returns them; for the draws of
            `vb.gibbs` with chains one after the other.
        log_ratios: (s,), log posterior density less that by which the draws were made, but for a constant; by
            default the draws are the posterior's.

    Raises:
        ValueError: no table of at least 100 draws; a NaN or an infinity; draws that are all the same.

    References:
        Vehtari, Gelman & Gabry (2017), section 2.1.

    >>> import jax, jax.numpy as jnp, vbjax as vb
    >>> y = vb.datasets.old_faithful()[:, 0]
    >>> mu = y.mean() + 0.1 * jax.random.normal(jax.random.key(0), (1000, 1))
    >>> vb.psis_loo(-0.5 * (y - mu) ** 2).log_density.shape
    (272,)
    """
    table = as_floating(log_likelihoods, "log_likelihoods")
    if table.ndim != 2 or len(table) < 100 or table.shape[1] == 0:
        raise ValueError(f"log_likelihoods must be of at least 100 draws, (s, n); got shape {table.shape}")
    s = len(table)
    ratios = jnp.zeros(s, table.dtype) if log_ratios is None else as_floating(log_ratios, "log_ratios")
    if ratios.shape != (s,):
        raise ValueError(f"log_ratios must have one number for each of the {s} draws; got {ratios.shape}")
    if is_concrete((table, ratios)):
        values = np.asarray(table)
        for x, name in (values, "log_likelihoods"), (np.asarray(ratios), "log_ratios"):
            if not np.isfinite(x).all():
                raise ValueError(f"{name} must be finite; there is a NaN or an infinity")
        if (values == values[0]).all():
            raise ValueError(
                "log_likelihoods must differ between draws: a point estimate (EM) has no posterior; "
                "vb.cross_validate refits"
            )
    return _psis_loo(table, ratios.astype(table.dtype))


@jit
def _psis_loo(table: Float[Array, "s n"], log_ratios: Float[Array, " s"]) -> LeaveOneOut:
    def row(log_likelihood: Float[Array, " s"]) -> tuple[Array, Array]:
        log_w, k = smooth(log_ratios - log_likelihood)
        return logsumexp(log_w + log_likelihood), k

    log_density, k = lax.map(row, table.T, batch_size=_AT_ONCE)
    reliable = jnp.minimum(1 - 1 / jnp.log10(jnp.asarray(len(table), table.dtype)), 0.7)
    return LeaveOneOut(log_density, k, reliable)
