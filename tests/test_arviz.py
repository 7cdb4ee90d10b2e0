"""ArviZ gets draws of fits and Gibbs chains: names of axes, log likelihoods, predictions and data."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import vbjax as vb

KEY = jax.random.key(0)
NAMES = ["eruptions", "waiting"]
FRAME = pd.DataFrame(np.asarray(vb.datasets.old_faithful()[:40]), columns=NAMES)


def test_a_fit_to_a_frame_has_four_groups_with_named_axes():
    fit = vb.fit(vb.GaussianMixture(3), FRAME, key=KEY, max_iter=5)
    tree = vb.to_arviz(fit, FRAME[NAMES[::-1]], key=KEY, n_draws=4)
    assert set(tree.children) == {"posterior", "log_likelihood", "observed_data", "posterior_predictive"}
    location = tree.posterior["components.location"]
    assert location.dims == ("chain", "draw", "component", "column")
    assert location.column.values.tolist() == NAMES
    np.testing.assert_array_equal(location[0, 2], fit.params.components.mean.location)  # points
    np.testing.assert_array_equal(tree.observed_data["x"], FRAME.to_numpy(np.float32))
    assert tree.posterior_predictive["x"].dims == ("chain", "draw", "row", "column")
    log_p = tree.log_likelihood["log_likelihood"]
    assert log_p.dims == ("chain", "draw", "row")
    np.testing.assert_allclose(log_p[0, 0], fit.log_predictive(FRAME), rtol=1e-4)


def test_gibbs_draws_keep_their_chains():
    y = jnp.asarray(FRAME["waiting"])
    model = vb.textbook.GaussianMeanPrecision()
    draws = vb.gibbs(model, y, key=KEY, n_draws=6, n_warmup=2, n_chains=3)
    tree = vb.to_arviz(draws, y, key=KEY, model=model)
    np.testing.assert_array_equal(tree.posterior["mu"], draws.mu)
    mu, tau = np.asarray(draws.mu)[..., None], np.asarray(draws.tau)[..., None]
    expected = 0.5 * (np.log(tau) - tau * (np.asarray(y) - mu) ** 2 - np.log(2 * np.pi))
    np.testing.assert_allclose(tree.log_likelihood["log_likelihood"], expected, rtol=1e-4)


def test_a_black_box_has_its_latents_and_the_log_likelihoods_that_it_was_given():
    y = jnp.asarray([1.0, 2.0, 4.0])
    row = lambda s, y: -0.5 * (y - s["a"][0]) ** 2
    model = vb.BlackBox(lambda s: -0.5 * s["a"][0] ** 2, dict(a=[vb.real()]), log_likelihood=row)
    fit = vb.fit(model, y, key=KEY)
    tree = vb.to_arviz(fit, y, key=KEY, n_draws=5, resampled=True, dims={"a.0": []})
    drawn = model.resample(fit.params, jax.random.split(KEY)[0], 5, y)["a"][0]
    np.testing.assert_array_equal(tree.posterior["a.0"][0], drawn)
    expected = -0.5 * (np.asarray(y) - np.asarray(drawn)[:, None]) ** 2
    np.testing.assert_allclose(tree.log_likelihood["log_likelihood"][0], expected, rtol=1e-6)


def test_what_is_no_fit_and_a_package_that_is_missing_are_said(monkeypatch):
    with pytest.raises(ValueError, match=r"fit must be a vb.Fit, or draws of vb.gibbs with model="):
        vb.to_arviz({}, key=KEY)
    with pytest.raises(ValueError, match="resampled must be False for a fit that is not of a BlackBox"):
        vb.to_arviz(vb.fit(vb.KMeans(2), FRAME, key=KEY), key=KEY, resampled=True)
    monkeypatch.setitem(sys.modules, "arviz_base", None)
    with pytest.raises(ImportError, match=r"arviz_base is not installed: .*'vbjax-inference\[arviz\]'"):
        vb.to_arviz(None, key=KEY)
