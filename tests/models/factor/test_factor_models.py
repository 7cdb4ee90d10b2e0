"""Laws of probabilistic PCA, factor analysis and Bayesian PCA.

The E-step by matrix products is the derived one, and complete rows with `missing=True` are ordinary ones.
Maximum likelihood: the eigenvectors' solution, scikit-learn's covariances and likelihoods, and with missing
entries the exact density of what is observed. Noise that has nothing left stops at its floor, flagged.
Bayes: the bound is Monte Carlo's, superfluous columns vanish, and heavy rows give maximum likelihood.
float32 keeps its digits at an offset. Bad input raises.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import decomposition

import vbjax as vb
from tests.support.registry import score, sweeps
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.terms import matmul, multivariate_normal, normal

KEY = jax.random.key(0)
N, P, Q = 120, 5, 2


def rows(dtype="float64", offset=3.0):
    rng = np.random.default_rng(2)
    signal, noise = rng.normal(size=(N, Q)) @ rng.normal(size=(Q, P)), rng.normal(size=(N, P))
    return (2 * signal + noise * np.linspace(0.4, 1, P) + offset).astype(dtype)


def holes():
    """The rows with a third of the entries missing: one row has none left, and some have all."""
    x, rng = rows(), np.random.default_rng(3)
    x[rng.uniform(size=x.shape) < 0.3] = np.nan
    x[0] = np.nan
    return x


def fitted(model, data, **how):
    return vb.fit(model, data, key=KEY, **dict(dict(tol=0.0, max_iter=5000), **how))


bayesian_factor_analysis = vb.BayesianPCA(Q, noise_per_column=True)


@jax.jit
def begun(model, data, weights):
    """The model with its defaults filled in, and its start."""
    model = model.resolve(data, weights)
    return model, model.init(KEY, data, weights)


@jax.jit
def passed(model, params, data, weights):
    """The bound of a pass over the rows, and the gradient in every natural field."""
    total = vb.core.expectation(model, params, data, weights)
    return total.bound, {name: t.natural for name, t in total.statistics.items()}


def test_the_products_are_the_derived_step_and_complete_rows_miss_nothing(float64):
    x, weights = jnp.asarray(rows()), jnp.asarray(np.resize([1.0, 2.0, 0.5], N))
    model, params = begun(bayesian_factor_analysis, x, weights)
    derived = dataclasses.replace(bayesian_factor_analysis, missing=True)
    close(begun(derived, x, weights), (model, params), factor=10)
    derived = dataclasses.replace(model, missing=True)
    close(passed(model, params, x, weights), passed(derived, params, x, weights), factor=10, scale=N)


# ---------------------------------------------------------------- maximum likelihood


def factor_rows(s, x):
    """Probabilistic PCA as a log joint of one's own."""
    latent = multivariate_normal(s.z, jnp.zeros(Q, x.dtype), jnp.eye(Q, dtype=x.dtype))
    return normal(x, matmul(s.w, s.z) + s.mu, s.tau).sum(-1) + latent


def own():
    parts = vb.PPCA(Q, scale=jnp.ones(P)).factors
    return vb.Model(factors=parts, local=dict(z=vb.MultivariateNormal(Q)), log_likelihood=factor_rows)


@pytest.mark.parametrize("named", [True, False])
def test_probabilistic_pca_by_em_is_the_eigenvectors_solution(named, float64):
    """Tipping & Bishop (1999), eq. 7 and 8: W W' + sigma^2 I keeps the leading eigenvalues."""
    x = jnp.asarray(rows())
    model, params = begun(vb.PPCA(Q), x, jnp.ones(N))
    fit = fitted(model if named else own(), x, params=params)
    values, axes = np.linalg.eigh(np.cov(x.T, ddof=0))
    noise, lead = values[:-Q].mean(), slice(-Q, None)
    signal = (axes[:, lead] * (values[lead] - noise)) @ axes[:, lead].T
    covariance, mean = signal + noise * np.eye(P), np.asarray(x.mean(0))
    np.testing.assert_allclose(model.covariance(fit.params), covariance, atol=1e-5)  # flat at the optimum
    density = stats.multivariate_normal.logpdf(x, mean, covariance)
    np.testing.assert_allclose(fit.objective, density.sum(), rtol=1e-10)
    if named:
        np.testing.assert_allclose(model.log_predictive(fit.params, x), density, atol=1e-4)
        expected = mean + (x - mean) @ np.linalg.solve(covariance, signal)
        np.testing.assert_allclose(model.reconstruct(fit.params, x), expected, atol=1e-4)
        reference = decomposition.PCA(Q).fit(np.asarray(x))  # it divides by n - 1
        np.testing.assert_allclose(
            model.noise_variance(fit.params), np.full(P, reference.noise_variance_ * (N - 1) / N), rtol=1e-5
        )


