"""Laws of the readers.

The bundled files come in the default float; a CSV file comes back number for number, with its names, or as
sequences; a corpus, count for count, with its words (and as the other ways of giving it: test_documents.py);
and a bad file is refused with its name, the line and the column.
"""

import csv
import gzip
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from vbjax.data import datasets

BUNDLED = Path(datasets.__file__).parent / "tables" / "old_faithful.csv"


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "table.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_old_faithful_is_the_bundled_file(dtype):
    with jax.enable_x64(dtype == "float64"):
        x = datasets.old_faithful()
    assert isinstance(x, jax.Array)
    assert x.shape == (272, 2)
    assert x.dtype == dtype
    with BUNDLED.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["eruptions", "waiting"]
    expected = np.array(rows, dtype=float)
    np.testing.assert_array_equal(x, expected.astype(dtype))
    # R's summary(faithful): means of 3.488 and 70.9 minutes
    np.testing.assert_allclose(np.mean(x, axis=0, dtype=float), expected.mean(0), rtol=1e-7)
    np.testing.assert_allclose(expected.mean(0), [3.4878, 70.8971], atol=1e-4)


def test_earthquakes_are_the_counts_of_the_book(dtype):
    counts = datasets.earthquakes()
    assert counts.shape == (107, 1)
    assert counts.dtype == dtype
    x, names = datasets.read_table(BUNDLED.with_name("earthquakes.csv"))
    assert names == ["year", "count"]
    np.testing.assert_array_equal(x[:, 0], 1900 + np.arange(107))
    np.testing.assert_array_equal(counts[:, 0], x[:, 1])
    # Zucchini & MacDonald (2009), section 1.2: sample mean and variance
    np.testing.assert_allclose([x[:, 1].mean(), x[:, 1].var(ddof=1)], [19.36, 51.57], atol=5e-3)


def test_read_table_reads_the_bundled_file():
    x, names = datasets.read_table(BUNDLED)
    assert names == ["eruptions", "waiting"]
    assert x.dtype == np.float64
    faithful = datasets.old_faithful()
    np.testing.assert_array_equal(x.astype(faithful.dtype), faithful)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b\n1,-2.5\n3e2, 4\n", ["a", "b"]),
        ("1,-2.5\n3e2,4", ["x0", "x1"]),
        ('\ufeff"a","b,c"\r\n1,-2.5\r\n300,4\r\n\r\n \r\n', ["a", "b,c"]),
        ("a;b, c\n1;-2.5\n300;4\n", ["a", "b, c"]),
        ('"a;b","c\td"\n1,-2.5\n300,4\n', ["a;b", "c\td"]),
        ("a\tb; c, d\n1\t-2.5\n300\t4", ["a", "b; c, d"]),
        ("1;-2.5\n300;4\n", ["x0", "x1"]),
    ],
)
def test_header_is_optional_and_blank_lines_end_a_file(table, text, names):
    x, found = datasets.read_table(table(text))
    np.testing.assert_array_equal(x, [[1, -2.5], [300, 4]])
    assert found == names


@pytest.mark.parametrize("text", ["a,NA\n,1\nNA,2\nnan, \n3, NA \n", "a;NA\n;1\nNA;2\nNaN;na\n3;\n"])
def test_blank_cells_na_and_nan_are_missing_where_they_may_be(table, text):
    path = table(text)
    x, names = datasets.read_table(path, missing=True)
    np.testing.assert_array_equal(x, [[np.nan, 1], [np.nan, 2], [np.nan, np.nan], [3, np.nan]])
    assert names == ["a", "NA"]
    with pytest.raises(ValueError, match=r"line 2, column 'a': ''; expected a finite number; missing=True"):
        datasets.read_table(path)
    steps = datasets.read_series_table(path)
    np.testing.assert_array_equal(steps.values, x)
    np.testing.assert_array_equal(datasets.read_table(table("NA,1\n2,3\n"), missing=True)[0][1], [2, 3])
    with pytest.raises(ValueError, match="line 2, column 'a': 'inf'; expected a finite number, or nothing"):
        datasets.read_table(table("a\ninf\n"), missing=True)


def test_gzipped_files_are_read_like_others(tmp_path):
    for name, text, read in (
        ("table.csv", "a;b\n1;2\n", datasets.read_table),
        ("corpus.ldac", "1 0:2\n", lambda path: datasets.read_ldac(path).word_counts()),
    ):
        plain, packed = tmp_path / name, tmp_path / f"{name}.gz"
        plain.write_text(text)
        packed.write_bytes(gzip.compress(text.encode()))
        np.testing.assert_equal(read(packed), read(plain))
        for bad in (text.encode(), packed.read_bytes()[:-9], packed.read_bytes()[:12] + bytes(20)):
            packed.write_bytes(bad)
            with pytest.raises(ValueError, match=f"{name}.gz: not a .* in UTF-8"):
                read(packed)


