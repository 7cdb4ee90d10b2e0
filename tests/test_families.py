"""Laws of the families, over one table of them.

Autodiff: the gradient of the log-normaliser is the mean map and `from_gradient` undoes the gradient of a log
density, about any pivot, for any number of densities of the latent and any weight. Values: `log_prob` and
`entropy` equal scipy's; entropy, KL, mean, variance and covariance equal Monte Carlo within four of its standard
errors; KL equals the closed form of normals, is never negative, and zero for equal distributions; the mode
beats its neighbourhood. Statistics: another pivot changes nothing but the pivot; products of Gamma statistics.
Points: `Delta` is its mode. Shapes, and dtypes in = dtypes out. float32 keeps its digits: against float64 over
the table, at offsets, at large and at small concentrations. Families that are special cases of one another agree.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats
from tolerances import close

from vbjax import terms
from vbjax.families import (
    Beta,
    BetaState,
    Categorical,
    CategoricalState,
    CategoricalStatistics,
    Delta,
    DeltaState,
    Dirichlet,
    DirichletState,
    Gamma,
    GammaState,
    GammaStatistics,
    LocationPrecision,
    MatrixNormalWishart,
    MatrixNormalWishartState,
    MultivariateNormal,
    MultivariateNormalGamma,
    MultivariateNormalGammaState,
    MultivariateNormalState,
    Normal,
    NormalGamma,
    NormalGammaState,
    NormalState,
    NormalWishart,
    NormalWishartState,
    State,
    Wishart,
    WishartState,
)

PLATE, SIZE, ROWS = (2,), 3, 2
STANDARD_ERRORS = 4


# ---------------------------------------------------------------- the table


@dataclasses.dataclass(frozen=True)
class Case:
    """A family, a generic member of it, and what scipy knows of one of its cells."""

    family: Any
    draw: Callable[[np.random.Generator], State]
    log_pdf: Callable[[Any, Any], float]
    support: Any  # the kind of the event, or the pair of kinds
    entropy: Callable[[Any], float] | None = None

    def state(self, dtype, seed=0):
        """A generic state: well conditioned, with all moments that Monte Carlo needs."""
        drawn = self.draw(np.random.default_rng(seed))
        return jax.tree.map(lambda x: jnp.asarray(x, dtype), drawn)


def reals(rng, *event):
    return rng.normal(size=PLATE + event)


def positives(rng, low, high, *event):
    return rng.uniform(low, high, size=PLATE + event)


def definites(rng, size):
    root = reals(rng, size, 2 * size)
    return root @ np.swapaxes(root, -1, -2) / size + np.eye(size)


def inv(x):
    return np.linalg.inv(np.atleast_2d(x))


def gaussian(x, mean, precision):
    return stats.multivariate_normal.logpdf(x, mean, inv(precision))


def wishart(x, state):
    return stats.wishart.logpdf(x, state.degrees_of_freedom, inv(state.inverse_scale))


def gamma(x, state):
    return stats.gamma.logpdf(x, state.concentration, scale=1 / state.rate)


def multinomial(state):
    return stats.multinomial(1, special.softmax(state.logits))


CASES = {
    "Normal": Case(
        Normal(PLATE),
        lambda rng: NormalState(reals(rng), positives(rng, 1, 3)),
        lambda q, x: stats.norm.logpdf(x, q.mean, q.precision**-0.5),
        "real",
        lambda q: stats.norm.entropy(q.mean, q.precision**-0.5),
    ),
    "MultivariateNormal": Case(
        MultivariateNormal(SIZE, plate=PLATE),
        lambda rng: MultivariateNormalState(reals(rng, SIZE), definites(rng, SIZE)),
        lambda q, x: gaussian(x, q.mean, q.precision),
        "real",
        lambda q: stats.multivariate_normal.entropy(q.mean, inv(q.precision)),
    ),
    "Gamma": Case(
        Gamma(PLATE),
        lambda rng: GammaState(positives(rng, 1.5, 6), positives(rng, 1, 3)),
        lambda q, x: gamma(x, q),
        "positive",
        lambda q: stats.gamma.entropy(q.concentration, scale=1 / q.rate),
    ),
    "Beta": Case(
        Beta(PLATE),
        lambda rng: BetaState(positives(rng, 1.5, 6), positives(rng, 1.5, 6)),
        lambda q, x: stats.beta.logpdf(x, q.concentration1, q.concentration0),
        "unit",
        lambda q: stats.beta.entropy(q.concentration1, q.concentration0),
    ),
    "Dirichlet": Case(
        Dirichlet(SIZE, plate=PLATE),
        lambda rng: DirichletState(positives(rng, 1.5, 6, SIZE)),
        lambda q, x: stats.dirichlet.logpdf(x / x.sum(), q.concentration),  # it insists on a sum of 1
        "simplex",
        lambda q: stats.dirichlet.entropy(q.concentration),
    ),
    "Categorical": Case(
        Categorical(SIZE, plate=PLATE),
        lambda rng: CategoricalState(reals(rng, SIZE)),
        lambda q, x: multinomial(q).logpmf(np.eye(SIZE)[x]),
        "state",
        lambda q: multinomial(q).entropy(),
    ),
    "NormalGamma": Case(
        NormalGamma(PLATE),
        lambda rng: NormalGammaState(
            reals(rng), positives(rng, 1, 3), positives(rng, 5, 9), positives(rng, 3, 6)
        ),
        lambda q, x: (
            stats.norm.logpdf(x[0], q.location, (q.mean_precision * x[1]) ** -0.5) + gamma(x[1], q)
        ),
        ("real", "positive"),
    ),
    "Wishart": Case(
        Wishart(SIZE, plate=PLATE),
        lambda rng: WishartState(positives(rng, SIZE + 2, SIZE + 9), definites(rng, SIZE)),
        lambda q, x: wishart(x, q),
        "definite",
        lambda q: stats.wishart.entropy(q.degrees_of_freedom, inv(q.inverse_scale)),
    ),
    "NormalWishart": Case(
        NormalWishart(SIZE, plate=PLATE),
        lambda rng: NormalWishartState(
            reals(rng, SIZE), positives(rng, 1, 3), positives(rng, SIZE + 8, SIZE + 12), definites(rng, SIZE)
        ),
        lambda q, x: gaussian(x[0], q.location, q.mean_precision * x[1]) + wishart(x[1], q),
        ("real", "definite"),
    ),
    "MultivariateNormalGamma": Case(
        MultivariateNormalGamma(SIZE, plate=PLATE),
        lambda rng: MultivariateNormalGammaState(
            reals(rng, SIZE), definites(rng, SIZE), positives(rng, 5, 9), positives(rng, 3, 6)
        ),
        lambda q, x: gaussian(x[0], q.location, q.mean_precision * x[1]) + gamma(x[1], q),
        ("real", "positive"),
    ),
    "MatrixNormalWishart": Case(
        MatrixNormalWishart(ROWS, SIZE, plate=PLATE),
        lambda rng: MatrixNormalWishartState(
            reals(rng, ROWS, SIZE),
            definites(rng, ROWS),
            positives(rng, SIZE + 8, SIZE + 12),
            definites(rng, SIZE),
        ),
        lambda q, x: (
            stats.matrix_normal.logpdf(x[0], q.location, inv(q.mean_precision), inv(x[1])) + wishart(x[1], q)
        ),
        ("real", "definite"),
    ),
}

over_the_table = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def cell(tree, *index):
    """One cell of a plate, in float64."""

    def pick(x):
        x = np.asarray(x)[index]
        return x if np.issubdtype(x.dtype, np.integer) else x.astype(float)

    return jax.tree.map(pick, tree)


def comparable(state):
    """The state, but for what does not matter: logits have no origin."""
    if isinstance(state, CategoricalState):
        return CategoricalState(jax.nn.log_softmax(state.logits))
    return state


def elsewhere(statistics):
    """The same statistics about a pivot that is nobody's location."""
    if not hasattr(statistics, "pivot"):
        return statistics
    return statistics.about(0.7 * statistics.pivot + 0.3)


