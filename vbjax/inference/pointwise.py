"""Log densities of single rows: at draws of the parameters, and of new rows; for criteria, criticism, ArviZ.

For users, adapters and criteria; imports core.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.presentation import uses
from vbjax.core.ragged import parts_of
from vbjax.families.base import State
from vbjax.families.delta import Delta
from vbjax.inference.replicate import sample_posterior
from vbjax.inference.resolution import resolved
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Params, Tree

_DRAWS = 256  # of the parameters, for the predictive density of a model that does not give it


def log_likelihoods(
    model: ConjugateModel, params: Mapping[str, State], draws: Mapping[str, Tree], data: Data
) -> Float[Array, "s n"]:
    """Compute log p(x_n | parameters) of every row at every draw of the parameters, exactly.

    Labels, states, factors and other latents of a row are summed or integrated out. A row is what a model
    calls one: of a hidden Markov model a whole sequence.

    Args:
        model, params: those of a fit.
        draws: values by factor with one leading axis, such as `vb.sample_posterior(params, key, 1000)`.
        data: rows, as the model takes them; they need not be those of the fit.

    Returns:
        In nats, draws by rows.

    Raises:
        ValueError: arguments of another kind; a model that gives its rows no density: of topics, whose local
            latents interact, only a bound is known, and k-means has none.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> draws = vb.sample_posterior(fit.params, jax.random.key(1), 100)
    >>> vb.log_likelihoods(fit.model, fit.params, draws, x).shape
    (100, 3)
    """
    require_model(model, params, "log likelihoods of rows")
    params = require_params(model, params)
    if not isinstance(draws, Mapping) or set(draws) != set(params):
        got = f"one of {', '.join(map(repr, draws))}" if isinstance(draws, Mapping) else type(draws).__name__
        raise ValueError(f"draws must be a record of values of {', '.join(map(repr, params))}; got {got}")
    model, data, _ = resolved(model, data, None)
    require_densities(model, data)
    return _log_likelihoods(model, params, Record(draws), data)


@jit
def _log_likelihoods(model: ConjugateModel, params: Record, draws: Record, data: Data) -> Array:
    return lax.map(lambda values: model.log_likelihoods(params, values, data), draws)


def require_densities(model: ConjugateModel, data: Data) -> None:
    """Raise a ValueError unless the likelihood of a row is known; model and data have been read."""
    name = type(model).__name__
    if model.interacting_locals:
        why = f"of a {name}, whose local latents interact, only a bound is"
    elif any(isinstance(family, Delta) for family in model.local(parts_of(data)[0]).values()):
        why = f"a {name} chooses the best value of each row's latent, and sums none out"
    else:
        return
    raise ValueError(f"model must be one of whose rows the likelihood is known; {why}")


def log_predictive(model: ConjugateModel, params: Params, data: Data, key: Array) -> Float[Array, " n"]:
    """Compute the log density of new rows, (n,): the model's own, or the mean over draws from q."""
    if "log_predictive" in uses(model):
        return model.log_predictive(params, data)  # type: ignore[attr-defined]
    draws = sample_posterior(params, key, _DRAWS)
    return logsumexp(log_likelihoods(model, params, draws, data), 0) - jnp.log(_DRAWS)
