"""Probes of a log joint by public means, at a few rows: is it affine in every factor, and each row by itself?

For every factor, but for those declared not to be conjugate, (1) `e(t + v) - e(t) = <grad e, v>` for v of
both signs and several sizes; (2) the gradient evaluated at t = NaN holds no NaN (what a gradient does not
depend on cannot poison it). Pivots are constants, and another pivot must give the same energy. The NaN probe
also tells which factors interact. Imported by check.py alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from vbjax.core.conjugacy.remedies import operations
from vbjax.core.rows import float_dtype
from vbjax.families.base import Family
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel

_SIZES = (0.5, -0.5, 2.0, -2.0, 1e5, -1e5)  # the large ones reach what `where` and `abs` hide


class Probed(NamedTuple):
    """Findings of the probes.

    Attributes:
        residuals: of every factor that of affinity, in units of the tolerance.
        poisoned: whom the NaN of a factor reaches: of every factor the fields of the statistics whose
            coefficients hold one.
        unused: factors on which nothing depends.
    """

    residuals: dict[str, float]
    poisoned: dict[str, dict[str, set[str]]]
    unused: list[str]


def probe(model: ConjugateModel, rows: Data) -> Probed:
    """Evaluate the log joint and its gradient at statistics that say of every factor how it is used.

    Raises:
        ValueError: a log joint that is not finite.
    """
    dtype = float_dtype((model, rows))
    families = {**model.factors, **({} if rows is None else model.local(rows))}
    rng = np.random.default_rng(0)

    def score(s: Record) -> tuple[Array, Record]:
        value, _, gradient = jax.device_get(_score(model, rows, s))
        return value, gradient

    s = _generic_statistics(families, dtype, rng)
    value, row, gradient = jax.device_get(_score(model, rows, s))
    if not np.isfinite(value):
        where = f"where the statistics of {', '.join(families)} are around 1"
        why = "is a hyperparameter out of its range"
        if row is None or np.isfinite(row).all():
            raise ValueError(f"log_prior is not finite {where}: {why}?")
        raise ValueError(
            f"log_likelihood is not finite at rows of data {where}: {why}, or are the data too large for "
            f"{dtype} (change the unit)?"
        )
    residuals: dict[str, float] = {}
    poisoned: dict[str, dict[str, set[str]]] = {}
    unused: list[str] = []
    for name, family in families.items():
        t = s[name]
        nan = jax.tree.map(lambda x: np.full_like(x, np.nan), t.natural)
        found, reached = score(s | {name: dataclasses.replace(t, **nan)})
        if np.isfinite(found) and not any(x.any() for x in jax.tree.leaves(gradient[name].natural)):
            unused.append(name)
        poisoned[name] = {
            other: {field for field, x in t.natural.items() if _has_nan(x)} for other, t in reached.items()
        }
        if family.guarded:
            continue
        step = {field: rng.uniform(-1, 1, x.shape).astype(dtype) for field, x in t.natural.items()}
        slopes = [gradient[name].natural[field] * v for field, v in step.items()]
        slope, spread = sum(x.sum() for x in slopes), sum(np.abs(x).sum() for x in slopes)
        places = []  # where the energy is looked at, how far that is along the step, and what it must be
        for size in _SIZES:
            moved = {field: x + dtype.type(size) * step[field] for field, x in t.natural.items()}
            places.append((dataclasses.replace(t, **moved), abs(size), value + size * slope))
        if hasattr(t, "pivot"):
            there = jax.device_get(family.neutral(dtype).expected().with_base(0.0))
            shifted = jax.device_get(there.about(there.pivot + dtype.type(0.7)))
            places.append((shifted, 1.0, score(s | {name: there})[0]))
        residuals[name] = 0.0
        for place, size, expected in places:
            there = score(s | {name: place})[0]
            scale = np.abs(value) + np.abs(there) + size * spread
            if scale != 0:
                with np.errstate(all="ignore"):
                    residual = np.abs(there - expected) / (1000 * np.finfo(dtype).eps * scale)
                residuals[name] = np.maximum(residuals[name], residual)  # NaN stays
    return Probed(residuals, poisoned, unused)


def operations_on(model: ConjugateModel, rows: Data, name: str) -> set[str]:
    """Return the names of the operations of the log joint in which the statistics of a factor are."""
    families = {**model.factors, **({} if rows is None else model.local(rows))}
    s = _generic_statistics(families, float_dtype((model, rows)), np.random.default_rng(0))

    def energy(t: Tree) -> Array:
        total = model.scalar_prior(s | {name: t})
        return total if rows is None else total + model.likelihood(s | {name: t}, rows).sum()

    return set(operations(jax.make_jaxpr(energy)(s[name]).jaxpr))


def depends_on_other_rows(model: Any, rows: Data) -> bool:
    """Return whether the number of a row changes where other rows do, or their order.

    The first row is changed and the last one, each to other finite values and, as far as it is made of
    floats, to NaN; their local latents too. At last the order is turned.
    """
    dtype, local = float_dtype((model, rows)), model.local(rows)
    s = _generic_statistics({**model.factors, **local}, dtype, np.random.default_rng(0))
    owned = jax.device_get((rows, {name: s[name] for name in local}))

    def numbers(owned: Tree) -> np.ndarray:
        rows, statistics = owned
        return np.asarray(_score(model, rows, s | statistics)[1])

    before = numbers(owned)
    slack = 1000 * np.finfo(dtype).eps * np.abs(before).max()

    def differs(after: np.ndarray, others: Tree) -> bool:
        return not np.allclose(after[others], before[others], rtol=0, atol=slack)

    for row, others in (0, slice(1, None)), (-1, slice(None, -1)):
        for change in (_other_number, _no_number):
            if differs(numbers(jax.tree.map(lambda x: _with_row(x, row, change), owned)), others):  # noqa: B023
                return True
    return differs(numbers(jax.tree.map(lambda x: x[::-1], owned))[::-1], slice(None))


def _with_row(x: np.ndarray, row: int, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x = x.copy()
    x[row] = change(x[row])
    return x


def _other_number(x: np.ndarray) -> np.ndarray:
    if x.dtype == bool:
        return ~x
    return x + 1 if np.issubdtype(x.dtype, np.integer) else 1.3 * x + 0.7


def _no_number(x: np.ndarray) -> np.ndarray:
    return x if x.dtype.kind in "biu" else np.full_like(x, np.nan)


def _has_nan(tree: Tree) -> bool:
    return any(np.isnan(x).any() for x in jax.tree.leaves(tree))


def _generic_statistics(families: Mapping[str, Family], dtype: DTypeLike, rng: np.random.Generator) -> Record:
    return Record({name: _generic(family, dtype, rng) for name, family in families.items()})


def _generic(family: Family, dtype: DTypeLike, rng: np.random.Generator) -> Tree:
    """Draw statistics without any structure: numbers around one, or values in the support."""
    if family.guarded:
        return jax.device_get(jit(lambda: family.neutral(dtype).expected().with_base(0.0))())
    shapes = jax.eval_shape(lambda: family.zero_statistics(dtype))
    t = jax.tree.map(lambda leaf: rng.uniform(0.7, 1.3, leaf.shape).astype(dtype), shapes)
    fields = {field.name: getattr(t, field.name) for field in dataclasses.fields(t)}
    fixed = {name: x for name, x in fields.items() if name not in (*t.natural, "pivot")}
    # no base measure; of a chain, as if it had all steps
    return dataclasses.replace(t, **{n: np.full_like(x, n != "base") for n, x in fixed.items()})


@jit
def _score(model: ConjugateModel, rows: Data, s: Record) -> tuple[Array, Array | None, Record]:
    """Compute the expected log joint, every row's part of it and its gradient, in one program."""

    def energy(s: Record) -> tuple[Array, Array | None]:
        total = model.scalar_prior(s)
        row = None if rows is None else model.likelihood(s, rows)
        return (total if row is None else total + row.sum()), row

    (value, row), gradient = jax.value_and_grad(energy, has_aux=True)(s)
    return value, row, gradient
