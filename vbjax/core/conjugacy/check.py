"""A model of one's own is examined before it is fitted: what its log joint is, and what cannot be fitted.

The probes (probes.py) look at a few rows, and are asked once for each structure and shape of model and data:
is the log joint conjugate, does every row speak for itself, which factors interact and must be updated one
after the other, and where could neutral factors be a saddle of the bound?
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vbjax.core.conjugacy.indices import Reads, find_reads, require_cells
from vbjax.core.conjugacy.probes import depends_on_other_rows, operations_on, probe
from vbjax.core.conjugacy.remedies import remedy
from vbjax.core.model import in_dtype
from vbjax.core.ragged import parts_of
from vbjax.core.rows import float_dtype
from vbjax.families.base import Family
from vbjax.numerics.inputs import is_concrete, rows_here
from vbjax.numerics.record import Record
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model
    from vbjax.core.model import ConjugateModel

_N_ROWS = 4  # rows that the probes look at


@dataclasses.dataclass(frozen=True)
class _Question:
    """Structure and shapes of a model and its data; the numbers do not matter to the answer."""

    key: Any
    model: ConjugateModel = dataclasses.field(compare=False)
    rows: Data = dataclasses.field(compare=False)


Blocks = tuple[tuple[str, ...], ...]


@stored
class Inspection(NamedTuple):
    """Findings about a log joint.

    Attributes:
        blocks: global factors that may be updated together, in order.
        interacting_locals: whether two local factors meet in one term, and so must be updated in turn.
        random_starts: global factors that multiply one another: at neutral ones the bound may have a saddle.
        may_have_saddles: whether any two factors multiply, local ones among them.
    """

    blocks: Blocks
    interacting_locals: bool
    random_starts: tuple[str, ...]
    may_have_saddles: bool


def inspect_model(model: ConjugateModel, data: Data, given: Blocks | None = None) -> Inspection:
    """Return what was found of a log joint; its blocks are those `given`, if they are sound.

    Raises:
        ValueError: where the log joint is not affine in the statistics of a factor, or where the given
            blocks do not hold every factor once or put two together that interact; the error names them.
    """
    data = rows_here(data)
    question = _question(model, data)
    found = _answer(question)
    for part in parts_of(data):
        require_cells(question.model, part, found.reads)
    if given is None:
        return found.inspection
    names = [name for block in given for name in block]
    if sorted(names) != sorted(model.factors):
        raise ValueError(f"blocks must hold each of {', '.join(model.factors)} once; got {given}")
    for block in given:
        for name, other in itertools.combinations(block, 2):
            if frozenset((name, other)) in found.interacting:
                raise ValueError(f"blocks must not put {name!r} and {other!r} together: they interact")
    return found.inspection._replace(blocks=given)


def _question(model: ConjugateModel, data: Data) -> _Question:
    with jax.ensure_compile_time_eval():
        rows = jax.tree.map(lambda x: _concrete(x[:_N_ROWS]), parts_of(data)[-1])
        model = in_dtype(jax.tree.map(_concrete, model), float_dtype(data))
    leaves, structure = jax.tree.flatten((model, rows))
    key = structure, tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    return _Question(key, model, rows)


def _concrete(x: Data) -> Array:
    """Return the array, or ones of its shape where it is being traced."""
    return jnp.asarray(x) if is_concrete(x) else jnp.ones(jnp.shape(x), jnp.result_type(x))


class _Answer(NamedTuple):
    """An inspection, the pairs of factors that interact, and the indices that rows have into plates."""

    inspection: Inspection
    interacting: frozenset[frozenset[str]]
    reads: Reads


@functools.lru_cache(maxsize=256)
def _answer(question: _Question) -> _Answer:
    model, rows = question.model, question.rows
    reads = _require_shapes(model, rows)
    with jax.ensure_compile_time_eval():
        residuals, poisoned, unused = probe(model, rows)
    local = {} if rows is None else model.local(rows)
    families = {**model.factors, **local}
    for name, family in families.items():
        if family.guarded:
            continue
        if not residuals[name] <= 1.0 or poisoned[name][name]:  # a NaN residual is a refusal too
            raise ValueError(
                f"the log joint is not affine in the statistics of the factor {name!r} ({family}): its "
                "coordinate update would not be the optimum. "
                + remedy(name, family, operations_on(model, rows, name), name in local)
            )
    if unused:
        name, what = unused[0], "local factor" if unused[0] in local else "factor"
        raise ValueError(
            f"the {what} {name!r} ({families[name]}) is in no term of log_prior or log_likelihood"
        )
    _require_rows_apart(model, rows)
    pairs = list(itertools.permutations(families, 2))
    interacting = frozenset(frozenset(pair) for pair in pairs if poisoned[pair[0]][pair[1]])
    multiply = [pair for pair in pairs if _multiply(families, poisoned, *pair)]
    inspection = Inspection(
        blocks=_blocks(model, interacting),
        interacting_locals=any(frozenset(pair) in interacting for pair in itertools.combinations(local, 2)),
        random_starts=tuple(
            name
            for name, family in model.factors.items()
            if family.curvature and any(name in pair and not {*local} & {*pair} for pair in multiply)
        ),
        may_have_saddles=bool(multiply),
    )
    return _Answer(inspection, interacting, reads)


def _require_rows_apart(model: Model, rows: Data) -> None:
    if rows is None:
        return
    with jax.ensure_compile_time_eval():
        if depends_on_other_rows(model, rows):
            raise ValueError(
                "log_likelihood must give each row's number from that row alone: here it changes with other "
                "rows or their order, of which a pass sees some at a time. Make what is taken over all rows "
                "(a mean, a position) before the fit, and give it as a hyperparameter or a column of data."
            )


def _multiply(families: Mapping[str, Family], poisoned: Tree, name: str, other: str) -> bool:
    """Tell whether a location's curvature depends on another one, or the pull on a label on anything."""
    family = families[other]
    meets = families[name].curvature or families[name].guarded or family.curvature == "p"
    return bool(meets) and family.curvature in poisoned[name][other]


