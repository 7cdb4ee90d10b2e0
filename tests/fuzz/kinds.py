"""The kinds of arguments by name, as `subjects` writes them: those of `values` and `data`, and small ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import data, own, values
from .values import Value, never, no_value, perhaps


def without(kind: Any, *labels: str) -> Callable[[Any], list[Value]]:
    return lambda good: [v for v in kind(good) if v.label not in labels]


def optional(kind: Any) -> Callable[[Any], list[Value]]:
    """An argument that may be left out by None."""
    return lambda good: [v for v in kind(good) if v.label != "none"]


def value(good: Any) -> list[Value]:
    """A number, or an array of any shape, to be computed with."""
    return (
        [v for v in no_value() if v.label != "imaginary"]
        + never(
            none=None,
            complex=lambda: np.asarray(good()) + 1j,
            texts=lambda: np.full(np.shape(good()), "a"),
            objects=lambda: np.full(np.shape(good()), object()),
            masked=lambda: np.ma.masked_array(good(), np.ones(np.shape(good()), bool)),
            ragged=lambda: [[1.0], [1.0, 2.0]],
        )
        + perhaps(
            float16=lambda: np.asarray(good()).astype("float16"),
            bfloat16=lambda: jnp.asarray(good(), jnp.bfloat16),
            list=lambda: np.asarray(good()).tolist(),
        )
    )


def array(good: Any) -> list[Value]:
    """An array of a shape that the other arguments give."""
    return value(good) + never(
        seven=lambda: np.ones(7, "float32"),
        cube=lambda: np.ones((3, 5, 7), "float32"),
        empty=lambda: np.zeros((0, 0)),
    )


def probabilities(good: Any) -> list[Value]:
    return array(good) + never(minus=lambda: -np.asarray(good()), nan=lambda: np.asarray(good()) * np.nan)


def matrix(good: Any) -> list[Value]:
    return array(good) + never(
        oblong=lambda: np.asarray(good())[..., :1],
        nan=lambda: np.asarray(good()) * np.nan,
    )


def log_likelihood(good: Any) -> list[Value]:
    return array(good) + never(
        nan=lambda: np.asarray(good()) * np.nan,
        inf=lambda: np.asarray(good()) + np.inf,
        no_steps=lambda: np.asarray(good())[:0],
        a_state_more=lambda: np.ones((24, 3), "float32"),
    )


def log_weights(good: Any) -> list[Value]:
    """Logarithms, -inf among them."""
    return array(good) + never(
        nan=lambda: np.asarray(good()) * np.nan, inf=lambda: np.asarray(good()) + np.inf
    )


def labels(good: Any) -> list[Value]:
    return (
        data.few_rows(good)
        + never(
            minus=lambda: np.asarray(good()) - 5,
            vast=lambda: np.where(np.arange(24) == 3, 10**9, good()),
            half=lambda: np.asarray(good()) + 0.5,
            few=lambda: np.asarray(good())[:5],
        )
        + perhaps(one_label=lambda: np.zeros(24, int), floats=lambda: np.asarray(good(), float))
    )


def end(good: Any) -> list[Value]:
    """An end of an interval."""
    return (
        no_value()
        + never(
            nan=float("nan"),
            texts=["a"],
            complex=1j,
            infinite=-float("inf"),
            above=float("inf"),
            wrong_shape=lambda: np.zeros(7),
            empty=lambda: np.zeros(0),
            masked=lambda: np.ma.masked_array([0.0, 1.0], [True, False]),
            beyond_the_other=lambda: 5.0 if good() == 0 else -5.0,
            the_other=lambda: 1.0 - good(),
        )
        + perhaps(none=None, true=True, float16=lambda: np.float16(good()))
    )


def end_alone(good: Any) -> list[Value]:
    """An end without another."""
    return [v for v in end(good) if v.label not in ("beyond_the_other", "the_other")]


def dtype(good: Any) -> list[Value]:
    return never(
        text="nonsense",
        number=3,
        object=lambda: object(),
        complex="complex64",
        of_texts="U3",
        of_objects=object,
        array=lambda: np.ones(2),
        list=["float32"],
        nan=float("nan"),
        dates="datetime64[s]",
    ) + perhaps(int8="int8", float16="float16", none=None, python=float, bools=bool)


def tokens(good: Any) -> list[Value]:
    return never(
        none=None,
        text="to be or not",
        number=3,
        object=lambda: object(),
        empty=[],
        uncut=["to be", "or not"],
        numbers=[[1, 2], [3]],
        bags=[[(0, 1), (3, 2)], [(1, 1)]],
        nones=[None],
        bytes=[[b"to"]],
        nested=[[["to"]]],
        type=list,
        dict=lambda: {"a": 1},
        nan=[[float("nan")]],
    ) + perhaps(generator=lambda: (["a"] for _ in range(3)), empty_text=[[], ["a"]])


def vocabulary(good: Any) -> list[Value]:
    return never(
        none=None,
        number=3,
        text="abcde",
        object=lambda: object(),
        empty=[],
        few=["a"],
        numbers=[1, 2, 3, 4, 5],
        nones=[None] * 5,
        twice=["a"] * 5,
        bytes=[b"a"] * 5,
        type=list,
    ) + perhaps(array=lambda: np.array(["a", "b", "c", "d", "e"]))


def words_to_count(good: Any) -> list[Value]:
    """A vocabulary to choose from, of any length."""
    return [v for v in vocabulary(good) if v.label not in ("none", "few")]


def lengths(good: Any) -> list[Value]:
    return never(
        text="3",
        object=lambda: object(),
        number=24,
        halves=[10.5, 13.5],
        short=[3, 4],
        long=[20, 20],
        minus=[30, -6],
        nan=[float("nan"), 24.0],
        texts=["a", "b"],
        nested=[[10], [14]],
        nones=[None, None],
        beyond=[2**70, 1],
        complex=[10j, 14],
        type=list,
        empty=[],
    ) + perhaps(zero=[0, 24], floats=[10.0, 14.0], array=lambda: np.array([10, 14]))


def length(good: Any) -> list[Value]:
    return (
        no_value()
        + never(minus=-1, long=99, half=2.5, nan=float("nan"), many=lambda: np.array([2, 3]), beyond=2**70)
        + (perhaps(zero=0, none=None))
    )


def column_name(good: Any) -> list[Value]:
    return never(
        word="nope",
        minus=-9,
        many=99,
        half=0.5,
        list=["who"],
        object=lambda: object(),
        nan=float("nan"),
        empty="",
        type=str,
        true=True,
        beyond=2**70,
    ) + perhaps(none=None, number=2)


def anything(good: Any) -> list[Value]:
    """Data of a function of the user's, which may take anything."""
    return (
        perhaps(number=3.0, dict=lambda: {"a": np.ones(3)}, array=lambda: np.ones((24, 2), "float32"))
        + never(
            text="a",
            object=lambda: object(),
            texts=["a"],
            complex=lambda: np.ones(3) * 1j,
            type=int,
        )
        + perhaps(nan=lambda: np.full(3, np.nan))
    )


