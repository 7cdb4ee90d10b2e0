"""Stochastic ascent of the bound by any optax optimiser, with a rule for when it has arrived.

A sweep is many steps at one rate. The iterates are averaged over sweeps that are stationary, and the
average's bound is computed on the draws of the fit, whose noise is small and common to all averages. If an
average does not beat the best one by more than the Monte Carlo error of their difference, the rate is halved
and the iterate returns to the best average. When this has happened three times in a row, the fit has
converged (after Dhaka et al. 2020 and Welandawe et al. 2022, who compare averages of stationary iterates at
falling rates). For users, around a `BlackBox`; imports core and this room.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax
from jaxtyping import Float, Int

from vbjax.blackbox.algorithms.ascent import Ascent, Target, judge_run
from vbjax.blackbox.algorithms.estimators import fresh_points, inspect_estimator, surrogate
from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.contracts import Distribution, Free
from vbjax.blackbox.families import to_free
from vbjax.core.contracts import Info, Status
from vbjax.core.rows import n_rows, rounding_error
from vbjax.families.base import pytree, static
from vbjax.numerics.inputs import read_count
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data

GENTLE = optax.adam(0.01)  # for the weights of networks
_STATIONARY = 0.44  # R-hat^2 - 1 of two sweeps, averaged over parameters: R-hat is 1.2
_SWEEPS = 4  # stationary sweeps in an average before it is compared
_PATIENCE = 8  # sweeps after which an average is compared in any case
_STALLS = 3  # comparisons without a gain, the rate being halved after each


class StochasticState(NamedTuple):
    """State of `StochasticAscent`.

    Attributes:
        best: the best average so far.
        objective: its bound.
        ratios: its log p - log q at the draws of the fit.
        free: the iterate.
        memory: state of the optimiser.
        key: data of the key of what follows.
        rate: what the optimiser's steps are multiplied by.
        mean, variance: those of the iterates of the last sweep.
        average: mean of the iterates of the last stationary sweeps.
        n_averaged: number of these sweeps.
        age: number of sweeps since an average was last compared.
        stalls: number of comparisons in a row without a gain.
    """

    best: Approximation
    objective: Float[Array, ""]
    ratios: Float[Array, " n"]
    free: Free
    memory: optax.OptState
    key: Array
    rate: Float[Array, ""]
    mean: Free
    variance: Free
    average: Free
    n_averaged: Int[Array, ""]
    age: Int[Array, ""]
    stalls: Int[Array, ""]


@pytree
class StochasticAscent(Ascent):
    """Stochastic-gradient ascent, which `vb.fit` takes in place of a `BlackBox`.

    Attributes:
        model: a `BlackBox`, of any family.
        optimizer: an optax transformation; its steps are halved where an average gains nothing.
        estimator: "pathwise", "sticking_the_landing", "score" or "importance_weighted" (`estimators`).
        n_draws: number of draws in a step, even.
        draws: "independent", "antithetic" or "quasi".
        n_steps: number of steps in a sweep; `fit`'s max_iter counts sweeps.
        batch_size: number of rows in a minibatch, drawn anew for each step, for a model with a
            log_likelihood; the bound at the end of a sweep is that of all rows.
        tol: an average must beat the best by so many nats, and by the Monte Carlo error of the difference.

    >>> import jax, optax, vbjax as vb
    >>> model = vb.BlackBox(lambda s: -0.5 * (s.x - 3) ** 2, dict(x=vb.real()))
    >>> fit = vb.fit(vb.blackbox.StochasticAscent(model, optax.adam(0.1)), key=jax.random.key(0))
    >>> fit.status
    <Status.CONVERGED: 1>
    """

    model: Target
    optimizer: optax.GradientTransformation = static(default=optax.adam(0.05))
    estimator: str = static(default="sticking_the_landing")
    n_draws: int = static(default=16)
    draws: str = static(default="independent")
    n_steps: int = static(default=100)
    batch_size: int | None = static(default=None)
    tol: float | Array = 1e-3

    def inspect(self, data: Data) -> None:
        """Refuse options that have no meaning, or do not go with the model."""
        q = self.inspect_common(data)
        inspect_estimator(q, self.estimator, self.draws, self.n_draws)
        if not isinstance(self.optimizer, optax.GradientTransformation):
            raise ValueError(f"optimizer must be an optax transformation; got {self.optimizer!r}")
        read_count(self.n_steps, "n_steps")
        if self.batch_size is not None:
            if self.model.log_likelihood is None:
                raise ValueError("batch_size is for models of rows: give log_likelihood to the BlackBox")
            if not 1 <= read_count(self.batch_size, "batch_size") <= n_rows(data):
                raise ValueError(f"batch_size must be between 1 and {n_rows(data)}; got {self.batch_size}")

    def start(self, params: Approximation, data: Data) -> StochasticState:
        """Return the state at given parameters, which are not scored yet."""
        free = to_free(params.q)
        low = jnp.asarray(-jnp.inf, jax.tree.leaves(free)[0].dtype)
        none = jnp.asarray(0, jnp.int32)
        return StochasticState(
            best=params,
            objective=low,
            ratios=jnp.zeros_like(params.points()[1]),
            free=free,
            memory=self.optimizer.init(free),
            key=params.seed,
            rate=jnp.ones_like(low),
            mean=free,
            variance=jax.tree.map(jnp.zeros_like, free),
            average=free,
            n_averaged=none,
            age=none,
            stalls=none,
        )

    def step(self, state: StochasticState, data: Data, weights: Array | None) -> tuple[StochasticState, Info]:
        """Make a sweep of steps; average the iterates where they are stationary; score the average."""
        key, *keys = jax.random.split(jax.random.wrap_key_data(state.key), self.n_steps + 1)
        free, memory, mean, variance = self._sweep(state, jnp.stack(keys), data)
        stationary = _drift(mean, state.mean, variance, state.variance) < _STATIONARY
        count = jnp.where(stationary, state.n_averaged + 1, 1).astype(jnp.int32)
        average = jax.tree.map(
            lambda old, new: jnp.where(stationary, old + (new - old) / count.astype(new.dtype), new),
            state.average,
            mean,
        )
        age = state.age + 1
        due = (count >= _SWEEPS) | (age >= _PATIENCE)
        here = state.best.at(average)
        u, w = here.points()
        ratios = self.model.log_ratios(here, u, data)
        value, ahead = w @ ratios, ratios - state.ratios
        error = jnp.sqrt(w @ (ahead - w @ ahead) ** 2 / len(ahead))
        better = value > state.objective
        least = jnp.where(jnp.isfinite(state.objective), jnp.maximum(self.tol, error), 0)
        gained = due & (value > state.objective + least)
        stalled = due & ~gained
        best, objective, ratios = choose(
            better, (here, value, ratios), (state.best, state.objective, state.ratios)
        )

        stalls = jnp.where(gained, 0, jnp.where(stalled, state.stalls + 1, state.stalls))
        # where the bound itself is as uncertain as that, comparisons say nothing: it has not arrived
        noise = jnp.sqrt(w @ (ratios - w @ ratios) ** 2 / len(ratios))
        clear = noise < u.shape[-1] ** 0.5
        stop = jnp.where((stalls >= _STALLS) & clear, Status.CONVERGED, Status.UNFINISHED)
        stop = judge_run(stop, objective, u)
        moved = StochasticState(
            best=best,
            objective=objective,
            ratios=ratios,
            free=choose(stalled, to_free(best.q), free),
            memory=memory,
            key=jax.random.key_data(key),
            rate=jnp.where(stalled, 0.5, 1) * state.rate,
            mean=mean,
            variance=variance,
            average=average,
            n_averaged=jnp.where(due, 0, count).astype(jnp.int32),
            age=jnp.where(due, 0, age).astype(jnp.int32),
            stalls=stalls,
        )
        error, unknown = rounding_error(jnp.abs(objective)), jnp.full_like(objective, jnp.nan)
        return moved, Info(best, objective, error, stop, gain_left=unknown)

    def _sweep(
        self, state: StochasticState, keys: Array, data: Data
    ) -> tuple[Free, optax.OptState, Free, Free]:
        """Move the iterate by one step for each key.

        Returns:
            The iterate, the state of the optimiser, and the mean and variance of the iterates on the way.
        """

        def move(carry: tuple[Free, ...], key: Array) -> tuple[tuple[Free, ...], None]:
            free, memory, mean, square = carry
            gradient = jax.grad(lambda free: -self._surrogate(state.best.at(free).q, key, data))(free)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
                updates, memory = self.optimizer.update(gradient, memory, free)
            free = jax.tree.map(lambda x, step: x + state.rate * step, free, updates)
            shift = jax.tree.map(jnp.subtract, free, state.free)  # moments about the sweep's start
            mean = jax.tree.map(jnp.add, mean, shift)
            square = jax.tree.map(lambda s, x: s + x * x, square, shift)
            return (free, memory, mean, square), None

        zeros = jax.tree.map(jnp.zeros_like, state.free)
        carry = state.free, state.memory, zeros, zeros
        (free, memory, total, square), _ = lax.scan(move, carry, keys)
        shift = jax.tree.map(lambda x: x / self.n_steps, total)
        mean = jax.tree.map(jnp.add, state.free, shift)
        variance = jax.tree.map(lambda s, x: s / self.n_steps - x * x, square, shift)
        return free, memory, mean, variance

    def _surrogate(self, q: Distribution, key: Array, data: Data) -> Float[Array, ""]:
        """Compute the surrogate of one step, on fresh draws and, where there are minibatches, fresh rows."""
        draw, pick, local = jax.random.split(key, 3)
        share = 1.0
        if self.batch_size is not None:
            n = n_rows(data)
            rows = jax.random.randint(pick, (self.batch_size,), 0, n)
            data, share = jax.tree.map(lambda x: x[rows], data), self.batch_size / n
        log_joints = lambda u: self.model.log_joints(q, u, local, data, share)
        points = fresh_points(self.estimator, q, draw, self.n_draws, self.draws)
        return surrogate(self.estimator, log_joints, q, points)


def _drift(mean: Free, before: Free, variance: Free, variance_before: Free) -> Float[Array, ""]:
    """Return the squared move of the means between two sweeps, in variances of the iterates, averaged."""

    def ratio(m: Array, b: Array, v: Array, w: Array) -> Array:
        return (m - b) ** 2 / jnp.maximum(v + w, jnp.finfo(v.dtype).tiny)

    ratios = jax.tree.leaves(jax.tree.map(ratio, mean, before, variance, variance_before))
    return jnp.concatenate([x.ravel() for x in ratios]).mean()
