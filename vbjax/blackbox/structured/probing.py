"""Pattern of a Hessian from few products with it, by halving groups of columns that go on touching rows.

For `BlackBox`; imports sparsity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jaxtyping import Bool, Float

from vbjax.blackbox.structured.sparsity import Sparsity, colour
from vbjax.core.rows import float_dtype
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.types import Data

_AT_ONCE = 64  # products in a call
_GROUPS = 64  # of columns at first
_TRIES = 8  # pairs of points


class Density(Protocol):
    """Log density of unconstrained u, as a `BlackBox` has it."""

    @property
    def size(self) -> int: ...

    def log_joint(self, u: Array, data: Data = None, share: float = 1) -> Array: ...


def find_sparsity(model: Density, data: Data) -> Sparsity:
    """Find which of the latents' numbers interact in the log density.

    Raises:
        ValueError: inside `jit` and `vmap`; where no random point has a finite Hessian.
    """
    if not is_concrete((model, data)):
        raise ValueError(
            "family 'structured' finds which latents interact from values, which are not known inside jit "
            "and vmap: give vb.blackbox.structured(sparsity)"
        )
    everywhere = np.zeros((_AT_ONCE, model.size), bool)
    everywhere[0] = True
    dtype = float_dtype(data)
    for key in jax.random.split(jax.random.key(0), _TRIES):
        points = jax.random.normal(key, (2, model.size), dtype)
        if np.asarray(_products(model, data, points, jnp.asarray(everywhere, dtype))[1]).all():
            break
    else:
        raise ValueError(
            "log_density has no finite Hessian at random points, from which family 'structured' finds which "
            "latents interact: give vb.blackbox.structured(sparsity)"
        )
    touch = lambda seeds: np.asarray(_products(model, data, points, jnp.asarray(seeds, dtype))[0])
    return probe(touch, model.size)


@jit
def _products(
    model: Density, data: Data, points: Float[Array, "2 d"], seeds: Float[Array, "m d"]
) -> tuple[Bool[Array, "m d"], Bool[Array, ""]]:
    """Return where products of the Hessians with directions are not zero, and whether all are finite."""

    def at(u: Float[Array, " d"]) -> Float[Array, "m d"]:
        product = jax.linearize(jax.grad(lambda u: model.log_joint(u, data)), u)[1]
        return jax.vmap(product)(seeds)

    found = jax.vmap(at)(points)
    return (found != 0).any(0), jnp.isfinite(found).all()


def probe(products: Callable[[np.ndarray], np.ndarray], size: int) -> Sparsity:
    """Find which entries of a symmetric matrix are other than zero.

    The columns are divided into groups, and each product with a random vector on a group tells which rows
    touch it. Groups are halved until each is a column; groups that no row can touch both of share a product.
    Rows that touch most groups forbid nothing, and count as full. A chain of d numbers takes some
    10 log2(d) products.

    Args:
        products: from directions (64, d) to whether each entry of their products is other than zero.
        size: d.
    """
    rng = np.random.default_rng(0)
    n_groups = min(size, _GROUPS)
    group = np.arange(size) * n_groups // size  # of each column
    touched = scipy.sparse.csc_array(np.ones((size, n_groups), bool))  # what rows may touch, and then do
    full = np.zeros(size, bool)
    while True:
        sharing = (
            colour(scipy.sparse.csc_array(touched[~full])) if n_groups > _GROUPS else np.arange(n_groups)
        )
        shared = sharing[group]
        found = np.zeros((size, sharing.max() + 1), bool)
        for first in range(0, found.shape[1], _AT_ONCE):
            seeds = rng.uniform(0.5, 1.5, size) * rng.choice([-1, 1], size)
            seeds = np.where(shared == np.arange(first, first + _AT_ONCE)[:, None], seeds, 0)
            found[:, first : first + _AT_ONCE] = products(seeds).T[:, : found.shape[1] - first]
        rows, columns = scipy.sparse.coo_array(touched).coords
        seen = found[rows, sharing[columns]] | full[rows]
        touched = scipy.sparse.csc_array((seen[seen], (rows[seen], columns[seen])), shape=touched.shape)
        if n_groups == size:
            return Sparsity.of(touched)
        full |= scipy.sparse.csr_array(touched).sum(1) > max(n_groups // 2, 8)
        parts = min(2 * n_groups, size)
        finer = np.arange(size) * parts // size
        parent = np.zeros(parts, int)
        parent[finer] = group
        group, n_groups, touched = finer, parts, scipy.sparse.csc_array(touched[:, parent])
