"""What is public and in no table, each as a call that is judged "uncovered"."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import vbjax as vb
from vbjax import plots

from . import goods, subjects
from .calls import Call, no_row


def uncovered() -> Iterator[Call]:
    """Public names that are reached by no call and are not exempt."""
    tables = [
        subjects.DRIVERS,
        subjects.SUPPORTS,
        subjects.FAMILIES,
        goods.MODELS,
        subjects.EXEMPT,
        subjects.FITTED,
    ]
    known = (
        {name for table in tables for name in table}
        | {n.split(".")[0] for n in subjects.CONTAINERS}
        | {"Model"}
    )
    for name in vb.__all__:
        if name not in known:
            yield no_row("uncovered", name, "public name without a row")
    modules = dict(
        engine=subjects.ENGINE,
        sources=subjects.SOURCES,
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
                yield no_row("uncovered", f"{module}.{name}", "public name without a row")
    for module, table in dict(components=goods.COMPONENTS, labels=goods.LABELS).items():
        for name in public_names(getattr(vb, module)):
            if name not in table and f"{module}.{name}" not in subjects.EXEMPT:
                yield no_row("uncovered", f"{module}.{name}", "public name without a row")
    for module in (plots, plots.chains, plots.topics):
        short = module.__name__.removeprefix("vbjax.")
        for name in public_names(module):
            if f"{short}.{name}" not in subjects.PLOTS and f"{short}.{name}" not in subjects.EXEMPT:
                yield no_row("uncovered", f"{short}.{name}", "public name without a row")


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
