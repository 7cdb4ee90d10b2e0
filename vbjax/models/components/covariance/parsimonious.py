"""The fourteen covariance models of Celeux & Govaert: what covariances lambda_k D_k A_k D_k' may share.

lambda_k is the volume |Sigma_k|^(1/d), A_k the shape, diagonal with determinant 1, and D_k the orientation.
A name of three letters says of volume, shape and orientation in turn whether they are equal (E) or vary (V)
over components, or are those of a sphere or of the axes (I); "full" is VVV, "tied" EEE, "diag" VVI,
"spherical" VII.

Locations, and what a pass over the rows adds up, are those of the widest structure of the same layout. The
models differ in one function each, the maximiser of

    -1/2 sum_k n_k (log |Sigma_k| + tr(S_k Sigma_k^-1)),   S_k = W_k / n_k,

over the covariances that the model has, where W_k is the scatter of component k and n_k its weight. Those
without a closed form begin at the covariances before the update and climb from there, so that EM stays
monotone. All obey a floor, below which no variance falls in any direction. `Gaussian` imports this file.

References:
    Celeux & Govaert (1995), Gaussian parsimonious clustering models, Pattern Recognition 28, section 3;
    Browne & McNicholas (2014), Estimating common principal components in high dimensions, Advances in Data
    Analysis and Classification 8, for EVE and VVE; Scrucca et al. (2016), mclust 5, table 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from vbjax.models.components.covariance.structure import below, clip_eigenvalues
from vbjax.numerics.jacobi import eigenvectors, turn_axes
from vbjax.numerics.linalg import cholesky, inverse_and_logdet, logdet_from_cholesky, symmetrize, transpose

ALIASES = dict(full="VVV", tied="EEE", diag="VVI", spherical="VII")

_ROUNDS = 4  # turns of volumes and shape in one update
_SWEEPS = 2  # of rotations of common axes in one update


class Update(NamedTuple):
    """Moments that an update is made from. Covariances are (k, d, d), (k, d) or (k,), by the structure.

    Attributes:
        own: S_k, of each component alone.
        share: n_k / n, (k,); (k, d) where features are independent and entries may be missing.
        before: the covariances before the update.
        floor: (d,), the smallest variances allowed.
    """

    own: Array
    share: Array
    before: Array
    floor: Array


def n_covariance_parameters(name: str, k: int, d: int) -> int:
    """Return the number of free parameters of k covariances; `nVarParams` of mclust."""
    number = dict(I=0, E=1, V=k)
    volume, shape, orientation = (number[letter] for letter in ALIASES.get(name, name))
    return volume + (d - 1) * shape + d * (d - 1) // 2 * orientation


# -- parts of several models -----------------------------------------------------------------------------


def _mean(share: Array, x: Array) -> Array:
    """Return the mean of what components have."""
    return jnp.tensordot(share, x, 1)


def _variances(matrices: Float[Array, "k d d"], axes: Float[Array, "... d d"]) -> Float[Array, "k d"]:
    """Return the variances along axes, diag(D' S_k D)."""
    return jnp.einsum("...ij,...ik,...kj->...j", axes, matrices, axes)


def _compose(axes: Array, variances: Array) -> Float[Array, "*k d d"]:
    """Return covariances of axes (d, d) and variances along them (d,), each for one or all components."""
    return symmetrize((axes * variances[..., None, :]) @ transpose(axes))


def _volumes(matrices: Float[Array, "k d d"]) -> Float[Array, " k"]:
    """Return |Sigma_k|^(1/d)."""
    return jnp.exp(logdet_from_cholesky(cholesky(matrices)) / matrices.shape[-1])


def _volumes_and_shape(
    own: Float[Array, "k d"], share: Array, volume: Float[Array, " k"], floor: Array
) -> Float[Array, "k d"]:
    """Return lambda_k a_j, from variances along axes that stay: [lambda_k B] of Celeux & Govaert (1995).

    a_j = sum_k n_k s_kj / lambda_k / n and lambda_k = sum_j s_kj / a_j / d in turn, each the maximiser given
    the other, under lambda_k a_j >= floor_j.
    """

    def turn(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        volume = carry[0]
        shape = jnp.maximum(_mean(share / volume, own), floor / volume.min())
        return jnp.maximum((own / shape).mean(1), (floor / shape).max()), shape

    volume, shape = lax.fori_loop(0, _ROUNDS, turn, (volume, jnp.ones_like(own[0])))
    return volume[:, None] * shape


def _equal_volume(own: Float[Array, "k d"], share: Array) -> Float[Array, "k d"]:
    """Return lambda s_kj / |S_k|^(1/d) with lambda = sum_k n_k |S_k|^(1/d) / n: [lambda B_k]."""
    volume = jnp.exp(jnp.log(own).mean(1))
    return own * (_mean(share, volume) / volume)[:, None]


def _completed(update: Update) -> Update:
    """Return an update in which every column has as many rows: those missing are as they were before.

    Were the missing entries latents of EM, these would be their expected squares; no objective falls.
    """
    rows = update.share.max(1)
    there = update.share / jnp.where(rows > 0, rows, 1)[:, None]
    own = there * update.own + (1 - there) * update.before
    return update._replace(own=own, share=rows / rows.sum())


def _common_axes(matrices: Float[Array, "k d d"]) -> Float[Array, "d d"]:
    """Return the axes that matrices have in common: those of a sum of them, its weights of no pattern."""
    k = len(matrices)
    weight = jnp.asarray(1 + np.modf(np.arange(k) * np.sqrt(5) / 2)[0], matrices.dtype)
    return eigenvectors(_mean(weight / jnp.trace(matrices, axis1=1, axis2=2), matrices))[1]


def _common_orientation(update: Update, along: Callable[[Array], Array]) -> Float[Array, "k d d"]:
    """Return D L_k D', where `along` gives the best L_k of variances along given axes: EVE and VVE.

    The axes turn, the L_k as they are, so that sum_k n_k tr(S_k D L_k^-1 D') falls, the objective of Browne &
    McNicholas (2014), pair after pair of axes by its best rotation (Flury & Gautschi 1986).
    """
    axes = _common_axes(update.before)
    matrices = transpose(axes) @ update.own @ axes
    for _ in range(_SWEEPS):
        variances = along(jnp.diagonal(matrices, axis1=1, axis2=2))
        matrices, axes = turn_axes(matrices, axes, update.share[:, None] / variances)
    return _compose(axes, along(jnp.diagonal(matrices, axis1=1, axis2=2)))


def _unless_worse(update: Update, new: Array) -> Array:
    """Return new covariances of one volume; where the floor holds some up, those before if they are better.

    `new` maximises the objective of components that were lifted to the floor, not of those that there are.
    """
    own, share, before, floor = update

    def loss(covariance: Array) -> Array:
        if covariance.ndim == 2:
            return share @ (jnp.log(covariance) + own / covariance).sum(1)
        inverse, logdet = inverse_and_logdet(covariance)
        return share @ ((own * inverse).sum((1, 2)) - logdet)

    held = (own < floor).any() if own.ndim == 2 else below(own, 0.5 * floor)
    return jnp.where(held & (loss(before) < loss(new)), before, new)


# -- the maximisers --------------------------------------------------------------------------------------


def _pooled(update: Update) -> Array:
    """Maximise EII [lambda I] and EEI [lambda A]: one variance for all components, or one for each column."""
    share = update.share / update.share.sum(0)
    least = update.floor if update.own.ndim == 2 else update.floor.mean()
    return jnp.broadcast_to(jnp.maximum((share * update.own).sum(0), least), update.own.shape)


def _vei(update: Update) -> Array:
    """Maximise VEI [lambda_k A]."""
    own, share, before, floor = _completed(update)
    return _volumes_and_shape(own, share, jnp.exp(jnp.log(before).mean(1)), floor)


def _evi(update: Update) -> Array:
    """Maximise EVI [lambda A_k]."""
    update = _completed(update)
    own = jnp.maximum(update.own, update.floor)
    return _unless_worse(update, _equal_volume(own, update.share))


def _vee(update: Update) -> Array:
    """Maximise VEE [lambda_k D A D']: C = sum_k W_k / lambda_k / n, lambda_k = tr(S_k C^-1) / d in turn."""
    own, share, before, floor = update
    unit = jnp.sqrt(floor)[:, None] * jnp.sqrt(floor)
    own = own / unit

    def turn(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        volume = carry[0]
        values, axes = eigenvectors(_mean(share / volume, own))
        values = jnp.maximum(values, 1 / volume.min())
        inside = (_variances(own, axes) / values).mean(1)
        return jnp.maximum(inside, 1 / values[-1]), _compose(axes, values)

    volume, matrix = lax.fori_loop(0, _ROUNDS, turn, (_volumes(before / unit), own[0]))
    return volume[:, None, None] * matrix * unit


def _eve(update: Update) -> Array:
    """Maximise EVE [lambda D A_k D']."""
    along = lambda s: _equal_volume(jnp.maximum(s, update.floor.min()), update.share)
    return _unless_worse(update, _common_orientation(update, along))


def _vve(update: Update) -> Array:
    """Maximise VVE [lambda_k D A_k D']."""
    return _common_orientation(update, lambda s: jnp.maximum(s, update.floor.min()))


def _eev(update: Update) -> Array:
    """Maximise EEV [lambda D_k A D_k']: each its own axes, and the variances along them the mean of all."""
    values, axes = eigenvectors(update.own)
    return _compose(axes, jnp.maximum(_mean(update.share, values), update.floor.min())[None])


def _vev(update: Update) -> Array:
    """Maximise VEV [lambda_k D_k A D_k']."""
    values, axes = eigenvectors(update.own)
    least = jnp.full_like(update.floor, update.floor.min())
    return _compose(axes, _volumes_and_shape(values, update.share, _volumes(update.before), least))


def _evv(update: Update) -> Array:
    """Maximise EVV [lambda D_k A_k D_k'] = [lambda C_k]."""
    own = clip_eigenvalues(update.own, update.floor)
    volume = _volumes(own)
    return _unless_worse(update, own * (_mean(update.share, volume) / volume)[:, None, None])


MAXIMISERS: dict[str, Callable[[Update], Array]] = dict(
    EII=_pooled, EEI=_pooled, VEI=_vei, EVI=_evi, VEE=_vee, EVE=_eve, VVE=_vve, EEV=_eev, VEV=_vev, EVV=_evv
)
