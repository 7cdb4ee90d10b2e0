"""Hidden Markov models: the objective and its updates, against all paths and against what others found.

The objective of EM is the log of the sum over all paths; that of variational Bayes the same of weights that
do not add up to one, less divergences; with one state it is the evidence. No update of a single factor lowers
it. Rows of transitions that are equal make a mixture; sequences are independent blocks; nothing seen is
nothing learnt. One step of EM is hmmlearn's, and two published likelihoods are reached.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmmlearn import hmm
from scipy import special

import vbjax as vb
from tests.support import hidden_markov_table as hand
from tests.support.hidden_markov_table import (
    LENGTHS,
    MODELS,
    WEIGHTS,
    K,
    at,
    same_program,
    series,
    started,
    trajectory,
    updates,
    whole,
)
from tests.support.points import shares
from tests.support.registry import read_out, sweeps
from tests.support.textbook import dirichlet_term, evidence_of_labels, log_beta
from tests.support.tolerances import close
from vbjax.core.model import ConjugateModel
from vbjax.families import DirichletState

# A model in a dtype is a program of some seconds, whatever the values in it.
UNORACLED = ("VB tied", "VB full, holes", *hand.AUTOREGRESSIVE)
ORACLES = [("float64", name) for name in MODELS if name not in UNORACLED]
ORACLES += [("float32", name) for name in ("VB full", "VB tied", "EM categories")]
# ---------------------------------------------------------------- the objective, and that it rises


@pytest.mark.parametrize(("dtype", "name"), ORACLES, indirect=["dtype"])
def test_the_objective_is_that_of_all_paths(dtype, name):
    model, _, _, (params, _, objective, *_) = trajectory(name, dtype.name)
    for i in (0, len(objective) - 1):
        close(objective[i], hand.objective_by_hand(name, model, at(params, i), series(name)), scale=100)


DERIVED = ["EM full", "VB counts", "MAP counts", "VB auto", "VB counts, nested"]


@pytest.mark.parametrize("name", DERIVED)
def test_the_e_step_is_the_one_derived_from_the_log_joint(name, float64):
    """The chain as a local factor: its log-normaliser and expectations, by the gradient of the energy."""
    model, data, weights, (params, *_) = trajectory(name, "float64")
    params, rows = at(params, 1), data.parts[0]

    @jax.jit
    def both(model, params, rows, weights):
        own = model.e_step(model.prepare(params), rows, weights)
        bare = ConjugateModel.prepare(model, params)
        return own, ConjugateModel.e_step(model, bare, rows, weights)

    own, derived = both(model, params, rows, weights)
    close(own.bound, derived.bound, factor=10)
    for factor, statistics in own.statistics.items():
        pivot = ConjugateModel.prepare(model, params)[factor]
        other = derived.statistics[factor]
        for field in pivot.events:
            close(getattr(statistics, field), getattr(other, field), factor=100, scale=10)


@pytest.mark.parametrize(("k", "published", "dtype"), [(3, -328.5275, "float32")])
def test_earthquakes_are_as_published(k, published, dtype):
    """Zucchini & MacDonald (2009), section 3.4: a free first state. Two: test_hidden_markov_use.py."""
    x = [np.asarray(vb.datasets.earthquakes())]
    model, data, _, params = started(vb.PoissonHMM(k), x, dtype, None)
    rates = jnp.asarray(np.linspace(13, 30, k)[:, None], dtype)
    components = vb.Delta(vb.Gamma(rates.shape)).at(rates)
    params |= dict(components=components, initial=shares(np.full(k, 1.0, dtype)))
    objective = updates(model, params, data, None, n=1800)[2]
    np.testing.assert_allclose(objective[-1], published, rtol=1e-5)


def one_state(name, model):
    """Some rows, the model, and of a sequence of them the bound of one state after one step."""
    x = series(name)[2]
    model, data, weights, params = started(model, [x], "float64", np.eye(4)[0])
    _, moved, *_ = updates(model, params, data, weights)
    return x, model, updates(model, at(moved, 0), data, weights)[2][0]


def test_the_bound_of_one_state_is_the_evidence(float64):
    a, b = 2.0, 0.5
    x, _, bound = one_state("VB counts", vb.BayesianPoissonHMM(1, concentration=a, rate=b))
    total, n = x.sum(0), len(x)
    evidence = special.gammaln(a + total) - special.gammaln(a) + a * np.log(b) - (a + total) * np.log(b + n)
    close(bound, evidence.sum() - special.gammaln(x + 1).sum())
    x, model, bound = one_state("VB full", vb.BayesianGaussianHMM(1))
    close(bound, evidence_of_labels(hand.gaussian_prior(model.component), x, [0] * len(x)), scale=100)


def test_the_bound_of_the_only_state_that_is_visited_is_the_evidence(float64):
    """Of all categories, and what the chain's rows add that leads into it."""
    name = "VB categories"
    model, _, _, (start, *_) = trajectory(name, "float64")
    x = whole(series(name))
    into = np.array([1.0, 1e-4, 1e-4])  # exp E[log] = exp(-1e4) = 0
    start = with_chain(at(start, 0), initial=into, transitions=np.tile(into, (K, 1)))
    _, moved, *_ = same_program(name, x, np.ones(4), start)
    params = start | dict(components=at(moved, 0).components)
    bound = same_program(name, x, np.ones(4), params)[2][0]
    initial, transitions = hand.chain_of(model, params)
    chain = len(x) * initial[0] + (sum(LENGTHS) - len(x)) * transitions[0, 0]
    priors = dict(initial=model.chain.initial_concentration, transitions=model.chain.transition_concentration)
    for factor, alpha in priors.items():
        chain += dirichlet_term(np.asarray(alpha), np.asarray(params[factor].concentration))
    prior = np.asarray(model.component.prior.concentration)[0]
    counts = np.stack([np.bincount(column, minlength=4) for column in np.concatenate(x).T.astype(int)])
    close(bound, chain + (log_beta(prior + counts) - log_beta(prior)).sum(), scale=abs(chain))


