"""Readers of users' input: arrays, tables, weights, keys, counts. Their errors name the argument.

Values are examined only where they are concrete; inside jit and vmap only shapes are.
"""

from __future__ import annotations

import dataclasses
import decimal
import math
import numbers
import reprlib
from collections.abc import Iterable
from typing import Any, SupportsFloat

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax.numerics.compilation import jit
from vbjax.numerics.types import Given, Tree


def is_concrete(tree: Tree) -> bool:
    """Return whether values of the tree may be read: no leaf is traced, nor is the program around it."""
    inside = isinstance(jnp.zeros(()), jax.core.Tracer)  # inside jit even constants are traced
    return not inside and not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def is_single(x: Array, axes: int = 0) -> bool:
    """Return whether an array may be read and is of one result, which has so many axes: no batch of them."""
    return is_concrete(x) and jnp.ndim(x) == axes


@jit
def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Return whether every number in a tree is finite."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def as_numbers(x: Given, name: str, missing: bool | None = None) -> np.ndarray | Array:
    """Return an array of real numbers: on the host, unless it is on a device already.

    Arrays of Python objects, such as a data frame with nullable columns, are read number by number: None and
    pd.NA become NaN.

    Args:
        x: an array, or anything that numpy makes one of.
        name: the argument's name, for errors.
        missing: whether NaN means a missing entry. If so masked entries become NaN; otherwise they are an
            error. None where the caller has no such option.

    Raises:
        ValueError: if x is no array of real numbers, or has masked entries. The message says what and where.
    """
    array = x if isinstance(x, jax.Array) else _on_host(x, name, missing)
    dtype = array.dtype
    kind = getattr(dtype, "kind", "PRNG key")
    if kind == "O":
        return as_numbers(_from_objects(np.asarray(array), name, getattr(x, "columns", None)), name)
    if kind == "f" and dtype.itemsize > 8:  # numpy's long double, which jax does not have
        return array.astype(float)
    if kind in "biuf" or (kind == "V" and jnp.issubdtype(dtype, jnp.number)):  # V: bfloat16 and its like
        return array
    raise ValueError(f"{name} must be numbers; got an array of {dtype}{_REMEDIES.get(kind, '')}")


_REMEDIES = {
    "U": "; code categories as whole numbers, np.unique(x, return_inverse=True)[1]",
    "M": "; make numbers of times, (x - x[0]) / np.timedelta64(1, 'D')",
    "m": "; make numbers of times, x / np.timedelta64(1, 'D')",
}


def _on_host(x: Given, name: str, missing: bool | None) -> np.ndarray | Array:
    """Return x as an array of numpy's, with NaN in the place of masked entries if `missing` is true."""
    if hasattr(x, "toarray") or hasattr(x, "todense"):
        raise ValueError(f"{name} must be a dense array, x.toarray(); got a sparse {type(x).__name__}")
    if isinstance(x, (list, tuple)) and any(isinstance(row, np.ma.MaskedArray) for row in x):
        x = np.ma.array(x)  # np.asarray would forget the masks
    try:
        array = np.asarray(x)
    except jax.errors.TracerArrayConversionError:  # a list of traced numbers
        return jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numeric arrays; got {type(x).__name__}: {error}") from None
    if not isinstance(x, np.ma.MaskedArray) or not x.mask.any():
        return array
    if missing:
        return np.where(x.mask, np.nan, as_numbers(array, name))
    place = ", ".join(map(str, np.argwhere(x.mask)[0].tolist()))
    remedy = "missing=True takes it as missing" if missing is False else "give it a value by x.filled(value)"
    raise ValueError(
        f"{name} must have no masked entry; entry [{place}] is masked: {remedy}, or leave it out"
    )


def _from_objects(array: np.ndarray, name: str, columns: Given | None) -> np.ndarray:
    """Read Python objects as numbers; errors call the columns of a data frame by their names."""
    value: object = None
    if not array.ndim and not isinstance(value := array.item(), numbers.Real):
        hint = "; make a list of it first" if isinstance(value, Iterable) else ""
        raise ValueError(f"{name} must be numbers; got {reprlib.repr(value)}{hint}")
    read: list[bool | int | float] = []
    for i, value in enumerate(array.ravel().tolist()):
        if value is None or type(value).__name__ == "NAType":  # pd.NA
            read.append(math.nan)
        elif isinstance(value, (bool, np.bool_)):
            read.append(bool(value))
        elif isinstance(value, (int, np.integer)) and -(2**63) <= value < 2**63:
            read.append(int(value))
        elif isinstance(value, (numbers.Real, decimal.Decimal)):
            read.append(_as_float(value))
        else:
            row, *column = np.unravel_index(i, array.shape)
            where = f"row {row}"
            if column:
                where += f", column {column[0] if columns is None else columns[column[0]]!r}"
            hint = _REMEDIES["U"] if isinstance(value, str) else ""
            raise ValueError(f"{name} must be numbers; got {reprlib.repr(value)} in {where}{hint}")
    return np.array(read, None if read else float).reshape(array.shape)


