"""What is asked of a chain once messages have been passed: filter, entropy, paths, steps ahead.

Compiled; `chains` reads what comes in, and says what each of them is.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from vbjax.chains import discrete_passes as chain_passes
from vbjax.chains.discrete_passes import Posterior, total, without_padding


class Filtered(NamedTuple):
    """A chain given the observations so far.

    Attributes:
        log_normalizers: log p(x_1, ..., x_t), (T,); that of the last step again where there are no more.
        marginals: p(z_t | x_1, ..., x_t), (T, K); 0 where there are no more steps.
    """

    log_normalizers: Float[Array, " t"]
    marginals: Float[Array, "t k"]


class Path(NamedTuple):
    """A path through the states.

    Attributes:
        log_weight: the log of its weight.
        states: (T,), integers; -1 where there are no more steps.
    """

    log_weight: Float[Array, ""]
    states: Int[Array, " t"]


@functools.partial(jax.jit, static_argnames="parallel")
def log_normalizer(*weights: Any, parallel: bool | None) -> Array:
    return chain_passes.log_normalizer(*weights, parallel)


@functools.partial(jax.jit, static_argnames="parallel")
def smoother(*weights: Any, parallel: bool | None) -> Posterior:
    return chain_passes.posterior(*weights, parallel)


@functools.partial(jax.jit, static_argnames="parallel")
def filter(*weights: Any, parallel: bool | None) -> Filtered:
    logs, scales = chain_passes.filtered(*weights, parallel)
    marginals = jnp.exp(logs)
    if weights[3] is not None:
        marginals = jnp.where((jnp.arange(len(scales)) < weights[3])[:, None], marginals, 0)
    return Filtered(lax.associative_scan(jnp.add, scales), marginals)


@functools.partial(jax.jit, static_argnames="parallel")
def entropy(
    initial: Array, transitions: Array, log_likelihood: Array, length: Any, *, parallel: bool | None
) -> Array:
    steps, k = log_likelihood.shape
    transitions = jnp.broadcast_to(transitions, (steps - 1, k, k))
    _, marginals, pairs = chain_passes.posterior(initial, transitions, log_likelihood, length, parallel)
    from_state = pairs.sum(-1, keepdims=True)
    next_states = -_x_log(pairs, pairs / jnp.where(from_state > 0, from_state, 1)).sum((1, 2))
    return total(jnp.concatenate([-_x_log(marginals[:1], marginals[:1]).sum(1), next_states]))


@jax.jit
def viterbi(initial: Array, transitions: Array, log_likelihood: Array, length: Any) -> Path:
    steps = len(log_likelihood)
    at, varying = jnp.arange(steps), transitions.ndim == 3
    here = at < (steps if length is None else length)
    transitions, log_likelihood = without_padding(transitions, log_likelihood, here)

    def forward(best: Array, x: Any) -> Any:
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


@functools.partial(jax.jit, static_argnames=("n_steps", "parallel"))
def predict(
    initial: Array,
    transitions: Array,
    log_likelihood: Array,
    length: Any,
    *,
    n_steps: int,
    parallel: bool | None,
) -> Array:
    logs, _ = chain_passes.filtered(initial, transitions, log_likelihood, length, parallel)
    last = jnp.exp(logs[-1 if length is None else length - 1])

    def step(state: Array, _: None) -> tuple[Array, Array]:
        state = state @ jnp.exp(transitions - transitions.max())
        state = state / state.sum()
        return state, state

    return lax.scan(step, last, None, length=n_steps)[1]


@functools.partial(jax.jit, static_argnames=("n_draws", "parallel"))
def sample_paths(
    initial: Array,
    transitions: Array,
    log_likelihood: Array,
    length: Any,
    key: Array,
    *,
    n_draws: int,
    parallel: bool | None,
) -> Array:
    steps = len(log_likelihood)
    logs = chain_passes.filtered(initial, transitions, log_likelihood, length, parallel)[0]
    varying = transitions.ndim == 3
    keys = jax.random.split(key, steps)
    end = steps if length is None else length

    def backward(after: Array, x: Any) -> tuple[Array, Array]:
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
    """x log y, 0 where x is."""
    return jnp.where(x > 0, x * jnp.log(jnp.where(x > 0, y, 1)), 0)
