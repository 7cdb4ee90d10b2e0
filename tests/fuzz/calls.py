"""Calls of one callable: with good arguments, and with one of them hostile at a time."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import random
from collections.abc import Callable, Iterator
from typing import Any

from . import subjects
from .goods import good
from .judge import Uncovered, judge
from .kinds import KINDS
from .values import Value


@dataclasses.dataclass(frozen=True)
class Call:
    """One call, and what to expect of it.

    Attributes:
        group: calls of a group share programs.
        label: what it is, for people.
        argument_names: what an error may call the hostile argument.
        legitimate: whether it may be accepted.
        make: the call.
        chosen: whether it is in the usual grid, or in that of every value only.
    """

    group: str
    label: str
    argument_names: tuple[str, ...]
    legitimate: bool
    make: Callable[[], Any]
    chosen: bool = True

    def judged(self) -> tuple[str, str]:
        return judge(self.make, self.argument_names, self.legitimate)


def with_choice(values: list[Value], label: str, most: int) -> list[tuple[Value, bool]]:
    """The hostile values of an argument, and which are chosen: always the same, and those that are kept."""
    taken = set(random.Random(label).sample(range(len(values)), min(most, len(values))))
    kept = [p for p in subjects.KEPT if fnmatch.fnmatch(f"{label}: )", p.split(": ")[0] + ": *")]
    keep = lambda v: any(fnmatch.fnmatch(f"{label}: {v.label})", pattern) for pattern in kept)
    return [(v, i in taken or keep(v)) for i, v in enumerate(values)]


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
    group: str, label: str, function: Callable[..., Any], arguments: dict[str, Argument | None], most: int = 4
) -> Iterator[Call]:
    """The call with good arguments alone, and one for each of some hostile values of every argument."""
    known = {name: a for name, a in arguments.items() if a is not None}
    for name in arguments.keys() - known.keys():
        yield no_row(group, f"{label}({name}=?)", "argument has no row")

    def make(**hostile: Any) -> Any:
        given = {name: good(a.good) for name, a in known.items() if name not in hostile}
        return function()(**given, **hostile)

    yield Call(group, f"{label}()", (), True, baseline(make))
    for name, argument in known.items():
        values = KINDS[argument.kind](lambda a=argument: good(a.good))
        for value, chosen in with_choice(values, f"{label}({name}", most):
            yield Call(
                group,
                f"{label}({name}: {value.label})",
                (name, *ALSO_NAMED.get(name, ())),
                value.legitimate,
                lambda name=name, value=value: make(**{name: value.make()}),
                chosen,
            )


# what else an error may call an argument
ALSO_NAMED = dict(
    weight_concentration=("concentration of the weights",),
    items=("n_categories", "data", "part"),
    data=(
        "rows",
        "steps",
        "documents",
        "sequences",
        "corpus",
        "x",
        "y",
        "sigma",
        "group",
        "words",
        "counts",
    ),
    x=("data", "y", "rows"),
    y=("length",),  # of as many steps
    factors=("factor", "log_prior", "log_likelihood"),
    support=("log_density",),
    hyper=("log_prior", "log_likelihood"),
    a=("log_prior", "log_likelihood"),
    tau0=("log_prior", "log_likelihood"),
    docs=("documents", "data", "corpus", "words", "counts"),
    observed=("documents", "corpus", "words", "counts"),
    held_out=("documents", "corpus", "words", "counts"),
    corpus=("documents", "document", "words", "counts", "n_words"),
    texts=("text", "document"),
)


class GoodCallFailed(Exception):
    """The grid is wrong: a call without a hostile argument must be fine."""


def baseline(make: Callable[[], Any]) -> Callable[[], Any]:
    def call() -> Any:
        try:
            return make()
        except Exception as error:
            raise GoodCallFailed(f"{type(error).__name__}: {error}") from error

    return call


def no_row(group: str, label: str, why: str) -> Call:
    def call() -> Any:
        raise Uncovered(why)

    return Call(group, label, (), False, call)


def rows(row: str) -> dict[str, Argument | None]:
    """The arguments that a row tells."""
    pairs = (item.split("=", 1) for item in row.split())
    return {name: Argument(*(said.split(":", 1) if ":" in said else (said, said))) for name, said in pairs}
