"""Laws of Gaussian Markov chains and of the Kalman filter.

The dense normal of the assembled precision matrix gives the chain's log-normaliser, entropy and moments, in
both dtypes, step by step and in parallel, whatever the padding holds; the gradient of the log-normaliser
gives the moments, and draws have them. The filter's likelihoods and states are those of the stacked
observations up to each step, with entries missing too. Long chains keep float32's digits. Bad input raises.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats

from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.chains import gaussian as gaussian_chains

KEY = jax.random.key(0)
T = 6
CONDITION = 10  # the chains' precision matrices have condition numbers of about this

both_ways = pytest.mark.parametrize("parallel", [False, True])


def chain(dtype, steps=T, d=2, *, one_coupling=False):
    """Diagonal blocks that outweigh the couplings beside them, and a pull."""
    rng = np.random.default_rng(d)
    root = rng.normal(size=(steps, d, d))
    coupling = 0.6 * rng.normal(size=(d, d) if one_coupling else (max(steps - 1, 0), d, d))
    bound = 2 * np.linalg.norm(coupling, 2, (-2, -1)).max(initial=0)
    precision = root @ root.swapaxes(1, 2) / d + (0.5 + bound) * np.eye(d)
    return tuple(np.asarray(x, dtype) for x in (precision, coupling, rng.normal(size=(steps, d))))


def dense(precision, coupling, pull):
    """Log-normaliser, entropy, mean and covariance of the whole path, by numpy."""
    precision, coupling, pull = (np.asarray(x, float) for x in (precision, coupling, pull))
    steps, d = pull.shape
    coupling = np.broadcast_to(coupling, (steps - 1, d, d))
    whole = linalg.block_diag(*precision)
    for t, block in enumerate(coupling):
        here, after = slice(t * d, t * d + d), slice(t * d + d, t * d + 2 * d)
        whole[here, after], whole[after, here] = -block, -block.T
    covariance, logdet = np.linalg.inv(whole), np.linalg.slogdet(whole)[1]
    mean = covariance @ pull.ravel()
    constant = 0.5 * steps * d * np.log(2 * np.pi) - 0.5 * logdet
    blocks = covariance.reshape(steps, d, steps, d).swapaxes(1, 2)
    moments = (
        mean.reshape(steps, d),
        np.einsum("ttij->tij", blocks),
        blocks[range(steps - 1), range(1, steps)],
    )
    return constant + 0.5 * pull.ravel() @ mean, constant + 0.5 * steps * d, *moments


@both_ways
@pytest.mark.parametrize(("d", "one_coupling"), [(2, False), (2, True), (5, False)])
def test_moments_are_those_of_the_dense_normal(dtype, d, one_coupling, parallel):
    given = chain(dtype, d=d, one_coupling=one_coupling)
    close(gaussian_chains.smoother(*given, parallel=parallel), dense(*given), factor=CONDITION)


@both_ways
@pytest.mark.parametrize("steps", [1, 2])
def test_short_chains(float64, steps, parallel):
    given = chain(float64, steps)
    close(gaussian_chains.smoother(*given, parallel=parallel), dense(*given), factor=CONDITION)


@both_ways
@pytest.mark.parametrize("length", [0, 1, 4, T])
def test_what_padding_holds_is_ignored(float64, length, parallel):
    precision, coupling, pull = chain(float64)
    precision[length:], pull[length:], coupling[max(length - 1, 0) :] = np.nan, np.nan, np.nan
    found = gaussian_chains.smoother(precision, coupling, pull, length, parallel=parallel)
    for x in found[2:]:
        assert not np.asarray(x)[length if len(x) == T else max(length - 1, 0) :].any()
    if length:
        known = dense(precision[:length], coupling[: length - 1], pull[:length])
        cut = (*found[:2], found.means[:length], found.covariances[:length])
        close((*cut, found.cross_covariances[: length - 1]), known, factor=CONDITION)
    else:
        assert found.log_normalizer == found.entropy == 0


@both_ways
def test_the_gradient_of_the_log_normaliser_are_the_expected_statistics(float64, parallel):
    given = tuple(map(jnp.asarray, chain(float64, 3)))
    run = functools.partial(gaussian_chains.log_normalizer, parallel=parallel)
    of_precision, of_coupling, of_pull = jax.grad(run, (0, 1, 2))(*given)
    _, _, m, v, cross = gaussian_chains.smoother(*given)
    close(of_pull, m, factor=CONDITION)
    close(of_precision, -0.5 * (v + m[:, :, None] * m[:, None]), factor=CONDITION)
    close(of_coupling, cross + m[:-1, :, None] * m[1:, None], factor=CONDITION)


def test_several_chains_by_vmap_are_each_on_its_own(float64):
    precision, coupling, pull = chain(float64)
    lengths = jnp.array([T, 3])
    run = lambda pull, length: gaussian_chains.smoother(precision, coupling, pull, length)
    pulls = jnp.stack([pull, -pull])
    each = [run(x, n) for x, n in zip(pulls, lengths, strict=True)]
    close(jax.vmap(run)(pulls, lengths), jax.tree.map(lambda *x: np.stack(x), *each))


@both_ways
def test_draws_have_the_moments(float64, parallel):
    given, n = chain(float64), 20_000
    draws = gaussian_chains.sample_paths(*given, 5, key=KEY, n_draws=n, parallel=parallel)
    assert draws.shape == (n, T, 2)
    assert not draws[:, 5:].any()
    known = gaussian_chains.smoother(*given, 5)
    pairs = np.moveaxis(np.asarray(draws), 0, -1)  # (t, d, n)
    error = np.sqrt(np.einsum("tii->ti", known.covariances) / n)
    assert (np.abs(pairs.mean(-1) - known.means) <= STANDARD_ERRORS * error).all()
    shift = pairs - np.asarray(known.means)[..., None]
    cross = np.einsum("tin,tjn->tij", shift[:-1], shift[1:]) / n
    size = np.einsum("tii->ti", known.covariances)
    spread = np.sqrt((known.cross_covariances**2 + size[:-1, :, None] * size[1:, None]) / n)
    assert (np.abs(cross - known.cross_covariances) <= STANDARD_ERRORS * spread).all()


# ---------------------------------------------------------------- state spaces


def model(dtype="float64", d=2, p=3):
    """m0, V0, A, Q, C and R, the noise correlated."""
    rng = np.random.default_rng(7)
    a, c, roots = rng.normal(size=(d, d)), rng.normal(size=(p, d)), rng.normal(size=(3, p + 1, p + 1))
    a *= 0.9 / np.abs(np.linalg.eigvals(a)).max()
    spread = lambda i, n: roots[i, :n, :n] @ roots[i, :n, :n].T + 0.3 * np.eye(n)
    return tuple(
        x.astype(dtype) for x in (rng.normal(size=d), spread(0, d), a, spread(1, d), c, spread(2, p))
    )


def joint(steps, m0, v0, a, q, c, r):
    """Mean and covariance of all states, and of all states and observations, by the recursions' products."""
    means, powers = [m0], [v0]
    for _ in range(steps - 1):
        means.append(a @ means[-1])
        powers.append(a @ powers[-1] @ a.T + q)
    d = len(m0)
    states = np.zeros((steps * d, steps * d))
    for t in range(steps):
        block = powers[t]
        for s in range(t, steps):
            states[s * d : s * d + d, t * d : t * d + d] = block
            states[t * d : t * d + d, s * d : s * d + d] = block.T
            block = a @ block
    whole = np.kron(np.eye(steps), c)
    mean = np.concatenate(means)
    return mean, states, whole @ mean, whole @ states, whole @ states @ whole.T + np.kron(np.eye(steps), r)