def log_joint(state, statistics):
    return state.log_density(statistics) + statistics.log_base


def scaled(statistics, weight):
    """Every field of a gradient times a number for each cell of the plate."""
    return jax.tree.map(lambda x: x * weight.reshape(PLATE + (1,) * (x.ndim - len(PLATE))), statistics)


# ---------------------------------------------------------------- autodiff


@over_the_table
def test_gradients_are_the_mean_map_and_the_natural_map(case, dtype):
    @jax.jit
    def check(state, other, weight):
        t = elsewhere(other.expected())
        value, gradient = jax.value_and_grad(lambda t: log_joint(state, t).sum())(t)
        back = case.family.from_gradient(t, gradient)
        copies = case.family.from_gradient(t, scaled(gradient, weight), weight)
        normalizer, mean = jax.value_and_grad(lambda g: case.family.log_normalizer(t, g).sum())(gradient)
        energy = (t.inner(gradient) - state.log_density(t)).sum()
        return back, copies, (normalizer, energy, value), mean, state.expected().like(t)

    state, weight = case.state(dtype), np.asarray([3.0, 0.5], dtype)
    back, copies, (normalizer, energy, value), mean, expected = check(state, case.state(dtype, 1), weight)
    # a location and a scale are formed back from sums about a distant pivot: ten times the roundings
    close(comparable(back), comparable(state), factor=10)
    close(comparable(copies), comparable(state), factor=10)
    close(normalizer, energy, factor=10, scale=abs(value))
    close(mean.natural, expected.natural, factor=30)
    close(mean.log_base, expected.log_base, factor=10)


