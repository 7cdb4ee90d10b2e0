"""Laws of linear regression: by least squares, exact, and with relevance determination.

Least squares: numpy's to rounding, with their likelihood; with a prior ridge regression, scikit-learn's, and
the mode of the exact posterior; weights are repeated rows; a perfect fit is singular, columns that repeat one
another share their weight.
Conjugate: the bound is the log evidence, a Student-t density; one row more raises it by that row's log
predictive density; draws of new rows have that density; in the flat limit it is least squares. Relevance
determination: the fixed point is scikit-learn's (MacKay's updates have it too), the bound lies below the log
evidence and Gibbs draws have the exact moments, both by quadrature over the precisions. All: the hand-written
E-step is the derived one, other units and origins change nothing else, and float32 keeps its digits at an
offset of 1e4. Input that is no pair of a table and a column raises.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from sklearn.linear_model import ARDRegression, Ridge

import vbjax as vb
from tests.inference.test_gibbs import agrees
from tests.support.family_table import jit
from tests.support.tolerances import close
from vbjax.core.model import ConjugateModel

KEY = jax.random.key(0)
N, D = 30, 3


def data(dtype="float64", offset=0.0, unit=1.0):
    """One weight of three is 0; in float32's digits, so that both dtypes have the same numbers."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)) * [1.0, 2.0, 0.5]
    y = x @ [2.0, 0.0, -1.0] + 3.0 + 0.5 * rng.normal(size=N)
    return tuple(jnp.asarray((unit * z + offset).astype("float32").astype(dtype)) for z in (x, y))


def naturals(expectation):
    """The statistics but for the pivots, whose gradient nobody reads."""
    return {name: t.natural for name, t in expectation.statistics.items()}


@functools.cache
def fitted(kind, intercept=True, dtype="float64", offset=0.0, unit=1.0):
    """A fit to the last digit, and its data."""
    rows = data(dtype, offset, unit)
    model = kind(fit_intercept=intercept)
    return vb.fit(model, rows, key=KEY, tol=0.0, max_iter=5000), rows


# ---------------------------------------------------------------- least squares


@pytest.mark.parametrize("intercept", [True, False])
def test_maximum_likelihood_is_least_squares(intercept, dtype):
    x, y = data(dtype)
    x = x @ jnp.asarray(
        [[1.0, 1.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 100.0]], dtype
    )  # two columns are nearly one
    fit = vb.fit(vb.LinearRegression(intercept), (x, y), key=KEY, tol=0.0)
    exact = np.column_stack([np.ones(N), x] if intercept else [x]).astype("float64")
    best, (rest,), *_ = np.linalg.lstsq(exact, np.asarray(y, "float64"))
    close(fit.model.coefficients(fit.params), best[intercept:], scale=np.abs(best).max(), factor=30)
    close(fit.model.intercept(fit.params), best[0] if intercept else 0.0, scale=np.abs(best).max(), factor=30)
    close(1 / fit.params.w.mean.precision, rest / N, factor=10)
    close(fit.objective, stats.norm.logpdf(y, exact @ best, np.sqrt(rest / N)).sum())
    close(fit.model.log_predictive(fit.params, (x, y)).sum(), fit.objective)
    assert fit.status == vb.Status.CONVERGED
    assert not fit.runs.singular.any()


def test_a_prior_makes_it_ridge_regression(float64):
    x, y = data()
    fit = vb.fit(vb.LinearRegression(mean_precision=7.0), (x, y), key=KEY, tol=0.0)
    other = Ridge(alpha=7.0).fit(x, y)
    close(fit.model.coefficients(fit.params), other.coef_, factor=3)
    close(fit.model.intercept(fit.params), other.intercept_, factor=3)
    rest = ((y - other.predict(x)) ** 2).sum() + 7 * (other.coef_**2).sum()
    close(1 / fit.params.w.mean.precision, rest / (N + D + 1), factor=3)


