"""Laws of the terms, over one table of them.

At values, at the statistics of those values, and at these about another pivot, a term is the ordinary log
density of scipy. It is affine in the statistics of every argument (the second difference is zero at two
scales, and the first is the gradient's). It broadcasts, keeps the dtype, and is finite with finite
gradients at probability zero.
"""

import dataclasses
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.support.family_table import (
    CASES,
    PLATE,
    ROWS,
    SIZE,
    cell,
    elsewhere,
    gaussian,
    generic_points,
    inv,
    jit,
    stick_breaking,
)
from tests.support.tolerances import close
from vbjax import terms
from vbjax.families import (
    BetaStatistics,
    CategoricalStatistics,
    DirichletStatistics,
    GammaStatistics,
    GaussMarkovStatistics,
    LocationPrecision,
    MarkovChainStatistics,
    MatrixNormalWishartStatistics,
    MultivariateNormalGammaStatistics,
    MultivariateNormalStatistics,
    NormalGammaStatistics,
    NormalStatistics,
    NormalWishartStatistics,
    StickBreakingState,
    StickBreakingStatistics,
    WishartStatistics,
)


def one_hot(x):
    return CategoricalStatistics(jax.nn.one_hot(x, SIZE))


def diagonal(x):
    """A vector's statistics, of which an elementwise term reads the diagonal."""
    return MultivariateNormalStatistics.of(x)


@dataclasses.dataclass(frozen=True)
class Term:
    """A term, families whose draws its arguments are, how to read their statistics, and its scipy twin.

    An argument that is drawn from no family is a hyperparameter: an array, the same for every cell.
    """

    term: Callable
    arguments: tuple  # names of families, or hyperparameters
    kinds: tuple  # the statistics of each argument; None for one that is only ever a value
    log_pdf: Callable
    pair: bool = False  # a pair of location and precision is read only as statistics


definite = np.asarray([[2.0, 0.5, 0.25], [0.5, 1.5, -0.5], [0.25, -0.5, 3.0]])
vector = np.asarray([0.5, -1.0, 2.0])
matrix = np.asarray([[0.5, -1.0, 2.0], [1.0, 0.25, -0.5]])
stochastic = np.asarray([[0.5, 0.25, 0.25], [0.125, 0.5, 0.375], [0.25, 0.25, 0.5]])
square = np.asarray([[0.9, -0.2], [0.4, 0.7]])


def of_path(x):
    return MarkovChainStatistics.of_path(x, SIZE, jnp.result_type(float))


def path_log_density(x, m, p, a, lam):
    steps = [gaussian(after, a @ before, lam) for before, after in itertools.pairwise(x)]
    return gaussian(x[0], m, p) + sum(steps)


of = lambda *kinds: tuple(kind and kind.of for kind in kinds)

