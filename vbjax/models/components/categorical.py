"""Independent categorical columns: latent class analysis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.devices import take_rows
from vbjax.core.hyperparameters import POSITIVE, count, flag, hyper, read_columns, size_of
from vbjax.core.rows import float_dtype
from vbjax.families.base import pytree, replace
from vbjax.families.dirichlet import Dirichlet, DirichletState, DirichletStatistics
from vbjax.models.components.component import Component, for_every_law, is_count, require
from vbjax.models.components.seeding import Distance
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.types import Data, Given, Hyper, Tree

_MOST_CATEGORIES = 10**6  # where nobody says how many: a slip in a number would take all memory
_BLOCK_BYTES = 2**23  # the indicators of a block of rows stay in a core's cache


@pytree
class Categorical(Component):
    """Columns of categories 0 to v - 1: x_nj | c_n = k ~ Categorical(p_kj), p_kj ~ Dirichlet(alpha_j).

    The components' update is alpha_kjv = alpha_jv + sum_n r_nk [x_nj = v], and the predictive density of
    component k is prod_j alpha_kjx_j / sum_v alpha_kjv.

    Data: (n, d), whole numbers, with `missing` NaN or -1 too. The parameters are a Dirichlet, (k, d, v).

    Args:
        n_categories: v, of the column that has most; by default the data's largest number plus one.
        concentration: alpha, a number, (v,) or (d, v); by default 1. A column of fewer categories has
            those it lacks made next to impossible by small numbers.
        missing: whether an entry may be missing at random, which leaves its factor out.

    Raises:
        ValueError: an entry that is no category; a hyperparameter that is not positive; `n_categories` not
            given where the data cannot be looked at (inside jit).

    References:
        Lazarsfeld & Henry (1968), Latent structure analysis; Bishop (2006), exercise 9.19.

    >>> import vbjax as vb
    >>> vb.HiddenMarkovModel(2, vb.components.Categorical(n_categories=4))
    HiddenMarkovModel(n_states=2, component=components.Categorical(n_categories=4))
    """

    n_categories: int | None = count("v", default=None)
    concentration: Hyper = hyper(None, POSITIVE, "v", "d v")
    missing: bool = flag(kw_only=True)

    @property
    def family(self) -> Dirichlet:
        return Dirichlet(self._size, plate=(self.n_laws, self.columns))

    @property
    def prior(self) -> DirichletState:
        return for_every_law(DirichletState(self.concentration), self.n_laws)

    @property
    def _size(self) -> int:
        if self.n_categories is None:
            raise ValueError("n_categories must be given where the data cannot be looked at")
        return self.n_categories

    def read(self, data: Data) -> Int[Array, "n d"]:
        x = read_columns(self, data, missing=self.missing)
        x = jnp.where(jnp.isnan(x), -1, x)
        allowed = (lambda x: is_count(x) | (x == -1)) if self.missing else is_count
        require(allowed, x, "data must be categories 0, 1, 2, ...")
        if (size := self.n_categories or size_of(self, "v")[0]) is not None:
            require(lambda x: x < size, x, f"data must be categories below {size}")
        return x.astype(jnp.int32)

    def inspect(self, data: Data) -> Categorical:
        size = self.n_categories or size_of(self, "v")[0]
        if size is None and is_concrete(data):
            size = max(int(jnp.max(data)), 0) + 1
            if size > _MOST_CATEGORIES:
                raise ValueError(
                    f"data must be categories below {_MOST_CATEGORIES} where n_categories is not given; got "
                    f"{size - 1}; np.unique(data, return_inverse=True)[1] numbers categories from 0"
                )
        return replace(self, n_categories=size)

    def chunk_rows(self, data: Array) -> int:
        cached = _BLOCK_BYTES // (data.shape[1] * self._size * jnp.dtype(float_dtype(data)).itemsize)
        return max(1, min(super().chunk_rows(data), cached))

    def defaults(self, data: Array, weights: Array | None) -> dict[str, Tree]:
        return dict(concentration=jnp.ones((data.shape[1], self._size), float_dtype(data)))

    def distance(self, data: Array, weights: Array | None) -> Distance | None:
        dtype = float_dtype((self, data))

        def differing(row: Int[Array, ""]) -> Float[Array, " n"]:
            own = take_rows(data, row)
            return ((data != own) & (data >= 0) & (own >= 0)).sum(1).astype(dtype)

        return differing

    def table(self, statistics: DirichletStatistics, rows: Int[Array, "n d"]) -> Float[Array, "n k"]:
        log = statistics.log.reshape(self.n_laws, -1)
        seen = jax.nn.one_hot(rows, self._size, dtype=log.dtype)  # 0 where missing, for all categories
        return seen.reshape(rows.shape[0], -1) @ log.T

    def log_predictive_of(self, state: DirichletState, rows: Int[Array, "n d"]) -> Float[Array, " n"]:
        return jnp.where(rows < 0, 0, jnp.log(state.mean)[jnp.arange(self.columns), rows]).sum(-1)

    def redraw_rows(
        self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Int[Array, "n d"]
    ) -> Int[Array, "n d"]:
        drawn = super().redraw_rows(parameters, key, c, rows)
        return jnp.where(rows < 0, rows, drawn)  # what is missing stays missing

    def draw(self, key: Array, parameters: Float[Array, "n d v"], given: Given) -> Int[Array, "n d"]:
        return jax.random.categorical(key, jnp.log(parameters)).astype(jnp.int32)
