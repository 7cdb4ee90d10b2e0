"""Calibration of what black-box fits say of themselves: errors of fits to known targets, and the verdicts.

Every target of `blackbox_targets` is fitted by every family from ten seeds, in float32 and float64; the fits
of a target, family and dtype are one compiled program. A fit is good where its means are within 0.1 sds of
the target's and its sds within 10 %, bad where a mean is more than 0.3 sds off or a ratio of sds outside 0.7
to 1.4.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import vbjax as vb
from bench.blackbox_targets import TARGETS, target
from bench.measure import DTYPES, table

FAMILIES: dict[str, Any] = {
    "full_rank": "full_rank",
    "mean_field": "mean_field",
    "low_rank(2)": vb.blackbox.low_rank(2),
}
N_SEEDS, N_DRAWS, MAX_ITER = 10, 20_000, 200


class Outcome(NamedTuple):
    """A fit: worst error of its means in sds of the target, ratios of its sds, and what it says of itself."""

    target: str
    family: str
    dtype: str
    error: float
    ratios: tuple[float, float]
    diagnostics: Any
    status: vb.Status

    @property
    def good(self) -> bool:
        """Whether means and sds are right."""
        return self.error <= 0.1 and self.ratios[0] >= 0.9 and self.ratios[1] <= 1.1

    @property
    def bad(self) -> bool:
        """Whether they are far off."""
        return not (self.error <= 0.3 and self.ratios[0] >= 0.7 and self.ratios[1] <= 1.4)

    @property
    def flagged(self) -> bool:
        """Whether the fit says that its own means and sds are not to be taken as they are."""
        return self.diagnostics.trust != "all"


@functools.partial(jax.jit, static_argnames="reported")
def _fits(model: vb.BlackBox, data: Any, keys: Array, *, reported: Any) -> tuple[Array, Array, Any, Array]:
    """Return means and sds of what the target reports, diagnostics and status of each fit."""

    def one(key: Array) -> tuple[Array, Array, Any, Array]:
        fit = vb.fit(model, data, key=key, max_iter=MAX_ITER)
        values = fit.params.sample(jax.random.fold_in(key, 1), N_DRAWS)
        values = jax.vmap(reported, (0, None))(values, data)
        return values.mean(0), values.std(0), fit.diagnostics, fit.status

    return jax.lax.map(one, keys)


def outcomes(name: str, family: str, n_seeds: int = N_SEEDS) -> list[Outcome]:
    """Return the fits of one target by one family, in the default float's dtype."""
    known, keys = target(name), jax.random.split(jax.random.key(0), n_seeds)
    model = vb.BlackBox(known.log_density, known.support, family=FAMILIES[family])
    means, sds, diagnostics, statuses = jax.tree.map(
        np.asarray, _fits(model, known.data, keys, reported=known.reported)
    )
    dtype = str(jnp.result_type(float))
    found = []
    for seed in range(n_seeds):
        error, ratio = np.abs(means[seed] - known.mean) / known.sd, sds[seed] / known.sd
        own = jax.tree.map(lambda x: x[seed], diagnostics)  # noqa: B023
        ends = float(ratio.min()), float(ratio.max())
        status = vb.Status(int(statuses[seed]))
        found.append(Outcome(name, family, dtype, float(error.max()), ends, own, status))
    return found


def calibration(report: list[str]) -> None:
    """Fit all targets by all families in both dtypes; report each, and how often the word is right."""
    every, rows = [], []
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            for name in TARGETS:
                for family in FAMILIES:
                    found = outcomes(name, family)
                    rows.append(_row(found))
                    print(*rows[-1], sep="  ", flush=True)
                    every += found
                jax.clear_caches()  # programs take memory maps, of which a process has 65,530
    header = [
        "target",
        "family",
        "dtype",
        "largest error of means, sds",
        "ratio of sds",
        "k-hat",
        "status",
        "word",
    ]
    report += ["## Black box: known targets, ten seeds each, and what the fits say", table(header, rows)]
    report.append(table(["fits", "number", "flagged", "asked", "word"], rates(every)))


def _row(found: Sequence[Outcome]) -> list[str]:
    """Return a line of the table: the worst of some fits, the range of k-hat, and how many say what."""
    first, k = found[0], [float(x.diagnostics.k_hat) for x in found]
    error = max(x.error for x in found)
    ratios = min(x.ratios[0] for x in found), max(x.ratios[1] for x in found)
    converged = sum(x.status == vb.Status.CONVERGED for x in found)
    words = ", ".join(f"{n} {word}" for word, n in Counter(x.diagnostics.trust for x in found).most_common())
    return [
        first.target, first.family, first.dtype, f"{error:.3f}", f"{ratios[0]:.3f} to {ratios[1]:.3f}",
        f"{min(k):.2f} to {max(k):.2f}", f"{converged} converged", words,
    ]  # fmt: skip


def rates(every: Sequence[Outcome]) -> list[list[str]]:
    """Return how many good and bad fits are flagged, by family and in all."""
    rows = []
    for family in (*FAMILIES, "all"):
        some = [x for x in every if family in (x.family, "all")]
        for title, asked, kind in (("bad", ">= 95 %", "bad"), ("good", "<= 10 %", "good")):
            those = [x for x in some if getattr(x, kind)]
            flagged = sum(x.flagged for x in those)
            share = f"{100 * flagged / len(those):.1f} %" if those else "-"
            words = Counter(x.diagnostics.trust for x in those).most_common()
            rows.append(
                [f"{title}, {family}", str(len(those)), share, asked, ", ".join(f"{n} {w}" for w, n in words)]
            )
    return rows
