"""Good arguments, by name: small data of few shapes, a model of every kind with data for it, and fits.

Everything is made when it is asked for, once a process. For `subjects`.
"""

from __future__ import annotations

import functools
import operator
import os
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from vbjax import blackbox as bb
from vbjax.terms import gamma, normal

N, D, K = 24, 2, 2


def _draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def _table() -> np.ndarray:
    centers = np.array([[0.0, 0.0], [4.0, 1.0]])[np.arange(N) % K]
    return (centers + _draws().normal(size=(N, D))).astype("float32")


def _counts() -> np.ndarray:
    return _draws().poisson(np.array([[2.0, 3.0], [9.0, 5.0]])[np.arange(N) % K]).astype("float32")


def _labels() -> np.ndarray:
    return (np.arange(N) % K).astype("int32")


def _document_table() -> np.ndarray:
    return _draws().poisson(1.5, size=(6, 5)) + np.eye(6, 5, dtype=int)


OWN: dict[str, Any] = dict(  # mean and precision of a normal, by hand
    factors=dict(mu=vb.Normal(), tau=vb.Gamma()),
    hyper=dict(mu0=0.0, tau0=0.1, a=2.0, b=1.0),
    log_prior=lambda s: normal(s.mu, s.mu0, s.tau0 * s.tau) + gamma(s.tau, s.a, s.b),
    log_likelihood=lambda s, x: normal(x, s.mu, s.tau),
)


def own_model(**other: Any) -> vb.Model:
    """A model by hand."""
    return vb.Model(**(OWN | other))


def log_density(s: Any, data: Any = None) -> Any:
    """Of a normal and a positive latent, which are not independent."""
    return -0.5 * ((s.x - 1) ** 2).sum() - s.scale - 0.1 * s.scale * (s.x**2).sum()


SUPPORT = dict(x=vb.real(2), scale=vb.positive())

# every component and all labels: what they must be given, and data of a mixture with them
COMPONENTS: dict[str, tuple[dict[str, Any], str]] = {
    "Autoregression": ({}, "series"),
    "Bernoulli": ({}, "binary"),
    "Categorical": ({}, "categories"),
    "FactorAnalyzer": (dict(n_factors=1), "table"),
    "Gamma": ({}, "positives"),
    "Gaussian": ({}, "table"),
    "Mixture": (dict(n_components=K, component=vb.components.Gaussian()), "series"),
    "Multinomial": ({}, "counts"),
    "MultivariateRegression": ({}, "planes"),
    "Noise": ({}, "table"),
    "Poisson": ({}, "counts"),
    "Product": (dict(height=vb.components.Gaussian(), visits=vb.components.Poisson()), "mixed"),
    "Regression": ({}, "design"),
    "StudentT": ({}, "table"),
    "Union": (dict(classes=(1, vb.components.Gaussian()), noise=(1, vb.components.Noise())), "table"),
}
UNNAMED = ("Autoregression", "FactorAnalyzer", "Gaussian", "Mixture", "Noise", "Product", "StudentT", "Union")
LABELS: dict[str, tuple[dict[str, Any], str]] = {
    "Chain": ({}, "series"),
    "Gated": ({}, "planes"),
    "HDPChain": ({}, "series"),
    "StickBreaking": ({}, "table"),
    "Weights": ({}, "table"),
}

