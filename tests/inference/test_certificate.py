"""Certificates: each defect of a fit is named, by itself; a good fit has none."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

import vbjax as vb
from tests.support.tolerances import close
from vbjax.inference.certificate import _conditioning, own_sds

KEY = jax.random.key(0)
X = np.asarray(vb.datasets.old_faithful()[:40])
Y = X[:, 1]


@functools.cache
def mixture(**how):
    return vb.fit(vb.GaussianMixture(2), X, key=KEY, n_restarts=8, **how)


@functools.cache
def textbook():
    return vb.fit(vb.textbook.GaussianMeanPrecision(), Y, key=KEY)


def test_nothing_is_found_against_a_good_fit():
    found = mixture().certificate(X, key=KEY)
    assert found.doubts == ()
    assert found.sentence == "Nothing found speaks against it."
    names = "optimum", "convergence", "fixed_point", "components", "conditioning", "rows"
    assert tuple(found.findings) == names
    numbers = {name: finding.numbers for name, finding in found.findings.items()}
    close(numbers["components"]["sizes"], mixture().responsibilities(X).sum(0))
    assert abs(numbers["fixed_point"]["rise"]) < 1e-3
    assert max(map(len, str(found).splitlines())) <= 80


def test_an_approximation_is_as_good_as_its_diagnostics_say():
    good = vb.fit(vb.BlackBox(lambda s: -0.5 * s.z**2, dict(z=vb.real())), key=KEY)
    assert good.diagnostics.trust == "all"
    assert good.certificate().findings.approximation.fine
    poor = dataclasses.replace(good, diagnostics=good.diagnostics._replace(weights_hold=np.asarray(False)))
    assert poor.certificate().doubts == ("approximation",)
    assert poor.certificate().findings.approximation.sentence == poor.diagnostics.sentence


def walk(s):
    """Log density of a normal chain, on which a whole step from any start lands on the optimum."""
    return -0.5 * (s.x[0] ** 2 + ((s.x[1:] - s.x[:-1]) ** 2).sum() + 100 * ((s.x - 5) ** 2).sum())


def test_what_is_left_to_gain_is_what_the_run_stops_by():
    """A Newton-like step may raise the bound by many nats and be the last: the gain it leaves counts."""
    model = vb.BlackBox(walk, dict(x=vb.real(6)), family="structured")
    own = vb.fit(model, key=KEY)
    assert own.status == vb.Status.CONVERGED
    assert np.diff(own.trace)[-1] > 10
    found = own.certificate().findings.convergence
    assert found.fine
    assert "sweep" not in found.sentence
    assert found.numbers["remaining"] == own.gain_left < 1e-3
    close(own.gain_left, own.diagnostics.gradient_norm**2 / 2, factor=100)
    early = vb.fit(model, key=KEY, tol=1e9)  # so that the start will do
    found = early.certificate().findings.convergence
    assert not found.fine
    assert f"the next step promises {early.gain_left:.2g} nats" in found.sentence
    close(early.gain_left, early.diagnostics.gradient_norm**2 / 2, factor=100)


@pytest.mark.filterwarnings("ignore::vbjax.FitWarning")
def test_nothing_is_said_of_rises_that_no_run_stops_by():
    """Stochastic fits, whose scores rise and fall by chance, end by a rule of their own."""
    black_box = vb.BlackBox(walk, dict(x=vb.real(6)))
    for own in (
        vb.fit_stochastic(vb.textbook.GaussianMeanPrecision(), Y, key=KEY, batch_size=8, n_epochs=1),
        vb.fit(vb.blackbox.StochasticAscent(black_box, n_steps=5), key=KEY, max_iter=3),
    ):
        found = own.certificate().findings.convergence
        assert found.sentence == own.status.sentence
        assert found.numbers == dict(status=own.status, rise=None, remaining=None)


def test_a_run_that_was_stopped_early_is_named():
    found = mixture(max_iter=2).certificate(X)
    assert {"convergence", "fixed_point"} <= set(found.doubts)
    # what is still to come by the fixed point's own account, and by the next fit
    further = mixture().objective - mixture(max_iter=2).objective
    assert 0 < found.findings.fixed_point.numbers["rise"] <= further + 1e-3


def test_the_gap_to_the_next_optimum_is_that_of_the_runs():
    own = mixture()
    lower = own.objective - np.arange(8, dtype="float32") * 3  # by 3 nats from run to run
    found = dataclasses.replace(own, runs=own.runs._replace(objective=lower)).certificate()
    assert found.doubts == ("optimum",)
    assert found.findings.optimum.numbers == dict(at_best=1, runs=8, gap=pytest.approx(3, rel=1e-4))
    assert "the next optimum is 3 nats below" in found.findings.optimum.sentence
    assert textbook().certificate().findings.optimum.fine is None
    assert textbook().certificate().sentence.endswith("Not known: optimum.")


def test_a_collapsed_component_is_named():
    tied = np.concatenate([X, np.repeat(X[:1] + 30, 6, 0)])
    own = vb.fit(vb.GaussianMixture(3), tied, key=KEY, n_restarts=4)
    found = own.certificate(tied)
    assert "components" in found.doubts
    there = np.abs(own.params.components.mean.location - (X[0] + 30)).sum(1).argmin()
    assert found.findings.components.numbers["singular"] == [there]
    close(found.findings.components.numbers["sizes"][there], np.float32(6), factor=100)


def test_the_condition_number_is_that_of_correlations(dtype):
    r = dtype.type(0.5)
    scale = np.diag(np.array([1, 1e3], dtype))  # units do not count
    matrix = scale @ np.array([[1, r], [r, 1]]) @ scale
    of = lambda matrix: _conditioning(vb.Record(a=vb.Delta(vb.Wishart(2)).at(matrix.astype(dtype))))
    assert of(matrix).numbers == dict(condition=pytest.approx(3, rel=1e-4), where="a")
    assert of(matrix).fine
    near = np.array([[1, 1 - 1e-5], [1 - 1e-5, 1]])
    assert of(near).fine == (dtype == np.float64)  # 5.3 digits of 6.9, or of 15.7


def test_sds_of_q_are_compared_with_linear_response():
    own = textbook()
    sds = own_sds(own.model, own.params, Y, None)
    close((sds.mu.first, sds.tau.value), (own.params.mu.sd, own.params.tau.sd), factor=100)
    numbers = own.certificate(Y).findings.spread.numbers
    response = vb.linear_response(own.model, own.params, Y)
    assert numbers["ratio"] >= float(response.sd.mu.first / own.params.mu.sd) > 1
    assert numbers["rate"] == pytest.approx(float(response.rate))


def test_a_row_that_no_component_explains_is_named():
    far = np.concatenate([X, np.array([[9, 20]], X.dtype)])
    finding = mixture().certificate(far, key=KEY).findings.rows
    assert finding.numbers["unexplained"] == [40]
    assert "no component explains row 40" in finding.sentence


def test_what_it_refuses():
    with pytest.raises(ValueError, match="weights are for rows of data; there are none"):
        mixture().certificate(weights=np.ones(40))
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        mixture().certificate(key=3)
    batch = jax.tree.map(lambda x: x[None], mixture())
    with pytest.raises(ValueError, match="fit must be of one data set"):
        batch.certificate()
