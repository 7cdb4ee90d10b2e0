"""PyMC's models are the same written by hand; what is missing is named."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import vbjax as vb
from tests.support.clouds import key
from vbjax.blackbox import from_pymc
from vbjax.blackbox.approximation import constrain

EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@pytest.fixture
def pymc():
    """The package, whose own warnings, and those of what it imports, are not judged here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        package = pytest.importorskip("pymc")
        yield package


def eight_schools(pymc):
    with pymc.Model() as model:
        mu = pymc.Normal("mu", 0, 5)
        tau = pymc.HalfCauchy("tau", 5)
        standard = pymc.Normal("standard", 0, 1, shape=8)
        pymc.Normal("effects", mu + tau * standard, ERRORS, observed=EFFECTS)
    return model


def by_hand(s):
    prior = stats.norm.logpdf(s.mu, 0, 5) + np.log(2) + stats.cauchy.logpdf(s.tau, 0, 5)
    effects, errors = jnp.asarray(EFFECTS, s.mu.dtype), jnp.asarray(ERRORS, s.mu.dtype)
    rows = stats.norm.logpdf(effects, s.mu + s.tau * s.standard, errors)
    return prior + stats.norm.logpdf(s.standard).sum() + rows.sum()


def test_a_model_of_pymc_is_the_same_by_hand(dtype, pymc):
    theirs = from_pymc(eight_schools(pymc))
    ours = vb.BlackBox(by_hand, dict(mu=vb.real(), tau=vb.positive(), standard=vb.real(8)))
    assert theirs.size == ours.size == 10
    u = jax.random.normal(key(), (5, 10), dtype)
    values = [jax.jit(jax.vmap(jax.value_and_grad(model.log_joint)))(u) for model in (theirs, ours)]
    tolerance = 1e-4 if dtype == "float32" else 1e-12  # sums of ten terms of some tens each
    for a, b in zip(*values, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, atol=tolerance)
    fits = [vb.fit(model, key=key()) for model in (theirs, ours)]
    assert fits[0].status == vb.Status.CONVERGED
    np.testing.assert_allclose(fits[0].objective, fits[1].objective, atol=tolerance)
    for name, mean in fits[1].params.mean.items():
        np.testing.assert_allclose(fits[0].params.mean[name], mean, atol=1e-3)  # as far as tol goes


def test_every_variable_has_its_own_space_and_shape(pymc):
    with pymc.Model() as model:
        pymc.Dirichlet("weights", np.ones((2, 3)))
        pymc.Uniform("between", np.arange(4.0), 7.0, shape=4)
        pymc.LKJCholeskyCov("root", n=3, eta=2, sd_dist=pymc.Exponential.dist(1.0), compute_corr=False)
        pymc.Normal(
            "line", 0, 1, shape=3, transform=pymc.distributions.transforms.ordered, initval=np.arange(3)
        )
        pymc.Potential("pull", -model["line"].sum())

    with jax.enable_x64(True):
        box = from_pymc(model, family="mean_field")
        assert box.size == 2 * 2 + 4 + 6 + 3
        u = jax.random.normal(key(), (box.size,))
        values = jax.jit(lambda u: constrain(box.support, u)[0])(u)
        shapes = dict(weights=(2, 3), between=(4,), root=(6,), line=(3,))
        assert {name: value.shape for name, value in values.items()} == shapes
        back = [box.support[name].unconstrain(values[name]) for name in sorted(values)]
        np.testing.assert_allclose(np.concatenate(back), u, atol=1e-8)
        # PyMC's own density of unconstrained values
        parts = dict(zip(sorted(values), np.split(np.asarray(u), [4, 7, 13]), strict=True))
        point = {
            model.rvs_to_values[v].name: parts[v.name].reshape(box.support[v.name].u_shape)
            for v in model.free_RVs
        }
        np.testing.assert_allclose(jax.jit(box.log_joint)(u), model.compile_logp()(point), rtol=1e-10)


def test_the_precision_of_jax_stays_as_it_was(pymc):
    with pymc.Model() as model:
        pymc.Normal("x", 0, 1)
    with jax.enable_x64(True):
        from_pymc(model)
    assert not jax.config.jax_enable_x64  # importing PyTensor's part for JAX would set it


def test_what_is_no_model_of_continuous_latents_is_refused(pymc):
    with pymc.Model() as empty:
        pymc.Normal("x", 0, 1, observed=0)
    with pymc.Model() as discrete:
        pymc.Bernoulli("k", 0.5)
    with pymc.Model() as moving:
        pymc.Uniform("x", 0, pymc.HalfNormal("top", 1))
    for model, message in (
        (3, "model must be a pymc.Model; got int"),
        (empty, "model must have a random variable that is not observed"),
        (discrete, "the latent 'k' is discrete"),
        (moving, "the support of 'x' moves with the other latents"),
    ):
        with pytest.raises(ValueError, match=message):
            from_pymc(model)


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ImportError, match=r"pymc is not installed: .*'vbjax-inference\[pymc\]'"):
        from_pymc(None)
