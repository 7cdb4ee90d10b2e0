"""Data frames: a fit to one is the fit to its numbers, whichever library made it, and names stay with it.

Columns of another frame are found by name; labels have the codes that they had in the first frame.
"""

import jax
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import vbjax as vb
from vbjax.data.frames import Columns

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SIZE = np.repeat([0.0, 8.0], 20) + RNG.normal(size=40)
VISITS = RNG.poisson(np.repeat([1.0, 9.0], 20))
COLOUR = np.repeat(["red", "blue", "blue", "green"], 10)
MODEL = vb.KMeans(2)
PATIENT = vb.components.Product(
    size=vb.components.Gaussian(), visits=vb.components.Poisson(), colour=vb.components.Categorical()
)
FRAMES = dict(pandas=pd.DataFrame, polars=pl.DataFrame, pyarrow=pa.table)
every_library = pytest.mark.parametrize("library", FRAMES)


def frame(library, **columns):
    return FRAMES[library]({name: list(x) for name, x in columns.items()})


@every_library
def test_a_fit_to_a_frame_is_the_fit_to_its_numbers(library):
    table = frame(library, size=SIZE, visits=VISITS)
    numbers = np.column_stack([SIZE, VISITS])
    fit, expected = vb.fit(MODEL, table, key=KEY), vb.fit(MODEL, numbers, key=KEY)
    assert fit.objective == expected.objective
    assert fit.columns.names == ("size", "visits")
    turned = frame(library, other=COLOUR, visits=VISITS, size=SIZE)
    np.testing.assert_array_equal(fit.predict(turned), expected.predict(numbers))
    np.testing.assert_array_equal(expected.predict(table), expected.predict(numbers))


@every_library
def test_columns_of_different_kinds_are_parts_by_name(library):
    codes = dict(blue=0, green=1, red=2)  # sorted
    numbers = dict(size=SIZE, visits=VISITS, colour=np.array([codes[x] for x in COLOUR]))
    numbers = {name: x[:, None] for name, x in numbers.items()}
    table = frame(library, colour=COLOUR, size=SIZE, visits=VISITS, other=SIZE)
    fit = vb.fit(vb.Mixture(2, PATIENT), table, key=KEY)
    expected = vb.fit(vb.Mixture(2, PATIENT), numbers, key=KEY)
    np.testing.assert_allclose(fit.objective, expected.objective, rtol=1e-6)
    first = {name: x[:1] for name, x in numbers.items()}  # alone, its label would have another code
    one = frame(library, other=[0.0], colour=COLOUR[:1], size=SIZE[:1], visits=VISITS[:1])
    np.testing.assert_allclose(fit.log_predictive(one), expected.log_predictive(first), rtol=1e-5)
    assert fit.columns.labels == (("blue", "green", "red"), None, None, None)


def test_the_order_of_a_categorical_column_is_kept_and_missing_entries_are_nan():
    series = pd.Series(["low", "high", None], dtype=pd.CategoricalDtype(["low", "middle", "high"]))
    columns = Columns.of(pd.DataFrame(dict(level=series, n=pd.array([1, None, 3], dtype="Int64"))))
    assert columns.labels == (("low", "middle", "high"), None)
    read = np.asarray(columns.read(pl.DataFrame(dict(n=[1, None, 3], level=["low", "high", None]))))
    np.testing.assert_array_equal(read, [[0, 1], [2, np.nan], [np.nan, 3]])


@every_library
def test_labelled_rows_of_a_frame(library):
    labels = np.r_[0, np.full(38, -1), 1]
    fit = vb.fit(vb.GaussianMixture(2), vb.Labelled(frame(library, size=SIZE), labels), key=KEY)
    expected = vb.fit(vb.GaussianMixture(2), vb.Labelled(SIZE[:, None], labels), key=KEY)
    assert fit.objective == expected.objective
    assert fit.columns.names == ("size",)


def test_a_loaded_fit_reads_frames_as_the_saved_one(tmp_path):
    fit = vb.fit(vb.CategoricalMixture(2), frame("pandas", colour=COLOUR, size=SIZE > 4), key=KEY)
    fit.save(tmp_path / "colours.vbjax")
    again = vb.load(tmp_path / "colours.vbjax")
    assert again.columns.names == fit.columns.names
    assert again.columns.labels == fit.columns.labels
    one = frame("polars", size=[True], colour=["red"])
    np.testing.assert_array_equal(again.responsibilities(one), fit.responsibilities(one))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (dict(size=SIZE), "data must have a column 'colour'; got columns 'size'"),
        (
            dict(size=SIZE[:2], colour=["red", "pink"]),
            r"column 'colour' of data must hold one of 'blue', 'green', 'red'; got 'pink' in row 1",
        ),
        (
            dict(size=pd.to_datetime(["2020-01-01"]), colour=["red"]),
            r"column 'size' of data must be numbers; got an array of datetime64.*make numbers of times",
        ),
    ],
)
def test_another_frame_that_does_not_fit_is_refused_by_the_columns_name(columns, says):
    fit = vb.fit(MODEL, frame("pandas", size=SIZE, colour=COLOUR), key=KEY)
    with pytest.raises(ValueError, match=says):
        fit.predict(pd.DataFrame(columns))
