"""HDP topics: a lower bound of the evidence, climbed step by step, that finds how many topics are used."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

import vbjax as vb
from tests.support.registry import sweeps
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.core.coordinate_ascent import CoordinateAscent

ETA = 0.4
WORDS = [[0, 0, 1], [2, 2], []]


def corpus(n=150, tokens=60, truth=3):
    """Documents of so many topics that share a few words, some more frequent than others."""
    rng = np.random.default_rng(0)
    topics = rng.dirichlet(np.full(30, 0.1), truth)
    return np.array([rng.multinomial(tokens, p @ topics) for p in rng.dirichlet([1, 0.5, 0.25], n)])


def log_evidence(weights, alpha):
    """log p(WORDS | weights), (draws,), by enumeration of the words' topics; weights (draws, K)."""
    flat = [(d, w) for d, words in enumerate(WORDS) for w in words]
    total, k = np.full(len(weights), -np.inf), weights.shape[1]
    rising = lambda a, n: special.gammaln(a + n) - special.gammaln(a)
    for z in itertools.product(range(k), repeat=len(flat)):
        of_docs, of_topics = np.zeros((len(WORDS), k)), np.zeros((k, 3))
        for (d, w), t in zip(flat, z, strict=True):
            of_docs[d, t] += 1
            of_topics[t, w] += 1
        log = (rising(ETA, of_topics).sum(1) - rising(3 * ETA, of_topics.sum(1))).sum()
        per_doc = rising(alpha * weights[:, None], of_docs).sum(-1) - rising(alpha, of_docs.sum(1))
        total = np.logaddexp(total, log + per_doc.sum(1))
    return total


def climb(model, docs, n):
    """So many sweeps from random topics: the objectives, their errors, and the parameters."""
    dtype = docs.parts[0].counts.dtype
    ascent = CoordinateAscent(model, jnp.zeros((), dtype))
    concentration = np.random.default_rng(1).uniform(1, 3, (model.n_topics, docs.n_words))
    topics = vb.families.DirichletState(jnp.asarray(concentration, dtype))

    def step(state, _):
        state, info = ascent.step(state, docs, None)
        return state, (info.objective, info.error)

    start = ascent.start(vb.Record(topics=topics) | model.neutral_prior(), docs)
    state, (objective, error) = jax.jit(lambda state: jax.lax.scan(step, state, length=n))(start)
    return np.asarray(objective), np.asarray(error), state.params


def test_the_bound_is_below_the_evidence(float64):
    """The evidence by enumeration of topics, averaged over draws of the weights from their prior."""
    k, alpha, gamma = 3, 0.5, 1.5
    rng = np.random.default_rng(0)
    shares = np.append(rng.beta(1, gamma, (5000, k - 1)), np.ones((5000, 1)), 1)
    left = np.cumprod(np.append(np.ones((5000, 1)), 1 - shares[:, :-1], 1), 1)
    likelihood = np.exp(log_evidence(shares * left, alpha))
    evidence = np.log(likelihood.mean())
    error = likelihood.std() / np.sqrt(likelihood.size) / likelihood.mean()
    docs = vb.Documents.of([[(w, words.count(w)) for w in set(words)] for words in WORDS])
    model = vb.HDPTopics(k, ETA, doc_concentration=alpha, weight_concentration=gamma)
    assert climb(model.resolve(docs), docs, 30)[0][-1] < evidence + STANDARD_ERRORS * error


def test_what_is_added_to_the_documents_bound_makes_it_the_surrogate(dtype):
    """log Dirichlet(alpha w) >= (K - 1) log alpha + sum_k [log w_k + (alpha w_k - 1) log theta_k]."""
    docs = vb.Documents.of(corpus(), dtype=dtype)
    model = vb.HDPTopics(5, doc_concentration=0.7).resolve(docs)
    weights = vb.families.StickBreakingState(*jnp.asarray([[40, 20, 3, 0.5], [90, 9, 4, 0.7]], dtype))
    params = vb.Record(weights=weights)
    alpha = np.asarray(model.alpha(params), float)
    normaliser = special.gammaln(0.7) - special.gammaln(alpha).sum()
    surrogate = 4 * np.log(0.7) + np.asarray(weights.expected().log, float).sum()
    close(model.slack(params), jnp.asarray(surrogate - normaliser, dtype), scale=np.abs(normaliser))
    draws = special.gammaln(0.7 * np.asarray(weights.sample(jax.random.key(0), 1000), float)).sum(-1)
    logs = np.log(np.asarray(weights.sample(jax.random.key(0), 1000), float)).sum(-1)
    assert (special.gammaln(0.7) - draws >= 4 * np.log(0.7) + logs).all()


