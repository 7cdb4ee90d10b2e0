"""What to do with a fitted topic model: name its topics, score it on new documents, judge and compare topics.

Topics are given as their posterior, `fit.params.topics` (a DirichletState of concentration (K, V)), or as a
table of probabilities (K, V). K is the number of topics, V that of the words. Depends on no model but for
document completion; `plots.topics` draws the pictures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import xlogy

from vbjax.core.ragged import by_part
from vbjax.core.rows import float_dtype, sum_over_rows, sweep_rows
from vbjax.data.documents import Bags, Documents, read_vocabulary
from vbjax.families.dirichlet import DirichletState
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import as_floating, as_numbers, describe, is_concrete, read_count, read_key
from vbjax.numerics.types import Given

_CELLS = 2**20  # numbers in a chunk's table of documents x top words

# -- what a topic is about -----------------------------------------------------------------------------


def top_ids(scores: Given, n: Given = 10) -> Array:
    """Return the n words of the highest score in every topic, the highest first.

    Args:
        scores: topics, which are scored by expected probability; or any table of scores (K, V), such as
            `relevance`.
        n: how many words.

    Returns:
        Numbers of words, (K, n), int32. Of words with equal scores those of lower number come first.

    Raises:
        ValueError: `scores` is no table, or holds NaN; `n` is no whole number from 1 to V.

    >>> print(top_ids(jnp.array([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]]), 2))
    [[1 2]
     [0 2]]
    """
    table = _table("scores", scores)
    if read_count(n, "n") > table.shape[1]:
        raise ValueError(f"n must be at most the number of words, {table.shape[1]}; got {n}")
    return lax.top_k(table, int(n))[1]


def top_words(scores: Given, vocabulary: Given, n: Given = 10) -> list[list[str]]:
    """Return the words that `top_ids` gives the numbers of.

    Arguments and errors are those of `top_ids`, but for `vocabulary`: V words, `vocabulary[i]` the one of
    number i, as a list or a dict. Of another length, or with a word twice, it is a ValueError.

    >>> top_words(jnp.array([[0.1, 0.7, 0.2], [0.6, 0.1, 0.3]]), ["bow", "cello", "viola"], 2)
    [['cello', 'viola'], ['bow', 'viola']]
    """
    table = _table("scores", scores)
    size = table.shape[1]
    if isinstance(vocabulary, Mapping):  # words by their numbers, as gensim has them
        if absent := [i for i in range(size) if i not in vocabulary]:
            raise ValueError(f"vocabulary must have {size} words; it has none of number {absent[0]}")
        vocabulary = [vocabulary[i] for i in range(size)]
    words = read_vocabulary(vocabulary)
    if len(words) != size:
        raise ValueError(f"vocabulary must have {size} words; got {len(words)}")
    return [[str(words[int(i)]) for i in row] for row in np.asarray(top_ids(table, n))]


def relevance(topics: Given, word_probabilities: Given, weight: Given = 0.6) -> Array:
    """Compute how telling a word is of a topic: weight log p(w | k) + (1 - weight) log(p(w | k) / p(w)).

    By weight 1 the words of a topic rank as by probability, by weight 0 as by lift p(w | k) / p(w), which
    favours words that are rare elsewhere.

    Args:
        topics: p(w | k), by their expectation where they are a posterior.
        word_probabilities: p(w) of the corpus, (V,): `docs.word_counts() / docs.n_tokens`.
        weight: lambda, from 0 to 1; 0.6 is the authors' advice.

    Returns:
        (K, V), nats. A word that never occurs, p(w) = 0, is relevant to no topic: minus infinity.

    Raises:
        ValueError: `topics` or `word_probabilities` are no probabilities or do not fit each other; a `weight`
            out of range.

    References:
        Sievert & Shirley (2014), LDAvis: a method for visualizing and interpreting topics, eq. 1.

    >>> topics = jnp.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])  # word 0 is everywhere
    >>> top_words(relevance(topics, topics.mean(0)), ["the", "goal", "vote"], 1)
    [['goal'], ['vote']]
    """
    table = _probabilities("topics", topics)
    marginal = as_floating(word_probabilities, "word_probabilities").astype(table.dtype)
    if marginal.shape != table.shape[1:]:
        raise ValueError(f"word_probabilities must have shape {table.shape[1:]}; got {marginal.shape}")
    _probabilities("word_probabilities", marginal[None])
    share = as_floating(weight, "weight").astype(table.dtype)
    if share.shape != () or (is_concrete(share) and not 0 <= float(share) <= 1):
        raise ValueError(f"weight must be from 0 to 1; got {describe(weight)}")
    return _relevance(table, marginal, share)


# -- how well new documents are predicted --------------------------------------------------------------


def halves(docs: Given, key: Given) -> tuple[Documents, Documents]:
    """Divide every document into two halves: a word of count c goes Binomial(c, 1/2) times to the first one.

    Both are corpora of the documents' number, order and shapes, with counts of 0 for what went to the other
    half.

    Raises:
        TypeError: `docs` are no `Documents`.
        ValueError: `key` is no PRNG key.

    >>> import jax, vbjax as vb
    >>> docs = vb.Documents.of([[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5)]])
    >>> seen, rest = halves(docs, jax.random.key(0))
    >>> print(docs.word_counts(), seen.word_counts() + rest.word_counts())
    [ 8. 10.  5.] [ 8. 10.  5.]
    """
    _require_documents(docs)
    return _halves(docs, read_key(key))


def log_completion(model: Given, params: Given, observed: Given, held_out: Given) -> Array:
    """Compute the log probability of documents' held-out words given their observed ones, (n,), in nats.

        sum_i c_di log sum_k E[theta_dk] E[beta_kw_i]   over the held-out words i of document d,

    with q(theta_d) inferred from the document's observed words alone: every token by itself is scored by its
    predictive probability under q, exactly. A document without held-out words scores 0, one without observed
    words is predicted by the prior of theta. For the log likelihood per token,
    `log_completion(model, params, observed, held_out).sum() / held_out.n_tokens`.

    Args:
        model: `fit.model`.
        params: `fit.params`.
        observed, held_out: two corpora of the same n documents in the same order, such as `halves`.

    Returns:
        The log probabilities, (n,), at most 0.

    Raises:
        ValueError: the corpora are not of as many documents, or not of the model's words.

    References:
        Hoffman, Blei, Wang & Paisley (2013), Stochastic variational inference, JMLR 14, section 4; Wallach,
        Murray, Salakhutdinov & Mimno (2009), Evaluation methods for topic models: document completion.

    >>> import jax, vbjax as vb
    >>> docs = vb.Documents.of([[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5)]])
    >>> fit = vb.fit(vb.LatentDirichletAllocation(n_topics=2), docs, key=jax.random.key(0))
    >>> log_completion(fit.model, fit.params, *halves(docs, jax.random.key(1))).shape  # of every document
    (3,)
    """
    topics = _fitted_topics(model, params)
    observed, held_out = model.read(observed), model.read(held_out)
    if observed.n_rows != held_out.n_rows:
        raise ValueError(f"held_out must be of {observed.n_rows} documents too; got {held_out.n_rows}")
    return _log_completion(model, topics, model.document_topics(params, observed), held_out)


def held_out_perplexity(model: Given, params: Given, docs: Given, key: Given) -> Array:
    """Compute the perplexity of documents that the fit has not seen, by document completion; less is better.

        exp(-(log probability of the second halves' tokens, given the first) / (number of these tokens)):

    about as many words as the model would choose the next one from, V where it knows nothing. The logarithms
    are natural (nats). It is a mean over tokens: it does not depend on the size of the test set, and nothing
    of the topics' Kullback-Leibler divergence is in it, which belongs to the documents of the fit
    (scikit-learn's `perplexity` divides that by the test set's words, its issue 20032).

    Args:
        model: `fit.model`.
        params: `fit.params`.
        docs: test documents, split by `halves`. A document whose second half is empty counts for nothing.
        key: a PRNG key, for the halves; the same for models that are to be compared.

    Returns:
        A scalar, at least 1.

    Raises:
        ValueError: `docs` are not of the model's words, or so few that no token is there to be scored (NaN
            inside jit); `key` is no PRNG key.

    >>> import vbjax as vb
    >>> docs = vb.Documents.of([[(0, 5), (1, 4)], [(2, 5), (3, 5)]])
    >>> model = vb.LatentDirichletAllocation(2).resolve(docs)
    >>> flat = vb.Record(topics=DirichletState(jnp.ones((2, 4))))
    >>> print(f"{held_out_perplexity(model, flat, docs, jax.random.key(0)):.3f}")
    4.000
    """
    _fitted_topics(model, params)
    observed, held_out = halves(model.read(docs), key)
    if is_concrete(held_out) and not float(held_out.n_tokens):
        raise ValueError("docs must have words in their second halves to be scored; there are none")
    return _perplexity(log_completion(model, params, observed, held_out), held_out)


# -- whether the words of a topic belong together, and which topic is which ---------------------------


def umass(top_ids: Given, docs: Given) -> Array:
    """Compute the UMass coherence: the sum over i = 2 .. n and j < i of log((D(w_i, w_j) + 1) / D(w_j)).

    D counts the documents that hold a word, or both. Near 0 where the lesser words of a topic come with the
    greater ones. It is a sum over pairs: compare topics of the same n.

    Args:
        top_ids: the topics' words, (K, n), n at least 2, the most probable first: `top_ids(topics, n)`.
        docs: the corpus of the fit, or another one.

    Returns:
        One number for each topic, (K,), in nats. Empty documents do nothing.

    Raises:
        TypeError: `docs` are no `Documents`.
        ValueError: `top_ids` are no table of words of `docs`, name a word of a topic twice, or one that is
            in no document, for which the coherence is not defined.

    References:
        Mimno, Wallach, Talley, Leenders & McCallum (2011), Optimizing semantic coherence in topic models,
        EMNLP, eq. 1.

    >>> import vbjax as vb
    >>> docs = vb.Documents.of([[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5)]])
    >>> [f"{score:.3f}" for score in umass([[0, 1], [0, 2]], docs)]
    ['0.405', '-0.693']
    """
    together, _ = _document_counts(top_ids, docs)
    alone = np.diagonal(together, axis1=1, axis2=2)
    if not alone.all():
        k, i = np.argwhere(alone == 0)[0]
        raise ValueError(f"top_ids must be words of docs; word {np.asarray(top_ids)[k, i]} is in no document")
    i, j = np.tril_indices(alone.shape[1], -1)
    scores = np.log((together[:, i, j] + 1) / alone[:, j])
    return jnp.asarray(scores.sum(1), float_dtype(docs))


def npmi(top_ids: Given, docs: Given) -> Array:
    """Compute the normalised pointwise mutual information, averaged over pairs of a topic's words,

        log(p(w, v) / (p(w) p(v))) / -log p(w, v),

    p the share of the documents that hold a word, or both; empty documents are left out. 1 for words that
    only ever come together (in all documents too, where it is 0 / 0), 0 for independent ones, and -1, the
    limit, for words that never meet.

    Arguments and errors are those of `umass`, but that words may have any order, and be in no document.

    Returns:
        One number for each topic, (K,), from -1 to 1.

    References:
        Bouma (2009), Normalized (pointwise) mutual information in collocation extraction, GSCL; as a measure
        of topics Lau, Newman & Baldwin (2014), Machine reading tea leaves, EACL, who sum over the pairs.

    >>> import vbjax as vb
    >>> docs = vb.Documents.of([[(0, 5), (1, 4)], [(0, 3), (1, 6)], [(2, 5)]])
    >>> print(npmi([[0, 1], [0, 2]], docs))
    [ 1. -1.]
    """
    together, n_documents = _document_counts(top_ids, docs)
    alone = np.diagonal(together, axis1=1, axis2=2)
    i, j = np.tril_indices(alone.shape[1], -1)
    both, product = together[:, i, j], alone[:, i] * alone[:, j]
    met, always = both > 0, (both > 0) & (both == n_documents)
    inside = met & ~always
    scores = np.where(always, 1.0, -1.0)
    lift = both[inside] * n_documents / product[inside]
    scores[inside] = np.log(lift) / np.log(n_documents / both[inside])
    return jnp.asarray(scores.mean(1), float_dtype(docs))


class Alignment(NamedTuple):
    """Topic `permutation[k]` of run b is topic k of run a, at distance `distances[k]`; both (K,).

    >>> a = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    >>> print(align(a, a[::-1]).distances)  # the same topics
    [0. 0.]
    """

    permutation: Array
    distances: Array


def align(topics_a: Given, topics_b: Given) -> Alignment:
    """Pair the topics of run b with those of run a, by the least total Hellinger distance,

        H(p, q)^2 = 1/2 sum_w (sqrt p_w - sqrt q_w)^2,   of topics' expected distributions.

    Args:
        topics_a, topics_b: topics of the two runs, of the same shape.

    Returns:
        The pairing: `fit_b.params.topics.mean[permutation]` has the order of run a. A distance is 0 for the
        same topic, 1 for no word in common.

    Raises:
        ValueError: topics that are no probabilities, or of different shapes.

    >>> a = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    >>> align(a, a[::-1]).permutation.tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment  # takes its time to import

    a, b = _probabilities("topics_a", topics_a), _probabilities("topics_b", topics_b)
    if a.shape != b.shape:
        raise ValueError(f"topics_b must have the shape of topics_a, {a.shape}; got {b.shape}")
    distances = _hellinger(a, b.astype(a.dtype))
    rows, permutation = linear_sum_assignment(np.asarray(distances))
    return Alignment(jnp.asarray(permutation, jnp.int32), distances[rows, permutation])


