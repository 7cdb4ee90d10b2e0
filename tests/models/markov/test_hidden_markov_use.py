"""Hidden Markov models in use: states, paths, forecasts, criteria, other drivers, and input that is refused.

What is read off a fit is what enumeration of all paths gives; draws have the moments of the model. Stochastic
steps on everything are coordinate ascent; a fit may be traced.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import vbjax as vb
from tests.support import hidden_markov_table as hand
from tests.support.hidden_markov_table import LENGTHS, MODELS, K, at, series, started, updates
from tests.support.registry import read_out
from tests.support.tolerances import STANDARD_ERRORS, close

KEY = jax.random.key(0)


@functools.cache
def subject(name, dtype="float64"):
    """A model, its parameters where nothing is symmetric, and its sequences, in one part."""
    model, _, _, params = started(MODELS[name], series(name), dtype)
    return model, params, hand.in_dtype(series(name), dtype)


@functools.cache
def by_hand(name):
    """Log weights of the chain, and densities of every sequence."""
    model, params, _ = subject(name)
    return hand.chain_of(model, params), [hand.table_of(name, model, params, x) for x in series(name)]


# ---------------------------------------------------------------- states


def test_states_and_paths_are_those_of_enumeration(float64):
    """By variational Bayes, whose weights do not add up to one."""
    (model, params, x), (chain, tables) = subject("VB counts"), by_hand("VB counts")
    found, paths = model.state_probabilities(params, x), model.decode(params, x)
    assert [type(found), type(paths)] == [list, list]
    for p, path, table in zip(found, paths, tables, strict=True):
        close(p, hand.marginals(chain, table)[0], factor=10)
        every, log = hand.path_weights(chain, table)
        np.testing.assert_array_equal(path, every[log.argmax()])
    first = series("VB counts")[0]
    for alone in (model.decode(params, first), *model.decode(params, [first])):
        np.testing.assert_array_equal(alone, paths[0])


def test_states_and_paths_of_traced_arrays_are_those_outside():
    model, params, _ = subject("VB counts", "float32")
    x = [own.astype("float32") for own in series("VB counts")]
    uses = lambda x: (model.state_probabilities(params, x), model.decode(params, x))
    found = jax.jit(lambda *x: uses([*x]))(*x)
    jax.tree.map(functools.partial(close, factor=10), found, uses(x))
    long = x[np.argmax([len(own) for own in x])]
    together = jax.vmap(lambda x: model.decode(params, x))(np.stack([long, long[::-1]]))
    np.testing.assert_array_equal(together[1], model.decode(params, long[::-1]))


def test_after_em_the_predictive_density_is_the_likelihood(float64):
    (model, params, x), (chain, tables) = subject("EM full"), by_hand("EM full")
    each = [hand.log_normalizer(chain, table) for table in tables]
    close(model.log_predictive(params, x), each, factor=10)
    close(model.total_log_likelihood(params, x), jax.jit(vb.elbo)(model, params, x))
    n_parameters = (K - 1) + K * (K - 1) + K * (2 + 3)
    assert model.n_parameters == n_parameters
    close(model.bic(params, x), n_parameters * np.log(sum(LENGTHS)) - 2 * sum(each))
    close(model.aic(params, x), 2 * n_parameters - 2 * sum(each))
    stay = np.diagonal(params.transitions.mean)
    close(
        model.durations(params),
        (np.arange(1, 4000) * stay[:, None] ** np.arange(3999)) @ np.ones(3999) * (1 - stay),
        factor=100,
    )
    with pytest.raises(ValueError, match="of maximum likelihood"):
        subject("VB counts")[0].bic(*subject("VB counts")[1:])


def test_states_ahead_are_powers_of_the_transitions(float64):
    (model, params, x), (chain, tables) = subject("EM full"), by_hand("EM full")
    ahead, a = model.predict_states(params, x, 3), np.asarray(params.transitions.mean)
    for found, table in zip(ahead, tables, strict=True):
        last = hand.marginals(chain, table)[0][-1]
        close(found, [last @ np.linalg.matrix_power(a, s) for s in (1, 2, 3)], factor=10)


def test_forecasts_have_the_moments_of_the_states_ahead(float64):
    model, params, x = subject("EM full")
    draws = np.asarray(model.forecast(params, KEY, x, 3, n_draws=4000))
    assert draws.shape == (4000, len(x), 3, 2)
    p = np.asarray(model.predict_states(params, x, 3))
    _, means, covariances = map(np.asarray, read_out(model.component, params, "full"))
    second = np.diagonal(covariances, axis1=1, axis2=2) + means**2
    for power, moment in ((1, means), (2, second)):
        error = (draws**power).std(0) / np.sqrt(len(draws))
        assert (np.abs((draws**power).mean(0) - p @ moment) < STANDARD_ERRORS * error).all()


def test_a_sample_moves_as_the_transitions_say_and_looks_as_its_states_do(float64):
    model, params, _ = subject("EM full")
    sample = jax.jit(jax.vmap(lambda key: model.sample(params, key, 5)))
    states, x = map(np.asarray, sample(jax.random.split(KEY, 2000)))
    assert (states.shape, x.shape) == ((2000, 5), (2000, 5, 2))
    a, means = np.asarray(params.transitions.mean), np.asarray(params.components.mean.location)
    near = lambda share, p, n: (np.abs(share - p) < STANDARD_ERRORS * np.sqrt(p * (1 - p) / n)).all()
    for i in range(K):
        after, own = states[:, 1:][states[:, :-1] == i], x[states == i]
        assert near(np.bincount(after, minlength=K) / len(after), a[i], len(after))
        error = own.std(0) / np.sqrt(len(own))
        assert (np.abs(own.mean(0) - means[i]) < STANDARD_ERRORS * error).all()
    assert near(np.bincount(states[:, 0], minlength=K) / 2000, np.asarray(params.initial.mean), 2000)


def test_the_entropy_of_paths_is_that_of_enumeration(float64):
    (model, params, x), (chain, tables) = subject("VB counts"), by_hand("VB counts")
    terms, entropy = model.elbo_terms(params, x), 0.0
    for table in tables:
        log = hand.path_weights(chain, table)[1]
        log = log - np.logaddexp.reduce(log)
        entropy -= (np.exp(log) * log).sum()
    close(terms["entropy of z"], entropy, factor=10)


# ---------------------------------------------------------------- other drivers


def short(dtype="float32"):
    """Two sequences of one length, in one part."""
    return vb.Sequences.of(
        [np.array([[2.0], [3], [9], [8], [2]], dtype), np.array([[9.0], [8], [1], [2], [7]], dtype)]
    )


def test_a_fit_may_be_traced():
    model, how = vb.BayesianPoissonHMM(2, transition_concentration=1.0), dict(key=KEY, lanes=1, max_iter=50)
    fit = vb.fit(model, short(), **how)
    assert fit.objective == fit.trace[-1] > fit.trace[0]
    traced = jax.jit(lambda model, data: vb.fit(model, data, **how).objective)(model, short())
    close(traced, fit.objective)
    arrays = jax.jit(lambda model, *x: vb.fit(model, [*x], **how).objective)
    close(arrays(model, *short().unpack([part.values for part in short().parts])), fit.objective)


def test_steps_on_minibatches_of_everything_are_coordinate_ascent(float64):
    model, data, _, params = started(MODELS["VB counts"], series("VB counts"), "float64", None)
    fit = vb.fit_stochastic(
        MODELS["VB counts"],
        hand.in_dtype(series("VB counts"), "float64"),
        key=KEY,
        batch_size=4,
        n_epochs=3,
        forgetting=0.0,
        params=params,
    )
    objective = []
    for _ in range(3):
        _, moved, now, *_ = updates(model, params, data, None)
        params, objective = at(moved, 0), [*objective, now[0]]
    close(fit.params, params, factor=100)  # the sequences come in another order
    close(fit.trace, jnp.stack(objective), factor=10)


def test_acceleration_reaches_the_published_optimum(float64):
    how = dict(key=KEY, tol=1e-9, max_iter=60, accelerate=True)
    fit = vb.fit(vb.PoissonHMM(2), vb.datasets.earthquakes(), **how)
    assert fit.status == vb.Status.CONVERGED
    np.testing.assert_allclose(fit.objective, -341.8787, rtol=1e-6)


def test_linear_response_of_one_state_is_the_posterior(float64):
    """Then q is exact; the pull on a factor's statistics leaves the others as they are."""
    model, data, weights, params = started(
        vb.BayesianPoissonHMM(1), series("VB counts"), "float64", np.ones(4)
    )
    params = at(updates(model, params, data, weights)[1], 0)
    response = vb.linear_response(model, params, hand.in_dtype(series("VB counts"), "float64"))
    close(response.sd.components.value, np.sqrt(params.components.variance), factor=100)
    assert response.rate < 1e-12


