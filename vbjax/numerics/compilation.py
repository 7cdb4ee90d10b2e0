"""Compilation, with products of matrices in all digits of their dtype.

By JAX's default an accelerator rounds the factors of float32 products to fewer bits (11 on recent cards): too
few for a covariance or a bound. Everything may import it, and compiles by it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

T = TypeVar("T")

_MAPS, _MOST_MAPS = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")
_OFTEN = 32  # programs that are compiled from one look at the maps to the next
_MOST_HELD = 0.6  # of the maps of a process
_new_programs = [0]


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Multiply in full precision, or in that which the user chose by `jax.default_matmul_precision`."""
    chosen = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    with jax.default_matmul_precision(chosen or "highest"):
        yield


def quick_options() -> dict[str, Any]:
    """Return XLA's options for a program that runs once; what the environment says of them stands.

    Without them a processor's kernels are made by newer code, which is slower by half or more, for loops that
    are up to twice as fast. Newer versions of jaxlib have no choice of that code.
    """
    options = dict(xla_backend_optimization_level=1, xla_cpu_use_fusion_emitters=False)
    told = os.environ.get("XLA_FLAGS", "")
    return {name: value for name, value in options.items() if name not in told and _is_known(name, value)}


@functools.cache
def _is_known(name: str, value: Any) -> bool:
    """Return whether XLA has an option, which an empty program says."""
    try:
        jax.jit(lambda: None, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def _count_program(event: str, duration_secs: float, **kwargs: str | int) -> None:
    _new_programs[0] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count_program)


def count_maps() -> int:
    """Return how many memory maps the process holds; 0 where the system does not tell."""
    return _MAPS.read_bytes().count(b"\n") if _MAPS.exists() else 0


def many_are_new() -> bool:
    """Return whether so many programs were compiled that `forget_programs` should look at the maps again."""
    return _new_programs[0] >= _OFTEN


def forget_programs() -> None:
    """Forget all compiled programs, with a warning, where most of the memory maps of the process are taken.

    A program takes some 200 maps on a processor, and Linux gives a process 65,530: after some hundred fits of
    different shapes the next compilation would end the process. Not to be called while a program is traced.
    """
    if not many_are_new() or threading.current_thread() is not threading.main_thread():
        return
    _new_programs[0] = 0
    held = count_maps()
    if held and held > _MOST_HELD * (most := int(_MOST_MAPS.read_text())):
        warnings.warn(
            f"compiled programs are forgotten, as they hold {held:,} of the {most:,} memory maps of a "
            "process (sysctl vm.max_map_count); what is needed again is compiled again",
            RuntimeWarning,
            stacklevel=2,
        )
        jax.clear_caches()


def jit(function: Callable[..., T], **options: Any) -> Callable[..., T]:
    """Compile a function as `jax.jit` does, of the same options, in full precision."""
    return jax.jit(full_precision()(function), **options)
