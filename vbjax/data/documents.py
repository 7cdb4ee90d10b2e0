"""Corpora as bags of words: for every document its words and how often each occurs.

Topic models, `datasets` and the command line import this file.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Int, Num

from vbjax.core.ragged import Most, Ragged, groups_for, groups_like, groups_of, placed, row_numbers
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import as_numbers, is_concrete, read_count
from vbjax.numerics.types import Given

FEW_PARTS = 3  # a fit compiles the shape of each part
MOST_WORDS = 10**6  # the largest vocabulary if its size is not given: a typing error would take all memory


class Bags(NamedTuple):
    """Documents of about the same number of distinct words, padded by counts of 0 to one length L.

    Attributes:
        ids: (n, L), numbers of words.
        counts: (n, L), how often each word is in the document.
    """

    ids: Int[Array, "n l"]
    counts: Num[Array, "n l"]


@pytree
class Documents(Ragged):
    """Sparse corpus, as a pytree: every document as its distinct words and their counts.

    Documents of similar length stand together in parts (`Bags`). A fit compiles the shape of every part, so
    there are as few as leave a sixth of the cells as padding, or three if those leave at most a third; there
    are more only if lengths differ so much that three would leave more. `Documents.of`,
    `Documents.from_tokens` and `vb.datasets.read_ldac` make corpora; `sharded` divides one over several
    devices.

    Attributes:
        parts, order, mesh: see `Ragged`.
        n_words: the size of the vocabulary.

    >>> import vbjax as vb
    >>> docs = vb.Documents.of([[(0, 2), (3, 1)], [(1, 1)], []])
    >>> docs
    Documents(3 documents, 4 words, 4 tokens)
    """

    n_words: int = static()

    @classmethod
    def of(cls, corpus: Given, n_words: int | None = None, dtype: DTypeLike = float) -> Documents:
        """Return a corpus from counts.

        Args:
            corpus: for every document its pairs (number of a word, count), in which the counts of a repeated
                word add up; or a table of counts, documents x words, as an array or a scipy.sparse matrix.
            n_words: the size of the vocabulary, at least 1; by default the number of the table's columns, or
                one more than the greatest word number, which must then be less than a million.
            dtype: the dtype of the counts: float32, float64 or integers that hold them.

        Raises:
            ValueError: if there is no document, or one that is not pairs; if counts or numbers of words are
                negative, no whole numbers or not below 2^31; if a word is outside the vocabulary; if `dtype`
                does not hold the counts.
        """
        n, document, word, count, columns = _cells(corpus)
        if not n:
            raise ValueError("corpus must have at least one document")
        for what, values in (("words", word), ("counts", count)):
            fine = (values >= 0) & (values < 2**31) & (values == np.round(values))
            _require(fine, document, values, f"{what} must be whole numbers, at least 0 and less than 2^31")
        if n_words is None and columns is None:
            what = f"words must be less than {MOST_WORDS}, or n_words given for a larger vocabulary"
            _require(word < MOST_WORDS, document, word, what)
            columns = int(word.max(initial=-1)) + 1
        size = max(columns or 0, 1) if n_words is None else read_count(n_words, "n_words")
        _require(word < size, document, word, f"words must be less than n_words = {size}")
        cell, place = np.unique(document * size + word.astype(int), return_inverse=True)
        count = np.bincount(place, count)
        cell, count = cell[count > 0], count[count > 0]
        dtype, most = _read_dtype(dtype)
        _require(count <= most, cell // size, count, f"dtype must hold every count; {dtype} holds {most:.0f}")
        return cls.packed(np.bincount(cell // size, minlength=n), cell % size, count, size, dtype)

    @classmethod
    def from_tokens(
        cls,
        texts: Iterable[Iterable[str]],
        vocabulary: Sequence[str] | None = None,
        dtype: DTypeLike = float,
    ) -> tuple[Documents, list[str]]:
        """Return a corpus from texts that have been cut into words, and its vocabulary.

        Args:
            texts: for every document its words, in any order.
            vocabulary: the words to count, in the order of their numbers; other words of the texts are left
                out. By default the texts' distinct words, sorted.
            dtype: the dtype of the counts.

        Returns:
            The documents, and the vocabulary as a list: word w of the documents is `vocabulary[w]`.

        Raises:
            ValueError: if there is no document; if a text or the vocabulary is not a list of words, such as a
                string that is not cut into words yet; if the vocabulary has no word, or the same word twice.

        >>> import vbjax as vb
        >>> vb.Documents.from_tokens([["to", "be", "or", "not", "to", "be"], ["be"]])
        (Documents(2 documents, 4 words, 7 tokens), ['be', 'not', 'or', 'to'])
        """
        if not isinstance(texts, Iterable) or isinstance(texts, (str, bytes)):
            raise ValueError(f"texts must be lists of words; got {type(texts).__name__}")
        bags = [Counter(read_words(text, f"texts: text {i}")) for i, text in enumerate(texts)]
        if not bags:
            raise ValueError("texts must have at least one document")
        words = sorted(set().union(*bags)) if vocabulary is None else read_vocabulary(vocabulary)
        if not words:
            raise ValueError("vocabulary must have at least one word")
        number = {word: i for i, word in enumerate(words)}
        pairs = [[(number[word], c) for word, c in bag.items() if word in number] for bag in bags]
        return cls.of(pairs, len(words), dtype), words

    @classmethod
    def packed(
        cls, lengths: np.ndarray, ids: np.ndarray, counts: np.ndarray, n_words: int, dtype: DTypeLike = float
    ) -> Documents:
        """Return a corpus from checked arrays: lengths (n,) of the documents, their words end to end."""
        return cls._pad(*groups_of(lengths, FEW_PARTS), lengths, ids, counts, n_words, dtype)

    @classmethod
    def _pad(
        cls,
        groups: Sequence[np.ndarray],
        widths: Sequence[int],
        lengths: np.ndarray,
        ids: np.ndarray,
        counts: np.ndarray,
        n_words: int,
        dtype: DTypeLike,
    ) -> Documents:
        """Return a corpus with a part for every group of documents, padded to the group's width."""
        starts, parts = np.cumsum(lengths) - lengths, []
        for rows, width in zip(groups, widths, strict=True):
            column = np.arange(width)
            there = column < lengths[rows][:, None]
            cell = np.where(there, starts[rows][:, None] + column, len(ids))
            padded = (np.append(x, 0)[cell] for x in (ids, counts))
            parts.append(Bags(*map(placed, padded, (jnp.int32, dtype))))
        return cls(tuple(parts), placed(np.concatenate(groups), jnp.int32), n_words=n_words)

    def in_parts_of(self, other: Documents) -> Documents:
        """Return these documents, followed by empty ones, in parts of the shapes that another corpus has.

        If a document is too long for those, all parts become longer.

        Raises:
            ValueError: if there are more documents than in the other corpus.
        """
        lengths, ids, counts = self._flat()
        lengths, groups, widths = groups_like(lengths, [part.ids.shape for part in other.parts], "documents")
        dtype = other.parts[0].counts.dtype
        return self._pad(groups, widths, lengths, ids, counts, self.n_words, dtype)

    def in_parts_for(self, n_devices: int, most: Most = lambda x: x) -> Documents:
        """Return these documents, and a few empty ones, in parts whose sizes so many devices divide."""
        lengths, ids, counts = self._flat()
        lengths, groups, widths = groups_for(lengths, n_devices, most, FEW_PARTS)
        dtype = self.parts[0].counts.dtype
        return self._pad(groups, widths, lengths, ids, counts, self.n_words, dtype)

    def take(self, rows: ArrayLike) -> Documents:
        """Return some of the documents, with the vocabulary of all: those of a fit, say, and those held out.

        Args:
            rows: numbers of documents, (m,), in any order and as often as wanted; or a mask, (n,).

        Raises:
            ValueError: if `rows` are neither, out of range, or empty.

        >>> import vbjax as vb
        >>> docs = vb.Documents.of([[(0, 2), (3, 1)], [(1, 1)], []])
        >>> docs.take([2, 0])
        Documents(2 documents, 4 words, 3 tokens)
        """
        chosen = row_numbers(rows, self.here().n_rows, "documents")
        return self.packed(*self._flat(chosen), self.n_words, self.parts[0].counts.dtype)

    def _flat(self, rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return lengths and, end to end, words and counts of the documents here, or of the given rows."""
        here = self.here()
        parts = [jax.tree.map(np.asarray, part) for part in here.parts]
        bags = [(ids[c > 0], c[c > 0]) for part in parts for ids, c in zip(*part, strict=True)]
        place = np.argsort(np.asarray(here.order))
        place = place if rows is None else place[rows]
        ids, counts = zip(*(bags[i] for i in place), strict=True)
        return np.array([len(own) for own in ids]), np.concatenate(ids), np.concatenate(counts)

    @property
    def n_tokens(self) -> Array:
        """Number of words in the corpus, each counted as often as it occurs."""
        return jnp.stack([part.counts.sum() for part in self.parts]).sum()

    def tokens(self) -> Num[Array, " n"]:
        """Return the number of words of every document, (n,), each counted as often as it occurs."""
        return self.join([part.counts.sum(1) for part in self.parts])

    def word_counts(self) -> Num[Array, " v"]:
        """Return how often every word of the vocabulary is in the corpus, (n_words,)."""
        total = jnp.zeros(self.n_words, self.parts[0].counts.dtype)
        for part in self.parts:
            total = total.at[part.ids].add(part.counts)
        return total

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        here = self.here()  # others may not print theirs
        tokens = f", {here.n_tokens:.0f} tokens" if is_concrete(self) else ""
        return f"Documents({here.n_rows} documents, {self.n_words} words{tokens})"


def _cells(corpus: Given) -> tuple[int, np.ndarray, np.ndarray, np.ndarray, int | None]:
    """Return the number of documents; document, word and count of every cell; a table's number of columns."""
    sparse = hasattr(corpus, "tocoo")
    if isinstance(corpus, jax.core.Tracer):
        raise ValueError("corpus must be known: make Documents outside of jit and vmap, and give these")
    if sparse or hasattr(corpus, "__array__"):
        table: Any = corpus.tocoo() if sparse else np.asarray(as_numbers(corpus, "corpus"))
        if table.ndim != 2 or not np.can_cast(table.dtype, float):
            raise ValueError(f"corpus must be a table of counts; got {table.dtype}, shape {table.shape}")
        row, column = (table.row, table.col) if sparse else np.nonzero(table)
        count = table.data if sparse else table[row, column]
        return table.shape[0], row.astype(int), column, count.astype(float), table.shape[1]
    if not isinstance(corpus, Iterable) or isinstance(corpus, (str, bytes, dict, set, frozenset, Ragged)):
        raise ValueError(f"corpus must be documents, or a table of counts; got {type(corpus).__name__}")
    pairs = [_pairs(document, i) for i, document in enumerate(corpus)]
    document = np.repeat(np.arange(len(pairs)), np.array([len(p) for p in pairs], int))
    word, count = np.concatenate([np.zeros((0, 2)), *pairs]).T
    return len(pairs), document, word, count, None


def _pairs(document: Given, i: int) -> np.ndarray:
    """Return words and counts of a document, (m, 2)."""
    try:
        pairs = np.asarray(list(document))
    except (TypeError, ValueError):  # no iterable, or of unequal lengths
        pairs = np.zeros(1)
    if len(pairs) and (pairs.shape[1:] != (2,) or not np.can_cast(pairs.dtype, float)):
        hint = "; words are for Documents.from_tokens" if pairs.dtype.kind == "U" else ""
        if isinstance(document, dict):
            hint = "; pairs are the dict's items()"
        what = (
            f"corpus: document {i} must be pairs (word, count) of numbers; got {reprlib.repr(document)}{hint}"
        )
        raise ValueError(what)
    return pairs.reshape(-1, 2)


def read_vocabulary(vocabulary: Given) -> list[str]:
    """Return the words of a vocabulary, every one once, in their order."""
    if isinstance(vocabulary, (dict, set, frozenset)):
        kind = type(vocabulary).__name__
        raise ValueError(f"vocabulary must be a list of words, word by number; got a {kind}")
    words = read_words(vocabulary, "vocabulary")
    number = {word: i for i, word in enumerate(words)}
    if len(number) < len(words):
        twice = next(word for i, word in enumerate(words) if number[word] != i)
        raise ValueError(f"vocabulary must have every word once; it has {twice!r} twice")
    return words


def read_words(words: Given, name: str) -> list[str]:
    """Return a list of words from any iterable of words; a single string is refused."""
    if not isinstance(words, Iterable) or isinstance(words, (str, bytes)):
        raise ValueError(f"{name} must be a list of words; got {reprlib.repr(words)}")
    words = list(words)
    for word in words:
        if not isinstance(word, str):
            hint = "; pairs (word, count) are for Documents.of" if isinstance(word, (tuple, list)) else ""
            raise ValueError(f"{name} must be a list of words; it has {reprlib.repr(word)}{hint}")
    return words


def _read_dtype(dtype: DTypeLike) -> tuple[np.dtype, float]:
    """Return the dtype of counts, and the largest count that it holds."""
    try:
        read = jax.dtypes.canonicalize_dtype(dtype)
    except TypeError:
        read = np.dtype(object)
    if jnp.issubdtype(read, jnp.floating) and read.itemsize >= 4:
        return read, math.inf
    if not jnp.issubdtype(read, jnp.integer) or read.kind == "m":
        raise ValueError(f"dtype must be float32, float64 or integers that hold the counts; got {dtype!r}")
    return read, float(np.iinfo(read).max)


def _require(fine: np.ndarray, document: np.ndarray, values: np.ndarray, what: str) -> None:
    """Raise a ValueError that names the first document with a value that is not fine."""
    if not fine.all():
        first = int((~fine).argmax())
        raise ValueError(f"{what}; document {document[first]} has {values[first]:.15g}")
