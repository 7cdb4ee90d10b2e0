"""Gaussian Markov chains in information form, and the Kalman filter: linear-Gaussian state spaces.

The functions are pure, of arrays, for one chain x_1, ..., x_T in R^D; `jax.vmap` takes several. The log
weight of a path is

    sum_t [pull_t' x_t - x_t' precision_t x_t / 2] + sum_t x_t' coupling_t x_{t+1}

so that the precision matrix of the whole path is block tridiagonal, with `precision_t` on the diagonal and
-coupling_t beside it. This is more general than a state space model: in variational Bayes the weights are
expected ones, E[A' A] is not E[A]' E[A], and no filter's recursions fit them (Beal 2003, section 5.3). The
arguments are:

- `precision`: symmetric blocks (T, D, D). With the coupling they must be positive definite as a whole; where
  they are not, results are NaN.
- `coupling`: (T - 1, D, D), between x_t and x_{t+1}; or one (D, D) for all.
- `pull`: (T, D).
- `length`: the number of steps that the chain really has, a scalar that may be traced; the other steps are
  padding and are ignored. All T steps by default.
- `parallel`: whether blocks are eliminated by `jax.lax.associative_scan`, parallel in time, or step by step.
  None, the default, means step by step on a CPU, and in parallel elsewhere.

Results have the dtype of `pull`. `kalman_filter` takes a state space model instead, by its matrices.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float, Int

from vbjax.chains.gaussian_passes import backward, eliminate, kalman_steps, solve_upper, without_padding
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import (
    as_array,
    as_floating,
    is_concrete,
    read_count,
    read_key,
    read_length,
    read_parallel,
)
from vbjax.numerics.linalg import inverse_from_cholesky, logdet_from_cholesky
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Tree

__all__ = [
    "Filtered",
    "Posterior",
    "entropy",
    "kalman_filter",
    "log_normalizer",
    "sample_paths",
    "smoother",
]


class Posterior(NamedTuple):
    """Moments of a Gaussian chain; they are 0 at padding.

    Attributes:
        log_normalizer: log of the integral of the weights.
        entropy: in nats.
        means: E[x_t], (T, D).
        covariances: Cov(x_t), (T, D, D).
        cross_covariances: Cov(x_t, x_{t+1}), (T - 1, D, D).

    >>> posterior = smoother(jnp.ones((2, 1, 1)), jnp.array([[0.5]]), jnp.array([[1.0], [0.0]]))
    >>> print(f"{posterior.cross_covariances.item():.3f}")  # beside the diagonal of [[1, -1/2], [-1/2, 1]]^-1
    0.667
    """

    log_normalizer: Float[Array, ""]
    entropy: Float[Array, ""]
    means: Float[Array, "t d"]
    covariances: Float[Array, "t d d"]
    cross_covariances: Float[Array, "s d d"]


class Filtered(NamedTuple):
    """States of a Gaussian chain given the observations before, and up to, every step.

    At padding the log likelihood is 0, and the states go on without observations.

    Attributes:
        log_likelihoods: log p(y_t | y_1, ..., y_{t-1}), (T,); their sum is that of the sequence.
        predicted_means, predicted_covariances: of x_t given y_1, ..., y_{t-1}, (T, D) and (T, D, D).
        means, covariances: of x_t given y_1, ..., y_t, (T, D) and (T, D, D).

    >>> one = jnp.eye(1)
    >>> found = kalman_filter(jnp.array([[2.0], [jnp.nan]]), jnp.zeros(1), one, one, one, one, one)
    >>> print(f"{found.log_likelihoods[0]:.3f}")  # log N(2 | 0, 2)
    -2.266
    """

    log_likelihoods: Float[Array, " t"]
    predicted_means: Float[Array, "t d"]
    predicted_covariances: Float[Array, "t d d"]
    means: Float[Array, "t d"]
    covariances: Float[Array, "t d d"]


def log_normalizer(
    precision: ArrayLike,
    coupling: ArrayLike,
    pull: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Float[Array, ""]:
    """Return the log of the integral of the weights over all paths, by a block Cholesky factorisation.

    With P_1 = J_1, v_1 = h_1, and as x_t is integrated out after x_{t-1}

        P_{t+1} = J_{t+1} - L_t' P_t^-1 L_t,   v_{t+1} = h_{t+1} + L_t' P_t^-1 v_t,

    it is the sum of (v_t' P_t^-1 v_t - log det P_t + D log 2 pi) / 2. Its gradient is the expected
    statistics.

    Args:
        precision, coupling, pull, length, parallel: see the module; J, L and h above.

    Returns:
        A scalar; 0 for an empty chain.

    Raises:
        ValueError: wrong shapes, NaN or infinities.

    References:
        Rue & Held (2005), Gaussian Markov random fields, section 2.4; Bishop (2006), eq. 2.75.

    >>> print(f"{log_normalizer(4 * jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 1))):.4f}")
    0.2258
    """
    return _smoother(
        *_read(precision, coupling, pull, length), parallel=read_parallel(parallel)
    ).log_normalizer


def smoother(
    precision: ArrayLike,
    coupling: ArrayLike,
    pull: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Posterior:
    """Compute a whole E-step: log-normaliser, entropy, means, covariances, and those of neighbours.

    The recursion runs backwards from the P_t and v_t of `log_normalizer`, with the gains G_t = P_t^-1 L_t:

        m_t = P_t^-1 v_t + G_t m_{t+1},   V_t = P_t^-1 + G_t V_{t+1} G_t',   Cov(x_t, x_{t+1}) = G_t V_{t+1}.

    In parallel both recursions are products of an associative operation: forwards of the weights of a
    stretch's two ends, with its inside integrated out; backwards of affine maps.

    Args:
        precision, coupling, pull, length, parallel: see the module; J, L and h above.

    Returns:
        A `Posterior`.

    Raises:
        ValueError: wrong shapes, NaN or infinities.

    References:
        Rauch, Tung & Striebel (1965), in information form; Beal (2003), section 5.3; Saerkka &
        Garcia-Fernandez (2021), Temporal parallelization of Bayesian smoothers, for the affine maps.

    >>> posterior = smoother(jnp.ones((2, 1, 1)), jnp.array([[0.5]]), jnp.array([[1.0], [0.0]]))
    >>> print(*(f"{x:.3f}" for x in (*posterior.means.ravel(), *posterior.covariances.ravel())))
    1.333 0.667 1.333 1.333
    """
    return _smoother(*_read(precision, coupling, pull, length), parallel=read_parallel(parallel))


def entropy(
    precision: ArrayLike,
    coupling: ArrayLike,
    pull: ArrayLike,
    length: ArrayLike | None = None,
    *,
    parallel: bool | None = None,
) -> Float[Array, ""]:
    """Return the entropy of the chain in nats: sum_t [D (1 + log 2 pi) - log det P_t] / 2.

    Args:
        precision, coupling, pull, length, parallel: see the module.

    Returns:
        A scalar; 0 for an empty chain.

    Raises:
        ValueError: wrong shapes, NaN or infinities.

    >>> print(f"{entropy(jnp.ones((1, 1, 1)), jnp.zeros((1, 1)), jnp.zeros((1, 1))):.4f}")
    1.4189
    """
    return _smoother(*_read(precision, coupling, pull, length), parallel=read_parallel(parallel)).entropy


def sample_paths(
    precision: ArrayLike,
    coupling: ArrayLike,
    pull: ArrayLike,
    length: ArrayLike | None = None,
    *,
    key: Array,
    n_draws: int = 1,
    parallel: bool | None = None,
) -> Float[Array, "n_draws t d"]:
    """Draw independent paths: the last state, then every state given the next.

    Args:
        precision, coupling, pull, length, parallel: see the module.
        key: `jax.random.key(...)`.
        n_draws: the number of paths, static.

    Returns:
        (n_draws, T, D), 0 at padding.

    Raises:
        ValueError: wrong shapes, NaN or infinities.

    References:
        Rue & Held (2005), algorithm 2.5; Carter & Kohn (1994), On Gibbs sampling for state space models.

    >>> tight, none = 1e8 * jnp.ones((3, 1, 1)), jnp.zeros((1, 1))
    >>> sample_paths(tight, none, tight[..., 0], key=jax.random.key(0)).round(2).ravel().tolist()
    [1.0, 1.0, 1.0]
    """
    arguments = _read(precision, coupling, pull, length)
    n_draws = read_count(n_draws, "n_draws")
    return _sample_paths(*arguments, read_key(key), n_draws=n_draws, parallel=read_parallel(parallel))


def kalman_filter(
    y: ArrayLike,
    initial_mean: ArrayLike,
    initial_covariance: ArrayLike,
    transition_matrix: ArrayLike,
    transition_covariance: ArrayLike,
    emission_matrix: ArrayLike,
    emission_covariance: ArrayLike,
    length: ArrayLike | None = None,
) -> Filtered:
    """Compute states of x_1 ~ N(m0, V0), x_t ~ N(A x_{t-1}, Q), y_t ~ N(C x_t, R) given observations so far.

    From the prediction m, P of a step, with S = C P C' + R by its Cholesky factor and K = P C' S^-1:

        mean = m + K (y - C m),   covariance = (I - K C) P (I - K C)' + K R K'.

    The covariance is in Joseph's form, a sum of squares: rounding cannot make it lose its sign. Missing
    entries drop out, also if R is not diagonal: those left have the corresponding rows of C and block of R.

    Args:
        y: (T, p); NaN are missing entries.
        initial_mean, initial_covariance: m0 (D,) and V0 (D, D).
        transition_matrix, transition_covariance: A and Q, (D, D).
        emission_matrix, emission_covariance: C (p, D) and R (p, p).
        length: the number of steps that are not padding, a scalar that may be traced; all T by default.

    Returns:
        A `Filtered`.

    Raises:
        ValueError: wrong shapes or infinities.

    References:
        Kalman (1960); Bishop (2006), eq. 13.88-13.92; Bucy & Joseph (1968) for the covariance.

    >>> one = jnp.eye(1)
    >>> found = kalman_filter(jnp.array([[2.0], [jnp.nan]]), jnp.zeros(1), one, one, one, one, one)
    >>> print(*(f"{x:.3f}" for x in (*found.means.ravel(), *found.covariances.ravel())))
    1.000 1.000 0.500 1.500
    """
    y = as_floating(y, "y", missing=True)
    if y.ndim != 2 or 0 in y.shape:
        raise ValueError(f"y must have shape (T, p) of at least (1, 1); got {y.shape}")
    if is_concrete(y) and np.isinf(np.asarray(y)).any():
        raise ValueError("y must be finite, or NaN where missing; it has an infinity")
    mean = as_array(initial_mean, "initial_mean").astype(y.dtype)
    if mean.ndim != 1 or not mean.size:
        raise ValueError(f"initial_mean must have shape (D,) of at least (1,); got {mean.shape}")
    d, p = len(mean), y.shape[1]
    matrices = {
        "initial_covariance": (initial_covariance, (d, d)),
        "transition_matrix": (transition_matrix, (d, d)),
        "transition_covariance": (transition_covariance, (d, d)),
        "emission_matrix": (emission_matrix, (p, d)),
        "emission_covariance": (emission_covariance, (p, p)),
    }
    of = f", as y has {p} columns and initial_mean {d} entries"
    read = [_finite(x, y.dtype, name, shape, of=of) for name, (x, shape) in matrices.items()]
    return _kalman_filter(y, _finite(mean, y.dtype, "initial_mean", (d,)), *read, read_length(length, len(y)))


# -- compiled --------------------------------------------------------------------------------------------


@functools.partial(jit, static_argnames="parallel")
def _smoother(
    precision: Float[Array, "t d d"],
    coupling: Float[Array, "*steps d d"],
    pull: Float[Array, "t d"],
    length: Int[Array, ""] | None,
    *,
    parallel: bool | None,
) -> Posterior:
    """Return the moments: block elimination forwards, then back as Rauch, Tung & Striebel (1965)."""
    here, chain = without_padding(precision, coupling, pull, length)
    root, gains, half = eliminate(*chain, parallel=parallel)
    d = pull.shape[1]
    volume = jnp.where(here, d * LOG_2PI - logdet_from_cholesky(root), 0).sum()
    means, covariances = backward(gains, solve_upper(root, half), inverse_from_cholesky(root), parallel)
    present = here[:, None, None]
    covariances = jnp.where(present, covariances, 0)
    return Posterior(
        0.5 * (volume + (half**2).sum()),
        0.5 * (volume + d * here.sum().astype(pull.dtype)),
        jnp.where(here[:, None], means[..., 0], 0),
        covariances,
        gains[:-1] @ covariances[1:],
    )


@functools.partial(jit, static_argnames=("n_draws", "parallel"))
def _sample_paths(
    precision: Float[Array, "t d d"],
    coupling: Float[Array, "*steps d d"],
    pull: Float[Array, "t d"],
    length: Int[Array, ""] | None,
    key: Array,
    *,
    n_draws: int,
    parallel: bool | None,
) -> Float[Array, "n_draws t d"]:
    """Draw paths (n_draws, T, D): substitute back from noise beside the pull (Rue & Held 2005, alg. 2.5)."""
    here, chain = without_padding(precision, coupling, pull, length)
    root, gains, half = eliminate(*chain, parallel=parallel)
    noise = jax.random.normal(key, (*pull.shape, n_draws), pull.dtype)
    paths = backward(gains, solve_upper(root, half + noise), None, parallel)[0]  # (t, d, n_draws)
    return jnp.moveaxis(jnp.where(here[:, None, None], paths, 0), -1, 0)


@jit
def _kalman_filter(*arguments: Tree) -> Filtered:
    """Return the moments before and after every observation, see `kalman_steps`."""
    return Filtered(*kalman_steps(*arguments))


# -- reading arguments ---------------------------------------------------------------------------------------


def _finite(
    x: ArrayLike,
    dtype: DTypeLike,
    name: str,
    *shapes: tuple[int, ...],
    used: slice = slice(None),
    of: str = "",
) -> Array:
    """Return a finite array of one of the shapes; in the last of them only the part `used` must be finite."""
    x = as_array(x, name).astype(dtype)
    if x.shape not in shapes:
        raise ValueError(f"{name} must have shape {' or '.join(map(str, shapes))}{of}; got {x.shape}")
    if (
        is_concrete(x)
        and not np.isfinite(np.asarray(x)[used if x.shape == shapes[-1] else slice(None)]).all()
    ):
        raise ValueError(f"{name} must be finite; it has a NaN or an infinity")
    return x


def _read(
    precision: ArrayLike, coupling: ArrayLike, pull: ArrayLike, length: ArrayLike | None
) -> tuple[Array, Array, Array, Array | None]:
    """Return potentials of one dtype and of shapes that agree."""
    pull = as_floating(pull, "pull")
    if pull.ndim != 2 or 0 in pull.shape:
        raise ValueError(f"pull must have shape (T, D) of at least (1, 1); got {pull.shape}")
    (steps, d), dtype = pull.shape, pull.dtype
    length = read_length(length, steps)
    stop = int(length) if length is not None and is_concrete(length) else steps
    used, links = slice(stop), slice(max(stop - 1, 0))
    return (
        _finite(precision, dtype, "precision", (steps, d, d), used=used),
        _finite(coupling, dtype, "coupling", (d, d), (steps - 1, d, d), used=links),
        _finite(pull, dtype, "pull", (steps, d), used=used),
        length,
    )
