"""Conjugate mixtures by maximum likelihood: EM with points in the place of factors.

The objective is the log likelihood and no update lowers it, whatever the component and the kind of weights.
One step is that of the textbook. A component without rows keeps its parameters, also where hardly any are
left and where a maximum lies on the boundary. Published likelihoods are reached.
(Rows that weigh, wait or are permuted: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.points import shares
from tests.support.registry import CONJUGATE, MODELS, N_ROWS, perturbed_points, sweeps
from tests.support.tolerances import close

# the two kinds of weights in turn: components do not know of them
KIND = dict(zip(CONJUGATE, (False, True) * 4, strict=False))


@jax.jit
def begun(model, data):
    """The resolved model, where it starts, and the log density of each row there."""
    model = model.resolve(data)
    params = model.init(jax.random.key(0), data)
    return model, params, model.log_predictive(params, data)


@pytest.mark.parametrize("name", CONJUGATE)
def test_the_objective_is_the_log_likelihood_and_never_falls(name):
    data = MODELS[f"mixture of {name}"].data("float32")[0]
    bayesian, labels = CONJUGATE[name][0], vb.labels.StickBreaking() if KIND[name] else vb.labels.Weights()
    given = vb.Mixture(bayesian.n_components, bayesian.component, labels)
    model, start, density = begun(given, data)
    params, objective, error = sweeps(model, start, data, n_sweeps=30)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] > objective[0, 0] + 10 * error[0, 0]
    close(objective[0, 0], density.sum(), factor=10)
    share = np.mean(model.responsibilities(params, data), 0)
    np.testing.assert_allclose(params.weights.mean, share, atol=0.02)  # where EM stands still


def test_a_step_is_the_textbooks(float64):
    """Bishop (2006), eq. 9.56 to 9.60."""
    data, _ = MODELS["EM of binary"].data(float64)
    model, params = MODELS["EM of binary"].started(data, None)
    x, p = np.asarray(data), np.asarray(params.components.mean)
    log = np.log(params.weights.mean) + stats.bernoulli.logpmf(x[:, None], p).sum(-1)
    moved, objective, _ = sweeps(model, params, data, n_sweeps=1)
    close(objective[0, 0], special.logsumexp(log, 1).sum())
    r = special.softmax(log, 1)
    close(moved.weights.mean, r.mean(0), factor=10)
    close(moved.components.mean, (r.T @ x) / r.sum(0)[:, None], factor=10)


def one_regression(name, data):
    """A model of one component, where EM begins and is after a step, and the design."""
    given = dict(lines=vb.RegressionMixture(1), planes=vb.MultivariateRegressionMixture(1))[name]
    model, start, _ = begun(given, data)
    x = np.asarray(data[0])
    u = x if name == "lines" else np.column_stack([x - x.mean(0), np.ones(N_ROWS)])
    return model, start, sweeps(model, start, data, n_sweeps=1)[0], u


@pytest.mark.parametrize("name", ["lines", "planes"])
def test_one_regression_begins_and_stays_at_least_squares(name, float64):
    x, y = jax.tree.map(np.asarray, MODELS[f"mixture of {name}"].data(float64)[0])
    model, start, moved, u = one_regression(name, (x, y))
    fitted = u @ np.linalg.lstsq(u, y, rcond=None)[0]
    covariance = np.atleast_2d((y - fitted).T @ (y - fitted)) / N_ROWS
    for params in (start, moved):
        mean = params.components.mean
        close(model.mean(params, x), fitted, factor=100)
        close(np.linalg.inv(np.atleast_2d(mean.precision[0])), covariance, factor=100)


def test_regressions_on_collinear_columns_and_without_noise_are_finite(float64):
    """Weights that nothing tells apart stay; a noise that vanishes is at its floor, and flagged."""
    x, y = jax.tree.map(np.asarray, MODELS["mixture of planes"].data(float64)[0])
    x = x[:, :1] * [1, 2]
    model, _, moved, u = one_regression("planes", (x, y))
    close(model.mean(moved, x), u @ np.linalg.lstsq(u, y, rcond=None)[0], factor=100)
    assert not model.singular(moved)
    model, _, moved, _ = one_regression("planes", (x, np.column_stack([y[:, 0], x[:, 0]])))
    assert model.singular(moved)
    values = np.linalg.eigvalsh(
        np.linalg.inv(moved.components.mean.precision[0])
        / np.sqrt(np.outer(model.component.floor, model.component.floor))
    )
    np.testing.assert_allclose(values[0], 1, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 1e-12, 1e-8, 1e-6])
def test_components_at_the_boundary_and_without_rows_stay_finite(weight, dtype):
    """A column of ones, one of zeros; and a component that next to nothing is of."""
    other = np.arange(N_ROWS) % 3 == 0
    x = jnp.asarray(np.column_stack([np.ones(N_ROWS), np.zeros(N_ROWS), other]), dtype)
    model = begun(vb.BernoulliMixture(3), x)[0]
    start = perturbed_points(model, x, 0)
    share = np.array([1, 1, weight]) / (2 + weight)
    params, objective, error = sweeps(model, start | dict(weights=shares(jnp.asarray(share, dtype))), x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params.components.mean, objective)))
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    close(params.components.mean[:2, :2], np.tile([1.0, 0.0], (2, 1)))
    p = np.mean(other)  # with the other columns certain, that of a single one
    close(objective[-1, 0], N_ROWS * (p * np.log(p) + (1 - p) * np.log(1 - p)))
    if weight == 0:
        close(params.components.mean[2], start.components.mean[2])


def test_the_statistics_of_a_point_at_the_boundary_are_finite(dtype):
    t = vb.Delta(vb.Beta((2,))).at(jnp.asarray([0.0, 1.0], dtype)).expected()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(t))
    assert (0.0 * t.log == 0).all()


@pytest.mark.parametrize(
    ("rates", "published"),
    [((9.0, 9.0), -391.9189), ((12.0, 32.0), -360.3690), ((12.0, 22.0, 32.0), -356.8489)],
)
def test_earthquakes_are_as_published(rates, published, float64):
    """Zucchini & MacDonald (2009), section 1.2: mixtures of Poisson counts; equal components are one."""
    x, k = vb.datasets.earthquakes(), len(rates)
    model = begun(vb.PoissonMixture(k), x)[0]
    rates = jnp.asarray(rates)[:, None]
    params = vb.Record(
        weights=shares(jnp.full(k, 1.0)),
        components=vb.Delta(vb.Gamma((k, 1))).at(rates),
    )
    objective = sweeps(model, params, x, n_sweeps=8000)[1]
    np.testing.assert_allclose(objective[-1, 0], published, atol=6e-5)
