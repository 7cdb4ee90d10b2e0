"""Tables of models: which values and shapes each field may have, declared with the field and read at once.

A model declares its fields by `hyper` (numbers: leaves of the pytree), `count`, `flag` and `choice`
(structure: static), and `part` or `parts` (models inside the model). Each field keeps its row of the model's
table: which values it may hold, which shapes it may have, and when it has no meaning. Shapes are named by
axes ("d", "k k"), whose sizes come from counts, from the data, or from the first field that has them; a
number may stand for an array. None is allowed if it is the default, and then follows the data.

`read_hyperparameters` reads a whole model by its table, on the host and before anything is traced, so that a
bad value costs no compilation. Of traced values the shapes alone are read. Models import the declarations,
drivers the reader.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.core.rows import float_dtype
from vbjax.families.base import replace
from vbjax.numerics.inputs import as_numbers, describe, read_count, read_table
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree

if TYPE_CHECKING:
    pass

# ---------------------------------------------------------------- ranges of numbers


class Range(NamedTuple):
    """Set of values that numbers may have.

    Attributes:
        words: a description of the values, for errors.
        holds: takes an array, and says for each number, or for the whole, whether it is in the range.
        finite: whether every number must be finite.
        matrix: whether the values are matrices, for which no number can stand.
    """

    words: str
    holds: Callable[[np.ndarray], np.ndarray | bool]
    finite: bool = True
    matrix: bool = False


def at_least(least: float, why: str = "") -> Range:
    """Return the range of numbers from `least` on; `why` gives the reason, for errors."""
    return Range(f"at least {least}{why}", lambda x: x >= least)


def above(bound: float) -> Range:
    """Return the range of numbers above a bound."""
    return Range(f"above {bound}", lambda x: x > bound)


def _is_definite(x: np.ndarray) -> bool:
    """Return whether a matrix is symmetric and positive definite in its dtype, in units of its diagonal."""
    diagonal = np.diagonal(x)
    if not (diagonal > 0).all():
        return False
    unit = np.sqrt(diagonal)[:, None] * np.sqrt(diagonal)
    try:
        np.linalg.cholesky(x / unit)
    except np.linalg.LinAlgError:
        return False
    return bool((np.abs(x - x.T) <= 1e-5 * unit).all())


_FINITE = Range("finite", np.isfinite)
Owner: TypeAlias = Any  # what has hyperparameters: a model, or a part of one
REAL = Range(
    "finite, as must be its square", lambda x: np.isfinite(np.square(x.astype(np.result_type(x, 1.0))))
)
POSITIVE = Range("positive", lambda x: x > 0)
NON_NEGATIVE = at_least(0)
DEFINITE = Range("symmetric and positive definite", _is_definite, matrix=True)


# ---------------------------------------------------------------- rows of a table


class Context(NamedTuple):
    """Circumstances in which a model's values are read.

    Attributes:
        model: the model, with its other fields.
        known: sizes of axes that counts and data fix.
        sizes: these, and those that fields read so far fix.
        dtype: the dtype of the data; None without data.
    """

    model: object
    known: dict[str, int]
    sizes: dict[str, int]
    dtype: DTypeLike | None


class Row(Protocol):
    """Row of a model's table: the values that a field may hold."""

    def read(self, value: Given, name: str, context: Context) -> Data:
        """Return the value as the model takes it, or raise a ValueError that calls it by `name`."""


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Numbers in one of some shapes.

    Attributes:
        range: the range of the values.
        shapes: axes of the arrays that are allowed, such as "d" and "k k"; "..." is any shape but a number's.
        by: a function of the model and the sizes of axes that counts and data fix; it gives range and shapes.
        number: whether one number may stand for an array.
        requires, excludes: a field without which, or with which, this one has no meaning.
        idle: of the model, why the field has no meaning there, or None.
    """

    range: Range = REAL
    shapes: tuple[str, ...] = ()
    by: Callable[[Owner, Mapping[str, int]], tuple[Tree, ...]] | None = None
    number: bool = True
    requires: str | None = None
    excludes: str | None = None
    idle: Callable[[Owner], str | None] | None = None

    def read(self, value: Given, name: str, context: Context) -> float | np.ndarray | Array:
        model, known, sizes, dtype = context
        if self.idle and (why := self.idle(model)) is not None:
            raise ValueError(f"{name} must be left out: {why}")
        if self.requires and not _is_on(model, self.requires):
            switch = _switch(model, self.requires)
            raise ValueError(f"{name} must come with {switch}: give both, or leave {name} out")
        if self.excludes and _is_on(model, self.excludes):
            switch = _switch(model, self.excludes)
            raise ValueError(f"{name} must not come with {switch}: leave one of them out")
        allowed, shapes = self.allowed(model, known)
        words = _shape_words(shapes, sizes)
        try:
            array = _as_numbers(value, name)
        except ValueError:
            raise ValueError(f"{name} must be {words}; got {describe(value)}") from None
        if not _fits(array.shape, shapes, sizes):
            raise ValueError(f"{name} must be {words}; got {describe(array)}")
        if isinstance(array, jax.core.Tracer):
            return array if dtype is None else array.astype(dtype)
        read = _in_range(np.asarray(array), name, allowed, dtype)
        as_given = value if isinstance(value, (int, float)) else array
        return read if dtype is not None and getattr(as_given, "dtype", None) != dtype else as_given

    def allowed(self, model: object, sizes: Mapping[str, int]) -> tuple[Range, list[str]]:
        """Return the range, and the shapes that are allowed; "" is that of a number."""
        row: tuple[Tree, ...] = self.by(model, sizes) if self.by else (self.range, *self.shapes)
        values, *shapes = row
        return values, [*[""] * (self.number and not values.matrix), *shapes]


@dataclasses.dataclass(frozen=True)
class Count:
    """Whole number of at least `least`; it is the size of an axis if `axis` names one."""

    axis: str | None = None
    least: int = 1

    def read(self, value: Given, name: str, context: Context) -> int:
        return read_count(value, name, least=self.least)


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or False."""

    def read(self, value: Given, name: str, context: Context) -> bool:
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False; got {describe(value)}")
        return bool(value)


