"""Formats of numbers that the shell command prints and saves: digits, columns, uncertainty.

Imported by `commands` and the modules of its kinds of models.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from vbjax.numerics.types import Tree

Number: TypeAlias = float | np.number | np.ndarray  # an array of one number

_WIDTH, _NARROWEST = 80, 8


def measure(value: Number, sd: Number | None = None) -> str:
    """Format a number: with four digits, or with its uncertainty and the digits that this warrants.

    >>> measure(1234.567), measure(1234.567, 2.34), measure(0.64273, 0.029)
    ('1235', '1234.6 ± 2.3', '0.643 ± 0.029')
    """
    value, sd = float(value), 0.0 if sd is None else float(sd)
    if not math.isfinite(sd) or sd <= 0:
        return f"{value:#.4g}".rstrip(".")
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    if decimals > 6 or abs(value) >= 1e7:
        return f"{value:.3e} ± {sd:.1e}"
    return f"{value:.{decimals}f} ± {sd:.{decimals}f}"


def align(table: list[list[str]], *, right: int) -> list[str]:
    """Return the lines of a table with columns of equal width, the first `right` of them flush right.

    The lines have at most 80 characters: the cells of the widest columns are wrapped, as long names are.

    >>> align([["rows", "column"], ["12", "a " * 50]], right=1)[:2]
    ['rows  column', '  12  a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a']
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > _WIDTH and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in table:
        cells = [
            textwrap.wrap(cell, width, break_on_hyphens=False)
            for cell, width in zip(row, widths, strict=True)
        ]
        for parts in itertools.zip_longest(*cells, fillvalue=""):
            both = enumerate(zip(parts, widths, strict=True))
            lines.append("  ".join(f"{c:{'>' if j < right else '<'}{w}}" for j, (c, w) in both).rstrip())
    return lines


def mention_empty(sizes: np.ndarray, part: str, unit: str) -> list[str]:
    """Return a line on the parts that keep at most one unit and are not in the table, if there are any."""
    empty = int((sizes <= 1).sum())
    verb = "emptied itself" if empty == 1 else "emptied themselves"
    return [f"{empty} of {len(sizes)} {part}s {verb}: no more than one {unit} each"] if empty else []


def posterior_sds(
    components: Tree, shape: tuple[int, int]
) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, "k d"]]:
    """Compute posterior mean and standard deviation of the components' standard deviations, of a shape (k,
    d).

    Under a Wishart (or Gamma) precision every variance is inverse Gamma(a, b), with a = (nu - d + 1) / 2 and
    b half the diagonal of W^-1; so E[sd] = sqrt(b) Gamma(a - 1/2) / Gamma(a), E[sd^2] = b / (a - 1).

    Args:
        components: state of locations and precisions, of any covariance type.
        shape: (k, d).
    """
    if hasattr(components, "rate"):  # diag (k, d), spherical (k,)
        a, b = np.asarray(components.concentration, float), np.asarray(components.rate, float)
        a, b = (np.broadcast_to(v if v.ndim == 2 else v[:, None], shape) for v in (a, b))
    else:  # full (k,) and (k, d, d), tied () and (d, d)
        nu = np.asarray(components.degrees_of_freedom, float)[..., None]
        inverse_scale = np.asarray(components.inverse_scale, float)
        b = np.broadcast_to(0.5 * np.diagonal(inverse_scale, axis1=-2, axis2=-1), shape)
        a = np.broadcast_to(0.5 * (nu - shape[1] + 1), shape)
    ratio = np.vectorize(lambda a: math.exp(math.lgamma(a - 0.5) - math.lgamma(a)) if a > 0.5 else math.nan)(
        a
    )
    mean = np.sqrt(b) * ratio
    with np.errstate(divide="ignore"):
        square = np.where(a > 1, b / (a - 1), np.nan)
    # for large a the difference cancels; its expansion is square / (4 a)
    spread = np.where(a > 1e4, square / (4 * a), square - mean**2)
    return mean, np.sqrt(np.maximum(spread, 0))
