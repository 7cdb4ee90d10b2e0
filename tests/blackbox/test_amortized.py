"""Amortised local latents: of a factor model the posterior of rows is linear in them, and known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from jax.tree_util import Partial

import vbjax as vb
from tests.support.clouds import key
from vbjax import blackbox as bb

LOADINGS = np.array([[2.0, 1.0], [-1.0, 2.0], [0.5, 0.0], [0.0, 0.5]])  # of orthogonal columns
NOISE = 0.7  # variance
PRECISION = np.eye(2) + LOADINGS.T @ LOADINGS / NOISE  # diagonal
MAP = LOADINGS @ np.linalg.inv(PRECISION) / NOISE
EVIDENCE = scipy.stats.multivariate_normal(np.zeros(4), LOADINGS @ LOADINGS.T + NOISE * np.eye(4))
ROWS = np.asarray(EVIDENCE.rvs(60, random_state=0))


def linear(arrays, x):
    slope, offset, log_sd = arrays
    return x @ slope + offset, jnp.broadcast_to(log_sd, (len(x), 2))


def prior(s):
    """Log density of a latent that no row touches."""
    return -0.5 * s.free**2 - 0.5 * np.log(2 * np.pi)


def rows(s, z, x):
    """log p(row, its z): a standard normal z, and x about W z."""
    away = x - z @ jnp.asarray(LOADINGS.T, x.dtype)
    constant = 6 * np.log(2 * np.pi) + 4 * np.log(NOISE)
    return -0.5 * ((away**2).sum(1) / NOISE + (z**2).sum(1) + constant)


def model_of(encoder, local=None, log_likelihood=rows):
    return vb.BlackBox(
        prior,
        dict(free=vb.real()),
        bb.amortized(encoder),
        log_likelihood=log_likelihood,
        local=vb.real(2) if local is None else local,
    )


def encoder(slope, offset, log_sd):
    return Partial(linear, tuple(map(jnp.asarray, (slope, offset, log_sd))))


def standard(params, dtype):
    """The parameters, with the exact posterior of the latent that no row touches."""
    shared = dataclasses.replace(params.q.shared, location=jnp.zeros(1, dtype), scale=jnp.ones(1, dtype))
    return dataclasses.replace(params, q=dataclasses.replace(params.q, shared=shared))


def test_the_exact_encoder_has_the_log_evidence_of_weighted_rows(dtype):
    data = ROWS.astype(dtype)
    model = model_of(encoder(MAP, np.zeros(2), -0.5 * np.log(np.diag(PRECISION))))
    params = standard(model.init(key(), data), dtype)
    each = EVIDENCE.logpdf(data)
    tolerance = 1e-4 if dtype == "float32" else 1e-10  # every draw gives it: no Monte Carlo error
    np.testing.assert_allclose(model.bound(params, data), each.sum(), rtol=tolerance)
    w = np.arange(60.0) % 3
    weighted = model.annotate(jnp.asarray(data), jnp.asarray(w, dtype))
    np.testing.assert_allclose(model.bound(params, weighted), w @ each, rtol=tolerance)


def test_a_linear_encoder_finds_the_posterior_from_minibatches():
    model = model_of(encoder(np.zeros((4, 2)), np.ones(2), np.zeros(2)))
    ascent = bb.StochasticAscent(model, optax.adam(0.02), batch_size=20)
    fit = vb.fit(ascent, ROWS.astype("float32"), key=key())
    assert fit.status == vb.Status.CONVERGED
    found = fit.diagnostics
    exact = EVIDENCE.logpdf(ROWS).sum()
    np.testing.assert_allclose(found.elbo, exact, atol=0.05)  # of 60 rows
    assert found.trust == "all"
    x = jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)])
    mean, log_sd = fit.params.q.encode(x)
    np.testing.assert_allclose(mean[0], 0, atol=0.02)
    np.testing.assert_allclose(mean[1:] - mean[0], MAP, atol=0.02)
    np.testing.assert_allclose(log_sd[0], -0.5 * np.log(np.diag(PRECISION)), atol=0.02)
    draws = model.sample_local(fit.params, key(1), 2000, ROWS[:3].astype("float32"))
    assert draws.shape == (2000, 3, 2)
    np.testing.assert_allclose(draws.mean(0), ROWS[:3] @ MAP, atol=0.06)


def test_local_latents_have_supports():
    """A Poisson rate with a Gamma prior has a known posterior mean; an encoder of few numbers is near."""
    counts = np.arange(8.0, dtype="float32") + 4
    log_p = lambda s, z, x: (x + 1) * jnp.log(z.rate) - 2 * z.rate  # Gamma(2, 1) and a count
    head = Partial(
        lambda a, x: (jnp.log(x + a[0])[:, None] + a[1], -0.5 * jnp.log(x + a[2])[:, None]),
        jnp.array([1.0, 0.0, 1.0]),
    )
    model = model_of(head, dict(rate=vb.positive()), log_p)
    fit = vb.fit(model, counts, key=key())
    draws = model.sample_local(fit.params, key(1), 4000, counts)
    np.testing.assert_allclose(draws.rate.mean(0), (counts + 2) / 2, rtol=0.03)


def test_a_file_keeps_the_arrays_of_an_encoder(tmp_path):
    data = ROWS.astype("float32")
    model = model_of(encoder(np.zeros((4, 2)), np.ones(2), np.zeros(2)))
    fit = vb.fit(model, data, key=key(), max_iter=1)
    fit.save(tmp_path / "encoder.vbjax")
    again = vb.load(tmp_path / "encoder.vbjax", model=model)
    mean, log_sd = fit.params.q.encode(data)
    assert np.abs(mean).max() > 0
    np.testing.assert_array_equal(again.params.q.encode(data), (mean, log_sd))


def test_what_does_not_go_together_is_named():
    good = encoder(np.zeros((4, 2)), np.ones(2), np.zeros(2))
    data = ROWS.astype("float32")
    wide = Partial(lambda a, x: (x @ a, x), jnp.zeros((4, 2)))
    fit = lambda model, data=data: vb.fit(model, data, key=key())
    box = vb.BlackBox(prior, dict(free=vb.real()), bb.amortized(good))
    model = model_of(good)
    for call, message in (
        (lambda: bb.amortized(3), "encoder must be a pytree that is called with rows; got 3"),
        (lambda: bb.amortized(lambda x: x), "encoder must have arrays to be fitted"),
        (lambda: bb.amortized(good, "whole"), "of must be one of full_rank"),
        (lambda: fit(box, None), "is for a BlackBox with local"),
        (lambda: fit(dataclasses.replace(box, local=vb.real(2)), None), "local is for models of rows"),
        (lambda: fit(dataclasses.replace(model, family="mean_field")), "local latents need family="),
        (
            lambda: fit(model_of(wide)),
            r"encoder must return means and log sds of shape \(60, 2\)",
        ),
        (lambda: fit(bb.StochasticAscent(model, estimator="score")), "'score' is not for amortised latents"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
