"""One table of all families, with a member of each and what scipy knows of it, and what the laws compare."""

import dataclasses
import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vbjax.families import (
    Beta,
    BetaState,
    Categorical,
    CategoricalState,
    Delta,
    Dirichlet,
    DirichletState,
    Gamma,
    GammaState,
    GaussMarkov,
    GaussMarkovState,
    LocationPrecision,
    MarkovChain,
    MarkovChainState,
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
    PolyaGamma,
    PolyaGammaState,
    State,
    StickBreaking,
    StickBreakingState,
    TruncatedNormal,
    TruncatedNormalState,
    Wishart,
    WishartState,
)

PLATE, SIZE, ROWS, STEPS = (2,), 3, 2, 3
PATHS = np.stack(np.meshgrid(*[range(SIZE)] * STEPS, indexing="ij"), -1).reshape(-1, STEPS)

# ---------------------------------------------------------------- the table


@dataclasses.dataclass(frozen=True)
class Case:
    """A family, a generic member of it, and what scipy knows of one of its cells.

    Densities and entropies are relative to the base measure that a family keeps to itself, if any; such a
    member has no mode.
    """

    family: Any
    draw: Callable[[np.random.Generator], State]
    log_pdf: Callable[[Any, Any], float]
    support: tuple[str, ...]  # the kind of the event, or of the location's and the precision's
    entropy: Callable[[Any], float] | None = None
    has_mode: bool = True

    def centre(self, state):
        """A value in the midst of a state."""
        return state.mode if self.has_mode else state.mean

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


def polya_gamma(x, state):
    """Relative to a tilt of 0; the density of that one is in test_augmentations.py."""
    return state.concentration * np.log(np.cosh(0.5 * state.tilt)) - 0.5 * state.tilt**2 * x


def half_normal(state):
    sd = state.precision**-0.5
    return stats.truncnorm(-state.location / sd, 50, state.location, sd)  # its entropy takes no infinity


def multinomial(state):
    return stats.multinomial(1, special.softmax(state.logits))


def path_log_probs(state):
    """log p of all SIZE^STEPS paths of a chain, by enumeration."""
    first, *later = PATHS.T
    weights = state.initial[first] + state.evidence[np.arange(STEPS), PATHS].sum(1)
    weights = weights + sum(state.transitions[a, b] for a, b in zip(PATHS.T[:-1], later, strict=True))
    return special.log_softmax(weights)


def path_log_prob(state, x):
    return path_log_probs(state)[(x == PATHS).all(1)].item()


def path_entropy(state):
    log = path_log_probs(state)
    return -(np.exp(log) * log).sum()


def whole_path(state):
    """A Gaussian chain as one multivariate normal, of a block tridiagonal precision."""
    size = state.coupling.shape[0]
    precision = np.zeros((STEPS, size, STEPS, size))
    for t in range(STEPS):
        precision[t, :, t] = state.precision[t]
    for t in range(STEPS - 1):
        precision[t, :, t + 1], precision[t + 1, :, t] = -state.coupling, -state.coupling.T
    return stats.multivariate_normal(state.mean.ravel(), inv(precision.reshape(STEPS * size, -1)))


def stick_breaking(x, state):
    """Connor & Mosimann (1969): Beta densities of the shares, and the Jacobian of the pieces."""
    left = np.append(1, 1 - np.cumsum(x)[:-2])
    shares = stats.beta.logpdf(x[:-1] / left, state.concentration1, state.concentration0)
    return shares.sum() - np.log(left).sum()


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
    "TruncatedNormal": Case(
        TruncatedNormal(PLATE),
        lambda rng: TruncatedNormalState(positives(rng, 0.5, 1.5), positives(rng, 1, 3)),
        lambda q, x: half_normal(q).logpdf(x),
        ("positive",),
        lambda q: half_normal(q).entropy(),
    ),
    "PolyaGamma": Case(
        PolyaGamma(2, plate=PLATE),
        lambda rng: PolyaGammaState(positives(rng, 0.5, 4), 2),
        lambda q, x: polya_gamma(x, q),
        ("positive",),
        has_mode=False,
    ),
    "Dirichlet": Case(
        Dirichlet(SIZE, plate=PLATE),
        lambda rng: DirichletState(positives(rng, 1.5, 6, SIZE)),
        lambda q, x: stats.dirichlet.logpdf(x / x.sum(), q.concentration),  # it insists on a sum of 1
        ("simplex",),
        lambda q: stats.dirichlet.entropy(q.concentration),
    ),
    "StickBreaking": Case(
        StickBreaking(SIZE, plate=PLATE),
        # so large that the density over the simplex has a mode inside
        lambda rng: StickBreakingState(
            positives(rng, 1.5, 6, SIZE - 1), SIZE - 1 + positives(rng, 1.5, 6, SIZE - 1)
        ),
        lambda q, x: stick_breaking(x / x.sum(), q),
        ("simplex",),
    ),
    "Categorical": Case(
        Categorical(SIZE, plate=PLATE),
        lambda rng: CategoricalState(reals(rng, SIZE)),
        lambda q, x: multinomial(q).logpmf(np.eye(SIZE)[x]),
        ("state",),
        lambda q: multinomial(q).entropy(),
    ),
    "MarkovChain": Case(
        MarkovChain(SIZE, steps=STEPS, plate=PLATE),
        lambda rng: MarkovChainState(reals(rng, SIZE), reals(rng, SIZE, SIZE), reals(rng, STEPS, SIZE)),
        path_log_prob,
        ("path",),
        path_entropy,
    ),
    "GaussMarkov": Case(
        GaussMarkov(ROWS, steps=STEPS, plate=PLATE),
        lambda rng: GaussMarkovState(
            reals(rng, STEPS, ROWS),
            np.stack([definites(rng, ROWS) for _ in range(STEPS)], 1) + np.eye(ROWS),
            0.5 * positives(rng, -1, 1, ROWS, ROWS),
        ),
        lambda q, x: whole_path(q).logpdf(x.ravel()),
        ("real",),
        lambda q: whole_path(q).entropy(),
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
    if kind == "path":
        return jnp.broadcast_to(PATHS[: len(noise), None].astype(x.dtype), noise.shape)
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
    return around(case, case.centre(state), N_NEAR, 0.02)


def generic_points(case, state):
    return around(case, case.centre(state), N_POINTS, 0.3)


@functools.cache
def facts(name, dtype):
    """What the laws below compare, measured by one program for each family and dtype."""
    case = CASES[name]

    @jit
    def measure(q, p, weight):
        t = elsewhere(p.expected())
        gradient = jax.grad(lambda t: log_joint(q, t).sum())(t)
        delta = Delta(of=case.family).from_gradient(t, gradient)
        # generic points, the mode (or the mean), its neighbourhood
        parts = generic_points(case, p), jax.tree.map(lambda x: x[None], case.centre(q)), neighbours(case, q)
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
