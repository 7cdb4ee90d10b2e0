"""Laws of the families, over one table of them.

Autodiff: the gradient of the log-normaliser is the mean map and `from_gradient` undoes the gradient of a
log density, about any pivot, for any number of densities of the latent and any weight; mixed
states have the average log density. Values: `log_prob`
and `entropy` equal scipy's; entropy, KL, mean, variance and covariance equal Monte Carlo within four of
its standard errors; KL equals the closed form of normals, is never negative, and zero for equal
distributions; the mode beats its neighbourhood. Statistics: another pivot changes nothing but the pivot.
Points: `Delta` is its mode. Shapes, and dtypes in = dtypes out. float32 keeps its digits: against float64
over the table. Families that are special cases of one another agree. (At its extremes a family is in
test_families_extremes.py.)
"""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from tests.support.family_table import (
    CASES,
    N_NEAR,
    N_POINTS,
    PLATE,
    SIZE,
    cell,
    comparable,
    elsewhere,
    facts,
    generic_points,
    jit,
    log_joint,
    over_the_table,
)
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.families import (
    BetaState,
    Delta,
    DirichletState,
    GammaState,
    LocationPrecision,
    MatrixNormalWishartState,
    MultivariateNormalGammaState,
    MultivariateNormalState,
    NormalWishartState,
    StickBreakingState,
    WishartState,
)

DISCRETE = ("Categorical", "MarkovChain")  # their values are numbers of states

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
def test_a_mixed_state_has_the_average_log_density_but_for_a_constant(name, float64):
    case = CASES[name]
    one, other = case.state("float64", 0), case.state("float64", 1)

    @jit
    def excess(one, other, rho):
        mixed = case.family.mix(one, other, rho)
        z = one.sample(jax.random.key(0), 4)
        average = (1 - rho) * one.log_prob(z) + rho * other.log_prob(z)
        return mixed.log_prob(z) - average, case.family.mix(one, other, 0.0), case.family.mix(one, other, 1.0)

    constant, none, all_the_way = excess(one, other, 0.3)
    close(constant, np.broadcast_to(constant[0], constant.shape), factor=10, scale=10)
    close(comparable(none), comparable(one), factor=10)
    close(comparable(all_the_way), comparable(other), factor=10)


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


def exact_quantile(name, x):
    """Those of a family's quantiles that are exact: not of a stick's later pieces, nor off a diagonal."""
    if name == "StickBreaking":
        return x[..., :1]
    return np.diagonal(x, axis1=-2, axis2=-1) if x.shape[-2:] == (SIZE, SIZE) and "Wishart" in name else x


@over_the_table
def test_information_and_moments_are_monte_carlos(name, float64):
    f = facts(name, "float64")

    @jit
    def draw(q):
        x = q.sample(jax.random.key(5), 20_000)
        return x, q.statistics(x), q.quantile(0.95)

    log_prob = jit(log_joint)
    x, t, top = draw(f.q)
    for draws, bound in zip(*map(jax.tree.leaves, (x, top)), strict=True):
        draws, bound = (exact_quantile(name, np.asarray(each)) for each in (draws, bound))
        if not np.isnan(bound).any():
            within_standard_errors(draws < bound, 0.95)
    known = set(jax.tree.leaves(jax.tree.map(lambda x: not np.isnan(x).any(), top)))
    assert known == {name not in (*DISCRETE, "PolyaGamma", "TruncatedNormal")}
    log_q, log_p = np.asarray(log_prob(f.q, t)), np.asarray(log_prob(f.p, t))
    within_standard_errors(-log_q, f.entropy)
    within_standard_errors(log_q - log_p, f.kl[0])
    x = t.p if name in DISCRETE else x
    for draws, m, v, c in zip(*map(jax.tree.leaves, (x, *f.moments)), strict=True):
        centred = np.asarray(draws) - m
        within_standard_errors(centred, 0)
        within_standard_errors(centred**2, v)
        within_standard_errors(centred_products(centred, c.ndim - v.ndim), c)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.has_mode])
def test_the_mode_beats_its_neighbourhood_and_is_where_delta_sits(name, dtype):
    f = facts(name, dtype.name)
    top, near = f.log_prob[N_POINTS], f.log_prob[N_POINTS + 1 :]
    assert (top >= near).all()
    assert (top > near).any()
    close(*f.at_mode, factor=10, scale=1)
    close(f.delta, (f.mode, f.mode), factor=30)
    chex.assert_trees_all_equal(f.delta_zeros, jax.tree.map(np.zeros_like, f.delta_zeros))
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
    states = case.family.from_gradient(t, gradient), q
    statistics = (
        q.expected(),
        delta.gradient,
        t,
        q.statistics(q.sample(key)),
        delta.expected(),
        t.with_base(0),
    )
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
        assert leaf.dtype == dtype or (name in DISCRETE and np.issubdtype(leaf.dtype, np.integer))
    chex.assert_tree_shape_prefix(plated, PLATE)
    chex.assert_tree_shape_prefix(scalars, PLATE)
    assert log_probs.shape == (5, *PLATE)
    event = shapes(plated["sample"])
    assert shapes(five) == shapes(plated["sample"], 5)
    assert shapes(six) == shapes(plated["sample"], 2, 3)
    assert shapes(plated["mode"]) == event
    vector = [shapes(statistics[0])[-1]] if name in DISCRETE else event  # the moments of one-hot vectors
    assert shapes(plated["mean"]) == shapes(plated["variance"]) == shapes(plated["sd"]) == vector
    assert all(shapes(x) == shapes(q) for x in (*states, neutral))
    assert all(shapes(x) == shapes(statistics[0]) for x in statistics)


def test_no_two_families_have_one_structure():
    """Or `jit` would take the one's program for the other's."""
    structures = {name: jax.tree.structure(case.state("float32")) for name, case in CASES.items()}
    for (name, one), (other, another) in itertools.combinations(structures.items(), 2):
        assert one != another, f"{name} and {other}"


def test_values_and_concentrations_broadcast(float64):
    concentration = np.asarray([[1.5, 2, 3], [4, 5, 6]])
    point = np.asarray([0.2, 0.3, 0.5])
    desired = [stats.dirichlet.logpdf(point, row) for row in concentration]
    close(DirichletState(jnp.asarray(concentration)).log_prob(point), desired)
    desired = stats.beta.logpdf(0.3, concentration[0], concentration[1])
    close(BetaState(*jnp.asarray(concentration)).log_prob(0.3), desired)


def test_no_state_has_the_structure_of_another():
    """Where jaxlib took two classes of equal fields for equal, `jit` ran the program of the wrong one."""
    trees = [jax.tree.structure(case.state("float32")) for case in CASES.values()]
    assert sum(tree == other for tree in trees for other in trees) == len(CASES)


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
        "Dirichlet in StickBreaking": (
            s["Dirichlet"],
            lambda q: StickBreakingState(
                q.concentration[..., :-1], jnp.cumsum(q.concentration[..., :0:-1], -1)[..., ::-1]
            ),
            lambda x: x,
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
