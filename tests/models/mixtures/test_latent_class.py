"""Latent class models: items with answers of their own number, some of them missing.

On two tables of the literature the maximum of the likelihood is the published one, and so are the criteria
and the classes. A missing answer is summed out: the likelihood of a row without it is that of all rows that
it could be. A frame is its numbers, labels and all. By VB the bound of one class is the exact evidence.
Draws leave missing what was. (Weights, chunks, monotone updates: test_contracts.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import special

import vbjax as vb
from tests.support.tolerances import close

KEY = jax.random.key(0)


def cells(counts, **levels):
    """Every combination of answers as a row, the last item fastest, and how often each was given."""
    every = np.indices(tuple(levels.values())).reshape(len(levels), -1, 1)
    return dict(zip(levels, every, strict=True)), np.array(counts.split(), float)


# White respondents of the General Social Survey of 1982 on surveys (McCutcheon 1987, table 3.1)
SURVEY = cells(
    """419 35 2 71 25 5 270 25 4 42 16 5   23 4 1 6 2 0 43 9 2 9 3 2   26 3 0 1 2 0 85 23 6 13 12 8""",
    purpose=3,
    accuracy=2,
    understanding=2,
    cooperation=3,
)
# Students in four situations of role conflict, universalistic or not (Stouffer & Toby 1951; Goodman 1974)
CONFLICT = cells("42 23 6 25 6 24 7 38 1 4 1 6 2 9 2 20", a=2, b=2, c=2, d=2)


def fitted(table, k):
    rows, n = table
    return vb.fit(vb.LatentClass(k, list(rows)), rows, weights=n, key=KEY, n_restarts=8, tol=1e-12), rows, n


@pytest.mark.parametrize(
    ("table", "k", "published"),
    [(SURVEY, 1, -2872.230), (SURVEY, 2, -2783.268), (CONFLICT, 2, -504.468)],
    ids=["independence", "survey", "role conflict"],
)
def test_the_maximum_is_the_published_one(table, k, published, float64):
    """By Mplus 4.2 (UCLA's pages on McCutcheon 1987, p. 33); of the conflict by Stata (SEM, example 50g)."""
    fit, rows, n = fitted(table, k)
    np.testing.assert_allclose(fit.objective, published, atol=5e-4)
    if k == 1:
        np.testing.assert_allclose([fit.aic(rows, n), fit.bic(rows, n)], [5756.459, 5787.010], atol=1e-3)
    if table is CONFLICT:  # Goodman (1974), table 3
        order = np.argsort(fit.params.weights.mean)
        np.testing.assert_allclose(fit.params.weights.mean[order], [0.279, 0.721], atol=1e-3)
        found = [fit.params[item].mean[order, 0, 0] for item in "abcd"]
        expected = [[0.993, 0.714], [0.940, 0.330], [0.927, 0.354], [0.769, 0.132]]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_missing_answer_is_summed_out(float64):
    fit, rows, _ = fitted(SURVEY, 2)
    rows = {name: x[:3] for name, x in rows.items()}  # which differ in their cooperation alone
    without = {name: x[:1] for name, x in rows.items()} | dict(cooperation=np.array([[np.nan]]))
    close(fit.log_predictive(without)[0], special.logsumexp(fit.log_predictive(rows)), factor=10)
    nothing = {name: np.full((1, 1), -1) for name in rows}
    close(fit.log_predictive(nothing)[0], 0.0, scale=1)
    close(fit.responsibilities(nothing)[0], fit.params.weights.mean, factor=10)


def test_a_frame_is_its_numbers():
    answers = ["no", "yes", None, "no", "perhaps", "no"]
    frame = pd.DataFrame(dict(agree=answers, other=range(6), colour=[0.0, 1, 1, 0, np.nan, 0]))
    codes = dict(agree=np.array([[0], [2], [np.nan], [0], [1], [0]]), colour=frame.colour.to_numpy()[:, None])
    for model in (vb.LatentClass(2, ["agree", "colour"]), vb.BayesianLatentClass(2, ["agree", "colour"])):
        fit, expected = (vb.fit(model, data, key=KEY) for data in (frame, codes))
        np.testing.assert_allclose(fit.objective, expected.objective, rtol=1e-6)
        assert fit.params.agree.mean.shape == (2, 1, 3)


def test_the_bound_of_one_class_is_the_exact_evidence(float64):
    alpha, x = 0.7, np.array([0, 2, np.nan, 2, 2, 1])
    data = dict(agree=np.array([0, 1, 1, 1, 1, np.nan])[:, None], colour=x[:, None])
    model = vb.BayesianLatentClass(1, dict(agree=2, colour=4), concentration=alpha)
    evidence = lambda n: (
        special.gammaln(len(n) * alpha)
        - special.gammaln(len(n) * alpha + sum(n))
        + sum(special.gammaln(alpha + np.array(n)) - special.gammaln(alpha))
    )
    fit = vb.fit(model, data, key=KEY)
    close(fit.objective, evidence([1, 4]) + evidence([1, 1, 3, 0]), factor=10, scale=10)


def test_draws_leave_missing_what_was():
    rows = {name: jnp.asarray(x[:9]) for name, x in SURVEY[0].items()}
    rows |= dict(purpose=rows["purpose"].at[4].set(-1))
    fit = vb.fit(vb.LatentClass(2, list(rows)), rows, key=KEY, max_iter=3)
    drawn = vb.replicate(fit.model, fit.params, rows, key=KEY, n_draws=5)
    assert (drawn["purpose"][:, 4] == -1).all()
    assert (np.delete(drawn["purpose"], 4, 1) >= 0).all()
    assert all((drawn[name] >= 0).all() for name in drawn if name != "purpose")


@pytest.mark.parametrize(
    ("items", "what"),
    [
        ("agree", "items"),
        ([], "items"),
        ([1], "items"),
        (dict(agree=-1), "n_categories"),
        (["weights"], "weights"),
    ],
)
def test_items_that_are_none_are_refused(items, what):
    with pytest.raises(ValueError, match=what):
        vb.fit(vb.LatentClass(2, items), dict(agree=np.array([[0], [1]])), key=KEY)


def test_without_missing_it_says_how_to_have_it():
    with pytest.raises(ValueError, match="missing=True"):
        vb.fit(vb.CategoricalMixture(1, 3), np.array([[0.0], [np.nan]]), key=KEY)
