"""K-fold cross-validation: the held-out log predictive density of every row, by one program.

A fold is a table of row weights, 0 for the rows that are held out. For users and for criteria of selection;
imports `fit`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from vbjax.core.model import require_model
from vbjax.core.rows import float_dtype, n_rows
from vbjax.data.frames import read_frame
from vbjax.families.base import pytree
from vbjax.inference.fit import fit
from vbjax.inference.pointwise import log_predictive, require_densities
from vbjax.inference.repeated_fits import Effort, map_fits, mean_and_error, warn_unless_converged
from vbjax.inference.resolution import read_data
from vbjax.numerics.compilation import jit
from vbjax.numerics.inputs import is_single, read_count, read_key, read_number
from vbjax.numerics.types import Data, Given

if TYPE_CHECKING:
    from vbjax.core.model import ConjugateModel


@pytree
class CrossValidation:
    """Held-out log predictive densities, in nats.

    Attributes:
        log_density: of every row, by the fit of the folds that it is not in, (n,).
        fold: the fold that each row is in, (n,), from 0.
        weights: of the rows, (n,); None for ones.
        status: `Status` numbers of the folds' fits, (folds,).

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> held_out = vb.cross_validate(vb.GaussianMixture(2), x, key=jax.random.key(0), folds=5)
    >>> held_out.log_density.shape, bool(held_out.mean == held_out.log_density.mean())
    ((272,), True)
    """

    log_density: Float[Array, " n"]
    fold: Int[Array, " n"]
    weights: Float[Array, " n"] | None
    status: Int[Array, " folds"]

    @property
    def mean(self) -> Float[Array, ""]:
        """Mean over the rows; the total is the number of rows times that."""
        return mean_and_error(self.log_density, self.weights)[0]

    @property
    def standard_error(self) -> Float[Array, ""]:
        """Standard error of the mean, from the spread of the rows.

        Two models with one key have the same folds: the error of their difference is that of the rows'
        differences, and mostly much smaller.
        """
        return mean_and_error(self.log_density, self.weights)[1]

    @property
    def by_fold(self) -> Float[Array, " folds"]:
        """Mean over the rows of each fold."""
        weights = jnp.ones_like(self.log_density) if self.weights is None else self.weights
        kept = jnp.where(weights == 0, 0, weights * self.log_density)
        sums = jnp.zeros((2, self.status.size), kept.dtype).at[:, self.fold].add(jnp.stack([kept, weights]))
        return sums[0] / sums[1]

    def __repr__(self) -> str:
        if not is_single(self.log_density, axes=1):
            return f"CrossValidation(log_density={self.log_density})"
        return (
            f"CrossValidation({self.status.size} folds of {self.fold.size} rows: mean log density "
            f"{float(self.mean):.5g}, standard error {float(self.standard_error):.2g})"
        )


def cross_validate(
    model: Any,
    data: Data,
    *,
    key: Array,
    folds: int = 10,
    weights: Given = None,
    n_restarts: int = 4,
    max_iter: int = 1000,
    tol: Given = None,
    devices: Sequence[jax.Device] | None = None,
) -> CrossValidation:
    """Estimate the log predictive density of new rows: fit all folds but one, score that one, for every fold.

    The folds are row weights of one compiled program. Defaults of the model that follow the data follow those
    that are fitted.

    Args:
        model: a conjugate model. Rows are what it calls so: of a hidden Markov model whole sequences.
        data: as `fit` takes them, in memory.
        key: `jax.random.key(...)`; with the same key, number of rows and number of folds the folds are the
            same.
        folds: their number, from 2 to the number of rows (leave one out). Rows are dealt to them at random.
        weights: (n,) row weights; weight w counts a row w times, all of them in one fold.
        n_restarts, max_iter, tol: of the fit of each fold, as of `fit`.
        devices: those that may be used, by default all of this process: the folds are divided over them.

    Returns:
        A `CrossValidation`: its `mean`, `standard_error`, and the density of every row. Where a model has no
        `log_predictive`, a row's density is the mean over 256 draws of the parameters.

    Warns:
        FitWarning: the fit of a fold did not converge.

    Raises:
        ValueError: arguments that `fit` refuses; more folds than rows; a model that has no density of a row:
            topics (`vb.topics.held_out_perplexity` scores those) and k-means.

    References:
        Stone (1974), Cross-validatory choice and assessment of statistical predictions; Vehtari, Gelman &
        Gabry (2017), Practical Bayesian model evaluation, section 2.3.

    >>> import jax, vbjax as vb
    >>> x = vb.datasets.old_faithful()
    >>> held_out = vb.cross_validate(vb.GaussianMixture(2), x, key=jax.random.key(0), folds=5)
    >>> print(f"{held_out.mean:.1f}")
    -4.2
    """
    require_model(model, data, "cross-validation")
    key, effort, folds = read_key(key), Effort.read(n_restarts, max_iter), read_count(folds, "folds", least=2)
    tol = None if tol is None else read_number(tol, "tol")
    if data is None:
        raise ValueError("data must be rows, of which some are held out; got None")
    data, _ = read_frame(data)
    model, data, weights = read_data(model, data, weights)
    require_densities(model, data)
    n = n_rows(data)
    if folds > n:
        whole = "; a sequence is one row" if n < 2 else ""
        raise ValueError(f"folds must be at most the number of rows, {n}{whole}; got {folds}")
    key_folds, *keys = jax.random.split(key, folds + 1)
    fold = _deal(key_folds, n=n, folds=folds)
    tasks = jnp.arange(folds, dtype=fold.dtype), jnp.stack(keys)
    shared = weights, fold, tol
    density, status = map_fits(_hold_out, tasks, model, data, *shared, effort=effort, devices=devices)
    warn_unless_converged(status, "folds", stacklevel=2)
    return CrossValidation(density.sum(0), fold, weights, status)


@functools.partial(jit, static_argnames=("n", "folds"))
def _deal(key: Array, *, n: int, folds: int) -> Int[Array, " n"]:
    """Return the fold of every row, at random, as many rows in each as in any other or one more."""
    return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32) % folds)


def _hold_out(
    task: tuple[Array, Array],
    model: ConjugateModel,
    data: Data,
    weights: Array | None,
    fold: Array,
    tol: Given,
    effort: Effort,
) -> tuple[Array, Array]:
    """Fit all rows that are not of a fold; return the densities of those that are, 0 for others."""
    number, key = task
    held_out = fold == number
    kept = jnp.ones(fold.shape, float_dtype(data)) if weights is None else weights
    found = fit(model, data, key=key, weights=jnp.where(held_out, 0, kept), tol=tol, **effort._asdict())
    density = log_predictive(found.model, found.params, data, key)
    return jnp.where(held_out, density, 0), found.status_code
