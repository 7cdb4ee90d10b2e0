"""Fits that nobody fitted, for what is asked of any fit: of every model in the registry, in no time."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb
from tests.support.registry import MODELS
from vbjax.inference.restarts import Runs


def of(model, **params):
    """A fit with such parameters, and with numbers of every kind in the other places."""
    numbers = jnp.asarray([1.0, jnp.nan, -jnp.inf], "float32")
    runs = Runs(numbers, jnp.arange(3), jnp.arange(3), numbers > 0, jnp.ones((3, 2), "float32"))
    return vb.Fit(model, vb.Record(params), numbers[0], jnp.int32(2), runs, numbers, jnp.int32(1))


def started(name):
    """The fit of a model of the registry: resolved, and with parameters of the shapes that it starts from."""
    data, weights = MODELS[name].data("float32")
    shapes = jax.eval_shape(lambda: MODELS[name].started(data, weights))
    rng = np.random.default_rng(0)
    model, params = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)
    return dataclasses.replace(of(model), params=params)
