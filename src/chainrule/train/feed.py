"""Where a training's samples come from: numbered rows of arrays, or of a source that is read while the engine works."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from chainrule.errors import ConfigError, DataError
from chainrule.graph.dims import BATCH
from chainrule.graph.op import Array, Spec

if TYPE_CHECKING:
    from concurrent.futures import Future

    from chainrule.data.source import Source

__all__ = ["Arrays", "Chunk", "Feed", "Stream", "batch_spec"]

CHUNK_BYTES = 1 << 22
"""About so many bytes of samples make a chunk, which is one native call."""
AHEAD = 3
"""Chunks that are read before they are needed, if they fit into `BUFFER_BYTES`; else fewer, but one at the least."""
BUFFER_BYTES = 1 << 26
"""What all chunks of a stream may take together, but for two chunks of one batch each."""


class Chunk(NamedTuple):
    """Some consecutive batches of an epoch.

    Attributes:
        data: arrays by the names of the graph's inputs.
        rows: which of their rows, in order.
        sizes: samples of each batch; None where all have as many as was agreed, but for the last.
    """

    data: Mapping[str, Array]
    rows: Array
    sizes: Array | None = None


class Feed(Protocol):
    """Samples by number; the order in which they are taken is not the feed's affair."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        ...

    @property
    def specs(self) -> Mapping[str, Spec]:
        """A batch of each input, by name: ``x``, ``y``, and ``sample_weight`` where samples are weighted."""
        ...

    def chunks(self, order: Array, batch_size: int) -> Iterator[Chunk]:
        """The samples `order` in that order, in chunks of whole batches (but for the last)."""
        ...


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples in memory (or in a mapped file): all batches are one chunk, whose rows the engine takes by number."""

    data: Mapping[str, Array]

    @property
    def count(self) -> int:
        return len(self.data["x"])

    @property
    def specs(self) -> Mapping[str, Spec]:
        return {name: batch_spec(array) for name, array in self.data.items()}

    def chunks(self, order: Array, batch_size: int) -> Iterator[Chunk]:
        yield Chunk(self.data, np.ascontiguousarray(order, np.int64))

    def column(self, name: str) -> Array | None:
        """An input beside ``x``; None if there is none of that name."""
        return self.data.get(name)

    def joined(self, name: str, column: Array) -> Arrays:
        """The same with another input beside ``x``, in place of the one of that name."""
        return Arrays({**self.data, name: column})

    def numbered(self) -> Arrays:
        """The same with each sample's number, for augmentations."""
        return self.joined("sample", np.arange(self.count, dtype=np.uint32))

    def split(self, fraction: float) -> tuple[Arrays, Arrays | None]:
        """The samples without their last part, and that part."""
        kept = _kept(self.count, fraction)
        if kept == self.count:
            return self, None
        first = Arrays({name: array[:kept] for name, array in self.data.items()})
        return first, Arrays({name: array[kept:] for name, array in self.data.items()})


class Stream:
    """A feed from a source.

    Decoding runs in threads: Pillow and the engine both let other threads run meanwhile.

    Args:
        source: the samples.
        labels: as the loss takes them, and weights: the inputs beside ``x``, rows in memory.
        workers: threads that read.
        group: batches that must lie in one chunk.

    Attributes:
        waited: seconds that the training has waited for samples.
    """

    def __init__(self, source: Source, labels: Mapping[str, Array], workers: int, group: int = 1) -> None:
        self.source, self.labels = source, dict(labels)
        self.workers, self.group = workers, group
        self.waited = 0.0
        self._spec = Spec((BATCH, *source.shape), source.dtype)

    @property
    def count(self) -> int:
        return len(self.source)

    @property
    def specs(self) -> Mapping[str, Spec]:
        return {"x": self._spec, **{name: batch_spec(array) for name, array in self.labels.items()}}

    def chunks(self, order: Array, batch_size: int) -> Iterator[Chunk]:
        from chainrule.train.readers import Readers

        unit = batch_size * self.group
        unit_bytes = unit * max(1, int(np.prod(self.source.shape)) * self.source.dtype.itemsize)
        most = max(1, CHUNK_BYTES // unit_bytes)
        ahead = max(1, min(AHEAD, BUFFER_BYTES // (most * unit_bytes) - 1))
        rows = min(most * unit, len(order))
        free = deque(np.empty((rows, *self.source.shape), self.source.dtype) for _ in range(ahead + 1))
        waiting: deque[_Reading] = deque()
        readers = Readers(self.source, self.workers)
        try:
            for part in _growing(len(order), unit, most):
                buffer = free.popleft()
                waiting.append(_Reading(buffer, order[part], readers.start(order[part], buffer)))
                if len(waiting) > ahead:
                    yield self._next(waiting, free)
            while waiting:
                yield self._next(waiting, free)
        finally:
            readers.close()

    def _next(self, waiting: deque[_Reading], free: deque[Array]) -> Chunk:
        """The oldest chunk; its memory is free again when the one after it is asked for."""
        buffer, numbers, pieces = waiting[0]
        began = time.perf_counter()
        for piece in pieces:
            piece.result()
        self.waited += time.perf_counter() - began
        waiting.popleft()
        free.append(buffer)
        rest = {name: array[numbers] for name, array in self.labels.items()}
        return Chunk({"x": buffer[: len(numbers)], **rest}, np.arange(len(numbers), dtype=np.int64))

    def column(self, name: str) -> Array | None:
        """An input beside ``x``; None if there is none of that name."""
        return self.labels.get(name)

    def joined(self, name: str, column: Array) -> Stream:
        """The same with another input beside ``x``, in place of the one of that name."""
        return Stream(self.source, {**self.labels, name: column}, self.workers, self.group)

    def numbered(self) -> Stream:
        """The same with each sample's number, for augmentations."""
        return self.joined("sample", np.arange(self.count, dtype=np.uint32))

    def split(self, fraction: float) -> tuple[Stream, Stream | None]:
        """The samples without their last part, and that part."""
        kept = _kept(self.count, fraction)
        if kept == self.count:
            return self, None
        return self._part(0, kept), self._part(kept, self.count)

    def _part(self, low: int, high: int) -> Stream:
        labels = {name: array[low:high] for name, array in self.labels.items()}
        return Stream(self.source.part(range(low, high)), labels, self.workers, self.group)


class _Reading(NamedTuple):
    """A chunk that is being read."""

    buffer: Array
    numbers: Array
    pieces: list[Future[None]]


def _growing(count: int, unit: int, most: int) -> Iterator[slice]:
    """Parts of an epoch in units of batches: the first is there soon, and later ones are larger."""
    start, units = 0, 1
    while start < count:
        yield slice(start, min(start + units * unit, count))
        start += units * unit
        units = min(2 * units, most)


def _kept(count: int, fraction: float) -> int:
    """How many samples stay when a last part is held out."""
    if not 0 <= fraction < 1:
        raise ConfigError(f"validation_split lies in [0, 1), got {fraction!r}")
    kept = int(count * (1 - fraction))
    if not kept > 0 or (fraction and kept == count):
        raise DataError(f"validation_split={fraction} of {count} samples leaves an empty part")
    return kept


def batch_spec(array: Array) -> Spec:
    """Any number of such rows."""
    return Spec((BATCH, *array.shape[1:]), array.dtype)
