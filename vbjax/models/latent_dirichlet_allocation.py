"""Latent Dirichlet allocation: documents as mixtures of topics, topics as distributions of words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax import terms
from vbjax.core.expectation import Expectation, Scattered, float_dtype, sum_over_rows, sweep_rows
from vbjax.core.inputs import is_concrete, read_count
from vbjax.core.model import ConjugateModel, in_dtype
from vbjax.documents import Bags, Documents
from vbjax.families.base import pytree, static
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.record import Record
from vbjax.special import digamma_remainder

_SIMD = 8  # topics are padded to a multiple of so many: twice as fast on a CPU at 20 topics
_CHUNK = 2**18  # numbers in a chunk's table of documents x words x topics, which stays in the cache
_SETTLED = 1e-4  # a document has settled where a turn moves less than this share of its words


class Prepared(NamedTuple):
    """E[log topic_k(w)] words along the leading axis, as what it is and as `exp(log - top) `."""

    log: Float[Array, "v k"]
    table: Float[Array, "v k"]
    top: Float[Array, " v"]


class Words(NamedTuple):
    """The words of some documents, given the topics.

    phi_dik is proportional to exp(E[log theta_dk]) times a row of `Prepared.table`. Where all the products of
    a word underflow, its mass would be lost: what has such a word is done again in logarithms.

    Attributes:
        rows, prepared: the documents, and the topics.
        table: rows of `Prepared.table`, (n, L, K).
        unit: about log exp E[log theta_dk] + log sum_k gamma_dk of the topics that matter, (n, 1).
    """

    rows: Bags
    prepared: Prepared
    table: Array
    unit: Array

    @classmethod
    def of(cls, prepared: Prepared, rows: Bags, alpha: Array) -> Words:
        """The words of a chunk. The sum of gamma_d is that of alpha and the document's words."""
        even = (alpha.sum() + rows.counts.sum(1, keepdims=True)) / alpha.size
        return cls(rows, prepared, prepared.table[rows.ids], jnp.maximum(_psi(even), -30))

    def pull(self, gamma: Float[Array, "n k"]) -> Float[Array, "n k"]:
        """sum_i c_di phi_dik."""
        share, norm, lost = self._shares(gamma)
        fast = share * jnp.einsum("nlk,nl->nk", self.table, self.rows.counts / norm)
        return _unless(lost, fast, lambda: self._in_logarithms(gamma)[0].sum(1))[:, : gamma.shape[1]]

    def scored(self, gamma: Float[Array, "n k"]) -> tuple[Float[Array, "n l padded"], Float[Array, " n"]]:
        """c_di phi_dik; and sum_i c_di log sum_k exp(E[log theta_dk] + E[log beta_kw])."""
        share, norm, lost = self._shares(gamma)
        words = self.table * share[:, None, :] * (self.rows.counts / norm)[..., None]
        logs = jnp.log(norm) + self.unit + self.prepared.top[self.rows.ids]
        words, logs = _unless(lost, (words, logs), lambda: self._in_logarithms(gamma))
        return words, (self.rows.counts * (logs - _psi(gamma.sum(1, keepdims=True)))).sum(1)

    def _shares(self, gamma: Array) -> tuple[Array, Array, Array]:
        """exp E[log theta] but for a factor; the words' sums over topics; whether the mass of any is lost."""
        share = jnp.pad(jnp.exp(_psi(gamma) - self.unit), ((0, 0), (0, self._padding(gamma))))
        norm = jnp.einsum("nlk,nk->nl", self.table, share)
        none = norm < float(jnp.finfo(norm.dtype).tiny) ** 0.5
        return share, jnp.where(none, 1, norm), (none & (self.rows.counts > 0)).any()

    def _in_logarithms(self, gamma: Array) -> tuple[Array, Array]:
        log = jnp.pad(_psi(gamma), ((0, 0), (0, self._padding(gamma))), constant_values=-jnp.inf)
        scores = self.prepared.log[self.rows.ids] + log[:, None, :]
        return self.rows.counts[..., None] * jax.nn.softmax(scores, -1), logsumexp(scores, -1)

    def _padding(self, gamma: Array) -> int:
        return self.table.shape[-1] - gamma.shape[1]


def _psi(gamma: Array) -> Array:
    """The digamma function."""
    return jnp.log(gamma) + digamma_remainder(gamma)


