"""The engine against algebra done by hand, and the two smallest models against exact results.

The derived E-step and the hand-written ones give the same statistics and bound. The normal with unknown mean
and precision: the trajectory is that of its update equations, the bound their closed form, never above the
exact evidence, which is a multivariate Student t; the exact posterior is the textbook's; its points maximise
the log posterior. The mixture of unit-variance normals: trajectory and bound are those of Blei et al.
(2017); the bound is below the evidence by enumeration of all labellings, equals the joint density of the
labels where no others are possible, and the evidence where K = 1. A model without data approaches its prior.
Records are immutable mappings.
"""

import copy
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.registry import COVARIANCE_TYPES, MODELS, N_COMPONENTS, N_ROWS, normal_seeds, sweeps
from tests.support.tolerances import close
from vbjax.core.model import ConjugateModel
from vbjax.families import NormalState

# points of the other two structures go the way of their distributions
WRITTEN = ["k-means", *(f"VB {kind}" for kind in COVARIANCE_TYPES), "EM full", "EM tied"]


def floats(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


# ---------------------------------------------------------------- derived and hand-written


@jax.jit
def both_e_steps(model, params, data, weights):
    derived = ConjugateModel.e_step(model, ConjugateModel.prepare(model, params), data, weights)
    return derived, model.e_step(model.prepare(params), data, weights)


def comparable(expectation):
    """An expectation without the gradient in the pivots, which nobody reads."""
    statistics = {name: (t.natural, t.log_base) for name, t in expectation.statistics.items()}
    return statistics, expectation._replace(statistics=None)


def check_e_steps(name, dtype, offset, factor):
    data, _ = MODELS[name].data(dtype)
    data = data + jnp.asarray(offset, dtype)
    weights = jnp.asarray(np.resize([1.0, 0.5, 2.0], N_ROWS), dtype)
    model, params = MODELS[name].started(data, weights)
    derived, written = map(comparable, both_e_steps(model, params, data, weights))
    close(written, derived, factor=factor, scale=1)
    close(written[1].bound, derived[1].bound)


@pytest.mark.parametrize("name", WRITTEN)
def test_hand_written_e_steps_are_the_derived_one(name, float64):
    check_e_steps(name, float64, 0.0, factor=10)


@pytest.mark.parametrize("name", ["k-means", "VB full"])
def test_hand_written_e_steps_are_the_derived_one_in_float32_far_from_the_origin(name):
    # the products of a matrix with rows about a common pivot, against differences from each location
    check_e_steps(name, "float32", 1e4, factor=10)


# ---------------------------------------------------------------- mean and precision of a normal


def mean_precision_bound(x, model, m, lam, a, b):
    """E_q[log p(x, mu, tau)] + H(mu) + H(tau), term by term; Bishop (2006), section 10.1.3."""
    tau, log_tau = a / b, special.digamma(a) - np.log(b)
    rows = 0.5 * len(x) * (log_tau - np.log(2 * np.pi)) - 0.5 * tau * (((x - m) ** 2).sum() + len(x) / lam)
    location = 0.5 * (np.log(model.mean_precision) + log_tau - np.log(2 * np.pi))
    location -= 0.5 * model.mean_precision * tau * ((m - model.location) ** 2 + 1 / lam)
    precision = (
        stats.gamma.logpdf(1, model.concentration, scale=1 / model.rate)
        + (model.concentration - 1) * log_tau
        - model.rate * (tau - 1)
    )
    return (
        rows + location + precision + stats.norm.entropy(0, lam**-0.5) + stats.gamma.entropy(a, scale=1 / b)
    )


def test_mean_and_precision_follow_their_update_equations(float64):
    data, weights = MODELS["mean and precision"].data(float64)
    model, params = MODELS["mean and precision"].started(data, weights)
    final, objective, _ = sweeps(model, params, data, weights)
    x, prior, n = np.asarray(data), floats(model), N_ROWS
    m, lam, a, b = (float(leaf) for leaf in jax.tree.leaves(params))
    bounds = []
    for _ in range(len(objective)):
        before = mean_precision_bound(x, prior, m, lam, a, b)
        m = (prior.mean_precision * prior.location + x.sum()) / (prior.mean_precision + n)
        lam = (prior.mean_precision + n) * a / b
        bounds.append([before, mean_precision_bound(x, prior, m, lam, a, b)])
        a = prior.concentration + (n + 1) / 2
        square = ((x - m) ** 2).sum() + n / lam + prior.mean_precision * ((m - prior.location) ** 2 + 1 / lam)
        b = prior.rate + square / 2
    close(objective, bounds, factor=10)
    close(tuple(jax.tree.leaves(final)), (m, lam, a, b), factor=10)
    assert (objective < log_evidence(x, prior)).all()


def log_evidence(x, prior):
    """A multivariate Student t: Bishop (2006), eq. 2.162, of which the rows share the location's error."""
    shape = prior.rate / prior.concentration * (np.eye(len(x)) + 1 / prior.mean_precision)
    return stats.multivariate_t.logpdf(x, np.full(len(x), prior.location), shape, df=2 * prior.concentration)


def test_exact_posterior_and_evidence(float64):
    model = vb.textbook.GaussianMeanPrecision(0.4, 0.3, 2.5, 1.5)
    x, weights = np.array([0.2, 1.4, -0.7, 2.2]), np.array([1.0, 2.0, 0.0, 3.0])
    exact = jax.jit(lambda m, x, w: (m.exact_posterior(x, w), m.log_evidence(x, w)))
    posterior, evidence = exact(model, jnp.asarray(x), jnp.asarray(weights))
    rows = np.repeat(x, weights.astype(int))
    n, mean = len(rows), rows.mean()
    close(posterior.location, (0.3 * 0.4 + rows.sum()) / (0.3 + n))
    close(posterior.mean_precision, 0.3 + n)
    close(posterior.concentration, 2.5 + n / 2)
    # Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution, eq. 85 to 89
    shrinkage = 0.3 * n * (mean - 0.4) ** 2 / (2 * (0.3 + n))
    close(posterior.rate, 1.5 + ((rows - mean) ** 2).sum() / 2 + shrinkage)
    close(evidence, log_evidence(rows, model), factor=10)
    repeated = model.log_evidence(jnp.asarray(rows))
    close(repeated, evidence, factor=10)
    evidence_at = lambda b: vb.textbook.GaussianMeanPrecision(0.4, 0.3, 2.5, b).log_evidence(
        jnp.asarray(rows)
    )
    assert jax.grad(evidence_at)(1.5) != 0


def test_points_maximise_the_log_posterior_and_score_it(float64):
    data, weights = MODELS["own, points"].data(float64)
    model, params = MODELS["own, points"].started(data, weights)
    final, objective, _ = sweeps(model, params, data, weights)
    x, mu0, tau0, a, b = np.asarray(data), 0.0, 0.1, 2.0, 1.0
    mu, tau, scores = float(data[0]), 1.0, []

    def log_joint(mu, tau):
        rows = stats.norm.logpdf(x, mu, tau**-0.5).sum()
        return (
            rows + stats.norm.logpdf(mu, mu0, (tau0 * tau) ** -0.5) + stats.gamma.logpdf(tau, a, scale=1 / b)
        )

    for _ in range(len(objective)):
        before = log_joint(mu, tau)
        mu = (tau0 * mu0 + x.sum()) / (tau0 + N_ROWS)
        scores.append([before, log_joint(mu, tau)])
        tau = (a - 1 + (N_ROWS + 1) / 2) / (b + (((x - mu) ** 2).sum() + tau0 * (mu - mu0) ** 2) / 2)
    close(objective, scores, factor=10)
    close((final.mu.mean, final.tau.mean), (mu, tau), factor=10)


# ---------------------------------------------------------------- mixture of unit-variance normals


def unit_variance_bound(x, w, m, s2, phi, mu0, prior):
    """Blei et al. (2017), eq. 21, with a prior mean and row weights."""
    k = len(m)
    location = stats.norm.logpdf(m, mu0, prior**0.5) - s2 / (2 * prior) + stats.norm.entropy(0, s2**0.5)
    square = x[:, None] ** 2 - 2 * x[:, None] * m + m**2 + s2
    rows = -np.log(k) - (phi * 0.5 * (np.log(2 * np.pi) + square)).sum(1) - special.xlogy(phi, phi).sum(1)
    return location.sum() + (w * rows).sum()


def test_unit_variance_mixture_follows_its_update_equations(float64):
    data, _ = MODELS["unit variance"].data(float64)
    weights = jnp.asarray(np.resize([1.0, 0.5, 2.0], N_ROWS))
    model, params = MODELS["unit variance"].started(data, weights)
    final, objective, _ = sweeps(model, params, data, weights)
    x, w = np.asarray(data), np.asarray(weights)
    mu0, prior = float(model.location), 1 / float(model.location_precision)
    m, s2, bounds = np.asarray(params.mu.mean), 1 / np.asarray(params.mu.precision), []
    for _ in range(len(objective)):
        phi = special.softmax(np.outer(x, m) - 0.5 * (m**2 + s2), 1)
        bounds.append([unit_variance_bound(x, w, m, s2, phi, mu0, prior)])
        s2 = 1 / (1 / prior + w @ phi)
        m = (mu0 / prior + (w * x) @ phi) * s2
    close(objective, bounds, factor=10)
    close((final.mu.mean, final.mu.precision), (m, 1 / s2), factor=100)
    phi = special.softmax(np.outer(x, m) - 0.5 * (m**2 + s2), 1)
    close(jax.jit(lambda m, p, x: m.responsibilities(p, x))(model, final, data), phi, factor=100)


def first_rows(n, values):
    """The shape of the registry's data, of which the first rows count."""
    data = np.zeros(N_ROWS)
    data[:n] = values
    return jnp.asarray(data), jnp.asarray(np.arange(N_ROWS) < n, float)


def log_joint_of_labels(x, labels, mu0, prior):
    """log p(x, c), exact: the rows of a component share their mean."""
    total = -len(x) * np.log(N_COMPONENTS)
    for k in set(labels):
        own = x[np.asarray(labels) == k]
        total += stats.multivariate_normal.logpdf(own, np.full(len(own), mu0), np.eye(len(own)) + prior)
    return total


def test_unit_variance_bound_is_below_the_evidence_and_tight_where_labels_are_certain(float64):
    model = vb.textbook.UnitVarianceMixture(N_COMPONENTS, location=0.5, location_precision=0.25)
    values = np.array([-1.0, 0.3, 2.0, 0.9, 2.6])
    data, weights = first_rows(5, values)
    model, start = model.resolve(data, weights), normal_seeds(model, data, 0)
    objective = sweeps(model, start, data, weights)[1]
    joint = [
        log_joint_of_labels(values, c, 0.5, 4.0) for c in itertools.product(range(N_COMPONENTS), repeat=5)
    ]
    assert max(joint) < objective[-1, -1] < special.logsumexp(joint)

    far = np.array([-100.0, 0.0, 100.0, 1.0, 99.0])
    data, weights = first_rows(5, far)
    objective = sweeps(model, normal_seeds(model, data, 0), data, weights)[1]
    close(objective[-1, -1], log_joint_of_labels(far, (0, 1, 2, 1, 2), 0.5, 4.0), factor=10)


def test_unit_variance_bound_of_one_component_is_the_evidence(float64):
    x = np.array([-1.0, 0.3, 2.0, 0.9])
    model = vb.textbook.UnitVarianceMixture(1, location=0.5, location_precision=0.25).resolve(jnp.asarray(x))
    params = vb.Record(mu=NormalState(jnp.zeros(1), jnp.ones(1)))
    objective = sweeps(model, params, jnp.asarray(x), n_sweeps=2)[1]
    evidence = stats.multivariate_normal.logpdf(x, np.full(4, 0.5), np.eye(4) + 4)
    close(objective[-1, -1], evidence, factor=10)
    assert objective[0, 0] < evidence


# ---------------------------------------------------------------- no data


def test_a_model_without_data_approaches_its_prior(dtype):
    model = jax.tree.map(lambda x: jnp.asarray(x, dtype), MODELS["own, no data"].model)
    params = model.init(jax.random.key(0), None)
    params, objective, error = sweeps(model, params, None, n_sweeps=60)
    # stationary: the precision's rate from the means' moments and the reverse (mu0, tau0, a, b = 1, 2, 3, 1)
    tau = params.tau.concentration / params.tau.rate
    close(params.mu.mean, np.ones(3))
    close(params.mu.precision, 2 * tau * np.ones(3))
    close(params.tau.concentration, 3 + 1.5)
    close(params.tau.rate, 1 + 0.5 * 2 * (1 / params.mu.precision).sum())
    assert (objective <= 0).all()  # of log 1, the evidence of no rows at all
    assert objective[-1, -1] > -0.3
    # its terms are larger than itself, and so is its rounding error: most sweeps are nothing but that
    assert (np.diff(np.ravel(objective)) >= -np.ravel(error)[1:]).all()
    assert (np.diff(np.ravel(objective)) < 0).any()


# ---------------------------------------------------------------- records


def test_records_are_immutable_mappings():
    record = vb.Record(a=1.0, b=vb.Record(c=2.0))
    assert (record.a, record["b"].c, list(record), len(record)) == (1.0, 2.0, ["a", "b"], 2)
    assert (record | dict(a=3.0)).a == 3.0
    assert record.a == 1.0
    assert {"a", "b"} <= set(dir(record))
    with pytest.raises(AttributeError, match="immutable"):
        record.a = 2.0
    with pytest.raises(AttributeError, match="there are: a, b"):
        _ = record.d
    assert record == copy.deepcopy(record) == pickle.loads(pickle.dumps(record))
    assert record != vb.Record(a=1.0)
    assert hash(record) == hash(vb.Record(a=1.0, b=vb.Record(c=2.0)))
    assert repr(record) == "Record(a=1.0, b=Record(c=2.0))"
    doubled = jax.tree.map(lambda x: 2 * x, record)
    assert doubled == vb.Record(a=2.0, b=vb.Record(c=4.0))
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(record)] == [".a", ".b.c"]
