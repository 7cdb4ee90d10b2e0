"""What a log joint of one's own can say, each against what is known of it exactly.

`linear`, `matmul` and `dot` have the moments of their products; triplets are fitted as the table they are of.
Regression with a joint factor: the bound is the log evidence. Relevance determination: textbook updates.
Missing entries are a mask. (A factor model and random effects of one's own stand beside the named ones, in
test_factor_models.py and test_hierarchical.py.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import vbjax as vb
from tests.support.tolerances import close
from vbjax.families import MultivariateNormalState
from vbjax.terms import dot, gamma, linear, matmul, multivariate_normal_gamma, normal

KEY = jax.random.key(0)
N, D, Q = 30, 3, 2


def fitted(model, data, **how):
    return vb.fit(model, data, key=KEY, tol=0.0, **how)


def regression(dtype="float64"):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, D))
    return jnp.asarray(x, dtype), jnp.asarray(x @ [2.0, 0.0, -1.0] + 0.5 * rng.normal(size=N), dtype)


def vectors(rng, n):
    root = rng.normal(size=(n, Q, 3 * Q))
    state = MultivariateNormalState(
        jnp.asarray(rng.normal(size=(n, Q))), jnp.asarray(root @ root.swapaxes(1, 2))
    )
    mean, covariance = np.asarray(state.mean), np.asarray(state.covariance)
    return state, mean, covariance + mean[:, :, None] * mean[:, None, :]


# ---------------------------------------------------------------- products


def test_matmul_has_the_moments_of_the_product(float64):
    rng = np.random.default_rng(0)
    (w, w_mean, w_square), (z, z_mean, z_square) = vectors(rng, D), vectors(rng, N)
    for pivot in (0.0, 0.7):
        t = matmul(w.expected().about(w.mean + pivot), z.expected().about(z.mean - pivot))
        close(t.mean, z_mean @ w_mean.T, factor=3)
        close(t.square_about(0.0), np.einsum("nij,dij->nd", z_square, w_square), factor=3)
    at_values = normal(1.0, matmul(w.mean, z.mean), 2.0)
    close(at_values, stats.norm.logpdf(1.0, z_mean @ w_mean.T, 2**-0.5), factor=3)


def test_dot_has_the_moments_of_the_product(float64):
    rng = np.random.default_rng(0)
    (x, x_mean, x_square), (z, z_mean, z_square) = vectors(rng, N), vectors(rng, N)
    for pivot in (0.0, 0.7):
        t = dot(x.expected().about(x.mean + pivot), z.expected().about(z.mean - pivot))
        close(t.mean, (z_mean * x_mean).sum(1), factor=3)
        close(t.square_about(0.0), (z_square * x_square).sum((1, 2)), factor=3)
    close(dot(x.expected(), z.expected()[0]).mean, x_mean @ z_mean[0], factor=3)  # broadcasts
    close(dot(x.mean, z.mean).mean, (z_mean * x_mean).sum(1))


def loadings_prior(s):
    scores = normal(s.z, 0.0, 1.0).sum() + normal(s.w, 0.0, 1.0).sum()
    return scores + gamma(s.tau, 2.0, 1.0)


def test_ratings_as_triplets_are_fitted_as_their_table_is(float64):
    n, rng = 6, np.random.default_rng(5)
    table = jnp.asarray(rng.normal(size=(n, Q)) @ rng.normal(size=(Q, D)) + 0.3 * rng.normal(size=(n, D)))
    user, item = (jnp.asarray(index.ravel()) for index in np.indices(table.shape))
    factors = dict(
        w=vb.MultivariateNormal(Q, plate=(D,)), z=vb.MultivariateNormal(Q, plate=(n,)), tau=vb.Gamma()
    )
    triplets = vb.Model(
        factors=factors,
        log_prior=loadings_prior,
        log_likelihood=lambda s, rows: normal(rows[2], dot(s.z[rows[0]], s.w[rows[1]]), s.tau),
    )
    whole = vb.Model(
        factors=factors,
        log_prior=lambda s: loadings_prior(s) + normal(table, matmul(s.w, s.z), s.tau).sum(),
    )
    one = fitted(triplets, (user, item, table.ravel()), max_iter=5)
    start = one.params
    sweeps = dict(params=start, max_iter=4)
    one, other = fitted(triplets, (user, item, table.ravel()), **sweeps), fitted(whole, None, **sweeps)
    close(one.trace, other.trace, factor=10)
    close(one.params, other.params, factor=100)
    assert one.trace[-1] > one.trace[0]
    assert abs(one.params.w.mean).max() > 0.1  # and not the saddle


def test_linear_has_the_moments_of_the_product(float64):
    (w, mean, square), x = vectors(np.random.default_rng(0), 1), regression()[0][:, :Q]
    t = linear(x, jax.tree.map(lambda leaf: leaf[0], w.expected().about(w.mean + 0.7)))
    close(t.mean, x @ mean[0])
    close(t.square_about(0.0), np.einsum("ni,ij,nj->n", x, square[0], x), factor=3)
    close(linear(x, mean[0]).mean, x @ mean[0])


def test_separate_normals_are_no_weights_of_linear(float64):
    with pytest.raises(ValueError, match="MultivariateNormal"):
        linear(regression()[0], vb.Normal((D,)).neutral("float64").expected())


def test_sums_and_cells_of_statistics(float64):
    one, other = (
        vb.families.NormalState(jnp.asarray([a, 2.0]), jnp.asarray([4.0, b])) for a, b in ((1, 2), (3, 5))
    )
    total = one.expected().about(jnp.zeros(2)) + other.expected() + 1.0
    close(total.mean, one.mean + other.mean + 1)
    close(total.square_about(total.mean), one.variance + other.variance)
    close((np.ones(2) + one.expected()).mean, one.mean + 1)
    close(one.expected()[jnp.asarray([1, 1, 0])].mean, [2.0, 2.0, 1.0])


# ---------------------------------------------------------------- regression


def joint_prior(s):
    return multivariate_normal_gamma(s.w, jnp.zeros_like(s.w.pivot), s.strength, s.a, s.b)


def joint_rows(s, rows):
    return normal(rows[1], linear(rows[0], s.w))


def test_the_bound_of_a_joint_regression_is_the_log_evidence(float64):
    x, y = regression()
    a, b, strength = 2.0, 1.5, 0.5 * np.eye(D)
    model = vb.Model(
        factors=dict(w=vb.MultivariateNormalGamma(D)),
        hyper=dict(strength=jnp.asarray(strength), a=a, b=b),
        log_prior=joint_prior,
        log_likelihood=joint_rows,
    )
    fit = fitted(model, (x, y))
    x, y = np.asarray(x, float), np.asarray(y, float)
    shape = b / a * (np.eye(N) + x @ np.linalg.solve(strength, x.T))
    close(fit.objective, stats.multivariate_t.logpdf(y, np.zeros(N), shape, df=2 * a), factor=3)
    posterior = strength + x.T @ x
    close(fit.params.w.location, np.linalg.solve(posterior, x.T @ y), factor=10)
    close(fit.params.w.mean_precision, posterior)


def relevance_prior(s):
    scales = gamma(s.alpha, s.a, s.b).sum() + gamma(s.tau, s.a, s.b)
    return normal(s.w, 0.0, s.alpha).sum() + scales


def relevance_rows(s, rows):
    return normal(rows[1], linear(rows[0], s.w), s.tau)


def test_relevance_determination_makes_the_textbooks_updates(float64):
    """Bishop (2006), eq. 10.94 to 10.99 and exercise 10.26, with a precision for each weight."""
    x, y = regression()
    a = b = 1e-3
    model = vb.Model(
        factors=dict(w=vb.MultivariateNormal(D), alpha=vb.Gamma((D,)), tau=vb.Gamma()),
        hyper=dict(a=a, b=b),
        log_prior=relevance_prior,
        log_likelihood=relevance_rows,
    )
    fit = fitted(model, (x, y), max_iter=5000)
    alpha, tau = np.ones(D), 1.0
    for _ in range(5000):
        covariance = np.linalg.inv(np.diag(alpha) + tau * x.T @ x)
        mean = tau * covariance @ x.T @ y
        alpha = (a + 0.5) / (b + 0.5 * (mean**2 + np.diag(covariance)))
        rest = ((y - x @ mean) ** 2).sum() + np.trace(x @ covariance @ x.T)
        tau = (a + 0.5 * N) / (b + 0.5 * rest)
    np.testing.assert_allclose(fit.params.w.mean, mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.params.alpha.mean, alpha, rtol=1e-5)
    np.testing.assert_allclose(fit.params.tau.mean, tau, rtol=1e-6)
    assert (np.diff(fit.trace) > -1e-9).all()
    assert fit.params.alpha.mean.argmax() == 1  # the weight that is 0


# ---------------------------------------------------------------- missing entries


def test_a_mask_leaves_entries_out(float64):
    x = jnp.asarray(np.random.default_rng(3).normal(2, 1, size=(N, D)))
    seen = jnp.asarray(np.random.default_rng(4).uniform(size=(N, D)) < 0.7)
    model = vb.Model(
        factors=dict(mu=vb.Normal((D,))),
        log_prior=lambda s: normal(s.mu, 0.0, 0.5).sum(),
        log_likelihood=lambda s, rows: jnp.where(rows[1], normal(rows[0], s.mu, 1.0), 0.0).sum(-1),
    )
    fit = fitted(model, (jnp.where(seen, x, 1e3), seen))
    counts = np.asarray(seen).sum(0)
    close(fit.params.mu.precision, 0.5 + counts)
    close(fit.params.mu.mean, jnp.where(seen, x, 0.0).sum(0) / (0.5 + counts))
