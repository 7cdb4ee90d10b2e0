"""Sequences of unequal length, the data of hidden Markov and state-space models.

Models of sequences and `datasets` import this file.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.tree_util import PyTreeDef
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import mesh_of, put_own_rows
from vbjax.core.ragged import Most, Ragged, groups_for, groups_like, groups_of, placed, row_numbers
from vbjax.core.rows import float_dtype
from vbjax.data.labelled import Labelled, rows_of
from vbjax.families.base import pytree
from vbjax.numerics.inputs import as_numbers, is_concrete, read_count
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model

HostOrDevice: TypeAlias = np.ndarray | Array


class Steps(NamedTuple):
    """Sequences of about the same length, padded at their ends to one length L.

    A missing step is a step of the chain of which nothing is seen; padding is no step at all.

    Attributes:
        values: pytree of leaves (n, L, ...), 0 at padding and at steps that are wholly missing; a step that
            is missing in part has NaN for the missing entries.
        observed: (n, L), true at steps that are not wholly missing.
        lengths: (n,), the number of steps of each sequence.
        labels: (n, L), the state of each step, -1 where it is not known and at padding; None if none is.
    """

    values: Tree
    observed: Bool[Array, "n t"]
    lengths: Int[Array, " n"]
    labels: Int[Array, "n t"] | None = None

    @property
    def flat(self) -> Tree:
        """Values of all steps, end to end, (n L, ...), padding too."""
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), self.values)

    @property
    def seen(self) -> Array:
        """Which entries of the values are observed, shaped as they are."""

        def entries(x: Array) -> Array:
            return self.observed.reshape(*self.observed.shape, *[1] * (x.ndim - 2)) & ~jnp.isnan(x)

        return jax.tree.map(entries, self.values)

    @property
    def filled(self) -> Array:
        """The values with 0 wherever nothing is observed."""
        return jax.tree.map(lambda x, seen: jnp.where(seen, x, 0), self.values, self.seen)


@pytree
class Sequences(Ragged):
    """Sequences of unequal length, as a pytree.

    Sequences of similar length stand together in parts (`Steps`), so that a sixth of the cells at most is
    padding and a fit compiles few shapes. `Sequences.of` and `vb.datasets.read_series` make them; `sharded`
    divides them over several devices.

    Attributes:
        parts, order, mesh: see `Ragged`.

    >>> import numpy as np, vbjax as vb
    >>> seqs = vb.Sequences.of([np.zeros((5, 2)), np.ones((3, 2))])
    >>> seqs
    Sequences(2 sequences, 8 steps of shape (2,))
    >>> seqs.lengths.tolist()
    [5, 3]
    """

    @classmethod
    def of(cls, data: Given, lengths: ArrayLike | None = None) -> Sequences:
        """Return sequences from arrays.

        A step may be a number, a vector or an array, of shape (...), or several of them: a tuple or dict of
        arrays with a common axis of steps may stand wherever an array is asked for.

        Args:
            data: a list of sequences, each an array (t, ...) with its own number of steps; or one sequence,
                an array (t, d) or (t,); or, with `lengths`, all of them end to end, an array
                (t_1 + t_2 + ..., ...). NaN and masked entries are missing. Floats keep their dtype (half
                precision becomes float32), other numbers become the default float.
            lengths: (n,), the number of steps of each sequence.

        Raises:
            ValueError: if there is no sequence, or one without a step; if the data are no numbers, or
                infinite; if the arrays of one sequence differ in their number of steps; if the steps of
                different sequences differ in shape or structure; if a single array has more than two axes;
                if `lengths` are no whole numbers of at least 1, or do not add up to the steps of the data.

        >>> import vbjax as vb
        >>> vb.Sequences.of([0, 2, 1, 1, 0], lengths=[3, 2])
        Sequences(2 sequences, 5 steps of shape ())
        """
        if isinstance(data, (Ragged, Labelled)):
            raise ValueError(f"data must be arrays; got {type(data).__name__} already")
        if lengths is None and isinstance(data, list):
            given = [_sequence(x, f"sequence {i} of data") for i, x in enumerate(data)]
            if not given:
                raise ValueError("data must have at least one sequence")
            _require_alike(given)
        else:
            given = [_sequence(data, "data")]
        own = np.array([jax.tree.leaves(x)[0].shape[0] for x in given])
        if lengths is not None:
            own = _lengths(lengths, own[0])
        elif not isinstance(data, list) and any(x.ndim > 2 for x in jax.tree.leaves(given)):
            shapes = ", ".join(str(x.shape) for x in jax.tree.leaves(given))
            hint = f"got {shapes}; list(data) is a sequence for each entry of the first axis"
            raise ValueError(f"data must be a list of sequences, or one of shape (t, d) or (t,); {hint}")
        if not own.all():
            raise ValueError(f"sequence {own.argmin()} of data must have at least one step; it has none")
        values = jax.tree.map(_end_to_end, *given)
        return cls._pack(own, values, _observed(values, own))

    @classmethod
    def _pack(cls, lengths: np.ndarray, *steps: Tree) -> Sequences:
        """Return sequences from lengths (n,) and what `_pad` takes."""
        return cls._pad(*groups_of(lengths), lengths, *steps)

    @classmethod
    def _pad(
        cls,
        groups: Sequence[np.ndarray],
        widths: Sequence[int],
        lengths: np.ndarray,
        values: Tree,
        observed: HostOrDevice,
        labels: HostOrDevice | None = None,
    ) -> Sequences:
        """Return sequences with a part for every group of them, padded to the group's width.

        Args:
            groups: numbers of the sequences of every part.
            widths: of the parts.
            lengths: (n,), of all sequences.
            values, observed, labels: of all steps, end to end, (t, ...), (t,) and (t,) or None.
        """
        starts, parts = np.cumsum(lengths) - lengths, []
        for rows, width in zip(groups, widths, strict=True):
            there = np.arange(width) < lengths[rows][:, None]
            step = (starts[rows][:, None] + np.arange(width))[there]

            def fill(x: HostOrDevice, there: np.ndarray = there, step: np.ndarray = step) -> Array:
                seen = observed[step].reshape(-1, *[1] * (x.ndim - 1))
                return _scatter(there, _library(x, seen).where(seen, x[step], 0))

            seen = _scatter(there, observed[step])
            own = None if labels is None else _scatter(there, labels[step], -1)
            parts.append(Steps(jax.tree.map(fill, values), seen, _known(lengths[rows], int), own))
        return cls(tuple(parts), _known(np.concatenate(groups), jnp.int32))

    def _flat(self, rows: np.ndarray | None = None) -> tuple[np.ndarray, Tree, np.ndarray, Tree]:
        """Return lengths and, end to end, values, observed and labels of the sequences here, or of some."""
        here = self.here()
        parts = [jax.tree.map(np.asarray, part) for part in here.parts]
        padded = [np.arange(part.observed.shape[1]) < part.lengths[:, None] for part in parts]
        lengths = np.concatenate([part.lengths for part in parts]).astype(int)
        starts, place = np.cumsum(lengths) - lengths, np.argsort(np.asarray(here.order))
        place = place if rows is None else place[rows]
        lengths, starts = lengths[place], starts[place]
        step = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)

        def flat(*leaves: np.ndarray) -> np.ndarray:
            return np.concatenate([x[there] for x, there in zip(leaves, padded, strict=True)])[step]

        steps = [(part.values, part.observed, part.labels) for part in parts]
        return lengths, *jax.tree.map(flat, *steps)

    def in_parts_of(self, other: Sequences) -> Sequences:
        """Return these sequences, followed by empty ones, in parts of the shapes that `other` has.

        If a sequence is too long for those, all parts become longer.

        Raises:
            ValueError: if there are more sequences than in `other`, or their steps have another shape or
                structure, or labels where those have none.
        """
        like = other.parts[0].values
        if _form(self.parts[0].values, 2) != _form(like, 2):
            raise ValueError(
                f"data must have steps of {_text(like, 2)}, as the first minibatch; "
                f"got {_text(self.parts[0].values, 2)}"
            )
        if (self.parts[0].labels is None) != (other.parts[0].labels is None):
            raise ValueError("data must have labels in all minibatches or in none; -1 where unknown")
        lengths, values, *marks = self._flat()
        shapes = [part.observed.shape for part in other.parts]
        lengths, groups, widths = groups_like(lengths, shapes, "sequences")
        values = jax.tree.map(lambda x, one: x.astype(one.dtype), values, like)
        return self._pad(groups, widths, lengths, values, *marks)

    def in_parts_for(self, n_devices: int, most: Most = lambda x: x) -> Sequences:
        """Return these sequences, and a few empty ones, in parts whose sizes so many devices divide."""
        lengths, *steps = self._flat()
        lengths, groups, widths = groups_for(lengths, n_devices, most)
        return self._pad(groups, widths, lengths, *steps)

    def take(self, rows: ArrayLike) -> Sequences:
        """Return some of the sequences, for example those of a fit and those held out.

        Args:
            rows: numbers of sequences, (m,), in any order and as often as wanted; or a mask, (n,).

        Raises:
            ValueError: if `rows` are neither, out of range, or empty.

        >>> import numpy as np, vbjax as vb
        >>> vb.Sequences.of([np.zeros(5), np.zeros(3), np.zeros(4)]).take([2, 0])
        Sequences(2 sequences, 9 steps of shape ())
        """
        return self._pack(*self._flat(row_numbers(rows, self.here().n_rows, "sequences")))

    def windows(self, length: int) -> Sequences:
        """Return the sequences cut into windows, each a sequence of its own: for minibatches of a long one.

        A sequence is cut into as few windows as possible, as even as possible, which follow one another. The
        transitions at the cuts are lost, and a chain's first state is then the first of a window. The
        shorter the windows, the more is lost, but no bias arises (Foti et al. 2014 lengthen windows).

        Args:
            length: the largest number of steps of a window.

        Raises:
            ValueError: if `length` is no whole number of at least 1.

        References:
            Foti, Xu, Laird & Fox (2014), Stochastic variational inference for hidden Markov models.

        >>> import numpy as np, vbjax as vb
        >>> vb.Sequences.of(np.zeros((10, 2))).windows(4).lengths.tolist()
        [4, 3, 3]
        """
        lengths, *steps = self._flat()
        number = np.maximum(-(-lengths // read_count(length, "length")), 1)
        which = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
        longer = which < np.repeat(lengths % number, number)
        return self._pack(np.repeat(lengths // number, number) + longer, *steps)

    def unpack(self, x: Sequence[Tree]) -> list[Tree]:
        """Return results that come part by part as a list of one entry for each sequence, in the given order.

        Args:
            x: for every part a pytree of arrays (n, L, ...), the part's sequences by its steps.

        Returns:
            For every sequence such a pytree of numpy arrays (t, ...), without the padding.

        Raises:
            ValueError: if the first axes of the arrays are not those of the parts; inside jit or vmap, if the
                `Sequences` themselves are traced, so that their lengths are not known.

        >>> import numpy as np, vbjax as vb
        >>> seqs = vb.Sequences.of([np.array([1.0, 2.0, 3.0]), np.array([4.0])])
        >>> print(*seqs.unpack([part.values for part in seqs.parts]))
        [1. 2. 3.] [4.]
        """
        if len(x) != len(self.parts):
            raise ValueError(f"x must be given for each of the {len(self.parts)} parts; got {len(x)}")
        if any(
            isinstance(known, jax.core.Tracer) for known in (self.order, *(p.lengths for p in self.parts))
        ):
            raise ValueError(
                "data must be arrays inside jit and vmap, whose shapes say how long they are; the lengths of "
                "traced Sequences are not known"
            )
        found: list[Tree] = []
        for part, given in zip(self.parts, x, strict=True):
            leaves, structure = jax.tree.flatten(jax.tree.map(_on_host, given))
            shape = part.observed.shape
            if any(leaf.shape[:2] != shape for leaf in leaves):
                shapes = [leaf.shape for leaf in leaves]
                raise ValueError(f"x must have leading axes {shape}, those of its part; got shapes {shapes}")
            for i, end in enumerate(np.asarray(part.lengths).tolist()):
                found.append(jax.tree.unflatten(structure, [leaf[i, :end] for leaf in leaves]))
        return [found[place] for place in np.argsort(np.asarray(self.order)).tolist()]

    def steps(self) -> Tree:
        """Return the values of all observed steps, end to end, (t, ...); inside jit with padding.

        Of sequences in several processes they are divided over the devices, and some stand twice.
        """
        if not is_concrete(self):
            return self.weighted_steps()[0]
        _, values, observed, _ = self._flat()
        values, mesh = jax.tree.map(lambda x: x[observed], values), mesh_of(self.parts)
        return values if mesh is None or not mesh.is_multi_process else put_own_rows(values, mesh)

    def weighted_steps(self, weights: Float[Array, " n"] | None = None) -> tuple[Tree, Float[Array, " t"]]:
        """Return the steps of all parts, end to end and with padding, and their weights.

        Args:
            weights: (n,), the weights of the sequences; by default 1.

        Returns:
            Values (t, ...); weights (t,), each that of its sequence, 0 where nothing is observed.
        """
        own = self.split(jnp.ones(self.n_rows, float_dtype(self)) if weights is None else weights)
        each = [jnp.where(x.observed, w[:, None], 0) for x, w in zip(self.parts, own, strict=True)]
        rows = jax.tree.map(lambda *x: jnp.concatenate(x), *(part.flat for part in self.parts))
        return rows, jnp.concatenate([w.reshape(-1) for w in each])

    @property
    def lengths(self) -> Array:
        """Number of steps of each sequence, (n,), in the order in which they were given."""
        return self.join([part.lengths for part in self.parts])

    @property
    def n_steps(self) -> Array:
        """Number of steps of all sequences, missing steps too."""
        return jnp.stack([part.lengths.sum() for part in self.parts]).sum()

    def __len__(self) -> int:
        return self.n_rows

    def __repr__(self) -> str:
        here = self.here()  # others may not print theirs
        steps = f", {here.n_steps}" if is_concrete(self) else " of"
        return f"Sequences({here.n_rows} sequences{steps} steps of {_text(self.parts[0].values, 2)})"


def for_every_step(compiled: Callable[..., Tree], model: Model, params: Record, data: Data) -> Tree:
    """Return the results of `compiled(model, params, sequences)` for every step of the data.

    For one sequence, given as arrays, these are arrays over its steps; for a list or `Sequences`, a list of
    such arrays.
    """
    read = model.read(data).here()
    found = read.unpack(compiled(model, params, read))
    return found if isinstance(rows_of(data), (list, Sequences)) else found[0]


def _form(values: Tree, axes: int) -> tuple[PyTreeDef, list[tuple[int, ...]]]:
    """Return structure and shapes of a step; the arrays have `axes` leading axes before those of a step."""
    leaves, structure = jax.tree.flatten(values)
    return structure, [x.shape[axes:] for x in leaves]


def _text(values: Tree, axes: int) -> str:
    """Return structure and shapes of a step in words, for errors."""
    structure, shapes = _form(values, axes)
    if jax.tree_util.treedef_is_leaf(structure):
        return f"shape {shapes[0]}"
    return f"shapes {jax.tree.unflatten(structure, shapes)}"


def _on_host(x: HostOrDevice) -> HostOrDevice:
    """Return the array as numpy's, unless it is traced."""
    return x if isinstance(x, jax.core.Tracer) else np.asarray(x)


