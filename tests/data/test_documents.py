"""Laws of corpora.

The same corpus is the same documents however it is given: pairs, dense and sparse tables, tokens, a file.
Every document stands in one part, of which little is padding; sums are those of the dense table. Rows are
grouped by length in as few groups as the padding allows. What is no corpus is refused with its place.
"""

import dataclasses
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse

from tests.support.compilations import compilations
from vbjax.core.ragged import buckets
from vbjax.data.datasets import read_ldac
from vbjax.data.documents import Documents
from vbjax.data.sequences import Sequences

TABLE = np.array([[2, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 3, 1, 1, 0], [0, 0, 9, 0, 0]])
tables = arrays(int, array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.integers(0, 3))
some_lengths = st.lists(st.integers(0, 300), min_size=1, max_size=60)


def dense(documents):
    """The table of counts, documents x words, filled in cell by cell."""
    table = np.zeros((len(documents), documents.n_words))
    ends = np.cumsum([len(part.ids) for part in documents.parts])
    for part, rows in zip(documents.parts, np.split(documents.order, ends[:-1]), strict=True):
        np.add.at(table, (rows[:, None], np.asarray(part.ids)), np.asarray(part.counts))
    return table


def pairs(table):
    return [[(w, row[w]) for w in np.flatnonzero(row)] for row in table]


def untidy(table):
    """Every occurrence a pair of its own, the last word first, and pairs of count 0 for words not there."""
    for row in table:
        words = np.arange(len(row))[::-1]
        yield ((w, c) for w in words for c in ([1] * row[w] or [0]))


def untidy_coo(table):
    cells = [(d, w, c) for d, document in enumerate(untidy(table)) for w, c in document]
    document, word, count = np.array(cells).T
    return sparse.coo_array((count, (document, word)), table.shape)


def untidy_csr(table):
    """Rows hold every cell, zeros too, from the last to the first."""
    n, v = table.shape
    words = np.tile(np.arange(v)[::-1], n)
    return sparse.csr_matrix((table[:, ::-1].ravel(), words, np.arange(0, n * v + 1, v)), table.shape)


def tokens(table):
    return [[f"w{w}" for w in np.arange(len(row)).repeat(row)[::-1]] for row in table]


def ldac(table):
    return "".join(" ".join([str(len(d)), *(f"{w}:{c}" for w, c in d)]) + "\n" for d in pairs(table))


@settings(max_examples=25)
@given(tables)
def test_every_way_of_giving_a_corpus_gives_the_same_documents(tmp_path_factory, table):
    path = tmp_path_factory.mktemp("corpus") / "corpus.ldac"
    path.write_text(ldac(table))
    n_words = table.shape[1]
    documents = Documents.of(pairs(table), n_words)
    np.testing.assert_array_equal(dense(documents), table)
    ways = [
        Documents.of(untidy(table), n_words),
        Documents.of([np.array(document, float).reshape(-1, 2) for document in pairs(table)], n_words),
        *map(Documents.of, (table, table.astype("float16"), table.astype("uint8"))),
        Documents.of(jnp.asarray(table, jnp.bfloat16)),
        *map(Documents.of, (sparse.csr_matrix(table), sparse.csc_array(table))),
        *map(Documents.of, (untidy_coo(table), untidy_csr(table))),
        Documents.from_tokens(tokens(table), [f"w{w}" for w in range(n_words)])[0],
        read_ldac(path, n_words),
        Documents.of(pd.DataFrame(table).astype("Int64")),
    ]
    for way in ways:
        chex.assert_trees_all_equal(way, documents)


def test_what_is_given_is_left_as_it_is():
    table = untidy_csr(TABLE)
    given = [x.copy() for x in (table.data, table.indices, table.indptr)]
    Documents.of(table)
    for x, before in zip((table.data, table.indices, table.indptr), given, strict=True):
        np.testing.assert_array_equal(x, before)


def test_counts_of_a_narrow_integer_type_are_added_beyond_its_range():
    cells = sparse.coo_array((np.array([200, 200], "uint8"), ([0, 0], [1, 1])), (1, 2))
    np.testing.assert_array_equal(dense(Documents.of(cells)), [[0, 400]])


