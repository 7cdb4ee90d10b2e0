"""What is derived from a log joint over statistics: updates, E-step, bound, posterior.

`ConjugateModel` is the base of the ready-made models and of `Model` (user_model.py). The gradient of
the expected log joint in a factor's expected statistics is that factor's optimal natural parameter;
the bound is the same energy plus the factors' entropies.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Float

from vbjax.core.acceleration import AcceleratedAscent
from vbjax.core.contracts import Algorithm, Model, Options
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.hyperparameters import replace_values
from vbjax.core.interacting_locals import bound_at, settle, share_of_bound, statistics_of
from vbjax.core.parameters import check_params, require_params
from vbjax.core.presentation import model_repr, offered
from vbjax.core.ragged import Ragged, beside, by_part, by_part_with_key, parts_of
from vbjax.core.rows import (
    Expectation,
    expectation,
    float_dtype,
    n_rows,
    read_row_weights,
    sum_over_rows,
)
from vbjax.families.base import Family, State
from vbjax.families.coordinates import displace, is_proper
from vbjax.families.monte_carlo import mean_over_draws
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import read_arrays
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree


def in_dtype(model: Any, dtype: DTypeLike) -> Any:
    """Return the model with its hyperparameters as arrays of one dtype."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model)


def _without_base(statistics: Mapping[str, Tree]) -> Record:
    return Record({name: t.with_base(0.0) for name, t in statistics.items()})


def scored_rows(statistics: Tree, bound: Array, weights: Array) -> Expectation:
    """Return the expectation of a chunk from its statistics and the bound of each row."""
    bound = jnp.where(weights == 0, 0, weights * bound)
    return Expectation(statistics, bound.sum(), jnp.abs(bound).sum(), weights.sum())


def require_model(model: Model, data: Data = None, conjugate_for: str = "") -> None:
    """Raise where the first argument of a driver is no model.

    Args:
        model: what should be one.
        data: what came as the data, perhaps the model.
        conjugate_for: what only a conjugate model is good for, if that is asked.

    Raises:
        ValueError: a class; what is no model, or not a conjugate one. The message does not show data.
    """
    if isinstance(model, type):
        raise ValueError(f"model must be an instance, {model.__name__}(...); got the class {model.__name__}")
    if isinstance(model, ConjugateModel):
        return
    name, another = type(model).__name__, isinstance(model, Model)
    if another and conjugate_for:
        raise ValueError(f"model must be conjugate for {conjugate_for}; got {name}")
    if not another:
        swapped = isinstance(data, Model)
        hint = f"; the model comes before the data, which are {type(data).__name__}" if swapped else ""
        raise ValueError(f"model must be a model, such as vb.GaussianMixture(2); got {name}{hint}")


