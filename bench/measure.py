"""Timing and tables for the benchmarks: interleaved runs, their minima, a section of RESULTS.md each."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vbjax.core import devices
from vbjax.core.coordinate_ascent import CoordinateAscent
from vbjax.core.rows import float_dtype
from vbjax.inference import division

DTYPES = {"float32": np.float32, "float64": np.float64}
RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")


def seconds(function: Callable[[], Any]) -> float:
    """Wall-clock seconds of one call, its result waited for, after a rest for the threads of the last one."""
    time.sleep(0.05)
    begun = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - begun


def interleaved(*functions: Callable[[], Any], repeats: int) -> list[float]:
    """The least seconds of each function, called in turns; every function has been called before."""
    rounds = [[seconds(function) for function in functions] for _ in range(repeats)]
    return [min(column) for column in zip(*rounds, strict=True)]


def per_iteration(long: float, short: float, n: int) -> float:
    """Seconds of one iteration from two fits n iterations apart."""
    return max(long - short, 0.0) / n


def sweeps(model: Any, data: Any, params: Any, n: int, some: Sequence[jax.Device]) -> Callable[[], Any]:
    """Return a call of n sweeps over the rows on some devices: what `fit` runs, without its stopping.

    Args:
        model, data: as `resolved` returns them.
        params: where the sweeps begin.
        n: their number.
        some: devices over which the rows are divided, as `fit` divides them.

    Returns:
        A function that returns the parameters, and the objective of those before the last sweep.
    """
    mesh, rows, weights = division.divide(model, data, None, 1, some)
    ascent = CoordinateAscent(model, jnp.zeros((), float_dtype(params)))

    def run() -> Any:
        with devices.over(mesh):
            return _swept(ascent, params, rows, weights, n=n)

    return run


@functools.partial(devices.jit_over_mesh, static=("n",))
def _swept(ascent: Any, params: Any, data: Any, weights: Any, *, n: int) -> Any:
    def share(data: Any, weights: Any, ascent: Any, params: Any) -> Any:
        state = ascent.start(params, data)
        state = lax.scan(lambda s, _: (ascent.step(s, data, weights)[0], None), state, length=n)[0]
        return state.params, state.objective

    return division.on_shares(share, data, weights, ascent, params)


def columns() -> list[str]:
    """Headings of the milliseconds on one device and on all."""
    return ["vbjax ms, one device", f"{len(jax.devices())} devices"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def machine(packages: Sequence[str]) -> str:
    """Date, processor, device and versions, in a line."""
    model = platform.processor() or platform.machine()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
        model = found.group(1) if found else model
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    device = jax.devices()[0]
    return (
        f"{datetime.date.today()}; {model}, {len(os.sched_getaffinity(0))} cores; "
        f"{device.platform} ({device.device_kind}); Python {platform.python_version()}, {versions}"
    )


def save(name: str, text: str) -> None:
    """Write one benchmark's section of RESULTS.md, in place of what it held."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n{text.strip()}\n{end}"
    old = RESULTS.read_text() if RESULTS.exists() else "# Benchmarks\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    new = pattern.sub(lambda _: section, old) if pattern.search(old) else f"{old.rstrip()}\n\n{section}\n"
    RESULTS.write_text(new)


Parts = Mapping[str, Callable[[list[str]], None]]


def run_parts(
    name: str, parts: Parts, packages: Sequence[str], only: Sequence[str] | None, *, keep: bool = True
) -> None:
    """Run the parts of a benchmark, print them, and write each one's section of RESULTS.md, if asked to."""
    for part, measure in parts.items():
        if only is None or part in only:
            report: list[str] = []
            measure(report)
            report.insert(1, machine(["jax", "jaxlib", "numpy", *packages]))
            text = "\n\n".join(report)
            print("\n" + text + "\n", flush=True)
            if keep:
                save(f"{name} {part}", text)
