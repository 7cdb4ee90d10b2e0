"""Laws of different kinds side by side, such as classes and noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from vbjax.families.base import pytree, replace, static
from vbjax.models.components.component import Component, Pullback
from vbjax.models.components.parts import Parts, read_name
from vbjax.models.components.seeding import Distance
from vbjax.numerics.inputs import describe, read_count
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


@pytree
class Union(Parts):
    """Laws of several components: the first n_1 are of the first component, the next n_2 of the second.

    Each part has the updates of its own component, under the responsibilities of its laws; weights are over
    all of them. Parts are given by name, as their parameters are factors of these names.

    Data: as every part takes them. The factors have the names of the parts; a part without parameters
    (`Noise`) has none.

    Args:
        parts: for each part its number of laws and its component, by name.

    Raises:
        ValueError: no part, or one that is no such pair; numbers of laws that do not add up to those of the
            model; data that the parts read as different rows.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.append(vb.datasets.old_faithful(), jax.numpy.array([[50.0, 500.0]]), 0)
    >>> laws = vb.components.Union(modes=(2, vb.components.Gaussian()), noise=(1, vb.components.Noise()))
    >>> fit = vb.fit(vb.Mixture(3, laws), x, key=jax.random.key(0), n_restarts=8)
    >>> int(fit.predict(x)[-1]), int((fit.predict(x) == 2).sum())
    (2, 1)
    """

    numbers: tuple[int, ...] = static(default=())

    def __init__(self, **parts: Any) -> None:
        if not parts:
            raise ValueError("parts must be numbers and components by name, such as noise=(1, Noise())")
        for name, pair in parts.items():
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(f"{name} must be a number of laws and a component; got {describe(pair)}")
            read_count(pair[0], f"the number of laws of {name}")
            read_name(name, pair[1])
        super().__init__(Record({name: pair[1] for name, pair in parts.items()}))
        object.__setattr__(self, "numbers", tuple(int(pair[0]) for pair in parts.values()))

    @property
    def arguments(self) -> dict[str, tuple[int, Component]]:
        """Arguments that make the component: the number and the law of each part."""
        return dict(zip(self.parts, zip(self.numbers, self.parts.values(), strict=True), strict=True))

    @property
    def may_be_idle(self) -> bool:
        return False

    def of(self, n_laws: int, points: bool, active: Array | None = None) -> Union:
        each = zip(self.parts.items(), self.numbers, strict=True)
        parts = Record({name: part.of(number, points) for (name, part), number in each})
        return replace(self, n_laws=n_laws, points=points, parts=parts)

    @property
    def places(self) -> dict[str, slice]:
        """Places of the laws of every part among all laws."""
        ends = np.cumsum(self.numbers).tolist()
        each = zip(self.parts, self.numbers, ends, strict=True)
        return {name: slice(end - number, end) for name, number, end in each}

    # -- data ----------------------------------------------------------------------------------------

    def rows_by_part(self, rows: Data) -> Mapping[str, Tree]:
        return dict.fromkeys(self.parts, rows)

    def read(self, data: Data) -> Data:
        if sum(self.numbers) != self.n_laws:
            own = " and ".join(f"{n} of {name}" for name, n in zip(self.parts, self.numbers, strict=True))
            raise ValueError(
                f"component must have as many laws as the model has components, {self.n_laws}; got {own}"
            )
        forms = {}
        for name, part in self.parts.items():
            data = part.read(data)
            leaves, structure = jax.tree.flatten(data)
            forms[name] = (structure, [x.dtype for x in leaves])
        (first, form), *others = forms.items()
        for name, other in others:
            if other != form:
                raise ValueError(f"data must be rows of one kind for all parts; {first} and {name} differ")
        return data

    # -- E-step --------------------------------------------------------------------------------------

    def energy(self, s: Record, rows: Data) -> Float[Array, "n k"]:
        def of(name: str, part: Component) -> Array:
            own, constant = part.split(self.rows_by_part(rows)[name])
            table = part.energy(self._own(name, s), own)
            return table if constant is None else table + constant[:, None]

        return jnp.concatenate([of(name, part) for name, part in self.parts.items()], 1)

    def log_density(self, prepared: Record, rows: Data) -> tuple[Float[Array, "k n"], Pullback]:
        rows, places = self.rows_by_part(rows), self.places
        each = {name: part.log_density(prepared[name], rows[name]) for name, part in self.parts.items()}
        pull = lambda r: self._joined({name: own(r[places[name]]) for name, (_, own) in each.items()})
        return jnp.concatenate([density for density, _ in each.values()]), pull

    # -- start ---------------------------------------------------------------------------------------

    def distance(self, data: Data, weights: Float[Array, " n"] | None) -> Distance | None:
        each = self._by_part(lambda part, rows: part.distance(rows, weights), data)
        known = [distance for distance in each.values() if distance is not None]
        if len(known) in (0, len(each)):
            return known[0] if known else None
        return lambda row: jnp.minimum(known[0](row), 1)  # rows beyond a standard deviation may be noise

    def start_at(self, seeds: Data, data: Data, weights: Float[Array, " n"] | None = None) -> Record:
        rows, found = self.rows_by_part(data), {}
        for name, part in self.parts.items():
            turns = np.arange(part.rows_to_start)[:, None] * self.n_laws
            own = turns + np.arange(self.n_laws)[self.places[name]]
            seeds_of_part = jax.tree.map(lambda x, own=own: x[own.reshape(-1)], seeds)
            found[name] = part.start_at(seeds_of_part, rows[name], weights)
        return self._joined(found)

    # -- use -----------------------------------------------------------------------------------------

    def log_components(self, params: Params, rows: Data) -> Float[Array, "n k"]:
        rows = self.rows_by_part(rows)
        each = [part.log_components(self._own(name, params), rows[name]) for name, part in self.parts.items()]
        return jnp.concatenate(each, 1)

    def read_given(self, given: Given, n: int) -> Mapping[str, Tree]:
        return {name: part.read_given(given, n) for name, part in self.parts.items()}

    def draw_rows(self, params: Params, key: Array, c: Int[Array, " n"], given: Given = None) -> Data:
        def draw(name: str, part: Component, key: Array, law: Array) -> Data:
            return part.draw_rows(self._own(name, params), key, law, (given or {}).get(name))

        return self._chosen(draw, key, c)

    def redraw_rows(self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Data) -> Data:
        draw = lambda name, part, key, law: part.redraw_rows(parameters[name], key, law, rows)
        return self._chosen(draw, key, c)

    def _chosen(self, draw: Any, key: Array, c: Int[Array, " n"]) -> Tree:
        """Return rows of which each is drawn by the part that its law is of."""

        def later(law: Array, new: Tree, drawn: Tree) -> Tree:
            choose = lambda x, y: jnp.where((law >= 0).reshape(-1, *[1] * (x.ndim - 1)), x, y)
            return jax.tree.map(choose, new, drawn)

        keys, drawn = jax.random.split(key, len(self.parts)), None
        for own, (name, part) in zip(keys, self.parts.items(), strict=True):
            law = c - self.places[name].start
            new = draw(name, part, own, jnp.clip(law, 0, part.n_laws - 1))
            drawn = new if drawn is None else later(law, new, drawn)
        return drawn
