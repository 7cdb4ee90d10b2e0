"""Gaussian mixtures by EM, and what both kinds of mixtures must survive.

EM's trajectories, likelihoods, BIC and AIC are scikit-learn's for the four covariance types; ICL adds the
entropy of the labels. The covariance floor binds where it must and keeps EM monotone. The MAP objective is
the log posterior that scipy computes, and no point near the end of a run is better. Old Faithful: published
maximum likelihoods, singular solutions are flagged and lose, variational Bayes keeps two of six components.
The bound of one component is the product of Student-t predictive densities, row after row. float32 finds
what float64 finds wherever the data lie. Degenerate data end in finite parameters or say that they do not.
Draws of new rows have the mixture's moments. Bad input is refused by name. (The laws of variational Bayes
alone are in test_bayesian_mixtures.py.)
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import COVARIANCE_TYPES, MODELS, N_COMPONENTS, N_FEATURES, N_ROWS, covariance, score, sweeps
from scipy import stats
from sklearn import mixture
from tolerances import close

import vbjax as vb
from vbjax.families import DirichletState

K, D = N_COMPONENTS, N_FEATURES
STANDARD_ERRORS = 4

every_kind = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


@functools.partial(jax.jit, static_argnames="kind")
def read_out(model, params, kind):
    """Weights, means and covariances as scikit-learn has them, those of `kind` once each."""
    full = model.covariances(params)
    shaped = {
        "full": lambda: full,
        "tied": lambda: full[0],
        "diag": lambda: jnp.diagonal(full, axis1=1, axis2=2),
        "spherical": lambda: full[:, 0, 0],
    }[kind]()
    return model.weights(params), model.means(params), shaped


# ---------------------------------------------------------------- expectation maximisation


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@every_kind
def test_em_is_scikit_learns(kind, float64):
    data, weights = MODELS[f"EM {kind}"].data(float64)
    model, params = MODELS[f"EM {kind}"].started(data, weights)
    start = jax.tree.map(np.asarray, read_out(model, params, kind))
    precisions = 1 / start[2] if kind in ("diag", "spherical") else np.linalg.inv(start[2])
    reference = mixture.GaussianMixture(
        n_components=K,
        covariance_type=kind,
        weights_init=start[0],
        means_init=start[1],
        precisions_init=precisions,
        reg_covar=0,
        tol=0,
        max_iter=8,
    ).fit(np.asarray(data))
    params, objective, _ = sweeps(model, params, data, weights)
    expected = reference.weights_, reference.means_, reference.covariances_
    assert abs(expected[1] - start[1]).max() > 0.1  # it has moved
    for mine, its in zip(read_out(model, params, kind), expected, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(objective[-1, 0], N_ROWS * reference.lower_bound_, rtol=1e-8)

    x, p = np.asarray(data), reference.predict_proba(np.asarray(data))
    entropy = stats.entropy(p, axis=1).sum()
    its = reference.score(x) * N_ROWS, reference.bic(x), reference.aic(x), reference.bic(x) + 2 * entropy
    mine = [
        criterion(params, data) for criterion in (model.total_log_likelihood, model.bic, model.aic, model.icl)
    ]
    np.testing.assert_allclose(mine, its, rtol=1e-8)
    np.testing.assert_allclose(model.responsibilities(params, data), p, atol=1e-8)
    np.testing.assert_allclose(model.log_predictive(params, data), reference.score_samples(x), rtol=1e-8)


def test_criteria_count_a_row_of_weight_two_twice(float64):
    data, weights = MODELS["EM full"].data(float64)
    model, params = MODELS["EM full"].started(data, weights)
    counts = np.resize([1.0, 2.0, 0.0], N_ROWS)
    rows = data[np.repeat(np.arange(N_ROWS), counts.astype(int))]
    for name in ("total_log_likelihood", "bic", "aic", "icl"):
        criterion = getattr(model, name)
        close(criterion(params, data, counts), criterion(params, rows), factor=10)
    assert model.bic(params, data, counts) != model.bic(params, data)


@every_kind
def test_the_floor_binds_and_keeps_em_monotone(kind, float64):
    """One cluster is a line, and the others' own variances are a tenth of the data's."""
    data, weights = MODELS[f"EM {kind}"].data(float64)
    x = np.array(data)
    x[::3, 1] = 0.5 * x[::3, 0]
    data, floor = jnp.asarray(x), 0.15
    entry = dataclasses.replace(
        MODELS[f"EM {kind}"], model=dataclasses.replace(MODELS[f"EM {kind}"].model, covariance_floor=floor)
    )
    model, params = entry.started(data, weights)
    params, objective, error = sweeps(model, params, data, weights)
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] > objective[0, 0] + 1
    unit = np.sqrt(x.var(0) if kind != "spherical" else np.full(D, x.var(0).mean()))
    values = np.linalg.eigvalsh(np.asarray(model.covariances(params)) / np.outer(unit, unit))
    np.testing.assert_allclose(values.min(), floor, rtol=1e-10)
    assert model.singular(params)
    free = dataclasses.replace(model, covariance_floor=jnp.asarray(1e-6))
    assert not free.singular(params)


def log_posterior(x, weights, means, precisions, prior):
    """By scipy: log likelihood, and the priors of weights, means and precisions."""
    covariances = np.linalg.inv(precisions)
    rows = [
        w * stats.multivariate_normal(m, s).pdf(x)
        for w, m, s in zip(weights, means, covariances, strict=True)
    ]
    total = np.log(np.sum(rows, 0)).sum()
    total += stats.dirichlet(np.full(K, prior["weight_concentration"])).logpdf(weights)
    wishart = stats.wishart(prior["degrees_of_freedom"], np.linalg.inv(prior["inverse_scale"]))
    for m, s, precision in zip(means, covariances, precisions, strict=True):
        total += stats.multivariate_normal(prior["location"], s / prior["mean_precision"]).logpdf(m)
        total += wishart.logpdf(precision)
    return total


def test_map_climbs_the_log_posterior(float64):
    data, weights = MODELS["MAP"].data(float64)
    prior = dict(
        weight_concentration=2.5,
        location=np.array([1.0, 1.0]),
        mean_precision=0.5,
        degrees_of_freedom=4.5,
        inverse_scale=np.array([[2.0, 0.3], [0.3, 1.0]]),
    )
    entry = dataclasses.replace(MODELS["MAP"], model=vb.GaussianMixture(K, **prior))
    model, params = entry.started(data, weights)
    x, point = np.asarray(data), []
    for _ in range(4):  # 8 sweeps each
        value = (params.weights.mean, params.components.mean.location, params.components.mean.precision)
        point = [np.asarray(v) for v in value]
        params, objective, error = sweeps(model, params, data, weights)
        close(objective[0, 0], log_posterior(x, *point, prior), factor=10)
        assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    assert objective[-1, 0] - objective[0, 0] < 1e-6  # arrived

    weights, means, precisions = point
    best, rng = log_posterior(x, *point, prior), np.random.default_rng(0)
    for _ in range(50):
        tilted = weights * np.exp(0.05 * rng.normal(size=K))
        turn = np.eye(D) + 0.05 * rng.normal(size=(K, D, D))
        near = (
            tilted / tilted.sum(),
            means + 0.05 * rng.normal(size=means.shape),
            turn @ precisions @ turn.transpose(0, 2, 1),
        )
        assert log_posterior(x, *near, prior) < best


@pytest.mark.parametrize("name", ["EM full", "EM diag"])
def test_new_rows_have_the_mixtures_moments(name, float64):
    data, weights = MODELS[name].data(float64)
    model, params = MODELS[name].started(data, weights)
    pi, mu, sigma = (np.asarray(f(params)) for f in (model.weights, model.means, model.covariances))
    drawn = np.asarray(model.sample(params, jax.random.key(0), 20_000))
    mean = pi @ mu
    second = np.einsum("k,kij->ij", pi, sigma + np.einsum("ki,kj->kij", mu - mean, mu - mean))
    for value, exact in ((drawn - mean, 0), (np.einsum("ni,nj->nij", drawn - mean, drawn - mean), second)):
        assert (abs(value.mean(0) - exact) < STANDARD_ERRORS * value.std(0) / np.sqrt(len(drawn))).all()


# ---------------------------------------------------------------- Old Faithful


@pytest.fixture
def geyser(float64):
    return vb.datasets.old_faithful()


def test_old_faithful_three_tied_components(geyser):
    """mclust's choice: EEE, 3 components, log likelihood -1126.316, BIC -2314.3 by its sign."""
    fit = vb.fit(vb.GaussianMixture(3, "tied"), geyser, key=jax.random.key(0), n_restarts=16, tol=1e-9)
    np.testing.assert_allclose(fit.objective, -1126.316, atol=5e-4)
    np.testing.assert_allclose(fit.model.bic(fit.params, geyser), 2314.3, atol=0.05)
    assert fit.model.n_parameters == 11


