"""Unbiased gradients of the bound from few fresh draws, each as the gradient of a surrogate.

For `StochasticAscent` and `gradient_estimates`; imports families.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp

from vbjax.blackbox.families import entropy, equally_weighted
from vbjax.numerics.inputs import read_count

ESTIMATORS = ("pathwise", "sticking_the_landing", "score", "importance_weighted")
DRAWS = ("independent", "antithetic", "quasi")


def noise(kind: str, key: Array, n: int, size: int, dtype: Any) -> Array:
    """n standard normals (n, size), each of them exactly so, together as `kind` says.

    "antithetic": the second half mirrors the first. "quasi": a Kronecker lattice in the roots of primes,
    shifted at random (Richtmyer 1951; Cranley & Patterson 1976), which fills space evenly.
    """
    if kind == "independent":
        return jax.random.normal(key, (n, size), dtype)
    if kind == "antithetic":
        half = jax.random.normal(key, (n // 2, size), dtype)
        return jnp.concatenate([half, -half])
    steps = np.outer(np.arange(n), np.sqrt(_primes(size))) % 1
    uniforms = (jnp.asarray(steps, dtype) + jax.random.uniform(key, (size,), dtype)) % 1
    least = jnp.finfo(dtype).eps
    return 2**0.5 * lax.erf_inv(jnp.clip(2 * uniforms - 1, least - 1, 1 - least))


def _primes(n: int) -> np.ndarray:
    """The first n primes."""
    top = max(15, int(n * (np.log(n + 1) + np.log(np.log(n + 2) + 1) + 1)))
    prime = np.ones(top, bool)
    prime[:2] = False
    for i in range(2, int(top**0.5) + 1):
        prime[i * i :: i] &= not prime[i]
    return np.flatnonzero(prime)[:n]


def fresh_points(estimator: str, q: Any, key: Array, n: int, draws: str) -> tuple[Array, Array]:
    """Draws of q and their weights, differentiable where q is so; independent ones for a "score"."""
    if hasattr(q, "place") and estimator != "score":
        return q.place(noise(draws, key, n, q.noise_size, jax.tree.leaves(q)[0].dtype))
    return equally_weighted(q.sample(key, n))


def surrogate(
    estimator: str, log_joint: Callable[[Array], Array], q: Any, points: tuple[Array, Array]
) -> Array:
    """A number whose gradient with respect to q estimates that of the bound.

    "pathwise" differentiates through the draws, with the entropy exact where it is known (Kingma &
    Welling 2014); "sticking_the_landing" leaves out the part of it that is zero on average, and is without
    variance where q is exact (Roeder, Wu & Duvenaud 2017); "score" needs no gradient of log p, each draw's
    value compared with the mean of the others (Ranganath et al. 2014; Kool et al. 2019), and so do discrete
    latents with any; "importance_weighted" is of the tighter bound log mean p/q over all the draws (Burda
    et al. 2016).
    """
    u, w = points
    if estimator == "score":
        u = lax.stop_gradient(u)
        log_q = q.log_prob(u)
        return _by_score(jax.vmap(log_joint)(u) - log_q, log_q)
    log_p = jax.vmap(log_joint)(u)
    if estimator == "importance_weighted":
        return logsumexp(log_p - q.log_prob(u) + jnp.log(w))
    if estimator == "sticking_the_landing":
        value = w @ (log_p - lax.stop_gradient(q).log_prob(u))
    else:
        value = w @ log_p + entropy(q, points)
    if hasattr(q, "discrete_log_prob"):
        value = value + _by_score(log_p - q.log_prob(u), q.discrete_log_prob(lax.stop_gradient(u)))
    return value


def _by_score(log_ratios: Array, log_q: Array) -> Array:
    """Of independent draws: log q, times what each ratio is above the mean of the others."""
    value = lax.stop_gradient(log_ratios)
    others = (value.sum() - value) / (len(value) - 1)
    return ((value - others) * log_q).mean()


def inspect_estimator(q: Any, estimator: str, draws: str, n_draws: int) -> None:
    """Refuse an estimator that is none, or does not go with the family or the draws.

    Raises:
        ValueError: the argument that is wrong, by name.
    """
    for name, given, known in (("estimator", estimator, ESTIMATORS), ("draws", draws, DRAWS)):
        if not isinstance(given, str) or given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {given!r}")
    if read_count(n_draws, "n_draws", least=2) % 2:
        raise ValueError(f"n_draws must be even; got {n_draws}")
    if draws != "independent" and (estimator == "score" or not hasattr(q, "place")):
        raise ValueError(
            f"draws must be 'independent' for a score, for discrete latents and for families without "
            f"`place`; got {draws!r}"
        )
    if estimator == "importance_weighted" and hasattr(q, "discrete_log_prob"):
        raise ValueError("estimator 'importance_weighted' is not for discrete latents")
