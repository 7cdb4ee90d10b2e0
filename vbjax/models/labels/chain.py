"""Labels that follow one another: the Markov chains of hidden Markov models.

A chain says what the first state and the rows of transitions are drawn from; `infer` is the forward and
backward pass of `vbjax.chains`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax import chains
from vbjax.core.hyperparameters import NON_NEGATIVE, POSITIVE, Range, at_least, hyper
from vbjax.core.model import in_dtype
from vbjax.data.moments import fill_defaults
from vbjax.families.base import pytree, replace
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.families.shared_sticks import SharedSticks, log_shared_dirichlet
from vbjax.families.stick_breaking import StickBreakingState
from vbjax.models.labels.labels import Labels, first_cells
from vbjax.models.labels.weights import from_counts, stick_prior
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper, Tree

_LONGEST = 1000  # steps, about, that a state of a start lasts
ROWS = ("initial", "transitions")  # the factors of what the next state is drawn from


class Prepared(NamedTuple):
    """Statistics of the chain's factors."""

    s: Record

    @property
    def log(self) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
        """E[log p] of the first state, and of the next one given each."""
        return self.s.initial.log, self.s.transitions.log


@pytree
class MarkovLabels(Labels):
    """Base of Markov chains of labels: z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions."""

    fits_points: ClassVar[bool] = True
    """Whether the chain may be of points."""

    last: ClassVar[tuple[str, ...]] = ()
    """Factors that are updated after the others, which they follow."""

    @property
    def factors(self) -> Record:
        k = self.n_components
        rows = dict(initial=Dirichlet(k), transitions=Dirichlet(k, plate=(k,)))
        return Record({name: Delta(family) if self.points else family for name, family in rows.items()})

    def prepare(self, params: Record) -> Prepared:
        return Prepared(Record({name: f.expected(params[name]) for name, f in self.factors.items()}))

    def neutral(self, dtype: DTypeLike) -> Record:
        """Return a chain without preferences among the states that it may be in."""
        return Record({name: family.neutral(dtype) for name, family in self.factors.items()})

    def start(self, key: Array, number: ArrayLike, dtype: DTypeLike) -> Record:
        """Draw factors to start from, in the run of this number: the first chain has no preferences.

        Those of other runs stay in a state for some steps, up to a thousand or so, in even logarithms.
        Starts that differ in components alone find the same optimum again and again.
        """
        even, k = self.neutral(dtype), self.n_components
        uniform = jnp.where(number == 0, 0, jax.random.uniform(key, (), dtype))
        stays = 1 + (k - 1) * jnp.expm1(uniform * math.log(_LONGEST)) * jnp.eye(k, dtype=dtype)
        plain = even.transitions.value if self.points else even.transitions.concentration
        rows = DirichletState(plain * stays)
        own = replace(even.transitions, value=rows.mean) if self.points else rows
        return even | Record(transitions=own)

    # -- the states of sequences ---------------------------------------------------------------------

    def infer(
        self, prepared: Prepared, table: Float[Array, "n t k"], lengths: Int[Array, " n"]
    ) -> chains.Posterior:
        """Compute log-normalisers (n,), marginals (n, t, k) and pairs (n, k, k) of some sequences' states.

        Rabiner (1989), eq. 27 and 37.

        Args:
            prepared: the chain's weights.
            table: E[log p(x_t | z_t)] of every step.
            lengths: of the sequences.
        """
        return jax.vmap(lambda table, length: chains.smoother(*prepared.log, table, length))(table, lengths)

    def statistics(
        self, prepared: Prepared, found: chains.Posterior, weights: Float[Array, " n"]
    ) -> dict[str, Tree]:
        """Compute the gradient of the expected log density of these states in the factors' statistics."""
        s = prepared.s
        counts = dict(
            initial=from_counts(s.initial, weights @ found.marginals[:, 0]),
            transitions=from_counts(s.transitions, jnp.tensordot(weights, found.pairs, 1)),
        )
        return {name: counts.get(name, jax.tree.map(jnp.zeros_like, t)) for name, t in s.items()}

    def log_at_mean(self, params: Record) -> tuple[Float[Array, " k"], Float[Array, "k k"]]:
        """Return the logarithms of the mean probabilities of the first state, and of the next one."""
        return jnp.log(params.initial.mean), jnp.log(params.transitions.mean)


def _with_mode(chain: Any) -> Range:
    """Return the range of concentrations: by EM of those with a mode inside the simplex."""
    return at_least(1, " by EM") if chain.points else POSITIVE


