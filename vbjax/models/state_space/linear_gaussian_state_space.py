"""Linear-Gaussian state space models: EM, Ghahramani & Hinton (1996); variational Bayes, Beal (2003)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vbjax import terms
from vbjax.core.hyperparameters import DEFINITE, POSITIVE, REAL, choice, count, hyper
from vbjax.core.rows import Expectation
from vbjax.data.moments import fill_defaults
from vbjax.data.sequences import Sequences
from vbjax.families.base import Family, pytree, replace
from vbjax.families.delta import Delta
from vbjax.families.joint import LocationCovariance
from vbjax.families.matrix_normal_wishart import MatrixNormalWishart
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartStatistics as Regression
from vbjax.families.multivariate_normal import MultivariateNormal, MultivariateNormalState
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGamma, MultivariateNormalGammaState
from vbjax.families.normal_wishart import NormalWishart
from vbjax.models.state_space.regressions import Regressions
from vbjax.models.state_space.state_space_model import Start, StateSpaceModel
from vbjax.numerics.linalg import cholesky, ill_conditioned, least_share, logdet_from_cholesky
from vbjax.numerics.record import Record
from vbjax.numerics.types import Hyper, Params, Tree
from vbjax.terms.paths import transition_regression


@pytree
class LinearGaussianStateSpace(StateSpaceModel):
    """Latents x_1 ~ N(m0, V0), x_t ~ N(A x_{t-1}, Q), y_t ~ N(center + C x_t, R); maximum likelihood by EM.

    The E-step is a Kalman smoother, in information form. With E over q(x) and sums over all steps and
    sequences, the M-step is

        A = [sum E[x_t x_{t-1}']] [sum E[x_{t-1} x_{t-1}']]^-1,   Q = mean E[(x_t - A x_{t-1})(...)'],
        C = [sum (y_t - center) E[x_t]'] [sum E[x_t x_t']]^-1,   R = mean E[(y_t - center - C x_t)(...)'],
        m0 = mean E[x_1],   V0 = mean E[(x_1 - m0)(x_1 - m0)'].

    The latents are determined up to an invertible map, x -> T x: the likelihood, `forecast` and the
    eigenvalues of A do not depend on it. That Q is free, where the identity would do as well, only makes EM
    faster. With a single sequence V0 goes to 0, slowly. R has the variance noise_floor x the columns' in
    every direction at least; a run that ends there is flagged as singular. The objective is the log
    likelihood.

    Data: `vb.Sequences`, or what `Sequences.of` takes, of steps (p,) or numbers. NaN are missing: steps, and
    with a diagonal R entries. Weights are of sequences; the tolerance of a fit is per step. The factors are
    `initial` (m0 and V0^-1), `transitions` (A' and Q^-1) and `emissions` (C and 1 / R by rows; of a full R C'
    and R^-1), points; `matrices` has them all by name.

    Args:
        n_latent: D, latents.
        covariance_type: "diag" or "full", of R.
        center: (p,), subtracted from the data; by default the columns' means.
        noise_floor: smallest variance in R, relative to the columns'.
        scale: (p,), the columns' variances, by default from the data.

    Raises:
        ValueError: data that are no sequences of vectors or numbers; a column without an entry; of a full R
            steps that are missing in part.

    References:
        Bishop (2006), section 13.3.2, eq. 13.110 to 13.117; Ghahramani & Hinton (1996), Parameter estimation
        for linear dynamical systems; Shumway & Stoffer (1982).

    >>> import jax, numpy as np, vbjax as vb
    >>> steps, noise = np.random.default_rng(0).normal(size=(2, 100, 2))
    >>> y = np.cumsum(steps[:, :1], 0) + noise
    >>> fit = vb.fit(vb.LinearGaussianStateSpace(1), y, key=jax.random.key(0))
    >>> fit.smoothed(y).means.shape, fit.forecast_moments(y, 5).means.shape
    ((100, 1), (1, 5, 2))
    """

    n_latent: int = count("D")
    covariance_type: str = choice("diag", "full")
    center: Hyper = hyper(None, REAL, "p", kw_only=True)
    noise_floor: Hyper = hyper(1e-6, POSITIVE, kw_only=True)
    scale: Hyper = hyper(None, POSITIVE, "p", kw_only=True)

    @property
    def factors(self) -> Record:
        q, p = self.n_latent, self.n_features
        full = MatrixNormalWishart(rows=q, size=p)
        emissions: Family = full if self.covariance_type == "full" else MultivariateNormalGamma(q, plate=(p,))
        parts: dict[str, Family] = dict(initial=NormalWishart(q))
        parts |= dict(transitions=MatrixNormalWishart(rows=q, size=q))
        return Record(
            {name: Delta(of=family) for name, family in (parts | dict(emissions=emissions)).items()}
        )

    def resolve(self, data: Sequences, weights: Array | None = None) -> LinearGaussianStateSpace:
        center, scale = self.unit_scale(data, weights)
        return fill_defaults(self, scale.dtype, center=center, scale=scale)

    def regressions(self, s: Record) -> Regressions:
        t = s.initial
        square = t.square[None, None]
        initial = Regression(t.pivot[None], t.precision, t.logdet, t.cross[None], square, t.base)
        return Regressions(initial, s.transitions, _grouped(s.emissions))

    def states(self, start: Start) -> Record:
        eye, c, noise = jnp.eye(self.n_latent, dtype=start.steps.dtype), start.emission_matrix, start.noise
        full = self.covariance_type == "full"
        points = dict(
            initial=LocationCovariance(jnp.zeros_like(eye[0]), start.initial_covariance),
            transitions=LocationCovariance(start.transition_matrix.T, eye),
            emissions=LocationCovariance(c.T, jnp.diag(noise)) if full else LocationCovariance(c, noise),
        )
        return Record({name: self.factors[name].at(value) for name, value in points.items()})

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        """Return parameters with R kept away from 0, the exact constrained maximum."""
        floor, emissions = self.noise_floor * self.scale, params["emissions"]
        covariance = emissions.value.covariance
        if self.covariance_type == "full":
            unit = jnp.sqrt(floor[:, None] * floor)
            values, vectors = jnp.linalg.eigh(covariance / unit)
            raised = unit * ((vectors * jnp.maximum(values, 1)) @ vectors.T)
            covariance = jnp.where(values[0] < 1, raised, covariance)
        else:
            covariance = jnp.maximum(covariance, floor)
        value = emissions.value._replace(covariance=covariance)
        return params | dict(emissions=replace(emissions, value=value))

    def ill_conditioned(self, params: Record) -> Array:
        if self.covariance_type != "full":
            return jnp.asarray(False)
        return ill_conditioned(params["emissions"].value.covariance)

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        """Return what cancels in the squares of residuals under the inverse of a full R."""
        if self.covariance_type != "full":
            return 0.0
        number = 2 * expectation.statistics["emissions"].logdet
        return number * self.n_features / least_share(params["emissions"].value.covariance)

    def singular(self, params: Record) -> Array:
        """Return whether a variance in R is within twice its floor: on its way there."""
        r, unit = self.matrices(params).emission_covariance, jnp.sqrt(self.scale)
        return (jnp.linalg.eigvalsh(r / (unit[:, None] * unit)) <= 2 * self.noise_floor).any()


@pytree
class BayesianLinearGaussianStateSpace(StateSpaceModel):
    """A state space model by variational Bayes, q(A) prod_j q(c_j, rho_j) q(x); with Q = I and diagonal R.

        x_1 ~ N(m0, V0),   x_t ~ N(A x_{t-1}, I),   y_tj ~ N(center_j + c_j . x_t, 1 / rho_j),
        a_i ~ N(0, I / alpha),   c_j | rho_j ~ N(0, (rho_j beta)^-1 I),   rho_j ~ Gamma(a, b).

    That Q is the identity takes nothing away but scales of the latents. q(x) is a Gaussian chain with the
    expected weights, in which E[A'A] = E[A]'E[A] + sum_i Cov(a_i): not that of any state space model. With
    sums over all steps and sequences, of pairs in the first line, the updates are

        Cov(a_i) = (alpha I + sum E[x_{t-1} x_{t-1}'])^-1,   E[A]' = Cov(a_i) sum E[x_{t-1} x_t'],
        B_j = beta I + sum E[x_t x_t'],   E[c_j] = B_j^-1 sum (y_tj - center_j) E[x_t],
        rho_j ~ Gamma(a + T_j / 2, b + (sum E[(y_tj - center_j - E[c_j] . x_t)^2] + beta |E[c_j]|^2) / 2),

    of the T_j entries that are there. The objective is the evidence lower bound: it may be compared between
    numbers of latents.

    Data: as of `LinearGaussianStateSpace`. The factors are `transitions` (rows of A) and `emissions` (rows of
    C with their precisions).

    Args:
        n_latent: D, latents.
        center: (p,), subtracted from the data; by default the columns' means.
        initial_mean, initial_precision: m0 (D,) and V0^-1 (D, D); by default 0, and I / 100.
        transition_precision: alpha.
        mean_precision: beta; by default 1e-3.
        concentration, rate: a and b, numbers or (p,); by default 1e-3, and 1e-3 x the columns' variances.
        scale: (p,), the columns' variances, by default from the data.

    Raises:
        ValueError: data that are no sequences of vectors or numbers; a column without an entry.

    References:
        Beal (2003), Variational algorithms for approximate Bayesian inference, chapter 5; here without its
        relevances and inputs, and in information form, section 5.3.

    >>> import jax, numpy as np, vbjax as vb
    >>> steps, noise = np.random.default_rng(0).normal(size=(2, 100, 2))
    >>> y = np.cumsum(steps[:, :1], 0) + noise
    >>> fit = vb.fit(vb.BayesianLinearGaussianStateSpace(1), y, key=jax.random.key(0))
    >>> fit.params.transitions.mean.shape, fit.params.emissions.mean.location.shape
    ((1, 1), (2, 1))
    """

    n_latent: int = count("D")
    center: Hyper = hyper(None, REAL, "p", kw_only=True)
    initial_mean: Hyper = hyper(None, REAL, "D", kw_only=True)
    initial_precision: Hyper = hyper(None, DEFINITE, "D D", kw_only=True)
    transition_precision: Hyper = hyper(1.0, POSITIVE, kw_only=True)
    mean_precision: Hyper = hyper(1e-3, POSITIVE, kw_only=True)
    concentration: Hyper = hyper(1e-3, POSITIVE, "p", kw_only=True)
    rate: Hyper = hyper(None, POSITIVE, "p", kw_only=True)
    scale: Hyper = hyper(None, POSITIVE, "p", kw_only=True)

    @property
    def factors(self) -> Record:
        q = self.n_latent
        emissions = MultivariateNormalGamma(q, plate=(self.n_features,))
        return Record(transitions=MultivariateNormal(q, plate=(q,)), emissions=emissions)

    def resolve(self, data: Sequences, weights: Array | None = None) -> BayesianLinearGaussianStateSpace:
        center, scale = self.unit_scale(data, weights)
        eye = jnp.eye(self.n_latent)
        model = fill_defaults(self, scale.dtype, center=center, scale=scale)
        defaults = dict(initial_mean=jnp.zeros_like(eye[0]), initial_precision=0.01 * eye)
        return fill_defaults(model, scale.dtype, rate=1e-3 * model.scale, **defaults)

    def regressions(self, s: Record) -> Regressions:
        precision, mean = self.initial_precision, self.initial_mean[None]
        logdet, nothing = logdet_from_cholesky(cholesky(precision)), jnp.zeros_like(mean)
        zero = jnp.zeros_like(logdet)
        initial = Regression(mean, precision, logdet, nothing, nothing[:, :1], zero)
        return Regressions(initial, transition_regression(s.transitions, zero + 1), _grouped(s.emissions))

    def at_mean(self, params: Record) -> Record:
        return Record({name: q.statistics(q.mean) for name, q in params.items()})

    def log_prior(self, s: Record) -> Array:
        eye, noise = jnp.eye(self.n_latent, dtype=self.scale.dtype), (self.concentration, self.rate)
        zero, own = jnp.zeros_like(eye[0]), self.mean_precision * eye
        transitions = terms.multivariate_normal(s.transitions, zero, self.transition_precision * eye).sum()
        return transitions + terms.multivariate_normal_gamma(s.emissions, zero, own, *noise).sum()

    def states(self, start: Start) -> Record:
        c, noise = start.emission_matrix, start.noise
        gram = start.steps * start.initial_covariance
        shape = 1 + 0.5 * start.steps * jnp.ones_like(noise)
        rows = jnp.broadcast_to(gram, (len(noise), *gram.shape))
        return Record(
            transitions=MultivariateNormalState(
                start.transition_matrix, jnp.broadcast_to(gram, (len(gram), *gram.shape))
            ),
            emissions=MultivariateNormalGammaState(c, rows, shape, shape * noise),
        )


def _grouped(emissions: Any) -> Regression:
    """Return the regressions of groups of columns: of every column by itself, or of all at once."""
    if isinstance(emissions, Regression):
        return jax.tree.map(lambda x: x[None], emissions)
    t = emissions
    return Regression(
        t.pivot[..., None], t.precision[..., None, None], t.logdet, t.cross[..., None], t.square, t.base
    )
