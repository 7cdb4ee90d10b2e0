"""The shell command on .npy and Parquet files: what it finds is what it finds in the same table in CSV."""

import dataclasses
import os
import re

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.command_checks import check_refused
from vbjax.cli import inputs
from vbjax.cli.main import main
from vbjax.inference import saved_fits

pyarrow = pytest.importorskip("pyarrow")


def write_parquet(path, **columns):
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, row_group_size=16)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with one table of two clouds in three formats, and a column to leave out."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 2)).round(4)
    x[:20] = (0.5 * x[:20] + 8).round(4)
    lines = [f"{a:.4f},{b:.4f},{i}" for i, (a, b) in enumerate(x)]
    (tmp_path / "table.csv").write_text("\n".join(["length,mass,number", *lines]) + "\n")
    np.save(tmp_path / "table.npy", np.column_stack([x, np.arange(60)]))
    write_parquet("table.parquet", length=x[:, 0], mass=x[:, 1], number=np.arange(60))
    return tmp_path


def saved(model, data, *options):
    """A fit that was saved, without the names of its columns; these; what `predict` says of the same data."""
    columns = "0,1" if data.endswith(".npy") else "length,mass"
    small = ["--components", "3", "--restarts", "8", "--columns", columns, "--quiet", "--out", "fit"]
    assert main(["fit", model, data, *small, *options]) == 0
    assert main(["predict", "fit", data, "--out", "labels.csv"]) == 0
    fit = vb.load("fit")
    labels = vb.datasets.read_table("labels.csv")[0]
    return dataclasses.replace(fit, columns=None), fit.columns.names, labels


@pytest.mark.parametrize("data", ["table.npy", "table.parquet"])
def test_a_table_in_memory_is_that_of_the_csv_file(data, folder):
    expected, _, labels = saved("gmm", "table.csv")
    found, names, own = saved("gmm", data)
    assert names == (("x0", "x1") if data == "table.npy" else ("length", "mass"))
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_array_equal(own, labels)


def test_of_a_parquet_file_row_numbers_and_words_are_left_out(folder, capsys):
    columns = dict(who=["ann", "bob"], x=[1, None], y=[2.5, 4.0])
    write_parquet("frame.parquet", **columns, __index_level_0__=[5, 7])  # as pandas calls them
    table, names = inputs.load_table("frame.parquet", ["x", "__index_level_0__"], missing=True)
    np.testing.assert_array_equal(table, [[1, 5], [np.nan, 7]])
    assert (names, capsys.readouterr().err) == (["x", "__index_level_0__"], "")
    series = inputs.load_series("frame.parquet", "who", None)
    assert (series.columns, series.names) == (["x", "y"], ["ann", "bob"])
    np.testing.assert_array_equal(series.values, [[1, 2.5], [np.nan, 4]])
    (line,) = capsys.readouterr().err.splitlines()
    assert "column '__index_level_0__' is left out (--columns takes it)" in line
    with pytest.raises(inputs.UserError, match=r"row 1, column 'x': nan; expected a finite number"):
        inputs.load_table("frame.parquet", ["x"], missing=False)


def test_labels_of_a_parquet_file_are_in_the_order_of_its_dictionary(folder):
    from pyarrow import parquet

    level = pyarrow.DictionaryArray.from_arrays([1, 0, None, 1], ["low", "high", "top"])
    columns = dict(level=level, n=[1, 2, 3, 4], word=["b", "a", "b", None])
    parquet.write_table(pyarrow.table(columns), "words.parquet")
    taken = ["n", "word", "level"]
    labels = inputs.load_labels("words.parquet", taken)
    assert labels == [None, ("a", "b"), ("low", "high", "top")]
    expected = np.array([[1, 1, 1], [2, 0, 0], [3, 1, np.nan], [4, np.nan, 1]])
    series = inputs.load_series("words.parquet", None, taken, labels)
    np.testing.assert_array_equal(series.values, expected)
    table, _ = inputs.load_table("words.parquet", taken, missing=True, labels=labels)
    np.testing.assert_array_equal(table, expected)
    says = r"words.parquet, column 'word' must hold one of 'b'; got 'a' in row 1"
    with pytest.raises(inputs.UserError, match=says):
        inputs.load_table("words.parquet", ["word"], missing=True, labels=[("b",)])