def holed(steps=T, p=3):
    """Observations of which entries and one whole step are missing."""
    rng = np.random.default_rng(3)
    y = 2 * rng.normal(size=(steps, p))
    y[rng.uniform(size=y.shape) < 0.2] = np.nan
    y[2] = np.nan
    return y


def test_the_likelihood_is_the_density_of_the_stacked_observations(dtype):
    y, of = holed(), model()
    mean, states, at, cross, covariance = joint(T, *of)
    found = gaussian_chains.kalman_filter(y.astype(dtype), *(x.astype(dtype) for x in of))
    for n in range(1, T + 1):
        seen = np.flatnonzero(~np.isnan(y[:n].ravel()))
        known = stats.multivariate_normal(at[seen], covariance[np.ix_(seen, seen)]).logpdf(y.ravel()[seen])
        close(found.log_likelihoods[:n].sum(), known.astype(dtype), factor=CONDITION, scale=abs(known))
        # the last state given the observations up to it
        gain = np.linalg.solve(covariance[np.ix_(seen, seen)], cross[seen, 2 * n - 2 : 2 * n]).T
        close(
            (found.means[n - 1], found.covariances[n - 1]),
            (
                mean[2 * n - 2 : 2 * n] + gain @ (y.ravel()[seen] - at[seen]),
                states[2 * n - 2 : 2 * n, 2 * n - 2 : 2 * n] - gain @ cross[seen, 2 * n - 2 : 2 * n],
            ),
            factor=CONDITION,
            scale=10,
        )
    ahead = of[2] @ found.means[:-1, :, None]
    close(found.predicted_means[1:], ahead[..., 0], factor=CONDITION)


