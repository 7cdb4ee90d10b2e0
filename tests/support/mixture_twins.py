"""Conjugate components a second time, in numpy and scipy: by what each row adds to natural parameters."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from scipy import special


def betas(q):
    return np.stack([q.concentration1, q.concentration0], -1)


def log_dirichlet(a):
    """E[log p] under a Dirichlet."""
    return special.digamma(a) - special.digamma(a.sum(-1, keepdims=True))


def dirichlet_normalizer(a):
    return (special.gammaln(a).sum(-1) - special.gammaln(a.sum(-1))).reshape(len(a), -1).sum(-1)


@dataclasses.dataclass(frozen=True)
class Twin:
    """A component type by its sums over rows.

    `moments(model, rows)`: what each row adds to the natural parameter, a tuple of arrays (n, ...);
    `natural(q)`: the natural parameter of states, the same with k for n;
    `normalizer(eta)`: (k,); `table(model, eta, rows)`: expected log densities (n, k);
    `base(model, rows)`: what the parameters do not touch, (n,).
    """

    moments: Callable
    natural: Callable
    normalizer: Callable
    table: Callable
    base: Callable = lambda model, x: np.zeros(len(x))

    def posterior(self, model, rows, r):
        """The natural parameters of components under responsibilities (n, k)."""
        prior = self.natural(as_numpy(model.prior))
        sums = [np.tensordot(r.T, m, 1) for m in self.moments(model, rows)]
        return tuple(p + s for p, s in zip(prior, sums, strict=True))

    def evidence(self, model, rows, r):
        """log p(rows | labels) of components, (k,), for certain labels r; log h of the rows included."""
        prior = self.normalizer(self.natural(as_numpy(model.prior)))
        return self.normalizer(self.posterior(model, rows, r)) - prior + r.T @ self.base(model, rows)


def as_numpy(tree):
    return jax.tree.map(lambda x: np.asarray(x, float), tree)


def indicators(model, x):
    return np.eye(model.n_categories)[x]


def regression_moments(model, rows):
    x, y = rows
    return x[:, :, None] * x[:, None, :], x * y[:, None], y**2, np.full(len(y), 0.5)


def regression_normalizer(eta):
    b0, bw, square, a = eta
    half = np.einsum("ki,ki->k", bw, np.linalg.solve(b0, bw[..., None])[..., 0])
    rate = 0.5 * (square - half)
    location = -0.5 * np.linalg.slogdet(b0)[1] + 0.5 * bw.shape[1] * np.log(2 * np.pi)
    return location + special.gammaln(a) - a * np.log(rate)


def regression_table(model, eta, rows):
    (x, y), (b0, bw, square, a) = rows, eta
    location = np.linalg.solve(b0, bw[..., None])[..., 0]
    rate = 0.5 * (square - np.einsum("ki,ki->k", bw, location))
    spread = np.einsum("ni,kij,nj->nk", x, np.linalg.inv(b0), x)
    shift = (y[:, None] - x @ location.T) ** 2 * a / rate
    return 0.5 * (special.digamma(a) - np.log(rate) - np.log(2 * np.pi) - shift - spread)


def regression_natural(q):
    bw = np.einsum("kij,kj->ki", q.mean_precision, q.location)
    square = 2 * q.rate + np.einsum("ki,ki->k", bw, q.location)
    return q.mean_precision, bw, square, q.concentration


def planes_moments(model, rows):
    """uu', uv', vv' and one, with u = [x - center; 1] and v = y - offset."""
    u = np.column_stack([rows[0] - np.asarray(model.center), np.ones(len(rows[0]))])
    v = rows[1] - np.asarray(model.offset)
    outer = lambda a, b: a[:, :, None] * b[:, None, :]
    return outer(u, u), outer(u, v), outer(v, v), np.ones(len(u))


def planes_posterior(eta):
    """Location, row precision, degrees of freedom and inverse scale."""
    r, pull, square, nu = eta
    location = np.linalg.solve(r, pull)
    return location, r, nu, square - np.swapaxes(pull, 1, 2) @ location


def planes_natural(q):
    pull = q.mean_precision @ q.location
    square = q.inverse_scale + np.swapaxes(q.location, 1, 2) @ pull
    return q.mean_precision, pull, square, q.degrees_of_freedom


