"""What all topic models share: the topics, a document's E-step, start and use.

Not a model itself: `latent_dirichlet_allocation.py` and `hdp_topics.py` say what documents' topics are drawn
from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import xlogy
from jaxtyping import Float

from vbjax import terms
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import by_part
from vbjax.core.rows import Expectation, Scattered, float_dtype, sum_over_rows, sweep_rows
from vbjax.data.documents import Bags, Documents
from vbjax.families.base import State
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.models.components.perturbations import draw_partners
from vbjax.models.topics.document_words import Topics, Words
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Hyper, Params, Tree

_CHUNK = 2**16  # numbers in a chunk's table of documents x words x topics, which stays in the cache
_NOISE, _PASSES, _TURNS = 0.1, 10, 10  # of the start: in log topics, passes, and turns of documents in each
_MOVED_PASSES = 3  # after a move, before which its topics are random halves
_MOST = 1000  # turns of a document that is to settle
_SETTLED = 1e-4  # a document has settled where a turn moves less than this share of its words


class Prepared(NamedTuple):
    """Parameters as the E-step needs them: E[log beta], and `TopicModel.alpha` and `.slack`."""

    topics: Topics
    alpha: Float[Array, " k"]
    slack: Float[Array, ""]


class TopicModel(ConjugateModel):
    """Base of topic models: word i of document d is w_di ~ beta_z, z_di ~ theta_d, beta_k ~ Dirichlet(eta).

    Subclasses are dataclasses with these hyperparameters. Here theta_d ~ Dirichlet(doc_concentration), and
    both concentrations are given; a subclass may learn them, each a factor, or have the documents share more.
    """

    n_topics: int
    topic_concentration: Hyper
    doc_concentration: Hyper
    document_sweeps: int

    interacting_locals = True
    has_moves = True
    lanes_on_cpu = 1

    # -- the model -----------------------------------------------------------------------------------

    @property
    def topics_family(self) -> Dirichlet:
        """The family of the topics, once the vocabulary is known."""
        self._require_resolved()
        return Dirichlet(self.topic_concentration.shape[0], plate=(self.n_topics,))

    @property
    def factors(self) -> Record:
        return Record(topics=self.topics_family)

    @property
    def shared(self) -> str | None:
        """The factor that the prior of all documents depends on; None where that prior is given."""
        return None

    def neutral_prior(self) -> Record:
        """Return where the factors but the topics begin."""
        return Record()

    def alpha(self, params: Record) -> Float[Array, " k"]:
        """Return the documents' concentration."""
        return self.doc_concentration

    def slack(self, params: Record) -> Float[Array, ""]:
        """Return E[log p(theta_d)] less the log density of Dirichlet(alpha)."""
        return jnp.zeros((), float_dtype(params))

    def eta(self, params: Record) -> Float[Array, " v"]:
        """Return the topics' concentration."""
        return self.topic_concentration

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return terms.dirichlet(s.topics, self.topic_concentration).sum()

    def global_terms(self, params: Mapping[str, State], expectation: Expectation) -> dict[str, Array]:
        return {"topics": -params["topics"].kl(DirichletState(self.eta(Record(params)))).sum()}

    # -- data ----------------------------------------------------------------------------------------

    def _require_resolved(self) -> None:
        if np.ndim(self.topic_concentration) != 1:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")

    def read(self, data: Given) -> Documents:
        if np.ndim(self.topic_concentration) != 1:
            return data if isinstance(data, Documents) else Documents.of(data)
        size = np.shape(self.topic_concentration)[0]
        shape: tuple[int, ...] = getattr(data, "shape", ())
        if len(shape) == 2 and shape[1] != size:
            raise ValueError(f"data must have a column for each of the fit's {size} words; got shape {shape}")
        data = data if isinstance(data, Documents) else Documents.of(data, size)
        if data.n_words != size:
            raise ValueError(f"data must have the {size} words of topic_concentration; got {data.n_words}")
        return data

    def sizes(self, data: Documents) -> dict[str, int]:
        return dict(v=data.n_words)

    def init(self, key: Array, data: Documents, weights: Array | None = None) -> Record:
        """Draw nearly even topics, and make a few passes in which every document begins anew.

        Documents that are carried stay with the topics that they have found: until topics have taken shape it
        is better that they do not.
        """
        dtype = float_dtype(data)
        noise = jnp.exp(_NOISE * jax.random.normal(key, (self.n_topics, data.n_words), dtype))
        params = Record(topics=DirichletState(noise)) | self.neutral_prior()

        def begin_anew(_: Any, params: Record) -> Record:
            return self.m_step(params, self.anew(params, data, weights).statistics, ("topics",))

        return lax.fori_loop(0, _PASSES, begin_anew, params)

    # -- moves between optima ------------------------------------------------------------------------

    def propose(
        self, key: Array, params: Record, other: Record, data: Documents, weights: Array | None
    ) -> Record:
        """Join two topics and divide another one, or take some of another optimum, as likely.

        A few passes follow in which documents begin anew.
        """
        keys = jax.random.split(key)
        begun = lax.cond(
            jax.random.bernoulli(keys[0]),
            lambda key: self._moved(key, params),
            lambda key: self._crossed(key, params, other),
            keys[1],
        )

        def begin_anew(_: Any, params: Record) -> Record:
            return self.m_step(params, self.anew(params, data, weights).statistics, self.factors)

        return lax.fori_loop(0, _MOVED_PASSES, begin_anew, begun)

    def _words(self, params: Record) -> tuple[Float[Array, "k v"], Float[Array, " k"], Float[Array, "k v"]]:
        """Return the counts of words in topics, of each topic, and the roots of the words' shares."""
        words = params.topics.concentration - self.eta(params)
        heavy = jnp.maximum(words.sum(1), jnp.finfo(words.dtype).tiny)
        return words, heavy, jnp.sqrt(jnp.maximum(words, 0) / heavy[:, None])

    def _crossed(self, key: Array, params: Record, other: Record) -> Record:
        """Return the parameters with some topics of others, each in the place of the one most like it."""
        (words, _, root), (theirs, _, their_root) = self._words(params), self._words(other)
        taken, partner = draw_partners(key, root @ their_root.T)
        both = DirichletState(self.eta(params) + jnp.where(taken[:, None], theirs[partner], words))
        return self.with_topics(params, both, lambda share: share)

    def _moved(self, key: Array, params: Record) -> Record:
        """Return the parameters with two topics joined, and another one divided.

        A topic goes to the one whose words are most like its own, likelier a light topic and alike words. In
        its place comes a random half of the words of another, likelier a heavy one.
        """
        keys, k = jax.random.split(key, 3), self.n_topics
        words, heavy, root = self._words(params)
        unlike = jnp.maximum(1 - root @ root.T, 0)  # squared Hellinger distances
        itself = jnp.eye(k, dtype=bool)
        cost = jnp.log(heavy[:, None] * unlike + 1) + jax.random.normal(keys[0], (k, k), words.dtype)
        freed, heir = jnp.unravel_index(jnp.where(itself, jnp.inf, cost).argmin(), (k, k))
        weight = jnp.log(heavy) + jax.random.normal(keys[1], (k,), words.dtype)
        divided = jnp.where(jnp.arange(k) == freed, -jnp.inf, weight).argmax()
        left = jax.random.uniform(keys[2], words.shape[1:], words.dtype)

        def moved(x: Array, left: Given) -> Array:
            x = x.at[heir].add(x[freed])
            return x.at[freed].set((1 - left) * x[divided]).at[divided].multiply(left)

        topics = DirichletState(self.eta(params) + moved(words, left))
        return self.with_topics(params, topics, lambda x: moved(x, 0.5))

    def with_topics(self, params: Record, topics: DirichletState, share: Callable[[Array], Array]) -> Record:
        """Return the parameters with other topics, `share` being what their weights (k,) become."""
        return params | dict(topics=topics)

    # -- the E-step ----------------------------------------------------------------------------------

    def chunk_rows(self, data: Bags) -> int:
        return max(4, _CHUNK // (data.counts.shape[1] * self.n_topics))

    def neutral_local(self, data: Bags) -> Record:
        even = data.counts.sum(1, keepdims=True) / self.n_topics
        return Record(theta=DirichletState(self.alpha(self.neutral_prior()) + even))

    def start_locals(self, params: Params, data: Documents) -> Tree:
        """Start documents a few turns after even ones: a sweep with even ones would blur the topics again."""
        return self.settled(params, data, _TURNS)

    def settled(self, params: Params, data: Documents, turns: int) -> Tree:
        """Return q(theta) of all documents, by part: even ones after so many turns, or once settled."""
        prepared = self.prepare(params)

        def settle(rows: Bags, _: Array, own: Tree) -> tuple[Tree, Tree]:
            words = Words.of(prepared.topics, rows, prepared.alpha)
            gamma = self._settled(words, prepared.alpha, own.theta.concentration, turns)
            return (), Record(theta=DirichletState(gamma))

        own, chunk = by_part(self.neutral_local, data), by_part(self.chunk_rows, data)
        return sweep_rows(settle, data, None, own, chunk=chunk)[1]

    def prepare(self, params: Params) -> Prepared:
        return Prepared(Topics.of(params.topics.expected().log), self.alpha(params), self.slack(params))

    def e_step(self, prepared: Prepared, rows: Bags, weights: Array) -> Expectation:
        """Turn from even documents until they have settled (Blei et al. 2003, eq. 6 and 7)."""
        return self._pass(prepared, rows, weights, self.neutral_local(rows), _MOST)._replace(local=None)

    def carried_e_step(self, prepared: Prepared, rows: Bags, weights: Array, local: Tree) -> Expectation:
        return self._pass(prepared, rows, weights, local, self.document_sweeps - 1)

    def anew(self, params: Params, data: Documents, weights: Array | None) -> Expectation:
        """Make a pass in which every document begins from even topics, for a few turns."""
        prepared = self.prepare(params)

        def anew(rows: Bags, w: Array) -> Expectation:
            return self._pass(prepared, rows, w, self.neutral_local(rows), _TURNS)._replace(local=None)

        return self.collect(sum_over_rows(anew, data, weights, chunk=by_part(self.chunk_rows, data)))

    def _pass(self, prepared: Prepared, rows: Bags, weights: Array, local: Tree, turns: int) -> Expectation:
        """Make so many turns of documents and words; return bound and sums, and the documents' next turn."""
        words = Words.of(prepared.topics, rows, prepared.alpha)
        gamma = self._settled(words, prepared.alpha, local.theta.concentration, turns)
        shares, bound = words.scored(gamma)
        bound = bound + prepared.slack - DirichletState(gamma).kl(DirichletState(prepared.alpha))
        bound = jnp.where(weights == 0, 0, weights * bound)
        values = (weights[:, None, None] * shares).reshape(-1, shares.shape[-1])
        moved = DirichletState(prepared.alpha + shares.sum(1)[:, : self.n_topics])
        sums: dict[str, Tree] = dict(
            topics=Scattered(rows.ids.reshape(-1), values, prepared.topics.top.shape[0])
        )
        if self.shared:
            sums[self.shared] = (weights @ moved.expected().log, weights.sum())
        tokens = (weights * rows.counts.sum(1)).sum()
        return Expectation(Record(sums), bound.sum(), jnp.abs(bound).sum(), tokens, Record(theta=moved))

    def _settled(self, words: Words, alpha: Array, gamma: Array, turns: int) -> Float[Array, "n k"]:
        """Return the documents' concentrations after so many turns, or once they have settled."""
        if turns == 0:
            return gamma
        words, alpha, gamma = lax.stop_gradient((words, alpha, gamma))
        least = _SETTLED * words.rows.counts.sum(1)

        def turn(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            gamma, _, number = carry
            moved = alpha + words.pull(gamma)
            return moved, (jnp.abs(moved - gamma).sum(1) > least).any(), number + 1

        unsettled = lambda carry: carry[1] & (carry[2] < turns)
        return lax.while_loop(unsettled, turn, (gamma, jnp.asarray(True), jnp.asarray(0)))[0]

    def collect(self, expectation: Expectation) -> Expectation:
        log = expectation.statistics.topics[:, : self.n_topics].T
        topics = DirichletStatistics(log, jnp.zeros_like(log[:, 0]))
        return expectation._replace(statistics=expectation.statistics | dict(topics=topics))

    # -- the M-step ----------------------------------------------------------------------------------

    def m_step(self, params: Record, statistics: Mapping[str, Tree], block: Iterable[str]) -> Record:
        """Add the words' sums to eta (Hoffman, Blei & Bach 2010, eq. 5; Blei et al. 2003, section 5.4)."""
        if "topics" not in block:
            return Record(params)
        topics = DirichletState(self.eta(params) + statistics["topics"].log)
        return Record(params) | dict(topics=topics)

    def local_entropies(self, params: Params) -> Callable[[Bags], dict[str, Array]]:
        prepared = self.prepare(params)

        def entropies(rows: Bags) -> dict[str, Array]:
            words = Words.of(prepared.topics, rows, prepared.alpha)
            gamma = self._settled(words, prepared.alpha, self.neutral_local(rows).theta.concentration, _MOST)
            shares, counts = words.scored(gamma)[0], rows.counts[..., None]
            z = -xlogy(shares, shares / jnp.where(counts == 0, 1, counts)).sum((1, 2))
            return {"theta": DirichletState(gamma).entropy(), "z": z}

        return entropies

    # -- use -----------------------------------------------------------------------------------------

    def document_topics(self, params: Params, data: Given) -> DirichletState:
        """Return q(theta_d) of documents, seen or new, (n, K): `.mean`, the shares of topics, and `.sd`."""
        self._require_resolved()
        return _document_topics(self, params, self.read(data))


@jit
def _document_topics(model: TopicModel, params: Params, data: Documents) -> DirichletState:
    return data.join(model.settled(params, data, _MOST)).theta
