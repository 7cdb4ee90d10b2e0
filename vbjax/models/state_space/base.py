"""What linear-Gaussian state space models share: their E-step in information form, their start, and use.

Not a model itself: EM and variational Bayes give the factors. A state space model is three regressions, of
the first state on 1, of every state on the one before, and of groups of columns on the state. All three are
taken as y ~ N(M' x, Lam^-1) with expected statistics of (M, Lam): the weights of the Gaussian chain
q(x_1, ..., x_T) and the bound are read off them, and so are the factors' updates.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.chains import gaussian as gaussian_chains
from vbjax.core.hyperparameters import size_of
from vbjax.core.model import ConjugateModel
from vbjax.core.ragged import by_part
from vbjax.core.rows import Expectation, n_rows
from vbjax.data.moments import observed_moments, positive_scale
from vbjax.data.sequences import Sequences, Steps, for_every_step
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartStatistics as Regression
from vbjax.models.state_space.moments import Moments, chain_of, energies, moments_at, moments_of_spread
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.linalg import cholesky, inverse_from_cholesky, symmetrize
from vbjax.numerics.record import Record

_CHUNK = 2**22  # numbers in a chunk's moments, of sequences x (steps + columns) x states x states
_PERSISTENCE = 0.9  # of the latents at the start of a run: the absolute eigenvalues of A


class States(NamedTuple):
    """Means and covariances of the latents of a sequence."""

    means: Any
    covariances: Any


class Forecast(NamedTuple):
    """Means (n, n_steps, p) and covariances (n, n_steps, p, p) of steps to come."""

    means: Array
    covariances: Array


class StateSpaceMatrices(NamedTuple):
    """A state space model by its matrices, in the order in which `vb.gaussian_chains` takes them."""

    initial_mean: Array
    initial_covariance: Array
    transition_matrix: Array
    transition_covariance: Array
    emission_matrix: Array
    emission_covariance: Array


class Start(NamedTuple):
    """Where a run starts: V0, A, C, the noise's variances (p,), and how many steps there are."""

    initial_covariance: Array
    transition_matrix: Array
    emission_matrix: Array
    noise: Array
    steps: Array


class StateSpaceModel(ConjugateModel):
    """x_1 ~ N(m0, V0), x_t ~ N(A x_{t-1}, Q), y_t ~ N(center + C x_t, R), t = 1 .. T, of every sequence.

    Subclasses are dataclasses with `n_latent` and, once resolved, `center` and `scale` (p,).
    """

    n_latent: int
    center: Any
    scale: Any
    covariance_type = "diag"

    @property
    def n_features(self) -> int:
        """p, the columns of a step."""
        if self.scale is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return self.scale.shape[-1]

    def regressions(self, s: Record) -> tuple[Regression, Regression, Regression]:
        """The three of the module's text; that of the columns with a leading axis of groups."""
        raise TypeError("given by the subclass")

    def at_mean(self, params: Any) -> Record:
        """The statistics of the parameters' means."""
        raise TypeError("given by the subclass")

    def states(self, start: Start) -> Record:
        """The factors' states where a run starts."""
        raise TypeError("given by the subclass")

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Any) -> Sequences:
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
            seen = ~np.isnan(np.asarray(data.steps()))
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
        """Mean and scale of every column, of what is observed."""
        mean, variance = observed_moments(*data.weighted_steps(weights))
        return mean, positive_scale(variance)

    def chunk_rows(self, data: Steps) -> int:
        numbers = (data.observed.shape[1] + data.values.shape[-1]) * (self.n_latent + 1) ** 2
        return max(1, _CHUNK // numbers)

    def init(self, key: Array, data: Sequences, weights: Array | None = None) -> Record:
        """Stationary latents that turn at random, A = 0.9 x orthogonal; random C, half of the variances."""
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
            jnp.stack(steps).sum(),
        )
        return self.states(start)

    # -- E-step --------------------------------------------------------------------------------------

    def _groups(self, rows: Steps) -> tuple[Float[Array, "n t g s"], Float[Array, "n t g"]]:
        """The columns about their centre, in groups whose noise is correlated, and whether they are seen."""
        seen = rows.observed[..., None] & ~jnp.isnan(rows.values)
        y = jnp.where(seen, rows.values - self.center, 0)
        if self.covariance_type == "full":
            y, seen = y[..., None, :], seen[..., :1]
        else:
            y = y[..., None]
        return y, seen.astype(y.dtype)

    def posterior_chain(self, s: Record, rows: Steps) -> gaussian_chains.Posterior:
        """q(x_1, ..., x_T) of some sequences."""
        return jax.vmap(functools.partial(chain_of, self.regressions(s)))(*self._groups(rows), rows.lengths)

    def _scored(self, s: Record, rows: Steps) -> tuple[Array, Array, tuple[Moments, ...]]:
        """Bound and sum of absolute terms of every sequence, (n,), and its moments."""
        regressions = self.regressions(s)

        def one(y: Array, seen: Array, length: Array) -> tuple[Array, Array, tuple[Moments, ...]]:
            chain = chain_of(regressions, y, seen, length)
            mode = moments_at(regressions, chain.means, y, seen, length)
            spread = moments_of_spread(regressions, chain, seen, length)
            # E_q[log p] + entropy, where the spread's part of the energy is -T D / 2 whatever the weights:
            # the log joint at the mode is a sum of squares, and nothing large cancels
            parts = [part for of, at in zip(regressions, mode, strict=True) for part in energies(of, at)]
            parts += [chain.entropy, -0.5 * self.n_latent * length.astype(y.dtype)]
            terms = jnp.stack(parts)
            return terms.sum(), jnp.abs(terms).sum(), jax.tree.map(jnp.add, mode, spread)

        return jax.vmap(one)(*self._groups(rows), rows.lengths)

    def e_step(self, prepared: Record, rows: Steps, weights: Array) -> Expectation:
        """Beal (2003), section 5.3, and Bishop (2006), eq. 13.105 to 13.107: moments of states and pairs."""
        bound, magnitude, moments = self._scored(prepared, rows)
        total = jax.tree.map(lambda x: jnp.tensordot(weights, x, 1), moments)

        def energy(s: Record) -> Array:
            each = zip(self.regressions(s), total, strict=True)
            return jnp.stack([part for of, sums in each for part in energies(of, sums)]).sum()

        bound, magnitude = (jnp.where(weights == 0, 0, weights * x).sum() for x in (bound, magnitude))
        steps = weights @ rows.lengths.astype(weights.dtype)
        return Expectation(jax.grad(energy)(prepared), bound, magnitude, steps)

    def local_entropies(self, params: Any) -> Callable[[Steps], dict[str, Array]]:
        prepared = self.prepare(params)
        return lambda rows: {"x": self.posterior_chain(prepared, rows).entropy}

    # -- use -----------------------------------------------------------------------------------------

    def matrices(self, params: Any) -> StateSpaceMatrices:
        """m0, V0, A, Q, C and R, where the precisions of V0, Q and R are at their means."""
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

    def smoothed(self, params: Any, data: Any) -> Any:
        """Means (t, D) and covariances (t, D, D) of the latents of every step given all of their sequence.

        Of one sequence a pair of arrays, `means` and `covariances`; of several a list of such pairs. By
        variational Bayes they are those of q(x).
        """
        return for_every_step(_smoothed, self, params, data)

    def filtered(self, params: Any, data: Any) -> Any:
        """The same given the steps up to each, by the Kalman filter, with the parameters at their means."""
        return for_every_step(_filtered, self, params, data)

    def log_predictive(self, params: Any, data: Any) -> Float[Array, " n"]:
        """log p of every sequence, (n,), in nats: by EM the log likelihood.

        By variational Bayes with the parameters at their means.
        """
        return _log_predictive(self, params, self.read(data))

    def forecast(self, params: Any, data: Any, n_steps: int) -> Forecast:
        """What comes after the last step of every sequence, with the parameters at their means.

        Returns:
            `means` (n, n_steps, p) and `covariances` (n, n_steps, p, p) of the steps, the noise included.
        """
        return _forecast(self, params, self.read(data), read_count(n_steps, "n_steps"))

    def sample(
        self, params: Any, key: Array, n_steps: int
    ) -> tuple[Float[Array, "{n_steps} d"], Float[Array, "{n_steps} p"]]:
        """A new sequence, with the parameters at their means: latents (n_steps, D), steps (n_steps, p)."""
        return _sample(self, params, read_key(key), read_count(n_steps, "n_steps"))


