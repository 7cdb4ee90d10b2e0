"""The grid: every call, by introspection of what is public and the tables of `subjects`.

A public name, an argument or a method of a model that no table knows is a call by itself, judged "uncovered".
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import vbjax as vb
from vbjax import blackbox, chain_plots, plots, topic_plots

from . import goods, subjects
from .goods import good
from .judge import judge
from .kinds import KINDS


@dataclasses.dataclass(frozen=True)
class Call:
    """One call, and what to expect of it.

    Attributes:
        group: calls of a group share programs.
        label: what it is, for people.
        argument_names: what an error may call the hostile argument.
        legitimate: whether it may be accepted.
        make: the call.
    """

    group: str
    label: str
    argument_names: tuple[str, ...]
    legitimate: bool
    make: Callable[[], Any]

    def judged(self) -> tuple[str, str]:
        return judge(self.make, self.argument_names, self.legitimate)


def grid() -> list[Call]:
    """All calls."""
    from .shell import shell_calls

    return [
        *_functions("", vb, subjects.DRIVERS, "drivers"),
        *_functions("", vb, subjects.SUPPORTS, "supports"),
        *_functions("", vb, subjects.FAMILIES, "families"),
        *_functions("terms.", vb.terms, _present(vb.terms, subjects.TERMS), "terms"),
        *_functions("metrics.", vb.metrics, subjects.METRICS, "metrics"),
        *_functions("chains.", vb.chains, subjects.CHAINS, "chains"),
        *_functions("gaussian_chains.", vb.gaussian_chains, subjects.GAUSSIAN_CHAINS, "chains"),
        *_functions("topics.", vb.topics, subjects.TOPICS, "topics"),
        *_functions("datasets.", vb.datasets, subjects.DATASETS, "readers"),
        *_functions("", vb, subjects.CONTAINERS, "readers"),
        *_functions("", _Plots, subjects.PLOTS, "plots"),
        *_functions("blackbox.", blackbox, subjects.BLACK_BOX, "blackbox"),
        *_of_objects(),
        *_of_families(),
        *_of_own_models(),
        *(call for name in goods.MODELS for call in _of_model(name)),
        *shell_calls(),
        *_uncovered(),
    ]


class _Plots:
    plots, chain_plots, topic_plots = plots, chain_plots, topic_plots


def _present(module: Any, rows: dict[str, str]) -> dict[str, str]:
    return {name: row for name, row in rows.items() if hasattr(module, name)}


# -- one subject ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Argument:
    """One argument: the kind of its hostile values, and a good one."""

    kind: str
    good: str


def arguments_of(function: Any, row: str, usual: dict[str, str]) -> dict[str, Argument | None]:
    """The arguments of a function as its row and the usual ones say; None where nothing says what one is."""
    own = dict(item.split("=", 1) for item in row.split())
    found: dict[str, Argument | None] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in ("self", "cls") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        said = own.pop(name, usual.get(name))
        kind, _, value = (said or "").partition(":")
        found[name] = Argument(kind, value or kind) if kind in KINDS else None
    return found


def calls_of(
    group: str, label: str, function: Callable[..., Any], arguments: dict[str, Argument | None]
) -> Iterator[Call]:
    """The call with good arguments alone, and one for every hostile value of every argument."""
    known = {name: a for name, a in arguments.items() if a is not None}
    for name in arguments.keys() - known.keys():
        yield _no_row(group, f"{label}({name}=?)", "argument has no row")

    def make(**hostile: Any) -> Any:
        given = {name: good(a.good) for name, a in known.items() if name not in hostile}
        return function()(**given, **hostile)

    yield Call(group, f"{label}()", (), True, _baseline(make))
    for name, argument in known.items():
        for value in KINDS[argument.kind](lambda a=argument: good(a.good)):
            yield Call(
                group,
                f"{label}({name}: {value.label})",
                (name, *ALSO_NAMED.get(name, ())),
                value.legitimate,
                lambda name=name, value=value: make(**{name: value.make()}),
            )


# what else an error may call an argument
ALSO_NAMED = dict(
    data=("rows", "steps", "documents", "sequences", "corpus", "x", "y", "words", "counts"),
    x=("data",),
    docs=("documents", "data", "corpus", "words", "counts"),
    observed=("documents", "corpus", "words", "counts"),
    held_out=("documents", "corpus", "words", "counts"),
    corpus=("documents", "document", "words", "counts", "n_words"),
    texts=("text", "document"),
)


class GoodCallFailed(Exception):
    """The grid is wrong: a call without a hostile argument must be fine."""


def _baseline(make: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        try:
            return make()
        except Exception as error:
            raise GoodCallFailed(f"{type(error).__name__}: {error}") from error

    return call


def _no_row(group: str, label: str, why: str) -> Call:
    def call() -> Any:
        raise Uncovered(why)

    return Call(group, label, (), False, call)


class Uncovered(Exception):
    """Something public that no table knows."""


# -- areas ---------------------------------------------------------------------------------------------


def _attribute(holder: Any, name: str) -> Any:
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


def _functions(prefix: str, module: Any, rows: dict[str, str], area: str) -> Iterator[Call]:
    for name, row in rows.items():
        if row == "=exempt":
            continue
        function = _attribute(module, name)
        arguments = arguments_of(function, row, subjects.USUAL)
        yield from calls_of(f"{area}: {prefix}{name}", prefix + name, lambda f=function: f, arguments)


def _of_objects() -> Iterator[Call]:
    for holder, methods in subjects.METHODS.items():
        for name, row in methods.items():
            bound = lambda holder=holder, name=name: getattr(good(holder), name)
            arguments = _rows(row)
            yield from calls_of(f"objects: {holder}", f"{holder}.{name}", bound, arguments)


def _rows(row: str) -> dict[str, Argument | None]:
    pairs = (item.split("=", 1) for item in row.split())
    return {name: Argument(*(said.split(":", 1) if ":" in said else (said, said))) for name, said in pairs}


def _of_families() -> Iterator[Call]:
    """Methods of families and their states."""
    for name in goods.FAMILIES:
        group = f"families: {name}"
        family = lambda name=name: goods.FAMILIES[name]()
        state = lambda family=family: family().neutral("float32")
        own = _rows(f"x=draw:draw:{name} other=state_of:state:{name} key=key shape=shape:two p=share:third")
        yield from calls_of(group, f"{name}.repeated", lambda f=family: f().repeated, _rows("n=count:two"))
        yield from calls_of(
            group, f"{name}.neutral", lambda f=family: f().neutral, _rows("dtype=float_dtype:float32")
        )
        for method, arguments in dict(
            sample=("key", "shape"),
            log_prob=("x",),
            kl=("other",),
            quantile=("p",),
            statistics=("x",),
            entropy=(),
        ).items():
            if name == "Delta" and method in ("kl", "log_prob"):
                continue  # a point has no density
            if hasattr(type(goods.FAMILIES[name]().neutral("float32")), method):
                bound = lambda state=state, method=method: getattr(state(), method)
                yield from calls_of(group, f"{name}State.{method}", bound, {a: own[a] for a in arguments})


def _of_own_models() -> Iterator[Call]:
    """`Model`, by what it is made of; judged when it is fitted."""
    kinds = dict(
        factors="factors:own_factors",
        hyper="hyper:own_hyper",
        log_prior="function:own_prior",
        log_likelihood="function:own_likelihood",
        local="local:nothing",
        blocks="blocks:nothing",
    )
    arguments = arguments_of(vb.Model, " ".join(f"{k}={v}" for k, v in kinds.items()), {})
    fit = lambda: lambda **parts: goods.fit_of(goods.own_model(**parts), good("column"))
    yield from calls_of("own: Model", "Model", fit, arguments)
    replaced = lambda: lambda **hyper: goods.fit_of(goods.own_model().replace(**hyper), good("column"))
    yield from calls_of("own: Model", "Model.replace", replaced, _rows("a=positive:two tau0=positive:third"))


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
    count_series="count_sequences",
    category_series="count_sequences",
    positive_series="positive_sequences",
    nothing="nothing",
)
FEW = dict(documents="documents", nothing="nothing")
FEW |= {name: "few_sequence_rows" for name in DATA_KINDS if name.endswith("series")}
PAIRS = ("design", "planes", "labelled", "measured", "grouped")


def _of_model(name: str) -> Iterator[Call]:
    """A model: each hyperparameter, the data, and its methods for users."""
    group, data = f"models: {name}", goods.MODELS[name][1]
    required = goods.MODELS[name][0]
    maker = getattr(vb, name)
    hyper = [n for n, p in inspect.signature(maker).parameters.items() if p.kind is not p.VAR_KEYWORD]
    hyper += [option for option in OPTIONS.get(name, "").split()]
    fit = lambda **given: goods.fit_of(maker(**(required | given)), good(data))
    yield Call(group, f"{name}()", (), True, _baseline(fit))
    for argument in hyper:
        kind = HYPER.get(argument, "positive" if argument in POSITIVE else None)
        if argument == "nonsense":
            kind = "choice"
        if kind is None:
            yield _no_row(group, f"{name}({argument}=?)", "hyperparameter has no row")
            continue
        good_one = lambda argument=argument: _good_hyper(name, argument)
        for value in KINDS[kind](good_one):
            if value.label == "none" and _default(maker, argument) is None:
                continue
            make = lambda argument=argument, value=value: fit(**{argument: value.make()})
            yield Call(group, f"{name}({argument}: {value.label})", (argument,), value.legitimate, make)
    alias = not inspect.isclass(maker)  # another name of a class, whose methods and data are called there
    for value in KINDS[_few(data) if alias else DATA_KINDS[data]](lambda: good(data)):
        make = lambda value=value: goods.fit_of(maker(**required), value.make())
        yield Call(
            group, f"fit({name}, data: {value.label})", ("data", *ALSO_NAMED["data"]), value.legitimate, make
        )
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
    usual["x"] = "few_rows:table" if data in PAIRS else usual["data"]
    for method in subjects.USED:
        function = getattr(kind, method, None)
        if name.startswith("HDP") and method in ("aic", "bic"):
            continue  # of maximum likelihood
        if function is None or isinstance(inspect.getattr_static(kind, method), property):
            continue
        bound = lambda method=method: getattr(good(f"model:{name}"), method)
        responses = name.endswith("RegressionMixture") and method not in ("mean", "sample")
        own = f"x={_few(data)}:{data}" if responses else ""
        yield from calls_of(group, f"{name}.{method}", bound, arguments_of(function, own, usual))


# -- what no table knows -------------------------------------------------------------------------------


def _uncovered() -> Iterator[Call]:
    """Public names that are reached by no call and are not exempt."""
    tables = [subjects.DRIVERS, subjects.SUPPORTS, subjects.FAMILIES, goods.MODELS, subjects.EXEMPT]
    known = (
        {name for table in tables for name in table}
        | {n.split(".")[0] for n in subjects.CONTAINERS}
        | {"Model"}
    )
    for name in vb.__all__:
        if name not in known:
            yield _no_row("uncovered", name, "public name without a row")
    modules = dict(
        terms=subjects.TERMS,
        metrics=subjects.METRICS,
        chains=subjects.CHAINS,
        gaussian_chains=subjects.GAUSSIAN_CHAINS,
        topics=subjects.TOPICS,
        datasets=subjects.DATASETS,
        blackbox=subjects.BLACK_BOX,
    )
    for module, table in modules.items():
        for name in public_names(getattr(vb, module)):
            if name not in table and f"{module}.{name}" not in subjects.EXEMPT and name not in known:
                yield _no_row("uncovered", f"{module}.{name}", "public name without a row")
    for module in (plots, chain_plots, topic_plots):
        short = module.__name__.split(".")[-1]
        for name in public_names(module):
            if f"{short}.{name}" not in subjects.PLOTS:
                yield _no_row("uncovered", f"{short}.{name}", "public name without a row")


def public_names(module: Any) -> list[str]:
    """What a module says is public; without a word of it, what it defines itself."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and getattr(value, "__module__", None) == module.__name__
    ]
