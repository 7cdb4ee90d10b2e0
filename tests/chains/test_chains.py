"""Laws of chains.

Against all K^T paths: values, marginals, pairs, entropy, the best path, filters of prefixes, draws; for
stationary and varying transitions, with zeros and without, unnormalised, step by step and in parallel.
Derivatives are the marginals, and finite differences of first and second order agree. Padding changes
nothing, whatever it holds. Long chains in float32, densities beyond the dtype's range, transitions of e^-200
that matter, no path at all. Steps ahead are powers of the matrix. vmap == loop; jit == eager. Bad input
raises.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax import chains

T, K = 5, 3
KINDS = list(itertools.product(["stationary", "varying"], ["positive", "zeros"]))
kinds = pytest.mark.parametrize(("transitions", "entries"), KINDS)
parallel = pytest.mark.parametrize("parallel", [False, True])
BY_STEPS = dict(parallel=False)
KEY, N_DRAWS = jax.random.key(3), 4000

# Compiled once for a shape, a dtype and a way to pass messages, so most chains have T steps and K states.
with_gradient = jax.jit(jax.value_and_grad(chains.log_normalizer, (0, 1, 2)), static_argnames="parallel")


def weights(transitions="stationary", entries="positive", steps=T, seed=0):
    """Log weights of a chain, on the grid of float32; not normalised."""
    rng = np.random.default_rng(seed)
    shape = (K, K) if transitions == "stationary" else (steps - 1, K, K)
    chain = [2 * rng.normal(size=shape) - 1 for shape in [(K,), shape, (steps, K)]]
    if entries == "zeros":  # the first state is never entered, nor the start
        chain[0][0] = chain[1][..., 0] = chain[1][..., 1, 2] = chain[2][steps // 2, 1] = -np.inf
    return [x.astype("float32").astype(float) for x in chain]


class Paths:
    """All of them, in float64."""

    def __init__(self, initial, transitions, log_likelihood):
        steps, k = log_likelihood.shape
        self.states = np.array(list(itertools.product(range(k), repeat=steps)))
        moves = np.broadcast_to(transitions, (steps - 1, k, k))
        self.logs = initial[self.states[:, 0]] + log_likelihood[range(steps), self.states].sum(1)
        self.logs = self.logs + moves[range(steps - 1), self.states[:, :-1], self.states[:, 1:]].sum(1)
        self.log_normalizer = logsumexp(self.logs)
        self.probability = np.exp(self.logs - self.log_normalizer)
        at = np.eye(k)[self.states]
        self.marginals = np.einsum("p,ptk->tk", self.probability, at)
        pairs = np.einsum("p,pti,ptj->tij", self.probability, at[:, :-1], at[:, 1:])
        self.pairs = pairs if transitions.ndim == 3 else pairs.sum(0)
        some = self.probability[self.probability > 0]
        self.entropy = -(some * np.log(some)).sum()

    @property
    def posterior(self):
        return [self.log_normalizer, self.marginals, self.pairs]


def cast(chain, dtype):
    return [jnp.asarray(x, dtype) for x in chain]


@kinds
@pytest.mark.parametrize(
    ("dtype", "parallel"), [("float32", False), ("float64", False), ("float32", True)], indirect=["dtype"]
)
def test_all_paths(transitions, entries, parallel, dtype):
    chain = weights(transitions, entries)
    paths, own = Paths(*chain), cast(chain, dtype)
    posterior = chains.smoother(*own, parallel=parallel)
    assert {x.dtype for x in posterior} == {dtype}
    close(posterior, paths.posterior)
    zero = (np.asarray(posterior.marginals) == 0, np.asarray(posterior.pairs) == 0)
    assert all((z >= (x == 0)).all() for z, x in zip(zero, (paths.marginals, paths.pairs), strict=True))
    filtered = chains.filter(*own, parallel=parallel)
    prefixes = [
        Paths(chain[0], chain[1][:t] if chain[1].ndim == 3 else chain[1], chain[2][: t + 1]) for t in range(T)
    ]
    close(filtered.log_normalizers, np.array([p.log_normalizer for p in prefixes]))
    close(filtered.marginals, np.array([p.marginals[-1] for p in prefixes]))
    assert filtered.marginals.dtype == filtered.log_normalizers.dtype == dtype


@kinds
def test_entropy_best_path_and_gradient(transitions, entries):
    chain = weights(transitions, entries)
    paths, own = Paths(*chain), cast(chain, "float32")
    close(chains.entropy(*own, **BY_STEPS), paths.entropy)
    best = chains.viterbi(*own)
    close(best.log_weight, paths.logs.max())
    np.testing.assert_array_equal(best.states, paths.states[paths.logs.argmax()])
    value, gradient = with_gradient(*own, **BY_STEPS)
    close([value, *gradient], [paths.log_normalizer, paths.marginals[0], paths.pairs, paths.marginals])


@jax.jit
def second_derivatives(chain, along):
    """Of the log-normaliser along a direction, forwards; and all of them, backwards through the posterior."""
    value, posterior = (functools.partial(f, **BY_STEPS) for f in (chains.log_normalizer, chains.smoother))
    forwards = jax.jvp(jax.grad(value, (0, 1, 2)), chain, along)[1]
    return forwards, jax.jacrev(posterior, (0, 1, 2))(*chain)


@kinds
def test_derivatives_of_every_order(transitions, entries, float64):
    chain, rng, step = cast(weights(transitions, entries), float64), np.random.default_rng(9), 1e-5
    along = [rng.normal(size=x.shape) for x in chain]
    ahead, behind = (
        with_gradient(*(np.asarray(x) + h * a for x, a in zip(chain, along, strict=True)), **BY_STEPS)
        for h in (step, -step)
    )
    value, (_, pairs, marginals) = jax.tree.map(lambda x, y: (x - y) / (2 * step), ahead, behind)
    forwards, backwards = second_derivatives(chain, along)
    numeric = lambda got, want: np.testing.assert_allclose(got, want, rtol=0, atol=1e-8)
    for got, want in zip(forwards, (marginals[0], pairs, marginals), strict=True):
        numeric(got, want)
    for got, want in zip(backwards, (value, marginals, pairs), strict=True):
        numeric(sum(np.tensordot(g, a, a.ndim) for g, a in zip(got, along, strict=True)), want)
    covariance = backwards.marginals[2]
    exact = Paths(*map(np.asarray, chain)).marginals
    close(np.einsum("tktk->tk", covariance), exact * (1 - exact))


@pytest.mark.parametrize("transitions", ["stationary", "varying"])
def test_padding(transitions, float64):
    for length in (0, 1, 3, T):
        chain = weights(transitions, "zeros")
        own, n = [chain[0], chain[1], chain[2][:length]], np.int64(length)
        padded = [x.copy() for x in chain]
        padded[2][length:] = np.nan
        if transitions == "varying":
            own[1] = chain[1][: max(length - 1, 0)]
            padded[1][len(own[1]) :] = np.nan
        marginals, pairs = np.zeros((T, K)), np.zeros_like(chain[1])
        value = entropy = best = 0.0
        states = np.full(T, -1)
        if length:
            paths = Paths(*own)
            value, entropy, best = paths.log_normalizer, paths.entropy, paths.logs.max()
            marginals[:length], states[:length] = paths.marginals, paths.states[paths.logs.argmax()]
            pairs[: len(paths.pairs)] = paths.pairs
        for parallel in (False, True):
            close(chains.smoother(*padded, n, parallel=parallel), [value, marginals, pairs])
        close(with_gradient(*padded, n, **BY_STEPS)[1], [marginals[0], pairs, marginals])
        filtered = chains.filter(*padded, n, **BY_STEPS)
        close(filtered.log_normalizers[-1], value)
        assert (filtered.marginals[length:] == 0).all()
        close(chains.entropy(*padded, n, **BY_STEPS), entropy, scale=1)
        path = chains.viterbi(*padded, n)
        close(path.log_weight, best)
        np.testing.assert_array_equal(path.states, states)
        drawn = chains.sample_paths(*padded, n, key=KEY, **BY_STEPS)[0]
        np.testing.assert_array_equal(drawn == -1, states == -1)


@kinds
def test_draws(transitions, entries):
    chain = weights(transitions, entries)
    paths = Paths(*chain)
    drawn = np.asarray(chains.sample_paths(*cast(chain, "float32"), key=KEY, n_draws=N_DRAWS, **BY_STEPS))
    share = np.bincount(drawn @ K ** np.arange(T)[::-1], minlength=K**T) / N_DRAWS
    error = np.sqrt(paths.probability * (1 - paths.probability) / N_DRAWS)
    assert (np.abs(share - paths.probability)[paths.probability == 0] == 0).all()
    likely = paths.probability * N_DRAWS > 5
    assert likely.sum() > 2
    assert (np.abs(share - paths.probability) <= STANDARD_ERRORS * error)[likely].all()


def long_chain(steps, seed=1):
    """A chain that stays where it is nine times in ten."""
    rng = np.random.default_rng(seed)
    moves = np.log(rng.dirichlet(np.ones(K), size=K) * 0.1 + 0.9 * np.eye(K))
    chain = [np.log(np.full(K, 1 / K)), moves, rng.normal(size=(steps, K)) * 2 - 1]
    return [x.astype("float32") for x in chain]


def test_float32_of_a_hundred_thousand_steps():
    chain = long_chain(100_000)
    got, gradient = with_gradient(*chain, **BY_STEPS)
    filtered = chains.filter(*chain, **BY_STEPS).log_normalizers[-1]
    with jax.enable_x64(True):
        exact = jax.tree.map(np.asarray, chains.smoother(*cast(chain, "float64"), **BY_STEPS))
    ulp = np.spacing(np.float32(abs(exact.log_normalizer)))
    assert abs(float(got) - exact.log_normalizer) <= 4 * ulp
    assert abs(float(filtered) - exact.log_normalizer) <= 4 * ulp
    close(gradient[2], exact.marginals)
    close(gradient[1], exact.pairs, factor=10)  # sums of 1e5 terms


@pytest.mark.parametrize("offset", [800.0, -800.0])  # e^800 is no float64, e^-800 is none
@pytest.mark.parametrize("spread", [1.0, 500.0])
def test_extreme_densities(offset, spread, dtype):
    initial, moves, evidence = weights(steps=T)
    chain = initial, moves, (offset + spread * evidence).astype("float32").astype(float)
    paths, own = Paths(*chain), cast(chain, dtype)
    posterior = chains.smoother(*own, **BY_STEPS)
    size = np.abs(chain[2]).max()  # logarithms of such a size have roundings of their own
    close(posterior.log_normalizer, paths.log_normalizer)
    np.testing.assert_allclose(posterior.marginals, paths.marginals, atol=4 * size * np.finfo(dtype).eps)
    np.testing.assert_allclose(
        chains.filter(*own, **BY_STEPS).marginals[-1],
        paths.marginals[-1],
        atol=4 * size * np.finfo(dtype).eps,
    )
    assert all(np.isfinite(x).all() for x in with_gradient(*own, **BY_STEPS)[1])


def test_gradients_are_finite_where_float32_is_long_and_sharp():
    chain = long_chain(10_000)
    chain[2] = 300 * chain[2]
    chain[1][0, 2] = chain[0][1] = -np.inf
    value, gradient = with_gradient(*chain, **BY_STEPS)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in gradient)
    np.testing.assert_allclose(gradient[2].sum(1), 1, atol=1e-3)  # 1e4 roundings


def rare(case):
    """Chains of which float32, step by step, would lose the only path, or the likeliest one."""
    if case == "the only path":  # by transitions of e^-200, beside ones of 1
        moves = np.full((K, K), -np.inf)
        moves[range(K), range(K)], moves[range(K), [1, 2, 0]] = 0, -200
        evidence = np.where(np.arange(K) == np.arange(T)[:, None] % K, -1.0, -np.inf)
        return np.zeros(K), moves, evidence
    evidence = np.zeros((T, K))
    if case == "a rare start":  # behind by e^100 at first, and again at the end; ahead by e^250 between
        evidence[1:4, 0], evidence[4, 0] = 250 / 3, -100
        return np.array([-100, 0, -np.inf]), np.log(np.eye(K)), evidence
    if case == "a rare end":  # the state that is likely to the very end then cannot be
        evidence[1:4, 1], evidence[4, 0] = -80, -np.inf
        return np.array([0, 0, -np.inf]), np.log(np.eye(K)), evidence
    initial, moves, evidence = weights()  # one state in which the chain can end, against all evidence
    return initial, moves, evidence - 1e3 * np.eye(K)[[0, 1, 2, 0, 1]]


@parallel
@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("case", ["the only path", "a rare start", "a rare end", "unlikely"])
def test_paths_beyond_the_range_of_float32(case, parallel):
    chain = rare(case)
    paths, own = Paths(*chain), cast(chain, "float32")
    atol = 4 * np.abs(paths.log_normalizer) * np.finfo("float32").eps
    posterior = chains.smoother(*own, parallel=parallel)
    close(posterior.log_normalizer, paths.log_normalizer)
    np.testing.assert_allclose(posterior.marginals, paths.marginals, atol=atol)
    np.testing.assert_allclose(posterior.pairs, paths.pairs, atol=atol)
    np.testing.assert_allclose(
        chains.filter(*own, parallel=parallel).marginals[-1], paths.marginals[-1], atol=atol
    )
    drawn = chains.sample_paths(*own, key=KEY, n_draws=N_DRAWS, parallel=parallel)
    best = paths.states[paths.logs.argmax()]
    assert paths.probability.max() < 1 - 1e-9 or (np.asarray(drawn) == best).all()
    np.testing.assert_array_equal(chains.viterbi(*own).states, best)


@parallel
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_no_path(parallel):
    stay = np.eye(K)
    evidence = 1 - np.eye(T)[1, :, None] * stay[0]
    own = cast(map(np.log, (stay[0], stay, evidence)), "float32")
    value, gradient = with_gradient(*own, parallel=parallel)
    assert value == -np.inf
    assert all((x == 0).all() for x in gradient)
    posterior = chains.smoother(*own, parallel=parallel)
    assert posterior.log_normalizer == chains.viterbi(*own).log_weight == -np.inf
    assert not posterior.marginals.any()
    assert not posterior.pairs.any()
    assert chains.entropy(*own, parallel=parallel) == 0
    filtered = chains.filter(*own, parallel=parallel)
    np.testing.assert_array_equal(filtered.log_normalizers, [0] + [-np.inf] * (T - 1))


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_and_two(steps):
    for transitions in ("stationary", "varying"):
        chain = weights(transitions, steps=steps)
        paths, own = Paths(*chain), cast(chain, "float32")
        close(chains.smoother(*own, **BY_STEPS), paths.posterior)
        close(chains.entropy(*own, **BY_STEPS), paths.entropy)
        assert chains.viterbi(*own).states.tolist() == paths.states[paths.logs.argmax()].tolist()
        assert chains.sample_paths(*own, key=KEY, n_draws=2, **BY_STEPS).shape == (2, steps)


def test_steps_ahead_are_powers_of_the_matrix():
    chain = weights()
    chain[1] = chain[1] - logsumexp(chain[1], axis=1, keepdims=True)
    last, move = Paths(*chain).marginals[-1], np.exp(chain[1])
    ahead = [last @ np.linalg.matrix_power(move, s) for s in (1, 2, 3)]
    close(chains.predict(*cast(chain, "float32"), n_steps=3, **BY_STEPS), np.array(ahead))


def test_vmap_equals_loop_and_jit_equals_eager(float64):
    """Over sequences and lengths, and over parameters too; the gradient of a sum."""
    initial, moves, evidence = (
        np.stack(x) for x in zip(*(weights(entries="zeros", seed=s) for s in range(3)), strict=True)
    )
    lengths = np.array([2, 5, 3])
    smoother = functools.partial(chains.smoother, **BY_STEPS)
    one = [
        [smoother(initial[r], moves[r], e, n) for e, n in zip(evidence, lengths, strict=True)]
        for r in range(3)
    ]
    stack = lambda trees: jax.tree.map(lambda *x: np.stack(x), *trees)

    @jax.jit
    def at_once(initial, moves, evidence, lengths):
        rows = jax.vmap(chains.smoother, (None, None, 0, 0))
        value = jax.vmap(chains.log_normalizer, (None, None, 0, 0))
        gradient = jax.grad(lambda m: value(initial[0], m, evidence, lengths).sum())
        every = jax.vmap(rows, (0, 0, None, None))(initial, moves, evidence, lengths)
        return rows(initial[0], moves[0], evidence, lengths), every, gradient(moves[0])

    rows, every, gradient = at_once(initial, moves, evidence, lengths)
    close(rows, stack(one[0]))
    close(every, stack([stack(r) for r in one]))
    close(gradient, stack(one[0]).pairs.sum(0))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("log_likelihood", {2: np.zeros(T)}),
        ("log_likelihood", {2: np.full((T, K), np.nan)}),
        ("initial", {0: np.zeros(K + 1)}),
        ("initial", {0: np.full(K, np.inf)}),
        ("transitions", {1: np.zeros((T, K, K))}),
        ("transitions", {1: np.full((K, K), np.nan)}),
        ("length", {3: T + 1}),
        ("length", {3: 2.0}),
        ("length", {3: "2"}),
        ("initial", {0: None}),
        ("transitions", {1: [[0.0], [0.0, 1.0]]}),
        ("transitions", {1: np.ma.array(np.zeros((K, K)), mask=np.eye(K))}),
    ],
)
def test_bad_input_names_the_argument(name, change):
    arguments = [change.get(i, x) for i, x in enumerate([*weights(), None])]
    for function in (chains.log_normalizer, chains.smoother, chains.filter, chains.entropy, chains.viterbi):
        with pytest.raises(ValueError, match=f"^{name} "):
            function(*arguments)


def test_bad_counts():
    with pytest.raises(ValueError, match=r"^transitions "):
        chains.predict(*weights("varying"), n_steps=1)
    with pytest.raises(ValueError, match=r"^n_steps "):
        chains.predict(*weights(), n_steps=0)
    with pytest.raises(ValueError, match=r"^key "):
        chains.sample_paths(*weights(), key=0)
    for parallel in ("yes", [], 1):
        with pytest.raises(ValueError, match=r"^parallel must be True, False or None"):
            chains.smoother(*weights(), parallel=parallel)
