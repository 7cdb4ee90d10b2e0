"""Models of one's own, one for each way of writing them, that several tests fit."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

import vbjax as vb
from tests.support.rows import N_COMPONENTS
from vbjax.terms import (
    categorical,
    dirichlet,
    dot,
    gamma,
    gauss_markov,
    markov_chain,
    matmul,
    multivariate_normal,
    multivariate_normal_gamma,
    normal,
    poisson,
)


def location_prior(s):
    return normal(s.mu, s.mu0, s.tau0 * s.tau) + gamma(s.tau, s.a, s.b)


def location_rows(s, x):
    return normal(x, s.mu, s.tau)


def mean_and_precision(mu=None, tau=None):
    """The mean and precision of a normal, as a model of one's own."""
    return vb.Model(
        factors=dict(mu=mu or vb.Normal(), tau=tau or vb.Gamma()),
        log_prior=location_prior,
        log_likelihood=location_rows,
        hyper=dict(mu0=0.0, tau0=0.1, a=2.0, b=1.0),
    )


def mixture_prior(s):
    return dirichlet(s.weights, s.concentration) + normal(s.mu, 0.0, s.tau0).sum()


def mixture_rows(s, x):
    rows = normal(x[:, None], s.mu, s.noise)
    return categorical(s.c, s.weights) + (s.c.p * rows).sum(-1)


def univariate_mixture(of=lambda family: family):
    """Normals of one known precision, with unknown weights and means; `of` makes points of factors."""
    return vb.Model(
        factors=dict(weights=of(vb.Dirichlet(N_COMPONENTS)), mu=of(vb.Normal((N_COMPONENTS,)))),
        local=dict(c=of(vb.Categorical(N_COMPONENTS))),
        log_prior=mixture_prior,
        log_likelihood=mixture_rows,
        hyper=dict(concentration=2.0, tau0=0.1, noise=1.5),
        blocks=(("weights", "mu"),),
    )


def scale_prior(s):
    return gamma(s.tau, s.a, s.b) + normal(s.mu, s.mu0, s.tau0 * s.tau).sum()


def without_data():
    """Interacting factors and no rows: the bound approximates the prior itself, log 1."""
    return vb.Model(
        factors=dict(mu=vb.Normal((N_COMPONENTS,)), tau=vb.Gamma()),
        log_prior=scale_prior,
        hyper=dict(mu0=1.0, tau0=2.0, a=3.0, b=1.0),
    )


def own_hidden_markov(k=3):
    """A hidden Markov model of counts of two columns."""
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


def own_state_space(d=2, p=3):
    """A linear-Gaussian state space of p columns."""
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


def own_level():
    """The level about which a known autoregression, seen through noise, goes to and fro: all is normal."""
    eye = jnp.eye(1)
    return vb.Model(
        factors=dict(level=vb.Normal()),
        local=dict(x=vb.GaussMarkov(1)),
        hyper=dict(zero=jnp.zeros(1), eye=eye, one=jnp.ones(1), move=0.8 * eye, noise=2.0, strength=0.5),
        log_prior=lambda s: normal(s.level, 0.0, s.strength),
        log_likelihood=lambda s, y: (
            gauss_markov(s.x, s.zero, s.eye, s.move, 1.0)
            + jnp.where(y.seen, normal(y.filled, dot(s.one, s.x.states) + s.level, s.noise), 0).sum(-1)
        ),
    )


def level_by_hand(sequences):
    """Mean and standard deviation of that level given sequences (t,), of the dense normal."""
    precision, pull = 0.5, 0.0
    for y in sequences:
        t = np.arange(len(y))
        steps = np.tril(0.8 ** np.maximum(t[:, None] - t, 0))
        covariance = steps @ steps.T + np.eye(len(y)) / 2.0
        weights = np.linalg.solve(covariance, np.ones(len(y)))
        precision, pull = precision + weights.sum(), pull + weights @ y
    return pull / precision, precision**-0.5


def own_topics(k=2, v=5, length=6, alpha=0.6, eta=0.4):
    """Latent Dirichlet allocation of documents of so many words each: two local factors that interact."""

    def documents(s, words):
        words_given_topics = jnp.moveaxis(s.topics.log[:, words], 0, -1)  # (n, length, k)
        topics = (s.z.p * (s.theta.log[:, None, :] + words_given_topics)).sum((1, 2))
        return topics + dirichlet(s.theta, s.alpha)

    return vb.Model(
        factors=dict(topics=vb.Dirichlet(v, plate=(k,))),
        local=dict(theta=vb.Dirichlet(k), z=vb.Categorical(k, plate=(length,))),
        log_prior=lambda s: dirichlet(s.topics, s.eta).sum(),
        log_likelihood=documents,
        hyper=dict(alpha=alpha, eta=eta),
    )


def poisson_rows(s, rows):
    """Counts y whose log rate is x w."""
    x, y = rows
    return y * (x @ s.w) - jnp.exp(x @ s.w) - gammaln(y + 1)


def poisson_prior(s):
    return normal(s.w, 0.0, s.tau).sum() + gamma(s.tau, 1.0, 1.0)


def own_poisson_regression(size, n_draws=None):
    """A latent that is not conjugate, and the precision of its prior, which is."""
    return vb.Model(
        factors=dict(tau=vb.Gamma(), w=vb.NonConjugate(vb.real(size), n_draws=n_draws)),
        log_prior=poisson_prior,
        log_likelihood=poisson_rows,
    )


def black_box_poisson_regression(size, **how):
    """The regression with a standard normal prior, of which nothing is known but its density."""
    density = lambda s: -0.5 * (s.w**2).sum()
    return vb.BlackBox(density, dict(w=vb.real(size)), log_likelihood=poisson_rows, **how)
