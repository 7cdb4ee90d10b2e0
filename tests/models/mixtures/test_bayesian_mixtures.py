"""The Gaussian mixture by variational Bayes, all covariance types, against a second implementation in numpy.

Trajectories are those of the textbook's updates. scikit-learn's optimum (full covariance) is a fixed point.
A component without rows is exactly its prior. The default prior is the sample's covariance, and proper also
where the data are flat in some direction. The predictive density integrates to one, has the moments of its
draws, and is the mean over the posterior. As all weights grow the posterior closes in on EM's parameters,
along a series in one over the weight. (The bound: test_bayesian_bound.py.)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import mixture

import vbjax as vb
from tests.support.registry import (
    MODELS,
    N_COMPONENTS,
    N_FEATURES,
    N_ROWS,
    covariance,
    every_kind,
    seeds,
    sweeps,
    swept,
)
from tests.support.textbook import LOG_2PI, Posterior
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.families import DirichletState

K, D = N_COMPONENTS, N_FEATURES

# ---------------------------------------------------------------- updates


@every_kind
def test_trajectories_are_the_textbooks(kind, float64):
    data, _ = MODELS[f"VB {kind}"].data(float64)
    weights = np.resize([1.0, 0.5, 2.0], N_ROWS)
    model, params = MODELS[f"VB {kind}"].started(data, jnp.asarray(weights))
    final = sweeps(model, params, data, jnp.asarray(weights))[0]
    prior, q, x = Posterior.prior(model), Posterior.of(kind, params), np.asarray(data)
    for _ in range(8):
        q = prior.update(x, weights[:, None] * q.responsibilities(x))
    # eight sweeps multiply a rounding by the rate at which they still move
    close(final, q.state(), factor=1000)
    read = jax.jit(lambda m, p, x: (m.responsibilities(p, x), p.weights.mean, m.means(p), m.covariances(p)))
    expected = q.responsibilities(x), q.alpha / q.alpha.sum(), q.location, np.linalg.inv(q.expected_precision)
    close(read(model, final, data), expected, factor=1000)


def test_scikit_learns_optimum_is_a_fixed_point(float64):
    """Full covariance only: the bounds and updates of its other types are not exact."""
    data, weights = MODELS["VB full"].data(float64)
    model, _ = MODELS["VB full"].started(data, weights)
    found = mixture.BayesianGaussianMixture(
        n_components=K,
        covariance_type="full",
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=float(model.weights.concentration),
        mean_prior=np.asarray(model.component.location),
        mean_precision_prior=float(model.component.mean_precision),
        degrees_of_freedom_prior=float(model.component.degrees_of_freedom),
        covariance_prior=np.asarray(model.component.inverse_scale),
        reg_covar=0,
        tol=1e-14,
        max_iter=5000,
        random_state=0,
    ).fit(np.asarray(data))
    q = Posterior(
        "full",
        found.weight_concentration_,
        found.mean_precision_,
        found.means_,
        found.degrees_of_freedom_,
        found.degrees_of_freedom_[:, None, None] * found.covariances_,
    )
    params, objective, _ = sweeps(model, q.state(), data, weights)
    for mine, its in zip(jax.tree.leaves(params), jax.tree.leaves(q.state()), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-6)  # as far as it has converged
    assert objective[-1, -1] - objective[0, 0] < 1e-9


@every_kind
def test_a_component_without_rows_is_exactly_its_prior(kind, float64):
    data, weights = MODELS[f"VB {kind}"].data(float64)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"], model=vb.BayesianGaussianMixture(K, kind, weight_concentration=1e-3)
    )
    model, params = entry.started(data, weights)
    q = Posterior.of(kind, params)
    q.location = q.location + np.array([[0], [0], [1e3]])
    params = sweeps(model, q.state(), data, weights)[0]
    q, prior = Posterior.of(kind, params), Posterior.prior(model)
    for field in ("alpha", "beta", "location") + (("nu", "inverse_scale") if kind != "tied" else ()):
        np.testing.assert_allclose(getattr(q, field)[2], getattr(prior, field)[2], rtol=1e-13)
    assert q.alpha[:2].sum() > N_ROWS


# ---------------------------------------------------------------- default priors


FLAT = {
    "collinear columns": lambda x: x[:, :1] * [1.0, -2.0],
    "a constant column": lambda x: x * [1.0, 0.0] + 12.3,
    "two kinds of rows": lambda x: np.resize([[9999.0, 1.0], [0.0, 2.0]], x.shape),
    "equal rows": lambda x: np.resize([3.3, -0.1], x.shape),
}


@every_kind
@pytest.mark.parametrize("what", FLAT)
def test_default_priors_are_proper_where_the_data_are_flat(what, kind, dtype):
    data, weights = MODELS[f"VB {kind}"].data(dtype)
    flat = jnp.asarray(FLAT[what](np.asarray(data)), dtype)
    few = jnp.asarray(np.arange(N_ROWS) < 2, dtype)  # two rows span one direction
    for rows, w in ((flat, weights), (data, few), (data, few.at[1].set(0))):
        model, params = MODELS[f"VB {kind}"].started(rows, w)
        inverse_scale = np.asarray(model.component.inverse_scale, float)
        if kind in ("full", "tied"):
            inverse_scale = np.linalg.eigvalsh(
                inverse_scale / np.sqrt(np.outer(model.component.scale, model.component.scale))
            )
        assert (inverse_scale > 0).all()
        params, objective, _ = sweeps(model, params, rows, w)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, objective)))
        # half the digits are gone where a direction has next to no variance
        assert (np.diff(objective[:, 0]) >= -10 * N_ROWS * np.finfo(dtype).eps ** 0.5).all()


def test_the_default_prior_is_the_samples_covariance(float64):
    data, weights = MODELS["VB full"].data(float64)
    for kind, expected in (
        ("full", np.cov(data.T)),
        ("tied", np.cov(data.T)),
        ("diag", np.var(data, axis=0, ddof=1)),
        ("spherical", np.var(data, axis=0, ddof=1).sum()),
    ):
        model, _ = MODELS[f"VB {kind}"].started(data, weights)
        close(model.component.inverse_scale, expected)
        close(model.component.location, np.mean(data, axis=0))
        assert (model.weights.concentration, model.component.mean_precision) == (1 / 3, 1)
        assert model.component.degrees_of_freedom == (1 if kind == "diag" else D)


# ---------------------------------------------------------------- the predictive density


@jax.jit
def predictive(model, params, x):
    return model.log_predictive(params, x)


def grid(mean, sd, n=301, width=8.0):
    """Points and their weights for sums over the plane, denser in the middle: x = mean + sd sinh(t)."""
    t = np.linspace(-width, width, n)
    axes = [(m + s * np.sinh(t), s * np.cosh(t) * (t[1] - t[0])) for m, s in zip(mean, sd, strict=True)]
    points = np.stack(np.meshgrid(axes[0][0], axes[1][0], indexing="ij"), -1).reshape(-1, 2)
    return points, np.outer(axes[0][1], axes[1][1]).ravel()


@every_kind
def test_the_predictive_density(kind, float64):
    model, data, _, params = swept(f"VB {kind}")
    uneven = params.weights.concentration * jnp.asarray([0.2, 1.0, 2.0])
    params = params | dict(weights=DirichletState(uneven))
    x = np.asarray(data)
    points, area = grid(x.mean(0), x.std(0))
    mass = np.exp(np.asarray(predictive(model, params, jnp.asarray(points)))) * area
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-7)

    # the mean over the posterior, at the first points of the grid that have some mass
    q = Posterior.of(kind, params)
    some = points[np.argsort(-mass)[:2000:400]]
    pi, mu, lam = q.draw(np.random.default_rng(1), 4000)
    shift = some[:, None, None] - mu
    square = np.einsum("nski,skij,nskj->nsk", shift, lam, shift, optimize=True)
    draws = (pi * np.exp(0.5 * (np.linalg.slogdet(lam)[1] - D * LOG_2PI - square))).sum(2)
    error = draws.std(1) / np.sqrt(draws.shape[1])
    density = np.exp(np.asarray(predictive(model, params, jnp.asarray(points))))[np.argsort(-mass)[:2000:400]]
    assert (abs(draws.mean(1) - density) < STANDARD_ERRORS * error).all()

    if kind in ("full", "diag"):  # a matrix and numbers; the others go the same two ways
        mean = mass @ points
        second = np.einsum("n,ni,nj->ij", mass, points - mean, points - mean)
        drawn = jax.jit(lambda m, p, k: m.sample(p, k, 20_000))(model, params, jax.random.key(0))
        shift = np.asarray(drawn) - mean
        for value, exact in ((shift, 0), (np.einsum("ni,nj->nij", shift, shift), second)):
            error = value.std(0) / np.sqrt(len(value))
            assert (abs(value.mean(0) - exact) < STANDARD_ERRORS * error).all()


@every_kind
def test_draws_of_the_parameters_are_one_for_each_component(kind):
    data, weights = MODELS[f"VB {kind}"].data("float32")
    model, params = MODELS[f"VB {kind}"].started(data, weights)
    draws = jax.eval_shape(lambda p, key: model.sample_posterior(p, key, 7), params, jax.random.key(0))
    shape = {"full": (7, K, D, D), "tied": (7, D, D), "diag": (7, K, D), "spherical": (7, K)}[kind]
    assert draws.weights.shape == (7, K)
    assert (draws.components.location.shape, draws.components.precision.shape) == ((7, K, D), shape)


# ---------------------------------------------------------------- limits


def matrices(kind, precision):
    """Precisions of a covariance type as matrices, (k, d, d)."""
    precision = np.asarray(precision)
    if kind in ("full", "tied"):
        return np.broadcast_to(precision, (K, D, D))
    return precision.reshape(K, -1, 1) * np.eye(D)


@every_kind
def test_as_all_weights_grow_the_posterior_closes_in_on_em(kind, float64):
    """Its distance is a power series in h, one over the weight, without a constant.

    Lagrange's extrapolation to h = 0 from three weights drops the first two orders and leaves h1 h2 h3 times
    the third: 1e-18 times some hundreds, a rounding or two.
    """
    data, ones = MODELS[f"EM {kind}"].data(float64)
    model, start = MODELS[f"EM {kind}"].started(data, ones)
    wide = covariance(kind, model.component.scale)
    found = sweeps(model, start, data, ones)[0]
    point = (
        found.weights.mean,
        found.components.mean.location,
        matrices(kind, found.components.mean.precision),
    )
    near, h = [], np.array([1e-4, 1e-6, 1e-8])
    for weight in 1 / h:
        bayes = MODELS[f"VB {kind}"].model.resolve(data, weight * ones)
        count = weight * N_ROWS / K
        nu = {"tied": K * count, "spherical": D * count}.get(kind, count)
        inverse_scale = 0.3 * nu * wide
        params = vb.Record(
            weights=DirichletState(jnp.full(K, count, data.dtype)),
            components=bayes.component.structure.state(seeds(data, 0), count, nu, inverse_scale),
        )
        q = Posterior.of(kind, sweeps(bayes, params, data, weight * ones)[0])
        near.append((q.alpha / q.alpha.sum(), q.location, q.expected_precision))
    share = [np.prod([b / (b - a) for b in h if b != a]) for a in h]
    limit = [sum(s * x for s, x in zip(share, values, strict=True)) for values in zip(*near, strict=True)]
    close(limit, point, factor=10)  # eight sweeps multiply a rounding
    # the first order is there: that of the second is below ten times it, at h = 1e-4
    errors = np.array([[np.abs(a - b).max() for a, b in zip(q, point, strict=True)] for q in near])
    np.testing.assert_allclose(errors[1:] / errors[:-1], 1e-2, rtol=1e-3)
