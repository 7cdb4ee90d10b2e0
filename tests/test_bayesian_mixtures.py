"""The Gaussian mixture by variational Bayes, all covariance types, against a second implementation in numpy.

Trajectories are those of the textbook's updates. The bound is the joint density of the labels where no
others are possible, below the evidence by enumeration of all labellings, and equals its own Monte Carlo
estimate; its terms add up to it (one component: test_mixtures.py). scikit-learn's optimum (full covariance)
is a fixed point. A component without rows is exactly its prior. Under the default priors a scaling by c
costs n d log c nats and a shift nothing; they are proper also where the data are flat in some direction. The
predictive density integrates to one, has the moments of its draws, and is the mean over the posterior. As
all weights grow the posterior closes in on EM's parameters.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from registry import COVARIANCE_TYPES, MODELS, N_COMPONENTS, N_FEATURES, N_ROWS, covariance, seeds, sweeps
from scipy import special, stats
from sklearn import mixture
from tolerances import close

import vbjax as vb
from vbjax.families import DirichletState

K, D = N_COMPONENTS, N_FEATURES
STANDARD_ERRORS = 4
LOG_2PI = np.log(2 * np.pi)

every_kind = pytest.mark.parametrize("kind", COVARIANCE_TYPES)


# ---------------------------------------------------------------- Bishop (2006), section 10.2, in numpy


@dataclasses.dataclass
class Posterior:
    """alpha, beta (k,), location (k, d), and the Wishart or Gammas (nu, W^-1) / 2 of a covariance type."""

    kind: str
    alpha: np.ndarray
    beta: np.ndarray
    location: np.ndarray
    nu: np.ndarray
    inverse_scale: np.ndarray

    @classmethod
    def of(cls, kind, params):
        """From states of vbjax, in float64."""
        c = jax.tree.map(lambda x: np.asarray(x, float), params.components)
        alpha = np.asarray(params.weights.concentration, float)
        if kind == "diag":
            return cls(kind, alpha, c.mean_precision[:, 0], c.location, 2 * c.concentration, 2 * c.rate)
        if kind == "spherical":
            beta = np.diagonal(c.mean_precision, axis1=1, axis2=2)[:, 0]
            return cls(kind, alpha, beta, c.location, 2 * c.concentration, 2 * c.rate)
        beta = np.diag(c.mean_precision) if kind == "tied" else c.mean_precision
        return cls(kind, alpha, beta, c.location, c.degrees_of_freedom, c.inverse_scale)

    @classmethod
    def prior(cls, model, k=K):
        """Of a resolved model."""
        d, one = len(model.location), np.ones(k)
        nu, inverse_scale = float(model.degrees_of_freedom), np.asarray(model.inverse_scale, float)
        if model.covariance_type != "tied":
            shape = (k, d) if model.covariance_type == "diag" else (k,)
            nu, inverse_scale = np.full(shape, nu), np.stack([inverse_scale] * k)
        alpha, beta = float(model.weight_concentration) * one, float(model.mean_precision) * one
        location = np.tile(np.asarray(model.location, float), (k, 1))
        return cls(model.covariance_type, alpha, beta, location, np.asarray(nu), inverse_scale)

    def state(self):
        """Back to the states of vbjax."""
        k, d = self.location.shape
        structure = vb.BayesianGaussianMixture(k, self.kind, scale=jnp.ones(d)).structure
        parts = map(jnp.asarray, (self.location, self.beta, self.nu, self.inverse_scale))
        if self.kind == "diag":
            location, beta, nu, inverse_scale = parts
            parts = location, beta[:, None], nu, inverse_scale
        if self.kind == "spherical":
            location, beta, nu, inverse_scale = parts
            parts = location, beta[:, None, None], nu, inverse_scale
        return vb.Record(weights=DirichletState(jnp.asarray(self.alpha)), components=structure.state(*parts))

    def update(self, x, r):
        """The posterior of this prior, given responsibilities: eq. 10.58 to 10.63."""
        n = r.sum(0)
        mean = (r.T @ x) / np.maximum(n, 1e-300)[:, None]
        shift = x[:, None] - mean
        scatter = np.einsum("nk,nki,nkj->kij", r, shift, shift)
        off = mean - self.location
        scatter += (self.beta * n / (self.beta + n))[:, None, None] * np.einsum("ki,kj->kij", off, off)
        location = (self.beta[:, None] * self.location + n[:, None] * mean) / (self.beta + n)[:, None]
        more, wider = {
            "full": lambda: (n, scatter),
            "tied": lambda: (n.sum(), scatter.sum(0)),
            "diag": lambda: (n[:, None], np.diagonal(scatter, axis1=1, axis2=2)),
            "spherical": lambda: (x.shape[1] * n, np.trace(scatter, axis1=1, axis2=2)),
        }[self.kind]()
        return dataclasses.replace(
            self,
            alpha=self.alpha + n,
            beta=self.beta + n,
            location=location,
            nu=self.nu + more,
            inverse_scale=self.inverse_scale + wider,
        )

    @property
    def expected_precision(self):
        """E[Lam], (k, d, d)."""
        k, d = self.location.shape
        if self.kind in ("full", "tied"):
            precision = self.nu[..., None, None] * np.linalg.inv(self.inverse_scale)
            return np.broadcast_to(precision, (k, d, d))
        ratio = self.nu / self.inverse_scale
        return ratio.reshape(k, -1, 1) * np.eye(d)

    @property
    def expected_logdet(self):
        """E[log det Lam], (k,): eq. B.81 and B.30."""
        d = self.location.shape[1]
        if self.kind in ("full", "tied"):
            psi = special.digamma((self.nu[..., None] - np.arange(d)) / 2).sum(-1)
            return psi + d * np.log(2) - np.linalg.slogdet(self.inverse_scale)[1] + np.zeros(len(self.alpha))
        log = special.digamma(self.nu / 2) - np.log(self.inverse_scale / 2)
        return log.sum(1) if self.kind == "diag" else d * log

    def responsibilities(self, x):
        """Eq. 10.46 and 10.49."""
        d, shift = x.shape[1], x[:, None] - self.location
        square = d / self.beta + np.einsum("nki,kij,nkj->nk", shift, self.expected_precision, shift)
        log_weights = special.digamma(self.alpha) - special.digamma(self.alpha.sum())
        return special.softmax(log_weights + 0.5 * (self.expected_logdet - d * LOG_2PI - square), 1)

    def log_normalizer(self):
        """What the evidence of labelled rows is a ratio of."""
        d = self.location.shape[1]
        dirichlet = special.gammaln(self.alpha).sum() - special.gammaln(self.alpha.sum())
        normals = -0.5 * d * np.log(self.beta).sum()
        if self.kind in ("full", "tied"):
            logdet = np.linalg.slogdet(self.inverse_scale)[1]
            gammas = [special.multigammaln(nu / 2, d) for nu in np.ravel(self.nu)]
            return dirichlet + normals + np.sum(gammas) - (self.nu / 2 * logdet).sum()
        return (
            dirichlet
            + normals
            + (special.gammaln(self.nu / 2) - self.nu / 2 * np.log(self.inverse_scale)).sum()
        )

    def draw(self, rng, n):
        """n draws of weights (n, k), locations (n, k, d) and precision matrices (n, k, d, d)."""
        k, d = self.location.shape
        if self.kind in ("full", "tied"):
            precision = []
            for nu, inverse_scale in zip(
                np.ravel(self.nu), self.inverse_scale.reshape(-1, d, d), strict=True
            ):
                # Bartlett's decomposition
                a = np.tril(rng.normal(size=(n, d, d)), -1)
                a[:, range(d), range(d)] = np.sqrt(rng.chisquare(nu - np.arange(d), size=(n, d)))
                root = np.linalg.cholesky(np.linalg.inv(inverse_scale)) @ a
                precision.append(root @ root.transpose(0, 2, 1))
            precision = np.broadcast_to(np.stack(precision, 1), (n, k, d, d))
        else:
            tau = rng.gamma(self.nu / 2, 2 / self.inverse_scale, size=(n, *self.nu.shape))
            precision = tau.reshape(n, k, -1, 1) * np.eye(d)
        root = np.linalg.cholesky(np.linalg.inv(precision))
        noise = np.einsum("skij,skj->ski", root, rng.normal(size=(n, k, d))) / np.sqrt(self.beta)[:, None]
        return rng.dirichlet(self.alpha, n), self.location + noise, precision

    def log_density(self, weights, location, precision):
        """log of the density of draws; each precision once, in the coordinates that its type has."""
        d, logdet = location.shape[-1], np.linalg.slogdet(precision)[1]
        total = special.xlogy(self.alpha - 1, weights).sum(1)
        total += special.gammaln(self.alpha.sum()) - special.gammaln(self.alpha).sum()
        shift = location - self.location
        square = np.einsum("ski,skij,skj->sk", shift, precision, shift)
        total += 0.5 * (d * np.log(self.beta) + logdet - d * LOG_2PI - self.beta * square).sum(1)
        if self.kind in ("full", "tied"):
            if self.kind == "tied":
                precision, logdet = precision[:, :1], logdet[:, :1]
            nu, inverse_scale = np.atleast_1d(self.nu), self.inverse_scale.reshape(-1, d, d)
            trace = np.einsum("kij,skji->sk", inverse_scale, precision)
            constant = nu / 2 * (np.linalg.slogdet(inverse_scale)[1] - d * np.log(2))
            constant -= [special.multigammaln(value / 2, d) for value in nu]
            return total + (constant + (nu - d - 1) / 2 * logdet - trace / 2).sum(1)
        tau = np.diagonal(precision, axis1=2, axis2=3) if self.kind == "diag" else precision[..., 0, 0]
        a, b = self.nu / 2, self.inverse_scale / 2
        gammas = a * np.log(b) - special.gammaln(a) + (a - 1) * np.log(tau) - b * tau
        return total + gammas.reshape(len(tau), -1).sum(1)


def evidence_of_labels(prior, x, labels):
    """log p(x, labels), exact."""
    posterior = prior.update(x, np.eye(len(prior.alpha))[list(labels)])
    return posterior.log_normalizer() - prior.log_normalizer() - x.size / 2 * np.log(np.pi)


def fitted(kind, n_sweeps=8, **hyper):
    """A model, the registry's rows, and a posterior some sweeps from the start."""
    data, weights = MODELS[f"VB {kind}"].data("float64")
    entry = dataclasses.replace(MODELS[f"VB {kind}"], model=vb.BayesianGaussianMixture(K, kind, **hyper))
    model, params = entry.started(data, weights)
    return model, data, weights, sweeps(model, params, data, weights)[0]


