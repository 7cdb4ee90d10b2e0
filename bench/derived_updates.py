"""Updates written by hand, for models that have no E-step of their own: what a derived sweep is measured by.

Each takes (model, params, data) and returns the parameters after one sweep and the objective of those that
came in, chunk by chunk as the derived one does. A pass that gives all that a sweep needs is made once. What
depends on the parameters alone (expected statistics, divergences from a prior) is the families'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln, logsumexp
from jax.scipy.special import xlogy as xlog

from vbjax.core.rows import sum_over_rows
from vbjax.families import (
    BetaState,
    DirichletState,
    GammaState,
    MultivariateNormalGammaState,
    MultivariateNormalState,
    NormalState,
)
from vbjax.numerics.record import Record

LOG_2PI = 1.8378770664093453


def over_rows(model: Any, data: Any, function: Callable[[Any, Array], Any]) -> Any:
    """What is constant in each row, which an update needs not know, is left aside."""
    data = getattr(data, "rows", data)
    return sum_over_rows(function, data, chunk=model.chunk_rows(data))


def normal_row(tau: GammaState, square: Array) -> Array:
    """E[log N] of a row whose expected squared distance is given."""
    return 0.5 * (tau.expected().log - LOG_2PI - tau.mean * square)


# -- no local latents ----------------------------------------------------------------------------------------


def mean_and_precision(model: Any, params: Any, x: Array) -> Any:
    """Bishop (2006), eq. 10.26 to 10.30, both from one pass: moments about the mean that comes in."""
    mu, tau, n = params.mu, params.tau, x.shape[0]
    first, second = over_rows(
        model, x, lambda x, w: ((w * (x - mu.mean)).sum(), (w * (x - mu.mean) ** 2).sum())
    )
    shrink = model.mean_precision * ((mu.mean - model.location) ** 2 + 1 / mu.precision)
    rows = n * normal_row(tau, 1 / mu.precision) - 0.5 * tau.mean * second
    location = 0.5 * (jnp.log(model.mean_precision) + tau.expected().log - LOG_2PI - tau.mean * shrink)
    objective = rows + location + mu.entropy() - tau.kl(GammaState(model.concentration, model.rate))
    step = (first + model.mean_precision * (model.location - mu.mean)) / (n + model.mean_precision)
    mean, precision = mu.mean + step, (n + model.mean_precision) * tau.mean
    square = second - 2 * step * first + n * step**2 + n / precision
    square = square + model.mean_precision * ((mean - model.location) ** 2 + 1 / precision)
    new = GammaState(model.concentration + 0.5 * (n + 1), model.rate + 0.5 * square)
    return Record(mu=NormalState(mean, precision), tau=new), objective


def linear_regression(model: Any, params: Any, data: Any) -> Any:
    """Bishop (2006), exercise 3.12: the Gram matrix and residuals about the mean that comes in."""
    w, prior, n = params.w, model.prior, data[0].shape[0]

    def products(rows: Any, weights: Array) -> Any:
        x = model.design(rows[0])
        r = rows[1] - model.offset - x @ w.location
        weighted = x * weights[:, None]
        return weighted.T @ x, weighted.T @ r, weights @ r**2

    gram, pull, square = over_rows(model, data, products)
    inverse, tau = jnp.linalg.inv(w.mean_precision), w.concentration / w.rate
    log = GammaState(w.concentration, w.rate).expected().log
    rows = 0.5 * (n * (log - LOG_2PI) - tau * square - (gram * inverse).sum())
    precision = prior.mean_precision + gram
    away = prior.location - w.location
    root = jnp.linalg.cholesky(precision)
    pull = pull + prior.mean_precision @ away
    half = jax.scipy.linalg.solve_triangular(root, pull, lower=True)
    step = jax.scipy.linalg.solve_triangular(root, half, lower=True, trans=1)
    rate = prior.rate + 0.5 * (square + away @ prior.mean_precision @ away - half @ half)
    new = MultivariateNormalGammaState(w.location + step, precision, prior.concentration + 0.5 * n, rate)
    return Record(w=new), rows - w.kl(prior)


def random_effects(model: Any, params: Any, data: Any) -> Any:
    """All blocks from one pass: moments of every group about the effect that comes in."""
    mu, theta, between, noise = params.mu, params.theta, params.between, params.noise
    n, k = data[0].shape[0], model.n_groups

    def sums(rows: Any, w: Array) -> Any:
        y, g = rows
        r = y - theta.mean[g]
        return tuple(jax.ops.segment_sum(x, g, k) for x in (w, w * r, w * r**2))

    count, first, second = over_rows(model, data, sums)
    spread = (theta.mean - mu.mean) ** 2 + theta.variance + mu.variance
    rows = n * normal_row(noise, jnp.zeros_like(noise.rate))
    rows = rows - 0.5 * noise.mean * (second + count * theta.variance).sum()
    objective = rows + normal_row(between, spread).sum() + theta.entropy().sum()
    objective = objective - mu.kl(NormalState(model.location, model.location_precision))
    objective = (
        objective
        - between.kl(GammaState(model.between_concentration, model.between_rate))
        - noise.kl(GammaState(model.concentration, model.rate))
    )

    precision = between.mean + count * noise.mean
    step = (noise.mean * first + between.mean * (mu.mean - theta.mean)) / precision
    theta = NormalState(theta.mean + step, precision)
    precision = model.location_precision + k * between.mean
    pull = model.location_precision * (model.location - mu.mean) + between.mean * (theta.mean - mu.mean).sum()
    mu = NormalState(mu.mean + pull / precision, precision)
    square = (second - 2 * step * first + count * (step**2 + theta.variance)).sum()
    noise = GammaState(model.concentration + 0.5 * n, model.rate + 0.5 * square)
    spread = ((theta.mean - mu.mean) ** 2 + theta.variance + mu.variance).sum()
    between = GammaState(model.between_concentration + 0.5 * k, model.between_rate + 0.5 * spread)
    return Record(mu=mu, theta=theta, between=between, noise=noise), objective


def mean_field_gaussian(model: Any, params: Any, data: None) -> Any:
    """Bishop (2006), eq. 10.13: one coordinate after the other."""
    own, z = jnp.diagonal(model.precision), params.z
    joint = MultivariateNormalState(z.mean, jnp.diag(z.precision))

    def update(i: Any, mean: Array) -> Array:
        return mean.at[i].add(-(model.precision[i] @ (mean - model.mean)) / own[i])

    mean = lax.fori_loop(0, own.size, update, z.mean)
    return Record(z=NormalState(mean, own)), -joint.kl(model.exact)


# -- a local latent for each row -----------------------------------------------------------------------------


def robust_normal(model: Any, params: Any, x: Array) -> Any:
    """Liu & Rubin (1995): a pass for the mean, another for the precision."""
    mu, tau, n, a = params.mu, params.tau, x.shape[0], 0.5 * (model.degrees_of_freedom + 1)
    half = 0.5 * model.degrees_of_freedom
    constant = gammaln(a) - gammaln(half) + xlog(half, half) + 0.5 * (tau.expected().log - LOG_2PI)

    def weighted(mu: NormalState) -> Any:
        def sums(x: Array, w: Array) -> Any:
            shift = x - mu.mean
            rate = 0.5 * (model.degrees_of_freedom + tau.mean * (shift**2 + 1 / mu.precision))
            u = w * a / rate
            bound = (w * (constant - a * jnp.log(rate))).sum()
            return u.sum(), (u * shift).sum(), (u * (shift**2 + 1 / mu.precision)).sum(), bound

        return over_rows(model, x, sums)

    count, first, _, bound = weighted(mu)
    objective = (
        bound
        - mu.kl(NormalState(model.location, model.location_precision))
        - tau.kl(GammaState(model.concentration, model.rate))
    )
    precision = model.location_precision + tau.mean * count
    pull = tau.mean * first + model.location_precision * (model.location - mu.mean)
    mu = NormalState(mu.mean + pull / precision, precision)
    tau = GammaState(model.concentration + 0.5 * n, model.rate + 0.5 * weighted(mu)[2])
    return Record(mu=mu, tau=tau), objective


def hierarchical_normal(model: Any, params: Any, data: Any) -> Any:
    """A pass for mu, another for tau; the effects are collapsed in each."""
    mu, tau, n = params.mu, params.tau, data[0].shape[0]

    def pooled(mu: NormalState) -> Any:
        def sums(rows: Any, w: Array) -> Any:
            y, sigma = rows
            own = 1 / jnp.where(w > 0, sigma, 1) ** 2
            precision, shift = own + tau.mean, y - mu.mean
            step = own * shift / precision  # of E[theta] from E[mu]
            square = own * (shift - step) ** 2 + tau.mean * (step**2 + 1 / mu.precision)
            bound = jnp.log(own) + tau.expected().log - LOG_2PI - square - jnp.log(precision)
            return (w * step).sum(), (w * (step**2 + 1 / precision)).sum(), 0.5 * (w * bound).sum()

        return over_rows(model, data, sums)

    first, _, bound = pooled(mu)
    objective = (
        bound
        - mu.kl(NormalState(model.location, model.location_precision))
        - tau.kl(GammaState(model.concentration, model.rate))
    )
    precision = model.location_precision + n * tau.mean
    pull = tau.mean * first + model.location_precision * (model.location - mu.mean)
    mu = NormalState(mu.mean + pull / precision, precision)
    square = pooled(mu)[1] + n / mu.precision
    tau = GammaState(model.concentration + 0.5 * n, model.rate + 0.5 * square)
    return Record(mu=mu, tau=tau), objective


def labelled(
    model: Any,
    data: Any,
    log_weights: Array,
    table: Callable[[Any], Array],
    sums: Callable[[Any, Array], Any],
) -> tuple[Array, Any, Array]:
    """Counts, further sums over responsibilities (k, block), and the rows' bound."""

    def chunk(rows: Any, w: Array) -> Any:
        log = log_weights[:, None] + table(rows)
        bound = logsumexp(log, 0)
        r = w * jnp.exp(log - bound)
        return r.sum(1), sums(rows, r), w @ bound

    return over_rows(model, data, chunk)


