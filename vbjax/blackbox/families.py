"""What q can be on unconstrained space: a normal of any scale, a low-rank one, a mixture; or a user's own.

A family is a pytree with `sample(key, n)`, (n, d), and `log_prob(u)`, (n,). Those here also have `place`,
which carries standard normals (n, noise_size) to draws with weights whose sums are 1: E_q[f] is their sum of
w f(u), and differentiable. For `blackbox` and users; imports scales and draws.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp

from vbjax.blackbox.scales import Diagonal, Full
from vbjax.blackbox.supports import Category, Support
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import read_count
from vbjax.numerics.linalg import cholesky, solve_lower, transpose
from vbjax.numerics.special import LOG_2PI

START_SD = 0.1


def equally_weighted(u: Array) -> tuple[Array, Array]:
    """Draws u (n, d) with weights 1 / n."""
    return u, jnp.full(len(u), 1 / len(u), u.dtype)


def _log_normal(z: Array, log_det: Array) -> Array:
    return -0.5 * ((z * z).sum(-1) + z.shape[-1] * LOG_2PI) - log_det


@pytree
class LocationScale:
    """u = m + L z, z standard normal.

    Attributes:
        location: m, (d,).
        scale: L, (d,) standard deviations or (d, d) lower triangular.
        kind: `Diagonal` or `Full`.
    """

    location: Array
    scale: Array
    kind: Diagonal | Full = static()

    @property
    def noise_size(self) -> int:
        """How many standard normals a draw is made from."""
        return self.location.shape[-1]

    def place(self, z: Array) -> tuple[Array, Array]:
        """Draws with equal weights."""
        return equally_weighted(self.location + self.kind.apply(self.scale, z))

    def sample(self, key: Array, n: int) -> Array:
        """n independent draws (n, d)."""
        return self.place(jax.random.normal(key, (n, self.noise_size), self.location.dtype))[0]

    def log_prob(self, u: Array) -> Array:
        """log q at u (n, d)."""
        return _log_normal(self.kind.undo(self.scale, u - self.location), self.kind.log_det(self.scale))

    def entropy(self) -> Array:
        """H[q]."""
        return self.kind.log_det(self.scale) + 0.5 * self.noise_size * (1 + LOG_2PI)

    def free(self) -> tuple[Array, Array]:
        """m and the logarithm of L's diagonal in its place: arrays without constraints, for optimisers."""
        return self.location, self.kind.free(self.scale)

    def at(self, free: tuple[Array, Array]) -> LocationScale:
        """Of given `free` arrays."""
        return LocationScale(free[0], self.kind.bind(free[1]), self.kind)


@pytree
class LowRank:
    """u = m + D (z + W z'), z and z' standard normal: covariance D (I + W W') D.

    Attributes:
        location: m, (d,).
        log_sd: (d,), the logarithm of the diagonal D.
        loadings: W, (d, rank), without units.

    References:
        Ong, Nott & Smith (2018), Gaussian variational approximation with a factor covariance structure.
    """

    location: Array
    log_sd: Array
    loadings: Array

    @property
    def noise_size(self) -> int:
        """How many standard normals a draw is made from."""
        return sum(self.loadings.shape[-2:])

    def place(self, z: Array) -> tuple[Array, Array]:
        """Draws with equal weights."""
        own, shared = z[:, : len(self.location)], z[:, len(self.location) :]
        return equally_weighted(self.location + jnp.exp(self.log_sd) * (own + shared @ self.loadings.T))

    def sample(self, key: Array, n: int) -> Array:
        """n independent draws (n, d)."""
        return self.place(jax.random.normal(key, (n, self.noise_size), self.location.dtype))[0]

    def log_prob(self, u: Array) -> Array:
        """log q at u (n, d): by regression of u - m on W: nothing cancels."""
        z = (u - self.location) * jnp.exp(-self.log_sd)
        root = self._root()
        shared = solve_lower(root, solve_lower(root, transpose(z @ self.loadings)), transposed=True)
        own = z - transpose(shared) @ self.loadings.T
        squares = (own * own).sum(-1) + (shared * shared).sum(0)
        return -0.5 * (squares + z.shape[-1] * LOG_2PI) - self._log_det(root)

    def entropy(self) -> Array:
        """H[q]."""
        return self._log_det(self._root()) + 0.5 * len(self.location) * (1 + LOG_2PI)

    def _root(self) -> Array:
        w = self.loadings
        return cholesky(jnp.eye(w.shape[-1], dtype=w.dtype) + w.T @ w)

    def _log_det(self, root: Array) -> Array:
        return self.log_sd.sum() + jnp.log(jnp.diagonal(root)).sum()


