"""A mixture in every law: for rows that are of no one shape, such as the steps of a hidden Markov model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import logsumexp
from jaxtyping import Bool, Float, Int

from vbjax.core.hyperparameters import count, part
from vbjax.core.rows import Expectation, float_dtype, sum_over_rows
from vbjax.families.base import pytree, replace
from vbjax.models.components.component import Component, Pullback
from vbjax.models.components.seeding import Distance
from vbjax.models.components.union import Union
from vbjax.models.labels.weights import MixingWeights, Weights, from_counts
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


@pytree
class Mixture(Component):
    """Rows of K laws, each a mixture of M components of its own.

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
        n_components: M, of every law.
        component: what a row is like in each of the K M components.
        weights: what the shares are drawn from.

    Raises:
        ValueError: what the component raises.

    References:
        Rabiner (1989), A tutorial on hidden Markov models, eq. 49 to 54; Bishop (2006), section 10.2.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.earthquakes()
    >>> model = vb.HiddenMarkovModel(2, vb.components.Mixture(3, vb.components.Poisson()))
    >>> fit = vb.fit(model, x, key=jax.random.key(0))
    >>> fit.params.shares.mean.shape, fit.params.components.mean.shape
    ((2, 3), (6, 1))
    """

    n_components: int = count("k")
    component: Any = part(
        Component,
        "a component of laws of one kind, such as vb.components.Gaussian()",
        lambda model, value: not isinstance(value, (Mixture, Union)),
    )
    weights: Any = part(
        MixingWeights,
        "labels, of which all components are active, such as vb.labels.Weights()",
        lambda model, labels: labels.active is None,
        default=Weights(),
    )

    def of(self, n_laws: int, points: bool, active: Array | None = None) -> Mixture:
        component, weights = self.component, self.weights
        sizes = n_laws, self.n_components  # which are read later, and may be no numbers before
        if isinstance(component, Component) and all(isinstance(size, int) for size in sizes):
            own = None if active is None else active * self.n_components
            component = component.of(n_laws * self.n_components, points, own)
        if isinstance(weights, MixingWeights):
            weights = weights.of(self.n_components, points)
        return replace(
            self, n_laws=n_laws, points=points, active=active, component=component, weights=weights
        )

    def _nest(self, x: Array, axis: int = 0) -> Array:
        """Return an array with an axis of all components as two: of laws, and of what is in them."""
        return x.reshape(*x.shape[:axis], self.n_laws, -1, *x.shape[axis + 1 :])

    @property
    def factors(self) -> Record:
        return Record(shares=self.weights.factor.repeated(self.n_laws)) | self.component.factors

    @property
    def has_prior(self) -> bool:
        return self.weights.has_prior or self.component.has_prior

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Data) -> Data:
        return self.component.read(data)

    def sizes(self, data: Data) -> dict[str, int]:
        return self.component.sizes(data)

    def inspect(self, data: Data) -> Mixture:
        return replace(self, component=self.component.inspect(data))

    def resolve(self, data: Data, weights: Array | None = None) -> Mixture:
        component = self.component.resolve(data, weights)
        return replace(self, component=component, weights=self.weights.resolve(float_dtype(data)))

    def annotate(self, data: Data, weights: Array | None = None) -> Data:
        return self.component.annotate(data, weights)

    def bare(self, rows: Data) -> Data:
        return self.component.bare(rows)

    def split(self, rows: Data) -> tuple[Any, Float[Array, " n"] | None]:
        return self.component.split(rows)

    def chunk_rows(self, data: Data) -> int:
        return self.component.chunk_rows(data)

    @property
    def undrawable(self) -> str | None:
        return self.component.undrawable

    # -- E-step --------------------------------------------------------------------------------------

    def energy(self, s: Record, rows: Data) -> Float[Array, "n k"]:
        return logsumexp(s.shares.log + self._nest(self.component.energy(s, rows), 1), -1)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return self.weights.log_prior_of(s.shares) + self.component.log_prior(s)

    def prepare(self, params: Params) -> tuple[Tree, Tree]:
        shares = self.factors["shares"].expected(params["shares"])
        return shares.with_base(0.0), self.component.prepare(params)

    def log_density(self, prepared: tuple[Tree, Tree], rows: Data) -> tuple[Float[Array, "k n"], Pullback]:
        shares, components = prepared
        density, statistics = self.component.log_density(components, rows)
        table = shares.log[..., None] + self._nest(density)  # (k, m, n)
        score = logsumexp(table, 1)

        def gradient(r: Float[Array, "k n"]) -> Record:
            within = jnp.exp(table - jnp.where(jnp.isneginf(score), 0, score)[:, None])
            own = r[:, None] * within
            counts = from_counts(shares, own.sum(2))
            return Record(shares=counts) | statistics(own.reshape(density.shape))

        return score, gradient

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        return self.component.cancelled(params, expectation)

    # -- M-step --------------------------------------------------------------------------------------

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        return self.component.constrain(params, before)

    def singular(self, params: Params) -> Bool[Array, ""]:
        return self.component.singular(params)

    def ill_conditioned(self, params: Params) -> Bool[Array, ""]:
        return self.component.ill_conditioned(params)

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        flat = self._nest(jnp.arange(self.component.n_laws))[order].reshape(-1)
        shares = jax.tree.map(lambda leaf: leaf[order], params["shares"])
        return Record(shares=shares) | self.component.permute(params, flat)

    # -- start ---------------------------------------------------------------------------------------

    def start(self, key: Array, data: Data, weights: Array | None = None) -> Record:
        """Draw a start of all components as of one mixture, those alike in time in a law; equal shares."""
        own = self.component.start(key, data, weights)
        return self._with_equal_shares(self.component.permute(own, self._order(own, data, weights)))

    def distance(self, data: Data, weights: Array | None) -> Distance | None:
        return self.component.distance(data, weights)

    @property
    def rows_to_start(self) -> int:
        return self.n_components * self.component.rows_to_start

    def start_at(self, seeds: Data, data: Data, weights: Array | None = None) -> Record:
        def by_component(x: Array) -> Array:  # one in turn for each law, to one in turn for each component
            turns = x.reshape(-1, self.n_components, self.n_laws, *x.shape[1:])
            return turns.swapaxes(1, 2).reshape(x.shape)

        return self._with_equal_shares(
            self.component.start_at(jax.tree.map(by_component, seeds), data, weights)
        )

    def _with_equal_shares(self, own: Record) -> Record:
        return Record(shares=self.factors["shares"].neutral(float_dtype(own))) | own

    def _order(self, params: Params, data: Data, weights: Array | None) -> Int[Array, " km"]:
        """Return an order of all components: one that is free and those most like it, and again.

        They are alike whose distributions of what is next and of what was before have the largest affinity,
        Bhattacharyya's sum_l (p_il p_jl)^(1/2). The rows are steps in their order.
        """
        flat, m = self.component, self.n_components
        prepared = flat.prepare(params)

        def pairs(rows: Data, w: Array) -> tuple[Array, Array]:
            density = flat.where_active(flat.log_density(prepared, rows)[0])
            r = jnp.where(w > 0, jax.nn.softmax(density, 0), 0)
            weighted = w * r
            return weighted[:, :-1] @ r[:, 1:].T, weighted.sum(1)

        after, n = sum_over_rows(pairs, data, weights, chunk=self.chunk_rows(self.bare(data)))
        profile = jnp.sqrt(jnp.concatenate([after, after.T], 1) / jnp.where(n > 0, n, 1)[:, None])
        affinity = profile @ profile.T

        def take(free: Array, _: None) -> tuple[Array, Array]:
            first = jnp.argmax(free)
            alike = jnp.where(free, affinity[first], -jnp.inf).at[first].set(jnp.inf)
            own = lax.top_k(alike, m)[1]
            return free.at[own].set(False), own

        free = jnp.ones(flat.n_laws, bool)
        return lax.scan(take, free, length=self.n_laws)[1].reshape(-1)

    # -- use -----------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        return self.n_laws * (self.n_components - 1) + self.component.n_parameters

    def log_components(self, params: Params, rows: Data) -> Float[Array, "n k"]:
        density = self.component.log_components(params, rows)
        return logsumexp(jnp.log(params["shares"].mean) + self._nest(density, 1), -1)

    def draw_parameters(self, params: Params, key: Array) -> tuple[Array, Any]:
        keys = jax.random.split(key)
        own = self.component.draw_parameters(params, keys[1])
        return jnp.log(params["shares"].sample(keys[0])), own

    def redraw_rows(self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Data) -> Data:
        (shares, own), keys = parameters, jax.random.split(key)
        within = jax.random.categorical(keys[0], shares[c])
        return self.component.redraw_rows(own, keys[1], c * self.n_components + within, rows)

    def read_given(self, given: Given, n: int) -> Given:
        return self.component.read_given(given, n)

    def draw_rows(self, params: Params, key: Array, c: Int[Array, " n"], given: Given = None) -> Data:
        keys = jax.random.split(key)
        within = jax.random.categorical(keys[0], jnp.log(params["shares"].mean)[c])
        return self.component.draw_rows(params, keys[1], c * self.n_components + within, given)
