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
import functools
from collections.abc import Callable
from types import SimpleNamespace
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
    support: tuple[str, ...]  # the kind of the event, or of the location's and the precision's
    entropy: Callable[[Any], float] | None = None

    def state(self, dtype, seed=0):
        """A generic state: well conditioned, with the moments that Monte Carlo needs; the same in any dtype."""
        drawn = self.draw(np.random.default_rng(seed))
        return jax.tree.map(lambda x: x.astype("float32").astype(dtype), drawn)


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
        ("real",),
        lambda q: stats.norm.entropy(q.mean, q.precision**-0.5),
    ),
    "MultivariateNormal": Case(
        MultivariateNormal(SIZE, plate=PLATE),
        lambda rng: MultivariateNormalState(reals(rng, SIZE), definites(rng, SIZE)),
        lambda q, x: gaussian(x, q.mean, q.precision),
        ("real",),
        lambda q: stats.multivariate_normal.entropy(q.mean, inv(q.precision)),
    ),
    "Gamma": Case(
        Gamma(PLATE),
        lambda rng: GammaState(positives(rng, 1.5, 6), positives(rng, 1, 3)),
        lambda q, x: gamma(x, q),
        ("positive",),
        lambda q: stats.gamma.entropy(q.concentration, scale=1 / q.rate),
    ),
    "Beta": Case(
        Beta(PLATE),
        lambda rng: BetaState(positives(rng, 1.5, 6), positives(rng, 1.5, 6)),
        lambda q, x: stats.beta.logpdf(x, q.concentration1, q.concentration0),
        ("unit",),
        lambda q: stats.beta.entropy(q.concentration1, q.concentration0),
    ),
    "Dirichlet": Case(
        Dirichlet(SIZE, plate=PLATE),
        lambda rng: DirichletState(positives(rng, 1.5, 6, SIZE)),
        lambda q, x: stats.dirichlet.logpdf(x / x.sum(), q.concentration),  # it insists on a sum of 1
        ("simplex",),
        lambda q: stats.dirichlet.entropy(q.concentration),
    ),
    "Categorical": Case(
        Categorical(SIZE, plate=PLATE),
        lambda rng: CategoricalState(reals(rng, SIZE)),
        lambda q, x: multinomial(q).logpmf(np.eye(SIZE)[x]),
        ("state",),
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
        lambda rng: WishartState(positives(rng, SIZE + 5, SIZE + 9), definites(rng, SIZE)),
        lambda q, x: wishart(x, q),
        ("definite",),
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

# by family and not by law, so that what is compiled for one law serves the next, also on several workers
over_the_table = pytest.mark.parametrize("name", CASES, scope="module")

# programs that run once: compiling them is all that they cost
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def cell(tree, *index):
    """One cell of a plate, in float64."""

    def pick(x):
        x = np.asarray(x)[index]
        return x if np.issubdtype(x.dtype, np.integer) else x.astype(float)

    return jax.tree.map(pick, tree)


def comparable(state):
    """The state, but for what does not matter: logits have no origin."""
    return CategoricalState(state.log_probabilities) if isinstance(state, CategoricalState) else state


def elsewhere(statistics):
    """The same statistics about a pivot that is nobody's location."""
    return statistics.about(0.7 * statistics.pivot + 0.3) if hasattr(statistics, "pivot") else statistics


def log_joint(state, statistics):
    """One density of the latent: all that its coordinate update needs to know."""
    return state.log_density(statistics) + statistics.log_base


def scaled(statistics, weight):
    """Every field of a gradient times a number for each cell of the plate."""
    return jax.tree.map(lambda x: x * weight.reshape(PLATE + (1,) * (x.ndim - len(PLATE))), statistics)


N_POINTS, N_NEAR = 4, 20


def nudged(kind, x, noise, size=0.02):
    """Points of the same support near x, one for each row of standard normal noise."""
    if kind == "state":  # all states are neighbours
        return jnp.broadcast_to(jnp.arange(len(noise), dtype=x.dtype)[:, None] % SIZE, noise.shape)
    if kind == "real":
        return x + size * noise
    if kind == "definite":
        root = jnp.eye(x.shape[-1], dtype=x.dtype) + size * noise
        return root @ x @ jnp.swapaxes(root, -1, -2)
    y = x * jnp.exp(size * noise)
    if kind == "unit":
        return y / (y + (1 - x))
    return y / y.sum(-1, keepdims=True) if kind == "simplex" else y


@functools.cache
def facts(name, dtype):
    """What the laws below compare, measured by one program for each family and dtype."""
    case = CASES[name]

    @jit
    def measure(q, p, weight, noise):
        t = elsewhere(p.expected())
        gradient = jax.grad(lambda t: log_joint(q, t).sum())(t)
        delta = Delta(of=case.family).from_gradient(t, gradient)
        # generic points (which are the neighbours of some other state's mode), the mode, its neighbourhood
        mode, other = jax.tree.leaves(q.mode), jax.tree.leaves(p.mode)
        points = [
            jnp.concatenate([nudged(kind, o, z[:N_POINTS], 0.3), m[None], nudged(kind, m, z[N_POINTS:])])
            for kind, m, o, z in zip(case.support, mode, other, noise, strict=True)
        ]
        points = LocationPrecision(*points) if len(points) == 2 else points[0]
        return SimpleNamespace(
            q=q,
            p=p,
            points=points,
            log_prob=q.log_prob(points),
            entropy=q.entropy(),
            base_entropy=q.base_entropy(),
            kl=jax.vmap(q.kl)(jax.tree.map(lambda *x: jnp.stack(x), p, q)),  # to the other, and to itself
            cross_entropy=-p.log_density(q.expected()),
            expected=q.expected(),
            log_density=q.log_density(t),
            log_density_about_itself=q.log_density(p.expected()),
            round_trip=(t.like(p.expected()), p.expected()),
            from_gradient=case.family.from_gradient(t, gradient),
            from_gradient_of_copies=case.family.from_gradient(t, scaled(gradient, weight), weight),
            log_normalizer=case.family.log_normalizer(t, gradient),
            energy=t.inner(gradient),
            moments=(q.mean, q.variance, q.covariance),
            mode=q.mode,
            at_mode=(delta.expected(), q.statistics(q.mode)),
            delta=(delta.mean, delta.mode),
            delta_zeros=(delta.variance, delta.covariance, delta.entropy(), delta.base_entropy()),
            delta_normalizer=Delta(of=case.family).log_normalizer(t, gradient),
        ).__dict__

    with jax.enable_x64(dtype == "float64"):
        q, p = case.state(dtype), case.state(dtype, 1)
        rng = np.random.default_rng(2)
        noise = [
            rng.normal(size=(N_POINTS + N_NEAR, *x.shape)).astype("float32").astype(dtype)
            for x in jax.tree.leaves(jax.eval_shape(lambda q: q.mode, q))
        ]
        return SimpleNamespace(**jax.device_get(measure(q, p, np.asarray([3.0, 0.5], dtype), noise)))


# ---------------------------------------------------------------- autodiff


@over_the_table
def test_from_gradient_undoes_the_gradient_of_a_log_density(name, dtype):
    f = facts(name, dtype.name)
    # a location and a scale are formed back from sums about a distant pivot: ten times the roundings
    close(comparable(f.from_gradient), comparable(f.q), factor=10)
    close(comparable(f.from_gradient_of_copies), comparable(f.q), factor=10)


@over_the_table
def test_log_normalizer_is_the_energy_less_the_log_density(name, dtype):
    f = facts(name, dtype.name)
    close(f.log_normalizer, f.energy - f.log_density, factor=3, scale=np.abs(f.energy).max())


@over_the_table
def test_gradient_of_the_log_normalizer_is_the_mean_map(name, float64):
    """Of <g, t> + n log h, with n = 0, 1 or 2 densities of the latent: E[t], and E[log h] with respect to n."""
    case = CASES[name]

    @jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def check(state, n_densities):
        t = elsewhere(state.expected())
        gradient = jax.grad(lambda t: state.log_density(t).sum())(t).with_base(n_densities)
        mean = jax.grad(lambda g: case.family.log_normalizer(t, g).sum())(gradient)
        return mean, case.family.from_gradient(t, gradient).expected().like(t)

    mean, expected = check(case.state(float64), np.arange(3.0))
    # trigammas of the remainders' definition times what they are subtracted from, about a distant pivot
    close(mean.natural, expected.natural, factor=30)
    close(mean.log_base, expected.log_base, factor=30)


@over_the_table
def test_another_pivot_changes_nothing_but_the_pivot(name, dtype):
    f = facts(name, dtype.name)
    back, statistics = f.round_trip
    close(back, statistics, factor=3, scale=1)
    close(f.log_density, f.log_density_about_itself, factor=3, scale=np.abs(f.energy).max())


# ---------------------------------------------------------------- values


@over_the_table
def test_log_prob_is_scipys(name, dtype):
    f, n = facts(name, dtype.name), N_POINTS + 1 + N_NEAR
    log_pdf = CASES[name].log_pdf
    desired = [[log_pdf(cell(f.q, j), cell(f.points, i, j)) for j in range(*PLATE)] for i in range(n)]
    # a determinant, a quadratic form and a trace of some tens each
    close(f.log_prob, desired, factor=10)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.entropy])
