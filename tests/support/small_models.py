"""Rows of several kinds and a short way to write a model, for the questions that the check is asked."""

import jax.numpy as jnp
import numpy as np

import vbjax as vb

N_ROWS = 5  # more than the probes look at


def column(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=N_ROWS), dtype)


def table(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(size=(N_ROWS, 2)), dtype)


def far(dtype):
    return column(dtype) + jnp.asarray(1e4, dtype)


def none(dtype):
    return None


def regression_data(dtype):
    return dict(x=table(dtype), y=column(dtype))


MU, TAU = dict(mu=vb.Normal()), dict(tau=vb.Gamma())


def model(factors, rows=None, prior=None, local=None, **hyper):
    return vb.Model(factors=factors, log_prior=prior, log_likelihood=rows, local=local, hyper=hyper)
