"""Gibbs sampling from the log joint that is fitted: the coordinate map at the statistics of a sample.

The exact conditional of a factor given values of all others is the state to which coordinate ascent would
update it, if the others were points (Bishop 2006, eq. 10.9 with points for the expectations). So a sweep
takes `from_gradient` of each factor and draws from it. Imports core; knows no model.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float

from vbjax.core.coordinate_ascent import explain
from vbjax.core.devices import RUNS, WHOLE, jit_over_mesh, on_each, over, read_devices
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.ragged import Ragged, by_part_with_key
from vbjax.core.rows import float_dtype
from vbjax.families.base import State, Statistics
from vbjax.inference import division
from vbjax.inference.resolution import resolved
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data


def gibbs(
    model: ConjugateModel,
    data: Data = None,
    *,
    key: Array,
    n_draws: int = 1000,
    n_warmup: int = 500,
    n_chains: int = 4,
    devices: Sequence[jax.Device] | None = None,
) -> Record:
    """Draw from the exact posterior of a conjugate model's parameters, by Gibbs sampling.

    Local latents (labels) are drawn too, but not returned. The chains run in parallel, under `vmap`, and
    begin at the model's own random starts.

    Args:
        model: any conjugate model whose factors are distributions; a `Delta` factor is moved to its
            conditional mode instead (stochastic EM).
        data: as `fit` takes them.
        key: `jax.random.key(...)`.
        n_draws: number of draws of each chain that are returned.
        n_warmup: number of draws before them that are thrown away.
        n_chains: number of chains.
        devices: those that may be used, by default all of this process: the chains are divided over as many
            as divide their number.

    Returns:
        Values by factor, every array of shape (n_chains, n_draws, *plate, *event).

    Raises:
        ValueError: arguments that `fit` refuses; a model with a factor that is not conjugate; data or a prior
            of which draws are not finite.

    References:
        Geman & Geman (1984); Bishop (2006), section 11.3.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> draws = vb.gibbs(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0), n_draws=100)
    >>> draws.mu.shape
    (4, 100)
    """
    require_model(model, data, "Gibbs sampling")
    key, sizes = read_key(key), dict(n_draws=n_draws, n_warmup=n_warmup, n_chains=n_chains)
    sizes = {name: read_count(n, name, least=int(name != "n_warmup")) for name, n in sizes.items()}
    model, data, _ = resolved(model, data, None)
    model.require_conjugate("its conditional distribution")
    if isinstance(data, Ragged) and not model.local(data.parts[0]):
        raise ValueError(
            f"data must be arrays: a {type(model).__name__} does not draw what documents and sequences have "
            "of their own; a vb.Model of sequences does"
        )
    mesh = None
    if is_concrete((model, data, key)):
        mesh, data = division.divide_runs(data, sizes["n_chains"], read_devices(devices))
    with over(mesh):
        draws = division.gathered(_gibbs(model, data, key, **sizes), mesh)
    if is_concrete(draws) and not all(np.isfinite(x).all() for x in jax.tree.leaves(draws)):
        explain(model, model.init(key, data), data, None)
    return draws


@functools.partial(jit_over_mesh, static=("n_draws", "n_warmup", "n_chains"))
def _gibbs(
    model: ConjugateModel, data: Data, key: Array, *, n_draws: int, n_warmup: int, n_chains: int
) -> Record:
    def chain(model: ConjugateModel, data: Data, key: Array) -> Record:
        key_start, key_values, key_local, key_sweeps = jax.random.split(key, 4)
        states = model.init(key_start, data)
        values, s = _draw_all(states, key_values)
        local = Record()
        if data is not None:
            local = by_part_with_key(functools.partial(_start_locals, model), key_local, data)

        def sweep(carry: tuple[Record, Record, Record], step: tuple[Array, Array]) -> tuple[Any, None]:
            s, local, draws = carry
            place, key = step
            s, local, values = _sweep(model, s, local, data, key)
            keep = lambda kept, x: jax.lax.dynamic_update_index_in_dim(kept, x, place, 0)
            return (s, local, jax.tree.map(keep, draws, values)), None

        # one loop, so that a sweep is compiled once: the first draw replaces those before it
        places = jnp.maximum(jnp.arange(n_warmup + n_draws) - n_warmup, 0)
        draws = jax.tree.map(lambda x: jnp.zeros((n_draws, *x.shape), x.dtype), values)
        keys = jax.random.split(key_sweeps, n_warmup + n_draws)
        return jax.lax.scan(sweep, (s, local, draws), (places, keys))[0][2]

    chains = lambda keys, model, data: jax.vmap(functools.partial(chain, model, data))(keys)
    runs = PartitionSpec(RUNS)
    return on_each(chains, (runs, WHOLE, WHOLE), runs)(jax.random.split(key, n_chains), model, data)


def _start_locals(model: ConjugateModel, key: Array, rows: Data) -> Record:
    """Draw the local latents of some rows from their neutral states; return their statistics."""
    dtype = float_dtype(rows)
    return _draw_all({name: f.neutral(dtype) for name, f in model.local(rows).items()}, key)[1]


def _draw_all(states: Mapping[str, State], key: Array) -> tuple[Record, Record]:
    """Draw a value from every state; return the values and their statistics."""
    keys = dict(zip(states, jax.random.split(key, max(len(states), 1)), strict=False))
    values = Record({name: state.sample(keys[name]) for name, state in states.items()})
    return values, Record({name: states[name].statistics(value) for name, value in values.items()})


def _sweep(
    model: ConjugateModel, s: Record, local: Record, data: Data, key: Array
) -> tuple[Record, Record, Record]:
    """Draw every local and every global latent once, from its conditional given all else.

    Returns:
        The statistics of the global and of the local latents, and the values of the global ones.
    """
    key, *keys = jax.random.split(key, 1 + len(model.blocks))
    if data is not None:
        local = by_part_with_key(functools.partial(_draw_locals, model, s), key, data, local)
    values = Record()
    for block, own in zip(model.blocks, keys, strict=True):
        statistics = jax.tree.map(jnp.zeros_like, s) if data is None else model.gradient_at(s, local, data)
        gradient = model.total_gradient(s, statistics, block)
        states = {name: model.factors[name].from_gradient(s[name], gradient[name]) for name in block}
        drawn, moved = _draw_all(states, own)
        values, s = values | drawn, s | moved
    return s, local, values


def _draw_locals(model: ConjugateModel, s: Record, key: Array, rows: Data, local: Record) -> Record:
    """Draw every local latent of some rows once, given all else; return their statistics."""
    families = model.local(rows)
    keys = jax.random.split(key, max(len(families), 1))
    for (name, family), own in zip(families.items(), keys, strict=False):
        pull = jax.grad(_energy)(local[name], name, model, s | local, rows)
        state = family.from_gradient(local[name], pull.with_base(1.0))
        local = local | _draw_all({name: state}, own)[1]
    return local


def _energy(t: Statistics, name: str, model: ConjugateModel, s: Record, data: Data) -> Float[Array, ""]:
    """Return the log likelihood of all rows, with t as the statistics of one latent."""
    return model.likelihood(s | {name: t}, data).sum()
