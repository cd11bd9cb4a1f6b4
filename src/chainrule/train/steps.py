"""Steps in a row: as many as fit into one native call, with their learning rates, counts and random keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import numpy as np

from chainrule.engines import Engine, Stop
from chainrule.graph.dims import bind_size
from chainrule.graph.op import Array
from chainrule.optimizers import Optimizer
from chainrule.random import get_seed, words
from chainrule.train.feed import Chunk

__all__ = ["AccumulatedSteps", "EngineFor", "PlainSteps", "Steps", "runs_of"]

EngineFor: TypeAlias = Callable[[int], Engine]
"""The engine for batches of so many samples."""


class Run(NamedTuple):
    """Batches that one native call can take.

    Attributes:
        rows: of the chunk's data.
        size: samples of each, but for the last.
        batches: how many there are.
    """

    rows: Array
    size: int
    batches: int


def runs_of(chunk: Chunk, batch_size: int, first: int, count: int) -> Iterator[Run]:
    """Some batches of a chunk: in one run where they are alike, else each in one of its own."""
    if chunk.sizes is None:
        yield Run(chunk.rows[first * batch_size : (first + count) * batch_size], batch_size, count)
        return
    start = int(chunk.sizes[:first].sum())
    for size in chunk.sizes[first : first + count].tolist():
        yield Run(chunk.rows[start : start + size], size, 1)
        start += size


class Steps(ABC):
    """Runs batches of a chunk.

    Args:
        optimizer: whose learning rates and step numbers count.
        batch_size: samples of a batch where a chunk does not say.

    Attributes:
        epoch: what augmentations draw from besides seed and sample.
    """

    group = 1
    """How many batches make one update."""

    def __init__(self, optimizer: Optimizer, batch_size: int) -> None:
        self.optimizer, self.batch_size = optimizer, batch_size
        self.epoch = 0

    @abstractmethod
    def run(self, chunk: Chunk, first: int, count: int, stop: Stop) -> int:
        """Run so many batches of a chunk from a batch number on, whole groups of them; gives how many were run."""

    @abstractmethod
    def engines(self) -> tuple[Engine, ...]:
        """What runs batches of the agreed size."""

    def count(self, chunk: Chunk) -> int:
        """How many batches a chunk has."""
        return -(-len(chunk.rows) // self.batch_size) if chunk.sizes is None else len(chunk.sizes)

    def samples(self, chunk: Chunk, first: int, count: int) -> int:
        """How many samples some of its batches have."""
        return sum(len(run.rows) for run in runs_of(chunk, self.batch_size, first, count))

    @property
    @abstractmethod
    def flops(self) -> float:
        """Floating-point operations of a batch, with its share of the update."""

    def _key(self) -> dict[str, Array]:
        seed, epoch, first_row = (item.data for item in words(get_seed(), time=self.epoch))
        return {"seed": seed, "first_row": first_row, "epoch": epoch}


class PlainSteps(Steps):
    """Every batch is a step."""

    def __init__(self, step: EngineFor, optimizer: Optimizer, batch_size: int) -> None:
        super().__init__(optimizer, batch_size)
        self._step = step

    def engines(self) -> tuple[Engine, ...]:
        return (self._step(self.batch_size),)

    @property
    def flops(self) -> float:
        return bind_size(self._step(self.batch_size).graph.flops(), self.batch_size)

    def run(self, chunk: Chunk, first: int, count: int, stop: Stop) -> int:
        done = 0
        for run in runs_of(chunk, self.batch_size, first, count):
            sizes = _sizes(len(run.rows), run.size)
            rates = self.optimizer.rates(int(self.optimizer.iterations.data), len(sizes))
            scalars = {**self._key(), "learning_rate": rates, "count": sizes}
            done += self._step(run.size).run_steps(chunk.data, run.rows, run.size, scalars, stop)
            if stop.requested:
                break
        return done


class AccumulatedSteps(Steps):
    """Several batches are a step: their gradients are summed, and one update follows.

    A group that is interrupted is finished first: sums are never left half full.
    """

    def __init__(self, accumulate: EngineFor, update: Engine, optimizer: Optimizer, batch_size: int) -> None:
        super().__init__(optimizer, batch_size)
        self._accumulate, self._update = accumulate, update
        self.group = optimizer.options.accumulated

    def engines(self) -> tuple[Engine, ...]:
        return self._accumulate(self.batch_size), self._update

    @property
    def flops(self) -> float:
        whole = bind_size(self._update.graph.flops(), 1) / self.group
        return bind_size(self._accumulate(self.batch_size).graph.flops(), self.batch_size) + whole

    def run(self, chunk: Chunk, first: int, count: int, stop: Stop) -> int:
        done = 0
        while done < count and not stop.requested:
            taken = min(self.group, count - done)
            self._one(chunk, list(runs_of(chunk, self.batch_size, first + done, taken)))
            done += taken
        return done

    def _one(self, chunk: Chunk, runs: list[Run]) -> None:
        scalars = {**self._key(), "count": np.asarray(float(sum(len(run.rows) for run in runs)))}
        start = 0
        for run in runs:
            first_rows = start + np.arange(run.batches, dtype=np.uint32) * np.uint32(run.size)
            own = {**scalars, "first_row": first_rows.astype(np.uint32)}
            self._accumulate(run.size).run_steps(chunk.data, run.rows, run.size, own, Stop())
            start += len(run.rows)
        self._update(self.optimizer.rates(int(self.optimizer.iterations.data), 1)[0])


def _sizes(rows: int, batch_size: int) -> Array:
    """The samples of each batch, as float64."""
    starts = np.arange(0, rows, batch_size)
    return np.minimum(batch_size, rows - starts).astype(np.float64)