def _unless(lost: Array, fast: Any, exact: Callable[[], Any]) -> Any:
    """`exact()` where anything is lost. A loop of one turn or none, which costs nothing where none is needed,
    under `vmap` too; no derivative goes through it.
    """
    start = (lost, *jax.tree.leaves(lax.stop_gradient(fast)))
    once = lambda _: (jnp.zeros_like(lost), *jax.tree.leaves(exact()))
    return jax.tree.unflatten(jax.tree.structure(fast), lax.while_loop(lambda c: c[0], once, start)[1:])


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
    A row is a document; the tolerance of a fit is per token. The factor is `topics` (Dirichlet, (K, V)).

    Args:
        n_topics: K.
        doc_concentration: alpha, a number or (K,); by default 1 / K.
        topic_concentration: eta, a number or (V,); by default 1 / K.
        document_sweeps: updates of a document's topics in one pass over the corpus.

    Raises:
        ValueError: what is no corpus of counts; a concentration that is not positive.

    References:
        Blei, Ng & Jordan (2003), Latent Dirichlet allocation, JMLR 3, section 5.4 and appendix A.3; Hoffman,
        Blei & Bach (2010), Online learning for LDA, eq. 1 to 5.

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

    interacting_locals = True

    @property
    def factors(self) -> Record:
        if np.ndim(self.topic_concentration) != 1:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return Record(topics=Dirichlet(self.topic_concentration.shape[0], plate=(self.n_topics,)))

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

    def log_prior(self, s: Record) -> Array:
        return terms.dirichlet(s.topics, self.topic_concentration).sum()

    def _global_terms(self, params: Any, expectation: Expectation) -> dict[str, Array]:
        prior = DirichletState(self.topic_concentration)
        return {"topics": -params.topics.kl(prior).sum()}

    def init(self, key: Array, data: Documents, weights: Array | None = None) -> Record:
        """Every document's words belong, for a start, to one topic at random; and a little to all."""
        k, n = self.n_topics, data.n_rows
        dtype = float_dtype(data)
        share = 0.5 / k + 0.5 * jax.nn.one_hot(jax.random.randint(key, (n,), 0, k), k, dtype=dtype)

        def count(rows: tuple[Bags, Array], w: Array) -> Scattered:
            (ids, counts), share = rows
            values = (w[:, None] * counts)[..., None] * share[:, None, :]
            return Scattered(ids.reshape(-1), values.reshape(-1, k), data.n_words)

        both = dataclasses.replace(data, parts=tuple(zip(data.parts, data.split(share), strict=True)))
        total = sum_over_rows(count, both, weights, chunk=self.chunk_rows(data))
        return Record(topics=DirichletState(self.topic_concentration + total.T))

    # -- the E-step ----------------------------------------------------------------------------------

    def chunk_rows(self, data: Any) -> Any:
        if isinstance(data, Documents):
            return tuple(self.chunk_rows(part) for part in data.parts)
        return max(4, _CHUNK // (data.counts.shape[1] * self.n_topics))

    def neutral_local(self, data: Any) -> Any:
        if isinstance(data, Documents):
            return tuple(self.neutral_local(part) for part in data.parts)
        even = data.counts.sum(1, keepdims=True) / self.n_topics
        return Record(theta=DirichletState(self.doc_concentration + even))

    def prepare(self, params: Any) -> Prepared:
        log = params.topics.expected().log.T
        log = jnp.pad(log, ((0, 0), (0, -self.n_topics % _SIMD)), constant_values=-jnp.inf)
        top = log.max(1)
        return Prepared(log, jnp.exp(log - top[:, None]), top)

    def e_step(self, prepared: Prepared, rows: Bags, weights: Array) -> Expectation:
        """From even documents, until they have settled."""
        local = self.neutral_local(rows)
        return self._pass(prepared, rows, weights, local, 1000)._replace(local=None)

    def carried_e_step(self, prepared: Prepared, rows: Bags, weights: Array, local: Any) -> Expectation:
        return self._pass(prepared, rows, weights, local, self.document_sweeps - 1)

    def _pass(self, prepared: Prepared, rows: Bags, weights: Array, local: Any, turns: int) -> Expectation:
        """So many turns of documents and words; then the bound, the sums, and the documents' next turn."""
        words = Words.of(prepared, rows, self.doc_concentration)
        gamma = self._settled(words, local.theta.concentration, turns)
        shares, bound = words.scored(gamma)
        bound = bound - DirichletState(gamma).kl(DirichletState(self.doc_concentration))
        bound = jnp.where(weights == 0, 0, weights * bound)
        values = (weights[:, None, None] * shares).reshape(-1, shares.shape[-1])
        moved = DirichletState(self.doc_concentration + shares.sum(1)[:, : self.n_topics])
        return Expectation(
            Record(topics=Scattered(rows.ids.reshape(-1), values, prepared.top.shape[0])),
            bound.sum(),
            jnp.abs(bound).sum(),
            (weights * rows.counts.sum(1)).sum(),
            Record(theta=moved),
        )

    def _settled(self, words: Words, gamma: Array, turns: int) -> Float[Array, "n k"]:
        """The documents' concentrations after so many turns, or once they have settled."""
        if turns == 0:
            return gamma
        alpha, words, gamma = lax.stop_gradient((self.doc_concentration, words, gamma))
        least = _SETTLED * words.rows.counts.sum(1)

        def turn(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            gamma, _, number = carry
            moved = alpha + words.pull(gamma)
            return moved, (jnp.abs(moved - gamma).sum(1) > least).any(), number + 1

        unsettled = lambda carry: carry[1] & (carry[2] < turns)
        return lax.while_loop(unsettled, turn, (gamma, jnp.asarray(True), jnp.asarray(0)))[0]

    def collect(self, expectation: Expectation) -> Expectation:
        log = expectation.statistics.topics[:, : self.n_topics].T
        statistics = DirichletStatistics(log, jnp.zeros_like(log[:, 0]))
        return expectation._replace(statistics=Record(topics=statistics))

    # -- use -----------------------------------------------------------------------------------------

    def document_topics(self, params: Any, data: Any) -> DirichletState:
        """q(theta_d) of documents, seen or new, (n, K): `.mean`, the shares of the topics, and `.sd`."""
        return _document_topics(self, params, self.read(data))


@jax.jit
def _document_topics(model: LatentDirichletAllocation, params: Any, data: Documents) -> DirichletState:
    prepared = model.prepare(params)

    def settle(rows: Bags, _: Array, own: Any) -> tuple[Any, Any]:
        words = Words.of(prepared, rows, model.doc_concentration)
        return (), Record(theta=DirichletState(model._settled(words, own.theta.concentration, 1000)))

    own = model.neutral_local(data)
    return data.join(sweep_rows(settle, data, None, own, chunk=model.chunk_rows(data))[1]).theta
