"""Sparsity of a symmetric matrix: an order in which it is a bordered band, and colours of its columns.

All of it is made once, on the host, by NumPy and SciPy. For `sparse_precision`, and `probing`, which finds
the pattern of a Hessian.

References:
    George & Liu (1981), Computer solution of large sparse positive definite systems, on the reverse
    Cuthill-McKee order; Curtis, Powell & Reid (1974), On the estimation of sparse Jacobian matrices, on
    columns that are found by one product; Coleman & Moré (1983), on their colours.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy

from vbjax.numerics.stored import stored


@stored
@dataclasses.dataclass(frozen=True)
class Sparsity:
    """Pattern of a symmetric d x d matrix, in an order that makes it a band with a border.

    Lists of numbers are kept as text: JAX hashes and compares it fast, and files of fits hold it.

    Attributes:
        size: d.
        n_border: the last so many numbers, in that order, touch any others.
        width: of the band of all others, so that positions i and j interact where |i - j| <= width.
        order: the numbers, by position.
        rows, columns: positions i >= j of the entries within the band, the diagonal among them.
        colours: by position; products with the sum of the columns of one colour give all their entries.
    """

    size: int
    n_border: int
    width: int
    order: str
    rows: str
    columns: str
    colours: str

    def __repr__(self) -> str:
        return f"<pattern of {self.size} numbers: a band of width {self.width}, a border of {self.n_border}>"

    @property
    def n_band(self) -> int:
        """Number of positions before the border."""
        return self.size - self.n_border

    @property
    def block(self) -> int:
        """Number of positions in a block of the band."""
        return max(self.width, 1)

    @property
    def n_blocks(self) -> int:
        """Number of blocks of the band; the last one may be padded."""
        return max(-(-self.n_band // self.block), 1)

    def numbers(self, name: str) -> np.ndarray:
        """Return the attribute of this name as an array."""
        return np.array(getattr(self, name).split(), np.int32)

    @staticmethod
    def of(pattern: scipy.sparse.sparray) -> Sparsity:
        """Return the sparsity of a matrix whose entries other than zero are `pattern`'s, made symmetric."""
        pattern = scipy.sparse.csr_array(pattern != 0)
        size = pattern.shape[0]
        pattern = scipy.sparse.csr_array(pattern + pattern.T + scipy.sparse.eye_array(size, dtype=bool))
        touches = np.diff(pattern.indptr)  # how many numbers each interacts with
        limits = sorted({int(2**power) for power in range(int(size).bit_length())} | {size})
        tried = (_bordered(pattern, np.flatnonzero(touches > limit)) for limit in limits)
        _, order, n_border, width = min(tried, key=lambda found: found[0])
        n_band = size - n_border
        ordered = scipy.sparse.csr_array(pattern[order][:, order])
        band = scipy.sparse.coo_array(scipy.sparse.tril(ordered[:n_band][:, :n_band]))
        # entries at the border are read from its columns, so that its rows forbid nothing
        own = np.arange(n_border) + 1
        colours = colour(scipy.sparse.csc_array(ordered[:n_band][:, :n_band]))
        colours = np.concatenate([colours, colours.max(initial=-1) + own])
        lists = (order, band.coords[0], band.coords[1], colours)
        return Sparsity(size, n_border, width, *(" ".join(map(str, x.tolist())) for x in lists))


def _bordered(pattern: scipy.sparse.csr_array, border: np.ndarray) -> tuple[float, np.ndarray, int, int]:
    """Return the cost of a factor with this border, the order, and the sizes of border and band."""
    size = pattern.shape[0]
    rest = np.setdiff1d(np.arange(size), border)
    band = scipy.sparse.csr_array(pattern[rest][:, rest])
    band_order = (
        scipy.sparse.csgraph.reverse_cuthill_mckee(scipy.sparse.csr_matrix(band), symmetric_mode=True)
        if len(rest)
        else rest
    )
    place = np.empty(len(rest), np.int64)
    place[band_order] = np.arange(len(rest))
    rows, columns = scipy.sparse.coo_array(band).coords
    width = int(np.abs(place[rows] - place[columns]).max(initial=0))
    cost = len(rest) * float(width + 1 + len(border)) ** 2 + float(len(border)) ** 3
    return cost, np.concatenate([rest[band_order], border]), len(border), width


def colour(touched: scipy.sparse.csc_array) -> np.ndarray:
    """Return a colour for every column, so that no row has entries in two columns of one colour.

    Greedy, in the columns' order.
    """
    meets = scipy.sparse.csr_array(touched.T.astype(np.int32) @ touched.astype(np.int32))
    colours = np.full(touched.shape[1], -1)
    starts, neighbours = meets.indptr, meets.indices
    for j in range(len(colours)):
        taken = set(colours[neighbours[starts[j] : starts[j + 1]]].tolist())
        colours[j] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colours


@functools.lru_cache(maxsize=64)
def places(sparsity: Sparsity) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray]]:
    """Return which band entries lie in blocks on the diagonal, and where in all these blocks, flat.

    Then the same of blocks beside the diagonal.
    """
    s = sparsity.block
    rows, columns = sparsity.numbers("rows"), sparsity.numbers("columns")
    own = rows // s == columns // s
    inside, beside = np.flatnonzero(own), np.flatnonzero(~own)
    at = lambda which, first, second: (first[which] // s * s + first[which] % s) * s + second[which] % s
    return (inside, at(inside, rows, columns)), (beside, at(beside, columns, rows))