def test_with_a_whole_prior_the_point_is_the_mode_of_the_exact_posterior(float64):
    prior = dict(location=np.array([0.5, 1.0, -1.0, 2.0]), concentration=3.0, rate=4.0)
    precision = np.array([0.5, 1.0, 2.0, 3.0])
    point = vb.fit(vb.LinearRegression(mean_precision=precision, **prior), data(), key=KEY, tol=0.0)
    exact = vb.BayesianLinearRegression(mean_precision=np.diag(precision), **prior)
    posterior = vb.fit(exact, data(), key=KEY, tol=0.0)
    close(tuple(point.params.w.mean), tuple(posterior.params.w.mode), factor=10)
    # log joint = log evidence + log posterior, at the mode
    mode = posterior.params.w.mode
    close(point.objective, posterior.objective + posterior.params.w.log_prob(mode), factor=10)


def test_a_perfect_fit_is_singular_and_columns_that_repeat_share_their_weight(dtype):
    x, _ = data(dtype)
    fit = vb.fit(vb.LinearRegression(), (x, x @ jnp.asarray([1.0, -2.0, 3.0], dtype)), key=KEY)
    assert fit.runs.singular.all()
    assert np.isfinite(fit.objective)
    close(fit.model.coefficients(fit.params), [1.0, -2.0, 3.0], factor=10)
    twice = vb.fit(vb.LinearRegression(), (jnp.stack([x[:, 0], x[:, 0], 0 * x[:, 0]], 1), x[:, 1]), key=KEY)
    once = vb.fit(vb.LinearRegression(), (x[:, :1], x[:, 1]), key=KEY)
    weight = once.model.coefficients(once.params)[0]
    close(twice.model.coefficients(twice.params), jnp.stack([weight / 2, weight / 2, 0 * weight]), factor=3)
    close(twice.objective, once.objective)


# ---------------------------------------------------------------- conjugate


@pytest.mark.parametrize("intercept", [True, False])
def test_the_bound_is_the_log_evidence(intercept, float64):
    fit, (x, y) = fitted(vb.BayesianLinearRegression, intercept)
    model, design = fit.model, np.asarray(fit.model.design(x))
    shape = (
        model.rate
        / model.concentration
        * (np.eye(N) + design @ np.linalg.solve(model.mean_precision, design.T))
    )
    exact = stats.multivariate_t.logpdf(
        y, model.offset + design @ model.location, shape, df=2 * model.concentration
    )
    # the prior's spread is a thousand times the data's, squared, in this determinant
    close(fit.objective, exact, factor=1000)


def test_one_row_more_adds_its_log_predictive_density(float64):
    fit, (x, y) = fitted(vb.BayesianLinearRegression)
    weights = np.append(np.ones(N - 1), 0.0)
    less = vb.fit(fit.model, (x, y), weights=weights, key=KEY, tol=0.0)
    density = fit.model.log_predictive(less.params, (x[-1:], y[-1:]))[0]
    close(fit.objective - less.objective, density, scale=abs(fit.objective))


def test_draws_of_new_rows_have_the_predictive_density(float64):
    fit, (x, _) = fitted(vb.BayesianLinearRegression)
    w, many = fit.params.w, np.broadcast_to(x[:1], (5000, D))
    row = np.asarray(fit.model.design(x[:1]))[0]
    spread = w.rate / w.concentration * (1 + row @ np.linalg.solve(w.mean_precision, row))
    exact = stats.t(2 * w.concentration, fit.model.offset + row @ w.location, np.sqrt(spread))
    close(fit.model.log_predictive(fit.params, (x[:1], np.ones(1))), [exact.logpdf(1.0)])
    assert stats.kstest(fit.model.sample(fit.params, KEY, 5000, given=many), exact.cdf).pvalue > 1e-3
    close(fit.model.predict(fit.params, x[:1]), [exact.mean()])


def test_a_flat_prior_gives_least_squares(float64):
    x, y = data()
    flat = vb.BayesianLinearRegression(mean_precision=1e-12 * np.eye(D + 1), rate=1e-12)
    fit = vb.fit(flat, (x, y), key=KEY, tol=0.0)
    design = np.column_stack([np.ones(N), x])
    best, (rest,), *_ = np.linalg.lstsq(design, y)
    # a prior of 1e-12 rows leaves its mark in the twelfth digit
    np.testing.assert_allclose(fit.model.coefficients(fit.params), best[1:], rtol=1e-11)
    np.testing.assert_allclose(fit.model.intercept(fit.params), best[0], rtol=1e-11)
    np.testing.assert_allclose(2 * fit.params.w.rate, rest, rtol=1e-11)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design))[1:])
    found = np.sqrt(np.diag(np.linalg.inv(fit.params.w.mean_precision))[1:])
    np.testing.assert_allclose(found, errors, rtol=1e-11)


