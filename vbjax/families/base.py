"""The contract of a family: what a factor of q is, and the two maps that every algorithm alternates.

Each family has a file of its own with three kinds of object:

- a **Statistics** record holds (expected) sufficient statistics E[t(z)]. Its fields are *natural* (the log
  joint is affine in them, and `events` says how many event axes each has), or the constant `pivot` about
  which location statistics are taken, or `base`, the expected log base measure log h(z);
- a **State** is a distribution in well-conditioned coordinates: it is what `fit.params` holds;
- a **Family** is the static description (plate and event sizes) that makes states from gradients.

The density of a state is h(z) exp(<eta, t(z)> - A(eta)). `h` is chosen so that eta is the coordinate
itself, a Gamma's (a, -b) and a Dirichlet's alpha, not alpha - 1, which would lose the digits of a
small alpha in float32. Terms add `base` with weight one for every density of z they hold. Most models have
one prior per factor, and then `base` cancels against the entropy before it is ever computed.

Leading axes are plates. Families, terms and core import this file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    NamedTuple,
    Self,
    TypeAlias,
    TypeVar,
    dataclass_transform,
)

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float

from vbjax.families.cells import CellIndex, note_read, read_cells
from vbjax.numerics.compilation import full_precision
from vbjax.numerics.inputs import as_array, as_floating, read_count, read_key, read_probabilities, read_shape
from vbjax.numerics.shown import call
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data, Given, Tree

Value: TypeAlias = Any  # a value, mean or variance of a latent: an array, or a named tuple of arrays
C = TypeVar("C")


def static(**kwargs: Any) -> Tree:
    """Return a dataclass field that is structure: its value is hashable, and a new value is a new program."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls: type[C]) -> type[C]:
    """Return the class as a frozen dataclass that is a pytree; fields marked `static` are its structure.

    Files of fits may hold its objects.

    `jax.tree_util.register_dataclass` would not do: its structures compare equal for two classes with equally
    many fields (jaxlib 0.10), and `jit` then sometimes runs the program of one class for the other.
    """
    # without fields of its own a class keeps the constructor of its base
    own = [name for name, hint in inspect.get_annotations(cls).items() if "ClassVar" not in str(hint)]
    kind: type = dataclasses.dataclass(frozen=True, eq=False, init=bool(own), repr=False)(cls)
    if kind.__repr__ is object.__repr__:
        kind.__repr__ = _fields_repr  # type: ignore[method-assign, assignment]
    fields = dataclasses.fields(kind)
    structure = tuple(f.name for f in fields if f.metadata.get("static"))
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    keys = tuple(map(jax.tree_util.GetAttrKey, leaves))

    def flatten(x: C) -> tuple[list[object], tuple[object, ...]]:
        return [getattr(x, name) for name in leaves], tuple(getattr(x, name) for name in structure)

    def flatten_with_keys(x: C) -> tuple[list[tuple[object, object]], tuple[object, ...]]:
        values, statics = flatten(x)
        return list(zip(keys, values, strict=True)), statics

    def unflatten(statics: tuple[object, ...], values: Iterable[object]) -> C:
        x: Data = object.__new__(kind)
        x.__dict__.update(zip(leaves, values, strict=True))
        x.__dict__.update(zip(structure, statics, strict=True))
        return x

    jax.tree_util.register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)
    return stored(kind)


def _fields_repr(x: Tree) -> str:
    """Return the fields of a pytree by name, arrays in short."""
    return call(type(x).__name__, [(f.name, getattr(x, f.name)) for f in dataclasses.fields(x) if f.repr])


def replace(x: C, **changes: Given) -> C:
    """Return the pytree with other values in some fields, whatever its constructor takes."""
    moved: Tree = object.__new__(type(x))
    moved.__dict__.update(x.__dict__ | changes)
    if hasattr(moved, "__post_init__"):
        moved.__post_init__()
    return moved


