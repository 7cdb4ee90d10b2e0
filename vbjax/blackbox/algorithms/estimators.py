"""Unbiased gradients of the bound from few fresh draws, each as the gradient of a surrogate.

For `StochasticAscent` and `gradient_estimates`; imports families.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.blackbox.contracts import Distribution, Points, WithDiscrete, WithLocal, is_reparameterized
from vbjax.blackbox.families import entropy, with_equal_weights
from vbjax.numerics.inputs import read_count

ESTIMATORS = ("pathwise", "sticking_the_landing", "score", "importance_weighted")
DRAWS = ("independent", "antithetic", "quasi")


def draw_noise(kind: str, key: Array, n: int, size: int, dtype: DTypeLike) -> Float[Array, "n size"]:
    """Draw n standard normal vectors, each exactly N(0, I), and jointly as `kind` says.

    "independent": without any relation. "antithetic": the second half mirrors the first. "quasi": a Kronecker
    lattice in the roots of primes, shifted at random (Richtmyer 1951; Cranley & Patterson 1976), which fills
    space evenly.
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
    """Return the first n primes."""
    top = max(15, int(n * (np.log(n + 1) + np.log(np.log(n + 2) + 1) + 1)))
    prime = np.ones(top, bool)
    prime[:2] = False
    for i in range(2, int(top**0.5) + 1):
        prime[i * i :: i] &= not prime[i]
    return np.flatnonzero(prime)[:n]


def fresh_points(estimator: str, q: Distribution, key: Array, n: int, draws: str) -> Points:
    """Draw n points of q with weights, differentiable where q is reparameterised; independent for "score"."""
    if estimator != "score" and is_reparameterized(q):
        return q.place(draw_noise(draws, key, n, q.noise_size, jax.tree.leaves(q)[0].dtype))
    return with_equal_weights(q.sample(key, n))


def surrogate(
    estimator: str,
    log_joints: Callable[[Float[Array, "n d"]], Float[Array, " n"]],
    q: Distribution,
    points: Points,
) -> Float[Array, ""]:
    """Compute a number whose gradient with respect to q estimates the gradient of the bound.

    "pathwise" differentiates through the draws, with the entropy exact where it is known (Kingma & Welling
    2014). "sticking_the_landing" leaves out the part of that gradient which is zero on average, and has no
    variance where q is exact (Roeder, Wu & Duvenaud 2017). "score" needs no gradient of log p, and compares
    each draw's value with the mean of the others (Ranganath et al. 2014; Kool et al. 2019); discrete latents
    take it with every estimator. "importance_weighted" takes the tighter bound log mean p/q over all draws
    (Burda et al. 2016).
    """
    u, w = points
    if estimator == "score":
        u = lax.stop_gradient(u)
        log_q = q.log_prob(u)
        return _by_score(log_joints(u) - log_q, log_q)
    log_p = log_joints(u)
    if estimator == "importance_weighted":
        return logsumexp(log_p - q.log_prob(u) + jnp.log(w))
    if estimator == "sticking_the_landing":
        value = w @ (log_p - lax.stop_gradient(q).log_prob(u))
    else:
        value = w @ log_p + entropy(q, points)
    if isinstance(q, WithDiscrete):
        value = value + _by_score(log_p - q.log_prob(u), q.discrete_log_prob(lax.stop_gradient(u)))
    return value


def _by_score(log_ratios: Float[Array, " n"], log_q: Float[Array, " n"]) -> Float[Array, ""]:
    """Average log q over independent draws, each times what its ratio exceeds the others' mean by."""
    value = lax.stop_gradient(log_ratios)
    others = (value.sum() - value) / (len(value) - 1)
    return ((value - others) * log_q).mean()


def inspect_estimator(q: Distribution, estimator: str, draws: str, n_draws: int) -> None:
    """Refuse an unknown estimator, and one that does not go with the family or the draws.

    Raises:
        ValueError: it names the argument that is wrong.
    """
    for name, given, known in (("estimator", estimator, ESTIMATORS), ("draws", draws, DRAWS)):
        if not isinstance(given, str) or given not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}; got {given!r}")
    if read_count(n_draws, "n_draws", least=2) % 2:
        raise ValueError(f"n_draws must be even; got {n_draws}")
    if draws != "independent" and (estimator == "score" or not is_reparameterized(q)):
        raise ValueError(
            f"draws must be 'independent' for a score, for discrete latents and for families without "
            f"`place`; got {draws!r}"
        )
    if isinstance(q, WithLocal) and estimator in ("score", "importance_weighted"):
        raise ValueError(f"estimator {estimator!r} is not for amortised latents")
    if estimator == "importance_weighted" and isinstance(q, WithDiscrete):
        raise ValueError("estimator 'importance_weighted' is not for discrete latents")