def test_the_optimum_has_the_derivative_of_refitting(float64):
    h, x = 1e-4, short("float64")
    apart = x.unpack([part.values for part in x.parts])
    model, data, _, params = started(
        vb.BayesianPoissonHMM(2, transition_concentration=2.0), apart, "float64", None
    )
    settled = lambda model: at(updates(model, params, data, None, n=6000)[0], -1)
    other = lambda h: model.replace(transition_concentration=model.chain.transition_concentration + h)
    rate = lambda model, params: vb.optimum(model, params, x).components.mean[0, 0]
    slope = jax.jit(jax.grad(rate))(model, settled(model)).chain.transition_concentration.sum()
    above, below = (settled(other(sign * h)).components.mean[0, 0] for sign in (1, -1))
    np.testing.assert_allclose(slope, (above - below) / (2 * h), rtol=1e-5)


def test_what_sequences_cannot_do_says_so(float64):
    model, params, x = subject("VB counts")
    with pytest.raises(ValueError, match="data must be arrays where observed"):
        vb.replicate(model, params, x, vb.Normal(), key=KEY)
    with pytest.raises(ValueError, match="not seen data"):
        vb.GaussianHMM(2).state_probabilities(params, x)


def test_gibbs_draws_have_the_posterior_of_all_paths(float64):
    """Of two states that the prior tells apart: given a path, rates and rows have conjugate posteriors."""
    counts, shape = np.array([1, 0, 6, 4, 1]), 2.0
    first, move = np.array([3.0, 1.0]), np.array([[2.0, 1.0], [0.5, 1.5]])
    prior = dict(concentration=shape, rate=0.5, initial_concentration=first, transition_concentration=move)
    model = vb.BayesianPoissonHMM(2, **prior)
    log_beta = lambda a: special.gammaln(a).sum(-1) - special.gammaln(a.sum(-1))
    evidence, means = [], []
    for path in itertools.product(range(2), repeat=len(counts)):
        z = np.eye(2)[list(path)]
        a, b, pairs = shape + z.T @ counts, 0.5 + z.sum(0), z[:-1].T @ z[1:]
        alpha = move + pairs
        chain = log_beta(first + z[0]) + log_beta(alpha).sum()
        evidence.append((special.gammaln(a) - a * np.log(b)).sum() + chain)
        means.append(np.concatenate([a / b, np.diag(alpha) / alpha.sum(1)]))
    exact = special.softmax(evidence) @ np.array(means)
    draws = vb.gibbs(model, counts[:, None].astype(float), key=KEY, n_draws=2000, n_chains=8)
    found = np.concatenate([draws.components[..., 0], np.diagonal(draws.transitions, 0, -2, -1)], -1)
    means = found.reshape(8, 20, 100, 4).mean(2).reshape(160, 4)  # of batches, nearly independent
    error = means.std(0) / np.sqrt(len(means))
    assert (np.abs(means.mean(0) - exact) < STANDARD_ERRORS * error).all()


