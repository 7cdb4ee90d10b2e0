"""Ctrl-C while a fit runs: held back until a compilation is done, and looked for between slices of a loop.

A KeyboardInterrupt inside a compilation leaves an entry of JAX's caches unfinished, and the process then
crashes when they are cleared: at its end, or by `jax.clear_caches()` (jax 0.10). For the drivers.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import numpy as np

from vbjax.core.devices import in_several_processes

_SLICE_SECONDS = 0.2  # the host looks up about this often: for progress, checkpoints and Ctrl-C
MOST_TURNS = int(np.iinfo(np.int32).max)


def next_slice(turns: int, begun: float) -> int:
    """Return how many turns the next slice of a loop takes, after one that has begun at this time.

    In several processes they are as many in each, whatever the time.
    """
    growth = 1.0 if in_several_processes() else _SLICE_SECONDS / (time.perf_counter() - begun)
    return int(min(turns * min(max(growth, 1.0), 16.0), float(MOST_TURNS)))


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Hold a first Ctrl-C back until the block is done; a second one raises KeyboardInterrupt at once."""
    usual, in_main = signal.default_int_handler, threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    came = False

    def keep(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            usual(number, frame)
        came = True

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if came:
        raise KeyboardInterrupt
