"""Families of black-box inference and their gradients: each exact where the target is one of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import vbjax as vb
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax import blackbox as bb
from vbjax.blackbox.algorithms.estimators import fresh_points, surrogate
from vbjax.families.base import pytree

LOADINGS = np.array([[2.0], [-1.0], [0.5]])
FACTOR = np.diag([1.0, 2.0, 0.1]) @ (np.eye(3) + LOADINGS @ LOADINGS.T) @ np.diag([1.0, 2.0, 0.1])


def normal_log_density(x, mean, covariance):
    shift = x - mean
    constant = -0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    return constant - 0.5 * shift @ jnp.asarray(np.linalg.inv(covariance), x.dtype) @ shift


@pytree
class Logistic:
    """A family of a user's own."""

    location: jax.Array
    log_scale: jax.Array

    @staticmethod
    def start(key, sizes, dtype):
        return Logistic(jax.random.normal(key, (sum(sizes),), dtype), jnp.zeros(sum(sizes), dtype))

    def sample(self, key, n):
        z = jax.random.logistic(key, (n, len(self.location)), self.location.dtype)
        return self.location + jnp.exp(self.log_scale) * z

    def log_prob(self, u):
        z = (u - self.location) * jnp.exp(-self.log_scale)
        return (jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - self.log_scale).sum(-1)


def two_modes(x):
    parts = [np.log(w) - 0.5 * (x - m) ** 2 - 0.5 * np.log(2 * np.pi) for w, m in ((0.3, -4.0), (0.7, 4.0))]
    return jnp.logaddexp(*parts)


OWN = {
    "low rank": (bb.low_rank(1), lambda x: normal_log_density(x, np.array([1.0, -3.0, 0.2]), FACTOR), 3),
    "mixture": (bb.mixture(2), two_modes, ()),
    "user's": (Logistic.start, lambda x: -(x - 2) / 3 - 2 * jnp.log1p(jnp.exp(-(x - 2) / 3)) - np.log(3), ()),
}


@pytest.mark.parametrize("name", OWN)
def test_a_target_of_the_family_is_found(name, float64):
    family, density, shape = OWN[name]
    model = vb.BlackBox(density, vb.real(shape), family=family, n_draws=4096 if name == "user's" else None)
    fit = vb.fit(model, key=key(), n_restarts=4, tol=1e-9)
    assert fit.status == vb.Status.CONVERGED
    slack = 1e-3 if name == "user's" else 1e-5  # its draws are independent: a divergence of about 1 / n
    np.testing.assert_allclose(fit.diagnostics.elbo, 0, atol=slack)  # the log evidence
    np.testing.assert_allclose(fit.diagnostics.gradient_norm, 0, atol=1e-3)
    if name == "mixture":
        order = np.argsort(fit.params.q.components.location.ravel())
        np.testing.assert_allclose(fit.params.q.weights[order], [0.3, 0.7], atol=1e-4)
        np.testing.assert_allclose(fit.params.mean, 1.6, atol=1e-3)
        np.testing.assert_allclose(fit.params.sd, np.sqrt(1 + 16 - 1.6**2), atol=1e-3)
        assert abs(fit.params.quantile(0.3)) < 3  # between the modes


def test_densities_are_those_of_dense_algebra(float64):
    rng = np.random.default_rng(0)
    location, log_sd, u = rng.normal(size=(3, 4)), 0.3 * rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    low = [
        bb.LowRank(*map(jnp.asarray, (m, s, rng.normal(size=(4, 2)))))
        for m, s in zip(location, log_sd, strict=True)
    ]
    peers = []
    for q in low:
        scale = np.diag(np.exp(q.log_sd))
        covariance = scale @ (np.eye(4) + q.loadings @ q.loadings.T) @ scale
        peers.append(scipy.stats.multivariate_normal(q.location, covariance))
        close(q.log_prob(jnp.asarray(u)), peers[-1].logpdf(u), factor=10)
        close(q.entropy(), peers[-1].entropy(), factor=10)
    weights = np.array([0.2, 0.5, 0.3])
    both = bb.Mixture(jnp.log(weights), jax.tree.map(lambda *x: jnp.stack(x), *low))
    mixed = scipy.special.logsumexp([peer.logpdf(u) for peer in peers], axis=0, b=weights[:, None])
    close(both.log_prob(jnp.asarray(u)), mixed, factor=10)
    draws = np.asarray(both.sample(key(), 40_000))
    error = 5 * draws.std(0) / 200
    assert (abs(draws.mean(0) - weights @ location) < error).all()


# -- gradients ----------------------------------------------------------------------------------------------

TARGET = vb.BlackBox(
    lambda x: normal_log_density(x, np.ones(2), np.array([[1.0, 0.5], [0.5, 2.0]])), vb.real(2)
)
ESTIMATES = [
    ("pathwise", "independent"),
    ("pathwise", "quasi"),
    ("sticking_the_landing", "antithetic"),
    ("score", "independent"),
]


