"""Two overlapping clouds of rows, three models of them, and the short fits that the tests of `fit` share."""

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from tests.support.registry import N_ROWS
from tests.support.tolerances import close
from vbjax.core.rows import rounding_error

MODELS = {
    "unit variance": vb.textbook.UnitVarianceMixture(2),
    "k-means": vb.KMeans(2),
    "EM": vb.GaussianMixture(2),
}
HOW = dict(n_restarts=5, lanes=2, max_iter=100)


def key(seed=0):
    return jax.random.key(seed)


def rows(name="EM", seed=0):
    """Two overlapping clouds, (n, 2) or (n,)."""
    x = np.random.default_rng(seed).normal(size=(N_ROWS, 2)) + 2.5 * (np.arange(N_ROWS) % 2)[:, None]
    return jnp.asarray(x if name in ("EM", "k-means") else x[:, 0], "float32")


def same(actual, desired, **how):
    close(tuple(jax.tree.leaves(actual)), tuple(jax.tree.leaves(desired)), **how)


@jax.jit
def scored(model, params, data, weights=None):
    """The objective of given parameters, and its rounding error."""
    total = vb.core.expectation(model, params, data, weights)
    return model.objective(params, total), rounding_error(model.scored(params, total)[1])


def unfinished(seed):
    return vb.fit(MODELS["unit variance"], rows("unit variance"), key=key(seed), **HOW | dict(max_iter=2))
