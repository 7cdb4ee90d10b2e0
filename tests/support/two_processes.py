"""Fits of tables and sources that two processes share: `python -m tests.support.two_processes RANK PORT`.

Each prints a line of JSON for every model; RANK -1 is one process that has all rows.
"""

import json
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vbjax as vb
from vbjax.inference import out_of_core

# collectives of programs that overlap would meet in another order in each process
ENVIRONMENT = dict(JAX_PLATFORMS="cpu", JAX_ENABLE_X64="1", JAX_CPU_ENABLE_ASYNC_DISPATCH="0")
N = 301  # rows of one process


def tables():
    """Models, and all rows of their data."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(N, 2)), rng.normal(size=(N, 2)) + 4])
    rng.shuffle(x)
    return {
        "EM": (vb.GaussianMixture(2), x),
        "VB of counts": (vb.BayesianPoissonMixture(2), rng.poisson(3.0, (2 * N, 1)).astype(float)),
        "regression": (vb.BayesianLinearRegression(), (x[:, :1], x[:, 1])),
        "EM of a source": (vb.GaussianMixture(2), source(x)),
        "regression on a source": (vb.BayesianLinearRegression(), source((x[:, :1], x[:, 1]))),
        "a source of one block": (vb.GaussianMixture(2), source(x, 2 * N)),
    }


def source(x, block_rows=70):
    """Nine blocks, or as many as asked for."""
    return vb.sources.Memmap(x, block_rows=block_rows)


def main(rank, port):
    if rank >= 0:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
        rows = NamedSharding(Mesh(np.array(jax.devices()), ("processes",)), PartitionSpec("processes"))

    def placed(x):
        if rank < 0 or isinstance(x, vb.sources.Source):
            return x
        own = x[rank * N : (rank + 1) * N]
        return jax.make_array_from_process_local_data(rows, own)

    for name, (model, data) in tables().items():
        out_of_core._SAMPLED = 200  # fewer than there are
        fit = vb.fit(model, jax.tree.map(placed, data), key=jax.random.key(0), n_restarts=3)
        leaves = np.concatenate([np.ravel(x) for x in jax.tree.leaves(fit.params)])
        found = dict(objectives=np.asarray(fit.runs.objective).tolist(), params=leaves.tolist())
        print(json.dumps(dict(name=name, n_iter=int(fit.n_iter), **found)), flush=True)
    bad = np.where(np.arange(2 * N) == N + 7, np.nan, 1.0)[:, None]
    errors = {"error": placed(bad), "error in a source": source(bad), "in no sample": source(bad)}
    for name, data in errors.items():
        out_of_core._SAMPLED = 20 if name == "in no sample" else 65_536
        try:
            vb.fit(vb.KMeans(2), data, key=jax.random.key(0))
        except ValueError as error:
            print(json.dumps(dict(name=name, words=str(error))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
