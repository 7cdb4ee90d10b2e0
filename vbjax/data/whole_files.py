"""Files that are written whole or not at all: no failure leaves half a file or harms an older one.

A file is written beside its place and moved there when it is complete. Imported by `inference` and by the
shell command.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` once it is complete, or not at all.

    The target of a symbolic link is replaced, not the link. The new file has the mode of an older one.

    Raises:
        OSError: a place where it cannot be written; what was there is as it was.
    """
    place, beside = os.path.realpath(path), temporary(path)
    try:
        new = beside.open("xb")
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    try:
        with new as file:
            if os.path.exists(place):
                os.chmod(beside, stat.S_IMODE(os.stat(place).st_mode))
            yield file
        os.replace(beside, place)
    finally:
        beside.unlink(missing_ok=True)


def temporary(path: str | os.PathLike[str]) -> Path:
    """Return the path of the temporary file, in the same folder."""
    place = Path(os.path.realpath(path))
    return place.with_name(f".{place.name}.{os.getpid()}.tmp")
