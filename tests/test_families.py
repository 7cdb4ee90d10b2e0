"""Laws of the families, over one table of them.

Autodiff: the gradient of the log-normaliser is the mean map and `from_gradient` undoes the gradient of a
log density, about any pivot, for any number of densities of the latent and any weight. Values: `log_prob`
and `entropy` equal scipy's; entropy, KL, mean, variance and covariance equal Monte Carlo within four of
its standard errors; KL equals the closed form of normals, is never negative, and zero for equal
distributions; the mode beats its neighbourhood. Statistics: another pivot changes nothing but the pivot;
products of Gamma statistics. Points: `Delta` is its mode. Shapes, and dtypes in = dtypes out. float32
keeps its digits: against float64 over the table, at offsets, at large and at small concentrations.
Families that are special cases of one another agree.
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
        """A generic state, the same in any dtype; well conditioned, its moments finite."""
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
        lambda q, x: stats.norm.logpdf(x[0], q.location, (q.mean_precision * x[1]) ** -0.5) + gamma(x[1], q),
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

# by family and not by law, so that what is compiled for one law serves the next, and the largest programs
# first, so that several workers share only small ones
over_the_table = pytest.mark.parametrize("name", list(reversed(CASES)), scope="module")

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


def nudged(kind, x, noise, size):
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


def around(case, value, n, size):
    """n points of the support around a value, on a new first axis."""
    rng = np.random.default_rng(2)
    leaves = [
        nudged(kind, x, rng.normal(size=(n, *x.shape)).astype("float32").astype(x.dtype), size)
        for kind, x in zip(case.support, jax.tree.leaves(value), strict=True)
    ]
    return LocationPrecision(*leaves) if len(leaves) == 2 else leaves[0]


def neighbours(case, state):
    return around(case, state.mode, N_NEAR, 0.02)


def generic_points(case, state):
    return around(case, state.mode, N_POINTS, 0.3)


@functools.cache
def facts(name, dtype):
    """What the laws below compare, measured by one program for each family and dtype."""
    case = CASES[name]

    @jit
    def measure(q, p, weight):
        t = elsewhere(p.expected())
        gradient = jax.grad(lambda t: log_joint(q, t).sum())(t)
        delta = Delta(of=case.family).from_gradient(t, gradient)
        # generic points, the mode, its neighbourhood
        parts = generic_points(case, p), jax.tree.map(lambda x: x[None], q.mode), neighbours(case, q)
        points = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
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
        return SimpleNamespace(**jax.device_get(measure(q, p, np.asarray([3.0, 0.5], dtype))))


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
    """Of <g, t> + n log h, n = 0, 1 or 2 densities of the latent: E[t], and E[log h] with respect to n."""
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
    for draws, m, v, c in zip(*map(jax.tree.leaves, (x, *f.moments)), strict=True):
        centred = np.asarray(draws) - m
        within_standard_errors(centred, 0)
        within_standard_errors(centred**2, v)
        within_standard_errors(centred_products(centred, c.ndim - v.ndim), c)


@over_the_table
def test_the_mode_beats_its_neighbourhood_and_is_where_delta_sits(name, dtype):
    f = facts(name, dtype.name)
    top, near = f.log_prob[N_POINTS], f.log_prob[N_POINTS + 1 :]
    assert (top >= near).all()
    assert (top > near).any()
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


@jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def divergences(a, b):
    gammas = GammaState(a[0], a[1]).kl(GammaState(b[0], b[1]))
    betas = BetaState(a[0], a[1]).kl(BetaState(b[0], b[1]))
    return jnp.stack([gammas, betas, DirichletState(a).kl(DirichletState(b))])


@pytest.mark.parametrize("double", [False, True])
@given(a=st.tuples(*[positive] * 3), b=st.tuples(*[positive] * 3))
def test_kl_is_never_negative(double, a, b):
    a, b = (np.asarray(x, "float64" if double else "float32") for x in (a, b))
    with jax.enable_x64(double):
        between, itself = np.asarray(divergences(a, np.stack([b, a])))
    # what is added up: a log-ratio for each unit of concentration on the other side, and P(a) = -1 / a
    magnitude = 10 + (b.max() + 1) * (1 + 1 / a.min())
    assert (between >= -4 * np.finfo(a.dtype).eps * magnitude).all()
    # a sum of concentrations may be added up in another order on the other side
    assert (np.abs(itself) <= 32 * np.finfo(a.dtype).eps).all()


# ---------------------------------------------------------------- shapes and dtypes


def everything(case, q, p, key):
    """All that a state and its family give, as one tree; nothing is computed under `eval_shape`."""
    t = q.expected().like(p.expected())
    gradient = jax.grad(lambda t: log_joint(q, t).sum())(t)
    delta = Delta(of=case.family).from_gradient(t, gradient)
    plated = dict(
        sample=q.sample(key), mean=q.mean, variance=q.variance, covariance=q.covariance, sd=q.sd, mode=q.mode
    )
    scalars = dict(
        entropy=q.entropy(),
        kl=q.kl(p),
        log_density=q.log_density(t),
        base_entropy=case.family.base_entropy(q),
        log_normalizer=case.family.log_normalizer(t, gradient),
        delta_log_normalizer=Delta(of=case.family).log_normalizer(t, gradient),
        log_prob=q.log_prob(q.sample(key)),
        inner=t.inner(gradient),
    )
    samples = q.sample(key, 5), q.sample(key, (2, 3)), q.log_prob(q.sample(key, 5))
    states = case.family.from_gradient(t, gradient), delta.at, q
    statistics = q.expected(), q.at_mode(), t, q.statistics(q.sample(key)), delta.expected(), t.with_base(0)
    deltas = delta.mean, delta.variance, delta.covariance, delta.sample(key, 5), delta.entropy()
    return plated, scalars, samples, states, statistics, deltas


def shapes(tree, *leading):
    return [leading + x.shape for x in jax.tree.leaves(tree)]


@over_the_table
@pytest.mark.parametrize("setting", ["float32", "float64", "float32 where float64 is enabled"])
def test_shapes_and_dtypes(name, setting):
    case, dtype = CASES[name], np.dtype(setting[:7])
    with jax.enable_x64(setting != "float32"):
        q, p = case.state(dtype), case.state(dtype, 1)
        tree = jax.eval_shape(lambda q, p: everything(case, q, p, jax.random.key(0)), q, p)
        neutral = jax.eval_shape(lambda: case.family.neutral(dtype))
    plated, scalars, (five, six, log_probs), states, statistics, _ = tree
    for leaf in jax.tree.leaves((tree, neutral)):
        assert leaf.dtype == dtype or (name == "Categorical" and np.issubdtype(leaf.dtype, np.integer))
    assert all(x[: len(PLATE)] == PLATE for x in shapes(plated))
    assert all(x == PLATE for x in shapes(scalars))
    assert log_probs.shape == (5, *PLATE)
    event = shapes(plated["sample"])
    assert shapes(five) == shapes(plated["sample"], 5)
    assert shapes(six) == shapes(plated["sample"], 2, 3)
    assert shapes(plated["mode"]) == event
    vector = shapes(statistics[0]) if name == "Categorical" else event  # the moments of its one-hot vector
    assert shapes(plated["mean"]) == shapes(plated["variance"]) == shapes(plated["sd"]) == vector
    assert all(shapes(x) == shapes(q) for x in (*states, neutral))
    assert all(shapes(x) == shapes(statistics[0]) for x in statistics)


def test_values_and_concentrations_broadcast(float64):
    concentration = np.asarray([[1.5, 2, 3], [4, 5, 6]])
    point = np.asarray([0.2, 0.3, 0.5])
    desired = [stats.dirichlet.logpdf(point, row) for row in concentration]
    close(DirichletState(jnp.asarray(concentration)).log_prob(point), desired)
    desired = stats.beta.logpdf(0.3, concentration[0], concentration[1])
    close(BetaState(*jnp.asarray(concentration)).log_prob(0.3), desired)


# ---------------------------------------------------------------- families within families


def one(x, *axes):
    return np.expand_dims(x, axes)


def special_cases():
    """Pairs of equal states, of a family and of one that contains it, and how to turn a value."""
    s, last, matrix = CASES, (-1,), (-1, -2)
    pair = lambda x: LocationPrecision(one(x[0], *last), one(x[1], *matrix))
    vector = lambda x: LocationPrecision(one(x[0], *last), x[1])

    def wisharts(q):
        return NormalWishartState(
            one(q.location, -1), q.mean_precision, 2 * q.concentration, one(2 * q.rate, *matrix)
        )

    def gammas(q):
        return MultivariateNormalGammaState(
            one(q.location, -1), one(q.mean_precision, *matrix), q.concentration, q.rate
        )

    def matrices(q):
        return MatrixNormalWishartState(
            one(q.location, -2), one(q.mean_precision, *matrix), q.degrees_of_freedom, q.inverse_scale
        )

    return {
        "Normal in MultivariateNormal": (
            s["Normal"],
            lambda q: MultivariateNormalState(one(q.mean, -1), one(q.precision, *matrix)),
            lambda x: one(x, -1),
        ),
        "Beta in Dirichlet": (
            s["Beta"],
            lambda q: DirichletState(np.stack([q.concentration1, q.concentration0], -1)),
            lambda x: np.stack([x, 1 - x], -1),
        ),
        "Gamma in Wishart": (
            s["Gamma"],
            lambda q: WishartState(2 * q.concentration, one(2 * q.rate, *matrix)),
            lambda x: one(x, *matrix),
        ),
        "NormalGamma in NormalWishart": (s["NormalGamma"], wisharts, pair),
        "NormalGamma in MultivariateNormalGamma": (s["NormalGamma"], gammas, vector),
        "NormalWishart in MatrixNormalWishart": (
            s["NormalWishart"],
            matrices,
            lambda x: LocationPrecision(one(x[0], -2), x[1]),
        ),
        "NormalGamma in MatrixNormalWishart": (
            s["NormalGamma"],
            lambda q: matrices(wisharts(q)),
            lambda x: LocationPrecision(one(x[0], *matrix), one(x[1], *matrix)),
        ),
    }


@jit
def summary(q, p, x):
    return q.log_prob(x), q.entropy(), q.base_entropy(), q.kl(p), (q.mean, q.variance, q.mode)


@pytest.mark.parametrize("pair", special_cases())
def test_a_family_within_another_is_the_same(pair, float64):
    case, larger, turned = special_cases()[pair]
    q, p = case.state(float64), case.state(float64, 1)
    x = jax.tree.map(lambda x: x[0], generic_points(case, p))
    small, large = summary(q, p, x), summary(larger(q), larger(p), turned(x))
    close(large[:4], small[:4], factor=3, scale=1)
    if pair == "Beta in Dirichlet":
        large = jax.tree.map(lambda x: x[..., 0], large)
    close(*([jnp.ravel(x) for x in jax.tree.leaves(y[4])] for y in (large, small)), factor=3)


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
    point = Delta(of=Dirichlet(SIZE)).from_gradient(
        None, terms.DirichletStatistics(jnp.asarray([3.0, 1, 0], dtype), jnp.zeros((), dtype))
    )
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
        for actual, desired in zip(jax.tree.leaves(back), jax.tree.leaves(q), strict=True):
            np.testing.assert_allclose(actual, desired, rtol=1e-6)
