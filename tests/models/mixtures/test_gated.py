"""Mixtures whose weights depend on covariates.

With known labels the gates are those of logistic regression, whose score is zero. With covariates that are
constant the weights are plain ones. Planted gates are found, by EM and by variational Bayes. The derived
E-step is the oracle of that by hand, and the bound of VB is below the evidence, by quadrature. New rows have
the density of weights at their covariates, and are drawn with these. What has no use for covariates refuses
them. (Weights, chunks, monotone updates: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.models.components.test_products import KINDS, started
from tests.support.family_table import jit
from tests.support.registry import MODELS
from tests.support.tolerances import STANDARD_ERRORS, close

KEY, N = jax.random.key(0), 400
Gated, Gaussian = vb.labels.Gated, vb.components.Gaussian
PLANTED = np.array([0.5, -1.5, 0.04])  # what the gate of the first component has beyond that of the second


def planted():
    """Covariates of different units, rows of two classes that they tell in part, and the classes."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(N, 2)) * [1, 30] + [0, 1000]
    p = special.expit(design(z) @ PLANTED)
    c = (rng.uniform(size=N) > p).astype(int)
    return z, 6.0 * c[:, None] + rng.normal(size=(N, 1)), c


def design(z):
    return np.concatenate([np.ones((len(z), 1)), z - [0, 1000]], 1)


def about_origin(fit):
    """The first gate less the second, of covariates about the planted centre."""
    g = np.array(fit.params.gates.mean[0] - fit.params.gates.mean[1])
    g[0] += g[1:] @ (np.array([0, 1000]) - np.asarray(fit.model.weights.center))
    return g


@pytest.mark.parametrize("how", KINDS)
def test_planted_gates_are_found(how, float64):
    z, x, _ = planted()
    fit = vb.fit(KINDS[how](2, Gaussian("diag"), Gated()), (z, x), key=KEY, n_restarts=4)
    assert fit.status == vb.Status.CONVERGED
    sign = np.sign(fit.params.components.mean.location[1, 0] - fit.params.components.mean.location[0, 0])
    u, p = design(z), special.expit(design(z) @ PLANTED)
    information = (u * (p * (1 - p))[:, None]).T @ u
    error = STANDARD_ERRORS * np.sqrt(np.diagonal(np.linalg.inv(information)))
    np.testing.assert_array_less(np.abs(sign * about_origin(fit) - PLANTED), error)
    assert (np.abs(PLANTED[1:]) > error[1:]).all()
    close(fit.params.gates.mean.sum(0), np.zeros(3), factor=1000, scale=1)
    z, x = z[:5], x[:5]
    parts = fit.model.component.log_components(fit.params, jnp.asarray(x))
    own = np.log(fit.model.weights.probabilities(fit.params, z)) + parts
    close(fit.log_predictive((z, x)), special.logsumexp(own, 1), factor=10, scale=10)
    if how == "em":
        close(fit.responsibilities((z, x)), special.softmax(own, 1), factor=100)
        assert fit.model.n_parameters == 3 + 4


def test_with_known_labels_gates_are_those_of_logistic_regression(float64):
    z, x, c = planted()
    data = vb.Labelled((z, x), c)
    fit = vb.fit(vb.Mixture(2, Gaussian("diag"), Gated()), data, key=KEY, tol=1e-15, max_iter=2000)
    u = design(z)
    score = u.T @ (special.expit(u @ about_origin(fit)) - (c == 0))
    np.testing.assert_allclose(score / np.abs(u).sum(0), 0, atol=1e-6)


def test_of_constant_covariates_weights_are_plain(float64):
    _, x, _ = planted()
    how = dict(key=KEY, tol=1e-14, max_iter=1000)
    fit = vb.fit(vb.Mixture(2, Gaussian("diag"), Gated()), (np.full((N, 2), 7.0), x), **how)
    plain = vb.fit(vb.Mixture(2, Gaussian("diag")), x, **how)
    np.testing.assert_allclose(fit.objective, plain.objective, rtol=1e-12)
    weights = fit.model.weights.probabilities(fit.params, np.full((1, 2), 7.0))[0]
    np.testing.assert_allclose(
        weights, plain.params.weights.mean, rtol=1e-6
    )  # a flat top: the root of a rounding


