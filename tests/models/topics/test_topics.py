"""What is done with a fitted topic model, and its pictures.

Relevance is its formula, and ranks as probability at weight 1 and as lift at weight 0. Halves share out every
token, by fair coins. Completion: predictive probabilities sum to 1, scores of tokens add up, and are numpy's;
perplexity of uniform topics is V, that of a corpus repeated the same, that of the true topics the least.
Coherence is the loop over pairs and documents, and takes its limits where it should. Alignment is the best of
all permutations. Empty documents do nothing. Bad input raises. Pictures show these numbers.
"""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.data.documents import Bags
from vbjax.families.dirichlet import DirichletState
from vbjax.models.topics import use as topics
from vbjax.plots import topics as topic_plots

N, V, K = 30, 12, 3
WORDS = [f"w{i}" for i in range(V)]


def counts(seed=0, n=N):
    """Documents of unequal length, two of them empty."""
    rng = np.random.default_rng(seed)
    table = rng.poisson(rng.choice([0.1, 0.5, 2.0], (n, 1)) * np.ones(V))
    table[[3, n - 1]] = 0
    return table


def posterior(dtype=float, seed=1):
    """Parameters at hand, without a fit: topics of unlike weights and words."""
    return vb.Record(
        topics=DirichletState(jnp.asarray(np.random.default_rng(seed).gamma(0.7, 9, (K, V)), dtype))
    )


def model_of(docs):
    alpha = jnp.asarray([0.2, 0.5, 1.3], docs.parts[0].counts.dtype)
    return vb.LatentDirichletAllocation(K, doc_concentration=alpha).resolve(docs)


def probabilities(seed, k=K, v=V):
    return np.random.default_rng(seed).dirichlet(np.ones(v), k)


# -- top words and relevance ---------------------------------------------------------------------------


def test_top_words_are_those_of_highest_expected_probability_and_ties_go_by_number():
    params = posterior()
    order = np.argsort(-np.asarray(params.topics.mean), 1, kind="stable")
    np.testing.assert_array_equal(topics.top_ids(params.topics, V), order)
    expected = [[WORDS[i] for i in row[:4]] for row in order]
    for vocabulary in (WORDS, np.array(WORDS), dict(enumerate(WORDS))):
        words = topics.top_words(params.topics, vocabulary, 4)
        assert words == expected
        assert all(type(word) is str for row in words for word in row)
    np.testing.assert_array_equal(topics.top_ids([[1, 3, 1, 3]], 4), [[1, 3, 0, 2]])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_relevance_is_its_formula(dtype, weight):
    p, marginal = probabilities(0).astype(dtype), probabilities(1, 1)[0].astype(dtype)
    score = topics.relevance(p, marginal, weight)
    assert score.dtype == dtype
    close(score, weight * np.log(p.astype(float)) + (1 - weight) * np.log(p.astype(float) / marginal))


def test_relevance_ranks_as_probability_at_weight_one_and_as_lift_at_weight_zero():
    p, marginal = probabilities(0), probabilities(1, 1)[0]
    for weight, table in ((1.0, p), (0.0, p / marginal)):
        ranked = topics.top_ids(topics.relevance(p, marginal, weight), V)
        np.testing.assert_array_equal(ranked, np.argsort(-table, 1))
    assert (np.argsort(-p, 1) != np.argsort(-p / marginal, 1)).any()


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_relevance_of_words_that_a_topic_or_the_corpus_does_not_have_is_minus_infinity(weight):
    score = topics.relevance(np.array([[0.5, 0.3, 0.0, 0.2]]), np.array([0.5, 0.0, 0.5, 0.0]), weight)
    np.testing.assert_array_equal(np.isneginf(score), [[False, True, True, True]])
    assert not np.isnan(score).any()


# -- document completion -------------------------------------------------------------------------------