def _blocks(model: ConjugateModel, interacting: frozenset[frozenset[str]]) -> Blocks:
    """Return blocks of global factors, those not conjugate first; a block ends where two interact."""
    blocks: list[tuple[str, ...]] = []
    for name in sorted(model.factors, key=lambda name: not model.factors[name].guarded):
        apart = bool(blocks) and not model.guarded(blocks[-1])
        apart = apart and not any(frozenset((name, other)) in interacting for other in blocks[-1])
        blocks[-1:] = [(*blocks[-1], name)] if apart else [*blocks[-1:], (name,)]
    return tuple(blocks)


def _require_shapes(model: ConjugateModel, rows: Data) -> Reads:
    """Evaluate both functions at shapes alone; return which of the rows' numbers they use as indices.

    Raises:
        ValueError: a name that does not exist; plates that do not fit.
    """
    local = {} if rows is None else model.local(rows)
    families, dtype = {**model.factors, **local}, float_dtype((model, rows))
    shapes = {n: jax.eval_shape(lambda f=f: f.zero_statistics(dtype)) for n, f in families.items()}
    s = Record(shapes)
    reads = Reads((), False)
    for name in ("log_prior",) if rows is None else ("log_prior", "log_likelihood"):
        try:
            if name == "log_prior":
                jax.eval_shape(model.scalar_prior, s)
            else:
                reads = find_reads(model, s, rows)
        except (AttributeError, TypeError, IndexError, ValueError) as error:
            if str(error).startswith(name):  # it says all itself
                raise
            factors = ", ".join(f"{key}: {family}" for key, family in families.items())
            shapes = jax.tree.map(jnp.shape, rows)
            raise ValueError(
                f"{name} cannot be evaluated over the factors {factors}, {shapes} being the shape of "
                f"{_N_ROWS} rows: {error}"
            ) from error
    return reads
