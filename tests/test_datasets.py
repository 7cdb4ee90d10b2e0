"""Laws of the tables.

Old Faithful is the bundled file, in the default float; a CSV file comes back number for number, with its
names; and a bad one is refused with the file, the line and the column.
"""

import csv
from pathlib import Path

import jax
import numpy as np
import pytest

from vbjax import datasets

BUNDLED = Path(datasets.__file__).parent / "data" / "old_faithful.csv"


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
    ],
)
def test_header_is_optional_and_blank_lines_end_a_file(table, text, names):
    x, found = datasets.read_table(table(text))
    np.testing.assert_array_equal(x, [[1, -2.5], [300, 4]])
    assert found == names


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


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        datasets.read_table(tmp_path / "none.csv")
