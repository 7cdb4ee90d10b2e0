"""Laws of logistic and probit regression.

Logistic: the textbook's updates and bound (Jaakkola & Jordan); with points for weights it is scikit-learn's
penalised maximum likelihood. Probit: the mean is the mode of the exact posterior. Both, by quadrature over
two weights: the bound lies below the log evidence, Gibbs draws have the exact moments, and linear response
comes nearer the exact deviations than q. Where the rows say nothing the bound is exact. The hand-written
E-step is the derived one, a model of one's own with the same latents has the same fit, the probabilities are
the link integrated over q. Separable classes and columns at an offset of 1e4 are no trouble in float32; rows
of weight 0 leave finite gradients; labels that are not 0 or 1 raise.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn.linear_model import LogisticRegression

import vbjax as vb
from tests.inference.test_gibbs import agrees
from tests.models.regression.test_regressions import naturals
from tests.support.family_table import jit
from tests.support.registry import sweeps
from tests.support.tolerances import close
from vbjax import terms
from vbjax.core.model import ConjugateModel

KEY = jax.random.key(0)
N = 30
PRECISION = 0.5
PRIOR = dict(precision=PRECISION, intercept_precision=PRECISION)
LINKS = {vb.BayesianLogisticRegression: special.log_expit, vb.BayesianProbitRegression: special.log_ndtr}

both = pytest.mark.parametrize("kind", LINKS)


def data(dtype="float64", offset=0.0):
    """In float32's digits, so that both dtypes have the same numbers."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(N, 1)) + offset).astype("float32")
    y = 1.5 * (x[:, 0] - offset) + 0.5 + rng.logistic(size=N) > 0
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


@functools.cache
def fitted(kind, dtype="float64", offset=0.0):
    """A fit to the last digit, and its data."""
    rows = data(dtype, offset)
    return vb.fit(kind(**PRIOR), rows, key=KEY, tol=0.0), rows


def signed_design(fit, rows):
    """(2 y - 1) times the rows of the design: all that the likelihood depends on."""
    return (2 * np.asarray(rows[1]) - 1)[:, None] * np.asarray(fit.model.design(rows[0]))


# ---------------------------------------------------------------- one by one


def test_logistic_makes_the_textbooks_updates(float64):
    """Bishop (2006), eq. 10.156 to 10.164 (the last with the sign of m' S^-1 m put right)."""
    fit, rows = fitted(vb.BayesianLogisticRegression)
    design, y = np.asarray(fit.model.design(rows[0])), np.asarray(rows[1])
    xi = np.ones(N)
    for _ in range(500):
        lam = (special.expit(xi) - 0.5) / (2 * xi)
        covariance = np.linalg.inv(PRECISION * np.eye(2) + 2 * design.T @ (lam[:, None] * design))
        mean = covariance @ design.T @ (y - 0.5)
        xi = np.sqrt(np.einsum("ni,ij,nj->n", design, covariance + np.outer(mean, mean), design))
    lam = (special.expit(xi) - 0.5) / (2 * xi)
    bound = 0.5 * (np.linalg.slogdet(covariance * PRECISION)[1] + mean @ np.linalg.solve(covariance, mean))
    bound += (special.log_expit(xi) - xi / 2 + lam * xi**2).sum()
    # a bound that no longer changes is flat: its place is known to half of its digits
    np.testing.assert_allclose(fit.params.w.mean, mean, rtol=1e-7)
    np.testing.assert_allclose(fit.params.w.covariance, covariance, rtol=1e-7)
    close(fit.objective, bound, factor=3)
    omega = fit.model.posterior(fit.params, rows).omega
    np.testing.assert_allclose(omega.mean, 2 * lam, rtol=1e-7)


def test_points_of_a_logistic_are_penalised_maximum_likelihood(float64):
    x, y = data()
    model = vb.Model(
        factors=dict(w=vb.Delta(vb.MultivariateNormal(1))),
        local=dict(omega=vb.PolyaGamma()),
        log_prior=lambda s: terms.normal(s.w, 0.0, PRECISION).sum(),
        log_likelihood=lambda s, rows: terms.logistic(rows[1], terms.linear(rows[0], s.w), s.omega),
    )
    fit = vb.fit(model, (x, y), key=KEY, tol=0.0)
    other = LogisticRegression(C=1 / PRECISION, fit_intercept=False, tol=1e-12).fit(x, y)
    np.testing.assert_allclose(fit.params.w.mean, other.coef_[0], rtol=1e-6)
    prior = stats.norm.logpdf(fit.params.w.mean[0], 0, PRECISION**-0.5)
    close(fit.objective, prior + special.log_expit((2 * y - 1) * (x @ fit.params.w.mean)).sum())


