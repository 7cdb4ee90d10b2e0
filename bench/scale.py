"""One device and all of them, of a processor's cores: sweeps of all kinds of models, restarts, checkpoints.

JAX makes a device of every core. Both columns are of one process, in turns: `fit(devices=...)` takes the
first device, or all. A sweep is the slope of two fits of different length.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from bench.measure import interleaved, per_iteration, run_parts, table

SHORT, LONG, REPEATS = 4, 24, 5


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


def checkpoints(report: list[str]) -> None:
    """A fit of about a minute with checkpoints and without."""
    report.append("## Scale: checkpoints every 30 s (target: 3 %)")
    x = jnp.asarray(_clouds(102_400, 16, 16), jnp.float32)
    with tempfile.TemporaryDirectory() as folder:
        number = iter(range(100))

        def fit(kept: bool) -> Any:
            path = f"{folder}/{next(number)}" if kept else None
            return vb.fit(
                vb.GaussianMixture(16), x, key=jax.random.key(0), tol=0.0, max_iter=2000, checkpoint=path
            )

        fit(True)
        without, kept = interleaved(lambda: fit(False), lambda: fit(True), repeats=2)
    ratio = f"{without:.1f} s without, {kept:.1f} s with: {kept / without:.3f}x."
    report.append(f"GaussianMixture(16), 102400 x 16: {ratio}")


def run(only: list[str] | None) -> None:
    """Run the benchmark."""
    vb.configure(cpu_devices="all")
    run_parts("scale", dict(devices=devices, restarts=restarts, checkpoints=checkpoints), [], only)
