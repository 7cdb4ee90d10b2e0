"""Ways from the best run of a fit to a better optimum: away from saddles, and by the moves of a model.

Both begin the lanes of the race again, from other starts, in the programs that are compiled already; what
ends above the best run takes its place. Imported by `fit`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.contracts import Status
from vbjax.core.devices import in_several_processes, jit_over_mesh
from vbjax.families.coordinates import displace
from vbjax.inference import division
from vbjax.inference.restarts import Race, Runs
from vbjax.inference.result import Fit, Search
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params

if TYPE_CHECKING:
    from vbjax.core.contracts import Algorithm

SHAKEN_SWEEPS = np.int32(16)  # after which what leaves a saddle has risen above it
_SHAKES = 3  # saddles that a fit leaves one after the other, at most
_PATIENCE = 12  # rounds of moves in a row that gain nothing, after which a search ends
_GAIN = 1e-5  # of the objective, which is more than what a run has left to gain when it has converged

Climb: TypeAlias = Callable[[Race], tuple[Race, int, Fit]]
"""From a race that has begun to its end: the race, the number of its best run, and the fit."""


def leave_saddles(
    fit: Fit,
    winner: int,
    race: Race,
    algorithm: Algorithm,
    data: Data,
    key: Array,
    look: Callable[[Race], Race],
    climb: Climb,
) -> Fit:
    """Shake the parameters at which the best run converged; where the bound then rises, go on from there.

    The lanes of the race take a few sweeps, each from parameters moved by about a standard deviation. From a
    maximum they come back to it; from a saddle they climb.

    Args:
        fit: of the race, whose best run has the number `winner`.
        race, algorithm, data: of the fit.
        key: PRNG key.
        look: lets a race take `SHAKEN_SWEEPS`.
        climb: ends a race.
    """
    escaped = 0.0
    for number in range(_SHAKES):
        if fit.status != Status.CONVERGED:
            break
        start = float(fit.objective)
        least = start + 1e-4 * max(1.0, abs(start))
        try:
            race = look(_shaken(race, fit.params, algorithm, jax.random.fold_in(key, number), data))
            if not _has_risen(race, least):
                break
            race, best, risen = climb(race)
        except KeyboardInterrupt:
            if in_several_processes():
                raise
            break
        if not risen.objective > least:
            break
        escaped += float(risen.objective) - start
        fit = _replaced(fit, winner, risen, best)
    return dataclasses.replace(fit, escaped=jnp.asarray(escaped, fit.objective.dtype))


def search_moves(fit: Fit, winner: int, race: Race, fixed: Any, key: Array, climb: Climb) -> Fit:
    """Climb from moves of the model away from the best optimum, and again from any that is better.

    The lanes of the race begin at one move each. After a round without a gain the next one moves from where
    that has ended, then again from the best. A search ends after twelve rounds in a row without a gain.

    Args:
        fit: of the race, whose best run has the number `winner`.
        race: the race.
        fixed: its algorithm, data and weights.
        key: PRNG key.
        climb: ends a race.
    """
    algorithm, data, weights = fixed
    rounds, idle, kept, returned, start = 0, 0, 0, 0, float(fit.objective)
    base = fit.params
    while idle < _PATIENCE and not _interrupted(fit) and np.isfinite(float(fit.objective)):
        own = jax.random.fold_in(key, rounds)
        try:
            race, best, found = climb(_moved(race, base, algorithm, own, data, weights))
        except KeyboardInterrupt:
            if in_several_processes():
                raise
            break
        rounds, (sound, before), after = rounds + 1, _rank(fit, winner), _rank(found, best)
        slack = _GAIN * max(1.0, abs(before))
        risen = after > (sound, before + slack)
        close = np.abs(np.asarray(found.runs.objective) - before) <= slack
        idle, kept = (0, kept + 1) if risen else (idle + 1, kept)
        returned = 0 if risen else returned + int((close & np.asarray(found.runs.sound)).sum())
        stopped = _interrupted(found)
        fit = _replaced(fit, winner, found, best) if risen else fit
        base = found.params if idle % 2 and found.runs.sound[best] else fit.params
        if stopped:
            break
    gained = float(fit.objective) - start
    return dataclasses.replace(fit, search=Search(rounds, rounds * race.run.size, kept, gained, returned))


def _interrupted(fit: Fit) -> bool:
    return bool((np.asarray(fit.runs.status) == Status.INTERRUPTED).any())


def _rank(fit: Fit, run: int) -> tuple[bool, float]:
    """Return whether a run is sound, and its objective."""
    return bool(fit.runs.sound[run]), float(fit.objective)


def _replaced(fit: Fit, winner: int, found: Fit, best: int) -> Fit:
    """Return the fit of another race, its best run in the place of this one's in the table of the runs."""
    tables = zip(fit.runs, found.runs, strict=True)
    runs = Runs(*(own.at[winner].set(new[best]) for own, new in tables))
    return dataclasses.replace(found, runs=runs, escaped=fit.escaped)


@jit_over_mesh
def _has_risen(race: Race, least: Given) -> Array:
    """Return whether a run is, or has ended, above an objective."""
    return (race.trace > least).any() | (race.best.rank[..., 1] > least).any()


@jit_over_mesh
def _shaken(race: Race, params: Record, algorithm: Algorithm, key: Array, data: Data) -> Race:
    """Return a race of one run for each lane, from the best parameters of this one, shaken."""
    keys = jax.random.split(key, (race.run.size, len(params)))

    def shake(keys: Array) -> Params:
        moved = [displace(state, own) for state, own in zip(params.values(), keys, strict=True)]
        return Record(zip(params, moved, strict=True))

    return division.begun_again(race, jax.vmap(shake)(keys), algorithm, data)


_moved = jit_over_mesh(division.begun_from_moves)