def vanishes(count: Array) -> Bool[Array, " ..."]:
    """Return which counts are so small that products of them underflow: nothing rests on them."""
    return jnp.abs(count) < jnp.sqrt(jnp.finfo(count.dtype).tiny)


@stored
class LocationPrecision(NamedTuple):
    """Value, mean or variance of a joint factor of a location and its precision.

    >>> import vbjax as vb
    >>> point = vb.Delta(vb.NormalGamma()).at((3.0, 4.0))  # of a location and a variance
    >>> print(point.mean.location, point.mean.precision)
    3.0 0.25
    """

    location: Array
    precision: Array


class Statistics:
    """Expected sufficient statistics; the module's text explains natural fields, `pivot` and `base`.

    `point_domains` names the set in which each number of a point lives (`Family.maximise`), as
    `State.domains` does of a state's fields.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> effect = vb.families.NormalStatistics.of(jnp.array([1.0, 2.0, 3.0]))  # of three groups
    >>> print(effect[jnp.array([0, 2, 2])].mean)  # for rows of the groups 0, 2 and 2
    [1. 3. 3.]
    """

    events: ClassVar[dict[str, int]]
    point_domains: ClassVar[dict[str, str]] = {}

    if TYPE_CHECKING:  # families whose terms take values have it

        @classmethod
        def of(cls, x: Value) -> Self: ...

    @property
    def natural(self) -> dict[str, Array]:
        """Natural fields: those in which a conjugate log joint is affine."""
        return {name: getattr(self, name) for name in self.events}

    @property
    def plate(self) -> tuple[int, ...]:
        """Sizes of the leading axes of every field."""
        name, n_axes = next(iter(self.events.items()))
        shape = jnp.shape(getattr(self, name))
        return shape[: len(shape) - n_axes]

    def __getitem__(self, index: CellIndex) -> Self:
        """Return the statistics of some cells of the plate: `s.effect[group]` gives each row its group's.

        A single number below 0 is counted from the end; the numbers in an array are not, and must be those of
        cells.

        Raises:
            IndexError: if a number is not that of a cell (where values can be seen), or the index takes more
                axes than the plate has.
        """
        cells = read_cells(index, self.plate)
        note_read(self, cells)
        if not any(isinstance(part, (np.ndarray, jax.Array)) for part in cells):
            return jax.tree.map(lambda x: x[cells], self)
        return jax.tree.map(lambda x: jnp.asarray(x).at[cells].get(wrap_negative_indices=False), self)

    def inner(self, gradient: Statistics) -> Float[Array, "*plate"]:
        """Return <gradient, self> over the natural fields, one number for each cell of the plate."""
        total: Tree = 0.0
        for name, n_axes in self.events.items():
            product = getattr(gradient, name) * getattr(self, name)
            total = total + product.sum(tuple(range(product.ndim - n_axes, product.ndim)))
        return total

    def with_base(self, base: ArrayLike) -> Self:
        """Return these statistics with another log base measure; unchanged if the family's measure is one."""
        if not hasattr(self, "base"):
            return self
        return dataclasses.replace(self, base=jnp.full_like(self.base, base))  # type: ignore[type-var]

    def about(self, pivot: Array) -> Self:
        """Return these statistics taken about another pivot; unchanged if the family has none."""
        return self

    def like(self, other: Statistics) -> Self:
        """Return these statistics taken about the pivot of `other`."""
        return self.about(other.pivot) if hasattr(other, "pivot") else self

    @property
    def log_base(self) -> Array | float:
        """E[log h(z)], which is 0 where the family's base measure is one."""
        return getattr(self, "base", 0.0)

    def with_natural(self, other: Statistics) -> Self:
        """Return the natural fields and the base of others with this record's pivot.

        So the record of a gradient says about which pivot it was taken.
        """
        return dataclasses.replace(self, **other.natural).with_base(other.log_base)  # type: ignore[type-var]

    def gradient_like(self, other: Self) -> Self:
        """Return this gradient in statistics about the pivot of `other`."""
        pull = jax.grad(lambda t: t.like(self).inner(self).sum())(other)
        return other.with_natural(pull.with_base(self.log_base))

    # -- points, in the coordinates of `Family.maximise`

    def at(self, point: Value) -> Self:
        """Return the statistics of a point, with the sizes of these."""
        return self.of_value(self.value_at(point), point)

    def value_at(self, point: Value) -> Value:
        """Return a point as a value of the latent."""
        return point

    def of_value(self, x: Value, point: Value) -> Self:
        """Return the statistics of a value in the place of a point."""
        return self.of(x)

    def location_scale(self, point: Value) -> ArrayLike:
        """Return the unit of a point's location, where these are the gradient whose maximum it is."""
        return 1


