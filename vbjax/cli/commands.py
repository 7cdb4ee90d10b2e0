"""Work of the shell command: reading the data, fitting, printing, writing. `main` reads the arguments.

Output paths are checked before the fit, which may take long. `files` writes files whole or not at all;
`topics` and `chains` hold what only topics and only sequences need.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax import metrics
from vbjax.cli import chains, topics
from vbjax.cli.files import UserError, check_digits, check_entries, check_outputs, replacing
from vbjax.cli.inputs import blocks_of, load_table
from vbjax.cli.interrupt import is_command
from vbjax.cli.tables import align, measure, mention_empty, posterior_sds
from vbjax.core.contracts import Model, Status
from vbjax.data import datasets
from vbjax.data.csv_tables import Series
from vbjax.data.frames import Columns
from vbjax.data.sources import Source
from vbjax.inference import saved_fits
from vbjax.inference.configure import configure
from vbjax.inference.fit import fit
from vbjax.inference.result import Fit, FitWarning
from vbjax.models import (
    BayesianGaussianMixture,
    GaussianMixture,
    HDPTopics,
    HiddenMarkovModel,
    KMeans,
    LatentDirichletAllocation,
    MixtureOfFactorAnalyzers,
)
from vbjax.models.topics.topic_model import TopicModel
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record

Index: TypeAlias = int | np.integer
Input: TypeAlias = Any  # a table (n, d) or a source of one, `Documents`, or a `Series`
Clusters: TypeAlias = GaussianMixture | BayesianGaussianMixture | MixtureOfFactorAnalyzers

MODELS = {
    "kmeans": KMeans,
    "gmm": GaussianMixture,
    "bayesian-gmm": BayesianGaussianMixture,
    "mfa": MixtureOfFactorAnalyzers,
    "lda": LatentDirichletAllocation,
    "hdp-topics": HDPTopics,
    "hmm": HiddenMarkovModel,
    "bayesian-hmm": HiddenMarkovModel,
}
# the model in words; the name of its objective, its unit, and the sign with which it is printed
_WORDS = {
    "kmeans": ("k-means", "inertia", "", -1),
    "gmm": ("Gaussian mixture by maximum likelihood", "log likelihood", " nats", 1),
    "bayesian-gmm": ("Gaussian mixture by variational Bayes", "ELBO", " nats", 1),
    "mfa": ("Mixture of factor analysers by maximum likelihood", "log likelihood", " nats", 1),
    "lda": ("latent Dirichlet allocation", "ELBO", " nats", 1),
    "hdp-topics": ("topics of a hierarchical Dirichlet process", "ELBO", " nats", 1),
    "hmm": ("hidden Markov model by maximum likelihood", "log likelihood", " nats", 1),
    "bayesian-hmm": ("hidden Markov model by variational Bayes", "ELBO", " nats", 1),
}
_CHAINS = ("hmm", "bayesian-hmm")
_TOPICS = ("lda", "hdp-topics")
_RESTARTS = {
    "lda": 4,
    "hdp-topics": 4,
    "hmm": 16,
    "bayesian-hmm": 16,
}  # 64 for the others, whose fits are faster
_MOST_PAIRED = 20_000  # most rows for the pairwise silhouette, which takes long
_DRAWN = 20_000  # about as many rows of a source are drawn in a picture


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command: what to fit, how, and where to write; by default the Old Faithful example.

    `data` is the path of a CSV, .npy or Parquet file, of a corpus for topics, and None for Old Faithful; the
    other fields are options of the command, None where the default depends on the model.
    """

    model: str = "bayesian-gmm"
    data: str | None = None
    components: int = 6
    columns: list[str | int] | None = None
    covariance: str | None = None
    factors: int | None = None
    weight_concentration: float | None = 1e-3
    missing: bool = False
    vocab: str | None = None
    output: str | None = None
    parts: int | None = None
    order: int | None = None
    sequence: str | int | None = None
    restarts: int | None = None
    seed: int = 0
    max_iter: int = 1000
    tol: float = 1e-6
    out: str | None = None
    plot: str | None = None
    quiet: bool = False
    devices: int | None = None
    checkpoint: str | None = None

    @property
    def emission(self) -> str:
        """Kind of output of a chain's states."""
        return self.output or "gaussian"


