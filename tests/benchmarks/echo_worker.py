"""A worker without a framework: its variants behave well, cannot be made, or end the process."""

from __future__ import annotations

import os

from benchmarks.protocol import Setting, serve


class EchoJob:
    def __init__(self, setting: Setting, variant: str) -> None:
        if variant == "impossible":
            raise RuntimeError("no compiler\nand a second line")
        self._dies = variant == "dies"
        self._seconds = 0.001 * setting.steps

    def check(self) -> list[float]:
        print("libraries print to standard output")
        return [2.0, 1.5]

    def first_step(self) -> None: ...

    def run(self) -> float:
        if self._dies:
            os._exit(3)
        return self._seconds

    def loss(self) -> float:
        return 0.5


if __name__ == "__main__":
    serve(EchoJob)