# -- reading and computing -----------------------------------------------------------------------------


def _table(name: str, topics: Given) -> Array:
    """Return the expected probabilities of a posterior, or the table that was given."""
    table = as_floating(topics.mean if isinstance(topics, DirichletState) else topics, name)
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"{name} must have shape (topics, words), at least one of each; got {table.shape}")
    if is_concrete(table) and np.isnan(np.asarray(table)).any():
        raise ValueError(f"{name} must not hold NaN")
    return table


def _probabilities(name: str, topics: Given) -> Array:
    table = _table(name, topics)
    if is_concrete(table):
        values = np.asarray(table)
        if (values < 0).any() or not np.allclose(values.sum(1), 1, atol=1e-3):
            raise ValueError(f"{name} must be probabilities, at least 0 and of sum 1")
    return table


def _fitted_topics(model: Given, params: Given) -> DirichletState:
    """Return the posterior of the topics of a resolved model."""
    if not isinstance(model, TopicModel):
        raise ValueError(f"model must be a fitted topic model, fit.model; got {describe(model)}")
    found = params["topics"] if isinstance(params, Mapping) and "topics" in params else None
    shape = (*model.topics_family.plate, model.topics_family.size)
    if not isinstance(found, DirichletState) or np.shape(found.concentration) != shape:
        what = f"fit.params of the model, with topics of shape {shape}"
        raise ValueError(f"params must be {what}; got {describe(params)}")
    if is_concrete(found) and not (np.asarray(found.concentration) > 0).all():
        raise ValueError("params must have topics of positive concentration")
    return found


