"""One table of all models, with data and a start for each, and the compiled sweeps that the tests share.

Shapes are the same for all: a compiled program costs seconds, and a test that finds it made costs nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from vbjax import terms
from vbjax.core.rows import rounding_error
from vbjax.families import DeltaState, DirichletState, GammaState, NormalState

N_ROWS, N_COMPONENTS, N_FEATURES = 40, 3, 2  # all different, so that no axis passes for another
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")

every_kind = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


# ---------------------------------------------------------------- data


def table(rng):
    """Rows around three centres, (n, d); the first three rows are of different ones."""
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    c = np.arange(N_ROWS) % N_COMPONENTS
    return centres[c] + rng.normal(size=(N_ROWS, N_FEATURES)) * np.array([1.0, 0.7])


def holed(rng):
    """The table with a third of its entries missing; the first rows are whole, and nothing is in the last."""
    x = table(rng)
    gone = rng.uniform(size=x.shape) < 1 / 3
    gone[:5], gone[-1] = False, True
    return np.where(gone, np.nan, x)


def column(rng):
    """The first column of the table, (n,)."""
    return table(rng)[:, 0]


def design(rng):
    """A table, and a column that depends on it: (x, y)."""
    x = table(rng)
    return x, x @ [1.0, -0.5] + 2.0 + 0.5 * rng.normal(size=N_ROWS)


def labels(rng):
    """A table, and 0 or 1 for each row, which no plane separates."""
    x, y = design(rng)
    return x, (y + 3 * rng.normal(size=N_ROWS) > 2.0).astype("int32")


def classes(rng, low, high):
    """One of two numbers for each row and column, as the row's class has it, (n, d)."""
    pattern = np.array([[low, low], [low, high], [high, high]])
    return pattern[np.arange(N_ROWS) % N_COMPONENTS]


def binary(rng):
    return (rng.uniform(size=(N_ROWS, N_FEATURES)) < classes(rng, 0.1, 0.9)).astype(float)


def counts(rng):
    return rng.poisson(classes(rng, 2.0, 9.0)).astype(float)


def profiles(rng):
    p = np.column_stack([classes(rng, 0.1, 0.4), np.full(N_ROWS, 0.2)])
    return np.array([rng.multinomial(6, q / q.sum()) for q in p]).astype(float)


def categories(rng):
    high = rng.uniform(size=(N_ROWS, N_FEATURES)) < classes(rng, 0.1, 0.9)
    return rng.integers(0, 2, (N_ROWS, N_FEATURES)) + 2 * high


def positive(rng):
    return rng.gamma(3.0, classes(rng, 1.0, 5.0))


def lines(rng):
    x = rng.normal(size=(N_ROWS, N_FEATURES))
    y = (x * classes(rng, -2.0, 2.0)).sum(1) + 0.3 * rng.normal(size=N_ROWS)
    return x, y


def planes(rng):
    """Two responses of such lines, whose noise is correlated."""
    x, y = lines(rng)
    other = (x * classes(rng, 1.0, -1.0)).sum(1) + 0.3 * rng.normal(size=N_ROWS)
    return x, np.stack([y, 0.5 * y + other], 1)


def measured(rng):
    """A column, and a standard error for each of its rows."""
    return column(rng), rng.uniform(0.5, 2.0, size=N_ROWS)


def grouped(rng):
    """A column, and the number of each row's group; the last group is empty."""
    return column(rng), np.arange(N_ROWS) % N_COMPONENTS


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
    return vb.Record({name: DeltaState(at) for name, at in full.items()}) | dict(
        components=DeltaState(jax.tree.map(lambda x: 1 + x, full["components"]))
    )


def points(model, data, seed):
    """Where a point estimate of a precision may begin: not at 0."""
    one = jnp.ones((), data.dtype)
    return vb.Record(mu=DeltaState(NormalState(data[seed], one)), tau=DeltaState(GammaState(2 * one, one)))


def normal_seeds(model, data, seed):
    means = seeds(data, seed)
    return vb.Record(mu=NormalState(means, jnp.full_like(means, 4.0)))


