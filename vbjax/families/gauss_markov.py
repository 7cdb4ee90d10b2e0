"""GaussMarkov: a path of vectors; its log-normaliser is a block elimination, its gradient the smoother."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.chains import gaussian as chains
from vbjax.families.base import State, Statistics, Value, pytree
from vbjax.families.chain import ChainFamily, Extent, draw_paths, over_cells
from vbjax.families.multivariate_normal import MultivariateNormalStatistics
from vbjax.families.normal import NormalState
from vbjax.numerics.linalg import symmetrize, transpose
from vbjax.numerics.special import LOG_2PI
from vbjax.numerics.types import Tree

_CHUNK = 2**20  # numbers in a pass's moments, of chains x steps x states x states


@pytree
class GaussMarkovStatistics(Statistics):
    """Moments of a path x_1, ..., x_T of vectors, about a constant path c_1, ..., c_T, the pivot.

    `first` (T, D) is E[x_t - c_t], `second` (T, D, D) E[(x_t - c_t)(x_t - c_t)'], and `pairs` (D, D) the sum
    over all transitions of E[(x_t - c_t)(x_t+1 - c_t+1)']. `here` (T,) is 1 at the steps that there are and 0
    after a chain's end, a constant. `states` has every step as the statistics of a MultivariateNormal.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> path = jnp.array([[1.0], [2.0], [3.0]])
    >>> t = vb.families.GaussMarkovStatistics.of(path, jnp.ones(3)).about(jnp.zeros((3, 1)))
    >>> print(t.pairs)  # 1 x 2 + 2 x 3
    [[8.]]
    """

    pivot: Float[Array, "*plate t d"]
    first: Float[Array, "*plate t d"]
    second: Float[Array, "*plate t d d"]
    pairs: Float[Array, "*plate d d"]
    here: Float[Array, "*plate t"]
    events = {"first": 2, "second": 3, "pairs": 2}

    @classmethod
    def of(cls, x: ArrayLike, here: Array | None = None) -> GaussMarkovStatistics:
        """Return the statistics of a path (..., T, D): itself as the pivot, no deviation."""
        x = jnp.asarray(x)
        here = jnp.ones(x.shape[:-1], x.dtype) if here is None else here
        second = jnp.zeros((*x.shape, x.shape[-1]), x.dtype)
        return cls(x, jnp.zeros_like(x), second, second[..., 0, :, :], here)

    def of_value(self, x: ArrayLike, point: Value) -> GaussMarkovStatistics:
        x = jnp.asarray(x)
        return self.of(x, jnp.broadcast_to(self.here, x.shape[:-1]))

    @property
    def states(self) -> MultivariateNormalStatistics:
        """The states, (..., T) vectors: locations for the terms of what is observed."""
        return MultivariateNormalStatistics(self.pivot, self.first, self.second)

    def about(self, pivot: Array) -> GaussMarkovStatistics:
        shift, first = self.pivot - pivot, self.first
        moved = self.states.about(pivot)
        before, after = slice(None, -1), slice(1, None)
        goes_on = self.here[..., 1:, None]
        shifted = goes_on * shift[..., after, :]
        pairs = self.pairs + transpose(first[..., before, :] + shift[..., before, :]) @ shifted
        pairs = pairs + transpose(shift[..., before, :]) @ (goes_on * first[..., after, :])
        return GaussMarkovStatistics(pivot, moved.first, moved.second, pairs, self.here)


@pytree
class GaussMarkovState(State[GaussMarkovStatistics]):
    """Gaussian paths about their mean, of log weight sum_t (d_t' coupling d_t+1 - d_t' precision_t d_t / 2).

    With d_t = x_t - mean_t: the precision of the whole path is block tridiagonal. A value is a path (T, D), 0
    where there are no more steps.

    Attributes:
        mean: (T, D).
        precision: the blocks on the diagonal, (T, D, D).
        coupling: minus the block beside the diagonal, (D, D), the same for all transitions.
        extent: how long each chain is, where they are of unequal length.
        found: what the smoother finds of the deviations, where that is known already.

    >>> import jax.numpy as jnp, vbjax as vb
    >>> steps = jnp.ones((2, 1, 1))
    >>> q = vb.families.GaussMarkovState(mean=jnp.zeros((2, 1)), precision=steps, coupling=jnp.array([[0.5]]))
    >>> print(f"{q.variance[0, 0]:.3f}")  # on the diagonal of [[1, -1/2], [-1/2, 1]]^-1
    1.333
    """

    mean: Float[Array, "*plate t d"]  # type: ignore[assignment]
    precision: Float[Array, "*plate t d d"]
    coupling: Float[Array, "*plate d d"]
    extent: Extent | None = None
    found: chains.Posterior | None = None
    domains = {"mean": "location", "precision": "definite", "coupling": "coupling"}

    @property
    def _plate(self) -> tuple[int, ...]:
        return self.mean.shape[:-2]

    @property
    def _here(self) -> Array:
        return _here(self.extent, self.mean.shape[:-1], self.mean.dtype)

    @property
    def location_scale(self) -> Array:
        """Standard deviation of each entry given all others."""
        return 1 / jnp.sqrt(jnp.diagonal(self.precision, axis1=-2, axis2=-1))

    @property
    def _deviations(self) -> tuple[Tree, ...]:
        """Arguments of the functions of `vbjax.chains.gaussian` for the path x - mean."""
        lengths = None if self.extent is None else self.extent.lengths
        return self.precision, self.coupling, jnp.zeros_like(self.mean), lengths

    @property
    def posterior(self) -> chains.Posterior:
        """Entropy, covariances (T, D, D) and those of neighbours (T - 1, D, D)."""
        return (
            over_cells(chains.smoother, self._plate, *self._deviations) if self.found is None else self.found
        )

    def statistics(self, x: ArrayLike) -> GaussMarkovStatistics:
        x = jnp.asarray(x)
        return GaussMarkovStatistics.of(x, jnp.broadcast_to(self._here, x.shape[:-1]))

    def expected(self) -> GaussMarkovStatistics:
        found, nothing = self.posterior, jnp.zeros_like(self.mean)
        pairs = found.cross_covariances.sum(-3)
        return GaussMarkovStatistics(self.mean, nothing, found.covariances, pairs, self._here)

    def log_density(self, statistics: GaussMarkovStatistics) -> Float[Array, "*plate"]:
        t = statistics.about(self.mean)
        square = t.here * (self.precision * t.second).sum((-1, -2))
        volume = self.posterior.entropy - 0.5 * self.mean.shape[-1] * self._here.sum(-1)
        return (self.coupling * t.pairs).sum((-1, -2)) - 0.5 * square.sum(-1) - volume

    def base_entropy(self) -> Float[Array, "*plate"]:
        return self.posterior.entropy

    @property
    def variance(self) -> Float[Array, "*plate t d"]:
        return jnp.diagonal(self.covariance, axis1=-2, axis2=-1)

    @property
    def covariance(self) -> Float[Array, "*plate t d d"]:
        """Covariance of every state, (T, D, D)."""
        return self.posterior.covariances

    @property
    def mode(self) -> Float[Array, "*plate t d"]:
        return self.mean

    def quantile(self, p: ArrayLike) -> Array:
        """Return the value of each entry below which a share `p` of its mass lies."""
        return NormalState(self.mean, 1 / self.variance).quantile(p)

    def draw(self, key: Array, shape: tuple[int, ...]) -> Float[Array, "*draws t d"]:
        return self.mean + draw_paths(chains.sample_paths, self._plate, key, shape, *self._deviations)


def _here(extent: Extent | None, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    """Return 1 at the steps that there are, 0 after the end."""
    if extent is None:
        return jnp.ones(shape, dtype)
    return (jnp.arange(shape[-1]) < extent.lengths[..., None]).astype(dtype)


@dataclasses.dataclass(frozen=True)
class GaussMarkov(ChainFamily[GaussMarkovState, GaussMarkovStatistics]):
    """Path of vectors of `size` for each cell of `plate`: q = a Gaussian with block tridiagonal precision.

    As a local factor of a model of sequences (`vb.Sequences`), `local=dict(x=vb.GaussMarkov(2))`, every row
    has a chain with the steps of its sequence. The term of its prior is `terms.gauss_markov`; its states,
    `s.x.states`, are locations in the terms of what is observed, with `terms.matmul` or `terms.dot`. The
    optimum in q is the posterior of a linear-Gaussian state space model but for E[A'A] in the place of
    E[A]'E[A]: `vbjax.chains.gaussian` has it in information form (Beal 2003, section 5.3).

    Args:
        size: D, entries of a state.
        steps: T, of every chain; None for a local factor of sequences.
        plate: leading axes.

    Raises:
        ValueError: what is no whole number of at least 1.

    References:
        Bishop (2006), section 13.3; Beal (2003), Variational algorithms for approximate Bayesian inference,
        chapter 5; Rue & Held (2005), Gaussian Markov random fields, section 2.4.

    >>> import jax, jax.numpy as jnp, numpy as np, vbjax as vb
    >>> from vbjax.terms import gauss_markov, matmul, multivariate_normal, multivariate_normal_gamma, normal
    >>> zero, eye = jnp.zeros(1), jnp.eye(1)
    >>> model = vb.Model(
    ...     factors=dict(a=vb.MultivariateNormal(1, plate=(1,)), c=vb.MultivariateNormalGamma(1, plate=(2,))),
    ...     local=dict(x=vb.GaussMarkov(1)),
    ...     log_prior=lambda s: (
    ...         multivariate_normal(s.a, zero, eye).sum()
    ...         + multivariate_normal_gamma(s.c, zero, 1e-3 * eye, 1.0, 1.0).sum()
    ...     ),
    ...     log_likelihood=lambda s, y: (
    ...         gauss_markov(s.x, zero, 0.01 * eye, s.a, 1.0)
    ...         + jnp.where(y.seen, normal(y.filled, matmul(s.c, s.x.states)), 0).sum((-2, -1))
    ...     ),
    ... )
    >>> steps, noise = np.random.default_rng(0).normal(size=(2, 100, 2))
    >>> data = vb.Sequences.of([np.cumsum(steps[:, :1], 0) + noise])
    >>> fit = vb.fit(model, data, key=jax.random.key(0))
    >>> fit.model.posterior(fit.params, data).x.mean.shape
    (1, 100, 1)
    """

    size: int = 1
    curvature: ClassVar[str | None] = "second"

    def zero_statistics(self, dtype: DTypeLike) -> GaussMarkovStatistics:
        path = jnp.zeros((*self.plate, self.n_steps, self.size), dtype)
        return GaussMarkovStatistics.of(path, _here(self.extent, path.shape[:-1], path.dtype))

    def chunk_rows(self, usual: int) -> int:
        return max(1, _CHUNK // (self.n_steps * (self.size + 1) ** 2))

    def neutral(self, dtype: DTypeLike) -> GaussMarkovState:
        """Return independent standard normal states, whose moments need no smoother."""
        mean, eye = jnp.zeros((*self.plate, self.n_steps, self.size), dtype), jnp.eye(self.size, dtype=dtype)
        coupling = jnp.zeros((*self.plate, *eye.shape), dtype)
        state = GaussMarkovState(mean, jnp.broadcast_to(eye, (*mean.shape, self.size)), coupling, self.extent)
        if self.extent is None:
            return state
        here = state._here[..., None, None]
        half = 0.5 * self.size * here.sum((-1, -2, -3))
        nothing = jnp.zeros((*self.plate, self.n_steps - 1, *eye.shape), dtype)
        found = chains.Posterior(half * LOG_2PI, half * (1 + LOG_2PI), mean, here * eye, nothing)
        return dataclasses.replace(state, found=found)

    def _found(
        self, pivot: Array, precision: Array, coupling: Array, pull: Array
    ) -> tuple[GaussMarkovState, chains.Posterior]:
        """Return the state of these weights of x - pivot and the smoother's results; local ones hold both."""
        lengths = None if self.extent is None else self.extent.lengths
        found = over_cells(chains.smoother, self.plate, precision, coupling, pull, lengths)
        state = GaussMarkovState(pivot + found.means, precision, coupling, self.extent)
        return state if self.extent is None else dataclasses.replace(state, found=found), found

    def from_gradient(
        self, statistics: GaussMarkovStatistics, gradient: GaussMarkovStatistics, weight: ArrayLike = 1.0
    ) -> GaussMarkovState:
        """Return precision_t = -2 G2_t, coupling = G_pairs, and the mean of the smoother (Beal 2003, 5.3)."""
        copies = jnp.asarray(weight)[..., None, None]
        precision, coupling, pull = self._weights(gradient)
        scaled = precision / copies[..., None], coupling / copies, pull / copies
        return self._found(statistics.pivot, *scaled)[0]

    def _weights(self, gradient: GaussMarkovStatistics) -> tuple[Array, Array, Array]:
        return symmetrize(-2 * gradient.second), gradient.pairs, gradient.first

    def optimum(
        self, statistics: GaussMarkovStatistics, gradient: GaussMarkovStatistics
    ) -> tuple[GaussMarkovState, Array]:
        state, found = self._found(statistics.pivot, *self._weights(gradient))
        return state, found.log_normalizer

    def log_normalizer(
        self, statistics: GaussMarkovStatistics, gradient: GaussMarkovStatistics
    ) -> Float[Array, "*plate"]:
        lengths = None if self.extent is None else self.extent.lengths
        return over_cells(chains.log_normalizer, self.plate, *self._weights(gradient), lengths)
