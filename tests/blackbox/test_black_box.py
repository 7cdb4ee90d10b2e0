"""Black-box inference: exact where the target is normal, and right or doubtful of itself where it is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import vbjax as vb
from notebooks.posteriors import NAMES, NEAR_NORMAL, posterior
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax.blackbox.normal_draws import matched_draws

PRECISION = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.3], [0.0, 0.3, 9.0]])
MEAN = np.array([1.0, -20.0, 300.0])


def normal_target(s):
    """log N(MEAN, PRECISION^-1) of a pair and a number."""
    shift = jnp.concatenate([s.pair, s.single[None]]) - jnp.asarray(MEAN, s.pair.dtype)
    constant = 0.5 * np.linalg.slogdet(PRECISION)[1] - 1.5 * np.log(2 * np.pi)
    return constant - 0.5 * shift @ jnp.asarray(PRECISION, s.pair.dtype) @ shift


SUPPORT = dict(pair=vb.real(2), single=vb.real())


def without(precision, apart):
    return np.where(apart[:, None] == apart, precision, 0)


@pytest.mark.parametrize(
    ("family", "apart"),
    [("full_rank", np.zeros(3)), ("blocks", np.array([0, 0, 1])), ("mean_field", np.arange(3))],
)
def test_a_normal_target_is_matched_exactly(family, apart, dtype):
    # q of independent blocks has the target's blocks of precision (Bishop 2006, section 10.1.2)
    fit = vb.fit(vb.BlackBox(normal_target, SUPPORT, family=family), key=key(), tol=1e-12, n_restarts=2)
    own = without(PRECISION, apart)
    covariance = np.linalg.inv(own)
    divergence = 0.5 * (np.linalg.slogdet(own)[1] - np.linalg.slogdet(PRECISION)[1])
    assert fit.status == vb.Status.CONVERGED
    close(fit.objective, -divergence, scale=abs(MEAN).max())
    mean = np.concatenate([fit.params.mean.pair, fit.params.mean.single[None]])
    slack = 3e-3 if dtype == np.float32 else 1e-5  # in sds: the square root of the objective's
    assert (abs(mean - MEAN) <= slack * np.sqrt(np.diag(covariance))).all()
    np.testing.assert_allclose(fit.params.covariance, covariance, rtol=slack, atol=slack)


def test_a_full_step_lands_on_a_normal_target(float64):
    fit = vb.fit(vb.BlackBox(normal_target, SUPPORT), key=key(), tol=1e-12)
    assert fit.n_iter == 2
    again = vb.fit(vb.BlackBox(normal_target, SUPPORT), key=key(), params=fit.params, tol=1e-12)
    assert again.n_iter == 1
    close(again.objective, fit.objective, scale=1.0)
    close(fit.diagnostics.log_evidence, 0.0, scale=abs(MEAN).max())


def test_an_asymmetric_target_has_the_optimum_on_paper(float64):
    # u = log x of a Gamma(a, b): the bound a m - b exp(m + s^2 / 2) + log s has s^2 = 1 / a and
    # m = log(a / b) - 1 / (2 a); one sign wrong, and the mean is on the other side
    a, b = 3.0, 2.0
    density = lambda x: (a - 1) * jnp.log(x) - b * x + a * np.log(b) - jax.scipy.special.gammaln(a)
    fit = vb.fit(vb.BlackBox(density, vb.positive(), n_draws=4096), key=key())
    exact = np.array([np.log(a / b) - 1 / (2 * a), a**-0.5])
    found = np.array([fit.params.q.location[0], fit.params.q.scale[0, 0]])
    np.testing.assert_allclose(found, exact, atol=2e-3)  # the error of so many strata
    optimum = a * np.log(a) - a - 0.5 * np.log(a) + 0.5 * np.log(2 * np.pi) - scipy.special.gammaln(a)
    np.testing.assert_allclose(fit.objective, optimum, atol=2e-3)
    assert (np.diff(fit.trace) >= 0).all()
    assert fit.objective < 0  # the evidence is 1


def test_draws_have_the_mean_and_covariance_they_stand_for(dtype):
    z = np.asarray(matched_draws(key(), 64, 5, dtype), float)
    close(z.mean(0).astype(dtype), np.zeros(5), scale=1.0)
    close((z.T @ z / 64).astype(dtype), np.eye(5), scale=1.0)
    many = np.asarray(matched_draws(key(), 1024, 3, dtype), float)
    absolute = abs(abs(many).mean(0) - np.sqrt(2 / np.pi))
    assert (absolute < 4e-3).all()  # a fifth of the standard error of 1024 independent draws


@pytest.mark.parametrize("name", NAMES)
def test_real_posteriors_are_met_or_doubted(name, float64):
    target = posterior(name)
    fit = vb.fit(vb.BlackBox(target.log_density, target.support), target.data, key=key(1))
    assert fit.status == vb.Status.CONVERGED
    error, ratio = target.errors(fit.params.sample(key(2), 20_000))
    if name in NEAR_NORMAL:
        assert error.max() < 0.1
        assert abs(ratio - 1).max() < 0.1
    else:
        good = error.max() < 0.3 and abs(ratio - 1).max() < 0.3
        assert good or fit.diagnostics.k_hat > 0.7
        assert "k-hat" in fit.verdict()


def test_float32_finds_the_regression_of_float64():
    target = posterior("kidscore_momiq")
    fit = vb.fit(vb.BlackBox(target.log_density, target.support), target.data, key=key())
    assert fit.params.q.location.dtype == np.float32
    error, ratio = target.errors(fit.params.sample(key(2), 20_000))
    assert fit.status == vb.Status.CONVERGED
    assert error.max() < 0.1
    assert abs(ratio - 1).max() < 0.1


def test_shapes_are_the_users(float64):
    support = [vb.simplex(3, 2), dict(a=vb.positive())]
    density = lambda s: jnp.log(s[0]).sum() - s[1]["a"] + jnp.log(s[1]["a"])
    fit = vb.fit(vb.BlackBox(density, support), key=key())
    for values, lead in ((fit.params.mean, ()), (fit.params.sd, ()), (fit.params.sample(key(), 7), (7,))):
        assert values[0].shape == (*lead, 2, 3)
        assert values[1]["a"].shape == lead
    # uniform over the logistic scale's Dirichlet(2, 2, 2), Gamma(2, 1): means by symmetry
    close(fit.params.mean[0], np.full((2, 3), 1 / 3), factor=1e10)
    assert fit.params.quantile(0.5)[1]["a"] < fit.params.mean[1]["a"]


def test_restarts_that_differ_by_their_draws_agree(float64):
    fit = vb.fit(vb.BlackBox(lambda x: x - jnp.exp(x), vb.real()), key=key(), n_restarts=4, tol=1e-9)
    assert np.ptp(fit.runs.objective) > 1e-4
    assert "4 of 4 restarts within 0.0" in fit.verdict()


def test_a_batch_of_fits_is_a_loop(float64):
    model = vb.BlackBox(lambda s, d: -0.5 * jnp.sum((s - d) ** 2), vb.real(2))
    data = jnp.arange(6.0).reshape(3, 2)
    batch = jax.jit(jax.vmap(lambda d: vb.fit(model, d, key=key())))(data)
    close(jax.vmap(lambda params: params.mean)(batch.params), data)
    close(batch.diagnostics.elbo, np.full(3, np.log(2 * np.pi)))


def test_linear_response_of_a_mean_field_is_the_covariance_of_a_normal_target(float64):
    fit = vb.fit(vb.BlackBox(normal_target, SUPPORT, family="mean_field"), key=key(), tol=1e-12)
    response = vb.linear_response(fit.model, fit.params)
    covariance = np.linalg.inv(PRECISION)
    close(response.sd.pair, np.sqrt(np.diag(covariance))[:2], scale=abs(MEAN).max())
    close(response.covariance.pair.single, covariance[:2, 2], scale=abs(MEAN).max())
    assert not response.singular
    again = vb.fit(fit.model, key=key(3), params=fit.params, tol=1e-12)  # of the same structure
    assert again.n_iter == 1
    full = vb.fit(vb.BlackBox(normal_target, SUPPORT), key=key())
    with pytest.raises(ValueError, match="linear_response is for family='mean_field'; 'full_rank'"):
        vb.linear_response(full.model, full.params)


def nan_below(s):
    return jnp.where(s.x > 1e6, -(s.x**2), jnp.nan)


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (
            vb.BlackBox(nan_below, dict(x=vb.real())),
            None,
            "log_density with the supports' Jacobian is nan at the start, at Record",
        ),
        (vb.BlackBox(lambda s: -s.x, dict(x=vb.real(3))), None, "must return a scalar; got .*3"),
        (vb.BlackBox(lambda s: 0.0, dict(x=3)), None, "support must hold supports alone .*got 3"),
        (vb.BlackBox(lambda s: 0.0, {}), None, "support must have a latent"),
        (vb.BlackBox(lambda s: 0.0, vb.real(), family="banded"), None, "family must be one of .*'banded'"),
        (vb.BlackBox(lambda s: -s @ s, vb.real(9), n_draws=16), None, "n_draws must be even and at least 20"),
        (vb.BlackBox(3.0, vb.real()), None, "log_density must be a function; got 3.0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(model, data, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=key())


def test_arguments_of_other_algorithms_are_refused():
    model = vb.BlackBox(lambda s, d: -(s**2), vb.real())
    with pytest.raises(ValueError, match="weights are for models of rows"):
        vb.fit(model, np.zeros(2, "f"), key=key(), weights=np.ones(2, "f"))
    with pytest.raises(ValueError, match="accelerate and check are for coordinate ascent"):
        vb.fit(model, np.zeros(2, "f"), key=key(), accelerate=True)


def plain_k_hat(ratios):
    """Vehtari et al. (2024), appendix G, one number after the other; equal to ArviZ 0.23's `psislw`."""
    ordered = np.sort(ratios)
    size = int(np.ceil(min(len(ratios) / 5, 3 * np.sqrt(len(ratios)))))
    x = ordered[-size:] - ordered[-size - 1]
    m, logs = 30 + int(np.sqrt(size)), []
    quartile = x[int(size / 4 + 0.5) - 1]
    grid = [1 / x[-1] + (1 - np.sqrt(m / (i + 0.5))) / (3 * quartile) for i in range(m)]
    for b in grid:
        k = np.mean(np.log(1 - b * x))
        logs.append(size * (np.log(-b / k) - k - 1))
    weights = [1 / np.sum(np.exp(np.array(logs) - log)) for log in logs]
    weights = [w if w >= 10 * np.finfo(float).eps else 0 for w in weights]
    b = np.dot(weights, grid) / np.sum(weights)
    return (size * np.mean(np.log(1 - b * x)) + 10 * 0.5) / (size + 10)


def test_k_hat_is_the_papers_and_finds_the_shape_of_a_pareto(float64):
    for shape in (0.3, 0.9):
        ratios = scipy.stats.pareto(1 / shape).rvs(20_000, random_state=1)
        log_weights, k = vb.blackbox.pareto_smoothed(jnp.log(jnp.asarray(ratios)))
        close(k, plain_k_hat(ratios), factor=100)  # log1p and log
        assert abs(k - shape) < 2 * (1 + shape) / np.sqrt(425)  # two standard errors, 425 in the tail
        close(jnp.exp(log_weights).sum(), 1.0)
        body = np.argsort(ratios)[:-500]
        moved = np.asarray(log_weights)[body] - np.log(ratios[body])
        close(moved, np.full(len(body), moved[0]), scale=1.0)
