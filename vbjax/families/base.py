"""The contract of a family: what a factor of q is, and the two maps that every algorithm alternates.

Three kinds of object, one file for each family:

- a **Statistics** record holds (expected) sufficient statistics E[t(z)]. Its fields are *natural*
  (affine in the log joint, their number of event axes is in `events`), or the constant `pivot` about
  which location statistics are taken, or `base`, the expected log base measure log h(z);
- a **State** is a distribution in well-conditioned coordinates: it is what `fit.params` holds;
- a **Family** is the static description (plate and event sizes) that makes states from gradients.

The density of a state is h(z) exp(<eta, t(z)> - A(eta)). `h` is chosen so that eta is the coordinate
itself, a Gamma's (a, -b) and a Dirichlet's alpha, not alpha - 1, which would lose the digits of a
small alpha in float32. Terms add `base` with weight one for every density of z they hold; one prior
per factor is the rule, and then it cancels against the entropy before it is ever computed.

Leading axes are plates. Imported by the families, terms and core.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from vbjax.families.cells import note_read, read_cells
from vbjax.numerics.inputs import as_array, as_floating, read_count, read_key, read_probabilities, read_shape

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """A frozen dataclass that JAX sees through; fields marked `static` are structure.

    Not by `register_dataclass`: its structures compare equal for two classes with as many fields (jaxlib
    0.10), and `jit` then now and then takes the one's program for the other's.
    """
    kind: Any = dataclasses.dataclass(frozen=True, eq=False)(cls)
    fields = dataclasses.fields(kind)
    structure = tuple(f.name for f in fields if f.metadata.get("static"))
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    keys = tuple(map(jax.tree_util.GetAttrKey, leaves))

    def flatten(x: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(x, name) for name in leaves], tuple(getattr(x, name) for name in structure)

    def flatten_with_keys(x: Any) -> tuple[list[Any], tuple[Any, ...]]:
        values, statics = flatten(x)
        return list(zip(keys, values, strict=True)), statics

    def unflatten(statics: tuple[Any, ...], values: Any) -> Any:
        x = object.__new__(kind)
        x.__dict__.update(zip(leaves, values, strict=True))
        x.__dict__.update(zip(structure, statics, strict=True))
        return x

    jax.tree_util.register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)
    return kind


def static(**kwargs: Any) -> Any:
    """A dataclass field that is structure: hashable, and a new value is a new program."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


class LocationPrecision(NamedTuple):
    """A value, mean or variance of a joint factor of a location and its precision."""

    location: Array
    precision: Array


class Statistics:
    """Expected sufficient statistics; see the module's text for natural fields, `pivot` and `base`."""

    events: ClassVar[dict[str, int]]

    @property
    def natural(self) -> dict[str, Array]:
        """The fields in which a conjugate log joint is affine."""
        return {name: getattr(self, name) for name in self.events}

    @property
    def plate(self) -> tuple[int, ...]:
        """The leading axes of every field."""
        name, n_axes = next(iter(self.events.items()))
        shape = jnp.shape(getattr(self, name))
        return shape[: len(shape) - n_axes]

    def __getitem__(self, index: Any) -> Self:
        """Return the statistics of some cells of the plate: `s.effect[group]` is each row's own.

        A number below 0 is counted from the end; an array of numbers is not, they must be cells' own.

        Raises:
            IndexError: where that can be seen, numbers that are no cells', or more axes than the plate has.
        """
        index = read_cells(index, self.plate)
        note_read(self, index)
        if not any(isinstance(part, (np.ndarray, jax.Array)) for part in index):
            return jax.tree.map(lambda x: x[index], self)
        return jax.tree.map(lambda x: jnp.asarray(x).at[index].get(wrap_negative_indices=False), self)

    def inner(self, gradient: Statistics) -> Array:
        """<gradient, self> over the natural fields, one number for each cell of the plate."""
        total: Any = 0.0
        for name, n_axes in self.events.items():
            product = getattr(gradient, name) * getattr(self, name)
            total = total + product.sum(tuple(range(product.ndim - n_axes, product.ndim)))
        return total

    def with_base(self, base: ArrayLike) -> Self:
        """The same with another log base measure; unchanged where the family's is one."""
        if not hasattr(self, "base"):
            return self
        return dataclasses.replace(self, base=jnp.full_like(self.base, base))  # type: ignore[type-var]

    def about(self, pivot: Array) -> Self:
        """The same statistics about another pivot; unchanged where the family has none."""
        return self

    def like(self, other: Statistics) -> Self:
        """The same statistics about the pivot of `other`."""
        return self.about(other.pivot) if hasattr(other, "pivot") else self

    @property
    def log_base(self) -> Array | float:
        """E[log h(z)], 0 where the family's base measure is one."""
        return getattr(self, "base", 0.0)


