"""Targets whose means and standard deviations are known: they calibrate what black-box fits say.

The moments are closed forms where there are some, or those of posteriordb's reference draws. Of the others
they are those of long chains, in `blackbox_references.json` with how they were made;
`python -m bench.blackbox_targets` makes them again, with NumPyro's NUTS.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import sklearn.datasets
from jax import Array
from jax.scipy.special import log_ndtr, logsumexp

import vbjax as vb
from notebooks.posteriors import NAMES, Posterior, normal, posterior
from vbjax.blackbox.approximation import constrain

REFERENCES = pathlib.Path(__file__).with_name("blackbox_references.json")
N_CHAINS, N_WARMUP, N_DRAWS = 4, 2_000, 20_000


def _vector(
    log_density: Callable[..., Array], mean: Any, sd: Any, d: int | None = None, **data: Any
) -> Posterior:
    """Return a target of one real vector x, whose moments are known."""
    mean, sd = (np.broadcast_to(np.asarray(moment, float), (d or np.size(moment),)) for moment in (mean, sd))
    data = {name: np.asarray(value, float) for name, value in data.items()}
    return Posterior(
        lambda s, d: log_density(s.x, **d), dict(x=vb.real(len(mean))), lambda s, d: s.x, data, mean, sd
    )


def gaussian(d: int, condition: float) -> Posterior:
    """Return a normal whose covariance has a condition number and random axes."""
    rng = np.random.default_rng(d)
    axes, mean = np.linalg.qr(rng.normal(size=(d, d)))[0], rng.normal(size=d)
    sds = np.geomspace(condition**-0.25, condition**0.25, d)
    density = lambda x, whiten, centre: -0.5 * ((whiten @ (x - centre)) ** 2).sum()
    return _vector(density, mean, np.sqrt((axes**2) @ sds**2), whiten=axes.T / sds[:, None], centre=mean)


def student(d: int, df: float) -> Posterior:
    """Return a multivariate Student-t of unit scale."""
    return _vector(lambda x: -0.5 * (df + d) * jnp.log1p((x @ x) / df), 0, (df / (df - 2)) ** 0.5, d)


def log_gamma(d: int, shape: float) -> Posterior:
    """Return the logarithms of independent gamma variables."""
    mean, sd = scipy.special.digamma(shape), scipy.special.polygamma(1, shape) ** 0.5
    return _vector(lambda x: (shape * x - jnp.exp(x)).sum(), mean, sd, d)


def skew_normal(d: int, slant: float) -> Posterior:
    """Return independent skew-normals (Azzalini 1985)."""
    mean = slant / np.sqrt(1 + slant**2) * np.sqrt(2 / np.pi)
    return _vector(lambda x: (-0.5 * x**2 + log_ndtr(slant * x)).sum(), mean, np.sqrt(1 - mean**2), d)


def banana(bend: float) -> Posterior:
    """Return x ~ N(0, 1), y | x ~ N(bend (x^2 - 1), 1)."""
    density = lambda x: -0.5 * x[0] ** 2 - 0.5 * (x[1] - bend * (x[0] ** 2 - 1)) ** 2
    return _vector(density, 0, [1, np.sqrt(1 + 2 * bend**2)], 2)


def funnel(d: int, width: float) -> Posterior:
    """Return v ~ N(0, width^2) and d - 1 numbers N(0, exp(v)) (Neal 2003)."""

    def density(x: Array) -> Array:
        return -0.5 * (x[0] / width) ** 2 - 0.5 * (x[1:] ** 2).sum() * jnp.exp(-x[0]) - 0.5 * (d - 1) * x[0]

    return _vector(density, 0, [width, *[np.exp(width**2 / 4)] * (d - 1)], d)


def modes(weights: Any, centres: Any) -> Posterior:
    """Return a mixture of unit normals."""
    weights, centres = np.asarray(weights, float), np.asarray(centres, float)
    mean = weights @ centres
    sd = np.sqrt(1 + weights @ (centres - mean) ** 2)

    def density(x: Array, weights: Array, centres: Array) -> Array:
        return logsumexp(jnp.log(weights) - 0.5 * ((x - centres) ** 2).sum(-1))

    return _vector(density, mean, sd, weights=weights, centres=centres)


# -- posteriors whose moments are those of long chains ------------------------------------------------------


def _standardised(x: np.ndarray) -> np.ndarray:
    """Return the columns in units of their standard deviations, after a column of ones."""
    return np.column_stack([np.ones(len(x)), (x - x.mean(0)) / x.std(0)])


def logistic(x: np.ndarray, y: np.ndarray) -> tuple[Any, ...]:
    """Return a logistic regression with N(0, 2.5^2) coefficients."""

    def density(s: Any, d: Any) -> Array:
        z = d["x"] @ s.w
        return normal(s.w, 0, 2.5).sum() + (d["y"] * z - jax.nn.softplus(z)).sum()

    return density, dict(w=vb.real(x.shape[1] + 1)), lambda s, d: s.w, dict(x=_standardised(x), y=y)


def counts(x: np.ndarray, y: np.ndarray) -> tuple[Any, ...]:
    """Return a Poisson regression with N(0, 2.5^2) coefficients."""

    def density(s: Any, d: Any) -> Array:
        z = d["x"] @ s.w
        return normal(s.w, 0, 2.5).sum() + (d["y"] * z - jnp.exp(z)).sum()

    return density, dict(w=vb.real(x.shape[1] + 1)), lambda s, d: s.w, dict(x=_standardised(x), y=y)


def horseshoe() -> tuple[Any, ...]:
    """Return a regression on five columns, of which one matters, with a horseshoe prior, non-centred."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(25, 5))
    y = x @ [1.5, 0, 0, 0, 0] + rng.normal(size=25)
    weights = lambda s: s.tau * s.width * s.z

    def density(s: Any, d: Any) -> Array:
        prior = normal(s.z, 0, 1.0).sum() - jnp.log1p(s.width**2).sum() - jnp.log1p((s.tau / 0.5) ** 2)
        return prior + normal(d["y"], d["x"] @ weights(s), 1.0).sum()

    support = dict(z=vb.real(5), width=vb.positive(5), tau=vb.positive())
    return density, support, lambda s, d: weights(s), dict(x=x, y=y)


