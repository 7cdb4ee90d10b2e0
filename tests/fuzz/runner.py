"""Runs calls in processes of their own, with limits of time and memory, and collects the verdicts.

A worker takes the numbers of calls of the grid, which is the same in every process, and writes a line before
and after each. One that hangs or dies is ended, its call recorded, and the rest goes on in another.
"""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable

LIMIT_SECONDS = 60  # of processor time, for one call
LIMIT_BYTES = 4 << 30  # of address space, beyond what the process had before the call
_MOST_MAPS = 30_000  # of the 65,530 that Linux gives a process


def work(numbers: list[int]) -> None:
    """The worker: judge these calls of the grid, one line of JSON for each, and one before."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warnings.simplefilter("ignore")
    from .grid import grid

    calls, most = grid(), resource.getrlimit(resource.RLIMIT_AS)[1]
    for number in numbers:
        print(json.dumps([number]), file=out, flush=True)
        _limit_memory(most)
        begun = time.perf_counter()
        kind, message = calls[number].judged()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        print(json.dumps([number, kind, message, time.perf_counter() - begun]), file=out, flush=True)
        if _maps() > _MOST_MAPS:
            return


def _limit_memory(most: int) -> None:
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    soft = now + LIMIT_BYTES if most == resource.RLIM_INFINITY else min(now + LIMIT_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (soft, most))


def _maps() -> int:
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


class Pool:
    """Some workers at a time, over batches of calls."""

    def __init__(
        self,
        batches: list[list[int]],
        deadline: float,
        tell: Callable[[str], None],
        record: Callable[[int, str, str, float], None],
    ) -> None:
        self.batches, self.deadline, self.tell, self.record = list(reversed(batches)), deadline, tell, record
        self.verdicts: dict[int, tuple[str, str, float]] = {}
        self._lock = threading.Lock()

    def run(self, n_workers: int) -> dict[int, tuple[str, str, float]]:
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(n_workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.verdicts

    def _serve(self) -> None:
        while time.monotonic() < self.deadline:
            with self._lock:
                if not self.batches:
                    return
                batch = self.batches.pop()
            rest = self._run_worker(batch)
            if rest:
                with self._lock:
                    self.batches.append(rest)

    def _run_worker(self, batch: list[int]) -> list[int]:
        """Judge a batch as far as one process comes; the calls that are left."""
        command = [sys.executable, "-m", "tests.fuzz", "--worker", ",".join(map(str, batch))]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert worker.stdout is not None
        current, left, buffer = None, list(batch), b""
        begun = _processor_seconds(worker.pid)
        try:
            while True:
                ready, _, _ = select.select([worker.stdout], [], [], 1.0)
                if ready:
                    read = os.read(worker.stdout.fileno(), 1 << 16)
                    if not read:
                        break
                    *lines, buffer = (buffer + read).split(b"\n")
                    for line in map(json.loads, lines):
                        if len(line) == 1:
                            current, begun = line[0], _processor_seconds(worker.pid)
                        else:
                            self._record(line[0], *line[1:])
                            left.remove(line[0])
                            current = None
                elif current is not None and _processor_seconds(worker.pid) - begun > LIMIT_SECONDS:
                    break
                if time.monotonic() > self.deadline:
                    return []
        finally:
            hung = worker.poll() is None and current is not None
            worker.kill()
            worker.wait()
        if current is not None:
            seconds = LIMIT_SECONDS if hung else 0.0
            died = f"the process ended with status {worker.returncode}"
            self._record(
                current, *(("hang", f"no end in {seconds} s") if hung else ("memory", died)), seconds
            )
            left.remove(current)
        elif left == batch:
            self.tell(f"a worker made none of its {len(batch)} calls")
            return []
        return left

    def _record(self, number: int, kind: str, message: str, seconds: float) -> None:
        with self._lock:
            self.verdicts[number] = kind, message, seconds
            self.record(number, kind, message, seconds)
            if len(self.verdicts) % 500 == 0:
                self.tell(f"{len(self.verdicts)} calls")


def _processor_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batches_of(groups: dict[str, list[int]], most: int) -> list[list[int]]:
    """Calls of a group together, groups together up to a number."""
    batches: list[list[int]] = [[]]
    for numbers in groups.values():
        for start in range(0, len(numbers), most):
            part = numbers[start : start + most]
            if len(batches[-1]) + len(part) > most:
                batches.append([])
            batches[-1] += part
    return [batch for batch in batches if batch]
