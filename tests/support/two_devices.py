"""Fits on one device and on two, in a process that has two: `python -m tests.support.two_devices`.

It prints a line of JSON for every model: what of the fits differs. JAX must be asked for two devices before
the first computation (`DEVICES`), so that this is a process of its own, one for all the models.
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from tests.support.compilations import PASSES, keep_texts
from tests.support.registry import MODELS
from vbjax.core.rows import n_rows
from vbjax.inference import division

# its environment; a program from the cache would have no text
DEVICES = dict(JAX_NUM_CPU_DEVICES="2", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")
DEVICES |= dict(JAX_ENABLE_COMPILATION_CACHE="0")

# one of each kind of start and of rows
NAMES = (
    "mean and precision",
    "k-means",
    "EM full, holes",
    "VB full",
    "VB of a product",
    "random effects",
    "Bayesian PCA",
    "own, locals that interact",
    "own, states in time",
    "HMM of known states",
    "VB state space",
    "topics, known concentrations",
)
RESTARTS = ("VB full", "HMM of counts", "black box")
SOURCES = ("VB full", "own, two blocks")


def rows_of(name):
    """Data of a model, an odd number of rows, and weights from 0 to 2."""
    entry = MODELS[name]
    data, _ = entry.data("float64")
    rng = np.random.default_rng(7)
    return entry, data, jnp.asarray(rng.integers(0, 3, n_rows(data)).astype(float))


def compare_rows(name):
    entry, data, weights = rows_of(name)
    model, start = entry.started(data, weights)
    options = dict(key=jax.random.key(1), params=start, weights=weights, max_iter=5)
    one = vb.fit(model, data, devices=jax.devices()[:1], **options)
    PASSES.clear()
    two = vb.fit(model, data, **options)
    found = dict(
        trace=float(np.nanmax(np.abs(one.trace - two.trace)) / max(1, abs(float(one.objective)))),
        gathers=sum(len(re.findall("all-gather", PASSES[name])) for name in ("_begin", "_go_on")),
        sums=len(re.findall(r"all-reduce\(", PASSES["_go_on"])),
        blocks=len(model.blocks),
    )
    if name == "VB full":
        second = vb.fit(model, data, devices=jax.devices()[1:], **options)
        found["second"] = float(np.nanmax(np.abs(one.trace - second.trace)))
    # where the fit starts by itself: all that follows the data is the same, draws are not
    del options["params"]
    one, two = (vb.fit(entry.model, data, devices=jax.devices()[:n], **options) for n in (1, 2))
    leaves = zip(jax.tree.leaves(one.model), jax.tree.leaves(two.model), strict=True)
    found["resolved"] = max([0.0, *(float(np.max(np.abs(a - b))) for a, b in leaves)])
    found["own"] = [float(one.objective), float(two.objective)]
    return found


def compare_sources(name):
    entry, data, _ = rows_of(name)
    source = vb.sources.Memmap(jax.tree.map(np.asarray, data), block_rows=15)
    options = dict(key=jax.random.key(1), n_restarts=2, max_iter=5)
    one = vb.fit(entry.model, source, devices=jax.devices()[:1], **options)
    PASSES.clear()
    two = vb.fit(entry.model, source, **options)
    second = vb.fit(entry.model, source, devices=jax.devices()[1:], **options)
    runs = lambda fit: np.asarray(fit.runs.trace)
    return dict(
        traces=[float(np.nanmax(np.abs(runs(one) - runs(fit)))) for fit in (two, second)],
        between=len(re.findall("all-gather|all-reduce", PASSES["_add"])),
    )


def compare_restarts(name):
    entry, data, _ = rows_of(name)
    options = dict(key=jax.random.key(1), n_restarts=6, lanes=2, max_iter=20)
    one, two = (vb.fit(entry.model, data, devices=jax.devices()[:n], **options) for n in (1, 2))
    runs = lambda fit: np.asarray(fit.runs.objective)
    return dict(
        runs=float(np.max(np.abs(runs(one) - runs(two)))),
        n_iter=np.asarray(one.runs.n_iter).tolist() == np.asarray(two.runs.n_iter).tolist(),
        trace=float(np.nanmax(np.abs(one.trace - two.trace))),
        together=float(abs(two.objective - runs(two).max())),
        devices=len(two.objective.devices()),
    )


def compare_chains():
    entry, data, _ = rows_of("VB full")
    one, two = (
        vb.gibbs(entry.model, data, key=jax.random.key(2), n_draws=5, n_warmup=2, devices=jax.devices()[:n])
        for n in (1, 2)
    )
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return dict(draws=max(float(np.abs(a - b).max()) for a, b in pairs))


if __name__ == "__main__":
    keep_texts()
    division._MANY = 1  # small data are divided too
    for name in RESTARTS:
        print(json.dumps(dict(name=name, kind="restarts", **compare_restarts(name))), flush=True)
    print(json.dumps(dict(name="VB full", kind="chains", **compare_chains())), flush=True)
    for name in SOURCES:
        print(json.dumps(dict(name=name, kind="sources", **compare_sources(name))), flush=True)
    for name in NAMES:
        print(json.dumps(dict(name=name, kind="rows", **compare_rows(name))), flush=True)