def gaussian_process() -> tuple[Any, ...]:
    """Return the length scale, size and noise of a Gaussian process, its values integrated out."""
    rng = np.random.default_rng(1)
    x = np.sort(rng.uniform(0, 10, 25))
    y = np.sin(x) + 0.3 * rng.normal(size=25)

    def density(s: Any, d: Any) -> Array:
        apart = (d["x"][:, None] - d["x"]) / s.length
        covariance = s.size**2 * jnp.exp(-0.5 * apart**2) + s.noise**2 * jnp.eye(
            len(apart), dtype=apart.dtype
        )
        root = jnp.linalg.cholesky(covariance)
        white = jax.scipy.linalg.solve_triangular(root, d["y"], lower=True)
        prior = sum(-0.5 * jnp.log(v) ** 2 - jnp.log(v) for v in (s.length, s.size, s.noise))
        return prior - 0.5 * white @ white - jnp.log(jnp.diagonal(root)).sum()

    support = dict(length=vb.positive(), size=vb.positive(), noise=vb.positive())
    return density, support, lambda s, d: jnp.stack([s.length, s.size, s.noise]), dict(x=x, y=y)


def enzyme() -> tuple[Any, ...]:
    """Return the rates of dS/dt = -v S / (k + S), S(0) = 5 (Michaelis & Menten), from noisy S."""

    def path(v: Any, k: Any, like: Any) -> Array:
        slope = lambda amount: -v * amount / (k + amount)

        def step(amount: Any, _: None) -> tuple[Any, Any]:
            h = 0.5
            one = slope(amount)
            two = slope(amount + 0.5 * h * one)
            three = slope(amount + 0.5 * h * two)
            four = slope(amount + h * three)
            amount = amount + h / 6 * (one + 2 * two + 2 * three + four)
            return amount, amount

        return jax.lax.scan(step, jnp.full_like(like, 5), length=16)[1]

    rng = np.random.default_rng(2)
    exact = np.asarray(path(1.0, 2.0, jnp.zeros(())))
    y = exact + 0.15 * rng.normal(size=16)

    def density(s: Any, d: Any) -> Array:
        prior = sum(-0.5 * jnp.log(x) ** 2 - jnp.log(x) for x in (s.v, s.k, s.noise))
        return prior + normal(d["y"], path(s.v, s.k, s.v), s.noise).sum()

    support = dict(v=vb.positive(), k=vb.positive(), noise=vb.positive())
    return density, support, lambda s, d: jnp.stack([s.v, s.k, s.noise]), dict(y=y)


