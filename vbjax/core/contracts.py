"""The contracts: what `fit` asks of a model, and of the algorithm that the model names.

An algorithm **scores, then moves**: a step scores the state that comes in and says whether it has converged;
the driver keeps that state when a status says stop. A model says which algorithm fits it, and what data,
parameters and options it takes. Both are frozen pytrees, so that their numbers may be traced. Imported by
everything that drives or is driven; imports nothing of ours.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int

from vbjax.numerics.types import Data, Given, Params, Tree


class Status(enum.IntEnum):
    """End of a run; inside jit and vmap an integer array.

    >>> import vbjax as vb
    >>> vb.Status.MAX_ITER.sentence
    'stopped at max_iter before it converged'
    """

    UNFINISHED = 0
    CONVERGED = 1
    MAX_ITER = 2
    NON_FINITE = 3
    DECREASED = 4
    INTERRUPTED = 5
    UNBOUNDED = 6
    ILL_CONDITIONED = 7

    @property
    def sentence(self) -> str:
        """Sentence that says what the status means."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.UNFINISHED: "not finished",
    Status.CONVERGED: "converged: the objective changes by less than the tolerance",
    Status.MAX_ITER: "stopped at max_iter before it converged",
    Status.NON_FINITE: "stopped: the objective is not finite",
    Status.DECREASED: "stopped: the objective fell by more than its rounding error",
    Status.INTERRUPTED: "interrupted",
    Status.UNBOUNDED: "stopped: the objective rises without limit, the density is not integrable "
    "(give it proper priors)",
    Status.ILL_CONDITIONED: "stopped: some columns repeat one another to within the rounding of their dtype, "
    "and the objective is not to be trusted; fit in float64, or leave a column out",
}


class Info(NamedTuple):
    """Findings of a step.

    Attributes:
        params: the parameters that it scored.
        objective: theirs; what is maximised.
        error: the rounding error of the objective in its dtype.
        status: a `Status`; UNFINISHED means go on.
        gain_left: nats that the next step promises, for an algorithm that stops where these are few; NaN for
            one with another rule; None for one that stops by the last rise of the objective.

    >>> import jax, vbjax as vb
    >>> x = jax.numpy.arange(5.0)
    >>> ascent = vb.textbook.GaussianMeanPrecision().resolve(x).algorithm(x, vb.core.Options(1e-6))
    >>> state, info = ascent.step(ascent.start(ascent.init(jax.random.key(0), x, None), x), x, None)
    >>> vb.Status(int(info.status)).name  # go on
    'UNFINISHED'
    """

    params: Params
    objective: Array
    error: Array
    status: Array
    gain_left: Array | None = None


class Options(NamedTuple):
    """Options that `fit` was given; None and False where it was given none.

    Attributes:
        tol: see `fit`; None where the algorithm's own is meant.
        accelerate: see `fit`.
        check: see `fit`.
        search: see `fit`.

    >>> import vbjax as vb
    >>> vb.core.Options(tol=1e-9, check=True).given
    ['tol', 'check']
    """

    tol: Given = None
    accelerate: bool = False
    check: bool = False
    search: bool = False

    @property
    def given(self) -> list[str]:
        """Names of the options that were given."""
        return [name for name, value in self._asdict().items() if value is not None and value is not False]


@runtime_checkable
class Algorithm(Protocol):
    """Rule by which the parameters of a model move, and when they have arrived: what `fit` drives.

    The smallest instance is `CoordinateAscent` (core/coordinate_ascent.py).

    >>> import jax.numpy as jnp, vbjax as vb
    >>> x, model = jnp.arange(5.0), vb.textbook.GaussianMeanPrecision().resolve(jnp.arange(5.0))
    >>> isinstance(model.algorithm(x, vb.core.Options(1e-6)), vb.core.Algorithm)
    True
    """

    @property
    def model(self) -> Any:
        """The model, resolved."""

    def inspect(self, data: Data) -> Any:
        """Raise a ValueError for options that are none, or do not go with the model."""

    def init(
        self, key: Array, data: Data, weights: Float[Array, " n"] | None, number: ArrayLike = 0
    ) -> Params:
        """Draw parameters to start from, in the run of this number; later runs may begin otherwise."""

    def start(self, params: Params, data: Data) -> Tree:
        """Return the initial state at given parameters."""

    def step(self, state: Tree, data: Data, weights: Float[Array, " n"] | None) -> tuple[Tree, Info]:
        """Score the state, then move it."""

    def explain(self, params: Params, data: Data, weights: Float[Array, " n"] | None) -> None:
        """Raise a ValueError that says why runs from such a start are not finite, where that can be said."""


@runtime_checkable
class Model(Protocol):
    """Contract of a model: what `fit` asks of it. `ConjugateModel` and `BlackBox` are the two that there are.

    Attributes:
        lanes_on_cpu: runs of a fit that step at the same time on a CPU, unless given.
        may_have_saddles: whether `fit` shakes the parameters at which it converged.
        has_moves: whether the model has `Moves`, so that `fit` may search.
        named_axes: factors with an axis for the columns of the data, and the first axis that it may be.
    """

    lanes_on_cpu: int
    may_have_saddles: bool
    has_moves: bool
    named_axes: ClassVar[Mapping[str, int]]

    def read(self, data: Data) -> Data:
        """Return the data as arrays of one dtype; raise a ValueError that names what is wrong with them."""

    def inspect(self, data: Data) -> Any:
        """Return the model, examined before its first fit; raise a ValueError for what cannot be fitted."""

    def resolve(self, data: Data, weights: Float[Array, " n"] | None = None) -> Any:
        """Return the model with every default that follows the data filled in."""

    def annotate(self, data: Data, weights: Float[Array, " n"] | None = None) -> Data:
        """Return the data of a fit, as they are, or rows `Annotated` with what is constant in each."""

    def inspect_options(self, data: Data, options: Options) -> None:
        """Raise a ValueError for an option that the model's algorithm does not take."""

    def algorithm(self, data: Data, options: Options) -> Algorithm:
        """Return the algorithm that fits the resolved model."""

    def diagnose(self, params: Params, data: Data) -> Tree:
        """Return what is known of the approximation beyond the objective, kept as `Fit.diagnostics`."""

    def singular(self, params: Params) -> Bool[Array, ""]:
        """Return whether the parameters lie where the objective is not to be trusted."""

    def ill_conditioned(self, params: Params) -> Bool[Array, ""]:
        """Return whether the parameters are beyond what their dtype can tell."""

    def empty(self, params: Params) -> Bool[Array, " k"] | None:
        """Return which components have no rows, by the parameters; None where nothing says so."""


class Moves(Protocol):
    """Contract of a model with moves between optima, for the search of `fit`."""

    def propose(
        self, key: Array, params: Params, other: Params, data: Data, weights: Float[Array, " n"] | None
    ) -> Params:
        """Return parameters to start from near an optimum; of another one they may have some components."""


def judge(
    objective: Float[Array, ""],
    previous: Float[Array, ""],
    error: Float[Array, ""],
    tolerance: Float[Array, ""],
) -> Int[Array, ""]:
    """Return the status of a monotone algorithm; a fall beyond rounding of both scores is no convergence."""
    gain = objective - previous
    settled = gain <= jnp.maximum(tolerance, error)
    status = jnp.where(settled, Status.CONVERGED, Status.UNFINISHED)
    status = jnp.where(gain < -2 * error, Status.DECREASED, status)
    return lax.convert_element_type(jnp.where(jnp.isfinite(objective), status, Status.NON_FINITE), jnp.int32)
