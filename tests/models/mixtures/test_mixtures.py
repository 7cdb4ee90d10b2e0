"""Gaussian mixtures by EM, and both kinds of mixtures where the answer is known.

EM's trajectories, likelihoods, BIC and AIC are scikit-learn's for the four covariance types; ICL adds the
entropy of the labels. The covariance floor binds where it must and keeps EM monotone. The MAP objective is
the log posterior that scipy computes, and no point near the end of a run is better. Draws of new rows have
the mixture's moments. Old Faithful: published maximum likelihoods, singular solutions are flagged and lose,
variational Bayes keeps two of six components. The bound of one component is the product of Student-t
predictive densities, row after row. (The laws of variational Bayes alone are in test_bayesian_mixtures.py;
what mixtures must survive is in test_mixtures_extremes.py.)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import mixture

import vbjax as vb
from tests.support.registry import (
    MODELS,
    N_COMPONENTS,
    N_FEATURES,
    N_ROWS,
    every_kind,
    read_out,
    score,
    sweeps,
)
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.families import DirichletState

K, D = N_COMPONENTS, N_FEATURES

# ---------------------------------------------------------------- expectation maximisation


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@every_kind
def test_em_is_scikit_learns(kind, float64):
    data, weights = MODELS[f"EM {kind}"].data(float64)
    model, params = MODELS[f"EM {kind}"].started(data, weights)
    start = jax.tree.map(np.asarray, read_out(model, params, kind))
    precisions = 1 / start[2] if kind in ("diag", "spherical") else np.linalg.inv(start[2])
    reference = mixture.GaussianMixture(
        n_components=K,
        covariance_type=kind,
        weights_init=start[0],
        means_init=start[1],
        precisions_init=precisions,
        reg_covar=0,
        tol=0,
        max_iter=8,
    ).fit(np.asarray(data))
    params, objective, _ = sweeps(model, params, data, weights)
    expected = reference.weights_, reference.means_, reference.covariances_
    assert abs(expected[1] - start[1]).max() > 0.1  # it has moved
    for mine, its in zip(read_out(model, params, kind), expected, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(objective[-1, 0], N_ROWS * reference.lower_bound_, rtol=1e-8)

    x, p = np.asarray(data), reference.predict_proba(np.asarray(data))
    entropy = stats.entropy(p, axis=1).sum()
    its = reference.score(x) * N_ROWS, reference.bic(x), reference.aic(x), reference.bic(x) + 2 * entropy
    mine = [
        criterion(params, data) for criterion in (model.total_log_likelihood, model.bic, model.aic, model.icl)
    ]
    np.testing.assert_allclose(mine, its, rtol=1e-8)
    np.testing.assert_allclose(model.responsibilities(params, data), p, atol=1e-8)
    np.testing.assert_allclose(model.log_predictive(params, data), reference.score_samples(x), rtol=1e-8)


def test_criteria_count_a_row_of_weight_two_twice(float64):
    data, weights = MODELS["EM full"].data(float64)
    model, params = MODELS["EM full"].started(data, weights)
    counts = np.resize([1.0, 2.0, 0.0], N_ROWS)
    rows = data[np.repeat(np.arange(N_ROWS), counts.astype(int))]
    for name in ("total_log_likelihood", "bic", "aic", "icl"):
        criterion = getattr(model, name)
        close(criterion(params, data, counts), criterion(params, rows), factor=10)
    assert model.bic(params, data, counts) != model.bic(params, data)


@every_kind
def test_the_floor_binds_and_keeps_em_monotone(kind, float64):
    """One cluster is a line, and the others' own variances are a tenth of the data's."""
    data, weights = MODELS[f"EM {kind}"].data(float64)
    x = np.array(data)
    x[::3, 1] = 0.5 * x[::3, 0]
    data, floor = jnp.asarray(x), 0.15
    entry = dataclasses.replace(
        MODELS[f"EM {kind}"], model=MODELS[f"EM {kind}"].model.replace(covariance_floor=floor)
    )
    model, params = entry.started(data, weights)
    params, objective, error = sweeps(model, params, data, weights)
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] > objective[0, 0] + 1
    unit = np.sqrt(x.var(0) if kind != "spherical" else np.full(D, x.var(0).mean()))
    values = np.linalg.eigvalsh(np.asarray(model.covariances(params)) / np.outer(unit, unit))
    np.testing.assert_allclose(values.min(), floor, rtol=1e-10)
    assert model.singular(params)
    free = model.replace(covariance_floor=jnp.asarray(1e-6))
    assert not free.singular(params)


def log_posterior(x, weights, means, precisions, prior):
    """By scipy: log likelihood, and the priors of weights, means and precisions."""
    covariances = np.linalg.inv(precisions)
    rows = [
        w * stats.multivariate_normal(m, s).pdf(x)
        for w, m, s in zip(weights, means, covariances, strict=True)
    ]
    total = np.log(np.sum(rows, 0)).sum()
    total += stats.dirichlet(np.full(K, prior["weight_concentration"])).logpdf(weights)
    wishart = stats.wishart(prior["degrees_of_freedom"], np.linalg.inv(prior["inverse_scale"]))
    for m, s, precision in zip(means, covariances, precisions, strict=True):
        total += stats.multivariate_normal(prior["location"], s / prior["mean_precision"]).logpdf(m)
        total += wishart.logpdf(precision)
    return total


def test_map_climbs_the_log_posterior(float64):
    data, weights = MODELS["MAP"].data(float64)
    prior = dict(
        weight_concentration=2.5,
        location=np.array([1.0, 1.0]),
        mean_precision=0.5,
        degrees_of_freedom=4.5,
        inverse_scale=np.array([[2.0, 0.3], [0.3, 1.0]]),
    )
    entry = dataclasses.replace(MODELS["MAP"], model=vb.GaussianMixture(K, **prior))
    model, params = entry.started(data, weights)
    x, point = np.asarray(data), []
    for _ in range(4):  # 8 sweeps each
        value = (params.weights.mean, params.components.mean.location, params.components.mean.precision)
        point = [np.asarray(v) for v in value]
        params, objective, error = sweeps(model, params, data, weights)
        close(objective[0, 0], log_posterior(x, *point, prior), factor=10)
        assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] - objective[0, 0] < 1e-6  # arrived

    weights, means, precisions = point
    best, rng = log_posterior(x, *point, prior), np.random.default_rng(0)
    for _ in range(50):
        tilted = weights * np.exp(0.05 * rng.normal(size=K))
        turn = np.eye(D) + 0.05 * rng.normal(size=(K, D, D))
        near = (
            tilted / tilted.sum(),
            means + 0.05 * rng.normal(size=means.shape),
            turn @ precisions @ turn.transpose(0, 2, 1),
        )
        assert log_posterior(x, *near, prior) < best


@pytest.mark.parametrize("name", ["EM full", "EM diag"])
def test_new_rows_have_the_mixtures_moments(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, weights)
    pi, mu, sigma = (
        np.asarray(f(params)) for f in (lambda p: p.weights.mean, model.means, model.covariances)
    )
    drawn = np.asarray(model.sample(params, jax.random.key(0), 20_000))
    mean = pi @ mu
    second = np.einsum("k,kij->ij", pi, sigma + np.einsum("ki,kj->kij", mu - mean, mu - mean))
    for value, exact in ((drawn - mean, 0), (np.einsum("ni,nj->nij", drawn - mean, drawn - mean), second)):
        assert (abs(value.mean(0) - exact) < STANDARD_ERRORS * value.std(0) / np.sqrt(len(drawn))).all()


# ---------------------------------------------------------------- Old Faithful


@pytest.fixture
def geyser(float64):
    return vb.datasets.old_faithful()


def test_old_faithful_three_tied_components(geyser):
    """mclust's choice: EEE, 3 components, log likelihood -1126.316, BIC -2314.3 by its sign."""
    fit = vb.fit(vb.GaussianMixture(3, "tied"), geyser, key=jax.random.key(0), n_restarts=16, tol=1e-9)
    np.testing.assert_allclose(fit.objective, -1126.316, atol=5e-4)
    np.testing.assert_allclose(fit.model.bic(fit.params, geyser), 2314.3, atol=0.05)
    assert fit.model.n_parameters == 11


