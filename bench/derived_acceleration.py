"""Passes over the data to the same objective: `vb.fit(accelerate=True)` where plain fits are slow.

A sweep of either kind takes as many passes as the model has blocks. The objective to reach is the lower of
the two optima less 1e-7 of it; a seed draws the data and the start. Seeds whose optima differ are counted
apart.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from bench.measure import table

N, SEEDS, LIMIT = 400, 6, 20000


class Slow(NamedTuple):
    """A model that converges slowly on rows drawn by `make`; both from the seed."""

    model: Callable[[np.random.Generator], Any]
    make: Callable[[np.random.Generator], Any]


def near(rng: np.random.Generator, d: int = 2, shift: float = 1.5) -> np.ndarray:
    """Three normal clouds that overlap."""
    return shift * rng.normal(size=(3, d))[rng.integers(3, size=N)] + rng.normal(size=(N, d))


def latent(rng: np.random.Generator, missing: bool = True) -> np.ndarray:
    """Three latents behind ten columns, a third of the entries missing."""
    sizes = 0.5 * rng.normal(size=(3, 10))
    x = rng.normal(size=(N, 3)) @ sizes + rng.normal(size=(N, 10)) * rng.uniform(0.3, 1.5, 10)
    return np.where(rng.uniform(size=x.shape) < 0.3, np.nan, x) if missing else x


def correlated(rng: np.random.Generator, d: int) -> np.ndarray:
    """Columns of correlation 0.9."""
    return np.sqrt(0.9) * rng.normal(size=(N, 1)) + np.sqrt(0.1) * rng.normal(size=(N, d))


def sparse(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = correlated(rng, 20)
    return x, x[:, :4] @ [1.0, -1.0, 0.5, 0.2] + rng.normal(size=N)


def labels(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Classes that a plane all but separates."""
    x = rng.normal(size=(N, 5))
    return x, (8 * (x @ rng.normal(size=5)) + rng.logistic(size=N) > 0).astype("int32")


