"""MarkovChain: a path of states; its log-normaliser is the forward pass, its gradient the smoother."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax.chains import discrete as chains
from vbjax.families.base import State, Statistics, pytree
from vbjax.families.chain import ChainFamily, Extent, draw_paths, over_cells
from vbjax.numerics.inputs import as_numbers, is_concrete
from vbjax.numerics.linalg import outer
from vbjax.numerics.special import finite_log, itakura_saito
from vbjax.numerics.types import Data, Tree

_CHUNK = 2**17  # numbers in a pass's table of chains x steps x states, which stays in the cache


class Path(NamedTuple):
    """Path of states' numbers (..., T), as a point, and where something is observed; None for everywhere."""

    states: Int[Array, "*plate t"]
    observed: Bool[Array, "*plate t"] | None


@pytree
class MarkovChainStatistics(Statistics):
    """Expected statistics of a path z_1, ..., z_T through K states, which a log joint may use.

    `first` (K,) are the probabilities of the first state, `pairs` (K, K) the expected numbers of transitions
    from each state to each, `p` (T, K) the probabilities of the states at the steps at which something is
    observed. At the other steps, and after a chain's end, `p` is 0: a sum over all steps of `p` times the log
    densities of what is observed has nothing of steps that are missing.

    >>> import vbjax as vb
    >>> print(vb.families.MarkovChainStatistics.of_path([0, 0, 1, 0], 2, "float32").pairs)  # transitions
    [[1. 1.]
     [1. 0.]]
    """

    first: Float[Array, "*plate k"]
    pairs: Float[Array, "*plate k k"]
    p: Float[Array, "*plate t k"]
    events = {"first": 1, "pairs": 2, "p": 2}

    @classmethod
    def of_path(cls, x: ArrayLike, size: int, dtype: DTypeLike, observed: Array | None = None) -> Tree:
        """Return the statistics of a path of states' numbers (..., T); -1 where there are no more steps."""
        p = jax.nn.one_hot(jnp.asarray(x, int), size, dtype=dtype)
        pairs = jnp.einsum("...ti,...tj->...ij", p[..., :-1, :], p[..., 1:, :])
        return cls(p[..., 0, :], pairs, _where_observed(observed, p))

    def value_at(self, point: Path) -> Int[Array, "*plate t"]:
        return point.states

    def of_value(self, x: ArrayLike, point: Path) -> MarkovChainStatistics:
        return self.of_path(x, self.first.shape[-1], self.first.dtype, point.observed)


def _where_observed(observed: Array | None, p: Array) -> Array:
    return p if observed is None else jnp.where(observed[..., None], p, 0)


