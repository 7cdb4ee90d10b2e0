"""Contracts of this room: what a family of q must offer, and names for the trees that belong to the user.

A family is the set of distributions that a fit chooses from; a member q of it is a pytree, so that JAX
differentiates in its arrays. Every member draws and has a density (`Distribution`); the other contracts are
what some members offer beyond that. For `blackbox`; imports nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeGuard, TypeVar, runtime_checkable

from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.numerics.types import Data, Tree

Latents: TypeAlias = Tree  # values of the latents, a pytree of the structure of the user's `support`
SupportTree: TypeAlias = Any  # the user's `support`: a pytree whose leaves are `Support` objects
Free: TypeAlias = Tree  # arrays without constraints, by which an optimiser moves a member
Points: TypeAlias = tuple[Float[Array, "n d"], Float[Array, " n"]]  # draws and weights that add up to 1


@runtime_checkable
class Distribution(Protocol):
    """Distribution on R^d, a pytree."""

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors."""

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the log density at every row of u."""


Q = TypeVar("Q", bound=Distribution)


@runtime_checkable
class Reparameterized(Distribution, Protocol):
    """Distribution whose draws are differentiable functions of standard normal noise."""

    @property
    def noise_size(self) -> int:
        """Number of standard normals that one draw is made from."""

    def place(self, z: Float[Array, "m noise_size"]) -> Points:
        """Return the draws at standard normals z, and their weights."""


@runtime_checkable
class WithEntropy(Distribution, Protocol):
    """Distribution that knows its entropy exactly."""

    def entropy(self) -> Float[Array, ""]:
        """Return H[q]."""


@runtime_checkable
class WithFree(Distribution, Protocol):
    """Distribution with constrained arrays, which an optimiser moves by others."""

    def free(self) -> Free:
        """Return arrays without constraints that determine q."""

    def at(self: Q, free: Free) -> Q:
        """Return the member of the same family that `free` determines."""


@runtime_checkable
class WithDiscrete(Distribution, Protocol):
    """Distribution of which some coordinates are discrete, and have no pathwise gradient."""

    def discrete_log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the part of log q that belongs to the discrete coordinates."""


@runtime_checkable
class WithFreshDraws(Distribution, Protocol):
    """Distribution that may be so flexible as to fit the draws of a fit in place of the density."""

    @property
    def needs_fresh_draws(self) -> bool:
        """Whether it must be fitted on draws that are fresh in every step."""


@runtime_checkable
class WithLocal(Distribution, Protocol):
    """Distribution that also draws latents of single rows, which are no part of its vectors."""

    def encode(self, rows: Data) -> tuple[Float[Array, "m k"], Float[Array, "m k"]]:
        """Return means and log standard deviations of the unconstrained local latents of rows."""

    def draw_local(self, key: Array, rows: Data) -> tuple[Float[Array, "m k"], Float[Array, " m"]]:
        """Return one draw of the unconstrained local latents of rows, and their log density."""


# (key, length of every latent's vector, dtype) -> the member of the family from which a fit starts
FamilyStart: TypeAlias = Callable[[Array, tuple[int, ...], DTypeLike], Distribution]


def is_reparameterized(q: Distribution) -> TypeGuard[Reparameterized]:
    """Tell whether q places its draws by noise. (`isinstance` would compute `noise_size` to find out.)"""
    return hasattr(q, "place")


def needs_fresh_draws(q: Distribution) -> bool:
    """Tell whether q must be fitted by stochastic gradients: it is discrete in part, or very flexible."""
    return isinstance(q, WithDiscrete) or (isinstance(q, WithFreshDraws) and q.needs_fresh_draws)
