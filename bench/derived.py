"""What is derived from a log joint, against what is written by hand; against BayesPy; accelerated.

`updates`: one sweep (E-steps, updates and the objective) of every model by the derived engine and by the
best update written by hand: the project's own where a model keeps one, bench/derived_updates.py otherwise.
`bayespy` and `acceleration` have files of their own.
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
from bench import derived_updates as written
from bench.derived_acceleration import acceleration
from bench.derived_bayespy import bayespy
from bench.measure import interleaved, run_parts, table
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import sum_over_rows
from vbjax.families.base import State
from vbjax.inference.resolution import resolved

SWEEPS = 5  # in one program
K, D, V, N = 16, 16, 4, 65536


class Case(NamedTuple):
    """A model, its rows and what is written by hand for it; None where the model itself has an E-step.

    `cells` is the size, for one row, of the table that a matrix product avoids: components x features.
    """

    model: Any
    data: Any
    cells: int
    by_hand: Callable[[Any, Any, Any], Any] | None = None


def derived_pass(model: Any, params: Any, data: Any) -> Any:
    """The derived E-step over all rows, whatever the model has of its own."""
    if data is None:
        return model.no_rows(params)
    prepared = ConjugateModel.prepare(model, params)
    e_step = functools.partial(ConjugateModel.e_step, model, prepared)
    return sum_over_rows(e_step, data, chunk=model.chunk_rows(data))


def sweep_by(one_pass: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """One sweep, every block from a pass of its own; and the objective of what came in."""

    def sweep(model: Any, params: Any, data: Any) -> Any:
        objective = None
        for block in model.blocks:
            total = one_pass(model, params, data)
            objective = model.objective(params, total) if objective is None else objective
            params = model.m_step(params, total.statistics, block)
        return params, objective

    return sweep


class Program(NamedTuple):
    """SWEEPS sweeps, compiled; what the compiler said."""

    call: Callable[[], Any]
    compile_seconds: float
    temporary: int


def compiled(sweep: Callable[[Any, Any, Any], Any], model: Any, params: Any, data: Any) -> Program:
    def many(model: Any, params: Any, data: Any) -> Any:
        return jax.lax.scan(lambda p, _: sweep(model, p, data), params, length=SWEEPS)

    begun = time.perf_counter()
    program = jax.jit(many).lower(model, params, data).compile()
    taken = time.perf_counter() - begun
    memory: Any = program.memory_analysis()
    return Program(functools.partial(program, model, params, data), taken, memory.temp_size_in_bytes)


def agree(name: str, one: Any, other: Any) -> None:
    """Both go the same way, but for rounding: otherwise there is nothing to compare."""
    # by moments: what a point rests on is 0 where it is a maximum, and rounding then
    moments = lambda state: (state.mean, state.sd)
    one, other = (jax.tree.map(moments, x, is_leaf=lambda x: isinstance(x, State)) for x in (one, other))
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        x, y = np.asarray(x, float), np.asarray(y, float)
        # by the size of the whole array: what is nearly 0 in it is nearly 0 in both
        if not np.abs(x - y).max() <= 2e-2 * np.abs(y).max():
            raise RuntimeError(f"{name}: {jax.tree_util.keystr(path)} differs: {x} and {y}")


# -- data ----------------------------------------------------------------------------------------------------


def classes(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """A number for each row and column that its class has, of K classes."""
    return rng.uniform(low, high, (K, D))[rng.integers(K, size=N)]


def cases() -> dict[str, Case]:
    """The models, as they are fitted by default, and rows of the kind that each expects; float32."""
    rng = np.random.default_rng(0)
    as_float = lambda x: jnp.asarray(x, jnp.float32)
    x = as_float(classes(rng, -3, 3) + rng.normal(size=(N, D)))
    y = as_float(x @ rng.normal(size=D) + rng.normal(size=N))
    column, few = (
        x[:, 0],
        as_float(rng.normal(size=(N, 4)) @ rng.normal(size=(4, D)) + rng.normal(size=(N, D))),
    )
    label = as_float(np.asarray(y) + 3 * rng.normal(size=N) > 0)
    holes = jnp.where(as_float(rng.uniform(size=few.shape)) < 0.2, jnp.nan, few)[: N // 4]
    p = classes(rng, 0.1, 0.9)
    precision = np.eye(64) + 0.5
    mixtures = {
        f"{name} {kind}": Case(make(K, kind), x, K * D * (D if kind == "full" else 1))
        for name, make in (
            ("Gaussian mixture, EM", vb.GaussianMixture),
            ("Gaussian mixture, VB", vb.BayesianGaussianMixture),
        )
        for kind in ("full", "tied", "diag", "spherical")
    }
    return {
        **mixtures,
        "k-means": Case(vb.KMeans(K), x, K * D),
        "ARD regression": Case(vb.ARDRegression(), (x, y), D * D),
        "logistic regression": Case(vb.BayesianLogisticRegression(), (x, label), D * D),
        "probit regression": Case(vb.BayesianProbitRegression(), (x, label), D * D),
        "PPCA": Case(vb.PPCA(4), few, D * 4),
        "factor analysis": Case(vb.FactorAnalysis(4), few, D * 4),
        "Bayesian PCA": Case(vb.BayesianPCA(4), few, D * 4),
        "mean and precision": Case(
            vb.textbook.GaussianMeanPrecision(), column, 1, written.mean_and_precision
        ),
        "Student-t": Case(vb.textbook.RobustNormal(), column, 1, written.robust_normal),
        "hierarchical normal": Case(
            vb.textbook.HierarchicalNormal(), (column, 1 + abs(y) / 8), 1, written.hierarchical_normal
        ),
        "random effects": Case(
            vb.textbook.RandomEffects(256), (column, jnp.arange(N) % 256), 1, written.random_effects
        ),
        "linear regression": Case(vb.BayesianLinearRegression(), (x, y), D * D, written.linear_regression),
        "mean field Gaussian": Case(
            vb.textbook.MeanFieldGaussian(as_float(np.ones(64)), as_float(precision)),
            None,
            64 * 64,
            written.mean_field_gaussian,
        ),
        "unit-variance mixture": Case(
            vb.textbook.UnitVarianceMixture(K), 3 * column, K, written.unit_variance_mixture
        ),
        "Bernoulli mixture": Case(
            vb.BayesianBernoulliMixture(K),
            as_float(rng.uniform(size=p.shape) < p),
            K * D,
            written.bernoulli_mixture,
        ),
        "Poisson mixture": Case(
            vb.BayesianPoissonMixture(K), as_float(rng.poisson(9 * p)), K * D, written.poisson_mixture
        ),
        "Gamma mixture": Case(
            vb.BayesianGammaMixture(K, known_shape=3.0),
            as_float(rng.gamma(3, 1 / p)),
            K * D,
            written.gamma_mixture,
        ),
        "multinomial mixture": Case(
            vb.BayesianMultinomialMixture(K), as_float(rng.poisson(9 * p)), K * D, written.multinomial_mixture
        ),
        "categorical mixture": Case(
            vb.BayesianCategoricalMixture(K, n_categories=V),
            jnp.asarray(rng.binomial(V - 1, p), jnp.int32),
            K * D * V,
            written.categorical_mixture,
        ),
        "regression mixture": Case(
            vb.BayesianRegressionMixture(K), (x, y), K * D, written.regression_mixture
        ),
        "factor analysis, a fifth missing": Case(
            vb.FactorAnalysis(4, missing=True), holes, D * 4 * 4, written.factor_analysis_missing
        ),
    }


HEADER = [
    "model",
    "by hand",
    "by hand ms",
    "derived ms",
    "derived / by hand",
    "as shipped / by hand",
    "compile s",
    "temporaries KiB",
    "chunk x table KiB",
]


def updates(report: list[str]) -> None:
    """A sweep of every model, derived and by hand."""
    rows, ratios, ratios_by_hand = [], [], []
    for name, case in cases().items():
        model, data, _ = resolved(case.model, case.data, None)
        params = begin(model, data)
        shipped = sweep_by(vb.core.expectation)
        sweeps = [case.by_hand or shipped, sweep_by(derived_pass), shipped]
        hand, derived, ours = (compiled(sweep, model, params, data) for sweep in sweeps)
        for other in (derived, ours):
            agree(name, hand.call()[0], other.call()[0])
        times = interleaved(hand.call, derived.call, ours.call, repeats=7)
        ratio, as_shipped = (t / times[0] for t in times[1:])
        as_shipped = as_shipped if case.by_hand else 1.0
        chunk = model.chunk_rows(data) * case.cells * 4 / 2**10 if data is not None else 0
        ratios.append((as_shipped, ratio))
        ratios_by_hand += [as_shipped] if case.by_hand else []
        rows.append(
            [
                name, "bench" if case.by_hand else "the model's",
                *(f"{1e3 * t / SWEEPS:.3f}" for t in times[:2]), f"{ratio:.2f}", f"{as_shipped:.2f}",
                f"{hand.compile_seconds:.1f}, {derived.compile_seconds:.1f}",
                f"{hand.temporary / 2**10:.0f}, {derived.temporary / 2**10:.0f}", f"{chunk:.0f}",
            ]
        )  # fmt: skip
        print(*rows[-1], sep="  ", flush=True)
    said = [
        f"{what}: {np.median(x):.2f}x at the median, {np.max(x):.2f}x at the worst"
        for what, x in zip(
            ("As shipped (targets 1.5x and 2x)", "derived", "as shipped, by hand in bench"),
            (*np.transpose(ratios), ratios_by_hand),
            strict=True,
        )
    ]
    report += [
        f"## A sweep, derived and by hand; float32, {N} rows",
        "; ".join(said)
        + ". In the last columns: by hand, derived; and the table of components x features of "
        "one chunk of rows, which is what temporaries would hold where no product were taken.",
        table(HEADER, rows),
    ]


@jax.jit
def begin(model: Any, data: Any) -> Any:
    return model.init(jax.random.key(0), data)


PARTS = {"updates": updates, "bayespy": bayespy, "acceleration": acceleration}


def run(only: list[str] | None) -> None:
    """Run the parts, all or some."""
    run_parts("derived", PARTS, ["bayespy"], only)
