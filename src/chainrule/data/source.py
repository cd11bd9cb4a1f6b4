"""Samples that are read by number while a training runs, so that they need not fit into memory."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from chainrule.errors import DataError
from chainrule.graph.op import Array

__all__ = ["ArraySource", "Part", "Source"]

_FINGERPRINT_THREADS, _FINGERPRINT_PIECE = 2, 256  # more threads get into one another's way


class Source(ABC):
    """Labelled samples of one shape; subclasses read one by its number, from any thread.

    Attributes:
        shape: of a sample.
        dtype: of a sample.
        labels: one for each sample.
        class_names: the name of each class, if labels are class numbers.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    labels: Array
    class_names: tuple[str, ...] = ()

    @abstractmethod
    def read(self, number: int) -> Array:
        """Sample `number`, in the source's shape and dtype.

        Raises:
            DataError: it cannot be read; the message names the file.
        """

    @abstractmethod
    def identity(self, number: int) -> bytes:
        """What tells sample `number` from another, and from what it was before it was changed; from any thread."""

    def __len__(self) -> int:
        return len(self.labels)

    def check(self, workers: int = 2, numbers: Array | None = None) -> None:
        """Find out, before a training starts, what can be found out quickly; by default whether the first sample fits.

        Args:
            workers: threads that look.
            numbers: the samples that count; by default all.

        Raises:
            DataError: a sample cannot be read or has another shape; the message names the first such file.
        """
        first = 0 if numbers is None or not len(numbers) else int(numbers[0])
        found = np.shape(self.read(first))
        if found != self.shape:
            raise DataError(f"sample {first} of the source has the shape {found}; the source says {self.shape}")

    def fingerprint(self) -> str:
        """SHA-256 over the identities and labels of all samples, by which a run knows its data again."""
        total = hashlib.sha256(f"{self.shape}{self.dtype.str}{self.class_names}".encode())
        total.update(np.ascontiguousarray(self.labels).data)
        with ThreadPoolExecutor(_FINGERPRINT_THREADS) as pool:
            for some in pool.map(self._identities, range(0, len(self), _FINGERPRINT_PIECE)):
                total.update(some)
        return total.hexdigest()

    def _identities(self, first: int) -> bytes:
        last = min(first + _FINGERPRINT_PIECE, len(self))
        return b"".join(self.identity(number) + b"\0" for number in range(first, last))

    def load(self) -> tuple[Array, Array]:
        """All samples and labels as arrays."""
        samples = np.empty((len(self), *self.shape), self.dtype)
        for number in range(len(self)):
            samples[number] = self.read(number)
        return samples, self.labels

    def part(self, numbers: Sequence[int] | Array) -> Part:
        """Some of the samples, in that order."""
        return Part(self, np.asarray(numbers, np.int64))


class Part(Source):
    """Some samples of a source.

    Args:
        whole: the source.
        numbers: which, in order.
    """

    def __init__(self, whole: Source, numbers: Array) -> None:
        if not len(numbers):
            raise DataError("a part of a source needs at least one sample")
        self.whole, self.numbers = whole, numbers
        self.shape, self.dtype, self.class_names = whole.shape, whole.dtype, whole.class_names
        self.labels = whole.labels[numbers]

    def read(self, number: int) -> Array:
        return self.whole.read(int(self.numbers[number]))

    def identity(self, number: int) -> bytes:
        return self.whole.identity(int(self.numbers[number]))

    def check(self, workers: int = 2, numbers: Array | None = None) -> None:
        self.whole.check(workers, self.numbers if numbers is None else self.numbers[numbers])


class ArraySource(Source):
    """Rows of an array that need not be in memory, such as ``numpy.load(file, mmap_mode="r")``.

    Args:
        samples: rows along the first axis.
        labels: one for each row.
        class_names: the name of each class.
        dtype: what rows are turned into as they are read; by default they stay as they are.
        name: what errors call it.

    Raises:
        DataError: there are no samples, or not as many labels.

    >>> source = ArraySource(np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 1, 0]))
    >>> len(source), source.read(1).shape
    (3, (2, 2, 1))
    """

    def __init__(
        self,
        samples: Array,
        labels: Array,
        class_names: Sequence[str] = (),
        dtype: np.dtype[Any] | None = None,
        name: str = "the array",
    ) -> None:
        if len(samples) != len(labels) or not len(labels):
            many = f"{len(samples)} samples and {len(labels)} labels"
            raise DataError(f"{name}: {many}; expected one or more, as many of each")
        self.samples, self.labels = samples, np.asarray(labels)
        self.shape, self.dtype = tuple(samples.shape[1:]), samples.dtype if dtype is None else np.dtype(dtype)
        self.class_names, self.name = tuple(class_names), name

    def read(self, number: int) -> Array:
        found: Array = np.asarray(self.samples[number], self.dtype)
        if self.dtype.kind == "f" and not np.isfinite(found).all():
            raise DataError(f"{self.name}: sample {number} holds NaN or infinite values")
        return found

    def identity(self, number: int) -> bytes:
        return hashlib.sha256(np.ascontiguousarray(self.samples[number]).data).digest()
