"""Columns of different kinds: a component for each of them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.frames import Table
from vbjax.families.base import pytree, replace
from vbjax.models.components.component import Pullback
from vbjax.models.components.parts import Parts, read_name
from vbjax.models.components.seeding import Distance
from vbjax.numerics.inputs import describe
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


@pytree
class Product(Parts):
    """Rows of several parts, independent of one another given the law: x_n = (x_n1, x_n2, ...).

        log p(x_n | law k) = sum_j log p_j(x_nj | law k)

    Each part has the updates of its own component, under the responsibilities of whole rows.

    Data: a dict of the data of every part by its name, with a common number of rows; for `vb.fit` also a data
    frame that has columns of these names, among others. The factors have the names of the parts.

    Args:
        parts: a component for each part, by name.

    Raises:
        ValueError: no part, or one that is no component; data without a part, or with one too many; what the
            parts raise, with their name before it.

    >>> import jax, numpy as np, vbjax as vb
    >>> patients = dict(height=np.array([[1.6], [1.7], [1.9], [1.8]]), visits=np.array([[1], [0], [9], [7]]))
    >>> patient = vb.components.Product(height=vb.components.Gaussian(), visits=vb.components.Poisson())
    >>> fit = vb.fit(vb.BayesianMixture(2, patient), patients, key=jax.random.key(0), n_restarts=4)
    >>> fit.params.height.mean.location.shape, fit.params.visits.mean.shape
    ((2, 1), (2, 1))
    """

    def __init__(self, **parts: Given) -> None:
        if not parts:
            raise ValueError("parts must be components by name, such as height=vb.components.Gaussian()")
        for name, part in parts.items():
            read_name(name, part)
        super().__init__(Record(parts))

    @property
    def arguments(self) -> Record:
        """Arguments that make the component: its parts."""
        return self.parts

    @property
    def may_be_idle(self) -> bool:
        return all(part.may_be_idle for part in self.parts.values())

    def of(self, n_laws: int, points: bool, active: Array | None = None) -> Product:
        parts = Record({name: part.of(n_laws, points, active) for name, part in self.parts.items()})
        return replace(self, n_laws=n_laws, points=points, active=active, parts=parts)

    # -- data ----------------------------------------------------------------------------------------

    def rows_by_part(self, rows: Data) -> Mapping[str, Tree]:
        return rows

    def read(self, data: Data) -> Mapping[str, Tree]:
        if isinstance(data, Table):
            data = {name: data[name] for name in data if name in self.parts}
        if not isinstance(data, Mapping) or set(data) != set(self.parts):
            names = ", ".join(map(repr, self.parts))
            got = f"one of {', '.join(map(repr, data))}" if isinstance(data, Mapping) else describe(data)
            raise ValueError(f"data must be a dict of the data of {names}; got {got}")
        read = {}
        for name in data:
            with _named(name):
                read[name] = self.parts[name].read(data[name])
        sizes = {name: n_rows(rows) for name, rows in read.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"data must have as many rows in every part; got {sizes}")
        floating = [x.dtype for x in jax.tree.leaves(read) if jnp.issubdtype(x.dtype, jnp.floating)]
        widest = functools.reduce(np.promote_types, floating, np.dtype("float32"))
        cast = lambda x: x.astype(widest) if jnp.issubdtype(x.dtype, jnp.floating) else x
        return _like(data, jax.tree.map(cast, read))

    def inspect(self, data: Data) -> Product:
        parts = dict(self.parts)
        for name, part in parts.items():
            with _named(name):
                parts[name] = part.inspect(data[name])
        return replace(self, parts=Record(parts))

    def annotate(self, data: Data, weights: Float[Array, " n"] | None = None) -> Mapping[str, Tree]:
        return _like(data, self._by_part(lambda part, rows: part.annotate(rows, weights), data))

    def bare(self, rows: Data) -> Mapping[str, Tree]:
        return _like(rows, self._by_part(lambda part, own: part.bare(own), rows))

    def split(self, rows: Data) -> tuple[Mapping[str, Tree], Float[Array, " n"] | None]:
        each = self._by_part(lambda part, own: part.split(own), rows)
        constants = [constant for _, constant in each.values() if constant is not None]
        return {name: own for name, (own, _) in each.items()}, sum(constants) if constants else None

    # -- E-step --------------------------------------------------------------------------------------

    def energy(self, s: Record, rows: Data) -> Float[Array, "n k"]:
        tables = [part.energy(self._own(name, s), rows[name]) for name, part in self.parts.items()]
        return sum(tables)

    def log_density(self, prepared: Record, rows: Data) -> tuple[Float[Array, "k n"], Pullback]:
        each = {name: part.log_density(prepared[name], rows[name]) for name, part in self.parts.items()}
        pull = lambda r: self._joined({name: own(r) for name, (_, own) in each.items()})
        return sum(density for density, _ in each.values()), pull

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        each = {name: part.permute(self._own(name, params), order) for name, part in self.parts.items()}
        return self._joined(each)

    # -- start ---------------------------------------------------------------------------------------

    def distance(self, data: Data, weights: Float[Array, " n"] | None) -> Distance | None:
        each = self._by_part(lambda part, rows: part.distance(rows, weights), data).values()
        known = [distance for distance in each if distance is not None]
        return (lambda row: sum(distance(row) for distance in known)) if known else None

    def start_at(self, seeds: Data, data: Data, weights: Float[Array, " n"] | None = None) -> Record:
        """Return the parameters that start from given rows, the same in every part."""
        if weights is None:  # a part of whole numbers has no dtype of its own
            weights = jnp.ones(n_rows(data), float_dtype(data))
        found = {}
        for name, part in self.parts.items():
            own = jax.tree.map(lambda x, n=part.rows_to_start: x[: self.n_laws * n], seeds[name])
            found[name] = part.start_at(own, data[name], weights)
        return self._joined(found)

    # -- use -----------------------------------------------------------------------------------------

    def log_components(self, params: Params, rows: Data) -> Float[Array, "n k"]:
        each = [part.log_components(self._own(name, params), rows[name]) for name, part in self.parts.items()]
        return sum(each)

    def read_given(self, given: Given, n: int) -> Mapping[str, Tree]:
        given = {} if given is None else given
        if not isinstance(given, Mapping) or not set(given) <= set(self.parts):
            raise ValueError(f"given must be a dict by the names of parts; got {describe(given)}")
        read = {}
        for name, part in self.parts.items():
            with _named(name):
                read[name] = part.read_given(given.get(name), n)
        return read

    def draw_rows(
        self, params: Params, key: Array, c: Int[Array, " n"], given: Given = None
    ) -> Mapping[str, Tree]:
        keys = dict(zip(self.parts, jax.random.split(key, len(self.parts)), strict=True))
        return {
            name: part.draw_rows(self._own(name, params), keys[name], c, (given or {}).get(name))
            for name, part in self.parts.items()
        }

    def redraw_rows(
        self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Data
    ) -> Mapping[str, Tree]:
        keys = dict(zip(self.parts, jax.random.split(key, len(self.parts)), strict=True))
        draw = lambda name, part: part.redraw_rows(parameters[name], keys[name], c, rows[name])
        return _like(rows, {name: draw(name, part) for name, part in self.parts.items()})


def _like(rows: Mapping[str, Tree], values: Mapping[str, Tree]) -> Mapping[str, Tree]:
    """Return values by part as the pytree in which the rows came, a dict or a `Record` in its own order."""
    ordered = {name: values[name] for name in rows}
    return Record(ordered) if isinstance(rows, Record) else ordered


@contextlib.contextmanager
def _named(part: str) -> Iterator[None]:
    """Say in the message of an error of which part it speaks."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"part {part!r}: {error}") from None
