"""Moments of weighted draws of latents, for every result that is known by its draws.

For this room; imports nothing of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Float

from vbjax.blackbox.contracts import Latents
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_probabilities


class DrawnMoments:
    """Moments and quantiles of latents, from the draws of a fit.

    A class with these moments is a pytree and has the method `weighted_draws`. Each moment is one compiled
    program of the whole object.
    """

    def weighted_draws(self) -> tuple[Float[Array, " n"], Latents]:
        """Return the weights of the fit's draws, which add up to 1, and the latents at them (n, ...)."""
        raise TypeError(f"{type(self).__name__} has no draws")

    @property
    @jit
    def mean(self) -> Latents:
        """E[latent]."""
        return _mean(*self.weighted_draws())

    @property
    @jit
    def variance(self) -> Latents:
        """Variance of every entry."""
        return _variance(*self.weighted_draws())

    @property
    @jit
    def sd(self) -> Latents:
        """Standard deviation of every entry."""
        return jax.tree.map(jnp.sqrt, _variance(*self.weighted_draws()))

    @property
    @jit
    def covariance(self) -> Float[Array, "p p"]:
        """Covariance of all entries of the latents, in the order of `jax.flatten_util.ravel_pytree`."""
        w, values = self.weighted_draws()
        table = jax.vmap(lambda x: ravel_pytree(x)[0])(values)
        shift = table - w @ table
        return (shift.T * w) @ shift

    def quantile(self, p: ArrayLike) -> Latents:
        """Return the quantiles p of every entry; the shape of p leads.

        A draw stands for the middle of its weight, and between two draws the quantile is linear.

        Raises:
            ValueError: a p that is no probability.
        """
        return _quantile(self, read_probabilities(p))


def _mean(w: Float[Array, " n"], values: Latents) -> Latents:
    return jax.tree.map(lambda x: jnp.tensordot(w, x.astype(w.dtype), 1), values)


def _variance(w: Float[Array, " n"], values: Latents) -> Latents:
    return _mean(w, jax.tree.map(lambda x, m: (x.astype(w.dtype) - m) ** 2, values, _mean(w, values)))


@jit
def _quantile(drawn: DrawnMoments, p: ArrayLike) -> Latents:
    w, values = drawn.weighted_draws()

    def interpolate(x: Float[Array, " n"]) -> Array:
        order = jnp.argsort(x)
        below = jnp.cumsum(w[order]) - 0.5 * w[order]
        return jnp.interp(jnp.asarray(p, w.dtype), below, x[order].astype(w.dtype))

    entries = lambda x: jax.vmap(interpolate, 1, -1)(x.reshape(len(x), -1))
    return jax.tree.map(lambda x: entries(x).reshape(*jnp.shape(p), *x.shape[1:]), values)
