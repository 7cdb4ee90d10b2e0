"""What a fitted hidden Markov model is used for: states, paths, forecasts, draws, criteria."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax import chains
from vbjax.core.ragged import by_part
from vbjax.core.rows import float_dtype
from vbjax.data.sequences import Sequences, Steps, for_every_step
from vbjax.inference.replicate import restore_missing, sample_posterior
from vbjax.models.markov.hidden_markov_base import HiddenMarkovBase
from vbjax.numerics.inputs import read_count, read_key
from vbjax.numerics.record import Record


class HiddenMarkovUse(HiddenMarkovBase):
    """Methods of the models; see `HiddenMarkovBase`."""

    draws_data = True

    def state_probabilities(self, params: Any, data: Any) -> Any:
        """q(z_t = k) of every step, (t, K): of one sequence an array, of several a list of them."""
        return for_every_step(_marginals, self, params, data)

    def decode(self, params: Any, data: Any) -> Any:
        """The most probable path of states, (t,), by Viterbi's algorithm: an array, or a list as above."""
        return for_every_step(_paths, self, params, data)

    def log_predictive(self, params: Any, data: Any) -> Float[Array, " n"]:
        """log p of every sequence, (n,), in nats: by EM the log likelihood.

        By variational Bayes with the chain at its mean, and parameters of each step's own, drawn from q.
        """
        return _log_predictive(self, params, self.read(data))

    def predict_states(self, params: Any, data: Any, n_steps: int) -> Float[Array, "n s k"]:
        """p(z_{T+s}), s = 1 .. n_steps, after the last step of every sequence, (n, n_steps, K)."""
        return _predict_states(self, params, self.read(data), read_count(n_steps, "n_steps"))

    def forecast(
        self, params: Any, key: Array, data: Any, n_steps: int, n_draws: int = 1000, *, given: Any = None
    ) -> Any:
        """Draws of what comes after the last step of every sequence, (n_draws, n, n_steps, ...).

        Their quantiles are the forecast's intervals.

        Args:
            params: of a fit.
            key: PRNG key.
            data: the sequences.
            n_steps: how many steps come after each.
            n_draws: how many draws of them.
            given: what steps are drawn for beside their states: of regressions the x of the steps to come,
                (n_steps, d), their y being what is drawn; of multinomials how many counts a step has, a
                number or (n_steps,), by default 1.

        Raises:
            ValueError: a key, a number or a `given` that is none; regressions without it.
        """
        sizes = read_count(n_steps, "n_steps"), read_count(n_draws, "n_draws")
        given = self.read_given(given, sizes[0])
        return _forecast(self, params, read_key(key), self.read(data), *sizes, given)

    def sample(
        self, params: Any, key: Array, n_steps: int, *, given: Any = None
    ) -> tuple[Int[Array, " t"], Any]:
        """A new sequence: its states (n_steps,) and steps (n_steps, ...), with `given` as of `forecast`."""
        n_steps = read_count(n_steps, "n_steps")
        return _sample(self, params, read_key(key), n_steps, self.read_given(given, n_steps))

    def read_given(self, given: Any, n_steps: int) -> Any:
        """Read what new steps are drawn for, beside their states."""
        return self.component.read_given(given, n_steps)

    def sample_posterior(self, params: Any, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draws of the parameters."""
        return sample_posterior(params, key, n)

    def replicate(self, params: Any, key: Array, data: Any, n_draws: int) -> Any:
        draws = functools.partial(_replicate, key=key, n_draws=n_draws)
        return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), for_every_step(draws, self, params, data))

    def redrawn_steps(self, rows: Any) -> Any:
        """Return the steps among the component's rows."""
        return rows

    def durations(self, params: Any) -> Float[Array, " k"]:
        """Expected steps in each state before it is left, 1 / (1 - A_kk) at the mean of A, (K,)."""
        return 1 / (1 - jnp.diagonal(params.transitions.mean))

    def total_log_likelihood(self, params: Any, data: Any) -> Float[Array, ""]:
        """The log likelihood of all sequences, in nats."""
        return self.log_predictive(params, data).sum()

    @property
    def n_parameters(self) -> int:
        """Free parameters: of the first state, the transitions and the component."""
        if not self.points:
            raise ValueError(
                "n_parameters, aic and bic are of maximum likelihood; after VB compare the bounds"
            )
        k = self.n_states
        return k - 1 + k * (k - 1) + self.component.n_parameters

    def bic(self, params: Any, data: Any) -> Float[Array, ""]:
        """-2 log L + (free parameters) log (steps); smaller is better (Schwarz 1978). After EM."""
        data, penalty = self.read(data), self.n_parameters
        log_n = jnp.log(data.n_steps.astype(float_dtype(data)))
        return penalty * log_n - 2 * self.total_log_likelihood(params, data)

    def aic(self, params: Any, data: Any) -> Float[Array, ""]:
        """-2 log L + 2 (free parameters); smaller is better (Akaike 1974). After EM."""
        return 2 * self.n_parameters - 2 * self.total_log_likelihood(params, data)

    def before(self, data: Sequences) -> Any:
        """What the steps after the last of every sequence depend on, beside their states."""
        return None

    def draw_steps(
        self, params: Any, key: Array, states: Int[Array, "*n t"], before: Any = None, given: Any = None
    ) -> Any:
        """Steps in the given states, (..., t, ...); `given` has one entry for each t."""
        if given is not None:
            given = jnp.broadcast_to(given, (*states.shape, *given.shape[1:])).reshape(-1, *given.shape[1:])
        drawn = self.component.draw_rows(params, key, states.reshape(-1), given)
        return jax.tree.map(lambda x: x.reshape(*states.shape, *x.shape[1:]), drawn)

    def _chain_at_mean(self, params: Any) -> tuple[Array, Array]:
        return jnp.log(params.initial.mean), jnp.log(params.transitions.mean)

    def _predictive_table(self, params: Any, rows: Steps) -> Float[Array, "n t k"]:
        """Log predictive densities of every step; 0 where nothing is seen."""
        own = params

        def score(flat: Any, seen: Array, _: Any) -> tuple[Any, Any]:
            return (), jnp.where(seen[:, None] > 0, self.component.log_components(own, flat), 0)

        return self._by_steps(score, rows)


@jax.jit
def _marginals(model: HiddenMarkovUse, params: Any, data: Sequences) -> tuple[Array, ...]:
    prepared = model.prepare(params)
    marginals = lambda x: model.posterior_chain(prepared, model.table(prepared, x), x.lengths).marginals
    return by_part(marginals, data)


@jax.jit
def _paths(model: HiddenMarkovUse, params: Any, data: Sequences) -> tuple[Array, ...]:
    prepared = model.prepare(params)
    viterbi = functools.partial(chains.viterbi, prepared.initial.log, prepared.transitions.log)
    return by_part(lambda part: jax.vmap(viterbi)(model.table(prepared, part), part.lengths).states, data)


@functools.partial(jax.jit, static_argnames="n_draws")
def _replicate(
    model: HiddenMarkovUse, params: Any, data: Sequences, key: Array, n_draws: int
) -> tuple[Any, ...]:
    """Steps drawn anew, (n, t, n_draws, ...) part by part, NaN where they are missing."""
    prepared, own = model.prepare(params), params
    chain, dtype = (prepared.initial.log, prepared.transitions.log), float_dtype(data)
    tables = by_part(lambda part: model.table(prepared, part), data)  # the same for every draw

    def redrawn(part: Steps, table: Array, parameters: Any, key: Array) -> Any:
        keys, (n, t, _) = jax.random.split(key), table.shape
        path = lambda table, length, key: chains.sample_paths(*chain, table, length, key=key)[0]
        states = jax.vmap(path)(table, part.lengths, jax.random.split(keys[0], n))
        rows, there = model.rows_of(part)
        states = jnp.maximum(states, 0).reshape(-1)
        drawn = model.redrawn_steps(model.component.redraw_rows(parameters, keys[1], states, rows))

        def placed(new: Array, old: Array) -> Array:
            axes = (n, t, *[1] * (old.ndim - 2))
            new = jnp.where(there.reshape(axes), new.reshape(old.shape), old).astype(dtype)
            return jnp.where(part.observed.reshape(axes), new, jnp.nan)

        return restore_missing(jax.tree.map(placed, drawn, part.values), part.values)

    def draw(key: Array) -> tuple[Any, ...]:
        first, *keys = jax.random.split(key, 1 + len(data.parts))
        parameters = model.component.draw_parameters(own, first)
        each = zip(data.parts, tables, keys, strict=True)
        return tuple(redrawn(part, table, parameters, own_key) for part, table, own_key in each)

    draws = jax.lax.map(draw, jax.random.split(key, n_draws))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), draws)


