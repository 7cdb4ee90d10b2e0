"""Latent Dirichlet allocation: the updates and the bound of the literature, and what is known exactly.

With one topic the bound is the evidence; on tiny corpora it is below the evidence by enumeration; no word's
mass is ever lost; documents that weigh, wait or are empty change what they should, and nothing else.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.decomposition
from scipy import optimize, special

import vbjax as vb
from tests.support.textbook import dirichlet_term, expected_log, log_beta
from tests.support.tolerances import close
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.ragged import by_part

K, V, N = 3, 12, 30
LONG = 200  # documents of about so many words are all in one part
ALPHA, ETA = np.array([0.2, 0.5, 0.9]), np.linspace(0.1, 0.6, V)


def counts(seed=0, n=N, tokens=15):
    """A table of counts: lengths of all kinds, an empty document, a word that never occurs."""
    rng = np.random.default_rng(seed)
    topics = rng.dirichlet(np.full(V, 0.3), K)
    table = [rng.multinomial(rng.poisson(tokens), rng.dirichlet(ALPHA) @ topics) for _ in range(n)]
    table = np.array(table)
    table[3], table[:, 5] = 0, 0
    return table


def given(dtype, table=None, **options):
    """A model, its documents and topics to start from."""
    docs = vb.Documents.of(counts() if table is None else table, dtype=dtype)
    model = vb.LatentDirichletAllocation(K, ALPHA, ETA, **options).resolve(docs)
    concentration = np.random.default_rng(1).uniform(1, 3, (K, V))
    return model, docs, vb.Record(topics=vb.families.DirichletState(jnp.asarray(concentration, dtype)))


@jax.jit
def start(ascent, params, docs):
    return ascent.start(params, docs)


@jax.jit
def step(ascent, state, docs, weights):
    return ascent.step(state, docs, weights)


def sweeps(model, docs, params, n, weights=None):
    """Sweeps from even documents: the objectives, the parameters and the documents' states after them."""
    ascent = CoordinateAscent(model, jnp.zeros((), docs.parts[0].counts.dtype))
    state, infos = start(ascent, params, docs), []
    state = state._replace(local=by_part(model.neutral_local, docs))
    for _ in range(n):
        state, info = step(ascent, state, docs, weights)
        infos.append((info.objective, info.error))
    objective, error = np.array(jax.device_get(infos)).T
    return objective, error, state


# compiled once for a model's structure and a corpus' shapes
elbo = jax.jit(jax.value_and_grad(vb.elbo))


@jax.jit
def explained(model, params, docs):
    """The terms of the bound, and the entropies of documents and of topics."""
    theta = model.document_topics(params, docs)
    return model.elbo_terms(params, docs), theta.concentration, theta.entropy(), params.topics.entropy()


def by_hand(table, topics, gamma, weights=None):
    """Blei et al. (2003): the bound at lambda and gamma, and the new ones; documents x words x topics."""
    weights = np.ones(len(table)) if weights is None else weights
    scores = expected_log(gamma)[:, None, :] + expected_log(topics).T  # (n, V, K)
    phi = special.softmax(scores, -1)
    words = table[..., None] * phi
    documents = (words * (scores - np.log(phi))).sum((1, 2))
    documents += [dirichlet_term(ALPHA, one) for one in gamma]
    bound = (weights * documents).sum() + sum(dirichlet_term(ETA, one) for one in topics)
    return bound, ETA + (weights[:, None, None] * words).sum(0).T, ALPHA + words.sum(1)


def test_plain_sweeps_are_those_done_by_hand(float64):
    model, docs, params = given(float64)
    table, topics = counts(), np.asarray(params.topics.concentration)
    gamma = ALPHA + table.sum(1, keepdims=True) / K
    objective, _, state = sweeps(model, docs, params, 5)
    for score in objective:
        bound, topics, gamma = by_hand(table, topics, gamma)
        close(score, bound)
    close(state.params.topics.concentration, topics)
    close(docs.join(state.local).theta.concentration, gamma)


def test_documents_begin_a_few_turns_after_even_ones(float64):
    model, docs, params = given(float64)
    table, topics = counts(), np.asarray(params.topics.concentration)
    gamma = ALPHA + table.sum(1, keepdims=True) / K
    for _ in range(10):
        gamma = by_hand(table, topics, gamma)[2]
    begun = start(CoordinateAscent(model, jnp.zeros(())), params, docs).local
    np.testing.assert_allclose(docs.join(begun).theta.concentration, gamma, atol=1e-2)


def test_plain_and_nested_stand_still_at_the_same_kind_of_point(float64):
    model, docs, params = given(float64, document_sweeps=20)
    objective, _, state = sweeps(model, docs, params, 1500)
    local, topics = docs.join(state.local).theta.concentration, state.params.topics.concentration
    bound, moved, gamma = by_hand(counts(), np.asarray(topics), np.asarray(local))
    np.testing.assert_allclose(objective[-1], bound, rtol=1e-10)
    np.testing.assert_allclose(topics, moved, rtol=1e-4)
    np.testing.assert_allclose(local, gamma, rtol=1e-4)


