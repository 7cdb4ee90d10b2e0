"""What the shell command does with sequences: read them, and say what the states of their chain are.

`commands` imports it, does the rest, and prints.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from vbjax import datasets
from vbjax.commands_files import UserError, check_digits, reading
from vbjax.commands_tables import aligned, emptied, measure, posterior_sds
from vbjax.core.fit import Fit
from vbjax.datasets import Series
from vbjax.models import (
    BayesianGaussianMixture,
    BernoulliMixture,
    CategoricalMixture,
    GammaMixture,
    GaussianMixture,
    HiddenMarkovModel,
    PoissonMixture,
)

_MOST_CELLS = 2**26  # categories x columns x states; a category that is a slip would take all the memory
_MOST_ACROSS = 10  # states of a transition matrix in 80 columns
_MOST_NEXT = 5


class Output(NamedTuple):
    """What steps are in each state: the mixture, what its parameter is called, and what entries must be."""

    mixture: Any
    parameter: str
    expected: str
    fits: Callable[[np.ndarray], np.ndarray]


def _whole(x: np.ndarray) -> np.ndarray:
    return (x >= 0) & (x == np.round(x))


OUTPUTS = {
    "gaussian": Output(GaussianMixture, "mean", "a number", np.isfinite),
    "poisson": Output(PoissonMixture, "rate", "a count, 0, 1, 2, ...", _whole),
    "categorical": Output(CategoricalMixture, "categories", "a category, 0, 1, 2, ...", _whole),
    "bernoulli": Output(BernoulliMixture, "probability", "0 or 1", lambda x: (x == 0) | (x == 1)),
    "exponential": Output(GammaMixture, "rate", "a number above 0", lambda x: x > 0),
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
    if partly.any() and output != "gaussian":
        what = f"an entry is missing; for {output} output all entries of a line are, or none"
        raise UserError(f"{path}, line {series.lines[partly.argmax()]}: {what}")
    if (steps := int((~missing.all(1)).sum())) < needed:
        rows = f"{steps} row{'s' * (steps != 1)}"
        raise UserError(f"{path}: {rows}; expected at least {needed} for this model")
    check_digits(path, x, series.columns)
    return series


def model(n_states: int, output: str, series: Series, *, bayesian: bool, covariance: str) -> Any:
    """The model of such sequences, whose entries may be missing.

    Raises:
        UserError: more categories than memory would hold.
    """
    emissions: Any
    if output == "gaussian":
        mixture = BayesianGaussianMixture if bayesian else GaussianMixture
        missing = np.isnan(series.values)
        partly = bool((missing.any(1) & ~missing.all(1)).any())
        emissions = mixture(n_states, covariance, missing=partly)
    else:
        if output == "categorical":
            n = np.nanmax(series.values) + 1
            if n * series.values.shape[1] * n_states > _MOST_CELLS:
                raise UserError(f"{n:.0f} categories are too many for {n_states} states")
        emissions = OUTPUTS[output].mixture(n_states, maximum_likelihood=not bayesian)
    return HiddenMarkovModel(n_states, emissions)


@jax.jit
def _parameters(model: Any, params: Any) -> dict[str, Any]:
    """In one compiled program; one operation after the other takes seconds."""
    emissions, components, bayesian = model.emissions, params.components, not model.emissions.points
    chain = dict(initial=params.initial, transitions=params.transitions)
    found = {name: state.mean for name, state in chain.items()} | dict(durations=model.durations(params))
    if bayesian:
        found |= {f"{name}_sd": state.sd for name, state in chain.items()}
    if isinstance(emissions, (GaussianMixture, BayesianGaussianMixture)):
        mixture = emissions.evenly(params)
        found |= dict(means=emissions.means(mixture), covariances=emissions.covariances(mixture))
        return found | (dict(means_sd=components.sd.location) if bayesian else {})
    name = "rates" if isinstance(emissions, (PoissonMixture, GammaMixture)) else "probabilities"
    return found | {name: components.mean} | ({f"{name}_sd": components.sd} if bayesian else {})


def describe(result: Fit, series: Series) -> dict[str, np.ndarray]:
    """The chain, what steps are in its states, and which steps are in which.

    Args:
        result: a fit of `model`.
        series: what it was fitted to.

    Returns:
        `initial` (K,), `transitions` (K, K) and `durations` (K,), expected steps until a state is left; of
        gaussian output `means` (K, d), `covariances` (K, d, d) and `sds` (K, d), else `rates` (K, d) or
        `probabilities` (K, d) or (K, d, v). All but durations and covariances have posterior standard
        deviations in the Bayesian model, `means_sd` and so on; the other has `bic` and `n_parameters`. For
        every line of the file `states` (t,), the most probable path, `state_probabilities` (t, K), `lines`
        (t,) and `sequence` (t,), a number in `sequences`; `sizes` (K,) are the expected steps in a state.
    """
    fitted, params, data = result.model, result.params, series.sequences()
    found = {name: np.asarray(value) for name, value in _parameters(fitted, params).items()}
    if "means_sd" in found:
        found["sds"], found["sds_sd"] = posterior_sds(params.components, found["means"].shape)
    elif "means" in found:
        found["sds"] = np.sqrt(np.diagonal(found["covariances"], axis1=1, axis2=2))
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
    bayesian = "transitions_sd" in found
    kept = np.flatnonzero(found["sizes"] > 1)
    kept = kept[np.argsort(-found["sizes"][kept], kind="stable")]
    names = [name for name in ("means", "sds", "rates", "probabilities") if name in found]
    header = [OUTPUTS[output].parameter, *(["sd"] if "sds" in found else [])]
    rows = [["state", "share", "duration", "column", *header]]
    for k in kept:
        share = found["sizes"][k] / found["sizes"].sum()
        head = [str(k), f"{share:.1%}", measure(found["durations"][k])]
        for j, column in enumerate(columns):
            if output == "categorical":
                cells = [_likely(found["probabilities"][k, j])]
            else:
                own = [(name, found.get(f"{name}_sd")) for name in names]
                cells = [measure(found[n][k, j], None if sd is None else sd[k, j]) for n, sd in own]
            rows.append([*head, column, *cells])
            head = ["", "", ""]
    lines = [*aligned(rows, right=3), *emptied(found["sizes"], "state", "step")]
    if bayesian and output != "categorical":
        lines.append("± is one posterior standard deviation")
    return [*lines, "", *_transitions(found["transitions"], kept)]


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
