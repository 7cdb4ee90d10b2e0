"""A fit that is killed goes on where it was, to the same bits; never from another's, and says what fails."""

import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.clouds import key, rows
from tests.support.killed_fits import clouds, minibatches
from vbjax.inference import checkpoints, out_of_core

pytest.importorskip("orbax.checkpoint")
HOW = dict(key=key(), n_restarts=5, lanes=2, max_iter=60, tol=0.0)
MODELS = {
    "EM": vb.GaussianMixture(3),
    "saddles": vb.Model(
        factors=dict(mu=vb.Normal(), tau=vb.Gamma()),
        log_prior=lambda s: vb.terms.normal(s.mu, 0.0, 1.0) + vb.terms.gamma(s.tau, 1.0, 1.0),
        log_likelihood=lambda s, x: vb.terms.normal(x[:, 0], s.mu, s.tau),
    ),
}


class Killed(Exception):
    """In the place of the end of the process."""


def dies_after(monkeypatch, number):
    """Let a process die when it has kept so many checkpoints, one at every look of the host."""
    keep, count = checkpoints.Checkpoint.keep, []
    monkeypatch.setattr(checkpoints, "_EVERY", 0.0)

    def dying(self, state, *, now=False):
        keep(self, state, now=True)
        count.append(1)
        if len(count) == number:
            raise Killed

    monkeypatch.setattr(checkpoints.Checkpoint, "keep", dying)


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_that_was_killed_goes_on_to_the_same_bits(tmp_path, monkeypatch, name):
    alone = vb.fit(MODELS[name], rows(), **HOW)
    for number in (2, 1) if name == "EM" else (1, 1):
        with monkeypatch.context() as patch:
            dies_after(patch, number)
            with pytest.raises(Killed):
                vb.fit(MODELS[name], rows(), checkpoint=tmp_path, **HOW)
    same(vb.fit(MODELS[name], rows(), checkpoint=tmp_path, **HOW), alone)
    ended = vb.fit(MODELS[name], rows(), checkpoint=tmp_path, **HOW)  # which has nothing left to do
    np.testing.assert_array_equal(ended.runs.objective, alone.runs.objective)


def source(block_rows=11):
    return vb.sources.Memmap(np.asarray(rows()), block_rows=block_rows)


def test_a_fit_to_a_source_goes_on_with_the_block_where_it_was(tmp_path, monkeypatch):
    """Killed within the first pass, within the second of a sweep, after a pass and after a sweep."""
    model, how = MODELS["saddles"], dict(key=key(), n_restarts=3, max_iter=5, tol=0.0)
    alone = vb.fit(model, source(), **how)
    for number in (2, 6, 1, 3, 5):  # a pass is of four blocks
        with monkeypatch.context() as patch:
            dies_after(patch, number)
            with pytest.raises(Killed):
                vb.fit(model, source(), checkpoint=tmp_path, **how)
    same(vb.fit(model, source(), checkpoint=tmp_path, **how), alone)
    for words, call in {
        "block_rows": lambda: source(12),
        "data": lambda: vb.sources.Memmap(np.asarray(rows()) + 1, block_rows=11),
    }.items():
        with pytest.raises(ValueError, match=rf"other arguments \({words}\)"):
            vb.fit(model, call(), checkpoint=tmp_path, **how)


def test_ctrl_c_keeps_the_block_where_a_fit_to_a_source_was(tmp_path):
    readings = itertools.count()

    def blocks():
        yield (x := np.asarray(rows()))[:20]
        if next(readings) == 2 + 3:  # the rows are counted, a sample is drawn, and three sweeps made
            raise KeyboardInterrupt
        yield x[20:]

    how = dict(key=key(), max_iter=6, tol=0.0)
    given = vb.sources.Blocks(blocks, block_rows=20)
    fit = vb.fit(MODELS["EM"], given, checkpoint=tmp_path, **how)
    assert (fit.status, fit.n_iter) == (vb.Status.INTERRUPTED, 3)
    again = vb.fit(MODELS["EM"], given, checkpoint=tmp_path, **how)
    np.testing.assert_array_equal(again.full_trace, vb.fit(MODELS["EM"], given, **how).full_trace)


def test_processes_that_share_a_source_keep_no_checkpoint(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match="checkpoint must be None where several processes share"):
        out_of_core.Rows(source(), 40, 11, None, None).described(rows())


KINDS = pytest.mark.parametrize("kind", ["arrays", "iterator", "source"])