def unit_variance_mixture(model: Any, params: Any, x: Array) -> Any:
    """Blei et al. (2017), eq. 26, 34; about the data's own middle, the prior mean."""
    mu, k, centre = params.mu, model.n_components, model.location
    shift = mu.mean - centre
    flat = jnp.full(k, -jnp.log(k), x.dtype)
    half = (0.5 * (shift**2 + 1 / mu.precision))[:, None]
    count, (first, square), bound = labelled(
        model,
        x,
        flat,
        lambda x: shift[:, None] * (x - centre) - half,
        lambda x, r: (r @ (x - centre), ((r.sum(0) > 0) * (x - centre) ** 2).sum()),
    )
    prior = NormalState(model.location, model.location_precision)
    objective = bound - 0.5 * (square + x.shape[0] * LOG_2PI) - mu.kl(prior).sum()
    precision = model.location_precision + count
    return Record(mu=NormalState(centre + first / precision, precision)), objective


def conjugate_mixture(
    table: Callable[[Any, Any, Any], Array],
    sums: Callable[[Any, Any, Array], Any],
    update: Callable[[Any, Array, Any], Any],
) -> Callable[[Any, Any, Any], Any]:
    """A mixture with Dirichlet weights. What a row says of no component is the `constant` of the case."""

    def sweep(model: Any, params: Any, data: Any) -> Any:
        weights, components = params.weights, params.components
        count, more, bound = labelled(
            model,
            data,
            weights.expected().log,
            lambda rows: table(model, components, rows),
            lambda rows, r: sums(model, rows, r),
        )
        prior = DirichletState(jnp.full_like(weights.concentration, model.weights.concentration))
        objective = bound - weights.kl(prior) - components.kl(model.component.prior).sum()
        moved = DirichletState(model.weights.concentration + count)
        return Record(weights=moved, components=update(model, count, more)), objective

    return sweep


