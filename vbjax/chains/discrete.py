"""Inference in discrete Markov chains with observed evidence: hidden Markov models, given their densities.

The functions are pure, of arrays, for one sequence of T steps over K states; `jax.vmap` takes several. Their
common arguments are:

- `initial`: log weights of the first state, (K,).
- `transitions`: log weights [from, to], (K, K), or one such matrix for every transition, (T - 1, K, K).
- `log_likelihood`: log p(x_t | z_t), (T, K); densities may be of any size, and impossible (-inf).
- `length`: the number of steps that the sequence really has, a scalar that may be traced; the other steps are
  padding and are ignored. All T steps by default.
- `parallel`: whether messages are passed by `jax.lax.associative_scan`, parallel in time at K times the work
  and memory, or step by step. None, the default, means step by step on a CPU, where that was 8 to 14 times as
  fast (4 to 16 states, 1,000 to 10,000 steps, two cores), and in parallel elsewhere (not measured).

A path's weight is exp(initial[z_0] + sum_t transitions[z_t, z_{t+1}] + sum_t log_likelihood[t, z_t]). Weights
need not be normalised, and those of variational Bayes are not (Beal 2003, section 3.4). -inf is zero weight.
Results have the dtype of `log_likelihood`. Where no path is possible, the log-normaliser is -inf, and
marginals and pairs are 0.

Messages are scaled numbers with bounds on what underflow lost (`discrete_passes`). Where weights that matter
differ by more than the dtype's range at one step, the passes run again in logarithms, at several times the
cost.
"""

from __future__ import annotations

import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vbjax.chains import discrete_paths
from vbjax.chains.discrete_passes import Posterior
from vbjax.chains.discrete_paths import Filtered, Path
from vbjax.numerics.inputs import (
    as_array,
    as_floating,
    is_concrete,
    read_count,
    read_key,
    read_length,
    read_parallel,
)

__all__ = [
    "Filtered",
    "Path",
    "Posterior",
    "entropy",
    "filter",
    "log_normalizer",
    "predict",
    "sample_paths",
    "smoother",
    "viterbi",
]


