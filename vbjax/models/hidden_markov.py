"""Hidden Markov models: a mixture whose labels are a Markov chain, by EM or by variational Bayes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vbjax import chains
from vbjax.core.draws import sample_posterior
from vbjax.core.expectation import Expectation, float_dtype, n_rows, sum_over_rows, sweep_rows
from vbjax.core.inputs import is_concrete, read_count, read_key
from vbjax.core.model import ConjugateModel, in_dtype
from vbjax.core.ragged import by_part
from vbjax.families.base import pytree, static
from vbjax.families.delta import Delta, unless_unknown
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.models.mixing_weights import from_counts
from vbjax.models.mixture import Mixture
from vbjax.record import Record
from vbjax.sequences import Sequences, Steps

_CHUNK = 2**22  # numbers in a chunk's table of sequences x steps x states


class Prepared(NamedTuple):
    """Statistics of the chain, and what the emissions need."""

    initial: Any
    transitions: Any
    components: Any


@pytree
class HiddenMarkovModel(ConjugateModel):
    """x_t | z_t ~ component z_t of `emissions`, z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions.

    The emissions are a mixture of this package; its labels here are a chain. Where its parameters are points
    (`GaussianMixture`, any other with `maximum_likelihood=True`) this is EM, the algorithm of Baum and Welch:

        A_ij = xi_ij / sum_j xi_ij,   pi = gamma_1,   components as in the mixture, with gamma_t for r_n,

    from the marginals gamma and the pairs xi of the states; else variational Bayes, where every row of
    transitions has a factor Dirichlet(alpha + stickiness at itself + xi) and the E-step is that of a chain
    with the weights exp E[log A], which are not normalised: the bound has the log-normaliser of that chain.

    Data: `vb.Sequences`, or what `Sequences.of` takes; steps as the rows of the mixture. NaN are steps, or
    with `missing` of the mixture entries, that are missing. Weights are of sequences; the tolerance of a fit
    is per step. The factors are `initial` (K,), `transitions` (K, K) and `components`.

    Args:
        n_states: K.
        emissions: a mixture of K components: what a step is in each state.
        initial_concentration: alpha of the first state, a number or (K,); by default 1 / K, by EM none.
        transition_concentration: alpha of the next state, a number, (K,) or (K, K); by default 1 / K, by EM
            none.
        stickiness: what is added to that of the state itself; by default 0.

    Raises:
        ValueError: data that are no sequences of such rows; emissions of another number of components; a
            concentration that is not positive, or by EM below 1 (its mode is on the simplex's boundary).

    References:
        Rabiner (1989), A tutorial on hidden Markov models; Bishop (2006), section 13.2; Beal (2003),
        Variational algorithms for approximate Bayesian inference, chapter 3; Fox et al. (2011) for
        stickiness.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> fit = vb.fit(vb.PoissonHMM(2), x, key=jax.random.key(0), n_restarts=4, tol=1e-9)
    >>> print(f"{fit.objective:.2f}")
    -341.88
    """

    n_states: int = static()
    emissions: Any = None
    initial_concentration: Any = dataclasses.field(default=None, kw_only=True)
    transition_concentration: Any = dataclasses.field(default=None, kw_only=True)
    stickiness: Any = dataclasses.field(default=0.0, kw_only=True)

    @property
    def factors(self) -> Record:
        initial, transitions = Dirichlet(self.n_states), Dirichlet(self.n_states, plate=(self.n_states,))
        components = self.emissions.factors["components"]
        if self.emissions.points:
            return Record(initial=Delta(initial), transitions=Delta(transitions), components=components)
        return Record(initial=initial, transitions=transitions, components=components)

    # -- data and hyperparameters --------------------------------------------------------------------

    def read(self, data: Any) -> Sequences:
        read_count(self.n_states, "n_states")
        if not isinstance(self.emissions, Mixture) or self.emissions.n_components != self.n_states:
            what = f"a mixture of n_states = {self.n_states} components"
            raise ValueError(f"emissions must be {what}; got {self.emissions!r}")
        em = self.emissions.points
        for name in ("initial_concentration", "transition_concentration"):
            value = getattr(self, name)
            if value is not None and is_concrete(value):
                value = np.asarray(value)
                if not (value >= 1 if em else value > 0).all():
                    raise ValueError(
                        f"{name} must be {'at least 1 by EM' if em else 'positive'}; got {value}"
                    )
        if is_concrete(self.stickiness) and not np.all(np.asarray(self.stickiness) >= 0):
            raise ValueError(f"stickiness must be at least 0; got {self.stickiness}")
        data = data if isinstance(data, Sequences) else Sequences.of(data)
        rows = self.emissions.read(data.steps())
        cast_all = lambda x: jax.tree.map(lambda leaf, row: leaf.astype(row.dtype), x, rows)
        parts = tuple(part._replace(values=cast_all(part.values)) for part in data.parts)
        return dataclasses.replace(data, parts=parts)

    def inspect(self, data: Sequences) -> HiddenMarkovModel:
        return dataclasses.replace(self, emissions=self.emissions.inspect(data.steps()))

    def resolve(self, data: Sequences, weights: Array | None = None) -> HiddenMarkovModel:
        emissions = self.emissions.resolve(*_all_rows(data, weights))
        filled: dict[str, Any] = {}
        shapes = dict(initial_concentration=(self.n_states,), transition_concentration=(self.n_states,) * 2)
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None and emissions.points:
                continue
            value = jnp.asarray(1 / self.n_states if value is None else value)
            try:
                filled[name] = jnp.broadcast_to(value, shape)
            except ValueError:
                raise ValueError(f"{name} must be a number or of shape {shape}; got {value.shape}") from None
        return in_dtype(dataclasses.replace(self, emissions=emissions, **filled), float_dtype(data))

    def annotate(self, data: Sequences, weights: Array | None = None) -> Sequences:
        def annotated(part: Steps) -> Steps:
            flat = self.emissions.annotate(_rows(part), part.observed.reshape(-1).astype(float_dtype(part)))
            shape = part.observed.shape
            return part._replace(values=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), flat))

        return dataclasses.replace(data, parts=tuple(map(annotated, data.parts)))

    def chunk_rows(self, data: Steps) -> int:
        return max(1, _CHUNK // (data.observed.shape[1] * self.n_states))

    def _priors(self) -> dict[str, DirichletState]:
        """Of the chain's factors that have one."""
        priors: dict[str, DirichletState] = {}
        if self.initial_concentration is not None:
            priors["initial"] = DirichletState(self.initial_concentration)
        if self.transition_concentration is not None:
            own = self.stickiness * jnp.eye(self.n_states, dtype=self.transition_concentration.dtype)
            priors["transitions"] = DirichletState(self.transition_concentration + own)
        return priors

    def log_prior(self, s: Record) -> Array:
        total = self.emissions.components_prior(s.components)
        for name, prior in self._priors().items():
            total = total + (prior.log_density(s[name]) + s[name].base).sum()
        return total

    def _as_mixture(self, params: Record) -> Record:
        """The parameters as those of the emissions, whose weights are then of no account."""
        weights = self.emissions.factors["weights"].neutral(float_dtype(params))
        return Record(weights=weights, components=params.components)

    def init(self, key: Array, data: Sequences, weights: Array | None = None) -> Record:
        """Components as the mixture starts, and a chain without preferences."""
        dtype = float_dtype(data)
        rows, w = _all_rows(data, weights)
        components = self.emissions.init(key, rows, w).components
        chain = {name: self.factors[name].neutral(dtype) for name in ("initial", "transitions")}
        return Record(chain, components=components)

    # -- E-step and M-step ---------------------------------------------------------------------------

    def prepare(self, params: Any) -> Prepared:
        factors = self.factors
        initial, transitions = (factors[name].expected(params[name]) for name in ("initial", "transitions"))
        return Prepared(initial, transitions, self.emissions.prepare_components(params.components))

    def table(self, prepared: Prepared, rows: Steps) -> Float[Array, "n t k"]:
        """E[log p(x_t | z_t)] of every step; 0 where nothing is seen."""

        def score(flat: Any, seen: Array, _: Any) -> tuple[Any, Any]:
            density = self.emissions.scored_components(prepared.components, flat)[0]
            return (), jnp.where(seen > 0, density, 0).T

        return self._by_steps(score, rows)

    def _by_steps(self, score: Callable[..., Any], rows: Steps) -> Float[Array, "n t k"]:
        flat, seen = _rows(rows), rows.observed.reshape(-1).astype(float_dtype(rows))
        blank = jnp.zeros((seen.shape[0], self.n_states), seen.dtype)
        chunk = self.emissions.chunk_rows(flat)
        return sweep_rows(score, flat, seen, blank, chunk=chunk)[1].reshape(*rows.observed.shape, -1)

    def posterior_chain(self, prepared: Prepared, table: Array, lengths: Array) -> chains.Posterior:
        """The states of some sequences: log-normalisers (n,), marginals (n, t, k) and pairs (n, k, k)."""
        smoother = functools.partial(chains.smoother, prepared.initial.log, prepared.transitions.log)
        return jax.vmap(smoother)(table, lengths)

    def e_step(self, prepared: Prepared, rows: Steps, weights: Array) -> Expectation:
        """Rabiner (1989), eq. 27, 37 and 40: sums of marginals and pairs, and the components' statistics."""
        table = self.table(prepared, rows)
        found = self.posterior_chain(prepared, table, rows.lengths)
        bound = jnp.where(weights == 0, 0, weights * found.log_normalizer)
        # densities above and below 1 cancel in a bound, their roundings do not
        added = jnp.where(found.marginals > 0, found.marginals * jnp.abs(table), 0).sum((1, 2))
        magnitude = jnp.abs(bound) + jnp.where(weights == 0, 0, weights * added)
        flat, seen = _rows(rows), rows.observed.astype(weights.dtype)
        r = (weights[:, None, None] * seen[..., None] * found.marginals).reshape(-1, self.n_states)

        def statistics(some: Any, w: Array) -> Any:
            own, r = some
            gradient = self.emissions.scored_components(prepared.components, own)[1](w * r.T)
            return gradient, w @ r

        chunk = self.emissions.chunk_rows(flat)
        components, number = sum_over_rows(statistics, (flat, r), seen.reshape(-1), chunk=chunk)
        sums = Record(
            initial=from_counts(prepared.initial, weights @ found.marginals[:, 0]),
            transitions=from_counts(prepared.transitions, jnp.tensordot(weights, found.pairs, 1)),
            components=components,
            weights=number,
        )
        n_steps = weights @ rows.lengths.astype(weights.dtype)
        return Expectation(sums, bound.sum(), magnitude.sum(), n_steps)

    def m_step(self, params: Any, statistics: Any, block: Iterable[str]) -> Record:
        block = tuple(block)
        chain = tuple(name for name in block if name != "components")
        moved = super().m_step(params, statistics, chain)
        if self.emissions.points:  # of a state that is never left nobody knows what comes next
            plates = dict(initial=0, transitions=1)
            moved |= {name: unless_unknown(moved[name], params[name], plates[name]) for name in chain}
        if "components" in block:
            mixture = self._as_mixture(params)
            weights = self.emissions.factors["weights"].expected(mixture.weights)
            sums = Record(
                weights=from_counts(weights, statistics["weights"]), components=statistics["components"]
            )
            moved |= dict(components=self.emissions.m_step(mixture, sums, ("components",)).components)
        return moved

    def mix(self, params: Record, moved: Record, rho: ArrayLike, block: Iterable[str]) -> Record:
        block = tuple(block)
        mixed = super().mix(params, moved, rho, [name for name in block if name != "components"])
        if "components" in block:
            both = self._as_mixture(params), self._as_mixture(moved)
            mixed |= dict(components=self.emissions.mix(*both, rho, ("components",)).components)
        return mixed

    def singular(self, params: Record) -> Array:
        return self.emissions.singular(self._as_mixture(params))

    def local_entropies(self, params: Any) -> Callable[[Steps], dict[str, Array]]:
        prepared = self.prepare(params)
        entropy = functools.partial(chains.entropy, prepared.initial.log, prepared.transitions.log)
        return lambda rows: {"z": jax.vmap(entropy)(self.table(prepared, rows), rows.lengths)}

    # -- use -----------------------------------------------------------------------------------------

    def state_probabilities(self, params: Any, data: Any) -> Any:
        """q(z_t = k) of every step, (t, K): of one sequence an array, of several a list of them."""
        data, one = self._given(data)
        return _only(data.unpack(_marginals(self, params, data)), one)

    def decode(self, params: Any, data: Any) -> Any:
        """The most probable path of states, (t,), by Viterbi's algorithm: an array, or a list as above."""
        data, one = self._given(data)
        return _only(data.unpack(_paths(self, params, data)), one)

    def log_predictive(self, params: Any, data: Any) -> Float[Array, " n"]:
        """log p of every sequence, (n,), in nats: by EM the log likelihood.

        By variational Bayes with the chain at its mean, and parameters of each step's own, drawn from q.
        """
        return _log_predictive(self, params, self.read(data))

    def predict_states(self, params: Any, data: Any, n_steps: int) -> Float[Array, "n s k"]:
        """p(z_{T+s}), s = 1 .. n_steps, after the last step of every sequence, (n, n_steps, K)."""
        return _predict_states(self, params, self.read(data), read_count(n_steps, "n_steps"))

    def forecast(self, params: Any, key: Array, data: Any, n_steps: int, n_draws: int = 1000) -> Any:
        """Draws of what comes after the last step of every sequence, (n_draws, n, n_steps, ...).

        Their quantiles are the forecast's intervals.
        """
        sizes = read_count(n_steps, "n_steps"), read_count(n_draws, "n_draws")
        return _forecast(self, params, read_key(key), self.read(data), *sizes)

    def sample(self, params: Any, key: Array, n_steps: int) -> tuple[Int[Array, " t"], Any]:
        """A new sequence: its states (n_steps,) and steps (n_steps, ...)."""
        return _sample(self, params, read_key(key), read_count(n_steps, "n_steps"))

    def sample_posterior(self, params: Any, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draws of the parameters."""
        return sample_posterior(params, key, n)

    def durations(self, params: Any) -> Float[Array, " k"]:
        """Expected steps in each state before it is left, 1 / (1 - A_kk) at the mean of A, (K,)."""
        return 1 / (1 - jnp.diagonal(params.transitions.mean))

    def total_log_likelihood(self, params: Any, data: Any) -> Float[Array, ""]:
        """The log likelihood of all sequences, in nats."""
        return self.log_predictive(params, data).sum()

    @property
    def n_parameters(self) -> int:
        """Free parameters: of the first state, the transitions and the components."""
        if not self.emissions.points:
            raise ValueError("n_parameters, aic and bic are of maximum likelihood; after VB compare the bounds")
        k = self.n_states
        return k - 1 + k * (k - 1) + self.emissions.n_component_parameters

    def bic(self, params: Any, data: Any) -> Float[Array, ""]:
        """-2 log L + (free parameters) log (steps); smaller is better (Schwarz 1978). After EM."""
        data, penalty = self.read(data), self.n_parameters
        log_n = jnp.log(data.n_steps.astype(float_dtype(data)))
        return penalty * log_n - 2 * self.total_log_likelihood(params, data)

    def aic(self, params: Any, data: Any) -> Float[Array, ""]:
        """-2 log L + 2 (free parameters); smaller is better (Akaike 1974). After EM."""
        return 2 * self.n_parameters - 2 * self.total_log_likelihood(params, data)

    def _given(self, data: Any) -> tuple[Sequences, bool]:
        return self.read(data), not isinstance(data, (list, Sequences))

    def _chain_at_mean(self, params: Any) -> tuple[Array, Array]:
        return jnp.log(params.initial.mean), jnp.log(params.transitions.mean)

    def _predictive_table(self, params: Any, rows: Steps) -> Float[Array, "n t k"]:
        """Log predictive densities of every step; 0 where nothing is seen."""
        mixture = self._as_mixture(params)

        def score(flat: Any, seen: Array, _: Any) -> tuple[Any, Any]:
            return (), jnp.where(seen[:, None] > 0, self.emissions.log_components(mixture, flat), 0)

        return self._by_steps(score, rows)


def _rows(part: Steps) -> Any:
    """The steps of all sequences of a part, end to end, padding too."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), part.values)


def _all_rows(data: Sequences, weights: Array | None) -> tuple[Any, Array]:
    """The steps of all sequences, and their weights: those of their sequence, 0 where nothing is seen."""
    dtype = float_dtype(data)
    own = data.split(jnp.ones(n_rows(data), dtype) if weights is None else weights)
    seen = [jnp.where(x.observed, w[:, None], 0).reshape(-1) for x, w in zip(data.parts, own, strict=True)]
    rows = jax.tree.map(lambda *x: jnp.concatenate(x), *map(_rows, data.parts))
    return rows, jnp.concatenate(seen)


def _only(found: list[Any], one: bool) -> Any:
    return found[0] if one else found


@jax.jit
def _marginals(model: HiddenMarkovModel, params: Any, data: Sequences) -> tuple[Array, ...]:
    prepared = model.prepare(params)
    marginals = lambda x: model.posterior_chain(prepared, model.table(prepared, x), x.lengths).marginals
    return by_part(marginals, data)


@jax.jit
def _paths(model: HiddenMarkovModel, params: Any, data: Sequences) -> tuple[Array, ...]:
    prepared = model.prepare(params)
    viterbi = functools.partial(chains.viterbi, prepared.initial.log, prepared.transitions.log)
    return by_part(lambda part: jax.vmap(viterbi)(model.table(prepared, part), part.lengths).states, data)


@jax.jit
def _log_predictive(model: HiddenMarkovModel, params: Any, data: Sequences) -> Array:
    normalizer = functools.partial(chains.log_normalizer, *model._chain_at_mean(params))
    score = lambda part: jax.vmap(normalizer)(model._predictive_table(params, part), part.lengths)
    return data.join(by_part(score, data))


@functools.partial(jax.jit, static_argnames="n_steps")
def _predict_states(model: HiddenMarkovModel, params: Any, data: Sequences, n_steps: int) -> Array:
    predict = functools.partial(chains.predict, *model._chain_at_mean(params), n_steps=n_steps)
    ahead = lambda part: jax.vmap(predict)(model._predictive_table(params, part), part.lengths)
    return data.join(by_part(ahead, data))


@functools.partial(jax.jit, static_argnames=("n_steps", "n_draws"))
def _forecast(
    model: HiddenMarkovModel, params: Any, key: Array, data: Sequences, n_steps: int, n_draws: int
) -> Any:
    first = jnp.log(_predict_states(model, params, data, 1)[:, 0])
    states = _walk(model, params, key, jnp.broadcast_to(first, (n_draws, *first.shape)), n_steps)
    return _steps_of(model, params, key, states)


@functools.partial(jax.jit, static_argnames="n_steps")
def _sample(model: HiddenMarkovModel, params: Any, key: Array, n_steps: int) -> tuple[Array, Any]:
    states = _walk(model, params, key, jnp.log(params.initial.mean), n_steps)
    return states, _steps_of(model, params, key, states)


def _walk(
    model: HiddenMarkovModel, params: Any, key: Array, first: Array, n_steps: int
) -> Int[Array, "*n t"]:
    """States from log probabilities of the first, (..., K)."""
    transitions = model._chain_at_mean(params)[1]

    def step(log: Array, key: Array) -> tuple[Array, Array]:
        state = jax.random.categorical(key, log)
        return transitions[state], state

    states = jax.lax.scan(step, first, jax.random.split(jax.random.fold_in(key, 0), n_steps))[1]
    return jnp.moveaxis(states, 0, -1)


def _steps_of(model: HiddenMarkovModel, params: Any, key: Array, states: Array) -> Any:
    drawn = model.emissions.draw_rows(
        model._as_mixture(params), jax.random.fold_in(key, 1), states.reshape(-1)
    )
    return jax.tree.map(lambda x: x.reshape(*states.shape, *x.shape[1:]), drawn)
