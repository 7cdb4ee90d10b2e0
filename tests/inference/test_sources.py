"""Laws of fits to sources: they are the fits in memory, and never hold all rows.

From the same start the parameters are those in memory, to rounding, for every kind of update and however the
rows are cut into blocks; files give what arrays give; shares are all rows, each once. What is wrong with a
piece is said with its file and row group.
"""

import itertools
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import MODELS
from tests.support.tolerances import close
from vbjax.data.sources import ahead

DEVICE = jax.devices()[:1]
KEY = jax.random.key(3)

# one of each kind of rows, of updates and of blocks
NAMES = (
    "k-means",
    "EM full",
    "VB full",
    "VB full, holes",
    "EM of counts",
    "EM of categories",
    "linear regression",
    "VB of a product",
    "own, two blocks",
    "own, local",
)


def on_host(data):
    return jax.tree.map(np.asarray, data)


def both(name, dtype, block_rows=15, **options):
    """A few sweeps of a fit in memory and of one to a source, from one start."""
    entry = MODELS[name]
    data, weights = entry.data(dtype)
    model, params = entry.started(data, weights)
    options = dict(key=KEY, params=params, max_iter=4, tol=0.0) | options
    source = vb.sources.Memmap(on_host(data), block_rows=block_rows)
    return vb.fit(model, data, devices=DEVICE, **options), vb.fit(model, source, **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_to_a_source_is_the_fit_in_memory(name, dtype):
    whole, read = both(name, dtype)
    assert read.n_iter == whole.n_iter
    close(read.trace, whole.trace, factor=100)
    # rounding grows from sweep to sweep
    close(read.params, whole.params, factor=1e4 if dtype == "float64" else 100)
    assert jax.tree.map(jnp.shape, read.runs) == jax.tree.map(jnp.shape, whole.runs)


def test_restarts_are_those_in_memory(capsys):
    x = vb.datasets.old_faithful()
    model = vb.BayesianGaussianMixture(3)
    whole = vb.fit(model, x, key=KEY, n_restarts=5, devices=DEVICE)
    source = vb.sources.Memmap(np.asarray(x), block_rows=100)
    read = vb.fit(model, source, key=KEY, n_restarts=5, progress=True)
    assert "best objective of" in capsys.readouterr().err
    np.testing.assert_array_equal(read.runs.status, whole.runs.status)
    np.testing.assert_allclose(read.runs.objective, whole.runs.objective, rtol=1e-5)
    assert read.status == vb.Status.CONVERGED
    assert read.objective == read.runs.objective.max()


@pytest.mark.parametrize("block_rows", [1, 7, 39, 40, 1000])
def test_the_size_of_the_blocks_changes_nothing(block_rows, float64):
    whole, read = both("EM full", float64, block_rows)
    close(read.trace, whole.trace, factor=100)


def test_a_sweep_reads_once_for_every_block_of_factors_and_all_restarts():
    readings = itertools.count()

    def blocks():
        next(readings)
        return np.split(np.asarray(MODELS["own, two blocks"].data("float32")[0]), 4)

    model = MODELS["own, two blocks"].model
    vb.fit(model, vb.sources.Blocks(blocks), key=KEY, n_restarts=3, max_iter=5, tol=0.0)
    before = 2  # the rows are counted, and a sample is drawn
    assert next(readings) <= before + 2 * 5


def test_ctrl_c_ends_a_fit_at_its_last_whole_sweep():
    x = np.asarray(vb.datasets.old_faithful())
    readings = itertools.count()

    def blocks():
        yield x[:200]
        if next(readings) == 2 + 3:  # the rows are counted, a sample is drawn, and three sweeps made
            raise KeyboardInterrupt
        yield x[200:]

    options = dict(key=KEY, n_restarts=2, tol=0.0)
    fit = vb.fit(vb.GaussianMixture(3), vb.sources.Blocks(blocks), **options)
    assert fit.status == vb.Status.INTERRUPTED
    np.testing.assert_array_equal(fit.runs.n_iter, 3)
    three = vb.fit(vb.GaussianMixture(3), vb.sources.Memmap(x), max_iter=3, **options)
    close(fit.params, three.params, factor=10)
    readings = itertools.count(5)  # before the first sweep
    with pytest.raises(KeyboardInterrupt):
        vb.fit(vb.GaussianMixture(3), vb.sources.Blocks(blocks), **options)


def test_memory_does_not_grow_with_the_file(tmp_path):
    most = []
    for n in (2**15, 2**18):
        np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(n, 4)).astype("float32"))
        source = vb.sources.Memmap(tmp_path / "x.npy", block_rows=2**14)
        tracemalloc.start()
        assert sum(len(block) for block in source) == n
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert most[1] < 1.2 * most[0] < 2**20