def test_the_weights_climb_to_their_optimum(float64):
    """That which scipy finds of the bound written out, at given E[log theta] of 200 documents."""
    model = vb.HDPTopics(5, doc_concentration=0.7, weight_concentration=1.5).resolve(vb.Documents.of([[]]))
    n, log = 200, -200 * np.array([3.0, 9.0, 6.0, 40.0, 25.0])

    def bound(a, b):
        digamma, both = special.digamma, a + b
        logs, rests = digamma(a) - digamma(both), digamma(b) - digamma(both)
        shares, left = np.append(a / both, 1), np.append(1, np.cumprod(b / both))
        kl = (a - 1) * logs + (b - 1.5) * rests - special.betaln(a, b) + special.betaln(1, 1.5)
        return n * (logs + np.arange(4, 0, -1) * rests).sum() + 0.7 * (shares * left) @ log - kl.sum()

    loss = lambda u: -bound(*np.exp(u.reshape(2, 4)))
    best = optimize.minimize(loss, np.full(8, 4.0), method="BFGS", options=dict(gtol=1e-6))
    statistics = dict(weights=(jnp.asarray(log), jnp.asarray(float(n))))
    step = lambda _, params: model.m_step(params, statistics, ("weights",))
    q = jax.jit(lambda params: jax.lax.fori_loop(0, 20, step, params))(model.neutral_prior()).weights
    np.testing.assert_allclose(bound(q.concentration1, q.concentration0), -best.fun, atol=1e-6)
    mean = vb.families.StickBreakingState(*np.exp(best.x).reshape(2, 4)).mean
    np.testing.assert_allclose(q.mean, mean, rtol=1e-3)


def test_the_topics_that_were_planted_are_found_and_no_more():
    table = corpus(n=80, tokens=40)
    fit = vb.fit(vb.HDPTopics(6), table, key=jax.random.key(0), max_iter=500)
    assert fit.model.used_topics(fit.params).sum() == 3
    words = np.asarray(fit.model.words_of_topics(fit.params))
    np.testing.assert_allclose(words.sum(), table.sum(), rtol=1e-5)
    np.testing.assert_array_less(words[3:], 1)


def test_whole_steps_on_a_whole_corpus_are_coordinate_ascent_and_minibatches_find_as_many(float64):
    """Topics and weights alike, documents begun anew. Three of five topics stay, as were planted."""
    table = corpus(n=120)
    parts = [vb.Documents.of(table[i::3]) for i in range(3)]
    parts = [part.in_parts_of(max(parts, key=lambda x: x.parts[0].ids.size)) for part in parts]
    model, first = vb.HDPTopics(5).resolve(parts[0]), parts[0]
    concentration = np.random.default_rng(1).uniform(1, 3, (5, 30))
    start = vb.Record(topics=vb.families.DirichletState(jnp.asarray(concentration))) | model.neutral_prior()
    how = dict(key=jax.random.key(0), params=start)
    whole = vb.fit_stochastic(model, iter([first] * 60), total_rows=40, forgetting=0.0, **how)
    params, objective, _ = sweeps(model, start, first, None, n_sweeps=60)
    close(whole.trace, objective[:, 0], factor=10)
    close(whole.params, params, factor=1e4)
    some = vb.fit_stochastic(model, iter(parts * 20), total_rows=120, **how)
    for found, words in ((params, table[::3]), (some.params, table)):
        assert model.used_topics(found).sum() == 3
        np.testing.assert_allclose(model.words_of_topics(found).sum(), words.sum(), rtol=1e-3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (vb.HDPTopics(1), "n_topics must be a whole number of at least 2"),
        (vb.HDPTopics(3, doc_concentration=0.0), "doc_concentration must be positive"),
        (vb.HDPTopics(3, weight_concentration=-1.0), "weight_concentration must be positive"),
    ],
)
def test_what_is_no_model_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(model, corpus(), key=jax.random.key(0))