def float_dtype(good: Any) -> list[Value]:
    return dtype(good) + never(whole="int32")


def states(good: Any) -> list[Value]:
    """States by name, of no model in particular: they may have any plates."""
    return [Value(v.label, v.make, v.label == "fewer") for v in values.params(good)]


def title(good: Any) -> list[Value]:
    """What the one thing shall be called: any name will do."""
    return [Value(v.label, v.make, v.label == "none_of_them") for v in values.names(good)]


def draw(good: Any) -> list[Value]:
    """A value of a latent, of a scalar or a location with its precision."""
    return no_value() + never(
        none=None,
        texts=["a", "b"],
        objects=lambda: np.array([None, object()]),
        ragged=[[1.0], [1.0, 2.0]],
    )


def tolerance(good: Any) -> list[Value]:
    """A number of at least 0, any."""
    return [v for v in values.nonnegative(good) if v.label != "inf"] + perhaps(inf=float("inf"))


def state_of(good: Any) -> list[Value]:
    """Another state of a family."""
    import vbjax as vb

    return [v for v in values.other(good) if v.label != "type"] + never(
        another=lambda: (
            vb.StickBreaking(7).neutral("float32")
            if "Normal" in type(good()).__name__
            else vb.Normal((7,)).neutral("float32")
        ),
        family=vb.Gamma,
    )


def component(good: Any) -> list[Value]:
    """What a row is like, given its label."""
    import vbjax as vb

    return (
        values.other(good)
        + never(
            mixture=lambda: vb.GaussianMixture(2),
            k_means=lambda: vb.KMeans(2),
            own=lambda: vb.BayesianLinearRegression(),
            a_chain=lambda: vb.HiddenMarkovModel(2, good()),
            family=vb.Gamma(),
            mixing=lambda: vb.labels.Weights(),
            base=lambda: vb.components.Component,
            nothing_nested=lambda: vb.components.Mixture(2),
            a_type_nested=lambda: vb.components.Mixture(2, vb.components.Poisson),
        )
        + perhaps(of_five=lambda: dataclasses.replace(good(), n_laws=5))
    )


def laws(good: Any) -> list[Value]:
    """A number of laws, and what they are."""
    return values.other(good) + never(
        component=lambda: good()[1],
        none_of_them=lambda: (0, good()[1]),
        half_of_them=lambda: (0.5, good()[1]),
        too_many=lambda: (7, good()[1]),
        a_type=lambda: (1, type(good()[1])),
        three=lambda: (*good(), 1),
    )


def items(good: Any) -> list[Value]:
    """Names of items, perhaps with the numbers of their levels."""
    return never(
        none=None,
        number=2,
        text="agree",
        nothing=[],
        numbers=[0, 1],
        half=dict(agree=0.5, colour=3),
        minus=dict(agree=-1, colour=3),
        too_few=dict(agree=1, colour=3),
        another=["agree", "size"],
        of_a_factor=["agree", "weights"],
        object=lambda: object(),
    ) + perhaps(more=dict(agree=3, colour=4), one=["agree", "colour"])


