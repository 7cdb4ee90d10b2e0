"""Hidden Markov models: a component whose labels are a Markov chain, by EM or by variational Bayes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax import chains, terms
from vbjax.core.devices import add_up, numbers_here
from vbjax.core.hyperparameters import count, part
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import (
    Expectation,
    expectation,
    float_dtype,
    n_all_rows,
    sum_over_rows,
    sweep_rows,
)
from vbjax.data.labelled import Labelled, keep_known, label_steps
from vbjax.data.sequences import Sequences, Steps, for_every_step
from vbjax.families.base import pytree, replace
from vbjax.families.markov_chain import MarkovChain
from vbjax.inference.replicate import sample_posterior
from vbjax.models.components import moves
from vbjax.models.components.component import Component
from vbjax.models.labels.chain import Chain, HDPChain, MarkovLabels, Prepared
from vbjax.models.markov import uses
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper, Params, Tree

_WIDEST = 0.4  # of all steps, in a window that a move gives to one state
_CHUNK = 2**17  # numbers in a chunk's table of sequences x steps x states, which stays in the cache


@pytree
class HiddenMarkovModel(ConjugateModel):
    """Steps x_t | z_t from component z_t, z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions; by EM.

    The algorithm of Baum and Welch (Rabiner 1989, eq. 40a to 40c): from the marginals gamma and the pairs xi
    of the states

        A_ij = xi_ij / sum_j xi_ij,   pi = gamma_1,   components as in a mixture, with gamma_t for r_n.

    `BayesianHiddenMarkovModel` is the same model by variational Bayes.

    Data: `vb.Sequences`, or what `Sequences.of` takes, or `vb.Labelled` where some states are known; steps as
    rows of the component. NaN are steps, or with `missing` of the component entries, that are missing.
    Weights are of sequences; the tolerance of a fit is per step. The factors are `initial` (K,),
    `transitions` (K, K) and the component's own, `components`; points (`Delta`).

    Args:
        n_states: K.
        component: what a step is in each state, of `vb.components`.
        chain: what chooses the states, `vb.labels.Chain`.

    Raises:
        ValueError: data that are no sequences of such rows; a concentration below 1: its mode is on the
            simplex's boundary.

    References:
        Rabiner (1989), A tutorial on hidden Markov models; Bishop (2006), section 13.2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> fit = vb.fit(vb.PoissonHMM(2), x, key=jax.random.key(0), n_restarts=4, tol=1e-9)
    >>> print(f"{fit.objective:.2f}")
    -341.88
    """

    n_states: int = count("k")
    component: Any = part(Component, "a component, such as vb.components.Gaussian()")
    chain: Any = part(
        MarkovLabels,
        "a chain that this model can hold, such as vb.labels.Chain()",
        lambda model, chain: chain.fits_points or not model.points,
        default=Chain(),
    )

    draws_data = True
    has_moves = True
    named_axes: ClassVar[Mapping[str, int]] = dict(components=1)
    points: ClassVar[bool] = True
    """Whether chain and components are points, fitted by EM."""

    def __post_init__(self) -> None:
        for name in ("component", "chain"):
            if isinstance(value := getattr(self, name), (Component, MarkovLabels)):
                object.__setattr__(self, name, value.of(self.n_states, self.points))

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Sequences:
        if isinstance(data, Labelled):
            return label_steps(self.read(data.x), data.labels, self.n_states)
        data = data if isinstance(data, Sequences) else Sequences.of(data)
        rows = self.component.read_steps(data)
        cast_all = lambda x: jax.tree.map(lambda leaf, row: leaf.astype(row.dtype), x, rows)
        parts = tuple(part._replace(values=cast_all(part.values)) for part in data.parts)
        return dataclasses.replace(data, parts=parts)

    def sizes(self, data: Sequences) -> dict[str, int]:
        return self.component.sizes(data.parts[0].values)

    def inspect(self, data: Sequences) -> Tree:
        self.chain.inspect(self.component)
        rows = jax.tree.map(jnp.asarray, data.steps())
        return replace(self, component=self.component.inspect(rows))

    def resolve(self, data: Sequences, weights: Array | None = None) -> Tree:
        component = self.component.resolve(*self._all_rows(data, weights))
        return replace(self, component=component, chain=self.chain.resolve(float_dtype(data)))

    def annotate(self, data: Sequences, weights: Array | None = None) -> Sequences:
        return dataclasses.replace(data, parts=tuple(map(self.component.annotate_steps, data.parts)))

    def chunk_rows(self, data: Steps) -> int:
        return max(1, _CHUNK // (data.observed.shape[1] * self.n_states))

    def init(self, key: Array, data: Sequences, weights: Array | None = None) -> Record:
        """Start components as a mixture does, and a chain without preferences."""
        return self.init_run(key, data, weights, 0)

    def init_run(self, key: Array, data: Sequences, weights: Array | None, number: ArrayLike) -> Record:
        """Draw a start as `init` does; in runs after the first states last, some long, some not."""
        each = [part.labels.reshape(-1) for part in data.parts if part.labels is not None]
        labels, dtype = jnp.concatenate(each) if each else None, float_dtype(data)
        component = self.component.of(self.n_states, self.points, self.chain.active)
        own = component.begin(key, *self._all_rows(data, weights), labels)
        return self.chain.start(jax.random.fold_in(key, self.n_states), number, dtype) | own

    def _all_rows(self, data: Sequences, weights: Array | None) -> tuple[Tree, Array]:
        """Return the component's rows, and their weights: those of their sequence, 0 where there is none."""

        def rows(part: Steps) -> Steps:
            flat, seen = self.component.rows_of(part)
            values = jax.tree.map(lambda x: x.reshape(*seen.shape, *x.shape[1:]), flat)
            return part._replace(values=values, observed=seen)

        return dataclasses.replace(data, parts=tuple(map(rows, data.parts))).weighted_steps(weights)

    # -- the model -----------------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        return self.chain.factors | self.component.factors

    def local(self, rows: Steps) -> Record:
        if rows.labels is not None:  # what is known of a state is seen of its step
            rows = rows._replace(observed=rows.observed | (rows.labels >= 0))
        return Record(z=MarkovChain(self.n_states).of_rows(rows, rows.lengths.shape[0]))

    def log_prior(self, s: Record) -> Array:
        return self.chain.log_prior(s) + self.component.log_prior(s)

    def log_likelihood(self, s: Record, rows: Steps) -> Float[Array, " n"]:
        flat, there = self.component.rows_of(rows)
        bare, constant = self.component.split(flat)
        table = self.component.energy(s, bare)
        table = table if constant is None else table + constant[:, None]
        table = jnp.where(there[..., None], table.reshape(*there.shape, -1), 0)
        table = keep_known(table, rows.labels)
        return terms.markov_chain(s.z, s.initial, s.transitions) + (s.z.p * table).sum((1, 2))

    # -- E-step and M-step ---------------------------------------------------------------------------

    def prepare(self, params: Params) -> tuple[Prepared, Any]:
        return self.chain.prepare(params), self.component.prepare(params)

    def e_step(self, prepared: tuple[Prepared, Any], rows: Steps, weights: Array) -> Expectation:
        """Compute sums of marginals and pairs, and the components' statistics.

        Rabiner (1989), eq. 27, 37 and 40.
        """
        chain, components = prepared
        flat, there = self.component.rows_of(rows)
        table = self.table(components, rows)
        found = self.chain.infer(chain, table, rows.lengths)
        bound = jnp.where(weights == 0, 0, weights * found.log_normalizer)
        # densities above and below 1 cancel in a bound, their roundings do not
        added = jnp.where(found.marginals > 0, found.marginals * jnp.abs(table), 0).sum((1, 2))
        magnitude = jnp.abs(bound) + jnp.where(weights == 0, 0, weights * added)
        seen = there.astype(weights.dtype)
        r = (weights[:, None, None] * seen[..., None] * found.marginals).reshape(-1, self.n_states)

        def statistics(some: Data, w: Array) -> Record:
            own, r = some
            return self.component.log_density(components, own)[1](w * r.T)

        chunk = self.component.chunk_rows(self.component.bare(flat))
        sums = sum_over_rows(statistics, (flat, r), seen.reshape(-1), chunk=chunk)
        n_steps = weights @ rows.lengths.astype(weights.dtype)
        own = Record(self.chain.statistics(chain, found, weights), **sums)
        return Expectation(own, bound.sum(), magnitude.sum(), n_steps)

    def table(self, components: Tree, rows: Steps) -> Float[Array, "n t k"]:
        """Compute E[log p(x_t | z_t)] of every step from the prepared components; 0 where nothing is seen.

        It is -inf in the states that are not that of a label: such paths are impossible.
        """
        return self._by_steps(lambda flat: self.component.log_density(components, flat)[0].T, rows)

    def predictive_table(self, params: Params, rows: Steps) -> Float[Array, "n t k"]:
        """Compute log predictive densities of every step, likewise."""
        return self._by_steps(lambda flat: self.component.log_components(params, flat), rows)

    def _by_steps(self, score: Callable[[Any], Float[Array, "n k"]], rows: Steps) -> Float[Array, "n t k"]:
        flat, there = self.component.rows_of(rows)
        seen = there.reshape(-1).astype(float_dtype(rows))
        blank = jnp.zeros((seen.shape[0], self.n_states), seen.dtype)

        def of_chunk(flat: Data, seen: Array, _: Any) -> tuple[Tree, Array]:
            return (), jnp.where(seen[:, None] > 0, score(flat), 0)

        chunk = self.component.chunk_rows(self.component.bare(flat))
        table = sweep_rows(of_chunk, flat, seen, blank, chunk=chunk)[1].reshape(*there.shape, -1)
        return keep_known(self.chain.where_active(table), rows.labels, -jnp.inf)

    def m_step(self, params: Params, statistics: Tree, block: Iterable[str]) -> Record:
        block = tuple(block)
        first = [name for name in block if name not in self.chain.last]
        last = [name for name in block if name in self.chain.last]
        moved = super().m_step(params, statistics, first)
        return super().m_step(moved, statistics, last) if last else moved

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        return self.component.constrain(params, before)

    def gradient_at(self, s: Record, local: Tree, data: Data, weights: Array | None = None) -> Record:
        if why := self.component.undrawable or self.chain.undrawable:
            raise ValueError(why)
        return super().gradient_at(s, local, data, weights)

    def singular(self, params: Record) -> Array:
        return self.component.singular(params)

    def ill_conditioned(self, params: Record) -> Array:
        return self.component.ill_conditioned(params)

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        return self.component.cancelled(params, expectation)

    def without_idle(self, params: Params) -> tuple[HiddenMarkovModel, Record]:
        if self.chain.active is None:
            return self, params
        chain, own = self.chain.without_idle(params)
        order = jnp.arange(chain.n_components)
        return replace(self, n_states=chain.n_components, chain=chain), own | self.component.permute(
            params, order
        )

    # -- moves between optima ------------------------------------------------------------------------

    def propose(
        self, key: Array, params: Record, other: Record, data: Sequences, weights: Array | None
    ) -> Record:
        """Move as a mixture does, half of the time with a window of steps in one state, more or less sticky.

        Such windows are what Hughes, Stephenson & Sudderth (2015), section 3, give new states.
        """

        def responsibilities(params: Record) -> Array:
            return jnp.concatenate([x.reshape(-1, self.n_states) for x in uses.marginals(self, params, data)])

        r = responsibilities(params)
        rows, seen = self._all_rows(data, weights)
        place = numbers_here(len(seen)) / n_all_rows(seen)
        states = self.chain.where_active(jnp.zeros(self.n_states, r.dtype))

        def update(key: Array, r: Array) -> Record:
            keys = jax.random.split(key)
            centre, width, stickiness, windowed = jax.random.uniform(keys[0], (4,), r.dtype)
            state = jax.random.categorical(keys[1], states)
            inside = (jnp.abs(place.astype(r.dtype) - centre) < _WIDEST / 2 * width) & (windowed < 0.5)
            r = jnp.where(inside[:, None], jax.nn.one_hot(state, self.n_states, dtype=r.dtype), r)
            return self.at_responsibilities(params, r, data, weights, stickiness)

        score = lambda params: self.objective(params, expectation(self, params, data, weights))
        both, active = (r, responsibilities(other)), self.chain.mask()
        return moves.propose(key, self.component, rows, seen, *both, active, update, score)

    def at_responsibilities(
        self,
        params: Record,
        r: Float[Array, "t k"],
        data: Sequences,
        weights: Array | None,
        stickiness: Float[Array, ""],
    ) -> Record:
        """Return the parameters after an update from given probabilities of the states of all steps.

        Transitions are counted as if successive states were independent given the data, but for the part
        `stickiness` of them, in which the state stays.
        """
        chain, components = self.prepare(params)
        rows, seen = self._all_rows(data, weights)

        def statistics(some: tuple[Data, Array], w: Array) -> Record:
            return self.component.log_density(components, some[0])[1](w * some[1].T)

        chunk = self.component.chunk_rows(self.component.bare(rows))
        total = sum_over_rows(statistics, (rows, r), seen, chunk=chunk)
        ends = np.cumsum([part.observed.size for part in data.parts])[:-1]
        weights = jnp.ones(data.n_rows, r.dtype) if weights is None else weights

        def transitions(part: Steps, own: Array, w: Array) -> dict[str, Tree]:
            q = own.reshape(*part.observed.shape, -1)
            pairs = jnp.einsum("ntk,ntl->nkl", q[:, :-1], q[:, 1:])
            stays = pairs.sum(2)[..., None] * jnp.eye(self.n_states, dtype=q.dtype)
            pairs = (1 - stickiness) * pairs + stickiness * stays
            return self.chain.statistics(chain, chains.Posterior(jnp.zeros_like(w), q, pairs), w)

        each = map(transitions, data.parts, jnp.split(r, ends), data.split(weights))
        total |= add_up(jax.tree.map(lambda *x: sum(x), *each))
        return self.m_step(params, total, self.factors)

    # -- use -----------------------------------------------------------------------------------------

    def state_probabilities(self, params: Params, data: Data) -> Tree:
        """Return q(z_t = k) of every step, (t, K): of one sequence an array, of several a list of them."""
        return for_every_step(uses.marginals, self, params, self._possible(params, data))

    def decode(self, params: Params, data: Data) -> Tree:
        """Return the most probable path of states, (t,), by Viterbi's algorithm: an array, or a list."""
        return for_every_step(uses.paths, self, params, self._possible(params, data))

    def log_predictive(self, params: Params, data: Data) -> Float[Array, " n"]:
        """Return log p of every sequence, (n,), in nats: by EM the log likelihood.

        By variational Bayes with the chain at its mean, and parameters of each step's own, drawn from q.
        """
        return uses.log_predictive(self, params, self.read(data))

    def predict_states(self, params: Params, data: Data, n_steps: int) -> Float[Array, "n s k"]:
        """Return p(z_{T+s}), s = 1 .. n_steps, after the last step of every sequence, (n, n_steps, K)."""
        data, n_steps = self.read(self._possible(params, data)), read_count(n_steps, "n_steps")
        return uses.predict_states(self, params, data, n_steps)

    def forecast(
        self,
        params: Params,
        key: Array,
        data: Data,
        n_steps: int,
        n_draws: int = 1000,
        *,
        given: Given = None,
    ) -> Data:
        """Draw the steps that follow the last one of every sequence, (n_draws, n, n_steps, ...).

        Quantiles of the draws are the forecast's intervals. After variational Bayes each has parameters of
        its own, drawn from q.

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
            ValueError: a key, a number or a `given` that is none; regressions without it; of autoregressions
                a sequence of which one of the last steps is missing.
        """
        sizes = read_count(n_steps, "n_steps"), read_count(n_draws, "n_draws")
        given = self.component.read_given(given, sizes[0])
        data = self.read(self._possible(params, data))
        before = self.component.steps_before(data)
        return uses.forecast(self, params, read_key(key), data, before, *sizes, given)

    def sample(
        self, params: Params, key: Array, n: int, *, given: Given = None
    ) -> tuple[Int[Array, " n"], Any]:
        """Draw a new sequence of n steps: its states (n,) and the steps (n, ...).

        Args:
            params: of a fit.
            key: PRNG key.
            n: how many steps.
            given: as of `forecast`; of autoregressions of order L the steps before the new ones, (L, d), the
                last one last, by default the mean of the fit's data.
        """
        n = read_count(n, "n")
        before, given = self.component.read_beginning(given, n)
        return uses.sample(self, params, read_key(key), n, before, given)

    def sample_posterior(self, params: Params, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draw the parameters."""
        return sample_posterior(params, key, n)

    def replicate(self, params: Params, key: Array, data: Data, n_draws: int) -> Data:
        return uses.replicate(self, params, key, self._possible(params, data), n_draws)

    def simulate(self, params: Params, key: Array, data: Sequences) -> Sequences:
        return uses.simulate(self, params, key, data)

    def _possible(self, params: Params, data: Data) -> Data:
        """Return the data; raise where labels have probability 0, so that no path of states is left."""
        read = isinstance(data, Sequences) and data.parts[0].labels is not None
        if (read or isinstance(data, Labelled)) and is_concrete((params, data)):
            impossible = np.isneginf(np.asarray(self.log_predictive(params, data)))
            if impossible.any():
                raise ValueError(
                    "labels must be possible by the transitions of params; those of sequence "
                    f"{impossible.argmax()} have probability 0"
                )
        return data

    def durations(self, params: Params) -> Float[Array, " k"]:
        """Return expected steps in each state before it is left, 1 / (1 - A_kk) at the mean of A, (K,)."""
        return 1 / (1 - jnp.diagonal(params.transitions.mean))

    # -- criteria of point estimates -----------------------------------------------------------------

    def total_log_likelihood(self, params: Params, data: Data) -> Float[Array, ""]:
        """Return the log likelihood of all sequences, in nats."""
        return self.log_predictive(params, data).sum()

    @property
    def n_parameters(self) -> int:
        """Free parameters: of the first state, the transitions and the component."""
        if not self.points:
            raise ValueError(
                "n_parameters, aic and bic are of maximum likelihood; after VB compare the bounds"
            )
        k = self.n_states - self.chain.n_idle
        return k - 1 + k * (k - 1) + self.component.of(k, True).n_parameters

    def bic(self, params: Params, data: Data) -> Float[Array, ""]:
        """Return -2 log L + (free parameters) log (steps); smaller is better (Schwarz 1978). After EM."""
        data, penalty = self.read(data), self.n_parameters
        log_n = jnp.log(data.n_steps.astype(float_dtype(data)))
        return penalty * log_n - 2 * self.total_log_likelihood(params, data)

    def aic(self, params: Params, data: Data) -> Float[Array, ""]:
        """Return -2 log L + 2 (free parameters); smaller is better (Akaike 1974). After EM."""
        return 2 * self.n_parameters - 2 * self.total_log_likelihood(params, data)


@pytree
class BayesianHiddenMarkovModel(HiddenMarkovModel):
    """A hidden Markov model by variational Bayes: every row of transitions has a factor

        Dirichlet(alpha + stickiness at itself + xi),

    and the E-step is that of a chain with the weights exp E[log A], which are not normalised: the bound has
    the log-normaliser of that chain.

    Data: as of `HiddenMarkovModel`. The factors are `initial` (K,), `transitions` (K, K) and the component's
    own.

    Args:
        n_states: K.
        component: what a step is in each state, of `vb.components`.
        chain: what chooses the states, `vb.labels.Chain` or `vb.labels.HDPChain`.

    References:
        Beal (2003), Variational algorithms for approximate Bayesian inference, chapter 3; Fox et al. (2011)
        for stickiness.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.BayesianHiddenMarkovModel(2, vb.components.Poisson(), vb.labels.Chain(stickiness=2.0))
    >>> fit = vb.fit(model, x, key=jax.random.key(0), n_restarts=4)
    >>> sorted(fit.params.components.mean[:, 0].round().tolist())
    [15.0, 26.0]
    """

    points: ClassVar[bool] = False


@pytree
class HDPHiddenMarkovModel(HiddenMarkovModel):
    """A hidden Markov model whose states have unequal weight; it finds how many are used.

    Its chain is `vb.labels.HDPChain`, the process truncated at `n_states`; else as
    `BayesianHiddenMarkovModel`. The bound has a lower bound of the rows' prior in its place, so the objective
    stays below the evidence, and no update lowers it. Where a fit ends with two states that do the work of
    one, `vb.fit(..., search=True)` merges them.

    Data: see `HiddenMarkovModel`. The factors are `initial` (K,), `transitions` (K, K), `weights`
    (StickBreaking, (K,)) and the component's own.

    Args:
        n_states: K, at least 2, where the process is truncated: more than are expected. Every state that is
            not used costs the bound a few nats.
        component: what a step is in each state, of `vb.components`.
        transition_concentration, weight_concentration, stickiness: see `vb.labels.HDPChain`.

    Raises:
        ValueError: as `HiddenMarkovModel`.

    References:
        Teh, Jordan, Beal & Blei (2006), Hierarchical Dirichlet processes, section 7; Fox, Sudderth, Jordan &
        Willsky (2011), A sticky HDP-HMM, section 3; Hughes, Stephenson & Sudderth (2015), Scalable adaptation
        of state complexity for nonparametric hidden Markov models, section 2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.HDPHiddenMarkovModel(6, vb.components.Poisson())
    >>> fit = vb.fit(model, x, key=jax.random.key(0), search=True)
    >>> len(set(fit.model.decode(fit.params, x).tolist()))
    3
    """

    n_states: int = count("k", least=2)
    points: ClassVar[bool] = False

    def __init__(
        self,
        n_states: int,
        component: Any,
        *,
        transition_concentration: Hyper = 1.0,
        weight_concentration: Hyper = 1.0,
        stickiness: Hyper = 0.0,
    ) -> None:
        chain = HDPChain(transition_concentration, weight_concentration, stickiness)
        super().__init__(n_states, component, chain)

    def used_states(self, params: Params) -> Bool[Array, " k"]:
        """Return which states are entered more than once, by the rows that the fit found, (K,)."""
        return self.chain.used(params)
