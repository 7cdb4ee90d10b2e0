"""Moves between optima: starts in which one component has been freed, and takes rows of others.

Coordinate ascent does not move a component to another part of the data. A move does, by its responsibilities:
the rows of a component that is empty, or least missed, go to another one, and the component takes half of the
rows of a third, or the rows about one that is badly explained. One update follows. Models whose labels choose
among components propose such starts to the search of `fit`, beside those of perturbations.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import add_up, pick_row, take_rows
from vbjax.core.model import ConjugateModel
from vbjax.core.rows import sum_over_rows, sweep_rows
from vbjax.families.base import pytree
from vbjax.models.components.component import Component
from vbjax.models.components.perturbations import cross, reweigh
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree

_HALVING = 3  # sweeps in which the halves of every component find their rows
_TRIES = 4  # moves of which one is climbed from
_LEAST = 1.0  # rows in a component below which it is empty
_BISECTIONS = 20  # to find how near as many rows are as a birth takes
_FARTHEST = 30.0  # standard deviations from the mean, more than which is no less explained


class Move(NamedTuple):
    """Change of responsibilities: the rows of `freed` go to `heir`, and `freed` takes others.

    They are half of those of `divided` if it `divides`, those about a row if it is `born` there, else none.
    """

    freed: Int[Array, ""]
    heir: Int[Array, ""]
    divided: Int[Array, ""]
    divides: Bool[Array, ""]
    born: Bool[Array, ""]


class _Halves(NamedTuple):
    """The left and the right half of every component, and the whole: a leading axis of three."""

    params: Record
    log_mass: Float[Array, "3 k"]


@pytree
class _Laws(ConjugateModel):
    """Components without labels, whose rows are given."""

    component: Any

    @property
    def factors(self) -> Record:
        return self.component.factors

    def log_prior(self, s: Record) -> Array:
        return self.component.log_prior(s)

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        return self.component.constrain(params, before)


def propose(
    key: Array,
    component: Component,
    rows: Data,
    weights: Float[Array, " n"],
    r: Float[Array, "n k"],
    other: Float[Array, "n k"],
    active: Bool[Array, " k"] | None,
    update: Callable[[Array, Float[Array, "n k"]], Record],
    score: Callable[[Record], Float[Array, ""]],
) -> Record:
    """Return a start near an optimum: a move away from it, crossed with another, or of rows weighed anew.

    Each of the three is as likely as the others.

    Args:
        key: PRNG key.
        component: of the model.
        rows, weights: as the component takes them.
        r: the responsibilities at the optimum.
        other: those at another one.
        active: which components rows may have; None for all.
        update: the model's update, given a key and responsibilities.
        score: the model's objective, given parameters.
    """
    keys = jax.random.split(key, 3)
    kind = jax.random.randint(keys[0], (), 0, 3)

    def perturb(key: Array) -> Record:
        crossed = lambda key: cross(key, r, other, weights, active)
        return update(keys[2], lax.cond(kind == 1, crossed, lambda key: reweigh(key, r, weights), key))

    move = lambda key: _best_move(key, component, rows, weights, r, active, update, score)
    return lax.cond(kind == 0, move, perturb, keys[1])


def _best_move(
    key: Array,
    component: Component,
    rows: Data,
    weights: Float[Array, " n"],
    r: Float[Array, "n k"],
    active: Bool[Array, " k"] | None,
    update: Callable[[Array, Float[Array, "n k"]], Record],
    score: Callable[[Record], Float[Array, ""]],
) -> Record:
    """Return a start that is one move away from an optimum, the best by its bound of a few.

    References:
        Ueda, Nakano, Ghahramani & Hinton (2000), SMEM algorithm for mixture models, Neural Computation 12;
        Hughes & Sudderth (2013), Memoized online variational inference for Dirichlet process mixture models;
        Chang & Fisher (2013), Parallel sampling of DP mixture models using sub-cluster splits, section 4.
    """
    keys = jax.random.split(key)
    halves = _halve(keys[0], component, rows, weights, r)
    _, table = _prepare(component, halves)
    chunk = component.chunk_rows(component.bare(rows))

    def explain(some: tuple[Data, Array], _: Array, __: Array) -> tuple[tuple[()], Array]:
        taken = some[1].T
        return (), jnp.where(taken > 0, taken * table(some[0])[2], 0).sum(0)

    explained = sweep_rows(explain, (rows, r), weights, jnp.zeros_like(weights), chunk=chunk)[1]

    def compare(some: tuple[Data, Array], w: Array) -> tuple[Array, Array]:
        own, r = some
        *both, whole = table(own)
        parts = jnp.logaddexp(*both)
        taken = w * r.T
        return jnp.where(taken > 0, taken * (parts - whole), 0).sum(1), taken @ whole.T

    gain, shared = sum_over_rows(compare, (rows, r), weights, chunk=chunk)
    loss = jnp.maximum(jnp.diagonal(shared)[:, None] - shared, 0)
    mass = jnp.exp(halves.log_mass[2])

    def attempt(key: Array) -> tuple[Record, Array]:
        keys = jax.random.split(key, 3)
        move = _draw(keys[0], gain, loss, mass, active, may_empty=not component.points)
        born = move.born & _neighbours(keys[2], component, rows, weights, explained)

        def moved(some: tuple[Data, Array], _: Array, r: Array) -> tuple[tuple[()], Array]:
            own, born = some
            left = jax.nn.softmax(table(own)[:2, move.divided], 0)[0]
            r = r.at[:, move.heir].add(r[:, move.freed]).at[:, move.freed].set(0)
            stays = r[:, move.divided] * jnp.where(move.divides, left, 1)
            r = r.at[:, move.freed].set(r[:, move.divided] - stays).at[:, move.divided].set(stays)
            return (), jnp.where(born[:, None], jax.nn.one_hot(move.freed, r.shape[1], dtype=r.dtype), r)

        start = update(keys[1], sweep_rows(moved, (rows, born), weights, r, chunk=chunk)[1])
        return start, score(start)

    starts, value = lax.map(attempt, jax.random.split(keys[1], _TRIES))
    best = jnp.where(jnp.isnan(value), -jnp.inf, value).argmax()
    return jax.tree.map(lambda x: x[best], starts)


def _neighbours(
    key: Array, component: Component, rows: Data, weights: Float[Array, " n"], explained: Float[Array, " n"]
) -> Bool[Array, " n"]:
    """Return which rows are about a row, any or a badly explained one; few or many, up to about half of all.

    They are those that gain most by a law that starts at this row (the births of Hughes & Sudderth 2013).
    """
    keys, bare, there = jax.random.split(key), component.bare(rows), weights > 0
    seed, biased, many = jax.random.uniform(keys[0], (3,), weights.dtype)
    n = add_up(weights.sum())
    average = lambda x: add_up((weights * jnp.where(there, x, 0)).sum()) / n
    below = average(explained) - explained
    unit = jnp.sqrt(average(below**2)) + jnp.finfo(n.dtype).tiny
    pull = jnp.where(biased < 0.5, jnp.exp(jnp.minimum(below / unit, _FARTHEST)), 1)
    row = pick_row(seed, jnp.where(there, weights * pull, 0))
    at = take_rows(bare, jnp.full(component.n_laws * component.rows_to_start, row))
    prepared = component.prepare(component.start_at(at, rows, weights))

    def gain(some: tuple[Data, Array], _: Array, __: Array) -> tuple[tuple[()], Array]:
        return (), component.log_density(prepared, some[0])[0][0] - some[1]

    chunk = component.chunk_rows(bare)
    near = sweep_rows(gain, (rows, explained), weights, jnp.zeros_like(weights), chunk=chunk)[1]
    most = jnp.exp(many * jnp.log(jnp.maximum(n / 2, 1)))

    def bisect(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        fits = add_up(jnp.where(near >= middle, weights, 0).sum()) <= most
        return jnp.where(fits, ends[0], middle), jnp.where(fits, middle, ends[1])

    ends = average(near), take_rows(near, row)
    return near >= lax.fori_loop(0, _BISECTIONS, bisect, ends)[1]


def _halve(
    key: Array, component: Component, rows: Data, weights: Float[Array, " n"], r: Float[Array, "n k"]
) -> _Halves:
    """Divide the rows of every component in two, by mixtures of two that start at two of its rows.

    A row is first of the half that it is likelier in, by more or less than a random share of the component's
    rows, so that halves are of any size; then of both by their responsibilities.
    """
    laws, k, each = _Laws(component), component.n_laws, component.rows_to_start
    keys = jax.random.split(key)
    shares = jax.random.uniform(keys[0], (3, each, k), r.dtype)
    pick = jax.vmap(lambda share, own: pick_row(share, own), (0, 1))
    seeds = jax.vmap(jax.vmap(lambda share: pick(share, weights[:, None] * r)))(shares).reshape(3, -1)
    bare = component.bare(rows)
    begun = jax.vmap(lambda own: component.start_at(take_rows(bare, own), rows, weights))(seeds)
    chunk = component.chunk_rows(bare)

    first = _Halves(begun, jnp.zeros((3, k), r.dtype))
    _, table = _prepare(component, first)

    def spread(some: tuple[Data, Array], w: Array) -> Array:
        left, right, _ = table(some[0])
        taken, far = w * some[1].T, left - right
        return jnp.stack([taken, taken * far, taken * far**2]).sum(2)

    mass, mean, square = sum_over_rows(spread, (rows, r), weights, chunk=chunk)
    mean, square = mean / mass, square / mass
    border = mean + jnp.sqrt(jnp.maximum(square - mean**2, 0)) * jax.random.normal(keys[1], (k,), r.dtype)

    def sweep(turn: Array, halves: _Halves) -> _Halves:
        prepared, table = _prepare(component, halves)

        def statistics(some: tuple[Data, Array], w: Array) -> tuple[Tree, Array]:
            own, r = some
            parts = table(own)[:2]
            left = parts[0] - parts[1] >= border[:, None]
            hard = jnp.stack([left, ~left]).astype(parts.dtype)
            share = jnp.where(turn == 0, hard, jax.nn.softmax(parts, 0))
            taken = w * r.T * jnp.concatenate([share, jnp.ones_like(share[:1])])
            pull = lambda prepared, taken: component.log_density(prepared, own)[1](taken)
            return jax.vmap(pull)(prepared, taken), taken.sum(2)

        total, mass = sum_over_rows(statistics, (rows, r), weights, chunk=chunk)
        moved = jax.vmap(lambda params, own: laws.m_step(params, own, laws.factors))(halves.params, total)
        return _Halves(moved, jnp.log(mass + jnp.finfo(mass.dtype).tiny))

    return lax.fori_loop(0, _HALVING, sweep, first)


def _prepare(component: Component, halves: _Halves) -> tuple[Tree, Callable[[Data], Array]]:
    """Return what the densities of halves need, and a function of rows: their weighted table, (3, k, n)."""
    prepared = jax.vmap(component.prepare)(halves.params)
    density = lambda prepared, rows: component.log_density(prepared, rows)[0]
    table = lambda rows: jax.vmap(density, (0, None))(prepared, rows) + halves.log_mass[..., None]
    return prepared, table


def _draw(
    key: Array,
    gain: Float[Array, " k"],
    loss: Float[Array, "k k"],
    mass: Float[Array, " k"],
    active: Bool[Array, " k"] | None,
    *,
    may_empty: bool,
) -> Move:
    """Draw a move, likelier one of more gain and less loss; of each kind as often as of the others.

    Args:
        key: PRNG key.
        gain: in expected log density, if a component is divided.
        loss: if the rows of one (first axis) go to another.
        mass: the weight of the rows of each.
        active: which components rows may have.
        may_empty: whether an empty component is of any good to the objective.
    """
    keys, k = jax.random.split(key, 3), len(gain)
    itself = jnp.eye(k, dtype=bool)
    kind = jax.random.randint(keys[0], (), 0, 3 if may_empty else 2)
    divides, born, only = kind == 0, kind == 1, kind == 2
    each = jnp.exp(jax.random.normal(keys[1], (k,), gain.dtype)) * gain
    cost = jnp.exp(jax.random.normal(keys[2], (k, k), gain.dtype)) * loss
    unfit = itself | jnp.isnan(cost) | (only & (mass < _LEAST)[:, None])
    value = jnp.where(divides, each, 0)[None, None] - jnp.where(unfit, jnp.inf, cost)[..., None]
    value = jnp.where(itself[:, None] | jnp.isnan(value), -jnp.inf, value)
    if active is not None:
        fit = active[:, None, None] & active[:, None] & active
        value = jnp.where(fit, value, -jnp.inf)
    freed, heir, divided = jnp.unravel_index(value.argmax(), value.shape)
    return Move(freed, heir, divided, divides, born)
