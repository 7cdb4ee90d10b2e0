"""Draws of parameters and of whole data sets, against what is known of their distributions.

Replications of rows under a fixed q are the posterior predictive of rows of their own: of a normal and of a
regression, Student's t or a normal of known moments; of a mixture they keep to each row's own component.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import mean_and_precision, univariate_mixture
from scipy import stats
from tolerances import STANDARD_ERRORS

import vbjax as vb
from vbjax.families import DirichletState, GammaState, MultivariateNormalState, NormalState
from vbjax.terms import linear, normal

KEY, N_DRAWS = jax.random.key(3), 2000


def params_of_a_normal():
    mu = NormalState(jnp.asarray(2.0), jnp.asarray(400.0))
    return vb.Record(mu=mu, tau=GammaState(jnp.asarray(50.0), jnp.asarray(12.5)))


def within_errors(draws, mean):
    draws = np.asarray(draws, float)
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - mean) < STANDARD_ERRORS * error).all()


def test_draws_of_parameters_have_their_moments(float64):
    params = params_of_a_normal()
    draws = vb.sample_posterior(params, KEY, N_DRAWS)
    assert draws.mu.shape == draws.tau.shape == (N_DRAWS,)
    for name, q in params.items():
        within_errors(draws[name], q.mean)
        within_errors((draws[name] - q.mean) ** 2, q.variance)
    assert abs(np.corrcoef(draws.mu, draws.tau)[0, 1]) < STANDARD_ERRORS / np.sqrt(N_DRAWS)


def test_replications_of_a_normal_are_its_predictive(float64):
    x, params = jnp.asarray([1.0, 2.0, 4.0]), params_of_a_normal()
    model = mean_and_precision().resolve(x)
    drawn = vb.replicate(model, params, x, vb.Normal(), key=KEY, n_draws=N_DRAWS)
    assert drawn.shape == (N_DRAWS, 3)
    q = params.tau
    within_errors(drawn, params.mu.mean)
    within_errors((drawn - params.mu.mean) ** 2, params.mu.variance + q.rate / (q.concentration - 1))
    rest = np.asarray(drawn)[:, 0] - params.mu.mean
    scale = np.sqrt(float(q.rate / q.concentration))
    assert stats.kstest(rest, stats.t(2 * float(q.concentration), scale=scale).cdf).pvalue > 1e-3


def test_replications_of_a_regression_keep_its_design(float64):
    design = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    w = MultivariateNormalState(jnp.asarray([1.0, -2.0]), jnp.asarray([[4.0, 1.0], [1.0, 2.0]]))
    model = vb.Model(
        factors=dict(w=vb.MultivariateNormal(2)),
        log_likelihood=lambda s, rows: normal(rows[1], linear(rows[0], s.w), 3.0),
    )
    data = design, jnp.zeros(5)
    x, y = vb.replicate(model, vb.Record(w=w), data, (None, vb.Normal()), key=KEY, n_draws=N_DRAWS)
    assert x is design or (x == design).all()
    within_errors(y, design @ w.mean)
    spread = np.einsum("ni,ij,nj->n", design, w.covariance, design) + 1 / 3.0
    within_errors((y - design @ w.mean) ** 2, spread)


def test_replications_of_a_mixture_keep_each_rows_component(float64):
    x = jnp.asarray([-10.0, 0.0, 10.0, 10.5])
    sharp = NormalState(jnp.asarray([-10.0, 0.0, 10.0]), jnp.full(3, 1e4))
    params = vb.Record(weights=DirichletState(jnp.full(3, 5.0)), mu=sharp)
    model = univariate_mixture().inspect(x).resolve(x)
    drawn = vb.replicate(model, params, x, vb.Normal(), key=KEY, n_draws=N_DRAWS)
    within_errors(drawn, [-10.0, 0.0, 10.0, 10.0])
    within_errors((drawn - jnp.asarray([-10.0, 0.0, 10.0, 10.0])) ** 2, 1 / 1.5 + 1e-4)


@pytest.mark.parametrize("observed", [None, (vb.Normal(), None), "Normal", vb.Dirichlet(3)])
def test_what_does_not_fit_the_data_is_refused(observed):
    x = jnp.asarray([1.0, 2.0, 4.0])
    model = mean_and_precision().resolve(x)
    with pytest.raises(ValueError, match="observed must"):
        vb.replicate(model, params_of_a_normal(), x, observed, key=KEY)