def _as_float(value: SupportsFloat) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]


def as_array(x: Given, name: str, missing: bool | None = None) -> Array:
    """Return an array of real numbers on the device: half precision as float32, others in their own dtype.

    Whole numbers that the device's integers cannot hold become floats. Arguments and errors are those of
    `as_numbers`.
    """
    array = as_numbers(x, name, missing)
    if jnp.issubdtype(array.dtype, jnp.floating) and array.dtype.itemsize < 4:
        array = array.astype(jnp.float32)  # jax has no cholesky and gammaln in half precision
    elif array.dtype.kind in "iu" and array.size and not isinstance(array, jax.Array):
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(array.dtype))
        if array.min() < limits.min or array.max() > limits.max:  # would wrap around
            array = array.astype(float)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused later
        return jnp.asarray(array)


def as_floating(x: Given, name: str, missing: bool | None = None) -> Float[Array, " ..."]:
    """Return an array of floats: as `as_array` does, with whole numbers cast to the default float."""
    x, dtype = as_array(x, name, missing), jnp.result_type(float)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return jnp.asarray(np.asarray(x, dtype)) if _is_on_host(x) else x.astype(dtype)


def _is_on_host(x: Array) -> bool:
    """Return whether numpy reads the array without a copy, so that checks by numpy compile nothing."""
    return is_concrete(x) and [device.platform for device in x.devices()] == ["cpu"]


def spans_processes(tree: Tree) -> bool:
    """Return whether a tree has arrays whose rows lie in several processes."""
    arrays = [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]
    known = [x for x in arrays if not isinstance(x, jax.core.Tracer)]
    return not all(x.is_fully_addressable or x.is_fully_replicated for x in known)


def values_here(x: ArrayLike) -> np.ndarray:
    """Return the values of an array; of one whose rows lie in several processes those of this process."""
    return np.concatenate([shard.data for shard in _own_shards(x)]) if spans_processes(x) else np.asarray(x)


def rows_here(data: Tree) -> Tree:
    """Return data as they are; of those whose rows lie in several processes the rows of this process."""
    return jax.tree.map(values_here, data) if spans_processes(data) else data


def row_numbers_here(x: Array) -> np.ndarray:
    """Return the numbers among all rows of the rows of this process, of an array that spans processes."""
    return np.concatenate([np.arange(len(x))[shard.index[0]] for shard in _own_shards(x)])


def _own_shards(x: Any) -> list[Any]:
    return sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)


def _require_finite(x: Array, name: str, missing: bool | None = None) -> None:
    """Raise a ValueError that names the first row with a number that is not finite."""
    if not is_concrete(x) or not jnp.issubdtype(x.dtype, jnp.floating):
        return
    if not _is_on_host(x) and all_finite(x):
        return
    values = values_here(x)
    fine = np.isfinite(values) | (np.isnan(values) if missing else False)
    if not missing and fine.all() and values.shape != x.shape:
        raise ValueError(f"{name} must be finite; a row of another process has a NaN or an infinity")
    if not fine.all():
        bad = int((~fine.reshape(len(fine) if x.ndim else 1, -1).all(1)).argmax())
        what = "an infinity" if missing else "a NaN or an infinity"
        hint = "; missing=True takes NaN as missing entries" if missing is False else ""
        raise ValueError(f"{name} must be finite; row {bad} is the first with {what}{hint}")


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 60


def describe(value: Given) -> str:
    """Return a brief description for an error: an array's shape, the class of an object of this package."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"a {type(value).__name__}"
    if isinstance(value, (np.ndarray, jax.Array)):
        if value.ndim == 0 and not isinstance(value, jax.core.Tracer):
            return _BRIEF.repr(value.item())
        what = "a masked array" if isinstance(value, np.ma.MaskedArray) else "an array"
        return f"{what} of {value.dtype} of shape {value.shape}"
    return _BRIEF.repr(value)


def read_arrays(data: Given, name: str) -> Tree:
    """Return a pytree of finite arrays with a common leading axis; lists become arrays, None stays None."""
    if data is None:
        return None
    data = jax.tree.map(lambda x: as_array(x, name), data, is_leaf=lambda x: isinstance(x, list))
    shapes = [x.shape for x in jax.tree.leaves(data)]
    if not shapes or any(len(shape) == 0 for shape in shapes) or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{name} must be arrays with a common leading axis of rows; got shapes {shapes}")
    if shapes[0][0] == 0:
        raise ValueError(f"{name} must have at least one row; got shapes {shapes}")
    for x in jax.tree.leaves(data):
        _require_finite(x, name)
    return data


def read_table(
    x: Given,
    name: str = "data",
    *,
    min_rows: int = 1,
    missing: bool | None = None,
) -> Float[Array, "n d"]:
    """Return a floating table (n, d), finite except that NaN may stand in it if `missing` is true.

    `missing` is None where the caller has no such option.
    """
    x = as_array(x, name, missing)
    if x.ndim != 2 or x.shape[1] == 0:
        hint = "; reshape one column with x[:, None]" if x.ndim == 1 else ""
        raise ValueError(f"{name} must have shape (n, d) with d >= 1; got {x.shape}{hint}")
    return _read_floating(x, name, min_rows, missing)


def read_column(x: Given, name: str = "data", *, min_rows: int = 1) -> Float[Array, " n"]:
    """Return a finite floating column (n,)."""
    x = as_array(x, name)
    if x.ndim != 1:
        hint = "; a table's one column is x[:, 0]" if x.shape[1:] == (1,) else ""
        raise ValueError(f"{name} must have shape (n,); got {x.shape}{hint}")
    return _read_floating(x, name, min_rows)


def read_pair(data: Given, what: str) -> tuple[Given, Given]:
    """Return the two members of a pair, each to be read by the caller; `what` names them for the error."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise ValueError(f"data must be a pair {what}; got {type(data).__name__}")
    return data[0], data[1]


