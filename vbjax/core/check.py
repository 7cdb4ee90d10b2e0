"""Is the log joint conjugate? Two probes by public means, run before a model of one's own is fitted.

For every factor, but for those declared not to be conjugate, the energy must be affine in its statistics:
(1) `e(t + v) - e(t) = <grad e, v>` for v of both signs and several sizes; (2) the gradient evaluated at
t = NaN holds no NaN (what a gradient does not depend on cannot poison it). Pivots are constants, and
another pivot must give the same energy. The NaN probe also tells which factors interact, and so must be
updated one after the other.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vbjax.core.expectation import float_dtype
from vbjax.core.inputs import is_concrete
from vbjax.core.model import in_dtype
from vbjax.families.base import Family
from vbjax.record import Record

_N_ROWS = 4  # rows that the probes look at
_SIZES = (0.5, -0.5, 2.0, -2.0, 1e5, -1e5)  # the large ones reach what `where` and `abs` hide


@dataclasses.dataclass(frozen=True)
class _Question:
    """One structure and shape of model and data; the numbers do not matter to the answer."""

    key: Any
    model: Any = dataclasses.field(compare=False)
    rows: Any = dataclasses.field(compare=False)


Blocks = tuple[tuple[str, ...], ...]


class Inspection(NamedTuple):
    """What a log joint was found to be.

    Attributes:
        blocks: global factors that may be updated together, in order.
        interacting_locals: whether two local factors meet in one term, and so must be updated in turn.
    """

    blocks: Blocks
    interacting_locals: bool


def inspect_model(model: Any, data: Any, given: Blocks | None = None) -> Inspection:
    """The blocks in which the global factors may be updated, those `given` if they are sound.

    Raises:
        ValueError: where the log joint is not affine in the statistics of a factor, or where the given
            blocks do not hold every factor once or put two together that interact; the error names them.
    """
    question = _question(model, data)
    found, interacting = _answer(question)
    local = () if data is None else question.model.local(question.rows)
    interacting_locals = any(frozenset(pair) in interacting for pair in itertools.combinations(local, 2))
    if given is None:
        return Inspection(found, interacting_locals)
    names = [name for block in given for name in block]
    if sorted(names) != sorted(model.factors):
        raise ValueError(f"blocks must hold each of {', '.join(model.factors)} once; got {given}")
    for block in given:
        for name, other in itertools.combinations(block, 2):
            if frozenset((name, other)) in interacting:
                raise ValueError(f"blocks must not put {name!r} and {other!r} together: they interact")
    return Inspection(given, interacting_locals)


def _question(model: Any, data: Any) -> _Question:
    with jax.ensure_compile_time_eval():
        rows = jax.tree.map(lambda x: _concrete(x[:_N_ROWS]), data)
        model = in_dtype(jax.tree.map(_concrete, model), float_dtype(data))
    leaves, structure = jax.tree.flatten((model, rows))
    key = structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return _Question(key, model, rows)


def _concrete(x: Any) -> Array:
    """The array itself, or ones of its shape where it is being traced."""
    return jnp.asarray(x) if is_concrete(x) else jnp.ones(jnp.shape(x), jnp.result_type(x))


@functools.lru_cache(maxsize=256)
def _answer(question: _Question) -> tuple[Blocks, frozenset[frozenset[str]]]:
    """The blocks, and the pairs of factors that interact."""
    model, rows = question.model, question.rows
    _require_shapes(model, rows)
    with jax.ensure_compile_time_eval():
        residuals, poisoned = _probe(model, rows)
    local = {} if rows is None else model.local(rows)
    families = {**model.factors, **local}
    for name, family in families.items():
        if family.guarded:
            continue
        if not residuals[name] <= 1.0 or poisoned[name][name]:  # a NaN residual is a refusal too
            raise ValueError(
                f"the log joint is not affine in the statistics of the factor {name!r} ({family}): its "
                "coordinate update would not be the optimum. Give it another family, write the model with an "
                "augmentation that makes it conjugate, or declare it vb.NonConjugate."
            )
    interacting = frozenset(
        frozenset((name, other))
        for name, other in itertools.permutations(families, 2)
        if poisoned[name][other]
    )
    blocks: list[tuple[str, ...]] = []
    for name in sorted(model.factors, key=lambda name: not model.factors[name].guarded):  # those first
        apart = bool(blocks) and not model.guarded(blocks[-1])
        apart = apart and not any(frozenset((name, other)) in interacting for other in blocks[-1])
        blocks[-1:] = [(*blocks[-1], name)] if apart else [*blocks[-1:], (name,)]
    return tuple(blocks), interacting


def _require_shapes(model: Any, rows: Any) -> None:
    """Both functions can be evaluated: every name that they use exists, and the plates fit."""
    local = {} if rows is None else model.local(rows)
    families, dtype = {**model.factors, **local}, float_dtype((model, rows))
    s = Record({name: jax.eval_shape(f.neutral(dtype).expected) for name, f in families.items()})
    calls: dict[str, Any] = {"log_prior": lambda: jax.eval_shape(model._scalar_prior, s)}
    if rows is not None:
        calls["log_likelihood"] = lambda: jax.eval_shape(model.likelihood, s, rows)
    for name, call in calls.items():
        try:
            call()
        except (AttributeError, TypeError, IndexError, ValueError) as error:
            if str(error).startswith(name):  # it says all itself
                raise
            factors = ", ".join(f"{key}: {family}" for key, family in families.items())
            shapes = jax.tree.map(jnp.shape, rows)
            raise ValueError(
                f"{name} cannot be evaluated over the factors {factors}, {shapes} being the shape of "
                f"{_N_ROWS} rows: {error}"
            ) from error


def _probe(model: Any, rows: Any) -> tuple[dict[str, float], dict[str, dict[str, bool]]]:
    """For every factor: the residual of affinity in units of the tolerance, and whom its NaN reaches."""
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
            other: any(np.isnan(x).any() for x in jax.tree.leaves(t.natural)) for other, t in reached.items()
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
