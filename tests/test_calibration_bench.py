"""`python -m bench calibration`, small: intervals of a case that all three ways cover."""

import numpy as np

from bench import calibration
from tests.support.tolerances import STANDARD_ERRORS


def test_intervals_of_a_mean_cover_nine_of_ten_truths():
    n = 60
    found = calibration.coverage("GaussianMeanPrecision", n, n_draws=40)
    assert found.shape == (3,)
    assert (np.abs(found - 0.9) < STANDARD_ERRORS * np.sqrt(0.9 * 0.1 / n)).all()