# ---------------------------------------------------------------- what it is equal to


@pytest.mark.parametrize("name", ["EM counts", "EM full"])
def test_equal_rows_of_transitions_make_a_mixture(name, float64):
    model, _, _, (params, *_) = trajectory(name, "float64")
    x, p = whole(series(name)), np.array([0.5, 0.2, 0.3])
    params = at(params, 0) | dict(initial=shares(p), transitions=shares(np.tile(p, (K, 1))))
    _, moved, objective, *_ = same_program(name, x, np.ones(4), params)
    rows = jnp.asarray(np.concatenate(x))
    mixture = vb.Mixture(K, model.component)
    own = vb.Record(weights=shares(p), components=params.components)
    r = mixture.responsibilities(own, rows)
    after, start, _ = sweeps(mixture, own, rows, n_sweeps=1)
    close(objective[0], start[0, 0])
    firsts = np.cumsum((0, *LENGTHS[:-1]))
    close(at(moved, 0).initial.mean, np.asarray(r)[firsts].mean(0), factor=10)
    close(at(moved, 0).components.mean, after.components.mean, factor=10)


def hmmlearn_peer(name, model, params):
    """Theirs, at our parameters, set to take one step of maximum likelihood."""
    how = dict(n_iter=1, init_params="", startprob_prior=1.0, transmat_prior=1.0)
    kind = hand.kind_of(name)
    if kind in hand.GAUSSIAN:
        peer = hmm.GaussianHMM(K, kind, min_covar=0.0, covars_prior=0.0, **how)
        found = read_out(model.component, params, kind)
        _, peer.means_, peer.covars_ = map(np.asarray, found)
    elif kind == "counts":
        peer = hmm.PoissonHMM(K, lambdas_prior=0.0, lambdas_weight=0.0, **how)
        peer.lambdas_ = np.asarray(params.components.mean)
    else:
        peer = hmm.CategoricalHMM(K, n_features=4, **how)
        peer.emissionprob_ = np.asarray(params.components.mean[:, 0])
    peer.startprob_, peer.transmat_ = np.asarray(params.initial.mean), np.asarray(params.transitions.mean)
    return peer


@pytest.mark.parametrize("name", [f"EM {kind}" for kind in (*hand.GAUSSIAN, "counts", "categories")])
def test_one_step_is_hmmlearns(name, float64):
    x = whole(series(name))
    model, _, _, (params, *_) = trajectory(name, "float64")
    params = at(params, 0)
    if name == "EM categories":  # theirs has one column: let the other be certain
        x, own = [s * [1, 0] for s in x], np.array(params.components.mean)
        own[:, 1] = np.eye(4)[0]
        params |= dict(components=shares(own))
    _, moved, objective, *_ = same_program(name, x, np.ones(4), params)
    peer, moved = hmmlearn_peer(name, model, params), at(moved, 0)
    rows = np.concatenate(x).astype(float if hand.kind_of(name) in hand.GAUSSIAN else int)
    rows = rows[:, :1] if name == "EM categories" else rows
    peer.fit(rows, list(LENGTHS))
    close(objective[0], peer.monitor_.history[0])
    close(moved.initial.mean, peer.startprob_, factor=10)
    close(moved.transitions.mean, peer.transmat_, factor=10)
    if name == "EM counts":
        close(moved.components.mean, peer.lambdas_, factor=10)
    elif name == "EM categories":
        close(moved.components.mean[:, 0], peer.emissionprob_, factor=10)
    else:
        _, means, covariances = read_out(model.component, moved, hand.kind_of(name))
        close(means, peer.means_, factor=10)
        if name == "EM spherical":  # theirs once for each column
            covariances = np.tile(covariances[:, None], 2)
        close(covariances, peer._covars_, factor=100)  # through inverses


