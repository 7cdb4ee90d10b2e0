"""NumPyro's models are the same written by hand; what is missing is named."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats

import vbjax as vb
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax.blackbox import from_numpyro
from vbjax.blackbox.approximation import constrain

EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@pytest.fixture
def numpyro():
    """The package, which promotes dtypes freely."""
    package = pytest.importorskip("numpyro")
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        yield package


def eight_schools(effects, errors):
    import numpyro
    from numpyro import distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("schools", len(effects)):
        standard = numpyro.sample("standard", dist.Normal(0, 1))
        numpyro.sample("effects", dist.Normal(mu + tau * standard, errors), obs=effects)


def by_hand(s):
    prior = stats.norm.logpdf(s.mu, 0, 5) + jnp.log(2.0) + stats.cauchy.logpdf(s.tau, 0, 5)
    rows = stats.norm.logpdf(EFFECTS, s.mu + s.tau * s.standard, ERRORS)
    return prior + stats.norm.logpdf(s.standard).sum() + rows.sum()


def test_a_model_of_numpyro_is_the_same_by_hand(numpyro):
    theirs = from_numpyro(eight_schools, (EFFECTS,), dict(errors=ERRORS))
    ours = vb.BlackBox(by_hand, dict(mu=vb.real(), tau=vb.positive(), standard=vb.real(8)))
    assert theirs.size == ours.size == 10
    u = jax.random.normal(key(), (5, 10))
    log_joints = [jax.jit(jax.vmap(jax.value_and_grad(model.log_joint)))(u) for model in (theirs, ours)]
    close(log_joints[0], jax.tree.leaves(log_joints[1]), factor=10)
    fits = [vb.fit(model, key=key()) for model in (theirs, ours)]
    assert fits[0].status == vb.Status.CONVERGED
    np.testing.assert_allclose(fits[0].objective, fits[1].objective, atol=1e-9)
    for name, mean in fits[1].params.mean.items():
        np.testing.assert_allclose(fits[0].params.mean[name], mean, atol=1e-5)  # as far as tol goes


def test_every_site_has_its_own_space_and_shape(numpyro):
    from numpyro import distributions as dist

    def model():
        numpyro.sample("weights", dist.Dirichlet(jnp.ones((2, 3))).to_event(1))
        numpyro.sample("root", dist.LKJCholesky(3))
        numpyro.sample("between", dist.Uniform(jnp.arange(4.0), 7.0))
        numpyro.sample("line", dist.ImproperUniform(dist.constraints.ordered_vector, (), (3,)))

    box = from_numpyro(model, family="mean_field")
    assert box.size == 2 * 2 + 3 + 4 + 3
    u = jax.random.normal(key(), (box.size,))

    @jax.jit
    def mapped(u):
        values = constrain(box.support, u)[0]
        back = [box.support[name].unconstrain(values[name]) for name in sorted(values)]
        rows = constrain(box.support["weights"], u[-4:])
        first_two = jax.jacobian(lambda u: constrain(box.support["weights"], u)[0][:, :2].ravel())(u[-4:])
        return values, jnp.concatenate(back), rows[1], jnp.linalg.slogdet(first_two)[1], box.log_joint(u)

    values, back, stretch, volume, log_joint = mapped(u)
    shapes = dict(weights=(2, 3), root=(3, 3), between=(4,), line=(3,))
    assert {name: value.shape for name, value in values.items()} == shapes
    np.testing.assert_allclose(back, u, atol=1e-8)
    close(stretch, volume, factor=100)  # of two of three entries, the coordinates of a simplex
    assert np.isfinite(log_joint)


def test_what_is_no_model_of_continuous_latents_is_refused(numpyro):
    from numpyro import distributions as dist

    def discrete():
        numpyro.sample("k", dist.Categorical(logits=jnp.zeros(3)))

    def moving():
        numpyro.sample("x", dist.Uniform(0, numpyro.sample("top", dist.HalfNormal(1))))

    def learned():
        numpyro.sample("x", dist.Normal(numpyro.param("m", 0.0), 1))

    for model, message in (
        (discrete, "the latent 'k' is discrete"),
        (moving, "the support of 'x' moves with the other latents"),
        (learned, "model must have no param sites, which are not latents; got 'm'"),
        (lambda: None, "model must have a sample site that is not observed"),
    ):
        with pytest.raises(ValueError, match=message):
            from_numpyro(model)


def test_a_package_that_is_missing_is_named(monkeypatch):
    for name in ("numpyro", "numpyro.handlers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"numpyro is not installed: .*'vbjax-inference\[numpyro\]'"):
        from_numpyro(eight_schools)