def test_entropy_is_scipys(name, dtype):
    f = facts(name, dtype.name)
    close(f.entropy, [CASES[name].entropy(cell(f.q, j)) for j in range(*PLATE)], factor=3, scale=1)


@over_the_table
def test_kl_is_zero_at_equality_and_the_difference_of_its_halves(name, dtype):
    f = facts(name, dtype.name)
    close(f.kl[1], np.zeros(PLATE), scale=1)
    close(f.kl[0], f.cross_entropy - f.base_entropy, factor=3, scale=np.abs(f.cross_entropy).max())
    assert (f.kl[0] > 0).all()


def test_kl_of_normals_is_the_closed_form(dtype):
    f = facts("Normal", dtype.name)
    a, b = cell(f.q, slice(None)), cell(f.p, slice(None))
    ratio = b.precision / a.precision
    close(f.kl[0], 0.5 * (ratio - 1 - np.log(ratio) + b.precision * (a.mean - b.mean) ** 2))
    f = facts("MultivariateNormal", dtype.name)
    a, b = cell(f.q, slice(None)), cell(f.p, slice(None))
    product, shift = b.precision @ np.linalg.inv(a.precision), a.mean - b.mean
    desired = np.trace(product, axis1=1, axis2=2) - SIZE - np.linalg.slogdet(product)[1]
    close(f.kl[0], 0.5 * (desired + np.einsum("pi,pij,pj->p", shift, b.precision, shift)), factor=3)


