"""How far to trust a black-box fit: fresh draws, their importance ratios, the bound with its error.

For `BlackBox`; imports pareto.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from vbjax.blackbox.pareto import pareto_smoothed
from vbjax.core.rows import rounding_error
from vbjax.numerics.inputs import is_concrete

N_DRAWS = 2000


class Diagnostics(NamedTuple):
    """From fresh draws of the approximation q, and log ratios log p - log q at them.

    Attributes:
        elbo: their mean, an unbiased estimate of the bound.
        elbo_error: its standard error.
        k_hat: shape of the ratios' tail (Yao et al. 2018): above 0.7 q misses part of the posterior.
        log_evidence: from the smoothed ratios; to be trusted where k_hat is below 0.7.
        gradient_norm: length of the natural gradient of a normal, in its standard deviations; of other
            families, of the gradient over `to_free`.
        outside: share of the draws at which the log density is not finite: there k_hat and log_evidence give
            them no weight, and the bound is -inf or NaN.
    """

    elbo: Array
    elbo_error: Array
    k_hat: Array
    log_evidence: Array
    gradient_norm: Array
    outside: Array

    @property
    def between_restarts(self) -> Array:
        """How far apart restarts at one optimum may be, in nats: their draws differ, and are fewer."""
        return 4 * self.elbo_error

    @property
    def sentence(self) -> str:
        """What to conclude."""
        k = float(self.k_hat)
        words = f"ELBO {float(self.elbo):.6g} +- {float(self.elbo_error):.2g} (fresh draws), k-hat {k:.2f}: "
        if self.outside > 0:
            share = f"{float(self.outside):.2%}"
            return words + (
                f"the log density is not finite at {share} of the draws, do not rely on it: the latents live "
                "on less than their supports (declare vb.positive, vb.interval, ...), or it overflows"
            )
        if not k <= 0.7:
            return words + "it may miss part of the posterior, do not rely on its sds"
        return words + (
            "close to the posterior" if k <= 0.5 else "usable, better after importance resampling"
        )

    def __str__(self) -> str:
        return self.sentence if is_concrete(self) else repr(self)


def diagnosed(log_p: Array, log_q: Array, gradient_norm: Array) -> Diagnostics:
    """The diagnostics of log densities (n,) at independent draws of q."""
    log_ratios = log_p - log_q
    n = jnp.asarray(len(log_ratios), log_ratios.dtype)
    inside = jnp.isfinite(log_ratios)
    weighed = jnp.where(inside, log_ratios, -jnp.inf)
    log_w, k = pareto_smoothed(weighed)
    # what is no more than rounding has no tail
    rounding = rounding_error(jnp.where(inside, jnp.abs(log_p) + jnp.abs(log_q), 0).mean())
    k = jnp.where(weighed.max() - jnp.median(weighed) <= rounding, jnp.minimum(k, 0), k)
    # the ratios' mean, on the smoothed scale: all but the tail keep their distance to each other
    least = jnp.argmin(jnp.where(inside, log_ratios, jnp.inf))
    log_evidence = log_ratios[least] - log_w[least] - jnp.log(n)
    error = log_ratios.std(ddof=1) / jnp.sqrt(n)
    return Diagnostics(log_ratios.mean(), error, k, log_evidence, gradient_norm, 1 - inside.mean())


def resampled_rows(log_ratios: Array, uniforms: Any) -> Array:
    """Row numbers (n,) drawn with the smoothed weights, by one uniform number each."""
    weighed = jnp.where(jnp.isfinite(log_ratios), log_ratios, -jnp.inf)
    weights = jnp.cumsum(jnp.exp(pareto_smoothed(weighed)[0]))
    return jnp.clip(jnp.searchsorted(weights / weights[-1], uniforms), 0, len(log_ratios) - 1)
