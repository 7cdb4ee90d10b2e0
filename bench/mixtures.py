"""Mixtures and k-means against scikit-learn; restarts, compilation and memory.

Peers get the same data, start, dtype, cores and stopping rule. An iteration of a peer is the difference of
two fits that differ by a known number of iterations. Ours are measured on one device and on all, which are
the cores; the ratios are of all. Targets stand in the tables.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import faiss
import jax
import jax.numpy as jnp
import numpy as np
import sklearn.cluster
import sklearn.mixture

import vbjax as vb
from bench.measure import DTYPES, columns, interleaved, per_iteration, run_parts, seconds, sweeps, table

EM_SHAPES = {
    (102400, 2, 8): (25, 10),
    (102400, 16, 16): (12, 8),
    (102400, 32, 32): (8, 4),
    (20480, 64, 16): (6, 3),
}
KMEANS_SHAPES = {(204800, 2, 8): 1, (204800, 16, 16): 0.6, (102400, 64, 64): 1, (102400, 128, 256): 1}


def blobs(n: int, d: int, k: int, dtype: Any, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping normal clusters, and k of their rows to start from."""
    rng = np.random.default_rng(n + d + k)
    centers = spread * rng.normal(size=(k, d))
    x = centers[rng.integers(k, size=n)] + rng.normal(size=(n, d))
    return x.astype(dtype), x[rng.choice(n, k, replace=False)].astype(dtype)


def em(report: list[str]) -> None:
    """One EM iteration, full covariance, against scikit-learn; the variational mixture beside it."""
    rows = []
    for name, dtype in DTYPES.items():
        with jax.enable_x64(name == "float64"):
            for (n, d, k), targets in EM_SHAPES.items():
                x, means = blobs(n, d, k, dtype)
                flat, eye = (
                    np.full(k, 1 / k, dtype),
                    np.broadcast_to(np.eye(d, dtype=dtype), (k, d, d)).copy(),
                )
                few, many = 2, 7

                def peer(n_iter: int, x=x, means=means, flat=flat, eye=eye, k=k) -> Any:
                    model = sklearn.mixture.GaussianMixture(
                        k, weights_init=flat, means_init=means, precisions_init=eye, tol=0.0, max_iter=n_iter
                    )
                    return model.fit(x)

                data = jnp.asarray(x)
                model = vb.GaussianMixture(k).resolve(data)
                params = model.params_at(flat, means, eye)
                bayes = vb.BayesianGaussianMixture(k).resolve(data)
                bayes_params = bayes.init(jax.random.key(0), data)
                ours = [sweeps(model, data, params, 5, some) for some in (jax.devices()[:1], jax.devices())]
                variational = sweeps(bayes, data, bayes_params, 5, jax.devices()[:1])
                compile_seconds, *_ = map(seconds, (*ours, variational))
                peer(1)
                short, long, *own = interleaved(
                    functools.partial(peer, few), functools.partial(peer, many), *ours, variational, repeats=3
                )
                theirs, (one, mine, vbs) = per_iteration(long, short, many - few), (t / 5 for t in own)
                target = targets[name == "float64"]
                rows.append(
                    [
                        name, f"{n}, {d}, {k}", f"{theirs * 1e3:.1f}", f"{one * 1e3:.2f}",
                        f"{mine * 1e3:.2f}", f"{theirs / mine:.1f}x", f"{target}x", f"{vbs / one:.2f}",
                        f"{compile_seconds - 5 * one:.2f}",
                    ]
                )  # fmt: skip
                print(*rows[-1], sep="  ", flush=True)
    header = ["dtype", "n, d, k", "scikit-learn ms", *columns(), "ratio", "target", "VB / EM (target 1.3)"]
    header += ["compile s"]
    report += ["## EM for a full-covariance mixture, one iteration", table(header, rows)]