def gradients(params, estimator, draws, n=2000, model=TARGET):
    """Mean, standard error and variance of estimates, as one vector of all parameters."""
    table = bb.gradient_estimates(
        model, params, key=key(1), estimator=estimator, draws=draws, n_draws=8, n_estimates=n
    )
    rows = np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(table)], 1)
    return rows.mean(0), rows.std(0) / np.sqrt(n), rows.var(0).sum()


def test_gradients_are_unbiased_and_some_vary_less(float64):
    scale = jnp.array([[0.7, 0.0], [-0.4, 1.5]])
    params = TARGET.init(key())
    params = params.at((jnp.array([0.3, -1.0]), params.q.kind.free(scale)))
    # on matched draws the bound of a normal is exact
    exact = jax.jit(jax.grad(lambda free: TARGET.bound(params.at(free))))(bb.families.to_free(params.q))
    exact = np.concatenate([np.asarray(x).ravel() for x in exact])
    variance = {}
    for estimator, draws in ESTIMATES:
        mean, error, variance[estimator, draws] = gradients(params, estimator, draws)
        assert (abs(mean - exact) <= 4 * error + 1e-12).all()
    independent = variance["pathwise", "independent"]
    assert variance["pathwise", "quasi"] < 0.5 * independent
    assert independent < variance["score", "independent"]


def test_the_score_of_a_mixture_agrees_with_its_pathwise_gradient(float64):
    model = vb.BlackBox(two_modes, vb.real(), family=bb.mixture(2))
    params = model.init(key())
    _, (location, log_sd) = bb.families.to_free(params.q)
    params = params.at((jnp.array([0.0, 1.0]), (location, log_sd + 2.0)))  # unequal weights, some width
    score, pathwise = (gradients(params, name, "independent", 4000, model) for name in ("score", "pathwise"))
    assert (abs(score[0] - pathwise[0]) <= 4 * np.hypot(score[1], pathwise[1])).all()
    assert (abs(pathwise[0]) > 4 * score[1]).any()  # no test of noise


def test_sticking_the_landing_has_no_variance_where_q_is_exact(float64):
    params = vb.fit(TARGET, key=key(), tol=1e-20).params
    assert gradients(params, "sticking_the_landing", "independent", 100)[2] < 1e-16
    assert gradients(params, "pathwise", "independent", 100)[2] > 1e-2


def test_the_importance_weighted_gradient_is_that_of_its_bound(float64):
    # E log((r1 + r2) / 2) of two draws, by a product of Gauss-Hermite rules
    log_p = lambda u: -0.5 * (u[0] - 1) ** 2 - 0.1 * u[0] ** 4
    start = (jnp.array([-0.5]), jnp.array([0.2]))
    q = bb.LocationScale(start[0], jnp.exp(start[1]), bb.scales.Diagonal())
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = jnp.asarray(weights / weights.sum())

    def exact(free, n=2):
        u, _ = q.at(free).place(jnp.asarray(nodes)[:, None])
        ratio = jax.vmap(log_p)(u) - q.at(free).log_prob(u)
        if n == 1:
            return weights @ ratio
        return weights @ (jnp.logaddexp(ratio[:, None], ratio) - np.log(2)) @ weights

    def estimate(key):
        of = lambda free: surrogate(
            "importance_weighted",
            jax.vmap(log_p),
            q.at(free),
            fresh_points("importance_weighted", q.at(free), key, 2, "independent"),
        )
        return jnp.concatenate(jax.grad(of)(start))

    rows = np.asarray(jax.jit(jax.vmap(estimate))(jax.random.split(key(), 80_000)))
    wanted = np.concatenate(jax.jit(jax.grad(exact))(start))
    error = rows.std(0) / np.sqrt(len(rows))
    assert (abs(rows.mean(0) - wanted) < 4 * error).all()
    plain = np.concatenate(jax.jit(jax.grad(lambda free: exact(free, 1)))(start))
    assert (abs(plain - wanted) > 10 * error).all()  # not that of the ordinary bound


# -- stochastic ascent --------------------------------------------------------------------------------------


def rows_of(n=400):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 2)) * [1, 3]
    return x, x @ [2.0, -1.0] + rng.normal(size=n)


REGRESSION = vb.BlackBox(
    lambda s: -0.5 * (s.w**2).sum(),
    dict(w=vb.real(2)),
    log_likelihood=lambda s, rows: -0.5 * (rows[1] - rows[0] @ s.w) ** 2,
)


@pytest.mark.parametrize(("batch_size", "precision"), [(None, "f4"), (40, "f8")])
def test_stochastic_ascent_ends_at_the_exact_posterior_of_a_regression(batch_size, precision):
    with jax.enable_x64(precision == "f8"):
        ends_at_the_exact_posterior(batch_size, precision)


def ends_at_the_exact_posterior(batch_size, precision):
    x, y = (part.astype(precision) for part in rows_of())
    ascent = bb.StochasticAscent(REGRESSION, optax.adam(0.1), batch_size=batch_size, n_steps=50)
    fit = vb.fit(ascent, (x, y), key=key(), max_iter=200)
    covariance = np.linalg.inv(np.eye(2) + x.T.astype(float) @ x)
    mean, sd = covariance @ x.T @ y, np.sqrt(np.diag(covariance))
    assert fit.status == vb.Status.CONVERGED
    slack = 0.05 if batch_size is None else 0.3  # in posterior sds; a minibatch has its own noise
    assert (abs(fit.params.mean.w - mean) < slack * sd).all()
    assert (abs(fit.params.sd.w / sd - 1) < slack).all()
    assert (np.diff(fit.trace) >= 0).all()  # of the best average so far


