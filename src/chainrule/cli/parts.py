"""The parts of a data set: to train on, to validate with, to test; in memory, or read when they are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule import random
from chainrule.data import ArraySource, Dataset, Part, Pictures, Source
from chainrule.errors import ConfigError, DataError
from chainrule.ops.random import random_permutation
from chainrule.train.feed import Stream

__all__ = ["Data", "as_arrays", "as_classes", "batches_of", "hold_out", "lopsided", "sample_name", "split_classes"]

_HOLD_OUT_STREAM = 0x0E5A17DA
"""The random stream of the validation part; layers' streams are hashes of their paths."""
_TEST_STREAM = 0x7E57DA7A
"""The random stream of the test part."""
_LOOKED_AT = 256  # samples from which the largest value of a pixel is told, where they are not 8-bit


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in parts.

    Attributes:
        name: of the data set.
        train: what is trained on.
        test: what is tested with.
        validation: what is evaluated after each epoch, where the data bring such a part.
        class_names: the name of each class.
        workers: threads that read samples.
    """

    name: str
    train: Source
    test: Source | None
    validation: Source | None
    class_names: tuple[str, ...]
    workers: int = 2

    @classmethod
    def of_arrays(cls, dataset: Dataset) -> Data:
        """A data set in memory."""
        train = ArraySource(dataset.x_train, dataset.y_train, dataset.class_names)
        test = ArraySource(dataset.x_test, dataset.y_test, dataset.class_names)
        return cls(dataset.name, train, test, None, dataset.class_names)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image: height, width, channels."""
        return self.train.shape

    @property
    def held_out(self) -> Source:
        """The test part; loaders give one to every data set.

        Raises:
            ConfigError: there is none.
        """
        if self.test is None:
            raise ConfigError(f"the data set {self.name} has no test part")
        return self.test

    def describe(self) -> str:
        """One line: the name, the counts, the shape of an image and the number of classes."""
        image = "x".join(str(size) for size in self.shape)
        validation = "" if self.validation is None else f", {len(self.validation)} validation"
        return (
            f"{self.name}: {len(self.train)} training{validation} and {len(self.held_out)} test images of {image} "
            f"{self.train.dtype}, {len(self.class_names)} classes"
        )

    def describe_test(self) -> str:
        """One line: the name, the count of the test part, and the shape of an image."""
        image = "x".join(str(size) for size in self.shape)
        return f"{self.name}: {len(self.held_out)} test images of {image} {self.train.dtype}"

    def scale(self) -> float:
        """What takes pixels to 0..1: 1/255 for 8-bit images, else one over the largest training value."""
        if self.train.dtype == np.uint8:
            return 1 / 255
        if isinstance(self.train, ArraySource):
            largest = float(np.abs(self.train.samples).max())
        else:
            largest = max(float(np.abs(self.train.read(n)).max()) for n in range(min(_LOOKED_AT, len(self.train))))
        return 1 / largest if largest else 1.0

    def check(self) -> None:
        """Look at every part before a training, as far as that goes without reading whole samples.

        Raises:
            DataError: a sample cannot be read or has another shape; the message names the first such file.
        """
        for part in (self.train, self.validation, self.test):
            if part is not None:
                part.check(self.workers)

    def fingerprint(self) -> str:
        """SHA-256 over every sample's identity and label, and over which part it is in."""
        total = hashlib.sha256()
        for part in (self.train, self.validation, self.test):
            total.update(b"-" if part is None else part.fingerprint().encode())
        return total.hexdigest()


def hold_out(data: Data, fraction: float, seed: int) -> Data:
    """The data with a random share of the training part as its validation part.

    Raises:
        ConfigError: that leaves one of them empty, or there is a validation part already.
    """
    if not fraction:
        return data
    if data.validation is not None:
        raise ConfigError(f"the data set {data.name} brings a validation part; leave --validation-fraction away")
    count = round(len(data.train) * fraction)
    if not 0 < count < len(data.train):
        raise ConfigError(f"validation fraction {fraction} of {len(data.train)} training images leaves an empty part")
    order = random_permutation(*random.words(seed), size=len(data.train), stream=_HOLD_OUT_STREAM).numpy()
    kept, held = np.sort(order[count:]), np.sort(order[:count])
    return replace(data, train=_part(data.train, kept), validation=_part(data.train, held))


