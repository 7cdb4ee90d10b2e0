"""One table of hidden Markov models with data for each, and a second implementation of them by enumeration.

Paths of states are listed, all of them, and densities are scipy's; nothing here knows of forward-backward.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

import vbjax as vb
from tests.support import registry
from tests.support.autoregressive_twins import matrix_normal_kl, regressions, wishart_means, with_lags
from tests.support.points import shares
from tests.support.registry import updates
from tests.support.textbook import LOG_2PI, Posterior, dirichlet_term, expected_log
from vbjax.families import DirichletState

K, LENGTHS = 3, (6, 1, 5, 6)  # states; steps of four sequences, two of them missing
WEIGHTS = np.array([2.0, 1.0, 0.5, 1.0])
GAUSSIAN = registry.COVARIANCE_TYPES

M = 2  # components of a state that has several

STICKY = dict(initial_concentration=1.5, transition_concentration=2.0, stickiness=1.0)
MODELS = {
    **{f"EM {kind}": vb.GaussianHMM(K, kind) for kind in GAUSSIAN},
    **{f"VB {kind}": vb.BayesianGaussianHMM(K, kind) for kind in GAUSSIAN},
    "EM counts": vb.PoissonHMM(K),
    "VB counts": vb.BayesianPoissonHMM(K),
    "EM categories": vb.CategoricalHMM(K, n_categories=4),
    "VB categories": vb.BayesianCategoricalHMM(K, n_categories=4),
    "EM binary": vb.HiddenMarkovModel(K, vb.components.Bernoulli()),
    "VB positive": vb.BayesianGammaHMM(K, known_shape=3.0),
    "EM positive": vb.GammaHMM(K, learn_shape=True),
    "EM auto": vb.AutoregressiveHMM(K, covariance_floor=0.05),  # as some of so few steps reach
    "VB auto": vb.BayesianAutoregressiveHMM(K),
    "MAP counts": vb.PoissonHMM(K, **STICKY),
    "VB full, holes": vb.BayesianGaussianHMM(K, missing=True, **STICKY),
    "EM full, nested": vb.MixtureHMM(K, M),
    "MAP full, nested": vb.MixtureHMM(K, M, weight_concentration=3.0),
    "VB counts, nested": vb.BayesianHiddenMarkovModel(
        K, vb.components.Mixture(M, vb.components.Poisson(), weights=vb.labels.StickBreaking())
    ),
}


AUTOREGRESSIVE = ("EM auto", "VB auto")  # test_autoregressive.py


def kind_of(name):
    return name.split(",")[0].split(" ")[1]


def series(name):
    """Sequences (t, d) as arrays; of two steps nothing is seen."""
    kind = kind_of(name)
    make = registry.table if kind in (*GAUSSIAN, "auto") else getattr(registry, kind)
    rows = np.array(make(np.random.default_rng(0))[: sum(LENGTHS)], float)
    rows[[2, -1]] = np.nan
    if "holes" in name:
        rows[[0, 8], [1, 0]] = np.nan
    return np.split(rows, np.cumsum(LENGTHS)[:-1])


def in_dtype(sequences, dtype):
    """Sequences in one part of the table's shape, so that programs are shared; others as they are."""
    n, longest = len(LENGTHS), max(LENGTHS)
    given = vb.Sequences.of([np.asarray(x, dtype) for x in sequences])
    if len(sequences) > n or max(map(len, sequences)) > longest:
        return given
    like = vb.Sequences.of([np.zeros((longest, *sequences[0].shape[1:]), dtype)] * n)
    return given.in_parts_of(like)


def concentrations(seed=0, k=K):
    """Of a chain without any symmetry."""
    rng = np.random.default_rng(seed)
    return dict(initial=rng.uniform(1.5, 4, k), transitions=rng.uniform(1.5, 4, (k, k)))


