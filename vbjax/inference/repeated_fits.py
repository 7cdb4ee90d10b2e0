"""Many independent fits as one program: of folds, of reweighted rows, of simulated data.

The fits are divided over devices; a device makes as many at the same time as it has room for. Imported by
cross-validation and by the bootstrap.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import PartitionSpec

from vbjax.core.contracts import Status
from vbjax.core.devices import RUNS, WHOLE, jit_over_mesh, on_each, over, read_devices, room
from vbjax.inference import division
from vbjax.inference.result import FitWarning
from vbjax.numerics.inputs import is_concrete, read_count
from vbjax.numerics.types import Data, Given, Tree

if TYPE_CHECKING:
    from vbjax.core.contracts import Model


class Effort(NamedTuple):
    """Options of `fit` that say what to spend on each fit; static in the program."""

    n_restarts: int = 1
    max_iter: int = 1000

    @classmethod
    def read(cls, n_restarts: Given, max_iter: Given) -> Effort:
        """Return the counts; raise a ValueError for what is none."""
        return cls(read_count(n_restarts, "n_restarts"), read_count(max_iter, "max_iter"))


def map_fits(
    function: Callable[..., Tree],
    tasks: Tree,
    model: Model,
    data: Data,
    *args: Tree,
    effort: Effort,
    devices: Sequence[jax.Device] | None,
) -> Tree:
    """Return function(task, model, data, *args, effort) of every task, by one program.

    Args:
        function: of this package's own modules, so that the program is compiled once; it calls `fit`.
        tasks: arrays with a leading axis of tasks.
        model, data, args: what is the same for all tasks.
        effort: of each fit.
        devices: those that may be used, by default all of this process.
    """
    n, mesh, some, shared = len(jax.tree.leaves(tasks)[0]), None, read_devices(devices), (model, data, *args)
    if is_concrete((tasks, shared)):
        padded = np.arange(-(-n // len(some)) * len(some)) % n
        mesh, shared = division.divide_runs(shared, len(padded), some)
        if len(padded) > n and mesh is not None:
            tasks = jax.tree.map(lambda x: x[padded], tasks)
    with over(mesh):
        at_once = 1 if room() == 1 else max(1, division.lanes_for(model, data) // effort.n_restarts)
        found = _map_fits(tasks, shared, function=function, effort=effort, at_once=at_once)
    return jax.tree.map(lambda x: x[:n], division.gathered(found, mesh))


@functools.partial(jit_over_mesh, static=("function", "effort", "at_once"))
def _map_fits(
    tasks: Tree, shared: Tree, *, function: Callable[..., Tree], effort: Effort, at_once: int
) -> Tree:
    def own(tasks: Tree, shared: Tree) -> Tree:
        with over(None):  # a fit within is one device's own
            task = lambda task: function(task, *shared, effort)
            return lax.map(task, tasks, batch_size=None if at_once == 1 else at_once)

    runs = PartitionSpec(RUNS)
    return on_each(own, (runs, WHOLE), runs)(tasks, shared)


def warn_unless_converged(status: Array, what: str, stacklevel: int) -> None:
    """Warn where fits have not converged; not inside jit and vmap."""
    if is_concrete(status) and (failed := int((status != Status.CONVERGED).sum())):
        warnings.warn(
            f"{failed} of {status.size} {what} did not converge", FitWarning, stacklevel=stacklevel + 1
        )


def mean_and_error(values: Array, weights: Array | None = None) -> tuple[Array, Array]:
    """Return the mean over rows and its standard error, from the spread of the rows; w counts a row w times.

    Vehtari, Gelman & Gabry (2017), eq. 23, divided by the number of rows.
    """
    weights = jnp.ones_like(values) if weights is None else weights
    kept = jnp.where(weights == 0, 0, values)
    n = weights.sum()
    mean = (weights * kept).sum() / n
    variance = (weights * (kept - mean) ** 2).sum() / (n - 1)
    return mean, jnp.sqrt(variance / n)