class ConjugateModel:
    """Base of conjugate models: subclasses give `factors`, `log_prior`, `log_likelihood` and perhaps `local`.

    They are frozen dataclasses registered as pytrees, whose leaves are hyperparameters. A subclass may
    write `e_step` by hand where that is faster; the derived one is then the oracle of its tests.

    >>> import vbjax as vb
    >>> model = vb.textbook.GaussianMeanPrecision()
    >>> model.blocks  # mu and tau interact: each is updated in a pass of its own
    (('mu',), ('tau',))
    """

    interacting_locals = False
    """Whether local factors interact: they are then updated in turn, and carried from sweep to sweep."""

    random_starts: tuple[str, ...] = ()
    """Global factors that a run of the derived `init` begins with at random places, not neutral ones."""

    may_have_saddles = False
    """Whether the bound may have saddles: `fit` then shakes the parameters at which it converged."""

    has_moves = False
    """Whether labels may be exchanged, so that the model has moves between optima (`contracts.Moves`)."""

    lanes_on_cpu = 4
    """Runs of a fit that step at the same time on a CPU, unless given: fewer where one fills the caches."""

    named_axes: ClassVar[Mapping[str, int]] = {}
    """Factors with an axis for the columns of the data, and the first axis that it may be: for summaries."""

    local_sweeps = 8
    """Turns of interacting local factors in one pass over the rows, at most."""

    def __init_subclass__(cls) -> None:
        """Check the parameters that the uses of a model are given: those of another model are an error.

        Its uses are its public methods beyond those that the drivers call.
        """
        for name in dir(cls):
            method = inspect.getattr_static(cls, name)
            if name.startswith("_") or hasattr(ConjugateModel, name) or hasattr(method, "checks_params"):
                continue
            if inspect.isfunction(method) and inspect.unwrap(method).__code__.co_varnames[1:2] == ("params",):
                setattr(cls, name, check_params(method))

    # -- what a model says of itself ---------------------------------------------------------------

    @property
    def factors(self) -> Mapping[str, Family]:
        """The global factors of q, by name."""
        raise TypeError(f"{type(self).__name__} declares no factors")

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        """Factors that are updated together, in order; by default all of them, from one pass."""
        return (tuple(self.factors),)

    def local(self, rows: Data) -> Mapping[str, Family]:
        """Return the local factors, whose plates begin with the rows; none by default."""
        return {}

    def log_prior(self, s: Record) -> Float[Array, ""] | float:
        """Compute E[log p] of the global latents, a scalar; 0 by default (maximum likelihood)."""
        return 0.0

    def log_likelihood(self, s: Record, rows: Data) -> Array:
        """Compute E[log p] of every row given the latents, local ones and their priors included: (n,)."""
        raise TypeError(f"{type(self).__name__} declares no likelihood")

    def namespace(self, s: Record) -> Record:
        """Return what the log joint sees as `s`: the statistics, and in `Model` the hyperparameters too."""
        return s

    def read(self, data: Data) -> Data:
        """Return the data as arrays of one dtype, or a ValueError that names what is wrong with it."""
        return read_arrays(data, "data")

    def resolve(self, data: Data, weights: Array | None = None) -> Any:
        """Return the model with every default that follows the data filled in, in the data's dtype."""
        return in_dtype(self, float_dtype(data))

    def __repr__(self) -> str:
        return model_repr(self)

    def __dir__(self) -> list[str]:
        return offered(super().__dir__(), ConjugateModel)

    def replace(self, **values: Given) -> Any:
        """Return the model with other hyperparameters, as in `model.replace(rate=2.0)`; also of its parts.

        Raises:
            ValueError: a name that is of no field.
        """
        return replace_values(self, values)

    def sizes(self, data: Data) -> dict[str, int]:
        """Return the sizes of those axes of hyperparameters that data have, by their names in the table."""
        return {}

    def annotate(self, data: Data, weights: Array | None = None) -> Data:
        """Return the data of a fit, as they are, or rows `Annotated` with what is constant in each."""
        return data

    def inspect(self, data: Data) -> Any:
        """Return the model, examined before its first fit; `Model` refuses here what is not conjugate."""
        return self

    def inspect_options(self, data: Data, options: Options) -> None:
        """Refuse a search where there are no moves between optima."""
        if options.search and not self.has_moves:
            raise ValueError(
                "search must be False for a model without exchangeable components, states or topics; got "
                f"search=True for {type(self).__name__}"
            )

    def algorithm(self, data: Data, options: Options) -> Algorithm:
        """Return coordinate ascent, by Anderson mixing where that was asked for."""
        ascent = AcceleratedAscent if options.accelerate else CoordinateAscent
        return ascent(self, jnp.asarray(options.tol, float_dtype((self, data))), options.check)

    def chunk_rows(self, data: Data) -> int:
        """Return how many rows a pass takes at a time: so few that they stay on one core and in its cache."""
        return 8192 // jnp.dtype(float_dtype(data)).itemsize

    def unit(self, expectation: Expectation) -> Array:
        """Return what the tolerance of a fit multiplies: the rows' weight, so that `tol` is per row."""
        return expectation.weight

    def singular(self, params: Record) -> Array:
        """Return whether the parameters lie on a boundary where the objective is not to be trusted."""
        return jnp.asarray(False)

    def ill_conditioned(self, params: Record) -> Array:
        """Return whether the parameters are beyond what their dtype can tell: then the run ends saying so."""
        return jnp.asarray(False)

    def empty(self, params: Record) -> Array | None:
        """Return which components have no rows, by the parameters; None where nothing says so."""
        return None

    def diagnose(self, params: Params, data: Data) -> Tree:
        """Return what is known of the approximation beyond the bound, for `Fit.diagnostics`."""
        return None

    draws_data = False
    """Whether the model knows what its rows are drawn from, and so has `replicate`."""

    def replicate(self, params: Params, key: Array, data: Data, n_draws: int) -> Data:
        """Draw the data anew, a leading axis of `n_draws` in front: what `vb.replicate` does by itself."""
        raise TypeError(f"{type(self).__name__} does not draw its data")

    def simulate(self, params: Params, key: Array, data: Data) -> Data:
        """Draw data like these that have been read, the local latents of every row anew.

        What is not modelled is as it is in the data: covariates, totals of counts, which entries are missing.

        Raises:
            TypeError: a model that does not draw its data, or not the local latents of their rows.
        """
        if self.local(data):
            raise TypeError(f"{type(self).__name__} does not draw new rows")
        return jax.tree.map(lambda x: x[0], self.replicate(params, key, data, 1))

    # -- what follows from it ------------------------------------------------------------------------

    def expected(self, params: Mapping[str, State]) -> Record:
        """Compute E[t] of every global factor."""
        return Record({name: family.expected(params[name]) for name, family in self.factors.items()})

    def init(self, key: Array, data: Data, weights: Array | None = None) -> Record:
        """Return neutral global factors, moved once by rows whose local latents are drawn at random.

        Factors that are not conjugate start at random, and are not moved. Those among `random_starts` are
        moved by the prior alone, if that leaves them proper, and start about a standard deviation from there:
        were their locations 0, the first updates would find nothing to follow.
        """
        dtype = float_dtype(data)
        params = Record({name: family.neutral(dtype) for name, family in self.factors.items()})
        if guarded := {name: self.factors[name] for name in self.factors if self.guarded((name,))}:
            key, own = jax.random.split(key)
            params = params | next(iter(guarded.values())).starts(guarded, own, dtype)
        for name in self.random_starts:
            key, own = jax.random.split(key)
            nothing = jax.tree.map(jnp.zeros_like, self.expected(params))
            prior = self.m_step(params, nothing, (name,))[name]
            proper = is_proper(prior)
            place = jax.tree.map(lambda new, old, p=proper: jnp.where(p, new, old), prior, params[name])
            params = params | {name: displace(place, own)}
        if data is None or not self.local(parts_of(data)[0]):
            return params

        def draw(key: Array, rows: Data) -> Record:
            drawn, local = {}, self.local(rows)
            for number, name in enumerate(sorted(local)):
                state = local[name].neutral(dtype)
                drawn[name] = state.statistics(state.sample(jax.random.fold_in(key, number)))
            return Record(drawn)

        drawn = by_part_with_key(draw, key, data)
        for block in self.blocks:
            if self.guarded(block):
                continue
            s = _without_base(self.expected(params))
            total = self.gradient_at(s, drawn, data, weights)
            params = self.m_step(params, total, block)
        return params

    def without_idle(self, params: Params) -> tuple[Any, Mapping[str, State]]:
        """Return the model and its parameters without the components that its labels leave out."""
        return self, params

    def init_run(self, key: Array, data: Data, weights: Array | None, number: ArrayLike) -> Record:
        """Draw the start of the run of this number in a fit; runs after the first may start in other ways."""
        return self.init(key, data, weights)

    def posterior(self, params: Mapping[str, State], rows: Data) -> Record:
        """Return the optimal local factors of rows given the global ones, in the order of the rows."""
        s = _without_base(self.expected(params))
        found = by_part(lambda rows: self._optimum(s, rows)[0], rows)
        return rows.join(found) if isinstance(rows, Ragged) else found

    def log_likelihoods(self, states: Mapping[str, State], values: Record, data: Data) -> Array:
        """Compute log p(x_n | values) of every row, (n,), its local latents summed or integrated out.

        Args:
            states: of the global factors; location statistics are taken about their means.
            values: of the global factors, one each.
            data: as the model's updates take them.
        """
        s = _without_base({name: states[name].statistics(value) for name, value in values.items()})
        found = by_part(lambda rows: self._optimum(s, rows)[1], data)
        return data.join(found) if isinstance(data, Ragged) else found

    def local_entropies(self, params: Mapping[str, State]) -> Callable[[Any], dict[str, Array]]:
        """Return a function of rows: the entropy of every local factor in each of them, (n,), by name."""
        s = _without_base(self.expected(params))

        def entropies(rows: Data) -> dict[str, Array]:
            local = self._optimum(s, rows)[0].items()
            return {name: q.entropy().reshape(n_rows(rows), -1).sum(-1) for name, q in local}

        return entropies

    def neutral_local(self, data: Data) -> Tree:
        """Return where local factors of some rows begin, where they interact."""
        dtype = float_dtype(data)
        return Record({name: family.neutral(dtype) for name, family in self.local(data).items()})

    def start_locals(self, params: Mapping[str, State], data: Data) -> Tree:
        """Return where the local factors of all rows begin; None where none interact."""
        return by_part(self.neutral_local, data) if self.interacting_locals else None

    def prepare(self, params: Mapping[str, State]) -> Tree:
        """Return what the E-step needs of the parameters, made once before a pass over chunks of rows."""
        return _without_base(self.expected(params))

    def e_step(self, prepared: Tree, rows: Data, weights: Array) -> Expectation:
        """Compute the local factors' optimum of a chunk of rows, its bound, and the gradient it leaves.

        The bound's local part is collapsed in closed form; its gradient is taken at fixed local factors
        (the envelope theorem).
        """
        return self._scored_rows(prepared, rows, weights, *self._optimum(prepared, rows))._replace(local=None)

    def carried_e_step(self, prepared: Tree, rows: Data, weights: Array, local: Record) -> Expectation:
        """Run `e_step` where local factors interact: they go on from `local`, and come back too."""
        return self._scored_rows(prepared, rows, weights, *settle(self, prepared, rows, local))

    def _scored_rows(
        self, prepared: Tree, rows: Data, weights: Array, local: Record, bound: Array
    ) -> Expectation:
        _, gradient = self.likelihood_gradient(prepared, statistics_of(local), rows, weights)
        return scored_rows(gradient, bound, weights)._replace(local=local)

    def collect(self, expectation: Expectation) -> Expectation:
        """Return the sums of a pass over all rows, in the form that the updates take."""
        return expectation

    def m_step(self, params: Record, statistics: Mapping[str, Tree], block: Iterable[str]) -> Record:
        """Make the coordinate update of the factors in `block`, by the gradient of prior and likelihood."""
        s = _without_base(self.expected(params))
        gradient = self.total_gradient(s, statistics, block)
        moved = {name: self.factors[name].update(params[name], s[name], gradient[name]) for name in block}
        return self.constrain(params | moved, params, block)

    def mix(self, params: Record, moved: Record, rho: ArrayLike, block: Iterable[str]) -> Record:
        """Go a part rho of the way from `params` to `moved`, in the natural parameters of the block."""
        mixed = {name: self.factors[name].mix(params[name], moved[name], rho) for name in block}
        return self.constrain(params | mixed, params, block)

    def constrain(self, params: Record, before: Record, block: Iterable[str]) -> Record:
        """Return parameters after an update of a block, within the bounds that the model puts on points.

        Args:
            params: with the block as its update has it.
            before: the parameters before that.
            block: names of the factors that were updated.
        """
        return params

    def guarded(self, block: Iterable[str]) -> bool:
        """Return whether the block has no coordinate update, but steps that must be scored."""
        return any(self.factors[name].guarded for name in block)

    def require_conjugate(self, what: str) -> None:
        """Raise where a factor is not conjugate, so that `what` is not known in closed form."""
        if guarded := [name for name in self.factors if self.guarded((name,))]:
            raise ValueError(
                f"model must be conjugate: {what} is not known in closed form for the factor {guarded[0]!r}"
            )

    def partial_step(
        self, params: Record, statistics: Mapping[str, Tree], block: Iterable[str], rho: ArrayLike
    ) -> Record:
        """Go a part rho of the way of the block's update, in natural parameters; not scored."""
        if not self.guarded(block):
            return self.mix(params, self.m_step(params, statistics, block), rho, block)
        s = _without_base(self.expected(params))
        gradient = self.total_gradient(s, statistics, block)
        return params | {n: self.factors[n].step(params[n], s[n], gradient[n], rho) for n in block}

    def objective(self, params: Mapping[str, State], expectation: Expectation) -> Array:
        """Compute the bound (log likelihood or log posterior where factors are points), without the data."""
        return self.scored(params, expectation)[0]

    def scored(self, params: Mapping[str, State], expectation: Expectation) -> tuple[Array, Array]:
        """Compute the objective, and the absolute sum of its terms, for its rounding error."""
        terms = self.global_terms(params, expectation).values()
        magnitude = expectation.magnitude + self.cancelled(params, expectation)
        return sum(terms) + expectation.bound, sum(map(jnp.abs, terms)) + magnitude

    def cancelled(self, params: Mapping[str, State], expectation: Expectation) -> ArrayLike:
        """Compute the absolute sum of what is large and cancels within rows: part of the rounding error."""
        return 0.0

    def elbo_terms(
        self, params: Mapping[str, State], data: Data, weights: Array | None = None
    ) -> dict[str, Array]:
        """Compute the objective term by term; the terms add up to it.

        Returns:
            `log_likelihood`, `log_prior`, and the entropy of every local and global factor by name.
        """
        params, data = require_params(self, params), self.read(data)
        return _elbo_terms(self, params, data, read_row_weights(weights, data))

    def no_rows(self, params: Mapping[str, State]) -> Expectation:
        """Return the expectation over no data at all."""
        s = self.expected(params)
        zero = jnp.zeros((), float_dtype(s))
        return Expectation(jax.tree.map(jnp.zeros_like, s), zero, zero, jnp.ones_like(zero))

    # -- the machinery -------------------------------------------------------------------------------

    def gradient_at(self, s: Record, local: Tree, data: Data, weights: Array | None = None) -> Record:
        """Compute the gradient of the log likelihood over all rows, at given statistics of local latents."""

        def gradient(rows: Data, w: Array) -> Record:
            return self.likelihood_gradient(s, rows[1], rows[0], w)[1]

        chunk = by_part(self.chunk_rows, data)
        return sum_over_rows(gradient, beside(data, local), weights, chunk=chunk)

    def total_gradient(self, s: Record, statistics: Mapping[str, Tree], block: Iterable[str]) -> Record:
        """Compute the gradient of the expected log joint in the statistics of the block."""
        prior = jax.grad(self.scalar_prior)(s)
        return Record({name: jax.tree.map(jnp.add, prior[name], statistics[name]) for name in block})

    def expected_log_prior(self, params: Mapping[str, State]) -> Array:
        """Compute E[log p] of the global latents, a scalar."""
        return self.scalar_prior(self.expected(params))

    def scalar_prior(self, s: Record) -> Array:
        dtype = float_dtype(s)

        def scalar(s: Record) -> Array:
            prior = jnp.asarray(self.log_prior(s), dtype)
            if prior.ndim:
                raise ValueError(f"log_prior must give one number: sum over plates; got shape {prior.shape}")
            return prior

        return mean_over_draws(scalar, self.namespace(s))

    def likelihood(self, s: Record, rows: Data) -> Array:
        """Compute `log_likelihood`, hyperparameters beside the statistics; checked to be (n,)."""
        row = mean_over_draws(lambda s: self.log_likelihood(s, rows), self.namespace(s))
        if row.shape != (n_rows(rows),):
            raise ValueError(
                f"log_likelihood must give one number for each row: of {n_rows(rows)} rows shape "
                f"({n_rows(rows)},); got {row.shape}"
            )
        return row

    def _optimum(self, s: Record, rows: Data) -> tuple[Record, Array]:
        """Find the optimal local states and the bound of each row."""
        return settle(self, s, rows) if self.interacting_locals else self.collapse(s, rows)

    def collapse(self, s: Record, rows: Data) -> tuple[Record, Array]:
        """Find the optimal local states and each row's bound: energy at t = 0 plus log-normalisers.

        Of a local location, t = 0 is at the origin, which may be far away: there the bound is the energy at
        the state's own statistics, about its mean, plus entropies.
        """
        families = self.local(rows)
        if not families:
            return Record(), self.likelihood(s, rows)
        dtype = float_dtype(s)
        zero = Record({name: family.zero_statistics(dtype) for name, family in families.items()})

        def energy(local: Record) -> tuple[Array, Array]:
            row = self.likelihood(s | local, rows)
            return row.sum(), row

        gradient, bound = jax.grad(energy, has_aux=True)(zero)
        best = {name: f.optimum(zero[name], gradient[name]) for name, f in families.items()}
        states = Record({name: state for name, (state, _) in best.items()})
        if any(hasattr(t, "pivot") for t in zero.values()):
            return states, bound_at(self, s, states, rows)
        for _, share in best.values():
            bound = bound + share.sum(tuple(range(1, share.ndim)))
        return states, bound

    def likelihood_gradient(
        self, s: Record, local: Record, rows: Data, weights: Array
    ) -> tuple[Array, Record]:
        """Compute the weighted expected log likelihood at fixed local statistics, and its gradient."""

        def energy(s: Record) -> Array:
            row = self.likelihood(s | local, rows)
            return jnp.where(weights == 0, 0, weights * row).sum()

        return jax.value_and_grad(energy)(s)

    def global_terms(self, params: Mapping[str, State], expectation: Expectation) -> dict[str, Array]:
        """Compute the bound's terms beside the rows': `log_prior`, and the entropy of every factor.

        They are relative to the base measures, which cancel where there is one prior. A model may give what
        adds up to the same, so that nothing large cancels: minus the divergence of a factor from its prior.
        """
        prior, gradient = jax.value_and_grad(self.scalar_prior)(_without_base(self.expected(params)))
        terms = {"log_prior": prior}
        for name, family in self.factors.items():
            n_densities = gradient[name].log_base + expectation.statistics[name].log_base
            terms[name] = share_of_bound(family, params[name], n_densities).sum()
        return terms


@jit
def _elbo_terms(
    model: ConjugateModel, params: Mapping[str, State], data: Data, weights: Array | None
) -> dict[str, Array]:
    total = expectation(model, params, data, weights)
    terms = {"log_likelihood": total.bound, "log_prior": model.expected_log_prior(params)}
    if data is not None:
        of_rows = model.local_entropies(params)

        def entropies(rows: Data, w: Array) -> dict[str, Array]:
            return {name: jnp.where(w == 0, 0, w * h).sum() for name, h in of_rows(rows).items()}

        local = sum_over_rows(entropies, data, weights, chunk=by_part(model.chunk_rows, data))
        terms["log_likelihood"] = total.bound - sum(local.values())
        terms |= {f"entropy of {name}": h for name, h in local.items()}
    return terms | {f"entropy of {name}": params[name].entropy().sum() for name in model.factors}