def test_sums_are_those_of_the_table(dtype):
    documents = Documents.of(TABLE)
    assert documents.parts[0].counts.dtype == documents.word_counts().dtype == dtype
    np.testing.assert_array_equal(documents.word_counts(), TABLE.sum(0))
    np.testing.assert_array_equal(documents.tokens(), TABLE.sum(1))
    assert float(documents.n_tokens) == TABLE.sum()
    assert len(documents) == documents.n_rows == len(TABLE)


def test_counts_come_in_the_dtype_asked_for(float64):
    for asked in ("float32", "float64", "int32"):
        documents = Documents.of(pairs(TABLE), dtype=asked)
        assert {part.counts.dtype for part in documents.parts} == {np.dtype(asked)}
        np.testing.assert_array_equal(dense(documents), TABLE[:, :4])
        found, _ = Documents.from_tokens(tokens(TABLE), dtype=asked)
        assert {part.counts.dtype for part in found.parts} == {np.dtype(asked)}


def test_counts_that_a_dtype_does_not_hold_are_refused():
    assert Documents.of([[(0, 127)]], dtype="int8").parts[0].counts.tolist() == [[127]]
    with pytest.raises(ValueError, match="dtype must hold every count; int8 holds 127; document 1 has 300"):
        Documents.of([[], [(0, 300)]], dtype="int8")
    for dtype in (complex, bool, "float16", "bfloat16", "object", "m8[s]", "no dtype"):
        with pytest.raises(ValueError, match="dtype must be float32, float64 or integers"):
            Documents.of([[(0, 1)]], dtype=dtype)
        with pytest.raises(ValueError, match="dtype must be float32, float64 or integers"):
            Documents.from_tokens([["to"]], dtype=dtype)


@pytest.mark.parametrize("devices", [0, 2, [], [0], "cpu"])
def test_devices_are_a_list_of_devices(devices):
    for rows in (Documents.of(TABLE), Sequences.of(np.zeros((3, 1)))):
        with pytest.raises(ValueError, match="devices must be a list of at least one device"):
            rows.sharded(devices)


def test_a_traced_table_is_no_corpus():
    with pytest.raises(ValueError, match="corpus must be known"):
        jax.jit(lambda table: Documents.of(table).n_tokens)(TABLE)


def test_the_vocabulary_is_what_is_given_or_what_the_corpus_needs():
    assert Documents.of(TABLE).n_words == 5  # the last of them never occurs
    assert Documents.of(pairs(TABLE)).n_words == 4
    assert Documents.of(pairs(TABLE), 9).n_words == Documents.of(TABLE, 9).n_words == 9
    np.testing.assert_array_equal(Documents.of(TABLE, 9).word_counts(), np.pad(TABLE.sum(0), (0, 4)))


def test_nothing_but_empty_documents_is_a_corpus():
    for documents in (Documents.of([[], []]), Documents.of(np.zeros((2, 0))), Documents.of([[(0, 0)], []])):
        assert len(documents) == 2
        assert documents.n_words == 1
        np.testing.assert_array_equal(documents.tokens(), [0, 0])
        np.testing.assert_array_equal(documents.word_counts(), [0])


def test_a_corpus_is_a_pytree_and_its_text_says_what_is_known():
    documents = Documents.of(TABLE)
    assert repr(documents) == "Documents(4 documents, 5 words, 17 tokens)"
    texts = []

    @jax.jit
    def traced(documents):
        texts.append(repr(documents))
        return documents.word_counts()

    np.testing.assert_array_equal(traced(documents), TABLE.sum(0))
    assert texts == ["Documents(4 documents, 5 words)"]


@settings(max_examples=25)
@given(tables, st.data())
def test_taken_documents_are_the_rows_of_the_table(table, data):
    documents = Documents.of(table)
    rows = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=8))
    taken = documents.take(rows)
    chex.assert_trees_all_equal(taken, Documents.of(table[rows]))
    mask = np.arange(len(table)) >= len(table) // 2
    chex.assert_trees_all_equal(documents.take(mask), Documents.of(table[mask]))


