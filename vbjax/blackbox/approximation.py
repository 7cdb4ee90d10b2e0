"""What a black-box fit returns: q on unconstrained space, read in the user's own space and shapes.

For `blackbox` and users; imports supports and draws.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from vbjax.blackbox import moments
from vbjax.blackbox.families import equally_weighted, from_free
from vbjax.blackbox.normal_draws import matched_draws
from vbjax.blackbox.supports import Support
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import read_count, read_key, read_probabilities
from vbjax.numerics.record import Record


def support_leaves(support: Any) -> list[Support]:
    """The supports of all latents, in the order in which their vectors are joined."""
    return jax.tree.leaves(support, is_leaf=lambda x: isinstance(x, Support))


def constrain(support: Any, u: Array) -> tuple[Any, Array]:
    """The latents at a vector u of all of them, and the log of the volume by which the map stretches."""
    leaves, tree = jax.tree.flatten(support, is_leaf=lambda x: isinstance(x, Support))
    parts = jnp.split(u, np.cumsum([leaf.size for leaf in leaves])[:-1])
    pairs = [leaf.constrain(part) for leaf, part in zip(leaves, parts, strict=True)]
    values = jax.tree.unflatten(tree, [value for value, _ in pairs])
    stretch = sum((log for _, log in pairs), jnp.zeros((), u.dtype))
    return (Record(values) if isinstance(values, Mapping) else values), stretch


@pytree
class Approximation:
    """u ~ q, the latents constrain(u). Moments are those of the draws of the fit.

    Attributes:
        q: `LocationScale`, or another of `families`, or the user's own.
        base: (n, noise_size), the standard normals of the fit, from which q places its draws; None for a
            q that draws by itself.
        seed: data of the key of fresh draws.
        support: that of the latents.
        n: how many draws the fit has.
    """

    q: Any
    base: Any
    seed: Array
    support: Any
    n: int = static()

    @staticmethod
    def begin(q: Any, key: Array, n: int, support: Any, dtype: Any) -> Approximation:
        """q with the draws of a fit."""
        draws, fresh = jax.random.split(key)
        base = matched_draws(draws, n, q.noise_size, dtype) if hasattr(q, "place") else None
        support = jax.tree.map(lambda x: jnp.asarray(x, dtype), support)
        return Approximation(q, base, jax.random.key_data(fresh), support, n)

    def at(self, free: Any) -> Approximation:
        """With q at other `to_free` arrays."""
        return dataclasses.replace(self, q=from_free(self.q, free))

    @property
    def key(self) -> Array:
        """For draws that the fit has not seen."""
        return jax.random.wrap_key_data(self.seed)

    def points(self) -> tuple[Array, Array]:
        """The unconstrained draws of the fit, one a row, and their weights."""
        if self.base is not None:
            return self.q.place(self.base)
        return equally_weighted(self.q.sample(jax.random.fold_in(self.key, 1), self.n))

    def values(self, u: Array) -> Any:
        """The latents at unconstrained u (n, d); n leads the shape of each."""
        return jax.vmap(lambda u: constrain(self.support, u)[0])(u)

    @property
    @jax.jit
    def draws(self) -> Any:
        """The latents at the draws with which the fit was made."""
        return self.values(self.points()[0])

    def _weighted(self) -> tuple[Array, Any]:
        """Weights and values of the draws of the fit."""
        u, w = self.points()
        return w, self.values(u)

    @property
    @jax.jit
    def mean(self) -> Any:
        """E[latent]."""
        return moments.mean(*self._weighted())

    @property
    @jax.jit
    def sd(self) -> Any:
        """The standard deviation of every entry."""
        return jax.tree.map(jnp.sqrt, moments.variance(*self._weighted()))

    @property
    @jax.jit
    def covariance(self) -> Array:
        """Of all entries of the latents, in the order of `jax.flatten_util.ravel_pytree`."""
        return moments.covariance(*self._weighted())

    def quantile(self, p: ArrayLike) -> Any:
        """The quantile of every entry, from the draws of the fit; the shape of p leads.

        Raises:
            ValueError: a p that is no probability.
        """
        return _quantile(self, read_probabilities(p))

    def sample(self, key: Array, n: int) -> Any:
        """n independent draws of the latents.

        Raises:
            ValueError: a key or a number that is none.
        """
        return _sample(self, read_key(key), read_count(n, "n"))


@jax.jit
def _quantile(params: Approximation, p: ArrayLike) -> Any:
    return moments.quantile(*params._weighted(), p)


@functools.partial(jax.jit, static_argnames="n")
def _sample(params: Approximation, key: Array, n: int) -> Any:
    return params.values(params.q.sample(key, n))