# ---------------------------------------------------------------- relevance determination


def test_the_fixed_point_is_scikit_learns(float64):
    x, y = (z - z.mean(0) for z in data())
    a, b, c, d = 1e-3, 2e-3, 3e-3, 4e-3
    model = vb.ARDRegression(
        fit_intercept=False, relevance_concentration=a, relevance_rate=b, concentration=c, rate=d
    )
    fit = vb.fit(model, (x, y), key=KEY, tol=0.0, max_iter=20_000)
    other = ARDRegression(
        fit_intercept=False, alpha_1=c, alpha_2=d, lambda_1=a, lambda_2=b,
        threshold_lambda=1e30, tol=1e-14, max_iter=20_000,
    ).fit(x, y)  # fmt: skip
    # a bound that no longer changes is flat: its place is known to half of its digits
    np.testing.assert_allclose(fit.params.w.mean, other.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.params.alpha.mean, other.lambda_, rtol=1e-5)
    np.testing.assert_allclose(fit.params.tau.mean, other.alpha_, rtol=1e-6)
    np.testing.assert_allclose(fit.params.w.covariance, other.sigma_, rtol=1e-5, atol=1e-10)


PRIOR = dict(relevance_concentration=2.0, relevance_rate=1.5, concentration=3.0, rate=2.0)
SMALL = np.array([0.5, -1.0, 1.5, 0.3, 2.0, -0.2]), np.array([0.9, -1.2, 1.1, 0.8, 2.5, 0.1])


@functools.cache
def quadrature():
    """Log evidence and moments of one weight, without an intercept, over a grid of log alpha and log tau."""
    x, y = SMALL
    u, du = np.linspace(-8, 5, 401, retstep=True)
    alpha, tau = np.exp(u)[:, None], np.exp(u)[None, :]
    precision = alpha + tau * (x @ x)
    mean = tau * (x @ y) / precision
    log = 0.5 * (
        np.log(alpha / precision) + len(x) * np.log(tau / (2 * np.pi)) - tau * (y @ y) + precision * mean**2
    )
    log = log + stats.gamma.logpdf(alpha, 2.0, scale=1 / 1.5) + stats.gamma.logpdf(tau, 3.0, scale=1 / 2.0)
    log = log + np.log(alpha) + np.log(tau) + 2 * np.log(du)
    p, evidence = special.softmax(log), special.logsumexp(log)
    first = (p * mean).sum()
    return (
        evidence,
        first,
        (p * (1 / precision + mean**2)).sum() - first**2,
        (p * alpha).sum(),
        (p * tau).sum(),
    )


def test_the_bound_lies_below_the_log_evidence(float64):
    x, y = SMALL
    fit = vb.fit(vb.ARDRegression(fit_intercept=False, **PRIOR), (x[:, None], y), key=KEY, tol=0.0)
    evidence, _, variance, *_ = quadrature()
    assert evidence - 0.2 < fit.objective < evidence
    response = vb.linear_response(fit.model, fit.params, (x[:, None], y))
    exact, own = np.sqrt(variance), fit.params.w.sd[0]
    assert abs(response.sd.w.first[0] - exact) < abs(own - exact)


@pytest.mark.parametrize("kind", [vb.BayesianLinearRegression, vb.ARDRegression])
def test_gibbs_draws_have_the_exact_moments(kind, float64):
    x, y = SMALL
    sizes = dict(key=KEY, n_draws=1000, n_warmup=100, n_chains=16)
    if kind is vb.ARDRegression:
        draws = vb.gibbs(kind(fit_intercept=False, **PRIOR), (x[:, None], y), **sizes)
        _, mean, variance, alpha, tau = quadrature()
        agrees(draws.w[..., 0], mean)
        agrees((draws.w[..., 0] - mean) ** 2, variance)
        agrees(draws.alpha[..., 0], alpha)
        agrees(draws.tau, tau)
    else:
        fit = vb.fit(kind(fit_intercept=False, concentration=2.0), (x[:, None], y), key=KEY, tol=0.0)
        draws, exact = vb.gibbs(fit.model, (x[:, None], y), **sizes).w, fit.params.w
        agrees(draws.location, exact.mean.location)
        agrees((draws.location - exact.mean.location) ** 2, exact.variance.location)
        agrees(draws.precision, exact.mean.precision)


