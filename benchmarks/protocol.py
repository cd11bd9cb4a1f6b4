"""How the benchmark talks to its workers: one process for each framework and setting, one line of JSON each way.

The parent starts a worker, asks, and waits; a worker that is not asked blocks on its standard input. So at most one
worker computes at any time, and the variants can take turns round by round although all are alive.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

__all__ = ["Job", "Setting", "Worker", "WorkerError", "memory_now", "serve", "workers"]

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Setting:
    """What a worker is started for.

    Attributes:
        network: a name in `networks.NETWORKS`.
        batch: samples in a step.
        threads: how many threads, on as many processors.
        steps: how many steps a measured run takes: one epoch over ``steps * batch`` samples.
        data: a folder with MNIST's idx files; empty for made-up pictures.
    """

    network: str
    batch: int
    threads: int
    steps: int
    data: str = ""

    def with_steps(self, steps: int) -> Setting:
        return replace(self, steps=steps)


class Job(Protocol):
    """One variant of one framework, at one setting: what a worker makes when it is first asked."""

    def check(self) -> list[float]:
        """Losses over the first batch: with the first weights, and after the check's steps in order."""
        ...

    def first_step(self) -> None:
        """One training step on the first batch."""
        ...

    def run(self) -> float:
        """Train one epoch in a fresh random order; the seconds it took."""
        ...

    def loss(self) -> float:
        """The loss over the first batch now."""
        ...


class WorkerError(Exception):
    """A worker ended, or said what it could not do."""


# --- The worker's side ---------------------------------------------------------------------------


def serve(make: Callable[[Setting, str], Job]) -> None:
    """Answer the parent's questions until it closes the pipe.

    Args:
        make: builds the job of a variant, up to the point where the first step can be asked for.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    setting = Setting(**json.loads(sys.argv[1]))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _answer(request, setting, make, jobs)
        except Exception as error:  # a missing compiler is one row's trouble, not the end of the run
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
            print(f"{request}: {traceback.format_exc()}", file=sys.stderr, flush=True)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _answer(
    request: dict[str, Any], setting: Setting, make: Callable[[Setting, str], Job], jobs: dict[str, Job]
) -> dict[str, Any]:
    action, variant = request["do"], request.get("variant", "")
    if action == "memory":
        return memory_now()
    if action == "prepare":
        start = time.perf_counter()
        job = make(setting, variant)
        losses = job.check()
        jobs[variant] = job
        return {"seconds": time.perf_counter() - start, "losses": losses}
    if action == "run":
        return {"seconds": jobs[variant].run()}
    if action == "loss":
        return {"loss": jobs[variant].loss()}
    raise ValueError(f"no action {action!r}")


def memory_now() -> dict[str, Any]:
    """Resident memory of this process now and at its highest, in bytes."""
    found = {}
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        name, _, rest = line.partition(":")
        if name in ("VmRSS", "VmHWM"):
            found[name] = int(rest.split()[0]) * 1024
    return {"resident": found["VmRSS"], "peak": found["VmHWM"]}


# --- The parent's side ---------------------------------------------------------------------------


class Worker:
    """A live worker process.

    Args:
        module: the worker's module, such as ``benchmarks.workers.torch_worker``.
        setting: what it is started for.
        environment: variables beside those of this process.
        log: where its standard error goes.
    """

    def __init__(self, module: str, setting: Setting, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with open(log, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(asdict(setting))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, **environment},
                text=True,
            )

    def ask(self, action: str, variant: str = "") -> dict[str, Any]:
        """One question and its answer.

        Raises:
            WorkerError: the worker could not do it, or has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"do": action, "variant": variant}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"the worker ended with status {self._process.wait()}; see {self._log}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def processor_seconds(self) -> float:
        """Processor time that the worker and its threads have used so far; 0 of one that has ended."""
        if self._process.poll() is not None:
            return 0.0
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the worker: it stops by itself when its input closes."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()


@contextlib.contextmanager
def workers() -> Iterator[list[Worker]]:
    """A list whose workers are closed at the end, whatever happens."""
    alive: list[Worker] = []
    try:
        yield alive
    finally:
        for worker in alive:
            worker.close()
