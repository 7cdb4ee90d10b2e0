"""Every field of every model is in its table; what is out of range is refused by name, and nothing compiled.

Bad values are what no model takes: words, objects, NaN, infinities, wrong signs, wrong kinds, wrong shapes.
"""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support import registry
from tests.support.clouds import key
from tests.support.compilations import compilations
from vbjax.core.hyperparameters import (
    Choice,
    Count,
    Flag,
    Part,
    Parts,
    read_hyperparameters,
    read_model,
    table,
)

EITHER_SIGN = {"location", "mean", "center", "offset", "initial_mean", "log_joint"}
ZERO = {"stickiness", "noise_floor"}  # positive, or 0


MODELS = {
    name: (entry.model, lambda entry=entry: entry.data("float32")[0])
    for name, entry in registry.MODELS.items()
    if not isinstance(entry.model, (vb.Model, vb.BlackBox))
}


def parts(model, where=""):
    """The model and the models inside it, and what is added to names of their fields in errors."""
    yield model, where
    for name, row in table(model).items():
        if isinstance(row, Part):
            yield from parts(getattr(model, name), f" of the {name}{where}")


def changed(model, where, name, value):
    """A copy of the model with one value in its place, whatever it is."""
    model, (inner, outer) = copy.copy(model), where.rsplit(" of the ", 1) if where else ("", "")
    value = changed(getattr(model, outer), inner, name, value) if where else value
    object.__setattr__(model, outer if where else name, value)
    return model


def bad_values(name, row, optional):
    """Values that the field does not take."""
    common = [object(), "3", 1j, {"a": 1}, *[None] * (not optional)]
    if isinstance(row, Count):
        return [*common, row.least - 1, -1, 2.5, True, np.nan, np.ones(2)]
    if isinstance(row, Flag):
        return [*common, 1, np.ones(2), []]
    if isinstance(row, Choice):
        return [*common, 3, True, np.ones(2), list(row.names)]
    if isinstance(row, Part):
        return [*common, vb.KMeans, vb.KMeans(2), 3]
    values = [*common, True, [], np.zeros((0, 2)), [[1.0], [1.0, 2.0]], np.array(["a"]), np.full(2, None)]
    values += [np.nan, np.inf, -np.inf, [np.nan, 1.0], np.array([1j])]
    values += [np.ones((2, 2, 2, 2)), np.ones((7, 7))] * (name != "log_joint")
    values += [np.ones(7)] * (name not in {"log_joint", "mean"})
    values += [-1.0] * (name not in EITHER_SIGN)
    return values + [0.0] * (name not in EITHER_SIGN | ZERO)


@pytest.mark.parametrize("name", MODELS)
def test_bad_values_are_refused_by_name_and_nothing_is_compiled(name):
    model, make = MODELS[name]
    data, start = make(), key()
    read_model(model, data)  # which compiles what reads the data
    with compilations() as compiled:
        for part, where in parts(model):
            defaults = {field.name: field.default for field in dataclasses.fields(part)}
            for field, row in table(part).items():
                if isinstance(row, Parts):
                    continue  # refused where they are given, by keyword: test_products.py
                for value in bad_values(field, row, defaults[field] is None):
                    wrong = changed(model, where, field, value)
                    with pytest.raises(ValueError, match=rf"\b{field}\b") as error:
                        vb.fit(wrong, data, key=start)
                    assert len(str(error.value)) < 250, str(error.value)
    assert compiled == []


def test_every_field_of_every_public_model_is_in_its_table():
    models = [x for x in vars(vb).values() if isinstance(x, type) and issubclass(x, vb.core.ConjugateModel)]
    covered = {type(part) for model, _ in MODELS.values() for part, _ in parts(model)}
    for kind in models:
        if kind in (vb.core.ConjugateModel, vb.Model):
            continue
        assert {field.name for field in dataclasses.fields(kind)} == set(table(kind)), kind
        assert kind in covered, f"{kind} is in no test of bad values"


