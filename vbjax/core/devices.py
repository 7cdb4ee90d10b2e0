"""The devices over which a computation is divided: the rows of the data, or the runs of a fit.

A driver divides a program (`over`, `on_each`). Where rows are divided, every device runs the same program for
its own share, and what is added up over rows (rows.py) is added up over devices too; nothing else but the
functions of this file may look at all rows. Imported by core, by models that start from some rows, and by the
drivers.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int

from vbjax.numerics import compilation
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.types import Tree

T = TypeVar("T")

ROWS, RUNS = "rows", "runs"  # the axes of a mesh
WHOLE = PartitionSpec()  # the same on every device
_MESH: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)
_PLATFORM: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)
_CHUNK = 2**23  # bytes that models put into a chunk at most, as they choose its rows
_SHARES: contextvars.ContextVar[int] = contextvars.ContextVar("shares", default=1)


# -- dividing a program ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _holding(variable: contextvars.ContextVar[T], value: T) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def over(mesh: Mesh | None) -> contextlib.AbstractContextManager[None]:
    """Divide the programs of `jit_over_mesh` over the devices of a mesh; None for one device."""
    return _holding(_MESH, mesh)


def jit_over_mesh(
    function: Callable[..., T],
    *,
    static: Sequence[str] = (),
    donate: Sequence[str] = (),
    quickly: bool = False,
) -> Callable[..., T]:
    """Compile a function as `jit` does, once for every mesh that its calls are `over`.

    Arguments that are `static`, or that it may overwrite (`donate`), are to be given by name. With `quickly`,
    a processor's program is compiled in less than half the time, and its loops may take longer.
    """

    def under(mesh: Mesh | None, *args: Tree, **options: Tree) -> T:
        with over(mesh):
            return function(*args, **options)

    under.__name__ = function.__name__
    names = dict(static_argnames=static, donate_argnames=donate)
    compiled = compilation.jit(under, static_argnums=0, **names)

    @functools.cache
    def soon() -> Callable[..., T]:
        return compilation.jit(under, static_argnums=0, compiler_options=compilation.quick_options(), **names)

    @functools.wraps(function)
    def call(*args: Tree, **options: Tree) -> T:
        if compilation.many_are_new() and is_concrete((args, options)):
            compilation.forget_programs()
        own = soon() if quickly and room() == 1 and is_concrete((args, options)) else compiled
        return own(_MESH.get(), *args, **options)

    return call


def in_several_processes() -> bool:
    """Return whether programs are divided over several processes, each of which has to call them alike."""
    mesh = _MESH.get()
    return mesh is not None and mesh.is_multi_process


def divided(axis: str) -> bool:
    """Return whether programs are divided along this axis."""
    mesh = _MESH.get()
    return mesh is not None and axis in mesh.axis_names


def on_each(function: Callable[..., Tree], in_specs: Tree, out_specs: Tree) -> Callable[..., Tree]:
    """Return a function that every device runs for its own share of the arguments; on one device as it is.

    The function may use no other arrays: `jax.shard_map` takes those around it for arrays of other devices.
    """
    mesh = _MESH.get()
    if mesh is None:
        return function

    def alone(*shares: Tree) -> Tree:
        with _holding(_SHARES, mesh.shape.get(ROWS, 1)):
            return function(*shares)

    return jax.shard_map(alone, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def compiled_for(platform: str) -> contextlib.AbstractContextManager[None]:
    """Trace programs for a platform that is not here, for `jax.export`; its devices count as of 32 GiB."""
    return _holding(_PLATFORM, platform)


def room() -> int:
    """Return by how many times a chunk of rows may exceed what a core's cache holds: 1 on a processor.

    Models choose the rows of a chunk so that they stay in that cache. An accelerator gains nothing by that,
    and pays for every step: there a chunk may fill an eighth of its memory.
    """
    mesh, platform = _MESH.get(), _PLATFORM.get()
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    if (platform is None and device.platform == "cpu") or platform == "cpu":
        return 1
    known = (device.memory_stats() or {}) if platform is None else {}
    return max(1, known.get("bytes_limit", 2**35) // (8 * _CHUNK))


# -- within a share of the rows --------------------------------------------------------------------------


def n_shares() -> int:
    """Return over how many devices the rows are divided whose share is seen here; 1 where all are seen."""
    return _SHARES.get()


def seen_alone() -> contextlib.AbstractContextManager[None]:
    """Return a context in which sums are over some rows of one device, as within a chunk."""
    return _holding(_SHARES, 1)


def add_up(sums: T) -> T:
    """Return the sums over the rows of all devices: one sum over devices for all numbers of a dtype."""
    if n_shares() == 1:
        return sums
    leaves, structure = jax.tree.flatten(sums)
    for dtype in dict.fromkeys(x.dtype for x in leaves):
        places = [i for i, x in enumerate(leaves) if x.dtype == dtype]
        flat, unravel = ravel_pytree([leaves[i] for i in places])
        for i, total in zip(places, unravel(lax.psum(flat, ROWS)), strict=True):
            leaves[i] = total
    return jax.tree.unflatten(structure, leaves)


def own_key(key: Array) -> Array:
    """Return a key for what is drawn for every row: another one on every device."""
    return key if n_shares() == 1 else jax.random.fold_in(key, lax.axis_index(ROWS))


def least(x: Array) -> Array:
    """Return the smallest of a number on all devices."""
    return x if n_shares() == 1 else lax.pmin(x, ROWS)


def most(x: Array) -> Array:
    """Return the largest of a number on all devices."""
    return x if n_shares() == 1 else lax.pmax(x, ROWS)


def first_of(has: Bool[Array, ...], value: Tree) -> Tree:
    """Return the values of the first device that has them, by entry of their leading axes; if none, 0."""
    if n_shares() == 1:
        return value
    device = least(jnp.where(has, lax.axis_index(ROWS), n_shares()))
    own = device == lax.axis_index(ROWS)

    return jax.tree.map(lambda x: _of_one(add_up, own, x), value)


def _of_one(add: Callable[[Array], Array], own: Bool[Array, ...], x: Array) -> Array:
    """Return entries that belong to one device each, by a sum over devices."""
    chosen = jnp.where(own.reshape(*own.shape, *[1] * (x.ndim - own.ndim)), x, jnp.zeros((), x.dtype))
    return add(chosen.astype(jnp.int32)).astype(bool) if x.dtype == bool else add(chosen)


def _rows_here(rows: Tree, numbers: Int[Array, " *m"]) -> tuple[Bool[Array, " *m"], Tree]:
    """Return which rows of these numbers among all are here, and those, with any in the place of others."""
    n = len(jax.tree.leaves(rows)[0])
    own = numbers - lax.axis_index(ROWS) * n
    here = (own >= 0) & (own < n)
    return here, jax.tree.map(lambda x: x[jnp.where(here, own, 0)], rows)


def take_rows(rows: Tree, numbers: Int[Array, " *m"]) -> Tree:
    """Return rows of a tree of arrays (n, ...) by their numbers among all, on every device."""
    if n_shares() == 1:
        return jax.tree.map(lambda x: x[numbers], rows)
    return first_of(*_rows_here(rows, numbers))


def deal_rows(rows: Tree, numbers: Int[Array, " m"]) -> Tree:
    """Return this device's share of rows (m, ...) by their numbers among all; of number -1, zeros."""
    if n_shares() == 1:
        return jax.tree.map(lambda x: x[numbers], rows)
    here, chosen = _rows_here(rows, numbers)
    deal = functools.partial(lax.psum_scatter, axis_name=ROWS, tiled=True)
    return jax.tree.map(lambda x: _of_one(deal, here, x), chosen)