def test_the_mean_of_a_probit_is_the_mode_of_its_posterior(float64):
    fit, rows = fitted(vb.BayesianProbitRegression)
    design, mean = signed_design(fit, rows), np.asarray(fit.params.w.mean)
    m = design @ mean
    slope = design.T @ np.exp(stats.norm.logpdf(m) - special.log_ndtr(m)) - PRECISION * mean
    np.testing.assert_allclose(slope, 0, atol=1e-6)
    design = np.asarray(fit.model.design(rows[0]))
    close(fit.params.w.precision, PRECISION * np.eye(2) + design.T @ design)


def own_probit():
    return vb.Model(
        factors=dict(w=vb.MultivariateNormal(2)),
        local=dict(u=vb.TruncatedNormal()),
        log_prior=lambda s: terms.normal(s.w, 0.0, PRECISION).sum(),
        log_likelihood=lambda s, x: terms.normal(s.u, terms.linear(x, s.w), 1.0),
    )


def test_a_probit_of_ones_own_has_the_same_fit(float64):
    fit, rows = fitted(vb.BayesianProbitRegression)
    own = vb.fit(own_probit(), jnp.asarray(signed_design(fit, rows)), key=KEY, tol=0.0)
    np.testing.assert_allclose(own.params.w.mean, fit.params.w.mean, rtol=1e-6)
    close(own.objective, fit.objective, factor=3)


# ---------------------------------------------------------------- both


@pytest.mark.parametrize(
    ("kind", "ard"), [(vb.BayesianLogisticRegression, True), (vb.BayesianProbitRegression, False)]
)
def test_the_derived_e_step_is_the_oracle(kind, ard, dtype):
    rows, weights = data(dtype), jnp.linspace(0, 2, N, dtype=dtype)
    model = kind(ard=ard).resolve(rows)
    params = model.init(KEY, rows)
    params = params | dict(w=dataclasses.replace(params.w, mean=jnp.asarray([0.5, -1.5], dtype)))

    @jit
    def steps(params):
        prepared = model.prepare(params)
        return model.e_step(prepared, rows, weights), ConjugateModel.e_step(model, prepared, rows, weights)

    own, derived = steps(params)
    close(naturals(own), naturals(derived), factor=3, scale=10)
    close(own[1:], derived[1:], factor=3, scale=10)


@functools.cache
def quadrature(kind):
    """Log evidence, means and deviations of both weights, over a grid about the mean of q."""
    fit, rows = fitted(kind)
    grid, step = np.linspace(-10, 10, 401, retstep=True)
    w = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    log = LINKS[kind](w @ signed_design(fit, rows).T).sum(-1)
    log += stats.norm.logpdf(w, 0, PRECISION**-0.5).sum(-1) + 2 * np.log(step)
    p = special.softmax(log)
    mean = p @ w
    return special.logsumexp(log), mean, np.sqrt(p @ (w - mean) ** 2)


@both
def test_the_bound_lies_below_the_log_evidence(kind, float64):
    (fit, rows), (evidence, _, exact) = fitted(kind), quadrature(kind)
    assert evidence - 1 < fit.objective < evidence
    response = vb.linear_response(fit.model, fit.params, rows)
    assert not response.singular
    assert (np.abs(response.sd.w.first - exact) < np.abs(fit.params.w.sd - exact)).all()
    assert (fit.params.w.sd < exact).all()


@both
def test_gibbs_draws_have_the_exact_moments(kind, float64):
    (fit, rows), (_, mean, sd) = fitted(kind), quadrature(kind)
    draws = vb.gibbs(fit.model, rows, key=KEY, n_draws=1000, n_warmup=100, n_chains=16)
    agrees(draws.w, mean)
    agrees((draws.w - mean) ** 2, sd**2)


