"""Latent Dirichlet allocation: documents as mixtures of topics, topics as distributions of words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import xlogy
from jaxtyping import Float

from vbjax import terms
from vbjax.core.expectation import Expectation, Scattered, float_dtype, sum_over_rows, sweep_rows
from vbjax.core.inputs import is_concrete, read_count
from vbjax.core.model import ConjugateModel, in_dtype
from vbjax.core.ragged import by_part
from vbjax.documents import Bags, Documents
from vbjax.families.base import Family, pytree, static
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.families.gamma import Gamma
from vbjax.models.concentrations import point, step_concentration, step_symmetric_concentration
from vbjax.models.document_words import Topics, Words
from vbjax.record import Record

_CHUNK = 2**16  # numbers in a chunk's table of documents x words x topics, which stays in the cache
_NOISE, _PASSES, _TURNS = 0.1, 10, 10  # of the start: in log topics, passes, and turns of documents in each
_MOST = 1000  # turns of a document that is to settle
_SETTLED = 1e-4  # a document has settled where a turn moves less than this share of its words


class Prepared(NamedTuple):
    """The topics, and the documents' concentration."""

    topics: Topics
    alpha: Float[Array, " k"]


@pytree
class LatentDirichletAllocation(ConjugateModel):
    """Word i of document d comes from topic z_di ~ theta_d, and is w_di ~ beta_z.

        theta_d ~ Dirichlet(alpha),   beta_k ~ Dirichlet(eta),   q(beta) prod_d q(theta_d) prod_i q(z_di):

    with psi the digamma function, gamma_d and lambda_k the concentrations of q(theta_d) and q(beta_k), and a
    word of count c standing for c words,

        phi_dik proportional to exp(psi(gamma_dk) + psi(lambda_kw) - psi(sum_v lambda_kv)),
        gamma_dk = alpha_k + sum_i c_di phi_dik,   lambda_kw = eta_w + sum_d sum_{i: w_di = w} c_di phi_dik.

    A sweep is one pass over the corpus. By default it makes one update of each; with `document_sweeps` those
    of a document are repeated before its words go into the topics. Documents' gamma are carried from sweep
    to sweep, so that the bound never falls, and are not part of the parameters. Nothing of the size of
    documents x vocabulary or tokens x topics is ever made.

    Data: `vb.Documents`, or what `Documents.of` takes. Empty documents and words that never occur are legal.
    A row is a document; the tolerance of a fit is per token, not per row. The factor is `topics` (Dirichlet,
    (K, V)); with learned concentrations also `doc_concentration` (K,) and `topic_concentration`, points that
    maximise the bound (`.mean`).

    Args:
        n_topics: K.
        doc_concentration: alpha, a number or (K,); by default 1 / K.
        topic_concentration: eta, a number or (V,); by default 1 / K. Topics of many words want more, 0.1 to
            1: compare the bound, or held-out perplexity.
        document_sweeps: updates of a document's topics in one pass over the corpus. More of them need fewer
            passes, and as a rule end at a lower bound.
        learn_doc_concentration: whether alpha is learned, one number for each topic.
        learn_topic_concentration: whether eta is learned, one number for all words: it starts at the mean.

    Raises:
        ValueError: what is no corpus of counts; a concentration that is not positive.

    References:
        Blei, Ng & Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5.4 and appendix A.3; Hoffman,
        Blei & Bach (2010), Online learning for LDA, eq. 1 to 5; Wallach, Mimno & McCallum (2009), Rethinking
        LDA: why priors matter, on which concentrations to learn.

    >>> import jax, vbjax as vb
    >>> corpus = [[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5), (3, 5)], [(2, 4), (3, 7)]]
    >>> fit = vb.fit(vb.LatentDirichletAllocation(2), corpus, key=jax.random.key(0), n_restarts=4)
    >>> shares = fit.model.document_topics(fit.params, corpus).mean
    >>> bool((shares.argmax(1)[:2] != shares.argmax(1)[2:]).all())
    True
    """

    n_topics: int = static()
    doc_concentration: Any = None
    topic_concentration: Any = None
    document_sweeps: int = static(default=1, kw_only=True)
    learn_doc_concentration: bool = static(default=False, kw_only=True)
    learn_topic_concentration: bool = static(default=False, kw_only=True)

    interacting_locals = True
    lanes_on_cpu = 1

    @property
    def factors(self) -> Record:
        self._require_resolved()
        factors: dict[str, Family] = dict(
            topics=Dirichlet(self.topic_concentration.shape[0], plate=(self.n_topics,))
        )
        if self.learn_doc_concentration:
            factors["doc_concentration"] = Delta(Gamma((self.n_topics,)))
        if self.learn_topic_concentration:
            factors["topic_concentration"] = Delta(Gamma())
        return Record(factors)

    def _require_resolved(self) -> None:
        if np.ndim(self.topic_concentration) != 1:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")

    def read(self, data: Any) -> Documents:
        read_count(self.n_topics, "n_topics")
        read_count(self.document_sweeps, "document_sweeps")
        for name in ("doc_concentration", "topic_concentration"):
            value = getattr(self, name)
            if value is not None and is_concrete(value) and not np.all(np.asarray(value) > 0):
                raise ValueError(f"{name} must be positive; got {value}")
        if np.ndim(self.topic_concentration) != 1:
            return data if isinstance(data, Documents) else Documents.of(data)
        size = np.shape(self.topic_concentration)[0]
        data = data if isinstance(data, Documents) else Documents.of(data, size)
        if data.n_words != size:
            raise ValueError(f"data must have the {size} words of topic_concentration; got {data.n_words}")
        return data

    def resolve(self, data: Documents, weights: Array | None = None) -> LatentDirichletAllocation:
        shapes = dict(doc_concentration=self.n_topics, topic_concentration=data.n_words)
        filled: dict[str, Any] = {}
        for name, size in shapes.items():
            given = getattr(self, name)
            value = jnp.asarray(1 / self.n_topics if given is None else given)
            if value.shape not in ((), (size,)):
                raise ValueError(f"{name} must be a number or of shape ({size},); got {value.shape}")
            filled[name] = jnp.broadcast_to(value, size)
        return in_dtype(dataclasses.replace(self, **filled), float_dtype(data))

    def alpha(self, params: Any) -> Float[Array, " k"]:
        """The documents' concentration, given or learned."""
        return params.doc_concentration.mean if self.learn_doc_concentration else self.doc_concentration

    def eta(self, params: Any) -> Float[Array, " v"]:
        """The topics' concentration, given or learned."""
        given = self.topic_concentration
        return (
            jnp.full_like(given, params.topic_concentration.mean) if self.learn_topic_concentration else given
        )

    def init(self, key: Array, data: Documents, weights: Array | None = None) -> Record:
        """Nearly even topics, after a few passes in which every document begins anew.

        Documents that are carried stay with the topics that they have found: until topics have taken shape it
        is better that they do not.
        """
        dtype = float_dtype(data)
        noise = jnp.exp(_NOISE * jax.random.normal(key, (self.n_topics, data.n_words), dtype))
        params = Record(topics=DirichletState(noise))
        if self.learn_doc_concentration:
            params |= dict(doc_concentration=point(self.doc_concentration))
        if self.learn_topic_concentration:
            params |= dict(topic_concentration=point(self.topic_concentration.mean()))

        def begin_anew(_: Any, params: Record) -> Record:
            prepared = self.prepare(params)

            def anew(rows: Bags, w: Array) -> Expectation:
                return self._pass(prepared, rows, w, self.neutral_local(rows), _TURNS)._replace(local=None)

            total = sum_over_rows(anew, data, weights, chunk=by_part(self.chunk_rows, data))
            return self.m_step(params, self.collect(total).statistics, ("topics",))

        return lax.fori_loop(0, _PASSES, begin_anew, params)

    # -- the E-step ----------------------------------------------------------------------------------

    def chunk_rows(self, data: Bags) -> int:
        return max(4, _CHUNK // (data.counts.shape[1] * self.n_topics))

    def neutral_local(self, data: Bags) -> Record:
        even = data.counts.sum(1, keepdims=True) / self.n_topics
        return Record(theta=DirichletState(self.doc_concentration + even))

    def prepare(self, params: Any) -> Prepared:
        return Prepared(Topics.of(params.topics.expected().log), self.alpha(params))

    def e_step(self, prepared: Prepared, rows: Bags, weights: Array) -> Expectation:
        """From even documents, until they have settled."""
        return self._pass(prepared, rows, weights, self.neutral_local(rows), _MOST)._replace(local=None)

    def carried_e_step(self, prepared: Prepared, rows: Bags, weights: Array, local: Any) -> Expectation:
        return self._pass(prepared, rows, weights, local, self.document_sweeps - 1)

    def _pass(self, prepared: Prepared, rows: Bags, weights: Array, local: Any, turns: int) -> Expectation:
        """So many turns of documents and words; then the bound, the sums, and the documents' next turn."""
        words = Words.of(prepared.topics, rows, prepared.alpha)
        gamma = self._settled(words, prepared.alpha, local.theta.concentration, turns)
        shares, bound = words.scored(gamma)
        bound = bound - DirichletState(gamma).kl(DirichletState(prepared.alpha))
        bound = jnp.where(weights == 0, 0, weights * bound)
        values = (weights[:, None, None] * shares).reshape(-1, shares.shape[-1])
        moved = DirichletState(prepared.alpha + shares.sum(1)[:, : self.n_topics])
        sums: dict[str, Any] = dict(
            topics=Scattered(rows.ids.reshape(-1), values, prepared.topics.top.shape[0])
        )
        if self.learn_doc_concentration:
            sums |= dict(doc_concentration=(weights @ moved.expected().log, weights.sum()))
        tokens = (weights * rows.counts.sum(1)).sum()
        return Expectation(Record(sums), bound.sum(), jnp.abs(bound).sum(), tokens, Record(theta=moved))

    def _settled(self, words: Words, alpha: Array, gamma: Array, turns: int) -> Float[Array, "n k"]:
        """The documents' concentrations after so many turns, or once they have settled."""
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

    # -- the M-step and the bound --------------------------------------------------------------------

    def m_step(self, params: Any, statistics: Mapping[str, Any], block: Iterable[str]) -> Record:
        """lambda = eta + the words' sums; and a step of the concentrations, given q(theta) and q(beta)."""
        moved = Record(params)
        for name in block:
            if name == "topics":
                state: Any = DirichletState(self.eta(params) + statistics["topics"].log)
            elif name == "doc_concentration":
                log, n = statistics["doc_concentration"]
                state = point(step_concentration(log / n, params.doc_concentration.mean))
            else:
                log = moved.topics.expected().log
                state = point(step_symmetric_concentration(log, params.topic_concentration.mean))
            moved |= {name: state}
        return moved

    def log_prior(self, s: Record) -> Array:
        eta = s.topic_concentration.value if self.learn_topic_concentration else self.topic_concentration
        return terms.dirichlet(s.topics, eta).sum()

    def _global_terms(self, params: Any, expectation: Expectation) -> dict[str, Array]:
        """Prior and entropy of the topics, paired; the concentrations have neither."""
        return {"topics": -params.topics.kl(DirichletState(self.eta(params))).sum()}

    def local_entropies(self, params: Any) -> Callable[[Bags], dict[str, Array]]:
        prepared = self.prepare(params)

        def entropies(rows: Bags) -> dict[str, Array]:
            words = Words.of(prepared.topics, rows, prepared.alpha)
            gamma = self._settled(words, prepared.alpha, self.neutral_local(rows).theta.concentration, _MOST)
            shares, counts = words.scored(gamma)[0], rows.counts[..., None]
            z = -xlogy(shares, shares / jnp.where(counts == 0, 1, counts)).sum((1, 2))
            return {"theta": DirichletState(gamma).entropy(), "z": z}

        return entropies

    # -- use -----------------------------------------------------------------------------------------

    def document_topics(self, params: Any, data: Any) -> DirichletState:
        """q(theta_d) of documents, seen or new, (n, K): `.mean`, the shares of the topics, and `.sd`."""
        self._require_resolved()
        return _document_topics(self, params, self.read(data))


@jax.jit
def _document_topics(model: LatentDirichletAllocation, params: Any, data: Documents) -> DirichletState:
    prepared = model.prepare(params)

    def settle(rows: Bags, _: Array, own: Any) -> tuple[Any, Any]:
        words = Words.of(prepared.topics, rows, prepared.alpha)
        gamma = model._settled(words, prepared.alpha, own.theta.concentration, _MOST)
        return (), Record(theta=DirichletState(gamma))

    own, chunk = by_part(model.neutral_local, data), by_part(model.chunk_rows, data)
    return data.join(sweep_rows(settle, data, None, own, chunk=chunk)[1]).theta
