"""Sources: rows on disk, or made anew, that are read block by block as often as they are asked for.

`fit` takes a source in the place of data and never holds all of it. Reading is by numpy alone, so that a
thread may read ahead; what a model makes of a block is the fit's business (inference/out_of_core.py).
"""

from __future__ import annotations

import abc
import concurrent.futures
import contextlib
import copy
import functools
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from vbjax.numerics.extras import import_extra
from vbjax.numerics.inputs import as_numbers, describe, read_count
from vbjax.numerics.types import Given, Tree

__all__ = ["Arrow", "Blocks", "Memmap", "Parquet", "Source"]

T = TypeVar("T")
_ALIGNED = 64  # bytes


class Piece(NamedTuple):
    """Rows that are read at once: their place, for errors, the number of the first, how many, a reader."""

    place: str
    first: int
    n_rows: int
    load: Callable[[], Tree]


class Part(NamedTuple):
    """Rows of a block that come from one piece.

    Attributes:
        start, stop: which rows of the block they are.
        piece: the number of the piece among all of the source.
        first: the number of the first of them in the piece.
        place: where that is, for errors.
    """

    start: int
    stop: int
    piece: int
    first: int
    place: str


class Block(NamedTuple):
    """Rows in arrays of one size, which the last block fills up with zeros.

    Attributes:
        padded: the arrays.
        n_rows: how many of their rows there are.
        parts: where these come from.
    """

    padded: Tree
    n_rows: int
    parts: list[Part]

    @property
    def rows(self) -> Tree:
        """The rows alone."""
        return jax.tree.map(lambda x: x[: self.n_rows], self.padded)


class Source(abc.ABC):
    """Rows that can be read again and again, a block at a time.

    Iterating gives the blocks: arrays, or a tree of arrays with a common leading axis, of `block_rows` rows
    each but for the last, which has what is left.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x = jnp.arange(10.0)[:, None]
    >>> source = vb.sources.Blocks(lambda: (x[:7], x[7:]), block_rows=4)
    >>> [len(block) for block in source], source.n_rows
    ([4, 4, 2], 10)
    """

    def __init__(self, block_rows: int) -> None:
        self.block_rows = read_count(block_rows, "block_rows")
        self._part = slice(0, None, 1)

    @abc.abstractmethod
    def _pieces(self) -> Iterator[Piece]:
        """Yield all pieces in order."""

    def _own_pieces(self) -> Iterator[tuple[int, Piece]]:
        return itertools.islice(enumerate(self._pieces()), self._part.start, None, self._part.step)

    @functools.cached_property
    def sizes(self) -> dict[int, int]:
        """The numbers of rows of the pieces, by the pieces' numbers."""
        return {number: piece.n_rows for number, piece in self._own_pieces()}

    @property
    def n_rows(self) -> int:
        """The number of rows."""
        return sum(self.sizes.values())

    @property
    def is_share(self) -> bool:
        """Whether these are the rows of one process of several."""
        return self._part.step > 1

    def share(self, index: int, count: int) -> Source:
        """Return the share of one of `count` processes: every count-th piece from number `index` on.

        Pieces are blocks of an array, row groups of files, or what an iterable gives. Together the shares are
        all rows, each once. `fit` takes the share of its process by itself.

        Raises:
            ValueError: an index that is not from 0 to count - 1.
        """
        count, index = read_count(count, "count"), read_count(index, "index", least=0)
        if index >= count:
            raise ValueError(f"index must be below count, which is {count}; got {index}")
        other = copy.copy(self)
        other.__dict__.pop("sizes", None)
        start, step = self._part.start, self._part.step
        other._part = slice(start + step * index, None, step * count)
        return other

    def __iter__(self) -> Iterator[Tree]:
        return (block.rows for block in self.blocks())

    def blocks(self, size: int | None = None, *, dtypes: Tree = None, skip: int = 0) -> Iterator[Block]:
        """Read all rows once, and yield them in blocks of `block_rows` rows, or of another size.

        Args:
            size: rows of a block.
            dtypes: of the arrays of a block; by default those that are read.
            skip: the number of blocks at the beginning that are passed over.

        Raises:
            ValueError: a piece that cannot be read, or whose columns or dtypes are not those of the first.
        """
        size = size or self.block_rows
        padded, filled, parts = None, 0, []
        for number, piece, taken, rows in self._loaded(skip * size):
            while taken < piece.n_rows:
                if padded is None:
                    to = jax.tree.map(lambda x: x.dtype, rows) if dtypes is None else dtypes
                    padded = jax.tree.map(functools.partial(_room, size), rows, to)
                n, place = (
                    min(piece.n_rows - taken, size - filled),
                    f"{piece.place}, from row {piece.first + taken}",
                )
                to, of = slice(filled, filled + n), slice(taken, taken + n)
                with _naming(place):
                    jax.tree.map(lambda x, own, to=to, of=of: _copy(own[of], x[to]), padded, rows)
                parts.append(Part(filled, filled + n, number, taken, place))
                filled, taken = filled + n, taken + n
                if filled == size:
                    yield Block(padded, size, parts)
                    padded, filled, parts = None, 0, []
        if filled:
            jax.tree.map(lambda x: x[filled:].fill(0), padded)
            yield Block(padded, filled, parts)

    def _loaded(self, skipped: int) -> Iterator[tuple[int, Piece, int, Tree]]:
        """Yield the pieces behind some rows: their numbers, how many of their rows to pass over, the rows."""
        form = None
        for number, piece in self._own_pieces():
            taken = min(skipped, piece.n_rows)
            skipped -= taken
            if taken == piece.n_rows:
                continue
            with _naming(piece.place):
                rows = jax.tree.map(lambda x: as_numbers(x, "data"), piece.load())
            own = jax.tree.map(lambda x: f"{x.dtype}{list(x.shape[1:])}", rows)
            form = own if form is None else form
            if own != form:
                raise ValueError(f"{piece.place} must have the columns of the first, {form}; got {own}")
            yield number, piece, taken, rows