TERMS = {
    "normal": Term(
        terms.normal,
        ("Normal", "Normal", "Gamma"),
        of(NormalStatistics, NormalStatistics, GammaStatistics),
        lambda x, m, tau: stats.norm.logpdf(x, m, tau**-0.5),
    ),
    "normal, of a vector": Term(
        terms.normal,
        ("MultivariateNormal", "MultivariateNormal", 2.5),
        (diagonal, diagonal, None),
        lambda x, m, tau: stats.norm.logpdf(x, m, tau**-0.5),
    ),
    "normal, joint": Term(
        terms.normal,
        (0.75, "NormalGamma"),
        of(None, NormalGammaStatistics),
        lambda x, z: stats.norm.logpdf(x, z[0], z[1] ** -0.5),
        pair=True,
    ),
    "gamma": Term(
        terms.gamma,
        ("Gamma", 2.5, "Gamma"),
        of(GammaStatistics, None, GammaStatistics),
        lambda x, a, b: stats.gamma.logpdf(x, a, scale=1 / b),
    ),
    "gamma, fixed rate": Term(
        terms.gamma,
        ("Gamma", 2.5, 0.5),
        of(GammaStatistics, None, None),
        lambda x, a, b: stats.gamma.logpdf(x, a, scale=1 / b),
    ),
    "poisson": Term(
        terms.poisson,
        (3.0, "Gamma"),
        of(None, GammaStatistics),
        lambda x, rate: stats.poisson.logpmf(x, rate),
    ),
    "bernoulli": Term(
        terms.bernoulli,
        (1.0, "Beta"),
        of(None, BetaStatistics),
        lambda x, p: stats.bernoulli.logpmf(x, p),
    ),
    "bernoulli, of a failure": Term(
        terms.bernoulli,
        (False, "Beta"),
        of(None, BetaStatistics),
        lambda x, p: stats.bernoulli.logpmf(x, p),
    ),
    "multinomial": Term(
        terms.multinomial,
        (np.asarray([3.0, 0.0, 2.0]), "Dirichlet"),
        of(None, DirichletStatistics),
        lambda x, p: stats.multinomial.logpmf(x, 5, p / p.sum()),
    ),
    "multinomial, of a stick": Term(
        terms.multinomial,
        (np.asarray([3.0, 0.0, 2.0]), "StickBreaking"),
        of(None, StickBreakingStatistics),
        lambda x, p: stats.multinomial.logpmf(x, 5, p / p.sum()),
    ),
    "normal, of a product of vectors": Term(
        lambda x, a, b, tau: terms.normal(x, terms.dot(a, b), tau),
        (0.75, "MultivariateNormal", "MultivariateNormal", "Gamma"),
        of(None, MultivariateNormalStatistics, MultivariateNormalStatistics, GammaStatistics),
        lambda x, a, b, tau: stats.norm.logpdf(x, a @ b, tau**-0.5),
    ),
    "beta": Term(
        terms.beta,
        ("Beta", 2.5, 0.5),
        of(BetaStatistics, None, None),
        lambda x, a, b: stats.beta.logpdf(x, a, b),
    ),
    "dirichlet": Term(
        terms.dirichlet,
        ("Dirichlet", np.asarray([2.5, 0.5, 1.0])),
        of(DirichletStatistics, None),
        lambda x, a: stats.dirichlet.logpdf(x / x.sum(), a),
    ),
    "dirichlet, symmetric": Term(
        terms.dirichlet,
        ("Dirichlet", 0.5),
        of(DirichletStatistics, None),
        lambda x, a: stats.dirichlet.logpdf(x / x.sum(), [a] * SIZE),
    ),
    "stick_breaking": Term(
        terms.stick_breaking,
        ("StickBreaking", 1.5, np.asarray([2.5, 0.5])),
        of(StickBreakingStatistics, None, None),
        lambda x, a, b: stick_breaking(
            x / x.sum(), StickBreakingState(np.broadcast_to(a, 2), np.broadcast_to(b, 2))
        ),
    ),
    "categorical, of a stick": Term(
        terms.categorical,
        ("Categorical", "StickBreaking"),
        (one_hot, StickBreakingStatistics.of),
        lambda x, p: stats.multinomial.logpmf(np.eye(SIZE)[x], 1, p / p.sum()),
    ),
    "categorical": Term(
        terms.categorical,
        ("Categorical", "Dirichlet"),
        (one_hot, DirichletStatistics.of),
        lambda x, p: stats.multinomial.logpmf(np.eye(SIZE)[x], 1, p / p.sum()),
    ),
    "multivariate_normal": Term(
        terms.multivariate_normal,
        ("MultivariateNormal", "MultivariateNormal", "Wishart"),
        of(MultivariateNormalStatistics, MultivariateNormalStatistics, WishartStatistics),
        gaussian,
    ),
    "multivariate_normal, of a NormalWishart": Term(
        terms.multivariate_normal,
        (vector, "NormalWishart"),
        of(None, NormalWishartStatistics),
        lambda x, z: gaussian(x, *z),
        pair=True,
    ),
    "multivariate_normal, of a MultivariateNormalGamma": Term(
        terms.multivariate_normal,
        (vector, "MultivariateNormalGamma"),
        of(None, MultivariateNormalGammaStatistics),
        lambda x, z: gaussian(x, z[0], z[1] * np.eye(SIZE)),
        pair=True,
    ),
    "multivariate_normal, of a MatrixNormalWishart": Term(
        terms.multivariate_normal,
        (vector, "MatrixNormalWishart"),
        of(None, MatrixNormalWishartStatistics),
        lambda x, z: [gaussian(x, m, z[1]) for m in z[0]],
        pair=True,
    ),
    "wishart": Term(
        terms.wishart,
        ("Wishart", 4.5, definite),
        of(WishartStatistics, None, None),
        lambda x, nu, w: stats.wishart.logpdf(x, nu, inv(w)),
    ),
    "normal_gamma": Term(
        terms.normal_gamma,
        ("NormalGamma", 0.5, 2.0, 2.5, 1.5),
        of(NormalGammaStatistics, *[None] * 4),
        lambda x, m, beta, a, b: (
            stats.norm.logpdf(x[0], m, (beta * x[1]) ** -0.5) + stats.gamma.logpdf(x[1], a, scale=1 / b)
        ),
    ),
    "normal_wishart": Term(
        terms.normal_wishart,
        ("NormalWishart", vector, 2.0, 4.5, definite),
        of(NormalWishartStatistics, *[None] * 4),
        lambda x, m, beta, nu, w: gaussian(x[0], m, beta * x[1]) + stats.wishart.logpdf(x[1], nu, inv(w)),
    ),
    "multivariate_normal_gamma": Term(
        terms.multivariate_normal_gamma,
        ("MultivariateNormalGamma", vector, definite, 2.5, 1.5),
        of(MultivariateNormalGammaStatistics, *[None] * 4),
        lambda x, m, b, a, rate: gaussian(x[0], m, b * x[1]) + stats.gamma.logpdf(x[1], a, scale=1 / rate),
    ),
    "matrix_normal_wishart": Term(
        terms.matrix_normal_wishart,
        ("MatrixNormalWishart", matrix, definite[:ROWS, :ROWS], 4.5, definite),
        of(MatrixNormalWishartStatistics, *[None] * 4),
        lambda x, m, r, nu, w: (
            stats.matrix_normal.logpdf(x[0], m, inv(r), inv(x[1])) + stats.wishart.logpdf(x[1], nu, inv(w))
        ),
    ),
    "markov_chain": Term(
        terms.markov_chain,
        ("MarkovChain", "Dirichlet", stochastic),
        (
            of_path,
            DirichletStatistics.of,
            None,
        ),
        lambda x, start, move: np.log(start[x[0]]) + np.log(move[x[:-1], x[1:]]).sum(),
    ),
    "gauss_markov": Term(
        terms.gauss_markov,
        ("GaussMarkov", vector[:ROWS], definite[:ROWS, :ROWS], square, definite[1:, 1:]),
        of(GaussMarkovStatistics, *[None] * 4),
        lambda x, m, p, a, lam: path_log_density(x, m, p, a, lam),
    ),
}


