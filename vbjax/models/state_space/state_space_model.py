"""What linear-Gaussian state space models share: their E-step in information form, their start, and use.

Not a model itself: EM and variational Bayes give the factors. Their three regressions are in regressions.py.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.chains import gaussian as gaussian_chains
from vbjax.core.devices import add_up
from vbjax.core.hyperparameters import size_of
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import by_part
from vbjax.core.rows import Expectation, n_rows
from vbjax.data.moments import observed_moments, positive_scale
from vbjax.data.sequences import Sequences, Steps, for_every_step
from vbjax.models.state_space.regressions import Groups, Regressions, chain_of, sums_at, sums_of_spread
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count, read_key, spans_processes
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, symmetrize
from vbjax.numerics.record import Record
from vbjax.numerics.types import Given, Hyper, Params
from vbjax.terms.paths import Sums, log_density_of

_CHUNK = 2**22  # numbers in a chunk's moments, of sequences x (steps + columns) x states x states
_PERSISTENCE = 0.9  # of the latents at the start of a run: the absolute eigenvalues of A


class States(NamedTuple):
    """Means and covariances of the latents of a sequence."""

    means: Float[Array, "*t d"]
    covariances: Float[Array, "*t d d"]


OfSequences: TypeAlias = States | list[States]


class Forecast(NamedTuple):
    """Means and covariances of steps to come."""

    means: Float[Array, "n t p"]
    covariances: Float[Array, "n t p p"]


class StateSpaceMatrices(NamedTuple):
    """A state space model by its matrices, in the order in which `vb.gaussian_chains` takes them."""

    initial_mean: Array
    initial_covariance: Array
    transition_matrix: Array
    transition_covariance: Array
    emission_matrix: Array
    emission_covariance: Array


class Start(NamedTuple):
    """Start of a run: V0, A, C, the noise's variances (p,), and how many steps there are."""

    initial_covariance: Array
    transition_matrix: Array
    emission_matrix: Array
    noise: Array
    steps: Array


