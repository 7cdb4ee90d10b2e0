"""How often 90 % intervals cover simulated truths: of q alone, by linear response, and by the bootstrap.

Intervals of q and of linear response are 1.645 standard deviations to both sides of the mean; a rate's are on
the scale of its logarithm. All truths of a case are one program.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import vbjax as vb
from bench.measure import run_parts, table
from vbjax.inference.certificate import own_sds
from vbjax.inference.resolution import resolved

N_TRUTHS, N_DRAWS = 500, 100
_REACH = 1.6449  # sds from the mean of a normal to each end of 90 % of its mass


class Case(NamedTuple):
    """A model, and what its intervals are of.

    Attributes:
        parameter: its name, for the table.
        model: as it is fitted.
        draw: from a key, data and the true values, an array in rising order where components have no labels.
        center: the values' means under q.
        sd: their standard deviations, from those of the statistics of all factors.
        values: the parameter among what the bootstrap returns by name.
        exchangeable: whether they are of components, which are known by their order alone.
        log: whether the values are logarithms of those.
    """

    parameter: str
    model: Any
    draw: Callable[[Array], tuple[Any, Array]]
    center: Callable[[Any], Array]
    sd: Callable[[Any], Array]
    values: Callable[[Any], Array]
    exchangeable: bool = False
    log: bool = False


def normal(key: Array) -> tuple[Array, Array]:
    """Draw 30 rows of a normal, and its mean."""
    keys = jax.random.split(key, 3)
    mean, sd = jax.random.normal(keys[0]), jnp.exp(0.5 * jax.random.normal(keys[1]))
    return mean + sd * jax.random.normal(keys[2], (30,)), mean[None]


def line(key: Array) -> tuple[tuple[Array, Array], Array]:
    """Draw 40 rows of a regression on three columns, and its coefficients."""
    keys = jax.random.split(key, 3)
    coefficients, x = jax.random.normal(keys[0], (3,)), jax.random.normal(keys[1], (40, 3))
    return (x, x @ coefficients + jax.random.normal(keys[2], (40,))), coefficients


def clusters(key: Array) -> tuple[Array, Array]:
    """Draw 100 rows of two normals of unit variance, three and more apart, and their means."""
    keys = jax.random.split(key, 3)
    means = jnp.asarray([-1.5, 1.5]) + jnp.sort(jax.random.uniform(keys[0], (2,)))
    labels = jax.random.bernoulli(keys[1], shape=(100,)).astype(int)
    return means[labels] + jax.random.normal(keys[2], (100,)), means


STEPS = vb.Sequences.of([np.zeros((25, 1), int)] * 20)  # their shapes


def counts(key: Array) -> tuple[Any, Array]:
    """Draw 20 sequences of 25 counts, of two states, and the logarithms of their rates."""
    keys = jax.random.split(key, 3)
    rates = jnp.asarray([2.0, 8.0]) * jnp.exp(0.2 * jax.random.normal(keys[0], (2,)))
    moves = jax.random.bernoulli(keys[1], 0.1, (20, 25))  # a state is left after ten steps
    states = (jnp.cumsum(moves, 1) + (jnp.arange(20) % 2)[:, None]) % 2
    drawn = jax.random.poisson(keys[2], rates[states])[..., None].astype(rates.dtype)
    (part,) = STEPS.parts
    return dataclasses.replace(STEPS, parts=(part._replace(values=drawn),)), jnp.log(rates)


def _regression(s: Any, rows: Any) -> Array:
    x, y = rows
    return vb.terms.normal(y, vb.terms.linear(x, s.w), s.tau)


REGRESSION = vb.Model(  # q(w) q(tau), which the ready-made one does not need
    factors=dict(w=vb.MultivariateNormal(3), tau=vb.Gamma()),
    log_prior=lambda s: vb.terms.normal(s.w, 0.0, 0.01).sum() + vb.terms.gamma(s.tau, 0.01, 0.01),
    log_likelihood=_regression,
)

CASES = {
    "GaussianMeanPrecision": Case(
        "mean",
        vb.textbook.GaussianMeanPrecision(),
        normal,
        lambda params: params.mu.mean[None],
        lambda sds: sds.mu.first[None],
        lambda by_name: by_name.mu[..., None],
    ),
    "linear regression": Case(
        "coefficients",
        REGRESSION,
        line,
        lambda params: params.w.mean,
        lambda sds: sds.w.first,
        lambda by_name: by_name.w,
    ),
    "UnitVarianceMixture": Case(
        "means",
        vb.textbook.UnitVarianceMixture(2),
        clusters,
        lambda params: params.mu.mean,
        lambda sds: sds.mu.first,
        lambda by_name: by_name.mu,
        exchangeable=True,
    ),
    "BayesianPoissonHMM": Case(
        "rates",
        vb.BayesianPoissonHMM(2),
        counts,
        lambda params: params.components.expected().log[:, 0],
        lambda sds: sds.components.log[:, 0],
        lambda by_name: by_name.components[..., 0],
        exchangeable=True,
        log=True,
    ),
}


@functools.partial(jax.jit, static_argnames=("name", "n_draws"))
def _covered(keys: Array, *, name: str, n_draws: int) -> Array:
    """Return of every truth whether intervals of three kinds have each of its values in them."""
    case = CASES[name]

    def one(key: Array) -> Array:
        keys = jax.random.split(key, 3)
        data, truth = case.draw(keys[0])
        fit = vb.fit(case.model, data, key=keys[1], n_restarts=2)
        center = case.center(fit.params)
        order = jnp.argsort(center) if case.exchangeable else jnp.arange(center.size)
        own = own_sds(fit.model, fit.params, resolved(fit.model, data, None)[1], None)
        response = vb.linear_response(fit.model, fit.params, data).sd
        ends = case.values(vb.bootstrap(fit, data, key=keys[2], n=n_draws).interval)
        ends = jnp.log(ends) if case.log else ends
        each = [center + jnp.asarray([[-_REACH], [_REACH]]) * case.sd(sds) for sds in (own, response)]
        low, high = jnp.moveaxis(jnp.stack([*each, ends]), 1, 0)[..., order]
        return (low <= truth) & (truth <= high)

    return jax.lax.map(one, keys)


def coverage(name: str, n_truths: int = N_TRUTHS, n_draws: int = N_DRAWS) -> np.ndarray:
    """Return the share of true values that intervals of q, linear response and the bootstrap cover."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), n_truths)
        return np.asarray(_covered(keys, name=name, n_draws=n_draws)).mean((0, 2))


def intervals(report: list[str]) -> None:
    """Measure all cases."""
    report.append("## Calibration: shares of 500 simulated truths that 90 % intervals cover")
    rows = []
    for name, case in CASES.items():
        begun = time.perf_counter()
        shares = [f"{100 * share:.1f} %" for share in coverage(name)]
        rows.append([name, case.parameter, *shares, f"{time.perf_counter() - begun:.0f}"])
    report.append(table(["model", "of", "q alone", "linear response", "bootstrap", "s"], rows))


def run(only: Sequence[str] | None) -> None:
    run_parts("calibration", dict(intervals=intervals), [], only)