def kmeans(report: list[str]) -> None:
    """One Lloyd iteration against scikit-learn, and FAISS, which knows float32 alone."""
    rows = []
    for name, dtype in DTYPES.items():
        with jax.enable_x64(name == "float64"):
            for (n, d, k), target in KMEANS_SHAPES.items():
                x, centers = blobs(n, d, k, dtype, spread=0.5)
                few, many = 2, 12

                def peer(n_iter: int, x=x, centers=centers, k=k) -> Any:
                    model = sklearn.cluster.KMeans(
                        k, init=centers, n_init=1, max_iter=n_iter, tol=0.0, algorithm="lloyd"
                    )
                    return model.fit(x)

                def other(n_iter: int, x=x, centers=centers, d=d, k=k) -> Any:
                    every = dict(min_points_per_centroid=1, max_points_per_centroid=len(x))
                    return faiss.Kmeans(d, k, niter=n_iter, **every).train(x, init_centroids=centers)

                data = jnp.asarray(x)
                model = vb.KMeans(k).resolve(data)
                params = model.params_at(centers)
                ours = [sweeps(model, data, params, 10, some) for some in (jax.devices()[:1], jax.devices())]
                compile_seconds, _ = map(seconds, ours)
                if peer(many).n_iter_ != many:
                    raise RuntimeError(f"scikit-learn converged early at {n, d, k}: no iteration to time")
                peers: list[Callable[[int], Any]] = [peer] if name == "float64" else [peer, other]
                fits = [functools.partial(fit, n_iter) for fit in peers for n_iter in (few, many)]
                one, mine, *taken = interleaved(*ours, *fits, repeats=3)
                one, mine = one / 10, mine / 10
                pairs = zip(taken[::2], taken[1::2], strict=True)
                each = [per_iteration(long, short, many - few) for short, long in pairs]
                theirs = each[0]
                faiss_ms, to_faiss = "-", "-"  # FAISS has float32 alone
                if name == "float32":
                    faiss_ms, to_faiss = f"{each[1] * 1e3:.2f}", f"{each[1] / mine:.2f}x"
                rows.append(
                    [
                        name, f"{n}, {d}, {k}", f"{theirs * 1e3:.2f}", faiss_ms,
                        *(f"{s * 1e3:.2f}" for s in (one, mine)), f"{theirs / mine:.2f}x", f"{target}x",
                        to_faiss, f"{compile_seconds - 10 * one:.2f}",
                    ]
                )  # fmt: skip
                print(*rows[-1], sep="  ", flush=True)
    header = ["dtype", "n, d, k", "scikit-learn ms", "FAISS ms", *columns(), "to scikit-learn", "target"]
    header += ["to FAISS (1x)", "compile s"]
    report += ["## k-means, one Lloyd iteration", table(header, rows)]


def restarts(report: list[str]) -> None:
    """64 restarts on Old Faithful against n_init=64; refilled lanes against the vmapped loop."""
    rows = []
    for name in DTYPES:
        with jax.enable_x64(name == "float64"):
            x = vb.datasets.old_faithful()
            raw = np.asarray(x)

            def peer(raw=raw) -> Any:
                return sklearn.mixture.GaussianMixture(
                    4, n_init=64, tol=1e-3, init_params="k-means++", random_state=0
                ).fit(raw)

            def ours(x=x) -> Any:
                return vb.fit(vb.GaussianMixture(4), x, key=jax.random.key(0), n_restarts=64, tol=1e-3)

            compile_seconds = seconds(ours)
            theirs, mine = interleaved(peer, ours, repeats=5)
            ours_best, theirs_best = float(ours().objective), peer().score(raw) * len(raw)
            rows.append(
                [
                    name, f"{theirs * 1e3:.0f}", f"{mine * 1e3:.1f}", f"{theirs / mine:.0f}x", "40x",
                    f"{compile_seconds - mine:.2f}", f"{ours_best:.2f}", f"{theirs_best:.2f}",
                ]
            )  # fmt: skip
            print(*rows[-1], sep="  ", flush=True)
    header = [
        "dtype",
        "scikit-learn ms",
        "vbjax ms",
        "ratio",
        "target",
        "compile s",
        "our best",
        "their best",
    ]
    report += ["## 64 restarts of EM (k = 4) on Old Faithful, tol 1e-3 per row", table(header, rows)]

    data = jnp.asarray(blobs(2000, 4, 6, np.float32, spread=1.0)[0])

    def lanes(count: int) -> Any:
        on = jax.devices()[:1]
        return vb.fit(
            vb.GaussianMixture(6), data, key=jax.random.key(1), n_restarts=256, lanes=count, devices=on
        )

    counts = [1, 4, 16, 64, 256]
    for count in counts:
        lanes(count)
    taken = interleaved(*(functools.partial(lanes, count) for count in counts), repeats=1)
    rows = [
        [str(count) if count < 256 else "256 (the vmapped loop)", f"{s:.3f}", f"{taken[-1] / s:.1f}x"]
        for count, s in zip(counts, taken, strict=True)
    ]
    print(*rows, sep="\n", flush=True)
    report += [
        "## 256 restarts of EM, 2000 x 4, k = 6: lanes (target: 3x the vmapped loop)",
        table(["lanes", "seconds", "against the vmapped loop"], rows),
    ]


