"""A choice among models: it is a loop over single fits, and compiles nothing for a number of components."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.tolerances import close
from vbjax.inference import selection

KEY = jax.random.key(0)
GRID = dict(n_components=[1, 3, 4], covariance_type=["tied", "spherical"])


def rows():
    centres = np.array([[0.0, 0.0], [6.0, 1.0], [1.0, 7.0]])
    return jnp.asarray(centres[np.arange(90) % 3] + np.random.default_rng(1).normal(size=(90, 2)), "float32")


def selected(constructor=vb.GaussianMixture, grid=GRID, **options):
    return vb.select(constructor, rows(), grid, key=KEY, **dict(n_restarts=4, max_iter=200) | options)


@pytest.fixture(scope="module")
def choice():
    return selected()


def test_it_is_a_loop_over_single_fits(choice):
    for candidate in choice.candidates[:2]:
        model = vb.GaussianMixture(**candidate.options)
        single = vb.fit(model, rows(), key=KEY, n_restarts=4, max_iter=200)
        close(candidate.fit.objective, single.objective, factor=10)  # restarts that end at one optimum
        np.testing.assert_allclose(candidate.value, single.bic(rows()), rtol=1e-5)
    values = [candidate.value for candidate in choice.candidates]
    assert values == sorted(values)
    np.testing.assert_allclose([c.difference for c in choice.candidates], np.array(values) - values[0])
    assert choice.candidates[0].options["n_components"] == 3


def test_the_best_is_a_fit_of_its_own_size(choice):
    best = choice.best
    assert best.model.n_components == 3
    assert best.model.weights.active is None
    assert best.responsibilities(rows()).shape == (90, 3)
    assert best.params.weights.mean.shape == (3,)
    again = vb.fit(best.model, rows(), key=KEY, params=best.params, max_iter=1)
    close(again.objective, best.objective)


def test_a_number_of_components_compiles_nothing():
    selected()
    with compilations() as compiled:
        selected(grid=dict(n_components=[2, 4], covariance_type=["tied"]))
    assert not compiled


def test_a_structure_compiles_its_start_its_sweeps_and_its_criteria_alone():
    selected()
    with compilations() as compiled:
        selected(grid=dict(n_components=[2, 4], covariance_type=["diag"]))
    assert len(compiled) == 3, compiled


def test_what_people_see(choice):
    text = str(choice)
    assert text.startswith("GaussianMixture by bic: n_components=3, covariance_type='tied' is best")
    lines = str(choice.table).splitlines()
    assert len(lines) == len(choice.table) + 1 == 7
    assert lines[0].split() == ["n_components", "covariance_type", "bic", "difference", "agree", "status"]
    assert max(map(len, lines)) <= 80
    assert choice.table._repr_html_().count("<tr>") == 7
    assert choice._repr_html_().startswith("<p>GaussianMixture by bic")
    ax = choice.plot()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["spherical", "tied"]
    assert ax.get_xlabel() == "n_components"


def test_rows_give_the_error_of_a_difference():
    grid = dict(n_components=[1, 3])
    choice = selected(grid=grid, criterion="cross_validation", n_restarts=1, max_iter=20)
    best, other = choice.candidates
    assert best.options == dict(n_components=3)
    assert best.standard_error == best.difference == 0
    effort = dict(key=KEY, n_restarts=1, max_iter=20)
    each = [
        np.asarray(vb.cross_validate(vb.GaussianMixture(k), rows(), **effort).log_density) for k in (3, 1)
    ]
    difference = (each[0] - each[1]).astype(float)
    np.testing.assert_allclose(other.difference, difference.sum(), rtol=1e-4)
    np.testing.assert_allclose(other.standard_error, difference.std(ddof=1) * np.sqrt(90), rtol=1e-4)


def test_the_bound_chooses_among_bayesian_models_of_any_kind():
    choice = selected(vb.BayesianGaussianMixture, dict(n_components=[2, 3], weight_concentration=[0.5, 5.0]))
    assert choice.criterion == "elbo"
    assert choice.candidates[0].options["n_components"] == 3
    y = vb.datasets.earthquakes()
    states = vb.select(vb.PoissonHMM, y, dict(n_states=[1, 2]), criterion="aic", key=KEY, n_restarts=2)
    single = vb.fit(vb.PoissonHMM(2), y, key=KEY, n_restarts=2)
    value = next(c.value for c in states.candidates if c.options["n_states"] == 2)
    np.testing.assert_allclose(value, single.aic(y), rtol=1e-5)


def test_what_follows_the_number_is_that_of_each_model():
    def noisy(n_components):
        parts = dict(classes=(n_components - 1, vb.components.Gaussian()), noise=(1, vb.components.Noise()))
        return vb.Mixture(n_components, vb.components.Union(**parts))

    effort = dict(n_restarts=1, max_iter=5)
    for candidate in selected(noisy, dict(n_components=[2, 3]), **effort).candidates:
        single = vb.fit(noisy(**candidate.options), rows(), key=KEY, **effort)
        close(candidate.fit.objective, single.objective)
    each = lambda n_components: vb.BayesianGaussianMixture(n_components, mean_precision=1 / n_components)
    for constructor, one in ((each, False), (vb.BayesianGaussianMixture, True)):
        models = selection._models(constructor, dict(n_components=[2, 3]), rows())
        assert [model.n_components == 3 for _, model in models] == [one, True]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(criterion="bci"), "criterion must be one of 'bic', 'aic'"),
        (
            dict(criterion="elbo"),
            "criterion must be one of 'bic', 'aic', 'icl', 'cross_validation' for a Gauss",
        ),
        (
            dict(constructor=vb.BayesianGaussianMixture, criterion="bic"),
            "criterion must be one of 'elbo', 'cross_validation', 'leave_one_out' for a Bayesian",
        ),
        (dict(grid=dict(n_components=[])), "grid must have at least one value for 'n_components'"),
        (dict(grid=dict(n_components=3)), "grid must have a list of values for 'n_components'; got 3"),
        (dict(grid=dict(n_components=[0, 2])), "n_components must be a whole number"),
        (dict(grid=dict(n_clusters=[2])), "grid must have the names of options that constructor takes"),
        (
            dict(grid=dict(n_components=[2], covariance_type=["round"])),
            "covariance_type of the component must be",
        ),
        (dict(constructor=vb.GaussianMixture(2)), "constructor must make a model"),
        (dict(n_restarts=0), "n_restarts must be"),
    ],
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        selected(**options)
