"""The driver: a result describes one run, a status tells the truth, an error names the argument.

The number of lanes changes no run. The objective scores the parameters and ends the trace; all three are the
winner's. A run that is not finite never wins, a singular or fallen one never over a proper one.
Statuses: converged, max_iter, not finite, decreased, interrupted. A fit is a pytree; inside jit, and inside
vmap over data, keys, weights and hyperparameters, it is the fit that a loop makes. New numbers compile
nothing. A progress bar changes nothing. The words of `verdict` are those of the table.
"""

import contextlib
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import mean_and_precision, without_data
from tolerances import close

import vbjax as vb
import vbjax.core.fit as driver
from vbjax import Status
from vbjax.core.algorithm import rounding_error
from vbjax.families import DeltaState, NormalState
from vbjax.families.base import pytree

N_ROWS = 40
MODELS = {
    "unit variance": vb.UnitVarianceMixture(2),
    "k-means": vb.KMeans(2),
    "EM": vb.GaussianMixture(2),
}
HOW = dict(n_restarts=5, lanes=2, max_iter=100)
STEADY = 1e-4  # a tolerance far above a rounding: another order of summation ends no run a sweep later


def key(seed=0):
    return jax.random.key(seed)


def rows(name="EM", seed=0):
    """Two overlapping clouds, (n, 2) or (n,)."""
    x = np.random.default_rng(seed).normal(size=(N_ROWS, 2)) + 2.5 * (np.arange(N_ROWS) % 2)[:, None]
    return jnp.asarray(x if name in ("EM", "k-means") else x[:, 0], "float32")


@functools.cache
def fitted(name):
    return vb.fit(MODELS[name], rows(name), key=key(), **HOW)


every_model = pytest.mark.parametrize("name", MODELS)


def same(actual, desired, **how):
    close(tuple(jax.tree.leaves(actual)), tuple(jax.tree.leaves(desired)), **how)


# ---------------------------------------------------------------- one run


@jax.jit
def scored(model, params, data, weights=None):
    """The objective of given parameters, and its rounding error."""
    total = vb.expectation(model, params, data, weights)
    return model.objective(params, total), rounding_error(model.scored(params, total)[1])


@every_model
def test_a_fit_describes_one_run(name):
    fit = fitted(name)
    objective, error = scored(fit.model, fit.params, rows(name))
    assert abs(objective - fit.objective) <= error
    winner = int(np.argmax(fit.runs.objective))
    assert fit.objective == fit.runs.objective[winner] == fit.trace[-1]
    assert fit.n_iter == fit.runs.n_iter[winner] == len(fit.trace)
    assert fit.status == Status(int(fit.runs.status[winner])) == Status.CONVERGED
    assert (np.diff(fit.trace) >= -error).all()
    assert fit.trace[-1] > fit.trace[0] + 10 * error
    assert np.isnan(fit.full_trace[int(fit.n_iter) :]).all()
    assert fit.full_trace.shape == (HOW["max_iter"],)


def test_lanes_change_no_run():
    model, data = MODELS["unit variance"], rows("unit variance")
    how = dict(key=key(), tol=STEADY, n_restarts=5, max_iter=100)
    one, two, four = (vb.fit(model, data, lanes=lanes, **how) for lanes in (1, 2, 4))
    assert len(set(np.asarray(one.runs.n_iter))) > 1  # lanes are refilled at different times
    second, first = np.sort(one.runs.objective)[-2:]
    assert first - second > 2 * scored(one.model, one.params, data)[1]  # no tie, so one winner
    for other in (two, four):
        same((other.runs, other.full_trace), (one.runs, one.full_trace))
        same(other.params, one.params, factor=30)  # sweeps multiply a rounding by the rate at which they move


def unfinished(seed):
    return vb.fit(MODELS["unit variance"], rows("unit variance"), key=key(seed), **HOW | dict(max_iter=2))


def test_starts_differ_between_restarts_and_keys():
    objectives = np.concatenate([unfinished(seed).runs.objective for seed in (0, 1)])
    assert len(set(objectives.tolist())) == 2 * HOW["n_restarts"]


