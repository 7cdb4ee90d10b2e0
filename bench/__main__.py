"""`python -m bench NAME`: runs a benchmark, prints its tables and writes them to bench/RESULTS.md."""

from __future__ import annotations

import argparse
import importlib
import os
import warnings

import vbjax as vb


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [
        "blackbox",
        "calibration",
        "derived",
        "gpu",
        "hmm",
        "mixtures",
        "scale",
        "search",
        "selection",
        "topics",
    ]
    parser.add_argument("name", choices=names, help="which benchmark")
    parser.add_argument("--only", nargs="+", metavar="PART", help="some parts of it alone")
    arguments = parser.parse_args()
    # float64 sections switch x64 on for themselves; the allocator must not hide what memory is used
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    vb.configure(cpu_devices="all")  # before the peers are imported, of which some start the devices
    warnings.simplefilter("ignore", vb.FitWarning)  # of sweeps that are timed
    module = importlib.import_module(f"bench.{arguments.name}")
    module.run(arguments.only)


if __name__ == "__main__":
    main()
