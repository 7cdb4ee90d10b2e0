"""`predict` says of new rows what the fit in the file says; a file of anything else is one line of error."""

import dataclasses
import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import vbjax as vb
from tests.support.command_checks import check_refused
from vbjax.cli.main import main
from vbjax.data.frames import Columns

X = np.array([[0.5, 1.25], [2.0, 3.0], [8.0, 9.5], [0.1, 1e-8]], "float32")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with new.csv, whose rows are `X` beside a column of words, and bare.csv without."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{a},word,{b}" for a, b in X]
    (tmp_path / "new.csv").write_text("\n".join(["mass,name,length", *rows]) + "\n")
    (tmp_path / "bare.csv").write_text("\n".join(f"{a},{b}" for a, b in X) + "\n")
    return tmp_path


def clusters(data=X):
    """Clusters about the first and the third row."""
    model = vb.KMeans(2).resolve(jnp.asarray(data))
    fit = vb.fit(
        model, jnp.asarray(data), key=jax.random.key(0), params=model.params_at(data[[0, 2]]), max_iter=2
    )
    return fit


def test_a_fit_from_python_takes_all_columns_and_says_so_on_stdout(folder, capsys):
    clusters().save("fit.vbjax")
    assert main(["predict", "fit.vbjax", "bare.csv"]) == 0
    assert capsys.readouterr() == ("label\n0\n0\n1\n0\n", "")


def test_columns_are_those_of_the_fit_by_name(folder, capsys):
    names = Columns(("length", "mass"), (None, None))
    dataclasses.replace(clusters(X[:, ::-1]), columns=names).save("fit.vbjax")
    assert main(["predict", "fit.vbjax", "new.csv", "--out", "labels.csv"]) == 0
    assert (folder / "labels.csv").read_text() == "label\n0\n0\n1\n0\n"
    assert main(["predict", "fit.vbjax", "new.csv", "--columns", "2,mass"]) == 0
    assert capsys.readouterr().out == "label\n0\n0\n1\n0\n"
    np.testing.assert_array_equal(vb.load("fit.vbjax").predict(pd.read_csv("new.csv")), [0, 0, 1, 0])


def test_a_regression_gives_means(folder, capsys):
    fit = vb.fit(vb.LinearRegression(), (X, X @ np.array([1.0, -2.0], "float32")), key=jax.random.key(0))
    fit.save("fit.vbjax")
    assert main(["predict", "fit.vbjax", "bare.csv"]) == 0
    header, *means = capsys.readouterr().out.splitlines()
    assert header == "mean"
    np.testing.assert_array_equal(np.array(means, "float32"), fit.predict(X))


def test_columns_of_different_kinds_are_read_by_name_and_label(folder, capsys):
    patient = vb.components.Product(size=vb.components.Gaussian(), colour=vb.components.Categorical())
    frame = pd.DataFrame(dict(colour=["red", "blue", "green", "red"], size=X[:, 0]))
    fit = vb.fit(vb.Mixture(2, patient), frame, key=jax.random.key(0))
    fit.save("fit.vbjax")
    new = frame[::-1].assign(note="more")
    new.to_csv("patients.csv", sep=";")
    assert main(["predict", "fit.vbjax", "patients.csv"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "label,responsibility_0,responsibility_1"
    found = np.array([line.split(",") for line in lines], float)
    np.testing.assert_allclose(found[:, 1:], fit.responsibilities(new), rtol=1e-6)
    new.assign(colour="pink").to_csv("patients.csv")
    assert main(["predict", "fit.vbjax", "patients.csv"]) == 2
    says = "column 'colour' must hold one of 'blue', 'green', 'red'; got 'pink' in line 2"
    assert capsys.readouterr().err == f"vbjax: patients.csv, {says}\n"


def save_others():
    vb.fit(vb.textbook.GaussianMeanPrecision(), X[:, 0], key=jax.random.key(0)).save("numbers.vbjax")
    clusters().save("fit.vbjax")


BAD = {
    "no such fit": (["predict", "none.vbjax", "new.csv"], "none.vbjax: No such file"),
    "no fit": (["predict", "new.csv", "new.csv"], "new.csv: no file of a fit, or a damaged one"),
    "no such data": (["predict", "fit.vbjax", "none.csv"], "none.csv: No such file"),
    "words": (["predict", "fit.vbjax", "new.csv"], "line 2, column 'name': 'word'"),
    "no such column": (["predict", "fit.vbjax", "new.csv", "--columns", "a"], "no column 'a'"),
    "fewer columns": (["predict", "fit.vbjax", "new.csv", "--columns", "0"], "must have 2 columns"),
    "no folder": (["predict", "fit.vbjax", "bare.csv", "--out", "no/a.csv"], "no/a.csv: cannot be written"),
    "the fit": (["predict", "fit.vbjax", "bare.csv", "--out", "fit.vbjax"], "--out would overwrite the fit"),
    "the data": (["predict", "fit.vbjax", "bare.csv", "--out", "bare.csv"], "would overwrite the data"),
    "nothing": (["predict", "numbers.vbjax", "bare.csv"], "GaussianMeanPrecision, which predicts nothing"),
    "no sequences": (
        ["predict", "fit.vbjax", "bare.csv", "--sequence", "0"],
        "--sequence is for fits of seq",
    ),
    "one file": (["predict", "fit.vbjax"], "the following arguments are required: DATA"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_file(case, folder, capsys, monkeypatch):
    save_others()
    check_refused(*BAD[case], {}, capsys, monkeypatch)


def test_the_version_is_that_of_the_installation(capsys, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", {"vbjax-inference": "9.8"}.get)
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == "vbjax 9.8\n"