def objective_of(model, params, data, weights):
    return sweeps(model, params, data, weights)[1][0, 0]


# ---------------------------------------------------------------- updates


@every_kind
def test_trajectories_are_the_textbooks(kind, float64):
    data, _ = MODELS[f"VB {kind}"].data(float64)
    weights = np.resize([1.0, 0.5, 2.0], N_ROWS)
    model, params = MODELS[f"VB {kind}"].started(data, jnp.asarray(weights))
    final = sweeps(model, params, data, jnp.asarray(weights))[0]
    prior, q, x = Posterior.prior(model), Posterior.of(kind, params), np.asarray(data)
    for _ in range(8):
        q = prior.update(x, weights[:, None] * q.responsibilities(x))
    # eight sweeps multiply a rounding by the rate at which they still move
    close(final, q.state(), factor=1000)
    read = jax.jit(lambda m, p, x: (m.responsibilities(p, x), m.weights(p), m.means(p), m.covariances(p)))
    expected = q.responsibilities(x), q.alpha / q.alpha.sum(), q.location, np.linalg.inv(q.expected_precision)
    close(read(model, final, data), expected, factor=1000)


def test_scikit_learns_optimum_is_a_fixed_point(float64):
    """Full covariance only: the bounds and updates of its other types are not exact."""
    data, weights = MODELS["VB full"].data(float64)
    model, _ = MODELS["VB full"].started(data, weights)
    found = mixture.BayesianGaussianMixture(
        n_components=K,
        covariance_type="full",
        weight_concentration_prior_type="dirichlet_distribution",
        weight_concentration_prior=float(model.weight_concentration),
        mean_prior=np.asarray(model.location),
        mean_precision_prior=float(model.mean_precision),
        degrees_of_freedom_prior=float(model.degrees_of_freedom),
        covariance_prior=np.asarray(model.inverse_scale),
        reg_covar=0,
        tol=1e-14,
        max_iter=5000,
        random_state=0,
    ).fit(np.asarray(data))
    q = Posterior(
        "full",
        found.weight_concentration_,
        found.mean_precision_,
        found.means_,
        found.degrees_of_freedom_,
        found.degrees_of_freedom_[:, None, None] * found.covariances_,
    )
    params, objective, _ = sweeps(model, q.state(), data, weights)
    for mine, its in zip(jax.tree.leaves(params), jax.tree.leaves(q.state()), strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-6, atol=1e-6)  # as far as it has converged
    assert objective[-1, -1] - objective[0, 0] < 1e-9


