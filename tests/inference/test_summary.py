"""Summaries: each parameter once, within 80 columns, with the interval of its family and the data's names."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import vbjax as vb
from tests.support import made_fits
from tests.support.registry import MODELS
from vbjax.data.frames import Columns
from vbjax.families import DeltaState, DirichletState, GammaState, NormalWishartState, StickBreakingState
from vbjax.inference.summary import Summary, summarise

LONG = ("the time of an eruption in minutes", "the time until the next eruption, or what is left of it")


def factors(fit):
    """The names of the lines of a summary that begin a parameter, without the parts of joint factors."""
    table = str(fit.summary()).split("\n\n")[1].split("\n")[1:]
    return [line.split()[0].split(".")[0] for line in table if line[:1].strip()]


@pytest.mark.parametrize(
    "name", ["EM full", "VB tied", "logistic", "HMM of mixtures of counts", "own, points"]
)
def test_every_parameter_is_named_once_within_80_columns(name):
    fit = made_fits.started(name)
    text = str(fit.summary())
    assert max(map(len, text.split("\n"))) <= 80
    assert " ".join(text.split("\n\n")[0].split()) == f"{type(fit.model).__name__}: {fit.verdict()}"
    assert list(dict.fromkeys(factors(fit))) == list(fit.params)
    records = fit.summary().records
    assert len({(row["parameter"], row["entry"]) for row in records}) == len(records)


def mixture():
    """A mixture of three components, of which the last is the heaviest."""
    rng = np.random.default_rng(0)
    inverse = np.eye(2) * [2.0, 50.0] + 1
    params = vb.Record(
        weights=DirichletState(jnp.asarray([2.0, 5.0, 9.0])),
        components=NormalWishartState(
            jnp.asarray(rng.normal(size=(3, 2)), "float32"),
            jnp.asarray([1.0, 4.0, 8.0]),
            jnp.asarray([5.0, 6.0, 9.0]),
            jnp.asarray(np.stack([inverse] * 3), "float32"),
        ),
    )
    return summarise(params, "A mixture", dict(components=1), Columns(LONG, (None, None))), params


def test_intervals_are_those_of_the_families_and_the_heaviest_component_is_first():
    summary, params = mixture()
    table = pd.DataFrame(summary.records).set_index(["parameter", "entry"])
    weights = table.loc["weights"]
    assert list(weights.index) == ["2", "1", "0"]
    exact = stats.beta([9, 5, 2], [7, 11, 14])
    np.testing.assert_allclose(weights["mean"], exact.mean(), rtol=1e-5)
    np.testing.assert_allclose(weights["sd"], exact.std(), rtol=1e-5)
    np.testing.assert_allclose(weights["5%"], exact.ppf(0.05), rtol=1e-4)
    np.testing.assert_allclose(weights["95%"], exact.ppf(0.95), rtol=1e-4)
    q = jax.tree.map(np.asarray, params.components)
    row = table.loc["components.location", f"2, {LONG[1]}"]
    exact = stats.t(8, q.location[2, 1], np.sqrt(51 / (8 * 8)))
    np.testing.assert_allclose(row.tolist(), [exact.mean(), exact.std(), *exact.ppf([0.05, 0.95])], rtol=1e-4)
    row = table.loc["components.precision", f"2, {LONG[0]}, {LONG[0]}"]
    exact = stats.chi2(9, scale=np.linalg.inv(q.inverse_scale[2])[0, 0])
    np.testing.assert_allclose(row.tolist(), [exact.mean(), exact.std(), *exact.ppf([0.05, 0.95])], rtol=1e-4)
    assert len(table.loc["components.precision"]) == 3 * 3  # a symmetric matrix has three numbers


def test_long_names_and_long_tables_are_shortened():
    summary, _ = mixture()
    lines = str(summary).split("\n")
    assert max(map(len, lines)) <= 80
    assert any("2, the time of..., the time un..." in line for line in lines)
    wide = vb.Record(share=DirichletState(jnp.arange(1.0, 31.0)))
    lines = str(summarise(wide, "A share", {}, None)).split("\n")
    assert len(lines) == 3 + 1 + 10 + 1
    assert lines[-1].strip() == "... 20 more"
    many = vb.Record(share=DirichletState(jnp.ones(30_000)))
    assert np.isnan(summarise(many, "", {}, None).records[0]["5%"])


def test_points_have_values_alone():
    fit = made_fits.started("EM full")
    heading, *lines = str(fit.summary()).split("\n\n")[1].split("\n")
    assert heading.split() == ["value"]
    assert "  0, 1, 1" in "\n".join(lines)
    assert np.isnan(fit.summary().records[0]["sd"])


def test_draws_give_the_intervals_where_they_are_the_approximation():
    fit = vb.fit(vb.BlackBox(lambda s: -0.5 * (s.a - 2) ** 2, dict(a=vb.real())), key=jax.random.key(0))
    (row,) = fit.summary().records
    np.testing.assert_allclose([row["mean"], row["sd"]], [2, 1], atol=1e-3)
    np.testing.assert_allclose([row["5%"], row["95%"]], 2 + 1.6449 * np.array([-1, 1]), atol=0.15)


COUNTS = jnp.array([[1.0], [2.0], [30.0], [31.0]])


def counted(labels, weights):
    """The summary of four Poisson components of these weights, and which of them are empty."""
    kind = vb.Mixture if isinstance(weights, DeltaState) else vb.BayesianMixture
    model = kind(4, vb.components.Poisson(), weights=labels).resolve(COUNTS)
    rates = GammaState(jnp.ones((4, 1)), jnp.ones((4, 1)))
    components = vb.Delta(vb.Gamma((4, 1))).at(rates.mean) if kind is vb.Mixture else rates
    params = vb.Record(weights=weights, components=components)
    empty = model.empty(params)
    return summarise(params, "Counts", model.named_axes, None, empty), empty.tolist()


@pytest.mark.parametrize(
    ("labels", "weights"),
    [
        (vb.labels.Weights(2.0), DirichletState(jnp.array([2.0, 3.0, 2.0, 5.0]))),
        (vb.labels.StickBreaking(7.0), StickBreakingState(jnp.array([1.0, 2, 1]), jnp.array([11.0, 10, 10]))),
        (vb.labels.Weights(), vb.Delta(vb.Dirichlet(4)).at([0.0, 0.25, 0.0, 0.75])),
    ],
)
def test_components_without_rows_are_counted_in_one_line(labels, weights):
    """Of four rows one is in component 1, three are in component 3; a prior may outweigh them."""
    summary, empty = counted(labels, weights)
    assert empty == [True, False, True, False]
    lines = str(summary).split("\n")
    said = "of weight 0" if isinstance(weights, DeltaState) else "the prior"
    assert lines[-2:] == ["", f"2 empty components: {said}"]
    assert f"<p>{lines[-1]}</p>" in summary._repr_html_()
    entries = [line.split()[0].rstrip(",") for line in lines if line.startswith("  ")][1:]
    assert entries == ["3", "1", "3", "1"]
    assert [row["entry"] for row in summary.records if row["parameter"] == "weights"] == list("3102")


def test_components_that_are_left_out_are_empty_and_a_single_one_is_not():
    for kind in (vb.labels.Weights, vb.labels.StickBreaking):
        some = kind(active=jnp.int32(2)).of(3, points=False).resolve("float32")
        assert some.empty(some.start(jnp.array(4.0), some.active)).tolist() == [False, False, True]
        one = kind().of(1, points=False).resolve("float32")
        assert one.empty(one.start(jnp.array(4.0), None)).tolist() == [False]


def test_a_notebook_shows_the_table():
    summary, _ = mixture()
    text = summary._repr_html_()
    assert text.count("<tr>") == text.count("</tr>") == 1 + 1 + 3 + 1 + 6 + 1 + 9
    assert "&lt;" in Summary("a < b", summary.parameters)._repr_html_()
    assert summary.verdict in text


def test_a_batch_of_fits_has_no_summary():
    fit = made_fits.started("EM full")
    batch = dataclasses.replace(fit, objective=jnp.ones(2))
    assert batch._repr_html_() is None
    with pytest.raises(ValueError, match="fit must be of one data set"):
        batch.summary()


def test_every_models_factors_with_named_axes_are_its_factors():
    for name in ("EM full", "PPCA", "k-means", "HMM of counts"):
        model = made_fits.started(name).model
        assert set(model.named_axes) <= set(MODELS[name].model.resolve(*MODELS[name].data("float32")).factors)