# ---------------------------------------------------------------- runs whose fate is known beforehand

PROPER, SINGULAR, FALLEN, NAN, INFINITE = range(5)  # the worse, the higher they climb


@pytree
class Slopes(vb.ConjugateModel):
    """Runs that climb to a height of their own, in a number of sweeps of their own, and end as was drawn."""

    share: Any  # of every fate

    def read(self, data):
        return data

    def singular(self, params):
        return params.fate == SINGULAR

    def init(self, key, data, weights=None):
        fates, lengths, heights = jax.random.split(key, 3)
        return vb.Record(
            fate=jax.random.categorical(fates, jnp.log(self.share)),
            height=jax.random.normal(heights),
            last=jax.random.randint(lengths, (), 1, 9),
            sweep=jnp.zeros((), jnp.int32),
        )


class Slope(NamedTuple):
    params: Any


def height(params, sweep):
    value = params.height + 100 * params.fate.astype(jnp.float32) - jnp.exp2(-sweep.astype(jnp.float32))
    end = jnp.where(params.fate == NAN, jnp.nan, jnp.where(params.fate == INFINITE, jnp.inf, value))
    return jnp.where(sweep == params.last, end, value)


@pytree
class Climb:
    """An algorithm for `Slopes`; `params` is the state itself."""

    model: Any

    def init(self, key, data, weights):
        return self.start(self.model.init(key, data, weights))

    def start(self, params):
        return Slope(params)

    def params(self, state):
        return state.params

    def step(self, state, data, weights):
        params = state.params
        value = height(params, params.sweep)
        end = jnp.where(params.fate == FALLEN, Status.DECREASED, Status.CONVERGED)
        status = jnp.where(params.sweep == params.last, end, Status.UNFINISHED)
        status = jnp.where(jnp.isfinite(value), status, Status.NON_FINITE)
        moved = Slope(params | dict(sweep=params.sweep + 1))
        return moved, vb.Info(value, jnp.zeros_like(value), status)


def climb(shares, **how):
    return vb.fit(Climb(Slopes(jnp.asarray(shares, jnp.float32))), key=key(), **how)


@functools.cache
def fates(shares, n):
    """What was drawn for every run, and the objectives they end with."""
    model = Slopes(jnp.asarray(shares, jnp.float32))
    drawn = jax.vmap(lambda k: model.init(k, None))(jax.random.split(key(), n))
    return drawn, jax.vmap(height)(drawn, drawn.last)


