"""Proposals for importance sampling: a fitted q, and a wider distribution with heavy tails about it.

By their weighted draws q is judged, and its own draws are brought closer to the posterior. For `BlackBox`;
imports families and diagnostics.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.special import gammaln
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.approximation import Approximation, constrain, support_size
from vbjax.blackbox.contracts import Distribution
from vbjax.blackbox.diagnostics import N_DRAWS, Diagnostics, Draws, diagnose_draws, resample_rows
from vbjax.blackbox.families import LocationScale, LowRank
from vbjax.blackbox.scales import COUPLED, Slope
from vbjax.families.base import pytree
from vbjax.numerics.special import LOG_2PI

LogJoints: TypeAlias = Callable[[Float[Array, "n d"], Array], Float[Array, " n"]]

_TAIL_DF = 3  # the least whole number at which a Student-t has a variance


@pytree
class Defensive:
    """Mixture of a normal and a Student-t of the same location and scale: proposals with heavy tails.

    Weights p / q of a normal q say nothing of tails of p that its draws do not reach, while weights by this
    mixture are bounded by twice those by either part (Hesterberg 1995).

    Attributes:
        normal: the normal, whose scale is whole.
    """

    normal: LocationScale

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n vectors, every other one of the normal."""
        d = self.normal.noise_size
        z = jax.random.normal(key, (n, d + _TAIL_DF), self.normal.location.dtype)
        wide = jnp.arange(n) % 2 == 1
        widths = jnp.where(wide, jnp.sqrt(_TAIL_DF / (z[:, d:] ** 2).sum(1)), 1)  # of a chi-square
        return self.normal.place(z[:, :d] * widths[:, None])[0]

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return the log density at every row of u."""
        log_normal, d = self.normal.log_prob(u), self.normal.noise_size
        highest = -0.5 * d * LOG_2PI - self.normal.kind.log_det(self.normal.scale)
        half, constant = 0.5 * (_TAIL_DF + d), gammaln(0.5 * _TAIL_DF) + 0.5 * d * math.log(0.5 * _TAIL_DF)
        log_t = highest + gammaln(half) - constant - half * jnp.log1p(2 * (highest - log_normal) / _TAIL_DF)
        return jnp.logaddexp(log_normal, log_t) - math.log(2)


def wider_proposals(q: Distribution, slope: Slope | None, size: int) -> list[Distribution]:
    """Return the proposals by whose weighted draws a normal q is judged, of whole scale and heavy tails.

    Other families, and normals of very many independent entries, have none but themselves.
    """
    if isinstance(q, LocationScale) and q.kind.needs_hessian:
        return [Defensive(q)] if size <= COUPLED else []
    if isinstance(q, LocationScale) and (q.scale.ndim == 2 or (slope is not None and slope.is_whole)):
        return [Defensive(q.whole(slope if q.kind.is_part else None))]
    return [Defensive(q.whole())] if isinstance(q, LowRank) and size <= COUPLED else []


def diagnose_by_proposals(
    params: Approximation,
    log_joints: LogJoints,
    gradient_norm: Float[Array, ""],
    slope: Slope | None,
    *,
    factorised: bool,
    n_lots: int,
) -> tuple[Diagnostics, Bool[Array, ""]]:
    """Compute the diagnostics of a fit from draws of q and of a wider proposal (`diagnose_draws`).

    Args:
        params: q, and the key of draws that the fit has not seen.
        log_joints: log p at every row of u, by a key.
        gradient_norm: length of the gradient of the bound.
        slope: that gradient, of a normal.
        factorised: whether q is one of independent entries.
        n_lots: N_DRAWS new draws are made so many times, one lot after another.
    """
    q = params.q
    lanes = [q, *wider_proposals(q, slope, support_size(params.support))]

    def draw(number: Int[Array, ""]) -> Draws:
        keys = jax.random.split(jax.random.fold_in(params.key, number), len(lanes))
        u = jnp.stack([q.sample(key, N_DRAWS) for q, key in zip(lanes, keys, strict=True)])
        latents = jax.vmap(jax.vmap(functools.partial(_entries, params)))(u)
        log_p = jax.vmap(log_joints)(u, keys)
        log_q = jnp.stack([q.log_prob(x) for q, x in zip(lanes, u, strict=True)])
        return Draws(latents, log_p, log_q)

    lots = jax.lax.map(draw, jnp.arange(n_lots, dtype=jnp.int32))
    draws = jax.tree.map(lambda x: jnp.concatenate(x, axis=1), lots)
    return diagnose_draws(draws, gradient_norm, factorised=factorised, paths=params.paths)


def _entries(params: Approximation, u: Float[Array, " d"]) -> Float[Array, " p"]:
    """Return all entries of the latents at u."""
    latents = constrain(params.support, u)[0]
    return ravel_pytree(jax.tree.map(lambda x: x.astype(u.dtype), latents))[0]


def resample_draws(
    params: Approximation, log_joints: LogJoints, slope: Slope | None, key: Array, n: int
) -> Float[Array, "n d"]:
    """Draw n unconstrained vectors by importance resampling of at least ten times as many proposals."""
    normals, picks = jax.random.split(key)
    q = (wider_proposals(params.q, slope, support_size(params.support)) or [params.q])[-1]
    u = q.sample(normals, max(10 * n, N_DRAWS))
    uniforms = jax.random.uniform(picks, (n,), u.dtype)
    log_ratios = log_joints(u, params.key) - q.log_prob(u)
    return u[resample_rows(log_ratios, uniforms)]
