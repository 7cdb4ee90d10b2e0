"""The verdict on one call: what it raised, or what it gave."""

from __future__ import annotations

import contextlib
import dis
import io
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import vbjax as vb

OFFENCES = ("silent", "cryptic", "nan", "hang", "memory", "uncovered")
KINDS = ("clear", "fine", *OFFENCES)
LONGEST = 1000  # letters of a message: a longer one prints the data


class Uncovered(Exception):
    """Something public that no table knows."""


class Refused(ValueError):
    """What the shell command says when it refuses."""


_PACKAGE = str(pathlib.Path(vb.__file__).parent)
_OUT_OF_MEMORY = re.compile("RESOURCE_EXHAUSTED|[Oo]ut of memory|[Uu]nable to allocate|bad_alloc")


def judge(call: Callable[[], Any], argument_names: tuple[str, ...], legitimate: bool) -> tuple[str, str]:
    """Make the call, and say of what kind it is, and why.

    Args:
        call: the call.
        argument_names: what its error may call the argument that is hostile.
        legitimate: whether the call may be accepted.
    """
    try:
        result = call()
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        return of_error(error, argument_names)
    if not legitimate:
        return "silent", f"accepted, and gave {type(result).__name__}"
    return of_result(result)


def of_error(error: BaseException, argument_names: tuple[str, ...]) -> tuple[str, str]:
    """Clear, or not: ours, of the right type, and about the argument."""
    message = str(error)
    said = f"{type(error).__name__}: {' '.join(message.split())[:300]}"
    if isinstance(error, Uncovered):
        return "uncovered", message
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(message):
        return "memory", said
    if isinstance(error, OSError):  # which says what file, in the system's words
        return ("clear" if error.filename is not None else "cryptic"), said
    if not isinstance(error, (ValueError, TypeError)):
        return "cryptic", said
    if not (_raised_by_us(error) or _about_a_signature(error)):
        return "cryptic", f"{said} [raised in {_where(error)}]"
    if len(message) > LONGEST:
        return "cryptic", f"{said}... [{len(message)} letters]"
    if not _names(message, argument_names):
        return "cryptic", f"{said} [names none of: {', '.join(argument_names)}]"
    return "clear", said


def _names(message: str, argument_names: tuple[str, ...]) -> bool:
    """Whether one of the names is in it; `a`, which is a word, where it is spoken of."""
    after = {name: r"(?= must|['=:])" if name == "a" else "(?![A-Za-z0-9])" for name in argument_names}
    return any(re.search(rf"(?<![A-Za-z0-9]){re.escape(n)}{end}", message) for n, end in after.items())


def _frames(error: BaseException) -> Iterator[Any]:
    trace = error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _raised_by_us(error: BaseException) -> bool:
    """The innermost frame is in the package, and what it did there was to raise."""
    if isinstance(error, Refused):
        return True
    *_, last = _frames(error)
    code = last.tb_frame.f_code
    return (
        code.co_filename.startswith(_PACKAGE) and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
    )


def _about_a_signature(error: BaseException) -> bool:
    """Python's own words where an argument is missing, or there is none of that name."""
    return isinstance(error, TypeError) and bool(
        re.search(r"unexpected keyword argument|missing \d+ required|takes \d+ positional", str(error))
    )


def _where(error: BaseException) -> str:
    *_, last = _frames(error)
    name = last.tb_frame.f_code.co_filename
    return f"{'/'.join(name.split('/')[-3:])}:{last.tb_lineno}"


def of_result(result: Any) -> tuple[str, str]:
    """Fine, or NaN where success is claimed."""
    if isinstance(result, vb.Fit):
        return _of_fit(result)
    if isinstance(result, vb.LinearResponse) and result.singular:
        return "fine", "singular"
    if hasattr(result, "__next__"):
        result = list(result)
    if not isinstance(result, vb.Sequences) and _has_nan(result):  # in these, NaN is missing
        return "nan", f"NaN in a {type(result).__name__}"
    return "fine", type(result).__name__


def _of_fit(fit: Any) -> tuple[str, str]:
    if fit.status not in (vb.Status.CONVERGED, vb.Status.MAX_ITER):
        words = fit.verdict()
        return ("fine" if fit.status.sentence in words else "nan"), words
    if not np.isfinite(np.asarray(fit.objective)) or _has_nan(fit.params):
        return "nan", f"{fit.status.name} with objective {fit.objective}, or NaN in its parameters"
    return "fine", fit.status.name


def _has_nan(tree: Any) -> bool:
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, (float, np.ndarray, jax.Array, np.generic)):
            values = leaf if isinstance(leaf, float) else np.asarray(leaf) if _plain(leaf) else 0.0
            if np.asarray(values).dtype.kind in "fc" and np.isnan(values).any():
                return True
    return False


def _plain(leaf: Any) -> bool:
    return not (isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key))


def shell(arguments: list[str]) -> Callable[[], Any]:
    """A call of the command, whose refusal is an error with its one line, and whose page may not say nan."""

    def call() -> Any:
        from vbjax.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = main(arguments)
            except SystemExit as stopped:
                status = stopped.code
        lines = err.getvalue().splitlines()
        if status == 2 and len(lines) == 1 and lines[0].startswith("vbjax: ") and not out.getvalue():
            raise Refused(lines[0])
        if status != 0:
            raise RuntimeError(f"status {status}, {len(lines)} lines: {err.getvalue()[:300]}")
        return float("nan") if re.search(r"\bnan\b(?!$)", out.getvalue(), re.M) else out.getvalue()

    return call