def test_old_faithful_waiting_times(geyser):
    """As mixtools and mclust (model E) find them."""
    x = geyser[:, 1:]
    fit = vb.fit(vb.GaussianMixture(2, "tied"), x, key=jax.random.key(0), n_restarts=4, tol=1e-10)
    order = np.argsort(fit.model.means(fit.params)[:, 0])
    np.testing.assert_allclose(fit.objective, -1034.002, atol=5e-4)
    np.testing.assert_allclose(fit.model.weights(fit.params)[order], [0.3609, 0.6391], atol=1e-4)
    # as far as those programs converge
    np.testing.assert_allclose(fit.model.means(fit.params)[order, 0], [54.615, 80.091], atol=2e-3)
    np.testing.assert_allclose(np.sqrt(fit.model.covariances(fit.params)[:, 0, 0]), 5.869, atol=5e-4)


def test_a_singular_solution_is_flagged_and_loses(geyser):
    """The first run starts on the 14 rows that waited 83 minutes: without the floor, no bound."""
    x = np.asarray(geyser)
    tied = x[x[:, 1] == 83]
    assert len(tied) == 14
    flat = np.cov(tied.T, bias=True) + np.diag([0, 1e-4])
    long = x[:, 0] > 3
    means = [tied.mean(0), x[~long].mean(0), x[long].mean(0)]
    covariances = [flat, np.cov(x[~long].T), np.cov(x[long].T)]
    params = vb.GaussianMixture(3).params_at([14 / 272, 0.36, 1 - 14 / 272 - 0.36], means, covariances)
    fit = vb.fit(
        vb.GaussianMixture(3), geyser, key=jax.random.key(0), params=params, n_restarts=24, max_iter=3000
    )
    runs = fit.runs
    assert runs.singular[0]
    assert runs.objective[0] > fit.objective + 20  # 7 log(1e-6 of the variance) nats above the free rows' fit
    assert not runs.singular.all()
    np.testing.assert_allclose(fit.objective, -1114.44, atol=5e-3)
    assert not fit.model.singular(fit.params)
    np.testing.assert_allclose(fit.objective, runs.objective[~runs.singular].max())
    assert f"{int(runs.singular.sum())} singular and set aside" in fit.verdict()


