"""Execute every notebook from top to bottom; an error in a cell is an error here."""

from __future__ import annotations

import pathlib
import time

import nbformat
from nbclient import NotebookClient

folder = pathlib.Path(__file__).parent.parent / "notebooks"
for path in sorted(folder.glob("*.ipynb")):
    begun = time.perf_counter()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    print(f"{path.name}: {time.perf_counter() - begun:.0f} s")
