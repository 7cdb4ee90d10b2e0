"""Gaussian score matching by batch and match, on fixed draws: a fixed-point iteration with a plain stop.

Cai et al. (2024) draw a batch from the normal q and move q to where its scores match the target's, in closed
form. The draws here are fixed, exactly of mean 0 and covariance I, so that the iteration is deterministic.
The update uses scores alone; the bound only says which steps to keep. For users, by `fit`; imports core and
this room.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.blackbox.algorithms.ascent import Ascent, Target, Trial, TrialState, judge_trial
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Full
from vbjax.core.contracts import Info
from vbjax.families.base import pytree
from vbjax.numerics.linalg import cholesky, outer, transpose
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data


class Scores(NamedTuple):
    """Mean and covariance of L' g, the gradients g in units of q's scale: 0 and I where q matches."""

    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]

    @staticmethod
    def of(q: LocationScale, gradients: Float[Array, "n d"]) -> Scores:
        """Return the scores of q, from gradients of the log density at its draws."""
        h = gradients @ q.scale
        mean = h.mean(0)
        return Scores(mean, transpose(h - mean) @ (h - mean) / len(h))

    @property
    def mismatch(self) -> Float[Array, ""]:
        """Gain of a natural-gradient step, in nats, if the target were normal and near."""
        off = self.covariance - jnp.eye(len(self.mean), dtype=self.mean.dtype)
        return 0.5 * (self.mean**2).sum() + (off**2).sum() / 16


def match_scores(q: LocationScale, scores: Scores, rho: ArrayLike) -> LocationScale:
    """Return q after an update of the learning rate lambda = rho / (1 - rho); rho = 1 is a whole step.

    Cai et al. (2024), algorithm 1, where the batch has exactly q's moments: the new covariance L M L' and
    mean m + rho L M E[L' g] have rho A M^2 + (1 - rho) M = I, A = Cov(L' g) + (1 - rho) E[L' g] E[L' g]'.
    """
    values, vectors = jnp.linalg.eigh(scores.covariance + (1 - rho) * outer(scores.mean, scores.mean))
    roots = jnp.sqrt((1 - rho) ** 2 + 4 * rho * jnp.maximum(values, 0))
    ratio = (vectors * (2 / (1 - rho + roots))) @ transpose(vectors)
    location = q.location + rho * (q.scale @ (ratio @ scores.mean))
    return LocationScale(location, q.scale @ cholesky(ratio), q.kind)


class MatchState(NamedTuple):
    """State of `ScoreMatching`: its trials, and the records of those that were kept.

    Attributes:
        trials: the last trial that was kept, and the next.
        highest: the highest bound so far.
        closest: the least mismatch so far.
    """

    trials: TrialState[Scores]
    highest: Float[Array, ""]
    closest: Float[Array, ""]


@pytree
class ScoreMatching(Ascent):
    """Batch and match for a `BlackBox` of family "full_rank": `fit(ScoreMatching(model), data, key=key)`.

    At the fixed point the scores g have E[g] = 0 and Cov(g) = Sigma^-1 on the draws. For a normal target
    this gives its own mean and covariance, after one whole step. A step is kept if it sets a record, the
    highest bound or the least mismatch of the scores, and the next one is longer by a half; otherwise it is
    taken back and halved. The objective is the bound, which ends somewhat below its maximum and may fall on
    the way.

    Attributes:
        model: a `BlackBox`.
        tol: converged when the scores mismatch by less than so many nats, or by no more than the rounding
            error of the bound.

    Raises:
        ValueError: at `fit`, for a family other than "full_rank".

    References:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei & Saul (2024), Batch and match: black-box
        variational inference with a score-based divergence, ICML.

    >>> import jax, vbjax as vb
    >>> model = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real())
    >>> fit = vb.fit(vb.blackbox.ScoreMatching(model), key=jax.random.key(0))
    >>> print(f"{fit.params.mean:.2f} +- {fit.params.sd:.2f}")
    3.00 +- 0.50
    """

    model: Target
    tol: float | Array = 1e-6

    def inspect(self, data: Data) -> None:
        """Refuse families other than "full_rank"."""
        q = self.inspect_common(data)
        if not isinstance(q, LocationScale) or q.kind != Full():
            raise ValueError(f"ScoreMatching is for family='full_rank'; got {self.model.family!r}")

    def start(self, params: Approximation[LocationScale], data: Data) -> MatchState:
        """Return the state at given parameters, which are not scored yet."""
        trials = TrialState.begin(params, Scores(params.q.location, params.q.scale))
        return MatchState(trials, trials.last.objective, -trials.last.objective)

    def step(self, state: MatchState, data: Data, weights: Array | None) -> tuple[MatchState, Info]:
        """Score the parameters to try; keep them if they set a record; choose the next."""
        trials = state.trials
        trial = trials.next
        log_joint, gradients = self.model.score_draws(trial, data)
        tried = Trial.of(trial, log_joint, Scores.of(trial.q, gradients))
        objective, mismatch = tried.objective, tried.summary.mismatch
        kept = (objective > state.highest) | (mismatch < state.closest)
        kept &= jnp.isfinite(objective) & jnp.isfinite(mismatch)

        last = choose(kept, tried, trials.last)
        rho = jnp.where(kept, jnp.minimum(1.5 * trials.rho, 1), trials.rho / 2)
        q = match_scores(last.params.q, last.summary, rho)
        trials = TrialState(last, dataclasses.replace(last.params, q=q), rho)
        bend = -((gradients @ trial.q.scale) * trial.noise).sum(1).mean()
        gain = last.summary.mismatch
        status = judge_trial(trial, log_joint, kept, trials, gain=gain, bend=bend, tol=self.tol)
        highest = jnp.where(kept, jnp.maximum(objective, state.highest), state.highest)
        closest = jnp.where(kept, jnp.minimum(mismatch, state.closest), state.closest)
        return MatchState(trials, highest, closest), last.info(status, gain)
