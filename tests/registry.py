"""One table of all models, with data for them, and the compiled sweeps that the tests of the engine share.

Shapes are the same for all: a compiled program costs a second, and a test that finds it made costs nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from vbjax import terms
from vbjax.core.algorithm import rounding_error
from vbjax.families import DeltaState, GammaState, NormalState

N_ROWS, N_COMPONENTS, N_FEATURES = 40, 3, 2  # all different, so that no axis passes for another
COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
OTHER_HYPER = {  # values that are the default of nothing
    "mu0": 0.3,
    "tau0": 0.5,
    "a": 1.5,
    "b": 0.7,
    "prior_variance": 3.0,
    "weight_concentration": 1.3,
    "mean_precision": 0.4,
    "degrees_of_freedom": 4.5,
    "covariance_floor": 1e-4,
    "noise": 2.0,
}


def table(rng):
    """Rows around three centres, (n, d)."""
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    c = rng.permutation(np.arange(N_ROWS) % N_COMPONENTS)
    return centres[c] + rng.normal(size=(N_ROWS, N_FEATURES)) * np.array([1.0, 0.7])


def column(rng):
    """The first column of the table, (n,)."""
    return table(rng)[:, 0]


def nothing(rng):
    """For a model without data."""
    return None


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model that has not seen data, and a maker of data for it."""

    model: Any
    make: Callable[[np.random.Generator], Any] = table
    params: Any = None  # a start where there is no random one

    def data(self, dtype, seed=0):
        """Rows in a dtype, and their weights of one; None and None for a model without data."""
        data = self.make(np.random.default_rng(seed))
        return (None, None) if data is None else (jnp.asarray(data, dtype), jnp.ones(N_ROWS, dtype))

    def started(self, dtype, data, weights, *, seed=0):
        """The model with its defaults filled in, and a start of it."""
        model, params = start(self.model, jax.random.key(seed), data, weights)
        if self.params is not None:
            params = jax.tree.map(lambda x: jnp.asarray(x, dtype), self.params)
        return model, params


def with_hyper(model, **values):
    """A model with other hyperparameters, whatever its kind."""
    if isinstance(model, vb.Model):
        return model.replace(**values)
    return dataclasses.replace(model, **values)


def other_hyper(model):
    """A resolved model with other values of every scalar hyperparameter that it has, in its dtype."""
    old = model.hyper if isinstance(model, vb.Model) else vars(model)
    dtype = next((leaf.dtype for leaf in jax.tree.leaves(model)), None)
    changed = {
        name: jnp.full(jnp.shape(old[name]), value, dtype)
        for name, value in OTHER_HYPER.items()
        if name in old and isinstance(old[name], jax.Array)
    }
    return with_hyper(model, **changed)


@jax.jit
def start(model, key, data, weights=None):
    """A model resolved and started at random."""
    model = model.resolve(data, weights)
    return model, model.init(key, data, weights)


@functools.partial(jax.jit, static_argnames="n_sweeps")
def sweeps(model, params, data, weights=None, n_sweeps=8):
    """Coordinate ascent without a stopping rule: the parameters after the sweeps, and what every pass scored.

    Returns:
        The parameters; the objective (n_sweeps, blocks) before every single block update; its rounding error.
    """

    def sweep(params, _):
        scores = []
        for block in model.blocks:
            total = vb.expectation(model, params, data, weights)
            objective = model.objective(params, total)
            scores.append((objective, rounding_error(objective, total.bound, total.magnitude)))
            params = model.m_step(params, total.statistics, block)
        return params, tuple(map(jnp.stack, zip(*scores, strict=True)))

    params, (objective, error) = jax.lax.scan(sweep, vb.Record(params), length=n_sweeps)
    return params, objective, error


@jax.jit
def score(model, params, data, weights=None):
    """The objective of given parameters."""
    return model.objective(params, vb.expectation(model, params, data, weights))


# ---------------------------------------------------------------- models of one's own


def location_prior(s):
    return terms.normal(s.mu, s.mu0, s.tau0 * s.tau) + terms.gamma(s.tau, s.a, s.b)


def location_rows(s, x):
    return terms.normal(x, s.mu, s.tau)


def mixture_prior(s):
    concentration = jnp.full(N_COMPONENTS, 1.0, s.weight_concentration.dtype) * s.weight_concentration
    return terms.dirichlet(s.weights, concentration) + terms.normal(s.mu, 0.0, s.tau0).sum()


def mixture_rows(s, x):
    table = terms.normal(x[:, None], s.mu, s.noise)
    return terms.categorical(s.c, s.weights) + (s.c.p * table).sum(-1)


def regression_prior(s):
    return terms.gamma(s.scale, s.a, s.b) + terms.normal(s.mu, s.mu0, s.tau0 * s.scale).sum()


def mean_and_precision(mu=vb.Normal(), tau=vb.Gamma()):
    """The mean and precision of a normal, as a model of one's own."""
    return vb.Model(
        factors=dict(mu=mu, tau=tau),
        log_prior=location_prior,
        log_likelihood=location_rows,
        hyper=dict(mu0=0.0, tau0=0.1, a=1.0, b=1.0),
    )


def univariate_mixture(weights=vb.Dirichlet(N_COMPONENTS), mu=vb.Normal((N_COMPONENTS,)), c=vb.Categorical(3)):
    """Normals of one known precision, with unknown weights and means."""
    return vb.Model(
        factors=dict(weights=weights, mu=mu),
        local=dict(c=c),
        log_prior=mixture_prior,
        log_likelihood=mixture_rows,
        hyper=dict(weight_concentration=2.0, tau0=0.1, noise=1.5),
        blocks=(("weights", "mu"),),
    )


def without_data():
    """Interacting factors and no rows: the bound approximates the prior itself."""
    return vb.Model(
        factors=dict(mu=vb.Normal((N_COMPONENTS,)), scale=vb.Gamma()),
        log_prior=regression_prior,
        hyper=dict(mu0=1.0, tau0=2.0, a=3.0, b=1.0),
    )


MODELS = {
    "mean and precision": Entry(vb.GaussianMeanPrecision(), column),
    "unit variance": Entry(vb.UnitVarianceMixture(N_COMPONENTS), column),
    "k-means": Entry(vb.KMeans(N_COMPONENTS)),
    **{f"EM {kind}": Entry(vb.GaussianMixture(N_COMPONENTS, kind)) for kind in COVARIANCE_TYPES},
    "MAP": Entry(vb.GaussianMixture(N_COMPONENTS, "full", weight_concentration=2.0, mean_precision=0.5)),
    **{f"VB {kind}": Entry(vb.BayesianGaussianMixture(N_COMPONENTS, kind)) for kind in COVARIANCE_TYPES},
    "own, two blocks": Entry(mean_and_precision(), column),
    "own, points": Entry(
        mean_and_precision(vb.Delta(vb.Normal()), vb.Delta(vb.Gamma())),
        column,
        vb.Record(
            mu=DeltaState(NormalState(np.array(0.0), np.array(1.0))),
            tau=DeltaState(GammaState(np.array(2.0), np.array(1.0))),
        ),
    ),
    "own, local": Entry(univariate_mixture(), column),
    "own, local, points": Entry(
        univariate_mixture(
            vb.Delta(vb.Dirichlet(N_COMPONENTS)), vb.Delta(vb.Normal((N_COMPONENTS,))), vb.Delta(vb.Categorical(3))
        ),
        column,
    ),
    "own, no data": Entry(without_data(), nothing),
}
