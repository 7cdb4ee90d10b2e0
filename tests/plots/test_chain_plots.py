"""Pictures of hidden Markov models: what is drawn is what the fit found, and what cannot be is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from vbjax.families.shaped_gamma import ShapedGammaState
from vbjax.plots import chains as chain_plots
from vbjax.plots import style as plot_style


@pytest.fixture(scope="module")
def gaussian():
    rng = np.random.default_rng(1)
    x = [rng.normal(np.repeat([[0, 5, 0]], n, 0), 1, (n, 3)) for n in (12, 20)]
    x[1][10:] += 8
    x[1][3] = np.nan
    return vb.fit(vb.GaussianHMM(2, "diag"), x, key=jax.random.key(0), n_restarts=2), x


def test_the_page_has_the_longest_sequence_all_states_and_the_restarts(gaussian):
    fit, x = gaussian
    figure = chain_plots.overview(fit, x, ["x", "y", "$z"], ["ann", "b_b"])
    figure.draw_without_rendering()
    *panels, ribbons, bands, graph, trace, restarts = figure.axes
    assert [ax.get_ylabel() for ax in panels] == ["x", "y", "$z"]
    points = panels[0].collections[0].get_offsets()
    np.testing.assert_allclose(points[:, 0], np.arange(20))
    np.testing.assert_allclose(np.ma.filled(points[:, 1], np.nan), x[1][:, 0], rtol=1e-5)
    path = fit.model.decode(fit.params, x)[1]
    np.testing.assert_allclose(
        panels[0].collections[0].get_facecolor()[:, :3], chain_plots.state_colors(2)[path], atol=1e-6
    )
    means = np.asarray(fit.params.components.mean.location)
    for k, line in enumerate(panels[1].lines[1:]):
        np.testing.assert_allclose(np.nanmean(line.get_ydata()), means[k, 1], rtol=1e-5)
        assert np.isfinite(line.get_ydata()).sum() == 2 * (path == k).sum()
    assert ribbons.get_ylabel() == "probability"
    assert [label.get_text() for label in bands.get_yticklabels()] == ["ann", "b_b"]
    assert graph.get_title(loc="left") == "transitions"
    assert trace.get_ylabel() == "log likelihood (nats)"
    assert restarts.get_title(loc="left").startswith("2 restarts")
    assert figure.get_suptitle() == "Hidden Markov model: 2 states, 32 steps"


def test_a_sequence_of_its_own(gaussian):
    fit, x = gaussian
    figure = chain_plots.series(fit.model, fit.params, x, sequence=0)
    assert [ax.get_ylabel() for ax in figure.axes] == ["x0", "x1", "x2"]
    one = chain_plots.series(fit.model, fit.params, x[0], columns=["x", "y", "z"])
    assert len(one.axes[0].collections[0].get_offsets()) == 12
    with pytest.raises(ValueError, match="sequence must be one of 0 to 1; got 2"):
        chain_plots.series(fit.model, fit.params, x, sequence=2)
    with pytest.raises(ValueError, match="columns must name the 3 columns"):
        chain_plots.series(fit.model, fit.params, x, columns=["x"])
    with pytest.raises(TypeError, match="must be a hidden Markov model; got KMeans"):
        chain_plots.series(vb.KMeans(2), fit.params, x)
    with pytest.raises(ValueError, match="sequence must be one of 0 to 1; got"):
        chain_plots.series(fit.model, fit.params, x, sequence="first")
    with pytest.raises(ValueError, match="sequences must name the 2 sequences of data; got 3"):
        chain_plots.overview(fit, x, sequences=["a", "b", "c"])
    with pytest.raises(TypeError, match="figure must be matplotlib's"):
        chain_plots.series(fit.model, fit.params, x, "figure.png")


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_the_graph_has_a_circle_for_each_state_and_an_arrow_for_each_transition(n):
    table = np.full((n, n), 0.5 / n) + 0.5 * np.eye(n)
    table[0, -1] -= 0.5 / n - 0.001  # too improbable for an arrow
    ax = chain_plots.transitions(table)
    ax.figure.draw_without_rendering()
    arrows = n * (n - 1) - (n > 1)
    assert len(ax.patches) == n + arrows
    assert len(ax.texts) == n + (arrows if n <= 4 else 0)
    assert len(chain_plots.transitions(table, states=[n - 1]).patches) == 1


def test_ribbons_add_up_to_one_over_every_step():
    table = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    ax = chain_plots.state_probabilities(table)
    tops = ax.collections[-1].get_paths()[0].vertices[:, 1]
    assert tops.max() == pytest.approx(1)
    assert ax.get_xlim() == (-0.5, 2.5)


def test_bands_have_the_colours_of_their_states():
    paths = [np.array([0, 0, 1]), np.array([16, 2])]
    ax = chain_plots.segments(paths, names=["a", "b"])
    colors = chain_plots.state_colors(17)
    for image, path in zip(ax.images, paths, strict=True):
        np.testing.assert_allclose(image.get_array()[0], colors[path])
    assert len(np.unique(colors[:15], axis=0)) == 15


def test_the_mean_of_a_gamma_is_its_shape_over_its_rate():
    table = jnp.asarray([[2.0, 3.0], [8.0, 4.0]])
    rates = vb.families.GammaState(10 * table, jnp.full((2, 2), 10.0))
    known = vb.BayesianGammaHMM(2, known_shape=2.0)
    means = chain_plots._means(known, vb.Record(components=rates), 2)
    np.testing.assert_allclose(means, 2 / table, rtol=1e-6)
    learned = vb.BayesianGammaHMM(2, learn_shape=True)
    components = ShapedGammaState(table, rates.concentration, rates.rate)
    np.testing.assert_allclose(chain_plots._means(learned, vb.Record(components=components), 2), 1, rtol=1e-6)


BAD_PICTURES = {
    "no table": (lambda: chain_plots.transitions(np.ones((2, 3))), "must have shape"),
    "out of range": (lambda: chain_plots.transitions(np.eye(2), states=[2]), "some of 0 to 1; got"),
    "no ribbons": (lambda: chain_plots.state_probabilities(np.ones(3)), "shape \\(steps, states\\)"),
    "no paths": (lambda: chain_plots.segments([]), "lists of whole numbers"),
    "fractions": (lambda: chain_plots.segments([np.ones(3)]), "lists of whole numbers"),
    "no numbers": (lambda: chain_plots.transitions("table"), "table must be numbers"),
    "not finite": (
        lambda: chain_plots.state_probabilities([[0.5, np.nan]]),
        "table must be finite and at least 0; row 0",
    ),
    "half a state": (lambda: chain_plots.transitions(np.eye(2), states=[0.5]), "some of 0 to 1; got"),
    "a number of paths": (lambda: chain_plots.segments(3), "paths must be lists of whole numbers"),
    "no colours": (lambda: chain_plots.state_colors(-1), "n_states must be a whole number"),
    "names that are none": (
        lambda: chain_plots.segments([np.ones(3, int)], names=[1]),
        "each by a text; got 1",
    ),
    "names": (lambda: chain_plots.segments([np.ones(3, int)], names=[]), "each of the 1 paths; got 0"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_what_cannot_be_drawn_is_refused(case):
    draw, message = BAD_PICTURES[case]
    with pytest.raises(ValueError, match=message):
        draw()


def test_the_objective_is_named_by_what_was_maximised():
    names = {
        "log likelihood (nats)": vb.PoissonHMM(2),
        "log posterior (nats)": vb.PoissonHMM(2, transition_concentration=2.0),
        "ELBO (nats)": vb.BayesianGaussianHMM(2),
    }
    assert {name: plot_style.objective_name(model) for name, model in names.items()} == {n: n for n in names}
