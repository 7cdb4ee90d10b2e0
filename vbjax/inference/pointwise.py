"""Log likelihoods of single rows at draws of the parameters: for leave-one-out, criticism, ArviZ.

For users and adapters; imports core.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jax import Array, lax
from jaxtyping import Float

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.families.base import State
from vbjax.inference.resolution import resolved
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree


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
        ValueError: arguments of another kind; a model of whose rows only a bound is known, because local
            latents interact (topics).

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
    if model.interacting_locals:
        raise ValueError(
            f"model must be one of whose rows the likelihood is known; of a {type(model).__name__}, whose "
            "local latents interact, only a bound is"
        )
    return _log_likelihoods(model, params, Record(draws), data)


@jax.jit
def _log_likelihoods(model: ConjugateModel, params: Record, draws: Record, data: Data) -> Array:
    return lax.map(lambda values: model.log_likelihoods(params, values, data), draws)
