"""Checkpoints of a fit: what `fit` has reached, kept on disk so that a process that was killed goes on.

The start of a fit follows from its arguments, so only its state is kept, such as the race of the restarts,
with a digest of each argument: another fit must not go on from it. Written by orbax-checkpoint (an extra),
which moves a whole one into place at once. Imported by the drivers.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from vbjax.numerics.extras import import_extra
from vbjax.numerics.types import Given, Tree

_EVERY = 30.0  # seconds between two, at least


class Checkpoint:
    """A directory that keeps the last state of one fit.

    Args:
        path: the directory; it is made where there is none.
        arguments: what the fit was called with, by name.

    Raises:
        ValueError: a path that is none, or where nothing can be written; a directory with the checkpoint of
            another fit, naming the arguments that differ.
        ImportError: without orbax-checkpoint.
    """

    def __init__(self, path: str | os.PathLike[str], arguments: Mapping[str, Tree]) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"checkpoint must be the path of a directory; got {path!r}")
        orbax = import_extra("checkpoint", "orbax.checkpoint")
        self._orbax, self._path = orbax, Path(path).absolute()
        self._digests = {name: _digest(value) for name, value in arguments.items()}
        self._kept = time.monotonic()
        options = orbax.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / ".writable").touch()
            (self._path / ".writable").unlink()
        except (OSError, ValueError) as error:
            raise ValueError(f"checkpoint must be a directory that can be written: {error}") from None
        self._manager = orbax.CheckpointManager(self._path, options=options)

    def restored(self, begun: Tree) -> Tree:
        """Return the state that was kept, or this one, of a fit that has just begun, where there is none."""
        step = self._manager.latest_step()
        if step is None:
            return begun
        args = self._orbax.args
        kept = self._manager.restore(step, args=args.Composite(arguments=args.JsonRestore()))["arguments"]
        if others := [name for name, digest in self._digests.items() if kept.get(name) != digest]:
            raise ValueError(
                f"checkpoint {self._path} is of a fit with other arguments ({', '.join(others)}): give what "
                "that fit was given, or another directory"
            )
        like = _plain(begun)
        found = self._manager.restore(step, args=args.Composite(state=args.StandardRestore(like)))["state"]
        return jax.tree.map(_placed, found, begun)

    @property
    def due(self) -> bool:
        """Whether it is time to keep a state again."""
        return time.monotonic() - self._kept >= _EVERY

    def keep(self, state: Tree, *, now: bool = False) -> None:
        """Keep this state, if it is time, or `now`.

        Raises:
            OSError: where it cannot be written; the last one is as it was.
        """
        if not now and not self.due:
            return
        args, step = self._orbax.args, self._manager.latest_step()
        items = args.Composite(state=args.StandardSave(_plain(state)), arguments=args.JsonSave(self._digests))
        try:
            self._manager.save(0 if step is None else step + 1, args=items, force=True)
        except Exception as error:
            raise OSError(
                f"checkpoint {self._path} could not be written, its last one is whole: {error}"
            ) from error
        self._kept = time.monotonic()


def require_one_process(path: Given, mesh: Mesh | None) -> None:
    """Raise a ValueError where a fit of arrays that runs over several processes is to be kept."""
    if path is not None and mesh is not None and mesh.is_multi_process:
        raise ValueError("checkpoint must be None where a fit of arrays runs over several processes")


def _plain(tree: Tree) -> Tree:
    """Return a tree of arrays of numbers on the host."""
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if _is_key(x) else x), tree)


def _placed(x: np.ndarray, like: jax.Array) -> jax.Array:
    """Return the array where, and of what kind, another is."""
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.asarray(x), impl=jax.random.key_impl(like))
    return jax.device_put(x, like.sharding) if len(like.sharding.device_set) > 1 else jnp.asarray(x)


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _digest(value: Tree) -> str:
    """Return a number that another value does not have: of the structure, and of every array's bytes."""
    leaves, structure = jax.tree.flatten(value)
    digest = hashlib.blake2b(str(structure).encode(), digest_size=16)
    for leaf in leaves:
        array = np.asarray(
            jax.random.key_data(leaf) if isinstance(leaf, jax.Array) and _is_key(leaf) else leaf
        )
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
