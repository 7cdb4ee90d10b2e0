"""The log densities of paths: of a Markov chain of discrete states, and of vectors.

Imported by terms.py, where users find them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from vbjax.families.base import Statistics
from vbjax.families.gamma import GammaStatistics
from vbjax.families.gauss_markov import GaussMarkovStatistics
from vbjax.families.markov_chain import MarkovChainStatistics
from vbjax.families.matrix_normal_wishart import MatrixNormalWishartStatistics
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.multivariate_normal_gamma import MultivariateNormalGammaStatistics
from vbjax.families.wishart import WishartStatistics
from vbjax.numerics.linalg import transpose
from vbjax.numerics.special import LOG_2PI
from vbjax.terms.arguments import (
    Argument,
    family_of,
    read_log,
    read_states,
    read_statistics,
    read_value,
    require_alone,
    require_shapes,
)
from vbjax.terms.densities import multivariate_normal


def markov_chain(x: Argument, initial: Argument, transitions: Argument) -> Float[Array, "*plate"]:
    """Return log p(z_1, ..., z_T) of a Markov chain: initial[z_1] prod_t transitions[z_t, z_t+1].

    Args:
        x: the statistics of a MarkovChain factor, or a path of states' numbers (T,), -1 after its end.
        initial: probabilities of the first state (K,): values, or the statistics of a Dirichlet or
            StickBreaking factor.
        transitions: those of the next state given each, (K, K): values, or the statistics of such factors of
            plate (K,).

    Raises:
        ValueError: if the shapes do not fit, or an argument is of another family.

    References:
        Rabiner (1989), eq. 13 to 15; Bishop (2006), eq. 13.10.

    >>> from vbjax.terms import markov_chain
    >>> print(f"{markov_chain([0, 1, 1], [0.5, 0.5], [[0.5, 0.5], [0.25, 0.75]]):.6f}")  # log 3 / 16
    -1.673976
    """
    initial = read_log(initial, "markov_chain: initial")
    transitions = read_log(transitions, "markov_chain: transitions", axes=2)
    if not isinstance(x, MarkovChainStatistics):
        x = _read_path(x, initial)
    require_shapes("markov_chain", event=1, first_of_x=x.first, initial=initial)
    require_shapes("markov_chain", event=2, pairs_of_x=x.pairs, transitions=transitions)
    return (x.first * initial).sum(-1) + (x.pairs * transitions).sum((-1, -2))


def _read_path(x: Argument, initial: Float[Array, "*plate k"]) -> MarkovChainStatistics:
    if isinstance(x, Statistics):
        raise ValueError(
            "markov_chain: x must be a path of states' numbers or the statistics of a MarkovChain factor; "
            f"got those of a {family_of(x)} factor"
        )
    n = initial.shape[-1]
    x = read_states(x, "markov_chain: x", n, least=-1, axes=1)
    return MarkovChainStatistics.of_path(x, n, initial.dtype)


def gauss_markov(
    x: Argument,
    initial_mean: Argument,
    initial_precision: Argument,
    transitions: Argument,
    precision: Argument = None,
) -> Float[Array, "*plate"]:
    """Return log p(x_1, ..., x_T) of vectors x_1 ~ N(m, P^-1), x_t ~ N(A x_{t-1}, Lam^-1).

    The transitions are a regression of every state on the one before. As expectations of A and Lam, its log
    density needs A about a pivot, and sums over the transitions about the pivots of x and A: products of
    deviations alone, in which nothing large cancels.

    Args:
        x: the statistics of a GaussMarkov factor, or a path (T, D).
        initial_mean, initial_precision: m (D,) and P (D, D), as `multivariate_normal` takes them.
        transitions: A (D, D), a value; or the statistics of its rows, a MultivariateNormal or
            MultivariateNormalGamma factor of size D and plate (D,); or of A' and Lam, a MatrixNormalWishart
            factor of D rows and size D.
        precision: Lam: a number, or (D,) or the statistics of a Gamma factor of plate (D,), for a diagonal
            one; where A is a value also a matrix (D, D) or the statistics of a Wishart factor. Left out where
            `transitions` hold their own.

    Raises:
        ValueError: if the shapes do not fit, an argument is of another family, or a matrix multiplies rows.

    References:
        Bishop (2006), eq. 13.75 and 13.76; Beal (2003), section 5.2; Ghahramani & Hinton (1996).

    >>> from vbjax.terms import gauss_markov
    >>> print(f"{gauss_markov([[0.0], [1.0]], [0.0], [[1.0]], [[1.0]], 1.0):.6f}")  # -log(2 pi) - 1 / 2
    -2.337877
    """
    term = "gauss_markov"
    x = read_statistics(GaussMarkovStatistics, x, f"{term}: x", axes=2)
    regression = transition_regression(transitions, precision)
    b, size = regression.pivot, x.pivot.shape[-1]
    if b.shape[-2:] != (size, size):
        raise ValueError(
            f"{term}: transitions must be ({size}, {size}), as x has vectors of {size}; got {b.shape}"
        )
    start = _start(x, initial_mean, initial_precision)
    at, spread = path_sums(x.pivot, x.here, b, x.first), spread_sums(x.second, x.pairs, x.here, b)
    density = sum(log_density_of(regression, jax.tree.map(jnp.add, at, spread)))
    return _first(x.here, -1) * start + density


def _start(x: GaussMarkovStatistics, mean: Argument, precision: Argument) -> Float[Array, "*plate"]:
    """Return the log density of the first state."""
    term = "gauss_markov"
    mean = read_statistics(MultivariateNormalStatistics, mean, f"{term}: initial_mean", axes=1)
    name = f"{term}: initial_precision"
    precision = read_statistics(WishartStatistics, precision, name, axes=2, square=True)
    first = MultivariateNormalStatistics(_first(x.pivot, -2), _first(x.first, -2), _first(x.second, -3))
    rows = precision.value.sum(-1)
    require_shapes(term, event=1, state_of_x=first.pivot, initial_mean=mean.pivot, initial_precision=rows)
    return multivariate_normal(first, mean, precision)


def _first(x: Array, axis: int) -> Array:
    """Return the first entry along an axis, by a slice: an index would be looked for in the data."""
    return lax.index_in_dim(x, 0, axis, keepdims=False)


class Sums(NamedTuple):
    """Sums of a regression y = B'x + r over its steps, about a pivot B.

    Attributes:
        number: of steps.
        gram, cross, square: sums of E[x x'], E[x r'] and E[r r'].
    """

    number: Float[Array, "*plate"]
    gram: Float[Array, "*plate d d"]
    cross: Float[Array, "*plate d s"]
    square: Float[Array, "*plate s s"]


def log_density_of(regression: MatrixNormalWishartStatistics, sums: Sums) -> tuple[Array, Array]:
    """Compute the expected log density of a regression over its steps: constants, and squares.

    The sums are about the pivot of the regression.
    """
    t, size = regression, regression.pivot.shape[-1]
    misfit = (t.precision * sums.square).sum((-1, -2)) - 2 * (t.cross * sums.cross).sum((-1, -2))
    misfit = misfit + (t.square * sums.gram).sum((-1, -2))
    return 0.5 * sums.number * (t.logdet - size * LOG_2PI), -0.5 * misfit


def path_sums(
    path: Float[Array, "*plate t d"],
    here: Float[Array, "*plate t"],
    b: Float[Array, "*plate d d"],
    first: Float[Array, "*plate t d"] | None = None,
) -> Sums:
    """Sum over the transitions of a path, a regression of every state on the one before.

    Mean deviations from the path, `first`, count to first order: products of two are in `spread_sums`.
    """
    number, goes_on = here[..., 1:].sum(-1), here[..., 1:, None]
    before = goes_on * path[..., :-1, :]
    residual = goes_on * path[..., 1:, :] - before @ b
    if first is None:
        gram, cross = transpose(before) @ before, transpose(before) @ residual
        return Sums(number, gram, cross, transpose(residual) @ residual)
    shift = goes_on * first[..., :-1, :]
    deviation = goes_on * first[..., 1:, :] - shift @ b
    gram = transpose(before) @ (before + shift) + transpose(shift) @ before
    cross = transpose(before) @ (residual + deviation) + transpose(shift) @ residual
    square = transpose(residual) @ (residual + deviation) + transpose(deviation) @ residual
    return Sums(number, gram, cross, square)


def spread_sums(
    second: Float[Array, "*plate t d d"],
    pairs: Float[Array, "*plate d d"],
    here: Float[Array, "*plate t"],
    b: Float[Array, "*plate d d"],
) -> Sums:
    """Sum over the transitions what moments about a path add, `pairs` a sum over them already."""
    gram, later = (
        jnp.einsum("...t,...tij->...ij", here[..., 1:], x)  # a product, that no masked copy is made
        for x in (second[..., :-1, :, :], second[..., 1:, :, :])
    )
    cross = pairs - gram @ b
    square = later - transpose(b) @ pairs - transpose(cross) @ b
    return Sums(jnp.zeros_like(here[..., 0]), gram, cross, square)


def transition_regression(transitions: Argument, precision: Argument = None) -> MatrixNormalWishartStatistics:
    """Return A' and Lam, as `gauss_markov` takes them, as one joint factor has them."""
    term = "gauss_markov"
    if isinstance(transitions, (MatrixNormalWishartStatistics, MultivariateNormalGammaStatistics)):
        require_alone(precision, term, transitions)
        if isinstance(transitions, MatrixNormalWishartStatistics):
            return transitions
        t = transitions
        return _of_rows(t.pivot, t.cross, t.square.sum(-3), t.precision, t.logdet.sum(-1))
    is_value = not isinstance(transitions, Statistics)
    rows = read_statistics(MultivariateNormalStatistics, transitions, f"{term}: transitions", axes=2)
    d = rows.pivot.shape[-1]
    if not isinstance(precision, Statistics):
        precision = read_value(precision, f"{term}: precision")
    if isinstance(precision, WishartStatistics) or (isinstance(precision, Array) and precision.ndim > 1):
        noise = read_statistics(WishartStatistics, precision, f"{term}: precision", axes=2, square=True)
        if not is_value:
            raise ValueError(
                f"{term}: precision must be numbers ({d},), or the statistics of a Gamma factor, where "
                "transitions are the statistics of rows, which a matrix would multiply; got a matrix"
            )
        nothing = jnp.zeros_like(rows.pivot)
        return MatrixNormalWishartStatistics(
            transpose(rows.pivot), noise.value, noise.logdet, nothing, nothing, noise.base
        )
    diagonal = read_statistics(GammaStatistics, precision, f"{term}: precision")
    shape = rows.pivot.shape[:-1]
    value, log = (jnp.broadcast_to(x, shape).astype(rows.pivot.dtype) for x in (diagonal.value, diagonal.log))
    square = (value[..., None, None] * rows.second).sum(-3)
    return _of_rows(rows.pivot, value[..., None] * rows.first, square, value, log.sum(-1))


def _of_rows(
    pivot: Array, cross: Array, square: Array, precision: Array, logdet: Array
) -> MatrixNormalWishartStatistics:
    """Return the regression whose rows of A are independent, each with a precision of its own."""
    eye = jnp.eye(precision.shape[-1], dtype=precision.dtype)
    lam = precision[..., None] * eye
    return MatrixNormalWishartStatistics(
        transpose(pivot), lam, logdet, transpose(cross), square, jnp.zeros_like(logdet)
    )
