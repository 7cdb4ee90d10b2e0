"""Rows and steps whose labels are known in part: data of semi-supervised mixtures and chains."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.devices import mesh_of, put_own
from vbjax.core.ragged import Ragged, placed
from vbjax.core.rows import n_rows
from vbjax.families.base import pytree
from vbjax.numerics.inputs import as_numbers, is_concrete, values_here
from vbjax.numerics.types import Data, Given


@pytree
class Labelled:
    """Rows with the component of each, or sequences with the state of each step, where that is known.

    They stand in the place of data, for mixtures and hidden Markov models. A known label is certain, in a fit
    and in what is asked of it: its row is from that component with probability 1, the path of states passes
    through it, and log densities are those of row and label. Component k is that of label k, and starts at a
    row with it. With all labels known the bound is that of every component on its own rows, and of the
    transitions that were counted; with none known, it is the one without labels.

    Args:
        x: data as the model takes them.
        labels: (n,), whole numbers: of the component, from 0 to k - 1, or -1 where it is not known. Of
            sequences those of all steps, missing ones too, end to end, or a list of vectors, one for each
            sequence.

    >>> import jax, numpy as np, vbjax as vb
    >>> x = np.array([[0.0], [0.1], [5.0], [5.2], [0.3], [4.9]])
    >>> data = vb.Labelled(x, [1, -1, 0, -1, -1, -1])
    >>> fit = vb.fit(vb.BayesianMixture(2, vb.components.Gaussian()), data, key=jax.random.key(0))
    >>> fit.predict(x).tolist()
    [1, 1, 0, 0, 1, 0]
    """

    x: Data
    labels: Any


def rows_of(data: Data) -> Data:
    """Return the rows of data, without labels."""
    return data.x if isinstance(data, Labelled) else data


def labels_of(data: Data) -> Int[Array, " n"] | None:
    """Return the labels of data; None where there are none."""
    return data.labels if isinstance(data, Labelled) else None


def with_rows(data: Data, rows: Data) -> Data:
    """Return the data with other rows, and the labels that they have."""
    return Labelled(rows, data.labels) if isinstance(data, Labelled) else rows


def read_labelled(data: Given, read: Callable[[Given], Data], k: int) -> Data:
    """Return data as `read` takes them, with labels from -1 to k - 1 where they have some.

    Raises:
        ValueError: what `read` raises; labels that are no whole numbers, out of range, or not one for each
            row.
    """
    if not isinstance(data, Labelled):
        return read(data)
    rows = read(data.x)
    return Labelled(rows, jnp.asarray(_read_labels(data.labels, n_rows(rows), k), jnp.int32))


def _read_labels(labels: Given, n: int | None, k: int, of: str = "rows") -> np.ndarray | Array:
    """Return labels of n rows, from -1 to k - 1; of any number where it is not known."""
    read = as_numbers(labels, "labels")
    if not jnp.issubdtype(read.dtype, jnp.integer):
        raise ValueError(f"labels must be whole numbers, -1 where unknown; got numbers of {read.dtype}")
    if read.ndim != 1 or n not in (None, len(read)):
        raise ValueError(f"labels must have one number for each of the {n} {of}; got shape {read.shape}")
    if is_concrete(read):
        wrong = ((values := values_here(read)) < -1) | (values >= k)
        if wrong.any():
            raise ValueError(
                f"labels must be from 0 to {k - 1}, or -1 where unknown; got {values[wrong][0]} "
                f"at [{wrong.argmax()}] of {of}"
            )
    return read


def label_steps(data: Ragged, labels: Given, k: int) -> Data:
    """Return sequences with the labels of their steps, from -1 to k - 1; -1 at padding.

    Raises:
        ValueError: as `read_labelled`; labels by sequence that are not one vector for each.
    """
    here = data.here()
    own = [here.order, *(part.lengths for part in here.parts)]
    known = not any(isinstance(x, jax.core.Tracer) for x in own)
    xp = np if known else jnp
    order, *each = map(xp.asarray, own)
    lengths = xp.concatenate(each)
    in_order = lengths[xp.argsort(order)]
    labels = _read_step_labels(labels, in_order.tolist() if known else [None] * len(lengths), k)
    traced = not known or isinstance(labels, jax.core.Tracer)
    xp = jnp if traced else np
    labels = xp.asarray(labels)
    starts, parts = (xp.cumsum(in_order) - in_order)[order], []
    for part, own_part in zip(data.parts, here.parts, strict=True):
        n, width = own_part.observed.shape
        there = xp.arange(width) < lengths[:n, None]
        table = xp.where(there, labels[xp.where(there, starts[:n, None] + xp.arange(width), 0)], -1)
        table = table.astype(np.int32) if traced else placed(table, np.int32)
        if not traced and (mesh := mesh_of(part)) is not None:
            table = put_own(table, mesh)
        parts.append(part._replace(labels=table))
        lengths, starts = lengths[n:], starts[n:]
    return dataclasses.replace(data, parts=tuple(parts))


def _read_step_labels(labels: Given, lengths: Sequence[int | None], k: int) -> np.ndarray | Array:
    """Return labels of the steps of sequences, end to end, (t,); lengths are None where they are traced."""
    if not (isinstance(labels, list) and labels and np.ndim(labels[0])):
        return _read_labels(labels, None if None in lengths else sum(n or 0 for n in lengths), k, "steps")
    n_empty = len(lengths) - len(labels)
    if n_empty < 0 or any(lengths[len(labels) :]):  # empty ones may follow the last
        raise ValueError(
            f"labels must be one vector for each of the {len(lengths)} sequences; got {len(labels)}"
        )
    each = zip(labels, lengths, strict=n_empty == 0)
    read = [_read_labels(x, n, k, f"steps of sequence {i}") for i, (x, n) in enumerate(each)]
    return (np if is_concrete(read) else jnp).concatenate(read)


def keep_known(
    table: Float[Array, "*n k"], labels: Int[Array, "*n"] | None, excluded: float | None = None
) -> Float[Array, "*n k"]:
    """Return a table of log probabilities with next to nothing at components that a known label excludes.

    Unless it is given, the number is finite, so that it may be multiplied by a probability of 0.
    """
    if labels is None:
        return table
    known = labels[..., None]
    possible = (known < 0) | (known == jnp.arange(table.shape[-1], dtype=labels.dtype))
    return jnp.where(possible, table, jnp.finfo(table.dtype).min / 4 if excluded is None else excluded)