def _require_documents(docs: Given) -> None:
    if not isinstance(docs, Documents):
        raise TypeError(f"docs must be vb.Documents; got {type(docs).__name__}")


def _document_counts(top_ids: Given, docs: Given) -> tuple[np.ndarray, int]:
    """Count documents: those that every two words of a topic are in, (K, n, n), and those not empty."""
    _require_documents(docs)
    ids = np.asarray(as_numbers(top_ids, "top_ids"))
    if ids.ndim != 2 or ids.shape[1] < 2 or not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"top_ids must be whole numbers (K, n), n >= 2; got {ids.dtype}, shape {ids.shape}")
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= docs.n_words:
        raise ValueError(f"top_ids must be from 0 to {docs.n_words - 1}; got {ids.min()} to {ids.max()}")
    twice = np.flatnonzero((np.diff(np.sort(ids)) == 0).any(1))
    if len(twice):
        raise ValueError(f"top_ids must name a word of a topic once; topic {twice[0]} is {ids[twice[0]]}")
    together, n_documents = _meetings(jnp.asarray(ids, jnp.int32), docs)
    return np.asarray(together, float), int(n_documents)


@jit
def _relevance(table: Array, marginal: Array, weight: Array) -> Array:
    return jnp.where(marginal > 0, jnp.log(table) - (1 - weight) * jnp.log(marginal), -jnp.inf)


