"""Sequences for the shell command: reading them, and reporting the states of their hidden Markov model.

`commands` imports it, does the rest, and prints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from vbjax.cli.files import UserError, check_digits, check_entries
from vbjax.cli.inputs import load_labels, load_series
from vbjax.cli.tables import align, measure, mention_empty, posterior_sds
from vbjax.data.csv_tables import Labels, Series
from vbjax.inference.result import Fit
from vbjax.models import (
    AutoregressiveHMM,
    BayesianAutoregressiveHMM,
    BayesianHiddenMarkovModel,
    HiddenMarkovModel,
    components,
)
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Tree

A = TypeVar("A", Array, np.ndarray)

_MOST_CELLS = 2**26  # categories x columns x states; a mistyped category would otherwise take all the memory
_MOST_ACROSS = 10  # most states of a transition matrix in 80 columns
_MOST_NEXT = 5
_HEADERS = dict(
    shapes="shape",
    rates="rate",
    means="mean",
    probabilities="probability",
    intercepts="intercept",
    sds="sd",
)


class Output(NamedTuple):
    """Kind of output of the states.

    Attributes:
        expected: what an entry must be, in words.
        fits: tells of every entry whether it is that.
        gaps: whether some entries of a step may be missing, and others not.
        component: makes the component; None where it takes options.
    """

    expected: str
    fits: Callable[[np.ndarray], Bool[np.ndarray, " *shape"]]
    gaps: bool
    component: Callable[[], components.Component] | None


def _whole(x: np.ndarray) -> Bool[np.ndarray, " *shape"]:
    return (x >= 0) & (x == np.round(x))


def _positive(x: np.ndarray) -> Bool[np.ndarray, " *shape"]:
    return x > 0


OUTPUTS = {
    "gaussian": Output("a number", np.isfinite, True, None),
    "mixture": Output("a number", np.isfinite, True, None),
    "autoregressive": Output("a number", np.isfinite, True, None),
    "poisson": Output("a count, 0, 1, 2, ...", _whole, False, components.Poisson),
    "categorical": Output("a category, 0, 1, 2, ...", _whole, False, components.Categorical),
    "bernoulli": Output("0 or 1", lambda x: (x == 0) | (x == 1), False, components.Bernoulli),
    "exponential": Output("a number above 0", _positive, False, components.Gamma),
    "gamma": Output(
        "a number above 0", _positive, False, functools.partial(components.Gamma, learn_shape=True)
    ),
}


def load(
    path: str, sequence: str | int | None, columns: list[str | int] | None, output: str, needed: int
) -> Series:
    """Read the sequences; refuse entries that such an output does not have.

    Args:
        path: a CSV file with a header line, a .npy or a Parquet file.
        sequence: the column that says which sequence a line belongs to.
        columns: the columns to take; of categorical output these may be text, which becomes codes.
        output: a name of `OUTPUTS`.
        needed: the least number of steps that are not wholly missing.

    Raises:
        UserError: a file that cannot be read; an entry that does not fit; too few steps.
    """
    labels = load_labels(path, columns) if columns and output == "categorical" else None
    series = load_series(path, sequence, columns, labels)
    x, missing = series.values, np.isnan(series.values)
    check_entries(path, x, series.columns)
    wrong = np.argwhere(~missing & ~OUTPUTS[output].fits(x))
    if len(wrong):
        i, j = wrong[0]
        place = f"{path}, line {series.lines[i]}, column {series.columns[j]!r}"
        raise UserError(f"{place}: {x[i, j]:.10g}; expected {OUTPUTS[output].expected}, for {output} output")
    partly = missing.any(1) & ~missing.all(1)
    if partly.any() and not OUTPUTS[output].gaps:
        what = f"an entry is missing; for {output} output all entries of a line are, or none"
        raise UserError(f"{path}, line {series.lines[partly.argmax()]}: {what}")
    if (steps := int((~missing.all(1)).sum())) < needed:
        rows = f"{steps} row{'s' * (steps != 1)}"
        raise UserError(f"{path}: {rows}; expected at least {needed} for this model")
    check_digits(path, x, series.columns)
    return series


def model(
    n_states: int, output: str, series: Series, *, bayesian: bool, covariance: str, parts: int, order: int
) -> HiddenMarkovModel:
    """Return the model of such sequences, whose entries may be missing.

    Args:
        n_states: K.
        output: a name of `OUTPUTS`.
        series: the sequences.
        bayesian: whether to fit by variational Bayes, not by maximum likelihood.
        covariance: covariance type of gaussian and mixture output.
        parts: number of components of a state, for mixture output.
        order: number of steps on which a step depends, for autoregressive output.

    Raises:
        UserError: more categories than memory would hold.
    """
    hidden_markov = BayesianHiddenMarkovModel if bayesian else HiddenMarkovModel
    if output == "autoregressive":
        return (BayesianAutoregressiveHMM if bayesian else AutoregressiveHMM)(n_states, order)
    if output in ("gaussian", "mixture"):
        missing = np.isnan(series.values)
        partly = bool((missing.any(1) & ~missing.all(1)).any())
        own = components.Gaussian(covariance, missing=partly)
        return hidden_markov(n_states, components.Mixture(parts, own) if output == "mixture" else own)
    if output == "categorical":
        n = np.nanmax(series.values) + 1
        if n * series.values.shape[1] * n_states > _MOST_CELLS:
            raise UserError(f"{n:.0f} categories are too many for {n_states} states")
    return hidden_markov(n_states, cast(Callable[[], Any], OUTPUTS[output].component)())


@jit
def _parameters(model: HiddenMarkovModel, params: Record) -> dict[str, Array]:
    """Compute the parameters to report by one program; one operation after the other takes seconds."""
    states = dict(initial=params.initial, transitions=params.transitions)
    states |= dict(shares=params.shares) if "shares" in params else {}
    found = {name: state.mean for name, state in states.items()} | dict(durations=model.durations(params))
    own = _outputs(model, params, params.components)
    if model.points:
        return found | {name: value for name, value in own.items() if not name.endswith("_sd")}
    return found | {f"{name}_sd": state.sd for name, state in states.items()} | own


def _outputs(model: HiddenMarkovModel, params: Record, own: Tree) -> dict[str, Array]:
    """Return parameters of the outputs, by state and, where a state is a mixture, by component."""
    flat = model.component
    if isinstance(flat, components.Autoregression):
        found = dict(intercepts=flat.intercepts(params), coefficients=flat.coefficients(params))
        found["coefficients_sd"] = flat.by_lag(own.sd.location)
        return found | dict(covariances=flat.covariances(params))
    flat = flat.component if isinstance(flat, components.Mixture) else flat
    if isinstance(flat, components.Gaussian):
        found = dict(means=flat.means(params), covariances=flat.covariances(params))
        found["means_sd"] = own.sd.location
        return {name: _by_state(value, params) for name, value in found.items()}
    if isinstance(flat, components.Gamma):
        if not flat.learn_shape:
            return dict(rates=own.mean, rates_sd=own.sd)
        return dict(shapes=own.mean.row_shape, rates=own.mean.rate, rates_sd=own.sd.rate)
    name = "rates" if isinstance(flat, components.Poisson) else "probabilities"
    return {name: own.mean, f"{name}_sd": own.sd}


def _by_state(x: A, params: Record) -> A:
    """Return an array over all components by state and component, where a state is a mixture."""
    return x.reshape(*params.shares.mean.shape, *x.shape[1:]) if "shares" in params else x


def describe(result: Fit, series: Series) -> dict[str, np.ndarray]:
    """Return the chain, the parameters of its states' outputs, and the states of the steps.

    Args:
        result: a fit of `model`.
        series: the data of the fit.

    Returns:
        `initial` (K,), `transitions` (K, K) and `durations` (K,), the expected number of steps until a state
        is left. For gaussian output `means` (K, d), `covariances` (K, d, d) and `sds` (K, d); for mixture
        output these for every component, (K, M, ...), and `shares` (K, M); for autoregressive output
        `coefficients` (K, order, d, d), by state and lag, `intercepts` (K, d), and `covariances` and `sds` of
        the residuals; for other outputs `rates` (K, d), beside `shapes` (K, d) for gamma, or `probabilities`
        (K, d) or (K, d, v). In the Bayesian model most have posterior standard deviations, `means_sd` and so
        on; the other has `bic` and `n_parameters`. For every line of the file `states` (t,), the most
        probable path, `state_probabilities` (t, K), `lines` (t,) and `sequence` (t,), a number in
        `sequences`; `sizes` (K,) is the expected number of steps in a state.
    """
    fitted, params, data = result.model, result.params, series.sequences()
    found = {name: np.asarray(value) for name, value in _parameters(fitted, params).items()}
    if "means_sd" in found:
        d = found["means"].shape[-1]
        both = posterior_sds(params.components, (found["means"].size // d, d))
        found["sds"], found["sds_sd"] = (_by_state(sds, params) for sds in both)
    elif "covariances" in found:
        found["sds"] = np.sqrt(np.diagonal(found["covariances"], axis1=-2, axis2=-1))
    back = np.argsort(series.order)
    found["states"] = np.concatenate(fitted.decode(params, data))[back]
    found["state_probabilities"] = np.concatenate(fitted.state_probabilities(params, data))[back]
    found["sizes"] = found["state_probabilities"].sum(0, dtype=float)
    found |= dict(sequence=series.sequence, sequences=np.array(series.names), lines=series.lines)
    if fitted.points:
        found["bic"] = np.asarray(fitted.bic(params, data))
        found["n_parameters"] = np.asarray(fitted.n_parameters)
    return found


# -- the report ----------------------------------------------------------------------------------------


def size(found: dict[str, np.ndarray], columns: list[str]) -> str:
    """Return a phrase that states the size of the data."""
    counts = {"sequence": len(found["sequences"]), "step": len(found["lines"]), "column": len(columns)}
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def table(found: dict[str, np.ndarray], columns: list[str], output: str, labels: Labels = None) -> list[str]:
    """Return lines on the states of more than one step, most frequent first, and on their transitions."""
    labels = [None] * len(columns) if labels is None else labels
    bayesian, nested = "transitions_sd" in found, "shares" in found
    kept = np.flatnonzero(found["sizes"] > 1)
    kept = kept[np.argsort(-found["sizes"][kept], kind="stable")]
    names = [name for name in _HEADERS if name in found and output != "categorical"]
    last = dict(categorical=["categories"], autoregressive=["on the steps before"]).get(output, [])
    header, weight = [_HEADERS[name] for name in names], ["weight"] if nested else []
    rows = [["state", "share", "duration", *weight, "column", *header, *last]]
    show = lambda name, at: measure(
        found[name][at], found[f"{name}_sd"][at] if f"{name}_sd" in found else None
    )
    for k in kept:
        share = found["sizes"][k] / found["sizes"].sum()
        head = [str(k), f"{share:.1%}", measure(found["durations"][k])]
        for at in _parts(found, k) if nested else [(k,)]:
            head += [show("shares", at)] if nested else []
            for j, column in enumerate(columns):
                cells = [show(name, (*at, j)) for name in names]
                if output == "categorical":
                    cells.append(_likely(found["probabilities"][k, j], labels[j]))
                elif output == "autoregressive":
                    cells.append(_pulls(found["coefficients"][k, :, j], columns))
                rows.append([*head, column, *cells])
                head = [""] * len(head)
            head = [""] * 3
    lines = [*align(rows, right=3 + nested), *mention_empty(found["sizes"], "state", "step")]
    if bayesian and any("±" in line for line in lines):
        lines.append("± is one posterior standard deviation")
    return [*lines, "", *_transitions(found["transitions"], kept)]


def _parts(found: dict[str, np.ndarray], k: int | np.integer) -> list[tuple[int | np.integer, ...]]:
    """Return the heaviest component of a state, and others of more than one step, by weight."""
    shares = found["shares"][k]
    best = np.argsort(-shares, kind="stable")
    return [(k, m) for m in best if m == best[0] or shares[m] * found["sizes"][k] > 1]


def _pulls(coefficients: Float[np.ndarray, "order d"], columns: list[str]) -> str:
    """Format the largest coefficients with which a column depends on the steps before.

    >>> _pulls(np.array([[0.9, 0.0], [-0.25, 1.5]]), ["a", "b"])
    '1.50 b[-2], 0.90 a[-1], -0.25 a[-2], 0.00 b[-1]'
    """
    flat = coefficients.ravel()
    best = np.argsort(-np.abs(flat), kind="stable")[:_MOST_NEXT]
    return ", ".join(f"{flat[i]:.2f} {columns[i % len(columns)]}[-{i // len(columns) + 1}]" for i in best)


def _transitions(transitions: Float[np.ndarray, "k k"], kept: Int[np.ndarray, " m"]) -> list[str]:
    """Return lines of the transition matrix; of the most probable next states where it is too wide."""
    if len(kept) > _MOST_ACROSS:
        rows = [["from", "to"], *([str(k), _likely(transitions[k])] for k in kept)]
        return align(rows, right=1)
    rows = [["from", *(f"to {k}" for k in kept)]]
    rows += [[str(k), *(f"{transitions[k, m]:.3f}" for m in kept)] for k in kept]
    return align(rows, right=len(rows[0]))


def _likely(probabilities: Float[np.ndarray, " n"], labels: Sequence[str] | None = None) -> str:
    """Format the numbers of highest probability: the first, and others of at least 1 in 200.

    >>> _likely(np.array([0.2, 0.001, 0.799]))
    '2: 0.80, 0: 0.20'
    >>> _likely(np.array([0.2, 0.001, 0.799]), ["rain", "snow", "sun"])
    'sun: 0.80, rain: 0.20'
    """
    names = range(len(probabilities)) if labels is None else labels
    probabilities = probabilities[: len(names)]  # a column may have fewer labels than another
    best = np.argsort(-probabilities, kind="stable")[:_MOST_NEXT]
    shown = [i for i in best if i == best[0] or probabilities[i] >= 0.005]
    return ", ".join(f"{names[i]}: {probabilities[i]:.2f}" for i in shown)
