"""A table or a source whose rows two processes share is fitted as in one; a bad row is an error in both."""

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


@pytest.mark.parametrize("name", two_processes.tables())
def test_two_processes_fit_as_one(found, name):
    first, second, alone = (each[name] for each in found)
    assert first == second
    assert first["n_iter"] == alone["n_iter"]
    np.testing.assert_allclose(first["objectives"], alone["objectives"], rtol=1e-10)
    np.testing.assert_allclose(first["params"], alone["params"], rtol=1e-6, atol=1e-8)


def test_a_bad_row_of_another_process_is_an_error_too(found):
    first, second, _ = (each["error"]["words"] for each in found)
    assert "data must be finite" in first
    assert "row 7 is the first with a NaN" in second


def test_a_bad_block_of_another_process_is_an_error_too(found):
    place = "data, from row 280: data must be finite; row 28 is the first"  # the fifth block: the first's
    first, second, _ = (each["error in a source"]["words"] for each in found)
    assert place in first
    assert "data must be finite; row 308 is the first" in second
    first, second, _ = (each["in no sample"]["words"] for each in found)
    assert place in first
    assert "another one could not" in second