@every_kind
def test_a_component_without_rows_is_exactly_its_prior(kind, float64):
    data, weights = MODELS[f"VB {kind}"].data(float64)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"], model=vb.BayesianGaussianMixture(K, kind, weight_concentration=1e-3)
    )
    model, params = entry.started(data, weights)
    q = Posterior.of(kind, params)
    q.location = q.location + np.array([[0], [0], [1e3]])
    params = sweeps(model, q.state(), data, weights)[0]
    q, prior = Posterior.of(kind, params), Posterior.prior(model)
    for field in ("alpha", "beta", "location") + (("nu", "inverse_scale") if kind != "tied" else ()):
        np.testing.assert_allclose(getattr(q, field)[2], getattr(prior, field)[2], rtol=1e-13)
    assert q.alpha[:2].sum() > N_ROWS


# ---------------------------------------------------------------- the bound


def informative(kind, **hyper):
    """A prior that owes nothing to the data."""
    inverse_scale = {
        "full": [[2.0, 0.3], [0.3, 1.0]],
        "tied": [[2.0, 0.3], [0.3, 1.0]],
        "diag": [2.0, 1.0],
        "spherical": 1.5,
    }
    given = dict(
        weight_concentration=0.7,
        location=jnp.asarray([0.5, -0.5]),
        mean_precision=0.02,
        degrees_of_freedom=3.5,
        inverse_scale=jnp.asarray(inverse_scale[kind]),
    )
    return given | hyper


