"""Batch and match: the paper's update, its fixed point, normal targets exactly, and real posteriors."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import vbjax as vb
from notebooks.posteriors import posterior
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax.blackbox import ScoreMatching
from vbjax.blackbox.algorithms.score_matching import Scores, match_scores
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import Full

PRECISION = np.array([[4.0, 1.5, 0.0], [1.5, 1.0, 0.3], [0.0, 0.3, 9.0]])
MEAN = np.array([1.0, -20.0, 300.0])


def normal_target(x):
    """log N(MEAN, PRECISION^-1), but for a constant."""
    shift = x - jnp.asarray(MEAN, x.dtype)
    return -0.5 * shift @ jnp.asarray(PRECISION, x.dtype) @ shift


def papers_update(draws, gradients, mean, covariance, lam):
    """Cai et al. (2024), algorithm 1, of any batch."""
    centre, pull = draws.mean(0), gradients.mean(0)
    spread = (draws - centre).T @ (draws - centre) / len(draws)
    gamma = (gradients - pull).T @ (gradients - pull) / len(draws)
    u = lam * gamma + lam / (1 + lam) * np.outer(pull, pull)
    v = covariance + lam * spread + lam / (1 + lam) * np.outer(mean - centre, mean - centre)
    eye = np.eye(len(mean))
    new = 2 * v @ np.linalg.inv(eye + scipy.linalg.sqrtm(eye + 4 * u @ v).real)
    return mean / (1 + lam) + lam / (1 + lam) * (new @ pull + centre), new


@pytest.mark.parametrize("lam", [0.3, 20.0])
def test_an_update_is_the_papers(lam, float64):
    rng = np.random.default_rng(0)
    scale = np.tril(rng.normal(size=(3, 3))) + 3 * np.eye(3)
    z = rng.normal(size=(40, 3))
    z -= z.mean(0)
    z = np.linalg.solve(
        np.linalg.cholesky(z.T @ z / 40), z.T
    ).T  # of the draws' moments, mean 0 and covariance I
    mean, gradients = rng.normal(size=3), rng.normal(size=(40, 3)) + 1.0
    q = LocationScale(jnp.asarray(mean), jnp.asarray(scale), Full())
    moved = match_scores(q, Scores.of(q, jnp.asarray(gradients)), lam / (1 + lam))
    location, covariance = papers_update(mean + z @ scale.T, gradients, mean, scale @ scale.T, lam)
    close(moved.location, location, factor=10)  # inverse and square root
    close(moved.scale @ moved.scale.T, covariance, factor=10)


def test_a_normal_target_is_matched_by_one_whole_step(dtype):
    fit = vb.fit(ScoreMatching(vb.BlackBox(normal_target, vb.real(3)), 1e-12), key=key())
    assert fit.status == vb.Status.CONVERGED
    if dtype == np.float64:
        assert fit.n_iter == 2
    slack = 3e-3 if dtype == np.float32 else 1e-10  # in sds, of a mean 300 sds away
    covariance = np.linalg.inv(PRECISION)
    assert (abs(fit.params.q.location - MEAN) <= slack * np.sqrt(np.diag(covariance))).all()
    np.testing.assert_allclose(fit.params.covariance, covariance, rtol=slack, atol=slack)


def test_where_it_ends_the_scores_match(float64):
    # E[g] = 0 and Cov(g) = Sigma^-1 on the draws, in units of the posterior, which it meets
    target = posterior("kidscore_momiq")
    model = vb.BlackBox(target.log_density, target.support)
    fit = vb.fit(ScoreMatching(model, 1e-14), target.data, key=key())
    assert fit.status == vb.Status.CONVERGED
    gradients = np.asarray(model.score_draws(fit.params, target.data)[1]) @ np.asarray(fit.params.q.scale)
    slack = 1e-5  # the square root of what the bound, of order 1e3, is rounded by
    np.testing.assert_allclose(gradients.mean(0), 0, atol=slack)
    np.testing.assert_allclose(np.cov(gradients.T, bias=True), np.eye(3), atol=slack)
    error, ratio = target.errors(fit.params.sample(key(2), 20_000))
    assert error.max() < 0.1
    assert abs(ratio - 1).max() < 0.1


def test_what_cannot_be_matched_is_refused():
    with pytest.raises(ValueError, match="ScoreMatching is for family='full_rank'; got 'mean_field'"):
        vb.fit(ScoreMatching(vb.BlackBox(normal_target, vb.real(3), family="mean_field")), key=key())
