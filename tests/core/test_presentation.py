"""How models look: a repr is the call that makes the model; tab completion offers what people call."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support import made_fits
from tests.support.registry import MODELS
from vbjax.core import presentation
from vbjax.core.contracts import Model
from vbjax.numerics.shown import shown

NAMES = vars(vb.textbook) | vars(vb)
EVALUATED = {
    name: entry.model
    for name, entry in MODELS.items()
    if not name.startswith(("own", "black", "mean field"))  # which have functions and arrays
}


@pytest.mark.parametrize("name", EVALUATED)
def test_a_models_repr_makes_the_model(name):
    again = eval(repr(EVALUATED[name]), dict(NAMES))
    assert type(again) is type(EVALUATED[name])
    assert jax.tree.structure(again) == jax.tree.structure(EVALUATED[name])
    assert jax.tree.leaves(again) == jax.tree.leaves(EVALUATED[name])


def test_other_models_and_resolved_ones_are_short():
    for name in ("black box", "mean field table", "own, not conjugate", "own, points"):
        assert "0x" not in repr(MODELS[name].model)
        assert len(repr(MODELS[name].model)) < 250
    resolved = repr(made_fits.started("VB full").model)
    assert "inverse_scale=float32[2, 2]" in resolved
    assert "weight_concentration=" in resolved
    assert max(map(len, resolved.split("\n"))) <= 80
    assert repr(jax.eval_shape(lambda m: m, made_fits.started("VB full").model))  # without numbers


def test_parameters_have_a_line_each():
    lines = repr(made_fits.started("VB full").params).split("\n")
    weights, components = (
        "    weights=<Dirichlet (3,)>,",
        "    components=<NormalWishart (3, 2) and (3, 2, 2)>,",
    )
    assert lines == ["Record(", weights, components, ")"]
    lines = repr(made_fits.started("HMM of MAP of counts").params).split("\n")
    assert [line.strip().split("=")[0] for line in lines[1:-1]] == ["initial", "transitions", "components"]
    assert "<point of Gamma (3, 2)>" in lines[3]
    state = vb.families.NormalState(jnp.float32(1.5), jnp.float32(4.0))
    assert repr(state) == "NormalState(mean=1.5, precision=4)"
    assert repr(vb.Delta(vb.Gamma()).at(2.5)) == "DeltaState(value=2.5)"
    assert repr(jax.vmap(lambda x: state)(jnp.ones(3))) == "<Normal (3,)>"


def test_values_are_shown_in_short():
    texts = [shown(x) for x in (2.0, None, "full", np.float32(0.1), jnp.arange(3), jnp.zeros((2, 2)), len)]
    assert texts[:6] == ["2.0", "None", "'full'", "0.1", "[0, 1, 2]", "float32[2, 2]"]
    assert shown(jax.random.key(0)) == "key<fry>[]"
    assert shown(lambda x: x) == "<lambda>"


@pytest.mark.parametrize(
    "name", ["EM full", "HMM of counts", "linear regression", "black box", "own, points"]
)
def test_completion_offers_what_people_call(name):
    model = MODELS[name].model
    offered = set(dir(model))
    drivers = {n for n in dir(Model) if not n.startswith("_")} - {"resolve"}
    assert not offered & (drivers | {"e_step", "m_step", "prepare", "constrain", "local", "init", "mix"})
    assert all(callable(getattr(model, n)) for n in ("algorithm", "read", "inspect"))  # hidden, not gone
    people = {
        "EM full": {
            "n_components",
            "component",
            "weights",
            "predict",
            "sample",
            "bic",
            "replace",
            "params_at",
        },
        "HMM of counts": {"n_states", "chain", "decode", "forecast", "elbo_terms"},
        "linear regression": {"fit_intercept", "predict", "coefficients", "predictive", "posterior"},
        "black box": {"log_density", "support", "n_draws", "resample"},
        "own, points": {"hyper", "factors", "replace"},
    }
    assert people[name] <= offered


def test_completion_of_a_fit_offers_attributes_and_uses():
    offered = set(dir(made_fits.started("EM full")))
    assert {"params", "objective", "summary", "save", "predict", "sample", "trace", "status"} <= offered
    assert not offered & {"m_step", "expected", "scored", "constrain", "labels_table"}


def test_every_helper_that_is_hidden_is_some_models():
    names = set().union(*(object.__dir__(entry.model) for entry in MODELS.values()))
    assert names >= presentation._HELPERS