FIRST_FIT = """
import json, logging, time
import jax, jax.numpy as jnp, numpy as np
import vbjax as vb
x = vb.datasets.old_faithful()
jax.block_until_ready(x)
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None)
def fit(model, seed, tol):
    begun = time.perf_counter()
    jax.block_until_ready(vb.fit(model, x, key=jax.random.key(seed), n_restarts=64, tol=tol).objective)
    return time.perf_counter() - begun
out = {}
for name, make in dict(
    KMeans=lambda s: vb.KMeans(2),
    GaussianMixture=lambda s: vb.GaussianMixture(2, covariance_floor=1e-6 * s),
    BayesianGaussianMixture=lambda s: vb.BayesianGaussianMixture(6, weight_concentration=1e-3 * s),
).items():
    first = fit(make(1.0), 0, 1e-6)
    before = len(compiled)
    second = fit(make(2.0), 1, 1e-5)
    out[name] = [first, second, len(compiled) - before]
print(json.dumps(out))
"""

MEMORY = """
import ctypes, json, pathlib
import jax, jax.numpy as jnp
import vbjax as vb
def kilobytes(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
key = jax.random.key(1)
x = jax.block_until_ready(jax.jit(lambda k: jax.random.normal(k, (1_000_000, 16)))(key))
def fit(seed):
    key = jax.random.key(seed)
    jax.block_until_ready(vb.fit(vb.GaussianMixture(8), x, key=key, max_iter=20).objective)
fit(0)  # compiles
ctypes.CDLL(None).malloc_trim(0)
pathlib.Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = kilobytes("VmRSS")
fit(1)
print(json.dumps([x.nbytes, 1024 * (kilobytes("VmHWM") - before)]))
"""


def fresh(code: str) -> Any:
    """What a program prints as JSON, run in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compilation(report: list[str]) -> None:
    """First and second fits in a fresh process, and memory beyond the data."""
    rows = [
        [name, f"{first:.2f}", f"{1e3 * second:.0f}", str(count)]
        for name, (first, second, count) in fresh(FIRST_FIT).items()
    ]
    print(*rows, sep="\n", flush=True)
    header = [
        "model",
        "first fit s (target 3)",
        "second fit ms",
        "programs compiled by the second (target 0)",
    ]
    report += [
        "## First fit (64 restarts, Old Faithful), and a second with other key, tolerance, hyperparameter",
        table(header, rows),
    ]
    data, beyond = fresh(MEMORY)
    line = f"{data / 2**20:.0f} MiB of data; the fit takes {beyond / 2**20:.0f} MiB more: "
    line += f"{beyond / data:.2f} times the data (target 1.3)"
    print(line, flush=True)
    report += ["## Memory: EM, k = 8, 1,000,000 x 16, float32", line]


PARTS = {"em": em, "kmeans": kmeans, "restarts": restarts, "compilation": compilation}


def run(only: list[str] | None) -> None:
    """Run the parts, all or some."""
    warnings.simplefilter("ignore")  # scikit-learn warns that five iterations have not converged
    run_parts("mixtures", PARTS, ["scikit-learn", "faiss-cpu"], only)