def test_taken_documents_leave_out_counts_of_zero_and_keep_the_dtype():
    some = Documents.of(TABLE, dtype="int32")
    none = jax.tree.map(jnp.zeros_like, some.parts)
    emptied = dataclasses.replace(
        some, parts=(*some.parts[:-1], some.parts[-1]._replace(counts=none[-1].counts))
    )
    taken = emptied.take(np.arange(4))
    np.testing.assert_array_equal(dense(taken), dense(emptied))
    assert {part.counts.dtype for part in taken.parts} == {np.dtype("int32")}
    chex.assert_trees_all_equal(some.take(jnp.arange(4)), some)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "rows must be numbers of documents, at least one, or a mask of shape .4,.; got ..$"),
        ([0.0], "rows must be numbers of documents"),
        (2, "rows must be numbers of documents"),
        ([True, False], "rows must be numbers of documents"),
        ([False] * 4, "rows must be numbers of documents"),
        ([0, 4], "rows must be from 0 to 3; got 0 to 4"),
        ([-1], "rows must be from 0 to 3; got -1 to -1"),
        (["a"], "rows must be numbers; got an array of <U1"),
        ([[0], [1, 2]], "rows must be numeric arrays"),
        (None, "rows must be numbers; got None"),
    ],
)
def test_rows_that_are_no_documents_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        Documents.of(TABLE).take(rows)


# -- tokens ------------------------------------------------------------------------------------------


def test_by_default_the_vocabulary_is_the_distinct_words_sorted():
    documents, vocabulary = Documents.from_tokens(iter([iter(["b", "B", "b"]), [], ("a",)]))
    assert vocabulary == ["B", "a", "b"]
    np.testing.assert_array_equal(dense(documents), [[1, 0, 2], [0, 0, 0], [0, 1, 0]])


def test_words_outside_a_given_vocabulary_are_left_out():
    vocabulary = ["w3", "w9", "w0"]
    documents, found = Documents.from_tokens(tokens(TABLE), vocabulary)
    assert found == vocabulary
    np.testing.assert_array_equal(dense(documents), np.pad(TABLE, ((0, 0), (0, 5)))[:, [3, 9, 0]])


@pytest.mark.parametrize(
    ("texts", "vocabulary", "message"),
    [
        ("to be", None, "texts must be lists of words; got str"),
        (7, None, "texts must be lists of words; got int"),
        (["to be", "or not"], None, "text 0 must be a list of words; got 'to be'"),
        ([["to"], None], None, "text 1 must be a list of words; got None"),
        ([["to"], ["be", 2]], None, "text 1 must be a list of words; it has 2"),
        ([], None, "texts must have at least one document"),
        ([[], []], None, "vocabulary must have at least one word"),
        ([[(0, 2)]], None, r"text 0 must be a list of words; it has \(0, 2\); pairs .* are for Documents.of"),
        ([["a"]], {"a": 0}, "vocabulary must be a list of words, word by number; got a dict"),
        ([["a"]], {"a"}, "vocabulary must be a list of words, word by number; got a set"),
        ([["to"]], [], "vocabulary must have at least one word"),
        ([["to"]], "to be", "vocabulary must be a list of words; got 'to be'"),
        ([["to"]], [["to"]], "vocabulary must be a list of words; it has ..to.."),
        ([["to"]], ["to", "be", "or", "be"], "vocabulary must have every word once; it has 'be' twice"),
    ],
)
def test_texts_that_are_no_words_are_refused(texts, vocabulary, message):
    with pytest.raises(ValueError, match=message):
        Documents.from_tokens(texts, vocabulary)


# -- parts -------------------------------------------------------------------------------------------


def test_parts_hold_every_document_once_and_join_undoes_split():
    rng = np.random.default_rng(0)
    table = rng.poisson(rng.gamma(0.5, 1, (40, 1)), (40, 30))
    documents = Documents.of(table)
    assert len(documents.parts) > 1
    np.testing.assert_array_equal(np.sort(documents.order), np.arange(40))
    given = {"x": jnp.asarray(rng.normal(size=(40, 2))), "y": jnp.arange(40)}
    split = documents.split(given)
    sizes = [len(part.ids) for part in documents.parts]
    assert [len(part["y"]) for part in split] == sizes
    chex.assert_trees_all_equal(documents.join(split), given)
    chex.assert_trees_all_equal(documents.split(documents.join(split)), split)
    for part, own in zip(documents.parts, split, strict=True):  # what is split stands by its own document
        np.testing.assert_array_equal(part.counts.sum(1), table.sum(1)[own["y"]])


def cells(lengths, groups):
    """What is stored: rows times the longest of a group."""
    return sum(len(rows) * max(1, lengths[rows].max()) for rows in groups)


