"""What a fit does with its own parameters.

A use of the model through the fit is the model's with the fit's parameters, to the bit; what the model cannot
do, the fit cannot. Copies, pickles and saved fits are fits.
"""

import copy
import dataclasses
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.golden_fit import FOLDER
from tests.support.own_models import mean_and_precision
from tests.support.registry import MODELS

X = vb.datasets.old_faithful()[:60]
KEY = jax.random.key(0)
FIT = vb.fit(vb.BayesianGaussianMixture(2), X, key=KEY, max_iter=3)


@pytest.mark.parametrize("name", ["predict", "responsibilities", "log_predictive", "elbo_terms"])
def test_a_use_of_rows_is_the_models(name):
    found, expected = getattr(FIT, name)(X), getattr(FIT.model, name)(FIT.params, X)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_draws_are_the_models():
    np.testing.assert_array_equal(FIT.sample(KEY, 5), FIT.model.sample(FIT.params, KEY, 5))


def test_what_the_model_cannot_do_is_no_attribute():
    with pytest.raises(AttributeError, match="a fit of BayesianGaussianMixture has no 'forecast'"):
        _ = FIT.forecast
    assert "predict" in dir(FIT)
    assert "forecast" not in dir(FIT)
    assert not hasattr(FIT, "read")  # which takes data, not parameters


def copies(x):
    return copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x))


def test_copies_and_pickles_of_fits_and_models_are_the_same():
    models = {name: entry.model for name, entry in MODELS.items() if not name.startswith(("own", "black"))}
    for one in (FIT, vb.load(FOLDER / "format_1.vbjax"), mean_and_precision(), *models.values()):
        for again in copies(one):
            assert jax.tree.structure(again) == jax.tree.structure(one)
            jax.tree.map(np.testing.assert_array_equal, again, one)
    np.testing.assert_array_equal(copies(FIT)[2].predict(X), FIT.predict(X))


def test_a_saved_fit_says_the_same_bits(tmp_path):
    FIT.save(tmp_path / "fit.vbjax")
    again = vb.load(tmp_path / "fit.vbjax")
    np.testing.assert_array_equal(again.log_predictive(X), FIT.log_predictive(X))
    np.testing.assert_array_equal(again.sample(KEY, 5), FIT.sample(KEY, 5))
    assert str(again.summary()) == str(FIT.summary())


def test_a_fit_that_is_not_to_be_relied_on_warns_with_its_verdict():
    model, far, near = vb.KMeans(2), X[:, :1].at[:30].add(50.0), jnp.zeros((4, 1)).at[:2].set(1.0)
    with pytest.warns(vb.FitWarning, match=r"KMeans: .*stopped at max_iter before it converged") as said:
        vb.fit(model, X, key=KEY, max_iter=1)
    assert [warning.filename for warning in said] == [__file__]  # the line that called
    with warnings.catch_warnings():
        warnings.simplefilter("error", vb.FitWarning)
        vb.fit(model, far, key=KEY, n_restarts=4)
        jax.jit(lambda x: vb.fit(model, x, key=KEY, max_iter=1).objective)(X)
        alone = vb.fit(model, near, key=KEY, n_restarts=2)
        lower = alone.runs._replace(objective=alone.runs.objective.at[1].add(-1.0))
        alone.warn()
        with pytest.raises(vb.FitWarning, match="1 of 2 restarts within 1e-4 of the best"):
            dataclasses.replace(alone, runs=lower).warn()


def test_inside_jit_a_fit_uses_its_own_parameters():
    @jax.jit
    def look(x):
        return vb.fit(vb.BayesianGaussianMixture(2), x, key=KEY, max_iter=3).responsibilities(x)

    np.testing.assert_allclose(look(X), FIT.responsibilities(X), atol=1e-5)
    assert jnp.isfinite(FIT.objective)
