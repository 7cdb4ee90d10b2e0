"""Writer of the golden file: a fit in the format of this version, and beside it what that fit said of rows.

`python -m tests.support.golden_fit` makes both, once for each format, in tests/data. A file that is there is
never made again: later versions must read what earlier ones wrote.
"""

import pathlib

import jax
import numpy as np

import vbjax as vb
from vbjax.inference.saved_fits import FORMAT

FOLDER = pathlib.Path(__file__).parent.parent / "data"


def main():
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
