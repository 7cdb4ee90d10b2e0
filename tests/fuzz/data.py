"""Hostile data, made of good rows, counts, documents and sequences: kinds of arguments, as in `values`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from .values import Value, never, perhaps

MISSING = ("nan", "all_nan", "masked", "nones")  # where missing entries are an option


def rows(good: Callable[[], Any]) -> list[Value]:
    """An array of finite numbers with rows first."""
    return _no_rows() + _shapes(good) + _entries(good) + _dtypes(good) + _contents(good)


def holed_rows(good: Callable[[], Any]) -> list[Value]:
    """The same where NaN are missing entries."""
    return [Value(v.label, v.make, v.legitimate or v.label in MISSING) for v in rows(good)]


def few_rows(good: Callable[[], Any]) -> list[Value]:
    """A selection of these, for the many methods that take rows."""
    chosen = (
        "none",
        "text",
        "object",
        "type",
        "list",
        "ragged",
        "texts",
        "complex",
        "an_axis_more",
        "an_axis_less",
        "columns_more",
        "nan",
        "inf",
        "masked",
        "float16",
        "objects",
        "one",
    )
    return [v for v in rows(good) if v.label in chosen]


def few_holed_rows(good: Callable[[], Any]) -> list[Value]:
    chosen = {v.label for v in few_rows(good)}
    return [v for v in holed_rows(good) if v.label in chosen]


def whole_rows(good: Callable[[], Any]) -> list[Value]:
    """Whole numbers of at least 0."""
    return rows(good) + never(minus=lambda: _put(good, -1), half=lambda: _put(good, 0.5))


def binary_rows(good: Callable[[], Any]) -> list[Value]:
    return whole_rows(good) + never(two=lambda: _put(good, 2))


def positive_rows(good: Callable[[], Any]) -> list[Value]:
    return rows(good) + never(minus=lambda: _put(good, -1), zero=lambda: _put(good, 0))


def pair(first: Any, second: Any) -> Callable[[Callable[[], Any]], list[Value]]:
    """Two arrays: each of them hostile in its turn, and what is no pair."""

    def kind(good: Callable[[], Any]) -> list[Value]:
        values = [
            Value(f"first_{v.label}", lambda v=v: (v.make(), good()[1]), v.legitimate)
            for v in first(lambda: good()[0])
        ]
        values += [
            Value(f"second_{v.label}", lambda v=v: (good()[0], v.make()), v.legitimate)
            for v in second(lambda: good()[1])
        ]
        return (
            values
            + _no_rows()
            + never(
                swapped=lambda: good()[::-1],
                first_alone=lambda: good()[0],
                three=lambda: (*good(), good()[1]),
                dict=lambda: dict(zip("xy", good(), strict=True)),
                fewer=lambda: (good()[0], good()[1][:5]),
            )
        )

    return kind


def planes(good: Callable[[], Any]) -> list[Value]:
    """Two tables of as many columns: swapped, they are another pair of that kind."""
    return [Value(v.label, v.make, v.legitimate or v.label == "swapped") for v in pair(rows, rows)(good)]


def few_planes(good: Callable[[], Any]) -> list[Value]:
    """A selection of these."""
    chosen = {v.label for v in pair(few_rows, few_rows)(good)}
    return [v for v in planes(good) if v.label in chosen]


def documents(good: Callable[[], Any]) -> list[Value]:
    """In place of `Documents`."""
    return (
        _no_rows()
        + never(
            words=lambda: [["to", "be"], ["or"]],
            minus=lambda: np.array([[1, -1, 0, 2, 1]] * 6),
            half=lambda: np.array([[1, 0.5, 0, 2, 1]] * 6),
            nan=lambda: np.array([[1, np.nan, 0, 2, 1]] * 6),
            complex=lambda: np.ones((6, 5)) * 1j,
            cube=lambda: np.ones((2, 6, 5)),
            triples=lambda: [[(0, 1, 2)]],
            huge_word=lambda: [[(2**62, 1)]],
            huge_count=lambda: [[(0, 2**62)]],
            masked=lambda: np.ma.masked_array(np.ones((6, 5)), np.eye(6, 5)),
            texts=lambda: np.full((6, 5), "a"),
        )
        + perhaps(
            table=lambda: np.ones((6, 5), int),
            empty=lambda: np.zeros((6, 5), int),
            bools=lambda: np.ones((6, 5), bool),
            int8=lambda: np.ones((6, 5), np.int8),
        )
    )


def corpus(good: Callable[[], Any]) -> list[Value]:
    """What documents are made of."""
    return documents(good) + never(flat_pairs=lambda: [(0, 1), (1, 2)], pair_of_text=lambda: [[("a", 1)]])


def sequences(kind: Any) -> Callable[[Callable[[], Any]], list[Value]]:
    """One sequence, or a list of them, of rows of a kind."""

    def values(good: Callable[[], Any]) -> list[Value]:
        own = [Value(v.label, v.make, v.legitimate or v.label in MISSING) for v in kind(good)]
        return (
            own
            + never(
                other_columns=lambda: [good(), np.ones((5, 7), "float32")],
                a_text_among=lambda: [good(), "a"],
                none_among=lambda: [good(), None],
            )
            + perhaps(two=lambda: [good()[:10], good()[10:]], an_empty_one=lambda: [good(), good()[:0]])
        )

    return values


def number_sequences(good: Callable[[], Any]) -> list[Value]:
    """Sequences of vectors, or of numbers: one, or several of unequal length."""
    own = sequences(holed_rows)(good)
    return [Value(v.label, v.make, v.legitimate or v.label in ("an_axis_less", "ragged")) for v in own]


def cells(good: Callable[[], Any]) -> list[Value]:
    """A table of any number of axes."""
    any_axes = ("an_axis_less", "an_axis_more")
    return [Value(v.label, v.make, v.legitimate or v.label in any_axes) for v in rows(good)]


def _no_rows() -> list[Value]:
    return never(
        none=None,
        text="data.csv",
        number=3.0,
        object=lambda: object(),
        type=int,
        list=lambda: [],
        a_dict=lambda: {},
        generator=lambda: (i for i in range(3)),
        function=lambda: np.sin,
    )


def _shapes(good: Callable[[], Any]) -> list[Value]:
    return never(
        an_axis_more=lambda: good()[None],
        an_axis_less=lambda: good()[:, 0] if good().ndim > 1 else good()[0],
        no_rows=lambda: good()[:0],
        ragged=lambda: [[1.0], [1.0, 2.0]] * 12,
        no_columns=lambda: np.zeros((24, 0), "float32"),
    ) + perhaps(
        one=lambda: good()[:1],
        columns_more=lambda: np.concatenate([good(), good()], -1) if good().ndim > 1 else good(),
        nested=lambda: good().tolist(),
    )


def _entries(good: Callable[[], Any]) -> list[Value]:
    return never(
        nan=lambda: _put(good, np.nan),
        all_nan=lambda: good() * np.float32(np.nan),
        inf=lambda: _put(good, np.inf),
        masked=lambda: np.ma.masked_array(good(), _put(lambda: np.zeros(good().shape), 1)),
        texts=lambda: good().astype(str).tolist() and np.full(good().shape, "a"),
        complex=lambda: good() + 1j,
        nones=lambda: np.where(_put(lambda: np.zeros(good().shape), 1) == 1, None, good().astype(object)),
        dates=lambda: np.full(good().shape, np.datetime64("2020-01-01")),
    )


def _dtypes(good: Callable[[], Any]) -> list[Value]:
    return perhaps(
        float16=lambda: good().astype("float16"),
        bfloat16=lambda: jnp.asarray(good(), jnp.bfloat16),
        int8=lambda: good().astype("int8"),
        bools=lambda: good() > 1,
        objects=lambda: good().astype(object),
        longdouble=lambda: good().astype(np.longdouble),
    )


def _contents(good: Callable[[], Any]) -> list[Value]:
    return perhaps(
        constant=lambda: np.ones_like(good()),
        zeros=lambda: np.zeros_like(good()),
        duplicates=lambda: np.repeat(good()[:1], len(good()), 0),
        huge=lambda: (good() * 1e30).astype("float32"),
        tiny=lambda: (good() * 1e-30).astype("float32"),
        offset=lambda: (good() + 1e6).astype("float32"),
        outlier=lambda: _put(good, 1e9),
        negative=lambda: -good(),
    )


def _put(good: Callable[[], Any], value: float) -> Any:
    """The good array with one other entry."""
    x = np.array(good())
    x = x if float(value).is_integer() else x.astype("float32")
    x.reshape(-1)[3] = value
    return x
