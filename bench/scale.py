"""How a fit grows: more rows, more devices, more processes, rows on disk, checkpoints.

JAX makes a device of every core. Columns are of one process, in turns, but for those that compare processes:
`fit(devices=...)` takes the first device, or all. A sweep is the slope of two fits of different length.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet

import vbjax as vb
from bench.measure import interleaved, per_iteration, run_parts, seconds, sweeps, table
from vbjax.inference import checkpoints as kept_by_fits
from vbjax.inference.resolution import resolved

SHORT, LONG, REPEATS = 4, 24, 5
ON_DISK = 4_000_000, 8, 16  # rows, columns, components
IN_PROCESSES = 409_600  # rows of all processes together
N_ROWS = 10_000, 100_000, 1_000_000, 10_000_000
KEPT = (102_400, 16, 16), 32, 4  # rows, columns, components; restarts; sweeps
EVERY = 0.5  # seconds between checkpoints


def _clouds(n: int, d: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(n + d + k)
    return (2 * rng.normal(size=(k, d)))[rng.integers(0, k, n)] + rng.normal(size=(n, d))


def _kinds() -> dict[str, tuple[Any, Callable[[], Any]]]:
    """Models and their data, of which one device's sweep takes 5 ms or more."""
    rng = np.random.default_rng(0)
    table = lambda n, d, k: lambda: jnp.asarray(_clouds(n, d, k), jnp.float32)
    counts = lambda n, d: lambda: jnp.asarray(rng.poisson(4.0, (n, d)), jnp.float32)

    def labelled(n: int, d: int) -> Any:
        x = rng.normal(size=(n, d))
        return jnp.asarray(x, jnp.float32), jnp.asarray(
            x @ rng.normal(size=d) + rng.normal(size=n) > 0, jnp.float32
        )

    def sequences(n: int, t: int, d: int, k: int) -> Callable[[], Any]:
        return lambda: vb.Sequences.of(list(_clouds(n * t, d, k).reshape(n, t, d).astype(np.float32)))

    words = lambda: vb.Documents.of(rng.poisson(0.05, (2000, 2000)))
    return {
        "GaussianMixture(8), 409600 x 2": (vb.GaussianMixture(8), table(409_600, 2, 8)),
        "GaussianMixture(16), 102400 x 16": (vb.GaussianMixture(16), table(102_400, 16, 16)),
        "GaussianMixture(32), 102400 x 32": (vb.GaussianMixture(32), table(102_400, 32, 32)),
        "BayesianGaussianMixture(16), 102400 x 16": (vb.BayesianGaussianMixture(16), table(102_400, 16, 16)),
        "GaussianMixture(16, 'diag'), 204800 x 16": (vb.GaussianMixture(16, "diag"), table(204_800, 16, 16)),
        "KMeans(16), 204800 x 16": (vb.KMeans(16), table(204_800, 16, 16)),
        "BayesianPoissonMixture(8), 204800 x 8": (vb.BayesianPoissonMixture(8), counts(204_800, 8)),
        "PPCA(8), 204800 x 32": (vb.PPCA(8), table(204_800, 32, 8)),
        "BayesianLogisticRegression(), 409600 x 16": (
            vb.BayesianLogisticRegression(),
            lambda: labelled(409_600, 16),
        ),
        "GaussianHMM(16), 64 x 1000 x 8": (vb.GaussianHMM(16), sequences(64, 1000, 8, 16)),
        "PoissonHMM(4), 256 x 500 x 1": (
            vb.PoissonHMM(4),
            lambda: vb.Sequences.of(list(rng.poisson(4.0, (256, 500, 1)).astype(np.float32))),
        ),
        "LinearGaussianStateSpace(4), 64 x 200 x 8": (
            vb.LinearGaussianStateSpace(4),
            sequences(64, 200, 8, 4),
        ),
        "LatentDirichletAllocation(20), 2000 documents": (vb.LatentDirichletAllocation(20), words),
    }