def first_rows(values):
    """The shape of the registry's data, of which the first rows count."""
    data = np.zeros((N_ROWS, D))
    data[: len(values)] = values
    return jnp.asarray(data), jnp.asarray(np.arange(N_ROWS) < len(values), float)


@every_kind
def test_the_bound_of_certain_labels_is_their_joint_density(kind, float64):
    values = np.array([[-900.0, 40.0], [0.0, 0.3], [800.0, -50.0], [1.0, -0.4], [799.0, -52.0], [0.2, 2.0]])
    data, weights = first_rows(values)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"], model=vb.BayesianGaussianMixture(K, kind, **informative(kind))
    )
    model, params = entry.started(data, weights)
    exact = evidence_of_labels(Posterior.prior(model), values, [0, 1, 2, 1, 2, 1])
    close(sweeps(model, params, data, weights)[1][-1, -1], exact, factor=10)


@every_kind
def test_the_bound_is_below_the_evidence_of_all_labellings(kind, float64):
    values = np.array([[-1.0, 0.0], [1.0, 1.5], [2.0, 0.5], [0.0, 2.0]])
    data, weights = first_rows(values)
    entry = dataclasses.replace(
        MODELS[f"VB {kind}"],
        model=vb.BayesianGaussianMixture(K, kind, **informative(kind, mean_precision=1.0)),
    )
    model, params = entry.started(data, weights)
    prior = Posterior.prior(model)
    joint = [evidence_of_labels(prior, values, labels) for labels in itertools.product(range(K), repeat=4)]
    objective = sweeps(model, params, data, weights)[1]
    assert (objective < special.logsumexp(joint)).all()
    assert (
        objective[-1, -1] > special.logsumexp(joint) - 3
    )  # the price of k! labellings and of the factorisation


@every_kind
def test_the_bound_is_its_monte_carlo_estimate(kind, float64):
    model, data, weights, params = fitted(kind)
    q, prior, x = Posterior.of(kind, params), Posterior.prior(model), np.asarray(data)
    pi, mu, lam = q.draw(np.random.default_rng(0), 4000)
    r, shift = q.responsibilities(x), x[:, None] - mu[:, None]
    square = np.einsum("snki,skij,snkj->snk", shift, lam, shift, optimize=True)
    rows = np.log(pi)[:, None] + 0.5 * (np.linalg.slogdet(lam)[1][:, None] - D * LOG_2PI - square)
    value = (r * rows).sum((1, 2)) - special.xlogy(r, r).sum()
    value += prior.log_density(pi, mu, lam) - q.log_density(pi, mu, lam)
    error = value.std() / np.sqrt(len(value))
    assert abs(value.mean() - objective_of(model, params, data, weights)) < STANDARD_ERRORS * error
    assert error < 0.1


