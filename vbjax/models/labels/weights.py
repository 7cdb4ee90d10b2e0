"""Labels that are drawn for each row by itself: mixing weights, a Dirichlet or a Dirichlet process.

Either is a factor over the simplex whose statistics give E[log weights] as `.log`; so a mixture need not know
which it has.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int

from vbjax import terms
from vbjax.core.hyperparameters import POSITIVE, Range, at_least, hyper
from vbjax.data.moments import fill_defaults
from vbjax.families.base import Family, pytree, replace
from vbjax.families.categorical import CategoricalStatistics
from vbjax.families.delta import Delta
from vbjax.families.dirichlet import Dirichlet, DirichletState
from vbjax.families.stick_breaking import StickBreaking as StickBreakingFamily
from vbjax.families.stick_breaking import StickBreakingState
from vbjax.models.labels.labels import Labels, first_active, first_cells, least_concentration
from vbjax.numerics.inputs import describe
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Hyper, Tree

_NEXT_TO_NOTHING = 0.1  # of a row: what a component without use may keep of rows that are far from it
_BEYOND = " for MAP (below 1 the mode is on the simplex's boundary; the Bayesian form takes any)"


@pytree
class MixingWeights(Labels):
    """Weights of k components, equal for all rows: `family`, `prior`, `default_concentration` make some.

    What a mixture asks of labels it asks with the covariates of the rows; here there are none.
    """

    concentration: Hyper = None

    all_active: ClassVar[str | None] = None
    of_rows: ClassVar[bool] = True

    @property
    @abc.abstractmethod
    def family(self) -> Family:
        """The family of the weights."""

    @property
    @abc.abstractmethod
    def prior(self) -> Tree:
        """The prior of the weights, a state of that family."""

    @property
    @abc.abstractmethod
    def default_concentration(self) -> float | Array:
        """The concentration, where none is given."""

    @property
    def factor(self) -> Family:
        """The factor of the weights."""
        return Delta(self.family) if self.points else self.family

    @property
    def factors(self) -> Record:
        return Record(weights=self.factor)

    # -- data ----------------------------------------------------------------------------------------

    def read(self, data: Given, read: Callable[[Given], Data]) -> Data:
        """Return the data of a mixture, whose rows `read` reads."""
        return read(data)

    def read_given(self, given: Given, n: int, read: Callable[[Given, int], Data]) -> tuple[None, Data]:
        """Return the covariates for which n rows are drawn, and what else they are drawn for."""
        return None, read(given, n)

    def sizes(self, data: Data) -> dict[str, int]:
        """Return the sizes of the axes that the covariates give."""
        return {}

    def split(self, data: Data) -> tuple[None, Data]:
        """Return the covariates of the rows, and the rows."""
        return None, data

    def join(self, covariates: None, rows: Data) -> Data:
        """Return the data of which `split` makes these."""
        return rows

    def resolve(
        self, dtype: DTypeLike, covariates: None = None, weights: Array | None = None
    ) -> MixingWeights:
        if self.points and self.concentration is None:
            return self
        return fill_defaults(self, dtype, concentration=self.default_concentration)

    def log_prior(self, s: Record) -> Float[Array, ""]:
        return self.log_prior_of(s.weights)

    def log_prior_of(self, statistics: Tree) -> Float[Array, ""]:
        """Compute E[log p] of as many sets of weights as there are; 0 without a prior."""
        if self.concentration is None:
            return jnp.zeros((), statistics.log.dtype)
        return (self.prior.log_density(statistics) + statistics.base).sum()

    @property
    def has_prior(self) -> bool:
        return self.concentration is not None

    def even(self, n: Array) -> Array:
        """Return counts of n rows that are spread evenly over the components."""
        return self.where_active(jnp.full(self.n_components, n / self.n_active, n.dtype), 0)

    def without_idle(self, params: Record) -> tuple[MixingWeights, Record]:
        cells = first_cells((self.concentration, params["weights"]), self.n_idle)
        labels = replace(self, n_components=self.n_components - self.n_idle, active=None)
        return replace(labels, concentration=cells[0]), Record(weights=cells[1])

    def start(self, n: Array, active: Hyper) -> Record:
        """Return factors that start from n rows, shared evenly by the first `active` components."""
        neutral = self.factor.neutral(n.dtype)
        t = self.factor.expected(neutral).with_base(0.0)
        prior = jax.grad(self.log_prior_of)(t)
        counts = from_counts(t, replace(self, active=active).even(n))
        return Record(weights=self.factor.update(neutral, t, jax.tree.map(jnp.add, prior, counts)))

    # -- the E-step ----------------------------------------------------------------------------------

    def prepare(self, params: Record) -> Tree:
        return self.factor.expected(params["weights"]).with_base(0.0)

    def log_weights(self, prepared: Tree, covariates: None) -> Float[Array, "k 1"]:
        """Compute E[log weight] of every component, for every row or for all alike."""
        return prepared.log[:, None]

    def statistics(self, prepared: Tree, r: Float[Array, "k n"], covariates: None) -> Record:
        """Compute the gradient of sum_nk r_nk E[log weight_nk] in the factors' statistics."""
        return Record(weights=from_counts(prepared, r.sum(1)))

    def log_density(self, s: Record, labels: CategoricalStatistics, covariates: None) -> Float[Array, " n"]:
        """Compute E[log p(label)] of every row from the statistics of labels and factors."""
        return terms.categorical(labels, s.weights)

    # -- use -----------------------------------------------------------------------------------------

    def empty(self, params: Record) -> Bool[Array, " k"]:
        weights = params["weights"]
        if self.points:
            return weights.mean <= jnp.finfo(weights.mean.dtype).eps
        return self.rows(weights) < _NEXT_TO_NOTHING

    @abc.abstractmethod
    def rows(self, weights: Tree) -> Float[Array, " k"]:
        """Return how many rows each component has, by the posterior of the weights."""

    def log_at_mean(self, params: Record, covariates: None) -> Float[Array, " k"]:
        """Return the logarithms of the expected weights, for every row or for all alike."""
        return jnp.log(params["weights"].mean)

    def draw(self, params: Record, key: Array, n: int, covariates: None) -> Int[Array, " n"]:
        """Draw the components of n rows."""
        return jax.random.categorical(key, self.log_at_mean(params, covariates), shape=(n,))

    @property
    def n_parameters(self) -> int:
        """The number of free parameters."""
        return self.n_components - self.n_idle - 1