@jax.jit
def begun(model, key, data, weights=None):
    """The model with its defaults filled in, and where a run of it begins."""
    model = model.resolve(data, weights)
    return model, model.init(key, data, weights)


def started(model, sequences, dtype, weights=WEIGHTS, seed=0):
    """The model as a fit would use it, its data and weights, and where it starts."""
    weights = None if weights is None else jnp.asarray(weights, dtype)
    data = model.read(in_dtype(sequences, dtype))
    model, params = begun(model.inspect(data), jax.random.key(seed), data, weights)
    for name, value in concentrations(seed, model.n_states).items():
        value = jnp.asarray(value, dtype)
        params |= {name: shares(value - 1) if model.points else DirichletState(value)}
    return model, data, weights, params


@functools.cache
def trajectory(name, dtype):
    """The updates of a model of the table."""
    model, data, weights, params = started(MODELS[name], series(name), dtype)
    return model, data, weights, updates(model, params, data, weights)


def same_program(name, sequences, weights=WEIGHTS, params=None, dtype="float64"):
    """The updates of other sequences, with the table's model and start, and the program that is compiled."""
    model, _, _, (start, *_) = trajectory(name, dtype)
    given, weights = model.read(in_dtype(sequences, dtype)), jnp.asarray(weights, dtype)
    return updates(model, at(start, 0) if params is None else params, given, weights)


def whole(x):
    """The sequences with numbers where nothing was seen."""
    return [np.where(np.isnan(s), np.nanmedian(np.concatenate(x), 0).round(), s) for s in x]


def at(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)  # an index into a JAX array is a program


# ---------------------------------------------------------------- all paths


@functools.cache
def all_paths(k, t):
    return np.array(list(itertools.product(range(k), repeat=t)))


def path_weights(chain, table):
    """Log weights of all paths, from log weights (initial, transitions) and densities (t, k)."""
    initial, transitions = chain
    t, k = table.shape
    paths = all_paths(k, t)
    steps = transitions[paths[:, :-1], paths[:, 1:]].sum(1)
    return paths, initial[paths[:, 0]] + steps + table[np.arange(t), paths].sum(1)


def log_normalizer(chain, table):
    return special.logsumexp(path_weights(chain, table)[1])


def marginals(chain, table):
    """p(z_t = k), (t, k), and sums of pairs (k, k)."""
    paths, log = path_weights(chain, table)
    p, k = special.softmax(log), table.shape[1]
    one = np.eye(k)[paths]
    return np.einsum("p,ptk->tk", p, one), np.einsum("p,pti,ptj->ij", p, one[:, :-1], one[:, 1:])


# ---------------------------------------------------------------- densities by scipy


def as_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


def gaussian_posterior(kind, components):
    ones = DirichletState(jnp.ones(len(components.location)))
    return Posterior.of(kind, vb.Record(weights=ones, components=components))


def table_of(name, model, params, x):
    """log p(x_t | z_t), or its expectation, (t, k); 0 where nothing is seen. Of all components if nested."""
    kind, x, em = kind_of(name), np.asarray(x, float), components_of(model)
    seen = ~np.isnan(x).all(1)
    table = np.zeros((len(x), em.n_laws))
    if kind == "auto":
        x, seen = with_lags(x)
    table[seen] = (points if em.points else expected)(kind, em, params.components, x[seen])
    if "shares" in params:  # such a step has no component; together they weigh as much as their state
        log = log_weights(model, params.shares)
        table[~seen] = np.repeat(-special.logsumexp(log, -1), log.shape[1])
    return table


def components_of(model):
    """The component of all laws that there are."""
    own = model.component
    return own.component if isinstance(own, vb.components.Mixture) else own


@jax.jit
def normals_of(component, components):
    """Means and covariances."""
    params = vb.Record(components=components)
    return component.means(params), component.covariances(params)