over_the_terms = pytest.mark.parametrize("name", TERMS)


def random(term):
    """Which arguments are latents, by their position."""
    return [i for i, argument in enumerate(term.arguments) if isinstance(argument, str)]


def hyperparameters(term, dtype):
    """The arguments of a term, with the latents left to be filled in; Python's numbers stay what they are."""
    return [np.asarray(x, dtype) if isinstance(x, np.ndarray) else x for x in term.arguments]


@over_the_terms
def test_at_a_value_a_term_is_scipys_log_density(name, dtype):
    term, places = TERMS[name], random(TERMS[name])
    arguments = hyperparameters(term, dtype)

    @jit
    def measure(latents):
        points = [term.kinds[i](x) for i, x in zip(places, latents, strict=True)]
        results = []
        for values in ([] if term.pair else [latents]) + [points, [elsewhere(t) for t in points]]:
            for i, x in zip(places, values, strict=True):
                arguments[i] = x
            results.append(term.term(*arguments))
        return results

    latents = [generic_value(term.arguments[i], dtype, seed=i) for i in places]
    results = measure(latents)
    desired = []
    for j in range(*PLATE):
        values = list(term.arguments)
        for i, x in zip(places, latents, strict=True):
            values[i] = cell(x, j)
        desired.append(term.log_pdf(*values))
    for result in results:
        assert result.dtype == dtype
        # a determinant, a quadratic form and a trace of some tens each
        close(result, desired, factor=10, scale=1)


