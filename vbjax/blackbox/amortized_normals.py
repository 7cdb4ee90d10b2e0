"""Amortised local latents: each row has latents of its own, whose normal a function of the row gives.

For users, by `amortized`, and for `BlackBox`, which has the rows; imports families.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.blackbox.contracts import FamilyStart, Points, Reparameterized, is_reparameterized
from vbjax.blackbox.families import from_free, log_normal, to_free
from vbjax.blackbox.starts import start_of
from vbjax.families.base import pytree, static
from vbjax.numerics.types import Data, Tree

Encoder: TypeAlias = Callable[[Data], tuple[Array, Array]]


@pytree
class Amortized:
    """Independent normals of the local latents of each row, by an encoder, beside a family of the others.

    Attributes:
        shared: the member for the latents that all rows share.
        arrays: those of the encoder that are fitted.
        start: what holds the rest of the encoder.
    """

    shared: Reparameterized
    arrays: tuple[Array, ...]
    start: AmortizedStart = static()

    needs_fresh_draws = True

    @property
    def noise_size(self) -> int:
        """Number of standard normals that a draw of the shared latents is made from."""
        return self.shared.noise_size

    def place(self, z: Float[Array, "m noise_size"]) -> Points:
        """Return draws of the shared latents at standard normals z, and their weights."""
        return self.shared.place(z)

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors of the shared latents."""
        return self.shared.sample(key, n)

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the log density of the shared latents at every row of u."""
        return self.shared.log_prob(u)

    def encode(self, rows: Data) -> tuple[Float[Array, "m k"], Float[Array, "m k"]]:
        """Return means and log standard deviations of the unconstrained local latents of rows."""
        leaves, tree = jax.tree.flatten(self.start.encoder)
        for number, array in zip(_fitted(leaves), self.arrays, strict=True):
            leaves[number] = array
        mean, log_sd = jax.tree.unflatten(tree, leaves)(rows)
        return mean, log_sd

    def draw_local(self, key: Array, rows: Data) -> tuple[Float[Array, "m k"], Float[Array, " m"]]:
        """Return one draw of the unconstrained local latents of rows, and their log density.

        Gradients pass through the draw alone: what is left out is zero on average, and the gradient of the
        bound has no variance where q is exact (Roeder, Wu & Duvenaud 2017).
        """
        mean, log_sd = self.encode(rows)
        v = mean + jnp.exp(log_sd) * jax.random.normal(key, mean.shape, mean.dtype)
        mean, log_sd = lax.stop_gradient((mean, log_sd))
        return v, log_normal((v - mean) * jnp.exp(-log_sd), log_sd.sum(-1))

    def free(self) -> tuple[Tree, tuple[Array, ...]]:
        """Return the `free` arrays of the shared family, and the encoder's arrays."""
        return to_free(self.shared), self.arrays

    def at(self, free: tuple[Tree, tuple[Array, ...]]) -> Amortized:
        """Return the member of this family that `free` arrays determine."""
        return dataclasses.replace(self, shared=from_free(self.shared, free[0]), arrays=free[1])


def _fitted(leaves: list[Any]) -> list[int]:
    """Return the numbers of the leaves that are fitted: arrays of floating point."""
    is_array = lambda x: isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.floating)
    return [number for number, leaf in enumerate(leaves) if is_array(leaf)]


@dataclasses.dataclass(frozen=True, eq=False)
class AmortizedStart:
    """Start of the amortised normals of one encoder, at the arrays that it came with."""

    encoder: Encoder
    of: str | FamilyStart

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> Amortized:
        shared = start_of(self.of)(key, sizes, dtype)
        if not is_reparameterized(shared):
            raise ValueError(f"of must be a family with `place`; got {type(shared).__name__}")
        leaves = jax.tree.leaves(self.encoder)
        arrays = tuple(jnp.asarray(leaves[number], dtype) for number in _fitted(leaves))
        return Amortized(shared, arrays, self)


def amortized(encoder: Encoder, of: str | FamilyStart = "mean_field") -> AmortizedStart:
    """Return the family that gives the local latents of each row a normal, by a function of the row.

    It is for a `BlackBox` with `local`, whose rows may come in minibatches: a step then costs as much as its
    rows. It is fitted by stochastic gradients (`blackbox.StochasticAscent`, with Adam at a rate of 0.01),
    the encoder's arrays together with q of the shared latents. `fit.params` holds the shared latents;
    `fit.params.q.encode(rows)` has means and log standard deviations of the local ones, unconstrained, and
    `model.sample_local` draws them.

    Args:
        encoder: a pytree that is called with the rows, (m, ...) each, and returns means and log standard
            deviations, (m, k) each, of the k numbers that local latents of a row are made from. Its arrays of
            floating point are fitted, from the values that they have. A module of equinox will do, and so
            will `jax.tree_util.Partial(function, arrays)`.
        of: family of the shared latents.

    Raises:
        ValueError: an encoder that is no function, or has no arrays; a family that is none.

    References:
        Kingma & Welling (2014), Auto-encoding variational Bayes.

    >>> import jax, jax.numpy as jnp, vbjax as vb
    >>> from jax.tree_util import Partial
    >>> encode = lambda a, x: (x[:, None] * a[0], jnp.zeros_like(x)[:, None] + a[1])
    >>> rows = lambda s, z, x: -0.5 * ((x - s.mu - z[:, 0]) ** 2 + z[:, 0] ** 2)
    >>> prior = lambda s: -0.5 * (s.mu / 10) ** 2
    >>> model = vb.BlackBox(
    ...     prior, dict(mu=vb.real()), vb.blackbox.amortized(Partial(encode, jnp.zeros(2))),
    ...     log_likelihood=rows, local=vb.real(1),
    ... )
    >>> fit = vb.fit(model, jnp.array([-1.0, 0.0, 1.0]), key=jax.random.key(0))
    >>> print(f"{jnp.exp(fit.params.q.encode(jnp.zeros(1))[1][0, 0]):.2f}")  # the posterior's sd, sqrt(1 / 2)
    0.71
    """
    if not callable(encoder) or isinstance(encoder, type):
        raise ValueError(f"encoder must be a pytree that is called with rows; got {encoder!r}")
    if not _fitted(jax.tree.leaves(encoder)):
        raise ValueError("encoder must have arrays to be fitted, as leaves of its pytree; it has none")
    start_of(of, "of")
    return AmortizedStart(encoder, of)
