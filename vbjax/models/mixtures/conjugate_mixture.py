"""Bayesian mixtures of any conjugate component: all but what the component itself is.

A component type gives its family, its prior, and a contracted table of expected log densities; its
predictive density and sampler are those of one component, mapped over components by a loop, so that nothing
of the size rows x components x columns is ever made. The updates and the bound are derived.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from vbjax.core.hyperparameters import choice, count, flag, hyper, read_columns, size_of
from vbjax.core.rows import Expectation, blank_idle, expectation, float_dtype, n_rows
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.families.base import Family, pytree
from vbjax.families.categorical import CategoricalStatistics
from vbjax.families.delta import Delta, DeltaState, unless_unknown
from vbjax.families.dirichlet import Dirichlet
from vbjax.models.labels.weights import (
    KINDS,
    concentration_of,
    default_concentration,
    weights_family,
    weights_prior,
)
from vbjax.models.mixtures.mixture import Mixture, labelled_rows
from vbjax.models.mixtures.seeding import plus_plus
from vbjax.numerics.inputs import is_concrete
from vbjax.numerics.record import Record


class Annotated(NamedTuple):
    """Rows, and the part of each one's log density that is the same for every component, (n,).

    Of counts also the largest of each row.
    """

    rows: Any
    constant: Array
    largest: Array | None = None


@pytree
class ConjugateMixture(Mixture):
    """x_n | c_n ~ component c_n, whose parameters have a conjugate prior; weights as `weight_prior` says.

    q(labels) q(weights) prod_k q(component k), with responsibilities and weights

        r_nk proportional to exp(E[log weights_k] + E[log p(x_n | component k)]),   N_k = sum_n r_nk,
        Dirichlet: alpha_k = alpha0 + N_k;  process: v_j ~ Beta(1 + N_j, alpha0 + sum_{l > j} N_l).

    Attributes:
        n_components: k, an upper bound.
        maximum_likelihood: whether weights and parameters are points that maximise the likelihood, by EM: the
            priors then shape the start alone, and the objective is the log likelihood.
        weight_prior: "dirichlet", or "dirichlet_process" truncated at k.
        weight_concentration: alpha0, a number, or (k,) of a Dirichlet; by default 1 / k of every component, 1
            of the process.
    """

    n_components: int = count("k")
    maximum_likelihood: bool = flag(kw_only=True)
    weight_prior: str = choice(*KINDS, kw_only=True)
    weight_concentration: Any = hyper(None, concentration_of, kw_only=True)

    # -- what a component type says ------------------------------------------------------------------

    @property
    def component_family(self) -> Family:
        """The family of the components' parameters, its plate beginning with k."""
        raise TypeError("given by the subclass")

    @property
    def component_prior(self) -> Any:
        """The components' prior, a state of that family."""
        raise TypeError("given by the subclass")

    def defaults(self, data: Any, weights: Array | None) -> dict[str, Any]:
        """Every hyperparameter of the components, as it is by default, in the shape that it must have."""
        raise TypeError("given by the subclass")

    def constant(self, rows: Any) -> Array | None:
        """What `table` leaves out of every row's log density, (n,); None where that is nothing."""
        return None

    def log_predictive_of(self, component: Any, rows: Any) -> Float[Array, " n"]:
        """Log predictive density of rows under one component, (n,)."""
        raise TypeError("given by the subclass")

    def draw(self, key: Array, parameters: Any) -> Array:
        """A row for each of n draws of a component's parameters."""
        raise TypeError("given by the subclass")

    def seeds(self, key: Array, data: Any, weights: Array | None) -> Any:
        """Rows in groups of k, one of each group for each component: what they begin with."""
        scale = positive_scale(weighted_moments(data, weights)[1])
        return plus_plus(key, data, self.n_components, weights, scale)

    # -- what follows --------------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        """The number of columns, once it is known."""
        size = size_of(self, "d")[0]
        if size is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return size

    @property
    def factors(self) -> Record:
        weights, components = weights_family(self.weight_prior, self.n_components), self.component_family
        if self.points:
            return Record(weights=Delta(weights), components=Delta(components))
        return Record(weights=weights, components=components)

    @property
    def points(self) -> bool:
        return self.maximum_likelihood

    def read(self, data: Any) -> Any:
        return read_columns(self, data)

    def sizes(self, data: Any) -> dict[str, int]:
        return dict(d=data.shape[-1])

    def resolve(self, data: Any, weights: Array | None = None) -> Any:
        concentration = default_concentration(self.weight_prior, self.n_components)
        defaults = dict(weight_concentration=concentration) | self.defaults(data, weights)
        return fill_defaults(self, float_dtype(data), **defaults)

    def annotate(self, data: Any, weights: Array | None = None) -> Any:
        constant = self.constant(data if weights is None else blank_idle(data, weights))
        return data if constant is None else Annotated(data, constant)

    def _split(self, rows: Any) -> tuple[Any, Array | None]:
        return (rows.rows, rows.constant) if isinstance(rows, Annotated) else (rows, self.constant(rows))

    def log_likelihood(self, s: Record, rows: Any) -> Float[Array, " n"]:
        rows, constant = self._split(rows)
        labelled = super().log_likelihood(s, rows)
        return labelled if constant is None else labelled + constant

    def e_step(self, prepared: Record, rows: Any, weights: Array) -> Expectation:
        rows, constant = self._split(rows)
        energy = lambda s: s.weights.log[:, None] + self.table(s.components, rows).T
        return labelled_rows(energy, prepared, constant, weights)

    def scored_components(self, prepared: Any, rows: Any) -> tuple[Array, Callable[[Array], Record]]:
        rows, constant = self._split(rows)
        density, gradient = jax.vjp(lambda components: self.table(components, rows).T, prepared)
        statistics = lambda r: Record(components=gradient(r)[0])
        return density if constant is None else density + constant, statistics

    def weights_log_prior(self, weights: Any) -> Float[Array, ""]:
        if self.points:
            return jnp.zeros((), float_dtype(weights))
        prior = weights_prior(self.weight_prior, self.n_components, self.weight_concentration)
        return (prior.log_density(weights) + weights.base).sum()

    @property
    def n_component_parameters(self) -> int:
        family = self.component_family
        shapes = jax.eval_shape(lambda: family.neutral(float).mean)
        bound = math.prod(family.plate) if isinstance(family, Dirichlet) else 0  # each adds up to one
        return sum(leaf.size for leaf in jax.tree.leaves(shapes)) - bound

    def components_prior(self, s: Record) -> Float[Array, ""]:
        if self.points:
            return jnp.zeros((), float_dtype(s.components))
        return (self.component_prior.log_density(s.components) + s.components.base).sum()

    def m_step(self, params: Record, statistics: Any, block: Iterable[str]) -> Record:
        moved = super().m_step(params, statistics, block)
        if not self.points or "components" not in block:
            return moved
        components = unless_unknown(self.bounded(moved.components), params.components, 1)
        return moved | dict(components=components)  # without rows a component keeps its parameters

    def bounded(self, components: DeltaState) -> DeltaState:
        """Points within the bounds that keep a likelihood finite, where a component type has some."""
        return components

    def init(self, key: Array, data: Any, weights: Array | None = None) -> Record:
        """Every component is the prior and a seed or two: rows far from one another, by k-means++.

        Points start at the moments of the rows that these components would take.
        """
        rows = self.seeds(key, data.rows if isinstance(data, Annotated) else data, weights)
        return self.init_at(rows, data, weights)

    def init_at(self, rows: Any, data: Any, weights: Array | None = None) -> Record:
        """The same from given seeds."""
        dtype, k = float_dtype(data), self.n_components
        if self.points:
            full = dataclasses.replace(self, maximum_likelihood=False)
            start = full.init_at(rows, data, weights)
            total = expectation(full, start, data, weights)
            params = Record({name: family.neutral(dtype) for name, family in self.factors.items()})
            if hasattr(start.components, "location"):  # the pivot about which the statistics are
                at = dataclasses.replace(params.components.at, location=start.components.location)
                params |= dict(components=DeltaState(at))
            return self.m_step(params, total.statistics, ("weights", "components"))
        params = Record({name: family.neutral(dtype) for name, family in self.factors.items()})
        labels = CategoricalStatistics(jax.nn.one_hot(jnp.arange(n_rows(rows)) % k, k, dtype=dtype))
        gradient = self.gradient_at(self.prepare(params), Record(c=labels), rows)
        return self.m_step(params, gradient, ("weights", "components"))

    def log_components(self, params: Record, rows: Any) -> Float[Array, "n k"]:
        if self.points:
            table = self.table(self.prepare_components(params), rows)
            constant = self.constant(rows)
            return table if constant is None else table + constant[:, None]
        return jax.lax.map(lambda component: self.log_predictive_of(component, rows), params.components).T

    def draw_parameters(self, params: Record, key: Array) -> Any:
        return params.components.sample(key)

    def redraw_rows(self, parameters: Any, key: Array, c: Array, rows: Any) -> Any:
        return self.draw(key, jax.tree.map(lambda leaf: leaf[c], parameters))

    def draw_rows(self, params: Record, key: Array, c: Array, given: Any = None) -> Array:
        keys = jax.random.split(key)
        own = jax.tree.map(lambda leaf: leaf[c], params.components)
        return self.draw(keys[1], own.sample(keys[0]))


# -- for the component types -----------------------------------------------------------------------------


def over_components(prior: Any, k: int) -> Any:
    """One state for every component: a leading axis of k."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (k, *jnp.shape(leaf))), prior)


def require(condition: Callable[[Any], Any], x: Array, what: str) -> None:
    """Raise where an entry does not obey the condition, as far as its value may be looked at."""
    if is_concrete(x) and not (fine := condition(np.asarray(x))).all():
        raise ValueError(f"{what}; got {np.asarray(x)[~fine][0]}")


def is_count(x: Any) -> Any:
    """Tell which numbers are 0, 1, 2, ..."""
    return (x >= 0) & (x == np.round(x))