ROWS = np.float32(registry.table(np.random.default_rng(0)))
LABELLED = ROWS, np.int32(ROWS[:, 0] > 1)


@pytest.mark.parametrize("name", MODELS)
def test_a_resolved_model_is_read_as_it_is(name):
    """What follows the data is in the table's range and shape; so a fit's model can be fitted again."""
    model, make = MODELS[name]
    model, data = read_model(model, make())
    resolved = model.inspect(data).resolve(data)
    again, _ = read_model(resolved, data)
    assert jax.tree.structure(again) == jax.tree.structure(resolved)
    for read, leaf in zip(jax.tree.leaves(again), jax.tree.leaves(resolved), strict=True):
        assert read is leaf


def test_what_has_a_meaning_is_accepted():
    """Numbers for arrays, lists, whole numbers and half precision, in the data's dtype afterwards."""
    half = [np.float16(2), jnp.asarray(2, jnp.bfloat16), np.full(2, 2, "float16")]
    for scale in (2, 2.0, [2, 2], (2.0, 2.0), np.float64(2), np.full(2, 2), jnp.full(2, 2.0), *half):
        model, data = read_model(changed(vb.KMeans(3, scale=scale), "", "n_clusters", np.int64(3)), ROWS)
        assert (type(model.n_clusters), model.scale.dtype) == (int, data.dtype)
        np.testing.assert_array_equal(model.resolve(data).scale, [2.0, 2.0])
    shares = vb.MixtureHMM(2, 3, weight_concentration=[2, 2, 5]).component.weights
    np.testing.assert_array_equal(read_hyperparameters(shares).concentration, [2, 2, 5])


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (vb.GaussianMixture(2, inverse_scale=np.eye(2)), ROWS,
         "inverse_scale of the component must be left out: points without mean_precision have no prior"),
        (vb.GaussianMixture(2, degrees_of_freedom=3.0), ROWS,
         "degrees_of_freedom of the component must be left out: points without mean_precision"),
        (vb.BayesianProbitRegression(relevance_rate=np.ones(7)), LABELLED,
         "relevance_rate must come with ard=True"),
        (vb.BayesianLogisticRegression(ard=True, precision=1.0), LABELLED,
         "precision must not come with ard=True"),
        (vb.textbook.RobustNormal(1e-60), ROWS[:, 0],
         "degrees_of_freedom must be positive; got 1e-60, 0.0 in float32"),
        (vb.textbook.RobustNormal(location=1e60), ROWS[:, 0],
         r"location must be finite; got 1e\+60, inf in float32"),
        (vb.BayesianLinearRegression(offset=1e30), LABELLED, "offset must be finite, as must be its square"),
        (vb.KMeans(3, scale=[1.0, -1.0]), ROWS, r"scale must be positive; got -1.0 at \[1\]"),
        (vb.BayesianLinearRegression(location=np.ones(2)), LABELLED,
         r"location must be a number or of shape \(3,\)"),
        (vb.BayesianGaussianMixture(2, degrees_of_freedom=1.0), ROWS,
         "degrees_of_freedom of the component must be above 1"),
        (vb.BayesianGaussianMixture(2, "diag", inverse_scale=np.eye(2)), ROWS, r"of shape \(d,\); got"),
        (vb.BayesianCategoricalMixture(2, 4, concentration=np.ones(3)), ROWS, r"or of shape \(d, 4\)"),
        (vb.BayesianPoissonMixture(2, weight_prior="dirichlet_process", weight_concentration=[1.0, 1.0]),
         np.abs(ROWS).round(), "concentration of the weights must be a number; got"),
        (vb.MixtureHMM(2, 2, covariance_floor=-1.0), ROWS,
         "covariance_floor of the component of the component must be positive; got -1.0"),
    ],
)  # fmt: skip
def test_what_goes_with_what_is_said(model, data, words):
    with pytest.raises(ValueError, match=words):
        vb.fit(model, data, key=key())


