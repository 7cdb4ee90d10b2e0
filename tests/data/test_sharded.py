"""Laws of rows divided over devices.

They are the same rows, and their E-step has the same sums, whatever it carries and however rows weigh; each
device makes its own, and nothing but the sums goes between them.
"""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import vbjax as vb
from tests.support.tolerances import close
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.ragged import groups_of
from vbjax.inference.fit import resolved


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 5))
def test_devices_divide_every_part_but_what_is_left_over(lengths, n):
    lengths = np.array(lengths)
    groups, widths = groups_of(lengths, n)
    np.testing.assert_array_equal(np.sort(np.concatenate(groups)), np.arange(len(lengths)))
    assert [len(rows) for rows in groups if len(rows) % n] in ([], [len(lengths) % n])
    assert [max(1, lengths[rows].max()) for rows in groups] == widths
    assert len(groups[-1]) < n or not len(lengths) % n


def sums_on_two_devices():
    """Of sequences and of documents, which are carried: one sweep as it is, and on two devices."""
    rng = np.random.default_rng(0)
    sequences = vb.Sequences.of([rng.normal(size=(t, 2)) for t in rng.integers(5, 40, 23)])
    documents = vb.Documents.of(rng.poisson(0.7, (33, 20)))
    for model, data in (
        (vb.BayesianGaussianHMM(2), sequences),
        (vb.LatentDirichletAllocation(3), documents),
    ):
        divided, weights = data.sharded(), jnp.asarray(rng.integers(0, 3, data.n_rows).astype(float))
        assert divided.mesh.size == 2
        assert len(divided.parts[0][0].sharding.device_set) == 2
        model, data, _ = resolved(model, data, None)
        ascent = CoordinateAscent(model, jnp.zeros(()))
        params = jax.jit(model.init)(jax.random.key(0), data)

        @jax.jit
        def sweep(ascent, params, data, weights):
            return ascent.step(ascent.start(params, data), data, weights)

        (one, info), (two, same) = (sweep(ascent, params, rows, weights) for rows in (data, divided))
        close((two.params, same.objective), (one.params, info.objective))
        if one.local is not None:
            close(divided.join(two.local), data.join(one.local))
        text = sweep.lower(ascent, params, divided, weights).compile().as_text()
        assert "all-reduce" in text
        assert "all-gather" not in text


def test_two_devices_do_what_one_does():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
    setup = "import jax; jax.config.update('jax_enable_x64', True)"
    code = f"{setup}; from tests.data import test_sharded; test_sharded.sums_on_two_devices()"
    path = os.pathsep.join(sys.path)
    environment = os.environ | dict(XLA_FLAGS=flags, JAX_PLATFORMS="cpu", PYTHONPATH=path)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
