"""Estimators of sequences: the numbers are those of hmmlearn, fitted to the same optimum."""

import hmmlearn.hmm
import numpy as np
import pytest

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