def test_halves_share_out_every_token_and_keep_words_and_shapes(dtype):
    docs = vb.Documents.of(counts(), dtype=dtype)
    first, second = topics.halves(docs, jax.random.key(0))
    for whole, *parts in zip(docs.parts, first.parts, second.parts, strict=True):
        for part in parts:
            assert part.counts.dtype == dtype
            np.testing.assert_array_equal(part.ids, whole.ids)
            assert (part.counts >= 0).all()
            np.testing.assert_array_equal(part.counts, jnp.round(part.counts))
        np.testing.assert_array_equal(parts[0].counts + parts[1].counts, whole.counts)
    other, _ = topics.halves(docs, jax.random.key(1))
    assert any((a.counts != b.counts).any() for a, b in zip(first.parts, other.parts, strict=True))


def test_halves_are_binomial():
    n, c = 4000, 10
    first, _ = topics.halves(vb.Documents.of(np.full((n, 2), c)), jax.random.key(0))
    drawn = np.asarray(first.parts[0].counts, float)
    close_by = lambda value, expected, error: abs(value - expected) < STANDARD_ERRORS * error
    assert close_by(drawn.mean(), c / 2, math.sqrt(c / 4 / drawn.size))
    assert close_by(drawn.var(), c / 4, c / 4 * math.sqrt(2 / drawn.size))
    assert close_by(np.corrcoef(drawn.T)[0, 1], 0, 1 / math.sqrt(n))


def test_perplexity_of_uniform_topics_is_the_number_of_words(dtype):
    docs = vb.Documents.of(counts(), dtype=dtype)
    flat = vb.Record(topics=DirichletState(jnp.full((K, V), 2.5, dtype)))
    value = topics.held_out_perplexity(model_of(docs), flat, docs, jax.random.key(0))
    assert value.dtype == dtype
    close(value, V)


def test_completion_is_the_sum_over_tokens_of_the_log_mixture_of_expected_topics(dtype):
    docs = vb.Documents.of(counts(), dtype=dtype)
    model, params = model_of(docs), posterior(dtype)
    observed, held_out = topics.halves(docs, jax.random.key(2))
    theta = np.asarray(model.document_topics(params, observed).mean, float)
    beta = np.asarray(params.topics.concentration, float)
    beta = beta / beta.sum(1, keepdims=True)
    expected, tokens, start = np.zeros(N), 0, 0
    for part in held_out.parts:
        for ids, own in zip(np.asarray(part.ids), np.asarray(part.counts), strict=True):
            d = int(held_out.order[start])
            expected[d] = sum(c * math.log(theta[d] @ beta[:, w]) for w, c in zip(ids, own, strict=True))
            start, tokens = start + 1, tokens + own.sum()
    score = topics.log_completion(model, params, observed, held_out)
    assert score.dtype == dtype
    close(score, expected)
    value = topics.held_out_perplexity(model, params, docs, jax.random.key(2))
    close(value, np.exp(-expected.sum() / tokens))


def test_predictive_probabilities_of_the_words_sum_to_one_and_scores_of_tokens_add_up(dtype):
    document = counts()[5]
    observed = vb.Documents.of(np.tile(document, (V, 1)), dtype=dtype)
    model, params = model_of(observed), posterior(dtype)
    each = topics.log_completion(model, params, observed, vb.Documents.of(np.eye(V), dtype=dtype))
    close(jnp.exp(each).sum(), 1)
    rest = np.random.default_rng(3).poisson(1, (V, V))
    score = topics.log_completion(model, params, observed, vb.Documents.of(rest, V, dtype=dtype))
    close(score, rest @ np.asarray(each, float))


def test_a_document_of_which_nothing_is_observed_is_predicted_by_the_prior(float64):
    held_out = vb.Documents.of(counts())
    model, params = model_of(held_out), posterior()
    nothing = vb.Documents.of(np.zeros((N, V)))
    share = np.array([0.2, 0.5, 1.3]) / 2
    expected = counts() @ np.log(share @ np.asarray(params.topics.mean))
    close(topics.log_completion(model, params, nothing, held_out), expected)


