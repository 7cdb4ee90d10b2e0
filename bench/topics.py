"""Topics against scikit-learn and gensim: a pass over the corpus, and the way to a held-out perplexity.

The corpus is that of notebooks/data: 2,246 documents of the Associated Press, a tenth of them held out. All
score the same held-out words of the same documents: half of a document's words, drawn once, are given, and
the others are predicted by E[theta] E[beta] (document completion), E[theta] by our inference for everyone.
Ours are measured on all devices, which are the cores.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import gensim.models
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import sklearn.decomposition

import vbjax as vb
from bench.measure import columns, interleaved, per_iteration, run_parts, seconds, sweeps, table
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.inference.resolution import resolved
from vbjax.models.topics import topic_model as module

DATA = pathlib.Path(__file__).parents[1] / "notebooks" / "data"
TURNS = 20  # updates of a document in one pass
PASSES = 3  # after the first
K = (20, 100, 200)
PRIORS = ((20, 0.05), (100, 0.05), (200, 0.05), (100, 0.01))  # K, and eta: the default is 1 / K
SEEDS = 3


def corpus(repeats: int = 1) -> tuple[vb.Documents, scipy.sparse.csr_matrix]:
    """The documents, so many times, for us and for scikit-learn."""
    docs = vb.datasets.read_ldac(DATA / "ap.ldac")
    rows = sparse(docs)
    if repeats > 1:
        rows = scipy.sparse.vstack([rows] * repeats).tocsr()
        docs = vb.Documents.of(rows)
    return docs, rows


def sparse(docs: vb.Documents) -> scipy.sparse.csr_matrix:
    """Documents as scikit-learn takes them."""
    cells = []
    for part, place in zip(docs.parts, docs.split(np.arange(docs.n_rows)), strict=True):
        row = np.broadcast_to(np.asarray(place)[:, None], part.ids.shape)
        cells.append([np.ravel(x) for x in (part.counts, row, part.ids)])
    count, row, column = (np.concatenate(x) for x in zip(*cells, strict=True))
    there = count > 0
    shape = (docs.n_rows, docs.n_words)
    return scipy.sparse.csr_matrix((count[there], (row[there], column[there])), shape, dtype=np.float32)


# -- a pass ------------------------------------------------------------------------------------------------


def our_passes(docs: vb.Documents, k: int, some: list[jax.Device]) -> list[Callable[[], Any]]:
    """One pass, and PASSES more, of TURNS updates each, whether a document has settled or not."""
    model, data, _ = resolved(vb.LatentDirichletAllocation(k, document_sweeps=TURNS), docs, None)
    params = jax.jit(lambda model, docs: model.init(jax.random.key(0), docs))(model, data)
    return [sweeps(model, data, params, n, some) for n in (1, 1 + PASSES)]


def their_passes(rows: scipy.sparse.csr_matrix, k: int, n_jobs: int, passes: int) -> Callable[[], Any]:
    """So many passes of scikit-learn's batch algorithm."""
    peer = sklearn.decomposition.LatentDirichletAllocation(
        k,
        max_iter=passes,
        learning_method="batch",
        max_doc_update_iter=TURNS,
        mean_change_tol=0.0,
        n_jobs=n_jobs,
        random_state=0,
    )
    return lambda: peer.fit(rows).components_


def passes(report: list[str]) -> None:
    """Milliseconds of a pass at every K, and at one K over larger corpora."""
    docs, rows = corpus()
    settled, module._SETTLED = module._SETTLED, 0.0
    lines = []
    for k in K:
        # a pass is the difference of two fits: all start with work of another kind
        ours = [run for some in (jax.devices()[:1], jax.devices()) for run in our_passes(docs, k, some)]
        runs = [their_passes(rows, k, jobs, n) for jobs in (1, 2) for n in (1, 1 + PASSES)]
        compiled, *_ = map(seconds, (*ours, *runs))
        times = interleaved(*ours, *runs, repeats=3)
        pairs = zip(times[::2], times[1::2], strict=True)
        alone, own, one, two = (per_iteration(long, short, PASSES) for short, long in pairs)
        lines.append(
            [str(k), *(f"{1e3 * s:.0f}" for s in (alone, own, one, two)), f"{one / own:.1f}x",
             f"{two / own:.1f}x", f"{compiled - times[0]:.1f}"]
        )  # fmt: skip
        print(*lines[-1], sep="  ", flush=True)
    sizes = []
    for repeats in (1, 4, 16):
        more, _ = corpus(repeats)
        ours = our_passes(more, 20, jax.devices()[:1])
        for run in ours:
            run()
        short, long = interleaved(*ours, repeats=3)
        n_tokens, milliseconds = int(more.n_tokens), 1e3 * per_iteration(long, short, PASSES)
        sizes.append(
            [str(more.n_rows), str(n_tokens), f"{milliseconds:.0f}", f"{1e6 * milliseconds / n_tokens:.0f}"]
        )
        print(*sizes[-1], sep="  ", flush=True)
    module._SETTLED = settled
    header = ["K", *columns(), "scikit-learn ms, 1 job", "2 jobs", "ratio, 1 job (5x)", "2 jobs (4x)"]
    header += ["compile s"]
    report += [
        f"## Topics: a pass of {TURNS} updates of every document; Associated Press, float32",
        table(header, lines),
        "The same corpus once, 4 and 16 times, K = 20, one device:",
        table(["documents", "tokens", "ms", "ns per token"], sizes),
    ]