def configure_process(devices: int | None = None) -> None:
    """Take the cores asked for, and a cache of compiled programs if there can be one: in the shell alone."""
    if is_command():
        configure(cpu_devices=devices or "all")
        with contextlib.suppress(ValueError):
            configure(compilation_cache=True)


def run(options: Options) -> None:
    """Fit, print the result on stdout, and write the files asked for.

    Args:
        options: the options of the command.

    Raises:
        UserError: bad input, or a file that cannot be read or written.
        KeyboardInterrupt: Ctrl-C before there was a fit, or while files were being written.
    """
    source = "the corpus" if options.model in _TOPICS else "the table"
    inputs = {source: options.data, "the vocabulary": options.vocab}
    check_outputs(inputs, out=options.out, plot=options.plot)
    configure_process(options.devices)
    _check(options)
    data, names = _load(options)
    model = _model(options, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)  # the report has the verdict
            result = fit(
                model,
                data.sequences() if isinstance(data, Series) else data,
                key=jax.random.key(options.seed),
                n_restarts=options.restarts or _RESTARTS.get(options.model, 64),
                max_iter=options.max_iter,
                tol=options.tol,
                progress=not options.quiet,
                checkpoint=options.checkpoint,
            )
    except (ValueError, ImportError, OSError) as error:
        raise UserError(error) from error
    if not np.isfinite(float(result.objective)):
        raise UserError(f"no restart gave a finite result: {result.verdict()}")
    of_columns = options.model not in _TOPICS
    if of_columns:
        labels = (isinstance(data, Series) and data.labels) or [None] * len(names)
        result = dataclasses.replace(result, columns=Columns(tuple(names), tuple(labels)))
    found = describe(result, data)
    _say(report(options, result, found, names))
    if options.out:
        about = dict(sequence=options.sequence) if of_columns else dict(vocabulary=names)
        with replacing(options.out) as file:
            saved_fits.pack(result, file, **about)
        _say(f"{'saved':<15} {options.out}")
    if options.plot:
        picture = _picture(result, data, names)
        with replacing(options.plot) as file:
            picture.savefig(file, format=Path(options.plot).suffix[1:].lower())
        _say(f"{'picture':<15} {options.plot}")


# -- input ---------------------------------------------------------------------------------------------


def _check(options: Options) -> None:
    """Refuse options that are not for the model."""
    chain = options.model in _CHAINS
    if options.model == "kmeans" and options.covariance is not None:
        raise UserError("--covariance is not for kmeans, whose clusters have no covariance")
    if options.model == "mfa" and options.covariance is not None:
        raise UserError("--covariance is not for mfa, whose covariances come from factors")
    if options.model != "mfa" and options.factors is not None:
        raise UserError(f"--factors is for mfa only, not for {options.model}")
    if options.model in _TOPICS and options.covariance is not None:
        raise UserError(f"--covariance is not for {options.model}, whose topics have no covariance")
    of = {"covariance": ("gaussian", "mixture"), "parts": ("mixture",), "order": ("autoregressive",)}
    for name, outputs in of.items():
        if chain and options.emission not in outputs and getattr(options, name) is not None:
            raise UserError(
                f"--{name} is for {' and '.join(outputs)} output only, not for {options.emission}"
            )
    if options.model in _TOPICS and options.columns is not None:
        raise UserError(f"--columns is not for {options.model}, whose data are documents, not a table")
    if options.model != "bayesian-gmm" and options.weight_concentration is not None:
        raise UserError(f"--weight-concentration is for bayesian-gmm only, not for {options.model}")
    if options.missing and options.model not in ("gmm", "bayesian-gmm"):
        raise UserError(f"--missing is for gmm and bayesian-gmm only, not for {options.model}")
    if options.model not in _TOPICS and options.vocab is not None:
        raise UserError(f"--vocab is for {' and '.join(_TOPICS)} only, not for {options.model}")
    if options.model == "hdp-topics" and options.components < 2:
        raise UserError("--components must be at least 2 for hdp-topics: where their number is cut off")
    for name in ("output", "sequence", "parts", "order"):
        if not chain and getattr(options, name) is not None:
            raise UserError(f"--{name} is for {' and '.join(_CHAINS)} only, not for {options.model}")


