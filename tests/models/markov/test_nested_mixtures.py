"""Hidden Markov models with a mixture in every state: the chain of all components, seen by states.

Its objective and updates are in the table of hidden Markov models; the components are there states of a
larger chain. Here: what is read off is that chain's, summed; a step is hmmlearn's; one component in a state
is a state; states are found whose components lie apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hmmlearn import hmm
from scipy import special

import vbjax as vb
from tests.models.markov.test_hidden_markov_use import subject
from tests.support import hidden_markov_table as hand
from tests.support.hidden_markov_table import LENGTHS, K, M, at, same_program, series, trajectory, whole
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.plots import chains as chain_plots
from vbjax.plots import style as plot_style

KEY = jax.random.key(0)


def test_states_and_paths_are_those_of_the_chain_of_all_components(float64):
    """What a state is has the sum over its components, and of its paths the best is the best sum."""
    model, params, x = subject("EM full, nested")
    chain = hand.chain_of(model, params)
    tables = [hand.table_of("EM full, nested", model, params, s) for s in series("EM full, nested")]
    found, paths = model.state_probabilities(params, x), model.decode(params, x)
    states = [np.log(np.asarray(params[name].mean)) for name in ("initial", "transitions")]
    log_shares = np.log(np.asarray(params.shares.mean))
    for p, path, table in zip(found, paths, tables, strict=True):
        close(p, hand.marginals(chain, table)[0].reshape(len(table), K, M).sum(-1), factor=10)
        own = special.logsumexp(log_shares + table.reshape(-1, K, M), -1)
        every, log = hand.path_weights(states, own)
        np.testing.assert_array_equal(path, every[log.argmax()])
    each = [hand.log_normalizer(chain, table) for table in tables]
    close(model.log_predictive(params, x), each, factor=10)
    n_parameters = (K - 1) + K * (K - 1) + K * (M - 1) + K * M * (2 + 3)
    close(model.bic(params, x), n_parameters * np.log(sum(LENGTHS)) - 2 * sum(each))


def test_one_step_is_hmmlearns(float64):
    """But for its covariances, which are about the means of before: larger by the square of their step."""
    name = "EM full, nested"
    model, _, _, (params, *_) = trajectory(name, "float64")
    x, params = whole(series(name)), at(params, 0)
    _, moved, objective, *_ = same_program(name, x, np.ones(4), params)
    moved = at(moved, 0)
    peer = hmm.GMMHMM(K, M, covariance_type="full", min_covar=0.0, n_iter=1, init_params="")
    peer.startprob_, peer.transmat_ = np.asarray(params.initial.mean), np.asarray(params.transitions.mean)
    peer.weights_ = np.asarray(params.shares.mean)
    shaped = lambda params: [leaf.reshape(K, M, *leaf.shape[1:]) for leaf in normals(model, params)]
    before, peer.covars_ = shaped(params)
    peer.means_ = before
    peer.fit(np.concatenate(x), list(LENGTHS))
    close(objective[0], peer.monitor_.history[0])
    close(moved.initial.mean, peer.startprob_, factor=10)
    close(moved.transitions.mean, peer.transmat_, factor=10)
    close(moved.shares.mean, peer.weights_, factor=10)
    means, covariances = shaped(moved)
    close(means, peer.means_, factor=10)
    step = means - before
    close(covariances, peer.covars_ - step[..., :, None] * step[..., None, :], factor=100, scale=100)


def normals(model, params):
    found = hand.normals_of(hand.components_of(model), params.components)
    return [np.asarray(leaf) for leaf in found]


def test_one_component_in_a_state_is_a_state(float64):
    _, _, _, (start, expected, objective, *_) = trajectory("VB counts", "float64")
    nested = vb.BayesianHiddenMarkovModel(K, vb.components.Mixture(1, vb.components.Poisson()))
    model, data, weights, params = hand.started(nested, series("VB counts"), "float64")

    @jax.jit
    def step(model, params, data, weights):
        total = vb.core.expectation(model, params, data, weights)
        return model.objective(params, total), model.m_step(params, total.statistics, tuple(model.factors))

    found, moved = step(model, params, data, weights)
    plain = lambda params: [params[name] for name in ("initial", "transitions", "components")]
    close((plain(params), found), (plain(at(start, 0)), objective[0]))
    close(plain(moved), plain(at(expected, 0)), factor=10)


def test_a_start_is_a_mixture_of_all_components_in_another_order(float64):
    """Along every axis of components: "tied" has a matrix between them."""
    x = np.concatenate(whole(series("VB full")))
    nested = vb.components.Mixture(M, vb.components.Gaussian("tied")).of(K, False).resolve(jnp.asarray(x))
    both = jax.jit(lambda nested, x: (nested.start(KEY, x), nested.component.start(KEY, x)))
    own, flat = both(nested, jnp.asarray(x))
    ordered = lambda leaf: np.asarray(leaf)[np.lexsort(np.asarray(leaf).T)]
    close(ordered(own.components.location), ordered(flat.components.location))
    close(own.components.mean_precision, flat.components.mean_precision)
    close(own.components.inverse_scale, flat.components.inverse_scale)


def test_states_are_found_whose_components_lie_apart():
    """Each of three states is at two opposite corners; only time tells which. By a traced fit in float32."""
    rng = np.random.default_rng(0)
    states = np.cumsum(rng.uniform(size=240) < 0.1) % 3
    angle = np.pi * (states / 3 + rng.integers(0, 2, 240))
    x = (5 * np.stack([np.cos(angle), np.sin(angle)], 1) + 0.5 * rng.normal(size=(240, 2))).astype("float32")
    data, how = vb.Sequences.of([x[:100], x[100:]]), dict(key=KEY, n_restarts=4, lanes=1, max_iter=50)
    fit = jax.jit(lambda model, data: vb.fit(model, data, **how))(vb.BayesianMixtureHMM(3, 2, "diag"), data)
    assert {leaf.dtype for leaf in jax.tree.leaves((fit.params, fit.objective))} == {np.dtype("float32")}
    path = np.concatenate(fit.model.decode(fit.params, data))
    share = [np.bincount(states[path == k], minlength=3) for k in range(3)]
    assert np.max(share, 1).sum() > 0.98 * len(x)


def test_draws_have_the_moments_of_their_states(float64):
    """Whose means are in the pictures."""
    model, params, _ = subject("EM full, nested")
    n, draw = 4000, jax.jit(lambda component, params, c: component.draw_rows(params, KEY, c))
    x = np.asarray(draw(model.component, params, jnp.arange(n) % K))
    means, covariances = normals(model, params)
    moments = means, means**2 + np.diagonal(covariances, axis1=1, axis2=2)
    for power, moment in enumerate(moments, 1):
        expected = np.einsum("km,kmd->kd", params.shares.mean, moment.reshape(K, M, -1))
        if power == 1:
            close(chain_plots._means(model, params, 2), expected)
        for k in range(K):
            own = x[k::K] ** power
            assert (abs(own.mean(0) - expected[k]) < STANDARD_ERRORS * own.std(0) / np.sqrt(len(own))).all()


def test_a_whole_natural_step_is_the_update(float64):
    model, _, _, (params, moved, *_) = trajectory("VB counts, nested", "float64")
    params, moved = at((params, moved), 0)
    mix = jax.jit(lambda model, *both: model.mix(*both, 1.0, tuple(model.factors)))
    close(mix(model, params, moved), moved, factor=10)


def test_a_prior_of_shares_makes_a_posterior():
    name = lambda **options: plot_style.objective_name(vb.MixtureHMM(2, 2, **options))
    assert (name(), name(weight_concentration=2.0)) == ("log likelihood (nats)", "log posterior (nats)")


def test_hyperparameters_are_replaced_wherever_they_are():
    """In the model, in its component, and in what that is a mixture of."""
    other = dict(stickiness=3.0, n_components=4, covariance_floor=0.1, weight_concentration=2.0)
    model = vb.MixtureHMM(2, 3, "diag").replace(**other)
    assert repr(model) == repr(vb.MixtureHMM(2, covariance_type="diag", **other))
    assert model.component.component.n_laws == 8
    both = model.replace(component=vb.components.Mixture(3, vb.components.Poisson()), rate=2.0)
    assert (both.component.component.rate, both.component.component.n_laws) == (2.0, 6)
    twice = vb.Mixture(2, both.component).replace(weight_concentration=5.0)
    assert (twice.weights.concentration, twice.component.weights.concentration) == (5.0, None)
    for name in ("emissions", "n_laws"):
        with pytest.raises(ValueError, match=f"{name} must be a hyperparameter of MixtureHMM"):
            model.replace(**{name: 1})
    with pytest.raises(ValueError, match="rate must be a hyperparameter of HiddenMarkovModel"):
        vb.HiddenMarkovModel(2).replace(rate=1.0)


GAUSSIAN = vb.components.Gaussian()


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        (vb.components.Mixture(2), "component of the component must be a component .* got None"),
        (vb.components.Mixture(2, vb.GaussianMixture(2)), "component of the component .* got a GaussianMix"),
        (
            vb.components.Mixture(2, vb.components.Mixture(2, GAUSSIAN)),
            "a component of laws of one kind, .* got a Mixture",
        ),
        (vb.components.Mixture(2, GAUSSIAN, 0.5), "weights of the component must be labels, .* got 0.5"),
        (vb.components.Mixture(0, GAUSSIAN), "n_components of the component must be a whole number"),
        (vb.components.Mixture(4, GAUSSIAN), "at least 8 rows"),
        (vb.components.Mixture(1, GAUSSIAN, vb.labels.Weights(0.5)), "at least 1 for MAP"),
    ],
)
def test_bad_input_is_refused_by_name(nested, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(vb.HiddenMarkovModel(2, nested), np.ones((5, 2)), key=KEY)


def test_shapes_are_those_of_the_components_in_a_state():
    """A concentration for each of M components, whatever the number of states, and of responses."""

    def fitted(weights, component, x):
        nested = vb.components.Mixture(3, component, vb.labels.Weights(weights))
        return vb.fit(vb.BayesianHiddenMarkovModel(2, nested), x, key=KEY, max_iter=2)

    x = np.random.default_rng(0).normal(size=(30, 2))
    responses = vb.components.MultivariateRegression(inverse_scale=np.eye(2))
    assert fitted(np.ones(3), responses, (x, x)).params.shares.mean.shape == (2, 3)
    with pytest.raises(ValueError, match=r"concentration .* of shape \(3,\)"):
        fitted(np.ones(2), vb.components.Gaussian(), x)