@pytest.mark.parametrize(
    ("shares", "winning"),
    [
        ((0.4, 0.2, 0.1, 0.1, 0.2), [PROPER]),
        ((0.0, 0.4, 0.0, 0.3, 0.3), [SINGULAR]),
        ((0.0, 0.2, 0.2, 0.3, 0.3), [SINGULAR, FALLEN]),
        ((0.6, 0.0, 0.4, 0.0, 0.0), [PROPER]),
    ],
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_the_best_proper_run_wins_whatever_ends_beside_it(shares, winning, lanes):
    n = 16
    drawn, ends = fates(shares, n)
    eligible = np.isin(drawn.fate, winning)
    assert set(winning) <= set(np.asarray(drawn.fate).tolist())
    winner = int(np.argmax(np.where(eligible, ends, -np.inf)))
    fit = climb(shares, n_restarts=n, lanes=lanes, max_iter=10)
    np.testing.assert_array_equal(fit.runs.objective, ends)
    np.testing.assert_array_equal(fit.runs.n_iter, drawn.last + 1)
    np.testing.assert_array_equal(fit.runs.singular, drawn.fate == SINGULAR)
    np.testing.assert_array_equal(fit.runs.status == Status.NON_FINITE, drawn.fate >= NAN)
    same(fit.params | dict(sweep=0), jax.tree.map(lambda leaf: leaf[winner], drawn) | dict(sweep=0))
    assert fit.params.sweep == fit.params.last == fit.n_iter - 1
    assert fit.objective == ends[winner]
    params = jax.tree.map(lambda leaf: leaf[winner], drawn)
    np.testing.assert_array_equal(fit.trace, jax.vmap(height, (None, 0))(params, jnp.arange(params.last + 1)))
    assert fit.status == (Status.DECREASED if fit.params.fate == FALLEN else Status.CONVERGED)


@pytest.mark.parametrize("lanes", [1, 3])
def test_where_no_run_is_finite_the_status_says_so(lanes):
    fit = climb((0.0, 0.0, 0.0, 0.5, 0.5), n_restarts=4, lanes=lanes, max_iter=10)
    assert fit.status == Status.NON_FINITE
    assert not np.isfinite(fit.objective)
    assert (fit.runs.status == Status.NON_FINITE).all()
    assert fit.status.sentence == "stopped: the objective is not finite"


def test_a_singular_winner_beside_runs_that_are_not_finite_is_not_to_be_trusted():
    fit = climb((0.0, 0.4, 0.0, 0.3, 0.3), n_restarts=16, lanes=3, max_iter=10)
    assert fit.params.fate == SINGULAR
    assert "do not trust" in fit.verdict()


# ---------------------------------------------------------------- statuses


@pytree
class Faulty(vb.UnitVarianceMixture):
    """Starts at NaN, or whose update adds to the means what is not theirs."""

    start: Any = 0.0
    drift: Any = 0.0

    def resolve(self, data, weights=None):
        resolved = super().resolve(data, weights)
        return dataclasses.replace(self, mu0=resolved.mu0, prior_variance=resolved.prior_variance)

    def init(self, key, data, weights=None):
        params = super().init(key, data, weights)
        return params | dict(mu=dataclasses.replace(params.mu, mean=params.mu.mean + self.start))

    def m_step(self, params, statistics, block):
        moved = super().m_step(params, statistics, block)
        away = params.mu.mean + self.drift
        return moved | dict(
            mu=dataclasses.replace(moved.mu, mean=jnp.where(self.drift == 0, moved.mu.mean, away))
        )


def test_max_iter():
    fit = unfinished(0)
    assert fit.status == Status.MAX_ITER
    assert fit.n_iter == 2 == len(fit.trace)
    assert "before it converged" in fit.verdict()
    objective, error = scored(fit.model, fit.params, rows("unit variance"))
    assert abs(objective - fit.objective) <= error


def test_not_finite_and_decreased():
    data = rows("unit variance")
    how = dict(key=key(), max_iter=100, lanes=1, n_restarts=1)
    # one program: the numbers are leaves
    healthy = vb.fit(Faulty(2), data, **how)
    assert healthy.status == Status.CONVERGED
    lost = vb.fit(Faulty(2, start=np.nan), data, **how)
    assert lost.status == Status.NON_FINITE
    assert lost.n_iter == 1
    wrong = vb.fit(Faulty(2, drift=1.0), data, **how)
    assert wrong.status == Status.DECREASED
    assert wrong.trace[-1] < wrong.trace[-2]
    assert "fell" in wrong.verdict()
    objective, error = scored(wrong.model, wrong.params, data)
    assert abs(objective - wrong.objective) <= error


def interrupt(monkeypatch, at):
    """Ctrl-C in the call number `at` of the compiled loop."""
    calls, advance = [], driver._advance

    def interrupted(*args):
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return advance(*args)

    monkeypatch.setattr(driver, "_advance", interrupted)


def test_an_interrupted_run_is_scored_where_it_stood(monkeypatch):
    interrupt(monkeypatch, at=2)
    fit = vb.fit(MODELS["EM"], rows(), key=key(), tol=0.0, **HOW | dict(n_restarts=1))
    assert fit.status == Status.INTERRUPTED
    assert fit.n_iter == 17 == len(fit.trace)  # sixteen sweeps of the first slice, and the one that scores
    objective, error = scored(fit.model, fit.params, rows())
    assert abs(objective - fit.objective) <= error
    assert "interrupted" in fit.verdict()


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("at", [1, 2])
def test_interrupted_the_best_of_the_runs_so_far_wins(monkeypatch, lanes, at):
    shares, n = (1.0, 0.0, 0.0, 0.0, 0.0), 16
    _, ends = fates(shares, n)
    interrupt(monkeypatch, at)
    fit = climb(shares, n_restarts=n, lanes=lanes, max_iter=10)
    status, objective = np.asarray(fit.runs.status), np.asarray(fit.runs.objective)
    ended = status == Status.CONVERGED
    np.testing.assert_array_equal(objective[ended], ends[ended])
    assert ended.any() == (at == 2)
    assert 1 <= (status == Status.INTERRUPTED).sum() <= lanes
    assert (status == Status.UNFINISHED).any()
    assert np.isnan(objective[status == Status.UNFINISHED]).all()
    assert fit.objective == np.nanmax(objective)
    assert fit.objective == height(fit.params, fit.params.sweep) == fit.trace[-1]


# ---------------------------------------------------------------- a pytree, inside jit and vmap


def test_a_fit_is_a_pytree():
    fit = fitted("EM")
    copy = jax.tree.map(lambda leaf: leaf, fit)
    assert isinstance(copy, vb.Fit)
    same(copy, fit)
    assert copy.verdict() == fit.verdict()
    through = jax.jit(lambda f: f)(fit)
    same(through, fit)
    assert through.status is fit.status


def at(x, seed, variance, weights):
    """A fit as a function of everything that may be mapped."""
    model = vb.UnitVarianceMixture(2, prior_variance=variance)
    return vb.fit(model, x, key=jax.random.key(seed), weights=weights, tol=STEADY, **HOW)


MAPPED = {
    "data": (0, None, None, None),
    "keys": (None, 0, None, None),
    "hyperparameters and weights": (None, None, 0, 0),
}


@functools.cache
def arguments():
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, size=(2, N_ROWS)), "float32")
    data = jnp.stack([rows("unit variance", seed=seed) for seed in range(2)])
    return data, jnp.arange(2), jnp.asarray([0.5, 20.0]), weights


