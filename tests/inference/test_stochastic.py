"""Laws of stochastic variational inference.

One minibatch of everything and whole steps are coordinate ascent. With rates 1 / t one epoch adds up to the
exact update where nothing interacts, from arrays and from an iterator. A short minibatch counts as one that
repeats its rows. Windows of a sequence stand for it: of a chain without memory exactly, and what was planted
in a long one is found. What cannot be done raises.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import MODELS, sweeps
from tests.support.tolerances import close
from vbjax.terms import normal

KEY = jax.random.key(0)
ONE_PASS = dict(key=KEY, delay=0.0, forgetting=1.0)

elbo = jax.jit(vb.elbo)


def rows(dtype="float32", n=24):
    return jnp.asarray(np.random.default_rng(0).normal(3, 2, size=n), dtype)


def location_prior(s):
    return normal(s.mu, 0.0, s.strength)


def location_rows(s, x):
    return normal(x, s.mu, 0.25)


def location(strength=0.5):
    return vb.Model(
        factors=dict(mu=vb.Normal()),
        hyper=dict(strength=strength),
        log_prior=location_prior,
        log_likelihood=location_rows,
    )


@pytest.mark.parametrize(
    "name",
    [
        "mean and precision",
        "k-means",
        "VB full",
        "own, local, points",
        "own, states in time",
        "own, vectors in time",
        "HMM of counts",
    ],
)
def test_whole_steps_on_all_rows_are_coordinate_ascent(name, float64):
    data, weights = MODELS[name].data("float64")
    model = MODELS[name].model.inspect(data).resolve(data, weights)
    start = MODELS[name].start(model, data, 0)
    fit = vb.fit_stochastic(
        model, data, key=KEY, batch_size=len(weights), n_epochs=3, forgetting=0.0, params=start
    )
    params, objective, _ = sweeps(model, start, data, None, n_sweeps=3)
    expected = jax.jit(model.expected)
    close(expected(fit.params), expected(params), factor=1000)  # the rows come in another order
    close(fit.trace, objective[:, 0], factor=10)


def documents(dtype="float32", n=30):
    """A corpus of short and long documents, in two parts."""
    rng = np.random.default_rng(0)
    sizes = rng.choice([0, 1, 40, 60], n)
    return vb.Documents.of(np.array([rng.multinomial(m, np.full(8, 1 / 8)) for m in sizes]), dtype=dtype)


def topics(dtype="float32"):
    """A topic model, and where it starts."""
    concentration = np.random.default_rng(1).uniform(1, 3, (2, 8))
    start = vb.Record(topics=vb.families.DirichletState(jnp.asarray(concentration, dtype)))
    return vb.LatentDirichletAllocation(2, 0.5, 0.3), start


def test_whole_steps_on_a_whole_corpus_are_coordinate_ascent(float64):
    docs, (model, start) = documents("float64"), topics("float64")
    fit = vb.fit_stochastic(
        model, docs, key=KEY, batch_size=docs.n_rows, n_epochs=3, forgetting=0.0, params=start
    )
    params, objective, _ = sweeps(model.resolve(docs), start, docs, None, n_sweeps=3)
    close(fit.params, params, factor=100)  # the documents come in another order
    close(fit.trace, objective[:, 0], factor=10)
    streamed = vb.fit_stochastic(
        model, iter([docs]), key=KEY, total_rows=docs.n_rows, forgetting=0.0, params=start
    )
    close(streamed.trace[0], fit.trace[0], factor=10)


def test_minibatches_stand_for_the_corpus_whatever_their_documents_lengths(float64):
    """From one point, many of them: the mean of their estimates is the bound, within its standard error."""
    docs, (model, start) = documents("float64"), topics("float64")
    assert len(docs.parts) == 2
    fit = vb.fit_stochastic(
        model, docs, key=KEY, batch_size=10, n_epochs=100, delay=1e12, forgetting=1.0, params=start
    )
    estimates = np.asarray(fit.trace)
    error = estimates.std() / np.sqrt(estimates.size)
    bound = elbo(model.resolve(docs), start, docs)
    assert abs(estimates.mean() - bound) < 4 * error < 0.03 * abs(bound)


def test_a_stream_of_documents_may_grow_and_end_short(float64):
    model, start = topics("float64")
    corpus = [[(w, 1 + d) for w in range(1 + d // 4)] for d in range(12)]
    batches = [vb.Documents.of(some, 8) for some in (corpus[:8], corpus[8:])]
    fit = vb.fit_stochastic(model, iter(batches), key=KEY, total_rows=12, forgetting=0.0, params=start)
    for number, batch in enumerate(batches):
        weights, docs = jnp.full(len(batch), 12 / len(batch)), batch
        params, objective, _ = sweeps(model.resolve(docs), start, docs, weights, n_sweeps=1)
        # documents settle in the company of their chunk, a little more or less
        np.testing.assert_allclose(fit.trace[number], objective[0, 0], rtol=1e-6)
        start = params
    np.testing.assert_allclose(fit.params.topics.concentration, start.topics.concentration, rtol=1e-3)
    with pytest.raises(ValueError, match="at most 8 documents"):
        vb.fit_stochastic(model, iter([batches[0], vb.Documents.of(corpus, 8)]), key=KEY, total_rows=12)


def chain(n_steps, transitions, rates):
    """States (t,) of a chain, and counts (t, 1)."""
    rng, state, states = np.random.default_rng(0), 0, []
    for u in rng.uniform(size=n_steps):
        states.append(state)
        state = int((u > np.cumsum(transitions[state])[:-1]).sum())
    return np.array(states), rng.poisson(np.take(rates, states))[:, None].astype(float)


def test_windows_of_a_chain_without_memory_stand_for_its_sequence(float64):
    """At equal rows of transitions cuts lose nothing: bound and sums are the sequence's."""
    concentration = jnp.asarray([3.0, 1.0, 2.0])
    same = vb.families.DirichletState(concentration)
    rates = vb.families.GammaState(jnp.asarray([[20.0], [60.0], [90.0]]), jnp.full((3, 1), 10.0))
    rows = vb.families.DirichletState(jnp.tile(concentration, (3, 1)))
    start = vb.Record(initial=same, transitions=rows, components=rates)
    whole = vb.Sequences.of(chain(70, np.full((3, 3), 1 / 3), [2.0, 6.0, 9.0])[1])
    model, windows = vb.BayesianPoissonHMM(3).resolve(whole), whole.windows(8)
    assert (whole.n_rows, windows.n_rows) == (1, 9)

    @jax.jit
    def passed(model, data):
        total = vb.core.expectation(model, start, data)
        counts = total.statistics.initial.log + total.statistics.transitions.log.sum(0)
        return model.objective(start, total), total.statistics.components, counts, total.weight

    close(passed(model, windows), passed(model, whole), factor=10)


