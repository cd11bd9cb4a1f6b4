"""Kill a training at random moments, go on with it each time, and compare its end with an uninterrupted one's.

Run it for as long as you like::

    python -m tests.cli.kills --kills 50

Every process gets another number of threads, and is ended by SIGKILL (or, sometimes, SIGTERM or SIGINT).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.cli.support import shapes_images

__all__ = ["Outcome", "kill_and_resume", "make_data", "run_through"]

OPTIONS = (
    *("--network", "conv32-dense128", "--epochs", "5", "--batch-size", "16", "--validation-fraction", "0.1"),
    *("--optimizer", "adamw", "--average", "0.95", "--schedule", "one-cycle"),
    *("--augment", "flip,crop:1,rotate:10,noise,cutout:2,mixup", "--checkpoint-seconds", "0.05", "--quiet"),
)
SAMPLES = 4000


@dataclass
class Outcome:
    """What happened to one training.

    Attributes:
        kills: how often it was ended.
        different: names of files that are not as in the uninterrupted run.
    """

    kills: int
    different: list[str]


def make_data(path: Path) -> None:
    """A small data set as a file."""
    x_train, y_train = shapes_images(SAMPLES, 0)
    x_test, y_test = shapes_images(60, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def start(words: Sequence[str], threads: int) -> subprocess.Popen[str]:
    """A process of the command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "chainrule", *words],
        env={**os.environ, "CHAINRULE_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_through(data: Path, folder: Path, threads: int = 2) -> float:
    """Train without interruption; gives the seconds that it took."""
    began = time.perf_counter()
    process = start(["train", str(data), *OPTIONS, "--run", str(folder)], threads)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return time.perf_counter() - began


def kill_and_resume(data: Path, folder: Path, whole: Path, longest: float, kills: int, draw: random.Random) -> Outcome:
    """Train to the end, ended by a signal up to so many times; then compare.

    Args:
        data: the data set.
        folder: of the run.
        whole: that of the uninterrupted run.
        longest: a process is ended after a random time below this, in seconds.
        kills: how often at most.
        draw: random numbers.
    """
    happened = 0
    while True:
        words = ["resume", str(folder), "--quiet"]
        if not (folder / "config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)  # it was ended before it had anything to keep
            words = ["train", str(data), *OPTIONS, "--run", str(folder)]
        process = start(words, threads=draw.randint(1, 3))
        ended = False
        if happened < kills:
            try:
                process.wait(timeout=draw.uniform(0, longest))
            except subprocess.TimeoutExpired:
                process.send_signal(draw.choice([signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGINT]))
                ended = True
                happened += 1
        printed, errors = process.communicate()
        assert "Traceback" not in errors, errors
        assert "damaged" not in printed + errors, printed + errors
        if process.returncode == 0:
            return Outcome(happened, _different(folder, whole))
        assert ended or "has come to its end" in errors, (process.returncode, errors)
        if "has come to its end" in errors:
            return Outcome(happened, _different(folder, whole))


def _different(folder: Path, whole: Path) -> list[str]:
    """The names of files that are not as in the uninterrupted run, or are left over."""
    names = {entry.name for run in (folder, whole) for entry in run.iterdir()}
    found = [name for name in sorted(names - {"result.json"}) if _content(folder / name) != _content(whole / name)]
    first, second = (json.loads((run / "result.json").read_text()) for run in (folder, whole))
    return found if {**first, "seconds": 0} == {**second, "seconds": 0} else [*found, "result.json"]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None if not path.exists() else b"a folder"


def main() -> int:
    """The command line; 1 if anything was different."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    left, status, number = options.kills, 0, 0
    with tempfile.TemporaryDirectory() as place:
        data, whole = Path(place) / "shapes.npz", Path(place) / "whole"
        make_data(data)
        run_through(data, whole)
        longest = run_through(data, Path(place) / "again")
        print(f"an uninterrupted run takes {longest:.1f} s", flush=True)
        while left > 0:
            number += 1
            outcome = kill_and_resume(data, Path(place) / f"run-{number}", whole, longest, left, draw)
            left -= outcome.kills
            says = f"differs in {', '.join(outcome.different)}" if outcome.different else "the same bits"
            print(f"run {number}: ended {outcome.kills} times, {says}", flush=True)
            status |= bool(outcome.different)
    return status


if __name__ == "__main__":
    sys.exit(main())
