"""Draws of parameters and of whole data sets, against what is known of their distributions.

Replications of rows under a fixed q are the posterior predictive of rows of their own: of a normal and of a
regression, Student's t or a normal of known moments; of a mixture they keep to each row's own component,
and the rows of a data set share one draw of the parameters.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vbjax as vb
from tests.support.registry import mean_and_precision, univariate_mixture
from tests.support.tolerances import STANDARD_ERRORS
from vbjax.families import (
    DirichletState,
    GammaState,
    MultivariateNormalGammaState,
    MultivariateNormalState,
    NormalState,
)
from vbjax.terms import linear, normal

KEY, N_DRAWS = jax.random.key(3), 2000


def params_of_a_normal():
    mu = NormalState(jnp.asarray(2.0), jnp.asarray(400.0))
    return vb.Record(mu=mu, tau=GammaState(jnp.asarray(50.0), jnp.asarray(12.5)))


def within_errors(draws, mean):
    draws = np.asarray(draws, float)
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - mean) < STANDARD_ERRORS * error).all()


def test_draws_of_parameters_have_their_moments(float64):
    params = params_of_a_normal()
    draws = vb.sample_posterior(params, KEY, N_DRAWS)
    assert draws.mu.shape == draws.tau.shape == (N_DRAWS,)
    for name, q in params.items():
        within_errors(draws[name], q.mean)
        within_errors((draws[name] - q.mean) ** 2, q.variance)
    assert abs(np.corrcoef(draws.mu, draws.tau)[0, 1]) < STANDARD_ERRORS / np.sqrt(N_DRAWS)


def test_replications_of_a_normal_are_its_predictive(float64):
    x, params = jnp.asarray([1.0, 2.0, 4.0]), params_of_a_normal()
    model = mean_and_precision().resolve(x)
    drawn = vb.replicate(model, params, x, vb.Normal(), key=KEY, n_draws=N_DRAWS)
    assert drawn.shape == (N_DRAWS, 3)
    q = params.tau
    within_errors(drawn, params.mu.mean)
    within_errors((drawn - params.mu.mean) ** 2, params.mu.variance + q.rate / (q.concentration - 1))
    rest = np.asarray(drawn)[:, 0] - params.mu.mean
    scale = np.sqrt(float(q.rate / q.concentration))
    assert stats.kstest(rest, stats.t(2 * float(q.concentration), scale=scale).cdf).pvalue > 1e-3


def test_replications_of_a_regression_keep_its_design(float64):
    design = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)))
    w = MultivariateNormalState(jnp.asarray([1.0, -2.0]), jnp.asarray([[4.0, 1.0], [1.0, 2.0]]))
    model = vb.Model(
        factors=dict(w=vb.MultivariateNormal(2)),
        log_likelihood=lambda s, rows: normal(rows[1], linear(rows[0], s.w), 3.0),
    )
    data = design, jnp.zeros(5)
    x, y = vb.replicate(model, vb.Record(w=w), data, (None, vb.Normal()), key=KEY, n_draws=N_DRAWS)
    assert x is design or (x == design).all()
    within_errors(y, design @ w.mean)
    spread = np.einsum("ni,ij,nj->n", design, w.covariance, design) + 1 / 3.0
    within_errors((y - design @ w.mean) ** 2, spread)


def test_replications_of_a_mixture_keep_each_rows_component(float64):
    x = jnp.asarray([-10.0, 0.0, 10.0, 10.5])
    sharp = NormalState(jnp.asarray([-10.0, 0.0, 10.0]), jnp.full(3, 1e4))
    params = vb.Record(weights=DirichletState(jnp.full(3, 5.0)), mu=sharp)
    model = univariate_mixture().inspect(x).resolve(x)
    drawn = vb.replicate(model, params, x, vb.Normal(), key=KEY, n_draws=N_DRAWS)
    within_errors(drawn, [-10.0, 0.0, 10.0, 10.0])
    within_errors((drawn - jnp.asarray([-10.0, 0.0, 10.0, 10.0])) ** 2, 1 / 1.5 + 1e-4)


# ---------------------------------------------------------------- ready-made models draw their own rows

CENTRES = np.array([[2.0, 30.0], [2.0, 30.0], [20.0, 3.0]])  # of each row; no doubt about its component
EVEN = DirichletState(jnp.asarray([9.0, 9.0]))


@jax.jit
def begun(model, data):
    model = model.resolve(data)
    return model, model.init(KEY, data)


def shared(draws):
    """What two rows of one component owe to parameters that they share: products of their deviations."""
    one, other = (x - x.mean(0) for x in np.asarray(draws, float)[:, :2].swapaxes(0, 1))
    return one * other


def test_replications_of_counts_are_counts_of_shared_rates():
    """Two rows of a component: means a / b, variances a / b (1 + 1 / b), covariance a / b^2."""
    a, b = jnp.asarray([[20.0, 300.0], [100.0, 15.0]]), jnp.asarray([[10.0, 10.0], [5.0, 5.0]])
    model = vb.BayesianPoissonMixture(2, concentration=jnp.ones(2), rate=jnp.ones(2) / 10)
    params = vb.Record(weights=EVEN, components=GammaState(a, b))
    drawn = np.asarray(vb.replicate(model, params, CENTRES, key=KEY, n_draws=N_DRAWS), float)
    assert drawn.shape == (N_DRAWS, 3, 2)
    assert (drawn == drawn.round()).all()
    within_errors(drawn, CENTRES)
    rate = np.array([10.0, 10.0, 5.0])[:, None]
    within_errors((drawn - CENTRES) ** 2, CENTRES * (1 + 1 / rate))
    within_errors(shared(drawn), CENTRES[0] / 10)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_replications_of_a_gaussian_mixture_share_parameters_and_miss_what_the_data_miss(kind):
    """Rows about their component's location, which moves from data set to data set."""
    x = CENTRES.copy()
    x[2, 1] = np.nan if kind == "spherical" else x[2, 1]
    model = vb.BayesianGaussianMixture(2, kind, missing=kind == "spherical", scale=jnp.ones(2))
    own, matrix = np.array([[1.0, 0.3], [0.3, 2.0]]), kind in ("full", "tied")
    variance = {"diag": np.diagonal(own), "spherical": np.array(1.5)}.get(kind, own)
    nu = 50.0 if matrix else 25.0  # of the Wishart, or concentration of the Gamma
    scale = jnp.asarray(
        np.tile(variance * (nu - (3 if matrix else 1)), (1 if kind == "tied" else 2, *[1] * variance.ndim))
    )
    components = model.component.structure.state(
        jnp.asarray(CENTRES[1:]), 4.0, nu, scale[0] if kind == "tied" else scale
    )
    params = vb.Record(weights=EVEN, components=components)
    drawn = vb.replicate(model, params, x, key=KEY, n_draws=N_DRAWS)
    np.testing.assert_array_equal(np.isnan(drawn), np.tile(np.isnan(x), (N_DRAWS, 1, 1)))
    whole = np.asarray(drawn, float)[:, :2]
    within_errors(whole, CENTRES[:2])
    known = np.diagonal(variance) if matrix else np.broadcast_to(variance, 2)
    within_errors((whole - CENTRES[:2]) ** 2, np.tile(known * 1.25, (2, 1)))
    within_errors(shared(drawn), known / 4)


