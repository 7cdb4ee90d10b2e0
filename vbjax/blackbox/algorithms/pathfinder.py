"""Pathfinder (Zhang et al. 2022): a start for a fit, the best normal along a quasi-Newton path to the mode.

For users, before `fit`; imports core and the rest of this room.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.families import LocationScale
from vbjax.core.rows import rounding_error
from vbjax.inference.resolution import resolved
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.linalg import outer, solve_pull
from vbjax.numerics.trees import choose
from vbjax.numerics.types import Data

# so near to exact that a path to a normal target takes about as many steps as there are dimensions
_SEARCH = optax.scale_by_zoom_linesearch(30, curv_rtol=0.01, initial_guess_strategy="one")


class _Path(NamedTuple):
    """Point u of the path with the loss -log p, its gradient and Hessian B there; the best normal so far.

    Attributes:
        search: state of the line search.
        q, bound: the best normal, and its bound.
        going: whether the last step still promised a gain.
    """

    u: Float[Array, " d"]
    loss: Float[Array, ""]
    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]
    search: optax.OptState
    q: LocationScale
    bound: Float[Array, ""]
    n_steps: Int[Array, ""]
    going: Bool[Array, ""]


def pathfinder(
    model: BlackBox, data: Data = None, *, key: Array, max_iter: int = 200
) -> Approximation[LocationScale]:
    """Find parameters near the optimum in one quick path, to start from: `fit(..., key=key, params=start)`.

    BFGS climbs log p(latents, data) + log |Jacobian| from where a fit with this key would start. At every
    point u of the path, with gradient g and estimated Hessian -B of log p, stands the normal of mean
    u + B^-1 g and covariance B^-1, or the family's nearest to it, which keeps the mean and the diagonal
    ("mean_field") or the blocks ("blocks") of the precision B. The one with the highest bound on the draws of
    the fit is returned. B is a dense matrix, d x d. Works inside `jit` and `vmap`.

    Args:
        model: a `BlackBox` of family "full_rank", "mean_field" or "blocks".
        data: as `fit` takes them.
        key: `jax.random.key(...)`.
        max_iter: the largest number of steps of the path.

    Raises:
        ValueError: arguments that `fit` refuses; another family; a density or gradient that is not finite
            where the path starts (inside `jit` the random start is returned then).

    References:
        Zhang, Carpenter, Gelman & Vehtari (2022), Pathfinder: parallel quasi-Newton variational inference,
        JMLR 23, algorithm 1, with the Hessian of all steps in place of that of the last few.

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
    start = model.init(key, data)
    if not isinstance(start.q, LocationScale):
        names = "'full_rank', 'mean_field', 'blocks'"
        raise ValueError(f"pathfinder is for the families {names}; got {model.family!r}")
    q, finite = _follow_path(model, data, start, jnp.asarray(max_iter))
    if is_concrete(finite) and not np.asarray(finite).all():
        point = dataclasses.replace(start.q, scale=jnp.zeros_like(start.q.scale))
        model.refuse_not_finite(dataclasses.replace(start, q=point), data)
    return dataclasses.replace(start, q=q)


@jit
def _follow_path(
    model: BlackBox, data: Data, start: Approximation[LocationScale], max_iter: Int[Array, ""]
) -> tuple[LocationScale, Bool[Array, ""]]:
    """Return the best normal of the path, and whether the density is finite where it starts."""
    u, d = start.q.location, start.q.noise_size
    loss = lambda u: -model.log_joint(u, data)

    def note_best(path: _Path) -> _Path:
        """Replace the best normal by that of the path's point, if its bound is higher."""
        q = _nearest_normal(start.q, path.u - _solve(path.hessian, path.gradient), path.hessian)
        bound = model.bound(dataclasses.replace(start, q=q), data)
        better = (bound > path.bound) & jnp.isfinite(bound)
        q, bound = choose(better, (q, bound), (path.q, path.bound))
        return path._replace(q=q, bound=bound)

    def body(path: _Path) -> _Path:
        away = -_solve(path.hessian, path.gradient)
        step, search = _SEARCH.update(
            away, path.search, path.u, value=path.loss, grad=path.gradient, value_fn=loss
        )
        y = search.grad - path.gradient
        hessian = _update_hessian(path.hessian, step, y, path.n_steps == 0)
        promise = 0.5 * search.grad @ _solve(hessian, search.grad)
        going = (promise > rounding_error(jnp.abs(search.value))) & (step != 0).any()  # false of a NaN
        return note_best(
            path._replace(
                u=path.u + step,
                loss=search.value,
                gradient=search.grad,
                hessian=hessian,
                search=search,
                n_steps=path.n_steps + 1,
                going=going,
            )
        )

    value, gradient = jax.value_and_grad(loss)(u)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    size = jnp.maximum(jnp.linalg.norm(gradient), 1)  # for a first step of length 1 at most
    hessian = size * jnp.eye(d, dtype=u.dtype)
    nothing = jnp.asarray(-jnp.inf, u.dtype)
    path = _Path(u, value, gradient, hessian, _SEARCH.init(u), start.q, nothing, jnp.asarray(0), finite)
    path = lax.while_loop(lambda path: path.going & (path.n_steps < max_iter), body, path)
    return path.q, finite


def _solve(hessian: Float[Array, "d d"], x: Float[Array, " d"]) -> Float[Array, " d"]:
    """Return B^-1 x."""
    return solve_pull(hessian, x[:, None])[1][:, 0]


def _update_hessian(
    hessian: Float[Array, "d d"], s: Float[Array, " d"], y: Float[Array, " d"], first: Bool[Array, ""]
) -> Float[Array, "d d"]:
    """Return B after a BFGS update (Nocedal & Wright 2006, eq. 6.19), so that B s = y.

    The `first` update also sets the size of B. Where the loss did not curve upwards, s'y <= 0, B is kept.
    """
    curvature, length = s @ y, y @ y
    fine = curvature > jnp.finfo(y.dtype).eps * length
    curvature = jnp.where(fine, curvature, 1)
    eye = jnp.eye(len(s), dtype=s.dtype)
    sized = jnp.where(first, length / curvature * eye, hessian)
    b = sized @ s
    moved = sized - outer(b, b) / jnp.where(fine, s @ b, 1) + outer(y, y) / curvature
    return jnp.where(fine, moved, hessian)


def _nearest_normal(
    like: LocationScale, mean: Float[Array, " d"], precision: Float[Array, "d d"]
) -> LocationScale:
    """Return the member of the family of `like` that is best for a normal target, by one exact whole step."""
    kind, eye = like.kind, jnp.eye(len(mean), dtype=mean.dtype)
    scale = kind.start(len(mean), mean.dtype)
    z = jnp.concatenate([eye, -eye]) * len(mean) ** 0.5  # of mean 0 and covariance I
    slope = kind.slope(scale, z, -z @ precision)
    return LocationScale(*kind.move(mean, scale, slope, jnp.ones_like(mean[0])), kind)