@dataclasses.dataclass(frozen=True)
class Choice:
    """Choice among some strings; where a model does not take all of them, `unless` says which it takes."""

    names: tuple[str, ...]
    unless: Callable[[Owner], str | None] | None = None

    def read(self, value: Given, name: str, context: Context) -> str:
        if not isinstance(value, str) or value not in self.names:
            names = ", ".join(map(repr if len(self.names) < 10 else str, self.names))
            raise ValueError(f"{name} must be one of {names}; got {describe(value)}")
        if self.unless and (allowed := self.unless(context.model)):
            raise ValueError(f"{name} must be {allowed}; got {value!r}")
        return value


@dataclasses.dataclass(frozen=True)
class Part:
    """Model of class `kind` inside the model, read by its own table; `fits` checks it with the model."""

    kind: type
    words: str
    fits: Callable[[Owner, Given], bool]

    def read(self, value: Given, name: str, context: Context) -> Data:
        model = context.model
        if isinstance(value, self.kind):
            value = _read_table(value, context.known, context.dtype, f" of the {name}")
        if not isinstance(value, self.kind) or not self.fits(model, value):
            words = self.words.format_map(vars(model))
            raise ValueError(f"{name} must be {words}; got {describe(value)}")
        return value


@dataclasses.dataclass(frozen=True)
class Parts:
    """Models of class `kind` inside the model, a `Record`; sizes of their axes go by their names.

    The size of axis "d" of the part "height" is that of "height d". See `Part` for the attributes.
    """

    kind: type
    words: str

    def read(self, value: Given, name: str, context: Context) -> Record:
        def sizes(part: str) -> dict[str, int]:
            return {axis.removeprefix(f"{part} "): size for axis, size in context.known.items()}

        if not isinstance(value, Record) or not all(isinstance(x, self.kind) for x in value.values()):
            raise ValueError(f"{name} must be {self.words}, by name; got {describe(value)}")
        return Record(
            {
                part: _read_table(x, sizes(part), context.dtype, f" of the part {part!r}")
                for part, x in value.items()
            }
        )


def _is_on(model: object, name: str) -> bool:
    """Return whether a field is given, or a flag is true."""
    return not any(getattr(model, name) is off for off in (None, False))


def _switch(model: object, name: str) -> str:
    """Return how a user gives a field, for errors."""
    return f"{name}=True" if isinstance(getattr(model, name), bool) else name


def _as_numbers(value: Given, name: str) -> np.ndarray | Array:
    """Return numbers as an array, half precision as float32."""
    array = as_numbers(value, name)
    if value is None or array.dtype == bool:
        raise ValueError(f"{name} must be numbers")
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
        array = array if isinstance(array, jax.core.Tracer) else np.asarray(array)
        return array.astype(np.float32)
    return array