@pytest.mark.parametrize("mapped", MAPPED)
def test_inside_vmap_it_is_the_fit_of_a_loop(mapped):
    axes = MAPPED[mapped]

    def chosen(number):
        return [x[number if axis == 0 else 0] for x, axis in zip(arguments(), axes, strict=True)]

    args = [x if axis == 0 else x[0] for x, axis in zip(arguments(), axes, strict=True)]
    batch = jax.vmap(at, in_axes=axes)(*args)
    loop = [at(*chosen(number)) for number in range(2)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop)
    same((batch.objective, batch.runs, batch.model), (stacked.objective, stacked.runs, stacked.model))
    for number in range(2):  # starts may lead to equally good ends, of which another may win
        won = jax.tree.map(lambda leaf: leaf[number], batch)  # noqa: B023
        data, _, _, weights = chosen(number)
        objective, error = scored(won.model, won.params, data, weights)
        assert abs(objective - won.objective) <= error
        assert won.objective == won.runs.objective.max() == won.trace[-1]
        assert len(won.trace) == won.n_iter
        assert won.status == Status.CONVERGED
    assert not np.array_equal(loop[0].runs.objective, loop[1].runs.objective)
    assert batch.status.shape == batch.n_iter.shape == (2,)
    assert batch.trace.shape == (2, HOW["max_iter"])
    assert "Fit(UnitVarianceMixture" in repr(batch)


def test_inside_jit_it_is_the_same_fit_and_bad_numbers_are_a_status():
    data, model = rows("unit variance"), MODELS["unit variance"]
    inside = jax.jit(lambda x: vb.fit(model, x, key=key(), **HOW))
    same(inside(data), fitted("unit variance"))
    assert inside(data.at[3].set(jnp.nan)).status == Status.NON_FINITE


# ---------------------------------------------------------------- starts, programs, progress


def tied_rows():
    """The rows, of which six are the same point."""
    return rows().at[:12:2].set(jnp.asarray([0.3, -0.2]))