def lopsided(data: Data) -> list[str]:
    """What the parts lack: classes that are never learned, and classes that are never tested."""
    count = len(data.class_names)
    learned, tested = (np.bincount(part.labels, minlength=count)[:count] > 0 for part in (data.train, data.held_out))
    found = []
    lacks = {"training image: it cannot be learned": tested & ~learned, "test image": learned & ~tested}
    for what, lacking in lacks.items():
        numbers = np.flatnonzero(lacking)
        if len(numbers):
            others = f" and {len(numbers) - 1} more" if len(numbers) > 1 else ""
            found.append(f"the class {data.class_names[numbers[0]]!r}{others} has no {what}")
    return found


def split_classes(data: Data, fraction: float, seed: int) -> Data:
    """The data with a random share of every class as its test part; a class with one sample keeps it for training.

    Raises:
        ConfigError: no class has a sample to spare.
    """
    order = random_permutation(*random.words(seed), size=len(data.train), stream=_TEST_STREAM).numpy()
    labels = data.train.labels[order]
    held = []
    for number in range(len(data.class_names)):
        own = order[labels == number]
        held.append(own[: min(max(1, round(len(own) * fraction)), len(own) - 1)] if len(own) > 1 else own[:0])
    chosen = np.sort(np.concatenate(held))
    if not len(chosen):
        raise ConfigError(f"the data set {data.name} has one sample a class; there is none to spare for a test part")
    rest = np.setdiff1d(np.arange(len(data.train)), chosen)
    return replace(data, train=_part(data.train, rest), test=_part(data.train, chosen))


def as_classes(part: Source, names: Sequence[str]) -> Source:
    """A part with its classes numbered as a model has them, which is told by their names where both have some.

    Raises:
        DataError: a sample's class is none of the model's.
    """
    given = part.class_names
    if tuple(given) == tuple(names) or _unnamed(given) or _unnamed(names):
        return part
    present = np.unique(part.labels)
    unknown = [name for number, name in enumerate(given) if number in present and name not in names]
    if unknown:
        raise DataError(f"the class {unknown[0]!r} of the data is none of the model's: {', '.join(names)}")
    numbers = np.array([names.index(name) if name in names else -1 for name in given], np.int64)
    labels = numbers[part.labels]
    if isinstance(part, ArraySource):
        return ArraySource(part.samples, labels, names)
    renamed = part.part(np.arange(len(part)))
    renamed.labels, renamed.class_names = labels, tuple(names)
    return renamed


def _unnamed(names: Sequence[str]) -> bool:
    """Whether classes have numbers for names."""
    return list(names) == [str(number) for number in range(len(names))]


def sample_name(part: Source, number: int) -> str | int:
    """The file of a picture; else the sample's number."""
    if isinstance(part, Pictures):
        return part.files[number]
    return sample_name(part.whole, int(part.numbers[number])) if isinstance(part, Part) else number


def as_arrays(part: Source) -> tuple[Any, Any]:
    """What `fit` takes for a part: arrays where they are in memory, else the source, which brings its labels."""
    return (part.samples, part.labels) if isinstance(part, ArraySource) else (part, None)


def batches_of(part: Source, size: int, workers: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """All samples and labels of a part in order, some at a time: all that lie in memory, else some batches."""
    if isinstance(part, ArraySource):
        yield part.samples, part.labels
        return
    done = 0
    for chunk in Stream(part, {}, workers).chunks(np.arange(len(part)), size):
        yield chunk.data["x"], part.labels[done : done + len(chunk.rows)]
        done += len(chunk.rows)


def _part(source: Source, numbers: NDArray[Any]) -> Source:
    if isinstance(source, ArraySource):
        return ArraySource(source.samples[numbers], source.labels[numbers], source.class_names)
    return source.part(numbers)