@pytree
class MarkovChainState(State[MarkovChainStatistics]):
    """Paths weighted by exp(initial[z_1] + sum_t transitions[z_t, z_t+1] + sum_t evidence[t, z_t]).

    The log weights, (K,), (K, K) and (T, K), need not be normalised. A value is the path of the states'
    numbers, (T,), -1 where there are no more steps.

    Attributes:
        initial, transitions, evidence: the log weights.
        extent: how long each chain is, where they are of unequal length.
        found: what the smoother finds of them, where that is known already.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> begin, move = jnp.array([0.0, -jnp.inf]), jnp.log(jnp.array([[0.9, 0.1], [0.2, 0.8]]))
    >>> q = vb.families.MarkovChainState(begin, move, jnp.zeros((3, 2)))
    >>> print(f"{q.probabilities[2, 0]:.2f}")  # two steps after state 0: 0.9 x 0.9 + 0.1 x 0.2
    0.83
    """

    initial: Float[Array, "*plate k"]
    transitions: Float[Array, "*plate k k"]
    evidence: Float[Array, "*plate t k"]
    extent: Extent | None = None
    found: chains.Posterior | None = None
    domains = {"initial": "real", "transitions": "real", "evidence": "real"}

    @property
    def _plate(self) -> tuple[int, ...]:
        return self.evidence.shape[:-2]

    @property
    def _weights(self) -> tuple[Tree, ...]:
        """Arguments of the functions of `vbjax.chains`."""
        lengths = None if self.extent is None else self.extent.lengths
        return self.initial, self.transitions, self.evidence, lengths

    @property
    def posterior(self) -> chains.Posterior:
        """Log-normaliser, marginals (T, K) and expected numbers of transitions (K, K)."""
        return over_cells(chains.smoother, self._plate, *self._weights) if self.found is None else self.found

    @property
    def probabilities(self) -> Float[Array, "*plate t k"]:
        """Probabilities of the states at every step, (T, K), missing steps too; 0 after the end."""
        return self.posterior.marginals

    def read_value(self, x: Data) -> Array:
        """Return paths of numbers of states, whole and from 0 to K - 1, or -1 after the end."""
        given = as_numbers(x, "x")
        value, size = super().read_value(given), self.initial.shape[-1]
        if is_concrete(given):
            numbers = np.asarray(given)
            if not ((numbers >= -1) & (numbers < size) & (numbers == np.floor(numbers))).all():
                raise ValueError(
                    f"x must be whole numbers from 0 to {size - 1}, or -1 after the end; "
                    f"got {reprlib.repr(x)}"
                )
        return value

    def statistics(self, x: ArrayLike) -> MarkovChainStatistics:
        observed = None if self.extent is None else self.extent.observed
        return MarkovChainStatistics.of_path(x, self.initial.shape[-1], self.initial.dtype, observed)

    def expected(self) -> MarkovChainStatistics:
        found = self.posterior
        observed = None if self.extent is None else self.extent.observed
        return MarkovChainStatistics(
            found.marginals[..., 0, :], found.pairs, _where_observed(observed, found.marginals)
        )

    def log_density(self, statistics: MarkovChainStatistics) -> Float[Array, "*plate"]:
        t, (initial, transitions, evidence) = statistics, map(finite_log, self._weights[:3])
        weight = (t.first * initial).sum(-1) + (t.pairs * transitions).sum((-1, -2))
        return weight + (t.p * evidence).sum((-1, -2)) - self.posterior.log_normalizer

    def base_entropy(self) -> Float[Array, "*plate"]:
        return over_cells(chains.entropy, self._plate, *self._weights)

    def _steps(self) -> tuple[Array, Array]:
        """Return probabilities of the first state (K,), and of every state with the next (T - 1, K, K)."""
        initial, transitions, evidence, lengths = self._weights
        steps = (*self._plate, evidence.shape[-2] - 1, *transitions.shape[-2:])
        each = jnp.broadcast_to(transitions[..., None, :, :], steps)
        found = over_cells(chains.smoother, self._plate, initial, each, evidence, lengths)
        return found.marginals[..., 0, :], found.pairs

    def divergence(self, other: MarkovChainState) -> Float[Array, "*plate"]:
        """Return the KL of the first states and of every next one given its past (Cover & Thomas, 2.67)."""
        (first, pairs), (first0, pairs0) = self._steps(), other._steps()
        before, before0 = pairs.sum(-1, keepdims=True), pairs0.sum(-1, keepdims=True)
        given0 = before * pairs0 / jnp.where(before0 > 0, before0, 1)
        return _kl(first, first0).sum(-1) + _kl(pairs, given0).sum((-1, -2, -3))

    @property
    def mean(self) -> Float[Array, "*plate t k"]:
        return self.probabilities

    @property
    def variance(self) -> Float[Array, "*plate t k"]:
        return self.probabilities * (1 - self.probabilities)

    @property
    def covariance(self) -> Float[Array, "*plate t k k"]:
        """Covariance of the one-hot states within every step, (T, K, K)."""
        p = self.probabilities
        return p[..., :, None] * jnp.eye(p.shape[-1], dtype=p.dtype) - outer(p, p)

    @property
    def mode(self) -> Int[Array, "*plate t"]:
        """Path of the greatest weight, by the Viterbi algorithm."""
        return over_cells(chains.viterbi, self._plate, *self._weights).states

    def draw(self, key: Array, shape: tuple[int, ...]) -> Int[Array, "*draws t"]:
        return draw_paths(chains.sample_paths, self._plate, key, shape, *self._weights)


def _kl(p: Array, q: Array) -> Array:
    """Return p log(p / q) - p + q of masses whose sums are the same: nothing cancels where they are near."""
    positive = p > 0
    ratio = jnp.where(positive, q, 1) / jnp.where(positive, p, 1)
    return jnp.where(positive, p * itakura_saito(ratio), q)


