"""Chains as local latents of a model of one's own: ten lines equal the ready-made models of sequences.

At the same parameters, for ragged sequences with missing steps and entries and with row weights: the bound,
its terms, the posterior of the states, and the parameters after a sweep.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.own_models import own_hidden_markov, own_state_space
from tests.support.tolerances import close
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.rows import expectation

KEY = jax.random.key(0)
LENGTHS = 7, 30, 6, 1, 29  # two parts; those of the state space are one, without the long ones
WEIGHTS = np.array([1, 2, 0, 0.5, 3])


def counts(dtype):
    rng = np.random.default_rng(0)
    seqs = [rng.poisson(5 + 10 * rng.integers(0, 2, (t, 1)), (t, 2)).astype(dtype) for t in LENGTHS]
    seqs[1][3] = seqs[2][0] = seqs[4][-1] = np.nan
    return vb.Sequences.of(seqs)


def ready_hidden_markov(k=3):
    return vb.BayesianPoissonHMM(
        k, initial_concentration=0.7, transition_concentration=0.4, concentration=1.5, rate=0.1
    )


def vectors(dtype):
    rng = np.random.default_rng(0)
    paths = [np.cumsum(rng.normal(size=(min(t, 7), 2)), 0) for t in LENGTHS]
    seqs = [(x @ rng.normal(size=(2, 3)) + rng.normal(size=(len(x), 3))).astype(dtype) for x in paths]
    seqs[1][3] = seqs[2][0] = seqs[4][-1] = np.nan
    seqs[1][5, 1] = seqs[0][0, 2] = np.nan  # missing in part
    return vb.Sequences.of(seqs).in_parts_of(vb.Sequences.of([np.zeros((7, 3), dtype)] * len(seqs)))


def ready_state_space(d=2, p=3):
    return vb.BayesianLinearGaussianStateSpace(d, center=np.zeros(p), rate=1e-3 * np.ones(p))


TWINS = {
    "hidden Markov": (counts, own_hidden_markov, ready_hidden_markov),
    "state space": (vectors, own_state_space, ready_state_space),
}


@jax.jit
def one_sweep(model, params, data, weights):
    data = model.annotate(data, weights)
    total = expectation(model, params, data, weights)
    return model.objective(params, total), sweep(model, params, data, weights).params


@functools.cache
def given(name, dtype):
    """The data, both models resolved, and parameters some sweeps away from a start of the ready-made one."""
    make, own, ready = TWINS[name]
    data = make(dtype)
    own, ready = own().inspect(data).resolve(data), ready().resolve(data)
    params = jax.jit(ready.init)(KEY, data)
    for _ in range(4):
        _, params = one_sweep(ready, params, data, jnp.asarray(WEIGHTS, dtype))
    return data, own, ready, vb.Record({n: params[n] for n in own.factors})


@pytest.mark.parametrize("name", TWINS)
def test_a_model_of_ones_own_is_the_ready_made_one(name, dtype):
    data, own, ready, params = given(name, dtype.name)
    weights = jnp.asarray(WEIGHTS, dtype)
    (bound, moved), (bound0, moved0) = (one_sweep(m, params, data, weights) for m in (own, ready))
    assert bound.dtype == dtype
    # sums over steps of log densities of some tens; inverses of Gram matrices
    close(bound, bound0, factor=10)
    close(vb.Record(moved), vb.Record({n: moved0[n] for n in moved}), factor=30)


@pytest.mark.parametrize("name", TWINS)
def test_the_terms_of_the_bound_are_the_ready_made_ones(name, float64):
    data, own, ready, params = given(name, "float64")
    terms, terms0 = (m.elbo_terms(params, data, WEIGHTS) for m in (own, ready))
    assert set(terms) == set(terms0)
    for term, value in terms.items():
        close(value, terms0[term], factor=10, scale=abs(sum(terms.values())))


@pytest.mark.parametrize("name", TWINS)
def test_the_posterior_of_states_is_the_ready_made_ones(name, float64):
    data, own, ready, params = given(name, "float64")
    local = own.posterior(params, data)
    if name == "hidden Markov":
        found, known = [local.z.probabilities], ready.state_probabilities(params, data)
        known = [[x] for x in known]
    else:
        found, known = [local.x.mean, local.x.covariance], ready.smoothed(params, data)
    for arrays, index in zip(zip(*known, strict=True), range(2), strict=False):
        for row, x in enumerate(arrays):
            close(found[index][row, : len(x)], x, factor=10, scale=1)
            assert (found[index][row, len(x) :] == 0).all()


def test_fits_leave_the_symmetry_of_the_states():
    data, own, *_ = given("hidden Markov", "float32")
    fit = vb.fit(own, data, key=KEY, max_iter=50)
    rates = np.sort(np.asarray(fit.params.components.mean[:, 0]))
    assert rates[-1] > 2 * rates[0]


def test_what_a_chain_cannot_be_is_refused_by_name():
    with pytest.raises(ValueError, match=r"data must be vb.Sequences.of.*MarkovChain.*or give it steps"):
        vb.fit(own_hidden_markov(), np.ones((5, 2)), key=KEY)
    walk = vb.Model(factors=dict(x=vb.GaussMarkov(1)), log_prior=lambda s: s.x.first.sum())
    with pytest.raises(ValueError, match="GaussMarkov must have steps, their number, where it is no local"):
        vb.fit(walk, key=KEY)
    with pytest.raises(ValueError, match="must be given without plate and steps"):
        vb.MarkovChain(2, steps=3).of_rows(counts("float32").parts[0], 1)