def _positive(labels: Weights, sizes: Mapping[str, int]) -> tuple[Range, str]:
    return (at_least(1, _BEYOND) if labels.points else POSITIVE), "k"


@pytree
class Weights(MixingWeights):
    """Labels ~ Categorical(weights), weights ~ Dirichlet(alpha0): alpha_k = alpha0 + N_k, N_k = sum_n r_nk.

    Points, by EM, are weights_k proportional to N_k + alpha0 - 1, without a prior to N_k.

    Args:
        concentration: alpha0, a number or (k,); by default 1 / k, of points none. Of points at least 1.

    References:
        Bishop (2006), eq. 10.57, 10.58 and 9.26.

    >>> import vbjax as vb
    >>> vb.BayesianMixture(3, vb.components.Poisson(), vb.labels.Weights(0.1))
    BayesianMixture(
        n_components=3,
        component=components.Poisson(),
        weights=labels.Weights(concentration=0.1),
    )
    """

    weight_prior: ClassVar[str] = "dirichlet"
    concentration: Hyper = hyper(None, _positive)

    @property
    def family(self) -> Dirichlet:
        return Dirichlet(self.n_components)

    @property
    def prior(self) -> DirichletState:
        return DirichletState(
            self.with_idle_cells(jnp.broadcast_to(self.concentration, (self.n_components,)))
        )

    @property
    def default_concentration(self) -> float | Array:
        return 1 / self.n_active

    def rows(self, weights: DirichletState) -> Float[Array, " k"]:
        return weights.concentration - self.prior.concentration


@pytree
class StickBreaking(MixingWeights):
    """Labels c_n ~ Categorical(weights), the pieces of a stick: a Dirichlet process cut at k components.

        weights_k = v_k prod_{j<k} (1 - v_j),   v_j ~ Beta(1, alpha0),
        q(v_j) = Beta(1 + N_j, alpha0 + sum_{l > j} N_l).

    Args:
        concentration: alpha0; by default 1.

    References:
        Blei & Jordan (2006), Variational inference for Dirichlet process mixtures, section 3, eq. 18 and 19.

    >>> import vbjax as vb
    >>> vb.BayesianMixture(20, vb.components.Poisson(), weights=vb.labels.StickBreaking(2.0))
    BayesianMixture(
        n_components=20,
        component=components.Poisson(),
        weights=labels.StickBreaking(concentration=2.0),
    )
    """

    weight_prior: ClassVar[str] = "dirichlet_process"
    concentration: Hyper = hyper(None, POSITIVE)

    @property
    def family(self) -> StickBreakingFamily:
        return StickBreakingFamily(self.n_components)

    @property
    def prior(self) -> StickBreakingState:
        prior = stick_prior(self.n_components, self.concentration)
        # the last active component takes what is left of the stick
        broken = first_active(self.n_components - 1, None if self.active is None else self.n_active - 1)
        if broken is None:
            return prior
        rest = prior.concentration0
        return replace(prior, concentration0=jnp.where(broken, rest, least_concentration(rest.dtype)))

    @property
    def default_concentration(self) -> float:
        return 1.0

    def rows(self, weights: StickBreakingState) -> Float[Array, " k"]:
        later = weights.concentration0 - self.prior.concentration0  # rows of the pieces after each
        return jnp.append(weights.concentration1 - 1, later[-1] if later.size else jnp.inf)


def stick_prior(k: int, concentration: Array) -> StickBreakingState:
    """Return the shares v_j ~ Beta(1, alpha0), j < k, of a stick (Blei & Jordan 2006, section 2)."""
    rest = jnp.broadcast_to(concentration, (k - 1,))
    return StickBreakingState(jnp.ones_like(rest), rest)


def weights_of(kind: str, concentration: Hyper) -> MixingWeights:
    """Return the labels that `weight_prior` of the named mixtures stands for; refuse what is none."""
    if not isinstance(kind, str) or kind not in ("dirichlet", "dirichlet_process"):
        raise ValueError(
            f"weight_prior must be one of 'dirichlet', 'dirichlet_process'; got {describe(kind)}"
        )
    return StickBreaking(concentration) if kind == "dirichlet_process" else Weights(concentration)


def from_counts(weights: Any, number: Float[Array, "*n k"]) -> Tree:
    """Compute the gradient of sum_k number_k E[log weights_k] in the statistics of the weights."""
    return jax.grad(lambda t: (number * t.log).sum())(weights)