T = TypeVar("T", bound=Statistics)


class State(Generic[T]):
    """Distribution over the plate's cells, in well-conditioned coordinates.

    Every family's state gives `mean`, `variance`, `covariance` (over the event's axes; the variance
    itself for scalars), `mode` (NaN where there is none, but 0 for a precision whose density is
    unbounded there), `sd`, `entropy()`, `kl(other)`, `log_prob(x)` and `sample(key, shape)`.

    `domains` names the set in which each field lives: "location" (in units of `location_scale`), "real",
    "positive", "definite" (a symmetric positive definite matrix), "triangular" (the lower factor of one),
    "degrees" (above its size less one) or "coupling" (real, and bound to a definite field: never displaced).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> q = vb.families.NormalState(jnp.array(1.0), jnp.array(1.0))
    >>> prior = vb.families.NormalState(jnp.array(0.0), jnp.array(1.0))
    >>> print(q.kl(prior), f"{q.entropy():.4f}", f"{q.quantile(0.975):.3f}")  # any family has all of these
    0.5 1.4189 2.960
    """

    domains: ClassVar[dict[str, str]] = {}

    def __repr__(self) -> str:
        """Return the family and the shape of a draw, or the numbers of a scalar."""
        if self.fields and all(np.ndim(x) == 0 for x in self.fields.values()):
            return call(type(self).__name__, self.fields.items())
        shapes = [x.shape for x in jax.tree.leaves(jax.eval_shape(lambda q: q.mean, self))]
        return f"<{self.title} {' and '.join(map(str, shapes))}>"

    @property
    def title(self) -> str:
        """The name of the family, for people."""
        return type(self).__name__.removesuffix("State")

    @property
    def fields(self) -> dict[str, Array]:
        """The numbers that `domains` names."""
        return {name: getattr(self, name) for name in self.domains}

    def with_fields(self, fields: Mapping[str, Array]) -> Self:
        """Return the state with other numbers."""
        return dataclasses.replace(self, **fields)  # type: ignore[type-var]

    def statistics(self, x: Value) -> T:
        """Return t(x) of a value, taken about the value itself if the family has a pivot."""
        raise TypeError(f"{type(self).__name__} has no statistics")

    def expected(self) -> T:
        """Return E_q[t(z)], taken about the state's own location if the family has a pivot."""
        raise TypeError(f"{type(self).__name__} has no expected statistics")

    def log_density(self, statistics: T) -> Float[Array, "*plate"]:
        """Return <eta, t> - A(eta), the log density without log h, at values or expected statistics."""
        raise TypeError(f"{type(self).__name__} has no density")

    def base_entropy(self) -> Float[Array, "*plate"]:
        """Return A(eta) - <eta, E[t]>, the entropy relative to the base measure, by remainder forms."""
        raise TypeError(f"{type(self).__name__} has no entropy")

    if TYPE_CHECKING:  # fields in one family, properties in another

        @property
        def mean(self) -> Value: ...

        @property
        def variance(self) -> Value: ...

        @property
        def mode(self) -> Value: ...

        @property
        def location_scale(self) -> Array: ...

    @property
    def covariance(self) -> Value:
        """Covariance over the event's axes; the variance itself for scalars."""
        return self.variance

    @property
    def sd(self) -> Value:
        """Standard deviation, elementwise: sqrt(variance)."""
        return jax.tree.map(jnp.sqrt, self.variance)

    def quantile(self, p: ArrayLike) -> Value:
        """Return each entry's value below which a share `p` of its mass lies; NaN where it is not known.

        A precision matrix has that of a normal distribution with its moments off the diagonal, and a stick's
        pieces those of Beta distributions with theirs; all others are exact.
        """
        read_probabilities(p)
        return jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), self.mean)

    def divergence(self, other: Self) -> Float[Array, "*plate"]:
        """Return KL(self || other) for a state of this class; `kl` checks that `other` is one.

        The families pair the terms of the two densities, which would cancel badly in float32 where both
        are concentrated.
        """
        return -other.log_density(self.expected()) - self.base_entropy()

    def draw(self, key: Array, shape: tuple[int, ...]) -> Value:
        """Return draws of shape `shape + plate + event`; `sample` checks the key and the shape."""
        raise TypeError(f"{type(self).__name__} has no sampler")

    def entropy(self) -> Float[Array, "*plate"]:
        """Return -E_q[log q(z)], in nats."""
        with _fields_that_fit(self) as state:
            return state.base_entropy() - state.expected().log_base

    def kl(self, other: Self) -> Float[Array, "*plate"]:
        """Return KL(self || other) in nats, one number for each cell of the plate.

        Raises:
            ValueError: if `other` is not a state of this class, or has another plate or size.
        """
        if type(other) is not type(self):
            raise ValueError(f"other must be a {type(self).__name__}; got {type(other).__name__}")
        with _fields_that_fit(self, other) as (state, other):
            return state.divergence(other)

    def log_prob(self, x: Value) -> Float[Array, "*plate"]:
        """Return log q(x), one number for each cell of the plate.

        Raises:
            ValueError: if `x` is no number, or does not have the shape of a draw.
        """
        x = self.read_value(x)
        with _fields_that_fit(self) as state:
            t = state.statistics(x)
            return state.log_density(t) + t.log_base

    def sample(self, key: Array, shape: int | tuple[int, ...] = ()) -> Value:
        """Return independent draws, of shape `shape + plate + event`.

        Raises:
            ValueError: if `key` is no key, or `shape` neither a whole number nor a tuple of them.
        """
        key, shape = read_key(key), read_shape(shape)
        with _fields_that_fit(self) as state:
            return state.draw(key, shape)

    def read_value(self, x: Given) -> Value:
        """Return a value of the latent as arrays with the structure, the event and the dtype of a draw.

        Raises:
            ValueError: if `x` is no number, has another event shape, or has a plate that does not fit.
        """
        with _fields_that_fit(self) as state:
            draw = jax.eval_shape(lambda q: q.draw(jax.random.key(0), ()), state)
            plate = jax.eval_shape(lambda q: q.base_entropy(), state).shape
        if not isinstance(draw, tuple):
            return _read_event(x, draw, plate)
        if not isinstance(x, tuple) or len(x) != len(draw):
            raise ValueError(f"x must be a {type(draw).__name__}; got {type(x).__name__}")
        return type(draw)(*(_read_event(value, like, plate) for value, like in zip(x, draw, strict=True)))


