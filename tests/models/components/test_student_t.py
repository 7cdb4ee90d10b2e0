"""Student-t components, their degrees of freedom learned.

One component by maximum likelihood is scipy's fit, of a Cauchy's rows too. With many degrees of freedom it
is the Gaussian component. The derived E-step is the oracle of the one by hand; degrees of freedom are the
root of their equation, and stop at their bounds. Draws have the quantiles of the density. Outliers leave the
classes alone. (No update lowers the bound: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import vbjax as vb
from tests.models.components.test_products import rows, started
from tests.support.family_table import jit
from tests.support.registry import N_COMPONENTS, sweeps, table
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.families.degrees_of_freedom import LEAST, MOST, DegreesOfFreedom, DegreesOfFreedomStatistics

Gaussian, StudentT = vb.components.Gaussian, vb.components.StudentT
KEY, N = jax.random.key(0), 600


@pytest.mark.parametrize("df", [1.0, 6.0])
def test_one_component_by_maximum_likelihood_is_scipys_fit(df, float64):
    x = 5 + 3 * np.random.default_rng(0).standard_t(df, (N, 1))
    fit = vb.fit(vb.Mixture(1, StudentT()), x, key=KEY, tol=1e-13, max_iter=2000)
    nu, location, scale = stats.t.fit(x[:, 0], method="MLE")
    found = fit.params.components.mean
    np.testing.assert_allclose(fit.params.df.mean[0], nu, rtol=2e-3)  # theirs stops by the simplex's width
    np.testing.assert_allclose(found.location[0, 0], location, atol=1e-3 * scale)
    np.testing.assert_allclose(found.precision[0, 0, 0] ** -0.5, scale, rtol=1e-3)
    assert fit.objective >= stats.t.logpdf(x, nu, location, scale).sum() - 1e-9
    np.testing.assert_allclose(1 / fit.params.df.mean[0], 1 / df, atol=0.1)  # three standard errors
    own = stats.t.logpdf(x[:, 0], fit.params.df.mean, found.location[0], found.precision[0, 0] ** -0.5)
    close(fit.log_predictive(x), own, factor=10, scale=10)
    assert fit.model.n_parameters == 3


@pytest.mark.parametrize("mixture", [vb.Mixture, vb.BayesianMixture])
def test_with_many_degrees_of_freedom_it_is_gaussian(mixture, float64):
    x, df = rows(table, float64), 1e8
    gaussian, start = started(mixture(N_COMPONENTS, Gaussian()), x)
    tails = jax.jit(mixture.resolve)(mixture(N_COMPONENTS, StudentT(df=df)), x)
    expected, found = sweeps(gaussian, start, x), sweeps(tails, start, x)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e3 / df)
    np.testing.assert_allclose(
        found[0].components.mean.precision, expected[0].components.mean.precision, rtol=1e4 / df
    )


@pytest.mark.parametrize(("mixture", "kind"), [(vb.Mixture, "diag"), (vb.BayesianMixture, "tied")])
def test_the_derived_e_step_is_that_by_hand(mixture, kind, float64):
    x = rows(table, float64)
    model, params = started(mixture(N_COMPONENTS, StudentT(kind)), x)

    @jit
    def both(model, params, x):
        engine = vb.core.ConjugateModel
        derived = engine.e_step(model, engine.prepare(model, params), x, jnp.ones(len(x), x.dtype))
        return vb.core.expectation(model, params, x), derived

    found, expected = both(model, params, x)
    close(found.bound, expected.bound, scale=100)
    for name in model.factors:
        close(found.statistics[name].natural, expected.statistics[name].natural, factor=10, scale=100)


def test_degrees_of_freedom_are_the_root_of_their_equation_and_stop_at_their_bounds(dtype):
    nu = np.geomspace(2 * LEAST, MOST / 2, 30)
    y = np.log(nu / 2) - special.digamma(nu / 2)
    maximise = lambda y: DegreesOfFreedom(y.shape).maximise(
        None, DegreesOfFreedomStatistics(jnp.asarray(-3 * y, dtype), jnp.full(y.shape, 3.0, dtype))
    )
    # where tails are light a digit of y is many of nu
    np.testing.assert_allclose(maximise(y), nu, rtol=1e-4 if dtype == np.dtype("float32") else 1e-10)
    np.testing.assert_allclose(maximise(np.array([1e3, 1e-12, -1.0])), [LEAST, MOST, MOST], rtol=1e-6)


@pytest.mark.parametrize("mixture", [vb.Mixture, vb.BayesianMixture])
def test_draws_have_the_quantiles_of_the_density(mixture):
    """Of a component where it starts, at four degrees of freedom; by VB of one that stands for many rows."""
    x = rows(table, np.dtype("float32"))[:, :1]
    model, params = started(mixture(1, StudentT("diag", mean_precision=1e4, degrees_of_freedom=1e4)), x)
    drawn, n = np.asarray(model.sample(params, KEY, 4000))[:, 0], 4000
    mean, p = params.components.mean, np.array([0.02, 0.3, 0.5, 0.7, 0.98])
    at = stats.t.ppf(p, 4, mean.location[0], mean.precision.reshape(()) ** -0.5)
    error = STANDARD_ERRORS * np.sqrt(p * (1 - p) / n)
    np.testing.assert_array_less(np.abs((drawn[:, None] < at).mean(0) - p), error)


def test_outliers_leave_the_classes_alone():
    """Of two classes each tenth row is far away: means are those of the rows that are not."""
    rng = np.random.default_rng(2)
    classes = np.arange(400) % 2
    x = rng.normal(size=(400, 2)) + 8 * classes[:, None]
    far = rng.uniform(size=400) < 0.1
    x[far] = rng.uniform(-60, 60, (far.sum(), 2))
    data = vb.Labelled(x.astype("float32"), np.where(np.arange(400) < 20, classes, -1))
    fit = vb.fit(vb.Mixture(2, StudentT("diag")), data, key=KEY, n_restarts=8)
    own = [x[~far & (classes == k)].mean(0) for k in range(2)]
    np.testing.assert_allclose(fit.params.components.mean.location, own, atol=2 / np.sqrt(180))
    assert fit.params.df.mean.min() < 2


def test_missing_entries_are_refused():
    with pytest.raises(ValueError, match="data"):
        vb.fit(vb.Mixture(1, StudentT()), np.array([[0.0], [np.nan], [1.0]]), key=KEY)
    with pytest.raises(TypeError, match="missing"):
        StudentT(missing=True)
