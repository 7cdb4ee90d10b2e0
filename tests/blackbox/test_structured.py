"""Normals of sparse precision: against dense algebra, exact posteriors, and the full-rank fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse

import vbjax as vb
from tests.support.clouds import key
from tests.support.tolerances import close
from vbjax import blackbox as bb
from vbjax.blackbox.structured.probing import probe
from vbjax.blackbox.structured.sparsity import Sparsity


def chain(n, reach=1):
    return sum(np.eye(n, k=k) for k in range(reach + 1))


def with_border(pattern, n):
    return np.pad(pattern, ((0, n), (0, n)), constant_values=1)


def shuffled(pattern, seed=0):
    order = np.random.default_rng(seed).permutation(len(pattern))
    return pattern[order][:, order]


def grid(n):
    path = sparse.csr_array(chain(n) + chain(n).T > 0)
    return sparse.kronsum(path, path).toarray()


PATTERNS = {
    "bordered": (shuffled(with_border(chain(30, 2), 2) + with_border(chain(30, 2), 2).T), 2, 2),
    "dense": (np.ones((4, 4)), None, None),
}


def random_precision(pattern, seed=0):
    rng = np.random.default_rng(seed)
    both = (pattern != 0) | (pattern.T != 0)
    weights = rng.normal(size=both.shape) * both
    weights = weights + weights.T
    return weights + np.diag(abs(weights).sum(0) + rng.uniform(0.5, 1, len(weights)))


@pytest.mark.parametrize("name", PATTERNS)
def test_the_algebra_is_that_of_dense_matrices(name, float64):
    pattern, width, n_border = PATTERNS[name]
    precision = random_precision(pattern)
    start = bb.structured(pattern)
    assert width is None or (start.sparsity.width, start.sparsity.n_border) == (width, n_border)
    kind, d = start(key(), (len(pattern),), jnp.float64).kind, len(pattern)

    @jax.jit
    def found(precision, z):
        order = kind.sparsity.numbers("order")
        ordered = (kind._seeds(z.dtype) @ precision)[:, order]
        scale = kind._arrow(ordered).factor()
        x = kind.apply(scale, z)
        q = bb.LocationScale(jnp.zeros(d), scale, kind)
        again = kind.bind(kind.free(scale))
        matched = (kind.apply_matched(scale, z) ** 2).mean(0)
        product = kind._rows(scale.matrix().times(kind._columns(z)))
        own = kind._rows(scale.solve_transposed(scale.solve(kind._columns(z))))
        return x, kind.undo(scale, x), q.entropy(), matched, product, own, again, scale

    z = np.random.default_rng(1).normal(size=(6, d))
    x, back, entropy, matched, product, own, again, scale = found(precision, z)
    covariance = np.linalg.inv(precision)
    close(back, z, factor=100)
    close(((x @ precision) * x).sum(1), (z * z).sum(1), factor=100)
    close(entropy, 0.5 * np.linalg.slogdet(2 * np.pi * np.e * covariance)[1], factor=100)
    close(matched, np.diag(covariance), factor=100)
    close(product, z @ precision, factor=100)
    close(own, z @ covariance, factor=100)
    jax.tree.map(lambda a, b: close(a, b, factor=100), again, scale)


@pytest.mark.parametrize(
    "pattern",
    [shuffled(chain(300)), shuffled(with_border(chain(200, 2), 2)), grid(15), np.ones((5, 5)), np.eye(1)],
    ids=["chain", "bordered", "grid", "dense", "one"],
)
def test_the_pattern_of_a_matrix_is_found_from_few_products(pattern):
    matrix, calls = random_precision(pattern), []

    def products(seeds):
        calls.append((seeds != 0).any(1).sum())
        return seeds @ matrix != 0

    assert probe(products, len(matrix)) == Sparsity.of(sparse.csr_array(matrix))
    assert sum(calls) <= max(len(matrix), 64)


T = 150


def local_level(s, y):
    """A random walk about a level and a slope, with observation noise of sd 0.5."""
    steps = ((s.x[1:] - s.x[:-1]) ** 2).sum() / 0.09
    noise = ((y - s.x - s.level - s.slope * jnp.linspace(0, 1, T)) ** 2).sum() / 0.25
    return -0.5 * (s.x[0] ** 2 + steps + noise + s.level**2 / 100 + s.slope**2)


def test_a_linear_gaussian_state_space_with_globals_is_exact(float64, tmp_path):
    y = jnp.asarray(np.cumsum(np.random.default_rng(0).normal(size=T)) * 0.3 + 2)
    support = dict(x=vb.real(T), level=vb.real(), slope=vb.real())
    model = vb.BlackBox(local_level, support, family="structured")
    fit = vb.fit(model, y, key=key(), tol=1e-12)
    sparsity = fit.model.found.sparsity
    assert (sparsity.width, sparsity.n_border) == (1, 2)
    assert fit.status == vb.Status.CONVERGED
    assert fit.n_iter <= 3
    # a quadratic, whose matrix is that of its values at unit vectors
    walk = np.eye(T) - np.eye(T, k=-1)
    prior = walk.T @ np.diag(np.r_[1, np.full(T - 1, 1 / 0.09)]) @ walk
    design = np.column_stack([np.ones(T), np.linspace(0, 1, T), np.eye(T)])  # level, slope, x
    precision = design.T @ design / 0.25
    precision[:2, :2] += np.diag([0.01, 1])
    precision[2:, 2:] += prior
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ y / 0.25
    flat = lambda r: np.r_[r.level, r.slope, r.x]
    close(flat(fit.params.mean), mean, factor=1e4)
    close(flat(fit.params.sd), np.sqrt(np.diag(covariance)), factor=1e4)
    evidence = local_level(vb.Record(level=mean[0], slope=mean[1], x=jnp.asarray(mean[2:])), y)
    evidence += 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(fit.objective, evidence, rtol=1e-9)
    np.testing.assert_allclose(fit.diagnostics.elbo, evidence, rtol=1e-9)
    assert "close to the posterior" in fit.verdict()
    fit.save(tmp_path / "fit.vbjax")
    again = vb.load(tmp_path / "fit.vbjax", model=model)
    np.testing.assert_array_equal(again.params.sd.x, fit.params.sd.x)
    assert again.params.sample(key(), 3).x.shape == (3, T)


def test_a_local_level_is_that_of_the_smoother(float64):
    y = jnp.asarray(np.random.default_rng(1).normal(size=T))
    precision = np.full((T, 1, 1), 1.5 + 2 / 0.5)
    precision[-1] = 1.5 + 1 / 0.5
    exact = vb.gaussian_chains.smoother(precision, np.full((1, 1), 1 / 0.5), 1.5 * y[:, None])
    density = lambda x, y: (
        -0.5 * (x[0] ** 2 / 0.5 + ((x[1:] - x[:-1]) ** 2).sum() / 0.5 + 1.5 * ((y - x) ** 2).sum())
    )
    model = vb.BlackBox(density, vb.real(T), family=bb.structured(chain(T)))
    fit = vb.fit(model, y, key=key(), tol=1e-12)
    close(fit.params.mean, exact.means[:, 0], factor=1e4)
    close(fit.params.variance, exact.covariances[:, 0, 0], factor=1e4)


def test_a_fit_ends_where_the_expected_gradient_is_zero_and_the_precision_the_expected_hessian(float64):
    rng = np.random.default_rng(2)
    y = 3 + 2 * rng.normal(size=(12, 1)) + rng.normal(size=(12, 5))

    def density(s, y):
        prior = -0.5 * ((s.b - s.mu) ** 2).sum() / s.tau**2 - 12 * jnp.log(s.tau) - s.tau - s.mu**2 / 200
        return prior - 0.5 * ((y - s.b[:, None]) ** 2).sum() / s.sigma**2 - 60 * jnp.log(s.sigma) - s.sigma

    support = dict(b=vb.real(12), mu=vb.real(), tau=vb.positive(), sigma=vb.positive())
    fit = vb.fit(vb.BlackBox(density, support, "structured"), jnp.asarray(y), key=key())
    assert fit.status == vb.Status.CONVERGED
    assert fit.model.found.sparsity.n_border == 3
    q = fit.params.q

    @jax.jit
    def expected(u):  # in units of the standard deviations of q
        log_p = lambda u: fit.model.log_joint(u, jnp.asarray(y))
        root = q.kind.apply(q.scale, jnp.eye(15))
        pull = jax.vmap(jax.grad(log_p))(u) @ root.T
        return pull.mean(0), pull.std(0), -root @ jax.vmap(jax.hessian(log_p))(u).mean(0) @ root.T

    pull, spread, curvature = expected(q.sample(key(1), 4000))
    assert (abs(pull) < 4 * spread / np.sqrt(4000) + 0.02).all()
    np.testing.assert_allclose(curvature, np.eye(15), atol=0.06)


def test_time_and_memory_are_linear():
    def costs(n):
        density = lambda x: -jnp.cosh(x).sum() - ((x[1:] - x[:-1]) ** 2).sum()
        pattern = sparse.eye_array(n) + sparse.eye_array(n, k=1)
        model = vb.BlackBox(density, vb.real(n), family=bb.structured(pattern))
        params = jax.eval_shape(model.init, key())
        program = jax.jit(model.slope).lower(params).compile()
        return program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["flops"]

    few, many = costs(1000), costs(4000)
    assert many[0] < 4.2 * few[0]
    assert many[0] < 100 * 2**20  # d^2 float32 are 64 MB, for each of 128 draws


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bb.structured(np.ones((2, 3))), r"sparsity must be a square matrix, .*\(2, 3\)"),
        (lambda: bb.structured("chain"), "sparsity must be numbers"),
        (lambda: fit_of(bb.structured(np.eye(3))), "sparsity must be of 2 numbers; got that of 3"),
        (lambda: jax.jit(lambda y: fit_of("structured", y).objective)(jnp.ones(2)), "inside jit"),
        (lambda: fit_of("structured", density=lambda x: jnp.sqrt(-1 - x**2).sum()), "no finite Hessian"),
        (lambda: vb.NonConjugate(vb.real(), "structured"), "family must be one of"),
        (lambda: bb.pathfinder(model_of(bb.structured(np.eye(2))), key=key()), "pathfinder is for"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def model_of(family, density=None):
    return vb.BlackBox(density or (lambda x, *y: -(x**2).sum()), vb.real(2), family)


def fit_of(family, y=None, density=None):
    return vb.fit(model_of(family, density), y, key=key())
