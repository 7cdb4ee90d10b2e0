"""Laws of sequences.

The same sequences come back however they are given and whatever the order of their lengths: a list, one
array with lengths, some taken from more, windows. Every step stands in one part, of which little is padding;
missing steps are steps of which nothing is seen, and so are masked ones. Traced arrays are the sequences that
they are outside of the program. What is no sequence is refused with its place.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vbjax as vb
from vbjax.core.rows import sum_over_rows
from vbjax.data.sequences import Sequences

some_lengths = st.lists(st.integers(1, 60), min_size=1, max_size=30)


def series(lengths, *shape, dtype="float32"):
    """Sequences of numbers none of which is 0 or comes twice."""
    steps = 1 + np.arange(sum(lengths) * int(np.prod(shape)), dtype=dtype).reshape(-1, *shape)
    return np.split(steps, np.cumsum(lengths)[:-1])


def values(sequences):
    """The sequences, NaN at every step of which nothing is seen."""

    def blank(x, observed):
        return np.where(observed.reshape(observed.shape + (1,) * (x.ndim - 2)), x, np.array(np.nan, x.dtype))

    return sequences.unpack(
        [jax.tree.map(lambda x, p=p: blank(x, p.observed), p.values) for p in sequences.parts]
    )


def assert_same(found, expected):
    assert len(found) == len(expected)
    chex.assert_trees_all_equal(found, expected)


def assert_equal(one, other):
    chex.assert_trees_all_equal(one, other)


# -- the same sequences ------------------------------------------------------------------------------


@settings(max_examples=20)
@given(some_lengths, st.sampled_from([(), (2,), (2, 3)]), st.integers(0, 2**32 - 1))
def test_sequences_come_back_in_their_order_and_a_sixth_is_padding(lengths, shape, seed):
    given = series(lengths, *shape)
    sequences = Sequences.of(given)
    assert_same(values(sequences), given)
    assert_equal(Sequences.of(np.concatenate(given), lengths), sequences)
    np.testing.assert_array_equal(sequences.lengths, lengths)
    assert len(sequences) == len(lengths)
    cells = sum(part.observed.size for part in sequences.parts)
    assert cells * 5 / 6 <= sum(lengths)
    for part in sequences.parts:  # what is padding is 0 and not observed
        there = np.arange(part.observed.shape[1]) < part.lengths[:, None]
        np.testing.assert_array_equal(part.observed, there)
        assert not np.asarray(part.values)[~there].any()
    rows = np.random.default_rng(seed).integers(len(lengths), size=7)
    assert_equal(sequences.take(rows), Sequences.of([given[i] for i in rows]))


def test_one_array_is_one_sequence_and_a_tuple_of_them_too():
    x, y = np.ones((4, 2), "float32"), np.arange(4.0, dtype="float32")
    assert_equal(Sequences.of(x), Sequences.of([x]))
    assert_equal(Sequences.of(jnp.asarray(y)), Sequences.of([y]))
    assert_equal(Sequences.of((x, y)), Sequences.of([(x, y)]))


def test_a_step_may_be_several_arrays():
    lengths = [5, 2, 9]
    given = [dict(x=x, y=y) for x, y in zip(series(lengths, 3), series(lengths), strict=True)]
    sequences = Sequences.of(given)
    assert repr(sequences) == "Sequences(3 sequences, 16 steps of shapes {'x': (3,), 'y': ()})"
    assert_same(values(sequences), given)
    together = jax.tree.map(lambda *leaves: np.concatenate(leaves), *given)
    assert_equal(Sequences.of(together, lengths), sequences)
    assert_same(values(sequences.take([False, True, True])), given[1:])


@pytest.mark.parametrize(
    ("given", "found"),
    [("float32", "float32"), ("bfloat16", "float32"), ("float64", None), ("int32", None), ("bool", None)],
)
def test_floats_keep_their_dtype_of_32_bits_or_more_and_other_numbers_become_the_default_float(
    dtype, given, found
):
    x = jnp.ones(3, given) if given == "bfloat16" else np.ones(3, given)
    for sequences in (Sequences.of([x, x[:2]]), Sequences.of(x, [1, 2])):
        for some in (sequences, sequences.take([0]), sequences.windows(1), sequences.in_parts_of(sequences)):
            assert {part.values.dtype for part in some.parts} == {jnp.dtype(found or dtype)}


def test_lists_of_numbers_are_arrays(dtype):
    for lists in ([[0, 2, 1], [1, 0]], [[0.0, 2.0, 1.0], [1, 0]]):
        sequences = Sequences.of(lists)
        assert sequences.parts[0].values.dtype == dtype
        assert_same(values(sequences), [np.array(x, dtype) for x in lists])
    assert repr(Sequences.of([[[1, 2], [3, 4]]])) == "Sequences(1 sequences, 2 steps of shape (2,))"


def test_a_mixture_of_dtypes_is_the_widest(float64):
    sequences = Sequences.of([np.ones(3, "float32"), np.ones(3), np.ones(3, int)])
    assert sequences.parts[0].values.dtype == float64


def test_sequences_are_a_pytree_and_their_text_says_what_is_known():
    sequences = Sequences.of(series([5, 2, 9], 3))
    assert repr(sequences) == "Sequences(3 sequences, 16 steps of shape (3,))"
    texts = []

    @jax.jit
    def traced(sequences):
        texts.append(repr(sequences))
        return sequences, sequences.lengths, sequences.n_steps

    back, lengths, n_steps = traced(sequences)
    assert texts == ["Sequences(3 sequences of steps of shape (3,))"]
    assert_equal(back, sequences)
    np.testing.assert_array_equal(lengths, [5, 2, 9])
    assert n_steps == 16


def test_a_sum_over_sequences_in_chunks_is_that_over_their_steps():
    weights = np.array([2, 0, 1, 3, 1], "float32")
    given = series([3, 9, 3, 3, 8], 2)
    given[0][1] = np.nan
    sequences = Sequences.of(given)
    assert len(sequences.parts) == 2

    def total(rows, w):
        return (rows.values.sum((1, 2)) * w).sum(), (rows.observed.sum(1, dtype=w.dtype) * w).sum()

    found = sum_over_rows(total, sequences, jnp.asarray(weights), chunk=(2, 1))
    sums = [np.nansum(x) for x in given], [np.isfinite(x).all(1).sum() for x in given]
    np.testing.assert_allclose(found, [weights @ x for x in sums], rtol=1e-6)
    rows, w = jax.jit(Sequences.weighted_steps)(sequences, jnp.asarray(weights))  # all at once
    np.testing.assert_allclose([rows.sum(1) @ w, w.sum()], found, rtol=1e-6)


# -- missing steps -----------------------------------------------------------------------------------


def test_a_missing_step_is_a_step_of_which_nothing_is_seen():
    given = series([4, 7, 4], 2)
    given[0][1] = given[1][6] = given[2][:] = np.nan  # in the middle, at the end, everywhere
    given[1][2, 1] = np.nan  # in part
    sequences = Sequences.of(given)
    np.testing.assert_array_equal(sequences.lengths, [4, 7, 4])
    np.testing.assert_array_equal(sequences.n_steps, 15)
    seen = sequences.unpack([part.observed for part in sequences.parts])
    assert_same(seen, [~np.isnan(x).all(1) for x in given])
    assert_same(values(sequences), given)
    for part in sequences.parts:
        assert not np.asarray(part.values)[~np.asarray(part.observed)].any()
    assert_equal(sequences.take([2, 1]), Sequences.of([given[2], given[1]]))
    assert_same([np.concatenate(values(sequences.windows(3)))], [np.concatenate(given)])


def test_a_step_of_several_arrays_is_missing_where_all_of_them_are():
    nan = np.nan
    x, y = np.array([[nan, nan], [nan, 1], [nan, nan]]), np.array([nan, nan, 2])
    part = Sequences.of((x, y)).parts[0]
    np.testing.assert_array_equal(part.observed, [[False, True, True]])
    np.testing.assert_array_equal(part.values[0], [[[0, 0], [nan, 1], [nan, nan]]])
    np.testing.assert_array_equal(part.values[1], [[0, nan, 2]])


# -- other parts -------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(some_lengths, st.integers(1, 70))
def test_windows_follow_one_another_as_few_and_as_even_as_may_be(lengths, length):
    given = series(lengths, 2)
    windows = Sequences.of(given).windows(length)
    expected = [piece for x in given for piece in np.array_split(x, -(-len(x) // length))]
    assert max(map(len, expected)) <= length
    assert_same(values(windows), expected)


def test_sequences_in_the_parts_of_others_are_the_same_and_empty_ones_after_them():
    like, given = Sequences.of(series([9, 1, 1, 3])), series([15, 2])
    shapes = [part.observed.shape for part in like.parts]
    assert len(shapes) > 1
    moved = Sequences.of(given[1:]).in_parts_of(like)
    assert [part.observed.shape for part in moved.parts] == shapes
    assert_same(values(moved), [given[1], *[given[1][:0]] * 3])
    longer = Sequences.of(given).in_parts_of(like)
    assert [len(part.observed) for part in longer.parts] == [n for n, _ in shapes]
    assert_same(values(longer), [*given, *[given[1][:0]] * 2])
    again = like.in_parts_of(longer)
    assert [part.values.shape for part in again.parts] == [part.values.shape for part in longer.parts]
    assert_same(values(again), values(like))
    assert_same(values(longer.windows(4).take([0, 5])), [given[0][:4], given[0][:0]])
    np.testing.assert_array_equal(longer.take([3]).lengths, [0])


# -- traced and masked arrays --------------------------------------------------------------------------


def holed_series():
    first, second = series([4, 7], 2)
    first[1], second[3, 0] = np.nan, np.nan
    return [first, second]


def test_traced_arrays_are_the_sequences_that_they_are_outside():
    """One array, a list, and steps end to end: their shapes say all that there is to know."""
    given = holed_series()
    together = np.concatenate(given)
    assert_equal(jax.jit(lambda *x: Sequences.of([*x]))(*given), Sequences.of(given))
    assert_equal(jax.jit(lambda x: Sequences.of(x, [4, 7]))(together), Sequences.of(given))
    each = jax.vmap(Sequences.of)(np.stack([given[0], given[0][::-1]]))
    assert_equal(jax.tree.map(lambda x: x[1], each), Sequences.of(given[0][::-1]))


def test_what_is_found_for_traced_arrays_is_cut_to_their_steps():
    given = holed_series()
    twice = lambda x: (s := Sequences.of(x)).unpack([2 * part.values for part in s.parts])
    assert_same(jax.jit(lambda *x: twice([*x]))(*given), twice(given))
    sequences = Sequences.of(given)
    with pytest.raises(ValueError, match=r"data must be arrays inside jit.*lengths of traced Sequences"):
        jax.jit(lambda s: s.unpack([part.values for part in s.parts]))(sequences)
    with pytest.raises(ValueError, match="lengths must be known"):
        jax.jit(lambda x, n: Sequences.of(x, n))(given[0], np.array([4]))


def test_masked_entries_are_missing():
    first, second = holed_series()
    masked = [np.ma.masked_invalid(first), np.ma.masked_invalid(second)]
    assert_equal(Sequences.of(masked), Sequences.of([first, second]))
    assert_equal(Sequences.of(masked[1]), Sequences.of(second))


def test_nullable_columns_are_read_and_half_precision_is_float32():
    frame = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "b": [0.5, 1.5, 2.5]})
    assert_equal(Sequences.of([frame]), Sequences.of([np.array([[1, 0.5], [np.nan, 1.5], [3, 2.5]])]))
    half = Sequences.of([np.ones((3, 2), np.float16)])
    assert half.parts[0].values.dtype == np.float32


# -- what is no sequence -----------------------------------------------------------------------------

ONES = np.ones((5, 2))


@pytest.mark.parametrize(
    ("data", "lengths", "message"),
    [
        ([], None, "data must have at least one sequence"),
        ([ONES, ONES[:0]], None, "sequence 1 of data must have at least one step; it has none"),
        (ONES[:0], None, "sequence 0 of data must have at least one step; it has none"),
        ([ONES, ONES[:, :1]], None, r"sequence 1 of data must have .* shape \(2,\), as sequence 0; got .*1,"),
        ([ONES, ONES[:, 0]], None, r"sequence 1 of data must have .* shape \(2,\), .* got shape \(\)"),
        ([ONES, (ONES, ONES)], None, r"sequence 1 .* shape \(2,\), .* got shapes \(\(2,\), \(2,\)\)"),
        (
            [ONES, (ONES, ONES[:3])],
            None,
            "sequence 1 of data must be arrays with a common axis of steps; got",
        ),
        ((ONES, ONES[:3]), None, "data must be arrays with a common axis of steps; got shapes"),
        ([1.0, 2.0], None, "sequence 0 .* a single sequence is an array, not a list of numbers"),
        ([None], None, r"sequence 0 of data must be arrays with a common axis of steps; got shapes \[\]"),
        (np.ones((4, 3, 2)), None, r"one of shape \(t, d\) or \(t,\); got \(4, 3, 2\); list\(data\)"),
        (np.ones((4, 0)), None, "data must have at least one number in a step"),
        ("words", None, "data must be numbers; got an array of <U5"),
        ([ONES, np.array(["a"])], None, "sequence 1 of data must be numbers; got an array of <U1"),
        ([ONES, ONES * 1j], None, "sequence 1 of data must be numbers; got an array of complex128"),
        ([[[1, 2], [3]]], None, "sequence 0 of data must be numeric arrays; got list"),
        ([ONES, np.array([[1, 1], [2, 2], [3, np.inf]])], None, "step 2 of sequence 1 has an infinity"),
        (
            [np.array([1.0, 1e300])],
            None,
            "data must be finite, or NaN .* step 1 of sequence 0 has an infinity",
        ),
        (ONES, [2, 2], "lengths must add up to the 5 steps of data; they add up to 4"),
        (ONES, [5, 0], "lengths must be at least 1; sequence 1 has 0"),
        (ONES, [], "lengths must be whole numbers, one for each sequence; got float64 of shape .0,."),
        (ONES, [2.0, 3.0], "lengths must be whole numbers, one for each sequence; got float64 of shape .2,."),
        (ONES, 5, "lengths must be whole numbers, one for each sequence; got int64 of shape"),
        (ONES, [[1], [2, 2]], "lengths must be numeric arrays; got list"),
        (Sequences.of(ONES), None, "data must be arrays; got Sequences already"),
        (vb.Labelled(ONES, [0]), None, "data must be arrays; got Labelled already"),
    ],
)
def test_what_is_no_sequence_is_refused_with_its_place(data, lengths, message):
    with pytest.raises(ValueError, match=message):
        Sequences.of(data, lengths)


def test_bad_arguments_of_methods_are_refused():
    sequences = vb.Sequences.of([ONES, ONES, ONES[:2]])
    for rows in ([3], [-1], []):
        with pytest.raises(ValueError, match="rows must be"):
            sequences.take(rows)
    with pytest.raises(ValueError, match=r"numbers of sequences, at least one, or a mask of shape .3,."):
        sequences.take([True, False])
    with pytest.raises(ValueError, match="length must be a whole number of at least 1; got 0"):
        sequences.windows(0)
    with pytest.raises(ValueError, match="x must be given for each of the 2 parts; got 1"):
        sequences.unpack([sequences.parts[0].values])
    with pytest.raises(ValueError, match=r"leading axes \(1, 2\), those of its part; got shapes \[\(2, 5"):
        sequences.unpack([part.values for part in sequences.parts[::-1]])
    with pytest.raises(ValueError, match="at most 2 sequences, as the first minibatch; got 3"):
        sequences.in_parts_of(sequences.take([0, 1]))
    with pytest.raises(ValueError, match=r"steps of shape \(\), as the first minibatch; got shape \(2,\)"):
        sequences.in_parts_of(Sequences.of(series([4, 4, 4])))
