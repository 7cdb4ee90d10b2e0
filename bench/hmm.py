"""Hidden Markov models against hmmlearn and dynamax: iterations, fits, restarts, long chains.

Peers get the same sequences, start and stopping. hmmlearn computes in float64 alone; its iteration is the
difference of two fits. dynamax and we are given each dtype; dynamax pads nothing here, all sequences being of
one length. Ours are measured on one device and on all, which are the cores; the ratios are of all.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import hmmlearn.hmm
import jax
import jax.numpy as jnp
import numpy as np
from dynamax.hidden_markov_model import DiagonalGaussianHMM, GaussianHMM

import vbjax as vb
from bench.measure import DTYPES, columns, interleaved, per_iteration, run_parts, seconds, sweeps, table
from vbjax.inference.resolution import resolved

SHAPES = {(1, 10_000, 2, 4): 15, (16, 2000, 4, 8): 25, (64, 1000, 8, 16): 40}  # and hmmlearn's ratio to reach
DYNAMAX = {"full": GaussianHMM, "diag": DiagonalGaussianHMM}
FEW, MANY, SWEEPS = 1, 4, 20


def simulated(n: int, t: int, d: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences (n, t, d) of a sticky chain with overlapping normal outputs, and means to start from."""
    rng = np.random.default_rng(n + t + d + k)
    transitions = 0.9 * np.eye(k) + 0.1 / k
    centers = 2 * rng.normal(size=(k, d))
    states = np.zeros((n, t), int)
    for step in range(1, t):
        walk = transitions[states[:, step - 1]].cumsum(1)
        states[:, step] = (rng.random((n, 1)) > walk).sum(1).clip(max=k - 1)
    x = centers[states] + rng.normal(size=(n, t, d))
    return x, centers + 0.3 * rng.normal(size=(k, d))


def hmmlearn_fit(x: np.ndarray, means: np.ndarray, covariance_type: str, n_iter: int, tol: float) -> Any:
    """A fit of hmmlearn's, from even chains and unit covariances."""
    n, t, d = x.shape
    k = len(means)
    model = hmmlearn.hmm.GaussianHMM(
        k, covariance_type, n_iter=n_iter, tol=tol, init_params="", min_covar=0.0, covars_prior=0.0
    )
    model.startprob_, model.transmat_ = np.full(k, 1 / k), np.full((k, k), 1 / k)
    model.means_ = means
    model.covars_ = (
        np.ones((k, d)) if covariance_type == "diag" else np.broadcast_to(np.eye(d), (k, d, d)).copy()
    )
    return model.fit(x.reshape(-1, d), [t] * n)


def ours_at(model: Any, data: Any, means: np.ndarray, dtype: Any) -> tuple[Any, Any, Any]:
    """The resolved model, the data as it takes them, and the parameters that the peers start from."""
    model, data, _ = resolved(model, data, None)
    params = jax.jit(model.init)(jax.random.key(0), data)
    if model.points:
        k, d = means.shape
        kind = model.component.covariance_type
        ones = jnp.ones((k, d), dtype) if kind == "diag" else jnp.stack([jnp.eye(d, dtype=dtype)] * k)
        at = vb.GaussianMixture(k, kind).params_at(np.full(k, 1 / k, dtype), means.astype(dtype), ones)
        params |= dict(components=at.components)
    return model, data, params


def dynamax_e_step(x: Any, means: np.ndarray, kind: str) -> Callable[[], Any]:
    """The jitted E-step of dynamax over all sequences."""
    k, d = means.shape
    model = DYNAMAX[kind](k, d)
    given = dict(
        emission_means=jnp.asarray(means, x.dtype), transition_matrix=jnp.full((k, k), 1 / k, x.dtype)
    )
    given |= dict(initial_probs=jnp.full(k, 1 / k, x.dtype))
    if kind == "full":
        given |= dict(emission_covariances=jnp.broadcast_to(jnp.eye(d, dtype=x.dtype), (k, d, d)))
    else:
        given |= dict(emission_scale_diags=jnp.ones((k, d), x.dtype))
    params, _ = model.initialize(jax.random.key(0), method="prior", **given)
    step = jax.jit(jax.vmap(model.e_step, in_axes=(None, 0)))
    return lambda: step(params, x)


