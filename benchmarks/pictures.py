"""Training from picture files beside training from arrays: how long the engine waits for samples, and the memory.

Each reading is a fresh process.  Both kinds train ResNet-20 with flips and crops on the same samples in the same order
for the same number of steps, so their losses must agree to the last bit.  The engine's threads and those that read
share the processors, so what decoding costs shows in two places: as the time that the training waits for samples, and
as steps that take longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.protocol import ROOT, memory_now
from benchmarks.report import markdown_table, spread

__all__ = ["Job", "measure", "table"]

MIB = 2**20
KINDS = ("files", "arrays")


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        kind: ``files``, or ``arrays`` for the same pictures, decoded before anything is measured.
        data: a folder with a folder of pictures for each class.
        batch: samples in a step.
        steps: how many are measured; an epoch's at the most.
        workers: threads that read.
        size: height and width to bring pictures to; None for those that they have.
    """

    kind: str
    data: str
    batch: int
    steps: int
    workers: int
    size: tuple[int, int] | None = None


def measure(
    jobs: Sequence[Job], threads: int, rounds: int, extra: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """Readings by kind, each from a process of its own, in turns.

    Raises:
        RuntimeError: the trainings did not reach the same loss.
    """
    environment = {**os.environ, "CHAINRULE_THREADS": str(threads), **extra}
    found: dict[str, list[dict[str, Any]]] = {job.kind: [] for job in jobs}
    for _ in range(rounds):
        for job in jobs:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.pictures", json.dumps(asdict(job))],
                stdout=subprocess.PIPE,
                cwd=ROOT,
                env=environment,
                text=True,
                check=True,
            )
            found[job.kind].append(json.loads(done.stdout))
            print(job.kind, done.stdout.strip(), flush=True)
    losses = {reading["loss"] for readings in found.values() for reading in readings}
    if len(losses) > 1:
        raise RuntimeError(f"the trainings reached different losses: {sorted(losses)}")
    return found


def table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The readings as Markdown; memory is less the arrays of samples."""
    rows = []
    for kind, readings in found.items():
        first = readings[0]
        rows.append(
            [
                kind,
                spread([one["samples"] / one["seconds"] for one in readings], 0),
                spread([100 * one["waited"] / one["seconds"] for one in readings], 1),
                spread([(one["peak"] - one["data_bytes"]) / MIB for one in readings], 0),
                f"{first['data_bytes'] / MIB:.0f}",
            ]
        )
    header = ("samples from", "samples/s", "waited for samples, %", "peak memory less the data, MiB", "data, MiB")
    steps = next(iter(found.values()))[0]["steps"]
    return f"## Training from picture files: ResNet-20, {steps} steps\n\n" + markdown_table(header, rows)


def _train(job: Job) -> dict[str, Any]:
    """One reading, in this process."""
    import numpy as np

    import chainrule as cr
    from benchmarks.networks import resnet20
    from chainrule.train.supply import Numbered

    class Watch(cr.callbacks.Callback):
        """Takes hold of the feed, which knows how long was waited for it."""

        feed: Any = None

        def on_train_begin(self, logs: Any = None) -> None:
            assert isinstance(self.fitting.supply, Numbered)
            self.feed = self.fitting.supply.feed

    source = cr.data.picture_folder(job.data, size=(job.size[0], job.size[1]) if job.size else None)
    count = len(source)
    began = time.perf_counter()
    x, y = source.load() if job.kind == "arrays" else (source, None)
    loading = time.perf_counter() - began
    model = resnet20(cr, source.shape, len(source.class_names))
    model.compile(cr.optimizers.SGD(0.05, momentum=0.9), cr.losses.SparseCategoricalCrossentropy(from_logits=True))
    augment = [cr.augment.RandomFlip(), cr.augment.RandomCrop(4)]
    watch = Watch()
    options: dict[str, Any] = {"batch_size": job.batch, "verbose": 0, "augment": augment, "workers": job.workers}
    model.fit(x, y, steps_per_epoch=2, **options)  # compiles
    whole = -(-count // job.batch)
    steps = min(job.steps, whole)
    processor = time.process_time()
    began = time.perf_counter()
    history = model.fit(x, y, steps_per_epoch=steps, callbacks=[watch], **options)
    seconds = time.perf_counter() - began
    return {
        "kind": job.kind,
        "loss": history.history["loss"][-1],
        "steps": steps,
        "samples": min(steps * job.batch, count),
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "waited": getattr(watch.feed, "waited", 0.0),
        "loading_seconds": loading,
        "peak": memory_now()["peak"],
        "data_bytes": x.nbytes if isinstance(x, np.ndarray) else 0,
    }


if __name__ == "__main__":
    print(json.dumps(_train(Job(**json.loads(sys.argv[1])))))
