"""Laws of reading arrays: numbers of any container and dtype come out as they went in, missing ones as NaN;
what is no number is refused with its place and the remedy. Nothing is cut, wrapped around or unmasked."""

import decimal
import fractions

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import vbjax as vb
from vbjax.numerics.inputs import as_array, as_numbers, read_arrays, read_column, read_table

MASKED = np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[False, True], [False, False]])


@pytest.mark.parametrize("table", [MASKED, [MASKED[0], MASKED[1]]], ids=["an array", "a list of rows"])
def test_masked_entries_are_missing(table):
    np.testing.assert_array_equal(read_table(table, missing=True), [[1, np.nan], [3, 4]])
    for missing, remedy in ((False, "missing=True"), (None, r"x\.filled")):
        with pytest.raises(ValueError, match=rf"x must have no masked entry; entry \[0, 1\].*{remedy}"):
            read_table(table, "x", missing=missing)


def test_masked_whole_numbers_are_missing_too():
    counts = np.ma.array([[1, 2], [3, 4]], mask=[[0, 0], [1, 0]])
    np.testing.assert_array_equal(read_table(counts, missing=True), [[1, 2], [np.nan, 4]])


def test_a_mask_without_a_masked_entry_is_none():
    np.testing.assert_array_equal(read_table(np.ma.array([[1.0], [2.0]], mask=[[0], [0]])), [[1], [2]])


def test_the_masked_entries_of_a_model_of_ones_own_and_of_weights_are_refused():
    with pytest.raises(ValueError, match=r"data must have no masked entry; entry \[0, 1\]"):
        read_arrays((np.zeros(2), MASKED), "data")
    with pytest.raises(ValueError, match="weights must have no masked entry"):
        vb.fit(vb.KMeans(1), np.zeros((2, 1)), weights=MASKED[0], key=jax.random.key(0))


def test_nullable_columns_of_a_frame_are_numbers():
    frame = pd.DataFrame(
        {
            "a": pd.array([1, None], dtype="Int64"),
            "b": [1.5, 2.5],
            "c": pd.array([True, False], dtype="boolean"),
            "d": pd.Series([2, 3], dtype=object),
        }
    )
    np.testing.assert_array_equal(read_table(frame, missing=True), [[1, 1.5, 1, 2], [np.nan, 2.5, 0, 3]])
    with pytest.raises(ValueError, match=r"data must be finite; row 1 is the first.*missing=True"):
        read_table(frame, missing=False)
    whole = as_numbers(pd.Series([3, 1], dtype=object), "group")
    assert whole.dtype == int
    assert whole.tolist() == [3, 1]


def test_numbers_of_python_are_numbers():
    given = np.array(
        [fractions.Fraction(1, 2), decimal.Decimal("0.25"), np.float32(3), np.bool_(True), 2], object
    )
    np.testing.assert_array_equal(as_numbers(given, "x"), [0.5, 0.25, 3, 1, 2])


FRAME = pd.DataFrame({"height": [1.0, 2.0], "name": ["ann", "bob"]})
NO_NUMBERS = {
    "text of a frame": (FRAME, r"x must be numbers; got 'ann' in row 0, column 'name'; code categories"),
    "text": (["a", "b"], r"x must be numbers; got an array of <U1; code categories as .*np\.unique"),
    "categories": (pd.Series(["a", "b"], dtype="category"), "got 'a' in row 0; code categories"),
    "times": (
        pd.Series(pd.to_datetime(["2020-01-01"])),
        "got an array of datetime64.*; make numbers of times",
    ),
    "times of a frame": (pd.DataFrame({"t": pd.to_datetime(["2020-01-01"]), "y": [1.0]}), "column 't'"),
    "spans of time": (np.array([1, 2], "m8[s]"), "got an array of timedelta64.*; make numbers of times"),
    "complex": (np.array([1j]), "x must be numbers; got an array of complex128"),
    "None": (None, "x must be numbers; got None"),
    "a set": ({1.0, 2.0}, r"x must be numbers; got \{1.0, 2.0\}; make a list of it first"),
    "a generator": ((i for i in range(3)), "x must be numbers; got <generator.*; make a list of it first"),
    "a dict": ({"a": 1.0}, r"x must be numbers; got \{'a': 1.0\}"),
    "sparse": (scipy.sparse.eye(3), r"x must be a dense array, x\.toarray\(\); got a sparse"),
    "ragged": ([[1.0], [1.0, 2.0]], "x must be numeric arrays; got list"),
    "lists in a column": (pd.Series([[1], [2, 3]]), r"x must be numbers; got \[1\] in row 0$"),
    "a key": (jax.random.key(0), "x must be numbers; got an array of key<fry>"),
}


@pytest.mark.parametrize("name", NO_NUMBERS)
def test_what_is_no_number_is_refused_with_its_place(name):
    x, message = NO_NUMBERS[name]
    with pytest.raises(ValueError, match=message):
        as_array(x, "x")


@pytest.mark.parametrize("half", [np.float16, jnp.bfloat16])
def test_half_precision_is_read_as_float32(half):
    x = np.array([[0.5], [1.5], [7.0]], half)
    for given in (x, jnp.asarray(x)):
        read = read_table(given)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, x.astype(np.float32))
    assert jax.eval_shape(lambda x: read_column(x), jnp.asarray(x[:, 0])).dtype == np.float32
    assert read_arrays({"x": x}, "data")["x"].dtype == np.float32


def test_whole_numbers_beyond_the_integers_of_the_device_do_not_wrap_around():
    np.testing.assert_array_equal(read_column(np.array([3_000_000_000, -(2**40)])), [3e9, -(2.0**40)])
    np.testing.assert_array_equal(as_array(np.array([2**32 - 1], np.uint32), "x"), [2**32 - 1])
    assert as_array(np.array([2**31 - 1, 0]), "x").dtype == jnp.int32


def test_long_doubles_are_read():
    np.testing.assert_array_equal(read_column(np.array([1.5, 2.5], np.longdouble)), [1.5, 2.5])


def test_a_list_of_traced_numbers_is_an_array():
    assert jax.eval_shape(lambda a: read_column([a, 2 * a]), 1.0).shape == (2,)
