"""Derivatives of a fit: in hyperparameters and data, of its fixed point, and linear-response covariances.

At an optimum the objective is stationary in the parameters, so its derivative in anything else is taken at
fixed parameters (the envelope theorem). The parameters themselves are a fixed point of the sweep,
params = F(params, everything else), so their derivatives solve one linear system with I - dF/dparams.
Imports core; knows no model.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Bool, Float

from vbjax.core.contracts import Model
from vbjax.core.coordinate_ascent import explain, sweep
from vbjax.core.devices import jit_over_mesh, over, read_devices
from vbjax.core.hyperparameters import read_model
from vbjax.core.model import ConjugateModel, require_model
from vbjax.core.parameters import require_params
from vbjax.core.rows import read_row_weights
from vbjax.families.base import State, pytree
from vbjax.inference import division
from vbjax.numerics.inputs import all_finite, is_concrete
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Index, Params, Tree


def elbo(
    model: ConjugateModel,
    params: Mapping[str, State],
    data: Data = None,
    weights: ArrayLike | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Float[Array, ""]:
    """Compute the objective of a resolved model (`fit.model`) at given parameters; it may be differentiated.

    At the parameters of a fit, its gradient in the model is the gradient of the *optimised* objective in the
    hyperparameters, for empirical Bayes (Bishop 2006, section 3.5):

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> prior = dict(location=0.0, mean_precision=1.0, concentration=1.0, rate=1.0)
    >>> model = vb.textbook.GaussianMeanPrecision(**prior)
    >>> fit = vb.fit(model, x, key=jax.random.key(0))
    >>> gradient = jax.grad(vb.elbo)(fit.model, fit.params, x)
    >>> print(f"{gradient.location:.3f}")
    0.814

    Args:
        model: with its defaults filled in.
        params: states of its factors.
        data, weights: those of the fit.
        devices: those that may be used, by default all of this process: many rows are divided over them.
    """
    model, params, data, weights = read_fitted(model, params, data, weights, "its bound")
    return _over_devices(division.objective, model, params, data, weights, devices)


def _over_devices(
    program: Callable[..., Tree],
    model: ConjugateModel,
    params: Record,
    data: Data,
    weights: Array | None,
    devices: Sequence[jax.Device] | None,
) -> Tree:
    """Run a program of model, parameters, data and weights; the rows, where known, divided over devices."""
    devices, mesh = read_devices(devices), None
    if data is not None and is_concrete((data, weights)):
        mesh, data, weights = division.divide_rows(data, weights, devices)
    with over(mesh):
        found = program(model, params, data, weights)
    return division.gathered(found, mesh) if is_concrete(found) else found


def read_fitted(
    model: ConjugateModel,
    params: Mapping[str, State],
    data: Data,
    weights: ArrayLike | None,
    purpose: str,
) -> tuple[ConjugateModel, Record, Data, Float[Array, " n"] | None]:
    """Read a resolved model, its parameters, and the data and weights of their fit.

    Raises:
        ValueError: arguments of another kind; a model that is not conjugate, which the `purpose` requires.
    """
    require_model(model, params, purpose)
    params = require_params(model, params)
    model, data = read_model(model, data)
    return model, params, data, read_row_weights(weights, data)


def _require_closed_form(model: ConjugateModel) -> None:
    """Raise a ValueError where the response of a model's factors has no closed form."""
    model.require_conjugate("how it responds")
    if model.interacting_locals:
        raise ValueError(
            "model has local factors that interact: how they respond is not known in closed form. Use one "
            "joint local factor, or make them global factors of a model with the rows as their plate"
        )