@over_the_table
@pytest.mark.parametrize("n_densities", [0, 2])
def test_log_normalizer_counts_the_densities_of_the_latent(case, n_densities, float64):
    """Of a log joint <g, t> + n log h the normaliser's gradient is E[t], and E[log h] with respect to n."""

    @jax.jit
    def check(state):
        t = elsewhere(state.expected())
        gradient = jax.grad(lambda t: state.log_density(t).sum())(t).with_base(n_densities)
        optimum = case.family.from_gradient(t, gradient)
        mean = jax.grad(lambda g: case.family.log_normalizer(t, g).sum())(gradient)
        return mean, optimum.expected().like(t)

    mean, expected = check(case.state(float64))
    close(mean.natural, expected.natural, factor=30)
    close(mean.log_base, expected.log_base, factor=10)


# ---------------------------------------------------------------- values


@over_the_table
def test_log_prob_is_scipys(case, dtype):
    state = case.state(dtype)
    draws = jax.jit(lambda q: q.sample(jax.random.key(3), 4))(state)
    actual = jax.jit(lambda q, x: q.log_prob(x))(state, draws)
    desired = [[case.log_pdf(cell(state, j), cell(draws, i, j)) for j in range(*PLATE)] for i in range(4)]
    # a determinant, a quadratic form and a trace of some tens each
    close(actual, desired, factor=10)


@pytest.mark.parametrize("case", [c for c in CASES.values() if c.entropy], ids=lambda c: type(c.family).__name__)
def test_entropy_is_scipys(case, float64):
    state = case.state(float64)
    desired = [case.entropy(cell(state, j)) for j in range(*PLATE)]
    close(jax.jit(lambda q: q.entropy())(state), desired, factor=10, scale=1)


def within_standard_errors(draws, exact):
    """The mean over the first axis of `draws` is `exact`."""
    draws, exact = np.asarray(draws), np.asarray(exact)
    error = draws.std(0) / np.sqrt(len(draws)) + 1e-12
    np.testing.assert_array_less(np.abs(draws.mean(0) - exact) / error, STANDARD_ERRORS)


def centred_products(x, n_axes):
    """x for n_axes = 0 squared, else the outer product over the last axes, as `covariance` has them."""
    return x**2 if n_axes == 0 else np.einsum(["", "...i,...j->...ij", "...ij,...kl->...ijkl"][n_axes], x, x)


@over_the_table
def test_information_and_moments_are_monte_carlos(case, float64):
    @jax.jit
    def draw(q, p):
        x = q.sample(jax.random.key(5), 20_000)
        moments = q.mean, q.variance, q.covariance
        value = q.statistics(x).p if case.support == "state" else x
        return value, q.log_prob(x), p.log_prob(x), q.entropy(), q.kl(p), moments

    x, log_q, log_p, entropy, kl, (mean, variance, covariance) = draw(case.state(float64), case.state(float64, 1))
    within_standard_errors(-log_q, entropy)
    within_standard_errors(log_q - log_p, kl)
    assert (kl > 0).all()
    for x, m, v, c in zip(*map(jax.tree.leaves, (x, mean, variance, covariance)), strict=True):
        within_standard_errors(x, m)
        within_standard_errors((x - m) ** 2, v)
        within_standard_errors(centred_products(x - m, c.ndim - v.ndim), c)


@over_the_table
def test_kl_is_zero_at_equality_and_the_difference_of_its_halves(case, dtype):
    @jax.jit
    def check(q, p):
        cross_entropy = -p.log_density(q.expected())
        return q.kl(q), q.kl(p), cross_entropy, q.base_entropy(), jnp.stack(jax.tree.leaves(q.sd)[0].shape)

    q, p = case.state(dtype), case.state(dtype, 1)
    zero, kl, cross_entropy, base_entropy, _ = check(q, p)
    close(zero, np.zeros(PLATE), scale=1)
    close(kl, cross_entropy - base_entropy, factor=3, scale=np.abs(cross_entropy).max())


