"""Six posteriors with reference draws (posteriordb): log densities, supports, and what the references are of.

For the notebook on black-box inference, its bench and its tests.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp, xlogy

import vbjax as vb

FOLDER = pathlib.Path(__file__).parent / "data" / "posteriordb"


class Posterior(NamedTuple):
    """`reported(latents, data)` is the vector that `mean` and `sd` of the reference draws belong to."""

    log_density: Callable[[Any, Any], Array]
    support: dict[str, Any]
    reported: Callable[[Any, Any], Array]
    data: dict[str, np.ndarray]
    mean: np.ndarray
    sd: np.ndarray

    def errors(self, draws: Any) -> tuple[np.ndarray, np.ndarray]:
        """Of draws of the latents: errors of the means in reference sds, and ratios of the sds."""
        values = np.asarray(jax.jit(jax.vmap(self.reported, (0, None)))(draws, self.data))
        return np.abs(values.mean(0) - self.mean) / self.sd, values.std(0) / self.sd


def normal(x: Any, mean: Any, sd: Any) -> Array:
    """log N(x | mean, sd^2) without its constant."""
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd)


def cauchy(x: Any, scale: float) -> Array:
    """log of a Cauchy density about 0 without its constant."""
    return -jnp.log1p((x / scale) ** 2)


def kidscore(s: Any, d: Any) -> Array:
    """Linear regression, its predictor not centred."""
    rows = normal(d["kid_score"], s.beta[0] + s.beta[1] * d["mom_iq"], s.sigma)
    return cauchy(s.sigma, 2.5) + rows.sum()


def autoregression(s: Any, d: Any) -> Array:
    """Autoregression of order 5."""
    y, lags = d["y"], len(s.beta)
    mean = s.alpha + sum(s.beta[k] * y[lags - 1 - k : len(y) - 1 - k] for k in range(lags))
    prior = normal(s.alpha, 0, 10.0) + normal(s.beta, 0, 10.0).sum() + cauchy(s.sigma, 2.5)
    return prior + normal(y[lags:], mean, s.sigma).sum()


def two_normals(s: Any, d: Any) -> Array:
    """A mixture of two univariate normals, labels summed out."""
    rows = normal(d["y"][:, None], s.mu, s.sigma) + jnp.log(jnp.stack([s.theta, 1 - s.theta]))
    prior = normal(s.sigma, 0, 2.0).sum() + normal(s.mu, 0, 2.0).sum()
    return prior + 4 * (jnp.log(s.theta) + jnp.log1p(-s.theta)) + logsumexp(rows, 1).sum()


def hidden_markov(s: Any, d: Any) -> Array:
    """A chain of two states with unit-variance normal output, states summed out."""
    rows, transitions = normal(d["y"][:, None], s.mu, 1.0), jnp.log(s.theta)
    forward = lambda alpha, row: (logsumexp(alpha[:, None] + transitions, 0) + row, None)
    last, _ = jax.lax.scan(forward, rows[0], rows[1:])
    return normal(s.mu, jnp.asarray([3, 10], rows.dtype), 1.0).sum() + logsumexp(last)


def eight_schools(s: Any, d: Any) -> Array:
    """Effects of eight schools, non-centred."""
    prior = normal(s.standard, 0, 1.0).sum() + normal(s.mu, 0, 5.0) + cauchy(s.tau, 5.0)
    return prior + normal(d["y"], s.mu + s.tau * s.standard, d["sigma"]).sum()


def log_rates(s: Any, d: Any) -> Array:
    """The Gaussian process of `poisson_process`."""
    x = d["x"]
    distance = (x[:, None] - x) / s.rho
    covariance = s.alpha**2 * jnp.exp(-0.5 * distance**2) + 1e-10 * jnp.eye(len(x), dtype=x.dtype)
    return jnp.linalg.cholesky(covariance) @ s.standard


def poisson_process(s: Any, d: Any) -> Array:
    """Counts whose log rate is a Gaussian process, non-centred."""
    f = log_rates(s, d)
    prior = xlogy(24.0, s.rho) - 4 * s.rho + normal(s.alpha, 0, 2.0) + normal(s.standard, 0, 1.0).sum()
    return prior + (d["k"] * f - jnp.exp(f)).sum()


def _joined(*names: str) -> Callable[[Any, Any], Array]:
    return lambda s, d: jnp.concatenate([jnp.ravel(s[name]) for name in names])


_MODELS: dict[str, Any] = {
    "kidscore_momiq": (
        kidscore,
        dict(beta=vb.real(2), sigma=vb.positive()),
        _joined("beta", "sigma"),
    ),
    "arK": (
        autoregression,
        dict(alpha=vb.real(), beta=vb.real(5), sigma=vb.positive()),
        _joined("alpha", "beta", "sigma"),
    ),
    "low_dim_gauss_mix": (
        two_normals,
        dict(mu=vb.ordered(2), sigma=vb.positive(2), theta=vb.unit_interval()),
        _joined("mu", "sigma", "theta"),
    ),
    "hmm_example": (
        hidden_markov,
        dict(theta=vb.simplex(2, 2), mu=vb.ordered(2, low=0.0)),
        _joined("theta", "mu"),
    ),
    "eight_schools_noncentered": (
        eight_schools,
        dict(standard=vb.real(8), mu=vb.real(), tau=vb.positive()),
        lambda s, d: jnp.concatenate([s.mu + s.tau * s.standard, s.mu[None], s.tau[None]]),
    ),
    "gp_pois_regr": (
        poisson_process,
        dict(rho=vb.positive(), alpha=vb.positive(), standard=vb.real(11)),
        lambda s, d: jnp.concatenate([s.rho[None], s.alpha[None], log_rates(s, d)]),
    ),
}

NAMES = tuple(_MODELS)
NEAR_NORMAL = NAMES[:4]


def posterior(name: str) -> Posterior:
    """One of them by its name in posteriordb, data in the default float's dtype."""
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    dtype = jnp.result_type(float)
    data = {key: np.asarray(value, dtype) for key, value in record["data"].items()}
    mean, sd = (np.array([p[what] for p in record["reference"].values()]) for what in ("mean", "sd"))
    log_density, support, reported = _MODELS[name]
    return Posterior(log_density, support, reported, data, mean, sd)