# ---------------------------------------------------------------- sequences


DTYPES = pytest.mark.parametrize(
    ("name", "dtype"),
    [("EM full", "float64"), ("VB counts", "float64"), ("VB full", "float32")],
    indirect=["dtype"],
)


@DTYPES
def test_sequences_are_independent_blocks(name, dtype):
    """Objective and statistics of all are sums over sequences alone, empty ones in the others' places."""
    model, _, _, (params, *_, total) = trajectory(name, dtype.name)
    params, total = at((params, total), -1)
    of = lambda x, w: at(same_program(name, [x], np.full(4, w), params, dtype.name)[-1], 0)
    one = [of(x, w) for x, w in zip(series(name), WEIGHTS, strict=True)]
    close(jax.tree.map(lambda *x: sum(x), *one)[:2], total[:2], factor=10, scale=1)
    assert total.weight == WEIGHTS @ LENGTHS
    chain = hand.chain_of(model, params)
    each = [hand.log_normalizer(chain, hand.table_of(name, model, params, x)) for x in series(name)]
    close(jnp.stack([own.bound for own in one]), WEIGHTS * each, factor=10)


@DTYPES
def test_the_names_of_states_change_nothing(name, dtype):
    x, start = series(name), trajectory(name, dtype.name)[3][0]
    run = lambda **given: same_program(name, x, **given, dtype=dtype.name)
    keep = lambda found: (at(found[1], 0), found[2][:4])  # later ones multiply roundings
    expected, states = keep(run()), np.array([2, 0, 1])

    def renamed(q, *index):
        return q.with_fields({name: x[index] for name, x in q.fields.items()})

    others = vb.Record({name: renamed(q, states) for name, q in at(start, 0).items()})
    square = renamed(others.transitions, slice(None), states)
    moved, objective = keep(run(params=others | dict(transitions=square)))
    close(objective, expected[1], factor=10)
    close(moved.components.fields, renamed(expected[0].components, states).fields, factor=100)


@DTYPES
def test_parts_and_padding_change_nothing(name, dtype):
    model, _, weights, (params, *_, total) = trajectory(name, dtype.name)
    params, expected = at((params, total), 0)
    x = vb.Sequences.of(series(name))
    other = x.in_parts_of(vb.Sequences.of([np.ones((t, 2), dtype) for t in (13, 13, 13, 2)]))
    assert [part.observed.shape for part in other.parts] == [(1, 2), (3, 13)]
    found, _ = expectation_of(model, params, model.read(other), weights)
    close(found[:2], expected[:2], factor=10)


@jax.jit
def expectation_of(model, params, data, weights):
    """And what is scored of it."""
    total = vb.core.expectation(model, params, data, weights)
    return total, model.scored(params, total)


# ---------------------------------------------------------------- what is not seen, and priors


def is_state(x):
    return isinstance(x, vb.families.State)


def with_chain(params, **concentrations):
    """Other concentrations of the chain, or the points at their modes."""
    for name, value in concentrations.items():
        value = jnp.asarray(value, params.initial.mean.dtype)
        points = not isinstance(params[name], DirichletState)
        params |= {name: shares(value - 1) if points else DirichletState(value)}
    return params


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("float32", "EM categories"),
        ("float64", "EM binary"),
        ("float64", "EM full"),
        ("float64", "EM full, nested"),
    ],
)
@pytest.mark.parametrize("weight", [0.0, 1e-30, 1e-9, 1e-6])
def test_em_keeps_what_a_state_is_that_is_not_visited(dtype, name, weight):
    """Or hardly ever: less than a rounding of the sums that say so."""
    with jax.enable_x64(dtype == "float64"):
        model, data, weights, (start, *_) = trajectory(name, dtype)
        into = np.array([1, 1, weight]) / (2 + weight)
        start = with_chain(at(start, 0), initial=1 + 1e4 * into, transitions=1 + np.tile(1e4 * into, (K, 1)))
        params, _, objective, error, _ = updates(model, start, data, weights)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, objective)))
    assert (np.diff(objective) >= -np.asarray(error)[1:]).all()


def learnt_from_nothing(model, params, data, weights):
    """The whole step at statistics of zero: those of sequences that weigh nothing."""
    _, moved, *_, total = updates(model, params, data, 0 * weights)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(at(total, 0).statistics))
    return at(moved, 0)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("EM") and name != "EM auto"])