def test_what_a_model_does_not_model_stays_in_its_replications():
    """The totals of a multinomial; the x of a regression."""
    counts, alpha = np.array([[9, 1], [0, 8]]), jnp.asarray([[50.0, 5.0], [5.0, 50.0]])
    model = vb.BayesianMultinomialMixture(2, concentration=jnp.ones(2))
    params = vb.Record(weights=EVEN, components=DirichletState(alpha))
    drawn = vb.replicate(model, params, counts, key=KEY, n_draws=N_DRAWS)
    np.testing.assert_array_equal(drawn.sum(-1), np.tile(counts.sum(1), (N_DRAWS, 1)))
    within_errors(drawn[:, 0], 10 * alpha[0] / 55)
    x, y = np.array([[1.0], [2], [3], [4]]), np.array([1.0, 2.1, 2.9, 4.0])
    one = jnp.ones(1)
    model = vb.BayesianRegressionMixture(
        1, location=one, mean_precision=one, concentration=one[0], rate=one[0]
    )
    line = MultivariateNormalGammaState(one[None], 9 * one[None, None], 9 * one, 9 * one)
    params = vb.Record(weights=DirichletState(one), components=line)
    same, drawn = vb.replicate(model, params, (x, y), key=KEY, n_draws=N_DRAWS)
    assert (same == x).all()
    within_errors(drawn, x[:, 0])


def test_replications_of_a_hidden_markov_model_keep_its_paths():
    low, high = np.array([[1.0], [2.0], [1.0], [np.nan], [60.0]]), np.array([[58.0], [63.0], [2.0]])
    one = jnp.ones(1)
    model = vb.BayesianHiddenMarkovModel(2, vb.components.Poisson(concentration=one, rate=one))
    rates = GammaState(jnp.asarray([[15.0], [600.0]]), jnp.asarray([[10.0], [10.0]]))
    rows = DirichletState(jnp.full((2, 2), 5.0))
    params = vb.Record(initial=EVEN, transitions=rows, components=rates)
    drawn = vb.replicate(model, params, [low, high], key=KEY, n_draws=N_DRAWS)
    assert [x.shape for x in drawn] == [(N_DRAWS, 5, 1), (N_DRAWS, 3, 1)]
    assert np.isnan(drawn[0][:, 3]).all()
    within_errors(drawn[0][:, [0, 1, 2, 4], 0], [1.5, 1.5, 1.5, 60])
    within_errors(drawn[1][:, :, 0], [60, 60, 1.5])
    assert jax.eval_shape(lambda x: vb.replicate(model, params, x, key=KEY, n_draws=3), high).shape == (
        3,
        3,
        1,
    )