def _model(options: Options, data: Input) -> Model:
    """Return the model that the options name."""
    k, covariance = options.components, options.covariance or "full"
    if options.model in _CHAINS:
        return chains.model(
            k,
            options.emission,
            data,
            bayesian=options.model == "bayesian-hmm",
            covariance=covariance,
            parts=options.parts or 2,
            order=options.order or 1,
        )
    if options.model in ("kmeans", *_TOPICS):
        return MODELS[options.model](k)
    if options.model == "mfa":
        return MixtureOfFactorAnalyzers(k, options.factors or 1)
    if options.model == "gmm":
        return GaussianMixture(k, covariance, missing=options.missing)
    concentration = options.weight_concentration
    return BayesianGaussianMixture(k, covariance, weight_concentration=concentration, missing=options.missing)


def _load(options: Options) -> tuple[Input, list[str]]:
    """Read the table and the names of its columns, the documents and their words, or the series."""
    if options.data is None:
        return datasets.old_faithful(), ["eruption (min)", "waiting (min)"]
    if options.model in _TOPICS:
        return topics.load(options.data, options.vocab, options.components)
    needed = 2 if options.model.startswith("bayesian") else max(2, options.components)
    if options.model in _CHAINS:
        where = options.data, options.sequence, options.columns
        series = chains.load(*where, options.emission, needed)
        return series, series.columns
    table, columns = load_table(options.data, options.columns, missing=options.missing)
    if isinstance(table, Source):
        return table, columns
    if len(table) < needed:
        rows = f"{len(table)} row{'s' * (len(table) != 1)}"
        raise UserError(f"{options.data}: {rows}; expected at least {needed} for this model")
    check_entries(options.data, table, columns)
    check_digits(options.data, table, columns)
    return jnp.asarray(table, float), columns


# -- output --------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    """Print a text, in characters that the terminal has."""
    encoding = sys.stdout.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    print(text, flush=True)


