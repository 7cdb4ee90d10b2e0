"""Conjugate factors beside one that is not, from one log joint.

Where the latent is conjugate after all, it is coordinate ascent; elsewhere the bound never falls, and ends
where its gradient vanishes and the other factors have their closed forms. Wrong conjugate factors are still
refused by name.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from jax.scipy.special import gammaln

import vbjax as vb
from tests.support.clouds import key
from tests.support.compilations import compilations
from tests.support.own_models import own_poisson_regression, poisson_rows
from tests.support.tolerances import close
from vbjax import terms
from vbjax.core.rows import expectation
from vbjax.families.coordinates import at_coordinates, coordinates

PRIOR = dict(mu0=0.5, tau0=0.1, a=2.0, b=1.0)


def normal_prior(s):
    return terms.normal(s.mu, s.mu0, s.tau0) + terms.gamma(s.tau, s.a, s.b)


def normal_rows(s, x):
    return terms.normal(x, s.mu, s.tau)


def normal_model(mu, **hyper):
    factors = dict(mu=mu, tau=vb.Gamma())
    return vb.Model(factors=factors, hyper=PRIOR | hyper, log_prior=normal_prior, log_likelihood=normal_rows)


def column(dtype):
    return jnp.asarray(np.random.default_rng(0).normal(3, 2, size=10), dtype)


def never_falls(fit):
    assert fit.status == vb.Status.CONVERGED
    trace = np.asarray(fit.full_trace)[: int(fit.n_iter)]
    assert (np.diff(trace) >= -4 * np.finfo(trace.dtype).eps * abs(trace).max()).all()


@jax.jit
def summary(q):
    moments = dict(mean=q.mean, variance=q.variance, sd=q.sd, covariance=q.covariance)
    return vb.Record(moments, entropy=q.entropy(), draws=q.draws if hasattr(q, "draws") else None)


def test_a_conjugate_latent_is_updated_as_if_it_were(float64):
    x = column(float64)
    own, all_conjugate = (
        vb.fit(normal_model(mu), x, key=key(), tol=1e-14) for mu in (vb.NonConjugate(vb.real()), vb.Normal())
    )
    n = int(own.n_iter)
    assert n == all_conjugate.n_iter
    traces = np.asarray(own.full_trace), np.asarray(all_conjugate.full_trace)
    close(traces[0][1:n], traces[1][1:n], scale=1e2)  # every sweep, from whatever start
    close(own.params.tau, all_conjugate.params.tau, factor=10)
    mu, other = summary(own.params.mu), summary(all_conjugate.params.mu)
    close([mu.mean, mu.variance, mu.entropy], [other.mean, other.variance, other.entropy], factor=10)
    assert own.model.blocks == (("mu",), ("tau",))


def mean_field_prior(s):
    first = terms.normal(s.a, 0.0, 1.0) + terms.normal(s.w.b, 1.0, 2.0) + terms.normal(s.w.c, 0.0, 1.0)
    return first + terms.normal(s.v, 0.0, 1.0).sum()


def mean_field_rows(s, rows):
    return terms.normal(rows[1], s.a + rows[0] @ jnp.stack([s.w.b, s.w.c, *s.v]), 3.0)


def test_quadratic_log_joints_have_the_mean_field_of_their_precision(float64):
    # blocks of the posterior's precision, about its own mean (Bishop 2006, section 10.1.2)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 4)) + 0.5, rng.normal(size=6)
    factors = dict(
        a=vb.NonConjugate(vb.real()),
        w=vb.NonConjugate(dict(b=vb.real(), c=vb.real())),
        v=vb.NonConjugate(vb.real(2), family="mean_field"),
    )
    model = vb.Model(factors=factors, log_prior=mean_field_prior, log_likelihood=mean_field_rows)
    fit = vb.fit(model, (jnp.asarray(x), jnp.asarray(y)), key=key(), tol=1e-15)
    never_falls(fit)
    design, prior = np.column_stack([np.ones(6), x]), np.array([1.0, 2.0, 1.0, 1.0, 1.0])
    precision = np.diag(prior) + 3 * design.T @ design
    mean = np.linalg.solve(precision, 3 * design.T @ y + [0, 2, 0, 0, 0])
    apart = np.array([0, 1, 1, 2, 3])
    own = np.where(apart[:, None] == apart, precision, 0)
    a, w, v = (jax.device_get(summary(fit.params[name])) for name in "awv")
    np.testing.assert_allclose([a.mean, w.mean.b, w.mean.c, *v.mean], mean, atol=1e-6)
    close(w.covariance, np.linalg.inv(own)[1:3, 1:3], factor=100)
    close(v.variance, np.linalg.inv(own).diagonal()[3:], factor=100)
    marginal = np.eye(6) / 3 + design / prior @ design.T
    evidence = scipy.stats.multivariate_normal(design @ [0, 1, 0, 0, 0], marginal).logpdf(y)
    divergence = 0.5 * (np.linalg.slogdet(own)[1] - np.linalg.slogdet(precision)[1])
    close(fit.objective, evidence - divergence, scale=100)


# ---------------------------------------------------------------- counts, their weights shrunk together


poisson_model = functools.cache(own_poisson_regression)


def counts(dtype, size, n=30, seed=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, size))
    y = rng.poisson(np.exp(x @ np.array([1.0, -0.5])[:size]))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype)


def bound_on_paper(location, scale, fit, data):
    """The bound as a function of m and L, Gamma factor and draws as they are in the fit."""
    base, tau = fit.params.w.base, fit.params.tau
    log_tau = jax.scipy.special.digamma(tau.concentration) - jnp.log(tau.rate)
    expected_tau, d = tau.concentration / tau.rate, len(location)

    def of_draw(w):
        prior = 0.5 * d * (log_tau - np.log(2 * np.pi)) - 0.5 * expected_tau * w @ w
        return poisson_rows(vb.Record(w=w), data).sum() + prior

    entropy = jnp.log(jnp.diagonal(scale)).sum() + 0.5 * d * (1 + np.log(2 * np.pi))
    prior_of_tau = -expected_tau  # Gamma(1, 1)
    return jax.vmap(of_draw)(location + base @ scale.T).mean() + entropy + prior_of_tau


def test_the_fixed_point_is_that_of_both_updates(float64):
    data = counts(float64, 2)
    fit = vb.fit(poisson_model(2), data, key=key(), tol=1e-13)
    q, tau = jax.device_get((fit.params.w, fit.params.tau))
    w = jax.device_get(summary(fit.params.w))
    never_falls(fit)
    close(tau.concentration, np.float64(1 + 2 / 2))
    np.testing.assert_allclose(tau.rate, 1 + 0.5 * (w.draws**2).sum(1).mean(), rtol=1e-6)
    close(w.mean, q.location, factor=10)
    close(w.covariance, q.scale @ q.scale.T, factor=10)
    score = jax.jit(jax.value_and_grad(lambda q: bound_on_paper(*q, fit, data)))
    bound, gradient = jax.device_get(score((q.location, q.scale)))
    entropy_of_tau = scipy.stats.gamma(tau.concentration, scale=1 / tau.rate).entropy()
    close(fit.objective, bound + entropy_of_tau, scale=100)
    assert abs(gradient[0]).max() < 1e-4
    assert abs(np.tril(gradient[1])).max() < 1e-4
    # the same density over (w, log tau): another family for tau, the same answer for w
    joint = lambda s, d: (
        terms.normal(s.w, 0.0, s.tau).sum() + terms.gamma(s.tau, 1.0, 1.0) + poisson_rows(s, d).sum()
    )
    black_box = vb.fit(vb.BlackBox(joint, dict(w=vb.real(2), tau=vb.positive())), data, key=key())
    mean, sd = jax.device_get(jax.jit(lambda q: (q.mean, q.sd))(black_box.params))
    assert (abs(mean.w - w.mean) < 0.05 * w.sd).all()
    np.testing.assert_allclose(sd.w, w.sd, rtol=0.05)
    np.testing.assert_allclose(mean.tau, tau.concentration / tau.rate, rtol=0.05)
    # and by mixed sweeps in float32
    single = vb.fit(poisson_model(2), counts("float32", 2), key=key(), accelerate=True)
    assert single.params.w.scale.dtype == np.float32
    assert single.status == vb.Status.CONVERGED
    np.testing.assert_allclose(single.params.w.location, w.mean, atol=1e-2 * w.sd.min())
    np.testing.assert_allclose(single.params.tau.rate, tau.rate, rtol=1e-3)
    np.testing.assert_allclose(single.objective, fit.objective, atol=1e-3)


def test_the_bound_is_below_the_evidence(float64):
    # over tau w is Student-t with 2 a degrees of freedom: the rest is an integral in one dimension
    x, y = counts(float64, 1, n=5)
    fit = vb.fit(poisson_model(1, n_draws=2048), (x, y), key=key())
    x, y = np.asarray(x)[:, 0], np.asarray(y)
    rate = lambda w: np.exp(x * w)
    density = lambda w: np.exp(scipy.stats.poisson(rate(w)).logpmf(y).sum() + scipy.stats.t(2).logpdf(w))
    evidence = np.log(scipy.integrate.quad(density, -10, 10, epsabs=0, points=[0, 1])[0])
    assert fit.objective < evidence < fit.objective + 0.3
    never_falls(fit)


# ---------------------------------------------------------------- steps that must be shortened; batches


def student_rows(s, x):
    return -2 * jnp.log1p(4 * (x - s.mu) ** 2)


def student_prior(s):
    return -0.5 * (s.mu / 10) ** 2 + terms.gamma(s.tau, 2.0, 1.0) + terms.normal(0.3, 0.0, s.tau)


STUDENT = vb.Model(
    factors=dict(mu=vb.NonConjugate(vb.real()), tau=vb.Gamma()),
    log_prior=student_prior,
    log_likelihood=student_rows,
)


@jax.jit
def from_afar(x):
    """A fit that starts where the log joint is convex, and the objective of a full step from there."""
    start = STUDENT.init(key(), x)
    start = start | dict(mu=dataclasses.replace(start.mu, location=jnp.asarray([30.0], x.dtype)))
    fit = vb.fit(STUDENT, x, key=key(), params=start)
    full = fit.model.partial_step(start, expectation(fit.model, start, x).statistics, ("mu",), 1.0)
    return fit, fit.model.objective(full, expectation(fit.model, full, x))


def test_steps_that_leave_the_family_are_shortened_in_batches_too(float64):
    tables = jnp.asarray([[5.0, 5.5, 6.0, -2.0], [0.0, 1.0, 9.0, 9.5]])
    each = [from_afar(x) for x in tables]
    for fit, full in each:
        assert np.isnan(full)
        never_falls(jax.tree.map(np.asarray, fit))
        assert 6 < fit.n_iter < 100
    batch, _ = jax.jit(jax.vmap(from_afar))(tables)
    close(batch.objective, np.stack([fit.objective for fit, _ in each]), factor=100)


def test_a_gradient_that_points_down_is_no_convergence(float64):
    rows = lambda s, x: terms.normal(x, s.w - 2 * jax.lax.stop_gradient(s.w), 1.0)
    fit = vb.fit(
        vb.Model(factors=dict(w=vb.NonConjugate(vb.real())), log_likelihood=rows), column(float64), key=key()
    )
    assert fit.status == vb.Status.DECREASED


# ---------------------------------------------------------------- rows: local factors, weights, chunks


def rates_prior(s):
    return terms.normal(s.w, 1.0, 1.0).sum() + terms.dirichlet(s.weights, 1.0)


def rates_rows(s, x):
    log_rates = jnp.log(s.w)
    table = x[:, None] * log_rates - s.w - gammaln(x + 1)[:, None]
    return terms.categorical(s.c, s.weights) + (s.c.p * table).sum(-1)


def test_rows_have_their_conjugate_labels_their_weights_and_any_chunks(float64, monkeypatch):
    arguments = dict(log_prior=rates_prior, log_likelihood=rates_rows, local=dict(c=vb.Categorical(2)))
    arguments["factors"] = dict(w=vb.NonConjugate(vb.positive(2)), weights=vb.Dirichlet(2))
    x = jnp.asarray([0.0, 1.0, 0.0, 7.0, 9.0, 1e99, 8.0])
    weights = jnp.asarray([1.0, 2.0, 1.0, 3.0, 1.0, 0.0, 1.0])
    whole = vb.fit(vb.Model(**arguments), x[jnp.asarray([0, 1, 1, 2, 3, 3, 3, 4, 6])], key=key())
    never_falls(whole)
    w = jax.device_get(summary(whole.params.w))
    responsibilities = jax.jit(whole.model.posterior)(whole.params, jnp.asarray([0.0, 9.0])).c.mean
    concentration = np.asarray(whole.params.weights.concentration)
    share = scipy.special.digamma(concentration) - scipy.special.digamma(concentration.sum())
    scores = share + np.outer([0.0, 9.0], np.log(w.draws).mean(0)) - w.mean  # the rates' means over draws
    close(responsibilities, scipy.special.softmax(scores, 1), factor=10)
    close(concentration.sum(), 2 + 9)
    q = jax.device_get(whole.params.w)  # log-normal: its entropy has the mean of the logarithm in it
    close(w.entropy, q.location.sum() + np.log(np.diag(q.scale)).sum() + 1 + np.log(2 * np.pi), scale=10)
    monkeypatch.setattr(vb.Model, "chunk_rows", lambda self, data: 2)
    close(jax.jit(vb.elbo)(whole.model, whole.params, x, weights), whole.objective, scale=100)


# ---------------------------------------------------------------- what else is made of the same log joint


def test_programs_draws_minibatches_and_derivatives(float64):
    data = counts(float64, 2)
    fit = vb.fit(poisson_model(2), data, key=key())
    with compilations() as seen:  # none for other numbers, nor for a model that is written anew
        vb.fit(poisson_model.__wrapped__(2), counts(float64, 2, seed=3), key=key())
    assert seen == []
    draws = np.asarray(vb.sample_posterior(fit.params, key(), 2000).w)
    assert draws.shape == (2000, 2)
    w, moments = fit.params.w, jax.device_get(summary(fit.params.w))
    assert (abs(draws.mean(0) - moments.mean) < 4 * moments.sd / np.sqrt(2000)).all()
    other = dataclasses.replace(
        w, location=w.location + 0.3, scale=w.scale @ jnp.asarray([[2, 0], [0.5, 1.0]])
    )
    there = jax.jit(lambda q, origin: at_coordinates(coordinates(q, origin), origin))(other, w)
    close([there.location, there.scale], [other.location, other.scale], factor=10)
    stay = dict(key=key(), params=fit.params, batch_size=30, n_epochs=1, forgetting=0)
    again = vb.fit_stochastic(poisson_model(2), data, **stay)  # a full step on all rows
    np.testing.assert_allclose(again.params.w.scale, w.scale, rtol=1e-3)
    np.testing.assert_allclose(again.params.tau.rate, fit.params.tau.rate, rtol=1e-3)
    with pytest.raises(ValueError, match=r"conditional distribution is not known .* the factor 'w'"):
        vb.gibbs(poisson_model(2), data, key=key())
    for derivative in (vb.optimum, vb.linear_response):
        with pytest.raises(ValueError, match=r"how it responds is not known .* the factor 'w'"):
            derivative(fit.model, fit.params, data)


# ---------------------------------------------------------------- what is refused


def squared(s, x):
    return terms.normal(x, s.w, s.tau) - s.tau.value**2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: (dict(w=vb.NonConjugate(vb.real()), tau=vb.Gamma()), squared), "of the factor 'tau'"),
        (lambda: (dict(w=vb.Normal(), tau=vb.Gamma()), lambda s, x: s.w.first**2 + x), "of the factor 'w'"),
        (
            lambda: (dict(w=vb.NonConjugate(vb.real())), lambda s, x: s.w.first * x),
            "log_likelihood cannot be evaluated over the factors w: NonConjugate",
        ),
        (lambda: (dict(w=vb.Delta(vb.NonConjugate(vb.real()))), squared), "Delta takes conjugate .* got w="),
        (lambda: (dict(w=vb.NonConjugate(3.0)), squared), "support must hold supports alone .*got 3.0"),
        (lambda: (dict(w=vb.NonConjugate(vb.real(0))), squared), "support must have a latent of some size"),
        (lambda: (dict(w=vb.NonConjugate(vb.real(), "full")), squared), "family must be one of .* 'full'"),
        (
            lambda: (
                dict(v=vb.NonConjugate(vb.real(4)), w=vb.NonConjugate(vb.real(5), n_draws=16)),
                lambda s, x: x * (s.w.sum() + s.v.sum()),
            ),
            "n_draws of 'w' must be even and at least 20 for 9 numbers; got 16",
        ),
    ],
)
def test_what_is_wrong_is_named(make, message):
    def fit():
        factors, rows = make()
        vb.fit(vb.Model(factors=factors, log_likelihood=rows), column("float32"), key=key())

    with pytest.raises(ValueError, match=message):
        fit()


def test_local_factors_are_conjugate():
    with pytest.raises(ValueError, match=r"local takes conjugate factors alone, .* got z=NonConjugate"):
        vb.Model(factors=dict(mu=vb.Normal()), local=dict(z=vb.NonConjugate(vb.real())))