@over_the_terms
def test_a_term_is_affine_in_the_statistics_of_every_argument(name, float64):
    term, places = TERMS[name], random(TERMS[name])
    rng = np.random.default_rng(4)

    def direction(t):
        """Any change of the statistics, their base among them, at the same pivot."""
        moving = [*t.natural, *(["base"] if hasattr(t, "base") else [])]
        zero = jax.tree.map(jnp.zeros_like, t)
        return dataclasses.replace(zero, **{x: rng.normal(size=getattr(t, x).shape) for x in moving})

    points = {i: elsewhere(CASES[term.arguments[i]].state(float64, i).expected()) for i in places}
    if name == "normal, of a vector":
        points = {i: elsewhere(CASES["Normal"].state(float64, i).expected()) for i in places}
    directions = {i: direction(t) for i, t in points.items()}

    @jit
    def measure(points, directions):
        def energy(points):
            arguments = hyperparameters(term, float64)
            for i, t in points.items():
                arguments[i] = t
            return term.term(*arguments).sum()

        results = []
        value, gradient = jax.value_and_grad(energy)(points)
        for i, v in directions.items():
            slope = sum((g * d).sum() for g, d in zip(*map(jax.tree.leaves, (gradient[i], v)), strict=True))
            for scale in -1.0, 1.0, 100.0:
                moved = jax.tree.map(lambda t, d, scale=scale: t + scale * d, points[i], v)
                results.append((energy(points | {i: moved}) - value, scale * slope))
        return results

    for difference, slope in measure(points, directions):
        # sums over two cells of products of some tens
        close(difference, slope, factor=10, scale=100)


def generic_value(family, dtype, seed):
    """A value of every cell, of no particular kind."""
    case = CASES[family]
    return jax.tree.map(lambda x: np.asarray(x[0]), generic_points(case, case.state(dtype, seed)))


def test_categorical_at_probability_zero(dtype):
    p = jnp.asarray([0.25, 0.75, 0.0], dtype)
    likely = CategoricalStatistics(p)
    sure, entropy = 1, -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    close(terms.categorical(likely, p), -entropy)
    close(terms.categorical(sure, p), np.log(0.75))
    impossible = np.asarray(terms.categorical(2, p))
    assert np.isfinite(impossible)
    assert np.exp(impossible) == 0
    close(jax.grad(lambda p: terms.categorical(sure, p))(p), [0, 4 / 3, 0])
    close(jax.grad(lambda p: terms.categorical(likely, p))(p), [1, 1, 0])
    message = jax.grad(lambda x: terms.categorical(x, p))(likely).p
    close(message[:2], np.log([0.25, 0.75]))
    assert np.isfinite(message).all()


