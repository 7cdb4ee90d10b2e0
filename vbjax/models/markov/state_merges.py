"""Merges of states: moves between fits of a hidden Markov model, where coordinate ascent is stuck.

Two states that do the same work are a local optimum of the bound, the better one being one state.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.ragged import by_part
from vbjax.core.rows import expectation, read_row_weights, sum_over_rows
from vbjax.data.sequences import Sequences
from vbjax.inference.fit import fit
from vbjax.inference.result import Fit
from vbjax.models.markov.hidden_markov import HDPHiddenMarkovModel
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_count, read_number
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given

_TRIES = 3  # pairs of states whose merge is followed by a fit, before none is believed to help


def merge_states(
    result: Any, data: Data, weights: Given = None, *, tol: Given = 1e-6, max_iter: Any = 1000
) -> Fit:
    """Merge the states of a fit of `HDPHiddenMarkovModel` two by two as long as that raises the bound.

    Every pair of states that are used is merged on trial: the steps of both count as steps of the one, and
    one update follows. From the pairs that are best then, by the bound, the model is fitted on; the first
    that ends above what was there is kept, and its pairs are tried.

    Args:
        result: a `Fit`.
        data, weights: what it was fitted to.
        tol, max_iter: of the fits, see `vb.fit`; `tol` per step is also what a merge must gain.

    Returns:
        The last fit that was kept: `result` itself where no merge raised its bound.

    Raises:
        ValueError: a fit of another model; else as `vb.fit`.

    References:
        Hughes, Stephenson & Sudderth (2015), Scalable adaptation of state complexity for nonparametric hidden
        Markov models, section 3.

    `HDPHiddenMarkovModel` has an example.
    """
    if not isinstance(result, Fit) or not isinstance(result.model, HDPHiddenMarkovModel):
        got = f"one of {type(result.model).__name__}" if isinstance(result, Fit) else type(result).__name__
        raise ValueError(f"result must be a fit of HDPHiddenMarkovModel; got {got}")
    tol, max_iter = read_number(tol, "tol"), read_count(max_iter, "max_iter")
    read, key = result.model.read(data), jax.random.key(0)  # of no account: fits begin at given parameters
    weights = read_row_weights(weights, read)

    def improved(result: Fit) -> Fit | None:
        model, least = result.model, float(result.objective) + tol * int(read.n_steps)
        used = np.flatnonzero(model.used_states(result.params)).tolist()
        pairs = np.array(list(itertools.combinations(used, 2)), np.int32)
        starts = [_merged(model, result.params, read, weights, pair) for pair in pairs]
        for start, _ in sorted(starts, key=lambda merged: -float(merged[1]))[:_TRIES]:
            tried = fit(model, read, key=key, weights=weights, params=start, tol=tol, max_iter=max_iter)
            if float(tried.objective) > least:
                return tried
        return None

    while better := improved(result):
        result = better
    return result


@jit
def _merged(
    model: HDPHiddenMarkovModel, params: Record, data: Sequences, weights: Array | None, pair: Array
) -> tuple[Record, Array]:
    """Return parameters after one update in which the second state counts as the first, and their bound."""
    itself = jnp.eye(model.n_states, dtype=params.initial.concentration.dtype)
    chain, components = model.prepare(params)
    prepared = chain._replace(counts_as=itself.at[pair[1]].set(itself[pair[0]])), components
    chunk = by_part(model.chunk_rows, data)
    total = sum_over_rows(lambda rows, w: model.e_step(prepared, rows, w), data, weights, chunk=chunk)
    moved = model.m_step(params, total.statistics, model.factors)
    return moved, model.objective(moved, expectation(model, moved, data, weights))