@jit
def _halves(docs: Documents, key: Array) -> tuple[Documents, Documents]:
    counts = jnp.concatenate([part.counts.ravel() for part in docs.parts])
    first = jax.random.binomial(key, counts, 0.5, dtype=counts.dtype)
    ends = np.cumsum([part.counts.size for part in docs.parts])[:-1]

    def of(counts: Array) -> Documents:
        pieces = zip(docs.parts, jnp.split(counts, ends), strict=True)
        parts = tuple(part._replace(counts=own.reshape(part.counts.shape)) for part, own in pieces)
        return dataclasses.replace(docs, parts=parts)

    return of(first), of(counts - first)


@jit
def _log_completion(
    model: TopicModel, topics: DirichletState, theta: DirichletState, docs: Documents
) -> Array:
    word = topics.mean.T

    def score(rows: Bags, _: Array, own: tuple[Array, Array]) -> tuple[Any, tuple[Array, Array]]:
        share, _ = own
        probability = jnp.einsum("nlk,nk->nl", word[rows.ids], share)
        return (), (share, xlogy(rows.counts, probability).sum(1))

    own = docs.split((theta.mean, jnp.zeros(docs.n_rows, word.dtype)))
    return docs.join(sweep_rows(score, docs, None, own, chunk=by_part(model.chunk_rows, docs))[1])[1]


