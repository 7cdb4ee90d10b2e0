"""Black-box variational inference on six posteriors: accuracy, and time beside that of others.

A peer gets the same log density on the same unconstrained vector, in float64, and Adam with the better of the
rates 0.01 and 0.001; its steps run in one compiled scan. It has arrived at the first thousand of steps after
which means and sds of all reported parameters are within 0.1 reference sds and 10 %.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

import vbjax as vb
from bench.blackbox_calibration import calibration
from bench.measure import interleaved, run_parts, seconds, table
from notebooks.posteriors import NAMES, NEAR_NORMAL, Posterior, posterior
from vbjax.blackbox.approximation import constrain

WAYS = pathlib.Path(__file__).parent.parent / "notebooks" / "data" / "ways_to_fit.csv"  # for a picture
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


def methods(report: list[str]) -> None:
    """Every posterior by every way to fit a full-rank normal, from which the default was chosen."""
    rows = []
    with jax.enable_x64(True):
        for name in NAMES:
            target = posterior(name)
            model = vb.BlackBox(target.log_density, target.support)
            for title, fitted in ways(model, target.data).items():
                jax.clear_caches()
                first = seconds(lambda: fitted(0).objective)  # noqa: B023
                (again,) = interleaved(lambda: fitted(1).objective, repeats=3)  # noqa: B023
                fit = fitted(1)
                draws = fit.params.sample(jax.random.key(2), 100_000)
                rows.append(
                    [
                        name,
                        title,
                        *cells(target, draws),
                        f"{fit.diagnostics.k_hat:.2f}",
                        f"{first:.1f}",
                        f"{again * 1e3:.0f}",
                        str(int(fit.n_iter)),
                        fit.status.name,
                    ]
                )
                print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior",
        "method",
        "error of means, reference sds",
        "ratio of sds",
        "k-hat",
        "first fit s",
        "second fit ms",
        "sweeps",
        "status",
    ]
    report += ["## Black box: ways to fit a full-rank normal, float64", table(header, rows)]
    with WAYS.open("w", newline="") as file:
        chosen = [["posterior", "method", "error", "milliseconds"], *([*row[:3], row[6]] for row in rows)]
        csv.writer(file, lineterminator="\n").writerows(chosen)


def ways(model: vb.BlackBox, data: Any) -> dict[str, Callable[[int], Any]]:
    """Fits from a seed, by name."""
    key, blackbox = jax.random.key, vb.blackbox
    single = dataclasses.replace(model, n_paths=1)
    return {
        "natural gradients (default)": lambda seed: vb.fit(model, data, key=key(seed)),
        "the same from one path": lambda seed: vb.fit(single, data, key=key(seed)),
        "L-BFGS, fixed draws": lambda seed: vb.fit(blackbox.FixedDraws(model), data, key=key(seed)),
        "score matching": lambda seed: vb.fit(blackbox.ScoreMatching(model), data, key=key(seed)),
        "Adam, sticking the landing": lambda seed: vb.fit(
            blackbox.StochasticAscent(model), data, key=key(seed)
        ),
        "Adam, pathwise, quasi-random": lambda seed: vb.fit(
            blackbox.StochasticAscent(model, estimator="pathwise", draws="quasi"), data, key=key(seed)
        ),
    }


class Peer(NamedTuple):
    """`advance(state, key)` makes BLOCK steps; `draws(state, key)` are unconstrained vectors."""

    start: Callable[[Array], Any]
    advance: Callable[[Any, Array], Any]
    draws: Callable[[Any, Array], Array]


def numpyro_peer(log_joint: Callable[[Array], Array], size: int, rate: float, family: str) -> Peer:
    """NumPyro's SVI with AutoMultivariateNormal or AutoNormal, one particle."""
    import numpyro
    from numpyro import distributions, infer

    def model() -> None:
        u = numpyro.sample(
            "u", distributions.ImproperUniform(distributions.constraints.real_vector, (), (size,))
        )
        numpyro.factor("density", log_joint(u))

    guides = infer.autoguide
    guide = (guides.AutoMultivariateNormal if family == "full_rank" else guides.AutoNormal)(model)
    svi = infer.SVI(model, guide, numpyro.optim.Adam(rate), infer.Trace_ELBO())

    @jax.jit
    def advance(state: Any, key: Array) -> Any:
        return jax.lax.scan(lambda s, _: (svi.update(s)[0], None), state, length=BLOCK)[0]

    def draws(state: Any, key: Array) -> Array:
        return guide.sample_posterior(key, svi.get_params(state), sample_shape=(20_000,))["u"]

    return Peer(lambda key: svi.init(key), advance, draws)


def blackjax_peer(log_joint: Callable[[Array], Array], size: int, rate: float, family: str) -> Peer:
    """blackjax's fullrank_vi or meanfield_vi, their default five draws a step."""
    import blackjax

    make = blackjax.fullrank_vi if family == "full_rank" else blackjax.meanfield_vi
    method = make(log_joint, optax.adam(rate))

    @jax.jit
    def advance(state: Any, key: Array) -> Any:
        keys = jax.random.split(key, BLOCK)
        return jax.lax.scan(lambda s, k: (method.step(k, s)[0], None), state, keys)[0]

    def start(key: Array) -> Any:
        return method.init(0.1 * jax.random.normal(key, (size,)))

    return Peer(start, advance, lambda state, key: method.sample(key, state, 20_000))


