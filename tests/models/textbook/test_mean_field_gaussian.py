"""Laws of the factorised approximation of a normal.

q has the exact mean and the conditional variances, the objective is -KL(q || p) in closed form; moment
matching has the marginal variances; each is the minimiser of its own divergence. Linear response gives the
exact covariance back. Bad input raises.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.tolerances import close
from vbjax.families import NormalState

KEY = jax.random.key(0)
MEAN = np.array([1.0, -2.0, 300.0])
PRECISION = np.array([[2.0, 0.9, 0.3], [0.9, 1.5, -0.4], [0.3, -0.4, 1.0]])


def fitted(dtype):
    model = vb.textbook.MeanFieldGaussian(jnp.asarray(MEAN, dtype), jnp.asarray(PRECISION, dtype))
    fit = vb.fit(model, key=KEY, tol=0.0)
    return fit.model, fit


def test_the_fit_has_the_mean_and_the_conditional_variances(dtype):
    _, fit = fitted(dtype)
    # the objective, flat at its optimum, is known to its rounding: the mean to the square root of that
    np.testing.assert_allclose(fit.params.z.mean, MEAN, atol=4 * np.sqrt(np.finfo(dtype).eps))
    close(fit.params.z.precision, np.diag(PRECISION))
    divergence = 0.5 * (np.log(np.diag(PRECISION)).sum() - np.linalg.slogdet(PRECISION)[1])
    close(fit.objective, -divergence, scale=10)
    close(fit.model.kl_from(fit.params.z), divergence, scale=10)
    assert fit.status == vb.Status.CONVERGED


@pytest.mark.parametrize("toward", [True, False])
def test_each_is_the_minimiser_of_its_own_divergence(toward, float64):
    model, fit = fitted("float64")
    best = model.moment_matched() if toward else fit.params.z
    divergence = model.kl_to if toward else model.kl_from
    gradient = jax.grad(divergence)(best)
    flat = dict(atol=10 * np.sqrt(np.finfo(float).eps), rtol=0)  # as far as a stop on the objective goes
    np.testing.assert_allclose(gradient.mean, np.zeros(3), **flat)
    np.testing.assert_allclose(gradient.precision, np.zeros(3), **flat)
    for other in (NormalState(best.mean + 0.1, best.precision), NormalState(best.mean, 1.1 * best.precision)):
        assert divergence(other) > divergence(best)
    close(model.moment_matched().variance, np.diag(np.linalg.inv(PRECISION)), factor=10)
    assert (model.moment_matched().variance > fit.params.z.variance).all()
    assert model.n_parameters == dict(factorised=6, full=9)


def test_linear_response_gives_the_covariance_back(dtype):
    model, fit = fitted(dtype)
    response = vb.linear_response(model, fit.params)
    close(response.covariance.z.first.z.first, np.linalg.inv(PRECISION), factor=10)
    assert not response.singular


BAD = {
    r"precision must be of shape \(3, 3\)": (MEAN, PRECISION[:2], None),
    "symmetric and positive definite": (MEAN, -PRECISION, None),
    "must be None": (MEAN, PRECISION, MEAN),
    "mean must be finite": (MEAN * np.nan, PRECISION, None),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_raises(message):
    mean, precision, data = BAD[message]
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.textbook.MeanFieldGaussian(mean, precision), data, key=KEY)


def test_what_is_exact_reads_the_normal_too():
    for mean, precision, name in (("a", np.eye(2), "mean"), (np.zeros(2), -np.eye(2), "precision")):
        model = vb.textbook.MeanFieldGaussian(mean, precision)
        for ask in (
            model.moment_matched,
            lambda model=model: model.exact,
            lambda model=model: model.n_parameters,
        ):
            with pytest.raises(ValueError, match=f"^{name} must"):
                ask()
    model = vb.textbook.MeanFieldGaussian(np.zeros(2), np.eye(2))
    for wrong in (None, "a", vb.Record(), NormalState(jnp.zeros(3), jnp.ones(3)), NormalState(0.0, 1.0)):
        for divergence in (model.kl_from, model.kl_to):
            with pytest.raises(ValueError, match=r"z must be normals of shape \(2,\)"):
                divergence(wrong)
