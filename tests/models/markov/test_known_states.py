"""Hidden Markov models of sequences some of whose states are known.

Given labels the sum over all paths is that over those through them, at steps that are missing too. With all
states known the chain is estimated from the counts of its transitions and every component from its own steps,
and the bound is the evidence of these, by scipy; with none known a fit is that without labels. The derived
E-step is the oracle; sequences may come in any order and parts; labels reach minibatches, Gibbs draws and
replications. Labels that no path obeys are refused, not decoded. (Weights, chunks: test_contracts.py.)
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.models.mixtures.test_labelled import BAD
from tests.support import hidden_markov_table as hand
from tests.support.hidden_markov_table import LENGTHS, K, series
from tests.support.registry import N_ROWS, score, sweeps
from tests.support.textbook import log_beta
from tests.support.tolerances import close
from vbjax.core.model import ConjugateModel

KEY = jax.random.key(0)
ENDS = np.cumsum(LENGTHS)[:-1]
STATES = [
    np.array([0, 1, 1, 2, 0, 0]),
    np.array([2]),
    np.array([1, 0, 2, 2, 1]),
    np.array([0, 2, 1, 1, 2, 0]),
]
SOME = [np.array([-1, 1, 1, -1, -1, 0]), np.array([2]), np.full(5, -1), np.array([-1, -1, 2, -1, -1, 1])]
HMM = dict(em=vb.HiddenMarkovModel, vb=vb.BayesianHiddenMarkovModel)

every_how = pytest.mark.parametrize("how", HMM)


def given(name="EM counts", dtype="float64"):
    """Sequences of unequal length; two of their steps are missing, one of which has a label in SOME."""
    return [x.astype(dtype) for x in series(name)]


def begun(name, labels, dtype):
    """The model of the table, such data, and parameters without any symmetry."""
    model, data, _, params = hand.started(hand.MODELS[name], series(name), dtype)
    return model, vb.Labelled(data, labels), params


def restricted(name, model, params, labels):
    """The chain, and the densities of every sequence, by scipy: none where a label says otherwise."""
    tables = [hand.table_of(name, model, params, x) for x in series(name)]
    for table, own in zip(tables, labels, strict=True):
        table[(own[:, None] >= 0) & (own[:, None] != np.arange(K))] = -np.inf
    return hand.chain_of(model, params), tables


@jax.jit
def bound_of(model, params, data):
    """The local part of the bound."""
    return vb.core.expectation(model, params, data, None).bound


@pytest.mark.parametrize(("name", "dtype"), [
    ("EM counts", "float64"), ("EM counts", "float32"), ("VB counts", "float64"), ("VB full", "float32"),
], indirect=["dtype"])  # fmt: skip
def test_the_paths_are_those_through_the_labels(name, dtype):
    model, data, params = begun(name, SOME, dtype)
    chain, tables = restricted(name, model, params, SOME)
    evidence = sum(hand.log_normalizer(chain, table) for table in tables)
    close(bound_of(model, params, model.read(data)), evidence, scale=100)
    found = model.state_probabilities(params, data), model.decode(params, data)
    for table, p, path in zip(tables, *found, strict=True):
        close(p, hand.marginals(chain, table)[0], factor=100)
        paths, weights = hand.path_weights(chain, table)
        np.testing.assert_array_equal(path, paths[weights.argmax()])
    if name == "EM counts":
        each = [hand.log_normalizer(chain, table) for table in tables]
        close(model.log_predictive(params, data), each, scale=100)
        after = [hand.marginals(chain, table)[0][-1] @ np.exp(chain[1]) for table in tables]
        close(model.predict_states(params, data, 1)[:, 0], after, factor=100)


def counted(labels):
    """First states (K,) and transitions (K, K)."""
    first, moves = np.zeros(K), np.zeros((K, K))
    for own in labels:
        first[own[0]] += 1
        np.add.at(moves, (own[:-1], own[1:]), 1)
    return first, moves


@pytest.mark.parametrize("name", ["counts", "full"])
@every_how
def test_all_states_known_are_complete_data(name, how, float64):
    x = given("EM " + name)
    component = dict(counts=vb.components.Poisson(), full=vb.components.Gaussian())[name]
    fit = vb.fit(HMM[how](K, component), vb.Labelled(x, STATES), key=KEY)
    first, moves = counted(STATES)
    rows, labels = np.concatenate(x), np.concatenate(STATES)
    seen = ~np.isnan(rows).all(1)
    mixture = (vb.Mixture if how == "em" else vb.BayesianMixture)(1, fit.model.component)
    own = [vb.fit(mixture, rows[seen & (labels == k)], key=KEY) for k in range(K)]
    objective = sum(f.objective for f in own)
    if how == "em":
        close(fit.params.initial.mean, first / first.sum())
        close(fit.params.transitions.mean, moves / moves.sum(1, keepdims=True))
        objective += sum(special.xlogy(n, n / n.sum(-1, keepdims=True)).sum() for n in (first, moves))
    else:
        close(fit.params.initial.concentration, first + 1 / K)
        close(fit.params.transitions.concentration, moves + 1 / K)
        objective += sum(log_beta(n + 1 / K) - log_beta(np.full(K, 1 / K)) for n in (first, *moves))
    np.testing.assert_allclose(fit.objective, objective, rtol=1e-12)
    laws = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(f.params.components.mean for f in own))
    chex.assert_trees_all_close(fit.params.components.mean, laws, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("how", "dtype"), [("em", "float32"), ("vb", "float64")], indirect=["dtype"])
def test_no_state_known_is_no_label(how, dtype):
    x, model = given(dtype=dtype.name), HMM[how](K, vb.components.Poisson())
    unknown = vb.Labelled(x, [np.full(n, -1) for n in LENGTHS])
    fits = [vb.fit(model, data, key=KEY, n_restarts=2, max_iter=20) for data in (x, unknown)]
    np.testing.assert_array_equal(fits[1].runs.objective, fits[0].runs.objective)
    for ours, theirs in zip(
        fits[1].state_probabilities(unknown), fits[0].state_probabilities(x), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["EM counts", "VB auto"])
def test_the_derived_e_step_is_the_oracle(name, float64):
    model, data, params = begun(name, SOME, "float64")
    rows, weights = model.read(data).parts[0], jnp.asarray(hand.WEIGHTS)

    @jax.jit
    def both(model, params, rows, weights):
        own = model.e_step(model.prepare(params), rows, weights)
        return own, ConjugateModel.e_step(model, ConjugateModel.prepare(model, params), rows, weights)

    own, derived = both(model, params, rows, weights)
    close(own.bound, derived.bound, factor=10)
    natural = lambda t: {name: factor.natural for name, factor in t.items()}
    close(natural(own.statistics), natural(derived.statistics), factor=100, scale=10)
    terms = model.elbo_terms(params, data)
    close(sum(terms.values()), score(model, params, model.read(data)), scale=max(map(abs, terms.values())))


def test_gradients_are_finite(dtype):
    model, data, params = begun("VB counts", SOME, dtype)
    slope = jax.jit(jax.grad(score, (0, 1)))(model, params, model.read(data))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(slope))


def test_sequences_may_come_in_any_order_and_parts(float64):
    """In as many parts as lengths, or in one; labels flat, by sequence, or beside sequences divided."""
    x, model, flat = given(), vb.BayesianPoissonHMM(K), np.concatenate(SOME)
    turned = [2, 0, 3, 1]
    read, data = model.read(vb.Labelled(x, SOME)), vb.Sequences.of(x)
    for same in (vb.Labelled(x, flat), vb.Labelled(data, flat), vb.Labelled(data.sharded(), SOME)):
        chex.assert_trees_all_equal(model.read(same).parts, read.parts)
    every = [
        vb.Labelled(x, SOME),
        vb.Labelled(hand.in_dtype(x, "float64"), SOME),
        vb.Labelled([x[i] for i in turned], [SOME[i] for i in turned]),
    ]
    model, params = hand.begun(model, KEY, read)
    objective = [score(model, params, model.read(data)) for data in every]
    close(objective, [objective[0]] * len(every), factor=10)
    paths = [model.decode(params, data) for data in every]
    paths[-1] = [paths[-1][turned.index(i)] for i in range(len(x))]
    for own, *others, known in zip(*paths, SOME, strict=True):
        np.testing.assert_array_equal(others, [own] * 2)
        np.testing.assert_array_equal(own[known >= 0], known[known >= 0])
    np.testing.assert_array_equal(model.decode(params, vb.Labelled(x[0], SOME[0])), paths[0][0])


def test_labels_stay_with_steps_that_are_taken_and_cut(float64):
    read = vb.PoissonHMM(K).read(vb.Labelled(given(), SOME))
    of_steps = lambda data: data.unpack([part.labels for part in data.parts])
    for ours, theirs in zip(of_steps(read.take([3, 0])), (SOME[3], SOME[0]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    cut = [piece for own in SOME for piece in np.split(own, [3][: len(own) > 3])]
    for ours, theirs in zip(of_steps(read.windows(3)), cut, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    traced = jax.jit(lambda data, labels: vb.PoissonHMM(K).read(vb.Labelled(data, labels)))
    again = traced(vb.Sequences.of(given()), np.concatenate(SOME))
    jax.tree.map(np.testing.assert_array_equal, again, read)


def test_minibatches_keep_their_labels(float64):
    """Of all sequences they are a whole step; of an iterator the last is short."""
    data, model = vb.Labelled(hand.in_dtype(given(), "float64"), SOME), vb.BayesianPoissonHMM(K)
    steps = vb.fit_stochastic(model, data, key=KEY, batch_size=4, n_epochs=3, forgetting=0)
    read = model.read(data)
    resolved, start = hand.begun(model, jax.random.split(KEY)[0], read)
    close(steps.trace, sweeps(resolved, start, read, n_sweeps=3)[1][:, 0], factor=10)
    part = lambda a, b: vb.Labelled(given()[a:b], SOME[a:b])
    stream = lambda last: vb.fit_stochastic(resolved, iter([part(0, 3), last]), key=KEY, total_rows=4)
    assert np.isfinite(stream(part(3, 4)).trace).all()
    with pytest.raises(ValueError, match="labels in all minibatches or in none"):
        stream(given()[3:])


def test_draws_given_all_states(float64):
    """The chain's rows are Dirichlet then, exactly; a replication has the labels' paths."""
    x = vb.Labelled(given(), STATES)
    fit = vb.fit(vb.BayesianPoissonHMM(K), x, key=KEY)
    n = 4 * 250
    draws = vb.gibbs(fit.model, x, key=KEY, n_draws=250, n_warmup=1)
    alpha = counted(STATES)[1] + 1 / K
    exact = alpha / alpha.sum(1, keepdims=True)
    error = np.sqrt(exact * (1 - exact) / (1 + alpha.sum(1, keepdims=True)) / n)
    assert (np.abs(np.asarray(draws.transitions).mean((0, 1)) - exact) < 4 * error).all()
    far = np.array([1e3, 1e5, 1e7])[:, None] * np.ones(x.x[0].shape[1])
    sharp = vb.families.GammaState(1e6 * far, np.full(far.shape, 1e6))
    redrawn = vb.replicate(fit.model, fit.params | dict(components=sharp), x, key=KEY, n_draws=2)
    for new, own, old in zip(redrawn, STATES, given(), strict=True):
        there = ~np.isnan(old).all(1)
        nearest = np.abs(np.log(new[:, there, :1]) - np.log(far[:, 0])).argmin(-1)
        np.testing.assert_array_equal(nearest, np.broadcast_to(own[there], nearest.shape))


@pytest.mark.parametrize("model", [
    vb.HDPHiddenMarkovModel(4, vb.components.Gaussian()),
    vb.MixtureHMM(2, 2, "diag"),
    vb.AutoregressiveHMM(2),
])  # fmt: skip
def test_few_labels_name_the_states(model, float64):
    """Each is about a level of its own, that of state 0 the higher one; it goes to and fro in one of them."""
    rng, states, x = np.random.default_rng(0), np.repeat([1, 0, 1, 0], 15), np.zeros((61, 1))
    for t, z in enumerate(states):
        x[t + 1] = (0 if z else 8) + (-0.9 if z else 0.2) * (x[t] - (0 if z else 8)) + rng.normal()
    few = np.where(np.arange(60) % 15 % 3 == 1, states, -1)
    fit = vb.fit(model, vb.Labelled(x[1:], few), key=KEY, n_restarts=2)
    assert np.mean(np.asarray(fit.decode(x[1:])) == states) > 0.9


IMPOSSIBLE = dict(
    decode=lambda fit, data: fit.decode(data),
    state_probabilities=lambda fit, data: fit.state_probabilities(data),
    predict_states=lambda fit, data: fit.model.predict_states(fit.params, data, 2),
    forecast=lambda fit, data: fit.forecast(KEY, data, n_steps=2),
    replicate=lambda fit, data: vb.replicate(fit.model, fit.params, data, key=KEY),
)


@pytest.fixture(scope="module")
def never_back():
    """A fit that goes from state 0 to state 1 and stays; 1 then 0 has probability 0."""
    x = np.array([1.0, 2, 1, 9, 8, 9], np.float32)[:, None]
    fit = vb.fit(vb.PoissonHMM(2), vb.Labelled(x, [0, 0, 0, 1, 1, 1]), key=KEY)
    assert fit.params.transitions.mean[1, 0] == 0
    return fit, x


@pytest.mark.parametrize("use", IMPOSSIBLE)
def test_labels_that_no_path_obeys_are_refused(use, never_back):
    fit, x = never_back
    data = vb.Labelled([x, x], [[0, -1, -1, -1, 1, 1], [0, -1, 1, 0, -1, -1]])
    with pytest.raises(
        ValueError, match=r"labels must be possible .* those of sequence 1 have probability 0"
    ):
        IMPOSSIBLE[use](fit, data)
    with pytest.raises(ValueError, match="those of sequence 1"):
        IMPOSSIBLE[use](fit, fit.model.read(data))
    assert np.isfinite(fit.log_predictive(data)[0])
    assert np.isneginf(fit.log_predictive(data)[1])


def test_a_fit_leaves_transitions_of_probability_zero(never_back):
    """It ends with numbers: those that the labels count."""
    fit, x = never_back
    data = vb.Labelled(x, [1, 0, 1, 0, 1, 0])
    again = vb.fit(fit.model, data, key=KEY, params=fit.params)
    assert again.status == vb.Status.CONVERGED
    np.testing.assert_array_equal(again.params.transitions.mean, [[0, 1], [1, 0]])
    exact = sum(stats.poisson.logpmf(own, own.mean()).sum() for own in (x[::2], x[1::2]))
    np.testing.assert_allclose(again.objective, exact, rtol=1e-6)


@pytest.mark.parametrize("message", BAD)
def test_labels_that_are_none_are_refused(message):
    data = vb.Labelled(np.ones((N_ROWS, 2)), BAD[message])
    with pytest.raises(ValueError, match=message.replace("rows", "steps")):
        vb.fit(vb.GaussianHMM(K), data, key=KEY)


def test_labels_by_sequence_must_be_as_many_as_its_steps():
    x = [np.ones((3, 1)), np.ones((2, 1))]
    message = {
        "one vector for each of the 2 sequences; got 1": [[0, 0, 1]],
        r"one number for each of the 2 steps of sequence 1; got shape \(3,\)": [[0, 0, 1], [0, 1, 1]],
        "one number for each of the 5 steps; got shape": [0, 1, 1],
        r"from 0 to 1, or -1 where unknown; got 2 at \[1\]": [[0, 2, 1], [0, 1]],
    }
    for text, labels in message.items():
        with pytest.raises(ValueError, match=text):
            vb.fit(vb.PoissonHMM(2), vb.Labelled(x, labels), key=KEY)