class StateSpaceModel(ConjugateModel, abc.ABC):
    """Latents x_1 ~ N(m0, V0), x_t ~ N(A x_{t-1}, Q), steps y_t ~ N(center + C x_t, R), of every sequence.

    Subclasses are dataclasses with `n_latent` and, once resolved, `center` and `scale` (p,).
    """

    n_latent: int
    center: Hyper
    scale: Hyper
    covariance_type = "diag"

    @property
    def n_features(self) -> int:
        """Number p of columns of a step."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return self.scale.shape[-1]

    @abc.abstractmethod
    def regressions(self, s: Record) -> Regressions:
        """Return the statistics of the three regressions."""

    @abc.abstractmethod
    def states(self, start: Start) -> Record:
        """Return the factors' states where a run starts."""

    def at_mean(self, params: Record) -> Record:
        """Return the statistics of the parameters' means, of points those of the points."""
        return self.prepare(params)

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Given) -> Sequences:
        data = data if isinstance(data, Sequences) else Sequences.of(data)
        if not isinstance(data.parts[0].values, jax.Array) or data.parts[0].values.ndim > 3:
            raise ValueError(f"data must be sequences of vectors (p,) or of numbers; got {data}")
        if data.parts[0].values.ndim == 2:
            parts = tuple(part._replace(values=part.values[..., None]) for part in data.parts)
            data = dataclasses.replace(data, parts=parts)
        size, field = size_of(self, "p")
        if size not in (None, data.parts[0].values.shape[2]):
            got = data.parts[0].values.shape[2]
            raise ValueError(
                f"data must have {size} columns, as the model's {field} has; got shape (t, {got})"
            )
        if is_concrete(data):
            steps = data.steps()
            seen = ~(jnp if spans_processes(steps) else np).isnan(steps)
            if self.scale is None and not seen.any(0).all():
                empty = int(seen.any(0).argmin())
                raise ValueError(f"data must have an entry in every column; column {empty} has none")
            if self.covariance_type == "full" and not seen.all():
                hint = "a full R takes none that are missing in part; covariance_type='diag' does"
                raise ValueError(f"data must have steps that are whole, or wholly missing: {hint}")
        return data

    def sizes(self, data: Sequences) -> dict[str, int]:
        return dict(p=data.parts[0].values.shape[-1])

    def unit_scale(self, data: Sequences, weights: Array | None) -> tuple[Array, Array]:
        """Return mean and scale of every column, of what is observed."""
        mean, variance = observed_moments(*data.weighted_steps(weights))
        return mean, positive_scale(variance)

    def chunk_rows(self, data: Steps) -> int:
        numbers = (data.observed.shape[1] + data.values.shape[-1]) * (self.n_latent + 1) ** 2
        return max(1, _CHUNK // numbers)

    def init(self, key: Array, data: Sequences, weights: Array | None = None) -> Record:
        """Draw A = 0.9 x orthogonal, of stationary latents, and a C that leaves half of the variances."""
        q, half, dtype = self.n_latent, 0.5 * self.scale, self.scale.dtype
        key_transition, key_emission = jax.random.split(key)
        turn = jax.random.orthogonal(key_transition, q, dtype=dtype)
        variance = 1 / (1 - _PERSISTENCE**2)
        drawn = jax.random.normal(key_emission, (*half.shape, q), dtype)
        own = data.split(jnp.ones(n_rows(data), dtype) if weights is None else weights)
        steps = [w @ part.lengths.astype(dtype) for w, part in zip(own, data.parts, strict=True)]
        start = Start(
            variance * jnp.eye(q, dtype=dtype),
            _PERSISTENCE * turn,
            jnp.sqrt(half / (q * variance))[:, None] * drawn,
            half,
            add_up(jnp.stack(steps).sum()),
        )
        return self.states(start)

    # -- E-step --------------------------------------------------------------------------------------

    def groups(self, rows: Steps) -> Groups:
        """Return the columns about their centre, in groups whose noise is correlated; (n, ...) each."""
        seen = rows.observed[..., None] & ~jnp.isnan(rows.values)
        y = jnp.where(seen, rows.values - self.center, 0)
        if self.covariance_type == "full":
            y, seen = y[..., None, :], seen[..., :1]
        else:
            y = y[..., None]
        return Groups(y, seen.astype(y.dtype), rows.lengths)

    def posterior_chain(self, s: Record, rows: Steps) -> gaussian_chains.Posterior:
        """Return q(x_1, ..., x_T) of some sequences."""
        return jax.vmap(functools.partial(chain_of, self.regressions(s)))(self.groups(rows))

    def scored_sequences(self, s: Record, rows: Steps) -> tuple[Array, Array, tuple[Sums, ...]]:
        """Return bound and sum of absolute terms of every sequence, (n,), and its sums."""
        regressions = self.regressions(s)

        def one(rows: Groups) -> tuple[Array, Array, tuple[Sums, ...]]:
            chain = chain_of(regressions, rows)
            mode = sums_at(regressions, chain.means, rows)
            # E_q[log p] + entropy, where the spread's part of the energy is -T D / 2 whatever the weights:
            # the log joint at the mode is a sum of squares, and nothing large cancels
            parts = [*_densities(regressions, mode), chain.entropy, -0.5 * self.n_latent * rows.here.sum()]
            terms, spread = jnp.stack(parts), sums_of_spread(regressions, chain, rows)
            return terms.sum(), jnp.abs(terms).sum(), jax.tree.map(jnp.add, mode, spread)

        return jax.vmap(one)(self.groups(rows))

    def e_step(self, prepared: Record, rows: Steps, weights: Float[Array, " n"]) -> Expectation:
        """Compute moments of states and pairs (Beal 2003, section 5.3; Bishop 2006, eq. 13.105 to 13.107)."""
        bound, magnitude, sums = self.scored_sequences(prepared, rows)
        total = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), sums)
        energy = lambda s: jnp.stack(_densities(self.regressions(s), total)).sum()
        bound, magnitude = (jnp.where(weights == 0, 0, weights * x).sum() for x in (bound, magnitude))
        steps = weights @ rows.lengths.astype(weights.dtype)
        return Expectation(jax.grad(energy)(prepared), bound, magnitude, steps)

    def local_entropies(self, params: Params) -> Callable[[Steps], dict[str, Array]]:
        prepared = self.prepare(params)
        return lambda rows: {"x": self.posterior_chain(prepared, rows).entropy}

    # -- use -----------------------------------------------------------------------------------------

    def matrices(self, params: Record) -> StateSpaceMatrices:
        """Return m0, V0, A, Q, C and R, where the precisions of V0, Q and R are at their means."""
        initial, transitions, emissions = self.regressions(self.at_mean(params))
        noise = inverse_from_cholesky(cholesky(emissions.precision))  # (g, s, s)
        return StateSpaceMatrices(
            initial.pivot[0],
            inverse_from_cholesky(cholesky(initial.precision)),
            transitions.pivot.T,
            inverse_from_cholesky(cholesky(transitions.precision)),
            jnp.swapaxes(emissions.pivot, 0, 1).reshape(self.n_latent, -1).T,
            noise[0] if self.covariance_type == "full" else jnp.diag(noise[:, 0, 0]),
        )

    def smoothed(self, params: Record, data: Given) -> OfSequences:
        """Return means (t, D) and covariances (t, D, D) of every step's latents given its whole sequence.

        Of several sequences, a list of such pairs. By variational Bayes they are those of q(x).
        """
        return for_every_step(_smoothed, self, params, data)

    def filtered(self, params: Record, data: Given) -> OfSequences:
        """Return moments as `smoothed` does, given the steps up to each, the parameters at their means."""
        return for_every_step(_filtered, self, params, data)

    def log_predictive(self, params: Record, data: Given) -> Float[Array, " n"]:
        """Return log p of every sequence, in nats, with the parameters at their means."""
        return _log_predictive(self, params, self.read(data))

    def forecast_moments(self, params: Record, data: Given, n_steps: int) -> Forecast:
        """Return means and covariances of the steps that `forecast` draws, the noise included."""
        return _forecast_moments(self, params, self.read(data), read_count(n_steps, "n_steps"))

    def forecast(
        self, params: Record, key: Array, data: Given, n_steps: int, n_draws: int = 1000
    ) -> Float[Array, "{n_draws} n {n_steps} p"]:
        """Draw the steps that follow the last one of every sequence, with the parameters at their means.

        The draws' quantiles are the forecast's intervals; `forecast_moments` has their moments, exactly.
        """
        sizes = read_count(n_steps, "n_steps"), read_count(n_draws, "n_draws")
        return _forecast(self, params, read_key(key), self.read(data), *sizes)

    def sample(self, params: Record, key: Array, n: int) -> tuple[Array, Array]:
        """Draw latents (n, D) and steps (n, p) of a new sequence, with the parameters at their means."""
        of = self.matrices(params)
        first = States(of.initial_mean, of.initial_covariance)
        return _simulate(self, params, read_key(key), first, read_count(n, "n"))