def test_old_faithful_waiting_times(geyser):
    """As mixtools and mclust (model E) find them."""
    x = geyser[:, 1:]
    fit = vb.fit(vb.GaussianMixture(2, "tied"), x, key=jax.random.key(0), n_restarts=4, tol=1e-10)
    order = np.argsort(fit.model.means(fit.params)[:, 0])
    np.testing.assert_allclose(fit.objective, -1034.002, atol=5e-4)
    np.testing.assert_allclose(fit.params.weights.mean[order], [0.3609, 0.6391], atol=1e-4)
    # as far as those programs converge
    np.testing.assert_allclose(fit.model.means(fit.params)[order, 0], [54.615, 80.091], atol=2e-3)
    np.testing.assert_allclose(np.sqrt(fit.model.covariances(fit.params)[:, 0, 0]), 5.869, atol=5e-4)


def test_a_singular_solution_is_flagged_and_loses(geyser):
    """The first run starts on the 14 rows that waited 83 minutes: without the floor, no bound."""
    x = np.asarray(geyser)
    tied = x[x[:, 1] == 83]
    assert len(tied) == 14
    flat = np.cov(tied.T, bias=True) + np.diag([0, 1e-4])
    long = x[:, 0] > 3
    means = [tied.mean(0), x[~long].mean(0), x[long].mean(0)]
    covariances = [flat, np.cov(x[~long].T), np.cov(x[long].T)]
    params = vb.GaussianMixture(3).params_at([14 / 272, 0.36, 1 - 14 / 272 - 0.36], means, covariances)
    fit = vb.fit(
        vb.GaussianMixture(3), geyser, key=jax.random.key(0), params=params, n_restarts=24, max_iter=3000
    )
    runs = fit.runs
    assert runs.singular[0]
    assert runs.objective[0] > fit.objective + 20  # 7 log(1e-6 of the variance) nats above the free rows' fit
    assert not runs.singular.all()
    np.testing.assert_allclose(fit.objective, -1114.44, atol=5e-3)
    assert not fit.model.singular(fit.params)
    np.testing.assert_allclose(fit.objective, runs.objective[~runs.singular].max())
    assert f"{int(runs.singular.sum())} singular and set aside" in fit.verdict()


