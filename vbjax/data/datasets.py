"""Data sets that come with the package, and strict readers of tables, series and corpora.

The command line uses the readers; their errors name the file, the line and the column.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from importlib import resources

import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.data import csv_tables
from vbjax.data.csv_files import open_text
from vbjax.data.csv_tables import Series
from vbjax.data.documents import MOST_WORDS, Documents
from vbjax.data.sequences import Sequences
from vbjax.numerics.inputs import read_count, read_flag

_PAIR = re.compile(r"([0-9]{1,9}):([0-9]{1,9})")


def old_faithful() -> Array:
    """Return 272 eruptions of the Old Faithful geyser, Yellowstone: two clusters, of short and of long ones.

    Column 0 is the length of an eruption, column 1 the wait until the next, both in minutes.

    The numbers are those of `faithful` in R's package datasets, by way of Rdatasets
    (vincentarelbundock/Rdatasets, commit 1dcc2bf, the column of row numbers dropped). R is under GPL-2 or
    GPL-3; the licence of the data themselves is not known, they are understood to be free to redistribute.

    Returns:
        The data, (272, 2), in the default float dtype.

    References:
        Haerdle (1991), Smoothing Techniques with Implementation in S, Springer.

    >>> x = old_faithful()
    >>> print(x.shape, x[0])
    (272, 2) [ 3.6 79. ]
    """
    return _bundled("old_faithful.csv")


def earthquakes() -> Array:
    """Return the yearly numbers of earthquakes of magnitude 7 or more in the world, from 1900 to 2006.

    The counts are those of the US Geological Survey, in the public domain, by way of an example of hmmlearn
    (plot_poisson_hmm.py, commit e01a10e, BSD-3-Clause): free to redistribute.

    Returns:
        The counts, (107, 1), in the default float dtype: row t is the year 1900 + t.

    References:
        Zucchini & MacDonald (2009), Hidden Markov Models for Time Series, Chapman & Hall, table 1.1.

    >>> counts = earthquakes()
    >>> print(counts.shape, counts[:5, 0])
    (107, 1) [13. 14.  8. 10. 16.]
    """
    return _bundled("earthquakes.csv")[:, 1:]


def _bundled(name: str) -> Array:
    with resources.files("vbjax").joinpath("data", "tables", name).open(encoding="utf-8") as file:
        return jnp.asarray(np.loadtxt(file, delimiter=",", skiprows=1), dtype=float)


def read_table(
    path: str | os.PathLike[str], columns: Sequence[str | int] | None = None, *, missing: bool = False
) -> tuple[np.ndarray, list[str]]:
    r"""Read a CSV file of numbers, with or without a header line.

    The first line is a header if it names the columns of numbers below it, or one of `columns`; without one
    the columns are called "x0", "x1" and so on. A first column that the header does not name, as pandas
    writes its index, is left out with a warning unless `columns` takes it. Blank lines at the end are
    ignored.

    Cells are separated by the first of tab, semicolon and comma that stands in the first line outside
    quotes.

    Args:
        path: the file, UTF-8, gzipped if its name ends in .gz.
        columns: names, or numbers from 0, of the columns to take, in this order; the others need not hold
            numbers. All by default.
        missing: whether cells that are blank, NA or NaN are missing, and become NaN.

    Returns:
        The numbers, (n, d), in numpy's float64 so that nothing is lost before the caller chooses a dtype, and
        the names of the columns.

    Raises:
        ValueError: if the file is no CSV file in UTF-8, or has no line of data; if the first line has both
            names and numbers, so that it may or may not be a header; if a line has more or fewer cells than
            the first; if a cell of a column taken is neither a finite number nor `missing`; if the file does
            not have `columns`. The message names the file, the line (from 1) and the column.
        OSError: if the file cannot be opened, for example FileNotFoundError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "table.csv")
    >>> _ = path.write_text("height,weight,name\n1.5,60,ann\n1.75,70,bob\n")
    >>> read_table(path, ["weight", "height"])
    (array([[60.  ,  1.5 ],
           [70.  ,  1.75]]), ['weight', 'height'])
    """
    return csv_tables.read_table(path, columns, missing=read_flag(missing, "missing"))


def read_series(
    path: str | os.PathLike[str],
    sequence: str | int | None = None,
    columns: Sequence[str | int] | None = None,
) -> Sequences:
    r"""Read sequences from a CSV file with a header line, one step a line.

    Cells that are blank, NA or NaN are missing. Lines without an entry at the end are ignored, and so is a
    first column that the header does not name: see `read_table`.

    Args:
        path: the file, as `read_table` reads it.
        sequence: name, or number from 0, of the column that says which sequence a line belongs to, by any
            text; sequences come in the order of their first lines, their steps in the file's order. By
            default all lines are one sequence.
        columns: names, or numbers from 0, of the columns to take, in this order. By default all columns but
            `sequence` whose first entry that is not missing is a number, which leaves out columns of text.

    Returns:
        The sequences, of steps (d,) for the d columns, in the default float dtype.

    Raises:
        ValueError: as `read_table` does, except for missing entries; if there is no header, a line without a
            sequence, or no column of numbers.
        OSError: if the file cannot be opened, for example FileNotFoundError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "series.csv")
    >>> _ = path.write_text("who,x,y\nann,1.5,60\nann,,61\nbob,1.75,70\n")
    >>> read_series(path, "who")
    Sequences(2 sequences, 3 steps of shape (2,))
    """
    return csv_tables.read_series(path, sequence, columns).sequences()


def read_series_table(
    path: str | os.PathLike[str],
    sequence: str | int | None = None,
    columns: Sequence[str | int] | None = None,
) -> Series:
    r"""Read sequences as `read_series` does, and return them with the names and lines of the file.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "series.csv")
    >>> _ = path.write_text("who,x,y\nann,1.5,60\nann,,61\nbob,1.75,70\n")
    >>> series = read_series_table(path, "who")
    >>> series.names, series.columns
    (['ann', 'bob'], ['x', 'y'])
    """
    return csv_tables.read_series(path, sequence, columns)


def read_ldac(path: str | os.PathLike[str], n_words: int | None = None) -> Documents:
    r"""Read a corpus in the format of lda-c, one document a line: `M id:count id:count ...`.

    M is the number of the document's distinct words, each of which follows as its number, from 0, and how
    often it is there: `0` is an empty document. Blank lines at the end are passed over.

    Args:
        path: the file, UTF-8.
        n_words: the size of the vocabulary; by default one more than the greatest number of a word, which
            must then be less than a million.

    Raises:
        ValueError: no text in UTF-8; no document; a line where M is not the number of pairs, as where a file
            was cut; what is no pair of whole numbers, at least 0 and of nine digits at most; a word twice
            in a document, or outside the vocabulary. The message names the file and the line (from 1).
        OSError: the file cannot be opened, for example FileNotFoundError.

    References:
        Blei, Ng & Jordan (2003), Latent Dirichlet allocation, JMLR 3, and its program lda-c.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "corpus.ldac")
    >>> _ = path.write_text("2 0:2 3:1\n1 1:1\n0\n")
    >>> read_ldac(path)
    Documents(3 documents, 4 words, 4 tokens)
    """
    size = MOST_WORDS if n_words is None else read_count(n_words, "n_words")
    why = (
        "; for a larger vocabulary give n_words, in the shell --vocab"
        if n_words is None
        else ", the size of the vocabulary"
    )
    documents = [_document(path, *line, size, why) for line in enumerate(_text(path, "document"), 1)]
    if n_words is None:
        size = max((max(words, default=0) for words, _ in documents), default=0) + 1
    return _packed(documents, size)


def stream_ldac(path: str | os.PathLike[str], n_words: int, batch_size: int = 256) -> Iterator[Documents]:
    r"""Read a corpus as `read_ldac` does, by minibatches for `vb.fit_stochastic`: it may exceed memory.

    Args:
        path: the file, UTF-8.
        n_words: the size of the vocabulary.
        batch_size: documents of a minibatch; the last one may have fewer.

    Raises:
        ValueError, OSError: as `read_ldac` does, each when its line is reached.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "corpus.ldac")
    >>> _ = path.write_text("2 0:2 3:1\n1 1:1\n0\n")
    >>> list(stream_ldac(path, n_words=4, batch_size=2))
    [Documents(2 documents, 4 words, 4 tokens), Documents(1 documents, 4 words, 0 tokens)]
    """
    with open_text(path):  # a file that cannot be opened is refused here, before the first minibatch
        pass
    return _stream(path, read_count(n_words, "n_words"), read_count(batch_size, "batch_size"))


def _stream(path: str | os.PathLike[str], size: int, batch_size: int) -> Iterator[Documents]:
    batch: list[tuple[list[int], list[int]]] = []
    blank: list[tuple[int, str]] = []
    number = 0
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                blank.append((number, line))
                continue
            each = [*blank[:1], (number, line)]
            batch += [_document(path, *one, size, ", the size of the vocabulary") for one in each]
            if len(batch) == batch_size:
                yield _packed(batch, size)
                batch = []
    if number == len(blank):
        raise ValueError(f"{path}: no document")
    if batch:
        yield _packed(batch, size)


def _document(
    path: str | os.PathLike[str], number: int, line: str, size: int, why: str
) -> tuple[list[int], list[int]]:
    """Return the words of a line and their counts; `why` says in an error why words are less than `size`."""
    length, *pairs = line.split() or [""]
    found = [_PAIR.fullmatch(pair) for pair in pairs]
    words = [int(match[1]) for match in found if match]
    if len(words) < len(pairs):
        what = f"{pairs[found.index(None)]!r}; expected id:count, whole numbers of one to nine digits"
    elif length != str(len(pairs)):
        what = f"begins with {length!r}; expected the number of its pairs id:count, {len(pairs)}"
    elif len(set(words)) < len(words):
        first = {word: i for i, word in reversed([*enumerate(words)])}
        twice = next(word for i, word in enumerate(words) if first[word] < i)
        what = f"word {twice} twice; expected every word of a document once"
    elif max(words, default=0) >= size:
        what = f"word {max(words)}; expected numbers less than {size}{why}"
    else:
        return words, [int(match[2]) for match in found if match]
    raise ValueError(f"{path}, line {number}: {what}")


def _packed(documents: Sequence[tuple[list[int], list[int]]], n_words: int) -> Documents:
    lengths = np.array([len(words) for words, _ in documents])
    ids, counts = (
        np.array([x for each in column for x in each], int) for column in zip(*documents, strict=True)
    )
    return Documents.packed(lengths, ids, counts, n_words)


def read_vocabulary(path: str | os.PathLike[str]) -> list[str]:
    r"""Read the words of a corpus, one a line: word w of the documents is that of line w + 1.

    Spaces around a word and blank lines at the end are ignored.

    Args:
        path: the file, UTF-8.

    Raises:
        ValueError: if the file is no text in UTF-8, has no word, or a blank line before the last word. The
            message names the file, and the line (from 1).
        OSError: if the file cannot be opened, for example FileNotFoundError.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "words.txt")
    >>> _ = path.write_text("cat\ndog\n")
    >>> read_vocabulary(path)
    ['cat', 'dog']
    """
    words = _text(path, "word")
    if "" in words:
        raise ValueError(f"{path}, line {words.index('') + 1}: blank; expected a word")
    return words


def _text(path: str | os.PathLike[str], what: str) -> list[str]:
    """Return the lines of a file, at least one, without spaces around them and blank lines at the end."""
    with open_text(path) as file:
        lines = [line.strip() for line in file]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ValueError(f"{path}: no {what}; expected one a line")
    return lines