def iterations(report: list[str]) -> None:
    """Milliseconds of an EM iteration, of dynamax's E-step, and of a variational iteration."""
    rows = []
    for name, dtype in DTYPES.items():
        with jax.enable_x64(name == "float64"):
            for (n, t, d, k), target in SHAPES.items():
                for kind in ("diag", "full"):
                    x, means = simulated(n, t, d, k)
                    data = list(x.astype(dtype))
                    em = ours_at(vb.GaussianHMM(k, kind), data, means, dtype)
                    bayes = ours_at(vb.BayesianGaussianHMM(k, kind), data, means, dtype)
                    ours = [sweeps(*em, SWEEPS, some) for some in (jax.devices()[:1], jax.devices())]
                    variational = sweeps(*bayes, SWEEPS, jax.devices()[:1])
                    e_step = dynamax_e_step(jnp.asarray(x, dtype), means, kind)
                    peers = [functools.partial(hmmlearn_fit, x, means, kind, i, -np.inf) for i in (FEW, MANY)]
                    calls: list[Callable[[], Any]] = [*ours, variational, e_step, peers[0]]
                    compiled, *_ = map(seconds, calls)
                    short, long, theirs, *taken = interleaved(*peers, e_step, *ours, variational, repeats=3)
                    peer = per_iteration(long, short, MANY - FEW)
                    one, own, vbs = (t / SWEEPS for t in taken)
                    rows.append(
                        [
                            name, f"{n}, {t}, {d}, {k}", kind, f"{peer * 1e3:.1f}", f"{theirs * 1e3:.2f}",
                            f"{one * 1e3:.2f}", f"{own * 1e3:.2f}", f"{peer / own:.1f}x", f"{target}x",
                            f"{theirs / own:.1f}x", f"{vbs / one:.2f}", f"{compiled - SWEEPS * one:.1f}",
                        ]
                    )  # fmt: skip
                    print(*rows[-1], sep="  ", flush=True)
    header = [
        "dtype",
        "n, T, d, K",
        "covariance",
        "hmmlearn ms",
        "dynamax E-step ms",
        *columns(),
        "to hmmlearn",
    ]
    header += ["target", "to dynamax's E-step (3x)", "VB / EM (1.3)", "compile s"]
    report += ["## EM for a hidden Markov model with normal outputs, one iteration", table(header, rows)]


def fits(report: list[str]) -> None:
    """A whole fit against dynamax's `fit_em`, which compiles at every call; and restarts."""
    rows = []
    n, t, d, k = 16, 2000, 4, 8
    x, means = simulated(n, t, d, k)
    data, dtype = list(x.astype(np.float32)), np.float32
    model, read, params = ours_at(vb.GaussianHMM(k), data, means, dtype)

    def ours() -> Any:
        return vb.fit(model, read, key=jax.random.key(0), params=params, max_iter=50, tol=0.0)

    def theirs() -> Any:
        peer = GaussianHMM(k, d)
        covariances = jnp.broadcast_to(jnp.eye(d), (k, d, d))
        given = dict(emission_means=jnp.asarray(means, dtype), emission_covariances=covariances)
        start = peer.initialize(jax.random.key(0), method="prior", **given)
        return peer.fit_em(*start, jnp.asarray(x, dtype), num_iters=50, verbose=False)[1]

    def hmmlearns() -> Any:
        return hmmlearn_fit(x, means, "full", 50, -np.inf).monitor_.history[-1]

    first = [seconds(run) for run in (ours, theirs, hmmlearns)]
    again = interleaved(ours, theirs, hmmlearns, repeats=2)
    names = f"vbjax, {ours().n_iter} iterations", "dynamax `fit_em`, 50", "hmmlearn, 50"
    for name, one, more in zip(names, first, again, strict=True):
        rows.append([name, f"{one:.2f}", f"{more:.2f}", f"{more / again[0]:.1f}x"])
        print(*rows[-1], sep="  ", flush=True)
    header = ["16 x 2000 x 4, K = 8, full, float32", "first s", "again s", "to vbjax"]
    report += [
        "## A fit until the gain is no more than rounding, at most 50 iterations (target: 10x dynamax's)",
        table(header, rows),
    ]

    counts = vb.datasets.earthquakes()
    many = lambda seed: vb.fit(vb.PoissonHMM(3), counts, key=jax.random.key(seed), n_restarts=64)

    def hmmlearn_restarts() -> list[float]:
        whole = counts.astype(int)
        peers = (hmmlearn.hmm.PoissonHMM(3, n_iter=1000, tol=1e-4, random_state=i) for i in range(64))
        return [peer.fit(whole).score(whole) for peer in peers]

    compiled = seconds(lambda: many(0).objective)
    own, peer = interleaved(lambda: many(1).objective, hmmlearn_restarts, repeats=2)
    line = [f"{own * 1e3:.0f}", f"{peer * 1e3:.0f}", f"{peer / own:.0f}x", f"{compiled:.1f}"]
    print(*line, sep="  ", flush=True)
    header = ["vbjax ms", "hmmlearn ms", "ratio", "first s"]
    title = "## 64 restarts, 107 counts, three Poisson states (tolerance: hmmlearn 1e-4, vbjax 1e-6 a step)"
    report += [title, table(header, [line])]


