"""The bootstrap beside the variance of a mean, the likelihood ratio test beside the law of a correlation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.tolerances import STANDARD_ERRORS, close

KEY, OTHER = jax.random.key(0), jax.random.key(1)
X = vb.datasets.old_faithful()[:40]
N = 400
ONE = vb.GaussianMixture(1, covariance_type="diag")


@functools.cache
def fit(model=ONE):
    return vb.fit(model, X, key=KEY)


@pytest.mark.parametrize("weights", [None, np.arange(40) % 3], ids=["even", "counts"])
def test_a_mean_has_the_variance_of_dirichlet_weights(weights):
    found = vb.bootstrap(vb.fit(ONE, X, key=KEY, weights=weights), X, key=KEY, n=N, weights=weights)
    w = np.ones(40) if weights is None else weights
    mean = np.average(X, axis=0, weights=w)
    variance = np.average((X - mean) ** 2, axis=0, weights=w) / (w.sum() + 1)  # Rubin (1981)
    draws = found.draws.components.location[:, 0]
    assert (np.abs(draws.mean(0) - mean) < STANDARD_ERRORS * np.sqrt(variance / N)).all()
    ratio = found.sd.components.location[0] ** 2 / variance
    assert (np.abs(ratio - 1) < STANDARD_ERRORS * np.sqrt(2 / N)).all()
    ends = np.quantile(found.draws.components.precision, [0.05, 0.95], axis=0)
    close(found.interval.components.precision, ends)


def test_components_keep_their_labels_and_a_second_call_compiles_nothing():
    own = vb.fit(vb.GaussianMixture(2), X, key=KEY, n_restarts=4)
    first = vb.bootstrap(own, X, key=KEY, n=40)
    with compilations() as compiled:
        second = vb.bootstrap(own, X, key=OTHER, n=40)
    assert not compiled
    assert (first.draws.weights != second.draws.weights).any()
    waits, there = second.draws.components.location[:, :, 1], own.params.components.mean.location[:, 1]
    assert (waits.argmax(1) == there.argmax()).all()
    low, high = second.interval.weights
    assert ((low < own.params.weights.mean) & (own.params.weights.mean < high)).all()
    text = str(second)
    assert max(map(len, text.splitlines())) <= 80
    assert "components.location" in text


def test_singular_refits_are_left_out():
    draws = vb.Record(mu=jnp.arange(20.0))
    found = vb.Bootstrap(fit(), draws, jnp.arange(20) < 10, jnp.ones(20, int))
    close(found.quantile(0.5).mu, np.float32(4.5))
    close(found.sd.mu, np.arange(10, dtype="float32").std(ddof=1))


def test_the_likelihood_ratio_of_a_correlation_has_its_exact_law():
    null, alternative = ONE, vb.GaussianMixture(1, covariance_type="full")
    n, x = 199, np.asarray(X, float)
    found = vb.likelihood_ratio_test(null, alternative, X, key=KEY, n=n, n_restarts=1)
    square = np.corrcoef(x.T)[0, 1] ** 2
    assert found.statistic == pytest.approx(-40 * np.log1p(-square), rel=1e-4)
    # of independent normals r^2 is Beta(1/2, (n - 2) / 2)
    law = stats.beta(0.5, 19)
    assert stats.kstest(1 - np.exp(-np.asarray(found.draws) / 40), law.cdf).pvalue > 1e-3
    assert found.p_value == 1 / (n + 1)
    assert "p-value 0.005 by 199 draws" in repr(found)
    # at a statistic within the law the p-value is the law's tail
    middle = dataclasses.replace(found, statistic=jnp.asarray(-40 * np.log1p(-law.ppf(0.8))))
    assert abs(middle.p_value - 0.2) < STANDARD_ERRORS * np.sqrt(0.2 * 0.8 / n)
    failed = dataclasses.replace(middle, draws=jnp.full(n, jnp.nan))
    assert failed.p_value == 1  # nothing is known of the law: no reason to reject


def test_whether_weights_depend_on_covariates_has_the_law_of_one_slope():
    # of components far apart the labels are known, and the test is that of a logistic regression
    rng, n = np.random.default_rng(0), 199
    z, half, wide = rng.normal(size=(60, 1)), rng.random(60), vb.components.Gaussian("diag")
    rows = lambda c: (rng.normal(size=60) + 9 * c)[:, None].astype("float32")
    null, alternative = (vb.Mixture(2, wide, weights=vb.labels.Gated(precision=p)) for p in (1e6, 1e-6))
    test = functools.partial(vb.likelihood_ratio_test, null, alternative, key=KEY, n=n, n_restarts=1)
    alike = test((z, rows(half < 0.5)))
    assert stats.kstest(np.asarray(alike.draws), stats.chi2(1).cdf).pvalue > 1e-3  # Wilks (1938)
    assert alike.p_value > 0.05
    assert test((z, rows(half < 1 / (1 + np.exp(-3 * z[:, 0]))))).p_value == 1 / (n + 1)


def test_what_is_not_modelled_stays_where_data_are_drawn_anew():
    rng = np.random.default_rng(0)
    counts = rng.poisson(4.0, size=(40, 2)).astype("float32")
    z = np.where(np.arange(40) < 20, -9.0, 9.0).astype("float32")[:, None]
    y = (50 * (z[:, 0] > 0) + rng.normal(size=40)).astype("float32")
    parts = vb.components.Product(line=vb.components.Regression(), counts=vb.components.Multinomial())
    gated = vb.Mixture(2, parts, weights=vb.labels.Gated(precision=1.0))
    data = z, dict(line=(np.ones_like(z), y), counts=counts)
    own = vb.fit(gated, data, key=KEY)
    covariates, drawn = own.model.simulate(own.params, KEY, own.model.read(data))
    np.testing.assert_array_equal(covariates, z)
    np.testing.assert_array_equal(drawn["line"][0], 1)
    np.testing.assert_array_equal(drawn["line"][1] > 25, z[:, 0] > 0)  # labels are drawn by the covariates
    assert (drawn["line"][1] != y).all()
    np.testing.assert_array_equal(drawn["counts"].sum(1), counts.sum(1))
    assert (drawn["counts"] != counts).any()


def test_sequences_are_drawn_anew_as_long_as_they_are():
    data = vb.Sequences.of([np.full((n, 2), 3) for n in (5, 3, 4)])
    own = vb.fit(vb.HiddenMarkovModel(1, vb.components.Multinomial()), data, key=KEY)
    drawn = own.model.simulate(own.params, KEY, own.model.read(data))
    assert drawn.lengths.tolist() == [5, 3, 4]
    np.testing.assert_array_equal(drawn.steps().sum(1), 6)
    assert len(np.unique(drawn.steps())) > 2


def test_what_they_refuse_and_warn_of():
    test = functools.partial(vb.likelihood_ratio_test, key=KEY, n=3)
    with pytest.raises(ValueError, match=r"fit must be a vb.Fit; got 3"):
        vb.bootstrap(3, X, key=KEY)
    with pytest.raises(ValueError, match="n must be a whole number of at least 2"):
        vb.bootstrap(fit(), X, key=KEY, n=1)
    with pytest.raises(ValueError, match="data must have at least 2 rows"):
        vb.bootstrap(fit(), X[:1], key=KEY)
    with pytest.warns(vb.FitWarning, match="4 of 4 refits did not converge"):
        vb.bootstrap(fit(), X, key=KEY, n=4, max_iter=1)
    with pytest.raises(ValueError, match="alternative must be a model with a log density of rows"):
        test(ONE, vb.KMeans(2), X)
    with pytest.raises(ValueError, match="alternative must be fitted by maximum likelihood"):
        test(ONE, vb.BayesianGaussianMixture(1), X)
    with pytest.raises(ValueError, match="a GaussianMixture does not draw whole rows"):
        test(ONE, ONE, vb.Labelled(X, np.zeros(40, int)))
    gated = vb.Mixture(1, vb.components.Gaussian(), weights=vb.labels.Gated())
    with pytest.raises(ValueError, match=r"data must be numeric .*read by null, a GaussianMixture; both"):
        test(ONE, gated, (X[:, :1], X))
    with pytest.raises(ValueError, match=r"data must be a pair .*read by alternative, a Mixture; both"):
        test(ONE, gated, X)
