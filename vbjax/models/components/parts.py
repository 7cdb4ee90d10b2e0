"""Components that are made of others, by name: what `Product` and `Union` share."""

from __future__ import annotations

import abc
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from vbjax.core.hyperparameters import parts
from vbjax.core.model import in_dtype
from vbjax.core.rows import Expectation, float_dtype
from vbjax.families.base import pytree, replace
from vbjax.models.components.component import Component
from vbjax.numerics.inputs import describe
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree

_TAKEN = ("weights", "shares", "initial", "transitions")  # factors of the models that hold components


@pytree
class Parts(Component, abc.ABC):
    """Components by name; the parameters of the part `height` are the factor `height`.

    Other factors of a part have its name before their own: the shares of a `Mixture` are `height_shares`.

    Attributes:
        parts: the components, a `Record`.
    """

    parts: Any = parts(Component, "components, such as vb.components.Gaussian()")

    @abc.abstractmethod
    def rows_by_part(self, rows: Data) -> Mapping[str, Tree]:
        """Return the rows as every part takes them."""

    def _each(self, of: Callable[[Component], Tree]) -> list[Tree]:
        return [of(part) for part in self.parts.values()]

    def _by_part(self, of: Callable[[Component, Data], Tree], rows: Data) -> dict[str, Tree]:
        rows = self.rows_by_part(rows)
        return {name: of(part, rows[name]) for name, part in self.parts.items()}

    def _own(self, name: str, tree: Mapping[str, Tree]) -> Record:
        """Return what of a tree by factors is of one part, by that part's own names of its factors."""
        factors = self.parts[name].factors
        return Record({own: tree[full] for own in factors if (full := _factor(name, own)) in tree})

    def _joined(self, trees: Mapping[str, Mapping[str, Tree]]) -> Record:
        """Return in one tree by factors what every part gives by its own names of them."""
        return Record({_factor(name, own): x for name, tree in trees.items() for own, x in tree.items()})

    def _of_params(self, of: Callable[[Component, Record], Tree], params: Params) -> list[Tree]:
        return [of(part, self._own(name, params)) for name, part in self.parts.items()]

    # -- data ----------------------------------------------------------------------------------------

    def sizes(self, data: Data) -> dict[str, int]:
        each = self._by_part(lambda part, rows: part.sizes(rows), data)
        return {f"{name} {axis}": size for name, own in each.items() for axis, size in own.items()}

    def inspect(self, data: Data) -> Tree:
        return replace(self, parts=Record(self._by_part(lambda part, rows: part.inspect(rows), data)))

    def resolve(self, data: Data, weights: Float[Array, " n"] | None = None) -> Tree:
        """Return the component with the defaults of every part, in one dtype: some data are whole numbers."""
        resolved = self._by_part(lambda part, rows: part.resolve(rows, weights), data)
        _require_distinct(resolved)
        return in_dtype(replace(self, parts=Record(resolved)), float_dtype(data))

    def chunk_rows(self, data: Data) -> int:
        return min(self._by_part(lambda part, rows: part.chunk_rows(rows), data).values())

    @property
    def has_prior(self) -> bool:
        return any(self._each(lambda part: part.has_prior))

    @property
    def undrawable(self) -> str | None:
        return next(filter(None, self._each(lambda part: part.undrawable)), None)

    # -- E-step and M-step ---------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        return self._joined({name: part.factors for name, part in self.parts.items()})

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return _sum(self._of_params(lambda part, own: part.log_prior(own), s))

    def prepare(self, params: Params) -> Record:
        return Record({name: part.prepare(self._own(name, params)) for name, part in self.parts.items()})

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        def of(name: str, part: Component) -> Tree:
            own = expectation._replace(statistics=self._own(name, expectation.statistics))
            return part.cancelled(self._own(name, params), own)

        return _sum([of(name, part) for name, part in self.parts.items()])

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        def of(name: str, part: Component) -> Record:
            own = None if before is None else self._own(name, before)
            return part.constrain(self._own(name, params), own)

        own = {name: of(name, part) for name, part in self.parts.items()}
        return params | self._joined(own)

    def singular(self, params: Params) -> Bool[Array, ""]:
        return jnp.stack(self._of_params(lambda part, own: part.singular(own), params)).any()

    def ill_conditioned(self, params: Params) -> Bool[Array, ""]:
        return jnp.stack(self._of_params(lambda part, own: part.ill_conditioned(own), params)).any()

    # -- start and use -------------------------------------------------------------------------------

    @property
    def rows_to_start(self) -> int:
        return max(self._each(lambda part: part.rows_to_start))

    @property
    def n_parameters(self) -> int:
        return sum(self._each(lambda part: part.n_parameters))

    def draw_parameters(self, params: Params, key: Array) -> Record:
        keys = jax.random.split(key, len(self.parts))
        each = zip(keys, self.parts.items(), strict=True)
        return Record(
            {name: part.draw_parameters(self._own(name, params), own_key) for own_key, (name, part) in each}
        )


def _factor(part: str, own: str) -> str:
    """Return the name of a factor of a part among those of all parts."""
    return part if own == "components" else f"{part}_{own}"


def _require_distinct(parts: Mapping[str, Component]) -> None:
    """Raise a ValueError if two parts have a factor of one name."""
    owner: dict[str, str] = {}
    for part, component in parts.items():
        for name in (_factor(part, own) for own in component.factors):
            if owner.setdefault(name, part) != part:
                raise ValueError(
                    f"the part {part!r} must have another name: {name!r} is a factor of {owner[name]!r}"
                )


def _sum(values: Iterable[Tree]) -> Tree:
    return functools.reduce(operator.add, values)


def read_name(name: str, component: Given) -> None:
    """Raise a ValueError for a name that a factor of a model has, and for what is no component."""
    if name in _TAKEN:
        raise ValueError(f"the part {name!r} must have another name: models have a factor of it")
    if not isinstance(component, Component):
        raise ValueError(
            f"{name} must be a component, such as vb.components.Poisson(); got {describe(component)}"
        )
