"""The bound of the Gaussian mixture by variational Bayes, all covariance types.

It is the joint density of the labels where no others are possible, below the evidence by enumeration of all
labellings, and equals its own Monte Carlo estimate; its terms add up to it (one component: test_mixtures.py).
Under the default priors a scaling by c costs n d log c nats and a shift nothing.
"""

import dataclasses
import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.registry import MODELS, N_COMPONENTS, N_FEATURES, N_ROWS, every_kind, sweeps, swept
from tests.support.textbook import LOG_2PI, Posterior, evidence_of_labels
from tests.support.tolerances import STANDARD_ERRORS, close

K, D = N_COMPONENTS, N_FEATURES


def objective_of(model, params, data, weights):
    return sweeps(model, params, data, weights)[1][0, 0]


def informative(kind, **hyper):
    """A prior that owes nothing to the data."""
    inverse_scale = {
        "full": [[2.0, 0.3], [0.3, 1.0]],
        "tied": [[2.0, 0.3], [0.3, 1.0]],
        "diag": [2.0, 1.0],
        "spherical": 1.5,
    }
    given = dict(
        weight_concentration=0.7,
        location=jnp.asarray([0.5, -0.5]),
        mean_precision=0.02,
        degrees_of_freedom=3.5,
        inverse_scale=jnp.asarray(inverse_scale[kind]),
    )
    return given | hyper


def first_rows(values):
    """The shape of the registry's data, of which the first rows count."""
    data = np.zeros((N_ROWS, D))
    data[: len(values)] = values
    return jnp.asarray(data), jnp.asarray(np.arange(N_ROWS) < len(values), float)


@every_kind
def test_the_bound_of_certain_labels_is_their_joint_density(kind, float64):
    values = np.array([[-900.0, 40.0], [0.0, 0.3], [800.0, -50.0], [1.0, -0.4], [799.0, -52.0], [0.2, 2.0]])
    data, weights = first_rows(values)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"], model=vb.BayesianGaussianMixture(K, kind, **informative(kind))
    )
    model, params = entry.started(data, weights)
    exact = evidence_of_labels(Posterior.prior(model), values, [0, 1, 2, 1, 2, 1])
    close(sweeps(model, params, data, weights)[1][-1, -1], exact, factor=10)


@every_kind
def test_the_bound_is_below_the_evidence_of_all_labellings(kind, float64):
    values = np.array([[-1.0, 0.0], [1.0, 1.5], [2.0, 0.5], [0.0, 2.0]])
    data, weights = first_rows(values)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"],
        model=vb.BayesianGaussianMixture(K, kind, **informative(kind, mean_precision=1.0)),
    )
    model, params = entry.started(data, weights)
    prior = Posterior.prior(model)
    joint = [evidence_of_labels(prior, values, labels) for labels in itertools.product(range(K), repeat=4)]
    objective = sweeps(model, params, data, weights)[1]
    assert (objective < special.logsumexp(joint)).all()
    assert (
        objective[-1, -1] > special.logsumexp(joint) - 3
    )  # the price of k! labellings and of the factorisation


@every_kind
def test_the_bound_is_its_monte_carlo_estimate(kind, float64):
    model, data, weights, params = swept(f"VB {kind}")
    q, prior, x = Posterior.of(kind, params), Posterior.prior(model), np.asarray(data)
    pi, mu, lam = q.draw(np.random.default_rng(0), 4000)
    r, shift = q.responsibilities(x), x[:, None] - mu[:, None]
    square = np.einsum("snki,skij,snkj->snk", shift, lam, shift, optimize=True)
    rows = np.log(pi)[:, None] + 0.5 * (np.linalg.slogdet(lam)[1][:, None] - D * LOG_2PI - square)
    value = (r * rows).sum((1, 2)) - special.xlogy(r, r).sum()
    value += prior.log_density(pi, mu, lam) - q.log_density(pi, mu, lam)
    error = value.std() / np.sqrt(len(value))
    assert abs(value.mean() - objective_of(model, params, data, weights)) < STANDARD_ERRORS * error
    assert error < 0.1


@every_kind
@pytest.mark.parametrize("method", ["EM", "VB"])
def test_shifts_cost_nothing_and_a_scaling_its_jacobian(method, kind, float64):
    entry = MODELS[f"{method} {kind}"]
    data, weights = entry.data(float64)
    scale = jnp.asarray([3.7, 0.2] if kind in ("full", "tied", "diag") else [3.7, 3.7])
    moved = data * scale + jnp.asarray([100.0, -30.0])
    plain = sweeps(*entry.started(data, weights), data, weights)[1]
    there = sweeps(*entry.started(moved, weights), moved, weights)[1]
    close(there, plain - N_ROWS * jnp.log(scale).sum(), factor=1000)


def test_the_entropies_are_those_done_by_hand(float64):
    model, data, _, params = swept("VB diag")
    terms = model.elbo_terms(params, data)
    q = Posterior.of("diag", params)
    r = q.responsibilities(np.asarray(data))
    close(terms["entropy of c"], -special.xlogy(r, r).sum(), factor=10, scale=1)
    close(terms["entropy of weights"], stats.dirichlet.entropy(q.alpha), factor=10)
    tau = stats.gamma.entropy(q.nu / 2, scale=2 / q.inverse_scale)
    log_tau = special.digamma(q.nu / 2) - np.log(q.inverse_scale / 2)
    locations = 0.5 * (1 + LOG_2PI - np.log(q.beta)[:, None] - log_tau)
    close(terms["entropy of components"], (tau + locations).sum(), factor=10)
