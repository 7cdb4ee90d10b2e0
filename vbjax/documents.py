"""Corpora as bags of words: how often which word is in which document.

Imports core; imported by topic models, `datasets` and the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from vbjax.core.ragged import Ragged, buckets
from vbjax.families.base import pytree, static


class Bags(NamedTuple):
    """Documents of about the same number of distinct words, those of one row padded by counts of 0.

    Attributes:
        ids: (n, L), numbers of words.
        counts: (n, L), how often each is in the document.
    """

    ids: Array
    counts: Array


@pytree
class Documents(Ragged):
    """A corpus, sparse: every document as its distinct words and their counts. A pytree.

    Documents of similar length stand together in parts (`Bags`), so that less than an eighth of the cells is
    padding and a fit compiles a few shapes. `Documents.of` makes them.

    Attributes:
        parts, order: see `Ragged`.
        n_words: the size of the vocabulary.

    >>> import vbjax as vb
    >>> docs = vb.Documents.of([[(0, 2), (3, 1)], [(1, 1)], []])
    >>> docs
    Documents(3 documents, 4 words, 4 tokens)
    """

    n_words: int = static()

    @classmethod
    def of(cls, corpus: Any, n_words: int | None = None, dtype: DTypeLike = float) -> Documents:
        """A corpus from counts.

        Args:
            corpus: for every document its pairs (number of a word, count); or a table of counts, documents x
                words, as an array or a scipy.sparse matrix.
            n_words: the size of the vocabulary; by default the table's columns, or one more than the
                greatest number.
            dtype: of the counts.

        Raises:
            ValueError: no document; counts that are negative or no whole numbers; a number of a word that
                is negative, no whole number, or outside the vocabulary.
        """
        lengths, ids, counts, columns = _triples(corpus)
        if not len(lengths):
            raise ValueError("corpus must have at least one document")
        whole = np.isfinite(counts) & (counts >= 0) & (counts == np.round(counts))
        _require(whole, lengths, "counts must be whole numbers, at least 0", counts)
        size = columns if columns is not None else int(ids.max(initial=-1)) + 1
        size = max(size, 1) if n_words is None else int(n_words)
        _require((ids >= 0) & (ids == np.round(ids)), lengths, "words must be whole numbers from 0", ids)
        _require(ids < size, lengths, f"words must be less than n_words = {size}", ids)
        return cls.packed(lengths, ids, counts, size, dtype)

    @classmethod
    def packed(
        cls, lengths: np.ndarray, ids: np.ndarray, counts: np.ndarray, n_words: int, dtype: DTypeLike = float
    ) -> Documents:
        """The same from arrays that have been read: lengths (n,) of the documents, their words end to end."""
        starts = np.cumsum(lengths) - lengths
        parts, order = [], buckets(lengths)
        for rows in order:
            column = np.arange(max(1, lengths[rows].max(initial=0)))
            there = column < lengths[rows][:, None]
            cell = np.where(there, starts[rows][:, None] + column, len(ids))
            padded = (np.append(x, 0)[cell] for x in (ids, counts))
            parts.append(Bags(*map(jnp.asarray, padded, (jnp.int32, dtype))))
        return cls(tuple(parts), jnp.asarray(np.concatenate(order), jnp.int32), n_words)

    @property
    def n_tokens(self) -> Array:
        """How many words, each as often as it is there."""
        return jnp.stack([part.counts.sum() for part in self.parts]).sum()

    def tokens(self) -> Array:
        """The same of every document, (n,)."""
        return self.join([part.counts.sum(1) for part in self.parts])

    def word_counts(self) -> Array:
        """How often every word of the vocabulary is in the corpus, (n_words,)."""
        total = jnp.zeros(self.n_words, self.parts[0].counts.dtype)
        for part in self.parts:
            total = total.at[part.ids].add(part.counts)
        return total

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        return f"Documents({self.n_rows} documents, {self.n_words} words, {self.n_tokens:.0f} tokens)"


def _triples(corpus: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int | None]:
    """Lengths of the documents, their words and counts end to end; the number of columns of a table."""
    if hasattr(corpus, "tocsr"):
        corpus = corpus.tocsr(copy=True)
        corpus.sum_duplicates()
        corpus.eliminate_zeros()
        return np.diff(corpus.indptr), corpus.indices, np.asarray(corpus.data, float), corpus.shape[1]
    if isinstance(corpus, (np.ndarray, Array)):
        table = np.asarray(corpus)
        if table.ndim != 2 or table.dtype.kind not in "biuf":
            raise ValueError(f"corpus must be a table of counts; got {table.dtype}, shape {table.shape}")
        row, column = np.nonzero(table)
        return (
            np.bincount(row, minlength=len(table)),
            column,
            table[row, column].astype(float),
            table.shape[1],
        )
    if not isinstance(corpus, Iterable) or isinstance(corpus, (str, bytes, dict)):
        raise ValueError(f"corpus must be documents, or a table of counts; got {type(corpus).__name__}")
    pairs = [_pairs(document, i) for i, document in enumerate(corpus)]
    flat = np.concatenate([np.zeros((0, 2)), *pairs])
    return np.array([len(p) for p in pairs], int), flat[:, 0], flat[:, 1], None


def _pairs(document: Sequence[Any], i: int) -> np.ndarray:
    try:
        pairs = np.asarray(list(document), float).reshape(-1, 2) if len(document) else np.zeros((0, 2))
    except (TypeError, ValueError):
        raise ValueError(f"document {i} must be pairs (word, count) of numbers; got {document!r}") from None
    ids, place = np.unique(pairs[:, 0], return_inverse=True)
    if len(ids) < len(pairs):  # a word that comes twice counts twice
        pairs = np.column_stack([ids, np.bincount(place, pairs[:, 1])])
    return pairs


def _require(fine: np.ndarray, lengths: np.ndarray, what: str, values: np.ndarray) -> None:
    if not fine.all():
        first = int((~fine).argmax())
        document = int(np.searchsorted(np.cumsum(lengths), first, side="right"))
        raise ValueError(f"{what}; document {document} has {values[first]:g}")