def numbers_here(n: int) -> Int[Array, " n"]:
    """Return the numbers among all rows of the n that are seen here."""
    return jnp.arange(n) if n_shares() == 1 else lax.axis_index(ROWS) * n + jnp.arange(n)


def pick_row(share: Float[Array, ""], mass: Float[Array, " n"]) -> Int[Array, ""]:
    """Return the number of the row at which the cumulative mass passes a share of the total, from 0 to 1."""
    if n_shares() > 1:
        at, shares = lax.axis_index(ROWS), n_shares()
        each = add_up(jnp.zeros(shares, mass.dtype).at[at].set(mass.sum()))
        with seen_alone():
            device = pick_row(share, each)
            before = jnp.where(jnp.arange(shares) < device, each, 0).sum()
            row = pick_row(((share * each.sum() - before) / each[device]).clip(0, 1), mass)
        return add_up(jnp.where(at == device, row + at * len(mass), 0))
    total = jnp.cumsum(mass)
    row = (total <= total[-1] * share).sum().clip(max=mass.shape[0] - 1)
    return jnp.where(mass[row] > 0, row, jnp.argmax(mass))  # rounding may point behind the last mass


# -- placing arrays --------------------------------------------------------------------------------------


def read_devices(devices: Sequence[jax.Device] | None) -> list[jax.Device]:
    """Return some devices, by default all of this process.

    Raises:
        ValueError: what is no list of devices, at least one.
    """
    given = jax.local_devices() if devices is None else devices
    if not isinstance(given, (list, tuple)) or not given or not all(isinstance(x, jax.Device) for x in given):
        hint = "such as jax.devices()[:2]"
        raise ValueError(f"devices must be a list of at least one device, {hint}; got {devices!r}")
    return list(given)