@functools.cache
def from_collapse(n_restarts):
    """EM whose first run begins with a component collapsed on the tied rows."""
    tiny = 1e-9 * jnp.eye(2)
    means = jnp.stack([tied_rows()[0], tied_rows().mean(0)])
    start = MODELS["EM"].params_at([0.15, 0.85], means, jnp.stack([tiny, jnp.eye(2)]))
    return vb.fit(MODELS["EM"], tied_rows(), key=key(), params=start, **HOW | dict(n_restarts=n_restarts))


def test_a_collapsed_component_never_wins_over_proper_runs():
    fit = from_collapse(5)
    assert fit.runs.singular[0]
    assert fit.runs.objective[0] > fit.objective + 10
    assert not fit.runs.singular[1:].any()
    assert fit.objective == fit.runs.objective[1:].max()
    assert "1 singular and set aside" in fit.verdict()
    assert "do not trust" not in fit.verdict()


def test_a_collapsed_component_alone_is_not_to_be_trusted():
    fit = from_collapse(1)
    assert fit.runs.singular.all()
    assert "the solution is singular: a component has collapsed, do not trust the objective" in fit.verdict()


def test_given_params_are_the_first_start_and_the_others_are_drawn():
    data = rows("unit variance")
    fit = fitted("unit variance")
    warm = vb.fit(fit.model, data, key=key(7), params=fit.params, **HOW)
    assert warm.runs.n_iter[0] <= 2 < warm.runs.n_iter[1:].min()
    error = scored(fit.model, fit.params, data)[1]
    assert warm.runs.objective[0] >= fit.objective - error
    assert len(set(np.asarray(warm.runs.n_iter).tolist())) > 2
    alone = vb.fit(fit.model, data, key=key(7), params=fit.params, max_iter=1)
    assert abs(alone.objective - fit.objective) <= error  # scored before it moves
    same(alone.params, fit.params)