# a model of every kind: what it must be given, and its data
MODELS: dict[str, tuple[dict[str, Any], str]] = {
    "KMeans": (dict(n_clusters=K), "table"),
    "GaussianMixture": (dict(n_components=K), "table"),
    "BayesianGaussianMixture": (dict(n_components=K), "table"),
    "Mixture": (dict(n_components=K, component=vb.components.Gaussian()), "table"),
    "BayesianMixture": (dict(n_components=K, component=vb.components.Poisson()), "counts"),
    **{
        f"{bayesian}{name}Mixture": (dict(n_components=K), COMPONENTS[name][1])
        for name in COMPONENTS
        if name not in UNNAMED
        for bayesian in ("", "Bayesian")
    },
    "MixtureOfFactorAnalyzers": (dict(n_components=K, n_factors=1), "table"),
    "LatentClass": (dict(n_components=K, items=dict(agree=2, colour=3)), "answers"),
    "BayesianLatentClass": (dict(n_components=K, items=dict(agree=2, colour=3)), "answers"),
    "LinearRegression": ({}, "design"),
    "BayesianLinearRegression": ({}, "design"),
    "ARDRegression": ({}, "design"),
    "BayesianLogisticRegression": ({}, "labelled"),
    "BayesianProbitRegression": ({}, "labelled"),
    "PPCA": (dict(n_components=1), "table"),
    "FactorAnalysis": (dict(n_components=1), "table"),
    "BayesianPCA": (dict(n_components=1), "table"),
    "textbook.RobustNormal": ({}, "column"),
    "textbook.HierarchicalNormal": ({}, "measured"),
    "textbook.RandomEffects": (dict(n_groups=3), "grouped"),
    "textbook.GaussianMeanPrecision": ({}, "column"),
    "textbook.UnitVarianceMixture": (dict(n_components=K), "column"),
    "LatentDirichletAllocation": (dict(n_topics=K), "documents"),
    "HDPTopics": (dict(n_topics=K), "documents"),
    "GaussianHMM": (dict(n_states=K), "series"),
    "BayesianGaussianHMM": (dict(n_states=K), "series"),
    "PoissonHMM": (dict(n_states=K), "count_series"),
    "BayesianPoissonHMM": (dict(n_states=K), "count_series"),
    "CategoricalHMM": (dict(n_states=K), "category_series"),
    "BayesianCategoricalHMM": (dict(n_states=K), "category_series"),
    "GammaHMM": (dict(n_states=K), "positive_series"),
    "BayesianGammaHMM": (dict(n_states=K), "positive_series"),
    "AutoregressiveHMM": (dict(n_states=K), "series"),
    "BayesianAutoregressiveHMM": (dict(n_states=K), "series"),
    "HiddenMarkovModel": (dict(n_states=K, component=vb.components.Gaussian()), "series"),
    "BayesianHiddenMarkovModel": (dict(n_states=K, component=vb.components.Gaussian()), "series"),
    "HDPHiddenMarkovModel": (dict(n_states=K, component=vb.components.Gaussian()), "series"),
    "MixtureHMM": (dict(n_states=K, n_components=K), "series"),
    "BayesianMixtureHMM": (dict(n_states=K, n_components=K), "series"),
    "LinearGaussianStateSpace": (dict(n_latent=1), "number_series"),
    "BayesianLinearGaussianStateSpace": (dict(n_latent=1), "number_series"),
    "textbook.MeanFieldTable": (dict(log_joint=np.sin(np.arange(6.0)).reshape(2, 3)), "nothing"),
    "textbook.MeanFieldGaussian": (
        dict(mean=np.zeros(2), precision=np.array([[2.0, 0.5], [0.5, 1.0]])),
        "nothing",
    ),
    "BlackBox": (dict(log_density=log_density, support=SUPPORT), "any_data"),
}


def maker(name: str) -> Any:
    """The public class of this name, of `vb` or of a module in it."""
    return operator.attrgetter(name)(vb)


def model(name: str, **hyper: Any) -> Any:
    """A model of the table, or the one written by hand."""
    return own_model(**hyper) if name == "Model" else maker(name)(**(MODELS[name][0] | hyper))


def data_of(name: str) -> Any:
    """Data for it."""
    return good("column" if name == "Model" else MODELS[name][1])


def fit_of(model: Any, data: Any, **how: Any) -> Any:
    """A short fit, as all are here."""
    return vb.fit(model, data, **(dict(key=jax.random.key(0), max_iter=3) | how))


@functools.cache
def fitted(name: str) -> Any:
    """The fit of a model of the table."""
    return fit_of(model(name), data_of(name))


def _file(name: str, text: str) -> str:
    where = os.path.join(tempfile.mkdtemp(prefix="fuzz"), name)
    with open(where, "w") as file:
        file.write(text)
    return where


def _saved() -> str:
    where = _file("fit.vbjax", "")
    fitted("GaussianMixture").save(where)
    return where


def _csv() -> str:
    lines = [f"{a:.4f},{b:.4f},{i % 2}" for i, (a, b) in enumerate(_table())]
    return _file("table.csv", "\n".join(["length,mass,who", *lines]) + "\n")


def _chain() -> tuple[np.ndarray, ...]:
    return np.full(2, 0.5, "float32"), np.array([[0.9, 0.1], [0.2, 0.8]], "float32"), _table()


def _state(family: Any) -> Any:
    return family.neutral(jnp.float32)


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().subplots()


def _figure() -> Any:
    from matplotlib.figure import Figure

    return Figure()


