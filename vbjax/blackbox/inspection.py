"""Checks of supports, families, functions and parameters, before anything is compiled.

For `BlackBox` and `NonConjugate`; imports the approximation.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from vbjax.blackbox.approximation import Approximation, constrain, support_size
from vbjax.blackbox.contracts import Distribution, SupportTree
from vbjax.blackbox.supports import Support
from vbjax.numerics.inputs import read_count

_MOST = 2**31 - 1  # the largest number of entries of an array


@contextlib.contextmanager
def evaluating(name: str, where: str) -> Iterator[None]:
    """Turn an error of a user's function into a ValueError that names the function and its arguments."""
    try:
        yield
    except Exception as error:
        message = (str(error).splitlines() or [""])[0]
        if isinstance(error, ValueError) and message.startswith(name):  # it says all itself
            raise
        hint = ""
        if isinstance(error, (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError)):
            hint = "; write it with jax.numpy, jnp.where in place of if: its arguments are traced"
        raise ValueError(
            f"{name} cannot be evaluated at {where}: {type(error).__name__}: {message}{hint}"
        ) from error


def inspect_support(support: SupportTree, *, discrete: bool, name: str = "support") -> None:
    """Refuse a tree with leaves other than supports, or without a latent of any size.

    Args:
        discrete: whether discrete latents are allowed.
        name: of the argument, for the error.
    """
    if isinstance(support, Mapping) and (wrong := [key for key in support if not isinstance(key, str)]):
        raise ValueError(f"{name} must have names that are strings; got {wrong[0]!r}")
    is_leaf = lambda x: x is None or isinstance(x, Support)
    for leaf in jax.tree.leaves(support, is_leaf=is_leaf):
        if not isinstance(leaf, Support) or not hasattr(leaf, "shape"):
            raise ValueError(f"{name} must hold supports alone (vb.real(), vb.positive(), ...); got {leaf!r}")
        if leaf.discrete and not discrete:
            raise ValueError(f"{name} must hold no discrete latent here; got {leaf!r}")
    if support_size(support) < 1:
        raise ValueError(f"{name} must have a latent of some size; got {support!r}")


def inspect_n_draws(name: str, n: object, least: int, size: int) -> None:
    """Refuse a number of draws that is odd, too small, or too large for an array (n, size)."""
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n % 2 or n < least:
        raise ValueError(f"{name} must be even and at least {least} for {size} numbers; got {n!r}")
    if read_count(n, name) * size > _MOST:
        raise ValueError(
            f"{name} draws of {size} numbers are {n * size:,} numbers, more than an array holds ({_MOST:,}): "
            f"give {name}, even and at least {least}"
        )


def inspect_family(start: Callable[[Array], Distribution], size: int) -> Distribution:
    """Return the shapes of q that `start` makes of a key; refuse one that does not draw `size` numbers."""
    with evaluating("family", f"a key, for {size} numbers"):
        q = jax.eval_shape(start, jax.random.key(0))
    if not isinstance(q, Distribution):
        raise ValueError(f"family must start an object with sample and log_prob; got {q!r}")
    if (most := max(math.prod(leaf.shape) for leaf in jax.tree.leaves(q))) > _MOST:
        raise ValueError(
            f"family has an array of {most:,} numbers for {size} latent ones, more than an array holds "
            f"({_MOST:,}): use 'mean_field' or blackbox.low_rank(rank)"
        )
    with evaluating("family", "3 draws"):
        u = jax.eval_shape(lambda q: q.sample(jax.random.key(0), 3), q)
        log_q = jax.eval_shape(lambda q, u: q.log_prob(u), q, u)
    if (getattr(u, "shape", None), getattr(log_q, "shape", None)) != ((3, size), (3,)):
        raise ValueError(
            f"family must draw rows of {size} numbers and give each a log_prob: "
            f"3 draws have shape {getattr(u, 'shape', u)}, their log_prob {getattr(log_q, 'shape', log_q)}"
        )
    return q


def inspect_function(
    name: str,
    function: Callable[..., Array],
    support: SupportTree,
    dtype: DTypeLike,
    data: tuple[Any, ...],
    shape: tuple[int, ...],
) -> None:
    """Refuse a function of the latents that cannot be evaluated, or does not give real numbers of a shape.

    Args:
        name: name of the argument, for the error.
        function: it takes the latents, and the data where there are any.
        data: empty, or the data alone.
        shape: of the values that it must return.
    """
    u = jax.ShapeDtypeStruct((support_size(support),), dtype)
    latents = jax.eval_shape(lambda u: constrain(support, u)[0], u)
    where = f"latents of shapes {jax.tree.map(jnp.shape, latents)}"
    where += f" and data of shapes {jax.tree.map(jnp.shape, data[0])}" if data else ""
    with evaluating(name, where):
        value = jax.eval_shape(function, latents, *data)
    if getattr(value, "shape", None) != shape:
        what = "a scalar" if shape == () else f"one number for each of {shape[0]} rows"
        raise ValueError(f"{name} must return {what}; got {value}")
    if not (jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)):
        raise ValueError(f"{name} must return real numbers; got {value.dtype}")


def inspect_params(support: SupportTree, params: object) -> None:
    """Refuse parameters that are not an `Approximation` of latents of this support."""
    if not isinstance(params, Approximation):
        raise ValueError(f"params must be those of a fit, fit.params; got {type(params).__name__}")
    own, given = _shapes(support), _shapes(params.support)
    if own != given:
        raise ValueError(f"params must be of the model's latents, {own}; they are of {given}")
    size = support_size(support)
    try:
        u = jax.eval_shape(lambda q: q.sample(jax.random.key(0), 2), params.q)
    except (TypeError, ValueError) as error:
        raise ValueError(f"params must be of {size} numbers: {error}") from error
    if u.shape != (2, size):
        raise ValueError(f"params must be of {size} numbers; they are of {u.shape[-1]}")


def _shapes(support: SupportTree) -> SupportTree:
    """Return the support with the kind and shape of each latent, as a string, in its place."""
    is_leaf = lambda x: isinstance(x, Support)
    return jax.tree.map(lambda leaf: f"{type(leaf).__name__}{leaf.shape}", support, is_leaf=is_leaf)
