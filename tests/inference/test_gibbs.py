"""Laws of Gibbs sampling.

Its moments are those of the exact posterior: in closed form where there is one, and by enumeration of all
labels of a small mixture and of all paths of a small chain, within Monte Carlo standard errors computed over
chains. Draws have the shapes and the dtype of the model; a point factor goes to its conditional mode.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.own_models import (
    level_by_hand,
    mixture_prior,
    mixture_rows,
    own_hidden_markov,
    own_level,
)
from tests.support.registry import mean_and_precision
from tests.support.tolerances import STANDARD_ERRORS

X = jnp.array([-1.5, -1.0, 0.8, 1.9])


def agrees(draws, exact):
    """Draws (chains, n, ...) of a quantity, against its exact mean."""
    means = np.asarray(draws, float).mean(1)
    error = means.std(0, ddof=1) / np.sqrt(len(means))
    assert (np.abs(means.mean(0) - exact) <= STANDARD_ERRORS * error).all(), (means.mean(0), exact, error)
    assert (error < 0.1 * np.abs(np.asarray(draws, float)).std((0, 1))).all()


def test_moments_of_a_normal_are_the_exact_ones():
    model = vb.textbook.GaussianMeanPrecision(location=0.0, mean_precision=0.5, concentration=2.0, rate=1.0)
    exact = model.exact_posterior(X)
    draws = vb.gibbs(model, X, key=jax.random.key(0), n_draws=2000, n_warmup=100, n_chains=16)
    assert draws.mu.shape == draws.tau.shape == (16, 2000)
    assert draws.mu.dtype == X.dtype
    agrees(draws.mu, exact.mean.location)
    agrees((draws.mu - exact.mean.location) ** 2, exact.variance.location)
    agrees(draws.tau, exact.mean.precision)
    agrees((draws.tau - exact.mean.precision) ** 2, exact.variance.precision)


def test_a_mixture_agrees_with_the_enumeration_of_all_labels():
    strength, noise, concentration = 0.4, 1.5, 2.0
    model = vb.Model(
        factors=dict(weights=vb.Dirichlet(2), mu=vb.Normal((2,))),
        local=dict(c=vb.Categorical(2)),
        log_prior=mixture_prior,
        log_likelihood=mixture_rows,
        hyper=dict(concentration=concentration, tau0=strength, noise=noise),
        blocks=(("weights", "mu"),),
    )
    logs, share, apart = [], [], []
    for labels in itertools.product(range(2), repeat=len(X)):
        rows = [np.asarray(X, float)[np.array(labels) == k] for k in range(2)]
        n = np.array([len(r) for r in rows])
        log = special.betaln(*(concentration + n)) - special.betaln(concentration, concentration)
        for r in rows:  # marginally N(0, I / noise + 11' / strength)
            if len(r):
                covariance = np.eye(len(r)) / noise + 1 / strength
                log += stats.multivariate_normal.logpdf(r, np.zeros(len(r)), covariance)
        precision = strength + noise * n
        mean = noise * np.array([r.sum() for r in rows]) / precision
        a, b = concentration + n
        logs.append(log)
        share.append(a * b / ((a + b) * (a + b + 1)))  # E[w_0 w_1]
        apart.append((mean[0] - mean[1]) ** 2 + (1 / precision).sum())  # E[(mu_0 - mu_1)^2]
    p = special.softmax(logs)
    draws = vb.gibbs(model, X, key=jax.random.key(1), n_draws=2000, n_warmup=100, n_chains=16)
    assert draws.weights.shape == draws.mu.shape == (16, 2000, 2)
    agrees(draws.weights[..., 0] * draws.weights[..., 1], p @ share)
    agrees((draws.mu[..., 0] - draws.mu[..., 1]) ** 2, p @ apart)


LEVELS = [np.array([1.0, 2.5, 3.0, 1.5]), np.array([2.0, 0.5])]


def test_vectors_in_time_leave_the_exact_posterior_of_their_level():
    draws = vb.gibbs(own_level(), vb.Sequences.of(LEVELS), key=jax.random.key(3), n_draws=1000, n_chains=16)
    mean, sd = level_by_hand(LEVELS)
    agrees(draws.level, mean)
    agrees((draws.level - mean) ** 2, sd**2)


def test_states_in_time_agree_with_the_enumeration_of_all_paths():
    """Of counts of two columns: functions of the parameters that do not know the states by name."""
    x = np.array([[1.0, 2], [7, 5], [2, 0], [6, 9]])
    draws = vb.gibbs(
        own_hidden_markov(2), vb.Sequences.of([x]), key=jax.random.key(4), n_draws=1000, n_chains=16
    )
    logs, rates, stay, first = [], [], [], []
    rising = lambda alpha, n: special.gammaln(alpha + n).sum() - special.gammaln(alpha.sum() + n.sum())
    for path in itertools.product(range(2), repeat=len(x)):
        own = np.eye(2)[list(path)]
        starts, pairs = 0.7 + own[0], 0.4 + own[:-1].T @ own[1:]
        shape, rate = 1.5 + own.T @ x, 0.1 + own.sum(0)[:, None]
        log = rising(np.zeros(2), starts) + sum(rising(np.zeros(2), row) for row in pairs)
        logs.append(log + (special.gammaln(shape) - shape * np.log(rate)).sum())
        rates.append((shape / rate).prod(0))
        stay.append(np.prod(np.diagonal(pairs) / pairs.sum(1)))
        first.append(starts.prod() / (starts.sum() * (starts.sum() + 1)))
    p = special.softmax(logs)
    agrees(draws.components.prod(-2), p @ np.array(rates))
    agrees(draws.transitions[..., 0, 0] * draws.transitions[..., 1, 1], p @ stay)
    agrees(draws.initial.prod(-1), p @ first)


def test_without_data_the_prior_is_drawn(float64):
    model = vb.Model(
        factors=dict(mu=vb.Normal(), tau=vb.Gamma()),
        log_prior=lambda s: vb.terms.normal(s.mu, 1.0, 2.0 * s.tau) + vb.terms.gamma(s.tau, 5.0, 3.0),
    )
    draws = vb.gibbs(model, key=jax.random.key(2), n_draws=2000, n_warmup=100, n_chains=16)
    assert draws.mu.dtype == jnp.float64
    agrees(draws.mu, 1.0)
    agrees((draws.mu - 1) ** 2, 3 / (2 * (5 - 1)))  # Student-t
    agrees(draws.tau, 5 / 3)


def test_a_point_factor_goes_to_its_conditional_mode():
    model = mean_and_precision(mu=vb.Delta(vb.Normal()))
    draws = vb.gibbs(model, X, key=jax.random.key(0), n_draws=50, n_chains=2)
    mode = X.sum() / (len(X) + 0.1)  # whatever the precision is
    np.testing.assert_allclose(draws.mu, np.full((2, 50), mode), rtol=1e-5)
    assert draws.tau.std() > 0.1


@pytest.mark.parametrize("bad", [dict(n_draws=0), dict(n_chains=0), dict(n_warmup=-1), dict(key=3)])
def test_bad_arguments_raise(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        vb.gibbs(mean_and_precision(), X, **dict(dict(key=jax.random.key(0)), **bad))


def draw_from(model, data):
    vb.gibbs(model, data, key=jax.random.key(0), n_draws=4, n_warmup=4, n_chains=1)


def respond(model, data):
    vb.linear_response(model, vb.fit(mean_and_precision(), X, key=jax.random.key(0)).params, data)


def climb(model, data):
    vb.fit(model, data, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("use", "unit", "hyper", "message"),
    [
        (draw_from, 1e30, {}, "data must have squares .* change the unit"),
        (respond, 1e30, {}, "data must have squares .* change the unit"),
        (climb, 1.0, dict(a=-1.0), r"log_prior is nan .* out of its range \(.*hyper.a"),
    ],
)
def test_what_is_not_finite_is_explained(use, unit, hyper, message):
    climb(mean_and_precision(), X)  # its log joint has been examined: later calls look at shapes alone
    with pytest.raises(ValueError, match=message):
        use(mean_and_precision().replace(**hyper), unit * X)
