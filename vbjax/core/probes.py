"""Probes of a log joint by public means, at a few rows: is it affine in the statistics of every factor?

For every factor, but for those declared not to be conjugate, (1) `e(t + v) - e(t) = <grad e, v>` for v of
both signs and several sizes; (2) the gradient evaluated at t = NaN holds no NaN (what a gradient does not
depend on cannot poison it). Pivots are constants, and another pivot must give the same energy. The NaN probe
also tells which factors interact. Imported by check.py alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array

from vbjax.core.expectation import float_dtype
from vbjax.families.base import Family
from vbjax.record import Record

_SIZES = (0.5, -0.5, 2.0, -2.0, 1e5, -1e5)  # the large ones reach what `where` and `abs` hide


def probe(model: Any, rows: Any) -> tuple[dict[str, float], dict[str, dict[str, set[str]]]]:
    """Return for every factor the residual of affinity in units of the tolerance, and whom its NaN reaches:
    of every factor the fields of the statistics whose coefficients it poisons.
    """
    dtype = float_dtype((model, rows))
    families = {**model.factors, **({} if rows is None else model.local(rows))}
    rng = np.random.default_rng(0)

    def score(s: Record) -> tuple[Any, Record]:
        return jax.device_get(_score(model, rows, s))

    s = Record({name: _generic(family, dtype, rng) for name, family in families.items()})
    value, gradient = score(s)
    if not np.isfinite(value):
        raise ValueError(
            f"the log joint is {value} where the statistics of {', '.join(families)} are around 1: "
            "is a hyperparameter out of its range?"
        )
    residuals, poisoned = {}, {}
    for name, family in families.items():
        t = s[name]
        nan = jax.tree.map(lambda x: np.full_like(x, np.nan), t.natural)
        reached = score(s | {name: dataclasses.replace(t, **nan)})[1]
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
    return residuals, poisoned


def _has_nan(tree: Any) -> bool:
    return any(np.isnan(x).any() for x in jax.tree.leaves(tree))


def _generic(family: Family, dtype: Any, rng: np.random.Generator) -> Any:
    """Statistics of nobody in particular: numbers around one, or values in the support."""
    if family.guarded:
        return jax.device_get(jax.jit(lambda: family.neutral(dtype).expected().with_base(0.0))())
    shapes = jax.eval_shape(lambda: family.neutral(dtype).expected())
    t = jax.tree.map(lambda leaf: rng.uniform(0.7, 1.3, leaf.shape).astype(dtype), shapes)
    return dataclasses.replace(t, base=np.zeros_like(t.base)) if hasattr(t, "base") else t


@jax.jit
def _score(model: Any, rows: Any, s: Record) -> tuple[Array, Record]:
    """The expected log joint at statistics, and its gradient: one program, for all questions."""

    def energy(s: Record) -> Array:
        total = model._scalar_prior(s)
        return total if rows is None else total + model.likelihood(s, rows).sum()

    return jax.value_and_grad(energy)(s)