def test_one_item_is_read_ahead():
    read = []
    items = (read.append(k) or k for k in range(20))
    for used, item in enumerate(ahead(items)):
        assert item == used
        assert len(read) <= used + 2
    assert len(read) == 20


def test_defaults_and_starts_are_made_from_a_sample(monkeypatch):
    monkeypatch.setattr("vbjax.inference.out_of_core._SAMPLED", 50)
    x = np.asarray(vb.datasets.old_faithful())
    source = vb.sources.Memmap(x, block_rows=100)
    one, same, other = (
        vb.fit(vb.BayesianGaussianMixture(2), source, key=jax.random.key(seed), max_iter=1).model
        for seed in (0, 0, 1)
    )
    close(one, same, factor=0)
    location = np.asarray(one.component.location)
    assert (location != np.asarray(other.component.location)).all()
    error = x.std(0) / np.sqrt(50)
    assert (np.abs(location - x.mean(0)) < 4 * error).all()


def test_shares_are_all_rows_each_once():
    x = np.arange(44.0).reshape(22, 2)
    for source in (
        vb.sources.Memmap(x, block_rows=3),
        vb.sources.Blocks(np.split(x, [2, 9, 11, 20]), block_rows=3),
    ):
        shares = [source.share(k, 3) for k in range(3)]
        shares = [*shares[:2], shares[2].share(0, 2), shares[2].share(1, 2)]
        rows = np.concatenate([block for share in shares for block in share])
        np.testing.assert_array_equal(np.sort(rows, 0), x)
        assert sum(share.n_rows for share in shares) == source.n_rows == 22


def test_a_stochastic_fit_takes_a_source_in_its_order():
    x = vb.datasets.old_faithful()
    model = vb.BayesianGaussianMixture(2).resolve(x)
    options = dict(key=KEY, params=vb.fit(model, x, key=KEY, max_iter=1).params)
    batches = (np.asarray(x)[k : k + 68] for _ in range(2) for k in range(0, 272, 68))
    given = vb.fit_stochastic(model, batches, total_rows=272, **options)
    read = vb.fit_stochastic(
        model, vb.sources.Memmap(np.asarray(x), block_rows=100), n_epochs=2, batch_size=68, **options
    )
    close(read.trace, given.trace)


