"""Makers of data for the registry of models: rows of three kinds in turn, as whatever a model takes.

They share one shape, so that tests share compiled programs.
"""

import jax
import jax.numpy as jnp
import numpy as np

import vbjax as vb

N_ROWS, N_COMPONENTS, N_FEATURES = 40, 3, 2  # all different, so that no axis passes for another
LENGTHS = np.array([5, 3, 4, 1, 5, 2, 4, 5])  # of sequences, one part; a step in four is missing


def arrays(given, dtype):
    """The rows as arrays, floating ones in a dtype."""
    return jax.tree.map(lambda x: in_float(x, dtype), given)


def in_float(x, dtype):
    """An array, in `dtype` if it is a floating one."""
    return jnp.asarray(x, dtype if np.issubdtype(np.asarray(x).dtype, np.floating) else "int32")


def table(rng):
    """Rows around three centres, (n, d); the first three rows are of different ones."""
    centres = np.array([[0.0, 0.0], [4.0, 1.0], [1.0, 5.0]])
    c = np.arange(N_ROWS) % N_COMPONENTS
    return centres[c] + rng.normal(size=(N_ROWS, N_FEATURES)) * np.array([1.0, 0.7])


def holed(rng):
    """The table with a third of its entries missing; the first rows are whole, and nothing is in the last."""
    x = table(rng)
    gone = rng.uniform(size=x.shape) < 1 / 3
    gone[:5], gone[-1] = False, True
    return np.where(gone, np.nan, x)


def column(rng):
    """The first column of the table, (n,)."""
    return table(rng)[:, 0]


def design(rng):
    """A table, and a column that depends on it: (x, y)."""
    x = table(rng)
    return x, x @ [1.0, -0.5] + 2.0 + 0.5 * rng.normal(size=N_ROWS)


def labels(rng):
    """A table, and 0 or 1 for each row, which no plane separates."""
    x, y = design(rng)
    return x, (y + 3 * rng.normal(size=N_ROWS) > 2.0).astype("int32")


def classes(rng, low, high):
    """One of two numbers for each row and column, as the row's class has it, (n, d)."""
    pattern = np.array([[low, low], [low, high], [high, high]])
    return pattern[np.arange(N_ROWS) % N_COMPONENTS]


def binary(rng):
    return (rng.uniform(size=(N_ROWS, N_FEATURES)) < classes(rng, 0.1, 0.9)).astype(float)


def counts(rng):
    return rng.poisson(classes(rng, 2.0, 9.0)).astype(float)


def profiles(rng):
    p = np.column_stack([classes(rng, 0.1, 0.4), np.full(N_ROWS, 0.2)])
    return np.array([rng.multinomial(6, q / q.sum()) for q in p]).astype(float)


def categories(rng):
    high = rng.uniform(size=(N_ROWS, N_FEATURES)) < classes(rng, 0.1, 0.9)
    return rng.integers(0, 2, (N_ROWS, N_FEATURES)) + 2 * high


def positive(rng):
    return rng.gamma(3.0, classes(rng, 1.0, 5.0))


def lines(rng):
    x = rng.normal(size=(N_ROWS, N_FEATURES))
    y = (x * classes(rng, -2.0, 2.0)).sum(1) + 0.3 * rng.normal(size=N_ROWS)
    return x, y


def planes(rng):
    """Two responses of such lines, whose noise is correlated."""
    x, y = lines(rng)
    other = (x * classes(rng, 1.0, -1.0)).sum(1) + 0.3 * rng.normal(size=N_ROWS)
    return x, np.stack([y, 0.5 * y + other], 1)


def slopes(rng):
    """A table of narrow columns, and counts that depend on it."""
    x = rng.normal(size=(N_ROWS, N_FEATURES))
    return x, rng.poisson(np.exp(x @ [1.0, -0.5])).astype(float)


def words(rng):
    """Numbers of six words in each row, below 5."""
    return np.minimum(rng.integers(0, 3, (N_ROWS, 6)) + np.arange(N_ROWS)[:, None] % 3, 4)


def measured(rng):
    """A column, and a standard error for each of its rows."""
    return column(rng), rng.uniform(0.5, 2.0, size=N_ROWS)


def grouped(rng):
    """A column, and the number of each row's group; the last group is empty."""
    return column(rng), np.arange(N_ROWS) % N_COMPONENTS


def beside_covariates(rng):
    """Two columns that tell something of the classes, and the table."""
    z = classes(rng, 0.0, 2.0) + rng.normal(size=(N_ROWS, N_FEATURES))
    return z, table(rng)


def mixed(rng):
    """A table, and categories beside it: columns of different kinds."""
    return dict(place=table(rng), kind=categories(rng))


def answers(rng):
    """Items with answers of two and of three kinds, a third of those missing; nothing is in the last row."""
    colour = np.where(rng.uniform(size=(N_ROWS, 1)) < 1 / 3, np.nan, categories(rng)[:, :1] % 3)
    agree = (rng.uniform(size=(N_ROWS, 1)) < classes(rng, 0.2, 0.9)[:, :1]).astype(int)
    agree[-1], colour[-1] = -1, np.nan
    return dict(agree=agree, colour=colour)


# ---------------------------------------------------------------- rows that are sequences or documents


def in_time(make, missing=True):
    """A maker of sequences whose steps are the rows of another maker's data."""

    def sequences(rng):
        steps = make(rng)
        ends = np.cumsum(LENGTHS)
        cut = lambda x: np.split(np.asarray(x, float)[: ends[-1]], ends[:-1])
        given = [*zip(*map(cut, steps), strict=True)] if isinstance(steps, tuple) else cut(steps)
        for x in given[1::2] if missing else []:
            jax.tree.map(lambda x: x.__setitem__(len(x) // 2, np.nan), x)
        return given

    return sequences


def sequences(given, dtype):
    """Sequences in one part."""
    cast = [jax.tree.map(lambda x: np.asarray(x, dtype), x) for x in given]
    longest = jax.tree.map(lambda x: np.zeros((LENGTHS.max(), *x.shape[1:]), dtype), cast[0])
    return vb.Sequences.of(cast).in_parts_of(vb.Sequences.of([longest] * len(cast)))


def labelled_sequences(given, dtype):
    """Such sequences, and the states of every other step."""
    n = LENGTHS.sum()
    labels = np.where(np.arange(n) % 2 == 0, np.arange(n) % N_COMPONENTS, -1)
    return vb.Labelled(sequences(given, dtype), labels)


def corpus(rng):
    """Counts of words (n, v) of three topics: eight documents of few words, one empty, and eight others."""
    topics = np.kron(np.eye(N_COMPONENTS), np.ones(4)) + 0.1
    table = np.array([rng.multinomial(30, topics[i % 3] / topics[i % 3].sum()) for i in range(16)])
    table[:8, 3:], table[5] = 0, 0
    return table


def documents(given, dtype):
    """The documents, in two parts."""
    widest = np.ones((16, given.shape[1]), int)
    widest[:8, 3:] = 0
    return vb.Documents.of(given, dtype=dtype).in_parts_of(vb.Documents.of(widest, dtype=dtype))
