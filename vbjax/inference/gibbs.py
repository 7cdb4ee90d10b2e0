"""Gibbs sampling from the same log joint: the coordinate map at the statistics of a sample.

Given all else, a factor's exact conditional is the state that coordinate ascent would make of it, were
the others points; so a sweep draws from `from_gradient` instead of keeping it. Imports core; knows no
model.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.ragged import Ragged
from vbjax.core.rows import float_dtype
from vbjax.inference.fit import resolved
from vbjax.numerics.inputs import read_count, read_key
from vbjax.numerics.record import Record


def gibbs(
    model: ConjugateModel,
    data: Any = None,
    *,
    key: Array,
    n_draws: int = 1000,
    n_warmup: int = 500,
    n_chains: int = 4,
) -> Record:
    """Draws from the exact posterior of a conjugate model's parameters, by Gibbs sampling.

    Local latents (labels) are drawn too and not kept. The chains run at the same time, under `vmap`;
    they start from the model's own random starts.

    Args:
        model: any conjugate model whose factors are distributions; a `Delta` factor is moved to its
            conditional mode instead (stochastic EM).
        data: what `fit` takes.
        key: `jax.random.key(...)`.
        n_draws: kept draws of each chain.
        n_warmup: draws thrown away before them.
        n_chains: chains.

    Returns:
        Values by factor, every array of shape (n_chains, n_draws, *plate, *event).

    Raises:
        ValueError: as from `fit`; a model with a factor that is not conjugate.

    References:
        Geman & Geman (1984); Bishop (2006), section 11.3.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> draws = vb.gibbs(vb.GaussianMeanPrecision(), x, key=jax.random.key(0), n_draws=100)
    >>> draws.mu.shape
    (4, 100)
    """
    require_model(model, data, "Gibbs sampling")
    key, sizes = read_key(key), dict(n_draws=n_draws, n_warmup=n_warmup, n_chains=n_chains)
    sizes = {name: read_count(n, name, least=int(name != "n_warmup")) for name, n in sizes.items()}
    model, data, _ = resolved(model, data, None)
    model.require_conjugate("its conditional distribution")
    if isinstance(data, Ragged):
        raise ValueError("data must be arrays: what documents and sequences have of their own is not drawn")
    return _gibbs(model, data, key, **sizes)


@functools.partial(jax.jit, static_argnames=("n_draws", "n_warmup", "n_chains"))
def _gibbs(model: Any, data: Any, key: Array, *, n_draws: int, n_warmup: int, n_chains: int) -> Record:
    def chain(key: Array) -> Record:
        key_start, key_values, key_local, key_sweeps = jax.random.split(key, 4)
        states = model.init(key_start, data)
        s = _draw_all(states, key_values)[1]
        local = Record()
        if data is not None:
            neutral = {n: f.neutral(float_dtype(data)) for n, f in model.local(data).items()}
            local = _draw_all(neutral, key_local)[1]

        def sweep(carry: tuple[Record, Record], key: Array) -> tuple[tuple[Record, Record], Record]:
            s, local, values = _sweep(model, *carry, data, key)
            return (s, local), values

        keys = jax.random.split(key_sweeps, n_warmup + n_draws)
        carry, _ = jax.lax.scan(lambda c, k: (sweep(c, k)[0], None), (s, local), keys[:n_warmup])
        return jax.lax.scan(sweep, carry, keys[n_warmup:])[1]

    return jax.vmap(chain)(jax.random.split(key, n_chains))


def _draw_all(states: Any, key: Array) -> tuple[Record, Record]:
    """A value of every state, and its statistics."""
    keys = dict(zip(states, jax.random.split(key, max(len(states), 1)), strict=False))
    values = Record({name: state.sample(keys[name]) for name, state in states.items()})
    return values, Record({name: states[name].statistics(value) for name, value in values.items()})


def _sweep(model: Any, s: Record, local: Record, data: Any, key: Array) -> tuple[Record, Record, Record]:
    """Every local and every global latent once, from its conditional given all else."""
    families = {} if data is None else model.local(data)
    keys = iter(jax.random.split(key, len(families) + len(model.blocks)))
    for name, family in families.items():
        pull = jax.grad(_energy)(local[name], name, model, s | local, data)
        state = family.from_gradient(local[name], pull.with_base(1.0))
        local = local | _draw_all({name: state}, next(keys))[1]
    values = Record()
    for block in model.blocks:
        statistics = jax.tree.map(jnp.zeros_like, s) if data is None else model.gradient_at(s, local, data)
        gradient = model.total_gradient(s, statistics, block)
        states = {name: model.factors[name].from_gradient(s[name], gradient[name]) for name in block}
        drawn, moved = _draw_all(states, next(keys))
        values, s = values | drawn, s | moved
    return s, local, values


def _energy(t: Any, name: str, model: Any, s: Record, data: Any) -> Array:
    return model.likelihood(s | {name: t}, data).sum()
