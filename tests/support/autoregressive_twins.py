"""Autoregressive chains by hand: rows of lags, regressions read out, the divergence of their posterior."""

import jax
import numpy as np
from scipy import special


def with_lags(x, order=1):
    """Columns of the steps before each, one and the step itself, (t, d order + 1 + d); where all are seen."""
    t, d = x.shape
    both = np.full((t, d * order + 1 + d), np.nan)
    for i in range(order, t):
        both[i] = np.concatenate([*x[i - order : i][::-1], [1.0], x[i]])
    return both, ~np.isnan(both).any(1)


def regressions(component, components):
    """Weights for columns as they are, not about their centre, (k, q, d); noise covariances of points."""
    at = jax.tree.map(lambda x: np.asarray(x, float), components.mean)
    weights = at.location.copy()
    weights[:, -1] += np.asarray(component.offset) - np.asarray(component.center) @ at.location[:, :-1]
    return weights, np.linalg.inv(at.precision)


def wishart_means(q):
    """E[log det Lam] and E[Lam]."""
    d, nu = q.inverse_scale.shape[-1], q.degrees_of_freedom
    logdet = special.digamma((nu[:, None] - np.arange(d)) / 2).sum(-1) + d * np.log(2)
    return logdet - np.linalg.slogdet(q.inverse_scale)[1], nu[:, None, None] * np.linalg.inv(q.inverse_scale)


def matrix_normal_kl(q, p):
    """Matrix-normal-Wishart: of the locations given the precision, and of the precision."""
    (rows, d), (logdet, precision) = q.location.shape[1:], wishart_means(q)
    ratio, shift = np.linalg.solve(q.mean_precision, p.mean_precision), q.location - p.location
    location = d * (np.trace(ratio, axis1=1, axis2=2) - rows - np.linalg.slogdet(ratio)[1])
    location += np.einsum("kri,kij,ksj,krs->k", shift, precision, shift, p.mean_precision)

    def normalizer(s):
        nu = s.degrees_of_freedom
        log = 0.5 * nu * (d * np.log(2) - np.linalg.slogdet(s.inverse_scale)[1])
        return log + np.array([special.multigammaln(x / 2, d) for x in nu])

    inner = (q.degrees_of_freedom - p.degrees_of_freedom) * logdet
    inner -= np.einsum("kij,kij->k", q.inverse_scale - p.inverse_scale, precision)
    return (0.5 * (location + inner) - normalizer(q) + normalizer(p)).sum()
