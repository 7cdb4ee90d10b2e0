"""Responses: what y is, given psi = w . x. Every regression holds one, which has no state of its own.

The E-step of a normal response is products of the design. A label, 0 or 1, has one local latent for each row,
which makes its likelihood quadratic in psi.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax import terms
from vbjax.core.model import scored_rows
from vbjax.core.rows import Expectation
from vbjax.families.base import Family
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGammaStatistics
from vbjax.families.normal import NormalState
from vbjax.models.components.predictive import log_student_t
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI


class StudentRows(NamedTuple):
    """Student-t of every row: location, squared scale and degrees of freedom."""

    location: Float[Array, " n"]
    square: Float[Array, " n"]
    dof: Float[Array, ""]

    @property
    def variance(self) -> Float[Array, " n"]:
        return self.square * jnp.where(self.dof > 2, self.dof / (self.dof - 2), jnp.inf)

    def log_prob(self, y: Array) -> Float[Array, " n"]:
        return log_student_t((y - self.location) ** 2 / self.square, self.dof, 1, jnp.log(self.square))

    def sample(self, key: Array) -> Float[Array, " n"]:
        noise = jax.random.t(key, self.dof, self.location.shape, self.location.dtype)
        return self.location + jnp.sqrt(self.square) * noise


class LabelRows(NamedTuple):
    """Labels of some rows, whose psi is normal, and log p(y = 1) for psi ~ N(mean, variance)."""

    mean: Float[Array, " n"]
    variance: Float[Array, " n"]
    log_probability: Callable[[Array, Array], Array]

    def log_prob(self, y: Array) -> Float[Array, " n"]:
        return self.log_probability((2 * y - 1) * self.mean, self.variance)

    def sample(self, key: Array) -> Int[Array, " n"]:
        return jax.random.bernoulli(key, jnp.exp(self.log_prob(jnp.ones_like(self.mean)))).astype(int)


Predictive: TypeAlias = NormalState | StudentRows | LabelRows
"""The distribution of y for some rows, the weights integrated out, with `log_prob(y)` and `sample(key)`."""


# -- normal --------------------------------------------------------------------------------------------------


class NormalResponse:
    """Responses y_n ~ N(offset + psi_n, 1 / tau), with factors `w` (MultivariateNormal) and `tau` (Gamma).

    In all methods x is the design (n, p), and y is about the offset.
    """

    def read(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        return y

    def local(self, n: int) -> Record:
        return Record()

    def weights(self, values: Record) -> Float[Array, "p ..."]:
        return values.w

    def noise(self, values: Record) -> Float[Array, ""]:
        """Return tau among values of all factors."""
        return values.tau

    def joint(self, s: Record) -> MultivariateNormalGammaStatistics:
        """Return the statistics of the weights and tau as of one factor."""
        w, tau = s.w, s.tau
        first, second = tau.value * w.first, tau.value * w.second
        return MultivariateNormalGammaStatistics(
            w.pivot, tau.value, tau.log, first, second, jnp.zeros_like(tau.log)
        )

    def log_likelihood(self, s: Record, x: Array, y: Array) -> Float[Array, " n"]:
        return terms.normal(y, terms.linear(x, self.joint(s)))

    def e_step(self, s: Record, x: Array, y: Array, weights: Float[Array, " n"]) -> Expectation:
        """Sum products of the design, once for all that needs them (Bishop 2006, eq. 10.100 and 10.101)."""
        residual = y - x @ s.w.pivot
        weighted, n = x * weights[:, None], weights.sum()
        gram, cross, square = weighted.T @ x, weighted.T @ residual, weights @ residual**2

        def energy(s: Record) -> tuple[Array, Array]:
            t = self.joint(s)
            log = n * (t.logdet - LOG_2PI)
            misfit = t.precision * square - 2 * t.cross @ cross + (t.square * gram).sum()
            return 0.5 * (log - misfit), 0.5 * (jnp.abs(log) + misfit)

        (bound, magnitude), statistics = jax.value_and_grad(energy, has_aux=True)(s)
        return Expectation(statistics, bound, magnitude, n)

    def predict(self, psi: Float[Array, " n"]) -> Float[Array, " n"]:
        return psi

    def given(self, psi: Array, variance: Array, values: Record) -> Predictive:
        """Return the distribution of y for psi ~ N(psi, variance), tau given (Bishop 2006, eq. 10.105)."""
        return NormalState(psi, 1 / (1 / self.noise(values) + variance))


class JointNormalResponse(NormalResponse):
    """Responses y_n ~ N(offset + psi_n, 1 / tau), where one factor `w` has the weights and tau."""

    def weights(self, values: Record) -> Float[Array, "p ..."]:
        return values.w.location

    def noise(self, values: Record) -> Float[Array, ""]:
        return values.w.precision

    def joint(self, s: Record) -> MultivariateNormalGammaStatistics:
        return s.w


def quadratic_rows(x: Float[Array, "n p"], matrix: Float[Array, "p p"]) -> Float[Array, " n"]:
    """Compute x_n' A x_n of every row."""
    return ((x @ matrix) * x).sum(-1)


