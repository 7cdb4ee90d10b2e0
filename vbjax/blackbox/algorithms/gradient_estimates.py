"""Repeated estimates of the bound's gradient, to see their mean and their variance.

For users; imports the estimators of this room and its model.
"""

from __future__ import annotations

import jax
from jax import Array, lax
from jaxtyping import Float

from vbjax.blackbox.algorithms.estimators import fresh_points, inspect_estimator, surrogate
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.contracts import Free
from vbjax.blackbox.families import from_free, to_free
from vbjax.blackbox.inspection import inspect_params
from vbjax.numerics.inputs import read_count, read_key
from vbjax.numerics.types import Data


def gradient_estimates(
    model: BlackBox,
    params: Approximation,
    data: Data = None,
    *,
    key: Array,
    estimator: str = "sticking_the_landing",
    draws: str = "independent",
    n_draws: int = 16,
    n_estimates: int = 1000,
) -> Free:
    """Return many independent estimates of the bound's gradient, to see their mean and their variance.

    Args:
        model: a `BlackBox`.
        params: parameters at which the gradient is taken.
        data: as `fit` takes them.
        key: `jax.random.key(...)`, for all draws.
        estimator, draws, n_draws: as of `StochasticAscent`.
        n_estimates: number of estimates.

    Returns:
        Gradients in the arrays by which optimisers move q (`families.to_free`), with a leading axis
        n_estimates.

    Raises:
        ValueError: a model, parameters, an estimator, a key or a number that is none, or does not fit.

    >>> import jax, vbjax as vb
    >>> model, key = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real()), jax.random.key(0)
    >>> best = vb.blackbox.pathfinder(model, key=key)  # the posterior itself, N(3, 1 / 4)
    >>> location, _ = vb.blackbox.gradient_estimates(model, best, key=key)
    >>> print(f"{abs(location).max():.3f}")  # every estimate is 0 where q is exact
    0.000
    """
    if not isinstance(model, BlackBox):
        raise ValueError(f"model must be a BlackBox; got {model!r}")
    inspect_params(model.support, params)
    inspect_estimator(params.q, estimator, draws, n_draws)
    key, n_estimates = read_key(key), read_count(n_estimates, "n_estimates")
    data = model.read(data)
    model.inspect(data)

    def estimate(key: Array) -> Free:
        def value(free: Free) -> Float[Array, ""]:
            q = from_free(params.q, free)
            points = fresh_points(estimator, q, key, n_draws, draws)
            return surrogate(estimator, lambda u: model.log_joints(q, u, key, data), q, points)

        return jax.grad(value)(to_free(params.q))

    return lax.map(estimate, jax.random.split(key, n_estimates), batch_size=100)
