"""What an accelerator is given, looked at without one.

A sweep lowered for it is a few steps in turn. Whatever a fit multiplies is multiplied in full precision, but
where the user has chosen another (the linter sees to it that all is compiled so).
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.registry import MODELS
from tests.test_contracts import KINDS
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.devices import compiled_for, room
from vbjax.core.model import ConjugateModel
from vbjax.families.normal_wishart import NormalWishart

D, K, T = 16, 16, 4096
TABLES = dict(
    em=vb.GaussianMixture(K),
    vb=vb.BayesianGaussianMixture(K),
    diag=vb.GaussianMixture(K, "diag"),
    counts=vb.BayesianPoissonMixture(K),
    kmeans=vb.KMeans(K),
    factors=vb.FactorAnalysis(4),
)


def sweep_of(model, data):
    """A sweep, and its arguments but for the data."""
    model = model.resolve(model.read(data))
    params = jax.jit(model.init)(jax.random.key(0), model.read(data))
    ascent = CoordinateAscent(model, jnp.zeros(()))

    def sweep(ascent, params, data):
        return ascent.step(ascent.start(params, data), data, None)

    return sweep, ascent, params


def steps_of(sweep, *arguments):
    """Loop turns that follow one another when an accelerator runs a sweep."""
    anew = lambda *arguments: sweep(*arguments)  # a program of its own: others may have been traced before
    return steps_in_turn(jax.make_jaxpr(anew)(*arguments).jaxpr)


def steps_in_turn(jaxpr):
    """Loop turns in the branches that an accelerator takes, where nothing has gone wrong."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [steps_in_turn(x) for x in jax.extend.core.jaxprs_in_params(equation.params)]
        if equation.primitive.name == "scan":
            total += equation.params["length"] * max([1, *inner])
        elif equation.primitive.name == "while":  # of a turn or of none, for what has gone wrong
            total += 1
        elif equation.primitive.name == "cond":
            platforms = equation.params.get("branches_platforms")
            total += inner[-1] if platforms else min(inner)  # the last is everybody's but the processor's
        else:
            total += sum(inner)
    return total


@pytest.mark.parametrize("name", TABLES)
def test_a_table_of_a_million_rows_is_a_few_steps(name):
    some = np.random.default_rng(0).poisson(3.0, (200, D)).astype(np.float32)
    sweep, *fixed = sweep_of(TABLES[name], some)
    many = jax.ShapeDtypeStruct((1_000_000, D), jnp.float32)
    with compiled_for("cuda"):
        assert steps_of(sweep, *fixed, many) <= 4
    assert steps_of(sweep, *fixed, many) > 100  # as a processor takes them


@pytest.mark.parametrize(
    ("model", "numbers"),
    [
        (vb.GaussianMixture(32), 32 * 128),  # in a row: its whitened differences
        (vb.GaussianMixture(8192), 8192 * 128),
        (vb.PoissonMixture(8192), 8192),  # its densities
    ],
)
def test_a_chunk_is_an_eighth_of_the_memory_at_most(model, numbers):
    rows = jax.ShapeDtypeStruct((10**9, 128), jnp.float32)
    with compiled_for("cuda"):
        share = 4 * numbers * model.chunk_rows(rows) * room() / 2**35
    assert 1 / 100 < share <= 1 / 8


@pytest.mark.parametrize("model", [vb.PoissonHMM(4), vb.BayesianGaussianHMM(4, "diag")], ids=["counts", "VB"])
def test_a_chain_is_twice_the_logarithm_of_its_steps(model):
    data = model.read(vb.Sequences.of([np.random.default_rng(0).poisson(3.0, (T, 1)).astype(np.float32)]))
    sweep, *fixed = sweep_of(model, data)
    with compiled_for("cuda"):
        assert steps_of(sweep, *fixed, data) <= 2 * math.log2(T)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_kind_of_model_is_lowered_for_cuda(name):
    entry = MODELS[name]
    if not isinstance(entry.model, ConjugateModel):
        pytest.skip("fitted by gradients")
    data, weights = entry.data("float32")
    model, params = entry.started(data, weights)
    ascent = CoordinateAscent(model, jnp.zeros(()))
    step = lambda ascent, params, data: ascent.step(ascent.start(params, data), data, None)[1].objective
    with compiled_for("cuda"):
        exported = jax.export.export(jax.jit(step), platforms=["cuda"])(ascent, params, data)
    assert exported.platforms == ("cuda",)


def precisions(function, *arguments):
    """The precisions of all products of matrices in a function that is lowered for an accelerator."""
    with compiled_for("cuda"):
        text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line or "convolution" in line]
    return {re.search(r"precision = \[(.*?)\]|$", line)[1] for line in products}


def precisions_of_a_fit(name):
    entry = MODELS[name]
    data, weights = entry.data("float32")
    fit = lambda data: vb.fit(entry.model, data, key=jax.random.key(0), weights=weights, max_iter=3).params
    return precisions(fit, data)


@pytest.mark.parametrize("name", ["VB full", "HMM of counts", "topics, known concentrations", "black box"])
def test_a_fit_multiplies_in_full_precision(name):
    assert precisions_of_a_fit(name) == {"HIGHEST, HIGHEST"}


def test_a_distribution_multiplies_in_full_precision():
    q = NormalWishart(3).neutral(jnp.float32)
    use = lambda q: (q.sample(jax.random.key(0)), q.entropy(), q.kl(q), q.covariance)
    assert precisions(use, q) == {"HIGHEST, HIGHEST"}


def test_the_users_precision_stays():
    with jax.default_matmul_precision("high"):
        assert precisions_of_a_fit("VB full") == {"HIGH, HIGH"}
