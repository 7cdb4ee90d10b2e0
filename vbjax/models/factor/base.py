"""What probabilistic PCA, Bayesian PCA and factor analysis share: E-step, start, and use.

Not a model itself: it has points, in the place of which Bayesian PCA has distributions. Complete rows share
one covariance of their latents, and the E-step is matrix products; rows with missing entries have one each,
and are derived from the masked log joint.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from vbjax import terms
from vbjax.core.hyperparameters import read_columns
from vbjax.core.model import ConjugateModel, scored_rows
from vbjax.core.rows import Expectation, total_weight
from vbjax.data.moments import fill_defaults, observed_moments, positive_scale
from vbjax.families.base import replace
from vbjax.families.delta import Delta
from vbjax.families.gamma import Gamma, GammaState, GammaStatistics
from vbjax.families.multivariate_normal import (
    MultivariateNormal,
    MultivariateNormalState,
    MultivariateNormalStatistics,
)
from vbjax.families.normal import Normal, NormalState, NormalStatistics
from vbjax.inference.replicate import redraw_data, restore_missing
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, logdet_from_cholesky, quadratic_form
from vbjax.numerics.record import Record
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Data, Given, Hyper, Tree


class FactorModel(ConjugateModel):
    """Rows x_n ~ N(W z_n + mu, diag(1 / tau)), z_n ~ N(0, I); maximum likelihood by EM.

    The factors are `w`, rows of W, `mu` and `tau`, points, and the noise keeps away from 0. Subclasses are
    dataclasses with `n_components`, `missing`, `noise_floor`, the smallest variance of the noise relative to
    the data's, and, once resolved, `scale` (p,), the columns' variances. A subclass may have distributions,
    and a prior of them.
    """

    n_components: int
    missing: bool
    noise_floor: Hyper
    scale: Hyper
    noise_per_column = False
    draws_data = True
    named_axes: ClassVar[Mapping[str, int]] = dict(w=0, mu=0, tau=0)

    @property
    def n_features(self) -> int:
        """Number p of columns of the data."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return self.scale.shape[-1]

    @property
    def parts(self) -> Record:
        """The families of loadings, mean and noise."""
        p = self.n_features
        w = MultivariateNormal(self.n_components, plate=(p,))
        return Record(w=w, mu=Normal((p,)), tau=Gamma((p,) if self.noise_per_column else ()))

    @property
    def factors(self) -> Record:
        return Record({name: Delta(of=family) for name, family in self.parts.items()})

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        return ("w",), ("mu",), ("tau",)

    @property
    def noise_scale(self) -> Array:
        """The columns' variances, or their mean for one noise precision of all."""
        return self.scale if self.noise_per_column else self.scale.mean()

    def local(self, rows: Array) -> Record:
        return Record(z=MultivariateNormal(self.n_components, plate=(rows.shape[0],)))

    def read(self, data: Given) -> Array:
        x, q = read_columns(self, data, axis="p", missing=self.missing), self.n_components
        if q > x.shape[1]:
            raise ValueError(f"n_components must be at most the {x.shape[1]} columns of data; got {q}")
        if self.scale is None and is_concrete(x) and jnp.isnan(x).all(0).any():
            raise ValueError("data must have an entry in every column; one is all NaN")
        return x

    def sizes(self, data: Array) -> dict[str, int]:
        return dict(p=data.shape[-1])

    def resolve(self, data: Array, weights: Array | None = None) -> Tree:
        return fill_defaults(self, data.dtype, scale=self.moments(data, weights)[1])

    def moments(self, data: Array, weights: Array | None) -> tuple[Float[Array, " p"], Float[Array, " p"]]:
        """Return mean and scale of every column, of what is observed."""
        mean, variance = observed_moments(data, weights)
        return mean, positive_scale(variance)

    def init(self, key: Array, data: Array, weights: Array | None = None) -> Record:
        """Draw loadings in random directions, which leave half of the variances to the noise."""
        mean, q = self.moments(data, weights)[0], self.n_components
        half = 0.5 * self.scale
        rows = total_weight(data, weights)
        w = jnp.sqrt(half / q)[:, None] * jax.random.normal(key, (*half.shape, q), half.dtype)
        precision = (rows * q / half)[:, None, None] * jnp.eye(q, dtype=half.dtype)
        return self.states(
            w=MultivariateNormalState(w, precision),
            mu=NormalState(mean, rows / half),
            tau=GammaState(jnp.full_like(self.noise_scale, 1 + rows), 0.5 * rows * self.noise_scale),
        )

    def states(self, **states: Tree) -> Record:
        """Return the factors' states where a run starts, from those of w, mu and tau."""
        return Record({name: self.factors[name].at(state.mode) for name, state in states.items()})

    def log_likelihood(self, s: Record, rows: Float[Array, "n p"]) -> Float[Array, " n"]:
        mean = terms.matmul(s.w, s.z) + s.mu
        if self.missing:
            seen = ~jnp.isnan(rows)
            table = jnp.where(seen, terms.normal(jnp.where(seen, rows, 0), mean, s.tau), 0)
        else:
            table = terms.normal(rows, mean, s.tau)
        eye = jnp.eye(self.n_components, dtype=rows.dtype)
        return table.sum(-1) + terms.multivariate_normal(s.z, jnp.zeros_like(eye[0]), eye)

    def e_step(self, prepared: Record, rows: Array, weights: Array) -> Expectation:
        """Compute E[z_n] and residuals by products, with one covariance of the latents for all rows.

        Bishop (2006), eq. 12.54, 12.55 and 12.66; Bishop (1999), eq. 16 to 18.
        """
        if self.missing:
            return super().e_step(prepared, rows, weights)
        s, (z, covariance, residual, bound) = prepared, self.complete(prepared, rows)
        w, n, tau = s.w.pivot, weights.sum(), jnp.broadcast_to(s.tau.value, self.scale.shape)
        weighted = weights[:, None] * residual
        of_z = (weights[:, None] * z).T @ z + n * covariance  # sum_n E[z z']
        square = weights @ residual**2 + n * (s.mu.second + quadratic_form(covariance, w))
        square = square + (s.w.second * of_z).sum((-1, -2))  # sum_n E[(x - w'z - mu)^2]
        half = jnp.full_like(square, 0.5 * n)
        pull = tau[:, None] * (weighted.T @ z - n * w @ covariance)
        gradient = jax.tree.map(jnp.zeros_like, s) | dict(
            w=MultivariateNormalStatistics(jnp.zeros_like(w), pull, -0.5 * tau[:, None, None] * of_z),
            mu=NormalStatistics(jnp.zeros_like(tau), tau * weighted.sum(0), -tau * half),
            tau=GammaStatistics(
                *(x if self.noise_per_column else x.sum() for x in (-0.5 * square, half, 0 * half))
            ),
        )
        return scored_rows(gradient, bound, weights)

    def complete(self, s: Record, x: Float[Array, "n p"]) -> tuple[Array, Array, Array, Array]:
        """Return E[z] (n, q) of complete rows, its covariance (q, q), residuals (n, p) and bound (n,)."""
        w, tau = s.w.pivot, jnp.broadcast_to(s.tau.value, self.scale.shape)
        scaled = tau[:, None] * w
        spread = jnp.tensordot(tau, s.w.second, 1)  # what the loadings' own covariance adds
        root = cholesky(jnp.eye(self.n_components, dtype=x.dtype) + scaled.T @ w + spread)
        covariance, shift = inverse_from_cholesky(root), x - s.mu.pivot
        z = shift @ scaled @ covariance
        residual = shift - z @ w.T
        square = residual**2 @ tau + tau @ s.mu.second + (z * (z + z @ spread)).sum(-1)
        constant = jnp.broadcast_to(s.tau.log, self.scale.shape).sum() - self.n_features * LOG_2PI
        return z, covariance, residual, 0.5 * (constant - square - logdet_from_cholesky(root))

    # -- M-step --------------------------------------------------------------------------------------

    def m_step(self, params: Record, statistics: Tree, block: Iterable[str]) -> Record:
        """Update factors (Bishop 2006, eq. 12.56, 12.57, 12.69 and 12.70), then move the latents."""
        return self.move_latents(super().m_step(params, statistics, block), statistics, block)

    def move_latents(self, moved: Record, statistics: Tree, block: Iterable[str]) -> Record:
        """Return points after an update with an addition that keeps EM monotone.

        The latents' covariance, were it free, would be R = sum_n E[z_n z_n'] / n; W R^(1/2) has it too, and
        saves most of the sweeps (parameter-expanded EM: Liu, Rubin & Wu 1998). With missing entries R is not
        at hand.
        """
        if "w" in block and "mu" in statistics and not self.missing:  # a perturbed block comes alone
            w = moved.w.value @ cholesky(statistics["w"].second[0] / statistics["mu"].second[0])
            rests_on = replace(moved.w.gradient, pivot=w, first=jnp.zeros_like(w))
            moved = moved | dict(w=replace(moved.w, value=w, gradient=rests_on))
        return moved

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        """Return parameters with a noise at its floor or above, the exact constrained maximum."""
        least = self.noise_floor * self.noise_scale
        return params | dict(tau=replace(params.tau, value=jnp.minimum(params.tau.value, 1 / least)))

    def singular(self, params: Record) -> Array:
        """Return whether a noise variance is within twice its floor: on its way there."""
        return (1 / params.tau.value <= 2 * self.noise_floor * self.noise_scale).any()

    # -- use -----------------------------------------------------------------------------------------

    def replicate(self, params: Record, key: Array, data: Given, n_draws: int) -> Data:
        return redraw_data(self, params, key, self.read(data), n_draws)

    def simulate(self, params: Record, key: Array, data: Float[Array, "n p"]) -> Float[Array, "n p"]:
        return restore_missing(_sample(self, params, key, len(data)), data)

    def redraw(self, values: Record, local: Record, key: Array, data: Float[Array, "n p"]) -> Tree:
        """Draw the rows anew, given values of W, mu and tau, and of every row's z."""
        noise = jax.random.normal(key, data.shape, data.dtype) / jnp.sqrt(values.tau)
        return local.z @ values.w.T + values.mu + noise

    def loadings(self, params: Record) -> Float[Array, "p q"]:
        """Return the (expected) W, determined up to a rotation of its columns."""
        return params.w.mean

    def noise_variance(self, params: Record) -> Float[Array, " p"]:
        """Return 1 / E[tau] of every column."""
        return jnp.broadcast_to(1 / params.tau.mean, self.scale.shape)

    def covariance(self, params: Record) -> Float[Array, "p p"]:
        """Return W W' + diag(1 / tau), a row's covariance, at the (expected) loadings and noise."""
        w = self.loadings(params)
        return w @ w.T + jnp.diag(self.noise_variance(params))

    def transform(self, params: Record, x: Given) -> Float[Array, "n q"]:
        """Return E[z | x] of every row."""
        return _transform(self, params, self.read(x))

    def reconstruct(self, params: Record, x: Given) -> Float[Array, "n p"]:
        """Return W E[z | x] + mu of every row: what missing entries are expected to be."""
        return self.transform(params, x) @ self.loadings(params).T + params.mu.mean

    def log_predictive(self, params: Record, x: Given) -> Float[Array, " n"]:
        """Return log N(x | mu, W W' + diag(1 / tau)) of what is observed of new rows, at mean parameters."""
        return _log_predictive(self, params, self.read(x))

    def sample(self, params: Record, key: Array, n: int) -> Float[Array, "{n} p"]:
        """Draw n new rows, at the (expected) parameters."""
        return _sample(self, params, key, read_count(n, "n"))


def _plug_in(params: Record) -> Record:
    return Record({name: params[name].statistics(params[name].mean) for name in ("w", "mu", "tau")})


@jit
def _transform(model: FactorModel, params: Record, x: Array) -> Array:
    if model.missing:
        return model.posterior(params, x).z.mean
    return model.complete(model.prepare(params), x)[0]


@jit
def _log_predictive(model: FactorModel, params: Record, x: Array) -> Array:
    s = _plug_in(params)
    return model.collapse(s, x)[1] if model.missing else model.complete(s, x)[3]


@functools.partial(jit, static_argnames="n")
def _sample(model: FactorModel, params: Record, key: Array, n: int) -> Array:
    w, mean = model.loadings(params), params.mu.mean
    keys = jax.random.split(key)
    z = jax.random.normal(keys[0], (n, w.shape[1]), w.dtype)
    noise = jnp.sqrt(model.noise_variance(params)) * jax.random.normal(keys[1], (n, w.shape[0]), w.dtype)
    return mean + z @ w.T + noise
