"""Steps in a row: as many as fit into one native call, with their learning rates, counts and random keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from chainrule.engines import Engine, Stop
from chainrule.graph.dims import bind_size
from chainrule.graph.op import Array
from chainrule.optimizers import Optimizer
from chainrule.random import get_seed, words
from chainrule.train.feed import Chunk

__all__ = ["AccumulatedSteps", "PlainSteps", "Steps"]


class Steps(ABC):
    """Runs batches of a chunk.

    Args:
        optimizer: whose learning rates and step numbers count.
        batch_size: samples of a batch.

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

    @property
    @abstractmethod
    def flops(self) -> float:
        """Floating-point operations of a batch, with its share of the update."""

    def _key(self) -> dict[str, Array]:
        seed, epoch, first_row = (item.data for item in words(get_seed(), time=self.epoch))
        return {"seed": seed, "first_row": first_row, "epoch": epoch}

    def _rows(self, chunk: Chunk, first: int, count: int) -> Array:
        return chunk.rows[first * self.batch_size : (first + count) * self.batch_size]


class PlainSteps(Steps):
    """Every batch is a step."""

    def __init__(self, step: Engine, optimizer: Optimizer, batch_size: int) -> None:
        super().__init__(optimizer, batch_size)
        self._step = step

    @property
    def flops(self) -> float:
        return bind_size(self._step.graph.flops(), self.batch_size)

    def run(self, chunk: Chunk, first: int, count: int, stop: Stop) -> int:
        rows = self._rows(chunk, first, count)
        sizes = _sizes(len(rows), self.batch_size)
        rates = self.optimizer.rates(int(self.optimizer.iterations.data), len(sizes))
        scalars = {**self._key(), "learning_rate": rates, "count": sizes}
        return self._step.run_steps(chunk.data, rows, self.batch_size, scalars, stop)


class AccumulatedSteps(Steps):
    """Several batches are a step: their gradients are summed, and one update follows.

    A group that is interrupted is finished first: sums are never left half full.
    """

    def __init__(self, accumulate: Engine, update: Engine, optimizer: Optimizer, batch_size: int) -> None:
        super().__init__(optimizer, batch_size)
        self._accumulate, self._update = accumulate, update
        self.group = optimizer.options.accumulated

    @property
    def flops(self) -> float:
        whole = bind_size(self._update.graph.flops(), 1) / self.group
        return bind_size(self._accumulate.graph.flops(), self.batch_size) + whole

    def run(self, chunk: Chunk, first: int, count: int, stop: Stop) -> int:
        done = 0
        while done < count and not stop.requested:
            taken = min(self.group, count - done)
            self._one(chunk.data, self._rows(chunk, first + done, taken))
            done += taken
        return done

    def _one(self, data: Mapping[str, Array], rows: Array) -> None:
        sizes = _sizes(len(rows), self.batch_size)
        scalars = {
            **self._key(),
            "first_row": np.arange(len(sizes), dtype=np.uint32) * np.uint32(self.batch_size),
            "count": np.asarray(float(len(rows))),
        }
        self._accumulate.run_steps(data, rows, self.batch_size, scalars, Stop())
        self._update(self.optimizer.rates(int(self.optimizer.iterations.data), 1)[0])


def _sizes(rows: int, batch_size: int) -> Array:
    """The samples of each batch, as float64."""
    starts = np.arange(0, rows, batch_size)
    return np.minimum(batch_size, rows - starts).astype(np.float64)
