"""The choice of a mixture on Old Faithful: 36 models, 32 starts each, beside scikit-learn's loop over them.

`python -m bench selection`. Both stop where the log likelihood per row rises by less than 1e-6. Our first
call compiles, in a process whose cache of programs is empty; the second is timed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from sklearn.mixture import GaussianMixture

import vbjax as vb
from bench.measure import run_parts, seconds, table

TYPES = ["full", "tied", "diag", "spherical"]
SIZES, STARTS, TOL = range(1, 10), 32, 1e-6


def select(report: list[str]) -> None:
    """Time both, cold and again, and say what each of them chose."""
    x = vb.datasets.old_faithful()
    rows, key = np.asarray(x, float), jax.random.key(0)
    found: dict[str, Any] = {}
    grid = dict(n_components=SIZES, covariance_type=TYPES)

    def ours() -> object:
        found["ours"] = vb.select(vb.GaussianMixture, x, grid, key=key, n_restarts=STARTS, tol=TOL)
        return found["ours"].candidates[0].found.objective

    def theirs() -> None:
        scores = {}
        for kind in TYPES:
            for k in SIZES:
                model = GaussianMixture(
                    k, covariance_type=kind, n_init=STARTS, tol=TOL, max_iter=1000, random_state=0
                )
                scores[k, kind] = model.fit(rows).bic(rows)
        found["theirs"] = min(scores.items(), key=lambda item: item[1])

    cold, again, other = seconds(ours), seconds(ours), seconds(theirs)
    best, ((k, kind), bic) = found["ours"].candidates[0], found["theirs"]
    report.append(
        "### Choice of a mixture: 9 numbers of components x 4 covariance structures, 32 starts each"
    )
    header = ["", "seconds", "chosen", "BIC"]
    chosen = " ".join(str(value) for value in best.options.values())
    report.append(
        table(
            header,
            [
                ["vbjax, first call", f"{cold:.2f}", chosen, f"{best.value:.2f}"],
                ["vbjax, again", f"{again:.2f}", chosen, f"{best.value:.2f}"],
                ["scikit-learn", f"{other:.2f}", f"{k} {kind}", f"{bic:.2f}"],
            ],
        )
    )
    report.append(f"Again {other / again:.1f} times as fast.")


def run(only: Sequence[str] | None = None) -> None:
    run_parts("selection", dict(select=select), ["scikit-learn"], only)