@pytree
class Chain(MarkovLabels):
    """Markov chain z_1 ~ initial, z_t | z_{t-1} ~ row z_{t-1} of transitions, each ~ Dirichlet.

    Points, by EM, are the expected numbers of first states and of transitions, each row divided by its sum
    (Rabiner 1989, eq. 40a and 40b), with a prior plus its concentration less 1. By variational Bayes a row is
    Dirichlet(concentration + stickiness at itself + expected transitions).

    Args:
        initial_concentration: alpha of the first state, a number or (K,); by default 1 / K, of points none.
            Of points at least 1.
        transition_concentration: alpha of the next state, a number, (K,) or (K, K); likewise.
        stickiness: what is added to that of the state itself; by default 0.

    References:
        Rabiner (1989), A tutorial on hidden Markov models; Beal (2003), Variational algorithms for
        approximate Bayesian inference, chapter 3; Fox et al. (2011) for stickiness.

    >>> import vbjax as vb
    >>> vb.BayesianHiddenMarkovModel(2, vb.components.Poisson(), vb.labels.Chain(stickiness=10.0))
    BayesianHiddenMarkovModel(
        n_states=2,
        component=components.Poisson(),
        chain=labels.Chain(stickiness=10.0),
    )
    """

    initial_concentration: Hyper = hyper(None, lambda chain, sizes: (_with_mode(chain), "k"))
    transition_concentration: Hyper = hyper(None, lambda chain, sizes: (_with_mode(chain), "k", "k k"))
    stickiness: Hyper = hyper(0.0, NON_NEGATIVE)

    all_active: ClassVar[str | None] = None

    @property
    def has_prior(self) -> bool:
        return any(x is not None for x in (self.initial_concentration, self.transition_concentration))

    def neutral(self, dtype: DTypeLike) -> Record:
        neutral = super().neutral(dtype)
        if self.active is None:
            return neutral
        if self.points:
            even = self.where_active(jnp.full(self.n_components, 1 / self.n_active, dtype), 0)
            value = lambda state: jnp.broadcast_to(even, state.value.shape)
            return Record({name: replace(state, value=value(state)) for name, state in neutral.items()})
        cells = lambda state: DirichletState(self.with_idle_cells(state.concentration))
        return Record({name: cells(state) for name, state in neutral.items()})

    def without_idle(self, params: Record) -> tuple[Chain, Record]:
        priors = self.initial_concentration, self.transition_concentration
        priors, own = first_cells((priors, params), self.n_idle)
        chain = replace(self, n_components=self.n_components - self.n_idle, active=None)
        return replace(chain, initial_concentration=priors[0], transition_concentration=priors[1]), own

    def resolve(self, dtype: DTypeLike) -> Chain:
        even = jnp.full((self.n_components, self.n_components), 1 / self.n_active)
        defaults = dict(initial_concentration=even[0], transition_concentration=even)
        if self.points:  # what is not given is no prior
            defaults = {name: x for name, x in defaults.items() if getattr(self, name) is not None}
        return fill_defaults(self, dtype, **defaults)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        total = jnp.zeros((), s.initial.log.dtype)
        if (alpha := self.initial_concentration) is not None:
            total = total + DirichletState(self.with_idle_cells(alpha)).log_density(s.initial)
            total = total + s.initial.base
        if (alpha := self.transition_concentration) is not None:
            own = self.stickiness * jnp.eye(self.n_components, dtype=alpha.dtype)
            prior = DirichletState(self.with_idle_cells(alpha + own))
            total = total + (prior.log_density(s.transitions) + s.transitions.base).sum()
        return total


@pytree
class HDPChain(MarkovLabels):
    """A chain of a hierarchical Dirichlet process: all rows share the weights of the states.

        w ~ GEM(gamma), pieces of a stick:  w_k = v_k prod_{j<k} (1 - v_j),  v_k ~ Beta(1, gamma),
        initial ~ Dirichlet(alpha w),   row k of transitions ~ Dirichlet(alpha w + kappa at k).

    The weights are not conjugate to the rows, whose log density has a lower bound in its place that is
    (`vbjax.families.shared_sticks`); they climb in it, given the rows.

    Args:
        transition_concentration: alpha; by default 1.
        weight_concentration: gamma; by default 1.
        stickiness: kappa, what is added for the state itself; by default 0.

    References:
        Teh, Jordan, Beal & Blei (2006), section 7; Fox, Sudderth, Jordan & Willsky (2011), section 3.

    >>> import vbjax as vb
    >>> vb.HDPHiddenMarkovModel(6, vb.components.Poisson(), stickiness=5.0).chain
    labels.HDPChain(stickiness=5.0)
    """

    transition_concentration: Hyper = hyper(1.0, POSITIVE)
    weight_concentration: Hyper = hyper(1.0, POSITIVE)
    stickiness: Hyper = hyper(0.0, NON_NEGATIVE)

    fits_points: ClassVar[bool] = False
    last: ClassVar[tuple[str, ...]] = ("weights",)
    undrawable: ClassVar[str | None] = (
        "chain must be such as vb.labels.Chain() to draw parameters: the shared weights of an HDPChain are "
        "not conjugate to its rows"
    )

    @property
    def factors(self) -> Record:
        return super().factors | Record(weights=SharedSticks(self.n_components))

    def resolve(self, dtype: DTypeLike) -> HDPChain:
        return in_dtype(self, dtype)

    @property
    def weights_prior(self) -> StickBreakingState:
        """The prior of the states' weights."""
        return stick_prior(self.n_components, self.weight_concentration)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        own = self.weights_prior.log_density(s.weights) + s.weights.base
        alpha, kappa = self.transition_concentration, self.stickiness
        first = log_shared_dirichlet(s.initial, s.weights, alpha)
        return own + first + log_shared_dirichlet(s.transitions, s.weights, alpha, kappa).sum()

    def used(self, params: Record) -> Bool[Array, " k"]:
        """Return which states are entered more than once, by the rows, (K,)."""
        shared = self.transition_concentration * params.weights.mean
        own = self.stickiness * jnp.eye(self.n_components, dtype=shared.dtype)
        prior = dict(initial=shared, transitions=shared + own)
        counts = [(params[name].concentration - prior[name]).reshape(-1, shared.size) for name in ROWS]
        return jnp.concatenate(counts).sum(0) > 1
