"""Laws of fits divided over devices.

They are the same fits, whatever is divided, however rows weigh, and where the devices do not divide their
number; starts and defaults follow all rows. Each device makes its own sums; nothing else goes between.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vbjax as vb
from tests.support import two_devices
from vbjax.core.devices import pick_row
from vbjax.core.ragged import groups_for

LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 5))
def test_devices_divide_every_part(given, n):
    lengths, groups, widths = groups_for(np.array(given), n)
    np.testing.assert_array_equal(lengths, given + [0] * (-len(given) % n))
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(lengths)))
    assert not [rows for rows in groups if len(rows) % n]
    assert [max(1, lengths[rows].max()) for rows in groups] == widths


@given(st.tuples(LENGTHS, LENGTHS), st.tuples(st.integers(1, 3), st.integers(1, 3)))
def test_parts_of_two_processes_have_one_shape(given, n_devices):
    rows = max(-(-len(own) // n) for own, n in zip(given, n_devices, strict=True))
    ranked = [np.sort(np.pad(own, (0, rows * n - len(own)))) for own, n in zip(given, n_devices, strict=True)]
    longest = np.maximum(*(own[n - 1 :: n] for own, n in zip(ranked, n_devices, strict=True)))
    most = lambda x: np.array(rows) if x.ndim == 0 else longest
    (_, first, width), (_, second, same) = map(groups_for, map(np.array, given), n_devices, [most] * 2)
    assert width == same
    assert [len(own) // n_devices[0] for own in first] == [len(own) // n_devices[1] for own in second]
    for own, groups in zip(given, (first, second), strict=True):
        own = np.pad(own, (0, sum(map(len, groups)) - len(own)))
        assert all(own[rows].max() <= most for rows, most in zip(groups, width, strict=True))


@pytest.fixture(scope="module")
def found(request):
    """What `two_devices` has found, by kind and name."""
    ours = [item for item in request.session.items if item.path == request.path]
    more = ["more"] if any(item.get_closest_marker("again") for item in ours) else []
    environment = os.environ | two_devices.DEVICES | dict(PYTHONPATH=os.pathsep.join(sys.path))
    command = [sys.executable, "-m", "tests.support.two_devices", *more]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(row["kind"], row["name"]): row for row in rows}


MORE = [pytest.param(name, marks=pytest.mark.again) for name in two_devices.MORE]


@pytest.mark.parametrize("name", [*two_devices.NAMES, *MORE])
def test_rows_on_two_devices_are_all_rows(found, name):
    row = found["rows", name]
    # local factors stop turning where they have settled, which sums in another order may tell a turn earlier
    assert row["trace"] < (1e-8 if "interact" in name else 1e-12)
    assert row.get("second", 0) < 1e-10  # nats, on the second device alone
    assert row["resolved"] < 1e-12
    assert row["gathers"] == 0
    assert row["sums"] == row["blocks"]  # a pass for each
    one, two = row["own"]
    assert np.isfinite(two)
    if not name.startswith("own"):  # which draw something for every row
        np.testing.assert_allclose(two, one, rtol=1e-8)


@pytest.mark.parametrize("name", two_devices.RESTARTS)
def test_restarts_on_two_devices_are_those_on_one(found, name):
    row = found["restarts", name]
    assert row["together"] == 0
    assert max(row["runs"], row["trace"]) < 1e-10  # nats: another program may round otherwise
    assert row["n_iter"]
    assert row["devices"] == 1


@pytest.mark.parametrize("name", two_devices.SOURCES)
def test_blocks_of_a_source_are_divided_over_two_devices(found, name):
    row = found["sources", name]
    assert max(row["traces"]) < 1e-10  # nats
    assert row["between"] == 0  # a sum over devices ends a pass, not a block


def test_chains_on_two_devices_are_those_on_one(found):
    assert found["chains", "VB full"]["draws"] < 1e-9


@pytest.mark.parametrize("name", two_devices.STEPS)
def test_stochastic_steps_on_two_devices_are_those_on_one(found, name):
    row = found["steps", name]
    assert row["fits"] < 1e-12
    assert row["devices"] == 1
    assert row["gathers"] == 0
    assert row["sums"] == [1, 1]


def test_derivatives_on_two_devices_are_those_on_one(found):
    row = found["derivatives", "VB full"]
    assert row["bound"] < 1e-12
    assert row["gradient"] < 1e-12
    assert max(row["optimum"], row["response"]) < 1e-9  # which solve a linear system
    assert row["sums"] == 1


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.floats(0, 1))
def test_a_row_is_picked_by_its_mass(mass, share):
    mass = np.array(mass, np.float32)
    row = int(pick_row(np.float32(share), mass))
    total = np.cumsum(mass.astype(float))
    if mass.any():
        assert mass[row] > 0
        assert total[row] - mass[row] <= share * total[-1] * (1 + 1e-5) + 1e-5


def test_devices_are_a_list_of_devices():
    x, key = vb.datasets.old_faithful(), jax.random.key(0)
    for devices in ([], "cpu", jax.devices()[0], [0]):
        with pytest.raises(ValueError, match="devices must be a list of at least one device"):
            vb.fit(vb.KMeans(2), x, key=key, devices=devices)