# ---------------------------------------------------------------- input

COUNTS = [np.array([[1.0], [2.0]]), np.array([[3.0], [0.0]])]
BAD = [
    (
        vb.HiddenMarkovModel(3, vb.PoissonMixture(3)),
        COUNTS,
        "component must be a component, .* got a PoissonM",
    ),
    (vb.HiddenMarkovModel(2), COUNTS, "component must be a component, .* got None"),
    (
        vb.HiddenMarkovModel(2, vb.components.Poisson(), vb.labels.HDPChain()),
        COUNTS,
        "chain must be a chain that this model can hold",
    ),
    (
        vb.HiddenMarkovModel(2, vb.components.Poisson(), vb.labels.Weights()),
        COUNTS,
        "chain must be a chain .* got a Weights",
    ),
    (vb.BayesianHiddenMarkovModel(0, vb.components.Poisson()), COUNTS, "n_states must be a whole number"),
    (vb.PoissonHMM(2), [COUNTS[0], COUNTS[1][:0]], "sequence 1 of data must have at least one step"),
    (vb.PoissonHMM(2), [-COUNTS[0]], "data must be counts; got -1.0"),
    (vb.BayesianPoissonHMM(2), [COUNTS[0] / 2], "data must be counts; got 0.5"),
    (vb.CategoricalHMM(2, n_categories=3), COUNTS, "data must be categories below 3; got 3"),
    (vb.PoissonHMM(2), COUNTS[0][:, 0], r"data must have shape \(n, d\) .* reshape one column"),
    (vb.GaussianHMM(2), [np.array([[1.0, np.nan], [1.0, 2.0]])], "missing=True takes NaN"),
    (
        vb.PoissonHMM(2, transition_concentration=0.5),
        COUNTS,
        "transition_concentration of the chain must be at least 1 by EM",
    ),
    (
        vb.GaussianHMM(2, initial_concentration=[1.0, 0.9]),
        COUNTS,
        "initial_concentration of the chain must be at least 1 by EM",
    ),
    (
        vb.BayesianPoissonHMM(2, transition_concentration=0.0),
        COUNTS,
        "transition_concentration of the chain must be positive",
    ),
    (
        vb.BayesianPoissonHMM(2, transition_concentration=np.ones(3)),
        COUNTS,
        r"a number or of shape \(2,\) or of shape \(2, 2\)",
    ),
    (vb.PoissonHMM(2, stickiness=-1.0), COUNTS, "stickiness of the chain must be at least 0"),
]


