"""Execute every notebook from top to bottom, two at a time; an error in a cell is an error here."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import time

import nbformat
from nbclient import NotebookClient

folder = pathlib.Path(__file__).parent.parent / "notebooks"
LONGEST = (
    "topics",
    "hidden_markov",
    "write_your_own_model",
    "scale",
)  # first: none is left at the end
SLOW = ("topics",)  # computes for longer than it compiles


def execute(path: pathlib.Path) -> None:
    begun = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    flags = os.environ.get("XLA_FLAGS", "")
    if path.stem in SLOW:
        flags = flags.replace("--xla_backend_optimization_level=0", "")
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, "XLA_FLAGS": flags})
    print(f"{path.name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        order = lambda path: LONGEST.index(path.stem) if path.stem in LONGEST else len(LONGEST)
        list(pool.map(execute, sorted(folder.glob("*.ipynb"), key=order)))