def long(report: list[str]) -> None:
    """One chain of a million steps over eight states; and messages step by step against parallel in time."""
    n, t, d, k = 1, 1_000_000, 2, 8
    x, means = simulated(n, t, d, k)
    rows = []
    for name, dtype in DTYPES.items():
        with jax.enable_x64(name == "float64"):
            model, data, params = ours_at(vb.GaussianHMM(k, "diag"), list(x.astype(dtype)), means, dtype)
            ascent = vb.core.CoordinateAscent(model, jnp.zeros((), dtype))
            start = ascent.start(params, data)
            step = jax.jit(lambda ascent, state, data: ascent.step(state, data, None)[0])
            begun = time.perf_counter()
            program: Any = step.lower(ascent, start, data).compile()
            compiled = time.perf_counter() - begun
            (taken,) = interleaved(functools.partial(program, ascent, start, data), repeats=3)
            memory = program.memory_analysis().temp_size_in_bytes
            table_bytes = t * k * np.dtype(dtype).itemsize
            rows.append(
                [
                    name,
                    f"{taken:.2f}",
                    f"{memory / 2**20:.0f}",
                    f"{memory / table_bytes:.1f}",
                    f"{compiled:.1f}",
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    header = ["dtype", "s an iteration", "temporaries MiB", "in tables of T x K", "compile s"]
    report += ["## One chain of 1,000,000 steps, d = 2, K = 8, diag", table(header, rows)]

    rows = []
    for n, t, _, k in SHAPES:
        weights = jax.random.normal(jax.random.key(0), (n, t, k))
        chain = jnp.log(jnp.full(k, 1 / k)), jnp.log(jnp.full((k, k), 1 / k))
        ways = []
        for parallel in (False, True):
            smoother = functools.partial(vb.chains.smoother, *chain, parallel=parallel)
            ways.append(functools.partial(jax.jit(jax.vmap(smoother)), weights))
        for way in ways:
            way()
        in_turn, at_once = interleaved(*ways, repeats=3)
        rows.append(
            [f"{n}, {t}, {k}", f"{in_turn * 1e3:.2f}", f"{at_once * 1e3:.2f}", f"{in_turn / at_once:.2f}x"]
        )
        print(*rows[-1], sep="  ", flush=True)
    header = ["n, T, K", "step by step ms", "parallel in time ms", "gain"]
    report += ["## Forward-backward alone, float32", table(header, rows)]


PARTS = {"iterations": iterations, "fits": fits, "long": long}


def run(only: list[str] | None) -> None:
    """Run parts of the benchmark."""
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    run_parts("hmm", PARTS, ["hmmlearn", "dynamax"], only)
