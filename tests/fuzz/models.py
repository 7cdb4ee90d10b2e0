"""Calls of ready-made models: hyperparameters and data, judged by a fit, and the methods for users."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import vbjax as vb

from . import goods, subjects
from .calls import ALSO_NAMED, Call, arguments_of, baseline, calls_of, no_row, with_choice
from .goods import good
from .kinds import KINDS

HYPER = dict(
    n_components="count",
    n_clusters="count",
    n_states="count",
    n_topics="count",
    n_latent="count",
    n_groups="count",
    order="count",
    document_sweeps="count",
    n_categories="optional_count",
    missing="flag",
    ard="flag",
    fit_intercept="flag",
    maximum_likelihood="flag",
    learn_shape="flag",
    learn_doc_concentration="flag",
    learn_topic_concentration="flag",
    noise_per_column="flag",
    covariance_type="choice",
    weight_prior="choice",
    start="choice",
    noise_floor="nonnegative",
    covariance_floor="nonnegative",
    stickiness="nonnegative",
    location="real",
    center="real",
    offset="real",
    mu0="real",
    initial_mean="real",
    df="positive_or_inf",
    emissions="emissions",
    mixture="emissions",
    log_joint="rows",
    mean="value",
    precision="matrix_value",
    log_density="function",
    support="other",
    family="choice",
    n_draws="optional_count",
    log_likelihood="function",
)
POSITIVE = str.split("""
    scale intercept_precision a b c d initial_concentration transition_concentration
    weight_concentration mean_precision degrees_of_freedom inverse_scale initial_precision
    transition_precision emission_precision concentration rate location_precision
    relevance_concentration relevance_rate noise_concentration noise_rate concentration1
    concentration0 known_shape tau0 prior_variance topic_concentration doc_concentration
""")
OPTIONS = dict(
    GaussianHMM="covariance_floor stickiness weight_concentration",
    BayesianGaussianHMM="mean_precision stickiness transition_concentration nonsense",
    PoissonHMM="stickiness initial_concentration",
    BayesianPoissonHMM="concentration rate",
    CategoricalHMM="n_categories",
    BayesianCategoricalHMM="n_categories concentration",
    GammaHMM="known_shape learn_shape",
    BayesianGammaHMM="known_shape rate",
    AutoregressiveHMM="covariance_floor",
    BayesianAutoregressiveHMM="mean_precision",
    MixtureHMM="covariance_floor weight_concentration",
    BayesianMixtureHMM="mean_precision",
)
DATA_KINDS = dict(
    table="rows",
    column="rows",
    counts="whole_rows",
    binary="binary_rows",
    categories="whole_rows",
    positives="positive_rows",
    design="design",
    planes="design",
    labelled="labelled",
    measured="measured",
    grouped="grouped",
    documents="documents",
    series="sequence_rows",
    number_series="number_sequences",
    count_series="count_sequences",
    category_series="count_sequences",
    positive_series="positive_sequences",
    nothing="nothing",
    any_data="anything",
)
FEW = dict(documents="documents", nothing="nothing", any_data="anything")
FEW |= {name: "few_sequence_rows" for name in DATA_KINDS if name.endswith("series")}
PAIRS = ("design", "planes", "labelled", "measured", "grouped")


def of_model(name: str) -> Iterator[Call]:
    """A model: each hyperparameter, the data, and its methods for users."""
    group, data = f"models: {name}", goods.MODELS[name][1]
    required = goods.MODELS[name][0]
    maker = getattr(vb, name)
    hyper = [n for n, p in inspect.signature(maker).parameters.items() if p.kind is not p.VAR_KEYWORD]
    hyper += [option for option in OPTIONS.get(name, "").split()]
    fit = lambda **given: goods.fit_of(maker(**(required | given)), good(data))
    yield Call(group, f"{name}()", (), True, baseline(fit))
    for argument in hyper:
        kind = HYPER.get(argument, "positive" if argument in POSITIVE else None)
        if argument == "nonsense":
            kind = "choice"
        if argument == "precision" and name != "MeanFieldGaussian":
            kind = "positive"
        if kind is None:
            yield no_row(group, f"{name}({argument}=?)", "hyperparameter has no row")
            continue
        good_one = lambda argument=argument: _good_hyper(name, argument)
        for value, chosen in with_choice(KINDS[kind](good_one), f"{name}({argument}", 4):
            if value.label == "none" and _default(maker, argument) is None:
                continue
            make = lambda argument=argument, value=value: fit(**{argument: value.make()})
            yield Call(
                group,
                f"{name}({argument}: {value.label})",
                (argument, *ALSO_NAMED.get(argument, ())),
                value.legitimate,
                make,
                chosen,
            )
    alias = not inspect.isclass(maker)  # another name of a class, whose methods and data are called there
    kind = _few(data) if alias else DATA_KINDS[data]
    for value, chosen in with_choice(
        KINDS[kind](lambda: good(data)), f"fit({name}, data", 5 if alias else 14
    ):
        make = lambda value=value: goods.fit_of(maker(**required), value.make())
        names = ("data", *ALSO_NAMED["data"])
        yield Call(group, f"fit({name}, data: {value.label})", names, value.legitimate, make, chosen)
    if not alias:
        yield from _methods(name, group, data)


def _good_hyper(name: str, argument: str) -> Any:
    given = goods.MODELS[name][0]
    return given[argument] if argument in given else vb.GaussianMixture(2)


def _default(maker: Any, argument: str) -> Any:
    parameter = inspect.signature(maker).parameters.get(argument)
    return None if parameter is None or parameter.default is parameter.empty else parameter.default


def _few(data: str) -> str:
    """The kind of data of this name, in a selection."""
    return FEW.get(data, "few_design" if data in PAIRS else "few_rows")


def _methods(name: str, group: str, data: str) -> Iterator[Call]:
    kind = type(goods.model(name))
    usual = subjects.USUAL | subjects.USE | dict(params=f"params:params:{name}")
    usual["data"] = f"{_few(data)}:{data}"
    own_weights = "six_ones" if data == "documents" else "one_weight" if data.endswith("series") else "ones"
    usual["weights"] = f"weights:{own_weights}" if data != "nothing" else "nothing"
    usual["x"] = "few_rows:table" if data in PAIRS else usual["data"]
    for method in subjects.USED:
        function = getattr(kind, method, None)
        if name.startswith("HDP") and method in ("aic", "bic"):
            continue  # of maximum likelihood
        if function is None or isinstance(inspect.getattr_static(kind, method), property):
            continue
        bound = lambda method=method: getattr(good(f"model:{name}"), method)
        responses = name.endswith("RegressionMixture") and method not in ("mean", "sample")
        own = f"x={_few(data)}:{data} " if responses else ""
        own += "n=shape:two" if method == "sample_posterior" else ""
        own += "weights=array_value:simplex2" if method == "params_at" else ""
        yield from calls_of(group, f"{name}.{method}", bound, arguments_of(function, own, usual), most=3)
