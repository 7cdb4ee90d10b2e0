"""Derivatives of a fit: in the hyperparameters, of the fixed point, and linear-response covariances.

At an optimum the objective does not change with the parameters, so its derivative in anything else is
taken at fixed parameters (the envelope theorem). The parameters themselves are a fixed point of the
sweep, params = F(params, everything else), so theirs solve one linear system with I - dF/dparams.
Imports core; knows no model.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree

from vbjax.core.coordinate_ascent import sweep
from vbjax.core.hyperparameters import read_model
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.rows import expectation, read_row_weights
from vbjax.families.base import pytree
from vbjax.numerics.record import Record


def elbo(model: ConjugateModel, params: Any, data: Any = None, weights: Array | None = None) -> Array:
    """The objective of a resolved model (`fit.model`) at given parameters, as a function to differentiate.

    At a fit its gradient in the model is the gradient of the *optimised* objective in the
    hyperparameters, for empirical Bayes (Bishop 2006, section 3.5):

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.GaussianMeanPrecision(mu0=0.0, tau0=1.0, a=1.0, b=1.0), x, key=jax.random.key(0))
    >>> gradient = jax.grad(vb.elbo)(fit.model, fit.params, x)
    >>> print(f"{gradient.mu0:.3f}")
    0.814

    Args:
        model: with its defaults filled in.
        params: states of its factors.
        data, weights: what it was fitted to.
    """
    model, params, data, weights = _read_fitted(model, params, data, weights, "its bound")
    return model.objective(params, expectation(model, params, data, weights))


def _read_fitted(
    model: Any, params: Any, data: Any, weights: Any, what: str
) -> tuple[Any, Record, Any, Array | None]:
    """Read a resolved model, its parameters, and the data and weights of their fit."""
    require_model(model, params, what)
    params = require_params(model, params)
    model, data = read_model(model, data)
    return model, params, data, read_row_weights(weights, data)


def _require_closed_form(model: ConjugateModel) -> None:
    model.require_conjugate("how it responds")
    if model.interacting_locals:
        raise ValueError(
            "model has local factors that interact: how they respond is not known in closed form. Use one "
            "joint local factor, or make them global factors of a model with the rows as their plate"
        )


def optimum(model: ConjugateModel, params: Any, data: Any = None, weights: Array | None = None) -> Any:
    """The parameters of a converged fit as a differentiable function of model, data and weights.

    The value is `params` itself; derivatives are those of the fixed point, by the implicit function
    theorem (one dense solve: for up to some thousands of parameters).

    Raises:
        ValueError: a model with local factors that interact, or with a factor that is not conjugate.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> model = vb.GaussianMeanPrecision(mu0=0.0, tau0=1.0, a=1.0, b=1.0)
    >>> fit = vb.fit(model, x, key=jax.random.key(0))
    >>> mean = lambda model: vb.optimum(model, fit.params, x).mu.mean
    >>> print(f"{jax.grad(mean)(fit.model).mu0:.3f}")
    0.250
    """
    model, params, data, weights = _read_fitted(model, params, data, weights, "derivatives of its fit")
    _require_closed_form(model)
    flat, unravel = ravel_pytree(jax.tree.map(lax.stop_gradient, params))

    def residual(flat: Array) -> Array:
        return flat - ravel_pytree(sweep(model, unravel(flat), data, weights).params)[0]

    def tangent_solve(linear: Any, y: Array) -> Array:
        return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(flat)), y)

    return unravel(lax.custom_root(residual, flat, lambda f, start: start, tangent_solve))


@pytree
class LinearResponse:
    """Covariances of a fit that a factorised q does not show.

    Attributes:
        covariance: of the expected statistics of any two factors by name and field, the fields being those
            of the families' statistics: `covariance.mu.first.tau.value` for Cov(mu, tau), of both shapes
            one after the other.
        sd: their standard deviations, `sd.mu.first`.
        rate: by how much a sweep shrinks the distance to the optimum, the spectral radius of its
            derivative. At 1 the optimum is a ridge, along which the data say nothing. 0 without sweeps.
    """

    covariance: Record
    sd: Record
    rate: Array

    @property
    def singular(self) -> Array:
        """Whether the optimum is too flat, in this dtype, for anything here to be trusted."""
        negative = jnp.stack([jnp.isnan(x).any() for x in jax.tree.leaves(self.sd)]).any()
        return negative | ~(1 - self.rate > jnp.sqrt(jnp.finfo(self.rate.dtype).eps))


def linear_response(
    model: ConjugateModel, params: Any, data: Any = None, weights: Array | None = None
) -> LinearResponse:
    """Posterior covariances by the response of the means to a pull: Cov(t_i, t_j) = d E[t_i] / d pull_j.

    A pull on t_j adds pull_j t_j to the log joint; under the exact posterior that derivative is the
    covariance. Under q it corrects the variances that mean field underestimates, and gives the covariances
    between factors that q sets to 0. For a Gaussian posterior it is exact.

    Args:
        model, params: of a converged fit (a loose tolerance shows in the result). Of a `BlackBox` the
            covariances are of the latents, `covariance.mu.tau` and `sd.mu`.
        data, weights: what it was fitted to.

    Returns:
        A `LinearResponse`. One dense solve: for up to some thousands of parameters.

    Raises:
        ValueError: a model with local factors that interact, or with a factor that is not conjugate; a
            `BlackBox` not of the mean-field family.

    References:
        Giordano, R., Broderick, T. & Jordan, M. (2018), Covariances, robustness, and variational Bayes,
        JMLR 19, theorem 1 and eq. 13.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> response = vb.linear_response(fit.model, fit.params, x)
    >>> bool(response.sd.mu.first >= fit.params.mu.sd)
    True
    """
    require_model(model, params)
    if not isinstance(model, ConjugateModel):
        model, data = read_model(model, data)
        means, matrix = model.mean_response(params, data)
        return _by_name(matrix, means, jnp.zeros((), matrix.dtype))
    model, params, data, weights = _read_fitted(model, params, data, weights, "how it responds")
    _require_closed_form(model)
    return _linear_response(model, params, data, weights)


@jax.jit
def _linear_response(model: Any, params: Record, data: Any, weights: Array | None) -> LinearResponse:
    expected = model.expected(params)

    def natural(statistics: Record) -> Record:
        return Record({name: Record(t.like(expected[name]).natural) for name, t in statistics.items()})

    zero = jax.tree.map(jnp.zeros_like, natural(expected))
    no_pull, fields_of = ravel_pytree(zero)

    flat, unravel = ravel_pytree(params)

    def moved(flat: Array, pull: Array) -> Array:
        still = jax.tree.map(jnp.zeros_like, expected)
        pulls = {name: dataclasses.replace(still[name], **fields) for name, fields in fields_of(pull).items()}
        return ravel_pytree(sweep(model, unravel(flat), data, weights, pull=Record(pulls)).params)[0]

    def means(flat: Array) -> Array:
        return ravel_pytree(natural(model.expected(unravel(flat))))[0]

    # params = F(params, pull), so dparams = (I - dF/dparams)^-1 dF/dpull
    jacobian, direct = jax.jacfwd(moved, argnums=(0, 1))(flat, no_pull)
    system = jnp.eye(flat.size, dtype=flat.dtype) - jacobian
    matrix = jax.jacfwd(means)(flat) @ jnp.linalg.solve(system, direct)
    return _by_name(matrix, zero, _spectral_radius(jacobian))


def _by_name(matrix: Array, like: Any, rate: Array) -> LinearResponse:
    """From the covariance matrix of all entries of a tree."""
    unravel = ravel_pytree(like)[1]
    matrix = 0.5 * (matrix + matrix.T)
    rows = jax.vmap(unravel)(matrix)  # every leaf: (all entries, *its shape)
    covariance = jax.tree.map(lambda leaf: _split(leaf, like), rows)
    return LinearResponse(covariance, unravel(jnp.sqrt(jnp.diagonal(matrix))), rate)


def _spectral_radius(matrix: Array) -> Array:
    """The largest modulus of an eigenvalue, |M^(2^k)|^(1/2^k): free of units, and plain products."""
    n_squares = 40

    def square(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log = carry
        power = power @ power
        size = jnp.linalg.norm(power)
        return power / jnp.where(size == 0, 1, size), 2 * log + jnp.log(size)

    size = jnp.linalg.norm(matrix)
    start = matrix / jnp.where(size == 0, 1, size), jnp.log(size)
    log = lax.fori_loop(0, n_squares, square, start)[1]
    return jnp.exp(log / 2.0**n_squares)


def _split(rows: Array, like: Record) -> Record:
    """The leading axis of (all statistics, *shape) by name and field, moved behind: (*shape, *its shape)."""
    rows = jnp.moveaxis(rows, 0, -1)
    leaves, structure = jax.tree.flatten(like)
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    parts = jnp.split(rows, ends[:-1], -1)
    shaped = [p.reshape(*rows.shape[:-1], *leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
