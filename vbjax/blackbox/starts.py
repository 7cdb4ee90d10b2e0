"""Starts of families: functions of a key, the lengths of all latents' vectors and a dtype.

Each returns the member of a family from which a fit starts. For users, who choose a family by `structured`,
`low_rank` or `mixture`, and for `BlackBox`; imports families.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from vbjax.blackbox.contracts import Distribution, FamilyStart, Reparameterized
from vbjax.blackbox.families import Hybrid, LocationScale, LowRank, Mixture
from vbjax.blackbox.scales import Diagonal, Full
from vbjax.blackbox.structured.sparse_precision import SparsePrecision
from vbjax.blackbox.structured.sparsity import Sparsity
from vbjax.blackbox.supports import Category, Support
from vbjax.numerics.inputs import as_array, read_count
from vbjax.numerics.stored import stored

START_SD = 0.1
_NORMALS = ("full_rank", "mean_field", "blocks")


@dataclasses.dataclass(frozen=True)
class NormalStart:
    """Start of the normals "full_rank", "mean_field" or "blocks": narrow, about a standard normal point."""

    name: str

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> LocationScale:
        d = sum(sizes)
        kind = Diagonal() if self.name == "mean_field" else Full(sizes if self.name == "blocks" else None)
        return LocationScale(jax.random.normal(key, (d,), dtype), START_SD * kind.start(d, dtype), kind)


@stored
@dataclasses.dataclass(frozen=True)
class StructuredStart:
    """Start of the normals whose precision is sparse: narrow, about a standard normal point."""

    sparsity: Sparsity

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> LocationScale:
        kind, d = SparsePrecision(self.sparsity), sum(sizes)
        if d != self.sparsity.size:
            raise ValueError(f"sparsity must be of {d} numbers; got that of {self.sparsity.size}")
        return LocationScale(
            jax.random.normal(key, (d,), dtype), kind.start(d, dtype).scaled(1 / START_SD), kind
        )


@stored
@dataclasses.dataclass(frozen=True)
class LowRankStart:
    """Start of the low-rank normals: narrow, about a standard normal point."""

    rank: int

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> LowRank:
        d, (place, tilt) = sum(sizes), jax.random.split(key)
        loadings = jax.random.normal(tilt, (d, self.rank), dtype) / d**0.5
        return LowRank(jax.random.normal(place, (d,), dtype), jnp.full(d, jnp.log(START_SD), dtype), loadings)


@stored
@dataclasses.dataclass(frozen=True)
class MixtureStart:
    """Start of the mixtures: components that start as fits of their own would, with equal weights."""

    n_components: int
    of: str | FamilyStart

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> Mixture:
        start = start_of(self.of)
        keys = jax.random.split(key, self.n_components)
        components = cast(Reparameterized, jax.vmap(lambda k: start(k, sizes, dtype))(keys))
        return Mixture(jnp.zeros(self.n_components, dtype), components)


def start_of(family: str | FamilyStart, name: str = "family") -> FamilyStart:
    """Return the function that starts a family, which is given by its name or by that function itself.

    Errors call the argument by `name`.

    Raises:
        ValueError: an unknown family.
    """
    if isinstance(family, str) and family in _NORMALS:
        return NormalStart(family)
    if callable(family) and not isinstance(family, type):
        return family
    names = ", ".join(_NORMALS) + (", structured" if name == "family" else "")
    raise ValueError(f"{name} must be one of {names}, or a function that starts one; got {family!r}")


def start_of_latents(
    family: str | FamilyStart, supports: list[Support], key: Array, dtype: DTypeLike
) -> Distribution:
    """Return the start of q over all latents: `family`, inside a `Hybrid` where some are discrete."""
    ends = np.cumsum([support.size for support in supports])
    groups: list[tuple[int, ...]] = [()]
    sizes, logits = [], []
    for support, end in zip(supports, ends, strict=True):
        columns = tuple(range(int(end) - support.size, int(end)))
        if isinstance(support, Category):
            logits.append(jnp.zeros((support.size, support.n), dtype))
            groups.append(columns)
        else:
            sizes.append(support.size)
            groups[0] += columns
    continuous = start_of(family)(key, tuple(sizes), dtype) if sizes else None
    if continuous is None or logits:
        return Hybrid(continuous, tuple(logits), tuple(groups))
    return continuous


def structured(sparsity: ArrayLike | scipy.sparse.sparray | scipy.sparse.spmatrix) -> StructuredStart:
    """Return the family of normals whose precision matrix has a given sparsity.

    family="structured" finds it by itself, where the data are known: not inside `jit` and `vmap`.

    Args:
        sparsity: (d, d), dense or of `scipy.sparse`; other than zero where two of the d unconstrained numbers
            of the latents, in the order of the supports, may interact in the log density. It is made
            symmetric.

    Raises:
        ValueError: what is no square matrix of numbers.

    >>> import jax, numpy as np, vbjax as vb
    >>> walk = lambda x: -0.5 * (x[0] ** 2 + ((x[1:] - x[:-1]) ** 2).sum() + ((x - 1) ** 2).sum())
    >>> chain = np.eye(50) + np.eye(50, k=1)
    >>> model = vb.BlackBox(walk, vb.real(50), family=vb.blackbox.structured(chain))
    >>> fit = vb.fit(model, key=jax.random.key(0))
    >>> print(f"{fit.params.mean[0]:.4f} +- {fit.params.sd[0]:.4f}")
    0.6180 +- 0.6180
    """
    pattern: Any = sparsity if scipy.sparse.issparse(sparsity) else np.asarray(as_array(sparsity, "sparsity"))
    if pattern.ndim != 2 or pattern.shape[0] != pattern.shape[1] or pattern.shape[0] < 1:
        raise ValueError(f"sparsity must be a square matrix, (d, d); got shape {pattern.shape}")
    if not np.isfinite(pattern.sum()):
        raise ValueError("sparsity must be finite")
    pattern = scipy.sparse.csr_array(pattern)
    return StructuredStart(Sparsity.of(pattern))


def low_rank(rank: int) -> LowRankStart:
    """Return the family of normals whose covariance is diagonal plus low-rank: for many latents.

    Raises:
        ValueError: rank < 1.

    >>> import jax, vbjax as vb
    >>> q = vb.blackbox.low_rank(2)(jax.random.key(0), (10,), "float32")
    >>> q.loadings.shape  # of ten latents
    (10, 2)
    """
    return LowRankStart(read_count(rank, "rank"))


def mixture(n_components: int, of: str | FamilyStart = "mean_field") -> MixtureStart:
    """Return the family of mixtures of n members of another family: for posteriors with several modes.

    Raises:
        ValueError: n_components < 1; a family that is none.

    >>> import jax, vbjax as vb
    >>> q = vb.blackbox.mixture(4)(jax.random.key(0), (10,), "float32")
    >>> print(q.weights, q.components.location.shape)  # of ten latents
    [0.25 0.25 0.25 0.25] (4, 10)
    """
    start_of(of, "of")
    return MixtureStart(read_count(n_components, "n_components"), of)
