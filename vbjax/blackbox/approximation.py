"""Result of a black-box fit: q on unconstrained space, read in the user's own space and shapes.

For `blackbox` and users; imports supports and draws.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Generic

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float, UInt32

from vbjax.blackbox.algorithms.paths import Paths
from vbjax.blackbox.contracts import Free, Latents, Points, Q, SupportTree, is_reparameterized
from vbjax.blackbox.families import LocationScale, from_free, with_equal_weights
from vbjax.blackbox.moments import DrawnMoments
from vbjax.blackbox.normal_draws import matched_draws
from vbjax.blackbox.supports import Support
from vbjax.families.base import pytree, static
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_count, read_key
from vbjax.numerics.record import Record


def support_leaves(support: SupportTree) -> list[Support]:
    """Return the supports of all latents, in the order in which their vectors are joined."""
    return jax.tree.leaves(support, is_leaf=lambda x: isinstance(x, Support))


def support_size(support: SupportTree) -> int:
    """Return d, the number of real numbers that all latents together are made from."""
    return sum(leaf.size for leaf in support_leaves(support))


def constrain(support: SupportTree, u: Float[Array, " d"]) -> tuple[Latents, Float[Array, ""]]:
    """Return the latents at the joint vector u, and the log volume by which the map stretches there."""
    leaves, tree = jax.tree.flatten(support, is_leaf=lambda x: isinstance(x, Support))
    parts = jnp.split(u, np.cumsum([leaf.size for leaf in leaves])[:-1])
    pairs = [leaf.constrain(part) for leaf, part in zip(leaves, parts, strict=True)]
    values = jax.tree.unflatten(tree, [value for value, _ in pairs])
    stretch = sum((log for _, log in pairs), jnp.zeros((), u.dtype))
    return (Record(values) if isinstance(values, Mapping) else values), stretch


@pytree
class Approximation(DrawnMoments, Generic[Q]):
    """Approximation of a posterior: u ~ q, and the latents are constrain(u).

    `mean`, `sd`, `variance`, `covariance` and `quantile(p)` are those of the draws of the fit.

    Attributes:
        q: `LocationScale`, another family of `families`, or one of the user's own.
        base: (n, noise_size), the standard normals of the fit, from which q places its draws; None for a
            q that draws by itself.
        seed: data of the key of fresh draws.
        support: supports of the latents.
        n: number of draws of the fit.
        paths: the paths to where the fit started; None where it had one start.

    >>> import jax, vbjax as vb
    >>> model = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real())
    >>> q = vb.blackbox.pathfinder(model, key=jax.random.key(0))  # as fit.params is one
    >>> print(f"{q.mean:.2f} +- {q.sd:.2f}", q.sample(jax.random.key(1), 10).shape)
    3.00 +- 0.50 (10,)
    """

    q: Q
    base: Float[Array, "n noise_size"] | None
    seed: UInt32[Array, " *size"]
    support: SupportTree
    n: int = static()
    paths: Paths | None = None

    @staticmethod
    def begin(q: Q, key: Array, n: int, support: SupportTree, dtype: DTypeLike) -> Approximation[Q]:
        """Return the approximation by q, with n new draws for a fit."""
        draws, fresh = jax.random.split(key)
        base = matched_draws(draws, n, q.noise_size, dtype) if is_reparameterized(q) else None
        support = jax.tree.map(lambda x: jnp.asarray(x, dtype), support)
        return Approximation(q, base, jax.random.key_data(fresh), support, n)

    def at(self, free: Free) -> Approximation[Q]:
        """Return the approximation by the member of q's family at other `to_free` arrays."""
        return dataclasses.replace(self, q=from_free(self.q, free))

    @property
    def key(self) -> Array:
        """Key for draws that the fit has not seen."""
        return jax.random.wrap_key_data(self.seed)

    @property
    def noise(self) -> Float[Array, "n noise_size"]:
        """The standard normals of the fit.

        Raises:
            TypeError: a q that draws by itself.
        """
        if self.base is None:
            raise TypeError(f"a {type(self.q).__name__} is not placed by standard normals")
        return self.base

    def points(self) -> Points:
        """Return the unconstrained draws of the fit, one a row, and their weights."""
        if self.base is not None and is_reparameterized(self.q):
            return self.q.place(self.base)
        return with_equal_weights(self.q.sample(jax.random.fold_in(self.key, 1), self.n))

    def values(self, u: Float[Array, "n d"]) -> Latents:
        """Return the latents at every row of unconstrained u; n leads the shape of each."""
        return jax.vmap(lambda u: constrain(self.support, u)[0])(u)

    @property
    @jit
    def draws(self) -> Latents:
        """Latents at the draws with which the fit was made."""
        return self.values(self.points()[0])

    def weighted_draws(self) -> tuple[Float[Array, " n"], Latents]:
        """Return the weights of the fit's draws, and the latents at them.

        Draws of a normal have exactly the variances of their unconstrained entries under q.
        """
        if self.base is not None and isinstance(self.q, LocationScale):
            u, w = self.q.place_matched(self.base)
        else:
            u, w = self.points()
        return w, self.values(u)

    def sample(self, key: Array, n: int) -> Latents:
        """Draw n independent values of the latents.

        Raises:
            ValueError: a key or a number that is none.
        """
        return _sample(self, read_key(key), read_count(n, "n"))


@functools.partial(jit, static_argnames="n")
def _sample(params: Approximation, key: Array, n: int) -> Latents:
    return params.values(params.q.sample(key, n))