def test_factor_analysis_is_scikit_learns(float64):
    x = jnp.asarray(rows())
    fit = fitted(vb.FactorAnalysis(Q), x)
    reference = decomposition.FactorAnalysis(Q, tol=1e-12, max_iter=20_000, svd_method="lapack")
    reference.fit(np.asarray(x))
    np.testing.assert_allclose(fit.objective, reference.score(np.asarray(x)) * N, rtol=1e-9)
    np.testing.assert_allclose(fit.model.covariance(fit.params), reference.get_covariance(), atol=1e-4)
    assert not fit.runs.singular.any()


def test_missing_entries_leave_the_density_of_what_is_observed(float64):
    x, weights = jnp.asarray(holes()), jnp.ones(N)
    model, params = begun(vb.FactorAnalysis(Q, missing=True), x, weights)
    objective, error = sweeps(model, params, x, weights)[1:]
    np.testing.assert_array_equal(np.isnan(model.simulate(params, KEY, x)), np.isnan(x))
    mean, covariance = np.asarray(params.mu.mean), np.asarray(model.covariance(params))
    signal = covariance - np.diag(model.noise_variance(params))
    density, expected = np.zeros(N), np.tile(mean, (N, 1))
    for n, row in enumerate(holes()):
        seen = np.flatnonzero(~np.isnan(row))
        if len(seen):
            of_seen = covariance[np.ix_(seen, seen)]
            density[n] = stats.multivariate_normal.logpdf(row[seen], mean[seen], of_seen)
            expected[n] += signal[:, seen] @ np.linalg.solve(of_seen, row[seen] - mean[seen])
    close(objective[0, 0], density.sum(), factor=10, scale=np.abs(density).sum())
    close(model.log_predictive(params, x), density, factor=30)
    close(model.reconstruct(params, x), expected, factor=30)
    assert (np.diff(np.ravel(objective)) > -np.ravel(error)[1:]).all()


def test_noise_that_has_nothing_left_stops_at_its_floor(float64):
    rng = np.random.default_rng(4)
    x = jnp.asarray(rng.normal(size=(N, Q)) @ rng.normal(size=(Q, P)))
    fit = fitted(vb.PPCA(Q, noise_floor=1e-3), x)
    close(fit.model.noise_variance(fit.params), np.full(P, 1e-3 * np.var(x, 0).mean()), factor=10)
    assert fit.status == vb.Status.CONVERGED
    assert fit.runs.singular.all()


def test_draws_have_the_models_moments(float64):
    x = jnp.asarray(rows())
    model, params = begun(vb.FactorAnalysis(Q), x, jnp.ones(N))
    draws = np.asarray(model.sample(params, jax.random.key(1), 20_000))
    centred = draws - params.mu.mean
    products = np.einsum("ni,nj->nij", centred, centred)
    for values, exact in ((centred, 0), (products, model.covariance(params))):
        error = values.std(0) / np.sqrt(len(values))
        assert (np.abs(values.mean(0) - exact) < STANDARD_ERRORS * error).all()


def test_float32_keeps_its_digits_at_an_offset(float64):
    x = jnp.asarray(rows("float32", offset=1e4))
    wide = jnp.asarray(x, "float64")
    weights = jnp.ones(N)
    model, params = begun(bayesian_factor_analysis, wide, weights)
    expected, objective, _ = sweeps(model, params, wide, weights)
    single = jax.tree.map(lambda leaf: leaf.astype("float32"), (model, params, weights))
    found, its, _ = sweeps(*single[:2], x, single[2])
    assert its.dtype == found.w.mean.dtype == "float32"
    close(its, objective, factor=3)
    for read in (model.covariance, model.noise_variance):
        close(read(found), read(expected), factor=10)


