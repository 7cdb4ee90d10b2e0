"""Components that labels leave out: the model of the others, by one program for every number of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.tolerances import close

GAUSSIAN = vb.components.Gaussian("full")
STICK = vb.labels.StickBreaking()
MODELS = {
    "VB mixture": lambda k: vb.BayesianMixture(k, GAUSSIAN),
    "VB mixture of a stick": lambda k: vb.BayesianMixture(k, vb.components.Gaussian("tied"), STICK),
    "EM mixture": lambda k: vb.GaussianMixture(k),
    "EM mixture that starts from shares": lambda k: vb.Mixture(k, vb.components.Gamma()),
    "VB chain": lambda k: vb.BayesianHiddenMarkovModel(k, GAUSSIAN, vb.labels.Chain(stickiness=1.0)),
    "EM chain of mixtures": lambda k: vb.HiddenMarkovModel(
        k, vb.components.Mixture(2, vb.components.Gaussian("diag"))
    ),
    "VB mixture with gates": lambda k: vb.BayesianMixture(k, GAUSSIAN, vb.labels.Gated()),
    "EM mixture with gates": lambda k: vb.Mixture(k, vb.components.Gaussian("diag"), vb.labels.Gated()),
}


def rows(dtype):
    centres = np.array([[1.0, 9.0], [5.0, 2.0], [9.0, 6.0]])
    x = centres[np.arange(60) // 10 % 3] + 0.4 * np.random.default_rng(0).normal(size=(60, 2))
    return jnp.asarray(x, dtype)


def fitted(model, x, **options):
    return vb.fit(model, x, key=jax.random.key(1), max_iter=12, **options)


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_model_without_them(name, dtype):
    x = rows(dtype)
    x = (x[:, 1:], x) if "gates" in name else x
    masked = MODELS[name](5).replace(active=2)
    got, expected = fitted(masked, x), fitted(MODELS[name](2), x)
    begun = 1 if "chain" in name else 0  # neutral rows of transitions that are left out cost a first bound
    close(got.trace[begun:], expected.trace[begun:])
    model, params = got.model.without_idle(got.params)
    total = lambda model, params: sum(model.elbo_terms(params, x).values())
    close(total(model, params), got.objective)
    assert jax.tree.structure((model, params)) == jax.tree.structure((expected.model, expected.params))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: a.shape == b.shape, params, expected.params)))
    close(model.log_predictive(params, x), got.log_predictive(x), factor=3)


def test_every_number_is_one_program(dtype):
    x = rows(dtype)
    model = vb.BayesianMixture(4, GAUSSIAN)
    fitted(model.replace(active=2), x).predict(x)
    with compilations() as compiled:
        found = [fitted(model.replace(active=k), x) for k in (1, 3, 4)]
        labels = [np.unique(fit.predict(x)) for fit in found]
    assert not compiled
    assert [own.tolist() for own in labels[:2]] == [[0], [0, 1, 2]]


def test_where_all_take_part_nothing_is_masked():
    x = rows("float32")
    plain, whole = (
        fitted(model, x) for model in (vb.GaussianMixture(3), vb.GaussianMixture(3).replace(active=3))
    )
    close(whole.trace, plain.trace)
    primitives = lambda fit: str(jax.make_jaxpr(vb.elbo)(fit.model, fit.params, x)).count("select_n")
    assert primitives(whole) == primitives(plain) + 1
    assert len(jax.tree.leaves(whole.model)) == len(jax.tree.leaves(plain.model)) + 1
    assert "active" not in repr(plain.model)


def test_derivatives_are_those_without_them(float64):
    x = rows(float64)
    masked, plain = MODELS["VB mixture"](4).replace(active=2), MODELS["VB mixture"](2)
    pairs = []
    for model in (masked, plain):
        fit = fitted(model, x)
        slope = jax.grad(vb.elbo)(fit.model, fit.params, x)
        pairs.append((slope.component.mean_precision, slope.component.location))
    close(*pairs, factor=10)


def test_criteria_count_the_parameters_that_are_there():
    x = rows("float32")
    for make in (vb.GaussianMixture, vb.GaussianHMM):
        got, expected = fitted(make(4).replace(active=2), x), fitted(make(2), x)
        assert got.model.n_parameters == expected.model.n_parameters
        close(got.bic(x), expected.bic(x))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (vb.GaussianMixture(3).replace(active=4), "active of the weights must be a whole number from 1 to 3"),
        (vb.GaussianMixture(3).replace(active=1.5), "active of the weights must be a whole number"),
        (
            vb.GaussianMixture(3, weight_concentration=2.0).replace(active=2),
            "active must be left out: points have a prior",
        ),
        (
            vb.GaussianMixture(3, mean_precision=1.0).replace(active=2),
            "active must be left out: points have a prior",
        ),
        (
            vb.HiddenMarkovModel(2, vb.components.Union(a=(1, GAUSSIAN), b=(1, GAUSSIAN))).replace(active=1),
            "active must be left out: a component of laws of different kinds",
        ),
        (
            vb.HDPHiddenMarkovModel(3, vb.components.Gaussian()).replace(active=2),
            "active of the chain must be left out: labels of this kind",
        ),
        (
            vb.Mixture(2, vb.components.Mixture(2, GAUSSIAN, vb.labels.Weights(active=1))),
            "weights of the component must be labels, of which all",
        ),
        (
            vb.Mixture(2, vb.components.Union(a=(1, GAUSSIAN), b=(1, vb.components.Noise()))).replace(
                active=1
            ),
            "active must be left out: a component of laws of different kinds",
        ),
    ],
)
def test_what_cannot_be_left_out(model, words):
    with pytest.raises(ValueError, match=words):
        fitted(model, rows("float32"))