def _read_floating(x: Array, name: str, min_rows: int, missing: bool | None = None) -> Float[Array, " ..."]:
    """Return an array of enough rows as finite floats."""
    if x.shape[0] < min_rows:
        raise ValueError(f"{name} must have at least {min_rows} rows; got {x.shape[0]}")
    x = as_floating(x, name)
    _require_finite(x, name, missing)
    return x


def read_length(length: ArrayLike | None, steps: int) -> Int[Array, ""] | None:
    """Return the number of steps that a padded chain really has, a scalar; None stays None."""
    if length is None:
        return None
    length = as_array(length, "length")
    if length.shape != () or not jnp.issubdtype(length.dtype, jnp.integer):
        raise ValueError(f"length must be one integer; got {length.dtype} of shape {length.shape}")
    if is_concrete(length) and not 0 <= length <= steps:
        raise ValueError(f"length must be from 0 to {steps}; got {length}")
    return length.astype(int)


def read_parallel(parallel: Given) -> bool | None:
    """Return whether to pass a chain's messages in parallel; None lets the function choose."""
    if parallel is None or isinstance(parallel, (bool, np.bool_)):
        return None if parallel is None else bool(parallel)
    raise ValueError(f"parallel must be True, False or None; got {parallel!r}")


def read_weights(weights: Given, n: int, dtype: DTypeLike) -> Float[Array, " n"] | None:
    """Return row weights (n,), finite, not negative and not all zero; None stays None."""
    if weights is None:
        return None
    weights = as_array(weights, "weights").astype(dtype)
    if weights.shape != (n,):
        raise ValueError(f"weights must have one number for each of the {n} rows; got shape {weights.shape}")
    if is_concrete(weights):
        values = values_here(weights)
        if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
            raise ValueError("weights must be finite, at least 0, and not all 0")
    return weights


def read_key(key: Given) -> Array:
    """Return one PRNG key."""
    if isinstance(key, jax.Array) and (
        (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0)
        or (key.dtype == jnp.uint32 and key.shape == (2,))
    ):
        return key
    raise ValueError(f"key must be one PRNG key, jax.random.key(seed); got {key!r}")


def read_number(value: Given, name: str, *, least: float = 0) -> float | Array:
    """Return one finite number of at least `least` as a float; a traced number stays as it is."""
    traced = isinstance(value, jax.core.Tracer)
    try:
        single = np.ndim(value) == 0 and not isinstance(value, (bool, np.bool_, str, bytes))
        number = math.inf if traced or not single else float(value)
    except (TypeError, ValueError):
        number = math.inf
    if not single or not (traced or least <= number < math.inf):
        raise ValueError(f"{name} must be a finite number of at least {least}; got {reprlib.repr(value)}")
    return value if traced else number


def read_flag(value: Given, name: str) -> bool:
    """Return True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False; got {reprlib.repr(value)}")
    return bool(value)


def read_count(value: Given, name: str, *, least: int = 1) -> int:
    """Return a whole number of at least `least` that is small enough to index an array."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}; got {describe(value)}")
    if value > _MOST:
        raise ValueError(f"{name} must be at most {_MOST}; got {describe(value)}")
    return int(value)


_MOST = 2**31 - 1


def read_shape(shape: Given, name: str = "shape") -> tuple[int, ...]:
    """Return a shape, given as a tuple or as one whole number."""
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n >= 0 for n in sizes):
        raise ValueError(
            f"{name} must be a whole number, or a tuple of whole numbers, of at least 0; got {shape!r}"
        )
    if math.prod(map(int, sizes)) > _MOST:
        raise ValueError(f"{name} must be of at most {_MOST} entries; got {shape!r}")
    return tuple(map(int, sizes))


def read_probabilities(p: Given, name: str = "p") -> np.ndarray | Array:
    """Return probabilities, of any shape."""
    p = as_numbers(p, name)
    if is_concrete(p) and not ((np.asarray(p) >= 0) & (np.asarray(p) <= 1)).all():
        raise ValueError(f"{name} must be between 0 and 1; got {p}")
    return p