def test_columns_of_text_are_named_with_the_remedy(table):
    remedy = r"columns, in the shell --columns x,y, leaves out the 2 columns of text"
    path = table("who,x,y,place\nNA,1,2,\nann,3,4,york\n")
    with pytest.raises(ValueError, match=f"line 3, column 'who': 'ann'; expected a finite number; {remedy}"):
        datasets.read_table(path)
    assert datasets.read_table(path, ["x", "y"])[0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match=r"line 2, column 'b': '2,5'; .* with a point for its decimals"):
        datasets.read_table(table("a;b\n1;2,5\n"))
    with pytest.raises(ValueError, match=r"line 2, column 'b': '2,5'; .* with a point for its decimals"):
        datasets.read_series(table("a;b\n1;2,5\n"))


def test_a_first_line_of_names_and_numbers_is_neither_header_nor_data(table):
    for text in ("1.5,6O,7\n2,61,8\n", "1.5,,up\n2,61,8\n"):
        with pytest.raises(ValueError, match=r"table.csv, line 1: '(6O|up)' is no number but '1.5' is one"):
            datasets.read_table(table(text))
    with pytest.raises(ValueError, match=r"table.csv, line 1: '6O' is no number but '1.5' is one"):
        datasets.read_series(table("1.5,6O,7\n2,61,8\n"))
    path = table("year,2019,2020\n1,2,3\n")
    assert datasets.read_table(path, ["2020"])[0].tolist() == [[3]]  # a column of that name: a header
    x, names = datasets.read_table(table("ann,1.5,60\nbob,1.75,70\n"), [1, 2])
    assert (x.tolist(), names) == ([[1.5, 60], [1.75, 70]], ["x1", "x2"])
    with pytest.raises(ValueError, match=r"table.csv, line 1, column 'x0': 'ann'; expected a finite number"):
        datasets.read_table(table("ann,1.5,60\nbob,1.75,70\n"))


def test_an_index_without_a_name_is_left_out_with_a_word(table):
    path = table(",a,b\n0,1,-2.5\n1,3e2,4\n")
    for read in (datasets.read_table, lambda path: datasets.read_series_table(path)[:2]):
        with pytest.warns(UserWarning, match=r"table.csv: column 0 has no name.*left out"):
            x, names = read(path)
        np.testing.assert_array_equal(x, [[1, -2.5], [300, 4]])
        assert names == ["a", "b"]
    x, names = datasets.read_table(path, [0, 1])
    assert (x.tolist(), names) == ([[0, 1], [1, 300]], ["", "a"])
    assert unpacked(datasets.read_series(path, 0)) == [[[1, -2.5]], [[300, 4]]]


@pytest.mark.parametrize("columns", ["ab", [], 3, b"a"])
def test_columns_that_are_no_list_are_refused(table, columns):
    for read in (datasets.read_table, lambda path, columns: datasets.read_series(path, None, columns)):
        with pytest.raises(ValueError, match="columns must be a list of names or numbers, at least one; got"):
            read(table("a,b\n1,2\n"), columns)


@pytest.mark.parametrize("path", [0, None, 2.5, ["a.csv"]])
def test_a_path_is_the_name_of_a_file(path):
    """A number would be one of the process's open files: 0 waits for what is typed."""
    for read in (datasets.read_table, datasets.read_series, datasets.read_ldac, datasets.read_vocabulary):
        with pytest.raises(TypeError, match="path must be the name of a file; got"):
            read(path)
    with pytest.raises(TypeError, match="path must be the name of a file; got"):
        next(datasets.stream_ldac(path, 3))


def test_columns_are_taken_by_name_or_number(table):
    path = table("a,label,c\n1,x,3\n4,y,6\n")
    for columns in (["c", "a"], [2, 0], ["c", 0]):
        x, names = datasets.read_table(path, columns)
        np.testing.assert_array_equal(x, [[3, 1], [6, 4]])
        assert names == ["c", "a"]
    for missing in ("d", 3, -1):
        with pytest.raises(ValueError, match=f"table.csv: no column {missing!r} in columns"):
            datasets.read_table(path, [missing])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3,four\n", "table.csv, line 3, column 'b': 'four'; expected a finite number"),
        ("1,2\n3,\n", "table.csv, line 2, column 'x1': ''; expected a finite number"),
        ("a,b\n1,nan\n", "table.csv, line 2, column 'b': 'nan'"),
        ("1,-inf\n", "table.csv, line 1, column 'x1': '-inf'"),
        ("a,b\n1,1_000\n", "table.csv, line 2, column 'b': '1_000'"),
        ("a,b\n1,2\n3\n", "table.csv, line 3: 1 cells; expected 2"),
        ("a,b\n1,2,3\n", "table.csv, line 2: 3 cells; expected 2"),
        ("a,b\n1,2\n\n3,4\n", "table.csv, line 3: 0 cells; expected 2"),
        ("", "table.csv: the file is empty"),
        ("\n \n", "table.csv: the file is empty"),
        ("a,b\n", "table.csv: no data after the header in line 1"),
        (b"a\xff,b\n1,2\n", "table.csv: not a CSV file in UTF-8"),
    ],
)
def test_bad_tables_are_refused_with_their_place(table, text, message):
    with pytest.raises(ValueError, match=message):
        datasets.read_table(table(text))


