"""What all mixtures share: a label for every row, its posterior, and use.

Not a model itself. `gaussian_mixture_base.py` and `conjugate_mixture.py` give the components.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float, Int, Shaped

from vbjax import terms
from vbjax.core.model import scored_rows
from vbjax.core.rows import Expectation, n_rows
from vbjax.families.categorical import Categorical
from vbjax.inference.replicate import restore_missing, sample_posterior
from vbjax.models.markov.emissions import Emissions
from vbjax.numerics.inputs import read_count
from vbjax.numerics.record import Record


class Mixture(Emissions):
    """Rows x_n | c_n from component c_n, c_n ~ Categorical(weights).

    Subclasses are dataclasses with `n_components`, and factors `weights` and `components`.
    """

    draws_data = True

    def local(self, rows: Any) -> Record:
        return Record(c=Categorical(self.n_components, plate=(n_rows(rows),)))

    def table(self, components: Any, rows: Any) -> Float[Array, "n k"]:
        """E[log p(row | component)] from the components' statistics, but for a constant in each row."""
        raise TypeError("given by the subclass")

    def log_likelihood(self, s: Record, rows: Any) -> Float[Array, " n"]:
        return terms.categorical(s.c, s.weights) + (s.c.p * self.table(s.components, rows)).sum(-1)

    def weights_log_prior(self, weights: Any) -> Float[Array, ""]:
        """E[log p] of weights from their statistics, of as many sets of them as there are."""
        raise TypeError("given by the subclass")

    def log_prior(self, s: Record) -> Array:
        return self.weights_log_prior(s.weights) + self.components_prior(s)

    def prepare_components(self, params: Any) -> Any:
        return self.factors["components"].expected(params["components"]).with_base(0.0)

    # -- use -----------------------------------------------------------------------------------------

    def labels_table(self, params: Record, rows: Any) -> Float[Array, "n k"]:
        """log q(c_n = k) but for a constant in each row."""
        s = self.prepare(params)
        return s.weights.log + self.table(s.components, rows)

    def responsibilities(self, params: Record, x: Any) -> Float[Array, "n k"]:
        """Probability of every component for every row, (n, k)."""
        return _responsibilities(self, params, self.read(x))

    def predict(self, params: Record, x: Any) -> Int[Array, " n"]:
        """The most probable component of every row, (n,)."""
        return self.responsibilities(params, x).argmax(-1)

    def log_predictive(self, params: Record, x: Any) -> Float[Array, " n"]:
        """Log density of new rows under the fitted mixture, (n,), in nats."""
        return _log_predictive(self, params, self.read(x))

    def log_density(self, params: Record, x: Any) -> Float[Array, " n"]:
        """`log_predictive` of rows that have been read."""
        return logsumexp(jnp.log(self.weights(params)) + self.log_components(params, x), -1)

    def weights(self, params: Record) -> Float[Array, " k"]:
        """The (expected) mixing weights, (k,)."""
        return params.weights.mean

    def sample_posterior(self, params: Record, key: Array, n: int | tuple[int, ...] = ()) -> Record:
        """Draws of the parameters: `weights` (n, k), `components` (`.location`, `.precision` if joint)."""
        return sample_posterior(params, key, n)

    def sample(self, params: Record, key: Array, n: int) -> Shaped[Array, "{n} d"]:
        """New rows (n, d), each with parameters of its own drawn from q: the predictive density's draws."""
        n = read_count(n, "n")
        return _sample(self, params, key, n)

    def replicate(self, params: Record, key: Array, data: Any, n_draws: int) -> Any:
        return _replicate(self, params, key, self.read(data), n_draws)

    def draw_labels(self, params: Record, key: Array, n: int) -> Int[Array, " n"]:
        """Components of new rows, (n,)."""
        return jax.random.categorical(key, jnp.log(self.weights(params)), shape=(n,))


def labelled_rows(
    energy: Callable[[Any], Array], s: Any, constant: Array | None, weights: Array
) -> Expectation:
    """The E-step of rows with a label each: responsibilities, and the gradient that they leave.

    Args:
        energy: of the global statistics `s`: E[log p(row n, label k)] as (k, n), components along the leading
            axis and every row in a column of its own, which is how a CPU sums fastest; but for `constant`.
        constant: what is the same for every component, (n,).
    """
    log, gradient = jax.vjp(energy, s)
    bound = logsumexp(log, 0)
    (statistics,) = gradient(weights * jnp.exp(log - bound))
    return scored_rows(statistics, bound if constant is None else bound + constant, weights)


@jax.jit
def _responsibilities(model: Mixture, params: Record, x: Any) -> Array:
    return jax.nn.softmax(model.labels_table(params, x), -1)


@jax.jit
def _log_predictive(model: Mixture, params: Record, x: Any) -> Array:
    return model.log_density(params, x)


@functools.partial(jax.jit, static_argnames="n_draws")
def _replicate(model: Mixture, params: Record, key: Array, rows: Any, n_draws: int) -> Any:
    labels = model.labels_table(params, rows)  # the same for every draw

    def draw(key: Array) -> Any:
        keys = jax.random.split(key, 3)
        parameters = model.draw_parameters(params, keys[0])
        c = jax.random.categorical(keys[1], labels)
        return restore_missing(model.redraw_rows(parameters, keys[2], c, rows), rows)

    return jax.lax.map(draw, jax.random.split(key, n_draws))


@functools.partial(jax.jit, static_argnames="n")
def _sample(model: Mixture, params: Record, key: Array, n: int) -> Array:
    keys = jax.random.split(key)
    return model.draw_rows(params, keys[1], model.draw_labels(params, keys[0], n))
