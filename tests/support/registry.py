"""One table of all models, with data and a start for each, and the compiled sweeps that the tests share.

Shapes are the same for all: a compiled program costs seconds, and a test that finds it made costs nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.own_models import (
    black_box_poisson_regression,
    mean_and_precision,
    own_hidden_markov,
    own_poisson_regression,
    own_state_space,
    own_topics,
    univariate_mixture,
    without_data,
)
from tests.support.points import modes
from tests.support.rows import (
    N_COMPONENTS,
    N_FEATURES,
    N_ROWS,
    answers,
    arrays,
    beside_covariates,
    binary,
    categories,
    column,
    corpus,
    counts,
    design,
    documents,
    grouped,
    holed,
    in_time,
    labelled_sequences,
    labels,
    lines,
    measured,
    mixed,
    planes,
    positive,
    profiles,
    sequences,
    slopes,
    table,
    words,
)
from vbjax.core.contracts import Options
from vbjax.core.ragged import by_part
from vbjax.core.rows import n_rows, rounding_error
from vbjax.families import DirichletState, NormalState

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")

every_kind = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


# ---------------------------------------------------------------- starts, as different as their seeds


def seeds(data, seed):
    """Rows, with their column's mean in the place of what is missing."""
    chosen = data[seed : seed + N_COMPONENTS]
    return jnp.where(jnp.isnan(chosen), jnp.nanmean(data, 0), chosen)


def neutral(model, data, seed):
    """What the model itself begins with where nothing is drawn."""
    return model.init(jax.random.key(seed), data)


@jax.jit
def drawn(model, data, seed):
    """Where the model itself begins, local latents drawn at random."""
    return model.init(jax.random.key(seed), data)


def perturbed(model, data, seed):
    """Components around their prior, where nothing is symmetric."""
    rng = np.random.default_rng(seed)
    noise = lambda x: x * jnp.asarray(rng.uniform(0.5, 2.0, np.shape(x)), x.dtype)
    weights = model.factors.weights.neutral(model.weights.concentration.dtype)
    components = jax.tree.map(noise, model.component.prior)
    for name in ("mean_precision", "inverse_scale"):  # matrices, and they stay such
        if hasattr(components, name):
            components = dataclasses.replace(components, **{name: getattr(model.component.prior, name)})
    return vb.Record(weights=weights, components=components)


def perturbed_points(model, data, seed):
    """The modes of such components."""
    full = perturbed(vb.BayesianMixture(model.n_components, model.component).resolve(data), data, seed)
    full |= dict(components=jax.tree.map(lambda x: 1 + x, full.components))
    return modes(model.factors, full)


def points(model, data, seed):
    """Where a point estimate of a precision may begin: not at 0."""
    one = jnp.ones((), data.dtype)
    return vb.Record(mu=vb.Delta(vb.Normal()).at(data[seed]), tau=vb.Delta(vb.Gamma()).at(one))


def normal_seeds(model, data, seed):
    means = seeds(data, seed)
    return vb.Record(mu=NormalState(means, jnp.full_like(means, 4.0)))


def weighted_seeds(model, data, seed):
    even = DirichletState(jnp.full(N_COMPONENTS, 5.0, data.dtype))
    return normal_seeds(model, data, seed) | dict(weights=even)


def weighted_points(model, data, seed):
    return modes(model.factors, weighted_seeds(model, data, seed))


def centers(model, data, seed):
    return model.params_at(seeds(data, seed))


def covariance(layout, scale):
    """Correlated, of the data's size and different for each component, in the layout of a structure."""
    sd, sizes = jnp.sqrt(scale), jnp.asarray([1.0, 0.8, 0.6], scale.dtype)
    tied = 0.7 * jnp.diag(scale) + 0.3 * sd[:, None] * sd
    return {
        "full": lambda: sizes[:, None, None] * tied,
        "tied": lambda: tied,
        "diag": lambda: sizes[:, None] * scale,
        "spherical": lambda: sizes * scale.mean(),
    }[layout]()


