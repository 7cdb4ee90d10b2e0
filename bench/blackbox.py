"""Black-box variational inference on six posteriors: accuracy, and time beside NumPyro's and blackjax's.

A peer gets the same log density on the same unconstrained vector, in float64, and Adam with the better of the
rates 0.01 and 0.001; its steps run in one compiled scan. It has arrived at the first thousand of steps after
which means and sds of all reported parameters are within 0.1 reference sds and 10 %.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import vbjax as vb
from bench.measure import interleaved, run_parts, seconds, table
from bench.posteriors import NAMES, NEAR_NORMAL, Posterior, posterior
from vbjax.blackbox.approximation import constrain

STEPS = 5000
BLOCK = 1000
MOST = 30  # blocks


def reached(target: Posterior, draws: Any) -> bool:
    """Whether draws of the latents have the reference's means and sds."""
    error, ratio = target.errors(draws)
    return bool(error.max() < 0.1 and abs(ratio - 1).max() < 0.1)


def cells(target: Posterior, draws: Any) -> list[str]:
    """Error of the means, and least and largest ratio of the sds."""
    error, ratio = target.errors(draws)
    return [f"{error.max():.3f}", f"{ratio.min():.3f} to {ratio.max():.3f}"]


def fit_of(target: Posterior, family: str) -> Callable[[int], Any]:
    """A fit with default settings."""
    model = vb.BlackBox(target.log_density, target.support, family=family)
    return lambda seed: vb.fit(model, target.data, key=jax.random.key(seed))


def accuracy(report: list[str]) -> None:
    """Every posterior by every family, with the draws of importance resampling too."""
    rows = []
    with jax.enable_x64(True):
        for name in NAMES:
            target = posterior(name)
            for family in ("full_rank", "mean_field"):
                fitted = fit_of(target, family)
                first = seconds(lambda: fitted(0).objective)  # noqa: B023
                (again,) = interleaved(lambda: fitted(1).objective, repeats=3)  # noqa: B023
                fit = fitted(1)
                draws = fit.params.sample(jax.random.key(2), 100_000)
                better = fit.model.resample(fit.params, jax.random.key(3), 10_000, target.data)
                k_hat = f"{fit.diagnostics.k_hat:.2f}"
                response = "-"
                if family == "mean_field" and name in NEAR_NORMAL:  # which report their latents as they are
                    sd = vb.linear_response(fit.model, fit.params, target.data).sd
                    ratio = np.asarray(target.reported(sd, target.data)) / target.sd
                    response = f"{ratio.min():.3f} to {ratio.max():.3f}"
                times = [f"{first:.1f}", f"{again * 1e3:.0f}", str(int(fit.n_iter)), fit.status.name]
                rows.append(
                    [name, family, *cells(target, draws), *cells(target, better), response, k_hat, *times]
                )
                print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior",
        "family",
        "error of means, reference sds",
        "ratio of sds",
        "error, resampled",
        "ratio, resampled",
        "ratio, linear response",
        "k-hat",
        "first fit s",
        "second fit ms",
        "steps",
        "status",
    ]
    report += ["## Black box: six posteriors at the default settings, float64", table(header, rows)]


class Peer(NamedTuple):
    """`advance(state, key)` makes BLOCK steps; `draws(state, key)` are unconstrained vectors."""

    start: Callable[[Array], Any]
    advance: Callable[[Any, Array], Any]
    draws: Callable[[Any, Array], Array]


def numpyro_peer(log_joint: Callable[[Array], Array], size: int, rate: float) -> Peer:
    """NumPyro's SVI with AutoMultivariateNormal, one particle."""
    import numpyro
    from numpyro import distributions, infer

    def model() -> None:
        u = numpyro.sample(
            "u", distributions.ImproperUniform(distributions.constraints.real_vector, (), (size,))
        )
        numpyro.factor("density", log_joint(u))

    guide = infer.autoguide.AutoMultivariateNormal(model)
    svi = infer.SVI(model, guide, numpyro.optim.Adam(rate), infer.Trace_ELBO())

    @jax.jit
    def advance(state: Any, key: Array) -> Any:
        return jax.lax.scan(lambda s, _: (svi.update(s)[0], None), state, length=BLOCK)[0]

    def draws(state: Any, key: Array) -> Array:
        return guide.sample_posterior(key, svi.get_params(state), sample_shape=(20_000,))["u"]

    return Peer(lambda key: svi.init(key), advance, draws)


