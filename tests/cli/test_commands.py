"""The shell command: its numbers are the fit's, its files are whole or absent, its errors one line."""

import argparse
import contextlib
import errno
import gzip
import importlib
import os
import stat
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vbjax as vb
from tests.support.command_checks import check_refused, stopped_fits
from vbjax.cli import commands
from vbjax.cli import tables as commands_tables
from vbjax.cli.files import UserError, check_outputs, reading, replacing
from vbjax.cli.main import _parser, main
from vbjax.inference import saved_fits


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with table.csv: two clouds of 20 and 40 rows, and a column of words."""
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:20] = 0.5 * x[:20] + 8
    lines = [f"{a:.4f},{b:.4f},word" for a, b in x]
    (tmp_path / "table.csv").write_text("\n".join(["length,mass,name", *lines]) + "\n")
    return tmp_path


def fit_command(model, *options):
    """Three components in two columns of the table: one compiled program for all tests of a model."""
    small = ["--components", "3", "--restarts", "8", "--columns", "length,mass", "--quiet"]
    return ["fit", model, "table.csv", *small, *options]


def table():
    return jnp.asarray(vb.datasets.read_table("table.csv", [0, 1])[0], float)


def check_saved(path, columns, direct, x):
    """The file holds what `vb.fit` returns; what the command makes of it is the model's."""
    saved, about = saved_fits.unpack(path)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert (saved.columns.names, about) == (columns, dict(sequence=None))
    found, model, params = commands.describe(saved, x), direct.model, direct.params
    if isinstance(model, vb.KMeans):
        expected = dict(centers=model.centers(params), labels=model.predict(params, x))
    else:
        moments = jax.jit(lambda m, p: dict(means=m.means(p), covariances=m.covariances(p)))
        expected = moments(model, params) | dict(weights=params.weights.mean)
        expected |= dict(responsibilities=model.responsibilities(params, x))
    for field, value in expected.items():
        np.testing.assert_allclose(found[field], value, rtol=1e-5, atol=1e-6, err_msg=field)
    return found


def check_printed(out, direct, place, sizes, column):
    """Heaviest first, the numbers are the fit's, and 80 columns are enough."""
    objective = abs(float(direct.objective))
    assert f"{objective:.7g}" in out
    assert direct.status.sentence in out
    assert f"{direct.runs.objective.size}: min" in out
    assert max(map(len, out.splitlines())) <= 80
    head = [line.split() for line in out.splitlines() if column in line]
    order = np.argsort(-sizes, kind="stable")
    assert [int(words[0]) for words in head] == [k for k in order if sizes[k] > 1]
    shown = [float(words[words.index(column) + 1]) for words in head]
    np.testing.assert_allclose(shown, [place[k, 0] for k in order if sizes[k] > 1], atol=0.006)


@pytest.mark.parametrize(
    ("name", "model"), [("kmeans", vb.KMeans(3)), ("gmm", vb.GaussianMixture(3, "diag"))]
)
def test_fit_prints_and_saves_what_fit_finds(name, model, folder, capsys):
    covariance = ["--covariance", "diag"] if name == "gmm" else []
    command = fit_command(name, *covariance, "--seed", "7", "--out", "fit.vbjax", "--plot", "fit.png")
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(os.listdir()) == ["fit.png", "fit.vbjax", "table.csv"]
    direct = vb.fit(model, table(), key=jax.random.key(7), n_restarts=8)
    saved = check_saved("fit.vbjax", ("length", "mass"), direct, table())
    assert main(["predict", "fit.vbjax", "table.csv", "--out", "labels.csv"]) == 0
    assert capsys.readouterr() == ("", "")
    labels, names = vb.datasets.read_table("labels.csv")
    assert names == ["label", *(f"responsibility_{k}" for k in range(3) if name == "gmm")]
    np.testing.assert_array_equal(labels[:, 0], direct.predict(table()))
    if name == "gmm":
        np.testing.assert_array_equal(labels[:, 1:].astype("float32"), direct.responsibilities(table()))
    check_printed(out, direct, saved["centers" if name == "kmeans" else "means"], saved["sizes"], "length")
    if name == "kmeans":
        score = float(vb.metrics.silhouette(table(), saved["labels"]))
        assert saved["silhouette"] == pytest.approx(score)
        assert f"{score:.3f}: {vb.metrics.silhouette_reading(score)}" in out
        assert saved["sizes"].sum() == 60


