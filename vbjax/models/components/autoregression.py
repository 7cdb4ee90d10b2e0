"""Steps of a sequence that depend on the steps before them: autoregressions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import first_of, least, own_key
from vbjax.core.hyperparameters import count, read_columns, size_of
from vbjax.data.sequences import Sequences, Steps
from vbjax.families.base import pytree
from vbjax.models.components.multivariate_regression import MultivariateRegression
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.linalg import cholesky, solve_lower
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


@pytree
class Autoregression(MultivariateRegression):
    """Steps x_t | z_t = k, x_{t-1}, .., x_{t-L} ~ N(A_k [x_{t-1}; ..; x_{t-L}; 1], Sigma_k), (d,).

    A regression of a step on the L = `order` before it. The first L steps of a sequence are conditioned upon:
    they have no density, like steps that are missing, but they have states. So have steps that are missing
    (some entry is NaN) and the L after them. For hidden Markov models alone.

    Data: sequences of steps (d,), none shorter than L. The parameters are those of `MultivariateRegression`,
    whose x are the L steps before y, the last one first; `coefficients`, `intercepts` and `covariances` read
    them.

    Args:
        location, mean_precision, degrees_of_freedom, inverse_scale, covariance_floor, center, offset: see
            `MultivariateRegression`.
        order: L, steps on which a step depends.

    Raises:
        ValueError: a sequence shorter than L; no step that follows L others.

    References:
        Hamilton (1989), A new approach to the economic analysis of nonstationary time series; Fox, Sudderth,
        Jordan & Willsky (2011), Bayesian nonparametric inference of switching dynamic linear models, section
        3.1, for the prior.

    >>> import vbjax as vb
    >>> vb.HiddenMarkovModel(2, vb.components.Autoregression(order=3))  # what vb.AutoregressiveHMM is by name
    HiddenMarkovModel(n_states=2, component=components.Autoregression(order=3))
    """

    order: int = count(default=1, kw_only=True)

    @property
    def n_before(self) -> int:  # type: ignore[override]
        return self.order

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Data:
        raise ValueError("component must not be an autoregression here: rows in no order have none before")

    def read_steps(self, data: Sequences) -> Float[Array, "n d"]:
        steps, order = data.steps(), self.order
        if not isinstance(steps, (np.ndarray, Array)):
            raise ValueError(f"data must be sequences of arrays (t, d); got steps of {type(steps).__name__}")
        read = read_columns(self, steps, axis="m", missing=True)
        if not is_concrete(data):
            return read
        lengths = np.asarray(data.here().lengths)  # minibatches are filled up with sequences of no steps
        short = (lengths > 0) & (lengths < order)
        if short.any():
            which = f"sequence {short.argmax()} has {lengths[short.argmax()]}"
            raise ValueError(f"sequences must have at least order = {order} steps; {which}")
        if size_of(self, "d")[0] is None and not any(_seen(part, order).any() for part in data.parts):
            raise ValueError(
                f"data must have a step that follows order = {order} others, none of them missing"
            )
        return read

    def sizes(self, data: Float[Array, "n t m"]) -> dict[str, int]:
        m = data.shape[-1]
        return dict(d=self.order * m, q=self.order * m + 1, m=m)

    def rows_of(self, part: Steps) -> tuple[tuple[Array, Array], Bool[Array, "n t"]]:
        """Return for every step the L before it, (n t, L d), and the step; and where all of them are seen."""
        x, whole = _whole(part)
        lags = jnp.concatenate([_back(x, lag) for lag in range(1, self.order + 1)], -1)
        flat = lambda x: x.reshape(-1, x.shape[-1])
        return (flat(lags), flat(x)), _follows(whole, self.order)

    def annotate_steps(self, part: Steps) -> Steps:
        return part  # the rows are made where they are needed

    def start(self, key: Array, data: Data, weights: Given = None) -> Record:
        """Begin each with a window of consecutive steps, as many as its regression passes near."""
        k, length = self.n_laws, self.columns + 1
        n, (there,) = weights.shape[0], jnp.nonzero(weights > 0, size=weights.shape[0])
        number = (weights > 0).sum()
        first = jax.random.choice(own_key(key), n, (k,), p=weights / weights.sum())
        place = jnp.minimum(jnp.cumsum(weights > 0)[first] - 1, jnp.maximum(number - length, 0))
        window = jnp.minimum(place + jnp.arange(length)[:, None], number - 1)
        seeds = jax.tree.map(lambda x: x[there[window.reshape(-1)]], data)
        lot = (
            jax.random.exponential(own_key(key), (k,), weights.dtype) / weights.sum()
        )  # the least, as often as it weighs
        return self.start_at(first_of(jnp.tile(lot == least(lot), length), seeds), data, weights)

    # -- use -----------------------------------------------------------------------------------------

    def steps_among(self, rows: Data) -> Float[Array, "n d"]:
        return rows[1]

    def steps_before(self, data: Sequences) -> Float[Array, "n l d"]:
        last, whole = zip(*(_last(part, self.order) for part in data.parts), strict=True)
        if is_concrete(data) and not (there := np.asarray(data.join(list(whole)))).all():
            raise ValueError(
                f"data must have all of the last order = {self.order} steps to be forecast; sequence "
                f"{(~there).argmax()} misses one"
            )
        return data.join(list(last))

    def read_given(self, given: Given, n: int) -> Given:
        if given is not None:
            raise ValueError("given must be None: a step depends on those before it alone")

    def read_beginning(self, given: Given, n: int) -> tuple[Float[Array, "l d"], None]:
        shape = self.order, self.columns // self.order
        given = jnp.broadcast_to(self.offset, shape) if given is None else given
        before = read_columns(self, given, "given", axis="m").astype(self.offset.dtype)
        if before.shape[0] != self.order:
            raise ValueError(f"given must have order = {self.order} rows; got shape {before.shape}")
        return before, None

    def draw_steps(
        self, params: Params, key: Array, states: Int[Array, "*n t"], before: Tree = None, given: Given = None
    ) -> Array:
        """Draw steps one after the other, from the L before them (..., L, d), the last one last.

        Every path has parameters of its own, drawn from q.
        """
        paths, keys = states.shape[:-1], jax.random.split(key)
        drawn = params.components.sample(keys[0], paths)
        root = cholesky(drawn.precision)
        before = jnp.broadcast_to(before, (*paths, *before.shape[-2:]))
        noise = jax.random.normal(keys[1], (*states.shape, before.shape[-1]), before.dtype)
        own = lambda x, state: jnp.take_along_axis(x, state[..., None, None, None], -3)[..., 0, :, :]

        def step(before: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            state, noise = given
            x = before[..., ::-1, :].reshape(-1, self.order * before.shape[-1])
            mean = self.design(x).reshape(*paths, 1, -1) @ own(drawn.location, state)
            shift = solve_lower(own(root, state), noise[..., None], transposed=True)[..., 0]
            now = self.offset + mean[..., 0, :] + shift
            return jnp.concatenate([before[..., 1:, :], now[..., None, :]], -2), now

        by_time = jnp.moveaxis(states, -1, 0), jnp.moveaxis(noise, -2, 0)
        return jnp.moveaxis(jax.lax.scan(step, before, by_time)[1], 0, -2)

    def coefficients(self, params: Record) -> Float[Array, "k l d d"]:
        """Return the (expected) matrices by state and lag: [k, l - 1] multiplies x_{t-l}, (K, L, d, d)."""
        return _coefficients(self, params)[0]

    def intercepts(self, params: Record) -> Float[Array, "k d"]:
        """Return the (expected) constants that are added to these products, (K, d)."""
        return _coefficients(self, params)[1]

    def by_lag(self, location: Float[Array, "k q m"]) -> Float[Array, "k l d d"]:
        """Return an array in the shape of the regressions' W by lag, (K, L, d, d), without the intercepts."""
        k, _, d = location.shape
        return jnp.swapaxes(location[:, :-1].reshape(k, self.order, d, d), -1, -2)

    def covariances(self, params: Record) -> Float[Array, "k d d"]:
        """Return the inverse (expected) precision matrices of the noise, (K, d, d)."""
        return jnp.linalg.inv(params.components.mean.precision)