def devices(report: list[str]) -> None:
    """A sweep on one device and on all."""
    report.append(f"## Scale: a sweep on one device and on {len(jax.devices())}, float32 (target: 1.6x)")
    rows = []
    for name, (model, make) in _kinds().items():
        data, key = make(), jax.random.key(0)

        def fit(n: int, some: Any, model: Any = model, data: Any = data, key: Any = key) -> Callable[[], Any]:
            run = lambda: vb.fit(model, data, key=key, tol=0.0, max_iter=n, devices=some)
            run()
            return run

        runs = [fit(n, some) for some in (jax.devices()[:1], jax.devices()) for n in (SHORT, LONG)]
        short, long, many_short, many_long = interleaved(*runs, repeats=REPEATS)
        done = int(runs[1]().n_iter) - SHORT, int(runs[3]().n_iter) - SHORT
        one, many = per_iteration(long, short, done[0]), per_iteration(many_long, many_short, done[1])
        rows.append([name, f"{1e3 * one:.2f}", f"{1e3 * many:.2f}", f"{one / many:.2f}x"])
        print(rows[-1], flush=True)
    ratios = sorted(float(row[-1][:-1]) for row in rows)
    report.append(table(["model", "one ms", "all ms", "ratio"], rows))
    report.append(f"Median {ratios[len(ratios) // 2]:.2f}x, least {ratios[0]:.2f}x.")


def restarts(report: list[str]) -> None:
    """Whole fits of small data from many starts."""
    report.append(f"## Scale: 64 restarts on one device and on {len(jax.devices())} (target: 1.7x)")
    x, rows = vb.datasets.old_faithful(), []
    for name, model in {
        "GaussianMixture(4)": vb.GaussianMixture(4),
        "BayesianGaussianMixture(6)": vb.BayesianGaussianMixture(6),
    }.items():
        fit = lambda some, model=model: vb.fit(model, x, key=jax.random.key(0), n_restarts=64, devices=some)
        runs = [lambda some=some, fit=fit: fit(some) for some in (jax.devices()[:1], jax.devices())]
        assert runs[0]().objective == runs[1]().objective
        one, many = interleaved(*runs, repeats=2 * REPEATS)
        rows.append([name, f"{1e3 * one:.1f}", f"{1e3 * many:.1f}", f"{one / many:.2f}x"])
    report.append(table(["model, Old Faithful", "one ms", "all ms", "ratio"], rows))