def test_em_learns_nothing_from_nothing(name, float64):
    model, data, weights, (start, *_) = trajectory(name, "float64")
    found = learnt_from_nothing(model, at(start, 0), data, weights)
    mean = lambda params: jax.tree.map(lambda state: state.mean, tuple(params.values()), is_leaf=is_state)
    close(mean(found), mean(at(start, 0)), factor=10)


@pytest.mark.parametrize("name", ["VB full", "VB counts"])
def test_variational_bayes_gives_a_state_that_is_not_visited_its_prior(name, float64):
    model, data, weights, (start, *_) = trajectory(name, "float64")
    never = np.array([1.0, 1.0, 1e-4])  # exp E[log] = exp(-1e4) = 0
    start = with_chain(at(start, 0), initial=never, transitions=np.tile(never, (K, 1)))
    moved = at(updates(model, start, data, weights)[1], 0)
    nothing = learnt_from_nothing(model, start, data, weights)
    close(nothing.transitions.concentration, model.chain.transition_concentration)
    if name == "VB counts":
        close(nothing.components, model.component.prior)
    third = lambda params: jax.tree.map(lambda x: x[2], (params.components, params.transitions))
    close(third(moved), third(nothing), factor=10)


def test_map_is_the_mode_of_counts_and_prior(float64):
    """Rabiner's sums with a_ij - 1 added, and the stickiness on the diagonal; by hand from all paths."""
    name = "MAP counts"
    model, _, _, (params, moved, *_) = trajectory(name, "float64")
    params, moved = at(params, 0), at(moved, 0)
    chain = hand.chain_of(model, params)
    each = [hand.marginals(chain, hand.table_of(name, model, params, x)) for x in series(name)]
    first = 0.5 + sum(w * gamma[0] for w, (gamma, _) in zip(WEIGHTS, each, strict=True))
    pairs = 1 + np.eye(K) + sum(w * xi for w, (_, xi) in zip(WEIGHTS, each, strict=True))
    close(moved.initial.mean, first / first.sum(), factor=10)
    close(moved.transitions.mean, pairs / pairs.sum(1, keepdims=True), factor=10)
    never = 1 + 1e4 * np.array([1.0, 1.0, 0.0])
    start = with_chain(params, initial=never, transitions=np.tile(never, (K, 1)))
    model, data, weights, _ = trajectory(name, "float64")
    moved = at(updates(model, start, data, weights)[1], 0)
    close(moved.transitions.mean[2], np.array([1, 1, 2]) / 4)  # of the prior alone


# ---------------------------------------------------------------- numbers


def test_the_error_of_the_objective_is_what_is_claimed_for_a_hundred_thousand_steps(float64):
    """Roundings are of every step's density, however small their sum: in this unit it is next to nothing."""
    n, unit, rng = 100_000, np.exp(-1.731), np.random.default_rng(0)
    z = np.cumsum(rng.uniform(size=n) < 0.1) % 2
    x = (unit * (4 * z + rng.normal(size=n)))[:, None].astype("float32")
    model = vb.GaussianHMM(2, scale=np.ones(1), covariance_floor=1e-6)
    chain = dict(initial=[3.0, 3.0], transitions=[[10.0, 2.0], [2.0, 10.0]])
    chain = {name: shares(jnp.asarray(value) - 1) for name, value in chain.items()}
    mixture = vb.GaussianMixture(2)
    start = mixture.params_at([0.5, 0.5], [[0.0], [4 * unit]], np.full((2, 1, 1), unit**2))
    params = vb.Record(chain, components=start.components)
    found = []
    for dtype in ("float32", "float64"):
        cast = lambda leaf, dtype=dtype: jnp.asarray(leaf, "float32").astype(dtype)
        own, own_params = jax.tree.map(cast, (model, params))
        data = hand.in_dtype([x], dtype)
        found.append(expectation_of(own, own_params, data, None)[1])
    (rough, magnitude), (exact, _) = jax.tree.map(float, found)
    error = 4 * np.finfo("float32").eps * magnitude
    assert abs(rough - exact) < error < 1e-6 * n
    assert abs(exact) < n / 100


@pytest.mark.parametrize(("offset", "scale"), [(0, 1), (1e4, 1), (-1, 1e-3)])
def test_float32_is_float64_wherever_the_data_lie(offset, scale):
    x = [np.float32(scale * s + offset) for s in series("VB full")]
    model, data, weights, params = started(MODELS["VB full"], x, "float32")
    rough = updates(model, params, data, weights)[2]
    with jax.enable_x64(True):
        model, params = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), (model, params))
        exact = updates(model, params, hand.in_dtype(x, "float64"), jnp.asarray(WEIGHTS))[2]
    np.testing.assert_allclose(rough, exact, rtol=1e-4)
