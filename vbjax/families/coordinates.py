"""A state as plain real numbers, seen from another state: for extrapolation along a sequence of states.

Locations in units of their spread, positive numbers by logarithms, positive definite matrices by the
triangular factor in which the origin is the identity: the numbers are free of the data's units, small near
the origin, and any of them is a state. Imported by core's acceleration, and by `fit` for its errors.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.families.base import State
from vbjax.families.delta import DeltaState
from vbjax.numerics.linalg import cholesky, solve_lower, symmetrize, transpose


def coordinates(state: State, origin: Any) -> dict[str, Array]:
    """Real numbers for every field of a state, 0 at `origin`, a state of the same family."""
    if isinstance(state, DeltaState):
        return coordinates(state.at, origin.at)

    def read(name: str, domain: str) -> Array:
        x, there = getattr(state, name), getattr(origin, name)
        if domain in ("positive", "degrees"):
            least = _least(origin, domain)
            return jnp.log((x - least) / (there - least))
        if domain in ("definite", "triangular"):
            root = solve_lower(*map(cholesky, (there, x))) if domain == "definite" else solve_lower(there, x)
            diagonal = jnp.diagonal(root, axis1=-2, axis2=-1)
            below = jnp.tril(root, -1) / diagonal[..., None, :]
            return below + jnp.log(diagonal)[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)
        return (x - there) / (origin.location_scale if domain == "location" else 1)

    return {name: read(name, domain) for name, domain in state.domains.items()}


def at_coordinates(values: dict[str, Array], origin: Any) -> Any:
    """The state at given coordinates: undoes `coordinates`."""
    if isinstance(origin, DeltaState):
        return DeltaState(at_coordinates(values, origin.at))

    def write(name: str, domain: str) -> Array:
        x, there = values[name], getattr(origin, name)
        if domain in ("positive", "degrees"):
            least = _least(origin, domain)
            return least + (there - least) * jnp.exp(x)
        if domain in ("definite", "triangular"):
            eye = jnp.eye(x.shape[-1], dtype=x.dtype)
            diagonal = jnp.exp(jnp.diagonal(x, axis1=-2, axis2=-1))
            root = (jnp.tril(x, -1) + eye) * diagonal[..., None, :]
            if domain == "triangular":
                return there @ root
            root = cholesky(there) @ root
            return symmetrize(root @ transpose(root))
        return there + x * (origin.location_scale if domain == "location" else 1)

    fields = {name: write(name, domain) for name, domain in origin.domains.items()}
    return dataclasses.replace(origin, **fields)


def displaced(state: Any, key: Array) -> Any:
    """Return the state with every location moved by about its standard deviation, and logits by about 1."""
    if isinstance(state, DeltaState):
        return DeltaState(displaced(state.at, key))
    moved = {}
    for number, (name, domain) in enumerate(state.domains.items()):
        if domain in ("location", "real"):
            x = getattr(state, name)
            noise = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
            moved[name] = x + noise * (state.location_scale if domain == "location" else 1)
    return dataclasses.replace(state, **moved)


def is_proper(state: Any) -> Array:
    """Return whether every number of the state is finite and, of a diagonal for a matrix, in its domain."""
    state = state.at if isinstance(state, DeltaState) else state
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]
    return jnp.stack([*finite, *(~bad for bad in _bad(state).values())]).all()


def outside(state: Any) -> str | None:
    """The first field whose values are not in its domain (but for NaN), None where all are."""
    bad = _bad(state.at if isinstance(state, DeltaState) else state)
    return next((name for name, is_bad in bad.items() if is_bad), None)


def _bad(state: Any) -> dict[str, Array]:
    """Whether a number of a field, of a matrix its diagonal, is not above what bounds its domain."""
    bad = {}
    for name, domain in state.domains.items():
        if domain in ("positive", "definite", "degrees"):
            x = getattr(state, name)
            x = jnp.diagonal(x, axis1=-2, axis2=-1) if domain == "definite" else x
            bad[name] = (x <= _least(state, domain)).any()
    return bad


def _least(state: Any, domain: str) -> int:
    """What a number of the domain lies above."""
    return state.inverse_scale.shape[-1] - 1 if domain == "degrees" else 0
