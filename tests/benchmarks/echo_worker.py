"""A worker without a framework: its variants behave well, cannot be prepared here, fail, or end the process."""

from __future__ import annotations

import os

from benchmarks.protocol import Job, Setting, serve


class MissingCompiler(RuntimeError):
    """What this worker's variants may lack."""


class EchoJob(Job):
    def __init__(self, setting: Setting, variant: str) -> None:
        if variant == "impossible":
            raise MissingCompiler("no compiler\nand a second line")
        if variant == "wrong":
            raise RuntimeError("a mistake in its making")
        self._variant = variant
        self._seconds = 0.001 * setting.steps

    @staticmethod
    def unavailable() -> tuple[type[Exception], ...]:
        return (MissingCompiler,)

    def check(self) -> list[float]:
        print("libraries print to standard output")
        return [2.0, 1.5]

    def first_steps(self, count: int) -> None: ...

    def run(self) -> float:
        if self._variant == "dies":
            os._exit(3)
        if self._variant == "fails":
            raise MissingCompiler("too late to lack one")
        return self._seconds

    def loss(self) -> float:
        return 0.5


JOB = EchoJob

if __name__ == "__main__":
    serve(JOB)
