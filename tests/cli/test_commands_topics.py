"""The shell command on a corpus: its topics are those of the fit, and a bad file is one line on stderr."""

import dataclasses
import os

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.command_checks import check_refused, stopped_fits
from vbjax.cli import commands
from vbjax.cli import tables as commands_tables
from vbjax.cli import topics as commands_topics
from vbjax.cli.main import main
from vbjax.inference import saved_fits
from vbjax.plots import topics as topic_plots

WORDS = [
    "bow",
    "cello",
    "viola",
    "scale",
    "ball",
    "goal",
    "match",
    "team",
    "referee",
    "coach",
    "the",
    "unused",
]
DOCUMENTS = [
    "5 0:4 1:5 2:3 3:2 10:3",
    "4 0:3 1:6 2:4 10:2",
    "0",
    "4 0:2 1:4 3:5 10:1",
    "6 4:5 5:4 6:3 7:2 8:1 10:2",
    "5 4:4 5:6 6:2 9:1 10:3",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with news.ldac and words.txt: documents on music, on football and empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "news.ldac").write_text("\n".join(DOCUMENTS) + "\n")
    (tmp_path / "words.txt").write_text("\n".join(WORDS) + "\n")
    return tmp_path


def fit_command(*options):
    return ["fit", "lda", "news.ldac", "--components", "2", "--restarts", "2", "--quiet", *options]


def direct_fit(n_words=12):
    docs = vb.datasets.read_ldac("news.ldac", n_words)
    return vb.fit(vb.LatentDirichletAllocation(2), docs, key=jax.random.key(0), n_restarts=2), docs


