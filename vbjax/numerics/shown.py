"""Short texts of values, for the `repr` of models and parameters: of large arrays the dtype and the shape.

Everything may import it.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from vbjax.numerics.inputs import is_concrete

_WIDTH = 80  # characters of a line
_FEW = 6  # numbers that are shown


def shown(x: object) -> str:
    """Return a value in short: a few numbers, or the dtype and shape of an array; a function by its name.

    >>> shown(np.arange(3.0)), shown(np.zeros((2, 3), "float32"))
    ('[0, 1, 2]', 'float32[2, 3]')
    """
    if isinstance(x, (np.ndarray, np.generic, jax.Array, jax.ShapeDtypeStruct)):
        return _array(x)
    if inspect.isfunction(x):
        return x.__name__
    if isinstance(x, tuple) and type(x) is not tuple:
        return call(type(x).__name__, zip(x._fields, x, strict=True))  # type: ignore[attr-defined]
    if isinstance(x, dict):
        return call("dict", x.items())
    return repr(x)


def call(name: str, arguments: Iterable[tuple[str, object]]) -> str:
    """Return the text of a call with arguments by name: one line, or a line for each where that is too long.

    >>> call("Gamma", dict(concentration=2.0, rate=1.0).items())
    'Gamma(concentration=2.0, rate=1.0)'
    """
    texts = [f"{argument}={shown(value)}" for argument, value in arguments]
    line = f"{name}({', '.join(texts)})"
    if len(line) <= _WIDTH and "\n" not in line:
        return line
    return f"{name}(\n" + "".join(textwrap.indent(text, "    ") + ",\n" for text in texts) + ")"


def _array(x: Any) -> str:
    seen = isinstance(x.dtype, np.dtype) and not isinstance(x, jax.ShapeDtypeStruct) and is_concrete(x)
    if seen and x.dtype.kind in "biuf" and x.ndim <= 1 and x.size <= _FEW:
        texts = [f"{number:.4g}" if x.dtype.kind == "f" else str(number) for number in np.ravel(x).tolist()]
        return f"[{', '.join(texts)}]" if x.ndim else texts[0]
    return f"{x.dtype}[{', '.join(map(str, x.shape))}]"