def test_categorical_at_the_statistics_of_a_point_without_mass(dtype):
    point = DirichletStatistics.of(jnp.asarray([0.25, 0.75, 0.0], dtype))
    likely = CategoricalStatistics(jnp.asarray([0.25, 0.75, 0.0], dtype))
    value, message = jax.value_and_grad(lambda x: terms.categorical(x, point))(likely)
    close(value, 0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    assert np.isfinite(message.p).all()
    counts = jax.grad(lambda t: terms.categorical(likely, t))(point).log
    close(counts[:2], [0.25, 0.75])
    assert np.isfinite(counts).all()


def test_counts_at_probability_zero_and_counts_that_are_large(dtype):
    p = jnp.asarray([0.25, 0.75, 0.0], dtype)
    close(terms.multinomial(jnp.asarray([1.0, 2.0, 0.0], dtype), p), np.log(3 * 0.25 * 0.75**2))
    close(terms.bernoulli(True, jnp.asarray(1.0, dtype)), 0.0)
    close(terms.poisson(jnp.zeros((), dtype), jnp.zeros((), dtype)), 0.0)
    for impossible in (
        terms.multinomial(jnp.asarray([1, 0, 2]), p),
        terms.bernoulli(False, jnp.asarray(1.0, dtype)),
        terms.poisson(jnp.ones((), dtype), jnp.zeros((), dtype)),
    ):
        assert np.isfinite(impossible)
        assert np.exp(impossible) == 0
    slope = jax.grad(lambda p: terms.multinomial(jnp.asarray([1.0, 2.0, 0.0], dtype), p))(p)
    close(slope, [4.0, 2 / 0.75, 0.0])
    x = np.asarray([1e6, 2e6, 0.0], dtype)  # of a million float32 keeps what is left after all cancels
    close(terms.poisson(x[0], x[0]), -0.5 * np.log(2 * np.pi * 1e6) - 1 / 12e6, factor=3)  # Stirling
    p = np.asarray([1, 2, 0], dtype) / np.asarray(3, dtype)
    close(terms.multinomial(x, p), stats.multinomial.logpmf([1e6, 2e6, 0], 3e6, [1 / 3, 2 / 3, 0]), scale=1e6)


def test_terms_broadcast_and_keep_the_dtype(dtype):
    rng = np.random.default_rng(5)
    rows, states = (
        rng.normal(size=(5, 1, SIZE)).astype(dtype),
        {n: case.state(dtype) for n, case in CASES.items()},
    )

    def tables(x, states):
        t, number = {name: q.expected() for name, q in states.items()}, x[..., 0]
        pairs = {
            "normal": terms.normal(number, t["Normal"], t["Gamma"]),
            "normal, joint": terms.normal(number, t["NormalGamma"]),
            "multivariate_normal": terms.multivariate_normal(x, t["MultivariateNormal"], t["Wishart"]),
            "of values": terms.multivariate_normal(x, np.zeros(SIZE, dtype), states["Wishart"].inverse_scale),
            "NormalWishart": terms.multivariate_normal(x, t["NormalWishart"]),
            "MultivariateNormalGamma": terms.multivariate_normal(x, t["MultivariateNormalGamma"]),
            "gamma": terms.gamma(jnp.exp(number), 2.0, t["Gamma"]),
            "beta": terms.beta(jax.nn.sigmoid(number), 2.0, states["Beta"].concentration0),
            "dirichlet": terms.dirichlet(jax.nn.softmax(x), states["Dirichlet"].concentration),
            "categorical": terms.categorical(np.arange(5)[:, None] % SIZE, t["Dirichlet"]),
            "poisson": terms.poisson(np.arange(5)[:, None], t["Gamma"]),
            "bernoulli": terms.bernoulli(number > 0, t["Beta"]),
            "multinomial": terms.multinomial(np.ones((5, 1, SIZE), int), t["Dirichlet"]),
            "dot": terms.dot(x, t["MultivariateNormal"]).square_about(jnp.zeros((), dtype)),
        }
        return pairs, terms.multivariate_normal(x, t["MatrixNormalWishart"])

    pairs, each_location = jax.eval_shape(tables, rows, states)
    assert {name: (x.shape, x.dtype) for name, x in pairs.items()} == dict.fromkeys(
        pairs, ((5, *PLATE), dtype)
    )
    assert (each_location.shape, each_location.dtype) == ((5, *PLATE, ROWS), dtype)


def test_an_integer_is_as_good_a_hyperparameter_as_a_number(dtype):
    names = "Gamma", "Dirichlet", "Wishart"
    states, spread = [CASES[name].state(dtype) for name in names], CASES["Wishart"].state(dtype).inverse_scale

    @jit
    def check(states):
        tau, x, lam = (q.expected() for q in states)
        with jax.numpy_dtype_promotion("standard"):  # an integer meets a float here
            whole = terms.gamma(tau, 2, 1), terms.dirichlet(x, 2), terms.wishart(lam, 4, spread)
        return whole, (terms.gamma(tau, 2.0, 1.0), terms.dirichlet(x, 2.0), terms.wishart(lam, 4.0, spread))

    whole, numbers = check(states)
    assert all(x.dtype == dtype for x in whole)
    close(whole, numbers)


def test_a_precision_may_be_scaled_by_a_number(dtype):
    mean, tau = CASES["Normal"].state(dtype).expected(), CASES["Gamma"].state(dtype).expected()
    kappa = np.asarray([0.5, 3.0], dtype)
    product = terms.normal(0.5, mean, kappa * tau)
    square = mean.square_about(np.asarray(0.5, dtype))
    close(product, 0.5 * (np.log(kappa) + tau.log - np.log(2 * np.pi) - kappa * tau.value * square))


def test_transitions_of_every_family_are_one_regression(dtype):
    """Rows of A with noise beside them or their own, and A' with a full one: at values, about any pivot."""
    x = elsewhere(CASES["GaussMarkov"].state(dtype).expected())
    a, noise = square.astype(dtype), np.asarray([2.0, 0.5], dtype)
    m, p = vector[:ROWS].astype(dtype), definite[:ROWS, :ROWS].astype(dtype)

    def term(*regression):
        return terms.gauss_markov(x, m, p, *regression)

    full = term(a, jnp.diag(noise))
    rows, joint = MultivariateNormalStatistics.of(a), MultivariateNormalGammaStatistics.of((a, noise))
    matrices = MatrixNormalWishartStatistics.of(LocationPrecision(a.T, jnp.diag(noise)))
    of_numbers = term(a, noise), term(rows, noise), term(elsewhere(rows), GammaStatistics.of(noise))
    of_joint = term(joint), term(elsewhere(joint)), term(matrices), term(elsewhere(matrices))
    assert full.dtype == dtype
    for found in (*of_numbers, *of_joint, term(a, WishartStatistics.of(jnp.diag(noise)))):
        close(found, full, factor=10)


def test_a_table_of_products_with_joint_precisions(dtype):
    """As `normal` with the precision beside it, at values; and E[tau (x . w - y)^2] by their moments."""
    w = CASES["MultivariateNormalGamma"].state(dtype)
    z = CASES["MultivariateNormal"].state(dtype).expected()
    y = np.asarray([[0.5, -1.0], [2.0, 0.25]], dtype)
    value = w.mean
    table = terms.matmul(MultivariateNormalGammaStatistics.of(value), z)
    close(terms.normal(y, table), terms.normal(y, terms.matmul(value.location, z), value.precision), factor=3)
    t = elsewhere(w.expected())
    found = terms.normal(y, terms.matmul(t, elsewhere(z)))
    # E[tau] E[(z . m - y)^2] + tr(E[z z'] B^-1)
    second = z.second + z.mean[:, :, None] * z.mean[:, None]
    spread = np.einsum("nij,pij->np", second, np.linalg.inv(np.asarray(w.mean_precision, float)))
    error = np.einsum("pi,nij,pj->np", w.location, second, w.location)
    error = error - 2 * y * np.asarray(z.mean @ w.location.T) + y**2
    desired = 0.5 * (w.expected().logdet - np.log(2 * np.pi) - w.precision.mean * error - spread)
    close(found, desired, factor=30)
