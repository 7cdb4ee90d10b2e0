"""Coordinate ascent for local factors that interact: within a row, until the row's bound stops rising.

A single local factor is optimised in closed form in model.py, which imports this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.core.rows import float_dtype, rounding_error
from vbjax.families.base import Family, State, Statistics
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel


def statistics_of(local: Mapping[str, State]) -> Record:
    """Return E[t] of local factors, with their base measures set to 0."""
    return Record({name: q.expected().with_base(0.0) for name, q in local.items()})


def share_of_bound(family: Family, state: State, n_densities: ArrayLike) -> Float[Array, "*plate"]:
    """Return a factor's entropy relative to its base measure, plus the part of E[log h] that does not cancel.

    Args:
        n_densities: the number of densities of the latent in the log joint; for one, E[log h] cancels.
    """
    entropy = family.base_entropy(state)
    excess = jnp.asarray(n_densities - family.base_weight, entropy.dtype)
    return entropy + jnp.where(excess == 0, 0, excess * state.expected().log_base)


def settle(
    model: ConjugateModel, s: Record, rows: Data, local: Record | None = None
) -> tuple[Record, Float[Array, " n"]]:
    """Update interacting local factors in turn; return them and the bound of each row.

    From given states at most `model.local_sweeps` turns are made; without them, turns until the bound stops
    rising. Derivatives of the bound are those at fixed local factors (the envelope theorem).

    Args:
        s: statistics of the global factors, without base measures.
        rows: some rows.
        local: the states at which the local factors start.
    """
    turns = 1000 if local is None else model.local_sweeps
    frozen, s_frozen, rows_frozen, local = lax.stop_gradient((model, s, rows, local))
    if local is None:
        local = Record({n: f.neutral(float_dtype(s)) for n, f in frozen.local(rows_frozen).items()})

    def turn(carry: tuple[Record, Array, Array, Array]) -> tuple[Record, Array, Array, Array]:
        local, previous, _, number = carry
        row = bound_at(frozen, s_frozen, local, rows_frozen)
        score, error = row.sum(), rounding_error(jnp.abs(row).sum())
        moved = _turn(frozen, s_frozen, local, rows_frozen)
        return moved, score, score - previous > error, number + 1

    start = local, jnp.asarray(-jnp.inf, float_dtype(s)), jnp.asarray(True), jnp.asarray(0)
    local = lax.while_loop(lambda carry: carry[2] & (carry[3] < turns), turn, start)[0]
    return local, bound_at(model, s, local, rows)


def _turn(model: ConjugateModel, s: Record, local: Record, rows: Data) -> Record:
    """Update every local factor once, each from the gradient at the statistics of the others."""
    for name, family in model.local(rows).items():
        statistics = statistics_of(local)

        def energy(t: Statistics, name: str = name, statistics: Record = statistics) -> Array:
            return model.likelihood(s | statistics | {name: t}, rows).sum()

        t = statistics[name]
        local = local | {name: family.from_gradient(t, jax.grad(energy)(t))}
    return local


def bound_at(model: ConjugateModel, s: Record, local: Record, rows: Data) -> Float[Array, " n"]:
    """Return the bound of each row at given local states: energy, and entropies relative to base measures."""

    def energy(statistics: Record) -> tuple[Array, Array]:
        row = model.likelihood(s | statistics, rows)
        return row.sum(), row

    gradient, bound = jax.grad(energy, has_aux=True)(statistics_of(local))
    for name, family in model.local(rows).items():
        share = share_of_bound(family, local[name], gradient[name].log_base)
        bound = bound + share.sum(tuple(range(1, share.ndim)))
    return bound