def optimum(
    model: ConjugateModel,
    params: Mapping[str, State],
    data: Data = None,
    weights: ArrayLike | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> Record:
    """Return the parameters of a converged fit as a differentiable function of model, data and weights.

    The value is `params` itself. The derivatives are those of the fixed point, by the implicit function
    theorem: one dense solve, for up to some thousands of parameters.

    Args:
        model, params: those of a converged fit.
        data, weights: those of the fit.
        devices: those that may be used, by default all of this process: many rows are divided over them.

    Raises:
        ValueError: a model with local factors that interact, or with a factor that is not conjugate.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> prior = dict(location=0.0, mean_precision=1.0, concentration=1.0, rate=1.0)
    >>> model = vb.textbook.GaussianMeanPrecision(**prior)
    >>> fit = vb.fit(model, x, key=jax.random.key(0))
    >>> mean = lambda model: vb.optimum(model, fit.params, x).mu.mean
    >>> print(f"{jax.grad(mean)(fit.model).location:.3f}")
    0.250
    """
    model, params, data, weights = read_fitted(model, params, data, weights, "derivatives of its fit")
    _require_closed_form(model)
    return _over_devices(_optimum, model, params, data, weights, devices)


@jit_over_mesh
def _optimum(model: ConjugateModel, params: Record, data: Data, weights: Float[Array, " n"] | None) -> Record:
    def at(data: Data, weights: Array | None, model: ConjugateModel, params: Record) -> Record:
        flat, unravel = ravel_pytree(jax.tree.map(lax.stop_gradient, params))

        def residual(flat: Float[Array, " p"]) -> Float[Array, " p"]:
            return flat - _flat(sweep(model, unravel(flat), data, weights).params, params)

        def tangent_solve(linear: Callable[[Array], Array], y: Float[Array, " p"]) -> Float[Array, " p"]:
            return jnp.linalg.solve(jax.jacfwd(linear)(jnp.zeros_like(flat)), y)

        return unravel(lax.custom_root(residual, flat, lambda f, start: start, tangent_solve))

    return division.on_shares(at, data, weights, model, params)


@pytree
class LinearResponse:
    """Posterior covariances that a factorised q does not show.

    Attributes:
        covariance: covariances of the statistics of any two factors, by the names of factors and of the
            fields of their statistics: `covariance.mu.first.tau.value` is Cov(mu, tau), whose shape is that
            of mu followed by that of tau.
        sd: standard deviations of the statistics, `sd.mu.first`.
        rate: factor by which a sweep shrinks the distance to the optimum, the spectral radius of its
            derivative. At 1 the optimum is a ridge, along which the data say nothing. 0 without sweeps.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> vb.linear_response(fit.model, fit.params, x).covariance.mu.first.tau.value.shape  # Cov(mu, tau)
    ()
    """

    covariance: Record
    sd: Record
    rate: Float[Array, ""]

    @property
    def singular(self) -> Bool[Array, ""]:
        """True where the optimum is too flat, in this dtype, for the covariances to be trusted."""
        negative = jnp.stack([jnp.isnan(x).any() for x in jax.tree.leaves(self.sd)]).any()
        return negative | ~(1 - self.rate > jnp.sqrt(jnp.finfo(self.rate.dtype).eps))


def linear_response(
    model: Model,
    params: Params,
    data: Data = None,
    weights: ArrayLike | None = None,
    *,
    devices: Sequence[jax.Device] | None = None,
) -> LinearResponse:
    """Compute posterior covariances by the response of means to a pull: Cov(t_i, t_j) = d E[t_i] / d pull_j.

    A pull on t_j adds pull_j t_j to the log joint. Under the exact posterior the derivative is the
    covariance. Under q it corrects the variances that mean field underestimates, and gives the covariances
    between factors, which q sets to 0. For a Gaussian posterior it is exact.

    Args:
        model, params: those of a converged fit (a loose tolerance shows in the result). For a `BlackBox` the
            covariances are those of the latents, `covariance.mu.tau` and `sd.mu`.
        data, weights: those of the fit.
        devices: those that may be used, by default all of this process: many rows are divided over them.

    Returns:
        A `LinearResponse`, by one dense solve: for up to some thousands of parameters.

    Raises:
        ValueError: a model with local factors that interact, or with a factor that is not conjugate; data or
            a prior of which the response is not finite; a `BlackBox` of another family than "mean_field".

    References:
        Giordano, R., Broderick, T. & Jordan, M. (2018), Covariances, robustness, and variational Bayes,
        JMLR 19, theorem 1 and eq. 13.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.array([1.0, 2.0, 4.0])
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), x, key=jax.random.key(0))
    >>> response = vb.linear_response(fit.model, fit.params, x)
    >>> bool(response.sd.mu.first >= fit.params.mu.sd)
    True
    """
    require_model(model, params)
    if not isinstance(model, ConjugateModel):
        other, data = read_model(model, data)
        means, matrix = other.mean_response(params, data)
        return _by_name(matrix, means, jnp.zeros((), matrix.dtype))
    model, params, data, weights = read_fitted(model, params, data, weights, "how it responds")
    _require_closed_form(model)
    response = _over_devices(_linear_response, model, params, data, weights, devices)
    if is_concrete(response) and not all_finite(response.covariance):
        explain(model, params, data, weights)
    return response


@jit_over_mesh
def _linear_response(
    model: ConjugateModel, params: Record, data: Data, weights: Float[Array, " n"] | None
) -> LinearResponse:
    return division.on_shares(_response, data, weights, model, params)


def _response(
    data: Data, weights: Float[Array, " n"] | None, model: ConjugateModel, params: Record
) -> LinearResponse:
    expected = model.expected(params)

    def natural(statistics: Record) -> Record:
        return Record({name: Record(t.like(expected[name]).natural) for name, t in statistics.items()})

    zero = jax.tree.map(jnp.zeros_like, natural(expected))
    no_pull, fields_of = ravel_pytree(zero)

    flat, unravel = ravel_pytree(params)

    def pulled_sweep(flat: Float[Array, " p"], pull: Float[Array, " s"]) -> Float[Array, " p"]:
        still = jax.tree.map(jnp.zeros_like, expected)
        pulls = {name: dataclasses.replace(still[name], **fields) for name, fields in fields_of(pull).items()}
        return _flat(sweep(model, unravel(flat), data, weights, pull=Record(pulls)).params, params)

    def means(flat: Float[Array, " p"]) -> Float[Array, " s"]:
        return ravel_pytree(natural(model.expected(unravel(flat))))[0]

    # params = F(params, pull), so dparams = (I - dF/dparams)^-1 dF/dpull
    jacobian, direct = jax.jacfwd(pulled_sweep, argnums=(0, 1))(flat, no_pull)
    system = jnp.eye(flat.size, dtype=flat.dtype) - jacobian
    matrix = jax.jacfwd(means)(flat) @ jnp.linalg.solve(system, direct)
    return _by_name(matrix, zero, _spectral_radius(jacobian))


def _by_name(matrix: Float[Array, "s s"], like: Tree, rate: Float[Array, ""]) -> LinearResponse:
    """Return the response by name, from the covariance matrix of all entries of a tree `like`."""
    unravel = ravel_pytree(like)[1]
    matrix = 0.5 * (matrix + matrix.T)
    rows = jax.vmap(unravel)(matrix)  # every leaf: (all entries, *its shape)
    covariance = jax.tree.map(lambda leaf: _split(leaf, like), rows)
    return LinearResponse(covariance, unravel(jnp.sqrt(jnp.diagonal(matrix))), rate)


def _spectral_radius(matrix: Float[Array, "p p"]) -> Float[Array, ""]:
    """Compute the largest modulus of an eigenvalue as |M^(2^k)|^(1/2^k) (Gelfand's formula).

    It takes matrix products alone, and does not depend on the units of the parameters.
    """
    n_squares = 40

    def square(_: Index, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        power, log = carry
        power = power @ power
        size = jnp.linalg.norm(power)
        return power / jnp.where(size == 0, 1, size), 2 * log + jnp.log(size)

    size = jnp.linalg.norm(matrix)
    start = matrix / jnp.where(size == 0, 1, size), jnp.log(size)
    log = lax.fori_loop(0, n_squares, square, start)[1]
    return jnp.exp(log / 2.0**n_squares)


def _split(rows: Float[Array, "s ..."], like: Tree) -> Tree:
    """Split the leading axis, over all entries of `like`, into fields: (*shape, *shape of the field)."""
    rows = jnp.moveaxis(rows, 0, -1)
    leaves, structure = jax.tree.flatten(like)
    ends = list(itertools.accumulate(leaf.size for leaf in leaves))
    parts = jnp.split(rows, ends[:-1], -1)
    shaped = [p.reshape(*rows.shape[:-1], *leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def _flat(params: Tree, like: Tree) -> Float[Array, " p"]:
    """Return parameters as one array, whose entries are those of the same place in `like`."""
    import chex  # here, not above: it takes a tenth of the time of `import vbjax`

    chex.assert_trees_all_equal_shapes_and_dtypes(params, like)
    return ravel_pytree(params)[0]
