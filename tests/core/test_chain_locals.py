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
from tests.support.tolerances import close
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.rows import expectation
from vbjax.terms import (
    dirichlet,
    gamma,
    gauss_markov,
    markov_chain,
    matmul,
    multivariate_normal,
    multivariate_normal_gamma,
    normal,
    poisson,
)

KEY = jax.random.key(0)
LENGTHS = 7, 30, 6, 1, 29  # two parts
WEIGHTS = np.array([1, 2, 0, 0.5, 3])


def counts(dtype):
    rng = np.random.default_rng(0)
    seqs = [rng.poisson(5 + 10 * rng.integers(0, 2, (t, 1)), (t, 2)).astype(dtype) for t in LENGTHS]
    seqs[1][3] = seqs[2][0] = seqs[4][-1] = np.nan
    return vb.Sequences.of(seqs)


def own_hidden_markov(k=3):
    return vb.Model(
        factors=dict(
            initial=vb.Dirichlet(k), transitions=vb.Dirichlet(k, plate=(k,)), components=vb.Gamma((k, 2))
        ),
        local=dict(z=vb.MarkovChain(k)),
        log_prior=lambda s: (
            dirichlet(s.initial, 0.7)
            + dirichlet(s.transitions, 0.4).sum()
            + gamma(s.components, 1.5, 0.1).sum()
        ),
        log_likelihood=lambda s, y: (
            markov_chain(s.z, s.initial, s.transitions)
            + (s.z.p * poisson(y.values[:, :, None], s.components).sum(-1)).sum((-2, -1))
        ),
    )


def ready_hidden_markov(k=3):
    return vb.BayesianPoissonHMM(
        k, initial_concentration=0.7, transition_concentration=0.4, concentration=1.5, rate=0.1
    )


def vectors(dtype):
    rng = np.random.default_rng(0)
    paths = [np.cumsum(rng.normal(size=(t, 2)), 0) for t in LENGTHS]
    seqs = [(x @ rng.normal(size=(2, 3)) + rng.normal(size=(len(x), 3))).astype(dtype) for x in paths]
    seqs[1][3] = seqs[2][0] = seqs[4][-1] = np.nan
    seqs[1][5, 1] = seqs[0][0, 2] = np.nan  # missing in part
    return vb.Sequences.of(seqs)


def own_state_space(d=2, p=3):
    zero, eye = jnp.zeros(d), jnp.eye(d)
    return vb.Model(
        factors=dict(
            transitions=vb.MultivariateNormal(d, plate=(d,)),
            emissions=vb.MultivariateNormalGamma(d, plate=(p,)),
        ),
        local=dict(x=vb.GaussMarkov(d)),
        hyper=dict(zero=zero, eye=eye),
        log_prior=lambda s: (
            multivariate_normal(s.transitions, s.zero, s.eye).sum()
            + multivariate_normal_gamma(s.emissions, s.zero, 1e-3 * s.eye, 1e-3, 1e-3).sum()
        ),
        log_likelihood=lambda s, y: (
            gauss_markov(s.x, s.zero, 0.01 * s.eye, s.transitions, 1.0)
            + jnp.where(y.seen, normal(y.filled, matmul(s.emissions, s.x.states)), 0).sum((-2, -1))
        ),
    )


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
def fitted(name, dtype):
    """The data, both models resolved, and parameters a few sweeps away from a start of the ready-made one."""
    make, own, ready = TWINS[name]
    data = make(dtype)
    fit = vb.fit(ready(), data, key=KEY, max_iter=4)
    own = own().inspect(data).resolve(data)
    return data, own, fit.model, vb.Record({n: fit.params[n] for n in own.factors})


@pytest.mark.parametrize("name", TWINS)
def test_a_model_of_ones_own_is_the_ready_made_one(name, dtype):
    data, own, ready, params = fitted(name, dtype.name)
    weights = jnp.asarray(WEIGHTS, dtype)
    (bound, moved), (bound0, moved0) = (one_sweep(m, params, data, weights) for m in (own, ready))
    assert bound.dtype == dtype
    # sums over 79 steps of log densities of some tens; inverses of Gram matrices
    close(bound, bound0, factor=10)
    close(vb.Record(moved), vb.Record({n: moved0[n] for n in moved}), factor=30)
    terms, terms0 = (m.elbo_terms(params, data, weights) for m in (own, ready))
    assert set(terms) == set(terms0)
    for term, value in terms.items():
        close(value, terms0[term], factor=10, scale=abs(bound0))
    close(sum(terms.values()), bound, factor=10)


@pytest.mark.parametrize("name", TWINS)
def test_the_posterior_of_states_is_the_ready_made_ones(name, dtype):
    data, own, ready, params = fitted(name, dtype.name)
    local = own.posterior(params, data)
    if name == "hidden Markov":
        found, known = [local.z.probabilities], ready.state_probabilities(params, data)
        known = [[x] for x in known]
    else:
        found, known = [local.x.mean, local.x.covariance], ready.smoothed(params, data)
    for arrays, index in zip(zip(*known, strict=True), range(2), strict=False):
        for row, (x, t) in enumerate(zip(arrays, LENGTHS, strict=True)):
            close(found[index][row, :t], x, factor=10, scale=1)
            assert (found[index][row, t:] == 0).all()


@pytest.mark.parametrize("name", TWINS)
def test_a_sequence_of_weight_w_counts_w_times(name, float64):
    data, own, _, params = fitted(name, "float64")
    rows = np.repeat(np.arange(5), [1, 2, 0, 0, 3])
    weights = np.array([1.0, 2, 0, 0, 3])
    weighed, repeated = one_sweep(own, params, data, weights), one_sweep(own, params, data.take(rows), None)
    close(weighed, repeated, factor=10)


@pytest.mark.parametrize("name", TWINS)
def test_fits_climb_and_leave_the_symmetry_of_the_states(name):
    data, own, _, _ = fitted(name, "float32")
    fit = vb.fit(own, data, key=KEY, max_iter=50, check=True)
    assert fit.status in (vb.Status.CONVERGED, vb.Status.MAX_ITER)
    assert (np.diff(fit.trace) >= -1e-5 * abs(fit.objective)).all()
    if name == "hidden Markov":
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
