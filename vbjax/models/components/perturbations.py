"""Starts made from whole optima: two that are crossed, and one whose rows are weighed anew.

A move of one component (moves.py) leaves all others as they are. Crossing takes some components from another
optimum, so that what two runs have found in different parts of the data comes together; other weights of the
rows let all components shift at once. Imported by `moves`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import add_up, own_key

_TIED = 0.01  # of cosines, below which the order of partners is left to chance
_STRONGEST = 2.0  # power of exponential weights; at 1 they are those of the Bayesian bootstrap


def cross(
    key: Array,
    r: Float[Array, "n k"],
    other: Float[Array, "n k"],
    weights: Float[Array, " n"],
    active: Bool[Array, " k"] | None,
) -> Float[Array, "n k"]:
    """Return responsibilities of components of which a random part comes from another optimum.

    Each component of one optimum has a partner in the other, the pairs with most rows in common first (as the
    cosine of their responsibilities); one of each pair is taken. A row that this leaves to none goes to the
    likeliest of them.

    Args:
        key: PRNG key.
        r, other: responsibilities at the two optima.
        weights: of the rows.
        active: which components rows may have; None for all.

    References:
        Pernkopf & Bouchaffra (2005), Genetic-based EM algorithm for learning Gaussian mixture models, IEEE
        TPAMI 27; Gribel & Vidal (2019), HG-means, Pattern Recognition 88, section 3.2.
    """
    tiny = jnp.finfo(r.dtype).tiny
    common = add_up((weights * r.T) @ other)
    sizes = add_up(weights @ r**2)[:, None] * add_up(weights @ other**2)
    alike = common / jnp.sqrt(sizes + tiny)
    if active is not None:  # those left out are one another's partners
        alike = jnp.where(active[:, None] == active, alike, -1)
    taken, partner = draw_partners(key, alike)
    table = jnp.log(jnp.maximum(jnp.where(taken, other[:, partner], r), tiny))
    return jax.nn.softmax(table if active is None else jnp.where(active, table, -jnp.inf), -1)


def draw_partners(key: Array, alike: Float[Array, "k k"]) -> tuple[Bool[Array, " k"], Int[Array, " k"]]:
    """Draw which components are taken from another optimum; return that, and the partner of each there.

    Partners are found greedily: the two that are most alike, then the two of the others that are, and so on;
    at random where none are alike.
    """

    def pair(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        alike, partner = carry
        own, found = jnp.unravel_index(alike.argmax(), alike.shape)
        left = alike.at[own].set(-jnp.inf).at[:, found].set(-jnp.inf)
        return left, partner.at[own].set(found.astype(partner.dtype))

    keys, k = jax.random.split(key, 3), len(alike)
    alike = alike + _TIED * jax.random.uniform(keys[2], alike.shape, alike.dtype)
    partner = lax.fori_loop(0, k, pair, (alike, jnp.arange(k, dtype=jnp.int32)))[1]
    share = jax.random.uniform(keys[1], (), alike.dtype)
    return jax.random.uniform(keys[0], (k,), alike.dtype) < share, partner


def reweigh(key: Array, r: Float[Array, "n k"], weights: Float[Array, " n"]) -> Float[Array, "n k"]:
    """Return responsibilities times random weights of the rows, whose mean is 1.

    References:
        Elidan, Ninio, Friedman & Schuurmans (2002), Data perturbation for escaping local maxima in learning,
        AAAI, section 3.
    """
    keys = jax.random.split(key)
    strength = _STRONGEST * jax.random.uniform(keys[0], (), r.dtype)
    drawn = jax.random.exponential(own_key(keys[1]), weights.shape, r.dtype) ** strength
    return r * (drawn * add_up(weights.sum()) / add_up((weights * drawn).sum()))[:, None]