@KINDS
def test_minibatches_go_on_to_the_same_bits(tmp_path, monkeypatch, kind):
    alone = minibatches(kind)
    assert alone.status == vb.Status.MAX_ITER
    assert alone.n_iter == 40
    with monkeypatch.context() as patch:
        dies_after(patch, 2)
        with pytest.raises(Killed):
            minibatches(kind, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"other arguments \(data\)"):
        minibatches(kind, checkpoint=tmp_path, data=clouds() + 1)
    with pytest.raises(ValueError, match=r"other arguments \(key, n_epochs\)"):
        minibatches(kind, checkpoint=tmp_path, key=key(5), n_epochs=9)
    same(minibatches(kind, checkpoint=tmp_path), alone)
    same(minibatches(kind, checkpoint=tmp_path), alone)  # which has nothing left to do


def ends_at(monkeypatch, kind):
    """Let Ctrl-C come at the first look of the host, or after three minibatches of an iterator."""
    if kind == "iterator":

        def batches(given):
            yield from given[:3]
            raise KeyboardInterrupt

        return dict(batches=batches)
    keep = checkpoints.Checkpoint.keep
    monkeypatch.setattr(checkpoints, "_EVERY", 0.0)

    def interrupted(self, state, *, now=False):
        if not now:
            raise KeyboardInterrupt
        keep(self, state, now=now)

    monkeypatch.setattr(checkpoints.Checkpoint, "keep", interrupted)
    return {}


@KINDS
def test_ctrl_c_keeps_what_minibatches_have_reached(tmp_path, monkeypatch, kind):
    alone = minibatches(kind)
    with monkeypatch.context() as patch:
        ended = minibatches(kind, checkpoint=tmp_path, **ends_at(patch, kind))
    assert ended.status == vb.Status.INTERRUPTED
    assert ended.n_iter == dict(arrays=16, iterator=3, source=1)[kind]
    np.testing.assert_array_equal(ended.trace, alone.trace[: len(ended.trace)])
    same(minibatches(kind, checkpoint=tmp_path), alone)


def test_minibatches_that_are_killed_at_random_moments_go_on_to_the_same_bits(tmp_path):
    command = [sys.executable, "-m", "tests.support.killed_fits", str(tmp_path), "2", "8", "source"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 2
    assert all(found["same"])


def test_a_checkpoint_is_of_one_fit(tmp_path):
    fit = lambda model=MODELS["EM"], data=None, **how: vb.fit(
        model, rows() if data is None else data, checkpoint=tmp_path, **HOW | how
    )
    fit()
    for words, call in {
        "model": lambda: fit(vb.GaussianMixture(3, mean_precision=1.0)),
        "data": lambda: fit(data=rows() + 1),
        "key, max_iter": lambda: fit(key=key(5), max_iter=70),
        "n_restarts": lambda: fit(n_restarts=6),
    }.items():
        with pytest.raises(ValueError, match=rf"other arguments \({words}\)"):
            call()


def test_what_cannot_be_written_is_said_and_the_last_stays(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for path, words in ((tmp_path / "file" / "run", "can be written"), (3, "path of a directory")):
        with pytest.raises(ValueError, match=f"checkpoint must be .*{words}"):
            vb.fit(MODELS["EM"], rows(), checkpoint=path, **HOW)

    import orbax.checkpoint as orbax

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        dies_after(patch, 1)
        with pytest.raises(Killed):
            vb.fit(MODELS["EM"], rows(), checkpoint=path, **HOW)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(orbax.CheckpointManager, "save", full)
        with pytest.raises(OSError, match=r"could not be written, its last one is whole: .*No space left"):
            vb.fit(MODELS["EM"], rows(), checkpoint=path, **HOW)
    alone, again = vb.fit(MODELS["EM"], rows(), **HOW), vb.fit(MODELS["EM"], rows(), checkpoint=path, **HOW)
    np.testing.assert_array_equal(alone.runs.objective, again.runs.objective)


def test_inside_jit_there_is_no_checkpoint(tmp_path):
    for call in (
        lambda x: vb.fit(MODELS["EM"], x, checkpoint=tmp_path, **HOW).objective,
        lambda x: vb.fit_stochastic(MODELS["EM"], x, checkpoint=tmp_path, key=key()).objective,
    ):
        with pytest.raises(ValueError, match="checkpoint must be None inside jit"):
            jax.jit(call)(rows())
