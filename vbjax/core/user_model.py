"""`vb.Model`: a model of one's own, given as functions of statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from jax import Array
from jaxtyping import Float

from vbjax.core.conjugacy.check import Inspection, inspect_model
from vbjax.core.model import ConjugateModel
from vbjax.core.model_arguments import read_blocks, read_factors, read_function, read_hyper
from vbjax.core.ragged import Ragged
from vbjax.core.rows import n_rows
from vbjax.families.base import Family, pytree, replace, static
from vbjax.families.delta import Delta
from vbjax.numerics.record import Record
from vbjax.numerics.shown import shown
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data, Given, Tree


@stored
class _Structure(NamedTuple):
    """Parts of a model that are no numbers: functions, factors, and what `fit` found of its log joint."""

    factors: Mapping[str, Family]
    log_prior: Callable[[Record], Float[Array, ""] | float] | None
    log_likelihood: Callable[[Record, Data], Array] | None
    local: Mapping[str, Family]
    blocks: tuple[tuple[str, ...], ...] | None
    inspection: Inspection | None = None


@pytree
class Model(ConjugateModel):
    """A conjugate-exponential model: the log joint once, over statistics; everything else is derived.

    Args:
        factors: the global factors of q by name, `dict(mu=vb.Normal(), tau=vb.Gamma())`. Latents that are
            not conjugate are `vb.NonConjugate(vb.real(3))`, and values in the log joint.
        log_prior: function of `s` to a scalar. `s.mu` is the expected statistics of the factor mu and
            `s.mu0` a hyperparameter; the densities of `vbjax.terms` take both.
        log_likelihood: function of `s` and rows to one number for each row, shape (n,), the log
            densities of local latents included. None for a model without data.
        hyper: hyperparameters by name: leaves, which may be changed, vmapped and differentiated.
        local: local factors by name, for one row; their statistics have the rows as leading axis. Where two
            of them interact, they are updated in turn and carried from sweep to sweep.
        blocks: tuples of names of factors that are updated together, in order. Factors of one block
            must not interact; by default `fit` finds the blocks.

    Raises:
        ValueError: an argument of another kind, a name that is given twice, a local factor that is not
            conjugate; from `fit`, where the log joint is not affine in the statistics of a factor, so that
            its coordinate update would be wrong, where the number of a row depends on other rows, and where
            the data have numbers of cells that a plate has not.

    References:
        Winn, J. & Bishop, C. (2005), Variational message passing, JMLR 6, sections 3 and 4.

    >>> import jax, vbjax as vb
    >>> from vbjax.terms import normal
    >>> model = vb.Model(
    ...     factors=dict(mu=vb.Normal()), hyper=dict(prior_precision=1.0),
    ...     log_prior=lambda s: normal(s.mu, 0.0, s.prior_precision),
    ...     log_likelihood=lambda s, x: normal(x, s.mu, 1.0),
    ... )
    >>> fit = vb.fit(model, jax.numpy.array([1.0, 2.0, 3.0]), key=jax.random.key(0))
    >>> print(f"{fit.params.mu.mean:.4f} {fit.params.mu.precision:.4f}")
    1.5000 4.0000
    """

    hyper: Record
    structure: _Structure = static()

    def __init__(
        self,
        *,
        factors: Mapping[str, Family],
        log_prior: Callable[[Record], Float[Array, ""] | float] | None = None,
        log_likelihood: Callable[[Record, Data], Array] | None = None,
        hyper: Mapping[str, Tree] | None = None,
        local: Mapping[str, Family] | None = None,
        blocks: Iterable[Iterable[str]] | None = None,
    ) -> None:
        of_rows, of_hyper = read_factors(local, "local"), read_hyper(hyper)
        factors = read_factors(factors, "factors")
        names = [*factors, *of_rows, *of_hyper]
        if len(set(names)) < len(names):
            raise ValueError(f"factors, local and hyper must have different names; got {', '.join(names)}")
        points = {name: family.of for name, family in factors.items() if isinstance(family, Delta)}
        for where, families in ("local", of_rows), ("Delta", points):
            if wrong := [f"{name}={family}" for name, family in families.items() if family.guarded]:
                raise ValueError(
                    f"{where} takes conjugate factors alone, one that is not is global; got {wrong[0]}"
                )
        functions = read_function(log_prior, "log_prior"), read_function(log_likelihood, "log_likelihood")
        structure = _Structure(factors, *functions, of_rows, read_blocks(blocks))
        object.__setattr__(self, "hyper", of_hyper)
        object.__setattr__(self, "structure", structure)

    def replace(self, **hyper: Given) -> Model:
        """Return the same model with other hyperparameters; compiled programs are reused."""
        unknown = set(hyper) - set(self.hyper)
        if unknown:
            raise ValueError(f"hyper has no {', '.join(sorted(unknown))}; it has {', '.join(self.hyper)}")
        return replace(self, hyper=self.hyper | read_hyper(hyper))

    @property
    def factors(self) -> Mapping[str, Family]:
        return self.structure.factors

    @property
    def blocks(self) -> tuple[tuple[str, ...], ...]:
        found = self.structure.inspection
        return found.blocks if found else self.structure.blocks or tuple((name,) for name in self.factors)

    def local(self, rows: Data) -> Mapping[str, Family]:
        n = n_rows(rows)
        return {name: family.of_rows(rows, n) for name, family in self.structure.local.items()}

    def read(self, data: Data) -> Data:
        """Return the data as arrays of one dtype; `Sequences` as they are."""
        return data if isinstance(data, Ragged) else super().read(data)

    def chunk_rows(self, data: Data) -> int:
        usual = super().chunk_rows(data)
        return min((family.chunk_rows(usual) for family in self.local(data).values()), default=usual)

    @property
    def interacting_locals(self) -> bool:  # type: ignore[override]
        return (found := self.structure.inspection) is not None and found.interacting_locals

    @property
    def random_starts(self) -> tuple[str, ...]:  # type: ignore[override]
        return found.random_starts if (found := self.structure.inspection) else ()

    @property
    def may_have_saddles(self) -> bool:  # type: ignore[override]
        return (found := self.structure.inspection) is not None and found.may_have_saddles

    def log_prior(self, s: Record) -> Float[Array, ""] | float:
        return 0.0 if (prior := self.structure.log_prior) is None else prior(s)

    def log_likelihood(self, s: Record, rows: Data) -> Array:
        return self.structure.log_likelihood(s, rows)  # type: ignore[misc]

    def namespace(self, s: Record) -> Record:
        return Record({**self.hyper, **s})

    def inspect(self, data: Data) -> Model:
        bare = self.structure._replace(inspection=None)
        if (data is None) != (bare.log_likelihood is None):
            have = "there is none" if data is not None else "it takes rows"
            raise ValueError(f"data must be given exactly where there is a log_likelihood; {have}")
        found = inspect_model(replace(self, structure=bare), data, bare.blocks)
        return replace(self, structure=bare._replace(inspection=found))

    def __repr__(self) -> str:
        factors = ", ".join(f"{name}: {family}" for name, family in self.factors.items())
        hyper = ", ".join(f"{name}={shown(value)}" for name, value in self.hyper.items())
        return f"Model({factors}; {hyper})"
