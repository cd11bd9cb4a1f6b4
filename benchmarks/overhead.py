"""What `fit` itself costs a step: the benchmark's networks are trained with the kernels taken out.

The compiled step's entry is replaced by a function that does nothing and says that all steps were run. The time of a
long epoch less that of a short one, divided by the steps between them, leaves out what `fit` does once. `fit` hands
many steps to the engine at once, unless a callback asks for each of them; so the same is measured with such a callback
too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from benchmarks.protocol import ROOT
from benchmarks.report import markdown_table, spread

__all__ = ["loop_table", "measure", "measure_loop", "table"]

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


# -- a whole epoch with everything switched on -----------------------------------------------------------------


def measure_loop(threads: int, rounds: int, samples: int, extra: Mapping[str, str]) -> dict[str, float]:
    """What an epoch costs beside its bare steps, as seconds; see `loop_table`."""
    environment = {**os.environ, "CHAINRULE_THREADS": str(threads), **extra}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.overhead", json.dumps({"loop": samples, "rounds": rounds})],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=environment,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def loop_table(found: Mapping[str, float]) -> str:
    """The shares as Markdown: of an epoch of bare steps, for each thing that `fit` does besides."""
    bare = found["bare steps"]
    rows = [[name, f"{value:.3f}", f"{value / bare:.2%}"] for name, value in found.items()]
    header = ("an epoch", "seconds", "of the bare steps")
    return "## fit with callbacks, metrics, validation and progress\n\n" + markdown_table(header, rows)


def _loop(samples: int, rounds: int) -> dict[str, float]:
    """Seconds of one epoch by what they are spent on, in this process."""
    import tempfile
    import time

    import chainrule as cr
    from benchmarks.networks import images

    batch, held_out = 128, max(batch_of_validation(samples), 1)
    x, y = images(samples + held_out)
    bare, full = _loop_model([]), _loop_model(LOOP_METRICS)
    few = slice(0, STEPS_IN_TURN * batch)
    with _native_time() as (native, processor), tempfile.TemporaryDirectory() as folder:
        for model in (bare, full):
            model.fit(x[few], y[few], batch_size=batch, verbose=0)
        turns: list[list[float]] = [[], []]
        for _ in range(rounds):
            for number, model in enumerate((bare, full)):
                native.clear()
                model.fit(x[few], y[few], batch_size=batch, verbose=0)
                turns[number].append(native["step"])
        without, with_metrics = (min(times) / STEPS_IN_TURN for times in turns)
        kernels = full.profile(x[few], y[few], batch, STEPS_IN_TURN).kernels
        steps = -(-samples // batch)
        native.clear()
        processor.clear()
        marks: list[float] = []
        busy: list[float] = []

        def mark() -> None:
            """Python's time so far, by the clock and as processor time."""
            marks.append(time.perf_counter() - sum(native.values()))
            busy.append(time.thread_time() - sum(processor.values()))

        note = cr.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: mark())
        with _terminal():
            mark()
            full.fit(
                x[:samples],
                y[:samples],
                batch_size=batch,
                epochs=LOOP_EPOCHS,
                verbose=1,
                validation_data=(x[samples:], y[samples:]),
                callbacks=[*_loop_callbacks(folder), note],
            )
            mark()
    python, work = ([after - before for before, after in itertools.pairwise(times)] for times in (marks, busy))
    each = statistics.fmean(python[2:-1])  # the first epoch and the end hold what is done once
    return {
        "bare steps": without * steps,
        "steps with metrics less bare ones": (with_metrics - without) * steps,
        "the metrics' own kernels": sum(kernel.seconds for kernel in kernels if "metrics" in kernel.where) * steps,
        "Python: callbacks, files, progress": each,
        "the same as processor time": statistics.fmean(work[2:-1]),
        "validation's forward runs": native["evaluate"] / LOOP_EPOCHS,
        "once a fit: imports, checks, the data's hash": sum(python) - LOOP_EPOCHS * each,
    }


STEPS_IN_TURN, LOOP_EPOCHS = 20, 4
LOOP_METRICS = ["accuracy", "top_3_accuracy", "precision", "recall", "auc", "confusion_matrix"]


def batch_of_validation(samples: int) -> int:
    """A sixth of the training samples: 10,000 for 60,000."""
    return samples // 6


def _loop_model(metrics: Sequence[str]) -> Any:
    import chainrule as cr
    from benchmarks.networks import NETWORKS
    from benchmarks.workers.common import sequential

    model = sequential(cr, NETWORKS["conv32-conv64-dense64"], None)
    loss = cr.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(cr.optimizers.SGD(0.01), loss, metrics=list(metrics))
    return model


def _loop_callbacks(folder: str) -> list[Any]:
    from chainrule import callbacks as kinds
    from chainrule.errors import MissingDependencyError

    found: list[Any] = [
        kinds.EarlyStopping(patience=5, restore_best_weights=True),
        kinds.ModelCheckpoint(f"{folder}/best.safetensors", save_best_only=True),
        kinds.BackupAndRestore(f"{folder}/backup", seconds=30),
        kinds.CSVLogger(f"{folder}/log.csv"),
    ]
    with contextlib.suppress(MissingDependencyError):
        found.append(kinds.TensorBoard(f"{folder}/board"))
    return found


@contextlib.contextmanager
def _native_time() -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Seconds in calls of native steps by the name of the graph, and the caller's processor time in them."""
    import time

    from chainrule.engines.native.executable import Executable

    spent: defaultdict[str, float] = defaultdict(float)
    processor: defaultdict[str, float] = defaultdict(float)
    real = Executable.run_steps

    def run_steps(engine: Executable, *arguments: Any) -> int:
        began, busy = time.perf_counter(), time.thread_time()
        try:
            return real(engine, *arguments)
        finally:
            spent[engine.graph.name] += time.perf_counter() - began
            processor[engine.graph.name] += time.thread_time() - busy

    with mock.patch.object(Executable, "run_steps", run_steps):
        yield spent, processor


@contextlib.contextmanager
def _terminal() -> Iterator[None]:
    """Standard output is a pseudo-terminal that somebody reads."""
    import pty
    import threading

    here, there = pty.openpty()

    def drain() -> None:
        with contextlib.suppress(OSError):
            while os.read(here, 65536):
                pass

    threading.Thread(target=drain, daemon=True).start()
    with open(there, "w", encoding="utf-8") as screen, contextlib.redirect_stdout(screen):
        yield


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
    given = json.loads(sys.argv[1])
    print(json.dumps(_loop(given["loop"], given["rounds"]) if "loop" in given else _differences(**given)))
