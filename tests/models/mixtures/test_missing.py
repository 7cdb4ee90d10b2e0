"""Gaussian mixtures of rows with missing entries, all covariance types, by EM and by variational Bayes.

Without missing entries they are the ordinary ones. EM's objective is the likelihood of what is seen, by
scipy, wherever the parameters are, and so are responsibilities and predictive densities. Of variational
Bayes the expected density of a row is that of the completed rows integrated over a grid, and so is the
predictive one. The hand-written moments are the gradient of the derived bound. A row of which nothing is
seen counts for the weights alone. (Monotone, weights, permutations: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.family_table import jit
from tests.support.registry import (
    N_COMPONENTS,
    N_FEATURES,
    N_ROWS,
    bayes,
    em,
    every_kind,
    holed,
    sweeps,
    table,
)
from tests.support.tolerances import close

K, D = N_COMPONENTS, N_FEATURES

every_method = pytest.mark.parametrize("method", [em, bayes])


def read_out(params):
    """Parameters, points as their values."""
    return [getattr(q, "value", q) for q in params.values()]


def started(method, kind, make=holed, **options):
    """A model, its rows in float64, and where it starts."""
    entry = method(kind, make, **options)
    data, weights = entry.data("float64")
    return *entry.started(data, weights), data, weights


@jit
def both_ways(model, params, data, weights):
    """The hand-written and the derived pass over all rows, and the parameters that each leads to."""
    by_hand = vb.core.expectation(model, params, data, weights)
    s = vb.core.ConjugateModel.prepare(model, params)
    derived = vb.core.ConjugateModel.e_step(model, s, data, weights)
    moved = [model.m_step(params, total.statistics, model.blocks[0]) for total in (by_hand, derived)]
    return (by_hand.bound, moved[0]), (derived.bound, moved[1])


@every_kind
@every_method
def test_moments_are_the_gradient_of_the_derived_bound(method, kind, float64):
    model, params, data, _ = started(method, kind, missing=True)
    by_hand, derived = both_ways(model, params, data, jnp.asarray(np.resize([1.0, 0.5, 2.0], N_ROWS)))
    # a Cholesky factor and its gradient, and their inverses; the derived gradient in a matrix is half empty
    close(*((bound, read_out(moved)) for bound, moved in (by_hand, derived)), factor=100)


@every_kind
@every_method
def test_without_missing_entries_they_are_the_ordinary_mixtures(method, kind, float64):
    found = []
    for missing in (True, False):
        model, params, data, weights = started(method, kind, table, missing=missing)
        found.append((both_ways(model, params, data, weights)[0], jax.tree.leaves(model)))
    close(found[0], found[1], factor=10)


def seen_by_scipy(model, params, data):
    """log pi_k + log N of what is seen of each row, (n, k)."""
    pi, means, covariances = map(
        np.asarray, (params.weights.mean, model.means(params), model.covariances(params))
    )
    rows = np.zeros((len(data), K))
    for row, x in zip(rows, np.asarray(data), strict=True):
        o = ~np.isnan(x)
        for k in range(K if o.any() else 0):
            row[k] = stats.multivariate_normal(means[k][o], covariances[k][np.ix_(o, o)]).logpdf(x[o])
    return np.log(pi) + rows


@every_kind
def test_em_climbs_the_likelihood_of_what_is_seen(kind, float64):
    model, params, data, weights = started(em, kind, missing=True)
    end, objective, error = sweeps(model, params, data, weights)
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] > objective[0, 0] + 1
    for at, value in ((params, objective[0, 0]), (end, sweeps(model, end, data, weights)[1][0, 0])):
        close(value, special.logsumexp(seen_by_scipy(model, at, data), 1).sum(), factor=10)
    log_p = seen_by_scipy(model, end, data)
    np.testing.assert_allclose(model.responsibilities(end, data), special.softmax(log_p, 1), atol=1e-10)
    found = model.log_predictive(end, data)
    np.testing.assert_allclose(found, special.logsumexp(log_p, 1), rtol=1e-10, atol=1e-12)


@jit
def labels_table(model, params, data):
    return model.labels_table(params, data)


@every_kind
def test_variational_bayes_integrates_over_what_is_missing(kind, float64):
    """The first column of one row, and the second of another, on a grid."""
    model, params, data, weights = started(bayes, kind, missing=True)
    params = sweeps(model, params, data, weights)[0]
    whole = model.replace(missing=False)
    t = np.linspace(-60, 60, 3001)
    for column, value in ((0, 1.5), (1, -0.5)):
        x = np.full((1, D), value)
        x[0, column] = np.nan
        rows = np.full((len(t), D), value)
        rows[:, column] = t
        area = np.log(t[1] - t[0])
        predictive = special.logsumexp(whole.log_predictive(params, rows)) + area
        # Student-t tails reach beyond the grid
        np.testing.assert_allclose(model.log_predictive(params, x), [predictive], rtol=1e-3)
        if kind in ("full", "tied"):
            expected = special.logsumexp(labels_table(whole, params, rows), 0) + area
            np.testing.assert_allclose(labels_table(model, params, x)[0], expected, rtol=1e-9)


@every_kind
@every_method
def test_a_row_of_which_nothing_is_seen_counts_for_the_weights_alone(method, kind, float64):
    model, params, data, weights = started(method, kind, missing=True)
    assert np.isnan(data[-1]).all()
    absent = weights.at[-1].set(0)
    step = lambda w: both_ways(model, params, data, w)[0]
    (bound, moved), (bound_without, without) = step(weights), step(absent)
    close(moved.components, without.components)
    log_weights = np.asarray(params.weights.expected().log)
    close(bound, bound_without + special.logsumexp(log_weights), factor=10)
    q = (x.gradient.log if method is em else x.concentration for x in (moved.weights, without.weights))
    close(np.subtract(*q), special.softmax(log_weights), factor=100)  # a difference of forty rows


def test_gibbs_sampling_of_correlated_features_takes_no_missing_entries():
    data = holed(np.random.default_rng(0)).astype("float32")
    with pytest.raises(ValueError, match="data must be whole to draw parameters given them"):
        vb.gibbs(vb.BayesianGaussianMixture(2, missing=True), data, key=jax.random.key(0), n_draws=1)


def test_missing_entries_are_refused_where_they_are_not_expected():
    data, key = np.array([[1.0, 2.0], [np.nan, 1.0], [0.5, 0.0]]), jax.random.key(0)
    for model in (vb.GaussianMixture(1), vb.BayesianGaussianMixture(1)):
        with pytest.raises(ValueError, match=r"row 1 is the first .*; missing=True takes NaN as"):
            vb.fit(model, data, key=key)
        with pytest.raises(ValueError, match="row 0 is the first"):
            vb.fit(model.replace(missing=True), np.where(data == 2, np.inf, data), key=key)
        with pytest.raises(ValueError, match="data must have something seen in every column"):
            vb.fit(model.replace(missing=True), data * np.array([np.nan, 1]), key=key)
