"""Hostile values by kind of argument. A kind is a function of a good value; its values say whether any use of
them could be meant.

`never`: whoever accepts the value is silent about a mistake. `perhaps`: accepting and refusing are both fine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Value:
    """What is put in the place of one argument."""

    label: str
    make: Callable[[], Any]
    legitimate: bool


def never(**values: Any) -> list[Value]:
    return _values(values, False)


def perhaps(**values: Any) -> list[Value]:
    return _values(values, True)


def _values(values: dict[str, Any], legitimate: bool) -> list[Value]:
    """Functions without a name of their own are makers, everything else is the value itself."""
    makers = {label: v if _is_maker(v) else (lambda v=v: v) for label, v in values.items()}
    return [Value(label, make, legitimate) for label, make in makers.items()]


def _is_maker(value: Any) -> bool:
    return getattr(value, "__name__", "") == "<lambda>"


def no_value() -> list[Value]:
    return never(
        text="3",
        object=lambda: object(),
        imaginary=1j,
        type=int,
        dict=lambda: {"a": 1},
        generator=lambda: (i for i in range(3)),
        function=lambda: np.sin,
    )


NOT_NUMBERS = never(
    nan=float("nan"),
    inf=float("inf"),
    texts=["a", "b"],
    objects=lambda: np.array([None, object()]),
    empty=lambda: np.zeros(0),
    five_axes=lambda: np.ones((2, 1, 3, 2, 2)),
    masked=lambda: np.ma.masked_array([1.0, 2.0], [True, False]),
)
UNUSUAL_NUMBERS = perhaps(
    true=True,
    int8=lambda: np.int8(2),
    float16=lambda: np.float16(2),
    bfloat16=lambda: jnp.bfloat16(2),
    huge=1e30,
    tiny=1e-30,
)


def real(good: Any) -> list[Value]:
    return no_value() + NOT_NUMBERS + UNUSUAL_NUMBERS + perhaps(minus=-1.0, zero=0.0)


def nonnegative(good: Any) -> list[Value]:
    return no_value() + NOT_NUMBERS + UNUSUAL_NUMBERS + never(minus=-1.0) + perhaps(zero=0.0)


def positive(good: Any) -> list[Value]:
    return no_value() + NOT_NUMBERS + UNUSUAL_NUMBERS + never(minus=-1.0, zero=0.0)


def share(good: Any) -> list[Value]:
    """A number from 0 to 1."""
    return [v for v in nonnegative(good) if v.label != "huge"] + never(huge=1e30, above=1.5)


def count(good: Any) -> list[Value]:
    return no_value() + never(
        nan=float("nan"),
        inf=float("inf"),
        minus=-1,
        zero=0,
        half=2.5,
        float=2.0,
        true=True,
        list=[2],
        array=lambda: np.array([2, 2]),
        beyond=2**70,
        vast=2**40,
    )


def count_or_zero(good: Any) -> list[Value]:
    return [v for v in count(good) if v.label != "zero"] + perhaps(zero=0)


def number_of(good: Any) -> list[Value]:
    """An index, of which there are a few."""
    return no_value() + never(
        nan=float("nan"), minus=-9, half=0.5, beyond=2**70, many=99, true=True, array=lambda: np.array([0, 1])
    )


def shape(good: Any) -> list[Value]:
    """A size, or a tuple of sizes."""
    return no_value() + never(
        nan=float("nan"),
        minus=-1,
        half=2.5,
        true=True,
        halves=(2.5,),
        texts=("a",),
        minuses=(2, -1),
        nested=((2,), 2),
        float_array=lambda: np.array([2.0]),
        beyond=2**70,
        vast=(2**40,),
    )


def flag(good: Any) -> list[Value]:
    return (
        no_value()
        + never(nan=float("nan"), half=2.5, two=2, empty_text="", array=lambda: np.ones(2, bool))
        + perhaps(one=1, numpy=lambda: np.bool_(True))
    )


def choice(good: Any) -> list[Value]:
    return never(
        word="nonsense",
        empty="",
        number=3,
        bytes=b"full",
        list=["full"],
        object=lambda: object(),
        type=str,
        true=True,
        array=lambda: np.ones(2),
    )


def key(good: Any) -> list[Value]:
    return never(
        none=None,
        zero=0,
        text="key",
        object=lambda: object(),
        floats=lambda: np.zeros(2),
        signed=lambda: np.zeros(2, np.int32),
        many=lambda: jax.random.split(jax.random.key(0)),
        no_key=lambda: jax.random.split(jax.random.key(0), 0),
        maker=lambda: jax.random.key,
        dict=lambda: {"a": 1},
    ) + perhaps(raw=lambda: jax.random.PRNGKey(0))


def function(good: Any) -> list[Value]:
    return never(
        text="f",
        number=3,
        object=lambda: object(),
        no_argument=lambda: lambda: 0.0,
        gives_text=lambda: lambda *a: "x",
        gives_none=lambda: lambda *a: None,
        gives_nan=lambda: lambda *a: jnp.nan,
        gives_matrix=lambda: lambda *a: jnp.ones((5, 7)),
        type=dict,
    )


def path(good: Any) -> list[Value]:
    return never(
        none=None,
        number=3.5,
        object=lambda: object(),
        empty="",
        absent="/nowhere/at/all.csv",
        folder="/tmp",
        bytes=b"/nowhere",
        list=["a.csv"],
        zero_byte="a\0b",
    )


def optional_folder(good: Any) -> list[Value]:
    """A folder that is made where there is none: what no folder can be."""
    return [v for v in path(good) if v.label not in ("none", "empty", "absent", "folder")]


def names(good: Any) -> list[Value]:
    """One name for each of a few things."""
    return never(
        number=3,
        text="abc",
        object=lambda: object(),
        none_of_them=["nope"],
        numbers=[1.5],
        nones=[None],
        too_many=[f"name{i}" for i in range(99)],
        nested=[["a"], ["b"]],
        type=list,
        twice=["a", "a", "a", "a", "a"],
    )


def indices(good: Any) -> list[Value]:
    return never(
        text="abc",
        number=2.5,
        object=lambda: object(),
        texts=["nope"],
        halves=[0.5, 1.5],
        nones=[None],
        out=[0, 99],
        minus=[-99],
        nested=[[0], [1]],
        empty=[],
        type=list,
        nan=lambda: np.array([np.nan]),
        beyond=[2**70],
    )


def other(good: Any) -> list[Value]:
    """Anything in place of an object of a class of ours: a model, a fit, documents, a support, axes."""
    return never(
        none=None,
        text="gmm",
        number=3,
        nan=float("nan"),
        object=lambda: object(),
        type=lambda: type(good()),
        list=lambda: [],
        dict=lambda: {},
        array=lambda: np.ones((24, 2), "float32"),
        function=lambda: np.sin,
        inside=lambda: [good()],
    )


def optional_other(good: Any) -> list[Value]:
    return [v for v in other(good) if v.label != "none"]


def weights(good: Any) -> list[Value]:
    w = np.ones(24, "float32")
    at = lambda value: np.where(np.arange(24) == 5, value, w)
    return never(
        text="uniform",
        object=lambda: object(),
        scalar=1.0,
        complex=lambda: w * 1j,
        nan=lambda: at(np.nan),
        inf=lambda: at(np.inf),
        minus=lambda: at(-1),
        zeros=lambda: 0 * w,
        few=lambda: w[:3],
        table=lambda: w[:, None],
        masked=lambda: np.ma.masked_array(w, w * 0 + (np.arange(24) == 1)),
        texts=lambda: ["a"] * 24,
        ragged=lambda: [[1.0], 2.0] * 12,
        generator=lambda: (1.0 for _ in range(24)),
        dict=lambda: {"a": w},
    ) + perhaps(none=None, bools=lambda: w > 0, objects=lambda: w.astype(object))


def params(good: Any) -> list[Value]:
    """In place of the parameters of a fit."""

    def first_cells(x: Any) -> Any:
        return x[:-1] if x.ndim and x.shape[0] > 1 else x[None]

    return never(
        none=None,
        text="params",
        number=3.0,
        object=lambda: object(),
        list=lambda: [],
        array=lambda: np.ones((2, 2), "float32"),
        type=lambda: type(good()),
        other_names=lambda: {"nonsense": next(iter(jax.tree.leaves(good())))},
        fewer=lambda: jax.tree.map(first_cells, good()),
    )


def start(good: Any) -> list[Value]:
    """Parameters to start from, or none."""
    return [v for v in params(good) if v.label != "none"] + perhaps(
        nan=lambda: jax.tree.map(lambda x: x + jnp.asarray(jnp.nan, x.dtype), good())
    )
