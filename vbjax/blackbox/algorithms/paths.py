"""Multi-path Pathfinder (Zhang et al. 2022): quasi-Newton paths to the modes, and the normals along them.

BFGS climbs log p from several points at once. At every point u of a path, with gradient g and estimated
Hessian -B of log p, stands the normal of mean u + B^-1 g and covariance B^-1, or the family's nearest to it,
which keeps the mean and the diagonal ("mean_field") or the blocks ("blocks") of the precision B. Each path
keeps the normal of the highest bound. For `BlackBox`, and `pathfinder`; imports families and scales.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from vbjax.blackbox.families import LocationScale
from vbjax.blackbox.scales import whitener
from vbjax.numerics.linalg import outer, quadratic_form, transpose
from vbjax.numerics.stored import stored
from vbjax.numerics.trees import choose

_WIDEST = 4.0  # sd of the starting points of the last path
_TOLERANCE = 1e-3  # nats that a step must promise: an ascent follows
_SLOPE = 1e-4  # share of the promised gain that a step must bring (Armijo)
_POINTS = 9  # at which the density is looked at between two modes
_VALLEY = 0.1  # nats by which it is lower there than at both
_DRAWS = 8  # for a bound; twice as many with their mirror images


@stored
class Paths(NamedTuple):
    """Ends of all paths, in unconstrained space.

    Attributes:
        location: the last point of each path, (p, d).
        bound: bound of its best normal, on a few draws; -inf of a path without a finite one.
        alike: whether it ended at the mode of the best path: to within 4 + sqrt(d) sds there, or with no
            valley of the density between.
        ended: whether it came to its end, at a mode.
    """

    location: Float[Array, "p d"]
    bound: Float[Array, " p"]
    alike: Bool[Array, " p"]
    ended: Bool[Array, " p"]

    @property
    def elsewhere(self) -> Bool[Array, " p"]:
        """Whether a path ended at another mode."""
        return self.ended & ~self.alike & jnp.isfinite(self.bound)

    @property
    def gap(self) -> Float[Array, ""]:
        """Nats by which the best of the other modes lies below; inf where none was met."""
        return self.bound.max() - jnp.where(self.elsewhere, self.bound, -jnp.inf).max()


class _Path(NamedTuple):
    """Point u of the path with the loss -log p, its gradient and Hessian B there; the best normal so far.

    Attributes:
        rho: length of the next step, 1 for a whole one.
        q, bound: the best normal, and its bound.
        n_steps: number of steps that led on.
        going: whether the last step still promised a gain.
    """

    u: Float[Array, " d"]
    loss: Float[Array, ""]
    gradient: Float[Array, " d"]
    hessian: Float[Array, "d d"]
    rho: Float[Array, ""]
    q: LocationScale
    bound: Float[Array, ""]
    n_steps: Int[Array, ""]
    going: Bool[Array, ""]


def overdispersed(key: Array, like: LocationScale, n: int) -> Float[Array, "n d"]:
    """Draw points to start from: the first is that of `like`, the others are wider and wider."""
    d, dtype = len(like.location), like.location.dtype
    sd = jnp.geomspace(1, _WIDEST, max(n - 1, 1), dtype=dtype)
    return jnp.concatenate([like.location[None], sd[:, None] * jax.random.normal(key, (n - 1, d), dtype)])


def follow_paths(
    log_p: Callable[[Float[Array, " d"]], Float[Array, ""]],
    like: LocationScale,
    z: Float[Array, "m d"],
    points: Float[Array, "p d"],
    max_iter: int | Array,
) -> tuple[LocationScale, Paths]:
    """Follow a path from every point; return the best normal of all, `like` where none is finite.

    Args:
        log_p: the log density of unconstrained u.
        like: a member of the family.
        z: the standard normals of a fit, a half and its mirror image, some of which serve for bounds.
        points: where the paths start.
        max_iter: the largest number of steps of a path.
    """
    half, (n, d) = len(z) // 2, points.shape
    runaway = float(jnp.finfo(points.dtype).eps) ** -2  # no bound of any data is as high
    z = jnp.concatenate([z[:_DRAWS], z[half : half + _DRAWS]])
    score = jax.value_and_grad(lambda u: -log_p(u))
    bound_of = lambda q: jax.vmap(log_p)(q.place(z)[0]).mean() + q.entropy()

    def begin(u: Float[Array, " d"]) -> _Path:
        loss, gradient = score(u)
        going = jnp.isfinite(loss) & jnp.isfinite(gradient).all()
        size = jnp.maximum(jnp.linalg.norm(gradient), 1)  # for a first step of length 1 at most
        nothing, one = -jnp.full_like(loss, jnp.inf), jnp.ones_like(loss)
        hessian = size * jnp.eye(d, dtype=u.dtype)
        return _Path(u, loss, gradient, hessian, one, like, nothing, jnp.asarray(0, jnp.int32), going)

    def step(path: _Path) -> _Path:
        root = whitener(path.hessian)
        away = -root @ (transpose(root) @ path.gradient)
        q = LocationScale(path.u + away, like.kind.part(path.hessian, root), like.kind)
        bound = bound_of(q)
        best = (bound > path.bound) & (bound < runaway)
        q, bound = choose(best, (q, bound), (path.q, path.bound))

        trial, slope = path.u + path.rho * away, path.gradient @ away
        loss, gradient = score(trial)
        kept = loss <= path.loss + _SLOPE * path.rho * slope
        kept &= jnp.isfinite(loss) & jnp.isfinite(gradient).all()
        moved = trial - path.u, gradient - path.gradient
        hessian = _update_hessian(path.hessian, *moved, path.n_steps == 0)
        on = (trial, loss, gradient, hessian, jnp.ones_like(loss))
        stay = (path.u, path.loss, path.gradient, path.hessian, path.rho / 4)
        going = (-0.5 * slope > _TOLERANCE) & (path.rho > jnp.finfo(trial.dtype).eps)
        n_steps = path.n_steps + (kept & (trial != path.u).any()).astype(jnp.int32)
        return _Path(*choose(kept, on, stay), q, bound, n_steps, going)

    def body(carry: tuple[_Path, Array]) -> tuple[_Path, Array]:
        paths, count = carry
        moved = jax.vmap(lambda path: choose(path.going, step(path), path))(paths)
        return moved, count + 1

    # the last quarter of the paths is not waited for
    unfinished = lambda carry: (carry[0].going.sum() > n // 4) & (carry[1] < max_iter)
    paths = jax.vmap(begin)(points)
    paths, _ = lax.while_loop(unfinished, body, (paths, jnp.zeros_like(max_iter, jnp.int32)))
    paths = paths._replace(bound=jnp.where(paths.loss < -runaway, -jnp.inf, paths.bound))
    best = jnp.argmax(paths.bound)
    away = paths.u - paths.u[best]
    alike = quadratic_form(paths.hessian[best], away) < (4 + d**0.5) ** 2
    # B is an estimate: where no valley lies between, there is one mode
    along = paths.u[best] + jnp.linspace(0, 1, _POINTS, dtype=paths.u.dtype)[:, None, None] * away
    between = jax.vmap(jax.vmap(log_p))(along)
    alike |= between.min(0) > jnp.minimum(between[0], between[-1]) - _VALLEY
    alike |= paths.n_steps[best] == 0  # there is no curvature to tell modes apart
    ended = ~paths.going & (paths.rho == 1)
    return jax.tree.map(lambda x: x[best], paths.q), Paths(paths.u, paths.bound, alike, ended)


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