@pytest.mark.parametrize("name", ["EM of gates", "VB of gates"])
def test_the_derived_e_step_is_that_by_hand(name, float64):
    data, weights = MODELS[name].data("float64")
    model, params = started(MODELS[name].model, data)

    @jit
    def both(model, params, data, weights):
        engine = vb.core.ConjugateModel
        first = vb.core.expectation(model, params, data, weights).statistics
        params = model.m_step(params, first, tuple(model.factors))  # gates that are not all alike
        derived = engine.e_step(model, engine.prepare(model, params), data, weights)
        return vb.core.expectation(model, params, data, weights), derived

    found, expected = both(model, params, data, weights)
    close(found.bound, expected.bound, scale=100)
    for name in model.factors:
        close(found.statistics[name].natural, expected.statistics[name].natural, factor=10, scale=100)


def test_the_bound_is_below_the_evidence(float64):
    """Of labels that are known, and one covariate that says nothing: of the intercepts, by quadrature."""
    c, x = np.array([0, 0, 1, 0, 0, 1, 0]), np.arange(7.0)[:, None]
    gated = vb.BayesianMixture(2, Gaussian("diag"), Gated(intercept_precision=0.5))
    fit = vb.fit(gated, vb.Labelled((np.zeros((7, 1)), x), c), key=KEY, tol=1e-12)
    plain = vb.fit(vb.BayesianMixture(2, Gaussian("diag")), vb.Labelled(x, c), key=KEY)
    dirichlet = special.betaln(5.5, 2.5) - special.betaln(0.5, 0.5)
    bound = fit.objective - plain.objective + dirichlet
    difference = np.linspace(-20, 20, 4001)  # of two intercepts: normal of variance 4
    log = (
        stats.norm.logpdf(difference, 0, 2)
        + 5 * special.log_expit(difference)
        + 2 * special.log_expit(-difference)
    )
    evidence = special.logsumexp(log) + np.log(0.01)
    assert evidence - 1.5 < bound < evidence  # about a fifth of a nat a row


def test_rows_are_drawn_by_their_covariates():
    """Of regressions on a number of their own, y = 5 t in one component and -5 t in the other."""
    n = 4000
    z, t = np.repeat([[0.0], [2.0]], n // 2, 0).astype("float32"), np.ones((n, 1), "float32")
    model = vb.BayesianMixture(2, vb.components.Regression(), Gated())
    model, params = started(model, (z, (t, z[:, 0])))
    spread = jnp.tile(jnp.array([[4.0, 1.0], [1.0, 2.0]]), (2, 1, 1))  # precision
    gates = type(params.gates)(jnp.array([[0.5, 1.0], [-0.5, -1.0]]), spread)
    own = params.components
    own = type(own)(jnp.array([[5.0], [-5.0]]), 1e4 * jnp.ones((2, 1, 1)), jnp.full(2, 1e4), jnp.full(2, 1e2))
    y = np.asarray(model.sample(params | dict(gates=gates, components=own), KEY, n, given=(z, t)))
    np.testing.assert_allclose(np.abs(y), 5, atol=1)
    u = np.array([[1, -1.0], [1, 1.0]])  # about the mean of z
    variance = 2 * np.einsum("np,pq,nq->n", u, np.linalg.inv(spread[0]), u)
    nodes, masses = np.polynomial.hermite_e.hermegauss(40)
    p = special.expit(u @ [1.0, 2.0] + np.sqrt(variance) * nodes[:, None]).T @ masses / masses.sum()
    error = STANDARD_ERRORS * np.sqrt(p * (1 - p) / (n // 2))
    np.testing.assert_array_less(np.abs((y.reshape(2, -1) > 0).mean(1) - p), error)


def test_what_has_no_use_for_covariates_refuses_them():
    z, x, _ = planted()
    model = vb.Mixture(2, Gaussian("diag"), Gated())
    fit = vb.fit(model, (z, x), key=KEY, max_iter=2)
    refused = {
        "pair": lambda: vb.fit(model, x, key=KEY),
        "covariates must be those of the 399 rows": lambda: vb.fit(model, (z, x[1:]), key=KEY),
        "covariates must have 2 columns": lambda: fit.predict((z[:, :1], x)),
        "given must be the covariates": lambda: fit.sample(KEY, 3),
        "chain must be a chain": lambda: vb.fit(vb.HiddenMarkovModel(2, Gaussian(), Gated()), x, key=KEY),
        "weights must be labels": lambda: vb.fit(vb.Mixture(2, Gaussian(), vb.labels.Chain()), x, key=KEY),
        "not conjugate": lambda: vb.gibbs(fit.model, (z, x), key=KEY, n_draws=2),
    }
    for what, call in refused.items():
        with pytest.raises(ValueError, match=what):
            call()
    with pytest.raises(ValueError, match="weights of the component must be labels"):
        vb.fit(vb.HiddenMarkovModel(2, vb.components.Mixture(2, Gaussian(), Gated())), x, key=KEY)
