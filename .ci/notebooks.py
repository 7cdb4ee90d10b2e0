"""Execute every notebook from top to bottom, two at a time; an error in a cell is an error here."""

from __future__ import annotations

import concurrent.futures
import pathlib
import time

import nbformat
from nbclient import NotebookClient

folder = pathlib.Path(__file__).parent.parent / "notebooks"


def execute(path: pathlib.Path) -> None:
    begun = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    print(f"{path.name}: {time.perf_counter() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        # the longest first: it is the newest and last by name
        list(pool.map(execute, sorted(folder.glob("*.ipynb"), reverse=True)))