def read_share(p: ArrayLike, like: Array) -> Float[Array, " ..."]:
    """Return shares of a distribution's mass, in the dtype of `like` and of a shape that fits it.

    Raises:
        ValueError: if `p` holds anything but numbers from 0 to 1, or its shape does not fit.
    """
    share = jnp.asarray(read_probabilities(p), like.dtype)
    try:
        np.broadcast_shapes(share.shape, like.shape)
    except ValueError:
        raise ValueError(f"p must be a number or fit the shape {like.shape}; got {share.shape}") from None
    return share


def _read_event(x: Given, draw: jax.ShapeDtypeStruct, plate: tuple[int, ...]) -> Array:
    """Return a value as an array of a draw's event shape and dtype."""
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


Q = TypeVar("Q", bound=State)


@contextlib.contextmanager
def _fields_that_fit(*states: Tree) -> Iterator[Tree]:
    """Give the states with arrays for fields, to compute with in full precision.

    Errors of their shapes turn into one that shows them.

    Raises:
        ValueError: if fields are no numbers, or have shapes that do not fit.
    """
    read = tuple(map(_with_arrays, states))
    try:
        with full_precision():
            yield read if len(read) > 1 else read[0]
    except (AttributeError, TypeError, ValueError) as error:
        shapes = " and ".join(f"{type(q).__name__}{_shapes(q)}" for q in read)
        what = "other must fit this state" if len(read) > 1 else "fields must fit one another"
        raise ValueError(f"{what}; got {shapes}: {error}") from error


