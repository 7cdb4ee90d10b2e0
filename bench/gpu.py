"""An accelerator: sweeps and fits, their shares of the roofline, beside the processor, and in float64.

What the device can do is measured first, by a product of matrices and a copy. A computation takes at least
the time of its arithmetic or that of moving its numbers, whichever is longer; both are counted from the
shapes. The share of the roofline is that time over the measured one. Products of float32 are exact here; by
JAX's default an accelerator rounds their factors to fewer bits, which stands beside it.

Where there is no accelerator the shapes are small, and nothing is written: a trial of this script.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax import Array, lax

import vbjax as vb
from bench.measure import interleaved, run_parts, sweeps, table
from vbjax.core.rows import float_dtype
from vbjax.inference.resolution import resolved

SWEEPS = 4  # in one program
TURNS = 10  # of the loops that measure what a device can do
EXACT, DEFAULT, DOUBLE = "float32", "default precision", "float64"  # ways to multiply


class Work(NamedTuple):
    """A computation.

    Attributes:
        call: returns an objective, and how many sweeps were made.
        flops: of a sweep, at least.
        numbers: that a sweep moves from or to the device's memory, at least.
    """

    call: Callable[[], tuple[Array, Any]]
    flops: float
    numbers: float


class Problem(NamedTuple):
    """Something to compute.

    Attributes:
        name: what, of which shape, with {} for its numbers.
        shape: on an accelerator.
        part: on the processor beside it, whose time is scaled by the first number of the shapes.
        small: where there is no accelerator.
        work: of a shape, a dtype and devices.
        anchor: milliseconds to reach on one H200.
    """

    name: str
    shape: tuple[int, ...]
    part: tuple[int, ...]
    small: tuple[int, ...]
    work: Callable[[tuple[int, ...], Any, Sequence[jax.Device]], Work]
    anchor: int | None = None


class Measured(NamedTuple):
    """Seconds of a call, its sweeps and their flops and numbers, and the objective that it ended with."""

    seconds: float
    n_sweeps: int
    flops: float
    numbers: float
    objective: float


# -- the computations ----------------------------------------------------------------------------------------


def clouds(n: int, d: int, k: int, dtype: Any) -> Array:
    """Draw rows (n, d) about k centres, the same for every dtype."""
    keys = jax.random.split(jax.random.key(0), 3)
    centers = 3 * jax.random.normal(keys[0], (k, d), jnp.float32)
    label = jax.random.randint(keys[1], (n,), 0, k, jnp.int32)
    return (centers[label] + jax.random.normal(keys[2], (n, d), jnp.float32)).astype(dtype)


def swept(
    model: Any, data: Any, start: Any, devices: Sequence[jax.Device]
) -> Callable[[], tuple[Array, Any]]:
    """Return a call of SWEEPS sweeps, from given parameters or from a start of the model's own in float32."""
    if start is None:
        own, single, _ = resolved(model, cast(data, EXACT), None)
        start = jax.jit(lambda model, data: model.init(jax.random.key(0), data))(own, single)
        start = cast(start, float_dtype(data))
    model, data, _ = resolved(model, data, None)
    run = sweeps(model, data, start, SWEEPS, devices)
    return lambda: (run()[1], SWEEPS)


def cast(tree: Any, dtype: Any) -> Any:
    """Return a tree whose floating leaves have this dtype."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def em(covariance_type: str, shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """Sweeps of EM from some rows: whitening and scatter are a product each."""
    n, d, k = shape
    x, full = clouds(n, d, k, dtype), covariance_type == "full"
    covariances = np.full((k, 1, 1), 9.0) * np.eye(d) if full else np.full(k, 9.0)
    model = vb.GaussianMixture(k, covariance_type)
    start = model.params_at(np.full(k, 1 / k, dtype), x[:k], covariances.astype(dtype))
    return Work(swept(model, x, start, devices), 4.0 * n * k * d * (d if full else 1), n * d)


def kmeans(shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """Sweeps of Lloyd's algorithm from some rows: a product, and sums of rows."""
    n, d, k = shape
    x, model = clouds(n, d, k, dtype), vb.KMeans(k)
    return Work(swept(model, x, model.params_at(x[:k]), devices), 2.0 * n * (k + 1) * d, n * d)