def test_perplexity_does_not_depend_on_the_size_of_the_test_set(float64):
    observed, held_out = counts(1), counts(2)
    model, params = model_of(vb.Documents.of(observed)), posterior()

    def perplexity(copies):
        seen, rest = (vb.Documents.of(np.tile(table, (copies, 1))) for table in (observed, held_out))
        score = topics.log_completion(model, params, seen, rest)
        assert score.shape == (N * copies,)
        return jnp.exp(-score.sum() / rest.n_tokens)

    close(perplexity(2), perplexity(1))


def test_empty_documents_and_halves_score_nothing(float64):
    docs = vb.Documents.of(counts())
    model, params = model_of(docs), posterior()
    observed, held_out = vb.Documents.of(counts(1)), vb.Documents.of(counts(2))
    score = topics.log_completion(model, params, observed, held_out)
    np.testing.assert_array_equal(np.asarray(score) == 0, counts(2).sum(1) == 0)
    assert (score <= 0).all()
    empty = vb.Documents.of(np.zeros((2, V)))
    with pytest.raises(ValueError, match="docs must have words in their second halves"):
        topics.held_out_perplexity(model, params, empty, jax.random.key(0))


def test_the_true_topics_predict_better_than_word_frequencies_and_those_than_shuffled_topics():
    rng = np.random.default_rng(4)
    true = rng.dirichlet(np.full(V, 0.3), K)
    theta = rng.dirichlet(np.full(K, 0.3), 400)
    table = np.stack([rng.multinomial(60, share @ true) for share in theta])
    docs = vb.Documents.of(table)
    model = model_of(docs)
    frequencies = np.tile(table.mean(0) / table.mean(0).sum(), (K, 1))
    shuffled = true[:, rng.permutation(V)]
    value = {}
    for name, p in dict(true=true, frequencies=frequencies, shuffled=shuffled).items():
        params = vb.Record(topics=DirichletState(jnp.asarray(1e5 * p + 0.1, float)))
        value[name] = float(topics.held_out_perplexity(model, params, docs, jax.random.key(0)))
    entropy = -(theta @ true * np.log(theta @ true)).sum(1).mean()
    assert math.exp(entropy) < value["true"] < value["frequencies"] < value["shuffled"]


def test_another_key_and_other_topics_compile_nothing():
    docs = vb.Documents.of(counts())
    model = model_of(docs)
    first = topics.held_out_perplexity(model, posterior(), docs, jax.random.key(0))
    params, key = posterior(seed=7), jax.random.key(1)
    with compilations() as count:
        second = topics.held_out_perplexity(model, params, docs, key)
    assert not count
    assert first != second


def brute_force(ids, table):
    """Both coherences by loops over words and documents."""
    documents = [set(np.flatnonzero(row)) for row in table if row.any()]
    number = lambda *words: sum(set(words) <= document for document in documents)
    umass, npmi = [], []
    for row in ids:
        pairs = [(row[i], row[j]) for i in range(1, len(row)) for j in range(i)]
        umass.append(sum(math.log((number(w, v) + 1) / number(v)) for w, v in pairs))
        scores = []
        for w, v in pairs:
            p, q, both = (number(*words) / len(documents) for words in ((w,), (v,), (w, v)))
            scores.append(-1 if both == 0 else math.log(both / (p * q)) / -math.log(both))
        npmi.append(sum(scores) / len(pairs))
    return umass, npmi