@jax.jit
def _log_predictive(model: HiddenMarkovUse, params: Any, data: Sequences) -> Array:
    normalizer = functools.partial(chains.log_normalizer, *model._chain_at_mean(params))
    score = lambda part: jax.vmap(normalizer)(model._predictive_table(params, part), part.lengths)
    return data.join(by_part(score, data))


@functools.partial(jax.jit, static_argnames="n_steps")
def _predict_states(model: HiddenMarkovUse, params: Any, data: Sequences, n_steps: int) -> Array:
    predict = functools.partial(chains.predict, *model._chain_at_mean(params), n_steps=n_steps)
    ahead = lambda part: jax.vmap(predict)(model._predictive_table(params, part), part.lengths)
    return data.join(by_part(ahead, data))


@functools.partial(jax.jit, static_argnames=("n_steps", "n_draws"))
def _forecast(
    model: HiddenMarkovUse,
    params: Any,
    key: Array,
    data: Sequences,
    n_steps: int,
    n_draws: int,
    given: Any = None,
) -> Any:
    first = jnp.log(_predict_states(model, params, data, 1)[:, 0])
    states = walk(model, params, key, jnp.broadcast_to(first, (n_draws, *first.shape)), n_steps)
    return model.draw_steps(params, jax.random.fold_in(key, 1), states, model.before(data), given)


@functools.partial(jax.jit, static_argnames="n_steps")
def _sample(model: HiddenMarkovUse, params: Any, key: Array, n_steps: int, given: Any) -> tuple[Array, Any]:
    states = walk(model, params, key, jnp.log(params.initial.mean), n_steps)
    return states, model.draw_steps(params, jax.random.fold_in(key, 1), states, given=given)


def walk(model: HiddenMarkovUse, params: Any, key: Array, first: Array, n_steps: int) -> Int[Array, "*n t"]:
    """States from log probabilities of the first, (..., K)."""
    transitions = model._chain_at_mean(params)[1]

    def step(log: Array, key: Array) -> tuple[Array, Array]:
        state = jax.random.categorical(key, log)
        return transitions[state], state

    states = jax.lax.scan(step, first, jax.random.split(jax.random.fold_in(key, 0), n_steps))[1]
    return jnp.moveaxis(states, 0, -1)