def nudged(kind, x, rng, size=0.02):
    """A point of the same support near x."""
    if kind == "real":
        return x + size * rng.normal(size=x.shape)
    if kind == "definite":
        root = np.eye(x.shape[-1]) + size * rng.normal(size=x.shape)
        return root @ x @ np.swapaxes(root, -1, -2)
    y = x * np.exp(size * rng.normal(size=x.shape))
    if kind == "unit":
        return y / (y + (1 - x))
    return y / y.sum(-1, keepdims=True) if kind == "simplex" else y


def neighbours(case, x):
    rng, kinds = np.random.default_rng(7), case.support
    if kinds == "state":
        return [jnp.full(PLATE, i, x.dtype) for i in range(SIZE)]
    if isinstance(kinds, str):
        return [nudged(kinds, x, rng) for _ in range(50)]
    return [LocationPrecision(*map(nudged, kinds, x, (rng, rng))) for _ in range(50)]


@over_the_table
def test_the_mode_beats_its_neighbourhood_and_is_where_delta_sits(case, float64):
    @jax.jit
    def check(state, near):
        t = elsewhere(case.state(float64, 1).expected())
        gradient = jax.grad(lambda t: log_joint(state, t).sum())(t)
        family = Delta(of=case.family)
        return family.from_gradient(t, gradient), family.log_normalizer(t, gradient) - (
            t.inner(gradient) - state.log_density(t)
        ), state.log_prob(state.mode), jax.vmap(state.log_prob)(near)

    state = case.state(float64)
    near = jax.tree.map(lambda *x: jnp.stack(x), *neighbours(case, state.mode))
    delta, height, top, around = check(state, near)
    assert (top >= around).all()
    assert (top > around).any()
    close(height, top, factor=10, scale=10)  # the largest log joint less the normaliser: the density's peak
    assert isinstance(delta, DeltaState)
    close(delta.mode, state.mode, factor=30)
    close(delta.mean, delta.mode)
    close(delta.expected(), state.statistics(state.mode), factor=10, scale=1)
    for leaf in jax.tree.leaves((delta.variance, delta.covariance, delta.entropy())):
        assert (leaf == 0).all()
    close(delta.sample(jax.random.key(0), 3), jax.tree.map(lambda x: jnp.stack([x] * 3), delta.mode))


def test_kl_of_normals_is_the_closed_form(dtype):
    q, p = CASES["Normal"].state(dtype), CASES["Normal"].state(dtype, 1)
    a, b = cell(q, slice(None)), cell(p, slice(None))
    ratio = b.precision / a.precision
    close(q.kl(p), 0.5 * (ratio - 1 - np.log(ratio) + b.precision * (a.mean - b.mean) ** 2))
    q, p = CASES["MultivariateNormal"].state(dtype), CASES["MultivariateNormal"].state(dtype, 1)
    a, b = cell(q, slice(None)), cell(p, slice(None))
    product, shift = b.precision @ np.linalg.inv(a.precision), a.mean - b.mean
    desired = np.trace(product, axis1=1, axis2=2) - SIZE - np.linalg.slogdet(product)[1]
    close(q.kl(p), 0.5 * (desired + np.einsum("pi,pij,pj->p", shift, b.precision, shift)), factor=3)


positive = st.floats(-6, 6).map(lambda x: 10.0**x)


@jax.jit
def divergences(a, b):
    gammas = GammaState(a[0], a[1]), GammaState(b[0], b[1])
    betas = BetaState(a[0], a[1]), BetaState(b[0], b[1])
    dirichlets = DirichletState(a), DirichletState(b)
    pairs = gammas, betas, dirichlets
    return jnp.stack([q.kl(p) for q, p in pairs]), jnp.stack([q.kl(q) for q, _ in pairs])


@given(st.tuples(*[positive] * 3), st.tuples(*[positive] * 3))
@pytest.mark.parametrize("x64", [False, True])
def test_kl_is_never_negative(x64, a, b):
    with jax.enable_x64(x64):
        a, b = jnp.asarray(a), jnp.asarray(b)
        between, itself = divergences(a, b)
        # what is added up: a log-ratio for each unit of concentration on the other side, and P(a) = -1 / a
        magnitude = 10 + (jnp.max(b) + 1) * (1 + jnp.max(1 / a))
        assert (between >= -4 * jnp.finfo(a.dtype).eps * magnitude).all()
        assert (itself == 0).all()
