"""`configure`: how many devices JAX makes of the cores, and where it keeps compiled programs.

For users and for the shell command, before anything is computed. Imports nothing of ours but readers.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import jax

from vbjax.numerics.inputs import read_count

MOST_DEVICES = 4096  # of one processor
_LARGEST = 2**30  # bytes of the cache of compiled programs, after which the oldest go


def configure(
    *, cpu_devices: int | str | None = None, compilation_cache: bool | str | os.PathLike[str] = False
) -> None:
    """Let JAX use every core, and keep compiled programs from one process to the next.

    Call it once, before the first computation: it sets options of JAX, for the whole process, which importing
    the package does not.

    Args:
        cpu_devices: how many devices JAX makes of the processor, from 1 to 4096; "all" for one of each core
            that the process may use. `fit` divides its work over all of them. None leaves what is.
        compilation_cache: whether compiled programs are kept in the user's cache directory
            ($JAX_COMPILATION_CACHE_DIR, $XDG_CACHE_HOME/vbjax, ~/.cache/vbjax), up to 1 GiB; a path keeps
            them there. Several processes may share it. False leaves what is.

    Raises:
        ValueError: arguments out of range; a directory that cannot be made.
        RuntimeError: `cpu_devices` after JAX has started its devices.

    >>> import vbjax as vb
    >>> vb.configure(cpu_devices=None)
    """
    if cpu_devices is not None:
        if isinstance(cpu_devices, str) and cpu_devices != "all":
            raise ValueError(f"cpu_devices must be a number of devices or 'all'; got {cpu_devices!r}")
        number = _cores() if isinstance(cpu_devices, str) else read_count(cpu_devices, "cpu_devices")
        if number > MOST_DEVICES:
            raise ValueError(f"cpu_devices must be at most {MOST_DEVICES}; got {number}")
        try:
            jax.config.update("jax_num_cpu_devices", number)
        except RuntimeError:
            raise RuntimeError(
                "cpu_devices comes too late: JAX has started its devices. Call vb.configure before the first "
                f"computation of the process; there are {len(jax.devices('cpu'))} of the processor now"
            ) from None
        # a device that waits for the others holds a thread, which a matrix product of theirs may wait for
        os.environ.setdefault("NPROC", str(number + _cores()))
    if not isinstance(compilation_cache, (bool, str, os.PathLike)):
        raise ValueError(f"compilation_cache must be True, False or a path; got {compilation_cache!r}")
    if compilation_cache is not False:
        path = _own_directory() if compilation_cache is True else Path(compilation_cache)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"compilation_cache must be a directory that can be made: {error}") from None
        jax.config.update("jax_compilation_cache_dir", os.fspath(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
        if importlib.util.find_spec("filelock"):  # with which JAX locks the directory, and clears it
            jax.config.update("jax_compilation_cache_max_size", _LARGEST)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _own_directory() -> Path:
    """Return where programs are kept: where JAX was told to, or in the user's cache directory."""
    if told := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vbjax"
