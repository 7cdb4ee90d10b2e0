"""Is the log joint conjugate? Two probes by public means, run before a model of one's own is fitted.

For every factor the energy must be affine in its statistics: (1) `e(t + v) - e(t) = <grad e, v>` for v
of both signs and two sizes; (2) the gradient evaluated at t = NaN holds no NaN (what a gradient does
not depend on cannot poison it). Pivots are constants and exempt. The NaN probe also tells which global
factors interact, and so must be updated one after the other.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.core.expectation import float_dtype
from vbjax.core.inputs import is_concrete
from vbjax.core.model import in_dtype
from vbjax.record import Record

_N_ROWS = 4  # rows that the probes look at
_SIZES = (0.5, -0.5, 2.0, -2.0)


@dataclasses.dataclass(frozen=True)
class _Question:
    """One structure and shape of model and data; the numbers do not matter to the answer."""

    key: Any
    model: Any = dataclasses.field(compare=False)
    rows: Any = dataclasses.field(compare=False)


def inspect_model(model: Any, data: Any) -> tuple[tuple[str, ...], ...]:
    """The blocks in which the global factors may be updated.

    Raises:
        ValueError: where the log joint is not affine in the statistics of a factor, or where two local
            factors interact; the error names them.
    """
    with jax.ensure_compile_time_eval():
        rows = jax.tree.map(lambda x: _concrete(x[:_N_ROWS]), data)
        model = in_dtype(jax.tree.map(_concrete, model), float_dtype(data))
    leaves, structure = jax.tree.flatten((model, rows))
    key = structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return _answer(_Question(key, model, rows))


def _concrete(x: Any) -> Array:
    """The array itself, or ones of its shape where it is being traced."""
    return jnp.asarray(x) if is_concrete(x) else jnp.ones(jnp.shape(x), jnp.result_type(x))


@functools.lru_cache(maxsize=256)
def _answer(question: _Question) -> tuple[tuple[str, ...], ...]:
    model, rows = question.model, question.rows
    with jax.ensure_compile_time_eval():
        residuals, poisoned = jax.device_get(_probe(model, rows))
    local = {} if rows is None else model.local(rows)
    families = {**model.factors, **local}
    for name, family in families.items():
        if not residuals[name] <= 1.0 or poisoned[name][name]:  # a NaN residual is a refusal too
            raise ValueError(
                f"the log joint is not affine in the statistics of the factor {name!r} ({family}): its "
                "coordinate update would not be the optimum. Give it another family, or write the model "
                "with an augmentation that makes it conjugate."
            )
    for name in local:
        for other in local:
            if name < other and (poisoned[name][other] or poisoned[other][name]):
                raise ValueError(
                    f"the local factors {name!r} and {other!r} interact: they have no joint optimum in "
                    "closed form. Use one joint local factor for both."
                )
    blocks: list[tuple[str, ...]] = []
    for name in model.factors:
        apart = bool(blocks) and not any(poisoned[name][o] or poisoned[o][name] for o in blocks[-1])
        blocks[-1:] = [(*blocks[-1], name)] if apart else [*blocks[-1:], (name,)]
    return tuple(blocks)


@jax.jit
def _probe(model: Any, rows: Any) -> tuple[dict[str, Array], dict[str, dict[str, Array]]]:
    """For every factor: the residual of affinity in units of the tolerance, and whom its NaN reaches."""
    dtype = float_dtype((model, rows))
    families = {**model.factors, **({} if rows is None else model.local(rows))}

    def energy(s: Record) -> Array:
        total = jnp.asarray(model.log_prior(model.namespace(s)), dtype).sum()
        return total if rows is None else total + model._rows(s, rows).sum()

    keys = iter(jax.random.split(jax.random.key(0), 2 * len(families)))

    def noise(t: Any, size: float) -> dict[str, Array]:
        key = next(keys)
        return {
            name: size * jax.random.uniform(jax.random.fold_in(key, i), leaf.shape, dtype, -1.0, 1.0)
            for i, (name, leaf) in enumerate(t.natural.items())
        }

    def add(t: Any, step: dict[str, Array], size: float) -> Any:
        return dataclasses.replace(t, **{name: getattr(t, name) + size * v for name, v in step.items()})

    def generic(family: Any) -> Any:
        t = family.neutral(dtype).expected().with_base(0.0)
        return add(t, noise(t, 0.3), 1.0)

    s = Record({name: generic(family) for name, family in families.items()})
    value, gradient = jax.value_and_grad(energy)(s)
    residuals, poisoned = {}, {}
    for name in families:
        step = noise(s[name], 1.0)
        slopes = [(gradient[name].natural[field] * v) for field, v in step.items()]
        slope, spread = sum(x.sum() for x in slopes), sum(jnp.abs(x).sum() for x in slopes)
        worst = jnp.zeros((), dtype)
        for size in _SIZES:
            moved = energy(s | {name: add(s[name], step, size)})
            scale = jnp.abs(value) + jnp.abs(moved) + abs(size) * spread
            residual = jnp.abs(moved - value - size * slope) / (1000 * jnp.finfo(dtype).eps * scale)
            worst = jnp.where(scale > 0, jnp.maximum(worst, residual), worst)
        residuals[name] = worst
        nan = dataclasses.replace(s[name], **{f: jnp.full_like(v, jnp.nan) for f, v in step.items()})
        reached = jax.grad(energy)(s | {name: nan})
        poisoned[name] = {
            other: jnp.stack([jnp.isnan(leaf).any() for leaf in t.natural.values()]).any()
            for other, t in reached.items()
        }
    return residuals, poisoned
