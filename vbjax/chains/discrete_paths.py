"""Compiled functions on the passes over a discrete chain: filter, entropy, paths, steps ahead.

`discrete` checks their arguments, (K,), (K, K) or (T - 1, K, K), (T, K) and a scalar, and says what they are.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from vbjax.chains import discrete_passes
from vbjax.chains.discrete_passes import Posterior, total, without_padding
from vbjax.numerics.compilation import jit


class Filtered(NamedTuple):
    """States of a discrete chain given the observations so far.

    Attributes:
        log_normalizers: log p(x_1, ..., x_t), (T,); padding repeats that of the last step.
        marginals: p(z_t | x_1, ..., x_t), (T, K); 0 at padding.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> found = vb.chains.filter(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.4]])))
    >>> print(*(f"{p:.2f}" for p in jnp.exp(found.log_normalizers)))  # p(x_1) and p(x_1, x_2)
    0.20 0.08
    """

    log_normalizers: Float[Array, " t"]
    marginals: Float[Array, "t k"]


class Path(NamedTuple):
    """Path through the states.

    Attributes:
        log_weight: the log of its weight.
        states: (T,), integers; -1 at padding.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> half = jnp.log(jnp.full((2, 2), 0.5))
    >>> path = vb.chains.viterbi(half[0], half, jnp.log(jnp.array([[0.1, 0.3], [0.4, 0.2]])))
    >>> print(path.states, f"{jnp.exp(path.log_weight):.3f}")  # 0.5 x 0.3 x 0.5 x 0.4
    [1 0] 0.030
    """

    log_weight: Float[Array, ""]
    states: Int[Array, " t"]


@functools.partial(jit, static_argnames="parallel")
def log_normalizer(*weights: Array | None, parallel: bool | None) -> Float[Array, ""]:
    """Return the log-normaliser of one sequence, a scalar (Rabiner 1989, eq. 19-21)."""
    return discrete_passes.log_normalizer(*weights, parallel)


@functools.partial(jit, static_argnames="parallel")
def smoother(*weights: Array | None, parallel: bool | None) -> Posterior:
    """Return log-normaliser, marginals (T, K) and pairs as `transitions` (Bishop 2006, eq. 13.33, 13.43)."""
    return discrete_passes.posterior(*weights, parallel)


@functools.partial(jit, static_argnames="parallel")
def filter(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
    *,
    parallel: bool | None,
) -> Filtered:
    """Return log p(x_1 .. x_t), (T,), and p(z_t | x_1 .. x_t), (T, K) (Bishop 2006, eq. 13.55-13.59)."""
    logs, scales = discrete_passes.forward_filter(initial, transitions, log_likelihood, length, parallel)
    marginals = jnp.exp(logs)
    if length is not None:
        marginals = jnp.where((jnp.arange(len(scales)) < length)[:, None], marginals, 0)
    return Filtered(lax.associative_scan(jnp.add, scales), marginals)


@functools.partial(jit, static_argnames="parallel")
def entropy(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
    *,
    parallel: bool | None,
) -> Float[Array, ""]:
    """Return the entropy of the first state, and of each next given the one before, a scalar in nats.

    It is summed from the pairs of every step, by the chain rule of entropy.
    """
    steps, k = log_likelihood.shape
    transitions = jnp.broadcast_to(transitions, (steps - 1, k, k))
    _, marginals, pairs = discrete_passes.posterior(initial, transitions, log_likelihood, length, parallel)
    from_state = pairs.sum(-1, keepdims=True)
    next_states = -_x_log(pairs, pairs / jnp.where(from_state > 0, from_state, 1)).sum((1, 2))
    return total(jnp.concatenate([-_x_log(marginals[:1], marginals[:1]).sum(1), next_states]))


@jit
def viterbi(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
) -> Path:
    """Return a path of the greatest weight, states (T,), and its log weight.

    The maxima go forwards by Bishop 2006, eq. 13.68, and the path back by eq. 13.71.
    """
    steps = len(log_likelihood)
    at, varying = jnp.arange(steps), transitions.ndim == 3
    here = at < (steps if length is None else length)
    transitions, log_likelihood = without_padding(transitions, log_likelihood, here)

    def forward(best: Array, x: tuple[Array, Array | None, Array]) -> tuple[Array, Array]:
        real, own, seen = x
        through = best[:, None] + (transitions if own is None else own)
        new = through.max(0) + seen
        top = new.max()
        new = new - jnp.where(jnp.isneginf(top), 0, top)
        came = jnp.where(real, through.argmax(0), jnp.arange(len(best)))
        return jnp.where(real, new, best), came

    xs = here[1:], transitions if varying else None, log_likelihood[1:]
    best, came = lax.scan(forward, initial + log_likelihood[0], xs)
    last = best.argmax()
    states = lax.scan(lambda z, back: (back[z], back[z]), last, came, reverse=True)[1]
    states = jnp.append(states, last)
    moves = (at[:-1], states[:-1], states[1:]) if varying else (states[:-1], states[1:])
    weights = log_likelihood[at, states].at[1:].add(jnp.where(here[1:], transitions[moves], 0))
    weights = jnp.where(here, weights.at[0].add(initial[states[0]]), 0)
    return Path(total(weights), jnp.where(here, states, -1))


@functools.partial(jit, static_argnames=("n_steps", "parallel"))
def predict(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
    *,
    n_steps: int,
    parallel: bool | None,
) -> Float[Array, "n_steps k"]:
    """Return p(z_{T+s} | x) for s = 1 .. n_steps, (n_steps, K) (Bishop 2006, eq. 13.44)."""
    logs, _ = discrete_passes.forward_filter(initial, transitions, log_likelihood, length, parallel)
    last = jnp.exp(logs[-1 if length is None else length - 1])

    def step(state: Array, _: None) -> tuple[Array, Array]:
        state = state @ jnp.exp(transitions - transitions.max())
        state = state / state.sum()
        return state, state

    return lax.scan(step, last, None, length=n_steps)[1]


@functools.partial(jit, static_argnames=("n_draws", "parallel"))
def sample_paths(
    initial: Float[Array, " k"],
    transitions: Float[Array, "*steps k k"],
    log_likelihood: Float[Array, "t k"],
    length: Int[Array, ""] | None,
    key: Array,
    *,
    n_draws: int,
    parallel: bool | None,
) -> Int[Array, "n_draws t"]:
    """Draw paths from the filter backwards (Fruehwirth-Schnatter 2006, algorithm 11.5); -1 at padding."""
    steps = len(log_likelihood)
    logs = discrete_passes.forward_filter(initial, transitions, log_likelihood, length, parallel)[0]
    varying = transitions.ndim == 3
    keys = jax.random.split(key, steps)
    end = steps if length is None else length

    def backward(after: Array, x: tuple[Array, Array | None, Array, Array]) -> tuple[Array, Array]:
        at, own, log, own_key = x
        into = (transitions if own is None else own).T[after]  # (n_draws, k)
        into = jnp.where(at < end - 1, into, 0)
        states = jax.random.categorical(own_key, log + into).astype(after.dtype)
        return states, jnp.where(at < end, states, -1)

    own = None
    if varying:
        own = without_padding(transitions, log_likelihood, jnp.arange(steps) < end)[0]
        own = jnp.pad(own, ((0, 1), (0, 0), (0, 0)))
    xs = jnp.arange(steps), own, logs, keys
    return lax.scan(backward, jnp.zeros(n_draws, int), xs, reverse=True)[1].T


def _x_log(x: Array, y: Array) -> Array:
    """Return x log y, and 0 where x is 0."""
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, y, 1)), 0)
