"""Exact sums over discrete latents of few cases, for log densities. For users; imports supports."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jaxtyping import Float

from vbjax.blackbox.contracts import Latents
from vbjax.blackbox.supports import Category
from vbjax.numerics.record import Record
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data


@stored
@dataclasses.dataclass(frozen=True)
class SummedOut:
    """Function log sum_z exp(log_density(z, ...)) of all latents but z. See `summed_out`."""

    log_density: Callable[..., Array]
    cases: tuple[tuple[str, Category], ...]

    def _tabulate(self, latents: Latents, *data: Data) -> tuple[Record, Float[Array, " cases"]]:
        """Return all joint cases, by name with the cases as leading axis, and the log density of each.

        Raises:
            ValueError: latents without names, or of the name of one that is summed out; a log density that is
                no scalar.
        """
        if not isinstance(latents, Mapping):
            raise ValueError(f"latents must have names: a dict of supports; got {type(latents).__name__}")
        if clash := [name for name, _ in self.cases if name in latents]:
            raise ValueError(f"latents must not have {clash[0]!r}, which is summed out")
        sizes = [n for _, support in self.cases for n in [support.n] * support.size]
        table = np.array(list(itertools.product(*map(range, sizes))), np.int32)
        parts = np.split(table, np.cumsum([support.size for _, support in self.cases])[:-1], axis=1)
        values = Record(
            {
                name: jnp.asarray(part.reshape(-1, *support.shape))
                for (name, support), part in zip(self.cases, parts, strict=True)
            }
        )
        each = lambda z: self.log_density(Record({**latents, **z}), *data)
        log_p = jax.vmap(each)(values)
        if jnp.shape(log_p) != (len(table),):
            raise ValueError(f"log_density must return a scalar; got shape {jnp.shape(log_p)[1:]}")
        return values, log_p

    def __call__(self, latents: Latents, *data: Data) -> Float[Array, ""]:
        return logsumexp(self._tabulate(latents, *data)[1])

    def probabilities(self, latents: Latents, *data: Data) -> Record:
        """Return P(z = case | the other latents) of every discrete latent by name, (*shape, cases)."""
        values, log_p = self._tabulate(latents, *data)
        weights = jax.nn.softmax(log_p)
        one_hot = lambda name, n: jax.nn.one_hot(values[name], n, dtype=weights.dtype)
        return Record({name: jnp.tensordot(weights, one_hot(name, s.n), 1) for name, s in self.cases})


def summed_out(log_density: Callable[..., Array], discrete: Mapping[str, Category]) -> SummedOut:
    """Return the log density without the discrete latents, by a sum over all their joint cases.

    Args:
        log_density: `log_density(latents)` or `log_density(latents, data)`, with latents by name.
        discrete: supports of the discrete latents by name, `dict(z=vb.category(3))`.

    Returns:
        A function for `BlackBox`, whose support is that of the other latents; its method
        `probabilities(latents, data)` gives the conditional probabilities of the cases.

    Raises:
        ValueError: a support that is not discrete, or more than 100,000 joint cases.

    >>> import jax, vbjax as vb
    >>> def coin(s):  # fair, or so biased that heads come nine times in ten; seen: heads three times
    ...     p = jax.numpy.array([0.5, 0.9])[s.biased]
    ...     return 3 * jax.numpy.log(p) - 0.5 * s.x**2
    >>> density = vb.blackbox.summed_out(coin, dict(biased=vb.category(2)))
    >>> print(f"{density.probabilities(vb.Record(x=0.0)).biased[1]:.3f}")
    0.854
    """
    if not callable(log_density):
        raise ValueError(f"log_density must be a function; got {log_density!r}")
    named = isinstance(discrete, Mapping) and discrete
    if not named or not all(isinstance(support, Category) for support in discrete.values()):
        raise ValueError(f"discrete must hold vb.category(...) by name; got {discrete!r}")
    total = np.prod([float(support.n) ** support.size for support in discrete.values()])
    if total > 1e5:
        raise ValueError(f"{total:.3g} joint cases are too many to sum over; at most 100,000")
    return SummedOut(log_density, tuple(discrete.items()))