def mesh_over(devices: Sequence[jax.Device], axis: str) -> Mesh:
    """Return a mesh of one axis."""
    return Mesh(np.array(devices), (axis,), axis_types=(AxisType.Auto,))


def mesh_of(tree: Tree) -> Mesh | None:
    """Return a mesh of the devices over which arrays are divided along their leading axis; None of one."""
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding) and sharding.mesh.size > 1 and any(sharding.spec[:1]):
            return mesh_over(sharding.mesh.devices.reshape(-1).tolist(), ROWS)
    return None


def put(tree: Tree, mesh: Mesh, spec: PartitionSpec) -> Tree:
    """Return arrays on the devices of a mesh; if it has several processes, arrays that all of them have."""
    return jax.device_put(tree, NamedSharding(mesh, spec))


def alike(tree: T) -> T:
    """Return the results of a program, whole on every device of the mesh that it is divided over."""
    mesh = _MESH.get()
    return tree if mesh is None else lax.with_sharding_constraint(tree, NamedSharding(mesh, WHOLE))


# -- between processes: all of them call these functions, at the same place of their program -------------


def gather(own: T) -> list[T]:
    """Return the values of all processes, in the order of the processes."""
    if jax.process_count() == 1:
        return [own]
    from jax.experimental import multihost_utils

    sent = np.frombuffer(pickle.dumps(own), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(sent.size))
    room = np.zeros(sizes.max(), np.uint8)
    room[: sent.size] = sent
    each = multihost_utils.process_allgather(room)
    return [pickle.loads(x[:size].tobytes()) for x, size in zip(each, sizes, strict=True)]


def over_processes(sums: Tree) -> Tree:
    """Return numbers on the host, added up over all processes."""
    if jax.process_count() == 1:
        return sums
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = mesh_over([first[process] for process in sorted(first)], ROWS)
    rows = NamedSharding(mesh, PartitionSpec(ROWS))
    each = jax.tree.map(lambda x: jax.make_array_from_process_local_data(rows, np.asarray(x)[None]), sums)
    with over(mesh):
        return jax.tree.map(np.asarray, _summed(each))


def _sum_of_shares(each: Tree) -> Tree:
    own = lambda each: add_up(jax.tree.map(lambda x: x[0], each))
    return on_each(own, PartitionSpec(ROWS), WHOLE)(each)


_summed = jit_over_mesh(_sum_of_shares)


def put_own(tree: Tree, mesh: Mesh) -> Tree:
    """Return arrays whose rows lie on the devices of a mesh: those of each process on its own devices.

    Every device gets as many rows.
    """
    sharding, own = NamedSharding(mesh, PartitionSpec(ROWS)), len(mesh.local_devices)

    def of(x: Any) -> Array:
        x = np.asarray(x) if mesh.is_multi_process else x
        shape = len(x) // own * mesh.size, *x.shape[1:]
        return jax.make_array_from_process_local_data(sharding, x, shape)

    return jax.tree.map(of, tree)


def on_hosts(tree: Tree, mesh: Mesh) -> Tree:
    """Return all rows of arrays that are divided over a mesh, on every host."""
    if mesh.is_multi_process:
        tree = compilation.jit(lambda x: x, out_shardings=NamedSharding(mesh, WHOLE))(tree)
    return jax.tree.map(np.asarray, tree)


def largest(x: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Return the largest of the numbers of all processes, entry by entry."""
    if not mesh.is_multi_process:
        return x
    own = np.repeat(np.asarray(x, np.int32)[None], len(mesh.local_devices), 0)
    return on_hosts(put_own(own, mesh), mesh).max(0)


def put_own_rows(tree: Tree, mesh: Mesh) -> Tree:
    """Return rows of all processes as arrays divided over a mesh; some stand twice, so that all have as many.

    Raises:
        ValueError: a process without rows.
    """
    n, own = len(jax.tree.leaves(tree)[0]), len(mesh.local_devices)
    most, fewest = largest(np.array([-(-n // own), -n]), mesh)
    if not fewest:
        raise ValueError("data must have something observed in every process; in one there is nothing")
    return put_own(jax.tree.map(lambda x: x[np.arange(most * own) % n], tree), mesh)
