"""Laws of the families where numbers are extreme, and of the statistics that are a rule of their own.

Products of Gamma statistics. A state without mass gives nothing and no NaN, logits have no origin, and a
corner without mass leaves a flat prior flat. float32 keeps its digits against float64: in sums of squares
at an offset, and in entropies, divergences and the natural map at large and at small concentrations. (The
laws over the table of all families are in test_families.py.)
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from tests.support.family_table import CASES, PLATE, SIZE, log_joint
from tests.support.tolerances import close
from vbjax import terms
from vbjax.families import (
    Beta,
    BetaState,
    CategoricalState,
    CategoricalStatistics,
    Delta,
    Dirichlet,
    DirichletState,
    DirichletStatistics,
    Gamma,
    GammaState,
    GammaStatistics,
    Normal,
    NormalGamma,
    NormalState,
    NormalWishart,
    WishartState,
)

# ---------------------------------------------------------------- statistics


def test_products_of_gamma_statistics(dtype):
    tau = GammaState(*CASES["Gamma"].state(dtype).__dict__.values()).expected()
    c = np.asarray([0.5, 3.0], dtype)
    desired = GammaStatistics(c * tau.value, np.log(c) + tau.log, -(np.log(c) + tau.log))
    for product in (c * tau, tau * c, jnp.asarray(c) * tau, tau * jnp.asarray(c)):
        assert isinstance(product, GammaStatistics)
        close(product, desired)
    for product in (2 * tau, tau * 2, 2.0 * tau, tau * 2.0):
        assert product.value.dtype == product.log.dtype == dtype
        close(product, GammaStatistics(2 * tau.value, np.log(2) + tau.log, -(np.log(2) + tau.log)))
    close((tau * tau).log, 2 * tau.log)
    close(jax.jit(lambda c, t: c * t)(c, tau), desired)


@pytest.mark.parametrize("lowest", [-200.0, -np.inf])
def test_a_state_without_mass_gives_nothing_and_no_nan(lowest, dtype):
    q = CategoricalState(jnp.asarray([0.5, 0.1, lowest], dtype))
    p = special.softmax([0.5, 0.1])
    close(q.entropy(), -(p * np.log(p)).sum())
    gradient = jax.grad(lambda logits: CategoricalState(logits).entropy())(q.logits)
    close(gradient, np.append(-p * (np.log(p) - (p * np.log(p)).sum()), 0))
    close(q.kl(q), 0.0, scale=1)
    # at a hard assignment the gradient of a log density is still every state's log-probability
    one_hot = CategoricalStatistics(jnp.asarray([0, 1, 0], dtype))
    close(jax.grad(q.log_density)(one_hot).p[:2], np.log(p))
    close(q.log_density(one_hot), np.log(p[1]))


def test_logits_have_no_origin(dtype):
    logits = np.asarray([0.0, 1.0, 2.0], dtype)
    q, far = CategoricalState(logits), CategoricalState(logits + np.asarray(2.0**17, dtype))
    close(far.kl(q), 0.0, scale=1)
    close(far.entropy(), q.entropy())
    close(far.log_prob(1), q.log_prob(1))


def test_a_corner_without_mass_keeps_a_flat_prior_flat(dtype):
    """EM with a flat prior and an empty component: the mode is on the edge, the objective finite."""
    counts = DirichletStatistics(jnp.asarray([3.0, 1, 0], dtype), jnp.zeros((), dtype))
    point = Delta(of=Dirichlet(SIZE)).from_gradient(counts, counts)
    close(point.mode, [0.75, 0.25, 0])
    flat = terms.dirichlet(point.expected(), 1.0)
    # the logarithms of the smallest number, some hundreds, cancel
    close(flat, np.log(2), scale=1 - np.log(np.finfo(dtype).tiny))


# ---------------------------------------------------------------- float32


def at_offset(offset, dtype):
    """Rows about an offset, on the grid of float32 there, and a state that is nearly theirs."""
    rng = np.random.default_rng(11)
    x = np.round(rng.normal(size=(50, SIZE)) * 2**7) / 2**7 + offset
    location = np.broadcast_to(np.round(x.mean(0) * 4) / 4, (*PLATE, SIZE)).astype(dtype)
    return x.astype(dtype), location


@jax.jit
def coordinate_updates(x, full, scalar):
    """Every factor that a row's squared distance reaches: joint with its precision, and separate."""

    def log_likelihood(t, u, m, tau):
        separate = terms.normal(x[:, :1], m, tau)
        joint = terms.multivariate_normal(x[:, None], t), terms.normal(x[:, :1], u)
        return sum(rows.sum() for rows in (separate, *joint))

    location = NormalState(scalar.location, scalar.mean_precision)
    t = full.expected(), scalar.expected(), location.expected(), scalar.precision.expected()
    gradients = jax.grad(log_likelihood, (0, 1, 2, 3))(*t)
    families = NormalWishart(SIZE, plate=PLATE), NormalGamma(PLATE), Normal(PLATE), Gamma(PLATE)
    return [family.from_gradient(*pair) for family, *pair in zip(families, t, gradients, strict=True)]


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_updates_at_an_offset(offset):
    """The sums of squares of rows at a distance from zero, about which raw moments would have no digits."""

    def update(dtype):
        x, location = at_offset(offset, dtype)
        full = dataclasses.replace(CASES["NormalWishart"].state(dtype), location=location)
        scalar = dataclasses.replace(CASES["NormalGamma"].state(dtype), location=location[:, 0])
        return jax.device_get(coordinate_updates(x, full, scalar))

    single = update("float32")
    with jax.enable_x64(True):
        double = update("float64")
    close(single, double)


