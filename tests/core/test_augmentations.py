"""The latents that make a logit and a probit conjugate, where the laws of all families do not look.

Polya-Gamma: the draws have the series' distribution and its Laplace transform, on both sides of where the
sampler changes its proposal; mean and variance are the closed forms, from a tilt of 0 to a huge one. The
truncated normal: moments, entropy and draws are scipy's, also far in the tail, where it becomes exponential.
float32 has float64's digits there.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from tests.support.family_table import jit
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.families import NormalStatistics, PolyaGammaState, TruncatedNormalState

N_DRAWS = 20_000
TILTS = np.array([0.0, 1.0, 3.1, 3.2, 8.0, 60.0])  # the sampler's proposal changes at 2 / 0.64 = 3.125
LOCATIONS = np.array([-1e4, -30.0, -3.01, -2.99, -1.0, 0.0, 2.0, 40.0])


@jit
def draw(q, seed):
    return q.sample(jax.random.key(seed), N_DRAWS)


@jit
def moments(q):
    return q.mean, q.variance, q.entropy()


def polya_gamma_cdf(x):
    """Of PG(2, 0): the integral, term by term, of the series of its density (Polson et al., section 2.2)."""
    n = np.arange(200)[:, None]
    return 8 * ((-1.0) ** n * (n + 1) * stats.norm.sf((n + 1) / np.sqrt(x))).sum(0)


def test_polya_gamma_draws_have_the_laplace_transform(dtype):
    """E[exp(-t omega)] = (cosh(c / 2) / cosh(sqrt(c^2 / 4 + t / 2)))^b (Polson et al. 2013, section 2.1)."""
    q = PolyaGammaState(jnp.asarray(TILTS, dtype), 2)
    draws = np.asarray(draw(q, 0))
    assert draws.dtype == dtype
    log_cosh = lambda x: np.logaddexp(x, -x)
    for t in (0.3, 3.0, 30.0):
        transformed = np.exp(-t * draws.astype(float))
        exact = np.exp(2 * (log_cosh(TILTS / 2) - log_cosh(np.sqrt(TILTS**2 / 4 + t / 2))))
        error = transformed.std(0) / np.sqrt(N_DRAWS)
        np.testing.assert_array_less(np.abs(transformed.mean(0) - exact), STANDARD_ERRORS * error)


def test_polya_gamma_draws_have_the_distribution_of_the_series(float64):
    draws = np.asarray(draw(PolyaGammaState(jnp.zeros(len(TILTS)), 2), 1))[:, 0]
    assert stats.kstest(draws, polya_gamma_cdf).pvalue > 1e-3


def test_polya_gamma_moments_are_the_closed_forms(float64):
    c = np.array([0.05, 0.39, 0.41, 1.0, 6.0, 40.0], np.longdouble)
    mean, variance, _ = moments(PolyaGammaState(jnp.asarray(c, float)))
    close(mean, np.tanh(c / 2) / (2 * c))
    # the closed form of the variance loses its digits where c is small: ten times the roundings
    close(variance, (np.sinh(c) - c) / (4 * c**3 * np.cosh(c / 2) ** 2), factor=10)


def test_polya_gamma_has_its_limits(dtype):
    mean, variance, entropy = map(np.asarray, moments(PolyaGammaState(jnp.asarray([0, 1e6], dtype))))
    close([mean[0], variance[0], entropy[0]], [1 / 4, 1 / 24, 0.0])
    close([mean[1] * dtype.type(1e6), variance[1] * dtype.type(1e18)], [1 / 2, 1 / 2])
    assert jit(jax.grad(lambda c: PolyaGammaState(c).mean))(jnp.zeros((), dtype)) == 0


def test_truncated_normal_moments_and_entropy_are_scipys(float64):
    precision = 4.0
    sd, locations = precision**-0.5, LOCATIONS[2:]
    q = TruncatedNormalState(jnp.asarray(locations), jnp.full(len(locations), precision))
    scipys = stats.truncnorm(-locations / sd, 100, locations, sd)
    # scipy's own moments subtract numbers ten times as large as what remains, and its entropy larger ones
    mean, variance, entropy = moments(q)
    close([mean, variance], [scipys.mean(), scipys.var()], factor=100)
    a = locations / sd
    ratio = np.exp(stats.norm.logpdf(a) - stats.norm.logcdf(a))
    exact = stats.norm.entropy(locations, sd) + stats.norm.logcdf(a) - 0.5 * a * ratio
    close(entropy, exact, factor=100)


def test_a_truncated_normal_far_in_the_tail_is_exponential(dtype):
    """Mean, deviation and entropy of the rate |m|, but for a part of order 1 / m^2."""
    q = TruncatedNormalState(jnp.asarray(-1e4, dtype), jnp.ones((), dtype))
    mean, variance, entropy = map(float, moments(q))
    np.testing.assert_allclose([mean * 1e4, variance * 1e8, entropy], [1, 1, 1 - np.log(1e4)], rtol=3e-7)


def test_a_truncated_normal_has_its_digits_in_float32():
    @jit
    def measure(q):
        return q.mean, q.sd, q.log_prob(q.mean), q.kl(TruncatedNormalState(q.location / 2, q.precision))

    def facts(dtype):
        q = TruncatedNormalState(jnp.asarray(LOCATIONS, dtype), jnp.full(len(LOCATIONS), 2.0, dtype))
        return jax.device_get(measure(q))

    with jax.enable_x64(True):
        double = facts("float64")
    for one, two in zip(facts("float32"), double, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_truncated_normal_draws_have_scipys_distribution():
    q = TruncatedNormalState(jnp.asarray(LOCATIONS, "float32"), jnp.ones(len(LOCATIONS), "float32"))
    draws = np.asarray(draw(q, 2), float)
    assert (draws >= 0).all()
    for m, x in zip(LOCATIONS[1:], draws.T[1:], strict=True):
        assert stats.kstest(x, stats.truncnorm(-m, np.inf, m, 1).cdf).pvalue > 1e-3
    assert stats.kstest(1e4 * draws[:, 0], stats.expon.cdf).pvalue > 1e-3


def test_nothing_lies_below_zero(dtype):
    q = TruncatedNormalState(jnp.ones((), dtype), jnp.ones((), dtype))
    assert q.log_prob(jnp.asarray(-0.1, dtype)) == -np.inf


def test_statistics_of_a_normal_times_a_value(dtype):
    t = NormalStatistics(*(np.asarray(x, dtype) for x in ([1.0, 2.0], [0.5, 0.0], [3.0, 1.0])))
    factor = np.asarray([-1.0, 2.0], dtype)
    for product in (t * factor, factor * t):
        close(product.mean, factor * t.mean)
        close(product.square_about(np.zeros(2, dtype)), factor**2 * t.square_about(np.zeros(2, dtype)))
