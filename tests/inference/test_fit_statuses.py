"""How runs end and which of them wins: a status tells the truth.

A run that is not finite never wins, a singular or fallen one never over a proper one. Statuses: converged,
max_iter, not finite, decreased, interrupted. The words of `verdict` are those of the table.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
import vbjax.inference.fit as driver
from tests.support.clouds import HOW, MODELS, key, rows, same, scored, unfinished
from vbjax import Status
from vbjax.families.base import pytree, static
from vbjax.inference import restarts
from vbjax.inference.restarts import Runs

# ---------------------------------------------------------------- runs whose fate is known beforehand

PROPER, SINGULAR, FALLEN, NAN, INFINITE = range(5)  # the worse, the higher they climb


@pytree
class Slopes(vb.core.ConjugateModel):
    """Runs that climb to a height of their own, in a number of sweeps of their own, and end as was drawn."""

    share: Any  # of every fate
    longest: int = static(default=8)

    def read(self, data):
        return data

    def singular(self, params):
        return params.fate == SINGULAR

    def init(self, key, data, weights=None):
        fates, lengths, heights = jax.random.split(key, 3)
        return vb.Record(
            fate=jax.random.categorical(fates, jnp.log(self.share)),
            height=jax.random.normal(heights),
            last=jax.random.randint(lengths, (), 1, self.longest + 1),
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

    def inspect(self, data):
        """Take all options: there are none."""

    def init(self, key, data, weights, number=0):
        return self.model.init(key, data, weights)

    def start(self, params, data):
        return Slope(params)

    def explain(self, params, data, weights):
        """Say nothing: runs are not finite because they were drawn so."""

    def step(self, state, data, weights):
        params = state.params
        value = height(params, params.sweep)
        end = jnp.where(params.fate == FALLEN, Status.DECREASED, Status.CONVERGED)
        status = jnp.where(params.sweep == params.last, end, Status.UNFINISHED)
        status = jnp.where(jnp.isfinite(value), status, Status.NON_FINITE)
        moved = Slope(params | dict(sweep=params.sweep + 1))
        return moved, vb.core.Info(params, value, jnp.zeros_like(value), status)


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


@pytest.mark.parametrize("lanes", [3, 16])
def test_of_long_runs_the_table_keeps_some_sweeps_the_first_and_the_last_among_them(lanes):
    n, model = 16, Slopes(jnp.asarray([1.0, 0, 0, 0, 0], jnp.float32), longest=1500)
    drawn = jax.vmap(lambda k: model.init(k, None))(jax.random.split(key(), n))
    fit = vb.fit(Climb(model), key=key(), n_restarts=n, lanes=lanes, max_iter=2000)
    n_iter, sweeps = np.asarray(drawn.last) + 1, fit.runs.sweeps
    assert n_iter.min() <= 256 < 2 * 256 < n_iter.max()
    assert fit.runs.trace.shape == sweeps.shape == (n, 256)
    whole = jax.vmap(jax.vmap(height, (None, 0)), (0, None))(drawn, jnp.arange(2000))
    for run in range(n):
        kept = sweeps[run][sweeps[run] > 0]
        assert len(kept) == min(n_iter[run], 256)
        assert kept[0] == 1
        assert kept[-1] == n_iter[run]
        assert np.ptp(np.diff(kept)) <= 1
        np.testing.assert_array_equal(fit.runs.trace[run][: len(kept)], whole[run][kept - 1])
        assert np.isnan(fit.runs.trace[run][len(kept) :]).all()
    winner = int(np.argmax(fit.runs.objective))
    np.testing.assert_array_equal(fit.trace, whole[winner][: n_iter[winner]])
    assert np.isnan(fit.full_trace[n_iter[winner] :]).all()


def test_what_many_long_runs_keep_grows_with_neither_times_the_other():
    algorithm, keys = Climb(Slopes(jnp.ones(5))), jax.random.split(key(), 10_000)
    begin = functools.partial(restarts.begin, algorithm, keys, None, None, None, lanes=4, max_iter=100_000)
    numbers = sum(x.size for x in jax.tree.leaves(jax.eval_shape(begin)))
    assert (
        numbers < 10_000 * (256 + 20) + 100_000 * (4 + 1) + 100
    )  # the table, and whole traces of lanes and best


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
class Faulty(vb.textbook.UnitVarianceMixture):
    """Starts at NaN, or whose update adds to the means what is not theirs."""

    start: Any = 0.0
    drift: Any = 0.0

    def resolve(self, data, weights=None):
        resolved = super().resolve(data, weights)
        own = dict(location=resolved.location, location_precision=resolved.location_precision)
        return dataclasses.replace(self, **own)

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


class Awaited:
    """The number of ended runs, for which the host waits when Ctrl-C comes."""

    def __int__(self):
        raise KeyboardInterrupt


def interrupt(monkeypatch):
    """Ctrl-C while the first slice runs."""
    calls, advance = [], driver._advance

    def interrupted(*args, **race):
        calls.append(args)
        race, so_far, ended = advance(*args, **race)
        return race, so_far, Awaited() if len(calls) == 1 else ended

    monkeypatch.setattr(driver, "_advance", interrupted)


def test_an_interrupted_run_is_scored_where_it_stood(monkeypatch):
    interrupt(monkeypatch)
    fit = vb.fit(MODELS["EM"], rows(), key=key(), tol=0.0, **HOW | dict(n_restarts=1))
    assert fit.status == Status.INTERRUPTED
    assert fit.n_iter == 17 == len(fit.trace)  # sixteen sweeps of the first slice, and the one that scores
    objective, error = scored(fit.model, fit.params, rows())
    assert abs(objective - fit.objective) <= error
    assert "interrupted" in fit.verdict()


def test_ctrl_c_while_the_loop_is_compiled_is_not_swallowed(monkeypatch):
    def compiling(*args, **race):
        raise KeyboardInterrupt

    monkeypatch.setattr(driver, "_advance", compiling)
    with pytest.raises(KeyboardInterrupt) as error:
        climb((1.0, 0.0, 0.0, 0.0, 0.0), n_restarts=16, lanes=3, max_iter=10)
    assert error.value.__context__ is None


@pytest.mark.parametrize("lanes", [1, 3])
def test_interrupted_the_best_of_the_runs_so_far_wins(monkeypatch, lanes):
    shares, n = (1.0, 0.0, 0.0, 0.0, 0.0), 16
    _, ends = fates(shares, n)
    interrupt(monkeypatch)
    fit = climb(shares, n_restarts=n, lanes=lanes, max_iter=10)
    status, objective = np.asarray(fit.runs.status), np.asarray(fit.runs.objective)
    ended = status == Status.CONVERGED
    np.testing.assert_array_equal(objective[ended], ends[ended])
    assert ended.any()
    assert 1 <= (status == Status.INTERRUPTED).sum() <= lanes
    assert (status == Status.UNFINISHED).any()
    assert np.isnan(objective[status == Status.UNFINISHED]).all()
    assert fit.objective == np.nanmax(objective)
    assert fit.objective == height(fit.params, fit.params.sweep) == fit.trace[-1]


# ---------------------------------------------------------------- singular runs


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


# ---------------------------------------------------------------- words


def told(objective, status, singular=None):
    """A fit with this table, of which the first run is the best."""
    n = len(objective)
    flags = np.asarray(singular or [False] * n)
    traces = np.arange(9.0 * n).reshape(n, 9)
    runs = Runs(np.asarray(objective), np.full(n, 7), np.asarray(status), flags, traces)
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


@pytree
class Overshooting(vb.textbook.GaussianMeanPrecision):
    """Takes the precision over the optimum and further than it was; the mean makes up for it, at first."""

    def m_step(self, params, statistics, block):
        moved = super().m_step(params, statistics, block)
        if "tau" not in block:
            return moved
        rate = moved.tau.rate * (moved.tau.mean / params.tau.mean) ** -1.2
        return moved | dict(tau=dataclasses.replace(moved.tau, rate=rate))


def test_every_single_update_is_checked_on_request():
    x = jnp.asarray(np.random.default_rng(0).normal(50, 3, 40), jnp.float32)
    for model, check, status in (
        (vb.textbook.GaussianMeanPrecision, True, Status.MAX_ITER),
        (Overshooting, False, Status.MAX_ITER),
        (Overshooting, True, Status.DECREASED),
    ):
        fit = vb.fit(model(location=0.0), x, key=key(), tol=0.0, max_iter=2, check=check)
        assert fit.status == status
