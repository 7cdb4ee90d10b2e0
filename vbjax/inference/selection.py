"""Choice among models by a criterion: a grid of options, each fitted from many starts, in one table.

Where the grid has numbers of components, a model of any number is the largest one with some components left
out (`vbjax.models.labels`): all numbers share one program, for every combination of the other options. For
users; imports `fit`.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import inspect
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jax import Array

from vbjax.core.contracts import Status
from vbjax.core.hyperparameters import place_of, value_at
from vbjax.core.model import require_model
from vbjax.data.frames import read_frame
from vbjax.families.base import replace
from vbjax.families.delta import Delta
from vbjax.inference.cross_validation import cross_validate
from vbjax.inference.fit import fit
from vbjax.inference.leave_one_out import leave_one_out
from vbjax.inference.progress import progress_bar
from vbjax.inference.repeated_fits import Effort, mean_and_error
from vbjax.inference.resolution import read_data
from vbjax.inference.result import Fit, FitWarning
from vbjax.numerics.inputs import describe, read_flag, read_key
from vbjax.numerics.types import Data, Given

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from vbjax.core.contracts import Model

_COUNTS = ("n_components", "n_states")  # of which models may leave some out
_FOLDS = 10
Chosen: TypeAlias = dict[str, Given]  # values of the grid, by name: the options of one model


class Score(NamedTuple):
    """Value of a criterion, and what each row adds to it where it is a sum over rows."""

    value: float
    rows: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Criterion:
    """Criterion by which models are compared.

    Attributes:
        sign: 1 where larger is better, -1 where smaller is.
        of_points: whether it is of points or of posteriors alone; None where it is of both.
        score: takes a model, its fit, data, weights, a key, and other options of `fit`.
    """

    sign: int
    of_points: bool | None
    score: Callable[[Model, Fit, Data, Array | None, Array, Chosen], Score]


def _information(name: str) -> Criterion:
    def score(
        model: Model, fit: Fit, data: Data, weights: Array | None, key: Array, options: Chosen
    ) -> Score:
        return Score(float(getattr(fit, name)(data, *([] if weights is None else [weights]))))

    return Criterion(-1, True, score)


def _bound(model: Model, fit: Fit, data: Data, weights: Array | None, key: Array, options: Chosen) -> Score:
    return Score(float(fit.objective))


def _held_out(
    model: Model, fit: Fit, data: Data, weights: Array | None, key: Array, options: Chosen
) -> Score:
    found = cross_validate(model, data, key=key, folds=_FOLDS, weights=weights, **options)
    own = np.asarray(found.log_density if weights is None else weights * found.log_density, float)
    return Score(float(own.sum()), own)


def _left_out(
    model: Model, fit: Fit, data: Data, weights: Array | None, key: Array, options: Chosen
) -> Score:
    own = np.asarray(leave_one_out(_whole(fit), data, key=key).log_density, float)
    return Score(float(own.sum()), own)


CRITERIA = dict(
    bic=_information("bic"),
    aic=_information("aic"),
    icl=_information("icl"),
    elbo=Criterion(1, False, _bound),
    cross_validation=Criterion(1, None, _held_out),
    leave_one_out=Criterion(1, False, _left_out),
)


class Candidate(NamedTuple):
    """Model that was compared with others.

    Attributes:
        options: its values in the grid, by name.
        value: of the criterion.
        difference: how much worse it is than the best, by the criterion.
        standard_error: of that difference, from the spread of the rows; None where the criterion is not a
            sum over rows.
        found: its `Fit` as the largest model of the grid, the components beyond its own left out.

    >>> import jax, vbjax as vb
    >>> x, grid = vb.datasets.old_faithful(), dict(n_components=[1, 2, 3], covariance_type=["tied"])
    >>> choice = vb.select(vb.GaussianMixture, x, grid, key=jax.random.key(0), n_restarts=4)
    >>> second = choice.candidates[1]
    >>> second.options["n_components"], f"{second.difference:.1f}"
    (2, '10.9')
    """

    options: Chosen
    value: float
    difference: float
    standard_error: float | None
    found: Fit

    @property
    def fit(self) -> Fit:
        """`Fit` of this model, at its own size."""
        return _whole(self.found)


class Table:
    """Table of the candidates, the best first; `print` shows it, a notebook too.

    Attributes:
        records: a dict for every candidate; `pandas.DataFrame(table.records)` makes a frame of them.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        names = [name for name in self.records[0] if any(_text(row[name]) for row in self.records)]
        return names, [[_text(row[name]) for name in names] for row in self.records]

    def __str__(self) -> str:
        names, rows = self._cells()
        widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
        lines = [[x.rjust(n) for x, n in zip(row, widths, strict=True)] for row in [names, *rows]]
        return "\n".join("  ".join(line) for line in lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        names, rows = self._cells()
        line = lambda tag, cells: "".join(
            f"<{tag} style='text-align: right'>{html.escape(x)}</{tag}>" for x in cells
        )
        body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
        return f"<table><thead><tr>{line('th', names)}</tr></thead><tbody>{body}</tbody></table>"


class Choice(NamedTuple):
    """Result of `select`.

    Attributes:
        criterion: what the models were compared by.
        candidates: all of them, the best first.

    >>> import jax, vbjax as vb
    >>> x, grid = vb.datasets.old_faithful(), dict(n_components=[1, 2, 3], covariance_type=["tied"])
    >>> choice = vb.select(vb.GaussianMixture, x, grid, key=jax.random.key(0), n_restarts=4)
    >>> [candidate.options["n_components"] for candidate in choice.candidates]  # the best first
    [3, 2, 1]
    """

    criterion: str
    candidates: tuple[Candidate, ...]

    @property
    def best(self) -> Fit:
        """The `Fit` of the best model."""
        return self.candidates[0].fit

    @property
    def table(self) -> Table:
        """The candidates: their options, the criterion, the difference to the best, and the restarts.

        `agree` is how many of the restarts ended at the best objective, and `status` says how the fit ended.
        """
        return Table([self._record(candidate) for candidate in self.candidates])

    def _record(self, candidate: Candidate) -> dict[str, Any]:
        found = candidate.found
        return candidate.options | {
            self.criterion: candidate.value,
            "difference": candidate.difference,
            "standard error": candidate.standard_error,
            "agree": f"{found._n_best} of {found.runs.objective.size}",
            "status": found.status.name.lower().replace("_", " "),
        }

    def verdict(self) -> str:
        """Return a sentence on what is best, and by how much."""
        first, *others = self.candidates
        words = f"{type(first.found.model).__name__} by {self.criterion}: {_named(first.options)} is best"
        if not others:
            return words
        second = others[0]
        error = "" if second.standard_error is None else f" +- {second.standard_error:.2g}"
        return f"{words}, {second.difference:.4g}{error} ahead of {_named(second.options)}"

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the criterion over the first option of the grid (`vbjax.plots.criterion`).

        Args:
            ax: matplotlib's axes; by default new ones.

        Returns:
            The axes.
        """
        plots = importlib.import_module("vbjax.plots")  # it knows choices, not they it
        return plots.criterion(self, ax)

    def __repr__(self) -> str:
        return f"{self.verdict()}\n\n{self.table}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.verdict())}</p>{self.table._repr_html_()}"


def select(
    constructor: Callable[..., Model],
    data: Data,
    grid: Mapping[str, Iterable[Given]],
    *,
    criterion: str | None = None,
    key: Array,
    weights: Given = None,
    n_restarts: int = 16,
    max_iter: int = 1000,
    tol: Given = None,
    progress: bool = False,
) -> Choice:
    """Fit a model for every combination of some options, and choose the best by a criterion.

    Numbers of components or of states share one program, compiled once for every combination of the other
    options, where the model's labels can leave some out (`active` of `vb.labels`).

    Args:
        constructor: what makes a model of options by name: a class of models, or a function.
        data, weights: as `fit` takes them.
        grid: values to try, by the names of the options, such as `dict(n_components=range(1, 10))`.
        criterion: by default "bic" of point estimates, "elbo" of Bayesian models.

            - "bic", "aic", "icl": of point estimates; smaller is better.
            - "elbo": the bound, of Bayesian models; larger is better, as in all that follow.
            - "cross_validation": the held-out log density of all rows, by 10 folds (`vb.cross_validate`).
            - "leave_one_out": likewise, by importance sampling, of Bayesian models (`vb.leave_one_out`).
        key: `jax.random.key(...)`; the same for every model, so that starts and folds are alike.
        n_restarts, max_iter, tol: of every fit, and of the fits of folds.
        progress: whether to show a progress bar of the models.

    Returns:
        A `Choice`: `print` shows its table; `.best` is the `Fit` of the best model.

    Warns:
        FitWarning: the best fit did not converge, or no other restart found its optimum.

    Raises:
        ValueError: an option that the constructor does not take; a criterion that is unknown, or not one of
            such models; arguments that `fit` refuses.

    References:
        Schwarz (1978), Estimating the dimension of a model; Biernacki, Celeux & Govaert (2000), Assessing a
        mixture model for clustering with the integrated completed likelihood; Vehtari, Gelman & Gabry (2017),
        Practical Bayesian model evaluation, section 5.

    >>> import jax, vbjax as vb
    >>> x, key = vb.datasets.old_faithful(), jax.random.key(0)
    >>> grid = dict(n_components=[1, 2, 3], covariance_type=["tied"])
    >>> choice = vb.select(vb.GaussianMixture, x, grid, key=key, n_restarts=4)
    >>> choice.table.records[0]["n_components"]
    3
    """
    key, effort = read_key(key), Effort.read(n_restarts, max_iter)
    options = effort._asdict() | dict(tol=tol)
    grid, progress = _read_grid(grid), read_flag(progress, "progress")
    data, columns = read_frame(data)
    models = list(_models(constructor, grid, data))
    name, of = _read_criterion(criterion, models[0][1], data, weights)
    found: list[tuple[Chosen, Fit, Score]] = []
    with progress_bar(progress, "model", len(models)) as show, warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # of the best there is one below
        for number, (chosen, model) in enumerate(models):
            result = fit(model, data, key=key, weights=weights, **options)
            score = of.score(model, result, data, weights, key, options)
            found.append((chosen, dataclasses.replace(result, columns=columns), score))
            show(number + 1, _named(chosen))
            if result.status == Status.INTERRUPTED:
                break
    choice = Choice(name, tuple(_ranked(found, of.sign)))
    choice.candidates[0].found.warn(stacklevel=2)
    return choice


def _ranked(found: list[tuple[Chosen, Fit, Score]], sign: int) -> list[Candidate]:
    """Return the candidates, the best first; what is not finite or not sound comes last."""

    def rank(entry: tuple[Chosen, Fit, Score]) -> tuple[bool, float]:
        _, result, score = entry
        fine = np.isfinite(score.value) and bool(result.runs.on_host().sound.any())
        return not fine, -sign * score.value if np.isfinite(score.value) else np.inf

    order = sorted(found, key=rank)
    best = order[0][2]

    def candidate(chosen: Chosen, result: Fit, score: Score) -> Candidate:
        error = None
        if score.rows is not None and best.rows is not None:
            error = score.rows.size * float(mean_and_error(best.rows - score.rows)[1])
        return Candidate(chosen, score.value, sign * (best.value - score.value) + 0.0, error, result)

    return [candidate(*entry) for entry in order]


def _whole(result: Fit) -> Fit:
    """Return the fit of the model that has the active components alone."""
    model, params = result.model.without_idle(result.params)
    return dataclasses.replace(result, model=model, params=params)


# -- reading -------------------------------------------------------------------------------------------------


def _read_grid(grid: Given) -> dict[str, list[Given]]:
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(
            f"grid must have values to try by the names of options, dict(n_components=range(1, 10)); got "
            f"{describe(grid)}"
        )
    values: dict[str, list[Given]] = {}
    for name, some in grid.items():
        if not isinstance(name, str) or isinstance(some, (str, Mapping)) or not isinstance(some, Iterable):
            raise ValueError(f"grid must have a list of values for {name!r}; got {describe(some)}")
        values[name] = list(some)
        if not values[name]:
            raise ValueError(f"grid must have at least one value for {name!r}; got none")
    return values


def _models(constructor: Given, grid: dict[str, list[Given]], data: Data) -> Iterator[tuple[Chosen, Model]]:
    """Yield the options of every combination, and its model."""
    if not callable(constructor):
        raise ValueError(
            "constructor must make a model of options, such as vb.GaussianMixture; got "
            f"{describe(constructor)}"
        )
    size = next((name for name in _COUNTS if name in grid), "")
    most = max(filter(_is_count, grid.get(size, [])), default=0)
    for chosen in itertools.product(*grid.values()):
        options = dict(zip(grid, chosen, strict=True))
        own = _made(constructor, options, data)
        if most and _is_count(options[size]):
            largest = _made(constructor, options | {size: most}, data)
            if getattr(largest, size, 0) == most and _is_part_of(own, largest, size):
                own = largest.replace(active=options[size])
        yield options, own


def _made(constructor: Callable[..., Model], options: Chosen, data: Data) -> Any:
    try:
        inspect.signature(constructor).bind(**options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"grid must have the names of options that constructor takes: {error}") from None
    model = constructor(**options)
    require_model(model, data, "a choice among models")
    return model


def _is_count(k: Given) -> bool:
    return isinstance(k, (int, np.integer)) and not isinstance(k, bool) and int(k) >= 1


def _is_part_of(model: Any, largest: Any, size: str) -> bool:
    """Return whether a model differs from the largest one in its number of components alone."""
    grown = replace(model, **{size: value_at(largest, (size,))})
    if len({jax.tree.structure(own) for own in (grown, largest)}) > 1:
        return False
    if not all(map(np.array_equal, jax.tree.leaves(grown), jax.tree.leaves(largest))):
        return False
    place = place_of(largest, "active", [field.name for field in dataclasses.fields(largest)])
    return len(place) == 2 and value_at(largest, place[:1]).why_whole(largest.component) is None


def _read_criterion(name: Given, model: Model, data: Data, weights: Array | None) -> tuple[str, Criterion]:
    """Return a criterion by name, one that the model has."""
    if name is not None and (not isinstance(name, str) or name not in CRITERIA):
        raise ValueError(f"criterion must be one of {', '.join(map(repr, CRITERIA))}; got {describe(name)}")
    read, data, own = read_data(model, data, weights)
    factors = jax.eval_shape(read.resolve, data, own).factors.values()
    points = all(isinstance(family, Delta) for family in factors)
    there = lambda name: CRITERIA[name].of_points in (None, points) and _has(model, name, own)
    offered = [name for name in CRITERIA if there(name)]
    name = offered[0] if name is None else name
    if name not in offered:
        raise ValueError(
            f"criterion must be one of {', '.join(map(repr, offered))} for a {type(model).__name__}"
            f"{'' if own is None else ' with weights'}; got {name!r}"
        )
    return name, CRITERIA[name]


def _has(model: Model, name: str, weights: Array | None) -> bool:
    """Return whether the model has a criterion, for rows with weights if they have some."""
    if name == "leave_one_out":
        return weights is None
    if not CRITERIA[name].of_points:
        return True
    return name in dir(model) and (
        weights is None or "weights" in inspect.signature(getattr(model, name)).parameters
    )


def _named(options: Chosen) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in options.items())


def _text(x: Given) -> str:
    if x is None:
        return ""
    return f"{x:.6g}" if isinstance(x, float) else str(x)
