"""Diagnostics of a black-box fit: fresh draws, their importance ratios, the bound with its error.

For `BlackBox`; imports numerics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.algorithms.paths import Paths
from vbjax.core.rows import rounding_error
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.pareto import pareto_smoothed, tail_size
from vbjax.numerics.stored import stored

N_DRAWS = 2000
_NEARLY_ALL = 0.95  # effective share of draws from which on weights hardly matter, whatever their tail
_NEGLIGIBLE = 4.6  # nats: a mode further below has less than a hundredth of the mass


@stored
class Diagnostics(NamedTuple):
    """Diagnostics of an approximation q, from log ratios log p - log q at fresh draws.

    Attributes:
        elbo: mean of the log ratios, an unbiased estimate of the bound.
        elbo_error: its standard error.
        k_hat: shape of the ratios' tail (Yao et al. 2018): above 0.7 q misses part of the posterior.
        log_evidence: log mean of the smoothed ratios; to be trusted where k_hat is below 0.7.
        gradient_norm: length of the natural gradient of a normal, in its standard deviations; for other
            families, length of the gradient in their `to_free` arrays.
        outside: share of the draws at which the log density is not finite: there k_hat and log_evidence give
            them no weight, and the bound is -inf or NaN.
        k_error: the standard error of k_hat.
        effective: effective size of the smoothed weights, as a share of the draws.
        factorised: whether q holds the entries of the latents independent.
        paths: where the paths to the start of the fit ended; None where it had one start.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> poor = vb.blackbox.Diagnostics(*map(jnp.array, (-3.0, 0.01, 0.85, -2.9, 0.0, 0.0)), k_error=0.1)
    >>> print(poor)  # doctest: +ELLIPSIS
    ELBO -3 +- 0.01 (fresh draws), k-hat 0.85 +- 0.10: it may miss part of the posterior, ...
    """

    elbo: Float[Array, ""]
    elbo_error: Float[Array, ""]
    k_hat: Float[Array, ""]
    log_evidence: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    outside: Float[Array, ""]
    k_error: Float[Array, ""] | float = math.nan
    effective: Float[Array, ""] | float = 0.0
    factorised: Bool[Array, ""] | bool = False
    paths: Paths | None = None

    @property
    def between_restarts(self) -> Float[Array, ""]:
        """Distance, in nats, that restarts at one optimum may have: their draws differ, and are fewer."""
        return 4 * self.elbo_error

    @property
    def sentence(self) -> str:
        """Sentence that says what to conclude."""
        words = f"ELBO {float(self.elbo):.6g} +- {float(self.elbo_error):.2g} (fresh draws), "
        words += f"k-hat {float(self.k_hat):.2f} +- {float(self.k_error):.2f}: "
        return words + self._conclusion + self._on_modes

    @property
    def _conclusion(self) -> str:
        if self.outside > 0:
            share = f"{float(self.outside):.2%}"
            return (
                f"the log density is not finite at {share} of the draws, do not rely on it: the latents live "
                "on less than their supports (declare vb.positive, vb.interval, ...), or it overflows"
            )
        if self.paths is not None and self.paths.gap < _NEGLIGIBLE:
            return "it holds one mode of several (see vb.blackbox.mixture), do not rely on it for the others"
        if self.k_hat <= 0.5 or self.effective >= _NEARLY_ALL:
            return "close to the posterior"
        if self.factorised:
            return (
                "its means may be relied on, its sds not: they are too small where latents are correlated "
                "(vb.linear_response mends that)"
            )
        if self.k_hat <= 0.7:
            return "usable, better after importance resampling"
        return "it may miss part of the posterior, do not rely on its sds"

    @property
    def _on_modes(self) -> str:
        if self.paths is None:
            return "; one start: other modes were not looked for"
        alike, elsewhere = int(self.paths.alike.sum()), int(self.paths.elsewhere.sum())
        words = f"; {alike} of {self.paths.alike.size} paths led there"
        if not elsewhere:
            return words
        return words + f", {elsewhere} to other modes, {float(self.paths.gap):.3g} nats below"

    def __str__(self) -> str:
        return self.sentence if is_concrete(self) else repr(self)


def compute_diagnostics(
    log_p: Float[Array, " n"],
    log_q: Float[Array, " n"],
    gradient_norm: Float[Array, ""],
    *,
    factorised: bool,
    paths: Paths | None,
) -> Diagnostics:
    """Compute the diagnostics from log densities at n independent draws of q."""
    log_ratios = log_p - log_q
    n = jnp.asarray(len(log_ratios), log_ratios.dtype)
    inside = jnp.isfinite(log_ratios)
    ratios_inside = jnp.where(inside, log_ratios, -jnp.inf)
    log_w, k = pareto_smoothed(ratios_inside)
    # where the ratios vary by no more than their rounding error, they have no tail
    rounding = rounding_error(jnp.where(inside, jnp.abs(log_p) + jnp.abs(log_q), 0).mean())
    k = jnp.where(ratios_inside.max() - jnp.median(ratios_inside) <= rounding, jnp.minimum(k, 0), k)
    # smoothing changes the tail alone, so that the smallest ratio gives the constant of the smoothed scale
    least = jnp.argmin(jnp.where(inside, log_ratios, jnp.inf))
    log_evidence = log_ratios[least] - log_w[least] - jnp.log(n)
    error = log_ratios.std(ddof=1) / jnp.sqrt(n)
    return Diagnostics(
        elbo=log_ratios.mean(),
        elbo_error=error,
        k_hat=k,
        # of the maximum-likelihood estimate from the tail (Smith 1987)
        k_error=(1 + jnp.maximum(k, -0.5)) / math.sqrt(tail_size(len(log_ratios))),
        effective=jnp.exp(-logsumexp(2 * log_w)) / n,
        log_evidence=log_evidence,
        gradient_norm=gradient_norm,
        outside=(~inside).mean(dtype=log_p.dtype),
        factorised=jnp.asarray(factorised),
        paths=paths,
    )


def resample_rows(log_ratios: Float[Array, " m"], uniforms: Float[Array, " n"]) -> Int[Array, " n"]:
    """Draw n row numbers with the smoothed weights as probabilities, by one uniform number each."""
    ratios_inside = jnp.where(jnp.isfinite(log_ratios), log_ratios, -jnp.inf)
    weights = jnp.cumsum(jnp.exp(pareto_smoothed(ratios_inside)[0]))
    return jnp.clip(jnp.searchsorted(weights / weights[-1], uniforms), 0, len(log_ratios) - 1)
