"""The command `predict`: what a saved fit says of new rows, steps or documents, as a table in CSV.

Imported by `main`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vbjax.cli.commands import configure_process
from vbjax.cli.files import UserError, check_outputs, reading, replacing
from vbjax.cli.inputs import blocks_of, load_series, load_table
from vbjax.data import datasets
from vbjax.data.frames import Table
from vbjax.inference import saved_fits
from vbjax.inference.result import Fit
from vbjax.numerics.types import Data

_OF_ROWS = dict(responsibilities="responsibility", probabilities="probability", transform="coordinate")
_LINES = 10_000  # that are made at a time


def predict(
    path: str,
    data: str,
    *,
    out: str | None,
    columns: Sequence[str | int] | None,
    sequence: str | int | None,
) -> None:
    """Write what a fit says of new data: one line for each row, step or document.

    Args:
        path: the file of the fit.
        data: a table, series or corpus, as the fit had.
        out: the file to write; None for stdout.
        columns, sequence: the columns to take, and that which says the sequence; None for those of the fit.

    Raises:
        UserError: a file that cannot be read or written; data that are none of the fit's.
    """
    check_outputs({"the fit": path, "the data": data}, out=out, plot=None)
    configure_process()
    with reading(path):
        fit, about = saved_fits.unpack(path)
    model, uses = type(fit.model).__name__, dir(fit)
    if sequence is not None and "decode" not in uses:
        raise UserError(f"--sequence is for fits of sequences; {path} has one of {model}")
    if columns is not None and "document_topics" in uses:
        raise UserError(f"--columns is not for {model}, whose data are documents, not a table")
    if columns is None and fit.columns is not None:
        columns = fit.columns.names
    sequence = about.get("sequence") if sequence is None else sequence
    with reading(data):
        found = predictions(fit, data, columns, sequence)
    if not found:
        raise UserError(f"{path}: a fit of {model}, which predicts nothing of a table")
    if out is None:
        sys.stdout.writelines(_lines(found))
        return
    with replacing(out) as file:
        file.writelines(line.encode() for line in _lines(found))


def predictions(
    fit: Fit, path: str, columns: Sequence[str | int] | None, sequence: str | int | None
) -> dict[str, np.ndarray]:
    """Return what a fit says of the data in a file, arrays (n,) or (n, k) by the names of their columns.

    Of documents `topic` and the shares of topics; of steps `state` and the probabilities of states; of rows
    `label` or, where it is a number, `mean`, and what else the model knows of a row.
    """
    uses = dir(fit)
    if "document_topics" in uses:
        docs = datasets.read_ldac(path, fit.params.topics.concentration.shape[-1])
        shares = np.asarray(fit.document_topics(docs).mean)
        return dict(topic=shares.argmax(1), share=shares)
    kept = fit.columns
    if kept is not None and columns is not None and len(columns) != len(kept.names):
        kept = None  # the model says how many columns it takes
    labels = kept.labels if kept is not None and any(kept.labels) else None
    if "decode" in uses:
        series = load_series(path, sequence, columns, labels)
        x, back = series.sequences(), np.argsort(series.order)
        found = dict(state=fit.decode(x), probability=fit.state_probabilities(x))
        return {name: np.concatenate(each)[back] for name, each in found.items()}
    owners = (fit.model, getattr(fit.model, "component", None))
    missing = any(getattr(owner, "missing", False) for owner in owners)
    table, _ = load_table(path, columns, missing=missing, labels=labels)

    def named(rows: np.ndarray) -> Data:
        return rows if kept is None else Table(dict(zip(kept.names, np.asarray(rows).T, strict=True)))

    parts = [_of_table(fit, named(rows)) for rows in blocks_of(table)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_table(fit: Fit, rows: Data) -> dict[str, np.ndarray]:
    """Return what a fit says of rows: `label` or `mean`, and what else the model knows."""
    uses = dir(fit)
    own = np.asarray(fit.predict(rows)) if "predict" in uses else None
    found = {} if own is None else {"label" if own.dtype.kind == "i" else "mean": own}
    return found | {
        word: np.asarray(getattr(fit, use)(rows)) for use, word in _OF_ROWS.items() if use in uses
    }


def _lines(found: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Write columns as lines of CSV, with a header; numbers have the digits that tell them apart."""
    names = lambda name, x: [name] if x.ndim == 1 else [f"{name}_{j}" for j in range(x.shape[1])]
    yield ",".join(itertools.chain(*(names(name, x) for name, x in found.items()))) + "\n"
    for first in range(0, len(next(iter(found.values()))), _LINES):
        cells = np.column_stack([x[first : first + _LINES].astype(str) for x in found.values()])
        yield from (",".join(row) + "\n" for row in cells.tolist())