def planes_normalizer(eta):
    _, r, nu, inverse_scale = planes_posterior(eta)
    (q, m), wishart = eta[1].shape[1:], 0.5 * nu * np.linalg.slogdet(inverse_scale)[1]
    gammas = np.array([special.multigammaln(x / 2, m) for x in nu])
    location = 0.5 * m * (q * np.log(2 * np.pi) - np.linalg.slogdet(r)[1])
    return location + gammas + 0.5 * nu * m * np.log(2) - wishart


def planes_table(model, eta, rows):
    location, r, nu, inverse_scale = planes_posterior(eta)
    uu, uv, vv, _ = planes_moments(model, rows)
    m, precision = vv.shape[-1], nu[:, None, None] * np.linalg.inv(inverse_scale)
    logdet = special.digamma((nu[:, None] - np.arange(m)) / 2).sum(-1) + m * np.log(2)
    logdet -= np.linalg.slogdet(inverse_scale)[1]
    second = location @ precision @ np.swapaxes(location, 1, 2) + m * np.linalg.inv(r)
    square = np.einsum("nij,kij->nk", vv, precision) - 2 * np.einsum(
        "nqi,kqj,kij->nk", uv, location, precision
    )
    return 0.5 * (logdet - m * np.log(2 * np.pi) - square - np.einsum("nqr,kqr->nk", uu, second))


def gamma_normalizer(eta):
    return (special.gammaln(eta[0]) - eta[0] * np.log(eta[1])).sum(-1)


def gamma_table(shape, x, eta):
    log = special.digamma(eta[0]) - np.log(eta[1])
    return shape @ log.T - x @ (eta[0] / eta[1]).T


TWINS = {
    "binary": Twin(
        lambda m, x: (np.stack([x, 1 - x], -1),),
        lambda q: (betas(q),),
        lambda eta: dirichlet_normalizer(eta[0]),
        lambda m, eta, x: np.einsum("ndv,kdv->nk", np.stack([x, 1 - x], -1), log_dirichlet(eta[0])),
    ),
    "categories": Twin(
        lambda m, x: (indicators(m, x),),
        lambda q: (q.concentration,),
        lambda eta: dirichlet_normalizer(eta[0]),
        lambda m, eta, x: np.einsum("ndv,kdv->nk", indicators(m, x), log_dirichlet(eta[0])),
    ),
    "counts": Twin(
        lambda m, x: (x, np.ones_like(x)),
        lambda q: (q.concentration, q.rate),
        gamma_normalizer,
        lambda m, eta, x: gamma_table(x, np.ones_like(x), eta),
        lambda m, x: -special.gammaln(x + 1).sum(-1),
    ),
    "profiles": Twin(
        lambda m, x: (x,),
        lambda q: (q.concentration,),
        lambda eta: dirichlet_normalizer(eta[0]),
        lambda m, eta, x: x @ log_dirichlet(eta[0]).T,
        lambda m, x: special.gammaln(x.sum(-1) + 1) - special.gammaln(x + 1).sum(-1),
    ),
    "positive": Twin(
        lambda m, x: (np.broadcast_to(m.known_shape, x.shape), x),
        lambda q: (q.concentration, q.rate),
        gamma_normalizer,
        lambda m, eta, x: gamma_table(np.broadcast_to(m.known_shape, x.shape), x, eta),
        lambda m, x: ((m.known_shape - 1) * np.log(x) - special.gammaln(m.known_shape)).sum(-1),
    ),
    "lines": Twin(
        lambda m, r: (
            np.einsum("ni,nj->nij", r[0], r[0]),
            r[0] * r[1][:, None],
            r[1] ** 2,
            np.full(len(r[1]), 0.5),
        ),
        regression_natural,
        regression_normalizer,
        regression_table,
        lambda m, r: np.full(len(r[1]), -0.5 * np.log(2 * np.pi)),
    ),
    "planes": Twin(
        planes_moments,
        planes_natural,
        planes_normalizer,
        planes_table,
        lambda m, r: np.full(len(r[1]), -np.log(2 * np.pi)),
    ),
}
