"""Hidden Markov models whose steps depend on the steps before them: switching autoregressions."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from vbjax.core.hyperparameters import count, part, read_columns, size_of
from vbjax.data.sequences import Sequences, Steps
from vbjax.families.base import pytree
from vbjax.models.components import MultivariateRegression
from vbjax.models.markov.hidden_markov import HiddenMarkovModel
from vbjax.models.markov.hidden_markov_use import walk
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.linalg import cholesky, solve_lower
from vbjax.numerics.record import Record


@pytree
class AutoregressiveHMM(HiddenMarkovModel):
    """x_t | z_t = k, x_{t-1}, .., x_{t-L} ~ N(A_k [x_{t-1}; ..; x_{t-L}; 1], Sigma_k), z a chain of K states;
    by EM.

    A hidden Markov model whose component is a regression of a step (d,) on the L = `order` before it, with a
    floor under the covariances. The first L steps of a sequence are conditioned upon: they have no density,
    like steps that are missing, but they have states. So have steps that are missing (some entry is NaN) and
    the L after them.

    Data: sequences of steps (d,), none shorter than L. The factors are `initial`, `transitions` and
    `components`; `coefficients`, `intercepts` and `covariances` of this class read the latter.

    Args:
        n_states: K.
        order: L, steps on which a step depends.
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `vb.components.MultivariateRegression`; its x are the L steps before y, the last one first.
        initial_concentration, transition_concentration, stickiness: see `HiddenMarkovModel`.

    Raises:
        ValueError: as `HiddenMarkovModel`; a sequence shorter than L; no step that follows L others.

    References:
        Hamilton (1989), A new approach to the economic analysis of nonstationary time series; Fox, Sudderth,
        Jordan & Willsky (2011), Bayesian nonparametric inference of switching dynamic linear models, section
        3.1, for the prior.

    >>> import jax, vbjax as vb
    >>> t = jax.numpy.arange(120.0)
    >>> x = jax.numpy.sin(jax.numpy.where(t // 30 % 2 == 1, 0.3, 1.2) * t)[:, None]
    >>> x = x + 0.01 * jax.random.normal(jax.random.key(1), x.shape)
    >>> fit = vb.fit(vb.AutoregressiveHMM(2, order=2), x, key=jax.random.key(0), n_restarts=8)
    >>> len(set(fit.model.decode(fit.params, x)[32:58].tolist()))
    1
    """

    component: Any = part(MultivariateRegression, "a regression, vb.components.MultivariateRegression()")
    order: int = count(default=1)

    def __init__(
        self,
        n_states: int,
        order: int = 1,
        *,
        location: Any = None,
        mean_precision: Any = None,
        degrees_of_freedom: Any = None,
        inverse_scale: Any = None,
        covariance_floor: Any = 1e-6,
        center: Any = None,
        offset: Any = None,
        **chain: Any,
    ) -> None:
        prior = location, mean_precision, degrees_of_freedom, inverse_scale
        component = MultivariateRegression(*prior, covariance_floor, center, offset)
        object.__setattr__(self, "order", order)
        super().__init__(n_states, component, **chain)

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Any) -> Sequences:
        data, order = super().read(data), self.order
        if not is_concrete(data):
            return data
        lengths = np.asarray(data.lengths)  # minibatches are filled up with sequences of no steps
        short = (lengths > 0) & (lengths < order)
        if short.any():
            which = f"sequence {short.argmax()} has {lengths[short.argmax()]}"
            raise ValueError(f"sequences must have at least order = {order} steps; {which}")
        if size_of(self.component, "d")[0] is None and not any(
            _seen(part, order).any() for part in data.parts
        ):
            raise ValueError(
                f"data must have a step that follows order = {order} others, none of them missing"
            )
        return data

    def read_steps(self, steps: Any) -> Any:
        if not hasattr(steps, "ndim"):
            raise ValueError(f"data must be sequences of arrays (t, d); got steps of {type(steps).__name__}")
        return read_columns(self.component, steps, axis="m", missing=True)

    def sizes(self, data: Sequences) -> dict[str, int]:
        m = data.parts[0].values.shape[-1]
        return dict(d=self.order * m, q=self.order * m + 1, m=m)

    def rows_of(self, part: Steps) -> tuple[Any, Array]:
        """Of every step the L before it, (n t, L d), and the step itself; where all of them are seen."""
        x, whole = _whole(part)
        lags = jnp.concatenate([_back(x, lag) for lag in range(1, self.order + 1)], -1)
        flat = lambda x: x.reshape(-1, x.shape[-1])
        return (flat(lags), flat(x)), _follows(whole, self.order)

    def annotate(self, data: Sequences, weights: Array | None = None) -> Sequences:
        return data  # the rows of the component are made where they are needed

    def start_component(self, key: Array, rows: Any, weights: Array) -> Record:
        """Each from a window of consecutive steps, as many as its regression passes near, drawn by weight."""
        k, length = self.n_states, self.component.columns + 1
        n, (there,) = weights.shape[0], jnp.nonzero(weights > 0, size=weights.shape[0])
        number = (weights > 0).sum()
        first = jax.random.choice(key, n, (k,), p=weights / weights.sum())
        place = jnp.minimum(jnp.cumsum(weights > 0)[first] - 1, jnp.maximum(number - length, 0))
        window = jnp.minimum(place + jnp.arange(length)[:, None], number - 1)
        seeds = jax.tree.map(lambda x: x[there[window.reshape(-1)]], rows)
        return self.component.start_at(seeds, rows, weights)

    # -- use -----------------------------------------------------------------------------------------

    def forecast(
        self, params: Any, key: Array, data: Any, n_steps: int, n_draws: int = 1000, *, given: Any = None
    ) -> Any:
        """Draws of what comes after the last step of every sequence, (n_draws, n, n_steps, d).

        Every draw is a path that goes on from the last L steps and from its own; after variational Bayes it
        has parameters of its own, drawn from q. Quantiles of the draws are the forecast's intervals.

        Raises:
            ValueError: a sequence of which one of the last L steps is missing.
        """
        data = self.read(data)
        if is_concrete(data):
            whole = np.asarray(data.join([_last(part, self.order)[1] for part in data.parts]))
            if not whole.all():
                raise ValueError(
                    f"data must have all of the last order = {self.order} steps to be forecast; sequence "
                    f"{(~whole).argmax()} misses one"
                )
        return super().forecast(params, key, data, n_steps, n_draws, given=given)

    def sample(
        self, params: Any, key: Array, n_steps: int, start: Any = None, *, given: Any = None
    ) -> tuple[Int[Array, " t"], Float[Array, "t d"]]:
        """A new sequence: its states (n_steps,) and steps (n_steps, d).

        Args:
            params: of a fit.
            key: PRNG key.
            n_steps: how many.
            start: (L, d), the steps before them, the last one last; by default the mean of the fit's data.

        Raises:
            ValueError: a `start` that is no such table.
        """
        n_steps, component = read_count(n_steps, "n_steps"), self.component
        self.read_given(given, n_steps)
        if start is None:
            start = jnp.broadcast_to(component.offset, (self.order, component.columns // self.order))
        start = read_columns(component, start, "start", axis="m").astype(component.offset.dtype)
        if start.shape[0] != self.order:
            raise ValueError(f"start must have order = {self.order} rows; got shape {start.shape}")
        return _sample_after(self, params, read_key(key), n_steps, start)

    def read_given(self, given: Any, n_steps: int) -> None:
        """Refuse all but None: the steps before are what a step depends on."""
        if given is not None:
            raise ValueError("given must be None: a step depends on those before it alone")

    def redrawn_steps(self, rows: Any) -> Any:
        return rows[1]

    def before(self, data: Sequences) -> Float[Array, "n l d"]:
        return data.join([_last(part, self.order)[0] for part in data.parts])

    def draw_steps(
        self, params: Any, key: Array, states: Int[Array, "*n t"], before: Any = None, given: Any = None
    ) -> Array:
        """Steps one after the other, from the L before them (..., L, d), the last one last."""
        paths, keys = states.shape[:-1], jax.random.split(key)
        drawn = params.components.sample(keys[0], paths)
        root, component = cholesky(drawn.precision), self.component
        before = jnp.broadcast_to(before, (*paths, *before.shape[-2:]))
        noise = jax.random.normal(keys[1], (*states.shape, before.shape[-1]), before.dtype)
        own = lambda x, state: jnp.take_along_axis(x, state[..., None, None, None], -3)[..., 0, :, :]

        def step(before: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            state, noise = given
            x = before[..., ::-1, :].reshape(-1, self.order * before.shape[-1])
            mean = component.design(x).reshape(*paths, 1, -1) @ own(drawn.location, state)
            shift = solve_lower(own(root, state), noise[..., None], transposed=True)[..., 0]
            now = component.offset + mean[..., 0, :] + shift
            return jnp.concatenate([before[..., 1:, :], now[..., None, :]], -2), now

        by_time = jnp.moveaxis(states, -1, 0), jnp.moveaxis(noise, -2, 0)
        return jnp.moveaxis(jax.lax.scan(step, before, by_time)[1], 0, -2)

    def coefficients(self, params: Any) -> Float[Array, "k l d d"]:
        """The (expected) matrices by state and lag: those [k, l - 1] that multiply x_{t-l}, (K, L, d, d)."""
        return _coefficients(self, params)[0]

    def intercepts(self, params: Any) -> Float[Array, "k d"]:
        """What is added to these products, (K, d), expected."""
        return _coefficients(self, params)[1]

    def by_lag(self, location: Float[Array, "k q m"]) -> Float[Array, "k l d d"]:
        """What there is for every number of the regressions' W but the intercepts, as matrices by lag."""
        k, _, d = location.shape
        return jnp.swapaxes(location[:, :-1].reshape(k, self.order, d, d), -1, -2)

    def covariances(self, params: Any) -> Float[Array, "k d d"]:
        """The inverse (expected) precision matrices of the noise, (K, d, d)."""
        return jnp.linalg.inv(params.components.mean.precision)


@pytree
class BayesianAutoregressiveHMM(AutoregressiveHMM):
    """`AutoregressiveHMM` by variational Bayes; its prior follows what one autoregression of all steps
    leaves.

    Data, factors and arguments: as of `AutoregressiveHMM`; draws have parameters of their own.
    """

    points: ClassVar[bool] = False


def _whole(part: Steps) -> tuple[Float[Array, "n t d"], Bool[Array, "n t"]]:
    """Steps, 0 where an entry is missing, and where none is."""
    whole = part.observed & ~jnp.isnan(part.values).any(-1)
    return jnp.where(whole[..., None], part.values, 0), whole


def _back(x: Array, lag: int) -> Array:
    """What was there `lag` steps ago, 0 before the first."""
    return jnp.pad(x, [(0, 0), (lag, 0), *[(0, 0)] * (x.ndim - 2)])[:, : x.shape[1]]


def _follows(whole: Bool[Array, "n t"], order: int) -> Bool[Array, "n t"]:
    """Which steps are whole, as are so many before them."""
    return functools.reduce(jnp.logical_and, [_back(whole, lag) for lag in range(order + 1)])


@functools.partial(jax.jit, static_argnames="order")
def _seen(part: Steps, order: int) -> Bool[Array, "n t"]:
    return _follows(_whole(part)[1], order)


@functools.partial(jax.jit, static_argnames="order")
def _last(part: Steps, order: int) -> tuple[Float[Array, "n l d"], Bool[Array, " n"]]:
    """The last steps of every sequence, and whether they are whole."""
    x, whole = _whole(part)
    place = part.lengths[:, None] - order + jnp.arange(order)
    there = jnp.take_along_axis(whole, jnp.maximum(place, 0), 1) & (place >= 0)
    return jnp.take_along_axis(x, jnp.maximum(place, 0)[..., None], 1), there.all(1)


@functools.partial(jax.jit, static_argnames="n_steps")
def _sample_after(
    model: AutoregressiveHMM, params: Any, key: Array, n_steps: int, start: Array
) -> tuple[Array, Array]:
    # the first state is that of the first step of `start`
    states = walk(model, params, key, jnp.log(params.initial.mean), model.order + n_steps)[model.order :]
    return states, model.draw_steps(params, jax.random.fold_in(key, 1), states, start)


@jax.jit
def _coefficients(model: AutoregressiveHMM, params: Record) -> tuple[Array, Array]:
    location, component = params.components.mean.location, model.component
    intercepts = component.offset + location[:, -1] - component.center @ location[:, :-1]
    return model.by_lag(location), intercepts
