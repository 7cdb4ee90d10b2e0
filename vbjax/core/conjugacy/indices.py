"""Numbers of groups in the data of a model of one's own: each must be that of a cell, in every row.

JAX clamps an index that is out of range, and rows of another group would be fitted in silence. Where a column
of the data is the index, its least and greatest are looked at; all else is run over the rows, without
anything but what the indices are made from. Imported by check.py alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from jax import Array
from jax.experimental import checkify

from vbjax.core.conjugacy.remedies import operations
from vbjax.core.rows import float_dtype
from vbjax.families.cells import axes_taken, numbers_of, record_reads
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel


class Read(NamedTuple):
    """Cells of a factor that are chosen by a column of the data.

    Attributes:
        what: the factor and its plate, in words.
        size: of the axis.
        leaf: the number of the column among the leaves of the data.
    """

    what: str
    size: int
    leaf: int


class Reads(NamedTuple):
    """Indices of a log likelihood; `others` says whether some are more than a column of the data."""

    of_columns: tuple[Read, ...]
    others: bool


def find_reads(model: ConjugateModel, s: Record, rows: Data) -> Reads:
    """Trace the log likelihood at shapes alone; return which indices into plates, or any arrays, it has."""
    names: dict[int, str] = {}
    leaves: dict[int, int] = {}
    noted: list[Tree] = []

    def traced(s: Record, rows: Data) -> Array:
        names.update((id(t), f"s.{name}") for name, t in s.items())
        leaves.update((id(leaf), number) for number, leaf in enumerate(jax.tree.leaves(rows)))
        with record_reads() as reads:
            row = model.likelihood(s, rows)
        noted[:] = s, rows, reads  # kept, so that no other object takes the place of one of these
        return row

    program = jax.make_jaxpr(traced)(s, rows)
    of_columns, n_arrays = [], 0
    for t, cells in noted[-1]:
        what = f"{names.get(id(t), type(t).__name__)}, whose plate is {t.plate},"
        if all(id(part) in leaves for part in cells if isinstance(part, jax.core.Tracer)):
            sizes = iter(t.plate)
            taken = [(part, [next(sizes) for _ in range(axes_taken(part))]) for part in cells]
            columns = [Read(what, own[0], leaves[id(part)]) for part, own in taken if id(part) in leaves]
            n_arrays += len(jax.tree.leaves(t)) if columns else 0
            of_columns += columns
    n_gathers = sum(name in ("gather", "dynamic_slice") for name in operations(program.jaxpr))
    return Reads(tuple(dict.fromkeys(of_columns)), n_gathers > n_arrays)


def require_cells(model: ConjugateModel, data: Data, reads: Reads) -> None:
    """Look at the indices of all rows; nothing, where the data are traced.

    Raises:
        ValueError: one that is out of range; it names the factor, its plate, and the value.
    """
    if data is None or not is_concrete((model, data)):
        return
    leaves = jax.tree.leaves(data)
    for what, size, number in reads.of_columns:
        values = np.asarray(leaves[number])
        for at in (values.argmin(), values.argmax()) if values.size else ():
            place = np.unravel_index(at, values.shape)
            if not 0 <= (value := int(values[place])) < size:
                place_words = f"at {value} in row {place[0]} of the data"
                negative = ", and none is counted from the end" if value < 0 else ""
                raise ValueError(f"log_likelihood reads {what} {place_words}: {numbers_of(size)}{negative}")
    if reads.others and (message := _beyond(model, data).get()):
        factors = ", ".join(f"{name}: {family}" for name, family in model.factors.items())
        raise ValueError(
            f"log_likelihood has an index that is out of range, over the factors {factors}: "
            f"{message.splitlines()[0]}"
        )


@jit
def _beyond(model: ConjugateModel, data: Data) -> Tree:
    """Find the first index of the log likelihood that is out of range, if there is one."""
    dtype = float_dtype((model, data))
    families = {**model.factors, **model.local(data)}
    s = Record({name: family.zero_statistics(dtype) for name, family in families.items()})
    with jax.numpy_dtype_promotion("standard"):  # checkify's own
        return checkify.checkify(model.likelihood, errors=checkify.index_checks)(s, data)[0]
