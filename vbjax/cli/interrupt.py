"""Ctrl-C while the shell command loads or ends: one line and exit status 130, no traceback of imports.

The package imports this module first, because loading takes seconds. It changes the handler of signals only
in a process that was started as the command; who imports the package as a library keeps their own.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

MESSAGE = "vbjax: interrupted"
STATUS = 130  # exit status by which shells report a command that SIGINT ended


def is_command() -> bool:
    """Tell whether this process is `python -m vbjax`, or `vbjax`."""
    program, given = getattr(sys, "argv", [""])[0], sys.orig_argv
    if program == "-m":  # while python looks for the module to run
        return ("-m", "vbjax") in itertools.pairwise(given) or "-mvbjax" in given
    if program.endswith(os.path.join("vbjax", "__main__.py")):  # while that runs
        return True
    return os.path.splitext(os.path.basename(program))[0] == "vbjax"


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process at once, with one line on stderr."""
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(STATUS)


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Send an interrupt again that Python dropped, as it does in a callback of the garbage collector."""
    if unraisable.exc_type is KeyboardInterrupt:
        threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(unraisable)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt while the command works, so that half-written files are removed."""
    loaded = signal.getsignal(signal.SIGINT) is _leave
    if loaded:
        sys.unraisablehook = _send_again
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if loaded:
            signal.signal(signal.SIGINT, _leave)
            sys.unraisablehook = sys.__unraisablehook__


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _leave)