def test_weights_that_a_chain_replaces_are_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight_concentration'"):
        vb.PoissonHMM(2, weight_concentration=3.0)
    for kind in (vb.HiddenMarkovModel, vb.BayesianHiddenMarkovModel, vb.HDPHiddenMarkovModel):
        with pytest.raises(ValueError, match=r"^component must be a component, such as vb\.components"):
            vb.fit(kind(2, vb.PoissonMixture(2)), ROWS, key=key())


@pytest.mark.parametrize("make", [vb.BayesianGaussianMixture, vb.BayesianPoissonMixture])
def test_the_kind_of_weights_is_refused_where_it_is_said(make):
    with pytest.raises(ValueError, match=r"^weight_prior must be one of 'dirichlet', 'dirichlet_pro.*'even'"):
        make(2, weight_prior="even")


def test_hyperparameters_are_replaced_wherever_they_are():
    """By the names that the signatures have: what several parts have is the component's."""
    lines = vb.BayesianRegressionMixture(2).replace(concentration=0.7, weight_concentration=3.0)
    assert (lines.component.concentration, lines.weights.concentration) == (0.7, 3.0)
    assert isinstance(lines, vb.BayesianRegressionMixture)
    shares = vb.MixtureHMM(2, 3).replace(covariance_floor=0.1, weight_concentration=2.0, stickiness=1.0)
    inner = shares.component
    assert (inner.component.covariance_floor, inner.weights.concentration) == (0.1, 2.0)
    assert (shares.chain.stickiness, inner.component.n_laws) == (1.0, 6)
    fewer = shares.replace(n_components=1, n_states=4).component
    assert (fewer.n_components, fewer.n_laws, fewer.component.n_laws) == (1, 4, 4)
    for nobody in ("rate", "n_laws", "points", "weight_rate"):
        with pytest.raises(ValueError, match=f"^{nobody} must be a hyperparameter of GaussianMixture"):
            vb.GaussianMixture(2).replace(**{nobody: 1})


def test_a_wrong_hyperparameter_is_named_before_wrong_data():
    with pytest.raises(ValueError, match="n_components must be a whole number"):
        vb.fit(vb.GaussianMixture(0), "no data", key=key())
    with pytest.raises(ValueError, match="data must be"):
        vb.fit(vb.BayesianLinearRegression(location=np.ones(7)), "no data", key=key())


def test_shapes_alone_are_read_of_traced_hyperparameters():
    def read(scale):
        return read_model(vb.KMeans(3, scale=scale), ROWS)[0].scale

    np.testing.assert_array_equal(jax.jit(read)(jnp.full(2, jnp.nan)), np.full(2, np.nan))
    assert jax.vmap(read)(jnp.ones((7, 2))).shape == (7, 2)
    assert jax.vmap(read)(jnp.ones(7)).shape == (7,)  # a number for each of the batch
    for program, scale in (jax.jit(read), jnp.ones(7)), (jax.vmap(read), jnp.ones((2, 7))):
        with pytest.raises(ValueError, match="data must have 7 columns, as the model's scale has"):
            program(scale)
    with pytest.raises(ValueError, match=r"scale must be a number or of shape \(d,\); got"):
        jax.jit(read)(jnp.ones((2, 2)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("3", "hyper 'tau0' must be numbers"),
        (object(), "hyper 'tau0' must be numbers"),
        (1j, "hyper 'tau0' must be numbers; got an array of complex128"),
        ([1.0, np.nan], "hyper 'tau0' must have no NaN"),
    ],
)
def test_hyperparameters_of_an_own_model_are_numbers(value, words):
    with pytest.raises(ValueError, match=words):
        vb.fit(registry.mean_and_precision().replace(tau0=value), ROWS[:, 0], key=key())
