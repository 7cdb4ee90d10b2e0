"""Mixtures of factor analysers: beside one factor model, full covariances, and what noise may share."""

import jax
import numpy as np
import pytest
from sklearn.decomposition import FactorAnalysis

import vbjax as vb

KEY = jax.random.key(0)
TIGHT = dict(key=KEY, tol=1e-9, max_iter=5000)


def planted(n, seed=0):
    """Return rows of two factor analysers with one factor, 8 sds apart, (2 n, 3)."""
    rng = np.random.default_rng(seed)
    loadings = np.array([[1.0, 0.8, -0.9], [-1.0, 1.2, 0.7]])
    z, noise = rng.normal(size=(2, n, 1)), 0.6 * rng.normal(size=(2, n, 3))
    return (z * loadings[:, None] + noise + 8 * np.arange(2)[:, None, None]).reshape(-1, 3)


@pytest.fixture
def x(float64):
    return planted(60)


def test_one_component_is_one_factor_model(x):
    one = vb.fit(vb.MixtureOfFactorAnalyzers(1, 1), x[:60], **TIGHT)
    theirs = FactorAnalysis(1, tol=1e-12, max_iter=5000, svd_method="lapack").fit(x[:60])
    np.testing.assert_allclose(one.objective, 60 * theirs.score(x[:60]), rtol=1e-7)
    np.testing.assert_allclose(np.abs(one.loadings()[0, :, 0]), np.abs(theirs.components_[0]), rtol=1e-3)
    spherical = vb.fit(vb.MixtureOfFactorAnalyzers(1, 1, "spherical"), x[:60], **TIGHT)
    np.testing.assert_allclose(spherical.objective, vb.fit(vb.PPCA(1), x[:60], **TIGHT).objective, rtol=1e-9)


def test_with_as_many_parameters_it_is_the_full_gaussian_mixture(x):
    # three columns, one factor: 3 loadings and 3 noise variances for 6 numbers of a covariance
    ours = vb.fit(vb.MixtureOfFactorAnalyzers(2, 1), x, n_restarts=4, **TIGHT)
    full = vb.fit(vb.GaussianMixture(2), x, n_restarts=4, **TIGHT)
    np.testing.assert_allclose(ours.objective, full.objective, rtol=1e-7)
    assert ours.model.n_parameters == full.model.n_parameters
    order = np.argsort(ours.means()[:, 0]), np.argsort(full.means()[:, 0])
    np.testing.assert_allclose(ours.covariances()[order[0]], full.covariances()[order[1]], rtol=2e-3)


def test_factors_given_a_row_are_a_regression_on_its_deviation(x):
    fit = vb.fit(vb.MixtureOfFactorAnalyzers(2, 2), x, key=KEY, max_iter=5)
    inverse = np.linalg.inv(fit.covariances())
    shift = x[:, None] - np.asarray(fit.means())
    expected = np.einsum("kdq,kde,nke->nkq", fit.loadings(), inverse, shift)
    np.testing.assert_allclose(fit.factor_means(x), expected, rtol=1e-8, atol=1e-10)
    mean = np.einsum("nk,nkq->nq", fit.responsibilities(x), expected)
    np.testing.assert_allclose(fit.transform(x), mean, rtol=1e-8, atol=1e-10)
    information = np.einsum("kdq,kd,kdr->kqr", fit.loadings(), 1 / fit.noise_variances(), fit.loadings())
    np.testing.assert_allclose(information[:, 0, 1], 0, atol=1e-8 * information.max())


@pytest.mark.parametrize("noise", ["VEI", "EVI", "EEI", "EII"])
def test_noise_shares_what_its_name_says(x, noise):
    fit = vb.fit(vb.MixtureOfFactorAnalyzers(2, 1, noise), x, key=KEY, max_iter=20)
    assert (np.diff(fit.trace) > -1e-9 * np.abs(fit.objective)).all()
    variances = np.asarray(fit.noise_variances())
    volume = np.exp(np.log(variances).mean(1))
    shape = variances / volume[:, None]
    assert (np.ptp(volume) < 1e-8 * volume[0]) == (noise[0] == "E")
    assert (np.ptp(shape, axis=0).max() < 1e-8) == (noise[1] != "V")
    assert (np.ptp(shape, axis=1).max() < 1e-8) == (noise[1] == "I")


def test_parameters_are_counted_as_in_table_1_of_mcnicholas_and_murphy():
    k, d, q = 3, 27, 4
    loadings = k * (d * q - q * (q - 1) // 2)
    for noise, number in dict(VVI=k * d, VII=k, EEI=d, EII=1).items():
        model = vb.MixtureOfFactorAnalyzers(k, q, noise, scale=np.ones(d))
        assert model.n_parameters == k - 1 + k * d + loadings + number


def test_it_is_drawn_as_the_gaussian_mixture_that_it_is(x):
    fit = vb.fit(vb.MixtureOfFactorAnalyzers(2, 2), x, key=KEY, max_iter=5)
    figure = fit.plot(x)
    assert figure.get_suptitle() == "factor analysers (2 components, 2 factors) of 120 rows"


def test_a_noise_variance_that_vanishes_is_flagged(x):
    # a column that another repeats lies on the factor: a Heywood case
    heywood = np.concatenate([x[:60], x[:60, :1]], 1)
    fit = vb.fit(vb.MixtureOfFactorAnalyzers(1, 1), heywood, key=KEY)
    assert fit.runs.singular.all()
    assert np.isfinite(fit.objective)


def test_what_it_is_not_for_is_refused(x):
    with pytest.raises(ValueError, match="n_factors must be at most the 3 columns of data; got 4"):
        vb.fit(vb.MixtureOfFactorAnalyzers(2, 4), x, key=KEY)
    with pytest.raises(ValueError, match="factor analysers are by EM alone"):
        vb.fit(vb.BayesianMixture(2, vb.components.FactorAnalyzer(1)), x, key=KEY)