def test_beyond_the_length_states_go_on_unseen(float64):
    y, of = holed(), model()
    beyond = np.arange(T)[:, None] >= 2
    padded = gaussian_chains.kalman_filter(np.where(beyond, 9.0, y), *of, 2)
    close(padded, gaussian_chains.kalman_filter(np.where(beyond, np.nan, y), *of))
    assert not padded.log_likelihoods[2:].any()
    close(padded.means[2:], padded.predicted_means[2:])


def potentials(y, m0, v0, a, q, c, r):
    """The chain of a state space model, by its precisions; nothing missing."""
    steps, inv = len(y), np.linalg.inv
    precision = np.broadcast_to(c.T @ inv(r) @ c, (steps, *q.shape)).copy()
    precision[0] += inv(v0)
    precision[1:] += inv(q)
    precision[:-1] += a.T @ inv(q) @ a
    pull = y @ inv(r) @ c
    pull[0] += inv(v0) @ m0
    return precision, a.T @ inv(q), pull


@both_ways
def test_the_chain_of_a_state_space_ends_where_the_filter_does(float64, parallel):
    y, of = np.random.default_rng(0).normal(size=(T, 3)), model()
    found = gaussian_chains.kalman_filter(y, *of)
    smoothed = gaussian_chains.smoother(*potentials(y, *of), parallel=parallel)
    close(
        (smoothed.means[-1], smoothed.covariances[-1]), (found.means[-1], found.covariances[-1]), factor=100
    )


@pytest.mark.parametrize(("steps", "parallel"), [(10_000, False), (40, True)])
def test_long_chains_keep_their_digits(float64, steps, parallel):
    y, of = np.random.default_rng(0).normal(size=(steps, 3)), model()
    exact = gaussian_chains.smoother(*potentials(y, *of), parallel=False)
    given = [np.asarray(x, "float32") for x in potentials(y, *of)]
    found = gaussian_chains.smoother(*given, parallel=parallel)
    assert found.means.dtype == "float32"
    close(found, exact, factor=CONDITION)
    filtered = gaussian_chains.kalman_filter(y.astype("float32"), *(x.astype("float32") for x in of))
    close(filtered, gaussian_chains.kalman_filter(y, *of), factor=CONDITION)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(precision=np.ones((T, 2))), r"precision must have shape \(6, 2, 2\)"),
        (dict(coupling=np.ones((T, 2, 2))), r"coupling must have shape \(2, 2\) or \(5, 2, 2\)"),
        (dict(pull=np.ones(T)), r"pull must have shape \(T, D\)"),
        (dict(pull=np.full((T, 2), np.nan)), "pull must be finite"),
        (dict(precision=np.full((T, 2, 2), np.inf)), "precision must be finite"),
        (dict(length=T + 1), "length must be from 0 to 6; got 7"),
        (dict(length=2.5), "length must be one integer"),
        (dict(length="2"), "length must be numbers; got an array of <U1"),
        (dict(precision=None), "precision must be numbers; got None"),
        (dict(pull=[[1.0], [1.0, 2.0]]), "pull must be numeric arrays; got list"),
        (dict(parallel="yes"), "parallel must be True, False or None; got 'yes'"),
        (dict(parallel=np.ones(2)), "parallel must be True, False or None"),
    ],
)
def test_wrong_chains_are_refused(change, message):
    given = dict(zip(("precision", "coupling", "pull"), chain("float32"), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        gaussian_chains.smoother(**given)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, np.ones(T), r"y must have shape \(T, p\)"),
        (0, np.full((T, 3), np.inf), "y must be finite, or NaN"),
        (1, 0.0, r"initial_mean must have shape \(D,\)"),
        (1, np.ones(3), r"initial_covariance must have shape \(3, 3\), as .* initial_mean 3 entries; got"),
        (4, "Q", "transition_covariance must be numbers"),
        (3, np.ones((2, 3)), r"transition_matrix must have shape \(2, 2\)"),
        (6, np.full((3, 3), np.nan), "emission_covariance must be finite"),
    ],
)
def test_wrong_models_are_refused(place, value, message):
    given = [np.ones((T, 3), "float32"), *model("float32")]
    given[place] = value
    with pytest.raises(ValueError, match=message):
        gaussian_chains.kalman_filter(*given)


def test_a_chain_that_is_not_positive_definite_is_nan():
    precision, coupling, pull = chain("float32")
    assert np.isnan(gaussian_chains.log_normalizer(-precision, coupling, pull))
