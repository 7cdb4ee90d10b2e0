"""Gaussian score matching by batch and match, on fixed draws: a fixed-point iteration with a plain stop.

Cai et al. (2024) draw a batch from the normal q and move q to where its scores match the target's, in closed
form. On draws that are fixed, of exactly mean 0 and covariance I, nothing is left to chance. The update is by
scores alone; the bound only says which steps to keep. For users, by `fit`; imports core and this room.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.blackbox.algorithms.ascent import Ascent, judged, stuck
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Full
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import rounding_error
from vbjax.families.base import pytree
from vbjax.numerics.linalg import cholesky, outer, transpose

_SHORTEST = 2.0**-40  # a step so short that it leads nowhere


class Scores(NamedTuple):
    """Mean and covariance of L' g, the gradients g seen from the draws: 0 and I where q matches."""

    mean: Array
    covariance: Array

    @staticmethod
    def of(q: LocationScale, gradients: Array) -> Scores:
        """Of gradients (n, d) of the log density at the draws."""
        h = gradients @ q.scale
        mean = h.mean(0)
        return Scores(mean, transpose(h - mean) @ (h - mean) / len(h))

    @property
    def mismatch(self) -> Array:
        """In nats: what a step of natural gradient would gain, if the target were normal and near."""
        off = self.covariance - jnp.eye(len(self.mean), dtype=self.mean.dtype)
        return 0.5 * (self.mean**2).sum() + (off**2).sum() / 16


def matched(q: LocationScale, scores: Scores, rho: Array) -> LocationScale:
    """q after an update of the learning rate lambda = rho / (1 - rho); rho = 1 is a whole step.

    Cai et al. (2024), algorithm 1, where the batch has exactly q's moments: the new covariance L M L' and
    mean m + rho L M E[L' g] have rho A M^2 + (1 - rho) M = I, A = Cov(L' g) + (1 - rho) E[L' g] E[L' g]'.
    """
    values, vectors = jnp.linalg.eigh(scores.covariance + (1 - rho) * outer(scores.mean, scores.mean))
    roots = jnp.sqrt((1 - rho) ** 2 + 4 * rho * jnp.maximum(values, 0))
    ratio = (vectors * (2 / (1 - rho + roots))) @ transpose(vectors)
    location = q.location + rho * (q.scale @ (ratio @ scores.mean))
    return LocationScale(location, q.scale @ cholesky(ratio), q.kind)


class MatchState(NamedTuple):
    """The last parameters that were kept, the records that they and those before set, the next to try."""

    params: Approximation
    objective: Array
    error: Array
    scores: Scores
    highest: Array
    closest: Array
    trial: Approximation
    rho: Array


@pytree
class ScoreMatching(Ascent):
    """Batch and match for a `BlackBox` of family "full_rank": `fit(ScoreMatching(model), data, key=key)`.

    Where it ends the scores g have E[g] = 0 and Cov(g) = Sigma^-1 on the draws; of a normal target that is
    its own mean and covariance, after one whole step. A step that sets no record, neither the highest
    bound nor the least mismatch of the scores, is taken back and halved; others grow by a half. The
    objective is the bound, which ends somewhat below its maximum and may fall on the way.

    Attributes:
        model: a `BlackBox`.
        tol: converged when the scores mismatch by less than so many nats, or by no more than the rounding
            error of the bound.

    Raises:
        ValueError: at `fit`: another family than "full_rank".

    References:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei & Saul (2024), Batch and match: black-box
        variational inference with a score-based divergence, ICML.

    >>> import jax, vbjax as vb
    >>> model = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real())
    >>> fit = vb.fit(vb.blackbox.ScoreMatching(model), key=jax.random.key(0))
    >>> print(f"{fit.params.mean:.2f} +- {fit.params.sd:.2f}")
    3.00 +- 0.50
    """

    model: Any
    tol: Any = 1e-6

    def inspect(self, data: Any) -> None:
        """Refuse another family than "full_rank"."""
        q = super().inspect(data)
        if not isinstance(q, LocationScale) or q.kind != Full():
            raise ValueError(f"ScoreMatching is for family='full_rank'; got {self.model.family!r}")

    def start(self, params: Approximation, data: Any) -> MatchState:
        """At given parameters, not scored yet."""
        zero = jnp.zeros((), params.q.location.dtype)
        scores = Scores(jnp.zeros_like(params.q.location), jnp.zeros_like(params.q.scale))
        low = zero - jnp.inf
        return MatchState(params, low, zero, scores, low, zero + jnp.inf, params, zero + 1)

    def step(self, state: MatchState, data: Any, weights: Array | None) -> tuple[MatchState, Info]:
        """Score the parameters to try; keep them if they set a record; choose the next."""
        trial = state.trial
        u, (value, gradients) = trial.points()[0], self.model.scored(trial, data)
        objective, error = value.mean() + trial.q.entropy(), rounding_error(jnp.abs(value).mean())
        scores = Scores.of(trial.q, gradients)
        mismatch = scores.mismatch
        kept = (objective > state.highest) | (mismatch < state.closest)
        kept &= jnp.isfinite(objective) & jnp.isfinite(mismatch)

        tried = trial, objective, error, scores
        params, objective, error, scores = jax.tree.map(
            lambda new, old: jnp.where(kept, new, old), tried, tuple(state[:4])
        )
        highest = jnp.where(kept, jnp.maximum(objective, state.highest), state.highest)
        closest = jnp.where(kept, jnp.minimum(mismatch, state.closest), state.closest)
        rho = jnp.where(kept, jnp.minimum(1.5 * state.rho, 1), state.rho / 2)

        bend = -((gradients @ trial.q.scale) * trial.base).sum(1).mean()
        stop = jnp.where(rho < _SHORTEST, stuck(u, value, bend), Status.UNFINISHED)
        arrived = scores.mismatch <= jnp.maximum(jnp.asarray(self.tol, error.dtype), error)
        stop = jnp.where(arrived, Status.CONVERGED, stop)
        stop = judged(stop, objective, jnp.where(kept, u, 0))
        trial = dataclasses.replace(params, q=matched(params.q, scores, rho))
        state = MatchState(params, objective, error, scores, highest, closest, trial, rho)
        return state, Info(params, objective, error, stop)
