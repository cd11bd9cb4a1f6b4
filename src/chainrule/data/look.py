"""What looking at one picture after the other adds up to: sizes, modes, classes, sums of pixels, and who is alike."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from chainrule.data.pictures import read_with_mode
from chainrule.errors import DataError
from chainrule.files import readable
from chainrule.graph.op import Array

__all__ = ["Entry", "Tally", "entry_of", "tally_array", "tally_files"]

_SLAB = 1 << 16  # pixels that are summed at once, so that a large picture needs little more memory than itself
_TOGETHER = 64  # files that a thread takes at once


class Entry(NamedTuple):
    """A picture that is to be looked at."""

    path: str
    name: str
    kind: str


@dataclass
class Tally:
    """What was seen of one part of a data set.

    Attributes:
        classes: pictures that could be read, by class.
        broken: why a file could not be read, by name.
        sizes, modes: how many have each.
        examples: a picture of each size and of each mode.
        pixels: how many.
        total, square: sums over all pixels of each channel, in 0..1, and of their squares.
        content: class and name of the pictures by what they show.
    """

    classes: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    examples: dict[Any, str] = field(default_factory=dict)
    pixels: int = 0
    total: Array = field(default_factory=lambda: np.zeros(1))
    square: Array = field(default_factory=lambda: np.zeros(1))
    content: dict[bytes, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def add(self, entry: Entry, seen: _Look) -> None:
        """Take a picture into account."""
        self.classes[entry.kind] += 1
        self.sizes[seen.size] += 1
        self.modes[seen.mode] += 1
        self.examples.setdefault(seen.size, entry.name)
        self.examples.setdefault(seen.mode, entry.name)
        self.pixels += seen.size[0] * seen.size[1]
        self.total = self.total + seen.total
        self.square = self.square + seen.square
        self.content[seen.digest].append((entry.kind, entry.name))


class _Look(NamedTuple):
    """What one picture adds."""

    size: tuple[int, int]
    mode: str
    digest: bytes
    total: Array
    square: Array


def tally_files(entries: Iterable[Entry], kinds: Iterable[str], workers: int) -> Tally:
    """Read all pictures.

    Args:
        entries: which.
        kinds: all classes, also those without a picture.
        workers: threads that read.
    """
    found = Tally(Counter(dict.fromkeys(kinds, 0)))
    with ThreadPoolExecutor(workers) as pool:
        for some in pool.map(_look_at, list(_pieces(entries))):
            for entry, seen in some:
                if isinstance(seen, str):
                    found.broken[entry.name] = seen
                else:
                    found.add(entry, seen)
    return found


def _pieces(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    rest = iter(entries)
    while some := list(islice(rest, _TOGETHER)):
        yield some


def _look_at(entries: list[Entry]) -> list[tuple[Entry, _Look | str]]:
    return [(entry, _look(entry.path)) for entry in entries]


def _look(path: str) -> _Look | str:
    """What a file adds, or what is wrong with it."""
    try:
        pixels, mode = read_with_mode(path)
    except DataError as error:
        return str(error).removeprefix(f"'{readable(path)}'").lstrip(": ")
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(b"%dx%d" % (height, width))
    digest.update(pixels.data)
    return _Look((height, width), mode, digest.digest(), *_sums(pixels.reshape(height * width, -1), 1 / 255))


def _sums(pixels: Array, scale: float) -> tuple[Array, Array]:
    """The sums of each channel and of its squares."""
    total, square = np.zeros(pixels.shape[1]), np.zeros(pixels.shape[1])
    for low in range(0, len(pixels), _SLAB):
        some = np.ascontiguousarray(pixels[low : low + _SLAB].T, np.float64)  # sums along rows are fast
        total += some.sum(axis=1)
        square += np.einsum("cp,cp->c", some, some)
    return total * scale, square * scale**2


def tally_array(images: Array, labels: Array, class_names: tuple[str, ...], name: str, scale: float) -> Tally:
    """The same of pictures in an array.

    Args:
        images: (samples, height, width, channels).
        labels: class numbers.
        class_names: the name of each class.
        name: of the array; samples are called ``name[0]`` and so on.
        scale: what takes pixels to 0..1.
    """
    found = Tally(Counter(dict.fromkeys(class_names, 0)))
    height, width, channels = images.shape[1:]
    mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels, f"{channels} channels")
    nothing = np.zeros(channels)
    for number, image in enumerate(images):
        digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        entry = Entry("", f"{name}[{number}]", class_names[int(labels[number])])
        found.add(entry, _Look((height, width), mode, digest, nothing, nothing))
    found.total, found.square = _sums(images.reshape(-1, channels), scale)
    return found


def entry_of(path: str, root: str | os.PathLike[str], kind: str) -> Entry:
    """A file below a folder."""
    return Entry(path, readable(os.path.relpath(path, root)), kind)
