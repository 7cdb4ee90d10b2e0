"""Cross-validation: folds are row weights, and give what a loop over subsets of the rows gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vbjax as vb
from tests.support.compilations import compilations
from tests.support.tolerances import close
from vbjax.inference.repeated_fits import mean_and_error

KEY, OTHER = jax.random.key(0), jax.random.key(1)
X = vb.datasets.old_faithful()[:40]
Y = X[:, 1]


def by_hand(found, x, score):
    """Return the score of every row, by what `score` makes of the rows of the other folds and of its own."""
    expected = np.zeros(len(found.fold), x.dtype)
    for number in range(found.status.size):
        held_out = np.asarray(found.fold) == number
        expected[held_out] = score(x[~held_out], x[held_out])
    return expected


def test_folds_are_refits_on_the_other_rows(float64):
    rows = np.asarray(X, float64)
    found = vb.cross_validate(vb.BayesianGaussianMixture(2), rows, key=KEY, folds=4, tol=1e-11)
    assert sorted(np.bincount(found.fold)) == [10, 10, 10, 10]

    def score(rows, new):
        return vb.fit(vb.BayesianGaussianMixture(2), rows, key=KEY, n_restarts=4, tol=1e-11).log_predictive(
            new
        )

    expected = by_hand(found, rows, score)
    np.testing.assert_allclose(found.log_density, expected, atol=2e-3)  # two stops of the same ascent
    close(found.mean, found.log_density.mean())
    close(found.standard_error, stats.sem(found.log_density))
    close(found.by_fold, [found.log_density[found.fold == f].mean() for f in range(4)])


def test_a_sequence_is_held_out_as_a_whole(float64):
    sequences = [np.array(y)[:, None] for y in ([3, 5, 4], [8, 9], [2, 2, 3, 1])]
    found = vb.cross_validate(vb.PoissonHMM(1), sequences, key=KEY, folds=3, n_restarts=1)
    others = [np.concatenate(sequences[:i] + sequences[i + 1 :]) for i in range(3)]
    each = zip(sequences, others, strict=True)
    close(found.log_density, np.array([stats.poisson.logpmf(y, rest.mean()).sum() for y, rest in each]))


def test_a_model_without_a_predictive_density_has_it_by_draws():
    found = vb.cross_validate(vb.textbook.GaussianMeanPrecision(), Y, key=KEY, folds=4, n_restarts=1)

    def score(rows, new):  # under so weak a prior a Student's t
        n, scale = len(rows), rows.std(ddof=1)
        return stats.t.logpdf(new, n - 1, rows.mean(), scale * np.sqrt(1 + 1 / n))

    np.testing.assert_allclose(found.log_density, by_hand(found, np.asarray(Y), score), atol=0.1)


def test_a_weight_counts_a_row_more_than_once():
    rng = np.random.default_rng(0)
    values, counts = rng.normal(size=20), rng.integers(0, 4, 20)
    mean, error = mean_and_error(jnp.asarray(values), jnp.asarray(counts, values.astype("float32").dtype))
    repeated = np.repeat(values, counts)
    close((mean, error), (repeated.mean().astype("float32"), stats.sem(repeated).astype("float32")))
    w = jnp.ones(40).at[:5].set(0)
    left_out = vb.cross_validate(vb.GaussianMixture(1), X, key=KEY, folds=4, weights=w)
    kept = np.asarray(w) > 0
    assert np.isfinite(left_out.by_fold).all()
    close(left_out.mean, left_out.log_density[kept].mean())


def test_another_key_compiles_nothing_and_deals_other_folds():
    model, how = vb.BayesianGaussianMixture(1), dict(folds=4, n_restarts=1)
    first = vb.cross_validate(model, X, key=KEY, **how)
    with compilations() as compiled:
        second = vb.cross_validate(model, X, key=OTHER, **how)
    assert not compiled
    assert (first.fold != second.fold).any()
    assert "4 folds of 40 rows: mean log density" in repr(first)


def test_what_it_refuses_and_what_it_warns_of():
    with pytest.raises(ValueError, match="folds must be at most the number of rows, 1; a sequence is one"):
        vb.cross_validate(vb.PoissonHMM(1), np.arange(5)[:, None], key=KEY, folds=2)
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2; got 1"):
        vb.cross_validate(vb.GaussianMixture(1), X, key=KEY, folds=1)
    with pytest.raises(ValueError, match="rows the likelihood is known; a KMeans chooses the best"):
        vb.cross_validate(vb.KMeans(2), X, key=KEY)
    with pytest.raises(ValueError, match="data must be rows, of which some are held out"):
        vb.cross_validate(vb.GaussianMixture(1), key=KEY, data=None)
    with pytest.warns(vb.FitWarning, match="4 of 4 folds did not converge"):
        vb.cross_validate(vb.GaussianMixture(2), X, key=KEY, folds=4, n_restarts=1, max_iter=1)
