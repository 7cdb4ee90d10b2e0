"""Where clusters and components start: k-means++ and random rows. Imported by k-means and the mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int

from vbjax.core.devices import add_up, numbers_here, pick_row, take_rows
from vbjax.core.rows import float_dtype, n_all_rows, n_rows
from vbjax.numerics.types import Data

Distance: TypeAlias = Callable[[Array], Float[Array, " n"]]  # of a row, given by its number, from all rows


def plus_plus(
    key: Array, x: Float[Array, "n d"], k: int, weights: Float[Array, " n"] | None, scale: Float[Array, " d"]
) -> Float[Array, "{k} d"]:
    """Draw k-means++ seeds (k, d) among the rows of a table; `scale` (d,) is a unit of squared distance."""
    mass = jnp.ones(x.shape[0], x.dtype) if weights is None else weights
    return take_rows(x, plus_plus_rows(key, squared_distance(x, scale), mass, k))


def squared_distance(x: Float[Array, "n d"], scale: Float[Array, " d"]) -> Distance:
    """Return the squared distance of a row from all rows, in units of `scale` (a variance)."""
    return lambda row: ((x - take_rows(x, row)) ** 2 / scale).sum(1)


def plus_plus_rows(key: Array, distance: Distance, mass: Float[Array, " n"], k: int) -> Int[Array, " {k}"]:
    """Draw the numbers of k rows, each next row in proportion to its distance from the nearest of the others.

    Args:
        key: PRNG key.
        distance: of a row, given by its number, from all rows.
        mass: (n,), the rows' weights.
        k: number of seeds.

    Once every row has been taken (fewer distinct rows than seeds), rows are drawn by weight alone.

    References:
        Arthur, D. & Vassilvitskii, S. (2007), k-means++: the advantages of careful seeding, section 2.2.
    """
    uniform = jax.random.uniform(key, (k,), mass.dtype)
    to = lambda row: jnp.where(mass == 0, 0, distance(row))  # rows without weight may be NaN

    def take(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        seeds, nearest = carry
        pull = mass * nearest
        row = pick_row(uniform[i], jnp.where(add_up(pull.sum()) > 0, pull, mass))
        return seeds.at[i].set(row), jnp.minimum(nearest, to(row))

    first = pick_row(uniform[0], mass)
    return lax.fori_loop(1, k, take, (jnp.full(k, first), to(first)))[0]


def draw_seeds(
    key: Array, rows: Data, weights: Float[Array, " n"] | None, distance: Distance | None, k: int, each: int
) -> Int[Array, " m"]:
    """Draw the numbers of k rows far from one another, and of others by weight: `each` for each of k laws."""
    if distance is None:
        if weights is None:
            return jax.random.randint(key, (k * each,), 0, n_all_rows(rows))
        uniform = jax.random.uniform(key, (k * each,), weights.dtype)
        return jax.vmap(lambda share: pick_row(share, weights))(uniform)
    mass = jnp.ones(n_rows(rows), float_dtype(rows)) if weights is None else weights
    far = plus_plus_rows(key, distance, mass, k)
    if each == 1:
        return far
    return jnp.append(far, draw_seeds(jax.random.fold_in(key, 1), rows, weights, None, k, each - 1))


def draw_labelled_seeds(
    key: Array,
    mass: Float[Array, " n"],
    distance: Distance | None,
    k: int,
    each: int,
    labels: Int[Array, " n"],
) -> Int[Array, " m"]:
    """Draw seeds where some labels are known (not -1): first those of laws with labelled rows, among these.

    The seeds of the others are far from them, among rows without a label.
    """
    own = jnp.where(labels == jnp.arange(k, dtype=labels.dtype)[:, None], mass, 0)
    free = jnp.where(labels < 0, mass, 0)
    known = add_up(own.sum(1)) > 0
    pools = jnp.where(known[:, None], own, jnp.where(add_up(free.sum()) > 0, free, mass))
    uniform, order = jax.random.uniform(key, (each, k), mass.dtype), jnp.argsort(~known)

    def take(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        seeds, nearest = carry
        pool = pools[order[i]]
        pull = pool * nearest
        row = pick_row(uniform[0, order[i]], jnp.where(add_up(pull.sum()) > 0, pull, pool))
        far = jnp.ones_like(mass) if distance is None else jnp.where(mass == 0, 0, distance(row))
        return seeds.at[order[i]].set(row), jnp.where(i == 0, far, jnp.minimum(nearest, far))

    first = lax.fori_loop(0, k, take, (jnp.zeros_like(order), jnp.ones_like(mass)))[0]
    others = jax.vmap(lambda u: jax.vmap(pick_row)(u, pools))(uniform[1:])
    return jnp.concatenate([first[None], others]).reshape(-1)


def draw_active(key: Array, most: ArrayLike, number: ArrayLike, dtype: DTypeLike) -> Float[Array, ""]:
    """Draw how many laws the run of this number starts with rows, of `most`.

    In the first run it is all, and in about a third of the others; else from two on. Where there are few rows
    for each of many laws in many columns, every law keeps those that it began with, and no run that starts
    with all of them ends with few.
    """
    most = jnp.asarray(most, dtype)
    uniform = jax.random.uniform(key, (), dtype)
    some = 2 + jnp.floor(uniform * (most - 1 + most // 3))
    return jnp.where(number == 0, most, jnp.minimum(some, most))


def random_rows(
    key: Array, x: Float[Array, "n d"], k: int, weights: Float[Array, " n"] | None
) -> Float[Array, "{k} d"]:
    """Draw k different rows (k, d), by weight, without replacement."""
    if weights is None:
        return take_rows(x, jax.random.choice(key, n_all_rows(x), (k,), replace=False))

    def take(mass: Array, uniform: Array) -> tuple[Array, Array]:
        row = pick_row(uniform, mass)
        return jnp.where(numbers_here(len(mass)) == row, 0, mass), row

    return take_rows(x, lax.scan(take, weights, jax.random.uniform(key, (k,), weights.dtype))[1])