def points(kind, em, components, x):
    if kind in GAUSSIAN:
        normals = itertools.starmap(stats.multivariate_normal, zip(*normals_of(em, components), strict=True))
        return np.stack([normal.logpdf(x) for normal in normals], -1).reshape(len(x), -1)
    if kind == "auto":
        (weights, covariances), q = regressions(em, components), x.shape[1] - em.response_shape[0]
        left = x[:, q:] - x[:, :q] @ weights
        each = [stats.multivariate_normal(cov=c).logpdf(y) for y, c in zip(left, covariances, strict=True)]
        return np.stack(each, -1).reshape(len(x), len(each))
    p, x = as_numpy(components.mean), x[:, None]
    if kind == "categories":
        p = np.maximum(p, np.finfo(float).tiny)
        return np.log(p[:, np.arange(x.shape[2]), x[:, 0].astype(int)]).sum(-1).T
    density = {
        "counts": lambda: stats.poisson.logpmf(x, p),
        "binary": lambda: stats.bernoulli.logpmf(x, p),
        "positive": lambda: stats.gamma.logpdf(x, p.row_shape, scale=1 / p.rate),
    }
    return density[kind]().sum(-1)


def expected(kind, em, components, x):
    if kind in GAUSSIAN:
        q = gaussian_posterior(kind, components)
        d, shift = x.shape[1], x[:, None] - q.location
        square = d / q.beta + np.einsum("nki,kij,nkj->nk", shift, q.expected_precision, shift)
        return 0.5 * (q.expected_logdet - d * LOG_2PI - square)
    q = as_numpy(components)
    if kind == "auto":
        weights, _ = regressions(em, components)
        split, d = x.shape[1] - em.response_shape[0], em.response_shape[0]
        logdet, precision = wishart_means(q)
        u, left = x[:, :split].copy(), x[:, split:] - x[:, :split] @ weights
        u[:, :-1] -= np.asarray(em.center)
        spread = np.einsum("ni,kij,nj->nk", u, np.linalg.inv(q.mean_precision), u)
        square = np.einsum("kni,kij,knj->nk", left, precision, left) + d * spread
        return 0.5 * (logdet - d * LOG_2PI - square)
    if kind == "categories":
        log = expected_log(q.concentration)
        return sum(log[:, j, x[:, j].astype(int)].T for j in range(x.shape[1]))
    log, mean = special.digamma(q.concentration) - np.log(q.rate), q.concentration / q.rate
    if kind == "counts":
        return x @ log.T - mean.sum(-1) - special.gammaln(x + 1).sum(-1, keepdims=True)
    s = np.asarray(em.known_shape, float)
    constant = ((s - 1) * np.log(x) - special.gammaln(s)).sum(-1, keepdims=True)
    return (s * log).sum(-1) - x @ mean.T + constant


# ---------------------------------------------------------------- divergences from the prior


def gamma_kl(q, p):
    a, b, a0, b0 = q.concentration, q.rate, p.concentration, p.rate
    log = a0 * np.log(b / b0) - special.gammaln(a) + special.gammaln(a0)
    return ((a - a0) * special.digamma(a) + log + a * (b0 - b) / b).sum()


def as_wisharts(q):
    """Degrees of freedom (k,) and inverse scales (k, d, d) of Wisharts with these factors' exponents."""
    k, d = q.location.shape
    if q.kind == "tied":
        return np.full(k, q.nu / k), np.tile(q.inverse_scale / k, (k, 1, 1))
    if q.kind == "diag":
        return q.nu[:, 0], q.inverse_scale[:, :, None] * np.eye(d)
    if q.kind == "spherical":
        return q.nu / d, q.inverse_scale[:, None, None] / d * np.eye(d)
    return q.nu, q.inverse_scale