# -- labels --------------------------------------------------------------------------------------------------


class LabelResponse(NamedTuple):
    """Responses y_n in {0, 1}, P(y_n = 1) a function of psi_n, with a factor `w` (MultivariateNormal).

    With (2 y_n - 1) psi_n of mean m_n and variance v_n under q(w), the latent optimised away leaves a row's
    bound, a pull r_n and a precision k_n on psi_n, and

        S^-1 = A + X' diag(k) X,   m_new = m + S (X' r - A m).

    Attributes:
        latent: the name of the local factor.
        family: of the latents of n rows.
        term: E[log p(y, latent)] of every row, from the latents' statistics, psi's, and y.
        row: from m and v the bound of a row, and the pull and the precision on its psi, all times (2 y - 1).
        log_probability: log p(y = 1) for psi ~ N(m, v).
    """

    latent: str
    family: Callable[[int], Family]
    term: Callable[[Any, Any, Array], Array]
    row: Callable[[Array, Array], tuple[Array, Array, Array]]
    log_probability: Callable[[Array, Array], Array]

    def read(self, y: Float[Array, " n"]) -> Float[Array, " n"]:
        if is_concrete(y) and (others := (y != 0) & (y != 1)).any():
            row = int(others.argmax())
            hint = "y == one_class codes two classes"
            raise ValueError(f"y must be 0 or 1 in every row; got {y[row]} in row {row}; {hint}")
        return y

    def local(self, n: int) -> Record:
        return Record({self.latent: self.family(n)})

    def weights(self, values: Record) -> Float[Array, "p ..."]:
        return values.w

    def log_likelihood(self, s: Record, x: Array, y: Array) -> Float[Array, " n"]:
        return self.term(s[self.latent], terms.linear(x, s.w), y)

    def e_step(self, s: Record, x: Array, y: Array, weights: Float[Array, " n"]) -> Expectation:
        """Compute the rows' bounds, in forms that keep their digits, and what they leave for q(w)."""
        w, sign = s.w, 2 * y - 1
        bound, pull, precision = self.row(sign * (x @ w.pivot), quadratic_rows(x, w.second))
        second = -0.5 * (x * (weights * precision)[:, None]).T @ x
        at_w = MultivariateNormalStatistics(jnp.zeros_like(w.pivot), (weights * sign * pull) @ x, second)
        return scored_rows(jax.tree.map(jnp.zeros_like, s) | dict(w=at_w), bound, weights)

    def predict(self, psi: Float[Array, " n"]) -> Int[Array, " n"]:
        return (psi > 0).astype(int)

    def given(self, psi: Array, variance: Array, values: Record) -> Predictive:
        return LabelRows(psi, variance, self.log_probability)


Response: TypeAlias = NormalResponse | LabelResponse
