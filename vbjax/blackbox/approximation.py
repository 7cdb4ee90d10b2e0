"""What a black-box fit returns: a normal on unconstrained space, read in the user's own space and shapes.

For `blackbox` and users; imports supports and scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from vbjax.blackbox.scales import Diagonal, Full
from vbjax.families.base import pytree, static
from vbjax.record import Record
from vbjax.supports import Support


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
class NormalApproximation:
    """u ~ N(location, L L'), the latents constrain(u). Moments are those of the draws of the fit.

    Attributes:
        location: (d,), d numbers for all latents together.
        scale: L, (d,) standard deviations or (d, d) lower triangular.
        base: (n, d), the standard normal draws of the fit; `draws` are what they become.
        seed: data of the key of fresh draws.
        support: that of the latents.
        family: `Diagonal` or `Full`.
    """

    location: Array
    scale: Array
    base: Array
    seed: Array
    support: Any
    family: Diagonal | Full = static()

    def unconstrained(self, z: Array) -> Array:
        """m + L z for standard normals z (n, d)."""
        return self.location + self.family.apply(self.scale, z)

    def values(self, z: Array) -> Any:
        """The latents at standard normals z (n, d); n leads the shape of each."""
        return jax.vmap(lambda u: constrain(self.support, u)[0])(self.unconstrained(z))

    @property
    def draws(self) -> Any:
        """The latents at the draws with which the fit was made."""
        return self.values(self.base)

    @property
    def mean(self) -> Any:
        """E[latent]."""
        return jax.tree.map(lambda x: x.mean(0), self.draws)

    @property
    def sd(self) -> Any:
        """The standard deviation of every entry."""
        return jax.tree.map(lambda x: x.std(0), self.draws)

    @property
    def covariance(self) -> Array:
        """Of all entries of the latents, in the order of `jax.flatten_util.ravel_pytree`."""
        table = jax.vmap(lambda values: ravel_pytree(values)[0])(self.draws)
        shift = table - table.mean(0)
        return shift.T @ shift / len(table)

    def quantile(self, p: float) -> Any:
        """The quantile of every entry, from the draws of the fit."""
        return jax.tree.map(lambda x: jnp.quantile(x, p, axis=0), self.draws)

    def sample(self, key: Array, n: int) -> Any:
        """n independent draws of the latents."""
        return self.values(jax.random.normal(key, (n, len(self.location)), self.location.dtype))
