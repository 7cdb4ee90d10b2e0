"""One table of tolerances, keyed by dtype, and the comparison that reads it."""

import jax
import numpy as np

# Some tens of roundings: what a Cholesky factor, a solve and a sum of a few terms of order one may lose.
TOLERANCE = {np.dtype("float32"): 1e-5, np.dtype("float64"): 2e-14}

STANDARD_ERRORS = 4  # how far from its expectation a Monte Carlo estimate with a fixed key may lie


def close(actual, desired, *, factor=1.0, scale=0.0):
    """Equal leaf by leaf, within the rounding of `actual`'s dtype relative to the leaf's largest entry.

    Args:
        actual, desired: arrays, or trees with as many leaves; a list may stand for an array.
        factor: how many times the table's tolerance; to be justified where it is given.
        scale: the magnitude of what was added up, where it is larger than the result.
    """
    if hasattr(actual, "shape"):
        desired = np.asarray(desired)
    actual, desired = jax.tree.leaves(actual), jax.tree.leaves(desired)
    assert len(actual) == len(desired)
    for a, d in zip(actual, desired, strict=True):
        a, d = np.asarray(a), np.asarray(d)
        assert a.shape == d.shape, f"{a.shape} is not {d.shape}"
        if not np.issubdtype(a.dtype, np.floating):
            np.testing.assert_array_equal(a, d)
            continue
        tolerance = factor * TOLERANCE[a.dtype]
        largest = np.max(np.abs(d), initial=scale, where=np.isfinite(d))
        np.testing.assert_allclose(a.astype(float), d, rtol=tolerance, atol=tolerance * largest)
