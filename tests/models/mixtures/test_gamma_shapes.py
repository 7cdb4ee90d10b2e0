"""Gamma components whose shapes are learned.

One component by maximum likelihood is scipy's fit; by variational Bayes its bound is the exact evidence given
the shape, at the shape where that is largest. Scales of the data change nothing but rates. At the start's
shape the model is that of a known shape, to its predictive density. Rows without a spread are flagged; where
rows cancel, the rounding error that is claimed is one. What was planted in a chain is found. (No update
lowers the bound: test_contracts.py, test_hidden_markov.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special, stats

import vbjax as vb
from tests.support.family_table import jit
from tests.support.registry import sweeps
from tests.support.tolerances import close
from vbjax.core.rows import rounding_error
from vbjax.families.shaped_gamma import MOST, ShapedGamma, ShapedGammaState, ShapeRate

N, SHAPES = 400, np.array([0.4, 25.0])
ROWS = np.random.default_rng(0).gamma(SHAPES, [2.0, 0.1], (N, 2))


@jit
def climbed(model, x):
    """Where a start of the model is after a dozen sweeps, and the bound there."""
    params = sweeps(model, model.init(jax.random.key(0), x), x, n_sweeps=12)[0]
    return params, vb.elbo(model, params, x), model.log_predictive(params, x)


def one_component(x, mixture=vb.BayesianGammaMixture, **options):
    model = mixture(1, learn_shape=True, **options).resolve(x)
    return model, *climbed(model, x)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_one_component_by_maximum_likelihood_is_scipys_fit(scale, dtype):
    x = jnp.asarray(scale * ROWS, dtype)
    _, params, bound, _ = one_component(x, vb.GammaMixture)
    found, log_likelihood = params.components.mean, 0.0
    for j, column in enumerate(np.asarray(x, float).T):
        s, _, theta = stats.gamma.fit(column, floc=0)
        log_likelihood += stats.gamma.logpdf(column, s, scale=theta).sum()
        tolerance = 1e-7 if dtype == np.dtype("float64") else 1e-3  # a flat top: the root of a rounding
        np.testing.assert_allclose(found.row_shape[0, j], s, rtol=tolerance)
        np.testing.assert_allclose(found.rate[0, j] * theta, 1, rtol=tolerance)
    close(bound, log_likelihood, scale=N * 25)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {dtype}


def test_the_bound_of_one_component_is_the_largest_evidence(float64):
    s0, a, b = np.array([0.9, 1.5]), np.array([1.2, 0.7]), np.array([0.5, 2.0])
    x = ROWS[:12]
    _, params, bound, _ = one_component(jnp.asarray(x), known_shape=s0, concentration=a, rate=b)

    def evidence(s, j):
        """Of a column; nu = lambda / s ~ Gamma(a, b s0)."""
        rate, n, column = b[j] * s0[j], len(x), x[:, j]
        rows = n * (s * np.log(s) - special.gammaln(s)) + (s - 1) * np.log(column).sum()
        ratio = special.gammaln(a[j] + n * s) - special.gammaln(a[j])
        powers = a[j] * np.log(rate) - (a[j] + n * s) * np.log(rate + s * column.sum())
        return rows + ratio + powers

    total = 0
    for j in range(2):
        best = optimize.minimize_scalar(lambda u, j=j: -evidence(np.exp(u), j), tol=1e-12)
        np.testing.assert_allclose(params.components.row_shape[0, j], np.exp(best.x), rtol=1e-6)
        total -= best.fun
    close(bound, total, factor=10, scale=100)


def test_at_the_starts_shape_it_is_the_mixture_of_known_shape(float64):
    """Components begin as those of known shape, with the same posterior, bound and predictive density."""
    x = jnp.asarray(ROWS)
    known = vb.BayesianGammaMixture(2, known_shape=[0.5, 20.0]).resolve(x)
    learned = known.replace(learn_shape=True)

    @jit
    def look(model, x):
        params = model.init(jax.random.key(0), x)
        return vb.elbo(model, params, x), model.log_predictive(params, x)

    close(look(learned, x), look(known, x), factor=10, scale=N)


def test_statistics_are_what_the_density_is_linear_in(float64):
    s, rate, x, pivot = np.array([0.3, 7.0, 900.0]), np.array([2.0, 0.1, 30.0]), 25.0, 3.0
    at = ShapedGammaState(*map(jnp.asarray, (s, s, rate)))
    for t in (own := at.statistics(ShapeRate(at.row_shape, at.rate)), own.about(jnp.full(3, pivot))):
        log_p = t.normalizer + t.row_shape * (1 + np.log(x / t.pivot)) - t.rate * x - np.log(x)
        close(log_p, stats.gamma.logpdf(x, s, scale=1 / rate), scale=1e4)
    close(at.log_prob(ShapeRate(at.row_shape, jnp.full(3, 0.7))), stats.gamma.logpdf(0.7, s, scale=1 / rate))
    moved = ShapedGammaState(at.rate, at.row_shape, at.row_shape)
    family = ShapedGamma((3,))
    close(family.mix(at, moved, 1.0), moved)
    close(family.mix(at, moved, 0.0), at)


def test_rows_without_a_spread_are_flagged_and_finite():
    x = jnp.full((N, 2), 3.0)
    model, params, bound, _ = one_component(x, vb.GammaMixture)
    assert np.isfinite(bound)
    assert model.singular(params)
    np.testing.assert_allclose(params.components.mean.row_shape, MOST, rtol=1e-5)
    np.testing.assert_allclose(params.components.mean.rate * 3, MOST, rtol=1e-3)
    assert not model.singular(one_component(jnp.asarray(ROWS, "float32"), vb.GammaMixture)[1])


@pytest.mark.parametrize("learn", [False, True])
def test_float32_error_of_the_bound_is_what_is_claimed_though_rows_cancel(learn, float64):
    """Of rows a fiftieth of their mean wide, what is added up is hundreds of times the result."""
    x = np.random.default_rng(2).gamma(2500.0, np.tile([1e-3, 7e-4], N // 2)[:, None] * [1, 3], (N, 2))
    model = vb.BayesianGammaMixture(2, known_shape=2500.0, learn_shape=learn).resolve(
        jnp.asarray(x, "float32")
    )
    params = jax.jit(model.init)(jax.random.key(0), jnp.asarray(x, "float32"))

    @jit
    def scored(model, params, x):
        return model.scored(params, vb.core.expectation(model, params, x))

    rough, magnitude = scored(model, params, jnp.asarray(x, "float32"))
    both = jax.tree.map(lambda leaf: jnp.asarray(leaf, float64), (model, params))
    exact = scored(*both, jnp.asarray(x.astype("float32"), float64))[0]
    assert abs(float(rough) - float(exact)) < float(rounding_error(magnitude))


PLANTED = np.array([[0.6, 30.0], [9.0, 3.0]])  # shapes by states; means are 1 and 2, which tell little


def test_planted_states_are_found():
    rng = np.random.default_rng(1)
    states = (np.cumsum(rng.uniform(size=1000) < 0.05) % 2).astype(int)
    means = np.array([[1.0, 2.0], [2.0, 2.0]])
    x = rng.gamma(PLANTED[states], (means / PLANTED)[states])
    fit = vb.fit(vb.BayesianGammaHMM(2, learn_shape=True), x.astype("float32"), key=jax.random.key(0))
    assert fit.status == vb.Status.CONVERGED
    found = fit.params.components.mean
    order = np.argsort(found.row_shape[:, 0])
    np.testing.assert_allclose(found.row_shape[order], PLANTED, rtol=0.15)
    own = [x[states == k].mean(0) for k in range(2)]
    np.testing.assert_allclose((found.row_shape / found.rate)[order], own, rtol=0.02)
    agreed = order.argsort()[np.asarray(fit.model.decode(fit.params, x.astype("float32")))] == states
    assert agreed.mean() > 0.95