@dataclasses.dataclass(frozen=True)
class MarkovChain(ChainFamily[MarkovChainState, MarkovChainStatistics]):
    """Path through `size` states for each cell of `plate`: q = a Markov chain with evidence at every step.

    As a local factor of a model of sequences (`vb.Sequences`), `local=dict(z=vb.MarkovChain(3))`, every row
    has a chain with the steps of its sequence. The term of its prior is `terms.markov_chain`; what a step
    says is a sum over steps and states of `s.z.p` times log densities. The optimum in q is the posterior of a
    hidden Markov model with these weights, which in variational Bayes are not normalised (Beal 2003, section
    3.4): its log-normaliser is the forward pass of `vbjax.chains`, and its statistics are the smoother's.

    Args:
        size: K, states.
        steps: T, of every chain; None for a local factor of sequences.
        plate: leading axes.

    Raises:
        ValueError: what is no whole number of at least 1.

    References:
        Rabiner (1989), A tutorial on hidden Markov models; Beal (2003), Variational algorithms for
        approximate Bayesian inference, chapter 3; Bishop (2006), section 13.2.

    >>> import jax, vbjax as vb
    >>> from vbjax.terms import dirichlet, gamma, markov_chain, poisson
    >>> model = vb.Model(
    ...     factors=dict(start=vb.Dirichlet(2), move=vb.Dirichlet(2, plate=(2,)), rate=vb.Gamma((2,))),
    ...     local=dict(z=vb.MarkovChain(2)),
    ...     log_prior=lambda s: (
    ...         dirichlet(s.start, 1.0) + (dirichlet(s.move, 1.0) + gamma(s.rate, 1.0, 0.1)).sum()
    ...     ),
    ...     log_likelihood=lambda s, y: (
    ...         markov_chain(s.z, s.start, s.move) + (s.z.p * poisson(y.values, s.rate)).sum((-2, -1))
    ...     ),
    ... )
    >>> quakes = vb.Sequences.of([vb.datasets.earthquakes()])
    >>> fit = vb.fit(model, quakes, key=jax.random.key(0))
    >>> fit.model.posterior(fit.params, quakes).z.probabilities.shape
    (1, 107, 2)
    """

    curvature: ClassVar[str | None] = "p"

    def neutral(self, dtype: DTypeLike) -> MarkovChainState:
        zero = self.zero_statistics(dtype)
        return self._state(zero.first, zero.pairs, zero.p)

    def zero_statistics(self, dtype: DTypeLike) -> MarkovChainStatistics:
        nothing = jnp.zeros((*self.plate, self.n_steps, self.size), dtype)
        first = nothing[..., 0, :]
        return MarkovChainStatistics(first, outer(first, first), nothing)

    def chunk_rows(self, usual: int) -> int:
        return max(1, _CHUNK // (self.n_steps * self.size))

    def _state(self, initial: Array, transitions: Array, evidence: Array) -> MarkovChainState:
        """Return the state of these log weights; a local one keeps what the smoother finds."""
        state = MarkovChainState(initial, transitions, evidence, self.extent)
        return state if self.extent is None else dataclasses.replace(state, found=state.posterior)

    def from_gradient(
        self, statistics: MarkovChainStatistics, gradient: MarkovChainStatistics, weight: ArrayLike = 1.0
    ) -> MarkovChainState:
        """Return the state whose log weights are the gradient."""
        copies = jnp.asarray(weight)[..., None]
        initial, transitions, evidence = self._log_weights(gradient)
        return self._state(initial / copies, transitions / copies[..., None], evidence / copies[..., None])

    def maximise(self, statistics: MarkovChainStatistics, gradient: MarkovChainStatistics) -> Path:
        """Return the path of the greatest weight (Viterbi)."""
        observed = None if self.extent is None else self.extent.observed
        return Path(self.from_gradient(statistics, gradient).mode, observed)

    def _log_weights(self, gradient: MarkovChainStatistics) -> tuple[Array, Array, Array]:
        observed = None if self.extent is None else self.extent.observed
        return gradient.first, gradient.pairs, _where_observed(observed, gradient.p)

    def optimum(
        self, statistics: MarkovChainStatistics, gradient: MarkovChainStatistics
    ) -> tuple[MarkovChainState, Array]:
        state = self.from_gradient(statistics, gradient)
        return state, state.posterior.log_normalizer

    def log_normalizer(
        self, statistics: MarkovChainStatistics, gradient: MarkovChainStatistics
    ) -> Float[Array, "*plate"]:
        lengths = None if self.extent is None else self.extent.lengths
        return over_cells(chains.log_normalizer, self.plate, *self._log_weights(gradient), lengths)
