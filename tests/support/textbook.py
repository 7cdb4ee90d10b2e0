"""Variational Bayes of the Gaussian mixture, all covariance types, in numpy: Bishop (2006), section 10.2."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

import vbjax as vb
from tests.support.registry import N_COMPONENTS
from vbjax.families import DirichletState

LOG_2PI = np.log(2 * np.pi)


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
    def prior(cls, model, k=N_COMPONENTS):
        """Of a resolved model."""
        d, one = len(model.component.location), np.ones(k)
        nu, inverse_scale = (
            float(model.component.degrees_of_freedom),
            np.asarray(model.component.inverse_scale, float),
        )
        if model.component.covariance_type != "tied":
            shape = (k, d) if model.component.covariance_type == "diag" else (k,)
            nu, inverse_scale = np.full(shape, nu), np.stack([inverse_scale] * k)
        alpha, beta = float(model.weights.concentration) * one, float(model.component.mean_precision) * one
        location = np.tile(np.asarray(model.component.location, float), (k, 1))
        return cls(model.component.covariance_type, alpha, beta, location, np.asarray(nu), inverse_scale)

    def state(self):
        """Back to the states of vbjax."""
        k, d = self.location.shape
        structure = vb.BayesianGaussianMixture(k, self.kind, scale=jnp.ones(d)).component.structure
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


def expected_log(alpha):
    return special.digamma(alpha) - special.digamma(alpha.sum(-1, keepdims=True))


def log_beta(alpha):
    return special.gammaln(alpha).sum(-1) - special.gammaln(alpha.sum(-1))


def dirichlet_term(prior, alpha):
    """E[log p] + H[q] of a Dirichlet."""
    log = expected_log(alpha)
    return (log_beta(alpha) - log_beta(np.full_like(alpha, prior)) + ((prior - alpha) * log).sum(-1)).sum()