def answers(good: Any) -> list[Value]:
    """Answers by item."""
    changed = lambda x: good() | dict(colour=x(good()["colour"]))
    return never(
        none=None,
        text="a",
        object=lambda: object(),
        array=lambda: np.ones((24, 2), "float32"),
        one_too_few=lambda: dict(agree=good()["agree"]),
        minus=lambda: changed(lambda x: x - 2),
        half=lambda: changed(lambda x: x + 0.5),
        short=lambda: changed(lambda x: x[1:]),
        column=lambda: changed(lambda x: x[:, 0]),
        infinite=lambda: changed(lambda x: x * np.inf),
    ) + perhaps(missing=lambda: changed(lambda x: x * np.nan))


def mixing(good: Any) -> list[Value]:
    """Who chooses a row's component."""
    import vbjax as vb

    return (
        values.other(good)
        + never(
            component=lambda: vb.components.Poisson(),
            family=lambda: vb.Dirichlet(2),
            state=lambda: vb.Dirichlet(2).neutral("float32"),
            shares=[0.5, 0.5],
            base=lambda: vb.labels.Labels,
            bad_inside=lambda: vb.labels.Weights(concentration="1"),
        )
        + perhaps(
            process=lambda: vb.labels.StickBreaking(), of_five=lambda: vb.labels.Weights(n_components=5)
        )
    )


def chaining(good: Any) -> list[Value]:
    """Who chooses a step's state."""
    import vbjax as vb

    return (
        values.other(good)
        + never(
            component=lambda: vb.components.Poisson(),
            family=lambda: vb.MarkovChain(2),
            mixing=lambda: vb.labels.Weights(),
            base=lambda: vb.labels.Labels,
            bad_inside=lambda: vb.labels.Chain(stickiness="1"),
        )
        + perhaps(hdp=lambda: vb.labels.HDPChain(), of_five=lambda: vb.labels.Chain(n_components=5))
    )


KINDS: dict[str, Callable[[Any], list[Value]]] = {
    **{
        name: getattr(values, name)
        for name in (
            "real",
            "nonnegative",
            "positive",
            "share",
            "count",
            "count_or_zero",
            "number_of",
            "shape",
            "flag",
            "choice",
            "key",
            "function",
            "path",
            "optional_folder",
            "names",
            "indices",
            "other",
            "optional_other",
            "weights",
            "params",
        )
    },
    **{
        name: getattr(data, name)
        for name in (
            "cells",
            "rows",
            "holed_rows",
            "few_rows",
            "few_holed_rows",
            "whole_rows",
            "binary_rows",
            "positive_rows",
            "planes",
            "few_planes",
            "documents",
            "corpus",
        )
    },
    "value": value,
    "probabilities_value": probabilities,
    "matrix_value": matrix,
    "matrix_term": without(matrix, "nan"),
    "statistics": without(values.other, "array"),
    "log_likelihood": log_likelihood,
    "log_weights": log_weights,
    "labels": labels,
    "end": end,
    "end_alone": end_alone,
    "dtype": dtype,
    "tokens": tokens,
    "vocabulary": vocabulary,
    "optional_vocabulary": words_to_count,
    "lengths": lengths,
    "length": length,
    "column_name": column_name,
    "anything": anything,
    "array_value": array,
    "float_dtype": float_dtype,
    "states": states,
    "title": title,
    "draw": draw,
    "state_of": state_of,
    "factors": own.factors,
    "hyper": own.hyper,
    "local": own.local,
    "blocks": own.blocks,
    "component": component,
    "laws": laws,
    "items": items,
    "answers": answers,
    "mixing": mixing,
    "chaining": chaining,
    "score": without(values.real, "huge", "five_axes", "empty"),
    "forgetting": without(values.share, "zero"),
    "total": without(values.count_or_zero, "beyond", "vast", "float", "true"),
    "optional_flag": optional(values.flag),
    "optional_count": optional(values.count),
    "some_of_k": without(optional(values.count), "float"),
    "optional_params": values.start,
    "tolerance": tolerance,
    "quantile": without(values.share, "five_axes", "empty"),
    "display_vocabulary": without(vocabulary, "twice"),
    "sequence_rows": data.sequences(data.holed_rows),
    "few_sequence_rows": data.sequences(data.few_holed_rows),
    "number_sequences": data.number_sequences,
    "count_sequences": data.sequences(data.whole_rows),
    "positive_sequences": data.sequences(data.positive_rows),
    "design": data.pair(data.rows, data.rows),
    "labelled": data.pair(data.rows, data.binary_rows),
    "measured": data.pair(data.rows, data.positive_rows),
    "grouped": data.pair(data.rows, data.whole_rows),
    "few_design": data.pair(data.few_rows, data.few_rows),
    "nothing": lambda good: never(
        table=lambda: np.ones((24, 2), "float32"), text="a", object=lambda: object()
    ),
}