def _fits(shape: tuple[int, ...], shapes: list[str], sizes: dict[str, int]) -> bool:
    """Return whether an array has one of some shapes; add axes that it is the first to have to `sizes`."""
    for allowed in shapes:
        if allowed == "...":
            return 0 not in shape and shape != ()
        own, axes = dict(sizes), allowed.split()
        if len(axes) != len(shape) or 0 in shape:
            continue
        if all(own.setdefault(axis, size) == size for axis, size in zip(axes, shape, strict=True)):
            sizes.update(own)
            return True
    return False


def _shape_words(shapes: list[str], sizes: Mapping[str, int]) -> str:
    """Return shapes in words: "a number or of shape (2,)"."""

    def words(shape: str) -> str:
        if shape in ("", "..."):
            return "a number" if shape == "" else "an array of one axis or more"
        axes = [str(sizes.get(axis, axis)) for axis in shape.split()]
        return f"of shape ({', '.join(axes)}{',' * (len(axes) == 1)})"

    return " or ".join(map(words, shapes))


def _in_range(x: np.ndarray, name: str, allowed: Range, dtype: DTypeLike | None) -> np.ndarray:
    """Return the numbers in the dtype; raise a ValueError if one is out of range before or after."""
    with np.errstate(over="ignore", under="ignore"):
        read = x if dtype is None else x.astype(dtype)
        for values in (x, read):
            range_ = allowed if not allowed.finite or np.isfinite(values).all() else _FINITE
            fine = np.asarray(range_.holds(values))
            if not fine.all():
                break
        else:
            return read
    got = describe(x)
    if fine.shape == x.shape:
        bad = tuple(map(int, np.argwhere(~fine)[0]))
        got = f"{x[bad]}" + (f" at {list(bad)}" if bad else "")
        got += "" if values is x else f", {values[bad]} in {read.dtype}"
    raise ValueError(f"{name} must be {range_.words}; got {got}")


# ---------------------------------------------------------------- declarations


def _field(row: Row, default: object, kw_only: bool, *, static: bool) -> Any:
    """Return a dataclass field that keeps its row of the table."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata=dict(row=row, static=static))


def hyper(default: Given, values: Given = REAL, *shapes: str, kw_only: bool = False, **options: Given) -> Any:
    """Declare a field of numbers: a hyperparameter, a leaf of the model.

    Args:
        default: the default; `dataclasses.MISSING` if the field must be given.
        values: a `Range`; or a function of the model and the axes' sizes that gives a range and shapes.
        shapes: axes of the arrays that are allowed; a number may stand for them.
        kw_only: whether the field is given by name only.
        options: `number`, `requires`, `excludes` and `idle` of `Numbers`.
    """
    of = dict(range=values, shapes=shapes) if isinstance(values, Range) else dict(by=values)
    return _field(Numbers(**of, **options), default, kw_only, static=False)


def count(
    axis: str | None = None, *, default: Given = dataclasses.MISSING, least: int = 1, kw_only: bool = False
) -> Any:
    """Declare a static field of a whole number; it is the size of an axis if `axis` names one."""
    return _field(Count(axis, least), default, kw_only, static=True)


def flag(*, default: bool = False, kw_only: bool = False) -> Any:
    """Declare a static field of True or False."""
    return _field(Flag(), default, kw_only, static=True)


def choice(*names: str, kw_only: bool = False, unless: Callable[[Owner], str | None] | None = None) -> Any:
    """Declare a static field that holds one of some strings, by default the first; see `Choice`."""
    return _field(Choice(names, unless), names[0], kw_only, static=True)


def part(
    kind: type,
    words: str,
    fits: Callable[[Owner, Given], bool] = lambda model, value: True,
    *,
    default: Given = None,
) -> Any:
    """Declare a field of a model inside the model, which must be given where it has no default.

    Args:
        kind: the base class of the part.
        words: a description of what it must be, for errors; fields of the model stand in braces.
        fits: a function of the model and a part that says whether the part goes with the model.
    """
    return _field(Part(kind, words, fits), default, False, static=False)


def parts(kind: type, words: str) -> Any:
    """Declare a field of several models inside the model, a `Record` of them by name; see `part`."""
    return _field(Parts(kind, words), dataclasses.MISSING, False, static=False)


# ---------------------------------------------------------------- reading


def table(model: object) -> dict[str, Row]:
    """Return the rows of a model's table by the names of their fields, those of its structure first."""
    fields = dataclasses.fields(model) if dataclasses.is_dataclass(model) else ()
    rows = [field for field in fields if "row" in field.metadata]
    static = sorted(rows, key=lambda field: not field.metadata["static"])
    return {field.name: field.metadata["row"] for field in static}


