"""What every test runs under: dtype promotion is strict, nothing global changes (warnings: pyproject.toml).

`dtype` runs a test in float32 and, with `-m ""`, in float64 inside `jax.enable_x64`. A machine's accelerator
is left alone unless JAX_PLATFORMS asks for it. Hypothesis draws the same examples every time. Tracing makes
millions of short-lived objects: the collector looks for cycles seldom, and not among what was imported.
"""

import gc
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import numpy as np
import pytest


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore::vbjax.FitWarning")  # what ends early by design
    hypothesis.settings.register_profile(
        "fixed", derandomize=True, database=None, deadline=None, max_examples=40
    )
    hypothesis.settings.load_profile("fixed")
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items):
    """Leave the tests of `dear.txt` to `-m ""`; begin with the longest file, which one worker has alone."""
    dear = set(pathlib.Path(__file__).with_name("dear.txt").read_text().splitlines())
    for item in items:
        whole = item.nodeid.split("[")[0] in dear and f"but {item.nodeid}" not in dear
        if whole or item.nodeid in dear:
            item.add_marker("again")
    items.sort(key=lambda item: item.path.name != "test_contracts.py")


@pytest.fixture(autouse=True, scope="session")
def strict_promotion():
    """float32 meets float64, or an integer a float, only where a test says so."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Compiled programs take memory maps, ten or so each, of which Linux gives a process 65,530."""
    yield
    from vbjax.numerics.compilation import count_maps  # no sooner: annotations are checked from the hook on

    held = count_maps()
    if held == 0 or held > 15_000:
        jax.clear_caches()


@pytest.fixture(params=["float32", pytest.param("float64", marks=pytest.mark.again)])
def dtype(request):
    """Both dtypes, float64 with x64 enabled for the test alone; it waits for `-m ""` (pyproject.toml)."""
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


@pytest.fixture
def float64():
    """x64 enabled for the test alone."""
    with jax.enable_x64(True):
        yield np.dtype("float64")
