"""Topics for the shell command: reading a corpus and its words, and reporting the topics' words.

`commands` imports it, does the rest, and prints.
"""

from __future__ import annotations

import textwrap

import numpy as np
from jaxtyping import Float

from vbjax.cli.files import UserError, reading
from vbjax.data import datasets
from vbjax.data.documents import Documents
from vbjax.inference.result import Fit
from vbjax.models.topics import use as topics

_MOST_CELLS = 2**30  # topics x words; a mistyped number of a word would otherwise take all the memory
_TOP, _WIDTH = 10, 80


def load(path: str, vocabulary: str | None, n_topics: int) -> tuple[Documents, list[str]]:
    """Read the documents, and a word for every number: from the vocabulary's file, or the numbers themselves.

    Raises:
        UserError: a file that cannot be read; documents without words, or of words that the vocabulary does
            not have, or too many for so many topics.
    """
    words = None
    if vocabulary is not None:
        with reading(vocabulary):
            words = datasets.read_vocabulary(vocabulary)
    with reading(path):
        docs = datasets.read_ldac(path, None if words is None else len(words))
    if not float(docs.n_tokens):
        raise UserError(f"{path}: every document is empty; expected words")
    if docs.n_words * n_topics > _MOST_CELLS:
        raise UserError(f"{path}: {docs.n_words} words are too many for {n_topics} topics")
    return docs, [str(i) for i in range(docs.n_words)] if words is None else words


def describe(result: Fit, docs: Documents) -> dict[str, np.ndarray]:
    """Return the topics, and the shares of the topics in the documents.

    Args:
        result: a fit of a `TopicModel`.
        docs: the corpus.

    Returns:
        Concentrations of the posterior, `topics` (K, V) and `document_topics` (n, K), and of the prior,
        `topic_concentration` (V,) and `doc_concentration` (K,); `sizes` (K,), the expected number of tokens
        of a topic; `tokens` (n,), the number of tokens of a document. For a hierarchical Dirichlet process
        also `weights` and `weights_sd` (K,) of the topics; its `doc_concentration` is a number.
    """
    model, params = result.model, result.params
    found = dict(
        topics=params.topics.concentration,
        document_topics=model.document_topics(params, docs).concentration,
        topic_concentration=model.topic_concentration,
        doc_concentration=model.doc_concentration,
        tokens=docs.tokens(),
    )
    if "weights" in params:
        found |= dict(weights=params.weights.mean, weights_sd=params.weights.sd)
    arrays = {name: np.asarray(value) for name, value in found.items()}
    arrays["sizes"] = _counts(arrays).sum(1, dtype=float)
    return arrays


def size(found: dict[str, np.ndarray]) -> str:
    """Return a phrase that states the size of the corpus."""
    n, v, tokens = len(found["tokens"]), found["topics"].shape[1], found["tokens"].sum(dtype=float)
    counts = {"document": n, "word": v, "token": round(tokens)}
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def table(found: dict[str, np.ndarray], words: list[str]) -> list[str]:
    """Return lines on the topics of more than one token, heaviest first: number, share of the tokens, words.

    The words are the ten of highest probability, without those of less than half a token in the topic, whose
    order means nothing.
    """
    best = np.asarray(topics.top_ids(found["topics"], min(_TOP, len(words))))
    counts, sizes = _counts(found), found["sizes"]
    lines = [f"{'topic':>5}   {'tokens':>6}   words"]
    for k in np.argsort(-sizes, kind="stable")[: (sizes > 1).sum()]:
        head = f"{k:>5}   {100 * sizes[k] / sizes.sum():>5.1f}%   "
        names = [" ".join(words[i].split()) for i in best[k] if counts[k, i] > 0.5]
        wrap = textwrap.TextWrapper(_WIDTH, head, " " * len(head), break_on_hyphens=False)
        lines += wrap.wrap(", ".join(names)) or [head.rstrip()]
    return lines


def _counts(found: dict[str, np.ndarray]) -> Float[np.ndarray, "k v"]:
    """Return the expected count of every word in every topic."""
    return found["topics"] - found["topic_concentration"]