def test_old_faithful_by_variational_bayes(geyser):
    fit = vb.fit(
        vb.BayesianGaussianMixture(6, weight_concentration=1e-3),
        geyser,
        key=jax.random.key(0),
        n_restarts=16,
        tol=1e-8,
    )
    counts = np.asarray(fit.model.responsibilities(fit.params, geyser)).sum(0)
    assert (counts > 1).sum() == 2
    np.testing.assert_allclose(fit.objective, -1185.82, atol=5e-3)


# ---------------------------------------------------------------- one component


@jax.jit
def updated_once(model, data):
    """The bounds at the prior and after one sweep, and the log predictive density of the rows after it."""
    params = vb.Record(weights=DirichletState(jnp.ones(1)), components=model.component_prior)
    total = vb.expectation(model, params, data)
    moved = model.m_step(params, total.statistics, model.blocks[0])
    bounds = (score(model, at, data) for at in (params, moved))
    return *bounds, model.log_density(moved, data)


def student_t(kind, beta, location, nu, inverse_scale):
    """The predictive density of a row, by scipy (Bishop 2006, eq. 10.81)."""
    factor = (1 + beta) / beta
    if kind in ("full", "tied"):
        dof = nu - D + 1
        return stats.multivariate_t(location, inverse_scale * factor / dof, df=dof).logpdf
    if kind == "spherical":
        return stats.multivariate_t(location, inverse_scale * factor / nu * np.eye(D), df=nu).logpdf
    return lambda x: stats.t(nu, location, np.sqrt(inverse_scale * factor / nu)).logpdf(x).sum()