# ---------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path):
    """Two files of each kind, with row groups of 30 rows; as an array too."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    x = np.asarray(vb.datasets.old_faithful(), "float32")
    for number, rows in enumerate(np.split(x, [100])):
        table = pyarrow.table(dict(a=rows[:, 0], b=rows[:, 1], c=np.arange(len(rows))))
        parquet.write_table(table, tmp_path / f"{number}.parquet", row_group_size=30)
        with pyarrow.ipc.new_file(tmp_path / f"{number}.arrow", table.schema) as file:
            file.write_table(table, max_chunksize=30)
    return tmp_path, x


@pytest.mark.parametrize("kind", [vb.sources.Parquet, vb.sources.Arrow])
def test_files_give_what_arrays_give(kind, folder):
    path, x = folder
    source = kind(path, ["a", "b"], block_rows=64)
    assert source.n_rows == len(x)
    np.testing.assert_array_equal(np.concatenate(list(source)), x)
    table, column = next(iter(kind(path, (["b"], "a"))))
    np.testing.assert_array_equal(table, x[:, 1:])
    np.testing.assert_array_equal(column, x[:, 0])
    assert next(iter(kind(path))).shape == (272, 3)
    groups = sum(source.share(k, 2).n_rows for k in (0, 1))
    assert groups == len(x)
    fit, read = (vb.fit(vb.GaussianMixture(2), data, key=KEY, devices=DEVICE) for data in (x, source))
    np.testing.assert_allclose(read.objective, fit.objective, rtol=1e-6)


def test_a_bad_row_group_is_named(folder):
    import pyarrow
    from pyarrow import parquet

    path, x = folder
    rows = x.copy()
    rows[75, 1] = np.nan
    parquet.write_table(
        pyarrow.table(dict(a=rows[:, 0], b=rows[:, 1])), path / "1.parquet", row_group_size=50
    )
    source = vb.sources.Parquet(path, ["a", "b"])
    place = r"1\.parquet, row group 1, from row 0: data must be finite; row 25 is the first"
    with pytest.raises(ValueError, match=place):
        vb.fit(vb.GaussianMixture(2), source, key=KEY)
    parquet.write_table(pyarrow.table(dict(a=rows[:, 0], d=rows[:, 1])), path / "1.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet, row group 0 cannot be read.*b"):
        vb.fit(vb.GaussianMixture(2), source, key=KEY)
    parquet.write_table(pyarrow.table(dict(a=rows[:, 0], b=rows[:, 1].astype(float))), path / "1.parquet")
    with pytest.raises(ValueError, match=r"1\.parquet, row group 0 must have the columns of the first"):
        vb.fit(vb.GaussianMixture(2), source, key=KEY)
    (path / "1.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"1\.parquet cannot be read"):
        vb.fit(vb.GaussianMixture(2), source, key=KEY)
    with pytest.raises(ValueError, match="columns must be names among"):
        vb.sources.Parquet(path, ["a", "z"])


# ---------------------------------------------------------------- what is refused


def test_a_bad_block_is_named(tmp_path):
    x = np.asarray(vb.datasets.old_faithful()).copy()
    x[150, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = vb.sources.Memmap(tmp_path / "x.npy", block_rows=100)
    with pytest.raises(ValueError, match=r"x\.npy, from row 100: data must be finite; row 50 is the first"):
        vb.fit(vb.GaussianMixture(2), source, key=KEY)
    with pytest.raises(ValueError, match=r"nowhere\.npy cannot be read"):
        vb.sources.Memmap(tmp_path / "nowhere.npy")
    with pytest.raises(ValueError, match=r"common leading axis of rows; got shapes \[\(3,\), \(2,\)\]"):
        vb.sources.Memmap((np.zeros(3), np.zeros(2)))
    other = vb.sources.Blocks([np.zeros((3, 2)), np.zeros((3, 1))])
    with pytest.raises(ValueError, match=r"block 1 must have the columns of the first, float64\[2\]"):
        vb.fit(vb.KMeans(2), other, key=KEY)
    with pytest.raises(ValueError, match="blocks must be a function"):
        vb.sources.Blocks(iter([x]))
    with pytest.raises(ValueError, match="index must be below count"):
        source.share(2, 2)


def test_rows_are_examined_in_the_first_pass_though_they_are_not_in_the_sample(monkeypatch):
    monkeypatch.setattr("vbjax.inference.out_of_core._SAMPLED", 50)
    x = np.asarray(vb.datasets.old_faithful()).copy()
    chosen = np.random.default_rng(np.asarray(jax.random.bits(KEY, (4,), "uint32"))).choice(272, 50, False)
    x[bad := np.setdiff1d(np.arange(200, 272), chosen)[0], 1] = np.inf
    place = rf"data, from row 200: data must be finite; row {bad - 200} is the first"
    with pytest.raises(ValueError, match=place):
        vb.fit(vb.GaussianMixture(2), vb.sources.Memmap(x, block_rows=100), key=KEY)
    counts = np.zeros((272, 1))
    counts[bad] = 0.5
    with pytest.raises(ValueError, match=r"data, from row 200: data must be counts"):
        vb.fit(vb.PoissonMixture(2), vb.sources.Memmap(counts + 1, block_rows=100), key=KEY)
    whole = np.ones((272, 1), int)
    whole[bad] = 2**40
    with pytest.raises(ValueError, match=r"from row 200 cannot be read: .* whole numbers that int32 holds"):
        vb.fit(vb.PoissonMixture(2), vb.sources.Memmap(whole, block_rows=100), key=KEY)


def test_blocks_lie_where_they_are_taken_without_a_copy():
    (block,) = vb.sources.Memmap(np.arange(12.0).reshape(4, 3), block_rows=7).blocks()
    assert block.padded.ctypes.data % 64 == 0
    assert (block.n_rows, block.padded.shape) == (4, (7, 3))
    np.testing.assert_array_equal(block.padded[4:], 0)


@pytest.mark.parametrize("cuts", [[], [5], [3, 10, 11]])
def test_blocks_are_passed_over_as_if_they_had_been_read(cuts):
    source = vb.sources.Blocks(np.split(np.arange(22.0), cuts), block_rows=4)
    every = list(source)
    for skip in range(7):
        rest = [block.rows for block in source.blocks(skip=skip)]
        assert [x.tolist() for x in rest] == [x.tolist() for x in every[skip:]]


def test_options_that_need_all_rows_are_refused():
    x = np.asarray(vb.datasets.old_faithful())
    source = vb.sources.Memmap(x)
    options = dict(weights=np.ones(272), lanes=2, accelerate=True, check=True)
    for name, value in options.items():
        with pytest.raises(ValueError, match=f"{name} must be left out where data come from a source"):
            vb.fit(vb.GaussianMixture(2), source, key=KEY, **{name: value})
    with pytest.raises(ValueError, match="model must be conjugate"):
        vb.fit(
            MODELS["own, not conjugate"].model,
            vb.sources.Memmap(on_host(MODELS["own, not conjugate"].data("float32")[0])),
            key=KEY,
        )
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda key: vb.fit(vb.KMeans(2), source, key=key).objective)(KEY)
