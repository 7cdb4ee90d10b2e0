"""Writer of the golden files: a fit in the format of this version, and beside it what that fit said of rows.

A third file has the classes and fields that files of this format may hold, a line each. `python -m
tests.support.golden_fit` makes all, once for each format, in tests/data. A file that is there is never made
again: later versions must read what earlier ones wrote.
"""

import io
import json
import pathlib
import zipfile

import jax
import numpy as np

import vbjax as vb
from tests.support.made_fits import started
from tests.support.registry import MODELS
from vbjax.inference import saved_fits
from vbjax.inference.saved_fits import FORMAT

FOLDER = pathlib.Path(__file__).parent.parent / "data"


def classes_of(node):
    """The classes of a node and the nodes in it, with their fields."""
    if isinstance(node, dict) and "fields" in node:
        yield " ".join([node["class"], *node["fields"]])
        for field in node["fields"].values():
            yield from classes_of(field)


def every_class():
    """Lines of the classes that fits of the models in the registry hold, with their fields."""
    lines = set()
    for name in MODELS:
        saved_fits.pack(started(name), file := io.BytesIO())
        with zipfile.ZipFile(file) as archive:
            lines |= set(classes_of(json.loads(archive.read("header.json"))["fit"]))
    return sorted(line for line in lines if line.startswith("vbjax."))


def main():
    path = FOLDER / f"format_{FORMAT}.txt"
    if not path.exists():
        path.write_text("\n".join(every_class()) + "\n")
    x = vb.datasets.old_faithful()
    model = vb.BayesianGaussianMixture(3, weight_concentration=0.1)
    fit = vb.fit(model, x, key=jax.random.key(0), n_restarts=2, max_iter=64)
    rows = x[:40]
    with open(FOLDER / f"format_{FORMAT}.npz", "xb") as file:
        np.savez(
            file,
            rows=rows,
            labels=fit.predict(rows),
            responsibilities=fit.responsibilities(rows),
            log_predictive=fit.log_predictive(rows),
            objective=fit.objective,
            n_iter=fit.n_iter,
            status=fit.status.name,
        )
    fit.save(FOLDER / f"format_{FORMAT}.vbjax")


if __name__ == "__main__":
    main()