def blackjax_peer(log_joint: Callable[[Array], Array], size: int, rate: float) -> Peer:
    """blackjax's fullrank_vi, its default five draws a step."""
    import blackjax

    method = blackjax.fullrank_vi(log_joint, optax.adam(rate))

    @jax.jit
    def advance(state: Any, key: Array) -> Any:
        keys = jax.random.split(key, BLOCK)
        return jax.lax.scan(lambda s, k: (method.step(k, s)[0], None), state, keys)[0]

    def start(key: Array) -> Any:
        return method.init(0.1 * jax.random.normal(key, (size,)))

    return Peer(start, advance, lambda state, key: method.sample(key, state, 20_000))


def race(peer: Peer, target: Posterior, model: Any) -> tuple[float, float]:
    """Seconds of STEPS steps, and until it has arrived (inf: not in MOST blocks), both after compilation."""
    latents = jax.jit(jax.vmap(lambda u: constrain(model.support, u)[0]))
    state = peer.start(jax.random.key(0))
    jax.block_until_ready(peer.advance(state, jax.random.key(1)))
    taken, when = [], np.inf
    for block in range(MOST):
        taken.append(seconds(lambda: state_of(peer.advance(state, jax.random.key(block)))))  # noqa: B023
        state = peer.advance(state, jax.random.key(block))
        if np.isinf(when) and reached(target, latents(peer.draws(state, jax.random.key(2)))):
            when = sum(taken)
        if np.isfinite(when) and len(taken) >= STEPS // BLOCK:
            break
    return min(taken) * STEPS / BLOCK, when


def state_of(state: Any) -> Any:
    """Something to wait for."""
    return jax.tree.leaves(state)


def peers(report: list[str]) -> None:
    """Time of 5,000 steps of the peers beside a whole fit, and time to the accuracy."""
    rows = []
    with jax.enable_x64(True):
        for name in NEAR_NORMAL:
            target = posterior(name)
            fitted = fit_of(target, "full_rank")
            fit = fitted(0)
            (own,) = interleaved(lambda: fitted(1).objective, repeats=5)  # noqa: B023
            ours = own if reached(target, fit.params.sample(jax.random.key(2), 20_000)) else np.inf
            log_joint = functools.partial(fit.model.log_joint, data=jax.tree.map(jnp.asarray, target.data))
            for title, make in (("NumPyro", numpyro_peer), ("blackjax", blackjax_peer)):
                races = [
                    race(make(log_joint, fit.model.size, rate), target, fit.model) for rate in (0.01, 0.001)
                ]
                steps, when = map(min, zip(*races, strict=True))
                rows.append(
                    [
                        f"{name}, {title}",
                        f"{own * 1e3:.1f}",
                        f"{steps * 1e3:.0f}",
                        f"{steps / own:.0f}x",
                        f"{ours * 1e3:.1f}",
                        f"{when * 1e3:.0f}",
                        f"{when / ours:.0f}x",
                    ]
                )
                print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior, peer (full rank)",
        "our fit ms",
        "5,000 steps ms",
        "ratio",
        "ours to the accuracy ms",
        "theirs ms",
        "ratio (target 3x)",
    ]
    report += ["## Black box: beside stochastic gradients, after compilation, float64", table(header, rows)]


PARTS = {"accuracy": accuracy, "peers": peers}


def run(only: list[str] | None) -> None:
    """Run parts of the benchmark."""
    warnings.simplefilter("ignore")
    run_parts("blackbox", PARTS, ["numpyro", "blackjax"], only)