def mixture_points(model, data, seed):
    even = jnp.full(N_COMPONENTS, 1 / N_COMPONENTS, data.dtype)
    wide = 0.3 * covariance(model.component.structure.layout, model.component.scale)
    return model.params_at(even, seeds(data, seed), wide)


def mixture_states(model, data, seed):
    """Components of a third of the rows each."""
    count = N_ROWS / N_COMPONENTS
    wide = 0.3 * count * covariance(model.component.covariance_type, model.component.scale)
    return vb.Record(
        weights=DirichletState(jnp.full(N_COMPONENTS, count, data.dtype)),
        components=model.component.structure.state(seeds(data, seed), count, count, wide),
    )


# ---------------------------------------------------------------- the table


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model that has not seen data, a maker of data for it (None: it takes none) and a start.

    `read` makes rows of what is made, floating ones in the dtype of the test: a tree of arrays, sequences or
    documents.
    """

    model: Any
    make: Callable[[np.random.Generator], Any] | None
    start: Callable[[Any, Any, int], Any] = drawn
    read: Callable[[Any, Any], Any] = arrays

    def data(self, dtype, seed=0):
        """Rows, and weights of one; None and None for a model without data."""
        if self.make is None:
            return None, None
        rows = self.model.read(self.read(self.make(np.random.default_rng(seed)), dtype))
        return rows, jnp.ones(n_rows(rows), dtype)

    def started(self, data, weights, seed=0):
        """The model with its defaults filled in, and where its first run starts."""
        model = self.model.resolve(data, weights)
        return model, self.start(model, data, seed)


def em(kind, make=table, **options):
    return Entry(vb.GaussianMixture(N_COMPONENTS, kind, **options), make, mixture_points)


def bayes(kind, make=table, **options):
    return Entry(vb.BayesianGaussianMixture(N_COMPONENTS, kind, **options), make, mixture_states)


CONJUGATE = {
    "binary": (vb.BayesianBernoulliMixture(N_COMPONENTS), binary),
    "categories": (vb.BayesianCategoricalMixture(N_COMPONENTS, 4), categories),
    "counts": (vb.BayesianPoissonMixture(N_COMPONENTS), counts),
    "profiles": (vb.BayesianMultinomialMixture(N_COMPONENTS), profiles),
    "positive": (vb.BayesianGammaMixture(N_COMPONENTS, known_shape=3.0), positive),
    "lines": (vb.BayesianRegressionMixture(N_COMPONENTS, concentration=0.5), lines),
    "planes": (vb.BayesianMultivariateRegressionMixture(N_COMPONENTS, degrees_of_freedom=4.0), planes),
}

BY_EM = {
    "categories": (vb.CategoricalMixture(N_COMPONENTS, 4), categories),
    "counts": (vb.PoissonMixture(N_COMPONENTS), counts),
    "profiles": (vb.MultinomialMixture(N_COMPONENTS), profiles),
    "positive": (vb.GammaMixture(N_COMPONENTS, learn_shape=True), positive),
    "lines": (vb.RegressionMixture(N_COMPONENTS), lines),
    "planes": (vb.MultivariateRegressionMixture(N_COMPONENTS), planes),
}
ITEMS = dict(agree=2, colour=3)
STICKS = vb.labels.StickBreaking()
CHAINS = {
    "EM full": (vb.GaussianHMM(N_COMPONENTS), table),
    "EM EEV": (vb.GaussianHMM(N_COMPONENTS, "EEV"), table),
    "VB full, holes": (vb.BayesianGaussianHMM(N_COMPONENTS, missing=True, stickiness=1.0), holed),
    "MAP of counts": (vb.PoissonHMM(N_COMPONENTS, transition_concentration=2.0, stickiness=1.0), counts),
    "counts": (vb.BayesianPoissonHMM(N_COMPONENTS), counts),
    "EM of categories": (vb.CategoricalHMM(N_COMPONENTS, 4), categories),
    "categories": (vb.BayesianCategoricalHMM(N_COMPONENTS, 4), categories),
    "EM of positive": (vb.GammaHMM(N_COMPONENTS, learn_shape=True), positive),
    "positive": (vb.BayesianGammaHMM(N_COMPONENTS, known_shape=3.0), positive),
    "EM of binary": (vb.HiddenMarkovModel(N_COMPONENTS, vb.components.Bernoulli()), binary),
    "EM of tails": (vb.HiddenMarkovModel(N_COMPONENTS, vb.components.StudentT("diag")), table),
    "EM of factors": (vb.HiddenMarkovModel(N_COMPONENTS, vb.components.FactorAnalyzer(1, "VEI")), table),
    "EM of mixtures": (vb.MixtureHMM(2, 2), table),
    "mixtures": (vb.BayesianMixtureHMM(2, 2, "diag"), table),
    "mixtures of counts": (
        vb.BayesianHiddenMarkovModel(2, vb.components.Mixture(2, vb.components.Poisson(), weights=STICKS)),
        counts,
    ),
    "steps before, EM": (vb.AutoregressiveHMM(2), table),
    "steps before": (vb.BayesianAutoregressiveHMM(2), table),
    "a hierarchical process": (vb.HDPHiddenMarkovModel(N_COMPONENTS, vb.components.Poisson()), counts),
}
TOPICS = {
    "known concentrations": vb.LatentDirichletAllocation(2, document_sweeps=3),
    "learned concentrations": vb.LatentDirichletAllocation(
        2, learn_doc_concentration=True, learn_topic_concentration=True
    ),
    "a hierarchical process": vb.HDPTopics(3),
}


def of_sequences(model, make):
    return Entry(model, in_time(make), read=sequences)


def product():
    """A component for such rows."""
    return vb.components.Product(place=vb.components.Gaussian("full"), kind=vb.components.Categorical(4))


def half_labelled(rng):
    """The table, and the labels of every other row."""
    known = np.arange(N_ROWS) % 2 == 0
    return vb.Labelled(table(rng), np.where(known, np.arange(N_ROWS) % N_COMPONENTS, -1))


def classes_and_noise():
    """Two laws and the noise."""
    noise = (1, vb.components.Noise())
    return vb.components.Union(classes=(N_COMPONENTS - 1, vb.components.Gaussian("full")), noise=noise)


MODELS = {
    "mean and precision": Entry(vb.textbook.GaussianMeanPrecision(), column, neutral),
    "unit variance": Entry(vb.textbook.UnitVarianceMixture(N_COMPONENTS), column, normal_seeds),
    "k-means": Entry(vb.KMeans(N_COMPONENTS), table, centers),
    **{f"EM {kind}": em(kind) for kind in COVARIANCE_TYPES},
    "EM VEV": em("VEV"),
    "MAP VVE": em("VVE", mean_precision=0.5),
    "EM VEI, holes": em("VEI", holed, missing=True),
    "MAP": em("full", weight_concentration=2.0, mean_precision=0.5),
    **{f"VB {kind}": bayes(kind) for kind in COVARIANCE_TYPES},
    "least squares": Entry(vb.LinearRegression(), design, neutral),
    "linear regression": Entry(vb.BayesianLinearRegression(), design, neutral),
    "relevance": Entry(vb.ARDRegression(fit_intercept=False), design, neutral),
    "logistic": Entry(vb.BayesianLogisticRegression(), labels, neutral),
    "logistic, relevance": Entry(vb.BayesianLogisticRegression(ard=True), labels, neutral),
    "probit": Entry(vb.BayesianProbitRegression(fit_intercept=False), labels, neutral),
    "EM full, holes": em("full", holed, missing=True),
    "VB full, holes": bayes("full", holed, missing=True),
    "VB spherical, holes": bayes("spherical", holed, missing=True),
    **{f"mixture of {name}": Entry(model, make, perturbed) for name, (model, make) in CONJUGATE.items()},
    "EM of binary": Entry(vb.BernoulliMixture(N_COMPONENTS), binary, perturbed_points),
    **{f"EM of {name}": Entry(model, make) for name, (model, make) in BY_EM.items()},
    "learned shapes": Entry(
        vb.BayesianGammaMixture(N_COMPONENTS, known_shape=2.0, learn_shape=True), positive, perturbed
    ),
    "EM of factors": Entry(vb.MixtureOfFactorAnalyzers(N_COMPONENTS, 1), table),
    "VB of tails": Entry(vb.BayesianMixture(N_COMPONENTS, vb.components.StudentT()), table),
    "process of VB tied": Entry(
        vb.BayesianGaussianMixture(N_COMPONENTS, "tied", weight_prior="dirichlet_process"), table, drawn
    ),
    "EM of a product": Entry(vb.Mixture(N_COMPONENTS, product()), mixed, drawn),
    "VB of a product": Entry(vb.BayesianMixture(N_COMPONENTS, product()), mixed, drawn),
    "VB of classes and noise": Entry(vb.BayesianMixture(N_COMPONENTS, classes_and_noise()), table, drawn),
    "VB of known labels": Entry(
        vb.BayesianMixture(N_COMPONENTS, vb.components.Gaussian("full")), half_labelled, drawn
    ),
    "EM of gates": Entry(
        vb.Mixture(N_COMPONENTS, vb.components.Gaussian("diag"), vb.labels.Gated()), beside_covariates
    ),
    "VB of gates": Entry(
        vb.BayesianMixture(N_COMPONENTS, vb.components.Gaussian("diag"), vb.labels.Gated()), beside_covariates
    ),
    "EM of items": Entry(vb.LatentClass(2, ITEMS), answers),
    "VB of items": Entry(vb.BayesianLatentClass(2, ITEMS), answers),
    "mean field table": Entry(
        vb.textbook.MeanFieldTable(np.sin(np.arange(24.0)).reshape(2, 3, 4)), None, neutral
    ),
    "PPCA": Entry(vb.PPCA(1), table),
    "factor analysis, missing": Entry(vb.FactorAnalysis(1, missing=True), holed, neutral),
    "Bayesian PCA": Entry(vb.BayesianPCA(N_FEATURES), table, neutral),
    "Student-t": Entry(vb.textbook.RobustNormal(3.0), column, neutral),
    "hierarchical": Entry(vb.textbook.HierarchicalNormal(), measured, neutral),
    "random effects": Entry(vb.textbook.RandomEffects(N_COMPONENTS + 1), grouped, neutral),
    "mean field Gaussian": Entry(
        vb.textbook.MeanFieldGaussian(np.arange(3.0), np.eye(3) + 0.5), None, neutral
    ),
    "own, two blocks": Entry(mean_and_precision(), column, neutral),
    "own, points": Entry(mean_and_precision(vb.Delta(vb.Normal()), vb.Delta(vb.Gamma())), column, points),
    "own, local": Entry(univariate_mixture(), column, weighted_seeds),
    "own, local, points": Entry(univariate_mixture(vb.Delta), column, weighted_points),
    "own, no data": Entry(without_data(), None, neutral),
    "own, locals that interact": Entry(own_topics(), words),
    "own, not conjugate": Entry(own_poisson_regression(N_FEATURES), slopes),
    "own, states in time": of_sequences(own_hidden_markov(), counts),
    "own, vectors in time": of_sequences(own_state_space(1, N_FEATURES), table),
    "black box": Entry(black_box_poisson_regression(N_FEATURES), slopes),
    "black box, low rank": Entry(
        black_box_poisson_regression(N_FEATURES, family=vb.blackbox.low_rank(1)), slopes
    ),
    **{f"HMM of {name}": of_sequences(*entry) for name, entry in CHAINS.items()},
    "HMM of known states": Entry(
        vb.BayesianPoissonHMM(N_COMPONENTS), in_time(counts), read=labelled_sequences
    ),
    "state space": of_sequences(vb.LinearGaussianStateSpace(1), holed),
    "state space, full": of_sequences(vb.LinearGaussianStateSpace(1, "full"), table),
    "VB state space": of_sequences(vb.BayesianLinearGaussianStateSpace(1), holed),
    **{f"topics, {name}": Entry(model, corpus, read=documents) for name, model in TOPICS.items()},
}


def with_hyper(model, **values):
    """A model with other hyperparameters, whatever its kind."""
    return model.replace(**values)


def scaled_hyper(model, factor=1.3):
    """A resolved model with other values of all its hyperparameters."""
    return jax.tree.map(lambda leaf: factor * leaf, model)


# ---------------------------------------------------------------- programs


class Updates(NamedTuple):
    """What was before each of some updates, and came of it.

    Attributes:
        params: the parameters, one leading axis of updates.
        whole: those that a step of all factors at once makes of them.
        objective: (n,), theirs.
        error: (n,), the rounding error of the objective.
        total: the expectation that scored them; None where the algorithm is not coordinate ascent.
    """

    params: Any
    whole: Any
    objective: Any
    error: Any
    total: Any = None


def one_update(model, params, data, weights, local, which):
    """Score the parameters, and move one factor; what is carried on, and what was before."""
    total = vb.core.expectation(model, params, data, weights, local)
    objective, magnitude = model.scored(params, total)
    moved = [model.m_step(params, total.statistics, (name,)) for name in model.factors]
    after = jax.tree.map(lambda *x: jnp.stack(x)[which], *moved)
    whole = vb.Record({name: own[name] for name, own in zip(model.factors, moved, strict=True)})
    seen = Updates(params, whole, objective, rounding_error(magnitude), total._replace(local=None))
    return (after, total.local), seen


def is_conjugate(model):
    return isinstance(model, vb.core.ConjugateModel) and not model.guarded(model.factors)


def begin(model, params, data, weights):
    """What is carried from update to update, and the data of a fit."""
    data = None if data is None else model.annotate(data, weights)
    if is_conjugate(model):
        local = by_part(model.neutral_local, data) if model.interacting_locals else None
        return (vb.Record(params), local), data
    return model.algorithm(data, Options(tol=0.0)).start(params, data), data


def advance(model, carry, data, weights, which):
    """Move what is carried by one update."""
    if is_conjugate(model):
        return one_update(model, carry[0], data, weights, carry[1], which)
    state, info = model.algorithm(data, Options(tol=0.0)).step(carry, data, weights)
    return state, Updates(info.params, None, info.objective, info.error)


@functools.partial(jax.jit, static_argnames="n")
def updates(model, params, data, weights, n=18):
    """Updates of one factor after another; steps of the model's algorithm where some are not conjugate."""
    carry, data = begin(model, params, data, weights)
    number = len(model.factors) if is_conjugate(model) else 1
    move = lambda carry, which: advance(model, carry, data, weights, which)
    return jax.lax.scan(move, carry, jnp.arange(n) % number)[1]


