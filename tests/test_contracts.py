"""What every model keeps, whoever wrote it: the laws of the engine, over the registry of all models.

No update of a single factor lowers the objective, in either dtype; float32 is float64 to within the rounding
that it claims, and leaves no float64 behind. Rows may be permuted; a weight of w is a row w times, and of 0 a
row absent, also where it holds NaN or an infinity, and leaves finite gradients. Chunks that do not divide the
rows change nothing; jit is eager; vmap over starts and hyperparameters is a loop; the terms of the bound add
up to it; other data, hyperparameters and starts trace nothing again. Data and weights that are none are
refused by name. Of a fit: its objective scores its parameters, a warm start at the optimum stays there, and a
second fit of the same shapes compiles nothing.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.points import values
from tests.support.registry import (
    MODELS,
    advance,
    begin,
    is_conjugate,
    scaled_hyper,
    score,
    updates,
    with_hyper,
)
from tests.support.tolerances import TOLERANCE, close
from vbjax.core.ragged import Ragged
from vbjax.core.rows import n_rows

# updates multiply a rounding by the rate at which they still move: hundreds of roundings after eighteen
MOVED = 1000
AGREE = 1e-4  # of the objective and a nat a row: float32 and float64 after as many
HOW = dict(n_restarts=3, lanes=2, max_iter=200)

# One model of each kind, for laws whose programs are the dearest; all of them with `-m ""` (pyproject.toml).
KINDS = {
    "mean and precision",
    "EM full",
    "VB full",
    "logistic",
    "mixture of counts",
    "learned shapes",
    "VB of a product",
    "factor analysis, missing",
    "own, local",
    "own, no data",
    "own, not conjugate",
    "own, states in time",
    "black box",
    "HMM of counts",
    "VB state space",
    "topics, known concentrations",
}
# Variants of which another is in every law of the default run: another covariance or component, by EM and VB.
VARIANTS = {
    "EM diag",
    "EM spherical",
    "VB diag",
    "VB spherical",
    "logistic, relevance",
    "EM full, holes",
    "MAP VVE",
    "EM VEI, holes",
    "HMM of EM EEV",
    "VB spherical, holes",
    "EM of binary",
    "EM of categories",
    "EM of profiles",
    "EM of positive",
    "EM of planes",
    "EM of a product",
    "EM of items",
    "EM of gates",
    "own, local, points",
    "black box, low rank",
    "HMM of MAP of counts",
    "HMM of EM of categories",
    "HMM of EM of positive",
    "HMM of positive",
    "HMM of EM of binary",
    "HMM of EM of tails",
    "HMM of EM of factors",
    "HMM of mixtures",
    "HMM of mixtures of counts",
    "state space, full",
}


def over(names, default):
    """Parametrise by models; those that are not in the default run are in that of `-m ""`."""
    again = lambda name: pytest.param(name, marks=pytest.mark.again)
    return pytest.mark.parametrize("name", [name if name in default else again(name) for name in names])


every_model = over(MODELS, set(MODELS) - VARIANTS)
every_kind = over(MODELS, KINDS)
every_model_of_rows = over([name for name in MODELS if MODELS[name].make], set(MODELS) - VARIANTS)


def in_dtype(tree, dtype):
    """The floating leaves in a dtype."""
    cast = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(cast, tree)


@functools.cache
def started(name):
    """A model of the table in float64, its rows and their weights, and where its first run starts."""
    data, weights = MODELS[name].data("float64")
    return (*MODELS[name].started(data, weights), data, weights)


@functools.cache
def trajectory(name, dtype):
    """Updates of the model in a dtype, of data that both dtypes hold, from one start."""
    model, params, data, weights = in_dtype(started(name), "float32")
    given = in_dtype((model, params, data, weights), dtype)
    return given, jax.device_get(updates(*given))


def at(tree, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], tree)


def dtypes(tree):
    """Those of the floating leaves."""
    return {x.dtype for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


# ---------------------------------------------------------------- single updates, in both dtypes


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_model
def test_no_update_of_a_factor_lowers_the_objective(name, dtype, float64):
    _, (params, whole, objective, error, _) = trajectory(name, dtype)
    assert np.isfinite(objective).all()
    assert (np.diff(objective) >= -error[1:]).all(), np.diff(objective) / error[1:]
    assert objective[-1] > objective[0] + 10 * error[0]
    chex.assert_tree_all_finite((params, whole))


@every_model
def test_float32_is_float64_to_within_the_rounding_that_it_claims(name, float64):
    """Of the same numbers at once; after some updates as far as they have been carried apart."""
    (_, _, data, _), (_, _, rough, error, _) = trajectory(name, "float32")
    exact = trajectory(name, "float64")[1].objective
    assert abs(rough[0] - exact[0]) <= error[0]
    size = 1 if data is None else n_rows(data)
    np.testing.assert_allclose(rough, exact, rtol=AGREE, atol=AGREE * size)


@every_model
def test_float32_in_is_float32_out_with_x64_enabled(name, float64):
    """What is resolved, started and moved; integers alone, and no data, have the default float."""
    data, weights = MODELS[name].data("float32")
    if not dtypes(data):
        return
    model, params = jax.eval_shape(lambda data, weights: MODELS[name].started(data, weights), data, weights)
    (same, *_), moved = trajectory(name, "float32")
    for tree in ((model, params), moved):
        assert dtypes(tree) == {np.dtype("float32")}
    chex.assert_trees_all_equal_shapes_and_dtypes(model, same)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((model, params)))


# ---------------------------------------------------------------- rows


def rows_of(data, index):
    if isinstance(data, Ragged):
        return data.take(index).in_parts_of(data)
    return jax.tree.map(lambda x: x[index], data)


def repetitions(weights):
    """As many rows of five kinds in eight, and how often each kind counts: the others not at all."""
    counts = np.tile([0, 0, 0, 1, 2, 1, 2, 2], len(weights) // 8)
    repeated = np.repeat(np.arange(len(weights)), counts)
    assert len(repeated) == len(weights)
    return repeated, jnp.asarray(counts, weights.dtype)


def spoilt(data, counts):
    """The data with nothing to count with in the rows that weigh 0; counts of words are finite anyway."""
    wrong = [7.0, 5.0] if isinstance(data, vb.Documents) else [np.nan, np.inf, -np.inf]

    def spoil(rows, counts):
        def rubbish(x):
            if x.dtype == bool:
                return x
            kinds = wrong if jnp.issubdtype(x.dtype, jnp.floating) else [99, -7]
            bad = jnp.asarray(np.resize(kinds, x.shape), x.dtype)
            return jnp.where(counts.reshape(-1, *[1] * (x.ndim - 1)) == 0, bad, x)

        return jax.tree.map(rubbish, rows)

    if not isinstance(data, Ragged):
        return spoil(data, counts)
    return dataclasses.replace(data, parts=tuple(map(spoil, data.parts, data.split(counts))))


# The weights of a process climb until they gain no more than a rounding: to half of the digits.
CLIMBED = ("HMM of a hierarchical process", "topics, a hierarchical process")


@every_model_of_rows
def test_rows_may_be_permuted_repeated_and_weighted(name, float64):
    data, ones = started(name)[2:]
    repeated, counts = repetitions(ones)
    rows, other = rows_of(data, repeated), np.random.default_rng(1).permutation(len(ones))
    model, params = MODELS[name].started(rows, ones)
    found = lambda data, weights: values(updates(model, params, data, weights)[1:3])
    expected, factor = found(rows, ones), 1e7 if name in CLIMBED else MOVED
    close(found(rows_of(rows, other), ones), expected, factor=factor)
    close(found(spoilt(data, counts), counts), expected, factor=factor)
    close(MODELS[name].model.resolve(spoilt(data, counts), counts), model, factor=10)


@pytest.mark.parametrize("name", ["unit variance", "k-means", "EM full"])
def test_rows_of_weight_zero_leave_finite_gradients(name, float64):
    model, params, data, ones = started(name)
    _, counts = repetitions(ones)
    gradient = jax.jit(jax.grad(score, argnums=(0, 1, 2, 3)))
    clean, bad = (gradient(model, params, x, counts) for x in (data, spoilt(data, counts)))
    close(bad[:3], clean[:3])
    chex.assert_tree_all_finite(bad[3])
    assert any((leaf != 0).any() for leaf in jax.tree.leaves(bad[1]))
    assert (bad[2][counts > 0] != 0).any()
    assert (bad[2][counts == 0] == 0).all()


# ---------------------------------------------------------------- programs


@functools.cache
def in_lanes(name):
    """A model and another with other hyperparameters and start, two updates of both in one program.

    Returns:
        The program, which takes a few rows at a time; the cases; their rows; what came of them.
    """
    model, params, data, weights = started(name)
    other = scaled_hyper(model), MODELS[name].started(data, weights, seed=1)[1]
    cases = jax.tree.map(lambda *x: jnp.stack(x), (model, params), other)

    @jax.jit
    def program(cases, data, weights):
        def both(case):
            model, params = case
            moved = updates.__wrapped__(model, params, data, weights, n=2)
            if not is_conjugate(model):
                return moved, {}, moved.objective[0]
            # where the updates carry locals along, the terms are those of locals that begin anew
            carried = model.interacting_locals
            bound = score(model, params, data, weights) if carried else moved.objective[0]
            return moved, model.elbo_terms(params, data, weights), bound

        return jax.vmap(both)(cases)

    with pytest.MonkeyPatch.context() as patch:
        if data is not None and is_conjugate(model):
            few = 7 if len(weights) == 40 else 3  # five chunks and a remainder, or two
            patch.setattr(type(model), "chunk_rows", lambda self, data: few)
        found = jax.device_get(program(cases, data, weights))
    return program, ((model, params), other), (data, weights), found


@every_kind
def test_vmap_over_starts_and_hyperparameters_is_a_loop_and_chunks_change_nothing(name, float64):
    _, cases, rows, (together, *_) = in_lanes(name)
    for i, case in enumerate(cases):
        alone = jax.tree.map(lambda x: x[:2], jax.device_get(updates(*case, *rows)))
        close(at(together[:4], i), alone[:4], factor=MOVED)
    assert (together.objective[0] != together.objective[1]).all()


@every_kind
def test_the_terms_of_the_bound_add_up_to_it(name, float64):
    *_, (_, terms, bound) = in_lanes(name)
    if terms:
        assert {"log_likelihood", "log_prior"} <= set(terms)
        largest = max(np.abs(x).max() for x in terms.values())
        close(sum(terms.values()), bound, factor=10, scale=largest)


@every_kind
def test_other_data_starts_and_hyperparameters_compile_nothing_again(name, float64):
    """As anything would that leaves a weak type, or a number among what is static."""
    program, given, rows, _ = in_lanes(name)
    program(jax.tree.map(lambda *x: jnp.stack(x), *given), *rows)  # again, where programs were forgotten
    data, weights = MODELS[name].data("float64", seed=1)
    case = MODELS[name].started(data, weights, seed=2)
    cases = jax.tree.map(lambda *x: jnp.stack(x), case, case)
    with compilations() as count:
        found = program(cases, data, weights)[0]
    assert count == []
    chex.assert_trees_all_close(at(found, 0), at(found, 1), rtol=1e-12)


@every_kind
def test_jit_is_eager(name, float64):
    (model, params, data, weights), compiled = trajectory(name, "float64")
    carry, data = begin(model, params, data, weights)
    carry, eager = advance(model, carry, data, weights, 0)
    close(eager[1:4], at(compiled[1:4], 0), factor=10)


# ---------------------------------------------------------------- input


NAMES = r"\b(data|corpus|x|y|sigma)\b"  # those of parts, where data have parts


@every_model_of_rows
def test_data_and_weights_that_are_none_are_refused_by_name(name):
    entry, key = MODELS[name], jax.random.key(0)
    rows, weights = entry.data("float32")
    for bad in (weights[1:], -weights, weights * np.nan, "even"):
        with pytest.raises(ValueError, match="weights"):
            vb.fit(entry.model, rows, key=key, weights=bad)
    for bad in (None, "rows", object()):
        with pytest.raises(ValueError, match=NAMES):
            vb.fit(entry.model, bad, key=key)
    for number in (np.inf, -np.inf):
        made = entry.make(np.random.default_rng(0))
        leaf = np.asarray(jax.tree.leaves(made)[-1])
        if np.issubdtype(leaf.dtype, np.floating):
            leaf.flat[0] = number
            with pytest.raises(ValueError, match=NAMES):
                vb.fit(entry.model, entry.read(made, "float32"), key=key)


def test_every_public_model_is_in_the_registry():
    public = {
        x
        for x in (*vars(vb).values(), *vars(vb.textbook).values())
        if isinstance(x, type) and issubclass(x, (vb.core.ConjugateModel, vb.BlackBox))
    }
    missing = public - {type(entry.model) for entry in MODELS.values()} - {vb.core.ConjugateModel}
    assert not missing


# ---------------------------------------------------------------- whole fits

FITTED = {  # with other values of hyperparameters that are given, not resolved from the data
    "mean and precision": dict(mean_precision=0.5, concentration=0.7),
    "k-means": {},
    "EM full": dict(covariance_floor=1e-4),
    "mixture of lines": dict(concentration=0.7),
    "own, local": dict(concentration=1.0, noise=1.0),
    "own, states in time": {},
    "HMM of counts": {},
    "VB state space": dict(transition_precision=2.0),
    "topics, known concentrations": {},
    "black box": {},
}
every_fit = pytest.mark.parametrize("name", FITTED)


@functools.cache
def fitted(name):
    """One fit in float32 with x64 enabled, three restarts in two lanes, for all tests of it."""
    data, _ = MODELS[name].data("float32")
    return data, vb.fit(MODELS[name].model, data, key=jax.random.key(0), **HOW)


@every_fit
def test_a_fit_of_float32_is_float32_with_x64_enabled(name, float64):
    """Every leaf of it, also of a fit inside jit, without running that one."""
    data, fit = fitted(name)
    run = lambda key, data: vb.fit(MODELS[name].model, data, key=key, **HOW)
    traced = jax.eval_shape(run, jax.random.key(0), data)
    assert dtypes(fit) == dtypes(traced) == {np.dtype("float32")}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((fit, traced)))


@every_fit
def test_the_objective_of_a_fit_is_that_of_its_parameters(name, float64):
    data, fit = fitted(name)
    assert fit.status == vb.Status.CONVERGED
    trace = np.asarray(fit.trace)
    assert len(trace) == fit.n_iter
    assert trace[-1] == fit.objective
    assert fit.objective == fit.runs.objective[~fit.runs.singular].max()
    if name.startswith("topics"):
        return  # the documents of its score are where the fit carried them
    again = updates(fit.model, fit.params, data, MODELS[name].data("float32")[1]).objective[0]
    close(again, fit.objective)  # another program, which adds up in another order


@every_fit
def test_a_warm_start_at_the_optimum_stays_there(name, float64):
    data, fit = fitted(name)
    again = vb.fit(MODELS[name].model, data, key=jax.random.key(1), params=fit.params, **HOW)
    assert again.runs.n_iter[0] <= 3
    assert again.runs.objective[0] >= fit.objective - 10 * TOLERANCE[np.dtype("float32")] * abs(fit.objective)


@every_fit
def test_a_second_fit_of_the_same_shapes_compiles_nothing(name, float64):
    data, fit = fitted(name)
    vb.fit(MODELS[name].model, data, key=jax.random.key(0), **HOW)  # again, where programs were forgotten
    data, _ = MODELS[name].data("float32", seed=1)
    other = with_hyper(MODELS[name].model, **FITTED[name]) if FITTED[name] else MODELS[name].model
    with compilations() as count:
        second = vb.fit(other, data, key=jax.random.key(5), tol=1e-3, **HOW)
    assert count == []
    assert second.objective != fit.objective


def test_points_of_scales_need_no_start():
    data, _ = MODELS["own, points"].data("float32")
    assert vb.fit(MODELS["own, points"].model, data, key=jax.random.key(0)).status == vb.Status.CONVERGED
