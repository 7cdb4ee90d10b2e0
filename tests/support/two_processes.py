"""Fits of data that two processes share: `python -m tests.support.two_processes RANK PORT`.

Each has two devices and prints a line of JSON for every fit; RANK -1 is one process of one device, which has
all rows.
"""

import json
import re
import sys

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vbjax as vb
from tests.support.compilations import PASSES, keep_texts
from vbjax.inference import out_of_core
from vbjax.terms import gamma, normal

# collectives of programs that overlap would meet in another order in each process
ENVIRONMENT = dict(
    JAX_PLATFORMS="cpu",
    JAX_ENABLE_X64="1",
    JAX_CPU_ENABLE_ASYNC_DISPATCH="0",
    JAX_ENABLE_COMPILATION_CACHE="0",  # the texts are those of programs that are compiled
)
N = 302  # rows of one process
RAGGED = ("HMM of known states", "topics")
OWN = vb.Model(
    factors=dict(mu=vb.Normal(), tau=vb.Gamma()),
    log_prior=lambda s: normal(s.mu, 0.0, 1e-3 * s.tau) + gamma(s.tau, 1e-3, 1e-3),
    log_likelihood=lambda s, x: normal(x, s.mu, s.tau),
)


def tables():
    """Models, and all rows of their data."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(N, 2)), rng.normal(size=(N, 2)) + 4])
    rng.shuffle(x)
    return {
        "EM": (vb.GaussianMixture(2), x),
        "regression": (vb.BayesianLinearRegression(), (x[:, :1], x[:, 1])),
        "own": (OWN, x[:, 0]),
        "EM of a source": (vb.GaussianMixture(2), source(x)),
        "regression on a source": (vb.BayesianLinearRegression(), source((x[:, :1], x[:, 1]))),
        "a source of one block": (vb.GaussianMixture(2), source(x, 2 * N)),
    }


def source(x, block_rows=70):
    """Nine blocks, or as many as asked for."""
    return vb.sources.Memmap(x, block_rows=block_rows)


def ragged():
    """Models, the rows of both processes, the reader of rows, and the options of the fit.

    Sequences have lengths with which their steps, among which starts are drawn, stand as in one process. Only
    the second process has the largest category.
    """
    rng = np.random.default_rng(1)
    letters = [[rng.integers(0, 3 + rank, (t + rank, 1)) for t in (9, 10, 10, 11)] for rank in (0, 1)]
    known = [
        np.where(rng.random(40 + 4 * rank) < 0.2, rng.integers(0, 2, 40 + 4 * rank), -1) for rank in (0, 1)
    ]
    words = [
        [np.bincount(rng.integers(0, 8, n), minlength=8) for n in rng.integers(0, 30, 9 - 4 * rank)]
        for rank in (0, 1)
    ]
    documents = lambda own: vb.Documents.of(np.array(own))
    found = (
        (vb.CategoricalHMM(2), letters, vb.Sequences.of, dict(labels=known, n_restarts=3)),
        (vb.LatentDirichletAllocation(2), words, documents, dict(n_restarts=3, max_iter=10)),
    )
    return dict(zip(RAGGED, found, strict=True))


def report(name, fit):
    leaves = np.concatenate([np.ravel(x) for x in jax.tree.leaves(fit.params)])
    found = dict(
        n_iter=int(fit.n_iter),
        objectives=np.asarray(fit.runs.objective).tolist(),
        params=leaves.tolist(),
        gathers=sum(len(re.findall("all-gather", PASSES[x])) for x in ("_begin", "_go_on")),
        sums=len(re.findall(r"all-reduce\(", PASSES["_go_on"])),
        blocks=len(fit.model.blocks),
    )
    print(json.dumps(dict(name=name, **found)), flush=True)


def refused(name, call):
    try:
        call()
    except ValueError as error:
        print(json.dumps(dict(name=name, words=str(error))), flush=True)


def main(rank, port):
    if rank >= 0:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.config.update("jax_num_cpu_devices", 2)
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("devices",)), PartitionSpec("devices"))
    keep_texts()

    def placed(x):
        if rank < 0 or isinstance(x, vb.sources.Source):
            return x
        own = x[rank * N : (rank + 1) * N]
        return jax.make_array_from_process_local_data(rows, own)

    for name, (model, data) in tables().items():
        out_of_core._SAMPLED = 200  # fewer than there are
        report(name, vb.fit(model, jax.tree.map(placed, data), key=jax.random.key(0), n_restarts=3))
    for name, (model, both, read, options) in ragged().items():
        data = read(both[0] + both[1]) if rank < 0 else read(both[rank]).sharded(jax.devices())
        if (labels := options.pop("labels", None)) is not None:
            data = vb.Labelled(data, np.concatenate(labels) if rank < 0 else labels[rank])
        report(name, vb.fit(model, data, key=jax.random.key(0), **options))
    few, options = tables()["own"][1][:40], dict(n_restarts=8, devices=jax.devices())
    report("restarts", vb.fit(OWN, few, key=jax.random.key(0), **options))
    model, pair = tables()["regression"]
    minibatches = dict(batch_size=100, n_epochs=2, key=jax.random.key(0))
    report("minibatches", vb.fit_stochastic(model, jax.tree.map(placed, pair), **minibatches))
    if rank >= 0:
        errors(rank, placed)


def errors(rank, placed):
    fit = lambda x, **options: vb.fit(vb.KMeans(2), x, key=jax.random.key(0), **options)
    bad = np.where(np.arange(2 * N) == N + 7, np.nan, 1.0)[:, None]
    refused("row", lambda: fit(placed(bad)))
    out_of_core._SAMPLED = 65_536
    refused("error in a source", lambda: fit(source(bad)))
    out_of_core._SAMPLED = 20
    refused("in no sample", lambda: fit(source(bad)))
    refused("kept", lambda: fit(placed(np.arange(2.0 * N)[:, None]), checkpoint="x"))
    other = vb.Sequences.of([np.zeros((5, 1 + rank))])
    refused("columns", lambda: other.sharded(jax.devices()))
    refused("of", lambda: other.sharded([x for x in jax.devices() if x.process_index != rank]))
    half = np.where(np.arange(2) == rank, np.arange(12.0)[:, None], np.nan)  # a column is seen in one process
    sequences = vb.Sequences.of([half, half]).sharded(jax.devices())
    model = vb.LinearGaussianStateSpace(1)
    found = dict(name="read", repr=repr(model.read(sequences)), own=len(sequences.take([1]).steps()))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
