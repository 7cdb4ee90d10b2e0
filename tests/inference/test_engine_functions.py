"""Laws of the engine in parts: what `vb.engine` says of merge, update and objective.

Statistics of parts merge to those of the whole, in any order and however the rows are divided, with zeros as
the neutral element; by them `update` is a sweep of coordinate ascent, block by block, and `objective` is the
bound. What cannot be meant is refused by the argument's name.
"""

import functools

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import MODELS
from tests.support.tolerances import close
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.ragged import Ragged
from vbjax.core.rows import n_rows

# one of each kind of rows, of updates and of blocks
NAMES = (
    "k-means",
    "EM full",
    "VB full, holes",
    "EM of counts",
    "linear regression",
    "VB of a product",
    "own, two blocks",
    "own, local",
    "own, locals that interact",
    "HMM of counts",
    "topics, known concentrations",
)


def started(name):
    """Model, parameters, rows, and how to take some of them."""
    entry = MODELS[name]
    data, weights = entry.data("float64")
    model, params = entry.started(data, weights)
    take = data.take if isinstance(data, Ragged) else lambda rows: jax.tree.map(lambda x: x[rows], data)
    return model, vb.Record(params), data, take


def comparable(statistics):
    """The numbers of statistics without the gradient in the pivots, which nobody reads."""
    leaves = jax.tree_util.tree_flatten_with_path(statistics)[0]
    return [x for path, x in leaves if "pivot" not in jax.tree_util.keystr(path)]


def slack(name):
    """How far rounding may go: factors of a row stop turning where the bound of all rows of a block settles.

    A bound that has settled to a rounding leaves its factors within the square root of that.
    """
    return 1e7 if "topics" in name or "interact" in name else 100


@pytest.mark.parametrize("name", NAMES)
def test_statistics_of_parts_merge_to_those_of_the_whole(name, float64):
    model, params, data, take = started(name)
    n = n_rows(data)
    ends = (0, 1), (1, n // 2), (n // 2, n)
    parts = [vb.engine.statistics(model, params, take(np.arange(*rows))) for rows in ends]
    whole = vb.engine.statistics(model, params, data)
    a, b, c = parts
    merge = vb.engine.merge
    left, right = merge(merge(a, b), c), merge(c, merge(a, b))
    close(comparable(left), comparable(merge(a, merge(b, c))), factor=10)
    close(comparable(left), comparable(whole), factor=slack(name) * (1e3 if "topics" in name else 1))
    close(left, right)
    nothing = jax.tree.map(np.zeros_like, a)
    jax.tree.map(np.testing.assert_array_equal, merge(a, nothing), a)


@pytest.mark.parametrize("name", NAMES)
def test_updates_and_objective_are_those_of_coordinate_ascent(name, float64):
    model, params, data, take = started(name)
    n = n_rows(data)
    expected = jax.jit(sweep)(model, params, data, None).params
    bound = vb.elbo(model, params, data)
    for block in range(len(model.blocks)):
        parts = [vb.engine.statistics(model, params, take(np.arange(k, n, 2))) for k in (0, 1)]
        total = functools.reduce(vb.engine.merge, parts)
        if not block:
            close(vb.engine.objective(model, params, total), bound, factor=slack(name))
        params = vb.engine.update(model, params, total, block=block)
    close(params, expected, factor=100 * slack(name))


def test_a_row_counts_as_often_as_it_weighs(float64):
    model, params, _, take = started("VB full")
    twice = vb.engine.statistics(model, params, take(np.repeat(np.arange(5), 2)))
    weighted = vb.engine.statistics(model, params, take(np.arange(5)), np.full(5, 2.0))
    close(comparable(weighted), comparable(twice), factor=100)


def refused(match, function, *args, **options):
    with pytest.raises(ValueError, match=match):
        function(*args, **options)


def test_what_cannot_be_meant_is_refused():
    x = vb.datasets.old_faithful()
    fit = vb.fit(vb.BayesianGaussianMixture(2), x, key=jax.random.key(0), max_iter=2)
    model, params = fit.model, fit.params
    total = vb.engine.statistics(model, params, x)
    refused("has not seen data", vb.engine.statistics, vb.BayesianGaussianMixture(2), params, x)
    refused("data must be a block of rows", vb.engine.statistics, model, params, None)
    refused("data must be finite", vb.engine.statistics, model, params, np.full((3, 2), np.nan))
    refused("params must be those", vb.engine.statistics, model, {}, x)
    refused("a must come from", vb.engine.merge, params, total)
    other = vb.engine.statistics(
        vb.KMeans(2).resolve(x), vb.fit(vb.KMeans(2), x, key=jax.random.key(0)).params, x
    )
    refused("a and b must be statistics of one model", vb.engine.merge, total, other)
    refused("statistics must come from", vb.engine.update, model, params, params)
    refused("block must be a number below 1", vb.engine.update, model, params, total, block=1)
    own = MODELS["own, two blocks"]
    y, _ = own.data("float32")
    model, params = own.started(y, None)
    total = vb.engine.statistics(model, params, y)
    refused("block must say which", vb.engine.update, model, params, total)
    stuck = MODELS["own, not conjugate"]
    z, _ = stuck.data("float32")
    model, params = stuck.started(z, None)
    refused("model must be conjugate", vb.engine.update, model, params, total)
