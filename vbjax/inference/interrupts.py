"""Ctrl-C during a compilation by JAX, held back until the compilation is done.

A KeyboardInterrupt inside a compilation leaves an entry of JAX's caches unfinished, and the process then
crashes when they are cleared: at its end, or by `jax.clear_caches()` (jax 0.10). For `fit`.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


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
