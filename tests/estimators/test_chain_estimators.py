"""Estimators of sequences: the numbers are those of hmmlearn, fitted to the same optimum."""

import hmmlearn.hmm
import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import vbjax as vb
from vbjax.sklearn import (
    AutoregressiveHMM,
    BayesianPoissonHMM,
    CategoricalHMM,
    GaussianHMM,
    MixtureHMM,
    PoissonHMM,
)

QUAKES = np.asarray(vb.datasets.earthquakes(), int)
LENGTHS = [40, 50, 17]
RNG = np.random.default_rng(0)
STATES = np.repeat(np.arange(9) % 2, 30)
SERIES = np.array([[0.0, 1.0], [4.0, -2.0]])[STATES] + RNG.normal(size=(270, 2))


def assert_alike(ours, theirs, x, lengths, attributes, emissions):
    """Both have the same optimum: parameters, scores, paths and marginals."""
    order = np.argsort(getattr(ours, emissions).reshape(len(ours.startprob_), -1)[:, 0])
    other = np.argsort(getattr(theirs, emissions).reshape(len(ours.startprob_), -1)[:, 0])
    for name in ("startprob_", "transmat_", *attributes):
        got, expected = getattr(ours, name)[order], getattr(theirs, name)[other]
        if name == "transmat_":
            got, expected = got[:, order], expected[:, other]
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(ours.score(x, lengths), theirs.score(x, lengths), rtol=1e-7)
    (log, path), (other_log, other_path) = ours.decode(x, lengths), theirs.decode(x, lengths)
    np.testing.assert_allclose(log, other_log, rtol=1e-5)
    place, other_place = np.argsort(order), np.argsort(other)
    assert (place[path] == other_place[other_path]).all()
    assert (ours.predict(x, lengths) == path).all()
    shares, others = ours.predict_proba(x, lengths)[:, order], theirs.predict_proba(x, lengths)[:, other]
    np.testing.assert_allclose(shares, others, atol=1e-3)
    for criterion in ("aic", "bic"):
        got, expected = (getattr(model, criterion)(x, lengths) for model in (ours, theirs))
        np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=criterion)


RATES = np.array([[12.0], [20.0]])
MEANS = np.array([[0.0, 1.0], [4.0, -2.0]])
SHARED = np.array([[1.0, 0.3], [0.3, 0.5]])
CATEGORIES = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])


@pytest.mark.parametrize(
    ("ours", "theirs", "parameters", "x"),
    [
        (PoissonHMM(2), hmmlearn.hmm.PoissonHMM(2), dict(lambdas_=RATES), QUAKES),
        (CategoricalHMM(2), hmmlearn.hmm.CategoricalHMM(2), dict(emissionprob_=CATEGORIES), QUAKES % 3),
        (
            GaussianHMM(2, "tied"),
            hmmlearn.hmm.GaussianHMM(2, "tied"),
            dict(means_=MEANS, covars_=SHARED),
            SERIES[:107],
        ),
    ],
    ids=["counts", "categories", "normal"],
)
def test_parameters_that_are_set_make_a_model_without_a_fit(ours, theirs, parameters, x):
    parameters = dict(startprob_=[0.7, 0.3], transmat_=[[0.8, 0.2], [0.4, 0.6]]) | parameters
    for name, value in parameters.items():
        with pytest.raises(NotFittedError):
            ours.score(x)
        for model in (ours, theirs):
            setattr(model, name, np.array(value))
        np.testing.assert_array_equal(np.ravel(getattr(ours, name))[:2], np.ravel(value)[:2])

    def compare():
        np.testing.assert_allclose(ours.score(x, LENGTHS), theirs.score(x, LENGTHS), rtol=1e-10)
        (log, path), (other_log, other) = ours.decode(x, LENGTHS), theirs.decode(x, LENGTHS)
        np.testing.assert_allclose(log, other_log, rtol=1e-10)
        np.testing.assert_array_equal(path, other)

    compare()
    steps, states = ours.sample(1000, random_state=0)
    assert (steps.shape, states.shape) == ((1000, x.shape[1]), (1000,))
    np.testing.assert_allclose(states.mean(), 1 / 3, atol=4 * np.sqrt(2 / 9 / 1000 * 1.4 / 0.6))
    for model in (ours, theirs):  # and of a model that has a fit each may be changed
        model.transmat_ = np.array([[0.5, 0.5], [0.1, 0.9]])
    compare()
    with pytest.raises(ValueError, match="transmat_ must be probabilities that add up to one"):
        ours.transmat_ = np.array([[0.5, 0.4], [0.1, 0.9]])
    with pytest.raises(ValueError, match=r"startprob_: value must have the shapes \[\(2,\)\]"):
        ours.startprob_ = np.ones(3) / 3
    compare()


