"""Normalising flows of flowjax as a family of q; the package is optional, and imported where it is used.

For users, by `flow`, and for `BlackBox`; imports families.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from vbjax.blackbox.contracts import Points
from vbjax.blackbox.families import LocationScale, log_normal
from vbjax.blackbox.starts import NormalStart
from vbjax.families.base import pytree, static
from vbjax.numerics.extras import import_extra
from vbjax.numerics.stored import stored

Bijection: TypeAlias = Any  # a bijection of flowjax


class _Plan(NamedTuple):
    """A bijection as it was built.

    Attributes:
        leaves, tree: all that it holds; functions among them may hold arrays.
        fitted: numbers of the leaves that are fitted.
    """

    leaves: list[Any]
    tree: Any
    fitted: list[int]


@pytree
class Flow:
    """Normal distribution whose standard normals pass through a flow f first: u = m + L f(z).

    Attributes:
        normal: the normal with location m and scale L, which a fit leaves as they are.
        arrays: those of f that are fitted.
        start: what builds f, and holds the rest of it.
    """

    normal: LocationScale
    arrays: tuple[Array, ...]
    start: FlowStart = static()

    needs_fresh_draws = True

    @property
    def noise_size(self) -> int:
        """Number of standard normals that a draw is made from."""
        return self.normal.noise_size

    def place(self, z: Float[Array, "n noise_size"]) -> Points:
        """Return one draw for each row of z, all with equal weights."""
        with jax.numpy_dtype_promotion("standard"):  # flowjax mixes dtypes
            bent = jax.vmap(self._bijection().transform)(z)
        return self.normal.place(bent.astype(z.dtype))

    def sample(self, key: Array, n: int) -> Float[Array, "n d"]:
        """Draw n independent vectors."""
        return self.place(jax.random.normal(key, (n, self.noise_size), self.normal.location.dtype))[0]

    def log_prob(self, u: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Return log q at every row of u."""
        m, scale, kind = self.normal.location, self.normal.scale, self.normal.kind
        bent = kind.undo(scale, u - m)
        with jax.numpy_dtype_promotion("standard"):
            z, log_det = jax.vmap(self._bijection().inverse_and_log_det)(bent)
        return log_normal(z.astype(u.dtype), kind.log_det(scale)) + log_det.astype(u.dtype)

    def free(self) -> tuple[Array, ...]:
        """Return the arrays of the flow that are fitted."""
        return self.arrays

    def at(self, free: tuple[Array, ...]) -> Flow:
        """Return the flow of the same build with other arrays."""
        return dataclasses.replace(self, arrays=free)

    def about(self, normal: LocationScale) -> Flow:
        """Return this flow about another normal."""
        return dataclasses.replace(self, normal=normal)

    def _bijection(self) -> Bijection:
        plan = _plan(self.start, self.noise_size, str(self.normal.location.dtype))
        leaves = list(plan.leaves)
        for number, array in zip(plan.fitted, self.arrays, strict=True):
            leaves[number] = array
        return import_extra("flow", "paramax").unwrap(jax.tree.unflatten(plan.tree, leaves))


@stored
@dataclasses.dataclass(frozen=True)
class FlowStart:
    """Start of the flows of one build, about a narrow normal at a standard normal point."""

    build: Callable[..., Any]
    options: tuple[tuple[str, Hashable], ...]

    def __call__(self, key: Array, sizes: tuple[int, ...], dtype: DTypeLike) -> Flow:
        plan = _plan(self, sum(sizes), str(jnp.dtype(dtype)))
        arrays = tuple(jnp.asarray(plan.leaves[number], dtype) for number in plan.fitted)
        return Flow(NormalStart("full_rank")(key, sizes, dtype), arrays, self)


@functools.lru_cache(maxsize=64)
def _plan(start: FlowStart, size: int, dtype: str) -> _Plan:
    """Build a bijection, outside of any program that is traced; all flows of one build have it in common."""
    distributions = import_extra("flow", "flowjax.distributions")
    equinox, wrappers = import_extra("flow", "equinox"), import_extra("flow", "paramax")
    with (
        jax.core.eval_context(),
        jax.enable_x64(dtype == "float64"),
        jax.numpy_dtype_promotion("standard"),  # flowjax mixes dtypes
    ):
        base = distributions.StandardNormal((size,))
        made = start.build(jax.random.key(0), base_dist=base, **dict(start.options))
        if not isinstance(made, distributions.AbstractTransformed):
            raise ValueError(f"family must build a flow of base_dist; got {type(made).__name__}")
        made = made.merge_transforms()
        standard = isinstance(made.base_dist, distributions.StandardNormal)
        if not standard or made.shape != (size,) or made.cond_shape is not None:
            raise ValueError(
                f"family must build a flow of base_dist, {size} standard normals, without conditions"
            )
        is_frozen = lambda x: isinstance(x, wrappers.NonTrainable)
        marks = jax.tree.map(
            lambda x: jax.tree.map(lambda _: False, x) if is_frozen(x) else equinox.is_inexact_array(x),
            made.bijection,
            is_leaf=is_frozen,
        )
    leaves, tree = jax.tree.flatten(made.bijection)
    return _Plan(leaves, tree, [i for i, mark in enumerate(jax.tree.leaves(marks)) if mark])


def flow(build: Callable[..., Any], **options: Hashable) -> FlowStart:
    """Return the family of normalising flows that a function of flowjax builds: u = m + L f(z), z normal.

    m and L are those of the best normal of the model's paths, about which the flow f is fitted, by
    stochastic gradients (`blackbox.StochasticAscent`, with Adam at a rate of 0.01). Each step draws from q
    and takes the density of what it drew, so that flows with both directions in one pass, such as
    `coupling_flow`, are the fastest; an autoregressive flow takes d passes in one of them.

    Args:
        build: a function of `flowjax.flows`, or any function `build(key, *, base_dist, **options)` that
            returns a flowjax distribution, `base_dist` carried by bijections without conditions. It is called
            with one key for all fits, and outside of compiled programs.
        options: its other arguments by name, which must be hashable.

    Raises:
        ImportError: flowjax is not installed.
        ValueError: at once, for a build that is no function and options without a hash; at `fit`, for a
            build that fails or returns something else.

    References:
        Rezende & Mohamed (2015), Variational inference with normalizing flows.

    ::

        from flowjax.flows import coupling_flow

        family = vb.blackbox.flow(coupling_flow, flow_layers=4, nn_width=16)
        fit = vb.fit(vb.BlackBox(log_density, support, family=family), data, key=key)
    """
    import_extra("flow", "flowjax")
    if not callable(build):
        raise ValueError(f"build must be a function of flowjax.flows, or one alike; got {build!r}")
    for name, option in options.items():
        try:
            hash(option)
        except TypeError:
            raise ValueError(
                f"{name} must be hashable; got {type(option).__name__}: give a build that has it inside"
            ) from None
    return FlowStart(build, tuple(sorted(options.items())))