@contextlib.contextmanager
def compilations():
    """A list to which every compilation inside the block is added."""
    seen = []

    def listen(event, seconds, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_other_numbers_compile_nothing():
    model = vb.UnitVarianceMixture(2, mu0=0.0, prior_variance=3.0)
    first = vb.fit(model, rows("unit variance"), key=key(), tol=1e-6, **HOW)
    with compilations() as count:
        other = vb.UnitVarianceMixture(2, mu0=1.0, prior_variance=9.0)
        second = vb.fit(other, rows("unit variance", seed=3), key=key(4), tol=1e-3, **HOW)
        again = vb.fit(other, rows("unit variance", seed=3), key=key(4), tol=0, **HOW)
    assert count == []
    assert first.objective != second.objective
    assert second.n_iter < again.n_iter
    with compilations() as count:
        vb.fit(model, rows("unit variance")[:-1], key=key(), **HOW)
    assert count  # the listener hears


def test_a_progress_bar_is_shown_and_changes_nothing(capsys):
    quiet = fitted("unit variance")
    assert capsys.readouterr().err == ""
    shown = vb.fit(MODELS["unit variance"], rows("unit variance"), key=key(), progress=True, **HOW)
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err
    assert f"best objective {float(shown.objective):.6g}" in err
    for a, b in zip(jax.tree.leaves(shown), jax.tree.leaves(quiet), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_model_without_data():
    fit = vb.fit(without_data(), key=key(), n_restarts=2, max_iter=100)
    assert fit.status == Status.CONVERGED
    assert fit.runs.objective[0] == fit.runs.objective[1]
    objective, error = scored(fit.model, fit.params, None)
    assert abs(objective - fit.objective) <= error


# ---------------------------------------------------------------- words


def told(objective, status, singular=None):
    """A fit with this table, of which the first run is the best."""
    n = len(objective)
    runs = vb.Runs(
        np.asarray(objective), np.full(n, 7), np.asarray(status), np.asarray(singular or [False] * n)
    )
    return vb.Fit(
        None, None, np.asarray(objective[0]), np.asarray(7), runs, np.zeros(9), np.asarray(status[0])
    )


def test_the_verdict_tells_the_table():
    best = -1234.5
    fit = told([best, best - 0.01, best - 5.0, np.nan, best + 50], [1, 1, 2, 3, 1], [False] * 4 + [True])
    assert fit.verdict() == (
        "objective -1234.5, converged: the objective changes by less than the tolerance (7 sweeps); "
        "2 of 5 restarts within 1e-4 of the best, 2 did not converge, 1 singular and set aside"
    )
    assert repr(fit) == f"Fit(NoneType: {fit.verdict()})"
    assert (
        told([best], [2]).verdict() == "objective -1234.5, stopped at max_iter before it converged (7 sweeps)"
    )
    agreed = told([best, best], [1, 1]).verdict()
    assert agreed.endswith("2 of 2 restarts within 1e-4 of the best")
    collapsed = told([best, best], [1, 1], [True, True]).verdict()
    assert "0 of 2 restarts" in collapsed
    assert "do not trust" in collapsed


@pytest.mark.parametrize("objective", [np.nan, *(pytest.param(x) for x in (np.inf, -np.inf))])
def test_the_verdict_of_runs_that_all_failed(objective):
    assert (
        "0 of 2 restarts within 1e-4 of the best, 2 did not converge"
        in told([objective] * 2, [3, 3]).verdict()
    )


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_sentence(status):
    assert status.sentence in told([0.0], [status]).verdict()


# ---------------------------------------------------------------- errors

EM, COLUMN = vb.GaussianMixture(2), vb.UnitVarianceMixture(2)


def with_entry(value):
    x = np.zeros((N_ROWS, 2), "float32")
    x[3, 1] = x[7, 0] = value
    return x


BAD_DATA = {
    "NaN": (EM, with_entry(np.nan), "data must be finite; row 3 is the first"),
    "infinity": (EM, with_entry(-np.inf), "data must be finite; row 3 is the first"),
    "NaN in a column": (COLUMN, [0.0, np.nan, 1.0], "data must be finite; row 1 is the first"),
    "NaN in a dict": (
        mean_and_precision(),
        dict(a=np.ones(4), b=with_entry(np.nan)[:4]),
        "data must be finite; row 3",
    ),
    "one axis": (
        EM,
        np.zeros(5),
        r"data must have shape \(n, d\).*got \(5,\); reshape one column with x\[:, None\]",
    ),
    "three axes": (EM, np.zeros((5, 2, 2)), r"data must have shape \(n, d\) with d >= 1; got \(5, 2, 2\)$"),
    "no columns": (vb.KMeans(2), np.zeros((5, 0)), r"data must have shape \(n, d\) with d >= 1"),
    "two axes for one": (COLUMN, np.zeros((5, 2)), r"data must have shape \(n,\); got \(5, 2\)"),
    "too few rows": (EM, np.zeros((1, 2)), "data must have at least 2 rows; got 1"),
    "fewer rows than clusters": (vb.KMeans(3), np.zeros((2, 2)), "data must have at least 3 rows; got 2"),
    "no rows": (COLUMN, np.zeros(0), "data must have at least 1 rows; got 0"),
    "no rows for an own model": (mean_and_precision(), np.zeros(0), "data must have at least one row"),
    "a number": (mean_and_precision(), 3.0, "data must be arrays with a common leading axis"),
    "nothing": (mean_and_precision(), (), "data must be arrays with a common leading axis"),
    "two lengths": (mean_and_precision(), (np.zeros(3), np.zeros(4)), r"common leading axis.*\(3,\), \(4,\)"),
    "words": (COLUMN, ["a", "b"], "data must be numbers"),
    "complex": (COLUMN, np.array([1j, 2]), "data must be numbers; got an array of complex"),
    "ragged": (COLUMN, [[1.0], [1.0, 2.0]], "data must be numeric arrays; got list"),
    "None": (EM, None, "data must be numbers"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_are_refused(name):
    model, data, message = BAD_DATA[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(model, data, key=key())


def weights_with(value):
    return np.ones(N_ROWS) * np.where(np.arange(N_ROWS) == 5, value, 1)


def states(mean, precision):
    return vb.Record(mu=NormalState(jnp.asarray(mean), jnp.asarray(precision)))


BAD_ARGUMENTS = {
    "too few weights": (dict(weights=np.ones(3)), rf"weights .* {N_ROWS} rows; got shape \(3,\)"),
    "a table of weights": (dict(weights=np.ones((N_ROWS, 1))), r"weights .* got shape \(40, 1\)"),
    "a negative weight": (
        dict(weights=weights_with(-1)),
        "weights must be finite, at least 0, and not all 0",
    ),
    "a weight of NaN": (dict(weights=weights_with(np.nan)), "weights must be finite"),
    "an infinite weight": (dict(weights=weights_with(np.inf)), "weights must be finite"),
    "no weight": (dict(weights=np.zeros(N_ROWS)), "weights must be finite, at least 0, and not all 0"),
    "a word for weights": (dict(weights="uniform"), "weights must be numbers"),
    "no restarts": (dict(n_restarts=0), "n_restarts must be a whole number of at least 1; got 0"),
    "half a restart": (dict(n_restarts=2.0), "n_restarts must be a whole number"),
    "a truth for restarts": (dict(n_restarts=True), "n_restarts must be a whole number"),
    "no sweeps": (dict(max_iter=0), "max_iter must be a whole number of at least 1; got 0"),
    "endless sweeps": (dict(max_iter=np.inf), "max_iter must be a whole number"),
    "no lanes": (dict(lanes=0), "lanes must be a whole number of at least 1; got 0"),
    "a negative tol": (dict(tol=-1e-3), "tol must be at least 0; got -0.001"),
    "a tol of NaN": (dict(tol=np.nan), "tol must be at least 0; got nan"),
    "params of another name": (
        dict(params=vb.Record(tau=states([0.0, 1.0], [1.0, 1.0]).mu)),
        "params must have the structure",
    ),
    "params of another family": (
        dict(params=vb.Record(mu=DeltaState(states([0.0, 1.0], [1.0, 1.0]).mu))),
        "params must have the structure",
    ),
    "params of another k": (
        dict(params=states(np.zeros(3), np.ones(3))),
        r"params must have shapes \[\(2,\), \(2,\)\]; got \[\(3,\), \(3,\)\]",
    ),
    "params of words": (
        dict(params=vb.Record(mu=NormalState(["a", "b"], ["c", "d"]))),
        "params must have the structure",
    ),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_by_name(name):
    wrong, message = BAD_ARGUMENTS[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(COLUMN, rows("unit variance"), key=key(), **wrong)


BAD_MODELS = {
    "no components": (vb.UnitVarianceMixture(0), "unit variance", "n_components must be a whole number"),
    "no clusters": (vb.KMeans(0), "EM", "n_clusters must be a whole number"),
    "unknown start": (
        vb.KMeans(2, start="first"),
        "EM",
        "start must be 'k-means\\+\\+' or 'random'; got 'first'",
    ),
    "unknown covariance": (
        vb.GaussianMixture(2, "round"),
        "EM",
        "covariance_type must be one of full.*got 'round'",
    ),
    "MAP on the boundary": (
        vb.GaussianMixture(2, weight_concentration=0.5),
        "EM",
        "weight_concentration must be at least 1",
    ),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_bad_models_are_refused_by_name(name):
    model, data, message = BAD_MODELS[name]
    with pytest.raises(ValueError, match=message):
        vb.fit(model, rows(data), key=key())


def test_weights_without_data_are_refused():
    with pytest.raises(ValueError, match="weights are for rows of data; there are none"):
        vb.fit(without_data(), key=key(), weights=np.ones(3))


def test_a_model_that_is_not_conjugate_is_refused():
    def wrong(s, x):
        return vb.terms.normal(x, s.mu, 1.0) - s.mu.first**2

    with pytest.raises(ValueError, match="factor 'mu'"):
        vb.fit(vb.Model(factors=dict(mu=vb.Normal()), log_likelihood=wrong), rows("unit variance"), key=key())
