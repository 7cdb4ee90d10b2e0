"""Mixing weights by a Dirichlet process, truncated: TRAPS 17, and scikit-learn's.

The last share is what is left, and weights sum to one. Counts give scikit-learn's factors of the shares (all
but its last, which it leaves free). The gradient of expected log weights is what each share is of. Five more
components than a fit needs change neither its components nor its bound.
(The evidence by enumeration: test_conjugate_mixtures.py; the family: test_families.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from sklearn import mixture

import vbjax as vb
from tests.support.family_table import jit
from tests.support.registry import N_COMPONENTS, N_ROWS, table
from tests.support.tolerances import close
from vbjax.families import CategoricalStatistics, StickBreaking
from vbjax.models.labels.weights import from_counts

K = N_COMPONENTS


@jit
def posterior(alpha0, number):
    """The factor of the weights, given counts."""
    labels = vb.labels.StickBreaking(jnp.asarray(alpha0, number.dtype)).of(len(number), False)
    family, prior = labels.family, labels.prior
    t = prior.expected().with_base(0.0)
    gradient = jax.grad(lambda t: prior.log_density(t) + t.base)(t)
    return family.from_gradient(t, jax.tree.map(jnp.add, gradient, from_counts(t, number)))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_counts_give_scikit_learns_shares(float64):
    x = table(np.random.default_rng(0))
    found = mixture.BayesianGaussianMixture(
        n_components=K,
        weight_concentration_prior_type="dirichlet_process",
        weight_concentration_prior=0.7,
        max_iter=20,
        random_state=0,
    ).fit(x)
    a, b = found.weight_concentration_
    q = posterior(0.7, jnp.asarray(a - 1))  # its counts
    close(q.concentration1, a[:-1])
    np.testing.assert_allclose(q.concentration0, b[:-1], rtol=1e-12)
    log_share, log_rest = special.digamma([a, b]) - special.digamma(a + b)
    its = log_share + np.append(0, np.cumsum(log_rest)[:-1])
    np.testing.assert_allclose(q.expected().log[:-1], its[:-1], rtol=1e-12)
    np.testing.assert_allclose(q.expected().log[-1], log_rest[:-1].sum(), rtol=1e-12)  # it breaks once more


def test_the_pieces_are_the_whole_stick(dtype):
    number = jnp.asarray([30.0, 0.0, 1e-3, 7.0, 0.0], dtype)
    q = posterior(0.5, number)
    one = StickBreaking(1).neutral(dtype)  # a stick that is not broken
    look = jit(lambda q: (q.mean, q.sample(jax.random.key(0), 50), q.expected().log, q.covariance))
    mean, draws, _, _ = look(q)
    close(mean.sum(), 1.0)
    close(draws.sum(-1), np.ones(50))
    assert (draws >= 0).all()
    assert q.concentration1.shape == (4,)
    close(
        look(one),
        (jnp.ones(1, dtype), jnp.ones((50, 1), dtype), jnp.zeros(1, dtype), jnp.zeros((1, 1), dtype)),
    )


@jit
def swept_from(model, data, labels):
    """Thirty sweeps from components of labelled rows, and the bound."""
    start = vb.Record(weights=model.factors.weights.neutral(data.dtype), components=model.component.prior)
    c = CategoricalStatistics(jax.nn.one_hot(labels, model.n_components, dtype=data.dtype))
    total = model.gradient_at(model.expected(start), vb.Record(c=c), data)

    def sweep(params, _):
        total = vb.core.expectation(model, params, data)
        return model.m_step(params, total.statistics, model.blocks[0]), None

    params = jax.lax.scan(sweep, model.m_step(start, total, model.blocks[0]), length=30)[0]
    return params, model.objective(params, vb.core.expectation(model, params, data))


def test_five_more_components_change_nothing(float64):
    """From the true labels: Poisson rates of 2, 40 and 200."""
    labels = np.arange(N_ROWS) % 3
    x = jnp.asarray(np.random.default_rng(0).poisson(np.array([2.0, 40.0, 200.0])[labels])[:, None], float)
    found = {}
    for k in (6, 11):
        model = vb.BayesianPoissonMixture(k, weight_prior="dirichlet_process").resolve(x)
        params, bound = swept_from(model, x, labels)
        first = jax.tree.map(lambda leaf: leaf[:3], (params.components, params.weights))
        found[k] = first, bound, params.weights.mean[:3]
    # the tail of the process: what the components without rows take of these
    for few, more in zip(jax.tree.leaves(found[6]), jax.tree.leaves(found[11]), strict=True):
        np.testing.assert_allclose(few, more, rtol=1e-3)
    assert abs(found[6][1] - found[11][1]) < 1e-2
