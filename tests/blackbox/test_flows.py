"""Flows as families: exact where the target is a flow of their build; what is missing or wrong is named."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vbjax as vb
from tests.support.clouds import key
from tests.support.tolerances import STANDARD_ERRORS, close
from vbjax import blackbox as bb

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[4.0, 1.0], [1.0, 0.5]])
FEW = 2000  # draws


@pytest.fixture
def flows():
    """The functions that build flows."""
    return pytest.importorskip("flowjax.flows")


def normal(x):
    shift = x - MEAN.astype(x.dtype)
    constant = 0.5 * np.linalg.slogdet(2 * np.pi * COVARIANCE)[1]
    return -0.5 * shift @ jnp.asarray(np.linalg.inv(COVARIANCE), x.dtype) @ shift - constant


def banana(x):
    """Log density of x[0] ~ N(0, 1), x[1] ~ N(x[0]^2 - 1, 1/4): of means 0, variances 1 and 9/4."""
    return -0.5 * x[0] ** 2 - 2 * (x[1] - x[0] ** 2 + 1) ** 2 - np.log(np.pi)


def affine(key, *, base_dist):
    from flowjax.bijections import TriangularAffine
    from flowjax.distributions import Transformed

    d = base_dist.shape[0]
    return Transformed(base_dist, TriangularAffine(jnp.zeros(d), jnp.eye(d)))


def test_an_affine_flow_finds_a_normal_that_no_path_has_shown_it(flows, dtype):
    model = vb.BlackBox(normal, vb.real(2), family=bb.flow(affine))
    start = dataclasses.replace(model.init(key()), q=model.begin(key())[0].q)
    fit = vb.fit(model, key=key(), params=start)
    assert fit.status == vb.Status.CONVERGED
    np.testing.assert_allclose(fit.objective, 0, atol=1e-3)  # the log evidence, to the tolerance
    q = fit.params.q
    origin, columns = q.place(jnp.zeros((1, 2), dtype))[0][0], q.place(jnp.eye(2, dtype=dtype))[0]
    root = np.asarray(columns - origin)
    np.testing.assert_allclose(origin, MEAN, atol=0.05)
    np.testing.assert_allclose(root.T @ root, COVARIANCE, rtol=0.05)


@pytest.fixture(scope="module")
def bent():
    """A fit of the banana, in the default dtype."""
    flows = pytest.importorskip("flowjax.flows")
    family = bb.flow(flows.coupling_flow, flow_layers=4, nn_width=16)
    return vb.fit(vb.BlackBox(banana, vb.real(2), family=family), key=key())


def test_a_flow_bends_where_a_normal_cannot(bent):
    assert bent.status == vb.Status.CONVERGED
    found = bent.diagnostics
    straight = vb.fit(vb.BlackBox(banana, vb.real(2)), key=key()).diagnostics
    assert -0.03 < found.elbo < 0 + STANDARD_ERRORS * found.elbo_error  # the log evidence is 0
    assert straight.elbo < -0.3
    assert found.trust == "all"
    draws = bent.resample(key(1), FEW)
    effective = FEW / (1 + 1 / found.effective)  # of draws with repetition, from draws with weights
    error = STANDARD_ERRORS / np.sqrt(effective)
    np.testing.assert_allclose(draws.mean(0), 0, atol=error * 1.5)
    # E[x^4] = 3; y = x^2 - 1 + e / 2 has E[y^4] = 60 + 6 * 2 / 4 + 3 / 16
    fourth = np.array([3, 60 + 3 + 3 / 16]) - np.array([1, 2.25]) ** 2
    np.testing.assert_allclose((draws**2).mean(0), [1, 2.25], atol=(error * np.sqrt(fourth)).max())


def test_the_density_of_a_flow_is_that_of_its_draws(bent):
    q = bent.params.q
    z = jax.random.normal(key(2), (5, 2))
    u, _ = jax.jit(q.place)(z)
    assert u.dtype == z.dtype
    stretch = jax.vmap(lambda z: jnp.linalg.slogdet(jax.jacobian(lambda z: q.place(z[None])[0][0])(z))[1])
    expected = -0.5 * (z**2).sum(1) - np.log(2 * np.pi) - jax.jit(stretch)(z)
    close(jax.jit(q.log_prob)(u), expected, factor=10)  # through four layers and back


def test_a_file_keeps_a_flow_but_for_the_functions_of_its_model(bent, tmp_path):
    bent.save(tmp_path / "bent.vbjax")
    again = vb.load(tmp_path / "bent.vbjax", model=bent.model)
    draws = [np.asarray(fit.params.sample(key(3), 5)) for fit in (bent, again)]
    np.testing.assert_array_equal(*draws)
    with pytest.raises(ValueError, match="the function banana, which a file cannot hold: give the model"):
        vb.load(tmp_path / "bent.vbjax")
    with pytest.raises(ValueError, match=r"in which fit.model.family is a FlowStart; the given has str"):
        vb.load(tmp_path / "bent.vbjax", model=vb.BlackBox(banana, vb.real(2)))


def test_what_builds_no_flow_is_refused(flows):
    from flowjax.distributions import Normal

    def fit(build, **options):
        return vb.fit(vb.BlackBox(banana, vb.real(2), family=bb.flow(build, **options)), key=key())

    for call, message in (
        (lambda: bb.flow(3), "build must be a function of flowjax.flows, or one alike; got 3"),
        (lambda: bb.flow(affine, layers=[1]), "layers must be hashable; got list"),
        (
            lambda: fit(lambda key, base_dist: base_dist),
            "family must build a flow of base_dist; got Standard",
        ),
        (
            lambda: fit(lambda key, base_dist: Normal(jnp.zeros(3))),
            "family must build a flow of base_dist, 2",
        ),
        (lambda: fit(flows.coupling_flow, cond_dim=1), "family must build a flow of base_dist, 2"),
        (lambda: fit(flows.coupling_flow, layers=1), "family cannot be evaluated .*: TypeError"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "flowjax", None)
    with pytest.raises(ImportError, match=r"flowjax is not installed: .*'vbjax-inference\[flow\]'"):
        bb.flow(affine)
