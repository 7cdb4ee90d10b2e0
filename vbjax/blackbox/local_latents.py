"""Local latents: those that each row has for itself, beside the latents that all rows share.

`amortized_normals` holds the family that draws them; a row's part of the bound is estimated at such a draw.
For `BlackBox`; imports the approximation and inspection.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.blackbox.approximation import constrain, support_size
from vbjax.blackbox.contracts import Distribution, Latents, SupportTree, WithLocal
from vbjax.blackbox.inspection import evaluating, inspect_support
from vbjax.core.rows import n_rows
from vbjax.numerics.types import Data

DrawLocal: TypeAlias = Callable[[Data], tuple[Float[Array, "m k"], Float[Array, " m"]]]

_TOGETHER = 64  # draws for which local latents of all rows are in memory


def constrain_rows(support: SupportTree, v: Float[Array, "m k"]) -> tuple[Latents, Float[Array, " m"]]:
    """Return the latents at every row of v; the rows lead the shape of each."""
    return jax.vmap(lambda v: constrain(support, v))(v)


def inspect_local(
    local: SupportTree, log_likelihood: Callable[..., Array] | None, q: Distribution, data: Data
) -> None:
    """Refuse local latents without rows or an encoder, and an encoder of another number of latents."""
    if local is None:
        if isinstance(q, WithLocal):
            raise ValueError(
                "family=amortized(encoder) is for a BlackBox with local, supports of rows' latents"
            )
        return
    inspect_support(local, discrete=False, name="local")
    if log_likelihood is None or data is None:
        raise ValueError("local is for models of rows: give log_likelihood and data")
    if not isinstance(q, WithLocal):
        raise ValueError("local latents need family=vb.blackbox.amortized(encoder)")
    with evaluating("encoder", f"rows of shapes {jax.tree.map(jnp.shape, data)}"):
        given = jax.eval_shape(lambda q: q.encode(data), q)
    shape = (n_rows(data), support_size(local))
    shapes = [x.shape for x in given]
    if shapes != [shape, shape]:
        raise ValueError(f"encoder must return means and log sds of shape {shape}; got shapes {shapes}")


def local_shapes(local: SupportTree, m: int, dtype: DTypeLike) -> Latents:
    """Return the shapes of the local latents of m rows."""
    v = jnp.zeros((m, support_size(local)), dtype)
    return jax.eval_shape(lambda v: constrain_rows(local, v)[0], v)


def score_rows(
    log_likelihood: Callable[..., Array],
    local: SupportTree,
    latents: Latents,
    rows: Data,
    draw_local: DrawLocal | None,
) -> Float[Array, " m"]:
    """Return the log likelihood of each row; with local latents, an estimate of its part of the bound."""
    if local is None:
        return log_likelihood(latents, rows)
    if draw_local is None:
        raise ValueError("local latents are for family=vb.blackbox.amortized(encoder) alone")
    v, log_q = draw_local(rows)
    values, stretch = constrain_rows(local, v)
    return log_likelihood(latents, values, rows) + stretch - log_q


def map_with_local(
    log_joint: Callable[[Float[Array, " d"], DrawLocal], Float[Array, ""]],
    q: WithLocal,
    u: Float[Array, "n d"],
    key: Array,
) -> Float[Array, " n"]:
    """Compute the log joint at every row of u, each with its own draw of the local latents by q."""

    def one(pair: tuple[Array, Array]) -> Float[Array, ""]:
        return log_joint(pair[0], functools.partial(q.draw_local, pair[1]))

    return lax.map(one, (u, jax.random.split(key, len(u))), batch_size=_TOGETHER)


def sample_rows(local: SupportTree, q: WithLocal, key: Array, n: int, rows: Data) -> Latents:
    """Draw n values of the local latents of rows; n, then the rows, lead their shapes."""
    keys = jax.random.split(key, n)
    return jax.vmap(lambda key: constrain_rows(local, q.draw_local(key, rows)[0])[0])(keys)
