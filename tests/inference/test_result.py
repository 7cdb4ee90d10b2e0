"""What a fit does with its own parameters, and its summary.

A use of the model through the fit is the model's with the fit's parameters, to the bit; what the model cannot
do, the fit cannot. Copies and pickles are fits. The summary names every parameter once.
"""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb

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


def test_copies_and_pickles_are_fits():
    for again in (copy.copy(FIT), pickle.loads(pickle.dumps(jax.device_get(FIT)))):
        np.testing.assert_array_equal(again.objective, FIT.objective)


def test_the_summary_names_every_parameter_once():
    lines = FIT.summary().split("\n")
    assert lines[0] == f"BayesianGaussianMixture: {FIT.verdict()}"
    assert [line.split()[0] for line in lines[1:]] == [
        "weights",
        "components.location",
        "components.precision",
    ]
    fit = vb.fit(vb.BlackBox(lambda s: -0.5 * (s.a - 2) ** 2, dict(a=vb.real())), key=KEY)
    assert fit.summary().split("\n")[1] == "a  2.000  (sd 1.000)"


def test_inside_jit_a_fit_uses_its_own_parameters():
    @jax.jit
    def look(x):
        return vb.fit(vb.BayesianGaussianMixture(2), x, key=KEY, max_iter=3).responsibilities(x)

    np.testing.assert_allclose(look(X), FIT.responsibilities(X), atol=1e-5)
    assert jnp.isfinite(FIT.objective)
