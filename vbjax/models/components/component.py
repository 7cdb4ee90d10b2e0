"""The contract of a component: what a row is like, given which of k laws it follows.

A component says which family holds the parameters of its laws, what their prior is, and gives the table of
expected log densities of some rows under all k laws, with its pullback from responsibilities to statistics.
Models hold components: a mixture draws the law of every row from weights, a hidden Markov model from a chain.
They tell a component how many laws there are and whether their parameters are points (`Component.of`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from vbjax.core.devices import take_rows
from vbjax.core.hyperparameters import read_columns, size_of
from vbjax.core.model import ConjugateModel
from vbjax.core.presentation import model_repr
from vbjax.core.rows import Annotated, Expectation, blank_idle, float_dtype, n_rows, sum_over_rows
from vbjax.data.moments import fill_defaults, positive_scale, weighted_moments
from vbjax.data.sequences import Sequences, Steps
from vbjax.families.base import Family, pytree, replace, static
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet
from vbjax.models.components.seeding import Distance, draw_labelled_seeds, draw_seeds, squared_distance
from vbjax.models.labels.labels import first_active
from vbjax.numerics.inputs import is_concrete, values_here
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree

Pullback = Callable[[Float[Array, "k n"]], Record]
"""From responsibilities to the gradient in the statistics of the parameters."""


@pytree
class Component:
    """Laws of a row, k of them; `family`, `prior` and `table` make one whose parameters are of one family.

    Attributes:
        n_laws: k, set by the model that holds the component.
        points: whether the parameters are points that maximise the likelihood (EM), set by that model. The
            priors then shape the start alone.
        active: how many of the laws, the first ones, a start is made for, set by that model where it is not
            all of them.

    >>> import vbjax as vb
    >>> poisson = vb.components.Poisson().of(3, points=False)  # as a Bayesian mixture of three holds it
    >>> poisson.resolve(vb.datasets.old_faithful()).factors
    Record(components=Gamma(plate=(3, 2)))
    """

    n_laws: int = static(default=1, kw_only=True, repr=False)
    points: bool = static(default=False, kw_only=True, repr=False)
    active: Array | None = dataclasses.field(default=None, kw_only=True, repr=False)

    def __repr__(self) -> str:
        return model_repr(self, "components.")

    def of(self, n_laws: int, points: bool, active: Array | None = None) -> Component:
        """Return the component with this number of laws, of points or of distributions."""
        return replace(self, n_laws=n_laws, points=points, active=active)

    @property
    def may_be_idle(self) -> bool:
        """Whether a start may be made for some of the laws alone."""
        return True

    @property
    def n_active(self) -> int | Array:
        """Number of laws that a start is made for."""
        return self.n_laws if self.active is None else self.active

    def where_active(self, x: Float[Array, "k ..."], otherwise: float = -jnp.inf) -> Float[Array, "k ..."]:
        """Return an array over laws, its first axis, with a value in place of those that are left out."""
        mask = first_active(self.n_laws, self.active)
        if mask is None:
            return x
        return jnp.where(mask.reshape(-1, *[1] * (x.ndim - 1)), x, jnp.asarray(otherwise, x.dtype))

    # -- what a component says whose parameters are of one family --------------------------------------

    if TYPE_CHECKING:  # those made of several have the methods instead that models call

        @property
        def family(self) -> Family:
            """The family of the parameters, its plate beginning with k."""

        @property
        def prior(self) -> Tree:
            """The prior of the parameters of one or all laws, a state of that family."""

        def table(self, statistics: Tree, rows: Data) -> Float[Array, "n k"]:
            """Compute E[log p(row | law)] from the statistics of `components`, but for `constant`."""

        def log_predictive_of(self, state: Tree, rows: Data) -> Float[Array, " n"]:
            """Compute the log predictive density of rows under one law, its parameters integrated out."""

        def draw(self, key: Array, parameters: Tree, given: Given) -> Data:
            """Draw what a component models of a row, for each of n values of the parameters."""

    @property
    def has_prior(self) -> bool:
        """Whether the parameters, if they are points, maximise a posterior density."""
        return False

    def defaults(self, data: Data, weights: Float[Array, " n"] | None) -> dict[str, Tree]:
        """Return every hyperparameter that follows the data as it is by default, in its full shape."""
        return {}

    def constant(self, rows: Data) -> Float[Array, " n"] | None:
        """Return what `table` leaves out of every row's log density; None where that is nothing."""
        return None

    def distance(self, data: Data, weights: Float[Array, " n"] | None) -> Distance | None:
        """Return how far rows are from one another, for seeds; None where any rows are as good as others."""
        return squared_distance(data, positive_scale(weighted_moments(data, weights)[1]))

    @property
    def rows_to_start(self) -> int:
        """The number of rows that one law starts from."""
        return 1

    # -- data ----------------------------------------------------------------------------------------

    @property
    def columns(self) -> int:
        """The number of columns, once it is known."""
        size = size_of(self, "d")[0]
        if size is None:
            raise ValueError("the model has not seen data yet: use fit.model, or model.resolve(data)")
        return size

    def read(self, data: Data) -> Data:
        """Return the rows as arrays of one dtype; raise a ValueError that names what is wrong with them."""
        return read_columns(self, data)

    def sizes(self, data: Data) -> dict[str, int]:
        """Return the sizes of the axes that the data give."""
        return dict(d=data.shape[-1])

    def inspect(self, data: Data) -> Component:
        """Return the component, with the structure filled in that follows the values of the data."""
        return self

    def resolve(self, data: Data, weights: Float[Array, " n"] | None = None) -> Component:
        """Return the component with every default filled in that follows the data, in their dtype."""
        return fill_defaults(self, float_dtype(data), **self.defaults(data, weights))

    def annotate(self, data: Data, weights: Float[Array, " n"] | None = None) -> Data:
        """Return the rows with what is constant in each beside them."""
        constant = self.constant(data if weights is None else blank_idle(data, weights))
        return data if constant is None else Annotated(data, constant)

    def bare(self, rows: Data) -> Data:
        """Return rows without what `annotate` puts beside them."""
        return rows.rows if isinstance(rows, Annotated) else rows

    def split(self, rows: Data) -> tuple[Any, Float[Array, " n"] | None]:
        """Return rows, and the constant of each."""
        return (rows.rows, rows.constant) if isinstance(rows, Annotated) else (rows, self.constant(rows))

    def chunk_rows(self, data: Data) -> int:
        """Return how many rows a pass takes at a time, so that they stay in a core's cache."""
        usual = ConjugateModel.chunk_rows(ConjugateModel(), data)
        return max(1, min(usual, 1024 * usual // self.n_laws))  # of more laws the table fills the cache

    @property
    def undrawable(self) -> str | None:
        """Reason why no parameters can be drawn given rows and their laws; None where they can."""
        return None

    # -- E-step --------------------------------------------------------------------------------------

    @property
    def factors(self) -> Record:
        """The factors of the parameters, by name."""
        return Record(components=Delta(self.family) if self.points else self.family)

    def energy(self, s: Record, rows: Data) -> Float[Array, "n k"]:
        """Compute `table` from the statistics of all factors, in the derived form that is its oracle."""
        return self.table(s.components, rows)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        """Compute E[log p] of the parameters from their statistics; 0 for points."""
        if self.points:
            return jnp.zeros((), float_dtype(s.components))
        return (self.prior.log_density(s.components) + s.components.base).sum()

    def prepare(self, params: Params) -> Tree:
        """Return what `log_density` needs of the parameters, made once for all rows."""
        return self.factors["components"].expected(params["components"]).with_base(0.0)

    def log_density(self, prepared: Tree, rows: Data) -> tuple[Float[Array, "k n"], Pullback]:
        """Compute E[log p(row | law)] of some rows, and its pullback."""
        rows, constant = self.split(rows)
        density, gradient = jax.vjp(lambda t: self.table(t, rows).T, prepared)
        pull = lambda r: Record(components=gradient(r)[0])
        return density if constant is None else density + constant, pull

    def cancelled(self, params: Params, expectation: Expectation) -> Tree:
        """Return what cancels within rows and is large, the sum of its absolute terms."""
        return 0.0

    # -- M-step of points ----------------------------------------------------------------------------

    def constrain(self, params: Record, before: Record | None = None) -> Record:
        """Return parameters after an update, points within the bounds that keep the likelihood finite.

        Args:
            params: as the update of their factors has them.
            before: the parameters before that; None at a start.
        """
        return params

    def singular(self, params: Params) -> Bool[Array, ""]:
        """Return whether the parameters lie on a boundary where the objective is not to be trusted."""
        return jnp.asarray(False)

    def ill_conditioned(self, params: Params) -> Bool[Array, ""]:
        """Return whether the parameters are beyond what their dtype can tell."""
        return jnp.asarray(False)

    def permute(self, params: Params, order: Int[Array, " k"]) -> Record:
        """Return the parameters with the laws in another order."""
        return Record(components=jax.tree.map(lambda leaf: leaf[order], params["components"]))

    # -- start ---------------------------------------------------------------------------------------

    def begin(
        self, key: Array, data: Data, weights: Float[Array, " n"] | None, labels: Int[Array, " n"] | None
    ) -> Record:
        """Draw parameters to start from, by the labels of rows where there are some."""
        if labels is None:
            return self.start(key, data, weights)
        return self.start_labelled(key, data, weights, labels)

    def start(self, key: Array, data: Data, weights: Float[Array, " n"] | None = None) -> Record:
        """Draw parameters to start from: the prior and a seed or two, rows far from one another.

        Points start at the moments of the rows that these laws would take.
        """
        rows = self.bare(data)
        distance, each = self.distance(rows, weights), self.rows_to_start
        seeds = draw_seeds(key, rows, weights, distance, self.n_laws, each)
        return self.start_at(take_rows(rows, seeds), data, weights)

    def start_labelled(
        self, key: Array, data: Data, weights: Float[Array, " n"] | None, labels: Int[Array, " n"]
    ) -> Record:
        """Draw parameters to start from: a law of a known label at rows with it, others at rows without."""
        rows = self.bare(data)
        mass = jnp.ones(n_rows(rows), float_dtype(rows)) if weights is None else weights
        distance, each = self.distance(rows, weights), self.rows_to_start
        seeds = draw_labelled_seeds(key, mass, distance, self.n_laws, each, labels)
        return self.start_at(take_rows(rows, seeds), data, weights)

    def start_at(self, seeds: Data, data: Data, weights: Float[Array, " n"] | None = None) -> Record:
        """Return the parameters that start from given rows, of which one in turn is for each law."""
        dtype, k = float_dtype((self, data)), self.n_laws
        full = self.of(k, False, self.active)
        t = full.family.expected(full.family.neutral(dtype)).with_base(0.0)
        group = self.where_active(jax.nn.one_hot(jnp.arange(n_rows(seeds)) % k, k, dtype=dtype).T, 0.0).T
        rows = jax.grad(lambda t: (group * full.table(t, seeds)).sum())(t)
        prior = jax.grad(lambda t: full.log_prior(Record(components=t)))(t)
        state = full.family.from_gradient(t, jax.tree.map(jnp.add, rows, prior))
        if not self.points:
            return Record(components=state)
        prepared = full.prepare(Record(components=state))

        def statistics(rows: Data, w: Array) -> Record:
            density, pull = full.log_density(prepared, rows)
            return pull(w * jax.nn.softmax(self.where_active(density), 0))

        gradient = sum_over_rows(statistics, data, weights, chunk=self.chunk_rows(self.bare(data)))
        family = self.factors["components"]
        moved = family.update(family.neutral(dtype), state.expected(), gradient["components"])
        return self.constrain(Record(components=moved))

    # -- use -----------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        """The number of free parameters of all laws."""
        family = self.family
        shapes = jax.eval_shape(lambda: family.neutral(float).mean)
        bound = math.prod(family.plate) if isinstance(family, Dirichlet) else 0  # each adds up to one
        return sum(leaf.size for leaf in jax.tree.leaves(shapes)) - bound

    def log_components(self, params: Params, rows: Data) -> Float[Array, "n k"]:
        """Compute the log predictive density of rows under every law."""
        if self.points:
            return self.log_density(self.prepare(params), rows)[0].T
        return jax.lax.map(lambda state: self.log_predictive_of(state, rows), params["components"]).T

    def draw_parameters(self, params: Params, key: Array) -> Tree:
        """Draw the parameters of all laws from q, leaves (k, ...)."""
        return params["components"].sample(key)

    def redraw_rows(self, parameters: Tree, key: Array, c: Int[Array, " n"], rows: Data) -> Data:
        """Draw rows anew from the given laws (n,), at the same parameters for all rows.

        Args:
            parameters: of all laws, from `draw_parameters`.
            key: PRNG key.
            c: the law of every row.
            rows: the data, for what stays: totals of a multinomial, x of a regression.
        """
        return self.draw(key, jax.tree.map(lambda leaf: leaf[c], parameters), self.given_of(rows))

    def given_of(self, rows: Data) -> Tree:
        """Return what of some rows is not modelled: x of a regression, totals of a multinomial."""
        return None

    def read_given(self, given: Given, n: int) -> Given:
        """Read what n rows are drawn for beside their law: x of a regression, totals of a multinomial.

        Raises:
            ValueError: where they are drawn for nothing else, or it is not such a thing.
        """
        if given is not None:
            raise ValueError(f"given must be None: {type(self).__name__} models all of a row")

    def draw_rows(self, params: Params, key: Array, c: Int[Array, " n"], given: Given = None) -> Data:
        """Draw a row from each of the given laws (n,), each with parameters of its own drawn from q."""
        keys = jax.random.split(key)
        own = jax.tree.map(lambda leaf: leaf[c], params["components"])
        return self.draw(keys[1], own.sample(keys[0]), given)

    # -- steps of sequences --------------------------------------------------------------------------

    n_before: ClassVar[int] = 0
    """How many steps before a step it depends on."""

    def read_steps(self, data: Sequences) -> Data:
        """Return the observed steps of all sequences, end to end, as `read` does."""
        return self.read(data.steps())

    def rows_of(self, part: Steps) -> tuple[Any, Bool[Array, "n t"]]:
        """Return the rows of all sequences end to end, padding too; and where there is one, (n, t)."""
        return part.flat, part.observed

    def annotate_steps(self, part: Steps) -> Steps:
        """Return sequences with what is constant in each step beside it."""
        rows, seen = self.rows_of(part)
        flat = self.annotate(rows, seen.reshape(-1).astype(float_dtype(part)))
        return part._replace(values=jax.tree.map(lambda x: x.reshape(*seen.shape, *x.shape[1:]), flat))

    def steps_among(self, rows: Data) -> Data:
        """Return the steps of which rows are made."""
        return rows

    def steps_before(self, data: Sequences) -> Tree:
        """Return the last steps of every sequence, on which the next one depends; None where on none.

        Raises:
            ValueError: where one of them is missing.
        """
        return None

    def read_beginning(self, given: Given, n: int) -> tuple[Tree, Tree]:
        """Read what n steps of a new sequence are drawn for: the steps before them, and `read_given`."""
        return None, self.read_given(given, n)

    def draw_steps(
        self, params: Params, key: Array, states: Int[Array, "*n t"], before: Tree = None, given: Given = None
    ) -> Data:
        """Draw steps in the given states, (..., t, ...); `given` has one entry for each t."""
        repeat = lambda x: jnp.broadcast_to(x, (*states.shape, *x.shape[1:])).reshape(-1, *x.shape[1:])
        given = jax.tree.map(repeat, given)
        drawn = self.draw_rows(params, key, states.reshape(-1), given)
        return jax.tree.map(lambda x: x.reshape(*states.shape, *x.shape[1:]), drawn)


# -- for the components ----------------------------------------------------------------------------------


def for_every_law(prior: Tree, k: int) -> Tree:
    """Return a state with a leading axis of k laws, which are alike."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (k, *jnp.shape(leaf))), prior)


def require(condition: Callable[[Any], Any], x: Array, what: str) -> None:
    """Raise where an entry does not obey the condition, as far as its value may be looked at."""
    if is_concrete(x) and not (fine := condition(values_here(x))).all():
        raise ValueError(f"{what}; got {values_here(x)[~fine][0]}")


def is_count(x: Data) -> Tree:
    """Return which numbers are 0, 1, 2, ..."""
    return (x >= 0) & (x == np.round(x))