def small_groups(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Few rows of each group, which say little of its effect."""
    group = np.arange(N) % (N // 4)
    return 0.5 * rng.normal(size=N // 4)[group] + rng.normal(size=N), group


def uncertain(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Estimates whose standard errors exceed what they differ by."""
    sigma = rng.uniform(0.5, 2.0, size=N)
    return 0.5 * rng.normal(size=N) + sigma * rng.normal(size=N), sigma


def lines(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = np.column_stack([np.ones(N), rng.normal(size=N)])
    slopes = np.array([[0.5, 1.0], [-0.5, -1.0]])[rng.integers(2, size=N)]
    return x, (x * slopes).sum(1) + 0.8 * rng.normal(size=N)


def classes(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    return rng.uniform(low, high, (3, 8))[rng.integers(3, size=N)]


def toeplitz(rng: np.random.Generator) -> vb.textbook.MeanFieldGaussian:
    """Neighbours of correlation 0.95."""
    covariance = 0.95 ** np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    return vb.textbook.MeanFieldGaussian(rng.normal(size=20), np.linalg.inv(covariance))


def one(model: Any, make: Callable[[np.random.Generator], Any]) -> Slow:
    return Slow(lambda rng: model, make)


CASES = {
    "Gaussian mixture, EM": one(vb.GaussianMixture(3), near),
    "Gaussian mixture, VB": one(vb.BayesianGaussianMixture(3), near),
    "unit-variance mixture": one(vb.textbook.UnitVarianceMixture(3), lambda rng: near(rng)[:, 0]),
    "Bernoulli mixture": one(
        vb.BayesianBernoulliMixture(3), lambda rng: (rng.uniform(size=(N, 8)) < classes(rng, 0.2, 0.8)) * 1.0
    ),
    "Poisson mixture": one(vb.BayesianPoissonMixture(3), lambda rng: rng.poisson(classes(rng, 1, 4)) * 1.0),
    "regression mixture": one(vb.BayesianRegressionMixture(2), lines),
    "PPCA, missing": one(vb.PPCA(3, missing=True), latent),
    "factor analysis, missing": one(vb.FactorAnalysis(3, missing=True), latent),
    "factor analysis": one(vb.FactorAnalysis(3), functools.partial(latent, missing=False)),
    "Bayesian PCA, missing": one(vb.BayesianPCA(3, missing=True), latent),
    "ARD regression": one(vb.ARDRegression(), sparse),
    "logistic regression": one(vb.BayesianLogisticRegression(), labels),
    "probit regression": one(vb.BayesianProbitRegression(), labels),
    "random effects": one(vb.textbook.RandomEffects(N // 4), small_groups),
    "hierarchical normal": one(vb.textbook.HierarchicalNormal(), uncertain),
    "mean field, correlation 0.95": Slow(toeplitz, lambda rng: None),
}


class Pair(NamedTuple):
    """Sweeps of a plain and of an accelerated fit to the same objective, milliseconds of each, agreement."""

    sweeps: list[int]
    milliseconds: list[float]
    same: bool


def pair(slow: Slow, seed: int) -> Pair:
    rng = np.random.default_rng(seed)
    model, data = slow.model(rng), jax.tree.map(jnp.asarray, slow.make(rng))
    fits = [
        functools.partial(fit, model, data, jax.random.key(seed), accelerate) for accelerate in (False, True)
    ]
    if seed == 0:  # compiles
        _ = [one() for one in fits]
    whole, traces = [], []
    for one in fits:
        begun = time.perf_counter()
        traces.append(finite(one().full_trace))
        whole.append(time.perf_counter() - begun)
    optima = [trace.max() for trace in traces]
    objective = min(optima) - 1e-7 * abs(min(optima))
    sweeps = [int(np.argmax(trace >= objective)) + 1 for trace in traces]
    to = [1e3 * s * n / len(trace) for s, n, trace in zip(whole, sweeps, traces, strict=True)]
    same = abs(optima[0] - optima[1]) <= 1e-6 * abs(min(optima))
    return Pair(sweeps, to, same)


def finite(trace: Any) -> np.ndarray:
    return np.asarray(trace)[: int(np.isfinite(trace).sum())]


@functools.partial(jax.jit, static_argnames="accelerate")
def fit(model: Any, data: Any, key: Any, accelerate: bool) -> vb.Fit:
    """A fit to where nothing moves."""
    return vb.fit(model, data, key=key, tol=1e-12, max_iter=LIMIT, accelerate=accelerate)


HEADER = [
    "model",
    "plain sweeps",
    "accelerated sweeps",
    "ratio",
    "least and most",
    "ms plain / accelerated",
    "other optimum",
]


def acceleration(report: list[str]) -> None:
    """Ratios by model, each the median over the seeds that end at the same optimum."""
    rows, ratios = [], []
    with jax.enable_x64(True):
        for name, slow in CASES.items():
            pairs = [pair(slow, seed) for seed in range(SEEDS)]
            kept = [p for p in pairs if p.same]
            if not kept:
                rows.append([name, *["-"] * (len(HEADER) - 2), f"{SEEDS} of {SEEDS}"])
                continue
            sweeps, ms = np.array([p.sweeps for p in kept]), np.array([p.milliseconds for p in kept])
            ratio = sweeps[:, 0] / sweeps[:, 1]
            ratios.append(np.median(ratio))
            rows.append(
                [
                    name, *(f"{x:.0f}" for x in np.median(sweeps, 0)), f"{ratios[-1]:.1f}x",
                    f"{ratio.min():.1f}x, {ratio.max():.1f}x", f"{np.median(ms[:, 0] / ms[:, 1]):.1f}x",
                    f"{SEEDS - len(kept)} of {SEEDS}",
                ]
            )  # fmt: skip
            print(*rows[-1], sep="  ", flush=True)
    verdict = f"Median over the models: {np.median(ratios):.2f}x fewer sweeps (target 2x)."
    report += [
        f"## Acceleration: sweeps to the same objective, {N} rows, {SEEDS} seeds; float64",
        verdict,
        table(HEADER, rows),
    ]
