"""Every field of every model is in its table; what is out of range is refused by name, and nothing compiled.

Bad values are what no model takes: words, objects, NaN, infinities, wrong signs, wrong kinds, wrong shapes.
"""

import copy
import dataclasses

import numpy as np
import pytest
import registry
from clouds import key
from compilations import compilations

import vbjax as vb
from vbjax.core.hyperparameters import Choice, Count, Flag, Part, read_model, table

EITHER_SIGN = {"mu0", "location", "mean", "center", "offset", "initial_mean", "log_joint"}
ZERO = {"stickiness", "noise_floor"}  # positive, or 0


def steps():
    """Two sequences of counts, (t, d)."""
    return vb.Sequences.of(list(np.float32(registry.counts(np.random.default_rng(0)).reshape(2, -1, 2))))


def words():
    """Documents of five words."""
    return vb.Documents.of(np.random.default_rng(0).poisson(2.0, (6, 5)))


BEYOND_THE_REGISTRY = {
    "topics": (vb.LatentDirichletAllocation(3), words),
    "HDP topics": (vb.HDPTopics(3), words),
    "state space": (vb.LinearGaussianStateSpace(1), steps),
    "VB state space": (vb.BayesianLinearGaussianStateSpace(1), steps),
    "HDP chain": (vb.HDPHiddenMarkovModel(2, vb.PoissonMixture(2)), steps),
    "EM chain": (vb.HiddenMarkovModel(2, vb.GaussianMixture(2)), steps),
    "nested chain": (vb.HiddenMarkovModel(2, vb.NestedMixture(2, vb.PoissonMixture(2))), steps),
    "autoregressive chain": (vb.BayesianAutoregressiveHMM(2), steps),
    "PPCA": (vb.PPCA(1), lambda: np.float32(registry.table(np.random.default_rng(0)))),
    "mean field Gaussian": (vb.MeanFieldGaussian(np.zeros(2), np.eye(2)), lambda: None),
}
MODELS = {
    name: (entry.model, lambda entry=entry: entry.data("float32")[0])
    for name, entry in registry.MODELS.items()
    if not isinstance(entry.model, vb.Model)
} | BEYOND_THE_REGISTRY


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
                for value in bad_values(field, row, defaults[field] is None):
                    wrong = changed(model, where, field, value)
                    with pytest.raises(ValueError, match=rf"\b{field}\b") as error:
                        vb.fit(wrong, data, key=start)
                    assert len(str(error.value)) < 250, str(error.value)
    assert compiled == []


def test_every_field_of_every_public_model_is_in_its_table():
    models = [x for x in vars(vb).values() if isinstance(x, type) and issubclass(x, vb.ConjugateModel)]
    covered = {type(part) for model, _ in MODELS.values() for part, _ in parts(model)}
    for kind in models:
        if kind in (vb.ConjugateModel, vb.Model):
            continue
        assert {field.name for field in dataclasses.fields(kind)} == set(table(kind)), kind
        assert kind in covered, f"{kind} is in no test of bad values"
