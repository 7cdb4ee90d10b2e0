"""Rows whose classes are known in part: data of semi-supervised mixtures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.rows import n_rows
from vbjax.families.base import pytree
from vbjax.numerics.inputs import as_numbers, is_concrete
from vbjax.numerics.types import Data, Given


@pytree
class Labelled:
    """Rows with the component that each is from, where that is known: it stands in the place of data.

    A known label is certain, in a fit and in what is asked of it: its row is from that component with
    probability 1, and log densities are those of row and label. Component k is that of label k, and starts at
    a row with it. With all labels known the bound is that of every component on its own rows; with none
    known, it is the one without labels.

    Args:
        x: data as a mixture takes them.
        labels: (n,), whole numbers: of the component, from 0 to k - 1, or -1 where it is not known.

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
    return Labelled(rows, _read_labels(data.labels, n_rows(rows), k))


def _read_labels(labels: Given, n: int, k: int) -> Int[Array, " n"]:
    """Return labels of n rows, from -1 to k - 1."""
    read = as_numbers(labels, "labels")
    if not jnp.issubdtype(read.dtype, jnp.integer):
        raise ValueError(f"labels must be whole numbers, -1 where unknown; got numbers of {read.dtype}")
    if read.shape != (n,):
        raise ValueError(f"labels must have one number for each of the {n} rows; got shape {read.shape}")
    if is_concrete(read):
        wrong = (np.asarray(read) < -1) | (np.asarray(read) >= k)
        if wrong.any():
            raise ValueError(
                f"labels must be from 0 to {k - 1}, or -1 where unknown; got {np.asarray(read)[wrong][0]} "
                f"at [{wrong.argmax()}]"
            )
    return jnp.asarray(read, jnp.int32)


def keep_known(table: Float[Array, "k n"], labels: Int[Array, " n"] | None) -> Float[Array, "k n"]:
    """Return a table of log probabilities with next to nothing at components that a known label excludes.

    The number is finite, so that it may be multiplied by a probability of 0.
    """
    if labels is None:
        return table
    possible = (labels < 0) | (labels == jnp.arange(len(table), dtype=labels.dtype)[:, None])
    return jnp.where(possible, table, jnp.finfo(table.dtype).min / 4)