def _tables() -> dict[str, Callable[[], tuple[Any, ...]]]:
    cancer = sklearn.datasets.load_breast_cancer()
    iris = sklearn.datasets.load_iris()
    linnerud, diabetes = sklearn.datasets.load_linnerud(), sklearn.datasets.load_diabetes()
    later = iris.target > 0
    return {
        "logistic, cancer": lambda: logistic(cancer.data[:, :5], cancer.target),
        "logistic, iris": lambda: logistic(iris.data[later], iris.target[later] - 1),
        "Poisson, linnerud": lambda: counts(linnerud.target, linnerud.data[:, 0]),
        "Poisson, diabetes": lambda: counts(diabetes.data, diabetes.target),
        "horseshoe": horseshoe,
        "Gaussian process": gaussian_process,
        "enzyme": enzyme,
    }


CHAINED = _tables()
CLOSED: dict[str, Callable[[], Posterior]] = {
    "normal 2, 1e6": lambda: gaussian(2, 1e6),
    "normal 10, 1": lambda: gaussian(10, 1),
    "normal 30, 1e4": lambda: gaussian(30, 1e4),
    "normal 100, 1e6": lambda: gaussian(100, 1e6),
    "Student-t 5, df 3": lambda: student(5, 3),
    "Student-t 5, df 10": lambda: student(5, 10),
    "Student-t 2, df 30": lambda: student(2, 30),
    "log-gamma 1": lambda: log_gamma(3, 1),
    "log-gamma 0.2": lambda: log_gamma(3, 0.2),
    "skew-normal": lambda: skew_normal(3, 5),
    "banana 0.3": lambda: banana(0.3),
    "banana 2": lambda: banana(2),
    "funnel 1": lambda: funnel(4, 1),
    "funnel 3": lambda: funnel(4, 3),
    "two modes, near": lambda: modes([0.5, 0.5], [[0.0], [3.0]]),
    "two modes, far": lambda: modes([0.6, 0.4], [[0.0, 0.0], [9.0, 4.0]]),
    "a mode of 0.1 %": lambda: modes([0.999, 0.001], [[0.0, 0.0], [7.0, 0.0]]),
    "three modes": lambda: modes([0.5, 0.3, 0.2], [[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]),
}
TARGETS = (*NAMES, *CLOSED, *CHAINED)


def target(name: str) -> Posterior:
    """Return one of `TARGETS`, its data in the default float's dtype."""
    if name in NAMES:
        return posterior(name)
    if name in CLOSED:
        found = CLOSED[name]()
    else:
        reference = json.loads(REFERENCES.read_text(encoding="utf-8"))[name]
        found = Posterior(*CHAINED[name](), *(np.asarray(reference[what]) for what in ("mean", "sd")))
    dtype = jnp.result_type(float)
    return found._replace(data={key: np.asarray(value, dtype) for key, value in found.data.items()})


def reference(name: str) -> dict[str, Any]:
    """Compute the means and standard deviations of a posterior from chains of NUTS, in float64."""
    from numpyro.diagnostics import effective_sample_size, gelman_rubin
    from numpyro.infer import MCMC, NUTS

    log_density, support, reported, data = CHAINED[name]()
    model = vb.BlackBox(log_density, support)
    data = jax.tree.map(lambda x: jnp.asarray(x, float), data)
    kernel = NUTS(potential_fn=lambda u: -model.log_joint(u, data), target_accept_prob=0.95)
    chains = []
    for chain in range(N_CHAINS):
        sampler = MCMC(kernel, num_warmup=N_WARMUP, num_samples=N_DRAWS, progress_bar=False)
        start = 0.5 * jax.random.normal(jax.random.key(100 + chain), (model.size,))
        sampler.run(jax.random.PRNGKey(chain), init_params=start)
        chains.append(jax.vmap(lambda u: reported(constrain(support, u)[0], data))(sampler.get_samples()))
    table = np.asarray(jnp.stack(chains))
    rows = table.reshape(-1, table.shape[-1])
    return {
        "mean": rows.mean(0).tolist(),
        "sd": rows.std(0).tolist(),
        "least effective size": round(float(effective_sample_size(table).min())),
        "largest split R-hat": round(float(gelman_rubin(table).max()), 5),
        "how": f"NumPyro's NUTS, {N_CHAINS} chains of {N_DRAWS} draws, target acceptance 0.95, float64",
    }


def main() -> None:
    """Compute all references, and write the file."""
    with jax.enable_x64(True):
        found = {}
        for name in CHAINED:
            found[name] = reference(name)
            print(name, found[name], flush=True)
    REFERENCES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