def test_replications_of_an_autoregression_follow_the_steps_of_the_data():
    x = np.cumsum(np.random.default_rng(0).normal(size=(30, 1)), 0)
    model = vb.AutoregressiveHMM(1, order=2)
    model, params = begun(model, model.read(x))
    drawn = vb.replicate(model, params, x, key=KEY, n_draws=N_DRAWS)
    assert (drawn[:, :2] == x[:2].astype(drawn.dtype)).all()
    slopes, intercept = model.coefficients(params)[0, :, 0, 0], model.intercepts(params)[0, 0]
    within_errors(drawn[:, 2:, 0], intercept + slopes[0] * x[1:-1, 0] + slopes[1] * x[:-2, 0])


def test_replications_of_regressions_and_factor_models_are_their_predictive(float64):
    """y of a Student-t; 0 and 1 as often as they are probable; rows W z + mu with z given the row."""
    x, y, one = np.array([[-1.0], [0.0], [2.0]]), np.array([0.0, 1.0, 0.0]), jnp.ones(1)
    line = MultivariateNormalGammaState(jnp.asarray([1.0, 2.0]), 9 * jnp.eye(2), 9 * one[0], 9 * one[0])
    model = vb.BayesianLinearRegression(center=0 * one, offset=0 * one[0])
    same, drawn = vb.replicate(model, vb.Record(w=line), (x, y), key=KEY, n_draws=N_DRAWS)
    assert (same == x).all()
    within_errors(drawn, 1 + 2 * x[:, 0])
    within_errors((drawn - 1 - 2 * x[:, 0]) ** 2, 9 / 8 * (1 + (1 + x[:, 0] ** 2) / 9))
    w = MultivariateNormalState(jnp.asarray([1.0, 2.0]), 9 * jnp.eye(2))
    model = vb.BayesianProbitRegression(center=0 * one)
    drawn = vb.replicate(model, vb.Record(w=w), (x, y), key=KEY, n_draws=N_DRAWS)[1]
    assert set(np.unique(drawn)) == {0, 1}
    within_errors(drawn[:, :2], model.probabilities(vb.Record(w=w), x)[:2])
    rows = np.random.default_rng(0).normal(size=(6, 2)) @ [[2.0, 1.0], [0.0, 0.5]]
    rows[0, 0] = np.nan
    model, params = begun(vb.PPCA(1, missing=True), rows)
    drawn = vb.replicate(model, params, rows, key=KEY, n_draws=N_DRAWS)
    np.testing.assert_array_equal(np.isnan(drawn), np.tile(np.isnan(rows), (N_DRAWS, 1, 1)))
    within_errors(drawn[:, 1:], model.reconstruct(params, rows)[1:])


@pytest.mark.parametrize("model", [vb.KMeans(2), vb.LinearGaussianStateSpace(1)])
def test_a_model_that_does_not_draw_its_data_says_so(model):
    with pytest.raises(ValueError, match=r"observed must hold a family.*does not draw its data by itself"):
        vb.replicate(model, {}, CENTRES, key=KEY)


def test_parameters_of_another_model_are_refused():
    params, model = params_of_a_normal(), mean_and_precision().resolve(jnp.asarray(CENTRES[:, 0]))
    bad = [None, {}, "mu", 2.0, params | dict(mu=params.tau), vb.Record(mu=params.mu)]
    bad += [jax.tree.map(lambda x: jnp.stack([x, x]), params), jax.tree.map(lambda x: x * jnp.nan, params)]
    for other in bad:
        with pytest.raises(ValueError, match="params must"):
            vb.replicate(model, other, CENTRES[:, 0], vb.Normal(), key=KEY)


@pytest.mark.parametrize("observed", [None, (vb.Normal(), None), "Normal", vb.Dirichlet(3)])
def test_what_does_not_fit_the_data_is_refused(observed):
    x = jnp.asarray([1.0, 2.0, 4.0])
    model = mean_and_precision().resolve(x)
    with pytest.raises(ValueError, match="observed must"):
        vb.replicate(model, params_of_a_normal(), x, observed, key=KEY)
