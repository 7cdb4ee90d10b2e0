"""The shell command on sequences: its states are the fit's, line by line; a bad file is one line of error."""

import itertools
import os
import re

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.command_checks import check_refused, stopped_fits
from vbjax.cli import chains as commands_chains
from vbjax.cli import commands
from vbjax.cli.main import main
from vbjax.inference import saved_fits
from vbjax.inference.resolution import resolved

LENGTHS = (30, 18, 24)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with visits.csv: three sequences in turns, and in it columns of every kind."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = []
    for who, length in zip(("ann", "bob", "cy"), LENGTHS, strict=True):
        state = (np.arange(length) // 7) % 2
        count, size = rng.poisson(np.where(state, 12, 2)), rng.normal(np.where(state, 5, -5))
        wait, kind = rng.exponential(np.where(state, 1, 20)) + 1e-3, 2 * state * rng.integers(0, 2, length)
        flag = rng.random(length) < np.where(state, 0.9, 0.1)
        columns = zip(count, size, 0.5 * size, wait, kind, flag, strict=True)
        own = [f"{who},{a},{b:.4f},{c:.4f},{d:.4f},{e},{f:d}" for a, b, c, d, e, f in columns]
        lines.append(own)
    turns = [own[t] for t in range(max(LENGTHS)) for own in lines if t < len(own)]
    header = "who,count,size,half,wait,kind,flag"
    (tmp_path / "visits.csv").write_text("\n".join([header, *turns]) + "\n")
    return tmp_path


def fit_command(model, *options):
    small = ["--states", "2", "--restarts", "2", "--sequence", "who", "--quiet"]
    return ["fit", model, "visits.csv", *small, *options]


def direct_fit(model, *columns):
    x = vb.datasets.read_series("visits.csv", "who", list(columns))
    return vb.fit(model, x, key=jax.random.key(0), n_restarts=2), x


def described(fit, *columns):
    """What the command makes of the fit for its page."""
    return commands.describe(fit, vb.datasets.read_series_table("visits.csv", "who", columns))


def in_lines(parts):
    """What is there for each sequence, in the order of the file's lines."""
    return np.array([part[t] for t in range(max(LENGTHS)) for part in parts if t < len(part)])


@pytest.mark.parametrize("bayesian", [False, True])
def test_fit_prints_saves_and_draws_what_fit_finds(bayesian, folder, capsys):
    name = "bayesian-hmm" if bayesian else "hmm"
    options = ["--columns", "count", "--output", "poisson", "--out", "fit.vbjax", "--plot", "fit.png"]
    assert main(fit_command(name, *options)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(os.listdir()) == ["fit.png", "fit.vbjax", "visits.csv"]
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG")
    direct, x = direct_fit(vb.BayesianPoissonHMM(2) if bayesian else vb.PoissonHMM(2), "count")
    model, params = direct.model, direct.params
    expected = dict(
        initial=params.initial.mean,
        transitions=params.transitions.mean,
        rates=params.components.mean,
        durations=model.durations(params),
        states=in_lines(model.decode(params, x)),
        state_probabilities=in_lines(model.state_probabilities(params, x)),
        lines=np.arange(2, 74),
    )
    if bayesian:
        expected |= dict(rates_sd=params.components.sd, transitions_sd=params.transitions.sd)
    else:
        expected |= dict(bic=model.bic(params, x), n_parameters=5)
    fit, about = saved_fits.unpack("fit.vbjax")
    for a, b in zip(jax.tree.leaves(fit), jax.tree.leaves(direct), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert (fit.columns.names, about) == (("count",), dict(sequence="who"))
    saved = described(fit, "count")
    for field, value in expected.items():
        np.testing.assert_allclose(saved[field], value, rtol=1e-5, atol=1e-5, err_msg=field)
    assert saved["sequences"].tolist() == ["ann", "bob", "cy"]
    assert saved["sequence"][:4].tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(saved["sizes"].sum(), 72, rtol=1e-5)

    assert f"{'variational Bayes' if bayesian else 'maximum likelihood'}, poisson output" in out
    assert "visits.csv: 3 sequences, 72 steps, 1 column; seed 0" in out
    assert f"{float(direct.objective):.7g} nats" in out
    assert "restarts        2: min" in out
    assert direct.status.sentence in out
    assert ("BIC" in out) != bayesian
    assert max(map(len, out.splitlines())) <= 80
    order = np.argsort(-saved["sizes"])
    states = [line.split() for line in out.splitlines() if " count " in line]
    assert [int(words[0]) for words in states] == order.tolist()
    for words, k in zip(states, order, strict=True):
        assert words[1] == f"{saved['sizes'][k] / 72:.1%}"
        np.testing.assert_allclose(float(words[2]), saved["durations"][k], rtol=1e-3)
        np.testing.assert_allclose(float(words[4]), saved["rates"][k, 0], atol=0.06)
        assert ("±" in words) == bayesian
    assert main(["predict", "fit.vbjax", "visits.csv"]) == 0
    header, *lines = (line.split(",") for line in capsys.readouterr().out.splitlines())
    assert header == ["state", "probability_0", "probability_1"]
    lines = np.array(lines, float)
    np.testing.assert_array_equal(lines[:, 0], expected["states"])
    np.testing.assert_allclose(lines[:, 1:], expected["state_probabilities"], rtol=1e-6, atol=1e-6)
    begin = next(i for i, line in enumerate(out.splitlines()) if line.startswith("from"))
    matrix = np.array([line.split()[1:] for line in out.splitlines()[begin + 1 : begin + 3]], float)
    np.testing.assert_allclose(matrix, saved["transitions"][order][:, order], atol=6e-4, rtol=0)


def em(component):
    return vb.HiddenMarkovModel(2, component)


def bayes(component):
    return vb.BayesianHiddenMarkovModel(2, component)


@pytest.mark.parametrize(
    ("name", "options", "fields", "expected"),
    [
        ("hmm", "count poisson", dict(rates=(2, 1)), em(vb.components.Poisson())),
        (
            "hmm",
            "kind,flag categorical",
            dict(probabilities=(2, 2, 3)),
            em(vb.components.Categorical()),
        ),
        (
            "bayesian-hmm",
            "flag bernoulli",
            dict(probabilities_sd=(2, 1)),
            bayes(vb.components.Bernoulli()),
        ),
        ("hmm", "wait exponential", dict(rates=(2, 1)), em(vb.components.Gamma())),
        ("bayesian-hmm", "half,size gaussian", dict(means_sd=(2, 2)), bayes(vb.components.Gaussian())),
        (
            "bayesian-hmm",
            "wait gamma",
            dict(shapes=(2, 1), rates=(2, 1), rates_sd=(2, 1)),
            bayes(vb.components.Gamma(learn_shape=True)),
        ),
        (
            "bayesian-hmm",
            "half,size mixture --parts 3 --covariance diag",
            dict(shares_sd=(2, 3), means_sd=(2, 3, 2), covariances=(2, 3, 2, 2)),
            bayes(vb.components.Mixture(3, vb.components.Gaussian("diag"))),
        ),
        (
            "bayesian-hmm",
            "half,size autoregressive --order 3",
            dict(coefficients=(2, 3, 2, 2), coefficients_sd=(2, 3, 2, 2), covariances=(2, 2, 2)),
            vb.BayesianAutoregressiveHMM(2, order=3),
        ),
    ],
)
def test_every_output_is_its_component_behind_a_chain(name, options, fields, expected, folder, monkeypatch):
    (columns, output, *others), seen = options.split(), stopped_fits(monkeypatch)
    assert main(fit_command(name, "--columns", columns, "--output", output, *others)) == 2
    ((given, x, _),) = seen
    assert repr(given) == repr(expected)
    model, data, _ = resolved(given, x, None)
    start = lambda x: commands_chains._parameters(model, model.init(jax.random.key(0), x))
    found = jax.eval_shape(start, data)
    assert {field: found[field].shape for field in fields} == fields


@pytest.mark.parametrize(
    ("name", "output", "columns", "expected"),
    [
        ("hmm", "categorical", "kind,flag", vb.CategoricalHMM(2)),
        ("bayesian-hmm", "gaussian", "half,size", vb.BayesianGaussianHMM(2, "diag")),
    ],
)
def test_parameters_are_those_of_the_output(name, output, columns, expected, folder, capsys):
    covariance = ["--covariance", "diag"] if output == "gaussian" else ["--output", output]
    command = fit_command(name, "--columns", columns, *covariance, "--out", "fit.vbjax", "--plot", "fit.svg")
    assert main([word for word in command if word != "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "2/2" in err  # the progress bar
    direct, _ = direct_fit(expected, *columns.split(","))
    saved = described(vb.load("fit.vbjax"), *columns.split(","))
    np.testing.assert_allclose(vb.load("fit.vbjax").objective, direct.objective, rtol=1e-6)
    components, first = direct.params.components, saved["sizes"].argmax()
    if output == "gaussian":
        for field, state in dict(means=components.mean, means_sd=components.sd).items():
            np.testing.assert_allclose(saved[field], state.location, rtol=1e-5)
        assert saved["sds"].shape == saved["sds_sd"].shape == (2, 2)
    else:
        np.testing.assert_allclose(saved["probabilities"], components.mean, rtol=1e-5)
        lines = [line.split() for line in out.splitlines() if line.count(": ")][1:3]
        for line, p in zip(lines, saved["probabilities"][first], strict=True):
            assert line[-2 * (p > 0.005).sum()] == f"{p.argmax()}:"
    assert f"{output} output" in out


def test_of_a_mixture_every_component_is_told(folder, capsys):
    options = ["--columns", "half,size", "--output", "mixture", "--covariance", "diag", "--restarts", "1"]
    assert main(fit_command("hmm", *options, "--out", "fit.vbjax")) == 0
    out = capsys.readouterr().out
    found = described(vb.load("fit.vbjax"), "half", "size")
    assert "maximum likelihood, mixture output" in out
    np.testing.assert_allclose(found["shares"].sum(1), 1, rtol=1e-6)
    variances = np.diagonal(found["covariances"], axis1=2, axis2=3)
    np.testing.assert_allclose(found["sds"] ** 2, variances, rtol=1e-6)
    state = found["sizes"].argmax()
    best = state, found["shares"][state].argmax()
    expected = [found["shares"][best], found["means"][best][0], found["sds"][best][0]]
    printed = next(line.split() for line in out.splitlines() if " half " in line)
    np.testing.assert_allclose([float(printed[i]) for i in (3, 5, 6)], expected, rtol=1e-3)


def test_autoregressions_show_the_largest_coefficients():
    found = dict(
        sizes=np.array([5.0, 20.0]),
        durations=np.array([1.5, 7.0]),
        transitions=np.array([[0.4, 0.6], [0.2, 0.8]]),
        intercepts=np.array([[1.0, 2.0], [3.0, 4.0]]),
        sds=np.array([[0.1, 0.2], [0.3, 0.4]]),
        coefficients=np.arange(24.0).reshape(2, 3, 2, 2) / 10 * (-1) ** np.arange(2),
    )
    table = commands_chains.table(found, ["a", "b"], "autoregressive")
    head, first, *lines = (line.split() for line in table if line)
    assert head[:6] == ["state", "share", "duration", "column", "intercept", "sd"]
    assert first[:6] == ["1", "80.0%", "7.000", "a", "3.000", "0.3000"]
    own = itertools.takewhile(lambda line: line[0] != "b", lines)  # wrapped
    pulls = " ".join([*first[6:], *itertools.chain(*own)])
    assert pulls == "-2.10 b[-3], 2.00 a[-3], -1.70 b[-2], 1.60 a[-2], -1.30 b[-1]"
    starts = [line[:6] for line in lines if line[0] in ("0", "b")]
    assert starts[1][:2] == ["0", "20.0%"]
    assert starts[2][:3] == ["b", "2.000", "0.2000"]


def test_missing_entries_are_missing(folder, capsys, monkeypatch):
    """Steps of any output, single entries of a Gaussian one; the states cover them all."""
    rows = ["a,b", "1,2", ",3", "nan,", "2,1.5", "8,9", "9,8", "8.5,"]
    (folder / "gaps.csv").write_text("\n".join(rows) + "\n")
    (folder / "steps.csv").write_text("\n".join(["a,b", "1,2", ",", "NaN,", "0,3", "9,9", "8,7"]) + "\n")
    seen = stopped_fits(monkeypatch)
    assert main(["fit", "bayesian-hmm", "gaps.csv", "--states", "2"]) == 2
    assert main(["fit", "hmm", "steps.csv", "--states", "2", "--output", "poisson"]) == 2
    assert main(["fit", "hmm", "steps.csv", "--states", "2"]) == 2
    (some, gaps, _), (poisson, steps, _), (whole, *_) = seen
    assert some.component.missing
    assert not whole.component.missing
    assert repr(poisson) == repr(em(vb.components.Poisson()))
    assert (len(gaps), int(gaps.n_steps), int(steps.n_steps)) == (1, 7, 6)
    np.testing.assert_array_equal(steps.parts[0].observed[0], [True, False, False, True, True, True])


BAD = {
    "no such file": (["fit", "hmm", "missing.csv"], "missing.csv: No such file"),
    "a folder": (["fit", "hmm", "."], "Is a directory"),
    "no header": (["fit", "hmm", "bare.csv"], "bare.csv, line 1: no header"),
    "no such column": (fit_command("hmm", "--columns", "height"), "visits.csv: no column 'height'"),
    "no such sequence": (["fit", "hmm", "visits.csv", "--sequence", "9"], "no column 9 in sequence"),
    "a blank name": (
        ["fit", "hmm", "blank.csv", "--sequence", "who"],
        "blank.csv, line 3, column 'who': blank",
    ),
    "text": (
        fit_command("hmm", "--columns", "who"),
        "visits.csv, line 2, column 'who': 'ann'; expected a finite",
    ),
    "negative": (
        ["fit", "hmm", "bad.csv", "--columns", "a", "--output", "poisson"],
        "bad.csv, line 3, column 'a': -1; expected a count, 0, 1, 2, ..., for poisson output",
    ),
    "fractional": (
        ["fit", "bayesian-hmm", "bad.csv", "--columns", "b", "--output", "categorical"],
        "bad.csv, line 4, column 'b': 0.5; expected a category",
    ),
    "neither": (
        ["fit", "hmm", "bad.csv", "--columns", "c", "--output", "bernoulli"],
        "line 2, column 'c': 2; ",
    ),
    "not positive": (
        ["fit", "hmm", "bad.csv", "--columns", "a", "--output", "exponential"],
        "line 3, column 'a': -1; expected a number above 0",
    ),
    "infinite": (["fit", "hmm", "infinite.csv"], "infinite.csv, line 2, column 'a': 'inf'"),
    "partly missing": (
        ["fit", "hmm", "partly.csv", "--output", "poisson"],
        "partly.csv, line 3: an entry is missing; for poisson output all entries of a line are, or none",
    ),
    "wholly missing": (["fit", "hmm", "partly.csv", "--columns", "a,c"], "partly.csv, column 'c': no entry"),
    "too few": (["fit", "hmm", "bad.csv", "--states", "4"], "bad.csv: 3 rows; expected at least 4"),
    "one": (["fit", "bayesian-hmm", "one.csv"], "one.csv: 1 row; expected at least 2"),
    "digits": (["fit", "hmm", "time.csv", "--states", "2"], "column 't': too few digits in float32"),
    "a slip": (
        ["fit", "hmm", "slip.csv", "--output", "categorical", "--states", "2"],
        "1000000000 categories are too many for 2 states",
    ),
    "an output": (fit_command("hmm", "--output", "normal"), "argument --output: invalid choice: 'normal'"),
    "no states": (fit_command("hmm", "--states", "0"), "'0' is not a whole number of at least 1"),
    "no covariance": (
        fit_command("hmm", "--output", "poisson", "--covariance", "diag"),
        "--covariance is for gaussian and mixture output only, not for poisson",
    ),
    "no parts": (fit_command("hmm", "--parts", "2"), "--parts is for mixture output only, not for gaussian"),
    "no order": (
        fit_command("hmm", "--output", "mixture", "--order", "2"),
        "--order is for autoregressive output only, not for mixture",
    ),
    "no chain": (["fit", "kmeans", "visits.csv", "--order", "2"], "--order is for hmm and bayesian-hmm only"),
    "not a chain": (
        ["fit", "gmm", "visits.csv", "--output", "poisson"],
        "--output is for hmm and bayesian-hmm only, not for gmm",
    ),
    "no sequences": (["fit", "kmeans", "visits.csv", "--sequence", "who"], "--sequence is for hmm and"),
    "weights": (fit_command("hmm", "--weight-concentration", "1"), "is for bayesian-gmm only, not for hmm"),
    "itself": (fit_command("hmm", "--out", "./visits.csv"), "--out would overwrite the table"),
    "a picture": (fit_command("hmm", "--plot", "fit.xyz"), "must end in .png, .pdf, .svg"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_file(case, folder, capsys, monkeypatch):
    files = {
        "bare.csv": "1,2\n3,4\n",
        "blank.csv": "who,a\nann,1\n,2\n",
        "bad.csv": "a,b,c\n1,0,2\n-1,1,0\n2,0.5,1\n",
        "infinite.csv": "a\ninf\n1\n",
        "partly.csv": "a,b,c\n1,2,\n3,,\n4,5,\n",
        "one.csv": "a\n1\nnan\n",
        "time.csv": "t\n1700000000\n1700000001\n1700000009\n",
        "slip.csv": "a\n1\n0\n999999999\n",
    }
    check_refused(*BAD[case], files, capsys, monkeypatch)


def test_text_becomes_codes_whose_labels_the_fit_keeps(folder, capsys):
    lines = [line.split(",") for line in (folder / "visits.csv").read_text().splitlines()[1:]]
    moods, answers = {"0": "calm", "2": "wild"}, {"0": "no", "1": "yes"}
    words = [f"{line[0]},{moods[line[5]]},{answers[line[6]]}" for line in lines]
    (folder / "words.csv").write_text("\n".join(["who,mood,answer", *words]) + "\n")
    small = ["--states", "2", "--restarts", "2", "--sequence", "who", "--quiet", "--output", "categorical"]
    command = ["fit", "hmm", "words.csv", *small, "--columns", "mood,answer", "--out", "fit.vbjax"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert re.search(r" mood +(calm|wild): 0\.\d\d", out)
    assert re.search(r" answer +(no|yes): 0\.\d\d", out)
    fit = vb.load("fit.vbjax")
    assert fit.columns.labels == (("calm", "wild"), ("no", "yes"))
    codes = [[line[5] == "2", line[6] == "1"] for line in sorted(lines, key=lambda line: line[0])]
    x = vb.Sequences.of(np.array(codes, float), LENGTHS)
    direct = vb.fit(vb.CategoricalHMM(2), x, key=jax.random.key(0), n_restarts=2)
    np.testing.assert_allclose(fit.objective, direct.objective, rtol=1e-6)
    # labels of new rows have the codes that they had, whichever of them are there
    (folder / "new.csv").write_text("answer,mood\n" + "yes,wild\n" * 3 + ",\n")
    assert main(["predict", "fit.vbjax", "new.csv"]) == 2  # the file names no sequences
    assert "no column 'who'" in capsys.readouterr().err
    (folder / "new.csv").write_text("answer,who,mood\n" + "yes,ann,wild\n" * 3 + ",ann,\n")
    assert main(["predict", "fit.vbjax", "new.csv"]) == 0
    found = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    expected = fit.state_probabilities(np.array([[1.0, 1.0]] * 3 + [[np.nan, np.nan]]))
    np.testing.assert_allclose(np.array(found, float)[:, 1:], expected, rtol=1e-5)
    (folder / "new.csv").write_text("answer,who,mood\nyes,ann,wild\nmaybe,ann,calm\n")
    assert main(["predict", "fit.vbjax", "new.csv"]) == 2
    says = "new.csv, column 'answer' must hold one of 'no', 'yes'; got 'maybe' in line 3"
    assert capsys.readouterr().err == f"vbjax: {says}\n"


def test_many_states_show_the_most_probable_next_ones():
    transitions = np.eye(12) * 0.9 + np.roll(np.eye(12), 1, 1) * 0.097 + 0.003 / 12
    found = dict(
        sizes=np.r_[np.arange(40.0, 28, -1)[:11], 0.5],
        durations=np.full(12, 9.7),
        transitions=transitions,
        probabilities=np.full((12, 1, 3), 1 / 3),
    )
    lines = commands_chains.table(found, ["kind"], "categorical")
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["state", "share", "duration", "column", "categories"]
    assert lines[1].split("kind")[1].split() == ["0:", "0.33,", "1:", "0.33,", "2:", "0.33"]
    assert "1 of 12 states emptied itself: no more than one step each" in lines
    assert [line.split() for line in lines[-11:]] == [
        [str(k), f"{k}:", "0.90,", f"{k + 1}:", "0.10"] for k in range(11)
    ]