@both
def test_rows_that_say_nothing_leave_the_prior_and_an_exact_bound(kind, float64):
    model = kind(fit_intercept=False, precision=PRECISION)
    x = jnp.zeros((N, 1))
    fit = vb.fit(model, (x, data()[1]), key=KEY)
    close(fit.objective, -N * np.log(2))
    close(fit.params.w.precision, [[PRECISION]])
    assert fit.params.w.mean[0] == 0


@both
def test_probabilities_are_the_link_integrated_over_q(kind, float64):
    fit, (x, y) = fitted(kind)
    psi, w = np.asarray(fit.model.psi(fit.params, x)), fit.params.w
    design = np.asarray(fit.model.design(x))
    sd = np.sqrt(np.einsum("ni,ij,nj->n", design, w.covariance, design))

    def mass(m, s):
        # between bounds, so that nothing is lost between the nodes
        return integrate.quad(
            lambda z: np.exp(LINKS[kind](z)) * stats.norm.pdf(z, m, s), m - 10 * s, m + 10 * s, epsabs=1e-13
        )[0]

    exact = np.array([mass(m, s) for m, s in zip(psi[:5], sd[:5], strict=True)])
    found = np.asarray(fit.model.probabilities(fit.params, x[:5]))
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    log = np.where(y[:5] == 1, np.log(exact), np.log1p(-exact))
    np.testing.assert_allclose(fit.model.log_predictive(fit.params, (x[:5], y[:5])), log, rtol=1e-8)
    assert (np.asarray(fit.model.predict(fit.params, x)) == (psi > 0)).all()
    draws = np.asarray(fit.model.sample(fit.params, KEY, 5000, given=jnp.broadcast_to(x[:1], (5000, 1))))
    assert abs(draws.mean() - exact[0]) < 4 * np.sqrt(exact[0] * (1 - exact[0]) / 5000)


# ---------------------------------------------------------------- float32 and input


@both
def test_float32_keeps_its_digits_at_an_offset(kind):
    def run(dtype):
        rows = data(dtype, 1e4)
        model = kind(**PRIOR).resolve(rows)
        params, objective, _ = sweeps(model, model.init(KEY, rows), rows, n_sweeps=50)
        return jax.device_get((model.coefficients(params), params.w.sd, objective[-1]))

    with jax.enable_x64(True):
        expected = run("float64")
    for found, exact in zip(run("float32"), expected, strict=True):
        close(found, exact)


@both
def test_separable_classes_stay_finite_in_float32(kind):
    x = jnp.linspace(-1, 1, N)[:, None]
    flat = kind(precision=1e-6, intercept_precision=1e-6)
    fit = vb.fit(flat, (x, x[:, 0] > 0), key=KEY, max_iter=300)
    assert fit.status in (vb.Status.CONVERGED, vb.Status.MAX_ITER)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((fit.params, fit.objective)))
    assert (np.asarray(fit.model.predict(fit.params, x)) == np.asarray(x[:, 0] > 0)).all()
    assert np.isfinite(fit.model.log_predictive(fit.params, (x, x[:, 0] < 0))).all()  # far in the tail


@both
def test_rows_of_weight_zero_leave_finite_gradients(kind, float64):
    (x, y), weights = data(), jnp.asarray(np.arange(N) % 2.0)
    model = kind(fit_intercept=False).resolve((x, y))
    bad = jnp.where(weights[:, None] == 0, jnp.nan, x)
    params = model.init(KEY, (x, y))

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2))
    def gradient(model, params, x):
        return model.objective(params, vb.core.expectation(model, params, (x, y), weights))

    close(gradient(model, params, bad), gradient(model, params, x))


def test_bad_labels_and_priors_of_other_columns_raise():
    x = np.zeros((3, 1))
    with pytest.raises(ValueError, match="y must be 0 or 1"):
        vb.fit(vb.BayesianLogisticRegression(), (x, np.array([0, 1, 2])), key=KEY)
    with pytest.raises(ValueError, match="x must have 2 columns, as the model's precision has"):
        vb.fit(vb.BayesianLogisticRegression(precision=np.ones(2)), (x, np.zeros(3)), key=KEY)