GOOD: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "any_data": lambda: None,
    "table": _table,
    "column": lambda: _table()[:, 0],
    "counts": _counts,
    "mixed": lambda: dict(height=_table(), visits=_counts()),
    "answers": lambda: dict(agree=_labels()[:, None] % 2, colour=1.0 * (np.arange(N)[:, None] % 3)),
    "binary": lambda: (_table() > 1).astype("float32"),
    "categories": lambda: (_table() > 1).astype("int32") + (_table() > 3),
    "positives": lambda: np.exp(0.3 * _table()),
    "labels": _labels,
    "ones": lambda: np.ones(N, "float32"),
    "design": lambda: (
        _table(),
        _table() @ np.array([1.0, -0.5], "float32") + np.sin(np.arange(N, dtype="float32")),
    ),
    "planes": lambda: (_table(), _table()[::-1].copy()),
    "labelled": lambda: (_table(), (np.arange(N) // 2 % 2).astype("int32")),
    "measured": lambda: (_table()[:, 0], np.linspace(0.5, 2, N, dtype="float32")),
    "grouped": lambda: (_table()[:, 0], (np.arange(N) % 3).astype("int32")),
    "series": _table,
    "number_series": _table,
    "count_series": _counts,
    "category_series": lambda: (_table() > 1).astype("int32") + (_table() > 3),
    "positive_series": lambda: np.exp(0.3 * _table()),
    "documents": lambda: vb.Documents.of(_document_table()),
    "corpus": _document_table,
    "tokens": lambda: [["to", "be", "or", "not", "to", "be"], ["be"]],
    "vocabulary": lambda: ["a", "b", "c", "d", "e"],
    "sequences": lambda: vb.Sequences.of([_table()[:10], _table()[10:]]),
    "key": lambda: jax.random.key(0),
    "csv": _csv,
    "saved": _saved,
    "new_file": lambda: _file("new.vbjax", ""),
    "ldac": lambda: _file("corpus.ldac", "2 0:1 3:2\n1 1:4\n3 0:1 2:2 4:1\n"),
    "words": lambda: _file("words.txt", "a\nb\nc\nd\ne\n"),
    "initial": lambda: _chain()[0],
    "transitions": lambda: _chain()[1],
    "log_likelihood": lambda: _chain()[2],
    "precision": lambda: np.tile(np.array([[3.0, 0.2], [0.2, 3.0]], "float32"), (N, 1, 1)),
    "coupling": lambda: np.tile(np.array([[0.5, 0.0], [0.1, 0.5]], "float32"), (N - 1, 1, 1)),
    "zeros2": lambda: np.zeros(2, "float32"),
    "eye2": lambda: np.eye(2, dtype="float32"),
    "simplex2": lambda: np.array([0.3, 0.7], "float32"),
    "centers": lambda: _table()[:K],
    "labellings": lambda: {2: _labels(), 3: np.arange(N) % 3},
    "probabilities": lambda: np.full(5, 0.2, "float32"),
    "topics": lambda: fitted("LatentDirichletAllocation").params.topics,
    "top_ids": lambda: np.array([[0, 1, 2], [2, 3, 4]]),
    "paths": lambda: [_labels(), _labels()[:9]],
    "shares": lambda: np.tile(np.array([[0.3, 0.7]], "float32"), (6, 1)),
    "axes": _axes,
    "figure": _figure,
    "support": lambda: SUPPORT,
    "positive_support": lambda: vb.positive(),
    "log_density": lambda: log_density,
    "log_ratios": lambda: _draws().normal(size=200).astype("float32"),
    "draws_by_rows": lambda: np.linspace(-2, -1, 600, dtype="float32").reshape(200, 3) ** 2,
    "draws2": lambda: np.ones((3, 2), "float32"),
    "own": own_model,
    "own_draws": lambda: vb.sample_posterior(good("own_params"), jax.random.key(0), 4),
    "own_fit": lambda: fit_of(own_model(), good("column")),
    "own_params": lambda: good("own_fit").params,
    "own_statistics": lambda: vb.engine.statistics(own_model(), good("own_params"), good("column")),
    "optimum": lambda: vb.fit(own_model(), good("column"), key=jax.random.key(0)).params,
    "black_box": lambda: model("BlackBox"),
    "encoder": lambda: jax.tree_util.Partial(lambda a, x: (a * x, a + x), jnp.ones(1)),
    "black_box_params": lambda: fitted("BlackBox").params,
    "location_scale": lambda: bb.LocationScale(jnp.zeros(2), jnp.ones(2), bb.scales.Diagonal()),
    "normal_family": vb.Normal,
    "maker": lambda: vb.GaussianMixture,
    "grid": lambda: dict(n_components=[1, 2]),
    "bic": lambda: "bic",
    "choice": lambda: vb.select(
        vb.GaussianMixture, good("table"), good("grid"), key=jax.random.key(0), n_restarts=2
    ),
    "optimizer": lambda: __import__("optax").adam(0.05),
    "coordinate_ascent": lambda: vb.core.CoordinateAscent(own_model(), jnp.float32(1e-6)),
}


def good(name: str) -> Any:
    """A good argument: of the list, or `fit:NAME`, `params:NAME`, `model:NAME` of a model."""
    fresh = name in ("axes", "figure")  # they are drawn on
    return GOOD[name]() if fresh else _good(name)


@functools.cache
def _good(name: str) -> Any:
    if name in GOOD:
        return GOOD[name]()
    what, _, of = name.partition(":")
    if what == "fit":
        return fitted(of)
    if what == "params":
        return fitted(of).params
    if what == "model":
        return fitted(of).model
    if what == "raw":
        return model(of)
    if what == "state":
        return FAMILIES[of]().neutral(jnp.float32)
    if what == "draw":
        return FAMILIES[of]().neutral(jnp.float32).sample(jax.random.key(0))
    raise KeyError(name)


FAMILIES: dict[str, Callable[[], Any]] = {
    "Beta": vb.Beta,
    "Categorical": vb.Categorical,
    "Delta": lambda: vb.Delta(vb.Normal()),
    "Dirichlet": vb.Dirichlet,
    "Gamma": vb.Gamma,
    "GaussMarkov": lambda: vb.GaussMarkov(2, steps=3),
    "MarkovChain": lambda: vb.MarkovChain(2, steps=3),
    "MatrixNormalWishart": lambda: vb.MatrixNormalWishart(2, 2),
    "MultivariateNormal": lambda: vb.MultivariateNormal(2),
    "MultivariateNormalGamma": lambda: vb.MultivariateNormalGamma(2),
    "Normal": vb.Normal,
    "NormalGamma": vb.NormalGamma,
    "NormalWishart": lambda: vb.NormalWishart(2),
    "PolyaGamma": vb.PolyaGamma,
    "StickBreaking": vb.StickBreaking,
    "TruncatedNormal": vb.TruncatedNormal,
    "Wishart": lambda: vb.Wishart(2),
}

# numbers and names
GOOD.update(
    {
        name: (lambda value=value: value)
        for name, value in dict(
            zero=0.0,
            one=1,
            two=2,
            three=3,
            five=5,
            eight=8,
            even=16,
            twentyfour=24,
            hundred=100,
            third=0.3,
            most=0.7,
            tolerance=1e-3,
            false=False,
            zero_count=0,
            full_rank="full_rank",
            mean_field="mean_field",
            sticking="sticking_the_landing",
            independent="independent",
            two_names=["length", "mass"],
            csv_names=["length", "mass"],
            one_name=["only"],
            features=[0, 1],
            two_rows=[0, 2],
            two_sequences=[0, 1],
            who="who",
            some_words=["to", "be"],
            lengths=[10, 14],
            float32="float32",
            states=[[0, 1, 1]],
        ).items()
    }
)
GOOD.update(
    normal=lambda: vb.Normal(),
    three_rows=lambda: _table()[:3],
    own_factors=lambda: OWN["factors"],
    own_hyper=lambda: OWN["hyper"],
    own_prior=lambda: OWN["log_prior"],
    own_likelihood=lambda: OWN["log_likelihood"],
    case=lambda: vb.Categorical(2).neutral(jnp.float32).expected(),
    path_of_states=lambda: vb.MarkovChain(2, steps=3).neutral(jnp.float32).expected(),
    path_of_vectors=lambda: vb.GaussMarkov(2, steps=3).neutral(jnp.float32).expected(),
    omega=lambda: vb.PolyaGamma().neutral(jnp.float32).expected(),
    joint_gamma=lambda: vb.NormalGamma().neutral(jnp.float32).expected(),
    joint_wishart=lambda: vb.NormalWishart(2).neutral(jnp.float32).expected(),
    vector_gamma=lambda: vb.MultivariateNormalGamma(2).neutral(jnp.float32).expected(),
    matrix_wishart=lambda: vb.MatrixNormalWishart(2, 2).neutral(jnp.float32).expected(),
    multinomial_counts=lambda: np.array([1.0, 2.0], "float32"),
    weight_rows=lambda: vb.MultivariateNormal(2, plate=(2,)).neutral(jnp.float32).expected(),
    location_vector=lambda: vb.MultivariateNormal(2, plate=(3,)).neutral(jnp.float32).expected(),
    six_ones=lambda: np.ones(6, "float32"),
    one_weight=lambda: np.ones(1, "float32"),
    devices=lambda: jax.devices(),
    discrete=lambda: dict(c=vb.category(2)),
    log_density_of_case=lambda: lambda s, data=None: -0.5 * (s.x**2).sum() + s.c * s.x.sum(),
    topic_table=lambda: np.asarray(good("topics").mean),
    free_draws=lambda: np.ones((3, 3), "float32"),
    a_normal=lambda: vb.fit(model("textbook.MeanFieldGaussian"), key=jax.random.key(0), max_iter=3).params.z,
    covariances=lambda: np.tile(np.eye(2, dtype="float32"), (2, 1, 1)),
)
