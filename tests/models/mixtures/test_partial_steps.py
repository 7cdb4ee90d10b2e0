"""Partial steps of EM and MAP: stepwise EM, whatever the component, the prior and the floor.

Steps on part of the rows end where the textbook's statistics, averaged with numpy, have their maximum
(Cappe & Moulines 2009), also where covariances are at their floor. So do those of other components, chains
and priors, by the gradients that points rest on. Whole steps on one minibatch of all rows are full sweeps.
With rates 1 / t the minibatches of one epoch add up to all rows. Minibatches find what sweeps find. (Of the
families: tests/families/test_points.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.support.registry import N_ROWS, sweeps
from tests.support.tolerances import close
from vbjax.inference.resolution import resolved

KEY = jax.random.key(0)
RHO = 0.4


def rows(dtype):
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])[np.arange(N_ROWS) % 3]
    return jnp.asarray(centres + rng.normal(size=(N_ROWS, 2)), dtype)


def counts(dtype):
    return jnp.abs(rows(dtype)).round()


def positive(dtype):
    return counts(dtype) + 0.5


def pairs(dtype):
    x = rows(dtype)
    return x[:, :1], x @ jnp.asarray([[1.0, 0.5], [-1.0, 0.3]], dtype)


def sequences(dtype):
    return vb.Sequences.of([np.asarray(rows(dtype))[10 * i : 10 * i + 10] for i in range(4)])


MODELS = {
    "tied, MAP": (vb.GaussianMixture(3, "tied", weight_concentration=2.0, mean_precision=0.5), rows),
    "spherical, MAP": (vb.GaussianMixture(3, "spherical", mean_precision=0.5), rows),
    "counts": (vb.PoissonMixture(3), counts),
    "sticks": (vb.Mixture(3, vb.components.Poisson(), vb.labels.StickBreaking()), counts),
    "learned shapes": (vb.GammaMixture(2, learn_shape=True), positive),
    "planes": (vb.MultivariateRegressionMixture(2, covariance_floor=0.1), pairs),
    "chain": (vb.GaussianHMM(3, "diag", transition_concentration=2.0), sequences),
    "nested": (vb.MixtureHMM(2, 2), sequences),
    "autoregression": (vb.AutoregressiveHMM(2, covariance_floor=0.05), sequences),
}


@jax.jit
def started(model, data):
    """Where a run begins, after a sweep: parameters that rest on all rows."""
    params = vb.Record(model.init(KEY, data))
    return model.m_step(params, vb.core.expectation(model, params, data).statistics, tuple(model.factors))


@jax.jit
def partial(model, params, data, weights):
    """A partial step on weighted rows."""
    statistics = vb.core.expectation(model, params, data, weights).statistics
    return model.partial_step(params, statistics, tuple(model.factors), RHO)


def third(step, dtype, n=N_ROWS):
    """Weights by which every third row stands for all."""
    return jnp.asarray(3.0 * (np.arange(n) % 3 == step), dtype)


def moments(params, x, weights):
    """Sums of responsibilities times 1, x and x x', by scipy."""
    pi, (mean, precision) = np.asarray(params.weights.mean), map(np.asarray, params.components.mean)
    density = [
        stats.multivariate_normal(m, np.linalg.inv(p)).logpdf(x) for m, p in zip(mean, precision, strict=True)
    ]
    r = np.asarray(weights) * special.softmax(np.log(pi)[:, None] + np.stack(density), 0)
    return r.sum(1), r @ x, np.einsum("kn,ni,nj->kij", r, x, x)


def maximum(number, first, second, floor):
    """Bishop (2006), eq. 9.24 to 9.26, with eigenvalues of covariances at the floor (d,) or above."""
    mean = first / number[:, None]
    covariance = second / number[:, None, None] - np.einsum("ki,kj->kij", mean, mean)
    unit = np.sqrt(np.outer(floor, floor))
    values, vectors = np.linalg.eigh(covariance / unit)
    raised = np.einsum("kij,kj,klj->kil", vectors, np.maximum(values, 1), vectors)
    return number / number.sum(), mean, unit * raised


@pytest.mark.parametrize("floor", [1e-6, 0.3])
def test_partial_steps_are_those_of_the_textbooks_statistics(floor, float64):
    x = rows(float64)
    model = vb.GaussianMixture(3, covariance_floor=floor).resolve(x)
    before = vb.Record(jax.jit(model.init)(KEY, x))
    params = started(model, x)
    total, data = moments(before, np.asarray(x), np.ones(N_ROWS)), np.asarray(x)
    for step in range(4):
        weights = third(step % 3, float64)
        found = moments(params, data, weights)
        total = [(1 - RHO) * old + RHO * new for old, new in zip(total, found, strict=True)]
        params = partial(model, params, x, weights)
        desired = maximum(*total, np.asarray(model.component.floor))
        close((params.weights.mean, *params.components.value), desired, factor=1000)  # by raw moments
    assert bool(model.singular(params)) == (floor == 0.3)