@pytree
class Mixture:
    """sum_k w_k q_k.

    Attributes:
        logits: (K,), log w but for a constant.
        components: one of the other families, its arrays with a leading axis K.
    """

    logits: Array
    components: Any

    @property
    def weights(self) -> Array:
        """w, (K,)."""
        return jax.nn.softmax(self.logits)

    @property
    def noise_size(self) -> int:
        """How many standard normals a draw is made from."""
        return jax.tree.map(lambda x: x[0], self.components).noise_size

    def place(self, z: Array) -> tuple[Array, Array]:
        """Every draw through every component, weighted as these are: (K n, d) of them."""
        u, w = jax.vmap(lambda q: q.place(z))(self.components)
        return u.reshape(-1, u.shape[-1]), (self.weights[:, None] * w).ravel()

    def sample(self, key: Array, n: int) -> Array:
        """n independent draws (n, d)."""
        pick, draw = jax.random.split(key)
        which = jax.random.categorical(pick, self.logits, shape=(n,))
        z = jax.random.normal(draw, (n, self.noise_size), self.logits.dtype)
        chosen = jax.tree.map(lambda x: x[which], self.components)
        return jax.vmap(lambda q, z: q.place(z[None])[0][0])(chosen, z)

    def log_prob(self, u: Array) -> Array:
        """log q at u (n, d)."""
        each = jax.vmap(lambda q: q.log_prob(u))(self.components)
        return logsumexp(each + jax.nn.log_softmax(self.logits)[:, None], axis=0)

    def free(self) -> tuple[Array, Any]:
        """The logits, and the `free` arrays of the components."""
        return self.logits, jax.vmap(to_free)(self.components)

    def at(self, free: tuple[Array, Any]) -> Mixture:
        """Of given `free` arrays."""
        return Mixture(free[0], jax.vmap(from_free)(self.components, free[1]))


@pytree
class Hybrid:
    """Discrete latents, every entry by itself, beside a family of the continuous ones.

    Attributes:
        continuous: that family, or None if there is none.
        logits: for each discrete latent (entries, cases), log probabilities but for a constant.
        columns: which entries of u are continuous, then which are those of each discrete latent.
    """

    continuous: Any
    logits: tuple[Array, ...]
    columns: tuple[tuple[int, ...], ...] = static()

    def sample(self, key: Array, n: int) -> Array:
        """n independent draws (n, d); through those of discrete latents there is no derivative."""
        key, *keys = jax.random.split(key, 1 + len(self.logits))
        parts = [] if self.continuous is None else [self.continuous.sample(key, n)]
        for key, logits in zip(keys, self.logits, strict=True):
            cases = jax.random.categorical(key, logits, shape=(n, len(logits)))
            parts.append(cases.astype(logits.dtype))
        order = np.argsort(np.concatenate([np.asarray(part, int) for part in self.columns]))
        return jnp.concatenate(parts, 1)[:, order]

    def log_prob(self, u: Array) -> Array:
        """log q at u (n, d)."""
        log_q = self.discrete_log_prob(u)
        return log_q if self.continuous is None else log_q + self.continuous.log_prob(u[:, self.columns[0]])

    def discrete_log_prob(self, u: Array) -> Array:
        """The part of log q that belongs to discrete latents, which moves q by its score alone."""
        total = jnp.zeros(len(u), u.dtype)
        for logits, columns in zip(self.logits, self.columns[1:], strict=True):
            cases = u[:, columns].astype(jnp.int32)
            log_q = jax.nn.log_softmax(logits)
            total = total + jnp.take_along_axis(log_q[None], cases[..., None], -1).sum((-2, -1))
        return total

    def free(self) -> tuple[Any, tuple[Array, ...]]:
        """The `free` arrays of the continuous family, and the logits."""
        return to_free(self.continuous), self.logits

    def at(self, free: tuple[Any, tuple[Array, ...]]) -> Hybrid:
        """Of given `free` arrays."""
        return Hybrid(from_free(self.continuous, free[0]), free[1], self.columns)