@every_kind
@pytest.mark.parametrize("method", ["EM", "VB"])
def test_shifts_cost_nothing_and_a_scaling_its_jacobian(method, kind, float64):
    entry = MODELS[f"{method} {kind}"]
    data, weights = entry.data(float64)
    scale = jnp.asarray([3.7, 0.2] if kind in ("full", "tied", "diag") else [3.7, 3.7])
    moved = data * scale + jnp.asarray([100.0, -30.0])
    plain = sweeps(*entry.started(data, weights), data, weights)[1]
    there = sweeps(*entry.started(moved, weights), moved, weights)[1]
    close(there, plain - N_ROWS * jnp.log(scale).sum(), factor=1000)


def test_the_terms_of_the_bound_add_up(float64):
    model, data, weights, params = fitted("diag")
    terms = model.elbo_terms(params, data)
    q = Posterior.of("diag", params)
    r = q.responsibilities(np.asarray(data))
    close(sum(terms.values()), objective_of(model, params, data, weights), factor=10)
    close(terms["entropy of c"], -special.xlogy(r, r).sum(), factor=10, scale=1)
    close(terms["entropy of weights"], stats.dirichlet.entropy(q.alpha), factor=10)
    tau = stats.gamma.entropy(q.nu / 2, scale=2 / q.inverse_scale)
    log_tau = special.digamma(q.nu / 2) - np.log(q.inverse_scale / 2)
    locations = 0.5 * (1 + LOG_2PI - np.log(q.beta)[:, None] - log_tau)
    close(terms["entropy of components"], (tau + locations).sum(), factor=10)


FLAT = {
    "collinear columns": lambda x: x[:, :1] * [1.0, -2.0],
    "a constant column": lambda x: x * [1.0, 0.0] + 12.3,
    "two kinds of rows": lambda x: np.resize([[9999.0, 1.0], [0.0, 2.0]], x.shape),
    "equal rows": lambda x: np.resize([3.3, -0.1], x.shape),
}


@every_kind
@pytest.mark.parametrize("what", FLAT)
def test_default_priors_are_proper_where_the_data_are_flat(what, kind, dtype):
    data, weights = MODELS[f"VB {kind}"].data(dtype)
    flat = jnp.asarray(FLAT[what](np.asarray(data)), dtype)
    few = jnp.asarray(np.arange(N_ROWS) < 2, dtype)  # two rows span one direction
    for rows, w in ((flat, weights), (data, few), (data, few.at[1].set(0))):
        model, params = MODELS[f"VB {kind}"].started(rows, w)
        inverse_scale = np.asarray(model.inverse_scale, float)
        if kind in ("full", "tied"):
            inverse_scale = np.linalg.eigvalsh(inverse_scale / np.sqrt(np.outer(model.scale, model.scale)))
        assert (inverse_scale > 0).all()
        params, objective, _ = sweeps(model, params, rows, w)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, objective)))
        # half the digits are gone where a direction has next to no variance
        assert (np.diff(objective[:, 0]) >= -10 * N_ROWS * np.finfo(dtype).eps ** 0.5).all()


def test_the_default_prior_is_the_samples_covariance(float64):
    data, weights = MODELS["VB full"].data(float64)
    for kind, expected in (
        ("full", np.cov(data.T)),
        ("tied", np.cov(data.T)),
        ("diag", np.var(data, axis=0, ddof=1)),
        ("spherical", np.var(data, axis=0, ddof=1).sum()),
    ):
        model, _ = MODELS[f"VB {kind}"].started(data, weights)
        close(model.inverse_scale, expected)
        close(model.location, np.mean(data, axis=0))
        assert (model.weight_concentration, model.mean_precision) == (1 / 3, 1)
        assert model.degrees_of_freedom == (1 if kind == "diag" else D)


# ---------------------------------------------------------------- the predictive density


@jax.jit
def predictive(model, params, x):
    return model.log_predictive(params, x)


def grid(mean, sd, n=301, width=8.0):
    """Points and their weights for sums over the plane, denser in the middle: x = mean + sd sinh(t)."""
    t = np.linspace(-width, width, n)
    axes = [(m + s * np.sinh(t), s * np.cosh(t) * (t[1] - t[0])) for m, s in zip(mean, sd, strict=True)]
    points = np.stack(np.meshgrid(axes[0][0], axes[1][0], indexing="ij"), -1).reshape(-1, 2)
    return points, np.outer(axes[0][1], axes[1][1]).ravel()


