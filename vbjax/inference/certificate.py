"""`Certificate`: what speaks for and against a fit: optimum, convergence, components, digits, spread, rows.

Made by `Fit.certificate`. Imports core, and what scores rows.
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float

from vbjax.core.contracts import Status
from vbjax.core.coordinate_ascent import sweep
from vbjax.core.hyperparameters import parts_of
from vbjax.core.model import ConjugateModel
from vbjax.core.presentation import uses
from vbjax.core.ragged import Ragged
from vbjax.core.rows import expectation, n_rows, rounding_error
from vbjax.inference.derivatives import linear_response
from vbjax.inference.replicate import require_simulation
from vbjax.inference.resolution import resolved
from vbjax.numerics.compilation import jit
from vbjax.numerics.record import Record
from vbjax.numerics.types import Data, Given, Params, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model
    from vbjax.inference.result import Fit

_WIDTH = 80  # characters of a line
_MOST = 2000  # numbers in the parameters, up to which the linear response is computed
_SHORT = 1.2  # an sd that is too small by this factor is worth a look
_SETS = 20  # data sets that are drawn, to see how improbable rows may be
_NAMED = 5  # rows or components that a sentence names


class Finding(NamedTuple):
    """Finding on one side of a fit.

    Attributes:
        fine: False where it needs a look; None where it is not known.
        sentence: what was found, for people.
        numbers: the same, by name.
    """

    fine: bool | None
    sentence: str
    numbers: dict[str, Tree]


@dataclasses.dataclass(frozen=True)
class Certificate:
    """Findings on a fit, by name; `print` shows them within 80 columns.

    Attributes:
        title: what was fitted.
        findings: `optimum`, `convergence`; of a `BlackBox` also `approximation`; of data also `fixed_point`,
            `components`, `conditioning`, `spread` and `rows`, as far as they can be computed.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
    >>> print(fit.certificate())
    GaussianMeanPrecision: objective -19.6042, converged: the objective changes by
    less than the tolerance (6 sweeps)
    <BLANKLINE>
    ?     optimum       one run: whether there are better optima is not known
                        (n_restarts)
    fine  convergence   converged: the objective changes by less than the tolerance;
                        the last sweep raised it by 0 nats
    <BLANKLINE>
    Nothing found speaks against it. Not known: optimum.
    """

    title: str
    findings: Record

    @property
    def doubts(self) -> tuple[str, ...]:
        """Names of the findings that need a look."""
        return tuple(name for name, finding in self.findings.items() if finding.fine is False)

    @property
    def sentence(self) -> str:
        """Sentence that sums up the findings."""
        named = lambda names: ", ".join(name.replace("_", " ") for name in names)
        unknown = [name for name, finding in self.findings.items() if finding.fine is None]
        words = f"To look at: {named(self.doubts)}." if self.doubts else "Nothing found speaks against it."
        return words + (f" Not known: {named(unknown)}." if unknown else "")

    def __str__(self) -> str:
        marks = {True: "fine", False: "LOOK", None: "?"}
        lines = [*textwrap.wrap(self.title, _WIDTH), ""]
        for name, finding in self.findings.items():
            first = f"{marks[finding.fine]:<6}{name.replace('_', ' '):<14}"
            lines += textwrap.wrap(finding.sentence, _WIDTH, initial_indent=first, subsequent_indent=" " * 20)
        return "\n".join([*lines, "", *textwrap.wrap(self.sentence, _WIDTH)])

    __repr__ = __str__


def certify(
    fit: Fit, data: Data, weights: Given, key: Array | None, n_best: int, slack: float
) -> Certificate:
    """Return the findings on a fit, see `Fit.certificate`; runs within `slack` nats count as equal."""
    found = dict(optimum=_optimum(fit, n_best, slack), convergence=_convergence(fit))
    if (known := fit.diagnostics) is not None:
        found["approximation"] = Finding(known.trust == "all", known.sentence, dict(trust=known.trust))
    if isinstance(fit.model, ConjugateModel):
        model, params, rows = fit.model, fit.params, None
        if data is not None:
            model, rows, weights = resolved(model, data, weights)
            found["fixed_point"] = _fixed_point(*_next_sweep(model, params, rows, weights))
        if ("component",) in parts_of(model):
            found["components"] = _components(model, params, data, weights)
        if conditioning := _conditioning(params):
            found["conditioning"] = conditioning
        if rows is not None and (spread := _spread(model, params, data, rows, weights)):
            found["spread"] = spread
        if rows is not None and key is not None and (unexplained := _rows(model, params, data, key)):
            found["rows"] = unexplained
    return Certificate(f"{type(fit.model).__name__}: {fit.verdict()}", Record(found))


def _some(numbers: np.ndarray, what: str) -> str:
    """Return the first of some numbers, after what they are of."""
    shown = ", ".join(map(str, numbers[:_NAMED].tolist())) + (", ..." if len(numbers) > _NAMED else "")
    return f"{what}{'s' if len(numbers) > 1 else ''} {shown}"


# -- from the runs ----------------------------------------------------------------------------------------


def _optimum(fit: Fit, n_best: int, slack: float) -> Finding:
    """Say how many restarts found the best optimum, and how far below the next one is."""
    runs = fit.runs.on_host()
    sound = runs.sound & (runs.status == Status.CONVERGED)
    objective = runs.objective.astype(float)
    below = objective[sound & (objective < float(fit.objective) - slack)]
    gap = float(fit.objective) - below.max(initial=-np.inf) if below.size else None
    numbers = dict(at_best=n_best, runs=objective.size, gap=gap)
    if objective.size == 1:
        return Finding(None, "one run: whether there are better optima is not known (n_restarts)", numbers)
    words = f"{n_best} of {objective.size} restarts at the best"
    words += "; no other optimum was found" if gap is None else f"; the next optimum is {gap:.3g} nats below"
    if n_best < 2:
        words += ". No other restart confirms it: more restarts may find a better one"
    return Finding(n_best >= 2, words, numbers)


def _convergence(fit: Fit) -> Finding:
    """Say how the best run ended, and how far the objective has still to rise by what the run stops by."""
    rise, words = None, fit.status.sentence
    if fit.gain_left is None:
        rise, remaining = _last_rise(np.asarray(fit.trace, float))
        words += "" if rise is None else f"; the last sweep raised it by {rise:.2g} nats"
        words += "" if remaining is None else f", at this pace {remaining:.2g} are to come"
    else:
        remaining = float(fit.gain_left) if np.isfinite(fit.gain_left) else None
        words += "" if remaining is None else f"; the next step promises {remaining:.2g} nats"
    fine = fit.status == Status.CONVERGED and (remaining is None or remaining < 0.1)
    return Finding(fine, words, dict(status=fit.status, rise=rise, remaining=remaining))


def _last_rise(trace: np.ndarray) -> tuple[float | None, float | None]:
    """Return the last rise of the objective, and by extrapolation how far it has still to rise."""
    rises = np.diff(trace)
    if not rises.size:
        return None, None
    if len(rises) < 2 or not 0 < rises[-1] < rises[-2]:
        return float(rises[-1]), None
    ratio = rises[-1] / rises[-2]
    return float(rises[-1]), float(rises[-1] * ratio / (1 - ratio))  # a geometric series (Aitken)


# -- from parameters and rows -----------------------------------------------------------------------------


@jit
def _next_sweep(
    model: ConjugateModel, params: Params, data: Data, weights: Array | None
) -> tuple[Array, Array, Array]:
    """Compute by how much another sweep raises the objective, its rounding error, and the largest move.

    A move is relative to the largest entry of its array.
    """
    total = expectation(model, params, data, weights)
    before, magnitude = model.scored(params, total)
    moved = sweep(model, params, data, weights, total).params
    after = model.objective(moved, expectation(model, moved, data, weights))
    means = [{name: q.mean for name, q in states.items()} for states in (params, moved)]
    move = lambda old, new: jnp.abs(new - old).max() / _size(old, new)
    largest = jnp.stack(jax.tree.leaves(jax.tree.map(move, *means))).max()
    return after - before, rounding_error(magnitude), largest


def _size(old: Array, new: Array) -> Array:
    """Return the largest entry of two arrays; 1 where both are 0."""
    size = jnp.maximum(jnp.abs(old).max(), jnp.abs(new).max())
    return jnp.where(size == 0, 1, size)


def _fixed_point(rise: Array, rounding: Array, move: Array) -> Finding:
    numbers = dict(rise=float(rise), rounding=float(rounding), move=float(move))
    words = (
        f"another sweep moves the parameters by {move:.1g} of their size and the objective by {rise:.1g} "
        f"nats; the objective's rounding error is {rounding:.1g} nats"
    )
    return Finding(bool(move < 0.01 and rise > -2 * rounding), words, numbers)


def _components(model: Any, params: Params, data: Data, weights: Array | None) -> Finding:
    """Say how many components have rows, and which have collapsed."""
    numbers: dict[str, Tree] = dict(singular=np.zeros(0, int), sizes=None)
    words, collapsed = "none has collapsed", bool(model.singular(params))
    if data is not None and "responsibilities" in uses(model):
        r = np.asarray(model.responsibilities(params, data))
        numbers["sizes"] = sizes = r.sum(0) if weights is None else np.asarray(weights) @ r
        used = sizes[sizes >= 1]
        words = f"{used.size} of {sizes.size} have a row or more, the smallest of them {used.min():.3g}"
    if collapsed:
        numbers["singular"] = singular = np.flatnonzero(_singular_components(model, params))
        words += f"; collapsed: {_some(singular, 'component')}; do not trust the objective"
    return Finding(not collapsed, words, numbers)


@jit
def _singular_components(model: Any, params: Params) -> Bool[Array, " k"]:
    """Return which components are singular: whether parameters are of which all components are like one."""
    k = params["weights"].mean.shape[0] if "weights" in params else params["initial"].mean.shape[0]
    alike = lambda j: Record(params) | model.component.permute(params, jnp.full(k, j))
    return jnp.stack([model.singular(alike(j)) for j in range(k)])


def _conditioning(params: Params) -> Finding | None:
    """Say how many digits the worst matrix among the parameters leaves."""
    worst, where, dtype = 0.0, "", np.dtype(float)
    for path, x in jax.tree_util.tree_leaves_with_path(Record({n: q.mean for n, q in params.items()})):
        x = np.asarray(x)
        if x.ndim < 2 or x.shape[-1] != x.shape[-2] or x.shape[-1] < 2 or x.dtype.kind != "f":
            continue
        scale = np.sqrt(np.maximum(np.diagonal(x, axis1=-2, axis2=-1), 0).astype(float))
        if not (scale > 0).all() or not np.allclose(x, x.swapaxes(-1, -2), rtol=1e-3, atol=0):
            continue
        values = np.linalg.eigvalsh(x / scale[..., :, None] / scale[..., None, :])
        with np.errstate(divide="ignore"):
            number = float((values[..., -1] / np.maximum(values[..., 0], 0)).max())
        if number > worst:
            worst, where, dtype = number, jax.tree_util.keystr(path, simple=True, separator="."), x.dtype
    if not where:
        return None
    lost, digits = np.log10(worst), -np.log10(float(jnp.finfo(dtype).eps))
    words = f"{where} has a condition number of {worst:.2g}: {lost:.1f} of {digits:.1f} digits of {dtype}"
    return Finding(bool(digits - lost > 3), words, dict(condition=worst, where=where))


def _spread(
    model: ConjugateModel, params: Params, data: Data, rows: Data, weights: Array | None
) -> Finding | None:
    """Say by how much q's standard deviations fall short of those of linear response."""
    spread = [name for name, q in params.items() if any(np.any(x) for x in jax.tree.leaves(q.variance))]
    closed = not model.interacting_locals and not any(model.guarded((name,)) for name in model.factors)
    if not spread or not closed or sum(x.size for x in jax.tree.leaves(params)) > _MOST:
        return None
    response = linear_response(model, params, data, weights)
    own = own_sds(model, params, rows, weights)
    worst, where = 0.0, ""
    for path, sd in jax.tree_util.tree_leaves_with_path(own):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        full = response.sd
        for part in name.split("."):
            full = full[part]
        ratio = float(np.max(np.asarray(full) / np.asarray(sd), initial=0, where=np.asarray(sd) > 0))
        if ratio > worst or np.isnan(ratio):
            worst, where = ratio, name
    numbers = dict(ratio=worst, where=where, rate=float(response.rate))
    if bool(response.singular):
        words = "the optimum is too flat for a linear response: along a ridge the data say nothing"
        return Finding(False, words, numbers)
    words = (
        f"linear-response sds are at most {worst:.3g} times those of q ({where}); a sweep leaves "
        f"{float(response.rate):.2g} of the distance to the optimum"
    )
    return Finding(worst < _SHORT, words, numbers)