def unpacked(sequences):
    return [x.tolist() for x in sequences.unpack([part.values for part in sequences.parts])]


def test_a_series_is_read_step_by_step(table):
    path = table("who,t,x,label\nb,0,1,up\nb, 1 ,-2.5,down\na,0,3e2,up\nb,2,4,\n\n")
    assert unpacked(datasets.read_series(path, "who")) == [[[0, 1], [1, -2.5], [2, 4]], [[0, 300]]]
    for by, column in (("who", "x"), (0, 2)):
        assert unpacked(datasets.read_series(path, by, [column])) == [[[1], [-2.5], [4]], [[300]]]
    assert unpacked(datasets.read_series(path)) == [[[0, 1], [1, -2.5], [0, 300], [2, 4]]]
    assert unpacked(datasets.read_series(path, "t", ["x"])) == [[[1], [300]], [[-2.5]], [[4]]]


def test_empty_cells_and_nan_of_a_series_are_missing(table):
    (part,) = datasets.read_series(table("x,y,z\n,nan,up\n1, ,\nNaN,,\n2,3,down\n,,\n")).parts
    np.testing.assert_array_equal(part.observed, [[False, True, False, True]])
    np.testing.assert_array_equal(part.values, [[[0, 0], [1, np.nan], [0, 0], [2, 3]]])


@pytest.mark.parametrize(
    ("text", "by", "columns", "message"),
    [
        (
            "a,b\n1,2\n3,four\n",
            None,
            None,
            "line 3, column 'b': 'four'; expected a finite number, or nothing",
        ),
        ("a,b\n1,2\n3,inf\n", None, None, "line 3, column 'b': 'inf'; expected a finite number, or nothing"),
        ("a,b\n1,2\n3\n", None, None, "line 3: 1 cells; expected 2"),
        ("a,b\n1,2\n3\n", "b", None, "line 3: 1 cells; expected 2"),
        ("a,b\n1,up\n", None, ["b"], "line 2, column 'b': 'up'; expected a finite number"),
        ("a,b\n1,2\n", None, ["c"], "no column 'c' in columns; expected a name or number of"),
        ("a,b\n1,2\n", "c", None, "no column 'c' in sequence; expected a name or number of"),
        ("a,b\n1,2\n,3\n", "a", None, "line 3, column 'a': blank; expected a sequence's name"),
        ("a,b\nup,\ndown,nan\n", None, None, "no column of numbers; expected one at least, of .'a', 'b'"),
        ("1,2\n3,4\n", None, None, "line 1: no header; expected the names of the columns"),
        ("1,\n3,4\n", None, None, "line 1: no header; expected the names of the columns"),
        ("a,b\n,\n", None, None, "no data after the header in line 1"),
        ("", None, None, "the file is empty; expected a header and lines of numbers"),
    ],
)
def test_bad_series_are_refused_with_their_place(table, text, by, columns, message):
    with pytest.raises(ValueError, match=f"table.csv.*{message}"):
        datasets.read_series(table(text), by, columns)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.read_table(tmp_path / "none.csv")


@pytest.fixture
def corpus(tmp_path):
    def write(text):
        path = tmp_path / "corpus.ldac"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("text", ["2 0:2 3:1\n0\n1 1:1", "\ufeff2 3:1  0:2 \r\n0\r\n1 1:1\r\n\r\n \r\n"])
def test_a_corpus_is_read_count_for_count(corpus, text):
    documents = datasets.read_ldac(corpus(text))
    np.testing.assert_array_equal(documents.tokens(), [3, 0, 1])
    np.testing.assert_array_equal(documents.word_counts(), [2, 1, 0, 1])
    assert datasets.read_ldac(corpus(text), 6).n_words == 6