def read_hyperparameters(model: Owner, data: Data = None) -> Owner:
    """Return the model with its fields read by its table.

    Args:
        model: a model of this package; one without a table is returned as it is.
        data: the data as the model's `read` returns them, whose sizes and dtype hyperparameters must fit.
            Without data, None, values are read, and shapes must agree with one another.

    Raises:
        ValueError: if a field is out of range, or has a wrong shape; the message names it.
    """
    if not table(model):
        return model
    if data is None:
        return _read_table(model, {}, None, "")
    return _read_table(model, model.sizes(data), float_dtype(data), "")


def read_model(model: Owner, data: Given) -> tuple[Owner, Data]:
    """Read a model and its data: first fields that do not follow the data, then the data, then the others."""
    model = read_hyperparameters(model)
    data = model.read(data)
    return read_hyperparameters(model, data), data


def _read_table(model: Owner, known: Mapping[str, int], dtype: DTypeLike | None, where: str) -> Owner:
    """Return the model with its fields read; `where` follows their names in errors."""
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    context, read = Context(model, dict(known), dict(known), dtype), {}
    for name, row in table(model).items():
        value = getattr(model, name)
        if value is None and defaults[name] is None and not isinstance(row, Part):
            continue
        read[name] = row.read(value, name + where, context)
        if isinstance(row, Count) and row.axis:
            context.known[row.axis] = context.sizes[row.axis] = read[name]
    return replace(model, **read)


def replace_values(model: Owner, values: Mapping[str, Tree]) -> Owner:
    """Return the model with other values of some fields, its own or those of its parts and of theirs.

    A field of a part may be called by the part's name too: `weight_concentration` is the concentration of the
    part `weights`. Of several fields of one name the outermost is meant, of these that of the first part.

    Raises:
        ValueError: a name that no field has.
    """
    for name, value in values.items():
        place = place_of(model, name, [field.name for field in dataclasses.fields(model)])
        if not place:
            raise ValueError(f"{name} must be a hyperparameter of {type(model).__name__}, or of a part of it")
        model = _with_value(model, place, value)
    return model


def _with_value(model: Owner, place: Sequence[str], value: Given) -> Owner:
    name, *inner = place
    value = _with_value(getattr(model, name), inner, value) if inner else value
    return model | {name: value} if isinstance(model, Record) else replace(model, **{name: value})


def place_of(model: Owner, name: str, fields: Iterable[str]) -> tuple[str, ...]:
    """Return the parts that lead to a field, the outermost first, and its name there; () if there is none."""
    if name in fields:
        return (name,)
    found = [
        (*place, *path)
        for place, part in parts_of(model).items()
        for end in (place[-1], place[-1].removesuffix("s"))
        for own in dict.fromkeys((name, name.removeprefix(f"{end}_")))
        if (path := place_of(part, own, table(part)))
    ]
    return min(found, key=len, default=())


def value_at(model: Owner, place: Iterable[str]) -> Tree:
    """Return the field at a place, as `place_of` gives it."""
    return functools.reduce(lambda inner, name: getattr(inner, name), place, model)


def parts_of(model: Owner) -> dict[tuple[str, ...], Owner]:
    """Return the models inside a model by their places in it."""
    rows = table(model).items()
    inner: dict[tuple[str, ...], Owner] = {
        (place,): getattr(model, place) for place, row in rows if isinstance(row, Part)
    }
    for place, row in rows:
        if isinstance(row, Parts):
            inner |= {(place, own): part for own, part in getattr(model, place).items()}
    return inner


def size_of(model: object, axis: str) -> tuple[int | None, str]:
    """Return the size of an axis and the name of the first field that has it; (None, "") if none has."""
    for name, row in table(model).items():
        value = getattr(model, name)
        if isinstance(row, Numbers) and value is not None:
            sizes: dict[str, int] = {}
            if _fits(np.shape(value), row.allowed(model, sizes)[1], sizes) and axis in sizes:
                return sizes[axis], name
    return None, ""


def read_columns(
    model: object, x: Given, name: str = "data", *, axis: str = "d", **options: Given
) -> Float[Array, "n d"]:
    """Read a table with as many columns as the model's hyperparameters have on an axis.

    The options are those of `read_table`.
    """
    x = read_table(x, name, **options)
    size, field = size_of(model, axis)
    if size not in (None, x.shape[1]):
        raise ValueError(f"{name} must have {size} columns, as the model's {field} has; got shape {x.shape}")
    return x
