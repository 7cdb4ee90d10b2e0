"""What the shell command does with sequences: read them, and say what the states of their chain are.

`commands` imports it, does the rest, and prints.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vbjax.cli.files import UserError, check_digits, reading
from vbjax.cli.tables import aligned, emptied, measure, posterior_sds
from vbjax.data import datasets
from vbjax.data.datasets import Series
from vbjax.inference.result import Fit
from vbjax.models import (
    AutoregressiveHiddenMarkovModel,
    BayesianGaussianMixture,
    BernoulliMixture,
    CategoricalMixture,
    GammaMixture,
    GaussianMixture,
    HiddenMarkovModel,
    MultivariateRegressionMixture,
    NestedMixture,
    PoissonMixture,
)

_MOST_CELLS = 2**26  # categories x columns x states; a category that is a slip would take all the memory
_MOST_ACROSS = 10  # states of a transition matrix in 80 columns
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
    """What steps are in each state: what entries must be, whether some of a step's may be missing, and the
    mixture.
    """

    expected: str
    fits: Callable[[np.ndarray], np.ndarray]
    gaps: bool
    mixture: Any


def _whole(x: np.ndarray) -> np.ndarray:
    return (x >= 0) & (x == np.round(x))


def _positive(x: np.ndarray) -> np.ndarray:
    return x > 0


OUTPUTS = {
    "gaussian": Output("a number", np.isfinite, True, GaussianMixture),
    "mixture": Output("a number", np.isfinite, True, GaussianMixture),
    "autoregressive": Output("a number", np.isfinite, True, MultivariateRegressionMixture),
    "poisson": Output("a count, 0, 1, 2, ...", _whole, False, PoissonMixture),
    "categorical": Output("a category, 0, 1, 2, ...", _whole, False, CategoricalMixture),
    "bernoulli": Output("0 or 1", lambda x: (x == 0) | (x == 1), False, BernoulliMixture),
    "exponential": Output("a number above 0", _positive, False, GammaMixture),
    "gamma": Output("a number above 0", _positive, False, functools.partial(GammaMixture, learn_shape=True)),
}


def load(path: str, sequence: str | int | None, columns: Any, output: str, needed: int) -> Series:
    """The sequences, with entries that such an output may have.

    Args:
        path: a CSV file with a header line.
        sequence: the column that says which sequence a line belongs to.
        columns: the columns to take.
        output: a name of `OUTPUTS`.
        needed: steps that are not wholly missing, at least.

    Raises:
        UserError: a file that cannot be read; an entry that does not fit; too few steps.
    """
    with reading(path):
        series = datasets.read_series_table(path, sequence, columns)
    x, missing = series.values, np.isnan(series.values)
    if missing.all(0).any():
        raise UserError(f"{path}, column {series.columns[missing.all(0).argmax()]!r}: no entry in any line")
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
) -> Any:
    """The model of such sequences, whose entries may be missing.

    Args:
        n_states: K.
        output: a name of `OUTPUTS`.
        series: the sequences.
        bayesian: by variational Bayes, not by maximum likelihood.
        covariance: of gaussian and mixture output.
        parts: components of a state, of mixture output.
        order: steps on which a step depends, of autoregressive output.

    Raises:
        UserError: more categories than memory would hold.
    """
    if output in ("gaussian", "mixture"):
        missing = np.isnan(series.values)
        partly = bool((missing.any(1) & ~missing.all(1)).any())
        kind = BayesianGaussianMixture if bayesian else GaussianMixture
        if output == "mixture":
            own = kind(parts, covariance, missing=partly)
            return HiddenMarkovModel(n_states, NestedMixture(n_states, own))
        return HiddenMarkovModel(n_states, kind(n_states, covariance, missing=partly))
    if output == "categorical":
        n = np.nanmax(series.values) + 1
        if n * series.values.shape[1] * n_states > _MOST_CELLS:
            raise UserError(f"{n:.0f} categories are too many for {n_states} states")
    emissions = OUTPUTS[output].mixture(n_states, maximum_likelihood=not bayesian)
    if output == "autoregressive":
        return AutoregressiveHiddenMarkovModel(n_states, emissions, order=order)
    return HiddenMarkovModel(n_states, emissions)


@jax.jit
def _parameters(model: Any, params: Any) -> dict[str, Any]:
    """In one compiled program; one operation after the other takes seconds."""
    states = dict(initial=params.initial, transitions=params.transitions)
    states |= dict(shares=params.shares) if "shares" in params else {}
    found = {name: state.mean for name, state in states.items()} | dict(durations=model.durations(params))
    own = _outputs(model, params, params.components)
    if model.emissions.points:
        return found | {name: value for name, value in own.items() if not name.endswith("_sd")}
    return found | {f"{name}_sd": state.sd for name, state in states.items()} | own


def _outputs(model: Any, params: Any, components: Any) -> dict[str, Any]:
    """Parameters of the outputs, by state and, where a state is a mixture, by component."""
    emissions = model.emissions
    if isinstance(model, AutoregressiveHiddenMarkovModel):
        found = dict(intercepts=model.intercepts(params), coefficients=model.coefficients(params))
        found["coefficients_sd"] = model.by_lag(components.sd.location)
        return found | dict(covariances=model.covariances(params))
    flat = emissions.flat if isinstance(emissions, NestedMixture) else emissions
    if isinstance(flat, (GaussianMixture, BayesianGaussianMixture)):
        mixture = flat.evenly(params)
        found = dict(means=flat.means(mixture), covariances=flat.covariances(mixture))
        found["means_sd"] = components.sd.location
        return {name: _nested(value, params) for name, value in found.items()}
    if isinstance(flat, GammaMixture):
        if not flat.learn_shape:
            return dict(rates=components.mean, rates_sd=components.sd)
        return dict(shapes=components.mean.row_shape, rates=components.mean.rate, rates_sd=components.sd.rate)
    name = "rates" if isinstance(flat, PoissonMixture) else "probabilities"
    return {name: components.mean, f"{name}_sd": components.sd}


def _nested(x: Any, params: Any) -> Any:
    """What there is for every component, by state and component where a state is a mixture."""
    return x.reshape(*params.shares.mean.shape, *x.shape[1:]) if "shares" in params else x


def describe(result: Fit, series: Series) -> dict[str, np.ndarray]:
    """The chain, what steps are in its states, and which steps are in which.

    Args:
        result: a fit of `model`.
        series: what it was fitted to.

    Returns:
        `initial` (K,), `transitions` (K, K) and `durations` (K,), expected steps until a state is left; of
        gaussian output `means` (K, d), `covariances` (K, d, d) and `sds` (K, d); of mixture output these for
        every component, (K, M, ...), and `shares` (K, M); of autoregressive output `coefficients` (K, order,
        d, d), by state and lag, `intercepts` (K, d), and `covariances` and `sds` of what they leave; else
        `rates` (K, d), of gamma output beside `shapes` (K, d), or `probabilities` (K, d) or (K, d, v). Most
        have posterior standard deviations in the Bayesian model, `means_sd` and so on; the other has `bic`
        and `n_parameters`. For every line of the file `states` (t,), the most probable path,
        `state_probabilities` (t, K), `lines` (t,) and `sequence` (t,), a number in `sequences`; `sizes` (K,)
        are the expected steps in a state.
    """
    fitted, params, data = result.model, result.params, series.sequences()
    found = {name: np.asarray(value) for name, value in _parameters(fitted, params).items()}
    if "means_sd" in found:
        d = found["means"].shape[-1]
        both = posterior_sds(params.components, (found["means"].size // d, d))
        found["sds"], found["sds_sd"] = (_nested(sds, params) for sds in both)
    elif "covariances" in found:
        found["sds"] = np.sqrt(np.diagonal(found["covariances"], axis1=-2, axis2=-1))
    back = np.argsort(series.order)
    found["states"] = np.concatenate(fitted.decode(params, data))[back]
    found["state_probabilities"] = np.concatenate(fitted.state_probabilities(params, data))[back]
    found["sizes"] = found["state_probabilities"].sum(0, dtype=float)
    found |= dict(sequence=series.sequence, sequences=np.array(series.names), lines=series.lines)
    if fitted.emissions.points:
        found["bic"] = np.asarray(fitted.bic(params, data))
        found["n_parameters"] = np.asarray(fitted.n_parameters)
    return found


# -- the report ----------------------------------------------------------------------------------------


def size(found: dict[str, np.ndarray], columns: list[str]) -> str:
    """The size of the data in words."""
    counts = {"sequence": len(found["sequences"]), "step": len(found["lines"]), "column": len(columns)}
    return ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())


def table(found: dict[str, np.ndarray], columns: list[str], output: str) -> list[str]:
    """The states that keep more than one step, most frequent first, and the transitions between them."""
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
                    cells.append(_likely(found["probabilities"][k, j]))
                elif output == "autoregressive":
                    cells.append(_pulls(found["coefficients"][k, :, j], columns))
                rows.append([*head, column, *cells])
                head = [""] * len(head)
            head = [""] * 3
    lines = [*aligned(rows, right=3 + nested), *emptied(found["sizes"], "state", "step")]
    if bayesian and any("±" in line for line in lines):
        lines.append("± is one posterior standard deviation")
    return [*lines, "", *_transitions(found["transitions"], kept)]


def _parts(found: dict[str, np.ndarray], k: Any) -> list[tuple[int, int]]:
    """The components of a state that keep more than one step, and the heaviest, by their weight."""
    shares = found["shares"][k]
    best = np.argsort(-shares, kind="stable")
    return [(k, m) for m in best if m == best[0] or shares[m] * found["sizes"][k] > 1]


def _pulls(coefficients: np.ndarray, columns: list[str]) -> str:
    """The largest coefficients (order, d) with which a column depends on the steps before.

    >>> _pulls(np.array([[0.9, 0.0], [-0.25, 1.5]]), ["a", "b"])
    '1.50 b[-2], 0.90 a[-1], -0.25 a[-2], 0.00 b[-1]'
    """
    flat = coefficients.ravel()
    best = np.argsort(-np.abs(flat), kind="stable")[:_MOST_NEXT]
    return ", ".join(f"{flat[i]:.2f} {columns[i % len(columns)]}[-{i // len(columns) + 1}]" for i in best)


def _transitions(transitions: np.ndarray, kept: np.ndarray) -> list[str]:
    """The transition matrix, or of more states than fit in a line the most probable next ones."""
    if len(kept) > _MOST_ACROSS:
        rows = [["from", "to"], *([str(k), _likely(transitions[k])] for k in kept)]
        return aligned(rows, right=1)
    rows = [["from", *(f"to {k}" for k in kept)]]
    rows += [[str(k), *(f"{transitions[k, m]:.3f}" for m in kept)] for k in kept]
    return [line.replace("   ", "  ") for line in aligned(rows, right=len(rows[0]))]


def _likely(probabilities: np.ndarray) -> str:
    """The most probable numbers, those below one in 200 left out but for the first.

    >>> _likely(np.array([0.2, 0.001, 0.799]))
    '2: 0.80, 0: 0.20'
    """
    best = np.argsort(-probabilities, kind="stable")[:_MOST_NEXT]
    shown = [i for i in best if i == best[0] or probabilities[i] >= 0.005]
    return ", ".join(f"{i}: {probabilities[i]:.2f}" for i in shown)