def _room(size: int, like: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an array for `size` rows, at an address from which JAX takes it without a copy."""
    shape = (size, *like.shape[1:])
    n_bytes = math.prod(shape) * dtype.itemsize
    room = np.empty(n_bytes + _ALIGNED, np.uint8)
    start = -room.ctypes.data % _ALIGNED
    return room[start : start + n_bytes].view(dtype).reshape(shape)


def _copy(x: np.ndarray, to: np.ndarray) -> None:
    """Copy numbers into an array that may be of another dtype.

    Raises:
        ValueError: whole numbers that it cannot hold.
    """
    if to.dtype.kind in "iu" and x.dtype != to.dtype and x.size:
        limits = np.iinfo(to.dtype)
        if x.min() < limits.min or x.max() > limits.max:
            raise ValueError(f"data must be whole numbers that {to.dtype} holds; got up to {x.max()}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused later
        to[...] = x


def ahead(items: Iterable[T]) -> Iterator[T]:
    """Yield the items of an iterable, the next one being read by a thread while this one is used."""
    items, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        pending = reader.submit(next, items, end)
        while (item := pending.result()) is not end:
            pending = reader.submit(next, items, end)
            yield item  # type: ignore[misc]


@contextlib.contextmanager
def _naming(place: object) -> Iterator[None]:
    """Raise a ValueError that names the place for whatever cannot be read there."""
    try:
        yield
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise ValueError(f"{place} cannot be read: {error}") from None


class Memmap(Source):
    """Arrays in .npy files, or memory maps of one's own, of which a block at a time is in memory.

    Args:
        data: the path of a .npy file, an array, or a tree of these with as many rows, such as the pair
            ("x.npy", "y.npy") for a regression.
        block_rows: rows that are read at once.

    Raises:
        ValueError: a file that is no .npy file; arrays of different numbers of rows.

    >>> import numpy, vbjax as vb
    >>> [block.shape for block in vb.sources.Memmap(numpy.zeros((5, 2)), block_rows=3)]
    [(3, 2), (2, 2)]
    """

    def __init__(self, data: Given, *, block_rows: int = 65_536) -> None:
        super().__init__(block_rows)
        self.data = data
        shapes = [np.shape(_mapped(x)) for x in jax.tree.leaves(data)]
        if not shapes or len({shape[:1] for shape in shapes}) > 1 or not all(shapes):
            raise ValueError(f"data must be arrays with a common leading axis of rows; got shapes {shapes}")
        self._n = shapes[0][0]
        named = [str(x) for x in jax.tree.leaves(data) if isinstance(x, (str, os.PathLike))]
        self._place = " and ".join(named) or "data"

    def _pieces(self) -> Iterator[Piece]:
        for first in range(0, self._n, self.block_rows):
            rows = slice(first, min(first + self.block_rows, self._n))
            # a map for each piece, closed again, so that what was read does not stay in memory
            load = lambda rows=rows: jax.tree.map(lambda x: _mapped(x)[rows], self.data)
            yield Piece(self._place, first, rows.stop - first, load)


def _mapped(x: Given) -> np.ndarray:
    if not isinstance(x, (str, os.PathLike)):
        return x
    with _naming(x):
        return np.load(x, mmap_mode="r")


class Blocks(Source):
    """Blocks from anything that can be iterated again and again.

    Args:
        blocks: a function without arguments that returns an iterable of blocks, or an iterable that begins
            anew each time; each block is an array, or a tree of arrays with a common leading axis.
        block_rows: rows of the blocks that a fit computes with, whatever the sizes of those given.

    Raises:
        ValueError: an iterator, which can be read only once.

    >>> import numpy, vbjax as vb
    >>> vb.sources.Blocks(lambda: (numpy.zeros((n, 2)) for n in (3, 5))).n_rows
    8
    """

    def __init__(
        self, blocks: Callable[[], Iterable[Tree]] | Iterable[Tree], *, block_rows: int = 65_536
    ) -> None:
        super().__init__(block_rows)
        if isinstance(blocks, Iterator) or not (callable(blocks) or isinstance(blocks, Iterable)):
            what = "a function that returns an iterable, or an iterable that begins anew each time"
            raise ValueError(f"blocks must be {what}; got {describe(blocks)}")
        self._given = blocks

    def _pieces(self) -> Iterator[Piece]:
        given = self._given() if callable(self._given) else self._given
        for number, rows in enumerate(given):
            rows = jax.tree.map(np.asarray, rows, is_leaf=lambda x: isinstance(x, list))
            sizes = {x.shape[:1] for x in jax.tree.leaves(rows)}
            if len(sizes) != 1 or sizes == {()}:
                raise ValueError(
                    f"block {number} must be arrays with a common leading axis; got {describe(rows)}"
                )
            yield Piece(f"block {number}", 0, sizes.pop()[0], functools.partial(_given, rows))


def _given(rows: Tree) -> Tree:
    return rows


class _Columns(Source):
    """Columns of the files of a folder, read a row group at a time."""

    suffix: str

    def __init__(self, path: str | os.PathLike, columns: Tree = None, *, block_rows: int = 65_536) -> None:
        super().__init__(block_rows)
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(f"path must be that of a file or a folder; got {describe(path)}")
        folder = Path(path).is_dir()
        self.paths = sorted(Path(path).rglob(f"*.{self.suffix}")) if folder else [Path(path)]
        if not self.paths:
            raise ValueError(f"path must be a folder with .{self.suffix} files; there is none in {path}")
        first = next(self._groups(self.paths[0]), None)
        if first is None:
            raise ValueError(f"path must have rows; there are none in {self.paths[0]}")
        names = first[0]
        self.columns = names if columns is None else columns
        asked = jax.tree.leaves(self.columns)
        if not asked or not set(asked) <= set(names):
            raise ValueError(f"columns must be names among {names}; got {describe(columns)}")

    @abc.abstractmethod
    def _groups(self, path: Path) -> Iterator[tuple[list[str], int, Callable[[list[str]], Given]]]:
        """Yield the names of a file's columns, and of every row group its size and a reader of columns."""

    def _pieces(self) -> Iterator[Piece]:
        for path in self.paths:
            for number, (_, n, read) in enumerate(self._groups(path)):
                load = functools.partial(self._load, read)
                yield Piece(f"{path}, row group {number}", 0, n, load)

    def _load(self, read: Callable[[list[str]], Given]) -> Tree:
        table = read(jax.tree.leaves(self.columns))

        def of(names: str | list[str]) -> np.ndarray:
            if isinstance(names, list):
                return np.stack([table.column(name).to_numpy() for name in names], -1)
            return table.column(names).to_numpy()

        return jax.tree.map(of, self.columns, is_leaf=lambda x: isinstance(x, list))


class Parquet(_Columns):
    """Columns of a Parquet file, or of all in a folder in the order of their names; needs pyarrow.

    Args:
        path: of the file or folder.
        columns: names of columns: a list for a table (n, d), by default all; a single name for a column (n,);
            or a tree of these, such as (["a", "b"], "y") for a regression.
        block_rows: rows of the blocks that a fit computes with, whatever the row groups.

    Raises:
        ValueError: a file that cannot be read; columns that are not in the first file.
        ImportError: without pyarrow, the extra `disk`.

    >>> import pathlib, tempfile, pyarrow, pyarrow.parquet, vbjax as vb
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.parquet")
    >>> pyarrow.parquet.write_table(pyarrow.table(dict(a=[1.0, 2.0], b=[3.0, 4.0], name=["x", "y"])), path)
    >>> print(*vb.sources.Parquet(path, columns=["b", "a"]))
    [[3. 1.]
     [4. 2.]]
    """

    suffix = "parquet"

    def _groups(self, path: Path) -> Iterator[tuple[list[str], int, Callable[[list[str]], Given]]]:
        parquet = import_extra("disk", "pyarrow.parquet")
        with _naming(path):
            file = parquet.ParquetFile(path)
        with file:
            for number in range(file.num_row_groups):
                read = lambda names, number=number: file.read_row_group(number, columns=names)
                yield file.schema_arrow.names, file.metadata.row_group(number).num_rows, read


class Arrow(_Columns):
    """Columns of an Arrow IPC file, or of all in a folder in the order of their names; needs pyarrow.

    Its record batches are the row groups. Arguments and errors are those of `Parquet`.

    >>> import pathlib, tempfile, pyarrow, vbjax as vb
    >>> table = pyarrow.table(dict(a=[1.0, 2.0], b=[3.0, 4.0]))
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.arrow")
    >>> with pyarrow.ipc.new_file(path, table.schema) as file:
    ...     file.write_table(table)
    >>> print(*vb.sources.Arrow(path))
    [[1. 3.]
     [2. 4.]]
    """

    suffix = "arrow"

    def _groups(self, path: Path) -> Iterator[tuple[list[str], int, Callable[[list[str]], Given]]]:
        pyarrow = import_extra("disk", "pyarrow")
        with _naming(path):
            file = pyarrow.ipc.open_file(pyarrow.memory_map(str(path)))
        for number in range(file.num_record_batches):
            with _naming(f"{path}, row group {number}"):
                batch = file.get_batch(number)
            yield file.schema.names, batch.num_rows, pyarrow.Table.from_batches([batch]).select
