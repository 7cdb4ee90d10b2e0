"""Fits to minibatches, killed at random moments: `python -m tests.support.killed_fits FOLDER N EPOCHS KIND`

It prints a line of JSON for every kind: how often a fit was killed, and whether what it went on to is, to the
bit, the fit that was left alone. Each fit is a process of its own, forked before JAX starts its devices.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import warnings

import jax
import numpy as np

import vbjax as vb
from vbjax.inference import checkpoints


def clouds():
    """Return rows of two clouds, (40, 2)."""
    x = np.random.default_rng(0).normal(size=(40, 2)) + 2.5 * (np.arange(40) % 2)[:, None]
    return x.astype("float32")


def minibatches(kind, **how):
    """Fit to arrays, to an iterator, to a source or to documents in minibatches, five in an epoch."""
    options = dict(key=jax.random.key(0), batch_size=8, n_epochs=8) | how
    model, data = vb.GaussianMixture(3), options.pop("data", None)
    if kind == "documents":
        counts = np.random.default_rng(0).poisson(0.5, (40, 12))
        model, data = vb.LatentDirichletAllocation(2), vb.Documents.of(counts)
    else:
        data = clouds() if data is None else data
    if kind == "source":
        data = vb.sources.Memmap(data)
    if kind == "iterator":
        passes = np.split(np.tile(data, (options["n_epochs"], 1)), 5 * options["n_epochs"])
        data, options = options.pop("batches", iter)(passes), options | dict(total_rows=40)
    return vb.fit_stochastic(model, data, **options)


def write(path, kind, n_epochs, checkpoint=None):
    """Write the numbers of a fit to a file; with a checkpoint, kept at every look of the host."""
    checkpoints._EVERY = 0.0
    fit = minibatches(kind, n_epochs=n_epochs, checkpoint=checkpoint)
    np.savez(path, *jax.tree.leaves((fit.params, fit.objective, fit.full_trace, fit.n_iter)))


def begun(*args):
    """Return the number of a process that writes a fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, of a fork: it has no thread yet
        process = os.fork()
    if process:
        return process
    try:
        write(*args)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def ended(process):
    """Wait for a process; return whether it was killed."""
    status = os.waitpid(process, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("a fit has failed")
    return os.WIFSIGNALED(status)


def killed(folder, n, kind, n_epochs):
    """Kill a fit so many times, then leave it alone; again from the beginning where it ends before."""
    alone, result, run = folder / "alone.npz", folder / "result.npz", folder / "run"
    started = time.perf_counter()
    ended(begun(alone, kind, n_epochs))
    took, moments = time.perf_counter() - started, random.Random(kind)
    kills, same = 0, []
    while kills < n or not same:
        process = begun(result, kind, n_epochs, run)
        if kills < n:
            time.sleep(moments.uniform(0, 1.2 * took))
            os.kill(process, signal.SIGKILL)
        if ended(process):
            kills += 1
        else:
            with np.load(alone) as left, np.load(result) as found:
                same.append(all(np.array_equal(left[x], found[x], equal_nan=True) for x in left.files))
            shutil.rmtree(run)
    return dict(kind=kind, kills=kills, same=same)


if __name__ == "__main__":
    folder, n, n_epochs, *kinds = sys.argv[1:]
    for kind in kinds:
        own = pathlib.Path(folder, kind)
        own.mkdir()
        print(json.dumps(killed(own, int(n), kind, int(n_epochs))), flush=True)