def products(model: Any, x: Array, r: Array) -> Array:
    return r @ x


def bernoulli_table(model: Any, c: BetaState, x: Array) -> Array:
    s = c.expected()
    return (s.log - s.log_complement) @ x.T + s.log_complement.sum(1)[:, None]


def bernoulli_update(model: Any, count: Array, ones: Array) -> BetaState:
    prior = model.component.prior
    return BetaState(prior.concentration1 + ones, prior.concentration0 + count[:, None] - ones)


def poisson_table(model: Any, c: GammaState, x: Array) -> Array:
    s = c.expected()
    return s.log @ x.T - s.value.sum(1)[:, None]


def poisson_update(model: Any, count: Array, total: Array) -> GammaState:
    prior = model.component.prior
    return GammaState(prior.concentration + total, prior.rate + count[:, None])


def gamma_table(model: Any, c: GammaState, x: Array) -> Array:
    s = c.expected()
    return (s.log @ model.component.known_shape)[:, None] - s.value @ x.T


def gamma_update(model: Any, count: Array, total: Array) -> GammaState:
    prior = model.component.prior
    return GammaState(prior.concentration + count[:, None] * model.component.known_shape, prior.rate + total)


def multinomial_table(model: Any, c: DirichletState, x: Array) -> Array:
    return c.expected().log @ x.T


def dirichlet_update(model: Any, count: Array, total: Array) -> DirichletState:
    prior = model.component.prior.concentration
    return DirichletState(prior + total.reshape(prior.shape))


def indicators(model: Any, x: Array) -> Array:
    component = model.component
    hot = jax.nn.one_hot(x, component.n_categories, dtype=component.concentration.dtype)
    return hot.reshape(x.shape[0], -1)


def categorical_table(model: Any, c: DirichletState, x: Array) -> Array:
    return c.expected().log.reshape(model.n_components, -1) @ indicators(model, x).T


def categorical_sums(model: Any, x: Array, r: Array) -> Array:
    return r @ indicators(model, x)


def squares(x: Array) -> Array:
    return (x[:, :, None] * x[:, None, :]).reshape(x.shape[0], -1)