@jax.jit
def by_hand(model, params, data, weights):
    """The maximum of what the points rest on, averaged with the gradient of weighted rows and prior."""
    block = tuple(model.factors)
    statistics = vb.core.expectation(model, params, data, weights).statistics
    s = vb.Record({name: t.with_base(0.0) for name, t in model.expected(params).items()})
    moved = {}
    for name, gradient in model.total_gradient(s, statistics, block).items():
        rests_on = params[name].gradient.gradient_like(s[name])
        total = jax.tree.map(lambda x, y: (1 - RHO) * x + RHO * y, rests_on, gradient)
        moved[name] = model.factors[name].update(params[name], s[name], total)
    return model.constrain(params | moved, params, block)


@pytest.mark.parametrize("name", MODELS)
def test_a_partial_step_is_the_maximum_of_averaged_gradients(name, float64):
    model, make = MODELS[name]
    model, data, _ = resolved(model, make(float64), None)
    params = started(model, data)
    n = 4 if make is sequences else N_ROWS
    for step in range(2):
        weights = third(step, float64, n)
        taken, desired = partial(model, params, data, weights), by_hand(model, params, data, weights)
        close(taken, desired, factor=100)
        assert not all(map(np.allclose, jax.tree.leaves(taken), jax.tree.leaves(params)))
        params = taken


@pytest.mark.parametrize("name", ["tied, MAP", "planes", "nested"])
def test_whole_steps_on_all_rows_are_sweeps(name, float64):
    model, make = MODELS[name]
    given = make(float64)
    model, data, _ = resolved(model, given, None)
    start = started(model, data)
    n = 4 if make is sequences else N_ROWS
    fit = vb.fit_stochastic(model, given, key=KEY, batch_size=n, n_epochs=3, forgetting=0.0, params=start)
    params, objective, _ = sweeps(model, start, data, None, n_sweeps=3)
    for point, desired in zip(fit.params.values(), params.values(), strict=True):
        close(point.value, desired.value, factor=1000)  # the rows come in another order
    close(fit.trace, objective[:, 0], factor=10)


def test_one_epoch_with_rates_that_add_up_is_the_fit_of_all_rows(float64):
    """One component: nothing interacts. The start rests on all rows, and nothing of it is left."""
    x = rows(float64)
    how = dict(key=KEY, batch_size=8, n_epochs=1, delay=0.0, forgetting=1.0)
    fit = vb.fit_stochastic(vb.GaussianMixture(1, mean_precision=1.0), x, **how)
    exact = vb.fit(vb.GaussianMixture(1, mean_precision=1.0), x, key=KEY)
    close(fit.params.components.value, exact.params.components.value, factor=100)
    close(fit.objective, exact.objective, factor=10)


@pytest.mark.parametrize("model", [vb.GaussianMixture(2), vb.GaussianMixture(2, "tied")])
def test_minibatches_find_what_sweeps_find(model):
    x = vb.datasets.old_faithful()
    exact = vb.fit(model, x, key=KEY)
    fit = vb.fit_stochastic(model, x, key=KEY, batch_size=68, n_epochs=40)
    assert exact.objective - 0.5 < fit.objective <= exact.objective + 1e-3
    np.testing.assert_allclose(
        np.sort(fit.params.weights.mean), np.sort(exact.params.weights.mean), atol=0.01
    )


def test_a_component_without_rows_in_a_minibatch_stays_and_weighs_less(float64):
    x = jnp.concatenate([rows(float64), rows(float64) + 1e3])
    model = vb.GaussianMixture(2).resolve(x)
    start = model.params_at([0.5, 0.5], [[1.0, 2.0], [1001.0, 1002.0]], np.tile(6 * np.eye(2), (2, 1, 1)))
    params = jax.jit(lambda p: model.m_step(p, vb.core.expectation(model, p, x).statistics, tuple(p)))(start)
    moved = partial(model, params, x, jnp.asarray([2.0] * N_ROWS + [0.0] * N_ROWS))
    close(moved.components.value.location[1], params.components.value.location[1], factor=10)
    close(moved.components.value.covariance[1], params.components.value.covariance[1], factor=100)
    close(moved.weights.mean, [0.5 + RHO / 2, 0.5 - RHO / 2], factor=100)