def weighted_seeds(model, data, seed):
    even = DirichletState(jnp.full(N_COMPONENTS, 5.0, data.dtype))
    return normal_seeds(model, data, seed) | dict(weights=even)


def weighted_points(model, data, seed):
    return vb.Record({name: DeltaState(at) for name, at in weighted_seeds(model, data, seed).items()})


def centers(model, data, seed):
    return model.params_at(seeds(data, seed))


def covariance(kind, scale):
    """Correlated, of the data's size and different for each component, as a mixture of this kind takes it."""
    sd, sizes = jnp.sqrt(scale), jnp.asarray([1.0, 0.8, 0.6], scale.dtype)
    tied = 0.7 * jnp.diag(scale) + 0.3 * sd[:, None] * sd
    return {
        "full": lambda: sizes[:, None, None] * tied,
        "tied": lambda: tied,
        "diag": lambda: sizes[:, None] * scale,
        "spherical": lambda: sizes * scale.mean(),
    }[kind]()


def mixture_points(model, data, seed):
    even = jnp.full(N_COMPONENTS, 1 / N_COMPONENTS, data.dtype)
    return model.params_at(
        even, seeds(data, seed), 0.3 * covariance(model.component.covariance_type, model.component.scale)
    )


def mixture_states(model, data, seed):
    """Components of a third of the rows each."""
    count = N_ROWS / N_COMPONENTS
    wide = 0.3 * count * covariance(model.component.covariance_type, model.component.scale)
    return vb.Record(
        weights=DirichletState(jnp.full(N_COMPONENTS, count, data.dtype)),
        components=model.component.structure.state(seeds(data, seed), count, count, wide),
    )


# ---------------------------------------------------------------- the table


def in_float(x, dtype):
    """An array, in `dtype` if it is a floating one."""
    return jnp.asarray(x, dtype if np.issubdtype(np.asarray(x).dtype, np.floating) else "int32")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model that has not seen data, a maker of data for it (None: it takes none) and a start.

    The data are one array or a tree of arrays, whose floating leaves take the dtype of the test.
    """

    model: Any
    make: Callable[[np.random.Generator], Any] | None
    start: Callable[[Any, Any, int], Any]

    def data(self, dtype, seed=0):
        """Rows, and weights of one; None and None for a model without data."""
        if self.make is None:
            return None, None
        rows = self.make(np.random.default_rng(seed))
        return jax.tree.map(lambda x: in_float(x, dtype), rows), jnp.ones(N_ROWS, dtype)

    def started(self, data, weights, seed=0):
        """The model with its defaults filled in, and where its first run starts."""
        model = self.model.resolve(data, weights)
        return model, self.start(model, data, seed)


def location_prior(s):
    return terms.normal(s.mu, s.mu0, s.tau0 * s.tau) + terms.gamma(s.tau, s.a, s.b)


def location_rows(s, x):
    return terms.normal(x, s.mu, s.tau)


def mean_and_precision(mu=None, tau=None):
    """The mean and precision of a normal, as a model of one's own."""
    return vb.Model(
        factors=dict(mu=mu or vb.Normal(), tau=tau or vb.Gamma()),
        log_prior=location_prior,
        log_likelihood=location_rows,
        hyper=dict(mu0=0.0, tau0=0.1, a=2.0, b=1.0),
    )


def mixture_prior(s):
    return terms.dirichlet(s.weights, s.concentration) + terms.normal(s.mu, 0.0, s.tau0).sum()


def mixture_rows(s, x):
    rows = terms.normal(x[:, None], s.mu, s.noise)
    return terms.categorical(s.c, s.weights) + (s.c.p * rows).sum(-1)


def univariate_mixture(of=lambda family: family):
    """Normals of one known precision, with unknown weights and means; `of` makes points of factors."""
    return vb.Model(
        factors=dict(weights=of(vb.Dirichlet(N_COMPONENTS)), mu=of(vb.Normal((N_COMPONENTS,)))),
        local=dict(c=of(vb.Categorical(N_COMPONENTS))),
        log_prior=mixture_prior,
        log_likelihood=mixture_rows,
        hyper=dict(concentration=2.0, tau0=0.1, noise=1.5),
        blocks=(("weights", "mu"),),
    )