# -- compiled ------------------------------------------------------------------------------------------------


@jax.jit
def _smoothed(model: StateSpaceModel, params: Any, data: Sequences) -> tuple[States, ...]:
    prepared = model.prepare(params)
    chains = by_part(lambda part: model.posterior_chain(prepared, part), data)
    return tuple(States(chain.means, chain.covariances) for chain in chains)


def _kalman(model: StateSpaceModel, params: Any, part: Steps) -> gaussian_chains.Filtered:
    y = jnp.where(part.observed[..., None], part.values - model.center, jnp.nan)
    run = lambda y, length: gaussian_chains.kalman_filter(y, *model.matrices(params), length)
    return jax.vmap(run)(y, part.lengths)


@jax.jit
def _filtered(model: StateSpaceModel, params: Any, data: Sequences) -> tuple[States, ...]:
    found = by_part(lambda part: _kalman(model, params, part), data)
    return tuple(States(part.means, part.covariances) for part in found)


@jax.jit
def _log_predictive(model: StateSpaceModel, params: Any, data: Sequences) -> Array:
    s = model.at_mean(params)
    return data.join(by_part(lambda part: model._scored(s, part)[0], data))


@functools.partial(jax.jit, static_argnames="n_steps")
def _forecast(model: StateSpaceModel, params: Any, data: Sequences, n_steps: int) -> Forecast:
    _, _, a, q, c, r = model.matrices(params)

    def step(state: States, _: None) -> tuple[States, Forecast]:
        ahead = States(state.means @ a.T, symmetrize(a @ state.covariances @ a.T) + q)
        return ahead, Forecast(model.center + ahead.means @ c.T, c @ ahead.covariances @ c.T + r)

    def last(part: Steps) -> States:
        found = _kalman(model, params, part)
        take = lambda x: jax.vmap(lambda own, length: own[length - 1])(x, part.lengths)
        return States(take(found.means), take(found.covariances))

    found = jax.lax.scan(step, data.join(by_part(last, data)), None, length=n_steps)[1]
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), found)


@functools.partial(jax.jit, static_argnames="n_steps")
def _sample(model: StateSpaceModel, params: Any, key: Array, n_steps: int) -> tuple[Array, Array]:
    m0, v0, a, q, c, r = model.matrices(params)
    keys = jax.random.split(key)
    drawn = jax.random.normal(keys[0], (n_steps, len(m0)), m0.dtype)
    noise = jax.random.normal(keys[1], (n_steps, len(c)), m0.dtype) @ cholesky(r).T
    root = cholesky(q)

    def step(x: Array, own: Array) -> tuple[Array, Array]:
        x = a @ x + root @ own
        return x, x

    first = m0 + cholesky(v0) @ drawn[0]
    states = jnp.concatenate([first[None], jax.lax.scan(step, first, drawn[1:])[1]])
    return states, model.center + states @ c.T + noise