@given(some_lengths)
def test_groups_hold_every_row_once_by_rising_length(lengths):
    lengths = np.array(lengths)
    groups = buckets(lengths)
    assert all(map(len, groups))
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(lengths)))
    for short, long in itertools.pairwise(groups):
        assert lengths[short].max() < lengths[long].min()


@given(some_lengths, st.sampled_from([0, 1 / 8, 1 / 2]))
def test_padding_is_at_most_the_share_to_spare(lengths, spare):
    lengths = np.array(lengths)
    assert cells(lengths, buckets(lengths, spare)) * (1 - spare) <= np.maximum(lengths, 1).sum()


@given(some_lengths)
def test_three_groups_are_enough_unless_they_leave_more_than_a_third(lengths):
    lengths = np.array(lengths)
    groups, total = buckets(lengths, few=3), np.maximum(lengths, 1).sum()
    assert cells(lengths, groups) * 2 / 3 <= total
    if len(groups) > 3:  # the best three are no answer: fewer groups never leave less
        assert len(groups) == len(buckets(lengths, 1 / 3))
    else:
        assert len(groups) == min(3, len(buckets(lengths)))


DISTRIBUTIONS = {
    "lognormal": lambda rng, n: rng.lognormal(5, 1, n),
    "narrow lognormal": lambda rng, n: rng.lognormal(4, 0.3, n),
    "zipf": lambda rng, n: rng.zipf(2, n),
    "heavier zipf": lambda rng, n: rng.zipf(1.5, n).clip(0, 10**5),
    "even on a logarithmic scale": lambda rng, n: np.exp(rng.uniform(0, np.log(10**6), n)),
    "geometric": lambda rng, n: rng.geometric(0.01, n),
    "uniform": lambda rng, n: rng.integers(0, 1000, n),
    "poisson": lambda rng, n: rng.poisson(200, n),
    "one length": lambda rng, n: np.full(n, 7),
    "one far outlier": lambda rng, n: np.append(np.full(n - 1, 7), 10**6),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_of_many_lengths_a_sixth_is_padding_in_few_groups(name):
    lengths = DISTRIBUTIONS[name](np.random.default_rng(0), 3000).astype(int)
    groups = buckets(lengths)
    lengths = np.maximum(lengths, 1)
    assert cells(lengths, groups) * 5 / 6 <= lengths.sum()
    # rows whose lengths differ by a factor below 6/5 may always share a group
    assert len(groups) <= 1 + math.log(lengths.max() / lengths.min()) / math.log(6 / 5)


def partitions(n):
    """All ways of putting n things into groups."""
    if n == 0:
        yield []
        return
    for groups in partitions(n - 1):
        yield [*groups, [n - 1]]
        for i, group in enumerate(groups):
            yield [*groups[:i], [*group, n - 1], *groups[i + 1 :]]


@given(
    st.lists(st.one_of(st.integers(0, 12), st.integers(0, 40)), min_size=1, max_size=6),
    st.sampled_from([0, 1 / 8, 1 / 4]),
)
def test_no_other_grouping_has_fewer_groups_or_as_many_and_less_padding(lengths, spare):
    lengths = np.array(lengths)
    total = np.maximum(lengths, 1).sum()
    every = [(len(groups), cells(lengths, groups)) for groups in partitions(len(lengths))]
    best = min((number, stored) for number, stored in every if stored * (1 - spare) <= total)
    found = buckets(lengths, spare)
    assert (len(found), cells(lengths, found)) == best


# -- what is no corpus -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "n_words", "message"),
    [
        ([], None, "corpus must have at least one document"),
        (np.zeros((0, 3)), None, "corpus must have at least one document"),
        ("words", None, "corpus must be documents, or a table of counts; got str"),
        (None, None, "corpus must be documents, or a table of counts; got NoneType"),
        ({0: 2}, None, "corpus must be documents, or a table of counts; got dict"),
        (np.ones(3), None, r"corpus must be a table of counts; got float64, shape \(3,\)"),
        (sparse.coo_array(np.ones(3)), None, r"corpus must be a table of counts; got float64, shape \(3,\)"),
        (np.ones((2, 2), complex), None, "corpus must be numbers; got an array of complex128"),
        (np.array([["a", "b"]]), None, "corpus must be numbers; got an array of <U1"),
        ([[(0, 1)], 3], None, "document 1 must be pairs .* of numbers; got 3"),
        (
            [[(0, 1)], ["to", "be"]],
            None,
            "document 1 must be .* got .'to', 'be'.; words .*from_tokens",
        ),
        ([[("0", "1")]], None, "document 0 must be pairs .* of numbers; got"),
        ([[(0, 1), (2,)]], None, "document 0 must be pairs .* of numbers; got"),
        ([[1, 0, 2, 5], [0, 0, 0, 3]], None, "document 0 must be pairs .* of numbers; got .1, 0, 2, 5"),
        ([[], [(1, 2, 3), (4, 5, 6)]], None, "document 1 must be pairs .* of numbers; got .*1, 2, 3"),
        ([{0: 2, 3: 1}], None, r"document 0 must be pairs .* of numbers; got .0: 2, 3: 1.; .* items\(\)"),
        ({(0, 1)}, None, "corpus must be documents, or a table of counts; got set"),
        (Documents.of([[]]), None, "corpus must be documents, or a table of counts; got Documents"),
        (np.ma.array([[1, 2]], mask=[[0, 1]]), None, r"corpus must have no masked entry; entry \[0, 1\]"),
        ([[], [(999_999_999, 1)]], None, "less than 1000000, or n_words given .*; document 1 has 999999999"),
        ([[(0, 1)], [], [(1, -1)]], None, "counts must be whole numbers, at least 0 .* document 2 has -1"),
        ([[(0, 2), (0, -1)]], None, "counts must be whole numbers, at least 0 .* document 0 has -1"),
        ([[(0, 1)], [(1, 2.5)]], None, "counts must be whole numbers, .* document 1 has 2.5"),
        ([[], [(1, np.nan)]], None, "counts must be whole numbers, .* document 1 has nan"),
        ([[(1, np.inf)]], None, "counts must be whole numbers, .* document 0 has inf"),
        ([[(1, 2**31)]], None, "counts must be .* less than 2.31; document 0 has 2147483648"),
        (np.array([[1, 0], [0, np.nan]]), None, "counts must be whole numbers, .* document 1 has nan"),
        (sparse.csr_array([[1, 0], [0, -4]]), None, "counts must be .* at least 0 .* document 1 has -4"),
        ([[], [(-1, 1)]], None, "words must be whole numbers, at least 0 .* document 1 has -1"),
        ([[(0.5, 1)]], None, "words must be whole numbers, .* document 0 has 0.5"),
        ([[(np.nan, 1)]], None, "words must be whole numbers, .* document 0 has nan"),
        ([[(2**31, 1)]], None, "words must be .* less than 2.31; document 0 has 2147483648"),
        ([[], [(6, 1), (7, 0)]], 7, "words must be less than n_words = 7; document 1 has 7"),
        (np.eye(3), 2, "words must be less than n_words = 2; document 2 has 2"),
        ([[(0, 1)]], 0, "n_words must be a whole number of at least 1; got 0"),
        ([[(0, 1)]], 2.5, "n_words must be a whole number of at least 1; got 2.5"),
    ],
)
def test_what_is_no_corpus_is_refused_with_its_place(corpus, n_words, message):
    with pytest.raises(ValueError, match=message):
        Documents.of(corpus, n_words)


def test_documents_in_the_parts_of_others_are_the_same_and_empty_ones_after_them():
    like = Documents.of([[(0, 1)], [(w, 1) for w in range(9)], [], [(2, 1), (3, 1)]], 20)
    docs = Documents.of([[(w, 2) for w in range(15)], [(4, 3)]], 20)
    moved = docs.in_parts_of(like)
    assert [part.ids.shape[0] for part in moved.parts] == [part.ids.shape[0] for part in like.parts]
    np.testing.assert_array_equal(dense(moved), np.vstack([dense(docs), np.zeros((2, 20))]))
    again = like.in_parts_of(moved)
    assert [part.ids.shape for part in again.parts] == [part.ids.shape for part in moved.parts]
    np.testing.assert_array_equal(dense(again), dense(like))


def test_a_minibatch_of_a_new_shape_compiles_nothing():
    """So that a stream holds no more memory the longer it is."""
    like = Documents.of(np.ones((6, 31)))
    with compilations() as seen:
        minibatch = Documents.of(np.ones((5, 29)), 31).in_parts_of(like)
    assert minibatch.n_rows == 6
    assert not seen