@jit
def _perplexity(log_probabilities: Array, held_out: Documents) -> Array:
    return jnp.exp(-log_probabilities.sum() / held_out.n_tokens)


@jit
def _meetings(ids: Array, docs: Documents) -> tuple[Array, Array]:
    """Count documents exactly, by a table of documents x top words, chunk by chunk."""
    columns = jnp.arange(ids.size, dtype=jnp.int32)
    column = jnp.full(docs.n_words, ids.size, jnp.int32).at[ids.ravel()].set(columns)

    def count(rows: Bags, weights: Array) -> tuple[Array, Array]:
        there = (rows.counts > 0) & (weights[:, None] > 0)
        row = jnp.arange(len(there), dtype=jnp.int32)[:, None]
        table = jnp.zeros((len(there), ids.size + 1), bool).at[row, column[rows.ids]].max(there)
        own = table[:, column[ids]].astype(weights.dtype)  # (d, k, n)
        together = jnp.einsum("dki,dkj->kij", own, own)
        return together.astype(jnp.int32), there.any(1).sum(dtype=jnp.int32)

    chunk = tuple(max(1, _CELLS // (ids.size + part.ids.shape[1])) for part in docs.parts)
    return sum_over_rows(count, docs, chunk=chunk)


@jit
def _hellinger(a: Array, b: Array) -> Array:
    """Return all distances, (K, K), by differences: no digits cancel where topics are nearly the same."""
    a, b = jnp.sqrt(a), jnp.sqrt(b)
    return lax.map(lambda row: jnp.sqrt(((row - b) ** 2).sum(1) / 2), a)
