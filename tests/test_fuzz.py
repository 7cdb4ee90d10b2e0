"""The fuzzer's judge tells the kinds of outcomes apart, and its tables know everything public.

(The calls themselves are made by `python -m tests.fuzz`, each few hundred in a process of their own.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.fuzz.grid import grid
from tests.fuzz.judge import Uncovered, judge, shell
from tests.fuzz.runner import batches_of
from vbjax.inference.restarts import Runs
from vbjax.numerics.inputs import read_column, read_count


def fit_with(objective, status):
    runs = Runs(*(jnp.zeros(1, bool if name == "singular" else int) for name in Runs._fields))
    return vb.Fit(None, {}, jnp.asarray(objective), jnp.int32(1), runs, jnp.zeros(1), jnp.int32(status))


def raises(error):
    def call():
        raise error

    return call


OUTCOMES = {
    "refused by its name": (lambda: read_count("3", "n_draws"), ("n_draws",), "clear"),
    "refused by another name": (lambda: read_count("3", "n_draws"), ("n_chains",), "cryptic"),
    "a letter in passing": (lambda: read_column("3", "data"), ("a",), "cryptic"),
    "a letter that is spoken of": (lambda: read_column("3", "a"), ("a",), "clear"),
    "no such argument": (lambda: vb.fit(nonsense=1), ("nonsense",), "clear"),
    "not ours": (lambda: jnp.zeros(2) + jnp.zeros(3), ("x",), "cryptic"),
    "ours by accident": (lambda: vb.metrics.silhouette_table(None, None), ("nobody",), "cryptic"),
    "another kind": (raises(KeyError("n_draws")), ("n_draws",), "cryptic"),
    "the data in the message": (lambda: read_count("3", "n_draws " + "3" * 2000), ("n_draws",), "cryptic"),
    "a file by its path": (lambda: vb.datasets.read_table("/nowhere.csv"), ("nowhere.csv",), "clear"),
    "too large": (raises(RuntimeError("RESOURCE_EXHAUSTED: 1e15 bytes")), (), "memory"),
    "in no table": (raises(Uncovered("no row")), (), "uncovered"),
    "NaN": (lambda: dict(a=jnp.ones(2), b=(np.nan,)), (), "nan"),
    "a fit to NaN": (lambda: fit_with(np.nan, vb.Status.CONVERGED), (), "nan"),
    "a fit that says so": (lambda: fit_with(np.nan, vb.Status.NON_FINITE), (), "fine"),
    "a key": (lambda: jax.random.key(0), (), "fine"),
    "infinite": (lambda: -jnp.inf, (), "fine"),
    "a word of the shell's": (shell(["fit", "nonsense", "a.csv"]), ("MODEL",), "clear"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_outcomes_are_told_apart(name):
    call, names, kind = OUTCOMES[name]
    assert judge(call, names, True)[0] == kind


def test_what_cannot_be_meant_may_not_be_accepted():
    assert judge(lambda: 1.0, ("n_draws",), False)[0] == "silent"


def test_everything_public_is_in_a_table(monkeypatch):
    calls = grid()
    assert len({call.label for call in calls}) == len(calls)
    assert sum(call.chosen for call in calls) > 3000
    assert [call.label for call in calls if call.group == "uncovered" or call.label.endswith("=?)")] == []
    monkeypatch.setattr(vb, "__all__", [*vb.__all__, "Nobody"])
    monkeypatch.setattr(vb.metrics, "nobody", test_outcomes_are_told_apart, raising=False)
    monkeypatch.setattr(test_outcomes_are_told_apart, "__module__", vb.metrics.__name__)
    monkeypatch.setattr(vb.components, "__all__", [*vb.components.__all__, "Normal"])
    found = [c.label for c in grid() if c.group == "uncovered"]
    assert found == ["Nobody", "metrics.nobody", "components.Normal"]


def test_batches_keep_groups_together():
    groups = dict(a=[1, 2, 3], b=[4, 5], c=[6])
    assert batches_of(groups, 3) == [[1, 2, 3], [4, 5, 6]]
