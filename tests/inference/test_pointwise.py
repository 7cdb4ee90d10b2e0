"""Log likelihoods of rows at draws: at points the model's log densities, otherwise textbook formulas."""

import jax
import numpy as np
import pytest
from jax.scipy import stats

import vbjax as vb
from tests.support.tolerances import close

KEY = jax.random.key(0)
X = vb.datasets.old_faithful()[:40]
QUAKES = vb.datasets.earthquakes()


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (vb.GaussianMixture(2), X),
        (vb.PoissonHMM(2), [QUAKES[:40], QUAKES[40:]]),
        (vb.PPCA(1), X),
        (vb.LinearRegression(), (X[:, :1], X[:, 1])),
    ],
)
def test_at_points_they_are_the_log_densities_of_rows(model, data):
    fit = vb.fit(model, data, key=KEY, max_iter=20)
    found = vb.log_likelihoods(fit.model, fit.params, vb.sample_posterior(fit.params, KEY, 2), data)
    expected = fit.log_predictive(data)
    close(found, np.stack([expected, expected]), factor=100)


def test_at_draws_they_are_those_of_the_draws():
    y = X[:, 1]
    fit = vb.fit(vb.textbook.GaussianMeanPrecision(), y, key=KEY)
    draws = vb.sample_posterior(fit.params, KEY, 5)
    found = vb.log_likelihoods(fit.model, fit.params, draws, y)
    expected = stats.norm.logpdf(y, draws.mu[:, None], draws.tau[:, None] ** -0.5)
    close(found, expected, factor=100)


def test_rows_of_which_only_a_bound_is_known_are_refused():
    docs, _ = vb.Documents.from_tokens([["a", "b"], ["b", "c"]])
    fit = vb.fit(vb.LatentDirichletAllocation(2), docs, key=KEY, max_iter=2)
    draws = vb.sample_posterior(fit.params, KEY, 2)
    with pytest.raises(ValueError, match="whose local latents interact, only a bound is"):
        vb.log_likelihoods(fit.model, fit.params, draws, docs)
    with pytest.raises(ValueError, match="draws must be a record of values of"):
        vb.log_likelihoods(fit.model, fit.params, {}, docs)
