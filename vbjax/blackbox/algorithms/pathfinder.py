"""Where to start a fit: the best normal along a quasi-Newton path to the mode of the log density.

Pathfinder (Zhang, Carpenter, Gelman & Vehtari 2022). For users, before `fit`; imports core and the rest of
this room.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from vbjax.blackbox.approximation import Approximation
from vbjax.blackbox.black_box import BlackBox
from vbjax.blackbox.families import LocationScale
from vbjax.core.rows import rounding_error
from vbjax.inference.fit import resolved
from vbjax.numerics.inputs import is_concrete, read_count, read_key
from vbjax.numerics.linalg import outer, solve_pull

# so near to exact that a path to a normal target takes about as many steps as there are dimensions
_SEARCH = optax.scale_by_zoom_linesearch(30, curv_rtol=0.01, initial_guess_strategy="one")


class _Path(NamedTuple):
    """A point of it with the loss -log p, gradient and estimated Hessian there; the best normal so far."""

    u: Array
    loss: Array
    gradient: Array
    hessian: Array
    search: Any
    q: LocationScale
    bound: Array
    n_steps: Array
    going: Array


def pathfinder(model: BlackBox, data: Any = None, *, key: Array, max_iter: int = 200) -> Approximation:
    """Parameters to start a fit from, `vb.fit(model, data, key=key, params=...)`: near it, in one quick path.

    BFGS climbs log p(latents, data) + log |Jacobian| from where a fit with this key would start. At every
    point u of the path, with gradient g and estimated Hessian -B of log p, stands the normal of mean
    u + B^-1 g and covariance B^-1, or the family's nearest to it, which keeps the mean and the diagonal
    ("mean_field") or the blocks ("blocks") of the precision B. The one with the highest bound on the draws of
    the fit is returned. B is a dense matrix, d x d. Works inside `jit` and `vmap`.

    Args:
        model: a `BlackBox` of family "full_rank", "mean_field" or "blocks".
        data: as `fit` takes them.
        key: `jax.random.key(...)`.
        max_iter: steps of the path at most.

    Raises:
        ValueError: what `fit` refuses; another family; a density or gradient that is not finite where the
            path starts (inside `jit` the random start is returned then).

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
    q, finite = _followed(model, data, start, jnp.asarray(max_iter))
    if is_concrete(finite) and not np.asarray(finite).all():
        point = dataclasses.replace(start.q, scale=jnp.zeros_like(start.q.scale))
        model.refuse_not_finite(dataclasses.replace(start, q=point), data)
    return dataclasses.replace(start, q=q)


@jax.jit
def _followed(
    model: BlackBox, data: Any, start: Approximation, max_iter: Array
) -> tuple[LocationScale, Array]:
    """The best normal of the path, and whether its start is finite."""
    u, d = start.q.location, start.q.noise_size
    loss = lambda u: -model.log_joint(u, data)

    def best(path: _Path) -> _Path:
        """With the normal of its point, if that is better than those before."""
        q = _nearest(start.q, path.u - _solved(path.hessian, path.gradient), path.hessian)
        bound = model.bound(dataclasses.replace(start, q=q), data)
        better = (bound > path.bound) & jnp.isfinite(bound)
        keep = lambda new, old: jnp.where(better, new, old)
        return path._replace(q=jax.tree.map(keep, q, path.q), bound=keep(bound, path.bound))

    def body(path: _Path) -> _Path:
        away = -_solved(path.hessian, path.gradient)
        step, search = _SEARCH.update(
            away, path.search, path.u, value=path.loss, grad=path.gradient, value_fn=loss
        )
        y = search.grad - path.gradient
        hessian = _updated(path.hessian, step, y, path.n_steps == 0)
        promise = 0.5 * search.grad @ _solved(hessian, search.grad)
        going = (promise > rounding_error(jnp.abs(search.value))) & (step != 0).any()  # false of a NaN
        return best(
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


def _solved(hessian: Array, x: Array) -> Array:
    """B^-1 x."""
    return solve_pull(hessian, x[:, None])[1][:, 0]


def _updated(hessian: Array, s: Array, y: Array, first: Array) -> Array:
    """BFGS: B with B s = y; as it was, where the path did not curve upwards. The first one sets its size."""
    curvature, length = s @ y, y @ y
    fine = curvature > jnp.finfo(y.dtype).eps * length
    curvature = jnp.where(fine, curvature, 1)
    eye = jnp.eye(len(s), dtype=s.dtype)
    sized = jnp.where(first, length / curvature * eye, hessian)
    b = sized @ s
    moved = sized - outer(b, b) / jnp.where(fine, s @ b, 1) + outer(y, y) / curvature
    return jnp.where(fine, moved, hessian)


def _nearest(like: LocationScale, mean: Array, precision: Array) -> LocationScale:
    """Of the family of `like`, the best for a normal target: a whole natural-gradient step, exact."""
    kind, eye = like.kind, jnp.eye(len(mean), dtype=mean.dtype)
    scale = kind.start(len(mean), mean.dtype)
    z = jnp.concatenate([eye, -eye]) * len(mean) ** 0.5  # of mean 0 and covariance I
    slope = kind.slope(scale, z, -z @ precision)
    return LocationScale(*kind.move(mean, scale, slope, jnp.ones_like(mean[0])), kind)
