"""The driver: a result describes one run, and is the same whatever surrounds the call.

The number of lanes changes no run. The objective scores the parameters and ends the trace; all three are the
winner's. Starts differ between restarts and keys; given parameters are the first of them. A fit is a pytree;
inside jit, and inside vmap over data, keys, weights and hyperparameters, it is the fit that a loop makes. New
numbers compile nothing. A progress bar changes nothing. (How runs end: test_fit_statuses.py.)
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.clouds import HOW, MODELS, key, rows, same, scored, unfinished
from tests.support.compilations import compilations
from tests.support.registry import MODELS as TABLE
from tests.support.registry import N_ROWS, without_data
from vbjax import Status
from vbjax.inference.resolution import resolved

STEADY = 1e-4  # a tolerance far above a rounding: another order of summation ends no run a sweep later


@functools.cache
def fitted(name):
    return vb.fit(MODELS[name], rows(name), key=key(), **HOW)


every_model = pytest.mark.parametrize("name", MODELS)


# ---------------------------------------------------------------- one run


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


def test_given_params_come_in_any_order():
    data, _ = TABLE["own, local"].data("float32")
    model, start = TABLE["own, local"].started(data, None)
    turned = vb.Record(dict(reversed(list(start.items()))))
    one, other = (vb.fit(model, data, key=key(0), params=params, max_iter=3) for params in (start, turned))
    assert list(start) != list(turned)
    same(one.params, other.params)


def test_starts_differ_between_restarts_and_keys():
    objectives = np.concatenate([unfinished(seed).runs.objective for seed in (0, 1)])
    assert len(set(objectives.tolist())) == 2 * HOW["n_restarts"]


def test_the_table_keeps_the_trace_of_every_run():
    fit = fitted("EM")
    table = map(np.asarray, (fit.runs.trace, fit.runs.n_iter, fit.runs.objective))
    for trace, n_iter, objective in zip(*table, strict=True):
        assert np.isfinite(trace[:n_iter]).all()
        assert np.isnan(trace[n_iter:]).all()
        assert trace[n_iter - 1] == objective
    np.testing.assert_array_equal(fit.full_trace, fit.runs.trace[fit.runs.objective.argmax()])


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


def at(x, seed, precision, weights):
    """A fit as a function of everything that may be mapped."""
    model = vb.textbook.UnitVarianceMixture(2, location_precision=precision)
    return vb.fit(model, x, key=jax.random.key(seed), weights=weights, tol=STEADY, **HOW)


MAPPED = {
    "data": (0, None, None, None),
    "hyperparameters and weights": (None, None, 0, 0),
}


@functools.cache
def arguments():
    weights = jnp.asarray(np.random.default_rng(1).uniform(0.5, 2, size=(2, N_ROWS)), "float32")
    data = jnp.stack([rows("unit variance", seed=seed) for seed in range(2)])
    return data, jnp.arange(2), jnp.asarray([2.0, 0.05]), weights


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


def test_other_numbers_compile_nothing():
    model = vb.textbook.UnitVarianceMixture(2, location=0.0, location_precision=1 / 3)
    first = vb.fit(model, rows("unit variance"), key=key(), tol=1e-6, **HOW)
    with compilations() as count:
        other = vb.textbook.UnitVarianceMixture(2, location=1.0, location_precision=1 / 9)
        second = vb.fit(other, rows("unit variance", seed=3), key=key(4), tol=1e-3, **HOW)
        again = vb.fit(other, rows("unit variance", seed=3), key=key(4), tol=0, **HOW)
    assert count == []
    assert first.objective != second.objective
    assert second.n_iter < again.n_iter
    shorter = rows("unit variance")[:-1]
    with compilations() as count:
        vb.fit(model, shorter, key=key(), **HOW)
    assert len(count) == 2  # all before the first sweep, and the loop


def test_what_does_not_fit_into_memory_is_refused_before_anything_is_compiled():
    model, data = MODELS["unit variance"], rows("unit variance")
    with compilations() as count:
        for how in (dict(n_restarts=2**31 - 1), dict(n_restarts=2000, lanes=2000, max_iter=2**31 - 1)):
            with pytest.raises(
                ValueError, match=r"^n_restarts and max_iter must fit into [\d,]+ bytes of memory"
            ):
                vb.fit(model, data, key=key(), **how)
    assert count == []


def test_data_are_not_copied():
    x = jnp.round(jnp.exp(rows()))
    plain, annotated = (
        resolved(model, x, None)[1] for model in (vb.GaussianMixture(2), vb.BayesianPoissonMixture(2))
    )
    for own in (plain, annotated.rows):
        assert own.unsafe_buffer_pointer() == x.unsafe_buffer_pointer()


def test_a_progress_bar_is_shown_and_changes_nothing(capsys):
    quiet = fitted("unit variance")
    assert capsys.readouterr().err == ""
    shown = vb.fit(MODELS["unit variance"], rows("unit variance"), key=key(), progress=True, **HOW)
    out, err = capsys.readouterr()
    assert out == ""
    assert "5/5" in err
    assert f"best objective {float(shown.objective):.6g}" in err
    chex.assert_trees_all_equal(shown, quiet)


def test_a_model_without_data():
    fit = vb.fit(without_data(), key=key(), n_restarts=2, max_iter=100)
    assert fit.status == Status.CONVERGED
    assert fit.runs.objective[0] == fit.runs.objective[1]
    objective, error = scored(fit.model, fit.params, None)
    assert abs(objective - fit.objective) <= error
