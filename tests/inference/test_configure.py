"""`configure` takes the cores, and keeps compiled programs: a second process compiles nothing again."""

import os
import subprocess
import sys

import pytest

import vbjax as vb

FIT = """
import jax, os, vbjax as vb
from jax import monitoring

missed = []
monitoring.register_event_listener(lambda event, **_: event.endswith("cache_misses") and missed.append(event))
vb.configure(cpu_devices="all", compilation_cache=True)
vb.fit(vb.KMeans(2), vb.datasets.old_faithful(), key=jax.random.key(0), n_restarts=2)
assert len(jax.devices()) == len(os.sched_getaffinity(0))
assert int(os.environ["NPROC"]) > len(jax.devices())  # threads: some may wait for a collective sum
try:
    vb.configure(cpu_devices=3)
except RuntimeError as error:
    assert "cpu_devices comes too late" in str(error), error
else:
    raise AssertionError("devices were changed after they had started")
print(len(missed))
"""


def test_cores_are_devices_and_programs_are_kept(tmp_path):
    environment = os.environ | dict(XDG_CACHE_HOME=str(tmp_path), PYTHONPATH=os.pathsep.join(sys.path))
    missed = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", FIT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        missed.append(int(done.stdout))
    assert missed[0] > 5
    assert missed[1] == 0
    assert list((tmp_path / "vbjax").iterdir())


def test_arguments_are_refused_by_name(tmp_path):
    for number in (0, -1, 1.5, "two", 10**6):
        with pytest.raises(ValueError, match="cpu_devices must be"):
            vb.configure(cpu_devices=number)
    (tmp_path / "file").touch()
    for path in (1, None, tmp_path / "file" / "cache"):
        with pytest.raises(ValueError, match="compilation_cache must be"):
            vb.configure(compilation_cache=path)
