"""Fits on one device and on two, in a process that has two: `python -m tests.support.two_devices [more]`.

It prints a line of JSON for every model: what of the fits differs. JAX must be asked for two devices before
the first computation (`DEVICES`), so that this is a process of its own, one for all the models.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from tests.support.compilations import PASSES, keep_texts
from tests.support.registry import MODELS
from vbjax.core.rows import n_rows
from vbjax.inference import division
from vbjax.models.topics import topic_model

DEVICES = dict(JAX_NUM_CPU_DEVICES="2", JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu")  # its environment

# one of each kind of rows and of local factors; then of each kind of start
NAMES = ("VB full", "own, locals that interact", "HMM of known states", "topics, known concentrations")
MORE = (
    "mean and precision",
    "k-means",
    "EM full, holes",
    "VB of a product",
    "random effects",
    "Bayesian PCA",
    "own, states in time",
    "VB state space",
)
RESTARTS = ("VB full", "HMM of counts", "black box")
SOURCES = ("VB full", "own, two blocks")
STEPS = ("VB full", "HMM of known states", "topics, known concentrations")


def rows_of(name):
    """Data of a model, an odd number of rows, and weights from 0 to 2."""
    entry = MODELS[name]
    data, _ = entry.data("float64")
    rng = np.random.default_rng(7)
    return entry, data, jnp.asarray(rng.integers(0, 3, n_rows(data)).astype(float))


def sums_over_devices(name):
    """Return how many sums over devices a program makes."""
    return len(re.findall(r" all-reduce\(| all-reduce-start\(", PASSES[name]))


def furthest(one, two):
    """Return the largest difference of two trees, relative to the largest number of an array."""
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    difference = lambda a, b: np.nanmax(np.abs(a - b), initial=0) / max(1, np.nanmax(np.abs(a), initial=0))
    return max(float(difference(np.asarray(a, float), np.asarray(b, float))) for a, b in pairs)


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
        sums=sums_over_devices("_go_on"),
        blocks=len(one.model.blocks),
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


def compare_steps(name):
    """Minibatches that the devices do not divide, of rows that they do not divide; then a stream of them."""
    entry, data, _ = rows_of(name)
    if name == "VB full":
        data = data[:-1]
    model, start = entry.started(data, None)
    options = dict(key=jax.random.key(1), params=start)
    batches = lambda: iter([data[:15], data[15:30], data[30:]]) if name == "VB full" else iter([data, data])

    def both(devices):
        arrays = vb.fit_stochastic(model, data, batch_size=3, n_epochs=2, devices=devices, **options)
        streamed = vb.fit_stochastic(model, batches(), total_rows=60, devices=devices, **options)
        return arrays, streamed

    one = both(jax.devices()[:1])
    PASSES.clear()
    two = both(None)
    return dict(
        fits=furthest(one, two),
        devices=len(two[0].objective.devices()),
        gathers=sum(len(re.findall("all-gather", text)) for text in PASSES.values()),
        sums=[sums_over_devices(name) for name in ("_advance", "_step")],
    )


def compare_derivatives():
    """The bound and its gradient, the response of the optimum to hyperparameters, and covariances."""
    entry, data, weights = rows_of("VB full")
    data, weights = data[:-1], weights[:-1]
    model, start = entry.started(data, weights)
    fit = vb.fit(model, data, key=jax.random.key(1), params=start, weights=weights, tol=0.0)

    def all_of(devices):
        options = dict(data=data, weights=weights, devices=devices)
        bound = lambda model: vb.elbo(model, fit.params, **options)
        mean = lambda model: vb.optimum(model, fit.params, **options).components.mean[0]
        response = vb.linear_response(fit.model, fit.params, **options)
        return bound(model), jax.grad(bound)(fit.model), jax.jacobian(mean)(fit.model), response

    one, two = all_of(jax.devices()[:1]), all_of(None)
    names = ("bound", "gradient", "optimum", "response")
    found = {name: furthest(a, b) for name, a, b in zip(names, one, two, strict=True)}
    return found | dict(sums=sums_over_devices("objective"))


if __name__ == "__main__":
    keep_texts()
    division._MANY = 1  # small data are divided too
    topic_model._SETTLED = -1.0  # documents turn as often as they may, whatever their company
    for name in RESTARTS:
        print(json.dumps(dict(name=name, kind="restarts", **compare_restarts(name))), flush=True)
    print(json.dumps(dict(name="VB full", kind="chains", **compare_chains())), flush=True)
    for name in SOURCES:
        print(json.dumps(dict(name=name, kind="sources", **compare_sources(name))), flush=True)
    print(json.dumps(dict(name="VB full", kind="derivatives", **compare_derivatives())), flush=True)
    for name in STEPS:
        print(json.dumps(dict(name=name, kind="steps", **compare_steps(name))), flush=True)
    for name in (*NAMES, *(MORE if "more" in sys.argv else ())):
        print(json.dumps(dict(name=name, kind="rows", **compare_rows(name))), flush=True)