def _with_arrays(state: Q) -> Q:
    """Return the state with its numbers as arrays."""
    read = {name: as_floating(x, name) for name, x in state.fields.items() if not isinstance(x, jax.Array)}
    return state.with_fields(read) if read else state


def _shapes(state: State) -> str:
    return "(" + ", ".join(f"{name} {x.shape}" for name, x in state.fields.items()) + ")"


@dataclasses.dataclass(frozen=True)
class Family(Generic[Q, T]):
    """Static description of a factor of q: hashable, without numbers.

    Attributes:
        plate: sizes of the leading axes.
        base_weight: 1 for a distribution, whose `base_entropy` leaves log h out; 0 for a point.
        guarded: whether there is no optimum in closed form, only a `step` that could lower the bound and
            must be scored.
        curvature: the field of the statistics whose coefficient is the curvature in a location, or the pull
            on a label. If one factor's coefficient depends on another location or label, the two multiply,
            and their neutral members may be a saddle of the bound. None if the neutral member favours a
            direction.

    >>> import jax, vbjax as vb
    >>> prior = lambda s: vb.terms.gamma(s, 3.0, 2.0)
    >>> t = vb.Gamma().neutral("float32").expected()
    >>> vb.Gamma().from_gradient(t, jax.grad(prior)(t))  # the update: a gradient is a natural parameter
    GammaState(concentration=3, rate=2)
    """

    plate: tuple[int, ...] = ()
    base_weight: ClassVar[float] = 1.0
    guarded: ClassVar[bool] = False
    counts: ClassVar[tuple[str, ...]] = ("size", "rows", "concentration")
    curvature: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        stored(cls)

    def __post_init__(self) -> None:
        """Read the plate and the family's sizes.

        Raises:
            ValueError: if one of them is no whole number.
        """
        object.__setattr__(self, "plate", read_shape(self.plate, "plate"))
        for name in self.counts:
            if hasattr(self, name):
                read_count(getattr(self, name), name)

    def repeated(self, n: int) -> Self:
        """Return the family with a leading axis of n rows before its plate."""
        return dataclasses.replace(self, plate=(read_count(n, "n", least=0), *self.plate))

    def of_rows(self, rows: Data, n: int) -> Self:
        """Return the family of a local factor, one for each of n rows; its structure may follow them."""
        return self.repeated(n)

    def chunk_rows(self, usual: int) -> int:
        """Return how many rows a pass takes at a time where the factor is local, `usual` by default."""
        return usual

    def neutral(self, dtype: DTypeLike) -> Q:
        """Return a standard member with its mode inside the support: where a fit starts by default."""
        raise TypeError(f"{type(self).__name__} has no neutral member")

    def zero_statistics(self, dtype: DTypeLike) -> T:
        """Return statistics of 0 about the origin: where an energy is taken before a state is known."""
        shapes: Any = jax.eval_shape(lambda: self.neutral(dtype).expected())
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    def from_gradient(self, statistics: T, gradient: T, weight: ArrayLike = 1.0) -> Q:
        """Return the optimal state, the coordinate update of Bishop 2006, eq. 10.9.

        Its natural parameter is the gradient d E[log p] / d E[t], divided by `weight`.

        Args:
            statistics: where the gradient was taken; only its pivot matters.
            gradient: gradient of the expected log joint, in the structure of the statistics.
            weight: exchangeable copies that the factor stands for inside one row.
        """
        raise TypeError(f"{type(self).__name__} has no coordinate update")

    def update(self, state: Q, statistics: T, gradient: T) -> Q:
        """Return the optimal state; a point stays where it is if the gradient says nothing of it."""
        return self.from_gradient(statistics, gradient)

    def maximise(self, statistics: T, gradient: T) -> Tree:
        """Return the value z of the largest <gradient, t(z)>: what EM and MAP need.

        The base measure counts where the log joint has a density of z, as `gradient.base` says. The value is
        in coordinates that keep its digits, those of `Statistics.point_domains`; by default it is the mode
        of the optimal state.
        """
        return self.from_gradient(statistics, gradient).mode

    def is_idle(self, gradient: T) -> Bool[Array, "*plate"]:
        """Return for every cell whether neither rows nor a prior say anything of it."""
        return jnp.zeros(gradient.plate, bool)

    def point(self, value: Given) -> Tree:
        """Return a given value in the coordinates of `maximise`; raise a ValueError for what is none."""
        return as_floating(value, "value")

    def optimum(self, statistics: T, gradient: T) -> tuple[Q, Float[Array, "*plate"]]:
        """Return the optimal state and its log-normaliser."""
        return self.from_gradient(statistics, gradient), self.log_normalizer(statistics, gradient)

    def natural(self, state: Q, statistics: T) -> T:
        """Return a state's natural parameter about the pivot of `statistics`; `from_gradient` inverts it."""
        return jax.grad(lambda t: state.log_density(t).sum())(statistics).with_base(1.0)

    def mix(self, state: Q, other: Q, rho: ArrayLike) -> Q:
        """Return the state at (1 - rho) eta + rho eta' in natural parameters: a natural-gradient step.

        Both parameters are taken about the first state's location, so that nothing large cancels (Hoffman et
        al. 2013, eq. 22; Amari 1998). Up to a constant the log density is the average of the two.
        """
        statistics = state.expected()
        eta, eta_other = self.natural(state, statistics), self.natural(other, statistics)
        return self.from_gradient(
            statistics, jax.tree.map(lambda x, y: (1 - rho) * x + rho * y, eta, eta_other)
        )

    @staticmethod
    def starts(families: Mapping[str, Tree], key: Array, dtype: DTypeLike) -> dict[str, Tree]:
        """Draw the states from which the guarded factors of one model start, all of them together."""
        raise TypeError("only guarded factors start at random")

    def step(self, state: Q, statistics: T, gradient: T, rho: ArrayLike) -> Q:
        """Return the state a part rho of the way to the optimum, in natural parameters."""
        return self.mix(state, self.from_gradient(statistics, gradient), rho)

    def expected(self, state: Q) -> T:
        """Return E_q[t(z)] about the state's own location: the mean map, grad A(eta).

        Bishop 2006, eq. 2.226.
        """
        return state.expected()

    def base_entropy(self, state: Q) -> Float[Array, "*plate"]:
        """Return the factor's share of the bound: its entropy relative to the base measure."""
        return state.base_entropy()

    def log_normalizer(self, statistics: T, gradient: T) -> Float[Array, "*plate"]:
        """Return A at the natural parameter `gradient`: the bound's share of a factor once optimised away."""
        state = self.from_gradient(statistics, gradient)
        t = state.expected().like(statistics)
        return state.base_entropy() + t.inner(gradient) + (gradient.log_base - 1) * t.log_base