@pytest.mark.parametrize(("cells", "k"), [(2**20, 3), (100, 4)])
def test_coherence_is_the_loop_over_pairs_and_documents(dtype, cells, k, monkeypatch):
    monkeypatch.setattr(topics, "_CELLS", cells)  # the lesser: chunks of a few documents, that overlap
    table = counts(5)
    rng = np.random.default_rng(6)
    ids = np.stack([rng.permutation(V)[:4] for _ in range(k)])  # topics share words
    assert len(np.unique(ids)) < ids.size
    docs = vb.Documents.of(table, dtype=dtype)
    umass, npmi = brute_force(ids, table)
    for actual, expected in ((topics.umass(ids, docs), umass), (topics.npmi(ids, docs), npmi)):
        assert actual.dtype == dtype
        close(actual, expected)


def test_npmi_is_one_for_words_that_only_come_together_and_minus_one_for_those_that_never_meet():
    together = vb.Documents.of([[(0, 1), (1, 9)], [(0, 2), (1, 1)], [(2, 1)], [(2, 3), (3, 1)], [(4, 1)]], 6)
    assert topics.npmi([[0, 1], [0, 2], [4, 5]], together).tolist() == [1, -1, -1]  # nobody has word 5
    everywhere = vb.Documents.of([[(0, 1), (1, 1)], [], [(0, 1), (1, 2)]])
    assert topics.npmi([[0, 1]], everywhere).tolist() == [1]
    independent = vb.Documents.of([[(0, 1)], [(1, 1)], [(0, 1), (1, 1)], [(2, 1)]])
    assert topics.npmi([[0, 1]], independent).tolist() == [0]
    nothing = vb.Documents.of([[], []], 2)
    assert topics.npmi([[0, 1]], nothing).tolist() == [-1]


def test_npmi_has_no_order_and_umass_has_one():
    docs = vb.Documents.of([[(0, 1), (1, 1)], [(0, 1)], [(0, 1)]])
    np.testing.assert_array_equal(topics.npmi([[0, 1]], docs), topics.npmi([[1, 0]], docs))
    close(topics.umass([[0, 1], [1, 0]], docs), np.log([2 / 3, 2 / 1]))  # by documents of the first word


def test_empty_documents_do_not_change_coherence():
    table = counts(5)
    ids = [[0, 4, 2], [7, 1, 0]]
    docs, more = vb.Documents.of(table), vb.Documents.of(np.concatenate([table, np.zeros((5, V), int)]))
    for coherence in (topics.umass, topics.npmi):
        np.testing.assert_array_equal(coherence(ids, docs), coherence(ids, more))


def test_nothing_of_documents_by_words_or_tokens_by_topics_is_made():
    n, length, v, k = 20_000, 200, 50_000, 50
    shape = jax.ShapeDtypeStruct
    bags = Bags(shape((n, length), "int32"), shape((n, length), "float32"))
    docs = dataclasses.replace(
        vb.Documents.of([[(0, 1)]]), parts=(bags,), order=shape((n,), "int32"), n_words=v
    )
    program = topics._meetings.lower(shape((k, 10), "int32"), docs).compile()
    assert program.memory_analysis().temp_size_in_bytes < 100 * 2**20  # n v bytes would be 1 GB
    model = vb.LatentDirichletAllocation(k, shape((k,), "float32"), shape((v,), "float32"))
    beta, theta = (DirichletState(shape(s, "float32")) for s in ((k, v), (n, k)))
    program = topics._log_completion.lower(model, beta, theta, docs).compile()
    assert program.memory_analysis().temp_size_in_bytes < 100 * 2**20  # n length k float32 would be 800 MB


def test_align_recovers_a_permutation_of_the_same_topics(dtype):
    p = probabilities(8, 6).astype(dtype)
    order = np.array([4, 2, 0, 5, 1, 3])
    found = topics.align(p, p[order])
    np.testing.assert_array_equal(order[found.permutation], np.arange(6))
    np.testing.assert_array_equal(found.distances, np.zeros(6))
    concentration = DirichletState(jnp.asarray(100 * p))
    np.testing.assert_array_equal(topics.align(concentration, p[order]).permutation, found.permutation)


