"""Models that BayesPy has too: the same data, priors, factors of q and start, to the same bound; float64.

Its seconds are those of its updates and of the bound after each, until the bound is within 1e-6 of the
optimum (relative); ours those of `vb.fit` inside `jit`, at the tolerance that takes it there.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import bayespy.nodes as nodes
import jax
import jax.numpy as jnp
import numpy as np
from bayespy.inference import VB
from bayespy.inference.vmp.transformations import RotateGaussianARD, RotationOptimizer

import vbjax as vb
from bench.measure import interleaved, table
from vbjax import terms
from vbjax.families import MultivariateNormalState
from vbjax.inference.resolution import resolved
from vbjax.numerics.special import LOG_2PI

K, SIZES, LIMIT = 4, (500, 5000), 1000


class Match(NamedTuple):
    """One model twice: ours with its data and start, and a maker of theirs at that start."""

    model: Any
    data: Any
    peer: Callable[[Any, Any, Any], VB]
    start: Callable[[Any, Any], Any] | None = None


# -- theirs: (resolved model, data, start) -> VB, whose nodes are updated in the order given -----------------


def peer_mean_and_precision(model: Any, x: np.ndarray, start: Any) -> VB:
    tau = nodes.Gamma(model.concentration, model.rate)
    mu = nodes.GaussianARD(model.location, tau)
    tau.initialize_from_parameters(start.tau.concentration, start.tau.rate)
    y = nodes.GaussianARD(mu, tau, plates=x.shape)
    y.observe(x)
    return VB(y, mu, tau)


def peer_relevance(model: Any, data: Any, start: Any) -> VB:
    x, y = data
    alpha = nodes.Gamma(model.relevance_concentration, model.relevance_rate, plates=x.shape[1:])
    tau = nodes.Gamma(model.concentration, model.rate)
    alpha.initialize_from_parameters(start.alpha.concentration, start.alpha.rate)
    tau.initialize_from_parameters(start.tau.concentration, start.tau.rate)
    w = nodes.GaussianARD(0, alpha, shape=x.shape[1:])
    rows = nodes.GaussianARD(nodes.SumMultiply("i,i", w, x), tau)
    rows.observe(y)
    return VB(rows, w, alpha, tau)


def peer_pca(model: Any, x: np.ndarray, start: Any) -> VB:
    p, q = start.w.mean.shape
    alpha = nodes.Gamma(model.relevance_concentration, model.relevance_rate, plates=(q,))
    tau = nodes.Gamma(model.concentration, model.rate)
    w = nodes.GaussianARD(0, alpha, shape=(q,), plates=(p, 1))
    z = nodes.GaussianARD(0, 1, shape=(q,), plates=(1, len(x)))
    mu = nodes.GaussianARD(model.location[:, None], model.location_precision[:, None], plates=(p, 1))
    y = nodes.GaussianARD(nodes.Add(nodes.SumMultiply("d,d->", w, z), mu), tau)
    alpha.initialize_from_parameters(start.alpha.concentration, start.alpha.rate)
    tau.initialize_from_parameters(start.tau.concentration, start.tau.rate)
    mu.initialize_from_parameters(start.mu.mean[:, None], start.mu.precision[:, None])
    w.initialize_from_value(start.w.mean[:, None])
    y.observe(x.T)
    both = VB(y, z, w, mu, alpha, tau)
    turn = RotationOptimizer(RotateGaussianARD(w, alpha), RotateGaussianARD(z), q)
    both.set_callback(lambda: turn.rotate(maxiter=5))
    return both


def peer_mixture(model: Any, x: np.ndarray, start: Any, node: Any, components: Any, *at: Any) -> VB:
    """A mixture of independent columns: labels, then components, then weights."""
    weights = nodes.Dirichlet(np.full(K, float(model.weights.concentration)))
    weights.initialize_from_parameters(start.weights.concentration)
    labels = nodes.Categorical(weights, plates=(len(x), 1))
    components.initialize_from_parameters(*at)
    rows = nodes.Mixture(labels, node, components, cluster_plate=-1)
    rows.observe(x)
    return VB(rows, labels, components, weights)


def peer_bernoulli(model: Any, x: np.ndarray, start: Any) -> VB:
    c, prior = start.components, model.component.prior
    p = np.stack([prior.concentration1.T, prior.concentration0.T], -1)
    node = nodes.Beta(p, plates=(x.shape[1], K))
    at = np.stack([c.concentration1.T, c.concentration0.T], -1)
    return peer_mixture(model, x.astype(int), start, nodes.Bernoulli, node, at)


def peer_poisson(model: Any, x: np.ndarray, start: Any) -> VB:
    c, prior = start.components, model.component.prior
    node = nodes.Gamma(prior.concentration.T, prior.rate.T, plates=(x.shape[1], K))
    return peer_mixture(model, x.astype(int), start, nodes.Poisson, node, c.concentration.T, c.rate.T)


def peer_categorical(model: Any, x: np.ndarray, start: Any) -> VB:
    prior = nodes.Dirichlet(np.swapaxes(model.component.prior.concentration, 0, 1), plates=(x.shape[1], K))
    at = np.swapaxes(start.components.concentration, 0, 1)
    return peer_mixture(model, x, start, nodes.Categorical, prior, at)


def peer_normals(model: Any, x: np.ndarray, start: Any) -> VB:
    h, d = model.hyper, x.shape[1]
    weights = nodes.Dirichlet(np.asarray(h.concentration))
    weights.initialize_from_parameters(start.weights.concentration)
    labels = nodes.Categorical(weights, plates=(len(x),))
    precision = nodes.Wishart(float(h.nu), np.asarray(h.inverse_scale), plates=(K,))
    precision.initialize_from_parameters(start.Lam.degrees_of_freedom, start.Lam.inverse_scale)
    mu = nodes.Gaussian(np.asarray(h.m0), float(h.beta) * np.eye(d), plates=(K,))
    mu.initialize_from_parameters(start.mu.mean, start.mu.precision)
    rows = nodes.Mixture(labels, nodes.Gaussian, mu, precision)
    rows.observe(x)
    return VB(rows, labels, mu, precision, weights)


# -- ours: the one that is no ready-made model ---------------------------------------------------------------


def normals(d: int) -> vb.Model:
    """A Gaussian mixture with q(mu) q(Lam) apart, as BayesPy has it; NormalWishart factors are not in it."""

    def prior(s: Any) -> Any:
        location = terms.multivariate_normal(s.mu, s.m0, s.beta * jnp.eye(d)).sum()
        scatter = terms.wishart(s.Lam, s.nu, s.inverse_scale).sum()
        return terms.dirichlet(s.weights, s.concentration) + location + scatter

    def rows(s: Any, x: Any) -> Any:
        # E[(x - mu)' Lam (x - mu)] about m0 by products: x'Lam x - 2 x'Lam mu + tr Lam mu mu'
        x, mu = x - s.m0, s.mu.about(jnp.broadcast_to(s.m0, s.mu.pivot.shape))
        squares = (x[:, :, None] * x[:, None, :]).reshape(-1, d * d)
        flat = s.Lam.value.reshape(K, -1)
        pull = (s.Lam.value @ mu.first[..., None])[..., 0]
        own = (s.Lam.value * mu.second).sum((-1, -2))
        table = s.Lam.logdet - d * LOG_2PI - squares @ flat.T + 2 * x @ pull.T - own
        return terms.categorical(s.c, s.weights) + 0.5 * (s.c.p * table).sum(-1)

    return vb.Model(
        factors=dict(
            weights=vb.Dirichlet(K),
            mu=vb.MultivariateNormal(plate=(K,), size=d),
            Lam=vb.Wishart(plate=(K,), size=d),
        ),
        local=dict(c=vb.Categorical(K)),
        log_prior=prior,
        log_likelihood=rows,
        hyper=dict(
            concentration=jnp.ones(K),
            m0=jnp.zeros(d),
            beta=jnp.asarray(1e-2),
            nu=jnp.asarray(float(d)),
            inverse_scale=jnp.eye(d),
        ),
        blocks=(("weights", "mu"), ("Lam",)),
    )


def at_rows(model: Any, x: Any) -> Any:
    """Components about rows far from one another."""
    seeds = jnp.concatenate([x.argmin(0), x.argmax(0)])
    params = {name: family.neutral(x.dtype) for name, family in model.factors.items()}
    return vb.Record(params | dict(mu=MultivariateNormalState(x[seeds], params["mu"].precision)))


# -- the race ------------------------------------------------------------------------------------------------


def matches(n: int) -> dict[str, Match]:
    """Data of n rows, the groups overlapping."""
    rng = np.random.default_rng(0)
    c = rng.integers(K, size=n)
    spread = lambda low, high, d: rng.uniform(low, high, (K, d))[c]
    centres = np.array([[-1.0, 0], [1, 0], [0, -1], [0, 1]])
    x = rng.normal(size=(n, 20))
    y = x[:, :5] @ rng.normal(size=5) + rng.normal(size=n)
    flat = rng.normal(size=(n, 3)) @ rng.normal(size=(3, 10)) + 0.5 * rng.normal(size=(n, 10))
    around = 3 * centres[c] + rng.normal(size=(n, 2))
    return {
        "mean and precision": Match(
            vb.textbook.GaussianMeanPrecision(mean_precision=1.0),
            rng.normal(2, 3, size=n),
            peer_mean_and_precision,
        ),
        "linear regression, relevance": Match(
            vb.ARDRegression(fit_intercept=False, offset=0.0), (x, y), peer_relevance
        ),
        "PCA, relevance": Match(vb.BayesianPCA(6), flat, peer_pca),
        "Gaussian mixture, full": Match(normals(2), around, peer_normals, at_rows),
        "Bernoulli mixture": Match(
            vb.BayesianBernoulliMixture(K),
            (rng.uniform(size=(n, 10)) < spread(0.05, 0.95, 10)) * 1.0,
            peer_bernoulli,
        ),
        "Poisson mixture": Match(
            vb.BayesianPoissonMixture(K), rng.poisson(spread(1, 9, 10)) * 1.0, peer_poisson
        ),
        "categorical mixture": Match(
            vb.BayesianCategoricalMixture(K, n_categories=4),
            rng.binomial(3, spread(0.05, 0.95, 10)),
            peer_categorical,
        ),
    }


def climb(both: VB) -> tuple[np.ndarray, np.ndarray]:
    """The bound after each update of all nodes, until it settles; and the seconds that it took so far."""
    bounds: list[float] = []
    taken: list[float] = []
    begun = time.perf_counter()
    while len(bounds) < 2 or (len(bounds) < LIMIT and bounds[-1] - bounds[-2] > 1e-10 * abs(bounds[-1])):
        both.update(repeat=1, verbose=False)
        bounds.append(both.L[both.iter - 1])
        taken.append(time.perf_counter() - begun)
    return np.asarray(bounds), np.asarray(taken)


class Reached(NamedTuple):
    """A fit of ours to a target."""

    milliseconds: float
    sweeps: int
    compile_seconds: float


def reach(model: Any, data: Any, start: Any, accelerate: bool) -> tuple[float, Any]:
    """The optimum, and what gives the way to a target; one program, of which the tolerance is an argument."""

    def run(model: Any, data: Any, start: Any, tol: Any) -> vb.Fit:
        return vb.fit(
            model,
            data,
            key=jax.random.key(0),
            params=start,
            tol=tol,
            max_iter=LIMIT,
            accelerate=accelerate,
        )

    begun = time.perf_counter()
    program = jax.jit(run).lower(model, data, start, 0.0).compile()
    compile_seconds = time.perf_counter() - begun
    fit = lambda tol: program(model, data, start, jnp.asarray(tol))
    trace = np.asarray(fit(0.0).full_trace)

    def to(target: float) -> Reached:
        gains = np.diff(trace[: np.isfinite(trace).sum()])[np.argmax(trace >= target) - 1 :]
        n = jax.tree.leaves(data)[0].shape[0]
        tol = next(tol for tol in np.abs(gains) * (1 + 1e-9) / n if fit(tol).objective >= target)
        (taken,) = interleaved(lambda: fit(tol).objective, repeats=5)
        return Reached(1e3 * taken, int(fit(tol).n_iter), compile_seconds)

    return float(np.nanmax(trace)), to


def race(match: Match) -> list[str]:
    """The cells of one row of the table."""
    data = match.model.read(match.data)
    model = resolved(match.model, data, None)[0]
    start = match.start(model, data) if match.start else begin(model, data)
    best, plain = reach(model, data, start, accelerate=False)
    best_fast, fast = reach(model, data, start, accelerate=True)

    peer = functools.partial(match.peer, *jax.tree.map(np.asarray, (model, data, start)))
    bounds, elapsed = climb(peer())
    target = min(best, best_fast, bounds[-1]) - 1e-6 * abs(best)
    sweeps = int(np.argmax(bounds >= target))
    taken, plain, fast = 1e3 * elapsed[sweeps], plain(target), fast(target)
    return [
        f"{taken:.1f} ({sweeps + 1})",
        f"{plain.milliseconds:.2f} ({plain.sweeps})",
        f"{taken / plain.milliseconds:.1f}x",
        f"{fast.milliseconds:.2f} ({fast.sweeps})",
        f"{taken / fast.milliseconds:.1f}x",
        f"{plain.compile_seconds:.2f}",
        f"{best:.4f}",
        f"{(bounds[-1] - best) / abs(best):.0e}",
    ]


@jax.jit
def begin(model: Any, data: Any) -> Any:
    return model.init(jax.random.key(0), data)


HEADER = [
    "model",
    "n",
    "BayesPy ms (sweeps)",
    "vbjax ms (sweeps)",
    "ratio (target 20x)",
    "accelerated ms (sweeps)",
    "ratio",
    "compile s",
    "bound",
    "BayesPy's less ours, relative",
]


def bayespy(report: list[str]) -> None:
    """Seconds to the same bound."""
    rows = []
    with jax.enable_x64(True):
        for n in SIZES:
            for name, match in matches(n).items():
                rows.append([name, str(n), *race(match)])
                print(*rows[-1], sep="  ", flush=True)
    report += ["## To the same bound as BayesPy, within 1e-6 relative; float64", table(HEADER, rows)]