class State:
    """A distribution over the plate's cells, in well-conditioned coordinates.

    Every family's state gives `mean`, `variance`, `covariance` (over the event's axes; the variance
    itself for scalars), `mode` (NaN where there is none, but 0 for a precision whose density is
    unbounded there), `sd`, `entropy()`, `kl(other)`, `log_prob(x)` and `sample(key, shape)`.

    `domains` says of each field where it lives: "location" (in units of `location_scale`), "real",
    "positive", "definite" (a symmetric positive definite matrix), "triangular" (the lower factor of one) or
    "degrees" (above its size less one).
    """

    domains: ClassVar[dict[str, str]] = {}

    def statistics(self, x: Any) -> Any:
        """t(x) of a value, taken about itself where the family has a pivot."""
        raise TypeError(f"{type(self).__name__} has no statistics")

    def expected(self) -> Any:
        """E_q[t(z)], about the state's own location where the family has a pivot."""
        raise TypeError(f"{type(self).__name__} has no expected statistics")

    def log_density(self, statistics: Any) -> Array:
        """<eta, t> - A(eta): the log density but for log h, at values or expected statistics."""
        raise TypeError(f"{type(self).__name__} has no density")

    def base_entropy(self) -> Array:
        """A(eta) - <eta, E[t]>: the entropy relative to the base measure, by remainder forms."""
        raise TypeError(f"{type(self).__name__} has no entropy")

    if TYPE_CHECKING:  # fields in one family, properties in another

        @property
        def mean(self) -> Any: ...

        @property
        def variance(self) -> Any: ...

        @property
        def mode(self) -> Any: ...

    @property
    def covariance(self) -> Any:
        return self.variance

    @property
    def sd(self) -> Any:
        """Standard deviation, elementwise: sqrt(variance)."""
        return jax.tree.map(jnp.sqrt, self.variance)

    def at_mode(self) -> Any:
        """The statistics of the mode: what a point estimate (`Delta`) sends to the others."""
        return self.statistics(self.mode)

    def divergence(self, other: Self) -> Array:
        """KL(self || other) of a state of this class, for `kl`, which checks that it is one.

        The families pair the two halves, which would cancel badly in float32 where both are concentrated.
        """
        return -other.log_density(self.expected()) - self.base_entropy()

    def draw(self, key: Array, shape: tuple[int, ...]) -> Any:
        """Draws of shape `shape + plate + event`, for `sample`, which reads key and shape."""
        raise TypeError(f"{type(self).__name__} has no sampler")

    def entropy(self) -> Array:
        """-E_q[log q(z)], in nats."""
        with _fields_that_fit(self) as state:
            return state.base_entropy() - state.expected().log_base

    def kl(self, other: Self) -> Array:
        """KL(self || other) in nats, one number for each cell of the plate.

        Raises:
            ValueError: `other` is not a state of this class, or of another plate or size.
        """
        if type(other) is not type(self):
            raise ValueError(f"other must be a {type(self).__name__}; got {type(other).__name__}")
        with _fields_that_fit(self, other) as (state, other):
            return state.divergence(other)

    def log_prob(self, x: Any) -> Array:
        """log q(x), one number for each cell of the plate.

        Raises:
            ValueError: an `x` that is no number, or of another shape than a draw.
        """
        x = self.read_value(x)
        with _fields_that_fit(self) as state:
            t = state.statistics(x)
            return state.log_density(t) + t.log_base

    def sample(self, key: Array, shape: int | tuple[int, ...] = ()) -> Any:
        """Independent draws, of shape `shape + plate + event`.

        Raises:
            ValueError: `key` is no key, or `shape` neither a whole number nor a tuple of them.
        """
        key, shape = read_key(key), read_shape(shape)
        with _fields_that_fit(self) as state:
            return state.draw(key, shape)

    def read_value(self, x: Any) -> Any:
        """Return a value of the latent as arrays: of the structure, the event and the dtype of a draw.

        Raises:
            ValueError: an `x` that is no number, of another event, or whose plate does not fit.
        """
        with _fields_that_fit(self) as state:
            draw = jax.eval_shape(lambda q: q.draw(jax.random.key(0), ()), state)
            plate = jax.eval_shape(lambda q: q.base_entropy(), state).shape
        if not isinstance(draw, tuple):
            return _read_event(x, draw, plate)
        if not isinstance(x, tuple) or len(x) != len(draw):
            raise ValueError(f"x must be a {type(draw).__name__}; got {type(x).__name__}")
        return type(draw)(*(_read_event(value, like, plate) for value, like in zip(x, draw, strict=True)))


def read_share(p: ArrayLike, like: Array) -> Array:
    """Return shares of the mass, of the dtype of `like` and of a shape that fits its own.

    Raises:
        ValueError: other than numbers from 0 to 1, or of another shape.
    """
    share = jnp.asarray(read_probabilities(p), like.dtype)
    try:
        np.broadcast_shapes(share.shape, like.shape)
    except ValueError:
        raise ValueError(f"p must be a number or fit the shape {like.shape}; got {share.shape}") from None
    return share


def _read_event(x: Any, draw: Any, plate: tuple[int, ...]) -> Array:
    event = draw.shape[len(plate) :]
    x = as_array(x, "x")
    n = max(x.ndim - len(event), 0)
    try:
        np.broadcast_shapes(x.shape[:n], plate)
        fits = x.shape[n:] == event
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"x must have the shape {draw.shape} of a draw, or axes before it; got {x.shape}")
    return x.astype(draw.dtype)


