"""Densities that cannot be fitted say so: without bound, or zero where their supports say they are not.

Both ways: what is proper, however heavy its tails and whatever its scale, is no alarm. The densities of a
test are one function of their coefficients, which are data, so that they share a program.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb

bb = vb.blackbox


def key(seed=0):
    return jax.random.key(seed)


def mixed(s, d):
    """d[0] x^2 + d[1] x - d[2] log(1 + (x / d[3])^2)."""
    return d[0] * s.x**2 + d[1] * s.x - d[2] * jnp.log1p((s.x / d[3]) ** 2)


MIXED = vb.BlackBox(mixed, dict(x=vb.real()))


@pytest.mark.parametrize("coefficients", [(1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)])
def test_a_density_without_bound_is_unbounded(coefficients, dtype):
    fit = vb.fit(MIXED, jnp.asarray(coefficients, dtype), key=key())
    assert fit.status == vb.Status.UNBOUNDED
    assert "rises without limit" in fit.verdict()
    assert "usable" not in fit.verdict()
    assert "close" not in fit.verdict()
    assert not fit.runs.sound.any()


def test_an_exponential_density_is_unbounded(dtype):
    fit = vb.fit(
        vb.BlackBox(lambda s, d: d * jnp.exp(s.x), dict(x=vb.real())), jnp.ones((), dtype), key=key()
    )
    assert fit.status == vb.Status.UNBOUNDED


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])  # Student's t with 1, 2 and 3 degrees of freedom
def test_heavy_tails_of_any_scale_are_no_alarm(power, scale, dtype):
    fit = vb.fit(MIXED, jnp.asarray([0.0, 0.0, power, scale], dtype), key=key())
    # the start is a million scales away from the narrowest: a long way in float32
    slow = [vb.Status.MAX_ITER] if scale == 1e-6 else []
    assert fit.status in [vb.Status.CONVERGED, *slow]
    assert slow or abs(fit.params.q.location[0]) < scale


@pytest.mark.parametrize("scale", [1e-6, 1e6, 1e12])
def test_normals_of_any_scale_are_no_alarm(scale, dtype):
    fit = vb.fit(MIXED, jnp.asarray([-0.5 / scale**2, 0.0, 0.0, 1.0], dtype), key=key())
    assert fit.status == vb.Status.CONVERGED
    np.testing.assert_allclose(fit.params.q.scale[0, 0], scale, rtol=1e-3)
    assert fit.diagnostics.k_hat <= 0.5  # its ratios differ by their rounding alone
    assert "close to the posterior" in fit.verdict()


@pytest.mark.parametrize("coefficients", [(1.0, 0.0, 0.0, 1.0), (0.0, 1.0, 0.0, 1.0)])
def test_stochastic_ascent_does_not_arrive_where_there_is_nothing(coefficients):
    fit = vb.fit(bb.StochasticAscent(MIXED), jnp.asarray(coefficients, "float32"), key=key(), max_iter=100)
    assert fit.status in (vb.Status.MAX_ITER, vb.Status.UNBOUNDED)


def test_a_funnel_is_no_alarm():
    def funnel(s):
        return -0.5 * (s.v / 3) ** 2 - 0.5 * (s.x**2).sum() * jnp.exp(-s.v) - 4.5 * s.v

    fit = vb.fit(vb.BlackBox(funnel, dict(v=vb.real(), x=vb.real(9))), key=key(), max_iter=400)
    assert fit.status == vb.Status.CONVERGED


def test_a_run_away_never_wins():
    # a normal hill that the first start sees, and nothing but growth beyond 30
    def hill(s):
        return jnp.where(s.x < 30, -0.5 * s.x**2, (s.x - 30) ** 2 - 450)

    model = vb.BlackBox(hill, dict(x=vb.real()))
    away = model.init(key())
    away = away.at((away.q.location + 100, away.q.kind.free(away.q.scale)))
    fit = vb.fit(model, key=key(), params=away, n_restarts=2)
    assert fit.runs.status.tolist() == [vb.Status.UNBOUNDED, vb.Status.CONVERGED]
    assert fit.status == vb.Status.CONVERGED
    assert abs(fit.params.mean.x) < 0.1


def below(s, d):
    return jnp.where(s.x < d, -0.5 * s.x**2, -jnp.inf)


BELOW = vb.BlackBox(below, dict(x=vb.real()))


@pytest.mark.parametrize(("edge", "seed"), [(1.5, 0), (1.5, 1), (3.3, 1)])
def test_a_density_that_is_zero_where_q_is_not_is_doubted(edge, seed):
    # the draws of the fit see no edge at 3.3: it converges, and fresh draws find it
    fit = vb.fit(BELOW, jnp.float32(edge), key=key(seed))
    assert 0 < fit.diagnostics.outside < 0.1
    for words in (fit.verdict(), fit.diagnostics.sentence):
        assert "the log density is not finite at" in words
        assert "vb.interval" in words
        assert "usable" not in words
        assert "close" not in words
    again = vb.fit(vb.BlackBox(below, dict(x=vb.interval(None, edge))), jnp.float32(edge), key=key(seed))
    assert again.status == vb.Status.CONVERGED
    assert again.diagnostics.outside == 0


def test_resampling_gives_no_weight_to_what_is_outside():
    fit = vb.fit(BELOW, jnp.float32(1.5), key=key())
    x = np.asarray(BELOW.resample(fit.params, key(1), 1000, jnp.float32(1.5)).x)
    assert (x < 1.5).all()
