"""Files of earlier versions are read, and their fits say what they said: made by tests/support/golden_fit.py.

Every class and field that they may hold is still there, and what is new has a default.
Labels, responsibilities and predictive densities are computed from the arrays of the file by numpy and scipy
alone (Bishop 2006, eq. 10.46, 10.64 to 10.66 and 10.81), and by the fit that is read: both are as recorded.
"""

import numpy as np
import pytest
import scipy.special
import scipy.stats

import vbjax as vb
from tests.support.golden_fit import FOLDER
from vbjax.inference.saved_fits import FORMAT
from vbjax.numerics.stored import REQUIRED, defaults_of, stored_class

NAMES = [f"format_{number}" for number in range(1, FORMAT + 1)]


def of_arrays(arrays, x):
    """Responsibilities and log predictive densities of rows under normal-Wishart components."""
    names = ("location", "mean_precision", "degrees_of_freedom", "inverse_scale")
    m, beta, nu, inverse_scale = (np.asarray(arrays[f"params.components.{name}"], float) for name in names)
    alpha, d = np.asarray(arrays["params.weights.concentration"], float), x.shape[1]
    scale = np.linalg.inv(inverse_scale)
    log_weights = scipy.special.digamma(alpha) - scipy.special.digamma(alpha.sum())
    halves = scipy.special.digamma(0.5 * (nu[:, None] - np.arange(d))).sum(1)
    log_det = halves + d * np.log(2) + np.linalg.slogdet(scale)[1]
    away = x[:, None] - m
    squares = np.einsum("nki,kij,nkj->nk", away, scale, away)
    table = log_weights + 0.5 * (log_det - d * np.log(2 * np.pi) - d / beta - nu * squares)
    free = nu + 1 - d
    shapes = inverse_scale * ((1 + beta) / (free * beta))[:, None, None]
    densities = [scipy.stats.multivariate_t(*law).pdf(x) for law in zip(m, shapes, free, strict=True)]
    predictive = np.log(np.stack(densities, 1) @ (alpha / alpha.sum()))
    return scipy.special.softmax(table, 1), predictive


@pytest.mark.parametrize("name", NAMES)
def test_classes_and_fields_of_earlier_files_are_still_known(name):
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        known, *fields = line.split()
        now = defaults_of(stored_class(known))
        assert set(fields) <= set(now), line
        assert all(now[field] is not REQUIRED for field in set(now) - set(fields)), line


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_an_earlier_version_says_what_it_said(name):
    with np.load(FOLDER / f"{name}.npz") as beside:
        recorded = dict(beside)
    with np.load(FOLDER / f"{name}.vbjax") as arrays:
        by_hand, predictive = of_arrays(arrays, np.asarray(recorded["rows"], float))
    fit, x = vb.load(FOLDER / f"{name}.vbjax"), recorded["rows"]
    np.testing.assert_array_equal(by_hand.argmax(1), recorded["labels"])
    np.testing.assert_allclose(by_hand, recorded["responsibilities"], atol=1e-5)
    np.testing.assert_allclose(predictive, recorded["log_predictive"], atol=1e-4)
    np.testing.assert_array_equal(fit.predict(x), recorded["labels"])
    np.testing.assert_allclose(fit.responsibilities(x), recorded["responsibilities"], atol=1e-6)
    np.testing.assert_allclose(fit.log_predictive(x), recorded["log_predictive"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fit.params.weights.mean.sum(), 1, rtol=1e-6)
    assert (fit.objective, fit.n_iter) == (recorded["objective"], recorded["n_iter"])
    assert fit.status.name == recorded["status"]
