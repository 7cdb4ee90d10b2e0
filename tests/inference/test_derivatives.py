"""Laws of the derivatives of a fit.

The gradient at fixed parameters is that of the optimised objective, and the derivative of the fixed point is
that of the fit, both against differences of refits. Linear response gives a factorised Gaussian target its
exact covariance, leaves an exact posterior its own, is symmetric, and flags a ridge.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.own_models import level_by_hand, own_level
from tests.support.registry import MODELS, mean_and_precision
from tests.support.tolerances import close
from vbjax.terms import normal

STEP = 1e-4  # of central differences in float64: errors of about STEP^2 and eps / STEP
REFITTED = dict(rtol=1e-6, atol=1e-8)


def design(dtype):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2))
    return jnp.asarray(x, dtype), jnp.asarray(x @ [1.0, -2.0] + rng.normal(size=30), dtype)


def plane(s, rows):
    """y ~ N(x a + z b, 1) for separate a and b, about their pivots."""
    x, y = rows
    a, b = x[:, 0] * s.a.first, x[:, 1] * s.b.first
    rest = y - x[:, 0] * s.a.pivot - x[:, 1] * s.b.pivot
    square = rest**2 - 2 * rest * (a + b) + 2 * a * b + x[:, 0] ** 2 * s.a.second + x[:, 1] ** 2 * s.b.second
    return -0.5 * (square + jnp.log(2 * jnp.pi))


def slopes_prior(s):
    return normal(s.a, s.mean, s.strength) + normal(s.b, 0.0, s.strength)


def slopes(log_prior=slopes_prior):
    """A regression with two slopes that q keeps apart, though the posterior is one Gaussian."""
    return vb.Model(
        factors=dict(a=vb.Normal(), b=vb.Normal()),
        hyper=dict(mean=0.5, strength=2.0),
        log_prior=log_prior,
        log_likelihood=plane,
    )


slope = jax.jit(jax.grad(vb.elbo))


def fitted(model, data):
    return vb.fit(model, data, key=jax.random.key(0), tol=0.0)


# ---------------------------------------------------------------- in hyperparameters and data


def test_the_gradient_at_the_fit_is_that_of_the_optimised_objective(float64):
    data = design("float64")
    fit = fitted(slopes(), data)
    gradient = slope(fit.model, fit.params, data).hyper
    for name, value in slopes().hyper.items():
        high, low = (fitted(slopes().replace(**{name: value + h}), data) for h in (STEP, -STEP))
        difference = (high.objective - low.objective) / (2 * STEP)
        np.testing.assert_allclose(gradient[name], difference, **REFITTED)


def test_the_derivative_of_the_fixed_point_is_that_of_the_fit(float64):
    x, y = design("float64")
    fit = fitted(slopes(), (x, y))

    def at(model, y):
        params = vb.optimum(model, fit.params, (x, y))
        return jnp.stack([params.a.mean, params.b.mean, params.a.precision])

    np.testing.assert_array_equal(
        at(fit.model, y), [fit.params.a.mean, fit.params.b.mean, fit.params.a.precision]
    )
    derivative, in_data = jax.jit(jax.jacobian(at, argnums=(0, 1)))(fit.model, y)
    for name, value in slopes().hyper.items():
        high, low = (fitted(slopes().replace(**{name: value + h}), (x, y)).params for h in (STEP, -STEP))
        moved = [high.a.mean - low.a.mean, high.b.mean - low.b.mean, high.a.precision - low.a.precision]
        np.testing.assert_allclose(derivative.hyper[name], np.stack(moved) / (2 * STEP), **REFITTED)
    exact = np.linalg.solve(x.T @ x + 2 * np.eye(2), x.T)  # the mean is linear in y
    close(in_data[:2], exact, factor=10)


# ---------------------------------------------------------------- linear response


def test_a_factorised_gaussian_gets_its_exact_covariance(dtype):
    x, y = design(dtype)
    fit = fitted(slopes(), (x, y))
    response = vb.linear_response(fit.model, fit.params, (x, y))
    exact = np.linalg.inv(np.asarray(x, float).T @ np.asarray(x, float) + 2 * np.eye(2))
    of = response.covariance
    both = [[of.a.first.a.first, of.a.first.b.first], [of.b.first.a.first, of.b.first.b.first]]
    close(np.array(both), exact, factor=10)
    close(np.array([response.sd.a.first, response.sd.b.first]), np.sqrt(np.diag(exact)), factor=10)
    assert not response.singular
    correlation = exact[0, 1] / np.sqrt(exact[0, 0] * exact[1, 1])
    close(response.rate, correlation**2, factor=100)  # Gauss and Seidel's rate for two unknowns
    assert fit.params.a.sd < response.sd.a.first  # what mean field underestimates


def test_an_exact_posterior_keeps_its_own_covariance(float64):
    data, _ = MODELS["VB diag"].data("float64")
    fit = fitted(vb.BayesianGaussianMixture(1, covariance_type="diag"), data)
    response = vb.linear_response(fit.model, fit.params, data)
    q = fit.params.components.precision
    close(response.sd.components.precision, q.sd, factor=100)
    close(response.rate, 0.0, scale=1)
    assert not response.singular


def test_a_level_about_which_vectors_move_has_its_exact_spread(float64):
    """All is normal, and q keeps the path apart: its own sd is that at a known path."""
    sequences = [np.array([1.0, 2.5, 3.0, 1.5]), np.array([2.0, 0.5])]
    data = vb.Sequences.of(sequences)
    fit = vb.fit(own_level(), data, key=jax.random.key(0), tol=0.0)
    response = vb.linear_response(fit.model, fit.params, data)
    mean, sd = level_by_hand(sequences)
    np.testing.assert_allclose(fit.params.level.mean, mean, rtol=1e-6)  # where sweeps gain but a rounding
    close(response.sd.level.first, sd, factor=100)
    close(fit.params.level.sd, (0.5 + 2.0 * 6) ** -0.5)


def test_covariances_of_a_mixture_are_symmetric_and_not_below_those_of_q(float64):
    data, _ = MODELS["own, local"].data("float64")
    model, start = MODELS["own, local"].started(data, None)
    fit = vb.fit(model, data, key=jax.random.key(0), tol=0.0, params=start)
    response = vb.linear_response(fit.model, fit.params, data)
    one, other = response.covariance.weights.log.mu.first, response.covariance.mu.first.weights.log
    np.testing.assert_array_equal(one, other.T)
    assert one.shape == (3, 3)
    assert (response.sd.mu.first > fit.params.mu.sd).all()
    assert (jnp.abs(one) > 0).all()  # q says 0
    assert not response.singular


def test_a_ridge_is_flagged(dtype):
    x, y = design(dtype)
    same = jnp.stack([x[:, 0], x[:, 0]], 1)  # only a + b is known
    fit = fitted(slopes(lambda s: 0.0), (same, y))
    assert vb.linear_response(fit.model, fit.params, (same, y)).singular


def test_models_without_data_have_derivatives(float64):
    model = MODELS["own, no data"].model
    fit = fitted(model, None)
    response = vb.linear_response(fit.model, fit.params)
    assert jnp.isfinite(slope(fit.model, fit.params).hyper.tau0)
    assert response.covariance.mu.first.tau.value.shape == (3,)


@pytest.mark.parametrize("function", [vb.elbo, vb.linear_response, vb.optimum])
def test_bad_data_raise(function):
    data = jnp.arange(5.0)
    fit = vb.fit(mean_and_precision(), data, key=jax.random.key(0))
    with pytest.raises(ValueError, match="data must be finite"):
        function(fit.model, fit.params, data.at[0].set(jnp.nan))