@pytest.mark.parametrize(
    ("kind", "points"),
    [(vb.HiddenMarkovModel, True), (vb.BayesianHiddenMarkovModel, False), (vb.HDPHiddenMarkovModel, False)],
)
def test_a_component_has_a_law_for_every_state_whatever_it_was_made_for(kind, points):
    for mixture in (vb.PoissonMixture(2), vb.BayesianPoissonMixture(5)):
        for model in (kind(3, mixture.component), kind(2, mixture.component).replace(n_states=3)):
            assert (model.component.n_laws, model.component.points) == (3, points)
        nested = kind(3, vb.components.Mixture(2, mixture.component, mixture.weights)).component
        assert (nested.n_laws, nested.component.n_laws, nested.weights.n_components) == (3, 6, 2)
        assert nested.points == nested.component.points == nested.weights.points == points


@pytest.mark.parametrize(("model", "data", "message"), BAD)
def test_bad_input_is_refused_by_name(model, data, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=KEY)


def test_other_data_than_the_fits_are_refused(float64):
    model, params, _ = subject("VB counts")
    x = series("VB counts")
    with pytest.raises(ValueError, match="data must have 2 columns, as the model's concentration has"):
        model.decode(params, [s[:, :1] for s in x])
    with pytest.raises(ValueError, match="lengths must add up to the 18 steps of data"):
        model.decode(params, vb.Sequences.of(np.concatenate(x), [6, 6]))
    with pytest.raises(ValueError, match="n_steps must be a whole number"):
        model.predict_states(params, x, 0)


# ---------------------------------------------------------------- what steps are drawn for


def test_steps_of_multinomials_are_counts_of_the_given_totals(float64):
    x = np.array([[9.0, 1, 0], [7, 2, 1], [0, 3, 8], [1, 2, 9]])
    fit = vb.fit(
        vb.BayesianHiddenMarkovModel(2, vb.components.Multinomial()), x, key=jax.random.key(0), max_iter=20
    )
    model, params, key = fit.model, fit.params, jax.random.key(1)
    states, steps = model.sample(params, key, 400, given=30)
    assert (steps == np.round(steps)).all()
    assert (steps.sum(1) == 30).all()
    p = np.asarray(params.components.mean)
    for k in range(2):  # of parameters drawn for each step: five standard errors, each at most 0.5 of a share
        own = np.asarray(steps)[np.asarray(states) == k] / 30
        assert (abs(own.mean(0) - p[k]) < 5 * 0.5 / np.sqrt(len(own))).all()
    totals = np.array([1.0, 5.0, 0.0])
    assert (model.forecast(params, key, x, 3, 6, given=totals).sum(-1) == totals).all()
    assert (model.forecast(params, key, x, 3, 6).sum(-1) == 1).all()
    for wrong, message in (
        ("a", "numbers"),
        (-1, "numbers of counts"),
        (np.inf, "finite"),
        (np.ones(2), "one"),
    ):
        with pytest.raises(ValueError, match=f"given must be {message}|given must be a number .*{message}"):
            model.forecast(params, key, x, 3, 6, given=wrong)


def test_steps_of_regressions_are_drawn_for_given_rows(float64):
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(60), rng.normal(size=60)], 1)
    slopes = np.where(np.arange(60) % 20 < 10, 5.0, -5.0)
    y = slopes * x[:, 1] + 0.1 * rng.normal(size=60)
    hmm = vb.HiddenMarkovModel(2, vb.components.Regression())
    fit = vb.fit(hmm, (x, y), key=jax.random.key(0), n_restarts=4)
    model, params, key = fit.model, fit.params, jax.random.key(1)
    given = np.stack([np.ones(50), np.linspace(-2, 2, 50)], 1)
    states, drawn = model.sample(params, key, 50, given=given)
    assert drawn.shape == (50,)
    means = (given @ np.asarray(params.components.mean.location).T)[np.arange(50), np.asarray(states)]
    sds = np.asarray(params.components.mean.precision)[np.asarray(states)] ** -0.5
    assert (abs(drawn - means) < 5 * sds).all()
    ahead = model.forecast(params, key, (x, y), 3, 7, given=given[:3])
    assert ahead.shape == (7, 1, 3)
    with pytest.raises(ValueError, match="given must be the x of the 50 rows to draw"):
        model.sample(params, key, 50)
    with pytest.raises(ValueError, match="given must have a row x for each of the 3 rows"):
        model.forecast(params, key, (x, y), 3, given=given)


def test_what_models_all_of_a_step_is_given_nothing(float64):
    model, params, _ = subject("VB counts")
    with pytest.raises(ValueError, match="given must be None"):
        model.sample(params, jax.random.key(0), 3, given=3)
