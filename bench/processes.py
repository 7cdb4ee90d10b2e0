"""A sweep where rows lie in several processes: `python -m bench.processes RANK COUNT DEVICES PORT ROWS`.

For bench/scale.py, which starts COUNT of these, each with DEVICES devices and its share of the rows. Process
0 prints the seconds of a sweep of every model as a line of JSON.
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vbjax as vb
from bench.measure import interleaved, per_iteration

SHORT, LONG, REPEATS = 4, 24, 5
MODELS = {
    "GaussianMixture(8), 2 columns": (vb.GaussianMixture(8), 2),
    "KMeans(16), 16 columns": (vb.KMeans(16), 16),
    "BayesianGaussianMixture(16), 16 columns": (vb.BayesianGaussianMixture(16), 16),
}


def main(rank: int, count: int, n_devices: int, port: int, rows: int) -> None:
    """Measure a sweep of every model."""
    vb.configure(cpu_devices=n_devices)
    if count > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
    places = NamedSharding(Mesh(np.array(jax.devices()), ("rows",)), PartitionSpec("rows"))
    found = {}
    for name, (model, d) in MODELS.items():
        rng = np.random.default_rng(rank)
        own = (rng.integers(-3, 4, (rows // count, d)) + rng.normal(size=(rows // count, d))).astype(
            np.float32
        )
        data = jax.make_array_from_process_local_data(places, own)

        def fit(n: int, model=model, data=data) -> vb.Fit:
            return vb.fit(model, data, key=jax.random.key(0), tol=0.0, max_iter=n)

        done = int(fit(LONG).n_iter) - int(fit(SHORT).n_iter)
        short, long = interleaved(lambda: fit(SHORT), lambda: fit(LONG), repeats=REPEATS)
        found[name] = per_iteration(long, short, done)
    if rank == 0:
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
