"""Labels whose weights depend on covariates of the row: concomitant variables, mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import POSITIVE, REAL, hyper, read_columns
from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import pytree, replace
from vbjax.families.categorical import CategoricalStatistics
from vbjax.families.delta import Delta
from vbjax.families.multivariate_normal import (
    MultivariateNormal,
    MultivariateNormalState,
    MultivariateNormalStatistics,
)
from vbjax.models.labels.labels import Labels
from vbjax.numerics.inputs import read_pair
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper


class PreparedGates(NamedTuple):
    """Expected gates (k, p), and the sum of their covariances (p, p); None of points."""

    mean: Array
    spread: Array | None


@pytree
class Gated(Labels):
    """Labels c_n | z_n ~ Categorical(softmax(eta_n)), eta_nk = g_k . u_n, covariates u_n = (1, z_n - center).

    The gate g_k of component k is a vector of p = q + 1 numbers. The bound of Bohning on the logarithm of the
    softmax's denominator, about the present gates m_k,

        log sum_k exp(eta_nk) <= log sum_k exp(m_k . u_n) + sum_k pi_nk (g_k - m_k) . u_n
                                 + 1/4 sum_k ((g_k - m_k) . u_n)^2,   pi_n = softmax(m_k . u_n),

    is quadratic in the gates and exact at the present ones. So with responsibilities r_nk points move by

        g_k = m_k + 2 (sum_n u_n u_n')^-1 sum_n (r_nk - pi_nk) u_n,

    which never lowers the likelihood, and by variational Bayes, g_k ~ N(0, P^-1) a priori, the update is

        q(g_k) = N(m_k + S_k (sum_n (r_nk - pi_nk) u_n - P m_k), S_k),   S_k^-1 = P + 1/2 sum_n u_n u_n'.

    Points have the exact likelihood. By variational Bayes a row's bound is 1/4 sum_k u_n' S_k u_n below what
    it would be if the expected gates were known. Only differences of gates count: they add up to 0. Where
    the covariates separate the components, points without a prior grow until a fit ends.

    Data: a pair (covariates, rows), (n, q) and rows as the component takes them, for a fit and all uses of
    it. To draw rows, `given` is the covariates, or the pair (covariates, given) where the component needs
    more. The factor is `gates` (MultivariateNormal, (k, p)), the intercept first, in the place of `weights`.
    Mixtures hold them; hidden Markov models and nested mixtures do not.

    Args:
        center: (q,), subtracted from the covariates; by default their means.
        precision: of a gate's slopes, a number or (q,); by default a tenth of the covariates' variances, of
            points none.
        intercept_precision: of its intercept, where there is a precision; by default 0.01.

    Raises:
        ValueError: data that are no such pair, or have not as many rows in both.

    References:
        Bohning (1992), Multinomial logistic regression algorithm, section 2; Dayton & Macready (1988),
        Concomitant-variable latent-class models; Jordan & Jacobs (1994), Hierarchical mixtures of experts and
        the EM algorithm.

    >>> import jax, numpy as np, vbjax as vb
    >>> z = np.linspace(-2, 2, 40)[:, None]
    >>> x = np.where(np.arange(40) + np.arange(40) % 5 < 20, 0.0, 9.0)[:, None] + 0.1 * z
    >>> model = vb.Mixture(2, vb.components.Gaussian(), weights=vb.labels.Gated(precision=1.0))
    >>> fit = vb.fit(model, (z, x), key=jax.random.key(0), n_restarts=4)
    >>> fit.params.gates.mean.shape
    (2, 2)
    >>> p = fit.model.weights.probabilities(fit.params, z)[:, fit.predict((z, x))[0]]
    >>> bool(p[0] > 0.9 and p[-1] < 0.1)
    True
    """

    center: Hyper = hyper(None, REAL, "q")
    precision: Hyper = hyper(None, POSITIVE, "q")
    intercept_precision: Hyper = hyper(0.01, POSITIVE)

    all_active: ClassVar[str | None] = None
    of_rows: ClassVar[bool] = True
    undrawable: ClassVar[str | None] = (
        "weights must be such as vb.labels.Weights() to draw parameters given the rows: gates are not "
        "conjugate to labels"
    )

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Given, read: Callable[[Given], Data]) -> tuple[Float[Array, "n q"], Data]:
        """Return covariates and rows, which `read` reads."""
        covariates, rows = read_pair(data, "(covariates, rows)")
        covariates, rows = read_columns(self, covariates, "covariates", axis="q"), read(rows)
        self._require_rows(covariates, n_rows(rows), "rows")
        return covariates.astype(float_dtype(rows)), rows

    def _require_rows(self, covariates: Array, n: int, what: str) -> None:
        if len(covariates) != n:
            raise ValueError(f"covariates must be those of the {n} {what}; got shape {covariates.shape}")

    def read_given(
        self, given: Given, n: int, read: Callable[[Given, int], Data]
    ) -> tuple[Float[Array, "n q"], Data]:
        """Return the covariates for which n rows are drawn, and what else they are drawn for."""
        if given is None:
            raise ValueError(f"given must be the covariates of the {n} rows to draw, ({n}, q)")
        covariates, rest = given if isinstance(given, tuple) and len(given) == 2 else (given, None)
        covariates = read_columns(self, covariates, "given", axis="q")
        self._require_rows(covariates, n, "rows of given")
        return covariates.astype(self.center.dtype), read(rest, n)

    def sizes(self, data: tuple[Array, Data]) -> dict[str, int]:
        return dict(q=data[0].shape[-1])

    def split(self, data: tuple[Array, Data]) -> tuple[Float[Array, "n q"], Data]:
        return data

    def join(self, covariates: Float[Array, "n q"], rows: Data) -> tuple[Array, Data]:
        return covariates, rows

    def resolve(self, dtype: DTypeLike, covariates: Data = None, weights: Array | None = None) -> Gated:
        mean, variance = weighted_moments(covariates, weights)
        prior = {} if self.points else dict(precision=0.1 * positive_scale(variance))
        return fill_defaults(self, dtype, center=mean, **prior)

    def _design(self, covariates: Float[Array, "n q"]) -> Float[Array, "n p"]:
        """Return the covariates about their centre, behind ones for the intercept."""
        z = covariates - self.center
        return jnp.concatenate([jnp.ones_like(z[:, :1]), z], 1)

    # -- the gates -----------------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        if self.center is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        family = MultivariateNormal(self.center.shape[-1] + 1, plate=(self.n_components,))
        return Record(gates=Delta(family) if self.points else family)

    @property
    def prior(self) -> MultivariateNormalState:
        """The prior of every gate."""
        intercept = jnp.reshape(self.intercept_precision, 1)
        slopes = jnp.broadcast_to(self.precision, self.center.shape)
        precision = jnp.concatenate([intercept, slopes])
        return MultivariateNormalState(jnp.zeros_like(precision), jnp.diag(precision))

    @property
    def has_prior(self) -> bool:
        return self.precision is not None

    @property
    def n_parameters(self) -> int:
        return (self.n_components - self.n_idle - 1) * (self.center.shape[-1] + 1)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        if self.precision is None:
            return jnp.zeros((), s.gates.first.dtype)
        return self.prior.log_density(s.gates).sum()

    def start(self, n: Array, active: Hyper) -> Record:
        """Return gates that favour no component: 0, by variational Bayes the prior."""
        factor = self.factors.gates
        if self.points:
            return Record(gates=factor.neutral(n.dtype))
        repeat = lambda x: jnp.broadcast_to(x, (self.n_components, *x.shape))
        return Record(gates=jax.tree.map(repeat, self.prior))

    def without_idle(self, params: Record) -> tuple[Gated, Record]:
        k = self.n_components - self.n_idle
        gates = jax.tree.map(lambda x: x[:k], params["gates"])
        return replace(self, n_components=k, active=None), Record(gates=gates)

    # -- the E-step ----------------------------------------------------------------------------------

    def prepare(self, params: Record) -> PreparedGates:
        t = self.factors.gates.expected(params["gates"])
        return PreparedGates(t.pivot, None if self.points else self.where_active(t.second.T, 0).T.sum(0))

    def _log_shares(self, eta: Float[Array, "k n"]) -> Float[Array, "k n"]:
        """Return the logarithm of the softmax over the components that rows may have."""
        return jax.nn.log_softmax(self.where_active(eta.T).T, 0)

    def log_weights(self, prepared: PreparedGates, covariates: Float[Array, "n q"]) -> Float[Array, "k n"]:
        """Compute the bound of E[log weight] of every component for every row."""
        u = self._design(covariates)
        log = self._log_shares(prepared.mean @ u.T)
        return log if prepared.spread is None else log - 0.25 * ((u @ prepared.spread) * u).sum(1)

    def statistics(
        self, prepared: PreparedGates, r: Float[Array, "k n"], covariates: Float[Array, "n q"]
    ) -> Record:
        """Compute the gradient of sum_nk r_nk E[log weight_nk], by its bound about the present gates."""
        u, number = self._design(covariates), r.sum(0)
        pull = r - number * jnp.exp(self._log_shares(prepared.mean @ u.T))
        square = (u * number[:, None]).T @ u
        if self.points:  # collinear covariates: what rows do not tell apart moves together
            square = square * (1 + len(square) * jnp.finfo(u.dtype).eps * jnp.eye(len(square), dtype=u.dtype))
        each = self.where_active(jnp.full(self.n_components, -0.25, u.dtype), 0)
        second = each[:, None, None] * square
        return Record(gates=MultivariateNormalStatistics(jnp.zeros_like(prepared.mean), pull @ u, second))

    def log_density(
        self, s: Record, labels: CategoricalStatistics, covariates: Float[Array, "n q"]
    ) -> Float[Array, " n"]:
        """Compute the bound of E[log p(c_n | z_n)], in the derived form that is the oracle of the others."""
        t, u = s.gates, self._design(covariates)
        at, move = u @ t.pivot.T, u @ t.first.T
        square = jnp.einsum("np,kpq,nq->n", u, self.where_active(t.second.T, 0).T, u)
        active = self.where_active(at)
        denominator = logsumexp(active, -1) + (jax.nn.softmax(active) * move).sum(-1) + 0.25 * square
        return (labels.p * (at + move)).sum(-1) - denominator

    # -- use -----------------------------------------------------------------------------------------

    def probabilities(self, params: Record, covariates: Given) -> Float[Array, "n k"]:
        """Return the weights of the components given covariates (n, q), at the expected gates."""
        covariates = read_columns(self, covariates, "covariates", axis="q").astype(self.center.dtype)
        return jnp.exp(self.log_at_mean(params, covariates))

    def log_at_mean(self, params: Record, covariates: Float[Array, "n q"]) -> Float[Array, "n k"]:
        """Return the logarithms of the weights at the expected gates."""
        return self._log_shares(params["gates"].mean @ self._design(covariates).T).T

    def draw(self, params: Record, key: Array, n: int, covariates: Float[Array, "n q"]) -> Int[Array, " n"]:
        """Draw the components of n rows, by gates drawn from q for each."""
        u, q, keys = self._design(covariates), params["gates"], jax.random.split(key)
        eta = u @ q.mean.T
        if not self.points:
            variance = jnp.einsum("np,kpq,nq->nk", u, q.covariance, u)
            eta = eta + jnp.sqrt(variance) * jax.random.normal(keys[0], eta.shape, eta.dtype)
        return jax.random.categorical(keys[1], self.where_active(eta))
