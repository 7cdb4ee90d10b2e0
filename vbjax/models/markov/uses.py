"""Compiled uses of a fitted hidden Markov model: states, paths, forecasts, draws.

The model's methods of these names read what they are given, and call these; imported by `hidden_markov.py`
alone.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax import chains
from vbjax.core.ragged import by_part
from vbjax.core.rows import float_dtype
from vbjax.data.sequences import Sequences, Steps, for_every_step
from vbjax.inference.replicate import restore_missing
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree

if TYPE_CHECKING:
    from vbjax.models.markov.hidden_markov import HiddenMarkovModel


@jit
def marginals(model: HiddenMarkovModel, params: Record, data: Sequences) -> tuple[Array, ...]:
    """Compute q(z_t = k) of every step, part by part (Rabiner 1989, eq. 27)."""
    chain, components = model.prepare(params)
    infer = lambda part: model.chain.infer(chain, model.table(components, part), part.lengths)
    return by_part(lambda part: infer(part).marginals, data)


@jit
def paths(model: HiddenMarkovModel, params: Record, data: Sequences) -> tuple[Array, ...]:
    """Find the most probable paths, part by part (Rabiner 1989, eq. 33 to 35)."""
    chain, components = model.prepare(params)
    viterbi = jax.vmap(functools.partial(chains.viterbi, *chain.log))
    return by_part(lambda part: viterbi(model.table(components, part), part.lengths).states, data)


@jit
def log_predictive(model: HiddenMarkovModel, params: Record, data: Sequences) -> Float[Array, " n"]:
    """Compute log p of every sequence by the forward pass (Rabiner 1989, eq. 19 to 21)."""
    initial, moves = model.chain.log_at_mean(params)
    normalizer = jax.vmap(lambda table, length: chains.log_normalizer(initial, moves, table, length))
    return data.join(by_part(lambda x: normalizer(model.predictive_table(params, x), x.lengths), data))


@functools.partial(jit, static_argnames="n_steps")
def predict_states(
    model: HiddenMarkovModel, params: Record, data: Sequences, n_steps: int
) -> Float[Array, "n s k"]:
    """Compute the probabilities of the states after the last step of every sequence."""
    initial, moves = model.chain.log_at_mean(params)
    predict = jax.vmap(lambda table, length: chains.predict(initial, moves, table, length, n_steps=n_steps))
    return data.join(by_part(lambda x: predict(model.predictive_table(params, x), x.lengths), data))


@functools.partial(jit, static_argnames=("n_steps", "n_draws"))
def forecast(
    model: HiddenMarkovModel,
    params: Record,
    key: Array,
    data: Sequences,
    before: Tree,
    n_steps: int,
    n_draws: int,
    given: Given,
) -> Data:
    """Draw the steps after the last one of every sequence, (n_draws, n, n_steps, ...)."""
    first = jnp.log(predict_states(model, params, data, 1)[:, 0])
    states = _walk(model, params, key, jnp.broadcast_to(first, (n_draws, *first.shape)), n_steps)
    return model.component.draw_steps(params, jax.random.fold_in(key, 1), states, before, given)


@functools.partial(jit, static_argnames="n")
def sample(
    model: HiddenMarkovModel, params: Record, key: Array, n: int, before: Tree, given: Given
) -> tuple[Int[Array, " n"], Any]:
    """Draw the states and the steps of a new sequence; the first state is that of the first step before."""
    skipped, first = model.component.n_before, model.chain.log_at_mean(params)[0]
    states = _walk(model, params, key, first, skipped + n)[skipped:]
    return states, model.component.draw_steps(params, jax.random.fold_in(key, 1), states, before, given)


def _walk(
    model: HiddenMarkovModel, params: Record, key: Array, first: Float[Array, "*n k"], n_steps: int
) -> Int[Array, "*n t"]:
    """Draw states from log probabilities of the first."""
    transitions = model.chain.log_at_mean(params)[1]

    def step(log: Array, key: Array) -> tuple[Array, Array]:
        state = jax.random.categorical(key, log)
        return transitions[state], state

    states = jax.lax.scan(step, first, jax.random.split(jax.random.fold_in(key, 0), n_steps))[1]
    return jnp.moveaxis(states, 0, -1)


def simulate(model: HiddenMarkovModel, params: Record, key: Array, data: Sequences) -> Sequences:
    """Draw new sequences as long as these, with the same steps missing.

    Raises:
        ValueError: sequences with known states.
    """
    if data.parts[0].labels is not None:
        raise ValueError("data must be sequences without known states, which new ones have not")
    keys = jax.random.split(key, len(data.parts))
    parts = [_new_part(model, params, own, part) for own, part in zip(keys, data.parts, strict=True)]
    return dataclasses.replace(data, parts=tuple(parts))


def _new_part(model: HiddenMarkovModel, params: Record, key: Array, part: Steps) -> Steps:
    """Draw the observed steps of all sequences of one length."""
    component, (n, t), keys = model.component, part.observed.shape, jax.random.split(key, 3)
    if component.n_before:  # steps wait for those before them
        drawn = jax.vmap(lambda key: model.sample(params, key, t)[1])(jax.random.split(key, n))
    else:
        first = model.chain.log_at_mean(params)[0]
        states = _walk(model, params, keys[0], jnp.broadcast_to(first, (n, *first.shape)), t)
        parameters = component.draw_parameters(params, keys[1])
        drawn = component.redraw_rows(parameters, keys[2], states.reshape(-1), component.rows_of(part)[0])

    def placed(new: Array, old: Array) -> Array:
        there = part.observed.reshape(n, t, *[1] * (old.ndim - 2))
        return jnp.where(there, new.reshape(old.shape), old)

    return part._replace(values=restore_missing(jax.tree.map(placed, drawn, part.values), part.values))


def replicate(model: HiddenMarkovModel, params: Record, key: Array, data: Data, n_draws: int) -> Data:
    """Draw the steps of all sequences anew, (n_draws, t, ...)."""
    draws = for_every_step(functools.partial(_replicate, key=key, n_draws=n_draws), model, params, data)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), draws)


@functools.partial(jit, static_argnames="n_draws")
def _replicate(
    model: HiddenMarkovModel, params: Record, data: Sequences, key: Array, n_draws: int
) -> tuple[Tree, ...]:
    """Draw steps anew, (n, t, n_draws, ...) part by part, NaN where they are missing."""
    component, (chain, prepared) = model.component, model.prepare(params)
    tables = by_part(lambda part: model.table(prepared, part), data)  # the same for every draw

    def redrawn(part: Steps, table: Array, parameters: Tree, key: Array) -> Tree:
        keys, (n, t, _) = jax.random.split(key), table.shape
        path = lambda table, length, key: chains.sample_paths(*chain.log, table, length, key=key)[0]
        states = jax.vmap(path)(table, part.lengths, jax.random.split(keys[0], n))
        rows, there = component.rows_of(part)
        states = jnp.maximum(states, 0).reshape(-1)
        drawn = component.steps_among(component.redraw_rows(parameters, keys[1], states, rows))

        def placed(new: Array, old: Array) -> Array:
            axes = (n, t, *[1] * (old.ndim - 2))
            new = jnp.where(there.reshape(axes), new.reshape(old.shape), old).astype(float_dtype(data))
            return jnp.where(part.observed.reshape(axes), new, jnp.nan)

        return restore_missing(jax.tree.map(placed, drawn, part.values), part.values)

    def draw(key: Array) -> tuple[Tree, ...]:
        first, *keys = jax.random.split(key, 1 + len(data.parts))
        parameters = component.draw_parameters(params, first)
        each = zip(data.parts, tables, keys, strict=True)
        return tuple(redrawn(part, table, parameters, own_key) for part, table, own_key in each)

    draws = jax.lax.map(draw, jax.random.split(key, n_draws))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), draws)