def _picture(result: Fit, data: Input, names: list[str]) -> Any:
    """Draw the page on a fit that suits its model, matplotlib's figure."""
    from vbjax import plots  # matplotlib takes a second to import

    if isinstance(result.model, TopicModel):
        return plots.topics.overview(result, names)
    if isinstance(result.model, HiddenMarkovModel):
        return plots.chains.overview(result, data.sequences(), names, sequences=data.names)
    if isinstance(data, Source):
        step = -(-data.n_rows // _DRAWN)
        data = np.concatenate([rows[::step] for rows in data])
    return plots.overview(result, data, names)


# -- parameters of the fit -------------------------------------------------------------------------------


@jit
def _parameters(model: Clusters, params: Record) -> dict[str, Array]:
    """Compute a mixture's parameters by one program; one operation after the other takes seconds."""
    found = dict(weights=params.weights.mean, means=model.means(params))
    found["covariances"] = model.covariances(params)
    if isinstance(model, BayesianGaussianMixture):
        found |= dict(weights_sd=params.weights.sd, means_sd=params.components.sd.location)
    if isinstance(model, MixtureOfFactorAnalyzers):
        variances = jnp.diagonal(found["covariances"], axis1=1, axis2=2)
        found["communalities"] = 1 - model.noise_variances(params) / variances
    return found


def describe(result: Fit, x: Input) -> dict[str, np.ndarray]:
    """Return the fitted parameters, and the components or clusters of the rows.

    Args:
        result: a fit of one of `MODELS`.
        x: the data, (n, d), or a source of them, or documents, or a series.

    Returns:
        For k-means `centers` (k, d), `labels` (n,), `inertia`, `sizes` (k,) and, for two clusters or more,
        `silhouette`. For mixtures `weights` (k,), `means` (k, d), `covariances` (k, d, d), `responsibilities`
        (n, k), `labels` (n,), `sizes` (k,), the expected number of rows, and `sds` (k, d), standard
        deviations; for the Bayesian one also the posterior standard deviations `weights_sd`, `means_sd` and
        `sds_sd`, for factor analysers `communalities` (k, d), the parts of the variances that come from
        the factors. Of a source there are no `responsibilities`. For topics see `topics.describe`, for hidden
        Markov models `chains.describe`.
    """
    model, params = result.model, result.params
    if isinstance(model, TopicModel):
        return topics.describe(result, x)
    if isinstance(model, HiddenMarkovModel):
        return chains.describe(result, x)
    if isinstance(model, KMeans):
        labels = np.concatenate([np.asarray(model.predict(params, rows)) for rows in blocks_of(x)])
        found = dict(centers=np.asarray(model.centers(params)), labels=labels)
        found["inertia"] = -np.asarray(result.objective)
        found["sizes"] = np.bincount(labels, minlength=model.n_clusters)
        if 2 <= (found["sizes"] > 0).sum() < len(labels):
            if len(labels) <= _MOST_PAIRED and not isinstance(x, Source):
                score = metrics.silhouette(x, labels, n_clusters=model.n_clusters)
            else:
                scores = lambda rows: metrics.centroid_silhouette_samples(
                    rows, model.predict(params, rows), found["centers"]
                )
                score = np.concatenate([scores(rows) for rows in blocks_of(x)]).mean()
            found["silhouette"] = np.asarray(score)
        return found
    found = {name: np.asarray(value) for name, value in _parameters(model, params).items()}
    found["sizes"], nearest = np.zeros(model.n_components, found["weights"].dtype), []
    for rows in blocks_of(x):
        table = np.asarray(model.responsibilities(params, rows))
        found["sizes"] += table.sum(0)
        nearest.append(table.argmax(-1))
    found["labels"] = np.concatenate(nearest)
    if not isinstance(x, Source):
        found["responsibilities"] = table
    if isinstance(model, BayesianGaussianMixture):
        found["sds"], found["sds_sd"] = posterior_sds(params.components, found["means"].shape)
    else:
        found["sds"] = np.sqrt(np.diagonal(found["covariances"], axis1=1, axis2=2))
    return found


# -- the report ----------------------------------------------------------------------------------------


def report(options: Options, result: Fit, found: dict[str, np.ndarray], names: list[str]) -> str:
    """Return the fit in words and numbers, for a terminal of 80 columns; `found` comes from `describe`."""
    data = "Old Faithful" if options.data is None else Path(options.data).name
    title = _WORDS[options.model][0]
    if options.model in _TOPICS:
        title += f", {len(found['sizes'])} topic{'s' * (len(found['sizes']) != 1)}"
        size, lines = topics.size(found), topics.table(found, names)
        lines += mention_empty(found["sizes"], "topic", "token")
        lines += [] if options.vocab else ["words are shown by their numbers; --vocab names them"]
    elif options.model in _CHAINS:
        title += f", {options.emission} output"
        size = chains.size(found, names)
        labels = None if result.columns is None else result.columns.labels
        lines = chains.table(found, names, options.emission, labels)
    else:
        title += _structure(result.model)
        size = f"{len(found['labels'])} rows, {len(names)} column{'s' * (len(names) != 1)}"
        lines = _clusters(found, names) if options.model == "kmeans" else _components(found, names)
    head = [title, f"{data}: {size}; seed {options.seed}", ""]
    return "\n".join([*head, *lines, "", *_trust(options.model, result, found)])


def _structure(model: KMeans | Clusters) -> str:
    """Return what covariances of a mixture are like, in words; nothing for k-means."""
    if isinstance(model, MixtureOfFactorAnalyzers):
        q = model.component.n_factors
        return f", {q} factor{'s' * (q != 1)}"
    return "" if isinstance(model, KMeans) else f", {model.component.covariance_type} covariance"


def _components(found: dict[str, np.ndarray], columns: list[str]) -> list[str]:
    """Return the table of the components of more than one row, heaviest first."""
    bayesian, shared = "weights_sd" in found, found.get("communalities")
    kept = np.flatnonzero(found["sizes"] > 1)
    kept = kept[np.argsort(-found["weights"][kept], kind="stable")]

    def show(name: str, at: Index | tuple[Index, Index]) -> str:
        return measure(found[name][at], found[f"{name}_sd"][at] if bayesian else None)

    table = [["component", "rows", "weight", "column", "mean", "sd"] + ["shared"] * (shared is not None)]
    for k in kept:
        head = [str(k), f"{found['sizes'][k]:.1f}", show("weights", k)]
        for j, column in enumerate(columns):
            cells = [*head, column, show("means", (k, j)), show("sds", (k, j))]
            table.append(cells if shared is None else [*cells, f"{shared[k, j]:.2f}"])
            head = ["", "", ""]
    lines = [*align(table, right=2), *mention_empty(found["sizes"], "component", "row")]
    if shared is not None:
        lines.append("shared is the part of a variance that comes from the factors")
    return [*lines, "± is one posterior standard deviation"] if bayesian else lines


def _clusters(found: dict[str, np.ndarray], columns: list[str]) -> list[str]:
    """Return the table of the clusters, largest first."""
    table = [["cluster", "rows", "column", "centre"]]
    for k in np.argsort(-found["sizes"], kind="stable"):
        head = [str(k), str(found["sizes"][k])]
        for j, column in enumerate(columns):
            table.append([*head, column, measure(found["centers"][k, j])])
            head = ["", ""]
    return align(table, right=2)


def _trust(model: str, result: Fit, found: dict[str, np.ndarray]) -> list[str]:
    """Return lines on the objective, the spread of the restarts, and the status."""
    objective, singular = (np.asarray(x) for x in (result.runs.objective, result.runs.singular))
    finite = np.isfinite(objective)
    best = float(result.objective)
    close = (np.abs(objective - best) <= 1e-4 * max(1.0, abs(best))) & ~singular
    proper = objective[finite & ~singular] if (finite & ~singular).any() else objective[finite]
    _, name, unit, sign = _WORDS[model]
    low, middle, high = np.sort(sign * np.quantile(proper.astype(float), [0, 0.5, 1]))
    status = np.asarray(result.runs.status)
    late = int((finite & (status != Status.CONVERGED)).sum())
    sweeps = f"after {int(result.n_iter)} sweep{'s' * (int(result.n_iter) != 1)}"
    notes = [
        (name, f"{sign * best:.7g}{unit} {sweeps}"),
        ("restarts", f"{objective.size}: min {low:.7g}, median {middle:.7g}, max {high:.7g}"),
        ("", f"{close.sum()} within 1e-4 of the best, {singular.sum()} singular, {late} not converged"),
        ("status", result.status.sentence),
    ]
    if model == "kmeans":
        notes.insert(1, ("silhouette", _silhouette(found)))
    if model in _TOPICS:
        notes.insert(1, ("", f"{best / found['tokens'].sum(dtype=float):.6g} nats per token"))
    if "bic" in found:
        notes.insert(1, ("BIC", f"{found['bic']:.7g} of {found['n_parameters']} parameters"))
    if not finite.all():
        why = "interrupted, " if (status == Status.INTERRUPTED).any() else ""
        notes.insert(-1, ("", f"{why}{(~finite).sum()} without a result"))
    if singular.all():
        notes.append(("", "a component has collapsed: do not trust the objective"))
    return [f"{label:<15} {text}" for label, text in notes]


def _silhouette(found: dict[str, np.ndarray]) -> str:
    """Return the silhouette and its reading, or why there is none."""
    if "silhouette" not in found:
        return "none: it compares two clusters or more"
    score = float(found["silhouette"])
    way = "" if len(found["labels"]) <= _MOST_PAIRED else " (simplified: distances to the centres)"
    return f"{score:.3f}: {metrics.silhouette_reading(score)}{way}"
