"""The word on a black-box fit: what it says of q's moments, of tails, modes and independent entries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

import vbjax as vb
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax.blackbox.diagnostics import N_DRAWS, Draws, diagnose_draws, diagnose_until_clear, most_lots
from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.proposals import Defensive
from vbjax.blackbox.scales import Full


def judged(log_ratio):
    """Diagnostics of draws whose latents are standard normal z, with given log ratios at z."""

    @functools.partial(jax.jit, static_argnums=0)
    def diagnose(n_lots):
        n = n_lots * N_DRAWS
        z = jax.random.normal(key(2), (1, n, 1))
        draws = Draws(z, log_ratio(z[..., 0]), jnp.zeros((1, n)))
        return diagnose_draws(draws, jnp.zeros(()), factorised=False, paths=None)

    return diagnose_until_clear(diagnose, most_lots(1))


def test_weights_that_are_nearly_equal_are_no_alarm_whatever_their_tail():
    found = judged(lambda z: jnp.where(z > 2.8, 0.4, 0.0))  # a tail of nothing but five draws
    assert found.effective > 0.99
    assert found.trust == "all"
    assert "close to the posterior" in found.sentence


def test_weighted_draws_have_the_moments_of_the_target(float64):
    # N(1, 0.7^2) beside N(0, 1): the mean of q is 1 / 0.7 sds off, its sd 1 / 0.7 times as large
    found = judged(lambda z: -0.5 * ((z - 1) / 0.7) ** 2 + 0.5 * z**2)
    assert found.k_hat < 0.7
    np.testing.assert_allclose(found.shift, 1 / 0.7, atol=0.1)  # of some thousand draws
    np.testing.assert_allclose(found.sd_ratios, 1 / 0.7, atol=0.1)
    assert found.trust == "resampling"


def test_more_draws_are_made_where_fewer_leave_the_answer_open(float64):
    # exp(a z^2 / 2) has the tail shape a: 0.697 is relied upon from 2,000 draws
    sizes = {a: int(judged(lambda z, a=a: 0.5 * a * z**2).n_draws) for a in (0.1, 0.6, 3.0)}
    assert sizes == {0.1: 2000, 0.6: 16_000, 3.0: 2000}


def test_defensive_proposals_have_the_density_of_a_normal_and_a_student_t(float64):
    scale = jnp.array([[2.0, 0.0], [-1.0, 0.5]])
    q = Defensive(LocationScale(jnp.array([1.0, -2.0]), scale, Full()))
    u = q.sample(key(), 4000)
    parts = [scipy.stats.multivariate_normal(q.normal.location, scale @ scale.T)]
    parts += [scipy.stats.multivariate_t(q.normal.location, scale @ scale.T, df=3)]
    close(q.log_prob(u[:50]), np.logaddexp(*(part.logpdf(u[:50]) for part in parts)) - np.log(2), factor=10)
    inside = ((np.asarray(u - q.normal.location) @ np.linalg.inv(scale).T) ** 2).sum(1) < 9
    share = 0.5 * (scipy.stats.chi2(2).cdf(9) + scipy.stats.f(2, 3).cdf(9 / 2))
    assert abs(inside.mean() - share) < 4 * (share * (1 - share) / 4000) ** 0.5


def test_a_normal_is_not_close_to_a_target_of_heavy_tails_that_its_draws_do_not_reach(float64):
    # Student-t of 3 degrees of freedom, whose sd is 3^(1/2)
    model = vb.BlackBox(lambda x: -4 * jnp.log1p((x @ x) / 3), vb.real(5))
    fit = vb.fit(model, key=key())
    true = fit.params.sd / 3**0.5
    assert true.max() < 0.75
    np.testing.assert_allclose(fit.diagnostics.sd_ratios, [true.min(), true.max()], atol=0.15)  # heavy tails
    assert "usable after importance resampling" in fit.verdict()
    better = fit.resample(key(1), 4000)
    assert (abs(np.std(better, 0) / 3**0.5 - 1) < 0.2).all()


def test_the_word_names_modes_that_paths_met_and_starts_that_looked_for_none():
    def modes(u, d):  # N(0, 1), and one of weight d at 6
        return jnp.logaddexp(-0.5 * u**2, jnp.log(d) - 0.5 * (u - 6) ** 2)

    model = vb.BlackBox(modes, vb.real(), n_paths=64)
    heavy, light = (vb.fit(model, jnp.float32(w), key=key(3)).diagnostics for w in (0.2, 1e-4))
    np.testing.assert_allclose(heavy.paths.gap, np.log(5), atol=0.1)  # of bounds on few draws
    assert 8 < light.paths.gap < np.log(1e4)
    assert "one mode of several" in heavy.sentence
    assert heavy.trust == "nothing"
    assert light.trust == "all"
    assert "to other modes, 8." in light.sentence
    model = vb.BlackBox(modes, vb.real(), family=vb.blackbox.mixture(2))
    assert (
        "one start: other modes were not looked for" in vb.fit(model, jnp.float32(0.2), key=key()).verdict()
    )


def test_the_word_on_independent_entries_knows_by_how_much_their_sds_are_too_small():
    def pair(u):
        return -0.5 * (u[0] ** 2 + (u[1] - 2 * u[0]) ** 2 / 0.1)

    fit = vb.fit(vb.BlackBox(pair, vb.real(2), family="mean_field"), key=key())
    assert fit.n_iter <= 3  # the mean by Newton steps, however strongly entries are correlated
    precision = np.array([[1 + 4 / 0.1, -2 / 0.1], [-2 / 0.1, 1 / 0.1]])
    ratio = (np.diag(precision) * np.diag(np.linalg.inv(precision))) ** -0.5
    np.testing.assert_allclose(fit.diagnostics.sd_ratios, [ratio.min(), ratio.max()], atol=0.01)
    assert fit.diagnostics.trust == "means"
    assert "its sds not" in fit.verdict()
    response = fit.linear_response()  # which the word names
    np.testing.assert_allclose(response.sd, np.linalg.inv(precision).diagonal() ** 0.5, rtol=1e-3)