def _whole(part: Steps) -> tuple[Float[Array, "n t d"], Bool[Array, "n t"]]:
    """Return steps, 0 where an entry is missing, and where none is."""
    whole = part.observed & ~jnp.isnan(part.values).any(-1)
    return jnp.where(whole[..., None], part.values, 0), whole


def _back(x: Array, lag: int) -> Array:
    """Return the values of `lag` steps before, 0 before the first step."""
    return jnp.pad(x, [(0, 0), (lag, 0), *[(0, 0)] * (x.ndim - 2)])[:, : x.shape[1]]


def _follows(whole: Bool[Array, "n t"], order: int) -> Bool[Array, "n t"]:
    """Return which steps are whole, as are so many before them."""
    return functools.reduce(jnp.logical_and, [_back(whole, lag) for lag in range(order + 1)])


@functools.partial(jit, static_argnames="order")
def _seen(part: Steps, order: int) -> Bool[Array, "n t"]:
    return _follows(_whole(part)[1], order)


@functools.partial(jit, static_argnames="order")
def _last(part: Steps, order: int) -> tuple[Float[Array, "n l d"], Bool[Array, " n"]]:
    """Return the last steps of every sequence, and whether they are whole."""
    x, whole = _whole(part)
    place = part.lengths[:, None] - order + jnp.arange(order)
    there = jnp.take_along_axis(whole, jnp.maximum(place, 0), 1) & (place >= 0)
    return jnp.take_along_axis(x, jnp.maximum(place, 0)[..., None], 1), there.all(1)


@jit
def _coefficients(component: Autoregression, params: Record) -> tuple[Array, Array]:
    location = params.components.mean.location
    intercepts = component.offset + location[:, -1] - component.center @ location[:, :-1]
    return component.by_lag(location), intercepts
