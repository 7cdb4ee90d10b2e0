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
    n_factors="count",
    n_groups="count",
    order="count",
    document_sweeps="count",
    n_categories="optional_count",
    active="some_of_k",
    missing="flag",
    ard="flag",
    fit_intercept="flag",
    learn_shape="flag",
    learn_doc_concentration="flag",
    learn_topic_concentration="flag",
    noise_per_column="flag",
    covariance_type="choice",
    noise_type="choice",
    weight_prior="choice",
    start="choice",
    noise_floor="nonnegative",
    covariance_floor="nonnegative",
    stickiness="nonnegative",
    location="real",
    center="real",
    offset="real",
    initial_mean="real",
    component="component",
    height="component",
    visits="component",
    classes="laws",
    noise="laws",
    low="real",
    high="real",
    items="items",
    weights="mixing",
    chain="chaining",
    log_joint="cells",
    mean="value",
    precision="matrix_value",
    log_density="function",
    support="other",
    local="other",
    family="choice",
    n_draws="optional_count",
    n_paths="count",
    log_likelihood="function",
)
POSITIVE = str.split("""
    scale intercept_precision initial_concentration transition_concentration
    weight_concentration mean_precision degrees_of_freedom inverse_scale initial_precision
    transition_precision concentration rate location_precision
    relevance_concentration relevance_rate concentration1
    concentration0 known_shape between_concentration between_rate
    topic_concentration doc_concentration df
""")
OPTIONS = dict(
    BayesianGaussianHMM="nonsense",
    **{"components.Product": "height visits", "components.Union": "classes noise"},
    AutoregressiveHMM="stickiness initial_concentration",
    BayesianAutoregressiveHMM="transition_concentration nonsense",
)
DATA_KINDS = dict(
    table="rows",
    column="rows",
    counts="whole_rows",
    binary="binary_rows",
    categories="whole_rows",
    positives="positive_rows",
    design="design",
    planes="planes",
    labelled="labelled",
    measured="measured",
    grouped="grouped",
    documents="documents",
    series="sequence_rows",
    number_series="number_sequences",
    count_series="count_sequences",
    category_series="count_sequences",
    positive_series="positive_sequences",
    answers="answers",
    nothing="nothing",
    any_data="anything",
)
FEW = dict(
    documents="documents", nothing="nothing", any_data="anything", planes="few_planes", answers="answers"
)
FEW |= {name: "few_sequence_rows" for name in DATA_KINDS if name.endswith("series")}
PAIRS = ("design", "planes", "labelled", "measured", "grouped")


def of_model(name: str) -> Iterator[Call]:
    """A model: each hyperparameter, the data, and its methods for users."""
    group, (required, data) = f"models: {name}", goods.MODELS[name]
    maker = goods.maker(name)
    fit = lambda **given: goods.fit_of(maker(**(required | given)), good(data))
    yield from _hyperparameters(group, name, maker, required, fit)
    alias = name.endswith("HMM") and name != "AutoregressiveHMM"  # methods are those of HiddenMarkovModel
    kind = _few(data) if alias else DATA_KINDS[data]
    for value, chosen in with_choice(
        KINDS[kind](lambda: good(data)), f"fit({name}, data", 5 if alias else 14
    ):
        make = lambda value=value: goods.fit_of(maker(**required), value.make())
        names = ("data", *ALSO_NAMED["data"])
        yield Call(group, f"fit({name}, data: {value.label})", names, value.legitimate, make, chosen)
    if not alias:
        yield from _methods(name, group, data)


def of_part(module: str, name: str) -> Iterator[Call]:
    """A component or labels: each hyperparameter, judged by a fit of a mixture, or of a chain of mixtures."""
    required, data = getattr(goods, module.upper())[name]
    maker = getattr(getattr(vb, module), name)
    gaussian = vb.components.Gaussian()

    def model(part: Any) -> Any:
        if name.endswith("Chain"):
            return vb.BayesianHiddenMarkovModel(goods.K, gaussian, part)
        if module == "labels":
            return vb.BayesianMixture(goods.K, gaussian, part)
        if name in ("Autoregression", "Mixture"):
            return vb.HiddenMarkovModel(goods.K, part)
        bounded = any(name.endswith("_floor") for name in inspect.signature(maker).parameters)  # of points
        return (vb.Mixture if bounded else vb.BayesianMixture)(goods.K, part)

    fit = lambda **given: goods.fit_of(model(maker(**(required | given))), good(data))
    yield from _hyperparameters(f"{module}: {name}", f"{module}.{name}", maker, required, fit)


def _hyperparameters(group: str, name: str, maker: Any, required: dict[str, Any], fit: Any) -> Iterator[Call]:
    """Each hyperparameter, judged by a fit with it."""
    hyper = [n for n, p in inspect.signature(maker).parameters.items() if p.kind is not p.VAR_KEYWORD]
    hyper = list(dict.fromkeys([*hyper, *OPTIONS.get(name, "").split()]))
    part = issubclass(maker, (vb.components.Component, vb.labels.Labels))
    by_the_model = (
        ("n_laws", "points", "active")
        if issubclass(maker, vb.components.Component)
        else ("n_components", "points")
    )
    yield Call(group, f"{name}()", (), True, baseline(fit))
    for argument in hyper:
        if part and argument in by_the_model:
            continue  # which the model that holds the part says anew
        kind = HYPER.get(argument, "positive" if argument in POSITIVE else None)
        if argument == "nonsense":
            kind = "choice"
        if argument == "precision" and name != "textbook.MeanFieldGaussian":
            kind = "positive"
        if kind is None:
            yield no_row(group, f"{name}({argument}=?)", "hyperparameter has no row")
            continue
        labels = vb.labels.Chain() if argument == "chain" else vb.labels.Weights()
        good_one = lambda argument=argument, labels=labels: required.get(argument, labels)
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
        if name.startswith(("HDP", "Bayesian")) and method in ("aic", "bic", "icl"):
            continue  # of maximum likelihood
        if not callable(function) or isinstance(inspect.getattr_static(kind, method), property):
            continue
        bound = lambda method=method: getattr(good(f"model:{name}"), method)
        responses = name.endswith("RegressionMixture") and method not in ("mean", "sample")
        own = f"x={_few(data)}:{data} " if responses else ""
        own += "n=shape:two" if method == "sample_posterior" else ""
        if method == "sample" and "Regression" in name:
            own += "given=few_rows:three_rows"
        own += "given=total:three" if method == "sample" and name.endswith("MultinomialMixture") else ""
        own += "weights=array_value:simplex2" if method == "params_at" else ""
        yield from calls_of(group, f"{name}.{method}", bound, arguments_of(function, own, usual), most=3)
