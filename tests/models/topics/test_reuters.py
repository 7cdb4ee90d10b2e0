"""Topics of 395 news items of 1996 and 1997: words that belong together, a good bound, good predictions."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.decomposition

import vbjax as vb

DATA = pathlib.Path(__file__).parents[2] / "data"
K = 10


@pytest.fixture(scope="module")
def corpus():
    """The documents, the vocabulary, and which documents are held out."""
    held_out = np.arange(395) % 10 == 0
    return (
        vb.datasets.read_ldac(DATA / "reuters.ldac"),
        vb.datasets.read_vocabulary(DATA / "reuters.tokens"),
        held_out,
    )


@pytest.fixture(scope="module")
def fit(corpus):
    docs, _, held_out = corpus
    return vb.fit(vb.LatentDirichletAllocation(K), docs.take(~held_out), key=jax.random.key(0), max_iter=60)


def test_the_corpus_is_what_its_source_says(corpus):
    docs, vocabulary, _ = corpus
    assert (docs.n_rows, docs.n_words, len(vocabulary), int(docs.n_tokens)) == (395, 4258, 4258, 84010)


@pytest.mark.parametrize(
    "words", [("pope", "vatican"), ("charles", "diana"), ("mother", "teresa"), ("yeltsin", "kremlin")]
)
def test_words_of_one_story_are_in_one_topic(corpus, fit, words):
    tops = vb.topics.top_words(fit.params.topics, corpus[1], n=20)
    assert any(set(words) <= set(top) for top in tops)


def test_the_bound_is_better_than_at_the_topics_of_scikit_learn(corpus, fit):
    """Ours has the same priors and sees the same documents, twice as often."""
    docs, _, held_out = corpus
    table = np.zeros((395, docs.n_words))
    for part, place in zip(docs.parts, docs.split(np.arange(395)), strict=True):
        np.add.at(table, (np.asarray(place)[:, None], np.asarray(part.ids)), np.asarray(part.counts))
    peer = sklearn.decomposition.LatentDirichletAllocation(K, max_iter=30, random_state=0).fit(
        table[~held_out]
    )
    params = vb.Record(topics=vb.families.DirichletState(jnp.asarray(peer.components_, jnp.float32)))
    assert fit.objective > jax.jit(vb.elbo)(fit.model, params, docs.take(~held_out))


def test_held_out_words_are_predicted_better_than_by_their_frequencies(corpus, fit):
    docs, _, held_out = corpus
    test, train = docs.take(held_out), docs.take(~held_out)
    perplexity = vb.topics.held_out_perplexity(fit.model, fit.params, test, jax.random.key(0))
    p = (train.word_counts() + 1 / K) / (train.n_tokens + docs.n_words / K)
    assert 1 < perplexity < 0.8 * jnp.exp(-(test.word_counts() * jnp.log(p)).sum() / test.n_tokens)
