"""What the tests of driver, call block and threads share."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from chainrule.engines.native.call import Driver
from tests.engines.native.toys import ToyCall, Toys

__all__ = [
    "ROOT",
    "WEIGHTS",
    "Loaded",
    "assert_in_child",
    "hogs",
    "in_thread",
    "needs_fork",
    "planned",
    "python",
    "sizes_of",
]

ROOT = Path(__file__).resolve().parents[4]
WEIGHTS = (31, 37, 41)

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

Loaded: TypeAlias = tuple[Driver, Toys]


def sizes_of(steps: int) -> list[int]:
    """Batch sizes, zero among them."""
    return random.Random(7).choices(range(41), k=steps)


def planned(loaded: Loaded, sizes: Sequence[int]) -> tuple[ToyCall, int]:
    """A call of one step for each batch size, and what it must give."""
    driver, toys = loaded
    return ToyCall(driver, sizes, WEIGHTS), toys.expected(sizes, WEIGHTS)


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Processes that take all the time they get."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def assert_in_child(work: Callable[[], bool], seconds: int = 20) -> None:
    """Fork; in the child the work must give True within some seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs our own code only
        child = os.fork()
    if not child:
        status = 1
        with contextlib.suppress(BaseException):
            signal.alarm(seconds)
            status = 0 if work() else 2
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, which can import the tests."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
