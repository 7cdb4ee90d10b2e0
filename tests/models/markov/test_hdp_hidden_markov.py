"""Hidden Markov models of a hierarchical Dirichlet process: a lower bound, and as many states as are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, special

import vbjax as vb
from tests.support.tolerances import close
from vbjax.families.dirichlet import DirichletStatistics
from vbjax.families.shared_sticks import SharedSticks, log_shared_dirichlet
from vbjax.inference.resolution import resolved

K = 4
COUNTS = np.random.default_rng(0).poisson(np.repeat([2.0, 15.0, 2.0, 40.0], 15))[:, None]


def model(kappa, dtype="float64"):
    """A resolved model of K states, its sequences, and parameters after a few sweeps."""
    options = dict(transition_concentration=1.7, weight_concentration=0.8, stickiness=kappa)
    chain = vb.HDPHiddenMarkovModel(K, vb.components.Poisson(), **options)
    seqs = vb.Sequences.of([COUNTS.astype(dtype), COUNTS[::-1][:20].astype(dtype)])
    chain, seqs, _ = resolved(chain, seqs, None)
    return chain, seqs, jax.jit(chain.init)(jax.random.key(0), seqs)


@pytest.mark.parametrize("kappa", [0.0, 5.0])
def test_the_rows_have_a_lower_bound_of_their_prior(float64, kappa):
    """Of E[log Dirichlet(x | alpha w + kappa at k)] over draws of w, at any x."""
    alpha = 1.7
    q = vb.families.StickBreakingState(*jnp.asarray([[3.0, 5.0, 0.7], [4.0, 6.0, 2.0]]))
    w = np.asarray(jax.jit(lambda key: q.sample(key, 100_000))(jax.random.key(0)))
    x = np.array([0.1, 0.2, 0.05, 0.65])
    rows = DirichletStatistics.of(jnp.tile(x, (K, 1)))
    bounds = jax.jit(log_shared_dirichlet)(rows, SharedSticks(K).expected(q), jnp.asarray(alpha), kappa)
    for k, bound in enumerate(np.asarray(bounds)):
        density = lambda a: special.gammaln(a.sum(-1)) - special.gammaln(a).sum(-1) + (a - 1) @ np.log(x)
        exact = density(alpha * w + kappa * np.eye(K)[k]).mean()
        assert exact - 1.5 < bound < exact
    if not kappa:
        first = log_shared_dirichlet(rows[0], SharedSticks(K).expected(q), jnp.asarray(alpha))
        close(bounds, jnp.broadcast_to(first, K))


@pytest.mark.parametrize("kappa", [0.0, 2.0])
def test_the_weights_climb_to_the_optimum_of_their_part_of_the_bound(float64, kappa):
    """Scipy's, of the prior of all rows written out as the module has it."""
    alpha, gamma = 1.7, 0.8
    logs = np.log(np.random.default_rng(1).dirichlet(np.full(K, 0.7), K + 1))  # E[log] of initial and rows

    def bound(a, b):
        both = a + b
        share, rest = special.digamma(a) - special.digamma(both), special.digamma(b) - special.digamma(both)
        log_w = np.append(share, 0) + np.append(0, np.cumsum(rest))
        mean = np.append(a / both, 1) * np.append(1, np.cumprod(b / both))
        total = 0.0
        for row, log in enumerate(logs):
            for k in range(K):
                own = kappa if row == k + 1 else 0.0
                total += (alpha * mean[k] + own) * log[k]
                if own:
                    total -= (1 - mean[k]) * special.gammaln(own) + mean[k] * special.gammaln(own + alpha)
                else:
                    total += log_w[k] - mean[k] * special.gammaln(1 + alpha)
        return total - ((a - 1) * share + (b - gamma) * rest - special.betaln(a, b)).sum()

    loss = lambda u: -bound(*np.exp(u.reshape(2, K - 1)))
    best = optimize.minimize(loss, np.zeros(2 * (K - 1)), method="BFGS", options=dict(gtol=1e-7))
    prior, family = vb.families.StickBreakingState(jnp.ones(K - 1), jnp.full(K - 1, gamma)), SharedSticks(K)
    first, rows = (
        DirichletStatistics(log, -log.sum(-1)) for log in (jnp.asarray(logs[0]), jnp.asarray(logs[1:]))
    )

    def log_prior(w):
        both = log_shared_dirichlet(first, w, jnp.asarray(alpha))
        both += log_shared_dirichlet(rows, w, jnp.asarray(alpha), kappa).sum()
        return both + prior.log_density(w) + w.base

    climb = lambda _, q: family.from_gradient(family.expected(q), jax.grad(log_prior)(family.expected(q)))
    q = jax.jit(lambda q: jax.lax.fori_loop(0, 30, climb, q))(prior)
    np.testing.assert_allclose(
        bound(*map(np.asarray, (q.concentration1, q.concentration0))), -best.fun, atol=1e-8
    )


def test_three_levels_are_three_states_of_six():
    chain = vb.HDPHiddenMarkovModel(6, vb.components.Poisson())
    fit = vb.fit(chain, COUNTS, key=jax.random.key(0), n_restarts=32)
    assert len(set(fit.model.decode(fit.params, COUNTS).tolist())) == 3
    assert fit.model.used_states(fit.params).sum() == 3


def test_a_search_merges_states_where_a_fit_is_stuck():
    """A run keeps five states of three levels; a search from the same key, three."""
    chain = vb.HDPHiddenMarkovModel(6, vb.components.Poisson())
    stuck = vb.fit(chain, COUNTS, key=jax.random.key(1))
    assert stuck.status == vb.Status.CONVERGED
    assert stuck.model.used_states(stuck.params).sum() == 5
    merged = vb.fit(chain, COUNTS, key=jax.random.key(1), search=True)
    assert merged.objective > stuck.objective + 5
    assert merged.model.used_states(merged.params).sum() == 3


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: vb.HDPHiddenMarkovModel(1, vb.components.Poisson()), "n_states .* at least 2"),
        (lambda: vb.HDPHiddenMarkovModel(2, vb.BayesianPoissonMixture(2)), "component must be a component"),
        (lambda: vb.HDPHiddenMarkovModel(2, vb.components.Poisson(), stickiness=-1.0), "stickiness of"),
        (
            lambda: vb.HDPHiddenMarkovModel(2, vb.components.Poisson(), weight_concentration=0.0),
            "weight_concentration of .* must be positive",
        ),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        vb.fit(given(), COUNTS, key=jax.random.key(0))


def test_draws_of_shared_weights_are_refused():
    """They are not conjugate to the rows, which have a lower bound for them."""
    hdp = vb.HDPHiddenMarkovModel(K, vb.components.Poisson())
    with pytest.raises(ValueError, match="the shared weights of an HDPChain are not conjugate"):
        vb.gibbs(hdp, COUNTS, key=jax.random.key(0), n_draws=2, n_warmup=1)
