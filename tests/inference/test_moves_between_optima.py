"""The search of a fit is never worse than without, and leaves optima in which a single run is stuck."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.compilations import compilations

RNG = np.random.default_rng(0)
TRUTH = np.repeat(np.arange(4), 40)
CENTRES = np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0], [60.0, 60.0]])
CLOUDS = jnp.asarray(CENTRES[TRUTH] + RNG.normal(size=(160, 2)), "float32")
COUNTS = jnp.asarray(RNG.poisson(np.array([3.0, 30.0])[np.arange(96) // 12 % 2])[:, None], "float32")
WORDS = RNG.multinomial(30, np.kron(np.eye(3), np.full(4, 0.25))[np.arange(24) % 3])
MODELS = dict(
    em=(vb.GaussianMixture(4, "spherical"), CLOUDS),
    chain=(vb.BayesianPoissonHMM(3), COUNTS),
    topics=(vb.LatentDirichletAllocation(3), WORDS),
)


def key(number=0):
    return jax.random.key(number)


def fit(name, number=0, **how):
    return vb.fit(*MODELS[name], **dict(key=key(number), n_restarts=4, lanes=4) | how)


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_is_never_worse_with_a_search_than_without(name):
    """The programs of the race are those without a search; another key compiles nothing."""
    without, searched = fit(name), fit(name, search=True)
    assert searched.objective >= without.objective
    np.testing.assert_allclose(searched.search.gained, searched.objective - without.objective, rtol=1e-6)
    assert searched.search.rounds >= 12
    assert searched.search.climbs == 4 * searched.search.rounds
    params = jax.tree.map(jnp.copy, searched.params)
    again = vb.fit(searched.model, MODELS[name][1], key=key(), params=params, max_iter=1)
    np.testing.assert_allclose(again.objective, searched.objective, rtol=1e-4)
    with compilations() as compiled:
        fit(name, 1, search=True)
    assert not compiled


def test_a_run_with_two_components_in_one_cluster_and_one_in_two_is_set_free():
    """The planted clusters are the better optimum, which a climb from the wrong ones does not find."""
    model, x = MODELS["em"]
    model = model.resolve(x)
    stuck = np.array([0, 0, 1, 2])[TRUTH] + (TRUTH == 3) * (np.arange(160) % 2)
    weights, begun = jnp.ones(160), model.init(key(), x)
    at = lambda labels: model.at_responsibilities(begun, jax.nn.one_hot(labels, 4), x, weights)
    how = dict(lanes=1, n_restarts=1)
    planted = fit("em", params=at(TRUTH), **how)
    assert fit("em", params=at(stuck), **how).objective < planted.objective - 10
    found = fit("em", params=at(stuck), search=True, **how)
    assert found.objective > planted.objective - 0.1
    assert found.search.kept > 0
    assert f"the search kept {found.search.kept} moves" in repr(found)


def test_more_runs_than_asked_for_fill_the_lanes_after_those_without_a_search():
    one, searched = fit("em", n_restarts=1), fit("em", n_restarts=1, search=True)
    assert searched.runs.objective.shape == (4,)
    assert searched.objective >= one.objective - 1e-3  # of another program, so rounded otherwise


def test_components_that_are_left_out_take_no_part():
    x, weights = CLOUDS, vb.labels.Weights(active=jnp.asarray(2))
    model = vb.Mixture(4, vb.components.Gaussian("spherical"), weights=weights).resolve(x)
    begun = model.init(key(), x)
    other = model.init(key(1), x)
    propose = jax.jit(lambda own: model.propose(own, begun, other, x, None).weights.mean)
    each = jax.lax.map(propose, jax.random.split(key(), 8))
    np.testing.assert_array_equal(each[:, 2:], 0)
    assert len(np.unique(np.asarray(each[:, 0]))) > 1


def test_an_account_of_the_search_is_in_the_file(tmp_path):
    found = fit("em", search=True)
    found.save(tmp_path / "fit")
    assert vb.load(tmp_path / "fit").search == found.search
    assert vb.load(tmp_path / "fit").verdict() == found.verdict()


def test_moves_that_come_back_are_agreement(recwarn):
    """A best run that no other restart reached is warned of, unless moves away from it came back."""
    found = fit("em", search=True)
    alone = found.runs._replace(objective=jnp.asarray([found.objective, -1e9, -1e9, -1e9]))
    found = dataclasses.replace(found, runs=alone._replace(singular=jnp.zeros(4, bool)))
    with pytest.warns(vb.FitWarning):
        dataclasses.replace(found, search=found.search._replace(returned=0)).warn()
    dataclasses.replace(found, search=found.search._replace(returned=1)).warn()
    assert len(recwarn) == 0


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (vb.LinearRegression(), (jnp.ones((4, 1)), jnp.arange(4.0))),
        (vb.PPCA(1), CLOUDS),
        (vb.BlackBox(lambda s: -(s**2), vb.real()), None),
    ],
)
def test_models_without_labels_refuse_it(model, data):
    with pytest.raises(ValueError, match=r"search (must|is)"):
        vb.fit(model, data, key=key(), search=True)


def test_it_is_a_flag_and_not_for_jit():
    with pytest.raises(ValueError, match="search must be True or False"):
        fit("em", search=1)
    with pytest.raises(ValueError, match="search must be False inside jit and vmap"):
        jax.jit(lambda key: fit("em", search=True, key=key).objective)(key())
    blocks = vb.sources.Blocks(lambda: [np.asarray(CLOUDS)])
    with pytest.raises(ValueError, match="search must be left out where data come from a source"):
        vb.fit(MODELS["em"][0], blocks, key=key(), search=True)
