"""Laws of the models of groups and of rows with a scale each.

The eight schools: Gibbs has the moments of the exact posterior by quadrature over the precision, the bound is
below the exact evidence and attains it where the precision is known, and every school is pooled by its own
precision. Random effects in ragged groups have the exact posterior means, and linear response the exact
deviations; many groups give the maximum of the exact marginal likelihood. Heavy rows give Student's maximum
likelihood. Bad input raises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

import vbjax as vb
from tests.inference.test_gibbs import agrees
from tests.support.tolerances import close
from vbjax.terms import normal

KEY = jax.random.key(0)


def fitted(model, data, **how):
    return vb.fit(model, data, key=KEY, tol=0.0, **dict(dict(max_iter=5000), **how))


# ---------------------------------------------------------------- eight schools

# Rubin (1981), table 1: effects of coaching and their standard errors
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
PRIOR = dict(location=5.0, location_precision=0.02, concentration=3.0, rate=100.0)


def schools():
    return jnp.asarray(EFFECT), jnp.asarray(ERROR)


def given(tau):
    """log p(y | tau), and mean and variance of mu given y and tau."""
    variance = ERROR**2 + 1 / tau
    precision = PRIOR["location_precision"] + (1 / variance).sum()
    mean = (PRIOR["location_precision"] * PRIOR["location"] + (EFFECT / variance).sum()) / precision
    covariance = np.diag(variance) + 1 / PRIOR["location_precision"]
    log = stats.multivariate_normal.logpdf(EFFECT, np.full(8, PRIOR["location"]), covariance)
    return log, mean, 1 / precision


def exact():
    """log p(y), and E[mu], E[mu^2], E[tau], E[tau^2] given y, by quadrature over tau."""
    prior = stats.gamma(PRIOR["concentration"], scale=1 / PRIOR["rate"])

    def integrand(tau):
        log, mean, variance = given(tau)
        return prior.pdf(tau) * np.exp(log + 30) * np.array([1, mean, variance + mean**2, tau, tau**2])

    total = integrate.quad_vec(integrand, 1e-8, prior.isf(1e-14), epsabs=0, epsrel=1e-9)[0]
    return np.log(total[0]) - 30, total[1:] / total[0]


def test_gibbs_has_the_moments_of_quadrature():
    draws = vb.gibbs(
        vb.textbook.HierarchicalNormal(**PRIOR), schools(), key=KEY, n_draws=2000, n_warmup=100, n_chains=16
    )
    mean, square, tau, tau_square = exact()[1]
    agrees(draws.mu, mean)
    agrees(draws.mu**2, square)
    agrees(draws.tau, tau)
    agrees(draws.tau**2, tau_square)


def test_the_bound_is_below_the_evidence_and_attains_it_where_the_precision_is_known(float64):
    fit = fitted(vb.textbook.HierarchicalNormal(**PRIOR), schools())
    assert fit.objective < exact()[0]
    known = dict(location=5.0, location_precision=1e9, concentration=1e9, rate=1e11)  # mu = 5, tau = 0.01
    fit = fitted(vb.textbook.HierarchicalNormal(**known), schools())
    log = stats.norm.logpdf(EFFECT, 5, np.sqrt(ERROR**2 + 100)).sum()
    np.testing.assert_allclose(fit.objective, log, rtol=1e-7)
    pooled = fit.model.effects(fit.params, schools())
    close(pooled.precision, 1 / ERROR**2 + 0.01, factor=1e5)  # as far as these are infinite
    np.testing.assert_allclose(pooled.mean, (EFFECT / ERROR**2 + 0.05) / (1 / ERROR**2 + 0.01), rtol=1e-7)


@pytest.mark.parametrize("offset", [1e5, 1e6])
def test_groups_far_from_the_origin_have_the_bound_of_groups_at_it(offset, float64):
    """Their effects are locals: the bound of each is built from differences to its own mean."""
    effect, error = schools()
    model = vb.textbook.HierarchicalNormal()
    near, far = (fitted(model, (effect + c, error), max_iter=500) for c in (0.0, offset))
    assert far.status == vb.Status.CONVERGED
    close(far.objective, near.objective, factor=offset)  # a place 1e5 sds away has fewer digits
    close(far.params.tau.mean, near.params.tau.mean, factor=100 * offset)


# ---------------------------------------------------------------- random effects

SIZES = [1, 2, 5, 12]


def groups():
    rng = np.random.default_rng(5)
    group = np.repeat(np.arange(4), SIZES)
    y = 2 * rng.normal(size=4)[group] + 3 + rng.normal(size=20)
    return jnp.asarray(y), jnp.asarray(group)


def own():
    """Random effects about 0, their precisions known, as a log joint of one's own."""
    return vb.Model(
        factors=dict(mu=vb.Normal(), effect=vb.Normal((4,))),
        log_prior=lambda s: normal(s.mu, 0.0, 0.1) + normal(s.effect, 0.0, 2.0).sum(),
        log_likelihood=lambda s, rows: normal(rows[0], s.mu + s.effect[rows[1]], 1.5),
    )


