"""What `fit` itself costs a step: the benchmark's networks are trained with the kernels taken out.

The compiled step's entry is replaced by a function that does nothing and says that all steps were run. The time of a
long epoch less that of a short one, divided by the steps between them, leaves out what `fit` does once. `fit` hands
many steps to the engine at once, unless a callback asks for each of them; so the same is measured with such a callback
too.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.protocol import ROOT
from benchmarks.report import markdown_table, spread

__all__ = ["measure", "table"]

CALLED = ", a callback after each step"
SHORT, LONG = 200, 2200


def measure(
    networks: Sequence[str], batch: int, threads: int, rounds: int, extra: Mapping[str, str]
) -> dict[str, list[float]]:
    """Microseconds of `fit` a step, by network, without and with a callback."""
    environment = {**os.environ, "CHAINRULE_THREADS": str(threads), **extra}
    found = {}
    for name in (n + c for n in networks for c in ("", CALLED)):
        arguments = json.dumps({"network": name, "batch": batch, "rounds": rounds})
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.overhead", arguments],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
            check=True,
        )
        found[name] = json.loads(done.stdout)
    return found


def table(found: Mapping[str, Sequence[float]]) -> str:
    """The readings as Markdown."""
    rows = [[name, spread(values, 1)] for name, values in found.items()]
    return "## fit's own cost, kernels taken out\n\n" + markdown_table(("network", "microseconds a step"), rows)


def _differences(network: str, batch: int, rounds: int) -> list[float]:
    """One reading for each round, in this process."""
    import time

    import chainrule as cr

    class EachStep(cr.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None: ...

    name = network.removesuffix(CALLED)
    model, x, y, size = _real(name, batch)
    callbacks = [EachStep()] if name != network else []
    readings = []

    def seconds(steps: int) -> float:
        some = slice(0, steps * size)
        start = time.perf_counter()
        model.fit(x[some], y[some], batch_size=size, epochs=1, verbose=0, callbacks=callbacks)
        return time.perf_counter() - start

    seconds(1)
    _take_kernels_out()
    seconds(SHORT)
    for _ in range(rounds):
        short = statistics.median(seconds(SHORT) for _ in range(3))
        readings.append((seconds(LONG) - short) / (LONG - SHORT) * 1e6)
    return readings


def _take_kernels_out() -> None:
    """From here on, a call of native steps returns at once."""
    from chainrule.engines import Stop
    from chainrule.engines.native import threads as pool
    from chainrule.engines.native.call import CallBlock
    from chainrule.engines.native.jit import NativeFunction

    def run(entry: NativeFunction, block: CallBlock, threads: int | None = None, stop: Stop | None = None) -> int:
        return block.steps

    pool.run = run


def _real(network: str, batch: int) -> tuple[Any, Any, Any, int]:
    import chainrule as cr
    from benchmarks.networks import NETWORKS, images
    from benchmarks.workers.common import sequential

    x, y = images(LONG * batch)
    return sequential(cr, NETWORKS[network], None), x, y, batch


if __name__ == "__main__":
    print(json.dumps(_differences(**json.loads(sys.argv[1]))))
