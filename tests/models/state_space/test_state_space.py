"""Laws of linear-Gaussian state spaces by EM and by variational Bayes.

The likelihood is the Kalman filter's, entries missing or not, of several sequences their sum; a weight of w
is a sequence w times. A step of EM is Bishop's formulas with moments of the dense normal; one of variational
Bayes is Beal's. No update lowers the objective, whose gradient are the statistics of the E-step. The bound is
the evidence where q is exact, and heavy sequences make variational Bayes EM. Shift and scale of the data are
those of the answer. Planted eigenvalues are found, and draws and forecasts are those of the matrices.
Sequences of one step, of two and of ten thousand keep their digits. Bad input raises.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vbjax as vb
from tests.support.registry import sweeps
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax.chains import gaussian as gaussian_chains
from vbjax.models.state_space.state_space_model import Start

KEY = jax.random.key(0)
D, P, STEPS = 2, 3, (12, 11, 12)

EM, FULL = vb.LinearGaussianStateSpace(D), vb.LinearGaussianStateSpace(D, "full")
BAYES = vb.BayesianLinearGaussianStateSpace(D)
every_model = pytest.mark.parametrize("model", [EM, FULL, BAYES], ids=["EM", "EM full", "VB"])


def planted(steps, seed, angle=0.4):
    """A rotation that is seen through noise."""
    rng = np.random.default_rng(seed)
    turn = 0.95 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    c = np.array([[1.0, 0.3], [-0.5, 1.0], [0.7, 0.7]])
    x, rows = 2 * rng.normal(size=D), []
    for _ in range(steps):
        rows.append(c @ x + 0.6 * rng.normal(size=P) + [3.0, 0.0, -1.0])
        x = turn @ x + rng.normal(size=D)
    return np.array(rows)


def sequences(dtype="float64", holes=True):
    """Three; steps are missing, and where there are holes entries too."""
    data = [planted(steps, seed).astype(dtype) for seed, steps in enumerate(STEPS)]
    data[1][4] = np.nan
    if holes:
        data[0][3, 1], data[2][0, :2] = np.nan, np.nan
    return data


def given(model, dtype="float64", holes=True):
    return sequences(dtype, holes=holes and model.covariance_type != "full")


@jax.jit
def begun(model, data, weights):
    model = model.resolve(data, weights)
    return model, model.init(KEY, data, weights)


sweep = jax.jit(functools.partial(sweeps, n_sweeps=1))
ONES = np.ones(len(STEPS))


def ascended(model, data, weights=None, n_sweeps=3):
    """Model and parameters some sweeps on, data as the sweeps take them, the trace and its error."""
    data = model.read(data)
    weights = jnp.asarray(np.ones(len(data)) if weights is None else weights, data.parts[0].values.dtype)
    model, params = begun(model, data, weights)
    trace = []
    for _ in range(n_sweeps):
        params, *scores = sweep(model, params, data, weights)
        trace.append([np.asarray(x).item() for x in scores])
    return model, data, params, *np.transpose(trace)


# ---------------------------------------------------------------- likelihood and E-step


@every_model
def test_the_likelihood_is_the_filter_s(float64, model):
    data = given(model)
    model, read, params, _, _ = ascended(model, data)
    filtered = [
        gaussian_chains.kalman_filter(x - np.asarray(model.center), *model.matrices(params)) for x in data
    ]
    known = np.array([found.log_likelihoods.sum() for found in filtered])
    found = model.log_predictive(params, read)
    close(found, known, factor=10, scale=100)
    if isinstance(model, vb.LinearGaussianStateSpace):
        close(sweep(model, params, read, ONES)[1].sum(), known.sum(), factor=10, scale=100)
        smoothed = model.smoothed(params, read)
        for own, last in zip(smoothed, filtered, strict=True):
            close((own.means[-1], own.covariances[-1]), (last.means[-1], last.covariances[-1]), factor=100)
    for own, last in zip(model.filtered(params, data), filtered, strict=True):
        close((own.means, own.covariances), (last.means, last.covariances))


def moments(y, matrices):
    """E[x_t], Cov(x_t, x_s) of one sequence, by conditioning the dense normal, (t, d) and (t, t, d, d)."""
    m0, v0, a, q, c, r = (np.asarray(x, float) for x in matrices)
    steps, d = len(y), len(m0)
    means, states, variance = [m0], np.zeros((steps, steps, d, d)), v0
    for t in range(steps):
        block = variance
        for s in range(t, steps):
            states[s, t], states[t, s] = block, block.T
            block = a @ block
        means.append(a @ means[-1])
        variance = a @ variance @ a.T + q
    prior, mean = states.swapaxes(1, 2).reshape(steps * d, -1), np.concatenate(means[:steps])
    seen = np.flatnonzero(~np.isnan(y.ravel()))
    whole, noise = np.kron(np.eye(steps), c)[seen], np.kron(np.eye(steps), r)[np.ix_(seen, seen)]
    gain = np.linalg.solve(whole @ prior @ whole.T + noise, whole @ prior).T
    covariance = prior - gain @ whole @ prior
    mean = mean + gain @ (y.ravel()[seen] - whole @ mean)
    return mean.reshape(steps, d), covariance.reshape(steps, d, steps, d).swapaxes(1, 2)


def seconds(y, matrices):
    """E[x_t x_s'] and E[x_t]."""
    mean, covariance = moments(y, matrices)
    return covariance + np.einsum("ti,sj->tsij", mean, mean), mean


@pytest.mark.parametrize("model", [EM, FULL], ids=["diag", "full"])
def test_a_step_of_em_is_the_textbook_s(float64, model):
    data = given(model)
    model, read, params, _, _ = ascended(model, data)
    moved = model.matrices(sweep(model, params, read, ONES)[0])
    center, before = np.asarray(model.center), model.matrices(params)
    each = [(x - center, *seconds(x - center, before)) for x in data]
    firsts = np.array([mean[0] for _, _, mean in each])
    m0 = firsts.mean(0)  # eq. 13.110, 13.111 of several sequences
    v0 = np.mean([second[0, 0] for _, second, _ in each], 0) - np.outer(m0, m0)
    pairs = [(s[t, t], s[t, t - 1], s[t - 1, t - 1]) for y, s, _ in each for t in range(1, len(y))]
    own, cross, before = (sum(x) for x in zip(*pairs, strict=True))
    a = cross @ np.linalg.inv(before)  # eq. 13.113
    q = (own - a @ cross.T - cross @ a.T + a @ before @ a.T) / len(pairs)  # eq. 13.114
    close((moved[0], moved[1], moved[2], moved[3]), (m0, v0, a, q), factor=1e4)
    c, r = np.zeros((P, D)), np.zeros((P, P))
    groups = [[0, 1, 2]] if model.covariance_type == "full" else [[0], [1], [2]]
    for group in groups:
        rows = [(y[t, group], m[t], s[t, t]) for y, s, m in each for t in range(len(y))]
        rows = [row for row in rows if not np.isnan(row[0]).any()]
        gram, cross = sum(s for _, _, s in rows), sum(np.outer(y, m) for y, m, _ in rows)
        c[group] = cross @ np.linalg.inv(gram)  # eq. 13.115
        square = sum(np.outer(y, y) for y, _, _ in rows) - c[group] @ cross.T - cross @ c[group].T
        r[np.ix_(group, group)] = (square + c[group] @ gram @ c[group].T) / len(rows)  # eq. 13.116
    close((moved[4], moved[5]), (c, r), factor=1e4)


# ---------------------------------------------------------------- updates


@every_model
def test_the_gradient_of_the_bound_are_the_statistics(float64, model):
    """Fisher's identity: with q(x) optimised away, the bound's gradient is that of the expected log joint."""
    model, data, params, _, _ = ascended(model, given(model))
    s, rows = model.prepare(params), data.parts[0]
    through = jax.jit(jax.grad(lambda s: model.scored_sequences(s, rows)[0].sum()))(s)
    fixed = jax.jit(lambda s: model.e_step(s, rows, jnp.ones(len(STEPS))))(s).statistics
    for name in fixed:
        for field, known in fixed[name].natural.items():
            found = through[name].natural[field]
            if field in ("precision", "square", "second") and found.ndim > 1:  # of symmetric matrices
                found = 0.5 * (found + jnp.swapaxes(found, -1, -2))
            close(found, known, factor=1e3)


def test_a_sweep_of_variational_bayes_is_beal_s(float64):
    model, read, params, _, _ = ascended(BAYES, sequences())
    data = [x - np.asarray(model.center) for x in sequences()]
    s = jax.tree.map(np.asarray, model.expected(params))
    a, of_a = s.transitions.pivot, s.transitions.second.sum(0)
    c, tau, of_c = s.emissions.pivot, s.emissions.precision, s.emissions.square
    gram, cross = np.zeros((D, D)), np.zeros((D, D))
    products = [[np.zeros((D, D)), np.zeros(D), 0.0, 0] for _ in range(P)]
    for y in data:
        steps = len(y)
        precision = np.zeros((steps, D, steps, D))
        pull = np.zeros((steps, D))
        precision[0, :, 0] += np.asarray(model.initial_precision)
        for t in range(steps):
            for j in np.flatnonzero(~np.isnan(y[t])):
                precision[t, :, t] += of_c[j] + tau[j] * np.outer(c[j], c[j])
                pull[t] += tau[j] * c[j] * y[t, j]
            if t:
                precision[t, :, t] += np.eye(D)
                precision[t - 1, :, t - 1] += a.T @ a + of_a
                precision[t, :, t - 1], precision[t - 1, :, t] = -a, -a.T
        covariance = np.linalg.inv(precision.reshape(steps * D, -1))
        mean = (covariance @ pull.ravel()).reshape(steps, D)
        second = covariance.reshape(steps, D, steps, D).swapaxes(1, 2) + np.einsum("ti,sj->tsij", mean, mean)
        for t in range(steps):
            if t:
                gram, cross = gram + second[t - 1, t - 1], cross + second[t - 1, t]
            for j in np.flatnonzero(~np.isnan(y[t])):
                own = products[j]
                own[:] = own[0] + second[t, t], own[1] + y[t, j] * mean[t], own[2] + y[t, j] ** 2, own[3] + 1
    moved = sweep(model, params, read, ONES)[0]
    precision = gram + np.eye(D)
    close(moved.transitions.precision, np.stack([precision] * D), factor=1e3)
    close(moved.transitions.mean, np.linalg.solve(precision, cross).T, factor=1e3)
    for j, (gram, cross, square, number) in enumerate(products):
        spread = gram + 1e-3 * np.eye(D)
        row = np.linalg.solve(spread, cross)
        rate = 1e-3 * np.asarray(model.scale)[j] + 0.5 * (square - row @ spread @ row)
        known = row, spread, 1e-3 + number / 2, rate
        own = moved.emissions
        found = own.location[j], own.mean_precision[j], own.concentration[j], own.rate[j]
        close(found, tuple(map(np.asarray, known)), factor=1e4)


# ---------------------------------------------------------------- the bound and its limits


def test_the_bound_is_the_evidence_where_q_is_exact(float64):
    """One latent that is 0 for certain leaves noise of unknown precision: the evidence is Student-t."""
    y = np.random.default_rng(0).normal(size=(9, 1))
    model = vb.BayesianLinearGaussianStateSpace(
        1,
        center=jnp.zeros(1),
        initial_precision=1e12 * jnp.eye(1),
        transition_precision=1e12,
        mean_precision=1e12,
        concentration=2.0,
        rate=jnp.full(1, 3.0),
    )
    objective = ascended(model, y, n_sweeps=4)[3][-1]
    evidence = stats.multivariate_t(shape=np.eye(9) * 3 / 2, df=4).logpdf(y[:, 0])
    np.testing.assert_allclose(objective, evidence, atol=1e-5)


def test_heavy_sequences_make_variational_bayes_em(float64):
    """A sweep moves A, C and R to where EM's does, but for a term in the inverse of the weight."""

    def apart(weight):
        model, read, params, _, _ = ascended(BAYES, sequences(), weight * ONES)
        _, v0, a, _, c, r = model.matrices(params)
        em = begun(EM, read, None)[0]
        start = em.states(Start(v0, a, c, jnp.diagonal(r), jnp.ones(())))
        both = (model, params, weight * ONES), (em, start, ONES)
        moved = [of.matrices(sweep(of, at, read, own)[0]) for of, at, own in both]
        return [np.abs(x - y).max() for x, y in zip(*(x[2:3] + x[4:] for x in moved), strict=True)]

    heavy, heavier = np.array(apart(1e3)), np.array(apart(1e5))
    assert (heavier < 1e-4).all()
    assert (heavier < 0.02 * heavy).all()


@every_model
def test_shift_and_scale_of_the_data_are_those_of_the_answer(float64, model):
    data, unit = given(model), np.array([4.0, 0.25, 8.0])
    model1, _, params1, objective1, _ = ascended(model, data)
    model2, _, params2, objective2, _ = ascended(model, [unit * x + 32.0 for x in data])
    seen = sum((~np.isnan(x)).sum(0) for x in data)
    close(objective2, objective1 - seen @ np.log(unit), factor=1e3)
    first, second = model1.matrices(params1), model2.matrices(params2)
    close(second.transition_matrix, first.transition_matrix, factor=1e3)
    close(second.emission_matrix, unit[:, None] * first.emission_matrix, factor=1e3)
    close(second.emission_covariance, unit[:, None] * unit * first.emission_covariance, factor=1e3)


@pytest.mark.parametrize("model", [EM, FULL], ids=["diag", "full"])
def test_the_noise_keeps_away_from_0(float64, model):
    model = dataclasses.replace(model, noise_floor=0.3)
    model, _, params, objective, error = ascended(model, given(model, holes=False), n_sweeps=40)
    unit = np.sqrt(model.scale)
    values = np.linalg.eigvalsh(model.matrices(params).emission_covariance / (unit[:, None] * unit))
    assert (values >= 0.3 * (1 - 1e-9)).all()
    assert model.singular(params)
    assert (np.diff(objective) >= -error[1:]).all()


# ---------------------------------------------------------------- fits and their use


def test_a_fit_finds_the_planted_rotation():
    data = [planted(150, seed).astype("float32") for seed in (10, 11)]
    how = dict(key=KEY, n_restarts=3, lanes=3, max_iter=400)
    fit = vb.fit(BAYES, data, check=True, **how)
    assert fit.status == vb.Status.CONVERGED
    values = np.sort_complex(np.linalg.eigvals(fit.model.matrices(fit.params).transition_matrix))
    known = 0.95 * np.exp(0.4j * np.array([-1, 1]))
    assert np.abs(np.sort(np.abs(values)) - 0.95).max() < 0.04
    assert np.abs(np.sort(np.angle(values)) - np.angle(known)).max() < 0.05
    states, steps = fit.model.sample(fit.params, KEY, 4000)
    of = fit.model.matrices(fit.params)
    error = np.asarray(states[1:] - states[:-1] @ of.transition_matrix.T)
    close_to(np.cov(error.T), of.transition_covariance, len(error))
    noise = np.asarray(steps - fit.model.center - states @ of.emission_matrix.T)
    close_to(np.cov(noise.T), of.emission_covariance, len(noise))


def close_to(estimate, covariance, n):
    size = np.diagonal(covariance)
    error = np.sqrt((np.square(covariance) + size[:, None] * size) / n)
    assert (np.abs(estimate - covariance) <= STANDARD_ERRORS * error).all()


def test_a_forecast_is_the_filter_over_missing_steps(float64):
    model, read, params, _, _ = ascended(EM, sequences())
    found, of = model.forecast_moments(params, read, 4), model.matrices(params)
    assert found.means.shape == (3, 4, P)
    both = lambda *x: (model.forecast_moments(params, [*x], 4), model.filtered(params, [*x]))
    traced = jax.jit(both)(*sequences())
    close(traced[0], found)
    for own, outside in zip(traced[1], model.filtered(params, read), strict=True):
        close(tuple(own), tuple(outside))
    for i, x in enumerate(sequences()):
        longer = np.concatenate([x - model.center, np.full((4, P), np.nan)])
        ahead = gaussian_chains.kalman_filter(longer, *of)
        close(found.means[i], model.center + ahead.predicted_means[-4:] @ of.emission_matrix.T, factor=10)
        known = of.emission_matrix @ ahead.predicted_covariances[-4:] @ of.emission_matrix.T
        close(found.covariances[i], known + of.emission_covariance, factor=10)
    draws = np.asarray(model.forecast(params, KEY, read, 4, n_draws=4000))
    assert draws.shape == (4000, 3, 4, P)
    error = np.sqrt(np.diagonal(found.covariances, axis1=-2, axis2=-1) / len(draws))
    assert (np.abs(draws.mean(0) - found.means) <= STANDARD_ERRORS * error).all()
    for i, t in np.ndindex(3, 4):
        close_to(np.cov(draws[:, i, t].T), np.asarray(found.covariances[i, t]), len(draws))


def test_one_step_two_steps_and_numbers(float64):
    x = [y[:n, 0] for y, n in zip(sequences(), (1, 2, 2), strict=True)]
    model, _, params, objective, error = ascended(EM, x, n_sweeps=5)
    assert (np.diff(objective) >= -error[1:]).all()
    of = model.matrices(params)
    known = [gaussian_chains.kalman_filter(y[:, None] - model.center, *of).log_likelihoods.sum() for y in x]
    close(model.log_predictive(params, x), np.array(known), factor=100)


def test_long_sequences_keep_float32_s_digits(float64):
    y, one = planted(10_000, 5), np.ones(1)
    model, read, params, _, _ = ascended(EM, y)
    low = jax.tree.map(lambda x: jnp.asarray(x, "float32"), (model, params))
    known, exact, _ = sweep(model, params, read, one)
    found, objective, _ = sweep(*low, model.read(y.astype("float32")), one.astype("float32"))
    np.testing.assert_allclose(objective, exact, rtol=3e-6)
    for x, known_x in zip(low[0].matrices(found), model.matrices(known), strict=True):
        assert x.dtype == "float32"
        np.testing.assert_allclose(x, known_x, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (EM, np.full((5, 2), np.nan), "data must have an entry in every column; column 0 has none"),
        (EM, [np.zeros((5, 2, 2))], "data must be sequences of vectors"),
        (EM, [(np.zeros(5), np.zeros(5))], "data must be sequences of vectors"),
        (
            FULL,
            np.array([[0.0, np.nan], [1.0, 2.0]]),
            "steps that are whole, or wholly missing",
        ),
        (vb.LinearGaussianStateSpace(0), np.zeros((5, 2)), "n_latent must be a whole number"),
        (
            vb.LinearGaussianStateSpace(1, "tied"),
            np.zeros((5, 2)),
            "covariance_type must be one of 'diag', 'full'",
        ),
    ],
)
def test_wrong_data_and_models_are_refused(model, data, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=KEY)


def test_data_of_another_width_are_refused():
    model = begun(EM, EM.read(np.ones((5, 2), "float32")), None)[0]
    with pytest.raises(ValueError, match="data must have 2 columns, as the model's center has"):
        model.read(np.ones((5, 3), "float32"))
    with pytest.raises(ValueError, match="has not seen data yet"):
        _ = EM.n_features
