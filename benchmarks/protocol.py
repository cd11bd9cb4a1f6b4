"""How the benchmark talks to its workers: one process for each framework and setting, one line of JSON each way.

The parent starts a worker, asks, and waits; a worker that is not asked blocks on its standard input. So at most one
worker computes at any time, and the variants can take turns round by round although all are alive.

A variant that this machine cannot prepare (compiled PyTorch without a C++ compiler) is one row's trouble: the row says
why.  Only what its `Job` gives as `unavailable` counts as that.  Whatever else is raised ends the worker with its
traceback, and so the benchmark.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

__all__ = [
    "CHECK_STEPS",
    "Job",
    "Setting",
    "Unavailable",
    "Worker",
    "WorkerError",
    "lacking",
    "last_words",
    "memory_now",
    "serve",
    "start",
    "workers",
]

ROOT = Path(__file__).resolve().parent.parent

CHECK_STEPS = 3
"""Steps in order, without shuffling, after which the frameworks' losses are compared."""

LAST_WORDS = 8000
"""How many bytes of what a process wrote before it failed are told."""


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


class Job(ABC):
    """One variant of one framework, at one setting: what a worker makes when it is first asked."""

    @abstractmethod
    def __init__(self, setting: Setting, variant: str) -> None: ...

    @staticmethod
    def unavailable() -> tuple[type[Exception], ...]:
        """What is raised, until the first steps are done, where the machine lacks what a variant needs."""
        return ()

    def check(self) -> list[float]:
        """Losses over the first batch: with the first weights, and after the check's steps in order."""
        before = self.loss()
        self.first_steps(CHECK_STEPS)
        return [before, self.loss()]

    @abstractmethod
    def first_steps(self, count: int) -> None:
        """So many training steps on the first batches, in order."""

    @abstractmethod
    def run(self) -> float:
        """Train one epoch in a fresh random order; the seconds it took."""

    @abstractmethod
    def loss(self) -> float:
        """The loss over the first batch now."""


class WorkerError(Exception):
    """A worker ended; the text has its traceback."""


class Unavailable(Exception):
    """A variant cannot be prepared on this machine; the text says why."""


def lacking(error: Exception) -> str:
    """What a row says about a variant that is unavailable: the first line; the traceback goes to standard error."""
    traceback.print_exception(error)
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


# --- The worker's side ---------------------------------------------------------------------------


def serve(kind: type[Job]) -> None:
    """Answer the parent's questions until it closes the pipe."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not come between the answers
    setting = Setting(**json.loads(sys.argv[1]))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: setting.threads])
    jobs: dict[str, Job] = {}
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line), setting, kind, jobs)) + "\n")
        answers.flush()


def _answer(request: dict[str, str], setting: Setting, kind: type[Job], jobs: dict[str, Job]) -> dict[str, Any]:
    action, variant = request["do"], request.get("variant", "")
    if action == "memory":
        return memory_now()
    if action == "prepare":
        began = time.perf_counter()
        try:
            job = kind(setting, variant)
            losses = job.check()
        except kind.unavailable() as error:
            return {"unavailable": lacking(error)}
        jobs[variant] = job
        return {"seconds": time.perf_counter() - began, "losses": losses}
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


def start(module: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[str]:
    """A process of one of the benchmarks' modules, with pipes to ask it by.

    Args:
        module: such as ``benchmarks.workers.torch_worker``.
        arguments: of its command line.
        environment: variables beside those of this process.
        log: where its standard error goes.
    """
    with open(log, "ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, **environment},
            text=True,
        )


def last_words(log: Path, since: int) -> str:
    """The end of what a log has got since it had a size; as only one process computes, a failed one wrote last."""
    with open(log, "rb") as file:
        file.seek(max(since, log.stat().st_size - LAST_WORDS))
        return file.read().decode(errors="replace")


class Worker:
    """A live worker process.

    Args:
        module: the worker's module, such as ``benchmarks.workers.torch_worker``.
        setting: what it is started for.
        environment: variables beside those of this process.
        log: where its standard error goes.
    """

    def __init__(self, module: str, setting: Setting, environment: Mapping[str, str], log: Path) -> None:
        self._module, self._log = module, log
        self._since = log.stat().st_size if log.exists() else 0
        self._process = start(module, [json.dumps(asdict(setting))], environment, log)

    def ask(self, action: str, variant: str = "") -> dict[str, Any]:
        """One question and its answer.

        Raises:
            Unavailable: the variant cannot be prepared on this machine.
            WorkerError: the worker has ended.
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
            ended = f"{self._module} ended with status {self._process.wait()} when asked to {action} {variant!r}"
            raise WorkerError(f"{ended}:\n{last_words(self._log, self._since)}")
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
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
