"""Coordinates of a state: real numbers relative to another state, for extrapolation along a path of states.

Locations are in units of their spread, positive numbers and shares are logarithms, and positive definite
matrices are the triangular factor in which the origin is the identity. So the numbers are free of the data's
units, small near the origin, and any choice of them is a state. Core's acceleration imports this file, and
`fit` does for its errors.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from vbjax.families.base import State
from vbjax.numerics.linalg import cholesky, solve_lower, symmetrize, transpose


def coordinates(state: State, origin: State) -> dict[str, Array]:
    """Return real numbers for every field of a state, 0 at `origin`, a state of the same family."""
    fields, of_origin = state.fields, origin.fields

    def read(name: str, domain: str) -> Array:
        x, there = fields[name], of_origin[name]
        if domain in ("positive", "simplex", "degrees"):
            least = _least(origin, domain)
            return jnp.log(jnp.where(x == there, 1, (x - least) / (there - least)))  # 0 may stay 0
        if domain in ("definite", "triangular"):
            root = solve_lower(*map(cholesky, (there, x))) if domain == "definite" else solve_lower(there, x)
            diagonal = jnp.diagonal(root, axis1=-2, axis2=-1)
            below = jnp.tril(root, -1) / diagonal[..., None, :]
            return below + jnp.log(diagonal)[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)
        return (x - there) / (origin.location_scale if domain == "location" else 1)

    return {name: read(name, domain) for name, domain in state.domains.items()}


def at_coordinates(values: dict[str, Array], origin: State) -> State:
    """Return the state at given coordinates: the inverse of `coordinates`."""
    of_origin = origin.fields

    def write(name: str, domain: str) -> Array:
        x, there = values[name], of_origin[name]
        if domain == "simplex":
            pieces = there * jnp.exp(x)
            return pieces / pieces.sum(-1, keepdims=True)
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

    return origin.with_fields({name: write(name, domain) for name, domain in origin.domains.items()})


def displace(state: State, key: Array) -> State:
    """Return the state with every location moved by about its standard deviation, and logits by about 1."""
    moved, fields = {}, state.fields
    for number, (name, domain) in enumerate(state.domains.items()):
        if domain in ("location", "real"):
            x = fields[name]
            noise = jax.random.normal(jax.random.fold_in(key, number), x.shape, x.dtype)
            moved[name] = x + noise * (state.location_scale if domain == "location" else 1)
    return state.with_fields(moved)


def is_proper(state: State) -> Bool[Array, ""]:
    """Return whether every number of the state is finite and in its domain, for a matrix its diagonal."""
    finite = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]
    return jnp.stack([*finite, *(~bad for bad in _bad(state).values())]).all()


def first_improper_field(state: State) -> str | None:
    """Return the name of the first field with values outside its domain, or None; NaN passes."""
    return next((name for name, is_bad in _bad(state).items() if is_bad), None)


def _bad(state: State) -> dict[str, Bool[Array, ""]]:
    """Return for every bounded field whether a number, of a matrix its diagonal, is not above the bound."""
    bad, fields = {}, state.fields
    for name, domain in state.domains.items():
        if domain in ("positive", "definite", "degrees"):
            x = fields[name]
            x = jnp.diagonal(x, axis1=-2, axis2=-1) if domain == "definite" else x
            bad[name] = (x <= _least(state, domain)).any()
    return bad


def _least(state: State, domain: str) -> int:
    """Return the bound above which the numbers of a domain lie."""
    return state.inverse_scale.shape[-1] - 1 if domain == "degrees" else 0  # type: ignore[attr-defined]