def test_the_predictive_density_is_the_textbooks(float64):
    """Bishop (2006), eq. 10.105 and 10.106; its draws have it."""
    fit, (x, y) = fitted(vb.ARDRegression)
    w, row = fit.params.w, np.asarray(fit.model.design(x[:1]))[0]
    exact = stats.norm(
        fit.model.offset + row @ w.mean, np.sqrt(1 / fit.params.tau.mean + row @ w.covariance @ row)
    )
    close(fit.model.log_predictive(fit.params, (x[:1], y[:1])), [exact.logpdf(y[0])])
    draws = fit.model.sample(fit.params, KEY, 5000, given=np.broadcast_to(x[:1], (5000, D)))
    assert stats.kstest(draws, exact.cdf).pvalue > 1e-3


# ---------------------------------------------------------------- all

KINDS = [vb.LinearRegression, vb.BayesianLinearRegression, vb.ARDRegression]
every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
def test_the_derived_e_step_is_the_oracle(kind, dtype):
    rows, weights = data(dtype), jnp.linspace(0, 2, N, dtype=dtype)
    model = kind().resolve(rows)
    params = model.init(KEY, rows)
    prepared = model.prepare(params)
    prepared = prepared | dict(w=prepared.w.about(jnp.asarray([0.5, 1.0, -1.5, 2.0], dtype)))

    @jit
    def both(prepared):
        return model.e_step(prepared, rows, weights), ConjugateModel.e_step(model, prepared, rows, weights)

    own, derived = both(prepared)
    close(naturals(own), naturals(derived), factor=3)
    close((own.bound, own.weight), (derived.bound, derived.weight), scale=float(derived.magnitude))


@every_kind
def test_other_units_and_origins_change_nothing_else(kind, float64):
    (fit, (x, _)), (other, (x2, _)) = fitted(kind), fitted(kind, unit=8.0, offset=16.0)
    np.testing.assert_allclose(
        other.model.predict(other.params, x2), 8 * fit.model.predict(fit.params, x) + 16, rtol=1e-6
    )
    np.testing.assert_allclose(other.objective, fit.objective - N * np.log(8), rtol=1e-6)


@every_kind
def test_float32_keeps_its_digits_at_an_offset(kind):
    with jax.enable_x64(True):
        double, (x, _) = fitted(kind, offset=1e4)
        expected = np.asarray(double.model.predict(double.params, x))
        weights = np.asarray(double.model.coefficients(double.params))
    single, (x, _) = fitted(kind, dtype="float32", offset=1e4)
    assert single.status == vb.Status.CONVERGED
    np.testing.assert_allclose(
        single.model.predict(single.params, x), expected, atol=2e-3
    )  # two of 1e4's units
    np.testing.assert_allclose(single.model.coefficients(single.params), weights, atol=1e-4)
    np.testing.assert_allclose(single.objective, double.objective, rtol=1e-5)


X, Y = np.zeros((4, 2)), np.zeros(4)


@pytest.mark.parametrize(
    ("bad", "match"),
    [(X, "pair"), ((X, Y, Y), "pair"), ((X, Y[:3]), "as many rows"), ((Y, Y), "x must"), ((X, X), "y must")],
)
def test_bad_data_raise(bad, match):
    with pytest.raises(ValueError, match=match):
        vb.fit(vb.BayesianLinearRegression(), bad, key=KEY)


def test_a_model_without_data_and_other_columns_raise():
    model = vb.BayesianLinearRegression()
    with pytest.raises(ValueError, match="has not seen data"):
        _ = model.factors
    with pytest.raises(ValueError, match="2 columns"):
        dataclasses.replace(model, center=jnp.zeros(2)).read((X[:, :1], Y))
