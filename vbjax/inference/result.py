"""`Fit`, the result of a fit: the best run, the table of all runs, and a verdict on how far to trust them.

Made by `fit` and the other drivers; imported by every reader of a fit.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.contracts import Status
from vbjax.core.presentation import uses
from vbjax.data.frames import Columns, read_frame, reads_frames
from vbjax.families.base import pytree
from vbjax.inference import saved_fits
from vbjax.inference.certificate import Certificate, certify
from vbjax.inference.restarts import Runs
from vbjax.inference.summary import Summary, summarise
from vbjax.numerics.inputs import is_single, read_key
from vbjax.numerics.stored import stored
from vbjax.numerics.types import Data, Given, Params

M = TypeVar("M")


@stored
class Search(NamedTuple):
    """Account of the search of a fit among optima.

    Attributes:
        rounds: how many rounds there were, each of a move in every lane.
        climbs: how many moves were climbed from.
        kept: how many rounds ended at a better optimum, which was kept.
        gained: what the objective has risen by, from the best of the runs.
        returned: how many of the moves away from the final optimum came back to it.
    """

    rounds: int | Array
    climbs: int | Array
    kept: int | Array
    gained: float | Array
    returned: int | Array

    @property
    def sentence(self) -> str:
        """Sentence that says what the search found."""
        return (
            f"the search kept {int(self.kept)} moves in {int(self.rounds)} rounds and gained "
            f"{float(self.gained):.4g}; {int(self.returned)} of the moves away came back"
        )


class FitWarning(UserWarning):
    """A fit that has ended and needs a look: it did not converge, or its runs disagree.

    >>> import warnings, vbjax as vb
    >>> warnings.filterwarnings("ignore", category=vb.FitWarning)  # where a fit ends early by intention
    """


@runtime_checkable
class Diagnosis(Protocol):
    """Knowledge of an approximation beyond its bound, as a fit reports it (`blackbox.Diagnostics`)."""

    @property
    def outside(self) -> Float[Array, "*batch"]: ...

    @property
    def between_restarts(self) -> Float[Array, "*batch"]: ...

    @property
    def trust(self) -> str: ...

    @property
    def sentence(self) -> str: ...


@pytree
class Fit(Generic[M]):
    """Result of a fit: the best run's parameters, and how far to trust them. A pytree.

    What the model can do with parameters the fit does with its own: `fit.predict(x)` is
    `fit.model.predict(fit.params, x)`, and so are `fit.sample(key, n)`, `fit.elbo_terms(x)` and the others.

    Attributes:
        model: the model with every default filled in from the data.
        params: states of the global factors by name; `fit.params.mu.mean`, `.sd`, `.sample(key, n)`.
        objective: of exactly these parameters: the log likelihood (EM), log posterior (MAP), minus the
            inertia (k-means) or the evidence lower bound (variational Bayes), in nats.
        n_iter: number of sweeps of the best run.
        runs: objective, n_iter, status, singularity and trace of every restart.
        full_trace: the best run's objective at every sweep, NaN after the last sweep; `trace` leaves these
            out.
        status_code: the best run's status as a number; `status` is the `Status` itself.
        diagnostics: the `Diagnostics` of a `BlackBox`; None for other models.
        escaped: rise of the bound, in nats, from a saddle at which the best run had converged, 0 where there
            was none; n_iter and trace are then those of the climb from the saddle. None where `fit` does not
            look for saddles: inside jit, and for models that have none.
        search: an account of the search among optima, a `Search`; None without one. The best run's n_iter and
            trace are then those of its last climb.
        columns: names of the columns of a data frame, and labels of those with categories; None for data of
            other kinds. Uses of the fit find the columns of another frame by these names.
        gain_left: nats that the next step of the best run promised, where the algorithm stops by these; NaN
            where it stops by another rule, None where by the last rise of the objective.

    >>> import jax, vbjax as vb
    >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
    >>> print(f"{fit.params.mu.mean:.3f} +- {fit.params.mu.sd:.3f}, {fit.status.name}")
    2.000 +- 0.632, CONVERGED
    """

    model: M
    params: Params
    objective: Float[Array, "*batch"]
    n_iter: Int[Array, "*batch"]
    runs: Runs
    full_trace: Float[Array, "*batch max_iter"]
    status_code: Int[Array, "*batch"]
    diagnostics: Diagnosis | None = None
    escaped: float | Array | None = None
    search: Search | None = None
    columns: Columns | None = None
    gain_left: Float[Array, "*batch"] | None = None

    @property
    def trace(self) -> Float[Array, "*batch n_iter"]:
        """Objective at every sweep of the best run (inside jit or batched: `full_trace`)."""
        return self.full_trace[: int(self.n_iter)] if is_single(self.n_iter) else self.full_trace

    @property
    def status(self) -> Any:
        """`Status` of the best run (inside jit or batched: its number)."""
        return Status(int(self.status_code)) if is_single(self.status_code) else self.status_code

    def __getattr__(self, name: str) -> Any:
        """Return a use of the model, with the parameters of the fit in their place."""
        model = self.__dict__.get("model")
        if name in uses(model):
            return reads_frames(functools.partial(getattr(model, name), self.params), self.columns)
        raise AttributeError(f"a fit of {type(model).__name__} has no {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *(uses(self.model) & {*dir(self.model)})})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to a file, from which `vb.load` makes it again; an older file is replaced at once.

        The file has the arrays and a header in JSON, no pickled code. Functions, which models of your own
        have, are not in it: see `vb.load`.

        Args:
            path: the file, such as "waiting.vbjax".

        Raises:
            ValueError: a path that is none; inside jit and vmap; a part of the fit of a class that is neither
                ours nor decorated by `vbjax.families.base.pytree`.
            OSError: it cannot be written; what was there stays as it was.
        """
        saved_fits.save(self, path)

    def summary(self) -> Summary:
        """Return a table of the parameters, under the verdict: posterior mean, sd and 90 % interval.

        The intervals are exact where the family's quantiles are known (`State.quantile` says where not), from
        draws where the approximation is known by draws, and left out of a factor of more than 20,000 numbers.
        Points have values alone. Components come with the heaviest first; those without rows, whose posterior
        is the prior, are counted in the last line, and are in the `records`.

        Returns:
            A `Summary`: `print` shows it within 80 columns, a notebook as a table, and its `records` make a
            data frame.

        Raises:
            ValueError: a batch of fits, or one inside jit.

        >>> import jax, vbjax as vb
        >>> fit = vb.fit(vb.textbook.GaussianMeanPrecision(), jax.numpy.arange(5.0), key=jax.random.key(0))
        >>> print(fit.summary())
        GaussianMeanPrecision: objective -19.6042, converged: the objective changes by
        less than the tolerance (6 sweeps)
        <BLANKLINE>
                  mean         sd        5 %       95 %
        mu           2     0.6323       0.96       3.04
        tau        0.5     0.2886     0.1363      1.049
        """
        self._require_single()
        model: Any = self.model
        verdict = f"{type(model).__name__}: {self.verdict()}"
        return summarise(self.params, verdict, model.named_axes, self.columns, model.empty(self.params))

    def certificate(
        self, data: Data = None, *, weights: Given = None, key: Array | None = None
    ) -> Certificate:
        """Return what speaks for and against the fit: a table of findings, and a sentence.

        They are: how many restarts found the best optimum, and how far below the next one is; how the run
        ended, and how far the objective has still to rise; how close the approximation of a `BlackBox` is to
        the posterior; of the data, what another sweep would change, beside the rounding error of the
        objective; components that have collapsed or are empty; digits that ill-conditioned matrices cost; by
        how much the standard deviations of q fall short of those of linear response; and, with a key, rows
        that no component explains.

        Args:
            data: of the fit; without them only what needs none is found.
            weights: of the rows, those of the fit.
            key: `jax.random.key(...)`, for the data sets that the rows are compared with.

        Returns:
            A `Certificate`: `print` shows it, `sentence` sums it up, `findings.optimum.numbers["gap"]` and
            the like are its numbers.

        Raises:
            ValueError: a batch of fits, or one inside jit; data or weights that are not of such a model.

        >>> import jax, vbjax as vb
        >>> x = vb.datasets.old_faithful()
        >>> fit = vb.fit(vb.GaussianMixture(2), x, key=jax.random.key(0), n_restarts=8)
        >>> print(fit.certificate().sentence)
        Nothing found speaks against it.
        """
        self._require_single()
        if data is None and weights is not None:
            raise ValueError("weights are for rows of data; there are none")
        key = None if key is None else read_key(key)
        data, _ = read_frame(data, self.columns)
        return certify(self, data, weights, key, self._n_best, self._slack)

    def plot(self, data: Data = None, **options: Given) -> Given:
        """Draw a page on the fit (`vbjax.plots.page`): what suits its model, the trace, and the restarts.

        Args:
            data: rows of a Gaussian mixture or KMeans, sequences of a hidden Markov model, or the vocabulary
                of a topic model. Without, and for other models, the page shows the parameters' intervals.
            options: `figure`, matplotlib's, to draw on; by default a new one.

        Returns:
            The figure.
        """
        plots = importlib.import_module("vbjax.plots")  # it knows fits, not they it; and it takes matplotlib
        return plots.page(self, data, **options)

    def _require_single(self) -> None:
        if not is_single(self.objective):
            raise ValueError("fit must be of one data set and outside jit; jax.tree.map takes one of a batch")

    def _repr_html_(self) -> str | None:
        return self.summary()._repr_html_() if is_single(self.objective) else None

    def __repr__(self) -> str:
        if not is_single(self.objective):
            return f"Fit({type(self.model).__name__}, objective={self.objective})"
        return f"Fit({type(self.model).__name__}: {self.verdict()})"

    def warn(self, stacklevel: int = 1) -> None:
        """Warn with the verdict where the run did not converge, is singular, or alone found its optimum."""
        escaped = self.escaped is not None and self.escaped > 0  # then no restart has been there
        sought = self.search is not None and self.search.returned > 0
        alone = self.runs.objective.size > 1 and self._n_best < 2 and not escaped and not sought
        if self.status != Status.CONVERGED or alone or not self.runs.on_host().sound.any():
            warnings.warn(
                f"{type(self.model).__name__}: {self.verdict()}", FitWarning, stacklevel=stacklevel + 1
            )

    @property
    def _rounding(self) -> float:
        """Nats by which equal optima may differ."""
        return 1e-4 * max(1.0, abs(float(self.objective)))

    @property
    def _slack(self) -> float:
        """Nats within which runs count as equal: for rounding, or as far as the objective is known."""
        known = 0.0 if self.diagnostics is None else float(self.diagnostics.between_restarts)
        return max(self._rounding, known)

    @property
    def _n_best(self) -> int:
        """Number of runs that reached the best objective."""
        runs = self.runs.on_host()
        return int((runs.sound & (runs.objective >= float(self.objective) - self._slack)).sum())

    def verdict(self) -> str:
        """Return one sentence on how far to trust the fit: status, agreement of restarts, singular runs."""
        words = f"objective {float(self.objective):.6g}, {self.status.sentence} ({int(self.n_iter)} sweeps)"
        runs = self.runs.on_host()
        objective, singular, sound = runs.objective, runs.singular, runs.sound
        if objective.size > 1 and _are_one_run(runs):
            words += f"; {objective.size} restarts, all the same run"
        elif objective.size > 1:
            slack = self._slack
            within = "1e-4" if slack == self._rounding else f"{slack:.2g} nats"
            words += f"; {self._n_best} of {objective.size} restarts within {within} of the best"
            unfinished = int((runs.status != Status.CONVERGED).sum())
            words += f", {unfinished} did not converge" if unfinished else ""
            aside = " and set aside" if sound.any() else ""
            words += f", {int(singular.sum())} singular{aside}" if singular.any() else ""
        if self.escaped is not None and self.escaped > 0:
            words += f"; it had converged at a saddle, from which the bound rose by {self.escaped:.4g} nats"
        if self.search is not None:
            words += f"; {self.search.sentence}"
        if singular.any() and not sound.any():
            words += "; the solution is singular: a component has collapsed, do not trust the objective"
        if self.diagnostics is None:
            return words
        failed = self.status in (Status.NON_FINITE, Status.UNBOUNDED)
        if failed and not self.diagnostics.outside > 0:  # they describe parameters that are no answer
            return words
        return f"{words}; {self.diagnostics.sentence}"


def _are_one_run(runs: Runs) -> bool:
    """Tell whether all restarts took the same path, to the bit."""
    return all(np.array_equal(x, np.broadcast_to(x[:1], x.shape), equal_nan=True) for x in runs)