def log_normalizer(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Float[Array, ""]:
    """Return the log likelihood of a sequence: log of the sum of the weights of all K^T paths.

    It is the forward pass. Its gradient is the expected statistics: the first state's marginals, the pairs,
    and the marginals of every state. Derivatives of any order may be taken, forwards and backwards.

    Args:
        initial, transitions, log_likelihood, length, parallel: see the module.

    Returns:
        A scalar; 0 for an empty sequence.

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    References:
        Rabiner (1989), eq. 19-21, with the scales of eq. 91-103; Beal (2003), section 3.4.

    >>> import jax.numpy as jnp
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> print(f"{log_normalizer(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.8]]))):.4f}")
    -2.1203
    """
    return discrete_paths.log_normalizer(
        *_read(initial, transitions, log_likelihood, length), parallel=read_parallel(parallel)
    )


def smoother(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Posterior:
    """Compute a whole E-step: the log-normaliser, the marginals of all states, and those of pairs.

    gamma_t(i) = p(z_t = i | x), xi(i, j) = sum_t p(z_t = i, z_{t+1} = j | x): the forward-backward algorithm.
    For the pairs of every step, give the transitions of every step, (T - 1, K, K).

    Args:
        initial, transitions, log_likelihood, length, parallel: see the module.

    Returns:
        `log_normalizer`, a scalar; `marginals`, (T, K), 0 at padding; `pairs`, in the shape of `transitions`.

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    References:
        Rabiner (1989), eq. 27 and 37; Bishop (2006), eq. 13.33 and 13.43, scaled as in 13.55-13.65.

    >>> import jax.numpy as jnp
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> posterior = smoother(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.4]])))
    >>> print(posterior.marginals[0].round(2), posterior.pairs.round(3).tolist()[0][0])
    [0.25 0.75] 0.125
    """
    return discrete_paths.smoother(
        *_read(initial, transitions, log_likelihood, length), parallel=read_parallel(parallel)
    )


def filter(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Filtered:
    """Compute the distribution of every state given the observations so far, by the forward algorithm.

    Args:
        initial, transitions, log_likelihood, length, parallel: see the module.

    Returns:
        `log_normalizers` of the sequence up to every step, (T,), and `marginals`, (T, K).

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    References:
        Bishop (2006), eq. 13.55-13.59.

    >>> import jax.numpy as jnp
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> print(filter(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.4]]))).marginals[0].round(2))
    [0.25 0.75]
    """
    return discrete_paths.filter(
        *_read(initial, transitions, log_likelihood, length), parallel=read_parallel(parallel)
    )


def entropy(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Float[Array, ""]:
    """Return the entropy of the posterior chain, in nats.

    It is the entropy of the first state plus that of each next state given the one before, from the pairs of
    every step, (T - 1, K, K). The log-normaliser less the expected log weights would be NaN at weights of
    zero, and keeps few digits in float32.

    Args:
        initial, transitions, log_likelihood, length, parallel: see the module.

    Returns:
        A scalar, at least 0; 0 where no path is possible.

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    >>> import jax.numpy as jnp
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> print(f"{entropy(half[0], half, jnp.zeros((3, 2))):.4f}")  # 3 log 2
    2.0794
    """
    return discrete_paths.entropy(
        *_read(initial, transitions, log_likelihood, length), parallel=read_parallel(parallel)
    )


def viterbi(
    initial: ArrayLike, transitions: ArrayLike, log_likelihood: ArrayLike, length: ArrayLike | None = None
) -> Path:
    """Find the path of the greatest weight, by the Viterbi algorithm.

    Args:
        initial, transitions, log_likelihood, length: see the module.

    Returns:
        `log_weight`, a scalar, -inf if no path is possible; `states`, (T,), one best path if several tie.

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    References:
        Viterbi (1967); Bishop (2006), eq. 13.68-13.71.

    >>> import jax.numpy as jnp
    >>> sticky = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))
    >>> seen = jnp.log(jnp.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]]))
    >>> print(viterbi(jnp.log(jnp.array([0.5, 0.5])), sticky, seen).states)
    [0 0 0]
    """
    return discrete_paths.viterbi(*_read(initial, transitions, log_likelihood, length))


def predict(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    n_steps: int,
    parallel: bool | None = None,
) -> Float[Array, "n_steps k"]:
    """Predict states after the last observation: p(z_{T+s} | x) for s = 1 .. n_steps.

    Args:
        initial, log_likelihood, length, parallel: see the module.
        transitions: log weights (K, K); steps ahead are weighted by them, without evidence.
        n_steps: the number of steps ahead, static.

    Returns:
        (n_steps, K), rows that sum to 1.

    Raises:
        ValueError: for wrong shapes, NaN or +inf, or transitions that are given for every step.

    References:
        Bishop (2006), eq. 13.44, without the emissions.

    >>> import jax.numpy as jnp
    >>> swap = jnp.log(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> print(predict(jnp.log(jnp.array([0.25, 0.75])), swap, jnp.zeros((1, 2)), n_steps=2)[0].round(2))
    [0.75 0.25]
    """
    arguments = _read(initial, transitions, log_likelihood, length)
    if arguments[1].ndim == 3:
        raise ValueError(f"transitions must have shape (K, K) for steps ahead; got {arguments[1].shape}")
    return discrete_paths.predict(
        *arguments, n_steps=read_count(n_steps, "n_steps"), parallel=read_parallel(parallel)
    )


def sample_paths(
    initial: ArrayLike,
    transitions: ArrayLike,
    log_likelihood: ArrayLike,
    length: ArrayLike | None = None,
    *,
    key: Array,
    n_draws: int = 1,
    parallel: bool | None = None,
) -> Int[Array, "n_draws t"]:
    """Draw independent paths from their posterior: the last state from the filter, then backwards.

    Args:
        initial, transitions, log_likelihood, length, parallel: see the module.
        key: `jax.random.key(...)`.
        n_draws: the number of paths, static.

    Returns:
        States, (n_draws, T), integers; -1 at padding.

    Raises:
        ValueError: for wrong shapes, NaN or +inf.

    References:
        Fruehwirth-Schnatter (2006), algorithm 11.5.

    >>> import jax, jax.numpy as jnp
    >>> zero = jnp.log(jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> print(sample_paths(jnp.log(jnp.array([1.0, 0.0])), zero, jnp.zeros((3, 2)), key=jax.random.key(0)))
    [[0 1 0]]
    """
    arguments = _read(initial, transitions, log_likelihood, length)
    n_draws = read_count(n_draws, "n_draws")
    return discrete_paths.sample_paths(
        *arguments, read_key(key), n_draws=n_draws, parallel=read_parallel(parallel)
    )


# -- reading arguments ---------------------------------------------------------------------------------------


def _read(
    initial: ArrayLike, transitions: ArrayLike, log_likelihood: ArrayLike, length: ArrayLike | None
) -> tuple[Array, Array, Array, Array | None]:
    """Return log weights of one dtype and of shapes that agree."""
    log_likelihood = as_floating(log_likelihood, "log_likelihood")
    initial = as_array(initial, "initial").astype(log_likelihood.dtype)
    transitions = as_array(transitions, "transitions").astype(log_likelihood.dtype)
    if log_likelihood.ndim != 2 or 0 in log_likelihood.shape:
        raise ValueError(
            f"log_likelihood must have shape (T, K) of at least (1, 1); got {log_likelihood.shape}"
        )
    steps, k = log_likelihood.shape
    if initial.shape != (k,):
        raise ValueError(
            f"initial must have shape ({k},), as log_likelihood has {k} states; got {initial.shape}"
        )
    if transitions.shape not in ((k, k), (steps - 1, k, k)):
        expected = f"({k}, {k}) or ({steps - 1}, {k}, {k})"
        raise ValueError(f"transitions must have shape {expected}; got {transitions.shape}")
    length = read_length(length, steps)
    if is_concrete((initial, transitions, log_likelihood, length)):
        here = slice(None if length is None else int(length))
        before = slice(None if length is None else max(int(length) - 1, 0))
        used = initial, transitions[before] if transitions.ndim == 3 else transitions, log_likelihood[here]
        for name, x in zip(("initial", "transitions", "log_likelihood"), used, strict=True):
            if not (np.asarray(x) < np.inf).all():
                raise ValueError(f"{name} must have no NaN and no +inf")
    return initial, transitions, log_likelihood, length