def test_factor_analysers_are_printed_with_what_their_factors_explain(folder, capsys):
    """The last column is the part of a variance that is no noise, in the order of the components."""
    command = fit_command("mfa", "--factors", "1", "--seed", "7", "--out", "fit.vbjax")
    assert main(command) == 0
    out = capsys.readouterr().out
    direct = vb.fit(vb.MixtureOfFactorAnalyzers(3, 1), table(), key=jax.random.key(7), n_restarts=8)
    saved = check_saved("fit.vbjax", ("length", "mass"), direct, table())
    assert out.startswith("Mixture of factor analysers by maximum likelihood, 1 factor\n")
    check_printed(out, direct, saved["means"], saved["sizes"], "length")
    shared = (direct.loadings() ** 2).sum(2) / np.diagonal(direct.covariances(), axis1=1, axis2=2)
    shown = [float(line.split()[-1]) for line in out.splitlines() if "length" in line or "mass" in line]
    kept = [k for k in np.argsort(-saved["sizes"]) if saved["sizes"][k] > 1]
    np.testing.assert_allclose(shown, shared[np.array(kept)].ravel(), atol=0.006)


@pytest.mark.parametrize("name", ["gmm", "bayesian-gmm"])
def test_a_table_with_missing_entries(name, folder, capsys):
    """A gzipped table with semicolons and NA, as R writes it, is read as the array with NaN."""
    x = np.array(table())
    x[3, 0] = x[7, 1] = x[9] = np.nan
    lines = [";".join("NA" if np.isnan(v) else repr(v) for v in row) for row in x.tolist()]
    Path("gaps.csv.gz").write_bytes(gzip.compress("\n".join(["length;mass", *lines]).encode()))
    model = (vb.GaussianMixture if name == "gmm" else vb.BayesianGaussianMixture)(3, missing=True)
    direct = vb.fit(model, x, key=jax.random.key(0), n_restarts=8)
    small = [
        "--components",
        "3",
        "--restarts",
        "8",
        "--missing",
        "--quiet",
        "--out",
        "fit",
        "--plot",
        "f.png",
    ]
    assert main(["fit", name, "gaps.csv.gz", *small]) == 0
    assert main(["predict", "fit", "gaps.csv.gz", "--out", "labels.csv"]) == 0
    assert capsys.readouterr().err == ""
    for a, b in zip(jax.tree.leaves(vb.load("fit")), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(vb.datasets.read_table("labels.csv", [0])[0][:, 0], direct.predict(x))


def test_old_faithful_without_a_command_and_as_a_table(folder, capsys):
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert "64/64" in err  # the progress bar
    assert "4 of 6 components emptied themselves" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "64 within 1e-4 of the best, 0 singular" in out
    assert "old_faithful.png" in out
    assert (folder / "old_faithful.png").read_bytes().startswith(b"\x89PNG")

    data = resources.files("vbjax").joinpath("data/tables/old_faithful.csv").read_bytes()
    (folder / "geyser.csv").write_bytes(data)
    command = ["fit", "bayesian-gmm", "geyser.csv", "--weight-concentration", "1e-3", "--quiet"]
    assert main([*command, "--out", "fit.vbjax"]) == 0
    again, err = capsys.readouterr()
    assert err == ""
    x = vb.datasets.old_faithful()
    model = vb.BayesianGaussianMixture(6, weight_concentration=1e-3)
    direct = vb.fit(model, x, key=jax.random.key(0), n_restarts=64)
    saved = check_saved("fit.vbjax", ("eruptions", "waiting"), direct, x)
    check_printed(again, direct, saved["means"], saved["sizes"], "eruptions")
    weight = scipy.stats.dirichlet(np.asarray(direct.params.weights.concentration, float))
    mean, sd = weight.mean().max(), np.sqrt(weight.var()).max()
    assert f"{mean:.3f} ± {sd:.3f}" in again
    assert f"{mean:.3f} ± {sd:.3f}" in out
    np.testing.assert_allclose(saved["weights_sd"], np.sqrt(weight.var()), rtol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_uncertainty_of_the_sds_is_that_of_posterior_draws(covariance):
    """The closed form against draws of the precision, within five standard errors."""
    n, shape, rng = 20_000, (3, 2), np.random.default_rng(0)
    inverse_scale = np.array([[[2.0, 0.5], [0.5, 1.0]], [[9.0, 8.0], [8.0, 16.0]], [[1.0, 0.0], [0.0, 4.0]]])
    nu = np.array([12.0, 40.0, 9.0])
    if covariance in ("full", "tied"):
        tied = covariance == "tied"
        kept = slice(0, 1) if tied else slice(None)
        pairs = list(zip(nu, inverse_scale, strict=True))[kept]
        draws = [scipy.stats.wishart(v, np.linalg.inv(s)).rvs(n, random_state=rng) for v, s in pairs]
        variance = np.stack([np.diagonal(np.linalg.inv(d), axis1=1, axis2=2) for d in draws], 1)
        zero = jnp.zeros(())
        kind = vb.families.MatrixNormalWishartState if tied else vb.families.NormalWishartState
        state = kind(zero, zero, nu[0] if tied else nu, inverse_scale[0] if tied else inverse_scale)
    else:
        rate = np.array([[2.0, 1.0], [9.0, 16.0], [1.0, 4.0]]) if covariance == "diag" else nu
        shapes = np.full(rate.shape, 6.0)
        draws = rng.gamma(shapes, 1 / rate, (n, *rate.shape))
        variance = 1 / (draws if covariance == "diag" else draws[..., None])
        kinds = {"diag": "NormalGammaState", "spherical": "MultivariateNormalGammaState"}
        zero = jnp.zeros(())
        state = getattr(vb.families, kinds[covariance])(zero, zero, shapes, rate)
    sds = np.sqrt(np.broadcast_to(variance, (n, *shape)))
    mean, sd = commands_tables.posterior_sds(state, shape)
    assert mean.shape == sd.shape == shape
    assert (abs(sds.mean(0) - mean) < 5 * sd / np.sqrt(n)).all()
    kurtosis = ((sds - sds.mean(0)) ** 4).mean(0) / sds.var(0) ** 2
    assert (abs(sds.std(0) - sd) < 5 * sd * np.sqrt((kurtosis - 1) / (4 * n))).all()


def test_uncertainty_of_the_sds_for_many_rows_joins_the_exact_one():
    shapes = np.array([[9.99e3, 1.001e4]])
    state = vb.families.NormalGammaState(np.zeros((1, 2)), np.ones((1, 2)), shapes, shapes)
    np.testing.assert_allclose(
        commands_tables.posterior_sds(state, (1, 2))[1], 0.5 / np.sqrt(shapes), rtol=1e-3
    )


# newer Pythons take `--` for the value that it is
_PROBE = argparse.ArgumentParser()
_PROBE.add_argument("--seed")
_TAKEN = _PROBE.parse_args(["--seed=--"]).seed == "--"
DASHES = "argument --seed: '--' is not a whole number" if _TAKEN else "--seed: expected a value; got '--'"

BAD = {
    "no such file": (["fit", "gmm", "missing.csv"], "missing.csv: No such file"),
    "a folder": (["fit", "gmm", "."], "Is a directory"),
    "a text column": (["fit", "gmm", "table.csv"], "line 2, column 'name': 'word'"),
    "a NaN": (["fit", "gmm", "nan.csv"], "line 3, column 'b': 'nan'; expected a finite number; missing=True"),
    "an empty column": (
        ["fit", "gmm", "gaps.csv", "--missing", "--components", "2"],
        "gaps.csv, column 'b': no entry in any line",
    ),
    "kmeans has no missing": (
        fit_command("kmeans", "--missing"),
        "--missing is for gmm and bayesian-gmm only",
    ),
    "too few rows": (["fit", "kmeans", "few.csv"], "2 rows; expected at least 6"),
    "one row": (["fit", "bayesian-gmm", "one.csv"], "1 row; expected at least 2"),
    "digits": (["fit", "kmeans", "time.csv", "--components", "2"], "column 't': too few digits in float32"),
    "too large": (
        ["fit", "kmeans", "huge.csv", "--components", "2"],
        "column 'b': too few digits in float32",
    ),
    "dashes": (fit_command("gmm", "--seed=--"), DASHES),
    "no components": (fit_command("gmm", "--components", "0"), "'0' is not a whole number of at least 1"),
    "no restarts": (fit_command("gmm", "--restarts", "none"), "argument --restarts: 'none'"),
    "a seed": (fit_command("gmm", "--seed", "4294967296"), "from 0 to 4294967295"),
    "a tolerance": (fit_command("gmm", "--tol", "nan"), "argument --tol: 'nan' is not a number"),
    "a concentration": (fit_command("bayesian-gmm", "--weight-concentration", "0"), "not a number above 0"),
    "a model": (["fit", "pca", "table.csv"], "argument MODEL: invalid choice: 'pca'"),
    "a command": (["draw"], "invalid choice: 'draw'"),
    "a column": (["fit", "gmm", "table.csv", "--columns", "width"], "no column 'width'"),
    "a column twice": (["fit", "gmm", "table.csv", "--columns", "0,0"], "different columns"),
    "kmeans has none": (fit_command("kmeans", "--covariance", "diag"), "--covariance is not for kmeans"),
    "gmm has none": (fit_command("gmm", "--weight-concentration", "1"), "is for bayesian-gmm only"),
    "mfa has factors": (fit_command("mfa", "--covariance", "diag"), "--covariance is not for mfa"),
    "gmm has no factors": (fit_command("gmm", "--factors", "2"), "--factors is for mfa only, not for gmm"),
    "no such folder": (fit_command("gmm", "--out", "no/fit.vbjax"), "no/fit.vbjax: cannot be written"),
    "not a file": (fit_command("gmm", "--out", "."), ".: exists and is not a file"),
    "a picture": (fit_command("gmm", "--plot", "fit.xyz"), "must end in .png, .pdf, .svg"),
    "itself": (fit_command("gmm", "--out", "./table.csv"), "--out would overwrite the table"),
    "each other": (fit_command("gmm", "--out", "a.png", "--plot", "a.png"), "--plot would overwrite --out"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_file(case, folder, capsys, monkeypatch):
    files = {
        "nan.csv": "a,b\n1,2\n3,nan\n",
        "few.csv": "1,2\n3,4\n",
        "gaps.csv": "a,b\n1,\n3,NA\n",
        "one.csv": "1,2\n",
        "huge.csv": "a,b\n1,1e300\n2,3\n4,5\n",
        "time.csv": "t\n1700000000\n1700000001\n1700000009\n",
    }
    check_refused(*BAD[case], files, capsys, monkeypatch)


def test_input_that_the_model_refuses_is_one_line(folder, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise ValueError("data must be\n  better")

    monkeypatch.setattr(commands, "fit", refuse)
    assert main(fit_command("gmm", "--out", "fit.vbjax")) == 2
    assert capsys.readouterr().err == "vbjax: data must be better\n"


def test_a_failing_write_leaves_the_older_file(folder, capsys, monkeypatch):
    (folder / "fit.vbjax").write_bytes(b"older")

    def full(file, array, **how):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    assert main(fit_command("kmeans", "--out", "fit.vbjax")) == 2
    assert capsys.readouterr().err == "vbjax: fit.vbjax: cannot be written: No space left on device\n"
    assert (folder / "fit.vbjax").read_bytes() == b"older"
    assert sorted(os.listdir()) == ["fit.vbjax", "table.csv"]


def test_a_link_keeps_its_target_and_a_file_its_mode(tmp_path):
    kept, link, dangling = tmp_path / "kept" / "fit.npz", tmp_path / "fit.npz", tmp_path / "new.npz"
    kept.parent.mkdir()
    kept.write_bytes(b"old")
    kept.chmod(0o640)
    link.symlink_to(kept)
    dangling.symlink_to(kept.with_name("new.npz"))
    check_outputs({}, out=str(link), plot=None)
    check_outputs({}, out=str(dangling), plot=None)
    with contextlib.suppress(KeyboardInterrupt), replacing(str(link)) as file:
        file.write(b"ha")
        raise KeyboardInterrupt
    assert kept.read_bytes() == b"old"
    for path in (link, dangling):
        with replacing(str(path)) as file:
            file.write(b"new")
        assert path.is_symlink()
        assert path.read_bytes() == b"new"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    assert sorted(kept.parent.iterdir()) == [kept, kept.with_name("new.npz")]


@pytest.mark.parametrize("path", ["", "  ", "a\0b"])
def test_a_name_that_no_file_has_is_refused(path):
    for files in (dict(out=path, plot=None), dict(out=None, plot=path)):
        with pytest.raises(UserError, match=r"--(out|plot) must be the name of a file; got"):
            check_outputs({}, **files)
    with pytest.raises(UserError, match="the vocabulary must be the name of a file; got"):
        check_outputs({"the vocabulary": path}, out=None, plot=None)


def test_what_a_reader_warns_of_is_a_line(folder, capsys):
    Path("index.csv").write_text(",a,b\n0,1,2\n1,3,4\n")
    with reading("index.csv"):
        assert vb.datasets.read_table("index.csv")[1] == ["a", "b"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vbjax: index.csv: column 0 has no name")


def test_ctrl_c_before_there_is_anything(folder, capsys, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "fit", interrupt)
    assert main(fit_command("gmm", "--out", "fit.vbjax")) == 130
    assert capsys.readouterr().err == "vbjax: interrupted\n"
    assert os.listdir() == ["table.csv"]


def test_ctrl_c_during_the_fit_reports_the_best_so_far(folder, capsys, monkeypatch):
    driver = importlib.import_module("vbjax.inference.fit")
    advance, calls = driver._advance, []

    class Awaited:
        def __int__(self):
            raise KeyboardInterrupt

    def interrupted_once(*args, **race):
        calls.append(args)
        race, so_far, ended = advance(*args, **race)
        return race, so_far, Awaited() if len(calls) == 1 else ended

    monkeypatch.setattr(driver, "_advance", interrupted_once)
    arguments = fit_command(
        "gmm", "--components", "3", "--restarts", "8", "--out", "fit.vbjax", "--plot", "f.png"
    )
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "interrupted, 4 without a result" in out  # four lanes had begun
    saved = vb.load("fit.vbjax")
    assert saved.status == vb.Status.INTERRUPTED
    assert np.isfinite(saved.objective)


def test_options_reach_the_fit(folder, capsys, monkeypatch):
    seen = stopped_fits(monkeypatch)
    command = ["fit", "bayesian-gmm", "table.csv", "--columns", "1", "--covariance", "spherical"]
    command += ["--components", "2", "--restarts", "5", "--max-iter", "9", "--tol", "0", "--seed", "3"]
    command += ["--checkpoint", "run"]
    assert main([*command, "--weight-concentration", "0.5"]) == 2
    assert main(["--quiet", "fit", "kmeans", "table.csv", "--columns", "mass,0"]) == 2
    (model, data, settings), (clusters, both, defaults) = seen
    assert (model.n_components, model.component.covariance_type, model.weights.concentration) == (
        2,
        "spherical",
        0.5,
    )
    np.testing.assert_array_equal(data, table()[:, 1:])
    assert jnp.array_equal(settings.pop("key"), jax.random.key(3))
    assert settings == dict(n_restarts=5, max_iter=9, tol=0.0, progress=True, checkpoint="run")
    assert clusters.n_clusters == 6
    np.testing.assert_array_equal(both, table()[:, ::-1])
    assert jnp.array_equal(defaults.pop("key"), jax.random.key(0))
    assert defaults == dict(n_restarts=64, max_iter=1000, tol=1e-6, progress=False, checkpoint=None)


def test_a_single_cluster_has_no_silhouette():
    assert "compares two clusters" in commands._silhouette(dict(labels=np.zeros(5, int)))


def test_tables_have_80_columns_and_lose_nothing():
    names = ["a" * 100, "wind speed at ten metres above the ground, in metres per second", "b"]
    rows = [["state", "column", "on the steps before"]]
    rows += [["1", name, ", ".join(f"-0.{i} {name}[-{i}]" for i in range(9))] for name in names]
    lines = commands_tables.align(rows, right=1)
    assert max(map(len, lines)) <= 80
    letters = lambda texts: sorted("".join(texts).replace(" ", ""))
    assert letters(lines) == letters(cell for row in rows for cell in row)


def test_numbers_have_the_digits_their_uncertainty_warrants():
    shown = {
        (1234.567, None): "1235",
        (4.1, None): "4.100",
        (1234.567, 2.34): "1234.6 ± 2.3",
        (0.64273, 0.029): "0.643 ± 0.029",
        (3.2e9, 4.4e6): "3.200e+09 ± 4.4e+06",
        (1.5e-12, 2e-13): "1.500e-12 ± 2.0e-13",
        (2.0, float("nan")): "2.000",
    }
    assert {pair: commands_tables.measure(*pair) for pair in shown} == shown


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_help_has_80_columns_and_examples_that_can_be_read(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    examples = out[out.index("\nexample") :].replace("\\\n", "").splitlines()[2:]
    assert examples
    for example in examples:
        program, arguments = example.split()[:3], example.split()[3:]
        assert program == ["python", "-m", "vbjax"]
        assert _parser().parse_args(arguments).command in ("fit", "predict")


def test_help_in_a_shell_and_matplotlib_stays_away():
    code = (
        "import sys, runpy; sys.argv = ['vbjax', '--help']\n"
        "try: runpy.run_module('vbjax', run_name='__main__')\n"
        "except SystemExit as stopped: assert stopped.code == 0\n"
        "assert 'matplotlib' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python -m vbjax fit kmeans flowers.csv" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