@jax.jit
def information(states):
    """Entropies, and divergences from the other cell."""
    return [(q.base_entropy(), q.entropy(), q.kl(jax.tree.map(lambda x: x[::-1], q))) for q in states]


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6, 1e8])
def test_large_concentrations(size):
    """Entropies and divergences of concentrated factors, where A - <eta, E[t]> has no digits left."""

    def measure(dtype):
        a = np.float32(size) * np.asarray([1, 1.001], "float32")
        near_one = np.asarray([1, 1.0005], "float32")
        scale = np.float32(size) * CASES["Wishart"].state("float32").inverse_scale
        states = [
            *(GammaState(a, np.float32(rate) * near_one) for rate in (1e-3, 1, size)),
            DirichletState(np.stack([a, 2 * a, a[::-1]], -1)),
            WishartState(a, scale * near_one[:, None, None]),
        ]
        return jax.device_get(information(jax.tree.map(lambda x: x.astype(dtype), states)))

    single = measure("float32")
    with jax.enable_x64(True):
        double = measure("float64")
    for (base, entropy, kl), (base64, entropy64, kl64) in zip(single, double, strict=True):
        close(base, base64, scale=1)
        close(entropy, entropy64, scale=10)
        # the two means differ by 1e-3 or so, which float32 knows to 1e-4; a KL at 1e8 is 50 nats
        np.testing.assert_allclose(kl, kl64, rtol=1e-3, atol=np.finfo("float32").eps)


def test_small_concentrations_of_a_long_dirichlet():
    """A factor equal to its prior: log prior + entropy is zero; base measure 1 would err by 144 nats."""
    q = DirichletState(jnp.full(200, 1e-6))
    assert q.kl(q) == 0
    # the two halves, 200 terms of up to 15 nats each
    assert abs(q.log_density(q.expected()) + q.base_entropy()) < 1e-2
    assert abs(terms.dirichlet(q.expected(), 1e-6) + q.entropy()) < 200 * 1e6 * np.finfo("float32").eps


def test_small_concentrations_survive_the_natural_map():
    concentration = np.asarray([1e-8, 1e-3, 1.0, 1e5], "float32")
    for family, q in (
        (Dirichlet(4), DirichletState(concentration)),
        (Gamma((4,)), GammaState(concentration, concentration[::-1])),
        (Beta((4,)), BetaState(concentration, concentration[::-1])),
    ):
        t = q.expected()
        back = family.from_gradient(t, jax.grad(lambda t, q=q: log_joint(q, t).sum())(t))
        chex.assert_trees_all_close(back, q, rtol=1e-6)