def lines_table(model: Any, c: MultivariateNormalGammaState, rows: Any) -> Array:
    x, y = rows
    k, d = c.location.shape
    tau = GammaState(c.concentration, c.rate)
    whiten = jnp.linalg.inv(jnp.linalg.cholesky(c.mean_precision)).reshape(k * d, d)
    spread = ((whiten @ x.T) ** 2).reshape(k, d, -1).sum(1)
    square = tau.mean[:, None] * (y - c.location @ x.T) ** 2 + spread
    return 0.5 * (tau.expected().log[:, None] - LOG_2PI - square)


def lines_sums(model: Any, rows: Any, r: Array) -> Any:
    x, y = rows
    heavy = (r[:, None, :] * x.T).reshape(-1, x.shape[0])  # (k d, block)
    return heavy @ x, (r * y) @ x, r @ y**2


def lines_update(model: Any, count: Array, sums: Any) -> MultivariateNormalGammaState:
    gram, cross, square = sums
    prior = model.component.prior
    precision = prior.mean_precision + gram.reshape(prior.mean_precision.shape)
    pull = cross + (prior.mean_precision @ prior.location[..., None])[..., 0]
    location = jnp.linalg.solve(precision, pull[..., None])[..., 0]
    fitted = (location * pull).sum(-1)
    own = jnp.einsum("ki,kij,kj->k", prior.location, prior.mean_precision, prior.location)
    rate = prior.rate + 0.5 * (square + own - fitted)
    return MultivariateNormalGammaState(location, precision, prior.concentration + 0.5 * count, rate)


bernoulli_mixture = conjugate_mixture(bernoulli_table, products, bernoulli_update)
poisson_mixture = conjugate_mixture(poisson_table, products, poisson_update)
gamma_mixture = conjugate_mixture(gamma_table, products, gamma_update)
multinomial_mixture = conjugate_mixture(multinomial_table, products, dirichlet_update)
categorical_mixture = conjugate_mixture(categorical_table, categorical_sums, dirichlet_update)
regression_mixture = conjugate_mixture(lines_table, lines_sums, lines_update)


def factor_analysis_missing(model: Any, params: Any, x: Array) -> Any:
    """EM with a pass for each block, every row with a latent precision of its own."""
    w, mu, noise = params.w.mean, params.mu.mean, params.tau.mean

    def posterior(rows: Array, loadings: Array, mean: Array, noise: Array) -> Any:
        seen = (~jnp.isnan(rows)).astype(noise.dtype)
        shift = jnp.where(seen > 0, rows - mean, 0)
        precision = (seen * noise) @ squares(loadings)
        eye = jnp.eye(loadings.shape[1], dtype=rows.dtype)
        root = jnp.linalg.cholesky(precision.reshape(-1, *eye.shape) + eye)
        half = jnp.linalg.inv(root)
        covariance = jnp.swapaxes(half, 1, 2) @ half
        pull = (shift * noise) @ loadings
        z = (covariance @ pull[..., None])[..., 0]
        return seen, shift, z, covariance, root, (pull * z).sum(1)

    def over(function: Callable[..., Any], *at: Array) -> Any:
        return over_rows(model, x, lambda rows, v: function(v, *posterior(rows, *at)))

    def for_loadings(
        v: Array, seen: Array, shift: Array, z: Array, cov: Array, root: Array, fit: Array
    ) -> Any:
        weighted = v[:, None] * seen
        second = cov.reshape(len(z), -1) + squares(z)
        logdet = 2 * jnp.log(jnp.diagonal(root, axis1=1, axis2=2)).sum(1)
        square = (seen * shift**2) @ noise
        bound = 0.5 * v @ (seen @ (jnp.log(noise) - LOG_2PI) - logdet - square + fit)
        return weighted.T @ second, (weighted * shift).T @ z, bound

    def for_mean(v: Array, seen: Array, shift: Array, z: Array, *_: Array) -> Any:
        weighted = v[:, None] * seen
        return weighted.sum(0), (weighted * (shift - z @ loadings.T)).sum(0)

    def for_noise(v: Array, seen: Array, shift: Array, z: Array, cov: Array, *_: Array) -> Any:
        spread = cov.reshape(len(z), -1) @ squares(loadings).T
        return ((v[:, None] * seen) * ((shift - z @ loadings.T) ** 2 + spread)).sum(0)

    gram, cross, objective = over(for_loadings, w, mu, noise)
    gram = gram.reshape(*w.shape, w.shape[1])
    loadings = jnp.linalg.solve(gram, cross[..., None])[..., 0]
    count, residual = over(for_mean, loadings, mu, noise)
    variance = over(for_noise, loadings, mu, noise) / count
    least = model.noise_floor * model.noise_scale
    values = dict(w=loadings, mu=mu + residual / count, tau=1 / jnp.maximum(variance, least))
    return Record({name: model.factors[name].at(value) for name, value in values.items()}), objective
