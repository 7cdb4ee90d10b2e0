"""Natural-gradient ascent of the bound on fixed draws: a deterministic objective, a step, a stop.

With the draws fixed the bound is an ordinary function (Giordano, Ingram & Broderick 2024). Stein's lemma
gives the natural gradient from gradients of the log density alone (Lin, Khan & Schmidt 2019); a whole step
lands on the exact optimum of a normal target, and a step that lowers the bound is taken back and shortened.
For `BlackBox`; imports core and the rest of this room.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import jax.numpy as jnp
from jax import Array

from vbjax.blackbox.algorithms.ascent import Ascent, Target, Trial, TrialState, judge_trial
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Slope
from vbjax.core.contracts import Info
from vbjax.families.base import pytree
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data

NaturalState: TypeAlias = TrialState[Slope]


@pytree
class NaturalAscent(Ascent):
    """Natural-gradient ascent for a `BlackBox` of family "full_rank", "mean_field" or "blocks".

    A step is that of `scales`: S^-1 <- (1 - rho) S^-1 + rho L^-T K L^-1, m <- m + rho S E[g].

    Attributes:
        model: a `BlackBox`.
        tol: converged when the next step promises less than so many nats (half the squared length of the
            natural gradient), or no more than the rounding error of the bound.

    References:
        Lin, Khan & Schmidt (2019), Stein's lemma for the reparameterization trick with exponential-family
        mixtures.
    """

    model: Target
    tol: float | Array

    def inspect(self, data: Data) -> None:
        """Refuse families other than those of normals."""
        if not isinstance(self.inspect_common(data), LocationScale):
            names = "'full_rank', 'mean_field', 'blocks'"
            raise ValueError(f"NaturalAscent is for the families {names}; got {self.model.family!r}")

    def start(self, params: Approximation[LocationScale], data: Data) -> NaturalState:
        """Return the state at given parameters, which are not scored yet."""
        q = params.q
        return TrialState.begin(params, q.kind.slope(q.scale, params.noise, params.noise))

    def step(self, state: NaturalState, data: Data, weights: Array | None) -> tuple[NaturalState, Info]:
        """Score the parameters to try; keep them if the bound did not fall; choose the next."""
        trial, kind = state.next, state.next.q.kind
        log_joint, gradients = self.model.score_draws(trial, data)
        tried = Trial.of(trial, log_joint, kind.slope(trial.q.scale, trial.noise, gradients))
        finite = jnp.isfinite(tried.objective) & jnp.isfinite(kind.gain(tried.summary))
        kept = finite & (tried.objective >= state.last.objective - tried.error)

        last = choose(kept, tried, state.last)
        rho = jnp.where(kept, jnp.minimum(2 * state.rho, 1), state.rho / 4)
        location, scale = kind.move(last.params.q.location, last.params.q.scale, last.summary, rho)
        q = dataclasses.replace(trial.q, location=location, scale=scale)
        state = TrialState(last, dataclasses.replace(last.params, q=q), rho)
        gain, bend = kind.gain(last.summary), kind.bend(last.summary)
        status = judge_trial(trial, log_joint, kept, state, gain=gain, bend=bend, tol=self.tol)
        return state, last.info(status)