def test_align_is_the_best_of_all_permutations(dtype):
    a, b = probabilities(9, 4).astype(dtype), probabilities(10, 4).astype(dtype)
    distance = np.array([[math.sqrt(1 - np.sqrt(p * q).sum()) for q in b] for p in a.astype(float)])
    total = {p: sum(distance[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(4))}
    best = min(total, key=total.get)
    greedy = tuple(distance.argmin(1))
    assert best != tuple(range(4))
    assert best != greedy
    found = topics.align(a, b)
    assert tuple(found.permutation.tolist()) == best
    assert found.distances.dtype == dtype
    close(found.distances, distance[range(4), best])
    back = topics.align(b, a)
    np.testing.assert_array_equal(found.permutation[back.permutation], range(4))
    disjoint = topics.align(np.eye(2, dtype=dtype), np.eye(2, dtype=dtype)[::-1])
    np.testing.assert_array_equal(disjoint.permutation, [1, 0])


def test_distances_of_nearly_equal_topics_keep_their_digits_in_float32():
    p = np.full((1, 8), 1 / 8, "float32")
    q = p + np.float32(2**-14) * np.tile([1, -1], 4).astype("float32")  # exact
    exact = math.sqrt(((np.sqrt(p.astype(float)) - np.sqrt(q.astype(float))) ** 2).sum() / 2)
    distance = topics.align(p, q).distances
    # 1 - sum sqrt(p q) would be 3e-8, less than the rounding of 1; differences of roots keep four digits
    np.testing.assert_allclose(distance, exact, rtol=1e-3)
    np.testing.assert_array_equal(topics.align(np.eye(1, 2), np.eye(1, 2, 1)).distances, [1])


def test_bad_input_raises_and_is_named():
    docs, more = vb.Documents.of(counts()), vb.Documents.of([[(0, 1)]], V + 1)
    fitted = model_of(docs), posterior()
    state, p, marginal, key = fitted[1].topics, probabilities(0), np.full(V, 1 / V), jax.random.key(0)
    cases = [
        ("vocabulary must have 12 words; got 11", lambda: topics.top_words(p, WORDS[1:])),
        ("n must be at most the number of words, 12; got 13", lambda: topics.top_ids(p, 13)),
        ("n must be a whole number of at least 1", lambda: topics.top_words(p, WORDS, 0)),
        ("scores must have shape", lambda: topics.top_ids(p[0])),
        ("scores must not hold NaN", lambda: topics.top_ids(np.full((2, 3), np.nan), 1)),
        ("topics must be probabilities", lambda: topics.relevance(2 * p, marginal)),
        ("word_probabilities must have shape", lambda: topics.relevance(p, marginal[1:])),
        ("word_probabilities must be probabilities", lambda: topics.relevance(p, docs.word_counts())),
        ("weight must be from 0 to 1; got 1.5", lambda: topics.relevance(p, marginal, 1.5)),
        ("key must be one PRNG key", lambda: topics.held_out_perplexity(*fitted, docs, 0)),
        ("data must have the 12 words", lambda: topics.held_out_perplexity(*fitted, more, key)),
        ("held_out must be of 30 doc", lambda: topics.log_completion(*fitted, docs, counts()[1:])),
        ("top_ids must be whole numbers", lambda: topics.umass([[0.0, 1.0]], docs)),
        ("top_ids must be whole numbers", lambda: topics.npmi([[0], [1]], docs)),
        ("top_ids must be from 0 to 11; got 0 to 12", lambda: topics.npmi([[0, 12]], docs)),
        ("top_ids must name a word of a topic once; topic 1", lambda: topics.umass([[0, 1], [2, 2]], docs)),
        ("word 2 is in no document", lambda: topics.umass([[0, 2]], more)),
        ("topics_b must have the shape of topics_a", lambda: topics.align(p, p[1:])),
        ("topics_a must be probabilities", lambda: topics.align(-p, p)),
        ("topics must be numbers", lambda: topics.relevance("p", marginal)),
        ("scores must be numbers; got an array of complex", lambda: topics.top_ids(p * 1j, 1)),
        ("weight must be numbers", lambda: topics.relevance(p, marginal, "0.5")),
        ("weight must be from 0 to 1", lambda: topics.relevance(p, marginal, [0.5, 0.5])),
        ("model must be a fitted topic model", lambda: topics.log_completion(None, fitted[1], docs, docs)),
        ("params must be fit.params", lambda: topics.held_out_perplexity(fitted[0], {}, docs, key)),
        (
            r"params must be fit.params of the model, with topics of shape \(3, 12\)",
            lambda: topics.log_completion(fitted[0], vb.Record(topics=DirichletState(p[1:])), docs, docs),
        ),
        ("vocabulary must have every word once", lambda: topics.top_words(p, ["a"] * 12)),
        ("vocabulary must be a list of words; it has 0", lambda: topics.top_words(p, [*range(12)])),
        ("vocabulary must have 12 words", lambda: topic_plots.top_words(state, WORDS[1:])),
        ("which must be some of the topics", lambda: topic_plots.top_words(state, WORDS, which=[3])),
        ("shares must have shape", lambda: topic_plots.document_topics(np.ones(3))),
        (
            "documents must be some of the rows of shares, 0 to 2",
            lambda: topic_plots.document_topics(p, documents=[-1]),
        ),
    ]
    for message, call in cases:
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match=r"docs must be vb\.Documents; got ndarray"):
        topics.umass([[0, 1]], counts())