@every_kind
def test_one_component_is_a_product_of_student_t_predictives(kind, float64):
    """The exact evidence, a row at a time, each predicted from those before it; the bound equals it."""
    data, _ = MODELS[f"VB {kind}"].data(float64)
    one = vb.BayesianGaussianMixture(1, kind).resolve(data)
    beta, location = float(one.mean_precision), np.asarray(one.location)
    nu, inverse_scale = float(one.degrees_of_freedom), np.asarray(one.inverse_scale)
    evidence = 0.0
    for row in np.asarray(data):
        evidence += student_t(kind, beta, location, nu, inverse_scale)(row)
        shift = row - location
        wider = {
            "full": np.outer(shift, shift),
            "tied": np.outer(shift, shift),
            "diag": shift**2,
            "spherical": shift @ shift,
        }[kind]
        inverse_scale = inverse_scale + beta / (1 + beta) * wider
        location = location + shift / (1 + beta)
        beta, nu = beta + 1, nu + (D if kind == "spherical" else 1)
    start, bound, found = updated_once(one, data)
    assert start < evidence - 1
    np.testing.assert_allclose(bound, evidence, rtol=1e-12)
    predicted = [student_t(kind, beta, location, nu, inverse_scale)(row) for row in np.asarray(data)]
    np.testing.assert_allclose(found, predicted, rtol=1e-10)


# ---------------------------------------------------------------- float32


def compare(entry, values):
    """The same rows, start and sweeps in float32 and in float64.

    Returns:
        The errors of the objectives (relative), of the weights, of the means (in the data's standard
        deviations) and of the covariances (relative to the largest); and the data's resolution in that unit.
    """
    found = {}
    start = entry.started(jnp.asarray(values, "float32"), jnp.ones(N_ROWS, "float32"))[1]
    for dtype in ("float32", "float64"):
        data, weights = jnp.asarray(values, dtype), jnp.ones(N_ROWS, dtype)
        model = entry.model.resolve(data, weights)
        there = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), start)
        params, objective, _ = sweeps(model, there, data, weights)
        read = read_out(model, params, model.covariance_type)
        found[dtype] = [np.asarray(value, float) for value in (objective, *read)]
    pairs = list(zip(found["float32"], found["float64"], strict=True))
    sd = values.astype(float).std(0)
    scales = abs(pairs[0][1]), 1, sd, abs(pairs[3][1]).max()
    errors = [abs((a - b) / scale).max() for (a, b), scale in zip(pairs, scales, strict=True)]
    return errors, (np.spacing(abs(values).max(0)) / sd).max()


@pytest.mark.parametrize("name", [*(f"EM {kind}" for kind in COVARIANCE_TYPES), "VB full", "VB diag"])
def test_float32_finds_what_float64_finds_wherever_the_data_lie(name, float64):
    """A location is known to a unit in the last place at best; the objective feels that in second order."""
    entry = MODELS[name]
    plain = np.asarray(entry.data(float64)[0])
    for offset in (0.0, 1e2, 1e4):
        for scale in (1e-3, 1.0, 1e3):
            errors, resolution = compare(entry, ((plain + offset) * scale).astype("float32"))
            known = 1e-4 + resolution
            assert (np.array(errors) < [1e-4, 1e-4, known, known]).all(), (offset, scale, errors, resolution)


# ---------------------------------------------------------------- degenerate data


def degenerate():
    """Tables of the registry's shape, by what is wrong with them; of the last three, each lies on a line."""
    x = np.asarray(MODELS["EM full"].data("float32")[0], float)
    constant, outlier = x.copy(), x.copy()
    constant[:, 1], outlier[7] = 3.3, [1e6, 2.0]
    return {
        "a constant column": constant,
        "one kind of rows": np.full_like(x, 3.3),
        "three kinds of rows": np.resize(x[:3], x.shape),
        "an outlier": outlier,
        "scales 1e-6 and 1e6": x * [1e-6, 1e6],
        "scales 1e6 and 1e-6 far away": (x + 1e3) * [1e6, 1e-6],
        "two kinds of rows": np.resize(x[:2], x.shape),
        "a line": x[:, :1] * [1.0, 2.0],
        "an outlier in all columns": np.where(np.arange(N_ROWS)[:, None] == 7, [1e6, -1e6], x),
    }