def _library(*x: HostOrDevice) -> Any:
    """Return the module that computes with these arrays: numpy, or jax.numpy if one is traced."""
    return jnp if any(isinstance(leaf, jax.core.Tracer) for leaf in x) else np


def _scatter(there: np.ndarray, x: HostOrDevice, blank: int = 0) -> Array:
    """Return a table on the device with the entries of x in order where `there` (n, t), `blank` elsewhere."""
    table = _library(x).full(there.shape + x.shape[1:], blank, x.dtype)
    if isinstance(table, np.ndarray):
        table[there] = x
        return placed(table)
    return table.at[np.nonzero(there)].set(x)


def _known(x: np.ndarray, dtype: DTypeLike) -> Any:
    """Return what shapes say: on the device, but inside jit on the host, where it stays known."""
    return placed(x, dtype) if is_concrete(()) else x.astype(jax.dtypes.canonicalize_dtype(dtype))


def _sequence(x: Given, name: str) -> Tree:
    """Return arrays of numbers with a common axis of steps; lists become arrays."""
    x = jax.tree.map(
        lambda leaf: _on_host(as_numbers(leaf, name, missing=True)),
        x,
        is_leaf=lambda leaf: isinstance(leaf, list),
    )
    shapes = [leaf.shape for leaf in jax.tree.leaves(x)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        hint = "; a single sequence is an array, not a list of numbers" if shapes == [()] else ""
        raise ValueError(f"{name} must be arrays with a common axis of steps; got shapes {shapes}{hint}")
    if not sum(math.prod(shape[1:]) for shape in shapes):
        raise ValueError(f"{name} must have at least one number in a step; got shapes {shapes}")
    return x


def _require_alike(given: Sequence[Tree]) -> None:
    """Raise a ValueError unless the steps of all sequences have one structure and shape."""
    first = _form(given[0], 1)
    for i, x in enumerate(given):
        if _form(x, 1) != first:
            raise ValueError(
                f"sequence {i} of data must have steps of {_text(given[0], 1)}, as sequence 0; "
                f"got {_text(x, 1)}"
            )


def _lengths(lengths: ArrayLike, n: int) -> np.ndarray:
    """Return lengths of sequences that add up to n steps."""
    if isinstance(lengths, jax.core.Tracer):
        raise ValueError("lengths must be known: give them as a list or a numpy array, not traced")
    read = np.asarray(as_numbers(lengths, "lengths"))
    if read.ndim != 1 or not read.size or not np.issubdtype(read.dtype, np.integer):
        what = f"{read.dtype} of shape {read.shape}"
        raise ValueError(f"lengths must be whole numbers, one for each sequence; got {what}")
    if read.min() < 1:
        raise ValueError(f"lengths must be at least 1; sequence {read.argmin()} has {read.min()}")
    if read.sum() != n:
        raise ValueError(f"lengths must add up to the {n} steps of data; they add up to {read.sum()}")
    return read.astype(int)


def _end_to_end(*leaves: HostOrDevice) -> HostOrDevice:
    """Return one floating array (t, ...) of the arrays end to end, float32 at least."""
    floating = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.floating)]
    kinds = [np.dtype(np.float32) if dtype.itemsize < 4 else dtype for dtype in floating]
    dtype = functools.reduce(np.promote_types, kinds) if kinds else jnp.result_type(float)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused later
        return _library(*leaves).concatenate([x.astype(dtype, copy=False) for x in leaves])


def _observed(values: Tree, lengths: np.ndarray) -> HostOrDevice:
    """Return which steps (t,) are not wholly missing; raise a ValueError if a value is infinite."""
    flat = [x.reshape(x.shape[0], -1) for x in jax.tree.leaves(values)]
    if _library(*flat) is np:
        infinite = functools.reduce(np.logical_or, (np.isinf(x).any(1) for x in flat))
        if infinite.any():
            step, ends = infinite.argmax(), np.cumsum(lengths)
            row = np.searchsorted(ends, step, side="right")
            place = f"step {step - ends[row] + lengths[row]} of sequence {row}"
            raise ValueError(f"data must be finite, or NaN where missing; {place} has an infinity")
    return ~functools.reduce(operator.and_, (_library(x).isnan(x).all(1) for x in flat))
