"""Leave-one-out by importance sampling: beside exact leave-one-out, and beside ArviZ."""

import arviz_base
import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.tolerances import close
from vbjax.inference.leave_one_out import _prior_to_q

KEY = jax.random.key(0)
Y = np.asarray(vb.datasets.old_faithful()[:30, 0], float)
MODEL = vb.textbook.GaussianMeanPrecision(3.0, 0.5, 2.0, 1.0)


@pytest.fixture
def fitted(float64):
    return vb.fit(MODEL, Y, key=KEY, tol=1e-10)


def test_of_a_conjugate_model_it_is_exact_leave_one_out(fitted):
    n_draws = 2000
    found = vb.leave_one_out(fitted, Y, key=KEY, n_draws=n_draws)
    exact = [MODEL.log_evidence(Y) - MODEL.log_evidence(np.delete(Y, i)) for i in range(len(Y))]
    table = vb.log_likelihoods(MODEL, fitted.params, vb.sample_posterior(fitted.params, KEY, n_draws), Y)
    # of a mean of weights 1 / p(y | draw), whose error is less than twice that of equal weights
    error = 2 * jnp.exp(-table).std(0) / jnp.exp(-table).mean(0) / np.sqrt(n_draws)
    assert (np.abs(found.log_density - np.array(exact)) < 4 * error).all()
    assert found.k.max() < found.reliable
    assert "k-hat above 0.7 in 0 rows" in repr(found)


def test_log_ratios_of_draws_have_the_bound_as_their_mean(fitted):
    draws = vb.sample_posterior(fitted.params, KEY, 2000)
    ratios = vb.log_likelihoods(MODEL, fitted.params, draws, Y).sum(1)
    ratios += _prior_to_q(MODEL, fitted.params, draws)
    assert abs(ratios.mean() - fitted.objective) < 4 * ratios.std() / np.sqrt(2000)


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto distribution is greater")
def test_it_is_arviz_of_the_same_log_likelihoods(float64):
    # 3 sqrt(900) is whole: ArviZ rounds the size of a tail down, R's loo up
    table = -0.5 * np.random.default_rng(0).standard_t(4, (900, 8)) ** 2
    tree = arviz_base.from_dict(
        {"posterior": {"a": np.zeros((1, 900))}, "log_likelihood": {"y": table[None]}}
    )
    expected = arviz_stats.loo(tree, pointwise=True, reff=1.0)
    found = vb.psis_loo(table)
    np.testing.assert_allclose(found.log_density, expected.elpd_i, rtol=1e-6)
    np.testing.assert_allclose(found.k, expected.pareto_k, rtol=1e-6)
    np.testing.assert_allclose(found.mean * 8, expected.elpd, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error * 8**0.5, np.std(expected.elpd_i, ddof=1), rtol=1e-6)
    assert expected.good_k == pytest.approx(float(found.reliable))
    # draws of a density of other weights, and their ratios, are draws of the posterior
    even = vb.psis_loo(table, np.zeros(900))
    close(even.log_density, found.log_density)


def test_what_it_refuses():
    x = vb.datasets.old_faithful()[:40]
    em = vb.fit(vb.GaussianMixture(1), x, key=KEY)
    with pytest.raises(ValueError, match=r"a point estimate \(EM\) has no posterior"):
        vb.leave_one_out(em, x, key=KEY)
    with pytest.raises(ValueError, match=r"fit must be a vb.Fit; got 3"):
        vb.leave_one_out(3, x, key=KEY)
    with pytest.raises(ValueError, match="n_draws must be a whole number of at least 100"):
        vb.leave_one_out(em, x, key=KEY, n_draws=10)
    with pytest.raises(ValueError, match="log_likelihoods must be of at least 100 draws"):
        vb.psis_loo(np.zeros((10, 3)))
    with pytest.raises(ValueError, match="log_ratios must have one number for each of the 100"):
        vb.psis_loo(np.zeros((100, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="log_ratios must be finite"):
        vb.psis_loo(np.zeros((100, 3)), np.full(100, np.nan))


def test_components_without_rows_change_nothing():
    # some draws of theirs are singular to float32, and some of their weights round to 0
    x, key = vb.datasets.old_faithful(), jax.random.key(0)
    two = vb.fit(vb.BayesianGaussianMixture(2, weight_concentration=1e-3), x, key=key, n_restarts=2)
    six = vb.fit(vb.BayesianGaussianMixture(6, weight_concentration=1e-3), x, key=key, n_restarts=2)
    assert (vb.sample_posterior(six.params, key, 1000).weights > 0).all()
    found = [vb.leave_one_out(fit, x, key=key) for fit in (two, six)]
    np.testing.assert_allclose(found[1].log_density, found[0].log_density, atol=0.05)
    assert (found[1].k < 0.7).all()
