"""Families of q on unconstrained space: normals of any scale, low-rank normals, mixtures, hybrids.

A member is a pytree with `sample(key, n)`, (n, d), and `log_prob(u)`, (n,), as in `contracts`; users may
bring their own. Those here, `Hybrid` apart, also have `place`, which carries standard normals (m, noise_size)
to draws u (n, d) with weights w (n,) that add up to 1, so that E_q[f] is the sum of w f(u), and
differentiable. `starts` has where fits by them begin. For `blackbox` and users; imports contracts and scales.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.blackbox.contracts import (
    Distribution,
    Free,
    Points,
    Q,
    Reparameterized,
    WithEntropy,
    WithFree,
    needs_fresh_draws,
)
from vbjax.blackbox.scales import Full, Slope, whitener
from vbjax.families.base import pytree, static
from vbjax.numerics.linalg import cholesky, solve_lower, transpose
from vbjax.numerics.special import LOG_2PI

Scale: TypeAlias = Any  # L as its kind keeps it: an array, or the factor of a precision
Kind: TypeAlias = (
    Any  # `Diagonal`, `Full` or `SparsePrecision`, each of which knows its own scales and slopes
)


def with_equal_weights(u: Float[Array, "n d"]) -> Points:
    """Return draws u with weights 1 / n."""
    return u, jnp.full(len(u), 1 / len(u), u.dtype)


def log_normal(z: Float[Array, "n d"], log_det: Float[Array, ""]) -> Float[Array, " n"]:
    """Return the log density of normals at standardised z; `log_det` is that of their scales."""
    return -0.5 * ((z * z).sum(-1) + z.shape[-1] * LOG_2PI) - log_det


@pytree
class LocationScale:
    """Normal distribution of u = m + L z, z standard normal.

    Attributes:
        location: m, (d,).
        scale: L, (d,) standard deviations or (d, d) lower triangular; or the factor of a sparse precision.
        kind: `Diagonal`, `Full` or `SparsePrecision`.

    >>> import jax.numpy as jnp
    >>> from vbjax.blackbox.scales import Diagonal
    >>> q = LocationScale(jnp.zeros(2), jnp.array([1.0, 2.0]), Diagonal())
    >>> print(f"{q.entropy():.4f}")  # log(2 pi e) + log 2
    3.5310
    """

    location: Float[Array, " d"]
    scale: Scale
    kind: Kind = static()

    @property
    def noise_size(self) -> int:
        """Number of standard normals that a draw is made from."""
        return self.location.shape[-1]

    def place(self, z: Float[Array, "n noise_size"]) -> Points:
        """Return one draw for each row of z, all with equal weights."""
        return with_equal_weights(self.location + self.kind.apply(self.scale, z))

    def place_matched(self, z: Float[Array, "n noise_size"]) -> Points:
        """Return draws of exactly the variances of q, for each row of standard normals of a fit."""
        return with_equal_weights(self.location + self.kind.apply_matched(self.scale, z))

    def whole(self, slope: Slope | None = None) -> LocationScale:
        """Return this normal with its scale as a whole matrix, (d, d).

        Args:
            slope: that of the bound at q: the scale is then that of the whole expected precision K of log p,
                where it is known and positive.
        """
        own = transpose(self.kind.apply(self.scale, jnp.eye(self.noise_size, dtype=self.location.dtype)))
        if slope is not None and slope.is_whole:
            root = transpose(self.kind.apply(self.scale, transpose(whitener(slope.curvature))))
            own = jnp.where(jnp.isfinite(root).all(), root, own)
        return LocationScale(self.location, own, Full())

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors."""
        return self.place(jax.random.normal(key, (n, self.noise_size), self.location.dtype))[0]

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return log q at every row of u."""
        return log_normal(self.kind.undo(self.scale, u - self.location), self.kind.log_det(self.scale))

    def entropy(self) -> Float[Array, ""]:
        """Return H[q]."""
        return self.kind.log_det(self.scale) + 0.5 * self.noise_size * (1 + LOG_2PI)

    def free(self) -> tuple[Array, Array]:
        """Return m, and L with the logarithm of its diagonal in its place: arrays without constraints."""
        return self.location, self.kind.free(self.scale)

    def at(self, free: tuple[Array, Array]) -> LocationScale:
        """Return the member of this family that `free` arrays determine."""
        return LocationScale(free[0], self.kind.bind(free[1]), self.kind)


@pytree
class LowRank:
    """Normal distribution of u = m + D (z + W z'), z and z' standard normal: covariance D (I + W W') D.

    Attributes:
        location: m, (d,).
        log_sd: (d,), the logarithm of the diagonal D.
        loadings: W, (d, rank), in units of D.

    References:
        Ong, Nott & Smith (2018), Gaussian variational approximation with a factor covariance structure.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.blackbox.LowRank(jnp.zeros(3), jnp.zeros(3), jnp.ones((3, 1)))
    >>> print(f"{q.entropy():.4f}")  # 3/2 log(2 pi e), and log(1 + 3) / 2
    4.9500
    """

    location: Float[Array, " d"]
    log_sd: Float[Array, " d"]
    loadings: Float[Array, "d rank"]

    @property
    def noise_size(self) -> int:
        """Number of standard normals that a draw is made from."""
        return sum(self.loadings.shape[-2:])

    def place(self, z: Float[Array, "n noise_size"]) -> Points:
        """Return one draw for each row of z, all with equal weights."""
        own, shared = z[:, : len(self.location)], z[:, len(self.location) :]
        return with_equal_weights(self.location + jnp.exp(self.log_sd) * (own + shared @ self.loadings.T))

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors."""
        return self.place(jax.random.normal(key, (n, self.noise_size), self.location.dtype))[0]

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return log q at every row of u.

        The quadratic form is the sum of two squares, of the regression of u - m on W and of what it leaves,
        so that nothing cancels.
        """
        z = (u - self.location) * jnp.exp(-self.log_sd)
        root = self._root()
        shared = solve_lower(root, solve_lower(root, transpose(z @ self.loadings)), transposed=True)
        own = z - transpose(shared) @ self.loadings.T
        squares = (own * own).sum(-1) + (shared * shared).sum(0)
        return -0.5 * (squares + z.shape[-1] * LOG_2PI) - self._log_det(root)

    def entropy(self) -> Float[Array, ""]:
        """Return H[q]."""
        return self._log_det(self._root()) + 0.5 * len(self.location) * (1 + LOG_2PI)

    def whole(self) -> LocationScale:
        """Return this normal with its scale as a whole matrix, (d, d)."""
        w, sd = self.loadings, jnp.exp(self.log_sd)
        root = cholesky(jnp.eye(len(w), dtype=w.dtype) + w @ w.T)
        return LocationScale(self.location, sd[:, None] * root, Full())

    def _root(self) -> Float[Array, "rank rank"]:
        w = self.loadings
        return cholesky(jnp.eye(w.shape[-1], dtype=w.dtype) + w.T @ w)

    def _log_det(self, root: Float[Array, "rank rank"]) -> Float[Array, ""]:
        return self.log_sd.sum() + jnp.log(jnp.diagonal(root)).sum()


@pytree
class Mixture:
    """Mixture sum_k w_k q_k of members of one other family.

    Attributes:
        logits: (k,), log w up to a constant.
        components: all q_k as one member of their family, whose arrays have a leading axis k.

    >>> import dataclasses, jax, jax.numpy as jnp, vbjax as vb
    >>> start = vb.blackbox.mixture(2)(jax.random.key(0), (3,), "float32")  # of three latents
    >>> q = dataclasses.replace(start, logits=jnp.log(jnp.array([3.0, 1.0])))
    >>> print(q.weights.round(2), q.sample(jax.random.key(1), 5).shape)
    [0.75 0.25] (5, 3)
    """

    logits: Float[Array, " k"]
    components: Reparameterized

    @property
    def weights(self) -> Float[Array, " k"]:
        """Weights w of the components."""
        return jax.nn.softmax(self.logits)

    @property
    def noise_size(self) -> int:
        """Number of standard normals that a draw is made from."""
        return jax.tree.map(lambda x: x[0], self.components).noise_size

    @property
    def needs_fresh_draws(self) -> bool:
        """Whether the components must be fitted on draws that are fresh in every step."""
        return needs_fresh_draws(self.components)

    def place(self, z: Float[Array, "m noise_size"]) -> Points:
        """Return k m draws: every row of z through every component, with the weight of that component."""
        u, w = jax.vmap(lambda q: q.place(z))(self.components)
        return u.reshape(-1, u.shape[-1]), (self.weights[:, None] * w).ravel()

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors."""
        pick, draw = jax.random.split(key)
        which = jax.random.categorical(pick, self.logits, shape=(n,))
        z = jax.random.normal(draw, (n, self.noise_size), self.logits.dtype)
        chosen = jax.tree.map(lambda x: x[which], self.components)
        return jax.vmap(lambda q, z: q.place(z[None])[0][0])(chosen, z)

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return log q at every row of u."""
        each = jax.vmap(lambda q: q.log_prob(u))(self.components)
        return logsumexp(each + jax.nn.log_softmax(self.logits)[:, None], axis=0)

    def free(self) -> tuple[Array, Free]:
        """Return the logits, and the `free` arrays of the components."""
        return self.logits, jax.vmap(to_free)(self.components)

    def at(self, free: tuple[Array, Free]) -> Mixture:
        """Return the member of this family that `free` arrays determine."""
        return Mixture(free[0], jax.vmap(from_free)(self.components, free[1]))


@pytree
class Hybrid:
    """Independent categorical distributions of discrete entries, beside a family of the continuous ones.

    Attributes:
        continuous: the member for the continuous entries, or None if there are none.
        logits: for each discrete latent (entries, cases), log probabilities up to a constant.
        columns: the entries of u that are continuous, then those of each discrete latent in turn.
    """

    continuous: Distribution | None
    logits: tuple[Float[Array, "_ _"], ...]
    columns: tuple[tuple[int, ...], ...] = static()

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors; there is no derivative through their discrete entries."""
        key, *keys = jax.random.split(key, 1 + len(self.logits))
        parts = [] if self.continuous is None else [self.continuous.sample(key, n)]
        for key, logits in zip(keys, self.logits, strict=True):
            cases = jax.random.categorical(key, logits, shape=(n, len(logits)))
            parts.append(cases.astype(logits.dtype))
        order = np.argsort(np.concatenate([np.asarray(part, int) for part in self.columns]))
        return jnp.concatenate(parts, 1)[:, order]

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return log q at every row of u."""
        log_q = self.discrete_log_prob(u)
        return log_q if self.continuous is None else log_q + self.continuous.log_prob(u[:, self.columns[0]])

    def discrete_log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the part of log q that belongs to discrete latents, whose gradients need its score."""
        total = jnp.zeros(len(u), u.dtype)
        for logits, columns in zip(self.logits, self.columns[1:], strict=True):
            cases = u[:, columns].astype(jnp.int32)
            log_q = jax.nn.log_softmax(logits)
            total = total + jnp.take_along_axis(log_q[None], cases[..., None], -1).sum((-2, -1))
        return total

    def free(self) -> tuple[Free, tuple[Array, ...]]:
        """Return the `free` arrays of the continuous family, and the logits."""
        return None if self.continuous is None else to_free(self.continuous), self.logits

    def at(self, free: tuple[Free, tuple[Array, ...]]) -> Hybrid:
        """Return the member of this family that `free` arrays determine."""
        continuous = None if self.continuous is None else from_free(self.continuous, free[0])
        return Hybrid(continuous, free[1], self.columns)


def entropy(q: Distribution, points: Points) -> Float[Array, ""]:
    """Compute H[q]: exactly where q knows it, else as a sum over draws and their weights."""
    u, w = points
    return q.entropy() if isinstance(q, WithEntropy) else -w @ q.log_prob(u)


def to_free(q: Distribution) -> Free:
    """Return the arrays by which an optimiser moves q: `q.free()`, or q itself if it has no such method."""
    return q.free() if isinstance(q, WithFree) else q


def from_free(q: Q, free: Free) -> Q:
    """Return the member of q's family at other `to_free` arrays."""
    return q.at(free) if isinstance(q, WithFree) else free