def race(peer: Peer, target: Posterior, model: Any) -> tuple[float, float, float]:
    """Seconds of STEPS steps; until it has arrived (inf: not in MOST blocks); and of the compilation."""
    latents = jax.jit(jax.vmap(lambda u: constrain(model.support, u)[0]))
    jax.clear_caches()
    first = seconds(lambda: state_of(peer.advance(peer.start(jax.random.key(0)), jax.random.key(1))))
    state = peer.start(jax.random.key(0))
    taken, when = [], np.inf
    for block in range(MOST if model.family == "full_rank" else STEPS // BLOCK):
        taken.append(seconds(lambda: state_of(peer.advance(state, jax.random.key(block)))))  # noqa: B023
        state = peer.advance(state, jax.random.key(block))
        if np.isinf(when) and reached(target, latents(peer.draws(state, jax.random.key(2)))):
            when = sum(taken)
        if np.isfinite(when) and len(taken) >= STEPS // BLOCK:
            break
    return min(taken) * STEPS / BLOCK, when, first - min(taken)


def state_of(state: Any) -> Any:
    """Something to wait for."""
    return jax.tree.leaves(state)


def peers(report: list[str]) -> None:
    """5,000 steps of the peers beside a whole fit, and the time to the accuracy, from cold and compiled."""
    rows = []
    makers = (("NumPyro", numpyro_peer), ("blackjax", blackjax_peer))
    with jax.enable_x64(True):
        for name, family in (
            (name, family) for family in ("full_rank", "mean_field") for name in NEAR_NORMAL
        ):
            target = posterior(name)
            fitted = fit_of(target, family)
            jax.clear_caches()
            first = seconds(lambda: fitted(0).objective)  # noqa: B023
            fit = fitted(0)
            (own,) = interleaved(lambda: fitted(1).objective, repeats=5)  # noqa: B023
            there = reached(target, fit.params.sample(jax.random.key(2), 20_000))
            log_joint = functools.partial(fit.model.log_joint, data=jax.tree.map(jnp.asarray, target.data))
            for title, make in makers:
                races = [
                    race(make(log_joint, fit.model.size, rate, family), target, fit.model)
                    for rate in (0.01, 0.001)
                ]
                steps, when, _ = map(min, zip(*races, strict=True))
                cold = min(arrived + compiled for _, arrived, compiled in races)
                arrivals = ["-"] * 6
                if there:
                    known = np.isfinite(when)
                    ratios = (f"{when / own:.0f}x", f"{cold / first:.1f}x") if known else ("-", "-")
                    arrivals = [f"{own * 1e3:.1f}", f"{when * 1e3:.0f}", ratios[0]]
                    arrivals += [f"{first:.1f}", f"{cold:.1f}", ratios[1]]
                timing = [f"{own * 1e3:.1f}", f"{steps * 1e3:.0f}", f"{steps / own:.1f}x"]
                rows.append([f"{name}, {family}, {title}", *timing, *arrivals])
                print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior, family, peer",
        "our fit ms",
        "5,000 steps ms",
        "ratio",
        "ours to the accuracy ms",
        "theirs ms",
        "ratio",
        "ours from cold s",
        "theirs s",
        "ratio (target 3x)",
    ]
    report += ["## Black box: beside stochastic gradients, float64", table(header, rows)]


def pathfinders(report: list[str]) -> None:
    """blackjax's multi-path Pathfinder, sixteen paths from points as wide as ours, beside a whole fit."""
    import blackjax

    rows = []
    with jax.enable_x64(True):
        for name in NAMES:
            target = posterior(name)
            fitted = fit_of(target, "full_rank")
            jax.clear_caches()
            first = seconds(lambda: fitted(0).objective)  # noqa: B023
            fit = fitted(0)
            log_joint = functools.partial(fit.model.log_joint, data=jax.tree.map(jnp.asarray, target.data))

            @jax.jit
            def whole(key: Array) -> Array:
                start, rest = jax.random.split(key)
                sd = jnp.geomspace(1, 4, 16)[:, None]
                points = sd * jax.random.normal(start, (16, fit.model.size))  # noqa: B023
                way = blackjax.multipathfinder(log_joint)  # noqa: B023
                state, _ = way.init(rest, points)
                return way.sample(rest, state, 20_000)

            keys = map(jax.random.key, itertools.count())
            cold = seconds(lambda: whole(next(keys)))  # noqa: B023
            own, warm = interleaved(lambda: fitted(1).objective, lambda: whole(next(keys)), repeats=5)  # noqa: B023
            latents = jax.jit(jax.vmap(lambda u: constrain(fit.model.support, u)[0]))(whole(next(keys)))  # noqa: B023
            ours = cells(target, fit.params.sample(jax.random.key(1), 20_000))
            rows.append(
                [name, f"{own * 1e3:.0f}", f"{warm * 1e3:.0f}", f"{warm / own:.1f}x", f"{first:.1f}",
                 f"{cold:.1f}", f"{cold / first:.1f}x", *ours, *cells(target, latents)]
            )  # fmt: skip
            print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior", "our fit ms", "Pathfinder ms", "ratio", "ours from cold s", "theirs s", "ratio",
        "our error of means, sds", "our ratio of sds", "their error", "their ratio of sds",
    ]  # fmt: skip
    report += ["## Black box: beside blackjax's multi-path Pathfinder, float64", table(header, rows)]


