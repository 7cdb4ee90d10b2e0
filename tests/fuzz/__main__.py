"""Run the grid of bad calls and print the verdicts: `python -m tests.fuzz`.

Every public function, model, hyperparameter, method and shell option is called with one hostile argument at a
time (`subjects`, `kinds`). A call is

    clear      refused by a ValueError or TypeError of ours that names the argument
    fine       a finite result, or a status that says otherwise
    silent     accepted though it cannot be meant
    cryptic    another exception, or one that does not name the argument
    nan        NaN where success is claimed
    hang       more than a minute
    memory     more than 4 GB, or the end of the process
    uncovered  public, and in no table

All but the first two are offenders. The exit status is 1 where there is one.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import random
import sys
import time
from collections import Counter, defaultdict

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["JAX_TRACEBACK_FILTERING"] = "off"  # the innermost frame is asked for
os.environ["MPLBACKEND"] = "agg"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--sample", type=float, metavar="SECONDS", help="a random part, in so much time")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    parser.add_argument(
        "--only", metavar="PATTERN", help="calls that match, as in '*Mixture(*' or 'drivers*'"
    )
    parser.add_argument(
        "--all", action="store_true", help="every hostile value, not the usual choice of them"
    )
    parser.add_argument("--out", metavar="TABLE", help="write all verdicts, tab-separated")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time (default: %(default)s)")
    parser.add_argument("--list", action="store_true", help="print the calls, and make none")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    from .runner import Pool, batches_of, work

    if options.worker:
        work([int(number) for number in options.worker.split(",")])
        return 0
    from .grid import grid
    from .judge import KINDS, OFFENCES

    calls, begun = grid(), time.monotonic()
    groups: dict[str, list[int]] = defaultdict(list)
    for number, call in enumerate(calls):
        if not (call.chosen or options.all):
            continue
        if options.only is None or any(fnmatch.fnmatch(x, options.only) for x in (call.label, call.group)):
            groups[call.group].append(number)
    if options.list:
        print("\n".join(calls[number].label for numbers in groups.values() for number in numbers))
        return 0
    most = 300
    if options.sample:
        chance, most = random.Random(options.seed), 60
        groups = {name: sorted(chance.sample(ns, min(len(ns), 30))) for name, ns in groups.items()}
        groups = dict(chance.sample(sorted(groups.items()), len(groups)))
    deadline = begun + options.sample if options.sample else float("inf")
    tell = lambda text: print(f"{time.monotonic() - begun:6.0f} s: {text}", file=sys.stderr, flush=True)
    with open(options.out or os.devnull, "w") as table:

        def record(number: int, kind: str, said: str, seconds: float) -> None:
            row = kind, calls[number].group, calls[number].label, said, f"{seconds:.2f}"
            print("\t".join(row).replace("\0", ""), file=table, flush=True)

        verdicts = Pool(batches_of(groups, most), deadline, tell, record).run(options.workers)

    counts = Counter(kind for kind, _, _ in verdicts.values())
    for kind, label, said in sorted((kind, calls[n].label, said) for n, (kind, said, _) in verdicts.items()):
        if kind in OFFENCES:
            print(f"{kind:<10} {label:<60} {said[:160]}")
    total = f"{len(verdicts)} of {len(calls)} calls in {time.monotonic() - begun:.0f} s"
    print(f"{total}: " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS))
    return int(any(counts[kind] for kind in OFFENCES))


if __name__ == "__main__":
    sys.exit(main())