def hmm(shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """Sweeps of Baum and Welch: forward, backward and pairs, beside those of EM."""
    n, t, d, k = shape
    data = vb.Sequences.of(clouds(n * t, d, k, dtype), lengths=np.full(n, t))
    flops = n * t * (6.0 * k * k + 4.0 * k * d * d)
    return Work(swept(vb.GaussianHMM(k), data, None, devices), flops, n * t * d)


def topics(shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """Sweeps over documents: of every word in one, each topic's share; topics are read and added to once."""
    n, length, n_words, k = shape
    words = np.minimum(np.random.default_rng(0).zipf(1.3, (n, length)) - 1, n_words - 1)
    row = np.repeat(np.arange(n), length)
    counts = scipy.sparse.csr_matrix((np.ones(n * length), (row, words.ravel())), (n, n_words))
    docs = vb.Documents.of(counts, dtype=dtype)
    cells = counts.nnz
    call = swept(vb.LatentDirichletAllocation(k), docs, None, devices)
    return Work(call, 4.0 * cells * k, 2 * cells + 2 * k * n_words)


def restarts(shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """A fit to Old Faithful from many starts."""
    (n_restarts,), k = shape, 4
    x = jnp.asarray(vb.datasets.old_faithful(), dtype)

    def call() -> tuple[Array, Any]:
        fit = vb.fit(vb.GaussianMixture(k), x, key=jax.random.key(0), n_restarts=n_restarts, devices=devices)
        return fit.objective, fit.runs.n_iter

    return Work(call, 4.0 * k * x.size * x.shape[1], x.size)


def black_box(shape: tuple[int, ...], dtype: Any, devices: Sequence[jax.Device]) -> Work:
    """A fit of a logistic regression: at every draw two products of the density, two of its gradient."""
    n, d = shape
    x = clouds(n, d, 2, dtype) / 3
    y = (x @ jnp.linspace(-1, 1, d, dtype=dtype) > 0).astype(dtype)

    def log_density(s: Any, data: Any) -> Array:
        x, y = data
        return -0.5 * (s.w**2).sum() + (y * (x @ s.w) - jax.nn.softplus(x @ s.w)).sum()

    model = vb.BlackBox(log_density, dict(w=vb.real(d)))

    def call() -> tuple[Array, Any]:
        fit = vb.fit(model, (x, y), key=jax.random.key(0), devices=devices)
        return fit.objective, fit.n_iter

    return Work(call, 4.0 * x.size * max(128, 8 * d), x.size + n)


SWEPT = [
    Problem("EM, full, {} x {}, k = {}", (2_000_000, 64, 32), (62_500, 64, 32), (2000, 4, 4),
            functools.partial(em, "full"), 25),
    Problem("EM, spherical, {} x {}, k = {}", (1_000_000, 128, 1024), (15_625, 128, 1024), (2000, 4, 8),
            functools.partial(em, "spherical"), 20),
    Problem("k-means, {} x {}, k = {}", (524_288, 128, 8192), (16_384, 128, 8192), (2000, 4, 64), kmeans, 4),
    Problem("GaussianHMM, {} x {} x {}, K = {}", (1024, 1000, 8, 16), (128, 1000, 8, 16), (4, 100, 2, 3),
            hmm),
    Problem("LDA, {} documents of {} words of {}, K = {}", (16_384, 128, 20_000, 100),
            (2048, 128, 20_000, 100), (64, 16, 100, 4), topics),
]  # fmt: skip
FITTED = [
    Problem("{} restarts on Old Faithful, k = 4", (1024,), (1024,), (16,), restarts),
    Problem("black box, logistic regression, {} x {}", (100_000, 32), (10_000, 32), (200, 3), black_box),
]


# -- measuring -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def arithmetic(way: str) -> Iterator[None]:
    """Multiply in this way."""
    precision = "default" if way == DEFAULT else "highest"
    with jax.enable_x64(way == DOUBLE), jax.default_matmul_precision(precision):
        yield


def dtype_of(way: str) -> Any:
    return np.dtype(DOUBLE if way == DOUBLE else EXACT)


@functools.cache
def peaks(way: str) -> tuple[float, float]:
    """Measure flops a second of a product of matrices, and bytes a second of a copy."""
    size, length = (512, 2**20) if jax.default_backend() == "cpu" else (8192, 2**28)
    with arithmetic(way):
        x = jnp.full((size, size), 1 / size, dtype_of(way))  # of which x x is x
        row = jnp.zeros(length, dtype_of(way))
        product = jax.jit(lambda x: lax.fori_loop(0, TURNS, lambda _, y: y @ x, x))
        copy = jax.jit(lambda row: lax.fori_loop(0, TURNS, lambda _, y: y + 1, row))
        calls = functools.partial(product, x), functools.partial(copy, row)
        for call in calls:
            call()
        multiplied, copied = (seconds / TURNS for seconds in interleaved(*calls, repeats=5))
    return 2 * size**3 / multiplied, 2 * row.nbytes / copied


def measured(problem: Problem, shape: tuple[int, ...], way: str, devices: Sequence[jax.Device]) -> Measured:
    """Measure a problem; calls are repeated for about a second, three times at most."""
    with arithmetic(way):
        work = problem.work(shape, dtype_of(way), devices)
        objective, n_sweeps = jax.block_until_ready(work.call())
        begun = time.perf_counter()
        jax.block_until_ready(work.call())
        taken = time.perf_counter() - begun
        if taken < 1:
            taken = min([taken, *interleaved(work.call, repeats=2)])
        n_sweeps = int(np.sum(n_sweeps))
        return Measured(taken, n_sweeps, n_sweeps * work.flops, n_sweeps * work.numbers, float(objective))


def compare(report: list[str], problems: Sequence[Problem], *, whole: bool) -> None:
    """Measure problems in every way, and on the processor; milliseconds are of whole calls or of sweeps."""
    device = jax.devices()[:1]
    alone = device[0].platform == "cpu"
    lines = []
    for problem in problems:
        shape = problem.small if alone else problem.shape
        part = problem.small if alone else problem.part
        name = problem.name.format(*shape)
        try:
            exact, rounded, double = (
                measured(problem, shape, way, device) for way in (EXACT, DEFAULT, DOUBLE)
            )
            processor = measured(problem, part, EXACT, jax.devices("cpu"))
        except jax.errors.JaxRuntimeError as error:  # the device's memory, as a rule
            report.append(f"{name}: {str(error).splitlines()[0]}")
            continue
        ms = [1e3 * x.seconds / (1 if whole else x.n_sweeps) for x in (exact, rounded, double)]
        on_processor = 1e3 * processor.seconds / (1 if whole else processor.n_sweeps) * shape[0] / part[0]
        flops, bandwidth = peaks(EXACT)
        least = max(exact.flops / flops, exact.numbers * dtype_of(EXACT).itemsize / bandwidth)
        errors = [abs(x.objective - double.objective) / abs(double.objective) for x in (exact, rounded)]
        lines.append(
            [
                name, str(exact.n_sweeps), f"{ms[0]:.3g}", f"{problem.anchor or '-'}",
                f"{100 * least / exact.seconds:.2g} %", f"{ms[1]:.3g}", f"{ms[2]:.3g}",
                f"{on_processor:.3g}", f"{on_processor / ms[0]:.1f}x", *(f"{x:.0e}" for x in errors),
            ]
        )  # fmt: skip
        print(*lines[-1], sep="  ", flush=True)
    header = ["problem", "sweeps", "float32 ms", "to reach", "of the roofline", f"{DEFAULT} ms", "float64 ms"]
    header += ["processor ms", "ratio", "objective, float32 to float64", f"{DEFAULT} to float64"]
    able = [f"{way}: {f / 1e12:.3g} TFLOP/s, {b / 1e9:.3g} GB/s" for way, (f, b) in
            ((way, peaks(way)) for way in (EXACT, DEFAULT, DOUBLE))]  # fmt: skip
    cores = f"The processor has {len(jax.devices('cpu'))} devices, and parts of the large problems."
    report += [f"What the device can do: {'; '.join(able)}. {cores}", table(header, lines)]


def swept_problems(report: list[str]) -> None:
    """Milliseconds of a sweep."""
    report.append("## Accelerator: a sweep")
    compare(report, SWEPT, whole=False)


def fitted_problems(report: list[str]) -> None:
    """Milliseconds of a whole fit."""
    report.append("## Accelerator: a whole fit")
    compare(report, FITTED, whole=True)


def run(only: list[str] | None) -> None:
    """Run the benchmark."""
    parts = dict(sweeps=swept_problems, fits=fitted_problems)
    run_parts("gpu", parts, ["scipy"], only, keep=jax.default_backend() != "cpu")