def test_the_bound_of_one_topic_is_the_evidence(dtype):
    table = counts(tokens=LONG)
    docs = vb.Documents.of(table, dtype=dtype)
    fit = vb.fit(vb.LatentDirichletAllocation(1, 0.7, ETA), docs, key=jax.random.key(0))
    total = table.sum(0)
    close(fit.objective, log_beta(ETA + total) - log_beta(ETA))
    assert fit.n_iter <= 2


def test_the_bound_is_below_the_evidence_by_enumeration(float64):
    documents, k, alpha, eta = [[0, 0, 1], [2, 1]], 2, 0.5, 0.4

    def log_joint(z):
        """log p(words, topics of the words), theta and beta integrated out."""
        theta, beta = np.full((2, k), alpha), np.full((k, 3), eta)
        for (d, word), topic in zip([(i, w) for i in (0, 1) for w in documents[i]], z, strict=True):
            theta[d, topic] += 1
            beta[topic, word] += 1
        prior = log_beta(np.full((2, k), alpha)).sum() + log_beta(np.full((k, 3), eta)).sum()
        return log_beta(theta).sum() + log_beta(beta).sum() - prior

    evidence = special.logsumexp([log_joint(z) for z in itertools.product(range(k), repeat=5)])
    table = np.array([np.bincount(words, minlength=3) for words in documents])
    model = vb.LatentDirichletAllocation(k, alpha, eta)
    fit = vb.fit(model, table, key=jax.random.key(0), n_restarts=8, tol=0.0)
    assert fit.objective < evidence


@pytest.mark.parametrize("concentration", [1e-8, 1e-3, 1.0, 1e3])
def test_no_word_loses_its_mass(concentration, dtype):
    table = counts(tokens=LONG)
    docs = vb.Documents.of(table, dtype=dtype)
    model = vb.LatentDirichletAllocation(K, concentration, concentration)
    fit = vb.fit(model, docs, key=jax.random.key(0), max_iter=30)
    gamma = fit.model.document_topics(fit.params, docs).concentration
    assert np.isfinite(fit.objective)
    close(gamma.sum(1), K * concentration + table.sum(1))
    close(fit.params.topics.concentration.sum(), K * V * concentration + table.sum())


def test_a_word_of_one_topic_in_a_document_of_another_is_settled_in_logarithms(dtype):
    """Where every product of topic and word underflows, the exact shares are neither 0 nor even."""
    topics = jnp.asarray([[50.0, 1e-6, 1.0], [1e-6, 50.0, 1.0]], dtype)
    model = vb.LatentDirichletAllocation(2, 1e-3, 1e-6).resolve(vb.Documents.of(np.eye(3), dtype=dtype))
    docs = vb.Documents.of(np.array([[0, 1, 0], [9, 1, 0]]), dtype=dtype)
    params = vb.Record(topics=vb.families.DirichletState(topics))
    close(model.document_topics(params, docs).concentration, [[1e-3, 1.001], [9.001, 1.001]])


def test_an_empty_document_has_the_prior_and_says_nothing(float64):
    model, docs, params = given(float64)
    close(model.document_topics(params, docs).concentration[3], ALPHA)
    without = vb.Documents.of(np.delete(counts(), 3, axis=0))
    close(sweeps(model, without, params, 3)[0], sweeps(model, docs, params, 3)[0])


def test_scikit_learn_stands_still_where_we_do(float64):
    model, docs, params = given(float64, document_sweeps=20)
    model = dataclasses.replace(
        model, doc_concentration=jnp.full(K, 0.3), topic_concentration=jnp.full(V, 0.2)
    )
    fit = vb.fit(model, docs, key=jax.random.key(0), params=params, tol=0.0, max_iter=3000)
    peer = sklearn.decomposition.LatentDirichletAllocation(
        K, doc_topic_prior=0.3, topic_word_prior=0.2, mean_change_tol=1e-10, max_doc_update_iter=5000
    )
    peer.fit(counts())
    peer.components_ = np.asarray(fit.params.topics.concentration)
    peer.exp_dirichlet_component_ = np.exp(expected_log(peer.components_))
    full = counts().sum(1) > 0
    theirs, ours = peer.transform(counts()), fit.model.document_topics(fit.params, docs).mean
    np.testing.assert_allclose(ours[full], theirs[full], rtol=2e-3)


def test_the_entropies_are_those_done_by_hand(float64):
    model, docs, params = given(float64)
    terms, gamma, *entropies = jax.device_get(explained(model, params, docs))
    scores = expected_log(gamma)[:, None, :] + expected_log(np.asarray(params.topics.concentration)).T
    phi = special.softmax(scores, -1)
    close(terms["entropy of z"], (counts()[..., None] * special.entr(phi)).sum())
    close([terms["entropy of theta"], terms["entropy of topics"]], [x.sum() for x in entropies])


