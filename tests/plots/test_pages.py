"""A page suits any fit; every picture is drawn on what it is given, and returned."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import vbjax as vb
from tests.support import made_fits
from vbjax import plots

X = jnp.asarray(np.random.default_rng(0).normal(size=(30, 2)), "float32")
KEY = jax.random.key(0)


def titles(figure):
    return [ax.get_title(loc="left") for ax in figure.axes]


def test_a_page_without_data_has_a_panel_for_each_parameter():
    mean = vb.fit(vb.textbook.GaussianMeanPrecision(), X[:, 0], key=KEY)
    for fit in (mean, made_fits.started("own, points"), made_fits.started("EM full")):
        figure, found = fit.plot(), fit.summary().parameters
        assert [title.split(":")[0] for title in titles(figure)[:-2]] == [p.name for p in found]
        for ax, parameter in zip(figure.axes, found, strict=False):
            shown = list(parameter.entries())[: min(8, parameter.n_filled)]
            np.testing.assert_allclose(ax.lines[0].get_xdata(), [parameter.mean[index] for index in shown])
            assert ax.get_yticklabels()[0].get_text() == parameter.label(shown[0])
            if fit is mean:
                (ends,) = ax.collections[0].get_segments()
                np.testing.assert_allclose(ends[:, 0], [parameter.low, parameter.high])


def test_a_page_with_data_is_the_models_overview_with_the_frames_names():
    frame = pd.DataFrame(np.asarray(X), columns=["length", "mass"])
    fit = vb.fit(vb.KMeans(2), frame, key=KEY)
    figure = fit.plot(frame[["mass", "length"]])
    assert isinstance(figure, Figure)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("length", "mass")
    np.testing.assert_allclose(figure.axes[0].collections[0].get_offsets(), X)
    with pytest.raises(TypeError, match="data must be None: no picture of Model shows its rows"):
        made_fits.started("own, points").plot(X)
    with pytest.raises(TypeError, match="figure must be matplotlib's"):
        fit.plot(frame, figure="figure.png")


def test_every_picture_is_drawn_on_what_is_given_and_returned():
    fit = vb.fit(vb.KMeans(2), X, key=KEY)
    own = dict(model=fit.model, params=fit.params, x=X, fit=fit)
    table = np.array([[0.9, 0.1], [0.2, 0.8]])
    chain = dict(table=table, shares=table, paths=[np.array([0, 1])])
    for module in (plots, plots.chains, plots.topics):
        for name, draw in vars(module).items():
            known = dict(inspect.signature(draw).parameters) if inspect.isfunction(draw) else {}
            if name.startswith(("_", "read_", "columns_of")) or not {"ax", "figure"} & set(known):
                continue
            given = {argument: (own | chain)[argument] for argument in known if argument in own | chain}
            needed = [p.name for p in known.values() if p.default is p.empty and p.name not in given]
            if needed:
                continue  # of sequences and of topics: their own tests
            place = {"ax": Figure().subplots()} if "ax" in known else {"figure": Figure()}
            assert draw(**given, **place) is next(iter(place.values())), name


def test_a_new_figure_is_a_picture_in_a_notebook():
    assert plots.trace(made_fits.started("EM full")).figure._repr_png_().startswith(b"\x89PNG")