def entropy(q: Any, points: tuple[Array, Array]) -> Array:
    """H[q], exact where q knows it, else from draws and their weights."""
    u, w = points
    return q.entropy() if hasattr(q, "entropy") else -w @ q.log_prob(u)


def to_free(q: Any) -> Any:
    """The arrays by which an optimiser moves q: its own, unless it says otherwise."""
    return q.free() if hasattr(q, "free") else q


def from_free(q: Any, free: Any) -> Any:
    """q at other `to_free` arrays."""
    return q.at(free) if hasattr(q, "free") else free


# -- where fits start: functions of a key, the lengths of all latents' vectors, and a dtype ---------------


@dataclasses.dataclass(frozen=True)
class NormalStart:
    """A narrow normal about a standard normal point: "full_rank", "mean_field" or "blocks"."""

    name: str

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: Any) -> LocationScale:
        d = sum(sizes)
        kind = Diagonal() if self.name == "mean_field" else Full(sizes if self.name == "blocks" else None)
        return LocationScale(jax.random.normal(key, (d,), dtype), START_SD * kind.start(d, dtype), kind)


@dataclasses.dataclass(frozen=True)
class LowRankStart:
    """A narrow low-rank normal about a standard normal point."""

    rank: int

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: Any) -> LowRank:
        d, (place, tilt) = sum(sizes), jax.random.split(key)
        loadings = jax.random.normal(tilt, (d, self.rank), dtype) / d**0.5
        return LowRank(jax.random.normal(place, (d,), dtype), jnp.full(d, jnp.log(START_SD), dtype), loadings)


@dataclasses.dataclass(frozen=True)
class MixtureStart:
    """Components that start as fits of their own would, with equal weights."""

    n_components: int
    of: Any

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: Any) -> Mixture:
        start = start_of(self.of)
        components = jax.vmap(lambda k: start(k, sizes, dtype))(jax.random.split(key, self.n_components))
        return Mixture(jnp.zeros(self.n_components, dtype), components)


_NORMALS = ("full_rank", "mean_field", "blocks")


def start_of(family: Any) -> Any:
    """The function that starts a family, given by name or as such a function."""
    if isinstance(family, str) and family in _NORMALS:
        return NormalStart(family)
    if callable(family):
        return family
    names = ", ".join(_NORMALS)
    raise ValueError(f"family must be one of {names}, or a function that starts one; got {family!r}")


def start_of_latents(family: Any, supports: list[Support], key: Array, dtype: Any) -> Any:
    """A family over all latents: `family` itself, beside probabilities of the cases of discrete ones."""
    ends = np.cumsum([support.size for support in supports])
    groups: list[tuple[int, ...]] = [()]
    sizes, logits = [], []
    for support, end in zip(supports, ends, strict=True):
        columns = tuple(range(int(end) - support.size, int(end)))
        if isinstance(support, Category):
            logits.append(jnp.zeros((support.size, support.n), dtype))
            groups.append(columns)
        else:
            sizes.append(support.size)
            groups[0] += columns
    q = start_of(family)(key, tuple(sizes), dtype) if sizes else None
    return Hybrid(q, tuple(logits), tuple(groups)) if logits else q


def low_rank(rank: int) -> LowRankStart:
    """The family of normals whose covariance is diagonal plus one of this rank: for many latents.

    Raises:
        ValueError: rank < 1.
    """
    return LowRankStart(read_count(rank, "rank"))


def mixture(n_components: int, of: Any = "mean_field") -> MixtureStart:
    """The family of mixtures of so many members of another family: for posteriors with several modes.

    Raises:
        ValueError: n_components < 1; a family that is none.
    """
    start_of(of)
    return MixtureStart(read_count(n_components, "n_components"), of)
