"""Diagnostics of a black-box fit: fresh draws, their importance weights, and what these say of q's moments.

Where the weights can be relied upon, the means and standard deviations of the weighted draws are those of the
posterior (Yao et al. 2018), so that q's own are judged beside them. Draws of a normal q itself would not do:
they do not reach tails that are heavier than its own and, where q holds entries independent, hardly any has
a weight. So they are of a mixture with a Student-t that has all correlations, `proposals.Defensive`.
For `BlackBox`; imports numerics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.algorithms.paths import Paths
from vbjax.core.rows import rounding_error
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.pareto import pareto_smoothed, tail_size
from vbjax.numerics.stored import stored

N_DRAWS = 2000
_MOST = 8  # times as many draws, where k-hat lies within its error of what can be relied upon
_LARGEST = 2**22  # numbers in all draws; where more would be needed, no more are made
# weights are relied upon whatever their tail where their effective size is above this share: means of q and p
# then differ by less than sqrt(1 / 0.95 - 1) = 0.23 sds of q (Cauchy and Schwarz)
_NEARLY_ALL = 0.95
_NEGLIGIBLE = 4.6  # nats: a mode further below has less than a hundredth of the mass
_NEAR = 0.2  # sds between means that count as close
_ALIKE = 1.25  # ratio of sds that count as close, or its inverse


class Draws(NamedTuple):
    """Draws of q and of what it is judged by, in lanes.

    Attributes:
        latents: all entries of the latents, in their own space.
        log_p, log_q: log densities in unconstrained space.
    """

    latents: Float[Array, "lanes n p"]
    log_p: Float[Array, "lanes n"]
    log_q: Float[Array, "lanes n"]


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
        n_draws: number of fresh draws: 2,000, or 16,000 where k_hat of fewer leaves the answer open.
        shift: largest distance from the mean of a latent under q to that of weighted draws, in sds of these.
        sd_ratios: least and largest ratio of the sd of a latent under q to that of weighted draws.
        weights_hold: whether these weighted draws can be relied upon.

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
    n_draws: Int[Array, ""] | int = N_DRAWS
    shift: Float[Array, ""] | float = math.inf
    sd_ratios: Float[Array, " ends"] | tuple[float, float] = (0.0, math.inf)
    weights_hold: Bool[Array, ""] | bool = False

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
    def trust(self) -> str:
        """Use that q is good for: "all", "resampling" (draws of q, resampled), "means" or "nothing"."""
        holds_one_of_several = self.paths is not None and self.paths.gap < _NEGLIGIBLE
        if self.outside > 0 or holds_one_of_several or not self.weights_hold:
            return "nothing"
        near = self.shift <= _NEAR
        if near and min(self.sd_ratios) >= 1 / _ALIKE and max(self.sd_ratios) <= _ALIKE:
            return "all"
        return "means" if near and self.factorised else "resampling"

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
        least, most = (f"{float(ratio):.2g}" for ratio in self.sd_ratios)
        found = f"(by weighted draws its means are within {float(self.shift):.2g} sds, "
        found += f"its sds {least} to {most} times theirs)"
        return {
            "all": f"close to the posterior {found}",
            "means": (
                f"its means may be relied on, its sds not {found}: they are too small where latents are "
                "correlated (fit.linear_response mends that)"
            ),
            "resampling": f"usable after importance resampling {found}",
            "nothing": "it may miss part of the posterior, do not rely on it",
        }[self.trust]

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


def _reliable(n: int) -> float:
    """Return the largest k-hat at which smoothed weights of n draws are reliable (Vehtari et al. 2024, 4)."""
    return 1 - 1 / math.log10(n)


class _Weighted(NamedTuple):
    """Weights of one lane of draws."""

    log_w: Float[Array, " n"]
    k: Float[Array, ""]
    k_error: Float[Array, ""]
    effective: Float[Array, ""]

    @property
    def hold(self) -> Bool[Array, ""]:
        """Whether the weights can be relied upon."""
        return (self.k <= _reliable(len(self.log_w))) | (self.effective >= _NEARLY_ALL)

    @property
    def in_doubt(self) -> Bool[Array, ""]:
        """Whether more draws might change whether the weights can be relied upon."""
        return (jnp.abs(self.k - _reliable(len(self.log_w))) < self.k_error) & (self.effective < _NEARLY_ALL)


def _weigh(log_p: Float[Array, " n"], log_q: Float[Array, " n"]) -> _Weighted:
    log_ratios, n = log_p - log_q, len(log_p)
    inside = jnp.isfinite(log_ratios)
    ratios_inside = jnp.where(inside, log_ratios, -jnp.inf)
    log_w, k = pareto_smoothed(ratios_inside)
    # where the ratios vary by no more than their rounding error, they have no tail
    rounding = rounding_error(jnp.where(inside, jnp.abs(log_p) + jnp.abs(log_q), 0).max())
    k = jnp.where(ratios_inside.max() - jnp.median(ratios_inside) <= rounding, jnp.minimum(k, 0), k)
    # of the maximum-likelihood estimate from the tail (Smith 1987)
    error = (1 + jnp.maximum(k, -0.5)) / math.sqrt(tail_size(n))
    return _Weighted(log_w, k, error, jnp.exp(-logsumexp(2 * log_w)) / n)


def _moments(x: Float[Array, "n p"], w: Float[Array, " n"]) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
    """Return means and sds of the rows of x that have a weight."""
    x = jnp.where(w[:, None] > 0, x, 0)
    mean = w @ x
    return mean, jnp.sqrt(w @ (x - mean) ** 2)


def most_lots(size: int) -> int:
    """Return how many lots of N_DRAWS draws there are at most, of `size` numbers in all lanes of a draw."""
    return min(_MOST, max(1, _LARGEST // (N_DRAWS * size)))


def diagnose_until_clear(
    diagnose: Callable[[int], tuple[Diagnostics, Bool[Array, ""]]], most: int
) -> Diagnostics:
    """Return the diagnostics from one lot of draws, or from `most` lots where one leaves the answer open.

    Args:
        diagnose: `diagnose_draws` of a number of lots.
        most: that of `most_lots`.
    """
    found, open_yet = diagnose(1)
    if most == 1:
        return found
    if not is_concrete(open_yet):
        return lax.cond(open_yet, lambda: diagnose(most)[0], lambda: found)
    return diagnose(most)[0] if open_yet else found  # a program that few fits need


def diagnose_draws(
    draws: Draws, gradient_norm: Float[Array, ""], *, factorised: bool, paths: Paths | None
) -> tuple[Diagnostics, Bool[Array, ""]]:
    """Compute the diagnostics from some draws, and whether more of them might change the conclusion.

    Args:
        draws: new ones. Their first lane is of q, their last of what q's moments are judged by, which may be
            q itself.
        gradient_norm: of the bound, for the record.
        factorised: whether q is one of independent entries.
        paths: those to the start of the fit.
    """
    log_ratios = draws.log_p[0] - draws.log_q[0]
    inside = jnp.isfinite(log_ratios)
    n = len(log_ratios)
    weighted = jax.vmap(_weigh)(draws.log_p, draws.log_q)
    own, other = (jax.tree.map(lambda x, lane=lane: x[lane], weighted) for lane in (0, -1))
    # smoothing changes the tail alone, so that the smallest ratio gives the constant of the smoothed scale
    least = jnp.argmin(jnp.where(inside, log_ratios, jnp.inf))
    log_evidence = log_ratios[least] - own.log_w[least] - math.log(n)
    equal = inside.astype(log_ratios.dtype)
    equal /= jnp.maximum(equal.sum(), 1)
    mean, sd = _moments(draws.latents[0], equal)
    exact_mean, exact_sd = _moments(draws.latents[-1], jnp.exp(other.log_w))
    varies = exact_sd > 0
    scale = jnp.where(varies, exact_sd, 1)
    ratio = jnp.where(varies, sd / scale, 1)
    found = Diagnostics(
        elbo=log_ratios.mean(),
        elbo_error=log_ratios.std(ddof=1) / math.sqrt(n),
        k_hat=own.k,
        k_error=own.k_error,
        effective=own.effective,
        log_evidence=log_evidence,
        gradient_norm=gradient_norm,
        outside=(~inside).mean(dtype=log_ratios.dtype),
        factorised=jnp.asarray(factorised),
        paths=paths,
        n_draws=jnp.asarray(n, jnp.int32),
        shift=jnp.where(varies, jnp.abs(mean - exact_mean) / scale, 0).max(),
        sd_ratios=jnp.stack([ratio.min(), ratio.max()]),
        weights_hold=other.hold,
    )
    return found, other.in_doubt


def resample_rows(log_ratios: Float[Array, " m"], uniforms: Float[Array, " n"]) -> Int[Array, " n"]:
    """Draw n row numbers with the smoothed weights as probabilities, by one uniform number each."""
    ratios_inside = jnp.where(jnp.isfinite(log_ratios), log_ratios, -jnp.inf)
    weights = jnp.cumsum(jnp.exp(pareto_smoothed(ratios_inside)[0]))
    return jnp.clip(jnp.searchsorted(weights / weights[-1], uniforms), 0, len(log_ratios) - 1)