def within_standard_errors(draws, exact):
    """The mean over the first axis of `draws` is `exact`."""
    error = draws.std(0) / np.sqrt(len(draws)) + 1e-12
    np.testing.assert_array_less(np.abs(draws.mean(0) - exact) / error, STANDARD_ERRORS)


def centred_products(x, n_axes):
    """x for n_axes = 0 squared, else the outer product over the last axes, as `covariance` has them."""
    return x**2 if n_axes == 0 else np.einsum(["", "...i,...j->...ij", "...ij,...kl->...ijkl"][n_axes], x, x)


@over_the_table
def test_information_and_moments_are_monte_carlos(name, float64):
    f = facts(name, "float64")

    @jit
    def draw(q):
        x = q.sample(jax.random.key(5), 20_000)
        return x, q.statistics(x)

    log_prob = jit(log_joint)
    x, t = draw(f.q)
    log_q, log_p = np.asarray(log_prob(f.q, t)), np.asarray(log_prob(f.p, t))
    within_standard_errors(-log_q, f.entropy)
    within_standard_errors(log_q - log_p, f.kl[0])
    x = t.p if CASES[name].support == ("state",) else x
    for x, m, v, c in zip(*map(jax.tree.leaves, (x, *f.moments)), strict=True):
        x = np.asarray(x)
        within_standard_errors(x, m)
        within_standard_errors((x - m) ** 2, v)
        within_standard_errors(centred_products(x - m, c.ndim - v.ndim), c)


@over_the_table
def test_the_mode_beats_its_neighbourhood_and_is_where_delta_sits(name, dtype):
    f = facts(name, dtype.name)
    top, around = f.log_prob[N_POINTS], f.log_prob[N_POINTS + 1 :]
    assert (top >= around).all()
    assert (top > around).any()
    close(*f.at_mode, factor=10, scale=1)
    close(f.delta, (f.mode, f.mode), factor=30)
    assert all((x == 0).all() for x in jax.tree.leaves(f.delta_zeros))
    peak = f.delta_normalizer - f.log_normalizer  # the largest log joint less the normaliser
    close(peak, top, factor=10, scale=np.abs(f.energy).max())
    if name == "Categorical":
        close(f.delta_normalizer, f.log_normalizer + np.log(special.softmax(f.q.logits, -1).max(-1)))


@over_the_table
def test_float32_has_its_digits(name):
    single, double = facts(name, "float32"), facts(name, "float64")
    for field in ("expected", "moments", "mode", "entropy", "base_entropy", "log_prob", "cross_entropy"):
        close(getattr(single, field), getattr(double, field), factor=3, scale=1)
    close(single.kl, double.kl, scale=1)


positive = st.floats(-6, 6).map(lambda x: 10.0**x)


@jax.jit
def divergences(a, b):
    gammas = GammaState(a[0], a[1]), GammaState(b[0], b[1])
    betas = BetaState(a[0], a[1]), BetaState(b[0], b[1])
    pairs = gammas, betas, (DirichletState(a), DirichletState(b))
    return jnp.stack([q.kl(p) for q, p in pairs]), jnp.stack([q.kl(q) for q, _ in pairs])


@pytest.mark.parametrize("double", [False, True])
@given(a=st.tuples(*[positive] * 3), b=st.tuples(*[positive] * 3))
def test_kl_is_never_negative(double, a, b):
    a, b = (np.asarray(x, "float64" if double else "float32") for x in (a, b))
    with jax.enable_x64(double):
        between, itself = map(np.asarray, divergences(a, b))
    # what is added up: a log-ratio for each unit of concentration on the other side, and P(a) = -1 / a
    magnitude = 10 + (b.max() + 1) * (1 + 1 / a.min())
    assert (between >= -4 * np.finfo(a.dtype).eps * magnitude).all()
    assert (itself == 0).all()
