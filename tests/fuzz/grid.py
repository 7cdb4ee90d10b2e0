"""The grid: every call of everything public, by introspection and the tables of `subjects`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

import vbjax as vb
from vbjax import blackbox, plots

from . import goods, subjects
from .calls import Call, arguments_of, calls_of, rows
from .coverage import uncovered
from .goods import good
from .models import of_model, of_part
from .shell import shell_calls


def grid() -> list[Call]:
    """All calls."""
    return [
        *_functions("", vb, subjects.DRIVERS, "drivers"),
        *_functions("engine.", vb.engine, subjects.ENGINE, "drivers"),
        *_functions("sources.", vb.sources, subjects.SOURCES, "sources"),
        *_functions("", vb, subjects.SUPPORTS, "supports"),
        *_functions("", vb, subjects.FAMILIES, "families"),
        *_functions("terms.", vb.terms, subjects.TERMS, "terms"),
        *_functions("metrics.", vb.metrics, subjects.METRICS, "metrics"),
        *_functions("chains.", vb.chains, subjects.CHAINS, "chains"),
        *_functions("gaussian_chains.", vb.gaussian_chains, subjects.GAUSSIAN_CHAINS, "chains"),
        *_functions("topics.", vb.topics, subjects.TOPICS, "topics"),
        *_functions("datasets.", vb.datasets, subjects.DATASETS, "readers"),
        *_functions("", vb, subjects.CONTAINERS, "readers"),
        *_functions("", _Plots, subjects.PLOTS, "plots"),
        *_functions("blackbox.", blackbox, subjects.BLACK_BOX, "blackbox"),
        *_fitted(),
        *_of_objects(),
        *_of_families(),
        *_of_own_models(),
        *(call for name in goods.MODELS for call in of_model(name)),
        *(call for name in goods.COMPONENTS for call in of_part("components", name)),
        *(call for name in goods.LABELS for call in of_part("labels", name)),
        *shell_calls(),
        *uncovered(),
    ]


class _Plots:
    plots = plots


# -- areas ---------------------------------------------------------------------------------------------


def _attribute(holder: Any, name: str) -> Any:
    for part in name.split("."):
        holder = getattr(holder, part)
    return holder


def _functions(prefix: str, module: Any, rows: dict[str, str], area: str) -> Iterator[Call]:
    for name, row in rows.items():
        if row.startswith("="):
            continue
        function = _attribute(module, name)
        arguments = arguments_of(function, row, subjects.USUAL)
        yield from calls_of(f"{area}: {prefix}{name}", prefix + name, lambda f=function: f, arguments)


def _of_objects() -> Iterator[Call]:
    for holder, methods in subjects.METHODS.items():
        for name, row in methods.items():
            bound = lambda holder=holder, name=name: getattr(good(holder), name)
            arguments = rows(row)
            yield from calls_of(f"objects: {holder}", f"{holder}.{name}", bound, arguments)


def _fitted() -> Iterator[Call]:
    """Algorithms: they are read where they are used, by a fit."""
    data = dict(AcceleratedAscent="column", CoordinateAscent="column")
    for name, row in subjects.FITTED.items():
        maker, of = _attribute(_Fitted, name), data.get(name, "nothing")
        with_it = lambda maker=maker, of=of: lambda **a: goods.fit_of(maker(**a), good(of))
        yield from calls_of(f"fitted: {name}", name, with_it, arguments_of(maker, row, {}))
    for kind, data in ((vb.Mixture, "rows:table"), (vb.HiddenMarkovModel, "sequence_rows:series")):
        model, name = kind(goods.K, vb.components.Gaussian()), f"Labelled of {kind.__name__}"
        labelled = lambda model=model: lambda **a: goods.fit_of(model, vb.Labelled(**a))
        yield from calls_of("fitted: Labelled", name, labelled, rows(f"x={data} labels=labels"))


class _Fitted:
    AcceleratedAscent, CoordinateAscent = vb.core.AcceleratedAscent, vb.core.CoordinateAscent
    blackbox = blackbox

    @staticmethod
    def summed_out(log_density: Any, discrete: Any) -> vb.BlackBox:
        """A density without its discrete latents."""
        return vb.BlackBox(blackbox.summed_out(log_density, discrete), dict(x=vb.real(2)))

    @staticmethod
    def NonConjugate(support: Any, family: Any, n_draws: Any) -> vb.Model:
        """A model of one such factor."""
        factors = dict(w=vb.NonConjugate(support, family, n_draws))
        return vb.Model(factors=factors, log_prior=lambda s: 2 * jnp.log(s.w) - s.w)


def _of_families() -> Iterator[Call]:
    """Methods of families and their states."""
    methods = dict(sample=("key", "shape"), log_prob=("x",), kl=("other",), quantile=("p",), entropy=())
    for name in goods.FAMILIES:
        group = f"families: {name}"
        family = lambda name=name: goods.FAMILIES[name]()
        state = lambda family=family: family().neutral("float32")
        own = rows(f"x=draw:draw:{name} other=state_of:state:{name} key=key shape=shape:two p=quantile:third")
        yield from calls_of(
            group, f"{name}.repeated", lambda f=family: f().repeated, rows("n=count_or_zero:two")
        )
        for method, arguments in methods.items():
            if name == "Delta" and method in ("kl", "log_prob"):
                continue  # a point has no density
            if method == "quantile" and name in (
                "Categorical",
                "MarkovChain",
                "PolyaGamma",
                "TruncatedNormal",
            ):
                continue  # not known
            if hasattr(type(state()), method):
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
    yield from calls_of("own: Model", "Model.replace", replaced, rows("a=positive:two tau0=positive:third"))