def gaussian_kl(q, p):
    """Normal-Wishart: <eta_q - eta_p, E[t]> less the difference of log-normalisers."""
    d, lam = q.location.shape[1], q.expected_precision
    (nu, scale), (nu0, scale0) = as_wisharts(q), as_wisharts(p)
    outer = lambda s: s.beta[:, None, None] * np.einsum("ki,kj->kij", s.location, s.location)
    toward = np.einsum("kij,kj->ki", lam, q.location)
    square = d / q.beta + (toward * q.location).sum(-1)
    inner = -(q.beta - p.beta) * square - np.einsum("kij,kij->k", scale - scale0 + outer(q) - outer(p), lam)
    inner += 2 * ((q.beta[:, None] * q.location - p.beta[:, None] * p.location) * toward).sum(-1)
    inner += (nu - nu0) * q.expected_logdet
    shift = 0.5 * d * np.log(2) * (nu - nu0).sum()
    return 0.5 * inner.sum() - shift - (q.log_normalizer() - p.log_normalizer())


def divergence(name, model, components):
    """KL(q || p) of the components."""
    kind, em = kind_of(name), components_of(model)
    if kind in GAUSSIAN:
        return gaussian_kl(gaussian_posterior(kind, components), gaussian_prior(em))
    q, p = as_numpy(components), as_numpy(em.prior)
    if kind == "auto":
        return matrix_normal_kl(q, p)
    if kind == "categories":
        return -dirichlet_term(p.concentration, q.concentration)
    return gamma_kl(q, p)


def shares_prior(weights):
    """Concentrations of the shares of every state; None for none."""
    if weights.concentration is None:
        return None
    alpha, process = float(weights.concentration), isinstance(weights, vb.labels.StickBreaking)
    return np.tile([1.0, alpha] if process else [alpha] * M, (K, 1))


def gaussian_prior(component):
    """That of all laws, with weights that are uniform on the simplex."""
    k = component.n_laws
    return Posterior.prior(vb.BayesianMixture(k, component, vb.labels.Weights(1.0)), k)


def concentration_of(state):
    """Of a Dirichlet; a stick of two pieces is one."""
    pieces = ("concentration",) if hasattr(state, "concentration") else ("concentration1", "concentration0")
    return np.concatenate([np.asarray(getattr(state, name), float) for name in pieces], -1)


def log_weights(model, state):
    """Logarithms of the points, or expected ones."""
    if model.points:
        with np.errstate(divide="ignore"):
            return np.log(np.asarray(state.mean, float))
    return expected_log(concentration_of(state))


def chain_of(model, params):
    """Log weights of the chain; of that of all components if states have several."""
    initial, transitions = (log_weights(model, params[name]) for name in ("initial", "transitions"))
    if "shares" not in params:
        return initial, transitions
    shares = log_weights(model, params.shares).ravel()
    return np.repeat(initial, M) + shares, np.repeat(np.repeat(transitions, M, 0), M, 1) + shares


def objective_by_hand(name, model, params, sequences, weights=WEIGHTS):
    """Log likelihood, or Beal (2003): log-normalisers of sub-normalised chains less the divergences."""
    chain = chain_of(model, params)
    each = [log_normalizer(chain, table_of(name, model, params, x)) for x in sequences]
    total = weights @ np.array(each)
    prior = dict(initial=model.chain.initial_concentration, transitions=model.chain.transition_concentration)
    if "shares" in params:
        prior["shares"] = shares_prior(model.component.weights)
    if model.chain.transition_concentration is not None:
        own = float(model.chain.stickiness) * np.eye(model.n_states)
        prior["transitions"] = np.asarray(model.chain.transition_concentration, float) + own
    if model.points:
        for key, alpha in prior.items():
            if alpha is not None:
                p = np.atleast_2d(params[key].mean).astype(float)
                rows = zip(np.broadcast_to(np.asarray(alpha, float), p.shape), p, strict=True)
                total += sum(stats.dirichlet.logpdf(p, a) for a, p in rows)
        return total
    for key, alpha in prior.items():
        total += dirichlet_term(np.asarray(alpha, float), concentration_of(params[key]))
    return total - divergence(name, model, params.components)