def test_windows_of_a_long_sequence_find_what_was_planted():
    transitions, rates = np.array([[0.95, 0.05, 0.0], [0.0, 0.9, 0.1], [0.2, 0.0, 0.8]]), [2.0, 8.0, 20.0]
    states, x = chain(4000, transitions, rates)
    windows = vb.Sequences.of(x.astype("float32")).windows(50)
    fit = vb.fit_stochastic(vb.BayesianPoissonHMM(3), windows, key=KEY, batch_size=20, n_epochs=20)
    found, a = np.ravel(fit.params.components.mean), np.asarray(fit.params.transitions.mean)
    order = np.argsort(found)
    pairs = np.histogram2d(states[:-1], states[1:], bins=3)[0]
    np.testing.assert_allclose(found[order], [x[states == k].mean() for k in range(3)], rtol=0.02)
    np.testing.assert_allclose(a[order][:, order], pairs / pairs.sum(1, keepdims=True), atol=0.02)


def test_one_epoch_at_rates_one_over_t_is_the_exact_update(dtype):
    x = rows(dtype)
    exact = vb.fit(location(), x, key=KEY)
    fit = vb.fit_stochastic(location(), x, batch_size=4, n_epochs=1, **ONE_PASS)
    close(fit.params, exact.params)
    close(fit.objective, exact.objective)
    assert fit.params.mu.mean.dtype == fit.trace.dtype == dtype
    assert fit.trace.shape == (6,)
    assert fit.status == vb.Status.MAX_ITER
    batches = iter(np.split(np.asarray(x), 6))
    streamed = vb.fit_stochastic(location(), batches, total_rows=24, **ONE_PASS)
    close(streamed.params, exact.params)
    assert streamed.trace.shape == (6,)
    assert streamed.objective == streamed.trace[-1]  # of six estimates, the last


def test_a_short_minibatch_counts_as_one_that_repeats_its_rows():
    x = np.asarray(rows())
    short = [x[:8], x[8:12]]
    repeated = [x[:8], np.tile(x[8:12], 2)]
    one, other = (
        vb.fit_stochastic(location(), iter(b), total_rows=24, **ONE_PASS) for b in (short, repeated)
    )
    close(one.params, other.params)
    close(one.trace, other.trace)


def test_steps_shrink_so_that_the_end_is_near_the_optimum(float64):
    data, _ = MODELS["own, local"].data("float64")
    model, start = MODELS["own, local"].started(data, None)
    best = vb.fit(model, data, key=KEY, params=start, tol=0.0)
    fit = vb.fit_stochastic(model, data, key=KEY, batch_size=10, n_epochs=200, params=start)
    before = elbo(model, start, data)
    assert before < fit.objective <= best.objective + 1e-9
    assert best.objective - fit.objective < 0.02 * (best.objective - before)


BAD = {
    "forgetting": lambda: vb.fit_stochastic(location(), rows(), key=KEY, forgetting=0.4),
    "delay": lambda: vb.fit_stochastic(location(), rows(), key=KEY, delay=-1.0),
    "batch_size": lambda: vb.fit_stochastic(location(), rows(), key=KEY, batch_size=0),
    "total_rows": lambda: vb.fit_stochastic(location(), iter([rows()]), key=KEY),
    "iterator is empty": lambda: vb.fit_stochastic(location(), iter([]), key=KEY, total_rows=5),
    "first one's shapes": lambda: vb.fit_stochastic(
        location(), iter([rows(n=4), rows(n=8)]), key=KEY, total_rows=12
    ),
    "data must be finite": lambda: vb.fit_stochastic(
        location(), itertools.chain([rows()], [rows() * np.nan]), key=KEY, total_rows=48
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_done_raises(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