def rows(report: list[str]) -> None:
    """Nanoseconds of a sweep for each row, from few rows to many."""
    lines, models = (
        [],
        dict(
            GaussianMixture=vb.GaussianMixture(8),
            KMeans=vb.KMeans(8),
            PoissonMixture=vb.PoissonMixture(8),
            FactorAnalysis=vb.FactorAnalysis(2),
        ),
    )
    for name, model in models.items():
        each = []
        for n in N_ROWS:
            x = np.round(np.abs(2 * _clouds(n, 4, 8))).astype(np.float32)
            known, data, _ = resolved(model, jnp.asarray(x), None)
            params = jax.jit(lambda model, x: model.init(jax.random.key(0), x))(known, data)
            turns = max(2, 2_000_000 // n)
            run = sweeps(known, data, params, turns, jax.devices()[:1])
            seconds(run)
            (taken,) = interleaved(run, repeats=REPEATS)
            each.append(1e9 * taken / (turns * n))
        lines.append([name, *(f"{ns:.1f}" for ns in each), f"{max(each) / min(each):.2f}x"])
        print(*lines[-1], sep="  ", flush=True)
    report += [
        "## Scale: ns a row and sweep, four columns, on one device, float32 (target: constant)",
        table(["model", *(f"{n:.0e} rows" for n in N_ROWS), "most to least"], lines),
    ]


def disk(report: list[str]) -> None:
    """A pass over rows in memory and on disk."""
    n, d, k = ON_DISK
    x = _clouds(n, d, k).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/x.npy", x)
        columns = pyarrow.table({f"x{i}": x[:, i] for i in range(d)})
        pyarrow.parquet.write_table(columns, f"{folder}/x.parquet", row_group_size=2**16)
        kinds = {
            "memory": jnp.asarray(x),
            "memory map": vb.sources.Memmap(f"{folder}/x.npy"),
            "Parquet": vb.sources.Parquet(f"{folder}/x.parquet"),
        }

        def fit(data: Any, n_sweeps: int) -> vb.Fit:
            key, one = jax.random.key(0), jax.devices()[:1]
            return vb.fit(vb.GaussianMixture(k), data, key=key, tol=0.0, max_iter=n_sweeps, devices=one)

        few, many = 1, 5
        runs = [lambda n=n, data=data: fit(data, n) for data in kinds.values() for n in (few, many)]
        for run in runs:
            run()
        taken = interleaved(*runs, repeats=3)
    pairs = zip(taken[::2], taken[1::2], strict=True)
    passes = [per_iteration(long, short, many - few) for short, long in pairs]
    lines = [[kind, f"{1e3 * s:.0f}", f"{s / passes[0]:.2f}x"] for kind, s in zip(kinds, passes, strict=True)]
    report += [
        f"## Scale: a pass over rows in memory and on disk, GaussianMixture({k}), {n} x {d} (target: 1.2x)",
        "On one device; the files are in the system's cache.",
        table(["rows in", "ms a pass", "to memory"], lines),
    ]


def processes(report: list[str]) -> None:
    """One process and two, which share the rows."""
    ways = {"one process, one device": (1, 1), "one process, two": (1, 2), "two processes, one each": (2, 1)}
    found = [_in_processes(*way) for way in ways.values()]
    lines = []
    for name in found[0]:
        alone, *others = (each[name] for each in found)
        lines.append([name, *(f"{1e3 * s:.2f}" for s in (alone, *others)), f"{alone / others[-1]:.2f}x"])
    title = f"## Scale: ms a sweep of {IN_PROCESSES} rows in one process and in two, float32"
    report += [title, table(["model", *ways, "one to two processes"], lines)]


def _in_processes(count: int, n_devices: int) -> dict[str, float]:
    """Seconds of a sweep of every model of bench/processes.py, in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # collectives of programs that overlap would meet in another order in each process
    environment = os.environ | dict(JAX_PLATFORMS="cpu", JAX_CPU_ENABLE_ASYNC_DISPATCH="0")
    command = [sys.executable, "-m", "bench.processes"]
    started = [
        subprocess.Popen(
            [*command, *map(str, (rank, count, n_devices, port, IN_PROCESSES))],
            stdout=subprocess.PIPE, text=True, env=environment,
        )
        for rank in range(count)
    ]  # fmt: skip
    printed = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise RuntimeError(f"bench.processes failed in {count} processes")
    return json.loads(next(line for line in printed[0].splitlines() if line.startswith("{")))


def checkpoints(report: list[str]) -> None:
    """A fit with checkpoints and without: its start and end, and many more between than users have."""
    usual = kept_by_fits._EVERY
    report.append(f"## Scale: checkpoints every {usual:.0f} s (target: 3 %)")
    (n, d, k), n_restarts, n_sweeps = KEPT
    x = jnp.asarray(_clouds(n, d, k), jnp.float32)
    model = vb.GaussianMixture(k)
    how: dict[str, Any] = dict(n_restarts=n_restarts, max_iter=n_sweeps, tol=0.0)
    with tempfile.TemporaryDirectory() as folder:
        number = iter(range(100))

        def fit(path: str | None) -> Any:
            return vb.fit(model, x, key=jax.random.key(0), checkpoint=path, **how)

        kept_by_fits._EVERY = EVERY
        try:
            fit(f"{folder}/compiled")
            calls = lambda: fit(None), lambda: fit(f"{folder}/{next(number)}")
            without, kept = interleaved(*calls, repeats=2)
        finally:
            kept_by_fits._EVERY = usual
        (last,) = pathlib.Path(f"{folder}/1").glob("[0-9]*")  # they are counted from 0
    made = int(last.name) + 1
    each = (kept - without) / made
    found = f"{without:.1f} s without, {kept:.1f} s with {made}, start and end among them"
    report += [
        f"GaussianMixture({k}), {n} x {d}, {n_restarts} restarts of {n_sweeps} sweeps: {found}.",
        f"{1e3 * each:.0f} ms for each: every {usual:.0f} s they take {100 * each / usual:.2g} %.",
    ]


def run(only: list[str] | None) -> None:
    """Run the benchmark."""
    parts = dict(
        devices=devices, restarts=restarts, rows=rows, disk=disk, processes=processes, checkpoints=checkpoints
    )
    run_parts("scale", parts, ["pyarrow"], only)