# -- PyMC ----------------------------------------------------------------------------------------------------


def pymc_model(name: str, data: dict[str, np.ndarray]) -> Any:
    """Two of the posteriors in PyMC's own words."""
    import pymc

    with pymc.Model() as model:
        sigma = pymc.HalfCauchy("sigma", 2.5)
        if name == "kidscore_momiq":
            beta = pymc.Flat("beta", shape=2)
            pymc.Normal("y", beta[0] + beta[1] * data["mom_iq"], sigma, observed=data["kid_score"])
        else:
            alpha, beta = pymc.Normal("alpha", 0, 10), pymc.Normal("beta", 0, 10, shape=5)
            y, lags = data["y"], 5
            past = np.stack([y[lags - 1 - k : len(y) - 1 - k] for k in range(lags)], 1)
            pymc.Normal("rows", alpha + pymc.math.dot(past, beta), sigma, observed=y[lags:])
    return model


def advi_way(name: str, family: str, data: dict[str, np.ndarray]) -> tuple[float, float, Any]:
    """5,000 steps of PyMC's ADVI at its default settings, from cold and again; draws after both."""
    import pymc

    with pymc_model(name, data):
        way = {"full_rank": pymc.FullRankADVI, "mean_field": pymc.ADVI}[family](random_seed=0)
        cold = seconds(lambda: way.fit(STEPS, progressbar=False) and None)
        warm = seconds(lambda: way.refine(STEPS, progressbar=False))
        return cold, warm, way.approx.sample(20_000, random_seed=1)


def pathfinder_way(name: str, family: str, data: dict[str, np.ndarray]) -> tuple[float, float, Any]:
    """pymc-extras' multi-path Pathfinder at its default settings, from cold and again."""
    import pymc_extras

    with pymc_model(name, data) as model:
        fit = functools.partial(pymc_extras.fit_pathfinder, model, num_draws=1000, progressbar=False)
        cold = seconds(lambda: fit(random_seed=0) and None)
        warm = seconds(lambda: fit(random_seed=1) and None)
        return cold, warm, fit(random_seed=2)


def pymc_ways(report: list[str]) -> None:
    """PyMC's ADVI and Pathfinder beside our fits of the same posteriors."""
    rows = []
    runs = [("full_rank", "ADVI", advi_way), ("mean_field", "ADVI", advi_way)]
    runs += [("full_rank", "Pathfinder", pathfinder_way)]
    with jax.enable_x64(True):
        for name, (family, title, way) in itertools.product(("kidscore_momiq", "arK"), runs):
            target = posterior(name)
            fitted = fit_of(target, family)
            jax.clear_caches()
            first = seconds(lambda: fitted(0).objective)  # noqa: B023
            (own,) = interleaved(lambda: fitted(1).objective, repeats=5)  # noqa: B023
            cold, warm, tree = way(name, family, target.data)
            draws = {k: np.asarray(tree.posterior[k].values) for k in target.support}
            flat = {k: x.reshape(-1, *x.shape[2:]) for k, x in draws.items()}  # of all chains
            theirs = cells(target, vb.Record(jax.tree.map(jnp.asarray, flat)))
            ours = cells(target, fitted(0).params.sample(jax.random.key(1), 20_000))
            rows.append(
                [f"{name}, {family}, {title}", f"{own * 1e3:.0f}", f"{warm * 1e3:.0f}", f"{warm / own:.0f}x",
                 f"{first:.1f}", f"{cold:.1f}", f"{cold / first:.1f}x", *ours, *theirs]
            )  # fmt: skip
            print(*rows[-1], sep="  ", flush=True)
    header = [
        "posterior, family, way", "our fit ms", "PyMC ms", "ratio", "our first s", "PyMC's first s",
        "ratio", "our error of means, sds", "our ratio of sds", "PyMC's error", "PyMC's ratio of sds",
    ]  # fmt: skip
    report += [
        "## Black box: beside PyMC's ADVI (5,000 steps; errors after 10,000) and Pathfinder, float64",
        table(header, rows),
    ]


PARTS = {
    "accuracy": accuracy,
    "methods": methods,
    "peers": peers,
    "pathfinders": pathfinders,
}


def run(only: list[str] | None) -> None:
    """Run parts of the benchmark."""
    warnings.simplefilter("ignore")
    run_parts("blackbox", PARTS, ["numpyro", "blackjax"], only)
    run_parts("blackbox", dict(pymc=pymc_ways), ["pymc", "pymc-extras"], only)
    run_parts("blackbox", dict(calibration=calibration), ["scikit-learn"], only)
