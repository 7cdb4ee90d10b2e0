"""`pathfinder`: the start of a fit by itself, for users. Imports core and the rest of this room."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.families import LocationScale
from vbjax.inference.resolution import resolved
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.types import Data


def pathfinder(
    model: BlackBox, data: Data = None, *, key: Array, max_iter: int = 200
) -> Approximation[LocationScale]:
    """Find parameters near the optimum by quick paths: where `fit` with this key starts by itself.

    BFGS climbs log p(latents, data) + log |Jacobian| from `model.n_paths` points. At every point u of a path,
    with gradient g and estimated Hessian -B of log p, stands the normal of mean u + B^-1 g and covariance
    B^-1, or the family's nearest to it, which keeps the mean and the diagonal ("mean_field") or the blocks
    ("blocks") of the precision B. The one with the highest bound is returned; `.paths` has where each path
    ended. B is a dense matrix, d x d. Works inside `jit` and `vmap`.

    Args:
        model: a `BlackBox` of family "full_rank", "mean_field" or "blocks".
        data: as `fit` takes them.
        key: `jax.random.key(...)`.
        max_iter: the largest number of steps of a path.

    Raises:
        ValueError: arguments that `fit` refuses; another family; a density or gradient that is not finite
            wherever paths start (inside `jit` the random start is returned then).

    References:
        Zhang, Carpenter, Gelman & Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference,
        JMLR 23, algorithms 1 and 2, with the Hessian of all steps in place of that of the last few.

    >>> import jax, vbjax as vb
    >>> model, key = vb.BlackBox(lambda x: -2 * (x - 3) ** 2, vb.real()), jax.random.key(0)
    >>> start = vb.blackbox.pathfinder(model, key=key)
    >>> print(f"{start.mean:.2f} +- {start.sd:.2f}, {vb.fit(model, key=key, params=start).n_iter} sweep")
    3.00 +- 0.50, 1 sweep
    """
    if not isinstance(model, BlackBox):
        raise ValueError(f"model must be a BlackBox; got {model!r}")
    key, max_iter = read_key(key), read_count(max_iter, "max_iter")
    model, data, _ = resolved(model, data, None)
    q = model.inspect_family(jnp.result_type(float))
    if not isinstance(q, LocationScale) or q.kind.needs_hessian:
        names = "'full_rank', 'mean_field', 'blocks'"
        raise ValueError(f"pathfinder is for the families {names}; got {model.family!r}")
    start, finite = _follow(model, data, key, jnp.asarray(max_iter))
    if is_concrete(finite) and not np.asarray(finite).all():
        model.refuse_not_finite(dataclasses.replace(start, base=jnp.zeros_like(start.noise)), data)
    return start


@jit
def _follow(
    model: BlackBox, data: Data, key: Array, max_iter: Array
) -> tuple[Approximation[LocationScale], Bool[Array, ""]]:
    """Return the start, and whether any path has met a finite density."""
    start = model.follow_paths(*model.begin(key, data), data, max_iter)
    return start, jnp.asarray(False) if start.paths is None else jnp.isfinite(start.paths.bound).any()
