"""What hidden Markov models share: what their steps are in each state, and the E-step of their chain.

Not a model itself: `hidden_markov.py` and `hdp_hidden_markov.py` say what the chain's rows are drawn from.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax import chains
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import Expectation, float_dtype, sum_over_rows, sweep_rows
from vbjax.data.sequences import Sequences, Steps
from vbjax.families.base import replace
from vbjax.families.delta import unless_unknown
from vbjax.models.components.component import Component
from vbjax.models.labels.weights import from_counts
from vbjax.numerics.record import Record

_CHUNK = 2**17  # numbers in a chunk's table of sequences x steps x states, which stays in the cache

CHAIN = ("initial", "transitions")


class Prepared(NamedTuple):
    """Statistics of the chain, and what the component needs.

    `counts_as`: which state each one counts as, (K, K), where it is not itself.
    """

    initial: Any
    transitions: Any
    components: Any
    counts_as: Array | None = None


class HiddenMarkovBase(ConjugateModel):
    """x_t | z_t from component z_t, z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions.

    Subclasses are dataclasses with `n_states` and `component`, and factors `initial`, `transitions`, those of
    the component, and perhaps others.
    """

    n_states: int
    component: Any
    points: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.component, Component):
            object.__setattr__(self, "component", self.component.of(self.n_states, self.points))

    # -- data and hyperparameters --------------------------------------------------------------------

    def read(self, data: Any) -> Sequences:
        data = data if isinstance(data, Sequences) else Sequences.of(data)
        rows = self.read_steps(data.steps())
        cast_all = lambda x: jax.tree.map(lambda leaf, row: leaf.astype(row.dtype), x, rows)
        parts = tuple(part._replace(values=cast_all(part.values)) for part in data.parts)
        return dataclasses.replace(data, parts=parts)

    def read_steps(self, steps: Any) -> Any:
        """Steps that are observed, end to end, as the component takes them."""
        return self.component.read(steps)

    def rows_of(self, part: Steps) -> tuple[Any, Array]:
        """Return the rows of all sequences end to end, padding too; and where there is one, (n, t)."""
        return part.flat, part.observed

    def sizes(self, data: Sequences) -> dict[str, int]:
        return self.component.sizes(data.parts[0].values)

    def inspect(self, data: Sequences) -> Any:
        rows = jax.tree.map(jnp.asarray, data.steps())
        model: Any = self
        return replace(model, component=self.component.inspect(rows))

    def resolved_component(self, data: Sequences, weights: Array | None) -> Any:
        """Return the component with every default that follows the data filled in."""
        return self.component.resolve(*self.all_rows(data, weights))

    def annotate(self, data: Sequences, weights: Array | None = None) -> Sequences:
        def annotated(part: Steps) -> Steps:
            rows, seen = self.rows_of(part)
            flat = self.component.annotate(rows, seen.reshape(-1).astype(float_dtype(part)))
            shape = part.observed.shape
            return part._replace(values=jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), flat))

        return dataclasses.replace(data, parts=tuple(map(annotated, data.parts)))

    def chunk_rows(self, data: Steps) -> int:
        return max(1, _CHUNK // (data.observed.shape[1] * self.n_states))

    def init(self, key: Array, data: Sequences, weights: Array | None = None) -> Record:
        """Components as the mixture starts, and a chain without preferences."""
        dtype = float_dtype(data)
        own = self.start_component(key, *self.all_rows(data, weights))
        chain = {name: f.neutral(dtype) for name, f in self.factors.items() if name not in own}
        return Record(chain, **own)

    def start_component(self, key: Array, rows: Any, weights: Array) -> Record:
        """Draw a start of the component, given rows of which those of weight 0 are none."""
        return self.component.start(key, rows, weights)

    def all_rows(self, data: Sequences, weights: Array | None) -> tuple[Any, Array]:
        """Return the component's rows, and their weights: those of their sequence, 0 where there is none."""

        def rows(part: Steps) -> Steps:
            flat, seen = self.rows_of(part)
            values = jax.tree.map(lambda x: x.reshape(*seen.shape, *x.shape[1:]), flat)
            return part._replace(values=values, observed=seen)

        return dataclasses.replace(data, parts=tuple(map(rows, data.parts))).weighted_steps(weights)

    # -- E-step and M-step ---------------------------------------------------------------------------

    def prepare(self, params: Any) -> Prepared:
        factors = self.factors
        initial, transitions = (factors[name].expected(params[name]) for name in CHAIN)
        return Prepared(initial, transitions, self.component.prepare(params))

    def table(self, prepared: Prepared, rows: Steps) -> Float[Array, "n t k"]:
        """E[log p(x_t | z_t)] of every step; 0 where nothing is seen."""

        def score(flat: Any, seen: Array, _: Any) -> tuple[Any, Any]:
            density = self.component.log_density(prepared.components, flat)[0]
            return (), jnp.where(seen > 0, density, 0).T

        return self._by_steps(score, rows)

    def _by_steps(self, score: Callable[..., Any], rows: Steps) -> Float[Array, "n t k"]:
        flat, there = self.rows_of(rows)
        seen = there.reshape(-1).astype(float_dtype(rows))
        blank = jnp.zeros((seen.shape[0], self.n_states), seen.dtype)
        chunk = self.component.chunk_rows(self.component.bare(flat))
        return sweep_rows(score, flat, seen, blank, chunk=chunk)[1].reshape(*rows.observed.shape, -1)

    def posterior_chain(self, prepared: Prepared, table: Array, lengths: Array) -> chains.Posterior:
        """The states of some sequences: log-normalisers (n,), marginals (n, t, k) and pairs (n, k, k)."""
        smoother = functools.partial(chains.smoother, prepared.initial.log, prepared.transitions.log)
        return jax.vmap(smoother)(table, lengths)

    def e_step(self, prepared: Prepared, rows: Steps, weights: Array) -> Expectation:
        """Rabiner (1989), eq. 27, 37 and 40: sums of marginals and pairs, and the components' statistics."""
        table = self.table(prepared, rows)
        found = self.posterior_chain(prepared, table, rows.lengths)
        if (to := prepared.counts_as) is not None:
            found = found._replace(marginals=found.marginals @ to, pairs=to.T @ found.pairs @ to)
        bound = jnp.where(weights == 0, 0, weights * found.log_normalizer)
        # densities above and below 1 cancel in a bound, their roundings do not
        added = jnp.where(found.marginals > 0, found.marginals * jnp.abs(table), 0).sum((1, 2))
        magnitude = jnp.abs(bound) + jnp.where(weights == 0, 0, weights * added)
        flat, there = self.rows_of(rows)
        seen = there.astype(weights.dtype)
        r = (weights[:, None, None] * seen[..., None] * found.marginals).reshape(-1, self.n_states)

        def statistics(some: Any, w: Array) -> Record:
            own, r = some
            return self.component.log_density(prepared.components, own)[1](w * r.T)

        chunk = self.component.chunk_rows(self.component.bare(flat))
        components = sum_over_rows(statistics, (flat, r), seen.reshape(-1), chunk=chunk)
        sums = Record(
            initial=from_counts(prepared.initial, weights @ found.marginals[:, 0]),
            transitions=from_counts(prepared.transitions, jnp.tensordot(weights, found.pairs, 1)),
            **components,
        )
        n_steps = weights @ rows.lengths.astype(weights.dtype)
        return Expectation(sums, bound.sum(), magnitude.sum(), n_steps)

    def m_step(self, params: Any, statistics: Any, block: Iterable[str]) -> Record:
        block = tuple(block)
        if not self.points:
            return super().m_step(params, statistics, block)
        statistics = self.component.steady(statistics)
        moved = super().m_step(params, statistics, block)
        # what comes next of a state that is never left is not known
        plates = dict(initial=0, transitions=1)
        chain = [name for name in block if name in plates]
        moved |= {name: unless_unknown(moved[name], params[name], plates[name]) for name in chain}
        return self.component.move_points(self, params, statistics, moved, block)

    def mix(self, params: Record, moved: Record, rho: ArrayLike, block: Iterable[str]) -> Record:
        if (why := self.component.whole_steps_only) is not None:
            raise ValueError(why)
        return super().mix(params, moved, rho, block)

    def singular(self, params: Record) -> Array:
        return self.component.singular(params)

    def ill_conditioned(self, params: Record) -> Array:
        return self.component.ill_conditioned(params)

    def cancelled(self, params: Any, expectation: Expectation) -> Any:
        return self.component.cancelled(params, expectation)

    def local_entropies(self, params: Any) -> Callable[[Steps], dict[str, Array]]:
        prepared = self.prepare(params)
        entropy = functools.partial(chains.entropy, prepared.initial.log, prepared.transitions.log)
        return lambda rows: {"z": jax.vmap(entropy)(self.table(prepared, rows), rows.lengths)}