def test_fit_prints_saves_and_draws_what_fit_finds(folder, capsys):
    assert main(fit_command("--vocab", "words.txt", "--out", "fit.vbjax", "--plot", "fit.png")) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert sorted(os.listdir()) == ["fit.png", "fit.vbjax", "news.ldac", "words.txt"]
    assert (folder / "fit.png").read_bytes().startswith(b"\x89PNG")
    direct, docs = direct_fit()
    expected = dict(
        topics=direct.params.topics.concentration,
        document_topics=direct.model.document_topics(direct.params, docs).concentration,
        tokens=[17, 15, 0, 12, 17, 16],
        doc_concentration=np.full(2, 0.5),
        topic_concentration=np.full(12, 0.5),
    )
    fit, about = saved_fits.unpack("fit.vbjax")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), fit, direct)
    assert about == dict(vocabulary=WORDS)
    saved = commands.describe(fit, docs)
    for name, value in expected.items():
        np.testing.assert_allclose(saved[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    # every token is in a topic: the posterior's concentrations are the prior's and the tokens
    np.testing.assert_allclose(saved["sizes"].sum(), 77, rtol=1e-5)
    np.testing.assert_allclose(saved["sizes"], expected["topics"].sum(1) - 12 * 0.5, rtol=1e-5)

    assert "news.ldac: 6 documents, 12 words, 77 tokens; seed 0" in out
    assert f"{float(direct.objective):.7g} nats" in out
    assert f"{float(direct.objective) / 77:.6g} nats per token" in out
    assert "restarts        2: min" in out
    assert direct.status.sentence in out
    assert "--vocab" not in out
    assert main(["predict", "fit.vbjax", "news.ldac", "--out", "shares.csv"]) == 0
    shares, names = vb.datasets.read_table("shares.csv")
    assert names == ["topic", "share_0", "share_1"]
    np.testing.assert_array_equal(shares[:, 1:].astype("float32"), direct.document_topics(docs).mean)
    np.testing.assert_array_equal(shares[:, 0], shares[:, 1:].argmax(1))
    rows = [line for line in out.splitlines() if "%" in line]
    order = np.argsort(-saved["sizes"])
    assert [int(row.split()[0]) for row in rows] == order.tolist()
    for row, k in zip(rows, order, strict=True):
        assert f"{saved['sizes'][k] / 0.77:.1f}%" in row
        # of both topics fewer than ten words are used, and the unused are not padded with
        held = np.flatnonzero(saved["topics"][k] - 0.5 > 0.5)
        held = held[np.argsort(-saved["topics"][k, held], kind="stable")]
        assert row.split("%")[1].strip() == ", ".join(WORDS[i] for i in held)


def test_without_a_vocabulary_words_are_numbers_and_the_bar_shows_the_restarts(folder, capsys):
    (folder / "news.ldac").write_text("\n".join(DOCUMENTS).replace(" 10:", " 11:"))
    assert main([word for word in fit_command("--out", "fit.vbjax") if word != "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "2/2" in err
    assert "words are shown by their numbers; --vocab names them" in out
    assert "6 documents, 12 words" in out
    fit, about = saved_fits.unpack("fit.vbjax")
    assert about["vocabulary"] == [str(i) for i in range(12)]
    topics = np.asarray(fit.params.topics.concentration)
    first = str(topics[topics.sum(1).argmax()].argmax())
    rows = [line for line in out.splitlines() if "%" in line]
    assert rows[0].split("%")[1].split(",")[0].strip() == first


def test_a_process_prints_and_saves_the_topics_that_are_used(folder, capsys, monkeypatch):
    """Of a fit whose topics are made by hand: its own takes long to compile."""
    direct, docs = direct_fit()
    words = np.asarray(direct.params.topics.concentration)
    topics = vb.families.DirichletState(jax.numpy.asarray(np.concatenate([words, words])[[0, 2, 1]]) - 0.4)
    topics = vb.families.DirichletState(topics.concentration.at[1].set(0.1))
    weights = vb.families.StickBreakingState(jax.numpy.array([6.0, 1.0]), jax.numpy.array([4.0, 9.0]))
    params = vb.Record(topics=topics, weights=weights)
    made = dataclasses.replace(direct, model=vb.HDPTopics(3).resolve(docs), params=params)
    seen = []
    monkeypatch.setattr(commands, "fit", lambda model, data, **how: seen.append((model, how)) or made)
    command = ["fit", "hdp-topics", "news.ldac", "--vocab", "words.txt", "--components", "3", "--quiet"]
    assert main([*command, "--out", "fit.vbjax", "--plot", "fit.svg"]) == 0
    assert repr(seen[0][0]) == repr(vb.HDPTopics(3))
    assert seen[0][1]["n_restarts"] == 4
    out, err = capsys.readouterr()
    assert err == ""
    saved = commands.describe(vb.load("fit.vbjax"), docs)
    expected = dict(
        topics=topics.concentration,
        document_topics=made.model.document_topics(params, docs).concentration,
        weights=[0.6, 0.04, 0.36],
        weights_sd=weights.sd,
        sizes=made.model.words_of_topics(params),
        doc_concentration=1,
        topic_concentration=np.full(12, 0.1),
    )
    for name, value in expected.items():
        np.testing.assert_allclose(saved[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    assert len([line for line in out.splitlines() if "%" in line]) == 2
    assert "1 of 3 topics emptied itself" in out
    assert "topics of a hierarchical Dirichlet process, 3 topics" in out
    figure = topic_plots.overview(made, WORDS)
    assert figure.get_suptitle() == "Topics of a hierarchical Dirichlet process: the 2 largest of 3 topics"


BAD = {
    "no such corpus": (["fit", "lda", "missing.ldac"], "missing.ldac: No such file"),
    "no such vocabulary": (fit_command("--vocab", "none.txt"), "none.txt: No such file"),
    "a folder": (["fit", "lda", "."], "Is a directory"),
    "an id outside": (fit_command("--vocab", "few.txt"), "line 1: word 10; expected numbers less than 2"),
    "blank word": (fit_command("--vocab", "blank.txt"), "blank.txt, line 2: blank; expected a word"),
    "negative": (["fit", "lda", "negative.ldac"], "negative.ldac, line 2: '1:-1'; expected id:count"),
    "fractional": (["fit", "lda", "fraction.ldac"], "fraction.ldac, line 1: '0:1.5'; expected id:count"),
    "cut": (
        ["fit", "lda", "cut.ldac"],
        "cut.ldac, line 5: begins with '6'; expected the number of its pairs",
    ),
    "a table": (["fit", "lda", "table.csv"], "table.csv, line 1: begins with '1,2'"),
    "no document": (["fit", "lda", "nothing.ldac"], "nothing.ldac: no document"),
    "no word": (["fit", "lda", "empty.ldac"], "empty.ldac: every document is empty; expected words"),
    "a slip": (
        ["fit", "lda", "slip.ldac"],
        "slip.ldac, line 2: word 999999999; expected numbers less than 1000000; for a larger vocabulary "
        "give n_words, in the shell --vocab",
    ),
    "no topics": (fit_command("--components", "0"), "'0' is not a whole number of at least 1"),
    "columns": (fit_command("--columns", "0"), "--columns is not for lda, whose data are documents"),
    "covariance": (fit_command("--covariance", "diag"), "--covariance is not for lda"),
    "weights": (fit_command("--weight-concentration", "1"), "is for bayesian-gmm only, not for lda"),
    "not topics": (
        ["fit", "gmm", "table.csv", "--vocab", "words.txt"],
        "--vocab is for lda and hdp-topics only, not for gmm",
    ),
    "one topic": (
        ["fit", "hdp-topics", "news.ldac", "--components", "1"],
        "--components must be at least 2 for hdp-topics",
    ),
    "process columns": (
        ["fit", "hdp-topics", "news.ldac", "--columns", "0"],
        "--columns is not for hdp-topics, whose data are documents",
    ),
    "itself": (fit_command("--out", "news.ldac"), "--out would overwrite the corpus"),
    "words": (fit_command("--vocab", "words.txt", "--out", "./words.txt"), "would overwrite the vocabulary"),
    "a picture": (fit_command("--plot", "fit.xyz"), "must end in .png, .pdf, .svg"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_no_file(case, folder, capsys, monkeypatch):
    files = {
        "few.txt": "bow\ncello\n",
        "blank.txt": "bow\n\ncello\n",
        "negative.ldac": "1 0:1\n2 0:1 1:-1\n",
        "fraction.ldac": "1 0:1.5\n",
        "cut.ldac": "\n".join(DOCUMENTS[:5])[:-5],
        "table.csv": "1,2\n3,4\n",
        "nothing.ldac": "\n",
        "empty.ldac": "0\n1 0:0\n",
        "slip.ldac": "1 0:1\n1 999999999:1\n",
    }
    check_refused(*BAD[case], files, capsys, monkeypatch)


def test_options_reach_the_fit(folder, capsys, monkeypatch):
    seen = stopped_fits(monkeypatch)
    command = ["fit", "lda", "news.ldac", "--seed", "3", "--max-iter", "9", "--tol", "0", "--restarts", "5"]
    assert main([*command, "--components", "3", "--vocab", "words.txt"]) == 2
    assert main(["--quiet", "fit", "lda", "news.ldac"]) == 2
    (model, docs, settings), (plain, numbered, defaults) = seen
    assert repr(model) == repr(vb.LatentDirichletAllocation(3))
    assert repr(plain) == repr(vb.LatentDirichletAllocation(6))
    assert (docs.n_words, numbered.n_words) == (12, 11)  # no document has the last word
    np.testing.assert_array_equal(docs.tokens(), [17, 15, 0, 12, 17, 16])
    assert jax.numpy.array_equal(settings.pop("key"), jax.random.key(3))
    assert settings == dict(n_restarts=5, max_iter=9, tol=0.0, progress=True, checkpoint=None)
    assert jax.numpy.array_equal(defaults.pop("key"), jax.random.key(0))
    assert defaults == dict(n_restarts=4, max_iter=1000, tol=1e-6, progress=False, checkpoint=None)


def found_of(counts):
    """What `describe` gives for topics that hold these counts of words."""
    counts = np.asarray(counts, float)
    return dict(topics=counts + 0.1, topic_concentration=np.full(counts.shape[1], 0.1), sizes=counts.sum(1))


def test_a_topic_shows_ten_words_in_80_columns_heaviest_first():
    counts = np.zeros((3, 14))
    counts[0, :3] = 1, 2, 0.4
    counts[1] = np.arange(14, 0, -1) + 1
    counts[2, 13] = 0.9
    words = [f"orchestra {i:02}" for i in range(12)] + ["never", "never"]
    head, *lines = commands_topics.table(found_of(counts), words)
    assert head.split() == ["topic", "tokens", "words"]
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    ten = ", ".join(words[:10])
    share = [100 * size / counts.sum() for size in counts.sum(1)]
    # topic 2 holds less than one token; of topic 0 the third word is less than half a token
    assert text == f"1 {share[1]:.1f}% {ten} 0 {share[0]:.1f}% orchestra 01, orchestra 00"
    assert all(line.startswith(" " * 17) for line in lines if "%" not in line)
    assert commands_tables.mention_empty(counts.sum(1), "topic", "token") == [
        "1 of 3 topics emptied itself: no more than one token each"
    ]


def test_a_word_too_long_for_the_line_and_one_with_a_tab_keep_to_80_columns():
    lines = commands_topics.table(found_of([[2.0, 1.0]]), ["w" * 100, "a\tb"])
    assert max(map(len, lines)) <= 80
    assert lines[-1].endswith(", a b")


def test_the_page_has_the_topics_the_trace_and_the_restarts(folder):
    direct, _ = direct_fit()
    figure = topic_plots.overview(direct, WORDS, n=20)
    *panels, trace, restarts = figure.axes
    sizes = np.asarray(direct.params.topics.concentration).sum(1)
    assert [ax.get_title(loc="left") for ax in panels] == [f"topic {k}" for k in np.argsort(-sizes)]
    assert all(len(ax.get_yticklabels()) == 12 for ax in panels)
    assert trace.get_ylabel() == restarts.get_ylabel() == "ELBO (nats)"
    np.testing.assert_allclose(trace.lines[-2].get_ydata(), direct.trace)
    assert restarts.get_title(loc="left").startswith("2 restarts")
    assert figure.get_suptitle() == "Latent Dirichlet allocation: 2 topics"
    concentration = direct.params.topics.concentration.at[0].set(0.5)  # an empty topic is not drawn
    emptied = vb.Record(topics=vb.families.DirichletState(concentration))
    figure = topic_plots.overview(dataclasses.replace(direct, params=emptied), WORDS)
    assert [ax.get_title(loc="left") for ax in figure.axes[:-2]] == ["topic 1"]
    assert figure.get_suptitle() == "Latent Dirichlet allocation: the 1 largest of 2 topics"
    with pytest.raises(ValueError, match="vocabulary must have 12 words; got 11"):
        topic_plots.overview(direct, WORDS[1:])