def test_the_bound_has_the_derivative_of_its_concentrations(float64):
    """At settled documents, q held: the envelope theorem, against differences."""
    model, docs, params = given(float64)
    slope = elbo(model, params, docs)[1].doc_concentration
    for k in range(K):
        ahead, behind = (
            dataclasses.replace(model, doc_concentration=ALPHA + h * np.eye(K)[k]) for h in (1e-3, -1e-3)
        )
        difference = (elbo(ahead, params, docs)[0] - elbo(behind, params, docs)[0]) / 2e-3
        np.testing.assert_allclose(slope[k], difference, rtol=1e-3)


def test_planted_topics_are_found():
    rng = np.random.default_rng(0)
    planted = np.kron(np.eye(3), np.full(8, 1 / 8))
    table = np.array([rng.multinomial(50, p @ planted) for p in rng.dirichlet(np.full(3, 0.2), 200)])
    fit = vb.fit(vb.LatentDirichletAllocation(3), table, key=jax.random.key(1), n_restarts=4)
    found = np.asarray(fit.params.topics.mean)
    found = found[np.argsort(found[:, :8].sum(1) + 2 * found[:, 8:16].sum(1))]
    np.testing.assert_allclose(found[[2, 1, 0]][[1, 0, 2]], planted, atol=0.02)


def separated(n=300):
    """Documents of three topics that share no word, and the counts of their topics."""
    rng = np.random.default_rng(0)
    topics = np.array([rng.multinomial(40, p) for p in rng.dirichlet(ALPHA, n)])
    words = [[rng.multinomial(m, np.full(4, 0.25)) for m in column] for column in topics.T]
    return np.concatenate(words, 1), topics


def test_learned_concentrations_raise_the_bound(float64):
    learn = dict(learn_doc_concentration=True, learn_topic_concentration=True)
    model, docs, _ = given("float64", separated()[0], **learn)
    start = model.init(jax.random.key(1), docs)
    objective, _, state = sweeps(model, docs, start, 100)
    eta = jnp.full_like(model.topic_concentration, model.topic_concentration.mean())
    assert state.params.topic_concentration.mean.shape == ()
    fixed = dataclasses.replace(model, **dict.fromkeys(learn, False), topic_concentration=eta)
    alone = sweeps(fixed, docs, vb.Record(topics=start.topics), 100)[0]
    close(alone[0], objective[0])
    assert objective[-1] > alone[-1] + 1


def test_where_topics_are_certain_the_learned_concentration_is_that_of_their_counts(float64):
    """Then q(theta) is exact, and alpha maximises the Dirichlet-multinomial likelihood of the counts."""
    table, topics = separated()

    def loss(log_alpha):
        a = np.exp(log_alpha)
        rows = special.gammaln(a + topics) - special.gammaln(a)
        return -(rows.sum(1) + special.gammaln(a.sum()) - special.gammaln(a.sum() + topics.sum(1))).sum()

    expected = np.exp(optimize.minimize(loss, np.zeros(K), method="BFGS").x)
    model = vb.LatentDirichletAllocation(K, 1.0, 1e-4, learn_doc_concentration=True)
    docs = vb.Documents.of(table)
    concentration = jnp.asarray(1e-4 + table.sum(0) * np.kron(np.eye(3), np.ones(4)))
    params = model.resolve(docs).init(jax.random.key(0), docs)
    params |= dict(topics=vb.families.DirichletState(concentration))
    fit = vb.fit(model, docs, key=jax.random.key(0), params=params, tol=1e-13, max_iter=3000)
    np.testing.assert_allclose(fit.params.doc_concentration.mean, expected, rtol=1e-3)


BAD = {
    "n_topics": lambda: vb.LatentDirichletAllocation(0),
    "document_sweeps": lambda: vb.LatentDirichletAllocation(2, document_sweeps=0),
    "doc_concentration must be positive": lambda: vb.LatentDirichletAllocation(2, doc_concentration=-1.0),
    "topic_concentration must be a number or of shape": lambda: vb.LatentDirichletAllocation(
        2, topic_concentration=np.ones((2, V))
    ),
    "doc_concentration must be a number or of shape": lambda: vb.LatentDirichletAllocation(2, np.ones(3)),
}


@pytest.mark.parametrize("message", BAD)
def test_what_is_no_model_is_refused(message):
    with pytest.raises(ValueError, match=message):
        vb.fit(BAD[message](), counts(), key=jax.random.key(0))


def test_documents_of_another_vocabulary_are_refused():
    model, _, params = given("float32")
    with pytest.raises(ValueError, match=f"{V} words"):
        model.document_topics(params, vb.Documents.of(np.ones((2, V + 1))))
    with pytest.raises(ValueError, match=f"data must have a column for each of the fit's {V} words"):
        model.document_topics(params, np.ones((2, V - 1)))


def test_what_documents_cannot_do_says_so():
    model, docs, params = given("float32")
    with pytest.raises(ValueError, match="not seen data"):
        vb.LatentDirichletAllocation(K).document_topics(params, docs)
    with pytest.raises(ValueError, match="documents"):
        vb.gibbs(model, docs, key=jax.random.key(0))
    with pytest.raises(ValueError, match="local factors that interact"):
        vb.linear_response(model, params, docs)