def test_rows_count_as_often_as_their_weights_say(float64):
    x, y = rows_of(20)
    weights = np.arange(20) % 3
    again = np.repeat(np.arange(20), weights)
    one = vb.fit(REGRESSION, (x, y), key=key(), weights=weights.astype(float), tol=1e-12)
    two = vb.fit(REGRESSION, (x[again], y[again]), key=key(), tol=1e-12)
    close(one.objective, two.objective, factor=1000)
    close(one.params.mean.w, two.params.mean.w, factor=1000)
    close(one.diagnostics.elbo, two.diagnostics.elbo, factor=1000)


# -- discrete latents ---------------------------------------------------------------------------------------

LOGITS = np.log([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])


def test_independent_discrete_latents_are_found_by_their_score(float64):
    density = lambda s: jnp.asarray(LOGITS)[jnp.arange(2), s.z].sum() - 0.5 * ((s.x - 1) / 0.5) ** 2
    fit = vb.fit(vb.BlackBox(density, dict(x=vb.real(), z=vb.category(3, 2))), key=key(), max_iter=200)
    assert fit.status == vb.Status.CONVERGED
    evidence = 0.5 * np.log(2 * np.pi * 0.25)
    np.testing.assert_allclose(fit.diagnostics.elbo, evidence, atol=0.01)
    np.testing.assert_allclose(jax.nn.softmax(fit.params.q.logits[0]), np.exp(LOGITS), atol=0.05)
    assert fit.params.sample(key(), 5).z.shape == (5, 2)
    assert fit.params.sample(key(), 5).z.dtype == np.int32


def test_cases_are_summed_out_one_by_one(float64):
    x = jnp.array([0.5, -2.0])
    joint = lambda s, x: (
        -0.5 * s.m**2 - ((x - s.m * s.z.astype(float)) ** 2).sum() - jnp.where(s.other == s.z[0], 0.3, 0.0)
    )
    density = bb.summed_out(joint, dict(z=vb.category(3, 2), other=vb.category(2)))
    at = vb.Record(m=jnp.array(0.7))
    cases = np.array(
        [
            [
                [joint(vb.Record(m=jnp.array(0.7), z=jnp.array([i, j]), other=k), x) for k in range(2)]
                for j in range(3)
            ]
            for i in range(3)
        ]
    )
    close(density(at, x), scipy.special.logsumexp(cases))
    share = np.exp(cases - scipy.special.logsumexp(cases))
    found = density.probabilities(at, x)
    close(found.z, np.stack([share.sum((1, 2)), share.sum((0, 2))]))
    close(found.other, share.sum((0, 1)))
    fit = vb.fit(vb.BlackBox(density, dict(m=vb.real())), x, key=key())
    assert fit.status == vb.Status.CONVERGED


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bb.low_rank(0), "rank must be"),
        (lambda: bb.mixture(2, of="tall"), "of must be one of .*'tall'"),
        (lambda: vb.category(1), "n_cases must be"),
        (lambda: bb.summed_out(sum, dict(z=vb.real())), "discrete must hold vb.category"),
        (lambda: bb.summed_out(sum, dict(z=vb.category(10, 6))), "1e.06 joint cases are too many"),
        (lambda: of(family=lambda key, sizes, dtype: jnp.zeros(3)), "object with sample and log_prob"),
        (lambda: of(family=Logistic.start, support=vb.real(2), wrong=True), "draw rows of 2 numbers"),
        (lambda: of(log_likelihood=lambda s, rows: rows.sum(), data=np.ones(4, "f")), "each of 4 rows"),
        (lambda: of(log_likelihood=lambda s, rows: rows), "log_likelihood needs data"),
        (lambda: ascent(estimator="wake"), "estimator must be one of .*'wake'"),
        (lambda: ascent(draws=np.ones(2)), "draws must be one of"),
        (lambda: ascent(n_draws=3), "n_draws must be even"),
        (lambda: ascent(estimator="score", draws="quasi"), "'independent' for a score.*got 'quasi'"),
        (lambda: ascent(vb.category(2), estimator="importance_weighted"), "not for discrete latents"),
        (lambda: ascent(batch_size=3), "batch_size is for models of rows"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def of(support=None, data=None, wrong=False, **kwargs):
    if wrong:
        family = kwargs["family"]
        kwargs["family"] = lambda key, sizes, dtype: family(key, (1,), dtype)
    vb.fit(vb.BlackBox(lambda s: -(s**2).sum(), support or vb.real(), **kwargs), data, key=key())


def ascent(support=None, **kwargs):
    model = vb.BlackBox(lambda s: -(s.astype("float32") ** 2), support or vb.real())
    vb.fit(bb.StochasticAscent(model, **kwargs), key=key())