@jit
def own_sds(model: ConjugateModel, params: Params, data: Data, weights: Array | None) -> Tree:
    """Compute the standard deviations of the statistics under q, each factor by itself."""
    total, expected = expectation(model, params, data, weights), model.expected(params)
    found = {}
    for name in model.factors:
        zero = Record(jax.tree.map(jnp.zeros_like, expected[name]).natural)
        flat, fields_of = ravel_pytree(zero)

        def means(pull: Float[Array, " s"], name: str = name, fields_of: Tree = fields_of) -> Array:
            still = jax.tree.map(jnp.zeros_like, expected[name])
            own = jax.tree.map(jnp.add, total.statistics[name], dataclasses.replace(still, **fields_of(pull)))
            moved = model.m_step(params, total.statistics | {name: own}, (name,))
            fresh = model.factors[name].expected(moved[name])
            return ravel_pytree(Record(fresh.like(expected[name]).natural))[0]

        found[name] = fields_of(jnp.sqrt(jnp.diagonal(jax.jacfwd(means)(flat))))
    return Record(found)


def _rows(model: Model, params: Params, data: Data, key: Array) -> Finding | None:
    """Say which rows are less probable than any of 20 data sets that the fit draws."""
    data = model.read(data)
    if isinstance(data, Ragged) or "log_predictive" not in uses(model):
        return None  # densities of rows of other lengths are not comparable
    try:
        require_simulation(model, params, data)
    except ValueError:
        return None
    density, least = map(np.asarray, _densities(model, params, data, key))
    n = n_rows(data)
    low = np.flatnonzero(~(density >= least))
    numbers = dict(unexplained=low, least=float(least))
    words = f"none of {n} is less probable than all of {_SETS * n} that the fit draws"
    if low.size:
        words = f"{low.size} of {n} less probable than all of {_SETS * n} that the fit draws: "
        words += f"no component explains {_some(low[np.argsort(density[low])], 'row')}"
    return Finding(not low.size, words, numbers)


@jit
def _densities(model: Any, params: Params, data: Data, key: Array) -> tuple[Array, Array]:
    drawn = lambda key: model.log_predictive(params, model.simulate(params, key, data)).min()
    return model.log_predictive(params, data), jax.lax.map(drawn, jax.random.split(key, _SETS)).min()