def test_ragged_groups_have_the_exact_means_and_by_linear_response_the_exact_deviations(float64):
    y, group = groups()
    design = np.column_stack([np.ones(20), np.eye(4)[group]])
    precision = np.diag([0.1, 2, 2, 2, 2]) + 1.5 * design.T @ design
    covariance = np.linalg.inv(precision)
    mean = covariance @ (1.5 * design.T @ y)  # a factorised Gaussian's means are exact
    fit = fitted(own(), (y, group))
    found = np.append(fit.params.mu.mean, fit.params.effect.mean)
    np.testing.assert_allclose(found, mean, rtol=1e-6, atol=1e-8)
    response = vb.linear_response(fit.model, fit.params, (y, group))
    found = np.append(response.sd.mu.first, response.sd.effect.first)
    np.testing.assert_allclose(found, np.sqrt(np.diag(covariance)), rtol=1e-6)

    known = dict(
        location=0.0,
        location_precision=0.1,
        between_concentration=2e7,
        between_rate=1e7,
        concentration=1.5e7,
        rate=1e7,
    )  # to one part in 10^7
    fit = fitted(vb.textbook.RandomEffects(4, **known), (y, group))
    np.testing.assert_allclose(fit.params.mu.mean, mean[0], rtol=1e-5)
    np.testing.assert_allclose(fit.model.effects(fit.params).mean, mean[1:], rtol=1e-5)
    response = vb.linear_response(fit.model, fit.params, (y, group))
    to_theta = np.eye(5) + np.outer([0, 1, 1, 1, 1], [1, 0, 0, 0, 0])
    deviations = np.sqrt(np.diag(to_theta @ covariance @ to_theta.T))
    found = np.append(response.sd.mu.first, response.sd.theta.first)
    np.testing.assert_allclose(found, deviations, rtol=1e-5)


def test_many_groups_give_maximum_likelihood(float64):
    """The same four groups a thousand times: only the thetas keep a width, and theirs is exact."""
    y, group = (np.asarray(x) for x in groups())
    copies = 1000
    many = np.tile(y, copies), np.concatenate([group + 4 * i for i in range(copies)])
    fit = fitted(vb.textbook.RandomEffects(4 * copies), tuple(map(jnp.asarray, many)))

    def loss(x):
        mu, between, noise = x[0], np.exp(x[1]), np.exp(x[2])
        same = group[:, None] == group
        return -stats.multivariate_normal.logpdf(y, np.full(20, mu), same / between + np.eye(20) / noise)

    best = optimize.minimize(
        loss, [3.0, 0.0, 0.0], method="Nelder-Mead", options=dict(xatol=1e-6, fatol=1e-9)
    )
    found = [fit.params.mu.mean, np.log(fit.params.between.mean), np.log(fit.params.noise.mean)]
    np.testing.assert_allclose(found, best.x, atol=2e-3)  # the prior's share of 4000 groups


# ---------------------------------------------------------------- Student's t


def test_heavy_rows_give_students_maximum_likelihood(float64):
    """Every row 10^6 times: the priors are forgotten, and only the rows' scales keep a width."""
    df, weight = 4.0, 1e6
    x = jnp.asarray(stats.t.rvs(df, 1.0, 2.0, size=30, random_state=0))
    fit = fitted(vb.textbook.RobustNormal(df), x, weights=jnp.full(30, weight))
    mu, tau = float(fit.params.mu.mean), float(fit.params.tau.mean)
    density = stats.t.logpdf(x, df, mu, tau**-0.5)
    np.testing.assert_allclose(fit.objective / weight, density.sum(), rtol=1e-5)
    fixed, location, width = stats.t.fit(np.asarray(x), fdf=df)
    np.testing.assert_allclose([mu, tau**-0.5], [location, width], rtol=1e-4)
    assert fixed == df
    expected = (df + 1) / (df + tau * (x - mu) ** 2)
    np.testing.assert_allclose(fit.model.weights(fit.params, x), expected, rtol=1e-5)


# ---------------------------------------------------------------- input

BAD = {
    "degrees_of_freedom must be positive": (vb.textbook.RobustNormal(0.0), EFFECT),
    "data must be a pair .y, sigma": (vb.textbook.HierarchicalNormal(), EFFECT),
    "sigma must be positive": (vb.textbook.HierarchicalNormal(), (EFFECT, 0 * ERROR)),
    "one shape": (vb.textbook.HierarchicalNormal(), (EFFECT, ERROR[:3])),
    "data must be a pair .y, group": (vb.textbook.RandomEffects(2), EFFECT),
    "whole numbers": (vb.textbook.RandomEffects(2), (EFFECT, ERROR)),
    "between 0 and n_groups - 1 = 1": (vb.textbook.RandomEffects(2), (EFFECT, np.arange(8))),
    "n_groups must be": (vb.textbook.RandomEffects(0), (EFFECT, np.arange(8))),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_raises(message):
    model, data = BAD[message]
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=KEY)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (None, "group must be numbers"),
        (["a", "b"], "group must be numbers; .* code categories"),
        (np.array([0, 2**40]), "group must be"),  # 32 bits wrap it around to 0
        (np.ma.masked_array([0, 1], [True, False]), "group must have no masked entry"),
        (object(), "group must be numbers"),
    ],
)
def test_groups_are_read(group, message):
    with pytest.raises(ValueError, match=message):
        vb.textbook.RandomEffects(2).read((np.ones(2, "f"), group))


@pytest.mark.parametrize("params", [None, "a", 3, vb.Record(mu=1.0)])
def test_effects_are_of_parameters(params):
    with pytest.raises(ValueError, match=r"params must be those of a fit of (this )?RandomEffects"):
        vb.textbook.RandomEffects(2).effects(params)