# -- the way to a perplexity ---------------------------------------------------------------------------------


def perplexities(report: list[str]) -> None:
    """Seconds to the held-out perplexity that the best of the peers ends with, by the mean of some starts."""
    docs, rows = corpus()
    held_out = np.random.default_rng(0).permutation(docs.n_rows) < docs.n_rows // 10
    rows, test = rows[~held_out], vb.Documents.of(rows[held_out])
    train = vb.Documents.of(rows)
    given, scored = vb.topics.halves(test, jax.random.key(1))
    lines = []
    for k, eta in PRIORS:
        model = vb.LatentDirichletAllocation(k, topic_concentration=eta)
        resolved = model.resolve(train)

        def perplexity(concentration: Any, model: Any = resolved) -> float:
            params = vb.Record(topics=vb.families.DirichletState(jnp.asarray(concentration, jnp.float32)))
            score = vb.topics.log_completion(model, params, given, scored)
            return float(jnp.exp(-score.sum() / scored.n_tokens))

        ways = {
            "scikit-learn, batch, 2 jobs": sklearn_batch(rows, k, eta),
            "gensim LdaModel": gensim_online(rows, k, eta, gensim.models.LdaModel),
            "gensim LdaMulticore, 1 worker more": gensim_online(rows, k, eta, gensim.models.LdaMulticore),
            "vbjax, batch": our_batch(train, model),
            "vbjax, stochastic": our_stochastic(train, model),
        }
        curves = {name: curve(*way, perplexity) for name, way in ways.items()}
        peers = [name for name in curves if not name.startswith("vbjax")]
        target = min(p for name in peers for _, p, _ in curves[name])
        fastest = min(reach(curves[name], target) for name in peers)
        online = min(p for _, p, _ in curves["gensim LdaModel"])
        for name, way in curves.items():
            end, taken, to_online = way[-1], reach(way, target), reach(way, online)
            lines.append(
                [f"{k}, {eta}", name, f"{end[0]:.2f}", f"{end[1]:.0f} ± {end[2]:.0f}", f"{target:.0f}",
                 f"{taken:.2f}", f"{fastest / taken:.1f}x", f"{online:.0f}", f"{to_online:.2f}",
                 f"{reach(curves['gensim LdaModel'], online) / to_online:.1f}x"]
            )  # fmt: skip
            print(*lines[-1], sep="  ", flush=True)
        jax.clear_caches()
    header = [
        "K, eta", "way", "seconds in all", "perplexity then", "the peers' best", "seconds to it",
        "fastest peer / this (5x)", "gensim online's best", "seconds to it", "gensim / this (3x)",
    ]  # fmt: skip
    report += [
        f"## Topics: seconds to a held-out perplexity, the mean of {SEEDS} starts; inf: never reached",
        "Concentrations and minibatches (256) are the same for all, starts each way's own; ±: of one start.",
        table(header, lines),
    ]


Curve = list[tuple[float, float, float]]
Way = tuple[tuple[int, ...], Callable[[int, int], tuple[float, Any]]]


def curve(lengths: tuple[int, ...], way: Callable[..., Any], perplexity: Callable[[Any], float]) -> Curve:
    """Of runs of these lengths the mean seconds, the mean perplexity, and its spread over the starts."""
    points = []
    for n in lengths:
        runs = [way(seed, n) for seed in range(SEEDS)]
        scores = [perplexity(topics) for _, topics in runs]
        seconds = float(np.mean([t for t, _ in runs]))
        points.append((seconds, float(np.mean(scores)), float(np.std(scores, ddof=1))))
    return points


def reach(points: Curve, target: float) -> float:
    """Seconds until a perplexity is reached."""
    return next((t for t, p, _ in points if p <= target * (1 + 1e-6)), np.inf)


def sklearn_batch(rows: scipy.sparse.csr_matrix, k: int, eta: float) -> Way:
    """Fits of more and more passes."""

    def run(seed: int, n: int) -> tuple[float, Any]:
        peer = sklearn.decomposition.LatentDirichletAllocation(
            k, topic_word_prior=eta, max_iter=n, learning_method="batch", n_jobs=2, random_state=seed
        )
        begun = time.perf_counter()
        peer.fit(rows)
        return time.perf_counter() - begun, peer.components_

    return (4, 8, 16, 32), run


