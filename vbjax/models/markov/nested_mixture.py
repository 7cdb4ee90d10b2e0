"""A mixture in every state of a hidden Markov model, for outputs that are of no one shape."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike
from jaxtyping import Float, Int

from vbjax.core.hyperparameters import count, part
from vbjax.core.rows import Expectation, float_dtype, sum_over_rows
from vbjax.families.base import pytree
from vbjax.families.delta import unless_unknown
from vbjax.models.labels.weights import from_counts
from vbjax.models.markov.emissions import Emissions
from vbjax.models.mixtures.mixture import Mixture
from vbjax.numerics.record import Record


@pytree
class NestedMixture(Emissions):
    """The emissions of K states, each a mixture of M components of its own.

        c_t | z_t ~ Categorical(shares_{z_t}),   x_t | z_t, c_t ~ component (z_t, c_t).

    Labels within a state have their exact posterior, which the bound has summed out: a step's score in state
    k and the responsibilities of its components are

        s_tk = log sum_j exp(E[log share_kj] + E[log p(x_t | component (k, j))]),
        r_tkj = q(z_t = k) exp(E[log share_kj] + E[log p(x_t | component (k, j))] - s_tk),

    and shares and components have the updates of a mixture with these. The factors are `shares` (K, M) and
    `components`, K x M of them: component (k, j) is number k M + j. A "tied" covariance is that of all.

    Starts are those of a mixture of K x M components, k-means++ seeds far from one another. Which of them
    make a state is told by time, as it is in the model: those that are preceded and followed by the same,
    however far apart they lie.

    Args:
        n_components: K, as many as the chain has states.
        mixture: what a state is, a mixture of M components; the prior of its weights is that of every state's
            shares.

    Raises:
        ValueError: what the mixture of K x M components raises; no mixture.

    References:
        Rabiner (1989), A tutorial on hidden Markov models, eq. 49 to 54; Bishop (2006), section 10.2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.HiddenMarkovModel(2, vb.NestedMixture(2, vb.PoissonMixture(3, maximum_likelihood=True)))
    >>> fit = vb.fit(model, x, key=jax.random.key(0))
    >>> fit.params.shares.mean.shape, fit.params.components.mean.shape
    ((2, 3), (6, 1))
    """

    n_components: int = count("k")
    mixture: Any = part(Mixture, "a mixture of this package")

    @property
    def flat(self) -> Any:
        """The mixture of all K x M components, whose weights are of no account."""
        n_components, alpha = self.n_components * self.mixture.n_components, self.mixture.weight_concentration
        alpha = alpha if np.ndim(alpha) == 0 else alpha.mean()
        return dataclasses.replace(self.mixture, n_components=n_components, weight_concentration=alpha)

    def _nested(self, x: Array, axis: int = 0) -> Array:
        """An axis of all components as two: of states, and of what is in them."""
        return x.reshape(*x.shape[:axis], self.n_components, -1, *x.shape[axis + 1 :])

    @property
    def factors(self) -> Record:
        shares = self.mixture.factors["weights"].repeated(self.n_components)
        return Record(shares=shares, components=self.flat.factors["components"])

    @property
    def points(self) -> bool:
        return self.mixture.points

    def read(self, data: Any) -> Any:
        return self.flat.read(data)

    def sizes(self, data: Any) -> dict[str, int]:
        return self.mixture.sizes(data)

    def resolve(self, data: Any, weights: Array | None = None) -> NestedMixture:
        return dataclasses.replace(self, mixture=self.mixture.resolve(data, weights))

    def annotate(self, data: Any, weights: Array | None = None) -> Any:
        return self.flat.annotate(data, weights)

    def chunk_rows(self, data: Any) -> int:
        return self.flat.chunk_rows(data)

    # -- E-step --------------------------------------------------------------------------------------

    def prepare_components(self, params: Any) -> tuple[Any, Any]:
        shares = self.factors["shares"].expected(params["shares"])
        return shares.with_base(0.0), self.flat.prepare_components(params)

    def scored_components(
        self, prepared: tuple[Any, Any], rows: Any
    ) -> tuple[Array, Callable[[Array], Record]]:
        shares, components = prepared
        density, statistics = self.flat.scored_components(components, rows)
        table = shares.log[..., None] + self._nested(density)  # (k, m, n)
        score = logsumexp(table, 1)

        def gradient(r: Float[Array, "k n"]) -> Record:
            within = jnp.exp(table - jnp.where(jnp.isneginf(score), 0, score)[:, None])
            own = r[:, None] * within
            counts = from_counts(shares, own.sum(2))
            return Record(shares=counts) | statistics(own.reshape(density.shape))

        return score, gradient

    # -- M-step --------------------------------------------------------------------------------------

    def components_prior(self, s: Record) -> Float[Array, ""]:
        return self.mixture.weights_log_prior(s.shares) + self.flat.components_prior(s)

    def log_prior(self, s: Record) -> Array:
        return self.components_prior(s)

    def m_step(self, params: Record, statistics: Any, block: Iterable[str]) -> Record:
        block, flat = tuple(block), self.flat
        moved = params
        if "shares" in block:
            shares = super().m_step(params, statistics, ("shares",)).shares
            # of a state that is never visited nobody knows what is in it
            moved |= dict(shares=unless_unknown(shares, params.shares, 1) if self.points else shares)
        if "components" in block:
            components = flat.m_step(flat.evenly(params), statistics, ("components",)).components
            moved |= dict(components=components)
        return moved

    def mix(self, params: Record, moved: Record, rho: ArrayLike, block: Iterable[str]) -> Record:
        block, flat = tuple(block), self.flat
        mixed = super().mix(params, moved, rho, [name for name in block if name == "shares"])
        if "components" in block:
            components = flat.mix(flat.evenly(params), flat.evenly(moved), rho, ("components",)).components
            mixed |= dict(components=components)
        return mixed

    def singular(self, params: Record) -> Array:
        return self.flat.singular(self.flat.evenly(params))

    def ill_conditioned(self, params: Record) -> Array:
        return self.flat.ill_conditioned(self.flat.evenly(params))

    def cancelled(self, params: Any, expectation: Expectation) -> Any:
        return self.flat.cancelled(self.flat.evenly(params), expectation)

    # -- start ---------------------------------------------------------------------------------------

    def init(self, key: Array, data: Any, weights: Array | None = None) -> Record:
        """A start of all components as one mixture, those alike in time in a state; equal shares."""
        flat = self.flat
        components = flat.init(key, data, weights).components
        order = self._order(components, data, weights)
        family = dataclasses.replace(flat, n_components=flat.n_components + 1).factors["components"]
        larger = jax.eval_shape(lambda: family.neutral(float_dtype(data)))

        def renamed(leaf: Array, like: Any) -> Array:
            """In the new order along every axis of components, which alone grow with their number."""
            for axis, size in enumerate(like.shape):
                leaf = leaf if leaf.shape[axis] == size else jnp.take(leaf, order, axis)
            return leaf

        shares = self.factors["shares"].neutral(float_dtype(data))
        return Record(shares=shares, components=jax.tree.map(renamed, components, larger))

    def _order(self, components: Any, data: Any, weights: Array | None) -> Int[Array, " km"]:
        """All components, those of a state in succession: one that is free and those most like it; and again.

        They are alike whose distributions of what is next and of what was before have the largest affinity,
        Bhattacharyya's sum_l (p_il p_jl)^(1/2). The rows are steps in their order.
        """
        flat, m = self.flat, self.mixture.n_components
        prepared = flat.prepare_components(Record(components=components))

        def pairs(rows: Any, w: Array) -> tuple[Array, Array]:
            r = jnp.where(w > 0, jax.nn.softmax(flat.scored_components(prepared, rows)[0], 0), 0)
            weighted = w * r
            return weighted[:, :-1] @ r[:, 1:].T, weighted.sum(1)

        after, n = sum_over_rows(pairs, data, weights, chunk=flat.chunk_rows(data))
        profile = jnp.sqrt(jnp.concatenate([after, after.T], 1) / n[:, None])
        affinity = profile @ profile.T

        def take(free: Array, _: None) -> tuple[Array, Array]:
            first = jnp.argmax(free)
            alike = jnp.where(free, affinity[first], -jnp.inf).at[first].set(jnp.inf)
            own = lax.top_k(alike, m)[1]
            return free.at[own].set(False), own

        free = jnp.ones(flat.n_components, bool)
        return lax.scan(take, free, length=self.n_components)[1].reshape(-1)

    # -- use -----------------------------------------------------------------------------------------

    @property
    def n_component_parameters(self) -> int:
        shares = self.n_components * (self.mixture.n_components - 1)
        return shares + self.flat.n_component_parameters

    def log_components(self, params: Record, rows: Any) -> Float[Array, "n k"]:
        density = self.flat.log_components(self.flat.evenly(params), rows)
        return logsumexp(jnp.log(params["shares"].mean) + self._nested(density, 1), -1)

    def draw_parameters(self, params: Record, key: Array) -> tuple[Array, Any]:
        keys = jax.random.split(key)
        own = self.flat.draw_parameters(self.flat.evenly(params), keys[1])
        return jnp.log(params["shares"].sample(keys[0])), own

    def redraw_rows(self, parameters: Any, key: Array, c: Int[Array, " n"], rows: Any) -> Any:
        (shares, own), keys = parameters, jax.random.split(key)
        within = jax.random.categorical(keys[0], shares[c])
        return self.flat.redraw_rows(own, keys[1], c * self.mixture.n_components + within, rows)

    def read_given(self, given: Any, n: int) -> Any:
        return self.mixture.read_given(given, n)

    def draw_rows(self, params: Record, key: Array, c: Int[Array, " n"], given: Any = None) -> Any:
        keys = jax.random.split(key)
        within = jax.random.categorical(keys[0], jnp.log(params["shares"].mean)[c])
        component = c * self.mixture.n_components + within
        return self.flat.draw_rows(self.flat.evenly(params), keys[1], component, given)