def _densities(regressions: Regressions, sums: tuple[Sums, ...]) -> list[Array]:
    """Return the terms of the expected log joint."""
    each = zip(regressions, sums, strict=True)
    return [part.sum() for of, own in each for part in log_density_of(of, own)]


# -- compiled ------------------------------------------------------------------------------------------------


@jit
def _smoothed(model: StateSpaceModel, params: Record, data: Sequences) -> tuple[States, ...]:
    prepared = model.prepare(params)
    chains = by_part(lambda part: model.posterior_chain(prepared, part), data)
    return tuple(States(chain.means, chain.covariances) for chain in chains)


def _kalman(model: StateSpaceModel, params: Record, part: Steps) -> gaussian_chains.Filtered:
    y = jnp.where(part.observed[..., None], part.values - model.center, jnp.nan)
    run = lambda y, length: gaussian_chains.kalman_filter(y, *model.matrices(params), length)
    return jax.vmap(run)(y, part.lengths)


@jit
def _filtered(model: StateSpaceModel, params: Record, data: Sequences) -> tuple[States, ...]:
    found = by_part(lambda part: _kalman(model, params, part), data)
    return tuple(States(part.means, part.covariances) for part in found)


@jit
def _log_predictive(model: StateSpaceModel, params: Record, data: Sequences) -> Array:
    s = model.at_mean(params)
    return data.join(by_part(lambda part: model.scored_sequences(s, part)[0], data))


def _ahead(model: StateSpaceModel, params: Record, state: States) -> States:
    """Return the moments of the next states (n, D), from those of these."""
    of = model.matrices(params)
    a = of.transition_matrix
    return States(state.means @ a.T, symmetrize(a @ state.covariances @ a.T) + of.transition_covariance)


def _next(model: StateSpaceModel, params: Record, data: Sequences) -> States:
    """Return the moments of the states after the last step of every sequence, (n, D)."""

    def last(part: Steps) -> States:
        found = _kalman(model, params, part)
        take = lambda x: jax.vmap(lambda own, length: own[length - 1])(x, part.lengths)
        return States(take(found.means), take(found.covariances))

    return _ahead(model, params, data.join(by_part(last, data)))


@functools.partial(jit, static_argnames="n_steps")
def _forecast_moments(model: StateSpaceModel, params: Record, data: Sequences, n_steps: int) -> Forecast:
    of = model.matrices(params)
    c, r = of.emission_matrix, of.emission_covariance

    def step(state: States, _: None) -> tuple[States, Forecast]:
        found = Forecast(model.center + state.means @ c.T, c @ state.covariances @ c.T + r)
        return _ahead(model, params, state), found

    found = jax.lax.scan(step, _next(model, params, data), None, length=n_steps)[1]
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)


@functools.partial(jit, static_argnames=("n_steps", "n_draws"))
def _forecast(
    model: StateSpaceModel, params: Record, key: Array, data: Sequences, n_steps: int, n_draws: int
) -> Array:
    first = _next(model, params, data)
    draw = lambda key, first: _simulate(model, params, key, first, n_steps)[1]
    return jax.vmap(jax.vmap(draw), (0, None))(jax.random.split(key, (n_draws, len(data))), first)


@functools.partial(jit, static_argnames="n_steps")
def _simulate(
    model: StateSpaceModel, params: Record, key: Array, first: States, n_steps: int
) -> tuple[Array, Array]:
    """Draw states and steps of one sequence, whose first state has these moments."""
    _, _, a, q, c, r = model.matrices(params)
    keys = jax.random.split(key)
    drawn = jax.random.normal(keys[0], (n_steps, len(a)), a.dtype)
    noise = jax.random.normal(keys[1], (n_steps, len(c)), a.dtype) @ cholesky(r).T
    root = cholesky(q)

    def step(x: Array, own: Array) -> tuple[Array, Array]:
        x = a @ x + root @ own
        return x, x

    start = first.means + cholesky(first.covariances) @ drawn[0]
    states = jnp.concatenate([start[None], jax.lax.scan(step, start, drawn[1:])[1]])
    return states, model.center + states @ c.T + noise
