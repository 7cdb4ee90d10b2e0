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
from jaxtyping import Bool, Float

from vbjax.blackbox.algorithms.ascent import SHORTEST, Ascent, Target, Trial, TrialState, judge_trial
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Slope
from vbjax.core.contracts import Info, Status
from vbjax.families.base import pytree
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data

NaturalState: TypeAlias = TrialState[Slope]
_UNDAMPED = 0.01  # below this damping the next step is whole
_DAMPED = 0.3  # the least damping after a step that was too long


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

    >>> import vbjax as vb
    >>> model = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real())  # of family "full_rank"
    >>> type(model.algorithm(None, vb.core.Options(1e-3))).__name__
    'NaturalAscent'
    """

    model: Target
    tol: float | Array

    def inspect(self, data: Data) -> None:
        """Refuse families other than those of normals."""
        q = self.inspect_common(data)
        if not isinstance(q, LocationScale) or q.kind.needs_hessian:
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
        rho = (_less_damped if kind.is_part else _longer)(state.rho, kept)
        none = last.objective == -jnp.inf  # yet: draws of the start lie where the density is zero
        here = last.params.q
        location, scale = kind.move(here.location, here.scale, last.summary, rho)
        location, scale = choose(none, (here.location, rho * here.scale), (location, scale))
        q = dataclasses.replace(trial.q, location=location, scale=scale)
        state = TrialState(last, dataclasses.replace(last.params, q=q), rho)
        gain, bend = kind.gain(last.summary), kind.bend(last.summary)
        status = judge_trial(trial, log_joint, kept, state, gain=gain, bend=bend, tol=self.tol)
        waiting = none & (rho >= SHORTEST) & jnp.isfinite(log_joint).any()
        return state, last.info(jnp.where(waiting, jnp.int32(Status.UNFINISHED), status), gain)


def _longer(rho: Float[Array, ""], kept: Bool[Array, ""]) -> Float[Array, ""]:
    """Return the length of the step after one of length rho that was kept, or taken back."""
    return jnp.where(kept, jnp.minimum(2 * rho, 1), rho / 4)


def _less_damped(rho: Float[Array, ""], kept: Bool[Array, ""]) -> Float[Array, ""]:
    """Return the length of the next step where S is a part of a normal's, and m moves by all of K.

    Along a valley, where K is small, half a step is next to none. So it is the damping (1 - rho) / rho of
    Levenberg and Marquardt that is halved or multiplied, and whole steps are tried often.
    """
    damping = (1 - rho) / rho
    less = jnp.where(damping < _UNDAMPED, 0, damping / 2)
    return 1 / (1 + jnp.where(kept, less, jnp.maximum(8 * damping, _DAMPED)))