ON_A_LINE = ("two kinds of rows", "a line", "an outlier in all columns")


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", ["EM full", "VB full", "VB diag"])
def test_degenerate_data_end_well_or_say_so(name, dtype):
    """Rows on a line defeat a full covariance: there a run may end early, but then its status says so."""
    for what, values in degenerate().items():
        data = jnp.asarray(values, dtype)
        fit = vb.fit(MODELS[name].model, data, key=jax.random.key(0), n_restarts=2, lanes=1, max_iter=200)
        status, objective = np.asarray(fit.runs.status), np.asarray(fit.runs.objective)
        np.testing.assert_array_equal(np.isfinite(objective), status != vb.Status.NON_FINITE, err_msg=what)
        if "full" not in name or what not in ON_A_LINE:
            assert np.isin(status, [vb.Status.CONVERGED, vb.Status.MAX_ITER]).all(), (what, fit)
        if not np.isfinite(objective).any():
            continue
        assert np.isfinite(fit.objective), what
        assert_finite(fit.params)
        weights, means, wide = read_out(fit.model, fit.params, "full")
        assert_finite((weights, means))
        np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)
        np.testing.assert_array_less(0, np.diagonal(wide, axis1=1, axis2=2), err_msg=what)


@every_kind
def test_a_component_of_em_that_loses_its_rows_keeps_its_place(kind, dtype):
    data, weights = MODELS[f"EM {kind}"].data(dtype)
    model, _ = MODELS[f"EM {kind}"].started(data, weights)
    means = jnp.asarray([[0.0, 0.0], [4.0, 1.0], [1e4, 1e4]], dtype)
    wide = covariance(kind, model.scale)
    params = model.params_at(jnp.full(K, 1 / K, dtype), means, wide)
    before = read_out(model, params, kind)
    params, objective, error = sweeps(model, params, data, weights)
    after = read_out(model, params, kind)
    assert_finite((params, after, objective))
    assert after[0][2] == 0
    close(after[1][2], before[1][2])
    if kind != "tied":
        close(after[2][2], before[2][2], factor=10)
    assert (np.diff(objective[:, 0]) >= -error[1:, 0]).all()
    close(after[0].sum(), 1.0)


def test_fewer_rows_than_components_are_legal_for_variational_bayes():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="data must have at least 3 rows; got 2"):
        vb.fit(vb.GaussianMixture(3), np.zeros((2, 2)), key=key)
    fit = vb.fit(vb.BayesianGaussianMixture(3), np.array([[2.0, -1.0]], "float32"), key=key)
    assert fit.status == vb.Status.CONVERGED
    assert_finite((fit.params, fit.objective))
    close(fit.model.means(fit.params), np.tile(np.array([2.0, -1.0], "float32"), (3, 1)))
    close(fit.params.weights.concentration.sum(), 2.0)  # the row, and a prior of one third each


def test_bad_input_is_refused_by_name():
    data, key = np.random.default_rng(0).normal(size=(5, 2)), jax.random.key(0)
    with pytest.raises(
        ValueError, match="covariance_type must be one of full, tied, diag, spherical; got 'round'"
    ):
        vb.fit(vb.GaussianMixture(2, "round"), data, key=key)
    with pytest.raises(ValueError, match="weight_concentration must be at least 1 for MAP"):
        vb.fit(vb.GaussianMixture(2, weight_concentration=0.5), data, key=key)
    with pytest.raises(ValueError, match="n_components"):
        vb.fit(vb.BayesianGaussianMixture(0), data, key=key)
    with pytest.raises(ValueError, match="data must have shape"):
        vb.fit(vb.BayesianGaussianMixture(2), data[:, 0], key=key)
    with pytest.raises(ValueError, match="has not seen data"):
        _ = vb.GaussianMixture(2).structure
    data = jnp.asarray(data, "float32")
    model = vb.GaussianMixture(2).resolve(data)
    params = model.params_at(jnp.full(2, 0.5), data[:2], jnp.stack([jnp.eye(2)] * 2))
    with pytest.raises(ValueError, match="data must have the fit's 2 columns"):
        model.predict(params, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="params must have shapes"):
        vb.fit(vb.GaussianMixture(3), data, key=key, params=params)
