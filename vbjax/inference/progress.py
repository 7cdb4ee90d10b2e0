"""Progress bars: in a notebook and in a terminal those of tqdm, in a log a line now and then.

The drivers import it. tqdm is imported where a bar is shown.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

_SECONDS = 30.0  # between two lines of a log


class _Lines:
    """A stream that takes a bar as it is drawn anew, and writes each as a line."""

    def write(self, text: str) -> None:
        if text := text.strip():
            sys.stderr.write(f"{text}\n")

    def flush(self) -> None:
        sys.stderr.flush()


@contextlib.contextmanager
def progress_bar(shown: bool, unit: str, total: int | None = None) -> Iterator[Callable[..., None]]:
    """Give a function that shows how many units are done, and words beside it; idle unless `shown`.

    A bar is drawn where there is a notebook or a terminal. Elsewhere a line is written at the beginning,
    every half minute, and at the end.
    """
    if not shown:
        yield lambda done, words="": None
        return
    from tqdm import auto, std

    log = auto.notebook_tqdm is std.tqdm and not sys.stderr.isatty()
    how: dict[str, Any] = dict(file=_Lines(), mininterval=_SECONDS, maxinterval=_SECONDS) if log else {}
    with auto.tqdm(total=total, unit=unit, **how) as bar:

        def show(done: int, words: str = "") -> None:
            bar.set_postfix_str(words, refresh=False)
            bar.update(done - bar.n)

        yield show