def scale_prior(s):
    return terms.gamma(s.tau, s.a, s.b) + terms.normal(s.mu, s.mu0, s.tau0 * s.tau).sum()


def without_data():
    """Interacting factors and no rows: the bound approximates the prior itself, log 1."""
    return vb.Model(
        factors=dict(mu=vb.Normal((N_COMPONENTS,)), tau=vb.Gamma()),
        log_prior=scale_prior,
        hyper=dict(mu0=1.0, tau0=2.0, a=3.0, b=1.0),
    )


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


def mixed(rng):
    """A table, and categories beside it: columns of different kinds."""
    return dict(place=table(rng), kind=categories(rng))


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
    "mean and precision": Entry(vb.GaussianMeanPrecision(), column, neutral),
    "unit variance": Entry(vb.UnitVarianceMixture(N_COMPONENTS), column, normal_seeds),
    "k-means": Entry(vb.KMeans(N_COMPONENTS), table, centers),
    **{f"EM {kind}": em(kind) for kind in COVARIANCE_TYPES},
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
    "learned shapes": Entry(
        vb.BayesianGammaMixture(N_COMPONENTS, known_shape=2.0, learn_shape=True), positive, perturbed
    ),
    "process of VB tied": Entry(
        vb.BayesianGaussianMixture(N_COMPONENTS, "tied", weight_prior="dirichlet_process"), table, drawn
    ),
    "EM of a product": Entry(vb.Mixture(N_COMPONENTS, product()), mixed, drawn),
    "VB of a product": Entry(vb.BayesianMixture(N_COMPONENTS, product()), mixed, drawn),
    "VB of classes and noise": Entry(vb.BayesianMixture(N_COMPONENTS, classes_and_noise()), table, drawn),
    "VB of known labels": Entry(
        vb.BayesianMixture(N_COMPONENTS, vb.components.Gaussian("full")), half_labelled, drawn
    ),
    "mean field table": Entry(vb.MeanFieldTable(np.sin(np.arange(24.0)).reshape(2, 3, 4)), None, neutral),
    "factor analysis, missing": Entry(vb.FactorAnalysis(1, missing=True), holed, neutral),
    "Bayesian PCA": Entry(vb.BayesianPCA(N_FEATURES), table, neutral),
    "Student-t": Entry(vb.RobustNormal(3.0), column, neutral),
    "hierarchical": Entry(vb.HierarchicalNormal(), measured, neutral),
    "random effects": Entry(vb.RandomEffects(N_COMPONENTS + 1), grouped, neutral),
    "own, two blocks": Entry(mean_and_precision(), column, neutral),
    "own, points": Entry(mean_and_precision(vb.Delta(vb.Normal()), vb.Delta(vb.Gamma())), column, points),
    "own, local": Entry(univariate_mixture(), column, weighted_seeds),
    "own, local, points": Entry(univariate_mixture(vb.Delta), column, weighted_points),
    "own, no data": Entry(without_data(), None, neutral),
}


def with_hyper(model, **values):
    """A model with other hyperparameters, whatever its kind."""
    return model.replace(**values)


def scaled_hyper(model, factor=1.3):
    """A resolved model with other values of all its hyperparameters."""
    return jax.tree.map(lambda leaf: factor * leaf, model)


# ---------------------------------------------------------------- programs


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
            total = vb.expectation(model, params, data, weights)
            objective, magnitude = model.scored(params, total)
            scores.append((objective, rounding_error(magnitude)))
            params = model.m_step(params, total.statistics, block)
        return params, tuple(map(jnp.stack, zip(*scores, strict=True)))

    params, (objective, error) = jax.lax.scan(sweep, vb.Record(params), length=n_sweeps)
    return params, objective, error


def score(model, params, data, weights=None):
    """The objective of given parameters."""
    return model.objective(params, vb.expectation(model, params, data, weights))


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