def by_size(labels):
    """Labels, and responsibilities if there are some, with the components in the order of their sizes."""
    of_rows, shares = labels[:, 0].astype(int), labels[:, 1:]
    order = np.argsort(np.bincount(of_rows, minlength=3), kind="stable")
    return np.argsort(order)[of_rows], shares[:, order] if shares.size else shares


@pytest.mark.parametrize(("model", "data"), [("kmeans", "table.npy"), ("bayesian-gmm", "table.parquet")])
def test_a_large_table_stays_on_disk(model, data, folder, monkeypatch, capsys):
    expected, _, labels = saved(model, data)
    silhouette = re.search("silhouette .*", capsys.readouterr().out)
    monkeypatch.setattr(inputs, "_LARGE", 10)
    found, _, own = saved(model, data, "--plot", "fit.png", "--checkpoint", "run")
    out = capsys.readouterr().out
    assert "60 rows, 2 columns" in out
    assert (silhouette is None) == ("silhouette" not in out)
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert os.listdir("run")
    np.testing.assert_allclose(found.objective, expected.objective, rtol=1e-6)
    for a, b in zip(by_size(own), by_size(labels), strict=True):  # another run may be the best by a rounding
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_sequences_in_a_parquet_file_are_those_of_the_csv_file(folder):
    rng = np.random.default_rng(1)
    who, count = ["bob", "ann", "bob"] * 10, rng.poisson([2, 9, 30] * 10)
    lines = [f"{name},{n}" for name, n in zip(who, count, strict=True)]
    (folder / "visits.csv").write_text("\n".join(["who,count", *lines]) + "\n")
    write_parquet("visits.parquet", who=who, count=count)
    small = ["--states", "2", "--restarts", "2", "--output", "poisson", "--quiet", "--out", "fit"]
    both = []
    for data in ("visits.csv", "visits.parquet"):
        assert main(["fit", "hmm", data, "--sequence", "who", *small]) == 0
        assert main(["predict", "fit", data, "--out", "states.csv"]) == 0
        both.append((saved_fits.unpack("fit"), vb.datasets.read_table("states.csv")[0]))
    ((one, about), states), ((other, own), again) = both
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert about == own
    np.testing.assert_array_equal(states, again)


BAD = {
    "no such file": ("missing.npy", [], "missing.npy cannot be read"),
    "no such Parquet file": ("missing.parquet", [], "missing.parquet cannot be read"),
    "no array": ("text.npy", [], "text.npy cannot be read"),
    "no Parquet file": ("text.parquet", [], "text.parquet cannot be read"),
    "a cube": ("cube.npy", [], "expected a table of shape (n, d); got (2, 3, 4)"),
    "no such column": ("table.npy", ["--columns", "x7"], "no column 'x7' in columns"),
    "words beside numbers": (
        "mixed.parquet",
        [],
        "mixed.parquet, column 'a': expected numbers; columns, in the shell --columns b,c, leaves out",
    ),
    "words": ("words.parquet", [], "words.parquet, row group 0 cannot be read"),
    "a NaN": ("nan.npy", [], "nan.npy, row 1, column 'x0': nan; expected a finite number"),
    "few rows": ("few.npy", [], "2 rows; expected at least 6"),
    "none": ("none.npy", [], "0 rows; expected at least 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(case, folder, capsys, monkeypatch):
    np.save("cube.npy", np.zeros((2, 3, 4)))
    np.save("nan.npy", np.where(np.eye(8, 2, -1), np.nan, np.arange(16.0).reshape(8, 2)))
    np.save("few.npy", np.eye(2))
    np.save("none.npy", np.zeros((0, 2)))
    write_parquet("words.parquet", a=["x", "y"])
    write_parquet("mixed.parquet", a=["x", "y"], b=[1, 2], c=[True, False])
    data, options, message = BAD[case]
    files = {"text.npy": "1,2\n", "text.parquet": "1,2\n"}
    check_refused(["fit", "gmm", data, *options], message, files, capsys, monkeypatch)


def test_a_bad_row_group_of_a_large_table_is_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(inputs, "_LARGE", 10)
    x = np.arange(60.0)
    x[40] = np.nan
    write_parquet("bad.parquet", a=x)
    assert main(["fit", "gmm", "bad.parquet", "--components", "2", "--quiet"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "bad.parquet, row group 2, from row 0: data must be finite; row 8 is the first" in err
