"""Accelerated ascent: the objective never falls, and it ends where plain ascent ends, in fewer passes.

Coordinates are real numbers for any state: they lead there and back, are 0 at their origin and free of units.
Refused extrapolations leave the parameters that were scored before them.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.family_table import CASES
from tests.support.registry import MODELS, univariate_mixture
from tests.support.tolerances import close
from vbjax.core.rows import rounding_error
from vbjax.families.coordinates import at_coordinates, coordinates

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", CASES)
def test_coordinates_lead_there_and_back(name, dtype):
    case = CASES[name]
    origin, state = case.state(dtype, seed=0), case.state(dtype, seed=1)

    @jax.jit
    def travel(origin, state):
        there = coordinates(state, origin)
        shifted = at_coordinates(
            jax.tree.map(lambda x: x - 3, there), origin
        )  # any numbers are those of a state
        elsewhere = shifted.base_entropy(), shifted.expected()
        return there, at_coordinates(there, origin), coordinates(origin, origin), elsewhere

    there, back, here, elsewhere = travel(origin, state)
    assert len(jax.tree.leaves(there)) == len(jax.tree.leaves(state))
    close(back, state, factor=10)
    close(here, jax.tree.map(np.zeros_like, there), scale=1)
    if name != "GaussMarkov":  # blocks too small for the coupling: an extrapolation that is refused
        chex.assert_tree_all_finite(elsewhere)


def test_coordinates_are_free_of_units(float64):
    def normal_wishart(scale, seed):
        q = CASES["NormalWishart"].state(float64, seed)
        return type(q)(scale * q.location, q.mean_precision, q.degrees_of_freedom, scale**2 * q.inverse_scale)

    one, other = (jax.jit(coordinates)(normal_wishart(c, 1), normal_wishart(c, 0)) for c in (1.0, 1e3))
    close(other, one, factor=10)


def overlapping(dtype, n=400):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2)) * [2, 1]
    x[: n // 2] += 1.5
    return jnp.asarray(x, dtype)


SLOW = {
    "EM": (vb.GaussianMixture(2), overlapping),
    "own": (univariate_mixture(), lambda dtype: overlapping(dtype)[:, 0]),
}


@pytest.mark.parametrize(("name", "dtype"), [("EM", "float64"), ("own", "float32"), ("own", "float64")])
def test_it_never_falls_and_ends_where_plain_ascent_does_in_fewer_passes(name, dtype):
    with jax.enable_x64(dtype == "float64"):
        ascend(*SLOW[name], np.dtype(dtype))


def ascend(model, make, dtype):
    data, how = make(dtype), dict(key=KEY, tol=0.0, max_iter=3000)
    plain, fast = vb.fit(model, data, **how), vb.fit(model, data, accelerate=True, **how)
    assert fast.status == plain.status == vb.Status.CONVERGED
    trace = np.asarray(fast.trace)
    assert (np.diff(trace) >= -2 * rounding_error(np.abs(trace[1:]))).all()
    assert trace[-1] == fast.objective
    near = 1e-3 if dtype == np.dtype("float32") else 1e-8
    assert fast.objective >= plain.objective - near
    close(jax.jit(vb.elbo)(fast.model, fast.params, data), fast.objective, factor=10)
    if dtype == np.dtype("float64"):  # in float32 both stop at the rounding of the objective
        assert int(fast.n_iter) < 0.7 * int(plain.n_iter)


def test_restarts_in_lanes_are_single_runs(float64):
    model, make = SLOW["own"]
    data = make(float64)
    how = dict(key=KEY, accelerate=True, tol=1e-9)
    together = vb.fit(model, data, n_restarts=4, lanes=3, **how)
    alone = vb.fit(model, data, n_restarts=4, lanes=1, **how)
    close(together.runs.objective, alone.runs.objective, factor=100)
    assert (np.asarray(together.runs.status) == vb.Status.CONVERGED).all()


def test_a_refused_extrapolation_leaves_what_was_scored(float64):
    """Refuse every extrapolation: what remains are plain sweeps, with their parameters beside them."""
    entry = MODELS["own, local"]
    data, weights = entry.data(float64)
    model, params = entry.started(data, weights)
    algorithm = vb.core.AcceleratedAscent(model, jnp.asarray(0.0))
    plain = vb.core.CoordinateAscent(model, jnp.asarray(0.0))
    state, expected = algorithm.start(params, data), plain.start(params, data)
    info = None
    step, plain_step = jax.jit(algorithm.step), jax.jit(plain.step)
    n_refused = 0
    for _ in range(6):
        if state.mixed:  # an absurd one
            absurd = state.params.mu
            state = state._replace(
                params=state.params | dict(mu=type(absurd)(absurd.mean + 50, absurd.precision))
            )
            before = info
            state, info = step(state, data, weights)
            close((info.params, info.objective), (before.params, before.objective))
            assert info.status == vb.Status.UNFINISHED
            n_refused += 1
        state, info = step(state, data, weights)
        expected, plain_info = plain_step(expected, data, weights)
        close((info.params, info.objective), (plain_info.params, plain_info.objective), factor=10)
    assert n_refused >= 2
