"""Rows that are of no class: uniform noise over the box that the data fill."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.devices import least, most
from vbjax.core.hyperparameters import REAL, flag, hyper, read_columns
from vbjax.data.moments import positive_scale
from vbjax.families.base import pytree
from vbjax.models.components.component import Component, Pullback
from vbjax.models.components.seeding import Distance
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper, Params, Tree


@pytree
class Noise(Component):
    """Rows x_n | c_n = k ~ Uniform(low, high), whatever k: log p(x_n) = -sum_j log(high_j - low_j).

    There are no parameters. The density is that of the box beyond it too, so that new rows that are far from
    everything are noise.

    Data: (n, d). There are no factors.

    Args:
        low, high: corners of the box, numbers or (d,); by default the data's least and largest. A column that
            does not vary is one unit wide.
        missing: whether a NaN is an entry that is missing at random.

    References:
        Banfield & Raftery (1993), Model-based Gaussian and non-Gaussian clustering, section 2.4.

    >>> import vbjax as vb
    >>> law = vb.components.Noise().resolve(vb.datasets.old_faithful())
    >>> print(law.low, law.high)  # the box
    [ 1.6 43. ] [ 5.1 96. ]
    """

    low: Hyper = hyper(None, REAL, "d")
    high: Hyper = hyper(None, REAL, "d")
    missing: bool = flag(kw_only=True)

    @property
    def factors(self) -> Record:
        return Record()

    def read(self, data: Data) -> Float[Array, "n d"]:
        return read_columns(self, data, missing=self.missing)

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        seen = ~jnp.isnan(data) if weights is None else ~jnp.isnan(data) & (weights[:, None] > 0)
        low, high = jnp.where(seen, data, jnp.inf).min(0), jnp.where(seen, data, -jnp.inf).max(0)
        return dict(low=least(low), high=most(high))

    @property
    def log_width(self) -> Float[Array, " d"]:
        """The logarithm of the box's sides."""
        return jnp.log(positive_scale(self.high - self.low))

    def energy(self, s: Record, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        row = -jnp.where(jnp.isnan(rows), 0, self.log_width).sum(1)
        return jnp.broadcast_to(row[:, None], (len(row), self.n_laws))

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return jnp.zeros((), self.low.dtype)

    def prepare(self, params: Params) -> None:
        return None

    def log_density(self, prepared: None, rows: Float[Array, "n d"]) -> tuple[Float[Array, "k n"], Pullback]:
        return self.energy(Record(), rows).T, lambda r: Record()

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        return Record()

    def distance(self, data: Array, weights: Array | None) -> Distance | None:
        return None

    def start_at(self, seeds: Data, data: Data, weights: Array | None = None) -> Record:
        return Record()

    @property
    def n_parameters(self) -> int:
        return 0

    def log_components(self, params: Params, rows: Float[Array, "n d"]) -> Float[Array, "n k"]:
        return self.energy(Record(), rows)

    def draw_parameters(self, params: Params, key: Array) -> Record:
        return Record()

    def redraw_rows(
        self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Data
    ) -> Float[Array, "n d"]:
        return self.draw_rows(parameters, key, c)

    def draw_rows(self, params: Params, key: Array, c: Array, given: Given = None) -> Float[Array, "n d"]:
        place = jax.random.uniform(key, (len(c), len(self.low)), self.low.dtype)
        return self.low + jnp.exp(self.log_width) * place