# ---------------------------------------------------------------- Bayes


def test_superfluous_columns_vanish(float64):
    """Of five columns for data of rank two; the two are maximum likelihood's, near enough."""
    x = jnp.asarray(rows())
    fit = fitted(vb.BayesianPCA(P), x, tol=1e-8)
    size = np.asarray(fit.model.loadings(fit.params) ** 2).sum(0)
    kept = size > 1e-6 * fit.model.noise_variance(fit.params)[0]
    assert kept.sum() == Q
    assert (fit.params.alpha.mean[~kept] > 100 * fit.params.alpha.mean[kept].max()).all()
    w = np.asarray(fit.model.loadings(fit.params))[:, kept]
    close(w[:, 0] @ w[:, 1], 0.0, scale=1e10)  # principal axes
    best = fitted(vb.PPCA(Q), x)
    close(fit.params.mu.mean, best.params.mu.mean, scale=1e11)
    difference = fit.model.covariance(fit.params) - best.model.covariance(best.params)
    assert np.linalg.norm(difference) < 10 / N * np.linalg.norm(best.model.covariance(best.params))


def test_the_bound_is_monte_carlos(float64):
    """E_q[log p - log q], which is below the log evidence: with latents, relevances and all."""
    x, weights = jnp.asarray(rows()[:6, :2]), jnp.ones(6)
    model, q = begun(vb.BayesianPCA(1, relevance_concentration=2.0, concentration=2.0), x, weights)
    norm, gamma = jax.scipy.stats.norm.logpdf, jax.scipy.stats.gamma.logpdf

    @jax.jit
    def weigh(q, key):
        q = q | dict(z=model.posterior(q, x).z)
        keys = dict(zip(q, jax.random.split(key, 5), strict=True))
        draws = {name: state.sample(keys[name], 20_000) for name, state in q.items()}
        log_q = sum(q[name].log_prob(v).reshape(20_000, -1).sum(1) for name, v in draws.items())
        w, mu, alpha, tau, z = (draws[name] for name in ("w", "mu", "alpha", "tau", "z"))
        log_p = norm(w, 0, alpha[:, None] ** -0.5).sum((1, 2)) + norm(z).sum((1, 2))
        log_p += norm(mu, model.location, model.location_precision**-0.5).sum(1)
        log_p += gamma(alpha, model.relevance_concentration, scale=1 / model.relevance_rate).sum(1)
        log_p += gamma(tau, model.concentration, scale=1 / model.rate)
        mean = jnp.einsum("snq,spq->snp", z, w) + mu[:, None]
        return log_p + norm(x, mean, tau[:, None, None] ** -0.5).sum((1, 2)) - log_q

    values = np.asarray(weigh(q, jax.random.key(3)))
    bound = jax.jit(score)(model, q, x)
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - bound) < STANDARD_ERRORS * error
    assert error < 0.1


def test_heavy_rows_give_maximum_likelihood(float64):
    """Every row 10^6 times: the priors are forgotten, and q has no width."""
    x, weights = jnp.asarray(rows()), jnp.full(N, 1e6)
    covariances = []
    for model in (bayesian_factor_analysis, vb.FactorAnalysis(Q, missing=True)):
        model, params = begun(model, x, weights)
        covariances.append(model.covariance(sweeps(model, params, x, weights)[0]))
    np.testing.assert_allclose(*covariances, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- input

BAD = {
    "missing=True takes NaN": (vb.PPCA(2), holes()),
    "infinity": (vb.PPCA(2, missing=True), np.full((3, 2), np.inf)),
    "entry in every column": (vb.PPCA(1, missing=True), np.array([[1.0, np.nan], [2.0, np.nan]])),
    "at most the 5 columns": (vb.FactorAnalysis(6), np.zeros((9, 5))),
    "n_components must be": (vb.BayesianPCA(0), np.zeros((9, 5))),
    "not seen data": (vb.PPCA(1), None),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_raises(message):
    model, data = BAD[message]
    with pytest.raises(ValueError, match=message):
        model.factors if data is None else vb.fit(model, data, key=KEY)