def gensim_online(rows: scipy.sparse.csr_matrix, k: int, eta: float, kind: Any) -> Way:
    """More and more passes of gensim's online algorithm, at the best of the rates that were tried."""
    bags = [list(zip(*(x.tolist() for x in (row.indices, row.data)), strict=True)) for row in rows]
    words = {w: str(w) for w in range(rows.shape[1])}
    extra = dict(workers=2) if kind is gensim.models.LdaMulticore else {}

    def run(seed: int, n: int) -> tuple[float, Any]:
        begun = time.perf_counter()
        peer = kind(
            bags, k, id2word=words, chunksize=256, passes=n, decay=0.5, offset=10.0, random_state=seed,
            eta=eta, eval_every=None, **extra,
        )  # fmt: skip
        return time.perf_counter() - begun, peer.state.get_lambda()

    return (1, 2, 4, 8), run


def our_batch(docs: vb.Documents, model: Any) -> Way:
    """Plain sweeps, more and more."""
    return (1, 5, 20, 80), lambda seed, n: timed(
        lambda: vb.fit(model, docs, key=jax.random.key(seed), max_iter=n)
    )


def our_stochastic(docs: vb.Documents, model: Any) -> Way:
    """Minibatches; more and more epochs."""
    return (1, 4, 16), lambda seed, n: timed(
        lambda: vb.fit_stochastic(
            model, docs, key=jax.random.key(seed), batch_size=256, n_epochs=n, delay=10.0
        )
    )


def timed(run: Callable[[], vb.Fit]) -> tuple[float, Any]:
    """Seconds of a second call, and the topics that it found."""
    jax.block_until_ready(run())
    begun = time.perf_counter()
    fit = jax.block_until_ready(run())
    return time.perf_counter() - begun, fit.params.topics.concentration


# -- memory --------------------------------------------------------------------------------------------------


def memory(report: list[str]) -> None:
    """A large vocabulary and many topics in float32: what a sweep allocates beside its input and output."""
    rng, k, n_words, n, length = np.random.default_rng(0), 200, 50_000, 4096, 128
    words = np.minimum(rng.zipf(1.3, (n, length)) - 1, n_words - 1)
    docs = vb.Documents.of([[(w, 1) for w in row] for row in words.tolist()], n_words)
    model, data, _ = resolved(vb.LatentDirichletAllocation(k), docs, None)
    ascent = CoordinateAscent(model, jnp.asarray(0.0))
    state = ascent.start(model.init(jax.random.key(0), data), data)
    step = jax.jit(lambda ascent, state, docs: ascent.step(state, docs, None))
    program: Any = step.lower(ascent, state, data).compile()
    temporary = program.memory_analysis().temp_size_in_bytes / 2**20
    _, info = program(ascent, state, data)
    cells = sum(part.ids.size for part in data.parts)
    lines = [
        ["temporaries of a sweep", f"{temporary:.0f}"],
        ["topics x vocabulary", f"{4 * k * n_words / 2**20:.0f}"],
        ["cells of documents x topics", f"{4 * cells * k / 2**20:.0f}"],
        ["documents x vocabulary", f"{4 * n * n_words / 2**20:.0f}"],
    ]
    report += [
        f"## Topics: memory in MiB, {n} documents, {n_words} words, {k} topics; float32",
        f"The bound is {float(info.objective):.6g}, its claimed rounding error {float(info.error):.2g}.",
        table(["what", "MiB"], lines),
    ]


STREAM = """
import re, sys, time
import jax, vbjax as vb
path, n_words, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = vb.LatentDirichletAllocation(100, topic_concentration=0.05)
begun = time.perf_counter()
batches = vb.datasets.stream_ldac(path, n_words)
fit = jax.block_until_ready(vb.fit_stochastic(model, batches, key=jax.random.key(0), total_rows=n))
print(time.perf_counter() - begun, re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
"""


def streaming(report: list[str]) -> None:
    """One pass from files of several sizes: seconds, and the most memory that a process of its own held."""
    text, n_words = (DATA / "ap.ldac").read_text(), corpus()[0].n_words
    documents, lines = text.splitlines(keepends=True), []
    for repeats in (1, 4, 16):
        with tempfile.NamedTemporaryFile("w", suffix=".ldac") as file:
            for seed in range(repeats):
                file.writelines(np.random.default_rng(seed).permutation(documents).tolist())
            file.flush()
            n = repeats * len(documents)
            command = [sys.executable, "-c", STREAM, file.name, str(n_words), str(n)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            size = pathlib.Path(file.name).stat().st_size / 2**20
        taken, peak = map(float, done.stdout.split())
        lines.append([str(n), f"{size:.0f}", f"{taken:.1f}", f"{peak / 1024:.0f}"])
        print(*lines[-1], sep="  ", flush=True)
    report += [
        "## Topics: one pass over a file in minibatches of 256, 100 topics; with compilation",
        table(["documents", "file MiB", "s", "most memory MiB"], lines),
    ]


PARTS = {"passes": passes, "perplexities": perplexities, "memory": memory, "streaming": streaming}


def run(only: list[str] | None) -> None:
    """Run the parts, all or some."""
    warnings.filterwarnings("ignore", module="sklearn|gensim")
    run_parts("topics", PARTS, ["scikit-learn", "gensim"], only)