def test_old_faithful_by_variational_bayes(geyser):
    fit = vb.fit(
        vb.BayesianGaussianMixture(6, weight_concentration=1e-3),
        geyser,
        key=jax.random.key(0),
        n_restarts=16,
        tol=1e-8,
    )
    counts = np.asarray(fit.model.responsibilities(fit.params, geyser)).sum(0)
    assert (counts > 1).sum() == 2
    np.testing.assert_allclose(fit.objective, -1185.82, atol=5e-3)


# ---------------------------------------------------------------- one component


@jax.jit
def updated_once(model, data):
    """The bounds at the prior and after one sweep, and the log predictive density of the rows after it."""
    params = vb.Record(weights=DirichletState(jnp.ones(1)), components=model.component.prior)
    total = vb.core.expectation(model, params, data)
    moved = model.m_step(params, total.statistics, model.blocks[0])
    bounds = (score(model, at, data) for at in (params, moved))
    return *bounds, model.log_predictive(moved, data)


def student_t(kind, beta, location, nu, inverse_scale):
    """The predictive density of a row, by scipy (Bishop 2006, eq. 10.81)."""
    factor = (1 + beta) / beta
    if kind in ("full", "tied"):
        dof = nu - D + 1
        return stats.multivariate_t(location, inverse_scale * factor / dof, df=dof).logpdf
    if kind == "spherical":
        return stats.multivariate_t(location, inverse_scale * factor / nu * np.eye(D), df=nu).logpdf
    return lambda x: stats.t(nu, location, np.sqrt(inverse_scale * factor / nu)).logpdf(x).sum()


@every_kind
def test_one_component_is_a_product_of_student_t_predictives(kind, float64):
    """The exact evidence, a row at a time, each predicted from those before it; the bound equals it."""
    data, _ = MODELS[f"VB {kind}"].data(float64)
    one = vb.BayesianGaussianMixture(1, kind).resolve(data)
    beta, location = float(one.component.mean_precision), np.asarray(one.component.location)
    nu, inverse_scale = float(one.component.degrees_of_freedom), np.asarray(one.component.inverse_scale)
    evidence = 0.0
    for row in np.asarray(data):
        evidence += student_t(kind, beta, location, nu, inverse_scale)(row)
        shift = row - location
        wider = {
            "full": np.outer(shift, shift),
            "tied": np.outer(shift, shift),
            "diag": shift**2,
            "spherical": shift @ shift,
        }[kind]
        inverse_scale = inverse_scale + beta / (1 + beta) * wider
        location = location + shift / (1 + beta)
        beta, nu = beta + 1, nu + (D if kind == "spherical" else 1)
    start, bound, found = updated_once(one, data)
    assert start < evidence - 1
    np.testing.assert_allclose(bound, evidence, rtol=1e-12)
    predicted = [student_t(kind, beta, location, nu, inverse_scale)(row) for row in np.asarray(data)]
    np.testing.assert_allclose(found, predicted, rtol=1e-10)