@contextlib.contextmanager
def _fields_that_fit(*states: Any) -> Iterator[Any]:
    """Give the states with arrays for fields; say so where their shapes do not fit one another.

    Raises:
        ValueError: fields that are no numbers, or of shapes that do not fit.
    """
    read = tuple(map(_with_arrays, states))
    try:
        yield read if len(read) > 1 else read[0]
    except (AttributeError, TypeError, ValueError) as error:
        shapes = " and ".join(f"{type(q).__name__}{_shapes(q)}" for q in read)
        what = "other must fit this state" if len(read) > 1 else "fields must fit one another"
        raise ValueError(f"{what}; got {shapes}: {error}") from error


def _with_arrays(state: Any) -> Any:
    """Return the state with numbers as arrays."""
    given = {name: getattr(state, name) for name in state.domains}
    read = {name: as_floating(x, name) for name, x in given.items() if not isinstance(x, jax.Array)}
    return dataclasses.replace(state, **read) if read else state


def _shapes(state: Any) -> str:
    return "(" + ", ".join(f"{name} {getattr(state, name).shape}" for name in state.domains) + ")"


@dataclasses.dataclass(frozen=True)
class Family:
    """The static description of a factor of q: hashable, without numbers.

    `base_weight` is 1 for a distribution, whose entropy leaves log h out, and 0 for a point. `guarded`: there
    is no optimum in closed form, only a `step` that could lower the bound, and must be scored. `curvature`:
    the field of the statistics whose coefficient is the curvature in a location, or the pull on a label.
    Where that of one factor depends on another location or label, the two multiply, and their neutral members
    may be a saddle of the bound. None where the neutral member favours a direction.
    """

    plate: tuple[int, ...] = ()
    base_weight: ClassVar[float] = 1.0
    guarded: ClassVar[bool] = False
    counts: ClassVar[tuple[str, ...]] = ("size", "rows", "concentration")
    curvature: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        """Read the plate, and the sizes that a family has.

        Raises:
            ValueError: what is no whole number.
        """
        object.__setattr__(self, "plate", read_shape(self.plate, "plate"))
        for name in self.counts:
            if hasattr(self, name):
                read_count(getattr(self, name), name)

    def repeated(self, n: int) -> Self:
        """The same family for each of n rows: the plate gets a leading axis."""
        return dataclasses.replace(self, plate=(read_count(n, "n", least=0), *self.plate))

    def neutral(self, dtype: DTypeLike) -> Any:
        """A standard member, its mode inside the support: where a fit without better knowledge starts."""
        raise TypeError(f"{type(self).__name__} has no neutral member")

    def from_gradient(self, statistics: Any, gradient: Any, weight: ArrayLike = 1.0) -> Any:
        """The optimal state: its natural parameter is d E[log p] / d E[t] (divided by `weight`).

        Args:
            statistics: where the gradient was taken; only its pivot matters.
            gradient: gradient of the expected log joint, in the structure of the statistics.
            weight: exchangeable copies that the factor stands for inside one row.
        """
        raise TypeError(f"{type(self).__name__} has no coordinate update")

    def natural(self, state: Any, statistics: Any) -> Any:
        """The natural parameter of a state about the pivot of `statistics`: what `from_gradient` undoes."""
        return jax.grad(lambda t: state.log_density(t).sum())(statistics).with_base(1.0)

    def mix(self, state: Any, other: Any, rho: ArrayLike) -> Any:
        """The state of natural parameter (1 - rho) eta + rho eta': a natural-gradient step of size rho.

        Both are taken about the first state's location, so that nothing large cancels (Hoffman et al.
        2013, eq. 22; Amari 1998). Its log density is the two log densities' average but for a constant.
        """
        statistics = state.expected()
        eta, eta_other = self.natural(state, statistics), self.natural(other, statistics)
        return self.from_gradient(
            statistics, jax.tree.map(lambda x, y: (1 - rho) * x + rho * y, eta, eta_other)
        )

    @staticmethod
    def starts(families: Mapping[str, Any], key: Array, dtype: DTypeLike) -> dict[str, Any]:
        """States from which guarded factors of one model begin: at random, and made together."""
        raise TypeError("only guarded factors start at random")

    def step(self, state: Any, statistics: Any, gradient: Any, rho: ArrayLike) -> Any:
        """The state after a part rho of the way to the optimum, in natural parameters."""
        return self.mix(state, self.from_gradient(statistics, gradient), rho)

    def expected(self, state: Any) -> Any:
        """E_q[t(z)] about the state's own location: the mean map, grad A(eta)."""
        return state.expected()

    def base_entropy(self, state: Any) -> Array:
        """The factor's share of the bound: entropy relative to the base measure."""
        return state.base_entropy()

    def log_normalizer(self, statistics: Any, gradient: Any) -> Array:
        """A at the natural parameter `gradient`: what a factor adds to the bound once optimised away."""
        state = self.from_gradient(statistics, gradient)
        t = state.expected().like(statistics)
        return state.base_entropy() + t.inner(gradient) + (gradient.log_base - 1) * t.log_base
