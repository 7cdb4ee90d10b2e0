"""Pictures: every row, component, sweep and restart is drawn where it is, and nothing global changes."""

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

import vbjax as vb
from vbjax import plots
from vbjax.inference.restarts import Runs
from vbjax.plots import fits
from vbjax.plots import style as plot_style


def clouds(n=60, d=2):
    """Two clouds of unequal size."""
    x = np.random.default_rng(0).normal(size=(n, d))
    x[: n // 3] = 0.5 * x[: n // 3] + 8
    return jnp.asarray(x, jnp.float32)


def mixture(x):
    """Parameters at hand, without a fit: components 0 and 2 have rows, component 1 has none."""
    d = x.shape[1]
    means = np.stack([np.full(d, 8.0), np.full(d, 4.0), np.zeros(d)])
    covariances = np.array([0.25, 1.0, 1.0])[:, None, None] * (np.eye(d) + 0.3)

    @jax.jit
    def made(x, *values):
        model = vb.GaussianMixture(3).resolve(x)
        return model, model.params_at(*values)

    return made(x, *(np.asarray(v, np.float32) for v in ([0.33, 1e-6, 0.67], means, covariances)))


def made_fit(x, **runs):
    """A `Fit` of these parameters with a trace and a table of runs."""
    table = dict(objective=[-9.0, -7.0, -8.0, np.nan, 5.0], singular=[False, False, False, False, True])
    integers = dict(n_iter=[1, 3, 1, 0, 1], status=[1, 1, 2, 0, 1])
    trace = np.full((5, 4), np.nan)
    trace[0, 0], trace[1, :3], trace[2, 0], trace[4, 0] = -9, [-30, -7.5, -7], -8, 5
    table = dict(table, trace=trace) | integers | runs
    table = {name: jnp.asarray(value) for name, value in table.items()}
    model, params = mixture(x)
    return vb.Fit(
        model=model,
        params=params,
        objective=jnp.asarray(-7.0),
        n_iter=jnp.asarray(3),
        runs=Runs(**table),
        full_trace=table["trace"][1],
        status_code=jnp.asarray(1),
    )


def ellipses(ax):
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def test_components_are_two_ellipses_each_and_the_points_have_their_colours():
    x = clouds()
    model, params = mixture(x)
    ax = plots.components(model, params, x, columns=["length (mm)", "mass (g)"])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length (mm)", "mass (g)")
    drawn = ellipses(ax)
    assert len(drawn) == 4  # two components, 1 and 2 sd each; the third has no rows
    np.testing.assert_allclose([patch.center for patch in drawn[::2]], [[0, 0], [8, 8]], atol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["2", "0"]  # heaviest first
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["component 2: 67%", "component 0: 33%", "1 sd", "2 sd"]

    (points,) = ax.collections
    np.testing.assert_allclose(points.get_offsets(), x, rtol=1e-6)
    palette = np.array([to_rgb(color) for color in plot_style.PALETTE[:2]])
    r = np.asarray(model.responsibilities(params, x))
    np.testing.assert_allclose(points.get_facecolors()[:, :3], r[:, [2, 0]] @ palette, atol=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_ellipse_is_where_the_mahalanobis_distance_is_its_radius(seed):
    root = np.random.default_rng(seed).normal(size=(2, 2))
    covariance, center = root @ root.T, np.array([3.0, -1.0])
    ellipse = fits._ellipse(center, covariance, 2.0, "k", "-")
    outline = ellipse.get_patch_transform().transform(ellipse.get_path().vertices[::3]) - center
    distance = np.sqrt(np.einsum("ni,ij,nj->n", outline, np.linalg.inv(covariance), outline))
    np.testing.assert_allclose(distance[:8], 2.0, rtol=1e-3)  # Bezier curves for an ellipse


@pytest.mark.parametrize("n", [60, 6000])
def test_kmeans_shows_its_centres_and_thins_many_rows(n):
    x, centers = clouds(n), jnp.array([[8.0, 8.0], [0.0, 0.0], [-90.0, 0.0]])
    model = jax.jit(lambda x: vb.KMeans(3).resolve(x))(x)
    ax = plots.components(model, model.params_at(centers), x)
    assert not ellipses(ax)
    np.testing.assert_allclose([line.get_xydata()[0] for line in ax.lines], [[0, 0], [8, 8]])
    (points,) = ax.collections
    assert len(points.get_offsets()) == min(n, 5000)
    assert len({tuple(color) for color in points.get_facecolors()}) == 2


@pytest.mark.parametrize("missing", [False, True])
def test_one_column_is_a_histogram_and_the_densities(missing):
    x = clouds()
    model, params = mixture(x)
    if missing:
        model, x = model.replace(missing=True), x.at[5:25, 1].set(jnp.nan)
    ax = plots.components(model, params, x, features=[1])
    np.testing.assert_allclose(sum(bar.get_width() * bar.get_height() for bar in ax.patches), 1, rtol=1e-6)
    first, second, total = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(first + second, total)
    assert 0.9 < np.trapezoid(total, ax.lines[0].get_xdata()) < 1.01  # tails beyond the data are cut


def test_more_than_two_columns_are_pairs_with_marginal_covariances():
    x = clouds(d=5)
    figure = plots.pairs(*mixture(x), x, columns=list("abcde"))
    assert len(figure.axes) == 4 + 6  # four of the five columns, and their pairs
    corner = next(ax for ax in figure.axes if (ax.get_xlabel(), ax.get_ylabel()) == ("a", "d"))
    drawn = ellipses(corner)
    assert len(drawn) == 4
    # the heavier component's marginal covariance is [[1.3, 0.3], [0.3, 1.3]]
    axes = sorted([drawn[0].width / 2, drawn[0].height / 2])
    np.testing.assert_allclose(axes, np.sqrt([1.0, 1.6]), rtol=1e-4)
    assert "the first 4 of 5 columns" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_trace_and_restarts_show_every_sweep_and_run():
    fit = made_fit(clouds())
    ax = plots.trace(fit)
    *others, best = [line.get_ydata() for line in ax.lines if len(line.get_xydata()) == 3]
    np.testing.assert_allclose(best, [-30, -7.5, -7])
    np.testing.assert_allclose([line[0] for line in others], [-9, -30, -8, np.nan])
    assert ax.get_ylabel() == "log likelihood (nats)"
    lines = {line.get_label(): line.get_xydata().tolist() for line in plots.restarts(fit).lines}
    assert lines == {
        "converged": [[2, -7], [4, -9]],
        "did not converge": [[3, -8]],
        "singular": [[1, 5]],
    }


@pytest.mark.parametrize("d", [1, 2, 5])
def test_overview_is_saved_without_a_window_and_changes_no_setting(d, tmp_path):
    x = clouds(d=d)
    before, backend = dict(matplotlib.rcParams), matplotlib.get_backend(auto_select=False)
    figure = plots.overview(made_fit(x), x)
    figure.savefig(tmp_path / "fit.png", dpi=40)
    assert isinstance(figure, Figure)
    assert len(figure.axes) == {1: 3, 2: 3, 5: 12}[d]
    assert (tmp_path / "fit.png").read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert matplotlib.get_backend(auto_select=False) == backend


def test_axes_given_are_used_and_returned():
    x = clouds()
    fit, axes = made_fit(x), Figure().subplots(1, 3)
    assert plots.components(fit.model, fit.params, x, axes[0]) is axes[0]
    assert plots.trace(fit, axes[1]) is axes[1]
    assert plots.restarts(fit, axes[2]) is axes[2]


@pytest.mark.parametrize(("kind", "points"), [(vb.Mixture, True), (vb.BayesianMixture, False)])
def test_a_mixture_of_normals_is_drawn_whatever_it_is_called(kind, points):
    x = clouds()
    fit = vb.fit(kind(2, vb.components.Gaussian("diag")), x, key=jax.random.key(0), max_iter=3)
    figure = plots.overview(fit, x)
    centers = [patch.center for patch in ellipses(figure.axes[0])[::2]]
    means = np.asarray(fit.params.components.mean.location)[np.argsort(-fit.params.weights.mean)]
    np.testing.assert_allclose(centers, means, rtol=1e-5, atol=1e-6)
    name = "Gaussian mixture (2" if points else "Bayesian Gaussian mixture (at most 2"
    assert figure.get_suptitle() == f"{name} components, diag covariance) of 60 rows"


def test_rows_with_labels_or_covariates_are_drawn_with_the_mean_of_their_weights():
    x = clouds()
    fit = made_fit(x)
    labelled = fits._groups(fit.model, fit.params, vb.Labelled(x, [0] + [-1] * 59), None)
    np.testing.assert_allclose(labelled.weight, [0.67, 0.33], rtol=1e-5)
    z, gated = x[:, :1], vb.Mixture(2, vb.components.Gaussian("diag"), vb.labels.Gated(precision=1.0))
    fit = vb.fit(gated, (z, x), key=jax.random.key(0), max_iter=3)
    assert fit.plot((z, x)).get_suptitle().endswith("of 60 rows")
    groups = fits._groups(fit.model, fit.params, (z, x), None)
    weights = fit.model.weights.probabilities(fit.params, z).mean(0)
    np.testing.assert_allclose(groups.weight, weights[groups.number], rtol=1e-5)
    for own in (labelled, groups):
        np.testing.assert_array_equal(own.x, np.asarray(x, float))


def test_what_cannot_be_drawn_is_refused():
    x = clouds()
    fit = made_fit(x)
    with pytest.raises(ValueError, match="columns must name the 2 columns"):
        plots.components(fit.model, fit.params, x, columns=["a"])
    with pytest.raises(ValueError, match="features must be one or two of the columns 0 to 1"):
        plots.components(fit.model, fit.params, x, features=(0, 2))
    with pytest.raises(TypeError, match="Gaussian mixture or KMeans; got UnitVarianceMixture"):
        plots.components(vb.textbook.UnitVarianceMixture(2), fit.params, x)
    with pytest.raises(TypeError, match="Gaussian mixture or KMeans; got PoissonMixture"):
        plots.components(vb.PoissonMixture(2), fit.params, x)
    for features in ("xy", [0.5], [0, 1, 0], 1):
        with pytest.raises(ValueError, match="features must be one or two of the columns 0 to 1"):
            plots.components(fit.model, fit.params, x, features=features)
    with pytest.raises(ValueError, match="columns must name the 2 columns of x, each by a text; got 0"):
        plots.pairs(fit.model, fit.params, x, columns=[0, 1])
    for draw in (plots.trace, plots.restarts):
        with pytest.raises(TypeError, match="ax must be matplotlib's Axes, or None for new ones; got 'ax'"):
            draw(fit, "ax")
        with pytest.raises(TypeError, match=r"fit must be a vb\.Fit"):
            draw(fit.params)
    with pytest.raises(TypeError, match="figure must be matplotlib's, or None for a new one"):
        plots.pairs(fit.model, fit.params, x, 3)
    batch = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), fit)
    with pytest.raises(ValueError, match=r"one data set; got a batch of shape \(2,\)"):
        plots.trace(batch)


def test_runs_without_a_result_are_an_empty_picture():
    nothing = made_fit(clouds(), objective=[np.nan] * 5)
    ax = plots.restarts(nothing)
    assert not ax.lines
    assert ax.get_title("left").startswith("5 restarts: 0 within")
