"""Local factors that interact: updated in turn within a row, until the row's bound settles.

A single local factor is collapsed in closed form (model.py). Imported by core's model alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from vbjax.core.rows import float_dtype, rounding_error
from vbjax.families.base import Family, State
from vbjax.numerics.record import Record


def statistics_of(local: Mapping[str, State]) -> Record:
    """E[t] of local factors, without base measures."""
    return Record({name: q.expected().with_base(0.0) for name, q in local.items()})


def share_of_bound(family: Family, state: State, n_densities: Any) -> Array:
    """A factor's entropy relative to its base measure, and what of E[log h] does not cancel against it.

    Args:
        n_densities: how many densities of the latent the log joint holds.
    """
    entropy = family.base_entropy(state)
    excess = jnp.asarray(n_densities - family.base_weight, entropy.dtype)
    return entropy + jnp.where(excess == 0, 0, excess * state.expected().log_base)


def settle(model: Any, s: Record, rows: Any, local: Record | None = None) -> tuple[Record, Array]:
    """Local factors that interact, updated in turn; and the bound of each row.

    From given states they take `model.local_sweeps` turns at most, from nowhere as many as the bound
    goes on rising. Derivatives of the bound are those at fixed local factors (the envelope theorem).

    Args:
        s: statistics of the global factors, without base measures.
        rows: some rows.
        local: where the local factors begin.
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


def _turn(model: Any, s: Record, local: Record, rows: Any) -> Record:
    """Every local factor once, each from the gradient at the statistics of the others."""
    for name, family in model.local(rows).items():
        statistics = statistics_of(local)

        def energy(t: Any, name: str = name, statistics: Record = statistics) -> Array:
            return model.likelihood(s | statistics | {name: t}, rows).sum()

        t = statistics[name]
        local = local | {name: family.from_gradient(t, jax.grad(energy)(t))}
    return local


def bound_at(model: Any, s: Record, local: Record, rows: Any) -> Array:
    """The bound of each row at given local states: energy and entropies relative to the base measures."""

    def energy(statistics: Record) -> tuple[Array, Array]:
        row = model.likelihood(s | statistics, rows)
        return row.sum(), row

    gradient, bound = jax.grad(energy, has_aux=True)(statistics_of(local))
    for name, family in model.local(rows).items():
        share = share_of_bound(family, local[name], gradient[name].log_base)
        bound = bound + share.sum(tuple(range(1, share.ndim)))
    return bound