# -- pictures ------------------------------------------------------------------------------------------


def test_bars_are_expected_probabilities_and_their_whiskers_posterior_sd():
    state = posterior().topics
    vocabulary = ["$a$", *WORDS[1:]]
    figure = topic_plots.top_words(state, vocabulary, 5)
    heaviest = np.argsort(-np.asarray(state.concentration).sum(1))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"topic {k}" for k in heaviest]
    for ax, k in zip(figure.axes, heaviest, strict=True):
        ids = np.asarray(topics.top_ids(state, 5))[k]
        (bars,) = (c for c in ax.containers if hasattr(c, "patches"))
        np.testing.assert_allclose([bar.get_width() for bar in bars], state.mean[k, ids], rtol=1e-6)
        ends = np.array([segment[:, 0] for segment in bars.errorbar.lines[2][0].get_segments()])
        np.testing.assert_allclose(np.diff(ends)[:, 0] / 2, state.sd[k, ids], rtol=1e-4)
        assert [label.get_text() for label in ax.get_yticklabels()] == [vocabulary[i] for i in ids]
        assert not any(label.get_parse_math() for label in ax.get_yticklabels())
        assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top


def test_the_topics_and_the_figure_to_draw_them_on_may_be_chosen():
    state = DirichletState(jnp.ones((15, V)))
    assert len(topic_plots.top_words(state, WORDS).axes) == 12
    figure = Figure()
    assert topic_plots.top_words(state, WORDS, 3, figure, which=[14, 0, 3, 2, 9]) is figure
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"topic {k}" for k in (14, 0, 3, 2, 9)]


def test_the_heat_map_shows_the_documents_shares_row_by_row():
    shares = DirichletState(jnp.asarray(np.random.default_rng(0).gamma(1, 1, (40, K)), float))
    for documents, shown in ((None, range(30)), ([39, 0, 7], [39, 0, 7])):
        ax = topic_plots.document_topics(shares, documents=documents)
        (image,) = ax.images
        np.testing.assert_allclose(image.get_array(), shares.mean[np.array(shown)], rtol=1e-6)
        assert [label.get_text() for label in ax.get_yticklabels()] == [str(i) for i in shown]
        assert image.get_clim()[0] == 0
    own = Figure().subplots()
    assert topic_plots.document_topics(np.asarray(shares.mean), own) is own
