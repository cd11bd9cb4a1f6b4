"""The long run: many seeds, in processes of their own, since machine code that is wrong may end a process.

``python -m tests.engines.native.fuzz --count 10000 --seed 0 --jobs 2 --log FILE``

A worker tries seeds in order and says so line by line: ``@seed``, then ``@passed`` or ``@failed``.  What the engine
raises is a failure, told in the report.  Whatever else is raised is a fault of the fuzzer itself: it ends the worker,
which says ``@fault`` on its way out, and another one goes on behind that seed.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.engines.native.fuzz.comparing import EVERY
from tests.engines.native.fuzz.minimising import try_seed

__all__ = ["WORKER", "main"]

CHUNK = 25
"""Seeds of one process: a crash loses no more."""
WORKER = (sys.executable, "-m", "tests.engines.native.fuzz", "--work")
"""The command of a worker."""
FAULTS = "faults of the fuzzer itself"
FOUND, FAULTY = 1, 2
"""Exit statuses: the engine failed on some seed; the fuzzer did."""


# --- A worker ----------------------------------------------------------------------------------------------


def _work(first: int, count: int, every_variant: bool) -> None:
    """Try seeds, and say so line by line."""
    faulthandler.enable()
    sys.excepthook = _fault
    told: Counter[str] = Counter()
    try:
        for seed in range(first, first + count):
            print(f"@seed {seed}", flush=True)
            report = try_seed(seed, EVERY if every_variant else None, told)
            print(f"@{'failed' if report else 'passed'} {seed}", flush=True)
            if report:
                print(report, flush=True)
    finally:
        for name, number in told.items():
            print(f"@count {number} {name}", flush=True)


def _fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Python's last words, marked: a process that ends without them has crashed."""
    print("@fault", flush=True)
    traceback.print_exception(kind, error, trace)


# --- The parent --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """How a worker ended.

    Attributes:
        lines: what it said.
        code: its exit status, -1 if it had to be ended.
        errors: its standard error.
    """

    lines: list[str]
    code: int
    errors: str

    def counts(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for line in self.lines:
            word, _, rest = line.partition(" ")
            if word in ("@passed", "@failed"):
                counts[word.removeprefix("@")] += 1
            elif word == "@count":
                number, name = rest.split(" ", 1)
                counts[name] += int(number)
            elif word == "@fault":
                counts[FAULTS] += 1
        if self.code and not counts[FAULTS]:
            counts["crashed"] += 1
        return counts

    def report(self, first: int) -> str:
        """What it reported, and why it ended before its last seed."""
        text = "".join(line + "\n" for line in self.lines if not line.startswith("@"))
        if not self.code:
            return text
        if "@fault" in self.lines:
            return f"{text}seed {self.last_seed(first)}: the fuzzer itself failed:\n{self.errors}\n"
        return f"{text}seed {self.last_seed(first)}: the process ended with {self.code}: {self.errors[-2000:]}\n"

    def last_seed(self, first: int) -> int:
        """The seed that it was at, if it began with `first`."""
        return max([first, *(int(line.split()[1]) for line in self.lines if line.startswith("@seed"))])


def _run(command: Sequence[str], seconds: float) -> _End:
    """What a worker said and how it ended.

    Raises:
        RuntimeError: it never began.
    """
    environment = {**os.environ, "CHAINRULE_CACHE": "off", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
    except subprocess.TimeoutExpired as late:
        text = (late.stdout or b"").decode()  # bytes, whatever `text` asked for
        return _End(text.splitlines(), -1, f"no end after {seconds:.0f} seconds")
    if not done.stdout:
        raise RuntimeError(f"a worker ended with {done.returncode} before its first seed:\n{done.stderr}")
    return _End(done.stdout.splitlines(), done.returncode, done.stderr)


def _chunk(worker: Sequence[str], first: int, count: int) -> tuple[Counter[str], str]:
    """Run seeds in a process of their own, and in another one what it left; gives counts and reports of failures."""
    counts: Counter[str] = Counter()
    reports, end = "", first + count
    while first < end:
        done = _run([*worker, "--seed", str(first), "--count", str(end - first)], 60.0 * CHUNK)
        counts += done.counts()
        reports += done.report(first)
        first = done.last_seed(first) + 1 if done.code else end
    return counts, reports


def main(arguments: Sequence[str] | None = None, worker: Sequence[str] = WORKER) -> int:
    """Run many seeds and write what fails.

    Returns:
        `FAULTY` if the fuzzer itself failed on some seed, else `FOUND` if the engine did, else 0.
    """
    parser = argparse.ArgumentParser(description="machine code against the reference on random graphs")
    parser.add_argument("--count", type=int, default=200, help="how many graphs")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin nothing new after so long")
    parser.add_argument("--log", type=Path, help="where to write reports and the summary")
    parser.add_argument("--every-variant", action="store_true", help="compile each graph in all ways")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.work:
        _work(given.seed, given.count, given.every_variant)
        return 0
    began = time.monotonic()
    end = given.seed + given.count
    worker = [*worker, "--every-variant"] if given.every_variant else worker
    counts: Counter[str] = Counter()

    def unless_late(first: int) -> tuple[Counter[str], str]:
        count = min(CHUNK, end - first)
        if time.monotonic() - began > 60 * given.minutes:
            return Counter({"left out": count}), ""
        return _chunk(worker, first, count)

    with ThreadPoolExecutor(given.jobs) as executor:
        for found, reports in executor.map(unless_late, range(given.seed, end, CHUNK)):
            counts += found
            _tell(given.log, reports)
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    _tell(given.log, f"seeds from {given.seed}: {summary}; {time.monotonic() - began:.0f} seconds\n")
    if counts[FAULTS]:
        return FAULTY
    return FOUND if counts["failed"] or counts["crashed"] else 0


def _tell(log: Path | None, text: str) -> None:
    if text:
        print(text, end="", flush=True)
        if log is not None:
            with log.open("a", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    sys.exit(main())