def test_counts_are_those_of_hmmlearn():
    ours = PoissonHMM(2, tol=1e-9, n_init=4, random_state=0).fit(QUAKES, LENGTHS)
    theirs = hmmlearn.hmm.PoissonHMM(2, n_iter=3000, tol=1e-10, random_state=0).fit(QUAKES, LENGTHS)
    assert_alike(ours, theirs, QUAKES, LENGTHS, ["lambdas_"], "lambdas_")


@pytest.mark.again
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_normal_steps_are_those_of_hmmlearn(kind):
    ours = GaussianHMM(2, kind, tol=1e-9, random_state=0).fit(SERIES)
    theirs = hmmlearn.hmm.GaussianHMM(
        2, kind, covars_prior=0.0, covars_weight=0.0, n_iter=3000, tol=1e-10, random_state=0
    ).fit(SERIES)
    assert_alike(ours, theirs, SERIES, None, ["means_", "covars_"], "means_")


@pytest.mark.again
def test_categories_are_those_of_hmmlearn():
    symbols = (SERIES[:, :1] > 2).astype(int) + (SERIES[:, :1] > 4)
    ours = CategoricalHMM(2, tol=1e-9, n_init=4, random_state=0).fit(symbols)
    theirs = hmmlearn.hmm.CategoricalHMM(2, n_iter=3000, tol=1e-10, random_state=0).fit(symbols)
    assert_alike(ours, theirs, symbols, None, ["emissionprob_"], "emissionprob_")


def test_lengths_come_second_or_by_name_and_a_target_is_ignored():
    chain = PoissonHMM(2, random_state=0).fit(QUAKES, LENGTHS)
    named = PoissonHMM(2, random_state=0).fit(QUAKES, lengths=LENGTHS)
    one = PoissonHMM(2, random_state=0).fit(QUAKES, np.zeros(len(QUAKES)))
    assert (chain.lambdas_ == named.lambdas_).all()
    assert (one.lambdas_ == PoissonHMM(2, random_state=0).fit(QUAKES).lambdas_).all()
    assert (one.lambdas_ != chain.lambdas_).all()
    with pytest.raises(ValueError, match="add up to"):
        chain.fit(QUAKES, [40, 50])


@pytest.mark.again
def test_shapes_of_attributes_and_draws():
    for kind, attributes in (
        (MixtureHMM(2, 3), dict(weights_=(2, 3), means_=(2, 3, 2), covars_=(2, 3, 2, 2))),
        (AutoregressiveHMM(2), dict(coefficients_=(2, 1, 2, 2), intercepts_=(2, 2), covars_=(2, 2, 2))),
    ):
        chain = kind.set_params(random_state=0).fit(SERIES)
        for name, shape in attributes.items():
            assert getattr(chain, name).shape == shape
        steps, states = chain.sample(5)
        assert steps.shape == (5, 2)
        assert states.shape == (5,)
    counts, _ = BayesianPoissonHMM(2, random_state=0).fit(QUAKES).sample(3, random_state=1)
    assert counts.shape == (3, 1)