def test_a_corpus_cut_in_a_line_is_refused_with_the_line(corpus):
    text = "2 0:2 3:1\n1 1:1\n3 0:1 1:1 2:1"
    for end in range(1, len(text)):
        line = text[:end].count("\n") + 1
        if text[end - 1] == "\n" or text[end] == "\n":
            assert len(datasets.read_ldac(corpus(text[:end]))) == line - (text[end - 1] == "\n")
        else:
            with pytest.raises(ValueError, match=f"corpus.ldac, line {line}: "):
                datasets.read_ldac(corpus(text[:end]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "2 0:1 1:1\n2 0:1\n",
            "corpus.ldac, line 2: begins with '2'; expected the number of its pairs id:count, 1",
        ),
        ("1 0:1 1:1\n", "corpus.ldac, line 1: begins with '1'; expected .*, 2"),
        ("0:1 1:1\n", "corpus.ldac, line 1: begins with '0:1'; expected .*, 1"),
        ("1 0:1\n\n1 0:1\n", "corpus.ldac, line 2: begins with ''; expected"),
        ("1 0:1\n1 -1:1\n", "corpus.ldac, line 2: '-1:1'; expected id:count, whole numbers"),
        ("1 0:-1\n", "corpus.ldac, line 1: '0:-1'; expected id:count, whole numbers"),
        ("2 0:1 1:1.5\n", "corpus.ldac, line 1: '1:1.5'; expected"),
        ("1 0:nan\n", "corpus.ldac, line 1: '0:nan'; expected"),
        ("1 a:1\n", "corpus.ldac, line 1: 'a:1'; expected"),
        ("1 0:1_0\n", "corpus.ldac, line 1: '0:1_0'; expected"),
        ("1 0:1:2\n", "corpus.ldac, line 1: '0:1:2'; expected"),
        ("1 0\n", "corpus.ldac, line 1: '0'; expected"),
        ("1 0:\n", "corpus.ldac, line 1: '0:'; expected"),
        ("1 4294967296:1\n", "corpus.ldac, line 1: '4294967296:1'; expected .* nine digits"),
        ("0\n3 4:1 0:1 4:2\n", "corpus.ldac, line 2: word 4 twice"),
        ("2 0:1 4:1\n1 5:1\n", "corpus.ldac, line 2: word 5; expected numbers less than 5"),
        ("", "corpus.ldac: no document"),
        ("\n \n", "corpus.ldac: no document"),
        (b"1 0:1\xff\n", "corpus.ldac: not a text in UTF-8"),
    ],
)
def test_bad_corpora_are_refused_with_their_line(corpus, text, message):
    with pytest.raises(ValueError, match=message):
        datasets.read_ldac(corpus(text), 5)
    with pytest.raises(ValueError, match=message):
        list(datasets.stream_ldac(corpus(text), 5))


def test_a_word_that_comes_again_and_again_is_found_at_once(corpus):
    line = " ".join(f"{i}:1" for i in range(40_000))
    path, begun = corpus(f"40001 {line} 39999:1\n"), time.process_time()
    with pytest.raises(ValueError, match="line 1: word 39999 twice"):
        datasets.read_ldac(path)
    assert time.process_time() - begun < 2  # by comparing every word with all before it: more than a minute


def test_a_slip_in_a_number_does_not_make_a_vocabulary_of_a_million(corpus):
    path = corpus("1 0:1\n2 1:1 999999999:2\n")
    with pytest.raises(ValueError, match=r"line 2: word 999999999; expected .* 1000000; .* give n_words"):
        datasets.read_ldac(path)
    assert datasets.read_ldac(path, 10**9).n_words == 10**9


def test_a_vocabulary_of_no_size_is_refused(corpus):
    with pytest.raises(ValueError, match="n_words must be a whole number of at least 1; got 0"):
        datasets.read_ldac(corpus("1 0:1"), 0)


def test_the_words_of_a_vocabulary_are_those_of_its_lines(corpus):
    path = corpus("\ufeffto\r\nbe or\r\n  naïve \r\n\r\n")
    assert datasets.read_vocabulary(path) == ["to", "be or", "naïve"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "corpus.ldac: no word"),
        ("\n\n", "corpus.ldac: no word"),
        ("to\n\nbe\n", "corpus.ldac, line 2: blank; expected a word"),
        (b"to\nb\xff", "corpus.ldac: not a text in UTF-8"),
    ],
)
def test_bad_vocabularies_are_refused(corpus, text, message):
    with pytest.raises(ValueError, match=message):
        datasets.read_vocabulary(corpus(text))


def test_a_stream_gives_the_documents_of_the_file_in_their_order(corpus):
    path = corpus("2 0:1 4:2\n0\n1 1:3\n3 0:1 1:1 2:1\n1 3:2\n\n")
    whole, batches = datasets.read_ldac(path, 5), list(datasets.stream_ldac(path, 5, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert all(batch.n_words == 5 for batch in batches)
    np.testing.assert_array_equal(np.concatenate([batch.tokens() for batch in batches]), whole.tokens())
    np.testing.assert_array_equal(sum(batch.word_counts() for batch in batches), whole.word_counts())
