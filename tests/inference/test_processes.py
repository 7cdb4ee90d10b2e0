"""Laws of fits over two processes.

Rows that lie in both, of tables, sequences and documents, are fitted as in one: the same runs, by one sum
over the devices for each block of a pass, and nothing else between them; so are those of a source, of which
each reads its share. Restarts and minibatches are divided too. What is wrong in one process is an error in
both.
"""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests.support import two_processes


def lines(out):
    """What a process has printed, but for the words of its collectives."""
    return {row["name"]: row for row in (json.loads(x) for x in out.splitlines() if x.startswith("{"))}


NAMES = (*two_processes.tables(), *two_processes.RAGGED, "restarts", "minibatches")


@pytest.fixture(scope="module")
def found():
    """What each of two processes prints, and one alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | two_processes.ENVIRONMENT | dict(PYTHONPATH=os.pathsep.join(sys.path))
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    command = [sys.executable, "-m", "tests.support.two_processes"]
    started = [subprocess.Popen([*command, str(rank), str(port)], **pipes) for rank in (0, 1, -1)]
    ended = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], ended
    return [lines(out) for out, _ in ended]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_fit_as_one(found, name):
    first, second, alone = (each[name] for each in found)
    assert first == second
    assert first["n_iter"] == alone["n_iter"]
    # documents stop turning where they have settled, which sums in another order may tell a turn earlier
    of_objective, of_params = (1e-7, 1e-4) if name == "topics" else (1e-10, 1e-6)
    np.testing.assert_allclose(first["objectives"], alone["objectives"], rtol=of_objective)
    np.testing.assert_allclose(first["params"], alone["params"], rtol=of_params, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in NAMES[:-2] if "source" not in name])
def test_a_pass_is_a_sum_over_the_devices(found, name):
    first = found[0][name]
    assert first["gathers"] == 0
    assert 1 <= first["sums"] <= first["blocks"] + 1


def test_what_is_wrong_in_one_process_is_an_error_in_both(found):
    first, second = (each["row"]["words"] for each in found[:2])
    assert "data must be finite" in first
    assert "row 7 is the first with a NaN" in second
    for name, words in dict(
        columns="the same columns", kept="checkpoint must be None", of="of this process"
    ).items():
        assert [words in each[name]["words"] for each in found[:2]] == [True, True]


def test_a_bad_block_of_another_process_is_an_error_too(found):
    place = "data, from row 280: data must be finite; row 29 is the first"  # the fifth block: the first's
    first, second = (each["error in a source"]["words"] for each in found[:2])
    assert place in first
    assert "data must be finite; row 309 is the first" in second
    first, second = (each["in no sample"]["words"] for each in found[:2])
    assert place in first
    assert "another one could not" in second


def test_each_process_reads_its_own_sequences(found):
    for rank in (0, 1):
        assert found[rank]["read"] == dict(
            name="read", repr="Sequences(2 sequences, 24 steps of shape (2,))", own=12
        )