@functools.partial(jax.jit, static_argnames="n_sweeps")
def sweeps(model, params, data, weights=None, n_sweeps=8):
    """Coordinate ascent without a stopping rule.

    Returns:
        The parameters after the sweeps; the objective (n_sweeps, blocks) before every single block update;
        the rounding error of the objectives.
    """

    def sweep(params, _):
        scores = []
        for block in model.blocks:
            total = vb.core.expectation(model, params, data, weights)
            objective, magnitude = model.scored(params, total)
            scores.append((objective, rounding_error(magnitude)))
            params = model.m_step(params, total.statistics, block)
        return params, tuple(map(jnp.stack, zip(*scores, strict=True)))

    params, (objective, error) = jax.lax.scan(sweep, vb.Record(params), length=n_sweeps)
    return params, objective, error


@jax.jit
def score(model, params, data, weights=None):
    """The objective of given parameters."""
    return model.objective(params, vb.core.expectation(model, params, data, weights))


def swept(name):
    """A model of the table in float64, its rows and their weights, and parameters some sweeps on."""
    data, weights = MODELS[name].data("float64")
    model, params = MODELS[name].started(data, weights)
    return model, data, weights, sweeps(model, params, data, weights)[0]


@functools.partial(jax.jit, static_argnames="kind")
def read_out(model, params, kind):
    """Weights, means and covariances as scikit-learn has them, those of `kind` once each."""
    full = model.covariances(params)  # of a mixture, or of a component alone
    shaped = {
        "full": lambda: full,
        "tied": lambda: full[0],
        "diag": lambda: jnp.diagonal(full, axis1=1, axis2=2),
        "spherical": lambda: full[:, 0, 0],
    }[kind]()
    weights = params.weights.mean if "weights" in params else None
    return weights, model.means(params), shaped
