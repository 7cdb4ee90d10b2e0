"""Local factors that meet in one term: topics and words of documents, written as a model of one's own.

Carried from sweep to sweep the bound never falls; it is that of the updates done by hand (Blei et al. 2003);
chunks and weights change nothing; rows alone, from nowhere, end where their updates stand still.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vbjax as vb
from tests.support.own_models import own_topics
from tests.support.textbook import dirichlet_term, expected_log
from tests.support.tolerances import close
from vbjax.core.rows import rounding_error

K, V, L, N = 2, 5, 6, 20  # topics, words, words of a document, documents
ALPHA, ETA = 0.6, 0.4


def corpus(seed=0):
    rng = np.random.default_rng(seed)
    topics = np.array([[0.5, 0.4, 0.1, 0, 0], [0, 0, 0.1, 0.4, 0.5]])
    shares = rng.dirichlet([0.5, 0.5], N)
    return jnp.asarray([[rng.choice(V, p=share @ topics) for _ in range(L)] for share in shares], "int32")


def by_hand(topics, words, turns):
    """A sweep from given topics and even words: the bound of the topics, and their update."""
    of_words = np.moveaxis(expected_log(topics)[:, words], 0, -1)
    phi = np.full((N, L, K), 1 / K)
    for _ in range(turns):
        gamma = ALPHA + phi.sum(1)
        scores = expected_log(gamma)[:, None, :] + of_words
        phi = special.softmax(scores, -1)
    bound = (phi * scores).sum() + special.entr(phi).sum()
    bound += dirichlet_term(ALPHA, gamma) + dirichlet_term(ETA, topics)
    counts = [[phi[words == v, k].sum() for v in range(V)] for k in range(K)]
    return bound, gamma, phi, np.array(counts) + ETA


def given(dtype):
    """The model, documents, and topics to start from."""
    words = corpus()
    model = own_topics(K, V, L, ALPHA, ETA).inspect(words).resolve(words)
    concentration = np.random.default_rng(1).uniform(1, 3, (K, V))
    params = vb.Record(topics=vb.families.DirichletState(jnp.asarray(concentration, dtype)))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), model), words, params


def test_the_bound_never_falls_and_documents_settle(dtype):
    model, words, start = given(dtype)
    fit = vb.fit(model, words, key=jax.random.key(0), params=start, max_iter=400, tol=0.0)
    trace = np.asarray(fit.trace)
    assert fit.status == vb.Status.CONVERGED
    assert (np.diff(trace) >= -rounding_error(np.abs(trace[1:]))).all()
    assert trace[-1] > trace[0] + 1
    assert fit.objective.dtype == dtype
    # from nowhere, and where its own updates stand still
    q, again = jax.jit(lambda model, params: (model.posterior(params, words), vb.elbo(model, params, words)))(
        fit.model, fit.params
    )
    scores = expected_log(np.asarray(q.theta.concentration, float))[:, None, :]
    scores = scores + np.moveaxis(expected_log(np.asarray(fit.params.topics.concentration))[:, words], 0, -1)
    phi, atol = special.softmax(scores, -1), 10 * np.finfo(dtype).eps ** 0.5  # of a bound that is flat there
    np.testing.assert_allclose(q.z.probabilities, phi, atol=atol)
    np.testing.assert_allclose(q.theta.concentration, ALPHA + phi.sum(1), atol=10 * atol)
    np.testing.assert_allclose(again, fit.objective, rtol=1e-6)
    if dtype == np.dtype("float64"):
        terms = jax.jit(lambda model, params: model.elbo_terms(params, words))(fit.model, fit.params)
        close(sum(map(float, terms.values())), float(again), scale=1e3)


def test_a_pass_is_the_updates_done_by_hand_in_chunks_and_with_weights(float64, monkeypatch):
    model, words, params = given(float64)
    bound, gamma, phi, topics = by_hand(np.asarray(params.topics.concentration), words, model.local_sweeps)

    @jax.jit
    def passes(model, params):
        totals = []
        for size in (N, 6):
            monkeypatch.setattr(vb.Model, "chunk_rows", lambda self, data, size=size: size)
            totals.append(vb.core.expectation(model, params, words, local=model.neutral_local(words)))
        moved = model.m_step(params, totals[0].statistics, ("topics",))
        return totals, model.objective(params, totals[0]), moved

    totals, objective, moved = passes(model, params)
    close(objective, bound, factor=10)
    close(totals[0].local.theta.concentration, gamma, factor=10)
    close(totals[0].local.z.probabilities, phi, factor=10)
    close(moved.topics.concentration, topics, factor=10)
    # a chunk of documents settles when its own bound does, so chunks agree as far as documents have settled
    np.testing.assert_allclose(totals[1].bound, totals[0].bound, rtol=1e-6)
    assert totals[1].weight == N

    twice = jnp.concatenate([words, words[:5]])
    weights = jnp.where(jnp.arange(N) < 5, 2.0, 1.0)
    one = vb.fit(model, words, key=jax.random.key(0), weights=weights, params=params, tol=0.0)
    other = vb.fit(model, twice, key=jax.random.key(0), params=params, tol=0.0)
    np.testing.assert_allclose(one.objective, other.objective, rtol=1e-8)


def test_the_gradient_of_the_bound_is_taken_at_settled_documents(float64):
    model, words, params = given(float64)

    @jax.jit
    @jax.value_and_grad
    def bound(alpha):
        return vb.elbo(model.replace(alpha=alpha), params, words)

    step = 1e-4
    below, middle, above = (bound(jnp.asarray(ALPHA + shift)) for shift in (-step, 0.0, step))
    np.testing.assert_allclose(middle[1], (above[0] - below[0]) / (2 * step), rtol=1e-5)


def test_what_has_no_closed_form_is_refused(float64):
    model, words, params = given(float64)
    for derivative in (vb.optimum, vb.linear_response):
        with pytest.raises(ValueError, match="local factors that interact"):
            derivative(model, params, words)
