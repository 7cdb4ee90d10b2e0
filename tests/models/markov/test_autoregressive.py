"""Switching autoregressions: hidden Markov models whose steps depend on those before them.

The objective is that of all paths, and no update lowers it. With one state the bound is the exact evidence of
a Bayesian vector autoregression; one step of EM is weighted least squares with the marginals of all paths.
Where the data lie and what their unit is changes the bound by the change of variables alone. Draws ahead have
the moments of enumerated paths, feeding back what was drawn. Two planted oscillations are told apart where a
Gaussian model cannot. What cannot be read is refused by name.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmmlearn import hmm

import vbjax as vb
from tests.support import autoregressive_twins as twins
from tests.support import hidden_markov_table as hand
from tests.support.hidden_markov_table import (
    AUTOREGRESSIVE,
    LENGTHS,
    MODELS,
    WEIGHTS,
    K,
    at,
    series,
    started,
    trajectory,
    updates,
)
from tests.support.mixture_twins import TWINS
from tests.support.tolerances import STANDARD_ERRORS, close

KEY = jax.random.key(0)


def lagged(sequences, order):
    """Of all steps with a density those before, and the step; and the number of the sequence of each."""
    d, found, which = sequences[0].shape[1], [], []
    for i, x in enumerate(sequences):
        both, seen = twins.with_lags(x, order)
        found.append(both[seen])
        which += [i] * seen.sum()
    both = np.concatenate(found)
    return (both[:, : d * order], both[:, d * order + 1 :]), np.array(which)


# ---------------------------------------------------------------- updates


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_the_objective_is_that_of_all_paths_and_never_falls(name, float64):
    """A sequence as long as the order, and steps missing in the middle and at the end, among the others."""
    model, _, _, (params, _, objective, error, _) = trajectory(name, "float64")
    for i in (0, len(objective) - 1):
        close(objective[i], hand.objective_by_hand(name, model, at(params, i), series(name)), scale=100)
    assert (np.diff(objective) >= -np.asarray(error)[1:]).all()
    assert objective[-1] > objective[0] + 10 * error[0]


def test_the_bound_of_one_state_is_the_evidence_of_a_vector_autoregression(float64):
    """Of sequences in several parts, with a step missing in part; a weight of 2 is a sequence twice."""
    x = np.cumsum(np.random.default_rng(0).normal(size=(48, 2)), 0)
    x[[5, 20], [0, 1]] = np.nan
    x, weights = np.split(x, [30, 37, 39]), np.array([2, 1, 1, 3])
    model, data, w, params = started(vb.BayesianAutoregressiveHMM(1, order=2), x, "float64", weights)
    assert len(data.parts) > 1
    _, moved, *_ = updates(model, params, data, w)
    bound = updates(model, at(moved, 0), data, w)[2][0]
    rows, which = lagged(x, 2)
    again = np.repeat(np.arange(len(which)), weights[which])
    rows = jax.tree.map(lambda x: x[again], rows)
    close(bound, TWINS["planes"].evidence(model.component, rows, np.ones((len(again), 1)))[0], factor=100)


def test_a_step_of_em_is_weighted_least_squares(float64):
    name = "EM auto"
    model, _, _, (params, moved, *_) = trajectory(name, "float64")
    params, moved, x = at(params, 0), at(moved, 0), series(name)
    chain = hand.chain_of(model, params)
    r = []
    for weight, s in zip(WEIGHTS, x, strict=True):
        gamma = hand.marginals(chain, hand.table_of(name, model, params, s))[0]
        r.append(weight * gamma[twins.with_lags(s)[1]])
    (lags, y), _ = lagged(x, 1)
    u, floor = np.column_stack([lags, np.ones(len(y))]), np.sqrt(np.asarray(model.component.floor))
    weights, covariances = twins.regressions(model.component, moved.components)
    for k, own in enumerate(np.concatenate(r).T):
        root = np.sqrt(own)[:, None]
        best = np.linalg.lstsq(root * u, root * y, rcond=None)[0]
        left = root * (y - u @ best)
        values, vectors = np.linalg.eigh(left.T @ left / own.sum() / np.outer(floor, floor))
        clipped = np.outer(floor, floor) * ((vectors * np.maximum(values, 1)) @ vectors.T)
        # through normal equations of few rows
        np.testing.assert_allclose(weights[k], best, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(covariances[k], clipped, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (0.0, 1e-3), (-1.0, 1e3)])
def test_data_elsewhere_and_in_other_units_have_the_same_bound(offset, scale, float64):
    name = "VB auto"
    objective = lambda x: updates(*[started(MODELS[name], x, "float64")[i] for i in (0, 3, 1, 2)])[2]
    x = series(name)
    (_, y), which = lagged(x, 1)
    change = WEIGHTS[which].sum() * y.shape[1] * np.log(scale)
    found = np.asarray(objective([scale * s + offset for s in x])) + change
    np.testing.assert_allclose(found, objective(x), rtol=1e-8)


@pytest.mark.parametrize(("offset", "scale"), [(1e4, 1.0), (-1.0, 1e-3)])
def test_float32_is_float64_wherever_the_data_lie(offset, scale):
    x = [np.float32(scale * s + offset) for s in series("VB auto")]
    model, data, weights, params = started(MODELS["VB auto"], x, "float32")
    _, _, rough, error, _ = updates(model, params, data, weights)
    assert (np.diff(rough) >= -np.asarray(error)[1:]).all()
    with jax.enable_x64(True):
        model, params = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), (model, params))
        exact = updates(model, params, hand.in_dtype(x, "float64"), jnp.asarray(WEIGHTS))[2]
    np.testing.assert_allclose(rough, exact, rtol=1e-4)


# ---------------------------------------------------------------- use


@functools.cache
def subject():
    """A model by EM, parameters after some updates, sequences without holes, and its regressions."""
    name = "EM auto"
    model, _, _, (params, *_) = trajectory(name, "float64")
    params = at(params, 0)
    x = [np.where(np.isnan(s), 1.0, s) for s in series(name)]
    return model, params, x, twins.regressions(model.component, params.components)


def test_likelihood_and_criteria_are_those_of_enumeration(float64):
    model, params, x, _ = subject()
    chain = hand.chain_of(model, params)
    each = [hand.log_normalizer(chain, hand.table_of("EM auto", model, params, s)) for s in x]
    data = hand.in_dtype(x, "float64")
    close(model.log_predictive(params, data), each, factor=10)
    n_parameters = (K - 1) + K * (K - 1) + K * (3 * 2 + 3)
    assert model.n_parameters == n_parameters
    close(model.bic(params, data), n_parameters * np.log(sum(LENGTHS)) - 2 * sum(each), factor=10)


def test_coefficients_are_those_of_the_steps_as_they_are(float64):
    model, params, _, (weights, covariances) = subject()
    close(model.coefficients(params)[:, 0], np.swapaxes(weights[:, :-1], 1, 2), factor=10)
    close(model.intercepts(params), weights[:, -1], factor=100)
    close(model.covariances(params), covariances, factor=10)


def moments(weights, covariances, p, x):
    """Mean and elementwise second moment of a step after x (..., d), its state drawn from p (..., K)."""
    means = np.einsum("...q,kqd->...kd", np.concatenate([x, np.ones_like(x[..., :1])], -1), weights)
    second = means**2 + np.diagonal(covariances, axis1=1, axis2=2)
    return means, np.einsum("...k,...kd->...d", p, means), np.einsum("...k,...kd->...d", p, second)


def near(draws, mean):
    error = draws.std(0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - mean) < STANDARD_ERRORS * error).all()


def test_forecasts_feed_draws_back(float64):
    model, params, x, regressions = subject()
    data = hand.in_dtype(x, "float64")
    draws = np.asarray(model.forecast(params, KEY, data, 2, n_draws=4000))
    assert draws.shape == (4000, len(x), 2, 2)
    p, a = np.asarray(model.predict_states(params, data, 1))[:, 0], np.asarray(params.transitions.mean)
    means, first, second = moments(*regressions, p, np.stack([s[-1] for s in x]))
    near(draws[:, :, 0], first)
    near(draws[:, :, 0] ** 2, second)
    ahead = moments(*regressions, a[None], means)[1]  # given the state of the step before
    near(draws[:, :, 1], np.einsum("nk,nkd->nd", p, ahead))
    hole = [*x[:3], np.where(np.arange(6)[:, None] == 5, np.nan, x[3])]
    with pytest.raises(ValueError, match="last order = 1 steps to be forecast; sequence 3 misses one"):
        model.forecast(params, KEY, hand.in_dtype(hole, "float64"), 2)


def test_a_sample_goes_on_from_its_start(float64):
    model, params, _, regressions = subject()
    start = np.array([[3.0, -2.0]])
    sample = jax.jit(jax.vmap(lambda key: model.sample(params, key, 2, given=start)))
    states, x = map(np.asarray, sample(jax.random.split(KEY, 4000)))
    assert (states.shape, x.shape) == ((4000, 2), (4000, 2, 2))
    p = np.asarray(params.initial.mean) @ np.asarray(params.transitions.mean)
    near(x[:, 0], moments(*regressions, p, start[0])[1])
    own = regressions[0][states[:, 1]]
    near(x[:, 1] - np.einsum("nq,nqd->nd", np.column_stack([x[:, 0], np.ones(4000)]), own), 0.0)
    with pytest.raises(ValueError, match=r"given must have order = 1 rows; got shape \(2, 2\)"):
        model.sample(params, KEY, 2, given=np.zeros((2, 2)))


def test_planted_oscillations_are_told_apart():
    """Two of one amplitude, so that no step alone says which it is; hmmlearn has their levels to go by."""
    rng, n = np.random.default_rng(0), 600
    z = np.arange(n) // 60 % 2
    x = np.zeros((n, 1))
    for t in range(2, n):
        x[t] = [1.7, 0.5][z[t]] * x[t - 1] - 0.95 * x[t - 2] + [0.28, 0.5][z[t]] * rng.normal()
    x = x.astype("float32")
    share = lambda path: max((path == z).mean(), (path != z).mean())
    fit = vb.fit(vb.AutoregressiveHMM(2, order=2), x, key=KEY, n_restarts=4)
    assert share(fit.model.decode(fit.params, x)) > 0.95
    assert share(hmm.GaussianHMM(2, random_state=0).fit(x).predict(x)) < 0.75


# ---------------------------------------------------------------- input

X = np.arange(8.0).reshape(4, 2) ** 2
BAD = [
    (vb.AutoregressiveHMM(2, order=0), [X], "order of the component must be a whole number of at least 1"),
    (vb.AutoregressiveHMM(2, order=3), [X, X[:2]], "at least order = 3 steps; sequence 1 has 2"),
    (vb.AutoregressiveHMM(2, order=4), [X], "a step that follows order = 4 others"),
    (vb.AutoregressiveHMM(2), [X * [[1], [np.nan], [1], [np.nan]]], "a step that follows order = 1 others"),
    (vb.AutoregressiveHMM(2), X[:, 0], r"data must have shape \(n, d\) .* reshape one column"),
    (vb.AutoregressiveHMM(2), [(X, X)], r"sequences of arrays \(t, d\)"),
    (
        vb.AutoregressiveHMM(2, covariance_floor=0.0),
        [X],
        "covariance_floor of the component must be positive",
    ),
    (
        vb.BayesianAutoregressiveHMM(2, degrees_of_freedom=1.0),
        [X],
        "degrees_of_freedom of the component must be above 1",
    ),
    (
        vb.BayesianAutoregressiveHMM(2, inverse_scale=np.ones((2, 2))),
        [X],
        "inverse_scale .* must be symmetric and positive definite",
    ),
    (vb.AutoregressiveHMM(2).replace(component=None), [X], "component must be a component, .* None"),
    (vb.Mixture(2, vb.components.Autoregression()), X, "component must not be an autoregression here"),
    (vb.AutoregressiveHMM(2, transition_concentration=0.5), [X], "at least 1 by EM"),
]


@pytest.mark.parametrize(("model", "data", "message"), BAD)
def test_bad_input_is_refused_by_name(model, data, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=KEY)
