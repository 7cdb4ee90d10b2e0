"""Files of the shell command: checked before the fit, written whole or not at all, with errors of one line.

Imported by `commands` and the modules of its kinds of models.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vbjax.data import whole_files

_PICTURES = (".png", ".pdf", ".svg")


class UserError(Exception):
    """Error of the user's input, whose message is one line."""

    def __init__(self, message: object) -> None:
        super().__init__(" ".join(str(message).split()))


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn errors of reading a file into a `UserError`, and print the reader's warnings, one line each."""
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            yield
        for warning in said:
            print(f"vbjax: {warning.message}", file=sys.stderr)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(error) from error


def check_entries(path: str, table: Float[np.ndarray, "n d"], columns: list[str]) -> None:
    """Raise where all entries of a column are missing.

    Raises:
        UserError: a column of NaN.
    """
    empty = np.isnan(table).all(0)
    if empty.any():
        raise UserError(f"{path}, column {columns[empty.argmax()]!r}: no entry in any line")


def check_digits(path: str, table: Float[np.ndarray, "n d"], columns: list[str]) -> None:
    """Raise where the default float cannot hold the variation of a column.

    Args:
        table: (n, d), with NaN for missing entries.

    Raises:
        UserError: a column that varies too little for its size.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lost = np.nanmax(np.abs(table.astype(jnp.result_type(float)) - table), 0)
        spreads = np.nanstd(table, 0)
    for column, loss, spread in zip(columns, lost, spreads, strict=True):
        if loss > 0.01 * spread > 0 or np.isinf(loss):
            raise UserError(
                f"{path}, column {column!r}: too few digits in float32; subtract an offset, "
                "change the unit, or set JAX_ENABLE_X64=1 in the environment"
            )


def check_outputs(inputs: Mapping[str, str | None], *, out: str | None, plot: str | None) -> None:
    """Refuse before the fit the files that could not be written after it.

    Args:
        inputs: paths of the files that are read, by a name for errors.
        out, plot: paths of the files to write, if any.

    Raises:
        UserError: a path that cannot be written, or would overwrite another one.
    """
    for name, path in (*inputs.items(), ("--out", out), ("--plot", plot)):
        if path is not None and (not path.strip() or "\0" in path):
            raise UserError(f"{name} must be the name of a file; got {path!r}")
    if plot and Path(plot).suffix.lower() not in _PICTURES:
        raise UserError(f"{plot}: a picture's name must end in {', '.join(_PICTURES)}")
    taken = {os.path.realpath(path): name for name, path in inputs.items() if path}
    for name, path in (("--out", out), ("--plot", plot)):
        if not path:
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise UserError(f"{path}: {name} would overwrite {taken[place]}")
        taken[place] = name
        if os.path.lexists(place) and not os.path.isfile(place):
            raise UserError(f"{path}: exists and is not a file")
        with _failures(path):
            beside = whole_files.temporary(path)
            beside.open("xb").close()
            beside.unlink()


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of `path` once it is complete; a failure is a `UserError`."""
    with _failures(path), whole_files.replacing(path) as file:
        yield file


@contextlib.contextmanager
def _failures(path: str) -> Iterator[None]:
    """Turn errors of writing a file into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