@every_kind
def test_the_predictive_density(kind, float64):
    model, data, _, params = fitted(kind)
    uneven = params.weights.concentration * jnp.asarray([0.2, 1.0, 2.0])
    params = params | dict(weights=DirichletState(uneven))
    x = np.asarray(data)
    points, area = grid(x.mean(0), x.std(0))
    mass = np.exp(np.asarray(predictive(model, params, jnp.asarray(points)))) * area
    np.testing.assert_allclose(mass.sum(), 1, rtol=1e-7)

    # the mean over the posterior, at the first points of the grid that have some mass
    q = Posterior.of(kind, params)
    some = points[np.argsort(-mass)[:2000:400]]
    pi, mu, lam = q.draw(np.random.default_rng(1), 4000)
    shift = some[:, None, None] - mu
    square = np.einsum("nski,skij,nskj->nsk", shift, lam, shift, optimize=True)
    draws = (pi * np.exp(0.5 * (np.linalg.slogdet(lam)[1] - D * LOG_2PI - square))).sum(2)
    error = draws.std(1) / np.sqrt(draws.shape[1])
    density = np.exp(np.asarray(predictive(model, params, jnp.asarray(points))))[np.argsort(-mass)[:2000:400]]
    assert (abs(draws.mean(1) - density) < STANDARD_ERRORS * error).all()

    if kind in ("full", "diag"):  # a matrix and numbers; the others go the same two ways
        mean = mass @ points
        second = np.einsum("n,ni,nj->ij", mass, points - mean, points - mean)
        drawn = jax.jit(lambda m, p, k: m.sample(p, k, 20_000))(model, params, jax.random.key(0))
        shift = np.asarray(drawn) - mean
        for value, exact in ((shift, 0), (np.einsum("ni,nj->nij", shift, shift), second)):
            error = value.std(0) / np.sqrt(len(value))
            assert (abs(value.mean(0) - exact) < STANDARD_ERRORS * error).all()


@every_kind
def test_draws_of_the_parameters_are_one_for_each_component(kind):
    data, weights = MODELS[f"VB {kind}"].data("float32")
    model, params = MODELS[f"VB {kind}"].started(data, weights)
    draws = jax.eval_shape(lambda p, key: model.sample_posterior(p, key, 7), params, jax.random.key(0))
    shape = {"full": (7, K, D, D), "tied": (7, D, D), "diag": (7, K, D), "spherical": (7, K)}[kind]
    assert draws.weights.shape == (7, K)
    assert (draws.components.location.shape, draws.components.precision.shape) == ((7, K, D), shape)


# ---------------------------------------------------------------- limits


def matrices(kind, precision):
    """Precisions of a covariance type as matrices, (k, d, d)."""
    precision = np.asarray(precision)
    if kind in ("full", "tied"):
        return np.broadcast_to(precision, (K, D, D))
    return precision.reshape(K, -1, 1) * np.eye(D)


@every_kind
def test_as_all_weights_grow_the_posterior_closes_in_on_em(kind, float64):
    data, ones = MODELS[f"EM {kind}"].data(float64)
    model, start = MODELS[f"EM {kind}"].started(data, ones)
    wide = covariance(kind, model.scale)
    found = sweeps(model, start, data, ones)[0]
    point = (
        found.weights.mean,
        found.components.mean.location,
        matrices(kind, found.components.mean.precision),
    )
    errors = []
    for weight in (1e2, 1e4, 1e6):
        bayes = MODELS[f"VB {kind}"].model.resolve(data, weight * ones)
        count = weight * N_ROWS / K
        nu = {"tied": K * count, "spherical": D * count}.get(kind, count)
        inverse_scale = 0.3 * nu * wide
        params = vb.Record(
            weights=DirichletState(jnp.full(K, count, data.dtype)),
            components=bayes.structure.state(seeds(data, 0), count, nu, inverse_scale),
        )
        q = Posterior.of(kind, sweeps(bayes, params, data, weight * ones)[0])
        close_to = q.alpha / q.alpha.sum(), q.location, q.expected_precision
        errors.append([np.abs(a - b).max() for a, b in zip(close_to, point, strict=True)])
    ratios = np.array(errors[1:]) / np.array(errors[:-1])
    np.testing.assert_allclose(ratios, 1e-2, rtol=0.2)  # the error is of the order of one over the weight
